//! One encrypted connection: what comes is opened, what goes is sealed. It waits for nothing.

use std::{
    io::{self, BufRead, IoSlice, Read, Write},
    os::fd::OwnedFd,
    sync::Arc,
};

use rustix::{
    io::Errno,
    net::{self, SendAncillaryBuffer, SendFlags},
};
use rustls::{ServerConfig, ServerConnection};

use crate::net::input::Input;

#[derive(Debug)]
pub(crate) struct Stream {
    connection: ServerConnection,
    /// Bytes that were opened and not taken yet.
    plaintext: usize,
    /// The other side has said that it sends no more.
    ended: bool,
}

impl Stream {
    pub(super) fn new(config: Arc<ServerConfig>) -> rustix::io::Result<Self> {
        let connection = ServerConnection::new(config).map_err(|error| {
            tracing::debug!(%error, "a TLS handshake cannot be begun");
            Errno::PROTO
        })?;
        Ok(Self { connection, plaintext: 0, ended: false })
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether something was opened that is left to be taken, or the word that nothing follows.
    pub(crate) fn has_more(&self) -> bool {
        self.plaintext > 0 || self.ended
    }

    /// Whether the other side has said that it sends no more, and all of what it sent was taken. (One that
    /// ends without a word has ended its socket.)
    pub(crate) fn has_ended(&self) -> bool {
        self.ended && self.plaintext == 0
    }

    /// Whether the socket has taken all that was sealed.
    pub(crate) fn is_flushed(&self) -> bool {
        !self.connection.wants_write()
    }

    /// Takes what was received and opened, as much as there is room for; how much.
    pub(crate) fn take(&mut self, input: &mut Input) -> usize {
        let mut taken = 0;
        while self.plaintext > 0
            && let Ok(bytes) = self.connection.reader().fill_buf()
        {
            let amount = input.append(bytes);
            if amount == 0 {
                break;
            }
            self.connection.reader().consume(amount);
            self.plaintext -= amount;
            taken += amount;
        }
        taken
    }

    /// Reads from the socket once and opens what has come. Gives how many bytes came, nothing at the
    /// socket's end, and for how many there was room.
    pub(crate) fn receive(&mut self, socket: &OwnedFd) -> rustix::io::Result<(usize, usize)> {
        let mut source = Source { socket, room: 0 };
        let count = self.connection.read_tls(&mut source).map_err(errno)?;
        let room = source.room;
        match self.connection.process_new_packets() {
            Ok(state) => {
                (self.plaintext, self.ended) = (state.plaintext_bytes_to_read(), state.peer_has_closed());
            }
            Err(error) => {
                tracing::debug!(%error, "a TLS connection failed");
                // The other side is told why, if it takes that.
                let _ = self.flush(socket);
                return Err(Errno::PROTO);
            }
        }
        // What the protocol has to say for itself, such as a ticket or a new key.
        self.flush(socket)?;
        Ok((count, room))
    }

    /// Sends what was sealed; whether that was all.
    pub(crate) fn flush(&mut self, socket: &OwnedFd) -> rustix::io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Sink(socket)).map_err(errno) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }

    /// Seals as much as there is room for; how much. It is to be flushed.
    pub(crate) fn seal(&mut self, bytes: &[u8]) -> usize {
        // It never fails, but takes nothing when it is full.
        self.connection.writer().write(bytes).unwrap_or(0)
    }

    /// Says that no more is sent. It is to be flushed.
    pub(crate) fn end(&mut self) {
        self.connection.send_close_notify();
    }
}

/// Where sealed bytes come from.
struct Source<'a> {
    socket: &'a OwnedFd,
    room: usize,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.room = buffer.len();
        loop {
            match rustix::io::read(self.socket, &mut *buffer) {
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }
}

/// Where they go.
struct Sink<'a>(&'a OwnedFd);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(net::send(self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        if let [piece] = pieces {
            return self.write(piece);
        }
        let nothing = &mut SendAncillaryBuffer::default();
        Ok(net::sendmsg(self.0, pieces, nothing, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the system has said; else the other side has sent more than can be held.
fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::PROTO)
}
