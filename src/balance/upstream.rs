//! One upstream, as all see it who hold a place at it: where it is, and what passes to and from it. It
//! knows neither the other upstreams nor who waits.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::spares::Spares;

/// Which upstream is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id {
    /// Where its record is, while there is one.
    pub(super) slot: usize,
    /// No other one has it, nor ever had.
    pub(super) number: u64,
}

/// What connections are made to. It outlives its record where somebody still holds it.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) id: Id,
    /// As it was given.
    pub(super) name: String,
    pub(super) addr: SocketAddr,
    /// Connections to it that nobody uses now.
    pub(super) spares: Spares,
    /// Bytes sent to it and received from it.
    sent: AtomicU64,
    received: AtomicU64,
}

impl Upstream {
    pub(super) fn new(id: Id, name: String, addr: SocketAddr) -> Self {
        let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { id, name, addr, spares: Spares::default(), sent, received }
    }

    /// Counts bytes that were sent to it and received from it.
    pub(super) fn moved(&self, sent: u64, received: u64) {
        for (count, bytes) in [(&self.sent, sent), (&self.received, received)] {
            if bytes > 0 {
                count.fetch_add(bytes, Relaxed);
            }
        }
    }

    /// Bytes that were sent to it and received from it.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.sent.load(Relaxed), self.received.load(Relaxed))
    }
}
