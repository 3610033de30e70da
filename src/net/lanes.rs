//! Several listening sockets at one address, to which newcomers come by their source, so that whoever floods one
//! fills its own backlog alone, and which are accepted from in turn. It does not know when that is needed, nor who
//! is refused.

use std::{
    collections::VecDeque,
    mem::{self, MaybeUninit},
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::Errno,
    net,
};

use super::listener::accept;
use crate::sys::{random, steer};

/// So many there are: two sources share a lane as rarely as one time in so many.
const MOST: u32 = 256;
/// So few where many sources are active: the backlog of each holds somebody.
const FEWEST: u32 = 8;
/// For how long sources share a lane that share one.
const SHUFFLE: Duration = Duration::from_millis(200);
/// How long it may take to serve one from each lane in which somebody waits.
const ROUND: Duration = Duration::from_millis(12);

#[derive(Debug)]
pub(super) struct Lanes {
    epoll: OwnedFd,
    /// The first is the socket that was there before.
    sockets: Vec<Arc<OwnedFd>>,
    /// What each has had since the last shuffle.
    taken: Vec<u32>,
    /// Those in which somebody waits, in the order of their turns.
    turns: VecDeque<usize>,
    /// How many held somebody whenever that was looked at since the last shuffle, and how often that was.
    held: (u32, u32),
    /// How many hold somebody at a time.
    crowded: u32,
    /// Over how many of them newcomers are spread.
    spread: u32,
    shuffled: Instant,
}

impl Lanes {
    /// Makes more of this socket, each by this.
    pub(super) fn split(
        first: &Arc<OwnedFd>,
        addr: SocketAddr,
        listen: impl Fn(SocketAddr) -> rustix::io::Result<Arc<OwnedFd>>,
    ) -> rustix::io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut sockets = vec![Arc::clone(first)];
        for _ in 1..MOST {
            sockets.push(listen(addr)?);
        }
        for (lane, socket) in sockets.iter().enumerate() {
            epoll::add(&epoll, socket, EventData::new_u64(lane as u64), EventFlags::IN)?;
        }
        let taken = vec![0; sockets.len()];
        let (turns, shuffled) = (VecDeque::new(), Instant::now());
        let mut lanes = Self { epoll, sockets, taken, turns, held: (0, 0), crowded: 1, spread: 1, shuffled };
        lanes.spread_over(MOST)?;
        Ok(lanes)
    }

    /// Has newcomers come to so many of them from now on, of which one is the socket that was there before.
    fn spread_over(&mut self, count: u32) -> rustix::io::Result<()> {
        steer::by_source(&self.sockets[0], count, random::number() as u32)?;
        self.spread = count;
        self.taken.fill(0);
        Ok(())
    }

    /// Has all newcomers come to the socket that was there before.
    pub(super) fn unite(&mut self) -> rustix::io::Result<()> {
        if self.spread == 1 { Ok(()) } else { self.spread_over(1) }
    }

    /// Has others share a lane than before, when they have shared it for a while, and spreads newcomers over as many
    /// lanes as can be served in time when each of them takes so long. Whether that was done.
    pub(super) fn shuffle(&mut self, now: Instant, headway: Duration) -> rustix::io::Result<bool> {
        if self.spread > 1 && now < self.shuffled + SHUFFLE {
            return Ok(false);
        }
        self.shuffled = now;
        let (held, looks) = mem::take(&mut self.held);
        self.crowded = held.div_ceil(looks.max(1));
        self.spread_over(lanes(self.spread, self.crowded, headway)).map(|()| true)
    }

    /// Somebody from the lane whose turn it is.
    pub(super) fn accept(&mut self) -> rustix::io::Result<OwnedFd> {
        loop {
            if self.turns.is_empty() {
                self.look()?;
            }
            let lane = self.turns.front().copied().ok_or(Errno::AGAIN)?;
            match self.accept_from(lane) {
                Err(Errno::AGAIN) => {}
                accepted => return accepted,
            }
        }
    }

    /// Somebody from the lane that has had most, if that is no less than the mean.
    pub(super) fn accept_excess(&mut self) -> rustix::io::Result<OwnedFd> {
        self.look()?;
        let most = self.turns.iter().copied().max_by_key(|lane| self.taken[*lane]);
        let lane = most.filter(|lane| self.taken[*lane] >= mean(&self.taken)).ok_or(Errno::AGAIN)?;
        self.accept_from(lane)
    }

    /// Somebody from a lane that has had less than the mean, or nothing.
    pub(super) fn accept_behind(&mut self) -> Option<OwnedFd> {
        self.look().ok()?;
        let mean = mean(&self.taken);
        let lane = self.turns.iter().copied().find(|lane| self.taken[*lane] < mean.max(1))?;
        self.accept_from(lane).ok()
    }

    /// Leaves the socket that was there before to others.
    pub(super) fn leave_first(&mut self) -> rustix::io::Result<()> {
        self.unite()?;
        epoll::delete(&self.epoll, &self.sockets[0])?;
        self.turns.retain(|lane| *lane != 0);
        self.sockets[0] = Arc::clone(&self.sockets[1]);
        Ok(())
    }

    /// Somebody from this lane, which has had its turn.
    fn accept_from(&mut self, lane: usize) -> rustix::io::Result<OwnedFd> {
        self.turns.retain(|turn| *turn != lane);
        let accepted = accept(&self.sockets[lane])?;
        self.taken[lane] += 1;
        Ok(accepted)
    }

    /// How many lanes are known to hold somebody.
    pub(super) fn waiting(&self) -> usize {
        self.turns.len()
    }

    /// Finds out where somebody waits beside those whose turn is known.
    fn look(&mut self) -> rustix::io::Result<()> {
        let mut events = [const { MaybeUninit::<Event>::uninit() }; MOST as usize];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let (events, _) = epoll::wait(&self.epoll, &mut events, Some(&at_once))?;
        if !events.is_empty() {
            self.held = (self.held.0 + events.len() as u32, self.held.1 + 1);
        }
        for event in events {
            let lane = event.data.u64() as usize;
            if !self.turns.contains(&lane) {
                self.turns.push_back(lane);
            }
        }
        Ok(())
    }

    /// Gives each its share of a backlog: of those that need it.
    pub(super) fn set_backlog(&self, backlog: u32) -> rustix::io::Result<()> {
        let each = i32::try_from(backlog / self.crowded.max(1)).unwrap_or(i32::MAX);
        self.sockets.iter().try_for_each(|socket| net::listen(socket, each))
    }
}

