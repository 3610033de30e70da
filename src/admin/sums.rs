//! What became of those who asked, added up over workers and upstreams. It knows nobody who goes by it.

use std::time::Duration;

use crate::{balance::Snapshot, metrics::Metrics};

/// What became of those who asked, since the server was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) served: u64,
    pub(super) refused: u64,
    pub(super) waits: u64,
    pub(super) waited: Duration,
    pub(super) shut: Duration,
}

impl Sums {
    pub(super) fn of(metrics: &Metrics, upstreams: Option<&Snapshot>) -> Self {
        let (shut, shed) = (metrics.waiting, metrics.shed);
        let door = metrics.refused_queue_full + metrics.refused_connections_full + metrics.refused_oldest;
        // In front of upstreams, it is for a place there that clients wait.
        let Some(all) = upstreams else {
            let (served, wait) = (metrics.answered, metrics.wait);
            return Self { served, refused: door + shed, waits: wait.count(), waited: wait.sum(), shut };
        };
        let line = all.refused_no_upstream + all.refused_line_full + all.line_shed;
        let waits = all.wait.count();
        let served = waits.saturating_sub(all.line_shed);
        Self { served, refused: door + shed + line, waits, waited: all.wait.sum(), shut }
    }
}
