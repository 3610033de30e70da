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
//! no slow client costs a worker; for the rest of a larger body a worker may wait, see [`Body`].
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
pub(crate) mod codec;
mod gathered;
mod incoming;
mod receipt;
mod request;
mod response;
mod sending;

use std::{
    borrow::Cow,
    fmt,
    io::{self, Write},
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};

pub use self::{body::Body, request::Request, response::Response};
use self::{
    codec::{
        chunked::Decoder,
        framing::Framing,
        head::{self, Head},
    },
    gathered::Gathered,
    incoming::{Gathering, Incoming},
    receipt::{BodyLimits, Receipt},
    response::How,
    sending::Sending,
};
use crate::{
    error::Result,
    server::{Builder, Connection, Handle, Handler, Hold, HoldWaiter, Next, Refusal},
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
    /// Bytes of bodies that are being gathered, of all connections.
    gathered: Arc<AtomicUsize>,
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
        Self { function, body_limits, busy_reply: busy.to_vec().into(), gathered: Arc::default() }
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
    /// Bytes of the input that were looked at and were no whole request; no input has more.
    seen: u16,
    /// With so many it will be one, where that is known.
    whole_at: Option<u16>,
    /// An empty line was passed over.
    skipped: bool,
    stage: Stage,
}

#[derive(Debug, Default)]
enum Stage {
    /// The request is gathered in the input.
    #[default]
    Request,
    /// Its body has to wait until fewer workers are held by bodies.
    Held(Box<Held>),
    /// Its body is gathered in memory, since no worker may be held.
    Body(Box<PartialBody>),
    /// The response is under way.
    Reply(Box<Reply>),
}

#[derive(Debug)]
struct Held {
    waiter: HoldWaiter,
}

#[derive(Debug)]
struct PartialBody {
    /// The head as it came.
    text: Vec<u8>,
    receipt: Receipt,
    gathered: Option<Gathered>,
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
        let hold = match mem::take(&mut progress.stage) {
            Stage::Reply(reply) => return go_on(connection, progress, reply),
            Stage::Body(body) => return self.gather_body(connection, progress, *body),
            Stage::Held(held) => match held.waiter.take() {
                Some(hold) => {
                    connection.detach();
                    Some(hold)
                }
                None => {
                    progress.stage = Stage::Held(held);
                    return Ok(Next::Park);
                }
            },
            Stage::Request => None,
        };
        match self.gather(connection, progress) {
            Ok(Some(Whole { head, body: true })) => {
                *progress = Progress::default();
                self.answer_here(connection, progress, head, None)
            }
            Ok(Some(Whole { head, body: false })) => {
                *progress = Progress::default();
                self.begin_body(connection, progress, head, hold)
            }
            Ok(None) => Ok(Next::Park),
            Err(status) => {
                let head_only = asks_for_head(connection.input());
                refuse(connection, status, head_only)
            }
        }
    }

    fn expired(&self, connection: &mut Connection<'_>, progress: &mut Progress) -> io::Result<Next> {
        connection.detach();
        match mem::take(&mut progress.stage) {
            Stage::Held(_) => {
                let head_only = asks_for_head(connection.input());
                self.refuse_busy(connection, head_only)
            }
            Stage::Body(body) => refuse(connection, StatusCode::REQUEST_TIMEOUT, asks_for_head(&body.text)),
            // Nothing has come, or nothing that means anything.
            Stage::Request if empty_lines(connection.input()) == connection.input().len() => Ok(Next::Close),
            Stage::Request | Stage::Reply(_) => {
                let head_only = asks_for_head(connection.input());
                refuse(connection, StatusCode::REQUEST_TIMEOUT, head_only)
            }
        }
    }

    fn refusal(&self, _: Refusal) -> Cow<'static, [u8]> {
        self.busy_reply.clone()
    }
}

impl<F> Http<F> {
    /// Tells a client whose body has waited too long, or finds no room, what others are told.
    fn refuse_busy(&self, connection: &mut Connection<'_>, head_only: bool) -> io::Result<Next> {
        connection.count_shed();
        connection.expect_more();
        let reply = &self.busy_reply[..];
        let head = reply.windows(4).position(|end| end == b"\r\n\r\n").map_or(reply.len(), |at| at + 4);
        connection.write_all(if head_only { &reply[..head] } else { reply })?;
        Ok(Next::Close)
    }
}

