//! A request as the upstream gets it: written anew from what it means, so that it can be read in one way
//! alone. It knows the head as it came and what it is told of the client, not where it is sent.
//!
//! Fields keep their order, case and number. What is for one connection alone is dropped, and so are
//! trailers, whatever `TE` says: the fields that announce them are dropped as well, in both directions.

use std::{io::Write, net::IpAddr};

use http::{HeaderName, Method};

use crate::{
    http::codec::{
        fields::{Field, is},
        framing::Framing,
        head::{self, Head},
        hops::{Hops, begins, is_named},
        target,
        write::{self, line, push},
    },
    overload::Source,
};

/// What is known of a request beside its head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forwarded<'a> {
    pub(super) client: IpAddr,
    /// What it came over, such as `http`.
    pub(super) proto: &'a str,
    /// What the client says of those before it is true.
    pub(super) trusted: bool,
    /// When it came, in microseconds since the epoch.
    pub(super) arrived_us: u64,
    /// Names with `_` are passed on, which some take for `-`.
    pub(super) keep_underscores: bool,
    /// `Expect: 100-continue` is passed on where the client sent it.
    pub(super) pass_expect: bool,
    /// An upgrade is passed on where the client asks for one.
    pub(super) pass_upgrade: bool,
    /// How its body goes on: as it came, or with its length where all of it has been gathered.
    pub(super) framing: Framing,
    /// The host that a request is for that names none, as one of HTTP/1.0 may.
    pub(super) host: &'a str,
}

/// Whether the client asks for another protocol that can be passed on. One that is HTTP again, as `h2c`,
/// would lead past everything that looks at requests.
pub(super) fn asks_for_upgrade(text: &[u8], head: &Head) -> bool {
    head.upgrade
        && head::read(text, |_, fields| {
            let mut upgrades = fields.iter().filter(|field| is_named(field.name, "upgrade"));
            upgrades.all(|field| field.value.split(|&byte| byte == b',').all(is_other_protocol))
        })
        .unwrap_or(false)
}

/// Whom the last field of this name says a request to be for, as the last of its values.
pub(super) fn source(text: &[u8], name: &HeaderName) -> Option<Source> {
    head::read(text, |_, fields| {
        let last = fields.iter().rfind(|field| is_named(field.name, name.as_str()))?;
        let value = last.value.rsplit(|&byte| byte == b',').next()?.trim_ascii();
        (!value.is_empty()).then(|| Source::named(value))
    })?
}

fn is_other_protocol(name: &[u8]) -> bool {
    let name = name.trim_ascii().to_ascii_lowercase();
    !name.starts_with(b"h2") && !name.starts_with(b"http")
}

/// Appends the head as the upstream gets it. `text` is the head as it came, and has been parsed.
pub(super) fn write(out: &mut Vec<u8>, text: &[u8], head: &Head, forwarded: &Forwarded<'_>) {
    let upgrade = forwarded.pass_upgrade && asks_for_upgrade(text, head);
    head::read(text, |target, fields| {
        let written = Written { head, forwarded, fields, upgrade };
        let host = written.request_line(out, target);
        written.passed_on(out);
        written.added(out, host);
        written.body(out);
    });
    write::end(out);
}

/// A head that is being written.
struct Written<'a> {
    head: &'a Head,
    forwarded: &'a Forwarded<'a>,
    fields: &'a [Field<'a>],
    upgrade: bool,
}

