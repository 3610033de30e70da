//! The one place at which is decided who is let in, refused, left waiting or shed. It knows neither
//! who waits nor where: the queue, the ready line and the balancer's line each ask it in the same way.

use std::{
    sync::atomic::{
        AtomicBool, AtomicU64, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    budget::Budget,
    line::{Bounds, Line, TICK},
    pace::{Headway, Pace},
};
use crate::sys::{clock::us, setting::LiveTime};

/// What a gate goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// How long clients wait.
    pub(crate) patience: Duration,
    /// Requests that are served at once.
    pub(crate) servers: usize,
    /// What refusals may cost, as a share of one CPU. Nothing: whoever would be refused is left
    /// waiting.
    pub(crate) refusal_budget: f64,
    /// The longest that the line may be on account of slow requests.
    pub(crate) longest: Duration,
}

/// What becomes of somebody for whom there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Refuse,
    /// Leave it where it is until there is room, or until this time.
    Hold(Option<Instant>),
}

/// Who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Somebody for whom was decided at the door how long it may wait.
    Newcomer,
    /// A request that has come over a connection that is there already.
    Kept,
    /// Either, of a source that has had little: the others give way to it.
    Light,
}

/// What is known of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    AtMost(Duration),
    Known(Duration),
}

/// What becomes of somebody whose turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    Serve,
    /// Refuse it: it has waited too long.
    Shed,
    /// Find out how long it has waited, and whether it is still there.
    Ask,
}

/// Decides who is let in and who is served. On its calm path, while everybody is let in, it takes no
/// lock.
#[derive(Debug)]
pub(crate) struct Gate {
    patience: LiveTime,
    longest: Duration,
    servers: AtomicUsize,
    began: Instant,
    pace: Pace,
    headway: Headway,
    /// Whether the line is kept shorter than the tolerance, and how long it may be.
    tight: AtomicBool,
    limit_us: AtomicU64,
    /// When somebody was last refused, in microseconds since `began`; 0 for never.
    refusal_us: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    line: Line,
    budget: Budget,
}

/// The tolerance is this share of the patience: what is served takes time as well.
const TOLERANCE: f64 = 0.8;
/// It is so many service times at least: nobody asks a slow service who is in a hurry.
const SLOW: u32 = 10;
/// Who has waited longer than this many tolerances is too late.
const TOO_LATE: f64 = 1.25;
/// The line may always be as long as this, and as three service times: else workers become idle (with
/// two, four workers who block for 20 ms kept 0.95 to 0.98 of their capacity at 1.2x, with three 0.99).
const FLOOR: Duration = Duration::from_millis(10);
const FLOOR_SERVICES: u32 = 3;
/// With more servers than this it may be as much shorter: requests end one after the other, and the same
/// number of them in line keeps all busy. (Before 16 threads that wait for 200 ms it was else as long as
/// their slowest request, and 36 % instead of 66 % of the possible were answered within 500 ms.)
const FEW_SERVERS: f64 = 4.0;
/// A shorter wait was in time, and the kernel need not be asked for it.
const IN_TIME: Duration = FLOOR;
/// How long after a refusal the backlog is kept short.
const OVER: Duration = Duration::from_millis(100);
/// How long the acceptor leaves newcomers alone between looks at them while it refuses. To be woken
/// for each, and to wake its client for each, costs as much again as refusing it.
const NAP: Duration = Duration::from_millis(2);
/// Newcomers that a short backlog holds at least.
const FEW: u32 = 4;

impl Gate {
    pub(crate) fn new(terms: Terms, now: Instant) -> Self {
        let budget = Budget::new(terms.refusal_budget, now);
        Self {
            patience: LiveTime::new(terms.patience),
            longest: terms.longest,
            servers: AtomicUsize::new(terms.servers),
            began: now,
            pace: Pace::new(),
            headway: Headway::new(),
            tight: AtomicBool::new(false),
            limit_us: AtomicU64::new(0),
            refusal_us: AtomicU64::new(0),
            state: Mutex::new(State { line: Line::new(now), budget }),
        }
    }

    /// Says that so many requests are served at once from now on.
    pub(crate) fn set_servers(&self, servers: usize) {
        self.servers.store(servers.max(1), Relaxed);
    }

    /// Says how long clients wait from now on, and what refusals may cost.
    pub(crate) fn change(&self, patience: Duration, refusal_budget: f64, now: Instant) {
        self.patience.set(patience);
        let mut state = self.lock(now);
        state.budget.change(refusal_budget, now);
        self.publish(&state);
    }

