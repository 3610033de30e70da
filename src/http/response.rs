//! The response that a function gives, and how its head is made. It does not know the request, nor
//! whether the connection is kept: it is told.

use std::{
    fmt,
    io::{self, Read, Write},
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, TRANSFER_ENCODING, UPGRADE},
};

use super::{
    codec::{framing::Framing, write},
    sending::Sending,
};
use crate::session::connection::Connection;

/// A body up to this size is sent together with its head.
const SMALL: usize = 64 * 1024;

/// What a request is answered with.
///
/// `Date`, `Content-Length`, `Transfer-Encoding` and `Connection` are the server's to send.
///
/// What a function answers can be looked at without a server:
///
/// ```
/// use overfall::http::{Response, StatusCode, header};
///
/// let response = Response::text("no such item\n").status(StatusCode::NOT_FOUND);
/// assert_eq!(response.status_code(), 404);
/// assert_eq!(response.body(), Some(&b"no such item\n"[..]));
/// let (name, value) = response.headers().next().unwrap();
/// assert_eq!((name, value.to_str().unwrap()), (&header::CONTENT_TYPE, "text/plain; charset=utf-8"));
/// assert_eq!(Response::stream(std::io::empty()).body(), None);
/// ```
pub struct Response {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Body,
    close: bool,
    /// What `Connection` lists beside that.
    options: Vec<u8>,
}

enum Body {
    Sized(Bytes),
    Streamed(Box<dyn Read + Send>),
}

impl Response {
    /// A response with this body and the status 200.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            headers: Vec::new(),
            body: Body::Sized(body.into()),
            close: false,
            options: Vec::new(),
        }
    }

    /// A response with this text as its body, as `text/plain` in UTF-8, and the status 200.
    pub fn text(body: impl Into<Bytes>) -> Self {
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        Self { headers: vec![(CONTENT_TYPE, plain)], ..Self::new(body) }
    }

    /// A response whose body is read from `body` as its client takes it, in chunks; a client of
    /// HTTP/1.0 gets it as it is, until the connection is closed. A client that takes it slowly
    /// costs no worker, but a `read` that blocks does. If it fails, the connection is closed in
    /// a way that the client can tell from the end of the body.
    pub fn stream(body: impl Read + Send + 'static) -> Self {
        Self { body: Body::Streamed(Box::new(body)), ..Self::new(Bytes::new()) }
    }

    /// Changes the status. One that is informational cannot be the answer and becomes 500.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = if status.is_informational() { StatusCode::INTERNAL_SERVER_ERROR } else { status };
        self
    }

    /// Adds a header field. Of those that are the server's to send, the options in `Connection` are kept,
    /// of which `close` closes, and the others are left out. With `Upgrade` goes `Connection: upgrade`
    /// (RFC 9110, section 7.8).
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        match name {
            CONNECTION => {
                value.as_bytes().split(|&byte| byte == b',').for_each(|option| self.add_option(option))
            }
            DATE | CONTENT_LENGTH | TRANSFER_ENCODING => {}
            _ => {
                if name == UPGRADE {
                    self.add_option(b"upgrade");
                }
                self.headers.push((name, value));
            }
        }
        self
    }

    /// The status.
    pub fn status_code(&self) -> StatusCode {
        self.status
    }

    /// The header fields that were added and are not the server's to send, in their order.
    pub fn headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.headers.iter().map(|(name, value)| (name, value))
    }

    /// The body; none where it is streamed.
    pub fn body(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Sized(bytes) => Some(bytes),
            Body::Streamed(_) => None,
        }
    }

    /// Each once; whether the connection is kept is the server's to say.
    fn add_option(&mut self, option: &[u8]) {
        let option = option.trim_ascii();
        let is = |known: &[u8]| option.eq_ignore_ascii_case(known);
        let mut listed = self.options.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        if is(b"close") {
            self.close = true;
        } else if !(is(b"") || is(b"keep-alive") || listed.any(is)) {
            if !self.options.is_empty() {
                self.options.extend_from_slice(b", ");
            }
            self.options.extend_from_slice(option);
        }
    }

    /// The status with its name as the text, for errors.
    pub(super) fn error(status: StatusCode) -> Self {
        let reason = status.canonical_reason().unwrap_or("Error");
        Self::text(format!("{} {reason}\n", status.as_str())).status(status)
    }

    pub(super) fn wants_close(&self) -> bool {
        self.close
    }

    /// Writes the head, and the body where that is small, and gives what is still to be sent.
    pub(super) fn send(self, connection: &mut Connection<'_>, how: How) -> io::Result<Option<Sending>> {
        let bodiless = how.head_only || self.is_bodiless() || self.status == StatusCode::NOT_MODIFIED;
        let small = match &self.body {
            Body::Sized(bytes) if !bodiless && bytes.len() <= SMALL => &bytes[..],
            _ => &[],
        };
        let mut out = Vec::with_capacity(256 + small.len());
        self.write_head(&mut out, &how, true);
        out.extend_from_slice(small);
        connection.write_all(&out)?;
        connection.context().counters.count_answer(self.status.as_u16());
        Ok(match self.body {
            _ if bodiless => None,
            Body::Sized(bytes) if bytes.len() <= SMALL => None,
            Body::Sized(bytes) => Some(Sending::Bytes(bytes)),
            Body::Streamed(reader) => Some(Sending::Stream { reader, chunked: how.http_11 }),
        })
    }

    /// As bytes, to be sent at any time to a connection that is closed after it.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_head(&mut out, &How { http_11: true, head_only: false, keep: false }, false);
        if let Body::Sized(bytes) = &self.body {
            out.extend_from_slice(bytes);
        }
        out
    }

    fn write_head(&self, out: &mut Vec<u8>, how: &How, dated: bool) {
        write::status_line(out, self.status);
        for (name, value) in &self.headers {
            write::field(out, name, value.as_bytes());
        }
        if dated {
            write::date(out);
        }
        write::framing(out, self.framing(how.http_11));
        write::connection(out, how.keep, how.http_11, &self.options);
        write::end(out);
    }

    /// What its head says of the end of its body (RFC 9110, sections 8.6 and 15.3.6).
    fn framing(&self, http_11: bool) -> Option<Framing> {
        match &self.body {
            _ if self.status == StatusCode::NO_CONTENT => None,
            _ if self.status == StatusCode::RESET_CONTENT => Some(Framing::Empty),
            Body::Sized(bytes) if bytes.is_empty() && self.status == StatusCode::NOT_MODIFIED => None,
            Body::Sized(bytes) => Some(Framing::Length(bytes.len() as u64)),
            Body::Streamed(_) if http_11 => Some(Framing::Chunked),
            Body::Streamed(_) => None,
        }
    }

    /// Whether its status says that it has no content.
    fn is_bodiless(&self) -> bool {
        matches!(self.status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT)
    }

    /// Whether its end is told by closing the connection alone.
    pub(super) fn ends_by_closing(&self, http_11: bool) -> bool {
        !http_11 && matches!(self.body, Body::Streamed(_)) && !self.is_bodiless()
    }
}

/// How a response is to be sent.
pub(super) struct How {
    pub(super) http_11: bool,
    pub(super) head_only: bool,
    /// Another request may follow.
    pub(super) keep: bool,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}
