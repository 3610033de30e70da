//! The body of a request on its way to an upstream: gathered with its head, or passed through as it comes.
//! It knows no replies.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    body::Passage,
    exchange::{Exchange, Request, Upload},
    request::{self, Forwarded},
};
use crate::{
    balance::flow::{Bulk, Pipes},
    http::{
        codec::{chunked::Decoder, framing::Framing, head::Head},
        gathered::Gathered,
    },
    session::connection::Connection,
};

/// The slowest that a client may be on average: less keeps an upstream's place for nothing.
const MIN_BYTES_PER_S: u64 = 16 * 1024;
/// What is passed on before others get their turn.
const MOVES: usize = 16;

/// The request as an upstream gets it, of which the body was gathered in memory.
pub(super) fn gathered_before(
    text: &[u8],
    head: &Head,
    mut body: Gathered,
    forwarded: &Forwarded<'_>,
) -> Request {
    let mut out = Vec::with_capacity(text.len() + 256);
    request::write(&mut out, text, head, forwarded);
    body.move_to(&mut out);
    Request::new(out, Some(body))
}

/// The request as an upstream gets it, and the rest of its body where not all has come.
pub(super) fn begin(
    connection: &mut Connection<'_>,
    text: &[u8],
    head: &Head,
    is_whole: bool,
    forwarded: &Forwarded<'_>,
    now: Instant,
) -> io::Result<(Request, Option<Upload>)> {
    let mut out = Vec::with_capacity(text.len() + 256);
    if !is_whole {
        request::write(&mut out, text, head, forwarded);
        let passage = Passage::new(Some(head.framing), Some(head.framing));
        return Ok((
            Request::new(out, None),
            Some(Upload { passage, began: now, bytes: 0, is_stalled: false, bulk: None }),
        ));
    }
    let body = gathered(connection, head.framing)?;
    let framing = match head.framing {
        Framing::Chunked => Framing::Length(body.len() as u64),
        framing => framing,
    };
    request::write(&mut out, text, head, &Forwarded { framing, ..*forwarded });
    out.extend_from_slice(&body);
    Ok((Request::new(out, None), None))
}

/// Takes a body off the input that has come as a whole.
fn gathered(connection: &mut Connection<'_>, framing: Framing) -> io::Result<Vec<u8>> {
    let input = connection.input();
    let (body, length) = match framing {
        Framing::Empty => return Ok(Vec::new()),
        Framing::Length(length) => {
            let length = usize::try_from(length).unwrap_or(usize::MAX).min(input.len());
            (input[..length].to_vec(), length)
        }
        Framing::Chunked => decoded(input)?,
    };
    connection.consume(length);
    Ok(body)
}

fn decoded(input: &[u8]) -> io::Result<(Vec<u8>, usize)> {
    let (mut decoder, mut body, mut at) = (Decoder::new(), Vec::new(), 0);
    while !decoder.is_done() {
        let piece = decoder.advance(&input[at..]).map_err(|_| io::ErrorKind::InvalidData)?;
        let data = at + piece.framing;
        body.extend_from_slice(&input[data..data + piece.data]);
        decoder.took(piece.data);
        at = data + piece.data;
    }
    Ok((body, at))
}

/// What came of passing on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// More has to come, or to be taken.
    Part,
    /// More is there, but others have waited.
    More,
    /// What has come is malformed.
    Malformed,
    /// The client has ended its side before all had come.
    CutOff,
    /// The upstream takes nothing any more. It may have replied.
    Refused,
}

/// Passes on what has come of the body.
pub(super) fn pass_on(
    connection: &mut Connection<'_>,
    exchange: &mut Exchange,
    pipes: &Pipes,
    out: &mut Vec<u8>,
) -> io::Result<Passed> {
    if let Some((_, other, _)) = connection.sides()
        && other.wire.flush().is_ok()
    {
        exchange.request.go_on(&mut other.wire);
    }
    let Some(upload) = &mut exchange.upload else { return Ok(Passed::Part) };
    for _ in 0..MOVES {
        match upload.make_room(connection) {
            Err(_) => return Ok(Passed::Refused),
            Ok(false) => {
                upload.is_stalled = true;
                return Ok(Passed::Part);
            }
            Ok(true) => {}
        }
        if connection.input().is_empty() && upload.move_bulk(connection, pipes)? {
            continue;
        }
        if upload.passage.is_complete() {
            return Ok(Passed::Part);
        }
        if std::mem::take(&mut upload.is_stalled) {
            (upload.began, upload.bytes) = (Instant::now(), 0);
        }
        let came = connection.fill()?;
        if connection.input().is_empty() {
            let ended = connection.ended();
            return Ok(if ended { Passed::CutOff } else { Passed::Part });
        }
        out.clear();
        let Ok(step) = upload.passage.step(connection.input(), out, usize::MAX) else {
            return Ok(Passed::Malformed);
        };
        connection.consume(step.consumed);
        upload.bytes += step.consumed as u64;
        let Some((_, other, _)) = connection.sides() else { return Ok(Passed::Refused) };
        let Ok(sent) = other.wire.send(out) else { return Ok(Passed::Refused) };
        // There is room: nothing was left of what came before.
        other.wire.keep(&out[sent..]);
        if step.consumed == 0 && came == 0 && !upload.passage.is_complete() {
            return Ok(if connection.ended() { Passed::CutOff } else { Passed::Part });
        }
    }
    Ok(Passed::More)
}

impl Upload {
    /// Sends what the upstream has not taken yet; whether that was all.
    fn make_room(&mut self, connection: &mut Connection<'_>) -> io::Result<bool> {
        let Some((_, other, _)) = connection.sides() else { return Ok(false) };
        let is_flushed = other.wire.flush()?;
        match &mut self.bulk {
            Some(bulk) if is_flushed => bulk.empty(&mut other.wire),
            _ => Ok(is_flushed),
        }
    }

    /// Moves a part of a long body without a copy; whether something was moved.
    fn move_bulk(&mut self, connection: &mut Connection<'_>, pipes: &Pipes) -> io::Result<bool> {
        let may_splice = !connection.is_encrypted();
        let Some(left) = self.passage.bulk().filter(|_| may_splice) else {
            self.bulk.take().into_iter().for_each(|bulk| bulk.end(pipes));
            return Ok(false);
        };
        if self.bulk.is_none() {
            self.bulk = Bulk::new(pipes);
        }
        let Some(bulk) = &mut self.bulk else { return Ok(false) };
        let moved = bulk.fill(connection.client(), left)?;
        self.passage.took(moved);
        self.bytes += moved;
        Ok(moved > 0)
    }

    /// When more must have come: the client may pause for this long, and must keep to the minimum rate.
    pub(super) fn deadline(&self, io_timeout: Duration, now: Instant) -> Instant {
        let earned = Duration::from_secs(self.bytes / MIN_BYTES_PER_S);
        (now + io_timeout).min(self.began + io_timeout + earned)
    }
}
