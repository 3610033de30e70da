//! A worker: takes sessions from the queue and from the ready line, and serves them until the server has
//! nothing left to do. It knows neither the acceptor nor what its handler does.

use std::{
    mem,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use super::{parked::Parked, pool::Pool, queue::Newcomer, room::Room, running::Running, turns::Turns};
use crate::{
    net::{
        input::Input,
        key::Key,
        lodging::{Landlord, Lodging},
        ready::{Event, Waker},
        slots::Parking,
    },
    overload::{Kind, Take, Wait},
    session::{
        activity::{Activity, At},
        exchange::{Outcome, Ran},
        handler::Handler,
        life::{Session, Told},
        sides::Host,
    },
    sys::{
        clock::{thread_cpu_time, us},
        tally::Counted,
        tcp_info::TcpInfo,
    },
};

/// Serves as the worker of this number, for as long as there is something to do. `alive`: it is one of
/// those that have not ended.
pub(super) fn run<H: Handler>(pool: &Pool<H>, index: usize, alive: Counted) {
    let running = &pool.running[index];
    let _alive = Alive { pool, running, counted: Some(alive) };
    let (input, turns, now) = (Input::new(), Turns::default(), Instant::now());
    running.started(now);
    let mut worker =
        Worker { pool, index, running, input, held: None, waited: None, wait: Duration::ZERO, turns, now };
    while let Some(session) = worker.next() {
        worker.attend(session);
    }
}

/// A worker's thread, however it ends.
struct Alive<'a, H: Handler> {
    pool: &'a Pool<H>,
    running: &'a Running,
    counted: Option<Counted>,
}

impl<H: Handler> Drop for Alive<'_, H> {
    fn drop(&mut self) {
        let control = &self.pool.control;
        if thread::panicking() {
            control.died("a worker");
        }
        self.running.activity.enter(At::Idle, Instant::now());
        // Each wakes the next, since an edge wakes but one.
        self.pool.parked.ready.poller.ring();
        self.counted = None;
        control.thread_ended();
    }
}

struct Worker<'a, H: Handler> {
    pool: &'a Pool<H>,
    index: usize,
    running: &'a Running,
    input: Input,
    /// An event that was taken while looking whether others wait.
    held: Option<Event>,
    /// How long the session at hand, which was kept, has waited at most if it has asked for something.
    waited: Option<Duration>,
    /// How long the client of the session at hand has waited for its turn, at most.
    wait: Duration,
    turns: Turns,
    /// The time when it last looked at the clock, which is when it last began to have something to
    /// do or was done with something.
    now: Instant,
}

