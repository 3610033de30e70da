//! The ready line: events that were taken and not yet heeded, and tenants that are to be run without
//! one, in the order in which they came. It knows their keys, not what they are.

use std::{
    collections::VecDeque,
    mem::MaybeUninit,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::event::Timespec;

use super::{
    flags::Flags,
    key::{Key, Side},
    poller::{EVENTS, Poller, Space, Watch},
};
use crate::sys::clock::us;

/// The most that are gathered at a time for those whom no worker comes to.
const GATHERED: usize = 1024;
/// For a call that is not to wait.
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// A call that takes longer has waited for its events.
const BLOCKED: Duration = Duration::from_micros(100);

/// Something has happened to a tenant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    pub(crate) key: Key,
    pub(crate) flags: Flags,
    /// It came after this,
    pub(crate) after: Instant,
    /// and before this.
    pub(crate) seen: Instant,
}

#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) poller: Poller,
    /// Oldest first.
    taken: Mutex<VecDeque<Event>>,
    taken_count: AtomicUsize,
    woken: Mutex<Vec<Key>>,
    woken_count: AtomicUsize,
    began: Instant,
    /// When no event was left in the kernel, in microseconds since `began`.
    emptied_us: AtomicU64,
    /// When an event had come that was taken before all those that are left, in the same measure.
    taken_us: AtomicU64,
}

impl Ready {
    pub(crate) fn new() -> rustix::io::Result<Self> {
        Ok(Self {
            poller: Poller::new()?,
            taken: Mutex::new(VecDeque::new()),
            taken_count: AtomicUsize::new(0),
            woken: Mutex::new(Vec::new()),
            woken_count: AtomicUsize::new(0),
            began: Instant::now(),
            emptied_us: AtomicU64::new(0),
            taken_us: AtomicU64::new(0),
        })
    }

    /// Has what happens to a socket become events of this tenant.
    pub(crate) fn watch(
        &self,
        watch: &mut Watch,
        socket: impl AsFd,
        (key, side): (Key, Side),
        output: bool,
    ) -> rustix::io::Result<()> {
        self.poller.watch(watch, socket, key.token(side), output)
    }

    /// Waits for an event, or until the bell is rung. A few events are taken at once, which saves
    /// calls; those beyond the first are left for whichever worker comes first. `now` is the
    /// present, and is afterwards too, unless there was no need to wait; `idle` says whether there was
    /// nothing for a while.
    pub(crate) fn wait(&self, now: &mut Instant, idle: &mut bool) -> Option<Event> {
        self.take().or_else(|| self.next_event(None, now, idle))
    }

    /// An event that is there already.
    pub(crate) fn poll(&self) -> Option<Event> {
        self.take().or_else(|| self.next_event(Some(&AT_ONCE), &mut Instant::now(), &mut false))
    }

    /// Whether there are events that a worker took and left to others, or tenants to be run without one.
    pub(crate) fn is_empty(&self) -> bool {
        self.taken_count.load(SeqCst) == 0 && self.has_no_woken()
    }

    /// The oldest event that a worker took and left to others.
    pub(crate) fn take(&self) -> Option<Event> {
        if self.taken_count.load(SeqCst) == 0 {
            return None;
        }
        let mut taken = self.taken.lock();
        let event = taken.pop_front();
        self.taken_count.store(taken.len(), SeqCst);
        event
    }

    /// Has the tenant run, after all those for which there is an event now. Whoever calls it sees to it
    /// that a worker looks.
    pub(crate) fn wake(&self, key: Key) {
        let mut woken = self.woken.lock();
        woken.push(key);
        self.woken_count.store(woken.len(), SeqCst);
    }

    fn has_no_woken(&self) -> bool {
        self.woken_count.load(SeqCst) == 0
    }

    fn next_event(&self, timeout: Option<&Timespec>, now: &mut Instant, idle: &mut bool) -> Option<Event> {
        let timeout = if self.has_no_woken() { timeout } else { Some(&AT_ONCE) };
        let mut space: Space = [MaybeUninit::uninit(); EVENTS];
        let called = *now;
        let emptied = self.at(self.emptied_us.load(Relaxed));
        let waited = self.poller.wait(&mut space, timeout);
        *now = Instant::now();
        let (count, events) = waited?;
        // Events that had to be waited for have only just come.
        *idle = timeout.is_none() && count < EVENTS && *now > called + BLOCKED;
        let after = if *idle { *now } else { emptied };
        if count < EVENTS {
            self.emptied_us.store(self.us(*now), Relaxed);
        }
        let mut events = events.map(|(token, flags)| {
            let (key, side) = Key::from_token(token);
            Event { key, flags: Flags::new(side, flags), after, seen: *now }
        });
        let first = events.next();
        let mut others = events.peekable();
        if others.peek().is_none() && self.has_no_woken() {
            return first;
        }
        self.leave_to_others(first, others, *now)
    }

