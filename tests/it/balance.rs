//! The balancer, before upstreams that do as they are told.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use overfall::{
    Builder, Connection, Handle, Next, Server,
    apps::Echo,
    balance::{self, AllDown, Balancer, Config, Policy, UpstreamConfig},
};
use rustix::process::Signal;

use crate::support::*;

const SOON: Duration = Duration::from_millis(100);

/// An upstream that answers each line with its name.
fn named(name: &'static str) -> Handle {
    named_at(name, "127.0.0.1:0")
}

fn named_at(name: &'static str, addr: &str) -> Handle {
    let answer = move |connection: &mut Connection<'_>| {
        while let Some(end) = connection.input().iter().position(|&byte| byte == b'\n') {
            connection.consume(end + 1);
            writeln!(connection, "{name}")?;
        }
        Ok(if connection.ended() { Next::Close } else { Next::Park })
    };
    Server::builder().workers(1).bind(addr).serve_handler(answer).expect("it serves")
}

fn config(upstreams: &[SocketAddr]) -> Config {
    let upstream = |addr: &SocketAddr| UpstreamConfig { name: addr.to_string(), weight: 1 };
    Config {
        upstreams: upstreams.iter().map(upstream).collect(),
        // Checks are for the tests that are about them.
        check_interval: Duration::from_secs(3600),
        ..Config::default()
    }
}

fn start(config: Config) -> Balancer {
    start_on(builder(), config)
}

fn start_on(builder: Builder, config: Config) -> Balancer {
    balance::serve(builder, config).expect("it serves")
}

fn addr(balancer: &Balancer) -> SocketAddr {
    balancer.handle().local_addr()
}

/// The upstream's side of the connection of a client that has sent this byte; those of checks send
/// nothing.
fn accept_client(listener: &TcpListener, byte: u8) -> TcpStream {
    loop {
        let (mut upstream, _) = listener.accept().expect("a connection");
        let mut first = [0];
        if upstream.read(&mut first).is_ok_and(|count| count == 1) {
            assert_eq!(first, [byte]);
            return upstream;
        }
    }
}

/// How many of these many connections, all open at once, each upstream has.
fn spread(balancer: &Balancer, connections: usize) -> HashMap<String, usize> {
    let clients: Vec<_> = (0..connections).map(|_| connect(addr(balancer))).collect();
    let mut counts = HashMap::new();
    for client in &clients {
        *counts.entry(ask(client, "who")).or_default() += 1;
    }
    counts
}

fn counts(pairs: &[(&str, usize)]) -> HashMap<String, usize> {
    pairs.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
}

#[test]
fn each_policy_spreads_connections_by_weight() {
    let upstreams = [named("a"), named("b"), named("c")];
    let addrs: Vec<_> = upstreams.iter().map(Handle::local_addr).collect();
    for policy in [Policy::LeastConnections, Policy::RoundRobin] {
        let mut config = Config { policy, ..config(&addrs) };
        let even = start(config.clone());
        assert_eq!(spread(&even, 9), counts(&[("a", 3), ("b", 3), ("c", 3)]));
        config.upstreams[1].weight = 4;
        let weighted = start(config);
        assert_eq!(spread(&weighted, 12), counts(&[("a", 2), ("b", 8), ("c", 2)]));
    }
}

#[test]
fn half_closes_are_passed_on_both_ways() {
    let echo = Server::builder().bind("127.0.0.1:0").serve_handler(Echo::default()).expect("it serves");
    let balancer = start(config(&[echo.local_addr()]));
    assert_eq!(exchange(addr(&balancer), b"hello").expect("an echo"), b"hello");
    // The upstream ends its side first, and still reads.
    let listener = TcpListener::bind("127.0.0.1:0").expect("it listens");
    let balancer = start(config(&[listener.local_addr().expect("it is bound")]));
    let mut client = connect(addr(&balancer));
    client.write_all(b"1").expect("it reads");
    let mut upstream = accept_client(&listener, b'1');
    upstream.write_all(b"reply").expect("it reads");
    upstream.shutdown(Shutdown::Write).expect("it is there");
    assert_eq!(rest(&client), Ok(b"reply".to_vec()));
    client.write_all(b"second").expect("it reads");
    client.shutdown(Shutdown::Write).expect("it is there");
    assert_eq!(rest(&upstream), Ok(b"second".to_vec()));
}

