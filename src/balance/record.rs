//! The record of an upstream: its connections, and what speaks against its state. It knows neither its
//! address nor the other upstreams, nor who waits, and takes no lock.

use std::time::{Duration, Instant};

use super::{status::UpstreamStatus, upstream::Upstream};
use crate::overload::Limit;

/// So many in a row that speak against an upstream's state change it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needed {
    pub(super) rise: u32,
    pub(super) fall: u32,
}

/// What came of an upstream's connections and checks.
///
/// | state | speaks against it | speaks for it |
/// |---|---|---|
/// | up | a failed check, a moment at which a connect failed | a good check; for connects also one that is made |
/// | down | a good check | a failed check |
#[derive(Debug)]
pub(super) struct Record {
    needed: Needed,
    /// How many places it has; none where that does not matter.
    limit: Option<Limit>,
    /// None while it is up.
    down_since: Option<Instant>,
    /// Checks in a row that speak against the state.
    checks_against: u32,
    /// Moments in a row at which connects failed, and the last of them.
    connects_against: u32,
    connect_failed: Option<Instant>,
    /// Places that are taken, and those of them at which a connection is still being made.
    open: usize,
    connecting: usize,
    /// Connections made, and attempts that failed.
    connected: u64,
    failed: u64,
    /// Connects that were reset: it was there, but busy.
    busy: u64,
    /// Connects for which this side had no descriptor or port.
    lacked: u64,
    connect_time: Duration,
    /// A connection to it was made, or a check went well.
    reached: bool,
    /// A check was tried, whatever came of it.
    looked_at: bool,
    /// Requests in a row that it has failed to serve, although it could be connected to.
    unserved: u32,
    /// It gets none until then; how often that was so in a row.
    ejected_until: Option<Instant>,
    ejections: u32,
    /// Since when it is up again, if it was down or ejected.
    back_since: Option<Instant>,
}

/// So many requests that it fails to serve in a row eject it,
const UNSERVED: u32 = 5;
/// for so long the first time, and for as much longer each time, up to this many times.
const EJECTED: Duration = Duration::from_secs(10);
const EJECTIONS: u32 = 30;
/// One that is back gets its full share after this time, and before that a part of it: its caches are cold,
/// and so may be its code.
const SLOW_START: Duration = Duration::from_secs(10);

/// Failed connects within this time count as one: what matters is how long, not how many try.
const MOMENT: Duration = Duration::from_millis(100);

impl Record {
    pub(super) fn new(needed: Needed, limit: Option<Limit>) -> Self {
        Self {
            needed,
            limit,
            down_since: None,
            checks_against: 0,
            connects_against: 0,
            connect_failed: None,
            open: 0,
            connecting: 0,
            connected: 0,
            failed: 0,
            busy: 0,
            lacked: 0,
            connect_time: Duration::ZERO,
            reached: false,
            looked_at: false,
            unserved: 0,
            ejected_until: None,
            ejections: 0,
            back_since: None,
        }
    }

    /// Goes by these from now on; a limit that has been found stays.
    pub(super) fn set(&mut self, needed: Needed, limit: Option<Limit>) {
        self.needed = needed;
        let is_found = |limit: &Option<Limit>| limit.as_ref().is_some_and(Limit::is_found);
        if !(is_found(&self.limit) && is_found(&limit)) {
            self.limit = limit;
        }
    }

    /// Says that it has come, or has come back, while others were there: it gets its share step by step.
    pub(super) fn came(&mut self, now: Instant) {
        self.back_since = Some(now);
    }

    /// How it fares, where this is its record. `used`: it may get something.
    pub(super) fn status(&self, upstream: &Upstream, used: bool) -> UpstreamStatus {
        let found = self.limit.as_ref().map(Limit::report);
        let (sent, received) = upstream.bytes();
        UpstreamStatus {
            name: upstream.name.clone(),
            addr: upstream.addr,
            up: used && !self.is_down(),
            reached: self.reached,
            open: self.open - self.connecting,
            connecting: self.connecting,
            connected: self.connected,
            failed: self.failed,
            busy: self.busy,
            lacked: self.lacked,
            connect_time: self.connect_time,
            limit: found.map(|found| found.limit),
            throughput: found.and_then(|found| found.throughput),
            elasticity: found.and_then(|found| found.elasticity),
            sent,
            received,
        }
    }

    /// Whether a connection to it was ever made, or a check went well.
    pub(super) fn is_reached(&self) -> bool {
        self.reached
    }

    /// Whether a check was ever tried, whatever came of it.
    pub(super) fn is_looked_at(&self) -> bool {
        self.looked_at
    }

    /// A check was tried, but this side could not make it.
    pub(super) fn check_lacked(&mut self) {
        self.looked_at = true;
    }

    /// Whether it gets nothing for a while, since it has failed to serve what it got.
    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    /// It has failed to serve a request. Whether it is ejected, after so many in a row.
    pub(super) fn unserved(&mut self, now: Instant) -> bool {
        self.unserved += 1;
        if self.unserved < UNSERVED || self.is_ejected(now) {
            return false;
        }
        self.unserved = 0;
        self.ejections = (self.ejections + 1).min(EJECTIONS);
        let until = now + EJECTED * self.ejections;
        (self.ejected_until, self.back_since) = (Some(until), Some(until));
        true
    }

