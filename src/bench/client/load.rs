//! What one measurement is to do. It does not know how it is done.

use std::{net::SocketAddr, time::Duration};

use crate::bench::{exchange::Exchange, pacer::Pacer};

/// When requests are made.
#[derive(Debug)]
pub(crate) enum Loop {
    /// So many clients, each of which waits for its reply before it asks again.
    Closed(usize),
    /// Whenever the pacer says so, whatever the server does.
    Open(Pacer),
}

/// How a client gives up at its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GiveUp {
    Close,
    Reset,
}

/// One measurement.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) addr: SocketAddr,
    pub(crate) exchange: Exchange,
    pub(crate) pace: Loop,
    pub(crate) deadline: Duration,
    pub(crate) give_up: GiveUp,
    /// At the beginning, cut off.
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
}
