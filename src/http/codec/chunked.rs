//! The chunked transfer coding (RFC 9112, section 7.1), decoded piece by piece and strictly: lines
//! end in CRLF, and nothing that could be read differently is let through. It keeps no
//! data and does not know where it comes from.

/// The most that one line of the framing may have, with its chunk extensions.
const LINE_LIMIT: usize = 1024;
/// The most that all trailers together may have.
const TRAILERS_LIMIT: usize = 8 * 1024;

/// Where in a body it is.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    state: State,
    /// Bytes of the line, or of the trailers, so far.
    line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the size, of which so many digits have come.
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
    },
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataReturn,
    DataEnd,
    /// At the beginning of a line of the trailers.
    Trailer,
    TrailerName,
    TrailerLine,
    TrailerLineEnd,
    LastEnd,
    Done,
}

/// What lies at the beginning of the input: so many bytes of framing, and then so many of data.
/// Neither means that more input is needed, or that all has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) framing: usize,
    pub(crate) data: usize,
}

/// It is no chunked body, or could be read as another.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { state: State::Size { size: 0, digits: 0 }, line: 0 }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// What has been announced and not yet taken.
    pub(crate) fn announced(&self) -> u64 {
        match self.state {
            State::Size { size, .. } | State::Extension { size } | State::SizeEnd { size } => size,
            State::Data { left } => left,
            _ => 0,
        }
    }

    /// Goes through the framing up to the next data. What it gives as framing is behind it; data
    /// is only when [`took`](Self::took) says so.
    pub(crate) fn advance(&mut self, input: &[u8]) -> Result<Piece, Malformed> {
        for (framing, &byte) in input.iter().enumerate() {
            match self.state {
                State::Done => return Ok(Piece { framing, data: 0 }),
                State::Data { left } => {
                    let there = input.len() - framing;
                    return Ok(Piece {
                        framing,
                        data: usize::try_from(left).map_or(there, |left| left.min(there)),
                    });
                }
                _ => self.state = self.step(byte)?,
            }
        }
        Ok(Piece { framing: input.len(), data: 0 })
    }

    /// Says that so much of the data was taken.
    pub(crate) fn took(&mut self, data: usize) {
        if let State::Data { left } = self.state {
            let left = left - data as u64;
            self.state = if left == 0 { State::DataReturn } else { State::Data { left } };
        }
    }

    fn step(&mut self, byte: u8) -> Result<State, Malformed> {
        self.line += 1;
        let next = match (self.state, byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() && digits < 16 => {
                let digit = u64::from((byte as char).to_digit(16).unwrap_or_default());
                State::Size { size: size << 4 | digit, digits: digits + 1 }
            }
            (State::Size { size, digits: 1.. }, b'\r') => State::SizeEnd { size },
            (State::Size { size, digits: 1.. }, b';') => State::Extension { size },
            (State::Extension { size }, b'\r') => State::SizeEnd { size },
            (State::Extension { .. }, _) if is_text(byte) => self.state,
            (State::SizeEnd { size: 0 }, b'\n') => {
                self.line = 0;
                State::Trailer
            }
            (State::SizeEnd { size }, b'\n') => State::Data { left: size },
            (State::DataReturn, b'\r') => State::DataEnd,
            (State::DataEnd, b'\n') => {
                self.line = 0;
                State::Size { size: 0, digits: 0 }
            }
            (State::Trailer, b'\r') => State::LastEnd,
            (State::Trailer | State::TrailerName, _) if is_token(byte) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerLine,
            (State::TrailerLine, _) if is_text(byte) => State::TrailerLine,
            (State::TrailerLine, b'\r') => State::TrailerLineEnd,
            (State::TrailerLineEnd, b'\n') => State::Trailer,
            (State::LastEnd, b'\n') => State::Done,
            _ => return Err(Malformed),
        };
        if self.line > next.line_limit() { Err(Malformed) } else { Ok(next) }
    }
}

