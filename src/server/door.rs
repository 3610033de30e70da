//! The door: whether there is room for a newcomer, and what becomes of it: let in, parked, refused, or
//! let in in place of another. It knows no listeners.

use std::{
    collections::HashMap,
    iter, mem,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    eviction::Eviction,
    moderation::Moderation,
    pool::{Pool, source_of},
    queue::{Class, Entrance, Newcomer},
    room::Room,
};
use crate::{
    net::slots::Parking,
    overload::{Source, Verdict},
    session::{
        handler::{Handler, Refusal},
        life::Session,
    },
    sys::clock::thread_cpu_time,
};

/// A queue that is full by count is a burst for this long, and then overload, if no place was made.
const BURST: Duration = Duration::from_millis(100);
/// Newcomers for each worker that may be parked without passing through the queue before the workers
/// get a chance to be busy.
const DIRECT: usize = 16;
/// Newcomers of whom a worker is told together: on one core it would run at once, and for each of them.
const TOGETHER: usize = 8;

pub(super) struct Door<H: Handler> {
    pub(super) pool: Arc<Pool<H>>,
    pub(super) entrance: Entrance,
    pub(super) moderation: Moderation,
    eviction: Eviction,
    /// Since when there has been no place for a newcomer.
    stuck_since: Option<Instant>,
    /// Newcomers that may still be parked without passing through the queue.
    direct_left: usize,
    /// Newcomers in the queue of whom no worker was told.
    unannounced: usize,
}

/// Somebody who was accepted.
pub(super) struct Accepted {
    pub(super) socket: OwnedFd,
    pub(super) at: Instant,
    /// It may have waited in the backlog before that.
    pub(super) late: bool,
}

impl<H: Handler> Door<H> {
    pub(super) fn new(pool: Arc<Pool<H>>, entrance: Entrance) -> Self {
        Self {
            pool,
            entrance,
            moderation: Moderation::new(Instant::now()),
            eviction: Eviction::default(),
            stuck_since: None,
            direct_left: 0,
            unannounced: 0,
        }
    }

    /// Says that the workers have had a chance to be busy.
    pub(super) fn renew_direct(&mut self) {
        self.direct_left = DIRECT * self.pool.running.len();
    }

    /// What there is no room in, if anything. A place that an idle session can give up is room.
    pub(super) fn lacks(&mut self, now: Instant) -> Option<Room> {
        if !self.has_room_for(Class::Usual, now) {
            return Some(Room::Queue);
        }
        if self.needs_place() && !self.eviction.is_possible(&self.pool.parked, now) {
            return Some(Room::Connection);
        }
        self.stuck_since = None;
        None
    }

    /// Whether one of this class can be served in time.
    pub(super) fn has_room_for(&self, class: Class, now: Instant) -> bool {
        !self.has_full_queue(class) && self.pool.gate.fits(now, self.entrance.len(class))
    }

    /// Whether the queue is at its bound by count.
    pub(super) fn has_full_queue(&self, class: Class) -> bool {
        self.entrance.len(class) >= self.pool.control.live.queue()
    }

    /// Whether somebody has to give way to a newcomer.
    pub(super) fn needs_place(&self) -> bool {
        self.pool.control.open.get() >= self.pool.control.live.max_connections()
    }

    /// Whether there is a place for a newcomer: where none is free, the session that has been idle longest
    /// gives way. (Several do when there are to be fewer than before.)
    pub(super) fn find_place(&mut self, now: Instant) -> bool {
        while self.needs_place() {
            if !self.evict(now) {
                return false;
            }
        }
        true
    }

    /// Ends the session that has been idle longest; whether there was one.
    fn evict(&mut self, now: Instant) -> bool {
        let possible = self.eviction.is_possible(&self.pool.parked, now);
        let idle = if possible { self.eviction.evict(&self.pool.parked, now) } else { None };
        let Some(mut idle) = idle else { return false };
        if idle.lingers().is_none() {
            self.pool.counters().evicted.count();
        }
        if idle.farewell().is_spread() {
            idle.reset_on_close();
        }
        self.pool.retire(idle);
        true
    }

