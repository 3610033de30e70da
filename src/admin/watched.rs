//! What is shown: anything that has a server's handle, and perhaps upstreams. It does not know how.

use std::sync::Arc;

use crate::{
    balance::{Balancer, Snapshot},
    server::Handle,
};

/// A server whose state is shown.
pub trait Watched: Send + Sync + 'static {
    /// The server.
    fn handle(&self) -> &Handle;

    /// How its upstreams fare; none where it has no such thing.
    fn upstreams(&self) -> Option<Snapshot> {
        None
    }

    /// How many of its upstreams are up, which is asked for more often than the rest; none where it has no
    /// such thing.
    fn upstreams_up(&self) -> Option<usize> {
        self.upstreams().as_ref().map(up)
    }
}

/// How many upstreams are up.
pub(super) fn up(snapshot: &Snapshot) -> usize {
    snapshot.upstreams.iter().filter(|upstream| upstream.up).count()
}

impl Watched for Handle {
    fn handle(&self) -> &Handle {
        self
    }
}

impl Watched for Balancer {
    fn handle(&self) -> &Handle {
        Self::handle(self)
    }

    fn upstreams(&self) -> Option<Snapshot> {
        Some(self.snapshot())
    }

    fn upstreams_up(&self) -> Option<usize> {
        Some(Self::upstreams_up(self))
    }
}

impl<W: Watched> Watched for Arc<W> {
    fn handle(&self) -> &Handle {
        W::handle(self)
    }

    fn upstreams(&self) -> Option<Snapshot> {
        W::upstreams(self)
    }

    fn upstreams_up(&self) -> Option<usize> {
        W::upstreams_up(self)
    }
}
