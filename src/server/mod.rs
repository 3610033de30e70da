//! The server: an acceptor, a bounded queue, a fixed pool of workers, and parked connections.

mod acceptor;
pub(crate) mod config;
pub(crate) mod control;
mod eviction;
mod moderation;
pub(crate) mod reactor;
pub(crate) mod runqueue;
mod threads;
mod worker;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::Ordering::SeqCst},
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::bounded;
use parking_lot::Mutex;

use self::{
    acceptor::{Acceptor, Ending},
    config::{Config, Settings},
    control::Control,
    exchange::Service,
    listener::Listener,
    threads::Threads,
    worker::Pool,
};
pub(crate) use self::{
    config::descriptor_limit,
    holds::{Hold, HoldWaiter},
    runqueue::Waker,
    wire::{Input, Wire},
};
pub use self::{
    config::{Model, OnFull},
    connection::Connection,
    handler::{Handler, Next, Refusal},
};
use crate::{
    error::{Error, Result},
    metrics::{Gauges, Metrics},
    net::{listener, wire},
    session::{conn, connection, exchange, handler, holds},
    sys::names,
};

/// A TCP server that runs a [`Handler`] on a fixed pool of threads.
///
/// ```
/// use std::io::{Read, Write};
/// use overfall::{Next, Server};
///
/// let handle = Server::builder().bind("127.0.0.1:0").serve(|c: &mut overfall::Connection<'_>| {
///     c.read(&mut [0; 1024])?;
///     c.write_all(b"Hello, client!")?;
///     Ok(Next::Close)
/// })?;
///
/// let mut client = std::net::TcpStream::connect(handle.local_addr())?;
/// client.write_all(b"Hello, server!")?;
/// assert_eq!(std::io::read_to_string(client)?, "Hello, client!");
///
/// handle.shutdown();
/// handle.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Server;

impl Server {
    /// The settings of a server, each with its default.
    pub fn builder() -> Builder {
        Builder { settings: Settings::default(), sources: Vec::new() }
    }
}

/// The settings of a server. They are checked by [`serve`](Self::serve).
#[derive(Debug)]
#[must_use = "a builder does nothing until `serve` is called"]
pub struct Builder {
    settings: Settings,
    sources: Vec<Source>,
}

/// Where a listener comes from.
#[derive(Debug)]
enum Source {
    Addrs { name: String, addrs: io::Result<Vec<SocketAddr>> },
    Listener(TcpListener),
}

impl Builder {
    /// Listens on this address, `HOST:PORT`, or `:PORT` for all addresses of this machine; several calls
    /// listen on several. Port 0 lets the system choose. A name with several addresses listens on the
    /// first that can be had. IPv6 addresses stand in brackets and may have a zone.
    pub fn bind(mut self, addr: impl fmt::Display) -> Self {
        let name = addr.to_string();
        let addrs = names::resolve_to_listen(&name);
        self.sources.push(Source::Addrs { name, addrs });
        self
    }

    /// Listens on a socket that was bound elsewhere. It gets this server's backlog and is made
    /// non-blocking.
    pub fn from_listener(mut self, listener: TcpListener) -> Self {
        self.sources.push(Source::Listener(listener));
        self
    }

    /// Threads that run the handler, 1 to 4,096. The default is the number of CPUs that this
    /// process may use, by its affinity and its control group.
    pub fn workers(mut self, workers: usize) -> Self {
        self.settings.workers = Some(workers);
        self
    }

    /// Newcomers that may wait for a worker, 1 to 1,000,000: a bound by count, 16,384 by default, that
    /// a burst is to fit into. What bounds the queue in time is [`patience`](Self::patience).
    pub fn queue(mut self, queue: usize) -> Self {
        self.settings.queue = Some(queue);
        self
    }

