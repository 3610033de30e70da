//! The rest of a response, sent as its client takes it. It knows neither the head that went before nor
//! what comes after.

#[cfg(feature = "files")]
use std::{
    fs::File,
    io::{Seek, SeekFrom},
    os::unix::fs::FileExt,
};
use std::{
    io::{self, Read, Write},
    time::Instant,
};

use bytes::Bytes;

use crate::session::connection::Connection;

/// What is sent of a body at a time, when the client has taken what went before.
const PIECE: usize = 64 * 1024;
/// Pieces before others get their turn.
const PIECES: usize = 4;
/// What is sent of a file at a time, as nginx does (`sendfile_max_chunk`): it takes no memory.
#[cfg(feature = "files")]
const FILE_PIECE: usize = 2 * 1024 * 1024;

/// The rest of a response whose head has been sent.
pub(crate) enum Sending {
    Bytes(Bytes),
    Stream {
        reader: Box<dyn Read + Send>,
        end: End,
        /// The worker waits for the client rather than leave what is read from.
        held: bool,
    },
    /// So much of a file, from there on.
    #[cfg(feature = "files")]
    File {
        file: File,
        offset: u64,
        left: u64,
    },
}

/// How the client knows the end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// That of the connection.
    Close,
    Chunked,
    /// So many bytes are left.
    Length(u64),
}

impl Sending {
    pub(super) fn stream(reader: Box<dyn Read + Send>) -> Self {
        Self::Stream { reader, end: End::Close, held: false }
    }

    /// A worker stays with it until it has ended.
    pub(crate) fn held(self) -> Self {
        match self {
            Self::Stream { reader, end, .. } => Self::Stream { reader, end, held: true },
            sending => sending,
        }
    }

    pub(super) fn chunked(self) -> Self {
        self.ending(End::Chunked)
    }

    pub(super) fn of_length(self, length: Option<u64>) -> Self {
        self.ending(length.map_or(End::Close, End::Length))
    }

    /// All of it, to be read.
    pub(super) fn into_reader(self) -> Box<dyn Read + Send> {
        match self {
            Self::Bytes(bytes) => Box::new(io::Cursor::new(bytes)),
            Self::Stream { reader, .. } => reader,
            #[cfg(feature = "files")]
            Self::File { mut file, offset, left } => match file.seek(SeekFrom::Start(offset)) {
                Ok(_) => Box::new(file.take(left)),
                Err(_) => Box::new(io::empty()),
            },
        }
    }

    fn ending(self, end: End) -> Self {
        match self {
            Self::Stream { reader, held, .. } => Self::Stream { reader, end, held },
            sending => sending,
        }
    }

    /// Sends what the client takes now, within a bound. Whether that was all.
    pub(super) fn go_on(&mut self, connection: &mut Connection<'_>) -> io::Result<bool> {
        for _ in 0..PIECES {
            let ended = match self {
                Self::Stream { reader, end, held: true } => {
                    while !send_from(connection, reader, end)? {
                        // It is silence that ends it, not its length.
                        let timeout = connection.context().timeouts.io.get();
                        connection.set_deadline(Instant::now() + timeout);
                    }
                    true
                }
                #[cfg(feature = "files")]
                Self::File { file, offset, left } => match send_file(connection, file, offset, left)? {
                    Some(ended) => ended,
                    None => return Ok(false),
                },
                _ if !connection.is_flushed() => return Ok(false),
                Self::Bytes(bytes) => {
                    connection.write_all(&bytes.split_to(bytes.len().min(PIECE)))?;
                    bytes.is_empty()
                }
                Self::Stream { reader, end, .. } => send_from(connection, reader, end)?,
            };
            if ended {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Sends what one `read` gives; whether that was the end.
fn send_from(connection: &mut Connection<'_>, reader: &mut impl Read, end: &mut End) -> io::Result<bool> {
    match end {
        End::Chunked => send_chunk(connection, reader),
        End::Close => {
            // Its end is that of the connection, so one that breaks off must be a reset.
            connection.reset_on_close(true);
            let ended = send_piece(connection, reader)? == 0;
            connection.reset_on_close(false);
            Ok(ended)
        }
        End::Length(left) => {
            if *left == 0 {
                return Ok(true);
            }
            match send_piece(connection, reader)? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                sent => {
                    *left = left.saturating_sub(sent as u64);
                    Ok(*left == 0)
                }
            }
        }
    }
}

/// Sends what the client takes of a file, within a bound; whether that was the end. None where it takes no more.
#[cfg(feature = "files")]
fn send_file(
    connection: &mut Connection<'_>,
    file: &File,
    offset: &mut u64,
    left: &mut u64,
) -> io::Result<Option<bool>> {
    let sent = if connection.is_encrypted() {
        if !connection.is_flushed() {
            return Ok(None);
        }
        let mut piece = vec![0; PIECE.min(usize::try_from(*left).unwrap_or(PIECE))];
        let length = file.read_at(&mut piece, *offset)?;
        connection.write_all(&piece[..length])?;
        *offset += length as u64;
        length
    } else {
        let most = FILE_PIECE.min(usize::try_from(*left).unwrap_or(FILE_PIECE));
        match connection.send_file(file, offset, most)? {
            Some(sent) => sent,
            None => return Ok(None),
        }
    };
    if sent == 0 && *left > 0 {
        // It has become shorter.
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    *left -= sent as u64;
    Ok(Some(*left == 0))
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

/// Sends what one `read` gives as it is; how much that was.
fn send_piece(connection: &mut Connection<'_>, reader: &mut impl Read) -> io::Result<usize> {
    let mut piece = vec![0; READ];
    let length = read_once(reader, &mut piece)?;
    connection.write_all(&piece[..length])?;
    Ok(length)
}

fn read_once(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            length => return length,
        }
    }
}
