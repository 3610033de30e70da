//! What passes between a client and an upstream that has its request: the request, the rest of its body,
//! and the reply. It does not know how the upstream was found.

use std::{
    cell::RefCell,
    io::{self, Write},
    time::{Duration, Instant},
};

use http::StatusCode;

use super::{
    access::Why,
    body::Passage,
    exchange::{Asked, Exchange, Progress, Reply, Serving, Step},
    proxy::{Client, Proxy, Stage},
    reply::{self, Recipient},
    tunnel::Tunnel,
    upload::{self, Passed},
};
use crate::{
    balance::flow::{Bulk, Pipes},
    http::codec::reply::{ReplyHead, parse},
    net::input::Input,
    session::{connection::Connection, handler::Next},
};

/// A reply that takes longer has its place back: it waits for something to happen, or for its client.
const LONG: Duration = Duration::from_secs(10);
/// Reads before others get their turn.
const READS: usize = 16;
/// With so much output that a client has not taken, nothing more is read for it.
const AHEAD: usize = 128 * 1024;
/// Informational replies that are passed on at most.
const INFORMATIONAL: u8 = 8;

thread_local! {
    /// What is read of an upstream, and what is written of it.
    static SCRATCH: RefCell<(Input, Vec<u8>)> = RefCell::new((Input::new(), Vec::new()));
}

/// What came of receiving.
#[derive(Debug)]
enum Received {
    /// More has to come, or to be taken.
    Part,
    /// More is there, but others have waited.
    More,
    /// All of the reply. Nothing was left over behind it.
    Whole {
        is_clean: bool,
    },
    /// The upstream goes on with another protocol; this has come of it already.
    Upgraded(Vec<u8>),
    /// The upstream has ended the connection before its reply was whole.
    CutOff,
    Malformed,
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
            if !exchange.may_be_sent_again() || !serving.is_unanswered() {
                exchange.request.forget();
            }
            if serving.reply.is_some() && serving.sent.elapsed() > LONG {
                // It streams, or its client takes it slowly.
                serving.lease.free();
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
                    self.await_more(connection, &exchange, &mut serving);
                    exchange.step = Step::Serving(serving);
                    client.stage = Stage::Exchange(exchange);
                    Ok(Some(if more { Next::Again } else { Next::Park }))
                }
            }
        })
    }

    /// Sets the time within which something must come.
    fn await_more(&self, connection: &mut Connection<'_>, exchange: &Exchange, serving: &mut Serving) {
        let io_timeout = connection.context().timeouts.io;
        let Some((_, other, _)) = connection.sides() else { return };
        let uploaded = exchange.upload.as_ref().map_or(0, |upload| upload.bytes);
        let received = serving.reply.as_ref().map(|reply| reply.bytes);
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
            (Some(_), None) => Instant::now() + self.http.upstream_timeout,
            (None, None) => serving.sent + self.http.upstream_timeout,
        };
        other.await_until(Some(until));
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
        serving.lease.answered(sample(exchange, &reply, took));
        exchange.note(|entry, _| {
            (entry.status, entry.bytes, entry.upstream_time) = (reply.status.as_u16(), reply.bytes, took);
            entry.end = if is_abandoned { Why::Client } else { Why::Answered };
        });
        connection.note_written();
        let other = connection.give_back();
        if is_clean
            && reply.keeps_upstream
            && exchange.is_passed_on()
            && let Some(other) = other.filter(|other| other.wire.is_flushed())
        {
            self.spares.put(serving.lease.index, other, reply.closes_after, now);
        }
        // Whoever waits for the place finds the connection.
        drop(serving);
        if exchange.is_abandoned {
            return Next::Close;
        }
        let counters = &connection.context().counters;
        counters.answered.count();
        counters.count_answer(reply.status.as_u16());
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

/// Receives what has come of the reply and passes it on, as far as the client takes it.
fn receive(
    connection: &mut Connection<'_>,
    exchange: &mut Exchange,
    serving: &mut Serving,
    pipes: &Pipes,
    piece: &mut Input,
    out: &mut Vec<u8>,
) -> io::Result<Received> {
    piece.load(std::mem::take(&mut serving.partial));
    for _ in 0..READS {
        if let Some(reply) = serving.reply.as_mut().filter(|_| piece.unread().is_empty()) {
            match move_bulk(connection, exchange, reply, pipes) {
                Moved::Nothing => {}
                Moved::Some => continue,
                Moved::Stuck => return Ok(Received::Part),
            }
        }
        let Some((client, other, _)) = connection.sides() else { return Ok(Received::CutOff) };
        if !exchange.is_abandoned && client.kept() > AHEAD {
            break;
        }
        if other.wire.flush().is_err() {
            // It takes nothing more, but may have said why.
            other.wire.drop_output();
        }
        // A reset is no end.
        let failed = other.wire.fill(piece).is_err();
        let drained = other.wire.drained();
        let came = Came { ended: failed || other.wire.ended(), failed };
        out.clear();
        let received = take_in(connection, exchange, serving, piece, out, came);
        if !(out.is_empty() || exchange.is_abandoned) && connection.write_all(out).is_err() {
            exchange.is_abandoned = true;
        }
        if let Some(received) = received {
            serving.partial = piece.save();
            return Ok(match (received, connection.sides()) {
                // What lies behind it was asked for by nobody.
                (Received::Whole { is_clean: true }, Some((_, other, _))) if !drained => {
                    Received::Whole { is_clean: other.wire.is_quiet() }
                }
                (received, _) => received,
            });
        }
        if drained {
            break;
        }
    }
    serving.partial = piece.save();
    let Some((client, other, _)) = connection.sides() else { return Ok(Received::CutOff) };
    let waits = other.wire.drained() || (!exchange.is_abandoned && client.kept() > AHEAD);
    Ok(if waits { Received::Part } else { Received::More })
}

