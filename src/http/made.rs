//! Requests that are made without a client, for tests. It does not know who answers them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Uri};

use super::{
    body::Body,
    codec::{framing::Framing, head::Head},
    request::Request,
};

/// What stands for the connection of a request that has none.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) peer_addr: SocketAddr,
    pub(super) local_addr: SocketAddr,
    pub(super) draining: bool,
    came: Option<Instant>,
}

/// Those of a server by default.
const PATIENCE: Duration = Duration::from_millis(500);
pub(super) const IO_TIMEOUT: Duration = Duration::from_secs(10);

impl Default for Made {
    fn default() -> Self {
        let here = |port| (Ipv4Addr::LOCALHOST, port).into();
        Self { peer_addr: here(50_000), local_addr: here(8888), draining: false, came: None }
    }
}

impl Made {
    pub(super) fn waited(&self) -> Duration {
        self.came.map_or(Duration::ZERO, |came| came.elapsed())
    }

    pub(super) fn gives_up(&self) -> Instant {
        self.came.unwrap_or_else(Instant::now) + PATIENCE
    }
}

/// A request that is being made without a client, so that a function can be tested without a server:
///
/// ```
/// use overfall::http::{Request, Response};
///
/// fn greet(request: &Request<'_>) -> Response {
///     let name = std::io::read_to_string(request.body()).unwrap_or_default();
///     let language = request.header("accept-language").unwrap_or("en");
///     Response::text(if language == "de" { format!("Hallo, {name}!") } else { format!("Hello, {name}!") })
/// }
///
/// let request = Request::builder().method("POST").header("Accept-Language", "de").body("Welt");
/// assert_eq!(greet(&request).body(), Some(&b"Hallo, Welt!"[..]));
/// ```
///
/// It is `GET /` over HTTP/1.1 from 127.0.0.1 where nothing else is said.
///
/// # Panics
///
/// Its methods panic where what they are given can be no part of a request.
#[derive(Debug)]
#[must_use = "there is a request once `body` is called"]
pub struct RequestBuilder {
    head: ::http::request::Builder,
    made: Made,
}

impl Default for RequestBuilder {
    fn default() -> Self {
        Self { head: ::http::request::Builder::new(), made: Made::default() }
    }
}

impl RequestBuilder {
    /// The method, such as `"POST"`.
    pub fn method(mut self, method: impl TryInto<Method, Error: Into<::http::Error>>) -> Self {
        self.head = self.head.method(method);
        self
    }

    /// The target, such as `"/search?q=overfall"`.
    pub fn uri(mut self, uri: impl TryInto<Uri, Error: Into<::http::Error>>) -> Self {
        self.head = self.head.uri(uri);
        self
    }

    /// A header field more.
    pub fn header(
        mut self,
        name: impl TryInto<HeaderName, Error: Into<::http::Error>>,
        value: impl TryInto<HeaderValue, Error: Into<::http::Error>>,
    ) -> Self {
        self.head = self.head.header(name, value);
        self
    }

    /// The client's address.
    pub fn peer_addr(mut self, addr: SocketAddr) -> Self {
        self.made.peer_addr = addr;
        self
    }

    /// How long the client has waited already.
    pub fn waited(mut self, wait: Duration) -> Self {
        self.made.came = Instant::now().checked_sub(wait);
        self
    }

    /// Whether the server is shutting down.
    pub fn draining(mut self, draining: bool) -> Self {
        self.made.draining = draining;
        self
    }

    /// The request, with this body.
    pub fn body(self, body: impl Into<Bytes>) -> Request<'static> {
        let body = body.into();
        let request = self.head.body(()).unwrap_or_else(|error| panic!("this can be no request: {error}"));
        let (parts, ()) = request.into_parts();
        let head = Head {
            method: parts.method,
            uri: parts.uri,
            http_11: true,
            framing: Framing::Length(body.len() as u64),
            persistent: true,
            expects_continue: false,
            upgrade: false,
            strict: true,
            length: 0,
        };
        Request::from_parts(head, parts.headers, Body::made(body, self.made))
    }
}
