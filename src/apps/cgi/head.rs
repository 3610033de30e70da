//! What a program says before its body (RFC 3875, section 6). It does not know where it comes from.

use std::{io, str};

use http::{HeaderName, HeaderValue, StatusCode, header};

/// The most that a head may take, in bytes, and in fields.
pub(super) const LONGEST: usize = 16 * 1024;
const MOST_FIELDS: usize = 100;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    /// Those that are for the client.
    pub(super) fields: Vec<(HeaderName, HeaderValue)>,
    /// That of the body, where it was said.
    pub(super) length: Option<u64>,
}

/// The head at the beginning of this, and how much it takes; none where it has not come to its end.
pub(super) fn parse(output: &[u8]) -> io::Result<Option<(Head, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    match httparse::parse_headers(output, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) => Ok(Some((understood(fields)?, length))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(wrong(&format!("what it says is no head of CGI: {error}"))),
    }
}

fn understood(fields: &[httparse::Header<'_>]) -> io::Result<Head> {
    let mut head = Head { status: StatusCode::OK, fields: Vec::new(), length: None };
    let (mut has_status, mut is_cgi) = (false, false);
    for field in fields {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|error| wrong(&error.to_string()))?;
        let value = field.value;
        is_cgi |= name == "status" || name == header::CONTENT_TYPE || name == header::LOCATION;
        if name == "status" {
            (head.status, has_status) = (status(value)?, true);
        } else if name == header::CONTENT_LENGTH {
            let length = str::from_utf8(value).ok().and_then(|length| length.parse().ok());
            head.length = Some(length.ok_or_else(|| wrong("its Content-Length is no number"))?);
        } else {
            head.fields
                .push((name, HeaderValue::from_bytes(value).map_err(|error| wrong(&error.to_string()))?));
        }
    }
    if !is_cgi {
        return Err(wrong("it says neither Content-Type nor Location nor Status"));
    }
    if !has_status && head.fields.iter().any(|(name, _)| name == header::LOCATION) {
        head.status = StatusCode::FOUND;
    }
    Ok(head)
}

/// A number of three digits, and perhaps its name.
fn status(value: &[u8]) -> io::Result<StatusCode> {
    let number = value.split(|&byte| byte == b' ').next().unwrap_or_default();
    let status = StatusCode::from_bytes(number).ok().filter(|status| !status.is_informational());
    status.ok_or_else(|| wrong("its Status is none that a reply can have, such as 404 Not Found"))
}

pub(super) fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_an_empty_line() {
        for (output, status, length, names, taken) in [
            ("Content-Type: text/plain\n\nbody", 200, None, &["content-type"][..], 26),
            ("Content-Type: a/b\r\nX-Y: z\r\n\r\n", 200, None, &["content-type", "x-y"], 29),
            ("Status: 404 Not Found\nContent-Length: 5\n\nabcde", 404, Some(5), &[], 41),
            ("status:201\n\n", 201, None, &[], 12),
            ("Location: /a\n\n", 302, None, &["location"], 14),
            ("Location: /a\nStatus: 301\n\n", 301, None, &["location"], 26),
        ] {
            let (head, end) = parse(output.as_bytes()).unwrap().expect("it is whole");
            assert_eq!((head.status.as_u16(), head.length, end), (status, length, taken), "{output}");
            assert!(head.fields.iter().map(|(name, _)| name.as_str()).eq(names.iter().copied()), "{output}");
            for part in 0..taken {
                assert_eq!(parse(&output.as_bytes()[..part]).unwrap(), None, "{:?}", &output[..part]);
            }
        }
    }

    #[test]
    fn what_is_no_head_is_told_from_one_that_is_not_whole() {
        for output in [
            "hello\n\n",
            "\n",
            "X-Y: z\n\n",
            "Status: x\n\n",
            "Status: 100\n\n",
            "Status: \n\n",
            "Content-Type: a/b\nContent-Length: five\n\n",
            "Content-Type : a/b\n\n",
            "HTTP/1.1 200 OK\nContent-Type: a/b\n\n",
        ] {
            assert_eq!(parse(output.as_bytes()).unwrap_err().kind(), io::ErrorKind::InvalidData, "{output}");
        }
    }
}
