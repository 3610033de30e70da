//! A restart without a gap: the program is started anew with the same listeners, and the old one ends once
//! the new one says that it is ready. It does not know what is served.

use std::{
    env, io,
    io::{ErrorKind, Read, Write},
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{self, Child, Command, ExitStatus},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use command_fds::{CommandFdExt, FdMapping};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use super::{
    handover::{self, Manifest, Origin},
    sockets, systemd,
};
use crate::limits;

/// How long a new program may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one that is given up may take to end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(10);
/// What the new program says when it is ready.
const READY: [u8; 5] = *b"ready";

/// How far a restart has come.
#[derive(Debug, Clone, Copy, Default)]
enum Stage {
    #[default]
    None,
    /// A new program is being started: this process, where there is one already.
    Starting(Option<Pid>),
    /// It has taken this one's place.
    Done(Pid),
    /// This process is to end without a successor.
    Never,
}

/// The restart of a program: there is one at a time.
#[derive(Debug, Default)]
pub(super) struct Restart(Mutex<Stage>);

/// Where each listener comes from, with a duplicate of it.
pub(super) type Estate = Vec<(Origin, TcpListener)>;

impl Restart {
    /// Starts the program anew with what it is to have, and hands over when that is ready; or says why not.
    pub(super) fn begin(
        self: &Arc<Self>,
        estate: impl FnOnce() -> io::Result<Estate> + Send + 'static,
        hand_over: impl FnOnce() + Send + 'static,
    ) {
        if let Err(reason) = self.prepare() {
            return tracing::warn!("USR2 is ignored: {reason}");
        }
        let restart = Arc::clone(self);
        let run = move || match estate().and_then(|estate| restart.start(|| Successor::start(estate))) {
            Ok(Some(successor)) => restart.follow(successor, hand_over),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "a new program cannot be started; going on unchanged");
                restart.advance(Stage::None);
            }
        };
        if let Err(error) = thread::Builder::new().name("restart".into()).spawn(run) {
            tracing::error!(%error, "the thread restart cannot be started; going on unchanged");
            self.advance(Stage::None);
        }
    }

    /// Notes that a new program is being started, or says why there is to be none.
    fn prepare(&self) -> Result<(), String> {
        let mut stage = self.0.lock();
        if process::id() == 1 {
            return Err("the end of process 1 would end its container; start a new container".into());
        }
        match *stage {
            Stage::None => *stage = Stage::Starting(None),
            Stage::Starting(_) => return Err("a new program is being started already".into()),
            Stage::Done(process) => return Err(format!("process {process} has taken this one's place")),
            Stage::Never => return Err("this process is shutting down".into()),
        }
        Ok(())
    }

    /// Starts a new program, unless that was given up. Its number is noted before anybody else can look: whoever
    /// gives the start up finds nothing yet, or whom to end.
    fn start(&self, start: impl FnOnce() -> io::Result<Successor>) -> io::Result<Option<Successor>> {
        let mut stage = self.0.lock();
        if !matches!(*stage, Stage::Starting(_)) {
            return Ok(None);
        }
        let successor = start()?;
        *stage = Stage::Starting(Some(successor.process()));
        Ok(Some(successor))
    }

    /// Goes to this stage of a start, unless it was given up; whether it was not.
    fn advance(&self, to: Stage) -> bool {
        let mut stage = self.0.lock();
        let goes_on = matches!(*stage, Stage::Starting(_));
        if goes_on {
            *stage = to;
        }
        goes_on
    }

    /// Waits for the new program, and hands over or goes on.
    fn follow(&self, mut successor: Successor, hand_over: impl FnOnce()) {
        let process = successor.process();
        tracing::info!(%process, "starting the program anew");
        let failure = await_ready(&mut successor.channel, PATIENCE).err();
        let Some(failure) = failure else {
            if self.advance(Stage::Done(process)) {
                tracing::info!(%process, "the new program is ready; draining");
                systemd::succeeded_by(successor.child.id());
                hand_over();
            }
            return;
        };
        // From here on its number may be another's.
        let goes_on = self.advance(Stage::Starting(None));
        let status = successor.end();
        if goes_on && self.advance(Stage::None) {
            tracing::error!(%process, %status, "the new program {failure}; going on unchanged");
        }
    }

    /// Gives a start up, since this process is to end, and with it whoever was to take its place. Whether
    /// nobody has taken it.
    pub(super) fn give_up(&self) -> bool {
        let mut stage = self.0.lock();
        if let Stage::Starting(Some(process)) = *stage {
            tracing::info!(%process, "the new program is to end as well");
            // It may have ended already.
            let _ = kill_process(process, Signal::TERM);
        }
        let is_last = !matches!(*stage, Stage::Done(_));
        if is_last {
            *stage = Stage::Never;
        }
        is_last
    }
}

/// A new program that was started.
struct Successor {
    child: Child,
    channel: UnixStream,
}

