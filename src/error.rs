//! What can go wrong, as a sentence for people. It knows neither who is told nor what is done about it.

use std::{fmt, io, ops::RangeInclusive, time::Duration};

/// What can go wrong when a server is set up or shut down.
///
/// The text is one sentence that names what was wrong and what would be right. It converts into
/// an [`io::Error`].
pub struct Error(Kind);

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error("{name} is {value}; it may be {allowed}")]
    Setting { name: &'static str, value: String, allowed: String },
    #[error("{0}")]
    Upstream(String),
    #[error("{0}")]
    #[cfg(feature = "tls")]
    Identity(String),
    #[error("there is no address to listen on; give at least one")]
    NoListener,
    #[error("cannot listen on {addr}: {source}")]
    Listen { addr: String, source: io::Error },
    #[error("cannot start {what}: {source}")]
    Start { what: String, source: io::Error },
    #[error("connections still open at the drain timeout of {timeout:?}: {open}")]
    DrainTimeout { open: usize, timeout: Duration },
    #[error("accepting ended because a listener failed: {source}")]
    ListenerFailed { source: io::Error },
    #[error("{0} has died, so that the server shut down; this is a fault in overfall")]
    ThreadDied(&'static str),
}

impl Error {
    pub(crate) fn setting(name: &'static str, value: impl fmt::Display, allowed: impl Into<String>) -> Self {
        Self(Kind::Setting { name, value: value.to_string(), allowed: allowed.into() })
    }

    /// One of a balancer's upstreams cannot be used.
    pub(crate) fn upstream(sentence: impl Into<String>) -> Self {
        Self(Kind::Upstream(sentence.into()))
    }

    /// The key does not fit its certificate.
    #[cfg(feature = "tls")]
    pub(crate) fn identity(sentence: impl Into<String>) -> Self {
        Self(Kind::Identity(sentence.into()))
    }

    /// One of them is where the balancer listens itself.
    pub(crate) fn own_upstream(name: &str) -> Self {
        Self::upstream(format!("the upstream {name} is the balancer's own address; give another"))
    }

    /// Whether a time that a user has set is one that makes sense.
    pub(crate) fn check_time(name: &'static str, time: Duration) -> Result<()> {
        const ALLOWED: RangeInclusive<Duration> =
            Duration::from_millis(1)..=Duration::from_secs(365 * 24 * 3600);
        if ALLOWED.contains(&time) {
            return Ok(());
        }
        Err(Self::setting(name, format!("{time:?}"), "1ms to 365 days"))
    }

    pub(crate) fn no_listener() -> Self {
        Self(Kind::NoListener)
    }

    pub(crate) fn listen(addr: impl fmt::Display, source: impl Into<io::Error>) -> Self {
        Self(Kind::Listen { addr: addr.to_string(), source: source.into() })
    }

    pub(crate) fn start(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self(Kind::Start { what: what.into(), source: source.into() })
    }

    pub(crate) fn drain_timeout(open: usize, timeout: Duration) -> Self {
        Self(Kind::DrainTimeout { open, timeout })
    }

    pub(crate) fn listener_failed(source: io::Error) -> Self {
        Self(Kind::ListenerFailed { source })
    }

    pub(crate) fn thread_died(what: &'static str) -> Self {
        Self(Kind::ThreadDied(what))
    }

    /// The name of the setting that was rejected, as the builder's method spells it, where this
    /// error is about a setting.
    pub fn setting_name(&self) -> Option<&'static str> {
        match self.0 {
            Kind::Setting { name, .. } => Some(name),
            Kind::Upstream(_) => Some("upstreams"),
            _ => None,
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The sources stand in the sentence already; a chain would say them twice.
        None
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error.0 {
            Kind::Setting { .. } | Kind::Upstream(_) | Kind::NoListener => io::ErrorKind::InvalidInput,
            #[cfg(feature = "tls")]
            Kind::Identity(_) => io::ErrorKind::InvalidData,
            Kind::DrainTimeout { .. } => io::ErrorKind::TimedOut,
            Kind::ThreadDied(_) => io::ErrorKind::Other,
            Kind::Listen { source, .. } | Kind::Start { source, .. } | Kind::ListenerFailed { source } => {
                source.kind()
            }
        };
        Self::new(kind, error)
    }
}
