//! A TCP server for handlers that block or burn CPU, which stays fast when it is offered more
//! than it can do.
pub mod apps;
mod error;
mod server;

pub use error::{Error, Result};
pub use server::{Builder, Connection, Handle, Handler, Metrics, Model, Next, OnFull, Refusal, Server};
