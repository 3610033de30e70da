//! The command line with the file that it names: parsed, and what it says of each flag. It does not know what
//! the flags mean.

use std::{collections::BTreeMap, ffi::OsString};

use clap::{ArgMatches, Command};

use super::config_file::{self, Settings};

/// A command line that is right as far as can be said without running its command.
pub(super) struct Parsed {
    pub(super) matches: ArgMatches,
    /// What its file says.
    pub(super) settings: Option<Settings>,
    /// What it says of each flag of its command.
    pub(super) values: Values,
}

/// For each flag, without its dashes, the values that it was given or has by default.
pub(super) type Values = BTreeMap<String, Vec<String>>;

/// Why a command line was not taken.
pub(super) enum Rejected {
    /// It asks for help, or is wrong, perhaps on account of its file.
    Clap(clap::Error, Option<Settings>),
    /// Its file is wrong.
    File(String),
}

/// Parses the command line, and the file that it names with it.
pub(super) fn parse(cli: &Command, args: Vec<OsString>) -> Result<Parsed, Rejected> {
    let (args, settings) = config_file::complete(cli, args).map_err(Rejected::File)?;
    match cli.clone().try_get_matches_from(args) {
        Ok(matches) => Ok(Parsed { values: values(cli, &matches), matches, settings }),
        Err(error) => Err(Rejected::Clap(error, settings)),
    }
}

fn values(cli: &Command, matches: &ArgMatches) -> Values {
    let command = matches.subcommand().and_then(|(name, given)| Some((cli.find_subcommand(name)?, given)));
    let Some((command, given)) = command else { return Values::new() };
    let value = |arg| {
        let values = given.get_raw(clap::Arg::get_id(arg).as_str()).into_iter().flatten();
        (config_file::name(arg), values.map(|value| value.to_string_lossy().into_owned()).collect())
    };
    command.get_arguments().map(value).collect()
}
