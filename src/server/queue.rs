//! The bounded queue in which newcomers wait for a worker. It knows neither who lets them in nor who
//! takes them.

use std::{collections::VecDeque, os::fd::OwnedFd, time::Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::{session::life::Session, sys::tally::Counted};

/// A connection in the queue.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(crate) socket: OwnedFd,
    pub(crate) accepted: Instant,
    /// It may have waited in the backlog before that.
    pub(crate) late: bool,
    /// It is one of those that are open.
    pub(crate) open: Counted,
}

impl Newcomer {
    pub(crate) fn into_session<S>(self) -> Session<S> {
        Session::new(self.socket, self.accepted, self.open)
    }
}

/// The end of the queue at which newcomers come in; there is but one.
#[derive(Debug)]
pub(crate) struct Entrance {
    sender: Sender<Newcomer>,
    /// When each of those in the queue was accepted; the first may have been taken already.
    queued: VecDeque<Instant>,
}

/// A queue for so many.
pub(crate) fn queue(capacity: usize) -> (Entrance, Receiver<Newcomer>) {
    let (sender, receiver) = bounded(capacity);
    (Entrance { sender, queued: VecDeque::new() }, receiver)
}

impl Entrance {
    pub(crate) fn len(&self) -> usize {
        self.sender.len()
    }

    /// The newcomer is given back where there is no room.
    pub(crate) fn push(&mut self, newcomer: Newcomer) -> Result<(), Newcomer> {
        let accepted = newcomer.accepted;
        self.sender.try_send(newcomer).map_err(TrySendError::into_inner)?;
        self.queued.push_back(accepted);
        self.forget_taken();
        Ok(())
    }

    /// When the first was accepted.
    pub(crate) fn oldest(&mut self) -> Option<Instant> {
        self.forget_taken();
        self.queued.front().copied()
    }

    /// Says that the first was taken at this end.
    pub(crate) fn took_oldest(&mut self) {
        self.queued.pop_front();
    }

    fn forget_taken(&mut self) {
        let queued = self.len();
        self.queued.drain(..self.queued.len().saturating_sub(queued));
    }
}
