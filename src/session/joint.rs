//! What a session is joined to beside its client. It knows neither sessions nor what passes between the
//! two sides.

use std::{os::fd::OwnedFd, time::Instant};

use crate::net::{
    flags::Flags,
    key::{Key, Side},
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
    /// It is to be ready by then for the first time; none once it was.
    until: Option<Instant>,
}

impl Other {
    /// A connection that is being made, which is to be done by this time.
    pub(super) fn connecting(socket: OwnedFd, until: Instant) -> Self {
        Self { wire: Wire::new(socket), watch: Watch::No, until: Some(until) }
    }

    /// Says that the connection is made.
    pub(crate) fn arrived(&mut self) {
        self.until = None;
    }

    fn watch(&mut self, ready: &Ready, key: Key) -> rustix::io::Result<()> {
        let output = self.until.is_some() || !self.wire.is_flushed();
        ready.watch(&mut self.watch, &self.wire.socket, (key, Side::Other), output)
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
    pub(super) fn watched(&mut self, ready: &Ready, key: Key) -> rustix::io::Result<()> {
        match self {
            Self::Turn { .. } => Ok(()),
            Self::Other(other) => other.watch(ready, key),
        }
    }
}
