//! A connection's life from its first byte to its last, and what its handler sees of it. It knows no
//! threads and no queue.

pub(crate) mod activity;
pub(crate) mod busy_reply;
pub(crate) mod connection;
pub(crate) mod context;
pub(crate) mod exchange;
pub(crate) mod farewell;
pub(crate) mod handler;
pub(crate) mod holds;
pub(crate) mod joint;
pub(crate) mod life;
pub(crate) mod linger;
pub(crate) mod phase;
pub(crate) mod service;
pub(crate) mod sides;
pub(crate) mod stage;
pub(crate) mod timeouts;
