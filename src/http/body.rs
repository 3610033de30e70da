use std::{
    cell::{RefCell, RefMut},
    fmt,
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::StatusCode;

use super::codec::{chunked::Decoder, framing::Framing};
use crate::server::{Connection, Hold};

/// The body of a request, read as it comes: `&Body` is a [`Read`].
///
/// A body that fits into the input buffer (16 KiB, together with its head) has come already when
/// the handler is called, and of a larger one as much as fits. For its rest the worker waits, while no
/// more than half of them do; the others' connections wait parked, and with one worker such a body is
/// gathered in memory first, out of 64 MiB for all. Its client must keep up 16 KiB per second on average, never pause for `io_timeout`, and be done
/// within [`Http::body_timeout`](super::Http::body_timeout). One that is not gets 408, one that
/// breaks off or is malformed 400, one that grows too large 413. Reading gives an error then, the
/// client's answer is decided whatever the handler answers, and the connection is closed.
pub struct Body<'a>(RefCell<Incoming<'a>>);

/// Bytes of framing that do not count as a part of the body.
const FRAMING: u64 = 16 * 1024;
/// The slowest that a client may be on average (the idea is that of Apache's `RequestReadTimeout`).
const MIN_BYTES_PER_S: u64 = 16 * 1024;

pub(super) struct Incoming<'a> {
    connection: Connection<'a>,
    receipt: Receipt,
    limits: BodyLimits,
    /// What has been gathered of it.
    gathered: Option<Gathered>,
    /// Leave to wait for the rest.
    hold: Option<Hold>,
    /// The client waits to be told that it may send it.
    expects_continue: bool,
    /// What its client is to be told, whatever the handler answers.
    failure: Option<StatusCode>,
}

/// How far a body has come.
#[derive(Debug)]
pub(super) struct Receipt {
    rest: Rest,
    /// Bytes of data, and of the framing of chunks.
    received: u64,
    framing: u64,
    started: Option<Instant>,
}

impl Receipt {
    pub(super) fn new(framing: Framing) -> Self {
        let rest = match framing {
            Framing::Empty => Rest::Length(0),
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunked(Decoder::new()),
        };
        Self { rest, received: 0, framing: 0, started: None }
    }
}

/// A body that is kept in memory while its connection is parked, out of what all may have together.
#[derive(Debug)]
pub(super) struct Gathered {
    bytes: Vec<u8>,
    /// How much of it was read.
    read: usize,
    /// What it takes, or is going to take, of what all may have.
    reserved: usize,
    in_all: Arc<AtomicUsize>,
}

/// What tells a client that asked first to send its body (RFC 9110, section 10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// That much.
const GATHERED: usize = 64 * 1024 * 1024;

impl Gathered {
    /// Whether a body of this length may be gathered at all.
    pub(super) fn may_hold(length: u64) -> bool {
        length <= GATHERED as u64
    }

    /// With room for a body of this length, where it is known; none where there is no room.
    pub(super) fn new(in_all: &Arc<AtomicUsize>, length: Option<u64>) -> Option<Self> {
        let mut new = Self { bytes: Vec::new(), read: 0, reserved: 0, in_all: Arc::clone(in_all) };
        let length = usize::try_from(length.unwrap_or(0)).unwrap_or(usize::MAX);
        new.reserve(length).then_some(new)
    }

    fn reserve(&mut self, length: usize) -> bool {
        if length > GATHERED.saturating_sub(self.in_all.fetch_add(length, Relaxed)) {
            self.in_all.fetch_sub(length, Relaxed);
            return false;
        }
        self.reserved += length;
        true
    }

    /// Whether there was room.
    fn add(&mut self, bytes: &[u8]) -> bool {
        let more = (self.bytes.len() + bytes.len()).saturating_sub(self.reserved);
        if more > 0 && !self.reserve(more) {
            return false;
        }
        self.bytes.extend_from_slice(bytes);
        true
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.in_all.fetch_sub(self.reserved, Relaxed);
    }
}

/// What came of gathering.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Gathering {
    Whole,
    /// More is there, but others have waited.
    Pause,
    /// More has to come within this time.
    Until(Instant),
    /// There is no room for it.
    NoRoom,
}

/// What is gathered before others get their turn.
const PIECE: u64 = 1024 * 1024;

