//! What a thread does with a connection while it has it, the same in all models.

use std::{
    borrow::Cow,
    io, mem,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use rustix::net::{Shutdown, shutdown};

use super::{
    config::Config,
    conn::{Conn, GRACE, Phase},
    connection::{Connection, Sides},
    control::Control,
    handler::{Handler, Next, Refusal},
    reactor::Key,
    runqueue::Waker,
    wire::Input,
};

/// A handler with what its calls depend on.
#[derive(Debug)]
pub(crate) struct Service<H> {
    pub(crate) handler: H,
    pub(crate) config: Config,
    pub(crate) control: Arc<Control>,
}

/// What is to become of the connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing to do until its socket or its deadline says so.
    Park,
    /// There is more to do, but others wait.
    Yield,
    Close,
}

/// What runs connections, as far as they know it.
pub(crate) trait Host {
    /// Whether somebody else could be served now; asked when the handler has more to do at once.
    fn others_wait(&mut self) -> bool;

    /// What has this connection run once more; none where there is no such thing.
    fn waker(&self, key: &mut Option<Key>, socket: &Arc<OwnedFd>) -> Option<Waker>;
}

/// What came of running a connection.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) outcome: Outcome,
    /// Requests that were answered.
    pub(crate) answered: u32,
    /// For how long the handler waited for the client.
    pub(crate) waited: Duration,
}

/// Connections that may linger at once; beyond it they are closed right away.
pub(crate) const LINGER_CONNECTIONS: usize = 1024;
/// The most that is drained from one lingering connection. After that it is left alone, so that a
/// client that reads while it sends still has its reply.
const LINGER_BYTES: usize = 1024 * 1024;

impl<H: Handler> Service<H> {
    /// Serves a connection until there is nothing to do; then it is to be settled, if it stays.
    pub(crate) fn run(&self, conn: &mut Conn<H::State>, input: &mut Input, host: &mut dyn Host) -> Ran {
        let expired = mem::take(&mut conn.expired);
        let mut answered = 0;
        if conn.phase == Phase::Linger {
            return Ran { outcome: self.linger(conn, input), answered, waited: Duration::ZERO };
        }
        input.load(mem::take(&mut conn.input));
        let outcome = match self.serve(conn, input, expired, host, &mut answered) {
            Ok(outcome) => outcome,
            Err(end) => self.wind_up(conn, input, end),
        };
        if outcome != Outcome::Close {
            conn.input = if conn.phase == Phase::Linger { Vec::new() } else { input.save() };
        }
        Ran { outcome, answered, waited: input.take_waited() }
    }

    fn serve(
        &self,
        conn: &mut Conn<H::State>,
        input: &mut Input,
        mut expired: bool,
        host: &mut dyn Host,
        answered: &mut u32,
    ) -> Result<Outcome, End> {
        if conn.second.is_none() && !conn.wire.flush()? {
            return Ok(Outcome::Park);
        }
        if conn.closing {
            return Ok(self.close(conn, input));
        }
        if conn.state.is_none() {
            let sides = Sides { wire: &mut conn.wire, second: &mut conn.second, key: &mut conn.key };
            conn.state = Some(self.call(sides, input, host, |c| self.handler.open(c))?);
            if conn.wire.wrote {
                self.control.counters.answered.count();
                *answered += 1;
            }
        }
        if conn.second.is_some() {
            return self.serve_both(conn, input, expired, host, answered);
        }
        let mut again = mem::take(&mut conn.again);
        loop {
            let Some(state) = &mut conn.state else { return Ok(Outcome::Close) };
            let had_ended = conn.wire.ended;
            let came = conn.wire.fill(input)?;
            let consumed = mem::take(&mut conn.wire.consumed);
            let next = if came > 0 || again || conn.wire.ended != had_ended {
                expired = false;
                let sides = Sides { wire: &mut conn.wire, second: &mut conn.second, key: &mut conn.key };
                self.call(sides, input, host, |c| self.handler.ready(c, state))?
            } else if mem::take(&mut expired) {
                let sides = Sides { wire: &mut conn.wire, second: &mut conn.second, key: &mut conn.key };
                let next = self.call(sides, input, host, |c| self.handler.expired(c, state))?;
                if next == Next::Close {
                    self.count_timeout(conn.phase);
                }
                conn.since = Instant::now();
                next
            } else {
                return self.rest(conn, input);
            };
            // A reply may take several calls, of which the first takes the request.
            if mem::take(&mut conn.wire.timed_out) {
                self.control.counters.timed_out_io.count();
            } else if conn.wire.consumed && conn.wire.wrote {
                self.control.counters.answered.count();
                *answered += 1;
            }
            // Again without having taken or written anything would never end.
            let taken = conn.wire.consumed && !input.unread().is_empty();
            again = next == Next::Again && (taken || conn.wire.wrote);
            conn.wire.consumed |= consumed;
            if self.control.is_cut() {
                return Ok(Outcome::Close);
            }
            if conn.second.is_some() && next != Next::Close {
                return Ok(if next == Next::Again { Outcome::Yield } else { Outcome::Park });
            }
            conn.closing = next == Next::Close;
            if !conn.wire.is_flushed() {
                conn.again = again;
                return Ok(Outcome::Park);
            }
            if conn.closing {
                return Ok(self.close(conn, input));
            }
            if again {
                if host.others_wait() {
                    conn.again = true;
                    return Ok(Outcome::Yield);
                }
                continue;
            }
            if conn.wire.drained && !conn.wire.ended && !input.is_full() {
                return Ok(Outcome::Park);
            }
        }
    }

