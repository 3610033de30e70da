//! One connection with the request that is under way on it. It knows neither its deadline nor the others.

use std::{os::fd::OwnedFd, time::Instant};

use rustix::{
    io::Errno,
    net::{self, SendFlags},
};

use super::tally::End;
use crate::bench::exchange::{Exchange, Verdict};

/// A connection under way.
pub(super) struct Dialed {
    pub(super) socket: OwnedFd,
    pub(super) intended: Instant,
    pub(super) started: Instant,
    unsent: bool,
    /// What came of a reply that is not whole.
    received: Vec<u8>,
}

impl Dialed {
    pub(super) fn new(socket: OwnedFd, intended: Instant, started: Instant) -> Self {
        Self { socket, intended, started, unsent: true, received: Vec::new() }
    }

    /// Goes on as far as the socket is ready; how the request ended, if it has.
    pub(super) fn go_on(&mut self, exchange: &Exchange) -> Option<End> {
        if self.unsent {
            match net::send(&self.socket, exchange.request, SendFlags::NOSIGNAL) {
                Ok(_) => self.unsent = false,
                Err(Errno::AGAIN) => return None,
                Err(Errno::CONNREFUSED) => return Some(End::Refused),
                Err(_) => return Some(End::Reset),
            }
        }
        self.receive(exchange)
    }

    /// Reads what is there; how the request ended, if it has.
    fn receive(&mut self, exchange: &Exchange) -> Option<End> {
        let mut piece = [0; 4096];
        loop {
            match rustix::io::read(&self.socket, &mut piece) {
                Ok(0) if self.received.is_empty() => return Some(End::Refused),
                Ok(0) => return Some(End::Wrong),
                Ok(count) => match self.judge(&piece[..count], exchange) {
                    Verdict::More => {}
                    Verdict::Good => return Some(End::Good),
                    Verdict::Refused => return Some(End::Refused),
                    Verdict::Wrong => return Some(End::Wrong),
                },
                Err(Errno::AGAIN) => return None,
                Err(Errno::INTR) => {}
                Err(Errno::CONNREFUSED) => return Some(End::Refused),
                Err(_) => return Some(End::Reset),
            }
        }
    }

    /// Most replies come in one piece, which is then not kept.
    fn judge(&mut self, piece: &[u8], exchange: &Exchange) -> Verdict {
        if self.received.is_empty() {
            let verdict = exchange.judge(piece);
            if verdict == Verdict::More {
                self.received.extend_from_slice(piece);
            }
            return verdict;
        }
        self.received.extend_from_slice(piece);
        exchange.judge(&self.received)
    }

    /// Sends the next request on the same connection; whether that was possible.
    pub(super) fn ask_again(&mut self, request: &[u8], now: Instant) -> bool {
        self.intended = now;
        self.started = now;
        self.received.clear();
        net::send(&self.socket, request, SendFlags::NOSIGNAL).is_ok()
    }
}
