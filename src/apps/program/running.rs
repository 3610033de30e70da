//! A program that runs: its two pipes, and its end. It does not know what passes through them.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::PollFlags,
    io::{Errno, ioctl_fionbio},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

use crate::sys::wait::wait_until;

/// For how long somebody waits for the end of a program that was killed, or that has ended its output: it is a
/// matter of microseconds, unless it may not be killed, or goes on.
const GRACE: Duration = Duration::from_millis(100);

/// A program that runs. It is killed with all that it has started where it has not ended when this is dropped,
/// and leaves no zombie in any case.
#[derive(Debug)]
pub(in crate::apps) struct Running {
    /// None once its end was heard of.
    child: Option<Child>,
    status: Option<ExitStatus>,
    /// What tells of its end.
    end: OwnedFd,
    stdin: Option<ChildStdin>,
    /// None once it has ended its output.
    stdout: Option<ChildStdout>,
}

impl Running {
    /// Starts it, both of whose pipes are its own and never wait on our side.
    pub(in crate::apps) fn start(mut command: Command) -> io::Result<Self> {
        let program = command.get_program().to_owned();
        let started = command.spawn().and_then(Self::of);
        started.inspect_err(|error| {
            tracing::error!(%error, program = %program.display(), "a program cannot be started");
        })
    }

    fn of(mut child: Child) -> io::Result<Self> {
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let watched = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).and_then(|end| {
            stdin.as_ref().map_or(Ok(()), |stdin| ioctl_fionbio(stdin, true))?;
            stdout.as_ref().map_or(Ok(()), |stdout| ioctl_fionbio(stdout, true))?;
            Ok(end)
        });
        match watched {
            Ok(end) => Ok(Self { child: Some(child), status: None, end, stdin, stdout }),
            Err(errno) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(errno.into())
            }
        }
    }

    /// Gives it as much of this as it takes now. One that takes no more at all hears nothing more.
    pub(in crate::apps) fn give(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stdin) = self.stdin.as_ref().filter(|_| !bytes.is_empty()) else { return Ok(0) };
        match rustix::io::write(stdin, bytes) {
            Ok(count) => Ok(count),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(Errno::PIPE) => {
                self.hang_up();
                Ok(0)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Says that nothing more is given.
    pub(in crate::apps) fn hang_up(&mut self) {
        self.stdin = None;
    }

    /// Takes what it has written; none where there is nothing now.
    pub(in crate::apps) fn take(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(stdout) = &self.stdout else { return Ok(None) };
        match rustix::io::read(stdout, buffer) {
            Ok(0) => {
                self.stdout = None;
                Ok(None)
            }
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What tells that it takes more, where it does.
    pub(in crate::apps) fn stdin(&self) -> Option<BorrowedFd<'_>> {
        self.stdin.as_ref().map(AsFd::as_fd)
    }

    /// What tells that it has written something, until it has ended its output.
    pub(in crate::apps) fn stdout(&self) -> Option<BorrowedFd<'_>> {
        self.stdout.as_ref().map(AsFd::as_fd)
    }

    /// What tells of its end.
    pub(in crate::apps) fn end(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    /// Whether it has ended by now, or does so within a moment.
    ///
    /// # Errors
    ///
    /// It was killed, so that what it has said may not be all.
    pub(in crate::apps) fn has_ended(&mut self) -> io::Result<bool> {
        let Some(child) = &mut self.child else { return Ok(true) };
        if !wait_until(&self.end, PollFlags::IN, Some(Instant::now() + GRACE))? {
            return Ok(false);
        }
        let status = child.wait()?;
        (self.child, self.status) = (None, Some(status));
        judge(status).map(|()| true)
    }

    /// How it has ended, once that was heard of.
    pub(in crate::apps) fn status(&self) -> Option<ExitStatus> {
        self.status
    }
}

fn judge(status: ExitStatus) -> io::Result<()> {
    if let Some(signal) = status.signal() {
        tracing::warn!(signal, "a program was killed");
        return Err(io::Error::other(format!("a program was killed by signal {signal}")));
    }
    if !status.success() {
        tracing::debug!(%status, "a program has ended");
    }
    Ok(())
}

/// It was silent for too long.
pub(in crate::apps) fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "a program was silent for too long")
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        (self.stdin, self.stdout) = (None, None);
        // Its number is nobody else's before it was waited for.
        let killed = kill_process_group(Pid::from_child(&child), Signal::KILL);
        let has_ended = wait_until(&self.end, PollFlags::IN, Some(Instant::now() + GRACE));
        if has_ended == Ok(true) {
            let _ = child.wait();
            return;
        }
        tracing::warn!(error = ?killed.err(), "a program cannot be killed; it is left to its end");
        // Whoever cannot start a thread either has more to worry about than a zombie.
        let _ = thread::Builder::new().name("reaper".into()).spawn(move || child.wait());
    }
}
