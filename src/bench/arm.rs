//! One server under test: started as a process of its own, awaited, stopped. It does not know what is
//! asked of it.

use std::{
    io::{self, BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use overfall::dial::resolve;
use parking_lot::Mutex;
use rustix::{
    process::{Pid, Signal, kill_process_group},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use crate::limits;

/// How to start a server.
#[derive(Debug, Clone)]
pub(crate) struct Arm {
    pub(crate) name: String,
    pub(crate) how: How,
    /// Whether it burns CPU for each request when it is told to.
    pub(crate) burns: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum How {
    /// This program's own `serve --model MODEL`.
    Model(&'static str),
    /// Another program and where it listens. `{app}` in it stands for `hello`, `echo` or `http`, `{work}`
    /// for the service time such as `1ms`, and `{addr}` for the address.
    Command { command: String, addrs: Vec<SocketAddr> },
}

/// What a server is to do in a scenario.
#[derive(Debug, Clone)]
pub(crate) struct Duty {
    pub(crate) app: &'static str,
    pub(crate) work: Duration,
    pub(crate) workers: usize,
    /// Connections that the arm `limit` admits: some for each of the pool's workers, or all that are kept.
    pub(crate) permits: usize,
    pub(crate) cpus: Option<CpuSet>,
}

/// How long a server may take until it listens, and until it has ended.
const START_PATIENCE: Duration = Duration::from_secs(10);
const STOP_PATIENCE: Duration = Duration::from_millis(300);
const INTERVAL: Duration = Duration::from_millis(10);

/// A server that runs; killed with all that it started when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// Kills the group when this process is gone, however it ended: its standard input ends then.
    guard: Option<Child>,
    pub(crate) addr: SocketAddr,
    last_error: Arc<Mutex<String>>,
}

impl Arm {
    /// Understands `NAME=COMMAND@ADDR`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(name, rest)| Some((name, rest.rsplit_once('@')?)));
        let Some((name, (command, addr))) =
            parts.filter(|(name, (command, _))| !name.is_empty() && !command.is_empty())
        else {
            return Err("give NAME=COMMAND@ADDR, such as go=./server@127.0.0.1:9000".into());
        };
        let addrs = resolve(addr).unwrap_or_default();
        if addrs.is_empty() {
            return Err(format!("{addr:?} is no address; give HOST:PORT after the @"));
        }
        Ok(Self {
            name: name.to_owned(),
            how: How::Command { command: command.to_owned(), addrs },
            burns: true,
        })
    }

    /// The command line, for the report too.
    pub(crate) fn command_line(&self, duty: &Duty, program: &Path) -> Vec<String> {
        let work = humantime::format_duration(duty.work).to_string().replace(' ', "");
        match &self.how {
            How::Model(model) => {
                let workers = if *model == "limit" { duty.permits } else { duty.workers };
                let workers = workers.to_string();
                let program = program.display().to_string();
                let words = ["serve", "-q", "--listen", "127.0.0.1:0", "--model", model, "--app", duty.app];
                let more = [
                    "--workers",
                    &workers,
                    "--work",
                    &work,
                    "--idle-timeout",
                    "1h",
                    "--first-byte-timeout",
                    "1h",
                ];
                [&program]
                    .into_iter()
                    .cloned()
                    .chain(words.iter().chain(&more).map(ToString::to_string))
                    .collect()
            }
            How::Command { command, addrs } => {
                let command = command.replace("{app}", duty.app).replace("{work}", &work);
                let command = command.replace("{addr}", &addrs[0].to_string());
                ["sh".into(), "-c".into(), command].into()
            }
        }
    }

    /// Starts it and returns when it listens.
    pub(crate) fn start(&self, duty: &Duty, stop: &dyn Fn() -> bool) -> anyhow::Result<Running> {
        let program = std::env::current_exe().context("cannot find this program")?;
        if let How::Command { addrs, .. } = &self.how
            && let Some(addr) = addrs.iter().find(|addr| connects(addr))
        {
            bail!("{addr} is taken by another program");
        }
        let line = self.command_line(duty, &program);
        let mut command = Command::new(&line[0]);
        // Killed as a group, so that nothing that it started is left behind.
        command
            .args(&line[1..])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = on_cpus(duty.cpus.as_ref(), || limits::with_found(|| command.spawn()))
            .context("cannot start it")?;
        let out = child.stdout.take();
        let last_error = Arc::new(Mutex::new(String::new()));
        if let Some(err) = child.stderr.take() {
            keep_last_line(err, Arc::clone(&last_error));
        }
        let guard = guard(Pid::from_child(&child)).ok();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut running = Running { child, guard, addr: nowhere, last_error };
        let addrs = match &self.how {
            How::Model(_) => vec![announced(out)?],
            How::Command { addrs, .. } => {
                if let Some(out) = out {
                    keep_last_line(out, Arc::default());
                }
                addrs.clone()
            }
        };
        running.addr = running.await_listening(&addrs, stop)?;
        Ok(running)
    }
}

fn connects(addr: &SocketAddr) -> bool {
    TcpStream::connect_timeout(addr, START_PATIENCE).is_ok()
}

/// A process that waits for this one to end, and then kills the group.
fn guard(group: Pid) -> io::Result<Child> {
    let script = format!("read _; kill -s KILL -- -{group}");
    // A group of its own, so that it is not interrupted with this process.
    Command::new("sh").arg("-c").arg(script).stdin(Stdio::piped()).process_group(0).spawn()
}

/// Reads the address that `serve` prints first, and goes on reading so that it is never blocked.
fn announced(out: Option<impl io::Read + Send + 'static>) -> anyhow::Result<SocketAddr> {
    let mut out = BufReader::new(out.context("it has no standard output")?);
    let mut line = String::new();
    out.read_line(&mut line).context("it does not say where it listens")?;
    let addr = line.trim().strip_prefix("listening on ").context("it ended before it listened")?;
    let addr = addr.parse().context("it listens on no address")?;
    keep_last_line(out, Arc::default());
    Ok(addr)
}

fn keep_last_line(source: impl io::Read + Send + 'static, last: Arc<Mutex<String>>) {
    let read = move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            if !line.trim().is_empty() {
                *last.lock() = line;
            }
        }
    };
    // Without it the last line is not known, and the pipe may fill up.
    let _ = thread::Builder::new().name("output".into()).spawn(read);
}

/// Does it on these CPUs: a process that is started inherits them.
fn on_cpus<T>(cpus: Option<&CpuSet>, start: impl FnOnce() -> T) -> T {
    let Some(cpus) = cpus else { return start() };
    let before = sched_getaffinity(None);
    // The generator has been pinned like this already, so it is not denied.
    let _ = sched_setaffinity(None, cpus);
    let result = start();
    if let Ok(before) = before {
        let _ = sched_setaffinity(None, &before);
    }
    result
}

impl Running {
    /// The process group, whose number is the first process's.
    pub(crate) fn group(&self) -> i32 {
        Pid::from_child(&self.child).as_raw_nonzero().get()
    }

    /// The first of the addresses at which it listens.
    fn await_listening(
        &mut self,
        addrs: &[SocketAddr],
        stop: &dyn Fn() -> bool,
    ) -> anyhow::Result<SocketAddr> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if let Some(addr) = addrs.iter().find(|addr| connects(addr)) {
                return Ok(*addr);
            }
            if let Some(end) = self.ended() {
                bail!("{end}");
            }
            if stop() {
                bail!("interrupted");
            }
            if Instant::now() >= deadline {
                bail!("it does not listen on {} within {START_PATIENCE:?}{}", addrs[0], self.said());
            }
            thread::sleep(INTERVAL);
        }
    }

    /// Says how it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        // Its last words may still be on their way.
        thread::sleep(INTERVAL);
        Some(format!("it ended with {status}{}", self.said()))
    }

    /// The last line of its standard error.
    fn said(&self) -> String {
        let last = self.last_error.lock();
        if last.is_empty() { String::new() } else { format!(": {}", last.trim()) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.child);
        // They fail when it has ended already.
        let _ = kill_process_group(group, Signal::TERM);
        let deadline = Instant::now() + STOP_PATIENCE;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            if thread::panicking() {
                break;
            }
            thread::sleep(INTERVAL);
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
        if let Some(guard) = &mut self.guard {
            // Before its standard input ends: the group's number may be another's by then.
            let _ = guard.kill();
            let _ = guard.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arms_are_named_commands_with_an_address() {
        let arm = Arm::parse("go=./server -a user@host {app} {work} {addr}@127.0.0.1:9000").unwrap();
        assert_eq!(arm.name, "go");
        let duty = Duty { app: "echo", work: Duration::from_millis(1), workers: 2, permits: 34, cpus: None };
        let line = arm.command_line(&duty, Path::new("overfall"));
        assert_eq!(line, ["sh", "-c", "./server -a user@host echo 1ms 127.0.0.1:9000"]);
        for wrong in ["go", "go=./server", "=./server@127.0.0.1:1", "go=@127.0.0.1:1", "go=./server@nowhere"]
        {
            assert!(Arm::parse(wrong).is_err(), "{wrong}");
        }
    }
}
