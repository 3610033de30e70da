//! What operators and their machines ask of a running server, over HTTP on an address of its own: metrics for
//! Prometheus, health, readiness, and a page for people. It changes nothing, and shows no secret; it does
//! show the addresses of clients and what they ask for, so that it is not for everybody.
//!
//! ```no_run
//! use std::net::TcpListener;
//! use overfall::{Server, admin, http::{self, Request, Response}};
//!
//! let server = Server::builder().bind("127.0.0.1:8888");
//! let handle = std::sync::Arc::new(http::serve(server, |_: &Request| Response::text("Hello!"))?);
//! // Kept for as long as it is to answer: until after the server has ended.
//! let shown = admin::serve(TcpListener::bind("127.0.0.1:9901")?, std::sync::Arc::clone(&handle))?;
//! handle.join()?;
//! drop(shown);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | path | what it answers |
//! |---|---|
//! | `/metrics` | everything that is counted, for Prometheus, as its text format or as OpenMetrics |
//! | `/healthz` | 200 while the server works; 503 when a thread has died without which it is of no use |
//! | `/readyz` | 200 while newcomers are welcome; 503 and why, when it is going to shut down, or no upstream is up |
//! | `/status.json` | everything as JSON; names are those of [`Metrics`](crate::Metrics) and of this table's neighbours |
//! | `/` | a page for people, which asks for `/status.json` every second |
//!
//! The last two are answered to who asks by an IP address, by `localhost`, or by the name given to
//! [`serve_named`], and to others with 421: else a page of somebody else's that a browser shows could let its
//! own name stand for this address, and read them.
//!
//! It has threads of its own, so that it answers while every worker of the server is held. [`serve_agent`]
//! tells HAProxy, in its own way, what `/readyz` says, and how much the server can take.

mod agent;
mod families;
mod figures;
mod hosts;
mod page;
mod process;
mod prometheus;
mod readiness;
mod routes;
mod status;
mod sums;
mod watched;
mod weight;

use std::{net::TcpListener, time::Duration};

pub use self::watched::Watched;
use self::{agent::Agent, figures::Source};
use crate::{
    error::Result,
    http::{self, Request},
    server::{Builder, Handle, Server},
};

/// Enough that one slow answer does not keep the others waiting.
const WORKERS: usize = 2;
/// Probes, scrapers, and a few people with the page open.
const MAX_CONNECTIONS: usize = 64;
/// Who asks for health waits for a second at least.
const PATIENCE: Duration = Duration::from_secs(1);
/// For a request to come and a reply to be taken.
const IO_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than scrapes are apart, else each would connect anew.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Who has asked for the agent's line has it, and need not say so.
const AGENT_TIMEOUT: Duration = Duration::from_millis(100);
/// It ends last, and nobody is to wait for it.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Answers on this listener what is to be known of a server or a balancer, until the handle is dropped. It
/// goes on while the server drains and after it has ended.
///
/// # Errors
///
/// The listener cannot be used, or the system denies a thread or a descriptor.
pub fn serve(listener: TcpListener, watched: impl Watched) -> Result<Handle> {
    serve_known_as(None, listener, watched)
}

/// The same for a server that browsers may ask by this name as well.
///
/// # Errors
///
/// Those of [`serve`].
pub fn serve_named(name: &str, listener: TcpListener, watched: impl Watched) -> Result<Handle> {
    serve_known_as(Some(name.to_owned()), listener, watched)
}

fn serve_known_as(name: Option<String>, listener: TcpListener, watched: impl Watched) -> Result<Handle> {
    let server = small(listener, "admin").workers(WORKERS).first_byte_timeout(IO_TIMEOUT);
    let source = Source::new(watched);
    let answer = move |request: &Request<'_>| routes::answer(&source, name.as_deref(), request);
    quietly(|| http::serve(server, answer))
}

/// Tells HAProxy on this listener how a server or a balancer fares, as its `agent-check` asks, until the
/// handle is dropped: `up` and a weight, which is less than 100 % when clients have to wait or are refused;
/// `drain` when the server is going to shut down; `down` and why, when no upstream is up or a thread has
/// died without which it is of no use. For the first minute it also says `ready`, which takes back the
/// `drain` of a server that was here before.
///
/// # Errors
///
/// The listener cannot be used, or the system denies a thread or a descriptor.
pub fn serve_agent(listener: TcpListener, watched: impl Watched) -> Result<Handle> {
    let server = small(listener, "agent").workers(1).first_byte_timeout(AGENT_TIMEOUT);
    quietly(|| server.serve_handler(Agent::new(Source::new(watched))))
}

/// A server for a few, who are answered at once.
fn small(listener: TcpListener, name: &'static str) -> Builder {
    Server::builder()
        .name(name)
        .from_listener(listener)
        .max_connections(MAX_CONNECTIONS)
        .patience(PATIENCE)
        .io_timeout(IO_TIMEOUT)
        .idle_timeout(IDLE_TIMEOUT)
        .drain_timeout(DRAIN_TIMEOUT)
}

/// What a server logs as it starts is its settings, which nobody chose.
fn quietly(start: impl FnOnce() -> Result<Handle>) -> Result<Handle> {
    tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), start)
}
