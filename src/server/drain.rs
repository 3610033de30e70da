//! The server's end: what was accepted is finished, what is idle is closed, and what is left at the drain
//! timeout is cut. It knows no workers.

use std::{
    iter, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    acceptor::{Acceptor, Pause},
    door::Accepted,
    ending::Ending,
    parked::Parked,
    pool::Pool,
    queue::Class,
};
use crate::{
    net::{
        listener::{AcceptError, Listener},
        slots::Visit,
    },
    session::{
        handler::Handler,
        life::{GRACE, Session},
    },
};

/// How long handlers get to notice, once the drain timeout has passed and their sockets are
/// shut down.
const CUT_GRACE: Duration = Duration::from_millis(500);

/// For how long idle sessions are kept when the server begins to end, or a tenth of the drain timeout:
/// requests may be on their way, and are answered with the word that they are the last.
const FAREWELL: Duration = Duration::from_secs(1);

pub(super) struct Drain<H: Handler> {
    acceptor: Acceptor<H>,
    pool: Arc<Pool<H>>,
    spread: Spread,
    /// When idle sessions are closed.
    farewell: Instant,
    deadline: Instant,
}

impl<H: Handler> Drain<H> {
    pub(super) fn new(acceptor: Acceptor<H>) -> Self {
        let pool = Arc::clone(&acceptor.pool);
        let timeout = pool.control.live.drain_timeout();
        let now = Instant::now();
        Self {
            acceptor,
            spread: Spread::new(&pool.parked, timeout, now),
            pool,
            farewell: now + (timeout / 10).min(FAREWELL),
            deadline: now + timeout,
        }
    }

    /// Stops accepting, has everything finished that was accepted, and at the drain timeout shuts
    /// down what is left.
    pub(super) fn run(mut self) -> Ending {
        let pool = Arc::clone(&self.pool);
        self.leave_shared();
        self.empty_backlogs();
        drop(mem::take(&mut self.acceptor.listeners));
        pool.control.accepting_ended();
        while pool.control.alive.get() > 0 {
            if pool.control.finished() {
                pool.parked.ready.poller.ring();
            }
            self.wait(None);
            if Instant::now() >= self.deadline && pool.control.alive.get() > 0 {
                return self.cut();
            }
        }
        Ending::Drained
    }

    /// Waits for the bell, for a while at most, and then closes what has become idle or expired.
    fn wait(&mut self, until: Option<Instant>) {
        let sweep = self.acceptor.sweep_when_due();
        let now = Instant::now();
        let farewell = Some(self.farewell).filter(|&at| at > now);
        let earliest = [sweep, farewell, until].into_iter().flatten();
        let until = earliest.fold(self.deadline.min(now + GRACE), Instant::min);
        self.acceptor.wait(Pause { listen: false, until: Some(until) });
        if Instant::now() >= self.farewell {
            self.pool.service.context.stage.close_idle();
            self.close_idle();
        }
    }

    fn close_idle(&mut self) {
        let now = Instant::now();
        let (due, quiet) = (self.spread.due(now), self.spread.quiet(now));
        let mut left = due;
        let visit = |_, session: &mut Session<_>| {
            let is_idle = session.lingers().is_none() && session.may_end(now) && !session.has_unread_input();
            let is_spread = session.farewell().is_spread();
            if !is_idle || (is_spread && (left == 0 || now < session.since() + quiet)) {
                return Visit::Leave;
            }
            left -= usize::from(is_spread);
            Visit::Take
        };
        self.pool.parked.visit(visit, |session| self.pool.retire(session));
        self.spread.closed += due - left;
    }

    /// Leaves the listeners that others have as well, with their usual backlog: to shorten or empty it would
    /// turn away those whom the others are to serve.
    fn leave_shared(&mut self) {
        let usual = self.pool.control.live.backlog();
        self.acceptor.listeners.iter_mut().filter(|l| l.is_shared()).for_each(|l| l.set_backlog(usual));
        self.acceptor.listeners.retain_mut(|listener| !listener.is_shared() || listener.leave_shared());
    }

    /// Accepts those that wait in the backlogs: closing a listener would reset them.
    fn empty_backlogs(&mut self) {
        self.await_deferred();
        self.acceptor.listeners.iter_mut().for_each(Listener::close_backlog);
        for index in 0..self.acceptor.listeners.len() {
            while Instant::now() < self.deadline && self.take_from(index) {}
        }
    }

    /// Accepts for a while those whom the kernel has let in and left out until they speak.
    fn await_deferred(&mut self) {
        let now = Instant::now();
        let lately = now.checked_sub(GRACE).unwrap_or(now);
        let listeners = &mut self.acceptor.listeners;
        if !listeners.iter().any(|listener| listener.deferred_since(lately)) {
            return;
        }
        listeners.iter_mut().for_each(|listener| listener.defer(false));
        let until = self.deadline.min(now + GRACE);
        while Instant::now() < until {
            for index in 0..self.acceptor.listeners.len() {
                while Instant::now() < until && self.take_from(index) {}
            }
            self.acceptor.wait(Pause { listen: true, until: Some(until) });
        }
    }

