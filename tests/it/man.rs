//! Manual pages and completions.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use crate::{support::*, temporary::TempDir};

const COMMANDS: [&str; 4] = ["serve", "balance", "dial", "bench"];

/// Runs a program of the system on a text and expects that it has nothing to say.
fn assert_accepts(program: &str, args: &[&str], text: &[u8]) {
    let mut command = Command::new(program);
    command.args(args).env("LC_ALL", "C.UTF-8");
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = child else { return eprintln!("SKIPPED: {program} is not installed") };
    child.stdin.take().unwrap().write_all(text).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{program}: {said}");
}

#[test]
fn each_command_has_a_manual_page_that_can_be_read() {
    let place = TempDir::new("man");
    // One that is not there yet is made.
    let dir = place.path().join("made");
    let output = run(&["man", dir.to_str().unwrap()]);
    assert!(output.status.success() && output.stdout.is_empty());
    for name in COMMANDS.map(|command| format!("overfall-{command}")).iter().chain([&"overfall".into()]) {
        let page = fs::read(dir.join(format!("{name}.1"))).unwrap();
        assert!(page.len() > 500, "{name}");
        assert_accepts("man", &["--warnings", "-l", "-"], &page);
    }
    let whole = fs::read_to_string(dir.join("overfall-balance.1")).unwrap();
    assert!(whole.contains("check") && whole.contains("TERM and INT drain"), "{whole}");
    // It has also what short help leaves out, and command lines stay as they are.
    assert!(whole.contains("From TERM to the forced end") && whole.contains("wait in line"), "{whole}");
    assert!(whole.contains("\n.SH EXAMPLES\n.nf\n") && !whole.contains("EXTRA"), "{whole}");
    // Without a directory it prints the first one, for a look.
    let output = run(&["man"]);
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(COMMANDS.iter().all(|command| page.contains(command)) && !page.contains("help(1)"), "{page}");
}

#[test]
fn completions_parse_and_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        assert!(COMMANDS.iter().all(|command| script.contains(command)), "{shell}");
        assert!(script.contains("patience"), "{shell}");
        assert_accepts(shell, &["-n"], script.as_bytes());
    }
    // Half a script is not to pass for a whole one, as where `>` has it overwrite the last one.
    for command in [&["completions", "bash"][..], &["man"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = overfall(command).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.starts_with("error: cannot write to standard output: No space left"), "{said}");
    }
    assert_wrong_usage(&["completions"], &[(&["tcsh"], "[possible values: bash, ")]);
    let output = run(&["man", "/proc/no-such-place"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with("error: cannot write manual pages to /proc/")
    );
}
