//! A program that runs: its two pipes, and its end. It does not know what passes through them.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Duration, Instant},
};

use rustix::{
    event::PollFlags,
    io::{Errno, ioctl_fionbio},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

use crate::sys::wait::wait_until;

/// A program that runs. It is killed with all that it has started where it has not ended when this is dropped,
/// and leaves no zombie in any case.
#[derive(Debug)]
pub(in crate::apps) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    has_ended: bool,
}

impl Running {
    /// Starts it, both of whose pipes are its own and never wait on our side.
    pub(in crate::apps) fn start(mut command: Command) -> io::Result<Self> {
        let mut child = command.spawn().inspect_err(|error| {
            tracing::error!(%error, program = %command.get_program().display(), "a program cannot be started");
        })?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let stdout = stdout.ok_or_else(|| io::Error::other("a program has no standard output"))?;
        let running = Self { child, stdin, stdout, has_ended: false };
        ioctl_fionbio(&running.stdout, true)?;
        running.stdin.as_ref().map_or(Ok(()), |stdin| ioctl_fionbio(stdin, true))?;
        Ok(running)
    }

    /// Gives it as much of this as it takes now. One that takes no more at all has been given everything.
    pub(in crate::apps) fn give(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stdin) = &self.stdin else { return Ok(bytes.len()) };
        match rustix::io::write(stdin, bytes) {
            Ok(count) => Ok(count),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(Errno::PIPE) => {
                self.hang_up();
                Ok(bytes.len())
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Says that nothing more is given.
    pub(in crate::apps) fn hang_up(&mut self) {
        self.stdin = None;
    }

    /// Takes what it has written; none where there is nothing yet, and nothing where that was all.
    pub(in crate::apps) fn take(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::read(&self.stdout, buffer) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What tells that it takes more, where it does.
    pub(in crate::apps) fn stdin(&self) -> Option<BorrowedFd<'_>> {
        self.stdin.as_ref().map(AsFd::as_fd)
    }

    /// What tells that it has written something.
    pub(in crate::apps) fn stdout(&self) -> BorrowedFd<'_> {
        self.stdout.as_fd()
    }

    /// Waits for its end, after it has ended its output: for so long.
    pub(in crate::apps) fn end(&mut self, timeout: Duration) -> io::Result<()> {
        self.hang_up();
        let pid = pidfd_open(self.pid(), PidfdFlags::empty())?;
        if !wait_until(&pid, PollFlags::IN, Some(Instant::now() + timeout))? {
            return Err(silent());
        }
        let status = self.child.wait()?;
        self.has_ended = true;
        if !status.success() {
            tracing::debug!(%status, "a program has ended");
        }
        Ok(())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

/// It was silent for too long.
pub(in crate::apps) fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "a program was silent for too long")
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            // Its number is nobody else's before it was waited for.
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
