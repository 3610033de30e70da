//! HTTP/1.1: what is answered, with what status, and to whom it costs what.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use overfall::{
    Builder, Connection, Handle, Handler, Next,
    http::{Failure, HeaderValue, Http, Request, Response, StatusCode, header},
};
use proptest::prelude::*;

use crate::support::{
    BRIEF, PATIENCE, Served, all_at_once, await_that, builder, connect, exchange, rest, serve, tell,
};

/// A reply as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reply {
    status: u16,
    /// In small letters, without the date.
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Receives one reply; none at the end of the stream. A reply to `HEAD` has no body.
fn receive(mut stream: impl Read, head_only: bool) -> io::Result<Option<Reply>> {
    let head = read_up_to(&mut stream, b"\r\n\r\n")?;
    if head.is_empty() {
        return Ok(None);
    }
    let head = String::from_utf8(head).expect("text").to_lowercase();
    let status = head.strip_prefix("http/1.1 ").and_then(|head| head[..3].parse().ok()).expect("a status");
    let mut body = Vec::new();
    if let Some(length) = field(&head, "content-length").filter(|_| !head_only) {
        let mut bytes = vec![0; length.parse().expect("a length")];
        stream.read_exact(&mut bytes)?;
        body = bytes;
    } else if field(&head, "transfer-encoding").is_some() && !head_only {
        loop {
            let size = String::from_utf8(read_up_to(&mut stream, b"\r\n")?).expect("text");
            let Ok(size) = usize::from_str_radix(size.trim_end(), 16) else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk)?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    } else if field(&head, "connection") == Some("close") && !head_only {
        stream.read_to_end(&mut body)?;
    }
    let head: Vec<_> = head.lines().filter(|line| !line.starts_with("date: ")).collect();
    Ok(Some(Reply { status, head: head.join("\n"), body }))
}

/// Reads up to these bytes and with them, or up to the end of the stream.
fn read_up_to(mut stream: impl Read, end: &[u8]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(end) && stream.read(&mut byte)? == 1 {
        text.push(byte[0]);
    }
    Ok(text)
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// All replies up to the end of the stream.
fn receive_all(stream: &TcpStream) -> Vec<Reply> {
    let mut replies = Vec::new();
    while let Some(reply) = receive(stream, false).expect("a reply or the end") {
        replies.push(reply);
    }
    replies
}

/// Sends it, ends that side, and gives all replies.
fn ask_all(addr: SocketAddr, bytes: &[u8]) -> Vec<Reply> {
    let mut stream = connect(addr);
    stream.write_all(bytes).expect("it reads");
    stream.shutdown(Shutdown::Write).expect("it is there");
    receive_all(&stream)
}

fn ask(stream: &TcpStream, request: &str) -> Reply {
    tell(stream, request.strip_suffix('\n').expect("a whole request"));
    receive(stream, request.starts_with("HEAD")).expect("a reply").expect("a reply")
}

/// What the tests ask for.
fn answer(request: &Request<'_>) -> Response {
    let number = || request.uri().query().and_then(|query| query.parse().ok()).unwrap_or(0);
    match (request.method().as_str(), request.uri().path()) {
        ("POST", "/echo") => {
            let mut body = Vec::new();
            match request.body().read_to_end(&mut body) {
                Ok(_) => Response::new(body),
                Err(error) => Response::text(error.to_string()),
            }
        }
        ("POST", "/count") => match io::copy(&mut request.body(), &mut io::sink()) {
            Ok(count) => Response::text(count.to_string()),
            Err(error) => Response::text(error.to_string()),
        },
        ("POST", "/one") => {
            let mut byte = [0];
            request.body().read_exact(&mut byte).expect("a byte");
            Response::text("read one")
        }
        (_, "/big") => Response::new(vec![b'x'; number()]),
        (_, "/stream") => Response::stream(io::repeat(b'y').take(number() as u64)),
        (_, "/sized") => Response::sized(100_000, io::repeat(b'z')),
        (_, "/short") => Response::sized(100_000, io::repeat(b'z').take(5)),
        (_, "/broken") => Response::stream(io::repeat(b'y').take(10).chain(Broken)),
        (_, "/empty") => Response::new("").status(StatusCode::NO_CONTENT),
        (_, "/unchanged") => Response::new("").status(StatusCode::NOT_MODIFIED),
        (_, "/reset") => Response::text("nothing").status(StatusCode::RESET_CONTENT),
        (_, "/denied") => Response::text("no").status(StatusCode::UNAUTHORIZED),
        (_, "/options") => {
            Response::text("bye").header(header::CONNECTION, HeaderValue::from_static("x-foo, close"))
        }
        (_, "/upgrade") => Response::text("later").header(header::UPGRADE, HeaderValue::from_static("h2c")),
        (_, "/close") => Response::text("bye").header(header::CONNECTION, HeaderValue::from_static("close")),
        (_, "/panic") => panic!("as told"),
        (method, path) => Response::text(format!("{method} {path}")),
    }
}

/// Fails.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("as told"))
    }
}

