//! Times as numbers, and the CPU time of a thread.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// In whole microseconds; one beyond any number is the largest.
pub(crate) fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// CPU time of this thread.
pub(crate) fn thread_cpu_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    // Neither is ever negative on this clock.
    Duration::new(tv_sec.unsigned_abs(), u32::try_from(tv_nsec).unwrap_or(0))
}