    /// Its share of what it gets usually, in hundredths: less for a while when it is back.
    pub(super) fn share(&self, now: Instant) -> u32 {
        const FULL: u32 = 100;
        let Some(since) = self.back_since else { return FULL };
        let passed = now.saturating_duration_since(since).as_secs_f64() / SLOW_START.as_secs_f64();
        ((passed * f64::from(FULL)) as u32).clamp(FULL / 10, FULL)
    }

    pub(super) fn is_down(&self) -> bool {
        self.down_since.is_some()
    }

    /// Whether it has gone down so recently.
    pub(super) fn is_down_for_less_than(&self, time: Duration, now: Instant) -> bool {
        self.down_since.is_some_and(|since| now < since + time)
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// How many places it has; none where that does not matter.
    pub(super) fn limit(&self) -> Option<usize> {
        self.limit.as_ref().map(Limit::in_force)
    }

    /// Lets the limit know how many places are taken, and whether somebody waits for one, or was refused.
    pub(super) fn look_at_limit(&mut self, now: Instant, waiting: bool) {
        if let Some(limit) = &mut self.limit {
            limit.look(now, self.open, waiting);
        }
    }

    /// It has served a request, which may say how long requests take.
    pub(super) fn answered(&mut self, now: Instant, took: Option<Duration>) {
        (self.unserved, self.ejections) = (0, 0);
        if let (Some(limit), Some(took)) = (&mut self.limit, took) {
            limit.done(now, took);
        }
    }

    /// A place was taken for which there is a connection.
    pub(super) fn reused(&mut self) {
        self.connecting -= 1;
    }

    pub(super) fn connecting(&self) -> usize {
        self.connecting
    }

    /// A place was taken, for a connection that is now being made.
    pub(super) fn taken(&mut self) {
        self.open += 1;
        self.connecting += 1;
    }

    /// The connection of a place was made, which took so long.
    pub(super) fn connected(&mut self, took: Duration) {
        self.connecting -= 1;
        self.connected += 1;
        self.reached = true;
        // It says nothing of what checks ask for, which the kernel does not do by itself.
        self.connects_against = 0;
        // The weight of the latest is an eighth.
        self.connect_time = match self.connected {
            1 => took,
            _ => (self.connect_time * 7 + took) / 8,
        };
    }

    /// A place was given back, whose connection was still being made or not.
    pub(super) fn given_back(&mut self, connecting: bool) {
        self.open -= 1;
        self.connecting -= usize::from(connecting);
    }

    /// It was there, but has reset a connection.
    pub(super) fn was_busy(&mut self) {
        self.busy += 1;
    }

    /// This side had no descriptor, memory or port for a connection.
    pub(super) fn lacked(&mut self) {
        self.lacked += 1;
    }

    /// A connection could not be made. What fails for a few moments in a row is down. Whether it changes
    /// its state.
    pub(super) fn connect_failed(&mut self, now: Instant) -> bool {
        self.failed += 1;
        if self.is_down() || self.connect_failed.is_some_and(|at| now < at + MOMENT) {
            return false;
        }
        self.connect_failed = Some(now);
        self.connects_against += 1;
        self.turn_if(self.connects_against >= self.needed.fall, now)
    }

    /// It was checked, which went well or not. It changes its state after so many in a row that speak
    /// against that. Whether it does.
    pub(super) fn checked(&mut self, went_well: bool, now: Instant) -> bool {
        self.looked_at = true;
        if went_well {
            self.connects_against = 0;
            self.reached = true;
        }
        if went_well != self.is_down() {
            self.checks_against = 0;
            return false;
        }
        self.checks_against += 1;
        let needed = if self.is_down() { self.needed.rise } else { self.needed.fall };
        self.turn_if(self.checks_against >= needed, now)
    }

    fn turn_if(&mut self, it_does: bool, now: Instant) -> bool {
        if it_does {
            self.back_since = self.down_since.map(|_| now);
            self.down_since = if self.is_down() { None } else { Some(now) };
            (self.checks_against, self.connects_against) = (0, 0);
        }
        it_does
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// What happens to an upstream, one after the other.
    #[derive(Clone, Copy)]
    enum Step {
        /// So many milliseconds later than the beginning.
        At(u32),
        Good,
        Bad,
        Connected,
        ConnectFailed,
    }
    use Step::*;

    /// One that falls after three and rises after two, and whether the last step has changed its state.
    fn record(steps: &[Step]) -> (Record, bool) {
        let began = Instant::now();
        let mut now = began;
        let mut record = Record::new(Needed { rise: 2, fall: 3 }, None);
        let mut turned = false;
        for &step in steps {
            turned = match step {
                At(ms) => {
                    now = began + ms * MS;
                    false
                }
                Good => record.checked(true, now),
                Bad => record.checked(false, now),
                Connected => {
                    record.taken();
                    record.connected(MS);
                    false
                }
                ConnectFailed => record.connect_failed(now),
            };
        }
        (record, turned)
    }

    #[test]
    fn each_transition() {
        let fallen = [Bad, Bad, Bad];
        let cases: Vec<(&str, Vec<Step>, bool, bool)> = vec![
            ("it begins up", vec![], false, false),
            ("good checks change nothing", vec![Good, Good, Good], false, false),
            ("two bad checks are too few", vec![Bad, Bad], false, false),
            ("the third makes it fall", fallen.to_vec(), true, true),
            ("once", [&fallen[..], &[Bad]].concat(), true, false),
            ("a good one between begins anew", vec![Bad, Bad, Good, Bad, Bad], false, false),
            ("a connection says nothing of checks", vec![Bad, Bad, Connected, Bad], true, true),
            ("one good check is too few", [&fallen[..], &[Good]].concat(), true, false),
            ("the second makes it rise", [&fallen[..], &[Good, Good]].concat(), false, true),
            ("a bad one between begins anew", [&fallen[..], &[Good, Bad, Good]].concat(), true, false),
            (
                "what spoke against it before it fell is forgotten when it rises",
                [&fallen[..], &[Good, Good, Bad, Bad]].concat(),
                false,
                false,
            ),
            ("connects that fail at one moment count once", vec![ConnectFailed; 9], false, false),
            (
                "those of a moment that is not over, too",
                vec![ConnectFailed, At(100), ConnectFailed, At(199), ConnectFailed],
                false,
                false,
            ),
            (
                "three moments make it fall",
                vec![ConnectFailed, At(100), ConnectFailed, At(200), ConnectFailed],
                true,
                true,
            ),
            (
                "a connection between begins anew",
                vec![ConnectFailed, At(100), ConnectFailed, Connected, At(200), ConnectFailed],
                false,
                false,
            ),
            (
                "a good check as well",
                vec![ConnectFailed, At(100), ConnectFailed, Good, At(200), ConnectFailed],
                false,
                false,
            ),
            (
                "checks and connects are not added up",
                vec![Bad, Bad, ConnectFailed, At(100), ConnectFailed],
                false,
                false,
            ),
            (
                "connects say nothing of one that is down",
                [&fallen[..], &[ConnectFailed, At(100), ConnectFailed, At(200), ConnectFailed]].concat(),
                true,
                false,
            ),
            ("nor does one that is made", [&fallen[..], &[Connected, Connected]].concat(), true, false),
        ];
        for (what, steps, is_down, has_turned) in cases {
            let (record, turned) = record(&steps);
            assert_eq!((record.is_down(), turned), (is_down, has_turned), "{what}");
        }
    }

    #[test]
    fn it_knows_for_how_long_it_has_been_down() {
        let t = Instant::now();
        let mut record = Record::new(Needed { rise: 1, fall: 1 }, None);
        assert!(!record.is_down_for_less_than(MS, t));
        assert!(record.checked(false, t));
        assert!(record.is_down_for_less_than(10 * MS, t + 9 * MS));
        assert!(!record.is_down_for_less_than(10 * MS, t + 10 * MS));
        assert!(record.checked(true, t + MS));
        assert!(!record.is_down_for_less_than(10 * MS, t + MS));
    }

    #[test]
    fn places_are_counted_until_they_are_given_back() {
        let mut record = Record::new(Needed { rise: 1, fall: 1 }, None);
        (0..3).for_each(|_| record.taken());
        record.connected(8 * MS);
        record.connected(16 * MS);
        assert_eq!((record.open(), record.connecting(), record.connect_time), (3, 1, 9 * MS));
        record.given_back(false);
        record.given_back(true);
        assert_eq!((record.open(), record.connecting()), (1, 0));
    }

    #[test]
    fn a_limit_that_was_found_stays_and_a_given_one_does_not() {
        let t = Instant::now();
        let needed = Needed { rise: 1, fall: 1 };
        let found = || Some(Limit::found(t));
        let mut record = Record::new(needed, found());
        // It is what it was, whatever has been found since.
        let start = record.limit();
        for (limit, expected) in [
            (Some(Limit::fixed(3)), Some(3)),
            (Some(Limit::fixed(4)), Some(4)),
            (found(), start),
            (None, None),
            (found(), start),
        ] {
            record.set(needed, limit);
            assert_eq!(record.limit(), expected);
        }
        (0..100).for_each(|_| record.taken());
        for ms in 0..2000 {
            record.answered(t + ms * MS, Some(MS));
            record.look_at_limit(t + ms * MS, true);
        }
        let moved = record.limit();
        assert_ne!(moved, start);
        record.set(needed, found());
        assert_eq!(record.limit(), moved);
    }

    #[test]
    fn a_connection_or_a_good_check_says_that_it_can_be_reached() {
        for (steps, reached) in [
            (&[][..], false),
            (&[Bad, ConnectFailed], false),
            (&[Connected], true),
            (&[Good], true),
            (&[Good, Bad, Bad, Bad], true),
        ] {
            assert_eq!(record(steps).0.is_reached(), reached);
        }
    }
}
