//! Watching a server through /proc. It knows processes, not what they serve.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// What a server's processes are and have at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// Since the watching began.
    pub(crate) at: Duration,
    pub(crate) rss_bytes: u64,
    /// Private dirty memory: what is its own. 0 where the kernel does not tell.
    pub(crate) private_bytes: u64,
    pub(crate) threads: u64,
    pub(crate) descriptors: u64,
    /// Context switches so far, of the threads that live; none where there are too many threads to
    /// ask each.
    pub(crate) voluntary_switches: Option<u64>,
    pub(crate) involuntary_switches: Option<u64>,
    /// CPU time so far, user and system, of all threads that ever lived.
    pub(crate) cpu: Duration,
}

/// To ask more threads than this would itself be a load.
const THREADS_ASKED: u64 = 256;
const INTERVAL: Duration = Duration::from_millis(100);

impl Sample {
    /// Looks at all processes of a group: the server and those that it started.
    pub(crate) fn of_group(group: i32, began: Instant) -> Self {
        Self::of(&group_members(group), began)
    }

    fn of(processes: &[procfs::process::Process], began: Instant) -> Self {
        let mut sample = Self { at: began.elapsed(), ..Self::default() };
        for process in processes {
            // One that ends meanwhile is no longer of the group.
            let _ = sample.add(process);
        }
        sample
    }

    fn add(&mut self, process: &procfs::process::Process) -> procfs::ProcResult<()> {
        let stat = process.stat()?;
        let threads = stat.num_threads.unsigned_abs();
        self.cpu += cpu_time(&stat);
        self.threads += threads;
        self.rss_bytes += stat.rss * procfs::page_size();
        self.descriptors += process.fd_count()? as u64;
        self.private_bytes += private_dirty_bytes(process.pid);
        if threads > THREADS_ASKED {
            return Ok(());
        }
        for task in process.tasks()?.flatten() {
            let status = task.status()?;
            *self.voluntary_switches.get_or_insert(0) += status.voluntary_ctxt_switches.unwrap_or(0);
            *self.involuntary_switches.get_or_insert(0) += status.nonvoluntary_ctxt_switches.unwrap_or(0);
        }
        Ok(())
    }
}

/// The processes of a group, found once: that is a look at every process of the machine.
pub(crate) struct Group(Vec<procfs::process::Process>);

impl Group {
    pub(crate) fn find(group: i32) -> Self {
        Self(group_members(group))
    }

    /// CPU time so far. Asking for no more than that takes none of the processes' locks, so that
    /// it does not wait for a server whose CPU is full.
    pub(crate) fn cpu(&self) -> Duration {
        let stats = self.0.iter().filter_map(|process| process.stat().ok());
        stats.map(|stat| cpu_time(&stat)).sum()
    }
}

fn cpu_time(stat: &procfs::process::Stat) -> Duration {
    // Ticks per second are a hundred wherever Linux runs today.
    Duration::from_secs(stat.utime + stat.stime) / u32::try_from(procfs::ticks_per_second()).unwrap_or(100)
}

fn group_members(group: i32) -> Vec<procfs::process::Process> {
    let Ok(processes) = procfs::process::all_processes() else { return Vec::new() };
    processes.flatten().filter(|process| process.stat().is_ok_and(|stat| stat.pgrp == group)).collect()
}

fn private_dirty_bytes(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:"));
    let kib = line.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Takes a sample ten times a second until it is stopped.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    samples: Arc<Mutex<Vec<Sample>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(group: i32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let samples = Arc::new(Mutex::new(Vec::new()));
        let (stopped, taken) = (Arc::clone(&stop), Arc::clone(&samples));
        let watch = move || {
            let began = Instant::now();
            let group = Group::find(group);
            while !stopped.load(Relaxed) {
                taken.lock().push(Sample::of(&group.0, began));
                thread::park_timeout(INTERVAL);
            }
        };
        // Without a thread there are no samples, and the report says so by having none.
        let thread = thread::Builder::new().name("watch".into()).spawn(watch).ok();
        Self { stop, samples, thread }
    }

    pub(crate) fn finish(mut self) -> Vec<Sample> {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It does not panic.
            let _ = thread.join();
        }
        std::mem::take(&mut *self.samples.lock())
    }
}
