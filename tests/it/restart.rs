//! Restarts without a gap: by USR2, and by a service manager that holds the socket.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixDatagram, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};
use serde_json::Value;

use crate::{
    load::{ECHO, HTTP, Load},
    support::*,
    temporary::{TempDir, TempFile},
};

/// A program and those that took its place, with what they log. All are killed when it is dropped.
struct Line {
    first: Child,
    now: Pid,
    log: Receiver<String>,
    said: VecDeque<Value>,
}

impl Line {
    /// Starts the command, which logs in JSON.
    fn start(mut command: Command) -> Self {
        let command = command.args(["--log-format", "json"]).process_group(0);
        let mut first = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
        let (now, stderr) = (Pid::from_child(&first), first.stderr.take().expect("piped"));
        let (lines, log) = channel();
        thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|l| lines.send(l))
        });
        Self { first, now, log, said: VecDeque::new() }
    }

    /// Waits until this is said.
    fn hear(&mut self, message: &str) -> Value {
        loop {
            let line = match self.log.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => panic!("in vain: {message}, after {:?}", self.said),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended: {message}, after {:?}", self.said),
            };
            let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
            self.said.push_back(value.clone());
            if value["message"].as_str().is_some_and(|text| text.contains(message)) {
                return value;
            }
        }
    }

    /// Where it listens, which it says first.
    fn addr(&mut self) -> SocketAddr {
        self.hear("listening")["addr"].as_str().expect("an address").parse().expect("an address")
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.now, signal).expect("it is there");
    }

    /// Has the program started anew, which takes the place; gives the old one.
    fn restart(&mut self) -> Pid {
        self.signal(Signal::USR2);
        let process = self.hear("the new program is ready")["process"].as_str().map(str::parse::<i32>);
        let new = Pid::from_raw(process.expect("a process").expect("a number")).expect("a process");
        std::mem::replace(&mut self.now, new)
    }

    /// Waits for the end of this one, which may be a zombie that nobody waits for.
    fn await_end_of(&mut self, process: Pid) {
        let first = Pid::from_child(&self.first);
        await_that("it ends", || {
            if process == first {
                return self.first.try_wait().expect("it is ours").is_some();
            }
            let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            test_kill_process(process).is_err() || status.contains(") Z ")
        });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // They may have ended.
        let _ = kill_process_group(Pid::from_child(&self.first), Signal::KILL);
        let _ = self.first.wait();
    }
}

/// A copy of the command that can be replaced, in a directory of its own.
struct Installed(TempDir);

impl Installed {
    fn new(name: &str) -> Self {
        let this = Self(TempDir::new(name));
        this.install_overfall();
        this
    }

    /// Puts another program in its place, as a package manager does. It is written by another process: what
    /// a test writes may be open in what other tests are starting, and what is open for writing cannot run.
    fn install(&self, program: &Path) {
        let new = self.0.path().join("overfall.new");
        assert!(Command::new("cp").arg(program).arg(&new).status().is_ok_and(|status| status.success()));
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("it is ours");
        fs::rename(&new, self.path()).expect("it is ours");
    }

    fn install_overfall(&self) {
        self.install(Path::new(OVERFALL));
    }

    fn install_script(&self, text: &str) {
        self.install(&self.0.write("script", &format!("#!/bin/sh\n{text}\n")));
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("overfall")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.path());
        command.args(args);
        command
    }
}

#[test]
fn twenty_restarts_lose_and_refuse_nobody() {
    for (app, talk) in [("http", HTTP), ("echo", ECHO)] {
        let mut line = Line::start(overfall(&["serve", "--listen", "127.0.0.1:0", "--app", app]));
        let addr = line.addr();
        let mut old = Vec::new();
        Load::during(addr, talk, |load| {
            for _ in 0..20 {
                old.push(line.restart());
                load.await_more();
            }
        });
        // Each has ended, and the last still serves.
        old.into_iter().for_each(|process| line.await_end_of(process));
        assert!(line.said.iter().all(|said| said["level"] == "INFO"), "{:?}", line.said);
        line.signal(Signal::TERM);
        line.await_end_of(line.now);
        assert!(TcpStream::connect(addr).is_err());
    }
}

