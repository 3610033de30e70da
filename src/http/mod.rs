//! HTTP/1.1 for handlers: a request in, a response out.
//!
//! ```no_run
//! use overfall::{Server, http::{self, Request, Response}};
//!
//! let server = Server::builder().bind("127.0.0.1:8888");
//! let handle = http::serve(server, |request: &Request| {
//!     Response::text(format!("Hello, {}!", request.uri().path()))
//! })?;
//! handle.join()?;
//! # Ok::<(), overfall::Error>(())
//! ```
//!
//! Heads and bodies of up to 16 KiB together are gathered while the connection is parked, so that
//! no slow client costs a worker; for the rest of a larger body a worker waits, see [`Body`].
//! Connections are kept (HTTP/1.0: where the client asks for it), and pipelined requests are
//! answered in their order; where others wait, one is answered at a time.
//!
//! What cannot be answered is told so and closed:
//!
//! | status | when |
//! |---|---|
//! | 400 | the request is malformed, or could be read in two ways (RFC 9112) |
//! | 408 | it was not whole within `io_timeout`, or its large body came too slowly |
//! | 413 | the body is over [`Http::max_body`] |
//! | 414 | the target is over 8 KiB |
//! | 431 | the head is over 16 KiB, or has over 100 fields |
//! | 500 | the handler panicked |
//! | 501 | its transfer coding is not `chunked`, or its method is `CONNECT` |
//! | 503 | the server refused the connection |
//! | 505 | its version is neither 1.1 nor 1.0 |
//!
//! Types are those of the crate `http`.

mod body;
mod chunked;
mod date;
mod head;
mod request;
mod response;

use std::{
    borrow::Cow,
    fmt,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Duration,
};

pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};

pub use self::{body::Body, request::Request, response::Response};
use self::{
    body::BodyLimits,
    chunked::Decoder,
    head::{Framing, Head},
    response::{How, Sending},
};
use crate::{
    error::Result,
    server::{Builder, Connection, Handle, Handler, Next, Refusal},
};

/// Starts the server with a function from request to response; [`Http`] is the handler that it
/// runs on.
///
/// # Errors
///
/// Those of [`Builder::serve`].
pub fn serve<F>(server: Builder, function: F) -> Result<Handle>
where
    F: Fn(&Request<'_>) -> Response + Send + Sync + 'static,
{
    server.serve(Http::new(function))
}

/// A handler that speaks HTTP/1.1 and answers requests with a function.
pub struct Http<F> {
    function: F,
    body_limits: BodyLimits,
    busy_reply: Cow<'static, [u8]>,
}

impl<F> Http<F>
where
    F: Fn(&Request<'_>) -> Response + Send + Sync + 'static,
{
    /// With the defaults: bodies of up to 64 MiB within a minute, and 503 for the refused.
    pub fn new(function: F) -> Self {
        let busy = Response::error(StatusCode::SERVICE_UNAVAILABLE)
            .header(header::RETRY_AFTER, HeaderValue::from_static("1"));
        let body_limits = BodyLimits { bytes: 64 * 1024 * 1024, time: Duration::from_secs(60) };
        Self { function, body_limits, busy_reply: busy.to_vec().into() }
    }

    /// The most bytes that the body of a request may have.
    #[must_use]
    pub fn max_body(mut self, max_body: u64) -> Self {
        self.body_limits.bytes = max_body;
        self
    }

    /// For how long a worker may wait for one body, all its waiting together.
    #[must_use]
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.body_limits.time = timeout;
        self
    }

    /// What a refused client is sent, head and all. The connection is closed after it.
    #[must_use]
    pub fn busy_reply(mut self, busy_reply: impl Into<Cow<'static, [u8]>>) -> Self {
        self.busy_reply = busy_reply.into();
        self
    }
}

impl<F> fmt::Debug for Http<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("body_limits", &self.body_limits).finish_non_exhaustive()
    }
}

/// How far a connection has come with its present request.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the input that were looked at and were no whole request.
    seen: usize,
    /// With so many it will be one, where that is known.
    whole_at: Option<usize>,
    /// `100 Continue` was sent.
    continued: bool,
    /// The response under way.
    sending: Option<Box<Reply>>,
}

struct Reply {
    rest: Sending,
    /// Another request may follow.
    keep: bool,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("keep", &self.keep).finish_non_exhaustive()
    }
}

impl<F> Handler for Http<F>
where
    F: Fn(&Request<'_>) -> Response + Send + Sync + 'static,
{
    type State = Progress;

    const CLIENT_SPEAKS_FIRST: bool = true;

    fn open(&self, _: &mut Connection<'_>) -> io::Result<Progress> {
        Ok(Progress::default())
    }

    fn ready(&self, connection: &mut Connection<'_>, progress: &mut Progress) -> io::Result<Next> {
        if let Some(reply) = progress.sending.take() {
            return go_on(connection, progress, reply);
        }
        match self.gather(connection, progress) {
            Ok(Some(head)) => {
                *progress = Progress::default();
                self.answer(connection, progress, head)
            }
            Ok(None) => Ok(Next::Park),
            Err(Unanswerable::Refuse(status)) => refuse(connection, status, false),
            Err(Unanswerable::Failed(error)) => Err(error),
        }
    }

    fn expired(&self, connection: &mut Connection<'_>, _: &mut Progress) -> io::Result<Next> {
        if connection.input().is_empty() {
            return Ok(Next::Close);
        }
        refuse(connection, StatusCode::REQUEST_TIMEOUT, false)
    }

    fn refusal(&self, _: Refusal) -> Cow<'static, [u8]> {
        self.busy_reply.clone()
    }
}

