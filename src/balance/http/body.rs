//! A body on its way through: taken as it comes, and framed anew as it goes. It knows neither the head before
//! it nor the connections, and keeps no bytes.
//!
//! Chunk extensions and trailers are checked and dropped.

use crate::http::codec::{
    chunked::{Decoder, Malformed},
    framing::Framing,
};

/// Less is copied: a pipe costs more.
const BULK: u64 = 256 * 1024;

/// What ends a body in chunks.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A body on its way through.
#[derive(Debug)]
pub(super) struct Passage {
    source: Source,
    /// It goes out in chunks, else as it is.
    chunks: bool,
}

/// How it comes.
#[derive(Debug)]
enum Source {
    /// So much is left.
    Length(u64),
    Chunked(Decoder),
    UntilClose {
        ended: bool,
    },
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// Bytes of the input that were taken.
    pub(super) consumed: usize,
    /// Those of them that are data.
    pub(super) data: usize,
    /// All has come and gone out; what follows is not of this body.
    pub(super) complete: bool,
}

impl Passage {
    /// How it comes, and how it goes out; none is until the connection ends.
    pub(super) fn new(comes: Option<Framing>, goes: Option<Framing>) -> Self {
        let source = match comes {
            Some(Framing::Empty) => Source::Length(0),
            Some(Framing::Length(length)) => Source::Length(length),
            Some(Framing::Chunked) => Source::Chunked(Decoder::new()),
            None => Source::UntilClose { ended: false },
        };
        // An empty one has no last chunk either.
        let chunks = goes == Some(Framing::Chunked) && comes != Some(Framing::Empty);
        Self { source, chunks }
    }

    /// Takes from the input, data up to so much, and appends it as it goes out: as one chunk, where it goes
    /// in chunks. Framing is taken as far as it has come.
    pub(super) fn step(&mut self, input: &[u8], out: &mut Vec<u8>, most: usize) -> Result<Step, Malformed> {
        if self.is_complete() {
            return Ok(Step { consumed: 0, data: 0, complete: true });
        }
        let chunk = self.chunks.then(|| Chunk::begin(out, input.len().min(most)));
        let taken = self.source.take(input, out, most);
        if let Some(chunk) = chunk {
            chunk.end(out);
        }
        let (consumed, data) = taken?;
        let complete = self.is_complete();
        if complete && self.chunks {
            out.extend_from_slice(LAST_CHUNK);
        }
        Ok(Step { consumed, data, complete })
    }

    /// Nothing more comes. Whether that was all of the body; else it was cut off, and must stay so.
    pub(super) fn end_of_input(&mut self, out: &mut Vec<u8>) -> bool {
        if let Source::UntilClose { ended: ended @ false } = &mut self.source {
            *ended = true;
            if self.chunks {
                out.extend_from_slice(LAST_CHUNK);
            }
        }
        self.is_complete()
    }

    /// Whether what is left is known, and little.
    pub(super) fn is_short(&self) -> bool {
        matches!(self.source, Source::Length(left) if left < BULK)
    }

    /// Whether all of it has come and gone out.
    pub(super) fn is_complete(&self) -> bool {
        match &self.source {
            Source::Length(left) => *left == 0,
            Source::Chunked(decoder) => decoder.is_done(),
            Source::UntilClose { ended } => *ended,
        }
    }

    /// So much of it is worth moving without a copy: it comes and goes as it is, and is long. It may go
    /// past this, see [`took`](Self::took).
    pub(super) fn bulk(&self) -> Option<u64> {
        self.left().filter(|&left| left >= BULK)
    }

    /// How much is left that comes and goes as it is, if that is known.
    fn left(&self) -> Option<u64> {
        match self.source {
            Source::Length(left) if !self.chunks => Some(left),
            _ => None,
        }
    }

    /// Says that so much of what is [`left`](Self::left) has gone past.
    pub(super) fn took(&mut self, amount: u64) {
        if let Source::Length(left) = &mut self.source {
            *left = left.saturating_sub(amount);
        }
    }
}

impl Source {
    /// Appends data. How much of the input was taken, and how much of that was data.
    fn take(&mut self, input: &[u8], out: &mut Vec<u8>, most: usize) -> Result<(usize, usize), Malformed> {
        let there = input.len().min(most);
        match self {
            Self::UntilClose { .. } => {
                out.extend_from_slice(&input[..there]);
                Ok((there, there))
            }
            Self::Length(left) => {
                let data = usize::try_from(*left).map_or(there, |left| left.min(there));
                out.extend_from_slice(&input[..data]);
                *left -= data as u64;
                Ok((data, data))
            }
            Self::Chunked(decoder) => decode(decoder, input, out, most),
        }
    }
}

