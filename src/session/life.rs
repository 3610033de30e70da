//! A session: a connection with everything it owns, in its slot while parked and with a thread while
//! not. It knows neither slots nor threads, nor what its handler does.

use std::{
    mem,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use super::{
    farewell::Farewell,
    joint::Joint,
    phase::{Clock, Facts, Phase},
    timeouts::LiveTimeouts,
};
use crate::{
    net::{
        flags::Flags,
        key::{Key, Side},
        poller::Watch,
        ready::Ready,
        wire::Wire,
    },
    sys::tally::Counted,
};

/// A session that has not spoken yet keeps its place for this long when it is to give way or
/// the server shuts down, since its first request is probably on the way; and one that lingers,
/// since its reply is. Shorter than the patience with a full server, so that places are found in
/// time.
pub(crate) const GRACE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Session<S> {
    pub(crate) wire: Wire,
    pub(super) joint: Option<Box<Joint>>,
    pub(super) life: Life<S>,
    due: Due,
    /// Unread input while parked.
    pub(super) input: Box<[u8]>,
    /// What it waits for while parked. (A [`Clock`] in place of this and the next would take eight bytes
    /// more.)
    phase: Phase,
    /// Since when the phase's timeout runs.
    since: Instant,
    /// Its slot, from the first time that it parks or is to be woken.
    pub(crate) key: Option<Key>,
    pub(crate) watch: Watch,
    /// It is one of those that are open.
    _open: Counted,
}

/// How far a session has come. It only ever goes down this list.
///
/// | life | `open` | `close` | `linger` |
/// |---|---|---|---|
/// | fresh | served | closing | lingering |
/// | served | | closing | lingering |
/// | closing | | closing | lingering |
/// | lingering | | lingering | lingering |
#[derive(Debug)]
pub(super) enum Life<S> {
    /// Its handler has not been called yet.
    Fresh,
    Served {
        state: S,
        farewell: Farewell,
    },
    /// It ends once its output is out.
    Closing {
        /// The client has announced more than has come.
        expects_more: bool,
    },
    /// Our side has ended, and the client's is awaited.
    Lingering {
        /// So many bytes were drained.
        drained: u32,
        told: Told,
        _counted: Counted,
    },
}

/// What a client was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Reply,
    Refusal,
}

/// Why a session is to be run next.
///
/// | due | `again` | `expire` | `take` |
/// |---|---|---|---|
/// | an event | again | expired | an event |
/// | again: it is in the ready line, or waits for room | again | again | an event |
/// | expired: it is in the ready line | again | expired | an event |
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    #[default]
    Event,
    /// The handler has more to do.
    Again,
    /// The phase's timeout has passed, and the handler is to hear of it.
    Expired,
}

impl Due {
    fn expire(self) -> Self {
        match self {
            Self::Event | Self::Expired => Self::Expired,
            Self::Again => Self::Again,
        }
    }
}

impl<S> Session<S> {
    pub(crate) fn new(socket: OwnedFd, accepted: Instant, open: Counted) -> Self {
        Self {
            wire: Wire::new(socket),
            joint: None,
            life: Life::Fresh,
            due: Due::Event,
            input: Box::default(),
            phase: Phase::FirstByte,
            since: accepted,
            key: None,
            watch: Watch::No,
            _open: open,
        }
    }

    fn clock(&self) -> Clock {
        Clock { phase: self.phase, since: self.since }
    }

    fn set_clock(&mut self, Clock { phase, since }: Clock) {
        (self.phase, self.since) = (phase, since);
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Since when the phase's timeout runs.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn is_joined(&self) -> bool {
        self.joint.is_some()
    }

    /// Whether it waits for its turn.
    pub(super) fn awaits_turn(&self) -> bool {
        self.joint.as_deref().is_some_and(|joint| matches!(joint, Joint::Turn { .. }))
    }

    /// Whether it has waited for its turn for too long.
    pub(crate) fn has_waited_in_vain(&self) -> bool {
        self.due == Due::Expired && self.awaits_turn()
    }

    /// What its handler has said of its end.
    pub(crate) fn farewell(&self) -> Farewell {
        match self.life {
            Life::Served { farewell, .. } => farewell,
            Life::Fresh | Life::Closing { .. } | Life::Lingering { .. } => Farewell::AtOnce,
        }
    }

    /// Whether it merely lingers, after having been told this.
    pub(crate) fn lingers(&self) -> Option<Told> {
        match self.life {
            Life::Lingering { told, .. } => Some(told),
            Life::Fresh | Life::Served { .. } | Life::Closing { .. } => None,
        }
    }

