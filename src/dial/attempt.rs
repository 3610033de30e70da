//! One attempt at one target: resolve, connect, send, receive, all under one deadline. It knows
//! neither the other targets nor whether there is another attempt.

use std::{io, net::SocketAddr, os::fd::OwnedFd, time::Instant};

use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
    net::{self, SendFlags},
};

use super::{
    cancel::Cancel,
    config::Config,
    outcome::{Class, Failure, Outcome},
    resolve::resolve,
};
use crate::sys::{connect, wait::poll_until};

/// How much of a reply is kept.
const REPLY_LIMIT: usize = 1024;

/// Tries once and writes down what came of it.
pub(super) fn attempt(outcome: &mut Outcome, config: &Config, cancel: &Cancel, deadline: Instant) {
    outcome.connect = None;
    outcome.first_byte = None;
    outcome.received = 0;
    outcome.reply.clear();
    outcome.failure = try_addresses(outcome, config, cancel, deadline).err();
}

/// Tries the addresses of a name in turn until one can be connected to. Each gets its share of
/// the time that is left.
fn try_addresses(
    outcome: &mut Outcome,
    config: &Config,
    cancel: &Cancel,
    deadline: Instant,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let resolved = resolve(&outcome.target, cancel, deadline);
    outcome.resolve = Some(begun.elapsed());
    let addrs = resolved?;
    let mut failure = Failure::new(Class::Resolve, "the name has no address");
    for (tried, &addr) in addrs.iter().enumerate() {
        let now = Instant::now();
        let left = u32::try_from(addrs.len() - tried).unwrap_or(u32::MAX);
        let share = now + deadline.saturating_duration_since(now) / left;
        outcome.address = Some(addr);
        match connect(addr, cancel, share) {
            Ok(socket) => {
                outcome.connect = Some(now.elapsed());
                let dial = Dial { socket: &socket, cancel, deadline };
                dial.send(&config.preface)?;
                return if config.connect_only { Ok(()) } else { dial.exchange(outcome, config) };
            }
            Err(error) => {
                let next = Failure::from(error);
                if next.class == Class::Cancelled {
                    return Err(next);
                }
                // What one address says of the server counts more than what this side lacks for another.
                if tried == 0 || next.class != Class::Local {
                    failure = next;
                }
            }
        }
    }
    Err(failure)
}

fn connect(addr: SocketAddr, cancel: &Cancel, deadline: Instant) -> Result<OwnedFd, Stop> {
    let socket = connect::begin(&addr)?;
    while !connect::is_made(&socket)? {
        Dial { socket: &socket, cancel, deadline }.wait(PollFlags::OUT, "connecting")?;
    }
    Ok(socket)
}

/// Why an attempt stops.
enum Stop {
    Errno(Errno),
    Timeout(&'static str),
    Cancelled,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Errno(errno) => Self::new(class(errno), io::Error::from(errno).to_string()),
            Stop::Timeout(step) => Self::new(Class::Timeout, format!("{step} took too long")),
            Stop::Cancelled => Self::cancelled(),
        }
    }
}

fn class(errno: Errno) -> Class {
    match errno {
        Errno::CONNREFUSED => Class::Refused,
        Errno::TIMEDOUT => Class::Timeout,
        Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED => Class::Reset,
        errno if connect::is_own_lack(errno) => Class::Local,
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::NETDOWN => Class::Unreachable,
        _ => Class::Other,
    }
}

/// A socket with what may end the waiting for it.
struct Dial<'a> {
    socket: &'a OwnedFd,
    cancel: &'a Cancel,
    deadline: Instant,
}

impl Dial<'_> {
    fn wait(&self, what: PollFlags, step: &'static str) -> Result<(), Stop> {
        let mut fds = [PollFd::new(self.socket, what), PollFd::new(self.cancel, PollFlags::IN)];
        match poll_until(&mut fds, Some(self.deadline))? {
            false => Err(Stop::Timeout(step)),
            true if fds[0].revents().is_empty() => Err(Stop::Cancelled),
            true => Ok(()),
        }
    }

    fn exchange(&self, outcome: &mut Outcome, config: &Config) -> Result<(), Failure> {
        let connected = Instant::now();
        self.send(&config.send)?;
        loop {
            let mut piece = [0; 4096];
            let length = self.receive(&mut piece)?;
            if length == 0 {
                return Err(ended_early(outcome, config));
            }
            outcome.first_byte.get_or_insert_with(|| connected.elapsed());
            outcome.received += length as u64;
            let kept = length.min(reply_limit(config) - outcome.reply.len());
            outcome.reply.extend_from_slice(&piece[..kept]);
            if let Some(verdict) = judge(&outcome.reply, config.expect.as_deref()) {
                outcome.reply.truncate(REPLY_LIMIT);
                return verdict;
            }
        }
    }

    fn send(&self, mut bytes: &[u8]) -> Result<(), Stop> {
        while !bytes.is_empty() {
            match net::send(self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, "sending")?,
                Err(Errno::INTR) => {}
                // The server may have replied before it ended; the reply is still to be read.
                Err(Errno::PIPE | Errno::CONNRESET) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn receive(&self, piece: &mut [u8]) -> Result<usize, Stop> {
        loop {
            match rustix::io::read(self.socket, &mut *piece) {
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, "the reply")?,
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }
}

/// As much of the reply as it takes to judge it.
fn reply_limit(config: &Config) -> usize {
    config.expect.as_ref().map_or(0, Vec::len).max(REPLY_LIMIT)
}

/// Whether the reply is what it should be; none while that is open.
fn judge(reply: &[u8], expect: Option<&[u8]>) -> Option<Result<(), Failure>> {
    let expect = expect.unwrap_or_default();
    if reply.starts_with(expect) {
        Some(Ok(()))
    } else if expect.starts_with(reply) {
        None
    } else {
        Some(Err(unexpected(reply)))
    }
}

fn unexpected(reply: &[u8]) -> Failure {
    let reply = String::from_utf8_lossy(&reply[..reply.len().min(60)]).escape_debug().to_string();
    Failure::new(Class::Unexpected, format!("the reply begins with \"{reply}\""))
}

fn ended_early(outcome: &Outcome, config: &Config) -> Failure {
    match &config.expect {
        Some(_) if !outcome.reply.is_empty() => unexpected(&outcome.reply),
        _ => Failure::new(Class::Closed, "the server ended the connection without a reply"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_judged_by_their_beginning_as_soon_as_possible() {
        let judged = |reply: &str, expect: Option<&str>| {
            judge(reply.as_bytes(), expect.map(str::as_bytes)).map(|verdict| verdict.is_ok())
        };
        assert_eq!(judged("x", None), Some(true));
        assert_eq!(judged("220 hi", Some("220 ")), Some(true));
        assert_eq!(judged("22", Some("220 ")), None);
        assert_eq!(judged("5", Some("220 ")), Some(false));
        assert_eq!(judged("", Some("")), Some(true));
    }
}
