use std::{
    fmt,
    io::{self, Read, Write},
    net::SocketAddr,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{event::PollFlags, io::Errno, net};

use super::{
    config::Config,
    conn::Second,
    control::Control,
    exchange::Host,
    holds::{Hold, HoldWaiter},
    reactor::Key,
    runqueue::Waker,
    wire::{INPUT_LIMIT, Input, Wire},
};
use crate::sys::wait::wait_until;

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
    sides: Sides<'a>,
    input: &'a mut Input,
    config: &'a Config,
    control: &'a Control,
    host: &'a dyn Host,
    deadline: Option<Instant>,
}

/// The parts of a connection that a handler works with.
pub(crate) struct Sides<'a> {
    pub(crate) wire: &'a mut Wire,
    pub(crate) second: &'a mut Option<Box<Second>>,
    pub(crate) key: &'a mut Option<Key>,
}

impl<'a> Connection<'a> {
    /// The most unread [`input`](Self::input) that is held, in bytes.
    pub const INPUT_LIMIT: usize = INPUT_LIMIT;

    pub(crate) fn new(
        sides: Sides<'a>,
        input: &'a mut Input,
        config: &'a Config,
        control: &'a Control,
        host: &'a dyn Host,
    ) -> Self {
        Self { sides, input, config, control, host, deadline: None }
    }

    /// Reads what has come into [`input`](Self::input), at most as much as there is room for, and
    /// never waits. Gives the number of bytes; 0 when there was nothing, or no room, or when the
    /// client has [`ended`](Self::ended) its side.
    pub fn fill(&mut self) -> io::Result<usize> {
        Ok(self.sides.wire.fill(self.input)?)
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
        self.sides.wire.consumed |= amount > 0;
    }

    /// Whether the client has ended its side: nothing will follow what is in the input. The
    /// other direction is still open, and whether a half-closed client wants its reply is for
    /// the protocol to decide.
    pub fn ended(&self) -> bool {
        self.sides.wire.ended
    }

    /// Whether the server is shutting down, so that this reply should be the connection's last.
    pub fn draining(&self) -> bool {
        self.control.draining()
    }

    /// When this call's waiting ends: `io_timeout` after it was first asked for, or first waited.
    pub fn deadline(&mut self) -> Instant {
        *self.deadline.get_or_insert_with(|| Instant::now() + self.config.io_timeout)
    }

    /// Whether the client's socket has taken all that was written. While it has not, a handler that
    /// has more to write may answer [`Next::Again`](crate::Next::Again) in place of filling the
    /// buffer.
    pub fn is_flushed(&self) -> bool {
        self.sides.wire.is_flushed()
    }

    /// Says that the client has announced more than has come. A reply after which the connection is
    /// closed is kept from being overtaken by the reset that the rest would cause.
    pub(crate) fn expect_more(&mut self) {
        self.sides.wire.expects_more = true;
    }

    /// Whether closing is to be a reset, so that a reply that breaks off is not taken for whole.
    pub(crate) fn reset_on_close(&mut self, reset: bool) {
        self.sides.wire.reset_on_close(reset);
    }

