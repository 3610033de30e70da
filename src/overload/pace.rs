//! How long requests take, and how fast a line moves. It knows neither the line nor what follows.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::sys::clock::us;

/// How long requests take, as the workers measure it, by the wall clock: two numbers that are read
/// and written without a lock. An update that another overtakes is lost, which does no harm.
#[derive(Debug)]
pub(crate) struct Pace {
    mean_us: AtomicU64,
    /// Rises at once and falls slowly.
    peak_us: AtomicU64,
}

/// Shorter ones make no difference, and need not be written down.
const SHORTEST_US: u64 = 50;
/// The weight of the latest is one in so many.
const WEIGHT: u64 = 16;
/// Differences of less than one in so many make no difference either.
const NOTABLE: u64 = 8;

impl Pace {
    pub(crate) fn new() -> Self {
        Self { mean_us: AtomicU64::new(SHORTEST_US), peak_us: AtomicU64::new(SHORTEST_US) }
    }

    /// Says that a request took so long.
    pub(crate) fn took(&self, time: Duration) {
        let us = us(time).max(SHORTEST_US);
        let mean = self.mean_us.load(Relaxed);
        if mean.abs_diff(us) > mean / NOTABLE {
            let step = mean.abs_diff(us).div_ceil(WEIGHT);
            self.mean_us.store(if us > mean { mean + step } else { mean - step }, Relaxed);
        }
        let peak = self.peak_us.load(Relaxed);
        if us > peak {
            self.peak_us.store(us, Relaxed);
        } else if peak - us > peak / NOTABLE {
            self.peak_us.store(peak - (peak - us) / WEIGHT, Relaxed);
        }
    }

    pub(crate) fn mean(&self) -> Duration {
        Duration::from_micros(self.mean_us.load(Relaxed))
    }

    pub(crate) fn peak(&self) -> Duration {
        Duration::from_micros(self.peak_us.load(Relaxed))
    }
}

/// How long the first in line waits for its turn, on average, measured while there is a line. Those in
/// other lines who are served meanwhile count as well: else their turns would count against this line
/// for as long as it is, though they may soon be over. (64 of 256 clients of a closed loop who had
/// come a moment too early doubled it, and a third of all were refused.) Read and written without a
/// lock, like [`Pace`].
#[derive(Debug)]
pub(crate) struct Headway {
    mean_ns: AtomicU64,
    /// The turn before, where there has been a line ever since; else 0.
    last_ns: AtomicU64,
    /// The latest turn of all.
    latest_ns: AtomicU64,
    turns: AtomicU32,
}

/// The weight of the latest turn is one in so many, and more while there were fewer.
const TURNS: u32 = 128;
/// What was measured before a pause of this length counts as so many turns, since it may be different
/// now.
const PAUSE_NS: u64 = 1_000_000_000;
const TURNS_BEFORE: u32 = 8;
/// A turn takes so many times the mean at most.
const STANDSTILL: f64 = 16.0;

impl Headway {
    pub(crate) fn new() -> Self {
        Self {
            mean_ns: AtomicU64::new(0),
            last_ns: AtomicU64::new(0),
            latest_ns: AtomicU64::new(0),
            turns: AtomicU32::new(0),
        }
    }

    /// Says that somebody has had its turn at this time, since whatever beginning, and whether somebody
    /// is left in this line.
    pub(crate) fn turn(&self, now: Duration, more: bool) {
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).max(1);
        let last_ns = self.last_ns.load(Relaxed);
        if last_ns > 0 {
            let before = self.turns.load(Relaxed).min(TURNS - 1);
            let mean = self.mean_ns.load(Relaxed) as f64;
            let took = now_ns.saturating_sub(last_ns) as f64;
            // One standstill says nothing of what comes after it.
            let took = if before < TURNS_BEFORE { took } else { took.min(mean * STANDSTILL) };
            self.mean_ns.store((mean + (took - mean) / f64::from(before + 1)) as u64, Relaxed);
            self.turns.store(before + 1, Relaxed);
            self.latest_ns.store(now_ns, Relaxed);
        } else if more && now_ns.saturating_sub(self.latest_ns.load(Relaxed)) > PAUSE_NS {
            self.turns.fetch_min(TURNS_BEFORE, Relaxed);
        }
        if last_ns > 0 || more {
            self.last_ns.store(if more { now_ns } else { 0 }, Relaxed);
        }
    }

    /// Whether there is a line.
    pub(crate) fn is_measuring(&self) -> bool {
        self.last_ns.load(Relaxed) > 0
    }

    /// Says that nobody is in line.
    pub(crate) fn pause(&self) {
        if self.last_ns.load(Relaxed) > 0 {
            self.last_ns.store(0, Relaxed);
        }
    }

    /// None before it was measured.
    pub(crate) fn mean(&self) -> Option<Duration> {
        Some(Duration::from_nanos(self.mean_ns.load(Relaxed))).filter(|mean| !mean.is_zero())
    }

    /// Whether there was a line of late, at this time since whatever beginning.
    pub(crate) fn is_fresh(&self, now: Duration) -> bool {
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        now_ns.saturating_sub(self.latest_ns.load(Relaxed)) <= PAUSE_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_mean_follows_slowly_and_the_peak_rises_at_once() {
        let pace = Pace::new();
        (0..100).for_each(|_| pace.took(2 * MS));
        assert!(pace.mean() > MS && pace.mean() <= 2 * MS, "{:?}", pace.mean());
        assert_eq!(pace.peak(), 2 * MS);
        pace.took(200 * MS);
        assert_eq!(pace.peak(), 200 * MS);
        assert!(pace.mean() < 20 * MS, "{:?}", pace.mean());
        (0..200).for_each(|_| pace.took(2 * MS));
        assert!(pace.peak() < 3 * MS, "{:?}", pace.peak());
        assert!(pace.mean() < 3 * MS, "{:?}", pace.mean());
    }

    #[test]
    fn turns_are_measured_while_there_is_a_line() {
        let headway = Headway::new();
        let turns = |times: &[(u32, bool)]| times.iter().for_each(|&(ms, more)| headway.turn(ms * MS, more));
        turns(&[(10, false), (20, false)]);
        assert_eq!(headway.mean(), None);
        turns(&[(30, true), (32, true), (36, false), (100, true), (103, false)]);
        assert_eq!(headway.mean(), Some(3 * MS));
        turns(&[(200, false), (300, true)]);
        assert_eq!(headway.mean(), Some(3 * MS));
    }

    #[test]
    fn what_was_measured_long_ago_counts_for_little() {
        let headway = Headway::new();
        (1..=1000).for_each(|n| headway.turn(n * 10 * MS, true));
        headway.turn(10_001 * MS, false);
        assert!(headway.mean() > Some(9 * MS));
        assert!(headway.is_fresh(11_000 * MS) && !headway.is_fresh(11_002 * MS));
        headway.turn(20_000 * MS, true);
        (1..=24).for_each(|n| headway.turn((20_000 + n) * MS, true));
        assert!(headway.mean() < Some(4 * MS), "{:?}", headway.mean());
    }

    #[test]
    fn a_standstill_is_not_taken_for_the_pace() {
        let headway = Headway::new();
        (1..=1000).for_each(|n| headway.turn(n * 5 * MS, true));
        headway.turn(8000 * MS, true);
        assert!(headway.mean() < Some(6 * MS), "{:?}", headway.mean());
    }
}