/// Says what is known of a request beside what its client has sent.
fn known(request: &Request<'_>) -> Result<String, Failure> {
    let local = request.local_addr()?;
    let (waits, in_time) = (request.waited() < PATIENCE, request.deadline() > Instant::now());
    Ok(format!(
        "{} {} {} {waits} {in_time} {}",
        request.peer_addr()?.ip(),
        local.ip(),
        local.port(),
        request.is_encrypted() || request.draining()
    ))
}

fn serve_http(builder: Builder) -> Handle {
    overfall::http::serve(builder, answer).expect("it serves")
}

/// Counts the calls of a handler, so that a test can tell that a piece of a request was seen.
struct Watched<H> {
    inner: H,
    calls: Arc<AtomicUsize>,
}

impl<H: Handler> Handler for Watched<H> {
    type State = H::State;

    fn open(&self, connection: &mut Connection<'_>) -> io::Result<H::State> {
        self.inner.open(connection)
    }

    fn ready(&self, connection: &mut Connection<'_>, state: &mut H::State) -> io::Result<Next> {
        let next = self.inner.ready(connection, state);
        self.calls.fetch_add(1, SeqCst);
        next
    }
}

/// A server that says how often its handler was called.
fn serve_watched() -> (Handle, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let watched = Watched { inner: Http::new(answer), calls: Arc::clone(&calls) };
    (builder().serve_handler(watched).expect("it serves"), calls)
}

/// Sends the pieces one by one, each when the one before was looked at, and gives all replies.
fn ask_in_pieces(addr: SocketAddr, calls: &AtomicUsize, pieces: &[&[u8]]) -> Vec<Reply> {
    let mut stream = connect(addr);
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        let before = calls.load(SeqCst);
        stream.write_all(piece).expect("it reads");
        await_that("the piece is looked at", || calls.load(SeqCst) > before);
    }
    stream.shutdown(Shutdown::Write).expect("it is there");
    receive_all(&stream)
}

/// Raw requests and the status of each reply. A request ends where its reply does; what comes
/// after an error is not answered.
#[test]
fn raw_requests_have_exact_statuses() {
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(8 * 1024));
    let endless_target = format!("GET /{}", "x".repeat(20_000));
    let long_field = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let fitting_field = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(10_000));
    let many_fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(101));
    let cases: &[(&str, &[u16])] = &[
        // What is answered.
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[200]),
        ("GET / HTTP/1.1\nHost: a\n\n", &[200]),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n", &[200]),
        ("GET / HTTP/1.0\r\n\r\n", &[200]),
        ("GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n", &[200]),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", &[200]),
        ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", &[200]),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\nX:\t y \t\r\nEmpty:\r\n\r\n", &[200]),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[200, 200]),
        ("GET /close HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[200]),
        ("GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n", &[200]),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n", &[200, 200]),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\nGET / HTTP/1.1\r\n", &[200]),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            &[200, 200],
        ),
        (
            "POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            &[200, 200],
        ),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nhi", &[200]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", &[200]),
        (
            "POST /no HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            &[200, 200],
        ),
        ("GET /empty HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[204, 200]),
        (&fitting_field, &[200]),
        ("", &[]),
        ("\r\n", &[]),
        // What is malformed.
        ("hello\r\n\r\n", &[400]),
        ("\x16\x03\x01\x02\x00\x01", &[400]),
        ("GET / HTTP/1.1\r\nHost: a\r\n", &[400]),
        ("GET /\r\n\r\n", &[400]),
        ("GET / HTTP/x\r\n\r\n", &[400]),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", &[400]),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        ("GET b HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", &[400]),
        // What could be read in two ways.
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            &[400],
        ),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
            &[400],
        ),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi", &[400]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 3\r\n\r\nhi", &[400]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\nhi", &[400]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: -2\r\n\r\nhi", &[400]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0x2\r\n\r\nhi", &[400]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhi", &[400]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhi", &[400]),
        ("POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[400]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", &[400]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", &[400]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", &[400]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\nhi\n0\n\n", &[400]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi0\r\n\r\n", &[400]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi", &[400]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", &[400]),
        // What has a status of its own.
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", &[501]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", &[501]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", &[501]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", &[501]),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", &[505]),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", &[505]),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[505]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 67108865\r\n\r\n", &[413]),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", &[413]),
        (&long_target, &[414]),
        (&endless_target, &[414]),
        (&long_field, &[431]),
        (&many_fields, &[431]),
        ("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n", &[500]),
    ];
    let (handle, calls) = serve_watched();
    for (request, expected) in cases {
        let replies = ask_all(handle.local_addr(), request.as_bytes());
        let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
        assert_eq!(statuses, *expected, "{:?}", &request[..request.len().min(200)]);
        // The answer is the same however the request is cut.
        for cut in [request.len() / 3, request.len() / 2, request.len().saturating_sub(2)] {
            let cut = cut.min(1000);
            let mut stream = connect(handle.local_addr());
            let before = calls.load(SeqCst);
            stream.write_all(&request.as_bytes()[..cut]).expect("it reads");
            await_that("the piece is looked at", || cut == 0 || calls.load(SeqCst) > before);
            // It may be answered and closed already.
            let _ = stream.write_all(&request.as_bytes()[cut..]);
            let _ = stream.shutdown(Shutdown::Write);
            let cut_statuses: Vec<_> = receive_all(&stream).iter().map(|reply| reply.status).collect();
            assert_eq!(cut_statuses, *expected, "{:?} cut at {cut}", &request[..request.len().min(200)]);
        }
        // An error is the last that is said.
        if let Some(error) = replies.last().filter(|reply| reply.status >= 400) {
            assert_eq!(field(&error.head, "connection"), Some("close"), "{request:?}");
        }
    }
    // The one of the table, whole and cut.
    assert_eq!(handle.metrics().panics, 4);
}

