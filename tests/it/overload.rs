//! Overload: who is shed, who is told, and what is left of it afterwards.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
    time::{Duration, Instant},
};

use overfall::{
    Handle, OnFull,
    http::{Http, Request, Response},
};

use crate::support::*;

/// Something that takes a while, by the wall clock. It sleeps, since how long requests take is what the
/// server goes by.
fn slow(_: &Request<'_>) -> Response {
    thread::sleep(Duration::from_millis(2));
    Response::text("done")
}

/// Asks on a kept connection until it is refused, or told to stop; the status of the last reply.
fn keep_asking(handle: &Handle, stop: &AtomicBool) -> String {
    let mut stream = connect(handle.local_addr());
    let mut reply = [0; 512];
    loop {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("it reads");
        let length = stream.read(&mut reply).expect("a reply");
        let status = String::from_utf8_lossy(&reply[..length.min(12)]).into_owned();
        if status != "HTTP/1.1 200" || stop.load(Relaxed) {
            return status;
        }
    }
}

/// Has a client wait for a reply for so long, in vain.
fn wait_in_vain(mut client: &TcpStream, time: Duration) {
    client.set_read_timeout(Some(time)).expect("a timeout");
    let heard = client.read(&mut [0]);
    assert!(heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
}

#[test]
fn kept_connections_that_wait_too_long_are_told_so() {
    let handle = builder().workers(1).patience(BRIEF).serve_handler(Http::new(slow)).expect("it serves");
    let stop = AtomicBool::new(false);
    let ends: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..64).map(|_| scope.spawn(|| keep_asking(&handle, &stop))).collect();
        await_that("somebody is shed", || handle.metrics().shed > 0);
        stop.store(true, Relaxed);
        clients.into_iter().map(|client| client.join().expect("it ends well")).collect()
    });
    let told = ends.iter().filter(|&end| end == "HTTP/1.1 503").count() as u64;
    let metrics = handle.metrics();
    // Whoever was turned away was told, and the others were answered to the last.
    assert_eq!(told, metrics.shed + metrics.refused_queue_full);
    assert!(ends.iter().all(|end| ["HTTP/1.1 200", "HTTP/1.1 503"].contains(&end.as_str())), "{ends:?}");
    assert_eq!(metrics.failed, 0);
}

#[test]
fn a_closed_loop_that_can_be_served_in_time_is_not_refused() {
    let handle = builder().workers(1).serve_handler(Http::new(slow)).expect("it serves");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..64).map(|_| scope.spawn(|| keep_asking(&handle, &stop))).collect();
        await_that("many are answered", || handle.metrics().answered > 500);
        stop.store(true, Relaxed);
        for client in clients {
            assert_eq!(client.join().expect("it ends well"), "HTTP/1.1 200");
        }
    });
    let metrics = handle.metrics();
    assert_eq!((metrics.shed, metrics.refused_queue_full, metrics.overloads_begun), (0, 0, 0));
}

#[test]
fn the_oldest_in_the_queue_gives_way_where_that_is_wanted() {
    let (handle, gate) = serve_lines(builder().workers(1).queue(1).on_full(OnFull::DropOldest));
    let addr = handle.local_addr();
    let first = connect(addr);
    tell(&first, "block");
    gate.await_blocked(1);
    let second = connect(addr);
    tell(&second, "say second");
    await_that("the second waits", || handle.metrics().queue_depth == 1);
    let third = connect(addr);
    tell(&third, "say third");
    assert!(rest(&second).is_err());
    let metrics = handle.metrics();
    assert_eq!((metrics.refused_oldest, metrics.refused_queue_full), (1, 0));
    gate.open(1);
    assert_eq!(hear(&third), "third");
    assert_eq!(hear(&first), "unblocked");
}

