//! What the names of the upstreams stand for, and when each is to be resolved again: policy on answers, in
//! which time is an argument. It knows neither how a name is resolved nor what the addresses are used for.
//!
//! | a name | what happens | next |
//! |---|---|---|
//! | is an address | nothing | stays |
//! | is due | it is asked for | asked |
//! | asked | its addresses come | due after the interval |
//! | asked | it fails; the addresses stay as they were | due after the interval, 5 s at most |
//! | asked | nothing comes for 5 s, which counts as a failure | asked: never twice at once |

use std::{
    collections::HashSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{config::UpstreamConfig, member::Wanted};

/// The names of all upstreams, in the order in which they were given.
#[derive(Debug, Clone)]
pub(super) struct Names {
    names: Vec<Name>,
    interval: Duration,
}

#[derive(Debug, Clone)]
struct Name {
    given: UpstreamConfig,
    /// In their own order, so that it makes no difference in which they come.
    addrs: Vec<SocketAddr>,
    state: State,
    /// It was said that it cannot be resolved.
    fails: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is an address.
    Known,
    Due(Instant),
    Asked(Instant),
}

/// What there is to tell of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It cannot be resolved, for this reason, and has addresses from before or has not.
    Fails { name: String, cause: String, has_addrs: bool },
    /// It can be resolved again.
    Works { name: String },
}

/// A name that failed is asked for again after this, or sooner.
const AGAIN: Duration = Duration::from_secs(5);
/// What takes longer is a failure, whatever still comes of it.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

impl Names {
    /// Those are literals whose address is known already.
    pub(super) fn new(
        given: impl IntoIterator<Item = (UpstreamConfig, Option<SocketAddr>)>,
        interval: Duration,
        now: Instant,
    ) -> Self {
        let name = |(given, literal): (UpstreamConfig, Option<SocketAddr>)| Name {
            given,
            addrs: literal.into_iter().collect(),
            state: if literal.is_some() { State::Known } else { State::Due(now) },
            fails: false,
        };
        Self { names: given.into_iter().map(name).collect(), interval }
    }

    /// Takes over what was known of those names that are there again.
    pub(super) fn keep(&mut self, before: &Self, now: Instant) {
        for name in &mut self.names {
            if let Some(known) = before.names.iter().find(|known| known.given.name == name.given.name) {
                *name = Name { given: name.given.clone(), ..known.clone() };
                // Where the interval is shorter now.
                if let State::Due(at) = name.state {
                    name.state = State::Due(at.min(now + self.interval));
                }
            }
        }
    }

    /// The names that are to be asked for now.
    pub(super) fn due(&self, now: Instant) -> Vec<String> {
        let is_due = |name: &&Name| matches!(name.state, State::Due(at) if now >= at);
        self.names.iter().filter(is_due).map(|name| name.given.name.clone()).collect()
    }

    /// When something is to be done next.
    pub(super) fn next(&self) -> Option<Instant> {
        let next = |name: &Name| match name.state {
            State::Known => None,
            State::Due(at) => Some(at),
            State::Asked(at) => (!name.fails).then_some(at + ANSWERED_WITHIN),
        };
        self.names.iter().filter_map(next).min()
    }

    /// Whether there is a name of which nothing is known and that was asked for.
    pub(super) fn awaits_any(&self) -> bool {
        self.names.iter().any(|name| name.addrs.is_empty() && matches!(name.state, State::Asked(_)))
    }

    /// Says that this name is asked for.
    pub(super) fn asked(&mut self, name: &str, now: Instant) {
        self.with(name, |name| name.state = State::Asked(now));
    }

    /// Says that this name cannot be asked for before then.
    pub(super) fn postponed(&mut self, name: &str, until: Instant) {
        self.with(name, |name| name.state = State::Due(until));
    }

    /// Says what came of asking for this name.
    pub(super) fn answered(
        &mut self,
        name: &str,
        answer: Result<Vec<SocketAddr>, String>,
        now: Instant,
    ) -> Option<News> {
        let interval = self.interval;
        let found = self.names.iter_mut().find(|known| known.given.name == name)?;
        match answer {
            Ok(mut addrs) => {
                found.state = State::Due(now + interval);
                addrs.sort_unstable();
                addrs.dedup();
                found.addrs = addrs;
                std::mem::take(&mut found.fails).then(|| News::Works { name: name.to_owned() })
            }
            Err(cause) => {
                found.state = State::Due(now + interval.min(AGAIN));
                found.fails(cause)
            }
        }
    }

    /// Finds those that take too long.
    pub(super) fn look(&mut self, now: Instant) -> Vec<News> {
        self.late(|name| matches!(name.state, State::Asked(at) if now >= at + ANSWERED_WITHIN))
    }

    /// Says that nobody waits any more for those of which nothing is known; it may come all the same.
    pub(super) fn give_up(&mut self) -> Vec<News> {
        self.late(|name| name.addrs.is_empty() && name.state != State::Known)
    }

    fn late(&mut self, is_late: impl Fn(&Name) -> bool) -> Vec<News> {
        let late = self.names.iter_mut().filter(|name| is_late(name));
        late.filter_map(|name| name.fails("nothing comes in time".into())).collect()
    }

    /// The upstreams: each address once, and none of those that are left out.
    pub(super) fn wanted(&self, mut is_left_out: impl FnMut(SocketAddr) -> bool) -> Vec<Wanted> {
        let mut seen = HashSet::new();
        let all = self.names.iter().flat_map(|name| name.addrs.iter().map(|&addr| (&name.given, addr)));
        all.filter(|&(_, addr)| seen.insert(addr) && !is_left_out(addr))
            .map(|(given, addr)| Wanted { name: given.name.clone(), addr, weight: given.weight })
            .collect()
    }

