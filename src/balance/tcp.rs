//! Tcp over TCP: the handler, for which each connection is a relay or on its way to become one. It knows
//! no protocol.

use std::{borrow::Cow, io, mem, sync::Arc, time::Instant};

use rustix::io::Errno;

use super::{
    both::Both,
    config::Config,
    flow::Pipes,
    preface,
    tried::Tried,
    upstreams::{Lease, Place, Turn, Upstreams, Waiter},
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
    config: Config,
    pipes: Pipes,
}

/// How far a connection has come.
#[derive(Debug)]
enum Stage {
    /// In line for a place.
    Waiting {
        waiter: Arc<Waiter>,
    },
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
    upstreams: Arc<Upstreams>,
    came: Instant,
    stage: Stage,
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Stage::Waiting { waiter } = &self.stage {
            self.upstreams.leave(waiter, false);
        }
    }
}

impl Handler for Tcp {
    type State = Relay;

    fn open(&self, connection: &mut Connection<'_>) -> io::Result<Relay> {
        // That nothing moves does not say that it is idle.
        connection.say_farewell(Farewell::Spread);
        let came = Instant::now();
        let stage = self.find_place(connection, came, Tried::default())?;
        Ok(Relay { upstreams: Arc::clone(&self.upstreams), came, stage })
    }

    fn ready(&self, connection: &mut Connection<'_>, relay: &mut Relay) -> io::Result<Next> {
        loop {
            let next = match mem::replace(&mut relay.stage, Stage::Ended) {
                Stage::Waiting { waiter } => self.wait(connection, relay, waiter)?,
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
            Stage::Waiting { waiter } => {
                let until = self.upstreams.look_again(&waiter);
                relay.stage = Stage::Waiting { waiter };
                match until {
                    Some(until) => connection.await_turn(until),
                    None => tracing::debug!("a connection has waited too long for a place"),
                }
                self.ready(connection, relay)
            }
            Stage::Connecting { lease, tried } => {
                relay.stage = self.go_on(connection, relay.came, lease, tried, Errno::TIMEDOUT)?;
                self.ready(connection, relay)
            }
            stage => {
                relay.stage = stage;
                Ok(Next::Close)
            }
        }
    }

    fn refusal(&self, _: Refusal) -> Cow<'static, [u8]> {
        self.config.busy_reply.clone().into()
    }
}

impl Tcp {
    pub(super) fn new(upstreams: Arc<Upstreams>, config: Config, pipes: Pipes) -> Self {
        Self { upstreams, config, pipes }
    }

    /// One in line: goes on once it was given a place. None: there is more to do at once.
    fn wait(
        &self,
        connection: &mut Connection<'_>,
        relay: &mut Relay,
        waiter: Arc<Waiter>,
    ) -> io::Result<Option<Next>> {
        match waiter.take() {
            Some(Turn::Place(lease)) => {
                relay.stage = self.connect(connection, relay.came, lease, waiter.tried.clone())?;
                Ok(None)
            }
            Some(Turn::Shed) => self.refuse(connection).map(Some),
            None if connection.client().is_gone() => {
                self.upstreams.leave(&waiter, true);
                Ok(Some(Next::Close))
            }
            None => {
                relay.stage = Stage::Waiting { waiter };
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
                preface::introduce(connection, self.config.send_proxy);
                Stage::Relaying(Relaying { lease, tried, both: Both::default() })
            }
            Ok(false) if connection.client().is_gone() => return Ok(Some(Next::Close)),
            Ok(false) => {
                relay.stage = Stage::Connecting { lease, tried };
                return Ok(Some(Next::Park));
            }
            Err(errno) => self.go_on(connection, relay.came, lease, tried, errno)?,
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
            if let Some(stage) = self.move_on(connection, relay.came, lease, tried)? {
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
    fn find_place(&self, connection: &mut Connection<'_>, came: Instant, tried: Tried) -> io::Result<Stage> {
        match self.upstreams.place(came, &tried, || connection.waker()) {
            Place::At(lease) => self.connect(connection, came, lease, tried),
            Place::InLine(waiter) => {
                let until = self.upstreams.waits_until(&waiter);
                connection.await_turn(until);
                Ok(Stage::Waiting { waiter })
            }
            Place::Nowhere => {
                self.refuse(connection)?;
                Err(io::Error::other("there is no upstream for a connection"))
            }
        }
    }

    fn refuse(&self, connection: &mut Connection<'_>) -> io::Result<Next> {
        connection.part();
        if self.config.busy_reply.is_empty() {
            connection.reset_on_close(true);
        } else {
            io::Write::write_all(connection, &self.config.busy_reply)?;
        }
        Ok(Next::Close)
    }

    fn connect(
        &self,
        connection: &mut Connection<'_>,
        came: Instant,
        lease: Lease,
        tried: Tried,
    ) -> io::Result<Stage> {
        match connect::begin(&lease.upstream().addr) {
            Ok(socket) => {
                connection.join(socket, Instant::now() + self.config.connect_timeout);
                Ok(Stage::Connecting { lease, tried })
            }
            Err(errno) => self.go_on(connection, came, lease, tried, errno),
        }
    }

    /// After a connect in vain: to another upstream.
    fn go_on(
        &self,
        connection: &mut Connection<'_>,
        came: Instant,
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
        self.find_place(connection, came, tried)
    }

    /// To another upstream: nothing was sent yet, and this one is gone. One that has reset the connection
    /// is busy, so that it is worth waiting; where one has ended it, and nobody else has a place at once,
    /// that is its answer.
    fn move_on(
        &self,
        connection: &mut Connection<'_>,
        came: Instant,
        lease: &mut Lease,
        tried: &Tried,
    ) -> io::Result<Option<Stage>> {
        let mut tried = tried.clone();
        tried.add(lease.upstream().id.number, Instant::now());
        let is_reset = connection.sides().is_some_and(|(_, upstream, _)| upstream.wire.failed());
        if is_reset {
            lease.was_busy();
            return self.find_place(connection, came, tried).map(Some);
        }
        match self.upstreams.another(came, &tried) {
            Some(lease) => self.connect(connection, came, lease, tried).map(Some),
            None => Ok(None),
        }
    }
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