impl<'a> Written<'a> {
    /// The first line and the host, which the target names before the field does (RFC 9112, section 3.2.2).
    /// The host, where the client named one.
    fn request_line(&self, out: &mut Vec<u8>, target: &'a str) -> Option<&'a [u8]> {
        let absolute = target::split(target);
        let host = absolute.map(|(_, authority, _)| authority.as_bytes()).or_else(|| self.first("host"));
        push(out, &[self.head.method.as_str().as_bytes(), b" "]);
        match absolute {
            None => push(out, &[target.as_bytes()]),
            Some((_, _, "")) if self.head.method == Method::OPTIONS => push(out, &[b"*"]),
            Some((_, _, path)) if path.starts_with('/') => push(out, &[path.as_bytes()]),
            Some((_, _, path)) => push(out, &[b"/", path.as_bytes()]),
        }
        let named = host.unwrap_or(self.forwarded.host.as_bytes());
        push(out, &[b" HTTP/1.1\r\nHost: ", named, b"\r\n"]);
        host
    }

    /// The client's own fields.
    fn passed_on(&self, out: &mut Vec<u8>) {
        let hops = Hops::new(self.fields);
        for field in self.fields {
            if (!hops.has(field.name) && self.is_passed_on(field.name))
                || (self.upgrade && is(field, "upgrade"))
            {
                line(out, field.name, field.value);
            }
        }
    }

    fn is_passed_on(&self, name: &str) -> bool {
        let is = |known: &&str| is_named(name, known);
        if name.contains('_') && !self.forwarded.keep_underscores {
            return false;
        }
        // What is written here is not taken from the client, in whatever guise.
        if ["host", "expect", "x-forwarded-for"].iter().any(is) {
            return false;
        }
        let says_of_others =
            begins(name, "x-forwarded-") || ["forwarded", "x-real-ip", "x-request-start"].iter().any(is);
        !says_of_others || (self.forwarded.trusted && !name.contains('_'))
    }

    /// What is said of the client, and of the way that the request took.
    fn added(&self, out: &mut Vec<u8>, host: Option<&[u8]>) {
        let Forwarded { client, proto, trusted, arrived_us, pass_expect, .. } = *self.forwarded;
        let said = |name: &str| trusted && self.first(name).is_some();
        out.extend_from_slice(b"X-Forwarded-For: ");
        for field in self.fields.iter().filter(|field| trusted && is(field, "x-forwarded-for")) {
            if !field.value.is_empty() {
                push(out, &[field.value, b", "]);
            }
        }
        // Writing to a vector does not fail.
        let _ = write!(out, "{}\r\n", client.to_canonical());
        if !said("x-forwarded-proto") {
            line(out, "X-Forwarded-Proto", proto.as_bytes());
        }
        if let Some(host) = host.filter(|host| !host.is_empty() && !said("x-forwarded-host")) {
            line(out, "X-Forwarded-Host", host);
        }
        line(out, "Via", if self.head.http_11 { b"1.1 overfall" } else { b"1.0 overfall" });
        if !said("x-request-start") {
            let _ = write!(out, "X-Request-Start: t={arrived_us}\r\n");
        }
        if self.head.expects_continue && pass_expect {
            line(out, "Expect", b"100-continue");
        }
        if self.upgrade {
            write::connection(out, true, true, b"upgrade");
        }
    }

    /// How the body ends. An empty one is spoken of only where the client did so and one is usual.
    fn body(&self, out: &mut Vec<u8>) {
        let framing = self.forwarded.framing;
        if framing.length() != Some(0) {
            return write::framing(out, Some(framing));
        }
        let usual = [Method::POST, Method::PUT, Method::PATCH].contains(&self.head.method);
        let spoken_of = self.first("content-length").is_some() || self.head.framing != Framing::Empty;
        if usual && spoken_of {
            write::framing(out, Some(Framing::Empty));
        }
    }

    /// The value of the first field of this name.
    fn first(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.iter().find(|field| is(field, name)).map(|field| field.value)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;

    const TOLD: Forwarded<'static> = Forwarded {
        client: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
        proto: "http",
        trusted: false,
        arrived_us: 1234,
        keep_underscores: false,
        pass_expect: false,
        pass_upgrade: false,
        framing: Framing::Empty,
        host: "upstream:80",
    };

    #[test]
    fn the_last_value_of_the_last_field_names_the_source() {
        let name = HeaderName::from_static("x-forwarded-for");
        let of = |fields: &str| source(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes(), &name);
        let named = |text: &str| Some(Source::named(text.as_bytes()));
        assert_eq!(of("X-Forwarded-For: 192.0.2.1\r\n"), named("192.0.2.1"));
        assert_eq!(of("X-Forwarded-For: 192.0.2.1, 192.0.2.2 \r\n"), named("192.0.2.2"));
        let two = "x-forwarded-for: 192.0.2.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.3\r\n";
        assert_eq!(of(two), named("192.0.2.3"));
        assert_eq!(of("X-Forwarded-For: \r\n"), None);
        assert_eq!(of("Host: a\r\n"), None);
    }

    /// As it is written, with its framing as it came; none where it is refused, or where something in it had
    /// to be forgiven.
    fn passed(text: &str, told: Forwarded<'_>) -> Result<String, StatusCode> {
        let head = head::parse(text.as_bytes())?.ok_or(StatusCode::REQUEST_TIMEOUT)?;
        if !head.strict {
            return Err(StatusCode::BAD_REQUEST);
        }
        let mut out = Vec::new();
        let told = Forwarded { framing: head.framing, ..told };
        write(&mut out, &text.as_bytes()[..head.length], &head, &told);
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    /// The lines that are not written for every request.
    fn lines(text: &str, told: Forwarded<'_>) -> String {
        let written = passed(text, told).unwrap_or_else(|status| panic!("{status} {text:?}"));
        let usual = [
            "",
            "Host: a",
            "X-Forwarded-For: 192.0.2.1",
            "X-Forwarded-Proto: http",
            "X-Forwarded-Host: a",
            "Via: 1.1 overfall",
            "X-Request-Start: t=1234",
        ];
        let lines: Vec<_> = written.split("\r\n").filter(|line| !usual.contains(line)).collect();
        lines.join("|")
    }

    #[test]
    fn a_request_is_written_in_full() {
        let text = "\r\nPOST /b?c HTTP/1.1\r\nX-B:  1 \r\nhost:a\r\nx-b: 2\r\nTE: trailers\r\n\
                    Connection: keep-alive, TE\r\nVia: 1.0 x\r\ncontent-length: 007\r\n\r\n1234567";
        assert_eq!(
            passed(text, TOLD).unwrap(),
            "POST /b?c HTTP/1.1\r\nHost: a\r\nX-B: 1\r\nx-b: 2\r\nVia: 1.0 x\r\n\
             X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n\
             Via: 1.1 overfall\r\nX-Request-Start: t=1234\r\nContent-Length: 7\r\n\r\n"
        );
        assert_eq!(
            passed("GET / HTTP/1.0\r\n\r\n", TOLD).unwrap(),
            "GET / HTTP/1.1\r\nHost: upstream:80\r\nX-Forwarded-For: 192.0.2.1\r\n\
             X-Forwarded-Proto: http\r\nVia: 1.0 overfall\r\nX-Request-Start: t=1234\r\n\r\n"
        );
    }

    #[test]
    fn a_target_is_written_in_origin_form() {
        for (line, written) in [
            ("GET /?a=%20 HTTP/1.1", "GET /?a=%20 HTTP/1.1"),
            ("GET //x/y HTTP/1.1", "GET //x/y HTTP/1.1"),
            ("GET http://a HTTP/1.1", "GET / HTTP/1.1"),
            ("GET http://a?b HTTP/1.1", "GET /?b HTTP/1.1"),
            ("GET HTTP://a/b?http://c/ HTTP/1.1", "GET /b?http://c/ HTTP/1.1"),
            ("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1"),
            ("OPTIONS http://a HTTP/1.1", "OPTIONS * HTTP/1.1"),
            ("OPTIONS http://a/ HTTP/1.1", "OPTIONS / HTTP/1.1"),
            ("OPTIONS http://a?b HTTP/1.1", "OPTIONS /?b HTTP/1.1"),
            ("get /x HTTP/1.1", "get /x HTTP/1.1"),
        ] {
            assert_eq!(lines(&format!("{line}\r\nHost: a\r\n\r\n"), TOLD), written);
        }
        // The target names the host before the field does.
        let written = passed("GET http://A:80/ HTTP/1.1\r\nHost: a\r\n\r\n", TOLD).unwrap();
        assert!(written.starts_with("GET / HTTP/1.1\r\nHost: A:80\r\n") && !written.contains("Host: a\r\n"));
        let written = passed("GET http://a/ HTTP/1.0\r\n\r\n", TOLD).unwrap();
        assert!(written.contains("\r\nHost: a\r\n") && written.contains("X-Forwarded-Host: a\r\n"));
    }

    #[test]
    fn fields_are_passed_on_or_dropped_by_their_names() {
        let trusted = Forwarded { trusted: true, ..TOLD };
        let underscores = Forwarded { keep_underscores: true, ..TOLD };
        let both = Forwarded { keep_underscores: true, ..trusted };
        let expect = Forwarded { pass_expect: true, ..TOLD };
        let upgrade = Forwarded { pass_upgrade: true, ..TOLD };
        for (told, fields, written) in [
            (TOLD, "A: b\r\na:\r\nA: \t c d\t", "A: b|a: |A: c d"),
            (TOLD, "Connection: X-A\r\nX-A: 1\r\nX-B: 2", "X-B: 2"),
            (
                TOLD,
                "Connection: Host, Cookie, Content-Type, Authorization\r\nCookie: c\r\n\
                 Content-Type: t\r\nAuthorization: x",
                "Cookie: c|Content-Type: t|Authorization: x",
            ),
            (TOLD, "Proxy: x\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\nKeep-Alive: x", ""),
            (TOLD, "TE: trailers\r\nTrailer: X\r\nUpgrade: websocket\r\nConnection: upgrade", ""),
            (TOLD, "X_Y: 1\r\nContent_Length: 5", ""),
            (
                underscores,
                "X_Y: 1\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\nX_Forwarded_For: x",
                "X_Y: 1",
            ),
            (both, "X_Forwarded_Proto: https\r\nX_Request_Start: 1", ""),
            (
                TOLD,
                "X-Forwarded-For: 1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 1\r\n\
                 X-Real-IP: 1\r\nForwarded: for=x\r\nX-Request-Start: t=1",
                "",
            ),
            (TOLD, "Connection: X-Forwarded-For", ""),
            (trusted, "Connection: X-Forwarded-For\r\nX-Forwarded-For: 1", "X-Forwarded-For: 1, 192.0.2.1"),
            (
                trusted,
                "X-Forwarded-For: 1, 2\r\nX-Forwarded-Proto: https\r\nx-forwarded-for: 3\r\n\
                 X-Request-Start: t=1",
                "X-Forwarded-Proto: https|X-Request-Start: t=1|X-Forwarded-For: 1, 2, 3, 192.0.2.1",
            ),
            (trusted, "X-Real-IP: 1\r\nForwarded: for=x", "X-Real-IP: 1|Forwarded: for=x"),
            (TOLD, "Expect: 100-continue", ""),
            (expect, "Expect: 100-Continue", "Expect: 100-continue"),
            (expect, "Expect: other", ""),
            (
                upgrade,
                "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: x",
                "Upgrade: websocket|Sec-WebSocket-Key: x|Connection: upgrade",
            ),
            (upgrade, "Upgrade: websocket", ""),
            (upgrade, "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: x", ""),
            (upgrade, "Upgrade: websocket, H2C\r\nConnection: Upgrade", ""),
            (upgrade, "Upgrade: HTTP/2.0\r\nConnection: Upgrade", ""),
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
            let expected = format!("GET / HTTP/1.1|{written}");
            assert_eq!(lines(&text, told), expected.trim_end_matches('|'), "{fields}");
        }
        let six = Forwarded { client: "::ffff:192.0.2.9".parse().unwrap(), ..TOLD };
        assert_eq!(
            lines("GET / HTTP/1.1\r\nHost: a\r\n\r\n", six),
            "GET / HTTP/1.1|X-Forwarded-For: 192.0.2.9"
        );
    }

    #[test]
    fn one_field_says_how_the_body_ends() {
        for (method, fields, written) in [
            ("GET", "", ""),
            ("GET", "Content-Length: 0\r\n", ""),
            ("POST", "", ""),
            ("POST", "Content-Length: 0\r\n", "|Content-Length: 0"),
            ("PUT", "Content-Length: 00\r\n", "|Content-Length: 0"),
            ("PATCH", "Content-Length: 5\r\n", "|Content-Length: 5"),
            ("GET", "Content-Length: 5\r\n", "|Content-Length: 5"),
            ("GET", "transfer-ENCODING: Chunked\r\n", "|Transfer-Encoding: chunked"),
            (
                "POST",
                "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
                "|Transfer-Encoding: chunked",
            ),
            ("POST", "Connection: Content-Length\r\nContent-Length: 5\r\n", "|Content-Length: 5"),
        ] {
            let text = format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            assert_eq!(lines(&text, TOLD), format!("{method} / HTTP/1.1{written}"), "{fields}");
        }
        // One in chunks that has been gathered goes on with its length.
        for (framing, line) in [
            (Framing::Length(9), "\r\nContent-Length: 9\r\n\r\n"),
            (Framing::Empty, "\r\nContent-Length: 0\r\n\r\n"),
        ] {
            let text = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            let head = head::parse(text).unwrap().unwrap();
            let mut out = Vec::new();
            write(&mut out, text, &head, &Forwarded { framing, ..TOLD });
            let written = String::from_utf8(out).unwrap();
            assert!(written.ends_with(line) && !written.contains("Transfer"), "{written}");
        }
    }

    #[test]
    fn what_smuggles_is_refused() {
        let many = "x,".repeat(40);
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunkedx",
            "Transfer-Encoding: \"chunked\"",
            "Transfer-Encoding: 'chunked'",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: identity, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked;q=1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: \u{b}chunked",
            "Transfer-Encoding: \u{c}chunked",
            "Transfer-Encoding: chunked\0",
            "Transfer-Encoding:",
            "Transfer-Encoding: ,chunked",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\t: chunked",
            "Transfer-Encoding\u{b}: chunked",
            " Transfer-Encoding: chunked",
            "Transfer-Encoding\n: chunked",
            "Transfer-Encoding:\r\n chunked",
            "X: y\r\n Transfer-Encoding: chunked",
            "X: y\r\n\tz",
            "X: y\nTransfer-Encoding: chunked",
            "X: y\rTransfer-Encoding: chunked",
            "X: y\n",
            "X:\n",
            "X: y\r\n\nGET / HTTP/1.1\r\nHost: b",
            "X\0Y: z",
            "X Y: z",
            "X: y\0z",
            ": y",
            "X",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5, 5",
            "Content-Length: 5,",
            "Content-Length: +5",
            "Content-Length: -0",
            "Content-Length: 0x5",
            "Content-Length: 5 5",
            "Content-Length: 5.",
            "Content-Length: \u{b}5",
            "Content-Length:",
            "Content-Length: 18446744073709551616",
            "Host: a",
            "Host: b",
            &format!("Connection: {many}"),
        ] {
            let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
            assert!(passed(&text, TOLD).is_err(), "{fields:?}");
        }
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a, b:x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\n\r\n",
            "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\tHTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET /\r\n\r\n",
            "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(passed(text, TOLD).is_err(), "{text:?}");
        }
    }

