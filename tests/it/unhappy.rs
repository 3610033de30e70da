//! Clients that misbehave and handlers that fail. None holds a worker, none ends a loop.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use overfall::{Connection, Metrics, Next, apps::Hello};
use rustix::net::sockopt;

use crate::support::*;

const SOON: Duration = Duration::from_millis(50);

fn reset(stream: TcpStream) {
    reset_on_close(&stream);
}

#[test]
fn a_panic_closes_its_connection_and_costs_no_worker() {
    let (handle, _gate) = serve_lines(builder().workers(1));
    for _ in 0..3 {
        let client = connect(handle.local_addr());
        tell(&client, "panic");
        assert_eq!(rest(&client).unwrap(), b"");
    }
    assert_eq!(ask(&connect(handle.local_addr()), "say alive"), "alive");
    assert_eq!(handle.metrics().panics, 3);
}

#[test]
fn a_panic_while_the_state_is_dropped_costs_no_worker() {
    struct Grenade;
    impl Drop for Grenade {
        fn drop(&mut self) {
            panic!("as told");
        }
    }
    struct Thrower;
    impl overfall::Handler for Thrower {
        type State = Grenade;
        fn open(&self, _: &mut Connection<'_>) -> io::Result<Grenade> {
            Ok(Grenade)
        }
        fn ready(&self, connection: &mut Connection<'_>, _: &mut Grenade) -> io::Result<Next> {
            connection.write_all(b"ok")?;
            Ok(Next::Close)
        }
    }
    let handle = builder().workers(1).serve_handler(Thrower).unwrap();
    for _ in 0..3 {
        assert_eq!(exchange(handle.local_addr(), b"x").unwrap(), b"ok");
    }
    await_that("three panics", || handle.metrics().panics == 3 && handle.metrics().connections_open == 0);
}

#[test]
fn an_error_closes_its_connection_and_is_counted() {
    let (handle, _gate) = serve_lines(builder().workers(1));
    let client = connect(handle.local_addr());
    tell(&client, "fail");
    assert_eq!(rest(&client).unwrap(), b"");
    assert_eq!(ask(&connect(handle.local_addr()), "say alive"), "alive");
    assert_eq!(handle.metrics().failed, 1);
}

#[test]
fn a_reply_is_not_lost_to_unread_input() {
    let handle = builder().serve_handler(Hello::default()).unwrap();
    for _ in 0..20 {
        let mut client = connect(handle.local_addr());
        // Where 1 KiB is read.
        client.write_all(&[b'x'; 64 * 1024]).unwrap();
        assert_eq!(rest(&client).unwrap(), b"Hello, client!");
        drop(client);
    }
    await_that("all have lingered", || handle.metrics().connections_open == 0);
    assert_eq!(handle.metrics().failed, 0);
}

#[test]
fn an_empty_connection_is_counted() {
    let handle = builder().serve_handler(Hello::default()).unwrap();
    assert_eq!(exchange(handle.local_addr(), b"").unwrap(), b"");
    assert_eq!(handle.metrics().empty, 1);
}

/// Runs silent, vanishing and resetting clients on one worker, and then a good one.
#[test]
fn those_that_vanish_leave_nothing_behind() {
    let (handle, _gate) = serve_lines(builder().workers(1));
    let addr = handle.local_addr();
    for round in 0..30 {
        let mut client = connect(addr);
        match round % 5 {
            0 => drop(client),
            1 => reset(client),
            2 => client.write_all(b"s").unwrap(),
            3 => {
                client.write_all(b"say unread\nsay").unwrap();
                reset(client);
            }
            _ => {
                assert_eq!(ask(&client, "say parked"), "parked");
                reset(client);
            }
        }
    }
    assert_eq!(ask(&connect(addr), "say alive"), "alive");
    await_that("all are closed", || handle.metrics().connections_open == 0);
}

fn timed_out(metrics: &Metrics) -> (u64, u64, u64) {
    (metrics.timed_out_first_byte, metrics.timed_out_idle, metrics.timed_out_io)
}

#[test]
fn each_silence_has_its_timeout() {
    let (handle, _gate) = serve_lines(builder().workers(1).first_byte_timeout(SOON));
    assert_eq!(rest(&connect(handle.local_addr())).unwrap(), b"");
    assert_eq!(timed_out(&handle.metrics()), (1, 0, 0));

    let (handle, _gate) = serve_lines(builder().workers(1).idle_timeout(SOON));
    let client = connect(handle.local_addr());
    assert_eq!(ask(&client, "say 1"), "1");
    assert_eq!(rest(&client).unwrap(), b"");
    assert_eq!(timed_out(&handle.metrics()), (0, 1, 0));

    let (handle, _gate) = serve_lines(builder().workers(1).io_timeout(SOON));
    let mut client = connect(handle.local_addr());
    client.write_all(b"say").unwrap();
    assert_eq!(rest(&client).unwrap(), b"");
    assert_eq!(timed_out(&handle.metrics()), (0, 0, 1));
}

#[test]
fn a_request_that_trickles_in_does_not_extend_its_deadline() {
    let (handle, _gate) = serve_lines(builder().workers(1).io_timeout(Duration::from_millis(300)));
    let mut client = connect(handle.local_addr());
    // A byte now and then until it is closed, and it must be long before this ends by itself.
    let sent = (0..10_000)
        .take_while(|_| {
            std::thread::park_timeout(Duration::from_millis(5));
            client.write_all(b"x").is_ok()
        })
        .count();
    assert!(sent < 10_000);
    assert_eq!(timed_out(&handle.metrics()), (0, 0, 1));
}

