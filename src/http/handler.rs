//! The handler of connections that speak HTTP: who goes on with one, at whatever stage it is. It does not
//! know how they do it.

use std::{
    borrow::Cow,
    fmt, io,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use http::{Method, StatusCode, header};

use super::{
    answer::{answer, go_on, refuse, refuse_busy},
    arrival::{self, Arrival},
    codec::head::{Head, asks_for_head, empty_lines},
    large::{PartialBody, Stand, Way},
    progress::{Progress, Stage},
    receipt::{BodyLimits, Receipt},
    request::Request,
    response::Response,
    taken::{Taken, take_head},
};
use crate::session::{
    busy_reply::BusyReply,
    connection::Connection,
    handler::{Handler, Next, Refusal},
    holds::Hold,
};

/// A handler that speaks HTTP/1.1 and answers requests with a function.
///
/// ```
/// use overfall::{Server, http::{Http, Request}};
///
/// let hello = Http::new(|request: &Request<'_>| format!("Hello, {}!", request.uri().path()));
/// let handle = Server::builder().bind("127.0.0.1:0").serve_handler(hello.max_body(1024))?;
/// # Ok::<(), overfall::Error>(())
/// ```
pub struct Http<F> {
    function: F,
    body_limits: BodyLimits,
    busy_reply: BusyReply,
    /// What is sent where that is empty.
    usual_busy_reply: Cow<'static, [u8]>,
    /// Bytes of bodies that are being gathered, of all connections.
    gathered: Arc<AtomicUsize>,
}

impl<F, R> Http<F>
where
    F: Fn(&Request<'_>) -> R + Send + Sync + 'static,
    R: Into<Response>,
{
    /// With the defaults: bodies of up to 64 MiB within a minute, and 503 for the refused.
    pub fn new(function: F) -> Self {
        let busy = Response::from(StatusCode::SERVICE_UNAVAILABLE).header(header::RETRY_AFTER, "1");
        let body_limits = BodyLimits { bytes: 64 * 1024 * 1024, time: Duration::from_secs(60) };
        Self {
            function,
            body_limits,
            busy_reply: BusyReply::default(),
            usual_busy_reply: busy.to_vec().into(),
            gathered: Arc::default(),
        }
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

    /// What a refused client is sent, head and all; the 503 where it is empty. The connection is closed
    /// after it.
    #[must_use]
    pub fn busy_reply(mut self, busy_reply: impl Into<BusyReply>) -> Self {
        self.busy_reply = busy_reply.into();
        self
    }
}

impl<F> fmt::Debug for Http<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("body_limits", &self.body_limits).finish_non_exhaustive()
    }
}

impl<F, R> Handler for Http<F>
where
    F: Fn(&Request<'_>) -> R + Send + Sync + 'static,
    R: Into<Response>,
{
    type State = Progress;

    const CLIENT_SPEAKS_FIRST: bool = true;
    const PROTOCOLS: &'static [&'static [u8]] = &[b"http/1.1"];

    fn open(&self, _: &mut Connection<'_>) -> io::Result<Progress> {
        Ok(Progress::default())
    }

    fn ready(&self, connection: &mut Connection<'_>, progress: &mut Progress) -> io::Result<Next> {
        match progress.resume() {
            Stage::Request => self.begin(connection, progress, None),
            Stage::Held(waiter) => match waiter.take() {
                Some(hold) => {
                    connection.part();
                    self.begin(connection, progress, Some(hold))
                }
                None => {
                    progress.awaits_hold(waiter);
                    Ok(Next::Park)
                }
            },
            Stage::Body(body) => self.gather_body(connection, progress, *body),
            Stage::Reply(reply) => go_on(connection, progress, reply),
            Stage::Upgraded(mut upgraded) => {
                let next = upgraded.0.ready(connection)?;
                progress.is_upgraded(upgraded);
                Ok(next)
            }
        }
    }

    fn expired(&self, connection: &mut Connection<'_>, progress: &mut Progress) -> io::Result<Next> {
        connection.part();
        match progress.resume() {
            Stage::Held(_) => {
                let head_only = asks_for_head(connection.input());
                refuse_busy(connection, &self.refused_with(), head_only)
            }
            Stage::Body(body) => refuse(connection, StatusCode::REQUEST_TIMEOUT, body.asks_for_head()),
            Stage::Upgraded(mut upgraded) => {
                let next = upgraded.0.expired(connection)?;
                progress.is_upgraded(upgraded);
                Ok(next)
            }
            // Nothing has come, or nothing that means anything.
            Stage::Request if empty_lines(connection.input()) == connection.input().len() => Ok(Next::Close),
            Stage::Request | Stage::Reply(_) => {
                let head_only = asks_for_head(connection.input());
                refuse(connection, StatusCode::REQUEST_TIMEOUT, head_only)
            }
        }
    }

    fn refusal(&self, _: Refusal) -> Cow<'static, [u8]> {
        self.refused_with()
    }
}

