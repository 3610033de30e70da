//! A body on its way through: taken as it comes, and framed anew as it goes. It knows neither the head before
//! it nor the connections, and keeps no bytes.
//!
//! Chunk extensions and trailers are checked and dropped.

use crate::http::codec::{
    chunked::{Decoder, Malformed},
    framing::Framing,
};

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

    /// Whether all of it has come and gone out.
    pub(super) fn is_complete(&self) -> bool {
        match &self.source {
            Source::Length(left) => *left == 0,
            Source::Chunked(decoder) => decoder.is_done(),
            Source::UntilClose { ended } => *ended,
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
