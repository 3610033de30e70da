//! What the threads of a server share whatever its handler is: its counts, the acceptor's bell, and what
//! the acceptor is to be waked for. It knows neither sessions nor slots.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Instant,
};

use super::{
    config::Config,
    live::Live,
    room::{Room, Wanted},
    sweep::Appointment,
};
use crate::{
    session::context::Context,
    sys::{tally::Tally, wait::Bell},
};

#[derive(Debug)]
pub(super) struct Control {
    pub(super) context: Arc<Context>,
    pub(super) live: Live,
    /// Connections open, from accept to close.
    pub(super) open: Arc<Tally>,
    /// Workers, or the threads of connections, that have not ended.
    pub(super) alive: Arc<Tally>,
    /// Those of them that are busy with a connection.
    busy: AtomicUsize,
    /// Wakes the acceptor.
    pub(super) bell: Bell,
    /// How often the acceptor has waited for something.
    rounds: AtomicU64,
    /// A thread of ours has died.
    dead: OnceLock<&'static str>,
    accepting: AtomicBool,
    pub(super) room: Wanted,
    pub(super) sweep: Appointment,
    /// All workers have been busy, and the acceptor sees to it that nobody waits for them too long.
    watched: AtomicBool,
}

impl Control {
    pub(super) fn new(context: Arc<Context>, config: &Config) -> rustix::io::Result<Self> {
        Ok(Self {
            context,
            live: Live::new(config),
            open: Arc::default(),
            alive: Arc::default(),
            busy: AtomicUsize::new(0),
            bell: Bell::new()?,
            rounds: AtomicU64::new(0),
            dead: OnceLock::new(),
            accepting: AtomicBool::new(true),
            room: Wanted::default(),
            sweep: Appointment::new(Instant::now()),
            watched: AtomicBool::new(true),
        })
    }

    /// Takes these settings on, but for those that the gate goes by.
    pub(super) fn change(&self, config: &Config) {
        self.context.timeouts.set(config.timeouts);
        self.context.patience.set(config.patience);
        self.live.set(config);
        // What is parked may have expired by the new timeouts, and newcomers that wait may have room.
        self.sweep.make(Instant::now());
        self.bell.ring();
    }

    /// Begins to shut the server down.
    pub(super) fn drain(&self) {
        self.context.stage.drain();
        self.bell.ring();
    }

    /// Says that a thread of ours has died, without which the server is of no use.
    pub(super) fn died(&self, what: &'static str) {
        let _ = self.dead.set(what);
        self.drain();
    }

    pub(super) fn dead(&self) -> Option<&'static str> {
        self.dead.get().copied()
    }

    /// Says that the acceptor has gone round once more.
    pub(super) fn went_round(&self) {
        self.rounds.fetch_add(1, Relaxed);
    }

    pub(super) fn rounds(&self) -> u64 {
        self.rounds.load(Relaxed)
    }

    pub(super) fn accepting_ended(&self) {
        self.accepting.store(false, SeqCst);
    }

    /// Whether there is nothing left to do, now or ever.
    pub(super) fn finished(&self) -> bool {
        self.context.stage.is_cut() || (!self.accepting.load(SeqCst) && self.open.get() == 0)
    }

    /// A thread is busy with a connection for as long as it has this.
    pub(super) fn begin_work(&self) -> Busy<'_> {
        let busy = self.busy.fetch_add(1, Relaxed) + 1;
        self.context.counters.busy_highest.raise(busy as u64);
        Busy(self)
    }

    pub(super) fn busy(&self) -> usize {
        self.busy.load(Relaxed)
    }

    /// Says that a connection has ended; its socket is closed already.
    pub(super) fn connection_ended(&self) {
        self.room_made(Room::Connection);
        if self.context.stage.is_draining() && self.open.get() == 0 {
            self.bell.ring();
        }
    }

    /// Says that a worker or a connection's thread has ended.
    pub(super) fn thread_ended(&self) {
        if self.context.stage.is_draining() {
            self.bell.ring();
        }
    }

    /// Wakes the acceptor if it waits for this. Whoever calls it has made the room before.
    pub(super) fn room_made(&self, room: Room) {
        if self.room.wants(room) {
            self.room.want_none();
            self.bell.ring();
        }
    }

    /// Says that the last idle worker has become busy.
    pub(super) fn watch(&self) {
        if !self.watched.load(SeqCst) && !self.watched.swap(true, SeqCst) {
            self.bell.ring();
        }
    }

    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(SeqCst)
    }

    /// A worker is idle. Whoever calls it must look once more after this.
    pub(super) fn watch_no_more(&self) {
        self.watched.store(false, SeqCst);
    }

    /// Sees to it that the acceptor looks for expired sessions at this time or before.
    pub(super) fn sweep_at(&self, deadline: Instant) {
        if self.sweep.make(deadline) {
            self.bell.ring();
        }
    }
}

/// A thread that is busy with a connection.
#[derive(Debug)]
pub(super) struct Busy<'a>(&'a Control);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Relaxed);
    }
}
