//! A connection as its handler sees it during one call. It knows neither the handler nor whoever runs it.

use std::{
    fmt,
    io::{self, Read, Write},
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
    net,
};

use super::{
    activity::At,
    context::Context,
    farewell::Farewell,
    joint::{Joint, Other},
    sides::{Host, Sides},
};
use crate::{
    net::{
        input::{INPUT_LIMIT, Input},
        key::Key,
        ready::Waker,
        wire::Wire,
    },
    sys::{
        peer,
        wait::{poll_until, wait_until},
    },
};

/// What came of borrowing a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Borrowed {
    /// Something has happened to it while nobody had it: it was closed, or has sent what nobody asked for.
    Touched,
    Untouched,
    /// There is no slot to find this connection by.
    Nowhere,
}

/// A connection as its handler sees it during one call.
///
/// ```
/// use std::io::{Read, Write};
/// use overfall::{Next, Server};
///
/// let handle = Server::builder().bind("127.0.0.1:0").serve(|connection| {
///     // What has come, or more that is waited for.
///     let mut first = [0; 4];
///     connection.read_exact(&mut first)?;
///     connection.write_all(&first)?;
///     Ok(Next::Close)
/// })?;
/// # Ok::<(), overfall::Error>(())
/// ```
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
    context: &'a Context,
    host: &'a dyn Host,
    deadline: Option<Instant>,
}

impl<'a> Connection<'a> {
    /// The most unread [`input`](Self::input) that is held, in bytes.
    pub const INPUT_LIMIT: usize = INPUT_LIMIT;

    pub(super) fn new(
        sides: Sides<'a>,
        input: &'a mut Input,
        context: &'a Context,
        host: &'a dyn Host,
    ) -> Self {
        Self { sides, input, context, host, deadline: None }
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
        self.sides.call.consumed |= amount > 0;
    }

    /// Whether the client has ended its side: nothing will follow what is in the input. The
    /// other direction is still open, and whether a half-closed client wants its reply is for
    /// the protocol to decide.
    pub fn ended(&self) -> bool {
        self.sides.wire.ended()
    }

    /// Whether the server is shutting down, so that this reply should be the connection's last.
    pub fn draining(&self) -> bool {
        self.context.stage.is_draining()
    }

    /// When this call's waiting ends: `io_timeout` after it was first asked for, or first waited.
    pub fn deadline(&mut self) -> Instant {
        *self.deadline.get_or_insert_with(|| Instant::now() + self.context.timeouts.io.get())
    }

    /// How long the client has been waiting for what this call is for, at most: in the kernel's queues, in
    /// line for a worker, and since the call began.
    pub fn waited(&self) -> Duration {
        self.host.came().elapsed()
    }

    /// When the client is taken to give up.
    pub(crate) fn gives_up(&self) -> Instant {
        self.host.came() + self.host.tolerance()
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
        self.sides.call.expects_more = true;
    }

    /// Whether closing is to be a reset, so that a reply that breaks off is not taken for whole.
    pub(crate) fn reset_on_close(&mut self, reset: bool) {
        self.sides.wire.reset_on_close(reset);
    }

