//! Who got no place, and why, and when an overload of the upstreams begins and is over. It counts and
//! tells people; it decides nothing, and knows no line.

use std::time::Instant;

use crate::{
    overload::{Change, Watch},
    sys::words::time,
};

/// Connections that got no place, for each reason, and the overloads that they make.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// There was no upstream for them.
    pub(super) no_upstream: u64,
    /// They would have waited too long.
    pub(super) line_full: u64,
    /// They had waited too long.
    pub(super) shed: u64,
    /// Their clients have gone while they waited.
    pub(super) gone: u64,
    pub(super) overloads_begun: u64,
    pub(super) overloads_ended: u64,
    watch: Watch,
}

impl Refusals {
    /// Whether an overload has begun whose end was not seen yet.
    pub(super) fn is_watching(&self) -> bool {
        self.watch.next_look().is_some()
    }

    /// Takes note of whether there is an overload now; what there is to tell.
    pub(super) fn look(&mut self, now: Instant, overloaded: bool) -> Option<Change> {
        let change = self.watch.look(now, overloaded, &[self.line_full, self.shed, self.gone])?;
        match change {
            Change::Begun => self.overloads_begun += 1,
            Change::Ended { .. } => self.overloads_ended += 1,
        }
        Some(change)
    }
}

/// Says in the log that an overload has begun or is over.
pub(super) fn tell(change: &Change) {
    match change {
        Change::Begun => {
            tracing::warn!("the upstreams are overloaded: more comes than they can serve in time");
        }
        Change::Ended { lasted, turned_away } => {
            if let [line_full, shed, gone] = turned_away[..] {
                tracing::warn!(
                    lasted = %time(*lasted),
                    refused_line_full = line_full,
                    shed,
                    gone,
                    "the upstreams' overload is over"
                );
            }
        }
    }
}
