//! Connections that go on with another protocol.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

use overfall::{
    Connection, Handle, Handler, Next,
    http::{self, Request, Response, StatusCode},
};

use crate::support::{BRIEF, await_that, builder, connect, exchange, tell};

/// Greets, and sends back lines with their numbers.
struct Numbers;

impl Handler for Numbers {
    type State = u32;

    fn open(&self, connection: &mut Connection<'_>) -> io::Result<u32> {
        writeln!(connection, "hello")?;
        Ok(0)
    }

    fn ready(&self, connection: &mut Connection<'_>, count: &mut u32) -> io::Result<Next> {
        let Some(end) = connection.input().iter().position(|&byte| byte == b'\n') else {
            return Ok(Next::Park);
        };
        let line = connection.input()[..=end].to_vec();
        connection.consume(line.len());
        *count += 1;
        write!(connection, "{count} ")?;
        connection.write_all(&line)?;
        Ok(if line == b"bye\n" { Next::Close } else { Next::Again })
    }

    fn expired(&self, connection: &mut Connection<'_>, _: &mut u32) -> io::Result<Next> {
        writeln!(connection, "silent")?;
        Ok(Next::Close)
    }
}

fn serve(builder: overfall::Builder) -> Handle {
    let answer = |request: &Request<'_>| match request.uri().path() {
        "/numbers" => Response::upgrade("numbers", Numbers).header("X-More", "yes").status(StatusCode::OK),
        _ => Response::text("plain"),
    };
    http::serve(builder, answer).expect("it serves")
}

const ASKS: &str = "GET /numbers HTTP/1.1\r\nHost: a\r\nUpgrade: numbers\r\nConnection: upgrade\r\n\r\n";

/// Reads this, and nothing beyond.
fn expect(mut stream: &TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    stream.read_exact(&mut bytes).expect("it comes");
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

/// Reads the head of the answer.
fn expect_upgrade(mut stream: &TcpStream) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    for line in ["Upgrade: numbers\r\n", "Connection: upgrade\r\n", "X-More: yes\r\n"] {
        assert!(head.contains(line), "{head}");
    }
    assert!(!head.contains("Content-Length") && !head.contains("Transfer-Encoding"), "{head}");
}

#[test]
fn a_connection_is_the_handlers_from_then_on() {
    let server = serve(builder());
    let stream = connect(server.local_addr());
    // A request before it, and what is sent before the answer has come.
    let before = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    (&stream).write_all(format!("{before}{ASKS}one\ntw").as_bytes()).expect("it reads");
    let mut first = Vec::new();
    while !first.ends_with(b"\r\n\r\nplain") {
        let mut byte = [0];
        (&stream).read_exact(&mut byte).expect("an answer");
        first.push(byte[0]);
    }
    expect_upgrade(&stream);
    expect(&stream, "hello\n1 one\n");
    await_that("it is parked", || server.metrics().connections_parked == 1);
    tell(&stream, "o");
    expect(&stream, "2 two\n");
    tell(&stream, "bye");
    expect(&stream, "3 bye\n");
    assert_eq!((&stream).read(&mut [0]).expect("an end"), 0);
}

#[test]
fn who_did_not_ask_for_it_is_told_so() {
    let server = serve(builder());
    for request in [
        "GET /numbers HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /numbers HTTP/1.1\r\nHost: a\r\nUpgrade: numbers\r\nConnection: close\r\n\r\n",
        "GET /numbers HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        // What follows would be taken for the other protocol's.
        "POST /numbers HTTP/1.1\r\nHost: a\r\nUpgrade: numbers\r\nConnection: upgrade\r\nContent-Length: 90000\r\n\r\na",
        "GET /numbers HTTP/1.0\r\nUpgrade: numbers\r\nConnection: upgrade\r\n\r\n",
    ] {
        let reply = exchange(server.local_addr(), request.as_bytes()).expect("an answer");
        let reply = String::from_utf8(reply).expect("text");
        assert!(reply.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{reply}");
        assert!(reply.contains("Upgrade: numbers\r\n"), "{reply}");
    }
}

#[test]
fn its_timeouts_are_the_handlers_and_its_end_is_told() {
    let server = serve(builder().idle_timeout(BRIEF));
    let stream = connect(server.local_addr());
    (&stream).write_all(ASKS.as_bytes()).expect("it reads");
    expect_upgrade(&stream);
    expect(&stream, "hello\nsilent\n");
    assert_eq!((&stream).read(&mut [0]).expect("an end"), 0);
}
