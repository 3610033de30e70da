//! How many requests an upstream may have in flight, found by what it answers. It knows neither the
//! upstream nor who waits for it.

use std::time::{Duration, Instant};

use super::window::{Measured, Window};

/// How many requests an upstream may have in flight.
#[derive(Debug)]
pub(crate) enum Limit {
    Fixed(usize),
    Found(Box<Finder>),
}

/// What there is to say of a limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Found {
    pub(crate) limit: f64,
    /// Requests answered in a second in the latest window.
    pub(crate) throughput: Option<f64>,
    /// By how much the throughput follows the limit: 1 where all that are in flight are worked on, 0
    /// where one more only waits in the upstream.
    pub(crate) elasticity: Option<f64>,
}

#[derive(Debug)]
pub(crate) struct Finder {
    state: State,
    /// The limit, of which the one in force may differ while a window lasts.
    limit: f64,
    in_force: usize,
    /// Mean latency in seconds, of the latest requests.
    latency: f64,
    /// The least of the windows, which is forgotten slowly.
    least: f64,
    throughput: Option<f64>,
    elasticity: Option<f64>,
}

/// | in | what happens | next | the limit |
/// |---|---|---|---|
/// | settling | a mean latency passes | what it settles for | stays |
/// | slow start | its first window, or the throughput has followed the limit | slow start | twice as high |
/// | slow start | it has not | upper | as in the window before |
/// | upper | the window is full | lower | three quarters are in force for a window |
/// | lower | the window is full | upper | follows the elasticity |
/// | slow start, upper | the limit was not reached | the same from its beginning | stays |
/// | lower | the limit was not reached | upper | stays |
///
/// Each change of the limit in force is settled for first.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Settling { until: Option<Instant>, phase: Phase },
    Measuring { window: Window, phase: Phase },
}

/// What a window is for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    SlowStart { before: Option<Measured> },
    Upper,
    Lower { upper: Measured },
}

const START: f64 = 16.0;
const HIGHEST: f64 = 1000.0;
const GOAL: f64 = 0.35;
const WEIGHT: f64 = 0.35;
const UP: f64 = 0.6;
const DOWN: f64 = 0.2;
const LOWER: f64 = 0.75;
const CONFIDENT: f64 = 1.5;
const LEAP_UP: f64 = 1.5;
const LEAP_DOWN: f64 = 0.6;
const SCALES: f64 = 0.9;
const FLOOR: f64 = 0.02;
const FLOOR_MOST: f64 = 32.0;
const GUARD: f64 = 3.0;
const GUARD_MORE: f64 = 4.0;
const FORGET: f64 = 1.02;
const LONGEST_SETTLING: Duration = Duration::from_secs(1);

impl Limit {
    pub(crate) fn fixed(n: usize) -> Self {
        Self::Fixed(n.max(1))
    }

    pub(crate) fn found(_now: Instant) -> Self {
        Self::Found(Box::new(Finder::new()))
    }

    /// How many may be in flight now, which is one at least.
    pub(crate) fn in_force(&self) -> usize {
        match self {
            Self::Fixed(n) => *n,
            Self::Found(finder) => finder.in_force,
        }
    }

    /// Says that a request was answered, and how long that took.
    pub(crate) fn done(&mut self, now: Instant, took: Duration) {
        if let Self::Found(finder) = self {
            finder.done(now, took.as_secs_f64());
        }
    }

    /// Says how many are in flight from now on, and whether somebody waits, or was refused, because there may not be more.
    pub(crate) fn look(&mut self, now: Instant, in_flight: usize, waiting: bool) {
        if let Self::Found(finder) = self {
            finder.look(now, waiting || in_flight >= finder.in_force);
        }
    }

    pub(crate) fn report(&self) -> Found {
        match self {
            Self::Fixed(n) => Found { limit: *n as f64, throughput: None, elasticity: None },
            Self::Found(finder) => {
                Found { limit: finder.limit, throughput: finder.throughput, elasticity: finder.elasticity }
            }
        }
    }
}

impl Finder {
    fn new() -> Self {
        let phase = Phase::SlowStart { before: None };
        Self {
            state: State::Settling { until: None, phase },
            limit: START,
            in_force: in_force(START),
            latency: 0.0,
            least: f64::INFINITY,
            throughput: None,
            elasticity: None,
        }
    }

