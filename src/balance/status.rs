//! How the upstreams fare, for people and for the command. It knows no way to find that out.

use std::{net::SocketAddr, time::Duration};

use crate::metrics::Distribution;

/// How the upstreams fare at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Snapshot {
    /// In the order in which they were given, the addresses of one name in their own order.
    pub upstreams: Vec<UpstreamStatus>,
    /// Connections that wait for a place at an upstream now.
    pub waiting: usize,
    /// How long connections, or over HTTP requests, waited for a place at an upstream, from when they had
    /// come; those that were shed are among them.
    pub wait: Distribution,
    /// Over HTTP: how long requests that were answered had a place at an upstream.
    pub service: Distribution,
    /// Connections refused because there was no upstream for them.
    pub refused_no_upstream: u64,
    /// Connections refused because they would have waited too long for a place at an upstream.
    pub refused_line_full: u64,
    /// Connections refused because they had waited too long.
    pub line_shed: u64,
    /// Connections that were reset by their client while they waited.
    pub line_gone: u64,
    /// Overloads of the upstreams that have begun: that more came than they could serve in time.
    pub overloads_begun: u64,
    /// Those of them that are over.
    pub overloads_ended: u64,
    /// Lines of the access log that could not be written in time.
    pub access_log_dropped: u64,
}

/// How one upstream fares.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UpstreamStatus {
    /// As it was given.
    pub name: String,
    /// Its address: each address of a name is an upstream of its own.
    pub addr: SocketAddr,
    /// It is used.
    pub up: bool,
    /// A connection to it was made, or a check of it went well. Among several addresses of a name, one that
    /// was never reached is not used, and nobody is told that it is down.
    pub reached: bool,
    /// Connections that it has now.
    pub open: usize,
    /// Connections that are being made.
    pub connecting: usize,
    /// Connections that were made.
    pub connected: u64,
    /// Connections that could not be made.
    pub failed: u64,
    /// Connections that it has reset before anything was sent: it is there, but busy.
    pub busy: u64,
    /// Connections for which this side had no descriptor, memory or port.
    pub lacked: u64,
    /// How long making one takes, of the latest.
    pub connect_time: Duration,
    /// Connections, or over HTTP requests, that it may have at once; none where there is no limit.
    pub limit: Option<f64>,
    /// Requests that it answered in a second while it was at its limit, where that is found.
    pub throughput: Option<f64>,
    /// By how much its throughput follows the limit: 1 where all of its requests are worked on, 0 where
    /// more of them only wait in it.
    pub elasticity: Option<f64>,
    /// Bytes sent to it.
    pub sent: u64,
    /// Bytes received from it.
    pub received: u64,
}
