//! Upstreams and clients of the proxy that die at every point of an exchange, restart, dawdle, or are many.
//! It knows what is designed for each, not how it is done.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc::channel,
    },
    thread,
    time::{Duration, Instant},
};

use overfall::{
    Server,
    balance::{self, Balancer, HttpConfig},
};
use parking_lot::Mutex;
use rustix::process::Signal;

use crate::{support::*, temporary::TempFile, upstream::*};

/// What a client hears: a status and what came of the body, or the end before any head.
#[derive(Debug, Clone, PartialEq)]
enum Heard {
    Whole(String),
    /// Its head came, and not all behind it.
    CutOff,
    /// The connection ended without reply.
    Nothing,
}

/// Receives one reply that is not informational, which may break off anywhere.
fn hear_reply(client: &TcpStream) -> Heard {
    let mut reader = client;
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let status = head[9..12].to_owned();
            if status.starts_with('1') {
                bytes.drain(..end + 4);
                continue;
            }
            let body = &bytes[end + 4..];
            let length = head
                .split_once("content-length: ")
                .map(|(_, rest)| rest.lines().next().unwrap_or_default().parse::<usize>().expect("a length"));
            let is_whole =
                status == "204" || length.map_or(body.ends_with(b"0\r\n\r\n"), |length| body.len() >= length);
            if is_whole {
                return Heard::Whole(status);
            }
        }
        match reader.read(&mut piece) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("it hangs after {bytes:?}")
            }
            _ if bytes.is_empty() => return Heard::Nothing,
            _ => return Heard::CutOff,
        }
    }
}

fn whole(status: &str) -> Heard {
    Heard::Whole(status.into())
}

fn open(proxy: &Balancer) -> usize {
    proxy.snapshot().upstreams[0].open
}

