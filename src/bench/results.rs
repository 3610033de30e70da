//! What was measured, and how the arms compare by it. It does not know how it was measured or how it is shown.

use super::{
    plan::{Plan, Scenario, Spot},
    sample::Sample,
    stats::{Ratio, median},
};

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) plan: Plan,
    /// Requests per second, where the overload was measured.
    pub(crate) capacity: Option<f64>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) interrupted: bool,
}

/// One arm at one spot, with its rounds.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) spot: Spot,
    pub(crate) arm: String,
    pub(crate) command: String,
    pub(crate) rounds: Vec<Result<Round, String>>,
}

/// What one round gave. Rates are per second, times in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    pub(crate) offered_per_s: f64,
    pub(crate) sent_per_s: f64,
    pub(crate) goodput_per_s: f64,
    pub(crate) intended: u64,
    pub(crate) sent: u64,
    pub(crate) good: u64,
    pub(crate) refused: u64,
    pub(crate) reset: u64,
    pub(crate) timed_out: u64,
    pub(crate) dropped: u64,
    pub(crate) wrong: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    pub(crate) service_p50_us: f64,
    pub(crate) service_p99_us: f64,
    pub(crate) lag_p99_us: f64,
    /// The server's CPU time for each good reply.
    pub(crate) cpu_us_per_request: f64,
    /// The generator's CPU time for each request that it sent.
    pub(crate) client_cpu_us_per_request: f64,
    /// The share of its core that the generator used.
    pub(crate) client_cpu_share: f64,
    pub(crate) switches_per_s: Option<f64>,
    /// The highest of each.
    pub(crate) rss_bytes: f64,
    pub(crate) private_bytes: f64,
    pub(crate) threads: f64,
    pub(crate) descriptors: f64,
    /// Of the silent connections, where there are some.
    pub(crate) silent: Option<Silent>,
    pub(crate) samples: Vec<Sample>,
}

/// What silent connections cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silent {
    pub(crate) opened: usize,
    pub(crate) bytes_per_connection: f64,
    pub(crate) threads_per_connection: f64,
}

/// A figure of a round, with its name.
pub(crate) type Figure = (&'static str, fn(&Round) -> f64);

impl Scenario {
    /// What arms are compared by, with its name.
    pub(crate) fn compared(self) -> Figure {
        match self {
            Self::Connections | Self::Keepalive => ("CPU per request", |r| r.cpu_us_per_request),
            Self::Overload => ("goodput", |r| r.goodput_per_s),
            Self::Idle => ("p99 of the active", |r| r.p99_us),
        }
    }
}

impl Results {
    pub(crate) fn of(&self, scenario: Scenario) -> impl Iterator<Item = &Cell> + Clone {
        self.cells.iter().filter(move |cell| cell.spot.scenario == scenario)
    }

    /// The first arm's cell at the same spot.
    fn first<'a>(&'a self, cell: &'a Cell) -> &'a Cell {
        self.cells.iter().find(|first| first.spot == cell.spot).unwrap_or(cell)
    }

    /// How a cell compares with the first arm's, round by round.
    pub(crate) fn ratio(&self, cell: &Cell) -> Option<Ratio> {
        let (_, figure) = cell.spot.scenario.compared();
        let first = self.first(cell);
        // Rounds that failed have no pair.
        let rounds = cell.rounds.iter().zip(&first.rounds);
        Ratio::of(
            rounds.filter_map(|(ours, theirs)| {
                Some((figure(ours.as_ref().ok()?), figure(theirs.as_ref().ok()?)))
            }),
        )
    }

    /// The first arm's goodput at the highest load as a share of its highest; none without it.
    pub(crate) fn goodput_kept(&self) -> Option<f64> {
        let first = self.plan.arms.first()?;
        goodput_kept(self.of(Scenario::Overload).filter(|cell| cell.arm == first.name))
    }
}

/// Under this share of what was intended, a cell says how fast the generator is and nothing else.
const SENT_ENOUGH: f64 = 0.99;

impl Cell {
    pub(crate) fn good_rounds(&self) -> impl Iterator<Item = &Round> {
        self.rounds.iter().filter_map(|round| round.as_ref().ok())
    }

    /// The median over the rounds.
    pub(crate) fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        median(self.good_rounds().map(figure))
    }

    pub(crate) fn failure(&self) -> Option<&String> {
        self.rounds.iter().find_map(|round| round.as_ref().err())
    }

    pub(crate) fn verdict(&self) -> &'static str {
        if self.rounds.is_empty() {
            "not measured"
        } else if self.failure().is_some() {
            "failed"
        } else if self.median(|r| r.sent as f64 / r.intended.max(1) as f64) < SENT_ENOUGH {
            "generator-bound"
        } else {
            "ok"
        }
    }
}

/// Goodput at the last of these cells, which are in the order of their loads, as a share of the
/// highest among them.
pub(crate) fn goodput_kept<'a>(cells: impl Iterator<Item = &'a Cell>) -> Option<f64> {
    let cells: Vec<_> = cells.collect();
    // Without a result at the highest load it is not known.
    cells.last().filter(|cell| cell.verdict() == "ok")?;
    let cells: Vec<_> = cells.into_iter().filter(|cell| cell.verdict() == "ok").collect();
    let goodputs: Vec<f64> = cells.iter().map(|cell| cell.median(|r| r.goodput_per_s)).collect();
    let best = goodputs.iter().copied().reduce(f64::max).filter(|&best| best > 0.0)?;
    Some(goodputs.last()? / best)
}
