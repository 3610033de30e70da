//! Whether a newcomer is let in, told no or left waiting, and who is shed: policy alone, no I/O.
//!
//! Three rungs, from the cheapest answer to the last:
//!
//! 1. *Admit*. A full queue by itself is a burst, and a burst is what the queue and the kernel's
//!    backlog are for.
//! 2. *Refuse*. It is overload when the acceptor has not caught up with the newcomers for
//!    [`PATIENCE`] since the queue was first full (the rule of *Fail at Scale*, ACM Queue 2015: a
//!    line that has not been empty for 100 ms is a standing one), or when a [`Line`] stands. Then
//!    newcomers are refused, the backlog is kept short, and where a line stands, only as many are
//!    let in as can be served within the target.
//! 3. *Wait*. Refusing costs CPU too, so all refusals share one [`Budget`]; beyond it newcomers wait
//!    in the short backlog, and the kernel turns the rest away for nothing.

mod budget;
mod line;
mod pace;
#[cfg(test)]
mod simulation;

use std::time::{Duration, Instant};

pub(super) use self::{
    budget::Budget,
    line::{Line, Target},
    pace::Pace,
};
use super::config::OnFull;

/// How long the acceptor may be behind before it counts as overload, and how long it must have kept
/// up for the overload to be over.
const PATIENCE: Duration = Duration::from_millis(100);
/// A burst that would take longer to be served is none.
const LONGEST_BURST: Duration = Duration::from_millis(400);
/// How long the acceptor leaves newcomers alone between looks at them while it refuses. To be woken
/// for each, and to wake its client for each, costs as much again as refusing it.
const NAP: Duration = Duration::from_millis(2);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Admit,
    Refuse,
    /// Refuse the head of the line and take the newcomer.
    Replace,
    /// Leave newcomers in the backlog until there is room, or until this time.
    Wait(Option<Instant>),
}

/// What newcomers meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rung {
    Admit,
    Refuse,
    Wait,
}

#[derive(Debug)]
pub(super) struct Admission {
    on_full: OnFull,
    queue: usize,
    workers: usize,
    /// The wait that is aimed at, if any.
    target: Option<Duration>,
    /// Since when newcomers have been waiting for room; none while the acceptor keeps up.
    behind_since: Option<Instant>,
    last_full: Instant,
    overloaded: bool,
    /// A line has stood in this overload, so that only what can be served in time is let in.
    tight: bool,
    admitted_while_behind: u32,
    rung: Rung,
    rung_since: Instant,
    refusing: Duration,
    waiting: Duration,
}

impl Admission {
    pub(super) fn new(
        on_full: OnFull,
        queue: usize,
        workers: usize,
        target: Option<Duration>,
        now: Instant,
    ) -> Self {
        Self {
            on_full,
            queue,
            workers,
            target,
            behind_since: None,
            last_full: now,
            overloaded: false,
            tight: false,
            admitted_while_behind: 0,
            rung: Rung::Admit,
            rung_since: now,
            refusing: Duration::ZERO,
            waiting: Duration::ZERO,
        }
    }

    /// How many may be in the queue now. While a line stands, as many as can be served within the
    /// target, target times service rate; at least one for each worker.
    pub(super) fn limit(&self, pace: &Pace) -> usize {
        let Some(target) = self.target.filter(|_| self.tight) else { return self.queue };
        let rounds = target.as_secs_f64() / pace.mean().as_secs_f64();
        let served_in_time = (self.workers as f64 * rounds.max(1.0)).ceil() as usize;
        served_in_time.clamp(1, self.queue)
    }

    pub(super) fn is_tight(&self) -> bool {
        self.tight
    }

    /// Whether so many wait that the last would not be served for a long time, so that there is no
    /// need to see whether it ends. At ten times the load this says so after 45 ms.
    pub(super) fn is_flood(&self, waiting: usize, pace: &Pace) -> bool {
        !self.tight
            && self.target.is_some()
            && pace.mean().mul_f64(waiting as f64 / self.workers as f64) > LONGEST_BURST
    }

    /// How long to leave newcomers alone when all are dealt with, if at all.
    pub(super) fn nap(&self) -> Option<Duration> {
        self.overloaded.then_some(NAP)
    }

    /// Whether newcomers have simply been let in of late, so that there is nothing to think about.
    pub(super) fn is_at_ease(&self) -> bool {
        !self.overloaded && self.behind_since.is_none()
    }

    /// Whether whoever is let in may have waited in the backlog before.
    pub(super) fn is_behind(&self) -> bool {
        self.behind_since.is_some()
    }

