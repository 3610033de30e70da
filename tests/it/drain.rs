//! Shutting down.

use std::{
    io::{Read, Write},
    iter,
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use overfall::{
    OnFull, Server,
    baseline::{self, Bound},
};
use rustix::process::Signal;

use crate::support::*;

#[test]
fn what_is_in_the_queue_and_in_the_backlog_is_finished() {
    let (handle, gate) = serve_lines(builder().workers(1).queue(2).on_full(OnFull::Wait));
    // The worker has nobody else's time for those who come after the first.
    let ask = || {
        let client = connect(handle.local_addr());
        tell(&client, "block");
        client
    };
    let first = ask();
    gate.await_blocked(1);
    let clients: Vec<_> = iter::once(first).chain(iter::repeat_with(ask).take(9)).collect();
    await_that("the queue is full", || handle.metrics().queue_depth == 2);
    handle.shutdown();
    gate.open(10);
    assert!(clients.iter().all(|client| hear(client) == "unblocked"));
    handle.join().unwrap();
    assert_eq!(handle.metrics().accepted, 10);
    assert!(std::net::TcpStream::connect(handle.local_addr()).is_err());
}

#[test]
fn idle_connections_are_closed_and_half_a_request_is_finished() {
    let (handle, _gate) = serve_lines(builder());
    let idle = connect(handle.local_addr());
    let silent = connect(handle.local_addr());
    let mut half = connect(handle.local_addr());
    assert_eq!(ask(&idle, "say 1"), "1");
    assert_eq!(ask(&half, "say 1"), "1");
    half.write_all(b"say half and").unwrap();
    await_that("all are parked", || handle.metrics().connections_parked == 3);
    handle.shutdown();
    assert_eq!(rest(&idle).unwrap(), b"");
    assert_eq!(rest(&silent).unwrap(), b"");
    assert_eq!(ask(&half, " half"), "half and half");
    assert_eq!(rest(&half).unwrap(), b"");
    handle.join().unwrap();
}

#[test]
fn requests_of_parked_connections_that_have_come_are_answered() {
    let (handle, gate) = serve_lines(builder().workers(1));
    let clients: Vec<_> = (0..10).map(|_| connect(handle.local_addr())).collect();
    clients.iter().for_each(|client| assert_eq!(ask(client, "say 1"), "1"));
    tell(&clients[0], "block");
    gate.await_blocked(1);
    clients[1..].iter().for_each(|client| tell(client, "say 2"));
    handle.shutdown();
    gate.open(1);
    assert_eq!(hear(&clients[0]), "unblocked");
    clients[1..].iter().for_each(|client| assert_eq!(hear(client), "2"));
    handle.join().unwrap();
}

#[test]
fn a_stuck_handler_is_cut_at_the_drain_timeout() {
    let (handle, gate) = serve_lines(builder().workers(1).queue(1).drain_timeout(Duration::from_millis(100)));
    let stuck = connect(handle.local_addr());
    tell(&stuck, "block");
    gate.await_blocked(1);
    let queued = connect(handle.local_addr());
    await_that("the second waits", || handle.metrics().queue_depth == 1);
    handle.shutdown();
    // The client hears of the end although the handler goes on.
    assert_eq!(rest(&stuck), Err(std::io::ErrorKind::ConnectionReset));
    let _ = rest(&queued);
    let error = handle.join().unwrap_err().to_string();
    assert_eq!(error, "connections still open at the drain timeout of 100ms: 2");
    assert_eq!(handle.metrics().cut, 2);
    // It says so again.
    assert_eq!(handle.join().unwrap_err().to_string(), error);
    gate.open(1);
}

#[test]
fn dropping_the_handle_shuts_down() {
    let (handle, _gate) = serve_lines(builder());
    let addr = handle.local_addr();
    let client = connect(addr);
    assert_eq!(ask(&client, "say 1"), "1");
    drop(handle);
    assert_eq!(rest(&client).unwrap(), b"");
    assert!(std::net::TcpStream::connect(addr).is_err());
}

#[test]
fn several_may_join() {
    let (handle, _gate) = serve_lines(builder());
    thread::scope(|scope| {
        let joined: Vec<_> = (0..3).map(|_| scope.spawn(|| handle.join())).collect();
        handle.shutdown();
        joined.into_iter().for_each(|joined| joined.join().unwrap().unwrap());
    });
}

#[test]
fn a_server_takes_listeners_and_addresses_of_both_families() {
    let given = TcpListener::bind("127.0.0.1:0").unwrap();
    let given_addr = given.local_addr().unwrap();
    let builder = Server::builder().workers(1).from_listener(given).bind("127.0.0.1:0");
    let (handle, _gate) = match std::net::TcpListener::bind("[::1]:0") {
        Ok(_) => serve_lines(builder.bind("[::1]:0")),
        Err(error) => {
            eprintln!("SKIPPED: the IPv6 part, since this machine has none: {error}");
            serve_lines(builder)
        }
    };
    assert_eq!(handle.local_addr(), given_addr);
    for &addr in handle.local_addrs() {
        assert_eq!(ask(&connect(addr), &format!("say {addr}")), addr.to_string());
    }
}

#[test]
fn who_waits_at_a_shared_listener_is_left_to_the_next_server() {
    let given = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = given.local_addr().unwrap();
    let settings = || Server::builder().workers(1).queue(1).patience(PATIENCE);
    let (first, gate) = serve_lines(settings().from_shared_listener(given.try_clone().unwrap()));
    let clients = [connect(addr), connect(addr)];
    clients.iter().for_each(|client| tell(client, "block"));
    gate.await_blocked(1);
    // A refusal is an overload, in which the backlog is kept short.
    await_that("somebody is refused", || {
        // A reset may come before it knows that it is connected, and where the backlog is full nothing does.
        let _ = TcpStream::connect_timeout(&addr, BRIEF);
        first.metrics().refused_queue_full > 0
    });
    first.shutdown();
    // It has left the listener, and the backlog is as long as before: all of these have a place.
    await_that("it accepts no more", || first.listeners().is_err());
    let waiting: Vec<_> = (0..50).map(|_| connect(addr)).collect();
    waiting.iter().for_each(|client| tell(client, "say later"));
    gate.open(2);
    assert!(clients.iter().all(|client| hear(client) == "unblocked"));
    first.join().unwrap();
    let (second, _gate) = serve_lines(settings().queue(100).from_listener(given));
    assert!(waiting.iter().all(|client| hear(client) == "later"));
    drop(second);
}

#[test]
fn a_server_hands_over_and_the_next_one_takes_its_place() {
    let (first, _gate) = serve_lines(builder());
    let kept = connect(first.local_addr());
    assert_eq!(ask(&kept, "say 1"), "1");
    let next = first.listeners().unwrap().remove(0);
    first.share_listeners();
    first.shutdown();
    first.join().unwrap();
    assert_eq!(rest(&kept).unwrap(), b"");
    assert!(first.listeners().is_err(), "it is closed");
    let waiting = connect(first.local_addr());
    let settings = Server::builder().workers(1).queue(1).on_full(OnFull::Wait);
    let (second, gate) = serve_lines(settings.from_shared_listener(next));
    assert_eq!(second.local_addr(), first.local_addr());
    assert_eq!(ask(&waiting, "say 2"), "2");
    // What it owns now it serves to the last.
    second.own_listeners();
    let clients: Vec<_> = (0..10).map(|_| connect(second.local_addr())).collect();
    clients.iter().for_each(|client| tell(client, "block"));
    gate.await_blocked(1);
    second.shutdown();
    gate.open(10);
    assert!(clients.iter().all(|client| hear(client) == "unblocked"));
}

#[test]
fn a_server_responds_whatever_its_handlers_do_until_it_has_ended() {
    for bound in [None, Some(Bound::None), Some(Bound::Workers)] {
        let (handler, gate) = lines();
        let builder = builder().workers(1);
        let handle = match bound {
            None => builder.serve_handler(handler),
            Some(bound) => baseline::serve(builder, bound, handler),
        };
        let handle = handle.unwrap();
        let client = connect(handle.local_addr());
        tell(&client, "block");
        gate.await_blocked(1);
        assert!(handle.responds(PATIENCE), "{bound:?}");
        gate.open(1);
        assert_eq!(hear(&client), "unblocked");
        drop(client);
        handle.shutdown();
        handle.join().unwrap();
        assert!(!handle.responds(BRIEF), "{bound:?}");
    }
}

#[test]
fn term_drains_and_ends_with_status_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut served = serve(&["--app", "echo"]);
        let client = connect(served.addr);
        assert_eq!(ask(&client, "hello"), "hello");
        served.signal(signal);
        assert_eq!(rest(&client).unwrap(), b"");
        let (status, counters) = served.wait();
        assert_eq!(status, Some(0));
        assert!(counters.contains("accepted                 1\n"), "{counters}");
    }
}

