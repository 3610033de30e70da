use std::{
    fmt,
    io::{self, Read, Write},
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, TRANSFER_ENCODING, UPGRADE},
};

use super::codec::date;
use crate::server::Connection;

/// What a request is answered with.
///
/// `Date`, `Content-Length`, `Transfer-Encoding` and `Connection` are the server's to send.
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

    /// The same, as `text/plain` in UTF-8.
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
        connection.count_answer(self.status.as_u16());
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
        if self.status == StatusCode::OK {
            out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        } else {
            out.extend_from_slice(b"HTTP/1.1 ");
            out.extend_from_slice(self.status.as_str().as_bytes());
            out.push(b' ');
            out.extend_from_slice(self.status.canonical_reason().unwrap_or("").as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        for (name, value) in &self.headers {
            append_name(out, name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if dated {
            out.extend_from_slice(b"Date: ");
            date::append(out);
            out.extend_from_slice(b"\r\n");
        }
        match &self.body {
            // RFC 9110, sections 8.6 and 15.3.6.
            _ if self.status == StatusCode::NO_CONTENT => {}
            _ if self.status == StatusCode::RESET_CONTENT => out.extend_from_slice(b"Content-Length: 0\r\n"),
            Body::Sized(bytes) if bytes.is_empty() && self.status == StatusCode::NOT_MODIFIED => {}
            Body::Sized(bytes) => {
                out.extend_from_slice(b"Content-Length: ");
                // Writing to a vector does not fail.
                let _ = write!(out, "{}\r\n", bytes.len());
            }
            Body::Streamed(_) if how.http_11 => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Body::Streamed(_) => {}
        }
        let persistence: &[u8] = match (how.keep, how.http_11) {
            (false, _) => b"close",
            (true, false) => b"keep-alive",
            (true, true) => b"",
        };
        if !(persistence.is_empty() && self.options.is_empty()) {
            out.extend_from_slice(b"Connection: ");
            out.extend_from_slice(persistence);
            if !(persistence.is_empty() || self.options.is_empty()) {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(&self.options);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
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

/// Appends the name with a capital at the beginning of each word: case makes no difference, but to
/// some clients (`ab` does not find a `content-length`).
fn append_name(out: &mut Vec<u8>, name: &HeaderName) {
    let mut begins = true;
    out.extend(name.as_str().bytes().map(|byte| {
        let byte = if begins { byte.to_ascii_uppercase() } else { byte };
        begins = byte == b'-';
        byte
    }));
}

/// How a response is to be sent.
pub(super) struct How {
    pub(super) http_11: bool,
    pub(super) head_only: bool,
    /// Another request may follow.
    pub(super) keep: bool,
}

/// The rest of a response whose head has been sent.
pub(super) enum Sending {
    Bytes(Bytes),
    Stream { reader: Box<dyn Read + Send>, chunked: bool },
}

/// A body up to this size is sent together with its head.
const SMALL: usize = 64 * 1024;
/// What is sent of a larger one at a time, when the client has taken what went before.
const PIECE: usize = 64 * 1024;
/// Pieces before others get their turn.
const PIECES: usize = 4;

impl Sending {
    /// Sends what the client takes now, within a bound. Whether that was all.
    pub(super) fn go_on(&mut self, connection: &mut Connection<'_>) -> io::Result<bool> {
        for _ in 0..PIECES {
            if !connection.is_flushed() {
                return Ok(false);
            }
            let ended = match self {
                Self::Bytes(bytes) => {
                    connection.write_all(&bytes.split_to(bytes.len().min(PIECE)))?;
                    bytes.is_empty()
                }
                Self::Stream { reader, chunked: true } => send_chunk(connection, reader)?,
                Self::Stream { reader, chunked: false } => {
                    // Its end is that of the connection, so one that breaks off must be a reset.
                    connection.reset_on_close(true);
                    let ended = send_piece(connection, reader)?;
                    connection.reset_on_close(false);
                    ended
                }
            };
            if ended {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What is read of a stream at a time.
const READ: usize = 16 * 1024;

/// Sends what one `read` gives as a chunk; whether that was the end.
fn send_chunk(connection: &mut Connection<'_>, reader: &mut impl Read) -> io::Result<bool> {
    /// Room for four digits and CRLF before the data.
    const SIZE: usize = 6;
    const END: &[u8] = b"\r\n";
    let mut chunk = vec![0; SIZE + READ + END.len()];
    let end = SIZE + read_once(reader, &mut chunk[SIZE..SIZE + READ])?;
    if end == SIZE {
        connection.write_all(b"0\r\n\r\n")?;
        return Ok(true);
    }
    write!(&mut chunk[..SIZE], "{:04x}\r\n", end - SIZE)?;
    chunk[end..end + END.len()].copy_from_slice(END);
    connection.write_all(&chunk[..end + END.len()])?;
    Ok(false)
}

/// The same as it is.
fn send_piece(connection: &mut Connection<'_>, reader: &mut impl Read) -> io::Result<bool> {
    let mut piece = vec![0; READ];
    let length = read_once(reader, &mut piece)?;
    connection.write_all(&piece[..length])?;
    Ok(length == 0)
}

fn read_once(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            length => return length,
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}
