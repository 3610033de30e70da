//! The handler: each connection is a relay, or on its way to become one.

use std::{borrow::Cow, io, sync::Arc, time::Instant};

use rustix::io::Errno;

use super::{
    config::Config,
    flow::{AtEnd, Flow, Pipes},
    tried::Tried,
    upstreams::{Lease, Place, Turn, Upstreams, Waiter},
};
use crate::{
    server::{Connection, Handler, Next, Refusal},
    sys::connect,
};

#[derive(Debug)]
pub(super) struct Relays {
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
        /// Which of the upstream's addresses it is, counted from the one that is tried first.
        attempt: usize,
    },
    Relaying {
        lease: Lease,
        tried: Tried,
        up: Flow,
        down: Flow,
    },
    Ended,
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

impl Handler for Relays {
    type State = Relay;

    fn open(&self, connection: &mut Connection<'_>) -> io::Result<Relay> {
        let came = Instant::now();
        let stage = self.find_place(connection, came, Tried::default())?;
        Ok(Relay { upstreams: Arc::clone(&self.upstreams), came, stage })
    }

    fn ready(&self, connection: &mut Connection<'_>, relay: &mut Relay) -> io::Result<Next> {
        loop {
            relay.stage = match std::mem::replace(&mut relay.stage, Stage::Ended) {
                Stage::Waiting { waiter } => match waiter.take() {
                    Some(Turn::Place(lease)) => {
                        self.connect(connection, relay.came, lease, waiter.tried.clone())?
                    }
                    Some(Turn::Shed) => return self.refuse(connection),
                    None => {
                        if connection.client().is_gone() {
                            self.upstreams.leave(&waiter, true);
                            return Ok(Next::Close);
                        }
                        relay.stage = Stage::Waiting { waiter };
                        return Ok(Next::Park);
                    }
                },
                Stage::Connecting { mut lease, tried, attempt } => match connected(connection) {
                    Ok(true) => {
                        lease.connected(attempt);
                        Stage::Relaying { lease, tried, up: Flow::default(), down: Flow::default() }
                    }
                    Ok(false) if connection.client().is_gone() => return Ok(Next::Close),
                    Ok(false) => {
                        relay.stage = Stage::Connecting { lease, tried, attempt };
                        return Ok(Next::Park);
                    }
                    Err(errno) => self.go_on(connection, relay.came, lease, tried, attempt, errno)?,
                },
                Stage::Relaying { mut lease, tried, mut up, mut down } => {
                    let before = (up.bytes, down.bytes);
                    let moved = relay_both(connection, &mut up, &mut down, &self.pipes);
                    lease.upstream().moved(up.bytes - before.0, down.bytes - before.1);
                    match (up.bytes > before.0, down.bytes > before.1) {
                        (_, true) => connection.set_busy(false),
                        (true, false) => connection.set_busy(true),
                        (false, false) => {}
                    }
                    if moves_on(connection, &up, &down) {
                        if let Some(stage) = self.move_on(connection, relay.came, &mut lease, &tried)? {
                            relay.stage = stage;
                            continue;
                        }
                        down.settled = true;
                        if moved.is_ok() {
                            relay.stage = Stage::Relaying { lease, tried, up, down };
                            continue;
                        }
                    }
                    let ended = up.ended && down.ended && is_flushed(connection);
                    relay.stage = Stage::Relaying { lease, tried, up, down };
                    return match moved {
                        Err(error) => {
                            reset_both(connection);
                            Err(error)
                        }
                        Ok(_) if ended => Ok(Next::Close),
                        Ok(true) => Ok(Next::Again),
                        Ok(false) => Ok(Next::Park),
                    };
                }
                Stage::Ended => return Ok(Next::Close),
            };
        }
    }

