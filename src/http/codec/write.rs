//! The head of a response, written part by part. It does not know what is sent, nor where to: each part
//! takes plain arguments and appends bytes.

use std::io::Write;

use http::{HeaderName, StatusCode};

use super::{date, framing::Framing};

/// The first line.
pub(crate) fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    if status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A field, with a capital at the beginning of each word of its name: case makes no difference, but to
/// some clients (`ab` does not find a `content-length`).
pub(crate) fn field(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    let mut begins = true;
    out.extend(name.as_str().bytes().map(|byte| {
        let byte = if begins { byte.to_ascii_uppercase() } else { byte };
        begins = byte == b'-';
        byte
    }));
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A field, its name as it stands.
pub(crate) fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    push(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
}

/// The parts, one after the other.
pub(crate) fn push(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// When it was made: now.
pub(crate) fn date(out: &mut Vec<u8>) {
    out.extend_from_slice(b"Date: ");
    date::append(out);
    out.extend_from_slice(b"\r\n");
}

/// How the end of its body is known; nothing where it has none, or ends with the connection.
pub(crate) fn framing(out: &mut Vec<u8>, framing: Option<Framing>) {
    match framing {
        None => {}
        Some(Framing::Empty) => out.extend_from_slice(b"Content-Length: 0\r\n"),
        Some(Framing::Length(length)) => {
            out.extend_from_slice(b"Content-Length: ");
            // Writing to a vector does not fail.
            let _ = write!(out, "{length}\r\n");
        }
        Some(Framing::Chunked) => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}

/// Whether another request may follow, as a client of this version wants to be told, and what else
/// `Connection` lists.
pub(crate) fn connection(out: &mut Vec<u8>, keep: bool, http_11: bool, options: &[u8]) {
    let persistence: &[u8] = match (keep, http_11) {
        (false, _) => b"close",
        (true, false) => b"keep-alive",
        (true, true) => b"",
    };
    if persistence.is_empty() && options.is_empty() {
        return;
    }
    out.extend_from_slice(b"Connection: ");
    out.extend_from_slice(persistence);
    if !(persistence.is_empty() || options.is_empty()) {
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(options);
    out.extend_from_slice(b"\r\n");
}

/// The empty line behind the last field.
pub(crate) fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_part_is_a_line() {
        let not_found = written(|out| status_line(out, StatusCode::NOT_FOUND));
        assert_eq!(not_found, "HTTP/1.1 404 Not Found\r\n");
        assert_eq!(written(|out| status_line(out, StatusCode::OK)), "HTTP/1.1 200 OK\r\n");
        // One without a name keeps the blank before it (RFC 9112, section 4).
        let unnamed = StatusCode::from_u16(299).unwrap();
        assert_eq!(written(|out| status_line(out, unnamed)), "HTTP/1.1 299 \r\n");
        assert_eq!(written(|out| field(out, &CONTENT_TYPE, b"a/b")), "Content-Type: a/b\r\n");
        assert_eq!(written(|out| framing(out, None)), "");
        assert_eq!(written(|out| framing(out, Some(Framing::Empty))), "Content-Length: 0\r\n");
        assert_eq!(written(|out| framing(out, Some(Framing::Length(70)))), "Content-Length: 70\r\n");
        assert_eq!(written(|out| framing(out, Some(Framing::Chunked))), "Transfer-Encoding: chunked\r\n");
        assert!(written(date).starts_with("Date: ") && written(date).ends_with(" GMT\r\n"));
        assert_eq!(written(end), "\r\n");
    }

    #[test]
    fn the_connection_is_spoken_of_where_it_must_be() {
        for (keep, http_11, options, line) in [
            (true, true, "", ""),
            (true, true, "upgrade", "Connection: upgrade\r\n"),
            (true, false, "", "Connection: keep-alive\r\n"),
            (true, false, "upgrade", "Connection: keep-alive, upgrade\r\n"),
            (false, true, "", "Connection: close\r\n"),
            (false, false, "a, b", "Connection: close, a, b\r\n"),
        ] {
            assert_eq!(written(|out| connection(out, keep, http_11, options.as_bytes())), line);
        }
    }
}
