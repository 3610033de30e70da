//! Looks for sessions whose time is over, when that is due. It knows neither newcomers nor listeners.

use std::time::{Duration, Instant};

use super::pool::Pool;
use crate::{
    net::slots::Visit,
    session::{handler::Handler, life::Session},
};

/// Between two looks for expired sessions, so that deadlines are kept to about this; where a
/// look takes longer than a hundredth of it, the interval grows.
const INTERVAL: Duration = Duration::from_millis(10);
const SHARE: u32 = 100;

#[derive(Debug)]
pub(super) struct Sweeper {
    next_allowed: Instant,
}

impl Sweeper {
    pub(super) fn new(now: Instant) -> Self {
        Self { next_allowed: now }
    }

    /// Closes what has expired, when the time for that has come; gives the next such time.
    pub(super) fn sweep_when_due<H: Handler>(&mut self, pool: &Pool<H>) -> Option<Instant> {
        let due = |allowed| pool.control.sweep.next().map(|at| at.max(allowed));
        if due(self.next_allowed)? <= Instant::now() {
            let took = sweep(pool);
            self.next_allowed = Instant::now() + INTERVAL.max(took * SHARE);
        }
        due(self.next_allowed)
    }
}

/// Looks at every parked session: with one deadline in each slot there is nothing else to
/// keep. The handler hears of those that have expired from a worker; what merely waits to be
/// gone is closed here. Gives how long it took.
fn sweep<H: Handler>(pool: &Pool<H>) -> Duration {
    let (service, ready) = (&pool.service, &pool.parked.ready);
    let started = Instant::now();
    let mut next: Option<Instant> = None;
    pool.control.sweep.begin();
    let visit = |key, session: &mut Session<_>| {
        let deadline = session.deadline(&service.context.timeouts);
        if session.is_to_run() {
            return Visit::Leave;
        }
        if deadline > started {
            next = Some(next.map_or(deadline, |next| next.min(deadline)));
            return Visit::Leave;
        }
        if !service.expire(session) {
            return Visit::Take;
        }
        ready.wake(key);
        Visit::Leave
    };
    pool.parked.visit(visit, |session| pool.retire(session));
    if let Some(next) = next {
        pool.control.sweep.make(next);
    }
    if !ready.is_empty() {
        ready.poller.announce();
    }
    started.elapsed()
}
