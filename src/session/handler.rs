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
///
/// A handler with state, which adds up the numbers that a client sends, a line for each:
///
/// ```
/// use std::io::{self, Read, Write};
/// use overfall::{Connection, Handler, Next, Server};
///
/// struct Sums;
///
/// impl Handler for Sums {
///     type State = i64;
///
///     fn open(&self, _: &mut Connection<'_>) -> io::Result<i64> {
///         Ok(0)
///     }
///
///     fn ready(&self, connection: &mut Connection<'_>, sum: &mut i64) -> io::Result<Next> {
///         let Some(end) = connection.input().iter().position(|&byte| byte == b'\n') else {
///             return Ok(Next::Park); // The rest of the line is still to come.
///         };
///         let line = String::from_utf8_lossy(&connection.input()[..end]).into_owned();
///         connection.consume(end + 1);
///         match line.trim().parse::<i64>().ok().and_then(|number| sum.checked_add(number)) {
///             Some(more) => *sum = more,
///             None => return Ok(Next::Close),
///         }
///         writeln!(connection, "{sum}")?;
///         Ok(Next::Again) // There may be another line.
///     }
/// }
///
/// // A test needs a port, which is no test's but its own.
/// let handle = Server::builder().bind("127.0.0.1:0").serve_handler(Sums)?;
/// let mut client = std::net::TcpStream::connect(handle.local_addr())?;
/// client.write_all(b"2\n3\nend\n")?;
/// assert_eq!(io::read_to_string(client)?, "2\n5\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
