//! How to dial, and which settings are in range. It knows no target, only how many there are.

use std::time::Duration;

use crate::error::{Error, Result};

/// How to dial, and what counts as a success.
///
/// ```
/// use std::time::Duration;
/// use overfall::dial::{Config, Retry, dial};
///
/// // Two of three are enough, within a second.
/// let retry = Retry { give_up_after: Duration::from_secs(1), interval: Duration::from_millis(10) };
/// let config = Config { require: Some(2), connect_only: true, retry: Some(retry), ..Config::default() };
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let there = listener.local_addr()?.to_string();
/// let outcomes = dial(&[there.clone(), "127.0.0.1:1".to_owned(), there], &config)?;
/// assert_eq!(outcomes.iter().filter(|outcome| outcome.failure.is_none()).count(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    /// For one attempt at one target with all its steps, name resolution too; at least 1 ms.
    pub timeout: Duration,
    /// Dials under way at once, 1 to 4,096; each has a thread while it is under way.
    pub concurrency: usize,
    /// How many targets must succeed, at most as many as there are; none means all of them. With
    /// a number, dialing ends as soon as that is decided, and what is still open is cancelled.
    pub require: Option<usize>,
    /// Whether to try failed targets again.
    pub retry: Option<Retry>,
    /// What is sent before anything else, even where a connection is a success: a line of the PROXY protocol,
    /// say. Nothing where it is empty.
    pub preface: Vec<u8>,
    /// What is sent to each server; nothing where it is empty.
    pub send: Vec<u8>,
    /// What the reply must begin with; none means that any reply will do.
    pub expect: Option<Vec<u8>>,
    /// A connection is a success: nothing but the preface is sent, and nothing is received.
    pub connect_only: bool,
}

/// How failed targets are tried again: with exponential back-off and jitter, from the interval up
/// to 5 s.
#[derive(Debug, Clone)]
pub struct Retry {
    /// For how long, counted from the beginning; at least 1 ms.
    pub give_up_after: Duration,
    /// The first pause, at least 1 ms.
    pub interval: Duration,
}

const CONCURRENCY: std::ops::RangeInclusive<usize> = 1..=4096;

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            concurrency: 256,
            require: None,
            retry: None,
            preface: Vec::new(),
            send: b"Hello, server!".to_vec(),
            expect: None,
            connect_only: false,
        }
    }
}

impl Config {
    pub(super) fn validate(&self, targets: usize) -> Result<()> {
        if !CONCURRENCY.contains(&self.concurrency) {
            return Err(Error::setting("concurrency", self.concurrency, "1 to 4096"));
        }
        if let Some(require) = self.require
            && !(1..=targets).contains(&require)
        {
            return Err(Error::setting("require", require, format!("1 to {targets}, the number of targets")));
        }
        let times = [
            ("timeout", Some(self.timeout)),
            ("retry_for", self.retry.as_ref().map(|retry| retry.give_up_after)),
            ("interval", self.retry.as_ref().map(|retry| retry.interval)),
        ];
        for (name, time) in times {
            let Some(time) = time else { continue };
            Error::check_time(name, time)?;
        }
        Ok(())
    }
}
