//! What a process that we start is to be before its program begins, which no crate says in a safe way: it ends
//! when we do (`PR_SET_PDEATHSIG`, `prctl(2)`), and may have as many files open as we were allowed to.
#![allow(unsafe_code)]

use std::{os::unix::process::CommandExt, process::Command};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};

/// Has the process be killed when the thread that starts it ends, so that it never outlives us; and with this soft
/// limit of open files, where one is given.
pub(crate) fn fasten(command: &mut Command, open_files: Option<u64>) {
    let before_exec = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if let Some(open_files) = open_files {
            let limit = getrlimit(Resource::Nofile);
            // To lower the soft limit is always allowed.
            setrlimit(Resource::Nofile, Rlimit { current: Some(open_files), ..limit })?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes three system calls, and neither allocates nor takes a lock.
    unsafe { command.pre_exec(before_exec) };
}
