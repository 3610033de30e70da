//! The load: many connections on one thread, in a closed or an open loop. It knows an address, not the
//! server behind it.

mod dialed;
mod load;
mod tally;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{
        PollFd, PollFlags, Timespec,
        epoll::{self, EventData, EventFlags},
        poll,
    },
    io::Errno,
    net::{self, AddressFamily, SocketFlags, SocketType, sockopt},
    time::{ClockId, clock_gettime},
};

use self::{dialed::Dialed, tally::End};
pub(crate) use self::{
    load::{GiveUp, Load, Loop},
    tally::Tally,
};
use super::pacer::{Due, Pacer};

/// A place for a connection. Its generation tells events and deadlines of its predecessors.
#[derive(Default)]
struct Slot {
    generation: u32,
    dialed: Option<Dialed>,
}

struct Client<'a> {
    load: &'a Load,
    epoll: OwnedFd,
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    /// When to look whether a connection's request is to be given up, earliest first; one entry for
    /// each connection.
    deadlines: VecDeque<(Instant, u32, u32)>,
    /// Clients of a closed loop that have no request under way.
    resting: usize,
    closed: bool,
    measured_from: Instant,
    measured_to: Instant,
    tally: Tally,
}

/// The moments at which the server is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Begin,
    End,
}

/// Events taken at a time.
const EVENTS: usize = 256;
/// The longest wait for an event, so that marks and deadlines are not missed.
const TICK: Duration = Duration::from_millis(10);

/// Runs the load and gives what came of it. `mark` is called when the measuring begins and ends.
pub(crate) fn run(mut load: Load, stop: &dyn Fn() -> bool, mark: &mut dyn FnMut(Mark)) -> io::Result<Tally> {
    let pace = std::mem::replace(&mut load.pace, Loop::Closed(0));
    let begun = Instant::now();
    let (closed, resting) = match pace {
        Loop::Closed(clients) => (true, clients),
        Loop::Open(_) => (false, 0),
    };
    let client = Client {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        slots: Vec::new(),
        vacant: Vec::new(),
        deadlines: VecDeque::new(),
        resting,
        closed,
        measured_from: begun + load.warm_up,
        measured_to: begun + load.warm_up + load.duration,
        tally: Tally::new(),
        load: &load,
    };
    Ok(client.run(pace, begun, stop, mark))
}

