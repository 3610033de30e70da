//! What the figures say: tables with a sentence under each, and a JSON document.

use std::{fs, time::Duration};

use comfy_table::{Cell as Text, CellAlignment, Table, presets::NOTHING};
use serde_json::{Value, json};

use super::{
    Cell, Results, Round,
    plan::{CLIENTS, Scenario},
    stats::Ratio,
};
use crate::bench::{client::GiveUp, exchange::Protocol};

/// A figure of a round that a table shows.
type Figure = (&'static str, fn(&Round) -> f64);

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

    /// What arms are compared by, with its name.
    fn compared(self) -> Figure {
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

    /// All of the text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for &scenario in &self.plan.scenarios {
            if self.of(scenario).all(|cell| cell.rounds.is_empty()) {
                continue;
            }
            text +=
                &format!("\n{}: {}\n{}\n", scenario, about(self, scenario), self.table(scenario).trim_fmt());
            for sentence in self.sentences(scenario) {
                text += &format!("{sentence}\n");
            }
        }
        if self.plan.rounds > 1 {
            text += &format!(
                "\nFigures are medians of {} rounds; in brackets are the smallest and the largest ratio of a round{}.\n",
                self.plan.rounds,
                if self.plan.rounds == 6 { ", a 97 % interval" } else { "" }
            );
        }
        for cell in &self.cells {
            if let Some(failure) = cell.failure() {
                text += &format!("failed: {} in {}: {failure}\n", cell.arm, cell.spot.scenario);
            }
        }
        if self.interrupted {
            text += "interrupted: this is what was measured until then\n";
        }
        text
    }

    fn table(&self, scenario: Scenario) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING);
        let figures = scenario.figures();
        let (compared, _) = scenario.compared();
        let ratio = format!("{compared} ÷ {}", self.plan.arms[0].name);
        let loads = (scenario == Scenario::Overload).then_some("load");
        let names = figures.iter().map(|&(name, _)| name);
        table.set_header(loads.into_iter().chain(["arm"]).chain(names).chain([&*ratio, "verdict"]));
        for cell in self.of(scenario).filter(|cell| !cell.rounds.is_empty()) {
            let load = cell.spot.load.map(|load| Text::new(format!("{load}×")));
            let show = |&(_, figure): &Figure| match cell.good_rounds().next() {
                Some(_) => Text::new(short(cell.median(figure))).set_alignment(CellAlignment::Right),
                None => Text::new("-"),
            };
            let ratio = self.ratio(cell).map_or_else(|| "-".into(), |ratio| self.show_ratio(ratio));
            let end = [Text::new(ratio), Text::new(cell.verdict())];
            table.add_row(
                load.into_iter().chain([Text::new(&cell.arm)]).chain(figures.iter().map(show)).chain(end),
            );
        }
        table
    }

    fn show_ratio(&self, ratio: Ratio) -> String {
        if self.plan.rounds == 1 {
            return format!("{:.2}", ratio.median);
        }
        format!("{:.2} ({:.2} to {:.2})", ratio.median, ratio.smallest, ratio.largest)
    }

    /// What the table shows, drawn from its figures.
    fn sentences(&self, scenario: Scenario) -> Vec<String> {
        let mut sentences = Vec::new();
        let control_name = format!("{} again", self.plan.arms[0].name);
        let arms = |name: &str| {
            self.of(scenario)
                .filter(|cell| cell.arm == name && cell.good_rounds().next().is_some())
                .collect::<Vec<_>>()
        };
        for arm in &self.plan.arms {
            let cells = arms(&arm.name);
            let Some(cell) = cells.last() else { continue };
            let name = &arm.name;
            sentences.push(match scenario {
                Scenario::Connections | Scenario::Keepalive => format!(
                    "{name} takes {:.1} µs of CPU for a request at {:.0} per second.",
                    cell.median(|r| r.cpu_us_per_request),
                    cell.median(|r| r.goodput_per_s)
                ),
                Scenario::Overload if cell.verdict() != "ok" => {
                    format!("{name} at {}× is no result: {}.", cell.spot.load.unwrap_or(0.0), cell.verdict())
                }
                Scenario::Overload => {
                    let kept = goodput_kept(cells.iter().copied()).unwrap_or(0.0);
                    let (load, p99) = (cell.spot.load.unwrap_or(0.0), cell.median(|r| r.service_p99_us) / 1e3);
                    let good = if kept > 0.0 && !p99.is_nan() { format!("; the p99 of the good replies is {p99:.0} ms") } else { String::new() };
                    format!("{name} keeps {:.0} % of its best goodput at {load}×{good}.", kept * 1e2)
                }
                Scenario::Idle if cell.median(|r| r.goodput_per_s) == 0.0 => {
                    format!("{name} has no room for the active ones beside the silent.")
                }
                Scenario::Idle => format!(
                    "{name}: a silent connection costs {:.0} bytes and {:.2} threads; the active ones have a p99 of {:.2} ms.",
                    cell.median(|r| r.silent.map_or(0.0, |s| s.bytes_per_connection)),
                    cell.median(|r| r.silent.map_or(0.0, |s| s.threads_per_connection)),
                    cell.median(|r| r.p99_us) / 1e3
                ),
            });
        }
        for cell in arms(&control_name) {
            if let Some(ratio) = self.ratio(cell) {
                let (compared, _) = scenario.compared();
                sentences.push(format!(
                    "Noise alone: {} against itself has {compared} × {}.",
                    self.plan.arms[0].name,
                    self.show_ratio(ratio)
                ));
            }
        }
        let full = self.of(scenario).filter(|cell| cell.median(|r| r.client_cpu_share) > 0.95);
        let full: Vec<_> = full.map(|cell| &*cell.arm).collect();
        if !full.is_empty() && scenario != Scenario::Overload {
            sentences.push(format!(
                "The generator's core was full with {}: the rates end there, and CPU per request is the figure to compare.",
                full.join(", ")
            ));
        }
        sentences
    }

    /// Everything, for programs.
    pub(crate) fn document(&self) -> Value {
        let plan = &self.plan;
        json!({
            "version": 1,
            "environment": plan.environment,
            "plan": {
                "arms": plan.arms.iter().map(|arm| &arm.name).collect::<Vec<_>>(),
                "protocol": format!("{:?}", plan.protocol).to_lowercase(),
                "rounds": plan.rounds,
                "loads": plan.loads,
                "idle": plan.idle,
                "duration_ms": ms(plan.duration),
                "warm_up_ms": ms(super::plan::WARM_UP),
                "overload_warm_up_ms": ms(super::plan::Plan::warm_up(super::plan::Scenario::Overload)),
                "work_us": us(plan.work),
                "deadline_ms": ms(plan.deadline),
                "workers": plan.workers,
                "closed_loop_clients": CLIENTS,
                "arrivals": format!("{:?}", plan.arrivals).to_lowercase(),
                "give_up": if plan.give_up == GiveUp::Close { "close" } else { "reset" },
                "pinned": plan.pin.map(|pin| json!({ "server": pin.server, "generator": pin.client })),
                "capacity_per_s": self.capacity,
            },
            "interrupted": self.interrupted,
            "cells": self.cells.iter().map(|cell| self.cell(cell)).collect::<Vec<_>>(),
        })
    }

    fn cell(&self, cell: &Cell) -> Value {
        let total = |figure: fn(&Round) -> u64| cell.good_rounds().map(figure).sum::<u64>();
        json!({
            "scenario": cell.spot.scenario.name(),
            "arm": cell.arm,
            "command": cell.command,
            "load": cell.spot.load,
            "offered_per_s": cell.median(|r| r.offered_per_s),
            "sent_per_s": cell.median(|r| r.sent_per_s),
            "goodput_per_s": cell.median(|r| r.goodput_per_s),
            "good": total(|r| r.good),
            "refused": total(|r| r.refused),
            "reset": total(|r| r.reset),
            "timed_out": total(|r| r.timed_out),
            "dropped": total(|r| r.dropped),
            "wrong": total(|r| r.wrong),
            "p50_us": cell.median(|r| r.p50_us),
            "p99_us": cell.median(|r| r.p99_us),
            "p999_us": cell.median(|r| r.p999_us),
            "max_us": cell.median(|r| r.max_us),
            "service_p50_us": cell.median(|r| r.service_p50_us),
            "service_p99_us": cell.median(|r| r.service_p99_us),
            "lag_p99_us": cell.median(|r| r.lag_p99_us),
            "cpu_us_per_request": cell.median(|r| r.cpu_us_per_request),
            "generator_cpu_us_per_request": cell.median(|r| r.client_cpu_us_per_request),
            "rss_bytes": cell.median(|r| r.rss_bytes),
            "private_bytes": cell.median(|r| r.private_bytes),
            "threads": cell.median(|r| r.threads),
            "ratio_to_first": self.ratio(cell).map(|ratio| json!({
                "of": cell.spot.scenario.compared().0,
                "median": ratio.median,
                "smallest": ratio.smallest,
                "largest": ratio.largest,
            })),
            "verdict": cell.verdict(),
            "failure": cell.failure(),
            "rounds": cell.good_rounds().map(round).collect::<Vec<_>>(),
        })
    }
}

