//! A TCP server for handlers that block or burn CPU, which stays fast when it is offered more
//! than it can do.
//!
//! ```text
//! clients ─▶ kernel backlog ─▶ acceptor ─▶ queue ─▶ worker 0..N-1 ─▶ Handler
//!            (backlog)          │ full     (bounded)  ▲        │
//!                               ▼                     │ ready  │ Next::Park
//!                     wait │ refuse                   └─ epoll ◀┘
//!                                                  (parked connections)
//! ```
//!
//! A [`Server`] runs a [`Handler`] on a fixed number of workers. One acceptor thread lets
//! newcomers into a bounded queue, which the workers drain. A worker calls the handler, which
//! reads and writes its [`Connection`] in plain blocking style and answers [`Next`]: park, again
//! or close. A parked connection costs a slot of less than 200 bytes and no thread: workers that
//! have nothing to do wait in epoll themselves. [`OnFull`] says what becomes of those that do not
//! fit, and [`Metrics`] what became of everybody. [`http`] is a handler that turns connections into
//! requests and responses, `balance` one that relays them to other servers, [`apps`] are small
//! handlers to try it with and any program, `admin` tells operators how all of it fares, and `dial` dials
//! many servers at once.
//!
//! Examples stand where they are needed: a handler with state at [`Handler`], signals at [`Handle`], streaming
//! uploads at [`http::Body`], WebSockets at [`http::Response::upgrade`], routes at [`http::Request`], and tests
//! without a socket at [`http::RequestBuilder`].
//!
//! What is logged, such as why a request failed, is logged by the crate `tracing`, and nobody sees it without a
//! subscriber: `tracing_subscriber::fmt::init()` of the crate `tracing-subscriber` at the beginning of a program
//! prints it.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `cli` | the command `overfall`, and with it `admin`, `balance` and `tls`; on by default |
//! | `files` | `http::Files`: files with ranges; on by default |
//! | `json` | `http::Response::json` and `http::Request::json`; on by default |
//! | `admin` | metrics, health, readiness and a page |
//! | `balance` | upstreams, and with them `dial` and `proxy-protocol` |
//! | `dial` | dialing many servers at once |
//! | `proxy-protocol` | `Builder::accept_proxy`: who the client is, from a proxy in front |
//! | `tls` | `Builder::tls`: encrypted connections |
//!
//! Without any of them it needs 25 crates. The oldest Rust that will do is that of `rust-version`, with which it
//! is checked; that is raised in a minor version, to one that is half a year old at least.
//!
//! # What never happens
//!
//! - Nothing is unbounded: the queue, the connections, what is kept of their input and output,
//!   the lingering closes, and every read, write and wait.
//! - A worker never waits for a client that is not sending, unless its handler says so: it parks.
//! - One connection's failure never ends a loop. Out of descriptors, the acceptor backs off,
//!   those that are in are served, and it recovers.
//! - A panic in a handler closes that connection and is counted; it costs no worker.
//! - What was admitted is answered, or refused in a way that its client can tell. A reply is never
//!   lost to a reset for unread input.
//!
//! # The house
//!
//! From the ground up; each floor knows those below it and no other, and each file says at its head what
//! it does not know. A constant stands beside its only user; what a user can set has its default and its
//! range in `server/config.rs`, `balance/config.rs` or `dial/config.rs`. To change something, begin here:
//!
//! | what | where |
//! |---|---|
//! | how the system is asked: clocks, connecting, names, `TCP_INFO` | `sys/` |
//! | what is counted and printed | `metrics/mod.rs`: one list |
//! | how long things took: histograms | `metrics/times.rs` |
//! | who joins a line, and who is served from it or shed | `overload/gate.rs`; the policy is pure, its judge is `overload/simulation/` |
//! | how long a line may be, when it is made shorter and longer | `overload/line.rs` |
//! | what each source has had, and which have had little | `overload/shares.rs` |
//! | what service times and refusals' costs are taken to be | `overload/pace.rs`, `overload/budget.rs` |
//! | how many requests an upstream may have in flight | `overload/limit.rs` |
//! | listening, backlogs, kinds of accept errors | `net/listener.rs` |
//! | newcomers are told apart by their source, by the kernel and in turn | `net/lanes.rs`, `sys/steer.rs` |
//! | one socket: reading, writing, splicing | `net/wire.rs` |
//! | what a connection begins with: a PROXY line, a TLS handshake | `net/transport.rs`, `net/preface/`, `net/tls/` |
//! | the slots of parked sessions | `net/slots.rs` |
//! | epoll, and waking idle workers | `net/poller.rs` |
//! | events that nobody has heeded yet, and wakers | `net/ready.rs` |
//! | what a handler sees | `session/connection.rs` |
//! | what a thread is at, and what its call is said to do | `session/activity.rs` |
//! | what a handler is, and what it answers | `session/handler.rs` |
//! | a session (a connection with all it owns): its states | `session/life.rs` |
//! | what a parked session waits for, and how long | `session/phase.rs` |
//! | when a handler is called, and what follows from its answer | `session/exchange.rs` |
//! | our side has ended: what the client still sends is drained, so that no reset overtakes its reply | `session/linger.rs` |
//! | what the end of an idle session means to its client | `session/farewell.rs` |
//! | settings, as methods | `server/builder.rs` |
//! | settings, their defaults and ranges | `server/config.rs` |
//! | settings that change while the server runs | `server/reload.rs`, `server/live.rs` |
//! | settings in words, as they are logged | `server/settings.rs`, `balance/settings.rs`, `sys/words.rs` |
//! | newcomers are accepted | `server/acceptor.rs` |
//! | a pause when descriptors have run out | `server/backoff.rs` |
//! | a newcomer is admitted or refused | `server/door.rs` |
//! | who gives way to it when all places are taken | `server/eviction.rs` |
//! | it waits for a worker | `server/queue.rs` |
//! | a worker takes and serves a session | `server/worker.rs` |
//! | what the workers do with their time, and the longest calls | `server/workers.rs` |
//! | how many workers a load wants | `server/advice.rs`, seen over a minute by `server/advisor.rs` |
//! | a session is refused, shed, parked, retired | `server/pool.rs` |
//! | a session whose time has passed is found | `server/sweeper.rs` |
//! | clients are told no while all workers are stuck | `server/overdue.rs` |
//! | the server drains: idle sessions (relays among them) are closed, the rest is cut at the end | `server/drain.rs` |
//! | a thread for every connection, to compare with | `server/baseline.rs` |
//! | HTTP: the head of a request, and what is malformed | `http/codec/head.rs`, and its targets `http/codec/target.rs` |
//! | HTTP: how the end of a body is known | `http/codec/framing.rs` |
//! | HTTP: chunks, their extensions and trailers | `http/codec/chunked.rs` |
//! | HTTP: a request is gathered | `http/arrival.rs` |
//! | HTTP: a request is answered | `http/answer.rs` |
//! | HTTP: large bodies | `http/large.rs`, `http/incoming.rs` |
//! | HTTP: what functions see and give | `http/request.rs`, `http/made.rs`, `http/response.rs`, `http/failure.rs` |
//! | HTTP: a response is sent | `http/delivery.rs`, `http/sending.rs` |
//! | HTTP: files, conditions and ranges | `http/files/` |
//! | HTTP: another protocol takes over | `http/upgrade.rs` |
//! | programs as services: their pipes and their end | `apps/program/`, over HTTP `apps/cgi/` |
//! | balance: a relay, from its place in line to its end | `balance/tcp.rs` |
//! | balance: one direction of a relay | `balance/flow.rs` |
//! | balance: a client's requests over HTTP, and what is refused | `balance/http/proxy.rs`, `balance/http/refusal.rs` |
//! | balance: how a request comes to a connection, and is tried again | `balance/http/placing.rs` |
//! | balance: the upload, the reply, and what follows from them | `balance/http/upload.rs`, `balance/http/receiving.rs`, `balance/http/serving.rs` |
//! | balance: heads as they are passed on | `balance/http/request.rs`, `balance/http/reply.rs` |
//! | balance: an upstream is told who the client is | `balance/preface.rs` |
//! | balance: which upstream is chosen | `balance/selection.rs` |
//! | balance: who waits for a place, one of each source in turn, and the places | `balance/line.rs`, `balance/upstreams/` |
//! | balance: which upstreams there are, and who comes and leaves | `balance/places.rs` |
//! | balance: when names are resolved, and the upstreams follow them | `balance/names.rs`, `balance/resolving.rs` |
//! | balance: the settings in force | `balance/live.rs` |
//! | balance: checks, and when an upstream is down | `balance/checks.rs`, `balance/record.rs` |
//! | what operators are told: which figures there are, and their names for Prometheus | `admin/figures.rs`, `admin/families.rs` |
//! | what they are told as JSON, and whether newcomers are welcome | `admin/status.rs`, `admin/readiness.rs` |
//! | dialing many servers | `dial/` |
//! | the command line, its help, signals and output | `cli/` of the command |
//! | the command's sockets from systemd, and its restart by USR2 | `cli/sockets.rs`, `cli/handover.rs`, `cli/restart.rs`, `cli/served.rs` |
//! | the benchmark of whole servers | `bench/` of the command |
//!
//! It runs on Linux.

// What of the lower floors nobody but the balancer uses.
#![cfg_attr(not(feature = "balance"), allow(dead_code, unused_imports))]

#[cfg(feature = "admin")]
pub mod admin;
pub mod apps;
#[cfg(feature = "balance")]
pub mod balance;
#[cfg(feature = "dial")]
pub mod dial;
mod error;
pub mod http;
mod metrics;
mod net;
mod overload;
mod server;
mod session;
#[cfg(feature = "balance")]
#[doc(hidden)]
pub mod steps;
mod sys;

pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "proxy-protocol")]
pub use ipnet::IpNet;
pub use metrics::{Distribution, Metrics};
#[cfg(feature = "tls")]
pub use net::tls::Tls;
pub use server::{
    Advice, Builder, CallState, DecidedBy, Handle, OnFull, RunningCall, Server, SourceReport, WaitingFor,
    WorkersReport, baseline,
};
pub use session::{
    busy_reply::BusyReply,
    connection::{Connection, NonBlocking},
    handler::{Handler, Next, Refusal},
};

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
