//! The proxy for HTTP, before upstreams that do as they are told.

use std::{
    io::{self, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc::channel,
    },
    time::Duration,
};

use overfall::balance::{self, HttpConfig, UpstreamConfig};
use parking_lot::Mutex;

use crate::{support::*, upstream::*};

#[test]
fn requests_of_many_connections_share_those_to_the_upstream() {
    let upstream = upstream(ok);
    let proxy = proxy(&[&upstream]);
    for _ in 0..5 {
        let client = client(&proxy);
        for _ in 0..3 {
            send(&client, GET);
            let (head, body) = receive(&client);
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert_eq!(body, "GET /a?b HTTP/1.1");
        }
    }
    // One that is not yet given back when the next client comes costs it a new one.
    assert!(upstream.connections.load(SeqCst) <= 5);
    await_that("all are counted", || proxy.handle().metrics().answered == 15);
    assert_eq!(proxy.handle().metrics().answers_2xx, 15);
    let status = &proxy.snapshot().upstreams[0];
    assert_eq!(status.received, 15 * "GET /a?b HTTP/1.1".len() as u64);
    assert!(status.sent > 15 * GET.len() as u64);
}

#[test]
fn what_is_for_one_connection_alone_is_dropped_and_where_it_came_from_is_added() {
    let upstream = upstream(ok);
    let proxy = proxy(&[&upstream]);
    let client = client(&proxy);
    send(
        &client,
        "GET http://other.com/x HTTP/1.1\r\nHost: other.com\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
         X-Keep: a\r\nx-keep: b\r\nUser_Id: 7\r\nX-Forwarded-For: 6.6.6.6\r\nTE: trailers\r\n\r\n",
    );
    receive(&client);
    let head = upstream.next_head();
    assert!(head.starts_with("GET /x HTTP/1.1\r\nHost: other.com\r\n"), "{head}");
    assert!(head.contains("X-Keep: a\r\nx-keep: b\r\n"), "{head}");
    assert!(head.contains("X-Forwarded-For: 127.0.0.1\r\n"), "{head}");
    assert!(head.contains("X-Forwarded-Proto: http\r\n") && head.contains("Via: 1.1 "), "{head}");
    assert!(head.contains("X-Request-Start: t="), "{head}");
    for dropped in ["X-Hop", "User_Id", "6.6.6.6", "TE:", "Connection:"] {
        assert!(!head.contains(dropped), "{dropped}: {head}");
    }
}

