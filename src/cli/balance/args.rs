//! The flags of `overfall balance`, and the settings that they stand for. It does not know which of them can
//! change.

use std::{path::PathBuf, time::Duration};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use http::HeaderName;
use overfall::balance::{AllDown, Config, HttpConfig, Policy, ProxyVersion, UpstreamConfig};

use crate::cli::{groups, help, pool::PoolArgs, resolving::ResolveArgs, usage::Wrong, values};

const EXAMPLES: [(&str, &str); 2] = [
    (
        "Protect a service that speaks HTTP on port 8888; clients come to port 8000",
        "overfall balance --protocol http 127.0.0.1:8888",
    ),
    (
        "Spread connections over two upstreams, of which one gets two shares",
        "overfall balance 127.0.0.1:8888 127.0.0.1:8889=2",
    ),
];

/// Spread connections or HTTP requests over upstreams, with limits.
///
/// There is a limit to what each upstream gets; the others wait in a bounded line.
///
/// TERM and INT drain and end it, a second one ends it at once; USR1 prints the upstreams and the
/// counters; HUP reads --config and certificates and opens the access log again, and drains where there is
/// none of them; USR2 starts the program anew, as it is on the disk then, and hands over to it without a gap.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true, after_long_help = help::examples(&EXAMPLES))]
pub(crate) struct Args {
    #[command(flatten)]
    spread: SpreadArgs,
    #[command(flatten)]
    checks: CheckArgs,
    #[command(flatten)]
    http: HttpArgs,
    #[command(flatten)]
    pub(super) pool: PoolArgs,
    /// How long connecting to an upstream may take
    #[arg(long, value_name = "D", default_value = "2s", value_parser = humantime::parse_duration)]
    #[arg(help_heading = groups::TIMEOUTS, hide_short_help = true)]
    connect_timeout: Duration,
    /// How long a reply may take to begin [default: 60s]
    ///
    /// It is the reply of an upstream, over HTTP.
    #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
    #[arg(help_heading = groups::TIMEOUTS, hide_short_help = true)]
    upstream_timeout: Option<Duration>,
    /// Say who the client is in a PROXY line [default: none]
    ///
    /// Each connection to an upstream, those of checks too, begins with a line of the PROXY protocol.
    #[arg(long, value_name = "VERSION", value_parser = proxy_version_parser())]
    #[arg(help_heading = groups::ENTRY, hide_short_help = true)]
    send_proxy: Option<ProxyVersion>,
    /// Log each request to this file
    ///
    /// Over HTTP: a line of JSON for each is appended.
    #[arg(long, value_name = "FILE", help_heading = groups::LOGS, hide_short_help = true)]
    access_log: Option<PathBuf>,
}

/// What is spread, over what, and how.
#[derive(Debug, clap::Args)]
// What has no flag comes first.
#[command(next_help_heading = groups::UPSTREAMS, next_display_order = 1)]
struct SpreadArgs {
    /// HOST:PORT, or HOST:PORT=WEIGHT
    ///
    /// A weight is for more than one share; a name stands for all its addresses.
    #[arg(value_name = "UPSTREAM", required = true, display_order = 0)]
    upstreams: Vec<UpstreamConfig>,
    /// What both sides speak: tcp or http
    ///
    /// Clients and upstreams, that is: anything over TCP, or HTTP/1.1, of which requests are spread in place
    /// of connections, and the limit of each upstream is found.
    #[arg(long, default_value = "tcp", value_parser = ["tcp", "http"])]
    #[arg(hide_possible_values = true)]
    protocol: String,
    /// Requests at once per upstream [default: found]
    ///
    /// Over HTTP; others wait in line. It is found from what the upstream answers.
    #[arg(long, value_name = "N", value_parser = values::whole::<usize>)]
    limit: Option<usize>,
    /// Connections at once per upstream [default: no limit]
    ///
    /// Over TCP; others wait in line.
    #[arg(long, value_name = "N", conflicts_with = "limit", value_parser = values::whole::<usize>)]
    #[arg(hide_short_help = true)]
    max_connections_per_upstream: Option<usize>,
    /// How connections are spread
    #[arg(long, default_value = "least-connections", value_parser = policy_parser(), hide_short_help = true)]
    policy: Policy,
    /// What is done while all upstreams are down
    ///
    /// Let connections wait and then refuse them, or try anyway.
    #[arg(long, default_value = "refuse", value_parser = all_down_parser(), hide_short_help = true)]
    all_down: AllDown,
    #[command(flatten)]
    resolving: ResolveArgs,
}