    fn expired(&self, connection: &mut Connection<'_>, relay: &mut Relay) -> io::Result<Next> {
        match std::mem::replace(&mut relay.stage, Stage::Ended) {
            Stage::Waiting { waiter } => {
                let until = self.upstreams.look_again(&waiter);
                relay.stage = Stage::Waiting { waiter };
                match until {
                    Some(until) => connection.await_turn(until.saturating_duration_since(Instant::now())),
                    None => tracing::debug!("a connection has waited too long for a place"),
                }
                self.ready(connection, relay)
            }
            Stage::Connecting { lease, tried, attempt } => {
                relay.stage = self.go_on(connection, relay.came, lease, tried, attempt, Errno::TIMEDOUT)?;
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

impl Relays {
    pub(super) fn new(upstreams: Arc<Upstreams>, config: Config, pipes: usize) -> Self {
        Self { upstreams, config, pipes: Pipes::new(pipes) }
    }

    /// A place at an upstream or in the line; else the client is told no.
    fn find_place(&self, connection: &mut Connection<'_>, came: Instant, tried: Tried) -> io::Result<Stage> {
        match self.upstreams.place(came, &tried, || connection.waker()) {
            Place::At(lease) => self.connect(connection, came, lease, tried),
            Place::InLine(waiter) => {
                let until = self.upstreams.waits_until(&waiter);
                connection.await_turn(until.saturating_duration_since(Instant::now()));
                Ok(Stage::Waiting { waiter })
            }
            Place::Nowhere => {
                self.refuse(connection)?;
                Err(io::Error::other("there is no upstream for a connection"))
            }
        }
    }

    fn refuse(&self, connection: &mut Connection<'_>) -> io::Result<Next> {
        connection.detach();
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
        self.connect_to(connection, came, lease, tried, 0)
    }

    fn connect_to(
        &self,
        connection: &mut Connection<'_>,
        came: Instant,
        lease: Lease,
        tried: Tried,
        attempt: usize,
    ) -> io::Result<Stage> {
        match connect::begin(&lease.upstream().addr(attempt)) {
            Ok(socket) => {
                connection.attach(socket, self.config.connect_timeout);
                Ok(Stage::Connecting { lease, tried, attempt })
            }
            Err(errno) => self.go_on(connection, came, lease, tried, attempt, errno),
        }
    }

    /// After a connect in vain: to the upstream's next address, or to another upstream.
    fn go_on(
        &self,
        connection: &mut Connection<'_>,
        came: Instant,
        mut lease: Lease,
        mut tried: Tried,
        attempt: usize,
        errno: Errno,
    ) -> io::Result<Stage> {
        let has_next = attempt + 1 < lease.upstream().addrs();
        if errno == Errno::ADDRNOTAVAIL && has_next {
            return self.connect_to(connection, came, lease, tried, attempt + 1);
        }
        if connect::is_own_lack(errno) {
            // It says nothing of the upstream, and may be over soon.
            self.pipes.give_up_spare();
            lease.lacked(errno);
        } else if errno != Errno::CONNRESET && has_next {
            return self.connect_to(connection, came, lease, tried, attempt + 1);
        } else {
            tracing::debug!(upstream = lease.upstream().name, error = %errno, "trying another upstream");
            // One that took it and then reset it is busy, and not away.
            if errno == Errno::CONNRESET { lease.was_busy() } else { lease.failed(errno) }
        }
        tried.add(lease.index, Instant::now());
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
        tried.add(lease.index, Instant::now());
        let is_reset = connection.pair().is_some_and(|(_, upstream, _)| upstream.failed());
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
    let Some((_, upstream, _)) = connection.pair() else { return Ok(false) };
    let is_made = connect::is_made(&upstream.socket)?;
    if is_made {
        connection.arrived();
    }
    Ok(is_made)
}

/// Moves what there is in both directions; whether there may be more.
fn relay_both(
    connection: &mut Connection<'_>,
    up: &mut Flow,
    down: &mut Flow,
    pipes: &Pipes,
) -> io::Result<bool> {
    let Some((client, upstream, piece)) = connection.pair() else { return Ok(false) };
    let at_end = |other: &Flow| if other.ended { AtEnd::Skip } else { AtEnd::PassOn };
    // Not on to the other direction when this one fails: it would find the end of a stream.
    let more_up = up.go_on(client, upstream, piece, pipes, at_end(down))?;
    let end_of_down = if untouched(up, down) { AtEnd::Hold } else { at_end(up) };
    let more_down = down.go_on(upstream, client, piece, pipes, end_of_down)?;
    Ok(more_up | more_down)
}

/// Whether nothing was passed on yet, so that another upstream could have the connection.
fn untouched(up: &Flow, down: &Flow) -> bool {
    !(down.settled || down.ended || up.ended) && up.bytes + down.bytes == 0
}

/// Whether the upstream has gone before anything was sent either way.
fn moves_on(connection: &mut Connection<'_>, up: &Flow, down: &Flow) -> bool {
    connection.pair().is_some_and(|(client, upstream, _)| {
        untouched(up, down) && !client.failed() && (upstream.ended || upstream.failed())
    })
}

fn is_flushed(connection: &mut Connection<'_>) -> bool {
    connection.pair().is_none_or(|(client, upstream, _)| client.is_flushed() && upstream.is_flushed())
}

/// Passes a reset on.
fn reset_both(connection: &mut Connection<'_>) {
    if let Some((client, upstream, _)) = connection.pair() {
        client.reset_on_close(true);
        upstream.reset_on_close(true);
    }
}
