//! Which idle connections give way to newcomers when as many are open as may be.

use std::{
    cmp::Reverse,
    mem,
    time::{Duration, Instant},
};

use super::{
    conn::{Conn, Phase},
    reactor::{Key, Reactor, Visit},
};

/// Connections chosen at a time, since finding them is a look at every slot.
const CHOSEN: usize = 64;
/// Between two such looks, when the last one found nobody.
const INTERVAL: Duration = Duration::from_millis(10);
/// A connection that has not spoken yet keeps its place for this long, since its first request is
/// probably on the way. Shorter than the patience with a full server, so that places are found in
/// time.
pub(super) const GRACE: Duration = Duration::from_millis(50);

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

    /// Whether somebody seems to be there to give way.
    pub(super) fn is_possible<S>(&mut self, reactor: &Reactor<S>, now: Instant) -> bool {
        if self.chosen.is_empty() && self.in_vain.is_none_or(|at| now >= at + INTERVAL) {
            self.choose(reactor, now);
            self.in_vain = self.chosen.is_empty().then_some(now);
        }
        !self.chosen.is_empty()
    }

    /// Takes the connection that has been idle longest out of its slot.
    pub(super) fn evict<S>(&mut self, reactor: &Reactor<S>, now: Instant) -> Option<Conn<S>> {
        // Twice, since the first choice may have become busy by now.
        for _ in 0..2 * CHOSEN {
            if !self.is_possible(reactor, now) {
                break;
            }
            let (since, key) = self.chosen.pop()?;
            let keep = |conn: &Conn<S>| {
                conn.since != since || !may_give_way(conn, now) || conn.wire.has_unread_input()
            };
            if let Some(conn) = reactor.take_parked(key, keep) {
                return Some(conn);
            }
        }
        None
    }

    fn choose<S>(&mut self, reactor: &Reactor<S>, now: Instant) {
        let mut idle = mem::take(&mut self.chosen);
        let visit = |key, conn: &mut Conn<S>| {
            if may_give_way(conn, now) {
                idle.push((conn.since, key));
            }
            Visit::Leave
        };
        reactor.visit_parked(visit, drop);
        idle.sort_unstable_by_key(|&(since, _)| Reverse(since));
        self.chosen = idle.split_off(idle.len().saturating_sub(CHOSEN));
    }
}

fn may_give_way<S>(conn: &Conn<S>, now: Instant) -> bool {
    match conn.phase {
        Phase::FirstByte => now >= conn.since + GRACE,
        Phase::Idle => !conn.again,
        Phase::Linger => true,
        Phase::Request | Phase::Reply => false,
    }
}