const PIPELINE: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n\
    POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello\nworld\
    \r\n\r\nGET /c HTTP/1.0\r\nConnection: keep-alive\r\n\r\n\
    POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
    3;x=y\r\nabc\r\n10\r\n0123456789\r\n<>!?\r\n0\r\nA: b\r\n\r\n\
    GET /e HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn requests_cut_anywhere_have_the_same_replies() {
    let (handle, calls) = serve_watched();
    let request = PIPELINE.as_bytes();
    let whole = ask_all(handle.local_addr(), request);
    let bodies: Vec<_> = whole.iter().map(Reply::text).collect();
    assert_eq!(bodies, ["GET /a", "hello\nworld", "GET /c", "abc0123456789\r\n<>!?", "GET /e"]);
    for cut in 1..request.len() {
        let (head, tail) = request.split_at(cut);
        assert_eq!(ask_in_pieces(handle.local_addr(), &calls, &[head, tail]), whole, "cut at {cut}");
    }
    let bytes: Vec<_> = request.chunks(1).collect();
    assert_eq!(ask_in_pieces(handle.local_addr(), &calls, &bytes), whole);
}

/// One request of a pipeline: its text and the body of its reply.
fn any_request() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let body = prop::collection::vec(any::<u8>(), 0..300);
    let get = "[a-z]{1,8}".prop_map(|path| {
        (
            format!("GET /x{path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(),
            format!("GET /x{path}").into_bytes(),
        )
    });
    let sized = body.clone().prop_map(|body| {
        let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        ([head.into_bytes(), body.clone()].concat(), body)
    });
    let chunked = (body, 1usize..100).prop_map(|(body, size)| {
        let mut text = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in body.chunks(size) {
            text.extend(format!("{:x}\r\n", chunk.len()).bytes());
            text.extend(chunk);
            text.extend(b"\r\n");
        }
        text.extend(b"0\r\n\r\n");
        (text, body)
    });
    prop_oneof![get, sized, chunked]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_split_of_any_pipeline_has_the_same_replies(
        requests in prop::collection::vec(any_request(), 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let (handle, calls) = serve_watched();
        let text: Vec<u8> = requests.iter().flat_map(|(text, _)| text.clone()).collect();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len())).collect();
        cuts.sort_unstable();
        let ends = cuts.iter().copied().chain([text.len()]);
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let pieces: Vec<_> = starts.zip(ends).map(|(start, end)| &text[start..end]).collect();
        let replies = ask_in_pieces(handle.local_addr(), &calls, &pieces);
        let bodies: Vec<_> = replies.into_iter().map(|reply| reply.body).collect();
        let expected: Vec<_> = requests.into_iter().map(|(_, body)| body).collect();
        prop_assert_eq!(bodies, expected);
    }
}

#[test]
fn whatever_comes_is_answered_or_closed() {
    let handle = serve_http(builder());
    let addr = handle.local_addr();
    let change =
        (any::<prop::sample::Index>(), prop::sample::select(b"\r\n\t :;,0aA/\x00\xff".to_vec()), 0..3u8);
    let changes = prop::collection::vec(change, 1..6);
    // PROPTEST_CASES makes it longer.
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let ran = runner.run(&changes, |changes| {
        let mut request = PIPELINE.as_bytes().to_vec();
        for (at, byte, how) in changes {
            let at = at.index(request.len());
            match how {
                0 => request[at] = byte,
                1 => request.insert(at, byte),
                _ => drop(request.remove(at)),
            }
        }
        let mut stream = connect(addr);
        // It may be closed before all was sent.
        let _ = stream.write_all(&request);
        let _ = stream.shutdown(Shutdown::Write);
        let text = rest(&stream).expect("an end, no reset");
        prop_assert!(text.is_empty() || text.starts_with(b"HTTP/1.1 "));
        Ok(())
    });
    ran.unwrap();
    assert_eq!(handle.metrics().panics, 0);
}