    /// Whether somebody who comes when so many wait already would be served in time.
    pub(crate) fn fits(&self, now: Instant, waiting: usize) -> bool {
        waiting < self.servers.load(Relaxed) || self.wait_behind(now, waiting + 1) <= self.limit()
    }

    /// Whether the line has become so short that it is worth letting somebody in again.
    pub(crate) fn has_room(&self, now: Instant, waiting: usize) -> bool {
        waiting == 0 || self.wait_behind(now, waiting) <= self.limit() / 2
    }

    /// What to do with somebody who does not fit.
    pub(crate) fn turn_away(&self, now: Instant) -> Verdict {
        let mut state = self.lock(now);
        let verdict = match state.budget.ask(now) {
            // Nobody is to be refused, which says as much of the load.
            _ if state.budget.is_nothing() => {
                state.line.refused(now, self.bounds());
                Verdict::Hold(None)
            }
            Ok(()) => {
                state.line.refused(now, self.bounds());
                Verdict::Refuse
            }
            Err(until) => {
                state.line.held(now);
                Verdict::Hold(Some(until))
            }
        };
        self.publish(&state);
        verdict
    }

    /// How long clients can bear to wait for what is no worker's turn.
    pub(crate) fn tolerance(&self) -> Duration {
        self.bounds().tolerance
    }

    /// What to do with somebody whose turn has come. Who is shed counts as refused.
    pub(crate) fn take(&self, kind: Kind, wait: Wait, now: Instant, left: usize) -> Take {
        let (wait, looked_at) = match wait {
            Wait::AtMost(wait) if wait > IN_TIME => return Take::Ask,
            Wait::AtMost(_) if !self.is_tight() => return Take::Serve,
            Wait::AtMost(wait) => (wait, false),
            Wait::Known(wait) => (wait, true),
        };
        let mut state = self.lock(now);
        if looked_at {
            state.line.looked_at(None);
        }
        let bounds = self.bounds();
        let limit = state.line.limit(bounds);
        let most = match kind {
            // It is in time even so.
            _ if !looked_at => Duration::MAX,
            Kind::Newcomer if !state.line.is_purging() => bounds.tolerance.mul_f64(TOO_LATE),
            Kind::Light => bounds.tolerance,
            _ => limit,
        };
        state.line.waited(wait, self.wait_behind(now, left), bounds);
        let take = if wait > most {
            state.line.refused(now, bounds);
            Take::Shed
        } else {
            if kind != Kind::Newcomer {
                state.line.admitted(now, wait, bounds);
            }
            Take::Serve
        };
        self.publish(&state);
        take
    }

    /// Says that somebody was let in when so many waited already.
    pub(crate) fn admitted(&self, now: Instant, waiting: usize) {
        if self.is_tight() {
            let mut state = self.lock(now);
            state.line.admitted(now, self.wait_behind(now, waiting + 1), self.bounds());
            self.publish(&state);
        }
    }

    /// Says that the first in line is served now, and whether somebody is left.
    pub(crate) fn turn(&self, now: Instant, more: bool) {
        if more || self.headway.is_measuring() {
            self.headway.turn(now.saturating_duration_since(self.began), more);
        }
    }

    /// Says that nobody is in line.
    pub(crate) fn no_line(&self) {
        self.headway.pause();
    }

    /// Says that somebody whose turn had come was gone, and had waited so long.
    pub(crate) fn gone(&self, now: Instant, wait: Duration) {
        let mut state = self.lock(now);
        state.line.looked_at(Some(wait));
        self.publish(&state);
    }

    /// Says that somebody was refused who was let in before.
    pub(crate) fn refused(&self, now: Instant) {
        let mut state = self.lock(now);
        state.line.refused(now, self.bounds());
        self.publish(&state);
    }

    /// Says that there was nobody to serve.
    pub(crate) fn idle(&self, now: Instant) {
        if self.is_tight() {
            let mut state = self.lock(now);
            state.line.idle(now, self.bounds());
            self.publish(&state);
        }
    }

    /// Says that a request was answered, and how long that took.
    pub(crate) fn answered(&self, took: Duration) {
        self.pace.took(took);
    }

    /// Takes what refusals have cost off the budget.
    pub(crate) fn charge(&self, cost: Duration) {
        self.state.lock().budget.charge(cost);
    }

