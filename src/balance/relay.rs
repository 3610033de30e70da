//! Moves bytes between two sockets, in both directions, as far as they go without waiting.

use std::io;

use rustix::net::{Shutdown, shutdown};

use crate::server::{Input, Wire};

/// One direction of a relay.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) bytes: u64,
    /// The end of the stream was passed on.
    pub(super) ended: bool,
}

/// Reads before others get their turn, 16 KiB each at most.
const READS: usize = 16;

impl Flow {
    /// Moves what is there. Nothing more is read while the other side has not taken what was, so
    /// that a slow reader fills one buffer and then its sender's window. Whether more may be there.
    pub(super) fn go_on(&mut self, from: &mut Wire, to: &mut Wire, piece: &mut Input) -> io::Result<bool> {
        for _ in 0..READS {
            if !to.flush()? {
                return Ok(false);
            }
            if from.ended {
                if !self.ended {
                    self.ended = true;
                    // It fails when the other side is gone, which its own events say.
                    let _ = shutdown(&to.socket, Shutdown::Write);
                }
                return Ok(false);
            }
            if from.drained {
                return Ok(false);
            }
            piece.clear();
            let count = from.fill(piece)?;
            self.bytes += count as u64;
            let sent = if count > 0 { to.send(piece.unread())? } else { 0 };
            to.keep(&piece.unread()[sent..]);
            piece.clear();
        }
        Ok(true)
    }
}