fn decode(
    decoder: &mut Decoder,
    input: &[u8],
    out: &mut Vec<u8>,
    most: usize,
) -> Result<(usize, usize), Malformed> {
    let (mut consumed, mut taken) = (0, 0);
    loop {
        let piece = decoder.advance(&input[consumed..])?;
        consumed += piece.framing;
        let data = piece.data.min(most - taken);
        if data == 0 {
            return Ok((consumed, taken));
        }
        out.extend_from_slice(&input[consumed..consumed + data]);
        decoder.took(data);
        consumed += data;
        taken += data;
    }
}

/// A chunk that is being written: its size is known when it ends.
struct Chunk {
    begin: usize,
    digits: usize,
}

impl Chunk {
    /// Leaves room for a size of up to so much.
    fn begin(out: &mut Vec<u8>, most: usize) -> Self {
        let begin = out.len();
        let digits = (most.max(1).ilog2() / 4 + 1) as usize;
        out.resize(begin + digits, b'0');
        out.extend_from_slice(b"\r\n");
        Self { begin, digits }
    }

    /// Fills in the size; an empty chunk would be the last, and is taken back.
    fn end(self, out: &mut Vec<u8>) {
        let mut size = out.len() - self.begin - self.digits - 2;
        if size == 0 {
            return out.truncate(self.begin);
        }
        for digit in out[self.begin..self.begin + self.digits].iter_mut().rev() {
            *digit = b"0123456789abcdef"[size & 0xf];
            size >>= 4;
        }
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LENGTH: Option<Framing> = Some(Framing::Length(5));
    const CHUNKED: Option<Framing> = Some(Framing::Chunked);

    /// All that goes out for this input, cut into pieces of these lengths, over and over; how much of it was
    /// taken, and whether that was all of the body.
    fn pass(
        passage: &mut Passage,
        input: &[u8],
        pieces: &[usize],
        most: usize,
    ) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let mut out = Vec::new();
        let (mut consumed, mut there, mut data) = (0, 0, 0);
        let mut pieces = pieces.iter().cycle();
        while there < input.len() && !passage.is_complete() {
            there = input.len().min(there + pieces.next().copied().unwrap_or(usize::MAX).min(input.len()));
            loop {
                let step = passage.step(&input[consumed..there], &mut out, most)?;
                assert!(step.data <= most && step.data <= step.consumed);
                assert_eq!(step.complete, passage.is_complete());
                consumed += step.consumed;
                data += step.data;
                if step.consumed == 0 || step.complete {
                    break;
                }
            }
        }
        assert!(data <= consumed);
        Ok((out, consumed, passage.is_complete()))
    }

