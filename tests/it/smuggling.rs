//! Requests and replies that two parties could read differently: what an upstream sees is what was answered,
//! and nothing else. It knows the wire, not the proxy.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use overfall::balance::{self, Balancer, Config, HttpConfig, UpstreamConfig};
use parking_lot::Mutex;

use crate::{support::*, temporary::TempDir, upstream::*};

/// What follows each attempt on its connection.
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
/// What is to be taken for a body, or for nothing.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Fields that frame a body in no way or in two, or that are none; and what is said of a coding that is not
/// known.
const BAD_FIELDS: &[&str] = &[
    "Content-Length: 6\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 6",
    "Content-Length: 0\r\nTransfer-Encoding: chunked",
    "content-length: 6\r\ntransfer-encoding: chunked",
    "Content-Length: 6\r\nTransfer-Encoding: identity",
    "Content-Length: 6\r\nTransfer-Encoding: chunked\r\nConnection: Content-Length",
    "Content-Length: 6\r\nTransfer-Encoding: chunked\r\nConnection: Transfer-Encoding",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunkedx",
    "Transfer-Encoding: chunk",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: 'chunked'",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: chunked foo",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: ,",
    "Transfer-Encoding:",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    " Transfer-Encoding: chunked",
    "\tTransfer-Encoding: chunked",
    "X: y\r\n Transfer-Encoding: chunked",
    "X: y\r\n\tTransfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding: chunked\0",
    "Transfer-Encoding: \0chunked",
    "Transfer-Encoding: \x0bchunked",
    "Transfer-Encoding: \x0cchunked",
    "Transfer-Encoding: chunked\x7f",
    "Transfer-Encoding\u{a0}: chunked",
    "\u{feff}Transfer-Encoding: chunked",
    "Trans\rfer-Encoding: chunked",
    "Trans\0fer-Encoding: chunked",
    "Foo: bar\rTransfer-Encoding: chunked",
    "Foo: bar\nTransfer-Encoding: chunked",
    "Foo: bar\r\r\nTransfer-Encoding: chunked",
    "Foo: bar\n\rTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\nContent-Length: 6",
    "Content-Length: 6\nTransfer-Encoding: chunked",
    "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: 6\r\nContent-Length: 5",
    "Content-Length: 5\r\nContent-Length: 5",
    "Content-Length: 5\r\nContent-Length: 05",
    "Content-Length: 5\r\ncontent-length: 0",
    "Content-Length: 5, 6",
    "Content-Length: 5, 5",
    "Content-Length: 5,",
    "Content-Length: ,5",
    "Content-Length:",
    "Content-Length: +5",
    "Content-Length: -5",
    "Content-Length: -0",
    "Content-Length: 0x5",
    "Content-Length: 0b101",
    "Content-Length: 5 5",
    "Content-Length: 5a",
    "Content-Length: a5",
    "Content-Length: 5;",
    "Content-Length: 5.0",
    "Content-Length: 5e0",
    "Content-Length: 5_0",
    "Content-Length: \"5\"",
    "Content-Length: \u{ff15}",
    "Content-Length: \u{0665}",
    "Content-Length: 5\t6",
    "Content-Length: 5\x0b",
    "Content-Length: 5\0",
    "Content-Length: 5\u{a0}",
    "Content-Length : 5",
    "Content-Length\0: 5",
    "Content-Length:\r\n 5",
    "Content-Length: 5\r\n 5",
    "Content-Length: 18446744073709551615",
    "Content-Length: 18446744073709551616",
    "Content-Length: 99999999999999999999999999",
    "Host: a",
    "Host: b",
    "hOST: b",
    "Host:",
    "Host : a",
    "Host\t: a",
    "\rHost: b",
    "X Y: z",
    ": z",
    "X",
    "X\0Y: z",
    "X\x7f: z",
    "(X): z",
    "X,Y: z",
    "X@Y: z",
    "X[]: z",
    "X\"Y\": z",
    "\u{e9}: z",
    "X: a\0b",
    "X: a\rb",
    "X: a\x01b",
    "X: a\x7fb",
    "X: a\r\n b",
    "X: a\n",
    "X: a\r",
    "\0",
    "\r",
];

