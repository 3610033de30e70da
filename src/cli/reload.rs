//! HUP: the command line is parsed again, with its file, and what has changed is taken on by what runs. It
//! knows neither flags nor what runs.

use std::{env, ffi::OsString, process::ExitCode};

use anyhow::anyhow;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use super::{
    Cli,
    command_line::{Parsed, Rejected, Values, parse},
    output, usage,
};

/// Takes the settings of a parsed command on; gives the names of those that cannot change.
type Apply<R> = Box<dyn Fn(&R, &ArgMatches) -> anyhow::Result<Vec<&'static str>> + Send>;

/// How a command that serves is to take other settings on.
pub(super) struct Reload<R> {
    is_possible: bool,
    /// What the flags were when they were last taken on.
    in_force: Values,
    /// Flags that can change, as far as `apply` does not say otherwise.
    live: &'static [&'static str],
    apply: Apply<R>,
}

/// Flags whose files are read or opened again, also without other settings.
const FILES: [&str; 2] = ["access-log", "tls-cert"];

/// Settings of the server whose flags have other names, or several.
const OTHER_NAMES: [(&str, &[&str]); 2] = [("bind", &["listen"]), ("tls", &["tls-cert", "tls-key"])];

impl<R> Reload<R> {
    /// `apply` puts new arguments into force, all of them or none where one is wrong, and gives the names of
    /// settings that stay as they are although they are `live`.
    pub(super) fn new<A: FromArgMatches>(
        in_force: Values,
        live: &'static [&'static str],
        apply: impl Fn(&R, A) -> anyhow::Result<Vec<&'static str>> + Send + 'static,
    ) -> Self {
        let is_possible = is_given(&in_force, "config") || FILES.iter().any(|flag| is_given(&in_force, flag));
        let apply = move |running: &R, matches: &ArgMatches| apply(running, A::from_arg_matches(matches)?);
        Self { is_possible, in_force, live, apply: Box::new(apply) }
    }

    /// Whether there is anything that may have changed, so that this is what HUP means.
    pub(super) fn is_possible(&self) -> bool {
        self.is_possible
    }

    /// Takes on what the flags and their file say now, and says in the log what came of it.
    pub(super) fn reload(&mut self, running: &R) {
        match self.try_reload(running, env::args_os().collect()) {
            Ok(Changes { made, kept }) => {
                let made = if made.is_empty() { "nothing".to_owned() } else { made.join(", ") };
                tracing::info!(changed = made, "settings reloaded");
                // Whether there is something else in them is not known.
                let files = self.opened(&kept).join(", ");
                if !files.is_empty() {
                    tracing::info!(files, "read or opened again");
                }
                if !kept.is_empty() {
                    let settings = kept.into_iter().map(|(_, change)| change).collect::<Vec<_>>().join(", ");
                    tracing::warn!(settings, "cannot change while running; they stay until a restart");
                }
            }
            Err(error) => tracing::error!(%error, "settings are wrong; nothing is changed"),
        }
    }

    /// The flags whose files were read or opened again.
    fn opened(&self, kept: &[(String, String)]) -> Vec<&'static str> {
        let was_kept = |flag: &str| kept.iter().any(|(other, _)| other == flag);
        FILES.into_iter().filter(|flag| is_given(&self.in_force, flag) && !was_kept(flag)).collect()
    }

    fn try_reload(&mut self, running: &R, args: Vec<OsString>) -> anyhow::Result<Changes> {
        let cli = Cli::command();
        let Parsed { matches, settings, values } = parse(&cli, args).map_err(|rejected| match rejected {
            Rejected::File(sentence) => anyhow!(sentence),
            Rejected::Clap(error, settings) => anyhow!(usage::sentence(&error, settings.as_ref())),
        })?;
        let (_, given) = matches.subcommand().ok_or_else(|| anyhow!("there is no command"))?;
        let kept = (self.apply)(running, given).map_err(|error| {
            usage::mistake(&error, settings.as_ref()).map_or(error, |sentence| anyhow!(sentence))
        })?;
        Ok(compare(&mut self.in_force, values, self.live, &flags(&kept)))
    }
}

