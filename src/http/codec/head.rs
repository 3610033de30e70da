//! The head of a request: parsed by `httparse`, and then held to what RFC 9112 asks beyond syntax.
//!
//! What two parties could read differently is refused and never guessed at, since that is how
//! requests are smuggled past a proxy. It does not know what has come of the body.

use std::mem::MaybeUninit;

use http::{HeaderMap, Method, StatusCode, Uri};

use super::{
    fields::{self, Field, elements, lists},
    framing::{Framing, FramingFields, Misframed},
    target,
};

/// Bytes that a target may have.
const TARGET_LIMIT: usize = 8 * 1024;

/// What the head of a request says. Its other fields are in its text, see [`header_map`].
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    /// HTTP/1.1, else 1.0.
    pub(crate) http_11: bool,
    pub(crate) framing: Framing,
    /// The client would send another request on this connection.
    pub(crate) persistent: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
    /// The client would go on with what `Upgrade` names.
    pub(crate) upgrade: bool,
    /// Nothing in it had to be forgiven: all its lines end in CRLF, its length is said once and can be
    /// counted, and `Connection` does not list without end. Whoever passes it on may insist on that.
    pub(crate) strict: bool,
    /// Bytes of the input that it takes.
    pub(crate) length: usize,
}

/// The head at the beginning of the input; none if it is not whole yet.
///
/// # Errors
///
/// It will never be a head that can be answered other than with this status.
pub(crate) fn parse(input: &[u8]) -> Result<Option<Head>, StatusCode> {
    let mut headers = [const { MaybeUninit::uninit() }; fields::MOST];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(input, &mut headers) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        Err(httparse::Error::Version) => return other_version(input),
        Err(_) => return Err(StatusCode::BAD_REQUEST),
    };
    let bad = |_| StatusCode::BAD_REQUEST;
    let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes()).map_err(|_| bad(()))?;
    let target = request.path.unwrap_or_default();
    if target.len() > TARGET_LIMIT {
        return Err(StatusCode::URI_TOO_LONG);
    }
    let uri = Uri::try_from(target).map_err(|_| bad(()))?;
    if method == Method::CONNECT {
        return Err(StatusCode::NOT_IMPLEMENTED);
    }
    let mut meaning = Meaning::default();
    for field in &*request.headers {
        meaning.add(field.name, field.value)?;
    }
    if !target::is_valid(&method, target, meaning.host) {
        return Err(bad(()));
    }
    let http_11 = request.version == Some(1);
    Ok(Some(Head {
        framing: meaning.framing(http_11)?,
        persistent: meaning.framing.is_persistent(http_11),
        expects_continue: http_11 && meaning.expects_continue,
        upgrade: http_11 && meaning.upgrade && meaning.framing.asks_for_upgrade(),
        strict: meaning.framing.is_plain() && fields::end_in_crlf(&input[..length], request.headers),
        method,
        uri,
        http_11,
        length,
    }))
}

/// The fields of a head that was parsed before. Most handlers look at few of them or none, and to
/// make the map is the most expensive part of a short request.
pub(crate) fn header_map(head: &[u8]) -> HeaderMap {
    read(head, |_, fields| fields::to_map(fields)).unwrap_or_default()
}

/// Looks once more at a head that was parsed before: its target and its fields. None where it was not.
pub(crate) fn read<T>(head: &[u8], look: impl FnOnce(&str, &[Field<'_>]) -> T) -> Option<T> {
    let mut headers = [const { MaybeUninit::uninit() }; fields::MOST];
    let mut request = httparse::Request::new(&mut []);
    request.parse_with_uninit_headers(head, &mut headers).ok()?;
    Some(look(request.path?, request.headers))
}

/// What an input that is full and still no whole head has too much of.
pub(crate) fn excess(input: &[u8]) -> StatusCode {
    let line = input.trim_ascii_start();
    let target = line.splitn(2, |&byte| byte == b' ').nth(1).unwrap_or_default();
    let length = target.iter().position(|byte| b" \r\n".contains(byte)).unwrap_or(target.len());
    if length > TARGET_LIMIT { StatusCode::URI_TOO_LONG } else { StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE }
}

/// How much of the input is empty lines at its beginning.
pub(crate) fn empty_lines(input: &[u8]) -> usize {
    let mut length = 0;
    while let Some(end) = [&b"\r\n"[..], b"\n"].into_iter().find(|end| input[length..].starts_with(end)) {
        length += end.len();
    }
    length
}

/// Whether the request at the beginning of the input, which may be none that is known, is for a head: its
/// answer has no content.
pub(crate) fn asks_for_head(input: &[u8]) -> bool {
    input[empty_lines(input)..].starts_with(b"HEAD ")
}

/// What to make of a request line that does not end in a known version: it may not have ended yet,
/// or have another version that is well-formed.
fn other_version(input: &[u8]) -> Result<Option<Head>, StatusCode> {
    let line = input.trim_ascii_start();
    let Some(end) = line.iter().position(|&byte| byte == b'\n') else { return Ok(None) };
    let mut words = line[..end].trim_ascii_end().split(|&byte| byte == b' ');
    match (words.nth(2), words.next()) {
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(StatusCode::HTTP_VERSION_NOT_SUPPORTED)
        }
        _ => Err(StatusCode::BAD_REQUEST),
    }
}

/// What the fields say that means something here.
#[derive(Debug, Default)]
struct Meaning<'a> {
    host: Option<&'a [u8]>,
    expects_continue: bool,
    /// Another protocol is named.
    upgrade: bool,
    framing: FramingFields,
}