    /// What to do with the next newcomer, where there is room or not, and a line stands or not.
    pub(super) fn decide(&mut self, now: Instant, full: bool, stands: bool, budget: &mut Budget) -> Verdict {
        let before = (self.overloaded, self.tight);
        if stands {
            self.overloaded = true;
            self.tight = true;
            self.last_full = now;
        }
        if before != (self.overloaded, self.tight) {
            tracing::debug!(tight = self.tight, "overloaded");
        }
        if !full {
            if !self.overloaded {
                self.step_on(Rung::Admit, now);
            }
            return Verdict::Admit;
        }
        self.last_full = now;
        let since = *self.behind_since.get_or_insert_with(|| {
            self.admitted_while_behind = 0;
            now
        });
        if !self.overloaded && now - since >= PATIENCE {
            self.overloaded = true;
            tracing::debug!(tight = self.tight, "overloaded");
        }
        if !self.overloaded {
            return Verdict::Wait(Some(since + PATIENCE));
        }
        let refusal = match self.on_full {
            OnFull::Wait => {
                self.step_on(Rung::Wait, now);
                return Verdict::Wait(None);
            }
            OnFull::Refuse => Verdict::Refuse,
            OnFull::DropOldest => Verdict::Replace,
        };
        match budget.ask(now) {
            Ok(()) => {
                self.step_on(Rung::Refuse, now);
                refusal
            }
            Err(until) => {
                self.step_on(Rung::Wait, now);
                Verdict::Wait(Some(until))
            }
        }
    }

    /// Says that a newcomer was let in.
    pub(super) fn admitted(&mut self) {
        self.admitted_while_behind = self.admitted_while_behind.saturating_add(1);
    }

    /// Says that nobody is waiting in the backlog and there is room. Gives the time at which to
    /// look again, while the overload is not yet over.
    pub(super) fn caught_up(&mut self, now: Instant) -> Option<Instant> {
        let over = self.last_full + PATIENCE;
        if self.overloaded && now < over {
            return Some(over);
        }
        if self.overloaded {
            tracing::debug!(tight = self.tight, "the overload is over");
        }
        self.overloaded = false;
        self.tight = false;
        self.behind_since = None;
        self.step_on(Rung::Admit, now);
        None
    }

    /// Says that the backlog was found full, so that the kernel has turned newcomers away.
    pub(super) fn pressed(&mut self, now: Instant) {
        self.last_full = now;
    }

    /// The backlog to have while overloaded, none while not: what can be served in two naps, so that
    /// no worker becomes idle. `loopback`: handshakes take no time there. Elsewhere the backlog also
    /// limits the handshakes in flight, and must hold what is admitted during the longest usual
    /// round trip, 100 ms.
    pub(super) fn short_backlog(&self, loopback: bool, pace: &Pace) -> Option<u32> {
        const FEW: u32 = 4;
        let in_naps = 2.0 * self.workers as f64 * NAP.as_secs_f64() / pace.mean().as_secs_f64();
        let in_flight = if loopback { 0 } else { self.admitted_while_behind_in_patience() };
        self.overloaded.then_some(in_flight.max(in_naps as u32).max(FEW))
    }

    /// For how long newcomers have been refused, and for how long they have been left waiting.
    pub(super) fn times(&self) -> (Duration, Duration) {
        (self.refusing, self.waiting)
    }

    /// Newcomers admitted in a time of `PATIENCE` since the line began to stand.
    fn admitted_while_behind_in_patience(&self) -> u32 {
        let behind = self.behind_since.map_or(PATIENCE, |since| self.last_full - since).max(PATIENCE);
        let share = PATIENCE.as_secs_f64() / behind.as_secs_f64();
        (f64::from(self.admitted_while_behind) * share) as u32
    }

