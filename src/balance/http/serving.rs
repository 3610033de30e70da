//! An exchange with an upstream that has its request: what follows from what came of either side, and how
//! it ends. It knows neither how the upstream was found nor how bytes are passed on.

use std::{
    cell::RefCell,
    io,
    time::{Duration, Instant},
};

use http::StatusCode;

use super::{
    access::Why,
    exchange::{Exchange, Progress, Reply, Serving, Step},
    proxy::{Client, Proxy, Stage},
    receiving::{Received, receive},
    reserved::Reserved,
    tunnel::Tunnel,
    upload::{self, Passed},
};
use crate::{
    net::input::Input,
    session::{connection::Connection, handler::Next},
};

/// A reply that takes longer has its place back: it waits for something to happen, or for its client.
const LONG: Duration = Duration::from_secs(10);

thread_local! {
    /// What is read of an upstream, and what is written of it.
    static SCRATCH: RefCell<(Input, Vec<u8>)> = RefCell::new((Input::new(), Vec::new()));
}

impl Proxy {
    /// Sends the request over the connection that was found for it.
    pub(super) fn send(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        mut exchange: Box<Exchange>,
        serving: Serving,
    ) -> io::Result<Option<Next>> {
        exchange.note(|entry, came| {
            entry.upstream = Some(serving.lease.upstream().name.clone());
            entry.wait = serving.sent.saturating_duration_since(came);
        });
        if let Some((_, other, _)) = connection.sides() {
            other.wire.look_again();
            exchange.request.send_to(&mut other.wire);
            serving.lease.upstream().moved(exchange.request.len(), 0);
        }
        if exchange.upload.is_some() {
            // Nothing that streams is sent again.
            exchange.request.forget();
        }
        exchange.step = Step::Serving(serving);
        client.stage = Stage::Exchange(exchange);
        Ok(None)
    }

    /// Passes on what has come from either side.
    pub(super) fn serve(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        mut exchange: Box<Exchange>,
        mut serving: Serving,
    ) -> io::Result<Option<Next>> {
        if !exchange.is_abandoned && (connection.client().is_gone() || connection.client().flush().is_err()) {
            exchange.is_abandoned = true;
        }
        if exchange.is_abandoned && !(exchange.has_come() && serving.is_soon_over()) {
            serving.lease.says_nothing();
            return Ok(Some(Next::Close));
        }
        SCRATCH.with_borrow_mut(|(piece, out)| {
            let passed = upload::pass_on(connection, &mut exchange, &self.pipes, out)?;
            let received = receive(connection, &mut exchange, &mut serving, &self.pipes, piece, out)?;
            serving.count_bytes(&exchange);
            if !exchange.may_be_sent_again() || !serving.is_unanswered() {
                exchange.request.forget();
            }
            match (received, passed) {
                (Received::Whole { is_clean }, _) => {
                    Ok(Some(self.finish(connection, client, &mut exchange, serving, is_clean)))
                }
                // One that has agreed before it had all of the request cannot be told the rest.
                (Received::Upgraded(_), _) if !exchange.is_passed_on() || !is_flushed(connection) => {
                    self.broken_off(connection, client, &mut exchange, serving)
                }
                (Received::Upgraded(came), _) => {
                    exchange.note(|entry, _| (entry.status, entry.end) = (101, Why::Answered));
                    serving.lease.says_nothing();
                    client.stage = Stage::Tunnel(Box::new(Tunnel::begin(connection, serving.lease, &came)?));
                    Ok(None)
                }
                (Received::CutOff, _) if serving.is_unanswered() => {
                    self.died_unanswered(connection, client, exchange, serving)
                }
                (Received::CutOff | Received::Malformed, _) => {
                    self.broken_off(connection, client, &mut exchange, serving)
                }
                (_, Passed::Malformed) => self.bad_upload(connection, client, &mut exchange, serving),
                (_, Passed::CutOff) => {
                    serving.lease.says_nothing();
                    Ok(Some(Next::Close))
                }
                (received, passed) => {
                    let more = matches!(received, Received::More) || passed == Passed::More;
                    if serving.reply.is_some() {
                        free_if_long(&mut serving, Instant::now());
                    }
                    await_more(connection, &exchange, &mut serving);
                    exchange.step = Step::Serving(serving);
                    client.stage = Stage::Exchange(exchange);
                    Ok(Some(if more { Next::Again } else { Next::Park }))
                }
            }
        })
    }

