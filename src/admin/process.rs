//! What the system says of this process. It knows nothing of the server in it.

use std::{fs, time::Duration};

use procfs::{
    ProcResult,
    process::{LimitValue, Process},
};

/// How the process fares now.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    /// Of all its threads, in user mode and in the kernel.
    pub(super) cpu: Duration,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) open_files: u64,
    /// None where there is no limit.
    pub(super) max_files: Option<u64>,
    pub(super) threads: u64,
    /// When it was started, since 1970.
    pub(super) started: Duration,
}

impl Figures {
    /// As they are now.
    pub(super) fn now() -> ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks = |ticks: u64| Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64);
        let max_files = match process.limits()?.max_open_files.soft_limit {
            LimitValue::Value(limit) => Some(limit),
            LimitValue::Unlimited => None,
        };
        Ok(Self {
            cpu: ticks(stat.utime + stat.stime),
            resident_bytes: stat.rss * procfs::page_size(),
            virtual_bytes: stat.vsize,
            open_files: open_files(&process)?,
            max_files,
            threads: u64::try_from(stat.num_threads).unwrap_or(0),
            started: Duration::from_secs(procfs::boot_time_secs()?) + ticks(stat.starttime),
        })
    }
}

/// Since Linux 6.2 the directory's size says how many there are; to list 100,000 takes a while.
fn open_files(process: &Process) -> ProcResult<u64> {
    match fs::metadata("/proc/self/fd").map(|fd| fd.len()) {
        Ok(count @ 1..) => Ok(count),
        Ok(0) | Err(_) => process.fd_count().map(|count| count as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_those_of_this_process() {
        let before = Figures::now().unwrap();
        let files: Vec<_> = (0..100).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let after = Figures::now().unwrap();
        // Other tests open and close some at the same time.
        assert!(after.open_files >= 100, "{before:?} {after:?}");
        drop(files);
        assert!(after.cpu >= before.cpu && after.resident_bytes > 0 && after.threads > 0);
        let listed = open_files_listed();
        assert!(after.open_files.abs_diff(listed) < 1000, "{listed} {after:?}");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(after.started <= now + Duration::from_secs(2), "{after:?}");
    }

    fn open_files_listed() -> u64 {
        Process::myself().unwrap().fd_count().unwrap() as u64
    }
}