#[test]
fn a_balancer_restarts_as_well() {
    let upstream = serve(&["--app", "http"]);
    let name = upstream.addr.to_string();
    let mut line =
        Line::start(overfall(&["balance", "--protocol", "http", "--listen", "127.0.0.1:0", &name]));
    Load::during(line.addr(), HTTP, |load| {
        for _ in 0..3 {
            line.restart();
            load.await_more();
        }
    });
}

#[test]
fn who_asks_how_it_fares_is_answered_by_the_new_one() {
    let admin = nobody().to_string();
    let mut line = Line::start(overfall(&["serve", "--listen", "127.0.0.1:0", "--admin", &admin]));
    line.addr();
    let health = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for _ in 0..3 {
        let old = line.restart();
        line.await_end_of(old);
        let reply = exchange(admin.parse().unwrap(), health).unwrap();
        assert!(reply.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&reply));
    }
}

#[test]
fn a_new_program_that_cannot_start_changes_nothing() {
    let installed = Installed::new("cannot-start");
    let said = installed.0.path().join("said");
    // What is put there later is started with the limit that the first was started with.
    let limited =
        format!("ulimit -Sn 777; exec {} serve --listen 127.0.0.1:0 \"$@\"", installed.path().display());
    let mut command = Command::new("sh");
    command.args(["-c", &limited, "sh"]);
    let mut line = Line::start(command);
    let addr = line.addr();
    let hello = || assert_eq!(exchange(addr, b"hello").unwrap(), b"Hello, client!");
    line.restart();
    hello();
    installed.install_script(&format!("echo \"$OVERFALL_HANDOVER\" >{}; exit 3", said.display()));
    line.signal(Signal::USR2);
    let error = line.hear("ended before it was ready; going on unchanged");
    assert_eq!(error["status"], "exit status: 3");
    assert_eq!(fs::read_to_string(&said).unwrap().trim(), "open-files 777\n--listen 127.0.0.1:0");
    hello();
    // Nor does one that is not there.
    fs::remove_file(installed.path()).unwrap();
    line.signal(Signal::USR2);
    line.hear("a new program cannot be started; going on unchanged");
    hello();
    // With the program in its place again, it restarts.
    installed.install_overfall();
    let old = line.restart();
    line.await_end_of(old);
    hello();
}

#[test]
fn one_that_fails_once_it_listens_leaves_the_backlog_as_it_was() {
    let installed = Installed::new("fails-late");
    let addr = nobody();
    let name = addr.to_string();
    let mut line = Line::start(installed.command(&["serve", "--listen", &name]));
    line.addr();
    // That it is its own upstream is seen when it listens.
    installed.install_script(&format!("exec {OVERFALL} balance --listen {name} {name}"));
    line.signal(Signal::USR2);
    line.hear("ended before it was ready; going on unchanged");
    // While nothing is accepted, all of these wait.
    line.signal(Signal::STOP);
    let mut clients: Vec<_> = (0..50).map(|_| connect(addr)).collect();
    line.signal(Signal::CONT);
    for client in &mut clients {
        client.write_all(b"hello").unwrap();
        assert_eq!(rest(client).unwrap(), b"Hello, client!");
    }
}

#[test]
fn there_is_one_restart_at_a_time_and_term_ends_both() {
    let installed = Installed::new("one-at-a-time");
    let mut line = Line::start(installed.command(&["serve", "--listen", "127.0.0.1:0"]));
    line.addr();
    let started = installed.0.path().join("started");
    let text = format!(
        "trap 'echo told >>{0}; exit' TERM; echo started >{0}; while :; do sleep 0.01; done",
        started.display()
    );
    installed.install_script(&text);
    let read = || fs::read_to_string(&started).unwrap_or_default();
    line.signal(Signal::USR2);
    await_that("it is started", || read() == "started\n");
    line.signal(Signal::USR2);
    line.hear("USR2 is ignored: a new program is being started already");
    line.signal(Signal::TERM);
    line.hear("the new program is to end as well");
    assert!(line.first.wait().unwrap().success());
    await_that("it is told", || read() == "started\ntold\n");
}

