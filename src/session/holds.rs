//! How many workers may be held by clients that are still sending: half of them, so that the others go
//! on whatever those clients do. It knows neither workers nor what they are held by.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::net::ready::Waker;

/// A semaphore whose waiters are parked connections; what becomes free is handed to the first in line.
#[derive(Debug)]
pub(crate) struct Holds {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// In the order in which they came.
    waiting: BTreeMap<u64, Waker>,
    /// Those to whom one was handed that they have not taken yet.
    granted: BTreeSet<u64>,
    next: u64,
}

impl Holds {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let state = State { free: most, waiting: BTreeMap::new(), granted: BTreeSet::new(), next: 0 };
        Arc::new(Self { most, state: Mutex::new(state) })
    }

    /// Whether a worker may be held at all.
    pub(crate) fn may_be_held(&self) -> bool {
        self.most > 0
    }

    /// One that is free; those in line have been handed theirs.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Hold> {
        let mut state = self.state.lock();
        state.free = state.free.checked_sub(1)?;
        Some(Hold(Arc::clone(self)))
    }

    /// A place in line.
    pub(crate) fn wait(self: &Arc<Self>, waker: Waker) -> HoldWaiter {
        let mut state = self.state.lock();
        let ticket = state.next;
        state.next += 1;
        state.waiting.insert(ticket, waker);
        drop(state);
        let waiter = HoldWaiter { holds: Arc::clone(self), ticket };
        // One may have become free since it was asked for.
        if let Some(hold) = self.take() {
            drop(hold);
        }
        waiter
    }

    fn give_back(&self) {
        let mut state = self.state.lock();
        match state.waiting.pop_first() {
            Some((ticket, waker)) => {
                state.granted.insert(ticket);
                drop(state);
                waker.wake();
            }
            None => state.free += 1,
        }
    }
}

/// A worker may be held as long as this is.
#[derive(Debug)]
pub(crate) struct Hold(Arc<Holds>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

/// A place in line. One that does not take what it was handed passes it on.
#[derive(Debug)]
pub(crate) struct HoldWaiter {
    holds: Arc<Holds>,
    ticket: u64,
}

impl HoldWaiter {
    /// What it was handed, if it was.
    pub(crate) fn take(&self) -> Option<Hold> {
        let granted = self.holds.state.lock().granted.remove(&self.ticket);
        granted.then(|| Hold(Arc::clone(&self.holds)))
    }
}

impl Drop for HoldWaiter {
    fn drop(&mut self) {
        let mut state = self.holds.state.lock();
        state.waiting.remove(&self.ticket);
        let granted = state.granted.remove(&self.ticket);
        drop(state);
        if granted {
            self.holds.give_back();
        }
    }
}
