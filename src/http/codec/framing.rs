//! How the end of a body is known, and whether the connection outlives it: what the fields of a head say
//! of that, by rules that hold for requests and responses alike. It does not know whose head it is, nor
//! what a peer is told whose head breaks them.

use super::fields::elements;

/// Options that a `Connection` may have without being odd: each of them is looked for among all fields.
const USUAL_OPTIONS: usize = 32;

/// How the end of a body is known (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Empty,
    Length(u64),
    Chunked,
}

impl Framing {
    /// The length of the body, where it is known beforehand.
    pub(crate) fn length(self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Length(length) => Some(length),
            Self::Chunked => None,
        }
    }
}

/// Why the end of a body cannot be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misframed {
    /// It is said in no way that is right, or in two.
    Malformed,
    /// The last coding is none that is known here.
    UnknownCoding,
}

/// What the fields say of the body's end and the connection's.
#[derive(Debug, Default)]
pub(super) struct FramingFields {
    length: Option<u64>,
    codings: Codings,
    /// The length was said more than once.
    repeated: bool,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    /// All options that `Connection` lists.
    options: usize,
}

/// The transfer codings of the body.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Codings {
    #[default]
    None,
    Chunked,
    /// Something that is not known here.
    Unknown,
}

impl FramingFields {
    /// Takes in a field, which may well be another.
    pub(super) fn add(&mut self, name: &str, value: &[u8]) -> Result<(), Misframed> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("content-length") {
            elements(value).try_for_each(|element| self.add_length(element))?;
        } else if is("transfer-encoding") {
            elements(value).try_for_each(|element| self.add_coding(element))?;
        } else if is("connection") {
            elements(value).for_each(|option| self.add_option(option));
        }
        Ok(())
    }

    fn add_option(&mut self, option: &[u8]) {
        let is = |known: &[u8]| option.eq_ignore_ascii_case(known);
        self.options += 1;
        self.close |= is(b"close");
        self.keep_alive |= is(b"keep-alive");
        self.upgrade |= is(b"upgrade");
    }

    /// All lengths must agree. One beyond any number is too large, whatever it is.
    fn add_length(&mut self, element: &[u8]) -> Result<(), Misframed> {
        if element.is_empty() || !element.iter().all(u8::is_ascii_digit) {
            return Err(Misframed::Malformed);
        }
        let digits = element.iter().map(|&digit| u64::from(digit - b'0'));
        let length = digits.fold(0u64, |length, digit| length.saturating_mul(10).saturating_add(digit));
        match self.length.replace(length) {
            Some(before) if before != length => Err(Misframed::Malformed),
            before => {
                self.repeated |= before.is_some();
                Ok(())
            }
        }
    }

    /// Others than chunked are not known here.
    fn add_coding(&mut self, element: &[u8]) -> Result<(), Misframed> {
        let chunked = element.eq_ignore_ascii_case(b"chunked");
        self.codings = match (self.codings, chunked) {
            _ if element.is_empty() => return Err(Misframed::Malformed),
            // Chunked is the last and there is but one.
            (Codings::Chunked, _) => return Err(Misframed::Malformed),
            (Codings::None, true) => Codings::Chunked,
            _ => Codings::Unknown,
        };
        Ok(())
    }

    /// The framing that they name; none where they name none (RFC 9112, section 6.3).
    pub(super) fn framing(&self, http_11: bool) -> Result<Option<Framing>, Misframed> {
        match (self.codings, self.length) {
            (Codings::None, None) => Ok(None),
            (Codings::None, Some(0)) => Ok(Some(Framing::Empty)),
            (Codings::None, Some(length)) => Ok(Some(Framing::Length(length))),
            // Neither both, nor a coding from a time that knew none.
            (_, Some(_)) => Err(Misframed::Malformed),
            _ if !http_11 => Err(Misframed::Malformed),
            (Codings::Chunked, None) => Ok(Some(Framing::Chunked)),
            (Codings::Unknown, None) => Err(Misframed::UnknownCoding),
        }
    }

    /// Whether the length is beyond any number.
    pub(super) fn is_overlong(&self) -> bool {
        self.length == Some(u64::MAX)
    }

    /// Whether nothing in them is odd, though it has one meaning here.
    pub(super) fn is_plain(&self) -> bool {
        !self.repeated && !self.is_overlong() && self.options <= USUAL_OPTIONS
    }

    /// Whether `Connection` asks for what `Upgrade` names.
    pub(super) fn asks_for_upgrade(&self) -> bool {
        self.upgrade
    }

    /// Whether another message may follow on the connection.
    pub(super) fn is_persistent(&self, http_11: bool) -> bool {
        !self.close && (http_11 || self.keep_alive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_length_or_one_coding_frames_a_body() {
        use Framing::{Chunked, Empty, Length};
        use Misframed::{Malformed, UnknownCoding};
        const L: &str = "Content-Length";
        const T: &str = "transfer-encoding";
        type Fields = &'static [(&'static str, &'static str)];
        let cases: &[(Fields, Result<Option<Framing>, Misframed>)] = &[
            (&[], Ok(None)),
            (&[("X", "1")], Ok(None)),
            (&[(L, "0")], Ok(Some(Empty))),
            (&[(L, "7")], Ok(Some(Length(7)))),
            (&[(L, "7, 7"), (L, "07")], Ok(Some(Length(7)))),
            (&[(L, "18446744073709551616")], Ok(Some(Length(u64::MAX)))),
            (&[(L, "7"), (L, "8")], Err(Malformed)),
            (&[(L, "7,")], Err(Malformed)),
            (&[(L, "+7")], Err(Malformed)),
            (&[(T, "Chunked")], Ok(Some(Chunked))),
            (&[(T, "gzip, chunked")], Err(UnknownCoding)),
            (&[(T, "chunked, chunked")], Err(Malformed)),
            (&[(T, "chunked"), (T, "gzip")], Err(Malformed)),
            (&[(T, "")], Err(Malformed)),
            (&[(T, "chunked"), (L, "7")], Err(Malformed)),
            (&[(T, "gzip"), (L, "0")], Err(Malformed)),
        ];
        for (fields, framing) in cases {
            let mut seen = FramingFields::default();
            let added = fields.iter().try_for_each(|(name, value)| seen.add(name, value.as_bytes()));
            assert_eq!(added.and_then(|()| seen.framing(true)), *framing, "{fields:?}");
        }
    }

    #[test]
    fn what_is_odd_is_told_from_what_is_plain() {
        const L: &str = "Content-Length";
        let many = "x,".repeat(USUAL_OPTIONS);
        let cases: &[(&[(&str, &str)], bool)] = &[
            (&[], true),
            (&[(L, "7"), ("Connection", "close, x")], true),
            (&[(L, "7, 7")], false),
            (&[(L, "7"), (L, "7")], false),
            (&[(L, "18446744073709551616")], false),
            (&[("Connection", &many[..many.len() - 1])], true),
            (&[("Connection", &many)], false),
        ];
        for (fields, plain) in cases {
            let mut seen = FramingFields::default();
            fields.iter().for_each(|(name, value)| seen.add(name, value.as_bytes()).unwrap());
            assert_eq!(seen.is_plain(), *plain, "{fields:?}");
        }
    }

    #[test]
    fn a_coding_is_for_http_11_alone() {
        let mut seen = FramingFields::default();
        seen.add("Transfer-Encoding", b"chunked").unwrap();
        assert_eq!(seen.framing(false), Err(Misframed::Malformed));
        assert_eq!(FramingFields::default().framing(false), Ok(None));
    }

    #[test]
    fn a_connection_is_kept_as_the_version_has_it_unless_it_is_said() {
        for (options, http_11, http_10) in [
            ("", true, false),
            ("close", false, false),
            ("x, Keep-Alive", true, true),
            ("keep-alive, close", false, false),
        ] {
            let mut seen = FramingFields::default();
            seen.add("Connection", options.as_bytes()).unwrap();
            assert_eq!(
                (seen.is_persistent(true), seen.is_persistent(false)),
                (http_11, http_10),
                "{options}"
            );
        }
    }
}
