//! Which charts there are, and what is in them. It does not know how a chart is drawn.

use super::{
    scale::Axis,
    svg::{Chart, Point, Series},
    words::about,
};
use crate::bench::{
    plan::{Scenario, Spot},
    results::{Cell, Figure, Results},
    sample::Sample,
    stats::Interval,
};

/// At equal distances: the tail is what they are about.
const PERCENTILES: [Figure; 3] =
    [("p50", |r| r.p50_us / 1e3), ("p99", |r| r.p99_us / 1e3), ("p99.9", |r| r.p999_us / 1e3)];

impl Results {
    pub(super) fn charts(&self) -> Vec<Chart> {
        let mut charts: Vec<Chart> = self.goodput().into_iter().chain(self.cpu()).collect();
        for &scenario in &self.plan.scenarios {
            charts.extend(self.latencies(scenario));
        }
        for scenario in [Scenario::Overload, Scenario::Idle] {
            charts.extend(self.over_time(scenario, ("Memory", "MB"), |sample| sample.rss_bytes as f64 / 1e6));
            charts.extend(self.over_time(scenario, ("Threads", "threads"), |sample| sample.threads as f64));
        }
        charts
    }

    /// Of each arm that has a part in it, the points of its cells; where these are no result, their places.
    fn series<'a>(
        &'a self,
        cells: impl Iterator<Item = &'a Cell> + Clone,
        points: impl Fn(&Cell) -> Vec<(f64, Option<Interval>)>,
    ) -> Vec<Series> {
        let of = |(style, arm): (usize, &str)| {
            let mut series = Series { name: arm.to_owned(), style, points: Vec::new(), missing: Vec::new() };
            for cell in cells.clone().filter(|cell| cell.arm == arm) {
                let places = points(cell).into_iter();
                if cell.is_result() {
                    series.points.extend(places.filter_map(|(x, y)| Some(Point { x, y: y? })));
                } else {
                    series.missing.extend(places.map(|(x, _)| x));
                }
            }
            series
        };
        let arms = self.plan.arms.iter().map(|arm| &*arm.name).enumerate();
        arms.map(of).filter(|series| !series.points.is_empty() || !series.missing.is_empty()).collect()
    }

    pub(super) fn goodput(&self) -> Option<Chart> {
        let cells = self.of(Scenario::Overload);
        cells.clone().any(|cell| !cell.rounds.is_empty()).then(|| Chart {
            title: format!("Goodput against offered load ({})", about(self, Scenario::Overload)),
            x_label: "offered load, multiples of the capacity",
            y_label: "good replies per second",
            axis: Axis::Log,
            series: self.series(cells, |cell| {
                vec![(cell.spot.load.unwrap_or(0.0), cell.interval(|r| r.goodput_per_s))]
            }),
        })
    }

    /// The CPU of a request in the closed loops, where nothing else keeps a server busy.
    fn cpu(&self) -> Option<Chart> {
        let is_closed = |scenario: &Scenario| matches!(scenario, Scenario::Connections | Scenario::Keepalive);
        let scenarios: Vec<Scenario> = self.plan.scenarios.iter().copied().filter(is_closed).collect();
        let cells = self.cells.iter().filter(|cell| scenarios.contains(&cell.spot.scenario));
        let points = |cell: &Cell| {
            let place = scenarios.iter().position(|&scenario| scenario == cell.spot.scenario);
            vec![(place.map_or(0.0, |at| at as f64 + 1.0), cell.interval(|r| r.cpu_us_per_request))]
        };
        cells.clone().any(|cell| !cell.rounds.is_empty()).then(|| Chart {
            title: "CPU of the server for a request".into(),
            x_label: "scenario",
            y_label: "microseconds",
            axis: Axis::Names(scenarios.iter().map(|scenario| scenario.name()).collect()),
            series: self.series(cells, points),
        })
    }

    /// The spot of a scenario that says most: the highest load with a result, or else the highest measured.
    fn shown(&self, scenario: Scenario) -> Option<Spot> {
        let measured = || self.of(scenario).filter(|cell| !cell.rounds.is_empty());
        let highest = |one: &&Cell, other: &&Cell| {
            one.spot.load.unwrap_or(0.0).total_cmp(&other.spot.load.unwrap_or(0.0))
        };
        let result = measured().filter(|cell| cell.is_result()).max_by(highest);
        result.or_else(|| measured().max_by(highest)).map(|cell| cell.spot)
    }

    fn latencies(&self, scenario: Scenario) -> Option<Chart> {
        let spot = self.shown(scenario)?;
        let cells = self.of(scenario).filter(move |cell| cell.spot == spot);
        let points = |cell: &Cell| {
            (1..).zip(PERCENTILES).map(|(x, (_, figure))| (f64::from(x), cell.interval(figure))).collect()
        };
        Some(Chart {
            title: format!("Latency in {scenario}{}", at(spot)),
            x_label: "percentile",
            y_label: "milliseconds",
            axis: Axis::Names(PERCENTILES.map(|(name, _)| name).into()),
            series: self.series(cells, points),
        })
    }

    fn over_time(
        &self,
        scenario: Scenario,
        (what, unit): (&str, &'static str),
        figure: fn(&Sample) -> f64,
    ) -> Option<Chart> {
        let spot = self.shown(scenario)?;
        let cells = self.of(scenario).filter(move |cell| cell.spot == spot);
        let points = |cell: &Cell| {
            if !cell.is_result() {
                return vec![(0.0, None)];
            }
            let samples = cell.good_rounds().last().map(|round| &round.samples).into_iter().flatten();
            samples.map(|sample| (sample.at.as_secs_f64(), Interval::of([figure(sample)]))).collect()
        };
        Some(Chart {
            title: format!("{what} over time in {scenario}{}, the last round", at(spot)),
            x_label: "seconds",
            y_label: unit,
            axis: Axis::Linear,
            series: self.series(cells, points),
        })
    }
}

