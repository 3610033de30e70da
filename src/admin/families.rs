//! Which metrics there are: their names, which are stable, their labels and their help. Units are base
//! units, as the conventions of Prometheus have it. It does not know how they are written.

use std::fmt;

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::{
    figures::Figures,
    process,
    prometheus::{Families, PLAIN},
};
use crate::{
    balance::{Snapshot, UpstreamStatus},
    metrics::Metrics,
    server::{Config, SourceReport, WorkersReport},
};

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        write(&mut Families(encoder), self)
    }
}

/// Everything that is known.
fn write(to: &mut Families<'_>, figures: &Figures) -> fmt::Result {
    let (metrics, upstreams) = (&figures.metrics, figures.upstreams.as_ref());
    let version: &[_] = &[("version", env!("CARGO_PKG_VERSION"))];
    to.gauges("overfall_build_info", "The version of overfall; always 1.", [(version, 1_u64)])?;
    let ready = u64::from(figures.readiness.reason().is_none());
    to.gauge("overfall_ready", "Whether newcomers are welcome, as /readyz says.", ready)?;
    settings(to, &figures.config)?;
    requests(to, metrics)?;
    connections(to, metrics)?;
    refusals(to, metrics, upstreams)?;
    overloads(to, metrics, upstreams)?;
    times(to, metrics)?;
    workers(to, metrics, &figures.workers)?;
    sources(to, &figures.sources)?;
    if let Some(snapshot) = upstreams {
        line(to, snapshot)?;
        each_upstream(to, &snapshot.upstreams)?;
    }
    figures.process.as_ref().map_or(Ok(()), |figures| system(to, figures))
}

/// Those that alerts are made of.
fn settings(to: &mut Families<'_>, config: &Config) -> fmt::Result {
    let patience = config.patience.as_secs_f64();
    to.gauge("overfall_patience_seconds", "How long clients are taken to wait.", patience)?;
    to.gauge("overfall_workers", "Threads that run the handler.", config.workers as u64)?;
    let most = config.max_connections as u64;
    to.gauge("overfall_max_connections", "Connections that may be open at once.", most)
}

fn requests(to: &mut Families<'_>, m: &Metrics) -> fmt::Result {
    to.counter("overfall_requests_answered", "Requests answered, whatever the protocol.", m.answered)?;
    let classes: [(&[_], _); 4] = [
        (&[("class", "2xx")], m.answers_2xx),
        (&[("class", "3xx")], m.answers_3xx),
        (&[("class", "4xx")], m.answers_4xx),
        (&[("class", "5xx")], m.answers_5xx),
    ];
    let help = "Answers over HTTP by the class of their status; refused connections are not among them.";
    to.counters("overfall_http_answers", help, classes)?;
    let help = "Requests over HTTP that were refused as they came; they are among the answers.";
    to.counter("overfall_http_malformed", help, m.malformed)?;
    to.counter("overfall_handler_panics", "Calls of the handler that panicked.", m.panics)
}

fn connections(to: &mut Families<'_>, m: &Metrics) -> fmt::Result {
    let help = "Connections accepted, those that were refused not among them.";
    to.counter("overfall_connections_accepted", help, m.accepted)?;
    let states: [(&[_], _); 3] = [
        (&[("state", "queued")], m.queue_depth),
        (&[("state", "busy")], m.busy_workers),
        (&[("state", "parked")], m.connections_parked),
    ];
    let help = "Connections open now: in the queue, with a worker, or parked.";
    to.gauges("overfall_connections", help, states)?;
    let ends: [(&[_], _); 4] = [
        (&[("reason", "empty")], m.empty),
        (&[("reason", "failed")], m.failed),
        (&[("reason", "evicted")], m.evicted),
        (&[("reason", "cut")], m.cut),
    ];
    let help = "Connections that ended otherwise than well: without a byte, with an error, to make room for a \
                newcomer, or cut at the drain timeout.";
    to.counters("overfall_connections_lost", help, ends)?;
    let kinds: [(&[_], _); 2] =
        [(&[("kind", "proxy_line")], m.proxy_lines_malformed), (&[("kind", "tls")], m.handshakes_failed)];
    let help = "Connections that did not begin as they have to: with a PROXY line, with a TLS handshake.";
    to.counters("overfall_introductions_failed", help, kinds)?;
    let kinds: [(&[_], _); 3] = [
        (&[("kind", "first_byte")], m.timed_out_first_byte),
        (&[("kind", "idle")], m.timed_out_idle),
        (&[("kind", "io")], m.timed_out_io),
    ];
    to.counters("overfall_timeouts", "Connections whose time had passed.", kinds)?;
    let kinds: [(&[_], _); 3] = [
        (&[("kind", "connection")], m.accept_errors_connection),
        (&[("kind", "exhausted")], m.accept_errors_exhausted),
        (&[("kind", "thread")], m.accept_errors_thread),
    ];
    let help = "Connections that failed before they were accepted, pauses for lack of descriptors or memory, and \
                threads that could not be started.";
    to.counters("overfall_accept_errors", help, kinds)
}

