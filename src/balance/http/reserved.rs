//! A connection to an upstream that was told of its client, and is kept for that one alone. It does not know
//! when it may be used again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{balance::upstream::Upstream, session::joint::Other};

/// It is closed when this is dropped, and before, when it grows old or its upstream leaves.
#[derive(Debug)]
pub(super) struct Reserved {
    upstream: Arc<Upstream>,
    number: u64,
}

impl Reserved {
    /// Keeps it, which the upstream is going to close after so long, where that is known. It is boxed, as
    /// most clients have none.
    pub(super) fn keep(
        upstream: &Arc<Upstream>,
        other: Other,
        closes_after: Option<Duration>,
        now: Instant,
    ) -> Option<Box<Self>> {
        let number = upstream.spares.reserve(other, closes_after, now)?;
        Some(Box::new(Self { upstream: Arc::clone(upstream), number }))
    }

    /// The connection, if it leads to this upstream and has been idle for less than this.
    pub(super) fn take(&self, to: &Upstream, most: Duration, now: Instant) -> Option<Other> {
        let is_there = self.upstream.id == to.id;
        is_there.then(|| self.upstream.spares.claim(self.number, most, now)).flatten()
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // Where it was not taken.
        self.upstream.spares.discard(self.number);
    }
}
