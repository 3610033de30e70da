//! A request as the function sees it. It does not know what is answered.

use std::{cell::OnceCell, fmt, io, net::SocketAddr};

use http::{HeaderMap, Method, StatusCode, Uri, Version};

use super::{
    body::Body,
    codec::head::{self, Head},
    incoming::Incoming,
};

/// What a client asks for.
pub struct Request<'a> {
    head: Head,
    /// The head as it came.
    text: Vec<u8>,
    headers: OnceCell<HeaderMap>,
    body: Body<'a>,
}

impl<'a> Request<'a> {
    /// `text` is the head as it came.
    pub(super) fn new(head: Head, text: Vec<u8>, incoming: Incoming<'a>) -> Self {
        Self { head, text, headers: OnceCell::new(), body: Body::new(incoming) }
    }

    /// Passes over what was not read of the body. Whether the next request is what follows, and what the
    /// client is to be told whatever the answer.
    pub(super) fn finish(self) -> (bool, Option<StatusCode>) {
        let mut body = self.body.incoming();
        (body.finish(), body.failure())
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
        if self.head.http_11 { Version::HTTP_11 } else { Version::HTTP_10 }
    }

    /// The header fields.
    pub fn headers(&self) -> &HeaderMap {
        self.headers.get_or_init(|| head::header_map(&self.text))
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
