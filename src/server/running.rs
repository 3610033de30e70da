//! What each worker is busy with, so that it can be shut down and shown. It knows no workers.

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Instant,
};

use parking_lot::Mutex;
use rustix::thread::{Pid, gettid};

use super::parked::Parked;
use crate::{
    net::key::Key,
    session::{
        activity::{Activity, At},
        life::Session,
    },
    sys::{peer, threads::OnCpu},
};

/// The session that a worker is busy with: its key, or its socket while it has no slot yet. (To
/// keep the socket always cost a hundredth of a kept request's CPU.)
#[derive(Debug)]
pub(super) struct Running {
    key: AtomicU64,
    socket: Mutex<Option<Arc<OwnedFd>>>,
    /// The client of a proxy, where that has said who it is.
    client: Mutex<Option<SocketAddr>>,
    is_named: AtomicBool,
    pub(super) activity: Activity,
    /// The worker's thread, once it runs.
    thread: OnceLock<Pid>,
}

/// No key's number.
const NOBODY: u64 = u64::MAX;

impl Running {
    /// Of a worker that is going to be started.
    pub(super) fn nobody(now: Instant) -> Self {
        Self {
            key: AtomicU64::new(NOBODY),
            socket: Mutex::new(None),
            client: Mutex::new(None),
            is_named: AtomicBool::new(false),
            activity: Activity::new(now),
            thread: OnceLock::new(),
        }
    }

    /// Says that the worker's thread is this one.
    pub(super) fn started(&self, now: Instant) {
        let _ = self.thread.set(gettid());
        self.activity.enter(At::Handling, now);
    }

    /// How long the worker has had a CPU; none before it runs and after its end, or where the kernel does
    /// not say.
    pub(super) fn on_cpu(&self) -> Option<OnCpu> {
        self.thread.get().copied().and_then(OnCpu::of)
    }

    pub(super) fn begin<S>(&self, session: &Session<S>) {
        match session.key {
            Some(key) => self.key.store(key.to_u64(), Release),
            None => *self.socket.lock() = Some(Arc::clone(&session.wire.socket)),
        }
    }

    pub(super) fn end(&self) {
        self.activity.end_call();
        if self.is_named.load(Relaxed) {
            self.is_named.store(false, Relaxed);
            *self.client.lock() = None;
        }
        match self.key.load(Relaxed) {
            NOBODY => *self.socket.lock() = None,
            _ => self.key.store(NOBODY, Release),
        }
    }

    /// Says who the client is, other than the socket's other end, for as long as it is served.
    pub(super) fn client_is(&self, client: SocketAddr) {
        *self.client.lock() = Some(client);
        self.is_named.store(true, Relaxed);
    }

    /// Who the client is.
    pub(super) fn client<S>(&self, parked: &Parked<S>) -> Option<SocketAddr> {
        let named = *self.client.lock();
        named.or_else(|| peer::addr(&self.socket(parked)?))
    }

    pub(super) fn socket<S>(&self, parked: &Parked<S>) -> Option<Arc<OwnedFd>> {
        match self.key.load(Acquire) {
            NOBODY => self.socket.lock().clone(),
            key => parked.socket(Key::from_u64(key)),
        }
    }
}
