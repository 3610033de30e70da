//! What all sessions of a server have in common. It knows none of them.

use std::{sync::Arc, time::Duration};

use super::{
    holds::Holds,
    stage::Stage,
    timeouts::{LiveTimeouts, Timeouts},
};
use crate::{
    metrics::Counters,
    net::transport::Entry,
    sys::{setting::LiveTime, tally::Tally},
};

#[derive(Debug)]
pub(crate) struct Context {
    /// What connections begin with.
    pub(crate) entry: Entry,
    pub(crate) timeouts: LiveTimeouts,
    /// How long clients wait.
    pub(crate) patience: LiveTime,
    pub(crate) stage: Stage,
    pub(crate) counters: Counters,
    /// How many linger.
    pub(crate) lingering: Arc<Tally>,
    /// Who may hold a worker while a client is still sending.
    pub(crate) holds: Arc<Holds>,
}

impl Context {
    /// `workers` is how many threads serve, where that is known, and `holds` how many of them may be held by
    /// clients that are still sending.
    pub(crate) fn new(
        entry: Entry,
        timeouts: Timeouts,
        patience: Duration,
        workers: usize,
        holds: usize,
    ) -> Self {
        Self {
            entry,
            timeouts: LiveTimeouts::new(timeouts),
            patience: LiveTime::new(patience),
            stage: Stage::default(),
            counters: Counters::new(workers),
            lingering: Arc::default(),
            holds: Holds::new(holds),
        }
    }
}
