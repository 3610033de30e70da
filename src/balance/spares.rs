//! Connections to an upstream that nobody uses now. It knows neither requests nor when one may be used
//! again.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

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
    /// For everybody.
    spares: Vec<Spare<C>>,
    /// Each for whoever knows its number, which no other one has nor ever had.
    reserved: HashMap<u64, Spare<C>>,
    next_number: u64,
    /// None is kept any more.
    is_closed: bool,
}

impl<C> Default for Spares<C> {
    fn default() -> Self {
        Self(Mutex::new(Kept {
            spares: Vec::new(),
            reserved: HashMap::new(),
            next_number: 0,
            is_closed: false,
        }))
    }
}

impl<C> Spare<C> {
    /// One that the upstream is going to close after so long, where that is known; none where that is at
    /// once.
    fn new(other: C, closes_after: Option<Duration>, now: Instant) -> Option<Self> {
        // A second, for what is under way.
        let announced = closes_after.map(|time| time.saturating_sub(Duration::from_secs(1)));
        let oldest = announced.map_or(OLDEST, |time| time.min(OLDEST));
        (oldest > Duration::ZERO).then_some(Self { other, since: now, oldest })
    }

    /// Whether it has been idle for less than this, and is not too old.
    fn is_fresh(&self, most: Duration, now: Instant) -> bool {
        now < self.since + most.min(self.oldest)
    }
}

impl<C> Spares<C> {
    /// The one that was used last, if it has been idle for less than this.
    pub(super) fn take(&self, most: Duration, now: Instant) -> Option<C> {
        let mut kept = self.0.lock();
        let last = kept.spares.pop_if(|spare| spare.is_fresh(most, now))?;
        Some(last.other)
    }

    /// Keeps one for everybody, which the upstream is going to close after so long, where that is known.
    pub(super) fn put(&self, other: C, closes_after: Option<Duration>, now: Instant) {
        let spare = Spare::new(other, closes_after, now);
        let mut kept = self.0.lock();
        if !kept.is_closed {
            kept.spares.extend(spare);
        }
    }

    /// Keeps one for whoever knows the number that it gives.
    pub(super) fn reserve(&self, other: C, closes_after: Option<Duration>, now: Instant) -> Option<u64> {
        let spare = Spare::new(other, closes_after, now)?;
        let mut kept = self.0.lock();
        if kept.is_closed {
            return None;
        }
        let number = kept.next_number;
        kept.next_number += 1;
        kept.reserved.insert(number, spare);
        Some(number)
    }

    /// The one with this number, if it is still there and has been idle for less than this; else it is
    /// closed.
    pub(super) fn claim(&self, number: u64, most: Duration, now: Instant) -> Option<C> {
        let spare = self.0.lock().reserved.remove(&number)?;
        spare.is_fresh(most, now).then_some(spare.other)
    }

    /// Closes the one with this number, if it is still there.
    pub(super) fn discard(&self, number: u64) {
        let spare = self.0.lock().reserved.remove(&number);
        // Closed without the lock.
        drop(spare);
    }

    /// Closes those that have grown old.
    pub(super) fn tidy(&self, now: Instant) {
        let is_old = |spare: &Spare<C>| !spare.is_fresh(Duration::MAX, now);
        let mut kept = self.0.lock();
        let old: Vec<_> = kept.spares.extract_if(.., |spare| is_old(spare)).collect();
        let reserved: Vec<_> = kept.reserved.extract_if(|_, spare| is_old(spare)).collect();
        drop(kept);
        drop((old, reserved));
    }

    /// Closes all, and each that is still given back.
    pub(super) fn close(&self) {
        let mut kept = self.0.lock();
        kept.is_closed = true;
        let all = (std::mem::take(&mut kept.spares), std::mem::take(&mut kept.reserved));
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
        let at_last = t + Duration::from_millis(1999);
        assert_eq!(spares.take(Duration::MAX, at_last), Some("closed after 3 s"));
        spares.put("at once", Some(Duration::from_secs(1)), t);
        assert_eq!(spares.take(Duration::MAX, t), None);
    }

    #[test]
    fn one_that_is_reserved_is_for_its_number_alone_as_long_as_it_is_young() {
        let t = Instant::now();
        let spares = Spares::default();
        let reserve = |spare| spares.reserve(spare, None, t);
        let claim = |number: Option<u64>, now| spares.claim(number.unwrap(), Duration::MAX, now);
        let (one, other) = (reserve("one"), reserve("other"));
        spares.put("everybody's", None, t);
        assert_eq!((claim(one, t), claim(one, t)), (Some("one"), None));
        assert_eq!(spares.take(Duration::MAX, t), Some("everybody's"));
        assert_eq!((claim(other, t), spares.take(Duration::MAX, t)), (Some("other"), None));
        // What is gone, for whatever reason, is nobody else's under the same number.
        let gone: [fn(&Spares<&str>, u64, Instant); 4] = [
            |spares, number, _| spares.discard(number),
            |spares, _, t| spares.tidy(t + OLDEST),
            |spares, _, _| {
                spares.close();
                spares.reopen();
            },
            |spares, number, t| assert_eq!(spares.claim(number, Duration::ZERO, t), None),
        ];
        for go in gone {
            let before = reserve("before");
            go(&spares, before.unwrap(), t);
            let after = reserve("after");
            assert_eq!((claim(before, t), claim(after, t)), (None, Some("after")));
        }
        assert_eq!(claim(reserve("old"), t + OLDEST), None);
        assert_eq!(spares.reserve("at once", Some(Duration::from_secs(1)), t), None);
        spares.close();
        assert_eq!(reserve("late"), None);
    }
}
