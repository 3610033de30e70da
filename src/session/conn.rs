use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use super::{config::Config, reactor::Key, wire::Wire};

/// What a connection is waiting for while it is parked. Each has a timeout of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
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

/// How long a lingering connection is drained. Its reply is out already, and a client that has
/// not ended its side by then is not going to read it.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// A connection with everything it owns: in the slot while parked, with a worker while not.
#[derive(Debug)]
pub(crate) struct Conn<S> {
    pub(crate) wire: Wire,
    /// A second descriptor whose events are this connection's too.
    pub(crate) second: Option<Box<Second>>,
    /// None before the handler's `open`, and once it lingers.
    pub(crate) state: Option<S>,
    /// Unread input while parked.
    pub(crate) input: Vec<u8>,
    pub(crate) phase: Phase,
    /// Since when the phase's timeout runs.
    pub(crate) since: Instant,
    /// Its slot, from the first time that it parks or is to be woken.
    pub(crate) key: Option<Key>,
    pub(crate) registered: bool,
    /// It is registered for output too.
    pub(crate) wants_output: bool,
    /// The phase's timeout has passed and a worker is to say so to the handler.
    pub(crate) expired: bool,
    /// The handler answered `Again`.
    pub(crate) again: bool,
    /// The handler answered `Close`, which happens once the output is out.
    pub(crate) closing: bool,
    /// It was told no, and merely lingers.
    pub(crate) refused: bool,
    /// Bytes drained while lingering.
    pub(crate) lingered: usize,
}

/// A connection that has not spoken yet keeps its place for this long when it is to give way or
/// the server shuts down, since its first request is probably on the way; and one that lingers,
/// since its reply is. Shorter than the patience with a full server, so that places are found in
/// time.
pub(crate) const GRACE: Duration = Duration::from_millis(50);

/// With something attached, a connection is not idle before nothing has moved for this long.
const QUIET: Duration = Duration::from_secs(1);

/// An answer that has not come for this long may never come: some protocols have none.
const ABANDONED: Duration = Duration::from_secs(30);

/// What a handler has attached to a connection: the other side of a relay, or something that it
/// waits for.
#[derive(Debug)]
pub(crate) struct Second {
    /// None while it merely waits for its turn.
    pub(crate) wire: Option<Wire>,
    /// How long it may take until it is ready for the first time; none once it was.
    pub(crate) awaited: Option<Duration>,
    /// An answer is on its way, though nothing moves.
    pub(crate) busy: bool,
    pub(crate) registered: bool,
    pub(crate) wants_output: bool,
    /// It was attached since the connection was last settled.
    fresh: bool,
}

impl Second {
    pub(crate) fn new(socket: Option<OwnedFd>, awaited: Duration) -> Self {
        let wire = socket.map(Wire::new);
        Self {
            wire,
            awaited: Some(awaited),
            busy: false,
            registered: false,
            wants_output: false,
            fresh: true,
        }
    }

    fn phase(&self) -> Phase {
        if self.awaited.is_some() {
            Phase::Request
        } else if self.wire.as_ref().is_none_or(Wire::is_flushed) {
            Phase::Idle
        } else {
            Phase::Reply
        }
    }
}

impl<S> Conn<S> {
    /// Whether nothing is under way, so that closing cuts nothing off.
    pub(crate) fn may_end(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Idle => match &self.second {
                None => !self.again,
                // What it means that nothing moves can only be guessed.
                Some(second) => now >= self.since + if second.busy { ABANDONED } else { QUIET },
            },
            Phase::FirstByte | Phase::Linger => now >= self.since + GRACE,
            Phase::Request | Phase::Reply => false,
        }
    }

    /// Whether what has come is a request, or a part of one, of the client alone.
    pub(crate) fn asks(&self) -> bool {
        matches!(self.phase, Phase::FirstByte | Phase::Idle | Phase::Request)
            && !(self.again || self.closing || self.expired || self.second.is_some())
    }

    /// Whether something has come that nobody has looked at yet.
    pub(crate) fn has_unread_input(&self) -> bool {
        let second = self.second.as_ref();
        self.wire.has_unread_input()
            || second.and_then(|second| second.wire.as_ref()).is_some_and(Wire::has_unread_input)
    }

    pub(crate) fn new(socket: OwnedFd, accepted: Instant) -> Self {
        Self {
            wire: Wire::new(socket),
            second: None,
            state: None,
            input: Vec::new(),
            phase: Phase::FirstByte,
            since: accepted,
            key: None,
            registered: false,
            wants_output: false,
            expired: false,
            again: false,
            closing: false,
            refused: false,
            lingered: 0,
        }
    }

    /// Works out the phase to park in and whether its time starts anew. The time of a request
    /// runs from its first byte, however slowly the rest comes.
    pub(crate) fn settle(&mut self, now: Instant) {
        let phase = match self.phase {
            Phase::Linger => Phase::Linger,
            _ if !self.wire.is_flushed() => Phase::Reply,
            _ if let Some(second) = &self.second => second.phase(),
            _ if !self.input.is_empty() => Phase::Request,
            _ if self.wire.heard => Phase::Idle,
            _ => Phase::FirstByte,
        };
        let fresh = self.second.as_mut().is_some_and(|second| std::mem::take(&mut second.fresh));
        let anew = fresh
            || phase != self.phase
            || match phase {
                Phase::Linger | Phase::FirstByte => false,
                Phase::Request => self.wire.consumed,
                Phase::Idle | Phase::Reply => {
                    self.wire.moved || self.second_wire().is_some_and(|wire| wire.moved)
                }
            };
        if anew {
            self.since = now;
        }
        self.phase = phase;
        self.wire.moved = false;
        if let Some(wire) = self.second_wire() {
            wire.moved = false;
        }
        self.wire.consumed = false;
    }

    /// Has it end with a reset on all sides, so that what breaks off is not taken for whole.
    pub(crate) fn reset_on_close(&mut self) {
        self.wire.reset_on_close(true);
        if let Some(wire) = self.second_wire() {
            wire.reset_on_close(true);
        }
    }

    fn second_wire(&mut self) -> Option<&mut Wire> {
        self.second.as_mut().and_then(|second| second.wire.as_mut())
    }

    /// Whether it waits for its turn.
    pub(crate) fn awaits_turn(&self) -> bool {
        self.second.as_ref().is_some_and(|second| second.wire.is_none())
    }

    /// Whether it has waited for its turn for too long.
    pub(crate) fn has_waited_in_vain(&self) -> bool {
        self.expired && self.awaits_turn()
    }

    pub(crate) fn start_lingering(&mut self, now: Instant) {
        self.phase = Phase::Linger;
        self.since = now;
    }

    pub(crate) fn deadline(&self, config: &Config) -> Instant {
        let timeout = match self.phase {
            Phase::Request if let Some(timeout) = self.second.as_ref().and_then(|second| second.awaited) => {
                timeout
            }
            Phase::FirstByte => config.first_byte_timeout,
            Phase::Idle => config.idle_timeout,
            Phase::Request | Phase::Reply => config.io_timeout,
            Phase::Linger => LINGER_TIME,
        };
        self.since + timeout
    }
}
