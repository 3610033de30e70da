//! Files over HTTP: what their clients get, and what it costs.

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::FileExt,
};

use overfall::{
    Handle,
    http::{self, Files},
};

use crate::{
    support::{await_that, builder, connect, exchange, tell},
    temporary::TempDir,
    tls::{Identity, dial},
};

fn serve(directory: &TempDir) -> Handle {
    let files = Files::new(directory.path()).expect("a directory");
    http::serve(builder(), move |request| files.answer(request, &request.path_segments())).expect("it serves")
}

/// The head and the body of the reply on a connection that is closed after it.
fn ask(addr: SocketAddr, method: &str, path: &str, fields: &str) -> (String, Vec<u8>) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
    split(&exchange(addr, request.as_bytes()).expect("a reply"))
}

fn split(reply: &[u8]) -> (String, Vec<u8>) {
    let end = reply.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
    let (head, body) = reply.split_at(end);
    (String::from_utf8(head.to_vec()).expect("text"), body.to_vec())
}

fn field<'a>(head: &'a str, name: &str) -> &'a str {
    let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("there is no {name} in {head}"))
}

/// What a large file has at this place.
fn byte_at(offset: u64) -> u8 {
    (offset.wrapping_mul(2_654_435_761) >> 16) as u8
}

/// A file that is too large to be sent together with its head, and than what sockets take.
fn write_large(directory: &TempDir, length: u64) {
    let bytes: Vec<u8> = (0..length).map(byte_at).collect();
    std::fs::write(directory.path().join("large.bin"), bytes).expect("it is written");
}

const LARGE: u64 = 9_000_001;

