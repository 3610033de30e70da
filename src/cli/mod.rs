//! The command line: a file for each command, with its flags and what it prints.

mod balance;
mod bench;
mod dial;
mod output;
mod pool;
mod serve;
mod values;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A server for work that blocks or burns CPU, which stays fast when offered more than it can do.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Balance(balance::Args),
    Dial(dial::Args),
    Bench(bench::Args),
}

/// The command line was wrong.
const USAGE: u8 = 2;

/// Parses the command line, runs the command, and gives its status.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => return wrong_usage(&error),
        Err(help) => {
            print(help.render());
            return ExitCode::SUCCESS;
        }
    };
    let result = match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Balance(args) => balance::run(args),
        Command::Dial(args) => dial::run(args),
        Command::Bench(args) => bench::run(args),
    };
    let status = result.unwrap_or_else(|error| failed(&error));
    output::flush();
    status
}

/// One sentence: what was wrong and what would be right. Without a command, all that there is.
fn wrong_usage(error: &clap::Error) -> ExitCode {
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        complain(error.to_string().trim_end());
        return ExitCode::from(USAGE);
    }
    let text = error.to_string();
    let mut paragraphs = text.split("\n\n").map(|paragraph| {
        paragraph.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    });
    let mut sentence = paragraphs.next().unwrap_or_default();
    // What would be right, as far as it is known.
    for tip in paragraphs.filter(|tip| tip.starts_with("tip: ") || tip.starts_with("For more")) {
        sentence = format!("{sentence}; {}", tip.replacen("For more", "for more", 1));
    }
    complain(&sentence);
    ExitCode::from(USAGE)
}

fn failed(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<overfall::Error>().and_then(overfall::Error::setting_name) {
        Some(name) => {
            let flag = format!("--{}", name.replace('_', "-"));
            complain(&format!("error: {}", error.to_string().replacen(name, &flag, 1)));
            ExitCode::from(USAGE)
        }
        None => {
            complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints to standard output.
fn print(text: impl std::fmt::Display) {
    output::print(text.to_string().as_bytes());
}

fn complain(sentence: &str) {
    output::complain(format!("{sentence}\n").as_bytes());
}

/// Whether we were started with this signal ignored, as `nohup` does with HUP and shells do with INT in the
/// background: then it stays so, for us and for what we start.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal - 1)) != 0
}
