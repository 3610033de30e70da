//! The handler: each connection is a relay, or on its way to become one.

use std::{
    borrow::Cow,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use rustix::{
    io::Errno,
    net::{self, AddressFamily, SocketFlags, SocketType, sockopt},
};

use super::{
    Config,
    relay::{Flow, Pipes},
    upstream::{Lease, Place, Upstreams, Waiter},
};
use crate::server::{Connection, Handler, Next, Refusal, Second};

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
        tried: Vec<usize>,
    },
    Connecting {
        lease: Lease,
        tried: Vec<usize>,
    },
    Relaying {
        lease: Lease,
        tried: Vec<usize>,
        up: Flow,
        down: Flow,
    },
    Ended,
}

/// One relay; its place is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    upstreams: Arc<Upstreams>,
    stage: Stage,
}

impl Drop for Relay {
    fn drop(&mut self) {
        match &self.stage {
            Stage::Waiting { waiter, .. } => self.upstreams.leave(waiter, false),
            Stage::Relaying { lease, up, down, .. } => {
                lease.upstream().sent.fetch_add(up.bytes, Relaxed);
                lease.upstream().received.fetch_add(down.bytes, Relaxed);
            }
            Stage::Connecting { .. } | Stage::Ended => {}
        }
    }
}

impl Handler for Relays {
    type State = Relay;

    fn open(&self, connection: &mut Connection<'_>) -> io::Result<Relay> {
        let mut relay = Relay { upstreams: Arc::clone(&self.upstreams), stage: Stage::Ended };
        relay.stage = self.find_place(connection, Vec::new())?;
        Ok(relay)
    }

    fn ready(&self, connection: &mut Connection<'_>, relay: &mut Relay) -> io::Result<Next> {
        loop {
            relay.stage = match std::mem::replace(&mut relay.stage, Stage::Ended) {
                Stage::Waiting { waiter, tried } => match waiter.take() {
                    Some(lease) => self.connect(connection, lease, tried)?,
                    None if is_gone(connection) => {
                        self.upstreams.leave(&waiter, false);
                        return Ok(Next::Close);
                    }
                    None => {
                        relay.stage = Stage::Waiting { waiter, tried };
                        return Ok(Next::Park);
                    }
                },
                Stage::Connecting { mut lease, tried } => match connected(connection) {
                    Ok(true) => {
                        lease.connected();
                        Stage::Relaying { lease, tried, up: Flow::default(), down: Flow::default() }
                    }
                    Ok(false) if is_gone(connection) => return Ok(Next::Close),
                    Ok(false) => {
                        relay.stage = Stage::Connecting { lease, tried };
                        return Ok(Next::Park);
                    }
                    Err(error) => self.try_another(connection, lease, tried, &error)?,
                },
                Stage::Relaying { lease, tried, mut up, mut down } => {
                    let moved = relay_both(connection, &mut up, &mut down, &self.pipes);
                    match moved {
                        // Nothing was sent yet: another upstream can have it.
                        Ok(_) if down.ended && up.bytes + down.bytes == 0 && !up.ended => {
                            let error = io::Error::other("it was closed before anything was sent");
                            self.try_another(connection, lease, tried, &error)?
                        }
                        Err((Side::Upstream, error)) if up.bytes + down.bytes == 0 => {
                            self.try_another(connection, lease, tried, &error)?
                        }
                        Err((_, error)) => {
                            relay.stage = Stage::Relaying { lease, tried, up, down };
                            reset_both(connection);
                            return Err(error);
                        }
                        Ok(more) => {
                            let ended = up.ended && down.ended && is_flushed(connection);
                            relay.stage = Stage::Relaying { lease, tried, up, down };
                            return Ok(match (ended, more) {
                                (true, _) => Next::Close,
                                (false, true) => Next::Again,
                                (false, false) => Next::Park,
                            });
                        }
                    }
                }
                Stage::Ended => return Ok(Next::Close),
            };
        }
    }