#[test]
fn a_stuck_request_ends_with_status_1() {
    let mut served = serve(&["--workers", "1", "--block", "1h", "--drain-timeout", "100ms"]);
    let mut client = connect(served.addr);
    client.write_all(b"hello").unwrap();
    while served.counter("busy_workers") == 0 {}
    served.signal(Signal::TERM);
    let _ = client.read(&mut [0]);
    let (status, counters) = served.wait();
    assert_eq!(status, Some(1));
    assert!(counters.contains("cut                      1\n"), "{counters}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut served = serve(&["--workers", "1", "--block", "1h", "--drain-timeout", "1h"]);
    let mut client = connect(served.addr);
    client.write_all(b"hello").unwrap();
    while served.counter("busy_workers") == 0 {}
    served.signal(Signal::TERM);
    // It has understood the first when it accepts no more.
    await_that("it drains", || std::net::TcpStream::connect(served.addr).is_err());
    served.signal(Signal::TERM);
    assert_eq!(served.wait().0, Some(128 + 15));
}

#[test]
fn connections_that_linger_or_stall_do_not_hold_up_the_end() {
    // The client has its reply and stays, with input that nobody read.
    let handle = builder().serve_handler(overfall::apps::Hello::default()).unwrap();
    let mut lingering = connect(handle.local_addr());
    lingering.write_all(&[b'x'; 64 * 1024]).unwrap();
    assert_eq!(lingering.read(&mut [0; 14]).unwrap(), 14);
    handle.shutdown();
    handle.join().unwrap();

    // The client never takes the rest of its reply: its timeout ends it, not the drain's.
    let (handle, _gate) = serve_lines(builder().workers(1).io_timeout(Duration::from_millis(200)));
    let stalled = connect(handle.local_addr());
    tell(&stalled, &["big 200000"; 200].join("\n"));
    await_that("it is parked", || handle.metrics().connections_parked == 1);
    handle.shutdown();
    handle.join().unwrap();
    assert_eq!(handle.metrics().timed_out_io, 1);
}

#[test]
fn silent_clients_do_not_hold_up_the_end() {
    // One is parked; the others wait in the backlog until that has given way.
    let (handle, _gate) = serve_lines(builder().max_connections(1).on_full(OnFull::Wait));
    let silent: Vec<_> = (0..5).map(|_| connect(handle.local_addr())).collect();
    handle.shutdown();
    handle.join().unwrap();
    silent.iter().for_each(|client| assert_eq!(rest(client).unwrap(), b""));
}

#[test]
fn a_request_that_is_on_its_way_is_answered() {
    // For those connected, the time from accept to the first byte is shorter than the grace.
    let handle = builder()
        .first_byte_timeout(Duration::from_secs(3600))
        .serve_handler(overfall::apps::Hello::default())
        .unwrap();
    let mut clients: Vec<_> = (0..20).map(|_| connect(handle.local_addr())).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"hello").unwrap());
    handle.shutdown();
    clients.iter().for_each(|client| assert_eq!(rest(client).unwrap(), b"Hello, client!"));
    handle.join().unwrap();
}

#[test]
fn one_that_lingers_and_goes_on_sending_is_no_endless_loop() {
    let handle = builder().workers(1).serve_handler(overfall::apps::Hello::default()).unwrap();
    let mut client = connect(handle.local_addr());
    client.write_all(&[b'x'; 64 * 1024]).unwrap();
    assert_eq!(client.read(&mut [0; 14]).unwrap(), 14);
    handle.shutdown();
    // Until it is closed, long before the drain timeout.
    while client.write_all(b"x").is_ok() {
        thread::park_timeout(Duration::from_millis(20));
    }
    handle.join().unwrap();
}
