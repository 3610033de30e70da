//! The command `overfall`: parses the command line, runs a command, and ends with its status. It knows none
//! of the commands.

mod bench;
mod cli;
mod limits;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
