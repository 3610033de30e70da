use std::{
    fmt,
    io::{self, Read, Write},
    mem,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, Timespec, epoll::EventFlags, poll},
    io::Errno,
    net::{self, SendFlags},
};

use super::{config::Config, control::Control, reactor::Key};

/// The most input that is held for a connection whose handler does not take it.
pub(super) const INPUT_LIMIT: usize = 16 * 1024;
/// The most output that is held for a client that does not take it; beyond it, writing waits.
const OUTPUT_LIMIT: usize = 256 * 1024;

/// A connection as its handler sees it during one call.
///
/// It reads and writes in blocking style. All the waiting of one call, reading and writing
/// together, ends at [`deadline`](Self::deadline) with [`io::ErrorKind::TimedOut`]. Reading takes
/// what lies in [`input`](Self::input) first.
///
/// What the client's socket does not take at once is kept, up to 256 KiB, and sent while the
/// connection is parked, or after [`Next::Close`](crate::Next::Close); only beyond that does a
/// write wait.
pub struct Connection<'a> {
    wire: &'a mut Wire,
    input: &'a mut Input,
    config: &'a Config,
    control: &'a Control,
    deadline: Option<Instant>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(
        wire: &'a mut Wire,
        input: &'a mut Input,
        config: &'a Config,
        control: &'a Control,
    ) -> Self {
        Self { wire, input, config, control, deadline: None }
    }

    /// Reads what has come into [`input`](Self::input), at most as much as there is room for, and
    /// never waits. Gives the number of bytes; 0 when there was nothing, or no room, or when the
    /// client has [`ended`](Self::ended) its side.
    pub fn fill(&mut self) -> io::Result<usize> {
        if self.wire.ended {
            return Ok(0);
        }
        Ok(self.wire.fill(self.input)?)
    }

    /// The input that was read and not yet consumed, at most 16 KiB.
    pub fn input(&self) -> &[u8] {
        self.input.unread()
    }

    /// Takes the first `amount` bytes off the input.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn consume(&mut self, amount: usize) {
        self.input.consume(amount);
        self.wire.consumed |= amount > 0;
    }

    /// Whether the client has ended its side: nothing will follow what is in the input. The
    /// other direction is still open, and whether a half-closed client wants its reply is for
    /// the protocol to decide.
    pub fn ended(&self) -> bool {
        self.wire.ended
    }

    /// Whether the server is shutting down, so that this reply should be the connection's last.
    pub fn draining(&self) -> bool {
        self.control.draining()
    }

    /// When this call's waiting ends: `io_timeout` after it was first asked for, or first waited.
    pub fn deadline(&mut self) -> Instant {
        *self.deadline.get_or_insert_with(|| Instant::now() + self.config.io_timeout)
    }

    /// The client's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match net::getpeername(&self.wire.socket)? {
            Some(addr) => Ok(addr.try_into()?),
            None => Err(Errno::NOTCONN.into()),
        }
    }

    /// The address at which the client reached this server.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(net::getsockname(&self.wire.socket)?.try_into()?)
    }

    fn wait(&mut self, what: PollFlags) -> io::Result<()> {
        let deadline = self.deadline();
        if wait_until(&self.wire.socket, what, Some(deadline))? {
            return Ok(());
        }
        self.wire.timed_out = true;
        Err(io::Error::new(io::ErrorKind::TimedOut, "the client kept the handler waiting too long"))
    }
}

impl Read for Connection<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let unread = self.input();
            if !unread.is_empty() || buffer.is_empty() {
                let amount = unread.len().min(buffer.len());
                buffer[..amount].copy_from_slice(&unread[..amount]);
                self.consume(amount);
                return Ok(amount);
            }
            if self.fill()? == 0 {
                if self.ended() {
                    return Ok(0);
                }
                self.wait(PollFlags::IN)?;
            }
        }
    }
}

