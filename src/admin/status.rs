//! The figures as JSON. Names are stable: a field may be added, and none changes its meaning.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::figures::Figures;
use crate::{
    balance::{Snapshot, UpstreamStatus},
    metrics::Distribution,
    server::{Advice, Config, RunningCall, SourceReport, WorkersReport},
};

/// The document.
///
/// | name | what |
/// |---|---|
/// | `version` | of overfall |
/// | `uptime_seconds` | for how long it has been watched |
/// | `state`, `reason` | `ready`, `no_upstream`, `leaving`, `draining` or `failed`, and why in words |
/// | `settings` | the settings in force, as the methods of [`Builder`](crate::Builder), times in seconds |
/// | `metrics` | the counters that USR1 prints, under the same names |
/// | `wait`, `service` | how long clients waited for a worker, and how long requests were with one: how many, for how long together, and buckets: a bound, and how many were within it and beyond the next lower one (ten for each power of ten, without those in which there are none) |
/// | `workers` | what they spent their time on, and the calls that have run longest, as in [`WorkersReport`] |
/// | `advice` | how many workers this load wants, and why in words; null where there is none |
/// | `sources` | in an overload, the sources of clients that take most of the workers, and those that were told no while others had their place, as in [`SourceReport`], times in seconds |
/// | `line` | of a balancer: who waits for a place at an upstream, and who was refused one |
/// | `upstreams` | of a balancer: each upstream, as in [`UpstreamStatus`], times in seconds |
/// | `process` | CPU, memory, files and threads of the process |
pub(super) fn json(figures: &Figures) -> String {
    let mut document = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": seconds(figures.uptime),
        "state": figures.readiness.word(),
        "reason": figures.readiness.reason(),
        "settings": settings(&figures.config),
        "metrics": figures.metrics.rows().map(|(name, value)| (name.to_owned(), value.into())).collect::<Map<_, _>>(),
        "wait": distribution(&figures.metrics.wait),
        "service": distribution(&figures.metrics.service),
        "workers": workers(&figures.workers),
        "advice": figures.advice.as_ref().map(advice),
        "sources": figures.sources.iter().map(source).collect::<Value>(),
        "process": figures.process.as_ref().map(|process| json!({
            "cpu_seconds": seconds(process.cpu),
            "resident_bytes": process.resident_bytes,
            "virtual_bytes": process.virtual_bytes,
            "open_files": process.open_files,
            "max_files": process.max_files,
            "threads": process.threads,
            "started_at": seconds(process.started),
        })),
    });
    if let Some(snapshot) = &figures.upstreams {
        document["line"] = line(snapshot);
        document["upstreams"] = snapshot.upstreams.iter().map(upstream).collect();
    }
    document.to_string()
}

fn settings(config: &Config) -> Value {
    json!({
        "workers": config.workers,
        "queue": config.queue,
        "backlog": config.backlog,
        "on_full": config.on_full.name(),
        "patience_seconds": seconds(config.patience),
        "refusal_budget": config.refusal_budget,
        "max_connections": config.max_connections,
        "first_byte_timeout_seconds": seconds(config.timeouts.first_byte),
        "idle_timeout_seconds": seconds(config.timeouts.idle),
        "io_timeout_seconds": seconds(config.timeouts.io),
        "drain_timeout_seconds": seconds(config.drain_timeout),
    })
}

/// Each bound within which there are some, and how many were at most so long and longer than the one before.
fn distribution(times: &Distribution) -> Value {
    let filled = times.fine_buckets().filter(|(_, count)| *count > 0);
    let buckets = filled.map(|(bound, count)| json!([seconds(bound), count]));
    json!({
        "count": times.count(),
        "sum_seconds": seconds(times.sum()),
        "buckets": buckets.collect::<Vec<_>>(),
    })
}

fn source(of: &SourceReport) -> Value {
    json!({
        "source": of.source,
        "busy_seconds": seconds(of.busy),
        "refused": of.refused,
        "displaced": of.displaced,
    })
}

fn workers(workers: &WorkersReport) -> Value {
    let call = |call: &RunningCall| {
        json!({
            "worker": call.worker,
            "running_seconds": seconds(call.running_for),
            "state": call.state.to_string(),
            "client": call.client.map(|client| client.to_string()),
            "doing": call.doing,
        })
    };
    json!({
        "count": workers.count,
        "handling_seconds": seconds(workers.handling),
        "reading_seconds": seconds(workers.reading),
        "writing_seconds": seconds(workers.writing),
        "idle_seconds": seconds(workers.idle),
        "cpu_seconds": workers.cpu.map(seconds),
        "longest": workers.longest.iter().map(call).collect::<Vec<_>>(),
    })
}

fn advice(advice: &Advice) -> Value {
    json!({
        "workers": advice.workers,
        "wanted": advice.wanted,
        "far_off": advice.is_far_off(),
        "text": advice.to_string(),
    })
}

fn line(snapshot: &Snapshot) -> Value {
    json!({
        "waiting": snapshot.waiting,
        "wait": distribution(&snapshot.wait),
        "service": distribution(&snapshot.service),
        "refused_no_upstream": snapshot.refused_no_upstream,
        "refused_line_full": snapshot.refused_line_full,
        "shed": snapshot.line_shed,
        "gone": snapshot.line_gone,
        "overloads_begun": snapshot.overloads_begun,
        "overloads_ended": snapshot.overloads_ended,
        "access_log_dropped": snapshot.access_log_dropped,
    })
}

fn upstream(upstream: &UpstreamStatus) -> Value {
    json!({
        "name": upstream.name,
        "addr": upstream.addr.to_string(),
        "up": upstream.up,
        "reached": upstream.reached,
        "open": upstream.open,
        "connecting": upstream.connecting,
        "connected": upstream.connected,
        "failed": upstream.failed,
        "busy": upstream.busy,
        "lacked": upstream.lacked,
        "connect_seconds": seconds(upstream.connect_time),
        "limit": upstream.limit,
        "throughput": upstream.throughput,
        "elasticity": upstream.elasticity,
        "sent_bytes": upstream.sent,
        "received_bytes": upstream.received,
    })
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
