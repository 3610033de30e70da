//! The acceptor: lets newcomers in, keeps the time of parked connections, and ends the server.

mod drain;
mod overdue;

use std::{
    collections::VecDeque,
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
    config::OnFull,
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
    overload::{Change, Verdict, Watch},
    sys::{
        clock::thread_cpu_time,
        wait::{poll_until, wait_until},
    },
};

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Drained,
    /// So many connections were still open at the drain timeout.
    Cut(usize),
    ListenerFailed(Errno),
}

/// A queue that is full by count is a burst for this long, and then overload, if no place was made.
const BURST: Duration = Duration::from_millis(100);
/// Newcomers for each worker that may be parked without passing through the queue before the workers
/// get a chance to be busy.
const DIRECT: usize = 16;
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
    /// When each of those in the queue was accepted; the first may have been taken already.
    queued: VecDeque<Instant>,
    /// Newcomers had to wait in the backlog, and not all of those are in yet.
    behind: bool,
    /// Since when there has been no place for a newcomer.
    stuck_since: Option<Instant>,
    /// When to see next whether somebody waits who ought not to, while all workers are busy.
    overdue_at: Instant,
    watch: Watch,
    moderation: Moderation,
    backoff: Backoff,
    /// Newcomers that may still be parked without passing through the queue.
    direct_left: usize,
    eviction: Eviction,
    /// A newcomer that was accepted when there turned out to be no room for it.
    pending: Option<OwnedFd>,
    /// Whose turn it is.
    first_listener: usize,
    next_sweep_allowed: Instant,
    /// None before the drain, like the next.
    spread: Option<Spread>,
    /// When idle connections are to be closed.
    farewell: Option<Instant>,
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
        Self {
            queued: VecDeque::new(),
            behind: false,
            stuck_since: None,
            overdue_at: now,
            watch: Watch::default(),
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
            farewell: None,
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
                    let overdue = self.refuse_overdue_when_due();
                    let report = self.report();
                    let until = [pause.until, sweep, overdue, report].into_iter().flatten().min();
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
        self.behind = false;
        self.follow_load(now);
        let moderate = self.moderation.caught_up(now);
        if let Some(nap) = self.pool.gate.nap(now).or(moderate) {
            thread::sleep(nap);
        }
        Ok(Pause { listen: true, until: None })
    }

    fn take_from(&mut self, index: usize) -> Result<Taken, Errno> {
        for _ in 0..BATCH {
            let now = Instant::now();
            let lacking = self.lacking(now);
            // A full house is of no concern as long as nobody is at the door.
            if lacking.is_some() && !self.is_awaited(index) {
                return Ok(Taken::All);
            }
            if let Some(room) = lacking
                && let Verdict::Hold(until) = self.turn_away(index, room, now)
            {
                self.behind = true;
                self.follow_load(now);
                return Ok(Taken::Pause(self.until_room(room, until)));
            }
            let started = if lacking.is_some() { thread_cpu_time() } else { Duration::ZERO };
            match self.accept(index) {
                Ok(socket) => {
                    // In turn, so that where there is little room, each has its share of it.
                    self.first_listener = (index + 1) % self.listeners.len();
                    let newcomer = Newcomer { socket, accepted: now, late: self.behind };
                    let replaces = self.pool.service.config.on_full == OnFull::DropOldest;
                    match lacking {
                        None => self.admit(newcomer),
                        Some(Room::Queue) if replaces => self.replace(newcomer, started),
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

    /// What to do with a newcomer for whom there is no room. Where the queue or the connections are at
    /// their bound by count, newcomers wait in the backlog as long as places are made.
    fn turn_away(&mut self, index: usize, room: Room, now: Instant) -> Verdict {
        let since = *self.stuck_since.get_or_insert(now);
        let gate = &self.pool.gate;
        let queued = self.queue.len();
        let longest = match room {
            Room::Queue if !gate.fits(now, queued + self.listeners[index].waiting()) => Duration::ZERO,
            Room::Queue => BURST,
            Room::Connection => gate.tolerance(),
        };
        if now < since + longest { Verdict::Hold(Some(since + longest)) } else { gate.turn_away(now) }
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
    fn lacking(&mut self, now: Instant) -> Option<Room> {
        let service = &self.pool.service;
        let queued = self.queue.len();
        if queued >= service.config.queue || !self.pool.gate.fits(now, queued) {
            return Some(Room::Queue);
        }
        let at_limit = service.control.open.load(SeqCst) >= service.config.max_connections;
        if at_limit && !self.eviction.is_possible(&self.pool.reactor, now) {
            return Some(Room::Connection);
        }
        self.stuck_since = None;
        None
    }

    fn admit(&mut self, newcomer: Newcomer) {
        let pool = Arc::clone(&self.pool);
        let control = &pool.service.control;
        if control.open.load(SeqCst) >= pool.service.config.max_connections {
            match self.eviction.evict(&pool.reactor, newcomer.accepted) {
                Some(mut idle) => {
                    if idle.phase != Phase::Linger {
                        control.counters.evicted.count();
                    }
                    if idle.second.is_some() {
                        idle.reset_on_close();
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
        pool.gate.admitted(newcomer.accepted, self.queue.len());
        self.moderation.newcomer();
        self.backoff = Backoff::new();
        control.counters.accepted.count();
        let direct = H::CLIENT_SPEAKS_FIRST && self.direct_left > 0 && !control.draining();
        if direct && pool.reactor.queue.has_idle_worker() {
            self.direct_left -= 1;
            return self.park(Conn::new(newcomer.socket, newcomer.accepted));
        }
        self.enqueue(newcomer);
    }

    fn enqueue(&mut self, newcomer: Newcomer) {
        let pool = Arc::clone(&self.pool);
        let control = &pool.service.control;
        self.queued.push_back(newcomer.accepted);
        // It is the only sender and has seen that there is room.
        if let Err(error) = self.queue.try_send(newcomer) {
            control.open.fetch_sub(1, SeqCst);
            return self.refuse(error.into_inner(), Room::Queue, thread_cpu_time());
        }
        let queued = self.queue.len();
        control.counters.queue_highest.raise(queued as u64);
        self.forget_taken(queued);
        pool.reactor.queue.announce();
    }

    /// Forgets those who have left the queue.
    fn forget_taken(&mut self, queued: usize) {
        self.queued.drain(..self.queued.len().saturating_sub(queued));
    }

    /// Parks a newcomer without a detour: its request is usually still on the way, and when it
    /// comes, it wakes an idle worker itself.
    fn park(&self, conn: Conn<H::State>) {
        let counters = &self.pool.service.control.counters;
        counters.waits.record(Duration::ZERO);
        match self.pool.park(conn, false, |_| true) {
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
        let accepted = newcomer.accepted;
        self.pool.refuse(Conn::new(newcomer.socket, newcomer.accepted), why, started);
        control.counters.refusals.record(accepted.elapsed());
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
    fn until_room(&mut self, room: Room, until: Option<Instant>) -> Pause {
        let now = Instant::now();
        self.pool.service.control.want_room(room);
        if self.lacking(now).is_some() {
            // A connection that may give way says nothing; it has to be looked for.
            let look = (room == Room::Connection).then_some(now + eviction::INTERVAL);
            return Pause { listen: false, until: [until, look].into_iter().flatten().min() };
        }
        self.pool.service.control.want_no_room();
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

    /// Keeps the backlogs short while people are refused: each would be a second, hidden queue.
    fn follow_load(&mut self, now: Instant) {
        let usual = self.pool.service.config.backlog;
        for listener in &mut self.listeners {
            let short = self.pool.gate.short_backlog(now, listener.addr().ip().is_loopback());
            listener.set_backlog(short.map_or(usual, |short| short.min(usual)));
        }
    }

    /// Says when an overload begins and when it is over. Gives when to look next, if at all.
    fn report(&mut self) -> Option<Instant> {
        let gate = &self.pool.gate;
        let now = Instant::now();
        if !gate.is_overloaded(now) && self.watch.next_look().is_none() {
            return None;
        }
        gate.look(now);
        let counters = &self.pool.service.control.counters;
        let turned_away = [
            &counters.refused_queue_full,
            &counters.refused_connections_full,
            &counters.refused_oldest,
            &counters.shed,
            &counters.gone,
        ];
        match self.watch.look(now, gate.is_overloaded(now), &turned_away.map(|counter| counter.get())) {
            Some(Change::Begun) => {
                counters.overloads_begun.count();
                let patience = self.pool.service.config.patience;
                tracing::warn!(?patience, "overloaded: more comes than can be served in time");
            }
            Some(Change::Ended { lasted, turned_away }) => {
                counters.overloads_ended.count();
                if let [queue_full, connections_full, oldest, shed, gone] = turned_away[..] {
                    tracing::warn!(
                        ?lasted,
                        refused_queue_full = queue_full,
                        refused_connections_full = connections_full,
                        refused_oldest = oldest,
                        shed,
                        gone,
                        "the overload is over"
                    );
                }
            }
            None => {}
        }
        [gate.next_look(now), self.watch.next_look()].into_iter().flatten().min()
    }

    /// Waits for newcomers, the bell or the time.
    fn wait(&mut self, pause: Pause) {
        self.direct_left = DIRECT * self.pool.service.config.workers;
        let paused = self.behind.then(Instant::now);
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
        if let Some(since) = paused {
            self.pool.service.control.counters.left_waiting_ms.add(since.elapsed().as_millis() as u64);
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
            self.pool.reactor.queue.announce();
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
