//! Any program as the app: what passes, how many run, and what is left of them.

use std::{
    io::{BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use overfall::{
    apps::Program,
    http::{self, Request, Response},
};
use rustix::process::Signal;

use crate::{
    support::{
        BRIEF, Served, assert_wrong_usage, await_that, builder, children, connect, exchange, hear, listening,
        overfall, reset_on_close, rest, serve, tell,
    },
    temporary::{Process, TempDir},
    tls::{Identity, dial},
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a client gets that sends nothing, and ends its side at once.
fn had(served: &Served) -> String {
    text(&exchange(served.addr, b"").expect("a reply"))
}

fn sh(script: &str) -> Program {
    Program::new("sh").arg("-c").arg(script)
}

#[test]
fn a_programs_input_and_output_are_the_connection() {
    let server = builder().serve_handler(Program::new("cat")).expect("it serves");
    assert_eq!(text(&exchange(server.local_addr(), b"hello").expect("a reply")), "hello");
    // More than all the buffers on the way have room for, in both directions at once.
    let sent: Vec<u8> = (0..8_000_000_u32).map(|at| (at / 3) as u8).collect();
    let stream = connect(server.local_addr());
    let writer = thread::spawn({
        let (mut stream, sent) = (stream.try_clone().expect("a socket"), sent.clone());
        move || {
            stream.write_all(&sent).expect("it reads");
            stream.shutdown(Shutdown::Write).expect("it is there");
        }
    });
    let got = rest(&stream).expect("all of it");
    writer.join().expect("it ends");
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    await_that("both are counted", || server.metrics().answered == 2);
    assert_eq!((server.metrics().failed, server.metrics().timed_out_io), (0, 0));
}

#[test]
fn a_program_may_speak_first_and_end_first_and_need_not_listen() {
    let server =
        builder().serve_handler(sh("echo hello; read line; echo \"you: $line\"")).expect("it serves");
    let stream = connect(server.local_addr());
    assert_eq!(hear(&stream), "hello");
    tell(&stream, "me");
    // It has not read what follows, which is not to take its last word along.
    tell(&stream, "more");
    assert_eq!(text(&rest(&stream).expect("no reset")), "you: me\n");
    let deaf = builder().serve_handler(sh("exec <&-; echo deaf; sleep 0.1; echo still")).expect("it serves");
    let stream = connect(deaf.local_addr());
    let _ = (&stream).write_all(&vec![b'x'; 1_000_000]);
    let _ = stream.shutdown(Shutdown::Write);
    assert_eq!(text(&rest(&stream).expect("no reset")), "deaf\nstill\n");
}

#[test]
fn a_program_knows_its_client_and_has_nothing_of_the_servers() {
    let script = "env; for fd in /proc/$$/fd/*; do readlink $fd; done";
    let mut served = serve(&["--", "sh", "-c", script]);
    let stream = connect(served.addr);
    stream.shutdown(Shutdown::Write).expect("it is there");
    let (client, said) = (stream.local_addr().expect("an address"), text(&rest(&stream).expect("a reply")));
    let (ip, port, here) = ("127.0.0.1", client.port(), served.addr.port());
    for line in [
        "PROTO=TCP".to_owned(),
        format!("TCPREMOTEIP={ip}"),
        format!("TCPREMOTEPORT={port}"),
        format!("TCPLOCALIP={ip}"),
        format!("TCPLOCALPORT={here}"),
        format!("REMOTE_ADDR={ip}"),
        format!("REMOTE_PORT={port}"),
        format!("SERVER_ADDR={ip}"),
        format!("SERVER_PORT={here}"),
    ] {
        assert!(said.lines().any(|said| said == line), "{line} is not in {said}");
    }
    for ours in ["socket:", "anon_inode:"] {
        assert!(!said.contains(ours), "{said}");
    }
    served.signal(Signal::TERM);
    assert_eq!(served.wait().0, Some(0));
}

#[test]
fn what_a_service_manager_says_is_not_for_programs() {
    let dir = TempDir::new("notify");
    let socket = dir.path().join("socket");
    let _manager = std::os::unix::net::UnixDatagram::bind(&socket).expect("a socket");
    let mut command = overfall(&["serve", "-q", "--listen", "127.0.0.1:0", "--", "env"]);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "10000000").stdout(Stdio::piped());
    let mut child = Process(command.spawn().expect("it runs"));
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let addr = listening(&mut out);
    let said = text(&exchange(addr, b"").expect("a reply"));
    assert!(said.contains("REMOTE_ADDR=127.0.0.1\n"), "{said}");
    assert!(!said.contains("NOTIFY_SOCKET") && !said.contains("WATCHDOG"), "{said}");
}

/// The processes that have written their numbers to this directory, and are still there.
pub(crate) fn alive(dir: &Path) -> usize {
    let is_alive = |number: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", number.trim()));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    let files = std::fs::read_dir(dir).expect("it is there").map(|file| file.expect("a file").path());
    let numbers = files.map(|file| std::fs::read_to_string(file).unwrap_or_default());
    numbers.filter(|number| is_alive(number)).count()
}

/// Those of this process's programs that nobody has waited for, named `sh` as they were.
fn zombies() -> usize {
    let stats = children(std::process::id()).into_iter().filter_map(|process| {
        // It may be waited for meanwhile.
        std::fs::read_to_string(format!("/proc/{process}/stat")).ok()
    });
    stats.filter(|stat| stat.contains("(sh) Z ")).count()
}

/// Says who it is, starts another, and both are silent.
fn silent(dir: &TempDir) -> String {
    let dir = dir.path().display();
    format!("echo $$ > {dir}/$$; sleep 1000 & echo $! > {dir}/$!; echo begun; wait")
}

#[test]
fn a_silent_program_is_killed_with_all_that_it_has_started() {
    let dir = TempDir::new("silent");
    let server = builder().io_timeout(BRIEF).serve_handler(sh(&silent(&dir))).expect("it serves");
    let stream = connect(server.local_addr());
    assert_eq!(hear(&stream), "begun");
    // What breaks off is not to pass for whole.
    assert!(rest(&stream).is_err());
    await_that("both are gone", || alive(dir.path()) == 0);
    await_that("no zombie is left", || server.metrics().busy_workers == 0 && zombies() == 0);
    await_that("it is counted", || server.metrics().timed_out_io == 1);
    assert_eq!(server.metrics().answered, 0);
}

#[test]
fn a_program_is_killed_when_its_client_has_gone() {
    let dir = TempDir::new("gone");
    let server = builder().workers(1).serve_handler(sh(&silent(&dir))).expect("it serves");
    let stream = connect(server.local_addr());
    assert_eq!(hear(&stream), "begun");
    assert_eq!(alive(dir.path()), 2);
    reset_on_close(&stream);
    drop(stream);
    await_that("both are gone", || alive(dir.path()) == 0);
    let next = connect(server.local_addr());
    assert_eq!(hear(&next), "begun");
    reset_on_close(&next);
}

#[test]
fn as_many_run_at_once_as_there_are_workers() {
    let mut served = serve(&["--workers", "2", "--patience", "30s", "--", "sh", "-c", "echo begun; cat"]);
    let clients: Vec<TcpStream> = (0..5).map(|_| connect(served.addr)).collect();
    await_that("three wait", || served.counter("queue_depth") == 3);
    await_that("two run", || served.children().len() == 2);
    for client in &clients {
        assert_eq!(hear(client), "begun");
        client.shutdown(Shutdown::Write).expect("it is there");
        assert_eq!(text(&rest(client).expect("an end")), "");
    }
    await_that("no program is left", || served.children().is_empty());
    assert_eq!(served.counter("busy_highest"), 2);
}

#[test]
fn a_drain_lets_programs_end_and_kills_them_when_its_time_is_over() {
    let mut served = serve(&["--", "sh", "-c", "echo begun; read line; echo \"$line\""]);
    let stream = connect(served.addr);
    assert_eq!(hear(&stream), "begun");
    served.signal(Signal::TERM);
    await_that("it accepts nobody", || TcpStream::connect(served.addr).is_err());
    tell(&stream, "bye");
    assert_eq!(text(&rest(&stream).expect("an end")), "bye\n");
    assert_eq!(served.wait().0, Some(0));

    let dir = TempDir::new("drain");
    let args = ["--drain-timeout", "100ms", "--", "sh", "-c", &silent(&dir)];
    let mut served = serve(&args);
    let stream = connect(served.addr);
    assert_eq!(hear(&stream), "begun");
    served.signal(Signal::TERM);
    assert_eq!(served.wait().0, Some(1));
    await_that("both are gone", || alive(dir.path()) == 0);
}

#[test]
fn a_program_that_cannot_be_started_costs_its_client_alone() {
    let dir = TempDir::new("start");
    let program = dir.path().join("program");
    let server = builder().serve_handler(Program::new(&program)).expect("it serves");
    // An end would pass for that of a program that has nothing to say.
    assert!(exchange(server.local_addr(), b"").is_err());
    assert_eq!(server.metrics().failed, 1);
    std::fs::copy("/bin/cat", &program).expect("it is written");
    assert_eq!(exchange(server.local_addr(), b"now").expect("a reply"), b"now");
}

#[test]
fn a_program_is_served_over_tls() {
    let identity = Identity::new("program");
    let server =
        builder().tls(identity.tls()).serve_handler(sh("read line; echo \"$line\"")).expect("it serves");
    let mut stream = dial(&identity.client(&[]), server.local_addr());
    stream.write_all(b"hidden\n").expect("it reads");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("an end that is told");
    assert_eq!(reply, "hidden\n");
}

#[test]
fn no_zombie_is_left() {
    let served = serve(&["--workers", "4", "--patience", "30s", "--", "sh", "-c", "exit 3"]);
    for _ in 0..20 {
        assert_eq!(had(&served), "");
    }
    await_that("no program is left", || served.children().is_empty());
}

#[test]
fn what_is_no_program_is_said_at_once() {
    assert_wrong_usage(
        &["serve"],
        &[
            (&["--", "no-such-program"], "COMMAND is no-such-program, which is no program"),
            (&["--", "/etc/passwd"], "COMMAND is /etc/passwd, which is no program"),
            (&["--", "/"], "COMMAND is /, which is no program"),
            (&["cat"], "a program that is to be served stands behind two dashes: -- cat"),
            (&["--cgi"], "<COMMAND>"),
            (&["--app", "echo", "--", "cat"], "--app"),
            (&["--work", "1ms", "--", "cat"], "--work"),
        ],
    );
}

#[test]
fn a_program_that_was_killed_has_not_said_all() {
    let server = builder().serve_handler(sh("echo part; kill -SEGV $$")).expect("it serves");
    assert!(exchange(server.local_addr(), b"").is_err());
    let ended = builder().serve_handler(sh("echo all; exit 7")).expect("it serves");
    assert_eq!(text(&exchange(ended.local_addr(), b"").expect("an end")), "all\n");
}

#[test]
fn a_program_that_has_ended_its_output_still_hears_its_client_out() {
    let dir = TempDir::new("hears");
    let path = dir.path().join("heard");
    let server =
        builder().serve_handler(sh(&format!("exec >&-; cat > {}", path.display()))).expect("it serves");
    assert_eq!(exchange(server.local_addr(), &vec![b'x'; 3_000_000]).expect("an end"), b"");
    assert_eq!(std::fs::metadata(path).expect("it was written").len(), 3_000_000);
}

#[test]
fn what_nobody_hears_keeps_no_program_alive() {
    let deaf = sh("exec <&-; exec sleep 1000");
    let server = builder().io_timeout(3 * BRIEF).serve_handler(deaf).expect("it serves");
    let stream = connect(server.local_addr());
    await_that("it is killed", || {
        thread::sleep(BRIEF);
        (&stream).write_all(b"x").is_err() || server.metrics().timed_out_io == 1
    });
    await_that("it is counted", || server.metrics().timed_out_io == 1);
}

#[test]
fn a_program_never_outlives_its_server() {
    for signals in [&[Signal::TERM, Signal::TERM][..], &[Signal::KILL]] {
        let dir = TempDir::new("outlives");
        let script = format!("echo $$ > {}/$$; echo begun; exec sleep 1000", dir.path().display());
        let mut served = serve(&["--", "sh", "-c", &script]);
        let stream = connect(served.addr);
        assert_eq!(hear(&stream), "begun");
        assert_eq!(alive(dir.path()), 1);
        for (count, signal) in signals.iter().enumerate() {
            if count > 0 {
                await_that("it accepts nobody", || TcpStream::connect(served.addr).is_err());
            }
            served.signal(*signal);
        }
        served.wait();
        await_that("it is gone", || alive(dir.path()) == 0);
    }
}

#[test]
fn a_program_sees_what_the_server_was_started_with_and_nothing_of_who_serves_that() {
    let serve = format!(
        "ulimit -Sn 300; exec {} serve -q --listen 127.0.0.1:0 -- sh -c 'ulimit -Sn; env'",
        env!("CARGO_BIN_EXE_overfall")
    );
    let mut command = Command::new("sh");
    command.args(["-c", &serve]).stdout(Stdio::piped());
    command.env("HTTPS", "on").env("HTTP_COOKIE", "a").env("REMOTE_USER", "admin");
    let mut child = Process(command.spawn().expect("it runs"));
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let addr = listening(&mut out);
    let said = text(&exchange(addr, b"").expect("a reply"));
    assert!(said.starts_with("300\n"), "{said}");
    for name in ["HTTPS=", "HTTP_COOKIE=", "REMOTE_USER="] {
        assert!(!said.contains(name), "{said}");
    }
}

#[test]
fn a_program_takes_a_connection_over_and_may_speak_first() {
    let answer = |_: &Request<'_>| Response::upgrade("talk", sh("echo hello; read line; echo \"$line\""));
    let server = http::serve(builder(), answer).expect("it serves");
    let mut stream = connect(server.local_addr());
    let request = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: talk\r\nConnection: upgrade\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("it reads");
    while hear(&stream) != "\r" {}
    assert_eq!(hear(&stream), "hello");
    tell(&stream, "bye");
    assert_eq!(text(&rest(&stream).expect("an end")), "bye\n");
}

#[test]
fn who_is_refused_is_sent_the_busy_reply() {
    let program = sh("echo begun; read line").busy_reply(&b"busy\n"[..]);
    let server = builder().workers(1).patience(BRIEF).serve_handler(program).expect("it serves");
    let first = connect(server.local_addr());
    assert_eq!(hear(&first), "begun");
    let second = connect(server.local_addr());
    tell(&second, "now");
    assert_eq!(text(&rest(&second).expect("a text")), "busy\n");
    reset_on_close(&first);
}
