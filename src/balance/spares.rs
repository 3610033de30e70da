//! Connections to an upstream that nobody uses now. It knows neither requests nor when one may be used
//! again.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::session::joint::Other;

/// Services close idle connections after 5 s and more (Node's default is the shortest that is usual); one
/// that is older is not worth the risk.
const OLDEST: Duration = Duration::from_secs(4);

#[derive(Debug)]
struct Spare<C> {
    other: C,
    since: Instant,
    /// The upstream has said that it closes it after so long.
    oldest: Duration,
}

/// The spare connections of one upstream, latest last: those that are used keep being used, and the
/// others grow old.
#[derive(Debug)]
pub(super) struct Spares<C = Other>(Mutex<Kept<C>>);

#[derive(Debug)]
struct Kept<C> {
    spares: Vec<Spare<C>>,
    /// None is kept any more.
    is_closed: bool,
}

impl<C> Default for Spares<C> {
    fn default() -> Self {
        Self(Mutex::new(Kept { spares: Vec::new(), is_closed: false }))
    }
}

impl<C> Spares<C> {
    /// The one that was used last, if it has been idle for less than this.
    pub(super) fn take(&self, most: Duration, now: Instant) -> Option<C> {
        let mut kept = self.0.lock();
        let spare = kept.spares.pop_if(|spare| now < spare.since + most.min(spare.oldest))?;
        Some(spare.other)
    }

    /// Keeps one, which the upstream is going to close after so long, where that is known.
    pub(super) fn put(&self, other: C, closes_after: Option<Duration>, now: Instant) {
        // A second, for what is under way.
        let announced = closes_after.map(|time| time.saturating_sub(Duration::from_secs(1)));
        let oldest = announced.map_or(OLDEST, |time| time.min(OLDEST));
        let mut kept = self.0.lock();
        if oldest > Duration::ZERO && !kept.is_closed {
            kept.spares.push(Spare { other, since: now, oldest });
        }
    }

    /// Closes those that have grown old.
    pub(super) fn tidy(&self, now: Instant) {
        let is_old = |spare: &mut Spare<C>| now >= spare.since + spare.oldest;
        let old: Vec<_> = self.0.lock().spares.extract_if(.., is_old).collect();
        // Closed without the lock.
        drop(old);
    }

    /// Closes all, and each that is still given back.
    pub(super) fn close(&self) {
        let mut kept = self.0.lock();
        kept.is_closed = true;
        let all = std::mem::take(&mut kept.spares);
        drop(kept);
        drop(all);
    }

    /// Keeps them again.
    pub(super) fn reopen(&self) {
        self.0.lock().is_closed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_kept_of_an_upstream_that_has_left_until_it_is_back() {
        let t = Instant::now();
        let spares = Spares::default();
        (0..2).for_each(|spare| spares.put(spare, None, t));
        assert_eq!(spares.take(Duration::MAX, t), Some(1));
        spares.close();
        spares.put(1, None, t);
        assert_eq!(spares.take(Duration::MAX, t), None);
        spares.reopen();
        spares.put(2, None, t);
        assert_eq!(spares.take(Duration::MAX, t), Some(2));
    }

    #[test]
    fn what_is_old_or_soon_closed_is_not_taken() {
        let t = Instant::now();
        let spares = Spares::default();
        spares.put("old", None, t);
        assert_eq!(spares.take(Duration::MAX, t + OLDEST), None);
        spares.tidy(t + OLDEST);
        spares.put("closed after 3 s", Some(Duration::from_secs(3)), t);
        assert_eq!(spares.take(Duration::from_secs(1), t + Duration::from_secs(1)), None);
        assert_eq!(spares.take(Duration::MAX, t + Duration::from_secs(2)), None);
        assert_eq!(spares.take(Duration::MAX, t + Duration::from_millis(1999)), Some("closed after 3 s"));
        spares.put("at once", Some(Duration::from_secs(1)), t);
        assert_eq!(spares.take(Duration::MAX, t), None);
    }
}