    #[test]
    fn a_body_goes_out_as_it_is_or_in_chunks_of_its_own() {
        for (comes, goes, input, out, consumed, complete) in [
            (Some(Framing::Empty), Some(Framing::Empty), "GET", "", 0, true),
            (LENGTH, LENGTH, "helloGET", "hello", 5, true),
            (LENGTH, LENGTH, "hel", "hel", 3, false),
            (LENGTH, CHUNKED, "helloGET", "5\r\nhello\r\n0\r\n\r\n", 5, true),
            (CHUNKED, CHUNKED, "5\r\nhello\r\n0\r\n\r\nGET", "05\r\nhello\r\n0\r\n\r\n", 15, true),
            (CHUNKED, CHUNKED, "2;x=\"y\"\r\nhe\r\n3\r\nllo\r\n", "05\r\nhello\r\n", 21, false),
            (CHUNKED, CHUNKED, "0\r\nA: b\r\n\r\n", "0\r\n\r\n", 11, true),
            (CHUNKED, CHUNKED, "5;x", "", 3, false),
            (CHUNKED, None, "5\r\nhello\r\n0\r\n\r\nGET", "hello", 15, true),
            (CHUNKED, LENGTH, "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "hello", 20, true),
            (None, CHUNKED, "hello", "5\r\nhello\r\n", 5, false),
            (None, None, "hello", "hello", 5, false),
        ] {
            let mut passage = Passage::new(comes, goes);
            let passed = pass(&mut passage, input.as_bytes(), &[], 1000);
            assert_eq!(passed, Ok((out.into(), consumed, complete)), "{comes:?} {goes:?} {input}");
        }
    }

    #[test]
    fn a_step_takes_data_up_to_a_bound_and_the_framing_behind_it() {
        let mut passage = Passage::new(CHUNKED, CHUNKED);
        let mut out = Vec::new();
        let mut step = |input: &str, most, out: &mut Vec<u8>| {
            out.clear();
            let step = passage.step(input.as_bytes(), out, most).unwrap();
            (step.consumed, step.data, step.complete, String::from_utf8(out.clone()).unwrap())
        };
        assert_eq!(step("5\r\nhello\r\n", 2, &mut out), (5, 2, false, "2\r\nhe\r\n".into()));
        assert_eq!(step("llo\r\n", 0, &mut out), (0, 0, false, String::new()));
        assert_eq!(step("llo\r\n0\r\n\r\nG", 3, &mut out), (10, 3, true, "3\r\nllo\r\n0\r\n\r\n".into()));
        assert_eq!(step("G", 3, &mut out), (0, 0, true, String::new()));
    }

    #[test]
    fn an_end_is_that_of_the_body_only_where_nothing_else_ends_it() {
        for (comes, goes, input, out, whole) in [
            (None, None, "hel", "hel", true),
            (None, CHUNKED, "hel", "3\r\nhel\r\n0\r\n\r\n", true),
            (None, CHUNKED, "", "0\r\n\r\n", true),
            (LENGTH, LENGTH, "hel", "hel", false),
            (LENGTH, LENGTH, "hello", "hello", true),
            (CHUNKED, CHUNKED, "5\r\nhello\r\n", "5\r\nhello\r\n", false),
            (CHUNKED, CHUNKED, "0\r\n\r\n", "0\r\n\r\n", true),
        ] {
            let mut passage = Passage::new(comes, goes);
            let (mut sent, ..) = pass(&mut passage, input.as_bytes(), &[], 1000).unwrap();
            assert_eq!(passage.end_of_input(&mut sent), whole, "{comes:?} {input}");
            assert_eq!(passage.end_of_input(&mut sent), whole);
            assert_eq!(String::from_utf8(sent).unwrap(), out, "{comes:?} {goes:?} {input}");
        }
    }

    #[test]
    fn what_is_left_of_a_known_length_may_go_past() {
        let mut passage = Passage::new(LENGTH, LENGTH);
        assert_eq!(pass(&mut passage, b"he", &[], 10).unwrap().1, 2);
        assert_eq!(passage.left(), Some(3));
        passage.took(3);
        assert!(passage.is_complete() && passage.left() == Some(0));
        for (comes, goes) in [(CHUNKED, CHUNKED), (CHUNKED, None), (None, CHUNKED), (None, None)] {
            assert_eq!(Passage::new(comes, goes).left(), None);
        }
    }

    #[test]
    fn chunks_that_could_be_read_differently_are_malformed() {
        for text in [
            "5\nhello\r\n",
            "5\r\nhello\n",
            " 5\r\n",
            "5 \r\n",
            "5\t;x\r\n",
            "+5\r\n",
            "-0\r\n",
            "0x5\r\n",
            "00000000000000005\r\n",
            "fffffffffffffffff\r\n",
            "5;a\rb\r\n",
            "5;a\nb\r\n",
            "5\r\nhellox\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\n A: b\r\n\r\n",
            "0\r\n\n",
        ] {
            for goes in [CHUNKED, None] {
                let passed = pass(&mut Passage::new(CHUNKED, goes), text.as_bytes(), &[], 1000);
                assert_eq!(passed, Err(Malformed), "{text:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_the_cuts_the_data_goes_through_and_what_follows_does_not(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..10),
            pieces in prop::collection::vec(1usize..30, 1..10),
            most in 1usize..50,
            chunked in any::<bool>(),
            into_chunks in any::<bool>(),
        ) {
            let data = chunks.concat();
            let mut text = Vec::new();
            for chunk in &chunks {
                text.extend(format!("{:x};a=b\r\n", chunk.len()).bytes());
                text.extend(chunk);
                text.extend(b"\r\n");
            }
            text.extend(b"0\r\nT: u\r\n\r\n");
            let (comes, mut text) = match (chunked, data.len() as u64) {
                (true, _) => (CHUNKED, text),
                (false, 0) => (Some(Framing::Empty), data.clone()),
                (false, length) => (Some(Framing::Length(length)), data.clone()),
            };
            let length = text.len();
            text.extend(b"rest");
            let goes = if into_chunks && comes != Some(Framing::Empty) { CHUNKED } else { None };
            let (out, consumed, complete) = pass(&mut Passage::new(comes, goes), &text, &pieces, most).unwrap();
            prop_assert!(complete);
            prop_assert_eq!(consumed, length);
            let back = if goes.is_some() {
                let (back, consumed, complete) =
                    pass(&mut Passage::new(CHUNKED, None), &out, &pieces, most).unwrap();
                prop_assert!(complete && consumed == out.len());
                back
            } else {
                out
            };
            prop_assert_eq!(back, data);
        }

        #[test]
        fn any_bytes_pass_or_are_malformed_however_they_are_cut(
            text in prop::collection::vec(prop::sample::select(b"05a;\r\n\r\n x:".to_vec()), 0..60),
            pieces in prop::collection::vec(1usize..9, 1..9),
        ) {
            let cut = pass(&mut Passage::new(CHUNKED, None), &text, &pieces, 7);
            prop_assert_eq!(cut, pass(&mut Passage::new(CHUNKED, None), &text, &[], 1000));
        }
    }
}
