//! Tcp over TCP: the handler, for which each connection is a relay or on its way to become one. It knows
//! no protocol.

use std::{borrow::Cow, io, mem, sync::Arc, time::Instant};

use rustix::io::Errno;

use super::{
    both::Both,
    flow::Pipes,
    live::{InForce, Live},
    preface,
    tried::Tried,
    upstreams::{InLine, Lease, Left, Place, Turn, Upstreams, source_of},
};
use crate::{
    session::{
        connection::Connection,
        farewell::Farewell,
        handler::{Handler, Next, Refusal},
    },
    sys::connect,
};

#[derive(Debug)]
pub(super) struct Tcp {
    upstreams: Arc<Upstreams>,
    live: Arc<Live>,
    pipes: Pipes,
}

/// How far a connection has come.
#[derive(Debug)]
enum Stage {
    /// In line for a place.
    Waiting(InLine),
    Connecting {
        lease: Lease,
        tried: Tried,
    },
    Relaying(Relaying),
    Ended,
}

#[derive(Debug)]
struct Relaying {
    lease: Lease,
    tried: Tried,
    both: Both,
}

/// One relay; its place is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    arrival: Arrival,
    stage: Stage,
}

/// When a connection came, and the settings that it keeps.
#[derive(Debug)]
struct Arrival {
    at: Instant,
    in_force: Arc<InForce>,
}

impl Handler for Tcp {
    type State = Relay;

    fn open(&self, connection: &mut Connection<'_>) -> io::Result<Relay> {
        // That nothing moves does not say that it is idle.
        connection.say_farewell(Farewell::Spread);
        let arrival = Arrival { at: Instant::now(), in_force: self.live.get() };
        let stage = self.find_place(connection, &arrival, Tried::default())?;
        Ok(Relay { arrival, stage })
    }

    fn ready(&self, connection: &mut Connection<'_>, relay: &mut Relay) -> io::Result<Next> {
        loop {
            let next = match mem::replace(&mut relay.stage, Stage::Ended) {
                Stage::Waiting(line) => self.wait(connection, relay, line)?,
                Stage::Connecting { lease, tried } => self.await_upstream(connection, relay, lease, tried)?,
                Stage::Relaying(relaying) => self.relay(connection, relay, relaying)?,
                Stage::Ended => Some(Next::Close),
            };
            if let Some(next) = next {
                return Ok(next);
            }
        }
    }

    fn expired(&self, connection: &mut Connection<'_>, relay: &mut Relay) -> io::Result<Next> {
        match mem::replace(&mut relay.stage, Stage::Ended) {
            Stage::Waiting(line) => {
                let until = self.upstreams.look_again(&line.waiter);
                relay.stage = Stage::Waiting(line);
                match until {
                    Some(until) => connection.await_turn(until),
                    None => tracing::debug!("a connection has waited too long for a place"),
                }
                self.ready(connection, relay)
            }
            Stage::Connecting { lease, tried } => {
                relay.stage = self.go_on(connection, &relay.arrival, lease, tried, Errno::TIMEDOUT)?;
                self.ready(connection, relay)
            }
            stage => {
                relay.stage = stage;
                Ok(Next::Close)
            }
        }
    }

    fn refusal(&self, _: Refusal) -> Cow<'static, [u8]> {
        self.live.get().config.busy_reply.clone().into()
    }
}

impl Tcp {
    pub(super) fn new(upstreams: Arc<Upstreams>, live: Arc<Live>, pipes: Pipes) -> Self {
        Self { upstreams, live, pipes }
    }

    /// One in line: goes on once it was given a place. None: there is more to do at once.
    fn wait(
        &self,
        connection: &mut Connection<'_>,
        relay: &mut Relay,
        line: InLine,
    ) -> io::Result<Option<Next>> {
        match line.waiter.take() {
            Some(Turn::Place(lease)) => {
                relay.stage = self.connect(connection, &relay.arrival, lease, line.waiter.tried.clone())?;
                Ok(None)
            }
            Some(Turn::Shed) => refuse(connection, &relay.arrival).map(Some),
            None if connection.client().is_gone() => {
                let client = connection.client();
                let had_asked = client.heard() || client.has_unread_input();
                self.upstreams.leave(&line.waiter, Left::Gone { had_asked });
                Ok(Some(Next::Close))
            }
            None => {
                relay.stage = Stage::Waiting(line);
                Ok(Some(Next::Park))
            }
        }
    }

    /// One whose connection to the upstream is being made.
    fn await_upstream(
        &self,
        connection: &mut Connection<'_>,
        relay: &mut Relay,
        mut lease: Lease,
        tried: Tried,
    ) -> io::Result<Option<Next>> {
        relay.stage = match connected(connection) {
            Ok(true) => {
                lease.connected();
                preface::introduce(connection, relay.arrival.in_force.config.send_proxy);
                Stage::Relaying(Relaying { lease, tried, both: Both::default() })
            }
            Ok(false) if connection.client().is_gone() => return Ok(Some(Next::Close)),
            Ok(false) => {
                relay.stage = Stage::Connecting { lease, tried };
                return Ok(Some(Next::Park));
            }
            Err(errno) => self.go_on(connection, &relay.arrival, lease, tried, errno)?,
        };
        Ok(None)
    }