#[test]
fn resets_are_passed_on_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("it listens");
    let balancer = start(config(&[listener.local_addr().expect("it is bound")]));
    for upstream_resets in [true, false] {
        let mut client = connect(addr(&balancer));
        client.write_all(b"x").expect("it reads");
        let upstream = accept_client(&listener, b'x');
        let (resets, hears) = if upstream_resets { (upstream, client) } else { (client, upstream) };
        reset_on_close(&resets);
        drop(resets);
        assert_eq!(rest(&hears), Err(io::ErrorKind::ConnectionReset));
    }
}

/// Bytes that follow from their place, in pieces of uneven length.
fn pieces(total: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut at = 0usize;
    std::iter::from_fn(move || {
        let length = (at % 70_001 + 1).min(total - at);
        let piece = (at..at + length).map(|n| (n ^ n >> 8 ^ n >> 16) as u8).collect();
        at += length;
        (length > 0).then_some(piece)
    })
}

fn checksum(pieces: impl Iterator<Item = Vec<u8>>) -> u64 {
    let mut hasher = DefaultHasher::new();
    pieces.for_each(|piece| piece.iter().for_each(|byte| byte.hash(&mut hasher)));
    hasher.finish()
}

#[test]
fn a_bulk_both_ways_at_once_arrives_whole() {
    const TOTAL: usize = 64 * 1024 * 1024;
    let echo =
        Server::builder().workers(1).bind("127.0.0.1:0").serve_handler(Echo::default()).expect("it serves");
    let balancer = start(config(&[echo.local_addr()]));
    let mut client = connect(addr(&balancer));
    let mut sender = client.try_clone().expect("a handle");
    let sent = thread::spawn(move || {
        let send = |piece: Vec<u8>| {
            sender.write_all(&piece).expect("it reads");
            piece
        };
        let sum = checksum(pieces(TOTAL).map(send));
        sender.shutdown(Shutdown::Write).expect("it is there");
        sum
    });
    let mut buffer = vec![0; 300_000];
    let received = checksum(std::iter::from_fn(|| {
        let count = client.read(&mut buffer).expect("bytes");
        (count > 0).then(|| buffer[..count].to_vec())
    }));
    assert_eq!(received, sent.join().expect("it ends well"));
    drop(client);
    await_that("its relay is gone", || balancer.snapshot().upstreams[0].open == 0);
    let status = &balancer.snapshot().upstreams[0];
    assert_eq!((status.sent, status.received), (TOTAL as u64, TOTAL as u64));
}

#[test]
fn a_slow_reader_fills_one_buffer_and_costs_no_worker() {
    // More than the kernel's buffers may hold on the way.
    const TOTAL: u64 = 256 * 1024 * 1024;
    let listener = TcpListener::bind("127.0.0.1:0").expect("it listens");
    let upstream = listener.local_addr().expect("it is bound");
    let (written, stopped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (progress, blocks) = (Arc::clone(&written), Arc::clone(&stopped));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let (progress, blocks) = (Arc::clone(&progress), Arc::clone(&blocks));
            thread::spawn(move || {
                let mut kind = [0];
                if stream.read_exact(&mut kind).is_err() || kind == *b"q" {
                    let _ = stream.write_all(b"quick");
                    return;
                }
                let piece = vec![7; 65_536];
                stream.set_write_timeout(Some(SOON)).expect("a timeout");
                while progress.load(SeqCst) < TOTAL {
                    let left = usize::try_from(TOTAL - progress.load(SeqCst)).expect("a size");
                    match stream.write(&piece[..left.min(piece.len())]) {
                        Ok(count) => drop(progress.fetch_add(count as u64, SeqCst)),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => blocks.store(true, SeqCst),
                        Err(_) => return,
                    }
                }
            });
        }
    });
    let balancer = start_on(builder().workers(1), config(&[upstream]));
    let mut slow = connect(addr(&balancer));
    slow.write_all(b"s").expect("it reads");
    await_that("the upstream is stopped", || stopped.load(SeqCst));
    assert!((1..TOTAL / 2).contains(&written.load(SeqCst)), "{}", written.load(SeqCst));
    let mut quick = connect(addr(&balancer));
    quick.write_all(b"q").expect("it reads");
    assert_eq!(rest(&quick), Ok(b"quick".to_vec()));
    assert_eq!(rest(&slow).expect("all of it").len() as u64, TOTAL);
}

