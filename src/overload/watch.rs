//! When an overload begins and when it is over, for people: policy alone. It knows nobody whom it is
//! told to.

use std::time::{Duration, Instant};

/// Reports each overload once at its begin and once at its end. One that comes back within a while is
/// the same.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    began: Option<Began>,
    /// How many had been turned away when the last one was over.
    reported: Vec<u64>,
}

#[derive(Debug)]
struct Began {
    at: Instant,
    /// When there was last an overload.
    seen: Instant,
}

/// What there is to report.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Begun,
    /// It has lasted so long, and so many were turned away meanwhile, for each reason.
    Ended {
        lasted: Duration,
        turned_away: Vec<u64>,
    },
}

/// An overload is over when there has been none for so long.
const WHILE: Duration = Duration::from_secs(5);

impl Watch {
    /// Whether there is an overload now, and how many have been turned away so far for each reason.
    pub(crate) fn look(&mut self, now: Instant, overloaded: bool, turned_away: &[u64]) -> Option<Change> {
        match &mut self.began {
            None if overloaded => {
                self.began = Some(Began { at: now, seen: now });
                Some(Change::Begun)
            }
            Some(began) if overloaded => {
                began.seen = now;
                None
            }
            Some(began) if now >= began.seen + WHILE => {
                let lasted = began.seen - began.at;
                let before = std::mem::replace(&mut self.reported, turned_away.to_vec());
                let before = before.into_iter().chain(std::iter::repeat(0));
                let turned_away = turned_away.iter().zip(before).map(|(now, before)| now - before).collect();
                self.began = None;
                Some(Change::Ended { lasted, turned_away })
            }
            Some(_) | None => None,
        }
    }

    /// When to look again, where there is an overload or was one.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.began.as_ref().map(|began| began.seen + WHILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overload_is_reported_at_its_begin_and_at_its_end() {
        let t = Instant::now();
        let s = Duration::from_secs(1);
        let mut watch = Watch::default();
        assert_eq!(watch.look(t, false, &[7, 1]), None);
        assert_eq!(watch.look(t, true, &[7, 1]), Some(Change::Begun));
        assert_eq!(watch.look(t + s, true, &[9, 1]), None);
        assert_eq!(watch.look(t + 3 * s, false, &[9, 1]), None);
        // It comes back soon.
        assert_eq!(watch.look(t + 4 * s, true, &[9, 2]), None);
        assert_eq!(watch.look(t + 8 * s, false, &[9, 2]), None);
        assert_eq!(watch.next_look(), Some(t + 9 * s));
        let ended = Change::Ended { lasted: 4 * s, turned_away: vec![9, 2] };
        assert_eq!(watch.look(t + 9 * s, false, &[9, 2]), Some(ended));
        assert_eq!(watch.look(t + 20 * s, false, &[9, 2]), None);
        assert_eq!(watch.look(t + 30 * s, true, &[10, 2]), Some(Change::Begun));
        let ended = Change::Ended { lasted: Duration::ZERO, turned_away: vec![1, 3] };
        assert_eq!(watch.look(t + 35 * s, false, &[10, 5]), Some(ended));
    }
}
