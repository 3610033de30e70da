//! What a thread does with a session while it has it: one loop, which calls the handler as long as there
//! is something to do. It knows neither what thread that is nor what the handler does.

use std::{
    io, mem,
    ops::ControlFlow::{self, Break, Continue},
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use rustix::io::Errno;

use super::{
    connection::Connection,
    context::Context,
    farewell::Farewell,
    handler::{Handler, Next},
    life::{Due, GRACE, Life, Session, Told},
    linger,
    service::Service,
    sides::{Call, Host, Sides},
};
use crate::net::{input::Input, transport::Stage};

/// What is to become of the session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing to do until its sockets or its deadline say so.
    Park,
    /// There is more to do, but others wait.
    Yield,
    Close,
}

/// What came of running a session.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) outcome: Outcome,
    /// Requests that were answered.
    pub(crate) answered: u32,
    /// For how long the handler waited for the client.
    pub(crate) waited: Duration,
    /// Input was consumed.
    pub(crate) consumed: bool,
}

/// Why a session ends other than by its handler's word.
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

/// One run of one session.
struct Exchange<'a, H: Handler> {
    service: &'a Service<H>,
    session: &'a mut Session<H::State>,
    input: &'a mut Input,
    host: &'a mut dyn Host,
    /// What the handler has done in the latest call.
    call: Call,
    answered: u32,
    waited: Duration,
    consumed: bool,
    wrote: bool,
}

impl<H: Handler> Service<H> {
    /// Serves a session until there is nothing to do; then it is to be settled, if it stays.
    pub(crate) fn run(&self, session: &mut Session<H::State>, input: &mut Input, host: &mut dyn Host) -> Ran {
        if session.lingers().is_some() {
            let outcome = if linger::drain(session, input) { Outcome::Park } else { Outcome::Close };
            return Ran { outcome, answered: 0, waited: Duration::ZERO, consumed: false };
        }
        input.load(mem::take(&mut session.input));
        let mut exchange = Exchange {
            service: self,
            session,
            input,
            host,
            call: Call::default(),
            answered: 0,
            waited: Duration::ZERO,
            consumed: false,
            wrote: false,
        };
        let outcome = exchange.serve().unwrap_or_else(|end| exchange.wind_up(end));
        exchange.end_call();
        let Exchange { session, input, answered, waited, consumed, .. } = exchange;
        if outcome != Outcome::Close && session.lingers().is_none() {
            session.input = input.save();
        }
        Ran { outcome, answered, waited, consumed }
    }
}

