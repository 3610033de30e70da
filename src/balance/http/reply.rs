//! A reply as the client gets it: written anew from what it means, so that it can be read in one way alone.
//! It knows the head as it came and what it is told of the client, not the upstream.

use http::StatusCode;

use crate::http::codec::{
    fields::{Field, is},
    framing::Framing,
    hops::Hops,
    reply::{self, ReplyHead},
    write::{self, line, push},
};

/// What is known of the client that gets the reply.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recipient {
    /// It speaks HTTP/1.1, else 1.0.
    pub(super) http_11: bool,
    /// Another request may follow. Where the end of the reply is that of the connection none does.
    pub(super) keep: bool,
}

/// How the body goes out; none where it ends with the connection, which only a client of HTTP/1.0 needs.
pub(super) fn framing(head: &ReplyHead, http_11: bool) -> Option<Framing> {
    match head.framing {
        Some(known @ (Framing::Empty | Framing::Length(_))) => Some(known),
        Some(Framing::Chunked) | None => http_11.then_some(Framing::Chunked),
    }
}

/// Whether the client may get it: what is informational is for HTTP/1.1 alone (RFC 9110, section 15.2).
pub(super) fn is_for(head: &ReplyHead, http_11: bool) -> bool {
    http_11 || !head.status.is_informational()
}

/// Appends the head as the client gets it. `text` is the head as it came, and has been parsed.
pub(super) fn write(out: &mut Vec<u8>, text: &[u8], head: &ReplyHead, to: Recipient) {
    reply::read(text, |reason, fields| {
        status_line(out, head.status, reason);
        passed_on(out, head, fields);
        let via: &[u8] = if head.http_11 { b"1.1 overfall" } else { b"1.0 overfall" };
        line(out, "Via", via);
        if !head.status.is_informational() && !fields.iter().any(|field| is(field, "date")) {
            write::date(out);
        }
    });
    write::framing(out, described(head, to.http_11));
    connection(out, head, to);
    write::end(out);
}

/// With the upstream's own reason, where that can be printed.
fn status_line(out: &mut Vec<u8>, status: StatusCode, reason: &str) {
    let reason = reason.trim();
    if reason.is_empty() || Some(reason) == status.canonical_reason() {
        return write::status_line(out, status);
    }
    push(out, &[b"HTTP/1.1 ", status.as_str().as_bytes(), b" ", reason.as_bytes(), b"\r\n"]);
}

