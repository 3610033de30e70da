use std::{fmt, io, net::SocketAddr};

use http::{HeaderMap, Method, Uri, Version};

use super::{body::Body, head::Head};
use crate::server::Connection;

/// What a client asks for.
pub struct Request<'a> {
    head: Head,
    body: Body<'a>,
}

impl<'a> Request<'a> {
    pub(super) fn new(head: Head, connection: Connection<'a>, max_body: u64, continue_due: bool) -> Self {
        Self { body: Body::new(connection, head.framing, max_body, continue_due), head }
    }

    /// The method, whether one that is registered or not.
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// The target; its path and query are not decoded.
    pub fn uri(&self) -> &Uri {
        &self.head.uri
    }

    /// HTTP/1.1 or HTTP/1.0.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// The header fields.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The body, to be read.
    pub fn body(&self) -> &Body<'a> {
        &self.body
    }

    /// The client's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.body.incoming().connection().peer_addr()
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", self.method())
            .field("uri", self.uri())
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}
