//! Who waits for a place. It knows the order in which they came, not the upstreams, nor what the place
//! is that a waiter is given.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;

use super::tried::Tried;
use crate::{net::ready::Waker, overload::Source};

/// One that waits in line for a place, a `P`.
#[derive(Debug)]
pub(super) struct Waiter<P> {
    /// Its round, and a number that those who came later have higher.
    place: (u64, u64),
    pub(super) came: Instant,
    pub(super) tried: Tried,
    waker: Waker,
    turn: Mutex<Option<Turn<P>>>,
}

/// What became of a waiter.
#[derive(Debug)]
pub(super) enum Turn<P> {
    Place(P),
    /// It has waited too long.
    Shed,
}

impl<P> Waiter<P> {
    /// What became of it, if its turn has come.
    pub(super) fn take(&self) -> Option<Turn<P>> {
        self.turn.lock().take()
    }

    /// Gives it its turn, without having it run.
    pub(super) fn give(&self, turn: Turn<P>) {
        *self.turn.lock() = Some(turn);
    }

    pub(super) fn wake(&self) {
        self.waker.wake();
    }
}

/// All who wait: one of each source in turn, and of one source in the order in which they came.
///
/// The first of each source that waits is in the round that is served, its second in the next, and so on (the
/// round of John Nagle's fair queueing, RFC 970), so that nobody waits longer because another source has many in
/// line; where there is but one source, it is the order in which they came.
#[derive(Debug)]
pub(super) struct Line<P> {
    /// By their round and their ticket.
    waiters: BTreeMap<(u64, u64), Arc<Waiter<P>>>,
    next_ticket: u64,
    /// The round that is served.
    round: u64,
    /// In which round the last of each source is.
    last: HashMap<Source, u64>,
}

/// Sources that are remembered beyond those who wait.
const REMEMBERED: usize = 64;

impl<P> Line<P> {
    pub(super) fn new() -> Self {
        Self { waiters: BTreeMap::new(), next_ticket: 0, round: 0, last: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(super) fn join(
        &mut self,
        came: Instant,
        tried: Tried,
        source: Source,
        waker: Waker,
    ) -> Arc<Waiter<P>> {
        let place = (self.next_round(source), self.next_ticket);
        self.next_ticket += 1;
        self.last.insert(source, place.0);
        let waiter = Arc::new(Waiter { place, came, tried, waker, turn: Mutex::new(None) });
        self.waiters.insert(place, Arc::clone(&waiter));
        waiter
    }

    /// In which round the next of this source would be.
    fn next_round(&self, source: Source) -> u64 {
        self.last.get(&source).map_or(self.round, |last| self.round.max(last + 1))
    }

    /// Whether the last is there on account of how many others of its source wait, and one of this source would
    /// not be.
    pub(super) fn would_give_way(&self, source: Source) -> bool {
        self.waiters.last_key_value().is_some_and(|((round, _), _)| *round > self.next_round(source))
    }

    /// Takes the last out.
    pub(super) fn take_last(&mut self) -> Option<Arc<Waiter<P>>> {
        self.waiters.pop_last().map(|(_, waiter)| waiter)
    }

    /// Whether it was still in line.
    pub(super) fn leave(&mut self, waiter: &Waiter<P>) -> bool {
        self.waiters.remove(&waiter.place).is_some()
    }

    /// Takes the first of those out who can have a turn: one who cannot holds up nobody behind.
    pub(super) fn take_first(&mut self, can: impl Fn(&Waiter<P>) -> bool) -> Option<Arc<Waiter<P>>> {
        let (&place, _) = self.waiters.iter().find(|(_, waiter)| can(waiter))?;
        self.round = self.round.max(place.0);
        if self.last.len() > self.waiters.len() + REMEMBERED {
            let round = self.round;
            self.last.retain(|_, last| *last >= round);
        }
        self.waiters.remove(&place)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::net::{key::Key, ready::Ready};

    /// Those who wait are known by the time at which they came.
    fn lined_up(sources: &str) -> (Line<()>, impl Fn(&mut Line<()>, char)) {
        let ready = Arc::new(Ready::new().unwrap());
        let join = move |line: &mut Line<()>, name: char| {
            let waker = Waker::new(Arc::clone(&ready), Key::of_nobody());
            line.join(Instant::now(), Tried::default(), source(name), waker);
        };
        let mut line = Line::new();
        sources.chars().for_each(|name| join(&mut line, name));
        (line, join)
    }

    fn source(name: char) -> Source {
        Source::from(SocketAddr::from(([192, 0, 2, name as u8], 80)))
    }

    /// The tickets in the order in which their turns come.
    fn turns(line: &mut Line<()>) -> Vec<u64> {
        std::iter::from_fn(|| line.take_first(|_| true)).map(|waiter| waiter.place.1).collect()
    }

    #[test]
    fn each_source_has_one_turn_in_a_round() {
        for (sources, order) in [
            ("aaaa", &[0, 1, 2, 3][..]),
            ("aaab", &[0, 3, 1, 2]),
            ("aabbc", &[0, 2, 4, 1, 3]),
            ("abcabc", &[0, 1, 2, 3, 4, 5]),
        ] {
            assert_eq!(turns(&mut lined_up(sources).0), order, "{sources}");
        }
        // Who comes later is in the round that is served by then, and has lost nothing nor saved anything up.
        let (mut line, join) = lined_up("aaaaa");
        (0..3).for_each(|_| drop(line.take_first(|_| true)));
        join(&mut line, 'b');
        join(&mut line, 'b');
        assert_eq!(turns(&mut line), [5, 3, 6, 4]);
    }

    #[test]
    fn the_last_of_many_gives_way_to_who_has_few() {
        let (mut line, join) = lined_up("aaab");
        assert!(!line.would_give_way(source('a')));
        assert!(line.would_give_way(source('b')) && line.would_give_way(source('c')));
        assert_eq!(line.take_last().unwrap().place.1, 2);
        join(&mut line, 'c');
        assert!(!line.would_give_way(source('b')));
        assert_eq!(turns(&mut line), [0, 3, 4, 1]);
        assert!(!line.would_give_way(source('c')) && line.take_last().is_none());
    }

    #[test]
    fn sources_that_wait_no_more_are_forgotten() {
        let (mut line, join) = lined_up("");
        for number in 0..10_000 {
            join(&mut line, char::from(number as u8));
            line.take_first(|_| true);
        }
        assert!(line.last.len() <= 2 * REMEMBERED);
    }
}
