//! Fake servers with known faults must be reported as such. The tests know what a fault looks like from
//! outside, not how the client sees it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use super::*;
use crate::bench::{exchange::Protocol, pacer::Arrivals};

const HELLO: &[u8] = b"Hello, client!";
const MS: Duration = Duration::from_millis(1);

/// Serves each connection on a thread of its own, told which one it is.
fn serve(answer: impl Fn(usize, TcpStream) + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (index, stream) in listener.incoming().enumerate() {
            let (answer, stream) = (answer.clone(), stream.unwrap());
            thread::spawn(move || answer(index, stream));
        }
    });
    addr
}

fn answer(mut stream: TcpStream, reply: &[u8]) {
    let mut request = [0; 64];
    // A client that gives up takes no reply.
    if stream.read(&mut request).is_ok_and(|count| count > 0) {
        let _ = stream.write_all(reply);
    }
}

fn load(addr: SocketAddr, pace: Loop) -> Load {
    Load {
        addr,
        exchange: Protocol::Tcp.exchange(false),
        pace,
        deadline: Duration::from_secs(5),
        give_up: GiveUp::Close,
        warm_up: Duration::ZERO,
        duration: 500 * MS,
    }
}

fn uniform(per_s: f64) -> Loop {
    Loop::Open(Pacer::new(Arrivals::Uniform, per_s, 1))
}

fn measure(load: Load) -> Tally {
    run(load, &|| false, &mut |_| {}).unwrap()
}

#[test]
fn a_known_delay_is_measured() {
    let addr = serve(|_, stream| {
        // This is the delay.
        thread::sleep(30 * MS);
        answer(stream, HELLO);
    });
    let tally = measure(load(addr, uniform(100.0)));
    assert_eq!(tally.sent, tally.good);
    assert_eq!(tally.intended, tally.sent + tally.dropped);
    assert!(tally.response.quantile_us(0.0) >= 30_000.0);
    assert!(tally.service.quantile_us(0.0) >= 30_000.0);
}

#[test]
fn a_known_share_of_refusals_resets_and_wrong_replies_is_counted() {
    let addr = serve(|index, mut stream| match index % 4 {
        0 => drop(stream.read(&mut [0; 64])),
        1 => {
            let _ = stream.read(&mut [0; 64]);
            sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        }
        2 => answer(stream, b"Goodbye!"),
        _ => answer(stream, HELLO),
    });
    let tally = measure(load(addr, uniform(200.0)));
    assert_eq!(tally.good + tally.refused + tally.reset + tally.wrong, tally.sent);
    let quarter = tally.sent / 4;
    for (what, count) in
        [("good", tally.good), ("refused", tally.refused), ("reset", tally.reset), ("wrong", tally.wrong)]
    {
        assert!(count.abs_diff(quarter) <= 1, "{what}: {count} of {}", tally.sent);
    }
}

#[test]
fn nobody_there_is_a_refusal() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tally = measure(load(addr, uniform(100.0)));
    assert!(tally.sent > 0);
    assert_eq!(tally.refused, tally.sent);
}

/// Coordinated omission would be to send nothing during the stall, and so to have but one slow
/// request: those that were to come meanwhile must be in the tail, counted from when they were
/// intended.
#[test]
fn a_stall_shows_in_the_tail() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (index, stream) in listener.incoming().enumerate() {
            if index == 50 {
                // This is the stall.
                thread::sleep(200 * MS);
            }
            answer(stream.unwrap(), HELLO);
        }
    });
    let tally = measure(load(addr, uniform(400.0)));
    // 80 of the 200 requests were to come in the 200 ms.
    assert!(tally.response.max_us() >= 190_000.0);
    let at_90 = tally.response.quantile_us(0.9);
    assert!(at_90 >= 80_000.0, "{at_90}");
}

#[test]
fn a_silent_server_is_given_up_at_the_deadline() {
    let addr = serve(|_, mut stream| drop(stream.read_to_end(&mut Vec::new())));
    for give_up in [GiveUp::Close, GiveUp::Reset] {
        let tally = measure(Load { deadline: 50 * MS, give_up, ..load(addr, uniform(100.0)) });
        assert_eq!((tally.timed_out, tally.good), (tally.sent, 0));
        assert!(tally.sent > 0 && tally.response.quantile_us(0.0) >= 50_000.0);
    }
}

#[test]
fn a_closed_loop_has_no_more_under_way_than_its_clients() {
    let under_way = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let most = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (counted, highest) = (under_way.clone(), most.clone());
    let addr = serve(move |_, mut stream| {
        use std::sync::atomic::Ordering::SeqCst;
        let mut message = [0; 32];
        while stream.read_exact(&mut message).is_ok() {
            highest.fetch_max(counted.fetch_add(1, SeqCst) + 1, SeqCst);
            // A slow server: all clients' requests are under way at once, and one more would be seen.
            thread::sleep(MS);
            counted.fetch_sub(1, SeqCst);
            if stream.write_all(&message).is_err() {
                break;
            }
        }
    });
    let tally = measure(Load { exchange: Protocol::Tcp.exchange(true), ..load(addr, Loop::Closed(5)) });
    assert!(tally.good > 0 && tally.good >= tally.sent - 5);
    assert!(most.load(std::sync::atomic::Ordering::SeqCst) <= 5);
}
