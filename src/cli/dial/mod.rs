//! The command `overfall dial`: what it dials, what it says, and with which status it ends. It does not
//! know how to dial.

mod args;
mod progress;
mod report;
mod signals;
mod targets;

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
    sync::atomic::Ordering::SeqCst,
};

use overfall::dial::{Cancel, Outcome};

pub(super) use self::args::Args;
use self::{progress::dial_and_show, signals::cancel_on_signals, targets::read_targets};
use super::{output, usage};

/// The requirement was not met in the time given, as timeout(1) says it.
const RAN_OUT: u8 = 124;
/// Dials and says how it went.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let targets = match all_targets(&args) {
        Ok(targets) => targets,
        Err(sentence) => return Ok(usage::wrong(&sentence)),
    };
    let config = args.config();
    crate::limits::raise();
    let cancel = Cancel::new()?;
    let caught = cancel_on_signals(&cancel)?;
    let outcomes = dial_and_show(&targets, &config, &cancel, args.quiet)?;
    if let Ok(signal @ 1..) = u8::try_from(caught.load(SeqCst)) {
        // As a shell says it.
        return Ok(ExitCode::from(128 + signal));
    }
    show(&args, &outcomes);
    let succeeded = outcomes.iter().filter(|outcome| outcome.failure.is_none()).count();
    if succeeded < config.require.unwrap_or(targets.len()) {
        return Ok(ExitCode::from(if config.retry.is_some() { RAN_OUT } else { 1 }));
    }
    match args.command.split_first() {
        None => Ok(ExitCode::SUCCESS),
        Some((program, arguments)) => Ok(become_command(program, arguments)),
    }
}

/// Those of the command line and those of the file, or the sentence that says what is wrong.
fn all_targets(args: &Args) -> Result<Vec<String>, String> {
    let mut targets = args.targets.clone();
    if let Some(file) = &args.file {
        targets.extend(read_targets(file)?);
    }
    if targets.is_empty() {
        return Err("there is no target; give HOST:PORT, once or several times, or --file F".into());
    }
    Ok(targets)
}

fn show(args: &Args, outcomes: &[Outcome]) {
    if args.json {
        output::print(format_args!("{:#}\n", report::document(outcomes)));
    } else if !args.quiet {
        output::print(format_args!("{}\n", report::table(outcomes).trim_fmt()));
        report::explain(outcomes);
    }
}

/// Lets the command take this process's place, so that its status and its signals are its own. It returns
/// only where the command cannot be run.
fn become_command(program: &OsString, arguments: &[OsString]) -> ExitCode {
    let error = crate::limits::with_found(|| Command::new(program).args(arguments).exec());
    output::complain(&format!("error: cannot run {}: {error}", program.display()));
    // As a shell says it.
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}
