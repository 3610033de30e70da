//! The upstreams: how many connections each has, who is up, and who waits for a place.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;

use super::{
    config::{AllDown, Config, UpstreamConfig},
    line,
    selection::{Candidate, Selection},
    status::{Snapshot, UpstreamStatus},
    tried::Tried,
};
use crate::{
    overload::{Change, Gate, Kind, Take, Terms, Wait, Watch},
    server::Waker,
    sys::wait::Bell,
};

type Line = line::Line<Lease>;
/// One that waits in line for a place at an upstream.
pub(super) type Waiter = line::Waiter<Lease>;
pub(super) type Turn = line::Turn<Lease>;

/// All upstreams and the line before them.
#[derive(Debug)]
pub(super) struct Upstreams {
    pub(super) all: Vec<Upstream>,
    config: Config,
    patience: Duration,
    /// Who may wait in line, and for how long.
    gate: Gate,
    /// Rings when an upstream has gone down, and is to be checked soon.
    pub(super) gone_down: Bell,
    shared: Mutex<Shared>,
}

/// One upstream; its counts are under the lock.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) name: String,
    /// All addresses of its name, at least one.
    addrs: Vec<SocketAddr>,
    /// Which of them is tried first: the one that was last connected to.
    first: AtomicUsize,
    weight: u32,
    /// Bytes sent to it and received from it.
    sent: AtomicU64,
    received: AtomicU64,
}

impl Upstream {
    pub(super) fn addrs(&self) -> usize {
        self.addrs.len()
    }

    /// The address for this attempt; the first is 0.
    pub(super) fn addr(&self, attempt: usize) -> SocketAddr {
        self.addrs[(self.first.load(Relaxed) + attempt) % self.addrs.len()]
    }

    pub(super) fn is_at(&self, is_it: impl Fn(SocketAddr) -> bool) -> bool {
        self.addrs.iter().any(|&addr| is_it(addr))
    }

    /// Counts bytes that were sent to it and received from it.
    pub(super) fn moved(&self, sent: u64, received: u64) {
        for (count, bytes) in [(&self.sent, sent), (&self.received, received)] {
            if bytes > 0 {
                count.fetch_add(bytes, Relaxed);
            }
        }
    }
}

#[derive(Debug)]
struct Shared {
    counts: Vec<Counts>,
    selection: Selection,
    line: Line,
    watch: Watch,
    refused_no_upstream: u64,
    refused_line_full: u64,
    shed: u64,
    gone: u64,
    overloads_begun: u64,
    overloads_ended: u64,
    /// When it was last said that this side is short of something.
    lack_reported: Option<Instant>,
}

#[derive(Debug, Clone, Default)]
struct Counts {
    down: bool,
    open: usize,
    connecting: usize,
    /// Connections made, and attempts that failed.
    connected: u64,
    failed: u64,
    /// Connects that were reset: it was there, but busy.
    busy: u64,
    /// Connects for which this side had no descriptor or port.
    lacked: u64,
    /// Checks in a row that speak against the state.
    checks_against: u32,
    /// Moments in a row at which connects failed, and the last of them.
    connects_against: u32,
    connect_failed: Option<Instant>,
    down_since: Option<Instant>,
    connect_time: Duration,
}

/// Failed connects within this time count as one: what matters is how long, not how many try.
const MOMENT: Duration = Duration::from_millis(100);
/// One that has gone down is checked as often as this,
pub(super) const OFTEN: Duration = Duration::from_millis(50);
/// for so long.
const RECENTLY: Duration = Duration::from_secs(10);
/// Between two reports that this side is short of something.
const REPORTS: Duration = Duration::from_secs(5);

/// What was found for a connection.
#[derive(Debug)]
pub(super) enum Place {
    /// A place at this upstream, which is held from now on.
    At(Lease),
    /// A place in the line.
    InLine(Arc<Waiter>),
    /// None, or none in time.
    Nowhere,
}