    /// Connections that the kernel may hold for the acceptor, 1 or more; it clamps the number to
    /// `net.core.somaxconn`. The default is 1,024, which takes a burst. It is shortened while the
    /// server is overloaded, since it would be a second, hidden queue.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.settings.backlog = backlog;
        self
    }

    /// What happens to newcomers who would wait for longer than they have
    /// [`patience`](Self::patience). The default is [`OnFull::Refuse`].
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.settings.on_full = on_full;
        self
    }

    /// How long clients wait, 1 ms to 365 days; 500 ms by default, after which most people notice a
    /// delay and many programs try again. Whoever can be served within four fifths of it is let in, and
    /// nobody waits for longer than all of it, whatever the workers do. What cannot be served in time
    /// is refused at once, and in an overload that lasts the line is kept much shorter, so that those
    /// who are served are served soon. It is never under ten times what requests were measured to
    /// take, so that slow handlers need no setting. The wait is the client's, the time in the kernel's
    /// queues included.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.settings.patience = patience;
        self
    }

    /// What refusals may cost, as a share of one CPU, 0 to 1; 0.015 by default. Beyond it newcomers
    /// are left to the kernel, which turns them away for nothing. What has waited too long is
    /// refused in any case, since serving it would cost more.
    pub fn refusal_budget(mut self, share: f64) -> Self {
        self.settings.refusal_budget = share;
        self
    }

    /// Connections open at once, parked ones included, 1 to 16,000,000. When so many are open, the
    /// one that has been idle longest gives way to a newcomer; where none is idle, the newcomer
    /// fares as `on_full` says. The default is what the limit of open files leaves room for.
    pub fn max_connections(mut self, max_connections: usize) -> Self {
        self.settings.max_connections = Some(max_connections);
        self
    }

    /// How long clients wait.
    pub(crate) fn patience_in_force(&self) -> Duration {
        self.settings.patience
    }

    /// Says how many descriptors each connection takes, and how many the handler takes for itself: what
    /// is left decides on the default of `max_connections`.
    pub(crate) fn descriptors(mut self, per_connection: usize, handlers: usize) -> Self {
        self.settings.descriptors = per_connection;
        self.settings.handlers_descriptors = handlers;
        self
    }

    /// From accept to the client's first byte, 1 ms to 365 days; 10 s by default.
    pub fn first_byte_timeout(mut self, timeout: Duration) -> Self {
        self.settings.first_byte_timeout = timeout;
        self
    }

    /// Between one request and the next, 1 ms to 365 days; 60 s by default.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.idle_timeout = timeout;
        self
    }

    /// For the waiting of one handler call, for the rest of a request whose beginning has come,
    /// and for a client to take some of a reply, each 1 ms to 365 days; 10 s by default.
    pub fn io_timeout(mut self, timeout: Duration) -> Self {
        self.settings.io_timeout = timeout;
        self
    }

    /// From the shutdown to its forced end, 1 ms to 365 days; 10 s by default.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.settings.drain_timeout = timeout;
        self
    }

    /// How connections are given to threads; [`Model::Pool`] by default, and the others are there
    /// to be compared with it.
    pub fn model(mut self, model: Model) -> Self {
        self.settings.model = model;
        self
    }

    /// Starts the server: binds, listens, starts its threads, and returns.
    ///
    /// # Errors
    ///
    /// A setting is out of its range, there is no address, an address cannot be listened on, or
    /// the system denies a thread or a descriptor. Nothing is left running then.
    pub fn serve<H: Handler>(self, handler: H) -> Result<Handle> {
        let config = self.settings.validate()?;
        let listeners = listen(self.sources, config.backlog)?;
        let addrs: Vec<_> = listeners.iter().map(Listener::addr).collect();
        log_settings(&config, &listeners, self.settings.room());
        let holds = if config.model == Model::Pool { config.workers / 2 } else { usize::MAX };
        let control = Control::new(holds).map_err(|errno| Error::start("the server", errno))?;
        let control = Arc::new(control);
        let drain_timeout = config.drain_timeout;
        let service = Service { handler, config, control: Arc::clone(&control) };
        let (acceptor, gauges) = match service.config.model {
            Model::Pool => start_pool(service, listeners)?,
            Model::Spawn => start_threads(service, listeners, None)?,
            Model::Limit => {
                let permits = service.config.workers;
                start_threads(service, listeners, Some(permits))?
            }
        };
        let end = Mutex::new(End { acceptor: Some(acceptor), ending: Ending::Drained });
        Ok(Handle { addrs, control, gauges, drain_timeout, end })
    }
}

type ReadGauges = Box<dyn Fn() -> Gauges + Send + Sync>;
type Started = (JoinHandle<Ending>, ReadGauges);

fn listen(sources: Vec<Source>, backlog: u32) -> Result<Vec<Listener>> {
    if sources.is_empty() {
        return Err(Error::no_listener());
    }
    let listen_on = |source| match source {
        Source::Addrs { name, addrs } => addrs
            .and_then(|addrs| Listener::bind(&*addrs, backlog))
            .map_err(|error| Error::listen(name, error)),
        Source::Listener(listener) => {
            Listener::adopt(listener, backlog).map_err(|errno| Error::listen("the given listener", errno))
        }
    };
    sources.into_iter().map(listen_on).collect()
}