#[test]
fn an_upstream_that_is_gone_is_passed_over_ejected_and_taken_back() {
    let (first, second) = (named("first"), named("second"));
    let gone = first.local_addr();
    let config = Config {
        policy: Policy::RoundRobin,
        check_interval: Duration::from_millis(200),
        rise: 2,
        fall: 3,
        ..config(&[gone, second.local_addr()])
    };
    let balancer = start(config);
    assert_eq!(spread(&balancer, 4), counts(&[("first", 2), ("second", 2)]));
    first.shutdown();
    first.join().expect("it ends well");
    drop(first);
    // Nobody sees an error, before it is found to be down and after.
    for _ in 0..20 {
        assert_eq!(ask(&connect(addr(&balancer)), "who"), "second");
    }
    await_that("it is down", || !balancer.snapshot().upstreams[0].up);
    assert_eq!(balancer.upstreams_up(), 1);
    let failed = balancer.snapshot().upstreams[0].failed;
    for _ in 0..5 {
        assert_eq!(ask(&connect(addr(&balancer)), "who"), "second");
    }
    assert_eq!(balancer.snapshot().upstreams[0].failed, failed);
    let _back = named_at("first", &gone.to_string());
    await_that("it is up again", || balancer.snapshot().upstreams[0].up);
    assert_eq!(spread(&balancer, 4), counts(&[("first", 2), ("second", 2)]));
}

#[test]
fn a_client_that_has_sent_nothing_survives_its_upstream() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("it listens");
    let other = named("other");
    let dying = listener.local_addr().expect("it is bound");
    let balancer = start(Config { policy: Policy::RoundRobin, ..config(&[dying, other.local_addr()]) });
    let clients = [connect(addr(&balancer)), connect(addr(&balancer))];
    // One of them is there, accepted, and then everything of it goes.
    let (accepted, _) = listener.accept().expect("a connection");
    drop((accepted, listener));
    await_that("it is elsewhere", || balancer.snapshot().upstreams[1].open == 2);
    for client in &clients {
        assert_eq!(ask(client, "who"), "other");
    }
}

#[test]
fn each_upstream_has_its_limit_and_the_excess_waits_in_a_line_or_hears_no() {
    let upstream = named("only");
    let config = Config {
        max_connections_per_upstream: Some(1),
        busy_reply: b"busy\n".to_vec(),
        ..config(&[upstream.local_addr()])
    };
    let balancer = start(config.clone());
    let first = connect(addr(&balancer));
    assert_eq!(ask(&first, "who"), "only");
    let second = connect(addr(&balancer));
    tell(&second, "who");
    await_that("the second is in the line", || balancer.snapshot().waiting == 1);
    assert_eq!(balancer.snapshot().upstreams[0].open, 1);
    drop(first);
    assert_eq!(hear(&second), "only");
    // Who waits in vain hears no, and who is gone does not keep its place.
    let brief = start_on(builder().patience(BRIEF), config);
    let first = connect(addr(&brief));
    assert_eq!(ask(&first, "who"), "only");
    assert_eq!(rest(&connect(addr(&brief))), Ok(b"busy\n".to_vec()));
    assert_eq!((brief.snapshot().line_shed, brief.snapshot().waiting), (1, 0));
}

#[test]
fn a_client_that_gives_up_leaves_the_line() {
    let upstream = named("only");
    let config = Config { max_connections_per_upstream: Some(1), ..config(&[upstream.local_addr()]) };
    let balancer = start(config);
    let first = connect(addr(&balancer));
    assert_eq!(ask(&first, "who"), "only");
    let second = connect(addr(&balancer));
    await_that("the second is in the line", || balancer.snapshot().waiting == 1);
    reset_on_close(&second);
    drop(second);
    await_that("nobody is in the line", || balancer.snapshot().waiting == 0);
    drop(first);
    assert_eq!(ask(&connect(addr(&balancer)), "who"), "only");
}

/// A listener whose backlog is full, so that it swallows every connection that is begun.
fn swallowing() -> (rustix::fd::OwnedFd, SocketAddr, Vec<rustix::fd::OwnedFd>) {
    use rustix::net::{
        AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with,
    };
    let socket = |flags| socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("a socket");
    let listener = socket(SocketFlags::CLOEXEC);
    bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    listen(&listener, 0).expect("it listens");
    let addr: SocketAddr = getsockname(&listener).expect("it is bound").try_into().expect("an address");
    let fill = |_| {
        let filler = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        let _ = connect(&filler, &addr);
        filler
    };
    (listener, addr, (0..4).map(fill).collect())
}

