//! The acceptor: takes newcomers from the listeners to the door, keeps the time of parked sessions, and
//! reports overloads. It knows no workers.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
};

use super::{
    backoff::Backoff,
    door::{Accepted, Door},
    eviction,
    overdue::Overdue,
    pool::Pool,
    queue::{Class, Entrance},
    report::Reporter,
    room::Room,
    sweeper::Sweeper,
};
use crate::{
    net::listener::{AcceptError, Listener},
    overload::Verdict,
    session::handler::Handler,
    sys::{
        clock::thread_cpu_time,
        wait::{poll_until, wait_until},
    },
};

/// When to look again, while there is no room, for those who have had too much, or little.
const LOOK: Duration = Duration::from_millis(2);
/// Newcomers that turn out to be of sources that have not had little, of those for whom there was no room, before
/// there is some again.
const MISTAKEN: u32 = 4;
/// Newcomers taken from one listener before the others, and the time, get their turn.
const BATCH: usize = 64;

pub(super) struct Acceptor<H: Handler> {
    pub(super) pool: Arc<Pool<H>>,
    pub(super) door: Door<H>,
    pub(super) listeners: Vec<Listener>,
    sweeper: Sweeper,
    overdue: Overdue,
    reporter: Reporter,
    backoff: Backoff,
    /// Newcomers had to wait in the backlog, and not all of those are in yet.
    behind: bool,
    /// Whose turn it is.
    first_listener: usize,
    /// Of those that were let in without room since there was some.
    mistaken: u32,
}

/// What the acceptor waits for: newcomers or not, and until when at most.
pub(super) struct Pause {
    pub(super) listen: bool,
    pub(super) until: Option<Instant>,
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
    pub(super) fn new(pool: Arc<Pool<H>>, listeners: Vec<Listener>, entrance: Entrance) -> Self {
        let now = Instant::now();
        Self {
            door: Door::new(Arc::clone(&pool), entrance),
            pool,
            listeners,
            sweeper: Sweeper::new(now),
            overdue: Overdue::new(now),
            reporter: Reporter::default(),
            backoff: Backoff::new(),
            behind: false,
            first_listener: 0,
            mistaken: 0,
        }
    }

    /// Accepts until the server is to shut down, or a listener is of no more use.
    pub(super) fn run(&mut self) -> Result<(), Errno> {
        while !self.pool.service.context.stage.is_draining() {
            let pause = self.take_newcomers()?;
            let overdue = self.overdue.refuse_when_due(&mut self.door);
            let pool = &self.pool;
            let report =
                self.reporter.report(&pool.gate, pool.counters(), pool.service.context.patience.get());
            let until = [pause.until, self.sweep_when_due(), overdue, report].into_iter().flatten().min();
            if overdue.is_some() {
                self.advise_when_due();
            }
            self.wait(Pause { until, ..pause });
        }
        Ok(())
    }

    /// While all workers are busy: sees whether more of them would help, which is said in the log.
    fn advise_when_due(&self) {
        let (pool, now) = (&self.pool, Instant::now());
        if pool.advisor.is_due(now)
            && let Some(sample) = pool.sample(now)
        {
            pool.advisor.look(sample);
        }
    }

    pub(super) fn sweep_when_due(&mut self) -> Option<Instant> {
        self.sweeper.sweep_when_due(&self.pool)
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
        let moderate = self.door.moderation.caught_up(now);
        if let Some(nap) = self.pool.gate.nap(now).or(moderate) {
            self.door.announce();
            thread::sleep(nap);
        }
        Ok(Pause { listen: true, until: None })
    }

    fn take_from(&mut self, index: usize) -> Result<Taken, Errno> {
        for _ in 0..BATCH {
            let now = Instant::now();
            let mut lacking = self.door.lacks(now);
            // A full house is of no concern as long as nobody is at the door.
            if (lacking.is_some() || self.door.needs_place()) && !self.is_awaited(index) {
                return Ok(Taken::All);
            }
            if lacking.is_none() && !self.door.find_place(now) {
                lacking = Some(Room::Connection);
            }
            if lacking.is_none() {
                self.mistaken = 0;
            }
            if lacking == Some(Room::Queue) && self.admit_one_behind(index, now) {
                continue;
            }
            if let Some(room) = lacking
                && let Verdict::Hold(until) = self.door.turn_away(room, self.listeners[index].waiting(), now)
            {
                self.behind = true;
                self.follow_load(now);
                // Somebody may come for whom there is room.
                let soon = self.listeners[index].tells_apart().then_some(now + LOOK);
                let until = [until, soon].into_iter().flatten().min();
                return Ok(Taken::Pause(self.until_room(room, until)));
            }
            let started = if lacking.is_some() { thread_cpu_time() } else { Duration::ZERO };
            let listener = &mut self.listeners[index];
            let tells_apart = listener.tells_apart();
            let accepted = if lacking.is_some() { listener.accept_excess() } else { listener.accept() };
            match accepted {
                Ok(socket) => {
                    // In turn, so that where there is little room, each has its share of it.
                    self.first_listener = (index + 1) % self.listeners.len();
                    let accepted = Accepted { socket, at: now, late: self.behind };
                    match lacking {
                        None => {
                            let class =
                                if tells_apart { self.door.class_of(&accepted) } else { Class::Usual };
                            self.admit(accepted, class);
                        }
                        Some(room) => self.door.refuse(accepted, room, started),
                    }
                }
                Err(AcceptError::Empty) => {
                    let Some(room) = lacking else { return Ok(Taken::All) };
                    // Those who wait have not had too much, and are let in when there is room.
                    self.behind = true;
                    self.follow_load(now);
                    return Ok(Taken::Pause(self.until_room(room, Some(now + LOOK))));
                }
                Err(AcceptError::Connection(errno)) => self.pass_over(errno),
                Err(AcceptError::Exhausted(errno)) => return Ok(Taken::Pause(self.back_off(errno))),
                Err(AcceptError::Closed(errno)) => return Err(errno),
            }
        }
        Ok(Taken::Batch)
    }