#[test]
fn a_file_is_had_whole_in_part_and_not_again() {
    let directory = TempDir::new("files");
    directory.write("a.txt", "0123456789");
    write_large(&directory, LARGE);
    let server = serve(&directory);
    let addr = server.local_addr();
    let (head, body) = ask(addr, "GET", "/a.txt", "");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!((field(&head, "Content-Type"), &*body), ("text/plain; charset=utf-8", &b"0123456789"[..]));
    assert_eq!((field(&head, "Accept-Ranges"), field(&head, "Content-Length")), ("bytes", "10"));
    let (tag, date) = (field(&head, "Etag"), field(&head, "Last-Modified"));
    for fields in [format!("If-None-Match: {tag}\r\n"), format!("If-Modified-Since: {date}\r\n")] {
        let (head, body) = ask(addr, "GET", "/a.txt", &fields);
        assert!(head.starts_with("HTTP/1.1 304 ") && body.is_empty(), "{head}");
        assert_eq!(field(&head, "Etag"), tag);
    }
    let (head, body) = ask(addr, "HEAD", "/large.bin", "Range: bytes=0-1\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && body.is_empty(), "{head}");
    assert_eq!(field(&head, "Content-Length"), LARGE.to_string());
    for (path, range, first, last) in [
        ("/a.txt", "0-0", 0, 0),
        ("/a.txt", "-3", 7, 9),
        ("/large.bin", "0-", 0, LARGE - 1),
        ("/large.bin", "4000000-8999999", 4_000_000, 8_999_999),
    ] {
        let (head, body) = ask(addr, "GET", path, &format!("Range: bytes={range}\r\n"));
        assert!(head.starts_with("HTTP/1.1 206 Partial Content\r\n"), "{head}");
        let length = if path == "/a.txt" { 10 } else { LARGE };
        assert_eq!(field(&head, "Content-Range"), format!("bytes {first}-{last}/{length}"));
        let is_right = |(offset, byte): (u64, &u8)| match path {
            "/a.txt" => *byte == b"0123456789"[offset as usize],
            _ => *byte == byte_at(offset),
        };
        assert_eq!(body.len() as u64, last - first + 1);
        assert!((first..).zip(&body).all(is_right), "{path} {range}");
    }
    let (head, _) = ask(addr, "GET", "/a.txt", "Range: bytes=10-\r\n");
    assert!(head.starts_with("HTTP/1.1 416 "), "{head}");
    assert_eq!(field(&head, "Content-Range"), "bytes */10");
    let (head, body) = ask(addr, "GET", "/a.txt", "Range: bytes=0-1\r\nIf-Range: \"other\"\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && body.len() == 10, "{head}");
    let (head, _) = ask(addr, "POST", "/a.txt", "");
    assert!(head.starts_with("HTTP/1.1 405 ") && field(&head, "Allow") == "GET, HEAD", "{head}");
}

#[test]
fn a_large_file_follows_on_a_kept_connection_and_over_http_10() {
    let directory = TempDir::new("kept");
    directory.write("a.txt", "0123456789");
    write_large(&directory, LARGE);
    let server = serve(&directory);
    let requests = ["/large.bin", "/a.txt", "/large.bin"]
        .map(|path| format!("GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    let (head, all) = split(&exchange(server.local_addr(), requests.concat().as_bytes()).expect("replies"));
    assert_eq!(field(&head, "Connection"), "keep-alive");
    let (large, rest) = all.split_at(LARGE as usize);
    let (_, rest) = split(rest);
    assert!(rest.starts_with(b"0123456789HTTP/1.1 200 OK\r\n"));
    let (_, again) = split(&rest[10..]);
    assert!((0..).zip(large).all(|(offset, byte)| *byte == byte_at(offset)));
    assert!(large == again);
}

#[test]
fn a_slow_client_costs_no_worker_and_a_file_that_becomes_shorter_breaks_off() {
    let directory = TempDir::new("slow");
    directory.write("a.txt", "0123456789");
    write_large(&directory, 64 * 1024 * 1024);
    let server = serve(&directory);
    let slow: Vec<TcpStream> = (0..4).map(|_| connect(server.local_addr())).collect();
    for client in &slow {
        tell(client, "GET /large.bin HTTP/1.1\r\nHost: a\r\n\r");
    }
    await_that("all of them have something", || {
        slow.iter().all(|client| client.peek(&mut [0; 1024]).is_ok_and(|length| length > 0))
    });
    await_that("both workers are free", || server.metrics().busy_workers == 0);
    let (_, body) = ask(server.local_addr(), "GET", "/a.txt", "");
    assert_eq!(body, b"0123456789");
    File::options().write(true).open(directory.path().join("large.bin")).unwrap().set_len(1_000_000).unwrap();
    for mut client in slow {
        let mut reply = Vec::new();
        // It is told by the length that was announced, or a reset.
        let _ = client.read_to_end(&mut reply);
        assert!(reply.len() < 64 * 1024 * 1024);
    }
    await_that("they are gone", || server.metrics().connections_open == 0);
}

#[test]
fn directories_have_an_index_and_nothing_is_outside() {
    let directory = TempDir::new("directories");
    std::fs::create_dir(directory.path().join("sub")).expect("a directory");
    std::fs::create_dir(directory.path().join("empty")).expect("a directory");
    directory.write("index.html", "top");
    directory.write("sub/index.html", "below");
    std::os::unix::fs::symlink("/etc/passwd", directory.path().join("out")).expect("a link");
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a pipe");
    let server = serve(&directory);
    let addr = server.local_addr();
    assert_eq!(ask(addr, "GET", "/", "").1, b"top");
    assert_eq!(ask(addr, "GET", "/sub/", "").1, b"below");
    let (head, _) = ask(addr, "GET", "/sub?a=b", "");
    assert!(head.starts_with("HTTP/1.1 301 ") && field(&head, "Location") == "/sub/?a=b", "{head}");
    for path in [
        "/none",
        "/empty/",
        "/sub/none",
        "/index.html/",
        "/index.html/x",
        "//sub",
        "/sub//index.html",
        "/out",
        "/pipe",
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/%2fetc%2fpasswd",
        "/sub/%00",
        "/%c0%ae%c0%ae/etc/passwd",
    ] {
        let (head, body) = ask(addr, "GET", path, "");
        assert!(head.starts_with("HTTP/1.1 404 "), "{path}: {head}");
        assert_eq!(body, b"404 Not Found\n", "{path}");
    }
    // Below another path, its top is a directory as well.
    let mounted = Files::new(directory.path()).expect("a directory");
    let mounted = http::serve(builder(), move |request| match &request.path_segments()[..] {
        ["static", path @ ..] | path => mounted.answer(request, path),
    })
    .expect("it serves");
    let (head, _) = ask(mounted.local_addr(), "GET", "/static", "");
    assert!(head.starts_with("HTTP/1.1 301 ") && field(&head, "Location") == "/static/", "{head}");
    assert_eq!(ask(mounted.local_addr(), "GET", "/static/", "").1, b"top");
    let long = format!("/{}", "a".repeat(4000));
    assert!(ask(addr, "GET", &long, "").0.starts_with("HTTP/1.1 404 "));
    assert!(Files::new(pipe).is_err() && Files::new(directory.path().join("none")).is_err());
}

#[test]
fn a_file_comes_over_tls_as_well() {
    let directory = TempDir::new("tls");
    write_large(&directory, LARGE);
    let files = Files::new(directory.path()).expect("a directory");
    let identity = Identity::new("files");
    let answer = move |request: &http::Request<'_>| files.answer(request, &request.path_segments());
    let server = http::serve(builder().tls(identity.tls()), answer).expect("it serves");
    let mut stream = dial(&identity.client(&[]), server.local_addr());
    stream.write_all(b"GET /large.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).expect("a reply");
    let (_, body) = split(&reply);
    let file = File::open(directory.path().join("large.bin")).expect("it is there");
    let mut expected = vec![0; LARGE as usize];
    file.read_exact_at(&mut expected, 0).expect("it is long enough");
    assert!(body == expected);
}
