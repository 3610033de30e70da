//! What the server says of itself: who has its workers, how long requests wait and take, and what would help.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::mpsc::channel,
    time::Duration,
};

use overfall::{
    CallState, Connection, Handle, Next, RunningCall, WorkersReport,
    balance::{self, Config},
    http::{self, Request, Response},
};
use parking_lot::Mutex;

use crate::support::*;

/// The only call that runs, once it is in this state.
fn only_call(handle: &Handle, state: CallState) -> RunningCall {
    let mut found = None;
    await_that("one call runs", || {
        let mut longest = handle.workers().longest;
        found = longest.pop().filter(|call| longest.is_empty() && call.state == state);
        found.is_some()
    });
    found.expect("it was found")
}

fn all_time(report: &WorkersReport) -> Duration {
    report.handling + report.reading + report.writing + report.idle
}

#[test]
fn a_blocked_handler_is_listed_with_its_client_and_with_what_it_does() {
    let (turnstile, gate) = turnstile();
    let handle = builder()
        .serve(move |connection: &mut Connection<'_>| {
            connection.describe("looking up \u{1b}[2J");
            turnstile.pass();
            connection.write_all(b"done")?;
            Ok(Next::Close)
        })
        .expect("it serves");
    assert_eq!(handle.workers().longest, []);
    let client = connect(handle.local_addr());
    tell(&client, "please");
    gate.await_blocked(1);
    let call = only_call(&handle, CallState::Handling);
    assert_eq!(call.client, client.local_addr().ok());
    assert_eq!(call.doing.as_deref(), Some(r"looking up \u{1b}[2J"));
    assert!(call.worker < 2);
    // It is known even of a client that has reset its connection.
    let addr = client.local_addr().ok();
    reset_on_close(&client);
    drop(client);
    assert_eq!(only_call(&handle, CallState::Handling).client, addr);
    assert!(only_call(&handle, CallState::Handling).running_for >= call.running_for);
    gate.open(1);
    await_that("nothing runs", || handle.workers().longest.is_empty());
}

#[test]
fn a_kept_connections_call_is_listed_as_well_and_says_nothing_of_the_one_before() {
    let (handle, gate) = serve_lines(builder());
    let client = connect(handle.local_addr());
    assert_eq!(ask(&client, "say hello"), "hello");
    await_that("it is parked", || handle.metrics().connections_parked == 1);
    tell(&client, "block");
    gate.await_blocked(1);
    let call = only_call(&handle, CallState::Handling);
    assert_eq!((call.client, call.doing), (client.local_addr().ok(), None));
    gate.open(1);
    assert_eq!(hear(&client), "unblocked");
}

#[test]
fn over_http_a_call_has_its_method_and_path_and_no_query() {
    let (turnstile, gate) = turnstile();
    let handle = http::serve(builder(), move |request: &Request<'_>| {
        let path = request.uri().path().len();
        turnstile.pass();
        Response::text(format!("{path}"))
    })
    .expect("it serves");
    let long = format!("/{}", "x".repeat(1000));
    for (target, expected) in [
        ("/slow?secret=1", "POST /slow".to_owned()),
        ("/b%20c", "POST /b%20c".to_owned()),
        (&long, format!("POST /{}…", "x".repeat(138))),
    ] {
        let mut client = connect(handle.local_addr());
        let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.write_all(head.as_bytes()).expect("it reads");
        gate.await_blocked(1);
        let call = only_call(&handle, CallState::Handling);
        assert_eq!((call.client, call.doing), (client.local_addr().ok(), Some(expected)));
        gate.open(1);
        assert!(rest(&client).expect("a reply").starts_with(b"HTTP/1.1 200"));
    }
}

#[test]
fn a_handler_that_waits_for_its_client_reads_or_writes() {
    let handle = builder()
        .serve(|connection: &mut Connection<'_>| {
            let (mut word, most) = ([0; 4], 1 << 20);
            connection.read_exact(&mut word)?;
            for _ in 0..if word == *b"many" { most } else { 0 } {
                connection.write_all(&[b'x'; 1024])?;
            }
            Ok(Next::Close)
        })
        .expect("it serves");
    let client = connect(handle.local_addr());
    (&client).write_all(b"m").expect("it reads");
    assert_eq!(only_call(&handle, CallState::Reading).client, client.local_addr().ok());
    let before = handle.workers();
    await_that("time passes", || handle.workers().reading > before.reading);
    assert_eq!(handle.workers().writing, Duration::ZERO);
    // It takes nothing of what it gets.
    (&client).write_all(b"any").expect("it reads");
    only_call(&handle, CallState::Writing);
    let before = handle.workers();
    await_that("time passes", || handle.workers().writing > before.writing);
    assert_eq!(handle.workers().reading, before.reading);
    drop(client);
}

#[test]
fn the_workers_time_is_all_told_and_only_grows() {
    let (handle, gate) = serve_lines(builder());
    let first = handle.workers();
    assert_eq!(first.count, 2);
    let client = connect(handle.local_addr());
    tell(&client, "block");
    gate.await_blocked(1);
    let held = handle.workers();
    let mut latest = held.clone();
    await_that("half a second of the two workers has passed", || {
        let now = handle.workers();
        let grows = |of: fn(&WorkersReport) -> Duration| of(&now) >= of(&latest);
        assert!(grows(|report| report.handling) && grows(|report| report.idle));
        assert!(grows(|report| report.cpu.unwrap_or_default()));
        latest = now;
        all_time(&latest) >= all_time(&held) + Duration::from_millis(500)
    });
    // One of the two is in its handler all the time, and the other has nothing to do.
    let (handling, idle) = (latest.handling - held.handling, latest.idle - held.idle);
    let half = (all_time(&latest) - all_time(&held)) / 2;
    assert!(handling >= half.mul_f64(0.9), "{handling:?} of {half:?}");
    assert!(idle <= half.mul_f64(1.1), "{idle:?} of {half:?}");
    assert!(handle.advice().is_none());
    gate.open(1);
    assert_eq!(hear(&client), "unblocked");
}