#[test]
fn an_upstream_that_swallows_connections_holds_no_worker_and_is_given_up() {
    let (_listener, swallows, _fillers) = swallowing();
    let other = named("other");
    let config = Config {
        policy: Policy::RoundRobin,
        connect_timeout: SOON,
        ..config(&[swallows, other.local_addr()])
    };
    let balancer = start_on(builder().workers(1), config);
    let clients: Vec<_> = (0..6).map(|_| connect(addr(&balancer))).collect();
    for client in &clients {
        assert_eq!(ask(client, "who"), "other");
    }
    // What counts is for how long it fails, not how many try.
    await_that("it is down", || {
        assert_eq!(ask(&connect(addr(&balancer)), "who"), "other");
        !balancer.snapshot().upstreams[0].up
    });
    let status = &balancer.snapshot().upstreams[0];
    assert_eq!((status.connecting, status.open), (0, 0));
    assert!(status.failed >= 3, "{status:?}");
}

#[test]
fn while_all_are_down_connections_are_refused_or_tried() {
    let upstream = named("only");
    let down =
        Config { check_interval: Duration::from_millis(200), fall: 1, ..config(&[upstream.local_addr()]) };
    // It does not say what is expected of it.
    let down = Config { check_send: b"who\n".to_vec(), check_expect: Some(b"other".to_vec()), ..down };
    let refusing = start_on(builder().patience(BRIEF), down.clone());
    await_that("it is down", || !refusing.snapshot().upstreams[0].up);
    assert!(refused_with(addr(&refusing)).is_err());
    let snapshot = refusing.snapshot();
    assert_eq!((snapshot.refused_no_upstream, snapshot.overloads_begun), (1, 0));
    let trying = start(Config { all_down: AllDown::Try, ..down });
    await_that("it is down", || !trying.snapshot().upstreams[0].up);
    assert_eq!(ask(&connect(addr(&trying)), "who"), "only");
}

#[test]
fn a_bad_configuration_is_named() {
    let upstream: SocketAddr = "127.0.0.1:9".parse().expect("an address");
    let base = config(&[upstream]);
    let cases = [
        (Config { upstreams: vec![], ..base.clone() }, "there is no upstream; give one HOST:PORT or more"),
        (config(&[upstream, upstream]), "the upstream 127.0.0.1:9 is given twice; give each once"),
        (Config { rise: 0, ..base.clone() }, "rise is 0; it may be 1 or more"),
        (
            Config { connect_timeout: Duration::ZERO, ..base.clone() },
            "connect_timeout is 0ns; it may be 1ms to 365 days",
        ),
    ];
    for (config, expected) in cases {
        assert_eq!(balance::serve(builder(), config).expect_err("it is wrong").to_string(), expected);
    }
}

#[test]
fn wrong_usage_is_status_2_and_one_sentence() {
    assert_wrong_usage(
        &["balance", "--listen", "127.0.0.1:0"],
        &[
            (&[], "UPSTREAM"),
            (&["127.0.0.1"], "give HOST:PORT"),
            (&["--limit", "4", "a:1"], "--limit is for --protocol http, not tcp"),
            (
                &["--protocol", "http", "--max-connections-per-upstream", "4", "a:1"],
                "--max-connections-per-upstream is for --protocol tcp, not http",
            ),
            (&["--source-header", "x", "a:1"], "--source-header is for --protocol http, not tcp"),
            (&["--protocol", "http", "--source-header", "a b", "a:1"], "it is not the name of a field"),
            (&["--protocol", "http", "--check-path", "x", "a:1"], "--check-path is x; it may be a path"),
            (&["127.0.0.1:9=0"], "the weight after the = may be 1 to 1000"),
            (&["127.0.0.1:9", "127.0.0.1:9"], "given twice"),
            (&["127.0.0.1:9", "--fall", "0"], "--fall is 0; it may be 1 or more"),
            (&["web:9", "--resolve-interval", "0s"], "--resolve-interval is 0ns; it may be 1ms to 365 days"),
            (&["web:9", "web:9=2"], "the upstream web:9 is given twice"),
            (&["127.0.0.1:9", "--policy", "random"], "least-connections"),
        ],
    );
    let own = nobody().to_string();
    let output = run(&["balance", "--listen", &own, &own]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("is the balancer's own address; give another"), "{text}");
}

