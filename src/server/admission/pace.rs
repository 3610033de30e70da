use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::sys::clock::us;

/// How long requests take, as the workers measure it, by the wall clock: two numbers that are read
/// and written without a lock. An update that another overtakes is lost, which does no harm.
#[derive(Debug)]
pub(in crate::server) struct Pace {
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
    pub(in crate::server) fn new() -> Self {
        Self { mean_us: AtomicU64::new(SHORTEST_US), peak_us: AtomicU64::new(SHORTEST_US) }
    }

    /// Says that a request took so long.
    pub(in crate::server) fn took(&self, time: Duration) {
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

    pub(in crate::server) fn mean(&self) -> Duration {
        Duration::from_micros(self.mean_us.load(Relaxed))
    }

    pub(in crate::server) fn peak(&self) -> Duration {
        Duration::from_micros(self.peak_us.load(Relaxed))
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
}