/// Goodput at the last of these cells, which are in the order of their loads, as a share of the
/// highest among them.
fn goodput_kept<'a>(cells: impl Iterator<Item = &'a Cell>) -> Option<f64> {
    let cells: Vec<_> = cells.collect();
    // Without a result at the highest load it is not known.
    cells.last().filter(|cell| cell.verdict() == "ok")?;
    let cells: Vec<_> = cells.into_iter().filter(|cell| cell.verdict() == "ok").collect();
    let goodputs: Vec<f64> = cells.iter().map(|cell| cell.median(|r| r.goodput_per_s)).collect();
    let best = goodputs.iter().copied().reduce(f64::max).filter(|&best| best > 0.0)?;
    Some(goodputs.last()? / best)
}

fn round(round: &Round) -> Value {
    let sample = |sample: &super::Sample| {
        json!({
            "at_ms": ms(sample.at),
            "rss_bytes": sample.rss_bytes,
            "private_bytes": sample.private_bytes,
            "threads": sample.threads,
            "descriptors": sample.descriptors,
            "voluntary_switches": sample.voluntary_switches,
            "involuntary_switches": sample.involuntary_switches,
            "cpu_ms": ms(sample.cpu),
        })
    };
    json!({
        "offered_per_s": round.offered_per_s,
        "sent_per_s": round.sent_per_s,
        "goodput_per_s": round.goodput_per_s,
        "intended": round.intended,
        "sent": round.sent,
        "good": round.good,
        "refused": round.refused,
        "reset": round.reset,
        "timed_out": round.timed_out,
        "dropped": round.dropped,
        "wrong": round.wrong,
        "p50_us": round.p50_us,
        "p99_us": round.p99_us,
        "p999_us": round.p999_us,
        "max_us": round.max_us,
        "service_p50_us": round.service_p50_us,
        "service_p99_us": round.service_p99_us,
        "lag_p99_us": round.lag_p99_us,
        "cpu_us_per_request": round.cpu_us_per_request,
        "generator_cpu_us_per_request": round.client_cpu_us_per_request,
        "generator_cpu_share": round.client_cpu_share,
        "switches_per_s": round.switches_per_s,
        "rss_bytes": round.rss_bytes,
        "private_bytes": round.private_bytes,
        "threads": round.threads,
        "descriptors": round.descriptors,
        "silent": round.silent.map(|silent| json!({
            "opened": silent.opened,
            "bytes_per_connection": silent.bytes_per_connection,
            "threads_per_connection": silent.threads_per_connection,
        })),
        "samples": round.samples.iter().map(sample).collect::<Vec<_>>(),
    })
}

