//! The head of a request: parsed by `httparse`, and then held to what RFC 9112 asks beyond syntax.
//!
//! What two parties could read differently is refused and never guessed at, since that is how
//! requests are smuggled past a proxy.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING},
};

/// Header fields that a request may have.
const FIELDS: usize = 100;
/// Bytes that a target may have.
const TARGET_LIMIT: usize = 8 * 1024;

/// How the end of a body is known (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Empty,
    Length(u64),
    Chunked,
}

#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    pub(super) framing: Framing,
    /// The client would send another request on this connection.
    pub(super) persistent: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
    /// Bytes of the input that it takes.
    pub(super) length: usize,
}

/// The head at the beginning of the input; none if it is not whole yet.
///
/// # Errors
///
/// It will never be a head that can be answered other than with this status.
pub(super) fn parse(input: &[u8]) -> Result<Option<Head>, StatusCode> {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(input, &mut fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        Err(httparse::Error::Version) if names_other_version(input) => {
            return Err(StatusCode::HTTP_VERSION_NOT_SUPPORTED);
        }
        Err(_) => return Err(StatusCode::BAD_REQUEST),
    };
    // All values share one copy of the head.
    let bytes = Bytes::copy_from_slice(&input[..length]);
    let shared = |part: &[u8]| {
        let start = part.as_ptr() as usize - input.as_ptr() as usize;
        bytes.slice(start..start + part.len())
    };
    let bad = |_| StatusCode::BAD_REQUEST;
    let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes()).map_err(|_| bad(()))?;
    let target = request.path.unwrap_or_default();
    if target.len() > TARGET_LIMIT {
        return Err(StatusCode::URI_TOO_LONG);
    }
    let uri = Uri::from_maybe_shared(shared(target.as_bytes())).map_err(|_| bad(()))?;
    if !has_known_form(&method, target, &uri) {
        return Err(bad(()));
    }
    let version = if request.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for field in &*request.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| bad(()))?;
        let value = HeaderValue::from_maybe_shared(shared(field.value)).map_err(|_| bad(()))?;
        headers.append(name, value);
    }
    check_host(version, &headers)?;
    Ok(Some(Head {
        framing: framing(version, &headers)?,
        persistent: is_persistent(version, &headers),
        expects_continue: version == Version::HTTP_11 && lists(&headers, EXPECT, "100-continue"),
        method,
        uri,
        version,
        headers,
        length,
    }))
}

/// What an input that is full and still no whole head has too much of.
pub(super) fn excess(input: &[u8]) -> StatusCode {
    let line = input.trim_ascii_start();
    let target = line.splitn(2, |&byte| byte == b' ').nth(1).unwrap_or_default();
    let length = target.iter().position(|byte| b" \r\n".contains(byte)).unwrap_or(target.len());
    if length > TARGET_LIMIT { StatusCode::URI_TOO_LONG } else { StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE }
}

/// Whether the request line ends in a version that is well-formed, so that ours is not the only
/// reading of it that fails.
fn names_other_version(input: &[u8]) -> bool {
    let line = input.trim_ascii_start().split(|&byte| byte == b'\n').next().unwrap_or_default();
    let version = line.trim_ascii_end().rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// The four forms of RFC 9112, section 3.2.
fn has_known_form(method: &Method, target: &str, uri: &Uri) -> bool {
    match *method {
        Method::CONNECT => uri.scheme().is_none() && uri.authority().is_some() && uri.path().is_empty(),
        Method::OPTIONS if target == "*" => true,
        _ => target.starts_with('/') || (uri.scheme().is_some() && uri.authority().is_some()),
    }
}

/// Exactly one, but that an old client may have none (RFC 9112, section 3.2).
fn check_host(version: Version, headers: &HeaderMap) -> Result<(), StatusCode> {
    let mut hosts = headers.get_all(HOST).iter();
    let valid = match (hosts.next(), hosts.next()) {
        (None, _) => version == Version::HTTP_10,
        (Some(host), None) => host
            .as_bytes()
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte)),
        _ => false,
    };
    if valid { Ok(()) } else { Err(StatusCode::BAD_REQUEST) }
}

fn framing(version: Version, headers: &HeaderMap) -> Result<Framing, StatusCode> {
    let length = content_length(headers)?;
    if !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(length.map_or(Framing::Empty, |length| match length {
            0 => Framing::Empty,
            length => Framing::Length(length),
        }));
    }
    // Neither both, nor a coding from a time that knew none.
    if length.is_some() || version == Version::HTTP_10 {
        return Err(StatusCode::BAD_REQUEST);
    }
    let mut codings = elements(headers, TRANSFER_ENCODING);
    let chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    match (codings.next(), codings.next()) {
        (Some(coding), None) if chunked(coding) => Ok(Framing::Chunked),
        // Chunked twice, or nothing at all.
        (Some(first), Some(second)) if chunked(first) && chunked(second) => Err(StatusCode::BAD_REQUEST),
        (None | Some(b""), _) => Err(StatusCode::BAD_REQUEST),
        _ => Err(StatusCode::NOT_IMPLEMENTED),
    }
}

/// The length that all of them agree on. One beyond any number is too large, whatever it is.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, StatusCode> {
    let mut agreed = None;
    for element in elements(headers, CONTENT_LENGTH) {
        if element.is_empty() || !element.iter().all(u8::is_ascii_digit) {
            return Err(StatusCode::BAD_REQUEST);
        }
        let digits = element.iter().map(|&digit| u64::from(digit - b'0'));
        let length = digits.fold(0u64, |length, digit| length.saturating_mul(10).saturating_add(digit));
        if agreed.is_some_and(|agreed| agreed != length) {
            return Err(StatusCode::BAD_REQUEST);
        }
        agreed = Some(length);
    }
    Ok(agreed)
}

fn is_persistent(version: Version, headers: &HeaderMap) -> bool {
    if lists(headers, CONNECTION, "close") {
        return false;
    }
    version == Version::HTTP_11 || lists(headers, CONNECTION, "keep-alive")
}

fn lists(headers: &HeaderMap, name: HeaderName, element: &str) -> bool {
    elements(headers, name).any(|found| found.eq_ignore_ascii_case(element.as_bytes()))
}

/// The elements of a list, which may be spread over several fields (RFC 9110, section 5.6.1).
fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let fields = headers.get_all(name).into_iter();
    fields.flat_map(|value| value.as_bytes().split(|&byte| byte == b',')).map(<[u8]>::trim_ascii)
}
