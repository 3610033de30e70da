use std::{
    cell::{RefCell, RefMut},
    fmt,
    io::{self, Read},
    time::{Duration, Instant},
};

use http::StatusCode;

use super::{chunked::Decoder, head::Framing};
use crate::server::Connection;

/// The body of a request, read as it comes: `&Body` is a [`Read`].
///
/// A body that fits into the input buffer (16 KiB, together with its head) has come already when
/// the handler is called, and of a larger one as much as fits. For its rest the worker waits, and
/// its client must keep up 16 KiB per second on average, never pause for `io_timeout`, and be done
/// within [`Http::body_timeout`](super::Http::body_timeout). One that is not gets 408, one that
/// breaks off or is malformed 400, one that grows too large 413. Reading gives an error then, the
/// client's answer is decided whatever the handler answers, and the connection is closed.
pub struct Body<'a>(RefCell<Incoming<'a>>);

/// The slowest that a client may be on average (the idea is that of Apache's `RequestReadTimeout`).
const MIN_BYTES_PER_S: u64 = 16 * 1024;

pub(super) struct Incoming<'a> {
    connection: Connection<'a>,
    rest: Rest,
    limits: BodyLimits,
    received: u64,
    started: Option<Instant>,
    /// What its client is to be told, whatever the handler answers.
    failure: Option<StatusCode>,
}

/// What a body may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    pub(super) bytes: u64,
    pub(super) time: Duration,
}

enum Rest {
    Length(u64),
    Chunked(Decoder),
}

impl<'a> Body<'a> {
    pub(super) fn new(connection: Connection<'a>, framing: Framing, limits: BodyLimits) -> Self {
        let rest = match framing {
            Framing::Empty => Rest::Length(0),
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunked(Decoder::new()),
        };
        let incoming = Incoming { connection, rest, limits, received: 0, started: None, failure: None };
        Self(RefCell::new(incoming))
    }

    pub(super) fn incoming(&self) -> RefMut<'_, Incoming<'a>> {
        self.0.borrow_mut()
    }
}

impl Read for &Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut incoming = self.incoming();
        if let Some(status) = incoming.failure {
            return Err(failed(status));
        }
        incoming.read(buffer)
    }
}

fn failed(status: StatusCode) -> io::Error {
    let kind = match status {
        StatusCode::REQUEST_TIMEOUT => io::ErrorKind::TimedOut,
        StatusCode::PAYLOAD_TOO_LARGE => io::ErrorKind::FileTooLarge,
        _ => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, format!("the body of the request failed: {status}"))
}

impl Incoming<'_> {
    pub(super) fn connection(&self) -> &Connection<'_> {
        &self.connection
    }

    pub(super) fn failure(&self) -> Option<StatusCode> {
        self.failure
    }

    /// Passes over what the handler did not read, as far as it has come. Whether the next request
    /// is what follows.
    pub(super) fn finish(&mut self) -> bool {
        while self.failure.is_none() {
            match self.available() {
                Ok(Some(0)) => return true,
                Ok(Some(amount)) => self.take(amount),
                Ok(None) | Err(_) => return false,
            }
        }
        false
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(available) = self.available()? {
                let amount = available.min(buffer.len());
                buffer[..amount].copy_from_slice(&self.connection.input()[..amount]);
                self.take(amount);
                return Ok(amount);
            }
            self.await_more()?;
        }
    }

    /// How much of the body lies at the beginning of the input: 0 when all was taken, none when
    /// more has to come first.
    fn available(&mut self) -> io::Result<Option<usize>> {
        let data = match &mut self.rest {
            Rest::Length(left) => {
                if *left == 0 {
                    return Ok(Some(0));
                }
                let there = self.connection.input().len();
                usize::try_from(*left).map_or(there, |left| left.min(there))
            }
            Rest::Chunked(decoder) => {
                let Ok(piece) = decoder.advance(self.connection.input()) else {
                    return Err(self.fail(StatusCode::BAD_REQUEST));
                };
                self.connection.consume(piece.framing);
                if decoder.is_done() {
                    return Ok(Some(0));
                }
                piece.data
            }
        };
        if self.received + data as u64 > self.limits.bytes {
            return Err(self.fail(StatusCode::PAYLOAD_TOO_LARGE));
        }
        Ok(Some(data).filter(|&data| data > 0))
    }

    fn take(&mut self, amount: usize) {
        self.connection.consume(amount);
        self.received += amount as u64;
        match &mut self.rest {
            Rest::Length(left) => *left -= amount as u64,
            Rest::Chunked(decoder) => decoder.took(amount),
        }
    }

    /// Waits for more of the body, as long as its client keeps to the minimum rate.
    fn await_more(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let started = *self.started.get_or_insert(now);
        let io_timeout = self.connection.io_timeout();
        let earned = Duration::from_secs(self.received / MIN_BYTES_PER_S);
        let in_all = (io_timeout + earned).min(self.limits.time);
        self.connection.set_deadline((now + io_timeout).min(started + in_all));
        match self.connection.fill_waiting() {
            Ok(0) => Err(self.fail(StatusCode::BAD_REQUEST)),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Err(self.fail(StatusCode::REQUEST_TIMEOUT))
            }
            Err(error) => {
                self.failure = Some(StatusCode::BAD_REQUEST);
                Err(error)
            }
        }
    }

    fn fail(&mut self, status: StatusCode) -> io::Error {
        self.failure = Some(status);
        failed(status)
    }
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}
