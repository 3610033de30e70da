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
/// for a database, the throughput is exact to 9 %. (With 64, 16 threads whose database becomes slow kept
/// 53 instead of 66 % of the goodput in the simulation.)
const ENOUGH: u32 = 128;
/// With latencies that vary less, as few are enough as are as exact, but not fewer than this. (Without
/// that, the same kept 58 %: windows were too long.)
const FEW: u32 = 16;
/// Nor after less than this: rare slow ones would not have been seen. (Without that, a mix of short and
/// long requests kept 98 instead of 99 %, and the slow database 59 instead of 67 % at ten times the load.)
const EVEN_AFTER: Duration = Duration::from_millis(250);
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

    /// What was found with this limit, where requests take so many seconds, if it has lasted for long
    /// enough.
    pub(super) fn measured(&self, limit: usize, latency: f64) -> Option<Measured> {
        let lasted = self.looked.saturating_duration_since(self.began);
        let seconds = lasted.as_secs_f64();
        if self.answered == 0 || lasted < SHORTEST || seconds < LATENCIES * latency {
            return None;
        }
        let answered = f64::from(self.answered);
        let mean = self.sum / answered;
        let variation = (self.squares / answered / (mean * mean).max(f64::MIN_POSITIVE) - 1.0).max(0.0);
        let even =
            self.answered >= FEW && lasted >= EVEN_AFTER && variation / answered <= 1.0 / f64::from(ENOUGH);
        if self.answered < ENOUGH && !even && lasted < LONGEST {
            return None;
        }
        let noise = variation / answered + LEAST_NOISE;
        Some(Measured { limit: limit as f64, throughput: answered / seconds, latency: mean, noise })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_is_full_when_it_says_enough() {
        // Answers, every so many milliseconds, of so many milliseconds and of three times as many in turn.
        let cases = [
            ("few", 15, 20, 20, false),
            ("as many as needed if they are even", 16, 20, 20, true),
            ("but too soon", 16, 10, 10, false),
            ("too short", 100, 0, 10, false),
            ("shorter than two latencies", 30, 10, 200, false),
        ];
        for (what, answers, every, took, full) in cases {
            let began = Instant::now();
            let mut window = Window::new(began);
            for n in 1..=answers {
                window.answered(f64::from(took) / 1e3);
                window.look(began + n * every * MS, true);
            }
            assert_eq!(window.measured(4, f64::from(took) / 1e3).is_some(), full, "{what}");
        }
    }

    #[test]
    fn uneven_latencies_need_more_answers() {
        let began = Instant::now();
        let full_after = |every: Duration| {
            let mut window = Window::new(began);
            (1..1000).find(|&n| {
                window.answered(if n % 10 == 0 { 0.1 } else { 0.002 });
                window.look(began + n * every, true);
                window.measured(4, 0.007).is_some()
            })
        };
        assert_eq!(full_after(MS), Some(ENOUGH));
        // Unless they come slowly.
        assert_eq!(full_after(20 * MS), Some(50));
    }

    #[test]
    fn it_is_void_when_the_limit_was_not_reached_for_a_tenth_of_it() {
        for (free, void) in [(10, false), (19, false), (20, true), (30, true)] {
            let began = Instant::now();
            let mut window = Window::new(began);
            window.look(began + 50 * MS, false);
            window.look(began + (50 + free) * MS, true);
            assert_eq!(window.is_void(), void, "{free} ms");
            window.look(began + 1000 * MS, true);
            assert!(!window.is_void());
        }
    }
}