/// What came of moving a bulk.
enum Moved {
    /// Nothing came, or it is none.
    Nothing,
    Some,
    /// The client has to take what came first.
    Stuck,
}

/// Moves a long body without copies.
fn move_bulk(
    connection: &mut Connection<'_>,
    exchange: &mut Exchange,
    reply: &mut Reply,
    pipes: &Pipes,
) -> Moved {
    let Some((client, other, _)) = connection.sides() else { return Moved::Nothing };
    if reply.bulk.is_none() && client.is_flushed() && !exchange.is_abandoned && reply.passage.bulk().is_some()
    {
        reply.bulk = Bulk::new(pipes);
    }
    let Some(bulk) = &mut reply.bulk else { return Moved::Nothing };
    if client.kept() > 0 {
        // What was copied goes first.
        return Moved::Stuck;
    }
    match bulk.empty(client) {
        Ok(true) => {}
        Ok(false) => return Moved::Stuck,
        Err(_) => {
            exchange.is_abandoned = true;
            reply.bulk = None;
            return Moved::Nothing;
        }
    }
    let Some(left) = reply.passage.bulk() else {
        reply.bulk.take().into_iter().for_each(|bulk| bulk.end(pipes));
        return Moved::Nothing;
    };
    // Where it fails, reading says so.
    let moved = bulk.fill(&mut other.wire, left).unwrap_or(0);
    reply.passage.took(moved);
    reply.bytes += moved;
    if moved > 0 { Moved::Some } else { Moved::Nothing }
}

/// How a read went.
#[derive(Debug, Clone, Copy)]
struct Came {
    /// Nothing more is going to come.
    ended: bool,
    /// The end was none in peace.
    failed: bool,
}

/// Takes in what was read, and writes what follows from it. None where more has to come.
fn take_in(
    connection: &Connection<'_>,
    exchange: &Exchange,
    serving: &mut Serving,
    piece: &mut Input,
    out: &mut Vec<u8>,
    came: Came,
) -> Option<Received> {
    while serving.reply.is_none() {
        match parse(piece.unread(), &exchange.asked.method) {
            Err(_) => return Some(Received::Malformed),
            Ok(None) if piece.is_full() => return Some(Received::Malformed),
            Ok(None) if came.ended => return Some(Received::CutOff),
            Ok(None) => return None,
            Ok(Some(head)) => {
                if let Some(received) = take_head(connection, exchange, serving, piece, out, head) {
                    return Some(received);
                }
            }
        }
    }
    let reply = serving.reply.as_mut()?;
    while !reply.passage.is_complete() {
        let Ok(step) = reply.passage.step(piece.unread(), out, usize::MAX) else {
            return Some(Received::Malformed);
        };
        piece.consume(step.consumed);
        reply.bytes += step.consumed as u64;
        if step.consumed == 0 {
            break;
        }
    }
    let is_over = |reply: &mut Reply, out: &mut Vec<u8>| !came.failed && reply.passage.end_of_input(out);
    if !reply.passage.is_complete() && came.ended && !is_over(reply, out) {
        return Some(Received::CutOff);
    }
    let is_whole = reply.passage.is_complete();
    is_whole.then(|| Received::Whole { is_clean: piece.unread().is_empty() && !came.ended })
}

/// Takes in the head of a reply; what it means where nothing more is to be taken in.
fn take_head(
    connection: &Connection<'_>,
    exchange: &Exchange,
    serving: &mut Serving,
    piece: &mut Input,
    out: &mut Vec<u8>,
    head: ReplyHead,
) -> Option<Received> {
    let asked = &exchange.asked;
    let text = &piece.unread()[..head.length];
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        if !(asked.upgrade && head.upgrade) {
            return Some(Received::Malformed);
        }
        reply::write(out, text, &head, towards(asked, true));
        piece.consume(head.length);
        let came = piece.unread().to_vec();
        piece.clear();
        return Some(Received::Upgraded(came));
    }
    if head.status.is_informational() {
        serving.informational += 1;
        if serving.informational > INFORMATIONAL {
            return Some(Received::Malformed);
        }
        if reply::is_for(&head, asked.http_11) {
            reply::write(out, text, &head, towards(asked, true));
        }
        piece.consume(head.length);
        return None;
    }
    let goes = reply::framing(&head, asked.http_11);
    let keeps_client = asked.persistent && exchange.has_come() && !connection.draining() && goes.is_some();
    reply::write(out, text, &head, towards(asked, keeps_client));
    serving.reply = Some(Reply {
        status: head.status,
        bytes: 0,
        bulk: None,
        passage: Passage::new(head.framing, goes),
        keeps_client,
        keeps_upstream: head.persistent,
        closes_after: head.keep_alive_timeout,
    });
    piece.consume(head.length);
    None
}

fn is_flushed(connection: &mut Connection<'_>) -> bool {
    connection.sides().is_some_and(|(_, other, _)| other.wire.is_flushed())
}

fn towards(asked: &Asked, keep: bool) -> Recipient {
    Recipient { http_11: asked.http_11, keep }
}