    fn with(&mut self, name: &str, act: impl FnOnce(&mut Name)) {
        if let Some(known) = self.names.iter_mut().find(|known| known.given.name == name) {
            act(known);
        }
    }
}

impl Name {
    fn fails(&mut self, cause: String) -> Option<News> {
        let (name, has_addrs) = (self.given.name.clone(), !self.addrs.is_empty());
        (!std::mem::replace(&mut self.fails, true)).then_some(News::Fails { name, cause, has_addrs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    fn names(given: &[&str], interval: Duration, now: Instant) -> Names {
        let given = given.iter().map(|&name| UpstreamConfig { name: name.into(), weight: 1 });
        Names::new(given.map(|given| (given.clone(), given.name.parse().ok())), interval, now)
    }

    fn addrs(names: &Names) -> Vec<SocketAddr> {
        names.wanted(|_| false).into_iter().map(|wanted| wanted.addr).collect()
    }

    #[test]
    fn a_name_is_asked_for_once_an_interval_and_an_address_never() {
        let t = Instant::now();
        let mut names = names(&["10.0.0.9:80", "a:80"], 5 * S, t);
        assert_eq!((names.due(t), names.next()), (vec!["a:80".to_owned()], Some(t)));
        names.asked("a:80", t);
        assert!(names.due(t + 3600 * S).is_empty() && names.awaits_any());
        assert_eq!(names.answered("a:80", Ok(vec![addr(2), addr(1), addr(2)]), t + S), None);
        assert_eq!(addrs(&names), [addr(9), addr(1), addr(2)]);
        assert!(names.due(t + 5 * S).is_empty() && !names.awaits_any());
        assert_eq!((names.due(t + 6 * S).len(), names.next()), (1, Some(t + 6 * S)));
        // Addresses come and go.
        names.answered("a:80", Ok(vec![addr(3), addr(2)]), t + 6 * S);
        assert_eq!(addrs(&names), [addr(9), addr(2), addr(3)]);
    }

    #[test]
    fn a_name_that_fails_keeps_its_addresses_and_it_is_said_once() {
        let t = Instant::now();
        let mut names = names(&["a:80"], 60 * S, t);
        let fails = |has_addrs| News::Fails { name: "a:80".into(), cause: "no".into(), has_addrs };
        let no = || Err("no".to_owned());
        assert_eq!(names.answered("a:80", no(), t), Some(fails(false)));
        assert_eq!(names.answered("a:80", no(), t), None);
        // It is asked for sooner than otherwise.
        assert_eq!(names.next(), Some(t + AGAIN));
        assert_eq!(names.answered("a:80", Ok(vec![addr(1)]), t), Some(News::Works { name: "a:80".into() }));
        assert_eq!(names.answered("a:80", Ok(vec![addr(1)]), t), None);
        assert_eq!(names.answered("a:80", no(), t), Some(fails(true)));
        assert_eq!(addrs(&names), [addr(1)]);
        assert_eq!(names.answered("b:80", no(), t), None);
    }

    #[test]
    fn one_that_hangs_fails_is_not_asked_for_again_and_what_it_says_late_counts() {
        let t = Instant::now();
        let mut names = names(&["a:80"], S, t);
        names.asked("a:80", t);
        assert_eq!(names.next(), Some(t + ANSWERED_WITHIN));
        assert!(names.look(t + 4 * S).is_empty());
        assert!(matches!(&names.look(t + 5 * S)[..], [News::Fails { has_addrs: false, .. }]));
        assert!(names.look(t + 6 * S).is_empty() && names.give_up().is_empty());
        assert_eq!((names.next(), names.due(t + 60 * S)), (None, vec![]));
        assert!(matches!(names.answered("a:80", Ok(vec![addr(1)]), t + 60 * S), Some(News::Works { .. })));
        assert_eq!(addrs(&names), [addr(1)]);
    }

    #[test]
    fn who_does_not_wait_any_more_says_so_in_place_of_the_deadline() {
        let t = Instant::now();
        let mut names = names(&["10.0.0.9:80", "a:80", "b:80"], S, t);
        names.answered("a:80", Ok(vec![addr(1)]), t);
        names.asked("b:80", t);
        assert!(matches!(&names.give_up()[..], [News::Fails { name, .. }] if name == "b:80"));
        assert!(names.look(t + 6 * S).is_empty());
    }

    #[test]
    fn an_address_of_two_names_is_one_upstream_and_some_are_left_out() {
        let t = Instant::now();
        let mut names = names(&["a:80", "10.0.0.2:80", "b:80"], S, t);
        names.answered("a:80", Ok(vec![addr(1), addr(2)]), t);
        names.answered("b:80", Ok(vec![addr(1), addr(3)]), t);
        let wanted = names.wanted(|addr| addr.ip().to_string() == "10.0.0.3");
        let wanted: Vec<_> = wanted.iter().map(|wanted| (&*wanted.name, wanted.addr)).collect();
        assert_eq!(wanted, [("a:80", addr(1)), ("a:80", addr(2))]);
    }

    #[test]
    fn what_is_known_of_names_that_stay_is_kept() {
        let t = Instant::now();
        let mut before = names(&["a:80", "b:80"], 60 * S, t);
        before.answered("a:80", Ok(vec![addr(1)]), t);
        before.asked("b:80", t);
        let mut after = names(&["c:80", "b:80", "a:80"], 60 * S, t);
        after.keep(&before, t);
        assert_eq!((after.due(t), addrs(&after)), (vec!["c:80".to_owned()], vec![addr(1)]));
        // The interval is the new one.
        let mut after = names(&["a:80"], Duration::ZERO, t);
        after.keep(&before, t);
        assert_eq!(after.due(t), ["a:80"]);
    }
}
