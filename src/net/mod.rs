//! Sockets and the waiting for them. It knows neither handlers nor what is said over a socket.

pub(crate) mod listener;
pub(crate) mod wire;
