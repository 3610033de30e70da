//! Which idle connections give way to newcomers when as many are open as may be.

use std::{
    cmp::Reverse,
    mem,
    time::{Duration, Instant},
};

use super::{
    conn::Conn,
    reactor::{Key, Reactor, Visit},
};

/// Connections chosen at a time, since finding them is a look at every slot.
const CHOSEN: usize = 64;
/// Between two such looks, when the last one found nobody.
pub(super) const INTERVAL: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Eviction {
    /// Those that give way next, longest idle last. They stay the longest idle until all are gone
    /// or busy, since whatever parks later has been idle for less.
    chosen: Vec<(Instant, Key)>,
    /// When nobody was found.
    in_vain: Option<Instant>,
}

impl Eviction {
    pub(super) fn new() -> Self {
        Self { chosen: Vec::new(), in_vain: None }
    }

    /// Whether somebody is there to give way.
    pub(super) fn is_possible<S>(&mut self, reactor: &Reactor<S>, now: Instant) -> bool {
        self.drop_busy(reactor, now);
        if self.chosen.is_empty() && self.in_vain.is_none_or(|at| now >= at + INTERVAL) {
            self.choose(reactor, now);
            self.drop_busy(reactor, now);
            self.in_vain = self.chosen.is_empty().then_some(now);
        }
        !self.chosen.is_empty()
    }

    /// Takes the connection that has been idle longest out of its slot. None where it has become
    /// busy since that was found possible.
    pub(super) fn evict<S>(&mut self, reactor: &Reactor<S>, now: Instant) -> Option<Conn<S>> {
        let (since, key) = self.chosen.pop()?;
        reactor.take_parked(key, |conn| !gives_way(conn, since, now))
    }

    /// Drops those next in turn that have become busy.
    fn drop_busy<S>(&mut self, reactor: &Reactor<S>, now: Instant) {
        while let Some(&(since, key)) = self.chosen.last() {
            let mut gives = false;
            let look = |conn: &Conn<S>| {
                gives = gives_way(conn, since, now);
                true
            };
            let taken = reactor.take_parked(key, look);
            debug_assert!(taken.is_none());
            if gives {
                break;
            }
            self.chosen.pop();
        }
    }

    fn choose<S>(&mut self, reactor: &Reactor<S>, now: Instant) {
        let mut idle = mem::take(&mut self.chosen);
        let visit = |key, conn: &mut Conn<S>| {
            if conn.may_end(now) {
                idle.push((conn.since, key));
            }
            Visit::Leave
        };
        reactor.visit_parked(visit, drop);
        idle.sort_unstable_by_key(|&(since, _)| Reverse(since));
        self.chosen = idle.split_off(idle.len().saturating_sub(CHOSEN));
    }
}

/// Whether it is still as idle as when it was chosen.
fn gives_way<S>(conn: &Conn<S>, since: Instant, now: Instant) -> bool {
    conn.since == since && conn.may_end(now) && !conn.has_unread_input()
}
