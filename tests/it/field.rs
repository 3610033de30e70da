//! Faults from the field: what other servers, proxies and tools were reported for.

use std::{
    io::{self, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use overfall::{
    Server,
    balance::{self, Balancer, Config, UpstreamConfig},
};
use rustix::{
    net::{SendFlags, send},
    process::{Pid, Signal, kill_process},
};

use crate::support::*;

fn balance_on(builder: overfall::Builder, upstreams: &[SocketAddr]) -> Balancer {
    let upstream = |addr: &SocketAddr| UpstreamConfig { name: addr.to_string(), weight: 1 };
    let config = Config {
        upstreams: upstreams.iter().map(upstream).collect(),
        check_interval: Duration::from_secs(3600),
        ..Config::default()
    };
    balance::serve(builder, config).expect("it serves")
}

fn addr(balancer: &Balancer) -> SocketAddr {
    balancer.handle().local_addr()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("it is there");
}

#[test]
fn logs_that_nobody_reads_stop_nothing() {
    let (first, second) = (lines_at("127.0.0.1:0"), lines_at("127.0.0.1:0"));
    let targets = [first.local_addr().to_string(), second.local_addr().to_string()];
    for read_by in ["nobody", "gone"] {
        let mut child = overfall(&[
            "balance",
            "-vv",
            "--patience",
            "30s",
            "--listen",
            "127.0.0.1:0",
            &targets[0],
            &targets[1],
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let addr = listening(&mut out);
        let err = child.stderr.take().expect("piped");
        rustix::pipe::fcntl_setpipe_size(&err, 4096).expect("a small pipe");
        let err = (read_by == "nobody").then_some(err);
        // Much more than the pipe holds: each is logged.
        for _ in 0..200 {
            // A reset may come before it knows that it is connected.
            let Ok(client) = TcpStream::connect(addr) else { continue };
            reset_on_close(&client);
        }
        for _ in 0..4 {
            assert_eq!(exchange(addr, b"say here\n").expect("it serves"), b"here\n");
        }
        signal(&child, Signal::TERM);
        assert_eq!(child.wait().expect("it ends").code(), Some(0), "read by {read_by}");
        drop(err);
    }
}

fn lines_at(addr: &str) -> overfall::Handle {
    serve_lines(Server::builder().workers(2).bind(addr).patience(PATIENCE)).0
}

#[test]
fn a_full_standard_output_or_a_full_disk_ends_nothing() {
    let mut child = overfall(&["serve", "--patience", "30s", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(std::fs::File::options().write(true).open("/dev/full").expect("it is there"))
        .spawn()
        .expect("it runs");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let addr = listening(&mut out);
    rustix::pipe::fcntl_setpipe_size(out.get_ref(), 4096).expect("a small pipe");
    for _ in 0..20 {
        signal(&child, Signal::USR1);
        assert_eq!(exchange(addr, b"hello").expect("a reply"), b"Hello, client!");
    }
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn signals_that_are_to_end_it_do_so_in_peace() {
    for number in [Signal::HUP, Signal::QUIT, Signal::TERM, Signal::INT] {
        let mut served = serve(&[]);
        served.signal(Signal::USR2);
        served.signal(number);
        let (status, counters) = served.wait();
        assert_eq!(status, Some(0), "{number:?}");
        assert!(counters.contains("answered "), "{number:?}: {counters}");
    }
    let nobody = nobody();
    let mut child =
        overfall(&["dial", "-q", "--retry-for", "1h", &nobody.to_string()]).spawn().expect("it runs");
    let caught = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it is there");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("the caught ones");
        u64::from_str_radix(caught.trim(), 16).expect("a mask") & (1 << (Signal::TERM.as_raw() - 1)) != 0
    };
    // Also as the first process of a container, which ignores what it does not catch.
    await_that("it catches the signal", caught);
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().expect("it ends").code(), Some(128 + 15));
}

#[test]
fn what_is_started_has_the_limits_that_were_found() {
    let server = lines_at("127.0.0.1:0");
    let script = format!(
        "ulimit -Sn 321; exec {} dial -q --connect-only {} -- sh -c 'ulimit -Sn'",
        env!("CARGO_BIN_EXE_overfall"),
        server.local_addr()
    );
    let output = Command::new("sh").args(["-c", &script]).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "321\n");
}

#[test]
fn a_relay_that_waits_for_its_reply_is_not_idle() {
    let (upstream, gate) = serve_lines(Server::builder().workers(2).bind("127.0.0.1:0").patience(PATIENCE));
    let balancer = balance_on(builder().drain_timeout(Duration::from_secs(3)), &[upstream.local_addr()]);
    let (busy, idle) = (connect(addr(&balancer)), connect(addr(&balancer)));
    assert_eq!(ask(&idle, "say here"), "here");
    tell(&busy, "block");
    gate.await_blocked(1);
    balancer.handle().shutdown();
    // The idle one is closed when it has been so for a while; then the other has as well.
    assert_eq!(rest(&idle), Ok(vec![]));
    gate.open(1);
    assert_eq!(hear(&busy), "unblocked");
}

#[test]
fn newcomers_wait_for_busy_relays_and_cut_none() {
    let (upstream, gate) = serve_lines(Server::builder().workers(3).bind("127.0.0.1:0").patience(PATIENCE));
    let balancer = balance_on(builder().max_connections(2), &[upstream.local_addr()]);
    let busy = [connect(addr(&balancer)), connect(addr(&balancer))];
    busy.iter().for_each(|client| tell(client, "block"));
    gate.await_blocked(2);
    let newcomer = connect(addr(&balancer));
    tell(&newcomer, "say new");
    await_that("it has to wait", || balancer.handle().metrics().waiting > Duration::ZERO);
    gate.open(2);
    assert!(busy.iter().all(|client| hear(client) == "unblocked"));
    // Now they are idle, and one gives way.
    assert_eq!(hear(&newcomer), "new");
    assert_eq!(balancer.handle().metrics().refused_connections_full, 0);
}

#[test]
fn a_request_on_its_way_when_the_drain_begins_is_answered_as_the_last() {
    let handle = overfall::http::serve(builder(), |_: &overfall::http::Request<'_>| {
        overfall::http::Response::text("here")
    })
    .expect("it serves");
    let mut kept = connect(handle.local_addr());
    let mut reply = [0; 512];
    kept.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("it reads");
    assert!(kept.read(&mut reply).expect("a reply") > 0);
    await_that("it is idle", || handle.metrics().connections_parked == 1);
    handle.shutdown();
    await_that("it accepts nobody any more", || TcpStream::connect(handle.local_addr()).is_err());
    kept.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("it reads");
    let last = String::from_utf8(rest(&kept).expect("a reply")).expect("text");
    assert!(last.starts_with("HTTP/1.1 200") && last.contains("Connection: close"), "{last}");
    handle.join().expect("it ends well");
}

/// Both sides of a relay, of which the client has sent a byte.
fn relayed(balancer: &Balancer, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = connect(addr(balancer));
    client.write_all(b"x").expect("it reads");
    loop {
        let (mut upstream, _) = listener.accept().expect("a connection");
        // Checks send nothing.
        if upstream.read(&mut [0]).is_ok_and(|count| count == 1) {
            return (client, upstream);
        }
    }
}

#[test]
fn a_relay_that_is_ended_by_force_looks_whole_to_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("it listens");
    let upstream = [listener.local_addr().expect("an address")];
    // A timeout, and the end of the drain.
    let idle = balance_on(builder().idle_timeout(BRIEF), &upstream);
    let cut = balance_on(builder().drain_timeout(BRIEF), &upstream);
    let relays = [relayed(&idle, &listener), relayed(&cut, &listener)];
    cut.handle().shutdown();
    for (client, upstream) in relays {
        assert_eq!(rest(&upstream), Err(io::ErrorKind::ConnectionReset));
        assert_eq!(rest(&client), Err(io::ErrorKind::ConnectionReset));
    }
}

#[test]
fn an_urgent_byte_in_a_bulk_stops_nothing() {
    const HALF: usize = 4 * 1024 * 1024;
    let listener = TcpListener::bind("127.0.0.1:0").expect("it listens");
    let balancer = balance_on(builder(), &[listener.local_addr().expect("an address")]);
    let (mut client, mut upstream) = relayed(&balancer, &listener);
    let reading = thread::spawn(move || io::copy(&mut upstream, &mut io::sink()));
    client.write_all(&vec![1; HALF]).expect("it reads");
    send(&client, b"!", SendFlags::OOB).expect("it reads");
    client.write_all(&vec![2; HALF]).expect("it reads");
    client.shutdown(Shutdown::Write).expect("it is there");
    let received = reading.join().expect("it ends").expect("all of it") as usize;
    // Whether the urgent byte itself is a part of the stream is for the kernel to say.
    assert!((2 * HALF..=2 * HALF + 1).contains(&received), "{received}");
}

#[test]
fn where_descriptors_are_few_bulks_are_copied_and_nobody_is_cut() {
    let echo = Server::builder()
        .bind("127.0.0.1:0")
        .serve_handler(overfall::apps::Echo::default())
        .expect("it serves");
    let script = format!(
        "ulimit -n 200; exec {} balance -q --listen 127.0.0.1:0 --patience 30s {}",
        env!("CARGO_BIN_EXE_overfall"),
        echo.local_addr()
    );
    let mut child = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().expect("it runs");
    let addr = listening(&mut BufReader::new(child.stdout.take().expect("piped")));
    // More at once than there is room for; each moves a bulk both ways.
    let sizes = all_at_once(100, move |_| {
        const SIZE: usize = 300_000;
        let client = connect(addr);
        let mut sender = client.try_clone().expect("a handle");
        let sending = thread::spawn(move || {
            sender.write_all(&vec![7; SIZE]).expect("it reads");
            sender.shutdown(Shutdown::Write).expect("it is there");
        });
        let size = rest(&client).map(|bytes| bytes.len() == SIZE);
        sending.join().expect("it ends well");
        size
    });
    assert!(sizes.iter().all(|size| *size == Ok(true)), "{sizes:?}");
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn while_all_upstreams_are_down_clients_wait_for_one_to_come_back() {
    let upstream = lines_at("127.0.0.1:0");
    let place = upstream.local_addr();
    drop(upstream);
    let balancer = balance_on(builder(), &[place]);
    let client = connect(addr(&balancer));
    tell(&client, "say at last");
    await_that("it is down", || !balancer.snapshot().upstreams[0].up);
    let _back = lines_at(&place.to_string());
    // It is checked often, though the interval is an hour.
    assert_eq!(hear(&client), "at last");
    await_that("it is up again", || balancer.snapshot().upstreams[0].up);
}

#[test]
fn an_upstream_that_resets_is_busy_and_not_away() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("it listens");
    let place = listener.local_addr().expect("an address");
    let balancer = balance_on(builder(), &[place]);
    let client = connect(addr(&balancer));
    for _ in 0..5 {
        let (refused, _) = listener.accept().expect("a connection");
        reset_on_close(&refused);
    }
    // In the end it has time.
    let (mut upstream, _) = listener.accept().expect("a connection");
    upstream.write_all(b"now\n").expect("it reads");
    assert_eq!(hear(&client), "now");
    let status = &balancer.snapshot().upstreams[0];
    assert!(status.up && status.busy >= 4 && status.failed == 0, "{status:?}");
}

#[test]
fn an_upstream_that_hangs_goes_down_whatever_the_kernel_accepts() {
    let hangs = TcpListener::bind("127.0.0.1:0").expect("it listens");
    let other = lines_at("127.0.0.1:0");
    let upstream = |addr: SocketAddr| UpstreamConfig { name: addr.to_string(), weight: 1 };
    let config = Config {
        upstreams: vec![upstream(hangs.local_addr().expect("an address")), upstream(other.local_addr())],
        policy: balance::Policy::RoundRobin,
        check_interval: Duration::from_millis(200),
        check_send: b"say here\n".to_vec(),
        check_expect: Some(b"here".to_vec()),
        ..Config::default()
    };
    let balancer = balance::serve(builder(), config).expect("it serves");
    await_that("it is down", || {
        drop(connect(addr(&balancer)));
        !balancer.snapshot().upstreams[0].up
    });
    assert!(balancer.snapshot().upstreams[1].up);
}

#[test]
fn of_a_names_addresses_those_are_used_that_can_be_reached() {
    let Ok(v6) = TcpListener::bind("[::1]:0") else {
        println!("SKIPPED: there is no IPv6 here");
        return;
    };
    let addrs = overfall::dial::resolve("localhost:80").expect("it has addresses");
    if addrs.len() < 2 {
        println!("SKIPPED: localhost has but one address here");
        return;
    }
    drop(v6);
    for place in ["127.0.0.1:0", "[::1]:0"] {
        let upstream = lines_at(place);
        let config = Config {
            upstreams: vec![UpstreamConfig {
                name: format!("localhost:{}", upstream.local_addr().port()),
                weight: 1,
            }],
            ..Config::default()
        };
        let balancer = balance::serve(builder(), config).expect("it serves");
        for _ in 0..3 {
            assert_eq!(ask(&connect(addr(&balancer)), "say here"), "here");
        }
        let of_those = |up: bool| {
            let those = balancer.snapshot().upstreams.into_iter().filter(|status| status.up == up);
            those.map(|status| status.addr).collect::<Vec<_>>()
        };
        // Where nobody listens, nobody was sent.
        assert!(balancer.snapshot().upstreams.iter().all(|status| status.failed == 0));
        assert_eq!(of_those(true), [upstream.local_addr()]);
        assert_eq!(of_those(false).len(), addrs.len() - 1);
    }
}

#[test]
fn ports_that_run_out_are_no_fault_of_the_upstream() {
    // In a network of its own, with four ports: two upstreams, and connections that stay.
    let script = r#"
        ip link set lo up && echo "25900 25903" > /proc/sys/net/ipv4/ip_local_port_range || { echo SKIPPED; exit 0; }
        "$0" serve -q --app echo --listen 127.0.0.1:7001 > /dev/null & a=$!
        "$0" serve -q --app echo --listen 127.0.0.1:7002 > /dev/null & b=$!
        "$0" dial -q --connect-only --retry-for 5s 127.0.0.1:7001 127.0.0.1:7002
        # Nobody listens there, and nobody is to be found joined to itself.
        "$0" dial -q --connect-only --timeout 1s 127.0.0.1:25900 && echo "joined to itself"
        kill $a $b
        echo done
    "#;
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", script, env!("CARGO_BIN_EXE_overfall")])
        .stderr(Stdio::null())
        .output();
    let Some(text) = output.ok().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()) else {
        println!("SKIPPED: there is no unshare(1) here");
        return;
    };
    if !text.contains("done") {
        println!("SKIPPED: no network of its own can be had here: {text}");
        return;
    }
    assert_eq!(text.trim(), "done");
}

/// `OVERFALL_FUZZ_RELAYS` says how many relays to cut.
#[test]
fn relays_that_are_cut_anywhere_leave_nothing_behind() {
    let count = std::env::var("OVERFALL_FUZZ_RELAYS").ok().and_then(|count| count.parse().ok());
    let rounds = count.unwrap_or(400) / 4;
    let listener = TcpListener::bind("127.0.0.1:0").expect("it listens");
    let place = listener.local_addr().expect("an address");
    // It answers some, and ends at some point, in peace or not.
    thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(1);
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let (size, resets, reads) = (random.usize(..60_000), random.bool(), random.bool());
            stream.set_read_timeout(Some(BRIEF)).expect("a timeout");
            let mut buffer = vec![0; 20_000];
            if reads {
                let _ = stream.read(&mut buffer);
            }
            let _ = stream.write(&buffer[..size.min(buffer.len())]);
            if resets {
                let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
            }
        }
    });
    let balancer = balance_on(builder().workers(2), &[place]);
    let to = addr(&balancer);
    all_at_once(4, move |seed| {
        let mut random = fastrand::Rng::with_seed(seed as u64 + 10);
        for _ in 0..rounds {
            // The upstream may have reset it before it knows that it is connected.
            let Ok(mut client) = TcpStream::connect(to) else { continue };
            client.set_read_timeout(Some(BRIEF)).expect("a timeout");
            let _ = client.write(&vec![7; random.usize(..40_000)]);
            match random.u8(..4) {
                0 => drop(client.shutdown(Shutdown::Write)),
                1 => drop(rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO))),
                2 => drop(client.read(&mut vec![0; random.usize(1..30_000)])),
                _ => drop(send(&client, b"!", SendFlags::OOB)),
            }
        }
    });
    await_that("all places are given back", || {
        let snapshot = balancer.snapshot();
        (snapshot.upstreams[0].open, snapshot.upstreams[0].connecting, snapshot.waiting) == (0, 0, 0)
    });
    await_that("nothing is left", || balancer.handle().metrics().connections_open == 0);
    assert_eq!(balancer.handle().metrics().panics, 0);
}