#[test]
fn the_command_shows_its_upstreams_and_drains() {
    let upstream = named("only");
    let addr = upstream.local_addr().to_string();
    let mut served = start_command(&["balance", "--drain-timeout", "2s", &addr]);
    let clients: Vec<_> = (0..5).map(|_| connect(served.addr)).collect();
    for client in &clients {
        assert_eq!(ask(client, "who"), "only");
    }
    served.signal(Signal::TERM);
    // Idle relays are closed one after the other.
    for client in &clients {
        assert_eq!(rest(client), Ok(vec![]));
    }
    let (status, text) = served.wait();
    assert_eq!(status, Some(0), "{text}");
    let row = text.lines().find(|line| line.contains(&addr)).expect("a row for the upstream");
    let words: Vec<_> = row.split_whitespace().collect();
    assert_eq!(words[..7], [addr.as_str(), addr.as_str(), "up", "0", "0", "5", "0"]);
}

#[test]
fn who_is_closed_before_anything_was_sent_goes_elsewhere_and_nobody_is_blamed() {
    let closing = TcpListener::bind("127.0.0.1:0").expect("it listens");
    let closes = closing.local_addr().expect("it is bound");
    thread::spawn(move || closing.incoming().for_each(drop));
    let other = named("other");
    let balancer = start(Config { policy: Policy::RoundRobin, ..config(&[closes, other.local_addr()]) });
    for _ in 0..10 {
        let client = connect(addr(&balancer));
        await_that("it is elsewhere", || balancer.snapshot().upstreams[1].open == 1);
        assert_eq!(ask(&client, "who"), "other");
        drop(client);
        await_that("it is gone", || balancer.snapshot().upstreams[1].open == 0);
    }
    assert!(balancer.snapshot().upstreams[0].up);
    // Where there is nobody else, it is the end.
    let alone = start(config(&[closes]));
    assert_eq!(rest(&connect(addr(&alone))), Ok(vec![]));
}

#[test]
fn a_reset_after_a_half_close_is_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("it listens");
    let balancer = start(config(&[listener.local_addr().expect("it is bound")]));
    let mut client = connect(addr(&balancer));
    client.write_all(b"x").expect("it reads");
    let upstream = accept_client(&listener, b'x');
    client.shutdown(Shutdown::Write).expect("it is there");
    assert_eq!(rest(&upstream), Ok(vec![]));
    reset_on_close(&client);
    drop(client);
    await_that("its place is free", || balancer.snapshot().upstreams[0].open == 0);
}

#[test]
fn who_waited_in_vain_reads_its_busy_reply() {
    let upstream = named("only");
    let config = Config {
        max_connections_per_upstream: Some(1),
        busy_reply: b"busy\n".to_vec(),
        ..config(&[upstream.local_addr()])
    };
    let balancer = start_on(builder().patience(BRIEF), config);
    let first = connect(addr(&balancer));
    assert_eq!(ask(&first, "who"), "only");
    let second = connect(addr(&balancer));
    tell(&second, "who");
    assert_eq!(rest(&second), Ok(b"busy\n".to_vec()));
}

#[test]
fn a_reply_that_is_under_way_survives_a_shutdown() {
    let (upstream, gate) = serve_lines(Server::builder().workers(1).bind("127.0.0.1:0"));
    let balancer = start(config(&[upstream.local_addr()]));
    let client = connect(addr(&balancer));
    tell(&client, "block");
    gate.await_blocked(1);
    balancer.handle().shutdown();
    await_that("it accepts nobody any more", || TcpStream::connect(addr(&balancer)).is_err());
    gate.open(1);
    assert_eq!(hear(&client), "unblocked");
}

