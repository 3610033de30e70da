//! Single steps of the inside, for `cargo bench` to time. It is no part of the interface, and knows no
//! clock.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    balance::flow::{AtEnd, Flow, Pipes},
    http::codec::{chunked::Decoder, head},
    metrics::Counters,
    net::{input::Input, key::Key, ready::Ready, slots::Slots, wire::Wire},
    overload::{Gate, Kind, Take, Terms, Wait},
    server::queue::{Class, Entrance, Exit, Newcomer, queue},
    session::activity::{Activity, At},
    sys::tally::Tally,
};

/// Parses the head of a request; its length.
pub fn parse_head(head: &[u8]) -> usize {
    head::parse(head).ok().flatten().map_or(0, |head| head.length)
}

/// Decodes a body in chunks; how much data it has.
pub fn decode_chunked(mut body: &[u8]) -> usize {
    let (mut decoder, mut data) = (Decoder::new(), 0);
    while let Ok(piece) = decoder.advance(body)
        && piece.framing + piece.data > 0
    {
        decoder.took(piece.data);
        data += piece.data;
        body = &body[piece.framing + piece.data..];
    }
    data
}

/// A slot, in which somebody is parked.
#[derive(Debug)]
pub struct Parking {
    slots: Slots<u64, ()>,
    ready: Ready,
    key: Key,
}

impl Parking {
    #[expect(missing_docs)]
    pub fn new() -> std::io::Result<Self> {
        let slots = Slots::new(1);
        let key = slots.allocate(Arc::new(())).ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Self { slots, ready: Ready::new()?, key })
    }

    /// Parks a tenant, wakes it, and takes it out again.
    pub fn park_and_take(&self) -> Option<u64> {
        self.slots.park(self.key, 1, |_, _| Ok(true));
        self.ready.wake(self.key);
        let event = self.ready.poll()?;
        self.slots.take(event.key, event.flags).map(|(tenant, _)| tenant)
    }
}

/// A gate that has seen requests of a millisecond, and is calm.
#[derive(Debug)]
pub struct Calm {
    gate: Gate,
    now: Instant,
}

impl Calm {
    #[expect(missing_docs, clippy::new_without_default)]
    pub fn new() -> Self {
        let patience = Duration::from_millis(500);
        let terms = Terms { patience, servers: 2, refusal_budget: 0.015, longest: Duration::MAX };
        let now = Instant::now();
        Self { gate: Gate::new(terms, now), now }
    }

    /// Lets somebody in, serves it, and takes note of it.
    pub fn serve_one(&self) -> bool {
        let fits = self.gate.fits(self.now, 1);
        self.gate.admitted(self.now, 1);
        let wait = Wait::AtMost(Duration::from_millis(1));
        let taken = self.gate.take(Kind::Newcomer, wait, self.now, 1);
        self.gate.answered(Duration::from_millis(1));
        fits && taken == Take::Serve
    }
}

/// What a worker notes down of what it does.
#[derive(Debug)]
pub struct Notes {
    activity: Activity,
    counters: Counters,
    now: Instant,
}

impl Notes {
    #[expect(missing_docs, clippy::new_without_default)]
    pub fn new() -> Self {
        let now = Instant::now();
        Self { activity: Activity::new(now), counters: Counters::new(1), now }
    }

    /// Notes down one request over HTTP, for which the worker was idle before.
    pub fn note_request(&mut self) {
        let us = Duration::from_micros(1);
        self.activity.enter(At::Idle, self.now);
        self.activity.enter(At::Handling, self.now + us);
        self.activity.begin_call(self.now + us);
        self.activity.describe(&["GET", " ", "/index.html"]);
        self.now += 5 * us;
        self.counters.services.record(0, 4 * us, 1);
        self.counters.waits.record(0, us, 1);
        self.activity.end_call();
    }
}

/// The queue of newcomers, and one newcomer.
#[derive(Debug)]
pub struct HandOver {
    entrance: Entrance,
    exit: Exit,
    newcomer: Option<Newcomer>,
}

impl HandOver {
    #[expect(missing_docs)]
    pub fn new() -> std::io::Result<Self> {
        let (entrance, exit) = queue(16);
        let socket = UnixStream::pair()?.0.into();
        let open = Arc::new(Tally::default()).count();
        let newcomer = Newcomer { socket, accepted: Instant::now(), late: false, open };
        Ok(Self { entrance, exit, newcomer: Some(newcomer) })
    }

    /// Hands the newcomer over from one end of the queue to the other.
    pub fn hand_over(&mut self) {
        if let Some(newcomer) = self.newcomer.take() {
            self.newcomer = match self.entrance.push(newcomer, Class::Usual) {
                Ok(()) => self.exit.take(),
                Err(newcomer) => Some(newcomer),
            };
        }
    }
}

/// A relay between two connections.
#[derive(Debug)]
pub struct Relay {
    flow: Flow,
    pipes: Pipes,
    piece: Input,
    from: (UnixStream, Wire),
    to: (UnixStream, Wire),
}

impl Relay {
    #[expect(missing_docs)]
    pub fn new() -> std::io::Result<Self> {
        let side = || {
            let (outer, inner) = UnixStream::pair()?;
            inner.set_nonblocking(true)?;
            std::io::Result::Ok((outer, Wire::new(inner.into())))
        };
        let (from, to) = (side()?, side()?);
        Ok(Self { flow: Flow::default(), pipes: Pipes::new(1), piece: Input::new(), from, to })
    }

    /// Sends this, relays it, and receives it.
    pub fn relay(&mut self, bytes: &[u8], received: &mut [u8]) -> std::io::Result<()> {
        self.from.0.write_all(bytes)?;
        self.from.1.look_again();
        self.flow.go_on(&mut self.from.1, &mut self.to.1, &mut self.piece, &self.pipes, AtEnd::PassOn)?;
        self.to.0.read_exact(received)
    }
}