#[test]
fn a_client_that_reads_nothing_holds_no_worker() {
    let (handle, _gate) = serve_lines(builder().workers(1).io_timeout(Duration::from_millis(200)));
    let stuck = connect(handle.local_addr());
    sockopt::set_socket_recv_buffer_size(&stuck, 4096).unwrap();
    // More than both sockets take, but less than what is kept for it beyond that.
    for _ in 0..200 {
        if handle.metrics().connections_parked == 1 && handle.metrics().timed_out_io == 1 {
            break;
        }
        if (&stuck).write_all(b"big 200000\n").is_err() {
            break;
        }
        assert_eq!(ask(&connect(handle.local_addr()), "say alive"), "alive");
    }
    await_that("it timed out", || handle.metrics().timed_out_io == 1);
}

#[test]
fn a_slow_reader_gets_all_of_its_reply() {
    let (handle, _gate) = serve_lines(builder().workers(1));
    let mut client = connect(handle.local_addr());
    tell(&client, "big 9000000\nclose");
    let mut received = 0;
    let mut piece = [0; 50_000];
    while let Ok(count @ 1..) = client.read(&mut piece) {
        received += count;
        std::thread::yield_now();
    }
    assert_eq!(received, 9_000_000 + "bye\n".len());
}

#[test]
fn the_waiting_of_one_call_ends_at_its_deadline() {
    let read_two = |connection: &mut Connection<'_>| {
        connection.read_exact(&mut [0; 2])?;
        Ok(Next::Close)
    };
    let handle = builder().workers(1).io_timeout(SOON).serve_handler(read_two).unwrap();
    let mut client = connect(handle.local_addr());
    client.write_all(b"1").unwrap();
    assert_eq!(rest(&client).unwrap(), b"");
    assert_eq!(timed_out(&handle.metrics()), (0, 0, 1));
}

#[test]
fn input_that_nobody_takes_is_bounded() {
    let handle = builder().workers(1).serve(|_: &mut Connection<'_>| Ok(Next::Park)).unwrap();
    let mut client = connect(handle.local_addr());
    // It ends with a reset in the middle, or with one at the end.
    let sent = client.write_all(&vec![b'x'; 10_000_000]);
    assert!(sent.is_err() || rest(&client).is_err());
    assert_eq!(handle.metrics().failed, 1);
}

#[test]
fn asking_again_without_taking_or_writing_anything_is_no_endless_loop() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let again = move |_: &mut Connection<'_>| {
        counted.fetch_add(1, SeqCst);
        Ok(Next::Again)
    };
    let handle = builder().workers(1).serve_handler(again).unwrap();
    let mut client = connect(handle.local_addr());
    client.write_all(b"x").unwrap();
    await_that("it was called", || calls.load(SeqCst) == 1);
    await_that("it is parked", || handle.metrics().connections_parked == 1);
    assert_eq!(calls.load(SeqCst), 1);
}

#[test]
fn a_handler_that_has_more_to_write_is_called_again_when_that_is_taken() {
    // Unread input lies there all the while, and does not matter.
    let more = |connection: &mut Connection<'_>| {
        connection.write_all(&[b'.'; 100_000])?;
        assert_eq!(connection.input(), b"x");
        Ok(Next::Again)
    };
    let handle = builder().workers(1).serve_handler(more).unwrap();
    let mut client = connect(handle.local_addr());
    client.write_all(b"x").unwrap();
    await_that("its socket is full", || handle.metrics().connections_parked == 1);
    client.read_exact(&mut vec![0; 20_000_000]).unwrap();
}

#[test]
fn input_that_nobody_takes_ends_with_what_was_replied() {
    let handle = builder()
        .workers(1)
        .serve(|connection: &mut Connection<'_>| {
            connection.write_all(b".")?;
            Ok(Next::Park)
        })
        .unwrap();
    let mut client = connect(handle.local_addr());
    client.write_all(&[b'x'; 20_000]).unwrap();
    let reply = rest(&client).unwrap();
    assert!(!reply.is_empty() && reply.iter().all(|&byte| byte == b'.'));
    assert_eq!(handle.metrics().failed, 1);
}

#[test]
fn a_reply_before_an_error_is_still_sent() {
    let handle = builder()
        .workers(1)
        .serve(|connection: &mut Connection<'_>| {
            connection.write_all(&[b'r'; 300_000])?;
            Err(io::Error::other("as told"))
        })
        .unwrap();
    let mut client = connect(handle.local_addr());
    client.write_all(&[b'x'; 50_000]).unwrap();
    assert_eq!(rest(&client).unwrap().len(), 300_000);
}

#[test]
fn clients_that_take_nothing_are_closed_however_much_was_sent() {
    let soon = Duration::from_millis(200);
    let server = builder().idle_timeout(soon).io_timeout(soon);
    let handle = server.serve_handler(overfall::apps::Echo::default()).unwrap();
    let addr = handle.local_addr();
    // Some of them fill the socket and not the buffer behind it.
    let clients: Vec<_> = (1..40)
        .map(|n| {
            let client = connect(addr);
            sockopt::set_socket_recv_buffer_size(&client, 4096).unwrap();
            client.set_nonblocking(true).unwrap();
            // What is not taken at once is not sent.
            for _ in 0..n {
                let _ = (&client).write(&[7; 100_000]);
            }
            client
        })
        .collect();
    await_that("all are closed", || handle.metrics().connections_open == 0);
    drop(clients);
}
