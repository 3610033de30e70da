//! Connections that are to be run without an event, and how an idle worker hears that there is
//! something to do. It knows keys alone, not what they stand for.

use std::sync::{
    Arc,
    atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
        fence,
    },
};

use parking_lot::Mutex;

use super::reactor::Key;
use crate::sys::wait::Bell;

#[derive(Debug)]
pub(crate) struct RunQueue {
    pub(crate) bell: Bell,
    /// The bell was rung by `ring_once` and no worker has heard it yet.
    rung: AtomicBool,
    /// Workers that wait for an event, or are about to.
    idle: AtomicUsize,
    keys: Mutex<Vec<Key>>,
    count: AtomicUsize,
}

impl RunQueue {
    pub(crate) fn new() -> rustix::io::Result<Self> {
        Ok(Self {
            bell: Bell::new()?,
            rung: AtomicBool::new(false),
            idle: AtomicUsize::new(0),
            keys: Mutex::new(Vec::new()),
            count: AtomicUsize::new(0),
        })
    }

    /// Wakes one waiting worker, or the next one that waits.
    pub(crate) fn ring(&self) {
        self.bell.ring();
    }

    /// Wakes one waiting worker, unless one was rung for and has not heard it yet.
    fn ring_once(&self) {
        if !self.rung.load(SeqCst) && !self.rung.swap(true, SeqCst) {
            self.ring();
        }
    }

    /// Says that a worker has heard the bell.
    pub(crate) fn heard(&self) {
        self.rung.store(false, SeqCst);
    }

    /// Wakes a worker for what was just made known, if one is idle. A worker counts itself idle first
    /// and then looks once more, so that one of the two sees the other.
    pub(crate) fn announce(&self) {
        fence(SeqCst);
        self.announce_rest();
    }

    /// Wakes another worker for what is left, if one is idle: newcomers for whom the bell was rung
    /// that this worker has heard, or events that it took along.
    pub(crate) fn announce_rest(&self) {
        if self.has_idle_worker() {
            self.ring_once();
        }
    }

    pub(crate) fn has_idle_worker(&self) -> bool {
        self.idle.load(SeqCst) > 0
    }

    /// Whether a worker seems to be idle, for who can do with an answer that is out of date.
    pub(crate) fn may_have_idle_worker(&self) -> bool {
        self.idle.load(Relaxed) > 0
    }

    pub(crate) fn begin_idle(&self) {
        self.idle.fetch_add(1, SeqCst);
    }

    /// Whether it was the last idle worker.
    pub(crate) fn end_idle(&self) -> bool {
        self.idle.fetch_sub(1, SeqCst) == 1
    }

    /// Has the connection run, after all those for which there is an event now. Whoever calls it sees
    /// to it that a worker looks.
    pub(crate) fn push(&self, key: Key) {
        let mut keys = self.keys.lock();
        keys.push(key);
        self.count.store(keys.len(), SeqCst);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(SeqCst) == 0
    }

    pub(crate) fn take_all(&self, mut take: impl FnMut(Key)) {
        let mut keys = self.keys.lock();
        keys.drain(..).for_each(&mut take);
        self.count.store(0, SeqCst);
    }
}

/// Has one connection run, from whatever thread. One that is running is run once more.
#[derive(Debug, Clone)]
pub(crate) struct Waker {
    queue: Arc<RunQueue>,
    key: Key,
}

impl Waker {
    pub(crate) fn new(queue: Arc<RunQueue>, key: Key) -> Self {
        Self { queue, key }
    }

    pub(crate) fn wake(&self) {
        self.queue.push(self.key);
        self.queue.announce();
    }
}
