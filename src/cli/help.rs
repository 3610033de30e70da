//! How help looks: its width, its colours, its examples, and what it says of itself. It knows no command.

use std::io::IsTerminal;

use clap::{
    Arg, ArgAction, Command,
    builder::styling::{AnsiColor, Styles},
};

use super::{groups, output};

/// Wider lines are hard to read.
pub(super) const COLUMNS: usize = 80;

/// Where the flags of the commands are shown.
pub(super) const MORE: &str =
    "overfall COMMAND -h shows the first flags of a command, and --help all of them";

/// As cargo has them.
pub(super) const STYLES: Styles = Styles::styled()
    .header(AnsiColor::BrightGreen.on_default().bold())
    .usage(AnsiColor::BrightGreen.on_default().bold())
    .literal(AnsiColor::BrightCyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// The help, or whatever the parser says in its place, as it is to be written to this stream.
pub(super) fn text(said: &clap::Error, stream: &impl IsTerminal) -> String {
    let text = said.render();
    if output::may_be_coloured(stream) { text.ansi().to_string() } else { text.to_string() }
}

/// Command lines for the end of the long help, each below what it is good for.
pub(super) fn examples(examples: &[(&str, &str)]) -> String {
    let (header, literal) = (STYLES.get_header(), STYLES.get_literal());
    let example = |(what, line): &(&str, &str)| format!("\n  {what}:\n    {literal}{line}{literal:#}");
    format!("{header}Examples:{header:#}{}", examples.iter().map(example).collect::<String>())
}

/// The flags that say what else there is. Those of the parser itself are in no group.
pub(super) fn flags() -> [Arg; 2] {
    let help = Arg::new("help").short('h').long("help").action(ArgAction::Help);
    let version = Arg::new("version").short('V').long("version").action(ArgAction::Version);
    [help.help("Print help: -h for a start, --help all of it"), version.help("Print the version")]
        .map(|flag| flag.help_heading(groups::HELP))
}

/// A command with these flags; where its short help is not all, that says so at its end.
pub(super) fn with_flags(command: Command) -> Command {
    let literal = STYLES.get_literal();
    let more = format!("{literal}overfall {} --help{literal:#} shows all flags", command.get_name());
    let command = command
        // The parser takes it from the whole, but a command is also parsed by itself, for a file of settings.
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .disable_help_flag(true)
        .args(flags().map(|flag| flag.hide_short_help(true)));
    if command.get_after_long_help().is_some() { command.after_help(more) } else { command }
}