impl Write for Connection<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if self.wire.flush()? {
                let sent = self.wire.send(bytes)?;
                if sent > 0 || bytes.is_empty() {
                    return Ok(sent);
                }
            }
            let kept = bytes.len().min(OUTPUT_LIMIT - self.wire.output.len());
            if kept > 0 {
                self.wire.output.extend_from_slice(&bytes[..kept]);
                return Ok(kept);
            }
            self.wait(PollFlags::OUT)?;
        }
    }

    /// Waits until the socket has taken all that was written. It is not needed for the bytes to
    /// be sent.
    fn flush(&mut self) -> io::Result<()> {
        while !self.wire.flush()? {
            self.wait(PollFlags::OUT)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Connection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("socket", &self.wire.socket)
            .field("input", &self.input().len())
            .field("ended", &self.ended())
            .finish_non_exhaustive()
    }
}

/// Waits for the socket until the deadline; whether it became ready.
pub(super) fn wait_until(
    socket: impl AsFd,
    what: PollFlags,
    deadline: Option<Instant>,
) -> rustix::io::Result<bool> {
    poll_until(&mut [PollFd::new(&socket, what)], deadline)
}

/// `poll(2)` until a deadline, whatever signals come; whether anything is ready.
pub(super) fn poll_until(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> rustix::io::Result<bool> {
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

/// A worker's scratch buffer for input: read, but not yet consumed.
#[derive(Debug)]
pub(super) struct Input {
    bytes: Vec<u8>,
    consumed: usize,
}

impl Input {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::with_capacity(INPUT_LIMIT), consumed: 0 }
    }

    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.consumed..]
    }

    fn consume(&mut self, amount: usize) {
        assert!(amount <= self.unread().len(), "{amount} bytes consumed of {}", self.unread().len());
        self.consumed += amount;
        if self.consumed == self.bytes.len() {
            self.clear();
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.unread().len() == INPUT_LIMIT
    }

    /// Room behind the unread input, which is moved to the front when there is none.
    fn room(&mut self) -> usize {
        if self.bytes.len() == INPUT_LIMIT {
            self.bytes.drain(..mem::take(&mut self.consumed));
        }
        INPUT_LIMIT - self.bytes.len()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.consumed = 0;
    }

    /// Starts with what a parked connection had left.
    pub(super) fn load(&mut self, unread: Vec<u8>) {
        self.clear();
        self.bytes.extend_from_slice(&unread);
    }

    /// What a connection takes along when it parks.
    pub(super) fn save(&self) -> Vec<u8> {
        self.unread().to_vec()
    }
}

/// The socket and what is known about its two directions.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) socket: Arc<OwnedFd>,
    /// What the socket has not taken yet.
    output: Vec<u8>,
    /// The client has sent a byte.
    pub(super) heard: bool,
    /// End of the stream was read.
    pub(super) ended: bool,
    /// An event said that the end of the stream has come, so a short read is not the last.
    end_announced: bool,
    /// Nothing more can be read now; the next input makes an event.
    pub(super) drained: bool,
    /// Bytes went in or out since it was last parked.
    pub(super) moved: bool,
    /// Input was consumed since it was last parked.
    pub(super) consumed: bool,
    /// Output was written since this was last reset.
    pub(super) wrote: bool,
    /// A handler's wait ended at its deadline.
    pub(super) timed_out: bool,
}

