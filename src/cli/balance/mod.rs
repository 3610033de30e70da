//! The command `overfall balance`: which of its flags can change while it runs, and what USR1 shows. It does
//! not know how connections are spread.

mod args;

use std::{fmt, process::ExitCode, sync::LazyLock};

use comfy_table::{Cell, CellAlignment, Table, presets::NOTHING};
use overfall::balance::{self, Balancer};

pub(super) use self::args::Args;
use super::{command_line::Values, pool, reload::Reload, served::Running};

/// Flags that say how requests are served. They mean nothing where the protocol is another.
const OVER_HTTP: [&str; 6] =
    ["limit", "upstream-timeout", "buffer-body", "keep-underscores", "check-path", "access-log"];
/// Flags that can change while the balancer runs, beside those and the server's.
const OWN: [&str; 12] = [
    "upstreams",
    "resolve-interval",
    "policy",
    "max-connections-per-upstream",
    "connect-timeout",
    "send-proxy",
    "all-down",
    "check-interval",
    "check-send",
    "check-expect",
    "rise",
    "fall",
];
static LIVE: LazyLock<Vec<&'static str>> = LazyLock::new(|| [&pool::LIVE[..], &OWN, &OVER_HTTP].concat());

/// The flags of settings that could not change.
fn flags_of(kept: Vec<&'static str>) -> Vec<&'static str> {
    let of = |setting| match setting {
        "http" => [&["protocol"], &OVER_HTTP[..]].concat(),
        other => vec![other],
    };
    kept.into_iter().flat_map(of).collect()
}

/// Runs the balancer until a signal ends it.
pub(super) fn run(args: Args, given: Values) -> anyhow::Result<ExitCode> {
    let config = args.config()?;
    config.check()?;
    let reload = Reload::new(given, &LIVE, |balancer: &Balancer, args: Args| {
        Ok(flags_of(balancer.reload_with(args.pool.builder()?, args.config()?)?))
    });
    pool::run(&args.pool, "127.0.0.1:8000", reload, |_| None, |builder| balance::serve(builder, config))
}

impl Running for Balancer {
    fn join(&self) -> overfall::Result<()> {
        Balancer::join(self)
    }

    fn status(&self) -> impl fmt::Display {
        Status(self.snapshot(), self.handle().metrics())
    }
}

/// The upstreams, their line and the counters, one under the other.
struct Status(balance::Snapshot, overfall::Metrics);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(snapshot, metrics) = self;
        writeln!(f, "{}", table(&snapshot.upstreams))?;
        for (name, value) in [
            ("line_waiting", snapshot.waiting as u64),
            ("line_shed", snapshot.line_shed),
            ("line_gone", snapshot.line_gone),
            ("refused_line_full", snapshot.refused_line_full),
            ("refused_no_upstream", snapshot.refused_no_upstream),
            ("upstream_overloads_begun", snapshot.overloads_begun),
            ("upstream_overloads_ended", snapshot.overloads_ended),
            ("access_log_dropped", snapshot.access_log_dropped),
        ] {
            writeln!(f, "{name:<25}{value}")?;
        }
        metrics.fmt(f)
    }
}

fn state(upstream: &balance::UpstreamStatus) -> &'static str {
    match (upstream.up, upstream.reached) {
        (true, _) => "up",
        (false, true) => "down",
        (false, false) => "unreached",
    }
}

fn table(upstreams: &[balance::UpstreamStatus]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).force_no_tty();
    table.set_header([
        "upstream",
        "address",
        "state",
        "open",
        "connecting",
        "connected",
        "failed",
        "busy",
        "lacked",
        "connect",
        "limit",
        "throughput",
        "elasticity",
        "sent",
        "received",
    ]);
    for upstream in upstreams {
        let number = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row([
            Cell::new(&upstream.name),
            Cell::new(upstream.addr),
            Cell::new(state(upstream)),
            number(upstream.open.to_string()),
            number(upstream.connecting.to_string()),
            number(upstream.connected.to_string()),
            number(upstream.failed.to_string()),
            number(upstream.busy.to_string()),
            number(upstream.lacked.to_string()),
            number(format!("{:.2} ms", upstream.connect_time.as_secs_f64() * 1e3)),
            number(upstream.limit.map_or("-".into(), |limit| format!("{limit:.1}"))),
            number(upstream.throughput.map_or("-".into(), |throughput| format!("{throughput:.1}/s"))),
            number(upstream.elasticity.map_or("-".into(), |elasticity| format!("{elasticity:.2}"))),
            number(upstream.sent.to_string()),
            number(upstream.received.to_string()),
        ]);
    }
    table
}
