//! The PROXY protocol: lines that are accepted, and lines that are sent.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use overfall::{
    Builder, Connection, Handle, Handler, Next,
    balance::{self, Balancer, Config, HttpConfig, ProxyVersion, UpstreamConfig},
};

use crate::{
    support::*,
    temporary::HaProxy,
    upstream::{Upstream, config, ok, receive, send, upstream},
};

/// Says who the client is, once for each line.
fn serve_names(builder: Builder) -> Handle {
    let answer = |connection: &mut Connection<'_>| {
        let Some(end) = connection.input().iter().position(|&byte| byte == b'\n') else {
            return Ok(Next::Park);
        };
        connection.consume(end + 1);
        let (client, local) = (connection.peer_addr()?, connection.local_addr()?);
        writeln!(connection, "{client} {local}")?;
        Ok(Next::Again)
    };
    builder.serve_handler(answer).expect("it serves")
}

fn trusting(networks: &[&str]) -> Builder {
    networks.iter().fold(builder(), |builder, text| builder.accept_proxy(text.parse().expect("a network")))
}

const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\n";
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x13\x88\0\x50";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

#[test]
fn the_clients_address_is_that_of_the_line() {
    let server = serve_names(trusting(&["10.0.0.0/8", "127.0.0.1/32"]));
    for line in [LINE, BINARY] {
        let stream = connect(server.local_addr());
        (&stream).write_all(&[line, b"who\n"].concat()).expect("it reads");
        assert_eq!(hear(&stream), "192.0.2.1:5000 192.0.2.2:80");
        assert_eq!(ask(&stream, "again"), "192.0.2.1:5000 192.0.2.2:80");
    }
    for line in [LOCAL, b"PROXY UNKNOWN\r\n"] {
        let stream = connect(server.local_addr());
        (&stream).write_all(&[line, b"who\n"].concat()).expect("it reads");
        let own = stream.local_addr().expect("an address");
        assert_eq!(hear(&stream), format!("{own} {}", server.local_addr()));
    }
    assert_eq!(server.metrics().proxy_lines_malformed, 0);
}

#[test]
fn whoever_asks_who_has_a_worker_hears_of_the_lines_client() {
    let (lines, gate) = lines();
    let server = trusting(&["127.0.0.1/32"]).serve_handler(lines).expect("it serves");
    let client = connect(server.local_addr());
    let longest = || server.workers().longest.into_iter().next().and_then(|call| call.client);
    for request in [[LINE, b"block\n"].concat(), b"block\n".to_vec()] {
        (&client).write_all(&request).expect("it reads");
        gate.await_blocked(1);
        assert_eq!(longest(), Some("192.0.2.1:5000".parse().expect("an address")));
        gate.open(1);
        assert_eq!(hear(&client), "unblocked");
    }
    // A worker may have answered and not be done.
    await_that("no worker is with anybody", || longest().is_none());
    // The next client of the same workers has an address of its own.
    let other = connect(server.local_addr());
    (&other).write_all(&[LOCAL, b"block\n"].concat()).expect("it reads");
    gate.await_blocked(1);
    assert_eq!(longest(), Some(other.local_addr().expect("an address")));
    gate.open(1);
}

#[test]
fn a_line_may_come_in_pieces_and_holds_no_worker() {
    let hour = Duration::from_secs(3600);
    let server = serve_names(trusting(&["127.0.0.1/32"]).workers(1).io_timeout(hour));
    for line in [LINE, BINARY] {
        let slow = connect(server.local_addr());
        for piece in line.chunks(5) {
            (&slow).write_all(piece).expect("it reads");
            await_that("it was looked at", || has_been_received(&slow));
            let quick = connect(server.local_addr());
            (&quick).write_all(&[BINARY, b"who\n"].concat()).expect("it reads");
            assert_eq!(hear(&quick), "192.0.2.1:5000 192.0.2.2:80");
        }
        assert_eq!(ask(&slow, "who"), "192.0.2.1:5000 192.0.2.2:80");
    }
}

