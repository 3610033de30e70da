//! The rest of a response, sent as its client takes it. It knows neither the head that went before nor
//! what comes after.

use std::io::{self, Read, Write};

use bytes::Bytes;

use crate::session::connection::Connection;

/// What is sent of a body at a time, when the client has taken what went before.
const PIECE: usize = 64 * 1024;
/// Pieces before others get their turn.
const PIECES: usize = 4;

/// The rest of a response whose head has been sent.
pub(super) enum Sending {
    Bytes(Bytes),
    Stream { reader: Box<dyn Read + Send>, chunked: bool },
}

impl Sending {
    /// Sends what the client takes now, within a bound. Whether that was all.
    pub(super) fn go_on(&mut self, connection: &mut Connection<'_>) -> io::Result<bool> {
        for _ in 0..PIECES {
            if !connection.is_flushed() {
                return Ok(false);
            }
            let ended = match self {
                Self::Bytes(bytes) => {
                    connection.write_all(&bytes.split_to(bytes.len().min(PIECE)))?;
                    bytes.is_empty()
                }
                Self::Stream { reader, chunked: true } => send_chunk(connection, reader)?,
                Self::Stream { reader, chunked: false } => {
                    // Its end is that of the connection, so one that breaks off must be a reset.
                    connection.reset_on_close(true);
                    let ended = send_piece(connection, reader)?;
                    connection.reset_on_close(false);
                    ended
                }
            };
            if ended {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What is read of a stream at a time.
const READ: usize = 16 * 1024;

/// Sends what one `read` gives as a chunk; whether that was the end.
fn send_chunk(connection: &mut Connection<'_>, reader: &mut impl Read) -> io::Result<bool> {
    /// Room for four digits and CRLF before the data.
    const SIZE: usize = 6;
    const END: &[u8] = b"\r\n";
    let mut chunk = vec![0; SIZE + READ + END.len()];
    let end = SIZE + read_once(reader, &mut chunk[SIZE..SIZE + READ])?;
    if end == SIZE {
        connection.write_all(b"0\r\n\r\n")?;
        return Ok(true);
    }
    write!(&mut chunk[..SIZE], "{:04x}\r\n", end - SIZE)?;
    chunk[end..end + END.len()].copy_from_slice(END);
    connection.write_all(&chunk[..end + END.len()])?;
    Ok(false)
}

/// Sends what one `read` gives as it is; whether that was the end.
fn send_piece(connection: &mut Connection<'_>, reader: &mut impl Read) -> io::Result<bool> {
    let mut piece = vec![0; READ];
    let length = read_once(reader, &mut piece)?;
    connection.write_all(&piece[..length])?;
    Ok(length == 0)
}

fn read_once(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            length => return length,
        }
    }
}