fn refusals(to: &mut Families<'_>, m: &Metrics, upstreams: Option<&Snapshot>) -> fmt::Result {
    let workers: [(&[_], _); 4] = [
        (&[("reason", "queue_full")], m.refused_queue_full),
        (&[("reason", "connections_full")], m.refused_connections_full),
        (&[("reason", "oldest")], m.refused_oldest),
        (&[("reason", "shed")], m.shed),
    ];
    let places = upstreams.map(|snapshot| -> [(&[_], _); 3] {
        [
            (&[("reason", "no_upstream")], snapshot.refused_no_upstream),
            (&[("reason", "line_full")], snapshot.refused_line_full),
            (&[("reason", "line_shed")], snapshot.line_shed),
        ]
    });
    let help = "Who was told no: since it would have waited for too long, had waited for too long, or found no \
                place.";
    to.counters("overfall_refusals", help, workers.into_iter().chain(places.into_iter().flatten()))?;
    let gone = m.gone + upstreams.map_or(0, |snapshot| snapshot.line_gone);
    to.counter("overfall_clients_gone", "Clients that were gone when their turn came.", gone)?;
    let help = "Time for which newcomers were left to the kernel, since there was no room.";
    to.counter("overfall_left_waiting_seconds", help, m.waiting.as_secs_f64())?;
    to.counter("overfall_refusal_cpu_seconds", "CPU time of all refusals.", m.refusal_cpu.as_secs_f64())
}

fn overloads(to: &mut Families<'_>, m: &Metrics, upstreams: Option<&Snapshot>) -> fmt::Result {
    let of = |what, begun: u64, ended| ([("of", what)], begun, begun.saturating_sub(ended));
    let workers = of("workers", m.overloads_begun, m.overloads_ended);
    let places = upstreams.map(|all| of("upstreams", all.overloads_begun, all.overloads_ended));
    let all = || [Some(&workers), places.as_ref()].into_iter().flatten();
    let help = "Overloads that have begun: that more was asked than could be done in time.";
    to.counters("overfall_overloads", help, all().map(|(labels, begun, _)| (&labels[..], *begun)))?;
    let help = "Whether there is an overload now.";
    to.gauges("overfall_overloaded", help, all().map(|(labels, _, now)| (&labels[..], *now)))
}

fn times(to: &mut Families<'_>, m: &Metrics) -> fmt::Result {
    let help = "How long clients waited for a worker; those who then had waited too long are among them.";
    to.histogram("overfall_wait_seconds", help, &m.wait)?;
    let help = "How long answered requests were with a worker, the waiting for their clients not included.";
    to.histogram("overfall_service_seconds", help, &m.service)
}

fn workers(to: &mut Families<'_>, m: &Metrics, workers: &WorkersReport) -> fmt::Result {
    let spent: [(&[_], _); 4] = [
        (&[("activity", "handling")], workers.handling.as_secs_f64()),
        (&[("activity", "reading")], workers.reading.as_secs_f64()),
        (&[("activity", "writing")], workers.writing.as_secs_f64()),
        (&[("activity", "idle")], workers.idle.as_secs_f64()),
    ];
    let help = "What the workers spent their time on: in handlers, in handlers that waited for a client to send or \
                to take, or waiting for something to do.";
    to.counters("overfall_worker_seconds", help, spent)?;
    if let Some(cpu) = workers.cpu {
        let help = "CPU time of the workers; of more than 128 it is estimated.";
        to.counter("overfall_worker_cpu_seconds", help, cpu.as_secs_f64())?;
    }
    let highest: [(&[_], _); 2] =
        [(&[("of", "queue")], m.queue_highest), (&[("of", "busy_workers")], m.busy_highest)];
    to.gauges("overfall_highest", "The most there ever were at once.", highest)
}

