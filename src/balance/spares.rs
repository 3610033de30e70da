//! Connections to an upstream that nobody uses now. It knows neither requests nor when one may be used
//! again.

use std::{
    net::SocketAddr,
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
    /// The only client whose requests it is for, where it was told who that is.
    client: Option<SocketAddr>,
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
    /// The one that was used last, of those for this client alone or for everybody, if it has been idle for
    /// less than this.
    pub(super) fn take(&self, client: Option<SocketAddr>, most: Duration, now: Instant) -> Option<C> {
        let mut kept = self.0.lock();
        let index = kept.spares.iter().rposition(|spare| spare.client == client)?;
        let spare = &kept.spares[index];
        let is_fresh = now < spare.since + most.min(spare.oldest);
        is_fresh.then(|| kept.spares.remove(index).other)
    }

    /// Keeps one, for this client alone or for everybody, which the upstream is going to close after so long,
    /// where that is known.
    pub(super) fn put(
        &self,
        other: C,
        client: Option<SocketAddr>,
        closes_after: Option<Duration>,
        now: Instant,
    ) {
        // A second, for what is under way.
        let announced = closes_after.map(|time| time.saturating_sub(Duration::from_secs(1)));
        let oldest = announced.map_or(OLDEST, |time| time.min(OLDEST));
        let mut kept = self.0.lock();
        if oldest > Duration::ZERO && !kept.is_closed {
            kept.spares.push(Spare { other, client, since: now, oldest });
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
        (0..2).for_each(|spare| spares.put(spare, None, None, t));
        assert_eq!(spares.take(None, Duration::MAX, t), Some(1));
        spares.close();
        spares.put(1, None, None, t);
        assert_eq!(spares.take(None, Duration::MAX, t), None);
        spares.reopen();
        spares.put(2, None, None, t);
        assert_eq!(spares.take(None, Duration::MAX, t), Some(2));
    }

    #[test]
    fn what_is_old_or_soon_closed_is_not_taken() {
        let t = Instant::now();
        let spares = Spares::default();
        spares.put("old", None, None, t);
        assert_eq!(spares.take(None, Duration::MAX, t + OLDEST), None);
        spares.tidy(t + OLDEST);
        spares.put("closed after 3 s", None, Some(Duration::from_secs(3)), t);
        assert_eq!(spares.take(None, Duration::from_secs(1), t + Duration::from_secs(1)), None);
        assert_eq!(spares.take(None, Duration::MAX, t + Duration::from_secs(2)), None);
        assert_eq!(
            spares.take(None, Duration::MAX, t + Duration::from_millis(1999)),
            Some("closed after 3 s")
        );
        spares.put("at once", None, Some(Duration::from_secs(1)), t);
        assert_eq!(spares.take(None, Duration::MAX, t), None);
    }

    #[test]
    fn one_that_was_told_of_its_client_is_for_that_one_alone() {
        let t = Instant::now();
        let [one, other] = ["192.0.2.1:1", "192.0.2.1:2"].map(|addr| addr.parse().ok());
        let spares = Spares::default();
        for (spare, client) in [(1, one), (2, other), (3, None)] {
            spares.put(spare, client, None, t);
        }
        let take = |client| spares.take(client, Duration::MAX, t);
        assert_eq!(
            [take(one), take(one), take(None), take(None), take(other)],
            [Some(1), None, Some(3), None, Some(2)]
        );
    }
}
