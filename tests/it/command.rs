//! The command line: what it says to wrong input, and its help.

use std::{
    io::{self, Write},
    process::{Command, Stdio},
    time::Duration,
};

use overfall::Server;

use crate::support::*;

#[test]
fn wrong_usage_is_one_sentence_that_names_the_flag() {
    let cases: &[(&[&str], &str)] = &[
        (&["--workers", "0"], "--workers is 0; it may be 1 to 4096"),
        (&["--queue", "0"], "--queue is 0; it may be 1 to 1000000"),
        (&["--backlog", "0"], "--backlog is 0; it may be 1 to 2147483647"),
        (&["--max-connections", "0"], "--max-connections is 0; it may be 1 to 16000000"),
        (&["--workers", "many"], "'many' for '--workers <N>'"),
        (&["--listen", "nowhere"], "'nowhere' for '--listen <ADDR>'"),
        (&["--listen", "127.0.0.1:70000"], "'127.0.0.1:70000' for '--listen <ADDR>'"),
        (&["--idle-timeout", "soon"], "'soon' for '--idle-timeout <D>'"),
        (&["--io-timeout", "0s"], "--io-timeout is 0ns; it may be 1ms to 365 days"),
        (&["--on-full", "panic"], "'panic' for '--on-full <POLICY>'"),
        (&["--app", "telnet"], "'telnet' for '--app <APP>'"),
        (&["--busy-reply", r"\q"], "'\\q' for '--busy-reply <TEXT>'"),
        (&["--wrokers", "1"], "'--wrokers'"),
    ];
    assert_wrong_usage(&["serve", "-q"], cases);
}

#[test]
fn the_builder_names_what_is_wrong() {
    let closure = |_: &mut overfall::Connection<'_>| Ok(overfall::Next::Close);
    let error = Server::builder().serve_handler(closure).unwrap_err();
    assert_eq!(error.to_string(), "there is no address to listen on; give at least one");
    let error = builder().idle_timeout(Duration::ZERO).serve_handler(closure).unwrap_err();
    assert_eq!(error.setting_name(), Some("idle_timeout"));
    let error = Server::builder().bind("127.0.0.1:0").bind("256.0.0.1:1").serve_handler(closure).unwrap_err();
    assert!(error.to_string().starts_with("cannot listen on 256.0.0.1:1: "), "{error}");
    assert_eq!(
        std::io::Error::from(builder().workers(0).serve_handler(closure).unwrap_err()).kind(),
        std::io::ErrorKind::InvalidInput
    );
}