/// Those that are listed alone, so that there are few labels.
fn sources(to: &mut Families<'_>, sources: &[SourceReport]) -> fmt::Result {
    let help = "Time of the workers that the sources with the most had in the last half to one second of an overload.";
    let label = |of: &'_ SourceReport| [("source", of.source.clone())];
    let labels: Vec<_> = sources.iter().map(label).collect();
    let each = || labels.iter().zip(sources);
    let busy = each().map(|(labels, of)| (&labels[..], of.busy.as_secs_f64()));
    to.gauges("overfall_source_busy_seconds", help, busy)?;
    let help = "How often those, and those whose place they had, were told no in that time.";
    to.gauges("overfall_source_refused", help, each().map(|(labels, of)| (&labels[..], of.refused)))
}

fn line(to: &mut Families<'_>, all: &Snapshot) -> fmt::Result {
    let help = "Who waits for a place at an upstream now.";
    to.gauge("overfall_line_waiting", help, all.waiting as u64)?;
    let help = "How long clients waited for a place at an upstream; those who were shed are among them.";
    to.histogram("overfall_line_wait_seconds", help, &all.wait)?;
    let help = "Over HTTP: how long answered requests had a place at an upstream.";
    to.histogram("overfall_upstream_service_seconds", help, &all.service)?;
    let help = "Lines of the access log that were not written in time.";
    to.counter("overfall_access_log_dropped_lines", help, all.access_log_dropped)
}