    /// What to do with a newcomer for whom there is no room, when so many wait in the backlog. Where the
    /// queue or the connections are at their bound by count, newcomers wait there as long as places are
    /// made.
    pub(super) fn turn_away(&mut self, room: Room, in_backlog: usize, now: Instant) -> Verdict {
        let since = *self.stuck_since.get_or_insert(now);
        let gate = &self.pool.gate;
        let longest = match room {
            Room::Queue if !gate.fits(now, self.entrance.len(Class::Usual) + in_backlog) => Duration::ZERO,
            Room::Queue => BURST,
            Room::Connection => gate.tolerance(),
        };
        if now < since + longest { Verdict::Hold(Some(since + longest)) } else { gate.turn_away(now) }
    }

    /// Lets somebody in for whom there is room.
    pub(super) fn admit(&mut self, accepted: Accepted, class: Class) {
        let pool = &self.pool;
        pool.gate.admitted(accepted.at, self.entrance.len(class));
        self.moderation.newcomer();
        pool.counters().accepted.count();
        let draining = pool.service.context.stage.is_draining();
        // One whom the kernel has held back has spoken.
        let direct =
            pool.client_speaks_first() && self.direct_left > 0 && !draining && !self.moderation.naps();
        let newcomer = self.newcomer(accepted);
        if direct && self.pool.parked.ready.poller.has_idle_worker() {
            self.direct_left -= 1;
            return self.park(newcomer.into_session());
        }
        self.enqueue(newcomer, class);
    }

    /// Has those in the queue be served by turns: one of each source, then the second of each, and so on. They came
    /// while sources were not told apart. (Fair queueing as in RFC 970.)
    pub(super) fn sort_by_turns(&mut self) {
        let mut turns = HashMap::<_, usize>::new();
        let line = iter::from_fn(|| self.pool.queue.take_of(Class::Usual));
        let mut line: Vec<_> = line
            .map(|newcomer| {
                let source = source_of(&newcomer.socket).unwrap_or(Source::UNKNOWN);
                let turn = turns.entry(source).or_default();
                *turn += 1;
                (*turn, newcomer)
            })
            .collect();
        line.sort_by_key(|(turn, _)| *turn);
        line.into_iter().for_each(|(_, newcomer)| self.enqueue(newcomer, Class::Usual));
    }

    /// Of which class somebody is: light where its source has had little, and there is room for such.
    pub(super) fn class_of(&self, accepted: &Accepted) -> Class {
        let Accepted { socket, at, .. } = accepted;
        let has_room = self.has_room_for(Class::Light, *at);
        if has_room && self.pool.has_had_little(source_of(socket), *at) { Class::Light } else { Class::Usual }
    }

    fn newcomer(&self, Accepted { socket, at, late }: Accepted) -> Newcomer {
        Newcomer { socket, accepted: at, late, open: self.pool.control.open.count() }
    }

    pub(super) fn enqueue(&mut self, newcomer: Newcomer, class: Class) {
        // It is the only sender and has seen that there is room.
        if let Err(newcomer) = self.entrance.push(newcomer, class) {
            return self.refuse_newcomer(newcomer, Room::Queue, thread_cpu_time());
        }
        self.pool.counters().queue_highest.raise(self.entrance.len(class) as u64);
        self.unannounced += 1;
        if self.unannounced == TOGETHER {
            self.announce();
        }
    }

    /// Wakes a worker for those who were let into the queue, if one is idle. To be called before waiting.
    pub(super) fn announce(&mut self) {
        if mem::take(&mut self.unannounced) > 0 {
            self.pool.parked.ready.poller.announce();
        }
    }

    /// Parks a newcomer without a detour: its request is usually still on the way, and when it
    /// comes, it wakes an idle worker itself.
    pub(super) fn park(&self, session: Session<H::State>) {
        match self.pool.park(session, false, |_| true) {
            Parking::Parked => {}
            Parking::Returned(session) | Parking::Failed(session, _) => {
                self.pool.counters().failed.count();
                self.pool.retire(session);
            }
        }
    }

    /// Tells the newcomer no, or the one that has been in the queue longest, where that is wanted. One whose source
    /// has had little is let in. `started` is this thread's CPU time before it was accepted.
    pub(super) fn refuse(&mut self, accepted: Accepted, room: Room, started: Duration) {
        if room == Room::Queue && self.class_of(&accepted) == Class::Light && self.find_place(accepted.at) {
            return self.admit(accepted, Class::Light);
        }
        if room == Room::Queue && self.pool.control.live.drops_oldest() {
            return self.replace(accepted, started);
        }
        let newcomer = self.newcomer(accepted);
        self.refuse_newcomer(newcomer, room, started);
    }

