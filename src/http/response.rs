//! The response that a function gives. It knows neither the request nor how it is sent.

use std::{
    fmt,
    io::{self, Cursor, Read},
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, TRANSFER_ENCODING, UPGRADE},
};

use super::{
    sending::Sending,
    upgrade::{Upgrade, upgrade},
};
use crate::session::handler::Handler;

/// What a request is answered with.
///
/// `Date`, `Content-Length`, `Transfer-Encoding` and `Connection` are the server's to send.
///
/// What a function answers can be looked at without a server:
///
/// ```
/// use overfall::http::{Response, StatusCode};
///
/// let response = Response::text("no such item\n").status(StatusCode::NOT_FOUND).header("x-id", 5);
/// assert_eq!(response.status_code(), 404);
/// assert_eq!(response.body(), Some(&b"no such item\n"[..]));
/// assert_eq!(response.header_value("Content-Type"), Some("text/plain; charset=utf-8"));
/// assert_eq!(response.headers().count(), 2);
/// assert_eq!(Response::stream(std::io::empty()).body(), None);
/// ```
///
/// A function may answer with whatever becomes a response: a text, a status, a status with either of them, and
/// a `Result` of two such things, so that errors are passed on by `?`, as [`Failure`](super::Failure) or as a
/// type of one's own for which there is a `From`:
///
/// ```
/// use overfall::http::{Request, Response, StatusCode};
///
/// enum Problem {
///     Missing(String),
/// }
///
/// impl From<Problem> for Response {
///     fn from(Problem::Missing(what): Problem) -> Self {
///         (StatusCode::NOT_FOUND, format!("there is no {what}\n")).into()
///     }
/// }
///
/// fn answer(request: &Request<'_>) -> Result<String, Problem> {
///     let what = request.uri().path();
///     if what == "/" { Ok("Hello!\n".to_owned()) } else { Err(Problem::Missing(what.to_owned())) }
/// }
///
/// let response = Response::from(answer(&Request::builder().uri("/a").body("")));
/// assert_eq!((response.status_code(), response.body()), (StatusCode::NOT_FOUND, Some(&b"there is no /a\n"[..])));
/// ```
pub struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Body,
    pub(super) close: bool,
    /// What `Connection` lists beside that.
    pub(super) options: Vec<u8>,
}

pub(super) enum Body {
    Bytes(Bytes),
    /// It is read, or has to be waited for, and its length may be known.
    Later(Option<u64>, Sending),
    /// There is none: the connection goes on with another protocol.
    Upgrade(Box<dyn Upgrade>),
}