impl Wire {
    fn new(socket: OwnedFd) -> Self {
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
        }
    }

    /// Takes note of an epoll event.
    pub(super) fn note(&mut self, flags: EventFlags) {
        self.drained = false;
        self.end_announced |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
    }

    /// A short read means drained, unless the end of the stream came with the data: both arrive
    /// as one edge (`epoll(7)`).
    fn fill(&mut self, input: &mut Input) -> rustix::io::Result<usize> {
        let room = input.room();
        if room == 0 {
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
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends what the socket takes at once.
    pub(super) fn send(&mut self, bytes: &[u8]) -> rustix::io::Result<usize> {
        self.wrote = true;
        loop {
            match net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    self.moved |= sent > 0;
                    return Ok(sent);
                }
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends as much of the kept output as the socket takes; whether that was all.
    pub(super) fn flush(&mut self) -> rustix::io::Result<bool> {
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

    pub(super) fn is_flushed(&self) -> bool {
        self.output.is_empty()
    }

    /// Whether closing now would turn into a reset, which takes the reply with it.
    pub(super) fn has_unread_input(&self) -> bool {
        !self.ended && rustix::io::ioctl_fionread(&self.socket).is_ok_and(|count| count > 0)
    }
}

/// What a connection is waiting for while it is parked. Each has a timeout of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its first byte.
    FirstByte,
    /// The next request.
    Idle,
    /// The rest of a request.
    Request,
    /// The client to take the rest of a reply.
    Reply,
    /// The client to end its side after ours was ended, so that no reset overtakes the reply.
    Linger,
}

impl Phase {
    /// Nothing is under way: closing cuts nothing off.
    pub(super) fn is_idle(self) -> bool {
        matches!(self, Self::FirstByte | Self::Idle)
    }
}

/// How long a lingering connection is drained. Its reply is out already, and a client that has
/// not ended its side by then is not going to read it.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// A connection with everything it owns: in the slot while parked, with a worker while not.
#[derive(Debug)]
pub(super) struct Conn<S> {
    pub(super) wire: Wire,
    /// None before the handler's `open`, and once it lingers.
    pub(super) state: Option<S>,
    /// Unread input while parked.
    pub(super) input: Vec<u8>,
    pub(super) phase: Phase,
    /// Since when the phase's timeout runs.
    pub(super) since: Instant,
    /// Its slot, from the first time that it parks.
    pub(super) key: Option<Key>,
    /// It is registered for output too.
    pub(super) wants_output: bool,
    /// The phase's timeout has passed and a worker is to say so to the handler.
    pub(super) expired: bool,
    /// The handler answered `Again`.
    pub(super) again: bool,
    /// The handler answered `Close`, which happens once the output is out.
    pub(super) closing: bool,
    /// Bytes drained while lingering.
    pub(super) lingered: usize,
}

impl<S> Conn<S> {
    pub(super) fn new(socket: OwnedFd, accepted: Instant) -> Self {
        Self {
            wire: Wire::new(socket),
            state: None,
            input: Vec::new(),
            phase: Phase::FirstByte,
            since: accepted,
            key: None,
            wants_output: false,
            expired: false,
            again: false,
            closing: false,
            lingered: 0,
        }
    }

    /// Works out the phase to park in and whether its time starts anew. The time of a request
    /// runs from its first byte, however slowly the rest comes.
    pub(super) fn settle(&mut self, now: Instant) {
        let phase = match self.phase {
            Phase::Linger => Phase::Linger,
            _ if !self.wire.is_flushed() => Phase::Reply,
            _ if !self.input.is_empty() => Phase::Request,
            _ if self.wire.heard => Phase::Idle,
            _ => Phase::FirstByte,
        };
        let anew = phase != self.phase
            || match phase {
                Phase::Linger | Phase::FirstByte => false,
                Phase::Request => self.wire.consumed,
                Phase::Idle | Phase::Reply => self.wire.moved,
            };
        if anew {
            self.since = now;
        }
        self.phase = phase;
        self.wire.moved = false;
        self.wire.consumed = false;
    }

    pub(super) fn start_lingering(&mut self, now: Instant) {
        self.phase = Phase::Linger;
        self.since = now;
    }

    pub(super) fn deadline(&self, config: &Config) -> Instant {
        let timeout = match self.phase {
            Phase::FirstByte => config.first_byte_timeout,
            Phase::Idle => config.idle_timeout,
            Phase::Request | Phase::Reply => config.io_timeout,
            Phase::Linger => LINGER_TIME,
        };
        self.since + timeout
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
