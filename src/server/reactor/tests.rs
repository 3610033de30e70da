use std::{
    collections::{HashMap, HashSet},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;
use crate::server::conn::Phase;

fn pair(listener: &TcpListener) -> (TcpStream, Conn<usize>) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_nonblocking(true).unwrap();
    (client, Conn::new(server.into(), Instant::now()))
}

/// What may happen to the connections; the number chooses one of them.
#[derive(Debug, Clone)]
enum Step {
    /// A new connection is parked.
    Open,
    /// A client sends a byte.
    Send(usize),
    /// A worker takes the next event and runs its connection.
    Take,
    /// A worker reads what is there and parks its connection.
    Park(usize),
    /// A worker sends its connection to the end of the line.
    Yield(usize),
    /// A worker closes its connection.
    Close(usize),
    /// The acceptor finds that a parked connection has expired.
    Expire(usize),
    /// The acceptor closes a parked connection.
    Evict(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Open),
        4 => any::<usize>().prop_map(Step::Send),
        6 => Just(Step::Take),
        4 => any::<usize>().prop_map(Step::Park),
        1 => any::<usize>().prop_map(Step::Yield),
        1 => any::<usize>().prop_map(Step::Close),
        1 => any::<usize>().prop_map(Step::Expire),
        1 => any::<usize>().prop_map(Step::Evict),
    ]
}

/// The reactor beside what must be true of it.
struct World {
    reactor: Reactor<usize>,
    listener: TcpListener,
    next: usize,
    clients: HashMap<usize, TcpStream>,
    running: Vec<Conn<usize>>,
    parked: HashSet<usize>,
    /// Bytes sent and not yet read.
    unread: HashMap<usize, usize>,
}

impl World {
    fn new() -> Self {
        Self {
            reactor: Reactor::new(CHUNK).unwrap(),
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            next: 0,
            clients: HashMap::new(),
            running: Vec::new(),
            parked: HashSet::new(),
            unread: HashMap::new(),
        }
    }

    fn nth_parked(&self, n: usize) -> Option<usize> {
        let mut parked: Vec<_> = self.parked.iter().copied().collect();
        parked.sort_unstable();
        (!parked.is_empty()).then(|| parked[n % parked.len()])
    }

    fn park(&mut self, conn: Conn<usize>, wake: bool) {
        let id = conn.state.unwrap();
        match self.reactor.park(conn, wake, |_| true) {
            Parking::Parked => assert!(self.parked.insert(id), "{id} was parked twice"),
            Parking::Returned(conn) => self.running.push(conn),
            Parking::Failed(_, errno) => panic!("{errno}"),
        }
    }

    fn take(&mut self) -> bool {
        let Some(event) = self.reactor.poll() else { return false };
        if let Some(conn) = self.reactor.take(event) {
            let id = conn.state.unwrap();
            assert!(self.parked.remove(&id), "{id} was taken but not parked");
            assert!(!conn.wire.drained);
            self.running.push(conn);
        }
        true
    }

    /// Reads to the end of what is there, as a worker does before it parks.
    fn read(&mut self, conn: &mut Conn<usize>) {
        let id = conn.state.unwrap();
        let mut buffer = [0; 64];
        while let Ok(count) = rustix::io::read(&conn.wire.socket, &mut buffer) {
            assert!(count > 0, "{id} was ended by nobody");
            assert!(buffer[..count].iter().all(|&byte| byte == id as u8), "another's bytes");
            *self.unread.get_mut(&id).unwrap() -= count;
        }
    }

