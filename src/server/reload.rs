//! The settings in force in a running server, and how others take their place. It knows no threads.

use std::net::SocketAddr;

use parking_lot::Mutex;

use super::{builder::Builder, config::Config, live::Capacity, settings};
use crate::error::Result;

/// Has the server go by these settings.
type Change = Box<dyn Fn(&Config) + Send + Sync>;

pub(super) struct InForce {
    config: Mutex<Config>,
    capacity: Capacity,
    /// None where nothing can be changed.
    change: Option<Change>,
}

impl InForce {
    pub(super) fn new(config: Config, change: Option<Change>) -> Self {
        let capacity = Capacity { queue: config.queue, connections: config.places };
        Self { config: Mutex::new(config), capacity, change }
    }

    /// Those that are in force now.
    pub(super) fn config(&self) -> Config {
        self.config.lock().clone()
    }

    /// Puts these settings into force, all of them or, where one is wrong, none. Gives the names of those
    /// that stay as they were, in a server that listens here.
    pub(super) fn reload(&self, builder: Builder, addrs: &[SocketAddr]) -> Result<Vec<&'static str>> {
        let mut in_force = self.config.lock();
        let builder = builder.descriptors(in_force.descriptors, in_force.handlers_descriptors);
        let asked = with_certificate(builder.validate()?, &in_force);
        let mut kept = match &self.change {
            None => asked.differences(&in_force),
            Some(change) => {
                let (allowed, kept) = self.capacity.allow(asked, &in_force);
                change(&allowed);
                if allowed.backlog != in_force.backlog {
                    settings::warn_of_backlog(allowed.backlog);
                }
                *in_force = allowed;
                kept
            }
        };
        if builder.listens_elsewhere(addrs) {
            kept.push("bind");
        }
        Ok(kept)
    }
}

/// With the certificate that is asked for in the place of the one in force.
fn with_certificate(mut allowed: Config, in_force: &Config) -> Config {
    if let (Some(ours), Some(theirs)) = (&in_force.tls, &allowed.tls) {
        ours.adopt(theirs);
        allowed.tls.clone_from(&in_force.tls);
    }
    allowed
}
