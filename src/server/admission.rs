//! Whether a newcomer is let in, told no or left waiting: policy alone, no I/O.
//!
//! A full queue by itself is a burst, and a burst is what the queue and the kernel's backlog are
//! for. It is overload when the acceptor has not caught up with the newcomers for [`PATIENCE`]
//! since the queue was first full (the rule of *Fail at Scale*, ACM Queue 2015: a line that has
//! not been empty for 100 ms is a standing one). Only then are newcomers refused and is the backlog kept
//! short. Refusing costs CPU too, so all refusals share one budget; beyond it newcomers wait.

use std::time::{Duration, Instant};

use super::config::OnFull;

/// How long the line may stand before it counts as overload, and how long it must not have stood
/// for the overload to be over.
const PATIENCE: Duration = Duration::from_millis(100);
/// Refusals per second. One costs about 16 µs of CPU, so this is under 2 % of a core.
const REFUSALS_PER_S: u32 = 1_000;
/// Refusals that may come at once.
const REFUSALS_BURST: u32 = 1_000;
/// When the budget is used up, this many refusals are saved up before the next, so that the
/// acceptor need not wake up for each.
const REFUSALS_SAVED: u32 = 10;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Admit,
    Refuse,
    /// Leave newcomers in the backlog until there is room, or until this time.
    Wait(Option<Instant>),
}

#[derive(Debug)]
pub(super) struct Admission {
    on_full: OnFull,
    /// Since when newcomers have been waiting for room; none while the acceptor keeps up.
    behind_since: Option<Instant>,
    last_full: Instant,
    overloaded: bool,
    admitted_while_behind: u32,
    budget: Budget,
}

impl Admission {
    pub(super) fn new(on_full: OnFull, now: Instant) -> Self {
        Self {
            on_full,
            behind_since: None,
            last_full: now,
            overloaded: false,
            admitted_while_behind: 0,
            budget: Budget { left: REFUSALS_BURST, refilled: now },
        }
    }

    /// What to do with the next newcomer.
    pub(super) fn decide(&mut self, now: Instant, full: bool) -> Verdict {
        if !full {
            return Verdict::Admit;
        }
        self.last_full = now;
        let since = *self.behind_since.get_or_insert_with(|| {
            self.admitted_while_behind = 0;
            now
        });
        self.overloaded |= now - since >= PATIENCE;
        match (self.overloaded, self.on_full) {
            (false, _) => Verdict::Wait(Some(since + PATIENCE)),
            (true, OnFull::Wait) => Verdict::Wait(None),
            (true, OnFull::Refuse) => self.budget.ask(now),
        }
    }

    /// Says that a newcomer was let in.
    pub(super) fn admitted(&mut self) {
        self.admitted_while_behind = self.admitted_while_behind.saturating_add(1);
    }

    /// Says that a newcomer was refused: it is taken off the budget.
    pub(super) fn refused(&mut self) {
        self.budget.left = self.budget.left.saturating_sub(1);
    }

    /// Says that nobody is waiting in the backlog and there is room. Gives the time at which to
    /// look again, while the overload is not yet over.
    pub(super) fn caught_up(&mut self, now: Instant) -> Option<Instant> {
        let over = self.last_full + PATIENCE;
        if self.overloaded && now < over {
            return Some(over);
        }
        self.overloaded = false;
        self.behind_since = None;
        None
    }

    /// The backlog to have while overloaded, none while not. `loopback`: handshakes take no time
    /// there, so that a few places suffice. Elsewhere the backlog also limits the handshakes in
    /// flight, and must hold what is admitted during the longest usual round trip, 100 ms.
    pub(super) fn short_backlog(&self, loopback: bool) -> Option<u32> {
        const FEW: u32 = 4;
        let in_flight = if loopback { 0 } else { self.admitted_while_behind_in_patience() };
        self.overloaded.then_some(in_flight.max(FEW))
    }

