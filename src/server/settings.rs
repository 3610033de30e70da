//! The settings in force, as they are logged: in words and with units. It decides none.

use super::config::Config;
use crate::{
    net::listener::{self, Listener},
    sys::words::{share, time},
};

/// Logs what bounds the server, and where the system sets a narrower bound: `room` is how many connections
/// it has descriptors for.
pub(super) fn log(config: &Config, listeners: &[Listener], room: usize) {
    tracing::info!(
        workers = config.workers,
        queue = config.queue,
        on_full = config.on_full.name(),
        patience = %time(config.patience),
        refusal_budget = %share(config.refusal_budget),
        max_connections = config.max_connections,
        first_byte_timeout = %time(config.timeouts.first_byte),
        idle_timeout = %time(config.timeouts.idle),
        io_timeout = %time(config.timeouts.io),
        drain_timeout = %time(config.drain_timeout),
        "settings in force"
    );
    for listener in listeners {
        tracing::info!(addr = %listener.addr(), backlog = listener.backlog_in_force(), "listening");
    }
    warn_of_backlog(config.backlog);
    if config.max_connections > room {
        tracing::warn!(
            max_connections = config.max_connections,
            room,
            "the limit of open files leaves room for fewer connections"
        );
    }
}

/// Logs that a backlog is not to be had, where that is so.
pub(super) fn warn_of_backlog(asked: u32) {
    let backlog = listener::granted(asked);
    if backlog < asked {
        tracing::warn!(asked, backlog, "the backlog is limited by net.core.somaxconn");
    }
}
