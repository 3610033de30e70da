//! Bodies that are too large to be gathered in the input: how one is to be had, and what has come of one that
//! is gathered in memory. It does not know what is answered.

use std::{
    io,
    sync::{Arc, atomic::AtomicUsize},
    time::Instant,
};

use http::StatusCode;

use super::{
    codec::head::{self, Head},
    gathered::Gathered,
    incoming::{Gathering, Incoming},
    receipt::{BodyLimits, Receipt},
    taken::Taken,
};
use crate::session::{
    connection::Connection,
    handler::Next,
    holds::{Hold, HoldWaiter},
};

/// How the body is to be had.
pub(super) enum Way {
    /// The function reads it as it comes, with leave to wait where that is needed.
    Read(Option<Hold>),
    /// It is gathered in memory first, since no worker may be held.
    Gather(Gathered),
    /// It has to wait until fewer workers are held by bodies.
    Line(HoldWaiter),
    /// There is no room for it.
    Busy,
}

impl Way {
    /// A worker waits for it, if it may. `in_all` is what all bodies in memory have together.
    pub(super) fn find(
        connection: &mut Connection<'_>,
        head: &Head,
        hold: Option<Hold>,
        in_all: &Arc<AtomicUsize>,
    ) -> Self {
        let length = head.framing.length();
        let may_gather = !head.expects_continue && length.is_none_or(Gathered::may_hold);
        if !connection.context().holds.may_be_held() && may_gather {
            return Gathered::new(in_all, length).map_or(Self::Busy, Self::Gather);
        }
        if let Some(hold) = hold.or_else(|| connection.context().holds.take()) {
            return Self::Read(Some(hold));
        }
        if !connection.context().holds.may_be_held() {
            // It is larger than all that may be gathered, or its client asks first: there is no other way.
            return Self::Read(None);
        }
        connection.waker().map_or(Self::Busy, |waker| Self::Line(connection.context().holds.wait(waker)))
    }
}

/// A body that is being gathered in memory.
#[derive(Debug)]
pub(crate) struct PartialBody {
    /// The head as it came.
    text: Vec<u8>,
    receipt: Receipt,
    gathered: Option<Gathered>,
}

/// What came of gathering it.
pub(crate) enum Stand {
    Whole(Taken),
    /// More has to come, or others have their turn.
    Part(PartialBody, Next),
    /// There is no room for it.
    Busy,
    /// Its client is to be told this.
    Failed(StatusCode),
}

impl PartialBody {
    /// `text` is the head as it came.
    pub(crate) fn new(text: Vec<u8>, receipt: Receipt, gathered: Gathered) -> Self {
        Self { text, receipt, gathered: Some(gathered) }
    }

    /// Whether its answer has no content.
    pub(crate) fn asks_for_head(&self) -> bool {
        head::asks_for_head(&self.text)
    }

    /// Gathers what has come, and says when to go on.
    pub(crate) fn gather(self, connection: &mut Connection<'_>, limits: BodyLimits) -> io::Result<Stand> {
        let Self { text, receipt, gathered } = self;
        let mut incoming = Incoming::new(connection.reborrow(), receipt, limits, gathered, None);
        let gathering = incoming.gather();
        let failure = incoming.failure();
        let (receipt, gathered) = incoming.into_parts();
        connection.part();
        let next = match gathering {
            Ok(Gathering::Whole) => return Ok(Stand::Whole(Taken::gathered(text, receipt, gathered)?)),
            Ok(Gathering::NoRoom) => return Ok(Stand::Busy),
            Ok(Gathering::Pause) => {
                connection.await_turn(Instant::now() + connection.context().timeouts.io.get());
                Next::Again
            }
            Ok(Gathering::Until(deadline)) => {
                connection.await_turn(deadline);
                Next::Park
            }
            Err(error) => return failure.map(Stand::Failed).ok_or(error),
        };
        Ok(Stand::Part(Self { text, receipt, gathered }, next))
    }
}
