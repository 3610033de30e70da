//! Which upstream has a place for a connection: policy on the upstreams' records. It knows neither
//! who waits nor how connections are made, and takes no lock.

use std::time::Instant;

use super::{
    config::{AllDown, Config},
    selection::{Candidate, Selection},
    tried::Tried,
    upstream::{Needed, Record},
};

/// The places at all upstreams.
#[derive(Debug)]
pub(super) struct Places {
    /// In the order in which the upstreams were given.
    pub(super) records: Vec<Record>,
    weights: Vec<u32>,
    selection: Selection,
    all_down: AllDown,
    /// One that was away gets its share step by step.
    slow_start: bool,
}

/// Connects under way at once to one upstream: one that swallows them is to hold few.
const CONNECTING: usize = 64;

impl Places {
    pub(super) fn new(config: &Config) -> Self {
        let needed = Needed { rise: config.rise, fall: config.fall };
        let now = Instant::now();
        Self {
            records: config.upstreams.iter().map(|_| Record::new(needed, config.limit(now))).collect(),
            weights: config.upstreams.iter().map(|upstream| upstream.weight).collect(),
            selection: Selection::new(config.policy, config.upstreams.len()),
            all_down: config.all_down,
            slow_start: config.http.is_some(),
        }
    }

    /// Takes a place for a connection that was at those upstreams that it `tried`; at which one.
    pub(super) fn take(&mut self, tried: &Tried, now: Instant) -> Option<usize> {
        let candidates: Vec<_> = (0..self.records.len())
            .map(|index| Candidate {
                weight: self.weight(index, now),
                open: self.records[index].open(),
                eligible: self.is_free(index, now) && !tried.contains(index, now),
            })
            .collect();
        let index = self.selection.choose(&candidates)?;
        self.records[index].taken();
        Some(index)
    }

    /// The upstreams that have a place.
    pub(super) fn free(&self, now: Instant) -> Vec<usize> {
        (0..self.records.len()).filter(|&index| self.is_free(index, now)).collect()
    }

    pub(super) fn has_any(&self, now: Instant) -> bool {
        (0..self.records.len()).any(|index| self.is_free(index, now))
    }

    /// Whether there is an upstream for connections at all, free or not.
    pub(super) fn may_come(&self, now: Instant) -> bool {
        (0..self.records.len()).any(|index| self.may_serve(index, now))
    }

    /// How many places there are at those that are up.
    pub(super) fn count(&self) -> usize {
        let up = self.records.iter().filter(|record| !record.is_down());
        up.map(|record| record.limit().unwrap_or(CONNECTING)).sum()
    }

    /// Its share beside the others': one that may have more gets more, and one that was away gets less.
    fn weight(&self, index: usize, now: Instant) -> u32 {
        let record = &self.records[index];
        let limit = record.limit().map_or(1, |limit| u32::try_from(limit).unwrap_or(u32::MAX));
        let weight = self.weights[index].saturating_mul(limit);
        if self.slow_start { weight.saturating_mul(record.share(now)) } else { weight }
    }

    fn is_free(&self, index: usize, now: Instant) -> bool {
        let record = &self.records[index];
        let free = record.limit().is_none_or(|limit| record.open() < limit);
        let free = free && record.connecting() < CONNECTING;
        free && self.may_serve(index, now)
    }

    fn may_serve(&self, index: usize, now: Instant) -> bool {
        let record = &self.records[index];
        let all_down = || self.records.iter().all(Record::is_down);
        let all_out = || self.records.iter().all(|record| record.is_down() || record.is_ejected(now));
        match record.is_down() {
            true => self.all_down == AllDown::Try && all_down(),
            // What is ejected is there: the last of all is not given up.
            false => !record.is_ejected(now) || all_out(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::config::UpstreamConfig;

    fn places(most: Option<usize>, all_down: AllDown) -> Places {
        let upstream = |name: &str| UpstreamConfig { name: name.into(), weight: 1 };
        Places::new(&Config {
            upstreams: vec![upstream("a"), upstream("b")],
            max_connections_per_upstream: most,
            all_down,
            fall: 1,
            ..Config::default()
        })
    }

    #[test]
    fn no_more_are_taken_than_there_are() {
        let t = Instant::now();
        let mut places = places(Some(2), AllDown::Refuse);
        assert_eq!(places.count(), 4);
        let mut taken: Vec<_> = std::iter::from_fn(|| places.take(&Tried::default(), t)).collect();
        taken.sort_unstable();
        assert_eq!(taken, [0, 0, 1, 1]);
        assert!(places.free(t).is_empty() && !places.has_any(t) && places.may_come(t));
        places.records[1].given_back(true);
        assert_eq!(places.free(t), [1]);
        let mut tried = Tried::default();
        tried.add(1, t);
        assert_eq!(places.take(&tried, t), None);
        assert_eq!(places.take(&Tried::default(), t), Some(1));
    }

    #[test]
    fn without_a_limit_only_those_count_that_are_being_connected() {
        let t = Instant::now();
        let mut places = places(None, AllDown::Refuse);
        assert_eq!(std::iter::from_fn(|| places.take(&Tried::default(), t)).count(), 2 * CONNECTING);
        places.records[0].connected(std::time::Duration::ZERO);
        assert_eq!(places.free(t), [0]);
    }

    #[test]
    fn what_is_down_has_no_place_unless_all_are_and_it_is_wanted() {
        let t = Instant::now();
        for (all_down, free) in [(AllDown::Refuse, vec![]), (AllDown::Try, vec![0, 1])] {
            let mut places = places(None, all_down);
            assert!(places.records[0].checked(false, t));
            assert_eq!((places.free(t), places.count()), (vec![1], CONNECTING), "{all_down:?}");
            assert!(places.records[1].checked(false, t));
            assert_eq!((places.free(t), places.count()), (free.clone(), 0), "{all_down:?}");
            assert_eq!(places.may_come(t), !free.is_empty(), "{all_down:?}");
        }
    }
}
