//! A body as it comes: what has come is taken off the connection, and more is waited for, where a worker
//! may. It knows neither the request nor what is answered, but what a client is told whose body fails.

use std::{
    error::Error,
    fmt,
    io::{self, Write},
    mem,
    time::Instant,
};

use http::StatusCode;

use super::{
    gathered::Gathered,
    receipt::{BodyLimits, Receipt},
};
use crate::session::{connection::Connection, holds::Hold};

/// What tells a client that asked first to send its body (RFC 9110, section 10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What is gathered before others get their turn.
const PIECE: u64 = 1024 * 1024;

/// The body of a request that is under way.
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
        let until = self.receipt.received() + PIECE;
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
                    let now = Instant::now();
                    let deadline = self.deadline(now);
                    if now >= deadline {
                        return Err(self.fail(StatusCode::REQUEST_TIMEOUT));
                    }
                    return Ok(Gathering::Until(deadline));
                }
            }
            if self.receipt.received() >= until {
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

    /// Reads what has been gathered, and then what comes; it waits for that.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(status) = self.failure {
            return Err(failed(status));
        }
        if buffer.is_empty() {
            return Ok(0);
        }
        let kept = self.gathered.as_mut().map_or(0, |gathered| gathered.read(buffer));
        if kept > 0 {
            return Ok(kept);
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
        let Ok(piece) = self.receipt.advance(self.connection.input()) else {
            return Err(self.fail(StatusCode::BAD_REQUEST));
        };
        self.connection.consume(piece.framing);
        if self.receipt.is_over(self.limits.bytes) {
            return Err(self.fail(StatusCode::PAYLOAD_TOO_LARGE));
        }
        if self.receipt.is_done() {
            self.hold = None;
            return Ok(Some(0));
        }
        Ok(Some(piece.data).filter(|&data| data > 0))
    }

    fn take(&mut self, amount: usize) {
        self.connection.consume(amount);
        self.receipt.took(amount);
        if self.receipt.is_done() {
            // All has come: the worker waits no more.
            self.hold = None;
        }
    }

    /// When more must have come, as of now.
    fn deadline(&mut self, now: Instant) -> Instant {
        self.receipt.deadline(now, self.connection.context().timeouts.io.get(), self.limits.time)
    }

    /// Waits for more of the body.
    fn await_more(&mut self) -> io::Result<()> {
        if mem::take(&mut self.expects_continue) {
            self.connection.write_all(CONTINUE)?;
        }
        let deadline = self.deadline(Instant::now());
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

fn failed(status: StatusCode) -> io::Error {
    let kind = match status {
        StatusCode::REQUEST_TIMEOUT => io::ErrorKind::TimedOut,
        StatusCode::PAYLOAD_TOO_LARGE => io::ErrorKind::FileTooLarge,
        _ => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, BodyFailed(status))
}

/// Why no more of a body can be read: its client is told so already.
#[derive(Debug)]
struct BodyFailed(StatusCode);

impl fmt::Display for BodyFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the body of the request failed: {}", self.0)
    }
}

impl Error for BodyFailed {}

/// Whether this is why no more of a request's body can be read.
pub(crate) fn is_of_body(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<BodyFailed>())
}
