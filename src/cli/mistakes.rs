//! What the parser of command lines has to say of a mistake, in sentences of our own. It does not know who is
//! told.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What was wrong with the value of this key in a file.
pub(super) fn sentence_in_a_file(error: &clap::Error, key: &str) -> String {
    let sentence = paragraphs(error).into_iter().next().unwrap_or_default();
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => sentence.replacen(flag, key, 1),
        _ => sentence,
    }
}

/// The flag that may have been meant.
pub(super) fn suggestion(error: &clap::Error) -> Option<String> {
    match error.get(ContextKind::SuggestedArg)? {
        ContextValue::String(flag) => Some(flag.trim_start_matches('-').to_owned()),
        _ => None,
    }
}

/// What may have been meant as a program to be served.
pub(super) fn program_without_dashes(error: &clap::Error) -> Option<&str> {
    let takes_program = paragraphs(error).iter().any(|said| said.contains("[-- <COMMAND>"));
    match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(arg) if error.kind() == ErrorKind::UnknownArgument && !arg.starts_with('-') => {
            Some(&**arg).filter(|_| takes_program)
        }
        _ => None,
    }
}

/// The error's paragraphs, each on one line.
pub(super) fn paragraphs(error: &clap::Error) -> Vec<String> {
    let text = error.to_string();
    let join = |paragraph: &str| {
        paragraph.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    };
    text.trim_start_matches("error: ").split("\n\n").map(join).collect()
}