#[test]
fn a_hangup_that_is_ignored_stays_so_and_a_second_one_cuts_nothing() {
    let script =
        format!("trap '' HUP; exec {} serve -q --listen 127.0.0.1:0", env!("CARGO_BIN_EXE_overfall"));
    let mut child = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().expect("it runs");
    let addr = listening(&mut BufReader::new(child.stdout.take().expect("piped")));
    signal(&child, Signal::HUP);
    assert_eq!(exchange(addr, b"hello").expect("a reply"), b"Hello, client!");
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    // A terminal that is closed sends it twice.
    let mut served = serve(&["--app", "echo", "--drain-timeout", "30s"]);
    let client = connect(served.addr);
    assert_eq!(ask(&client, "here"), "here");
    served.signal(Signal::HUP);
    served.signal(Signal::HUP);
    assert_eq!(served.wait().0, Some(0));
}

#[test]
fn a_client_is_not_sent_from_one_upstream_to_another_for_ever() {
    let ending = || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("it listens");
        let place = listener.local_addr().expect("an address");
        // It takes each connection and ends it before anything was sent.
        thread::spawn(move || listener.incoming().for_each(drop));
        place
    };
    let balancer = balance_on(builder().patience(BRIEF), &[ending(), ending()]);
    // It is told, in whatever way; it says nothing itself.
    assert!(rest(&connect(addr(&balancer))).is_ok_and(|bytes| bytes.is_empty()));
}

#[test]
fn targets_of_a_balancer_get_a_sentence() {
    assert_wrong_usage(
        &["balance"],
        &[
            (&["http://localhost:80"], "is a URL"),
            (&[":80"], "is no host"),
            (&["[::1:80"], "is no host"),
            (&["::1:80"], "is no host"),
            (&["localhost:notaport"], "is no port"),
            (&["localhost:+80"], "is no port"),
            (&["localhost:0"], "is no port"),
            (&["localhost"], "has no port"),
        ],
    );
}