    fn expired(&self, connection: &mut Connection<'_>, relay: &mut Relay) -> io::Result<Next> {
        match std::mem::replace(&mut relay.stage, Stage::Ended) {
            Stage::Waiting { waiter, .. } => {
                self.upstreams.leave(&waiter, true);
                self.refuse(connection)
            }
            Stage::Connecting { lease, tried } => {
                let error = io::Error::from(io::ErrorKind::TimedOut);
                relay.stage = self.try_another(connection, lease, tried, &error)?;
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
    pub(super) fn new(upstreams: Arc<Upstreams>, config: Config) -> Self {
        Self { upstreams, config, pipes: Pipes::default() }
    }

    /// A place at an upstream or in the line; else the client is told no.
    fn find_place(&self, connection: &mut Connection<'_>, tried: Vec<usize>) -> io::Result<Stage> {
        match self.upstreams.place(&tried)? {
            Place::At(lease) => self.connect(connection, lease, tried),
            Place::InLine(waiter) => {
                connection.attach(waiter.bell.duplicate()?, self.config.queue_timeout);
                Ok(Stage::Waiting { waiter, tried })
            }
            Place::Nowhere => {
                self.refuse(connection)?;
                Err(io::Error::other("there is no upstream for a connection"))
            }
        }
    }

    fn refuse(&self, connection: &mut Connection<'_>) -> io::Result<Next> {
        if self.config.busy_reply.is_empty() {
            connection.reset_on_close(true);
        } else {
            io::Write::write_all(connection, &self.config.busy_reply)?;
        }
        Ok(Next::Close)
    }

    fn connect(&self, connection: &mut Connection<'_>, lease: Lease, tried: Vec<usize>) -> io::Result<Stage> {
        match dial(lease.upstream().addr) {
            Ok(socket) => {
                connection.attach(socket, self.config.connect_timeout);
                Ok(Stage::Connecting { lease, tried })
            }
            Err(errno) => self.try_another(connection, lease, tried, &errno.into()),
        }
    }

    fn try_another(
        &self,
        connection: &mut Connection<'_>,
        lease: Lease,
        mut tried: Vec<usize>,
        error: &io::Error,
    ) -> io::Result<Stage> {
        tracing::debug!(upstream = lease.upstream().name, %error, "trying another upstream");
        tried.push(lease.index);
        lease.failed(error);
        self.find_place(connection, tried)
    }
}

/// A connection that is being made.
fn dial(addr: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match net::connect(&socket, &addr) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

/// Whether the connection to the upstream is made.
fn connected(connection: &mut Connection<'_>) -> io::Result<bool> {
    let Some((_, second, _)) = connection.pair() else { return Ok(false) };
    match net::getpeername(&second.wire.socket) {
        Ok(_) => {
            second.awaited = None;
            Ok(true)
        }
        Err(Errno::NOTCONN) => match sockopt::socket_error(&second.wire.socket)? {
            Ok(()) => Ok(false),
            Err(errno) => Err(errno.into()),
        },
        Err(errno) => Err(errno.into()),
    }
}

/// Whose socket failed.
enum Side {
    Client,
    Upstream,
}

/// Moves what there is in both directions; whether there may be more.
fn relay_both(
    connection: &mut Connection<'_>,
    up: &mut Flow,
    down: &mut Flow,
    pipes: &Pipes,
) -> Result<bool, (Side, io::Error)> {
    let Some((client, Second { wire: upstream, .. }, piece)) = connection.pair() else { return Ok(false) };
    let more_up = up.go_on(client, upstream, piece, pipes, down.ended);
    let more_down = down.go_on(upstream, client, piece, pipes, up.ended);
    let side = |error| (if upstream.failed() { Side::Upstream } else { Side::Client }, error);
    Ok(more_up.map_err(side)? | more_down.map_err(side)?)
}

fn is_flushed(connection: &mut Connection<'_>) -> bool {
    connection.pair().is_none_or(|(client, second, _)| client.is_flushed() && second.wire.is_flushed())
}

/// Passes a reset on.
fn reset_both(connection: &mut Connection<'_>) {
    if let Some((client, second, _)) = connection.pair() {
        client.reset_on_close(true);
        second.wire.reset_on_close(true);
    }
}

fn is_gone(connection: &mut Connection<'_>) -> bool {
    connection.pair().is_some_and(|(client, ..)| client.is_gone())
}
