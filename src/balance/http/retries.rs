//! How many requests may be tried again: a share of those that come, so that retries never multiply a
//! load that upstreams cannot bear (the idea is that of Finagle's retry budget). It knows no requests, and
//! time is an argument.

use std::time::Instant;

use parking_lot::Mutex;

/// Retries that each request earns.
const SHARE: f64 = 0.1;
/// Retries that are earned in a second without any request.
const PER_SECOND: f64 = 1.0;
/// What can be saved up at most.
const MOST: f64 = 100.0;

#[derive(Debug)]
pub(super) struct Retries(Mutex<Saved>);

#[derive(Debug)]
struct Saved {
    retries: f64,
    since: Instant,
}

impl Retries {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(Saved { retries: 10.0 * PER_SECOND, since: now }))
    }

    /// Says that a request has come.
    pub(super) fn request(&self) {
        let mut saved = self.0.lock();
        saved.retries = (saved.retries + SHARE).min(MOST);
    }

    /// Whether one may be tried again.
    pub(super) fn take(&self, now: Instant) -> bool {
        let mut saved = self.0.lock();
        let passed = now.saturating_duration_since(saved.since).as_secs_f64();
        saved.since = now;
        saved.retries = (saved.retries + passed * PER_SECOND).min(MOST);
        let may = saved.retries >= 1.0;
        if may {
            saved.retries -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn retries_are_a_share_of_the_requests_and_one_a_second() {
        let t = Instant::now();
        let retries = Retries::new(t);
        let taken = |now| (0..1000).take_while(|_| retries.take(now)).count();
        assert_eq!(taken(t), 10);
        (0..50).for_each(|_| retries.request());
        assert!((4..=5).contains(&taken(t)));
        assert_eq!(taken(t + Duration::from_secs(3)), 3);
        (0..100_000).for_each(|_| retries.request());
        assert_eq!(taken(t + Duration::from_secs(3)), 100);
    }
}