#[test]
fn replies_have_what_rfc_9110_asks_for() {
    let handle = serve_http(builder());
    let stream = connect(handle.local_addr());
    let get = ask(&stream, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(get.head, "http/1.1 200 ok\ncontent-type: text/plain; charset=utf-8\ncontent-length: 6\n");
    // A reply to HEAD differs in nothing but the body.
    let head = ask(&stream, "HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((head.head, head.body), (get.head.replace("content-length: 6", "content-length: 7"), vec![]));
    let stream_head = ask(&stream, "HEAD /stream?5 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(field(&stream_head.head, "transfer-encoding"), Some("chunked"));
    let empty = ask(&stream, "GET /empty HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((empty.status, field(&empty.head, "content-length")), (204, None));
    let unchanged = ask(&stream, "GET /unchanged HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((unchanged.status, field(&unchanged.head, "content-length")), (304, None));
    let kept = ask(&stream, "GET /x HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    assert_eq!(field(&kept.head, "connection"), Some("keep-alive"));
    let last = ask(&stream, "GET /close HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(field(&last.head, "connection"), Some("close"));
    assert_eq!(rest(&stream), Ok(vec![]));
}

#[test]
fn streamed_replies_are_chunked_and_for_old_clients_end_with_the_connection() {
    let handle = serve_http(builder());
    let stream = connect(handle.local_addr());
    for length in [0, 1, 16 * 1024, 1_000_000] {
        let request = format!("GET /stream?{length} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(ask(&stream, &request).body, vec![b'y'; length]);
    }
    let old = ask(&stream, "GET /stream?100000 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(field(&old.head, "connection"), Some("close"));
    assert_eq!(old.body, vec![b'y'; 100_000]);
    // One that breaks off is a reset.
    let mut stream = connect(handle.local_addr());
    stream.write_all(b"GET /broken HTTP/1.0\r\n\r\n").expect("it reads");
    assert_eq!(rest(&stream), Err(io::ErrorKind::ConnectionReset));
    // In chunks it has no end.
    let mut stream = connect(handle.local_addr());
    stream.write_all(b"GET /broken HTTP/1.1\r\nHost: a\r\n\r\n").expect("it reads");
    let text = String::from_utf8(rest(&stream).expect("an end")).expect("text");
    assert!(text.contains("Transfer-Encoding: chunked") && text.ends_with("yyyyyyyyyy\r\n"), "{text}");
}

#[test]
fn a_client_that_takes_nothing_costs_no_worker() {
    let handle = serve_http(builder().workers(1));
    let addr = handle.local_addr();
    for path in ["big", "stream"] {
        let mut slow = connect(addr);
        slow.write_all(format!("GET /{path}?30000000 HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
            .expect("it reads");
        slow.peek(&mut [0]).expect("its reply is under way");
        let quick = connect(addr);
        assert_eq!(ask(&quick, "GET /quick HTTP/1.1\r\nHost: a\r\n\r\n").text(), "GET /quick");
        drop(quick);
        let reply = receive(&slow, false).expect("a reply").expect("a reply");
        assert_eq!(reply.body.len(), 30_000_000);
        drop(slow);
        await_that("both are gone", || handle.metrics().connections_open == 0);
    }
}

#[test]
fn bodies_larger_than_the_buffer_are_read_as_they_come() {
    let handle = serve_http(builder());
    let body: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut stream = connect(handle.local_addr());
    write!(stream, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())
        .expect("it reads");
    stream.write_all(&body).expect("it reads");
    assert!(receive(&stream, false).expect("a reply").expect("a reply").body == body);
    write!(stream, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").expect("it reads");
    for chunk in body.chunks(40_000) {
        write!(stream, "{:x}\r\n", chunk.len()).expect("it reads");
        stream.write_all(chunk).expect("it reads");
        stream.write_all(b"\r\n").expect("it reads");
    }
    stream.write_all(b"0\r\n\r\n").expect("it reads");
    assert!(receive(&stream, false).expect("a reply").expect("a reply").body == body);
}

#[test]
fn a_body_that_is_not_read_is_passed_over_or_ends_the_connection() {
    let handle = serve_http(builder());
    let stream = connect(handle.local_addr());
    let small = ask(&stream, "POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n12345678\n");
    assert_eq!((small.text().as_str(), field(&small.head, "connection")), ("read one", None));
    let mut stream = stream;
    stream.write_all(b"POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").expect("it reads");
    stream.write_all(&[7; 50_000]).expect("it reads");
    let large = receive(&stream, false).expect("a reply").expect("a reply");
    assert_eq!((large.text().as_str(), field(&large.head, "connection")), ("read one", Some("close")));
}

#[test]
fn a_long_reply_is_not_lost_to_what_its_client_still_sends() {
    let handle = serve_http(builder());
    let mut stream = connect(handle.local_addr());
    // Longer than what the buffer holds, and not read by the handler.
    let head = b"POST /big?3000000 HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n";
    stream.write_all(head).expect("it reads");
    stream.write_all(&[7; 20_000]).expect("it reads");
    stream.peek(&mut [0]).expect("the reply is under way");
    stream.write_all(&[7; 180_000]).expect("it reads");
    assert_eq!(receive(&stream, false).expect("a reply").expect("a reply").body.len(), 3_000_000);
}

#[test]
fn bodies_have_a_minimum_rate_and_a_deadline() {
    let brief = Duration::from_millis(400);
    let rate = builder().io_timeout(brief).serve_handler(Http::new(answer)).expect("it serves");
    let deadline = builder().serve_handler(Http::new(answer).body_timeout(brief)).expect("it serves");
    for handle in [rate, deadline] {
        let mut stream = connect(handle.local_addr());
        let head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
        stream.write_all(head).expect("it reads");
        stream.write_all(&[7; 20_000]).expect("it reads");
        let mut slow = stream.try_clone().expect("a handle");
        // It never pauses for long, and never ends.
        let sender = std::thread::spawn(move || {
            while slow.write_all(b"x").is_ok() {
                std::thread::park_timeout(Duration::from_millis(5));
            }
        });
        let reply = receive(&stream, false).expect("a reply").expect("a reply");
        assert_eq!(reply.status, 408);
        // Counted when it is done, which its client may know first.
        await_that("it is counted", || handle.metrics().timed_out_io == 1);
        drop((stream, handle));
        sender.join().expect("it ends");
    }
}

#[test]
fn bodies_have_a_limit() {
    let handle = builder().serve_handler(Http::new(answer).max_body(10)).expect("it serves");
    let status = |request: &str| ask_all(handle.local_addr(), request.as_bytes())[0].status;
    assert_eq!(status("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789"), 200);
    assert_eq!(status("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n0123456789"), 413);
    let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n";
    assert_eq!(status(&format!("{chunked}4\r\n6789\r\n0\r\n\r\n")), 200);
    assert_eq!(status(&format!("{chunked}5\r\n6789a\r\n0\r\n\r\n")), 413);
    // What is merely announced is too much at once, and so is framing without end.
    let empty = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let stream = connect(handle.local_addr());
    assert_eq!(ask(&stream, &format!("{empty}ffffffffffffffff\r\n")).status, 413);
    let framing = format!("1;{}\r\nx\r\n", "y".repeat(1000)).repeat(9);
    let bloated = builder().serve_handler(Http::new(answer).max_body(1000)).expect("it serves");
    let bloated = |request: String| ask_all(bloated.local_addr(), request.as_bytes())[0].status;
    assert_eq!(bloated(format!("{empty}{framing}0\r\n\r\n")), 200);
    assert_eq!(bloated(format!("{empty}{framing}{framing}0\r\n\r\n")), 413);
}

#[test]
fn answers_to_head_have_no_content_errors_included() {
    let handle = serve_http(builder().workers(1));
    let long = "x".repeat(9000);
    for (request, status) in [
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 200),
        ("HEAD / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("\r\nHEAD / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(), 400),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n".to_owned(), 413),
        (format!("HEAD /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), 501),
        ("HEAD / HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("HEAD /panic HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 500),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n".to_owned() + &long + &long, 400),
    ] {
        let text = exchange(handle.local_addr(), request.as_bytes()).expect("a reply");
        let text = String::from_utf8(text).expect("text");
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.60}: {text}");
        assert!(text.ends_with("\r\n\r\n") && text.matches("\r\n\r\n").count() == 1, "{request:.60}: {text}");
    }
    let text = exchange(handle.local_addr(), b"GET /reset HTTP/1.1\r\nHost: a\r\n\r\n").expect("a reply");
    assert!(String::from_utf8(text).expect("text").ends_with("\r\n\r\n"));
}

#[test]
fn targets_and_hosts_that_two_could_read_differently_are_refused() {
    let handle = serve_http(builder());
    for (target, host) in [
        ("/", "a:x"),
        ("/", "a:80:80"),
        ("/", "["),
        ("/", "::1"),
        ("/", "%"),
        ("http://:80/", "a"),
        ("http://a:x/", "a"),
        ("http://u@a/", "a"),
        ("+://a/", "a"),
        ("http://a/", "b"),
        ("/%zz", "a"),
        ("/a#b", "a"),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(ask_all(handle.local_addr(), request.as_bytes())[0].status, 400, "{target} {host}");
    }
    await_that("all are counted", || handle.metrics().malformed == 12 && handle.metrics().answers_4xx == 12);
}

#[test]
fn options_of_the_connection_are_kept() {
    let handle = serve_http(builder());
    let connection = |path: &str| {
        let stream = connect(handle.local_addr());
        let reply = ask(&stream, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        field(&reply.head, "connection").map(str::to_owned)
    };
    assert_eq!(connection("/options").as_deref(), Some("close, x-foo"));
    assert_eq!(connection("/upgrade").as_deref(), Some("upgrade"));
    assert_eq!(connection("/close").as_deref(), Some("close"));
    assert_eq!(connection("/"), None);
}

#[test]
fn empty_lines_keep_no_connection() {
    let handle = serve_http(builder().io_timeout(BRIEF));
    let mut stream = connect(handle.local_addr());
    let mut sending = stream.try_clone().expect("a handle");
    let sender = std::thread::spawn(move || {
        while sending.write_all(b"\r\n").is_ok() {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    });
    // It ends, in whatever way; no answer is due.
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    assert!(bytes.is_empty());
    drop(stream);
    sender.join().expect("it ends");
    // One behind a request is no beginning of another.
    let kept = connect(handle.local_addr());
    assert_eq!(ask(&kept, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    (&kept).write_all(b"\r\n").expect("it reads");
    await_that("it is parked", || handle.metrics().connections_parked == 1);
    assert_eq!(ask(&kept, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
}

#[test]
fn a_handler_may_refuse_a_body_before_it_is_sent() {
    let handle = serve_http(builder());
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    };
    let stream = connect(handle.local_addr());
    assert_eq!(ask(&stream, &head("/denied")).status, 401);
    // Reading it asks for it.
    let mut stream = connect(handle.local_addr());
    stream.write_all(head("/echo").as_bytes()).expect("it reads");
    assert_eq!(receive(&stream, true).expect("a reply").expect("a reply").status, 100);
    stream.write_all(b"hello").expect("it reads");
    assert_eq!(receive(&stream, false).expect("a reply").expect("a reply").text(), "hello");
}

#[test]
fn who_expects_100_continue_hears_it_before_the_body() {
    let handle = serve_http(builder());
    for length in [3, 100_000] {
        let mut stream = connect(handle.local_addr());
        let head = format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("it reads");
        assert_eq!(receive(&stream, true).expect("a reply").expect("a reply").status, 100);
        stream.write_all(&vec![b'z'; length]).expect("it reads");
        let reply = receive(&stream, false).expect("a reply").expect("a reply");
        assert_eq!((reply.status, reply.body), (200, vec![b'z'; length]));
    }
    // Who is turned away need not send it.
    let stream = connect(handle.local_addr());
    let reply = ask(
        &stream,
        "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n",
    );
    assert_eq!(reply.status, 413);
}

#[test]
fn slow_requests_are_told_so_and_idle_connections_are_closed_without_a_word() {
    let brief = Duration::from_millis(100);
    let handle = serve_http(builder().io_timeout(brief).idle_timeout(brief));
    let addr = handle.local_addr();
    for beginning in [
        "GET / HTTP/1.1\r\nHo",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhello",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
    ] {
        let mut stream = connect(addr);
        stream.write_all(beginning.as_bytes()).expect("it reads");
        let statuses: Vec<_> = receive_all(&stream).iter().map(|reply| reply.status).collect();
        assert_eq!(statuses, [408], "{beginning:?}");
    }
    let stream = connect(addr);
    assert_eq!(ask(&stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    assert_eq!(rest(&stream), Ok(vec![]));
}

#[test]
fn slow_clients_cost_no_worker() {
    let handle = serve_http(builder().workers(1));
    let addr = handle.local_addr();
    let beginnings =
        ["GET / HTTP/1.1\r\n", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello"];
    let slow: Vec<_> = (0..100)
        .map(|n| {
            let mut stream = connect(addr);
            stream.write_all(beginnings[n % 2].as_bytes()).expect("it reads");
            stream
        })
        .collect();
    await_that("all are parked", || handle.metrics().connections_parked == 100);
    let quick = connect(addr);
    assert_eq!(ask(&quick, "GET /quick HTTP/1.1\r\nHost: a\r\n\r\n").text(), "GET /quick");
    for (n, mut stream) in slow.into_iter().enumerate() {
        stream.write_all([&b"Host: a\r\n\r\n"[..], b"world"][n % 2]).expect("it reads");
        let reply = receive(&stream, false).expect("a reply").expect("a reply");
        assert_eq!(reply.text(), ["GET /", "helloworld"][n % 2]);
    }
}

#[test]
fn who_pipelines_does_not_keep_others_waiting() {
    let served = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&served);
    let (blocked, others) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (gate, came) = (Arc::clone(&blocked), Arc::clone(&others));
    let handle = overfall::http::serve(builder().workers(1), move |request: &Request| {
        if request.uri().path() == "/first" {
            gate.store(1, SeqCst);
            await_that("the test opens the gate", || gate.load(SeqCst) == 2);
        }
        let count = counted.fetch_add(1, SeqCst);
        if request.uri().path() == "/other" {
            came.store(count, SeqCst);
        }
        Response::text("done")
    })
    .expect("it serves");
    let mut greedy = connect(handle.local_addr());
    greedy.write_all("GET /first HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes()).expect("it reads");
    greedy.write_all("GET /more HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100).as_bytes()).expect("it reads");
    await_that("the first is with the worker", || blocked.load(SeqCst) == 1);
    let other = connect(handle.local_addr());
    tell(&other, "GET /other HTTP/1.1\r\nHost: a\r\n\r");
    await_that("the other is in the queue", || handle.metrics().queue_depth == 1);
    blocked.store(2, SeqCst);
    assert_eq!(receive(&other, false).expect("a reply").expect("a reply").text(), "done");
    assert!(others.load(SeqCst) <= 3, "{} were served before it", others.load(SeqCst));
    (0..101).for_each(|_| assert!(receive(&greedy, false).expect("a reply").is_some()));
}

#[test]
fn a_panic_is_500_and_counted_and_costs_no_worker() {
    let handle = serve_http(builder().workers(1));
    for count in 1..=3 {
        let replies = ask_all(
            handle.local_addr(),
            b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        );
        assert_eq!(replies.iter().map(|reply| reply.status).collect::<Vec<_>>(), [500]);
        assert_eq!(handle.metrics().panics, count);
    }
    assert_eq!(ask_all(handle.local_addr(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")[0].status, 200);
}

#[test]
fn the_refused_read_503_also_in_the_middle_of_an_upload() {
    let mut served = serve(&["--app", "http", "--workers", "1", "--queue", "1", "--block", "300ms"]);
    let addr = served.addr;
    let statuses = all_at_once(40, move |n| {
        let mut stream = connect(addr);
        let length = if n % 2 == 0 { 0 } else { 64 * 1024 };
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        // One that is refused need not take it.
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&vec![b'z'; length]);
        let reply = receive(&stream, false).expect("a reply").expect("a reply");
        if reply.status == 503 {
            assert_eq!(field(&reply.head, "retry-after"), Some("1"));
            assert_eq!(field(&reply.head, "connection"), Some("close"));
        }
        reply.status
    });
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&200) && statuses.contains(&503), "{statuses:?}");
    let refused = statuses.iter().filter(|&&status| status == 503).count() as u64;
    // At the door, or when they had waited too long.
    assert_eq!(served.counter("refused_queue_full") + served.counter("shed"), refused);
}

#[test]
fn a_shutdown_answers_what_has_come_and_says_that_it_closes() {
    let handle = serve_http(builder());
    let mut stream = connect(handle.local_addr());
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").expect("it reads");
    await_that("it has come", || handle.metrics().connections_parked == 1);
    handle.shutdown();
    stream.write_all(b"world").expect("it reads");
    let reply = receive(&stream, false).expect("a reply").expect("a reply");
    assert_eq!((reply.text().as_str(), field(&reply.head, "connection")), ("helloworld", Some("close")));
    handle.join().expect("it ends well");
}

#[test]
fn the_app_says_hello_and_counts() {
    let served: Served = serve(&["--app", "http"]);
    let stream = connect(served.addr);
    let get = ask(&stream, "GET /whatever HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((get.status, get.text().as_str()), (200, "Hello, client!"));
    let post = ask(&stream, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n12345\n");
    assert_eq!(post.text(), "6");
    let put = ask(&stream, "PUT / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((put.status, field(&put.head, "allow")), (405, Some("get, head, post")));
}

/// Begins an upload of which only a part is sent, more than is gathered in any case.
fn begin_upload(addr: SocketAddr) -> TcpStream {
    let mut stream = connect(addr);
    stream.write_all(b"POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").expect("it reads");
    stream.write_all(&[b'x'; 50_000]).expect("it reads");
    stream
}

fn finish_upload(mut stream: &TcpStream) -> Reply {
    stream.write_all(&[b'x'; 50_000]).expect("it reads");
    receive(stream, false).expect("a reply").expect("a reply")
}

#[test]
fn uploads_hold_half_of_the_workers_and_the_others_wait_parked() {
    let handle = serve_http(builder());
    let addr = handle.local_addr();
    let uploads: Vec<_> = (0..5).map(|_| begin_upload(addr)).collect();
    await_that("one holds a worker, the others are parked", || {
        let metrics = handle.metrics();
        (metrics.busy_workers, metrics.connections_parked) == (1, 4)
    });
    // The other worker is there for everybody else.
    for _ in 0..5 {
        assert_eq!(ask_all(addr, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")[0].status, 200);
    }
    // Whichever holds it, all are done one after the other.
    uploads.iter().for_each(|mut upload| upload.write_all(&[b'x'; 50_000]).expect("it reads"));
    for upload in &uploads {
        assert_eq!(receive(upload, false).expect("a reply").expect("a reply").text(), "100000");
    }
    assert_eq!(handle.metrics().shed, 0);
}

#[test]
fn an_upload_that_waits_too_long_for_a_worker_reads_503() {
    let handle = serve_http(builder().patience(BRIEF));
    let first = begin_upload(handle.local_addr());
    await_that("it holds a worker", || handle.metrics().busy_workers == 1);
    let second = begin_upload(handle.local_addr());
    assert_eq!(receive(&second, false).expect("a reply").expect("a reply").status, 503);
    assert_eq!(handle.metrics().shed, 1);
    assert_eq!(finish_upload(&first).text(), "100000");
}

#[test]
fn the_only_worker_waits_for_no_upload() {
    let handle = serve_http(builder().workers(1));
    let addr = handle.local_addr();
    let uploads = [begin_upload(addr), begin_upload(addr)];
    await_that("both are parked", || handle.metrics().connections_parked == 2);
    assert_eq!(ask_all(addr, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")[0].status, 200);
    for upload in &uploads {
        assert_eq!(finish_upload(upload).text(), "100000");
        // The connection is kept, and what follows is another request.
        assert_eq!(ask(upload, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    }
    // In chunks as well, and what breaks off is told so.
    let mut chunked = connect(addr);
    chunked
        .write_all(b"POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .expect("it reads");
    for _ in 0..4 {
        chunked.write_all(b"2000\r\n").expect("it reads");
        chunked.write_all(&[b'x'; 0x2000]).expect("it reads");
        chunked.write_all(b"\r\n").expect("it reads");
    }
    chunked.write_all(b"0\r\n\r\n").expect("it reads");
    assert_eq!(receive(&chunked, false).expect("a reply").expect("a reply").text(), "32768");
    let broken = begin_upload(addr);
    broken.shutdown(std::net::Shutdown::Write).expect("it is there");
    assert_eq!(receive(&broken, false).expect("a reply").expect("a reply").status, 400);
    // Counted when it is done, which its client may know first.
    await_that("all are counted", || {
        let metrics = handle.metrics();
        (metrics.answers_2xx, metrics.answers_4xx, metrics.malformed) == (6, 1, 1)
    });
}

#[test]
fn a_stream_of_known_length_says_so_beforehand_and_never_passes_for_whole() {
    let server = serve_http(builder());
    let stream = connect(server.local_addr());
    for version in ["1.1", "1.0"] {
        let fields = "Host: a\r\nConnection: keep-alive\r\n";
        let reply = ask(&stream, &format!("GET /sized HTTP/{version}\r\n{fields}\r\n"));
        assert_eq!(field(&reply.head, "content-length"), Some("100000"));
        assert!(reply.body == [b'z'; 100_000] && field(&reply.head, "transfer-encoding").is_none());
    }
    let reply = ask(&stream, "HEAD /sized HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((field(&reply.head, "content-length"), reply.text()), (Some("100000"), String::new()));
    tell(&stream, "GET /short HTTP/1.1\r\nHost: a\r\n\r");
    let error = receive(&stream, false).expect_err("it breaks off");
    assert!(matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset), "{error}");
}

#[test]
fn what_a_function_gives_becomes_a_response() {
    let answer = |request: &Request<'_>| -> Result<Response, Failure> {
        match request.uri().path() {
            "/status" => Ok(StatusCode::IM_A_TEAPOT.into()),
            "/both" => Ok((StatusCode::ACCEPTED, "later").into()),
            "/error" => Err(io::Error::other("not for clients"))?,
            "/failure" => Err(Failure::new(StatusCode::CONFLICT, "taken\n")),
            // What a client may have a handler say.
            "/split" => Ok(Response::text("").header("X-Name", "a\r\nX-Other: b")),
            _ => Ok("text".into()),
        }
    };
    let server = overfall::http::serve(builder(), answer).expect("it serves");
    let stream = connect(server.local_addr());
    for (path, status, text) in [
        ("/", 200, "text"),
        ("/status", 418, "418 I'm a teapot\n"),
        ("/both", 202, "later"),
        ("/error", 500, "500 Internal Server Error\n"),
        ("/failure", 409, "taken\n"),
        ("/split", 500, "500 Internal Server Error\n"),
    ] {
        let reply = ask(&stream, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!((reply.status, &*reply.text()), (status, text), "{path}");
        assert!(field(&reply.head, "x-other").is_none() && field(&reply.head, "x-name").is_none());
    }
    assert_eq!(server.metrics().panics, 0);
}

#[test]
fn a_function_knows_who_asks_where_and_for_how_long() {
    for builder in [builder(), builder().workers(1)] {
        let server = overfall::http::serve(builder, known).expect("it serves");
        let port = server.local_addr().port();
        let stream = connect(server.local_addr());
        for _ in 0..2 {
            let reply = ask(&stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(reply.text(), format!("127.0.0.1 127.0.0.1 {port} true true false"));
        }
    }
    let threads = overfall::baseline::serve(builder(), overfall::baseline::Bound::None, Http::new(known));
    let reply = ask(&connect(threads.expect("it serves").local_addr()), "GET / HTTP/1.0\r\n\r\n");
    assert!(reply.text().ends_with("true true false"), "{}", reply.text());
}

#[test]
fn who_has_waited_in_line_is_known_to_have_waited() {
    let (turnstile, gate) = crate::support::turnstile();
    let answer = move |request: &Request<'_>| {
        if request.uri().path() == "/block" {
            turnstile.pass();
        }
        (request.waited() >= BRIEF).to_string()
    };
    let server = overfall::http::serve(builder().workers(1), answer).expect("it serves");
    let (first, newcomer, kept) =
        (connect(server.local_addr()), connect(server.local_addr()), connect(server.local_addr()));
    assert_eq!(ask(&kept, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").text(), "false");
    tell(&first, "GET /block HTTP/1.1\r\nHost: a\r\n\r");
    gate.await_blocked(1);
    for client in [&newcomer, &kept] {
        tell(client, "GET / HTTP/1.1\r\nHost: a\r\n\r");
        crate::support::await_that("it has come", || crate::support::has_been_received(client));
    }
    std::thread::sleep(2 * BRIEF);
    gate.open(1);
    for client in [&first, &newcomer, &kept] {
        assert_eq!(receive(client, false).expect("a reply").expect("a reply").text(), "true");
    }
}
