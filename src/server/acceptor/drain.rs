//! The server's end: by ownership, since the acceptor has the only sender of the queue.

use std::{
    mem,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use super::{
    super::{
        conn::{Conn, GRACE, Phase},
        handler::Handler,
        listener::{AcceptError, Listener},
        reactor::{Reactor, Visit},
        worker::Newcomer,
    },
    Acceptor, Ending, Pause,
};

/// How long handlers get to notice, once the drain timeout has passed and their sockets are
/// shut down.
const CUT_GRACE: Duration = Duration::from_millis(500);

/// For how long idle connections are kept when the server begins to end, or a tenth of the drain timeout:
/// requests may be on their way, and are answered with the word that they are the last.
const FAREWELL: Duration = Duration::from_secs(1);

/// How the ends of idle relays are spread over the drain, so that their clients do not all come
/// back at the same moment.
#[derive(Debug)]
pub(super) struct Spread {
    began: Instant,
    /// When the last is closed.
    over: Duration,
    relays: usize,
    closed: usize,
}

impl Spread {
    fn new<S>(reactor: &Reactor<S>, drain_timeout: Duration) -> Self {
        let mut relays = 0;
        let count = |_, conn: &mut Conn<S>| {
            relays += usize::from(conn.second.is_some());
            Visit::Leave
        };
        reactor.visit_parked(count, drop);
        // The rest of the time is for those that are not idle yet.
        Self { began: Instant::now(), over: drain_timeout.mul_f64(0.8), relays, closed: 0 }
    }

    /// For how long nothing must have moved for a relay to be idle: a reply may be on its way. In the
    /// end, that it has not begun will do.
    fn quiet(&self, now: Instant) -> Duration {
        if now >= self.began + self.over { Duration::ZERO } else { self.over / 2 }
    }

    /// How many may be closed now; those that came later count as well.
    fn due(&self, now: Instant) -> usize {
        let share = (now - self.began).as_secs_f64() / self.over.as_secs_f64();
        match share {
            1.0.. => usize::MAX,
            _ => ((self.relays as f64 * share) as usize + 1).saturating_sub(self.closed),
        }
    }
}

impl<H: Handler> Acceptor<H> {
    /// Stops accepting, has everything finished that was accepted, and at the drain timeout shuts
    /// down what is left.
    pub(super) fn drain(mut self) -> Ending {
        let pool = Arc::clone(&self.pool);
        let control = &pool.service.control;
        let spread = Spread::new(&pool.reactor, pool.service.config.drain_timeout);
        let deadline = spread.began + pool.service.config.drain_timeout;
        let farewell = spread.began + (pool.service.config.drain_timeout / 10).min(FAREWELL);
        self.spread = Some(spread);
        self.farewell = Some(farewell);
        self.empty_backlogs(deadline);
        drop(mem::take(&mut self.listeners));
        control.accepting_ended();
        while control.alive.load(SeqCst) > 0 {
            if control.finished() {
                pool.reactor.queue.ring();
            }
            self.wait_draining(deadline);
            if Instant::now() >= deadline && control.alive.load(SeqCst) > 0 {
                return self.cut();
            }
        }
        Ending::Drained
    }

    /// Waits for the bell, for a while at most, and then closes what has become idle or expired.
    fn wait_draining(&mut self, deadline: Instant) {
        let sweep = self.sweep_when_due();
        let now = Instant::now();
        let farewell = self.farewell.filter(|&at| at > now);
        let until = sweep.into_iter().chain(farewell).fold(deadline.min(now + GRACE), Instant::min);
        self.wait(Pause { listen: false, until: Some(until) });
        if self.farewell.is_none_or(|at| Instant::now() >= at) {
            self.pool.service.control.close_idle();
            self.close_idle();
        }
    }

    fn close_idle(&mut self) {
        let now = Instant::now();
        let (mut relays, quiet) =
            self.spread.as_ref().map_or((0, Duration::ZERO), |spread| (spread.due(now), spread.quiet(now)));
        let due = relays;
        let visit = |_, conn: &mut Conn<_>| {
            let idle = conn.phase != Phase::Linger && conn.may_end(now) && !conn.has_unread_input();
            if !idle || (conn.second.is_some() && (relays == 0 || now < conn.since + quiet)) {
                return Visit::Leave;
            }
            relays -= usize::from(conn.second.is_some());
            Visit::Take
        };
        self.pool.reactor.visit_parked(visit, |conn| self.pool.service.retire(conn));
        if let Some(spread) = &mut self.spread {
            spread.closed += due - relays;
        }
    }

    /// Accepts those that wait in the backlogs: closing a listener would reset them.
    fn empty_backlogs(&mut self, deadline: Instant) {
        self.listeners.iter_mut().for_each(Listener::close_backlog);
        for index in 0..self.listeners.len() {
            while Instant::now() < deadline {
                let now = Instant::now();
                if let Some(room) = self.lacking(now) {
                    self.pool.service.control.want_room(room);
                    if self.lacking(now).is_some() {
                        self.wait_draining(deadline);
                    }
                    continue;
                }
                match self.accept(index) {
                    Ok(socket) => self.admit(Newcomer { socket, accepted: now, late: false }),
                    Err(AcceptError::Connection(errno)) => self.pass_over(errno),
                    Err(AcceptError::Exhausted(errno)) => {
                        let pause = self.back_off(errno);
                        self.wait_draining(pause.until.map_or(deadline, |until| until.min(deadline)));
                    }
                    Err(AcceptError::Empty | AcceptError::Closed(_)) => break,
                }
            }
        }
    }

    /// Shuts down every connection that is left. A handler that is stuck cannot be ended: its
    /// client hears of the end, and its thread is left behind.
    fn cut(mut self) -> Ending {
        let pool = Arc::clone(&self.pool);
        let control = &pool.service.control;
        control.cut();
        let mut cut = pool.reset_running();
        let mut parked = Vec::new();
        pool.reactor.visit_parked(|_, _| Visit::Take, |conn| parked.push(conn));
        // One that lingers has its reply.
        cut += parked.iter().filter(|conn| conn.phase != Phase::Linger).count();
        for mut conn in parked {
            if conn.phase != Phase::Linger {
                conn.reset_on_close();
            }
            pool.service.retire(conn);
        }
        for newcomer in pool.queue.try_iter() {
            drop(newcomer);
            control.ended_connection();
            cut += 1;
        }
        (0..cut).for_each(|_| control.counters.cut.count());
        pool.reactor.queue.ring();
        let grace = Instant::now() + CUT_GRACE;
        while control.alive.load(SeqCst) > 0 && Instant::now() < grace {
            self.wait(Pause { listen: false, until: Some(grace) });
        }
        if cut == 0 && control.alive.load(SeqCst) == 0 { Ending::Drained } else { Ending::Cut(cut) }
    }
}
