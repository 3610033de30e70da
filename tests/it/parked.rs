//! Connections that are open and have nothing to say.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    sync::{
        Arc,
        mpsc::{self, channel},
    },
    thread,
    time::{Duration, Instant},
};

use overfall::{Connection, Handler, Next, apps::Echo};
use parking_lot::Mutex;
use rustix::net::SendFlags;

use crate::support::*;

#[test]
fn silent_connections_cost_no_thread_and_delay_nobody() {
    let served = serve(&["--workers", "2", "--app", "echo"]);
    let threads = served.threads();
    let silent: Vec<_> = (0..500).map(|_| connect(served.addr)).collect();
    assert_eq!(exchange(served.addr, b"hello").unwrap(), b"hello");
    assert_eq!(served.threads(), threads);
    drop(silent);
}

#[test]
fn five_thousand_parked_connections_all_wake_up() {
    const COUNT: usize = 5_000;
    if raise_descriptor_limit() < COUNT as u64 + 500 {
        eprintln!("SKIPPED: five_thousand_parked_connections needs a hard limit of 5,500 open files");
        return;
    }
    let mut served = serve(&["--workers", "2", "--app", "echo"]);
    let threads = served.threads();
    let clients: Vec<_> = (0..COUNT).map(|_| connect(served.addr)).collect();
    for round in ["once", "again"] {
        for client in &clients {
            assert_eq!(ask(client, round), round);
        }
    }
    assert_eq!(served.threads(), threads);
    assert_eq!(served.counter("connections_open"), COUNT as u64);
    assert!(served.counter("connections_parked") >= COUNT as u64 - 2);
}

#[test]
fn a_parked_connection_wakes_up_while_all_but_one_worker_are_busy() {
    let (handle, gate) = serve_lines(builder().workers(4));
    let parked: Vec<_> = (0..50).map(|_| connect(handle.local_addr())).collect();
    parked.iter().for_each(|client| assert_eq!(ask(client, "say 1"), "1"));
    let busy: Vec<_> = (0..3).map(|_| connect(handle.local_addr())).collect();
    busy.iter().for_each(|client| tell(client, "block"));
    gate.await_blocked(3);
    // At once, so that several events are there for the one worker.
    parked.iter().for_each(|client| tell(client, "say 2"));
    parked.iter().for_each(|client| assert_eq!(hear(client), "2"));
    gate.open(3);
}

#[test]
fn events_taken_by_a_worker_that_then_blocks_are_served_by_others() {
    let (handle, gate) = serve_lines(builder().workers(2));
    let clients: Vec<_> = (0..40).map(|_| connect(handle.local_addr())).collect();
    for round in 0..20 {
        let blocker = &clients[round];
        // The blocker's event comes together with many others.
        tell(blocker, "block");
        let others = clients.iter().filter(|client| !std::ptr::eq(*client, blocker));
        others.clone().for_each(|client| tell(client, "say on"));
        others.for_each(|client| assert_eq!(hear(client), "on"));
        gate.await_blocked(1);
        gate.open(1);
        assert_eq!(hear(blocker), "unblocked");
    }
}

#[test]
fn no_wake_up_is_lost() {
    let (handle, _gate) = serve_lines(builder().workers(3));
    let addr = handle.local_addr();
    // Newcomers and kept connections, with workers that fall idle all the time.
    all_at_once(8, move |client| {
        for round in 0..200 {
            let kept = connect(addr);
            for turn in 0..1 + (client + round) % 3 {
                assert_eq!(ask(&kept, &format!("say {turn}")), turn.to_string());
            }
        }
    });
    await_that("all are closed", || handle.metrics().connections_open == 0);
}

#[test]
fn pipelined_requests_are_all_answered_and_others_get_their_turn() {
    let (handle, gate) = serve_lines(builder().workers(1));
    let greedy = connect(handle.local_addr());
    let modest = connect(handle.local_addr());
    assert_eq!(ask(&modest, "say 1"), "1");
    tell(&greedy, "block\nblock\nblock\nblock");
    gate.await_blocked(1);
    tell(&modest, "say 2");
    // One more request of the greedy one at most, which the worker may have begun before.
    gate.open(1);
    gate.await_blocked(1);
    gate.open(1);
    assert_eq!(hear(&modest), "2");
    gate.open(2);
    (0..4).for_each(|_| assert_eq!(hear(&greedy), "unblocked"));
}

#[test]
fn a_request_may_come_in_pieces() {
    let (handle, _gate) = serve_lines(builder());
    let mut client = connect(handle.local_addr());
    for byte in b"say piece by piece" {
        client.write_all(&[*byte]).unwrap();
        thread::yield_now();
    }
    assert_eq!(ask(&client, ""), "piece by piece");
}

