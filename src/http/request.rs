//! A request as the function sees it. It does not know what is answered.

use std::{
    borrow::Cow,
    cell::OnceCell,
    fmt, io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, Method, StatusCode, Uri, Version, header::AsHeaderName};
use percent_encoding::percent_decode_str;

use super::{
    body::Body,
    codec::head::{self, Head},
    incoming::Incoming,
    made::{IO_TIMEOUT, Made, RequestBuilder},
};

/// What a client asks for.
///
/// There is no router: a path is matched on, segment by segment.
///
/// ```
/// use overfall::http::{Request, Response, StatusCode};
///
/// fn answer(request: &Request<'_>) -> Result<Response, StatusCode> {
///     match (request.method().as_str(), &request.path_segments()[..]) {
///         // The body of an answer to HEAD is left out by the server.
///         ("GET" | "HEAD", ["items"]) => Ok(Response::text("all of them\n")),
///         ("GET" | "HEAD", ["items", id]) => Ok(Response::text(format!("item {id}\n"))),
///         (_, ["items", ..]) => {
///             Ok(Response::from(StatusCode::METHOD_NOT_ALLOWED).header("Allow", "GET, HEAD"))
///         }
///         _ => Err(StatusCode::NOT_FOUND),
///     }
/// }
///
/// let response = answer(&Request::builder().uri("/items/a%20b").body("")).unwrap();
/// assert_eq!(response.body(), Some(&b"item a b\n"[..]));
/// assert_eq!(answer(&Request::builder().uri("/other").body("")).unwrap_err(), 404);
/// ```
///
/// Where there are many routes, the crate `matchit` finds the one:
///
/// ```
/// use overfall::http::{Request, Response, StatusCode};
///
/// type Route = fn(&Request<'_>, &matchit::Params<'_, '_>) -> Response;
///
/// fn item(_: &Request<'_>, params: &matchit::Params<'_, '_>) -> Response {
///     Response::text(format!("item {}\n", params.get("id").unwrap_or_default()))
/// }
///
/// let mut router = matchit::Router::new();
/// router.insert("/items/{id}", item as Route)?;
/// let answer = move |request: &Request<'_>| match router.at(request.uri().path()) {
///     Ok(found) => (found.value)(request, &found.params),
///     Err(_) => StatusCode::NOT_FOUND.into(),
/// };
/// assert_eq!(answer(&Request::builder().uri("/items/5").body("")).body(), Some(&b"item 5\n"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Request<'a> {
    head: Head,
    /// The head as it came.
    text: Vec<u8>,
    headers: OnceCell<HeaderMap>,
    segments: OnceCell<Vec<String>>,
    body: Body<'a>,
}

impl<'a> Request<'a> {
    /// `text` is the head as it came.
    pub(super) fn new(head: Head, text: Vec<u8>, incoming: Incoming<'a>) -> Self {
        let (headers, segments) = (OnceCell::new(), OnceCell::new());
        Self { head, text, headers, segments, body: Body::new(incoming) }
    }

    /// Makes a request without a client, so that a function can be tested without a server.
    pub fn builder() -> RequestBuilder {
        RequestBuilder::default()
    }

    pub(super) fn from_parts(head: Head, headers: HeaderMap, body: Body<'a>) -> Self {
        Self { head, text: Vec::new(), headers: headers.into(), segments: OnceCell::new(), body }
    }

    /// Passes over what was not read of the body. Whether the next request is what follows, and what the
    /// client is to be told whatever the answer.
    pub(super) fn finish(self) -> (bool, Option<StatusCode>) {
        self.body.finish()
    }

    /// The method, whether one that is registered or not.
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// The target; its path and query are not decoded.
    pub fn uri(&self) -> &Uri {
        &self.head.uri
    }

    /// What stands between the slashes of the path, decoded: none for `/`, and an empty one at the end for a
    /// path that ends in a slash. What an encoded slash stands for is a part of its segment, and bytes that
    /// are no UTF-8 become U+FFFD.
    pub fn path_segments(&self) -> Vec<&str> {
        let decode = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().into_owned();
        let segments = self.segments.get_or_init(|| match self.uri().path().trim_start_matches('*') {
            "" | "/" => Vec::new(),
            path => path.strip_prefix('/').unwrap_or(path).split('/').map(decode).collect(),
        });
        segments.iter().map(String::as_str).collect()
    }

