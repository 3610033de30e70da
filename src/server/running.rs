//! What each worker is busy with, so that it can be shut down. It knows no workers.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use parking_lot::Mutex;

use super::parked::Parked;
use crate::{net::key::Key, session::life::Session};

/// The session that a worker is busy with: its key, or its socket while it has no slot yet. (To
/// keep the socket always cost a hundredth of a kept request's CPU.)
#[derive(Debug)]
pub(super) struct Running {
    key: AtomicU64,
    socket: Mutex<Option<Arc<OwnedFd>>>,
}

/// No key's number.
const NOBODY: u64 = u64::MAX;

impl Running {
    pub(super) fn nobody() -> Self {
        Self { key: AtomicU64::new(NOBODY), socket: Mutex::new(None) }
    }

    pub(super) fn begin<S>(&self, session: &Session<S>) {
        match session.key {
            Some(key) => self.key.store(key.to_u64(), Release),
            None => *self.socket.lock() = Some(Arc::clone(&session.wire.socket)),
        }
    }

    pub(super) fn end(&self) {
        match self.key.load(Relaxed) {
            NOBODY => *self.socket.lock() = None,
            _ => self.key.store(NOBODY, Release),
        }
    }

    pub(super) fn socket<S>(&self, parked: &Parked<S>) -> Option<Arc<OwnedFd>> {
        match self.key.load(Acquire) {
            NOBODY => self.socket.lock().clone(),
            key => parked.socket(Key::from_u64(key)),
        }
    }
}
