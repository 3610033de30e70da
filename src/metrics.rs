//! What is counted as a server runs: one list, of which the counters, the snapshot and its print are
//! made. It knows nobody who counts.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::sys::clock::us;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    /// Raises it to `value` where it is lower: for the highest value of something.
    pub(crate) fn raise(&self, value: u64) {
        if value > self.0.load(Relaxed) {
            self.0.fetch_max(value, Relaxed);
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Times that were measured, of which quantiles are of interest.
#[derive(Debug)]
pub(crate) struct Times(Mutex<Histogram<u64>>);

impl Times {
    fn new() -> Self {
        let mut histogram = Histogram::new(2).expect("two significant digits are in range");
        histogram.auto(true);
        Self(Mutex::new(histogram))
    }

    pub(crate) fn record(&self, time: Duration) {
        // It grows as needed (`saturating_record` would not grow it), and what no memory is left for
        // is not recorded.
        let _ = self.0.lock().record(us(time));
    }

    fn at(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.0.lock().value_at_quantile(quantile))
    }

    fn longest(&self) -> Duration {
        Duration::from_micros(self.0.lock().max())
    }
}

/// Makes [`Counters`], [`Gauges`] and [`Metrics`] of one list: numbers that are counted, numbers that
/// are so now, and times that follow from what was recorded, each printed in its unit.
macro_rules! metrics {
    (
        counters { $($(#[doc = $count_doc:literal])* $count:ident,)* }
        gauges { $($(#[doc = $gauge_doc:literal])* $gauge:ident,)* }
        times($counters:ident) { $($(#[doc = $time_doc:literal])* $time:ident in $unit:ident = $value:expr,)* }
    ) => {
        /// What the server counts as it runs.
        #[derive(Debug)]
        pub(crate) struct Counters {
            $(pub(crate) $count: Counter,)*
            pub(crate) left_waiting_ms: Counter,
            pub(crate) refusal_cpu_us: Counter,
            pub(crate) waits: Times,
            pub(crate) refusals: Times,
        }

        impl Counters {
            pub(crate) fn new() -> Self {
                Self {
                    $($count: Counter::default(),)*
                    left_waiting_ms: Counter::default(),
                    refusal_cpu_us: Counter::default(),
                    waits: Times::new(),
                    refusals: Times::new(),
                }
            }

            /// A snapshot; the gauges are what the caller knows.
            pub(crate) fn snapshot(&self, gauges: Gauges) -> Metrics {
                let $counters = self;
                Metrics {
                    $($count: self.$count.get(),)*
                    $($gauge: gauges.$gauge,)*
                    $($time: $value,)*
                }
            }
        }

        /// What is so now, as opposed to what was counted.
        #[derive(Debug, Clone, Copy, Default)]
        pub(crate) struct Gauges {
            $(pub(crate) $gauge: u64,)*
        }

        /// The server's counters at one moment. Each is read by itself, so that sums may be off by what
        /// is under way. Its `Display` has a line for each, name and value, times with their unit in
        /// the name.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Metrics {
            $($(#[doc = $count_doc])* pub $count: u64,)*
            $($(#[doc = $gauge_doc])* pub $gauge: u64,)*
            $($(#[doc = $time_doc])* pub $time: Duration,)*
        }

        impl Metrics {
            /// The name of each, times with their unit, and its value.
            pub(crate) fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [
                    $((stringify!($count), self.$count),)*
                    $((stringify!($gauge), self.$gauge),)*
                    $((concat!(stringify!($time), "_", stringify!($unit)), $unit(self.$time)),)*
                ]
                .into_iter()
            }
        }

        #[cfg(test)]
        impl Metrics {
            /// Each count and gauge with a number of its own, 1000 and more, and times of no length.
            pub(crate) fn numbered() -> Self {
                let mut number = 999;
                let mut next = || {
                    number += 1;
                    number
                };
                Self {
                    $($count: next(),)*
                    $($gauge: next(),)*
                    $($time: Duration::ZERO,)*
                }
            }
        }

        impl fmt::Display for Metrics {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.rows().try_for_each(|(name, value)| writeln!(f, "{name:<25}{value}"))
            }
        }
    };
}

metrics! {
    counters {
        /// Connections accepted, those that were refused not among them.
        accepted,
        /// Requests answered: calls of the handler that took input, or the first one, and wrote.
        answered,
        /// Answers over HTTP with a status of success, 2xx,
        answers_2xx,
        /// of redirection, 3xx,
        answers_3xx,
        /// of an error of the client, 4xx,
        answers_4xx,
        /// and of an error of the server, 5xx; those to refused connections are not among them.
        answers_5xx,
        /// Requests over HTTP that were refused as they came: malformed, ambiguous, too large, too slow,
        /// or of a version or coding that is not spoken. They are among the answers.
        malformed,
        /// Connections whose client ended its side without having sent a byte.
        empty,
        /// Connections that ended with an error: a reset by the client, or an error that the handler
        /// returned. Those that timed out are counted there.
        failed,
        /// Calls of the handler that panicked.
        panics,
        /// Newcomers refused because they would have waited too long for a worker, or because the
        /// queue was full.
        refused_queue_full,
        /// Newcomers refused because `max_connections` were open and none of them idle.
        refused_connections_full,
        /// Newcomers refused because a later one took their place in the queue.
        refused_oldest,
        /// Connections refused because they had waited too long for a worker.
        shed,
        /// Connections that were found reset by their client while they waited for a worker.
        gone,
        /// Overloads that have begun: that more was asked than could be done in time.
        overloads_begun,
        /// Overloads that are over.
        overloads_ended,
        /// Idle connections closed to make room for a newcomer.
        evicted,
        /// Connections shut down at the drain timeout.
        cut,
        /// Connections whose client sent nothing within `first_byte_timeout` of being accepted.
        timed_out_first_byte,
        /// Connections that were idle for `idle_timeout`.
        timed_out_idle,
        /// Connections whose client stopped in the middle of a request or a reply for `io_timeout`.
        timed_out_io,
        /// Connections that failed before they could be accepted.
        accept_errors_connection,
        /// Times that accepting had to pause for lack of descriptors or memory.
        accept_errors_exhausted,
        /// Connections closed because no thread could be started for them (not in the pool model).
        accept_errors_thread,
        /// The most newcomers that were in the queue at once.
        queue_highest,
        /// The most workers that had a connection at once.
        busy_highest,
    }
    gauges {
        /// Connections open now, in whatever state.
        connections_open,
        /// Connections parked now.
        connections_parked,
        /// Newcomers in the queue now.
        queue_depth,
        /// Workers (in the other models: threads) that have a connection now.
        busy_workers,
    }
    times(counters) {
        /// For how long newcomers were left to the kernel, because there was no room and refusing them
        /// was not wanted or not in the budget any more.
        waiting in ms = Duration::from_millis(counters.left_waiting_ms.get()),
        /// 99th percentile of the time from accept to the refusal of a newcomer.
        refusal_p99 in us = counters.refusals.at(0.99),
        /// CPU time of all refusals together.
        refusal_cpu in us = Duration::from_micros(counters.refusal_cpu_us.get()),
        /// Median wait for a worker, to two significant digits, as are the others. Of newcomers it is
        /// the time since they were accepted, or since they sent their request where that is longer;
        /// of kept connections it is only known for those that may have waited over 10 ms.
        wait_p50 in us = counters.waits.at(0.5),
        /// 99th percentile of the wait for a worker.
        wait_p99 in us = counters.waits.at(0.99),
        /// 99.9th percentile of the wait for a worker.
        wait_p999 in us = counters.waits.at(0.999),
        /// The longest wait for a worker.
        wait_max in us = counters.waits.longest(),
    }
}

fn ms(time: Duration) -> u64 {
    us(time) / 1000
}

impl Counters {
    /// Counts an answer with this status of HTTP.
    pub(crate) fn count_answer(&self, status: u16) {
        match status {
            ..300 => self.answers_2xx.count(),
            300..400 => self.answers_3xx.count(),
            400..500 => self.answers_4xx.count(),
            500.. => self.answers_5xx.count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_of_any_length_are_recorded_to_two_digits() {
        let counters = Counters::new();
        for ms in 1..=1000 {
            counters.waits.record(Duration::from_millis(ms));
        }
        let metrics = counters.snapshot(Gauges::default());
        let near = |time: Duration, ms: f64| (time.as_secs_f64() * 1e3 / ms - 1.0).abs() < 0.02;
        assert!(near(metrics.wait_p50, 500.0), "{:?}", metrics.wait_p50);
        assert!(near(metrics.wait_p99, 990.0), "{:?}", metrics.wait_p99);
        assert!(near(metrics.wait_max, 1000.0), "{:?}", metrics.wait_max);
    }
}
