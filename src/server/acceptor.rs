//! The acceptor: lets newcomers in, keeps the time of parked connections, and ends the server.

mod drain;

use std::{
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
};

use self::drain::Spread;
use super::{
    admission::{Admission, Verdict},
    conn::{Conn, Phase},
    control::Room,
    eviction::{self, Eviction},
    handler::{Handler, Refusal},
    listener::{AcceptError, Listener},
    moderation::Moderation,
    reactor::{Parking, Visit},
    worker::{Newcomer, Pool},
};
use crate::{
    sys::clock::thread_cpu_time,
    sys::wait::{poll_until, wait_until},
};

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Drained,
    /// So many connections were still open at the drain timeout.
    Cut(usize),
    ListenerFailed(Errno),
}

/// Newcomers taken from one listener before the others, and the time, get their turn.
const BATCH: usize = 64;
/// Between two looks for expired connections, so that deadlines are kept to about this; where a
/// look takes longer than a hundredth of it, the interval grows.
const SWEEP_INTERVAL: Duration = Duration::from_millis(10);
const SWEEP_SHARE: u32 = 100;

/// For how long to leave the listeners alone after running out of descriptors or memory.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    const SHORTEST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(1);

    pub(super) fn new() -> Self {
        Self { next: Self::SHORTEST }
    }

    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(Self::LONGEST);
        pause
    }
}

pub(super) struct Acceptor<H: Handler> {
    pool: Arc<Pool<H>>,
    listeners: Vec<Listener>,
    queue: Sender<Newcomer>,
    admission: Admission,
    moderation: Moderation,
    backoff: Backoff,
    /// Newcomers that may still be parked without passing through the queue before the workers
    /// get a chance to be busy: as many as it holds, so that this is no way around it.
    direct_left: usize,
    eviction: Eviction,
    /// A newcomer that was accepted when there turned out to be no room for it.
    pending: Option<OwnedFd>,
    /// Whose turn it is.
    first_listener: usize,
    next_sweep_allowed: Instant,
    /// None before the drain.
    spread: Option<Spread>,
}

/// What the acceptor waits for: newcomers or not, and until when at most.
struct Pause {
    listen: bool,
    until: Option<Instant>,
}

/// How far newcomers were taken from a listener.
enum Taken {
    All,
    /// There may be more.
    Batch,
    /// They have to wait.
    Pause(Pause),
}

impl<H: Handler> Acceptor<H> {
    pub(super) fn new(pool: Arc<Pool<H>>, listeners: Vec<Listener>, queue: Sender<Newcomer>) -> Self {
        let now = Instant::now();
        let config = &pool.service.config;
        Self {
            admission: Admission::new(config.on_full, config.queue, config.workers, config.target, now),
            pool,
            listeners,
            queue,
            moderation: Moderation::new(now),
            backoff: Backoff::new(),
            direct_left: 0,
            eviction: Eviction::new(),
            pending: None,
            first_listener: 0,
            next_sweep_allowed: now,
            spread: None,
        }
    }

    /// Accepts until the server is to shut down, and then shuts it down.
    pub(super) fn run(mut self) -> Ending {
        let pool = Arc::clone(&self.pool);
        let mut failed = None;
        while !pool.service.control.draining() {
            match self.take_newcomers() {
                Ok(pause) => {
                    let sweep = self.sweep_when_due();
                    let until = [pause.until, sweep].into_iter().flatten().min();
                    self.wait(Pause { until, ..pause });
                }
                Err(errno) => {
                    tracing::error!(error = %errno, "a listener failed; shutting down");
                    failed = Some(Ending::ListenerFailed(errno));
                    pool.service.control.drain();
                }
            }
        }
        let ending = self.drain();
        failed.unwrap_or(ending)
    }

    /// Lets in whoever there is room for. Gives what to wait for, or the error of a listener that
    /// is of no more use.
    fn take_newcomers(&mut self) -> Result<Pause, Errno> {
        let listeners = self.listeners.len();
        let first = self.first_listener;
        let mut more = false;
        for index in (first..listeners).chain(0..first) {
            match self.take_from(index)? {
                Taken::All => {}
                Taken::Batch => more = true,
                Taken::Pause(pause) => return Ok(pause),
            }
        }
        let now = Instant::now();
        if more {
            return Ok(Pause { listen: true, until: Some(now) });
        }
        let at_ease = self.admission.is_at_ease();
        let until = self.admission.caught_up(now);
        if !at_ease {
            self.follow_load();
        }
        let nap = self.moderation.caught_up(now);
        if let Some(nap) = self.admission.nap().or(nap) {
            thread::sleep(nap);
        }
        Ok(Pause { listen: true, until })
    }