    /// Newcomers admitted in a time of `PATIENCE` since the line began to stand.
    fn admitted_while_behind_in_patience(&self) -> u32 {
        let behind = self.behind_since.map_or(PATIENCE, |since| self.last_full - since).max(PATIENCE);
        let share = PATIENCE.as_secs_f64() / behind.as_secs_f64();
        (f64::from(self.admitted_while_behind) * share) as u32
    }
}

/// A token bucket.
#[derive(Debug)]
struct Budget {
    left: u32,
    refilled: Instant,
}

impl Budget {
    fn ask(&mut self, now: Instant) -> Verdict {
        let per_refusal = Duration::from_secs(1) / REFUSALS_PER_S;
        let earned = (now - self.refilled).as_nanos() / per_refusal.as_nanos();
        if self.left == 0 && earned < u128::from(REFUSALS_SAVED) {
            return Verdict::Wait(Some(self.refilled + per_refusal * REFUSALS_SAVED));
        }
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.refilled = now;
            self.left = self.left.saturating_add(earned).min(REFUSALS_BURST);
        }
        Verdict::Refuse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_burst_waits_and_only_a_standing_line_is_refused() {
        let t = Instant::now();
        let mut a = Admission::new(OnFull::Refuse, t);
        assert_eq!(a.decide(t, false), Verdict::Admit);
        assert_eq!(a.decide(t, true), Verdict::Wait(Some(t + PATIENCE)));
        // Room, but the line has not ended: patience keeps running.
        assert_eq!(a.decide(t + 50 * MS, false), Verdict::Admit);
        assert_eq!(a.decide(t + 99 * MS, true), Verdict::Wait(Some(t + PATIENCE)));
        assert_eq!(a.short_backlog(true), None);
        assert_eq!(a.decide(t + 100 * MS, true), Verdict::Refuse);
        assert_eq!(a.short_backlog(true), Some(4));
    }

    #[test]
    fn catching_up_ends_a_burst_at_once_and_an_overload_after_a_while() {
        let t = Instant::now();
        let mut a = Admission::new(OnFull::Refuse, t);
        a.decide(t, true);
        assert_eq!(a.caught_up(t + 50 * MS), None);
        assert_eq!(a.decide(t + 120 * MS, true), Verdict::Wait(Some(t + 220 * MS)));
        assert_eq!(a.decide(t + 220 * MS, true), Verdict::Refuse);
        assert_eq!(a.caught_up(t + 230 * MS), Some(t + 320 * MS));
        assert_eq!(a.short_backlog(true), Some(4));
        assert_eq!(a.caught_up(t + 320 * MS), None);
        assert_eq!(a.short_backlog(true), None);
    }

    #[test]
    fn waiting_never_refuses() {
        let t = Instant::now();
        let mut a = Admission::new(OnFull::Wait, t);
        a.decide(t, true);
        assert_eq!(a.decide(t + 500 * MS, true), Verdict::Wait(None));
        assert_eq!(a.short_backlog(true), Some(4));
    }

    #[test]
    fn refusals_keep_to_their_budget() {
        let t = Instant::now();
        let mut a = Admission::new(OnFull::Refuse, t);
        a.decide(t, true);
        let mut refused = 0;
        // Three seconds of newcomers every 50 µs.
        for tick in 0..60_000 {
            let now = t + PATIENCE + tick * Duration::from_micros(50);
            if a.decide(now, true) == Verdict::Refuse {
                a.refused();
                refused += 1;
            }
        }
        assert!((3_900..=4_000).contains(&refused), "{refused} in 3 s with a burst of 1,000");
    }

    #[test]
    fn off_loopback_the_short_backlog_holds_what_is_admitted_in_100_ms() {
        let t = Instant::now();
        let mut a = Admission::new(OnFull::Wait, t);
        a.decide(t, true);
        for _ in 0..400 {
            a.admitted();
        }
        a.decide(t + 200 * MS, true);
        assert_eq!(a.short_backlog(false), Some(200));
        assert_eq!(a.short_backlog(true), Some(4));
    }
}
