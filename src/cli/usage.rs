//! What is said to who gave a wrong command line, and the status for it. It does not know the flags.

use std::{fmt, process::ExitCode};

use super::output;

/// The command line was wrong.
const USAGE: u8 = 2;

/// Something is wrong with what was asked for, on the command line or in the environment: a sentence.
#[derive(Debug)]
pub(super) struct Wrong(pub(super) String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

/// Says what is wrong with what was asked for.
pub(super) fn wrong(sentence: &str) -> ExitCode {
    output::complain(&format!("error: {sentence}"));
    ExitCode::from(USAGE)
}

/// Says in one sentence what was wrong and what would be right; all that there is, without a command.
pub(super) fn not_understood(error: &clap::Error) -> ExitCode {
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        output::complain(error.to_string().trim_end());
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
    output::complain(&sentence);
    ExitCode::from(USAGE)
}
