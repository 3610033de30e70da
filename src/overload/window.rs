//! What is measured of an upstream for a while, and whether that says anything. It does not know what
//! follows from it.

use std::time::{Duration, Instant};

/// A while in which as many requests as may be are in flight, as far as that is so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Window {
    began: Instant,
    /// When it was last looked at, and whether the limit was reached then.
    looked: Instant,
    full: bool,
    /// For how long the limit was not reached.
    free: Duration,
    answered: u32,
    /// Of the latencies, in seconds.
    sum: f64,
    squares: f64,
}

/// What a window has found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    /// The limit that was in force.
    pub(super) limit: f64,
    /// Requests answered in a second.
    pub(super) throughput: f64,
    /// The mean of all latencies, in seconds.
    pub(super) latency: f64,
    /// The variance of the throughput as noise makes it, relative to its square.
    pub(super) noise: f64,
}

/// So many answers are enough: with latencies that vary by their mean, as they do where requests wait
/// for a database, the throughput is exact to 9 %. (With 64, the worst model of the simulation kept 60 %
/// of its goodput, with 128 74 %.)
const ENOUGH: u32 = 128;
/// It is as long as this at least, so that a hundredth of a second of standstill is no more than a fifth.
const SHORTEST: Duration = Duration::from_millis(50);
/// It is as long as so many mean latencies at least: those that were in flight when it began are few.
const LATENCIES: f64 = 2.0;
/// It need not be longer than this, if there were any answers at all: what is found has to be found
/// within seconds.
const LONGEST: Duration = Duration::from_secs(1);
/// The limit must have been reached for all but this share of it, else the throughput is that of the
/// load, and not of the upstream.
const FREE: f64 = 0.1;
/// That is not judged before the limit was not reached for so long.
const FREE_AT_LEAST: Duration = Duration::from_millis(20);
/// What a throughput varies by whatever the latencies do: 2 %, squared.
const LEAST_NOISE: f64 = 0.0004;

impl Window {
    pub(super) fn new(now: Instant) -> Self {
        let free = Duration::ZERO;
        Self { began: now, looked: now, full: true, free, answered: 0, sum: 0.0, squares: 0.0 }
    }

    /// Says that a request was answered, which took so many seconds.
    pub(super) fn answered(&mut self, took: f64) {
        self.answered += 1;
        self.sum += took;
        self.squares += took * took;
    }

    /// Says whether the limit is reached from now on.
    pub(super) fn look(&mut self, now: Instant, full: bool) {
        if !self.full {
            self.free += now.saturating_duration_since(self.looked);
        }
        (self.looked, self.full) = (now, full);
    }

    /// Whether the limit was not reached for too much of it.
    pub(super) fn is_void(&self) -> bool {
        let lasted = self.looked.saturating_duration_since(self.began);
        self.free >= FREE_AT_LEAST && self.free > lasted.mul_f64(FREE)
    }

    /// What was found with this limit, if it has lasted for long enough, where requests take so many seconds.
    pub(super) fn measured(&self, limit: f64, latency: f64) -> Option<Measured> {
        let lasted = self.looked.saturating_duration_since(self.began);
        let enough = self.answered >= ENOUGH || lasted >= LONGEST && self.answered > 0;
        let seconds = lasted.as_secs_f64();
        if !enough || lasted < SHORTEST || seconds < LATENCIES * latency {
            return None;
        }
        let answered = f64::from(self.answered);
        let mean = self.sum / answered;
        let variation = (self.squares / answered / (mean * mean) - 1.0).max(0.0);
        let noise = variation / answered + LEAST_NOISE;
        Some(Measured { limit, throughput: answered / seconds, latency: mean, noise })
    }
}