/// How it is found out whether an upstream is up.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = groups::CHECKS)]
struct CheckArgs {
    /// What checks ask for, such as /healthz
    ///
    /// Over HTTP; 2xx and 3xx are well.
    ///
    /// [default: a connection is enough]
    #[arg(long, value_name = "PATH", conflicts_with_all = ["check_send", "check_expect"])]
    #[arg(hide_short_help = true)]
    check_path: Option<String>,
    /// What a check sends [default: nothing]
    ///
    /// Escapes such as \r\n are understood.
    #[arg(long, value_name = "TEXT", value_parser = values::text, hide_short_help = true)]
    check_send: Option<std::vec::Vec<u8>>,
    /// What the reply to a check must begin with
    ///
    /// [default: a connection is enough]
    #[arg(long, value_name = "TEXT", value_parser = values::text, hide_short_help = true)]
    check_expect: Option<std::vec::Vec<u8>>,
    /// How often each upstream is checked
    ///
    /// A check may take a quarter of it.
    #[arg(long, value_name = "D", default_value = "2s", value_parser = humantime::parse_duration)]
    #[arg(hide_short_help = true)]
    check_interval: Duration,
    /// Checks in a row that bring an upstream up
    ///
    /// They must succeed for it to be up again.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = values::whole::<u32>)]
    #[arg(hide_short_help = true)]
    rise: u32,
    /// Checks in a row that take an upstream down
    ///
    /// They must fail for it to be down, or connects at as many moments of 100 ms.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = values::whole::<u32>)]
    #[arg(hide_short_help = true)]
    fall: u32,
}

/// How requests are passed on.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = groups::HTTP)]
struct HttpArgs {
    /// Bodies up to so many bytes are gathered [default: 1048576]
    ///
    /// They are gathered before a place is taken for them, out of 64 MiB for all; others pass through.
    #[arg(long, value_name = "BYTES", value_parser = values::whole::<u64>, hide_short_help = true)]
    buffer_body: Option<u64>,
    /// Pass on fields whose names have an underscore
    ///
    /// Many services take such names for others.
    #[arg(long, hide_short_help = true)]
    keep_underscores: bool,
    /// Clients are told apart by this field of requests
    ///
    /// In an overload each source has its share. Behind another proxy all come from its address, and it says in a
    /// field, such as X-Forwarded-For, for whom it asks; of several values the last one counts. Only for where
    /// nobody else can reach this: who can set the field can pass for any source.
    #[arg(long, value_name = "NAME", value_parser = source_header, hide_short_help = true)]
    source_header: Option<HeaderName>,
}

fn source_header(name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|_| "it is not the name of a field, such as X-Forwarded-For".to_owned())
}

fn policy_parser() -> impl TypedValueParser<Value = Policy> {
    PossibleValuesParser::new(["least-connections", "round-robin"])
        .map(|name| if name == "round-robin" { Policy::RoundRobin } else { Policy::LeastConnections })
}

fn proxy_version_parser() -> impl TypedValueParser<Value = ProxyVersion> {
    PossibleValuesParser::new(["v1", "v2"])
        .map(|name| if name == "v1" { ProxyVersion::V1 } else { ProxyVersion::V2 })
}

fn all_down_parser() -> impl TypedValueParser<Value = AllDown> {
    PossibleValuesParser::new(["refuse", "try"])
        .map(|name| if name == "try" { AllDown::Try } else { AllDown::Refuse })
}

impl Args {
    /// A flag that means nothing with this protocol.
    fn misplaced(&self) -> Option<&'static str> {
        if self.spread.protocol == "http" {
            return self.spread.max_connections_per_upstream.map(|_| "--max-connections-per-upstream");
        }
        let given = [
            ("--limit", self.spread.limit.is_some()),
            ("--upstream-timeout", self.upstream_timeout.is_some()),
            ("--buffer-body", self.http.buffer_body.is_some()),
            ("--keep-underscores", self.http.keep_underscores),
            ("--source-header", self.http.source_header.is_some()),
            ("--check-path", self.checks.check_path.is_some()),
            ("--access-log", self.access_log.is_some()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(flag, _)| flag)
    }

    /// The balancer that they describe.
    pub(super) fn config(&self) -> Result<Config, Wrong> {
        if let Some(flag) = self.misplaced() {
            let protocol = if self.spread.protocol == "http" { "tcp" } else { "http" };
            return Err(Wrong(format!("{flag} is for --protocol {protocol}, not {}", self.spread.protocol)));
        }
        let usual = HttpConfig::default();
        let http = HttpConfig {
            limit: self.spread.limit,
            upstream_timeout: self.upstream_timeout.unwrap_or(usual.upstream_timeout),
            buffer_body: self.http.buffer_body.unwrap_or(usual.buffer_body),
            keep_underscores: self.http.keep_underscores,
            source_header: self.http.source_header.clone(),
            check_path: self.checks.check_path.clone(),
            access_log: self.access_log.clone(),
        };
        Ok(Config {
            http: (self.spread.protocol == "http").then_some(http),
            upstreams: self.spread.upstreams.clone(),
            resolve_interval: self.spread.resolving.resolve_interval,
            policy: self.spread.policy,
            max_connections_per_upstream: self.spread.max_connections_per_upstream,
            connect_timeout: self.connect_timeout,
            send_proxy: self.send_proxy,
            all_down: self.spread.all_down,
            check_interval: self.checks.check_interval,
            check_send: self.checks.check_send.clone().unwrap_or_default(),
            check_expect: self.checks.check_expect.clone(),
            rise: self.checks.rise,
            fall: self.checks.fall,
            busy_reply: self.pool.busy_reply().to_vec(),
        })
    }
}