#[test]
fn help_and_version_are_no_errors() {
    for args in [&["--help"][..], &["serve", "--help"], &["--version"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
}

/// All commands; the first is the whole.
const COMMANDS: &[&str] = &["", "serve", "balance", "dial", "bench", "man", "completions"];
/// What a terminal usually has.
const SCREEN: (usize, usize) = (80, 24);

/// Each command with each of the flags that ask for help.
fn questions() -> impl Iterator<Item = (&'static str, &'static str)> {
    COMMANDS.iter().flat_map(|command| [(*command, "-h"), (*command, "--help")])
}

/// What a command prints with this flag where there is no terminal.
fn help(command: &str, flag: &str) -> String {
    let args: Vec<_> = command.split_whitespace().chain([flag]).collect();
    let output = overfall(&args).env("COLUMNS", "200").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it shows with these arguments on a terminal of 200 columns, with this in its environment. It fails
/// where script(1) is not installed.
fn on_a_terminal(args: &str, (name, value): (&str, &str)) -> io::Result<String> {
    let command = format!("stty cols 200 rows 50; exec {} {args}", env!("CARGO_BIN_EXE_overfall"));
    let mut script = Command::new("script");
    script.args(["-qc", &command, "/dev/null"]).stdin(Stdio::null());
    let output = script.env_remove("NO_COLOR").env("TERM", "xterm").env(name, value).output()?;
    Ok(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn help_fits_a_page_whatever_shows_it() {
    for (command, flag) in questions() {
        for line in help(command, flag).lines() {
            assert!(line.chars().count() <= SCREEN.0, "{command} {flag}: {line}");
            assert!(!line.contains('\x1b'), "{command} {flag}: {line}");
        }
    }
}

#[test]
fn short_help_is_one_screen_and_says_where_there_is_more() {
    for command in COMMANDS {
        let help = help(command, "-h");
        assert!(help.lines().count() <= SCREEN.1, "{command}: {help}");
        assert!(help.lines().last().unwrap().contains("--help"), "{command}: {help}");
    }
}

#[test]
fn every_flag_is_in_a_group_of_ours() {
    for command in COMMANDS {
        let (help, mut group, mut flags) = (help(command, "--help"), "", 0);
        for line in help.lines().filter(|line| !line.is_empty()) {
            if !line.starts_with(' ') {
                group = line;
            } else if ["  -", "      --"].iter().any(|begin| line.starts_with(begin)) {
                assert!(group.ends_with(':') && group != "Options:", "{command}: {line} is in {group:?}");
                flags += 1;
            }
        }
        assert!(flags >= 2, "{command}: {help}");
    }
}

#[test]
fn examples_can_be_run_as_they_are_printed() {
    for command in ["serve", "balance", "dial"] {
        let (help, begin) = (help(command, "--help"), format!("    overfall {command} "));
        let examples: Vec<_> = help.lines().filter_map(|line| line.strip_prefix(&begin)).collect();
        assert!(!examples.is_empty(), "{help}");
        for example in examples {
            // Who dials need not wait here, and who would serve has no use for an address that others have.
            let example = example.replace("30s", "1ms");
            let only_check = (command != "dial").then_some("--check-config");
            let check = only_check.unwrap_or_default();
            let line = format!("exec {} {command} {check} {example}", env!("CARGO_BIN_EXE_overfall"));
            let status = Command::new("sh").args(["-c", &line]).output().expect("it runs").status.code();
            assert!(if only_check.is_some() { status == Some(0) } else { status != Some(2) }, "{example}");
        }
    }
}

#[test]
fn help_has_colours_on_a_terminal_that_shows_them() {
    let usual = ("TERM", "xterm");
    if on_a_terminal("-V", usual).is_err() {
        return eprintln!("SKIPPED: script(1) is not installed");
    }
    for (command, flag) in questions() {
        let shown = on_a_terminal(&format!("{command} {flag}"), usual).unwrap();
        assert!(shown.contains("\x1b["), "{command} {flag}: {shown}");
        let plain = help(command, flag);
        assert_eq!(shown.lines().count(), plain.lines().count(), "{command} {flag}: {shown}");
    }
    // What is shown in place of an error is help as well.
    assert!(on_a_terminal("", usual).unwrap().contains("\x1b["));
    for unwanted in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let shown = on_a_terminal("serve --help", unwanted).unwrap();
        assert!(shown.contains("--listen") && !shown.contains('\x1b'), "{unwanted:?}: {shown}");
    }
}

#[test]
fn the_documents_name_only_flags_that_there_are() {
    let help = |command: &str| String::from_utf8(run(&[command, "--help"]).stdout).unwrap();
    let known: String = ["serve", "balance", "dial", "bench"].map(help).concat();
    let is_flag = |c: char| c.is_ascii_lowercase() || c == '-';
    for document in ["README.md", "benches/README.md"] {
        let text = std::fs::read_to_string(format!("{}/{document}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        // What others are told is no concern of ours.
        let theirs = ["gunicorn ", "COPY "];
        let is_ours =
            |line: &&str| !line.contains("cargo ") && !theirs.iter().any(|theirs| line.starts_with(theirs));
        let ours = text.lines().filter(is_ours);
        let flags: Vec<_> = ours
            .flat_map(|line| line.match_indices("--").map(|(at, _)| &line[at..]))
            .map(|rest| &rest[..rest.find(|c| !is_flag(c)).unwrap_or(rest.len())])
            .filter(|flag| flag.len() > 2 && flag[2..].starts_with(|c: char| c.is_ascii_lowercase()))
            .filter(|flag| *flag != "--help")
            .collect();
        assert!(flags.len() >= 3, "{document} names {flags:?}");
        for flag in flags {
            let exists =
                known.match_indices(flag).any(|(at, _)| known[at + flag.len()..].starts_with([' ', '\n']));
            assert!(exists, "{document} names {flag}");
        }
    }
}

#[test]
fn the_settings_in_force_are_logged_and_nothing_goes_to_a_closed_output() {
    let mut command =
        overfall(&["serve", "--listen", "127.0.0.1:0", "--workers", "3", "--backlog", "100000000"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let pid = rustix::process::Pid::from_child(&child);
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("is limited by net.core.somaxconn") {
        assert!(std::io::BufRead::read_line(&mut log, &mut text).unwrap() > 0, "{text}");
    }
    assert!(text.contains(" workers=3 ") && text.contains(" patience=500ms "), "{text}");
    // Not as Rust writes its values, and without colours where there is no terminal.
    assert!(text.contains(" refusal_budget=1.5% ") && !text.contains(['{', '\x1b']), "{text}");
    // Printing the counters to nobody ends nothing.
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn work_is_burnt_and_blocking_sleeps() {
    let served = serve(&["--work", "1ms", "--block", "1ms"]);
    let mut client = connect(served.addr);
    client.write_all(b"Hello, server!").unwrap();
    assert_eq!(rest(&client).unwrap(), b"Hello, client!");
}
