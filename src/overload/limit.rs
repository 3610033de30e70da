//! How many requests an upstream may have in flight, found by how many it answers. It knows neither the
//! upstream nor who waits for it.

use std::time::{Duration, Instant};

use super::window::{Measured, Window};

/// How many requests an upstream may have in flight.
#[derive(Debug)]
pub(crate) struct Limit(Kind);

#[derive(Debug)]
enum Kind {
    Fixed(usize),
    Found(Finder),
}

/// What there is to say of a limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Found {
    pub(crate) limit: f64,
    /// Requests answered in a second, in the latest window.
    pub(crate) throughput: Option<f64>,
    /// By how much the throughput follows the limit: 1 where all that are in flight are worked on, 0
    /// where one more only waits in the upstream.
    pub(crate) elasticity: Option<f64>,
}

impl Limit {
    pub(crate) fn fixed(n: usize) -> Self {
        Self(Kind::Fixed(n.max(1)))
    }

    pub(crate) fn found(now: Instant) -> Self {
        Self(Kind::Found(Finder::new(now)))
    }

    /// Whether it is found, and not given.
    pub(crate) fn is_found(&self) -> bool {
        matches!(self.0, Kind::Found(_))
    }

    /// How many may be in flight now, one at least.
    pub(crate) fn in_force(&self) -> usize {
        match &self.0 {
            Kind::Fixed(n) => *n,
            Kind::Found(finder) => finder.in_force,
        }
    }

    /// Says that a request was answered, and how long that took.
    pub(crate) fn done(&mut self, _now: Instant, took: Duration) {
        if let Kind::Found(finder) = &mut self.0 {
            finder.answered(took.as_secs_f64());
        }
    }

    /// Says how many are in flight from now on, and whether somebody waits, or was refused since the last
    /// time, because there may not be more.
    pub(crate) fn look(&mut self, now: Instant, in_flight: usize, waiting: bool) {
        if let Kind::Found(finder) = &mut self.0 {
            finder.look(now, waiting || in_flight >= finder.in_force);
        }
    }

    pub(crate) fn report(&self) -> Found {
        match &self.0 {
            Kind::Fixed(n) => Found { limit: *n as f64, throughput: None, elasticity: None },
            Kind::Found(Finder { limit, throughput, elasticity, .. }) => {
                Found { limit: *limit, throughput: *throughput, elasticity: *elasticity }
            }
        }
    }
}

/// Finds a limit: the line of an upstream cannot be seen, but while requests wait on this side, its
/// throughput at two limits can. First twice or half as many are tried until one of the two is found to
/// be right, and then windows at the limit and below it take turns, whose elasticity it follows.
#[derive(Debug)]
struct Finder {
    state: State,
    limit: f64,
    /// What follows from the limit, or from what a window has in its place.
    in_force: usize,
    /// Mean latency of the latest requests, in seconds.
    latency: f64,
    /// The least mean latency of a window, in seconds; it is forgotten slowly.
    least: f64,
    throughput: Option<f64>,
    elasticity: Option<f64>,
}

/// | state | what happens | next | the limit |
/// |---|---|---|---|
/// | settling | a mean latency passes | measuring | stays |
/// | first | it is full, and requests are quick | rise | doubles |
/// | first | it is full, and requests take long | fall | halves |
/// | rise | the throughput has followed the limit | rise | doubles |
/// | rise | it has not | upper | as before it doubled |
/// | fall | the throughput has not followed the limit | fall, down to 1 | halves |
/// | fall | it has | upper | as before it halved |
/// | upper | it is full | lower | stays, three quarters are in force |
/// | lower | it is full | upper | follows the elasticity |
/// | first, rise, fall, upper | the limit was not reached | the same, from its beginning | stays |
/// | lower | the limit was not reached | upper | stays |
///
/// Each window but one that begins again is settled for first.
#[derive(Debug, Clone, Copy)]
enum State {
    /// Those in flight were sent under another limit.
    Settling {
        until: Instant,
        phase: Phase,
    },
    Measuring {
        window: Window,
        phase: Phase,
    },
}

/// What a window is measured for.
#[derive(Debug, Clone, Copy)]
enum Phase {
    First,
    Rise { before: Measured },
    Fall { before: Measured },
    Upper,
    Lower { upper: Measured },
}

