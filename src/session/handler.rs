//! What a service is: the handler, and what it answers. It knows connections as a handler sees them.

use std::{borrow::Cow, io};

use super::connection::Connection;

/// What a service does with its connections, written in plain blocking style.
///
/// A worker calls it when a connection has input; between calls the connection is parked and
/// costs no thread. A closure `Fn(&mut Connection) -> io::Result<Next>` is a handler whose
/// [`ready`](Handler::ready) it is.
///
/// A handler that has only part of a request leaves it in [`Connection::input`] and answers
/// [`Next::Park`], so that no slow client pins a worker. An error closes the connection and is
/// counted, and so does a panic.
pub trait Handler: Send + Sync + 'static {
    /// What is kept for each connection between calls; `()` where nothing is. It is dropped when
    /// the connection ends, on a worker or on the acceptor's thread.
    type State: Send + 'static;

    /// Whether [`open`](Handler::open) neither reads nor writes. A new connection is then parked
    /// at once while a worker is idle, and `open` is called when the first input has come, which
    /// saves a twentieth of the CPU of a short connection.
    const CLIENT_SPEAKS_FIRST: bool = false;

    /// What clients may ask for when they set up an encrypted connection (ALPN, RFC 7301), such as
    /// `http/1.1`; whoever asks for other protocols alone is refused then. Empty means that it does not
    /// matter what they ask for.
    const PROTOCOLS: &'static [&'static [u8]] = &[];

    /// Called once when a worker takes the new connection, before any input was read. It may
    /// write first, for protocols in which the server speaks first.
    fn open(&self, connection: &mut Connection<'_>) -> io::Result<Self::State>;

    /// Called when there is input, or when the client has ended its side
    /// ([`Connection::ended`]), or again after [`Next::Again`].
    fn ready(&self, connection: &mut Connection<'_>, state: &mut Self::State) -> io::Result<Next>;

    /// Called when the deadline of a parked connection has passed, whose client neither sent nor
    /// took anything in time. The default closes. [`Next::Park`] gives it the time once more.
    fn expired(&self, connection: &mut Connection<'_>, state: &mut Self::State) -> io::Result<Next> {
        let _ = (connection, state);
        Ok(Next::Close)
    }

    /// What a refused client is sent before the connection is closed; empty means a reset. It is
    /// called on the acceptor's thread or a worker and should only hand out a text.
    fn refusal(&self, why: Refusal) -> Cow<'static, [u8]> {
        let _ = why;
        Cow::Borrowed(&[])
    }
}

impl<F> Handler for F
where
    F: Fn(&mut Connection<'_>) -> io::Result<Next> + Send + Sync + 'static,
{
    type State = ();

    const CLIENT_SPEAKS_FIRST: bool = true;

    fn open(&self, _: &mut Connection<'_>) -> io::Result<()> {
        Ok(())
    }

    fn ready(&self, connection: &mut Connection<'_>, (): &mut ()) -> io::Result<Next> {
        self(connection)
    }
}

/// What becomes of a connection after a call of its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Keep it open; call again when there is more input.
    Park,
    /// Call again although no more may come: a further request lies in [`Connection::input`]
    /// already, or there is more to write. It is called when all that was written has been taken;
    /// where others wait, it goes to the end of the line.
    Again,
    /// Send what was written, then close.
    Close,
}

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The queue was full.
    QueueFull,
    /// `max_connections` were open, and none of them idle.
    ConnectionsFull,
    /// It had waited too long for a worker.
    Shed,
}