/// Plays systemd: starts the command with this socket as the descriptor 3.
fn activated(socket: &TcpListener, env: &str, args: &[&str]) -> Command {
    let script = format!("export LISTEN_PID=$$ LISTEN_FDS=1 {env}; exec \"$0\" \"$@\" 3<&0 </dev/null");
    let mut command = Command::new("sh");
    let socket: OwnedFd = socket.try_clone().expect("a descriptor").into();
    command.args(["-c", &script]).args(args).stdin(socket);
    command
}

const OVERFALL: &str = env!("CARGO_BIN_EXE_overfall");

/// Runs twenty instances on one socket, each started when the one before has ended, under clients.
fn assert_none_is_lost(through: &[&str]) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let args = [through, &[OVERFALL, "serve", "--app", "http"]].concat();
    // What waits for the first client before it starts gets one.
    let start = || Line::start(activated(&socket, "", &args));
    let mut line = start();
    Load::during(addr, HTTP, |load| {
        for _ in 0..20 {
            assert_eq!(line.addr(), addr);
            line.signal(Signal::TERM);
            assert!(line.first.wait().unwrap().success());
            line = start();
            load.await_more();
        }
    });
}

#[test]
fn twenty_instances_one_after_the_other_on_systemds_socket_lose_and_refuse_nobody() {
    assert_none_is_lost(&[]);
}

const TOOL: &str = "systemd-socket-activate";

fn tool_is_there() -> bool {
    let is_there = Command::new(TOOL).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !is_there {
        eprintln!("SKIPPED: {TOOL} is not installed");
    }
    is_there
}

#[test]
fn twenty_instances_that_systemds_tool_starts_lose_and_refuse_nobody() {
    if tool_is_there() {
        assert_none_is_lost(&[TOOL]);
    }
}

#[test]
fn systemds_socket_is_handed_over_by_usr2_and_kept_for_systemd() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let mut line =
        Line::start(activated(&socket, "LISTEN_FDNAMES=web", &[OVERFALL, "serve", "--app", "http"]));
    assert_eq!(line.addr(), addr);
    Load::during(addr, HTTP, |load| {
        for _ in 0..3 {
            line.restart();
            load.await_more();
        }
    });
    line.signal(Signal::TERM);
    line.await_end_of(line.now);
    // Who comes now waits for the next one.
    let client = connect(addr);
    let (_handle, _gate) = serve_lines(overfall::Server::builder().from_listener(socket));
    assert_eq!(ask(&client, "say next"), "next");
}

#[test]
fn systemd_socket_activate_starts_it() {
    if !tool_is_there() {
        return;
    }
    // A port that was free a moment ago: it is the tool that listens.
    let addr = nobody();
    let mut command = Command::new(TOOL);
    command.args(["--listen", &addr.to_string(), OVERFALL, "serve", "--app", "http"]);
    let mut line = Line::start(command);
    await_that("it listens", || TcpStream::connect(addr).is_ok());
    assert_eq!(line.addr(), addr);
    Load::during(addr, HTTP, |load| {
        for _ in 0..3 {
            line.restart();
            load.await_more();
        }
    });
}

