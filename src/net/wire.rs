use std::{mem, os::fd::OwnedFd, sync::Arc, time::Duration};

use rustix::{
    buffer::spare_capacity,
    event::epoll::EventFlags,
    io::Errno,
    net::{self, SendFlags, sockopt},
    pipe::{SpliceFlags, splice},
};

use crate::sys::tcp_info::TcpInfo;

/// The most input that is held for a connection whose handler does not take it.
pub(crate) const INPUT_LIMIT: usize = 16 * 1024;
/// The most output that is held for a client that does not take it; beyond it, writing waits.
const OUTPUT_LIMIT: usize = 256 * 1024;
/// A worker's scratch buffer for input: read, but not yet consumed.
#[derive(Debug)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    consumed: usize,
    /// How long the worker has waited for more of it, or for room for output.
    waited: Duration,
}

impl Input {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::with_capacity(INPUT_LIMIT), consumed: 0, waited: Duration::ZERO }
    }

    pub(crate) fn waited(&mut self, time: Duration) {
        self.waited += time;
    }

    pub(crate) fn take_waited(&mut self) -> Duration {
        mem::take(&mut self.waited)
    }

    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.consumed..]
    }

    pub(crate) fn consume(&mut self, amount: usize) {
        assert!(amount <= self.unread().len(), "{amount} bytes consumed of {}", self.unread().len());
        self.consumed += amount;
        if self.consumed == self.bytes.len() {
            self.clear();
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.unread().len() == INPUT_LIMIT
    }

    /// Room behind the unread input, which is moved to the front when there is none.
    fn room(&mut self) -> usize {
        if self.bytes.len() == INPUT_LIMIT {
            self.bytes.drain(..mem::take(&mut self.consumed));
        }
        INPUT_LIMIT - self.bytes.len()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.consumed = 0;
    }

    /// Starts with what a parked connection had left.
    pub(crate) fn load(&mut self, unread: Vec<u8>) {
        self.clear();
        self.bytes.extend_from_slice(&unread);
    }

    /// What a connection takes along when it parks.
    pub(crate) fn save(&self) -> Vec<u8> {
        self.unread().to_vec()
    }
}

/// The socket and what is known about its two directions.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) socket: Arc<OwnedFd>,
    /// What the socket has not taken yet.
    output: Vec<u8>,
    /// The client has sent a byte.
    pub(crate) heard: bool,
    /// End of the stream was read.
    pub(crate) ended: bool,
    /// An event said that the end of the stream has come, so a short read is not the last.
    end_announced: bool,
    /// Nothing more can be read now; the next input makes an event.
    pub(crate) drained: bool,
    /// Bytes went in or out since it was last parked.
    pub(crate) moved: bool,
    /// Input was consumed since it was last parked.
    pub(crate) consumed: bool,
    /// Output was written since this was last reset.
    pub(crate) wrote: bool,
    /// A handler's wait ended at its deadline.
    pub(crate) timed_out: bool,
    /// The client has announced more than has come.
    pub(crate) expects_more: bool,
    /// Reading or writing has failed.
    failed: bool,
    /// An event has told of an error, or that both sides have ended.
    hung_up: bool,
    /// Something waits for room in the socket that is not in `output`.
    pub(crate) blocked: bool,
}

