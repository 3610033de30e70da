//! The flags of `serve` and `balance` by which others ask how the service fares. It does not know what they
//! are answered.

use std::{io, net::TcpListener, sync::Arc};

use anyhow::Context;
use overfall::{
    Handle,
    admin::{self, Watched},
};

use super::{groups, handover::Origin, output, restart::Estate, sockets::Passed, values};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = groups::WATCHING)]
pub(super) struct AdminArgs {
    /// Show here how it fares, with /metrics [default: nowhere]
    ///
    /// Over HTTP: /metrics for Prometheus, /healthz, /readyz, /status.json, and a page for people at /. A
    /// port alone is one of 127.0.0.1, and whoever can reach it sees clients and what they ask for.
    #[arg(long, value_name = "ADDR", value_parser = values::loopback_address)]
    admin: Option<String>,
    /// Answer HAProxy's agent-check here [default: nowhere]
    ///
    /// Up and a weight, which falls as clients wait, drain, or down. A port alone is one of 127.0.0.1.
    #[arg(long, value_name = "ADDR", value_parser = values::loopback_address, hide_short_help = true)]
    agent: Option<String>,
}

/// Listeners for what the flags ask for.
pub(super) struct Bound {
    admin: Option<(Origin, TcpListener)>,
    agent: Option<(Origin, TcpListener)>,
}

impl AdminArgs {
    /// Listens, before the service does: who cannot be asked how it fares is not to begin. A program whose
    /// place this one takes has passed on the listeners that it has.
    pub(super) fn bind(&self, passed: &mut Passed) -> anyhow::Result<Bound> {
        Ok(Bound {
            admin: bind("admin", self.admin.as_deref(), passed)?,
            agent: bind("agent", self.agent.as_deref(), passed)?,
        })
    }
}

fn bind(
    flag: &str,
    addr: Option<&str>,
    passed: &mut Passed,
) -> anyhow::Result<Option<(Origin, TcpListener)>> {
    let listen = |addr: &str| {
        let origin = Origin::Flag(flag.to_owned(), addr.to_owned());
        let listener = match passed.of(&origin) {
            Some(listener) => listener,
            None => {
                TcpListener::bind(addr).with_context(|| format!("cannot listen on {addr} for --{flag}"))?
            }
        };
        Ok((origin, listener))
    };
    addr.map(listen).transpose()
}

impl Bound {
    /// Answers until that is ended.
    pub(super) fn serve<W: Watched>(self, watched: &Arc<W>) -> anyhow::Result<Answering> {
        let mut answering = Vec::new();
        if let Some((origin, listener)) = self.admin {
            answering.push((origin.clone(), serve(&origin, listener, Arc::clone(watched))?));
        }
        if let Some((origin, listener)) = self.agent {
            answering.push((origin, admin::serve_agent(listener, Arc::clone(watched))?));
        }
        // They may be those of a program whose place this one takes, and which goes on should this one fail.
        answering.iter().for_each(|(_, handle)| handle.share_listeners());
        Ok(Answering(answering))
    }
}

/// Where it was told to listen by a name, that is what browsers know it by.
fn serve<W: Watched>(origin: &Origin, listener: TcpListener, watched: Arc<W>) -> overfall::Result<Handle> {
    match origin {
        Origin::Flag(_, addr) => {
            let name = addr.rsplit_once(':').map_or(addr.as_str(), |(name, _)| name);
            admin::serve_named(name, listener, watched)
        }
        Origin::Manager(_) => admin::serve(listener, watched),
    }
}

/// Those who answer, and what each listens for.
pub(super) struct Answering(Vec<(Origin, Handle)>);

impl Answering {
    /// Says where they answer.
    pub(super) fn announce(&self) {
        for (origin, handle) in &self.0 {
            let addr = handle.local_addr();
            match origin {
                Origin::Flag(flag, _) if flag == "admin" => {
                    output::print(format_args!("admin on http://{addr}/\n"));
                }
                _ => output::print(format_args!("agent on {addr}\n")),
            }
        }
    }

    /// Their listeners, for a program that takes this one's place.
    pub(super) fn estate(&self) -> io::Result<Estate> {
        let listeners = |(origin, handle): &(Origin, Handle)| {
            Ok(handle.listeners()?.into_iter().map(|listener| (origin.clone(), listener)).collect())
        };
        Ok(self.0.iter().map(listeners).collect::<io::Result<Vec<Estate>>>()?.into_iter().flatten().collect())
    }

    /// Says that the program has ended whose listeners these were.
    pub(super) fn own_listeners(&self) {
        self.0.iter().for_each(|(_, handle)| handle.own_listeners());
    }

    /// Leaves the listeners to that program.
    pub(super) fn hand_over(&self) {
        for (_, handle) in &self.0 {
            handle.share_listeners();
            handle.shutdown();
        }
    }

    /// Ends them, once what is being answered is.
    pub(super) fn end(&self) {
        for (_, handle) in &self.0 {
            handle.shutdown();
            // Whoever has not taken the answer by now is not waited for.
            let _ = handle.join();
        }
    }
}