    /// Takes off what belongs to a refusal that was counted before.
    pub(crate) fn charge_more(&self, cost: Duration) {
        self.state.lock().budget.charge_more(cost);
    }

    /// Lets time pass: what has happened, or has not happened for a while, has consequences.
    pub(crate) fn look(&self, now: Instant) {
        let state = self.lock(now);
        self.publish(&state);
    }

    /// When to look next, where that makes a difference.
    pub(crate) fn next_look(&self, now: Instant) -> Option<Instant> {
        self.is_tight().then(|| now + TICK)
    }

    /// The longest that anybody waits, whatever the workers do.
    pub(crate) fn too_late(&self) -> Duration {
        self.bounds().tolerance.mul_f64(TOO_LATE)
    }

    /// Whether somebody had to be refused of late, or may have to be soon.
    pub(crate) fn is_overloaded(&self, now: Instant) -> bool {
        self.is_tight() || self.is_over(now)
    }

    /// Whether the line is, or may soon again be, kept shorter than the tolerance.
    pub(crate) fn is_tight(&self) -> bool {
        self.tight.load(Relaxed)
    }

    /// How long the acceptor is to leave newcomers alone when all are dealt with, if at all.
    pub(crate) fn nap(&self, now: Instant) -> Option<Duration> {
        self.is_over(now).then_some(NAP)
    }

    /// The backlog to have while people are refused, none while not: what is served in two naps, so
    /// that no worker becomes idle. `loopback`: handshakes take no time there. Elsewhere the backlog
    /// also limits the handshakes in flight, and must hold what is served during the longest usual
    /// round trip, 100 ms.
    pub(crate) fn short_backlog(&self, now: Instant, loopback: bool) -> Option<u32> {
        let time = if loopback { NAP * 2 } else { Duration::from_millis(100) };
        let served = time.as_secs_f64() / self.headway(now).as_secs_f64();
        self.is_over(now).then_some((served as u32).max(FEW))
    }

    fn is_over(&self, now: Instant) -> bool {
        match self.refusal_us.load(Relaxed) {
            0 => false,
            at => self.us(now).saturating_sub(at) < us(OVER),
        }
    }

    /// How long the last of so many waits.
    fn wait_behind(&self, now: Instant, waiting: usize) -> Duration {
        self.headway(now).saturating_mul(u32::try_from(waiting).unwrap_or(u32::MAX))
    }

    /// How long one takes of those that are served one after the other.
    pub(crate) fn headway(&self, now: Instant) -> Duration {
        let servers = u32::try_from(self.servers.load(Relaxed)).unwrap_or(u32::MAX);
        let by_pace = || self.pace.mean() / servers;
        let headway = match self.headway.mean() {
            None => by_pace(),
            // Requests may have become faster since there was a line.
            Some(mean) if !self.headway.is_fresh(now.saturating_duration_since(self.began)) => {
                mean.min(by_pace())
            }
            Some(mean) => mean,
        };
        headway.max(Duration::from_nanos(1))
    }

    fn limit(&self) -> Duration {
        if self.is_tight() {
            return Duration::from_micros(self.limit_us.load(Relaxed));
        }
        self.bounds().tolerance
    }

    fn bounds(&self) -> Bounds {
        let mean = self.pace.mean();
        let slow = (mean * SLOW).min(self.longest);
        let tolerance = self.patience.get().mul_f64(TOLERANCE).max(slow);
        let share = (FEW_SERVERS / self.servers.load(Relaxed) as f64).min(1.0);
        let standstill = (mean * FLOOR_SERVICES).max(self.pace.peak()).mul_f64(share);
        let floor = FLOOR.max(standstill).min(tolerance);
        Bounds { tolerance, floor }
    }