    /// The reply was passed on.
    fn finish(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        exchange: &mut Exchange,
        mut serving: Serving,
        is_clean: bool,
    ) -> Next {
        let now = Instant::now();
        let Some(reply) = serving.reply.take() else { return Next::Close };
        let took = now.saturating_duration_since(serving.sent);
        let is_abandoned = exchange.is_abandoned;
        free_if_long(&mut serving, now);
        serving.lease.answered(sample(exchange, &reply, took));
        exchange.note(|entry, _| {
            (entry.status, entry.bytes, entry.upstream_time) = (reply.status.as_u16(), reply.bytes, took);
            entry.end = if is_abandoned { Why::Client } else { Why::Answered };
        });
        connection.note_answered();
        let other = connection.give_back();
        if is_clean
            && reply.keeps_upstream
            && exchange.is_passed_on()
            && let Some(other) = other.filter(|other| other.wire.is_flushed())
        {
            let upstream = serving.lease.upstream();
            match exchange.in_force.config.send_proxy {
                None => upstream.spares.put(other, reply.closes_after, now),
                Some(_) if reply.keeps_client && !is_abandoned => {
                    client.reserved = Reserved::keep(upstream, other, reply.closes_after, now);
                }
                // Nobody else may have it.
                Some(_) => drop(other),
            }
        }
        // Whoever waits for the place finds the connection.
        drop(serving);
        if exchange.is_abandoned {
            return Next::Close;
        }
        connection.context().counters.count_answer(reply.status.as_u16());
        if !exchange.has_come() {
            connection.expect_more();
        }
        self.next(connection, client, reply.keeps_client)
    }

    /// The upstream has broken off in the middle of its reply, or has sent what is none.
    fn broken_off(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        exchange: &mut Exchange,
        mut serving: Serving,
    ) -> io::Result<Option<Next>> {
        serving.lease.unserved();
        tracing::debug!(upstream = serving.lease.upstream().name, "sent no whole reply that is well-formed");
        if let Some(reply) = &serving.reply {
            let (status, bytes) = (reply.status.as_u16(), reply.bytes);
            exchange.note(|entry, _| (entry.status, entry.bytes, entry.end) = (status, bytes, Why::Upstream));
            // A reply that is cut off stays cut off.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        drop(serving);
        self.refuse(connection, client, exchange, StatusCode::BAD_GATEWAY)
    }

    /// The client has sent what is no body.
    fn bad_upload(
        &self,
        connection: &mut Connection<'_>,
        client: &mut Client,
        exchange: &mut Exchange,
        mut serving: Serving,
    ) -> io::Result<Option<Next>> {
        serving.lease.says_nothing();
        if serving.reply.is_some() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        drop(serving);
        connection.context().counters.malformed.count();
        self.refuse(connection, client, exchange, StatusCode::BAD_REQUEST)
    }
}

/// Gives the place of a reply back that takes long: it streams, or its client takes it slowly.
fn free_if_long(serving: &mut Serving, now: Instant) {
    if now.saturating_duration_since(serving.sent) > LONG {
        serving.lease.free();
    }
}

/// Sets the time within which something must come.
fn await_more(connection: &mut Connection<'_>, exchange: &Exchange, serving: &mut Serving) {
    let io_timeout = connection.context().timeouts.io.get();
    let Some((_, other, _)) = connection.sides() else { return };
    let (uploaded, received) = serving.passed(exchange);
    let progress = Progress { uploaded, takes: other.wire.is_flushed(), received };
    if serving.progress.replace(progress) == Some(progress) {
        // What has come since then has moved nothing.
        return;
    }
    let until = match (&exchange.upload, &serving.reply) {
        (Some(upload), _) if !upload.passage.is_complete() && other.wire.is_flushed() => {
            upload.deadline(io_timeout, Instant::now())
        }
        (Some(upload), _) if !upload.passage.is_complete() => Instant::now() + io_timeout,
        (_, Some(_)) => Instant::now() + io_timeout,
        (Some(_), None) => Instant::now() + exchange.in_force.http.upstream_timeout,
        (None, None) => serving.sent + exchange.in_force.http.upstream_timeout,
    };
    other.await_until(Some(until));
}

/// How long the request took, if that says something of the next: an error that came at once does not, and
/// neither does a body whose pace is the client's.
fn sample(exchange: &Exchange, reply: &Reply, took: Duration) -> Option<Duration> {
    /// An error that comes sooner was no work.
    const AT_ONCE: Duration = Duration::from_millis(1);
    let fails = reply.status.is_server_error() || reply.status == StatusCode::TOO_MANY_REQUESTS;
    let says_nothing = (fails && took < AT_ONCE)
        || took > LONG
        || exchange.upload.is_some()
        || exchange.is_retry
        || exchange.is_abandoned;
    (!says_nothing).then_some(took)
}

fn is_flushed(connection: &mut Connection<'_>) -> bool {
    connection.sides().is_some_and(|(_, other, _)| other.wire.is_flushed())
}
