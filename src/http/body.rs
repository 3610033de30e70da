//! The body of a request as the function sees it: something to read. It does not know how it comes.

use std::{
    cell::RefCell,
    fmt,
    io::{self, Cursor, Read},
};

use bytes::Bytes;
use http::StatusCode;

use super::{incoming::Incoming, made::Made};
use crate::session::connection::Connection;

/// The body of a request, read as it comes: `&Body` is a [`Read`].
///
/// A body that fits into the input buffer (16 KiB, together with its head) has come already when
/// the handler is called, and of a larger one as much as fits. For its rest the worker waits, while no
/// more than half of them do; the others' connections wait parked, and with one worker such a body is
/// gathered in memory first, out of 64 MiB for all. Its client must keep up 16 KiB per second on
/// average, never pause for `io_timeout`, and be done within
/// [`Http::body_timeout`](super::Http::body_timeout). One that is not gets 408, one that breaks off or
/// is malformed 400, one that grows too large 413. Reading gives an error then, the client's answer is
/// decided whatever the handler answers, and the connection is closed.
///
/// ```
/// use std::io;
/// use overfall::http::{Request, Response};
///
/// /// Counts the bytes of an upload of any length, which are never all in memory.
/// fn count(request: &Request<'_>) -> io::Result<Response> {
///     let length = io::copy(&mut request.body(), &mut io::sink())?;
///     Ok(Response::text(format!("{length} bytes\n")))
/// }
///
/// let response = count(&Request::builder().method("POST").body("four")).unwrap();
/// assert_eq!(response.body(), Some(&b"4 bytes\n"[..]));
/// ```
pub struct Body<'a>(RefCell<Source<'a>>);

enum Source<'a> {
    Client(Incoming<'a>),
    /// It was made without a client.
    Made(Cursor<Bytes>, Made),
}

impl<'a> Body<'a> {
    pub(super) fn new(incoming: Incoming<'a>) -> Self {
        Self(RefCell::new(Source::Client(incoming)))
    }

    pub(super) fn made(bytes: Bytes, made: Made) -> Self {
        Self(RefCell::new(Source::Made(Cursor::new(bytes), made)))
    }

    /// Asks the connection that it comes over, or what stands for that.
    pub(super) fn ask<T>(
        &self,
        connection: impl FnOnce(&Connection<'_>) -> T,
        made: impl FnOnce(&Made) -> T,
    ) -> T {
        match &*self.0.borrow() {
            Source::Client(incoming) => connection(incoming.connection()),
            Source::Made(_, stand_in) => made(stand_in),
        }
    }

    /// Passes over what was not read. Whether the next request is what follows, and what the client is to be
    /// told whatever the answer.
    pub(super) fn finish(self) -> (bool, Option<StatusCode>) {
        match self.0.into_inner() {
            Source::Client(mut incoming) => (incoming.finish(), incoming.failure()),
            Source::Made(..) => (true, None),
        }
    }
}

impl Read for &Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut *self.0.borrow_mut() {
            Source::Client(incoming) => incoming.read(buffer),
            Source::Made(bytes, _) => bytes.read(buffer),
        }
    }
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}
