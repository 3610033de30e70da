//! What bounds a server: the settings as they were given, and as they are in force. It knows nothing that
//! runs.

use std::{ops::RangeInclusive, thread, time::Duration};

use ipnet::IpNet;
use rustix::process::{Resource, getrlimit};

use crate::{
    error::{Error, Result},
    net::{tls::Tls, transport::Entry},
    overload::Terms,
    session::timeouts::Timeouts,
};

/// What happens to newcomers who would wait for too long: for a worker, or while as many connections
/// are open as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// Stop accepting until there is room. Newcomers wait in the kernel's backlog, which is kept
    /// short meanwhile; those that it does not take try again by themselves after a second.
    Wait,
    /// Tell the newcomer no at once: with the text of [`Handler::refusal`](crate::Handler::refusal),
    /// or a reset where there is none. Refusals have a budget, so that they never take the CPU from
    /// the requests; beyond it newcomers wait.
    Refuse,
    /// Tell the one that has been in the queue longest no in the same way, and let the newcomer in.
    /// It is for clients that give up soon and silently: those who came last are still there. Who
    /// is refused has waited in vain, though, and is told later than with `Refuse`.
    DropOldest,
}

impl OnFull {
    /// As the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Refuse => "refuse",
            Self::DropOldest => "drop-oldest",
        }
    }
}

/// Everything that bounds a server. Field names are those of the builder's methods.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) workers: usize,
    pub(crate) queue: usize,
    pub(crate) backlog: u32,
    pub(crate) on_full: OnFull,
    pub(crate) patience: Duration,
    pub(crate) refusal_budget: f64,
    pub(crate) max_connections: usize,
    /// Connections that may be open at most, whatever it is changed to.
    pub(crate) places: usize,
    /// Descriptors that each connection takes, and those that the handler takes for itself.
    pub(crate) descriptors: usize,
    pub(crate) handlers_descriptors: usize,
    pub(crate) timeouts: Timeouts,
    pub(crate) drain_timeout: Duration,
    /// What its threads and their lines in the log are told apart by from those of another server; nothing for
    /// the one that matters.
    pub(crate) name: &'static str,
    pub(crate) accept_proxy: Vec<IpNet>,
    pub(crate) tls: Option<Tls>,
}

impl Config {
    /// What decides who is let in, and who is served.
    pub(super) fn terms(&self) -> Terms {
        Terms {
            patience: self.patience,
            servers: self.workers,
            refusal_budget: if self.on_full == OnFull::Wait { 0.0 } else { self.refusal_budget },
            longest: Duration::MAX,
        }
    }

    /// The names of the settings in which they differ, as the builder's methods spell them.
    pub(super) fn differences(&self, other: &Self) -> Vec<&'static str> {
        let (times, others) = (self.timeouts, other.timeouts);
        let differs = [
            ("workers", self.workers != other.workers),
            ("queue", self.queue != other.queue),
            ("backlog", self.backlog != other.backlog),
            ("on_full", self.on_full != other.on_full),
            ("patience", self.patience != other.patience),
            ("refusal_budget", self.refusal_budget != other.refusal_budget),
            ("max_connections", self.max_connections != other.max_connections),
            ("first_byte_timeout", times.first_byte != others.first_byte),
            ("idle_timeout", times.idle != others.idle),
            ("io_timeout", times.io != others.io),
            ("drain_timeout", self.drain_timeout != other.drain_timeout),
            ("accept_proxy", self.accept_proxy != other.accept_proxy),
            ("tls", self.tls.is_some() != other.tls.is_some()),
        ];
        differs.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }

    /// What connections begin with, whose clients may ask for one of these protocols.
    pub(super) fn entry(&self, protocols: &[&[u8]]) -> Result<Entry> {
        Ok(Entry {
            accept_proxy: self.accept_proxy.clone(),
            tls: self.tls.as_ref().map(|tls| tls.acceptor(protocols)).transpose()?,
        })
    }
}

/// The settings as the user gave them; what is `None` gets a default that depends on the machine
/// or on other settings.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) workers: Option<usize>,
    pub(super) queue: Option<usize>,
    pub(super) backlog: u32,
    pub(super) on_full: OnFull,
    pub(super) patience: Duration,
    pub(super) refusal_budget: f64,
    pub(super) max_connections: Option<usize>,
    /// Descriptors that each connection takes, and those that the handler takes for itself.
    pub(super) descriptors: usize,
    pub(super) handlers_descriptors: usize,
    pub(super) first_byte_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) io_timeout: Duration,
    pub(super) drain_timeout: Duration,
    pub(super) name: &'static str,
    /// Those who say in a PROXY line for whom they speak.
    pub(super) accept_proxy: Vec<IpNet>,
    pub(super) tls: Option<Tls>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: None,
            queue: None,
            backlog: 1024,
            on_full: OnFull::Refuse,
            patience: PATIENCE,
            refusal_budget: 0.015,
            max_connections: None,
            descriptors: 1,
            handlers_descriptors: 0,
            first_byte_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            io_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            name: "",
            accept_proxy: Vec::new(),
            tls: None,
        }
    }
}

