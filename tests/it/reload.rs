//! Settings that change while the server runs.

use std::{io, time::Duration};

use overfall::{Builder, OnFull, Server};

use crate::support::*;

/// The settings of [`builder`], without an address.
fn settings() -> Builder {
    Server::builder().workers(2).patience(PATIENCE)
}

#[test]
fn an_idle_connection_expires_by_the_shorter_timeout() {
    let (server, _gate) = serve_lines(builder().idle_timeout(Duration::from_secs(3600)));
    let kept = connect(server.local_addr());
    assert_eq!(ask(&kept, "say here"), "here");
    await_that("it is parked", || server.metrics().connections_parked == 1);
    let names = server.reload(settings().idle_timeout(Duration::from_millis(1))).expect("they are right");
    assert!(names.is_empty(), "{names:?}");
    assert_eq!(rest(&kept), Ok(vec![]));
    assert_eq!(server.metrics().timed_out_idle, 1);
}

#[test]
fn each_timeout_counts_for_those_who_are_there() {
    let hour = Duration::from_secs(3600);
    let patient = || builder().first_byte_timeout(hour).idle_timeout(hour).io_timeout(hour);
    let (server, _gate) = serve_lines(patient());
    let (silent, half) = (connect(server.local_addr()), connect(server.local_addr()));
    io::Write::write_all(&mut &half, b"say").expect("it reads");
    await_that("both are parked", || server.metrics().connections_parked == 2);
    let brief = Duration::from_millis(1);
    server.reload(settings().idle_timeout(hour).first_byte_timeout(brief).io_timeout(brief)).expect("right");
    assert_eq!(rest(&silent), Ok(vec![]));
    assert_eq!(rest(&half), Ok(vec![]));
    let metrics = server.metrics();
    assert_eq!((metrics.timed_out_first_byte, metrics.timed_out_io), (1, 1));
}

#[test]
fn what_is_wrong_changes_nothing() {
    let (server, _gate) = serve_lines(builder().idle_timeout(Duration::from_secs(3600)));
    let kept = connect(server.local_addr());
    assert_eq!(ask(&kept, "say here"), "here");
    let wrong = settings().idle_timeout(Duration::from_millis(1)).refusal_budget(7.0);
    let error = server.reload(wrong).unwrap_err();
    assert_eq!(error.to_string(), "refusal_budget is 7; it may be 0 to 1, as a share of one CPU");
    assert_eq!(ask(&kept, "state"), "2");
    assert_eq!(server.metrics().timed_out_idle, 0);
}

#[test]
fn what_cannot_change_is_named_and_stays() {
    let (server, gate) = serve_lines(builder().queue(5));
    let elsewhere = settings().workers(1).queue(6).bind("127.0.0.2:0");
    assert_eq!(server.reload(elsewhere).expect("they are right"), ["workers", "queue", "bind"]);
    // Where it listens, in whatever words.
    let here = || settings().bind(server.local_addr()).queue(5);
    assert!(server.reload(here()).expect("they are right").is_empty());
    assert_eq!(server.reload(here().bind("127.0.0.1:0")).expect("they are right"), ["bind"]);
    assert!(server.reload(settings().bind("localhost:0").queue(1)).expect("they are right").is_empty());
    // It still has both workers.
    let clients = [connect(server.local_addr()), connect(server.local_addr())];
    clients.iter().for_each(|client| tell(client, "block"));
    gate.await_blocked(2);
    gate.open(2);
    assert_eq!(clients.each_ref().map(hear), ["unblocked", "unblocked"]);
}

#[test]
fn fewer_connections_may_be_open_or_more_again() {
    let (server, _gate) = serve_lines(builder().max_connections(20));
    let open = |count: usize| -> Vec<_> {
        (0..count)
            .map(|_| {
                let client = connect(server.local_addr());
                assert_eq!(ask(&client, "say here"), "here");
                client
            })
            .collect()
    };
    let first = open(10);
    await_that("all are parked", || server.metrics().connections_parked == 10);
    server.reload(settings().max_connections(4)).expect("they are right");
    // The newcomer has the longest idle give way until there are four.
    let second = open(1);
    await_that("there are four", || server.metrics().connections_open == 4);
    assert_eq!(server.metrics().evicted, 7);
    server.reload(settings().max_connections(40)).expect("they are right");
    let third = open(16);
    assert_eq!(server.metrics().connections_open, 20);
    drop((first, second, third));
    let limit = usize::try_from(raise_descriptor_limit()).unwrap_or(usize::MAX);
    // Where files are limited.
    if limit <= 16_000_000 {
        let too_many = server.reload(settings().max_connections(limit)).expect("they are right");
        assert_eq!(too_many, ["max_connections"]);
    }
}

#[test]
fn a_queue_may_shrink_and_its_policy_change() {
    let (server, gate) = serve_lines(builder().workers(1).queue(8).on_full(OnFull::Wait));
    let busy = connect(server.local_addr());
    tell(&busy, "block");
    gate.await_blocked(1);
    server.reload(settings().workers(1).queue(1).refusal_budget(1.0)).expect("they are right");
    let first = connect(server.local_addr());
    tell(&first, "say served");
    await_that("it waits", || server.metrics().queue_depth == 1);
    // Its place in the queue is the only one, so that after a while others are told no.
    refused_with(server.local_addr()).expect_err("a reset").to_string();
    assert!(server.metrics().refused_queue_full > 0);
    server.reload(settings().workers(1).queue(8)).expect("they are right");
    let second = connect(server.local_addr());
    tell(&second, "say too");
    await_that("it waits as well", || server.metrics().queue_depth == 2);
    gate.open(1);
    assert_eq!([&busy, &first, &second].map(hear), ["unblocked", "served", "too"]);
}
