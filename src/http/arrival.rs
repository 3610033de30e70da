//! Whether a request has come, as far as it is gathered in the input. It takes nothing off that but empty
//! lines, and does not know what is done about a body that does not fit.

use http::StatusCode;

use super::{
    codec::{
        chunked::Decoder,
        framing::Framing,
        head::{self, Head},
    },
    progress::Progress,
};
use crate::session::connection::Connection;

/// What has come of a request.
pub(crate) enum Arrival {
    /// More has to come.
    Part,
    /// The head, and of the body as much as can be held, or none as its client asks first.
    Head(Head),
    /// All of it.
    Whole(Head),
}

/// Looks at what has come.
///
/// # Errors
///
/// The request cannot be answered other than with this status.
pub(crate) fn look(
    connection: &mut Connection<'_>,
    progress: &mut Progress,
    max_body: u64,
) -> Result<Arrival, StatusCode> {
    let passed_over = progress.pass_over(connection.input());
    connection.consume(passed_over);
    look_at(connection.input(), connection.ended(), progress, max_body)
}

/// Looks at this input, which nothing will follow where it has ended.
fn look_at(input: &[u8], ended: bool, progress: &mut Progress, max_body: u64) -> Result<Arrival, StatusCode> {
    let may_be_whole = progress.may_be_whole(input) || ended;
    if !may_be_whole || head::empty_lines(input) == input.len() {
        return Ok(Arrival::Part);
    }
    // Whether what is missing can still come, and there is room for it.
    let open = !ended && input.len() < Connection::INPUT_LIMIT;
    let Some(head) = head::parse(input)? else {
        return match (open, ended) {
            (true, _) => Ok(Arrival::Part),
            (false, true) => Err(StatusCode::BAD_REQUEST),
            (false, false) => Err(head::excess(input)),
        };
    };
    if is_body_whole(head.framing, &input[head.length..], max_body)? {
        return Ok(Arrival::Whole(head));
    }
    // Whether a body is to be sent at all is for the handler to say, which needs a worker.
    if !open || (head.expects_continue && !progress.was_told()) {
        return Ok(Arrival::Head(head));
    }
    progress.whole_at(match head.framing {
        Framing::Length(length) => {
            Some(head.length.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)))
        }
        Framing::Empty | Framing::Chunked => None,
    });
    Ok(Arrival::Part)
}

/// Whether all of a body is there. One that is announced too large is so before it has come.
fn is_body_whole(framing: Framing, body: &[u8], max_body: u64) -> Result<bool, StatusCode> {
    match framing {
        Framing::Empty => Ok(true),
        Framing::Length(length) if length > max_body => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Framing::Length(length) => Ok(body.len() as u64 >= length),
        Framing::Chunked => is_chunked_whole(body, max_body),
    }
}

/// Whether a chunked body has come to its end.
fn is_chunked_whole(mut body: &[u8], max_body: u64) -> Result<bool, StatusCode> {
    let mut decoder = Decoder::new();
    while !body.is_empty() && !decoder.is_done() {
        let piece = decoder.advance(body).map_err(|_| StatusCode::BAD_REQUEST)?;
        if decoder.announced() > max_body {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        decoder.took(piece.data);
        body = &body[piece.framing + piece.data..];
    }
    Ok(decoder.is_done())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_BODY: u64 = 1 << 20;

    /// What has come of a request to this connection: its name, and what is wrong with it.
    fn seen(input: &str, ended: bool, progress: &mut Progress) -> Result<&'static str, StatusCode> {
        Ok(match look_at(input.as_bytes(), ended, progress, MAX_BODY)? {
            Arrival::Part => "part",
            Arrival::Head(_) => "head",
            Arrival::Whole(_) => "whole",
        })
    }

    #[test]
    fn a_request_comes_in_part_or_whole_or_cannot_be_answered() {
        const BAD: Result<&str, StatusCode> = Err(StatusCode::BAD_REQUEST);
        const TOO_LARGE: Result<&str, StatusCode> = Err(StatusCode::PAYLOAD_TOO_LARGE);
        let post = |fields: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}");
        let full = "x".repeat(Connection::INPUT_LIMIT);
        // What has come, and what that is if more can follow, and if not.
        for (input, open, ended) in [
            (String::new(), Ok("part"), Ok("part")),
            ("\r\n\n".into(), Ok("part"), Ok("part")),
            ("GET / HTTP/1.1\r\nHos".into(), Ok("part"), BAD),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), Ok("whole"), Ok("whole")),
            ("GET / HTTP/1.1\r\n\r\n".into(), BAD, BAD),
            (post("Content-Length: 2", "h"), Ok("part"), Ok("head")),
            (post("Content-Length: 2", "hi"), Ok("whole"), Ok("whole")),
            (post("Content-Length: 2", "hiGET"), Ok("whole"), Ok("whole")),
            (post("Content-Length: 2\r\nExpect: 100-continue", ""), Ok("head"), Ok("head")),
            (post("Content-Length: 1048577", ""), TOO_LARGE, TOO_LARGE),
            (post("Transfer-Encoding: chunked", "2\r\nhi\r\n"), Ok("part"), Ok("head")),
            (post("Transfer-Encoding: chunked", "2\r\nhi\r\n0\r\n\r\n"), Ok("whole"), Ok("whole")),
            (post("Transfer-Encoding: chunked", "hi"), BAD, BAD),
            (post("Transfer-Encoding: chunked", "100001\r\n"), TOO_LARGE, TOO_LARGE),
            (post("Content-Length: 20000", &full[..16000]), Ok("part"), Ok("head")),
            (post("Content-Length: 20000", &full)[..full.len()].into(), Ok("head"), Ok("head")),
            (format!("GET /{full}")[..full.len()].into(), Err(StatusCode::URI_TOO_LONG), BAD),
        ] {
            assert_eq!(seen(&input, false, &mut Progress::default()), open, "open: {input:?}");
            assert_eq!(seen(&input, true, &mut Progress::default()), ended, "ended: {input:?}");
        }
    }

    #[test]
    fn a_body_of_known_length_is_not_looked_at_before_it_is_there() {
        let mut progress = Progress::default();
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(seen(head, false, &mut progress), Ok("part"));
        for (body, worth) in [("\n", false), ("\n\n", false), ("\n\n\n", true)] {
            assert_eq!(progress.may_be_whole(format!("{head}{body}").as_bytes()), worth, "{body:?}");
        }
    }
}
