//! Who waits for a place. It knows the order in which they came, not the upstreams, nor what the place
//! is that a waiter is given.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use parking_lot::Mutex;

use super::tried::Tried;
use crate::net::ready::Waker;

/// One that waits in line for a place, a `P`.
#[derive(Debug)]
pub(super) struct Waiter<P> {
    /// Those who came later have a higher one.
    ticket: u64,
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

/// All who wait, in the order in which they came.
#[derive(Debug)]
pub(super) struct Line<P> {
    waiters: BTreeMap<u64, Arc<Waiter<P>>>,
    next_ticket: u64,
}

impl<P> Line<P> {
    pub(super) fn new() -> Self {
        Self { waiters: BTreeMap::new(), next_ticket: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(super) fn join(&mut self, came: Instant, tried: Tried, waker: Waker) -> Arc<Waiter<P>> {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let waiter = Arc::new(Waiter { ticket, came, tried, waker, turn: Mutex::new(None) });
        self.waiters.insert(ticket, Arc::clone(&waiter));
        waiter
    }

    /// Whether it was still in line.
    pub(super) fn leave(&mut self, waiter: &Waiter<P>) -> bool {
        self.waiters.remove(&waiter.ticket).is_some()
    }

    /// Takes the first of those out who can have a turn: one who cannot holds up nobody behind.
    pub(super) fn take_first(&mut self, can: impl Fn(&Waiter<P>) -> bool) -> Option<Arc<Waiter<P>>> {
        let (&ticket, _) = self.waiters.iter().find(|(_, waiter)| can(waiter))?;
        self.waiters.remove(&ticket)
    }
}