    /// The same connection for a shorter while, with a deadline of its own.
    pub(crate) fn reborrow(&mut self) -> Connection<'_> {
        let Sides { wire, second, key } = &mut self.sides;
        Connection::new(Sides { wire, second, key }, self.input, self.config, self.control, self.host)
    }

    /// Makes the events of this descriptor the connection's too: `ready` is called for either, and
    /// does all the reading. It must be ready within this time for the first time.
    pub(crate) fn attach(&mut self, socket: OwnedFd, within: Duration) {
        *self.sides.second = Some(Box::new(Second::new(Some(socket), within)));
    }

    /// Closes what is attached.
    pub(crate) fn detach(&mut self) {
        *self.sides.second = None;
    }

    /// Has `ready` called when its turn has come, of which a [`waker`](Self::waker) says, or when
    /// something happens to the client; it does all the reading. After this time `expired` is called.
    pub(crate) fn await_turn(&mut self, within: Duration) {
        *self.sides.second = Some(Box::new(Second::new(None, within)));
    }

    /// Whether a worker may wait for what clients send. Where there is but one, it may not.
    pub(crate) fn may_hold(&self) -> bool {
        self.control.holds.may_be_held()
    }

    /// Leave for this worker to wait for what the client sends; none while as many wait as may.
    /// Those who wait for it come first.
    pub(crate) fn hold(&self) -> Option<Hold> {
        self.control.holds.take()
    }

    /// A place in line for that; none where there is no slot left to find the connection by.
    pub(crate) fn await_hold(&mut self) -> Option<HoldWaiter> {
        let waker = self.waker()?;
        Some(self.control.holds.wait(waker))
    }

    /// How long clients wait.
    pub(crate) fn patience(&self) -> Duration {
        self.config.patience
    }

    /// Counts an answer with this status.
    pub(crate) fn count_answer(&self, status: u16) {
        let counters = &self.control.counters;
        match status {
            ..300 => counters.answers_2xx.count(),
            300..400 => counters.answers_3xx.count(),
            400..500 => counters.answers_4xx.count(),
            500.. => counters.answers_5xx.count(),
        }
    }

    /// Counts a request that was refused as it came.
    pub(crate) fn count_malformed(&self) {
        self.control.counters.malformed.count();
    }

    /// Counts the connection as refused because it waited too long.
    pub(crate) fn count_shed(&self) {
        self.control.counters.shed.count();
    }

    /// What has this connection run once more, from whatever thread; none where there is no slot left
    /// to find it by.
    pub(crate) fn waker(&mut self) -> Option<Waker> {
        self.host.waker(self.sides.key, &self.sides.wire.socket)
    }

    /// Says whether an answer is on its way over what is attached: then it is not idle, although
    /// nothing moves.
    pub(crate) fn set_busy(&mut self, busy: bool) {
        if let Some(second) = self.sides.second {
            second.busy = busy;
        }
    }

    /// The client's side.
    pub(crate) fn client(&mut self) -> &mut Wire {
        self.sides.wire
    }

    /// Says that what is attached was ready for the first time.
    pub(crate) fn arrived(&mut self) {
        if let Some(second) = self.sides.second {
            second.awaited = None;
        }
    }

    /// The client's side, what is attached, and a buffer for what is read.
    pub(crate) fn pair(&mut self) -> Option<(&mut Wire, &mut Wire, &mut Input)> {
        Some((self.sides.wire, self.sides.second.as_mut()?.wire.as_mut()?, self.input))
    }

    pub(crate) fn io_timeout(&self) -> Duration {
        self.config.io_timeout
    }

    /// Sets when this call's waiting ends.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }

    /// Fills, and waits for something to come: 0 when the client has ended its side.
    pub(crate) fn fill_waiting(&mut self) -> io::Result<usize> {
        loop {
            let count = self.fill()?;
            if count > 0 || self.ended() {
                return Ok(count);
            }
            self.wait(PollFlags::IN)?;
        }
    }

    /// The client's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match net::getpeername(&self.sides.wire.socket)? {
            Some(addr) => Ok(addr.try_into()?),
            None => Err(Errno::NOTCONN.into()),
        }
    }

    /// The address at which the client reached this server.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(net::getsockname(&self.sides.wire.socket)?.try_into()?)
    }

    fn wait(&mut self, what: PollFlags) -> io::Result<()> {
        let deadline = self.deadline();
        let began = Instant::now();
        let ready = wait_until(&self.sides.wire.socket, what, Some(deadline));
        self.input.waited(began.elapsed());
        if ready? {
            return Ok(());
        }
        self.sides.wire.timed_out = true;
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
            if self.fill_waiting()? == 0 {
                return Ok(0);
            }
        }
    }
}

impl Write for Connection<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if self.sides.wire.flush()? {
                let sent = self.sides.wire.send(bytes)?;
                if sent > 0 || bytes.is_empty() {
                    return Ok(sent);
                }
            }
            let kept = self.sides.wire.keep(bytes);
            if kept > 0 {
                return Ok(kept);
            }
            self.wait(PollFlags::OUT)?;
        }
    }

    /// Waits until the socket has taken all that was written. It is not needed for the bytes to
    /// be sent.
    fn flush(&mut self) -> io::Result<()> {
        while !self.sides.wire.flush()? {
            self.wait(PollFlags::OUT)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Connection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("socket", &self.sides.wire.socket)
            .field("input", &self.input().len())
            .field("ended", &self.ended())
            .finish_non_exhaustive()
    }
}
