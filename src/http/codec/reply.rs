//! The head of a reply: parsed by `httparse`, and then held to what RFC 9112 asks, as strictly as that of a
//! request. It knows the method that it replies to, and nothing of the body that follows.

use std::{mem::MaybeUninit, time::Duration};

use http::{Method, StatusCode};

use super::{
    fields::{self, Field, elements},
    framing::{Framing, FramingFields},
};

/// What the head of a reply says. Its other fields are in its text, see [`read`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplyHead {
    pub(crate) status: StatusCode,
    /// HTTP/1.1, else 1.0.
    pub(crate) http_11: bool,
    /// How the end of what follows is known; none where it ends with the connection.
    pub(crate) framing: Option<Framing>,
    /// The length that its fields name, though it may be that of a body that does not follow.
    pub(crate) named_length: Option<u64>,
    /// It replies to HEAD.
    pub(crate) to_head: bool,
    /// The upstream would take another request on this connection.
    pub(crate) persistent: bool,
    /// For how long it would wait for that, where it says so.
    pub(crate) keep_alive_timeout: Option<Duration>,
    /// It says when to come again.
    pub(crate) retry_after: bool,
    /// It goes on with another protocol.
    pub(crate) upgrade: bool,
    /// Bytes of the input that it takes.
    pub(crate) length: usize,
}

/// It is no head of a reply, or could be read as another.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The head at the beginning of the input; none if it is not whole yet. How long it may become is for
/// others to say.
///
/// # Errors
///
/// It will never be a head that can be passed on.
pub(crate) fn parse(input: &[u8], to: &Method) -> Result<Option<ReplyHead>, Malformed> {
    // Nothing belongs between a reply and the next, though the parser would pass over it.
    if input.first().is_some_and(|first| *first != b'H') {
        return Err(Malformed);
    }
    let mut headers = [const { MaybeUninit::uninit() }; fields::MOST];
    let mut reply = httparse::Response::new(&mut []);
    // With its defaults it takes no folded line, no blank before a colon, and neither NUL nor a bare CR.
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut reply, input, &mut headers) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Malformed),
    };
    if !fields::end_in_crlf(&input[..length], reply.headers) {
        return Err(Malformed);
    }
    let status = StatusCode::from_u16(reply.code.unwrap_or_default()).map_err(|_| Malformed)?;
    let mut meaning = Meaning::default();
    for field in &*reply.headers {
        meaning.add(field)?;
    }
    let http_11 = reply.version == Some(1);
    let to_head = *to == Method::HEAD;
    let named = meaning.framing(http_11)?;
    let framing = if to_head || is_bodiless(status) { Some(Framing::Empty) } else { named };
    Ok(Some(ReplyHead {
        status,
        http_11,
        framing,
        named_length: named.and_then(Framing::length),
        to_head,
        persistent: meaning.framing.is_persistent(http_11) && is_over(status, to_head, named)?,
        keep_alive_timeout: meaning.keep_alive_timeout,
        retry_after: meaning.retry_after,
        upgrade: status == StatusCode::SWITCHING_PROTOCOLS
            && http_11
            && meaning.upgrade
            && meaning.framing.asks_for_upgrade(),
        length,
    }))
}