impl State {
    /// The most that its line may have, or all the trailers.
    fn line_limit(self) -> usize {
        match self {
            Self::Trailer
            | Self::TrailerName
            | Self::TrailerLine
            | Self::TrailerLineEnd
            | Self::LastEnd
            | Self::Done => TRAILERS_LIMIT,
            _ => LINE_LIMIT,
        }
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes what comes in pieces of these lengths, over and over: the data and what is left.
    fn decode(mut input: &[u8], pieces: &[usize]) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let mut decoder = Decoder::new();
        let mut data = Vec::new();
        let mut pieces = pieces.iter().cycle();
        while !input.is_empty() && !decoder.is_done() {
            let mut piece = &input[..*pieces.next().unwrap_or(&usize::MAX).min(&input.len())];
            while !piece.is_empty() && !decoder.is_done() {
                let found = decoder.advance(piece)?;
                decoder.took(found.data);
                data.extend_from_slice(&piece[found.framing..found.framing + found.data]);
                piece = &piece[found.framing + found.data..];
                input = &input[found.framing + found.data..];
            }
        }
        Ok((data, input.len(), decoder.is_done()))
    }

    #[test]
    fn chunks_extensions_and_trailers_are_taken_and_what_follows_is_not() {
        let whole = |text: &str| decode(text.as_bytes(), &[]).unwrap();
        assert_eq!(whole("0\r\n\r\n"), (vec![], 0, true));
        assert_eq!(whole("5\r\nhello\r\n00\r\n\r\nGET"), (b"hello".to_vec(), 3, true));
        assert_eq!(whole("a;x=\"y\"\r\n0123456789\r\n0\r\nA: b\r\nC: d\r\n\r\n").0, b"0123456789");
        assert_eq!(whole("5\r\nhel"), (b"hel".to_vec(), 0, false));
    }

    #[test]
    fn what_could_be_read_differently_is_malformed() {
        for text in [
            "\r\n",
            ";x\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x5\r\nhello\r\n",
            "5\nhello\r\n",
            "5 \r\nhello\r\n",
            " 5\r\nhello\r\n",
            "5\rhello",
            "5;a\rb\r\n",
            "5;a\nb\r\n",
            "5\r\nhello5\r\n",
            "5\r\nhello\n0\r\n",
            "5\r\nhello\r0\r\n",
            "10000000000000000\r\n",
            "00000000000000005\r\n",
            "0\r\n folded\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\nA\r\n\r\n",
            "0\r\nGET / HTTP/1.1\r\n\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\n\n",
        ] {
            assert_eq!(decode(text.as_bytes(), &[]), Err(Malformed), "{text:?}");
        }
    }

    #[test]
    fn lines_and_trailers_are_bounded() {
        let extension = |length| format!("0;{}\r\n\r\n", "x".repeat(length));
        assert!(decode(extension(LINE_LIMIT - 10).as_bytes(), &[]).unwrap().2);
        assert_eq!(decode(extension(LINE_LIMIT).as_bytes(), &[]), Err(Malformed));
        let trailers = |count| format!("0\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert!(decode(trailers(TRAILERS_LIMIT / 6 - 10).as_bytes(), &[]).unwrap().2);
        assert_eq!(decode(trailers(TRAILERS_LIMIT / 6 + 10).as_bytes(), &[]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..10),
            pieces in prop::collection::vec(1usize..20, 1..10),
        ) {
            let mut text = Vec::new();
            for chunk in &chunks {
                text.extend(format!("{:x}\r\n", chunk.len()).bytes());
                text.extend(chunk);
                text.extend(b"\r\n");
            }
            text.extend(b"0\r\n\r\nrest");
            prop_assert_eq!(decode(&text, &pieces).unwrap(), (chunks.concat(), 4, true));
        }

        #[test]
        fn any_bytes_are_decoded_or_malformed_however_they_are_cut(
            text in prop::collection::vec(prop::sample::select(b"05a;\r\n\r\n x:".to_vec()), 0..60),
            pieces in prop::collection::vec(1usize..9, 1..9),
        ) {
            prop_assert_eq!(decode(&text, &pieces), decode(&text, &[]));
        }
    }
}
