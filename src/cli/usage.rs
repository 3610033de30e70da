//! What is said to who gave a wrong command line, and the status for it. It does not know the flags.

use std::{io, process::ExitCode};

use clap::error::ErrorKind;

use super::{
    config_file::Settings,
    help,
    mistakes::{self, paragraphs},
    output,
};

/// The command line was wrong.
const USAGE: u8 = 2;

/// Something is wrong with what was asked for, on the command line or in the environment: a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Wrong(pub(super) String);

/// Says what is wrong with what was asked for.
pub(super) fn wrong(sentence: &str) -> ExitCode {
    output::complain(&format!("error: {sentence}"));
    ExitCode::from(USAGE)
}

/// Says in one sentence what was wrong and what would be right; all that there is, without a command.
pub(super) fn not_understood(error: &clap::Error, settings: Option<&Settings>) -> ExitCode {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        output::complain(help::text(error, &io::stderr()).trim_end());
        return ExitCode::from(USAGE);
    }
    wrong(&sentence(error, settings))
}

/// What was wrong and what would be right, and where it stands if that is in a file.
pub(super) fn sentence(error: &clap::Error, settings: Option<&Settings>) -> String {
    let mut paragraphs = paragraphs(error).into_iter();
    let mut sentence = paragraphs.next().unwrap_or_default();
    if let Some(program) = mistakes::program_without_dashes(error) {
        sentence =
            format!("{sentence}; a program that is to be served stands behind two dashes: -- {program}");
    }
    // What would be right, as far as it is known; hardly anybody means a flag to be an argument.
    for said in paragraphs {
        let tip = said.split("tip: to pass").next().unwrap_or_default().trim_end();
        if tip.starts_with("tip: ") || tip.starts_with("For more") {
            sentence = format!("{sentence}; {}", tip.replacen("For more", "for more", 1));
        }
    }
    located(sentence, None, settings)
}

/// What is wrong with what was asked for, if that is why it failed.
pub(super) fn mistake(error: &anyhow::Error, settings: Option<&Settings>) -> Option<String> {
    if let Some(Wrong(sentence)) = error.downcast_ref() {
        return Some(located(sentence.clone(), None, settings));
    }
    let setting = error.downcast_ref::<overfall::Error>().and_then(overfall::Error::setting_name)?;
    let flag = setting.replace('_', "-");
    let sentence = error.to_string().replacen(setting, &format!("--{flag}"), 1);
    Some(located(sentence, Some(&flag), settings))
}

fn located(sentence: String, flag: Option<&str>, settings: Option<&Settings>) -> String {
    match settings {
        Some(settings) => settings.locate(&sentence, flag),
        None => sentence,
    }
}
