//! Sockets and the waiting for them. It knows neither handlers nor what is said over a socket.

pub(crate) mod flags;
mod incoming;
pub(crate) mod input;
pub(crate) mod key;
mod lanes;
pub(crate) mod listener;
pub(crate) mod lodging;
pub(crate) mod poller;
pub(crate) mod preface;
pub(crate) mod ready;
pub(crate) mod slots;
pub(crate) mod tls;
pub(crate) mod transport;
pub(crate) mod wire;