#[test]
fn who_is_gone_is_not_served() {
    let (handle, gate) = serve_lines(builder().workers(1));
    let addr = handle.local_addr();
    let first = connect(addr);
    tell(&first, "block");
    gate.await_blocked(1);
    let gone: Vec<_> = (0..5)
        .map(|_| {
            let client = connect(addr);
            tell(&client, "say it to nobody");
            client
        })
        .collect();
    await_that("they wait", || handle.metrics().queue_depth == 5);
    for client in gone {
        reset_on_close(&client);
    }
    // Longer than is in time in any case, so that the kernel is asked.
    wait_in_vain(&first, BRIEF);
    gate.open(1);
    assert_eq!(hear(&first), "unblocked");
    await_that("they are gone", || handle.metrics().gone == 5);
    assert_eq!(handle.metrics().answered, 1);
}

#[test]
fn one_stall_sheds_nobody() {
    let (handle, gate) = serve_lines(builder().workers(1));
    let addr = handle.local_addr();
    let first = connect(addr);
    tell(&first, "block");
    gate.await_blocked(1);
    let waiting: Vec<_> = (0..10)
        .map(|n| {
            let client = connect(addr);
            tell(&client, &format!("say {n}"));
            client
        })
        .collect();
    await_that("they wait", || handle.metrics().queue_depth == 10);
    // Long for any server that goes by a few milliseconds.
    wait_in_vain(&first, Duration::from_millis(250));
    gate.open(1);
    for (n, client) in waiting.iter().enumerate() {
        assert_eq!(hear(client), n.to_string());
    }
    assert_eq!(handle.metrics().shed, 0);
}

#[test]
fn after_an_overload_everybody_is_served_again() {
    let (handle, gate) = serve_lines(builder().workers(1).queue(2));
    let addr = handle.local_addr();
    for _ in 0..2 {
        let refused_before = handle.metrics().refused_queue_full;
        let blocked = connect(addr);
        tell(&blocked, "block");
        gate.await_blocked(1);
        let queued = [connect(addr), connect(addr)];
        await_that("the queue is full", || handle.metrics().queue_depth == 2);
        let refused = connect(addr);
        assert!(rest(&refused).is_err());
        gate.open(1);
        assert_eq!(hear(&blocked), "unblocked");
        drop(queued);
        assert_eq!(handle.metrics().refused_queue_full, refused_before + 1);
        let mut served = 0;
        await_that("everybody is served again", || {
            let is_served = exchange(addr, b"say hello\n").is_ok_and(|reply| reply == b"hello\n");
            served = if is_served { served + 1 } else { 0 };
            served == 20
        });
    }
    let metrics = handle.metrics();
    assert!(metrics.refusal_cpu > Duration::ZERO, "{metrics}");
    assert_eq!(metrics.overloads_begun, 1, "{metrics}");
}

#[test]
fn a_flood_over_the_budget_is_left_to_the_kernel_and_ends() {
    let handle = builder()
        .workers(1)
        .refusal_budget(0.0)
        .patience(BRIEF)
        .serve_handler(Http::new(slow))
        .expect("it serves");
    let addr = handle.local_addr();
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let flood = |_| {
        let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
        thread::spawn(move || {
            while !stop.load(Relaxed) {
                // The kernel may not take it.
                let Ok(mut stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(300)) else {
                    continue;
                };
                stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
                let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                if asked.is_ok() && stream.read(&mut [0; 12]).is_ok_and(|count| count == 12) {
                    answered.fetch_add(1, SeqCst);
                }
            }
        })
    };
    let flood: Vec<_> = (0..64).map(flood).collect();
    await_that("the kernel turns them away", || handle.metrics().waiting > Duration::ZERO);
    stop.store(true, Relaxed);
    flood.into_iter().for_each(|client| client.join().expect("it ends well"));
    assert_eq!(handle.metrics().refused_queue_full, 0);
    assert!(answered.load(SeqCst) > 0);
    assert_eq!(ask_once(addr), "HTTP/1.1 200");
}

fn ask_once(addr: std::net::SocketAddr) -> String {
    let mut stream = connect(addr);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("it reads");
    let mut status = [0; 12];
    stream.read_exact(&mut status).expect("a reply");
    String::from_utf8_lossy(&status).into_owned()
}

