//! What passes between a client and a program, in both directions at once. It knows neither's words.

use std::{io, time::Instant};

use rustix::event::{PollFd, PollFlags};

use super::running::Running;
use crate::session::connection::Connection;

/// What is taken of a program's output at a time.
const PIECE: usize = 16 * 1024;

/// Passes everything on until the program has ended its output.
///
/// # Errors
///
/// Nothing has passed for `io_timeout`, or the client is gone.
pub(super) fn pump(connection: &mut Connection<'_>, running: &mut Running) -> io::Result<()> {
    let io_timeout = connection.context().timeouts.io.get();
    let mut piece = vec![0; PIECE];
    let mut until = Instant::now() + io_timeout;
    loop {
        let given = give(connection, running)?;
        let taken = take(connection, running, &mut piece)?;
        if taken == Some(0) {
            return Ok(());
        }
        if given || taken.is_some() {
            until = Instant::now() + io_timeout;
            continue;
        }
        await_either(connection, running, until)?;
        if connection.context().stage.is_cut() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
}

/// Gives the program what has come; whether that was anything.
fn give(connection: &mut Connection<'_>, running: &mut Running) -> io::Result<bool> {
    if connection.input().is_empty() && !connection.ended() {
        connection.fill()?;
    }
    let given = running.give(connection.input())?;
    connection.consume(given);
    if connection.input().is_empty() && connection.ended() {
        running.hang_up();
    }
    Ok(given > 0)
}

/// Sends what the program has written, once the client has taken what went before. None where nothing is there.
fn take(
    connection: &mut Connection<'_>,
    running: &mut Running,
    piece: &mut [u8],
) -> io::Result<Option<usize>> {
    if !connection.try_flush()? {
        return Ok(None);
    }
    let taken = running.take(piece)?;
    if let Some(length @ 1..) = taken {
        io::Write::write_all(connection, &piece[..length])?;
    }
    Ok(taken)
}

/// Waits until something may pass.
fn await_either(connection: &mut Connection<'_>, running: &Running, until: Instant) -> io::Result<()> {
    let is_flushed = connection.is_flushed();
    let mut client = PollFlags::empty();
    if !is_flushed {
        client |= PollFlags::OUT;
    }
    let mut fds = Vec::with_capacity(3);
    if is_flushed {
        fds.push(PollFd::from_borrowed_fd(running.stdout(), PollFlags::IN));
    }
    match running.stdin() {
        // What has come has to be taken first.
        Some(stdin) if !connection.input().is_empty() => {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::OUT));
        }
        _ if !connection.ended() => client |= PollFlags::IN,
        _ => {}
    }
    connection.wait_among(client, fds, until)
}
