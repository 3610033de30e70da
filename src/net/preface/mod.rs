//! The PROXY protocol: what a proxy says of its client before anything else (HAProxy's
//! `proxy-protocol.txt`, versions 1 and 2). It knows no sockets.

#[cfg(not(feature = "proxy-protocol"))]
mod absent;
#[cfg(feature = "proxy-protocol")]
mod read;
#[cfg(feature = "balance")]
mod write;

use std::net::SocketAddr;

#[cfg(not(feature = "proxy-protocol"))]
pub(super) use self::absent::parse;
#[cfg(feature = "proxy-protocol")]
pub(super) use self::read::parse;
#[cfg(feature = "balance")]
pub(crate) use self::write::write;

/// Which version of the PROXY protocol is spoken.
#[cfg(feature = "balance")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Both ends of a connection as its client made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) client: SocketAddr,
    pub(crate) local: SocketAddr,
}

/// What was found at the head of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Preface {
    /// More has to come.
    Part,
    /// So many bytes, which say who the client is; none where the proxy speaks for itself, or of somebody
    /// who has no address.
    Whole(usize, Option<Ends>),
    Malformed,
}

/// The most bytes that are read of one. Nobody sends half as much: the addresses take 232 at most, and
/// the rest says what the proxy knows of its client's certificate.
pub(super) const LONGEST: usize = 4096;
