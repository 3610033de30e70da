//! HTTP/1.1 as bytes: bytes in, bytes out. It knows no connection, no handler and no server, and what is to
//! be made of what it reads is for others to say.

pub(crate) mod chunked;
mod date;
pub(crate) mod fields;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod hops;
pub(crate) mod reply;
pub(crate) mod target;
pub(crate) mod write;
