//! Says when an overload begins and when it is over. It knows neither newcomers nor workers.

use std::time::{Duration, Instant};

use crate::{
    metrics::Counters,
    overload::{Change, Gate, Watch},
    sys::words::time,
};

#[derive(Debug, Default)]
pub(super) struct Reporter {
    watch: Watch,
}

impl Reporter {
    /// Says what has changed. Gives when to look next, if at all.
    pub(super) fn report(&mut self, gate: &Gate, counters: &Counters, patience: Duration) -> Option<Instant> {
        let now = Instant::now();
        if !gate.is_overloaded(now) && self.watch.next_look().is_none() {
            return None;
        }
        gate.look(now);
        match self.watch.look(now, gate.is_overloaded(now), &counters.turned_away()) {
            Some(Change::Begun) => {
                counters.overloads_begun.count();
                tracing::warn!(patience = %time(patience), "overloaded: more comes than can be served in time");
            }
            Some(Change::Ended { lasted, turned_away }) => {
                counters.overloads_ended.count();
                if let [queue_full, connections_full, oldest, shed, gone] = turned_away[..] {
                    tracing::warn!(
                        lasted = %time(lasted),
                        refused_queue_full = queue_full,
                        refused_connections_full = connections_full,
                        refused_oldest = oldest,
                        shed,
                        gone,
                        "the overload is over"
                    );
                }
            }
            None => {}
        }
        [gate.next_look(now), self.watch.next_look()].into_iter().flatten().min()
    }
}