/// What an upstream says before it dies, and what a client hears that asks by GET.
const POINTS: &[(&str, &str)] = &[
    ("", "502"),
    ("HTTP/1.1 200 OK\r\nContent-Le", "502"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "cut off"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "cut off"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfull", "200"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "cut off"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9", "cut off"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", "cut off"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfull\r\n", "cut off"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfull\r\n0\r\n", "cut off"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfull\r\n0\r\nA: b\r\n", "cut off"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfull\r\n0\r\n\r\n", "200"),
    ("HTTP/1.1 200 OK\r\n\r\nhalf", "200 or cut off"),
    ("HTTP/1.1 100 Continue\r\n\r\n", "502"),
    ("HTTP/1.1 204 No Content\r\n\r\n", "204"),
];

/// Dies where the target says, or serves what is for `/`.
fn dying(head: &str, peer: &mut Peer) -> Next {
    let target = head.split(' ').nth(1).unwrap_or_default();
    let mut words = target[1..].split('/');
    let (Some(Ok(point)), how) = (words.next().map(str::parse::<usize>), words.next()) else {
        return ok(head, peer);
    };
    peer.say(POINTS[point].0);
    if how == Some("reset") {
        reset_on_close(&peer.stream);
    }
    Next::Close
}

#[test]
fn an_upstream_that_dies_at_any_point_is_told_or_passed_on_and_holds_no_place() {
    let upstream = upstream(dying);
    for (point, (said, told)) in POINTS.iter().enumerate() {
        for how in ["end", "reset"] {
            // No connection is left of another point.
            let proxy = proxy(&[&upstream]);
            let client = client(&proxy);
            send(&client, &format!("GET /{point}/{how} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let mut heard = hear_reply(&client);
            if how == "reset" && heard == Heard::Nothing {
                // A reset takes with it what was not passed on yet.
                heard = Heard::CutOff;
            }
            let right = match (*told, how) {
                ("cut off", _) | ("200 or cut off", "reset") => {
                    heard == Heard::CutOff || heard == Heard::Nothing
                }
                ("200 or cut off", _) => heard == whole("200"),
                (status, _) => heard == whole(status) || (status == "204" && heard == Heard::CutOff),
            };
            assert!(right, "{said:?} {how}: {heard:?}");
            await_that("no place is held", || open(&proxy) == 0);
            let next = connect(proxy.handle().local_addr());
            send(&next, GET);
            assert_eq!(hear_reply(&next), whole("200"), "{said:?} {how}");
        }
    }
}

#[test]
fn an_upstream_that_dies_before_it_reads_is_told() {
    // It resets what it accepts, or closes it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = channel::<()>();
    let accepting = thread::spawn(move || {
        for (index, stream) in listener.incoming().enumerate() {
            if stopped.try_recv().is_ok() {
                return;
            }
            if let (Ok(stream), 0) = (stream, index % 2) {
                reset_on_close(&stream);
            }
        }
    });
    let other = upstream(ok);
    let mut config = config(&[&other], HttpConfig::default());
    config.upstreams[0].name = name.clone();
    let proxy = balance::serve(builder().patience(Duration::from_millis(300)), config).unwrap();
    for _ in 0..10 {
        let client = client(&proxy);
        send(&client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        let heard = hear_reply(&client);
        assert!([whole("502"), whole("503")].contains(&heard), "{heard:?}");
    }
    await_that("no place is held", || open(&proxy) == 0);
    stop.send(()).unwrap();
    let _ = TcpStream::connect(&name);
    accepting.join().unwrap();
    // And when nobody listens.
    let client = client(&proxy);
    send(&client, GET);
    let heard = hear_reply(&client);
    assert!([whole("502"), whole("503")].contains(&heard), "{heard:?}");
    await_that("no place is held", || open(&proxy) == 0);
}

#[test]
fn on_a_kept_connection_a_get_is_tried_again_and_a_post_is_not() {
    let died = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&died);
    // Whatever comes second dies.
    let upstream = upstream(move |head, peer| {
        if peer.requests < 2 {
            return ok(head, peer);
        }
        count.fetch_add(1, SeqCst);
        if head.contains("reset") {
            reset_on_close(&peer.stream);
        }
        Next::Close
    });
    let proxy = proxy(&[&upstream]);
    for how in ["end", "reset"] {
        let post = format!("POST /{how} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        let (kept, fresh) = (client(&proxy), client(&proxy));
        send(&kept, GET);
        assert_eq!(hear_reply(&kept), whole("200"));
        send(&kept, &format!("GET /{how} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(hear_reply(&kept), whole("200"));
        // Where a new connection was made nothing dies.
        let post = |client: &TcpStream, heard_of_death: Heard| {
            await_that("the connection is spare", || open(&proxy) == 0);
            let before = died.load(SeqCst);
            send(client, &post);
            let heard = hear_reply(client);
            let deaths = died.load(SeqCst) - before;
            assert!(deaths <= 1);
            assert_eq!(heard, if deaths == 1 { heard_of_death } else { whole("200") });
        };
        // Its client knows that of kept connections.
        post(&kept, Heard::Nothing);
        // But not that of a new one.
        let other = client(&proxy);
        send(&other, GET);
        assert_eq!(hear_reply(&other), whole("200"));
        post(&fresh, whole("502"));
    }
    await_that("no place is held", || open(&proxy) == 0);
}

#[test]
fn a_get_is_not_tried_again_after_a_byte_of_the_reply() {
    for said in ["HTTP/1.1 200 OK\r\nX: ", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let upstream = upstream(move |head, peer| {
            if peer.requests < 2 {
                return ok(head, peer);
            }
            peer.say(said);
            Next::Close
        });
        let proxy = proxy(&[&upstream]);
        let client = client(&proxy);
        send(&client, GET);
        assert_eq!(receive(&client).0[..12], *"HTTP/1.1 200");
        send(&client, GET);
        let mut head = receive_head(&client);
        if head.starts_with("HTTP/1.1 103 ") {
            head = receive_head(&client);
        }
        assert!(head.starts_with("HTTP/1.1 502 "), "{said:?}: {head}");
        assert_eq!(upstream.connections.load(SeqCst), 1, "{said:?}");
    }
}

#[test]
fn a_get_is_served_though_all_spare_connections_are_dead() {
    let both = Arc::new(std::sync::Barrier::new(2));
    let upstream = upstream(move |head, peer| {
        if head.contains("/both") {
            both.wait();
            return ok(head, peer);
        }
        if peer.requests < 2 { ok(head, peer) } else { Next::Close }
    });
    let proxy = proxy(&[&upstream]);
    let clients = [client(&proxy), client(&proxy)];
    clients.iter().for_each(|client| send(client, "GET /both HTTP/1.1\r\nHost: a\r\n\r\n"));
    clients.iter().for_each(|client| assert_eq!(hear_reply(client), whole("200")));
    send(&clients[0], GET);
    assert_eq!(hear_reply(&clients[0]), whole("200"));
}

#[test]
fn clients_that_die_at_any_point_free_their_places() {
    let (open_gate, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let ended = Arc::new(AtomicUsize::new(0));
    let uploads = Arc::clone(&ended);
    let upstream = upstream(move |head, peer| match head.split(' ').nth(1).unwrap_or_default() {
        "/wait" => {
            let _ = gate.lock().recv();
            ok(head, peer)
        }
        "/upload" => {
            let whole = peer.body(1 << 20).len() == 1 << 20;
            assert!(!whole, "it was cut off");
            uploads.fetch_add(1, SeqCst);
            Next::Close
        }
        "/large" => {
            let piece = "x".repeat(1 << 16);
            peer.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 64 << 16));
            (0..64).for_each(|_| peer.say(&piece));
            Next::Keep
        }
        _ => ok(head, peer),
    });
    let http = HttpConfig { limit: Some(2), buffer_body: 0, ..HttpConfig::default() };
    let proxy = proxy_with(&[&upstream], http);
    let leave: [fn(TcpStream); 2] = [drop, |client| reset_on_close(&client)];
    for (index, leave) in leave.into_iter().enumerate() {
        // In flight and in line.
        let clients: Vec<_> = (0..6).map(|_| client(&proxy)).collect();
        for client in &clients {
            send(client, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        await_that("four wait", || proxy.snapshot().waiting == 4);
        clients.into_iter().for_each(leave);
        await_that("they have left the line", || proxy.snapshot().waiting == 0);
        (0..2).for_each(|_| open_gate.send(()).unwrap());
        await_that("no place is held", || open(&proxy) == 0);
        // In the middle of an upload.
        let mut uploading = client(&proxy);
        send(&uploading, "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n");
        uploading.write_all(&[b'x'; 100_000]).unwrap();
        await_that("it has a place", || open(&proxy) == 1);
        leave(uploading);
        await_that("no place is held", || open(&proxy) == 0);
        await_that("the upstream knows", || ended.load(SeqCst) == index + 1);
        // In the middle of a reply.
        let loading = client(&proxy);
        send(&loading, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(exactly(&loading, 1000).len(), 1000);
        leave(loading);
        await_that("no place is held", || open(&proxy) == 0);
        // In the middle of a head.
        let unfinished = client(&proxy);
        send(&unfinished, "GET / HTTP/1.1\r\nHos");
        leave(unfinished);
        let last = client(&proxy);
        send(&last, GET);
        assert_eq!(hear_reply(&last), whole("200"));
    }
}

#[test]
fn a_reply_without_end_ends_when_its_client_has_gone() {
    let ended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ended);
    let upstream = upstream(move |_, peer| {
        peer.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        // Until it is closed, or the test is over.
        for _ in 0..2_000 {
            if peer.stream.write_all(b"4\r\ntick\r\n").is_err() {
                seen.store(true, SeqCst);
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        Next::Close
    });
    let proxy = proxy(&[&upstream]);
    let client = client(&proxy);
    send(&client, GET);
    assert!(receive_head(&client).starts_with("HTTP/1.1 200"));
    reset_on_close(&client);
    drop(client);
    let began = Instant::now();
    await_that("it is over", || ended.load(SeqCst) || began.elapsed() > Duration::from_secs(5));
    assert!(ended.load(SeqCst));
    await_that("no place is held", || open(&proxy) == 0);
}

#[test]
fn no_post_is_done_twice_while_connections_die_at_random() {
    const CLIENTS: usize = 8;
    const EACH: usize = 10_000 / CLIENTS;
    let done: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
    let (noted, count) = (Arc::clone(&done), AtomicUsize::new(0));
    let upstream = upstream(move |head, peer| {
        // Spread over the ways to die, always the same.
        let random = fastrand::Rng::with_seed(count.fetch_add(1, SeqCst) as u64).u8(..);
        if random & 1 == 0 && random < 40 {
            reset_on_close(&peer.stream);
        }
        if random < 20 {
            return Next::Close;
        }
        if head.starts_with("POST ") {
            peer.body(2);
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            *noted.lock().entry(target).or_default() += 1;
        }
        match random {
            20..30 => Next::Close,
            30..35 => {
                peer.say("HTTP/1.1 200 OK\r\nContent-Le");
                Next::Close
            }
            35..40 => {
                peer.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
                Next::Close
            }
            _ => {
                peer.reply("done");
                if random < 60 { Next::Close } else { Next::Keep }
            }
        }
    });
    let proxy = proxy(&[&upstream]);
    let addr = proxy.handle().local_addr();
    let served = all_at_once(CLIENTS, move |index| {
        let mut client = connect(addr);
        let mut served = Vec::new();
        for number in 0..EACH {
            if number % 8 == 0 {
                // Other requests keep connections in use.
                send_or_not(&client, GET);
                if hear_reply(&client) != whole("200") {
                    client = connect(addr);
                }
            }
            let target = format!("/{index}/{number}");
            let text = format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
            send_or_not(&client, &text);
            match hear_reply(&client) {
                Heard::Whole(status) if status == "200" => served.push(target),
                Heard::Whole(_) => {}
                Heard::CutOff | Heard::Nothing => client = connect(addr),
            }
        }
        served
    });
    let done = done.lock();
    let twice: Vec<_> = done.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let served: Vec<_> = served.into_iter().flatten().collect();
    assert!(served.iter().all(|target| done.contains_key(target)));
    assert!(served.len() > 7_000, "{}", served.len());
    await_that("no place is held", || open(&proxy) == 0);
}

/// Sends to who may have gone.
fn send_or_not(mut client: &TcpStream, text: &str) {
    let _ = client.write_all(text.as_bytes());
}

#[test]
fn no_get_is_lost_over_kept_connections_that_are_closed() {
    // Each is closed behind a reply that does not say so.
    let upstream = upstream(|head, peer| {
        ok(head, peer);
        if (peer.requests + peer.connection).is_multiple_of(20) { Next::Close } else { Next::Keep }
    });
    let proxy = proxy(&[&upstream]);
    let addr = proxy.handle().local_addr();
    let lost = all_at_once(8, move |_| {
        let mut client = connect(addr);
        let mut lost = Vec::new();
        for number in 0..250 {
            send_or_not(&client, GET);
            let heard = hear_reply(&client);
            if heard != whole("200") {
                lost.push((number, heard));
                client = connect(addr);
            }
        }
        lost
    });
    assert_eq!(lost.concat(), []);
}

#[test]
fn retries_stay_within_their_budget_when_all_fails() {
    const REQUESTS: usize = 300;
    // What comes first over a connection is served, so that it is used again; all else fails.
    let script = |head: &str, peer: &mut Peer| if peer.requests < 2 { ok(head, peer) } else { Next::Close };
    let (first, second) = (upstream(script), upstream(script));
    let proxy = proxy(&[&first, &second]);
    let began = Instant::now();
    let mut client = client(&proxy);
    for _ in 0..REQUESTS {
        send_or_not(&client, GET);
        if hear_reply(&client) == Heard::Nothing {
            client = connect(proxy.handle().local_addr());
        }
    }
    let came = first.heads.try_iter().count() + second.heads.try_iter().count();
    let most = REQUESTS + REQUESTS / 10 + 10 + began.elapsed().as_secs() as usize + 1;
    assert!(came <= most, "{came} of {REQUESTS}");
    // And where nothing is ever served.
    let never = upstream(|_, _| Next::Close);
    let failing = proxy_with(&[&never], HttpConfig::default());
    for _ in 0..100 {
        let client = connect(failing.handle().local_addr());
        send(&client, GET);
        let heard = hear_reply(&client);
        assert!([whole("502"), whole("503")].contains(&heard), "{heard:?}");
    }
    let came = never.heads.try_iter().count();
    assert!(came <= 120 + began.elapsed().as_secs() as usize + 1, "{came} of 100");
}

/// A service that can be shut down properly and started again on its port.
struct Service {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Service {
    fn start(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).expect("its port");
        let addr = listener.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let accepting = thread::spawn(move || {
            listener.set_nonblocking(true).expect("a listener");
            let mut serving = Vec::new();
            loop {
                // What has come before it stops is accepted.
                let is_last = stopping.load(SeqCst);
                while let Ok((stream, _)) = listener.accept() {
                    let stopping = Arc::clone(&stopping);
                    serving.push(thread::spawn(move || serve_until(&stream, &stopping)));
                }
                if is_last {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
            drop(listener);
            serving.into_iter().for_each(|serving| serving.join().expect("it ends well"));
        });
        Self { addr, stop, threads: vec![accepting] }
    }

    fn stop(&mut self) {
        self.stop.store(true, SeqCst);
        self.threads.drain(..).for_each(|thread| thread.join().expect("it ends well"));
    }
}

/// Serves requests one after the other. When it stops, what has come is served, and said to be the last.
fn serve_until(stream: &TcpStream, stop: &AtomicBool) {
    stream.set_nonblocking(false).expect("a socket");
    stream.set_read_timeout(Some(Duration::from_millis(2))).expect("a timeout");
    let mut head = Vec::new();
    let (mut reader, mut writer) = (stream, stream);
    let mut piece = [0; 1024];
    let mut served = false;
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return,
            Ok(count) => head.extend_from_slice(&piece[..count]),
            // A new connection has a request on its way.
            Err(_) if stop.load(SeqCst) && head.is_empty() && served => return,
            Err(_) => continue,
        }
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            let last = stop.load(SeqCst);
            let connection = if last { "Connection: close\r\n" } else { "" };
            let _ = writer
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{connection}\r\nok").as_bytes());
            served = true;
            if last {
                return;
            }
        }
    }
}

#[test]
fn no_get_is_lost_over_rolling_restarts() {
    let any = "127.0.0.1:0".parse().unwrap();
    let mut services = [Service::start(any), Service::start(any)];
    let stand_ins = services.each_ref().map(|service| service.addr);
    let unused = upstream(ok);
    let mut config = config(&[&unused, &unused], HttpConfig::default());
    config.check_interval = Duration::from_millis(40);
    for (upstream, addr) in config.upstreams.iter_mut().zip(stand_ins) {
        upstream.name = addr.to_string();
    }
    let proxy = balance::serve(builder(), config).unwrap();
    let addr = proxy.handle().local_addr();
    let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (over, count) = (Arc::clone(&over), Arc::clone(&served));
            thread::spawn(move || {
                let mut client = connect(addr);
                let mut lost = Vec::new();
                while !over.load(SeqCst) {
                    send_or_not(&client, GET);
                    let heard = hear_reply(&client);
                    count.fetch_add(1, SeqCst);
                    if heard != whole("200") {
                        lost.push(heard);
                        client = connect(addr);
                    }
                }
                lost
            })
        })
        .collect();
    let more_served = || {
        let before = served.load(SeqCst);
        await_that("more are served", || served.load(SeqCst) >= before + 50);
    };
    for round in 0..20 {
        more_served();
        let service = &mut services[round % 2];
        service.stop();
        more_served();
        *service = Service::start(service.addr);
        await_that("it is up again", || proxy.snapshot().upstreams.iter().all(|upstream| upstream.up));
    }
    over.store(true, SeqCst);
    let lost: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    assert!(lost.is_empty(), "{lost:?} of {}", served.load(SeqCst));
    services.iter_mut().for_each(Service::stop);
}

/// The command before this upstream.
fn start_proxy(upstream: &Upstream, args: &[&str]) -> Served {
    let addr = upstream.addr.to_string();
    let first = ["balance", "--protocol", "http", "--patience", "30s", "--check-interval", "1h"];
    start_command(&[&first, args, &[&addr]].concat())
}

#[test]
fn many_slow_clients_keep_nobody_from_being_served() {
    raise_descriptor_limit();
    let upstream = upstream(ok);
    let proxy = start_proxy(&upstream, &["--limit", "4"]);
    let say = |client: &TcpStream, text: &str| send(client, text);
    let mut slow = Vec::new();
    for _ in 0..500 {
        let unfinished = connect(proxy.addr);
        say(&unfinished, "GET / HTTP/1.1\r\nHost:");
        let silent = connect(proxy.addr);
        say(&silent, GET);
        assert_eq!(hear_reply(&silent), whole("200"));
        slow.extend([unfinished, silent]);
    }
    let uploads: Vec<_> = (0..50).map(|_| connect(proxy.addr)).collect();
    for (index, upload) in uploads.iter().enumerate() {
        let length = if index % 2 == 0 { 1_000 } else { 1_000_000 };
        say(upload, &format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
    }
    for _ in 0..3 {
        uploads.iter().for_each(|upload| say(upload, "x"));
        for _ in 0..20 {
            let quick = connect(proxy.addr);
            say(&quick, GET);
            assert_eq!(hear_reply(&quick), whole("200"));
        }
        thread::sleep(Duration::from_millis(200));
    }
    // Each of them is served when it goes on.
    slow.iter().step_by(100).for_each(|unfinished| say(unfinished, " a\r\n\r\n"));
    slow.iter().step_by(100).for_each(|unfinished| assert_eq!(hear_reply(unfinished), whole("200")));
}

#[test]
fn who_asks_before_it_sends_holds_no_place() {
    let upstream = upstream(|head, peer| {
        if head.contains("Expect: ") {
            peer.say("HTTP/1.1 100 Continue\r\n\r\n");
            peer.body(2);
        }
        ok(head, peer)
    });
    let http = HttpConfig { limit: Some(1), ..HttpConfig::default() };
    let config = config(&[&upstream], http);
    let proxy = balance::serve(builder().patience(Duration::from_secs(1)), config).unwrap();
    let asking = client(&proxy);
    send(&asking, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert!(receive_head(&asking).starts_with("HTTP/1.1 100 "));
    let quick = client(&proxy);
    send(&quick, GET);
    assert_eq!(hear_reply(&quick), whole("200"));
    send(&asking, "hi");
    assert_eq!(hear_reply(&asking), whole("200"));
}

const LARGE: usize = 64 << 20;

/// A figure of the process's memory, in bytes.
fn memory(proxy: &Served, name: &str) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).expect("it is there");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the figure");
    let kib: usize = line.trim_matches([':', '\t', ' ', 'k', 'B']).parse().expect("a number");
    kib << 10
}

/// Passes on so much, of which each byte says where it is.
fn pattern(at: usize, length: usize) -> Vec<u8> {
    (at..at + length).map(|at| (at % 251) as u8).collect()
}

/// Writes a large body of either framing.
fn write_large(mut to: &TcpStream, chunked: bool) {
    // The pattern repeats.
    const PIECE: usize = 251 << 8;
    let piece = pattern(0, PIECE);
    let mut at = 0;
    while at < LARGE {
        let piece = &piece[..PIECE.min(LARGE - at)];
        if chunked {
            to.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).expect("it reads");
        }
        to.write_all(piece).expect("it reads");
        if chunked {
            to.write_all(b"\r\n").expect("it reads");
        }
        at += piece.len();
    }
    if chunked {
        to.write_all(b"0\r\n\r\n").expect("it reads");
    }
}

/// Reads a large body of either framing, of which this has come: whether all of it is right.
fn read_large(from: &TcpStream, came: &[u8], chunked: bool) -> bool {
    let mut reader = std::io::BufReader::with_capacity(1 << 16, came.chain(from));
    let mut at = 0;
    let mut piece = vec![0; 1 << 20];
    let expected = pattern(0, (1 << 20) + 251);
    let mut check = |reader: &mut dyn Read, mut left: usize| {
        while left > 0 {
            let most = left.min(piece.len());
            reader.read_exact(&mut piece[..most]).expect("more");
            let from = at % 251;
            if piece[..most] != expected[from..from + most] {
                return false;
            }
            (left, at) = (left - most, at + most);
        }
        true
    };
    if !chunked {
        return check(&mut reader, LARGE);
    }
    let mut line = String::new();
    loop {
        line.clear();
        std::io::BufRead::read_line(&mut reader, &mut line).expect("a size");
        let size = usize::from_str_radix(line.trim_end(), 16).expect("a size");
        let right = check(&mut reader, size);
        let mut end = [0; 2];
        reader.read_exact(&mut end).expect("the end of a chunk");
        if !right || size == 0 {
            return right && at == LARGE;
        }
    }
}

#[test]
fn large_bodies_pass_whole_both_ways_in_constant_memory() {
    let upstream = upstream(|head, peer| {
        let chunked = head.contains("/chunked");
        if head.starts_with("GET ") {
            let framing = if chunked {
                "Transfer-Encoding: chunked".into()
            } else {
                format!("Content-Length: {LARGE}")
            };
            peer.say(&format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"));
            write_large(&peer.stream, chunked);
            return Next::Keep;
        }
        let came = std::mem::take(&mut peer.unread);
        let right = read_large(&peer.stream, &came, chunked);
        peer.reply(if right { "right" } else { "wrong" })
    });
    let proxy = start_proxy(&upstream, &[]);
    let client = connect(proxy.addr);
    send(&client, GET.replace("/a?b", "/none").replace("GET", "DELETE").as_str());
    // Nothing was allocated yet but what each connection has.
    let before = {
        let idle = connect(proxy.addr);
        send(&idle, "GET bad\r\n\r\n");
        let _ = rest(&idle);
        memory(&proxy, "VmRSS")
    };
    drop(client);
    for (path, framing) in
        [("/length", format!("Content-Length: {LARGE}")), ("/chunked", "Transfer-Encoding: chunked".into())]
    {
        let client = connect(proxy.addr);
        send(&client, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        receive_head(&client);
        assert!(read_large(&client, &[], path == "/chunked"), "{path}");
        send(&client, &format!("POST {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        write_large(&client, path == "/chunked");
        assert_eq!(receive(&client).1, "right", "{path}");
    }
    let most = memory(&proxy, "VmHWM");
    assert!(most < before + (16 << 20), "{before} became {most}");
}

/// What a client hears that sends a large body for as long as that is taken.
fn hear_while_uploading(proxy: &Balancer) -> Heard {
    let client = client(proxy);
    send(&client, &format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n"));
    let mut writer = client.try_clone().unwrap();
    let writing = thread::spawn(move || while writer.write_all(&[b'x'; 4096]).is_ok() {});
    let heard = hear_reply(&client);
    let _ = client.shutdown(Shutdown::Both);
    writing.join().unwrap();
    heard
}

#[test]
fn an_early_reply_to_an_upload_reaches_its_client() {
    let upstream = upstream(|_, peer| {
        // Nothing of the body is read, so that both kernels are full.
        thread::sleep(Duration::from_millis(300));
        peer.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        Next::Close
    });
    let proxy = proxy(&[&upstream]);
    assert_eq!(hear_while_uploading(&proxy), whole("413"));
}

#[test]
fn an_upstream_that_does_not_read_an_upload_is_504() {
    let (_open, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let upstream = upstream(move |_, _| {
        let _ = gate.lock().recv();
        Next::Close
    });
    let config = config(&[&upstream], HttpConfig::default());
    let proxy = balance::serve(builder().io_timeout(Duration::from_millis(500)), config).unwrap();
    assert_eq!(hear_while_uploading(&proxy), whole("504"));
}

#[test]
fn an_upload_that_ends_before_it_is_whole_reaches_nobody() {
    let upstream = upstream(ok);
    let proxy = proxy(&[&upstream]);
    let client = client(&proxy);
    send(&client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(hear_reply(&client), whole("400"));
    assert_eq!(upstream.heads.try_iter().count(), 0);
}

/// Sends an upload of this length to an upstream that does not read it, has it reply, and sends another
/// request once it has read a little: how much of the upload it reads, and nothing else in between.
fn unread_upload(length: usize) -> usize {
    let (step, steps) = channel::<()>();
    let (say, told) = channel();
    let (steps, say) = (Mutex::new(steps), Mutex::new(say));
    let upstream = upstream(move |head, peer| {
        if head.starts_with("GET ") {
            return ok(head, peer);
        }
        thread::sleep(Duration::from_millis(100));
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let _ = steps.lock().recv();
        let mut body = peer.body(1 << 18);
        say.lock().send(Vec::new()).unwrap();
        let _ = steps.lock().recv();
        body.extend(peer.body(length - body.len()));
        say.lock().send(body).unwrap();
        Next::Keep
    });
    let proxy = proxy(&[&upstream]);
    let uploading = client(&proxy);
    send(&uploading, &format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
    let mut writer = uploading.try_clone().unwrap();
    let writing = thread::spawn(move || {
        let piece = [b'x'; 4096];
        let mut left = length;
        while left > 0 {
            match writer.write(&piece[..left.min(4096)]) {
                Ok(count) => left -= count,
                Err(_) => return,
            }
        }
    });
    assert_eq!(hear_reply(&uploading), whole("200"));
    await_that("the place is free", || open(&proxy) == 0);
    step.send(()).unwrap();
    told.recv_timeout(PATIENCE).unwrap();
    let next = client(&proxy);
    send(&next, GET);
    thread::sleep(Duration::from_millis(20));
    step.send(()).unwrap();
    let body = told.recv_timeout(PATIENCE).unwrap();
    let foreign = body.iter().position(|byte| *byte != b'x');
    assert_eq!(foreign.map(|at| body[at..].escape_ascii().to_string()), None, "in {length} bytes");
    assert_eq!(hear_reply(&next), whole("200"), "behind {length} bytes");
    let _ = uploading.shutdown(Shutdown::Both);
    writing.join().unwrap();
    body.len()
}

#[test]
fn no_request_comes_into_the_upload_before_it() {
    // So much is taken by the kernels when nobody reads; a little more is kept by the proxy.
    let taken = unread_upload(LARGE);
    for more in [0, 1 << 10, 4 << 10, 8 << 10, 12 << 10, 16 << 10] {
        unread_upload(taken + more);
    }
}

#[test]
fn what_is_under_way_is_finished_when_it_is_told_to_end() {
    let (open_gate, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let upstream = upstream(move |head, peer| {
        let _ = gate.lock().recv();
        if head.starts_with("POST ") {
            peer.body(100_000);
        }
        ok(head, peer)
    });
    let log = TempFile::new("drain");
    let mut proxy =
        start_proxy(&upstream, &["--limit", "4", "--buffer-body", "0", "--access-log", log.path()]);
    let clients: Vec<_> = (0..6).map(|_| connect(proxy.addr)).collect();
    clients.iter().for_each(|client| send(client, GET));
    let mut upload = connect(proxy.addr);
    // They have their places, or stand in line.
    (0..4).for_each(|_| drop(upstream.next_head()));
    await_that("two wait", || proxy.counter_of_line() == 2);
    upload.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").unwrap();
    upload.write_all(&[b'x'; 50_000]).unwrap();
    await_that("three wait", || proxy.counter_of_line() == 3);
    proxy.signal(Signal::TERM);
    await_that("it accepts nobody", || TcpStream::connect(proxy.addr).is_err());
    (0..7).for_each(|_| open_gate.send(()).unwrap());
    upload.write_all(&[b'x'; 50_000]).unwrap();
    for client in clients.iter().chain([&upload]) {
        let (head, _) = receive(client);
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Connection: close\r\n"), "{head}");
        assert_eq!(rest(client), Ok(Vec::new()));
    }
    assert_eq!(proxy.wait().0, Some(0));
    let lines = lines_of(&log);
    assert_eq!(lines.len(), 7);
    assert!(lines.iter().all(|line| line["status"] == 200 && line["end"] == "answered"), "{lines:?}");
}

/// The lines of an access log.
fn lines_of(log: &TempFile) -> Vec<serde_json::Value> {
    let lines: Vec<serde_json::Value> =
        log.read().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for line in &lines {
        for number in ["time", "status", "bytes", "wait_us", "upstream_us", "retries"] {
            assert!(line[number].is_number(), "{number}: {line}");
        }
        for word in ["client", "method", "target", "end"] {
            assert!(line[word].is_string(), "{word}: {line}");
        }
    }
    lines
}

impl Served {
    fn counter_of_line(&mut self) -> u64 {
        self.counter("line_waiting")
    }
}

fn ended(proxy: &Balancer) {
    await_that("no place is held", || open(proxy) == 0);
    proxy.handle().shutdown();
    proxy.join().unwrap();
}

/// What the log says of each target: its status and why it ended.
fn ends(log: &TempFile) -> HashMap<String, (u64, String)> {
    let entry = |line: &serde_json::Value| {
        let target = line["target"].as_str().expect("text").to_owned();
        (target, (line["status"].as_u64().expect("a number"), line["end"].as_str().expect("text").to_owned()))
    };
    lines_of(log).iter().map(entry).collect()
}

#[test]
fn each_request_has_a_line_in_the_log_however_it_ended() {
    let (open_gate, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let upstream = upstream(move |head, peer| match head.split(' ').nth(1).unwrap_or_default() {
        "/dies" => Next::Close,
        "/half" => {
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
            Next::Close
        }
        "/late" | "/held" => {
            // Until the test opens it.
            let _ = gate.lock().recv();
            ok(head, peer)
        }
        "/404" => {
            peer.say("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            Next::Keep
        }
        _ => ok(head, peer),
    });
    let log = TempFile::new("each");
    let http = |upstream_timeout| HttpConfig {
        access_log: Some(log.path().into()),
        limit: Some(1),
        upstream_timeout,
        ..HttpConfig::default()
    };
    let proxy = proxy_with(&[&upstream], http(PATIENCE));
    for target in ["/ok", "/404", "/dies", "/half", "/a?\"b\\c=%00", "/%e2%82%ac|{}"] {
        let client = client(&proxy);
        send(&client, &format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let _ = hear_reply(&client);
    }
    let gone = client(&proxy);
    send(&gone, "POST /gone HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nx");
    gone.shutdown(Shutdown::Write).unwrap();
    let _ = hear_reply(&gone);
    await_that("no place is held", || open(&proxy) == 0);
    // Each of these has all the time but for that which is to be over.
    proxy.reload(config(&[&upstream], http(BRIEF))).expect("it is right");
    let late = client(&proxy);
    send(&late, "GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(hear_reply(&late), whole("504"));
    proxy.reload(config(&[&upstream], http(PATIENCE))).expect("it is right");
    let (held, refused) = (client(&proxy), client(&proxy));
    send(&held, "GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    await_that("it has the place", || open(&proxy) == 1);
    proxy.handle().reload(Server::builder().workers(2).patience(BRIEF)).expect("it is right");
    proxy.reload(config(&[&upstream], http(PATIENCE))).expect("it is right");
    send(&refused, "GET /refused HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(hear_reply(&refused), whole("503"));
    drop(open_gate);
    assert_eq!(hear_reply(&held), whole("200"));
    ended(&proxy);
    let ends = ends(&log);
    for (target, status, end) in [
        ("/ok", 200, "answered"),
        ("/404", 404, "answered"),
        ("/dies", 502, "upstream"),
        ("/half", 200, "upstream"),
        ("/late", 504, "timeout"),
        ("/refused", 503, "refused"),
        ("/held", 200, "answered"),
        // Those that were no whole requests.
        ("", 400, "client"),
    ] {
        assert_eq!(ends.get(target), Some(&(status, end.to_owned())), "{target}: {ends:?}");
    }
    // A quotation mark is not for targets, what else there is comes as it was.
    assert_eq!(ends.len(), 9, "{ends:?}");
    assert_eq!(proxy.snapshot().access_log_dropped, 0);
}

#[test]
fn the_log_says_why_upgrades_dead_connections_and_slow_replies_ended() {
    let upstream = upstream(|head, peer| match head.split(' ').nth(1).unwrap_or_default() {
        "/upgrade" => {
            peer.say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
            Next::Close
        }
        "/dies" => Next::Close,
        "/slow" => {
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
            thread::sleep(Duration::from_millis(1_500));
            Next::Close
        }
        _ => ok(head, peer),
    });
    let log = TempFile::new("why");
    let http = HttpConfig { access_log: Some(log.path().into()), ..HttpConfig::default() };
    let config = config(&[&upstream], http);
    let proxy = balance::serve(builder().io_timeout(Duration::from_millis(300)), config).unwrap();
    let kept = client(&proxy);
    send(&kept, GET);
    assert_eq!(hear_reply(&kept), whole("200"));
    send(&kept, "POST /dies HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(hear_reply(&kept), Heard::Nothing);
    let slow = client(&proxy);
    send(&slow, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(hear_reply(&slow), Heard::CutOff);
    let upgraded = client(&proxy);
    send(&upgraded, "GET /upgrade HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
    assert!(receive_head(&upgraded).starts_with("HTTP/1.1 101 "));
    drop(upgraded);
    ended(&proxy);
    let ends = ends(&log);
    let of = |target: &str| ends.get(target).map(|(status, end)| (*status, end.as_str()));
    assert_eq!(
        [
            of("/dies").map(|(_, end)| end),
            of("/slow").map(|(_, end)| end),
            of("/upgrade").map(|(_, end)| end)
        ],
        [Some("upstream"), Some("timeout"), Some("answered")]
    );
    assert_eq!((of("/slow").unwrap().0, of("/upgrade").unwrap().0), (200, 101));
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing_and_one_that_cannot_be_opened_is_told() {
    let upstream = upstream(ok);
    let mut proxy = start_proxy(&upstream, &["--access-log", "/dev/full"]);
    let client = connect(proxy.addr);
    for _ in 0..200 {
        send(&client, GET);
        assert_eq!(hear_reply(&client), whole("200"));
    }
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait().0, Some(0));
    for path in ["/nowhere/at/all", "/"] {
        let output = run(&[
            "balance",
            "--protocol",
            "http",
            "--listen",
            "127.0.0.1:0",
            "--access-log",
            path,
            &upstream.addr.to_string(),
        ]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(&format!("the access log {path}")), "{text}");
        assert!(output.stdout.is_empty());
    }
}
