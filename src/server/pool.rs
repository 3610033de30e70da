//! What the workers and the acceptor share, and what either does with a session that it has: refuse it,
//! park it, retire it. It knows neither the workers nor the acceptor.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use rustix::net::connect_unspec;

use super::{
    advice::Advice,
    advisor::{Advisor, Sample},
    config::Config,
    control::Control,
    handle::Inside,
    parked::Parked,
    queue::Exit,
    running::Running,
    sources::{self, SourceReport},
    workers::{self, Told, WorkersReport},
};
use crate::{
    metrics::{Counters, Gauges},
    net::slots::Parking,
    overload::{Gate, Shares, Source},
    session::{
        activity::Spent,
        handler::{Handler, Refusal},
        life::Session,
        linger::LINGERING,
        service::Service,
    },
    sys::{
        clock::{thread_cpu_time, us},
        peer, random,
        tcp_info::TcpInfo,
        threads::OnCpu,
    },
};

/// The source of who is at the other end of a connection.
pub(super) fn source_of(socket: &OwnedFd) -> Option<Source> {
    peer::addr(socket).map(Source::from)
}

#[derive(Debug)]
pub(super) struct Pool<H: Handler> {
    pub(super) service: Service<H>,
    pub(super) control: Arc<Control>,
    pub(super) parked: Arc<Parked<H::State>>,
    pub(super) queue: Exit,
    pub(super) gate: Gate,
    pub(super) shares: Shares,
    /// When the newcomer came who was taken last, by the ready line's clock.
    pub(super) taken_us: AtomicU64,
    /// What each worker is busy with.
    pub(super) running: Box<[Running]>,
    told: Told,
    pub(super) advisor: Advisor,
}