/// A head that is whole, and whether its body is.
struct Whole {
    head: Head,
    body: bool,
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
    ) -> Result<Option<Whole>, StatusCode> {
        progress.skip_empty_lines(connection);
        let input = connection.input();
        if empty_lines(input) == input.len() || !(progress.may_be_whole(input) || connection.ended()) {
            progress.seen = short(input.len());
            return Ok(None);
        }
        progress.seen = short(input.len());
        // Whether what is missing can still come, and there is room for it.
        let open = !connection.ended() && input.len() < Connection::INPUT_LIMIT;
        let Some(head) = head::parse(input)? else {
            return match (open, connection.ended()) {
                (true, _) => Ok(None),
                (false, true) => Err(StatusCode::BAD_REQUEST),
                (false, false) => Err(head::excess(input)),
            };
        };
        if let Framing::Length(length) = head.framing
            && length > self.body_limits.bytes
        {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let body = &input[head.length..];
        let (whole, whole_at) = match head.framing {
            Framing::Empty => (true, None),
            Framing::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let whole_at = head.length.saturating_add(length).min(Connection::INPUT_LIMIT);
                (body.len() >= length, Some(short(whole_at)))
            }
            Framing::Chunked => (is_whole(body, self.body_limits.bytes)?, None),
        };
        // Whether a body is to be sent at all is for the handler to say, which needs a worker.
        if whole || !open || head.expects_continue {
            return Ok(Some(Whole { head, body: whole }));
        }
        progress.whole_at = whole_at;
        Ok(None)
    }

    /// Sees to a body that is too large to be gathered in the input: a worker waits for it, if it may.
    fn begin_body(
        &self,
        connection: &mut Connection<'_>,
        progress: &mut Progress,
        head: Head,
        hold: Option<Hold>,
    ) -> io::Result<Next> {
        let may_gather = !head.expects_continue && head.framing.length().is_none_or(Gathered::may_hold);
        if !connection.may_hold() && may_gather {
            let Some(gathered) = Gathered::new(&self.gathered, head.framing.length()) else {
                return self.refuse_busy(connection, head.method == Method::HEAD);
            };
            let text = take_head(connection, &head);
            let body = PartialBody { text, receipt: Receipt::new(head.framing), gathered: Some(gathered) };
            return self.gather_body(connection, progress, body);
        }
        if let Some(hold) = hold.or_else(|| connection.hold()) {
            return self.answer_here(connection, progress, head, Some(hold));
        }
        if !connection.may_hold() {
            // It is larger than all that may be gathered, or its client asks first: there is no other way.
            return self.answer_here(connection, progress, head, None);
        }
        let Some(waiter) = connection.await_hold() else {
            return self.refuse_busy(connection, head.method == Method::HEAD);
        };
        connection.await_turn(connection.patience());
        progress.stage = Stage::Held(Box::new(Held { waiter }));
        Ok(Next::Park)
    }

    /// Gathers what has come of a body, and answers when it is whole.
    fn gather_body(
        &self,
        connection: &mut Connection<'_>,
        progress: &mut Progress,
        body: PartialBody,
    ) -> io::Result<Next> {
        let PartialBody { text, receipt, gathered } = body;
        let mut incoming = Incoming::new(connection.reborrow(), receipt, self.body_limits, gathered, None);
        let gathering = incoming.gather();
        let failure = incoming.failure();
        let (receipt, gathered) = incoming.into_parts();
        connection.detach();
        match gathering {
            Ok(Gathering::Whole) => {
                let head = head::parse(&text).ok().flatten();
                let head = head.ok_or_else(|| io::Error::other("a head was whole and is not"))?;
                let request = (head, text, receipt, gathered);
                return self.answer(connection, progress, request, None);
            }
            Ok(Gathering::NoRoom) => return self.refuse_busy(connection, asks_for_head(&text)),
            Ok(Gathering::Pause) => connection.await_turn(connection.io_timeout()),
            Ok(Gathering::Until(deadline)) => {
                connection.await_turn(deadline.saturating_duration_since(Instant::now()));
            }
            Err(error) => match failure {
                Some(status) => return refuse(connection, status, asks_for_head(&text)),
                None => return Err(error),
            },
        }
        progress.stage = Stage::Body(Box::new(PartialBody { text, receipt, gathered }));
        Ok(if gathering.is_ok_and(|gathering| gathering == Gathering::Pause) {
            Next::Again
        } else {
            Next::Park
        })
    }

    /// Answers the request at the beginning of the input.
    fn answer_here(
        &self,
        connection: &mut Connection<'_>,
        progress: &mut Progress,
        head: Head,
        hold: Option<Hold>,
    ) -> io::Result<Next> {
        let text = take_head(connection, &head);
        let receipt = Receipt::new(head.framing);
        self.answer(connection, progress, (head, text, receipt, None), hold)
    }

    fn answer(
        &self,
        connection: &mut Connection<'_>,
        progress: &mut Progress,
        (head, text, receipt, gathered): (Head, Vec<u8>, Receipt, Option<Gathered>),
        hold: Option<Hold>,
    ) -> io::Result<Next> {
        let http_11 = head.http_11;
        let head_only = head.method == Method::HEAD;
        let persistent = head.persistent;
        let asks_first = head.expects_continue;
        let incoming = Incoming::new(connection.reborrow(), receipt, self.body_limits, gathered, hold)
            .expect_continue(asks_first);
        let request = Request::new(head, text, incoming);
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

/// A length of the input, or a part of it, in few bytes.
fn short(length: usize) -> u16 {
    const { assert!(Connection::INPUT_LIMIT <= u16::MAX as usize) };
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// Takes the head off the connection's input.
fn take_head(connection: &mut Connection<'_>, head: &Head) -> Vec<u8> {
    let text = connection.input()[..head.length].to_vec();
    connection.consume(head.length);
    text
}

impl Progress {
    /// Empty lines before a request are passed over (RFC 9112, section 2.2): one at once, which some
    /// clients send behind a body, and others when the request comes. By themselves they are no reason to
    /// give a client more time.
    fn skip_empty_lines(&mut self, connection: &mut Connection<'_>) {
        let input = connection.input();
        let length = empty_lines(input);
        let is_first = length == input.len() && length <= 2 && !mem::replace(&mut self.skipped, true);
        if length > 0 && (length < input.len() || is_first) {
            connection.consume(length);
            self.seen = 0;
        }
    }

    /// Whether it is worth looking at the input as a whole: requests that come a byte at a time
    /// would else cost the square of their length.
    fn may_be_whole(&self, input: &[u8]) -> bool {
        match self.whole_at {
            Some(whole_at) => input.len() >= whole_at.into(),
            None => {
                self.seen == 0
                    || input.len() == Connection::INPUT_LIMIT
                    || input.get(self.seen.into()..).is_none_or(|new| new.contains(&b'\n'))
            }
        }
    }
}

/// How much of the input is empty lines at its beginning.
fn empty_lines(input: &[u8]) -> usize {
    let mut length = 0;
    while let Some(end) = [&b"\r\n"[..], b"\n"].into_iter().find(|end| input[length..].starts_with(end)) {
        length += end.len();
    }
    length
}

/// Whether the request at the beginning of the input, which may be none that is known, is for a head: its
/// answer has no content.
fn asks_for_head(input: &[u8]) -> bool {
    input[empty_lines(input)..].starts_with(b"HEAD ")
}

/// Whether a chunked body has come to its end.
fn is_whole(mut body: &[u8], limit: u64) -> Result<bool, StatusCode> {
    let mut decoder = Decoder::new();
    while !body.is_empty() && !decoder.is_done() {
        let piece = decoder.advance(body).map_err(|_| StatusCode::BAD_REQUEST)?;
        if decoder.announced() > limit {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
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
    progress.stage = Stage::Reply(reply);
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
    if status != StatusCode::INTERNAL_SERVER_ERROR {
        connection.count_malformed();
    }
    Response::error(status).send(connection, How { http_11: true, head_only, keep: false })?;
    Ok(Next::Close)
}