    /// Puts events and those who are to be run without one into the line.
    fn leave_to_others(
        &self,
        first: Option<Event>,
        others: impl Iterator<Item = Event>,
        now: Instant,
    ) -> Option<Event> {
        let mut taken = self.taken.lock();
        taken.extend(others);
        {
            let mut woken = self.woken.lock();
            let event = |key| Event { key, flags: Flags::WOKEN, after: now, seen: now };
            taken.extend(woken.drain(..).map(event));
            self.woken_count.store(0, SeqCst);
        }
        let first = first.or_else(|| taken.pop_front());
        self.taken_count.store(taken.len(), SeqCst);
        first
    }

    /// Takes what events there are, so that those can be looked at that no worker comes to, and gives the
    /// oldest of them. They stay where workers find them.
    pub(crate) fn gather(&self) -> Vec<Event> {
        while self.taken_count.load(SeqCst) < GATHERED {
            let before = self.taken_count.load(SeqCst);
            let Some(event) = self.next_event(Some(&AT_ONCE), &mut Instant::now(), &mut false) else { break };
            let mut taken = self.taken.lock();
            // It is older than those that came with it, if no worker has taken some meanwhile.
            let place = before.min(taken.len());
            taken.insert(place, event);
            self.taken_count.store(taken.len(), SeqCst);
        }
        self.taken.lock().iter().take(GATHERED).copied().collect()
    }

    /// Says that the event that was just taken had come at this time. Events are taken in the order
    /// in which they came, so that none that is left is older.
    pub(crate) fn had_come(&self, at: Instant) {
        self.taken_us.store(self.us(at), Relaxed);
    }

    /// After which time the event has come.
    pub(crate) fn after(&self, event: &Event) -> Instant {
        event.after.max(self.at(self.taken_us.load(Relaxed)))
    }

    /// After which time the next event has come, if there is one.
    pub(crate) fn oldest_after(&self) -> Instant {
        let some = self.taken_count.load(SeqCst) > 0;
        let front = if some { self.taken.lock().front().copied() } else { None };
        front.map_or_else(
            || self.at(self.emptied_us.load(Relaxed).max(self.taken_us.load(Relaxed))),
            |event| self.after(&event),
        )
    }

    /// A time as a number.
    pub(crate) fn us(&self, at: Instant) -> u64 {
        us(at.saturating_duration_since(self.began))
    }

    pub(crate) fn at(&self, us: u64) -> Instant {
        self.began + Duration::from_micros(us)
    }
}

/// Has one tenant run, from whatever thread. One that is running is run once more.
#[derive(Debug, Clone)]
pub(crate) struct Waker {
    ready: Arc<Ready>,
    key: Key,
}

impl Waker {
    pub(crate) fn new(ready: Arc<Ready>, key: Key) -> Self {
        Self { ready, key }
    }

    pub(crate) fn wake(&self) {
        self.ready.wake(self.key);
        self.ready.poller.announce();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> Key {
        Key { index, generation: 1 }
    }

    /// The keys of what is there, in their order.
    fn all(ready: &Ready) -> Vec<Key> {
        std::iter::from_fn(|| ready.poll()).map(|event| event.key).collect()
    }

    #[test]
    fn who_is_woken_comes_once_and_in_order() {
        let ready = Arc::new(Ready::new().unwrap());
        assert!(ready.is_empty());
        (0..20).for_each(|index| Waker::new(Arc::clone(&ready), key(index)).wake());
        assert!(!ready.is_empty());
        assert_eq!(all(&ready), (0..20).map(key).collect::<Vec<_>>());
        assert!(ready.is_empty());
    }

    #[test]
    fn what_is_gathered_stays_and_keeps_its_order() {
        let ready = Ready::new().unwrap();
        (0..50).for_each(|index| ready.wake(key(index)));
        let gathered: Vec<_> = ready.gather().iter().map(|event| event.key).collect();
        assert_eq!(gathered, (0..50).map(key).collect::<Vec<_>>());
        assert_eq!(all(&ready), gathered);
    }

    #[test]
    fn a_bell_rung_for_an_idle_worker_is_rung_once_until_it_is_heard() {
        let ready = Ready::new().unwrap();
        ready.poller.announce();
        // Nobody was idle, so that nobody is waked.
        assert!(ready.poll().is_none());
        let idle = ready.poller.begin_idle();
        ready.wake(key(1));
        ready.poller.announce();
        assert_eq!(ready.wait(&mut Instant::now(), &mut false).map(|event| event.key), Some(key(1)));
        assert!(idle.end());
        assert!(!ready.poller.has_idle_worker());
    }
}
