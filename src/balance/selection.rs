//! Which upstream gets the next connection: policy alone, on plain numbers. It knows neither upstreams
//! nor when one may be chosen.

use std::cmp::Ordering;

/// How connections are spread over the upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The one with the fewest connections for its weight; in turn, by weight, where several have.
    LeastConnections,
    /// In turn, as often as the weights say, and evenly (nginx's smooth weighted round-robin).
    RoundRobin,
}

/// What selection knows of an upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) weight: u32,
    pub(super) open: usize,
    /// It may be chosen now.
    pub(super) eligible: bool,
}

impl Candidate {
    /// In place of one that is not there.
    pub(super) const NOBODY: Self = Self { weight: 0, open: 0, eligible: false };

    /// Which of two has fewer connections for its weight.
    fn load_beside(&self, other: &Self) -> Ordering {
        let load = |one: &Self, other: &Self| one.open as u64 * u64::from(other.weight);
        load(self, other).cmp(&load(other, self))
    }
}

/// Remembers whose turn it is.
#[derive(Debug)]
pub(super) struct Selection {
    policy: Policy,
    /// What each has in credit (smooth round-robin).
    credits: Vec<i64>,
}

impl Selection {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, credits: Vec::new() }
    }

    pub(super) fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// How many there were at once, and have been numbered from 0.
    pub(super) fn slots(&self) -> usize {
        self.credits.len()
    }

    /// There is one with this number now, which may have been another's before.
    pub(super) fn comes(&mut self, slot: usize) {
        self.credits.resize(self.slots().max(slot + 1), 0);
        self.credits[slot] = 0;
    }

    /// The next one of those that are eligible, if any is. There is a candidate for each slot.
    pub(super) fn choose(&mut self, candidates: &[Candidate]) -> Option<usize> {
        match self.policy {
            Policy::LeastConnections => self.least(candidates),
            Policy::RoundRobin => self.in_turn(candidates),
        }
    }

    /// Those with the fewest connections for their weight, in turn by weight: where all are idle, as many
    /// come to each as its weight says.
    fn least(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let eligible = candidates.iter().filter(|candidate| candidate.eligible);
        let lighter = |a: &&Candidate, b: &&Candidate| a.load_beside(b);
        let least = *eligible.min_by(lighter)?;
        let tied = |candidate: &Candidate| Candidate {
            eligible: candidate.eligible && candidate.load_beside(&least).is_eq(),
            ..*candidate
        };
        self.in_turn(&candidates.iter().map(tied).collect::<Vec<_>>())
    }

    fn in_turn(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let mut total = 0;
        let mut best = None;
        for (index, candidate) in candidates.iter().enumerate().filter(|(_, candidate)| candidate.eligible) {
            total += i64::from(candidate.weight);
            self.credits[index] += i64::from(candidate.weight);
            if best.is_none_or(|best: usize| self.credits[index] > self.credits[best]) {
                best = Some(index);
            }
        }
        if let Some(best) = best {
            self.credits[best] -= total;
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        weights.iter().map(|&weight| Candidate { weight, open: 0, eligible: true }).collect()
    }

    fn selection(policy: Policy, upstreams: usize) -> Selection {
        let mut selection = Selection::new(policy);
        (0..upstreams).for_each(|slot| selection.comes(slot));
        selection
    }

    /// Chooses so often, and counts each connection as open.
    fn spread(policy: Policy, candidates: &mut [Candidate], times: usize) -> Vec<usize> {
        let mut selection = selection(policy, candidates.len());
        for _ in 0..times {
            let chosen = selection.choose(candidates).unwrap();
            candidates[chosen].open += 1;
        }
        candidates.iter().map(|candidate| candidate.open).collect()
    }

    #[test]
    fn connections_are_spread_by_weight() {
        for policy in [Policy::LeastConnections, Policy::RoundRobin] {
            assert_eq!(spread(policy, &mut candidates(&[1, 1, 1]), 9), [3, 3, 3]);
            assert_eq!(spread(policy, &mut candidates(&[5, 1, 2]), 16), [10, 2, 4]);
        }
    }

    #[test]
    fn the_weighted_turns_are_even() {
        let mut selection = selection(Policy::RoundRobin, 3);
        let candidates = candidates(&[5, 1, 1]);
        let turns: Vec<_> = (0..7).map(|_| selection.choose(&candidates).unwrap()).collect();
        assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn the_least_loaded_comes_first_and_equals_take_turns() {
        let mut selection = selection(Policy::LeastConnections, 3);
        let mut candidates = candidates(&[1, 1, 1]);
        candidates[0].open = 2;
        let turns: Vec<_> = (0..4).map(|_| selection.choose(&candidates).unwrap()).collect();
        assert_eq!(turns, [1, 2, 1, 2]);
    }

    #[test]
    fn idle_upstreams_take_turns_by_weight() {
        // Each connection has ended before the next comes.
        let mut selection = selection(Policy::LeastConnections, 3);
        let candidates = candidates(&[250, 100, 50]);
        let mut counts = [0; 3];
        (0..400).for_each(|_| counts[selection.choose(&candidates).unwrap()] += 1);
        assert_eq!(counts, [250, 100, 50]);
    }

    #[test]
    fn only_the_eligible_are_chosen() {
        for policy in [Policy::LeastConnections, Policy::RoundRobin] {
            let mut selection = selection(policy, 3);
            let mut candidates = candidates(&[1, 1, 1]);
            candidates[1].eligible = false;
            assert!((0..10).all(|_| selection.choose(&candidates) != Some(1)));
            candidates.iter_mut().for_each(|candidate| candidate.eligible = false);
            assert_eq!(selection.choose(&candidates), None);
        }
    }

    #[test]
    fn who_comes_to_a_slot_begins_anew() {
        let mut selection = selection(Policy::RoundRobin, 2);
        let mut two = candidates(&[1, 3]);
        assert_eq!((0..2).map(|_| selection.choose(&two).unwrap()).collect::<Vec<_>>(), [1, 0]);
        selection.comes(0);
        selection.comes(2);
        two[1] = Candidate::NOBODY;
        let three = [&two[..], &candidates(&[1])].concat();
        assert_eq!((0..4).map(|_| selection.choose(&three).unwrap()).collect::<Vec<_>>(), [0, 2, 0, 2]);
    }
}
