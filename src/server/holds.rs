//! How many workers may be held by clients that are still sending: half of them, so that the others go
//! on whatever those clients do. It knows neither workers nor what they are held by.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use super::runqueue::Waker;

/// A semaphore whose waiters are parked connections.
#[derive(Debug)]
pub(super) struct Holds {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// In the order in which they came.
    waiting: BTreeMap<u64, Waker>,
    next: u64,
}

impl Holds {
    pub(super) fn new(most: usize) -> Arc<Self> {
        let state = State { free: most, waiting: BTreeMap::new(), next: 0 };
        Arc::new(Self { most, state: Mutex::new(state) })
    }

    /// Whether a worker may be held at all.
    pub(super) fn may_be_held(&self) -> bool {
        self.most > 0
    }

    pub(super) fn take(self: &Arc<Self>) -> Option<Hold> {
        let mut state = self.state.lock();
        state.free = state.free.checked_sub(1)?;
        Some(Hold(Arc::clone(self)))
    }

    /// Waits for its turn to take one.
    pub(super) fn wait(self: &Arc<Self>, waker: Waker) -> HoldWaiter {
        let mut state = self.state.lock();
        let ticket = state.next;
        state.next += 1;
        state.waiting.insert(ticket, waker);
        let waiter = HoldWaiter { holds: Arc::clone(self), ticket };
        wake_next(state);
        waiter
    }
}

/// Wakes the first in line, if there is something for it.
fn wake_next(mut state: parking_lot::MutexGuard<'_, State>) {
    let first = if state.free > 0 { state.waiting.pop_first() } else { None };
    drop(state);
    if let Some((_, waker)) = first {
        waker.wake();
    }
}

/// A worker may be held as long as this is.
#[derive(Debug)]
pub(crate) struct Hold(Arc<Holds>);

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.free += 1;
        wake_next(state);
    }
}

/// A place in line. One that was woken and does not take its turn passes it on.
#[derive(Debug)]
pub(crate) struct HoldWaiter {
    holds: Arc<Holds>,
    ticket: u64,
}

impl Drop for HoldWaiter {
    fn drop(&mut self) {
        let mut state = self.holds.state.lock();
        if state.waiting.remove(&self.ticket).is_none() {
            wake_next(state);
        }
    }
}
