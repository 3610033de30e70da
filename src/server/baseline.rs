//! A thread for every connection, with or without a limit: what the pool is measured against. The
//! same handlers run on the same sessions, but nothing is parked and nobody is refused.

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::event::{PollFd, PollFlags};

use super::{
    advice::Advice,
    backoff::Backoff,
    builder::Builder,
    control::Control,
    ending::Ending,
    handle::{Handle, Inside},
    reload::InForce,
    sources::SourceReport,
    start::spawn,
    workers::WorkersReport,
};
use crate::{
    error::{Error, Result},
    metrics::{Counters, Gauges},
    net::{
        input::Input,
        key::Key,
        listener::{AcceptError, Listener},
        lodging::Lodging,
        ready::Waker,
    },
    session::{
        activity::Activity, context::Context, exchange::Outcome, handler::Handler, life::Session,
        service::Service, sides::Host,
    },
    sys::{
        tally::Counted,
        wait::{Bell, poll_until},
    },
};

/// How many threads there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// As many as there are connections.
    None,
    /// As many as the builder has workers: a counting semaphore, a permit of which is taken before
    /// accepting.
    Workers,
}

/// Starts a server that starts a thread for every connection. Of the builder's settings only the
/// listeners, the backlog, the workers as a bound, and the timeouts are in force.
///
/// # Errors
///
/// Those of [`Builder::serve`].
pub fn serve<H: Handler>(server: Builder, bound: Bound, handler: H) -> Result<Handle> {
    let failed = |errno| Error::start("the server", errno);
    let (config, listeners) = server.listen()?;
    if !config.accept_proxy.is_empty() {
        // Its threads wait for what has come and not been read, which a part of such a line is.
        let sentence = "nothing in this model, which reads no PROXY lines";
        return Err(Error::setting("accept_proxy", config.accept_proxy[0], sentence));
    }
    let entry = config.entry(H::PROTOCOLS)?;
    let context = Arc::new(Context::new(entry, config.timeouts, config.patience, 1, usize::MAX));
    let control = Arc::new(Control::new(Arc::clone(&context), &config).map_err(failed)?);
    let refs = listeners.iter().map(Listener::to_ref).collect();
    let threads = Arc::new(Threads {
        service: Service::new(handler, context),
        control: Arc::clone(&control),
        drain: Bell::new().map_err(failed)?,
        semaphore: (bound == Bound::Workers).then(|| Semaphore::new(config.workers)),
        drain_timeout: config.drain_timeout,
    });
    let acceptor = {
        let threads = Arc::clone(&threads);
        spawn("acceptor".into(), move || threads.run(listeners))?
    };
    let in_force = InForce::new(config, None);
    Ok(Handle::new(refs, control, threads, in_force, acceptor))
}

/// What the acceptor and the connections' threads share.
struct Threads<H> {
    service: Service<H>,
    control: Arc<Control>,
    /// Rung once, when the server begins to shut down; never silenced.
    drain: Bell,
    semaphore: Option<Semaphore>,
    drain_timeout: Duration,
}

/// How often a wait for a permit looks whether the server is to shut down.
const STAGE_INTERVAL: Duration = Duration::from_millis(100);

impl<H: Handler> Threads<H> {
    fn counters(&self) -> &Counters {
        &self.service.context.counters
    }

    fn is_draining(&self) -> bool {
        self.service.context.stage.is_draining()
    }

