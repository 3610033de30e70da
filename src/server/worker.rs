use std::{
    mem,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
            fence,
        },
    },
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use rustix::net::{Shutdown, shutdown};

use super::{
    admission::Line,
    conn::{Conn, Phase},
    control::Room,
    exchange::{LINGER_CONNECTIONS, Outcome, Service},
    handler::{Handler, Refusal},
    metrics::Gauges,
    overload::Overload,
    reactor::{Event, Key, Parking, Reactor, Visit},
    wire::Input,
};
use crate::sys::{clock::thread_cpu_time, tcp_info::TcpInfo};

/// A connection in the queue.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) socket: OwnedFd,
    pub(super) accepted: Instant,
    /// It may have waited in the backlog before that.
    pub(super) late: bool,
}

/// What the workers and the acceptor share.
#[derive(Debug)]
pub(super) struct Pool<H: Handler> {
    pub(super) service: Service<H>,
    pub(super) reactor: Reactor<H::State>,
    pub(super) queue: Receiver<Newcomer>,
    pub(super) overload: Overload,
    /// Workers that wait for an event, or are about to.
    idle: AtomicUsize,
    /// What each worker is busy with, so that it can be shut down.
    running: Box<[Running]>,
}

/// The connection that a worker is busy with: its key, or its socket while it has no slot yet. (To
/// keep the socket always cost a hundredth of a kept request's CPU.)
#[derive(Debug)]
struct Running {
    key: AtomicU64,
    socket: Mutex<Option<Arc<OwnedFd>>>,
}

/// No key's number.
const NOBODY: u64 = u64::MAX;

impl Running {
    fn nobody() -> Self {
        Self { key: AtomicU64::new(NOBODY), socket: Mutex::new(None) }
    }

    fn begin<S>(&self, conn: &Conn<S>) {
        match conn.key {
            Some(key) => self.key.store(key.to_u64(), Release),
            None => *self.socket.lock() = Some(Arc::clone(&conn.wire.socket)),
        }
    }

    fn end(&self) {
        match self.key.load(Relaxed) {
            NOBODY => *self.socket.lock() = None,
            _ => self.key.store(NOBODY, Release),
        }
    }

    fn socket<S>(&self, reactor: &Reactor<S>) -> Option<Arc<OwnedFd>> {
        match self.key.load(Acquire) {
            NOBODY => self.socket.lock().clone(),
            key => reactor.socket(Key::from_u64(key)),
        }
    }
}

impl<H: Handler> Pool<H> {
    pub(super) fn new(service: Service<H>, queue: Receiver<Newcomer>) -> rustix::io::Result<Self> {
        Ok(Self {
            reactor: Reactor::new(service.config.max_connections + LINGER_CONNECTIONS)?,
            queue,
            overload: Overload::new(&service.config),
            idle: AtomicUsize::new(0),
            running: (0..service.config.workers).map(|_| Running::nobody()).collect(),
            service,
        })
    }

    /// Wakes a worker for the newcomer that the acceptor has put into the queue, if one is idle. A
    /// worker counts itself idle first and then looks at the queue once more, so that one of the
    /// two sees the other.
    pub(super) fn announce(&self) {
        fence(SeqCst);
        self.announce_rest();
    }

    /// Wakes another worker for what is left, if one is idle: newcomers for whom the bell was rung
    /// that this worker has heard, or events that it took along.
    fn announce_rest(&self) {
        if self.has_idle_worker() {
            self.reactor.ring_once();
        }
    }

    pub(super) fn has_idle_worker(&self) -> bool {
        self.idle.load(SeqCst) > 0
    }

    /// Shuts down the sockets that workers are busy with; how many there were.
    pub(super) fn shut_down_running(&self) -> usize {
        let running = self.running.iter().filter_map(|running| running.socket(&self.reactor));
        // It fails where the client is gone already.
        running.filter(|socket| shutdown(socket, Shutdown::Both).is_ok()).count()
    }

    /// Tells the client no, with the handler's text, or a reset where there is none, and takes what
    /// that cost off the budget, since this thread's CPU time was `started`.
    pub(super) fn refuse(&self, mut conn: Conn<H::State>, why: Refusal, started: Duration) {
        let text = self.service.refusal(why);
        if text.is_empty() {
            conn.wire.reset_on_close(true);
            self.retire(conn);
        } else if conn.wire.send(&text).is_ok() && self.service.start_lingering(&mut conn) {
            // A client that is gone needs no text, and the buffer takes it where nothing was sent.
            conn.refused = true;
            match self.park(conn, false, |_| true) {
                Parking::Parked => {}
                Parking::Returned(conn) | Parking::Failed(conn, _) => self.retire(conn),
            }
        } else {
            self.retire(conn);
        }
        self.overload.budget.lock().charge(thread_cpu_time() - started);
    }

