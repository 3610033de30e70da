//! The figures of a scenario as a table for people. It knows the columns, not what follows from them.

use comfy_table::{Cell as Text, CellAlignment, Table as Drawn, presets::NOTHING};

use super::words::{ratio, short};
use crate::bench::{
    plan::Scenario,
    results::{Cell, Figure, Results},
};

/// The figures of a scenario, written out. Names come first, in one column or two, and the verdict last.
pub(super) struct Table {
    pub(super) names: usize,
    pub(super) header: Vec<String>,
    pub(super) rows: Vec<Row>,
}

/// The figures of a cell.
pub(super) struct Row {
    pub(super) texts: Vec<String>,
    pub(super) is_result: bool,
}

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
        let (compared, _) = scenario.compared();
        let compared_by = format!("{compared} ÷ {}", self.plan.arms[0].name);
        let names = if scenario == Scenario::Overload { &["load", "arm"][..] } else { &["arm"] };
        let figures = scenario.figures().iter().map(|&(name, _)| name);
        let header = names.iter().copied().chain([&*compared_by]).chain(figures).chain(["verdict"]);
        Table {
            names: names.len(),
            header: header.map(str::to_owned).collect(),
            rows: self
                .of(scenario)
                .filter(|cell| !cell.rounds.is_empty())
                .map(|cell| self.row(cell))
                .collect(),
        }
    }

    fn row(&self, cell: &Cell) -> Row {
        let load = cell.spot.load.map(|load| format!("{load}×"));
        let measured = cell.good_rounds().next().is_some();
        let show = |&(_, figure): &Figure| {
            if measured { short(cell.median(figure)) } else { "-".into() }
        };
        let compared = self.ratio(cell).map_or_else(|| "-".into(), |of| ratio(of, self.plan.rounds));
        let figures = cell.spot.scenario.figures().iter().map(show);
        let texts =
            load.into_iter().chain([cell.arm.clone(), compared]).chain(figures).chain([verdict(cell)]);
        Row { texts: texts.collect(), is_result: cell.is_result() }
    }
}

/// A cell's verdict, with how many rounds count where not all do.
fn verdict(cell: &Cell) -> String {
    let (counted, measured) = (cell.good_rounds().count(), cell.rounds.len());
    if cell.is_result() && counted < measured {
        return format!("ok ({counted} of {measured} rounds)");
    }
    cell.verdict().into()
}

impl Table {
    /// For a terminal.
    pub(super) fn text(&self) -> String {
        let mut table = Drawn::new();
        table.load_style(NOTHING);
        table.set_header(&self.header);
        let last = self.header.len() - 1;
        for row in &self.rows {
            table.add_row(row.texts.iter().enumerate().map(|(column, text)| {
                let is_word = column < self.names || column == last;
                let alignment = if is_word { CellAlignment::Left } else { CellAlignment::Right };
                Text::new(text).set_alignment(alignment)
            }));
        }
        table.trim_fmt()
    }
}