#[test]
fn a_line_that_ends_before_its_end_is_waited_for_no_longer() {
    let hour = Duration::from_secs(3600);
    let server = serve_names(trusting(&["127.0.0.1/32"]).first_byte_timeout(hour).io_timeout(hour));
    for line in [LINE, BINARY] {
        for waits in [true, false] {
            let stream = connect(server.local_addr());
            (&stream).write_all(&line[..9]).expect("it reads");
            if waits {
                await_that("it is parked", || server.metrics().connections_parked == 1);
            }
            stream.shutdown(Shutdown::Write).expect("it is open");
            await_that("it is closed", || server.metrics().connections_open == 0);
        }
    }
    assert_eq!(server.metrics().proxy_lines_malformed, 0);
}

#[test]
fn who_is_not_trusted_begins_with_its_own_bytes() {
    let server = serve_names(trusting(&["10.0.0.0/8"]));
    let stream = connect(server.local_addr());
    (&stream).write_all(LINE).expect("it reads");
    let own = stream.local_addr().expect("an address");
    assert_eq!(hear(&stream), format!("{own} {}", server.local_addr()));
}

#[test]
fn where_the_server_speaks_first_nobody_else_is_waited_for() {
    struct Greets;
    impl Handler for Greets {
        type State = ();
        fn open(&self, connection: &mut Connection<'_>) -> io::Result<()> {
            let client = connection.peer_addr()?;
            writeln!(connection, "hello {client}")
        }
        fn ready(&self, _: &mut Connection<'_>, (): &mut ()) -> io::Result<Next> {
            Ok(Next::Close)
        }
    }
    let never = Duration::from_secs(3600);
    let serve =
        |networks| trusting(networks).first_byte_timeout(never).serve_handler(Greets).expect("it serves");
    let server = serve(&["10.0.0.0/8"]);
    // Once a worker is idle, a newcomer that is to speak first would be parked.
    for _ in 0..20 {
        let stream = connect(server.local_addr());
        assert_eq!(hear(&stream), format!("hello {}", stream.local_addr().expect("an address")));
    }
    // And who owes a line is greeted by the name that it gives.
    let server = serve(&["127.0.0.0/8"]);
    let stream = connect(server.local_addr());
    (&stream).write_all(LINE).expect("it reads");
    assert_eq!(hear(&stream), "hello 192.0.2.1:5000");
}

#[test]
fn who_is_trusted_and_says_nothing_of_a_client_is_closed() {
    let server = serve_names(trusting(&["127.0.0.1/32"]));
    let long = [b"PROXY ".as_slice(), &[b'x'; 5000]].concat();
    for wrong in [b"who\n".as_slice(), b"PROXY TCP4 1 2 3\r\n", b"\r\n\r\n\0\r\nQUIT\n\x33\0\0\0", &long] {
        let mut stream = connect(server.local_addr());
        // It may be closed before all is sent.
        let _ = stream.write_all(wrong);
        assert!(rest(&stream).unwrap_or_default().is_empty(), "{}", wrong.escape_ascii());
    }
    await_that("they are counted", || server.metrics().proxy_lines_malformed == 4);
    drop(connect(server.local_addr()));
    await_that("who says nothing at all is no failure", || server.metrics().empty == 1);
    assert_eq!(server.metrics().failed, 4);
}

#[test]
fn a_line_that_does_not_go_on_is_ended() {
    let server = serve_names(trusting(&["127.0.0.1/32"]).io_timeout(BRIEF));
    let stream = connect(server.local_addr());
    (&stream).write_all(b"PROXY TC").expect("it reads");
    assert!(rest(&stream).unwrap_or_default().is_empty());
    await_that("it is counted", || server.metrics().timed_out_io == 1);
}