impl Client<'_> {
    fn run(
        mut self,
        mut pace: Loop,
        begun: Instant,
        stop: &dyn Fn() -> bool,
        mark: &mut dyn FnMut(Mark),
    ) -> Tally {
        let mut measuring = None;
        loop {
            let now = Instant::now();
            if measuring.is_none() && now >= self.measured_from {
                mark(Mark::Begin);
                measuring = Some(thread_cpu());
            }
            if now >= self.measured_to || stop() {
                break;
            }
            let mut next = now + TICK;
            if let Loop::Open(pacer) = &mut pace {
                next = self.start_due(pacer, begun, next);
            }
            for _ in 0..std::mem::take(&mut self.resting) {
                self.start(Instant::now());
            }
            self.turn(next);
        }
        if let Some(cpu) = measuring {
            self.tally.elapsed = Instant::now().min(self.measured_to) - self.measured_from;
            self.tally.cpu = thread_cpu() - cpu;
        }
        if let Loop::Open(pacer) = &mut pace {
            // What was still due in the time that is measured, so that a stall at its end shows.
            self.start_due(pacer, begun, self.measured_to);
        }
        mark(Mark::End);
        self.finish(stop);
        self.tally
    }

    /// Starts what is due; gives when the next is, or `tick` where that is earlier.
    fn start_due(&mut self, pacer: &mut Pacer, begun: Instant, tick: Instant) -> Instant {
        loop {
            match pacer.due(begun.elapsed()) {
                Due::At(at) => return tick.min(begun + at),
                Due::Start(at) => self.start(begun + at),
                Due::Drop(at) if self.is_measured(begun + at) => {
                    self.tally.intended += 1;
                    self.tally.dropped += 1;
                }
                Due::Drop(_) => {}
            }
        }
    }

    /// Waits for those that are still under way, so that each has its end.
    fn finish(&mut self, stop: &dyn Fn() -> bool) {
        let last = Instant::now() + self.load.deadline;
        while self.slots.iter().any(|slot| slot.dialed.is_some()) && Instant::now() < last && !stop() {
            self.turn(Instant::now() + TICK);
        }
        (0..self.slots.len()).for_each(|index| self.end(index as u32, End::TimedOut));
    }

    fn is_measured(&self, intended: Instant) -> bool {
        intended >= self.measured_from && intended < self.measured_to
    }

    /// Waits for events until this time, and heeds them and the deadlines.
    fn turn(&mut self, until: Instant) {
        self.expire(Instant::now());
        let timeout = until.saturating_duration_since(Instant::now()).min(TICK);
        let mut timeout = Timespec { tv_sec: 0, tv_nsec: timeout.subsec_nanos().into() };
        if !self.closed {
            // Arrivals are due at microseconds, which ppoll(2) keeps to and epoll_wait(2) does not.
            // It fails only with EINTR, and then the caller comes back.
            let _ = poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&timeout));
            timeout.tv_nsec = 0;
        }
        let mut space = [MaybeUninit::uninit(); EVENTS];
        // It fails only with EINTR, and then the caller comes back.
        let Ok((events, _)) = epoll::wait(&self.epoll, &mut space, Some(&timeout)) else { return };
        for event in events {
            let data = event.data;
            // Both halves are cut to their 32 bits on purpose.
            let (index, generation) = (data.u64() as u32, (data.u64() >> 32) as u32);
            if self.slots[index as usize].generation == generation {
                self.heed(index);
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        while self.deadlines.front().is_some_and(|&(at, ..)| at <= now) {
            let Some((_, index, generation)) = self.deadlines.pop_front() else { return };
            let slot = &self.slots[index as usize];
            let Some(dialed) = slot.dialed.as_ref().filter(|_| slot.generation == generation) else {
                continue;
            };
            let at = dialed.intended + self.load.deadline;
            if at > now {
                // A later request on the same connection; behind the others, so that they stay in order.
                self.deadlines.push_back((now + self.load.deadline, index, generation));
            } else {
                self.end(index, End::TimedOut);
            }
        }
    }

    /// Starts a request on a new connection.
    fn start(&mut self, intended: Instant) {
        let started = Instant::now();
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let generation = self.slots[index as usize].generation;
        let connected = self.connect(index, generation);
        let measured = self.is_measured(intended);
        self.tally.intended += u64::from(measured);
        let Ok(socket) = connected else {
            // No port, no descriptor, no memory: the request was never under way.
            self.tally.dropped += u64::from(measured);
            self.vacant.push(index);
            self.resting += usize::from(self.closed);
            return;
        };
        self.slots[index as usize].dialed = Some(Dialed::new(socket, intended, started));
        self.deadlines.push_back((intended + self.load.deadline, index, generation));
        self.sent(intended, started);
    }

    fn sent(&mut self, intended: Instant, started: Instant) {
        if self.is_measured(intended) {
            self.tally.sent += 1;
            self.tally.lag.record(started.saturating_duration_since(intended));
        }
    }

    /// A connection that is being made. An error of the server's shows when the request is sent.
    fn connect(&self, index: u32, generation: u32) -> rustix::io::Result<OwnedFd> {
        let addr = self.load.addr;
        let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
        if self.load.exchange.kept {
            sockopt::set_tcp_nodelay(&socket, true)?;
        }
        match net::connect(&socket, &addr) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::CONNREFUSED | Errno::CONNRESET) => {}
            Err(errno) => return Err(errno),
        }
        let key = EventData::new_u64(u64::from(generation) << 32 | u64::from(index));
        epoll::add(&self.epoll, &socket, key, EventFlags::IN | EventFlags::OUT | EventFlags::ET)?;
        Ok(socket)
    }

    fn heed(&mut self, index: u32) {
        let exchange = self.load.exchange;
        let dialed = self.slots[index as usize].dialed.as_mut();
        if let Some(end) = dialed.and_then(|dialed| dialed.go_on(&exchange)) {
            self.end(index, end);
        }
    }

    /// Ends the request that is under way, if one is.
    fn end(&mut self, index: u32, end: End) {
        let Some(dialed) = &mut self.slots[index as usize].dialed else { return };
        let (intended, started) = (dialed.intended, dialed.started);
        let now = Instant::now();
        let more = self.closed && now < self.measured_to;
        let again = more && end == End::Good && self.load.exchange.kept;
        let asked = again && dialed.ask_again(self.load.exchange.request, now);
        if self.is_measured(intended) {
            self.tally.count(end, now - intended, now - started, self.load.deadline);
        }
        if asked {
            self.tally.intended += u64::from(self.is_measured(now));
            self.sent(now, now);
        } else {
            self.hang_up(index, end);
            self.resting += usize::from(more);
        }
    }

    fn hang_up(&mut self, index: u32, end: End) {
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        if let Some(dialed) = slot.dialed.take()
            && end == End::TimedOut
            && self.load.give_up == GiveUp::Reset
        {
            // Where it fails, the client closes instead.
            let _ = sockopt::set_socket_linger(&dialed.socket, Some(Duration::ZERO));
        }
        self.vacant.push(index);
    }
}

fn thread_cpu() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    // Neither is ever negative on this clock.
    Duration::new(tv_sec.unsigned_abs(), u32::try_from(tv_nsec).unwrap_or(0))
}