/// A place at an upstream, given back when dropped.
#[derive(Debug)]
pub(super) struct Lease {
    upstreams: Arc<Upstreams>,
    pub(super) index: usize,
    since: Instant,
    /// It is not yet connected.
    connecting: bool,
    /// Nothing came of it, so that it says nothing of how long requests take.
    in_vain: bool,
}

impl Lease {
    pub(super) fn upstream(&self) -> &Upstream {
        &self.upstreams.all[self.index]
    }

    /// Says that the connection was made.
    pub(super) fn connected(&mut self, attempt: usize) {
        if !std::mem::take(&mut self.connecting) {
            return;
        }
        let upstream = self.upstream();
        if attempt > 0 {
            let first = (upstream.first.load(Relaxed) + attempt) % upstream.addrs.len();
            upstream.first.store(first, Relaxed);
        }
        let mut shared = self.upstreams.shared.lock();
        let counts = &mut shared.counts[self.index];
        counts.connecting -= 1;
        counts.connected += 1;
        // It says nothing of what checks ask for, which the kernel does not do by itself.
        counts.connects_against = 0;
        // The weight of the latest is an eighth.
        let time = self.since.elapsed();
        counts.connect_time = match counts.connected {
            1 => time,
            _ => (counts.connect_time * 7 + time) / 8,
        };
        // There is room for another one to be connected.
        if self.upstreams.config.max_connections_per_upstream.is_none() {
            self.upstreams.gate.turn(Instant::now(), !shared.line.is_empty());
        }
        self.upstreams.serve_line(shared);
    }

    /// Says that the connection could not be made, and why.
    pub(super) fn failed(&self, errno: Errno) {
        self.upstreams.connect_failed(self.index, errno);
    }

    /// Says that the upstream was there, but has reset the connection.
    pub(super) fn was_busy(&mut self) {
        self.in_vain = true;
        self.upstreams.shared.lock().counts[self.index].busy += 1;
    }

    /// Says that this side had no descriptor or port for the connection.
    pub(super) fn lacked(&self, errno: Errno) {
        let mut shared = self.upstreams.shared.lock();
        shared.counts[self.index].lacked += 1;
        let now = Instant::now();
        if shared.lack_reported.is_none_or(|at| now >= at + REPORTS) {
            shared.lack_reported = Some(now);
            drop(shared);
            let upstream = &self.upstream().name;
            tracing::warn!(upstream, error = %errno, "this side cannot connect: it is short of descriptors, memory or ports");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let now = Instant::now();
        let gate = &self.upstreams.gate;
        let mut shared = self.upstreams.shared.lock();
        let counts = &mut shared.counts[self.index];
        counts.open -= 1;
        counts.connecting -= usize::from(self.connecting);
        let took = now - self.since;
        // One that lasts for longer than clients wait is no request, and says nothing of the next.
        if !(self.connecting || self.in_vain) && took <= self.upstreams.patience {
            gate.answered(took);
        }
        if self.upstreams.config.max_connections_per_upstream.is_some() {
            gate.turn(now, !shared.line.is_empty());
        }
        self.upstreams.serve_line(shared);
    }
}

/// A connection may last for as long as it likes, and it is not to be waited for ten times over.
const LONGEST: Duration = Duration::from_secs(5);
/// Connects under way at once to one upstream: one that swallows them is to hold few.
const CONNECTING: usize = 64;

impl Upstreams {
    pub(super) fn new(
        config: Config,
        addrs: Vec<Vec<SocketAddr>>,
        patience: Duration,
    ) -> rustix::io::Result<Arc<Self>> {
        let upstream = |(UpstreamConfig { name, weight }, addrs): (&UpstreamConfig, _)| Upstream {
            name: name.clone(),
            addrs,
            first: AtomicUsize::new(0),
            weight: *weight,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        };
        let all: Vec<_> = config.upstreams.iter().zip(addrs).map(upstream).collect();
        let shared = Shared {
            counts: vec![Counts::default(); all.len()],
            selection: Selection::new(config.policy, all.len()),
            line: Line::new(),
            watch: Watch::default(),
            refused_no_upstream: 0,
            refused_line_full: 0,
            shed: 0,
            gone: 0,
            overloads_begun: 0,
            overloads_ended: 0,
            lack_reported: None,
        };
        let servers = all.len() * config.max_connections_per_upstream.unwrap_or(CONNECTING);
        // Who waits here costs nothing more, so that there is no need to leave anybody waiting.
        let terms = Terms { patience, servers, refusal_budget: 1.0, longest: LONGEST };
        let gate = Gate::new(terms, Instant::now());
        Ok(Arc::new(Self {
            all,
            config,
            patience,
            gate,
            gone_down: Bell::new()?,
            shared: Mutex::new(shared),
        }))
    }

