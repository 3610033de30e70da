//! The upstreams: how many connections each has, who is up, and who waits for a place.

use std::{
    collections::VecDeque,
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
    selection::{Candidate, Selection},
};
use crate::sys::wait::Bell;

/// All upstreams and the line before them.
#[derive(Debug)]
pub(super) struct Upstreams {
    pub(super) all: Vec<Upstream>,
    config: Config,
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
    line: VecDeque<Arc<Waiter>>,
    refused: u64,
    timed_out: u64,
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

/// What was found for a newcomer.
#[derive(Debug)]
pub(super) enum Place {
    /// A place at this upstream, which is held from now on.
    At(Lease),
    /// A place in the line.
    InLine(Arc<Waiter>),
    /// None, and none is to be expected.
    Nowhere,
}

/// A connection that waits for a place: its bell rings when there is one.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) bell: Bell,
    lease: Mutex<Option<Lease>>,
    /// Where it was before.
    tried: Vec<usize>,
}

impl Waiter {
    /// The place that was found for it, if one was.
    pub(super) fn take(&self) -> Option<Lease> {
        self.lease.lock().take()
    }
}

/// A place at an upstream, given back when dropped.
#[derive(Debug)]
pub(super) struct Lease {
    upstreams: Arc<Upstreams>,
    pub(super) index: usize,
    /// Since when it is being connected; none once it is.
    connecting: Option<Instant>,
}

impl Lease {
    pub(super) fn upstream(&self) -> &Upstream {
        &self.upstreams.all[self.index]
    }

    /// Says that the connection was made.
    pub(super) fn connected(&mut self) {
        let Some(since) = self.connecting.take() else { return };
        let mut shared = self.upstreams.shared.lock();
        let counts = &mut shared.counts[self.index];
        counts.connecting -= 1;
        counts.connected += 1;
        counts.against = if counts.down { counts.against } else { 0 };
        // The weight of the latest is an eighth.
        let time = since.elapsed();
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
        let mut shared = self.upstreams.shared.lock();
        let counts = &mut shared.counts[self.index];
        counts.open -= 1;
        counts.connecting -= usize::from(self.connecting.is_some());
        self.upstreams.serve_line(shared);
    }
}

/// Connects under way at once to one upstream: one that swallows them is to hold few.
const CONNECTING: usize = 64;

impl Upstreams {
    pub(super) fn new(config: Config, addrs: Vec<SocketAddr>) -> Arc<Self> {
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
            line: VecDeque::new(),
            refused: 0,
            timed_out: 0,
        };
        Arc::new(Self { all, config, shared: Mutex::new(shared) })
    }

    /// A place for a newcomer that was not yet at those upstreams that it `tried`.
    pub(super) fn place(self: &Arc<Self>, tried: &[usize]) -> std::io::Result<Place> {
        let mut shared = self.shared.lock();
        // Who was turned away elsewhere has waited already.
        if (shared.line.is_empty() || !tried.is_empty())
            && let Some(lease) = self.choose(&mut shared, tried)
        {
            return Ok(Place::At(lease));
        }
        if self.may_come(&shared, tried) && shared.line.len() < self.config.line {
            let waiter =
                Arc::new(Waiter { bell: Bell::new()?, lease: Mutex::new(None), tried: tried.to_vec() });
            shared.line.push_back(Arc::clone(&waiter));
            return Ok(Place::InLine(waiter));
        }
        shared.refused += 1;
        Ok(Place::Nowhere)
    }

    /// A place that is free at once, for a connection that was at those upstreams.
    pub(super) fn another(self: &Arc<Self>, tried: &[usize]) -> Option<Lease> {
        self.choose(&mut self.shared.lock(), tried)
    }

    /// Takes a waiter out of the line that waits no more.
    pub(super) fn leave(&self, waiter: &Arc<Waiter>, timed_out: bool) {
        let mut shared = self.shared.lock();
        shared.line.retain(|other| !Arc::ptr_eq(other, waiter));
        shared.timed_out += u64::from(timed_out);
    }

    fn choose(self: &Arc<Self>, shared: &mut Shared, tried: &[usize]) -> Option<Lease> {
        let candidates: Vec<_> = (0..self.all.len())
            .map(|index| Candidate {
                weight: self.all[index].weight,
                open: shared.counts[index].open,
                eligible: self.may_serve(shared, index, tried) && self.has_place(&shared.counts[index]),
            })
            .collect();
        let index = shared.selection.choose(&candidates)?;
        shared.counts[index].open += 1;
        shared.counts[index].connecting += 1;
        Some(Lease { upstreams: Arc::clone(self), index, connecting: Some(Instant::now()) })
    }

    fn has_place(&self, counts: &Counts) -> bool {
        let most = self.config.max_connections_per_upstream;
        most.is_none_or(|most| counts.open < most) && counts.connecting < CONNECTING
    }

    fn may_serve(&self, shared: &Shared, index: usize, tried: &[usize]) -> bool {
        let all_down = || shared.counts.iter().all(|counts| counts.down);
        let up = !shared.counts[index].down || (self.config.all_down == AllDown::Try && all_down());
        up && !tried.contains(&index)
    }

    fn may_come(&self, shared: &Shared, tried: &[usize]) -> bool {
        (0..self.all.len()).any(|index| self.may_serve(shared, index, tried))
    }

    /// Gives places that have become free to those who wait, and wakes them without the lock.
    fn serve_line(self: &Arc<Self>, mut shared: MutexGuard<'_, Shared>) {
        let mut woken = Vec::new();
        while let Some(waiter) = shared.line.front().cloned() {
            let Some(lease) = self.choose(&mut shared, &waiter.tried) else { break };
            shared.line.pop_front();
            *waiter.lease.lock() = Some(lease);
            woken.push(waiter);
        }
        drop(shared);
        woken.iter().for_each(|waiter| waiter.bell.ring());
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
            refused: shared.refused,
            queue_timed_out: shared.timed_out,
        }
    }
}