impl Response {
    /// A response with this body and the status 200.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self::with(Body::Bytes(body.into()))
    }

    pub(super) fn with(body: Body) -> Self {
        Self { status: StatusCode::OK, headers: Vec::new(), body, close: false, options: Vec::new() }
    }

    /// A response with this text as its body, as `text/plain` in UTF-8, and the status 200.
    pub fn text(body: impl Into<Bytes>) -> Self {
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        Self { headers: vec![(CONTENT_TYPE, plain)], ..Self::new(body) }
    }

    /// A response with this value as JSON. Where it cannot be written as such, which the log tells, it is 500.
    ///
    /// ```
    /// use overfall::http::Response;
    ///
    /// #[derive(serde::Serialize)]
    /// struct Item {
    ///     id: u32,
    /// }
    ///
    /// assert_eq!(Response::json(&Item { id: 5 }).body(), Some(&br#"{"id":5}"#[..]));
    /// ```
    #[cfg(feature = "json")]
    pub fn json(value: &(impl serde::Serialize + ?Sized)) -> Self {
        match serde_json::to_vec(value) {
            Ok(text) => Self::new(text).header(CONTENT_TYPE, HeaderValue::from_static("application/json")),
            Err(error) => {
                tracing::error!(%error, "an answer cannot be written as JSON");
                StatusCode::INTERNAL_SERVER_ERROR.into()
            }
        }
    }

    /// A response whose body is read from `body` as its client takes it, in chunks; a client of
    /// HTTP/1.0 gets it as it is, until the connection is closed. A client that takes it slowly
    /// costs no worker, but a `read` that blocks does. If it fails, the connection is closed in
    /// a way that the client can tell from the end of the body.
    pub fn stream(body: impl Read + Send + 'static) -> Self {
        Self::with(Body::Later(None, Sending::stream(Box::new(body))))
    }

    /// As [`stream`](Self::stream), where the length is known: so many bytes are read, and the client is told
    /// beforehand. Where there are fewer, the connection is closed.
    ///
    /// ```
    /// use overfall::http::Response;
    ///
    /// Response::sized(5, &b"Hello, world!"[..]); // Hello
    /// ```
    pub fn sized(length: u64, body: impl Read + Send + 'static) -> Self {
        Self::with(Body::Later(Some(length), Sending::stream(Box::new(body.take(length)))))
    }

    /// Has the connection go on with another protocol: 101, and then it is this handler's, with its state and
    /// its timeouts, parked while nothing comes. Pipelined input is the handler's too. Where the client did not
    /// ask for this protocol, or over HTTP/1.0, it is told 426 instead.
    ///
    /// A WebSocket with the crate `tungstenite`, which sends back what comes:
    ///
    /// ```
    /// use std::io;
    /// use overfall::{Connection, Handler, Next, http::{Request, Response, StatusCode}};
    /// use tungstenite::{
    ///     Error, Message, handshake::derive_accept_key,
    ///     protocol::{Role, WebSocketConfig, WebSocketContext},
    /// };
    ///
    /// struct Echo;
    ///
    /// impl Handler for Echo {
    ///     type State = WebSocketContext;
    ///
    ///     fn open(&self, _: &mut Connection<'_>) -> io::Result<WebSocketContext> {
    ///         // Its buffer is all that an idle client costs beside its slot.
    ///         let config = WebSocketConfig::default().read_buffer_size(4096).max_message_size(Some(1 << 20));
    ///         Ok(WebSocketContext::new(Role::Server, Some(config)))
    ///     }
    ///
    ///     fn ready(&self, c: &mut Connection<'_>, socket: &mut WebSocketContext) -> io::Result<Next> {
    ///         loop {
    ///             let mut stream = c.nonblocking();
    ///             let step = socket.flush(&mut stream).and_then(|()| socket.read(&mut stream));
    ///             let step = step.and_then(|message| match message {
    ///                 Message::Text(_) | Message::Binary(_) => socket.write(&mut stream, message),
    ///                 _ => Ok(()), // A ping or a close, whose answer is sent with whatever is next.
    ///             });
    ///             match step {
    ///                 Ok(()) => {}
    ///                 Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
    ///                     // More is sent when the client has taken what went before.
    ///                     return Ok(if c.is_flushed() { Next::Park } else { Next::Again });
    ///                 }
    ///                 Err(_) => return Ok(Next::Close),
    ///             }
    ///         }
    ///     }
    /// }
    ///
    /// fn answer(request: &Request<'_>) -> Result<Response, StatusCode> {
    ///     let key = request.header("sec-websocket-key").ok_or(StatusCode::BAD_REQUEST)?;
    ///     let accept = derive_accept_key(key.as_bytes());
    ///     Ok(Response::upgrade("websocket", Echo).header("Sec-WebSocket-Accept", accept))
    /// }
    /// # let server = overfall::Server::builder().bind("127.0.0.1:0");
    /// # let handle = overfall::http::serve(server, answer)?;
    /// # let stream = std::net::TcpStream::connect(handle.local_addr())?;
    /// # let (mut client, _) = tungstenite::client("ws://localhost/", stream)?;
    /// # for message in [Message::text("hello"), Message::binary(vec![7; 300_000])] {
    /// #     client.send(Message::Ping("a".into()))?;
    /// #     client.send(message.clone())?;
    /// #     assert_eq!(client.read()?, Message::Pong("a".into()));
    /// #     assert_eq!(client.read()?, message);
    /// # }
    /// # // One that reads nothing before it has sent a lot.
    /// # let much = Message::binary(vec![8; 900_000]);
    /// # let writer = std::thread::spawn({
    /// #     let stream = client.get_ref().try_clone()?;
    /// #     let (mut other, much) = (WebSocketContext::new(Role::Client, None), much.clone());
    /// #     move || (0..8).try_for_each(|_| {
    /// #         other.write(&mut &stream, much.clone()).and_then(|()| other.flush(&mut &stream))
    /// #     })
    /// # });
    /// # std::thread::sleep(std::time::Duration::from_millis(300));
    /// # for _ in 0..8 {
    /// #     assert_eq!(client.read()?, much);
    /// # }
    /// # writer.join().unwrap()?;
    /// # client.close(None)?;
    /// # while client.read().is_ok() {}
    /// # handle.shutdown();
    /// # handle.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn upgrade(protocol: &'static str, handler: impl Handler) -> Self {
        let response = Self::with(Body::Upgrade(upgrade(handler)));
        Self { status: StatusCode::SWITCHING_PROTOCOLS, ..response }.header(UPGRADE, protocol)
    }

    /// A worker stays with its body until that has ended, however slowly the client takes it.
    pub(crate) fn held(self) -> Self {
        match self.body {
            Body::Later(length, sending) => Self { body: Body::Later(length, sending.held()), ..self },
            _ => self,
        }
    }

    /// Changes the status. One that is informational cannot be the answer and becomes 500; that of an
    /// [`upgrade`](Self::upgrade) stays.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        if !matches!(self.body, Body::Upgrade(_)) {
            self.status = if status.is_informational() { StatusCode::INTERNAL_SERVER_ERROR } else { status };
        }
        self
    }

    /// Adds a header field. Of those that are the server's to send, the options in `Connection` are kept,
    /// of which `close` closes, and the others are left out. With `Upgrade` goes `Connection: upgrade`
    /// (RFC 9110, section 7.8).
    ///
    /// Where this can be no field (a line feed in the value would be the beginning of another), the response
    /// becomes 500, and the log says why.
    #[must_use]
    pub fn header(
        self,
        name: impl TryInto<HeaderName, Error: fmt::Display>,
        value: impl TryInto<HeaderValue, Error: fmt::Display>,
    ) -> Self {
        let field = name.try_into().map_err(|error| error.to_string()).and_then(|name| {
            let value = value.try_into().map_err(|error| format!("{error} for {name}"))?;
            Ok((name, value))
        });
        match field {
            Ok((name, value)) => self.with_field(name, value),
            Err(error) => {
                tracing::error!(error, "an answer has a header field that can be none");
                StatusCode::INTERNAL_SERVER_ERROR.into()
            }
        }
    }

    fn with_field(mut self, name: HeaderName, value: HeaderValue) -> Self {
        match name {
            CONNECTION => {
                value.as_bytes().split(|&byte| byte == b',').for_each(|option| self.add_option(option))
            }
            DATE | CONTENT_LENGTH | TRANSFER_ENCODING => {}
            _ => {
                if name == UPGRADE {
                    self.add_option(b"upgrade");
                }
                self.headers.push((name, value));
            }
        }
        self
    }

    /// The status.
    pub fn status_code(&self) -> StatusCode {
        self.status
    }

    /// The header fields that were added and are not the server's to send, in their order.
    pub fn headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.headers.iter().map(|(name, value)| (name, value))
    }

    /// The value of the header field of this name that was added first; none where it is not all visible ASCII.
    pub fn header_value(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers().find(|(known, _)| known.as_str().eq_ignore_ascii_case(name))?;
        value.to_str().ok()
    }

    /// The body; none where it is not in memory.
    pub fn body(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Bytes(bytes) => Some(bytes),
            Body::Later(..) | Body::Upgrade(_) => None,
        }
    }

    /// The body, to be read, wherever it is. That of an [`upgrade`](Self::upgrade) is empty.
    ///
    /// ```
    /// use overfall::http::Response;
    ///
    /// let response = Response::stream(&b"piece by piece"[..]);
    /// assert_eq!(std::io::read_to_string(response.into_body())?, "piece by piece");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_body(self) -> impl Read {
        match self.body {
            Body::Bytes(bytes) => Box::new(Cursor::new(bytes)),
            Body::Later(_, sending) => sending.into_reader(),
            Body::Upgrade(_) => Box::new(io::empty()) as Box<dyn Read + Send>,
        }
    }

    /// Each once; whether the connection is kept is the server's to say.
    fn add_option(&mut self, option: &[u8]) {
        let option = option.trim_ascii();
        let is = |known: &[u8]| option.eq_ignore_ascii_case(known);
        let mut listed = self.options.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        if is(b"close") {
            self.close = true;
        } else if !(is(b"") || is(b"keep-alive") || listed.any(is)) {
            if !self.options.is_empty() {
                self.options.extend_from_slice(b", ");
            }
            self.options.extend_from_slice(option);
        }
    }
}

/// The status with its name as the text where it says that something went wrong; else without a body.
impl From<StatusCode> for Response {
    fn from(status: StatusCode) -> Self {
        if !(status.is_client_error() || status.is_server_error()) {
            return Self::new("").status(status);
        }
        let reason = status.canonical_reason().unwrap_or("Error");
        Self::text(format!("{} {reason}\n", status.as_str())).status(status)
    }
}

/// A text.
impl From<&'static str> for Response {
    fn from(text: &'static str) -> Self {
        Self::text(text)
    }
}

/// A text.
impl From<String> for Response {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

/// Something with another status.
impl<R: Into<Self>> From<(StatusCode, R)> for Response {
    fn from((status, response): (StatusCode, R)) -> Self {
        response.into().status(status)
    }
}

/// What went well or what went wrong.
impl<R: Into<Self>, E: Into<Self>> From<Result<R, E>> for Response {
    fn from(result: Result<R, E>) -> Self {
        result.map_or_else(Into::into, Into::into)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("body", &self.body().map(<[u8]>::len))
            .finish_non_exhaustive()
    }
}
