//! A program that answers a request: what it is given, and what it says, in both directions at once. It knows
//! neither HTTP nor what either means.

use std::{
    io::{self, Read},
    process::Command,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags};

use super::{
    super::program::running::{Running, silent},
    head::{self, Head, LONGEST},
};
use crate::sys::wait::poll_until;

/// What passes at a time.
const PIECE: usize = 16 * 1024;

/// What is kept of what a program says before it has heard everything.
const MOST_KEPT: usize = 1024 * 1024;

/// A program that answers a request; what it says is read from this.
pub(super) struct Exchange {
    running: Running,
    /// How long it may say nothing.
    timeout: Duration,
    /// What it has said and nobody has read.
    said: Vec<u8>,
    /// What is still to come of its body, where it has said how much that is.
    left: Option<u64>,
    has_ended: bool,
}

impl Exchange {
    pub(super) fn start(command: Command, timeout: Duration) -> io::Result<Self> {
        let running = Running::start(command)?;
        Ok(Self { running, timeout, said: Vec::new(), left: None, has_ended: false })
    }

    /// Gives the program all of this, and keeps what it says meanwhile.
    pub(super) fn give(&mut self, body: &mut impl Read) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        while self.running.stdin().is_some() {
            match body.read(&mut piece)? {
                0 => self.running.hang_up(),
                length => self.give_piece(&piece[..length])?,
            }
        }
        Ok(())
    }

    fn give_piece(&mut self, mut piece: &[u8]) -> io::Result<()> {
        loop {
            piece = &piece[self.running.give(piece)?..];
            if piece.is_empty() {
                return Ok(());
            }
            self.listen_or(PollFlags::OUT)?;
        }
    }

    /// What it says before its body.
    pub(super) fn head(&mut self) -> io::Result<Head> {
        loop {
            if let Some((head, length)) = head::parse(&self.said)? {
                self.said.drain(..length);
                self.left = head.length;
                return Ok(head);
            }
            if self.has_ended || self.said.len() >= LONGEST {
                return Err(head::wrong("what it says is no head of CGI: there is no empty line at its end"));
            }
            self.listen_or(PollFlags::empty())?;
        }
    }

    /// Keeps more of what it says, unless it can be given more before.
    fn listen_or(&mut self, give: PollFlags) -> io::Result<()> {
        let mut fds = Vec::with_capacity(2);
        if self.said.len() < MOST_KEPT && !self.has_ended {
            fds.push(PollFd::from_borrowed_fd(self.running.stdout(), PollFlags::IN));
        }
        if let Some(stdin) = self.running.stdin().filter(|_| !give.is_empty()) {
            fds.push(PollFd::from_borrowed_fd(stdin, give));
        }
        if !poll_until(&mut fds, Some(Instant::now() + self.timeout))? {
            return Err(silent());
        }
        if self.said.len() < MOST_KEPT && !self.has_ended {
            self.keep()?;
        }
        Ok(())
    }

    fn keep(&mut self) -> io::Result<()> {
        let mut piece = [0; PIECE];
        match self.running.take(&mut piece)? {
            Some(0) => self.has_ended = true,
            Some(length) => self.said.extend_from_slice(&piece[..length]),
            None => {}
        }
        Ok(())
    }
}

/// It waits for what the program says next.
impl Read for Exchange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.said.is_empty() && !self.has_ended {
            self.listen_or(PollFlags::empty())?;
        }
        let length = self.said.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.said[..length]);
        self.said.drain(..length);
        self.left = self.left.map(|left| left.saturating_sub(length as u64));
        Ok(length)
    }
}

impl Drop for Exchange {
    /// One that has said everything is not ended before it has done what it does. Any other is killed.
    fn drop(&mut self) {
        if self.left == Some(0) && io::copy(self, &mut io::sink()).is_err() {
            return;
        }
        if self.has_ended {
            // Where it does not end, it is killed.
            let _ = self.running.end(self.timeout);
        }
    }
}