#[test]
fn what_was_passed_on_wrongly_is_one_sentence() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let cases: &[(&str, &[&str], &str)] = &[
        ("", &["--listen", "127.0.0.1:0"], "--listen is given, and so are sockets that were passed on"),
        ("LISTEN_FDS=many", &[], "LISTEN_FDS in the environment is \"many\"; it may be a number"),
        ("LISTEN_FDS=1000000000", &[], "LISTEN_FDS in the environment is 1000000000; it may be 0 to 1000"),
        ("WATCHDOG_USEC=2s", &[], "WATCHDOG_USEC in the environment is \"2s\"; it may be a number"),
        ("LISTEN_PID=me", &[], "LISTEN_PID in the environment is \"me\"; it may be a number"),
        (
            "LISTEN_FDS=2",
            &[],
            "descriptor 4, which was passed on as one of 2 (LISTEN_FDS), is no listening TCP",
        ),
    ];
    for (env, args, expected) in cases {
        let output = activated(&socket, env, &[&[OVERFALL, "serve", "-q"], *args].concat()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{env}: {text}");
        assert!(text.starts_with("error: ") && text.contains(expected), "{env}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    // What is for another process is none of its business.
    let mut line =
        Line::start(activated(&socket, "LISTEN_PID=1", &[OVERFALL, "serve", "--listen", "127.0.0.1:0"]));
    assert_ne!(line.addr(), socket.local_addr().unwrap());
    // A connection is no listener.
    let client = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
    let output =
        activated(&TcpListener::from(OwnedFd::from(client)), "", &[OVERFALL, "serve"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("is no listening TCP socket"));
}

/// What a service manager is told at its socket.
struct Manager(UnixDatagram, TempFile);

impl Manager {
    fn new(name: &str) -> Self {
        let path = TempFile::new(name);
        let socket = UnixDatagram::bind(path.path()).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self(socket, path)
    }

    /// Waits for a message that has this line, and gives it.
    fn hear(&self, expected: &str) -> String {
        loop {
            let mut message = [0; 4096];
            let length = self.0.recv(&mut message).unwrap_or_else(|error| panic!("{expected}: {error}"));
            let message = String::from_utf8_lossy(&message[..length]).into_owned();
            if message.lines().any(|line| line.starts_with(expected)) {
                return message;
            }
        }
    }
}

#[test]
fn a_service_manager_is_told_how_it_goes() {
    let manager = Manager::new("manager");
    let mut command = overfall(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", manager.1.path()).env("WATCHDOG_USEC", "100000");
    let mut line = Line::start(command);
    let addr = line.addr();
    let ready = manager.hear("READY=1");
    assert!(ready.contains(&format!("STATUS=Serving on {addr}")), "{ready}");
    manager.hear("WATCHDOG=1");
    line.restart();
    // Before anybody else says anything that is to count.
    assert_eq!(manager.hear("MAINPID="), format!("MAINPID={}\n", line.now));
    manager.hear("READY=1");
    manager.hear("WATCHDOG=1");
    line.signal(Signal::TERM);
    manager.hear("STOPPING=1");
}

#[test]
fn a_service_manager_is_told_of_a_reload() {
    let (manager, file) = (Manager::new("reload"), TempFile::with("workers = 2"));
    let mut command = overfall(&["serve", "--listen", "127.0.0.1:0", "--config", file.path()]);
    command.env("NOTIFY_SOCKET", manager.1.path());
    let line = Line::start(command);
    manager.hear("READY=1");
    line.signal(Signal::HUP);
    let reloading = manager.hear("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.hear("READY=1");
}

#[test]
fn it_is_well_as_process_1_without_root() {
    let mut command = Command::new("unshare");
    command.args(["--user", "--fork", "--pid", OVERFALL, "serve", "--listen", "127.0.0.1:0"]);
    let mut probe = Command::new("unshare");
    if !probe.args(["--user", "--fork", "--pid", "true"]).status().is_ok_and(|status| status.success()) {
        return eprintln!("SKIPPED: no namespace of processes can be had");
    }
    let mut line = Line::start(command);
    let addr = line.addr();
    let children = format!("/proc/{0}/task/{0}/children", line.now);
    let child = fs::read_to_string(children).unwrap();
    line.now = Pid::from_raw(child.trim().parse().unwrap()).unwrap();
    line.signal(Signal::USR2);
    line.hear("USR2 is ignored: the end of process 1 would end its container");
    assert_eq!(exchange(addr, b"hello").unwrap(), b"Hello, client!");
    line.signal(Signal::TERM);
    line.hear("shutting down");
    assert!(line.first.wait().unwrap().success());
}