    /// Takes the next one from a backlog, or waits until that is possible. Whether there may be more.
    fn take_from(&mut self, index: usize) -> bool {
        let now = Instant::now();
        let door = &mut self.acceptor.door;
        if let Some(room) = door.lacks(now) {
            self.pool.control.room.want(room);
            if door.lacks(now).is_some() {
                self.wait(None);
            }
            return true;
        }
        match self.acceptor.listeners[index].accept() {
            // Where an idle one has become busy at this moment, there is one more for a while.
            Ok(socket) => {
                self.acceptor.door.find_place(now);
                self.acceptor.admit(Accepted { socket, at: now, late: false }, Class::Usual);
            }
            Err(AcceptError::Connection(errno)) => self.acceptor.pass_over(errno),
            Err(AcceptError::Exhausted(errno)) => {
                let pause = self.acceptor.back_off(errno);
                self.wait(pause.until);
            }
            Err(AcceptError::Empty | AcceptError::Closed(_)) => return false,
        }
        true
    }

    /// Shuts down every connection that is left. A handler that is stuck cannot be ended: its
    /// client hears of the end, and its thread is left behind.
    fn cut(mut self) -> Ending {
        let pool = Arc::clone(&self.pool);
        pool.service.context.stage.cut();
        let cut =
            pool.reset_running() + cut_parked(&pool) + iter::from_fn(|| pool.queue.take()).map(drop).count();
        (0..cut).for_each(|_| pool.counters().cut.count());
        pool.parked.ready.poller.ring();
        let grace = Instant::now() + CUT_GRACE;
        while pool.control.alive.get() > 0 && Instant::now() < grace {
            self.acceptor.wait(Pause { listen: false, until: Some(grace) });
        }
        if cut == 0 && pool.control.alive.get() == 0 { Ending::Drained } else { Ending::Cut(cut) }
    }
}

/// Ends all parked sessions; how many were cut off.
fn cut_parked<H: Handler>(pool: &Pool<H>) -> usize {
    let mut parked = Vec::new();
    pool.parked.visit(|_, _| Visit::Take, |session| parked.push(session));
    let mut cut = 0;
    for mut session in parked {
        // One that lingers has its reply.
        if session.lingers().is_none() {
            session.reset_on_close();
            cut += 1;
        }
        pool.retire(session);
    }
    cut
}

/// How the ends of sessions that ask for it are spread over the drain, so that their clients do not all
/// come back at the same moment.
#[derive(Debug)]
struct Spread {
    began: Instant,
    /// When the last is closed.
    over: Duration,
    /// How many there are, and how many were closed.
    sessions: usize,
    closed: usize,
}

impl Spread {
    fn new<S>(parked: &Parked<S>, drain_timeout: Duration, now: Instant) -> Self {
        let mut sessions = 0;
        let count = |_, session: &mut Session<S>| {
            sessions += usize::from(session.farewell().is_spread());
            Visit::Leave
        };
        parked.visit(count, drop);
        // The rest of the time is for those that are not idle yet.
        Self { began: now, over: drain_timeout.mul_f64(0.8), sessions, closed: 0 }
    }

    /// For how long nothing must have moved for one of them to be idle: a reply may be on its way. In the
    /// end, that it has not begun will do.
    fn quiet(&self, now: Instant) -> Duration {
        if now >= self.began + self.over { Duration::ZERO } else { self.over / 2 }
    }

    /// How many may be closed now; those that came later count as well.
    fn due(&self, now: Instant) -> usize {
        let share = (now - self.began).as_secs_f64() / self.over.as_secs_f64();
        match share {
            1.0.. => usize::MAX,
            _ => ((self.sessions as f64 * share) as usize + 1).saturating_sub(self.closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpStream, thread};

    use super::*;
    use crate::{Next, Server, server::start::assemble};

    #[test]
    fn who_was_left_to_the_kernel_is_accepted_when_it_speaks_while_the_server_ends() {
        loop {
            let (config, mut listeners) = Server::builder().bind("127.0.0.1:0").listen().unwrap();
            let addr = listeners[0].addr();
            listeners[0].defer(true);
            let mut client = TcpStream::connect(addr).unwrap();
            let handler = |_: &mut crate::Connection<'_>| Ok(Next::Close);
            let mut drain = Drain::new(assemble(&config, listeners, handler).unwrap());
            let began = Instant::now();
            let speaks = thread::spawn(move || {
                thread::sleep(GRACE / 10);
                client.write_all(b"?").unwrap();
                Instant::now()
            });
            drain.empty_backlogs();
            // On a machine that is too busy it speaks too late.
            if speaks.join().unwrap() < began + GRACE / 2 {
                return assert_eq!(drain.acceptor.door.entrance.len(Class::Usual), 1);
            }
        }
    }
}