/// An upstream that gives the first bytes of each connection, until there is a line's end after so many, or
/// the end.
fn recorder(shortest: usize) -> (SocketAddr, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    let (said, heard) = channel();
    let record = move |mut stream: TcpStream| -> io::Result<()> {
        let (mut bytes, mut byte) = (Vec::new(), [0]);
        while !(bytes.len() >= shortest && bytes.ends_with(b"\n")) && stream.read(&mut byte)? == 1 {
            bytes.push(byte[0]);
        }
        // The test may be over.
        let _ = said.send(bytes);
        stream.write_all(b"done\n")
    };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let record = record.clone();
            thread::spawn(move || record(stream));
        }
    });
    (addr, heard)
}

fn balancer(addr: SocketAddr, config: Config) -> Balancer {
    let upstreams = vec![UpstreamConfig { name: addr.to_string(), weight: 1 }];
    balance::serve(trusting(&["127.0.0.1/32"]), Config { upstreams, ..config }).expect("it balances")
}

#[test]
fn an_upstream_is_told_who_the_client_is_and_checks_speak_for_nobody() {
    let (addr, heard) = recorder(LINE.len() + 1);
    let balancer = balancer(addr, Config { send_proxy: Some(ProxyVersion::V1), ..Config::default() });
    let client = connect(balancer.handle().local_addr());
    (&client).write_all(&[BINARY, b"hello upstream\n"].concat()).expect("it reads");
    assert_eq!(hear(&client), "done");
    let mut all: Vec<_> = std::iter::from_fn(|| heard.recv_timeout(PATIENCE).ok()).take(2).collect();
    all.sort();
    assert_eq!(all, [[LINE, b"hello upstream\n"].concat(), b"PROXY UNKNOWN\r\n".to_vec()]);
}

#[test]
fn an_upstream_hears_of_its_client_even_where_that_waits_for_it_to_speak() {
    let (addr, heard) = recorder(BINARY.len() + 1);
    let balancer = balancer(addr, Config { send_proxy: Some(ProxyVersion::V2), ..Config::default() });
    let client = connect(balancer.handle().local_addr());
    (&client).write_all(LINE).expect("it reads");
    client.shutdown(std::net::Shutdown::Write).expect("it is there");
    assert_eq!(hear(&client), "done");
    let mut all: Vec<_> = std::iter::from_fn(|| heard.recv_timeout(PATIENCE).ok()).take(2).collect();
    all.sort();
    assert_eq!(all, [LOCAL.to_vec(), BINARY.to_vec()]);
}

