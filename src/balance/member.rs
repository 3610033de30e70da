//! One upstream among the others: its record, and whether it may get anything. It knows none of the others.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    record::Record,
    upstream::{Id, Upstream},
};

/// An upstream that is wanted. One that has the name and the address of another is that one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// As it was given,
    pub(super) name: String,
    /// and one of its addresses.
    pub(super) addr: SocketAddr,
    pub(super) weight: u32,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) upstream: Arc<Upstream>,
    pub(super) record: Record,
    pub(super) weight: u32,
    /// Where it stands in the list of those that are wanted.
    pub(super) position: usize,
    pub(super) standing: Standing,
    /// There are other addresses of its name.
    pub(super) has_siblings: bool,
    /// When it came, if others were there.
    pub(super) came: Option<Instant>,
}

/// Whether an upstream may get anything, as far as it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Used,
    /// It was never reached, and others of its name were: it is used once it is.
    Unproven,
    /// It gets nothing more, and goes with the last place that is taken.
    Leaving,
}

impl Member {
    /// One that has just come, and is used.
    pub(super) fn new(id: Id, position: usize, wanted: &Wanted, record: Record) -> Self {
        Self {
            upstream: Arc::new(Upstream::new(id, wanted.name.clone(), wanted.addr)),
            record,
            weight: wanted.weight,
            position,
            standing: Standing::Used,
            has_siblings: false,
            came: None,
        }
    }

    pub(super) fn is(&self, wanted: &Wanted) -> bool {
        self.upstream.addr == wanted.addr && self.upstream.name == wanted.name
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.standing == Standing::Leaving
    }

    /// It is wanted, and does not wait for being reached.
    pub(super) fn is_used(&self) -> bool {
        self.standing == Standing::Used
    }

    /// Whether it is to be checked before its turn: it has changed of late, or it is the first check that
    /// says whether it can be used.
    pub(super) fn is_urgent(&self, lately: Duration, now: Instant) -> bool {
        let is_new = !self.record.is_looked_at() && (self.came.is_some() || self.has_siblings);
        let has_changed = match self.is_used() {
            true => self.record.is_down_for_less_than(lately, now),
            false => self.came.is_some_and(|came| now < came + lately),
        };
        is_new || has_changed
    }

    /// It is wanted, but gets nothing while others get something.
    pub(super) fn is_out(&self) -> bool {
        self.record.is_down() || !self.is_used()
    }
}