/// What the figures depend on beside the plan.
pub(crate) fn environment() -> Value {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    let cpu_info = read("/proc/cpuinfo").unwrap_or_default();
    let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    json!({
        "overfall": env!("CARGO_PKG_VERSION"),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpu": model.map(|(_, model)| model.to_owned()),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "somaxconn": read("/proc/sys/net/core/somaxconn"),
        "port_range": read("/proc/sys/net/ipv4/ip_local_port_range"),
        "descriptor_limit": super::descriptor_limit(),
        "command_line": std::env::args().skip(1).collect::<Vec<_>>(),
    })
}

/// What a scenario does, in a line.
pub(crate) fn about(results: &Results, scenario: Scenario) -> String {
    let plan = &results.plan;
    match scenario {
        Scenario::Connections => format!("{CLIENTS} clients in a closed loop, a connection for each request"),
        Scenario::Keepalive => {
            let what = match plan.protocol {
                Protocol::Tcp => "32 bytes echoed",
                Protocol::Http => "requests",
            };
            format!("{CLIENTS} clients in a closed loop, {what} over kept connections")
        }
        Scenario::Overload => format!(
            "open loop at multiples of {:.0} per second, {} of CPU for each request, given up after {}",
            results.capacity.unwrap_or(0.0),
            humantime::format_duration(plan.work),
            humantime::format_duration(plan.deadline)
        ),
        Scenario::Idle => {
            format!("{} silent connections beside {} active ones", plan.idle, super::plan::ACTIVE)
        }
    }
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn ms(time: Duration) -> u64 {
    us(time) / 1000
}

/// Three digits, or all those before the point.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size.is_nan() => "-".into(),
        0.0 => "0".into(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 0.123, 12.34, 123.4, 98765.4, f64::NAN].map(short),
            ["0", "0.12", "12.3", "123", "98765", "-"]
        );
    }
}
