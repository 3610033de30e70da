//! The command line: a file or a folder for each command, with its flags and what it prints. It serves,
//! balances, dials and measures nothing itself.

mod admin;
mod balance;
mod bench;
mod dial;
mod handover;
mod listen;
mod logging;
mod man;
mod output;
mod pool;
mod restart;
mod serve;
mod signals;
mod sockets;
mod systemd;
mod usage;
mod values;
mod workers;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

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
    Man(man::ManArgs),
    Completions(man::CompletionsArgs),
}

/// Parses the command line, runs the command, and gives its status.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => return usage::not_understood(&error),
        Err(help) => {
            output::print(help.render());
            return ExitCode::SUCCESS;
        }
    };
    let result = match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Balance(args) => balance::run(args),
        Command::Dial(args) => dial::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Man(args) => man::man(Cli::command(), &args),
        Command::Completions(args) => Ok(man::completions(Cli::command(), &args)),
    };
    let status = result.unwrap_or_else(|error| failed(&error));
    output::flush();
    status
}

fn failed(error: &anyhow::Error) -> ExitCode {
    if let Some(usage::Wrong(sentence)) = error.downcast_ref() {
        return usage::wrong(sentence);
    }
    match error.downcast_ref::<overfall::Error>().and_then(overfall::Error::setting_name) {
        Some(name) => {
            let flag = format!("--{}", name.replace('_', "-"));
            usage::wrong(&error.to_string().replacen(name, &flag, 1))
        }
        None => {
            output::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
