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
//! requests and responses, [`balance`] one that relays them to other servers, [`apps`] are small
//! handlers to try it with, and [`dial`] dials many servers at once.
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
//! It runs on Linux. The feature `cli`, on by default, is for the command `overfall`; a library
//! user switches it off.

pub mod apps;
pub mod balance;
pub mod dial;
mod error;
pub mod http;
mod metrics;
mod net;
mod overload;
mod server;
mod session;
#[doc(hidden)]
pub mod steps;
mod sys;

pub use error::{Error, Result};
pub use metrics::Metrics;
pub use server::{Builder, Handle, OnFull, Server, baseline};
pub use session::{
    connection::Connection,
    handler::{Handler, Next, Refusal},
};

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
