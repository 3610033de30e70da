//! What operators and their machines are told of a running server.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use overfall::{
    Handle, Server,
    admin::{self, Watched},
    balance::{self, Config, HttpConfig},
    http::{self, Request, Response, header},
};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    support::*,
    temporary::{HaProxy, TempFile},
};

/// An answer over HTTP.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn ask_admin(admin: SocketAddr, request: &str) -> Answer {
    ask_by(admin, request, "Host: localhost\r\n")
}

fn ask_by(admin: SocketAddr, request: &str, host: &str) -> Answer {
    let request =
        format!("{request} HTTP/1.{}\r\n{host}Connection: close\r\n\r\n", u8::from(!host.is_empty()));
    let reply = exchange(admin, request.as_bytes()).expect("an answer");
    let reply = String::from_utf8(reply).expect("text");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

fn get(admin: SocketAddr, path: &str) -> Answer {
    ask_admin(admin, &format!("GET {path}"))
}

fn show(watched: impl Watched) -> Handle {
    admin::serve(TcpListener::bind("127.0.0.1:0").expect("a port"), watched).expect("it serves")
}

fn status(admin: SocketAddr) -> Value {
    serde_json::from_str(&get(admin, "/status.json").body).expect("JSON")
}

/// The value of the line of `/metrics` that begins so.
fn metric(admin: SocketAddr, line: &str) -> f64 {
    let text = get(admin, "/metrics").body;
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("{line}: {text}")).parse().expect("a number")
}

/// What `promtool check metrics` has to say; none where it is not installed.
fn promtool(metrics: &str) -> Option<String> {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("SKIPPED: promtool is not installed; it comes with Debian's prometheus");
        return None;
    };
    child.stdin.take().expect("piped").write_all(metrics.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    Some(format!("{}{}", String::from_utf8_lossy(&said), if output.status.success() { "" } else { "failed" }))
}