impl Successor {
    /// Starts what is now at the path by which this program was called.
    fn start(estate: Estate) -> io::Result<Self> {
        let mut args = env::args_os();
        let program = args.next().ok_or_else(|| io::Error::other("this program was called by no name"))?;
        let (channel, theirs) = UnixStream::pair()?;
        let (sockets, listeners): (Vec<_>, Vec<_>) = estate.into_iter().unzip();
        let manifest = Manifest { open_files: limits::soft_found(), sockets };
        let passed = listeners.into_iter().map(OwnedFd::from).chain([theirs.into()]);
        let numbered = (sockets::FIRST..).zip(passed);
        let mappings: Vec<_> =
            numbered.map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd }).collect();
        let mut command = Command::new(program);
        command
            .args(args)
            .env(handover::VARIABLE, manifest.to_string())
            .env("LISTEN_FDS", mappings.len().to_string())
            // The watchdog's is this process, which the new one is not.
            .env_remove("WATCHDOG_PID")
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDNAMES");
        command.fd_mappings(mappings).map_err(io::Error::other)?;
        Ok(Self { child: command.spawn()?, channel })
    }

    fn process(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Has it end, if it has not.
    fn end(mut self) -> String {
        // It may have ended already.
        let _ = kill_process(self.process(), Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(LOOK),
                Ok(Some(status)) => return status.to_string(),
                Err(error) => return error.to_string(),
            }
        }
        let _ = self.child.kill();
        self.child.wait().map_or_else(|error| error.to_string(), |status: ExitStatus| status.to_string())
    }
}

/// Waits until the new program says that it is ready, or says in words what it did in place of that.
fn await_ready(channel: &mut UnixStream, within: Duration) -> Result<(), String> {
    let deadline = Instant::now() + within;
    let (mut said, mut length) = ([0; READY.len()], 0);
    while length < READY.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("was not ready within {}", humantime::format_duration(within)));
        }
        let read = channel.set_read_timeout(Some(left)).and_then(|()| channel.read(&mut said[length..]));
        match read {
            Ok(0) => return Err("ended before it was ready".into()),
            Ok(more) => length += more,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(format!("cannot be heard: {error}")),
        }
    }
    if said == READY { Ok(()) } else { Err("does not say that it is ready".into()) }
}

/// Tells the program whose place this one takes that it is ready, and calls this once that has left: it has
/// told the service manager so, which listens to nobody else before.
pub(super) fn take_place(
    mut predecessor: UnixStream,
    then: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    // Where it has ended meanwhile, its place is free.
    let _ = predecessor.write_all(&READY);
    let wait = move || {
        let _ = predecessor.read(&mut [0]);
        then();
    };
    thread::Builder::new().name("predecessor".into()).spawn(wait).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_program_is_ready_when_it_says_so_and_not_otherwise() {
        let say = |text: &[u8]| {
            let (mut ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(text).unwrap();
            drop(theirs);
            await_ready(&mut ours, PATIENCE)
        };
        assert_eq!(say(b"ready"), Ok(()));
        assert_eq!(say(b"rea"), Err("ended before it was ready".into()));
        assert_eq!(say(b"other"), Err("does not say that it is ready".into()));
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let slow = await_ready(&mut ours, Duration::from_millis(20));
        assert_eq!(slow, Err("was not ready within 20ms".into()));
        drop(theirs);
    }

    #[test]
    fn one_that_is_just_being_started_ends_with_who_starts_it() {
        let restart = Arc::new(Restart::default());
        assert_eq!(restart.prepare(), Ok(()));
        let (channel, _theirs) = UnixStream::pair().unwrap();
        let giving_up = Mutex::new(None);
        let started = restart.start(|| {
            let child = Command::new("sleep").arg("30").spawn()?;
            // It is there, and nobody knows yet.
            let restart = Arc::clone(&restart);
            *giving_up.lock() = Some(thread::spawn(move || restart.give_up()));
            Ok(Successor { child, channel })
        });
        assert!(giving_up.lock().take().unwrap().join().unwrap());
        let status = started.unwrap().unwrap().child.wait().unwrap();
        assert_eq!(status.to_string(), "signal: 15 (SIGTERM)");
    }

    #[test]
    fn there_is_one_restart_at_a_time_and_none_at_the_end() {
        let pid = Pid::from_raw(i32::MAX).unwrap();
        let restart = Restart::default();
        assert_eq!(restart.prepare(), Ok(()));
        assert_eq!(restart.prepare(), Err("a new program is being started already".into()));
        // It failed: there may be another.
        assert!(restart.advance(Stage::None));
        assert_eq!(restart.prepare(), Ok(()));
        assert!(restart.advance(Stage::Starting(Some(pid))) && restart.advance(Stage::Done(pid)));
        assert!(restart.prepare().unwrap_err().ends_with("has taken this one's place"));
        // What was handed over is not taken back.
        assert!(!restart.give_up());
        assert!(restart.prepare().unwrap_err().ends_with("has taken this one's place"));
        let restart = Restart::default();
        assert_eq!(restart.prepare(), Ok(()));
        assert!(restart.give_up());
        assert!(restart.start(|| panic!("there is to be none")).is_ok_and(|started| started.is_none()));
        assert!(!restart.advance(Stage::Done(pid)));
        assert_eq!(restart.prepare(), Err("this process is shutting down".into()));
    }
}