    /// A place for a connection that came at this time and was at those upstreams that it `tried`; a
    /// place in the line needs a `waker`.
    pub(super) fn place(
        self: &Arc<Self>,
        came: Instant,
        tried: &Tried,
        waker: impl FnOnce() -> Option<Waker>,
    ) -> Place {
        let now = Instant::now();
        let mut shared = self.shared.lock();
        let is_late = now >= came + self.gate.too_late();
        // Whoever of those in line could have it has it already. One that was elsewhere in vain for so
        // long is not sent from one to another for ever.
        if !(is_late && tried.is_any())
            && let Some(lease) = self.choose(&mut shared, tried, now)
        {
            return Place::At(lease);
        }
        let waiting = shared.line.len();
        let may_wait = !is_late && self.gate.fits(now, waiting);
        let Some(waker) = may_wait.then(waker).flatten() else {
            if self.may_come(&shared) {
                // Nobody is left where it is: it has been accepted.
                let _ = self.gate.turn_away(now);
                shared.refused_line_full += 1;
            } else {
                // All are down, which is no overload.
                shared.refused_no_upstream += 1;
            }
            drop(shared);
            self.report();
            return Place::Nowhere;
        };
        self.gate.admitted(now, waiting);
        Place::InLine(shared.line.join(came, tried.clone(), waker))
    }

    /// A place that is free at once, for a connection that came at this time and was at those upstreams,
    /// if it is not too late for it.
    pub(super) fn another(self: &Arc<Self>, came: Instant, tried: &Tried) -> Option<Lease> {
        let now = Instant::now();
        if now >= came + self.gate.too_late() {
            return None;
        }
        self.choose(&mut self.shared.lock(), tried, now)
    }

    /// Takes a waiter out of the line, whose client has gone or not.
    pub(super) fn leave(self: &Arc<Self>, waiter: &Waiter, gone: bool) {
        let now = Instant::now();
        let mut shared = self.shared.lock();
        if shared.line.leave(waiter) {
            if gone {
                shared.gone += 1;
                self.gate.gone(now, now - waiter.came);
            }
            self.serve_line(shared);
        }
    }

    /// Looks again whether there is a place for a waiter, of which some time has passed; until when it
    /// is to wait, if it still is to.
    pub(super) fn look_again(self: &Arc<Self>, waiter: &Waiter) -> Option<Instant> {
        let now = Instant::now();
        let mut shared = self.shared.lock();
        if now >= waiter.came + self.gate.too_late() {
            if shared.line.leave(waiter) {
                if self.may_come(&shared) {
                    shared.shed += 1;
                    self.gate.refused(now);
                } else {
                    // All are down, which is no overload.
                    shared.refused_no_upstream += 1;
                }
                waiter.give(Turn::Shed);
            }
            self.serve_line(shared);
            self.report();
            return None;
        }
        self.serve_line(shared);
        Some(self.waits_until(waiter))
    }

