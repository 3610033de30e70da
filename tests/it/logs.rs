//! What is logged and printed, for people and for machines.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::*;

#[test]
fn logs_for_machines_have_an_object_on_each_line() {
    let mut command = overfall(&["balance", "--listen", "127.0.0.1:0", "--log-format", "json"]);
    command.args(["--io-timeout", "90s", "--check-send", "PING\\r\\n", "127.0.0.1:1=3"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    assert!(out.read_line(&mut String::new()).unwrap() > 0, "it listens");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for line in &lines {
        let time = humantime::parse_rfc3339(line["timestamp"].as_str().unwrap());
        assert!(time.is_ok() && line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    let said = |message: &str| {
        let found = lines.iter().find(|line| line["message"] == message);
        found.unwrap_or_else(|| panic!("{message}: {text}"))
    };
    // Numbers are numbers, and times are as they are given.
    assert_eq!(said("settings in force")["io_timeout"], "1m30s");
    assert_eq!(said("balancing")["rise"], 2);
    assert_eq!(said("balancing")["upstreams"], "127.0.0.1:1=3");
    assert_eq!(said("balancing")["check_send"], "PING\\r\\n");
    assert_eq!(said("shutting down; a second signal ends it at once")["signal"], "SIGTERM");
    // What is not set is a word as well, not a gap.
    let mut child = overfall(&["balance", "--listen", "127.0.0.1:0", "127.0.0.1:1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    assert!(out.read_line(&mut String::new()).unwrap() > 0, "it listens");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let text = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert!(text.contains(r#"check_send="nothing" check_expect="a connection""#), "{text}");
    assert_wrong_usage(&["serve"], &[(&["--log-format", "xml"], "[possible values: text, json]")]);
}

#[test]
fn prints_of_the_counters_are_told_apart_by_their_time() {
    let mut served = serve(&[]);
    served.counter("accepted");
    served.signal(Signal::TERM);
    let (_, text) = served.wait();
    // The last one is whole, and begins with a line and the time.
    let (line, rest) = text.split_once('\n').unwrap();
    let (dashes, time) = line.split_once(' ').unwrap();
    assert!(dashes.chars().all(|c| c == '-') && humantime::parse_rfc3339(time).is_ok(), "{line}");
    assert!(rest.starts_with("output_dropped "), "{rest}");
}