    /// Whether nothing is under way, so that closing cuts nothing off.
    pub(crate) fn may_end(&self, now: Instant) -> bool {
        match self.phase() {
            Phase::Idle => self.due == Due::Event && now >= self.since() + self.farewell().quiet(),
            Phase::FirstByte | Phase::Linger => now >= self.since() + GRACE,
            Phase::Request | Phase::Reply => false,
        }
    }

    /// Whether what has come is a request, or a part of one, of the client alone.
    pub(crate) fn asks(&self) -> bool {
        self.due == Due::Event
            && !self.is_joined()
            && matches!(self.life, Life::Fresh | Life::Served { .. })
            && matches!(self.phase(), Phase::FirstByte | Phase::Idle | Phase::Request)
    }

    /// Whether something has come that nobody has looked at yet.
    pub(crate) fn has_unread_input(&self) -> bool {
        let other = self.joint.as_deref().and_then(Joint::wire);
        self.wire.has_unread_input() || other.is_some_and(Wire::has_unread_input)
    }

    pub(crate) fn deadline(&self, timeouts: &LiveTimeouts) -> Instant {
        let until = self.joint.as_deref().and_then(Joint::until);
        until.filter(|_| self.phase() == Phase::Request).unwrap_or_else(|| self.clock().deadline(timeouts))
    }

    /// Takes note of what has happened to its sockets.
    pub(crate) fn note(&mut self, flags: Flags) {
        self.wire.note(flags.own);
        if let Some(joint) = &mut self.joint {
            joint.note(flags);
        }
    }

    /// Has what happens to its sockets become events under this key.
    pub(crate) fn watched(&mut self, ready: &Ready, key: Key) -> rustix::io::Result<()> {
        let output = !self.wire.is_flushed();
        ready.watch(&mut self.watch, &self.wire.socket, (key, Side::Own), output)?;
        self.joint.as_mut().map_or(Ok(()), |joint| joint.watched(ready, key))
    }

    /// Works out what it waits for from now on. `consumed`: input was, since it last parked.
    pub(crate) fn settle(&mut self, now: Instant, consumed: bool) {
        let mut facts = Facts {
            lingers: self.lingers().is_some(),
            is_flushed: self.wire.is_flushed(),
            has_until: false,
            is_joined: self.is_joined(),
            has_input: !self.input.is_empty() || self.wire.is_being_introduced(),
            heard: self.wire.heard(),
            moved: self.wire.take_moved(),
            consumed,
        };
        if let Some(joint) = &mut self.joint {
            facts.has_until = joint.until().is_some();
            if let Some(wire) = joint.wire_mut() {
                // Where the handler has set a time, it counts for what the other side is to take as well.
                facts.is_flushed &= facts.has_until || wire.is_flushed();
                facts.moved |= wire.take_moved();
            }
        }
        self.set_clock(self.clock().settle(facts, now));
    }

    /// Says that it is to be run again without an event.
    pub(super) fn again(&mut self) {
        self.due = Due::Again;
    }

    /// Says that its handler is to hear that the time has passed.
    pub(super) fn expire(&mut self) {
        self.due = self.due.expire();
    }

    /// Whether it is in the ready line already. (One that has more to do, but whose output waits for
    /// room, is not.)
    pub(crate) fn is_to_run(&self) -> bool {
        self.due != Due::Event && self.phase() != Phase::Reply
    }

    /// Why it is run now.
    pub(super) fn take_due(&mut self) -> Due {
        mem::take(&mut self.due)
    }

    /// Gives it the time once more.
    pub(super) fn restart_clock(&mut self, now: Instant) {
        self.since = now;
    }

    /// Begins to serve it.
    pub(super) fn open(&mut self, state: S, farewell: Farewell) {
        debug_assert!(matches!(self.life, Life::Fresh));
        self.life = Life::Served { state, farewell };
    }

    /// Has it end once its output is out; gives the handler's state.
    #[must_use]
    pub(super) fn close(&mut self, expects_more: bool) -> Option<S> {
        match self.life {
            Life::Fresh | Life::Served { .. } => self.turn_into(Life::Closing { expects_more }),
            Life::Closing { .. } | Life::Lingering { .. } => None,
        }
    }

    /// Has it linger from now on; gives the handler's state.
    #[must_use]
    pub(super) fn linger(&mut self, now: Instant, told: Told, counted: Counted) -> Option<S> {
        self.set_clock(Clock { phase: Phase::Linger, since: now });
        self.joint = None;
        self.turn_into(Life::Lingering { drained: 0, told, _counted: counted })
    }

