//! The settings of a server as a user gives them, and where it listens. It knows nothing that runs.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

#[cfg(feature = "proxy-protocol")]
use ipnet::IpNet;

use super::{
    config::{Config, OnFull, Settings},
    settings,
};
#[cfg(feature = "tls")]
use crate::net::tls::Tls;
use crate::{
    error::{Error, Result},
    net::listener::Listener,
    sys::names,
};

/// A TCP server that runs a [`Handler`](crate::Handler) on a fixed pool of threads.
///
/// ```
/// use std::io::{Read, Write};
/// use overfall::{Next, Server};
///
/// let handle = Server::builder().bind("127.0.0.1:0").serve(|c| {
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
///
/// ```
/// use std::time::Duration;
/// use overfall::{Next, Server};
///
/// let builder = Server::builder().bind("127.0.0.1:0").workers(4).patience(Duration::from_millis(200));
/// let handle = builder.serve(|_| Ok(Next::Close))?;
/// # Ok::<(), overfall::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `serve` or `serve_handler` is called"]
pub struct Builder {
    settings: Settings,
    sources: Vec<Source>,
}

/// Where a listener comes from.
#[derive(Debug)]
enum Source {
    Addrs { name: String, addrs: io::Result<Vec<SocketAddr>> },
    Listener(TcpListener),
    Shared(TcpListener),
}

impl Source {
    /// Whether what it stands for may have become a listener at this address.
    fn is_at(&self, own: SocketAddr) -> bool {
        let may_be_at =
            |addr: &SocketAddr| addr.ip() == own.ip() && (addr.port() == 0 || addr.port() == own.port());
        match self {
            Self::Addrs { addrs, .. } => addrs.as_ref().is_ok_and(|addrs| addrs.iter().any(may_be_at)),
            Self::Listener(listener) | Self::Shared(listener) => {
                listener.local_addr().is_ok_and(|addr| addr == own)
            }
        }
    }
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

    /// Listens on a socket that somebody else has as well, such as a service manager, or a server whose
    /// place this one takes. As [`from_listener`](Self::from_listener), but those who wait in the kernel's
    /// backlog when this server shuts down are left there for the others.
    pub fn from_shared_listener(mut self, listener: TcpListener) -> Self {
        self.sources.push(Source::Shared(listener));
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

    /// Connections from this network, of one address or more, begin with a line of the PROXY protocol,
    /// version 1 or 2, of at most 4 KiB, in which a proxy says for whom it speaks: the client's address is
    /// then that one, everywhere. Those that begin otherwise are closed. A proxy that speaks for itself
    /// (`LOCAL`, `UNKNOWN`) keeps its own address, and so does everybody who connects from elsewhere.
    /// Several calls name several networks; where there is none, no connection begins so.
    #[cfg(feature = "proxy-protocol")]
    pub fn accept_proxy(mut self, from: IpNet) -> Self {
        self.settings.accept_proxy.push(from);
        self
    }

    /// Encrypts all connections. Handshakes are the workers' business, and nobody who is refused at the
    /// door costs one: it hears a reset. Where one is not done within `first_byte_timeout` for its first
    /// byte and `io_timeout` for the rest, the connection is closed.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.settings.tls = Some(tls);
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

    /// What its threads and their lines in the log are told apart by from those of another server.
    #[cfg(feature = "admin")]
    pub(crate) fn name(mut self, name: &'static str) -> Self {
        self.settings.name = name;
        self
    }

    /// From the shutdown to its forced end, 1 ms to 365 days; 10 s by default.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.settings.drain_timeout = timeout;
        self
    }

    /// Checks all that [`serve`](Self::serve) checks before it listens, and starts nothing.
    ///
    /// # Errors
    ///
    /// A setting is out of its range, there is no address, or one cannot be made out.
    pub fn check(&self) -> Result<()> {
        self.validate()?;
        if self.sources.is_empty() {
            return Err(Error::no_listener());
        }
        self.sources.iter().try_for_each(|source| match source {
            Source::Addrs { name, addrs: Err(error) } => {
                Err(Error::listen(name, io::Error::new(error.kind(), error.to_string())))
            }
            Source::Addrs { .. } | Source::Listener(_) | Source::Shared(_) => Ok(()),
        })
    }

    /// Checks the settings.
    pub(super) fn validate(&self) -> Result<Config> {
        self.settings.validate()
    }

    /// Whether other addresses were given than these, at which a server listens.
    pub(super) fn listens_elsewhere(&self, own: &[SocketAddr]) -> bool {
        let given = &self.sources;
        !given.is_empty()
            && (given.len() != own.len() || !given.iter().zip(own).all(|(source, own)| source.is_at(*own)))
    }

    /// Checks the settings and listens.
    pub(super) fn listen(self) -> Result<(Config, Vec<Listener>)> {
        let config = self.validate()?;
        let listeners = listen(self.sources, config.backlog)?;
        settings::log(&config, &listeners, self.settings.room());
        Ok((config, listeners))
    }
}

fn listen(sources: Vec<Source>, backlog: u32) -> Result<Vec<Listener>> {
    if sources.is_empty() {
        return Err(Error::no_listener());
    }
    let adopt = |listener| {
        Listener::adopt(listener, backlog).map_err(|errno| Error::listen("the given listener", errno))
    };
    let listen_on = |source| match source {
        Source::Addrs { name, addrs } => addrs
            .and_then(|addrs| Listener::bind(&*addrs, backlog))
            .map_err(|error| Error::listen(name, error)),
        Source::Listener(listener) => adopt(listener),
        Source::Shared(listener) => adopt(listener).map(Listener::share),
    };
    sources.into_iter().map(listen_on).collect()
}
