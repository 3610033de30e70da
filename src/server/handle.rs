//! A running server, as whoever started it sees it. It knows neither the handler nor the threads.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    advice::Advice, builder::Builder, config::Config, control::Control, ending::Ending, reload::InForce,
    sources::SourceReport, workers::WorkersReport,
};
use crate::{
    error::{Error, Result},
    metrics::{Gauges, Metrics},
    net::listener::ListenerRef,
};

/// A running server. Clones are handles of the same one.
///
/// Dropping the last of them shuts the server down and waits for that, as [`shutdown`](Self::shutdown) and
/// [`join`](Self::join) do, for `drain_timeout` and half a second at most. An error is lost then.
///
/// ```
/// use overfall::{Next, Server};
///
/// let handle = Server::builder().bind("127.0.0.1:0").serve(|_| Ok(Next::Close))?;
/// let other = handle.clone();
/// // Whoever decides on the end need not be who waits for it.
/// std::thread::spawn(move || other.shutdown());
/// handle.join()?;
/// # Ok::<(), overfall::Error>(())
/// ```
///
/// A program that drains at TERM and INT, as service managers and terminals send them, with the crate
/// `signal-hook`:
///
/// ```no_run
/// use overfall::{Next, Server};
/// use signal_hook::{consts::{SIGINT, SIGTERM}, iterator::Signals};
///
/// let mut signals = Signals::new([SIGTERM, SIGINT])?;
/// let handle = Server::builder().bind("127.0.0.1:8888").serve(|_| Ok(Next::Close))?;
/// let heard = handle.clone();
/// std::thread::spawn(move || signals.forever().for_each(|_| heard.shutdown()));
/// handle.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "dropping it shuts the server down; `join` waits for its end"]
pub struct Handle(Arc<Parts>);

struct Parts {
    addrs: Vec<SocketAddr>,
    listeners: Vec<ListenerRef>,
    control: Arc<Control>,
    inside: Arc<dyn Inside>,
    in_force: InForce,
    end: Mutex<End>,
}

/// How often it is looked whether the acceptor has gone round.
const ROUND: Duration = Duration::from_millis(1);

/// What runs behind a handle, as far as it is asked how it fares.
pub(super) trait Inside: Send + Sync {
    fn gauges(&self) -> Gauges;

    /// What the workers do with their time, and how many of them the load wants.
    fn workers(&self) -> (WorkersReport, Option<Advice>);

    /// What the sources have had of late.
    fn sources(&self) -> Vec<SourceReport>;

    /// How long clients can bear to wait.
    #[cfg(feature = "admin")]
    fn tolerance(&self) -> Duration;
}

struct End {
    /// None once it was joined.
    acceptor: Option<JoinHandle<Ending>>,
    /// What it said then.
    ending: Ending,
}

impl Handle {
    pub(super) fn new(
        listeners: Vec<ListenerRef>,
        control: Arc<Control>,
        inside: Arc<dyn Inside>,
        in_force: InForce,
        acceptor: JoinHandle<Ending>,
    ) -> Self {
        let end = Mutex::new(End { acceptor: Some(acceptor), ending: Ending::Drained });
        let addrs = listeners.iter().map(|listener| listener.addr).collect();
        Self(Arc::new(Parts { addrs, listeners, control, inside, in_force, end }))
    }

