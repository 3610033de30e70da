//! Which idle sessions give way to newcomers when as many are open as may be. It knows no newcomers.

use std::{
    cmp::Reverse,
    mem,
    time::{Duration, Instant},
};

use super::parked::Parked;
use crate::{
    net::{key::Key, slots::Visit},
    session::life::Session,
};

/// Sessions chosen at a time, since finding them is a look at every slot.
const CHOSEN: usize = 64;
/// Between two such looks, when the last one found nobody.
pub(super) const INTERVAL: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub(super) struct Eviction {
    /// Those that give way next, longest idle last. They stay the longest idle until all are gone
    /// or busy, since whatever parks later has been idle for less.
    chosen: Vec<(Instant, Key)>,
    /// When nobody was found.
    in_vain: Option<Instant>,
}

impl Eviction {
    /// Whether somebody is there to give way.
    pub(super) fn is_possible<S>(&mut self, parked: &Parked<S>, now: Instant) -> bool {
        self.drop_busy(parked, now);
        if self.chosen.is_empty() && self.in_vain.is_none_or(|at| now >= at + INTERVAL) {
            self.choose(parked, now);
            self.drop_busy(parked, now);
            self.in_vain = self.chosen.is_empty().then_some(now);
        }
        !self.chosen.is_empty()
    }

    /// Takes the session that has been idle longest out of its slot. None where it has become
    /// busy since that was found possible.
    pub(super) fn evict<S>(&mut self, parked: &Parked<S>, now: Instant) -> Option<Session<S>> {
        let (since, key) = self.chosen.pop()?;
        parked.take_if(key, |session| gives_way(session, since, now))
    }

    /// Drops those next in turn that have become busy.
    fn drop_busy<S>(&mut self, parked: &Parked<S>, now: Instant) {
        while let Some(&(since, key)) = self.chosen.last() {
            let mut gives = false;
            let look = |session: &Session<S>| {
                gives = gives_way(session, since, now);
                false
            };
            let taken = parked.take_if(key, look);
            debug_assert!(taken.is_none());
            if gives {
                break;
            }
            self.chosen.pop();
        }
    }

    fn choose<S>(&mut self, parked: &Parked<S>, now: Instant) {
        let mut idle = mem::take(&mut self.chosen);
        let visit = |key, session: &mut Session<S>| {
            if session.may_end(now) {
                idle.push((session.since(), key));
            }
            Visit::Leave
        };
        parked.visit(visit, drop);
        idle.sort_unstable_by_key(|&(since, _)| Reverse(since));
        self.chosen = idle.split_off(idle.len().saturating_sub(CHOSEN));
    }
}

/// Whether it is still as idle as when it was chosen.
fn gives_way<S>(session: &Session<S>, since: Instant, now: Instant) -> bool {
    session.since() == since && session.may_end(now) && !session.has_unread_input()
}
