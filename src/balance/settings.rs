//! A balancer's settings, as they are logged: in words and with units. It decides none.

use super::{
    config::{AllDown, Config, HttpConfig, UpstreamConfig},
    selection::Policy,
};
use crate::sys::words::{or, time};

/// Logs how the balancer works.
pub(super) fn log(config: &Config) {
    let said = !config.check_send.is_empty();
    tracing::info!(
        protocol = if config.http.is_some() { "http" } else { "tcp" },
        upstreams = %names(&config.upstreams),
        resolve_interval = %time(config.resolve_interval),
        policy = match config.policy {
            Policy::LeastConnections => "least-connections",
            Policy::RoundRobin => "round-robin",
        },
        connect_timeout = %time(config.connect_timeout),
        all_down = match config.all_down {
            AllDown::Refuse => "refuse",
            AllDown::Try => "try",
        },
        check_interval = %time(config.check_interval),
        check_send = or(said.then(|| config.check_send.escape_ascii()), "nothing"),
        check_expect = or(config.check_expect.as_ref().map(|bytes| bytes.escape_ascii()), "a connection"),
        rise = config.rise,
        fall = config.fall,
        "balancing"
    );
    match &config.http {
        None => {
            let most = or(config.max_connections_per_upstream, "no limit");
            tracing::info!(max_connections_per_upstream = most, "balancing connections");
        }
        Some(http) => log_http(http),
    }
}

fn log_http(http: &HttpConfig) {
    tracing::info!(
        limit = or(http.limit, "found"),
        upstream_timeout = %time(http.upstream_timeout),
        buffer_body = http.buffer_body,
        keep_underscores = http.keep_underscores,
        source_header = or(http.source_header.as_ref(), "none"),
        check_path = or(http.check_path.as_ref(), "none"),
        access_log = or(http.access_log.as_ref().map(|path| path.display()), "none"),
        "balancing requests"
    );
}

fn names(upstreams: &[UpstreamConfig]) -> String {
    let name = |upstream: &UpstreamConfig| match upstream.weight {
        1 => upstream.name.clone(),
        weight => format!("{}={weight}", upstream.name),
    };
    upstreams.iter().map(name).collect::<Vec<_>>().join(",")
}
