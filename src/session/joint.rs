//! What a session is joined to beside its client. It knows neither sessions nor what passes between the
//! two sides.

use std::{os::fd::OwnedFd, time::Instant};

use crate::net::{
    flags::Flags,
    key::{Key, Side},
    lodging::Lodging,
    poller::Watch,
    ready::Ready,
    wire::Wire,
};

/// While a session has one, its handler does the reading, and is called for whatever happens.
#[derive(Debug)]
pub(crate) enum Joint {
    /// It waits for its turn, of which a waker says, until this time.
    Turn {
        until: Instant,
    },
    Other(Other),
}

/// Another connection whose events are the session's too.
#[derive(Debug)]
pub(crate) struct Other {
    pub(crate) wire: Wire,
    watch: Watch,
    home: Home,
    /// The connection is made.
    is_made: bool,
    /// Something is to come of it by then.
    until: Option<Instant>,
}

/// Whose slot its events go by.
#[derive(Debug)]
enum Home {
    /// The session's, to which it belongs for good.
    Session,
    /// Its own: it is lent to the session.
    Lent(Lodging),
}

impl Other {
    /// A connection that is being made.
    pub(super) fn connecting(socket: OwnedFd, until: Instant) -> Self {
        let mut wire = Wire::new(socket);
        wire.await_event();
        Self { wire, watch: Watch::No, home: Home::Session, is_made: false, until: Some(until) }
    }

    /// Gives it a slot of its own, so that it can be lent to others later.
    pub(super) fn lodged(self, lodge: impl FnOnce(&Wire) -> Option<Lodging>) -> Option<Self> {
        let home = Home::Lent(lodge(&self.wire)?);
        Some(Self { home, ..self })
    }

    /// Has what happens to it concern this session. Whether something has happened while nobody had it.
    pub(super) fn lend(&mut self, to: Key) -> bool {
        match &self.home {
            Home::Session => false,
            Home::Lent(lodging) => lodging.lend(to),
        }
    }

    /// Has what happens to it concern nobody.
    pub(super) fn give_back(&mut self) {
        self.until = None;
        if let Home::Lent(lodging) = &self.home {
            lodging.give_back();
        }
    }

    /// Says that the connection is made.
    pub(crate) fn arrived(&mut self) {
        self.is_made = true;
        self.until = None;
    }

    /// Has `expired` called when nothing has come of it by then; until it is said otherwise, or where none
    /// is said, the session is idle while nothing moves.
    pub(crate) fn await_until(&mut self, until: Option<Instant>) {
        self.until = until;
    }

    fn watched(&mut self, ready: &Ready, session: Key) -> rustix::io::Result<()> {
        // A connection is made when there is room for output.
        let output = !self.is_made || !self.wire.is_flushed();
        let token = match &self.home {
            Home::Session => (session, Side::Other),
            Home::Lent(lodging) => (lodging.key, Side::Own),
        };
        ready.watch(&mut self.watch, &self.wire.socket, token, output)
    }
}

impl Joint {
    /// How long the handler has said that it may take.
    pub(super) fn until(&self) -> Option<Instant> {
        match self {
            Self::Turn { until } => Some(*until),
            Self::Other(other) => other.until,
        }
    }

    pub(super) fn wire(&self) -> Option<&Wire> {
        match self {
            Self::Turn { .. } => None,
            Self::Other(other) => Some(&other.wire),
        }
    }

    pub(super) fn wire_mut(&mut self) -> Option<&mut Wire> {
        match self {
            Self::Turn { .. } => None,
            Self::Other(other) => Some(&mut other.wire),
        }
    }

    pub(super) fn note(&mut self, flags: Flags) {
        if let Some(wire) = self.wire_mut() {
            wire.note(flags.other);
        }
    }

    /// Has what happens to the other side become events of the session.
    pub(super) fn watched(&mut self, ready: &Ready, session: Key) -> rustix::io::Result<()> {
        match self {
            Self::Turn { .. } => Ok(()),
            Self::Other(other) => other.watched(ready, session),
        }
    }
}