// The figures are shares of the possible goodput in the simulation, twice and ten times overloaded, each
// with this constant alone changed; "slow" is 16 threads whose database takes 200 ms.

/// To begin with. (With 8, the one that becomes slow kept 46 instead of 66 %.)
const START: f64 = 16.0;
/// The highest, so that an upstream that answers everything at once is not sent everything.
const HIGHEST: f64 = 1000.0;
/// Where requests take more seconds than this at first, they may well be waiting in the upstream, and
/// their clients have little time left: fewer are tried before more. (If more always came first, two
/// workers that take 60 ms kept 41 instead of 99 % in the first 35 s.)
const LONG: f64 = 0.15;
/// The elasticity that is sought: at less, latency is paid for nothing, at more, throughput is left. It is
/// low, since the windows below the limit cost throughput. (With 0.35, 256 threads kept 94 instead of
/// 97 %.)
const GOAL: f64 = 0.25;
/// The weight of the latest elasticity, since that of one pair of windows is exact to 0.5 or so. (With
/// 0.35, slow kept 61 instead of 66 %.)
const WEIGHT: f64 = 0.2;
/// By how much the limit follows an elasticity that is higher, and one that is lower. Downwards it is
/// slower: too low costs throughput at once, too high only latency. (With 0.3 upwards there was no
/// difference but at slow, 63 instead of 66 %; with 0.6 downwards, 16 threads kept 95 instead of 97 %.)
const UP: f64 = 0.6;
const DOWN: f64 = 0.2;
/// The limit in a lower window: less of a difference is lost in the noise, and more costs throughput.
/// (With 0.65, 16 threads kept 94 instead of 97 %, and slow 57 instead of 66 %.)
const LOWER: f64 = 0.75;
/// So many standard deviations make an elasticity certain, and it is followed at once. (With 1.5, one of
/// 15 is certain by mistake, and slow kept 60 instead of 66 %.)
const CERTAIN: f64 = 2.0;
/// Then the limit is that of the window below, or as much higher, and the elasticity is no higher, or no
/// lower, than this. (With 0.6 and 1.5, mistakes cost more: 256 threads kept 95 instead of 96 %.)
const LEAP_DOWN: f64 = 0.75;
const LEAP_UP: f64 = 1.33;
const SURELY_LOW: f64 = 0.2;
const SURELY_HIGH: f64 = 0.6;
/// At this elasticity the limit rises by one at least: a small one would hardly rise by its share.
const SCALES: f64 = 0.9;
/// What noise or a standstill may make of an elasticity at most.
const LEAST: f64 = -0.5;
const MOST: f64 = 1.5;
/// So many times what the throughput and the least latency make, and so many more, may be in flight at
/// most: who waits longer in the upstream than it is worked on is better off on this side. It stops what
/// noise makes drift. (With 1.5, a database that has become slow holds the limit down for half a minute,
/// and slow kept 35 instead of 66 %; with 3, the mix of short and long requests kept 98 instead of 99 %.)
const GUARD: f64 = 2.5;
const GUARD_MORE: f64 = 4.0;
/// By this much the least latency rises each window: what was so once need not be so for ever. (If it
/// did not, slow kept 42 instead of 66 %.)
const FORGOTTEN: f64 = 1.02;
/// The weight of the latest latency.
const LATEST: f64 = 1.0 / 16.0;
/// Settling takes no longer than this.
const LONGEST_SETTLING: Duration = Duration::from_secs(1);

impl Finder {
    fn new(now: Instant) -> Self {
        Self {
            state: State::Settling { until: now, phase: Phase::First },
            limit: START,
            in_force: in_force(START),
            latency: 0.0,
            least: f64::INFINITY,
            throughput: None,
            elasticity: None,
        }
    }

    fn answered(&mut self, took: f64) {
        self.latency += if self.latency == 0.0 { took } else { (took - self.latency) * LATEST };
        if let State::Measuring { window, .. } = &mut self.state {
            window.answered(took);
        }
    }

    fn look(&mut self, now: Instant, full: bool) {
        match &mut self.state {
            State::Settling { until, phase } => {
                if now >= *until {
                    self.state = State::Measuring { window: Window::new(now), phase: *phase };
                }
            }
            State::Measuring { window, phase } => {
                window.look(now, full);
                let phase = *phase;
                if window.is_void() {
                    self.void(now, phase);
                } else if let Some(measured) = window.measured(self.in_force, self.latency) {
                    self.throughput = Some(measured.throughput);
                    self.least = self.least.min(measured.latency) * FORGOTTEN;
                    self.conclude(now, phase, measured);
                }
            }
        }
    }