/// Looks once more at a head that was parsed before: its reason and its fields. None where it was not.
pub(crate) fn read<T>(head: &[u8], look: impl FnOnce(&str, &[Field<'_>]) -> T) -> Option<T> {
    let mut headers = [const { MaybeUninit::uninit() }; fields::MOST];
    let mut reply = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    config.parse_response_with_uninit_headers(&mut reply, head, &mut headers).ok()?;
    Some(look(reply.reason?, reply.headers))
}

/// Whether its status says that no body follows (RFC 9112, section 6.3; RFC 9110, section 15.3.6).
pub(crate) fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Whether it is certain where the reply ends, so that another may follow. One whose status forbids a body
/// that its fields name may have one all the same.
fn is_over(status: StatusCode, to_head: bool, named: Option<Framing>) -> Result<bool, Malformed> {
    let names_body = named.is_some_and(|named| named != Framing::Empty);
    match status {
        // What followed would be taken for the reply itself.
        _ if status.is_informational() && names_body => Err(Malformed),
        _ if to_head || status.is_informational() || status == StatusCode::NOT_MODIFIED => Ok(true),
        StatusCode::NO_CONTENT => Ok(!names_body),
        StatusCode::RESET_CONTENT => Ok(named == Some(Framing::Empty)),
        _ => Ok(named.is_some()),
    }
}

/// What the fields say that means something here.
#[derive(Debug, Default)]
struct Meaning {
    framing: FramingFields,
    keep_alive_timeout: Option<Duration>,
    retry_after: bool,
    /// Another protocol is named.
    upgrade: bool,
}

impl Meaning {
    fn add(&mut self, field: &Field<'_>) -> Result<(), Malformed> {
        let is = |known: &str| field.name.eq_ignore_ascii_case(known);
        if is("keep-alive") {
            self.keep_alive_timeout = elements(field.value).find_map(timeout).or(self.keep_alive_timeout);
        } else if is("retry-after") {
            self.retry_after = true;
        } else if is("upgrade") {
            self.upgrade |= elements(field.value).any(|protocol| !protocol.is_empty());
        } else {
            self.framing.add(field.name, field.value).map_err(|_| Malformed)?;
        }
        Ok(())
    }

    /// Codings that are not known here cannot be passed on, nor a length that cannot be counted.
    fn framing(&self, http_11: bool) -> Result<Option<Framing>, Malformed> {
        if self.framing.is_overlong() {
            return Err(Malformed);
        }
        self.framing.framing(http_11).map_err(|_| Malformed)
    }
}

/// The seconds of `timeout=5`.
fn timeout(parameter: &[u8]) -> Option<Duration> {
    let (name, value) = std::str::from_utf8(parameter).ok()?.split_once('=')?;
    let seconds = value.trim_matches([' ', '\t', '"']).parse::<u32>().ok()?;
    name.trim_end().eq_ignore_ascii_case("timeout").then(|| Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str, to: &Method) -> Result<Option<ReplyHead>, Malformed> {
        parse(text.as_bytes(), to)
    }

    /// One with these lines of fields.
    fn reply(first: &str, fields: &str) -> ReplyHead {
        parsed(&format!("{first}\r\n{fields}\r\n"), &Method::GET).unwrap().unwrap()
    }

    #[test]
    fn the_end_of_a_body_is_known_from_the_status_and_one_field() {
        use Framing::{Chunked, Empty, Length};
        const L: &str = "Content-Length: 5\r\n";
        const T: &str = "transfer-encoding: Chunked\r\n";
        // The status, its fields, what follows, and whether another reply may.
        for (first, fields, framing, persistent) in [
            ("HTTP/1.1 200 OK", L, Some(Length(5)), true),
            ("HTTP/1.1 200", L, Some(Length(5)), true),
            ("HTTP/1.1 299 ", "Content-Length: 0\r\n", Some(Empty), true),
            ("HTTP/1.1 999 x\u{e9}", T, Some(Chunked), true),
            ("HTTP/1.1 200 OK", "", None, false),
            ("HTTP/1.0 200 OK", "Connection: keep-alive\r\n", None, false),
            ("HTTP/1.0 200 OK", L, Some(Length(5)), false),
            ("HTTP/1.0 200 OK", "Connection: x, Keep-Alive\r\nContent-Length: 5\r\n", Some(Length(5)), true),
            ("HTTP/1.1 200 OK", "Connection: x, Close\r\nContent-Length: 5\r\n", Some(Length(5)), false),
            ("HTTP/1.1 200 OK", "Content-Length: 5, 5\r\nContent-Length: 5 \r\n", Some(Length(5)), true),
            ("HTTP/1.1 100 Continue", "", Some(Empty), true),
            ("HTTP/1.1 204 No Content", "", Some(Empty), true),
            ("HTTP/1.1 204 No Content", "Content-Length: 0\r\n", Some(Empty), true),
            ("HTTP/1.1 204 No Content", L, Some(Empty), false),
            ("HTTP/1.1 204 No Content", T, Some(Empty), false),
            ("HTTP/1.1 205 Reset Content", "Content-Length: 0\r\n", Some(Empty), true),
            ("HTTP/1.1 205 Reset Content", "", Some(Empty), false),
            ("HTTP/1.1 205 Reset Content", L, Some(Empty), false),
            ("HTTP/1.1 205 Reset Content", T, Some(Empty), false),
            ("HTTP/1.1 304 Not Modified", L, Some(Empty), true),
            ("HTTP/1.1 304 Not Modified", T, Some(Empty), true),
        ] {
            let head = reply(first, fields);
            assert_eq!((head.framing, head.persistent), (framing, persistent), "{first} {fields}");
        }
        let head = parsed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", &Method::HEAD).unwrap().unwrap();
        assert_eq!((head.framing, head.named_length, head.persistent), (Some(Empty), Some(5), true));
        let head = parsed("HTTP/1.1 200 OK\r\n\r\n", &Method::HEAD).unwrap().unwrap();
        assert_eq!((head.framing, head.named_length, head.persistent), (Some(Empty), None, true));
    }

    #[test]
    fn other_fields_are_understood() {
        let seconds = |count| Some(Duration::from_secs(count));
        for (value, timeout) in [
            ("timeout=5, max=100", seconds(5)),
            ("max=1,Timeout = \"7\"", seconds(7)),
            ("timeout=-1", None),
            ("timeout=99999999999", None),
            ("timeout", None),
            ("", None),
        ] {
            let head = reply("HTTP/1.1 200 OK", &format!("Keep-Alive: {value}\r\n"));
            assert_eq!(head.keep_alive_timeout, timeout, "{value}");
        }
        assert!(reply("HTTP/1.1 503 Busy", "Retry-After: 1\r\n").retry_after);
        assert!(!reply("HTTP/1.1 503 Busy", "").retry_after);
        let both = "Upgrade: websocket\r\nConnection: x, Upgrade\r\n";
        for (first, fields, upgrade) in [
            ("HTTP/1.1 101 Switching Protocols", both, true),
            ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket\r\n", false),
            ("HTTP/1.1 101 Switching Protocols", "Connection: upgrade\r\n", false),
            ("HTTP/1.0 101 Switching Protocols", both, false),
            ("HTTP/1.1 200 OK", both, false),
        ] {
            assert_eq!(reply(first, fields).upgrade, upgrade, "{first} {fields}");
        }
    }

    #[test]
    fn what_could_be_read_differently_is_malformed() {
        for text in [
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "\nHTTP/1.1 200 OK\r\n\r\n",
            " HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.2 200 OK\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "http/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 +20 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/1.1\t200 OK\r\n\r\n",
            "HTTP/1.1 200 O\0K\r\n\r\n",
            "HTTP/1.1 200 OK\n\r\n",
            "HTTP/1.1 200 OK\r\n\n",
            "HTTP/1.1 200\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\n\r\n",
            "HTTP/1.1 200 OK\nA: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n\n",
            "HTTP/1.1 200 OK\r\nA:\n\r\n",
            "HTTP/1.1 200 OK\rA: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n\tc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA:\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA\t: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA B: c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA\0: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\u{7f}\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 204 No\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5,\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(parsed(text, &Method::GET), Err(Malformed), "{text:?}");
        }
        let fields = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert!(parsed(&fields(fields::MOST), &Method::GET).is_ok());
        assert_eq!(parsed(&fields(fields::MOST + 1), &Method::GET), Err(Malformed));
    }

    proptest! {
        /// Whatever comes, a part of it is no head, or the very one that the whole has.
        #[test]
        fn any_cut_gives_one_reading(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "HTTP/1.1 200 OK\r\n", "HTTP/1.0 304 \r\n", "Content-Length: 2\r\n", "Content-Length: 3\r\n",
                "Transfer-Encoding: chunked\r\n", "A: b\r\n", "\r\n", "\n", "\r", " ", "\0", ":", "x", "205",
            ]), 0..12),
            whole in any::<bool>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let text = if whole { "HTTP/1.1 200 OK\r\n" } else { "" }.to_owned() + &pieces.concat();
            let part = &text[..cut.index(text.len() + 1)];
            match (parsed(part, &Method::GET), parsed(&text, &Method::GET)) {
                (Ok(Some(part)), whole) => prop_assert_eq!(Ok(Some(part)), whole),
                (Err(Malformed), whole) => prop_assert_eq!(Err(Malformed), whole),
                (Ok(None), _) => {}
            }
        }
    }
}
