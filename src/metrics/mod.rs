//! What is counted as a server runs: one list, of which the counters, the snapshot and its print are
//! made. It knows nobody who counts.

mod times;

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

pub use self::times::Distribution;
use self::times::Measured;
pub(crate) use self::times::Times;
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

/// Makes [`Counters`], [`Gauges`] and [`Metrics`] of one list: numbers that are counted, numbers that
/// are so now, and times that follow from what was recorded, each printed in its unit.
macro_rules! metrics {
    (
        counters { $($(#[doc = $count_doc:literal])* $count:ident,)* }
        gauges { $($(#[doc = $gauge_doc:literal])* $gauge:ident,)* }
        times($known:ident) { $($(#[doc = $time_doc:literal])* $time:ident in $unit:ident = $value:expr,)* }
    ) => {
        /// What the server counts as it runs.
        #[derive(Debug)]
        pub(crate) struct Counters {
            $(pub(crate) $count: Counter,)*
            pub(crate) left_waiting_ms: Counter,
            pub(crate) refusal_cpu_us: Counter,
            /// By the worker, and after the last of them the acceptor.
            pub(crate) waits: Times,
            /// By the worker.
            pub(crate) services: Times,
            /// By the acceptor alone.
            pub(crate) refusals: Times,
        }

        impl Counters {
            /// Of so many workers.
            pub(crate) fn new(workers: usize) -> Self {
                Self {
                    $($count: Counter::default(),)*
                    left_waiting_ms: Counter::default(),
                    refusal_cpu_us: Counter::default(),
                    waits: Times::new(workers + 1),
                    services: Times::new(workers),
                    refusals: Times::new(1),
                }
            }

            /// A snapshot; the gauges are what the caller knows.
            pub(crate) fn snapshot(&self, gauges: Gauges) -> Metrics {
                let (waits, refusals) = (self.waits.read(), self.refusals.read());
                let $known = Known { counters: self, waits: &waits, refusals: &refusals };
                Metrics {
                    wait: waits.distribution(),
                    service: self.services.read().distribution(),
                    $($count: self.$count.get(),)*
                    $($gauge: gauges.$gauge,)*
                    $($time: $value,)*
                }
            }
        }

        /// What the times follow from.
        struct Known<'a> {
            counters: &'a Counters,
            waits: &'a Measured,
            refusals: &'a Measured,
        }

        /// What is so now, as opposed to what was counted.
        #[derive(Debug, Clone, Copy, Default)]
        pub(crate) struct Gauges {
            $(pub(crate) $gauge: u64,)*
        }

        /// The server's counters at one moment. Each is read by itself, so that sums may be off by what
        /// is under way. Its `Display` has a line for each, name and value, times with their unit in
        /// the name; distributions are not printed.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Metrics {
            $($(#[doc = $count_doc])* pub $count: u64,)*
            $($(#[doc = $gauge_doc])* pub $gauge: u64,)*
            $($(#[doc = $time_doc])* pub $time: Duration,)*
            /// The waits for a worker of newcomers and of requests on kept connections.
            pub wait: Distribution,
            /// How long answered requests were with a worker, the waiting for their clients not
            /// included: as many as were [`answered`](Self::answered).
            pub service: Distribution,
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
                    wait: Measured::default().distribution(),
                    service: Measured::default().distribution(),
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
        /// Connections that began with no PROXY line, or a malformed one, where one was expected. They are
        /// among the failed.
        proxy_lines_malformed,
        /// Connections whose TLS handshake failed. They are among the failed.
        handshakes_failed,
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
    times(known) {
        /// For how long newcomers were left to the kernel, because there was no room and refusing them
        /// was not wanted or not in the budget any more.
        waiting in ms = Duration::from_millis(known.counters.left_waiting_ms.get()),
        /// 99th percentile of the time from accept to the refusal of a newcomer.
        refusal_p99 in us = known.refusals.at(0.99),
        /// CPU time of all refusals together.
        refusal_cpu in us = Duration::from_micros(known.counters.refusal_cpu_us.get()),
        /// Median wait for a worker, to two significant digits, as are the others. Of newcomers it is
        /// the time since they were accepted, or since they sent their request where that is longer.
        /// Of kept connections it is known of every request that was consumed or answered in the call for
        /// which it waited: where it is under 10 ms, it is the longest that it can have been, which is the
        /// time since somebody last looked for requests and found no more.
        wait_p50 in us = known.waits.at(0.5),
        /// 99th percentile of the wait for a worker.
        wait_p99 in us = known.waits.at(0.99),
        /// 99.9th percentile of the wait for a worker.
        wait_p999 in us = known.waits.at(0.999),
        /// The longest wait for a worker.
        wait_max in us = known.waits.longest(),
    }
}

fn ms(time: Duration) -> u64 {
    us(time) / 1000
}

impl Counters {
    /// Clients for whom there was no time: refused at the door, shed, or gone before their turn came.
    pub(crate) fn turned_away(&self) -> [u64; 5] {
        [
            &self.refused_queue_full,
            &self.refused_connections_full,
            &self.refused_oldest,
            &self.shed,
            &self.gone,
        ]
        .map(Counter::get)
    }

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
