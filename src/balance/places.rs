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
    /// Connections that one upstream may have at once.
    most: Option<usize>,
    all_down: AllDown,
}

/// Connects under way at once to one upstream: one that swallows them is to hold few.
const CONNECTING: usize = 64;

impl Places {
    pub(super) fn new(config: &Config) -> Self {
        let needed = Needed { rise: config.rise, fall: config.fall };
        Self {
            records: config.upstreams.iter().map(|_| Record::new(needed)).collect(),
            weights: config.upstreams.iter().map(|upstream| upstream.weight).collect(),
            selection: Selection::new(config.policy, config.upstreams.len()),
            most: config.max_connections_per_upstream,
            all_down: config.all_down,
        }
    }

    /// Takes a place for a connection that was at those upstreams that it `tried`; at which one.
    pub(super) fn take(&mut self, tried: &Tried, now: Instant) -> Option<usize> {
        let candidates: Vec<_> = (0..self.records.len())
            .map(|index| Candidate {
                weight: self.weights[index],
                open: self.records[index].open(),
                eligible: self.is_free(index) && !tried.contains(index, now),
            })
            .collect();
        let index = self.selection.choose(&candidates)?;
        self.records[index].taken();
        Some(index)
    }

    /// The upstreams that have a place.
    pub(super) fn free(&self) -> Vec<usize> {
        (0..self.records.len()).filter(|&index| self.is_free(index)).collect()
    }

    pub(super) fn has_any(&self) -> bool {
        (0..self.records.len()).any(|index| self.is_free(index))
    }

    /// Whether there is an upstream for connections at all, free or not.
    pub(super) fn may_come(&self) -> bool {
        (0..self.records.len()).any(|index| self.may_serve(index))
    }

    /// How many places there are at those that are up.
    pub(super) fn count(&self) -> usize {
        let up = self.records.iter().filter(|record| !record.is_down()).count();
        up * self.most.unwrap_or(CONNECTING)
    }

    fn is_free(&self, index: usize) -> bool {
        let record = &self.records[index];
        let free = self.most.is_none_or(|most| record.open() < most) && record.connecting() < CONNECTING;
        free && self.may_serve(index)
    }

    fn may_serve(&self, index: usize) -> bool {
        let all_down = || self.records.iter().all(Record::is_down);
        !self.records[index].is_down() || (self.all_down == AllDown::Try && all_down())
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
        assert!(places.free().is_empty() && !places.has_any() && places.may_come());
        places.records[1].given_back(true);
        assert_eq!(places.free(), [1]);
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
        assert_eq!(places.free(), [0]);
    }

    #[test]
    fn what_is_down_has_no_place_unless_all_are_and_it_is_wanted() {
        let t = Instant::now();
        for (all_down, free) in [(AllDown::Refuse, vec![]), (AllDown::Try, vec![0, 1])] {
            let mut places = places(None, all_down);
            assert!(places.records[0].checked(false, t));
            assert_eq!((places.free(), places.count()), (vec![1], CONNECTING), "{all_down:?}");
            assert!(places.records[1].checked(false, t));
            assert_eq!((places.free(), places.count()), (free.clone(), 0), "{all_down:?}");
            assert_eq!(places.may_come(), !free.is_empty(), "{all_down:?}");
        }
    }
}
