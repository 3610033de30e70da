//! A connection's life from its first byte to its last, and what its handler sees of it. It knows no
//! threads and no queue.

pub(crate) mod conn;
pub(crate) mod connection;
pub(crate) mod exchange;
pub(crate) mod handler;
pub(crate) mod holds;

use crate::{
    net::wire,
    server::{config, control, reactor, runqueue},
};