    /// Lets somebody in for whom there is room.
    pub(super) fn admit(&mut self, accepted: Accepted, class: Class) {
        self.backoff = Backoff::new();
        self.door.admit(accepted, class);
    }

    /// Lets in somebody who is behind others, though there is no room for those; whether there was somebody.
    fn admit_one_behind(&mut self, index: usize, now: Instant) -> bool {
        // It may turn out to be one of the others, who are one too many then, but not for the queue.
        let may = self.mistaken < MISTAKEN && !self.door.has_full_queue(Class::Usual);
        // Nobody gives way to one who may not be there.
        if !may || self.door.needs_place() || !self.door.has_room_for(Class::Light, now) {
            return false;
        }
        let Some(socket) = self.listeners[index].accept_behind() else { return false };
        let accepted = Accepted { socket, at: now, late: self.behind };
        let class = self.door.class_of(&accepted);
        self.mistaken += u32::from(class != Class::Light);
        self.admit(accepted, class);
        true
    }

    fn is_awaited(&self, index: usize) -> bool {
        wait_until(&self.listeners[index], PollFlags::IN, Some(Instant::now())).unwrap_or(true)
    }

    pub(super) fn pass_over(&self, errno: Errno) {
        tracing::debug!(error = %errno, "a connection failed before it was accepted");
        self.pool.counters().accept_errors_connection.count();
    }

    /// Waits for room, unless it has been made meanwhile.
    fn until_room(&mut self, room: Room, until: Option<Instant>) -> Pause {
        let now = Instant::now();
        self.pool.control.room.want(room);
        if self.door.lacks(now).is_some() {
            // A session that may give way says nothing; it has to be looked for.
            let look = (room == Room::Connection).then_some(now + eviction::INTERVAL);
            return Pause { listen: false, until: [until, look].into_iter().flatten().min() };
        }
        self.pool.control.room.want_none();
        Pause { listen: true, until: Some(now) }
    }

    pub(super) fn back_off(&mut self, errno: Errno) -> Pause {
        let pause = self.backoff.pause();
        self.pool.counters().accept_errors_exhausted.count();
        if pause == Backoff::SHORTEST {
            tracing::warn!(error = %errno, "cannot accept; leaving newcomers in the backlog for a while");
        }
        Pause { listen: false, until: Some(Instant::now() + pause) }
    }

    /// Keeps the backlogs short while people are refused: each would be a second, hidden queue. While nobody is,
    /// and newcomers come thick and fast, they are left to the kernel until they have spoken.
    fn follow_load(&mut self, now: Instant) {
        let defers = self.pool.client_speaks_first() && self.door.moderation.naps();
        let usual = self.pool.control.live.backlog();
        for listener in &mut self.listeners {
            let short = self.pool.gate.short_backlog(now, listener.addr().ip().is_loopback());
            let told_apart = listener.tells_apart();
            listener.tell_apart(short.map(|_| self.pool.gate.headway(now)), now);
            if !told_apart && listener.tells_apart() {
                self.door.sort_by_turns();
            }
            listener.defer(defers && short.is_none());
            listener.set_backlog(short.map_or(usual, |short| short.min(usual)));
        }
    }

    /// Waits for newcomers, the bell or the time.
    pub(super) fn wait(&mut self, pause: Pause) {
        self.door.announce();
        self.door.renew_direct();
        let paused = self.behind.then(Instant::now);
        let bell = &self.pool.control.bell;
        let mut fds = vec![PollFd::new(bell, PollFlags::IN)];
        if pause.listen {
            fds.extend(self.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        }
        // It fails only for lack of memory; then the next round comes at once.
        let _ = poll_until(&mut fds, pause.until);
        if !fds[0].revents().is_empty() {
            bell.silence();
        }
        self.pool.control.went_round();
        if let Some(since) = paused {
            self.pool.counters().left_waiting_ms.add(since.elapsed().as_millis() as u64);
        }
    }
}
