//! What lines are appended to: a file, or a pipe, whose reader nobody waits for without end. It does not know
//! what the lines say.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{event::PollFlags, io::Errno, pipe::PipeFlags};

use crate::sys::wait::wait_until;

/// A reader may be busy for so long; then it is taken for stuck, until it reads again.
const BUSY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(in crate::balance) struct LogFile {
    file: File,
    /// It has taken nothing for a while.
    is_stuck: bool,
    /// Its last line is not whole.
    is_torn: bool,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // To wait until somebody reads a pipe would keep a proxy from what else it is told (`fifo(7)`).
        let without_waiting = PipeFlags::NONBLOCK.bits().cast_signed();
        let opened = OpenOptions::new().create(true).append(true).custom_flags(without_waiting).open(path);
        let file = opened.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NXIO) => io::Error::other("it is no file, nor a pipe that somebody reads"),
            _ => error,
        })?;
        Ok(Self { file, is_stuck: false, is_torn: false })
    }

    /// Appends whole lines; how many of them were not taken.
    pub(super) fn append(&mut self, lines: &str) -> u64 {
        if self.is_torn && self.write(b"\n") == 1 {
            self.is_torn = false;
        }
        let taken = if self.is_torn { 0 } else { self.write(lines.as_bytes()) };
        let (taken, rest) = lines.as_bytes().split_at(taken);
        self.is_torn |= taken.last().is_some_and(|&last| last != b'\n');
        rest.iter().map(|&byte| u64::from(byte == b'\n')).sum()
    }

    /// How much was taken.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let (mut taken, until) = (0, Instant::now() + BUSY);
        while taken < bytes.len() {
            match self.file.write(&bytes[taken..]) {
                Ok(0) => break,
                Ok(count) => {
                    taken += count;
                    self.is_stuck = false;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_stuck |= Instant::now() >= until || !self.await_room(until);
                    if self.is_stuck {
                        break;
                    }
                }
                // What a full disk does not take is lost, and the next is tried.
                Err(_) => break,
            }
        }
        taken
    }

    fn await_room(&self, until: Instant) -> bool {
        // It fails only for lack of memory.
        !self.is_stuck && wait_until(&self.file, PollFlags::OUT, Some(until)).unwrap_or(false)
    }
}
