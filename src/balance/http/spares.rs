//! Connections to upstreams that nobody uses now. It knows neither requests nor when one may be used
//! again.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::session::joint::Other;

/// Services close idle connections after 5 s and more (Node's default is the shortest that is usual); one
/// that is older is not worth the risk.
const OLDEST: Duration = Duration::from_secs(4);

#[derive(Debug)]
struct Spare {
    other: Other,
    since: Instant,
    /// The upstream has said that it closes it after so long.
    oldest: Duration,
}

/// The spare connections of each upstream, latest last: those that are used keep being used, and the
/// others grow old.
#[derive(Debug)]
pub(in crate::balance) struct Spares(Vec<Mutex<Vec<Spare>>>);

impl Spares {
    /// For so many upstreams.
    pub(in crate::balance) fn new(upstreams: usize) -> Self {
        Self((0..upstreams).map(|_| Mutex::default()).collect())
    }

    /// The one that was used last, if it has been idle for less than this.
    pub(super) fn take(&self, upstream: usize, most: Duration, now: Instant) -> Option<Other> {
        let mut spares = self.0[upstream].lock();
        let spare = spares.pop_if(|spare| now < spare.since + most.min(spare.oldest))?;
        Some(spare.other)
    }

    /// Keeps one, which the upstream is going to close after so long, where that is known.
    pub(super) fn put(&self, upstream: usize, other: Other, closes_after: Option<Duration>, now: Instant) {
        // A second, for what is under way.
        let announced = closes_after.map(|time| time.saturating_sub(Duration::from_secs(1)));
        let oldest = announced.map_or(OLDEST, |time| time.min(OLDEST));
        if oldest > Duration::ZERO {
            self.0[upstream].lock().push(Spare { other, since: now, oldest });
        }
    }

    /// Closes those that have grown old.
    pub(in crate::balance) fn tidy(&self, now: Instant) {
        for spares in &self.0 {
            let old: Vec<_> =
                spares.lock().extract_if(.., |spare| now >= spare.since + spare.oldest).collect();
            // Closed without the lock.
            drop(old);
        }
    }
}