#[test]
fn nobody_waits_too_long_while_every_worker_is_held() {
    let (handle, gate) = serve_lines(builder().patience(BRIEF));
    let addr = handle.local_addr();
    let kept = connect(addr);
    assert_eq!(ask(&kept, "say here"), "here");
    let silent = connect(addr);
    let blocked = [connect(addr), connect(addr)];
    blocked.iter().for_each(|client| tell(client, "block"));
    gate.await_blocked(2);
    // Whether it is new or its connection was there already: it is told while all are held.
    tell(&kept, "say too late");
    let newcomer = connect(addr);
    tell(&newcomer, "say too late");
    assert!(rest(&newcomer).is_err());
    assert!(rest(&kept).is_err());
    await_that("the overload is seen", || handle.metrics().overloads_begun == 1);
    let metrics = handle.metrics();
    assert_eq!((metrics.shed, metrics.busy_workers), (2, 2), "{metrics}");
    gate.open(2);
    assert!(blocked.iter().all(|client| hear(client) == "unblocked"));
    // Who had not asked for anything did not wait.
    assert_eq!(ask(&silent, "say there"), "there");
}

/// How many of the requests that clients get answered in a while are of the kept ones: so many clients
/// each, in closed loops, before one worker.
fn share_of_kept(kept: usize, new: usize, beside: impl Fn(&Handle)) -> f64 {
    let handle = builder().workers(1).serve_handler(Http::new(slow)).expect("it serves");
    let addr = handle.local_addr();
    let (stop, counts) = (AtomicBool::new(false), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    thread::scope(|scope| {
        for client in 0..kept + new {
            let (stop, counts) = (&stop, &counts);
            scope.spawn(move || {
                let mut stream = connect(addr);
                while !stop.load(Relaxed) {
                    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("it reads");
                    assert!(stream.read(&mut [0; 512]).expect("a reply") > 0);
                    counts[usize::from(client >= kept)].fetch_add(1, Relaxed);
                    if client >= kept {
                        stream = connect(addr);
                    }
                }
            });
        }
        beside(&handle);
        await_that("many are answered", || {
            counts.iter().map(|count| count.load(Relaxed)).sum::<usize>() > 400
        });
        stop.store(true, Relaxed);
    });
    let [of_kept, of_new] = counts.map(|count| count.load(Relaxed) as f64);
    of_kept / (of_kept + of_new)
}

#[test]
fn kept_and_new_connections_have_their_shares() {
    // New ones lose some time on a busy machine, in which they ask for nothing. (The kept had a
    // twentieth once.)
    let share = share_of_kept(4, 4, |_| {});
    assert!((0.3..0.9).contains(&share), "{share}");
    let share = share_of_kept(2, 10, |_| {});
    assert!((0.08..0.6).contains(&share), "{share}");
}

#[test]
fn those_who_send_a_byte_at_a_time_take_nobodys_turn() {
    let share = share_of_kept(4, 4, |handle| {
        let slow: Vec<_> = (0..50).map(|_| connect(handle.local_addr())).collect();
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: yyyyyyyyyyyyyyyyyyyyyyy" {
            slow.iter().for_each(|mut client| client.write_all(&[*byte]).expect("it reads"));
        }
    });
    assert!((0.3..0.9).contains(&share), "{share}");
}

#[test]
fn who_resets_without_having_asked_says_nothing_of_how_long_clients_wait() {
    let (server, gate) = serve_lines(builder().workers(1));
    let busy = connect(server.local_addr());
    // So long that those who have gone are looked for.
    let wait = |times: u32| {
        let since = Instant::now();
        await_that("some time has passed", || since.elapsed() > times * BRIEF);
    };
    tell(&busy, "block");
    gate.await_blocked(1);
    for _ in 0..40 {
        let client = connect(server.local_addr());
        reset_on_close(&client);
    }
    await_that("all are there", || server.metrics().accepted == 41);
    wait(1);
    gate.open(1);
    assert_eq!(hear(&busy), "unblocked");
    await_that("all were found gone", || server.metrics().gone == 40);
    tell(&busy, "block");
    gate.await_blocked(1);
    let patient = connect(server.local_addr());
    tell(&patient, "say hello");
    await_that("it is there", || server.metrics().accepted == 42);
    wait(3);
    gate.open(1);
    assert_eq!(hear(&patient), "hello");
}