    fn step_on(&mut self, rung: Rung, now: Instant) {
        let spent = now.saturating_duration_since(self.rung_since);
        match self.rung {
            Rung::Admit => {}
            Rung::Refuse => self.refusing += spent,
            Rung::Wait => self.waiting += spent,
        }
        self.rung = rung;
        self.rung_since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn admission(on_full: OnFull, t: Instant) -> (Admission, Budget) {
        (Admission::new(on_full, 32, 2, Some(5 * MS), t), Budget::new(0.03, t))
    }

    /// Requests that take 100 ms each.
    fn slow() -> Pace {
        let pace = Pace::new();
        (0..200).for_each(|_| pace.took(100 * MS));
        pace
    }

    #[test]
    fn a_burst_waits_and_only_a_standing_line_is_refused() {
        let t = Instant::now();
        let (mut a, mut budget) = admission(OnFull::Refuse, t);
        let mut decide = |at, full| a.decide(at, full, false, &mut budget);
        assert_eq!(decide(t, false), Verdict::Admit);
        assert_eq!(decide(t, true), Verdict::Wait(Some(t + PATIENCE)));
        // Room, but the line has not ended: patience keeps running.
        assert_eq!(decide(t + 50 * MS, false), Verdict::Admit);
        assert_eq!(decide(t + 99 * MS, true), Verdict::Wait(Some(t + PATIENCE)));
        assert_eq!(decide(t + 100 * MS, true), Verdict::Refuse);
        assert_eq!(a.short_backlog(true, &slow()), Some(4));
    }

    #[test]
    fn the_rungs_come_in_their_order_and_their_time_is_counted() {
        let t = Instant::now();
        let (mut a, mut budget) = admission(OnFull::Refuse, t);
        let mut seen = Vec::new();
        for tick in 0..4000 {
            let verdict = a.decide(t + tick * MS, true, false, &mut budget);
            if verdict == Verdict::Refuse {
                budget.charge(MS);
            }
            let rung = match verdict {
                Verdict::Wait(until) if until == Some(t + PATIENCE) => "burst",
                Verdict::Wait(_) => "wait",
                _ => "refuse",
            };
            if seen.last() != Some(&rung) {
                seen.push(rung);
            }
        }
        assert_eq!(seen[..3], ["burst", "refuse", "wait"]);
        assert!(!seen[3..].contains(&"burst"));
        assert_eq!(a.caught_up(t + 5000 * MS), None);
        let (refusing, waiting) = a.times();
        assert!(refusing > 30 * MS, "{refusing:?}");
        assert!(waiting > 3000 * MS, "{waiting:?}");
        assert_eq!(refusing + waiting, 4900 * MS);
    }

    #[test]
    fn catching_up_ends_a_burst_at_once_and_an_overload_after_a_while() {
        let t = Instant::now();
        let (mut a, mut budget) = admission(OnFull::Refuse, t);
        a.decide(t, true, false, &mut budget);
        assert_eq!(a.caught_up(t + 50 * MS), None);
        assert_eq!(a.decide(t + 120 * MS, true, false, &mut budget), Verdict::Wait(Some(t + 220 * MS)));
        assert_eq!(a.decide(t + 220 * MS, true, false, &mut budget), Verdict::Refuse);
        assert_eq!(a.caught_up(t + 230 * MS), Some(t + 320 * MS));
        assert_eq!(a.short_backlog(true, &slow()), Some(4));
        assert_eq!(a.caught_up(t + 320 * MS), None);
        assert_eq!(a.short_backlog(true, &slow()), None);
    }

    #[test]
    fn while_a_line_stands_only_what_can_be_served_in_time_is_let_in() {
        let t = Instant::now();
        let pace = Pace::new();
        (0..200).for_each(|_| pace.took(2 * MS));
        let (mut a, mut budget) = admission(OnFull::Refuse, t);
        assert_eq!(a.limit(&pace), 32);
        // Long waits in the queue say so before it is full.
        assert_eq!(a.decide(t, false, true, &mut budget), Verdict::Admit);
        assert!((5..=6).contains(&a.limit(&pace)), "{}", a.limit(&pace));
        assert_eq!(a.decide(t + MS, true, true, &mut budget), Verdict::Refuse);
        assert_eq!(a.caught_up(t + 200 * MS), None);
        assert_eq!(a.limit(&pace), 32);
        // A slow handler has one in the queue for each worker, a quick one never more than fit.
        let slow = Pace::new();
        (0..200).for_each(|_| slow.took(1000 * MS));
        a.decide(t + 300 * MS, true, true, &mut budget);
        assert_eq!(a.limit(&slow), 2);
        assert_eq!(a.limit(&Pace::new()), 32);
    }

    #[test]
    fn who_waits_refuses_nobody_and_who_drops_the_oldest_takes_the_newest() {
        let t = Instant::now();
        let (mut a, mut budget) = admission(OnFull::Wait, t);
        a.decide(t, true, false, &mut budget);
        assert_eq!(a.decide(t + 500 * MS, true, false, &mut budget), Verdict::Wait(None));
        assert_eq!(a.short_backlog(true, &slow()), Some(4));
        let (mut a, mut budget) = admission(OnFull::DropOldest, t);
        assert_eq!(a.decide(t, true, false, &mut budget), Verdict::Wait(Some(t + PATIENCE)));
        assert_eq!(a.decide(t + 100 * MS, true, false, &mut budget), Verdict::Replace);
    }

    #[test]
    fn off_loopback_the_short_backlog_holds_what_is_admitted_in_100_ms() {
        let t = Instant::now();
        let (mut a, mut budget) = admission(OnFull::Wait, t);
        a.decide(t, true, false, &mut budget);
        for _ in 0..400 {
            a.admitted();
        }
        a.decide(t + 200 * MS, true, false, &mut budget);
        assert_eq!(a.short_backlog(false, &slow()), Some(200));
        assert_eq!(a.short_backlog(true, &slow()), Some(4));
    }
}
