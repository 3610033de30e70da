use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::pace::Pace;
use crate::sys::clock::us;

/// A line in which requests wait for a worker, and whether it merely takes up a burst or stands.
///
/// It stands when for an interval nobody in it waited less than the target (CoDel, Nichols and
/// Jacobson, ACM Queue 2012). Then whoever has waited for more than twice the target is shed, as in
/// folly's `Codel`: its client has probably given up, and the others are still in time.
#[derive(Debug)]
pub(in crate::server) struct Line {
    /// Since when nobody has waited less than the target, in microseconds; 0 if somebody just has.
    above_since_us: AtomicU64,
    /// When somebody was last seen to have waited longer.
    above_last_us: AtomicU64,
}

/// The shortest interval.
const INTERVAL: Duration = Duration::from_millis(100);
/// The interval, in targets: those of slow handlers are longer.
const TARGETS_PER_INTERVAL: u32 = 20;

/// The wait that is aimed at. It is never under the service time, so that slow handlers work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct Target(pub(in crate::server) Duration);

impl Target {
    pub(in crate::server) fn new(asked: Duration, pace: &Pace) -> Self {
        Self(asked.max(pace.peak()))
    }

    fn interval(self) -> Duration {
        INTERVAL.max(self.0.saturating_mul(TARGETS_PER_INTERVAL).min(Duration::from_secs(3600)))
    }

    /// Whether somebody who waited so long in a line that stands is to be shed.
    pub(in crate::server) fn is_stale(self, wait: Duration) -> bool {
        wait > self.0.saturating_mul(2)
    }
}

impl Line {
    pub(in crate::server) fn new() -> Self {
        Self { above_since_us: AtomicU64::new(0), above_last_us: AtomicU64::new(0) }
    }

    /// Says that somebody did not wait, or that nobody is in the line.
    pub(in crate::server) fn is_calm(&self) {
        if self.above_since_us.load(Relaxed) != 0 {
            self.above_since_us.store(0, Relaxed);
        }
    }

    /// Says how long somebody has waited who is taken at this time, since the server's beginning.
    pub(in crate::server) fn waited(&self, now: Duration, wait: Duration, target: Target) {
        if wait <= target.0 {
            return self.is_calm();
        }
        if self.above_since_us.load(Relaxed) == 0 || self.is_quiet(now, target) {
            self.above_since_us.store(us(now).max(1), Relaxed);
        }
        self.above_last_us.store(us(now), Relaxed);
    }

    /// Whether the line stands.
    pub(in crate::server) fn stands(&self, now: Duration, target: Target) -> bool {
        match self.above_since_us.load(Relaxed) {
            0 => false,
            since => us(now).saturating_sub(since) >= us(target.interval()) && !self.is_quiet(now, target),
        }
    }

    /// Whether nobody was in the line for an interval.
    fn is_quiet(&self, now: Duration, target: Target) -> bool {
        us(now).saturating_sub(self.above_last_us.load(Relaxed)) > us(target.interval())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const TARGET: Target = Target(Duration::from_millis(5));

    #[test]
    fn a_line_stands_when_nobody_waited_less_than_the_target_for_an_interval() {
        let line = Line::new();
        line.waited(10 * MS, 6 * MS, TARGET);
        line.waited(109 * MS, 60 * MS, TARGET);
        assert!(!line.stands(109 * MS, TARGET));
        assert!(line.stands(110 * MS, TARGET));
        line.waited(111 * MS, 5 * MS, TARGET);
        assert!(!line.stands(111 * MS, TARGET));
        line.waited(112 * MS, 6 * MS, TARGET);
        line.waited(200 * MS, 6 * MS, TARGET);
        assert!(!line.stands(200 * MS, TARGET));
        assert!(line.stands(212 * MS, TARGET));
        line.is_calm();
        assert!(!line.stands(300 * MS, TARGET));
    }

    #[test]
    fn a_line_that_nobody_was_in_any_more_does_not_stand() {
        let line = Line::new();
        line.waited(10 * MS, 60 * MS, TARGET);
        line.waited(110 * MS, 60 * MS, TARGET);
        assert!(line.stands(110 * MS, TARGET));
        assert!(!line.stands(211 * MS, TARGET));
        line.waited(1000 * MS, 60 * MS, TARGET);
        assert!(!line.stands(1000 * MS, TARGET));
        assert!(!line.stands(1099 * MS, TARGET));
    }

    #[test]
    fn a_long_quiet_before_the_first_wait_does_not_count() {
        let line = Line::new();
        line.waited(Duration::from_secs(1000), 50 * MS, TARGET);
        assert!(!line.stands(Duration::from_secs(1000), TARGET));
    }

    #[test]
    fn the_target_and_the_interval_grow_with_slow_handlers() {
        let pace = Pace::new();
        assert_eq!(Target::new(5 * MS, &pace), TARGET);
        pace.took(Duration::from_secs(1));
        let slow = Target::new(5 * MS, &pace);
        assert_eq!(slow, Target(Duration::from_secs(1)));
        assert!(!slow.is_stale(2000 * MS) && slow.is_stale(2001 * MS));
        let line = Line::new();
        line.waited(MS, 1500 * MS, slow);
        line.waited(Duration::from_secs(10), 1500 * MS, slow);
        assert!(!line.stands(Duration::from_secs(20), slow));
        assert!(line.stands(Duration::from_secs(21), slow));
    }
}
