//! A file of settings, as the flags that it stands for, and the place at which each is set. It knows no flag
//! by its name, and not what they mean.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, ArgMatches, Command, Id, error::ErrorKind, parser::ValueSource};
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{groups, mistakes};

/// What the command line says, with the file that it names.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = groups::SETTINGS)]
pub(super) struct ConfigArgs {
    /// Take settings from this file, in TOML
    ///
    /// Keys are the long flags without their dashes, such as workers = 4, patience = "200ms" or
    /// listen = ["127.0.0.1:8000"], and upstreams to balance. Flags win. HUP reads it again.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    config: Option<PathBuf>,
    /// Check the flags and the file, and start nothing
    ///
    /// It says what is wrong.
    #[arg(long, hide_short_help = true)]
    pub(super) check_config: bool,
}

/// What stands on the command line alone.
const NOT_IN_A_FILE: [&str; 4] = ["config", "check-config", "help", "version"];
/// More is no file of settings.
const MOST_BYTES: u64 = 1024 * 1024;

/// The settings of a file.
#[derive(Debug)]
pub(super) struct Settings {
    file: String,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    id: Id,
    key: String,
    line: usize,
    is_positional: bool,
    /// What stands for it on a command line.
    arguments: Vec<String>,
}

/// Adds the settings of the file that this command line names, if it names one. What is wrong with the rest
/// is said when the whole is parsed.
pub(super) fn complete(
    cli: &Command,
    args: Vec<OsString>,
) -> Result<(Vec<OsString>, Option<Settings>), String> {
    let Ok(matches) = cli.clone().ignore_errors(true).try_get_matches_from(&args) else {
        return Ok((args, None));
    };
    let named = matches.subcommand().and_then(|(name, given)| {
        let path = given.try_get_one::<PathBuf>("config").ok().flatten()?;
        Some((cli.find_subcommand(name)?, given, path))
    });
    let Some((command, given, path)) = named else { return Ok((args, None)) };
    let mut settings = Settings::read(path, command)?;
    settings.entries.retain(|entry| !is_outranked(entry, command, given));
    Ok((settings.insert(args, command.get_name()), Some(settings)))
}

/// Whether the command line says otherwise.
fn is_outranked(entry: &Entry, command: &Command, given: &ArgMatches) -> bool {
    let is_given = |arg: &&Arg| {
        given.value_source(arg.get_id().as_str()).is_some_and(|source| source != ValueSource::DefaultValue)
    };
    let excludes = |arg: &Arg, other: &Id| {
        command.get_arg_conflicts_with(arg).iter().any(|conflict| conflict.get_id() == other)
    };
    let own = command.get_arguments().find(|arg| *arg.get_id() == entry.id);
    command.get_arguments().filter(is_given).any(|arg| {
        *arg.get_id() == entry.id
            || excludes(arg, &entry.id)
            || own.is_some_and(|own| excludes(own, arg.get_id()))
    })
}

impl Settings {
    fn read(path: &Path, command: &Command) -> Result<Self, String> {
        let file = path.display().to_string();
        let text = read(path).map_err(|error| format!("the file {file} cannot be read: {error}"))?;
        Self::parse(file, &text, command)
    }

    fn parse(file: String, text: &str, command: &Command) -> Result<Self, String> {
        let line = |at: usize| 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count();
        let table = DeTable::parse(text).map_err(|error| {
            let what = error.message().lines().collect::<Vec<_>>().join("; ");
            let at = error.span().map_or(String::new(), |span| format!(", line {}", line(span.start)));
            format!("{file}{at}: {what}; it is to be TOML, such as patience = \"200ms\"")
        })?;
        let mut keys: Vec<_> = table.get_ref().iter().collect();
        keys.sort_by_key(|(key, _)| key.span().start);
        let command = command.clone().no_binary_name(true);
        let entry = |(key, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
            let line = line(key.span().start);
            let entry = Entry::new(key.get_ref(), value.get_ref(), line, &command);
            entry.map_err(|sentence| format!("{file}, line {line}: {sentence}"))
        };
        let entries = keys.into_iter().map(entry).collect::<Result<_, _>>()?;
        Ok(Self { file, entries })
    }

