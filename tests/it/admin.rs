//! What operators and their machines are told of a running server.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener},
    process::{Command, Stdio},
    sync::Arc,
};

use overfall::{
    Handle, Server,
    admin::{self, Watched},
    balance::{self, Config, HttpConfig},
    http::{self, Request, Response},
};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::*;

/// An answer over HTTP.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn ask_admin(admin: SocketAddr, request: &str) -> Answer {
    let request = format!("{request} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
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
        eprintln!("skipped: promtool is not installed; it comes with Debian's prometheus");
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
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
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
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = reserved.local_addr().unwrap();
    drop(reserved);
    let balancer = balancer(&[addr], None);
    let admin = show(balancer);
    let at = admin.local_addr();
    await_that("it is down", || get(at, "/readyz").status == 503);
    assert_eq!(get(at, "/readyz").body, "no upstream is up\n");
    assert_eq!((get(at, "/healthz").status, &status(at)["state"]), (200, &"no_upstream".into()));
    let down = format!(r#"overfall_upstream_up{{upstream="{addr}",addr="{addr}"}}"#);
    assert_eq!(metric(at, &down), 0.0);
    let _upstream = Server::builder().bind(addr).serve(lines().0).unwrap();
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
    assert!(std::net::TcpStream::connect(admin).is_err());
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
