//! Slots for connections that have parked at least once, and the epoll instance on which idle
//! workers wait for them.
//!
//! A connection is registered once, edge-triggered, and stays so until it is closed. Its event
//! carries the slot's index and generation, since a closed descriptor's number comes back at once
//! while an event of its predecessor may still be under way.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    mem::{self, MaybeUninit},
    os::fd::OwnedFd,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::{
    event::{
        Timespec,
        epoll::{self, EventData, EventFlags},
    },
    io::Errno,
};

use super::{
    conn::{Conn, Second},
    runqueue::{RunQueue, Waker},
};
use crate::sys::clock::us;

/// Slots are made in chunks as they are first needed.
const CHUNK: usize = 256;
/// Events taken at a time. One at a time costs a twentieth more CPU per request on a kept connection.
const EVENTS: usize = 16;
/// The most that are gathered at a time for those whom no worker comes to.
const GATHERED: usize = 1024;
/// For a call that is not to wait.
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// A call that takes longer has waited for its events.
const BLOCKED: Duration = Duration::from_micros(100);
/// The key of the bell; no slot's, since their index would be beyond the last.
const BELL: u64 = u64::MAX;
/// In a key: the event is the second descriptor's. No index is as large.
const SECOND: u64 = 1 << 31;

type Chunk<S> = Box<[Mutex<Slot<S>>]>;

/// Parked connections and the means to wait for them.
#[derive(Debug)]
pub(crate) struct Reactor<S> {
    epoll: OwnedFd,
    pub(crate) queue: Arc<RunQueue>,
    /// Events that were taken and not yet heeded, oldest first.
    ready: Mutex<VecDeque<Event>>,
    ready_count: AtomicUsize,
    chunks: Box<[OnceLock<Chunk<S>>]>,
    vacant: Mutex<Vacant>,
    registered: AtomicUsize,
    began: Instant,
    /// When no event was left in the kernel, in microseconds since `began`.
    emptied_us: AtomicU64,
    /// When an event had come that was taken before all those that are left, in the same measure.
    taken_us: AtomicU64,
}

/// Which slot, and which of the connections that have been in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

/// What has happened to a connection's socket, and to the second one where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags {
    first: EventFlags,
    second: EventFlags,
    /// It is to be run without an event.
    woken: bool,
}

impl Flags {
    const NONE: Self = Self { first: EventFlags::empty(), second: EventFlags::empty(), woken: false };

    fn and(self, other: Self) -> Self {
        Self {
            first: self.first | other.first,
            second: self.second | other.second,
            woken: self.woken | other.woken,
        }
    }

    fn tell<S>(self, conn: &mut Conn<S>) {
        conn.wire.note(self.first);
        if let Some(wire) = conn.second.as_mut().and_then(|second| second.wire.as_mut()) {
            wire.note(self.second);
        }
    }
}

/// A connection has input, or room for output, or has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    pub(crate) key: Key,
    pub(crate) flags: Flags,
    /// It came after this,
    pub(crate) after: Instant,
    /// and before this.
    pub(crate) seen: Instant,
}

/// Whether `visit` takes a connection out of its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visit {
    Leave,
    Take,
    /// Leave it, but have a worker woken for it.
    Wake,
}

/// What came of parking a connection.
#[derive(Debug)]
pub(crate) enum Parking<S> {
    Parked,
    /// There is something to do for it first.
    Returned(Conn<S>),
    /// It cannot wait for events: out of slots, memory or watches.
    Failed(Conn<S>, Errno),
}

#[derive(Debug)]
struct Slot<S> {
    generation: u32,
    holds: Holds<S>,
    /// The socket, wherever the connection is.
    socket: Option<Arc<OwnedFd>>,
}

#[derive(Debug)]
enum Holds<S> {
    Nothing,
    Parked(Conn<S>),
    /// The connection is with a worker; events that have come meanwhile.
    Running(Flags),
}

impl<S> Holds<S> {
    /// The events that came while the connection was with a worker.
    fn take_events(&mut self) -> Flags {
        match self {
            Self::Running(flags) => mem::replace(flags, Flags::NONE),
            Self::Nothing | Self::Parked(_) => Flags::NONE,
        }
    }
}

#[derive(Debug)]
struct Vacant {
    reusable: Vec<u32>,
    unused: u32,
}

