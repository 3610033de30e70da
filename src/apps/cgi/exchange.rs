//! A program that answers a request: what it is given, and what it says, in both directions at once. It knows
//! neither HTTP nor what either means.

use std::{
    io::{self, Read},
    os::fd::OwnedFd,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags};

use super::{
    super::program::running::{Running, silent},
    head::{self, Head, LONGEST},
};
use crate::{http::gathered::Gathered, sys::wait::poll_until};

/// What passes at a time.
const PIECE: usize = 16 * 1024;

/// A program that answers a request; what it says is read from this.
pub(super) struct Exchange {
    running: Running,
    /// Whose answer it is; none where nobody is connected.
    client: Option<Arc<OwnedFd>>,
    /// How long it may say nothing.
    timeout: Duration,
    /// What it has said before anybody could read it, out of what all may have together.
    said: Gathered,
    /// What is still to come of its body for the client, where it has said how much that is.
    left: Option<u64>,
}

impl Exchange {
    pub(super) fn start(
        command: Command,
        client: Option<Arc<OwnedFd>>,
        timeout: Duration,
        said: Gathered,
    ) -> io::Result<Self> {
        Ok(Self { running: Running::start(command)?, client, timeout, said, left: None })
    }

    /// Waits for one of these, until then, as long as the client is there.
    fn wait<'a>(&'a self, mut fds: Vec<PollFd<'a>>, until: Instant) -> io::Result<()> {
        let others = fds.len();
        fds.extend(self.client.as_ref().map(|client| PollFd::new(&**client, PollFlags::empty())));
        if !poll_until(&mut fds, Some(until))? {
            return Err(silent());
        }
        match fds[others..].iter().any(|client| !client.revents().is_empty()) {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
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
            let Some(stdin) = self.running.stdin().filter(|_| !piece.is_empty()) else { return Ok(()) };
            let mut fds = vec![PollFd::from_borrowed_fd(stdin, PollFlags::OUT)];
            fds.extend(self.running.stdout().map(|said| PollFd::from_borrowed_fd(said, PollFlags::IN)));
            self.wait(fds, Instant::now() + self.timeout)?;
            self.keep()?;
        }
    }

    /// Keeps what it says now.
    fn keep(&mut self) -> io::Result<()> {
        let mut piece = [0; PIECE];
        match self.running.take(&mut piece)? {
            Some(length) if !self.said.add(&piece[..length]) => Err(io::ErrorKind::OutOfMemory.into()),
            _ => Ok(()),
        }
    }

    /// What it says before its body.
    pub(super) fn head(&mut self) -> io::Result<Head> {
        loop {
            if let Some((head, length)) = head::parse(self.said.unread())? {
                self.said.skip(length);
                self.left = head.length;
                return Ok(head);
            }
            if self.running.stdout().is_none() || self.said.unread().len() >= LONGEST {
                self.running.has_ended()?;
                let status = self.running.status().filter(|status| !status.success());
                let ended = status.map_or(String::new(), |status| format!(", and it ended with {status}"));
                let said = "what it says is no head of CGI: there is no empty line at its end";
                return Err(head::wrong(&format!("{said}{ended}")));
            }
            self.listen(Instant::now() + self.timeout)?;
            self.keep()?;
        }
    }

    /// Says that what follows is for nobody.
    pub(super) fn forget_body(&mut self) {
        self.left = Some(0);
    }

    /// Waits until it says more, or has ended its output.
    fn listen(&self, until: Instant) -> io::Result<()> {
        let Some(stdout) = self.running.stdout() else { return Ok(()) };
        self.wait(vec![PollFd::from_borrowed_fd(stdout, PollFlags::IN)], until)
    }

    /// Takes what it says next, until this time; nothing where that was all.
    fn take(&mut self, buffer: &mut [u8], until: Instant) -> io::Result<usize> {
        let kept = self.said.read(buffer);
        if kept > 0 {
            return Ok(kept);
        }
        while self.running.stdout().is_some() {
            self.listen(until)?;
            if let Some(length) = self.running.take(buffer)? {
                return Ok(length);
            }
        }
        // One that was killed may not have said all.
        self.running.has_ended()?;
        Ok(0)
    }

    /// Hears it out, and waits for its end, for so long altogether.
    fn finish(&mut self, until: Instant) -> io::Result<()> {
        let mut piece = [0; PIECE];
        while self.take(&mut piece, until)? > 0 {
            if Instant::now() >= until {
                return Err(silent());
            }
        }
        self.wait(vec![PollFd::from_borrowed_fd(self.running.end(), PollFlags::IN)], until)?;
        self.running.has_ended().map(drop)
    }
}

/// It waits for what the program says next.
impl Read for Exchange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.take(buffer, Instant::now() + self.timeout)?;
        self.left = self.left.map(|left| left.saturating_sub(length as u64));
        Ok(length)
    }
}

impl Drop for Exchange {
    /// One that has said everything may do what else it does, within the time in which it would have to say
    /// something. Any other is killed, and so is what goes on after that.
    fn drop(&mut self) {
        if self.left == Some(0) || self.running.stdout().is_none() {
            let _ = self.finish(Instant::now() + self.timeout);
        }
    }
}
