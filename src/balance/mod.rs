//! A TCP balancer: spreads connections over upstreams, and protects those from having more than
//! they can bear.
//!
//! ```no_run
//! use overfall::{Server, balance::{self, Config, UpstreamConfig}};
//!
//! let upstreams = ["127.0.0.1:8888", "127.0.0.1:8889=3"].map(|text| text.parse().unwrap());
//! let config = Config { upstreams: upstreams.to_vec(), ..Config::default() };
//! let balancer = balance::serve(Server::builder().bind("127.0.0.1:8000"), config)?;
//! balancer.handle().join()?;
//! # Ok::<(), overfall::Error>(())
//! ```
//!
//! It runs on the [`Server`](crate::Server)'s pool: both sides of a relay are parked as one slot,
//! and a worker moves what is there. A connection that is being made to an upstream is parked as
//! well, and so is one that waits for a place at an upstream.

mod health;
mod relay;
mod selection;
mod upstream;

use std::{
    borrow::Cow,
    io,
    net::{SocketAddr, ToSocketAddrs},
    os::fd::OwnedFd,
    str::FromStr,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{self, AddressFamily, SocketFlags, SocketType, sockopt},
};

pub use self::selection::Policy;
use self::{
    health::Stop,
    relay::{Flow, Pipes},
    upstream::{Lease, Place, Upstreams, Waiter},
};
use crate::{
    error::{Error, Result},
    server::{Builder, Connection, Handle, Handler, Next, Refusal, Second},
};

/// One upstream, as it is given: `ADDR` or `ADDR=WEIGHT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Its address, HOST:PORT. A name is resolved once, and its first address is used.
    pub name: String,
    /// Its share of the connections beside the others', 1 to 1,000.
    pub weight: u32,
}

impl FromStr for UpstreamConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, weight) = text.rsplit_once('=').unwrap_or((text, "1"));
        let weight = weight.parse().ok().filter(|weight| WEIGHTS.contains(weight));
        match weight {
            Some(weight) if name.contains(':') => Ok(Self { name: name.to_owned(), weight }),
            Some(_) => Err("give HOST:PORT, or HOST:PORT=WEIGHT".into()),
            None => Err("the weight after the = may be 1 to 1000".into()),
        }
    }
}

const WEIGHTS: std::ops::RangeInclusive<u32> = 1..=1000;

/// What happens to connections while every upstream is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllDown {
    /// They are refused at once.
    Refuse,
    /// They are tried at an upstream in spite of it.
    Try,
}

/// How a balancer works.
#[derive(Debug, Clone)]
pub struct Config {
    /// At least one.
    pub upstreams: Vec<UpstreamConfig>,
    /// How connections are spread.
    pub policy: Policy,
    /// Connections that one upstream may have at once, those being made included; at least 1.
    pub max_connections_per_upstream: usize,
    /// Connections that may wait for a place at an upstream.
    pub line: usize,
    /// How long they may wait, 1 ms to 365 days.
    pub queue_timeout: Duration,
    /// How long connecting to an upstream may take, 1 ms to 365 days.
    pub connect_timeout: Duration,
    /// What happens while every upstream is down.
    pub all_down: AllDown,
    /// How often each upstream is checked, 1 ms to 365 days; a check may take a quarter of it.
    pub check_interval: Duration,
    /// What a check sends; nothing where it is empty.
    pub check_send: Vec<u8>,
    /// What the reply to a check must begin with. With this and nothing to send, a connection is
    /// enough.
    pub check_expect: Option<Vec<u8>>,
    /// Checks in a row that must succeed for an upstream to be up again, at least 1.
    pub rise: u32,
    /// Checks and connects in a row that must fail for it to be down, at least 1.
    pub fall: u32,
    /// What a refused client is sent; a reset where it is empty.
    pub busy_reply: Vec<u8>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            policy: Policy::LeastConnections,
            max_connections_per_upstream: usize::MAX,
            line: 1000,
            queue_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            all_down: AllDown::Refuse,
            check_interval: Duration::from_secs(2),
            check_send: Vec::new(),
            check_expect: None,
            rise: 2,
            fall: 3,
            busy_reply: Vec::new(),
        }
    }
}

