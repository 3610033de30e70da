//! One direction of a relay: moves bytes from one socket to another, as far as they go without waiting,
//! and through pipes where they are many. It knows neither the other direction nor any upstream.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::net::{
    input::{INPUT_LIMIT, Input},
    wire::Wire,
};

/// What to do when the end of the stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtEnd {
    PassOn,
    /// The other direction has ended, and both are going to be closed.
    Skip,
    /// Nothing: it is to be decided.
    Hold,
}

/// One direction of a relay.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(super) bytes: u64,
    /// The end of the stream was passed on.
    pub(super) ended: bool,
    /// Nobody else can have it, so the end is passed on whenever it comes.
    pub(super) settled: bool,
    /// The last that came was a bulk.
    bulk: bool,
    /// What moves a bulk, held only while it does.
    pipe: Option<Pipe>,
}

/// Bytes that are moved by reference.
#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Bytes in it.
    held: usize,
    _made: Made,
}

/// Counts a pipe for as long as it is there.
#[derive(Debug)]
struct Made(Arc<AtomicUsize>);

impl Made {
    /// None where there are so many already.
    fn one_of(most: usize, made: &Arc<AtomicUsize>) -> Option<Self> {
        let before = made.fetch_add(1, Relaxed);
        let counted = Self(Arc::clone(made));
        (before < most).then_some(counted)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Pipes, of which there are so many at most: each takes two descriptors.
#[derive(Debug)]
pub(crate) struct Pipes {
    most: usize,
    /// In use, and spare.
    made: Arc<AtomicUsize>,
    spare: Mutex<Vec<Pipe>>,
}

/// Moves before others get their turn.
const MOVES: usize = 16;
/// What a pipe is to hold. The kernel may grant less.
const PIPE_SIZE: usize = 1024 * 1024;
/// Pipes kept for the next bulk.
const SPARE_PIPES: usize = 4;

impl Flow {
    /// Moves what is there. Nothing more is read while the other side has not taken what was, so
    /// that a slow reader fills one buffer and then its sender's window. Whether more may be there.
    pub(crate) fn go_on(
        &mut self,
        from: &mut Wire,
        to: &mut Wire,
        piece: &mut Input,
        pipes: &Pipes,
        at_end: AtEnd,
    ) -> io::Result<bool> {
        for _ in 0..MOVES {
            if !to.flush()? || !self.empty_pipe(to)? {
                return Ok(false);
            }
            if from.ended() || from.drained() {
                self.pipe.take().into_iter().for_each(|pipe| pipes.give(pipe));
                if from.ended() {
                    self.end(from, to, at_end)?;
                }
                return Ok(false);
            }
            let may_splice = !(from.is_encrypted() || to.is_encrypted());
            if self.bulk && may_splice && self.pipe.is_none() {
                self.pipe = pipes.take();
            }
            // A splice that gives nothing says nothing: it stops at an urgent byte.
            if !self.fill_pipe(from)? {
                self.copy(from, to, piece)?;
            }
        }
        // What is left in the pipe waits for an event.
        Ok(to.is_flushed())
    }

    /// The end of the stream has come, maybe once more.
    fn end(&mut self, from: &mut Wire, to: &mut Wire, at_end: AtEnd) -> io::Result<()> {
        if at_end == AtEnd::PassOn {
            // Our side is still open, so the client cannot have closed in peace.
            if self.ended && from.is_gone() {
                from.fail();
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if !self.ended {
                // It fails when the other side is gone, which its own events say.
                let _ = to.end();
            }
        }
        self.ended |= at_end != AtEnd::Hold;
        Ok(())
    }

    /// Whether there is a pipe, and something has come into it.
    fn fill_pipe(&mut self, from: &mut Wire) -> io::Result<bool> {
        let Some(pipe) = &mut self.pipe else { return Ok(false) };
        pipe.held = from.splice_into(&pipe.write, PIPE_SIZE)?;
        self.bytes += pipe.held as u64;
        if pipe.held > 0 {
            self.bulk = pipe.held >= INPUT_LIMIT;
        }
        Ok(pipe.held > 0)
    }

    /// Copies a piece. One that fills the buffer is the beginning of a bulk, for which a pipe is
    /// cheaper; without one it goes on like this.
    fn copy(&mut self, from: &mut Wire, to: &mut Wire, piece: &mut Input) -> io::Result<()> {
        piece.clear();
        let count = from.fill(piece)?;
        self.bytes += count as u64;
        let sent = if count > 0 { to.send(piece.unread())? } else { 0 };
        to.keep(&piece.unread()[sent..]);
        // Where nothing has come, it goes on as it was.
        self.bulk = piece.is_full() || (self.bulk && count == 0);
        piece.clear();
        Ok(())
    }

    /// Whether nothing is left in the pipe.
    fn empty_pipe(&mut self, to: &mut Wire) -> io::Result<bool> {
        if let Some(pipe) = &mut self.pipe
            && pipe.held > 0
        {
            pipe.held -= to.splice_from(&pipe.read, pipe.held)?;
            return Ok(pipe.held == 0);
        }
        Ok(true)
    }
}

/// A bulk of which is known how much is left, on its way through a pipe. One that is dropped before it is
/// empty loses what it holds.
#[derive(Debug)]
pub(super) struct Bulk(Pipe);

impl Bulk {
    /// None where there is no pipe for it: then it is copied.
    pub(super) fn new(pipes: &Pipes) -> Option<Self> {
        pipes.take().map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.held == 0
    }

    /// Sends on what it holds; whether that was all.
    pub(super) fn empty(&mut self, to: &mut Wire) -> io::Result<bool> {
        if self.0.held > 0 {
            self.0.held -= to.splice_from(&self.0.read, self.0.held)?;
        }
        Ok(self.is_empty())
    }

    /// Takes what is there, at most so much, while it is empty. Nothing says nothing: to know, read.
    pub(super) fn fill(&mut self, from: &mut Wire, most: u64) -> io::Result<u64> {
        let most = usize::try_from(most).map_or(PIPE_SIZE, |most| most.min(PIPE_SIZE));
        self.0.held = from.splice_into(&self.0.write, most)?;
        Ok(self.0.held as u64)
    }

    /// Gives the pipe back, which is empty.
    pub(super) fn end(self, pipes: &Pipes) {
        if self.is_empty() {
            pipes.give(self.0);
        }
    }
}

impl Pipes {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, made: Arc::default(), spare: Mutex::default() }
    }

    /// One that is empty; none where there are as many as may be, or the system denies it: then bytes
    /// are copied.
    fn take(&self) -> Option<Pipe> {
        let spare = self.spare.lock().pop();
        spare.or_else(|| {
            let made = Made::one_of(self.most, &self.made)?;
            let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
            // A smaller one does as well.
            let _ = fcntl_setpipe_size(&write, PIPE_SIZE);
            Some(Pipe { read, write, held: 0, _made: made })
        })
    }

    /// Takes back one that is empty.
    fn give(&self, pipe: Pipe) {
        let mut spare = self.spare.lock();
        if spare.len() < SPARE_PIPES {
            spare.push(pipe);
        }
    }

    /// Gives the spare ones up, since descriptors are short.
    pub(super) fn give_up_spare(&self) {
        self.spare.lock().clear();
    }
}
