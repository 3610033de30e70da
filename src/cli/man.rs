//! The commands `overfall man` and `overfall completions`: manual pages and completions, made from the
//! definitions of all flags. They know none of them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;

use super::output;

/// Print the manual page overfall(1), or write one for each command.
#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// Write overfall.1, overfall-serve.1 and the others to this directory
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Print what completes the command line in a shell.
///
/// For bash: overfall completions bash > /usr/share/bash-completion/completions/overfall
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints or writes the manual pages of the command.
pub(super) fn man(command: Command, args: &ManArgs) -> anyhow::Result<ExitCode> {
    // It would be listed as a page of its own.
    let command = command.disable_help_subcommand(true);
    match &args.dir {
        Some(dir) => write_pages(command, dir)?,
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            deliver(&page)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write_pages(command: Command, dir: &Path) -> anyhow::Result<()> {
    let written = fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
    written.with_context(|| format!("cannot write manual pages to {}", dir.display()))
}

/// Prints the completions of the command.
pub(super) fn completions(mut command: Command, args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    deliver(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Half a page or half a script, as a full disk leaves it, is not to pass for a whole one.
fn deliver(text: &[u8]) -> anyhow::Result<()> {
    output::deliver(text).context("cannot write to standard output")
}