    fn take_from(&mut self, index: usize) -> Result<Taken, Errno> {
        for taken in 0..BATCH {
            let now = Instant::now();
            if taken > self.listeners[index].backlog() as usize {
                self.admission.pressed(now);
            }
            let full = self.full(now);
            // A full house is of no concern as long as nobody is at the door.
            if full.is_some() && !self.is_awaited(index) {
                return Ok(Taken::All);
            }
            let verdict = self.decide(index, now, full.is_some());
            if let Verdict::Wait(until) = verdict {
                return Ok(Taken::Pause(self.until_room(full, until)));
            }
            let started = if full.is_some() { thread_cpu_time() } else { Duration::ZERO };
            match self.accept(index) {
                Ok(socket) => {
                    // In turn, so that where there is little room, each has its share of it.
                    self.first_listener = (index + 1) % self.listeners.len();
                    let newcomer = Newcomer { socket, accepted: now, late: self.admission.is_behind() };
                    match full {
                        None => self.admit(newcomer),
                        Some(Room::Queue) if verdict == Verdict::Replace => self.replace(newcomer, started),
                        Some(room) => self.refuse(newcomer, room, started),
                    }
                }
                Err(AcceptError::Empty) => return Ok(Taken::All),
                Err(AcceptError::Connection(errno)) => self.pass_over(errno),
                Err(AcceptError::Exhausted(errno)) => return Ok(Taken::Pause(self.back_off(errno))),
                Err(AcceptError::Closed(errno)) => return Err(errno),
            }
        }
        Ok(Taken::Batch)
    }

    /// What to do with the next newcomer.
    fn decide(&mut self, index: usize, now: Instant, full: bool) -> Verdict {
        let overload = &self.pool.overload;
        let floods = || {
            let waiting = self.queue.len() + self.listeners[index].waiting();
            self.admission.is_flood(waiting, &overload.pace)
        };
        let stands = overload.line_stands(now) || (full && floods());
        if !full && !stands && self.admission.is_at_ease() {
            return Verdict::Admit;
        }
        let verdict = self.admission.decide(now, full, stands, &mut overload.budget.lock());
        self.follow_load();
        verdict
    }

    /// The newcomer that was accepted before there turned out to be no room, or a new one.
    fn accept(&mut self, index: usize) -> Result<OwnedFd, AcceptError> {
        self.pending.take().map_or_else(|| self.listeners[index].accept(), Ok)
    }

    fn is_awaited(&self, index: usize) -> bool {
        let now = Some(Instant::now());
        self.pending.is_some() || wait_until(&self.listeners[index], PollFlags::IN, now).unwrap_or(true)
    }

    fn pass_over(&self, errno: Errno) {
        tracing::debug!(error = %errno, "a connection failed before it was accepted");
        self.pool.service.control.counters.accept_errors_connection.count();
    }

    /// What there is no room in, if anything. A place that an idle connection can give up is room.
    fn full(&mut self, now: Instant) -> Option<Room> {
        let service = &self.pool.service;
        if self.queue.len() >= self.pool.overload.limit() {
            return Some(Room::Queue);
        }
        let at_limit = service.control.open.load(SeqCst) >= service.config.max_connections;
        (at_limit && !self.eviction.is_possible(&self.pool.reactor, now)).then_some(Room::Connection)
    }

    fn admit(&mut self, newcomer: Newcomer) {
        let pool = Arc::clone(&self.pool);
        let control = &pool.service.control;
        if control.open.load(SeqCst) >= pool.service.config.max_connections {
            match self.eviction.evict(&pool.reactor, newcomer.accepted) {
                Some(idle) => {
                    if idle.phase != Phase::Linger {
                        control.counters.evicted.count();
                    }
                    pool.service.retire(idle);
                }
                None => {
                    self.pending = Some(newcomer.socket);
                    return;
                }
            }
        }
        control.open.fetch_add(1, SeqCst);
        self.admission.admitted();
        self.moderation.newcomer();
        self.backoff = Backoff::new();
        control.counters.accepted.count();
        let direct = H::CLIENT_SPEAKS_FIRST && self.direct_left > 0 && !control.draining();
        if direct && pool.has_idle_worker() {
            self.direct_left -= 1;
            return self.park(newcomer);
        }
        // It is the only sender and has seen that there is room.
        if let Err(error) = self.queue.try_send(newcomer) {
            control.open.fetch_sub(1, SeqCst);
            return self.refuse(error.into_inner(), Room::Queue, thread_cpu_time());
        }
        control.counters.queue_highest.raise(self.queue.len() as u64);
        pool.announce();
    }

    /// Parks a newcomer without a detour: its request is usually still on the way, and when it
    /// comes, it wakes an idle worker itself.
    fn park(&self, newcomer: Newcomer) {
        let counters = &self.pool.service.control.counters;
        counters.waited(Duration::ZERO);
        match self.pool.park(Conn::new(newcomer.socket, newcomer.accepted), false, |_| true) {
            Parking::Parked => {}
            Parking::Returned(conn) | Parking::Failed(conn, _) => {
                counters.failed.count();
                self.pool.retire(conn);
            }
        }
    }

