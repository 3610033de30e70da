//! The command with a file of settings: what it says of it, and what HUP makes of it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    process::{ChildStderr, Command, Stdio},
    thread,
};

use overfall::{Server, http};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    load::{HTTP, Load},
    support::*,
    temporary::{Process, TempFile},
};

/// A command with its log.
struct Logged {
    child: Process,
    log: BufReader<ChildStderr>,
    addr: SocketAddr,
}

impl Logged {
    fn start(args: &[&str]) -> Self {
        Self::run(&mut overfall(args))
    }

    fn run(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut child = Process(child);
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let addr = listening(&mut out);
        // Counters are printed at the end.
        thread::spawn(move || out.read_to_end(&mut Vec::new()));
        let log = BufReader::new(child.stderr.take().expect("piped"));
        Self { child, log, addr }
    }

    /// The first line of the log from now on that has this.
    fn logs(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).expect("text") > 0, "it ended without saying {text}");
            if line.contains(text) {
                return line;
            }
        }
    }

    fn hup(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("it is there");
    }

    /// Has it read its settings again; what it says of that.
    fn reload(&mut self) -> String {
        self.hup();
        let line = self.logs("changed");
        assert!(line.contains("settings reloaded"), "{line}");
        line
    }
}

#[test]
fn a_configuration_is_checked_without_being_started() {
    let good = TempFile::with("listen = ['127.0.0.1:0']\nworkers = 3");
    for args in [
        &["serve", "--check-config"][..],
        &["serve", "--check-config", "--config", good.path()],
        &["balance", "--check-config", "--config", good.path(), "127.0.0.1:1"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        assert_eq!(output.stdout, b"configuration is right\n");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
    let cases: &[(&[&str], &str, &str)] = &[
        (&["serve"], "\nworkers = 0", ", line 2: workers is 0; it may be 1 to 4096"),
        (&["serve"], "patience = 'soon'", ", line 1: invalid value 'soon' for 'patience'"),
        (&["balance"], "rise = 1", "required arguments were not provided: <UPSTREAM>..."),
        (&["balance", "h:1"], "limit = 4", ", line 1: limit is for --protocol http, not tcp"),
        (&["balance", "h:1", "--protocol", "http"], "limit = 0", ", line 1: limit is 0"),
        (&["balance"], "upstreams = ['h:1', 'h']", ", line 1: invalid value 'h' for 'upstreams'"),
        (&["balance", "h:1"], "check-interval = '0s'", ", line 1: check-interval is 0ns"),
    ];
    for (args, text, expected) in cases {
        let file = TempFile::with(text);
        assert_wrong_usage(args, &[(&["--check-config", "--config", file.path()], expected)]);
        assert_wrong_usage(args, &[(&["-q", "--config", file.path()], expected)]);
    }
    assert_wrong_usage(
        &["serve", "--check-config"],
        &[
            (&["--workers", "0"], "--workers is 0"),
            (&["--config", "/nowhere/at/all"], "the file /nowhere/at/all cannot be read: No such file"),
            (&["--config", "/"], "the file / cannot be read: it is no regular file"),
            (&["--config", "/dev/zero"], "the file /dev/zero cannot be read: it is no regular file"),
            (&["--listen", "256.0.0.1:1"], "cannot listen on 256.0.0.1:1"),
        ],
    );
}

#[test]
fn flags_win_over_the_file() {
    let file = TempFile::with("listen = ['127.0.0.1:1']\nworkers = 3\napp = 'echo'");
    let args = ["serve", "--listen", "127.0.0.1:0", "--config", file.path(), "--workers", "2"];
    let mut served = Logged::start(&args);
    assert!(served.logs("settings in force").contains(" workers=2 "));
    assert_eq!(exchange(served.addr, b"echoed").expect("a reply"), b"echoed");
}

#[test]
fn hup_reads_the_file_again() {
    let text =
        |timeout: &str| format!("listen = ['127.0.0.1:0']\napp = 'echo'\nidle-timeout = '{timeout}'\n");
    let file = TempFile::with(&text("1h"));
    let mut served = Logged::start(&["serve", "--config", file.path()]);
    let kept = connect(served.addr);
    assert_eq!(ask(&kept, "first"), "first");

    // A wrong one changes nothing, and says why.
    file.write(&format!("{}queue = 0\n", text("1ms")));
    served.hup();
    let line = served.logs("nothing is changed");
    assert!(
        line.contains("ERROR") && line.contains(", line 4: queue is 0; it may be 1 to 1000000"),
        "{line}"
    );
    fs::remove_file(file.path()).expect("it is there");
    served.hup();
    assert!(served.logs("nothing is changed").contains("cannot be read: No such file"));
    assert_eq!(ask(&kept, "second"), "second");

    // What cannot change is said, each time, and what has changed is.
    file.write(&format!("{}workers = 99\n", text("59m")));
    for changed in ["idle-timeout from 1h to 59m", "nothing"] {
        let line = served.reload();
        assert!(line.contains(&format!("changed=\"{changed}\"")), "{line}");
        let line = served.logs("cannot change while running");
        assert!(line.contains("settings=\"workers from the default to 99\""), "{line}");
    }
    assert_eq!(ask(&kept, "third"), "third");

    file.write(&text("1ms"));
    served.reload();
    assert_eq!(rest(&kept), Ok(vec![]));
    assert_eq!(ask(&connect(served.addr), "others are served"), "others are served");
}

#[test]
fn hup_reads_the_file_again_also_where_it_was_ignored() {
    let file = TempFile::with("listen = ['127.0.0.1:0']\nbacklog = 64");
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" serve --config \"$1\""]);
    let mut served = Logged::run(command.args([env!("CARGO_BIN_EXE_overfall"), file.path()]));
    file.write("listen = ['127.0.0.1:0']\nbacklog = 100000000");
    served.hup();
    // Also what the system sets a narrower bound to is said.
    served.logs("limited by net.core.somaxconn");
    served.logs("changed=\"backlog from 64 to 100000000\"");
}