impl<S> Reactor<S> {
    /// With room for so many connections.
    pub(crate) fn new(capacity: usize) -> rustix::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let queue = Arc::new(RunQueue::new()?);
        epoll::add(&epoll, &queue.bell, EventData::new_u64(BELL), EventFlags::IN | EventFlags::ET)?;
        Ok(Self {
            epoll,
            queue,
            ready: Mutex::new(VecDeque::new()),
            ready_count: AtomicUsize::new(0),
            chunks: (0..capacity.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect(),
            vacant: Mutex::new(Vacant { reusable: Vec::new(), unused: 0 }),
            registered: AtomicUsize::new(0),
            began: Instant::now(),
            emptied_us: AtomicU64::new(0),
            taken_us: AtomicU64::new(0),
        })
    }

    /// Whether any connection is registered.
    pub(crate) fn is_used(&self) -> bool {
        self.registered.load(Relaxed) > 0
    }

    /// Waits for an event, or until the bell is rung. A few events are taken at once, which saves
    /// calls; those beyond the first are left for whichever worker comes first. `now` is the
    /// present, and is afterwards too; `idle` says whether there was nothing for a while.
    pub(crate) fn wait(&self, now: &mut Instant, idle: &mut bool) -> Option<Event> {
        self.take_ready().or_else(|| self.next_event(None, now, idle))
    }

    /// An event that is there already.
    pub(crate) fn poll(&self) -> Option<Event> {
        self.take_ready().or_else(|| self.next_event(Some(&AT_ONCE), &mut Instant::now(), &mut false))
    }

    /// Whether there are events that a worker took and left to others, or connections to be run
    /// without one.
    pub(crate) fn has_ready(&self) -> bool {
        self.ready_count.load(SeqCst) > 0 || !self.queue.is_empty()
    }

    /// The oldest of those.
    pub(crate) fn take_ready(&self) -> Option<Event> {
        if self.ready_count.load(SeqCst) == 0 {
            return None;
        }
        let mut ready = self.ready.lock();
        let event = ready.pop_front();
        self.ready_count.store(ready.len(), SeqCst);
        event
    }

