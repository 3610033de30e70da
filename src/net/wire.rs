//! A socket and what is known about its two directions. It knows neither handlers nor whose it is.

#[cfg(feature = "files")]
use std::fs::File;
use std::{mem, os::fd::OwnedFd, sync::Arc, time::Duration};

#[cfg(feature = "files")]
use rustix::fs::sendfile;
use rustix::{
    event::epoll::EventFlags,
    io::Errno,
    net::{self, RecvFlags, SendFlags, Shutdown, shutdown, sockopt},
    pipe::{SpliceFlags, splice},
};

use super::{
    incoming::Incoming,
    input::Input,
    preface::Ends,
    tls,
    transport::{Entry, Progress, Stage, Transport},
};
use crate::sys::tcp_info::TcpInfo;

/// The most output that is held for a client that does not take it; beyond it, writing waits.
const OUTPUT_LIMIT: usize = 256 * 1024;

/// The socket and what is known about its two directions.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) socket: Arc<OwnedFd>,
    /// What the socket has not taken yet.
    output: Vec<u8>,
    incoming: Incoming,
    /// What it began with, where that was not its own bytes.
    transport: Option<Box<Transport>>,
    /// The other side has sent a byte.
    heard: bool,
    /// Bytes went in or out since this was last asked.
    moved: bool,
    /// Reading or writing has failed.
    failed: bool,
    /// An event has told of an error, or that both sides have ended.
    hung_up: bool,
    /// Something waits for room in the socket that is not in `output`.
    blocked: bool,
    /// Closing is a reset.
    resets: bool,
}