    /// The state as it is at this time.
    fn lock(&self, now: Instant) -> parking_lot::MutexGuard<'_, State> {
        let mut state = self.state.lock();
        state.line.tick(now, self.bounds());
        state
    }

    /// Lets those who take no lock know.
    fn publish(&self, state: &State) {
        self.limit_us.store(us(state.line.limit(self.bounds())), Relaxed);
        self.refusal_us.store(state.line.last_refusal().map_or(0, |at| self.us(at).max(1)), Relaxed);
        self.tight.store(state.line.is_tight(), SeqCst);
    }

    fn us(&self, at: Instant) -> u64 {
        us(at.saturating_duration_since(self.began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const S: Duration = Duration::from_secs(1);

    /// Two workers that have answered requests of this length, one after the other.
    fn gate(service: Duration, refusal_budget: f64, began: Instant) -> Gate {
        let patience = Duration::from_millis(500);
        let gate = Gate::new(Terms { patience, servers: 2, refusal_budget, longest: 60 * S }, began);
        (0..200).for_each(|_| gate.answered(service));
        gate
    }

    #[test]
    fn another_patience_and_budget_count_from_now_on() {
        let t = Instant::now();
        let gate = gate(2 * MS, 0.0, t);
        let fit = |gate: &Gate| (0..10_000).take_while(|&waiting| gate.fits(t, waiting)).count();
        let before = fit(&gate);
        gate.change(5 * S, 0.0, t);
        assert!(gate.tolerance() >= 4 * S);
        assert!(fit(&gate) > 9 * before, "{before}");
        assert_eq!(gate.turn_away(t), Verdict::Hold(None));
        gate.change(5 * S, 1.0, t);
        assert_eq!(gate.turn_away(t + S), Verdict::Refuse);
    }

    #[test]
    fn as_many_fit_as_can_be_served_within_the_tolerance() {
        let t = Instant::now();
        // Service time, the tolerance, how many fit, and when the acceptor is woken for more.
        let cases = [
            (2 * MS, 400 * MS, 400..=457, 200..=228),
            (20 * MS, 400 * MS, 40..=46, 20..=23),
            // Ten service times for those who are slow, and one for each worker in any case.
            (S, 10 * S, 20..=23, 10..=11),
            (30 * S, 60 * S, 4..=5, 2..=2),
        ];
        for (service, tolerance, fitting, half) in cases {
            let gate = gate(service, 0.015, t);
            let within = gate.tolerance().abs_diff(tolerance) <= tolerance / 8;
            assert!(within, "{service:?}: {:?}", gate.tolerance());
            let fits = (0..1000).take_while(|&waiting| gate.fits(t, waiting)).count();
            assert!(fitting.contains(&fits), "{service:?}: {fits}");
            let room = (0..1000).take_while(|&waiting| gate.has_room(t, waiting)).count() - 1;
            assert!(half.contains(&room), "{service:?}: {room}");
        }
    }

    #[test]
    fn who_does_not_fit_is_refused_within_the_budget_and_held_beyond_it() {
        let t = Instant::now();
        let limited = gate(MS, 0.015, t);
        assert_eq!(limited.short_backlog(t, true), None);
        assert_eq!(limited.turn_away(t), Verdict::Refuse);
        assert!(limited.is_tight() && limited.is_overloaded(t));
        limited.charge(S);
        let Verdict::Hold(Some(until)) = limited.turn_away(t) else { panic!("it has a budget") };
        assert!(until > t);
        assert_eq!(limited.turn_away(until), Verdict::Refuse);
        assert_eq!(gate(MS, 0.0, t).turn_away(t), Verdict::Hold(None));
        // Meanwhile the backlog is short, but holds the handshakes of 100 ms where those take time.
        assert_eq!(limited.short_backlog(until, true), Some(8));
        assert!(limited.short_backlog(until, false).is_some_and(|short| (200..=229).contains(&short)));
        assert_eq!(limited.short_backlog(until + 100 * MS, true), None);
    }

    #[test]
    fn the_kernel_is_asked_only_where_it_matters() {
        let t = Instant::now();
        let gate = gate(MS, 0.015, t);
        let at = |wait| gate.take(Kind::Newcomer, wait, t, 0);
        assert_eq!(at(Wait::AtMost(10 * MS)), Take::Serve);
        assert_eq!(at(Wait::AtMost(11 * MS)), Take::Ask);
        assert_eq!(at(Wait::Known(500 * MS)), Take::Serve);
        assert_eq!(at(Wait::Known(501 * MS)), Take::Shed);
        // A kept request met nobody at a door who said how long it would wait.
        assert_eq!(gate.take(Kind::Kept, Wait::Known(401 * MS), t, 0), Take::Shed);
        assert_eq!(gate.take(Kind::Light, Wait::Known(399 * MS), t, 0), Take::Serve);
        assert_eq!(gate.take(Kind::Light, Wait::Known(401 * MS), t, 0), Take::Shed);
        assert!(gate.is_tight());
    }
}