    /// Tells the newcomer no. `started` is this thread's CPU time before it was accepted.
    fn refuse(&mut self, newcomer: Newcomer, room: Room, started: Duration) {
        let control = &self.pool.service.control;
        let (why, counter) = match room {
            Room::Queue => (Refusal::QueueFull, &control.counters.refused_queue_full),
            Room::Connection => (Refusal::ConnectionsFull, &control.counters.refused_connections_full),
        };
        counter.count();
        control.open.fetch_add(1, SeqCst);
        self.pool.refuse(Conn::new(newcomer.socket, newcomer.accepted), why, started);
        control.counters.refused_after(newcomer.accepted.elapsed());
    }

    /// Tells the one that has been in the queue longest no, and lets the newcomer in.
    fn replace(&mut self, newcomer: Newcomer, started: Duration) {
        if let Ok(oldest) = self.pool.queue.try_recv() {
            self.pool.service.control.counters.refused_oldest.count();
            self.pool.refuse(Conn::new(oldest.socket, oldest.accepted), Refusal::QueueFull, started);
        }
        self.admit(newcomer);
    }

    /// Waits for room, unless it has been made meanwhile.
    fn until_room(&mut self, room: Option<Room>, until: Option<Instant>) -> Pause {
        let now = Instant::now();
        if let Some(room) = room {
            self.pool.service.control.want_room(room);
            if self.full(now).is_some() {
                // A connection that may give way says nothing; it has to be looked for.
                let look = (room == Room::Connection).then_some(now + eviction::INTERVAL);
                return Pause { listen: false, until: [until, look].into_iter().flatten().min() };
            }
            self.pool.service.control.want_no_room();
        }
        Pause { listen: true, until: Some(now) }
    }

    fn back_off(&mut self, errno: Errno) -> Pause {
        let pause = self.backoff.pause();
        self.pool.service.control.counters.accept_errors_exhausted.count();
        if pause == Backoff::SHORTEST {
            tracing::warn!(error = %errno, "cannot accept; leaving newcomers in the backlog for a while");
        }
        Pause { listen: false, until: Some(Instant::now() + pause) }
    }

    /// Keeps the queue and the backlogs short while overloaded.
    fn follow_load(&mut self) {
        let overload = &self.pool.overload;
        overload.follow(self.admission.limit(&overload.pace), self.admission.is_tight());
        let (refusing, waiting) = self.admission.times();
        let counters = &self.pool.service.control.counters;
        counters.refusing_ms.raise(refusing.as_millis() as u64);
        counters.waiting_ms.raise(waiting.as_millis() as u64);
        let usual = self.pool.service.config.backlog;
        for listener in &mut self.listeners {
            let loopback = listener.addr().ip().is_loopback();
            let short = self.admission.short_backlog(loopback, &self.pool.overload.pace);
            listener.set_backlog(short.map_or(usual, |short| short.min(usual)));
        }
    }

    /// Waits for newcomers, the bell or the time.
    fn wait(&mut self, pause: Pause) {
        self.direct_left = self.pool.service.config.queue;
        let bell = &self.pool.service.control.bell;
        let mut fds = vec![PollFd::new(bell, PollFlags::IN)];
        if pause.listen {
            fds.extend(self.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        }
        // It fails only for lack of memory; then the next round comes at once.
        let _ = poll_until(&mut fds, pause.until);
        if !fds[0].revents().is_empty() {
            bell.silence();
        }
    }

    /// Closes what has expired, when the time for that has come; gives the next such time.
    fn sweep_when_due(&mut self) -> Option<Instant> {
        let control = Arc::clone(&self.pool.service.control);
        let due = |allowed| control.next_sweep().map(|at| at.max(allowed));
        if due(self.next_sweep_allowed)? <= Instant::now() {
            let took = self.sweep();
            self.next_sweep_allowed = Instant::now() + SWEEP_INTERVAL.max(took * SWEEP_SHARE);
        }
        due(self.next_sweep_allowed)
    }

    /// Looks at every parked connection: with one deadline in each slot there is nothing else to
    /// keep. The handler hears of those that have expired from a worker; what merely waits to be
    /// gone is closed here. Gives how long it took.
    fn sweep(&self) -> Duration {
        let service = &self.pool.service;
        let started = Instant::now();
        let mut next: Option<Instant> = None;
        service.control.begin_sweep();
        let visit = |_, conn: &mut Conn<_>| {
            let deadline = conn.deadline(&service.config);
            if conn.expired {
                return Visit::Leave;
            }
            if deadline > started {
                next = Some(next.map_or(deadline, |next| next.min(deadline)));
                return Visit::Leave;
            }
            if service.expire(conn) { Visit::Wake } else { Visit::Take }
        };
        self.pool.reactor.visit_parked(visit, |conn| service.retire(conn));
        service.control.end_sweep(next);
        if self.pool.reactor.has_ready() {
            self.pool.announce();
        }
        started.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backing_off_grows_to_a_second() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..9).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }
}
