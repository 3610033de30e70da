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
//! A name is resolved again and again, and each of its addresses is an upstream of its own: addresses come and
//! go without a lost request, and a name that cannot be resolved keeps those that it had. Among several, one
//! that was never reached is used only once it is, unless none was: of `localhost`, which may be `::1` and
//! `127.0.0.1`, the one is used at which somebody listens. [`Balancer::reload`] swaps upstreams and settings.
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
mod live;
mod member;
mod names;
mod own;
mod places;
mod preface;
mod record;
mod refusals;
mod resolving;
mod selection;
mod settings;
mod spares;
mod status;
mod tcp;
mod tried;
mod upstream;
mod upstreams;

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;

use self::{
    checks::Checks,
    flow::Pipes,
    http::{
        access::{AccessLog, Next},
        proxy::Proxy,
    },
    live::Live,
    own::is_own,
    resolving::{Directory, Resolver, Resolving},
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
    sys,
};

/// Bulks that are moved without copies at once: one in so many of the descriptors, and no more than
/// that.
const PIPES_SHARE: usize = 40;
const MOST_PIPES: usize = 256;
/// Checks that may be made at once, however few upstreams there are at first.
const CHECKED: usize = 16;

/// How long the start waits for names.
const RESOLVED_WITHIN: Duration = Duration::from_secs(2);

/// Starts a balancer on the server. It waits for its upstreams' names, for 2 s at most; one that cannot be
/// resolved is no failure, and gets nothing until it can be.
///
/// # Errors
///
/// Those of [`Builder::serve`]; a setting is out of its range; an upstream has no port, is there twice, or
/// is an address that the server listens on.
pub fn serve(server: Builder, config: Config) -> Result<Balancer> {
    serve_with(server, config, Arc::new(sys::names::resolve))
}

fn serve_with(server: Builder, config: Config, resolver: Resolver) -> Result<Balancer> {
    config.check()?;
    settings::log(&config);
    let upstreams = Upstreams::new(&config, server.patience_in_force());
    let upstreams = upstreams.map_err(|errno| Error::start("the balancer", errno))?;
    let log_dropped = Arc::default();
    let log = log_of(&config).map(|path| open_log(path, &log_dropped)).transpose()?;
    let live = Arc::new(Live::new(config, log));
    let directory = Directory::begin(Arc::clone(&upstreams), Arc::clone(&live), resolver, RESOLVED_WITHIN)?;
    checks::first(&upstreams, &live)?;
    let handle = begin(server, &upstreams, &live)?;
    let own = upstreams.all().into_iter().find(|upstream| is_own(upstream.addr, handle.local_addrs()));
    if let Some(own) = own {
        return Err(Error::own_upstream(&own.name));
    }
    directory.listens_on(handle.local_addrs());
    let died = handle.on_death("the thread that checks upstreams");
    let checks = Checks::start(Arc::clone(&upstreams), Arc::clone(&live), died)?;
    let died = handle.on_death("the thread that resolves names");
    let resolving = Resolving::start(&directory, died)?;
    let reloading = Mutex::default();
    Ok(Balancer { _checks: checks, resolving, handle, upstreams, live, log_dropped, reloading })
}

/// Begins to serve, as the protocol wants it.
fn begin(server: Builder, upstreams: &Arc<Upstreams>, live: &Arc<Live>) -> Result<Handle> {
    let config = &live.get().config;
    let pipes = (descriptor_limit() / PIPES_SHARE).clamp(1, MOST_PIPES);
    let checked = config.upstreams.len().max(CHECKED).min(descriptor_limit() / 8);
    // Both sides have one; a bulk has a pipe, and a check a socket and a bell.
    let server = server.descriptors(2, 2 * pipes + 2 * checked);
    let (pipes, upstreams, live) = (Pipes::new(pipes), Arc::clone(upstreams), Arc::clone(live));
    match config.http {
        None => server.serve_handler(Tcp::new(upstreams, live, pipes)),
        Some(_) => server.serve_handler(Proxy::new(upstreams, live, pipes)),
    }
}