    /// One that relays: moves what is there.
    fn relay(
        &self,
        connection: &mut Connection<'_>,
        relay: &mut Relay,
        mut relaying: Relaying,
    ) -> io::Result<Option<Next>> {
        let Relaying { lease, tried, both } = &mut relaying;
        let moved = both.move_bytes(connection, lease.upstream(), &self.pipes);
        if both.has_lost_upstream(connection) {
            if let Some(stage) = self.move_on(connection, &relay.arrival, lease, tried)? {
                relay.stage = stage;
                return Ok(None);
            }
            both.settle();
            if moved.is_ok() {
                relay.stage = Stage::Relaying(relaying);
                return Ok(None);
            }
        }
        let next = both.follow(connection, moved);
        relay.stage = Stage::Relaying(relaying);
        next.map(Some)
    }

    /// A place at an upstream or in the line; else the client is told no.
    fn find_place(
        &self,
        connection: &mut Connection<'_>,
        arrival: &Arrival,
        tried: Tried,
    ) -> io::Result<Stage> {
        match self.upstreams.place(arrival.at, &tried, source_of(connection), connection) {
            Place::At(lease) => self.connect(connection, arrival, lease, tried),
            Place::InLine(waiter) => {
                let until = self.upstreams.waits_until(&waiter);
                connection.await_turn(until);
                Ok(Stage::Waiting(InLine::new(&self.upstreams, waiter)))
            }
            Place::Nowhere => {
                refuse(connection, arrival)?;
                Err(io::Error::other("there is no upstream for a connection"))
            }
        }
    }

    fn connect(
        &self,
        connection: &mut Connection<'_>,
        arrival: &Arrival,
        lease: Lease,
        tried: Tried,
    ) -> io::Result<Stage> {
        match connect::begin(&lease.upstream().addr) {
            Ok(socket) => {
                connection.join(socket, Instant::now() + arrival.in_force.config.connect_timeout);
                Ok(Stage::Connecting { lease, tried })
            }
            Err(errno) => self.go_on(connection, arrival, lease, tried, errno),
        }
    }

    /// After a connect in vain: to another upstream.
    fn go_on(
        &self,
        connection: &mut Connection<'_>,
        arrival: &Arrival,
        mut lease: Lease,
        mut tried: Tried,
        errno: Errno,
    ) -> io::Result<Stage> {
        if connect::is_own_lack(errno) {
            // It says nothing of the upstream, and may be over soon.
            self.pipes.give_up_spare();
            lease.lacked(errno);
        } else {
            tracing::debug!(upstream = lease.upstream().name, error = %errno, "trying another upstream");
            // One that took it and then reset it is busy, and not away.
            if errno == Errno::CONNRESET { lease.was_busy() } else { lease.failed(errno) }
        }
        tried.add(lease.upstream().id.number, Instant::now());
        drop(lease);
        self.find_place(connection, arrival, tried)
    }

    /// To another upstream: nothing was sent yet, and this one is gone. One that has reset the connection
    /// is busy, so that it is worth waiting; where one has ended it, and nobody else has a place at once,
    /// that is its answer.
    fn move_on(
        &self,
        connection: &mut Connection<'_>,
        arrival: &Arrival,
        lease: &mut Lease,
        tried: &Tried,
    ) -> io::Result<Option<Stage>> {
        let mut tried = tried.clone();
        tried.add(lease.upstream().id.number, Instant::now());
        let is_reset = connection.sides().is_some_and(|(_, upstream, _)| upstream.wire.failed());
        if is_reset {
            lease.was_busy();
            return self.find_place(connection, arrival, tried).map(Some);
        }
        match self.upstreams.another(arrival.at, &tried) {
            Some(lease) => self.connect(connection, arrival, lease, tried).map(Some),
            None => Ok(None),
        }
    }
}

fn refuse(connection: &mut Connection<'_>, arrival: &Arrival) -> io::Result<Next> {
    connection.part();
    let reply = &arrival.in_force.config.busy_reply;
    if reply.is_empty() {
        connection.reset_on_close(true);
    } else {
        io::Write::write_all(connection, reply)?;
    }
    Ok(Next::Close)
}

/// Whether the connection to the upstream is made.
fn connected(connection: &mut Connection<'_>) -> rustix::io::Result<bool> {
    let Some((_, upstream, _)) = connection.sides() else { return Ok(false) };
    let is_made = connect::is_made(&upstream.wire.socket)?;
    if is_made {
        upstream.arrived();
    }
    Ok(is_made)
}
