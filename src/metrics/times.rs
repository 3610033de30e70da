//! How long things took: counted by many threads, none of which waits for another, and added up when
//! somebody asks. It knows not what took so long.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::sys::clock::us;

/// What a [`Distribution`] tells apart: times of at most so long, from 10 µs to 50 s, in ten steps for each
/// power of ten (the series R10 of ISO 3, in which the usual 1, 2.5 and 5 are).
const BOUNDS: [Duration; 68] = bounds();

const fn bounds() -> [Duration; 68] {
    const SERIES: [u64; PER_DECADE] = [100, 125, 160, 200, 250, 315, 400, 500, 630, 800];
    let mut bounds = [Duration::ZERO; 68];
    let (mut index, mut hundredth_ns) = (0, 100);
    while index < bounds.len() {
        bounds[index] = Duration::from_nanos(hundredth_ns * SERIES[index % PER_DECADE]);
        index += 1;
        if index % PER_DECADE == 0 {
            hundredth_ns *= 10;
        }
    }
    bounds
}

const PER_DECADE: usize = 10;

/// Whether a bound is 1, 2.5 or 5 times a power of ten, of 100 µs or more: what is usually told apart.
fn is_usual(index: usize) -> bool {
    index >= PER_DECADE && matches!(index % PER_DECADE, 0 | 4 | 7)
}

/// Times of so many microseconds are told apart by each; beyond it, each doubling has half as many steps
/// of the same length, so that none is longer than a 64th of the times in it. A number in the middle of a
/// step is right to two significant digits for all of it.
const EXACT: usize = 128;
const STEPS: usize = EXACT / 2;
/// Longer times, of over a day, count as this.
const LONGEST_US: u64 = (1 << 37) - 1;
const CELLS: usize = cell_of(LONGEST_US) + 1;
/// More threads than this share what they write to: it is rarely so many that run at once, and each has
/// half a page for every doubling.
const MOST_SHARDS: usize = 64;

/// The step to which a time belongs.
const fn cell_of(us: u64) -> usize {
    let doublings = (us | 1).ilog2().saturating_sub(STEPS.ilog2());
    doublings as usize * STEPS + (us >> doublings) as usize
}

/// The shortest time that belongs to a step, and how long the step is.
const fn step(cell: usize) -> (u64, u64) {
    if cell < EXACT {
        return (cell as u64, 1);
    }
    let doublings = cell / STEPS - 1;
    (((cell - doublings * STEPS) as u64) << doublings, 1 << doublings)
}

/// Times that were measured.
#[derive(Debug)]
pub(crate) struct Times(Box<[Shard]>);

/// What one thread has measured.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    cells: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
}

impl Times {
    /// Measured by so many threads, which are numbered.
    pub(crate) fn new(threads: usize) -> Self {
        let shard =
            || Shard { cells: (0..CELLS).map(|_| AtomicU64::new(0)).collect(), sum_ns: AtomicU64::new(0) };
        Self((0..threads.clamp(1, MOST_SHARDS)).map(|_| shard()).collect())
    }

    /// Takes note that this thread has seen something take so long, so many times.
    pub(crate) fn record(&self, thread: usize, time: Duration, times: u32) {
        let shard = &self.0[thread % self.0.len()];
        shard.cells[cell_of(us(time).min(LONGEST_US))].fetch_add(times.into(), Relaxed);
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        shard.sum_ns.fetch_add(ns.saturating_mul(times.into()), Relaxed);
    }

    /// All that was measured so far.
    pub(super) fn read(&self) -> Measured {
        let cell = |cell: usize| self.0.iter().map(|shard| shard.cells[cell].load(Relaxed)).sum();
        Measured { cells: (0..CELLS).map(cell).collect(), sum: self.sum() }
    }

    /// How they are distributed so far.
    pub(crate) fn distribution(&self) -> Distribution {
        self.read().distribution()
    }

    /// How many there were, and how long they took together.
    pub(crate) fn total(&self) -> (u64, Duration) {
        let counts = self.0.iter().flat_map(|shard| &shard.cells).map(|cell| cell.load(Relaxed));
        (counts.sum(), self.sum())
    }

    fn sum(&self) -> Duration {
        Duration::from_nanos(self.0.iter().map(|shard| shard.sum_ns.load(Relaxed)).sum())
    }
}

/// What was measured, at one moment.
#[derive(Debug, Default)]
pub(super) struct Measured {
    cells: Vec<u64>,
    sum: Duration,
}

