//! Who waits for a place at an upstream. It knows the order in which they came, not the upstreams.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::upstreams::Lease;
use crate::server::Waker;

/// The upstreams at which a connection has been in vain. They are forgotten after a while: meanwhile
/// they may have recovered.
#[derive(Debug, Clone, Default)]
pub(super) struct Tried(Vec<(usize, Instant)>);

/// That while.
const FORGOTTEN: Duration = Duration::from_millis(100);

impl Tried {
    pub(super) fn add(&mut self, index: usize, now: Instant) {
        self.0.retain(|&(other, _)| other != index);
        self.0.push((index, now));
    }

    /// Whether it was anywhere, however long ago.
    pub(super) fn is_any(&self) -> bool {
        !self.0.is_empty()
    }

    pub(super) fn contains(&self, index: usize, now: Instant) -> bool {
        self.0.iter().any(|&(other, at)| other == index && now < at + FORGOTTEN)
    }

    /// When the next one is forgotten.
    pub(super) fn next_forgotten(&self, now: Instant) -> Option<Instant> {
        self.0.iter().map(|&(_, at)| at + FORGOTTEN).filter(|&at| at > now).min()
    }
}

/// A connection in line.
#[derive(Debug)]
pub(super) struct Waiter {
    /// Those who came later have a higher one.
    ticket: u64,
    pub(super) came: Instant,
    pub(super) tried: Tried,
    waker: Waker,
    turn: Mutex<Option<Turn>>,
}

/// What became of a waiter.
#[derive(Debug)]
pub(super) enum Turn {
    Place(Lease),
    /// It has waited too long.
    Shed,
}

impl Waiter {
    /// What became of it, if its turn has come.
    pub(super) fn take(&self) -> Option<Turn> {
        self.turn.lock().take()
    }

    /// Gives it its turn, without having it run.
    pub(super) fn give(&self, turn: Turn) {
        *self.turn.lock() = Some(turn);
    }

    pub(super) fn wake(&self) {
        self.waker.wake();
    }
}

#[derive(Debug, Default)]
pub(super) struct Line {
    waiters: BTreeMap<u64, Arc<Waiter>>,
    next_ticket: u64,
}

impl Line {
    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(super) fn join(&mut self, came: Instant, tried: Tried, waker: Waker) -> Arc<Waiter> {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let waiter = Arc::new(Waiter { ticket, came, tried, waker, turn: Mutex::new(None) });
        self.waiters.insert(ticket, Arc::clone(&waiter));
        waiter
    }

    /// Whether it was still in line.
    pub(super) fn leave(&mut self, waiter: &Waiter) -> bool {
        self.waiters.remove(&waiter.ticket).is_some()
    }

    /// Takes the first of those out who can have a turn: one who cannot holds up nobody behind.
    pub(super) fn take_first(&mut self, can: impl Fn(&Waiter) -> bool) -> Option<Arc<Waiter>> {
        let (&ticket, _) = self.waiters.iter().find(|(_, waiter)| can(waiter))?;
        self.waiters.remove(&ticket)
    }
}