fn log_settings(config: &Config, listeners: &[Listener], room: usize) {
    tracing::info!(?config, "settings in force");
    for listener in listeners {
        let backlog = listener.backlog_in_force();
        tracing::info!(addr = %listener.addr(), backlog, "listening");
        if backlog < config.backlog {
            tracing::warn!(asked = config.backlog, backlog, "the backlog is limited by net.core.somaxconn");
        }
    }
    if config.model == Model::Pool && config.max_connections > room {
        tracing::warn!(
            max_connections = config.max_connections,
            room,
            "the limit of open files leaves room for fewer connections"
        );
    }
}

fn start_pool<H: Handler>(service: Service<H>, listeners: Vec<Listener>) -> Result<Started> {
    let control = Arc::clone(&service.control);
    let workers = service.config.workers;
    let (sender, queue) = bounded(service.config.queue);
    let pool = Pool::new(service, queue).map_err(|errno| Error::start("the server", errno))?;
    let pool = Arc::new(pool);
    let acceptor = Acceptor::new(Arc::clone(&pool), listeners, sender);
    let started = (0..workers).try_for_each(|index| {
        let pool = Arc::clone(&pool);
        pool.service.control.alive.fetch_add(1, SeqCst);
        let worker = move || worker::run(&pool, index);
        spawn(format!("worker-{index}"), worker).map(drop)
    });
    let acceptor = started.and_then(|()| spawn("acceptor".into(), || acceptor.run()));
    if acceptor.is_err() {
        // Those that did start find that there is nothing to do.
        control.cut();
        pool.reactor.queue.ring();
    }
    Ok((acceptor?, Box::new(move || pool.gauges())))
}

fn start_threads<H: Handler>(
    service: Service<H>,
    listeners: Vec<Listener>,
    permits: Option<usize>,
) -> Result<Started> {
    let threads = Threads::new(service, permits).map_err(|errno| Error::start("the server", errno))?;
    let threads = Arc::new(threads);
    let acceptor = {
        let threads = Arc::clone(&threads);
        spawn("acceptor".into(), move || threads.run(listeners))?
    };
    Ok((acceptor, Box::new(move || threads.gauges())))
}

fn spawn<T: Send + 'static>(
    name: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    let what = format!("the thread {name}");
    thread::Builder::new().name(name).spawn(body).map_err(|error| Error::start(what, error))
}

/// A running server.
///
/// Dropping it shuts the server down and waits for that, as [`shutdown`](Self::shutdown) and
/// [`join`](Self::join) do, for `drain_timeout` and half a second at most. An error is lost then.
pub struct Handle {
    addrs: Vec<SocketAddr>,
    control: Arc<Control>,
    gauges: ReadGauges,
    drain_timeout: Duration,
    end: Mutex<End>,
}

struct End {
    /// None once it was joined.
    acceptor: Option<JoinHandle<Ending>>,
    /// What it said then.
    ending: Ending,
}

impl Handle {
    /// The address that the server listens on, with the real port; the first of several.
    pub fn local_addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    /// All addresses that the server listens on, in the order in which they were given.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// The counters as they are now. It looks at every slot, so it is not for a tight loop.
    pub fn metrics(&self) -> Metrics {
        self.control.counters.snapshot((self.gauges)())
    }

    /// Begins to shut down and returns at once: accepts nobody new but those in the kernel's
    /// backlog, finishes what was accepted, and closes idle connections.
    pub fn shutdown(&self) {
        self.control.drain();
    }

    /// Says that a thread has died without which the server is of no use.
    pub(crate) fn on_death(&self, what: &'static str) -> impl FnOnce() + Send + 'static {
        let control = Arc::clone(&self.control);
        move || control.died(what)
    }

    /// Waits for the server to end, which it does after [`shutdown`](Self::shutdown).
    ///
    /// # Errors
    ///
    /// Connections were still open at the drain timeout. They were shut down; a handler that is
    /// stuck in its own code keeps its thread, which ends when it returns. Or: a listener failed, or
    /// one of the server's own threads died, so that the server shut down by itself.
    pub fn join(&self) -> Result<()> {
        let mut end = self.end.lock();
        if let Some(acceptor) = end.acceptor.take() {
            end.ending = acceptor.join().unwrap_or_else(|_| {
                self.control.died("the acceptor");
                Ending::Drained
            });
        }
        if let Some(dead) = self.control.dead() {
            return Err(Error::thread_died(dead));
        }
        match end.ending {
            Ending::Drained => Ok(()),
            Ending::Cut(open) => Err(Error::drain_timeout(open, self.drain_timeout)),
            Ending::ListenerFailed(errno) => Err(Error::listener_failed(errno.into())),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shutdown();
        // There is nobody to tell.
        let _ = self.join();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("addrs", &self.addrs).finish_non_exhaustive()
    }
}
