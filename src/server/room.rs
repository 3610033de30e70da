//! What the acceptor waits for when it cannot let anybody in, and how it hears of it. It knows neither
//! the acceptor nor who makes room.

use std::sync::atomic::{
    AtomicU8,
    Ordering::{Relaxed, SeqCst},
    fence,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Places in the queue.
    Queue = 1,
    /// A connection's end.
    Connection = 2,
}

/// The room that is wanted, if any is.
#[derive(Debug, Default)]
pub(super) struct Wanted(AtomicU8);

impl Wanted {
    /// Says what is going to be waited for. Whoever says it must look once more after this and before it
    /// waits.
    pub(super) fn want(&self, room: Room) {
        self.0.store(room as u8, SeqCst);
        fence(SeqCst);
    }

    pub(super) fn want_none(&self) {
        self.0.store(0, Relaxed);
    }

    /// Whether this is waited for. Whoever asks has made the room before.
    pub(super) fn wants(&self, room: Room) -> bool {
        fence(SeqCst);
        self.0.load(Relaxed) == room as u8
    }
}
