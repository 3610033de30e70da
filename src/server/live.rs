//! Settings that change while the server runs: which of them can, and those that nobody but the acceptor
//! goes by. It knows neither the acceptor nor sessions.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};

use super::config::{Config, OnFull};
use crate::sys::setting::LiveTime;

/// What newcomers and the end go by. Whoever changes it rings the acceptor's bell.
#[derive(Debug)]
pub(super) struct Live {
    queue: AtomicUsize,
    backlog: AtomicU32,
    drops_oldest: AtomicBool,
    max_connections: AtomicUsize,
    drain_timeout: LiveTime,
}

impl Live {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            queue: AtomicUsize::new(config.queue),
            backlog: AtomicU32::new(config.backlog),
            drops_oldest: AtomicBool::new(config.on_full == OnFull::DropOldest),
            max_connections: AtomicUsize::new(config.max_connections),
            drain_timeout: LiveTime::new(config.drain_timeout),
        }
    }

    pub(super) fn set(&self, config: &Config) {
        self.queue.store(config.queue, Relaxed);
        self.backlog.store(config.backlog, Relaxed);
        self.drops_oldest.store(config.on_full == OnFull::DropOldest, Relaxed);
        self.max_connections.store(config.max_connections, Relaxed);
        self.drain_timeout.set(config.drain_timeout);
    }

    pub(super) fn queue(&self) -> usize {
        self.queue.load(Relaxed)
    }

    pub(super) fn backlog(&self) -> u32 {
        self.backlog.load(Relaxed)
    }

    pub(super) fn drops_oldest(&self) -> bool {
        self.drops_oldest.load(Relaxed)
    }

    pub(super) fn max_connections(&self) -> usize {
        self.max_connections.load(Relaxed)
    }

    pub(super) fn drain_timeout(&self) -> std::time::Duration {
        self.drain_timeout.get()
    }
}

/// What a running server cannot have more of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capacity {
    pub(super) queue: usize,
    pub(super) connections: usize,
}

impl Capacity {
    /// What is asked for, as far as it can be had in place of what is in force, and the names of the
    /// settings that stay as they are.
    pub(super) fn allow(self, asked: Config, in_force: &Config) -> (Config, Vec<&'static str>) {
        let mut allowed = asked;
        let mut kept = Vec::new();
        if allowed.workers != in_force.workers {
            allowed.workers = in_force.workers;
            kept.push("workers");
        }
        // At the one in force it stays in any case.
        if allowed.queue > self.queue {
            allowed.queue = in_force.queue;
            kept.push("queue");
        }
        if allowed.max_connections > self.connections {
            allowed.max_connections = in_force.max_connections;
            kept.push("max_connections");
        }
        if allowed.accept_proxy != in_force.accept_proxy {
            allowed.accept_proxy = in_force.accept_proxy.clone();
            kept.push("accept_proxy");
        }
        if allowed.tls.is_some() != in_force.tls.is_some() {
            allowed.tls = in_force.tls.clone();
            kept.push("tls");
        }
        (allowed, kept)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::config::Settings, *};

    #[test]
    fn what_can_be_had_is_allowed_and_the_rest_is_named() {
        let base = Settings {
            workers: Some(4),
            queue: Some(100),
            max_connections: Some(1000),
            ..Settings::default()
        };
        let in_force = base.validate().unwrap();
        let capacity = Capacity { queue: 200, connections: 2000 };
        type Change = fn(&mut Settings);
        // What is asked for, and what stays of it as it was.
        let cases: [(Change, &[&str]); 8] = [
            (|_| {}, &[]),
            (|settings| settings.workers = Some(5), &["workers"]),
            (|settings| settings.queue = Some(1), &[]),
            (|settings| settings.queue = Some(200), &[]),
            (|settings| settings.queue = Some(201), &["queue"]),
            (|settings| settings.max_connections = Some(2000), &[]),
            (|settings| settings.max_connections = Some(2001), &["max_connections"]),
            (
                |settings| {
                    (settings.workers, settings.queue, settings.max_connections) = (None, None, Some(3000));
                    settings.workers = Some(1);
                },
                &["workers", "queue", "max_connections"],
            ),
        ];
        for (change, names) in cases {
            let mut settings = base.clone();
            change(&mut settings);
            settings.patience = Duration::from_secs(7);
            let (allowed, kept) = capacity.allow(settings.validate().unwrap(), &in_force);
            assert_eq!(kept, names);
            assert_eq!(allowed.patience, Duration::from_secs(7), "the rest is taken on");
            assert_eq!(allowed.workers, 4);
            let stays = |name| kept.contains(&name);
            assert_eq!(allowed.queue, if stays("queue") { Some(100) } else { settings.queue }.unwrap());
            let most = if stays("max_connections") { Some(1000) } else { settings.max_connections };
            assert_eq!(allowed.max_connections, most.unwrap());
        }
    }
}
