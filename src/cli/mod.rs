//! The command line: a file or a folder for each command, with its flags and what it prints. It serves,
//! balances, dials and measures nothing itself.

mod admin;
mod balance;
mod bench;
mod command_line;
mod config_file;
mod dial;
mod entry;
mod groups;
mod handover;
mod help;
mod leave;
mod listen;
mod logging;
mod man;
mod mistakes;
mod output;
mod pool;
mod reload;
mod resolving;
mod restart;
mod serve;
mod served;
mod signals;
mod sockets;
mod systemd;
mod usage;
mod values;
mod workers;

use std::{env, io, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use self::{
    command_line::{Parsed, Rejected},
    config_file::Settings,
};

/// A server for work that blocks or burns CPU, which stays fast when offered more than it can do.
#[derive(Debug, Parser)]
#[command(version, max_term_width = help::COLUMNS, styles = help::STYLES)]
#[command(disable_help_flag = true, disable_version_flag = true, args = help::flags())]
#[command(after_help = help::MORE, mut_subcommands = help::with_flags)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Balance(Box<balance::Args>),
    Dial(dial::Args),
    Bench(bench::Args),
    Man(man::ManArgs),
    Completions(man::CompletionsArgs),
}

/// Parses the command line, runs the command, and gives its status.
pub(crate) fn main() -> ExitCode {
    let (cli, parsed) = match parse() {
        Ok(parsed) => parsed,
        Err(status) => return status,
    };
    let result = match cli.command {
        Command::Serve(args) => serve::run(args, parsed.values),
        Command::Balance(args) => balance::run(*args, parsed.values),
        Command::Dial(args) => dial::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Man(args) => man::man(Cli::command(), &args),
        Command::Completions(args) => man::completions(Cli::command(), &args),
    };
    let status = result.unwrap_or_else(|error| failed(&error, parsed.settings.as_ref()));
    output::flush();
    status
}

/// Parses the command line with its file; what is wrong with them, or the help, is said.
fn parse() -> Result<(Cli, Parsed), ExitCode> {
    let parsed = command_line::parse(&Cli::command(), env::args_os().collect()).and_then(|parsed| {
        let cli = Cli::from_arg_matches(&parsed.matches);
        cli.map(|cli| (cli, parsed)).map_err(|error| Rejected::Clap(error, None))
    });
    parsed.map_err(|rejected| match rejected {
        Rejected::File(sentence) => usage::wrong(&sentence),
        Rejected::Clap(error, settings) if error.use_stderr() => {
            usage::not_understood(&error, settings.as_ref())
        }
        Rejected::Clap(help, _) => {
            output::print(help::text(&help, &io::stdout()));
            ExitCode::SUCCESS
        }
    })
}

fn failed(error: &anyhow::Error, settings: Option<&Settings>) -> ExitCode {
    match usage::mistake(error, settings) {
        Some(sentence) => usage::wrong(&sentence),
        None => {
            output::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