#[test]
fn each_connection_keeps_its_state() {
    let (handle, _gate) = serve_lines(builder());
    let clients: Vec<_> = (0..10).map(|_| connect(handle.local_addr())).collect();
    for round in 1..=3 {
        clients.iter().for_each(|client| assert_eq!(ask(client, "state"), round.to_string()));
    }
}

#[test]
fn data_and_the_end_of_the_stream_in_one_segment() {
    let handle = builder().serve_handler(Echo::default()).unwrap();
    for parked in [false, true] {
        let mut client = connect(handle.local_addr());
        if parked {
            assert_eq!(ask(&client, "first"), "first");
            await_that("it is parked", || handle.metrics().connections_parked == 1);
        }
        rustix::net::send(&client, b"last", SendFlags::MORE).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();
        assert_eq!(reply, "last");
    }
}

#[test]
fn everything_sent_before_a_half_close_comes_back() {
    let handle = builder().serve_handler(Echo::default()).unwrap();
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut client = connect(handle.local_addr());
    let mut writer = client.try_clone().unwrap();
    let expected = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(received == expected, "{} bytes of {}", received.len(), expected.len());
}

/// Greets, and says `late` when its client is.
struct Greeter(mpsc::SyncSender<()>);

impl Handler for Greeter {
    type State = ();

    fn open(&self, connection: &mut Connection<'_>) -> io::Result<()> {
        connection.write_all(b"welcome\n")
    }

    fn ready(&self, _: &mut Connection<'_>, (): &mut ()) -> io::Result<Next> {
        Ok(Next::Close)
    }

    fn expired(&self, connection: &mut Connection<'_>, (): &mut ()) -> io::Result<Next> {
        connection.write_all(b"late\n")?;
        Ok(if self.0.try_send(()).is_ok() { Next::Park } else { Next::Close })
    }
}

#[test]
fn a_server_may_speak_first_and_hears_of_deadlines() {
    let (warnings, _kept) = mpsc::sync_channel(1);
    let timeout = Duration::from_millis(100);
    let handle = builder().first_byte_timeout(timeout).serve_handler(Greeter(warnings)).unwrap();
    let connected = Instant::now();
    let client = connect(handle.local_addr());
    // The first time it parks once more, and has as much time again.
    assert_eq!(rest(&client).unwrap(), b"welcome\nlate\nlate\n");
    assert!(connected.elapsed() >= 2 * timeout);
    assert_eq!(handle.metrics().timed_out_first_byte, 1);
}

#[test]
fn many_pipelining_clients_are_all_served() {
    for workers in [1, 2, 3] {
        let (handle, _gate) = serve_lines(builder().workers(workers));
        let addr = handle.local_addr();
        all_at_once(12, move |_| {
            let client = connect(addr);
            for _ in 0..100 {
                tell(&client, "say 1\nsay 2\nsay 3\nsay 4");
                for number in 1..=4 {
                    assert_eq!(hear(&client), number.to_string());
                }
            }
        });
    }
}

#[test]
fn a_connection_that_is_ready_again_at_once_lets_those_go_first_who_came_before() {
    let (entered, blocked) = channel();
    let (open, gate) = channel::<()>();
    let (entered, gate, order) = (Mutex::new(entered), Mutex::new(gate), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&order);
    let handle = builder()
        .workers(2)
        .serve(move |connection: &mut Connection<'_>| {
            let Some(&byte) = connection.input().first() else { return Ok(Next::Park) };
            connection.consume(1);
            seen.lock().push(byte);
            if byte == b'!' {
                entered.lock().send(()).expect("the test listens");
                // A test that is over opens every gate.
                let _ = gate.lock().recv();
            }
            Ok(Next::Park)
        })
        .unwrap();
    let clients: Vec<_> = (0..3).map(|_| connect(handle.local_addr())).collect();
    let say = |client: usize, byte: u8| (&clients[client]).write_all(&[byte]).unwrap();
    (0..3).for_each(|client| say(client, b'.'));
    await_that("all have come", || order.lock().len() == 3);
    await_that("all are parked", || handle.metrics().connections_parked == 3);
    say(0, b'!');
    blocked.recv_timeout(PATIENCE).unwrap();
    // The other worker takes the event of the first client's next byte, and then blocks as well.
    say(0, b'1');
    say(1, b'!');
    blocked.recv_timeout(PATIENCE).unwrap();
    say(2, b'2');
    await_that("it has come", || has_been_received(&clients[2]));
    order.lock().clear();
    open.send(()).unwrap();
    await_that("both are served", || order.lock().len() == 2);
    assert_eq!(*order.lock(), b"21");
    open.send(()).unwrap();
}
