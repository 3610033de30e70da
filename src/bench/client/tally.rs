//! What came of the requests, counted by how they ended. It knows no connection and no clock.

use std::time::Duration;

use crate::bench::stats::Latencies;

/// What came of the requests that were intended for the time after the warm-up.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) elapsed: Duration,
    /// Requests that should have been started.
    pub(crate) intended: u64,
    pub(crate) sent: u64,
    /// Requests that were due but could not be started: too late, or no socket.
    pub(crate) dropped: u64,
    /// Correct replies within the deadline.
    pub(crate) good: u64,
    /// Connections refused, or closed without a reply.
    pub(crate) refused: u64,
    pub(crate) reset: u64,
    pub(crate) timed_out: u64,
    /// Replies that are not what they should be.
    pub(crate) wrong: u64,
    /// From the intended time to the reply, or to giving up.
    pub(crate) response: Latencies,
    /// From the real start to the reply, of the good ones.
    pub(crate) service: Latencies,
    /// From the intended time to the real start.
    pub(crate) lag: Latencies,
    /// CPU time of this thread.
    pub(crate) cpu: Duration,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            elapsed: Duration::ZERO,
            intended: 0,
            sent: 0,
            dropped: 0,
            good: 0,
            refused: 0,
            reset: 0,
            timed_out: 0,
            wrong: 0,
            response: Latencies::new(),
            service: Latencies::new(),
            lag: Latencies::new(),
            cpu: Duration::ZERO,
        }
    }

    /// Counts a request by its end. A reply that came when its client had given up in its mind is no
    /// good one.
    pub(super) fn count(&mut self, end: End, response: Duration, service: Duration, deadline: Duration) {
        let end = if end == End::Good && response > deadline { End::TimedOut } else { end };
        match end {
            End::Good => self.good += 1,
            End::Refused => self.refused += 1,
            End::Reset => self.reset += 1,
            End::TimedOut => self.timed_out += 1,
            End::Wrong => self.wrong += 1,
        }
        if matches!(end, End::Good | End::TimedOut) {
            self.response.record(response);
        }
        if end == End::Good {
            self.service.record(service);
        }
    }

    pub(crate) fn per_s(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64()
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Good,
    Refused,
    Reset,
    TimedOut,
    Wrong,
}
