//! The body of a request as the function sees it: something to read. It does not know how it comes.

use std::{
    cell::{RefCell, RefMut},
    fmt,
    io::{self, Read},
};

use super::incoming::Incoming;

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
pub struct Body<'a>(RefCell<Incoming<'a>>);

impl<'a> Body<'a> {
    pub(super) fn new(incoming: Incoming<'a>) -> Self {
        Self(RefCell::new(incoming))
    }

    pub(super) fn incoming(&self) -> RefMut<'_, Incoming<'a>> {
        self.0.borrow_mut()
    }
}

impl Read for &Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.incoming().read(buffer)
    }
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}
