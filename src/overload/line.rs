//! How long a line may be: the longest wait that somebody who joins it may face. It knows neither who
//! is in the line nor how fast it moves.

use std::time::{Duration, Instant};

/// Between what the line may be at most and at least, which follow from the patience and the pace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// In normal times.
    pub(super) tolerance: Duration,
    /// In the deepest overload.
    pub(super) floor: Duration,
}

/// What a line may be, and what has happened that says so.
///
/// | state | `limit` | `probe` |
/// |---|---|---|
/// | calm: the tolerance is in force | none | none |
/// | tight: the limit is in force | some | none |
/// | probing: the tolerance is in force, to see what happens | some | some |
#[derive(Debug)]
pub(super) struct Line {
    limit: Option<Duration>,
    probe: Option<Probe>,
    /// Who came while the line was longer is too late; until all of those are gone.
    purging: bool,
    last_refusal: Option<Instant>,
    tight_since: Instant,
    lengthened: Option<Instant>,
    next_probe: Instant,
    ticked: Instant,
    /// Since the last tick.
    refused: u32,
    admitted: u32,
    was_idle: bool,
    learnt: Learnt,
}

/// The line is let grow for a while.
#[derive(Debug, Clone, Copy)]
struct Probe {
    since: Instant,
    /// In windows of time: the longest wait that was seen in this one and in the one before.
    window: Instant,
    longest: Duration,
    longest_before: Duration,
    /// In shorter ones: how long the line was when this one began, and how often and by how much it has
    /// grown fast since then.
    stretch: Instant,
    length: Duration,
    fast: u32,
    fast_since: Instant,
    fast_length: Duration,
}

/// What those who were looked at when their turn came say of the clients' patience.
#[derive(Debug, Default)]
struct Learnt {
    taken: u32,
    gone: u32,
    /// How long the least patient of those had waited.
    gone_after: Duration,
}

/// Between two looks at what has happened.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Between two lengthenings.
const CALM: Duration = Duration::from_millis(5);
/// By how much a refusal that turned out to be wrong lengthens the line.
const LENGTHENED: u32 = 2;
/// In one tick the line becomes shorter by no more than this.
const LEAST_FACTOR: f64 = 0.5;
/// A probe takes one part in so many of the time, at most.
const PROBE_SHARE: u32 = 100;
/// The next probe is after this time at the soonest, and the windows of a probe are as long.
const PROBE_AFTER: Duration = Duration::from_secs(1);
/// The first, after this time.
const FIRST_PROBE_AFTER: Duration = Duration::from_secs(2);
/// A line that grows by less than this share of the tolerance in a window does not grow.
const GROWTH: f64 = 0.05;
/// A line that grows by this share of the time that passes, in so many stretches of this length in a
/// row, is that of an overload. The clients of a closed loop that can be served within the tolerance are
/// there at once, or come when a second after their SYN was dropped they try again: then the line grows
/// by no more than tolerance each second.
const FAST: f64 = 0.5;
const FAST_STRETCHES: u32 = 4;
/// In all it must have grown by this share of the tolerance.
const FAST_GROWTH: f64 = 0.15;
const STRETCH: Duration = Duration::from_millis(5);
/// So many must have been looked at to say something of the clients' patience,
const LOOKED_AT: u32 = 20;
/// and one in so many must be gone.
const GONE: u32 = 10;
/// Those who have gone after a time say that the line may be this share of it.
const OF_PATIENCE: f64 = 0.8;