impl Wire {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            socket: Arc::new(socket),
            output: Vec::new(),
            heard: false,
            ended: false,
            end_announced: false,
            drained: false,
            moved: false,
            consumed: false,
            wrote: false,
            timed_out: false,
            expects_more: false,
            failed: false,
            hung_up: false,
            blocked: false,
        }
    }

    /// Takes note of an epoll event.
    pub(crate) fn note(&mut self, flags: EventFlags) {
        self.drained &= flags.is_empty();
        self.end_announced |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        self.hung_up |= flags.intersects(EventFlags::HUP | EventFlags::ERR);
    }

    /// A short read means drained, unless the end of the stream came with the data: both arrive
    /// as one edge (`epoll(7)`).
    pub(crate) fn fill(&mut self, input: &mut Input) -> rustix::io::Result<usize> {
        let room = input.room();
        if self.ended || room == 0 {
            return Ok(0);
        }
        loop {
            match rustix::io::read(&self.socket, spare_capacity(&mut input.bytes)) {
                Ok(0) => {
                    self.ended = true;
                    self.drained = true;
                    return Ok(0);
                }
                Ok(count) => {
                    self.heard = true;
                    self.moved = true;
                    self.drained = count < room && !self.end_announced;
                    return Ok(count);
                }
                Err(Errno::AGAIN) => {
                    self.drained = true;
                    return Ok(0);
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
    }

    /// Sends what the socket takes at once.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> rustix::io::Result<usize> {
        self.wrote = true;
        loop {
            match net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    self.moved |= sent > 0;
                    return Ok(sent);
                }
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::INTR) => {}
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
    }

    /// Moves what has come into a pipe, as much as it takes, without a copy (`splice(2)`). Nothing says
    /// neither that nothing is there nor that the other side has ended: to know, read.
    pub(crate) fn splice_into(&mut self, pipe: &OwnedFd, most: usize) -> rustix::io::Result<usize> {
        match splice(&self.socket, None, pipe, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
            Ok(count) => {
                self.heard |= count > 0;
                self.moved |= count > 0;
                Ok(count)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => {
                self.failed = true;
                Err(error)
            }
        }
    }

    /// Sends what is in a pipe, as much as the socket takes.
    pub(crate) fn splice_from(&mut self, pipe: &OwnedFd, most: usize) -> rustix::io::Result<usize> {
        match splice(pipe, None, &self.socket, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
            Ok(count) => {
                self.moved |= count > 0;
                self.blocked = count < most;
                Ok(count)
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                self.blocked = true;
                Ok(0)
            }
            Err(error) => {
                self.failed = true;
                Err(error)
            }
        }
    }

    /// Sends as much of the kept output as the socket takes; whether that was all.
    pub(crate) fn flush(&mut self) -> rustix::io::Result<bool> {
        while !self.output.is_empty() {
            let output = mem::take(&mut self.output);
            let sent = self.send(&output);
            self.output = output;
            match sent? {
                0 => return Ok(false),
                sent => drop(self.output.drain(..sent)),
            }
        }
        // A parked connection is to own no buffer.
        self.output = Vec::new();
        Ok(true)
    }

    /// Keeps as much of the bytes as there is room for, to be flushed later; how many.
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> usize {
        let kept = bytes.len().min(OUTPUT_LIMIT - self.output.len());
        self.output.extend_from_slice(&bytes[..kept]);
        kept
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.output.is_empty() && !self.blocked
    }

    /// Whether closing is to be a reset, so that what breaks off is not taken for whole.
    pub(crate) fn reset_on_close(&self, reset: bool) {
        // Where it fails, the other side gets an end of stream, which is the best that is left.
        let _ = sockopt::set_socket_linger(&self.socket, reset.then_some(Duration::ZERO));
    }

    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    /// Whether the other side has reset the connection, of which an event has told.
    pub(crate) fn is_gone(&self) -> bool {
        self.hung_up && TcpInfo::of(&self.socket).is_some_and(|info| info.gone)
    }

    /// Whether closing now would turn into a reset, which takes the reply with it.
    pub(crate) fn has_unread_input(&self) -> bool {
        !self.ended && rustix::io::ioctl_fionread(&self.socket).is_ok_and(|count| count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_consumed_from_the_front_and_its_room_comes_back() {
        let mut input = Input::new();
        input.load(vec![7; INPUT_LIMIT]);
        assert!(input.is_full());
        assert_eq!(input.room(), 0);
        input.consume(INPUT_LIMIT - 2);
        assert_eq!(input.room(), INPUT_LIMIT - 2);
        assert_eq!(input.save(), [7, 7]);
        input.consume(2);
        assert!(input.unread().is_empty());
    }
}