fn web(function: impl Fn(&Request<'_>) -> Response + Send + Sync + 'static) -> Handle {
    http::serve(builder(), function).expect("it serves")
}

fn balancer(upstreams: &[SocketAddr], http: Option<HttpConfig>) -> Arc<balance::Balancer> {
    let config = Config {
        upstreams: upstreams.iter().map(|addr| addr.to_string().parse().expect("an upstream")).collect(),
        http,
        check_interval: BRIEF,
        rise: 1,
        fall: 1,
        ..Config::default()
    };
    Arc::new(balance::serve(builder(), config).expect("it serves"))
}

#[test]
fn what_is_counted_is_told_to_prometheus() {
    let server = Arc::new(web(|request| match request.uri().path() {
        "/" => Response::text("here"),
        _ => Response::text("").status(http::StatusCode::NOT_FOUND),
    }));
    let admin = show(Arc::clone(&server));
    for path in ["/", "/", "/elsewhere"] {
        get(server.local_addr(), path);
    }
    let at = admin.local_addr();
    assert_eq!(metric(at, r#"overfall_http_answers_total{class="2xx"}"#), 2.0);
    assert_eq!(metric(at, r#"overfall_http_answers_total{class="4xx"}"#), 1.0);
    assert_eq!(metric(at, "overfall_requests_answered_total"), 3.0);
    assert_eq!(metric(at, "overfall_connections_accepted_total"), 3.0);
    assert_eq!(metric(at, "overfall_ready"), 1.0);
    assert!(metric(at, "process_open_fds") > 3.0 && metric(at, "process_start_time_seconds") > 1e9);
    // What the page and the scrapes cost is not what the server is asked.
    assert_eq!(metric(at, "overfall_connections_accepted_total"), 3.0);
}

#[test]
fn metrics_are_in_the_format_that_is_asked_for() {
    let server = Arc::new(web(|_| Response::text("")));
    let admin = show(Arc::clone(&server));
    let plain = get(admin.local_addr(), "/metrics");
    assert!(plain.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{}", plain.head);
    let request = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
                   Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n";
    let open = String::from_utf8(exchange(admin.local_addr(), request.as_bytes()).unwrap()).unwrap();
    assert!(
        open.to_lowercase().contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{open}"
    );
    assert!(open.ends_with("# EOF\n"));
}

#[test]
fn promtool_finds_nothing_to_say() {
    let server = web(|_| Response::text("here"));
    let nobody = nobody();
    for http in [None, Some(HttpConfig::default())] {
        let balancer = balancer(&[server.local_addr(), nobody], http);
        get(balancer.handle().local_addr(), "/");
        let admin = show(balancer);
        let text = get(admin.local_addr(), "/metrics").body;
        assert!(text.contains("overfall_upstream_up{"), "{text}");
        let Some(said) = promtool(&text) else { return };
        assert_eq!(said, "", "{text}");
    }
}

#[test]
fn it_answers_while_every_worker_is_held_and_tells_of_the_drain() {
    let (server, gate) = serve_lines(builder());
    let server = Arc::new(server);
    let admin = show(Arc::clone(&server));
    let at = admin.local_addr();
    let clients = [(); 2].map(|()| connect(server.local_addr()));
    clients.iter().for_each(|client| tell(client, "block"));
    gate.await_blocked(2);
    let ready = get(at, "/readyz");
    assert_eq!((ready.status, &*ready.body), (200, "ready\n"));
    assert_eq!(metric(at, r#"overfall_connections{state="busy"}"#), 2.0);
    // It serves as before, but says that it is not going to for long.
    server.announce_shutdown();
    let leaving = get(at, "/readyz");
    assert_eq!((leaving.status, &*leaving.body), (503, "it is going to shut down\n"));
    assert_eq!(status(at)["state"], "leaving");
    let late = connect(server.local_addr());
    tell(&late, "say still here");
    server.shutdown();
    let draining = get(at, "/readyz");
    assert_eq!((draining.status, &*draining.body), (503, "it is shutting down\n"));
    assert_eq!(get(at, "/healthz").status, 200);
    gate.open(2);
    assert_eq!(clients.each_ref().map(hear), ["unblocked", "unblocked"]);
    assert_eq!(hear(&late), "still here");
    server.join().unwrap();
    // To the last.
    assert_eq!(get(at, "/readyz").status, 503);
    assert_eq!(metric(at, "overfall_requests_answered_total"), 3.0);
}

#[test]
fn nobody_is_welcome_while_no_upstream_is_up() {
    let addr = nobody();
    let balancer = balancer(&[addr], None);
    let admin = show(balancer);
    let at = admin.local_addr();
    await_that("it is down", || get(at, "/readyz").status == 503);
    assert_eq!(get(at, "/readyz").body, "no upstream is up\n");
    assert_eq!((get(at, "/healthz").status, &status(at)["state"]), (200, &"no_upstream".into()));
    let down = format!(r#"overfall_upstream_up{{upstream="{addr}",addr="{addr}"}}"#);
    assert_eq!(metric(at, &down), 0.0);
    let _upstream = Server::builder().bind(addr).serve_handler(lines().0).unwrap();
    await_that("it is up", || get(at, "/readyz").status == 200);
    assert_eq!(status(at)["upstreams"][0]["up"], true);
}

#[test]
fn everything_is_there_as_json() {
    let server = Arc::new(web(|_| Response::text("")));
    let admin = show(Arc::clone(&server));
    get(server.local_addr(), "/");
    let status = status(admin.local_addr());
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["metrics"]["answers_2xx"], 1);
    assert_eq!(status["settings"]["patience_seconds"], PATIENCE.as_secs_f64());
    assert!(status["process"]["open_files"].as_u64() > Some(3));
    assert_eq!((&status["state"], &status["reason"]), (&"ready".into(), &Value::Null));
}

#[test]
fn a_page_that_lets_its_name_stand_for_this_address_reads_nothing() {
    let server = Arc::new(web(|_| Response::text("")));
    let any = show(Arc::clone(&server));
    let named = admin::serve_named("Db1.example", TcpListener::bind("127.0.0.1:0").unwrap(), server).unwrap();
    let cases = [
        (&any, "Host: evil.example:9901\r\n", 421),
        (&any, "Host: db1.example\r\n", 421),
        (&any, "Host: [::1]:9901\r\n", 200),
        (&any, "Host: 127.0.0.1:9901\r\n", 200),
        (&any, "", 200),
        (&named, "Host: db1.example:9901\r\n", 200),
        (&named, "Host: evil.example\r\n", 421),
    ];
    for (admin, host, status) in cases {
        for path in ["/", "/status.json"] {
            assert_eq!(ask_by(admin.local_addr(), &format!("GET {path}"), host).status, status, "{host}");
        }
        for path in ["/metrics", "/healthz", "/readyz"] {
            assert_eq!(ask_by(admin.local_addr(), &format!("GET {path}"), host).status, 200, "{host}");
        }
    }
}

#[test]
fn other_paths_and_methods_are_told_what_there_is() {
    let server = Arc::new(web(|_| Response::text("")));
    let admin = show(server);
    let at = admin.local_addr();
    assert_eq!(get(at, "/metrics/").status, 404);
    assert_eq!(get(at, "/favicon.ico").status, 404);
    for path in ["/metrics", "/healthz", "/readyz", "/status.json", "/"] {
        let refused = ask_admin(at, &format!("DELETE {path}"));
        assert_eq!(refused.status, 405, "{path}");
        assert!(refused.head.contains("allow: get, head"), "{}", refused.head);
        let head = ask_admin(at, &format!("HEAD {path}"));
        assert_eq!((head.status, &*head.body), (200, ""), "{path}");
    }
}

/// The command with a flag for an address of its own, and that address.
fn start_with(flag: &str, line: &str, args: &[&str]) -> (Served, SocketAddr) {
    let mut served = start_command(&[&args[..1], &[flag, "127.0.0.1:0"], &args[1..]].concat());
    let said = served.line();
    let addr = said.strip_prefix(line).unwrap_or_else(|| panic!("{said}")).trim_end_matches('/').parse();
    (served, addr.expect("an address"))
}

#[test]
fn the_command_answers_until_it_ends() {
    let (mut served, admin) = start_with("--admin", "admin on http://", &["serve", "--workers", "1"]);
    let client = connect(served.addr);
    await_that("it is open", || metric(admin, r#"overfall_connections{state="parked"}"#) == 1.0);
    served.signal(Signal::TERM);
    await_that("it drains", || get(admin, "/readyz").status == 503);
    drop(client);
    assert_eq!(served.wait().0, Some(0));
    assert!(TcpStream::connect(admin).is_err());
}

#[test]
fn what_admins_own_threads_log_is_told_from_what_the_server_logs() {
    // More clients of admin than there are descriptors for, and none of the server.
    let script = "ulimit -n 60; exec \"$0\" serve --listen 127.0.0.1:0 --workers 1 --admin 127.0.0.1:0";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_overfall")]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let admin =
        out.find_map(|line| line.strip_prefix("admin on http://")?.trim_end_matches('/').parse().ok());
    let clients: Vec<_> = (0..60).map(|_| connect(admin.unwrap())).collect();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = log.find(|line| line.contains("WARN") && line.contains("cannot accept"));
    let _ = child.kill();
    let _ = child.wait();
    assert!(line.as_ref().is_some_and(|line| line.contains("serving{server=\"admin\"}")), "{line:?}");
    drop(clients);
}

#[test]
fn a_port_in_use_and_a_wrong_address_are_one_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = run(&["serve", "-q", "--listen", "127.0.0.1:0", "--admin", &addr]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with(&format!("error: cannot listen on {addr} for --admin: ")), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(output.stdout.is_empty());
    assert_wrong_usage(&["serve", "-q"], &[(&["--admin", "nowhere"], "'nowhere' for '--admin <ADDR>'")]);
}

/// A server whose workers have `/slow` until the gate is open.
fn serve_slow() -> (Arc<Handle>, Gate) {
    let (turnstile, gate) = turnstile();
    let server = Arc::new(web(move |request| {
        if request.uri().path() == "/slow" {
            turnstile.pass();
        }
        Response::text("")
    }));
    (server, gate)
}

#[test]
fn who_has_the_workers_is_told_and_how_long_clients_wait() {
    let (server, gate) = serve_slow();
    let admin = show(Arc::clone(&server));
    let at = admin.local_addr();
    let mut client = connect(server.local_addr());
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    gate.await_blocked(1);
    let workers = &status(at)["workers"];
    assert_eq!(workers["count"], 2);
    let call = &workers["longest"][0];
    assert_eq!((&call["state"], &call["doing"]), (&"handling".into(), &"GET /slow".into()), "{workers}");
    assert_eq!(call["client"], client.local_addr().unwrap().to_string());
    gate.open(1);
    await_that("it is answered", || metric(at, "overfall_service_seconds_count") == 1.0);
    assert_eq!(metric(at, r#"overfall_service_seconds_bucket{le="+Inf"}"#), 1.0);
    assert!(metric(at, "overfall_service_seconds_sum") > 0.0);
    assert!(metric(at, "overfall_wait_seconds_count") >= 1.0);
    assert!(metric(at, r#"overfall_worker_seconds_total{activity="handling"}"#) > 0.0);
    assert!(status(at)["service"]["count"] == 1);
}

#[test]
fn in_front_of_upstreams_it_is_for_a_place_there_that_clients_wait() {
    let server = web(|_| Response::text("here"));
    let balancer = balancer(&[server.local_addr()], Some(HttpConfig::default()));
    let admin = show(Arc::clone(&balancer));
    let at = admin.local_addr();
    for _ in 0..3 {
        assert_eq!(get(balancer.handle().local_addr(), "/").status, 200);
    }
    assert_eq!(metric(at, "overfall_line_wait_seconds_count"), 3.0);
    await_that("they are answered", || metric(at, "overfall_upstream_service_seconds_count") == 3.0);
    let status = status(at);
    assert_eq!(
        (&status["line"]["wait"]["count"], &status["line"]["service"]["count"]),
        (&3.into(), &3.into())
    );
}

#[test]
fn term_says_no_to_newcomers_and_serves_them_for_the_delay() {
    let args = ["serve", "--app", "http", "--shutdown-delay", "1h"];
    let (mut served, admin) = start_with("--admin", "admin on http://", &args);
    assert_eq!(get(admin, "/readyz").status, 200);
    served.signal(Signal::TERM);
    await_that("it says no", || get(admin, "/readyz").status == 503);
    assert_eq!(get(admin, "/readyz").body, "it is going to shut down\n");
    // Newcomers are served as ever, and kept.
    let mut client = connect(served.addr);
    for _ in 0..2 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut reply = String::new();
        while !reply.ends_with("Hello, client!") {
            let line = hear_some(&client);
            assert!(!line.is_empty() && !line.to_lowercase().contains("connection: close"), "{reply}{line}");
            reply.push_str(&line);
        }
    }
    // Other signals are heard meanwhile, and a second one ends it at once.
    await_that("they are counted", || served.counter("answered") == 2);
    served.signal(Signal::TERM);
    assert_eq!(served.wait().0, Some(128 + 15));
}

/// What has come of a reply.
fn hear_some(mut client: &TcpStream) -> String {
    let mut piece = [0; 1024];
    let length = client.read(&mut piece).expect("a reply");
    String::from_utf8_lossy(&piece[..length]).into_owned()
}

#[test]
fn after_the_delay_it_drains() {
    let mut command = overfall(&["serve", "--listen", "127.0.0.1:0", "--shutdown-delay", "200ms"]);
    command.args(["--log-format", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    assert!(out.read_line(&mut String::new()).unwrap() > 0, "it listens");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let said_at = |message: &str| {
        let found = lines.iter().find(|line| line["message"] == message).expect(&text);
        humantime::parse_rfc3339(found["timestamp"].as_str().unwrap()).unwrap()
    };
    let (from, to) = (said_at("everybody is served for 200ms more"), said_at("accepting nobody new"));
    assert!(to.duration_since(from).is_ok_and(|passed| passed.as_millis() >= 199), "{text}");
}

/// What the agent says to who sends this.
fn ask_agent(agent: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(agent);
    stream.write_all(bytes).expect("it reads");
    String::from_utf8(rest(&stream).expect("a line")).expect("text")
}

#[test]
fn the_agent_tells_how_much_it_can_take() {
    let (server, gate) = serve_lines(builder().workers(1).patience(BRIEF));
    let server = Arc::new(server);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let agent = admin::serve_agent(listener, Arc::clone(&server)).unwrap();
    let at = agent.local_addr();
    for sent in [&b""[..], b"backend\n"] {
        assert_eq!(ask_agent(at, sent), "up ready 100%\n");
    }
    // Its worker is held, so that nobody is served.
    let client = connect(server.local_addr());
    tell(&client, "block");
    gate.await_blocked(1);
    let refused = all_at_once(4, {
        let addr = server.local_addr();
        move |_| refused_with(addr)
    });
    assert!(refused.iter().all(Result::is_err), "{refused:?}");
    assert_eq!(ask_agent(at, b""), "up ready 1%\n");
    gate.open(1);
    assert_eq!(hear(&client), "unblocked");
    await_that("it can take all again", || ask_agent(at, b"") == "up ready 100%\n");
    server.announce_shutdown();
    assert_eq!(ask_agent(at, b""), "drain\n");
    server.shutdown();
    assert_eq!(ask_agent(at, b""), "drain\n");
}

/// HAProxy in front of a server, asked over its socket.
struct InFront {
    _haproxy: HaProxy,
    socket: TempFile,
}

impl InFront {
    /// None where it is not installed.
    fn start(server: SocketAddr, agent: SocketAddr) -> Option<Self> {
        let socket = TempFile::new("agent.sock");
        let config = format!(
            "global\n stats socket {}\ndefaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout \
             server 5s\nlisten app\n bind abns@overfall-{}\n server s {server} check inter 100ms agent-check \
             agent-addr {} agent-port {} agent-inter 100ms weight 100\n",
            socket.path(),
            std::process::id(),
            agent.ip(),
            agent.port(),
        );
        let in_front = Self { _haproxy: HaProxy::start(&config)?, socket };
        await_that("it runs", || in_front.column("status").is_some());
        Some(in_front)
    }

    /// What `show stat` has of the server in this column.
    fn column(&self, name: &str) -> Option<String> {
        let mut stream = std::os::unix::net::UnixStream::connect(self.socket.path()).ok()?;
        stream.write_all(b"show stat\n").ok()?;
        let table = std::io::read_to_string(stream).ok()?;
        let index = table.lines().next()?.split(',').position(|column| column == name)?;
        table
            .lines()
            .find_map(|line| line.strip_prefix("app,s,"))?
            .split(',')
            .nth(index - 2)
            .map(str::to_owned)
    }
}

#[test]
fn haproxy_drains_a_server_that_is_going_to_shut_down_and_takes_the_next_one() {
    let args = ["serve", "--app", "http", "--shutdown-delay", "1h"];
    let (served, agent) = start_with("--agent", "agent on ", &args);
    let Some(haproxy) = InFront::start(served.addr, agent) else { return };
    let is = |name: &str, wanted: &str| haproxy.column(name).is_some_and(|found| found == wanted);
    let begins = |name: &str, with: &str| haproxy.column(name).is_some_and(|found| found.starts_with(with));
    await_that("it is asked", || is("agent_status", "L7OK"));
    await_that("it is up", || is("status", "UP") && is("weight", "100"));
    served.signal(Signal::TERM);
    await_that("it is drained", || begins("status", "DRAIN"));
    served.signal(Signal::KILL);
    await_that("it is down", || begins("status", "DOWN"));
    // Only who says that it is ready again gets anything.
    let (addr, agent) = (served.addr.to_string(), agent.to_string());
    let _next = start_command(&["serve", "--app", "http", "--listen", &addr, "--agent", &agent]);
    await_that("it is up again", || is("status", "UP") && is("weight", "100"));
}

#[test]
fn a_browser_may_do_with_the_page_what_is_in_it_and_nothing_else() {
    let server = web(|_| Response::text(""));
    let admin = show(server);
    let page = get(admin.local_addr(), "/");
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    assert!(page.head.contains("content-type: text/html; charset=utf-8"), "{}", page.head);
    let Some(text) = shown_at(admin.local_addr()) else { return };
    assert!(text.contains(r#"<span id="state" class="state good">ready</span>"#), "{text}");
    assert!(text.contains("Answers per second") && text.contains("idle 100 %"), "{text}");
    assert!(text.contains("No call runs now."), "{text}");
}

/// What a browser makes of the page there after it has asked several times; none where there is no browser.
fn shown_at(addr: SocketAddr) -> Option<String> {
    let mut command = Command::new("chromium");
    let profile = format!("{}/chromium-{}", env!("CARGO_TARGET_TMPDIR"), addr.port());
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom"])
        .arg(format!("--user-data-dir={profile}"))
        .arg(format!("http://{addr}/"));
    let Ok(output) = command.output() else {
        eprintln!("SKIPPED: chromium is not installed; it is a package of Debian");
        return None;
    };
    // It may be in use still by what the browser has started.
    let _ = std::fs::remove_dir_all(profile);
    let text = String::from_utf8_lossy(&output.stdout);
    let (shown, _script) = text.split_once("<script>").expect("the page");
    Some(shown.to_owned())
}

/// What a browser shows where the page's questions are answered like this, by their number.
fn shown_for(answers: impl Fn(usize) -> Response + Send + Sync + 'static) -> Option<String> {
    let admin = show(web(|_| Response::text("")));
    let page = get(admin.local_addr(), "/").body;
    let asked = AtomicUsize::new(0);
    let server = web(move |request| match request.uri().path() {
        "/" => Response::new(page.clone()).header(header::CONTENT_TYPE, HTML),
        _ => answers(asked.fetch_add(1, SeqCst)),
    });
    shown_at(server.local_addr())
}

const HTML: http::HeaderValue = http::HeaderValue::from_static("text/html; charset=utf-8");

#[test]
fn the_page_shows_upstreams_that_are_up_and_down_and_what_they_answer() {
    let (good, bad) = (web(|_| Response::text("here")), web(|_| Response::text("here")));
    let balancer = balancer(&[good.local_addr(), bad.local_addr()], Some(HttpConfig::default()));
    let admin = show(Arc::clone(&balancer));
    let upstreams = || balancer.snapshot().upstreams;
    await_that("both are up", || upstreams().iter().all(|upstream| upstream.reached));
    drop(bad);
    await_that("one is down", || !upstreams()[1].up);
    let (to, over) = (balancer.handle().local_addr(), AtomicBool::new(false));
    let text = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(SeqCst) {
                assert_eq!(get(to, "/").status, 200);
            }
        });
        await_that("it is asked", || balancer.handle().metrics().answered > 0);
        let text = shown_at(admin.local_addr());
        over.store(true, SeqCst);
        text
    });
    let Some(text) = text else { return };
    let row = |addr, state: &str| format!("<td>{addr}</td><td><span class=\"state {state}</span></td>");
    assert!(text.contains(&row(good.local_addr(), "good\">up")), "{text}");
    assert!(text.contains(&row(upstreams()[1].addr, "bad\">down")), "{text}");
    assert!(text.contains("<h2>Limits of the upstreams</h2>"), "{text}");
    assert!(text.contains(r#"<p id="gone" class="notice gone" role="alert" hidden=""></p>"#), "{text}");
    let (_, rates) = text.split_once("<h2>Answers per second</h2><span class=\"value\">").unwrap();
    let rate: f64 = rates.split([' ', '<']).next().unwrap().parse().expect(rates);
    assert!(rate > 0.0, "{text}");
}

#[test]
fn the_page_shows_who_has_the_workers() {
    let (server, gate) = serve_slow();
    let admin = show(Arc::clone(&server));
    let mut client = connect(server.local_addr());
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    gate.await_blocked(1);
    let Some(text) = shown_at(admin.local_addr()) else { return };
    let client = client.local_addr().unwrap();
    let call = format!(r#"<td class="doing">GET /slow</td><td>handling</td><td>{client}</td>"#);
    assert!(text.contains(&call) && text.contains(r#"<p id="no-calls" class="quiet" hidden="">"#), "{text}");
    gate.open(1);
}

/// The status of a balancer before HTTP upstreams, to be changed.
fn status_of_a_balancer() -> Value {
    let upstream = web(|_| Response::text("here"));
    let balancer = balancer(&[upstream.local_addr()], Some(HttpConfig::default()));
    status(show(balancer).local_addr())
}

#[test]
fn upstreams_that_are_gone_leave_the_pages_charts_to_those_that_came() {
    let status = status_of_a_balancer();
    let shown = shown_for(move |number| {
        let mut status = status.clone();
        let mut upstreams = Vec::new();
        // Two deploys, each with as many as there are lines to be told apart, and then none that has a limit.
        for place in 0..6 {
            let mut upstream = status["upstreams"][0].clone();
            let name = format!("10.0.{}.{place}:80", number.min(2));
            (upstream["name"], upstream["addr"]) = (name.clone().into(), name.into());
            upstream["limit"] = if number == 1 { Value::Null } else { (40 + place).into() };
            upstreams.push(upstream);
        }
        status["upstreams"] = upstreams.into();
        status["uptime_seconds"] = number.into();
        status["metrics"]["answered"] = (100 * number).into();
        status["advice"] = serde_json::json!({ "text": "20 workers are wanted" });
        Response::new(status.to_string())
    });
    let Some(text) = shown else { return };
    let (_, chart) = text.split_once("<h2>Limits of the upstreams</h2>").expect(&text);
    let (chart, _) = chart.split_once("</section>").unwrap();
    for place in 0..6 {
        assert!(chart.contains(&format!("10.0.2.{place}:80 {}", 40 + place)), "{chart}");
    }
    assert!(!chart.contains("10.0.0."), "{chart}");
    assert_eq!(chart.matches("<path class=\"fourth\"").count(), 2, "one is drawn, one explains it: {chart}");
    assert!(text.contains("<h2>Answers per second</h2><span class=\"value\">100</span>"), "{text}");
    assert!(text.contains(r#"role="status">Advice: 20 workers are wanted.</p>"#), "{text}");
}

#[test]
fn a_server_that_is_gone_is_told_from_a_page_that_fails() {
    let status = status_of_a_balancer().to_string();
    let gone = shown_for(move |number| match number {
        0 => Response::new(status.clone()),
        _ => Response::text("").status(http::StatusCode::INTERNAL_SERVER_ERROR),
    });
    let Some(gone) = gone else { return };
    assert!(gone.contains("There is no answer since") && gone.contains(">no answer</span>"), "{gone}");
    let fails = shown_for(|_| Response::new("{}")).unwrap();
    assert!(fails.contains("This page cannot show what the server answers"), "{fails}");
    assert!(!fails.contains("There is no answer") && fails.contains(">not shown</span>"), "{fails}");
}
