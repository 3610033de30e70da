//! The figures of a scenario as a table for people. It knows the columns, not what follows from them.

use comfy_table::{Cell as Text, CellAlignment, Table, presets::NOTHING};

use super::words::{ratio, short};
use crate::bench::{
    plan::Scenario,
    results::{Figure, Results},
};

const CLOSED: &[Figure] = &[
    ("good/s", |r| r.goodput_per_s),
    ("p50 µs", |r| r.p50_us),
    ("p99 µs", |r| r.p99_us),
    ("server CPU µs", |r| r.cpu_us_per_request),
    ("generator CPU µs", |r| r.client_cpu_us_per_request),
    ("threads", |r| r.threads),
    ("RSS MB", |r| r.rss_bytes / 1e6),
];
const OVERLOAD: &[Figure] = &[
    ("offered/s", |r| r.offered_per_s),
    ("sent/s", |r| r.sent_per_s),
    ("good/s", |r| r.goodput_per_s),
    ("refused", |r| r.refused as f64),
    ("reset", |r| r.reset as f64),
    ("timed out", |r| r.timed_out as f64),
    ("dropped", |r| r.dropped as f64),
    ("wrong", |r| r.wrong as f64),
    ("lag p99 µs", |r| r.lag_p99_us),
    ("p50 ms", |r| r.p50_us / 1e3),
    ("p99 ms", |r| r.p99_us / 1e3),
    ("p99 of good ms", |r| r.service_p99_us / 1e3),
    ("server CPU µs", |r| r.cpu_us_per_request),
    ("threads", |r| r.threads),
    ("RSS MB", |r| r.rss_bytes / 1e6),
];
const IDLE: &[Figure] = &[
    ("silent", |r| r.silent.map_or(0.0, |s| s.opened as f64)),
    ("bytes each", |r| r.silent.map_or(0.0, |s| s.bytes_per_connection)),
    ("threads each", |r| r.silent.map_or(0.0, |s| s.threads_per_connection)),
    ("good/s", |r| r.goodput_per_s),
    ("p50 µs", |r| r.p50_us),
    ("p99 µs", |r| r.p99_us),
    ("server CPU µs", |r| r.cpu_us_per_request),
];

impl Scenario {
    fn figures(self) -> &'static [Figure] {
        match self {
            Self::Connections | Self::Keepalive => CLOSED,
            Self::Overload => OVERLOAD,
            Self::Idle => IDLE,
        }
    }
}

impl Results {
    pub(super) fn table(&self, scenario: Scenario) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING);
        let figures = scenario.figures();
        let (compared, _) = scenario.compared();
        let compared_by = format!("{compared} ÷ {}", self.plan.arms[0].name);
        let loads = (scenario == Scenario::Overload).then_some("load");
        let names = figures.iter().map(|&(name, _)| name);
        table.set_header(loads.into_iter().chain(["arm"]).chain(names).chain([&*compared_by, "verdict"]));
        for cell in self.of(scenario).filter(|cell| !cell.rounds.is_empty()) {
            let load = cell.spot.load.map(|load| Text::new(format!("{load}×")));
            let show = |&(_, figure): &Figure| match cell.good_rounds().next() {
                Some(_) => Text::new(short(cell.median(figure))).set_alignment(CellAlignment::Right),
                None => Text::new("-"),
            };
            let against_first = self.ratio(cell).map_or_else(|| "-".into(), |of| ratio(of, self.plan.rounds));
            let end = [Text::new(against_first), Text::new(cell.verdict())];
            table.add_row(
                load.into_iter().chain([Text::new(&cell.arm)]).chain(figures.iter().map(show)).chain(end),
            );
        }
        table
    }
}