    fn closed(&mut self, id: usize) {
        self.unread.remove(&id);
        let mut client = self.clients.remove(&id).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // The end or a reset, but no byte.
        assert!(!matches!(client.read(&mut [0]), Ok(1)));
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Open => {
                let (client, mut conn) = pair(&self.listener);
                conn.state = Some(self.next);
                self.clients.insert(self.next, client);
                self.unread.insert(self.next, 0);
                self.next += 1;
                self.park(conn, false);
            }
            Step::Send(n) if !self.clients.is_empty() => {
                let mut ids: Vec<_> = self.clients.keys().copied().collect();
                ids.sort_unstable();
                let id = ids[n % ids.len()];
                (&self.clients[&id]).write_all(&[id as u8]).unwrap();
                *self.unread.get_mut(&id).unwrap() += 1;
            }
            Step::Take => drop(self.take()),
            Step::Park(n) | Step::Yield(n) | Step::Close(n) if !self.running.is_empty() => {
                let mut conn = self.running.swap_remove(n % self.running.len());
                match step {
                    Step::Close(_) => {
                        let id = conn.state.unwrap();
                        self.reactor.release(&mut conn);
                        drop(conn);
                        self.closed(id);
                    }
                    _ => {
                        self.read(&mut conn);
                        self.park(conn, matches!(step, Step::Yield(_)));
                    }
                }
            }
            Step::Expire(n) | Step::Evict(n) => {
                let Some(id) = self.nth_parked(n) else { return };
                let verdict = if matches!(step, Step::Evict(_)) { Visit::Take } else { Visit::Wake };
                let visit = |_, conn: &mut Conn<usize>| {
                    if conn.state == Some(id) { verdict } else { Visit::Leave }
                };
                let mut taken = Vec::new();
                self.reactor.visit_parked(visit, |conn| taken.push(conn));
                assert_eq!(taken.len(), usize::from(verdict == Visit::Take));
                if !taken.is_empty() {
                    drop(taken);
                    self.parked.remove(&id);
                    self.closed(id);
                }
            }
            _ => {}
        }
    }

    /// Whatever happened: nothing that was sent lies unseen in a parked connection.
    fn settle(mut self) {
        loop {
            while let Some(mut conn) = self.running.pop() {
                self.read(&mut conn);
                self.park(conn, false);
            }
            if !self.take() {
                break;
            }
        }
        assert_eq!(self.parked.len(), self.clients.len());
        assert!(self.unread.values().all(|&bytes| bytes == 0), "unseen: {:?}", self.unread);
        let mut vacant = self.reactor.vacant.lock().reusable.clone();
        vacant.sort_unstable();
        vacant.dedup();
        let unused = self.reactor.vacant.lock().unused as usize;
        assert_eq!(vacant.len() + self.parked.len(), unused, "a slot was lost or given twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_event_is_lost_and_no_slot_is_shared(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.apply(step));
        world.settle();
    }
}

#[test]
fn an_event_of_a_closed_connection_does_not_reach_its_successor() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let reactor = Reactor::new(CHUNK).unwrap();
    let (mut client, conn) = pair(&listener);
    assert!(matches!(reactor.park(conn, false, |_| true), Parking::Parked));
    client.write_all(b"x").unwrap();
    let event = reactor.wait(&mut Instant::now(), &mut false).unwrap();
    let old = event.key;
    reactor.visit_parked(|_, _| Visit::Take, drop);
    let (_successor, conn) = pair(&listener);
    assert!(matches!(reactor.park(conn, false, |_| true), Parking::Parked));
    assert!(reactor.take(event).is_none());
    reactor.visit_parked(
        |key, _| {
            assert_eq!((key.index, key.generation), (old.index, old.generation + 1));
            Visit::Leave
        },
        drop,
    );
}

#[test]
fn a_slot_is_small() {
    let slot = size_of::<Mutex<Slot<()>>>();
    assert!(slot < 200, "{slot} bytes");
}

#[test]
fn the_time_of_a_phase_starts_anew_only_with_progress() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_client, mut conn) = pair(&listener);
    let accepted = conn.since;
    let later = |s| accepted + Duration::from_secs(s);
    conn.settle(later(1));
    assert_eq!((conn.phase, conn.since), (Phase::FirstByte, accepted));
    conn.wire.heard = true;
    conn.input = b"half".to_vec();
    conn.settle(later(2));
    assert_eq!((conn.phase, conn.since), (Phase::Request, later(2)));
    conn.wire.moved = true;
    conn.settle(later(3));
    assert_eq!((conn.phase, conn.since), (Phase::Request, later(2)));
    conn.input.clear();
    conn.wire.consumed = true;
    conn.settle(later(4));
    assert_eq!((conn.phase, conn.since), (Phase::Idle, later(4)));
    // A wake-up for nothing.
    conn.settle(later(5));
    assert_eq!((conn.phase, conn.since), (Phase::Idle, later(4)));
    conn.wire.moved = true;
    conn.settle(later(6));
    assert_eq!((conn.phase, conn.since), (Phase::Idle, later(6)));
    conn.start_lingering(later(7));
    conn.wire.moved = true;
    conn.settle(later(8));
    assert_eq!((conn.phase, conn.since), (Phase::Linger, later(7)));
}
