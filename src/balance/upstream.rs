//! The upstreams: how many connections each has, who is up, and who waits for a place.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};

use super::{
    AllDown, Config, UpstreamConfig,
    line::{Line, Tried, Turn, Waiter},
    selection::{Candidate, Selection},
};
use crate::{
    overload::{Change, Gate, Kind, Take, Terms, Wait, Watch},
    server::Waker,
};

/// All upstreams and the line before them.
#[derive(Debug)]
pub(super) struct Upstreams {
    pub(super) all: Vec<Upstream>,
    config: Config,
    /// Who may wait in line, and for how long.
    gate: Gate,
    shared: Mutex<Shared>,
}

/// One upstream; its counts are under the lock.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) name: String,
    pub(super) addr: SocketAddr,
    weight: u32,
    /// Bytes sent to it and received from it.
    sent: AtomicU64,
    received: AtomicU64,
}

impl Upstream {
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
}

#[derive(Debug, Clone, Default)]
struct Counts {
    down: bool,
    open: usize,
    connecting: usize,
    /// Connections made, and attempts that failed.
    connected: u64,
    failed: u64,
    /// Checks and connects that agree with each other and not with the state.
    against: u32,
    connect_time: Duration,
}

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
}

impl Lease {
    pub(super) fn upstream(&self) -> &Upstream {
        &self.upstreams.all[self.index]
    }

    /// Says that the connection was made.
    pub(super) fn connected(&mut self) {
        if !std::mem::take(&mut self.connecting) {
            return;
        }
        let mut shared = self.upstreams.shared.lock();
        let counts = &mut shared.counts[self.index];
        counts.connecting -= 1;
        counts.connected += 1;
        counts.against = if counts.down { counts.against } else { 0 };
        // The weight of the latest is an eighth.
        let time = self.since.elapsed();
        counts.connect_time = match counts.connected {
            1 => time,
            _ => (counts.connect_time * 7 + time) / 8,
        };
        // There is room for another one to be connected.
        self.upstreams.serve_line(shared);
    }

    /// Says that the connection could not be made, and why.
    pub(super) fn failed(self, cause: &std::io::Error) {
        self.upstreams.judge(self.index, Err(&format!("connecting failed: {cause}")), false);
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
        if !self.connecting {
            gate.answered(now - self.since);
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
    pub(super) fn new(config: Config, addrs: Vec<SocketAddr>, patience: Duration) -> Arc<Self> {
        let upstream = |(UpstreamConfig { name, weight }, addr): (&UpstreamConfig, SocketAddr)| Upstream {
            name: name.clone(),
            addr,
            weight: *weight,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        };
        let all: Vec<_> = config.upstreams.iter().zip(addrs).map(upstream).collect();
        let shared = Shared {
            counts: vec![Counts::default(); all.len()],
            selection: Selection::new(config.policy, all.len()),
            line: Line::default(),
            watch: Watch::default(),
            refused_no_upstream: 0,
            refused_line_full: 0,
            shed: 0,
            gone: 0,
            overloads_begun: 0,
            overloads_ended: 0,
        };
        let servers = all.len() * config.max_connections_per_upstream.unwrap_or(CONNECTING);
        // Who waits here costs nothing more, so that there is no need to leave anybody waiting.
        let terms = Terms { patience, servers, refusal_budget: 1.0, longest: LONGEST };
        let gate = Gate::new(terms, Instant::now());
        Arc::new(Self { all, config, gate, shared: Mutex::new(shared) })
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
        // Whoever of those in line could have it has it already.
        if let Some(lease) = self.choose(&mut shared, tried, now) {
            return Place::At(lease);
        }
        if !self.may_come(&shared) {
            shared.refused_no_upstream += 1;
            return Place::Nowhere;
        }
        let waiting = shared.line.len();
        let is_late = now >= came + self.gate.too_late();
        let may_wait = !is_late && self.gate.fits(waiting);
        let Some(waker) = may_wait.then(waker).flatten() else {
            // Nobody is left where it is: it has been accepted.
            let _ = self.gate.turn_away(now);
            shared.refused_line_full += 1;
            drop(shared);
            self.report();
            return Place::Nowhere;
        };
        self.gate.admitted(now, waiting);
        Place::InLine(shared.line.join(came, tried.clone(), waker))
    }

    /// A place that is free at once, for a connection that was at those upstreams.
    pub(super) fn another(self: &Arc<Self>, tried: &Tried) -> Option<Lease> {
        self.choose(&mut self.shared.lock(), tried, Instant::now())
    }

    /// Takes a waiter out of the line whose client has gone.
    pub(super) fn leave(self: &Arc<Self>, waiter: &Waiter) {
        let now = Instant::now();
        let mut shared = self.shared.lock();
        if shared.line.leave(waiter) {
            shared.gone += 1;
            self.gate.gone(now, now - waiter.came);
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
                shared.shed += 1;
                self.gate.refused(now);
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
        Some(Lease { upstreams: Arc::clone(self), index, since: now, connecting: true })
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

    /// Takes note of a check, or of a connect that failed. An upstream changes its state after so
    /// many in a row that speak against it.
    pub(super) fn judge(self: &Arc<Self>, index: usize, result: Result<(), &str>, checked: bool) {
        let mut shared = self.shared.lock();
        let counts = &mut shared.counts[index];
        counts.failed += u64::from(result.is_err() && !checked);
        if result.is_ok() != counts.down {
            counts.against = 0;
            return;
        }
        counts.against += 1;
        let needed = if counts.down { self.config.rise } else { self.config.fall };
        if counts.against < needed {
            return;
        }
        counts.against = 0;
        counts.down = !counts.down;
        let upstream = &self.all[index].name;
        match result {
            Ok(()) => tracing::info!(upstream, "up again"),
            Err(cause) => tracing::warn!(upstream, cause, "down"),
        }
        let up = shared.counts.iter().filter(|counts| !counts.down).count();
        self.gate.set_servers(up * self.config.max_connections_per_upstream.unwrap_or(CONNECTING));
        // When the last one is down, they may be tried in spite of it.
        self.serve_line(shared);
    }

    /// A line for each upstream, and what is so for all of them.
    pub(super) fn snapshot(&self) -> super::Snapshot {
        let shared = self.shared.lock();
        let status = |(upstream, counts): (&Upstream, &Counts)| super::UpstreamStatus {
            name: upstream.name.clone(),
            addr: upstream.addr,
            up: !counts.down,
            open: counts.open - counts.connecting,
            connecting: counts.connecting,
            connected: counts.connected,
            failed: counts.failed,
            connect_time: counts.connect_time,
            sent: upstream.sent.load(Relaxed),
            received: upstream.received.load(Relaxed),
        };
        super::Snapshot {
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