fn at(spot: Spot) -> String {
    spot.load.map_or(String::new(), |load| format!(" at {load}×"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::examples::{bound, cell, overload, results, round};

    #[test]
    fn what_is_no_result_is_a_cross_in_every_picture_and_the_highest_load_with_one_is_shown() {
        let mut cells = overload(&[
            ("pool", &[(1.0, 1000.0), (2.0, 950.0), (10.0, 0.0)]),
            ("spawn", &[(1.0, 1000.0), (2.0, 0.0), (10.0, 0.0)]),
        ]);
        cells.extend(["pool", "spawn"].map(|arm| cell(Scenario::Keepalive, None, arm, [round(1.0, 1.0)])));
        // Left out, bound, and failed.
        cells[2].rounds.clear();
        cells[5].rounds.clear();
        cells[4].rounds = vec![Ok(bound(round(900.0, 1.0)))];
        cells[7].rounds = vec![Err("it fell over".into())];
        let results = results(1, cells);
        let missing = |title: &str| {
            let charts = results.charts();
            let chart = charts.iter().find(|chart| chart.title.starts_with(title)).unwrap();
            chart.series.iter().map(|series| series.missing.clone()).collect::<Vec<_>>()
        };
        assert_eq!(missing("Goodput"), [vec![10.0], vec![2.0, 10.0]]);
        assert_eq!(missing("CPU"), [vec![], vec![1.0]]);
        assert_eq!(missing("Latency in overload at 2×"), [vec![], vec![1.0, 2.0, 3.0]]);
        assert_eq!(missing("Latency in keepalive"), [vec![], vec![1.0, 2.0, 3.0]]);
        assert_eq!(missing("Memory over time in overload at 2×"), [vec![0.0]]);
    }

    #[test]
    fn points_are_medians_with_the_smallest_and_the_largest_round() {
        let rounds = [800.0, 1000.0, 900.0].map(|goodput| round(goodput, 1.0));
        let results = results(3, vec![cell(Scenario::Overload, 1.0, "pool", rounds)]);
        let goodput = results.goodput().unwrap();
        let expected = Interval { median: 900.0, smallest: 800.0, largest: 1000.0 };
        assert_eq!(goodput.series[0].points[0].y, expected);
    }
}