    /// Parks the connection, and sees to it that its deadline is kept.
    pub(super) fn park(
        &self,
        conn: Conn<H::State>,
        wake: bool,
        stay: impl FnOnce(&Conn<H::State>) -> bool,
    ) -> Parking<H::State> {
        let deadline = conn.deadline(&self.service.config);
        let parking = self.reactor.park(conn, wake, stay);
        if matches!(parking, Parking::Parked) {
            self.service.control.sweep_at(deadline);
        }
        parking
    }

    /// Releases the slot, closes, and counts.
    pub(super) fn retire(&self, mut conn: Conn<H::State>) {
        self.reactor.release(&mut conn);
        self.service.retire(conn);
    }

    pub(super) fn gauges(&self) -> Gauges {
        let mut parked = 0;
        self.reactor.visit_parked(
            |_, _| {
                parked += 1;
                Visit::Leave
            },
            drop,
        );
        Gauges {
            open: self.service.control.open.load(Relaxed) as u64,
            parked,
            queued: self.queue.len() as u64,
            busy: self.service.control.busy.load(Relaxed) as u64,
            refusal_cost: self.overload.budget.lock().cost(),
        }
    }
}

/// Takes connections and serves them until the server has nothing left to do.
pub(super) fn run<H: Handler>(pool: &Pool<H>, index: usize) {
    let input = Input::new();
    let mut worker = Worker { pool, index, input, held: None, parked_next: false, now: Instant::now() };
    while let Some(conn) = worker.next() {
        worker.attend(conn);
    }
    // Each wakes the next, since an edge wakes but one.
    pool.reactor.ring();
    pool.service.control.ended_thread();
}

struct Worker<'a, H: Handler> {
    pool: &'a Pool<H>,
    index: usize,
    input: Input,
    /// An event that was taken while looking whether others wait.
    held: Option<Event>,
    /// The queue and the parked connections take turns.
    parked_next: bool,
    /// The time when it last looked at the clock, which is when it last began to have something to
    /// do or was done with something.
    now: Instant,
}