    /// Until when a waiter is to wait before it is looked at again.
    pub(super) fn waits_until(&self, waiter: &Waiter) -> Instant {
        let late = waiter.came + self.gate.too_late();
        waiter.tried.next_forgotten(Instant::now()).map_or(late, |forgotten| forgotten.min(late))
    }

    fn choose(self: &Arc<Self>, shared: &mut Shared, tried: &Tried, now: Instant) -> Option<Lease> {
        let candidates: Vec<_> = (0..self.all.len())
            .map(|index| Candidate {
                weight: self.all[index].weight,
                open: shared.counts[index].open,
                eligible: self.has_place(shared, index) && !tried.contains(index, now),
            })
            .collect();
        let index = shared.selection.choose(&candidates)?;
        shared.counts[index].open += 1;
        shared.counts[index].connecting += 1;
        Some(Lease { upstreams: Arc::clone(self), index, since: now, connecting: true, in_vain: false })
    }

    fn has_place(&self, shared: &Shared, index: usize) -> bool {
        let most = self.config.max_connections_per_upstream;
        let counts = &shared.counts[index];
        let free = most.is_none_or(|most| counts.open < most) && counts.connecting < CONNECTING;
        free && self.may_serve(shared, index)
    }

    fn may_serve(&self, shared: &Shared, index: usize) -> bool {
        let all_down = || shared.counts.iter().all(|counts| counts.down);
        !shared.counts[index].down || (self.config.all_down == AllDown::Try && all_down())
    }

    fn may_come(&self, shared: &Shared) -> bool {
        (0..self.all.len()).any(|index| self.may_serve(shared, index))
    }

    /// Gives places that are free to those who wait, and wakes them without the lock.
    fn serve_line(self: &Arc<Self>, mut shared: MutexGuard<'_, Shared>) {
        let now = Instant::now();
        let mut woken = Vec::new();
        while let Some(waiter) = self.next_in_line(&mut shared, now) {
            let wait = now.saturating_duration_since(waiter.came);
            if self.gate.take(Kind::Newcomer, Wait::Known(wait), now, shared.line.len()) == Take::Shed {
                shared.shed += 1;
                waiter.give(Turn::Shed);
            } else if let Some(lease) = self.choose(&mut shared, &waiter.tried, now) {
                waiter.give(Turn::Place(lease));
            }
            woken.push(waiter);
        }
        if shared.line.is_empty() {
            self.gate.no_line();
            if (0..self.all.len()).any(|index| self.has_place(&shared, index)) {
                self.gate.idle(now);
            }
        }
        drop(shared);
        woken.iter().for_each(|waiter| waiter.wake());
    }

    /// The first in line for whom there is a place.
    fn next_in_line(&self, shared: &mut Shared, now: Instant) -> Option<Arc<Waiter>> {
        if shared.line.is_empty() {
            return None;
        }
        let free: Vec<_> = (0..self.all.len()).filter(|&index| self.has_place(shared, index)).collect();
        if free.is_empty() {
            return None;
        }
        shared.line.take_first(|waiter| free.iter().any(|&index| !waiter.tried.contains(index, now)))
    }

    /// Says when an overload of the upstreams begins, and when it is over.
    pub(super) fn report(&self) {
        let now = Instant::now();
        let mut shared = self.shared.lock();
        if !self.gate.is_overloaded(now) && shared.watch.next_look().is_none() {
            return;
        }
        self.gate.look(now);
        let turned_away = [shared.refused_line_full, shared.shed, shared.gone];
        let change = shared.watch.look(now, self.gate.is_overloaded(now), &turned_away);
        match &change {
            Some(Change::Begun) => shared.overloads_begun += 1,
            Some(Change::Ended { .. }) => shared.overloads_ended += 1,
            None => {}
        }
        drop(shared);
        match change {
            Some(Change::Begun) => {
                tracing::warn!("the upstreams are overloaded: more comes than they can serve in time");
            }
            Some(Change::Ended { lasted, turned_away }) => {
                if let [line_full, shed, gone] = turned_away[..] {
                    tracing::warn!(
                        ?lasted,
                        refused_line_full = line_full,
                        shed,
                        gone,
                        "the upstreams' overload is over"
                    );
                }
            }
            None => {}
        }
    }