/// Bodies in chunks that are none.
const BAD_CHUNKS: &[&str] = &[
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "5\t\r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "5_0\r\nhello\r\n0\r\n\r\n",
    "5,5\r\nhello\r\n0\r\n\r\n",
    "5.\r\nhello\r\n0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "5\rhello\r\n0\r\n\r\n",
    "5\r\r\nhello\r\n0\r\n\r\n",
    "5\n\r\nhello\r\n0\r\n\r\n",
    "5\0\r\nhello\r\n0\r\n\r\n",
    "5\x0b\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello\r0\r\n\r\n",
    "5\r\nhelloX\r\n0\r\n\r\n",
    "5\r\nhello\r\n\r\n0\r\n\r\n",
    "5\r\n\r\nhello\r\n0\r\n\r\n",
    "5;a\nb\r\nhello\r\n0\r\n\r\n",
    "5;a\rb\r\nhello\r\n0\r\n\r\n",
    "5;\0\r\nhello\r\n0\r\n\r\n",
    "5;a\nhello\r\n0\r\n\r\n",
    "5\n;a\r\nhello\r\n0\r\n\r\n",
    "10000000000000000\r\nhello\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "00000000000000005\r\nhello\r\n0\r\n\r\n",
    "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "g\r\nhello\r\n0\r\n\r\n",
    "\u{ff15}\r\nhello\r\n0\r\n\r\n",
    "\r\nhello\r\n0\r\n\r\n",
    "\nhello\r\n0\r\n\r\n",
    ";x\r\nhello\r\n0\r\n\r\n",
    "0\n\r\n",
    "0\r\n\n",
    "0\n\n",
    "0\r\n\rX",
    "0 \r\n\r\n",
    "0\r\nX\r\n\r\n",
    "0\r\n X: y\r\n\r\n",
    "0\r\nX : y\r\n\r\n",
    "0\r\nX\0: y\r\n\r\n",
    "0\r\n: y\r\n\r\n",
    "0\r\nX: y\n\r\n",
    "0\r\nX: y\r\r\n\r\n",
    "0\r\nX: a\0b\r\n\r\n",
    "0\r\nX: a\r\n b\r\n\r\n",
    "0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// First lines that are none, before a host and an empty line.
const BAD_LINES: &[&str] = &[
    "GET",
    "GET /",
    "GET / ",
    "GET / HTTP/1.1 ",
    "GET  / HTTP/1.1",
    "GET /  HTTP/1.1",
    "GET\t/\tHTTP/1.1",
    "GET / HTTP/1.1\r\n ",
    "GET /\0 HTTP/1.1",
    "GET /\r HTTP/1.1",
    "GET /a b HTTP/1.1",
    "GET /\x7f HTTP/1.1",
    "GET a HTTP/1.1",
    "GET ?a HTTP/1.1",
    "GET * HTTP/1.1",
    "GET # HTTP/1.1",
    "GET /#a HTTP/1.1",
    "GET \\a HTTP/1.1",
    "GET /\\a HTTP/1.1",
    "GET http:/a HTTP/1.1",
    "GET http:///x HTTP/1.1",
    "GET http://b/ HTTP/1.1",
    "GET http://a@b/ HTTP/1.1",
    "GET http://b@a/ HTTP/1.1",
    "GET http://a:81/ HTTP/1.1",
    "GET https://a:80/ HTTP/1.1",
    "GET ftp://a/ HTTP/1.1",
    "GET file:///etc/passwd HTTP/1.1",
    "CONNECT a:80 HTTP/1.1",
    "CONNECT / HTTP/1.1",
    "GET / HTTP/1.2",
    "GET / HTTP/2.0",
    "GET / HTTP/0.9",
    "GET / HTTP/1.10",
    "GET / HTTP/01.1",
    "GET / HTTP/1,1",
    "GET / HTTP/1",
    "GET / http/1.1",
    "GET / HTTP /1.1",
    "GET / ICAP/1.1",
    "PRI * HTTP/2.0",
    "(GET) / HTTP/1.1",
    "GE\0T / HTTP/1.1",
    " GET / HTTP/1.1",
    "\tGET / HTTP/1.1",
    "\u{e9} / HTTP/1.1",
    ": / HTTP/1.1",
];

/// What is refused, however it is meant.
fn refused() -> Vec<String> {
    let post = "POST /x HTTP/1.1\r\nHost: a\r\n";
    let mut all = Vec::new();
    for fields in BAD_FIELDS {
        all.push(format!("{post}{fields}\r\n\r\n0\r\n\r\n{SMUGGLED}"));
    }
    for chunks in BAD_CHUNKS {
        all.push(format!("{post}Transfer-Encoding: chunked\r\n\r\n{chunks}{SMUGGLED}"));
    }
    for line in BAD_LINES {
        all.push(format!("{line}\r\nHost: a\r\n\r\n{SMUGGLED}"));
    }
    let more = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\rHost: a\r\r",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: http://a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    ];
    all.extend(more.iter().map(|text| format!("{text}{SMUGGLED}")));
    all
}

/// What is taken, in one way: a request, and how the upstream reads it.
fn taken() -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    let mut take = |text: &str, seen: &[&str]| {
        all.push((text.to_owned(), seen.iter().map(|seen| (*seen).to_owned()).collect()));
    };
    // A body that looks like a request is a body.
    let length = SMUGGLED.len();
    let body = hex(SMUGGLED.as_bytes());
    for fields in [
        format!("Content-Length: {length}"),
        format!("content-length:{length}"),
        format!("Content-Length: \t{length}\t "),
        format!("Content-Length: 00{length}"),
        format!("Content-Length: {length}\r\nTransfer_Encoding: chunked"),
        format!("Content-Length: {length}\r\nContent_Length: 0"),
        format!("Content-Length: {length}\r\nContent-Length_: 0"),
        format!("Content-Length: {length}\r\nX-Content-Length: 0"),
        format!("Content-Length: {length}\r\nTransfer-Encodin: chunked"),
        format!("Content-Length: {length}\r\nConnection: Content-Length"),
        format!("Content-Length: {length}\r\nConnection: Host"),
        format!("Content-Length: {length}\r\nConnection: content-length, host, keep-alive"),
        format!("Content-Length: {length}\r\nKeep-Alive: Transfer-Encoding\r\nProxy-Connection: close"),
        format!("Content-Length: {length}\r\nTE: trailers, chunked\r\nTrailer: Content-Length"),
        format!("Content-Length: {length}\r\nExpect: 100-continue"),
        format!("Content-Length: {length}\r\nexpect: 100-Continue, x"),
        format!("Content-Length: {length}\r\nExpect: 200-ok"),
        format!("Content-Length: {length}\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings"),
        format!("Content-Length: {length}\r\nUpgrade: websocket\r\nConnection: Upgrade"),
        format!("Content-Length: {length}\r\nX-HTTP-Method-Override: HEAD"),
    ] {
        let text = format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{SMUGGLED}");
        take(&text, &[&format!("POST /x a {body}")]);
    }
    for (field, chunks) in [
        ("Transfer-Encoding: chunked", format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n")),
        ("transfer-encoding:\tChUnKeD \t", format!("{length:X}\r\n{SMUGGLED}\r\n0\r\n\r\n")),
        ("Transfer-Encoding: chunked", format!("00{length:x}\r\n{SMUGGLED}\r\n000\r\n\r\n")),
        ("Transfer-Encoding: chunked", format!("{length:x};a=\"b\"\r\n{SMUGGLED}\r\n0;c\r\n\r\n")),
        ("Transfer-Encoding: chunked", format!("{length:x};\r\n{SMUGGLED}\r\n0\r\n\r\n")),
        ("Transfer-Encoding: chunked", format!("{length:x}\r\n{SMUGGLED}\r\n0\r\nContent-Length: 9\r\n\r\n")),
        (
            "Transfer-Encoding: chunked\r\nTrailer: Host",
            format!("{length:x}\r\n{SMUGGLED}\r\n0\r\nHost: b\r\nTransfer-Encoding: x\r\n\r\n"),
        ),
        ("Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding", {
            let pieces: Vec<_> = SMUGGLED.chars().map(|c| format!("1\r\n{c}\r\n")).collect();
            format!("{}0\r\n\r\n", pieces.concat())
        }),
    ] {
        let text = format!("PUT /x HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n{chunks}");
        take(&text, &[&format!("PUT /x a {body}")]);
    }
    // What names no body has none, and what follows it is a request.
    for (line, seen) in [
        ("POST /x HTTP/1.1", "POST /x a -"),
        ("HEAD /x HTTP/1.1", "HEAD /x a -"),
        ("DELETE /x HTTP/1.1", "DELETE /x a -"),
        ("OPTIONS * HTTP/1.1", "OPTIONS * a -"),
        ("OPTIONS http://a HTTP/1.1", "OPTIONS * a -"),
        ("GET http://a HTTP/1.1", "GET / a -"),
        ("GET http://a?b HTTP/1.1", "GET /?b a -"),
        ("GET HTTP://A/x HTTP/1.1", "GET /x A -"),
        ("GET http://a:80/x?y=http://b/ HTTP/1.1", "GET /x?y=http://b/ a:80 -"),
        ("GET //b/x HTTP/1.1", "GET //b/x a -"),
        ("GET /http://b/ HTTP/1.1", "GET /http://b/ a -"),
        ("GET /x;y=%0d%0aHost:%20b HTTP/1.1", "GET /x;y=%0d%0aHost:%20b a -"),
        ("GET /../x/./%2e%2e/y HTTP/1.1", "GET /../x/./%2e%2e/y a -"),
    ] {
        take(&format!("{line}\r\nHost: a\r\n\r\n"), &[seen]);
    }
    take("\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n\r\n", &["GET /x a -"]);
    take("GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", &["GET /x a -"]);
    take("GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", &["GET /x a 6869"]);
    take("HEAD /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", &["HEAD /x a 6869"]);
    take("GET /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &["GET /x a -"]);
    take("GET /x HTTP/1.1\r\nHost: a\r\nX_Y: 1\r\nX-Y: 2\r\n\r\n", &["GET /x a -"]);
    take("GET /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", &["GET /x a -"]);
    take(
        "POST /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
        &["POST /x a 6869"],
    );
    take(
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\nhi",
        &["GET /1 a -", "POST /2 b 6869"],
    );
    all
}

/// Bytes in two digits each, as every upstream can write them.
fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() { "-".into() } else { bytes.iter().map(|byte| format!("{byte:02x}")).collect() }
}

/// What a strict upstream has seen: how it has read each request, and what it could not read.
#[derive(Default)]
struct Seen {
    requests: Vec<String>,
    odd: Vec<String>,
}

/// An upstream that takes nothing but what can be read in one way, and replies with its reading.
fn strict() -> (Upstream, Arc<Mutex<Seen>>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let notes = Arc::clone(&seen);
    let upstream = upstream(move |head, peer| match read_strictly(head, peer) {
        Ok(Some(request)) => {
            notes.lock().requests.push(request.clone());
            let body = if request.starts_with("HEAD ") { "" } else { "ok" };
            peer.say(&format!(
                "HTTP/1.1 200 OK\r\nX-Seen: {request}\r\nContent-Length: {}\r\n\r\n{body}",
                "ok".len()
            ));
            Next::Keep
        }
        // Cut off.
        Ok(None) => Next::Close,
        Err(what) => {
            notes.lock().odd.push(format!("{what}: {head:?}"));
            Next::Close
        }
    });
    (upstream, seen)
}

/// A request as it is read by who forgives nothing; none where its body is cut off.
fn read_strictly(head: &str, peer: &mut Peer) -> Result<Option<String>, &'static str> {
    let text = head.strip_suffix("\r\n\r\n").ok_or("no end")?;
    if text.replace("\r\n", "").contains(['\r', '\n', '\0']) {
        return Err("a bare CR, LF or NUL");
    }
    let mut lines = text.split("\r\n");
    let words: Vec<_> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { return Err("a first line of other words") };
    if !(target.starts_with('/') || (target == "*" && method == "OPTIONS")) {
        return Err("a target in another form");
    }
    let (mut host, mut length, mut chunked) = (None, None, false);
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or("a line that is no field")?;
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^`|~".contains(c);
        if name.is_empty() || !name.chars().all(is_token) || value.trim_matches([' ', '\t']) != value {
            return Err("an odd field");
        }
        let again = match &*name.to_ascii_lowercase() {
            "host" => host.replace(value).is_some(),
            "content-length" => {
                let number: usize = value.parse().map_err(|_| "an odd length")?;
                if number.to_string() != value {
                    return Err("an odd length");
                }
                length.replace(number).is_some()
            }
            "transfer-encoding" if value == "chunked" => std::mem::replace(&mut chunked, true),
            "transfer-encoding" | "te" | "trailer" | "keep-alive" | "proxy-connection" => true,
            "expect" => {
                peer.say("HTTP/1.1 100 Continue\r\n\r\n");
                value != "100-continue"
            }
            "connection" => value != "upgrade",
            _ => false,
        };
        if again {
            return Err("a field that may not be there, or is there twice");
        }
    }
    let host = host.ok_or("no host")?;
    let body = match (length, chunked) {
        (Some(_), true) => return Err("framed twice"),
        (Some(length), false) => Some(peer.body(length)).filter(|body| body.len() == length),
        (None, true) => read_chunks(peer)?,
        (None, false) => Some(Vec::new()),
    };
    let target = target.escape_debug();
    Ok(body.map(|body| format!("{method} {target} {host} {}", hex(&body))))
}

fn read_chunks(peer: &mut Peer) -> Result<Option<Vec<u8>>, &'static str> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            match peer.body(1)[..] {
                [byte] => line.push(byte),
                _ => return Ok(None),
            }
        }
        let digits = std::str::from_utf8(&line[..line.len() - 2]).map_err(|_| "an odd chunk")?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err("an odd chunk");
        }
        let size = usize::from_str_radix(digits, 16).map_err(|_| "an odd chunk")?;
        let piece = peer.body(size);
        let end = peer.body(2);
        if piece.len() < size || end.len() < 2 {
            return Ok(None);
        }
        if end != b"\r\n" {
            return Err("a chunk without end");
        }
        if size == 0 {
            return Ok(Some(body));
        }
        body.extend(piece);
    }
}

/// What a client hears that says this and then no more: how the upstream has read its requests, and with
/// which status others were refused.
fn answers(addr: SocketAddr, bytes: &[u8]) -> Vec<String> {
    let mut client = connect(addr);
    // It may be refused before all was sent.
    let _ = client.write_all(bytes);
    let _ = client.shutdown(Shutdown::Write);
    let mut heard = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match client.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => heard.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("no end of {:?}, after {:?}", escape(bytes), escape(&heard))
            }
            // A reset.
            Err(_) => break,
        }
    }
    read_replies(&heard)
}

fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Replies one behind the other, of which each that is not informational says one thing.
fn read_replies(mut heard: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    while !heard.is_empty() {
        let Some(end) = heard.windows(4).position(|end| end == b"\r\n\r\n") else {
            all.push(format!("broken {}", escape(heard)));
            break;
        };
        let head = String::from_utf8_lossy(&heard[..end + 2]).into_owned();
        heard = &heard[end + 4..];
        let status =
            head.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("no reply: {head:?}"))[..3].to_owned();
        if status.starts_with('1') {
            continue;
        }
        let field = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let seen = field("x-seen");
        let is_head = seen.as_ref().is_some_and(|seen| seen.starts_with("HEAD "));
        heard = match (field("content-length"), field("transfer-encoding")) {
            _ if is_head => heard,
            (Some(length), _) => &heard[length.parse::<usize>().expect("a length").min(heard.len())..],
            (None, Some(_)) => behind_chunks(heard),
            (None, None) => heard,
        };
        all.push(seen.unwrap_or(status));
    }
    all
}

/// What follows a body in chunks.
fn behind_chunks(mut heard: &[u8]) -> &[u8] {
    loop {
        let end = heard.windows(2).position(|end| end == b"\r\n").expect("the end of a line");
        let digits = std::str::from_utf8(&heard[..end]).expect("digits");
        let size = usize::from_str_radix(digits, 16).expect("a size");
        assert_eq!(&heard[end + 2 + size..][..2], b"\r\n");
        heard = &heard[end + 2 + size + 2..];
        if size == 0 {
            return heard;
        }
    }
}

fn strict_proxy() -> (Balancer, SocketAddr, Arc<Mutex<Seen>>, Upstream) {
    let (upstream, seen) = strict();
    let proxy = proxy(&[&upstream]);
    let addr = proxy.handle().local_addr();
    (proxy, addr, seen, upstream)
}

#[test]
fn what_could_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_served() {
    let (_proxy, addr, seen, _upstream) = strict_proxy();
    let all = refused();
    assert!(all.len() >= 150, "{}", all.len());
    let mut wrong = Vec::new();
    for text in &all {
        let answers = answers(addr, format!("{text}{NEXT}").as_bytes());
        let is_refusal = |status: &String| ["400", "414", "431", "501", "505"].contains(&&**status);
        if !(answers.len() == 1 && answers.iter().all(is_refusal)) {
            wrong.push(format!("{text:?}: {answers:?}"));
        }
    }
    let seen = seen.lock();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen.requests.is_empty() && seen.odd.is_empty(), "{:?} {:?}", seen.requests, seen.odd);
}

#[test]
fn what_is_taken_is_read_in_one_way() {
    let (_proxy, addr, seen, _upstream) = strict_proxy();
    let mut wrong = Vec::new();
    for (text, mut expected) in taken() {
        expected.push("GET /next a -".into());
        let answers = answers(addr, format!("{text}{NEXT}").as_bytes());
        let requests = std::mem::take(&mut seen.lock().requests);
        if answers != expected || requests != expected {
            wrong.push(format!("{text:?}: answered {answers:?}, seen {requests:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen.lock().odd.is_empty(), "{:?}", seen.lock().odd);
}

/// Pieces that are put where they do not belong.
const PIECES: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    ",",
    "\r\n\r\n",
    "\r\n ",
    "0",
    "5",
    "0\r\n\r\n",
    "Host: b\r\n",
    "\u{e9}",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive, X\r\n",
    "Expect: 100-continue\r\n",
    "HTTP/1.0",
    "HTTP/1.1",
    "GET /p HTTP/1.1\r\n",
    "HEAD ",
    "hello",
    "5\r\nhello\r\n",
    "Upgrade: x\r\nConnection: upgrade\r\n",
    ";",
    "_",
    "http://a/",
];

/// Whatever comes and however it is cut, what the upstream sees is well-formed, and is what was answered.
/// `OVERFALL_FUZZ_PROXY` says how many connections to make.
#[test]
fn whatever_comes_the_upstream_sees_what_is_answered() {
    let count = std::env::var("OVERFALL_FUZZ_PROXY").ok().and_then(|count| count.parse().ok());
    let count: usize = count.unwrap_or(2_000);
    let mut corpus = refused();
    corpus.extend(taken().into_iter().map(|(text, _)| text));
    // What is right is to be met as often as what is wrong.
    let right: Vec<_> = taken().into_iter().map(|(text, _)| text).collect();
    let corpus = Arc::new((corpus, right));
    let each = count.div_ceil(4);
    all_at_once(4, move |index| fuzz(index as u64, each, &corpus.0, &corpus.1));
}

fn fuzz(seed: u64, count: usize, all: &[String], right: &[String]) {
    let mut random = fastrand::Rng::with_seed(1600 + seed);
    let (_proxy, addr, seen, _upstream) = strict_proxy();
    for _ in 0..count {
        let mut bytes = Vec::new();
        for _ in 0..random.usize(1..4) {
            let from = if random.u8(..4) == 0 { all } else { right };
            bytes.extend_from_slice(from[random.usize(..from.len())].as_bytes());
        }
        for _ in 0..random.usize(..4) {
            mutate(&mut bytes, &mut random);
        }
        let answers = answers(addr, &bytes);
        let answered: Vec<_> = answers.into_iter().filter(|answer| answer.contains(' ')).collect();
        let mut seen = seen.lock();
        assert!(seen.odd.is_empty(), "{:?}: {:?}", escape(&bytes), seen.odd);
        assert_eq!(std::mem::take(&mut seen.requests), answered, "{:?}", escape(&bytes));
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    if bytes.is_empty() {
        return;
    }
    let at = random.usize(..bytes.len());
    let end = (at + random.usize(1..8)).min(bytes.len());
    match random.u8(..6) {
        0 => bytes[at] = random.u8(..),
        1 => drop(bytes.drain(at..end)),
        2 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        3 if random.bool() => bytes.truncate(at),
        _ => {
            let piece = PIECES[random.usize(..PIECES.len())].bytes();
            bytes.splice(at..at, piece);
        }
    }
}

/// A reply that nobody asked for.
const STALE: &str = "HTTP/1.1 200 OK\r\nX-Seen: GET /stale a -\r\nContent-Length: 5\r\n\r\nstale";

/// Replies behind which nothing belongs, and what their client is told.
fn replies() -> Vec<(&'static str, String, &'static str)> {
    let exact = |length: usize| {
        let head = "HTTP/1.1 200 OK\r\nX-Seen: first\r\nContent-Length: ";
        let body = length - head.len() - 9;
        format!("{head}{body:05}\r\n\r\n{}", "x".repeat(body))
    };
    let ok = "HTTP/1.1 200 OK\r\nX-Seen: first\r\n";
    vec![
        ("GET", format!("{ok}Content-Length: 0\r\n\r\n"), "first"),
        ("GET", format!("{ok}Content-Length: 2\r\n\r\nhi"), "first"),
        ("GET", exact(16 * 1024 - 1), "first"),
        ("GET", exact(16 * 1024 + 1), "first"),
        ("GET", format!("{ok}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "first"),
        ("GET", format!("{ok}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nA: b\r\n\r\n"), "first"),
        ("GET", "HTTP/1.1 204 No Content\r\nX-Seen: first\r\n\r\nhello".into(), "first"),
        ("GET", "HTTP/1.1 204 No Content\r\nX-Seen: first\r\nContent-Length: 5\r\n\r\nhello".into(), "first"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nX-Seen: first\r\n\r\nhello".into(), "first"),
        ("GET", "HTTP/1.1 205 Reset Content\r\nX-Seen: first\r\n\r\nhello".into(), "first"),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nX-Seen: HEAD first\r\nContent-Length: 5\r\n\r\nhello".into(),
            "HEAD first",
        ),
        ("GET", format!("{ok}Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi"), "either"),
        ("GET", format!("{ok}Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi"), "502"),
        ("GET", format!("{ok}Content-Length: 2, 3\r\n\r\nhi"), "502"),
        ("GET", format!("{ok}Content-Length: +2\r\n\r\nhi"), "502"),
        ("GET", format!("{ok}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "502"),
        ("GET", format!("{ok}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"), "502"),
        ("GET", format!("{ok}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"), "502"),
        ("GET", format!("{ok}X : y\r\nContent-Length: 0\r\n\r\n"), "502"),
        ("GET", format!("{ok}X: y\r\n z\r\nContent-Length: 0\r\n\r\n"), "502"),
        ("GET", format!("{ok}X: y\0\r\nContent-Length: 0\r\n\r\n"), "502"),
        ("GET", format!("{ok}X: y\nContent-Length: 0\r\n\r\n"), "502"),
        ("GET", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), "502"),
        ("GET", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n".into(), "502"),
        ("GET", "HTTP/1.1 99 OK\r\nContent-Length: 0\r\n\r\n".into(), "502"),
        ("GET", "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello".into(), "502"),
        (
            "GET",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".into(),
            "502",
        ),
        ("GET", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into(), "502"),
        ("GET", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(9), "502"),
    ]
}

#[test]
fn what_an_upstream_sends_behind_its_reply_is_nobodys() {
    replies().into_iter().for_each(|(method, reply, told)| nothing_stale(method, reply, told));
}

/// It was read to the end of the buffer, behind which more lies in the socket.
#[test]
fn what_follows_a_reply_that_fills_the_buffer_is_nobodys() {
    let head = "HTTP/1.1 200 OK\r\nX-Seen: first\r\nContent-Length: 16";
    for length in [1, 2] {
        let body = length * 16 * 1024 - (head.len() + 4 + 3);
        let head = format!("{}{body:05}\r\n\r\n", head.strip_suffix("16").unwrap());
        nothing_stale("GET", format!("{head}{}", "x".repeat(body)), "first");
    }
}

/// The beginning of a text, which tells it from the others.
fn brief(text: &str) -> &str {
    &text[..text.len().min(100)]
}

/// The first request is answered so, with more behind it; the next are to be answered for themselves.
fn nothing_stale(method: &str, reply: String, told: &str) {
    let text = reply.clone();
    let upstream = upstream(move |head, peer| {
        let mut words = head.split(' ');
        match (words.next(), words.next()) {
            (_, Some("/first")) => peer.say(&format!("{text}{STALE}")),
            (Some(method), Some(target)) => {
                peer.say(&format!(
                    "HTTP/1.1 200 OK\r\nX-Seen: {method} {target}\r\nContent-Length: 0\r\n\r\n"
                ));
            }
            _ => {}
        }
        Next::Keep
    });
    let proxy = proxy(&[&upstream]);
    let addr = proxy.handle().local_addr();
    let text = format!("{method} /first HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    let heard = answers(addr, text.as_bytes());
    let right = told == "either" || heard.first().is_some_and(|first| first == told);
    assert!(right && heard[1..].iter().all(|seen| seen == "GET /second"), "{:?}: {heard:?}", brief(&reply));
    for _ in 0..3 {
        assert_eq!(
            answers(addr, b"GET /third HTTP/1.1\r\nHost: a\r\n\r\n"),
            ["GET /third"],
            "{:?}",
            brief(&reply)
        );
    }
}

/// A real upstream, as a process that is killed when dropped. It prints where it listens, and replies with
/// how it has read each request.
struct Real {
    child: Child,
    addr: SocketAddr,
    _directory: TempDir,
}

impl Drop for Real {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = rustix::process::kill_process_group(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::KILL,
        );
        let _ = self.child.wait();
    }
}

/// Starts this script; none where there is nothing to run it, or it does not begin.
fn real(name: &str, run: &[&str], file: &str, script: &str) -> Option<Real> {
    use std::os::unix::process::CommandExt;
    let directory = TempDir::new(name);
    let path = directory.write(file, script);
    let child =
        Command::new(run[0]).args(&run[1..]).arg(&path).stdout(Stdio::piped()).process_group(0).spawn();
    let found = child.ok().and_then(|mut child| {
        let mut line = String::new();
        BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
        let Ok(addr) = line.trim().parse() else {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        };
        Some(Real { child, addr, _directory: directory })
    });
    if found.is_none() {
        eprintln!("SKIPPED: {name} cannot be run here, and is not asked how it reads what the proxy sends");
    }
    found
}

/// What a real upstream is asked, and how it must have read it. Where it refuses what the strict one takes,
/// nothing behind that is served.
fn reads_alike(real: Option<Real>) {
    let Some(real) = real else { return };
    let config = Config {
        http: Some(HttpConfig::default()),
        upstreams: vec![UpstreamConfig { name: real.addr.to_string(), weight: 1 }],
        check_interval: Duration::from_secs(3600),
        ..Config::default()
    };
    let proxy = balance::serve(builder(), config).expect("it serves");
    let addr = proxy.handle().local_addr();
    let (mut served, mut wrong) = (0, Vec::new());
    for (text, mut expected) in taken() {
        expected.push("GET /next a -".into());
        let heard = answers(addr, format!("{text}{NEXT}").as_bytes());
        let alike = heard.iter().zip(&expected).all(|(heard, seen)| heard == seen || heard.len() == 3);
        served += heard.iter().filter(|heard| heard.contains(' ')).count();
        if !alike || heard.len() != expected.len() {
            wrong.push(format!("{text:?}: {heard:?}"));
        }
    }
    for text in refused() {
        let heard = answers(addr, format!("{text}{NEXT}").as_bytes());
        if heard.len() != 1 || heard[0].contains(' ') {
            wrong.push(format!("{text:?}: {heard:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // It counts what it has seen, this included.
    let count = answers(addr, b"GET /count HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(count, [format!("{}", served + 1) + " requests"]);
}

#[test]
fn node_reads_it_alike() {
    let script = r#"
let count = 0;
const server = require('http').createServer((request, response) => {
    const pieces = [];
    request.on('data', (piece) => pieces.push(piece));
    request.on('end', () => {
        count += 1;
        const body = Buffer.concat(pieces).toString('hex') || '-';
        const seen = request.url === '/count' ? `${count} requests`
            : `${request.method} ${request.url} ${request.headers.host} ${body}`;
        response.writeHead(200, { 'X-Seen': seen, 'Content-Length': 2 });
        response.end('ok');
    });
});
server.on('upgrade', () => {});
server.removeAllListeners('upgrade');
server.listen(0, '127.0.0.1', () => console.log(`127.0.0.1:${server.address().port}`));
"#;
    reads_alike(real("node", &["node"], "upstream.js", script));
}

#[test]
fn go_reads_it_alike() {
    let script = r#"
package main

import ("fmt"; "io"; "net"; "net/http"; "sync/atomic")

func main() {
	var count int64
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil { panic(err) }
	fmt.Println(listener.Addr())
	http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil { panic(http.ErrAbortHandler) }
		n := atomic.AddInt64(&count, 1)
		text := fmt.Sprintf("%x", body)
		if text == "" { text = "-" }
		seen := fmt.Sprintf("%s %s %s %s", r.Method, r.RequestURI, r.Host, text)
		if r.RequestURI == "/count" { seen = fmt.Sprintf("%d requests", n) }
		w.Header().Set("X-Seen", seen)
		w.Header().Set("Content-Length", "2")
		io.WriteString(w, "ok")
	}))
}
"#;
    reads_alike(real("go", &["go", "run"], "upstream.go", script));
}

#[test]
fn python_reads_it_alike() {
    let script = r#"
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

count = 0

class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    # In one piece, so that nothing waits for an acknowledgement.
    wbufsize = 1 << 16

    def __getattr__(self, name):
        if name.startswith('do_'):
            return self.serve
        raise AttributeError(name)

    def serve(self):
        global count
        length = int(self.headers.get('Content-Length', 0))
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return
        count += 1
        words = self.requestline.split(' ')
        seen = f"{words[0]} {words[1]} {self.headers['Host']} {body.hex() or '-'}"
        if words[1] == '/count':
            seen = f'{count} requests'
        self.send_response(200)
        self.send_header('X-Seen', seen)
        self.send_header('Content-Length', '2')
        self.end_headers()
        if words[0] != 'HEAD':
            self.wfile.write(b'ok')

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print(f'127.0.0.1:{server.server_port}', flush=True)
server.serve_forever()
"#;
    reads_alike(real("python", &["python3"], "upstream.py", script));
}