/// The labels of an upstream.
fn labels(upstream: &UpstreamStatus) -> [(&'static str, String); 2] {
    [("upstream", upstream.name.clone()), ("addr", upstream.addr.to_string())]
}

fn each_upstream(to: &mut Families<'_>, all: &[UpstreamStatus]) -> fmt::Result {
    let named: Vec<_> = all.iter().map(|upstream| (labels(upstream), upstream)).collect();
    type Get<T> = fn(&UpstreamStatus) -> T;
    let counts: [(_, _, Get<u64>); 2] = [
        ("overfall_upstream_sent_bytes", "Bytes sent to it.", |upstream| upstream.sent),
        ("overfall_upstream_received_bytes", "Bytes received from it.", |upstream| upstream.received),
    ];
    for (name, help, get) in counts {
        to.counters(name, help, named.iter().map(|(labels, upstream)| (&labels[..], get(upstream))))?;
    }
    let gauges: [(_, _, Get<Option<f64>>); 5] = [
        ("overfall_upstream_up", "Whether it is used.", |upstream| Some(f64::from(u8::from(upstream.up)))),
        (
            "overfall_upstream_connect_seconds",
            "How long connecting to it takes, of the latest.",
            |upstream| Some(upstream.connect_time.as_secs_f64()),
        ),
        (
            "overfall_upstream_limit",
            "What it may have at once: connections, or requests over HTTP.",
            |upstream| upstream.limit,
        ),
        ("overfall_upstream_throughput", "Requests per second that it answers at its limit.", |upstream| {
            upstream.throughput
        }),
        (
            "overfall_upstream_elasticity",
            "By how much its throughput follows its limit: 1 where all are worked on, 0 where more only wait.",
            |upstream| upstream.elasticity,
        ),
    ];
    for (name, help, get) in gauges {
        let known = named.iter().filter_map(|(labels, upstream)| Some((&labels[..], get(upstream)?)));
        to.gauges(name, help, known)?;
    }
    let states = by(&named, "state", |upstream| {
        [("open", upstream.open as u64), ("connecting", upstream.connecting as u64)]
    });
    let help = "What it has now: connections, or requests over HTTP, and connections being made.";
    to.gauges(
        "overfall_upstream_connections",
        help,
        states.iter().map(|(labels, value)| (&labels[..], *value)),
    )?;
    let results = by(&named, "result", |upstream| {
        [
            ("connected", upstream.connected),
            ("failed", upstream.failed),
            ("busy", upstream.busy),
            ("lacked", upstream.lacked),
        ]
    });
    let help = "What came of connecting to it: made, failed, reset since it was busy, or not tried for lack of \
                descriptors, memory or ports.";
    to.counters(
        "overfall_upstream_connects",
        help,
        results.iter().map(|(labels, value)| (&labels[..], *value)),
    )
}

/// Lines with one label more, for each of several values.
fn by<const N: usize>(
    named: &[([(&'static str, String); 2], &UpstreamStatus)],
    label: &'static str,
    values: impl Fn(&UpstreamStatus) -> [(&'static str, u64); N],
) -> Vec<([(&'static str, String); 3], u64)> {
    let lines = named.iter().flat_map(|([name, addr], upstream)| {
        values(upstream)
            .map(|(value, count)| ([name.clone(), addr.clone(), (label, value.to_owned())], count))
    });
    lines.collect()
}

/// The names are those that client libraries of Prometheus share.
fn system(to: &mut Families<'_>, process: &process::Figures) -> fmt::Result {
    let cpu = process.cpu.as_secs_f64();
    to.counter("process_cpu_seconds", "Total user and system CPU time spent in seconds.", cpu)?;
    to.gauge("process_open_fds", "Number of open file descriptors.", process.open_files)?;
    let most = process.max_files.map(|limit| (PLAIN, limit));
    to.gauges("process_max_fds", "Maximum number of open file descriptors.", most)?;
    to.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", process.resident_bytes)?;
    to.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", process.virtual_bytes)?;
    to.gauge("process_threads", "Number of OS threads in the process.", process.threads)?;
    let help = "Start time of the process since unix epoch in seconds.";
    to.gauge("process_start_time_seconds", help, process.started.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::{
            figures::Source,
            prometheus::{self, Format},
            status,
        },
        http::{self, Request, Response},
        server::Server,
    };

    fn figures() -> Figures {
        let server = Server::builder().bind("127.0.0.1:0").workers(1);
        let handle = http::serve(server, |_: &Request<'_>| Response::text("")).unwrap();
        Figures { metrics: Metrics::numbered(), ..Source::new(handle).figures() }
    }

    #[test]
    fn whatever_is_counted_is_there() {
        // The sum of the states; and what is told as a difference.
        const ELSEWHERE: [&str; 2] = ["connections_open", "overloads_ended"];
        let text = prometheus::encode(figures(), Format::Prometheus).unwrap();
        for (name, value) in
            Metrics::numbered().rows().filter(|(name, value)| *value > 0 && !ELSEWHERE.contains(name))
        {
            assert!(text.contains(&format!(" {value}\n")), "{name} {value}: {text}");
        }
    }

    #[test]
    fn sources_are_told_by_name_and_alike_in_both_forms() {
        let source = |source: &str, ms, refused, displaced| SourceReport {
            source: source.to_owned(),
            busy: std::time::Duration::from_millis(ms),
            refused,
            displaced,
        };
        let sources = vec![source("192.0.2.1", 250, 0, false), source("2001:db8::/64", 0, 3, true)];
        let figures = Figures { sources, ..figures() };
        let json: serde_json::Value = serde_json::from_str(&status::json(&figures)).unwrap();
        assert_eq!(
            json["sources"],
            serde_json::json!([
                { "source": "192.0.2.1", "busy_seconds": 0.25, "refused": 0, "displaced": false },
                { "source": "2001:db8::/64", "busy_seconds": 0.0, "refused": 3, "displaced": true },
            ])
        );
        let text = prometheus::encode(figures, Format::Prometheus).unwrap();
        for line in [
            r#"overfall_source_busy_seconds{source="192.0.2.1"} 0.25"#,
            r#"overfall_source_refused{source="2001:db8::/64"} 3"#,
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn names_and_help_follow_the_conventions() {
        let text = prometheus::encode(figures(), Format::OpenMetrics).unwrap();
        assert!(text.ends_with("# EOF\n"));
        for line in text.lines().filter(|line| *line != "# EOF") {
            let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
            assert!(name.starts_with("overfall_") || name.starts_with("process_"), "{line}");
            assert!(!line.starts_with("# HELP ") || line.ends_with('.'), "{line}");
        }
    }
}