    /// The command line with them: before what it says itself, and what has no flag at the end.
    fn insert(&self, mut args: Vec<OsString>, command: &str) -> Vec<OsString> {
        let begin = args.iter().position(|arg| arg == command).map_or(args.len(), |at| at + 1);
        let arguments = |positional: bool| {
            let entries = self.entries.iter().filter(move |entry| entry.is_positional == positional);
            entries.flat_map(|entry| &entry.arguments).map(OsString::from)
        };
        let mut rest = args.split_off(begin);
        args.extend(arguments(false));
        let is_escaped = rest.iter().any(|arg| arg == "--");
        args.append(&mut rest);
        if !is_escaped && arguments(true).next().is_some() {
            args.push("--".into());
        }
        args.extend(arguments(true));
        args
    }

    /// A sentence that names a flag, with the place in the file where that is set, if it is. `flag` is the
    /// one that it is about, where that is known.
    pub(super) fn locate(&self, sentence: &str, flag: Option<&str>) -> String {
        let about = |entry: &&Entry| flag == Some(&*entry.key);
        let named = || {
            let found =
                self.entries.iter().filter_map(|entry| Some((find_flag(sentence, &entry.key)?, entry)));
            found.min_by_key(|(at, _)| *at).map(|(_, entry)| entry)
        };
        let Some(entry) = self.entries.iter().find(about).or_else(named) else { return sentence.to_owned() };
        let flag = format!("--{}", entry.key);
        format!("{}, line {}: {}", self.file, entry.line, sentence.replacen(&flag, &entry.key, 1))
    }
}

/// Where a sentence names this flag, and not one whose name begins with it.
fn find_flag(sentence: &str, key: &str) -> Option<usize> {
    let flag = format!("--{key}");
    let goes_on = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut found = sentence.match_indices(&flag).map(|(at, _)| at);
    found.find(|at| !sentence[at + flag.len()..].starts_with(goes_on))
}

fn read(path: &Path) -> io::Result<String> {
    let wrong = |what: &str| Err(io::Error::other(what.to_owned()));
    // To wait for what a pipe may bring would keep a server from what else it is told.
    if !path.metadata()?.is_file() {
        return wrong("it is no regular file");
    }
    let mut text = String::new();
    File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_BYTES { wrong("it has more than 1 MiB") } else { Ok(text) }
}

impl Entry {
    fn new(key: &str, value: &DeValue<'_>, line: usize, command: &Command) -> Result<Self, String> {
        if NOT_IN_A_FILE.contains(&key) {
            return Err(format!("{key} has its place on the command line, not in a file"));
        }
        let arg = command.get_arguments().find(|arg| name(arg) == key);
        let Some(arg) = arg else { return Err(unknown(key, value, command)) };
        let arguments = arguments(key, value, arg)?;
        let is_positional = arg.is_positional();
        let alone = is_positional.then_some("--").into_iter().chain(arguments.iter().map(String::as_str));
        match command.clone().try_get_matches_from(alone) {
            // What else must be there is another's concern.
            Err(error) if error.kind() != ErrorKind::MissingRequiredArgument => {
                Err(mistakes::sentence_in_a_file(&error, key))
            }
            _ => Ok(Self { id: arg.get_id().clone(), key: key.to_owned(), line, is_positional, arguments }),
        }
    }
}

/// The key that stands for it.
pub(super) fn name(arg: &Arg) -> String {
    arg.get_long().map_or_else(|| arg.get_id().as_str().replace('_', "-"), str::to_owned)
}

fn unknown(key: &str, value: &DeValue<'_>, command: &Command) -> String {
    if let DeValue::Table(_) = value {
        return format!("{key} is a table; all settings stand at the top of the file, without tables");
    }
    let bare = key.trim_start_matches('-');
    if bare != key && command.get_arguments().any(|arg| name(arg) == bare) {
        return format!("{key} is no setting; it has no dashes in a file: {bare}");
    }
    let error = command.clone().try_get_matches_from([format!("--{bare}")]).err();
    match error.as_ref().and_then(mistakes::suggestion) {
        Some(flag) => format!("{key} is no setting; perhaps {flag} is meant"),
        None => format!("{key} is no setting; the flags of overfall {} are", command.get_name()),
    }
}