    fn void(&mut self, now: Instant, phase: Phase) {
        match phase {
            Phase::Lower { .. } => self.settle(now, self.limit, Phase::Upper),
            _ => self.state = State::Measuring { window: Window::new(now), phase },
        }
    }

    fn settle(&mut self, now: Instant, limit: f64, phase: Phase) {
        self.in_force = in_force(limit);
        let settling = Duration::from_secs_f64(self.latency).min(LONGEST_SETTLING);
        self.state = State::Settling { until: now + settling, phase };
    }

    /// Draws the conclusions of a window that is full.
    fn conclude(&mut self, now: Instant, phase: Phase, measured: Measured) {
        match phase {
            Phase::First if measured.latency > LONG => self.fall(now, measured),
            Phase::First => self.rise(now, measured),
            Phase::Rise { before } if elasticity(before, measured) > GOAL => self.rise(now, measured),
            Phase::Fall { before } if elasticity(measured, before) <= GOAL => match self.limit {
                limit if limit > 1.0 => self.fall(now, measured),
                limit => self.found(now, limit, measured),
            },
            Phase::Rise { before } | Phase::Fall { before } => self.found(now, before.limit - 1.0, measured),
            Phase::Upper => {
                // Below one there is nothing, and the pair is the other way round.
                let other = match self.limit {
                    limit if limit > 1.5 => (limit * LOWER).min(limit - 1.0).max(1.0),
                    limit => limit + 1.0,
                };
                self.settle(now, other, Phase::Lower { upper: measured });
            }
            Phase::Lower { upper } => {
                self.follow(upper, measured);
                self.bound(measured.throughput.max(upper.throughput));
                self.settle(now, self.limit, Phase::Upper);
            }
        }
    }

    fn rise(&mut self, now: Instant, before: Measured) {
        self.limit = (self.limit * 2.0).min(HIGHEST);
        self.settle(now, self.limit, Phase::Rise { before });
    }

    fn fall(&mut self, now: Instant, before: Measured) {
        self.limit = (self.limit / 2.0).max(1.0);
        self.settle(now, self.limit, Phase::Fall { before });
    }

    fn found(&mut self, now: Instant, limit: f64, measured: Measured) {
        self.elasticity = Some(GOAL);
        self.limit = limit;
        self.bound(measured.throughput);
        self.settle(now, self.limit, Phase::Upper);
    }

    /// Has the limit follow the elasticity of a pair.
    fn follow(&mut self, upper: Measured, lower: Measured) {
        let latest = elasticity(lower, upper).clamp(LEAST, MOST);
        let before = self.elasticity.unwrap_or(GOAL);
        let mean = before + (latest - before) * WEIGHT;
        let deviation = (upper.noise + lower.noise).sqrt() / (upper.limit / lower.limit).ln().abs();
        let certainty = (latest - GOAL) / deviation;
        let off = mean.clamp(0.0, 1.0) - GOAL;
        let (factor, elasticity) = if certainty < -CERTAIN {
            (LEAP_DOWN, mean.min(SURELY_LOW))
        } else if certainty > CERTAIN {
            (LEAP_UP, mean.max(SURELY_HIGH))
        } else {
            (1.0 + off * if off > 0.0 { UP } else { DOWN }, mean)
        };
        let more = if elasticity > SCALES { 1.0 } else { 0.0 };
        self.limit = self.limit * factor + more;
        self.elasticity = Some(elasticity);
    }

    fn bound(&mut self, throughput: f64) {
        let most = GUARD * throughput * self.least + GUARD_MORE;
        self.limit = self.limit.min(most).clamp(1.0, HIGHEST);
    }
}

/// One more than the limit: it is there when the upstream is done with another, which then need not wait
/// for it.
fn in_force(limit: f64) -> usize {
    limit.round() as usize + 1
}