impl<H: Handler> Worker<'_, H> {
    /// The next session to serve. None when there will be no more.
    fn next(&mut self) -> Option<Session<H::State>> {
        let pool = self.pool;
        loop {
            if pool.service.context.stage.is_cut() {
                return None;
            }
            let event = self.held.take().or_else(|| self.kept_turn());
            if let Some(session) = event.and_then(|event| self.heed(event)) {
                return Some(session);
            }
            if let Some(session) = self.newcomer() {
                return Some(session);
            }
            if let Some(session) = pool.parked.ready.take().and_then(|event| self.heed(event)) {
                return Some(session);
            }
            if pool.control.finished() {
                return None;
            }
            if let Some(session) = self.wait().and_then(|event| self.heed(event)) {
                return Some(session);
            }
        }
    }

    /// An event for the kept sessions' turn, while newcomers wait; none to let those go first.
    fn kept_turn(&mut self) -> Option<Event> {
        let (pool, ready) = (self.pool, &self.pool.parked.ready);
        let kept_first = || {
            let queued = ready.at(pool.taken_us.load(Relaxed));
            self.turns.kept_first(ready.oldest_after(), queued, pool.gate.is_tight())
        };
        let turn = ready.poller.is_used() && !pool.queue.is_empty() && kept_first();
        let event = turn.then(|| ready.poll()).flatten();
        if event.is_none() {
            self.turns.pass();
        }
        event
    }

    /// Waits for an event, unless there is a newcomer or nothing more to come.
    fn wait(&mut self) -> Option<Event> {
        let (pool, ready) = (self.pool, &self.pool.parked.ready);
        let idle_worker = ready.poller.begin_idle();
        let has_nothing = pool.queue.is_empty() && !pool.control.finished();
        let mut idle = false;
        let mut event = None;
        if has_nothing {
            self.now = Instant::now();
            self.running.activity.enter(At::Idle, self.now);
            event = ready.wait(&mut self.now, &mut idle);
            self.running.activity.enter(At::Handling, self.now);
        }
        if idle_worker.end() {
            pool.control.watch();
        }
        if idle {
            pool.gate.idle(self.now);
        }
        event
    }

    /// Takes the event's session, after seeing to it that whatever else is there gets a worker:
    /// this one is going to be busy.
    fn heed(&mut self, event: Event) -> Option<Session<H::State>> {
        let (pool, ready) = (self.pool, &self.pool.parked.ready);
        if pool.has_work() {
            ready.poller.announce_rest();
        }
        let session = pool.parked.take(event)?;
        (self.waited, self.wait) = (None, Duration::ZERO);
        if !session.asks() {
            return Some(session);
        }
        // It may have come at any time since.
        let wait = self.now.saturating_duration_since(ready.after(&event));
        self.wait = wait;
        match pool.gate.take(Kind::Kept, Wait::AtMost(wait), self.now, pool.queue.len()) {
            Take::Ask if session.wire.has_unread_input() => {
                let info = TcpInfo::of(&session.wire.socket);
                if let Some(came) = info.and_then(|info| self.now.checked_sub(info.age)) {
                    ready.had_come(came);
                }
                let (session, wait) = self.sift(session, Kind::Kept, Duration::ZERO, info)?;
                (self.waited, self.wait) = (wait, wait.unwrap_or_default());
                Some(session)
            }
            Take::Serve => {
                self.waited = Some(wait);
                Some(session)
            }
            Take::Ask | Take::Shed => Some(session),
        }
    }

    fn newcomer(&mut self) -> Option<Session<H::State>> {
        loop {
            let Some(newcomer) = self.pool.queue.take() else {
                self.pool.gate.no_line();
                return None;
            };
            if let Some(session) = self.receive(newcomer) {
                return Some(session);
            }
        }
    }

    /// The newcomer's session, unless it has waited too long.
    fn receive(&mut self, newcomer: Newcomer) -> Option<Session<H::State>> {
        let pool = self.pool;
        let left = pool.queue.len();
        if pool.has_work() {
            pool.parked.ready.poller.announce_rest();
        }
        if pool.control.room.wants(Room::Queue) && pool.gate.has_room(Instant::now(), left) {
            pool.control.room_made(Room::Queue);
        }
        self.now = Instant::now();
        let wait = self.now.saturating_duration_since(newcomer.accepted);
        pool.taken_us.store(pool.parked.ready.us(newcomer.accepted), Relaxed);
        let at_most = Wait::AtMost(if newcomer.late { Duration::MAX } else { wait });
        let session = newcomer.into_session();
        match pool.gate.take(Kind::Newcomer, at_most, self.now, left) {
            Take::Ask => {
                let info = TcpInfo::of(&session.wire.socket);
                let (session, wait) = self.sift(session, Kind::Newcomer, wait, info)?;
                self.wait = wait.unwrap_or_default();
                self.note_wait(wait);
                Some(session)
            }
            Take::Serve | Take::Shed => {
                self.wait = wait;
                self.note_wait(Some(wait));
                Some(session)
            }
        }
    }

    /// Takes note of how long somebody has waited, where that is known.
    fn note_wait(&self, wait: Option<Duration>) {
        if let Some(wait) = wait {
            self.pool.counters().waits.record(self.index, wait, 1);
        }
    }

    /// Ends the session if its client is gone, or has waited too long. `wait` is what is known of
    /// its wait. Gives the session otherwise, and how long it has waited if it has asked for something.
    fn sift(
        &self,
        session: Session<H::State>,
        kind: Kind,
        wait: Duration,
        info: Option<TcpInfo>,
    ) -> Option<(Session<H::State>, Option<Duration>)> {
        let pool = self.pool;
        let wait = info.map_or(wait, |info| wait.max(info.age));
        if info.is_some_and(|info| info.gone) {
            pool.shed(session, info, wait, self.now, self.index);
            return None;
        }
        // Who has not asked for anything yet does not wait for an answer.
        if pool.client_speaks_first() && !session.wire.has_unread_input() {
            return Some((session, None));
        }
        let is_light = pool.has_had_little(pool.source(&session), self.now);
        let kind = if is_light { Kind::Light } else { kind };
        if pool.gate.take(kind, Wait::Known(wait), self.now, pool.queue.len()) == Take::Shed {
            pool.shed(session, info, wait, self.now, self.index);
            return None;
        }
        Some((session, Some(wait)))
    }

    /// Serves a session until it is parked or has ended.
    fn attend(&mut self, session: Session<H::State>) {
        let pool = self.pool;
        let busy = pool.control.begin_work();
        self.running.begin(&session);
        let refused = (session.lingers() == Some(Told::Refusal)).then(thread_cpu_time);
        let is_newcomer = session.key.is_none();
        let (ended, answered, spent) = self.run_and_park(session);
        if is_newcomer || answered {
            pool.gate.turn(self.now, !pool.queue.is_empty());
        }
        match is_newcomer {
            true => self.turns.newcomer(spent),
            false => self.turns.kept(spent, answered),
        }
        self.running.end();
        if let Some(session) = ended {
            pool.retire(session);
        }
        if let Some(started) = refused {
            let cost = thread_cpu_time() - started;
            pool.counters().refusal_cpu_us.add(us(cost));
            pool.gate.charge_more(cost);
        }
        drop(busy);
    }

    /// Runs a session until it can be parked. Gives it where it has ended, whether it was answered, and
    /// the time that was spent on it.
    fn run_and_park(
        &mut self,
        mut session: Session<H::State>,
    ) -> (Option<Session<H::State>>, bool, Duration) {
        let pool = self.pool;
        let (mut any_answered, mut spent) = (false, Duration::ZERO);
        loop {
            self.running.activity.begin_call(self.now);
            let came = self.now.checked_sub(self.wait).unwrap_or(self.now);
            let mut host = WorkersHost { pool, running: self.running, held: &mut self.held, came };
            let Ran { outcome, answered, waited, consumed } =
                pool.service.run(&mut session, &mut self.input, &mut host);
            let began = mem::replace(&mut self.now, Instant::now());
            // Waiting for what a client sends is no service.
            let took = (self.now - began).saturating_sub(waited);
            if answered > 0 {
                pool.gate.answered(took / answered);
                pool.counters().services.record(self.index, took / answered, answered);
            }
            if let Some(wait) = self.waited.take().filter(|_| consumed || answered > 0) {
                self.note_wait(Some(wait));
            }
            any_answered |= answered > 0;
            spent += took;
            if let Some(source) = pool.source(&session) {
                pool.shares.spent(source, took, self.now);
            }
            if outcome == Outcome::Close {
                return (Some(session), any_answered, spent);
            }
            session.settle(self.now, consumed);
            match self.park(session, outcome == Outcome::Yield) {
                Parking::Parked => return (None, any_answered, spent),
                Parking::Returned(returned) => {
                    // What has come meanwhile came after the call had begun.
                    (self.waited, self.wait) = (Some(took), took);
                    session = returned;
                }
                Parking::Failed(session, error) => {
                    tracing::warn!(%error, "a connection cannot be parked and is closed");
                    pool.counters().failed.count();
                    return (Some(session), any_answered, spent);
                }
            }
        }
    }

    fn park(&mut self, session: Session<H::State>, wake: bool) -> Parking<Session<H::State>> {
        match self.park_once(session, wake) {
            // Its client was quick, but others came first.
            Parking::Returned(session) if others_wait(self.pool, &mut self.held) => {
                self.park_once(session, true)
            }
            parking => parking,
        }
    }

    fn park_once(&self, session: Session<H::State>, wake: bool) -> Parking<Session<H::State>> {
        let stage = &self.pool.service.context.stage;
        // The stage is looked at with the slot locked: the acceptor changes it first and visits
        // the slots then, so that one of the two sees the other.
        let stay = |session: &Session<_>| {
            let may_end = || session.lingers().is_none() && session.may_end(Instant::now());
            // Ends that are spread over the drain are the acceptor's to make.
            wake || session.farewell().is_spread() || !stage.closes_idle() || !may_end()
        };
        self.pool.park(session, wake, stay)
    }
}