/// The most workers that there may be.
pub(super) const MOST_WORKERS: usize = 4096;
const WORKERS: RangeInclusive<usize> = 1..=MOST_WORKERS;
const QUEUE: RangeInclusive<usize> = 1..=1_000_000;
/// `listen(2)` takes an int.
const BACKLOG: RangeInclusive<u32> = 1..=i32::MAX as u32;
const MAX_CONNECTIONS: RangeInclusive<usize> = 1..=16_000_000;
/// More than a burst that can be served within the patience, but for the shortest of requests.
const QUEUE_DEFAULT: usize = 16_384;
/// How long clients wait by default.
const PATIENCE: Duration = Duration::from_millis(500);
/// Descriptors that are kept for the listeners, which are 255 more where sources are told apart, epoll, eventfds,
/// refusals under way and what the handler opens.
const RESERVED_DESCRIPTORS: usize = 320;

impl Settings {
    /// Connections that the limit of open files leaves room for.
    pub(super) fn room(&self) -> usize {
        let limit = descriptor_limit();
        let reserved = RESERVED_DESCRIPTORS.min(limit / 2) + self.handlers_descriptors;
        limit.saturating_sub(reserved) / self.descriptors
    }

    /// Checks every setting once and fills in the defaults.
    pub(super) fn validate(&self) -> Result<Config> {
        let workers = self.workers.unwrap_or_else(default_workers);
        within("workers", workers, WORKERS)?;
        let queue = self.queue.unwrap_or(QUEUE_DEFAULT);
        within("queue", queue, QUEUE)?;
        within("backlog", self.backlog, BACKLOG)?;
        let room = self.room().clamp(1, *MAX_CONNECTIONS.end());
        let max_connections = self.max_connections.unwrap_or(room);
        within("max_connections", max_connections, MAX_CONNECTIONS)?;
        if !(0.0..=1.0).contains(&self.refusal_budget) {
            return Err(Error::setting(
                "refusal_budget",
                self.refusal_budget,
                "0 to 1, as a share of one CPU",
            ));
        }
        for (name, value) in [
            ("patience", self.patience),
            ("first_byte_timeout", self.first_byte_timeout),
            ("idle_timeout", self.idle_timeout),
            ("io_timeout", self.io_timeout),
            ("drain_timeout", self.drain_timeout),
        ] {
            Error::check_time(name, value)?;
        }
        Ok(Config {
            workers,
            queue,
            backlog: self.backlog,
            on_full: self.on_full,
            patience: self.patience,
            refusal_budget: self.refusal_budget,
            max_connections,
            places: max_connections.max(room),
            descriptors: self.descriptors,
            handlers_descriptors: self.handlers_descriptors,
            timeouts: Timeouts {
                first_byte: self.first_byte_timeout,
                idle: self.idle_timeout,
                io: self.io_timeout,
            },
            drain_timeout: self.drain_timeout,
            name: self.name,
            accept_proxy: self.accept_proxy.clone(),
            tls: self.tls.clone(),
        })
    }
}

fn within<T>(name: &'static str, value: T, allowed: RangeInclusive<T>) -> Result<()>
where
    T: PartialOrd + std::fmt::Display,
{
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(Error::setting(name, value, format!("{} to {}", allowed.start(), allowed.end())))
}

/// The CPUs that this process may use: affinity and the cgroup's quota count.
fn default_workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(*WORKERS.end())
}

/// The soft limit of open files; a large number where there is none.
pub(crate) fn descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_out_of_range_is_named_with_its_value_and_what_it_may_be() {
        let base = Settings::default();
        let cases = [
            (Settings { workers: Some(0), ..base.clone() }, "workers is 0; it may be 1 to 4096"),
            (Settings { workers: Some(5000), ..base.clone() }, "workers is 5000; it may be 1 to 4096"),
            (Settings { queue: Some(0), ..base.clone() }, "queue is 0; it may be 1 to 1000000"),
            (
                Settings { refusal_budget: 3.0, ..base.clone() },
                "refusal_budget is 3; it may be 0 to 1, as a share of one CPU",
            ),
            (
                Settings { patience: Duration::ZERO, ..base.clone() },
                "patience is 0ns; it may be 1ms to 365 days",
            ),
            (Settings { backlog: 0, ..base.clone() }, "backlog is 0; it may be 1 to 2147483647"),
            (
                Settings { max_connections: Some(0), ..base.clone() },
                "max_connections is 0; it may be 1 to 16000000",
            ),
            (
                Settings { idle_timeout: Duration::ZERO, ..base.clone() },
                "idle_timeout is 0ns; it may be 1ms to 365 days",
            ),
            (
                Settings { io_timeout: Duration::MAX, ..base.clone() },
                "io_timeout is 18446744073709551615.999999999s; it may be 1ms to 365 days",
            ),
        ];
        for (settings, expected) in cases {
            assert_eq!(settings.validate().unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn defaults_are_valid() {
        assert!(Settings::default().validate().unwrap().max_connections < descriptor_limit());
    }
}
