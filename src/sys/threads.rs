//! What the kernel knows of threads of this process. It knows not what they do.

use std::{fs, time::Duration};

use rustix::thread::Pid;

/// How long a thread has had a CPU, and how long it has waited for one although it had something to do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OnCpu {
    pub(crate) ran: Duration,
    pub(crate) delayed: Duration,
}

impl OnCpu {
    /// Of a thread of this process; while it runs, it is behind by up to a tick of the kernel. None once it
    /// has ended, or where the kernel does not say.
    pub(crate) fn of(thread: Pid) -> Option<Self> {
        let file = format!("/proc/self/task/{}/schedstat", thread.as_raw_nonzero());
        Self::parse(&fs::read_to_string(file).ok()?)
    }

    /// Two numbers of nanoseconds and one more (the kernel's `Documentation/scheduler/sched-stats.rst`).
    fn parse(text: &str) -> Option<Self> {
        let mut times = text.split_ascii_whitespace().map(|ns| ns.parse().map(Duration::from_nanos).ok());
        Some(Self { ran: times.next()??, delayed: times.next()?? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::thread_cpu_time;

    #[test]
    fn a_thread_that_computes_has_had_a_cpu() {
        let us = Duration::from_micros;
        assert_eq!(OnCpu::parse("5000 7000 3\n"), Some(OnCpu { ran: us(5), delayed: us(7) }));
        assert_eq!((OnCpu::parse(""), OnCpu::parse("5000"), OnCpu::parse("x y z")), (None, None, None));
        let this = rustix::thread::gettid();
        if OnCpu::of(this).is_none() {
            return eprintln!("SKIPPED: the kernel does not say how long threads run");
        }
        while OnCpu::of(this).unwrap().ran < Duration::from_millis(20) {}
        assert!(thread_cpu_time() >= Duration::from_millis(20));
    }
}
