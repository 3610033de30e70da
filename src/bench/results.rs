//! What was measured, and how the arms compare by it. It does not know how it was measured or how it is shown.

use std::time::SystemTime;

use super::{
    plan::{Plan, Scenario, Spot},
    sample::Sample,
    stats::{Interval, median},
};

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) plan: Plan,
    pub(crate) began: SystemTime,
    /// Requests per second, where the overload was measured.
    pub(crate) capacity: Option<f64>,
    /// Loads of the overload that were not measured.
    pub(crate) left_out: Vec<LeftOut>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) interrupted: bool,
}

/// A load that this machine cannot offer.
#[derive(Debug, Clone)]
pub(crate) struct LeftOut {
    pub(crate) load: f64,
    /// A sentence without its end.
    pub(crate) why: String,
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
#[cfg_attr(test, derive(Default))]
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

/// Under this share of what was intended, a round says how fast the generator is and nothing else.
const SENT_ENOUGH: f64 = 0.99;

impl Round {
    /// Whether the generator sent what was intended: else the round is no result.
    pub(crate) fn is_whole(&self) -> bool {
        self.sent as f64 >= SENT_ENOUGH * self.intended as f64
    }
}

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
    pub(crate) fn ratio(&self, cell: &Cell) -> Option<Interval> {
        let (_, figure) = cell.spot.scenario.compared();
        let first = self.first(cell);
        if !cell.is_result() || !first.is_result() {
            return None;
        }
        let whole =
            |round: &Result<Round, String>| round.as_ref().ok().filter(|round| round.is_whole()).map(figure);
        // A round that is no result has no pair.
        let pairs = cell.rounds.iter().zip(&first.rounds);
        Interval::of_ratios(pairs.filter_map(|(ours, theirs)| Some((whole(ours)?, whole(theirs)?))))
    }

    /// The first arm's goodput at the highest load as a share of its highest; none without it.
    pub(crate) fn goodput_kept(&self) -> Option<f64> {
        let first = self.plan.arms.first()?;
        goodput_kept(self.of(Scenario::Overload).filter(|cell| cell.arm == first.name))
    }
}

impl Cell {
    /// The rounds that count: the whole ones. Where the generator never kept up it is all of them, to show
    /// what they were.
    pub(crate) fn good_rounds(&self) -> impl Iterator<Item = &Round> {
        let measured = || self.rounds.iter().filter_map(|round| round.as_ref().ok());
        let any_whole = measured().any(Round::is_whole);
        measured().filter(move |round| round.is_whole() || !any_whole)
    }

    /// The median over the rounds.
    pub(crate) fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        median(self.good_rounds().map(figure))
    }

    /// The median over the rounds with its interval; none where the figure is not known.
    pub(crate) fn interval(&self, figure: impl Fn(&Round) -> f64) -> Option<Interval> {
        Interval::of(self.good_rounds().map(figure))
    }

    /// Whether its figures say something of the arm.
    pub(crate) fn is_result(&self) -> bool {
        self.verdict() == "ok"
    }

    pub(crate) fn failure(&self) -> Option<&String> {
        self.rounds.iter().find_map(|round| round.as_ref().err())
    }

    pub(crate) fn verdict(&self) -> &'static str {
        if self.rounds.is_empty() {
            "not measured"
        } else if self.failure().is_some() {
            "failed"
        } else if !self.good_rounds().any(Round::is_whole) {
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
    cells.last().filter(|cell| cell.is_result())?;
    let cells: Vec<_> = cells.into_iter().filter(|cell| cell.is_result()).collect();
    let goodputs: Vec<f64> = cells.iter().map(|cell| cell.median(|r| r.goodput_per_s)).collect();
    let best = goodputs.iter().copied().reduce(f64::max).filter(|&best| best > 0.0)?;
    Some(goodputs.last()? / best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::examples::{bound, cell, overload, results, round};

    #[test]
    fn only_whole_rounds_count_and_a_cell_without_any_is_no_result() {
        let some = cell(Scenario::Overload, 2.0, "pool", [round(900.0, 1.0), bound(round(1.0, 1.0))]);
        assert_eq!((some.verdict(), some.median(|r| r.goodput_per_s)), ("ok", 900.0));
        let none = cell(Scenario::Overload, 2.0, "pool", [bound(round(1.0, 1.0))]);
        assert_eq!((none.verdict(), none.median(|r| r.goodput_per_s)), ("generator-bound", 1.0));
        // A server that has no room for anybody has said something of itself.
        let silent = Round { intended: 0, sent: 0, ..round(0.0, f64::NAN) };
        assert_eq!(cell(Scenario::Idle, None, "limit", [silent]).verdict(), "ok");
    }

    #[test]
    fn arms_are_compared_in_the_rounds_that_are_whole_for_both() {
        let first = [round(0.0, 10.0), bound(round(0.0, 99.0)), round(0.0, 20.0)];
        let other = [round(0.0, 20.0), round(0.0, 1.0), round(0.0, 60.0)];
        let closed = |arm, rounds| cell(Scenario::Connections, None, arm, rounds);
        let cells = vec![closed("pool", first), closed("spawn", other)];
        let results = results(3, cells);
        let ratio = results.ratio(&results.cells[1]).unwrap();
        assert_eq!((ratio.smallest, ratio.largest), (2.0, 3.0));
    }

    #[test]
    fn the_goodput_kept_is_not_known_without_a_result_at_the_highest_load() {
        let mut results = results(1, overload(&[("pool", &[(1.0, 1000.0), (10.0, 900.0)])]));
        assert_eq!(results.goodput_kept(), Some(0.9));
        results.cells[1].rounds = vec![Ok(bound(round(900.0, 1.0)))];
        assert_eq!(results.goodput_kept(), None);
        results.cells[1].rounds.clear();
        assert_eq!(results.goodput_kept(), None);
    }
}
