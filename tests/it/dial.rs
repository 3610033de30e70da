//! Dialing: each kind of server in one call, and what the command makes of it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use overfall::dial::{Cancel, Class, Config, Outcome, Retry, dial, dial_with};

use crate::{support::*, temporary::TempFile};

const LONG: Duration = Duration::from_secs(3600);

/// Serves one connection with `behave`, and gives the address.
fn server(behave: impl FnOnce(std::net::TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || behave(listener.accept().unwrap().0));
    addr
}

/// Accepts in the kernel and says nothing, as long as it is kept.
fn silent() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn addr(listener: &TcpListener) -> String {
    listener.local_addr().unwrap().to_string()
}

fn class(outcome: &Outcome) -> Option<Class> {
    outcome.failure.as_ref().map(|failure| failure.class)
}

#[test]
fn each_target_has_its_own_outcome_in_the_order_given() {
    let live = builder().serve_handler(overfall::apps::Hello::default()).unwrap();
    let quiet = silent();
    let resetting = server(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
        reset_on_close(&stream);
    });
    let closing = server(|mut stream| drop(stream.read(&mut [0; 64])));
    let (go_on, slow_gate) = mpsc::channel();
    let slow = server(move |mut stream| {
        slow_gate.recv().unwrap();
        stream.write_all(b"slow").unwrap();
    });
    let targets = [
        live.local_addr().to_string(),
        nobody().to_string(),
        addr(&quiet),
        resetting.to_string(),
        closing.to_string(),
        slow.to_string(),
        "no-such-host.invalid:1".to_owned(),
    ];
    let config = Config { timeout: Duration::from_secs(2), ..Config::default() };
    let begun = Instant::now();
    // The slow server answers when all that can be known of the others is.
    let settled = |_, outcome: &Outcome| {
        if class(outcome) == Some(Class::Closed) {
            go_on.send(()).unwrap();
        }
    };
    let outcomes = dial_with(&targets, &config, &Cancel::new().unwrap(), &settled).unwrap();
    assert!(begun.elapsed() < PATIENCE);
    let classes: Vec<_> = outcomes.iter().map(class).collect();
    assert_eq!(
        classes[..6],
        [None, Some(Class::Refused), Some(Class::Timeout), Some(Class::Reset), Some(Class::Closed), None]
    );
    assert!(matches!(classes[6], Some(Class::Resolve | Class::Timeout)));
    assert!(outcomes.iter().map(|outcome| &outcome.target).eq(&targets));
    assert_eq!(outcomes[0].reply, b"Hello, client!");
    assert_eq!((outcomes[0].received, outcomes[0].attempts), (14, 1));
    assert_eq!(outcomes[0].address, Some(live.local_addr()));
    assert!(outcomes[0].first_byte.unwrap() <= outcomes[0].total);
    assert_eq!(outcomes[5].reply, b"slow");
}

#[test]
fn two_hundred_silent_targets_are_waited_for_at_once() {
    let quiet: Vec<_> = (0..200).map(|_| silent()).collect();
    let targets: Vec<_> = quiet.iter().map(addr).collect();
    let config = Config { timeout: Duration::from_millis(500), ..Config::default() };
    let begun = Instant::now();
    let outcomes = dial(&targets, &config).unwrap();
    // One after the other it would be 100 s.
    assert!(begun.elapsed() < Duration::from_secs(50));
    assert!(outcomes.iter().all(|outcome| class(outcome) == Some(Class::Timeout)));
}

#[test]
fn any_ends_without_waiting_for_the_silent() {
    let live = builder().serve_handler(overfall::apps::Hello::default()).unwrap();
    let quiet = silent();
    let targets = [addr(&quiet), live.local_addr().to_string(), addr(&quiet)];
    let config = Config { timeout: LONG, require: Some(1), ..Config::default() };
    let outcomes = dial(&targets, &config).unwrap();
    let classes: Vec<_> = outcomes.iter().map(class).collect();
    assert_eq!(classes, [Some(Class::Cancelled), None, Some(Class::Cancelled)]);
}

