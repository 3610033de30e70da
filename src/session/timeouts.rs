//! How long what may take. It knows no clock.

use std::time::Duration;

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
