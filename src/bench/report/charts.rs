//! Which charts there are, and what is in them. It does not know how a chart is drawn.

use super::{
    svg::{Chart, Line},
    words::about,
};
use crate::bench::{arm::Arm, plan::Scenario, results::Results, sample::Sample};

impl Results {
    pub(super) fn charts(&self) -> Vec<Chart> {
        let mut charts: Vec<Chart> = self.goodput().into_iter().collect();
        for &scenario in &self.plan.scenarios {
            charts.extend(self.latencies(scenario));
        }
        for scenario in [Scenario::Overload, Scenario::Idle] {
            charts.extend(self.over_time(scenario, "memory, MB", |sample| sample.rss_bytes as f64 / 1e6));
            charts.extend(self.over_time(scenario, "threads", |sample| sample.threads as f64));
        }
        charts.retain(|chart| chart.lines.iter().any(|line| !line.points.is_empty()));
        charts
    }

    fn lines<'a>(&'a self, points: impl Fn(&str) -> Vec<(f64, f64)> + 'a) -> Vec<Line> {
        let arms = self.plan.arms.iter().enumerate();
        let line = |(index, arm): (usize, &Arm)| {
            let mut points = points(&arm.name);
            points.retain(|point| point.1.is_finite());
            Line { name: arm.name.clone(), style: index, points }
        };
        arms.map(line).collect()
    }

    pub(super) fn goodput(&self) -> Option<Chart> {
        let cells = |name: &str| {
            let cells = self.of(Scenario::Overload).filter(|cell| cell.arm == name && cell.verdict() == "ok");
            cells
                .map(|cell| (cell.spot.load.unwrap_or(0.0), cell.median(|r| r.goodput_per_s)))
                .collect::<Vec<_>>()
        };
        self.plan.scenarios.contains(&Scenario::Overload).then(|| Chart {
            title: format!("Goodput against offered load ({})", about(self, Scenario::Overload)),
            x_label: "offered load, multiples of the capacity",
            y_label: "good replies per second",
            log_x: true,
            x_names: &[],
            lines: self.lines(cells),
        })
    }

    fn latencies(&self, scenario: Scenario) -> Option<Chart> {
        let last = self.of(scenario).filter(|cell| !cell.rounds.is_empty()).last()?.spot;
        let points = move |name: &str| {
            let cell = self.cells.iter().find(|cell| cell.spot == last && cell.arm == name);
            let Some(cell) = cell.filter(|cell| cell.good_rounds().next().is_some()) else {
                return Vec::new();
            };
            // At equal distances: the tail is what it is about.
            vec![
                (1.0, cell.median(|r| r.p50_us) / 1e3),
                (2.0, cell.median(|r| r.p99_us) / 1e3),
                (3.0, cell.median(|r| r.p999_us) / 1e3),
            ]
        };
        let load = last.load.map_or(String::new(), |load| format!(" at {load}×"));
        Some(Chart {
            title: format!("Latency in {scenario}{load}"),
            x_label: "percentile",
            y_label: "milliseconds",
            log_x: false,
            x_names: &["p50", "p99", "p99.9"],
            lines: self.lines(points),
        })
    }

    fn over_time(&self, scenario: Scenario, what: &'static str, figure: fn(&Sample) -> f64) -> Option<Chart> {
        let last = self.of(scenario).filter(|cell| !cell.rounds.is_empty()).last()?.spot;
        let points = move |name: &str| {
            let cell = self.cells.iter().find(|cell| cell.spot == last && cell.arm == name);
            let samples = cell.and_then(|cell| cell.good_rounds().last()).map(|round| &round.samples);
            samples.into_iter().flatten().map(|sample| (sample.at.as_secs_f64(), figure(sample))).collect()
        };
        let load = last.load.map_or(String::new(), |load| format!(" at {load}×"));
        Some(Chart {
            title: format!("{what} over time in {scenario}{load}, the last round"),
            x_label: "seconds",
            y_label: what,
            log_x: false,
            x_names: &[],
            lines: self.lines(points),
        })
    }
}