/// What a body may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    pub(super) bytes: u64,
    pub(super) time: Duration,
}

#[derive(Debug)]
enum Rest {
    Length(u64),
    Chunked(Decoder),
}

impl<'a> Body<'a> {
    pub(super) fn new(incoming: Incoming<'a>) -> Self {
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

impl<'a> Incoming<'a> {
    /// With what has been gathered, and leave to wait for the rest, if that may be necessary.
    pub(super) fn new(
        connection: Connection<'a>,
        receipt: Receipt,
        limits: BodyLimits,
        gathered: Option<Gathered>,
        hold: Option<Hold>,
    ) -> Self {
        Self { connection, receipt, limits, gathered, hold, expects_continue: false, failure: None }
    }

    /// The first time that more of it is needed, the client is told to send it.
    pub(super) fn expect_continue(mut self, expects: bool) -> Self {
        self.expects_continue = expects;
        self
    }

    /// Gathers what is there, without waiting.
    pub(super) fn gather(&mut self) -> io::Result<Gathering> {
        let until = self.receipt.received + PIECE;
        loop {
            match self.available()? {
                Some(0) => return Ok(Gathering::Whole),
                Some(amount) => {
                    let piece = &self.connection.input()[..amount];
                    if !self.gathered.as_mut().is_some_and(|gathered| gathered.add(piece)) {
                        return Ok(Gathering::NoRoom);
                    }
                    self.take(amount);
                }
                None if self.connection.fill()? > 0 => {}
                None if self.connection.ended() => return Err(self.fail(StatusCode::BAD_REQUEST)),
                None => {
                    let (now, deadline) = (Instant::now(), self.deadline());
                    if now >= deadline {
                        return Err(self.fail(StatusCode::REQUEST_TIMEOUT));
                    }
                    return Ok(Gathering::Until(deadline));
                }
            }
            if self.receipt.received >= until {
                return Ok(Gathering::Pause);
            }
        }
    }

    /// What is kept while the connection is parked.
    pub(super) fn into_parts(self) -> (Receipt, Option<Gathered>) {
        (self.receipt, self.gathered)
    }

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
        if let Some(gathered) = &mut self.gathered
            && let left = &gathered.bytes[gathered.read..]
            && !left.is_empty()
        {
            let amount = buffer.len().min(left.len());
            buffer[..amount].copy_from_slice(&left[..amount]);
            gathered.read += amount;
            return Ok(amount);
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
        let data = match &mut self.receipt.rest {
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
                // What is on the wire counts, but for what framing is usual, and so does what is announced.
                self.receipt.framing += piece.framing as u64;
                let wire = self.receipt.received + self.receipt.framing.saturating_sub(FRAMING);
                if wire.saturating_add(decoder.announced()) > self.limits.bytes {
                    return Err(self.fail(StatusCode::PAYLOAD_TOO_LARGE));
                }
                if decoder.is_done() {
                    self.hold = None;
                    return Ok(Some(0));
                }
                piece.data
            }
        };
        Ok(Some(data).filter(|&data| data > 0))
    }

    fn take(&mut self, amount: usize) {
        self.connection.consume(amount);
        self.receipt.received += amount as u64;
        match &mut self.receipt.rest {
            Rest::Length(left) => {
                *left -= amount as u64;
                if *left == 0 {
                    // All has come: the worker waits no more.
                    self.hold = None;
                }
            }
            Rest::Chunked(decoder) => decoder.took(amount),
        }
    }

    /// When more must have come: its client may pause for `io_timeout`, and must keep to the minimum
    /// rate.
    fn deadline(&mut self) -> Instant {
        let now = Instant::now();
        let started = *self.receipt.started.get_or_insert(now);
        let io_timeout = self.connection.io_timeout();
        let earned = Duration::from_secs((self.receipt.received + self.receipt.framing) / MIN_BYTES_PER_S);
        let in_all = (io_timeout + earned).min(self.limits.time);
        (now + io_timeout).min(started + in_all)
    }

    /// Waits for more of the body.
    fn await_more(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.expects_continue) {
            io::Write::write_all(&mut self.connection, CONTINUE)?;
        }
        let deadline = self.deadline();
        self.connection.set_deadline(deadline);
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