/// The upstream's own fields.
fn passed_on(out: &mut Vec<u8>, head: &ReplyHead, fields: &[Field<'_>]) {
    let hops = Hops::new(fields);
    for field in fields {
        if !hops.has(field.name) || (names_protocols(head) && is(field, "upgrade")) {
            line(out, field.name, field.value);
        }
    }
}

/// Whether what `Upgrade` names is for the client: it is what follows, or what it has to ask for.
fn names_protocols(head: &ReplyHead) -> bool {
    head.upgrade || head.status == StatusCode::UPGRADE_REQUIRED
}

/// What the head says of its body, or of one that does not follow (RFC 9110, section 8.6).
fn described(head: &ReplyHead, http_11: bool) -> Option<Framing> {
    match head.status {
        status if status.is_informational() || status == StatusCode::NO_CONTENT => None,
        StatusCode::RESET_CONTENT => Some(Framing::Empty),
        status if head.to_head || status == StatusCode::NOT_MODIFIED => {
            head.named_length.map(Framing::Length)
        }
        _ => framing(head, http_11),
    }
}

fn connection(out: &mut Vec<u8>, head: &ReplyHead, to: Recipient) {
    let upgrade: &[u8] = if names_protocols(head) { b"upgrade" } else { b"" };
    let keep = to.keep && framing(head, to.http_11).is_some();
    // What is informational says nothing of the connection, but what follows it does.
    let silent = head.status.is_informational();
    write::connection(out, keep || silent, to.http_11 || silent, upgrade);
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::*;

    const HTTP_11: Recipient = Recipient { http_11: true, keep: true };
    const HTTP_10: Recipient = Recipient { http_11: false, keep: true };
    const CLOSE: Recipient = Recipient { http_11: true, keep: false };

    fn passed(text: &str, method: &Method, to: Recipient) -> String {
        let head = reply::parse(text.as_bytes(), method).unwrap().unwrap();
        let mut out = Vec::new();
        write(&mut out, &text.as_bytes()[..head.length], &head, to);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// The lines that are not written for every reply.
    fn lines(text: &str, method: &Method, to: Recipient) -> String {
        let written = passed(text, method, to);
        let usual = |line: &&str| !["", "Via: 1.1 overfall"].contains(line) && !line.starts_with("Date: ");
        written.split("\r\n").filter(usual).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn a_reply_is_written_in_full() {
        let text = "HTTP/1.1 200 Fine\r\nset-cookie: a\r\nSet-Cookie:  b \r\nDATE: then\r\nVia: 1.0 x\r\n\
                    Keep-Alive: timeout=5\r\nConnection: keep-alive, X-A, Set-Cookie\r\nX-A: 1\r\n\
                    content-length: 5, 5\r\n\r\n";
        assert_eq!(
            passed(text, &Method::GET, HTTP_11),
            "HTTP/1.1 200 Fine\r\nset-cookie: a\r\nSet-Cookie: b\r\nDATE: then\r\nVia: 1.0 x\r\n\
             Via: 1.1 overfall\r\nContent-Length: 5\r\n\r\n"
        );
        let dated = passed("HTTP/1.0 200 OK\r\n\r\n", &Method::GET, HTTP_11);
        assert!(dated.contains("\r\nDate: ") && dated.contains("\r\nVia: 1.0 overfall\r\n"), "{dated}");
    }

    #[test]
    fn the_framing_is_one_that_the_client_understands() {
        const OK: &str = "HTTP/1.1 200 OK";
        for (to, method, first, fields, written) in [
            (HTTP_11, "GET", OK, "Content-Length: 5", "Content-Length: 5"),
            (CLOSE, "GET", OK, "Content-Length: 5", "Content-Length: 5|Connection: close"),
            (HTTP_10, "GET", OK, "Content-Length: 5", "Content-Length: 5|Connection: keep-alive"),
            (HTTP_11, "GET", OK, "Content-Length: 0", "Content-Length: 0"),
            (HTTP_11, "GET", OK, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
            (HTTP_10, "GET", OK, "Transfer-Encoding: chunked", "Connection: close"),
            (HTTP_11, "GET", OK, "Connection: close", "Transfer-Encoding: chunked"),
            (HTTP_10, "GET", OK, "Connection: close", "Connection: close"),
            (HTTP_11, "HEAD", OK, "Content-Length: 5", "Content-Length: 5"),
            (HTTP_11, "HEAD", OK, "Transfer-Encoding: chunked", ""),
            (HTTP_10, "HEAD", OK, "", "Connection: keep-alive"),
            (HTTP_11, "GET", "HTTP/1.1 304 Not Modified", "Content-Length: 5", "Content-Length: 5"),
            (HTTP_11, "GET", "HTTP/1.1 304 Not Modified", "", ""),
            (HTTP_11, "GET", "HTTP/1.1 204 No Content", "Content-Length: 5", ""),
            (HTTP_11, "GET", "HTTP/1.1 205 Reset Content", "Content-Length: 5", "Content-Length: 0"),
            (HTTP_11, "GET", "HTTP/1.1 205 Reset Content", "", "Content-Length: 0"),
            (CLOSE, "GET", "HTTP/1.1 100 Continue", "", ""),
            (HTTP_11, "GET", "HTTP/1.1 103 Early Hints", "Link: x", "Link: x"),
            (
                HTTP_11,
                "GET",
                "HTTP/1.1 101 Switching Protocols",
                "Upgrade: websocket\r\nConnection: Upgrade",
                "Upgrade: websocket|Connection: upgrade",
            ),
            (
                HTTP_11,
                "GET",
                "HTTP/1.1 426 Upgrade Required",
                "Upgrade: x\r\nContent-Length: 0",
                "Upgrade: x|Content-Length: 0|Connection: upgrade",
            ),
            (
                HTTP_11,
                "GET",
                OK,
                "Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 0",
                "Content-Length: 0",
            ),
            (
                HTTP_11,
                "GET",
                OK,
                "Trailer: x\r\nProxy-Status: y\r\nContent-Length: 0",
                "Proxy-Status: y|Content-Length: 0",
            ),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let text = format!("{first}\r\n{fields}\r\n\r\n").replace("\r\n\r\n\r\n", "\r\n\r\n");
            let expected = format!("{first}|{written}");
            assert_eq!(lines(&text, &method, to), expected.trim_end_matches('|'), "{text}");
        }
        let old = passed("HTTP/1.0 200 OK\r\n\r\n", &Method::GET, HTTP_11);
        assert!(old.contains("\r\nTransfer-Encoding: chunked\r\n") && old.starts_with("HTTP/1.1 "), "{old}");
    }

    #[test]
    fn the_reason_is_the_upstreams_where_it_can_be_printed() {
        for (first, written) in [
            ("HTTP/1.1 404 Nope", "HTTP/1.1 404 Nope"),
            ("HTTP/1.1 404", "HTTP/1.1 404 Not Found"),
            ("HTTP/1.1 404 n\u{e9}", "HTTP/1.1 404 Not Found"),
            ("HTTP/1.1 599 ", "HTTP/1.1 599 "),
        ] {
            let written_first =
                lines(&format!("{first}\r\nContent-Length: 0\r\n\r\n"), &Method::GET, HTTP_11);
            assert_eq!(written_first, format!("{written}|Content-Length: 0"));
        }
    }

    #[test]
    fn what_is_informational_is_for_http_11() {
        let head = |text: &str| reply::parse(text.as_bytes(), &Method::GET).unwrap().unwrap();
        let early = head("HTTP/1.1 103 Early Hints\r\n\r\n");
        assert!(is_for(&early, true) && !is_for(&early, false));
        assert!(is_for(&head("HTTP/1.1 200 OK\r\n\r\n"), false));
    }

    proptest! {
        #[test]
        fn what_is_written_is_accepted_and_means_what_was_meant(
            first in prop::sample::select(vec![
                "HTTP/1.1 200 OK", "HTTP/1.0 200 OK", "HTTP/1.1 404", "HTTP/1.1 204 x", "HTTP/1.1 205 x",
                "HTTP/1.1 304 x", "HTTP/1.1 100 x", "HTTP/1.1 101 x", "HTTP/1.1 426 x", "HTTP/1.1 500 \u{e9}",
            ]),
            fields in prop::collection::vec(prop::sample::select(vec![
                "Content-Length: 2", "Content-Length: 02", "Content-Length: 0", "Transfer-Encoding: chunked",
                "Connection: close", "Connection: keep-alive, x", "Connection: upgrade", "Upgrade: x",
                "Keep-Alive: timeout=3", "Date: x", "X: y", "Content_Length: 7", "Retry-After: 1", "X:\u{e9}",
            ]), 0..6),
            head_only in any::<bool>(),
            http_11 in any::<bool>(),
            keep in any::<bool>(),
        ) {
            let text = format!("{first}\r\n{}\r\n", fields.iter().map(|field| format!("{field}\r\n")).collect::<String>());
            let method = if head_only { Method::HEAD } else { Method::GET };
            let Ok(Some(head)) = reply::parse(text.as_bytes(), &method) else { return Ok(()) };
            if !is_for(&head, http_11) {
                return Ok(());
            }
            let mut out = Vec::new();
            write(&mut out, text.as_bytes(), &head, Recipient { http_11, keep });
            let again = reply::parse(&out, &method).unwrap().unwrap();
            prop_assert_eq!(again.length, out.len());
            prop_assert_eq!(again.status, head.status);
            prop_assert_eq!(again.framing, framing(&head, http_11));
            prop_assert_eq!(again.retry_after, head.retry_after);
            prop_assert_eq!(again.upgrade, head.upgrade);
            prop_assert_eq!(again.keep_alive_timeout, None);
            // A connection is kept exactly where that was said and the end of the reply is known.
            let kept = keep && again.framing.is_some() || head.status.is_informational();
            prop_assert_eq!(again.persistent, kept);
        }
    }
}
