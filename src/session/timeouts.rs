//! How long what may take. It knows no clock.

use std::time::Duration;

use crate::sys::setting::LiveTime;

/// The timeouts as they are set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// From accept to the client's first byte.
    pub(crate) first_byte: Duration,
    /// Between one request and the next.
    pub(crate) idle: Duration,
    /// For the waiting of one handler call, for the rest of a request, and for a client to take some of a
    /// reply.
    pub(crate) io: Duration,
}

/// The timeouts that sessions go by, which may be changed meanwhile. Whoever does so looks at those that
/// are parked afterwards.
#[derive(Debug)]
pub(crate) struct LiveTimeouts {
    pub(crate) first_byte: LiveTime,
    pub(crate) idle: LiveTime,
    pub(crate) io: LiveTime,
}

impl LiveTimeouts {
    pub(crate) fn new(timeouts: Timeouts) -> Self {
        Self {
            first_byte: LiveTime::new(timeouts.first_byte),
            idle: LiveTime::new(timeouts.idle),
            io: LiveTime::new(timeouts.io),
        }
    }

    pub(crate) fn set(&self, timeouts: Timeouts) {
        self.first_byte.set(timeouts.first_byte);
        self.idle.set(timeouts.idle);
        self.io.set(timeouts.io);
    }
}
