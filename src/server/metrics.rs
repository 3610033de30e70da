use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::sys::clock::us;

/// A monotonic count.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Raises it to `value` where it is lower: for the highest value of something.
    pub(super) fn raise(&self, value: u64) {
        if value > self.0.load(Relaxed) {
            self.0.fetch_max(value, Relaxed);
        }
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What the server counts as it runs.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) accepted: Counter,
    pub(super) answered: Counter,
    pub(super) empty: Counter,
    pub(super) failed: Counter,
    pub(super) panics: Counter,
    pub(super) refused_queue_full: Counter,
    pub(super) refused_connections_full: Counter,
    pub(super) refused_oldest: Counter,
    pub(super) shed: Counter,
    pub(super) gone: Counter,
    pub(super) evicted: Counter,
    pub(super) cut: Counter,
    pub(super) timed_out_first_byte: Counter,
    pub(super) timed_out_idle: Counter,
    pub(super) timed_out_io: Counter,
    pub(super) accept_errors_connection: Counter,
    pub(super) accept_errors_exhausted: Counter,
    pub(super) accept_errors_thread: Counter,
    pub(super) queue_highest: Counter,
    pub(super) busy_highest: Counter,
    pub(super) refusing_ms: Counter,
    pub(super) waiting_ms: Counter,
    waits_us: Mutex<Histogram<u64>>,
    refusals_us: Mutex<Histogram<u64>>,
}

impl Counters {
    pub(super) fn new() -> Self {
        let histogram = || {
            let mut histogram = Histogram::new(2).expect("two significant digits are in range");
            histogram.auto(true);
            Mutex::new(histogram)
        };
        Self {
            accepted: Counter::default(),
            answered: Counter::default(),
            empty: Counter::default(),
            failed: Counter::default(),
            panics: Counter::default(),
            refused_queue_full: Counter::default(),
            refused_connections_full: Counter::default(),
            refused_oldest: Counter::default(),
            shed: Counter::default(),
            gone: Counter::default(),
            evicted: Counter::default(),
            cut: Counter::default(),
            timed_out_first_byte: Counter::default(),
            timed_out_idle: Counter::default(),
            timed_out_io: Counter::default(),
            accept_errors_connection: Counter::default(),
            accept_errors_exhausted: Counter::default(),
            accept_errors_thread: Counter::default(),
            queue_highest: Counter::default(),
            busy_highest: Counter::default(),
            refusing_ms: Counter::default(),
            waiting_ms: Counter::default(),
            waits_us: histogram(),
            refusals_us: histogram(),
        }
    }

    pub(super) fn waited(&self, wait: Duration) {
        record(&self.waits_us, wait);
    }

    pub(super) fn refused_after(&self, time: Duration) {
        record(&self.refusals_us, time);
    }

    /// A snapshot; the gauges are what the caller knows.
    pub(super) fn snapshot(&self, gauges: Gauges) -> Metrics {
        let waits_us = self.waits_us.lock();
        let wait = |quantile| Duration::from_micros(waits_us.value_at_quantile(quantile));
        Metrics {
            accepted: self.accepted.get(),
            answered: self.answered.get(),
            empty: self.empty.get(),
            failed: self.failed.get(),
            panics: self.panics.get(),
            refused_queue_full: self.refused_queue_full.get(),
            refused_connections_full: self.refused_connections_full.get(),
            refused_oldest: self.refused_oldest.get(),
            shed: self.shed.get(),
            gone: self.gone.get(),
            evicted: self.evicted.get(),
            cut: self.cut.get(),
            timed_out_first_byte: self.timed_out_first_byte.get(),
            timed_out_idle: self.timed_out_idle.get(),
            timed_out_io: self.timed_out_io.get(),
            accept_errors_connection: self.accept_errors_connection.get(),
            accept_errors_exhausted: self.accept_errors_exhausted.get(),
            accept_errors_thread: self.accept_errors_thread.get(),
            connections_open: gauges.open,
            connections_parked: gauges.parked,
            queue_depth: gauges.queued,
            queue_highest: self.queue_highest.get(),
            busy_workers: gauges.busy,
            busy_highest: self.busy_highest.get(),
            refusing: Duration::from_millis(self.refusing_ms.get()),
            waiting: Duration::from_millis(self.waiting_ms.get()),
            refusal_p99: Duration::from_micros(self.refusals_us.lock().value_at_quantile(0.99)),
            refusal_cost: gauges.refusal_cost,
            wait_p50: wait(0.5),
            wait_p99: wait(0.99),
            wait_p999: wait(0.999),
            wait_max: Duration::from_micros(waits_us.max()),
        }
    }
}

fn record(histogram: &Mutex<Histogram<u64>>, time: Duration) {
    // It grows as needed (`saturating_record` would not grow it), and what no memory is left for
    // is not recorded.
    let _ = histogram.lock().record(us(time));
}

/// What is so now, as opposed to what was counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gauges {
    pub(super) open: u64,
    pub(super) parked: u64,
    pub(super) queued: u64,
    pub(super) busy: u64,
    pub(super) refusal_cost: Duration,
}