impl<H: Handler> Exchange<'_, H> {
    fn serve(&mut self) -> Result<Outcome, End> {
        if !self.session.is_joined() && !self.session.wire.flush()? {
            return Ok(Outcome::Park);
        }
        match self.session.life {
            Life::Fresh => match self.introduce()? {
                Continue(()) => self.open()?,
                Break(outcome) => return Ok(outcome),
            },
            Life::Served { .. } => {}
            Life::Closing { expects_more } => return Ok(self.close(expects_more)),
            Life::Lingering { .. } => return Ok(Outcome::Park),
        }
        if let Some(ends) = self.session.wire.ends() {
            self.host.client_is(ends.client);
        }
        let mut due = self.session.take_due();
        loop {
            let Some(reason) = self.reason(due)? else { return self.rest() };
            let next = self.call_handler(reason)?;
            match self.follow(next) {
                Continue(again) => due = again,
                Break(outcome) => return Ok(outcome),
            }
        }
    }

    /// Goes on with what stands before the connection's own bytes, of which its handler hears nothing.
    fn introduce(&mut self) -> Result<ControlFlow<Outcome>, End> {
        let Context { entry, counters, .. } = &*self.service.context;
        let introduced = self.session.wire.introduce(entry);
        match (introduced, self.session.wire.introduction()) {
            (Ok(true), _) => return Ok(Continue(())),
            (Ok(false), _) => {}
            (Err(errno), stage) => {
                // One whose client has gone says nothing of what it would have sent.
                match (errno, stage) {
                    (Errno::PROTO, Some(Stage::ProxyLine)) => counters.proxy_lines_malformed.count(),
                    (Errno::PROTO, _) => counters.handshakes_failed.count(),
                    _ => {}
                }
                return Err(errno.into());
            }
        }
        let has_expired = self.session.take_due() == Due::Expired;
        if has_expired {
            self.service.count_timeout(self.session.phase());
        }
        let ends = has_expired || self.session.wire.ended();
        Ok(Break(if ends { Outcome::Close } else { Outcome::Park }))
    }

    fn open(&mut self) -> Result<(), End> {
        let mut farewell = Farewell::default();
        let session = &mut *self.session;
        let sides = Sides {
            wire: &mut session.wire,
            joint: &mut session.joint,
            key: &mut session.key,
            farewell: &mut farewell,
            call: &mut self.call,
        };
        let mut connection = Connection::new(sides, self.input, &self.service.context, self.host);
        let state = guarded(|| self.service.handler.open(&mut connection))?;
        session.open(state, farewell);
        if self.call.goes_on {
            session.again();
        }
        if self.call.wrote {
            self.count_answer();
        }
        self.end_call();
        Ok(())
    }

    /// Why the handler is to be called, if it is. Where something is joined, it does the reading.
    fn reason(&mut self, due: Due) -> Result<Option<Due>, End> {
        if self.session.is_joined() {
            return Ok(Some(due));
        }
        let wire = &mut self.session.wire;
        let had_ended = wire.ended();
        let came = wire.fill(self.input)?;
        Ok(match due {
            Due::Again => Some(Due::Again),
            Due::Event | Due::Expired if came > 0 || wire.ended() != had_ended => Some(Due::Event),
            Due::Expired => Some(Due::Expired),
            Due::Event => None,
        })
    }

    fn call_handler(&mut self, reason: Due) -> Result<Next, End> {
        // Who has waited too long for its turn is refused, and has not timed out.
        let may_time_out = reason == Due::Expired && !self.session.awaits_turn();
        let session = &mut *self.session;
        let Life::Served { state, farewell } = &mut session.life else { return Ok(Next::Close) };
        let sides = Sides {
            wire: &mut session.wire,
            joint: &mut session.joint,
            key: &mut session.key,
            farewell,
            call: &mut self.call,
        };
        let mut connection = Connection::new(sides, self.input, &self.service.context, self.host);
        let handler = &self.service.handler;
        let next = guarded(|| match reason {
            Due::Event | Due::Again => handler.ready(&mut connection, state),
            Due::Expired => handler.expired(&mut connection, state),
        })?;
        if reason == Due::Expired {
            if may_time_out && next == Next::Close {
                self.service.count_timeout(self.session.phase());
                if self.session.is_joined() {
                    self.session.reset_on_close();
                }
            }
            self.session.restart_clock(Instant::now());
        }
        Ok(next)
    }

    /// Does what the handler has answered; why it is to be called next, if it is to be called at once.
    fn follow(&mut self, next: Next) -> ControlFlow<Outcome, Due> {
        let is_joined = self.session.is_joined();
        let Call { consumed, wrote, timed_out, expects_more, .. } = self.call;
        // A reply may take several calls, of which the first takes the request.
        if timed_out {
            self.service.context.counters.timed_out_io.count();
        } else if consumed && wrote && !is_joined {
            self.count_answer();
        }
        self.end_call();
        if self.service.context.stage.is_cut() {
            return Break(Outcome::Close);
        }
        // Again without having taken or written anything would never end.
        let taken = consumed && !self.input.unread().is_empty();
        let again = next == Next::Again && (is_joined || taken || wrote);
        match next {
            Next::Close if is_joined => return Break(Outcome::Close),
            Next::Close => return Break(self.last_word(expects_more)),
            Next::Park | Next::Again => {}
        }
        if !is_joined && !self.session.wire.is_flushed() {
            if again {
                self.session.again();
            }
            return Break(Outcome::Park);
        }
        if again {
            if self.host.others_wait() {
                self.session.again();
                return Break(Outcome::Yield);
            }
            return Continue(Due::Again);
        }
        let wire = &self.session.wire;
        let is_done = wire.drained() && !wire.ended() && !self.input.is_full();
        if is_joined || is_done { Break(Outcome::Park) } else { Continue(Due::Event) }
    }

    /// Nothing came: parks, unless nothing can come any more. A shutdown closes what is idle.
    fn rest(&self) -> Result<Outcome, End> {
        let wire = &self.session.wire;
        if !wire.is_flushed() {
            return Ok(Outcome::Park);
        }
        if self.input.is_full() {
            return Err(End::Failed(io::ErrorKind::FileTooLarge.into()));
        }
        let fresh = !wire.heard() && Instant::now() < self.session.since() + GRACE;
        let idle = self.input.unread().is_empty() && !fresh;
        let ends = wire.ended() || (idle && self.service.context.stage.closes_idle());
        Ok(if ends { Outcome::Close } else { Outcome::Park })
    }

    /// Counts why a session ends early. A reply that was written before an error or a panic is
    /// still sent.
    fn wind_up(&mut self, end: End) -> Outcome {
        let counters = &self.service.context.counters;
        let is_joined = self.session.is_joined();
        let wrote = self.wrote || self.call.wrote;
        match end {
            End::Panicked => counters.panics.count(),
            End::Failed(_) if self.call.timed_out => {
                counters.timed_out_io.count();
                if wrote || !self.session.wire.is_flushed() || is_joined {
                    // What breaks off is not to be taken for whole.
                    self.session.reset_on_close();
                }
                return Outcome::Close;
            }
            End::Failed(error) => {
                tracing::debug!(%error, "a connection failed");
                counters.failed.count();
            }
        }
        // What was relayed so far is no reply.
        if is_joined {
            self.session.reset_on_close();
            return Outcome::Close;
        }
        if !wrote || self.session.wire.flush().is_err() {
            return Outcome::Close;
        }
        self.last_word(self.call.expects_more)
    }

    /// Has the session end once all is out that was written.
    fn last_word(&mut self, expects_more: bool) -> Outcome {
        let state = self.session.close(expects_more);
        self.service.drop_state(state);
        if self.session.wire.is_flushed() { self.close(expects_more) } else { Outcome::Park }
    }

    /// Closes once the reply is safe: with unread input, closing is a reset, which takes the
    /// reply with it.
    fn close(&mut self, expects_more: bool) -> Outcome {
        let wire = &self.session.wire;
        let more_may_come = expects_more || !self.input.unread().is_empty() || wire.has_unread_input();
        let lingers = more_may_come && !wire.ended() && !wire.resets();
        if lingers && self.service.linger(self.session, Told::Reply) { Outcome::Park } else { Outcome::Close }
    }

    fn count_answer(&mut self) {
        self.service.context.counters.answered.count();
        self.answered += 1;
    }

    /// Adds what the handler has done in its call to what it has done before.
    fn end_call(&mut self) {
        let call = mem::take(&mut self.call);
        self.consumed |= call.consumed;
        self.wrote |= call.wrote;
        self.waited += call.waited;
    }
}

/// Calls the handler; a panic or an error is a reason to end the session.
fn guarded<T>(call: impl FnOnce() -> io::Result<T>) -> Result<T, End> {
    Ok(catch_unwind(AssertUnwindSafe(call)).map_err(|_| End::Panicked)??)
}
