//! When arrivals are due in an open loop: arithmetic alone. It knows neither a clock nor what arrives.

use std::time::Duration;

/// How arrivals are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrivals {
    /// Independent of each other, as those of many users are.
    Poisson,
    /// At equal distances.
    Uniform,
}

/// An arrival later than this is dropped: to start it all the same would exceed the offered rate
/// to catch up, which no crowd of users does. It is longer than a busy machine keeps a thread from its CPU
/// at a time (with 5 ms, two compilers on the same CPUs left no load above the capacity), and well below any
/// deadline; what is late counts from when it was intended.
pub(crate) const TOLERANCE: Duration = Duration::from_millis(20);

/// The schedule of arrivals, in time since the start.
#[derive(Debug)]
pub(crate) struct Pacer {
    arrivals: Arrivals,
    mean: Duration,
    next: Duration,
    random: fastrand::Rng,
}

/// What to do about the next arrival.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Start it; it was intended for this time.
    Start(Duration),
    /// It is too late for it: count it as dropped.
    Drop(Duration),
    /// It is due at this time.
    At(Duration),
}

impl Pacer {
    pub(crate) fn new(arrivals: Arrivals, per_s: f64, seed: u64) -> Self {
        let mean = Duration::from_secs_f64(1.0 / per_s);
        let mut pacer = Self { arrivals, mean, next: Duration::ZERO, random: fastrand::Rng::with_seed(seed) };
        pacer.next = pacer.gap();
        pacer
    }

    /// The next arrival, seen at this time. Those that are due are given once.
    pub(crate) fn due(&mut self, now: Duration) -> Due {
        let intended = self.next;
        if now < intended {
            return Due::At(intended);
        }
        let gap = self.gap();
        self.next += gap;
        if now - intended > TOLERANCE { Due::Drop(intended) } else { Due::Start(intended) }
    }

    fn gap(&mut self) -> Duration {
        match self.arrivals {
            Arrivals::Uniform => self.mean,
            // The exponential distribution by its inverse; 1 - [0, 1) is never 0.
            Arrivals::Poisson => self.mean.mul_f64(-(1.0 - self.random.f64()).ln()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Runs the schedule on a clock that jumps; the times started and the number dropped.
    fn run(pacer: &mut Pacer, clock: impl IntoIterator<Item = Duration>) -> (Vec<Duration>, usize) {
        let (mut started, mut dropped) = (Vec::new(), 0);
        for now in clock {
            loop {
                match pacer.due(now) {
                    Due::Start(at) => started.push(at),
                    Due::Drop(_) => dropped += 1,
                    Due::At(_) => break,
                }
            }
        }
        (started, dropped)
    }

    #[test]
    fn uniform_arrivals_come_at_equal_distances() {
        let mut pacer = Pacer::new(Arrivals::Uniform, 1000.0, 1);
        let (started, dropped) = run(&mut pacer, (0..=10).map(|ms| ms * MS));
        assert_eq!(started, (1..=10).map(|ms| ms * MS).collect::<Vec<_>>());
        assert_eq!(dropped, 0);
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread() {
        let mut pacer = Pacer::new(Arrivals::Poisson, 10_000.0, 2);
        let (started, _) = run(&mut pacer, (0..10_000).map(|ms| ms * MS));
        let count = started.len() as f64;
        // Ten standard deviations about 100,000.
        assert!((count - 1e5).abs() < 10.0 * 1e5f64.sqrt(), "{count}");
        let gaps: Vec<f64> = started.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e4).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // An exponential distribution's variance is the square of its mean.
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
    }

    #[test]
    fn a_stall_is_not_caught_up() {
        let mut pacer = Pacer::new(Arrivals::Uniform, 1000.0, 3);
        let clock = (0..=100).map(|ms| ms * MS).chain((300..=400).map(|ms| ms * MS));
        let (started, dropped) = run(&mut pacer, clock);
        assert_eq!(started.len() + dropped, 400);
        // What was due in the 200 ms, but for the tolerance at their end.
        assert_eq!(dropped, 179);
        for window in started.windows(12) {
            assert!(window[11] - window[0] >= 11 * MS, "the rate is exceeded");
        }
    }
}