    fn next_event(&self, timeout: Option<&Timespec>, now: &mut Instant, idle: &mut bool) -> Option<Event> {
        let timeout = if self.queue.is_empty() { timeout } else { Some(&AT_ONCE) };
        let mut space = [MaybeUninit::uninit(); EVENTS];
        let called = if timeout.is_none() { Instant::now() } else { *now };
        let emptied = self.at(self.emptied_us.load(Relaxed));
        // It fails only with EINTR, and then the caller comes back.
        let (events, _) = epoll::wait(&self.epoll, &mut space, timeout).ok()?;
        *now = Instant::now();
        // Events that had to be waited for have only just come.
        *idle = timeout.is_none() && events.len() < EVENTS && *now > called + BLOCKED;
        let after = if *idle { *now } else { emptied };
        if events.len() < EVENTS {
            self.emptied_us.store(self.us(*now), Relaxed);
        }
        // The bell is heard at once: left to others, nobody would ring it again.
        let mut events = events.iter().filter_map(|event| {
            let (data, flags) = (event.data, event.flags);
            match data.u64() {
                BELL => {
                    self.queue.heard();
                    None
                }
                data => {
                    let first = Flags { first: flags, ..Flags::NONE };
                    let second = Flags { second: flags, ..Flags::NONE };
                    let flags = if data & SECOND == 0 { first } else { second };
                    Some(Event { key: Key::from_u64(data & !SECOND), flags, after, seen: *now })
                }
            }
        });
        let mut first = events.next();
        let mut others = events.peekable();
        if others.peek().is_some() || !self.queue.is_empty() {
            let mut ready = self.ready.lock();
            ready.extend(others);
            let woken = Flags { woken: true, ..Flags::NONE };
            self.queue.take_all(|key| ready.push_back(Event { key, flags: woken, after: *now, seen: *now }));
            first = first.or_else(|| ready.pop_front());
            self.ready_count.store(ready.len(), SeqCst);
        }
        first
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
        let taken = self.ready_count.load(SeqCst) > 0;
        let front = if taken { self.ready.lock().front().copied() } else { None };
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

    /// Takes what events there are, so that those connections can be looked at that no worker comes
    /// to, and gives the oldest of them. They stay where workers find them.
    pub(crate) fn gather(&self) -> Vec<Event> {
        while self.ready_count.load(SeqCst) < GATHERED {
            let before = self.ready_count.load(SeqCst);
            let Some(event) = self.next_event(Some(&AT_ONCE), &mut Instant::now(), &mut false) else { break };
            let mut ready = self.ready.lock();
            // It is older than those that came with it, if no worker has taken some meanwhile.
            let place = before.min(ready.len());
            ready.insert(place, event);
            self.ready_count.store(ready.len(), SeqCst);
        }
        self.ready.lock().iter().take(GATHERED).copied().collect()
    }

    /// Takes the connection out of its slot if it is parked there, and if that is wanted.
    pub(crate) fn take_if(&self, key: Key, wanted: impl FnOnce(&Conn<S>) -> bool) -> Option<Conn<S>> {
        let mut slot = self.slot(key)?.lock();
        let is_wanted = match &slot.holds {
            Holds::Parked(conn) => slot.generation == key.generation && wanted(conn),
            Holds::Nothing | Holds::Running(_) => false,
        };
        if !is_wanted {
            return None;
        }
        match mem::replace(&mut slot.holds, Holds::Running(Flags::NONE)) {
            Holds::Parked(conn) => Some(conn),
            Holds::Nothing | Holds::Running(_) => None,
        }
    }

    /// Takes the connection out of its slot to run it. None when it has ended, or when a worker
    /// has it; that one is told of the event when it parks.
    pub(crate) fn take(&self, Event { key, flags, .. }: Event) -> Option<Conn<S>> {
        let mut slot = self.slot(key)?.lock();
        if slot.generation != key.generation {
            return None;
        }
        match mem::replace(&mut slot.holds, Holds::Running(Flags::NONE)) {
            Holds::Parked(mut conn) => {
                flags.tell(&mut conn);
                Some(conn)
            }
            Holds::Running(earlier) => {
                slot.holds = Holds::Running(earlier.and(flags));
                None
            }
            Holds::Nothing => {
                slot.holds = Holds::Nothing;
                None
            }
        }
    }

    /// Puts a connection into its slot, and registers it the first time. `wake` sends it to the
    /// end of the line instead of leaving it until there is an event. It is returned when there
    /// was an event meanwhile, or when `stay`, asked with the slot locked, says no.
    pub(crate) fn park(
        &self,
        mut conn: Conn<S>,
        wake: bool,
        stay: impl FnOnce(&Conn<S>) -> bool,
    ) -> Parking<S> {
        let (first, new) = (!conn.registered, conn.key.is_none());
        let Some(key) = conn.key.or_else(|| self.allocate()) else {
            return Parking::Failed(conn, Errno::NOMEM);
        };
        let Some(slot) = self.slot(key) else { return Parking::Failed(conn, Errno::NOMEM) };
        let mut slot = slot.lock();
        let missed = slot.holds.take_events();
        // On its way to the end of the line, a missed event makes no difference.
        missed.tell(&mut conn);
        let staying = (wake || missed == Flags::NONE) && stay(&conn);
        let registered = if staying { self.register(&mut conn, first, key) } else { Ok(()) };
        if staying && registered.is_ok() {
            if new {
                conn.key = Some(key);
                slot.socket = Some(Arc::clone(&conn.wire.socket));
            }
            slot.holds = Holds::Parked(conn);
            if wake {
                self.queue.push(key);
            }
            return Parking::Parked;
        }
        drop(slot);
        if new {
            self.vacate(key);
        }
        match registered {
            Err(errno) => Parking::Failed(conn, errno),
            Ok(()) => Parking::Returned(conn),
        }
    }

    fn register(&self, conn: &mut Conn<S>, first: bool, key: Key) -> rustix::io::Result<()> {
        let output = !conn.wire.is_flushed();
        if first {
            epoll::add(&self.epoll, &conn.wire.socket, key.data(), interest(output))?;
            conn.registered = true;
            self.registered.fetch_add(1, Relaxed);
        } else if output && !conn.wants_output {
            // Modifying looks at the socket anew, so no edge can be missed.
            epoll::modify(&self.epoll, &conn.wire.socket, key.data(), interest(output))?;
        }
        conn.wants_output |= output;
        match &mut conn.second {
            Some(second) => self.register_second(second, key),
            None => Ok(()),
        }
    }

    fn register_second(&self, second: &mut Second, key: Key) -> rustix::io::Result<()> {
        let Some(wire) = &second.wire else { return Ok(()) };
        let output = second.awaited.is_some() || !wire.is_flushed();
        let data = EventData::new_u64(key.to_u64() | SECOND);
        if !second.registered {
            epoll::add(&self.epoll, &wire.socket, data, interest(output))?;
        } else if output && !second.wants_output {
            epoll::modify(&self.epoll, &wire.socket, data, interest(output))?;
        }
        second.registered = true;
        second.wants_output |= output;
        Ok(())
    }

    /// Gives the slot of a running connection back. Closing the socket, of which there is no
    /// duplicate, ends the registration; what it still reports finds another generation. (To
    /// delete it first cost half a microsecond per short connection.)
    pub(crate) fn release(&self, conn: &mut Conn<S>) {
        if std::mem::take(&mut conn.registered) {
            self.registered.fetch_sub(1, Relaxed);
        }
        if let Some(key) = conn.key.take() {
            self.vacate(key);
        }
    }

    /// What has a running connection run once more; it gets its slot if it has none yet. None where
    /// there is no slot.
    pub(crate) fn waker(&self, key: &mut Option<Key>, socket: &Arc<OwnedFd>) -> Option<Waker> {
        if key.is_none() {
            let new = self.allocate()?;
            self.slot(new)?.lock().socket = Some(Arc::clone(socket));
            *key = Some(new);
        }
        key.map(|key| Waker::new(Arc::clone(&self.queue), key))
    }

    /// The socket of a connection, which may be with a worker; none when it has ended.
    pub(crate) fn socket(&self, key: Key) -> Option<Arc<OwnedFd>> {
        let slot = self.slot(key)?.lock();
        slot.socket.clone().filter(|_| slot.generation == key.generation)
    }

    /// Shows every parked connection to `visit`, one at a time and with its slot locked, and hands
    /// those that it takes to `taken`, released.
    pub(crate) fn visit_parked(
        &self,
        mut visit: impl FnMut(Key, &mut Conn<S>) -> Visit,
        mut taken: impl FnMut(Conn<S>),
    ) {
        let unused = self.vacant.lock().unused;
        for index in 0..unused {
            if let Some(conn) = self.visit_slot(index, &mut visit) {
                taken(conn);
            }
        }
    }

    /// The same for one connection, if it is still parked.
    pub(crate) fn take_parked(&self, key: Key, mut keep: impl FnMut(&Conn<S>) -> bool) -> Option<Conn<S>> {
        self.visit_slot(key.index, &mut |found, conn| {
            if found == key && !keep(conn) { Visit::Take } else { Visit::Leave }
        })
    }

    fn visit_slot(&self, index: u32, visit: &mut impl FnMut(Key, &mut Conn<S>) -> Visit) -> Option<Conn<S>> {
        let mut slot = self.slot(Key { index, generation: 0 })?.lock();
        let key = Key { index, generation: slot.generation };
        let Holds::Parked(conn) = &mut slot.holds else { return None };
        match visit(key, conn) {
            Visit::Leave => return None,
            Visit::Wake => {
                self.queue.push(key);
                return None;
            }
            Visit::Take => {}
        }
        let holds = mem::replace(&mut slot.holds, Holds::Running(Flags::NONE));
        drop(slot);
        let Holds::Parked(mut conn) = holds else { return None };
        self.release(&mut conn);
        Some(conn)
    }

    fn slot(&self, key: Key) -> Option<&Mutex<Slot<S>>> {
        let index = key.index as usize;
        let chunk = self.chunks.get(index / CHUNK)?.get_or_init(|| {
            (0..CHUNK)
                .map(|_| Mutex::new(Slot { generation: 0, holds: Holds::Nothing, socket: None }))
                .collect()
        });
        chunk.get(index % CHUNK)
    }

    fn allocate(&self) -> Option<Key> {
        let index = {
            let mut vacant = self.vacant.lock();
            match vacant.reusable.pop() {
                Some(index) => index,
                None if (vacant.unused as usize) < self.chunks.len() * CHUNK => {
                    vacant.unused += 1;
                    vacant.unused - 1
                }
                None => return None,
            }
        };
        let mut slot = self.slot(Key { index, generation: 0 })?.lock();
        slot.holds = Holds::Running(Flags::NONE);
        Some(Key { index, generation: slot.generation })
    }

    /// Empties the slot; events of the connection that was in it find another generation.
    fn vacate(&self, key: Key) {
        let Some(slot) = self.slot(key) else { return };
        {
            let mut slot = slot.lock();
            slot.generation = slot.generation.wrapping_add(1);
            slot.holds = Holds::Nothing;
            slot.socket = None;
        }
        self.vacant.lock().reusable.push(key.index);
    }
}

impl Key {
    fn data(self) -> EventData {
        EventData::new_u64(self.to_u64())
    }

    /// Never the largest number.
    pub(crate) fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_u64(data: u64) -> Self {
        // Both halves are cut to their 32 bits on purpose.
        Self { index: data as u32, generation: (data >> 32) as u32 }
    }
}

/// Room for output is only of interest while some waits, or else every connection would start
/// with an event for it.
fn interest(output: bool) -> EventFlags {
    let input = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
    if output { input | EventFlags::OUT } else { input }
}
