//! What can go wrong, as a sentence for people. It knows neither who is told nor what is done about it.

use std::{fmt, io, ops::RangeInclusive, time::Duration};

/// What can go wrong when a server is set up or shut down.
///
/// The text is one sentence that names what was wrong and what would be right. It converts into
/// an [`io::Error`].
pub struct Error(Kind);

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug)]
enum Kind {
    Setting {
        name: &'static str,
        value: String,
        allowed: String,
    },
    Upstream(String),
    #[cfg(feature = "tls")]
    Identity(String),
    NoListener,
    Listen {
        addr: String,
        source: io::Error,
    },
    Start {
        what: String,
        source: io::Error,
    },
    DrainTimeout {
        open: usize,
        timeout: Duration,
    },
    ListenerFailed {
        source: io::Error,
    },
    ThreadDied(&'static str),
}

/// What kind of thing went wrong, to be matched on.
///
/// ```
/// use overfall::{ErrorKind, Next, Server};
///
/// let error = Server::builder().bind("127.0.0.1:0").workers(0).serve(|_| Ok(Next::Close)).unwrap_err();
/// assert_eq!((error.kind(), error.setting_name()), (ErrorKind::Setting, Some("workers")));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is not one that it may be; [`Error::setting_name`] says which. An upstream that cannot be used
    /// is one of these.
    Setting,
    /// The certificate and the key are none, or do not fit together.
    Identity,
    /// It cannot listen: there is no address, or one that cannot be had.
    Listen,
    /// A thread or what it needs could not be started.
    Start,
    /// Connections were still open at the drain timeout.
    DrainTimeout,
    /// The server has ended because a listener failed, or one of its own threads died.
    Failed,
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

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        match self.0 {
            Kind::Setting { .. } | Kind::Upstream(_) => ErrorKind::Setting,
            #[cfg(feature = "tls")]
            Kind::Identity(_) => ErrorKind::Identity,
            Kind::NoListener | Kind::Listen { .. } => ErrorKind::Listen,
            Kind::Start { .. } => ErrorKind::Start,
            Kind::DrainTimeout { .. } => ErrorKind::DrainTimeout,
            Kind::ListenerFailed { .. } | Kind::ThreadDied(_) => ErrorKind::Failed,
        }
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
        match &self.0 {
            Kind::Setting { name, value, allowed } => write!(f, "{name} is {value}; it may be {allowed}"),
            Kind::Upstream(sentence) => f.write_str(sentence),
            #[cfg(feature = "tls")]
            Kind::Identity(sentence) => f.write_str(sentence),
            Kind::NoListener => f.write_str("there is no address to listen on; give at least one"),
            Kind::Listen { addr, source } => write!(f, "cannot listen on {addr}: {source}"),
            Kind::Start { what, source } => write!(f, "cannot start {what}: {source}"),
            Kind::DrainTimeout { open, timeout } => {
                write!(f, "connections still open at the drain timeout of {timeout:?}: {open}")
            }
            Kind::ListenerFailed { source } => {
                write!(f, "accepting ended because a listener failed: {source}")
            }
            Kind::ThreadDied(what) => {
                write!(f, "{what} has died, so that the server shut down; this is a fault in overfall")
            }
        }
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
