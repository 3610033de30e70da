//! The reply on its way to the client: read as far as it has come, and passed on as far as the client is to
//! have it now. It does not know what follows from its end.

use std::io::{self, Write};

use http::StatusCode;

use super::{
    body::Passage,
    exchange::{Asked, Exchange, Reply, Serving},
    reply::{self, Recipient},
};
use crate::{
    balance::flow::{Bulk, Pipes},
    http::codec::reply::{ReplyHead, parse},
    net::input::Input,
    session::connection::Connection,
};

/// Reads before others get their turn.
const READS: usize = 16;
/// With so much output that a client has not taken, nothing more is read for it.
const AHEAD: usize = 128 * 1024;
/// Informational replies that are passed on at most.
const INFORMATIONAL: u8 = 8;

/// What came of receiving.
#[derive(Debug)]
pub(super) enum Received {
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

/// Receives what has come of the reply and passes it on, as far as the client takes it.
pub(super) fn receive(
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
    let may_splice = client.is_flushed() && !client.is_encrypted();
    if reply.bulk.is_none() && may_splice && !exchange.is_abandoned && reply.passage.bulk().is_some() {
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

fn towards(asked: &Asked, keep: bool) -> Recipient {
    Recipient { http_11: asked.http_11, keep }
}