/// Where requests are logged, if they are.
fn log_of(config: &Config) -> Option<&Path> {
    config.http.as_ref().and_then(|http| http.access_log.as_deref())
}

fn open_log(path: &Path, dropped: &Arc<AtomicU64>) -> Result<Arc<AccessLog>> {
    AccessLog::open(path, Arc::clone(dropped)).map(Arc::new).map_err(|error| log_failed(path, error))
}

fn log_failed(path: &Path, error: io::Error) -> Error {
    Error::start(format!("the access log {}", path.display()), error)
}

/// A running balancer. Dropping it ends the checks, resolves no names any more, and shuts the server down.
#[derive(Debug)]
pub struct Balancer {
    /// Before the handle, so that they have ended when the server shuts down.
    _checks: Checks,
    resolving: Resolving,
    handle: Handle,
    upstreams: Arc<Upstreams>,
    live: Arc<Live>,
    /// Lines of the access log that could not be written.
    log_dropped: Arc<AtomicU64>,
    /// One reload after the other.
    reloading: Mutex<()>,
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
        Snapshot { access_log_dropped: self.log_dropped.load(Relaxed), ..self.upstreams.snapshot() }
    }

    /// How many upstreams are up, as the [`snapshot`](Self::snapshot) says; it costs less.
    pub fn upstreams_up(&self) -> usize {
        self.upstreams.up()
    }

    /// Puts these settings into force, all of them or, where one is wrong, none, and gives the names of those
    /// that differ and cannot change while it runs. What is under way keeps what it began with: an upstream
    /// that is not wanted any more gets nothing new. New names are waited for, for 2 s at most. The access
    /// log is opened anew, so that its file may have been moved. The server stays as it is.
    ///
    /// # Errors
    ///
    /// Those of [`serve`] that are about the config; none of the upstreams can be resolved, where one could
    /// before; or the access log cannot be opened.
    pub fn reload(&self, config: Config) -> Result<Vec<&'static str>> {
        self.reload_both(config, || Ok(Vec::new()))
    }

    /// Puts the settings of the server into force as well, as [`Handle::reload`] does: all of both or none.
    ///
    /// # Errors
    ///
    /// Those of [`reload`](Self::reload) and of [`Handle::reload`].
    pub fn reload_with(&self, server: Builder, config: Config) -> Result<Vec<&'static str>> {
        self.reload_both(config, || self.handle.reload(server))
    }

    fn reload_both(
        &self,
        mut config: Config,
        server: impl FnOnce() -> Result<Vec<&'static str>>,
    ) -> Result<Vec<&'static str>> {
        config.check()?;
        let _one = self.reloading.lock();
        let before = self.live.get();
        let mut kept = Vec::new();
        if config.http.is_some() != before.config.http.is_some() {
            config.http.clone_from(&before.config.http);
            kept.push("http");
        }
        let commit = || {
            let next = self.next_log(&config, before.log.as_ref())?;
            kept.extend(server()?);
            self.live.set(config.clone(), next.begin(LOGGED_WITHIN));
            Ok(())
        };
        self.resolving.directory().reload(&config, commit)?;
        self.upstreams.set_patience(self.handle.config().patience);
        settings::log(&config);
        Ok(kept)
    }

    /// The log to go on with, whose file is open.
    fn next_log(&self, config: &Config, before: Option<&Arc<AccessLog>>) -> Result<Next> {
        let Some(path) = log_of(config) else { return Ok(Next::None) };
        match before {
            None => open_log(path, &self.log_dropped).map(Next::New),
            Some(log) => log.next(path).map_err(|error| log_failed(path, error)),
        }
    }

    /// Waits for the server to end, and until its access log is written.
    ///
    /// # Errors
    ///
    /// Those of [`Handle::join`].
    pub fn join(&self) -> Result<()> {
        let ended = self.handle.join();
        if let Some(log) = &self.live.get().log {
            log.flush(LOGGED_WITHIN);
        }
        ended
    }
}
