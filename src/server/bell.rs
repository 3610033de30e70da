use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    event::{EventfdFlags, eventfd},
    io,
};

/// An eventfd: one thread rings it, another waits for it together with sockets.
#[derive(Debug)]
pub(super) struct Bell(OwnedFd);

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map(Self)
    }

    pub(super) fn ring(&self) {
        // It fails only when the counter is at its maximum, and then it is ringing already.
        let _ = io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Makes it unreadable until it is rung again.
    pub(super) fn silence(&self) {
        // It fails only when it is not ringing.
        let _ = io::read(&self.0, &mut [0u8; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
