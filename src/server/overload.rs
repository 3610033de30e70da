//! What the acceptor and the workers know together of an overload, and what they do about it.

use std::{
    sync::atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    admission::{Budget, Line, Pace, Target},
    config::{Config, TARGET},
};

#[derive(Debug)]
pub(super) struct Overload {
    /// The wait that is aimed at, if any.
    target: Option<Duration>,
    began: Instant,
    pub(super) pace: Pace,
    /// Newcomers.
    pub(super) queued: Line,
    /// Parked connections whose next request has come.
    pub(super) ready: Line,
    pub(super) budget: Mutex<Budget>,
    /// How many newcomers may be in the queue now.
    limit: AtomicUsize,
    /// The acceptor has found that what can be served in time is all that is to be let in.
    tight: AtomicBool,
}

impl Overload {
    pub(super) fn new(config: &Config) -> Self {
        let began = Instant::now();
        Self {
            target: config.target,
            began,
            pace: Pace::new(),
            queued: Line::new(),
            ready: Line::new(),
            budget: Mutex::new(Budget::new(config.refusal_budget, began)),
            limit: AtomicUsize::new(config.queue),
            tight: AtomicBool::new(false),
        }
    }

    /// The wait that is aimed at now; none where nobody is to be shed.
    fn target(&self) -> Option<Target> {
        self.target.map(|target| Target::new(target, &self.pace))
    }

    /// The longest wait of which the kernel need not be asked.
    pub(super) fn unasked(&self) -> Duration {
        self.target.unwrap_or(TARGET)
    }

    /// Whether a line stands.
    pub(super) fn line_stands(&self, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.began);
        self.target().is_some_and(|target| self.queued.stands(now, target) || self.ready.stands(now, target))
    }

    /// Takes note of a wait in this line. Whether the one who waited is to be shed.
    pub(super) fn sheds(&self, line: &Line, wait: Duration, now: Instant) -> bool {
        let Some(target) = self.target() else { return false };
        let now = now.saturating_duration_since(self.began);
        line.waited(now, wait, target);
        target.is_stale(wait) && (self.tight.load(Relaxed) || line.stands(now, target))
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Tells the workers what the acceptor goes by.
    pub(super) fn follow(&self, limit: usize, tight: bool) {
        if limit != self.limit() {
            self.limit.store(limit, SeqCst);
        }
        if tight != self.tight.load(Relaxed) {
            self.tight.store(tight, Relaxed);
        }
    }
}