impl Measured {
    /// The time that this share of all did not exceed, to two significant digits; zero where there is
    /// none.
    pub(super) fn at(&self, quantile: f64) -> Duration {
        let count: u64 = self.cells.iter().sum();
        let rank = ((count as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.cells.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map_or(Duration::ZERO, middle)
    }

    pub(super) fn longest(&self) -> Duration {
        self.cells.iter().rposition(|&count| count > 0).map_or(Duration::ZERO, middle)
    }

    pub(super) fn distribution(&self) -> Distribution {
        let mut counts = [0; BOUNDS.len() + 1];
        for (cell, count) in self.cells.iter().enumerate() {
            let shortest = Duration::from_micros(step(cell).0);
            counts[BOUNDS.partition_point(|&bound| bound < shortest)] += count;
        }
        Distribution { counts, sum: self.sum }
    }
}

/// The time in the middle of a step.
fn middle(cell: usize) -> Duration {
    let (shortest, length) = step(cell);
    Duration::from_micros(shortest + (length - 1) / 2)
}

/// How times are distributed: how many were at most so long. It is what Prometheus calls a histogram.
///
/// Times are taken to two significant digits, so that one which is longer than a bound by less than a
/// 64th may count as being within it; those that are equal to it always do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Distribution {
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl Distribution {
    /// The bounds that are usually told apart, 1, 2.5 and 5 times each power of ten from 100 µs to 50 s, in
    /// ascending order, with how many times were at most so long and longer than the bound before. Those
    /// beyond the last bound are in [`count`](Self::count) alone.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let mut within = 0;
        self.fine_buckets().enumerate().filter_map(move |(index, (bound, count))| {
            within += count;
            is_usual(index).then(|| (bound, std::mem::take(&mut within)))
        })
    }

    /// Ten bounds for each power of ten from 10 µs to 50 s, as [`buckets`](Self::buckets).
    pub(crate) fn fine_buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        BOUNDS.iter().copied().zip(self.counts.iter().copied())
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long all took together.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn every_time_has_its_step_and_no_step_is_longer_than_a_64th() {
        let mut next = 0;
        for cell in 0..CELLS {
            let (shortest, length) = step(cell);
            assert_eq!(shortest, next);
            assert!(length == 1 || length * 64 <= shortest, "{shortest} {length}");
            assert_eq!((cell_of(shortest), cell_of(shortest + length - 1)), (cell, cell));
            next += length;
        }
        assert_eq!(next, LONGEST_US + 1);
    }

    #[test]
    fn each_time_counts_within_its_bound() {
        // A time, and the usual bound that it is within.
        let table = [
            (Duration::ZERO, Some(100 * US)),
            (9 * US, Some(100 * US)),
            (100 * US, Some(100 * US)),
            (101 * US, Some(250 * US)),
            (250 * US, Some(250 * US)),
            (260 * US, Some(500 * US)),
            (MS, Some(MS)),
            (500 * MS, Some(500 * MS)),
            (510 * MS, Some(1000 * MS)),
            (50_000 * MS, Some(50_000 * MS)),
            (51_000 * MS, None),
            (Duration::MAX, None),
        ];
        for (time, within) in table {
            let times = Times::new(1);
            times.record(0, time, 1);
            let distribution = times.read().distribution();
            let at = distribution.buckets().find(|(_, count)| *count == 1);
            assert_eq!((at.map(|(bound, _)| bound), distribution.count()), (within, 1), "{time:?}");
            let finely = distribution.fine_buckets().find(|(_, count)| *count == 1);
            assert!(finely.is_none_or(|(bound, _)| time <= bound), "{time:?}");
        }
    }

    #[test]
    fn the_usual_bounds_are_among_the_fine_ones() {
        let nothing = Times::new(1).distribution();
        let usual: Vec<_> = nothing.buckets().map(|(bound, _)| bound).collect();
        let series = |decade: u32| [100, 250, 500].map(|step| 10_u32.pow(decade) * step * US);
        assert_eq!(usual, (0..6).flat_map(series).collect::<Vec<_>>());
        assert_eq!(nothing.fine_buckets().next().map(|(bound, _)| bound), Some(10 * US));
        assert_eq!(nothing.fine_buckets().last().map(|(bound, _)| bound), usual.last().copied());
    }

    #[test]
    fn quantiles_are_right_to_two_digits_whoever_has_measured() {
        let times = Times::new(3);
        (1..=1000).for_each(|ms| times.record(ms as usize, ms * MS, 2));
        let measured = times.read();
        let near = |time: Duration, ms: f64| (time.as_secs_f64() * 1e3 / ms - 1.0).abs() < 0.01;
        for (quantile, ms) in [(0.0, 1.0), (0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            assert!(near(measured.at(quantile), ms), "{quantile}: {:?}", measured.at(quantile));
        }
        assert!(near(measured.longest(), 1000.0), "{:?}", measured.longest());
        let all = 1001 * 1000 * MS;
        assert_eq!(times.total(), (2000, all));
        assert_eq!((measured.distribution().count(), measured.distribution().sum()), (2000, all));
        let nothing = Times::new(1).read();
        assert_eq!((nothing.at(0.5), nothing.longest()), (Duration::ZERO, Duration::ZERO));
    }
}
