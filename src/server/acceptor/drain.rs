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
        reactor::Visit,
        worker::Newcomer,
    },
    Acceptor, Ending, Pause,
};

/// How long handlers get to notice, once the drain timeout has passed and their sockets are
/// shut down.
const CUT_GRACE: Duration = Duration::from_millis(500);

impl<H: Handler> Acceptor<H> {
    /// Stops accepting, has everything finished that was accepted, and at the drain timeout shuts
    /// down what is left.
    pub(super) fn drain(mut self) -> Ending {
        let pool = Arc::clone(&self.pool);
        let control = &pool.service.control;
        let deadline = Instant::now() + pool.service.config.drain_timeout;
        self.close_idle();
        self.empty_backlogs(deadline);
        drop(mem::take(&mut self.listeners));
        control.accepting_ended();
        while control.alive.load(SeqCst) > 0 {
            if control.finished() {
                pool.reactor.ring();
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
        let until = sweep.into_iter().fold(deadline.min(Instant::now() + GRACE), Instant::min);
        self.wait(Pause { listen: false, until: Some(until) });
        self.close_idle();
    }

    fn close_idle(&self) {
        let now = Instant::now();
        let visit = |_, conn: &mut Conn<_>| {
            let idle = conn.phase != Phase::Linger && conn.may_end(now) && !conn.wire.has_unread_input();
            if idle { Visit::Take } else { Visit::Leave }
        };
        self.pool.reactor.visit_parked(visit, |conn| self.pool.service.retire(conn));
    }

    /// Accepts those that wait in the backlogs: closing a listener would reset them.
    fn empty_backlogs(&mut self, deadline: Instant) {
        self.listeners.iter_mut().for_each(Listener::close_backlog);
        for index in 0..self.listeners.len() {
            while Instant::now() < deadline {
                let now = Instant::now();
                if let Some(room) = self.full(now) {
                    self.pool.service.control.want_room(room);
                    if self.full(now).is_some() {
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
        let mut cut = pool.shut_down_running();
        let mut parked = Vec::new();
        pool.reactor.visit_parked(|_, _| Visit::Take, |conn| parked.push(conn));
        // One that lingers has its reply.
        cut += parked.iter().filter(|conn| conn.phase != Phase::Linger).count();
        parked.into_iter().for_each(|conn| pool.service.retire(conn));
        for newcomer in pool.queue.try_iter() {
            drop(newcomer);
            control.ended_connection();
            cut += 1;
        }
        (0..cut).for_each(|_| control.counters.cut.count());
        pool.reactor.ring();
        let grace = Instant::now() + CUT_GRACE;
        while control.alive.load(SeqCst) > 0 && Instant::now() < grace {
            self.wait(Pause { listen: false, until: Some(grace) });
        }
        if cut == 0 && control.alive.load(SeqCst) == 0 { Ending::Drained } else { Ending::Cut(cut) }
    }
}
