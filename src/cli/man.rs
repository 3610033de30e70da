//! The commands `overfall man` and `overfall completions`: manual pages and completions, made from the
//! definitions of all flags. They know none of them.

use std::{
    fs, io, iter,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Command, builder::Resettable};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{help, output};

/// Print the manual page overfall(1), or write one for each command.
#[derive(Debug, clap::Args)]
#[command(after_long_help = help::examples(&[
    ("Read the first page", "overfall man | man -l -"),
    ("Have man(1) find all of them", "overfall man /usr/local/share/man/man1"),
]))]
pub(super) struct ManArgs {
    /// Write overfall.1, overfall-serve.1 and the others to this directory
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Print what completes the command line in a shell.
#[derive(Debug, clap::Args)]
#[command(after_long_help = help::examples(&[
    ("For bash", "overfall completions bash > /usr/share/bash-completion/completions/overfall"),
]))]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints or writes the manual pages of the command.
pub(super) fn man(command: Command, args: &ManArgs) -> anyhow::Result<ExitCode> {
    // It would be listed as a page of its own.
    let command = whole(command.disable_help_subcommand(true));
    match &args.dir {
        Some(dir) => write_pages(command, dir)?,
        None => deliver(page(&Man::new(command))?.as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A page has all that long help has, also of flags that short help leaves out, and needs no word on where
/// there is more.
fn whole(command: Command) -> Command {
    let command = command.after_help(Resettable::Reset);
    command.mut_args(|arg| arg.hide_short_help(false)).mut_subcommands(whole)
}

fn write_pages(mut command: Command, dir: &Path) -> anyhow::Result<()> {
    command.build();
    let write = |command: &Command| {
        let man = Man::new(command.clone());
        fs::write(dir.join(man.get_filename()), page(&man)?)
    };
    let written = fs::create_dir_all(dir)
        .and_then(|()| iter::once(&command).chain(command.get_subcommands()).try_for_each(write));
    written.with_context(|| format!("cannot write manual pages to {}", dir.display()))
}

fn page(man: &Man) -> io::Result<String> {
    let mut page = Vec::new();
    man.render(&mut page)?;
    // A command line that was filled and broken could not be copied.
    Ok(String::from_utf8_lossy(&page).replace(".SH EXTRA\nExamples:\n", ".SH EXAMPLES\n.nf\n"))
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
