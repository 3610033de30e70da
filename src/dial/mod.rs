//! Dial many servers at once and wait for all of them. What is said to a server is bytes: it knows no
//! protocol.
//!
//! ```
//! use overfall::dial::{Config, dial};
//!
//! let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! let targets = [listener.local_addr()?.to_string(), "127.0.0.1:1".into()];
//! let outcomes = dial(&targets, &Config { connect_only: true, ..Config::default() })?;
//! assert!(outcomes[0].failure.is_none());
//! assert_eq!(outcomes[1].failure.as_ref().unwrap().class.name(), "refused");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attempt;
mod cancel;
mod config;
mod dialing;
mod outcome;
mod resolve;

use std::net::SocketAddr;

use self::dialing::Dialing;
pub use self::{
    cancel::Cancel,
    config::{Config, Retry},
    outcome::{Class, Failure, Outcome},
};
use crate::{
    error::{Error, Result},
    sys::names,
};

/// All addresses of `HOST:PORT`, in the order in which they are tried. An IPv6 address stands in brackets
/// and may have a zone, by name or number: `[fe80::1%eth0]:80`.
///
/// # Errors
///
/// It has another form, or the name has no address.
pub fn resolve(target: &str) -> std::io::Result<Vec<SocketAddr>> {
    names::resolve(target)
}

/// Dials all targets, each `HOST:PORT`, and gives their outcomes in the same order. A target's
/// failure is its outcome and never hides another's.
///
/// # Errors
///
/// The config is out of range, or the system denies a descriptor or a thread.
pub fn dial(targets: &[String], config: &Config) -> Result<Vec<Outcome>> {
    dial_with(targets, config, &Cancel::new()?, &|_, _| {})
}

/// Dials all targets, each `HOST:PORT`, and gives their outcomes in the same order. It can be
/// cancelled, and `settled` is told of each outcome when it is known, with the index of its target.
///
/// The targets are shared out to a thread pool of this dial's own, since dials wait. A target that
/// is to be tried again does not keep a thread meanwhile.
///
/// # Errors
///
/// As [`dial`].
pub fn dial_with(
    targets: &[String],
    config: &Config,
    cancel: &Cancel,
    settled: &(dyn Fn(usize, &Outcome) + Sync),
) -> Result<Vec<Outcome>> {
    config.validate(targets.len())?;
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let threads = config.concurrency.min(targets.len());
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("dial-{index}"))
        .build()
        .map_err(|error| Error::start("the dialing threads", std::io::Error::other(error)))?;
    let dialing = Dialing::new(targets, config, cancel, settled)?;
    pool.in_place_scope(|scope| {
        (0..threads).for_each(|_| scope.spawn(|_| dialing.work()));
        dialing.watch();
    });
    Ok(dialing.into_outcomes())
}