#[test]
fn hup_drains_where_there_is_nothing_to_read_again() {
    let mut served = serve(&["--app", "echo"]);
    served.signal(Signal::HUP);
    assert_eq!(served.wait().0, Some(0));
}

#[test]
fn what_cannot_change_of_a_balancer_is_said() {
    let upstream = serve_lines(builder()).0;
    let start = format!("listen = ['127.0.0.1:0']\nupstreams = ['{}']\n", upstream.local_addr());
    let file = TempFile::with(&start);
    let mut served = Logged::start(&["balance", "--config", file.path()]);
    let kept = connect(served.addr);
    assert_eq!(ask(&kept, "say here"), "here");
    file.write(&format!("{start}protocol = 'http'\nlimit = 4\nrise = 3\nfall = 0"));
    served.hup();
    assert!(served.logs("nothing is changed").contains("line 6: fall is 0; it may be"));
    file.write(&format!("{start}protocol = 'http'\nlimit = 4\nrise = 3"));
    let line = served.reload();
    assert!(line.contains("changed=\"rise from 2 to 3\""), "{line}");
    let line = served.logs("cannot change while running");
    assert!(line.contains("settings=\"limit from the default to 4, protocol from tcp to http\""), "{line}");
    assert_eq!(ask(&kept, "state"), "2");
}

