//! Slots for connections that no session owns: each has its key for life, and is lent to one session after
//! the other. It knows neither sessions nor what the connections are for.

use std::{fmt, os::fd::OwnedFd, sync::Arc};

use super::key::Key;

/// Who has the slots.
pub(crate) trait Landlord: Send + Sync {
    /// A slot for this connection; none where all are taken.
    fn lodge(&self, socket: &Arc<OwnedFd>) -> Option<Key>;

    /// See [`Slots::lend`](super::slots::Slots::lend).
    fn lend(&self, key: Key, to: Key) -> bool;

    fn give_back(&self, key: Key);

    fn release(&self, key: Key);
}

/// A slot that is given back when this is dropped.
pub(crate) struct Lodging {
    pub(crate) key: Key,
    landlord: Arc<dyn Landlord>,
}

impl Lodging {
    /// None where all slots are taken.
    pub(crate) fn new(landlord: Arc<dyn Landlord>, socket: &Arc<OwnedFd>) -> Option<Self> {
        let key = landlord.lodge(socket)?;
        Some(Self { key, landlord })
    }

    /// Has what happens to the connection concern this session. Whether something has happened since it was
    /// given back.
    pub(crate) fn lend(&self, to: Key) -> bool {
        self.landlord.lend(self.key, to)
    }

    pub(crate) fn give_back(&self) {
        self.landlord.give_back(self.key);
    }
}

impl Drop for Lodging {
    fn drop(&mut self) {
        self.landlord.release(self.key);
    }
}

impl fmt::Debug for Lodging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lodging").field(&self.key).finish()
    }
}