    fn refuse_newcomer(&self, newcomer: Newcomer, room: Room, started: Duration) {
        let counters = self.pool.counters();
        let (why, counter) = match room {
            Room::Queue => (Refusal::QueueFull, &counters.refused_queue_full),
            Room::Connection => (Refusal::ConnectionsFull, &counters.refused_connections_full),
        };
        counter.count();
        let accepted = newcomer.accepted;
        self.pool.refuse(newcomer.into_session(), why, started);
        counters.refusals.record(0, accepted.elapsed(), 1);
    }

    /// Tells the one that has been in the queue longest no, and lets the newcomer in.
    fn replace(&mut self, accepted: Accepted, started: Duration) {
        if let Some(oldest) = self.pool.queue.take_of(Class::Usual) {
            self.pool.counters().refused_oldest.count();
            self.pool.refuse(oldest.into_session(), Refusal::QueueFull, started);
        }
        if !self.find_place(accepted.at) {
            let newcomer = self.newcomer(accepted);
            return self.refuse_newcomer(newcomer, Room::Connection, started);
        }
        self.admit(accepted, Class::Usual);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr, TcpListener};

    use rustix::net::{self, AddressFamily, SocketType};

    use super::*;
    use crate::{Connection, Next, Server, server::start::assemble, sys::peer};

    /// Connects from this address, and gives what was accepted.
    fn accepted(listener: &TcpListener, from: &str) -> (Accepted, OwnedFd) {
        let client = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        net::bind(&client, &SocketAddr::new(from.parse::<IpAddr>().unwrap(), 0)).unwrap();
        net::connect(&client, &listener.local_addr().unwrap()).unwrap();
        let socket = listener.accept().unwrap().0.into();
        (Accepted { socket, at: Instant::now(), late: false }, client)
    }

    fn door() -> Door<fn(&mut Connection<'_>) -> std::io::Result<Next>> {
        let (config, listeners) = Server::builder().bind("127.0.0.1:0").workers(1).listen().unwrap();
        assemble(&config, listeners, (|_| Ok(Next::Close)) as fn(&mut Connection<'_>) -> _).unwrap().door
    }

    /// The sources in the queue, in the order in which they are served.
    fn served(door: &Door<impl Handler>) -> Vec<String> {
        let next = || door.pool.queue.take();
        iter::from_fn(next).map(|newcomer| peer::addr(&newcomer.socket).unwrap().ip().to_string()).collect()
    }

    #[test]
    fn those_who_came_before_sources_were_told_apart_are_served_by_turns() {
        let (mut door, listener) = (door(), TcpListener::bind("127.0.0.1:0").unwrap());
        let mut clients = Vec::new();
        for from in ["127.0.1.1", "127.0.1.1", "127.0.1.1", "127.0.2.1", "127.0.2.1"] {
            let (accepted, client) = accepted(&listener, from);
            door.admit(accepted, Class::Usual);
            clients.push(client);
        }
        door.sort_by_turns();
        assert_eq!(served(&door), ["127.0.1.1", "127.0.2.1", "127.0.1.1", "127.0.2.1", "127.0.1.1"]);
    }

    #[test]
    fn who_has_had_little_is_let_in_where_others_are_refused() {
        let (mut door, listener) = (door(), TcpListener::bind("127.0.0.1:0").unwrap());
        let greedy = SocketAddr::from(([127, 0, 1, 1], 0));
        let now = Instant::now();
        door.pool.shares.spent(Source::from(greedy), Duration::from_millis(10), now);
        let (polite, _polite) = accepted(&listener, "127.0.2.1");
        door.refuse(polite, Room::Queue, thread_cpu_time());
        let (other, _other) = accepted(&listener, "127.0.1.1");
        door.refuse(other, Room::Queue, thread_cpu_time());
        assert_eq!((door.entrance.len(Class::Light), door.entrance.len(Class::Usual)), (1, 0));
        assert_eq!(served(&door), ["127.0.2.1"]);
        assert_eq!(door.pool.counters().refused_queue_full.get(), 1);
    }
}