impl<F, R> Http<F>
where
    F: Fn(&Request<'_>) -> R + Send + Sync + 'static,
    R: Into<Response>,
{
    fn refused_with(&self) -> Cow<'static, [u8]> {
        let reply = self.busy_reply.get();
        if reply.is_empty() { self.usual_busy_reply.clone() } else { reply }
    }

    /// Begins with a request once its head is there, and its body or as much of that as can be held.
    fn begin(
        &self,
        connection: &mut Connection<'_>,
        progress: &mut Progress,
        hold: Option<Hold>,
    ) -> io::Result<Next> {
        match arrival::look(connection, progress, self.body_limits.bytes) {
            Ok(Arrival::Part) => Ok(Next::Park),
            Ok(Arrival::Whole(head)) => {
                progress.found_request();
                let taken = Taken::from_input(connection, head, None);
                answer(&self.function, self.body_limits, connection, progress, taken)
            }
            Ok(Arrival::Head(head)) => {
                progress.found_request();
                self.begin_body(connection, progress, head, hold)
            }
            Err(status) => {
                let head_only = asks_for_head(connection.input());
                refuse(connection, status, head_only)
            }
        }
    }

    /// Sees to a body that is too large to be gathered in the input.
    fn begin_body(
        &self,
        connection: &mut Connection<'_>,
        progress: &mut Progress,
        head: Head,
        hold: Option<Hold>,
    ) -> io::Result<Next> {
        match Way::find(connection, &head, hold, &self.gathered) {
            Way::Read(hold) => {
                let taken = Taken::from_input(connection, head, hold);
                answer(&self.function, self.body_limits, connection, progress, taken)
            }
            Way::Gather(gathered) => {
                let text = take_head(connection, &head);
                let body = PartialBody::new(text, Receipt::new(head.framing), gathered);
                self.gather_body(connection, progress, body)
            }
            Way::Line(waiter) => {
                connection.await_turn(Instant::now() + connection.context().patience.get());
                progress.awaits_hold(Box::new(waiter));
                Ok(Next::Park)
            }
            Way::Busy => refuse_busy(connection, &self.refused_with(), head.method == Method::HEAD),
        }
    }

    /// Gathers what has come of a body, and answers when it is whole.
    fn gather_body(
        &self,
        connection: &mut Connection<'_>,
        progress: &mut Progress,
        body: PartialBody,
    ) -> io::Result<Next> {
        let head_only = body.asks_for_head();
        match body.gather(connection, self.body_limits)? {
            Stand::Whole(taken) => answer(&self.function, self.body_limits, connection, progress, taken),
            Stand::Part(body, next) => {
                progress.gathers_body(body);
                Ok(next)
            }
            Stand::Busy => refuse_busy(connection, &self.refused_with(), head_only),
            Stand::Failed(status) => refuse(connection, status, head_only),
        }
    }
}