/// The server's counters at one moment. Each is read by itself, so that sums may be off by what
/// is under way. Its `Display` has a line for each, name and value; waits are in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Connections accepted, those that were refused not among them.
    pub accepted: u64,
    /// Requests answered: calls of the handler that took input, or the first one, and wrote.
    pub answered: u64,
    /// Connections whose client ended its side without having sent a byte.
    pub empty: u64,
    /// Connections that ended with an error: a reset by the client, or an error that the handler
    /// returned. Those that timed out are counted there.
    pub failed: u64,
    /// Calls of the handler that panicked.
    pub panics: u64,
    /// Newcomers refused because the queue was full.
    pub refused_queue_full: u64,
    /// Newcomers refused because `max_connections` were open and none of them idle.
    pub refused_connections_full: u64,
    /// Newcomers refused because a later one took their place in the queue.
    pub refused_oldest: u64,
    /// Connections refused by a worker because they had waited too long in a line that stood.
    pub shed: u64,
    /// Connections that a worker found reset by their client while they waited.
    pub gone: u64,
    /// Idle connections closed to make room for a newcomer.
    pub evicted: u64,
    /// Connections shut down at the drain timeout.
    pub cut: u64,
    /// Connections whose client sent nothing within `first_byte_timeout` of being accepted.
    pub timed_out_first_byte: u64,
    /// Connections that were idle for `idle_timeout`.
    pub timed_out_idle: u64,
    /// Connections whose client stopped in the middle of a request or a reply for `io_timeout`.
    pub timed_out_io: u64,
    /// Connections that failed before they could be accepted.
    pub accept_errors_connection: u64,
    /// Times that accepting had to pause for lack of descriptors or memory.
    pub accept_errors_exhausted: u64,
    /// Connections closed because no thread could be started for them (not in the pool model).
    pub accept_errors_thread: u64,
    /// Connections open now, in whatever state.
    pub connections_open: u64,
    /// Connections parked now.
    pub connections_parked: u64,
    /// Newcomers in the queue now.
    pub queue_depth: u64,
    /// The most newcomers that were in the queue at once.
    pub queue_highest: u64,
    /// Workers (in the other models: threads) that have a connection now.
    pub busy_workers: u64,
    /// The most workers that had a connection at once.
    pub busy_highest: u64,
    /// For how long newcomers were refused, all overloads together.
    pub refusing: Duration,
    /// For how long they were left to the kernel, because there was no room and refusing them was
    /// not wanted or not in the budget any more.
    pub waiting: Duration,
    /// 99th percentile of the time from accept to the refusal of a newcomer.
    pub refusal_p99: Duration,
    /// Mean CPU time of a refusal, of the latest.
    pub refusal_cost: Duration,
    /// Median wait for a worker, to two significant digits, as are the others. Of newcomers it is
    /// the time since they were accepted, or since they sent their request where that is longer;
    /// of kept connections it is only known for those that may have waited over the target.
    pub wait_p50: Duration,
    /// 99th percentile of the wait for a worker.
    pub wait_p99: Duration,
    /// 99.9th percentile of the wait for a worker.
    pub wait_p999: Duration,
    /// The longest wait for a worker.
    pub wait_max: Duration,
}

fn ms(time: Duration) -> u64 {
    us(time) / 1000
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = [
            ("accepted", self.accepted),
            ("answered", self.answered),
            ("empty", self.empty),
            ("failed", self.failed),
            ("panics", self.panics),
            ("refused_queue_full", self.refused_queue_full),
            ("refused_connections_full", self.refused_connections_full),
            ("refused_oldest", self.refused_oldest),
            ("shed", self.shed),
            ("gone", self.gone),
            ("evicted", self.evicted),
            ("cut", self.cut),
            ("timed_out_first_byte", self.timed_out_first_byte),
            ("timed_out_idle", self.timed_out_idle),
            ("timed_out_io", self.timed_out_io),
            ("accept_errors_connection", self.accept_errors_connection),
            ("accept_errors_exhausted", self.accept_errors_exhausted),
            ("accept_errors_thread", self.accept_errors_thread),
            ("connections_open", self.connections_open),
            ("connections_parked", self.connections_parked),
            ("queue_depth", self.queue_depth),
            ("queue_highest", self.queue_highest),
            ("busy_workers", self.busy_workers),
            ("busy_highest", self.busy_highest),
            ("refusing_ms", ms(self.refusing)),
            ("waiting_ms", ms(self.waiting)),
            ("refusal_p99_us", us(self.refusal_p99)),
            ("refusal_cost_us", us(self.refusal_cost)),
            ("wait_p50_us", us(self.wait_p50)),
            ("wait_p99_us", us(self.wait_p99)),
            ("wait_p999_us", us(self.wait_p999)),
            ("wait_max_us", us(self.wait_max)),
        ];
        for (name, value) in lines {
            writeln!(f, "{name:<25}{value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_of_any_length_are_recorded_to_two_digits() {
        let counters = Counters::new();
        for ms in 1..=1000 {
            counters.waited(Duration::from_millis(ms));
        }
        let metrics = counters.snapshot(Gauges::default());
        let near = |time: Duration, ms: f64| (time.as_secs_f64() * 1e3 / ms - 1.0).abs() < 0.02;
        assert!(near(metrics.wait_p50, 500.0), "{:?}", metrics.wait_p50);
        assert!(near(metrics.wait_p99, 990.0), "{:?}", metrics.wait_p99);
        assert!(near(metrics.wait_max, 1000.0), "{:?}", metrics.wait_max);
    }
}
