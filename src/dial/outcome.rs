//! What became of a target, and why an attempt failed. It does not know how one is tried.

use std::{fmt, net::SocketAddr, time::Duration};

/// What became of one target.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The target as it was written.
    pub target: String,
    /// The address that was used last, of several that its name may have.
    pub address: Option<SocketAddr>,
    /// How long the last name resolution took.
    pub resolve: Option<Duration>,
    /// How long the last connect took.
    pub connect: Option<Duration>,
    /// From the connection to the first byte of the reply.
    pub first_byte: Option<Duration>,
    /// From the beginning of the dial to this target's end; the wait for its turn is in it where
    /// there are more targets than `concurrency`.
    pub total: Duration,
    /// Attempts that were begun.
    pub attempts: u32,
    /// Bytes received in the last attempt.
    pub received: u64,
    /// Their beginning, at most 1,024 bytes.
    pub reply: Vec<u8>,
    /// Why the last attempt failed; none if it succeeded.
    pub failure: Option<Failure>,
}

/// Why an attempt failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The class, for programs.
    pub class: Class,
    /// The sentence, for people.
    pub message: String,
}

/// The classes of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Nobody listens there.
    Refused,
    /// The attempt's time ended before it did.
    Timeout,
    /// The connection was reset.
    Reset,
    /// There is no way to the host or its network.
    Unreachable,
    /// The name has no address.
    Resolve,
    /// The server ended the connection without a reply.
    Closed,
    /// The reply does not begin with what was expected.
    Unexpected,
    /// It was not needed any more, or cancelled.
    Cancelled,
    /// This side has run out of descriptors, memory or ports, which says nothing of the server.
    Local,
    /// Anything else.
    Other,
}

impl Class {
    /// The class's name in lower case, as the command prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Unreachable => "unreachable",
            Self::Resolve => "resolve",
            Self::Closed => "closed",
            Self::Unexpected => "unexpected",
            Self::Cancelled => "cancelled",
            Self::Local => "local",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Outcome {
    pub(super) fn new(target: &str) -> Self {
        Self {
            target: target.to_owned(),
            address: None,
            resolve: None,
            connect: None,
            first_byte: None,
            total: Duration::ZERO,
            attempts: 0,
            received: 0,
            reply: Vec::new(),
            failure: Some(Failure { class: Class::Cancelled, message: "it was not tried".into() }),
        }
    }
}

impl Failure {
    pub(super) fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }

    pub(super) fn cancelled() -> Self {
        Self::new(Class::Cancelled, "it was cancelled")
    }
}
