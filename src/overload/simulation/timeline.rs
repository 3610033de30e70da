//! What is going to happen, in its order. It knows when, not what.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

/// Events that are to come.
pub(super) struct Timeline<E> {
    events: BinaryHeap<Reverse<At<E>>>,
    /// How many there were in all.
    made: u64,
}

impl<E> Timeline<E> {
    pub(super) fn new() -> Self {
        Self { events: BinaryHeap::new(), made: 0 }
    }

    /// Has an event happen at this millisecond, after those that are at the same time already.
    pub(super) fn add(&mut self, ms: f64, event: E) {
        self.made += 1;
        self.events.push(Reverse(At((ms * 1e6) as u64, self.made, event)));
    }

    /// The millisecond of the next one.
    pub(super) fn next(&self) -> Option<f64> {
        self.events.peek().map(|Reverse(At(ns, ..))| *ns as f64 / 1e6)
    }

    pub(super) fn take(&mut self) -> Option<E> {
        self.events.pop().map(|Reverse(At(.., event))| event)
    }
}

/// Nanoseconds since the beginning, with a number that keeps the order of what is at the same time.
struct At<E>(u64, u64, E);

impl<E> PartialEq for At<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<E> Eq for At<E> {}

impl<E> PartialOrd for At<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for At<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}
