//! Nobody waits too long, whatever the workers do: while all of them are busy, this looks for those who
//! have waited longer than clients do, and tells them so. It knows no listeners.

use std::time::{Duration, Instant};

use super::{door::Door, pool::Pool};
use crate::{
    session::{handler::Handler, life::Session},
    sys::tcp_info::TcpInfo,
};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Overdue {
    /// When to look next, while all workers are busy.
    at: Instant,
}

impl Overdue {
    pub(super) fn new(now: Instant) -> Self {
        Self { at: now }
    }

    /// Tells those no who have waited too long, when the time for that has come; gives the next such
    /// time, if there is to be one.
    pub(super) fn refuse_when_due<H: Handler>(&mut self, door: &mut Door<H>) -> Option<Instant> {
        let control = &door.pool.control;
        if !control.is_watched() {
            return None;
        }
        let now = Instant::now();
        if now < self.at {
            return Some(self.at);
        }
        let poller = &door.pool.parked.ready.poller;
        if poller.has_idle_worker() {
            control.watch_no_more();
            // The last one may have become busy at this moment.
            if poller.has_idle_worker() {
                return None;
            }
            control.watch();
        }
        self.at = now + INTERVAL;
        refuse_newcomers(door, now);
        refuse_requests(&door.pool, now);
        Some(self.at)
    }
}

/// Those in the queue.
fn refuse_newcomers<H: Handler>(door: &mut Door<H>, now: Instant) {
    let too_late = door.pool.gate.too_late();
    while let Some((accepted, class)) = door.entrance.oldest()
        && now >= accepted + too_late
    {
        let Some(newcomer) = door.pool.queue.take_of(class) else { return };
        door.entrance.took_oldest(class);
        let wait = now.saturating_duration_since(newcomer.accepted);
        if wait < too_late {
            // A worker was quicker, and this is the one behind.
            return door.enqueue(newcomer, class);
        }
        let session = newcomer.into_session();
        if door.pool.client_speaks_first() && !session.wire.has_unread_input() {
            // It has not asked for anything yet.
            door.park(session);
        } else {
            let info = TcpInfo::of(&session.wire.socket);
            turn_out(&door.pool, session, info, wait, now);
        }
    }
}

/// Kept sessions whose request has come.
fn refuse_requests<H: Handler>(pool: &Pool<H>, now: Instant) {
    let ready = &pool.parked.ready;
    if !ready.poller.is_used() {
        return;
    }
    let too_late = pool.gate.too_late();
    for event in ready.gather() {
        let may_be_overdue = now >= ready.after(&event) + too_late;
        let mut info = None;
        let mut wait = Duration::ZERO;
        let is_overdue = |session: &Session<H::State>| {
            if may_be_overdue && session.asks() && session.wire.has_unread_input() {
                info = TcpInfo::of(&session.wire.socket);
                // One that goes on sending has waited since its first.
                wait = info.as_ref().map_or(Duration::ZERO, |info| info.age);
                wait = wait.max(now.saturating_duration_since(event.seen));
            }
            wait >= too_late || session.has_waited_in_vain()
        };
        if let Some(session) = pool.parked.take_if(event.key, is_overdue) {
            turn_out(pool, session, info, wait, now);
        }
    }
    // What was gathered rings no worker any more, and neither does a bell that was heard meanwhile.
    ready.poller.announce();
}

fn turn_out<H: Handler>(
    pool: &Pool<H>,
    session: Session<H::State>,
    info: Option<TcpInfo>,
    wait: Duration,
    now: Instant,
) {
    if !info.is_some_and(|info| info.gone) {
        pool.gate.refused(now);
    }
    pool.shed(session, info, wait, now, pool.acceptors_number());
}
