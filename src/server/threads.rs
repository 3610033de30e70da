//! A thread for every connection, with or without a limit: what the pool is measured against. The
//! same handlers run on the same connections, but nothing is parked and nobody is refused.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::event::{PollFd, PollFlags};

use super::{
    acceptor::{Backoff, Ending},
    conn::Conn,
    exchange::{Host, Outcome, Service},
    handler::Handler,
    listener::{AcceptError, Listener},
    reactor::Key,
    runqueue::Waker,
    wire::Input,
};
use crate::{
    metrics::Gauges,
    sys::wait::{Bell, poll_until},
};

/// What the acceptor and the connections' threads share.
#[derive(Debug)]
pub(super) struct Threads<H> {
    service: Service<H>,
    /// Rung once, when the server begins to shut down; never silenced.
    drain: Bell,
    semaphore: Option<Semaphore>,
}

/// How often a wait for a permit looks whether the server is to shut down.
const STAGE_INTERVAL: Duration = Duration::from_millis(100);

impl<H: Handler> Threads<H> {
    /// `permits` bounds the number of connections; without it there is no bound.
    pub(super) fn new(service: Service<H>, permits: Option<usize>) -> rustix::io::Result<Self> {
        Ok(Self { service, drain: Bell::new()?, semaphore: permits.map(Semaphore::new) })
    }

    pub(super) fn gauges(&self) -> Gauges {
        let control = &self.service.control;
        Gauges {
            connections_open: control.open.load(Relaxed) as u64,
            busy_workers: control.busy.load(Relaxed) as u64,
            ..Gauges::default()
        }
    }

    /// Accepts until the server is to shut down, and then waits for the connections to end.
    pub(super) fn run(self: &Arc<Self>, listeners: Vec<Listener>) -> Ending {
        let control = &self.service.control;
        let mut failed = None;
        let mut backoff = Backoff::new();
        while failed.is_none() && !control.draining() {
            for listener in &listeners {
                match self.accept_all(listener) {
                    AcceptError::Exhausted(_) => {
                        control.counters.accept_errors_exhausted.count();
                        thread::sleep(backoff.pause());
                    }
                    AcceptError::Closed(errno) => failed = Some(Ending::ListenerFailed(errno)),
                    AcceptError::Empty | AcceptError::Connection(_) => backoff = Backoff::new(),
                }
            }
            let mut fds = vec![PollFd::new(&control.bell, PollFlags::IN)];
            fds.extend(listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
            // It fails only for lack of memory; then the next round comes at once.
            let _ = poll_until(&mut fds, None);
        }
        drop(listeners);
        control.drain();
        self.drain.ring();
        failed.unwrap_or_else(|| self.await_threads())
    }

    /// Starts a thread for each newcomer until there is none, or an error.
    fn accept_all(self: &Arc<Self>, listener: &Listener) -> AcceptError {
        let control = &self.service.control;
        while let Some(permit) = self.permit() {
            match listener.accept() {
                Ok(socket) => self.start(Conn::new(socket, Instant::now()), permit),
                Err(AcceptError::Connection(_)) => control.counters.accept_errors_connection.count(),
                Err(error) => return error,
            }
        }
        AcceptError::Empty
    }

    /// A permit for one connection; none when the server is to shut down.
    fn permit(&self) -> Option<Permit> {
        let control = &self.service.control;
        let Some(semaphore) = &self.semaphore else {
            return (!control.draining()).then_some(Permit(None));
        };
        while !control.draining() {
            if let Some(permit) = semaphore.acquire(STAGE_INTERVAL) {
                return Some(permit);
            }
        }
        None
    }

    fn start(self: &Arc<Self>, conn: Conn<H::State>, permit: Permit) {
        let control = &self.service.control;
        control.open.fetch_add(1, SeqCst);
        control.alive.fetch_add(1, SeqCst);
        control.counters.accepted.count();
        let threads = Arc::clone(self);
        let started = thread::Builder::new().name("connection".into()).spawn(move || {
            let control = &threads.service.control;
            control.begin_work();
            threads.serve(conn);
            control.end_work();
            drop(permit);
            control.ended_thread();
        });
        if let Err(error) = started {
            // The connection was dropped with the closure.
            tracing::warn!(%error, "no thread can be started for a connection");
            control.counters.accept_errors_thread.count();
            control.ended_connection();
            control.ended_thread();
        }
    }

    fn serve(&self, mut conn: Conn<H::State>) {
        let service = &self.service;
        service.control.counters.waits.record(conn.since.elapsed());
        let mut input = Input::new();
        while service.run(&mut conn, &mut input, &mut Alone).outcome != Outcome::Close {
            conn.settle(Instant::now());
            let what = if conn.wire.is_flushed() { PollFlags::IN } else { PollFlags::OUT };
            let mut fds = [PollFd::new(&conn.wire.socket, what), PollFd::new(&self.drain, PollFlags::IN)];
            let draining = service.control.draining();
            // Once it is known that the server drains, its bell is of no more interest.
            let fds = if draining { &mut fds[..1] } else { &mut fds[..] };
            match poll_until(fds, Some(conn.deadline(&service.config))) {
                Ok(true) => conn.wire.drained = false,
                Ok(false) if service.expire(&mut conn) => {}
                Ok(false) | Err(_) => break,
            }
        }
        service.retire(conn);
    }

    fn await_threads(&self) -> Ending {
        let control = &self.service.control;
        let deadline = Instant::now() + self.service.config.drain_timeout;
        while control.alive.load(SeqCst) > 0 {
            if Instant::now() >= deadline {
                control.cut();
                let open = control.open.load(SeqCst);
                (0..open).for_each(|_| control.counters.cut.count());
                return Ending::Cut(open);
            }
            let _ = poll_until(&mut [PollFd::new(&control.bell, PollFlags::IN)], Some(deadline));
            control.bell.silence();
        }
        Ending::Drained
    }
}

/// A thread has but one connection, which is never woken: there is no line to wait in.
struct Alone;

impl Host for Alone {
    fn others_wait(&mut self) -> bool {
        false
    }

    fn waker(&self, _: &mut Option<Key>, _: &Arc<OwnedFd>) -> Option<Waker> {
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
