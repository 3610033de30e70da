//! TLS over one socket (RFC 8446 and 5246), through rustls. It knows no handler and no listener.

#[cfg(not(feature = "tls"))]
mod absent;
#[cfg(feature = "tls")]
mod identity;
#[cfg(feature = "tls")]
mod stream;

#[cfg(not(feature = "tls"))]
pub(crate) use self::absent::{Acceptor, Stream, Tls};
#[cfg(feature = "tls")]
pub use self::identity::Tls;
#[cfg(feature = "tls")]
pub(crate) use self::{identity::Acceptor, stream::Stream};