#[test]
fn a_number_that_cannot_be_reached_any_more_ends_it() {
    let quiet = silent();
    let targets = [addr(&quiet), nobody().to_string(), nobody().to_string()];
    let config = Config { timeout: LONG, require: Some(2), ..Config::default() };
    let outcomes = dial(&targets, &config).unwrap();
    assert_eq!(class(&outcomes[0]), Some(Class::Cancelled));
}

#[test]
fn a_dial_can_be_cancelled_while_it_waits_to_try_again() {
    let cancel = Cancel::new().unwrap();
    let canceller = cancel.clone();
    let retry = Some(Retry { give_up_after: LONG, interval: LONG });
    let config = Config { retry, ..Config::default() };
    let quiet = silent();
    let targets = [nobody().to_string(), addr(&quiet)];
    let dialing = thread::spawn(move || dial_with(&targets, &config, &cancel, &|_, _| {}).unwrap());
    // The silent one has been dialed, so the other has been tried or is about to be.
    let _held = quiet.accept().unwrap();
    canceller.cancel();
    let outcomes = dialing.join().unwrap();
    assert!(outcomes.iter().all(|outcome| class(outcome).is_some()));
    assert_eq!(class(&outcomes[1]), Some(Class::Cancelled));
}

#[test]
fn a_server_that_comes_up_late_is_caught_and_delays_nobody() {
    let late = nobody();
    let targets = [late.to_string(), "127.0.0.1:1".into()];
    let (refused, refusals) = mpsc::channel();
    let live = thread::spawn(move || {
        refusals.recv().unwrap();
        TcpListener::bind(late).unwrap()
    });
    let first = Config { concurrency: 1, connect_only: true, ..Config::default() };
    let outcomes = dial(&targets, &first).unwrap();
    assert!(outcomes.iter().all(|outcome| class(outcome) == Some(Class::Refused)));
    refused.send(()).unwrap();
    let retry = Some(Retry { give_up_after: PATIENCE, interval: Duration::from_millis(5) });
    // One thread, which no waiting target keeps.
    let config = Config { retry, require: Some(1), ..first };
    let outcomes = dial(&targets, &config).unwrap();
    assert_eq!(class(&outcomes[0]), None);
    assert!(matches!(class(&outcomes[1]), Some(Class::Refused | Class::Cancelled)));
    drop(live.join().unwrap());
}

#[test]
fn the_reply_must_begin_with_what_is_expected() {
    let live = builder().serve_handler(overfall::apps::Hello::default()).unwrap();
    let targets = [live.local_addr().to_string()];
    let expecting = |text: &str| {
        let config = Config { expect: Some(text.into()), ..Config::default() };
        class(&dial(&targets, &config).unwrap()[0])
    };
    assert_eq!(expecting("Hello, "), None);
    assert_eq!(expecting("Goodbye"), Some(Class::Unexpected));
    assert_eq!(expecting("Hello, client! And more"), Some(Class::Unexpected));
}

#[test]
fn a_name_with_several_addresses_is_tried_in_turn() {
    let Ok(only_v4) = TcpListener::bind("127.0.0.1:0") else { panic!("no loopback") };
    let port = only_v4.local_addr().unwrap().port();
    let config = Config { connect_only: true, ..Config::default() };
    let outcome = &dial(&[format!("localhost:{port}")], &config).unwrap()[0];
    assert_eq!(outcome.address, Some(only_v4.local_addr().unwrap()));
    assert!(outcome.resolve.is_some() && class(outcome).is_none());
}

#[test]
fn settings_out_of_range_are_named() {
    let targets = ["127.0.0.1:1".to_owned()];
    let error = |config: Config| dial(&targets, &config).unwrap_err().to_string();
    let require = Config { require: Some(5), ..Config::default() };
    assert_eq!(error(require), "require is 5; it may be 1 to 1, the number of targets");
    let concurrency = Config { concurrency: 0, ..Config::default() };
    assert_eq!(error(concurrency), "concurrency is 0; it may be 1 to 4096");
    let timeout = Config { timeout: Duration::ZERO, ..Config::default() };
    assert_eq!(error(timeout), "timeout is 0ns; it may be 1ms to 365 days");
    assert!(dial(&[], &Config::default()).unwrap().is_empty());
}

