//! HTTP/1.1 for handlers: a request in, a response out.
//!
//! ```no_run
//! use overfall::{Server, http::{self, Response}};
//!
//! let server = Server::builder().bind("127.0.0.1:8888");
//! let handle = http::serve(server, |request| {
//!     Response::text(format!("Hello, {}!", request.uri().path()))
//! })?;
//! handle.join()?;
//! # Ok::<(), overfall::Error>(())
//! ```
//!
//! Heads and bodies of up to 16 KiB together are gathered while the connection is parked, so that
//! no slow client costs a worker; for the rest of a larger body a worker may wait, see [`Body`].
//! Connections are kept (HTTP/1.0: where the client asks for it), and pipelined requests are
//! answered in their order; where others wait, one is answered at a time.
//!
//! What cannot be answered is told so and closed:
//!
//! | status | when |
//! |---|---|
//! | 400 | the request is malformed, or could be read in two ways (RFC 9112) |
//! | 408 | it was not whole within `io_timeout`, or its large body came too slowly |
//! | 413 | the body is over [`Http::max_body`] |
//! | 414 | the target is over 8 KiB |
//! | 431 | the head is over 16 KiB, or has over 100 fields |
//! | 500 | the handler panicked |
//! | 501 | its transfer coding is not `chunked`, or its method is `CONNECT` |
//! | 503 | the server refused the connection |
//! | 505 | its version is neither 1.1 nor 1.0 |
//!
//! Types are those of the crate `http`.

mod answer;
pub(crate) mod arrival;
mod body;
pub(crate) mod codec;
pub(crate) mod delivery;
mod failure;
#[cfg(feature = "files")]
mod files;
pub(crate) mod gathered;
mod handler;
pub(crate) mod incoming;
#[cfg(feature = "json")]
mod json;
pub(crate) mod large;
mod made;
pub(crate) mod progress;
pub(crate) mod receipt;
mod request;
mod response;
mod sending;
pub(crate) mod taken;
mod upgrade;

pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};

#[cfg(feature = "files")]
pub use self::files::Files;
pub use self::{
    body::Body, failure::Failure, handler::Http, made::RequestBuilder, progress::Progress, request::Request,
    response::Response,
};
use crate::{
    error::Result,
    server::{Builder, Handle},
};

/// Starts the server with a function from a request to what becomes a response; [`Http`] is the handler that it
/// runs on. A closure that is written elsewhere than here says what it takes: `|request: &Request<'_>|`.
///
/// ```
/// use overfall::{Server, http};
///
/// let server = Server::builder().bind("127.0.0.1:0");
/// let handle = http::serve(server, |request| format!("You asked for {}\n", request.uri().path()))?;
/// # Ok::<(), overfall::Error>(())
/// ```
///
/// # Errors
///
/// Those of [`Builder::serve_handler`].
pub fn serve<F, R>(server: Builder, function: F) -> Result<Handle>
where
    F: Fn(&Request<'_>) -> R + Send + Sync + 'static,
    R: Into<Response>,
{
    server.serve_handler(Http::new(function))
}