    /// Lines that requests are made of, right ones and wrong ones.
    const LINES: &[&str] = &[
        "Host: a:80",
        "Host:",
        "Content-Length: 2",
        "Content-Length:  007\t",
        "Content_Length: 3",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding:\tCHUNKED ",
        "Transfer-Encoding: gzip, chunked",
        "Connection: close, x-y",
        "Connection: content-length, host, transfer-encoding, via",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Expect: 100-continue",
        "X-Y: z",
        "X_Y: z",
        "X-Forwarded-For: 1",
        "X-Forwarded-Host: evil",
        "X-Request-Start: t=1",
        "Via: 1.1 x",
        "TE: trailers",
        "Trailer: x",
        "x\u{e9}: y",
        "x: \u{e9}",
        "x: y\nz: a",
        "x: y\r",
        " x",
        "x :y",
        "",
    ];

    proptest! {
        #[test]
        fn what_is_written_is_accepted_and_means_what_was_meant(
            method in prop::sample::select(vec!["GET", "HEAD", "POST", "OPTIONS", "PUT", "x"]),
            target in prop::sample::select(vec!["/", "*", "/a?b", "//a", "http://a", "http://a?b", "http://a:80/%41"]),
            version in prop::sample::select(vec!["1.1", "1.1", "1.0"]),
            host in prop::sample::select(vec!["Host: a\r\n", "host:\ta\r\n", ""]),
            fields in prop::collection::vec(prop::sample::select(LINES), 0..7),
            flags in prop::array::uniform4(any::<bool>()),
        ) {
            let text = format!("{method} {target} HTTP/{version}\r\n{host}{}\r\n\r\n", fields.join("\r\n"));
            let Ok(Some(head)) = head::parse(text.as_bytes()) else { return Ok(()) };
            let [trusted, keep_underscores, pass_expect, pass_upgrade] = flags;
            let told = Forwarded {
                trusted, keep_underscores, pass_expect, pass_upgrade, framing: head.framing, ..TOLD
            };
            let mut out = Vec::new();
            let came = &text.as_bytes()[..head.length];
            write(&mut out, came, &head, &told);
            let again = head::parse(&out).unwrap().unwrap();
            prop_assert!(again.strict && again.http_11 && again.persistent);
            prop_assert_eq!(again.length, out.len());
            prop_assert_eq!(&again.method, &head.method);
            prop_assert_eq!(again.framing, head.framing);
            prop_assert_eq!(again.expects_continue, head.expects_continue && pass_expect);
            prop_assert_eq!(again.upgrade, pass_upgrade && asks_for_upgrade(came, &head));
            // A path that is empty is that of the root.
            let path = |head: &Head| head.uri.path_and_query().map(|path| path.as_str().replace("/?", "?"));
            if !(head.method == Method::OPTIONS && target == "http://a") {
                prop_assert_eq!(path(&again), path(&head));
            }
            let (before, after) = (head::header_map(came), head::header_map(&out));
            let authority = head.uri.authority().map(|authority| authority.as_str());
            let named = authority.or_else(|| Some(before.get("host")?.to_str().unwrap()));
            prop_assert_eq!(after["host"].to_str().unwrap(), named.unwrap_or(TOLD.host));
            prop_assert!(after.get_all("x-forwarded-for").iter().count() == 1);
            prop_assert!(!["te", "trailer", "keep-alive"].iter().any(|name| after.contains_key(*name)));
            // Written once more it stays as it is, but for the way that it has taken.
            let mut once_more = Vec::new();
            let same = Forwarded { trusted: false, keep_underscores: true, pass_expect: true, pass_upgrade: true, ..told };
            write(&mut once_more, &out, &again, &same);
            prop_assert_eq!(head::parse(&once_more).unwrap().unwrap().framing, head.framing);
        }
    }
}
