//! What each source has had of late, and which have had little: time is an argument. It knows neither who waits
//! nor what is done about it.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
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

impl Source {
    /// What a field of a request says: an address, with or without a port, or anything else.
    pub(crate) fn named(name: &[u8]) -> Self {
        let text = str::from_utf8(name).unwrap_or_default();
        let addr = || text.parse::<SocketAddr>().map(|addr| addr.ip());
        match text.trim_matches(['[', ']']).parse().or_else(|_| addr()) {
            Ok(ip) => Self::from(ip),
            Err(_) => {
                let mut hasher = DefaultHasher::new();
                name.hash(&mut hasher);
                Self(hasher.finish())
            }
        }
    }
}

impl From<IpAddr> for Source {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self(ip.to_bits().into()),
            IpAddr::V6(ip) => Self((ip.to_bits() >> 64) as u64),
        }
    }
}

impl From<SocketAddr> for Source {
    fn from(addr: SocketAddr) -> Self {
        Self::from(addr.ip())
    }
}

/// What a source has had of late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) spent: Duration,
    /// How often it was told no.
    pub(crate) refused: u64,
    /// It had less than half of what those had on average who had anything.
    pub(crate) is_little: bool,
}

impl fmt::Display for Source {
    /// An address, the /64 of one, or a number that stands for what a field said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(source) = *self;
        match (u32::try_from(source), source >> 61) {
            (Ok(ip), _) => write!(f, "{}", Ipv4Addr::from_bits(ip)),
            // Addresses of the internet and of private networks.
            (_, 0b001 | 0b111) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(source) << 64)),
            _ => write!(f, "{source:016x}"),
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
    places: Box<[Use]>,
    all_us: u64,
    active: u64,
}

/// What was spent on a source, and how often it was told no.
#[derive(Debug, Clone, Copy)]
struct Use {
    /// Of those that share the place, the last.
    source: Source,
    spent_us: u32,
    refused: u32,
}

impl Use {
    const NONE: Self = Self { source: Source::UNKNOWN, spent_us: 0, refused: 0 };
}

impl Window {
    fn new() -> Self {
        Self { places: vec![Use::NONE; PLACES].into(), all_us: 0, active: 0 }
    }

    fn spent(&mut self, place: usize, source: Source, us: u32) {
        let of = &mut self.places[place];
        self.active += u64::from(of.spent_us == 0);
        (of.source, of.spent_us) = (source, of.spent_us.saturating_add(us));
        self.all_us += u64::from(us);
    }

    fn refused(&mut self, place: usize, source: Source) {
        let of = &mut self.places[place];
        (of.source, of.refused) = (source, of.refused.saturating_add(1));
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
        state.now.spent(self.place(source), source, us);
    }

    /// Says that a source was told no.
    pub(crate) fn refused(&self, source: Source, now: Instant) {
        let mut state = self.state.lock();
        state.pass(now);
        state.now.refused(self.place(source), source);
    }

    /// What the sources have had in the last half to one second, and which had little.
    pub(crate) fn all(&self, now: Instant) -> Vec<(Source, Share)> {
        let mut state = self.state.lock();
        state.pass(now);
        let State { now, before, .. } = &*state;
        let places = now.places.iter().zip(&before.places);
        let share = |(place, (now, before)): (usize, (&Use, &Use))| {
            let source = if now.source == Source::UNKNOWN { before.source } else { now.source };
            let spent = Duration::from_micros(u64::from(now.spent_us) + u64::from(before.spent_us));
            let refused = u64::from(now.refused) + u64::from(before.refused);
            (source, Share { spent, refused, is_little: state.is_little(place) })
        };
        let any = |(_, share): &(Source, Share)| !share.spent.is_zero() || share.refused > 0;
        places.enumerate().map(share).filter(any).collect()
    }

    /// Whether a source has had little, measured by what the others had who had anything.
    pub(crate) fn has_had_little(&self, source: Source, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.pass(now);
        state.is_little(self.place(source))
    }

    fn place(&self, Source(source): Source) -> usize {
        // The upper bits of a product depend on all bits of its factors.
        (source.wrapping_add(self.salt).wrapping_mul(self.salt) >> 48) as usize % PLACES
    }
}

impl State {
    fn is_little(&self, place: usize) -> bool {
        let Self { now, before, .. } = self;
        let had = u64::from(now.places[place].spent_us) + u64::from(before.places[place].spent_us);
        let active = now.active.max(before.active).max(1);
        had * active * LITTLE < now.all_us + before.all_us
    }

    fn pass(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began);
        if passed < WINDOW {
            return;
        }
        mem::swap(&mut self.now, &mut self.before);
        self.now = Window::new();
        if passed >= WINDOW * 2 {
            self.before = Window::new();
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
    fn it_is_known_what_each_has_had_and_who_was_told_no() {
        let t = Instant::now();
        let shares = Shares::new(0x1234_5678_9abc_def1, t);
        let (greedy, polite) = (source("192.0.2.1"), source("2001:db8::1"));
        shares.spent(greedy, 9 * MS, t);
        shares.spent(greedy, MS, t + 600 * MS);
        shares.refused(polite, t + 600 * MS);
        let mut all = shares.all(t + 601 * MS);
        all.sort_by_key(|(_, share)| share.spent);
        let share = |ms, refused, is_little| Share { spent: ms * MS, refused, is_little };
        assert_eq!(all, [(polite, share(0, 1, true)), (greedy, share(10, 0, false))]);
        assert_eq!((greedy.to_string(), polite.to_string()), ("192.0.2.1".into(), "2001:db8::/64".into()));
        assert_eq!(shares.all(t + 3000 * MS), []);
    }

    #[test]
    fn a_source_may_be_named() {
        for (name, addr) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:5000", "192.0.2.1"),
            ("2001:db8::9", "2001:db8::1"),
            ("[2001:db8::9]", "2001:db8::1"),
            ("[2001:db8::9]:443", "2001:db8::1"),
        ] {
            assert_eq!(Source::named(name.as_bytes()), source(addr), "{name}");
        }
        assert_eq!(Source::named(b"a key"), Source::named(b"a key"));
        assert_ne!(Source::named(b"a key"), Source::named(b"another"));
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