    /// This connection for a shorter while, with a deadline of its own.
    pub(crate) fn reborrow(&mut self) -> Connection<'_> {
        Connection::new(self.sides.reborrow(), self.input, self.context, self.host)
    }

    /// What all connections of the server have in common.
    pub(crate) fn context(&self) -> &'a Context {
        self.context
    }

    /// Joins a connection that is being made to this one, which is to be done by this time: `ready` is
    /// called for the events of either, and does all the reading.
    pub(crate) fn join(&mut self, socket: OwnedFd, until: Instant) {
        *self.sides.joint = Some(Box::new(Joint::Other(Other::connecting(socket, until))));
    }

    /// Joins a connection that is being made to this one, in a slot of its own, so that it can be given
    /// back and borrowed by others. Whether there was a slot.
    pub(crate) fn join_lodged(&mut self, socket: OwnedFd, until: Instant) -> bool {
        let other = Other::connecting(socket, until).lodged(|wire| self.host.lodge(&wire.socket));
        other.is_some_and(|other| self.borrow(other) != Borrowed::Nowhere)
    }

    /// Joins a connection that was given back before.
    pub(crate) fn borrow(&mut self, mut other: Other) -> Borrowed {
        let Some(key) = self.key() else { return Borrowed::Nowhere };
        let touched = other.lend(key);
        *self.sides.joint = Some(Box::new(Joint::Other(other)));
        if touched { Borrowed::Touched } else { Borrowed::Untouched }
    }

    /// What is joined, to be borrowed by others.
    pub(crate) fn give_back(&mut self) -> Option<Other> {
        match *self.sides.joint.take()? {
            Joint::Turn { .. } => None,
            Joint::Other(mut other) => {
                other.give_back();
                Some(other)
            }
        }
    }

    /// Closes what is joined, or waits for no turn any more.
    pub(crate) fn part(&mut self) {
        *self.sides.joint = None;
    }

    /// Has `ready` called when its turn has come, of which a [`waker`](Self::waker) says, or when
    /// something happens to the client; it does all the reading. After this time `expired` is called.
    pub(crate) fn await_turn(&mut self, until: Instant) {
        *self.sides.joint = Some(Box::new(Joint::Turn { until }));
    }

    /// What has this connection run once more, from whatever thread; none where there is no slot left
    /// to find it by.
    pub(crate) fn waker(&mut self) -> Option<Waker> {
        let key = self.key()?;
        self.host.waker(key)
    }

    fn key(&mut self) -> Option<Key> {
        self.host.key(self.sides.key, &self.sides.wire.socket)
    }

    /// Says what this call does, such as `GET /index.html`, for whoever asks what the workers are busy with
    /// ([`RunningCall::doing`](crate::RunningCall::doing)). It holds until the call ends or says something
    /// else. The first 144 bytes are kept; it neither allocates nor waits.
    pub fn describe(&mut self, doing: &str) {
        self.describe_in_parts(&[doing]);
    }

    /// Says what this call does: all parts together.
    pub(crate) fn describe_in_parts(&mut self, parts: &[&str]) {
        if let Some(activity) = self.host.activity() {
            activity.describe(parts);
        }
    }

    /// Says what it means that nothing moves.
    pub(crate) fn say_farewell(&mut self, farewell: Farewell) {
        *self.sides.farewell = farewell;
    }

    /// Says that a request was answered in this call, which came in an earlier one, or whose answer was
    /// written other than through this.
    pub(crate) fn note_answered(&mut self) {
        (self.sides.call.consumed, self.sides.call.wrote) = (true, true);
    }

    /// The client's side.
    pub(crate) fn client(&mut self) -> &mut Wire {
        self.sides.wire
    }

    /// The client's socket.
    pub(crate) fn socket(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.sides.wire.socket)
    }

    /// The client's side, what is joined to it, and a buffer for what is read.
    pub(crate) fn sides(&mut self) -> Option<(&mut Wire, &mut Other, &mut Input)> {
        match self.sides.joint.as_deref_mut()? {
            Joint::Turn { .. } => None,
            Joint::Other(other) => Some((self.sides.wire, other, self.input)),
        }
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

    /// Sends so much of a file, from there on, as the socket takes at once; none where it takes no more.
    #[cfg(feature = "files")]
    pub(crate) fn send_file(
        &mut self,
        file: &std::fs::File,
        offset: &mut u64,
        most: usize,
    ) -> io::Result<Option<usize>> {
        self.sides.call.wrote = true;
        Ok(self.sides.wire.send_file(file, offset, most)?)
    }

    /// The connection as a non-blocking stream, for libraries that are fed by one: reading gives
    /// [`io::ErrorKind::WouldBlock`] where nothing has come, upon which a handler answers
    /// [`Next::Park`](crate::Next::Park). So does writing where 256 KiB are kept already; then it answers
    /// [`Next::Again`](crate::Next::Again), to be called when the client has taken those.
    pub fn nonblocking(&mut self) -> NonBlocking<'_, 'a> {
        NonBlocking(self)
    }

    /// The client's address, which is known even after it has reset the connection. Behind a proxy that says
    /// so in a PROXY line it is that of the proxy's client.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self.sides.wire.ends() {
            Some(ends) => Ok(ends.client),
            None => Ok(peer::addr(&self.sides.wire.socket).ok_or(Errno::NOTCONN)?),
        }
    }

    /// The address at which the client reached this server, or the proxy in front of it that says so in a
    /// PROXY line.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self.sides.wire.ends() {
            Some(ends) => Ok(ends.local),
            None => Ok(net::getsockname(&self.sides.wire.socket)?.try_into()?),
        }
    }

    /// Whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.sides.wire.is_encrypted()
    }

    /// Sends what the socket takes, or keeps what there is room for; how much that was.
    fn write_at_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sides.call.wrote = true;
        if self.sides.wire.flush()? {
            let sent = self.sides.wire.send(bytes)?;
            if sent > 0 {
                return Ok(sent);
            }
        }
        Ok(self.sides.wire.keep(bytes))
    }

    /// Has `ready` called as soon as `open` has returned, though nothing has come.
    pub(crate) fn go_on(&mut self) {
        self.sides.call.goes_on = true;
    }

    /// Whether that was said in this call.
    pub(crate) fn goes_on(&self) -> bool {
        self.sides.call.goes_on
    }

    /// Sends what is kept, as much as the socket takes now; whether that was all.
    pub(crate) fn try_flush(&mut self) -> io::Result<bool> {
        Ok(self.sides.wire.flush()?)
    }

    /// Waits for the client or one of the others, whichever is ready first; whether one was by then.
    ///
    /// # Errors
    ///
    /// The client is gone.
    pub(crate) fn wait_among<'b>(
        &'b self,
        client: PollFlags,
        mut others: Vec<PollFd<'b>>,
        until: Instant,
    ) -> io::Result<bool> {
        others.push(PollFd::new(&self.sides.wire.socket, client));
        let is_ready = poll_until(&mut others, Some(until))?;
        let gone = PollFlags::HUP | PollFlags::ERR;
        let is_gone = others.last().is_some_and(|client| client.revents().intersects(gone));
        if is_gone { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(is_ready) }
    }

    /// Says that whoever the call waits for was silent for too long.
    pub(crate) fn note_timed_out(&mut self) {
        self.sides.call.timed_out = true;
    }

    fn wait(&mut self, what: PollFlags) -> io::Result<()> {
        let deadline = self.deadline();
        let began = Instant::now();
        self.note_at(if what == PollFlags::OUT { At::Writing } else { At::Reading }, began);
        let ready = wait_until(&self.sides.wire.socket, what, Some(deadline));
        let ended = Instant::now();
        self.note_at(At::Handling, ended);
        self.sides.call.waited += ended - began;
        if ready? {
            return Ok(());
        }
        self.sides.call.timed_out = true;
        Err(io::Error::new(io::ErrorKind::TimedOut, "the client kept the handler waiting too long"))
    }

    fn note_at(&self, at: At, now: Instant) {
        if let Some(activity) = self.host.activity() {
            activity.enter(at, now);
        }
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
            let written = self.write_at_once(bytes)?;
            if written > 0 || bytes.is_empty() {
                return Ok(written);
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

/// A connection as a non-blocking stream: see [`Connection::nonblocking`].
#[derive(Debug)]
pub struct NonBlocking<'a, 'b>(&'a mut Connection<'b>);

impl Read for NonBlocking<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self(connection) = self;
        if connection.input().is_empty() && connection.fill()? == 0 && !connection.ended() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        connection.read(buffer)
    }
}

impl Write for NonBlocking<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self(connection) = self;
        match connection.write_at_once(bytes)? {
            0 if !bytes.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            written => Ok(written),
        }
    }

    /// What was written is sent without it, while the connection is parked.
    fn flush(&mut self) -> io::Result<()> {
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