impl Config {
    fn validate(&self) -> Result<()> {
        if self.upstreams.is_empty() {
            return Err(Error::setting("upstreams", "empty", "one HOST:PORT or more"));
        }
        if let Some(wrong) = self.upstreams.iter().find(|upstream| !WEIGHTS.contains(&upstream.weight)) {
            return Err(Error::setting("weight", wrong.weight, "1 to 1000"));
        }
        let counts = [
            ("max_connections_per_upstream", self.max_connections_per_upstream),
            ("rise", self.rise as usize),
            ("fall", self.fall as usize),
        ];
        if let Some((name, value)) = counts.into_iter().find(|&(_, value)| value == 0) {
            return Err(Error::setting(name, value, "1 or more"));
        }
        let times = [
            ("queue_timeout", self.queue_timeout),
            ("connect_timeout", self.connect_timeout),
            ("check_interval", self.check_interval),
        ];
        for (name, time) in times {
            if !(Duration::from_millis(1)..=Duration::from_secs(365 * 24 * 3600)).contains(&time) {
                return Err(Error::setting(name, format!("{time:?}"), "1ms to 365 days"));
            }
        }
        Ok(())
    }

    fn resolve(&self) -> Result<Vec<SocketAddr>> {
        let mut addrs = Vec::new();
        for UpstreamConfig { name, .. } in &self.upstreams {
            let resolved = name.to_socket_addrs().map(|mut addrs| addrs.next());
            let addr = match resolved {
                Ok(Some(addr)) => addr,
                Ok(None) => return Err(Error::setting("upstreams", name, "a name that has an address")),
                Err(error) => {
                    return Err(Error::setting(
                        "upstreams",
                        format!("{name} ({error})"),
                        "an address that can be found",
                    ));
                }
            };
            if addrs.contains(&addr) {
                return Err(Error::setting("upstreams", format!("{name} twice"), "different addresses"));
            }
            addrs.push(addr);
        }
        Ok(addrs)
    }
}

/// Starts a balancer on the server.
///
/// # Errors
///
/// Those of [`Builder::serve`]; a setting is out of its range; an upstream has no address, is there
/// twice, or is an address that the server listens on.
pub fn serve(server: Builder, config: Config) -> Result<Balancer> {
    config.validate()?;
    let addrs = config.resolve()?;
    tracing::info!(?config, "balancing");
    let upstreams = Upstreams::new(config.clone(), addrs);
    let pipes = Pipes::default();
    let handler = Relays { upstreams: Arc::clone(&upstreams), config: config.clone(), pipes };
    let handle = server.serve(handler)?;
    if let Some(own) = upstreams.all.iter().find(|upstream| is_own(upstream.addr, handle.local_addrs())) {
        return Err(Error::setting("upstreams", &own.name, "another address than the balancer's own"));
    }
    let stop = Arc::new(Stop::new()?);
    let checks = {
        let (upstreams, stop) = (Arc::clone(&upstreams), Arc::clone(&stop));
        let run = move || health::run(&upstreams, &config, &stop);
        thread::Builder::new()
            .name("checks".into())
            .spawn(run)
            .map_err(|error| Error::start("the checks", error))?
    };
    Ok(Balancer { handle, upstreams, stop, checks: Some(checks) })
}

fn is_own(addr: SocketAddr, listeners: &[SocketAddr]) -> bool {
    listeners.iter().any(|own| {
        own.port() == addr.port()
            && (own.ip() == addr.ip() || (own.ip().is_unspecified() && addr.ip().is_loopback()))
    })
}

/// A running balancer. Dropping it ends the checks and shuts the server down.
#[derive(Debug)]
pub struct Balancer {
    handle: Handle,
    upstreams: Arc<Upstreams>,
    stop: Arc<Stop>,
    checks: Option<JoinHandle<()>>,
}

impl Balancer {
    /// The server that it runs on.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// How the upstreams fare.
    pub fn snapshot(&self) -> Snapshot {
        self.upstreams.snapshot()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(checks) = self.checks.take() {
            // A panic there was reported already.
            let _ = checks.join();
        }
    }
}

/// How the upstreams fare at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Snapshot {
    /// In the order in which they were given.
    pub upstreams: Vec<UpstreamStatus>,
    /// Connections that wait for a place at an upstream now.
    pub waiting: usize,
    /// Connections refused because there was no upstream for them, or no place in the line.
    pub refused: u64,
    /// Connections that waited for a place for `queue_timeout`.
    pub queue_timed_out: u64,
}

/// How one upstream fares.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UpstreamStatus {
    /// As it was given.
    pub name: String,
    /// Its address.
    pub addr: SocketAddr,
    /// It is used.
    pub up: bool,
    /// Connections that it has now.
    pub open: usize,
    /// Connections that are being made.
    pub connecting: usize,
    /// Connections that were made.
    pub connected: u64,
    /// Connections that could not be made.
    pub failed: u64,
    /// How long making one takes, of the latest.
    pub connect_time: Duration,
    /// Bytes sent to it, of the connections that have ended.
    pub sent: u64,
    /// Bytes received from it, of the connections that have ended.
    pub received: u64,
}

/// The handler: each connection is a relay.
#[derive(Debug)]
struct Relays {
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
struct Relay {
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
