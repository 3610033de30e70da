//! What single steps cost, without sockets where it can be had: `cargo bench`.
//!
//! These are for finding out which of them has become dearer. What a request costs as a whole is what
//! `overfall bench` says.

use divan::{Bencher, black_box, counter::BytesCount};
use overfall::steps::{Calm, HandOver, Notes, Parking, Relay, decode_chunked, parse_head};

const HEAD: &[u8] = b"GET /index.html?a=b HTTP/1.1\r\n\
    Host: example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
    Accept: text/html,application/xhtml+xml\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Connection: keep-alive\r\n\r\n";

fn main() {
    divan::main();
}

/// Parsing the head of a request.
#[divan::bench]
fn head(bencher: Bencher<'_, '_>) {
    assert_eq!(parse_head(HEAD), HEAD.len());
    bencher.counter(BytesCount::new(HEAD.len())).bench(|| parse_head(black_box(HEAD)));
}

/// Decoding a body of 16 chunks of 1,000 bytes.
#[divan::bench]
fn chunked(bencher: Bencher<'_, '_>) {
    let mut body = Vec::new();
    for _ in 0..16 {
        body.extend_from_slice(b"3e8\r\n");
        body.extend_from_slice(&[b'x'; 1000]);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(decode_chunked(&body), 16_000);
    bencher.counter(BytesCount::new(body.len())).bench(|| decode_chunked(black_box(&body)));
}

/// Parking, waking, and taking: with the system call that looks for events.
#[divan::bench]
fn park_and_take(bencher: Bencher<'_, '_>) {
    let parking = Parking::new().expect("descriptors");
    assert_eq!(parking.park_and_take(), Some(1));
    bencher.bench_local(|| parking.park_and_take());
}

/// All that the gate does for one newcomer while everybody is let in.
#[divan::bench]
fn calm_gate(bencher: Bencher<'_, '_>) {
    let calm = Calm::new();
    assert!(calm.serve_one());
    bencher.bench_local(|| calm.serve_one());
}

/// What a worker notes down for one request, so that it can be asked what it does.
#[divan::bench]
fn notes(bencher: Bencher<'_, '_>) {
    let mut notes = Notes::new();
    bencher.bench_local(|| notes.note_request());
}

/// From one end of the queue to the other, by one thread.
#[divan::bench]
fn queue(bencher: Bencher<'_, '_>) {
    let mut queue = HandOver::new().expect("descriptors");
    bencher.bench_local(|| queue.hand_over());
}

/// A step of a relay, and what it takes to send and receive what is relayed.
#[divan::bench(args = [64, 16_000])]
fn relay(bencher: Bencher<'_, '_>, size: usize) {
    let mut relay = Relay::new().expect("descriptors");
    let (sent, mut received) = (vec![7; size], vec![0; size]);
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        relay.relay(black_box(&sent), &mut received).expect("it relays");
    });
    assert_eq!(sent, received);
}