#[test]
fn over_http_no_connection_is_used_for_two_clients() {
    let reply = |connection: &mut Connection<'_>| {
        if !connection.input().ends_with(b"\r\n\r\n") {
            return Ok(Next::Park);
        }
        connection.consume(connection.input().len());
        let client = connection.peer_addr()?.to_string();
        write!(connection, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{client}", client.len())?;
        Ok(Next::Again)
    };
    let upstream = trusting(&["127.0.0.1/32"]).serve_handler(reply).expect("it serves");
    let http = Some(HttpConfig::default());
    let config = Config { http, send_proxy: Some(ProxyVersion::V2), ..Config::default() };
    let proxy = balancer(upstream.local_addr(), config);
    for port in [5000, 5001] {
        let client = connect(proxy.handle().local_addr());
        let line = format!("PROXY TCP4 192.0.2.1 192.0.2.2 {port} 80\r\n");
        (&client).write_all(line.as_bytes()).expect("it reads");
        for _ in 0..3 {
            send(&client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(receive(&client).1, format!("192.0.2.1:{port}"));
        }
    }
    // Each client has kept its own.
    assert_eq!(proxy.snapshot().upstreams[0].connected, 2);
}

/// Settings that have the upstream told of each client, and nobody look at idle connections.
fn telling(upstream: &Upstream) -> Config {
    Config { send_proxy: Some(ProxyVersion::V1), ..config(&[upstream], HttpConfig::default()) }
}

#[test]
fn over_http_a_connection_that_is_for_one_client_ends_with_it() {
    let upstream = upstream(|_, peer| peer.reply("ok"));
    let proxy = balance::serve(builder(), telling(&upstream)).expect("it balances");
    let ask = |last: &str| {
        let client = connect(proxy.handle().local_addr());
        for head in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", last] {
            send(&client, head);
            assert_eq!(receive(&client).1, "ok");
        }
        client
    };
    for _ in 0..50 {
        drop(ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
        drop(ask("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    }
    await_that("none is left", || upstream.connections_open() == 0);
    // Each client has had one.
    assert_eq!(proxy.snapshot().upstreams[0].connected, 100);
}

#[test]
fn over_http_a_connection_that_is_for_one_client_ends_when_its_upstream_leaves() {
    let (leaves, stays) = (upstream(|_, peer| peer.reply("ok")), upstream(|_, peer| peer.reply("new")));
    let proxy = balance::serve(builder(), telling(&leaves)).expect("it balances");
    let client = connect(proxy.handle().local_addr());
    let ask = || {
        send(&client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        receive(&client).1
    };
    assert_eq!(ask(), "ok");
    await_that("it is kept", || leaves.connections_open() == 1);
    proxy.reload(telling(&stays)).expect("it is right");
    await_that("it is closed", || leaves.connections_open() == 0);
    assert_eq!((ask().as_str(), ask().as_str()), ("new", "new"));
    assert_eq!(proxy.snapshot().upstreams[0].connected, 1);
    // Where nobody is told any more, it is not for one client.
    proxy.reload(Config { send_proxy: None, ..telling(&stays) }).expect("it is right");
    assert_eq!((ask().as_str(), ask().as_str()), ("new", "new"));
    assert_eq!(proxy.snapshot().upstreams[0].connected, 2);
    await_that("the other is closed", || stays.connections_open() == 1);
}

#[test]
fn over_http_the_client_of_the_line_is_the_one_that_is_forwarded() {
    let upstream = upstream(ok);
    let proxy = balancer(upstream.addr, Config { http: Some(HttpConfig::default()), ..Config::default() });
    let client = connect(proxy.handle().local_addr());
    (&client).write_all(LINE).expect("it reads");
    send(&client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    receive(&client);
    let head = upstream.next_head();
    assert!(head.contains("X-Forwarded-For: 192.0.2.1\r\n"), "{head}");
}

/// HAProxy with these proxies.
fn start_haproxy(proxies: &str) -> Option<HaProxy> {
    let defaults = "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n";
    HaProxy::start(&format!("{defaults}{proxies}"))
}

/// Connects once somebody listens.
fn connect_when_there(addr: SocketAddr) -> TcpStream {
    await_that("it listens", || TcpStream::connect(addr).is_ok());
    connect(addr)
}

#[test]
fn behind_haproxy_and_in_front_of_it() {
    for (version, keyword) in [("v1", "send-proxy"), ("v2", "send-proxy-v2")] {
        // A client, HAProxy, the balancer, HAProxy again, the server that says who the client is.
        let server = serve_names(trusting(&["127.0.0.1/32"]));
        let (front, back) = (nobody(), nobody());
        let second =
            format!("listen back\n bind {back} accept-proxy\n server s {} {keyword}\n", server.local_addr());
        let Some(_second) = start_haproxy(&second) else { return };
        let version = if version == "v1" { ProxyVersion::V1 } else { ProxyVersion::V2 };
        let config = Config { send_proxy: Some(version), ..Config::default() };
        let balancer = balancer(back, config);
        let first = format!(
            "listen front\n bind {front}\n server s {} {keyword} check check-send-proxy inter 100\n",
            balancer.handle().local_addr()
        );
        let Some(_first) = start_haproxy(&first) else { return };
        let client = connect_when_there(front);
        let own = client.local_addr().expect("an address");
        assert_eq!(ask(&client, "who"), format!("{own} {front}"));
        assert_eq!(server.metrics().proxy_lines_malformed, 0);
        assert_eq!(balancer.handle().metrics().proxy_lines_malformed, 0);
    }
}