/// Whether this flag has a value.
fn is_given(values: &Values, flag: &str) -> bool {
    values.get(flag).is_some_and(|values| !values.is_empty())
}

/// The flags of these settings, without their dashes.
fn flags(settings: &[&str]) -> Vec<String> {
    let others = OTHER_NAMES.iter().filter(|(setting, _)| settings.contains(setting));
    let others = others.flat_map(|(_, flags)| *flags).map(|&flag| flag.to_owned());
    settings.iter().map(|setting| setting.replace('_', "-")).chain(others).collect()
}

/// What a reload has changed, and what it could not change, in words.
#[derive(Debug, PartialEq, Eq)]
struct Changes {
    made: Vec<String>,
    /// With the flag.
    kept: Vec<(String, String)>,
}

/// Compares what is asked for with what is in force, of which some was kept, and notes what is so now.
fn compare(in_force: &mut Values, asked: Values, live: &[&str], kept: &[String]) -> Changes {
    let mut changes = Changes { made: Vec::new(), kept: Vec::new() };
    for (flag, values) in asked {
        let before = in_force.entry(flag.clone()).or_default();
        if *before == values {
            continue;
        }
        let change = format!("{flag} from {} to {}", words(before), words(&values));
        if kept.contains(&flag) || !live.contains(&&*flag) {
            changes.kept.push((flag, change));
        } else {
            changes.made.push(change);
            *before = values;
        }
    }
    changes
}

/// What a flag was given.
fn words(values: &[String]) -> String {
    match values {
        [] => "the default".to_owned(),
        [value] => word(value),
        values => format!("[{}]", values.iter().map(|value| word(value)).collect::<Vec<_>>().join(", ")),
    }
}

/// A value as it is, or in quotes where that could not be told from what is around it.
fn word(value: &str) -> String {
    let is_plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic() && c != '"');
    if is_plain { value.to_owned() } else { format!("{value:?}") }
}

/// Says that what would be started is right, where that is so; else it is what was asked for that is wrong.
pub(super) fn check(check: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    check().map_err(|error| match usage::mistake(&error, None) {
        // It is said as it would be at the start.
        Some(_) => error,
        None => usage::Wrong(format!("{error:#}")).into(),
    })?;
    output::print("configuration is right\n");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &[(&str, &[&str])]) -> Values {
        let owned = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
        text.iter().map(|&(flag, values)| (flag.to_owned(), owned(values))).collect()
    }

    #[test]
    fn what_has_changed_and_what_has_not_is_said() {
        let mut in_force = values(&[("patience", &["500ms"]), ("queue", &[]), ("app", &["echo"])]);
        let asked = values(&[("patience", &["1s"]), ("queue", &["9"]), ("app", &["http"])]);
        let live = ["patience", "queue"];
        let first = compare(&mut in_force, asked.clone(), &live, &["queue".to_owned()]);
        let made = vec!["patience from 500ms to 1s".to_owned()];
        let queue = "queue from the default to 9".to_owned();
        let kept = vec![("app".to_owned(), "app from echo to http".to_owned()), ("queue".to_owned(), queue)];
        assert_eq!(first, Changes { made, kept: kept.clone() });
        // What was kept is said as long as it is asked for.
        let second = compare(&mut in_force, asked, &live, &["queue".to_owned()]);
        assert_eq!(second, Changes { made: vec![], kept });
        let back = values(&[("patience", &["1s"]), ("queue", &[]), ("app", &["echo"])]);
        assert_eq!(compare(&mut in_force, back, &live, &[]), Changes { made: vec![], kept: vec![] });
        let lists = values(&[("queue", &["1", "two words"])]);
        let third = compare(&mut in_force, lists, &live, &[]);
        assert_eq!(flags(&["on_full", "bind"]), ["on-full", "bind", "listen"]);
        assert_eq!(third.made, ["queue from the default to [1, \"two words\"]"]);
    }
}
