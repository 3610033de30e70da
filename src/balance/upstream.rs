//! One upstream: its addresses, and the record of its connections and of what speaks against its
//! state. It knows neither the other upstreams nor who waits, and takes no lock.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{config::UpstreamConfig, status::UpstreamStatus};
use crate::overload::Limit;

/// What connections are made to. It is shared by all who hold one.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) name: String,
    /// All addresses of its name, at least one.
    addrs: Vec<SocketAddr>,
    /// Which of them is tried first: the one that was last connected to.
    first: AtomicUsize,
    /// Bytes sent to it and received from it.
    sent: AtomicU64,
    received: AtomicU64,
}

impl Upstream {
    pub(super) fn new(config: &UpstreamConfig, addrs: Vec<SocketAddr>) -> Self {
        Self {
            name: config.name.clone(),
            addrs,
            first: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    pub(super) fn addrs(&self) -> usize {
        self.addrs.len()
    }

    /// The address for this attempt; the first is 0.
    pub(super) fn addr(&self, attempt: usize) -> SocketAddr {
        self.addrs[(self.first.load(Relaxed) + attempt) % self.addrs.len()]
    }

    pub(super) fn is_at(&self, is_it: impl Fn(SocketAddr) -> bool) -> bool {
        self.addrs.iter().any(|&addr| is_it(addr))
    }

    /// Says that this attempt led to a connection: the next one begins with its address.
    pub(super) fn reached(&self, attempt: usize) {
        if attempt > 0 {
            let first = (self.first.load(Relaxed) + attempt) % self.addrs.len();
            self.first.store(first, Relaxed);
        }
    }

    /// Counts bytes that were sent to it and received from it.
    pub(super) fn moved(&self, sent: u64, received: u64) {
        for (count, bytes) in [(&self.sent, sent), (&self.received, received)] {
            if bytes > 0 {
                count.fetch_add(bytes, Relaxed);
            }
        }
    }

    /// How it fares, by this record of it.
    pub(super) fn status(&self, record: &Record) -> UpstreamStatus {
        let found = record.limit.as_ref().map(Limit::report);
        UpstreamStatus {
            name: self.name.clone(),
            addr: self.addr(0),
            up: !record.is_down(),
            open: record.open - record.connecting,
            connecting: record.connecting,
            connected: record.connected,
            failed: record.failed,
            busy: record.busy,
            lacked: record.lacked,
            connect_time: record.connect_time,
            limit: found.map(|found| found.limit),
            throughput: found.and_then(|found| found.throughput),
            elasticity: found.and_then(|found| found.elasticity),
            sent: self.sent.load(Relaxed),
            received: self.received.load(Relaxed),
        }
    }
}

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
            unserved: 0,
            ejected_until: None,
            ejections: 0,
            back_since: None,
        }
    }

    /// Whether it gets nothing for a while, since it has failed to serve what it got.
    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    /// It has served a request.
    pub(super) fn served(&mut self) {
        (self.unserved, self.ejections) = (0, 0);
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

    /// A request was answered that says how long requests take.
    pub(super) fn answered(&mut self, now: Instant, took: Duration) {
        if let Some(limit) = &mut self.limit {
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
        if went_well {
            self.connects_against = 0;
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
    fn the_address_that_was_reached_is_tried_first() {
        let addrs: Vec<SocketAddr> = (1..=3).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let upstream = Upstream::new(&UpstreamConfig { name: "it".into(), weight: 1 }, addrs.clone());
        let ports = || (0..upstream.addrs()).map(|attempt| upstream.addr(attempt).port()).collect::<Vec<_>>();
        assert_eq!(ports(), [1, 2, 3]);
        upstream.reached(2);
        assert_eq!(ports(), [3, 1, 2]);
        upstream.reached(0);
        assert_eq!(ports(), [3, 1, 2]);
        assert!(upstream.is_at(|addr| addr == addrs[1]));
    }
}
