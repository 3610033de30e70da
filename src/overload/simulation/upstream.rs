//! What is behind a proxy: workers that share cores, and before them a line without an end, in which
//! those are served as well whose clients have gone. It does not know who sends the requests.

use std::collections::VecDeque;

use super::{random::Random, timeline::Timeline};

/// How long requests take.
#[derive(Clone, Copy)]
pub(super) enum Work {
    Always(f64),
    /// At random, with this mean: they wait for a database.
    Waiting(f64),
    /// Most take the first, one in ten the second.
    Mixed(f64, f64),
}

impl Work {
    pub(super) fn draw(self, random: &mut Random) -> f64 {
        match self {
            Self::Always(ms) => ms,
            Self::Waiting(ms) => random.exponential(ms),
            Self::Mixed(most, few) => {
                if random.next() < 0.1 {
                    few
                } else {
                    most
                }
            }
        }
    }

    pub(super) fn mean(self) -> f64 {
        match self {
            Self::Always(ms) | Self::Waiting(ms) => ms,
            Self::Mixed(most, few) => 0.9 * most + 0.1 * few,
        }
    }
}

/// Workers that share cores alike.
pub(super) struct Upstream<R> {
    workers: usize,
    /// As many as workers where requests wait for something else.
    cores: f64,
    /// How many times as long as usual everything takes.
    slowness: f64,
    /// The millisecond up to which everything has happened, and how long somebody would have been worked
    /// on who was there from the beginning.
    now: f64,
    worked: f64,
    /// By when they are done, measured like `worked`.
    jobs: Timeline<R>,
    busy: usize,
    line: VecDeque<(f64, R)>,
}

impl<R> Upstream<R> {
    pub(super) fn new(workers: usize, cores: f64) -> Self {
        let (jobs, line) = (Timeline::new(), VecDeque::new());
        Self { workers, cores, slowness: 1.0, now: 0.0, worked: 0.0, jobs, busy: 0, line }
    }

    fn speed(&self) -> f64 {
        (self.cores / self.busy.max(1) as f64).min(1.0) / self.slowness
    }

    /// Lets time pass, in which nobody is done.
    pub(super) fn pass(&mut self, now: f64) {
        self.worked += (now - self.now) * self.speed();
        self.now = now;
    }

    pub(super) fn set_slowness(&mut self, slowness: f64) {
        self.slowness = slowness;
    }

    pub(super) fn take(&mut self, work: f64, request: R) {
        if self.busy < self.workers {
            self.busy += 1;
            self.jobs.add(self.worked + work, request);
        } else {
            self.line.push_back((work, request));
        }
    }

    /// The millisecond at which the next is done.
    pub(super) fn next(&self) -> Option<f64> {
        self.jobs.next().map(|done| self.now + (done - self.worked).max(0.0) / self.speed())
    }

    /// The one that is done.
    pub(super) fn done(&mut self) -> Option<R> {
        let done = self.jobs.take()?;
        self.busy -= 1;
        if let Some((work, request)) = self.line.pop_front() {
            self.take(work, request);
        }
        Some(done)
    }
}
