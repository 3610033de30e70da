//! The server: an acceptor, a bounded queue, a fixed pool of workers, and parked sessions. It knows
//! handlers, and no protocol.

mod acceptor;
mod advice;
mod advisor;
mod backoff;
pub mod baseline;
mod builder;
mod config;
mod control;
mod door;
mod drain;
mod ending;
mod eviction;
mod handle;
mod live;
mod moderation;
mod overdue;
mod parked;
mod pool;
pub(crate) mod queue;
mod reload;
mod report;
mod room;
mod running;
mod settings;
mod sources;
mod start;
mod sweep;
mod sweeper;
mod turns;
mod worker;
mod workers;

#[cfg(feature = "admin")]
pub(crate) use self::config::Config;
pub(crate) use self::config::descriptor_limit;
pub use self::{
    advice::{Advice, DecidedBy, WaitingFor},
    builder::{Builder, Server},
    config::OnFull,
    handle::Handle,
    sources::SourceReport,
    workers::{CallState, RunningCall, WorkersReport},
};