    /// Gives the handler's state; nothing more is to be done for it than to close it.
    #[must_use]
    pub(super) fn end(&mut self) -> Option<S> {
        match self.life {
            Life::Lingering { .. } => None,
            Life::Fresh | Life::Served { .. } | Life::Closing { .. } => {
                self.turn_into(Life::Closing { expects_more: false })
            }
        }
    }

    fn turn_into(&mut self, life: Life<S>) -> Option<S> {
        match mem::replace(&mut self.life, life) {
            Life::Served { state, .. } => Some(state),
            Life::Fresh | Life::Closing { .. } | Life::Lingering { .. } => None,
        }
    }

    /// Has it end with a reset on all sides, so that what breaks off is not taken for whole.
    pub(crate) fn reset_on_close(&mut self) {
        self.wire.reset_on_close(true);
        if let Some(wire) = self.joint.as_deref_mut().and_then(Joint::wire_mut) {
            wire.reset_on_close(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixStream, sync::Arc};

    use super::*;
    use crate::sys::tally::Tally;

    /// What becomes of a session whose handler keeps a word.
    type Step = fn(&mut Session<&'static str>, Counted) -> Option<&'static str>;

    const OPEN: Step = |session, _| {
        session.open("kept", Farewell::Spread);
        None
    };
    const CLOSE: Step = |session, _| session.close(true);
    const LINGER: Step = |session, counted| session.linger(Instant::now(), Told::Reply, counted);
    const END: Step = |session, _| session.end();

    fn name<S>(life: &Life<S>) -> &'static str {
        match life {
            Life::Fresh => "fresh",
            Life::Served { .. } => "served",
            Life::Closing { expects_more: true } => "closing, more expected",
            Life::Closing { expects_more: false } => "closing",
            Life::Lingering { .. } => "lingering",
        }
    }

    #[test]
    fn each_transition() {
        // What has happened, what happens then, whether the state is given, and what it is then.
        let table: [(&[Step], Step, bool, &str); 12] = [
            (&[], OPEN, false, "served"),
            (&[], CLOSE, false, "closing, more expected"),
            (&[], LINGER, false, "lingering"),
            (&[], END, false, "closing"),
            (&[OPEN], CLOSE, true, "closing, more expected"),
            (&[OPEN], LINGER, true, "lingering"),
            (&[OPEN], END, true, "closing"),
            (&[OPEN, CLOSE], CLOSE, false, "closing, more expected"),
            (&[OPEN, CLOSE], LINGER, false, "lingering"),
            (&[OPEN, LINGER], CLOSE, false, "lingering"),
            (&[OPEN, LINGER], LINGER, false, "lingering"),
            (&[OPEN, LINGER], END, false, "lingering"),
        ];
        for (index, (before, step, gives, then)) in table.into_iter().enumerate() {
            let (open, lingering) = (Arc::new(Tally::default()), Arc::new(Tally::default()));
            let (socket, _client) = UnixStream::pair().unwrap();
            let mut session = Session::new(socket.into(), Instant::now(), open.count());
            for before in before {
                before(&mut session, lingering.count());
            }
            assert_eq!(step(&mut session, lingering.count()).is_some(), gives, "{index}");
            assert_eq!(name(&session.life), then, "{index}");
            assert_eq!(session.lingers().is_some(), then == "lingering");
            assert_eq!(session.phase() == Phase::Linger, then == "lingering");
            assert_eq!(session.farewell().is_spread(), then == "served");
            assert_eq!((open.get(), lingering.get()), (1, usize::from(then == "lingering")));
            drop(session);
            assert_eq!((open.get(), lingering.get()), (0, 0));
        }
    }

    #[test]
    fn each_reason_to_run() {
        // What is due, then after another call, after a timeout, and what is left once it runs.
        let table = [
            (Due::Event, Due::Again, Due::Expired),
            (Due::Again, Due::Again, Due::Again),
            (Due::Expired, Due::Again, Due::Expired),
        ];
        for (due, again, expired) in table {
            let (socket, _client) = UnixStream::pair().unwrap();
            let mut session =
                Session::<()>::new(socket.into(), Instant::now(), Arc::new(Tally::default()).count());
            session.due = due;
            session.expire();
            assert_eq!(session.due, expired);
            session.due = due;
            session.again();
            assert_eq!(session.due, again);
            assert_eq!(session.take_due(), again);
            assert_eq!(session.take_due(), Due::Event);
        }
    }
}