impl Wire {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            socket: Arc::new(socket),
            output: Vec::new(),
            incoming: Incoming::Open { drained: false },
            transport: None,
            heard: false,
            moved: false,
            failed: false,
            hung_up: false,
            blocked: false,
            resets: false,
        }
    }

    /// Goes on with what the connection is to begin with before its own bytes; whether that is done. Not
    /// where the other side has ended before.
    pub(crate) fn introduce(&mut self, entry: &Entry) -> rustix::io::Result<bool> {
        if entry.is_plain() {
            return Ok(true);
        }
        let begin = || Box::new(Transport::begin(entry, &self.socket));
        let transport = self.transport.get_or_insert_with(begin);
        match transport.go_on(entry, &self.socket) {
            Ok(Progress::Done) => {
                // Its own bytes may have come with that.
                self.look_again();
                Ok(true)
            }
            Ok(Progress::Part) => {
                // A part of a line is left where it is, so that no read finds the end that follows it.
                let is_line = transport.stage() == Stage::ProxyLine;
                if is_line && matches!(self.incoming, Incoming::Ending { .. }) {
                    self.incoming = Incoming::Ended;
                }
                Ok(false)
            }
            Ok(Progress::Ended) => {
                self.incoming = Incoming::Ended;
                Ok(false)
            }
            Err(errno) => {
                self.failed = true;
                Err(errno)
            }
        }
    }

    /// How far it has come with that, where there is such a thing.
    pub(crate) fn introduction(&self) -> Option<Stage> {
        self.transport.as_ref().map(|transport| transport.stage())
    }

    /// Whether that is done, where there is such a thing.
    pub(crate) fn is_introduced(&self) -> bool {
        self.introduction() == Some(Stage::Open)
    }

    /// Whether something of that has come, and not all.
    pub(crate) fn is_being_introduced(&self) -> bool {
        self.transport.as_ref().is_some_and(|transport| transport.is_beginning())
    }

    /// Both ends as a proxy in front has named them.
    pub(crate) fn ends(&self) -> Option<Ends> {
        self.transport.as_ref().and_then(|transport| transport.ends())
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.transport.as_ref().is_some_and(|transport| transport.is_encrypted())
    }

    /// Takes note of an epoll event.
    pub(crate) fn note(&mut self, flags: EventFlags) {
        self.incoming = self.incoming.note(flags);
        self.hung_up |= flags.intersects(EventFlags::HUP | EventFlags::ERR);
    }

    /// Says that something may have come of which no event has told.
    pub(crate) fn look_again(&mut self) {
        self.incoming = self.incoming.note(EventFlags::IN);
    }

    /// Says that nothing has come, or that an event will tell: it is not watched yet.
    pub(crate) fn await_event(&mut self) {
        self.incoming = self.incoming.found_nothing();
    }

    /// Whether the end of the stream was read.
    pub(crate) fn ended(&self) -> bool {
        self.incoming == Incoming::Ended
    }

    /// Whether nothing can be read now; the next input makes an event.
    pub(crate) fn drained(&self) -> bool {
        matches!(self.incoming, Incoming::Open { drained: true } | Incoming::Ending { drained: true })
            && !self.transport.as_ref().is_some_and(|transport| transport.has_more())
    }

    /// Whether the other side has sent a byte.
    pub(crate) fn heard(&self) -> bool {
        self.heard
    }

    /// Whether bytes went in or out since this was last asked.
    pub(crate) fn take_moved(&mut self) -> bool {
        mem::take(&mut self.moved)
    }

    /// Reads what is there, at most as much as there is room for. Gives how much: nothing where nothing is
    /// there, or no room, or the other side has ended.
    pub(crate) fn fill(&mut self, input: &mut Input) -> rustix::io::Result<usize> {
        let room = input.room();
        if self.ended() || room == 0 {
            return Ok(0);
        }
        if self.is_encrypted() {
            return self.fill_opened(input);
        }
        loop {
            match net::recv(&self.socket, input.space(), RecvFlags::empty()) {
                Ok((count, _)) => {
                    self.incoming = self.incoming.read(count, room);
                    self.heard |= count > 0;
                    self.moved |= count > 0;
                    return Ok(count);
                }
                Err(Errno::AGAIN) => {
                    self.incoming = self.incoming.found_nothing();
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

    /// The same for what was encrypted.
    fn fill_opened(&mut self, input: &mut Input) -> rustix::io::Result<usize> {
        let Some(tls) = tls(&mut self.transport) else { return Ok(0) };
        loop {
            let taken = tls.take(input);
            if taken > 0 {
                (self.heard, self.moved) = (true, true);
                return Ok(taken);
            }
            if tls.has_ended() {
                self.incoming = Incoming::Ended;
                return Ok(0);
            }
            match tls.receive(&self.socket) {
                Ok((0, _)) => {
                    self.incoming = Incoming::Ended;
                    return Ok(0);
                }
                Ok((count, room)) => self.incoming = self.incoming.read(count, room),
                Err(Errno::AGAIN) => {
                    self.incoming = self.incoming.found_nothing();
                    return Ok(0);
                }
                Err(errno) => {
                    self.failed = true;
                    return Err(errno);
                }
            }
        }
    }

    /// Seals as much as there is room for, and sends what the socket takes of that at once.
    fn send_sealed(&mut self, bytes: &[u8]) -> rustix::io::Result<usize> {
        let Some(tls) = tls(&mut self.transport) else { return Ok(0) };
        let sent = match tls.flush(&self.socket) {
            Ok(true) => {
                let sealed = tls.seal(bytes);
                tls.flush(&self.socket).map(|_| sealed)
            }
            Ok(false) => Ok(0),
            Err(errno) => Err(errno),
        };
        self.moved |= sent.is_ok_and(|sent| sent > 0);
        self.failed |= sent.is_err();
        sent
    }

    /// Sends what the socket takes at once.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> rustix::io::Result<usize> {
        if self.is_encrypted() {
            return self.send_sealed(bytes);
        }
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

    /// Sends so much of a file, from there on, as the socket takes, without a copy (`sendfile(2)`); none where
    /// it takes no more now.
    #[cfg(feature = "files")]
    pub(crate) fn send_file(
        &mut self,
        file: &File,
        offset: &mut u64,
        most: usize,
    ) -> rustix::io::Result<Option<usize>> {
        self.blocked = !self.output.is_empty();
        while !self.blocked {
            match sendfile(&self.socket, file, Some(&mut *offset), most) {
                Ok(sent) => {
                    self.moved |= sent > 0;
                    return Ok(Some(sent));
                }
                Err(Errno::AGAIN) => self.blocked = true,
                Err(Errno::INTR) => {}
                Err(errno) => {
                    self.failed = true;
                    return Err(errno);
                }
            }
        }
        Ok(None)
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
        self.flush_sealed()
    }

    fn flush_sealed(&mut self) -> rustix::io::Result<bool> {
        let Some(tls) = tls(&mut self.transport) else { return Ok(true) };
        let flushed = tls.flush(&self.socket);
        self.failed |= flushed.is_err();
        flushed
    }

    /// Keeps as much of the bytes as there is room for, to be flushed later; how many.
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> usize {
        let kept = bytes.len().min(OUTPUT_LIMIT - self.output.len());
        self.output.extend_from_slice(&bytes[..kept]);
        kept
    }

    /// Forgets what was kept, which nobody takes any more.
    pub(crate) fn drop_output(&mut self) {
        (self.output, self.blocked) = (Vec::new(), false);
    }

    /// How much is kept that the socket has not taken yet.
    pub(crate) fn kept(&self) -> usize {
        self.output.len()
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.output.is_empty()
            && !self.blocked
            && self.transport.as_ref().is_none_or(|transport| transport.is_flushed())
    }

    /// Says that nothing more is sent: the end of the stream follows what was.
    pub(crate) fn end(&mut self) -> rustix::io::Result<()> {
        self.say_end();
        shutdown(&self.socket, Shutdown::Write)
    }

    /// Tells the other side of an encrypted connection that what it has is all, unless that is not so.
    pub(crate) fn say_end(&mut self) {
        let is_whole = !self.failed && !self.resets && self.output.is_empty();
        if is_whole
            && let Some(tls) = tls(&mut self.transport)
            && !tls.is_handshaking()
        {
            tls.end();
            // Nobody is left to be told where it fails.
            let _ = tls.flush(&self.socket);
        }
    }

    /// Whether closing is to be a reset, so that what breaks off is not taken for whole.
    pub(crate) fn reset_on_close(&mut self, reset: bool) {
        self.resets = reset;
        // Where it fails, the other side gets an end of stream, which is the best that is left.
        let _ = sockopt::set_socket_linger(&self.socket, reset.then_some(Duration::ZERO));
    }

    /// Whether closing is going to be a reset.
    pub(crate) fn resets(&self) -> bool {
        self.resets
    }

    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    /// Whether the other side may have gone, as it has said that it sends nothing more, and nothing of that
    /// is left to be read.
    pub(crate) fn may_have_gone(&self) -> bool {
        self.hung_up
            || (matches!(self.incoming, Incoming::Ending { .. } | Incoming::Ended)
                && !self.has_unread_input())
    }

    /// Whether the other side has reset the connection, of which an event has told.
    pub(crate) fn is_gone(&self) -> bool {
        self.hung_up && TcpInfo::of(&self.socket).is_some_and(|info| info.gone)
    }

    /// Whether nothing is there to be read, neither input nor an end, whatever events have said: one that is
    /// late may be about what was read before, or about another socket.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let is_quiet = net::recv(&self.socket, &mut [0u8; 1], flags) == Err(Errno::AGAIN);
        if is_quiet {
            (self.incoming, self.hung_up) = (Incoming::Open { drained: true }, false);
        }
        is_quiet
    }

    /// Whether closing now would turn into a reset, which takes the reply with it.
    pub(crate) fn has_unread_input(&self) -> bool {
        let in_socket = || rustix::io::ioctl_fionread(&self.socket).is_ok_and(|count| count > 0);
        !self.ended() && (in_socket() || self.transport.as_ref().is_some_and(|t| t.has_more()))
    }
}

/// What encrypts the connection, if anything does. (Of the field alone, so that the others can be used with it.)
fn tls(transport: &mut Option<Box<Transport>>) -> Option<&mut tls::Stream> {
    transport.as_mut()?.tls()
}
