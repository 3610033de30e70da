//! What becomes of those that do not fit.

use std::{
    borrow::Cow,
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use overfall::{Connection, Handler, Next, OnFull, Refusal};

use crate::support::*;

/// Lines, with a text for the refused.
struct Polite(Lines);

impl Handler for Polite {
    type State = usize;

    fn open(&self, connection: &mut Connection<'_>) -> io::Result<usize> {
        self.0.open(connection)
    }

    fn ready(&self, connection: &mut Connection<'_>, state: &mut usize) -> io::Result<Next> {
        self.0.ready(connection, state)
    }

    fn refusal(&self, why: Refusal) -> Cow<'static, [u8]> {
        format!("sorry: {why:?}\n").into_bytes().into()
    }
}

#[test]
fn three_hundred_at_once_all_get_their_reply_with_the_default_settings() {
    let served = serve(&[]);
    let addr = served.addr;
    for reply in all_at_once(300, move |_| exchange(addr, b"Hello, server!")) {
        assert_eq!(reply.unwrap(), b"Hello, client!");
    }
}

#[test]
fn the_refused_get_a_reset_where_there_is_no_text() {
    let (handle, gate) = serve_lines(builder().workers(1).queue(1));
    let admitted = [connect(handle.local_addr()), connect(handle.local_addr())];
    tell(&admitted[0], "block");
    gate.await_blocked(1);
    tell(&admitted[1], "say second");
    await_that("the second waits", || handle.metrics().queue_depth == 1);
    for _ in 0..10 {
        assert_eq!(refused_with(handle.local_addr()), Err(io::ErrorKind::ConnectionReset));
    }
    gate.open(1);
    assert_eq!(hear(&admitted[0]), "unblocked");
    assert_eq!(hear(&admitted[1]), "second");
    let metrics = handle.metrics();
    assert_eq!((metrics.accepted, metrics.refused_queue_full, metrics.queue_highest), (2, 10, 1));
}

#[test]
fn a_refusal_is_not_lost_to_what_the_client_sent() {
    let (handler, gate) = lines();
    let handle = builder().workers(1).queue(1).serve_handler(Polite(handler)).unwrap();
    let admitted = [connect(handle.local_addr()), connect(handle.local_addr())];
    tell(&admitted[0], "block");
    gate.await_blocked(1);
    tell(&admitted[1], "say second");
    await_that("the second waits", || handle.metrics().queue_depth == 1);
    let is_told_whatever_it_sends = |send: &dyn Fn(TcpStream) -> io::Result<TcpStream>| {
        // The server waits two seconds for what comes; a client that was held up for as long comes again.
        await_that("a client is in time", || {
            let began = Instant::now();
            let told = send(connect(handle.local_addr())).map_err(|error| error.kind());
            let told = told.and_then(|client| rest(&client));
            let in_time = began.elapsed() < Duration::from_secs(1);
            assert!(!in_time || told == Ok(b"sorry: QueueFull\n".to_vec()), "{told:?}");
            in_time
        });
    };
    is_told_whatever_it_sends(&|mut client| client.write_all(&[b'x'; 60_000]).map(|()| client));
    // A client that sends after it was refused has its text too.
    is_told_whatever_it_sends(&|mut client| {
        client.peek(&mut [0])?;
        client.write_all(b"say hello\n").map(|()| client)
    });
    gate.open(1);
}

#[test]
fn those_who_wait_are_all_answered() {
    let (handle, gate) = serve_lines(builder().workers(1).queue(1).on_full(OnFull::Wait));
    let clients: Vec<_> = (0..20).map(|_| connect(handle.local_addr())).collect();
    clients.iter().for_each(|client| tell(client, "block"));
    for _ in &clients {
        gate.await_blocked(1);
        gate.open(1);
    }
    assert!(clients.iter().all(|client| hear(client) == "unblocked"));
    let metrics = handle.metrics();
    assert_eq!((metrics.accepted, metrics.refused_queue_full), (20, 0));
    assert!(metrics.queue_highest <= 1);
}

#[test]
fn the_longest_idle_connection_gives_way_to_a_newcomer() {
    let (handle, _gate) = serve_lines(builder().max_connections(3));
    let clients: Vec<_> = (0..3).map(|_| connect(handle.local_addr())).collect();
    for client in [1, 0, 2, 1] {
        assert_eq!(ask(&clients[client], "say here"), "here");
        await_that("it is parked", || {
            handle.metrics().connections_parked == handle.metrics().connections_open
        });
    }
    let newcomer = connect(handle.local_addr());
    assert_eq!(ask(&newcomer, "say new"), "new");
    assert_eq!(rest(&clients[0]).unwrap(), b"");
    assert_eq!(ask(&clients[2], "say still here"), "still here");
    let metrics = handle.metrics();
    assert_eq!((metrics.evicted, metrics.connections_open), (1, 3));
}

#[test]
fn silent_connections_give_way_too() {
    let (handle, _gate) = serve_lines(builder().max_connections(2));
    let silent: Vec<_> = (0..2).map(|_| connect(handle.local_addr())).collect();
    await_that("both are parked", || handle.metrics().connections_parked == 2);
    assert_eq!(ask(&connect(handle.local_addr()), "say new"), "new");
    assert_eq!(rest(&silent[0]).unwrap(), b"");
}

