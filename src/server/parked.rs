//! Sessions while nobody has them: their slots, the line of those that are ready, and the watching of
//! their sockets, put together. It knows neither threads nor handlers.

use std::{mem, os::fd::OwnedFd, sync::Arc};

use crate::{
    net::{
        flags::Flags,
        key::Key,
        lodging::Landlord,
        poller::Watch,
        ready::{Event, Ready, Waker},
        slots::{Parking, Slots, Visit},
    },
    session::life::Session,
};

#[derive(Debug)]
pub(super) struct Parked<S> {
    slots: Slots<Session<S>, OwnedFd>,
    pub(super) ready: Arc<Ready>,
}

impl<S> Parked<S> {
    /// With room for so many.
    pub(super) fn new(capacity: usize) -> rustix::io::Result<Self> {
        Ok(Self { slots: Slots::new(capacity), ready: Arc::new(Ready::new()?) })
    }

    /// Parks a session. `wake` sends it to the end of the line instead of leaving it until there is an
    /// event. It is returned when there was an event meanwhile, or when `stay`, asked with the slot
    /// locked, says no.
    pub(super) fn park(
        &self,
        mut session: Session<S>,
        wake: bool,
        stay: impl FnOnce(&Session<S>) -> bool,
    ) -> Parking<Session<S>> {
        let Some(key) = self.key(&mut session.key, &session.wire.socket) else {
            return Parking::Failed(session, rustix::io::Errno::NOMEM);
        };
        self.slots.park(key, session, |session, missed| {
            session.note(missed);
            // On its way to the end of the line, a missed event makes no difference.
            if !((wake || missed == Flags::NONE) && stay(session)) {
                return Ok(false);
            }
            let was_watched = session.watch != Watch::No;
            let watched = session.watched(&self.ready, key);
            if !was_watched && session.watch != Watch::No {
                self.ready.poller.begin_use();
            }
            watched?;
            if wake {
                self.ready.wake(key);
            }
            Ok(true)
        })
    }

    /// A session's key: it gets its slot if it has none yet.
    pub(super) fn key(&self, key: &mut Option<Key>, socket: &Arc<OwnedFd>) -> Option<Key> {
        if key.is_none() {
            *key = self.slots.allocate(Arc::clone(socket));
        }
        *key
    }

    /// What has the session of this key run once more.
    pub(super) fn waker(&self, key: Key) -> Waker {
        Waker::new(Arc::clone(&self.ready), key)
    }

    /// Takes the session to which something has happened to run it. None when it has ended, or when a
    /// worker has it; that one is told of the event when it parks.
    pub(super) fn take(&self, event: Event) -> Option<Session<S>> {
        let (mut session, flags) = self.slots.take(event.key, event.flags)?;
        session.note(flags);
        Some(session)
    }

    /// Takes the session if it is parked, and if that is wanted.
    pub(super) fn take_if(&self, key: Key, wanted: impl FnOnce(&Session<S>) -> bool) -> Option<Session<S>> {
        self.slots.take_if(key, wanted)
    }

    /// Shows every parked session to `visit`, one at a time and with its slot locked, and hands those
    /// that it takes to `taken`.
    pub(super) fn visit(
        &self,
        visit: impl FnMut(Key, &mut Session<S>) -> Visit,
        taken: impl FnMut(Session<S>),
    ) {
        self.slots.visit_parked(visit, taken);
    }

    /// The socket of a session, which may be with a worker; none when it has ended.
    pub(super) fn socket(&self, key: Key) -> Option<Arc<OwnedFd>> {
        self.slots.anchor(key)
    }

    /// Gives the slot of a running session back, which is going to be closed.
    pub(super) fn release(&self, session: &mut Session<S>) {
        if mem::take(&mut session.watch) != Watch::No {
            self.ready.poller.end_use();
        }
        if let Some(key) = session.key.take() {
            self.slots.release(key);
        }
    }
}

impl<S: Send> Landlord for Parked<S> {
    fn lodge(&self, socket: &Arc<OwnedFd>) -> Option<Key> {
        self.slots.allocate(Arc::clone(socket))
    }

    fn lend(&self, key: Key, to: Key) -> bool {
        self.slots.lend(key, to)
    }

    fn give_back(&self, key: Key) {
        self.slots.give_back(key);
    }

    fn release(&self, key: Key) {
        self.slots.release(key);
    }
}
