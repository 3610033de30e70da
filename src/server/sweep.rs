//! When to look for expired sessions. It knows neither the sessions nor who looks.

use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::{Duration, Instant},
};

/// The time of the next look: the earliest of all deadlines that anybody has named since the last.
#[derive(Debug)]
pub(super) struct Appointment {
    epoch: Instant,
    /// In milliseconds since `epoch`.
    at_ms: AtomicU64,
}

impl Appointment {
    pub(super) fn new(epoch: Instant) -> Self {
        Self { epoch, at_ms: AtomicU64::new(u64::MAX) }
    }

    /// Names a deadline; whether it is the earliest.
    pub(super) fn make(&self, deadline: Instant) -> bool {
        let at_ms = self.ms(deadline);
        at_ms < self.at_ms.load(SeqCst) && at_ms < self.at_ms.fetch_min(at_ms, SeqCst)
    }

    /// The time of the next look, if there is to be one.
    pub(super) fn next(&self) -> Option<Instant> {
        match self.at_ms.load(SeqCst) {
            u64::MAX => None,
            at_ms => Some(self.epoch + Duration::from_millis(at_ms)),
        }
    }

    /// Takes the appointment down, before looking: what is parked meanwhile makes a new one.
    pub(super) fn begin(&self) {
        self.at_ms.store(u64::MAX, SeqCst);
    }

    /// Rounded up, so that a deadline has passed when its millisecond has come.
    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_millis()).map_or(u64::MAX - 1, |ms| ms + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_is_kept() {
        let epoch = Instant::now();
        let ms = |ms| epoch + Duration::from_millis(ms);
        let appointment = Appointment::new(epoch);
        assert_eq!(appointment.next(), None);
        assert!(appointment.make(ms(50)));
        assert!(!appointment.make(ms(80)));
        assert!(appointment.make(ms(20)));
        assert_eq!(appointment.next(), Some(ms(21)));
        appointment.begin();
        assert_eq!(appointment.next(), None);
    }
}
