//! The parts of a session that its handler works with, and what it may ask of whoever runs it. It knows
//! no handler.

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{activity::Activity, farewell::Farewell, joint::Joint};
use crate::net::{key::Key, lodging::Lodging, ready::Waker, wire::Wire};

pub(super) struct Sides<'a> {
    pub(super) wire: &'a mut Wire,
    pub(super) joint: &'a mut Option<Box<Joint>>,
    pub(super) key: &'a mut Option<Key>,
    pub(super) farewell: &'a mut Farewell,
    pub(super) call: &'a mut Call,
}

impl Sides<'_> {
    /// For a shorter while.
    pub(super) fn reborrow(&mut self) -> Sides<'_> {
        let Sides { wire, joint, key, farewell, call } = self;
        Sides { wire, joint, key, farewell, call }
    }
}

/// What a handler has done in one call.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) consumed: bool,
    pub(super) wrote: bool,
    /// `ready` is to be called as soon as `open` has returned.
    pub(super) goes_on: bool,
    /// Its waiting ended at its deadline.
    pub(super) timed_out: bool,
    /// The client has announced more than has come.
    pub(super) expects_more: bool,
    /// How long it has waited for its client.
    pub(super) waited: Duration,
}

/// Whoever runs sessions, as far as they know it.
pub(crate) trait Host {
    /// Whether somebody else could be served now; asked when the handler has more to do at once.
    fn others_wait(&mut self) -> bool;

    /// The session's key: it gets its slot if it has none yet. None where there is no slot for it.
    fn key(&self, key: &mut Option<Key>, socket: &Arc<OwnedFd>) -> Option<Key>;

    /// What has the session of this key run once more.
    fn waker(&self, key: Key) -> Option<Waker>;

    /// What the thread is at, where somebody may ask for that.
    fn activity(&self) -> Option<&Activity>;

    /// Says who the client is, other than the socket's other end.
    fn client_is(&self, client: SocketAddr);

    /// When what the call is for came, or earlier.
    fn came(&self) -> Instant;

    /// How long clients can bear to wait.
    fn tolerance(&self) -> Duration;

    /// A slot for a connection that no session owns; none where there is none.
    fn lodge(&self, socket: &Arc<OwnedFd>) -> Option<Lodging>;
}
