//! Where one connection has been in vain, for a while. It knows upstreams by their numbers only, and
//! takes no clock: time is an argument.

use std::time::{Duration, Instant};

/// The upstreams at which a connection has been in vain. They are forgotten after a while: meanwhile
/// they may have recovered.
#[derive(Debug, Clone, Default)]
pub(super) struct Tried(Vec<(u64, Instant)>);

/// That while.
const FORGOTTEN: Duration = Duration::from_millis(100);

impl Tried {
    pub(super) fn add(&mut self, number: u64, now: Instant) {
        self.0.retain(|&(other, _)| other != number);
        self.0.push((number, now));
    }

    /// Whether it was anywhere, however long ago.
    pub(super) fn is_any(&self) -> bool {
        !self.0.is_empty()
    }

    pub(super) fn contains(&self, number: u64, now: Instant) -> bool {
        self.0.iter().any(|&(other, at)| other == number && now < at + FORGOTTEN)
    }

    /// When the next one is forgotten.
    pub(super) fn next_forgotten(&self, now: Instant) -> Option<Instant> {
        self.0.iter().map(|&(_, at)| at + FORGOTTEN).filter(|&at| at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_is_forgotten_after_a_while() {
        let t = Instant::now();
        let ms = Duration::from_millis(1);
        let mut tried = Tried::default();
        assert!(!tried.is_any() && tried.next_forgotten(t).is_none());
        tried.add(0, t);
        tried.add(1, t + 40 * ms);
        assert!(tried.contains(0, t + 99 * ms) && tried.contains(1, t + 99 * ms));
        assert!(!tried.contains(2, t));
        assert_eq!(tried.next_forgotten(t + 99 * ms), Some(t + 100 * ms));
        assert!(!tried.contains(0, t + 100 * ms) && tried.contains(1, t + 100 * ms));
        assert_eq!(tried.next_forgotten(t + 100 * ms), Some(t + 140 * ms));
        assert_eq!(tried.next_forgotten(t + 140 * ms), None);
        // It was somewhere nevertheless.
        assert!(tried.is_any());
        // Again in vain at one of them: it counts from then on.
        tried.add(0, t + 150 * ms);
        assert!(tried.contains(0, t + 249 * ms) && !tried.contains(1, t + 249 * ms));
    }
}
