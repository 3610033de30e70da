//! What passes between a client and a program, in both directions at once. It knows neither's words.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags};

use super::running::{Running, silent};
use crate::session::connection::Connection;

/// What is taken of a program's output at a time.
const PIECE: usize = 16 * 1024;
/// How often it is looked whether the server's drain is over.
const LOOK: Duration = Duration::from_millis(250);

/// Passes everything on until the program has ended.
///
/// # Errors
///
/// Nothing has passed for `io_timeout`, the client is gone, or the program was killed.
pub(super) fn pump(connection: &mut Connection<'_>, running: &mut Running) -> io::Result<()> {
    let io_timeout = connection.context().timeouts.io.get();
    let mut piece = vec![0; PIECE];
    let mut until = Instant::now() + io_timeout;
    loop {
        let given = give(connection, running)?;
        if given | take(connection, running, &mut piece)? {
            until = Instant::now() + io_timeout;
            continue;
        }
        if running.stdout().is_none() && running.has_ended()? {
            return Ok(());
        }
        await_either(connection, running, until.min(Instant::now() + LOOK))?;
        if connection.context().stage.is_cut() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if Instant::now() >= until {
            connection.note_timed_out();
            return Err(silent());
        }
    }
}

/// Gives the program what has come; whether it took any of that. What nobody takes any more is passed over.
fn give(connection: &mut Connection<'_>, running: &mut Running) -> io::Result<bool> {
    if connection.input().is_empty() && !connection.ended() {
        connection.fill()?;
    }
    let given = running.give(connection.input())?;
    let passed = if running.stdin().is_some() { given } else { connection.input().len() };
    connection.consume(passed);
    if connection.input().is_empty() && connection.ended() {
        running.hang_up();
    }
    Ok(given > 0)
}

/// Sends what the program has written, once the client has taken what went before; whether that was anything.
fn take(connection: &mut Connection<'_>, running: &mut Running, piece: &mut [u8]) -> io::Result<bool> {
    if !connection.try_flush()? {
        return Ok(false);
    }
    let Some(length) = running.take(piece)? else { return Ok(false) };
    connection.write_all(&piece[..length])?;
    Ok(true)
}

/// Waits until something may pass.
fn await_either(connection: &Connection<'_>, running: &Running, until: Instant) -> io::Result<()> {
    let mut client = PollFlags::empty();
    let mut fds = Vec::with_capacity(3);
    match running.stdout() {
        None => fds.push(PollFd::from_borrowed_fd(running.end(), PollFlags::IN)),
        Some(stdout) if connection.is_flushed() => fds.push(PollFd::from_borrowed_fd(stdout, PollFlags::IN)),
        Some(_) => client |= PollFlags::OUT,
    }
    match running.stdin() {
        // What has come has to be taken first.
        Some(stdin) if !connection.input().is_empty() => {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::OUT));
        }
        _ if !connection.ended() => client |= PollFlags::IN,
        _ => {}
    }
    connection.wait_among(client, fds, until).map(drop)
}