/// What stands on a command line for this value.
fn arguments(key: &str, value: &DeValue<'_>, arg: &Arg) -> Result<Vec<String>, String> {
    let wrong = |right: &str| Err(format!("{key} is {}; {right}", kind(value)));
    let flag = |value: String| if arg.is_positional() { value } else { format!("--{key}={value}") };
    let times = |count: u8| (0..count).map(|_| format!("--{key}")).collect();
    match (arg.get_action(), value) {
        (ArgAction::SetTrue | ArgAction::Count, DeValue::Boolean(set)) => Ok(times(u8::from(*set))),
        (ArgAction::SetTrue, _) => wrong("it may be true or false"),
        (ArgAction::Count, value) => match scalar(value).and_then(|text| text.parse().ok()) {
            Some(count) => Ok(times(count)),
            None => wrong("it may be 0, 1 or 2"),
        },
        (ArgAction::Append, DeValue::Array(values)) => {
            let argument = |value: &Spanned<DeValue<'_>>| match scalar(value.get_ref()) {
                Some(text) => Ok(flag(text)),
                None => Err(format!("{key} has {} in its list; give texts", kind(value.get_ref()))),
            };
            values.iter().map(argument).collect()
        }
        (action, value) => match (scalar(value), action) {
            (Some(text), _) => Ok(vec![flag(text)]),
            (None, ArgAction::Append) => wrong("give a list of texts"),
            (None, _) => wrong("give a text or a number"),
        },
    }
}

