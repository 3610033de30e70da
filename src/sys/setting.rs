//! A setting that is changed while others go by it. It does not know what it is for.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A time that may be changed. Whoever reads it goes by the old one or by the new one.
#[derive(Debug)]
pub(crate) struct LiveTime(AtomicU64);

impl LiveTime {
    pub(crate) fn new(time: Duration) -> Self {
        Self(AtomicU64::new(ns(time)))
    }

    pub(crate) fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Relaxed))
    }

    pub(crate) fn set(&self, time: Duration) {
        self.0.store(ns(time), Relaxed);
    }
}

/// Over 500 years can be told, and no setting may be longer than one.
fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_kept_to_the_nanosecond() {
        let time = LiveTime::new(Duration::from_nanos(1));
        assert_eq!(time.get(), Duration::from_nanos(1));
        let longest = Duration::new(365 * 24 * 3600, 999_999_999);
        time.set(longest);
        assert_eq!(time.get(), longest);
    }
}