/// By how much the throughput followed the limit from one window to another: 1 where it is in proportion.
fn elasticity(from: Measured, to: Measured) -> f64 {
    (to.throughput / from.throughput).ln() / (to.limit / from.limit).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens to a limit, one after the other.
    #[derive(Clone, Copy)]
    enum Step {
        /// Nothing is done for so many milliseconds, with the limit reached or not.
        Pass(u32, bool),
        /// A whole window, after it was settled for, in which requests take so many milliseconds and so
        /// many are answered at once.
        Answer(u32, usize),
    }
    use Step::*;

    const MS: Duration = Duration::from_millis(1);

    type Reached = (&'static str, f64, usize);

    /// The phase, the limit to a tenth, and what is in force.
    fn after(steps: &[Step]) -> Reached {
        let mut now = Instant::now();
        let mut limit = Limit::found(now);
        limit.look(now, limit.in_force(), true);
        for &step in steps {
            match step {
                Pass(ms, full) => {
                    limit.look(now, 0, full);
                    now += ms * MS;
                    limit.look(now, 0, full);
                }
                Answer(ms, workers) => answer(&mut limit, &mut now, ms, workers),
            }
        }
        let Kind::Found(finder) = &limit.0 else { unreachable!("it is to be found") };
        let (State::Settling { phase, .. } | State::Measuring { phase, .. }) = finder.state;
        let phase = match phase {
            Phase::First => "first",
            Phase::Rise { .. } => "rise",
            Phase::Fall { .. } => "fall",
            Phase::Upper => "upper",
            Phase::Lower { .. } => "lower",
        };
        (phase, (finder.limit * 10.0).round() / 10.0, finder.in_force)
    }

    /// Has as many workers answer as there are, or as are in flight, until a window is full.
    fn answer(limit: &mut Limit, now: &mut Instant, ms: u32, workers: usize) {
        let (mut measured, in_flight) = (false, limit.in_force());
        let busy = workers.min(in_flight);
        let took = (ms * MS).mul_f64(in_flight as f64 / busy as f64);
        loop {
            *now += (ms * MS).div_f64(busy as f64);
            limit.done(*now, took);
            limit.look(*now, in_flight, true);
            let Kind::Found(finder) = &limit.0 else { return };
            match finder.state {
                State::Measuring { .. } => measured = true,
                State::Settling { .. } if measured => return,
                State::Settling { .. } => {}
            }
        }
    }

    #[test]
    fn each_transition() {
        let many = Answer(50, 1000);
        let cases: Vec<(&str, Vec<Step>, Reached)> = vec![
            ("nothing has happened", vec![Pass(9000, false)], ("first", 16.0, 17)),
            ("quick requests: more are tried", vec![many], ("rise", 32.0, 33)),
            ("slow ones: fewer", vec![Answer(60, 2)], ("fall", 8.0, 9)),
            ("the throughput follows upwards", vec![many, many], ("rise", 64.0, 65)),
            ("it does not", vec![Answer(50, 16), Answer(50, 16)], ("upper", 16.0, 17)),
            ("not downwards", vec![Answer(60, 2); 2], ("fall", 4.0, 5)),
            ("down to one", vec![Answer(60, 2); 5], ("upper", 1.0, 2)),
            ("it follows downwards", vec![Answer(60, 2), Answer(600, 1000)], ("upper", 16.0, 17)),
            ("and then below", vec![Answer(50, 16); 3], ("lower", 16.0, 13)),
            ("no more are needed", vec![Answer(50, 10); 4], ("upper", 12.0, 13)),
            ("more are", [vec![Answer(50, 16); 2], vec![many; 2]].concat(), ("upper", 21.3, 22)),
            ("the pair of one", vec![Answer(60, 2); 6], ("lower", 1.0, 3)),
            (
                "a lower window without load",
                [vec![Answer(50, 16); 3], vec![Pass(99, true), Pass(30, false)]].concat(),
                ("upper", 16.0, 17),
            ),
            ("one that rises, without load", vec![many, Pass(9000, false)], ("rise", 32.0, 33)),
        ];
        for (what, steps, expected) in cases {
            assert_eq!(after(&steps), expected, "{what}");
        }
    }

    #[test]
    fn a_fixed_one_stays() {
        let mut limit = Limit::fixed(0);
        assert_eq!(limit.in_force(), 1);
        limit.done(Instant::now(), MS);
        limit.look(Instant::now(), 1, true);
        assert_eq!(limit.report(), Found { limit: 1.0, throughput: None, elasticity: None });
    }
}
