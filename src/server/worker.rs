use std::{
    mem,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use rustix::net::connect_unspec;

use super::{
    conn::{Conn, Phase},
    control::Room,
    exchange::{Host, LINGER_CONNECTIONS, Outcome, Service},
    handler::{Handler, Refusal},
    reactor::{Event, Key, Parking, Reactor, Visit},
    runqueue::Waker,
    wire::Input,
};
use crate::{
    metrics::Gauges,
    overload::{Gate, Kind, Take, Wait},
    sys::{
        clock::{thread_cpu_time, us},
        tcp_info::TcpInfo,
    },
};

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
    pub(super) gate: Gate,
    /// When the newcomer came who was taken last, by the reactor's clock.
    taken_us: AtomicU64,
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

/// A difference that does not make one to clients.
const LITTLE: Duration = Duration::from_millis(10);
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
            gate: Gate::new(service.config.terms(), Instant::now()),
            taken_us: AtomicU64::new(0),
            running: (0..service.config.workers).map(|_| Running::nobody()).collect(),
            service,
        })
    }

    /// Resets the connections that workers are busy with; how many there were.
    pub(super) fn reset_running(&self) -> usize {
        let running = self.running.iter().filter_map(|running| running.socket(&self.reactor));
        // To connect it to nothing resets it (connect(2)), and fails where the client is gone already.
        running.filter(|socket| connect_unspec(socket).is_ok()).count()
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
        let cost = thread_cpu_time() - started;
        self.service.control.counters.refusal_cpu_us.add(us(cost));
        self.gate.charge(cost);
    }

    /// Ends the connection of somebody who has waited too long: it is told no, if it is still there.
    pub(super) fn shed(&self, conn: Conn<H::State>, info: Option<TcpInfo>, wait: Duration, now: Instant) {
        let counters = &self.service.control.counters;
        counters.waits.record(wait);
        if info.is_some_and(|info| info.gone) {
            counters.gone.count();
            self.gate.gone(now, wait);
            self.retire(conn);
        } else {
            counters.shed.count();
            self.refuse(conn, Refusal::Shed, thread_cpu_time());
        }
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
            connections_open: self.service.control.open.load(Relaxed) as u64,
            connections_parked: parked,
            queue_depth: self.queue.len() as u64,
            busy_workers: self.service.control.busy.load(Relaxed) as u64,
        }
    }
}

/// Takes connections and serves them until the server has nothing left to do.
pub(super) fn run<H: Handler>(pool: &Pool<H>, index: usize) {
    let _alive = Alive(pool);
    let input = Input::new();
    let mut worker = Worker { pool, index, input, held: None, owed: None, now: Instant::now() };
    while let Some(conn) = worker.next() {
        worker.attend(conn);
    }
}

/// A worker's thread, however it ends.
struct Alive<'a, H: Handler>(&'a Pool<H>);

impl<H: Handler> Drop for Alive<'_, H> {
    fn drop(&mut self) {
        let control = &self.0.service.control;
        if thread::panicking() {
            control.died("a worker");
        }
        // Each wakes the next, since an edge wakes but one.
        self.0.reactor.queue.ring();
        control.ended_thread();
    }
}

