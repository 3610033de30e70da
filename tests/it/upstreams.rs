//! A set of upstreams that changes while requests are served: names whose addresses come and go, and
//! settings that are reloaded.

use std::{
    fs,
    io::{self, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use overfall::{
    Connection, Handle, Next, Server,
    balance::{self, AllDown, Balancer, Config, HttpConfig, Policy, UpstreamConfig},
    http::{self, Request, Response},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    load::{HTTP, Load, Meaning, Talk, ask_http, is_ok},
    support::*,
    temporary::{Process, TempDir, TempFile},
    upstream::{self, GET, receive, send},
};

fn ask_line(stream: &TcpStream) -> io::Result<String> {
    let mut writer = stream;
    writer.write_all(b"who\n")?;
    let mut answer = [0; 4];
    io::Read::read_exact(&mut &*stream, &mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Lines over a connection that is kept.
const LINES: Talk = Talk { ask: ask_line, means: |answer| (answer == "here").then_some(Meaning::Answer) };

fn web_at(addr: &str) -> Handle {
    let answer = |_: &Request| Response::text("here".to_owned());
    http::serve(Server::builder().workers(1).bind(addr), answer).expect("it serves")
}

fn line_server() -> Handle {
    line_server_with(b"here")
}

fn line_server_with(answer: &'static [u8; 4]) -> Handle {
    let answer = move |connection: &mut Connection<'_>| {
        while let Some(end) = connection.input().iter().position(|&byte| byte == b'\n') {
            connection.consume(end + 1);
            connection.write_all(answer)?;
        }
        Ok(if connection.ended() { Next::Close } else { Next::Park })
    };
    Server::builder().workers(1).bind("127.0.0.1:0").serve_handler(answer).expect("it serves")
}

fn config(http: Option<HttpConfig>, upstreams: &[String]) -> Config {
    let upstream = |name: &String| UpstreamConfig { name: name.clone(), weight: 1 };
    Config { http, upstreams: upstreams.iter().map(upstream).collect(), ..Config::default() }
}

fn addr(balancer: &Balancer) -> SocketAddr {
    balancer.handle().local_addr()
}

/// Settings that differ from one time to the next in all that may change.
fn another(base: &Config, all: &[SocketAddr], random: &mut fastrand::Rng) -> Config {
    let mut upstreams: Vec<_> = all.iter().filter(|_| random.bool()).collect();
    if upstreams.is_empty() {
        upstreams.push(&all[random.usize(..all.len())]);
    }
    random.shuffle(&mut upstreams);
    let most = |random: &mut fastrand::Rng| random.bool().then(|| random.usize(4..20));
    Config {
        http: base.http.as_ref().map(|http| HttpConfig {
            limit: most(random),
            upstream_timeout: Duration::from_secs(random.u64(30..60)),
            buffer_body: random.u64(0..10),
            keep_underscores: random.bool(),
            ..http.clone()
        }),
        upstreams: upstreams
            .into_iter()
            .map(|addr| UpstreamConfig { name: addr.to_string(), weight: random.u32(1..5) })
            .collect(),
        policy: if random.bool() { Policy::RoundRobin } else { Policy::LeastConnections },
        max_connections_per_upstream: most(random),
        connect_timeout: Duration::from_secs(random.u64(2..9)),
        all_down: if random.bool() { AllDown::Try } else { AllDown::Refuse },
        check_interval: Duration::from_millis(random.u64(20..5000)),
        rise: random.u32(1..4),
        fall: random.u32(3..6),
        busy_reply: b"busy".to_vec(),
        ..base.clone()
    }
}

fn assert_that_reloads_lose_nobody(http: Option<HttpConfig>, upstreams: &[Handle], talk: Talk) {
    let all: Vec<_> = upstreams.iter().map(Handle::local_addr).collect();
    let base = config(http, &all.iter().map(ToString::to_string).collect::<Vec<_>>());
    let balancer = balance::serve(builder(), base.clone()).expect("it serves");
    let load = Load::begin(addr(&balancer), talk);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..50 {
        load.await_answers(4);
        let config = another(&base, &all, &mut random);
        let expected: Vec<_> = config.upstreams.iter().map(|upstream| upstream.name.clone()).collect();
        assert!(balancer.reload(config).expect("it is right").is_empty());
        let names = balancer.snapshot().upstreams.into_iter().map(|status| status.name);
        assert_eq!(names.collect::<Vec<_>>(), expected);
    }
    load.await_answers(4);
    assert_eq!(load.end(), 0);
    let snapshot = balancer.snapshot();
    assert_eq!((snapshot.refused_no_upstream, snapshot.refused_line_full, snapshot.line_shed), (0, 0, 0));
    assert!(snapshot.upstreams.iter().all(|status| status.up && status.failed == 0));
}

#[test]
fn fifty_reloads_lose_no_request_over_http() {
    let upstreams = [0; 4].map(|_| web_at("127.0.0.1:0"));
    assert_that_reloads_lose_nobody(Some(HttpConfig::default()), &upstreams, HTTP);
}

#[test]
fn fifty_reloads_lose_no_connection_over_tcp() {
    let upstreams = [0; 4].map(|_| line_server());
    assert_that_reloads_lose_nobody(None, &upstreams, LINES);
}

#[test]
fn what_is_under_way_at_an_upstream_that_leaves_goes_on_and_its_idle_connections_are_closed() {
    let (turnstile, gate) = turnstile();
    let leaves = upstream::upstream(move |head, peer| {
        if head.starts_with("GET /slow") {
            turnstile.pass();
        }
        peer.reply("old")
    });
    let stays = upstream::upstream(|_, peer| peer.reply("new"));
    let proxy = upstream::proxy(&[&leaves]);
    let (slow, quick) = (upstream::client(&proxy), upstream::client(&proxy));
    send(&slow, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    gate.await_blocked(1);
    send(&quick, GET);
    assert_eq!(receive(&quick).1, "old");
    let kept = proxy.reload(upstream::config(&[&stays], HttpConfig::default())).expect("it is right");
    assert!(kept.is_empty());
    // The idle connection is closed, and the other is not.
    await_that("one is left", || leaves.connections_open() == 1);
    for _ in 0..3 {
        send(&quick, GET);
        assert_eq!(receive(&quick).1, "new");
    }
    gate.open(1);
    assert_eq!(receive(&slow).1, "old");
    await_that("that one is closed, too", || leaves.connections_open() == 0);
    let upstreams = proxy.snapshot().upstreams;
    assert_eq!((upstreams.len(), upstreams[0].addr), (1, stays.addr));
}

#[test]
fn a_relay_outlives_its_upstreams_place_in_the_settings() {
    let (first, second) = (line_server(), line_server());
    let settings = |handle: &Handle| config(None, &[handle.local_addr().to_string()]);
    let balancer = balance::serve(builder(), settings(&first)).expect("it serves");
    let stream = connect(addr(&balancer));
    assert_eq!(ask_line(&stream).expect("an answer"), "here");
    balancer.reload(settings(&second)).expect("it is right");
    assert_eq!(ask_line(&stream).expect("an answer"), "here");
    assert_eq!(ask_line(&connect(addr(&balancer))).expect("an answer"), "here");
    assert_eq!(balancer.snapshot().upstreams[0].connected, 1);
}

#[test]
fn what_is_wrong_changes_nothing_and_what_cannot_change_is_named() {
    let (here, other) = (web_at("127.0.0.1:0"), web_at("127.0.0.1:0"));
    let settings = |handle: &Handle| config(Some(HttpConfig::default()), &[handle.local_addr().to_string()]);
    let balancer = balance::serve(builder(), settings(&here)).expect("it serves");
    let log = |path: &str| Some(HttpConfig { access_log: Some(path.into()), ..HttpConfig::default() });
    let own = addr(&balancer).to_string();
    let cases = [
        (Config { rise: 0, ..settings(&other) }, "rise is 0; it may be 1 or more".to_owned()),
        (
            Config { upstreams: vec![], ..settings(&other) },
            "there is no upstream; give one HOST:PORT or more".into(),
        ),
        (
            config(Some(HttpConfig::default()), std::slice::from_ref(&own)),
            format!("the upstream {own} is the balancer's own address; give another"),
        ),
        (
            Config { http: log("/no/such/place"), ..settings(&other) },
            "cannot start the access log /no/such/place: No such file or directory (os error 2)".into(),
        ),
    ];
    for (config, sentence) in cases {
        assert_eq!(balancer.reload(config).expect_err("it is wrong").to_string(), sentence);
        assert_eq!(balancer.snapshot().upstreams[0].addr, here.local_addr());
    }
    let tcp = Config { http: None, ..settings(&other) };
    assert_eq!(balancer.reload(tcp).expect("it is right"), ["http"]);
    // The rest is in force.
    let client = connect(addr(&balancer));
    assert!(is_ok(&ask_http(&client).expect("an answer")));
    assert_eq!(balancer.snapshot().upstreams[0].addr, other.local_addr());
}

#[test]
fn the_log_is_opened_anew_at_each_reload_and_may_begin_and_end() {
    let place = TempDir::new("reloaded-log");
    let (path, moved) = (place.path().join("log"), place.path().join("log.1"));
    let here = web_at("127.0.0.1:0");
    let settings = |log: Option<&PathBuf>| {
        let http = HttpConfig { access_log: log.cloned(), ..HttpConfig::default() };
        config(Some(http), &[here.local_addr().to_string()])
    };
    let balancer = balance::serve(builder(), settings(None)).expect("it serves");
    let client = connect(addr(&balancer));
    let ask = || assert!(is_ok(&ask_http(&client).expect("an answer")));
    let lines = |path: &Path| fs::read_to_string(path).unwrap_or_default().lines().count();
    ask();
    balancer.reload(settings(Some(&path))).expect("it is right");
    ask();
    await_that("it is written", || lines(&path) == 1);
    fs::rename(&path, &moved).expect("it is there");
    balancer.reload(settings(Some(&path))).expect("it is right");
    ask();
    await_that("it is written", || lines(&path) == 1);
    balancer.reload(settings(None)).expect("it is right");
    ask();
    balancer.reload(settings(Some(&path))).expect("it is right");
    ask();
    await_that("it is written", || lines(&path) == 2);
    assert_eq!(lines(&moved), 1);
}

#[test]
fn clients_wait_for_as_long_as_the_server_says_after_a_reload() {
    let only = line_server();
    let settings = Config {
        max_connections_per_upstream: Some(1),
        busy_reply: b"busy\n".to_vec(),
        ..config(None, &[only.local_addr().to_string()])
    };
    let balancer = balance::serve(builder().patience(PATIENCE), settings.clone()).expect("it serves");
    let first = connect(addr(&balancer));
    assert_eq!(ask_line(&first).expect("an answer"), "here");
    // All of both, or none.
    let later = Config { busy_reply: b"later\n".to_vec(), ..settings.clone() };
    let wrong = Server::builder().patience(BRIEF).refusal_budget(7.0);
    assert!(balancer.reload_with(wrong, later.clone()).is_err());
    let wrong = Config { rise: 0, ..settings };
    assert!(balancer.reload_with(Server::builder().patience(BRIEF), wrong).is_err());
    let second = connect(addr(&balancer));
    await_that("it waits", || balancer.snapshot().waiting == 1);
    drop(first);
    assert_eq!(ask_line(&second).expect("an answer"), "here");
    let server = Server::builder().workers(1).patience(BRIEF);
    assert_eq!(balancer.reload_with(server, later).expect("it is right"), ["workers"]);
    assert_eq!(rest(&connect(addr(&balancer))), Ok(b"later\n".to_vec()));
}

#[test]
fn who_is_to_be_told_for_whom_it_is_gets_a_new_connection() {
    let only = upstream::upstream(upstream::ok);
    let proxy = upstream::proxy(&[&only]);
    let client = upstream::client(&proxy);
    let settings = upstream::config(&[&only], HttpConfig::default());
    let told = Config { send_proxy: Some(balance::ProxyVersion::V1), ..settings.clone() };
    for (settings, begins) in [(settings.clone(), "GET"), (told, "PROXY TCP4 127.0.0.1"), (settings, "GET")] {
        proxy.reload(settings).expect("it is right");
        send(&client, GET);
        receive(&client);
        let head = only.next_head();
        assert!(head.starts_with(begins), "{head}");
    }
}

#[test]
fn hup_has_the_command_read_its_upstreams_again() {
    let file = TempFile::new("config.toml");
    let upstreams = [line_server_with(b"old\n"), line_server_with(b"new\n")];
    let write = |upstream: &Handle| {
        file.write(&format!("upstreams = ['{}=3']\nresolve-interval = '1s'\n", upstream.local_addr()));
    };
    write(&upstreams[0]);
    let served = start_command(&["balance", "--config", file.path()]);
    let kept = connect(served.addr);
    assert_eq!(ask_line(&kept).expect("an answer"), "old\n");
    file.write("upstreams = ['nowhere']");
    served.signal(Signal::HUP);
    assert_eq!(ask_line(&connect(served.addr)).expect("an answer"), "old\n");
    write(&upstreams[1]);
    served.signal(Signal::HUP);
    await_that("it has the new one", || ask_line(&connect(served.addr)).expect("an answer") == "new\n");
    assert_eq!(ask_line(&kept).expect("an answer"), "old\n");
}

/// Says that this process is alone in its network.
const APART: &str = "OVERFALL_TEST_APART";

#[test]
fn addresses_of_a_name_come_and_go_without_a_lost_request() {
    if !Path::new("/usr/sbin/dnsmasq").exists() {
        eprintln!("SKIPPED: there is no dnsmasq here (package dnsmasq-base)");
        return;
    }
    // What is to be asked for names is for this machine to say: in a network of its own, the test says it.
    let this = std::env::current_exe().expect("this program");
    let output = Command::new("unshare")
        .args(["--map-root-user", "--net", "--mount"])
        .arg(this)
        .args(["--exact", "upstreams::in_a_network_of_its_own", "--nocapture"])
        .env(APART, "1")
        .output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: there is no unshare(1) here");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if text.contains("SKIPPED:") || !text.contains("running 1 test") {
        eprintln!("SKIPPED: no network of its own can be had here: {text}");
        return;
    }
    assert!(output.status.success(), "{text}");
}

/// What answers for names, from a file.
struct NameServer<'a> {
    place: &'a TempDir,
    process: Process,
}

impl<'a> NameServer<'a> {
    fn start(place: &'a TempDir) -> Self {
        let options = ["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="];
        let child = Command::new("/usr/sbin/dnsmasq")
            .args(options)
            .args(["--listen-address=127.0.0.1", "--bind-interfaces", "--local=/test/", "--local-ttl=0"])
            .arg(format!("--addn-hosts={}", place.path().join(HOSTS).display()))
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        Self { place, process: Process(child) }
    }

    fn say(&self, lines: &[(&str, &str)]) {
        write_hosts(self.place, lines);
        kill_process(Pid::from_child(&self.process), Signal::HUP).expect("it is there");
    }
}

const HOSTS: &str = "hosts";

fn write_hosts(place: &TempDir, lines: &[(&str, &str)]) {
    let text: String = lines.iter().map(|(addr, name)| format!("{addr} {name}\n")).collect();
    place.write(HOSTS, &text);
}

/// Whether this network and its names could be set up.
fn set_up(place: &TempDir) -> bool {
    let resolv = place.write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    let runs = |command: &mut Command| command.status().is_ok_and(|status| status.success());
    runs(Command::new("ip").args(["link", "set", "lo", "up"]))
        && runs(Command::new("mount").arg("--bind").arg(&resolv).arg("/etc/resolv.conf"))
}

/// What the test before has run in a network of its own; nothing elsewhere.
#[test]
fn in_a_network_of_its_own() {
    if std::env::var_os(APART).is_none() {
        return;
    }
    let place = TempDir::new("names");
    write_hosts(&place, &[("127.0.0.2", "web.test")]);
    if !set_up(&place) {
        eprintln!("SKIPPED: this network cannot be set up");
        return;
    }
    let names = NameServer::start(&place);
    await_that("names are answered for", || overfall::dial::resolve("web.test:80").is_ok());
    let addrs = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"];
    let _services = addrs.map(|addr| web_at(&format!("{addr}:8080")));
    let settings = |name: &str| Config {
        resolve_interval: Duration::from_millis(20),
        ..config(Some(HttpConfig::default()), &[format!("{name}:8080")])
    };
    let balancer = balance::serve(builder(), settings("web.test")).expect("it serves");
    let load = Load::begin(addr(&balancer), HTTP);
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..20 {
        let mut chosen: Vec<_> = addrs.iter().copied().filter(|_| random.bool()).collect();
        if chosen.is_empty() {
            chosen.push(addrs[random.usize(..addrs.len())]);
        }
        names.say(&chosen.iter().map(|&addr| (addr, "web.test")).collect::<Vec<_>>());
        await_that("they are followed", || used(&balancer) == chosen);
        load.await_answers(8);
    }
    // Nobody answers for names any more: what is known stays.
    let known = used(&balancer);
    drop(names);
    load.await_answers(40);
    assert_eq!(used(&balancer), known);
    let later = balance::serve(builder().patience(BRIEF), settings("later.test")).expect("it serves");
    let refused = ask_http(&connect(addr(&later))).expect("an answer");
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    write_hosts(&place, &[("127.0.0.4", "web.test"), ("127.0.0.5", "later.test")]);
    let names = NameServer::start(&place);
    await_that("it is followed again", || used(&balancer) == ["127.0.0.4"]);
    await_that("it is found", || used(&later) == ["127.0.0.5"]);
    assert!(is_ok(&ask_http(&connect(addr(&later))).expect("an answer")));
    load.await_answers(8);
    assert_eq!(load.end(), 0);
    drop(names);
    let snapshot = balancer.snapshot();
    assert_eq!((snapshot.refused_no_upstream, snapshot.refused_line_full, snapshot.line_shed), (0, 0, 0));
}

/// The addresses that may get requests now.
fn used(balancer: &Balancer) -> Vec<String> {
    let up = balancer.snapshot().upstreams.into_iter().filter(|status| status.up);
    up.map(|status| status.addr.ip().to_string()).collect()
}