impl<H: Handler> Pool<H> {
    pub(super) fn new(
        service: Service<H>,
        config: &Config,
        control: Arc<Control>,
        queue: Exit,
    ) -> rustix::io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            service,
            control,
            parked: Arc::new(Parked::new(config.places * config.descriptors + LINGERING)?),
            queue,
            gate: Gate::new(config.terms(), now),
            shares: Shares::new(random::number(), now),
            taken_us: AtomicU64::new(0),
            running: (0..config.workers).map(|_| Running::nobody(now)).collect(),
            told: Told::default(),
            advisor: Advisor::new(config.workers, now),
        })
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.service.context.counters
    }

    /// The number of the acceptor's thread where threads are counted one by one: that after the workers'.
    pub(super) fn acceptors_number(&self) -> usize {
        self.running.len()
    }

    /// Whether nothing is said to clients before they have spoken.
    pub(super) fn client_speaks_first(&self) -> bool {
        // Who owes a PROXY line is parked by the worker that finds it missing: others owe none.
        H::CLIENT_SPEAKS_FIRST || self.service.context.entry.tls.is_some()
    }

    /// Where a client comes from, while that makes a difference.
    pub(super) fn source(&self, session: &Session<H::State>) -> Option<Source> {
        if !self.gate.is_tight() {
            return None;
        }
        let told = session.wire.ends().map(|ends| Source::from(ends.client));
        told.or_else(|| source_of(&session.wire.socket))
    }

    /// Whether a source has had little, as far as it is known.
    pub(super) fn has_had_little(&self, source: Option<Source>, now: Instant) -> bool {
        source.is_some_and(|source| self.shares.has_had_little(source, now))
    }

    /// Whether somebody waits in the queue or in the ready line.
    pub(super) fn has_work(&self) -> bool {
        !self.parked.ready.is_empty() || !self.queue.is_empty()
    }

    /// Resets the connections that workers are busy with; how many there were.
    pub(super) fn reset_running(&self) -> usize {
        let running = self.running.iter().filter_map(|running| running.socket(&self.parked));
        // To connect it to nothing resets it (connect(2)), and fails where the client is gone already.
        running.filter(|socket| connect_unspec(socket).is_ok()).count()
    }

    /// Tells the client no, and takes what that cost off the budget, since this thread's CPU time was
    /// `started`.
    pub(super) fn refuse(&self, mut session: Session<H::State>, why: Refusal, started: Duration) {
        if let Some(source) = self.source(&session) {
            self.shares.refused(source, Instant::now());
        }
        if self.service.refuse(&mut session, why) {
            match self.park(session, false, |_| true) {
                Parking::Parked => {}
                Parking::Returned(session) | Parking::Failed(session, _) => self.retire(session),
            }
        } else {
            self.retire(session);
        }
        let cost = thread_cpu_time() - started;
        self.counters().refusal_cpu_us.add(us(cost));
        self.gate.charge(cost);
    }

    /// Ends the session of somebody who has waited too long: it is told no, if it is still there. `thread` is
    /// the number of this worker, or the acceptor's.
    pub(super) fn shed(
        &self,
        session: Session<H::State>,
        info: Option<TcpInfo>,
        wait: Duration,
        now: Instant,
        thread: usize,
    ) {
        let counters = self.counters();
        counters.waits.record(thread, wait, 1);
        if info.is_some_and(|info| info.gone) {
            counters.gone.count();
            // A check or a scan connects and resets at once: who has not asked does not wait for an answer.
            if session.wire.heard() || session.wire.has_unread_input() {
                self.gate.gone(now, wait);
            }
            self.retire(session);
        } else {
            counters.shed.count();
            self.refuse(session, Refusal::Shed, thread_cpu_time());
        }
    }

    /// Parks the session, and sees to it that its deadline is kept.
    pub(super) fn park(
        &self,
        session: Session<H::State>,
        wake: bool,
        stay: impl FnOnce(&Session<H::State>) -> bool,
    ) -> Parking<Session<H::State>> {
        let mut deadline = None;
        // The timeouts are looked at with the slot locked: whoever changes them has the slots visited
        // afterwards, so that one of the two sees the other.
        let parking = self.parked.park(session, wake, |session| {
            deadline = Some(session.deadline(&self.service.context.timeouts));
            stay(session)
        });
        if let (Parking::Parked, Some(deadline)) = (&parking, deadline) {
            self.control.sweep_at(deadline);
        }
        parking
    }

    /// Releases the slot, closes, and says so.
    pub(super) fn retire(&self, mut session: Session<H::State>) {
        self.parked.release(&mut session);
        self.service.retire(session);
        self.control.connection_ended();
    }

    /// Takes these settings on; what workers and slots there are stays as it is.
    pub(super) fn change(&self, config: &Config) {
        let terms = config.terms();
        self.gate.change(terms.patience, terms.refusal_budget, Instant::now());
        self.control.change(config);
    }

    /// What was counted up to now, of which advice follows; none where the kernel does not say how long
    /// threads run.
    pub(super) fn sample(&self, now: Instant) -> Option<Sample> {
        Some(self.sample_of(now, self.told.spent(&self.running, now), self.told.on_cpu(&self.running)?))
    }

    /// The same where it is known already what the workers have spent.
    fn sample_of(&self, at: Instant, spent: Spent, on_cpu: OnCpu) -> Sample {
        let counters = self.counters();
        let (answered, waits) = (counters.answered.get(), counters.waits.total());
        Sample { at, answered, turned_away: counters.turned_away().iter().sum(), waits, spent, on_cpu }
    }
}

impl<H: Handler> Inside for Pool<H> {
    fn gauges(&self) -> Gauges {
        let (open, queued, busy) = (self.control.open.get(), self.queue.len(), self.control.busy());
        Gauges {
            connections_open: open as u64,
            // Whoever is neither in the queue nor with a worker: to count them would lock every slot.
            connections_parked: open.saturating_sub(queued + busy) as u64,
            queue_depth: queued as u64,
            busy_workers: busy as u64,
        }
    }

    fn workers(&self) -> (WorkersReport, Option<Advice>) {
        let now = Instant::now();
        let (spent, on_cpu) = (self.told.spent(&self.running, now), self.told.on_cpu(&self.running));
        let advice = on_cpu.and_then(|on_cpu| self.advisor.ask(self.sample_of(now, spent, on_cpu)));
        let longest = workers::longest(&self.running, now, |running| running.client(&self.parked));
        (workers::report(self.running.len(), spent, on_cpu, longest), advice)
    }

    fn sources(&self) -> Vec<SourceReport> {
        sources::report(self.shares.all(Instant::now()))
    }

    #[cfg(feature = "admin")]
    fn tolerance(&self) -> Duration {
        self.gate.tolerance()
    }
}