/// A text or a number as it stands on a command line.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => {
            i128::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{super::Cli, *};

    /// The arguments that a command line becomes with a file that has this text.
    fn complete(args: &[&str], text: &str) -> Result<Vec<String>, String> {
        let file = tempfile(text);
        let args =
            ["overfall"].iter().chain(args).chain(&["--config", &file.0]).map(OsString::from).collect();
        let completed = super::complete(&Cli::command(), args);
        let (args, settings) = completed.map_err(|sentence| sentence.replace(&file.0, "FILE"))?;
        assert!(settings.is_some());
        let known = |arg: &String| arg != "overfall" && arg != "--config" && *arg != file.0;
        Ok(args.into_iter().map(|arg| arg.into_string().expect("text")).filter(known).collect())
    }

    /// A file that is gone when this is.
    struct Temporary(String);

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn tempfile(text: &str) -> Temporary {
        use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("overfall-{}-{}.toml", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("it is written");
        Temporary(path.display().to_string())
    }

    #[test]
    fn a_file_becomes_flags() {
        let cases: &[(&[&str], &str, &[&str])] = &[
            (&["serve"], "", &["serve"]),
            (&["serve"], "workers = 4 # as many as CPUs", &["serve", "--workers=4"]),
            // In their order, whatever the kind of value.
            (
                &["serve"],
                "queue = 0x1_0\npatience = \"200ms\"\nrefusal-budget = 0.03",
                &["serve", "--queue=16", "--patience=200ms", "--refusal-budget=0.03"],
            ),
            (
                &["serve"],
                "listen = [\"127.0.0.1:1\", \":2\"]",
                &["serve", "--listen=127.0.0.1:1", "--listen=:2"],
            ),
            (&["serve"], "listen = \":2\"", &["serve", "--listen=:2"]),
            (&["serve"], "quiet = true", &["serve", "--quiet"]),
            (&["serve"], "quiet = false", &["serve"]),
            (&["serve"], "verbose = 2", &["serve", "--verbose", "--verbose"]),
            (&["serve"], "busy-reply = '-x\\r\\n'", &["serve", "--busy-reply=-x\\r\\n"]),
            // What the command line says wins, and lists are not added to.
            (
                &["serve", "--workers", "2"],
                "workers = 4\nqueue = 5",
                &["serve", "--queue=5", "--workers", "2"],
            ),
            (&["serve", "--listen", ":1"], "listen = [\":2\", \":3\"]", &["serve", "--listen", ":1"]),
            (&["serve", "-v"], "verbose = 2", &["serve", "-v"]),
            // Also over what does not go together with it, in either direction.
            (&["serve", "-q"], "verbose = 2", &["serve", "-q"]),
            (&["serve", "-v"], "quiet = true", &["serve", "-v"]),
            (
                &["balance", "--check-path", "/"],
                "check-send = \"a\"\nrise = 1",
                &["balance", "--rise=1", "--check-path", "/"],
            ),
            (
                &["balance", "-q"],
                "upstreams = [\"a:1\", \"b:2=3\"]\nrise = 1",
                &["balance", "--rise=1", "-q", "--", "a:1", "b:2=3"],
            ),
            (&["balance", "c:3"], "upstreams = [\"a:1\"]", &["balance", "c:3"]),
        ];
        for (args, text, expected) in cases {
            assert_eq!(complete(args, text).expect("it is right"), *expected, "{args:?} {text}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_file_is_said_with_its_place() {
        let cases = [
            ("workers = ", "FILE, line 1: string values must be quoted"),
            ("\nworkers = 1\nworkers = 2", "FILE, line 3: duplicate key; it is to be TOML, such as patience"),
            ("wrokers = 1", "FILE, line 1: wrokers is no setting; perhaps workers is meant"),
            (
                "idle_timeout = '1s'",
                "FILE, line 1: idle_timeout is no setting; perhaps idle-timeout is meant",
            ),
            ("'--queue' = 1", "FILE, line 1: --queue is no setting; it has no dashes in a file: queue"),
            ("zzz = 1", "FILE, line 1: zzz is no setting; the flags of overfall serve are"),
            ("upstreams = ['a:1']", "FILE, line 1: upstreams is no setting"),
            ("[serve]", "FILE, line 1: serve is a table; all settings stand at the top"),
            ("\nconfig = 'x'", "FILE, line 2: config has its place on the command line, not in a file"),
            ("check-config = true", "check-config has its place on the command line"),
            ("help = true", "help has its place on the command line"),
            ("version = true", "version has its place on the command line"),
            (
                "queue = 'many'",
                "FILE, line 1: invalid value 'many' for 'queue': give a whole number, such as 4",
            ),
            ("queue = -1", "invalid value '-1' for 'queue'"),
            ("patience = 200", "invalid value '200' for 'patience': time unit needed, for example 200sec"),
            ("app = 'telnet'", "'telnet' for 'app' [possible values: hello, echo, http]"),
            ("listen = [':1', 'nowhere']", "'nowhere' for 'listen': \"nowhere\" has no port; give HOST:PORT"),
            ("workers = true", "workers is a boolean; give a text or a number"),
            ("workers = [1, 2]", "workers is a list; give a text or a number"),
            ("workers = 2020-01-01", "workers is a date; give a text or a number"),
            ("workers = { a = 1 }", "workers is a table; give a text or a number"),
            ("listen = false", "listen is a boolean; give a list of texts"),
            ("listen = [true]", "listen has a boolean in its list; give texts"),
            ("quiet = 'yes'", "quiet is a text; it may be true or false"),
            ("verbose = 1000", "verbose is a number; it may be 0, 1 or 2"),
        ];
        for (text, expected) in cases {
            let sentence = complete(&["serve"], text).unwrap_err();
            assert!(sentence.contains(expected), "{text}: {sentence}");
            assert!(!sentence.contains('\n'), "{text}: {sentence}");
        }
    }

    #[test]
    fn what_needs_something_else_may_be_in_a_file() {
        let command = || {
            let flag = |name: &'static str| Arg::new(name).long(name).num_args(1);
            let config = Arg::new("config").long("config").value_parser(clap::value_parser!(PathBuf));
            let pair = [flag("cert").requires("key"), flag("key").requires("cert")];
            Command::new("overfall").subcommand(Command::new("serve").args(pair).arg(config))
        };
        let file = tempfile("cert = 'c'");
        let args = ["overfall", "serve", "--key", "k", "--config", &file.0].map(OsString::from).to_vec();
        let (args, _) = super::complete(&command(), args).expect("it is right");
        assert!(args.contains(&"--cert=c".into()), "{args:?}");
        assert!(command().try_get_matches_from(args).is_ok());
    }

    #[test]
    fn the_place_of_a_flag_is_known() {
        let text = "queue = 1\n\npatience = \"1s\"\nmax-connections = 2";
        let cli = Cli::command();
        let serve = cli.find_subcommand("serve").expect("it is one");
        let settings = Settings::parse("f".to_owned(), text, serve).expect("it is right");
        for (sentence, flag, expected) in [
            ("--queue is 1", Some("queue"), "f, line 1: queue is 1"),
            ("--queue and --patience", None, "f, line 1: queue and --patience"),
            ("--patience and --queue", None, "f, line 3: patience and --queue"),
            ("'--patience <D>' it is", None, "f, line 3: 'patience <D>' it is"),
            ("--workers is 1", Some("workers"), "--workers is 1"),
            // A flag whose name begins with one of the file.
            ("--max-connections-per-upstream", None, "--max-connections-per-upstream"),
        ] {
            assert_eq!(settings.locate(sentence, flag), expected);
        }
    }
}
