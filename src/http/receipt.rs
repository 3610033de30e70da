//! How far a body has come. It knows its framing and its limits, not the connection that it comes over.

use std::time::{Duration, Instant};

use super::codec::{
    chunked::{Decoder, Malformed, Piece},
    framing::Framing,
};

/// Bytes of framing that do not count as a part of the body.
const FRAMING: u64 = 16 * 1024;
/// The slowest that a client may be on average (the idea is that of Apache's `RequestReadTimeout`).
const MIN_BYTES_PER_S: u64 = 16 * 1024;

/// What a body may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
}

/// How far a body has come.
#[derive(Debug)]
pub(crate) struct Receipt {
    rest: Rest,
    /// Bytes of data, and of the framing of chunks.
    received: u64,
    framing: u64,
    started: Option<Instant>,
}

#[derive(Debug)]
enum Rest {
    Length(u64),
    Chunked(Decoder),
}

impl Receipt {
    pub(crate) fn new(framing: Framing) -> Self {
        let rest = match framing {
            Framing::Empty => Rest::Length(0),
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunked(Decoder::new()),
        };
        Self { rest, received: 0, framing: 0, started: None }
    }

    /// Bytes of data that were taken.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Whether all of it was taken.
    pub(super) fn is_done(&self) -> bool {
        match &self.rest {
            Rest::Length(left) => *left == 0,
            Rest::Chunked(decoder) => decoder.is_done(),
        }
    }

    /// Goes through the framing up to the next data. What it gives as framing is behind it; data is only
    /// when [`took`](Self::took) says so.
    pub(super) fn advance(&mut self, input: &[u8]) -> Result<Piece, Malformed> {
        match &mut self.rest {
            Rest::Length(left) => {
                let there = input.len();
                Ok(Piece { framing: 0, data: usize::try_from(*left).map_or(there, |left| left.min(there)) })
            }
            Rest::Chunked(decoder) => {
                let piece = decoder.advance(input)?;
                self.framing += piece.framing as u64;
                Ok(piece)
            }
        }
    }

    /// Says that so much of the data was taken.
    pub(super) fn took(&mut self, amount: usize) {
        self.received += amount as u64;
        match &mut self.rest {
            Rest::Length(left) => *left -= amount as u64,
            Rest::Chunked(decoder) => decoder.took(amount),
        }
    }

    /// Whether it is larger than it may be. What is on the wire counts, but for what framing is usual, and
    /// so does what is announced. A length that was told beforehand was looked at then.
    pub(super) fn is_over(&self, limit: u64) -> bool {
        match &self.rest {
            Rest::Length(_) => false,
            Rest::Chunked(decoder) => {
                let wire = self.received + self.framing.saturating_sub(FRAMING);
                wire.saturating_add(decoder.announced()) > limit
            }
        }
    }

    /// When more must have come: its client may pause for `io_timeout`, and must keep to the minimum
    /// rate, from when it was first asked for more.
    pub(super) fn deadline(&mut self, now: Instant, io_timeout: Duration, time: Duration) -> Instant {
        let started = *self.started.get_or_insert(now);
        let earned = Duration::from_secs((self.received + self.framing) / MIN_BYTES_PER_S);
        let in_all = (io_timeout + earned).min(time);
        (now + io_timeout).min(started + in_all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all the data that there is, and says how much framing and data that was, of the whole input,
    /// and whether it was all of the body.
    fn take(receipt: &mut Receipt, mut input: &[u8]) -> Result<(usize, usize, bool), Malformed> {
        let (mut framing, mut data) = (0, 0);
        while !input.is_empty() && !receipt.is_done() {
            let piece = receipt.advance(input)?;
            receipt.took(piece.data);
            framing += piece.framing;
            data += piece.data;
            input = &input[piece.framing + piece.data..];
        }
        Ok((framing, data, receipt.is_done()))
    }

    #[test]
    fn a_body_comes_to_its_end_and_takes_nothing_of_what_follows() {
        use Framing::{Chunked, Empty, Length};
        // What comes, piece by piece, and what was taken of it.
        type Step = (&'static str, (usize, usize, bool));
        let cases: &[(Framing, &[Step])] = &[
            (Empty, &[("", (0, 0, true)), ("GET", (0, 0, true))]),
            (Length(5), &[("", (0, 0, false)), ("hel", (0, 3, false)), ("loGET", (0, 2, true))]),
            (Length(u64::MAX), &[("hello", (0, 5, false))]),
            (Chunked, &[("", (0, 0, false)), ("0\r\n\r\nGET", (5, 0, true)), ("GET", (0, 0, true))]),
            (
                Chunked,
                &[("5\r\nhel", (3, 3, false)), ("lo\r\n0\r\n", (5, 2, false)), ("\r\nG", (2, 0, true))],
            ),
        ];
        for (framing, steps) in cases {
            let mut receipt = Receipt::new(*framing);
            for (input, taken) in *steps {
                assert_eq!(take(&mut receipt, input.as_bytes()), Ok(*taken), "{framing:?} {input:?}");
            }
        }
        assert_eq!(take(&mut Receipt::new(Chunked), b"hello"), Err(Malformed));
    }

    #[test]
    fn a_chunk_is_too_large_when_it_is_announced_and_framing_when_it_is_unusual() {
        let over = |input: &[u8], limit| {
            let mut receipt = Receipt::new(Framing::Chunked);
            take(&mut receipt, input).unwrap();
            receipt.is_over(limit)
        };
        assert!(!over(b"a\r\n", 10));
        assert!(over(b"b\r\n", 10));
        assert!(!over(b"5\r\nhello\r\n5\r\n", 10));
        assert!(over(b"5\r\nhello\r\n6\r\n", 10));
        let chunk = [&b"1;"[..], &[b'x'; 1000], b"\r\n.\r\n"].concat();
        assert!(!over(&chunk.repeat(16), 16));
        assert!(over(&chunk.repeat(18), 18));
    }

    #[test]
    fn a_body_earns_time_by_what_has_come_of_it() {
        let seconds = Duration::from_secs;
        let (pause, time) = (seconds(10), seconds(60));
        let begin = Instant::now();
        // When it is asked, how much has come by then, and until when more must come.
        for (at, received, until) in
            [(0, 0, 10), (5, 0, 10), (5, 3 * MIN_BYTES_PER_S, 13), (5, 1 << 30, 15), (55, 1 << 30, 60)]
        {
            let mut receipt = Receipt { received, ..Receipt::new(Framing::Length(1 << 40)) };
            receipt.started = Some(begin);
            let deadline = receipt.deadline(begin + seconds(at), pause, time);
            assert_eq!(deadline, begin + seconds(until), "{at} {received}");
        }
    }
}
