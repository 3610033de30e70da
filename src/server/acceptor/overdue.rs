//! Nobody waits too long, whatever the workers do: while all of them are busy, the acceptor looks for
//! those who have waited longer than clients do, and tells them so.

use std::time::{Duration, Instant};

use super::{
    super::{conn::Conn, handler::Handler},
    Acceptor,
};
use crate::sys::tcp_info::TcpInfo;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

impl<H: Handler> Acceptor<H> {
    /// Tells those no who have waited too long, when the time for that has come; gives the next such
    /// time, if there is to be one.
    pub(super) fn refuse_overdue_when_due(&mut self) -> Option<Instant> {
        let control = &self.pool.service.control;
        if !control.is_watched() {
            return None;
        }
        let now = Instant::now();
        if now < self.overdue_at {
            return Some(self.overdue_at);
        }
        if self.pool.reactor.queue.has_idle_worker() {
            control.watch_no_more();
            // The last one may have become busy at this moment.
            if self.pool.reactor.queue.has_idle_worker() {
                return None;
            }
            control.watch();
        }
        self.overdue_at = now + INTERVAL;
        self.refuse_overdue_newcomers(now);
        self.refuse_overdue_requests(now);
        Some(self.overdue_at)
    }

    fn turn_out(&self, conn: Conn<H::State>, info: Option<TcpInfo>, wait: Duration, now: Instant) {
        if !info.is_some_and(|info| info.gone) {
            self.pool.gate.refused(now);
        }
        self.pool.shed(conn, info, wait, now);
    }

    /// Those in the queue.
    fn refuse_overdue_newcomers(&mut self, now: Instant) {
        let too_late = self.pool.gate.too_late();
        loop {
            self.forget_taken(self.pool.queue.len());
            if self.queued.front().is_none_or(|&accepted| now < accepted + too_late) {
                return;
            }
            let Ok(newcomer) = self.pool.queue.try_recv() else { return };
            self.queued.pop_front();
            let wait = now.saturating_duration_since(newcomer.accepted);
            if wait < too_late {
                // A worker was quicker, and this is the one behind.
                return self.enqueue(newcomer);
            }
            let conn = Conn::new(newcomer.socket, newcomer.accepted);
            if H::CLIENT_SPEAKS_FIRST && !conn.wire.has_unread_input() {
                // It has not asked for anything yet.
                self.park(conn);
            } else {
                let info = TcpInfo::of(&conn.wire.socket);
                self.turn_out(conn, info, wait, now);
            }
        }
    }

    /// Kept connections whose request has come.
    fn refuse_overdue_requests(&self, now: Instant) {
        let pool = &self.pool;
        if !pool.reactor.is_used() {
            return;
        }
        let too_late = pool.gate.too_late();
        for event in pool.reactor.gather() {
            let may_be_overdue = now >= pool.reactor.after(&event) + too_late;
            let mut info = None;
            let mut wait = Duration::ZERO;
            let is_overdue = |conn: &Conn<H::State>| {
                if may_be_overdue && conn.asks() && conn.wire.has_unread_input() {
                    info = TcpInfo::of(&conn.wire.socket);
                    // One that goes on sending has waited since its first.
                    wait = info.as_ref().map_or(Duration::ZERO, |info| info.age);
                    wait = wait.max(now.saturating_duration_since(event.seen));
                }
                wait >= too_late || conn.has_waited_in_vain()
            };
            if let Some(conn) = pool.reactor.take_if(event.key, is_overdue) {
                self.turn_out(conn, info, wait, now);
            }
        }
        // What was gathered rings no worker any more, and neither does a bell that was heard meanwhile.
        pool.reactor.queue.announce();
    }
}