/// What a session may ask of the pool while it runs.
struct WorkersHost<'a, H: Handler> {
    pool: &'a Pool<H>,
    running: &'a Running,
    held: &'a mut Option<Event>,
    /// When what it is run for came, or earlier.
    came: Instant,
}

impl<H: Handler> Host for WorkersHost<'_, H> {
    fn others_wait(&mut self) -> bool {
        others_wait(self.pool, self.held)
    }

    fn key(&self, key: &mut Option<Key>, socket: &Arc<OwnedFd>) -> Option<Key> {
        self.pool.parked.key(key, socket)
    }

    fn waker(&self, key: Key) -> Option<Waker> {
        Some(self.pool.parked.waker(key))
    }

    fn activity(&self) -> Option<&Activity> {
        Some(&self.running.activity)
    }

    fn client_is(&self, client: SocketAddr) {
        self.running.client_is(client);
    }

    fn came(&self) -> Instant {
        self.came
    }

    fn tolerance(&self) -> Duration {
        self.pool.gate.tolerance()
    }

    fn lodge(&self, socket: &Arc<OwnedFd>) -> Option<Lodging> {
        let landlord: Arc<dyn Landlord> = Arc::<Parked<H::State>>::clone(&self.pool.parked);
        Lodging::new(landlord, socket)
    }
}

/// Whether somebody else could be served now. An event that says so is held: it comes once.
fn others_wait<H: Handler>(pool: &Pool<H>, held: &mut Option<Event>) -> bool {
    if !pool.queue.is_empty() {
        return true;
    }
    debug_assert!(held.is_none());
    if pool.parked.ready.poller.may_have_idle_worker() {
        return false;
    }
    *held = pool.parked.ready.poll();
    // Looking may have heard the bell, which was for the queue.
    held.is_some() || !pool.queue.is_empty()
}