impl<H: Handler> Worker<'_, H> {
    /// The next connection to serve. None when there will be no more.
    fn next(&mut self) -> Option<Conn<H::State>> {
        let pool = self.pool;
        loop {
            if pool.service.control.is_cut() {
                return None;
            }
            let event = self.held.take().or_else(|| self.parked_turn());
            if let Some(conn) = event.and_then(|event| self.heed(event)) {
                return Some(conn);
            }
            if let Some(conn) = self.newcomer() {
                return Some(conn);
            }
            if let Some(conn) = pool.reactor.take_ready().and_then(|event| self.heed(event)) {
                return Some(conn);
            }
            if pool.service.control.finished() {
                return None;
            }
            if let Some(conn) = self.wait().and_then(|event| self.heed(event)) {
                return Some(conn);
            }
        }
    }

    /// An event for the parked connections' turn, while newcomers wait; none to let those go first.
    fn parked_turn(&mut self) -> Option<Event> {
        let turn = self.parked_next && self.pool.reactor.is_used() && !self.pool.queue.is_empty();
        self.parked_next = false;
        turn.then(|| self.pool.reactor.poll()).flatten()
    }

    /// Waits for an event, unless there is a newcomer or nothing more to come.
    fn wait(&mut self) -> Option<Event> {
        let pool = self.pool;
        pool.idle.fetch_add(1, SeqCst);
        let idle = pool.queue.is_empty() && !pool.service.control.finished();
        let event = if idle { pool.reactor.wait(&mut self.now) } else { None };
        pool.idle.fetch_sub(1, SeqCst);
        event
    }

    /// Takes the event's connection, after seeing to it that whatever else is there gets a worker:
    /// this one is going to be busy.
    fn heed(&mut self, event: Event) -> Option<Conn<H::State>> {
        if self.pool.reactor.has_ready() || !self.pool.queue.is_empty() {
            self.pool.announce_rest();
        }
        let conn = self.pool.reactor.take(event)?;
        let wait = self.now.saturating_duration_since(self.pool.reactor.after(&event));
        let asks = matches!(conn.phase, Phase::FirstByte | Phase::Idle | Phase::Request)
            && !(conn.again || conn.closing || conn.expired || conn.second.is_some());
        let line = &self.pool.overload.ready;
        if asks && wait <= self.pool.overload.unasked() {
            // It may have come at any time since, but even so it was in time.
            line.is_calm();
        } else if asks && conn.wire.has_unread_input() {
            let info = TcpInfo::of(&conn.wire.socket);
            if let Some(came) = info.and_then(|info| self.now.checked_sub(info.age)) {
                self.pool.reactor.had_come(came);
            }
            return self.sift(conn, line, Duration::ZERO, info);
        }
        Some(conn)
    }

    fn newcomer(&mut self) -> Option<Conn<H::State>> {
        let pool = self.pool;
        loop {
            let Ok(Newcomer { socket, accepted, late }) = pool.queue.try_recv() else {
                pool.overload.queued.is_calm();
                return None;
            };
            self.parked_next = true;
            let left = pool.queue.len();
            if left > 0 || pool.reactor.has_ready() {
                pool.announce_rest();
            }
            if left <= pool.overload.limit() / 2 {
                pool.service.control.room_made(Room::Queue);
            }
            self.now = Instant::now();
            let wait = self.now.saturating_duration_since(accepted);
            let conn = Conn::new(socket, accepted);
            let line = &pool.overload.queued;
            if !late && wait <= pool.overload.unasked() {
                line.is_calm();
                pool.service.control.counters.waited(wait);
                return Some(conn);
            }
            let info = TcpInfo::of(&conn.wire.socket);
            if let Some(conn) = self.sift(conn, line, wait, info) {
                return Some(conn);
            }
        }
    }

    /// Ends the connection if its client is gone, or has waited too long in a line that stands.
    /// `wait` is what is known of its wait.
    fn sift(
        &self,
        conn: Conn<H::State>,
        line: &Line,
        wait: Duration,
        info: Option<TcpInfo>,
    ) -> Option<Conn<H::State>> {
        let pool = self.pool;
        let counters = &pool.service.control.counters;
        if info.is_some_and(|info| info.gone) {
            counters.gone.count();
            pool.retire(conn);
            return None;
        }
        let wait = info.map_or(wait, |info| wait.max(info.age));
        counters.waited(wait);
        // Who has not asked for anything yet does not wait for an answer.
        if pool.overload.sheds(line, wait, self.now)
            && (!H::CLIENT_SPEAKS_FIRST || conn.wire.has_unread_input())
        {
            counters.shed.count();
            let started = thread_cpu_time();
            pool.refuse(conn, Refusal::Shed, started);
            return None;
        }
        Some(conn)
    }

    fn attend(&mut self, mut conn: Conn<H::State>) {
        let pool = self.pool;
        pool.service.control.begin_work();
        pool.running[self.index].begin(&conn);
        let refused = conn.refused.then(thread_cpu_time);
        let ended = loop {
            let held = &mut self.held;
            let outcome = pool.service.run(&mut conn, &mut self.input, &mut || others_wait(pool, held));
            let began = mem::replace(&mut self.now, Instant::now());
            pool.overload.pace.took(self.now - began);
            if outcome == Outcome::Close {
                break Some(conn);
            }
            conn.settle(self.now);
            let parking = match self.park(conn, outcome == Outcome::Yield) {
                // Its client was quick, but others came first.
                Parking::Returned(conn) if others_wait(pool, &mut self.held) => self.park(conn, true),
                parking => parking,
            };
            match parking {
                Parking::Parked => break None,
                Parking::Returned(returned) => conn = returned,
                Parking::Failed(conn, error) => {
                    tracing::warn!(%error, "a connection cannot be parked and is closed");
                    pool.service.control.counters.failed.count();
                    break Some(conn);
                }
            }
        };
        pool.running[self.index].end();
        if let Some(conn) = ended {
            pool.retire(conn);
        }
        if let Some(started) = refused {
            pool.overload.budget.lock().charge_more(thread_cpu_time() - started);
        }
        pool.service.control.end_work();
    }

    fn park(&self, conn: Conn<H::State>, wake: bool) -> Parking<H::State> {
        let control = &self.pool.service.control;
        // The stage is looked at with the slot locked: the acceptor changes it first and visits
        // the slots then, so that one of the two sees the other.
        let stay = |conn: &Conn<_>| {
            let may_end = || conn.phase != Phase::Linger && conn.may_end(Instant::now());
            // Relays are closed by the acceptor, spread over the time.
            wake || conn.second.is_some() || !control.draining() || !may_end()
        };
        self.pool.park(conn, wake, stay)
    }
}

/// Whether somebody else could be served now. An event that says so is held: it comes once.
fn others_wait<H: Handler>(pool: &Pool<H>, held: &mut Option<Event>) -> bool {
    if !pool.queue.is_empty() {
        return true;
    }
    debug_assert!(held.is_none());
    if pool.idle.load(Relaxed) > 0 {
        return false;
    }
    *held = pool.reactor.poll();
    // Looking may have heard the bell, which was for the queue.
    held.is_some() || !pool.queue.is_empty()
}