    fn done(&mut self, _now: Instant, took: f64) {
        self.latency += if self.latency == 0.0 { took } else { (took - self.latency) / 16.0 };
        if let State::Measuring { window, .. } = &mut self.state {
            window.answered(took);
        }
    }

    fn look(&mut self, now: Instant, full: bool) {
        match &mut self.state {
            State::Settling { until, phase } => {
                let until = *until.get_or_insert(now);
                if now >= until {
                    self.state = State::Measuring { window: Window::new(now), phase: *phase };
                }
            }
            State::Measuring { window, phase } => {
                window.look(now, full);
                if window.is_void() {
                    return self.void(now);
                }
                let phase = *phase;
                if let Some(measured) = window.measured(self.in_force as f64, self.latency) {
                    self.conclude(now, phase, measured);
                }
            }
        }
    }

    fn void(&mut self, now: Instant) {
        match self.state {
            State::Measuring { phase: Phase::Lower { .. }, .. } => self.settle(now, self.limit, Phase::Upper),
            State::Measuring { phase, .. } => {
                self.state = State::Measuring { window: Window::new(now), phase };
            }
            State::Settling { .. } => {}
        }
    }

    fn settle(&mut self, now: Instant, limit: f64, phase: Phase) {
        self.in_force = in_force(limit);
        let settling = Duration::from_secs_f64(self.latency).min(LONGEST_SETTLING);
        self.state = State::Settling { until: Some(now + settling), phase };
    }

    fn conclude(&mut self, now: Instant, phase: Phase, measured: Measured) {
        self.throughput = Some(measured.throughput);
        self.least = self.least.min(measured.latency) * FORGET;
        match phase {
            Phase::SlowStart { before } => {
                if before.is_none_or(|before| elasticity(before, measured) > GOAL) {
                    self.limit = (self.limit * 2.0).min(HIGHEST);
                    self.settle(now, self.limit, Phase::SlowStart { before: Some(measured) });
                } else if let Some(before) = before {
                    self.elasticity = Some(GOAL);
                    self.limit = before.limit - 1.0;
                    self.bound(measured.throughput);
                    self.settle(now, self.limit, Phase::Upper);
                }
            }
            Phase::Upper => {
                let lower = if self.limit > 1.5 {
                    (self.limit * LOWER).min(self.limit - 1.0)
                } else {
                    self.limit + 1.0
                };
                self.settle(now, lower.max(1.0), Phase::Lower { upper: measured });
            }
            Phase::Lower { upper } => {
                self.step(upper, measured);
                self.bound(measured.throughput.max(upper.throughput));
                self.settle(now, self.limit, Phase::Upper);
            }
        }
    }

    fn step(&mut self, upper: Measured, lower: Measured) {
        let latest = elasticity(lower, upper).clamp(-0.5, 1.5);
        let before = self.elasticity.unwrap_or(GOAL);
        let mut smooth = before + (latest - before) * WEIGHT;
        let off = smooth.clamp(0.0, 1.0) - GOAL;
        let sd = (upper.noise + lower.noise).sqrt() / (upper.limit / lower.limit).ln().abs();
        let sure = (latest - GOAL) / sd;
        let factor = if sure < -CONFIDENT {
            smooth = smooth.min(0.2);
            LEAP_DOWN
        } else if sure > CONFIDENT {
            smooth = smooth.max(0.6);
            LEAP_UP
        } else {
            1.0 + if off > 0.0 { UP } else { DOWN } * off
        };
        self.limit = (self.limit * factor).max(1.0);
        if smooth > SCALES {
            self.limit += 1.0;
        }
        self.elasticity = Some(smooth);
    }

    fn bound(&mut self, throughput: f64) {
        let guard = GUARD * throughput * self.least + GUARD_MORE;
        let floor = (throughput * FLOOR).min(FLOOR_MOST) - 1.0;
        self.limit = self.limit.min(guard).max(floor).clamp(1.0, HIGHEST);
    }
}

/// One more than the limit, so that the upstream need not wait for the next when one is done.
fn in_force(limit: f64) -> usize {
    limit.round() as usize + 1
}

/// By how much the throughput has followed the limit from one window to another.
fn elasticity(a: Measured, b: Measured) -> f64 {
    (b.throughput / a.throughput).ln() / (b.limit / a.limit).ln()
}
