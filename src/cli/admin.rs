//! The flags of `serve` and `balance` by which others ask how the service fares. It does not know what they
//! are answered.

use std::{net::TcpListener, sync::Arc};

use anyhow::Context;
use overfall::{
    Handle,
    admin::{self, Watched},
};

use super::{output, values};

#[derive(Debug, clap::Args)]
pub(super) struct AdminArgs {
    /// Answer here, over HTTP: /metrics for Prometheus, /healthz, /readyz, /status.json, and a page for people
    /// at /; a port alone is one of 127.0.0.1, and whoever can reach it sees clients and what they ask for
    /// [default: nowhere]
    #[arg(long, value_name = "ADDR", value_parser = values::loopback_address)]
    admin: Option<String>,
}

/// Listeners for what the flags ask for.
pub(super) struct Bound {
    admin: Option<TcpListener>,
}

impl AdminArgs {
    /// Listens, before the service does: who cannot be asked how it fares is not to begin.
    pub(super) fn bind(&self) -> anyhow::Result<Bound> {
        Ok(Bound { admin: bind("--admin", self.admin.as_deref())? })
    }
}

fn bind(flag: &str, addr: Option<&str>) -> anyhow::Result<Option<TcpListener>> {
    let listen =
        |addr| TcpListener::bind(addr).with_context(|| format!("cannot listen on {addr} for {flag}"));
    addr.map(listen).transpose()
}

impl Bound {
    /// Answers until what is given is dropped.
    pub(super) fn serve<W: Watched>(self, watched: &Arc<W>) -> anyhow::Result<Vec<Handle>> {
        let mut answering = Vec::new();
        if let Some(listener) = self.admin {
            let handle = admin::serve(listener, Arc::clone(watched))?;
            output::print(format_args!("admin on http://{}/\n", handle.local_addr()));
            answering.push(handle);
        }
        Ok(answering)
    }
}
