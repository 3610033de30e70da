//! A handler with what its calls depend on: how sessions begin, are told no, expire and end. It knows
//! neither threads nor slots.

use std::{
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use super::{
    context::Context,
    handler::{Handler, Refusal},
    life::{Session, Told},
    linger::LINGERING,
    phase::Phase,
};

#[derive(Debug)]
pub(crate) struct Service<H> {
    pub(super) handler: H,
    pub(crate) context: Arc<Context>,
}

impl<H: Handler> Service<H> {
    pub(crate) fn new(handler: H, context: Arc<Context>) -> Self {
        Self { handler, context }
    }

    /// What a refused client is sent.
    fn refusal(&self, why: Refusal) -> Cow<'static, [u8]> {
        catch_unwind(AssertUnwindSafe(|| self.handler.refusal(why))).unwrap_or_else(|_| {
            self.context.counters.panics.count();
            Cow::Borrowed(&[])
        })
    }

    /// Tells the client no, with the handler's text, or a reset where there is none. Whether the session
    /// lingers now; else it is to be retired.
    pub(crate) fn refuse(&self, session: &mut Session<H::State>, why: Refusal) -> bool {
        let text = self.refusal(why);
        // Who has not been introduced would take it for the beginning of a handshake.
        let can_be_told = self.context.entry.tls.is_none() || session.wire.is_introduced();
        if text.is_empty() || !can_be_told {
            session.wire.reset_on_close(true);
            return false;
        }
        // A client that is gone needs no text, and the buffer takes it where nothing was sent.
        session.wire.send(&text).is_ok() && self.linger(session, Told::Refusal)
    }

    /// Ends our side and lingers until the client ends its own; whether that could be begun.
    pub(super) fn linger(&self, session: &mut Session<H::State>, told: Told) -> bool {
        let counted = self.context.lingering.count_below(LINGERING);
        let Some(counted) = counted.filter(|_| session.wire.end().is_ok()) else {
            return false;
        };
        self.drop_state(session.linger(Instant::now(), told, counted));
        true
    }

    /// Takes note that a parked session's deadline has passed. Whether a thread is to tell its
    /// handler; else it is to be closed.
    pub(crate) fn expire(&self, session: &mut Session<H::State>) -> bool {
        match session.phase() {
            // Its reply was sent; nothing is missing.
            Phase::Linger => false,
            Phase::Reply => {
                self.count_timeout(Phase::Reply);
                session.reset_on_close();
                false
            }
            Phase::FirstByte | Phase::Idle | Phase::Request => {
                session.expire();
                true
            }
        }
    }

    pub(super) fn count_timeout(&self, phase: Phase) {
        let counters = &self.context.counters;
        match phase {
            Phase::FirstByte => counters.timed_out_first_byte.count(),
            Phase::Idle => counters.timed_out_idle.count(),
            Phase::Request | Phase::Reply => counters.timed_out_io.count(),
            Phase::Linger => {}
        }
    }

    /// Closes the socket and drops the handler's state. Its slot has been released.
    pub(crate) fn retire(&self, mut session: Session<H::State>) {
        if session.lingers().is_none() && session.wire.ended() && !session.wire.heard() {
            self.context.counters.empty.count();
        }
        session.wire.say_end();
        self.drop_state(session.end());
    }

    pub(super) fn drop_state(&self, state: Option<H::State>) {
        if catch_unwind(AssertUnwindSafe(|| drop(state))).is_err() {
            self.context.counters.panics.count();
        }
    }
}