#[test]
fn the_table_and_the_status_say_how_it_went() {
    let served = serve(&[]);
    let up = served.addr.to_string();
    let down = nobody().to_string();
    let output = run(&["dial", &up]);
    assert_eq!(output.status.code(), Some(0));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains(&up) && table.contains(" ok ") && !table.contains('\x1b'), "{table}");

    let output = run(&["dial", &up, &down]);
    assert_eq!(output.status.code(), Some(1));
    let table = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<_> = table.lines().collect();
    assert!(rows[1].contains(&up) && rows[2].contains(&down) && rows[2].contains("refused"), "{table}");
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        format!("{down}: Connection refused (os error 111)\n")
    );

    let output = run(&["dial", "-q", "--require", "any", &up, &down]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.is_empty() && output.stderr.is_empty());

    let ran_out = run(&["dial", "-q", "--retry-for", "50ms", "--interval", "10ms", &down]);
    assert_eq!(ran_out.status.code(), Some(124));
}

#[test]
fn the_json_document_can_be_read_back() {
    let served = serve(&[]);
    let down = nobody().to_string();
    let output = run(&["dial", "--json", "--send", r"a\r\n", &served.addr.to_string(), &down]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["version"], 1);
    let [up, down_row] = &document["targets"].as_array().unwrap()[..] else { panic!("{document}") };
    assert_eq!((&up["ok"], &up["reply"]), (&true.into(), &"Hello, client!".into()));
    assert_eq!((&up["received_bytes"], &up["attempts"]), (&14.into(), &1.into()));
    assert!(up["error"].is_null() && up["connect_us"].is_u64() && up["first_byte_us"].is_u64());
    assert_eq!((&down_row["target"], &down_row["ok"]), (&down.into(), &false.into()));
    assert_eq!(down_row["error"]["class"], "refused");
    assert!(down_row["first_byte_us"].is_null());
}

#[test]
fn targets_come_from_a_file_too() {
    let served = serve(&[]);
    let file = TempFile::with(&format!("# ours\n\n  {} # the first\n{}\n", served.addr, served.addr));
    let path = file.path();
    let output = run(&["dial", "--file", path, &served.addr.to_string()]);
    assert_eq!(String::from_utf8(output.stdout).unwrap().matches(" ok ").count(), 3);
    file.write("localhost\n");
    let output = run(&["dial", "--file", path]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("line 1: \"localhost\" has no port"));
    file.write("# nothing\n");
    assert_eq!(run(&["dial", "--file", path]).status.code(), Some(2));
    let mut child = overfall(&["dial", "--file", "-"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{}\n", served.addr).as_bytes()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_command_runs_when_the_requirement_is_met_and_its_status_is_handed_on() {
    let served = serve(&[]);
    let up = served.addr.to_string();
    let output = run(&["dial", "-q", &up, "--", "sh", "-c", "echo ran; exit 7"]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(7), &b"ran\n"[..]));
    let output = run(&["dial", "-q", &nobody().to_string(), "--", "echo", "ran"]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b""[..]));
    let output = run(&["dial", "-q", &up, "--", "/no/such/program"]);
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("error: cannot run /no/such/program: "));
}

#[test]
fn wrong_usage_is_one_sentence() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "there is no target"),
        (&["localhost"], "\"localhost\" has no port"),
        (&["a:1", "b:2", "c:3", "--require", "5"], "--require is 5; it may be 1 to 3, the number of targets"),
        (&["a:1", "--require", "0"], "--require is 0; it may be 1 to 1"),
        (&["a:1", "--require", "some"], "'some' for '--require <all|any|N>'"),
        (&["a:1", "--timeout", "0s"], "--timeout is 0ns; it may be 1ms to 365 days"),
        (&["a:1", "--concurrency", "0"], "--concurrency is 0; it may be 1 to 4096"),
        (&["a:1", "--connect-only", "--expect", "x"], "'--expect <TEXT>'"),
        (&["a:1", "--interval", "1s"], "--retry-for <D>"),
        (&["--file", "/no/such/file"], "cannot read --file /no/such/file: No such file"),
    ];
    assert_wrong_usage(&["dial"], cases);
}