impl<'a> Meaning<'a> {
    fn add(&mut self, name: &str, value: &'a [u8]) -> Result<(), StatusCode> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("host") {
            self.add_host(value)
        } else if is("expect") {
            self.expects_continue |= lists(value, "100-continue");
            Ok(())
        } else if is("upgrade") {
            self.upgrade |= elements(value).any(|protocol| !protocol.is_empty());
            Ok(())
        } else {
            Ok(self.framing.add(name, value)?)
        }
    }

    /// There may be only one.
    fn add_host(&mut self, value: &'a [u8]) -> Result<(), StatusCode> {
        let again = self.host.replace(value).is_some();
        if !again && target::is_host(value) { Ok(()) } else { Err(StatusCode::BAD_REQUEST) }
    }

    /// RFC 9112, sections 3.2 and 6.3.
    fn framing(&self, http_11: bool) -> Result<Framing, StatusCode> {
        if http_11 && self.host.is_none() {
            return Err(StatusCode::BAD_REQUEST);
        }
        // A request that names none has no body.
        Ok(self.framing.framing(http_11)?.unwrap_or(Framing::Empty))
    }
}

/// What the client of a request is told of it.
impl From<Misframed> for StatusCode {
    fn from(misframed: Misframed) -> Self {
        match misframed {
            Misframed::Malformed => Self::BAD_REQUEST,
            Misframed::UnknownCoding => Self::NOT_IMPLEMENTED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces that requests are made of, right ones and wrong ones.
    const PIECES: &[&str] = &[
        "GET",
        "HEAD",
        "POST",
        "OPTIONS",
        "CONNECT",
        "b\u{e9}",
        " ",
        "  ",
        "\t",
        "/",
        "*",
        "/a?b",
        "/%41",
        "/%",
        "http://a/",
        "http://a:80",
        "//",
        "#",
        "\\",
        " HTTP/1.1",
        " HTTP/1.0",
        " HTTP/2.0",
        "\r\n",
        "\n",
        "\r",
        "\0",
        "Host: a",
        "Host: a:80",
        "Host:",
        "Host: [::1]",
        "Host: b",
        "Content-Length: 2",
        "Content-Length: 18446744073709551616",
        "Content-Length: 2, 2",
        "Content-Length: -1",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Connection: close, x",
        "Connection: keep-alive",
        "Expect: 100-continue",
        "X-Y: z",
        ": ",
        "X",
        "\u{7f}",
        "hi",
        "\r\n\r\n",
    ];

    /// Whatever comes, it is taken in one way, however it is cut; and what is taken names one host and one
    /// length. `OVERFALL_FUZZ` says how many requests to make.
    #[test]
    fn whatever_comes_is_read_in_one_way() {
        let count = std::env::var("OVERFALL_FUZZ").ok().and_then(|count| count.parse().ok());
        let mut random = fastrand::Rng::with_seed(8888);
        for _ in 0..count.unwrap_or(20_000) {
            let mut text = Vec::new();
            if random.bool() {
                text.extend_from_slice(b"GET / HTTP/1.1\r\nHost: a\r\n");
            }
            for _ in 0..random.usize(..16) {
                text.extend_from_slice(PIECES[random.usize(..PIECES.len())].as_bytes());
                if random.u8(..4) == 0 {
                    text.extend_from_slice(b"\r\n");
                }
            }
            if random.u8(..8) == 0 && !text.is_empty() {
                let at = random.usize(..text.len());
                text[at] = random.u8(..);
            }
            let whole = parse(&text);
            let part = parse(&text[..random.usize(..=text.len())]);
            match (&part, &whole) {
                (Ok(Some(part)), Ok(Some(whole))) => assert_eq!(part.length, whole.length),
                (Ok(Some(_)), _) => panic!("a head became none: {:?}", text.escape_ascii().to_string()),
                (Err(_), Ok(Some(_))) => {
                    panic!("a bad head became good: {:?}", text.escape_ascii().to_string())
                }
                _ => {}
            }
            if let Ok(Some(head)) = whole {
                let seen = header_map(&text[..head.length]);
                let all = |name: &str| seen.get_all(name).iter().count();
                let framed = all("content-length").min(1) + all("transfer-encoding").min(1);
                let described = usize::from(head.framing != Framing::Empty);
                assert!(all("host") <= 1 && framed <= 1 && described <= framed);
            }
        }
    }
}