#[test]
fn as_many_service_times_are_counted_as_requests_were_answered_and_each_wait_once() {
    let (handle, gate) = serve_lines(builder());
    let (first, second) = (connect(handle.local_addr()), connect(handle.local_addr()));
    // Each request finds its connection parked, so that none is served in the call of another.
    let parked = |count| await_that("all are parked", || handle.metrics().connections_parked == count);
    for round in 0..10 {
        parked(2);
        assert_eq!(ask(&first, &format!("say {round}")), round.to_string());
        parked(2);
        assert_eq!(ask(&second, "state"), (round + 1).to_string());
    }
    // Both workers are held, so that a third waits.
    let third = connect(handle.local_addr());
    parked(3);
    assert_eq!(ask(&third, "state"), "1");
    parked(3);
    tell(&first, "block");
    tell(&second, "block");
    gate.await_blocked(2);
    tell(&third, "state");
    let held = handle.workers();
    await_that("it has waited", || {
        all_time(&handle.workers()) >= all_time(&held) + Duration::from_millis(200)
    });
    gate.open(2);
    assert_eq!(hear(&third), "2");
    assert_eq!((hear(&first), hear(&second)), ("unblocked".into(), "unblocked".into()));
    parked(3);
    let metrics = handle.metrics();
    assert_eq!((metrics.answered, metrics.service.count()), (24, 24));
    // The two that were blocked were with a worker for as long as the third has waited.
    assert!(metrics.service.sum() >= Duration::from_millis(200));
    // Those of three newcomers, who had nothing to ask yet, as well.
    assert!((24..=27).contains(&metrics.wait.count()), "{}", metrics.wait.count());
    let long = |buckets: &dyn Fn(Duration) -> bool| -> u64 {
        metrics.wait.buckets().filter(|(bound, _)| buckets(*bound)).map(|(_, count)| count).sum()
    };
    assert!(long(&|bound| bound > Duration::from_millis(25)) >= 1);
    assert!(metrics.wait_max >= Duration::from_millis(80), "{:?}", metrics.wait_max);
}

#[test]
fn a_balancers_workers_are_told_of_as_well() {
    let (upstream, gate) = serve_lines(builder());
    let config = Config {
        upstreams: vec![upstream.local_addr().to_string().parse().expect("an address")],
        ..Config::default()
    };
    let balancer = balance::serve(builder(), config).expect("it serves");
    let client = connect(balancer.handle().local_addr());
    tell(&client, "block");
    gate.await_blocked(1);
    // What waits for an upstream has no worker.
    await_that("nothing runs", || balancer.handle().workers().longest.is_empty());
    let report = balancer.handle().workers();
    assert_eq!((report.count, report.reading), (2, Duration::ZERO));
    assert!(report.idle > Duration::ZERO && report.handling > Duration::ZERO);
    assert!(upstream.workers().longest.len() == 1 && balancer.handle().advice().is_none());
    gate.open(1);
    assert_eq!(hear(&client), "unblocked");
}

/// An exchange that is over leaves the client's address known to the handler, even if it was a reset.
#[test]
fn a_handler_knows_its_clients_address_after_a_reset() {
    let (turnstile, gate) = turnstile();
    let (told, hears) = channel();
    let told = Mutex::new(told);
    let handle = builder()
        .serve(move |connection: &mut Connection<'_>| {
            turnstile.pass();
            let _ = told.lock().send(connection.peer_addr());
            Ok(Next::Close)
        })
        .expect("it serves");
    let client: TcpStream = connect(handle.local_addr());
    tell(&client, "please");
    gate.await_blocked(1);
    let addr = client.local_addr().expect("an address");
    reset_on_close(&client);
    drop(client);
    gate.open(1);
    let known: io::Result<_> = hears.recv_timeout(PATIENCE).expect("it is told");
    assert_eq!(known.expect("an address"), addr);
}

#[test]
fn usr1_shows_who_has_the_workers() {
    let mut served = serve(&["--app", "http", "--block", "1h", "--workers", "3"]);
    assert_eq!(served.counter("workers"), 3);
    let client = connect(served.addr);
    (&client).write_all(b"GET /slow?a=b HTTP/1.1\r\nHost: a\r\n\r\n").expect("it reads");
    let addr = client.local_addr().expect("an address");
    let is_listed = |line: &String| {
        let expected = format!(", {addr}, GET /slow");
        line.starts_with("longest_call             worker ") && line.ends_with(&expected)
    };
    await_that("the call is listed", || served.status().iter().any(is_listed));
    let status = served.status();
    let share = |name: &str| -> f64 {
        let line = status.iter().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.trim().parse().expect("a share")
    };
    let names = ["handling", "reading", "writing", "idle"].map(|name| format!("workers_{name}_percent"));
    let all: f64 = names.iter().map(|name| share(name)).sum();
    assert!((all - 100.0).abs() < 0.3, "{status:?}");
    assert!(share("workers_handling_percent") > 0.0 && share("workers_idle_percent") > 0.0, "{status:?}");
}
