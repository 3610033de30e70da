use std::{
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    time::{Duration, Instant},
};

use super::holds::Holds;
use crate::{metrics::Counters, sys::wait::Bell};

/// What the threads of a server share whatever its handler is: its stage, its counts, and the
/// acceptor's bell.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) counters: Counters,
    /// Connections open, from accept to close.
    pub(crate) open: AtomicUsize,
    /// Those of them that linger.
    pub(crate) lingering: AtomicUsize,
    /// Workers, or the threads of connections, that are busy with one.
    pub(crate) busy: AtomicUsize,
    /// Workers, or the threads of connections, that have not ended.
    pub(crate) alive: AtomicUsize,
    /// Wakes the acceptor.
    pub(crate) bell: Bell,
    pub(crate) holds: Arc<Holds>,
    stage: AtomicU8,
    closes_idle: AtomicBool,
    /// A thread of ours has died.
    dead: OnceLock<&'static str>,
    accepting: AtomicBool,
    room_wanted: AtomicU8,
    /// All workers have been busy, and the acceptor sees to it that nobody waits for them too long.
    watched: AtomicBool,
    epoch: Instant,
    /// The next time at which the acceptor looks for expired connections, in milliseconds since
    /// `epoch`.
    next_sweep_ms: AtomicU64,
}

const SERVING: u8 = 0;
const DRAINING: u8 = 1;
const CUT: u8 = 2;

/// What the acceptor waits for when it cannot let anybody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Places in the queue.
    Queue = 1,
    /// A connection's end.
    Connection = 2,
}

impl Control {
    /// `holds` is how many threads may be held by clients that are still sending.
    pub(crate) fn new(holds: usize) -> rustix::io::Result<Self> {
        Ok(Self {
            counters: Counters::new(),
            open: AtomicUsize::new(0),
            lingering: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            alive: AtomicUsize::new(0),
            bell: Bell::new()?,
            holds: Holds::new(holds),
            stage: AtomicU8::new(SERVING),
            closes_idle: AtomicBool::new(false),
            dead: OnceLock::new(),
            accepting: AtomicBool::new(true),
            room_wanted: AtomicU8::new(0),
            watched: AtomicBool::new(true),
            epoch: Instant::now(),
            next_sweep_ms: AtomicU64::new(u64::MAX),
        })
    }

    /// Begins to shut the server down.
    pub(crate) fn drain(&self) {
        self.stage.fetch_max(DRAINING, SeqCst);
        self.bell.ring();
    }

    /// Says that a thread of ours has died, without which the server is of no use.
    pub(crate) fn died(&self, what: &'static str) {
        let _ = self.dead.set(what);
        self.drain();
    }

    pub(crate) fn dead(&self) -> Option<&'static str> {
        self.dead.get().copied()
    }

    pub(crate) fn draining(&self) -> bool {
        self.stage.load(SeqCst) >= DRAINING
    }

    /// Has idle connections closed from now on.
    pub(crate) fn close_idle(&self) {
        self.closes_idle.store(true, SeqCst);
    }

    pub(crate) fn closes_idle(&self) -> bool {
        self.closes_idle.load(SeqCst)
    }

    /// The drain timeout has passed: nothing more is served.
    pub(crate) fn cut(&self) {
        self.stage.store(CUT, SeqCst);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.stage.load(SeqCst) == CUT
    }

    pub(crate) fn accepting_ended(&self) {
        self.accepting.store(false, SeqCst);
    }

    /// Whether there is nothing left to do, now or ever.
    pub(crate) fn finished(&self) -> bool {
        self.is_cut() || (!self.accepting.load(SeqCst) && self.open.load(SeqCst) == 0)
    }

    pub(crate) fn begin_work(&self) {
        let busy = self.busy.fetch_add(1, Relaxed) + 1;
        self.counters.busy_highest.raise(busy as u64);
    }

    pub(crate) fn end_work(&self) {
        self.busy.fetch_sub(1, Relaxed);
    }

    /// Counts a connection as ended; its socket is closed already.
    pub(crate) fn ended_connection(&self) {
        let left = self.open.fetch_sub(1, SeqCst) - 1;
        self.room_made(Room::Connection);
        if left == 0 && self.draining() {
            self.bell.ring();
        }
    }

    /// Counts a worker or a connection's thread as ended.
    pub(crate) fn ended_thread(&self) {
        self.alive.fetch_sub(1, SeqCst);
        if self.draining() {
            self.bell.ring();
        }
    }

    /// The acceptor says what it is going to wait for. It must look once more after this and
    /// before it waits.
    pub(crate) fn want_room(&self, room: Room) {
        self.room_wanted.store(room as u8, SeqCst);
        fence(SeqCst);
    }

    pub(crate) fn want_no_room(&self) {
        self.room_wanted.store(0, Relaxed);
    }

    /// Wakes the acceptor if it waits for this. Whoever calls it has made the room before.
    pub(crate) fn room_made(&self, room: Room) {
        if self.wants(room) {
            self.want_no_room();
            self.bell.ring();
        }
    }

    /// Whether the acceptor waits for this. Whoever asks has made the room before.
    pub(crate) fn wants(&self, room: Room) -> bool {
        fence(SeqCst);
        self.room_wanted.load(Relaxed) == room as u8
    }

    /// Says that the last idle worker has become busy.
    pub(crate) fn watch(&self) {
        if !self.watched.load(SeqCst) && !self.watched.swap(true, SeqCst) {
            self.bell.ring();
        }
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(SeqCst)
    }

    /// A worker is idle. Whoever calls it must look once more after this.
    pub(crate) fn watch_no_more(&self) {
        self.watched.store(false, SeqCst);
    }

    /// Sees to it that the acceptor looks for expired connections at this time or before.
    pub(crate) fn sweep_at(&self, deadline: Instant) {
        let at_ms = self.ms(deadline);
        if at_ms < self.next_sweep_ms.load(SeqCst) && at_ms < self.next_sweep_ms.fetch_min(at_ms, SeqCst) {
            self.bell.ring();
        }
    }

    /// The time of the next look, if there is to be one.
    pub(crate) fn next_sweep(&self) -> Option<Instant> {
        match self.next_sweep_ms.load(SeqCst) {
            u64::MAX => None,
            at_ms => Some(self.epoch + Duration::from_millis(at_ms)),
        }
    }

    /// Takes the appointment down, before looking: what is parked meanwhile makes a new one.
    pub(crate) fn begin_sweep(&self) {
        self.next_sweep_ms.store(u64::MAX, SeqCst);
    }

    /// Makes the appointment that follows from what was seen.
    pub(crate) fn end_sweep(&self, next: Option<Instant>) {
        if let Some(next) = next {
            self.next_sweep_ms.fetch_min(self.ms(next), SeqCst);
        }
    }

    /// Rounded up, so that a deadline has passed when its millisecond has come.
    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_millis()).map_or(u64::MAX - 1, |ms| ms + 1)
    }
}
