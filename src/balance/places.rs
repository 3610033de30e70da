//! Which upstreams there are, and which of them has a place for a connection: policy on their records. It
//! knows neither who waits nor how connections are made, and takes no lock.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use slab::Slab;

use super::{
    config::{AllDown, Config},
    member::{Member, Standing, Wanted},
    record::{Needed, Record},
    selection::{Candidate, Selection},
    tried::Tried,
    upstream::{Id, Upstream},
};

/// The places at all upstreams.
#[derive(Debug)]
pub(super) struct Places {
    /// Those that have left are among them until their last place is given back.
    members: Slab<Member>,
    selection: Selection,
    all_down: AllDown,
    /// Whether an upstream may have so many connections only.
    is_limited: bool,
    /// One that was away, or has come, gets its share step by step.
    slow_start: bool,
    /// The number of the next one.
    next_number: u64,
}

/// Who has come and who has left.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) came: Vec<Arc<Upstream>>,
    pub(super) left: Vec<Arc<Upstream>>,
}

/// Connects under way at once to one upstream: one that swallows them is to hold few.
const CONNECTING: usize = 64;

impl Places {
    /// Without any upstream.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            members: Slab::new(),
            selection: Selection::new(config.policy),
            all_down: config.all_down,
            is_limited: false,
            slow_start: config.http.is_some(),
            next_number: 0,
        }
    }

    /// Has these upstreams from now on, each of them once, and goes by these settings.
    pub(super) fn set(&mut self, wanted: &[Wanted], config: &Config, now: Instant) -> Change {
        let mut change = Change::default();
        let is_first = self.members.is_empty();
        self.selection.set_policy(config.policy);
        self.all_down = config.all_down;
        self.is_limited = config.limit(now).is_some();
        let needed = Needed { rise: config.rise, fall: config.fall };
        self.records().for_each(|record| record.set(needed, config.limit(now)));
        for (_, member) in &mut self.members {
            if !member.is_leaving() && !wanted.iter().any(|wanted| member.is(wanted)) {
                member.standing = Standing::Leaving;
                change.left.push(Arc::clone(&member.upstream));
            }
        }
        for (position, wanted) in wanted.iter().enumerate() {
            let came = self.want(position, wanted, config, now);
            if let Some(member) = came.and_then(|slot| self.members.get_mut(slot)) {
                if !is_first {
                    member.came = Some(now);
                    member.record.came(now);
                }
                change.came.push(Arc::clone(&member.upstream));
            }
        }
        self.members.retain(|_, member| !member.is_leaving() || member.record.open() > 0);
        self.settle_standings();
        change
    }

    /// Has this one at this position; its slot, if it was not there.
    fn want(&mut self, position: usize, wanted: &Wanted, config: &Config, now: Instant) -> Option<usize> {
        let known = self.members.iter_mut().find(|(_, member)| member.is(wanted));
        if let Some((slot, member)) = known {
            let came_back = member.is_leaving().then_some(slot);
            (member.position, member.weight, member.standing) = (position, wanted.weight, Standing::Used);
            return came_back;
        }
        let entry = self.members.vacant_entry();
        let id = Id { slot: entry.key(), number: self.next_number };
        let needed = Needed { rise: config.rise, fall: config.fall };
        entry.insert(Member::new(id, position, wanted, Record::new(needed, config.limit(now))));
        self.next_number += 1;
        self.selection.comes(id.slot);
        Some(id.slot)
    }

    /// Among the addresses of one name, those that were never reached are used only while none was.
    fn settle_standings(&mut self) {
        // How many there are of each name, and whether one of them was reached.
        let mut names: HashMap<String, (usize, bool)> = HashMap::new();
        for member in self.wanted() {
            let (count, reached) = names.entry(member.upstream.name.clone()).or_default();
            *count += 1;
            *reached |= member.record.is_reached();
        }
        let wanted = self.members.iter_mut().map(|(_, member)| member);
        for member in wanted.filter(|member| !member.is_leaving()) {
            let (count, reached) = names.get(&member.upstream.name).copied().unwrap_or_default();
            let waits = reached && !member.record.is_reached();
            member.standing = if waits { Standing::Unproven } else { Standing::Used };
            member.has_siblings = count > 1;
        }
    }

    /// Whether an upstream may have so many connections only. Then who waits in line waits for one to end,
    /// and otherwise for one to be made.
    pub(super) fn is_limited(&self) -> bool {
        self.is_limited
    }

    /// Those that are wanted, in no order.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().map(|(_, member)| member).filter(|member| !member.is_leaving())
    }

    /// Those that are wanted, in the order in which they are.
    pub(super) fn in_order(&self) -> Vec<&Member> {
        let mut members: Vec<_> = self.wanted().collect();
        members.sort_by_key(|member| member.position);
        members
    }

    /// Those that have left and still have something, too.
    pub(super) fn records(&mut self) -> impl Iterator<Item = &mut Record> {
        self.members.iter_mut().map(|(_, member)| &mut member.record)
    }

    /// One of them, if it is still there.
    pub(super) fn member(&self, id: Id) -> Option<&Member> {
        self.members.get(id.slot).filter(|member| member.upstream.id == id)
    }

    pub(super) fn record(&mut self, id: Id) -> Option<&mut Record> {
        let member = self.members.get_mut(id.slot).filter(|member| member.upstream.id == id);
        member.map(|member| &mut member.record)
    }

    /// Takes a place for a connection that was at those upstreams that it `tried`; at which one.
    pub(super) fn take(&mut self, tried: &Tried, now: Instant) -> Option<Arc<Upstream>> {
        let candidate = |member: &Member| Candidate {
            weight: self.weight(member, now),
            open: member.record.open(),
            eligible: self.is_free(member, now) && !tried.contains(member.upstream.id.number, now),
        };
        let candidates: Vec<_> = (0..self.selection.slots())
            .map(|slot| self.members.get(slot).map_or(Candidate::NOBODY, candidate))
            .collect();
        let slot = self.selection.choose(&candidates)?;
        let member = self.members.get_mut(slot)?;
        member.record.taken();
        Some(Arc::clone(&member.upstream))
    }

    /// The connection of a place was made, which took so long.
    pub(super) fn connected(&mut self, id: Id, took: Duration) {
        self.reaches(id, |record| record.connected(took));
    }

    /// An upstream was checked. Whether that changes its state.
    pub(super) fn checked(&mut self, id: Id, went_well: bool, now: Instant) -> bool {
        self.reaches(id, |record| record.checked(went_well, now)).unwrap_or(false)
    }

    /// A place was given back, whose connection was still being made or not.
    pub(super) fn given_back(&mut self, id: Id, connecting: bool) {
        if let Some(record) = self.record(id) {
            record.given_back(connecting);
            let is_last = record.open() == 0;
            if is_last && self.member(id).is_some_and(Member::is_leaving) {
                self.members.remove(id.slot);
            }
        }
    }

    /// Does what may say for the first time that an upstream can be reached.
    fn reaches<T>(&mut self, id: Id, act: impl FnOnce(&mut Record) -> T) -> Option<T> {
        let record = self.record(id)?;
        let before = record.is_reached();
        let done = act(record);
        if record.is_reached() != before {
            self.settle_standings();
        }
        Some(done)
    }

    /// The numbers of the upstreams that have a place.
    pub(super) fn free(&self, now: Instant) -> Vec<u64> {
        let free = self.wanted().filter(|member| self.is_free(member, now));
        free.map(|member| member.upstream.id.number).collect()
    }

    pub(super) fn has_any(&self, now: Instant) -> bool {
        self.wanted().any(|member| self.is_free(member, now))
    }

    /// Whether there is an upstream for connections at all, free or not.
    pub(super) fn may_come(&self, now: Instant) -> bool {
        self.wanted().any(|member| self.may_serve(member, now))
    }

    /// How many places there are at those that are up.
    pub(super) fn count(&self) -> usize {
        let up = self.wanted().filter(|member| !member.is_out());
        up.map(|member| member.record.limit().unwrap_or(CONNECTING)).sum()
    }

    /// Its share beside the others': one that may have more gets more, and one that was away gets less.
    fn weight(&self, member: &Member, now: Instant) -> u32 {
        let limit = member.record.limit().map_or(1, |limit| u32::try_from(limit).unwrap_or(u32::MAX));
        let weight = member.weight.saturating_mul(limit);
        if self.slow_start { weight.saturating_mul(member.record.share(now)) } else { weight }
    }

    fn is_free(&self, member: &Member, now: Instant) -> bool {
        let record = &member.record;
        let free = record.limit().is_none_or(|limit| record.open() < limit);
        let free = free && record.connecting() < CONNECTING;
        free && !member.is_leaving() && self.may_serve(member, now)
    }

    fn may_serve(&self, member: &Member, now: Instant) -> bool {
        let is_ejected = |member: &Member| member.record.is_ejected(now);
        match member.is_out() {
            true => self.all_down == AllDown::Try && self.wanted().all(Member::is_out),
            // What is ejected is there: the last of all is not given up.
            false => !is_ejected(member) || self.wanted().all(|member| member.is_out() || is_ejected(member)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// `NAME:PORT`, whose address is the port of this machine.
    fn wanted(texts: &[&str]) -> Vec<Wanted> {
        let wanted = |text: &&str| {
            let (name, port) = text.split_once(':').unwrap();
            let addr = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
            Wanted { name: name.into(), addr, weight: 1 }
        };
        texts.iter().map(wanted).collect()
    }

    fn config(most: Option<usize>, all_down: AllDown) -> Config {
        Config { max_connections_per_upstream: most, all_down, fall: 1, rise: 1, ..Config::default() }
    }

    fn places(config: &Config, texts: &[&str]) -> Places {
        let mut places = Places::new(config);
        places.set(&wanted(texts), config, Instant::now());
        places
    }

    /// The ports of the upstreams that get places until there are none.
    fn take_all(places: &mut Places, t: Instant) -> Vec<u16> {
        let taken = std::iter::from_fn(|| places.take(&Tried::default(), t));
        let mut ports: Vec<_> = taken.map(|upstream| upstream.addr.port()).collect();
        ports.sort_unstable();
        ports
    }

    fn id(places: &Places, port: u16) -> Id {
        places.wanted().find(|member| member.upstream.addr.port() == port).unwrap().upstream.id
    }

    fn ports(members: &[Arc<Upstream>]) -> Vec<u16> {
        members.iter().map(|upstream| upstream.addr.port()).collect()
    }

    #[test]
    fn no_more_are_taken_than_there_are() {
        let t = Instant::now();
        let mut places = places(&config(Some(2), AllDown::Refuse), &["a:1", "b:2"]);
        assert_eq!(places.count(), 4);
        assert_eq!(take_all(&mut places, t), [1, 1, 2, 2]);
        assert!(places.free(t).is_empty() && !places.has_any(t) && places.may_come(t));
        let second = id(&places, 2);
        places.given_back(second, true);
        assert_eq!(places.free(t), [second.number]);
        let mut tried = Tried::default();
        tried.add(second.number, t);
        assert!(places.take(&tried, t).is_none());
        assert_eq!(take_all(&mut places, t), [2]);
    }

    #[test]
    fn without_a_limit_only_those_count_that_are_being_connected() {
        let t = Instant::now();
        let mut places = places(&config(None, AllDown::Refuse), &["a:1", "b:2"]);
        assert_eq!(take_all(&mut places, t).len(), 2 * CONNECTING);
        places.connected(id(&places, 1), Duration::ZERO);
        assert_eq!(take_all(&mut places, t), [1]);
    }

    #[test]
    fn what_is_down_has_no_place_unless_all_are_and_it_is_wanted() {
        let t = Instant::now();
        for (all_down, free) in [(AllDown::Refuse, 0), (AllDown::Try, 2)] {
            let mut places = places(&config(None, all_down), &["a:1", "b:2"]);
            assert!(places.checked(id(&places, 1), false, t));
            assert_eq!((places.free(t).len(), places.count()), (1, CONNECTING), "{all_down:?}");
            assert!(places.checked(id(&places, 2), false, t));
            assert_eq!((places.free(t).len(), places.count()), (free, 0), "{all_down:?}");
            assert_eq!(places.may_come(t), free > 0, "{all_down:?}");
        }
    }

    #[test]
    fn who_leaves_gets_nothing_more_and_goes_with_its_last_place() {
        let t = Instant::now();
        let config = config(Some(2), AllDown::Refuse);
        let mut places = places(&config, &["a:1", "b:2"]);
        let (first, second) = (id(&places, 1), id(&places, 2));
        assert_eq!(take_all(&mut places, t), [1, 1, 2, 2]);
        let change = places.set(&wanted(&["c:3", "b:2"]), &config, t);
        assert_eq!((ports(&change.came), ports(&change.left)), (vec![3], vec![1]));
        assert_eq!((id(&places, 2), places.count()), (second, 4));
        places.given_back(first, true);
        assert_eq!(take_all(&mut places, t), [3, 3]);
        assert!(places.record(first).is_some_and(|record| record.open() == 1));
        places.given_back(first, true);
        assert!(places.record(first).is_none());
        // Its slot is another's now, and nobody takes that for it.
        places.set(&wanted(&["c:3", "b:2", "d:4"]), &config, t);
        assert_eq!(id(&places, 4).slot, first.slot);
        places.given_back(first, true);
        assert_eq!(take_all(&mut places, t), [4, 4]);
        assert!(places.record(first).is_none());
    }

    #[test]
    fn who_is_back_before_it_has_gone_keeps_its_record() {
        let t = Instant::now();
        let config = config(Some(2), AllDown::Refuse);
        let mut places = places(&config, &["a:1", "b:2"]);
        let first = id(&places, 1);
        assert_eq!(take_all(&mut places, t), [1, 1, 2, 2]);
        places.set(&wanted(&["b:2"]), &config, t);
        assert_eq!(places.count(), 2);
        let change = places.set(&wanted(&["a:1", "b:2"]), &config, t);
        assert_eq!((ports(&change.came), id(&places, 1)), (vec![1], first));
        assert!(take_all(&mut places, t).is_empty());
        // With another name it is another one.
        let change = places.set(&wanted(&["x:1", "b:2"]), &config, t);
        assert_eq!((ports(&change.came), ports(&change.left)), (vec![1], vec![1]));
    }

    #[test]
    fn other_settings_count_for_those_who_are_there() {
        let t = Instant::now();
        let mut places = places(&config(None, AllDown::Refuse), &["a:1", "b:2"]);
        assert!(!places.is_limited());
        places.set(&wanted(&["a:1", "b:2"]), &config(Some(1), AllDown::Try), t);
        assert_eq!((places.is_limited(), places.count()), (true, 2));
        assert_eq!(take_all(&mut places, t), [1, 2]);
        let mut heavier = wanted(&["a:1", "b:2"]);
        heavier[1].weight = 3;
        places.set(&heavier, &Config { fall: 2, ..config(Some(4), AllDown::Refuse) }, t);
        let next = places.take(&Tried::default(), t).unwrap();
        assert_eq!(next.addr.port(), 2);
        assert!(!places.checked(next.id, false, t) && places.checked(next.id, false, t));
    }

    #[test]
    fn who_comes_gets_its_share_step_by_step_except_at_the_start() {
        let t = Instant::now();
        let config = Config { http: Some(Default::default()), ..config(None, AllDown::Refuse) };
        let mut places = places(&config, &["a:1", "b:2"]);
        places.set(&wanted(&["a:1", "b:2", "c:3"]), &config, t);
        let shares =
            |now| places.in_order().iter().map(|member| member.record.share(now)).collect::<Vec<_>>();
        assert_eq!(shares(t), [100, 100, 10]);
        assert_eq!(shares(t + Duration::from_secs(5)), [100, 100, 50]);
    }

    #[test]
    fn who_has_come_or_gone_down_or_is_one_of_several_is_checked_before_its_turn() {
        let t = Instant::now();
        let config = config(Some(1), AllDown::Refuse);
        let mut places = places(&config, &["a:1", "b:2", "b:3"]);
        let urgent = |places: &Places, now| -> Vec<u16> {
            let urgent = places.in_order().into_iter().filter(|member| member.is_urgent(10 * MS, now));
            urgent.map(|member| member.upstream.addr.port()).collect()
        };
        assert_eq!(urgent(&places, t), [2, 3]);
        places.checked(id(&places, 2), true, t);
        places.record(id(&places, 3)).unwrap().check_lacked();
        assert!(urgent(&places, t).is_empty());
        places.set(&wanted(&["a:1", "b:2", "b:3", "c:4", "b:5"]), &config, t);
        assert_eq!(urgent(&places, t), [4, 5]);
        for port in [1, 4, 5] {
            places.checked(id(&places, port), false, t);
        }
        // The first two were used, and the last is to be used as soon as it is reached.
        assert_eq!(urgent(&places, t + 9 * MS), [1, 4, 5]);
        assert!(urgent(&places, t + 10 * MS).is_empty());
    }

    #[test]
    fn an_address_that_was_never_reached_is_used_while_none_of_its_name_was() {
        let t = Instant::now();
        let mut places = places(&config(Some(1), AllDown::Refuse), &["a:1", "a:2", "b:3"]);
        assert_eq!(take_all(&mut places, t), [1, 2, 3]);
        places.connected(id(&places, 2), MS);
        for port in [1, 2, 3] {
            places.given_back(id(&places, port), port != 2);
        }
        // Another name has nothing to do with it.
        assert_eq!((take_all(&mut places, t), places.count()), (vec![2, 3], 2));
        assert!(!places.checked(id(&places, 1), true, t));
        assert_eq!((take_all(&mut places, t), places.count()), (vec![1], 3));
    }

    #[test]
    fn where_all_others_are_down_it_is_tried_only_if_that_is_wanted() {
        let t = Instant::now();
        for (all_down, expected) in [(AllDown::Refuse, vec![]), (AllDown::Try, vec![1, 2])] {
            let config = config(Some(1), all_down);
            let mut places = places(&config, &["a:1"]);
            places.checked(id(&places, 1), true, t);
            places.set(&wanted(&["a:1", "a:2"]), &config, t);
            assert!(!places.member(id(&places, 2)).is_some_and(Member::is_used));
            assert!(places.checked(id(&places, 1), false, t));
            assert_eq!(take_all(&mut places, t), expected);
        }
    }

    #[test]
    fn whatever_comes_and_goes_each_place_is_counted_until_it_is_given_back() {
        let t = Instant::now();
        let all = wanted(&["a:1", "a:2", "a:3", "b:4", "c:5", "d:1"]);
        let mut random = fastrand::Rng::with_seed(5);
        let mut places = Places::new(&config(Some(3), AllDown::Refuse));
        // Who holds a place, and whether its connection is still being made.
        let mut held: Vec<(Id, bool)> = Vec::new();
        for _ in 0..20_000 {
            match random.u8(..10) {
                0 => {
                    let some: Vec<_> = all.iter().filter(|_| random.bool()).cloned().collect();
                    let all_down = if random.bool() { AllDown::Try } else { AllDown::Refuse };
                    places.set(&some, &config(random.bool().then_some(3), all_down), t);
                    assert_eq!(places.wanted().count(), some.len());
                }
                1..=4 => held.extend(places.take(&Tried::default(), t).map(|upstream| (upstream.id, true))),
                5 if !held.is_empty() => {
                    let at = random.usize(..held.len());
                    if std::mem::take(&mut held[at].1) {
                        places.connected(held[at].0, MS);
                    }
                }
                6 if !held.is_empty() => {
                    let (id, _) = held[random.usize(..held.len())];
                    places.checked(id, random.bool(), t);
                }
                _ if !held.is_empty() => {
                    let (id, connecting) = held.swap_remove(random.usize(..held.len()));
                    places.given_back(id, connecting);
                }
                _ => {}
            }
            for &(id, _) in &held {
                let open = held.iter().filter(|&&(other, _)| other == id).count();
                assert_eq!(places.record(id).map(|record| record.open()), Some(open));
            }
        }
        held.into_iter().for_each(|(id, connecting)| places.given_back(id, connecting));
        // Who has left is gone.
        assert_eq!(places.members.len(), places.wanted().count());
        assert!(places.records().all(|record| record.open() + record.connecting() == 0));
    }
}