/// Why there will be no request for the handler.
enum Unanswerable {
    Refuse(StatusCode),
    Failed(io::Error),
}

impl<F> Http<F>
where
    F: Fn(&Request<'_>) -> Response + Send + Sync + 'static,
{
    /// The head of a request that is whole, or of which as much has come as can be held; none while
    /// more has to come.
    fn gather(
        &self,
        connection: &mut Connection<'_>,
        progress: &mut Progress,
    ) -> Result<Option<Head>, Unanswerable> {
        if skip_empty_lines(connection) {
            progress.seen = 0;
        }
        let input = connection.input();
        if input.is_empty() || !(progress.may_be_whole(input) || connection.ended()) {
            progress.seen = input.len();
            return Ok(None);
        }
        progress.seen = input.len();
        // Whether what is missing can still come, and there is room for it.
        let open = !connection.ended() && input.len() < Connection::INPUT_LIMIT;
        let Some(head) = head::parse(input).map_err(Unanswerable::Refuse)? else {
            return match (open, connection.ended()) {
                (true, _) => Ok(None),
                (false, true) => Err(Unanswerable::Refuse(StatusCode::BAD_REQUEST)),
                (false, false) => Err(Unanswerable::Refuse(head::excess(input))),
            };
        };
        if let Framing::Length(length) = head.framing
            && length > self.body_limits.bytes
        {
            return Err(Unanswerable::Refuse(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let body = &input[head.length..];
        let (whole, whole_at) = match head.framing {
            Framing::Empty => (true, None),
            Framing::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let whole_at = head.length.saturating_add(length).min(Connection::INPUT_LIMIT);
                (body.len() >= length, Some(whole_at))
            }
            Framing::Chunked => (is_whole(body).map_err(Unanswerable::Refuse)?, None),
        };
        if whole || !open {
            return Ok(Some(head));
        }
        progress.whole_at = whole_at;
        if head.expects_continue && !progress.continued {
            progress.continued = true;
            connection.write_all(CONTINUE).map_err(Unanswerable::Failed)?;
        }
        Ok(None)
    }

    fn answer(
        &self,
        connection: &mut Connection<'_>,
        progress: &mut Progress,
        head: Head,
    ) -> io::Result<Next> {
        let http_11 = head.http_11;
        let head_only = head.method == Method::HEAD;
        let persistent = head.persistent;
        let request = Request::new(head, connection.reborrow(), self.body_limits);
        let response = catch_unwind(AssertUnwindSafe(|| (self.function)(&request)));
        let mut body = request.body().incoming();
        let at_next = body.finish();
        let failure = body.failure();
        drop(body);
        drop(request);
        let response = match response {
            Err(panic) => {
                refuse(connection, failure.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), head_only)?;
                // The server counts it.
                resume_unwind(panic)
            }
            Ok(_) if let Some(status) = failure => return refuse(connection, status, head_only),
            Ok(response) => response,
        };
        if !at_next {
            connection.expect_more();
        }
        let keep = persistent
            && at_next
            && !connection.draining()
            && !response.wants_close()
            && !response.ends_by_closing(http_11);
        match response.send(connection, How { http_11, head_only, keep })? {
            Some(rest) => go_on(connection, progress, Box::new(Reply { rest, keep })),
            None => Ok(next(connection, keep)),
        }
    }
}

impl Progress {
    /// Whether it is worth looking at the input as a whole: requests that come a byte at a time
    /// would else cost the square of their length.
    fn may_be_whole(&self, input: &[u8]) -> bool {
        match self.whole_at {
            Some(whole_at) => input.len() >= whole_at,
            None => {
                self.seen == 0
                    || input.len() == Connection::INPUT_LIMIT
                    || input.get(self.seen..).is_none_or(|new| new.contains(&b'\n'))
            }
        }
    }
}

/// Those before a request are passed over (RFC 9112, section 2.2). Whether there were any.
fn skip_empty_lines(connection: &mut Connection<'_>) -> bool {
    let input = connection.input();
    let mut length = 0;
    while let Some(end) = [&b"\r\n"[..], b"\n"].into_iter().find(|end| input[length..].starts_with(end)) {
        length += end.len();
    }
    connection.consume(length);
    length > 0
}

/// Whether a chunked body has come to its end.
fn is_whole(mut body: &[u8]) -> Result<bool, StatusCode> {
    let mut decoder = Decoder::new();
    while !body.is_empty() && !decoder.is_done() {
        let piece = decoder.advance(body).map_err(|_| StatusCode::BAD_REQUEST)?;
        decoder.took(piece.data);
        body = &body[piece.framing + piece.data..];
    }
    Ok(decoder.is_done())
}

fn go_on(
    connection: &mut Connection<'_>,
    progress: &mut Progress,
    mut reply: Box<Reply>,
) -> io::Result<Next> {
    if reply.rest.go_on(connection)? {
        return Ok(next(connection, reply.keep));
    }
    progress.sending = Some(reply);
    Ok(Next::Again)
}

fn next(connection: &Connection<'_>, keep: bool) -> Next {
    match keep {
        false => Next::Close,
        true if connection.input().is_empty() => Next::Park,
        true => Next::Again,
    }
}

/// Tells the client why its request is not answered, and closes. It may not have sent all of it.
fn refuse(connection: &mut Connection<'_>, status: StatusCode, head_only: bool) -> io::Result<Next> {
    connection.expect_more();
    Response::error(status).send(connection, How { http_11: true, head_only, keep: false })?;
    Ok(Next::Close)
}

/// What tells a client that asked first to send its body (RFC 9110, section 10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
