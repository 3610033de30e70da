//! Everything that was measured as one JSON document, for programs. It draws no conclusion itself.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::{
    client::GiveUp,
    plan::{CLIENTS, Plan, Scenario, WARM_UP},
    results::{Cell, LeftOut, Results, Round, Silent},
    sample::Sample,
};

impl Results {
    /// Everything, for programs.
    pub(crate) fn document(&self) -> Value {
        let plan = &self.plan;
        json!({
            "version": 1,
            "verdict": self.verdict(),
            "measured_at": humantime::format_rfc3339_seconds(self.began).to_string(),
            "environment": plan.environment,
            "plan": {
                "arms": plan.arms.iter().map(|arm| &arm.name).collect::<Vec<_>>(),
                "protocol": format!("{:?}", plan.protocol).to_lowercase(),
                "rounds": plan.rounds,
                "loads": plan.loads,
                "idle": plan.idle,
                "duration_ms": ms(plan.duration),
                "warm_up_ms": ms(WARM_UP),
                "overload_warm_up_ms": ms(Plan::warm_up(Scenario::Overload)),
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
            "left_out": self.left_out.iter().map(left_out).collect::<Vec<_>>(),
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

fn left_out(left_out: &LeftOut) -> Value {
    json!({ "load": left_out.load, "why": left_out.why })
}

fn round(round: &Round) -> Value {
    json!({
        "is_result": round.is_whole(),
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
        "silent": round.silent.map(silent),
        "samples": round.samples.iter().map(sample).collect::<Vec<_>>(),
    })
}

fn silent(silent: Silent) -> Value {
    json!({
        "opened": silent.opened,
        "bytes_per_connection": silent.bytes_per_connection,
        "threads_per_connection": silent.threads_per_connection,
    })
}

fn sample(sample: &Sample) -> Value {
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
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn ms(time: Duration) -> u64 {
    us(time) / 1000
}
