//! What the system is asked: times, descriptors, and what the kernel knows of a connection. It knows
//! no server.

pub(crate) mod clock;
pub(crate) mod connect;
pub(crate) mod leash;
pub(crate) mod names;
pub(crate) mod options;
pub(crate) mod peer;
pub(crate) mod random;
pub(crate) mod resolver;
pub(crate) mod setting;
pub(crate) mod steer;
pub(crate) mod tally;
pub(crate) mod tcp_info;
pub(crate) mod threads;
pub(crate) mod wait;
pub(crate) mod words;