    /// The names and values in the query, decoded as forms encode them (`+` is a blank).
    ///
    /// ```
    /// use overfall::http::Request;
    ///
    /// let request = Request::builder().uri("/search?q=a+b&page=2").body("");
    /// let page = request.query_pairs().find(|(name, _)| name == "page").map(|(_, value)| value);
    /// assert_eq!(page.as_deref(), Some("2"));
    /// ```
    pub fn query_pairs(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        form_urlencoded::parse(self.uri().query().unwrap_or_default().as_bytes())
    }

    /// HTTP/1.1 or HTTP/1.0.
    pub fn version(&self) -> Version {
        if self.head.http_11 { Version::HTTP_11 } else { Version::HTTP_10 }
    }

    /// The header fields.
    pub fn headers(&self) -> &HeaderMap {
        self.headers.get_or_init(|| head::header_map(&self.text))
    }

    /// The value of the header field of this name, the first of several; none where it is not all visible
    /// ASCII.
    pub fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// The body, to be read.
    pub fn body(&self) -> &Body<'a> {
        &self.body
    }

    /// The client's address. Behind a proxy that says so in a PROXY line it is that of the proxy's client.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.body.ask(|connection| connection.peer_addr(), |made| Ok(made.peer_addr))
    }

    /// The address at which the client reached this server, or the proxy in front of it that says so in a
    /// PROXY line.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.body.ask(|connection| connection.local_addr(), |made| Ok(made.local_addr))
    }

    /// Whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.body.ask(|connection| connection.is_encrypted(), |_| false)
    }

    /// How long the client has been waiting for the answer, at most: in the kernel's queues, in line for a
    /// worker, and since the function was called. What it took to send a large body does not count.
    pub fn waited(&self) -> Duration {
        self.body.ask(|connection| connection.waited(), Made::waited)
    }

    /// When the client is taken to give up: after the `patience`, or after ten times what requests take
    /// where that is longer. It is the most that whatever the function asks in turn should take.
    pub fn deadline(&self) -> Instant {
        self.body.ask(|connection| connection.gives_up(), Made::gives_up)
    }

    /// The client's socket, to know whether it is still there.
    pub(crate) fn socket(&self) -> Option<Arc<OwnedFd>> {
        self.body.ask(|connection| Some(connection.socket()), |_| None)
    }

    /// How long the body is, where that was told beforehand.
    pub(crate) fn body_length(&self) -> Option<u64> {
        self.head.framing.length()
    }

    /// For how long a client may be silent.
    pub(crate) fn io_timeout(&self) -> Duration {
        self.body.ask(|connection| connection.context().timeouts.io.get(), |_| IO_TIMEOUT)
    }

    /// Whether the server is shutting down, so that this is the connection's last request.
    pub fn draining(&self) -> bool {
        self.body.ask(|connection| connection.draining(), |made| made.draining)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_segments() {
        for (uri, segments) in [
            ("/", &[][..]),
            ("*", &[]),
            ("/a", &["a"]),
            ("/a/", &["a", ""]),
            ("//a", &["", "a"]),
            ("/a%2Fb/%c3%a9/%ff+c?d/e", &["a/b", "é", "\u{fffd}+c"]),
            ("http://host/a/..", &["a", ".."]),
            ("http://host", &[]),
        ] {
            let request = Request::builder().method("OPTIONS").uri(uri).body("");
            assert_eq!(request.path_segments(), segments, "{uri}");
        }
    }

    #[test]
    fn a_query_has_pairs() {
        let request = Request::builder().uri("/?a=b+c&d&e=%26&a=%ff").body("");
        let pairs: Vec<_> = request.query_pairs().collect();
        let expected = [("a", "b c"), ("d", ""), ("e", "&"), ("a", "\u{fffd}")];
        assert!(pairs.iter().map(|(name, value)| (&**name, &**value)).eq(expected), "{pairs:?}");
        assert_eq!(Request::builder().uri("/?").body("").query_pairs().count(), 0);
        assert_eq!(Request::builder().uri("/").body("").query_pairs().count(), 0);
    }
}