    /// The same with a second descriptor attached, for either of which there was an event. The
    /// handler does the reading and writing.
    fn serve_both(
        &self,
        conn: &mut Conn<H::State>,
        input: &mut Input,
        mut expired: bool,
        host: &mut dyn Host,
        answered: &mut u32,
    ) -> Result<Outcome, End> {
        conn.again = false;
        loop {
            // Who has waited too long for its turn is refused, and has not timed out.
            let waited = conn.awaits_turn();
            let Some(state) = &mut conn.state else { return Ok(Outcome::Close) };
            let call = |connection: &mut Connection<'_>| match expired {
                true => self.handler.expired(connection, state),
                false => self.handler.ready(connection, state),
            };
            let sides = Sides { wire: &mut conn.wire, second: &mut conn.second, key: &mut conn.key };
            let next = self.call(sides, input, host, call)?;
            if expired && next == Next::Close && !waited {
                self.count_timeout(conn.phase);
                if conn.second.is_some() {
                    conn.reset_on_close();
                }
            }
            if mem::take(&mut expired) {
                conn.since = Instant::now();
            }
            if self.control.is_cut() {
                return Ok(Outcome::Close);
            }
            if conn.second.is_none() && conn.wire.consumed && conn.wire.wrote {
                self.control.counters.answered.count();
                *answered += 1;
            }
            match next {
                // It is a connection like any other again.
                Next::Park | Next::Again if conn.second.is_none() => {
                    conn.again = next == Next::Again;
                    return self.serve(conn, input, false, host, answered);
                }
                // Its last word, when there is nothing attached any more.
                Next::Close if conn.second.is_none() && conn.wire.wrote => {
                    conn.closing = true;
                    return Ok(if conn.wire.flush()? { self.close(conn, input) } else { Outcome::Park });
                }
                Next::Close => return Ok(Outcome::Close),
                Next::Park => return Ok(Outcome::Park),
                Next::Again => {}
            }
            if host.others_wait() {
                conn.again = true;
                return Ok(Outcome::Yield);
            }
        }
    }

    /// Nothing came: parks, unless nothing can come any more. A shutdown closes what is idle.
    fn rest(&self, conn: &Conn<H::State>, input: &Input) -> Result<Outcome, End> {
        if !conn.wire.is_flushed() {
            return Ok(Outcome::Park);
        }
        if input.is_full() {
            return Err(End::Failed(io::ErrorKind::FileTooLarge.into()));
        }
        let fresh = !conn.wire.heard && Instant::now() < conn.since + GRACE;
        let idle = input.unread().is_empty() && !fresh;
        if conn.wire.ended || (idle && self.control.closes_idle()) {
            return Ok(Outcome::Close);
        }
        Ok(Outcome::Park)
    }

    /// Counts why a connection ends early. A reply that was written before an error or a panic is
    /// still sent.
    fn wind_up(&self, conn: &mut Conn<H::State>, input: &Input, end: End) -> Outcome {
        let counters = &self.control.counters;
        match end {
            End::Panicked => counters.panics.count(),
            End::Failed(_) if conn.wire.timed_out => {
                counters.timed_out_io.count();
                if conn.wire.wrote || !conn.wire.is_flushed() || conn.second.is_some() {
                    // What breaks off is not to be taken for whole.
                    conn.reset_on_close();
                }
                return Outcome::Close;
            }
            End::Failed(error) => {
                tracing::debug!(%error, "a connection failed");
                counters.failed.count();
            }
        }
        // What was relayed so far is no reply.
        if conn.second.is_some() {
            conn.reset_on_close();
            return Outcome::Close;
        }
        if !conn.wire.wrote || conn.closing {
            return Outcome::Close;
        }
        conn.closing = true;
        match conn.wire.flush() {
            Ok(true) => self.close(conn, input),
            Ok(false) => Outcome::Park,
            Err(_) => Outcome::Close,
        }
    }

    fn count_timeout(&self, phase: Phase) {
        let counters = &self.control.counters;
        match phase {
            Phase::FirstByte => counters.timed_out_first_byte.count(),
            Phase::Idle => counters.timed_out_idle.count(),
            Phase::Request | Phase::Reply => counters.timed_out_io.count(),
            // Its reply was sent; nothing is missing.
            Phase::Linger => {}
        }
    }

    /// Closes once the reply is safe: with unread input, closing is a reset, which takes the
    /// reply with it.
    fn close(&self, conn: &mut Conn<H::State>, input: &Input) -> Outcome {
        let more_may_come =
            conn.wire.expects_more || !input.unread().is_empty() || conn.wire.has_unread_input();
        if more_may_come && !conn.wire.ended && self.start_lingering(conn) {
            return Outcome::Park;
        }
        Outcome::Close
    }

    /// Takes note that a parked connection's deadline has passed. Whether a thread is to tell its
    /// handler; else it is to be closed.
    pub(crate) fn expire(&self, conn: &mut Conn<H::State>) -> bool {
        match conn.phase {
            Phase::Linger | Phase::Reply => {
                self.count_timeout(conn.phase);
                if conn.phase == Phase::Reply {
                    conn.reset_on_close();
                }
                false
            }
            Phase::FirstByte | Phase::Idle | Phase::Request => {
                conn.expired = true;
                true
            }
        }
    }

    /// Ends our side and lingers until the client ends its own; whether that could be begun.
    pub(crate) fn start_lingering(&self, conn: &mut Conn<H::State>) -> bool {
        let control = &self.control;
        if control.lingering.fetch_add(1, SeqCst) >= LINGER_CONNECTIONS
            || shutdown(&conn.wire.socket, Shutdown::Write).is_err()
        {
            control.lingering.fetch_sub(1, SeqCst);
            return false;
        }
        self.drop_state(conn);
        conn.start_lingering(Instant::now());
        true
    }

    fn linger(&self, conn: &mut Conn<H::State>, input: &mut Input) -> Outcome {
        while conn.lingered <= LINGER_BYTES {
            input.load(Vec::new());
            match conn.wire.fill(input) {
                Ok(0) if conn.wire.ended => return Outcome::Close,
                Ok(count) => conn.lingered += count,
                // Its reply was sent; what the client does after that is no failure.
                Err(_) => return Outcome::Close,
            }
            if conn.wire.drained {
                break;
            }
        }
        Outcome::Park
    }

    /// What a refused client is sent.
    pub(crate) fn refusal(&self, why: Refusal) -> Cow<'static, [u8]> {
        catch_unwind(AssertUnwindSafe(|| self.handler.refusal(why))).unwrap_or_else(|_| {
            self.control.counters.panics.count();
            Cow::Borrowed(&[])
        })
    }

    /// Calls the handler; a panic or an error is a reason to end the connection.
    fn call<T>(
        &self,
        sides: Sides<'_>,
        input: &mut Input,
        host: &dyn Host,
        handler: impl FnOnce(&mut Connection<'_>) -> io::Result<T>,
    ) -> Result<T, End> {
        sides.wire.wrote = false;
        let mut connection = Connection::new(sides, input, &self.config, &self.control, host);
        let result =
            catch_unwind(AssertUnwindSafe(|| handler(&mut connection))).map_err(|_| End::Panicked)?;
        Ok(result?)
    }

    /// Closes the socket, drops the handler's state and counts the connection as ended. Its slot
    /// has been released.
    pub(crate) fn retire(&self, mut conn: Conn<H::State>) {
        if conn.phase == Phase::Linger {
            self.control.lingering.fetch_sub(1, SeqCst);
        } else if conn.wire.ended && !conn.wire.heard {
            self.control.counters.empty.count();
        }
        self.drop_state(&mut conn);
        drop(conn);
        self.control.ended_connection();
    }

    fn drop_state(&self, conn: &mut Conn<H::State>) {
        let state = conn.state.take();
        if catch_unwind(AssertUnwindSafe(|| drop(state))).is_err() {
            self.control.counters.panics.count();
        }
    }
}

/// Why a connection ends other than by its handler's word.
enum End {
    Failed(io::Error),
    Panicked,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<rustix::io::Errno> for End {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Failed(errno.into())
    }
}