    /// Accepts until the server is to shut down, and then waits for the connections to end.
    fn run(self: &Arc<Self>, mut listeners: Vec<Listener>) -> Ending {
        let mut failed = None;
        let mut backoff = Backoff::new();
        while failed.is_none() && !self.is_draining() {
            for listener in &mut listeners {
                match self.accept_all(listener) {
                    AcceptError::Exhausted(_) => {
                        self.counters().accept_errors_exhausted.count();
                        thread::sleep(backoff.pause());
                    }
                    AcceptError::Closed(errno) => failed = Some(Ending::ListenerFailed(errno)),
                    AcceptError::Empty | AcceptError::Connection(_) => backoff = Backoff::new(),
                }
            }
            let mut fds = vec![PollFd::new(&self.control.bell, PollFlags::IN)];
            fds.extend(listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
            // It fails only for lack of memory; then the next round comes at once.
            let _ = poll_until(&mut fds, None);
            self.control.bell.silence();
            self.control.went_round();
        }
        drop(listeners);
        self.control.drain();
        // The threads end by themselves what is idle.
        self.service.context.stage.close_idle();
        self.drain.ring();
        failed.unwrap_or_else(|| self.await_threads())
    }

    /// Starts a thread for each newcomer until there is none, or an error.
    fn accept_all(self: &Arc<Self>, listener: &mut Listener) -> AcceptError {
        while let Some(permit) = self.permit() {
            match listener.accept() {
                Ok(socket) => self.start(socket, permit),
                Err(AcceptError::Connection(_)) => self.counters().accept_errors_connection.count(),
                Err(error) => return error,
            }
        }
        AcceptError::Empty
    }

    /// A permit for one connection; none when the server is to shut down.
    fn permit(&self) -> Option<Permit> {
        let Some(semaphore) = &self.semaphore else {
            return (!self.is_draining()).then_some(Permit(None));
        };
        while !self.is_draining() {
            if let Some(permit) = semaphore.acquire(STAGE_INTERVAL) {
                return Some(permit);
            }
            self.control.went_round();
        }
        None
    }

    fn start(self: &Arc<Self>, socket: OwnedFd, permit: Permit) {
        let session = Session::new(socket, Instant::now(), self.control.open.count());
        self.counters().accepted.count();
        let (threads, alive) = (Arc::clone(self), self.control.alive.count());
        let started = thread::Builder::new().name("connection".into()).spawn(move || {
            let busy = threads.control.begin_work();
            threads.serve(session);
            drop((busy, permit));
            threads.ended(alive);
        });
        if let Err(error) = started {
            // The session was dropped with the closure.
            tracing::warn!(%error, "no thread can be started for a connection");
            self.counters().accept_errors_thread.count();
        }
    }

    /// Says that a connection's thread ends.
    fn ended(&self, alive: Counted) {
        drop(alive);
        self.control.thread_ended();
    }

    fn serve(&self, mut session: Session<H::State>) {
        let service = &self.service;
        self.counters().waits.record(0, session.since().elapsed(), 1);
        let (mut input, mut came) = (Input::new(), session.since());
        loop {
            let mut alone = Alone { came, tolerance: service.context.patience.get() };
            let ran = service.run(&mut session, &mut input, &mut alone);
            if ran.outcome == Outcome::Close {
                break;
            }
            session.settle(Instant::now(), ran.consumed);
            let what = if session.wire.is_flushed() { PollFlags::IN } else { PollFlags::OUT };
            let mut fds = [PollFd::new(&session.wire.socket, what), PollFd::new(&self.drain, PollFlags::IN)];
            // Once it is known that the server drains, its bell is of no more interest.
            let fds = if self.is_draining() { &mut fds[..1] } else { &mut fds[..] };
            match poll_until(fds, Some(session.deadline(&service.context.timeouts))) {
                Ok(true) => {
                    came = Instant::now();
                    session.wire.look_again();
                }
                Ok(false) if service.expire(&mut session) => {}
                Ok(false) | Err(_) => break,
            }
        }
        service.retire(session);
        self.control.connection_ended();
    }

    fn await_threads(&self) -> Ending {
        let deadline = Instant::now() + self.drain_timeout;
        while self.control.alive.get() > 0 {
            if Instant::now() >= deadline {
                self.service.context.stage.cut();
                let open = self.control.open.get();
                (0..open).for_each(|_| self.counters().cut.count());
                return Ending::Cut(open);
            }
            let _ = poll_until(&mut [PollFd::new(&self.control.bell, PollFlags::IN)], Some(deadline));
            self.control.bell.silence();
        }
        Ending::Drained
    }
}

impl<H: Handler> Inside for Threads<H> {
    fn gauges(&self) -> Gauges {
        Gauges {
            connections_open: self.control.open.get() as u64,
            busy_workers: self.control.busy() as u64,
            ..Gauges::default()
        }
    }

    fn workers(&self) -> (WorkersReport, Option<Advice>) {
        (WorkersReport::default(), None)
    }

    fn sources(&self) -> Vec<SourceReport> {
        Vec::new()
    }

    #[cfg(feature = "admin")]
    fn tolerance(&self) -> Duration {
        self.service.context.patience.get()
    }
}

/// A thread has but one session, which is never woken: there is no line to wait in.
struct Alone {
    /// When its thread last heard of something.
    came: Instant,
    tolerance: Duration,
}

impl Host for Alone {
    fn others_wait(&mut self) -> bool {
        false
    }

    fn key(&self, _: &mut Option<Key>, _: &Arc<OwnedFd>) -> Option<Key> {
        None
    }

    fn waker(&self, _: Key) -> Option<Waker> {
        None
    }

    fn activity(&self) -> Option<&Activity> {
        None
    }

    fn client_is(&self, _: SocketAddr) {}

    fn came(&self) -> Instant {
        self.came
    }

    fn tolerance(&self) -> Duration {
        self.tolerance
    }

    fn lodge(&self, _: &Arc<OwnedFd>) -> Option<Lodging> {
        None
    }
}

#[derive(Debug)]
struct Semaphore {
    give: Sender<()>,
    take: Receiver<()>,
}

impl Semaphore {
    fn new(permits: usize) -> Self {
        let (give, take) = bounded(permits);
        for _ in 0..permits {
            // There is room for every permit.
            let _ = give.try_send(());
        }
        Self { give, take }
    }

    fn acquire(&self, timeout: Duration) -> Option<Permit> {
        match self.take.recv_timeout(timeout) {
            Ok(()) => Some(Permit(Some(self.give.clone()))),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }
}

/// Dropping it gives it back.
struct Permit(Option<Sender<()>>);

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(give) = &self.0 {
            // There is room for every permit.
            let _ = give.try_send(());
        }
    }
}