impl Line {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            limit: None,
            probe: None,
            purging: false,
            last_refusal: None,
            tight_since: now,
            lengthened: None,
            next_probe: now,
            ticked: now,
            refused: 0,
            admitted: 0,
            was_idle: false,
            learnt: Learnt::default(),
        }
    }

    /// The longest wait that somebody who joins it may face.
    pub(super) fn limit(&self, bounds: Bounds) -> Duration {
        match (self.limit, self.probe) {
            (Some(limit), None) => limit.max(bounds.floor).min(bounds.tolerance),
            _ => bounds.tolerance,
        }
    }

    /// Whether the limit is, or may soon again be, shorter than the tolerance.
    pub(super) fn is_tight(&self) -> bool {
        self.limit.is_some()
    }

    /// Whether those who are in line longer than the limit are to be shed, as they came when it was
    /// longer.
    pub(super) fn is_purging(&self) -> bool {
        self.purging
    }

    pub(super) fn last_refusal(&self) -> Option<Instant> {
        self.last_refusal
    }

    /// Says that somebody was let in, who is going to wait so long.
    pub(super) fn admitted(&mut self, now: Instant, wait: Duration, bounds: Bounds) {
        self.admitted += 1;
        let Some(probe) = &mut self.probe else { return };
        let passed = now.saturating_duration_since(probe.stretch);
        // With slow requests each that is let in makes a step.
        if passed >= STRETCH.max(bounds.floor / 2) {
            if wait.saturating_sub(probe.length) > passed.mul_f64(FAST) {
                probe.fast += 1;
            } else {
                (probe.fast, probe.fast_since, probe.fast_length) = (0, now, wait);
            }
            (probe.stretch, probe.length) = (now, wait);
            let grown = wait.saturating_sub(probe.fast_length);
            if probe.fast >= FAST_STRETCHES && grown > bounds.tolerance.mul_f64(FAST_GROWTH) {
                let since = probe.fast_since;
                self.end_in_vain(now, since);
            }
        }
    }

    /// Says that somebody who would have been refused was left to the kernel.
    pub(super) fn held(&mut self, now: Instant) {
        self.last_refusal = Some(now);
    }

    /// Says that somebody was refused, or shed.
    pub(super) fn refused(&mut self, now: Instant, bounds: Bounds) {
        self.last_refusal = Some(now);
        self.refused += 1;
        if let Some(probe) = self.probe {
            self.end_in_vain(now, probe.since);
        } else if self.limit.is_none() {
            self.limit = Some(bounds.tolerance);
            self.tight_since = now;
            self.begin_tick(now);
            self.refused = 1;
            // Whatever came before: a closed loop may have kept the workers busy for hours.
            self.next_probe = now + FIRST_PROBE_AFTER;
        }
    }

    /// Ends a probe: it is still an overload, as could be seen since this time.
    fn end_in_vain(&mut self, now: Instant, since: Instant) {
        self.probe = None;
        self.next_probe = now + PROBE_AFTER.max(now.saturating_duration_since(since) * PROBE_SHARE);
        self.purging = true;
        self.begin_tick(now);
        // What was admitted and refused meanwhile says nothing.
        self.was_idle = true;
    }

    /// Says that a worker had nobody to serve.
    pub(super) fn idle(&mut self, now: Instant, bounds: Bounds) {
        self.purging = false;
        let Some(limit) = self.limit else { return };
        if let Some(probe) = self.probe {
            if now >= probe.since + TICK {
                self.relax();
            }
            return;
        }
        if self.last_refusal.is_none_or(|at| now > at + bounds.tolerance) {
            return self.relax();
        }
        self.was_idle = true;
        let is_fresh = self.lengthened.is_none_or(|at| self.last_refusal > Some(at) && now >= at + CALM);
        if is_fresh {
            self.lengthened = Some(now);
            self.limit = Some(limit.max(bounds.floor) * LENGTHENED);
            if self.limit >= Some(bounds.tolerance) {
                self.relax();
            }
        }
    }

    /// Says how long somebody had waited whose turn has come, and for how long those behind will. The
    /// line is as it should be again when neither is too long.
    pub(super) fn waited(&mut self, wait: Duration, behind: Duration, bounds: Bounds) {
        if let Some(probe) = &mut self.probe {
            probe.longest = probe.longest.max(wait);
        }
        let limit = self.limit(bounds);
        self.purging &= wait > limit || behind > limit;
    }

    /// Says that somebody was looked at when its turn came: who is gone had waited so long.
    pub(super) fn looked_at(&mut self, gone_after: Option<Duration>) {
        self.learnt.taken += 1;
        if let Some(gone_after) = gone_after {
            let least = if self.learnt.gone == 0 { gone_after } else { self.learnt.gone_after };
            self.learnt.gone += 1;
            self.learnt.gone_after = least.min(gone_after);
        }
    }

    /// Draws the conclusions of what has happened, once in a while.
    pub(super) fn tick(&mut self, now: Instant, bounds: Bounds) {
        if now < self.ticked + TICK {
            return;
        }
        if self.learn(now, bounds) {
            return self.begin_tick(now);
        }
        let Some(limit) = self.limit else { return self.begin_tick(now) };
        if self.probe.is_some() {
            self.see_through(now, bounds);
            return self.begin_tick(now);
        }
        if self.refused == 0 {
            if self.last_refusal.is_none_or(|at| now >= at + bounds.tolerance) {
                self.relax();
            }
        } else if !self.was_idle && now >= self.tight_since + bounds.tolerance {
            let refused = f64::from(self.refused) / f64::from(self.refused + self.admitted);
            self.limit = Some(limit.mul_f64((1.0 - refused).max(LEAST_FACTOR)).max(bounds.floor));
        }
        self.begin_tick(now);
        if self.limit.is_some() && now >= self.next_probe {
            let none = Duration::ZERO;
            // The backlog is as long as usual again, so that all can come who wait.
            self.last_refusal = None;
            self.probe = Some(Probe {
                since: now,
                window: now,
                longest: none,
                longest_before: none,
                stretch: now,
                // It is as long as it may be.
                length: limit,
                fast: 0,
                fast_since: now,
                fast_length: limit,
            });
        }
    }

    fn begin_tick(&mut self, now: Instant) {
        self.ticked = now;
        (self.refused, self.admitted, self.was_idle) = (0, 0, false);
    }

    /// When clients have gone before their turn, it has to come sooner. Whether that was so.
    fn learn(&mut self, now: Instant, bounds: Bounds) -> bool {
        if self.learnt.taken < LOOKED_AT {
            return false;
        }
        let Learnt { taken, gone, gone_after } = std::mem::take(&mut self.learnt);
        if gone * GONE <= taken {
            return false;
        }
        if self.probe.is_some() || self.limit.is_none() {
            self.refused(now, bounds);
        }
        let bearable = gone_after.mul_f64(OF_PATIENCE).max(bounds.floor);
        self.limit = self.limit.map(|limit| limit.min(bearable));
        self.last_refusal = Some(now);
        // No need to see whether it lasts.
        self.tight_since = now.checked_sub(bounds.tolerance).unwrap_or(now);
        self.purging = true;
        true
    }

    /// Ends a probe in which the line has stopped growing: there is no overload any more.
    fn see_through(&mut self, now: Instant, bounds: Bounds) {
        let Some(probe) = &mut self.probe else { return };
        if now < probe.window + PROBE_AFTER.max(bounds.tolerance) {
            return;
        }
        let grown = probe.longest.saturating_sub(probe.longest_before);
        if grown < bounds.tolerance.mul_f64(GROWTH) {
            return self.relax();
        }
        (probe.window, probe.longest_before, probe.longest) = (now, probe.longest, Duration::ZERO);
    }

    fn relax(&mut self) {
        (self.limit, self.probe, self.purging) = (None, None, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const BOUNDS: Bounds = Bounds { tolerance: Duration::from_millis(400), floor: Duration::from_millis(10) };

    /// What happens to a line, one after the other.
    #[derive(Clone, Copy)]
    enum Step {
        /// So many milliseconds later.
        At(u32),
        Refused(u32),
        Admitted(u32),
        /// Somebody was let in who is going to wait so many milliseconds.
        Joined(u32),
        Idle,
        /// Somebody's turn has come who had waited so many milliseconds, and those behind will.
        Waited(u32, u32),
        /// So many were looked at, of whom so many had gone after so many milliseconds.
        Gone(u32, u32, u32),
        Tick,
    }
    use Step::*;

    fn line(steps: &[Step]) -> Line {
        let began = Instant::now();
        let mut now = began;
        let mut line = Line::new(began);
        for step in steps {
            match *step {
                At(ms) => now = began + ms * MS,
                Refused(times) => (0..times).for_each(|_| line.refused(now, BOUNDS)),
                Admitted(times) => (0..times).for_each(|_| line.admitted(now, Duration::ZERO, BOUNDS)),
                Joined(wait) => line.admitted(now, wait * MS, BOUNDS),
                Idle => line.idle(now, BOUNDS),
                Waited(wait, behind) => line.waited(wait * MS, behind * MS, BOUNDS),
                Gone(taken, gone, after) => {
                    (0..gone).for_each(|_| line.looked_at(Some(after * MS)));
                    (gone..taken).for_each(|_| line.looked_at(None));
                }
                Tick => line.tick(now, BOUNDS),
            }
        }
        line
    }

    /// What is in force in milliseconds, and whether it is tight, probing, purging.
    type State = (u128, bool, bool, bool);

    fn state(line: &Line) -> State {
        (line.limit(BOUNDS).as_millis(), line.is_tight(), line.probe.is_some(), line.is_purging())
    }

    #[test]
    fn each_transition() {
        let cases: Vec<(&str, Vec<Step>, State)> = vec![
            ("nothing has happened", vec![At(1000), Tick, Idle], (400, false, false, false)),
            ("a refusal declares", vec![At(500), Refused(1)], (400, true, false, false)),
            (
                "it is held for a tolerance",
                vec![At(500), Refused(9), Admitted(1), At(800), Tick],
                (400, true, false, false),
            ),
            (
                "then shortened by the share refused",
                vec![At(500), Refused(1), At(950), Refused(1), Admitted(3), Tick],
                (240, true, false, false),
            ),
            (
                "by half at most",
                vec![At(500), Refused(1), At(950), Refused(99), Admitted(1), Tick],
                (200, true, false, false),
            ),
            (
                "not where a worker was idle",
                vec![At(500), Refused(1), At(949), Refused(99), Idle, At(950), Tick],
                (400, false, false, false),
            ),
            ("never under the floor", shrunk(12), (10, true, false, false)),
            ("an idle worker after a refusal doubles", after(shrunk(5), &[Idle]), (25, true, false, false)),
            ("once for each refusal", after(shrunk(5), &[Idle, At(1410), Idle]), (25, true, false, false)),
            (
                "a tolerance without refusals ends it",
                after(shrunk(5), &[At(1801), Tick, At(1901), Tick]),
                (400, false, false, false),
            ),
            (
                "an idle worker long after the last ends it",
                after(shrunk(5), &[At(1801), Idle]),
                (400, false, false, false),
            ),
            ("after a while it probes", probing(), (400, true, true, false)),
            (
                "a refusal ends the probe and purges",
                after(probing(), &[At(2550), Refused(1)]),
                (10, true, false, true),
            ),
            (
                "purging ends when line and wait are short",
                after(probing(), &[At(2550), Refused(1), Waited(9, 9)]),
                (10, true, false, false),
            ),
            (
                "and not before",
                after(probing(), &[At(2550), Refused(1), Waited(9, 11)]),
                (10, true, false, true),
            ),
            (
                "an idle worker ends the overload",
                after(probing(), &[At(2650), Idle]),
                (400, false, false, false),
            ),
            (
                "a line that grows is still watched",
                after(probing(), &[Waited(100, 0), At(3510), Tick]),
                (400, true, true, false),
            ),
            (
                "one that does not ends the overload",
                after(probing(), &[Waited(100, 0), At(3510), Tick, Waited(110, 0), At(4510), Tick]),
                (400, false, false, false),
            ),
            (
                "one that grows fast is an overload",
                after(
                    probing(),
                    &[At(2505), Joined(30), At(2510), Joined(50), At(2515), Joined(60), At(2520), Joined(71)],
                ),
                (10, true, false, true),
            ),
            (
                "one that grew fast is not",
                after(
                    probing(),
                    &[
                        At(2505),
                        Joined(115),
                        At(2510),
                        Joined(120),
                        At(2515),
                        Joined(125),
                        At(2520),
                        Joined(126),
                    ],
                ),
                (400, true, true, false),
            ),
            ("those who are gone shorten it", vec![At(500), Gone(20, 3, 100), Tick], (80, true, false, true)),
            ("but few do not", vec![At(500), Gone(20, 2, 100), Tick], (400, false, false, false)),
            ("nor of few", vec![At(500), Gone(19, 19, 100), Tick], (400, false, false, false)),
        ];
        for (what, steps, expected) in cases {
            assert_eq!(state(&line(&steps)), expected, "{what}");
        }
    }

    /// Refused for a tolerance, and then half as long each tick.
    fn shrunk(times: u32) -> Vec<Step> {
        let begin = [At(500), Refused(1)];
        let tick = |n| [At(900 + n * 100), Refused(1), Tick];
        begin.into_iter().chain((1..=times).flat_map(tick)).collect()
    }

    /// A probe has just begun: two seconds later.
    fn probing() -> Vec<Step> {
        let later = [At(2500), Refused(1), Tick];
        shrunk(12).into_iter().chain(later).collect()
    }

    fn after(mut steps: Vec<Step>, more: &[Step]) -> Vec<Step> {
        steps.extend_from_slice(more);
        steps
    }
}