#[test]
fn a_body_of_any_framing_arrives_whole() {
    let upstream = upstream(|head, peer| {
        let length: usize = match head.split_once("Content-Length: ") {
            Some((_, rest)) => rest.lines().next().unwrap_or_default().parse().unwrap(),
            None => 0,
        };
        let body = peer.body(length);
        peer.reply(&String::from_utf8(body).unwrap())
    });
    let proxy = proxy(&[&upstream]);
    let client = client(&proxy);
    send(&client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(receive(&client).1, "hello");
    // What was gathered is passed on with its length.
    send(
        &client,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
    );
    assert_eq!(receive(&client).1, "hello");
    // One that does not fit passes through.
    let large = "x".repeat(300_000);
    send(&client, &format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{large}", large.len()));
    assert_eq!(receive(&client).1, large);
    send(&client, GET);
    assert_eq!(receive(&client).1, "");
}

#[test]
fn a_large_body_in_chunks_passes_through_in_chunks() {
    let (got, body) = channel();
    let got = Mutex::new(got);
    let upstream = upstream(move |head, peer| {
        assert!(head.contains("Transfer-Encoding: chunked\r\n"), "{head}");
        let mut bytes = Vec::new();
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.extend(peer.body(1));
            }
            let size = usize::from_str_radix(String::from_utf8(line).unwrap().trim_end(), 16).unwrap();
            bytes.extend(peer.body(size));
            assert_eq!(peer.body(2), b"\r\n");
            if size == 0 {
                break;
            }
        }
        got.lock().send(bytes).unwrap();
        peer.reply("thanks")
    });
    let proxy = proxy(&[&upstream]);
    let client = client(&proxy);
    send(&client, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..20 {
        send(&client, &format!("1388\r\n{}\r\n", "y".repeat(5000)));
    }
    send(&client, "0\r\n\r\n");
    assert_eq!(receive(&client).1, "thanks");
    assert_eq!(body.recv_timeout(PATIENCE).unwrap(), "y".repeat(100_000).into_bytes());
}

#[test]
fn replies_of_any_framing_reach_clients_of_either_version() {
    let upstream = upstream(|head, peer| {
        if head.starts_with("GET /chunked") {
            peer.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n");
            Next::Keep
        } else if head.starts_with("GET /close") {
            peer.say("HTTP/1.1 200 OK\r\n\r\nhello");
            Next::Close
        } else if head.starts_with("GET /old") {
            peer.say("HTTP/1.0 200 OK\r\n\r\nhello");
            Next::Close
        } else {
            peer.say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
            peer.reply("hello")
        }
    });
    let proxy = proxy(&[&upstream]);
    let kept = client(&proxy);
    for path in ["/chunked", "/close", "/old", "/chunked"] {
        send(&kept, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(receive(&kept).1, "hello", "{path}");
    }
    send(&kept, GET);
    assert!(receive_head(&kept).starts_with("HTTP/1.1 100 Continue\r\n"));
    assert!(receive_head(&kept).starts_with("HTTP/1.1 103 Early Hints\r\nLink: x\r\n"));
    assert_eq!(receive(&kept).1, "hello");
    for path in ["/chunked", "/close", "/old", "/length"] {
        let old = client(&proxy);
        send(&old, &format!("GET {path} HTTP/1.0\r\n\r\n"));
        let text = String::from_utf8(rest(&old).unwrap()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK") && !head.contains("chunked"), "{path}: {head}");
        assert_eq!(body, "hello", "{path}");
    }
}

#[test]
fn replies_without_content_end_at_their_head() {
    let upstream = upstream(|head, peer| {
        match head.split(' ').nth(1).unwrap() {
            "/204" => peer.say("HTTP/1.1 204 No Content\r\n\r\n"),
            "/304" => peer.say("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
            _ => peer.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        }
        Next::Keep
    });
    let proxy = proxy(&[&upstream]);
    let client = client(&proxy);
    for (request, status) in
        [("GET /204", "204"), ("GET /304", "304"), ("HEAD /", "200"), ("GET /204", "204")]
    {
        send(&client, &format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = receive_head(&client);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
    assert_eq!(upstream.connections.load(SeqCst), 1);
}

#[test]
fn what_is_no_reply_is_502_and_its_connection_is_not_used_again() {
    let bad = [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: ",
        "",
    ];
    let upstream = upstream(move |head, peer| {
        let index: usize = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        peer.say(bad[index]);
        Next::Close
    });
    let proxy = proxy(&[&upstream]);
    let client = client(&proxy);
    for (index, text) in bad.iter().enumerate() {
        send(&client, &format!("POST /{index} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        let (head, _) = receive(&client);
        assert!(head.starts_with("HTTP/1.1 502 "), "{text:?}: {head}");
        assert_eq!(upstream.connections.load(SeqCst), index + 1);
    }
}

#[test]
fn a_reply_that_is_cut_off_stays_cut_off() {
    let upstream = upstream(|head, peer| {
        match head.split(' ').nth(1).unwrap() {
            "/length" => peer.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
            _ => peer.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf"),
        }
        Next::Close
    });
    let proxy = proxy(&[&upstream]);
    for path in ["/length", "/chunks"] {
        let client = client(&proxy);
        send(&client, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(rest(&client), Err(io::ErrorKind::ConnectionReset), "{path}");
    }
}

#[test]
fn over_the_limit_requests_wait_and_those_that_wait_too_long_are_told_so_and_keep_their_connection() {
    let (open, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let upstream = upstream(move |head, peer| {
        let _ = gate.lock().recv();
        ok(head, peer)
    });
    let http = HttpConfig { limit: Some(1), ..HttpConfig::default() };
    let config = config(&[&upstream], http);
    let proxy = balance::serve(builder().patience(Duration::from_millis(300)), config).unwrap();
    let (first, second) = (client(&proxy), client(&proxy));
    send(&first, GET);
    upstream.next_head();
    send(&second, GET);
    let (head, _) = receive(&second);
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("Retry-After: "), "{head}");
    open.send(()).unwrap();
    assert_eq!(receive(&first).1, "GET /a?b HTTP/1.1");
    open.send(()).unwrap();
    send(&second, GET);
    assert_eq!(receive(&second).1, "GET /a?b HTTP/1.1");
    assert_eq!(upstream.connections.load(SeqCst), 1);
    assert_eq!(proxy.snapshot().upstreams[0].limit, Some(1.0));
}

#[test]
fn who_waits_is_served_when_a_place_is_free() {
    let (open, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let upstream = upstream(move |head, peer| {
        let _ = gate.lock().recv();
        ok(head, peer)
    });
    let proxy = proxy_with(&[&upstream], HttpConfig { limit: Some(2), ..HttpConfig::default() });
    let clients: Vec<_> = (0..10).map(|_| client(&proxy)).collect();
    clients[..2].iter().for_each(|client| send(client, GET));
    (0..2).for_each(|_| drop(upstream.next_head()));
    clients[2..].iter().for_each(|client| send(client, GET));
    await_that("eight wait", || proxy.snapshot().waiting == 8);
    // Two of them go, of whom one has said no more than that it sends nothing more.
    let _ = rustix::net::connect_unspec(&clients[8]);
    clients[9].shutdown(Shutdown::Write).unwrap();
    await_that("they leave", || proxy.snapshot().waiting == 6);
    (0..8).for_each(|_| open.send(()).unwrap());
    for client in &clients[..8] {
        assert_eq!(receive(client).1, "GET /a?b HTTP/1.1");
    }
    assert_eq!(upstream.connections.load(SeqCst), 2);
}

#[test]
fn a_field_may_name_the_sources_that_have_their_turns() {
    let (open, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let upstream = upstream(move |head, peer| {
        let _ = gate.lock().recv();
        ok(head, peer)
    });
    let source_header = Some("X-Forwarded-For".parse().expect("a name"));
    let http = HttpConfig { limit: Some(1), source_header, ..HttpConfig::default() };
    let proxy = proxy_with(&[&upstream], http);
    let mut clients = Vec::new();
    for (path, source) in [("a1", 1), ("a2", 1), ("a3", 1), ("b1", 2), ("b2", 2)] {
        let client = client(&proxy);
        send(
            &client,
            &format!("GET /{path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.{source}\r\n\r\n"),
        );
        let others = clients.len();
        // The first has the only place.
        await_that("it is there", || match others {
            0 => upstream.connections.load(SeqCst) == 1,
            _ => proxy.snapshot().waiting == others,
        });
        clients.push(client);
    }
    let served = clients.iter().map(|_| {
        let head = upstream.next_head();
        open.send(()).unwrap();
        head.split(' ').nth(1).unwrap_or_default().to_owned()
    });
    assert_eq!(served.collect::<Vec<_>>(), ["/a1", "/a2", "/b1", "/a3", "/b2"]);
    clients.iter().for_each(|client| drop(receive(client)));
}

#[test]
fn a_place_is_kept_until_the_upstream_is_done_though_the_client_has_gone() {
    let (open, gate) = channel::<()>();
    let (gate, at_once, most) =
        (Mutex::new(gate), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, seen) = (Arc::clone(&at_once), Arc::clone(&most));
    let upstream = upstream(move |head, peer| {
        seen.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
        let _ = gate.lock().recv();
        now.fetch_sub(1, SeqCst);
        ok(head, peer)
    });
    let proxy = proxy_with(&[&upstream], HttpConfig { limit: Some(1), ..HttpConfig::default() });
    for _ in 0..5 {
        let gone = client(&proxy);
        send(&gone, GET);
        await_that("it is there", || proxy.snapshot().waiting > 0 || at_once.load(SeqCst) == 1);
        let _ = rustix::net::connect_unspec(&gone);
        await_that("it has left the line", || proxy.snapshot().waiting == 0);
    }
    let last = client(&proxy);
    send(&last, GET);
    await_that("it waits", || proxy.snapshot().waiting == 1);
    (0..2).for_each(|_| open.send(()).unwrap());
    assert_eq!(receive(&last).1, "GET /a?b HTTP/1.1");
    assert_eq!(most.load(SeqCst), 1);
}

#[test]
fn a_spare_connection_that_has_died_costs_a_get_nothing_and_no_post_is_done_twice() {
    let posts = Arc::new(AtomicUsize::new(0));
    let done = Arc::clone(&posts);
    // Each second connection is closed when a request comes, done or not.
    let upstream = upstream(move |head, peer| {
        let is_second = peer.connection.is_multiple_of(2) || peer.requests == 2;
        if head.starts_with("POST") {
            done.fetch_add(1, SeqCst);
        }
        if is_second {
            return Next::Close;
        }
        peer.reply("served")
    });
    let proxy = proxy(&[&upstream]);
    let client = client(&proxy);
    for _ in 0..5 {
        send(&client, GET);
        let (head, _) = receive(&client);
        assert!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.1 502"), "{head}");
    }
    let before = posts.load(SeqCst);
    send(&client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    let _ = rest_or_reply(&client);
    assert_eq!(posts.load(SeqCst), before + 1);
}

/// A head, or the end.
fn rest_or_reply(client: &TcpStream) -> String {
    let mut head = String::new();
    loop {
        let line = receive_line(client);
        head += &line;
        if line.is_empty() || head.ends_with("\r\n\r\n") {
            return head;
        }
    }
}

#[test]
fn a_get_is_tried_again_when_its_kept_connection_had_died() {
    // Each connection serves one request, and dies when the second comes.
    let upstream = upstream(|head, peer| if peer.requests == 2 { Next::Close } else { ok(head, peer) });
    let proxy = proxy(&[&upstream]);
    let client = client(&proxy);
    for _ in 0..5 {
        send(&client, GET);
        assert_eq!(receive(&client).1, "GET /a?b HTTP/1.1");
    }
}

#[test]
fn one_of_two_upstreams_that_cannot_be_connected_costs_no_request() {
    let upstream = upstream(ok);
    let mut config = config(&[&upstream], HttpConfig::default());
    config.upstreams.push(UpstreamConfig { name: nobody().to_string(), weight: 1 });
    let proxy = balance::serve(builder(), config).unwrap();
    for _ in 0..20 {
        let client = client(&proxy);
        send(&client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(receive(&client).1, "POST / HTTP/1.1");
    }
}

#[test]
fn an_upgrade_becomes_a_tunnel_only_after_the_upstream_has_agreed() {
    let upstream = upstream(|head, peer| {
        if !head.contains("Upgrade: chat\r\n") {
            return ok(head, peer);
        }
        if head.starts_with("GET /no") {
            return peer.reply("no");
        }
        peer.say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: Upgrade\r\n\r\nwelcome ");
        loop {
            let byte = peer.body(1);
            if byte.is_empty() {
                return Next::Close;
            }
            peer.say(&String::from_utf8(byte).unwrap().to_uppercase());
        }
    });
    let proxy = proxy(&[&upstream]);
    let ask = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
    };
    let refused = client(&proxy);
    // What follows is a request, as the upstream has not agreed.
    send(&refused, &(ask("/no") + GET));
    assert_eq!(receive(&refused).1, "no");
    assert_eq!(receive(&refused).1, "GET /a?b HTTP/1.1");
    let mut tunnel = client(&proxy);
    send(&tunnel, &(ask("/yes") + "hello "));
    assert!(receive_head(&tunnel).starts_with("HTTP/1.1 101 "));
    assert_eq!(exactly(&tunnel, 14), b"welcome HELLO ");
    tunnel.write_all(b"and bye").unwrap();
    assert_eq!(exactly(&tunnel, 7), b"AND BYE");
    tunnel.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&tunnel), Ok(Vec::new()));
    await_that("its place is free", || proxy.snapshot().upstreams[0].open == 0);
}

#[test]
fn a_slow_client_costs_the_upstream_nothing() {
    let upstream = upstream(|_, peer| {
        peer.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000)));
        Next::Keep
    });
    let proxy = proxy_with(&[&upstream], HttpConfig { limit: Some(1), ..HttpConfig::default() });
    // They read nothing, and half a head.
    let slow: Vec<_> = (0..4).map(|_| client(&proxy)).collect();
    slow.iter().for_each(|client| send(client, GET));
    let unfinished: Vec<_> = (0..4).map(|_| client(&proxy)).collect();
    unfinished.iter().for_each(|client| send(client, "GET / HTTP/1.1\r\nHost:"));
    let quick = client(&proxy);
    send(&quick, GET);
    assert_eq!(receive(&quick).1.len(), 100_000);
    slow.iter().for_each(|client| assert_eq!(receive(client).1.len(), 100_000));
}

#[test]
fn an_upstream_that_does_not_answer_in_time_is_504() {
    let (_open, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let upstream = upstream(move |_, _| {
        let _ = gate.lock().recv();
        Next::Close
    });
    let upstream_timeout = Duration::from_millis(100);
    let proxy = proxy_with(&[&upstream], HttpConfig { upstream_timeout, ..HttpConfig::default() });
    let client = client(&proxy);
    send(&client, GET);
    assert!(receive(&client).0.starts_with("HTTP/1.1 504 "));
    await_that("its place is free", || proxy.snapshot().upstreams[0].open == 0);
}

#[test]
fn what_the_server_refuses_never_reaches_an_upstream() {
    let reached = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&reached);
    let upstream = upstream(move |head, peer| {
        seen.store(true, SeqCst);
        ok(head, peer)
    });
    let proxy = proxy(&[&upstream]);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", "501"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\n", "400"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", "501"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", "505"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", "400"),
    ] {
        let client = client(&proxy);
        send(&client, request);
        let (head, _) = receive(&client);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {head}");
    }
    assert!(!reached.load(SeqCst));
}
