//! A proxy for HTTP/1.1 that protects a service: requests are spread over upstreams, each of which has no
//! more of them at once than it can work on, and the others wait in one line. It knows no way to find that
//! number, which is `overload`'s, nor how bytes are parsed, which is `http::codec`'s.
//!
//! A request is gathered, with up to 16 KiB of its body, before it takes a place at an upstream, so that no
//! slow client holds one; a larger body passes through, at 16 KiB/s at least. The reply is read as fast as
//! it comes, up to 128 KiB ahead of the client, and its place is given back when it is whole, or after 10 s
//! of it; a tunnel has none.
//!
//! Requests and replies are written anew from what they mean: fields keep their order, case and number;
//! what is for one connection alone is dropped, and so are names with `_`; `X-Forwarded-For`, `-Proto` and
//! `-Host`, `Via` and `X-Request-Start` are set, whatever the client says of them. What could be read in two
//! ways is refused on either side.
//!
//! | status | when |
//! |---|---|
//! | 400, 408, 414, 431, 501, 505 | as for [`http`](crate::http); 400 also for what a server may forgive, such as lines that end in LF alone |
//! | 502 | the upstream has sent what is no reply, or has closed the connection without one |
//! | 503 with `Retry-After` | no upstream has a place in time; the client's connection is kept |
//! | 504 | the reply has not begun within [`upstream_timeout`](super::HttpConfig::upstream_timeout) |
//!
//! A reply that is cut off is cut off for the client as well. Tried again, once, is what cannot be done
//! twice: a request that was not sent, or one that is idempotent (RFC 9110, section 9.2.2) whose kept
//! connection has ended without a byte of a reply; all of the latter are at most a tenth of the requests and
//! one a second. A client that goes away leaves the line at once; its place it keeps until the upstream is
//! done, which works on. Five failures in a row take an upstream out for 10 s and longer, but never the last
//! one; who comes back gets its share step by step. An upgrade is a tunnel once the upstream has agreed with
//! 101.

pub(super) mod access;
mod body;
mod exchange;
mod log_file;
mod placing;
pub(super) mod proxy;
mod receiving;
mod refusal;
mod reply;
mod request;
mod reserved;
mod retries;
mod serving;
mod tunnel;
mod upload;
