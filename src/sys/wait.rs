//! Waiting for descriptors until a deadline, and the bell that ends such a wait.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::{self, Errno},
};

/// An eventfd: one thread rings it, another waits for it together with sockets.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map(Self)
    }

    pub(crate) fn ring(&self) {
        // It fails only when the counter is at its maximum, and then it is ringing already.
        let _ = io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Makes it unreadable until it is rung again.
    pub(crate) fn silence(&self) {
        // It fails only when it is not ringing.
        let _ = io::read(&self.0, &mut [0u8; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits for the socket until the deadline; whether it became ready.
pub(crate) fn wait_until(socket: impl AsFd, what: PollFlags, deadline: Option<Instant>) -> io::Result<bool> {
    poll_until(&mut [PollFd::new(&socket, what)], deadline)
}

/// `poll(2)` until a deadline, whatever signals come; whether anything is ready.
pub(crate) fn poll_until(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<bool> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout =
            left.map(|left| Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 }));
        match poll(fds, timeout.as_ref()) {
            Err(Errno::INTR) => {}
            ready => return ready.map(|count| count > 0),
        }
    }
}
