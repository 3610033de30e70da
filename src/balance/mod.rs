//! A balancer for TCP and HTTP: spreads connections over upstreams, and protects those from having more than
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

mod both;
mod checks;
mod config;
pub(crate) mod flow;
mod http;
mod line;
mod places;
mod preface;
mod record;
mod refusals;
mod selection;
mod settings;
mod spares;
mod status;
mod tcp;
mod tried;
mod upstream;
mod upstreams;

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    time::Duration,
};

use self::{
    checks::Checks,
    flow::Pipes,
    http::{access::AccessLog, proxy::Proxy},
    tcp::Tcp,
    upstreams::Upstreams,
};
pub use self::{
    config::{AllDown, Config, HttpConfig, UpstreamConfig},
    selection::Policy,
    status::{Snapshot, UpstreamStatus},
};
pub use crate::net::preface::ProxyVersion;
use crate::{
    error::{Error, Result},
    server::{Builder, Handle, descriptor_limit},
};

/// Bulks that are moved without copies at once: one in so many of the descriptors, and no more than
/// that.
const PIPES_SHARE: usize = 40;
const MOST_PIPES: usize = 256;

/// Starts a balancer on the server.
///
/// # Errors
///
/// Those of [`Builder::serve`]; a setting is out of its range; an upstream has no address, is there
/// twice, or is an address that the server listens on.
pub fn serve(server: Builder, config: Config) -> Result<Balancer> {
    config.check()?;
    let wanted = config.resolve()?;
    settings::log(&config);
    let upstreams = Upstreams::new(&config, server.patience_in_force());
    let upstreams = upstreams.map_err(|errno| Error::start("the balancer", errno))?;
    upstreams.set(&wanted, &config);
    checks::first(&upstreams, &config)?;
    // Both sides have one; a bulk has a pipe, and a check a socket and a bell.
    let pipes = (descriptor_limit() / PIPES_SHARE).clamp(1, MOST_PIPES);
    let server = server.descriptors(2, 2 * pipes + 2 * config.upstreams.len().min(descriptor_limit() / 8));
    let (pipes, shared) = (Pipes::new(pipes), Arc::clone(&upstreams));
    let mut log = None;
    let handle = match config.http.clone() {
        None => server.serve(Tcp::new(shared, config.clone(), pipes))?,
        Some(http) => {
            log = http.access_log.as_deref().map(open_log).transpose()?;
            let proxy = Proxy::new(shared, config.clone(), http, log.clone(), pipes);
            server.serve(proxy)?
        }
    };
    if let Some(own) = upstreams.all().iter().find(|upstream| is_own(upstream.addr, handle.local_addrs())) {
        let sentence = format!("the upstream {} is the balancer's own address; give another", own.name);
        return Err(Error::upstream(sentence));
    }
    let died = handle.on_death("the thread that checks upstreams");
    let checks = Checks::start(Arc::clone(&upstreams), config, died)?;
    Ok(Balancer { _checks: checks, handle, upstreams, log })
}

fn open_log(path: &Path) -> Result<Arc<AccessLog>> {
    let failed = |error| Error::start(format!("the access log {}", path.display()), error);
    AccessLog::open(path).map(Arc::new).map_err(failed)
}

/// Whether a listener would get what is sent to this address.
fn is_own(addr: SocketAddr, listeners: &[SocketAddr]) -> bool {
    // With its zone, where it has one.
    let mut place = addr;
    place.set_port(0);
    let here = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind(place).is_ok();
    let ip = addr.ip().to_canonical();
    listeners.iter().any(|own| {
        let own_ip = own.ip().to_canonical();
        let same = own_ip == ip
            || (own_ip.is_unspecified() && here(ip))
            || (ip.is_unspecified() && own_ip.is_loopback());
        own.port() == addr.port() && same
    })
}

/// A running balancer. Dropping it ends the checks and shuts the server down.
#[derive(Debug)]
pub struct Balancer {
    /// Before the handle, so that they have ended when the server shuts down.
    _checks: Checks,
    handle: Handle,
    upstreams: Arc<Upstreams>,
    log: Option<Arc<AccessLog>>,
}

/// How long the end waits for the access log to be written.
const LOGGED_WITHIN: Duration = Duration::from_secs(1);

impl Balancer {
    /// The server that it runs on.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// How the upstreams fare.
    pub fn snapshot(&self) -> Snapshot {
        let access_log_dropped = self.log.as_ref().map_or(0, |log| log.dropped());
        Snapshot { access_log_dropped, ..self.upstreams.snapshot() }
    }

    /// Waits for the server to end, and until its access log is written.
    ///
    /// # Errors
    ///
    /// Those of [`Handle::join`].
    pub fn join(&self) -> Result<()> {
        let ended = self.handle.join();
        if let Some(log) = &self.log {
            log.flush(LOGGED_WITHIN);
        }
        ended
    }
}
