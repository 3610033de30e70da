//! What each source has had of late, and which have had little: time is an argument. It knows neither who waits
//! nor what is done about it.

use std::{
    mem,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Where a client is taken to come from: its IPv4 address, or the first half of its IPv6 address, which one site
/// has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source(u64);

impl Source {
    /// All of whom nothing is known.
    pub(crate) const UNKNOWN: Self = Self(u64::MAX);
}

impl From<SocketAddr> for Source {
    fn from(addr: SocketAddr) -> Self {
        match addr.ip().to_canonical() {
            IpAddr::V4(ip) => Self(ip.to_bits().into()),
            IpAddr::V6(ip) => Self((ip.to_bits() >> 64) as u64),
        }
    }
}

/// As many as have a place of their own, unless they share it by chance.
const PLACES: usize = 1024;
/// What is longer ago than twice this counts no more.
const WINDOW: Duration = Duration::from_millis(500);
/// Who has had less than this part of the mean has had little. (Half of equal sources have less than the mean.)
const LITTLE: u64 = 2;

/// The time that was spent on each source.
#[derive(Debug)]
pub(crate) struct Shares {
    salt: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    now: Window,
    before: Window,
    began: Instant,
}

#[derive(Debug)]
struct Window {
    spent_us: Box<[u32]>,
    all_us: u64,
    active: u64,
}

impl Window {
    fn new() -> Self {
        Self { spent_us: vec![0; PLACES].into(), all_us: 0, active: 0 }
    }

    fn add(&mut self, place: usize, us: u32) {
        self.active += u64::from(self.spent_us[place] == 0);
        self.spent_us[place] = self.spent_us[place].saturating_add(us);
        self.all_us += u64::from(us);
    }

    fn clear(&mut self) {
        if self.active > 0 {
            *self = Self::new();
        }
    }
}

impl Shares {
    /// The salt keeps anybody from knowing with whom they share a place.
    pub(crate) fn new(salt: u64, now: Instant) -> Self {
        let state = State { now: Window::new(), before: Window::new(), began: now };
        Self { salt: salt | 1, state: Mutex::new(state) }
    }

    /// Says that so much time was spent on a source.
    pub(crate) fn spent(&self, source: Source, took: Duration, now: Instant) {
        let us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        let mut state = self.state.lock();
        state.pass(now);
        state.now.add(self.place(source), us);
    }

    /// Whether a source has had little, measured by what the others had who had anything.
    pub(crate) fn has_had_little(&self, source: Source, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.pass(now);
        let place = self.place(source);
        let State { now, before, .. } = &*state;
        let had = u64::from(now.spent_us[place]) + u64::from(before.spent_us[place]);
        let active = now.active.max(before.active).max(1);
        had * active * LITTLE < now.all_us + before.all_us
    }

    fn place(&self, Source(source): Source) -> usize {
        // The upper bits of a product depend on all bits of its factors.
        (source.wrapping_add(self.salt).wrapping_mul(self.salt) >> 48) as usize % PLACES
    }
}

impl State {
    fn pass(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began);
        if passed < WINDOW {
            return;
        }
        mem::swap(&mut self.now, &mut self.before);
        self.now.clear();
        if passed >= WINDOW * 2 {
            self.before.clear();
        }
        self.began = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn source(text: &str) -> Source {
        Source::from(SocketAddr::new(text.parse().unwrap(), 80))
    }

    #[test]
    fn a_source_is_an_address_or_a_site() {
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
    }

    #[test]
    fn who_has_had_less_than_half_of_the_mean_has_had_little() {
        let t = Instant::now();
        let shares = Shares::new(0x1234_5678_9abc_def1, t);
        let (greedy, polite, new) = (source("192.0.2.1"), source("192.0.2.2"), source("192.0.2.3"));
        // Nobody has had anything.
        assert!(!shares.has_had_little(greedy, t));
        for _ in 0..90 {
            shares.spent(greedy, MS, t);
        }
        for _ in 0..10 {
            shares.spent(polite, MS, t);
        }
        let little = |at| [greedy, polite, new].map(|source| shares.has_had_little(source, at));
        assert_eq!(little(t), [false, true, true]);
        assert_eq!(little(t + 600 * MS), [false, true, true]);
        // It counts no more.
        assert_eq!(little(t + 1200 * MS), [false, false, false]);
        for source in [greedy, polite, new] {
            shares.spent(source, 10 * MS, t + 1200 * MS);
        }
        assert_eq!(little(t + 1201 * MS), [false, false, false]);
    }
}
