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
}

impl<W: Watched> Watched for Arc<W> {
    fn handle(&self) -> &Handle {
        W::handle(self)
    }

    fn upstreams(&self) -> Option<Snapshot> {
        W::upstreams(self)
    }
}