    /// Takes note of a connect that failed. What fails for a few moments in a row is down.
    fn connect_failed(self: &Arc<Self>, index: usize, errno: Errno) {
        let now = Instant::now();
        let mut shared = self.shared.lock();
        let counts = &mut shared.counts[index];
        counts.failed += 1;
        if counts.down || counts.connect_failed.is_some_and(|at| now < at + MOMENT) {
            return;
        }
        counts.connect_failed = Some(now);
        counts.connects_against += 1;
        if counts.connects_against >= self.config.fall {
            self.turn(shared, index, Err(&format!("connecting failed: {errno}")));
        }
    }

    /// Takes note of a check. An upstream changes its state after so many in a row that speak against
    /// it.
    pub(super) fn checked(self: &Arc<Self>, index: usize, result: Result<(), &str>) {
        let mut shared = self.shared.lock();
        let counts = &mut shared.counts[index];
        if result.is_ok() {
            counts.connects_against = 0;
        }
        if result.is_ok() != counts.down {
            counts.checks_against = 0;
            return;
        }
        counts.checks_against += 1;
        let needed = if counts.down { self.config.rise } else { self.config.fall };
        if counts.checks_against >= needed {
            self.turn(shared, index, result);
        }
    }

    /// Changes an upstream's state, for this reason.
    fn turn(self: &Arc<Self>, mut shared: MutexGuard<'_, Shared>, index: usize, result: Result<(), &str>) {
        let counts = &mut shared.counts[index];
        (counts.checks_against, counts.connects_against) = (0, 0);
        counts.down = result.is_err();
        counts.down_since = counts.down.then(Instant::now);
        let up = shared.counts.iter().filter(|counts| !counts.down).count();
        self.gate.set_servers(up * self.config.max_connections_per_upstream.unwrap_or(CONNECTING));
        // When the last one is down, they may be tried in spite of it.
        self.serve_line(shared);
        let upstream = &self.all[index].name;
        match result {
            Ok(()) => tracing::info!(upstream, "up again"),
            Err(cause) => {
                self.gone_down.ring();
                tracing::warn!(upstream, cause, "down");
            }
        }
    }

    /// Those that have gone down of late.
    pub(super) fn recently_down(&self) -> Vec<usize> {
        let now = Instant::now();
        let shared = self.shared.lock();
        let recently = |counts: &Counts| counts.down_since.is_some_and(|since| now < since + RECENTLY);
        (0..self.all.len()).filter(|&index| recently(&shared.counts[index])).collect()
    }

    /// A line for each upstream, and what is so for all of them.
    pub(super) fn snapshot(&self) -> Snapshot {
        let shared = self.shared.lock();
        let status = |(upstream, counts): (&Upstream, &Counts)| UpstreamStatus {
            name: upstream.name.clone(),
            addr: upstream.addr(0),
            up: !counts.down,
            open: counts.open - counts.connecting,
            connecting: counts.connecting,
            connected: counts.connected,
            failed: counts.failed,
            busy: counts.busy,
            lacked: counts.lacked,
            connect_time: counts.connect_time,
            sent: upstream.sent.load(Relaxed),
            received: upstream.received.load(Relaxed),
        };
        Snapshot {
            upstreams: self.all.iter().zip(&shared.counts).map(status).collect(),
            waiting: shared.line.len(),
            refused_no_upstream: shared.refused_no_upstream,
            refused_line_full: shared.refused_line_full,
            line_shed: shared.shed,
            line_gone: shared.gone,
            overloads_begun: shared.overloads_begun,
            overloads_ended: shared.overloads_ended,
        }
    }
}