    /// The address that the server listens on, with the real port; the first of several.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.addrs[0]
    }

    /// All addresses that the server listens on, in the order in which they were given.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.0.addrs
    }

    /// The counters as they are now.
    pub fn metrics(&self) -> Metrics {
        self.0.control.context.counters.snapshot(self.0.inside.gauges())
    }

    /// What the workers do with their time, and the calls that have run longest. It stops nobody: it can be
    /// asked while every worker is held. The kernel is asked for each worker's CPU time, and for the address
    /// of each client that is listed. Of a [`baseline`](crate::baseline) it is empty.
    pub fn workers(&self) -> WorkersReport {
        self.0.inside.workers().0
    }

    /// How many workers this load wants, if it is many more than there are: as of the last 10 to 60 s, of
    /// which it knows what it saw when this or [`workers`](Self::workers) was asked for, and while all workers
    /// were busy. None where there is too little to go by, where the number of workers is right within a factor
    /// of two, and where more would not help.
    pub fn advice(&self) -> Option<Advice> {
        self.0.inside.workers().1
    }

    /// The sources of clients that take most of the workers, most first, and then those that were told no while
    /// others had their place: at most ten of each, and none while there is no overload, or of a
    /// [`baseline`](crate::baseline).
    pub fn sources(&self) -> Vec<SourceReport> {
        self.0.inside.sources()
    }

    /// Both at once, for which the kernel is asked no more often than for one.
    #[cfg(feature = "admin")]
    pub(crate) fn workers_and_advice(&self) -> (WorkersReport, Option<Advice>) {
        self.0.inside.workers()
    }

    /// Has the server go by the settings of another builder from now on; its handler stays as it is. All of
    /// them are checked first. Connections are kept: one that is idle expires by the new timeout, and what
    /// is under way goes by the times that it began with.
    ///
    /// Gives the names of the settings that differ and cannot change while the server runs, as the
    /// builder's methods spell them: `workers`; `queue` where it is above what it was at the start;
    /// `max_connections` where it is above that as well as above what the limit of open files leaves room
    /// for; `accept_proxy`; `tls`, of which the certificate alone can change; `bind` where addresses are
    /// given that are not those at which the server listens. Those stay as they are.
    ///
    /// # Errors
    ///
    /// A setting is out of its range. Nothing has changed then.
    pub fn reload(&self, builder: Builder) -> Result<Vec<&'static str>> {
        self.0.in_force.reload(builder, &self.0.addrs)
    }

    /// Says that the server is going to shut down soon. It serves as before; only `/readyz` and the agent of
    /// `admin` tell those who ask, so that they send nobody new.
    pub fn announce_shutdown(&self) {
        self.0.control.context.stage.leave();
    }

    /// Whether the shutdown was announced, or has begun.
    pub fn is_leaving(&self) -> bool {
        self.0.control.context.stage.is_leaving()
    }

    /// Whether the shutdown has begun.
    pub fn is_draining(&self) -> bool {
        self.0.control.context.stage.is_draining()
    }

    /// Begins to shut down and returns at once: accepts nobody new but those in the kernel's
    /// backlog, finishes what was accepted, and closes idle connections.
    pub fn shutdown(&self) {
        self.0.shutdown();
    }

    /// The sockets that the server listens on once more, in the order of
    /// [`local_addrs`](Self::local_addrs), for another process that is to take its place: that one gives
    /// them to [`Builder::from_shared_listener`], this one ends with
    /// [`share_listeners`](Self::share_listeners) and [`shutdown`](Self::shutdown), and then that one owns
    /// them.
    ///
    /// # Errors
    ///
    /// The server has shut down, or there is no descriptor left.
    pub fn listeners(&self) -> io::Result<Vec<TcpListener>> {
        self.0.listeners.iter().map(ListenerRef::duplicate).collect()
    }

    /// Says that somebody else listens on the same sockets from now on: those who wait in the kernel's
    /// backlogs when this server shuts down are left to them, so that nobody is lost or refused.
    pub fn share_listeners(&self) {
        self.0.listeners.iter().for_each(|listener| listener.set_shared(true));
    }

    /// Says that nobody else listens on the same sockets any more: those who wait in the kernel's backlogs
    /// when this server shuts down are served by it.
    pub fn own_listeners(&self) {
        self.0.listeners.iter().for_each(|listener| listener.set_shared(false));
    }

    /// Whether the server is well: none of its own threads has died, and the acceptor, which is asked, goes
    /// round within this time. Handlers have no part in it, however long they take.
    pub fn responds(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let before = self.0.control.rounds();
        self.0.control.bell.ring();
        while self.0.control.rounds() == before {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(ROUND);
        }
        self.0.control.dead().is_none()
    }

    /// The thread that has died, without which the server is of no use.
    #[cfg(feature = "admin")]
    pub(crate) fn dead(&self) -> Option<&'static str> {
        self.0.control.dead()
    }

    /// How long clients can bear to wait, as it follows from their patience and from what requests take.
    #[cfg(feature = "admin")]
    pub(crate) fn tolerance(&self) -> Duration {
        self.0.inside.tolerance()
    }

    /// The settings in force.
    pub(crate) fn config(&self) -> Config {
        self.0.in_force.config()
    }

    /// Says that a thread has died without which the server is of no use.
    pub(crate) fn on_death(&self, what: &'static str) -> impl FnOnce() + Send + 'static {
        let control = Arc::clone(&self.0.control);
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
        self.0.join()
    }
}

impl Parts {
    fn shutdown(&self) {
        self.control.drain();
    }

    fn join(&self) -> Result<()> {
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
            Ending::Cut(open) => Err(Error::drain_timeout(open, self.control.live.drain_timeout())),
            Ending::ListenerFailed(errno) => Err(Error::listener_failed(errno.into())),
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.shutdown();
        // There is nobody to tell.
        let _ = self.join();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("addrs", &self.0.addrs).finish_non_exhaustive()
    }
}