#[test]
fn hup_opens_the_access_log_again_also_without_a_file_of_settings() {
    let (log, moved) = (TempFile::with(""), TempFile::with(""));
    let server = Server::builder().bind("127.0.0.1:0").patience(PATIENCE);
    let upstream = http::serve(server, |_| http::Response::text("here")).expect("it serves");
    let addr = upstream.local_addr().to_string();
    let args =
        ["balance", "--listen", "127.0.0.1:0", "--protocol", "http", "--access-log", log.path(), &addr];
    let mut served = Logged::start(&args);
    let ask = |addr, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        exchange(addr, request.as_bytes()).expect("a reply");
    };
    let has = |file: &TempFile, path| fs::read_to_string(file.path()).is_ok_and(|text| text.contains(path));
    ask(served.addr, "/first");
    await_that("it is written", || has(&log, "/first"));
    fs::rename(log.path(), moved.path()).expect("it is there");
    served.reload();
    ask(served.addr, "/second");
    await_that("it is written to the new one", || has(&log, "/second"));
    assert!(has(&moved, "/first") && !has(&moved, "/second"));
}

#[test]
fn what_the_refused_are_sent_can_change() {
    let file = TempFile::with("listen = ['127.0.0.1:0']\napp = 'http'\n");
    let args = ["serve", "--max-connections", "1", "--first-byte-timeout", "1h", "--config", file.path()];
    let mut served = Logged::start(&[&args[..], &["--patience", "1ms"]].concat());
    file.write("listen = ['127.0.0.1:0']\napp = 'http'\nbusy-reply = 'full'\n");
    let line = served.reload();
    assert!(line.contains("busy-reply from \\\"\\\" to full"), "{line}");
    // While one is being served, so that it does not give way.
    let busy = connect(served.addr);
    (&busy).write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n1").expect("it reads");
    await_that("others are refused", || refused_with(served.addr) == Ok(b"full".to_vec()));
}

#[test]
fn fifty_reloads_cost_no_client_anything() {
    reload_fifty_times("serve", |round| {
        let (patience, idle, most) = (10 + round % 2, 30 + round % 3, 400 + round);
        format!("app = 'http'\npatience = '{patience}s'\nidle-timeout = '{idle}s'\nmax-connections = {most}")
    });
}

#[test]
fn files_that_are_opened_again_are_said() {
    let log = TempFile::new("opened-again");
    let args = [
        "balance",
        "--listen",
        "127.0.0.1:0",
        "--protocol",
        "http",
        "--access-log",
        log.path(),
        "127.0.0.1:1",
    ];
    let mut served = Logged::start(&args);
    // Nobody is to take it that nothing has happened.
    assert!(served.reload().contains("changed=\"nothing\""));
    assert!(served.logs("read or opened again").contains("files=\"access-log\""));
}

#[test]
fn fifty_changes_of_the_upstreams_cost_no_client_anything() {
    let upstreams = [0; 3].map(|_| {
        let server = Server::builder().bind("127.0.0.1:0").patience(PATIENCE);
        http::serve(server, |_| http::Response::text("Hello, client!")).expect("it serves")
    });
    let addrs = upstreams.each_ref().map(|upstream| upstream.local_addr());
    reload_fifty_times("balance", |round| {
        let (first, second) = (addrs[round % 3], addrs[(round + 1 + round / 3 % 2) % 3]);
        let (weight, patience) = (1 + round % 5, 10 + round % 2);
        format!("protocol = 'http'\nupstreams = ['{first}', '{second}={weight}']\npatience = '{patience}s'")
    });
    // Each had its share.
    assert!(upstreams.iter().all(|upstream| upstream.metrics().answered > 0));
}

/// Reloads a command that serves HTTP with other settings each time, while clients ask on new and kept
/// connections.
fn reload_fifty_times(command: &str, settings: impl Fn(usize) -> String) {
    let text = |round| format!("listen = ['127.0.0.1:0']\n{}", settings(round));
    let file = TempFile::with(&text(0));
    let mut served = Logged::start(&[command, "--config", file.path()]);
    let load = Load::begin(served.addr, HTTP);
    for round in 1..=50 {
        file.write(&text(round));
        assert!(!served.reload().contains("nothing"));
        load.await_answers(5);
    }
    assert_eq!(load.end(), 0);
}