/// Over how many lanes newcomers are to be spread, when so many of them hold somebody at a time.
fn lanes(spread: u32, crowded: u32, headway: Duration) -> u32 {
    let fit = ROUND.div_duration_f64(headway.saturating_mul(crowded));
    match spread {
        // There was one.
        1 => MOST,
        _ if fit < 1.0 => ((f64::from(spread) * fit) as u32).max(FEWEST),
        _ if fit > 3.0 => MOST.min(spread.saturating_mul(fit as u32)),
        _ => spread,
    }
}

/// What each has had on average of those that have had anything; nothing where that is one alone, which has had
/// neither little nor much.
fn mean(taken: &[u32]) -> u32 {
    match taken.iter().filter(|taken| **taken > 0).count() as u32 {
        0 | 1 => 0,
        active => taken.iter().sum::<u32>() / active,
    }
}

impl AsFd for Lanes {
    /// It is readable while somebody waits in any of them.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newcomers_are_spread_over_as_many_lanes_as_can_be_served_in_time() {
        let ms = Duration::from_millis(1);
        for (spread, active, headway, expected) in [
            (1, 0, ms, 256),
            (256, 0, ms, 256),
            (256, 11, ms, 256),
            (256, 100, ms, 30),
            (30, 24, ms, 15),
            (15, 12, ms, 15),
            (15, 3, ms, 60),
            (60, 1, ms, 256),
            (8, 8, 100 * ms, 8),
        ] {
            assert_eq!(lanes(spread, active, headway), expected, "{spread} {active} {headway:?}");
        }
    }

    #[test]
    fn a_mean_is_that_of_those_who_have_had_anything() {
        for (taken, expected) in [(&[0, 0][..], 0), (&[5, 0, 0], 0), (&[90, 3, 3], 32), (&[1, 2], 1)] {
            assert_eq!(mean(taken), expected, "{taken:?}");
        }
    }
}