struct Worker<'a, H: Handler> {
    pool: &'a Pool<H>,
    index: usize,
    input: Input,
    /// An event that was taken while looking whether others wait.
    held: Option<Event>,
    /// The queue and the parked connections take turns. Now it is those', until a request was answered
    /// or so much time was spent on them: as much as on the newcomer before.
    owed: Option<Duration>,
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
        let turn = self.pool.reactor.is_used() && !self.pool.queue.is_empty() && self.parked_first();
        let event = turn.then(|| self.pool.reactor.poll()).flatten();
        if event.is_none() {
            self.owed = None;
        }
        event
    }

    /// Whether it is the parked connections' turn and not the queue's. Who came first goes first. Where
    /// that makes little difference, and in an overload, where kept connections would take everything
    /// since nobody decides at a door how many there are, they take turns.
    fn parked_first(&self) -> bool {
        let ready = self.pool.reactor.oldest_after();
        let queued = self.pool.reactor.at(self.pool.taken_us.load(Relaxed));
        match self.owed.is_some() {
            turn if self.pool.gate.is_tight() => turn,
            true => ready < queued + LITTLE,
            false => ready + LITTLE < queued,
        }
    }

    /// Waits for an event, unless there is a newcomer or nothing more to come.
    fn wait(&mut self) -> Option<Event> {
        let pool = self.pool;
        pool.reactor.queue.begin_idle();
        let has_nothing = pool.queue.is_empty() && !pool.service.control.finished();
        let mut idle = false;
        let event = if has_nothing { pool.reactor.wait(&mut self.now, &mut idle) } else { None };
        if pool.reactor.queue.end_idle() {
            pool.service.control.watch();
        }
        if idle {
            pool.gate.idle(self.now);
        }
        event
    }

    /// Takes the event's connection, after seeing to it that whatever else is there gets a worker:
    /// this one is going to be busy.
    fn heed(&mut self, event: Event) -> Option<Conn<H::State>> {
        let pool = self.pool;
        if pool.reactor.has_ready() || !pool.queue.is_empty() {
            pool.reactor.queue.announce_rest();
        }
        let conn = pool.reactor.take(event)?;
        if !conn.asks() {
            return Some(conn);
        }
        // It may have come at any time since.
        let wait = Wait::AtMost(self.now.saturating_duration_since(pool.reactor.after(&event)));
        match pool.gate.take(Kind::Kept, wait, self.now, pool.queue.len()) {
            Take::Ask if conn.wire.has_unread_input() => {
                let info = TcpInfo::of(&conn.wire.socket);
                if let Some(came) = info.and_then(|info| self.now.checked_sub(info.age)) {
                    pool.reactor.had_come(came);
                }
                self.sift(conn, Kind::Kept, Duration::ZERO, info)
            }
            Take::Serve | Take::Ask | Take::Shed => Some(conn),
        }
    }

    fn newcomer(&mut self) -> Option<Conn<H::State>> {
        let pool = self.pool;
        loop {
            let Ok(Newcomer { socket, accepted, late }) = pool.queue.try_recv() else {
                pool.gate.no_line();
                return None;
            };
            let left = pool.queue.len();
            if left > 0 || pool.reactor.has_ready() {
                pool.reactor.queue.announce_rest();
            }
            if pool.service.control.wants(Room::Queue) && pool.gate.has_room(Instant::now(), left) {
                pool.service.control.room_made(Room::Queue);
            }
            self.now = Instant::now();
            let wait = self.now.saturating_duration_since(accepted);
            pool.taken_us.store(pool.reactor.us(accepted), Relaxed);
            let conn = Conn::new(socket, accepted);
            let at_most = Wait::AtMost(if late { Duration::MAX } else { wait });
            let conn = match pool.gate.take(Kind::Newcomer, at_most, self.now, left) {
                Take::Ask => {
                    let info = TcpInfo::of(&conn.wire.socket);
                    self.sift(conn, Kind::Newcomer, wait, info)
                }
                Take::Serve | Take::Shed => {
                    pool.service.control.counters.waits.record(wait);
                    Some(conn)
                }
            };
            if conn.is_some() {
                return conn;
            }
        }
    }

    /// Ends the connection if its client is gone, or has waited too long. `wait` is what is known of
    /// its wait.
    fn sift(
        &self,
        conn: Conn<H::State>,
        kind: Kind,
        wait: Duration,
        info: Option<TcpInfo>,
    ) -> Option<Conn<H::State>> {
        let pool = self.pool;
        let wait = info.map_or(wait, |info| wait.max(info.age));
        if info.is_some_and(|info| info.gone) {
            pool.shed(conn, info, wait, self.now);
            return None;
        }
        // Who has not asked for anything yet does not wait for an answer.
        if H::CLIENT_SPEAKS_FIRST && !conn.wire.has_unread_input() {
            return Some(conn);
        }
        if pool.gate.take(kind, Wait::Known(wait), self.now, pool.queue.len()) == Take::Shed {
            pool.shed(conn, info, wait, self.now);
            return None;
        }
        pool.service.control.counters.waits.record(wait);
        Some(conn)
    }

    fn attend(&mut self, mut conn: Conn<H::State>) {
        let pool = self.pool;
        pool.service.control.begin_work();
        pool.running[self.index].begin(&conn);
        let refused = conn.refused.then(thread_cpu_time);
        let is_newcomer = conn.key.is_none();
        let (mut answered, mut spent) = (0, Duration::ZERO);
        let ended = loop {
            let mut host = WorkersHost { pool, held: &mut self.held };
            let ran = pool.service.run(&mut conn, &mut self.input, &mut host);
            let began = mem::replace(&mut self.now, Instant::now());
            // Waiting for what a client sends is no service.
            let took = (self.now - began).saturating_sub(ran.waited);
            if ran.answered > 0 {
                pool.gate.answered(took / ran.answered);
            }
            answered += ran.answered;
            spent += took;
            if ran.outcome == Outcome::Close {
                break Some(conn);
            }
            conn.settle(self.now);
            let parking = match self.park(conn, ran.outcome == Outcome::Yield) {
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
        if is_newcomer || answered > 0 {
            pool.gate.turn(self.now, !pool.queue.is_empty());
        }
        self.owed = match is_newcomer {
            true => Some(spent),
            false => self.owed.and_then(|owed| owed.checked_sub(spent)).filter(|_| answered == 0),
        };
        pool.running[self.index].end();
        if let Some(conn) = ended {
            pool.retire(conn);
        }
        if let Some(started) = refused {
            let cost = thread_cpu_time() - started;
            pool.service.control.counters.refusal_cpu_us.add(us(cost));
            pool.gate.charge_more(cost);
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
            wake || conn.second.is_some() || !control.closes_idle() || !may_end()
        };
        self.pool.park(conn, wake, stay)
    }
}

/// What a connection may ask of the pool while it runs.
struct WorkersHost<'a, H: Handler> {
    pool: &'a Pool<H>,
    held: &'a mut Option<Event>,
}

impl<H: Handler> Host for WorkersHost<'_, H> {
    fn others_wait(&mut self) -> bool {
        others_wait(self.pool, self.held)
    }

    fn waker(&self, key: &mut Option<Key>, socket: &Arc<OwnedFd>) -> Option<Waker> {
        self.pool.reactor.waker(key, socket)
    }
}

/// Whether somebody else could be served now. An event that says so is held: it comes once.
fn others_wait<H: Handler>(pool: &Pool<H>, held: &mut Option<Event>) -> bool {
    if !pool.queue.is_empty() {
        return true;
    }
    debug_assert!(held.is_none());
    if pool.reactor.queue.may_have_idle_worker() {
        return false;
    }
    *held = pool.reactor.poll();
    // Looking may have heard the bell, which was for the queue.
    held.is_some() || !pool.queue.is_empty()
}