#[test]
fn busy_connections_do_not_give_way() {
    let (handle, gate) = serve_lines(builder().workers(3).max_connections(2).patience(BRIEF));
    let clients: Vec<_> = (0..2).map(|_| connect(handle.local_addr())).collect();
    clients.iter().for_each(|client| tell(client, "block"));
    gate.await_blocked(2);
    assert_eq!(refused_with(handle.local_addr()), Err(io::ErrorKind::ConnectionReset));
    assert_eq!(handle.metrics().refused_connections_full, 1);
    gate.open(2);
    assert!(clients.iter().all(|client| hear(client) == "unblocked"));
}

#[test]
fn half_a_request_does_not_give_way() {
    let (handle, _gate) = serve_lines(builder().max_connections(1).on_full(OnFull::Wait));
    let client = connect(handle.local_addr());
    (&client).write_all(b"say 1\nsay").unwrap();
    assert_eq!(hear(&client), "1");
    await_that("it is parked", || handle.metrics().connections_parked == 1);
    let newcomer = connect(handle.local_addr());
    tell(&newcomer, "say new");
    assert_eq!(ask(&client, " 2"), "2");
    assert_eq!(hear(&newcomer), "new");
}

#[test]
fn every_limit_works_at_its_edge() {
    let builder = builder().workers(1).queue(1).backlog(1).max_connections(1).on_full(OnFull::Wait);
    let (handle, _gate) = serve_lines(builder);
    let addr = handle.local_addr();
    // A client whose request is late may have to give way, and then comes again.
    let client = move |_| {
        while exchange(addr, b"say here\n").ok().as_deref() != Some(b"here\n") {}
    };
    all_at_once(8, client);
    assert!(handle.metrics().answered >= 8);
}

#[test]
fn a_burst_is_no_overload() {
    // Far more than the queue holds, but soon over.
    let handle = builder().workers(1).queue(1).serve_handler(overfall::apps::Hello::default()).unwrap();
    let addr = handle.local_addr();
    for reply in all_at_once(50, move |_| exchange(addr, b"Hello, server!")) {
        assert_eq!(reply.unwrap(), b"Hello, client!");
    }
}

#[test]
fn the_command_sends_its_busy_reply() {
    let served = serve(&["--workers", "1", "--queue", "1", "--block", "3s", "--busy-reply", r"busy\r\n"]);
    let addr = served.addr;
    let mut replies = all_at_once(8, move |_| exchange(addr, b"Hello, server!").unwrap());
    replies.sort();
    let (answered, refused) = replies.split_at(replies.iter().filter(|reply| reply[0] == b'H').count());
    assert!(answered.iter().all(|reply| reply == b"Hello, client!"));
    assert!(refused.iter().all(|reply| reply == b"busy\r\n"));
    assert!(!refused.is_empty() && !answered.is_empty());
}

#[test]
fn at_the_limit_of_connections_waiting_refuses_nobody() {
    let builder = builder().max_connections(4).on_full(OnFull::Wait);
    let (handle, _gate) = serve_lines(builder);
    let addr = handle.local_addr();
    // Kept connections that are idle for moments only, more than may be open. One that gives way
    // comes again; none is refused.
    all_at_once(8, move |_| {
        let mut answered = 0;
        while answered < 50 {
            let client = connect(addr);
            while answered < 50 && (&client).write_all(b"say here\n").is_ok() {
                let mut reply = [0; 5];
                if (&client).read_exact(&mut reply).is_err() {
                    break;
                }
                answered += 1;
            }
        }
    });
    let metrics = handle.metrics();
    assert_eq!((metrics.refused_connections_full, metrics.refused_queue_full), (0, 0));
}

#[test]
fn one_after_the_other_gets_the_only_place() {
    let (handle, _gate) = serve_lines(builder().max_connections(1));
    // Each stays when it has its reply, and gives way to the next.
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let client = connect(handle.local_addr());
            assert_eq!(ask(&client, "say here"), "here");
            client
        })
        .collect();
    drop(clients);
    assert_eq!(handle.metrics().refused_connections_full, 0);
    assert_eq!(handle.metrics().evicted, 39);
}

#[test]
fn no_listener_starves_another() {
    let builder = builder().bind("127.0.0.1:0").workers(1).queue(1).on_full(OnFull::Wait);
    let (handle, gate) = serve_lines(builder);
    let [crowded, quiet] = *handle.local_addrs() else { panic!("two listeners") };
    let crowd: Vec<_> = (0..30).map(|_| connect(crowded)).collect();
    crowd.iter().for_each(|client| tell(client, "block"));
    gate.await_blocked(1);
    await_that("the queue is full", || handle.metrics().queue_depth == 1);
    let alone = connect(quiet);
    tell(&alone, "say quiet");
    // Long before the crowd is through.
    for _ in 0..4 {
        gate.open(1);
        gate.await_blocked(1);
    }
    assert_eq!(hear(&alone), "quiet");
    gate.open(30);
}
