//! HTTP/1.1 as bytes: bytes in, bytes out. It knows no connection, no handler and no server, and what is to
//! be made of what it reads is for others to say.

pub(crate) mod chunked;
mod date;
mod fields;
pub(crate) mod framing;
pub(crate) mod head;
mod target;
pub(crate) mod write;