#[test]
fn a_relay_that_breaks_off_is_a_reset() {
    // By the upstream, while the client is sending; and by a client that takes nothing in time.
    let listener = TcpListener::bind("127.0.0.1:0").expect("it listens");
    let upstream = listener.local_addr().expect("it is bound");
    let balancer = start(config(&[upstream]));
    let mut client = connect(addr(&balancer));
    client.write_all(b"x").expect("it reads");
    let mut breaking = accept_client(&listener, b'x');
    breaking.write_all(b"part").expect("it reads");
    client.read_exact(&mut [0; 4]).expect("it is relayed");
    client.write_all(&[7; 100_000]).expect("it reads");
    reset_on_close(&breaking);
    drop(breaking);
    assert_eq!(rest(&client), Err(io::ErrorKind::ConnectionReset));
    let brief = start_on(builder().io_timeout(SOON), config(&[upstream]));
    let mut slow = connect(addr(&brief));
    slow.write_all(b"y").expect("it reads");
    let mut fast = accept_client(&listener, b'y');
    let sent = fast.write_all(&vec![7; 256 * 1024 * 1024]);
    assert!(sent.is_err(), "all of it was taken");
    assert!(rest(&slow).is_err(), "it looks whole");
}

#[test]
fn who_waits_because_too_many_are_being_connected_gets_its_turn() {
    let (listener, slow, _fillers) = swallowing();
    let balancer = start(Config { connect_timeout: PATIENCE, ..config(&[slow]) });
    let clients: Vec<_> = (0..100).map(|_| connect(addr(&balancer))).collect();
    await_that("some are being connected and the others wait", || {
        let snapshot = balancer.snapshot();
        snapshot.upstreams[0].connecting + snapshot.waiting == clients.len() && snapshot.waiting > 0
    });
    // Now it takes them; none of them ends, so that no place is given back.
    rustix::net::listen(&listener, 1024).expect("it listens");
    await_that("all are connected", || balancer.snapshot().upstreams[0].open == clients.len());
    assert_eq!(balancer.snapshot().waiting, 0);
}

#[test]
fn one_who_cannot_be_placed_holds_up_nobody() {
    // One upstream is full of connections that stay, the other was away when the first in line tried.
    let (full, away) = (named("full"), named("away"));
    let gone = away.local_addr();
    away.shutdown();
    away.join().expect("it ends well");
    drop(away);
    let config =
        Config { max_connections_per_upstream: Some(1), fall: 1000, ..config(&[full.local_addr(), gone]) };
    let balancer = start(config);
    let stays = connect(addr(&balancer));
    assert_eq!(ask(&stays, "who"), "full");
    let first = connect(addr(&balancer));
    tell(&first, "who");
    await_that("it was tried in vain", || balancer.snapshot().upstreams[1].failed > 0);
    let _back = named_at("back", &gone.to_string());
    // What was tried is forgotten after a while.
    assert_eq!(hear(&first), "back");
    drop(first);
    for _ in 0..20 {
        assert_eq!(ask(&connect(addr(&balancer)), "who"), "back");
    }
    assert_eq!(balancer.snapshot().refused_line_full, 0);
}

#[test]
fn who_waits_costs_no_descriptor() {
    let upstream = named("only");
    let args =
        ["balance", "--max-connections-per-upstream", "1", "--patience", "30s", "--check-interval", "1h"];
    let served = start_command(&[&args[..], &[&upstream.local_addr().to_string()]].concat());
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", served.pid())).expect("it is there").count();
    let first = connect(served.addr);
    assert_eq!(ask(&first, "who"), "only");
    // A check may be under way, which has two for a moment.
    await_that("nothing is checked", || {
        let before = descriptors();
        thread::sleep(SOON);
        descriptors() == before
    });
    let before = descriptors();
    let waiting: Vec<_> = (0..20).map(|_| connect(served.addr)).collect();
    await_that("all are in", || descriptors() >= before + waiting.len());
    // Those of their own, and none beside.
    assert_eq!(descriptors(), before + waiting.len());
    drop(first);
    // In whatever order they came in: each goes when it has its reply.
    let ask_all = waiting.into_iter().map(|client| thread::spawn(move || ask(&client, "who")));
    for asking in ask_all.collect::<Vec<_>>() {
        assert_eq!(asking.join().expect("it ends well"), "only");
    }
}

#[test]
fn an_overload_of_the_upstreams_is_reported() {
    let upstream = named("only");
    let config = Config { max_connections_per_upstream: Some(1), ..config(&[upstream.local_addr()]) };
    let balancer = start_on(builder().patience(BRIEF), config);
    let first = connect(addr(&balancer));
    assert_eq!(ask(&first, "who"), "only");
    assert!(refused_with(addr(&balancer)).is_err());
    await_that("it is seen", || balancer.snapshot().overloads_begun == 1);
}
