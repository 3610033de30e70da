use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{self, IsTerminal, Read},
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::Context;
use comfy_table::{Cell, CellAlignment, Color, Table, presets::NOTHING};
use indicatif::ProgressBar;
use overfall::dial::{Cancel, Config, Outcome, Retry, dial_with};
use serde_json::{Value, json};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
    iterator::Signals,
};

use super::{output, signals::is_ignored, usage, values};

/// Dial many servers at once, wait for all of them, and say how each fared.
///
/// Status: 0 as many succeeded as required, 1 they did not, 2 wrong usage, 124 they did not within
/// --retry-for.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct Args {
    /// What to dial, each HOST:PORT
    #[arg(value_name = "TARGET", value_parser = values::target)]
    targets: Vec<String>,
    /// For one attempt at one target, with all its steps
    #[arg(long, value_name = "D", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Dials under way at once
    #[arg(long, value_name = "N", default_value_t = 256)]
    concurrency: usize,
    /// How many must succeed: all, any, or a number; with any or a number, the dial ends as soon
    /// as that is decided
    #[arg(long, value_name = "all|any|N", default_value = "all")]
    require: Require,
    /// Keep trying failed targets for this long [default: no retry]
    #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
    retry_for: Option<Duration>,
    /// The first pause before trying again; it doubles up to 5s, with jitter
    #[arg(long, value_name = "D", default_value = "200ms", requires = "retry_for", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// What to send; escapes such as \r\n are understood
    #[arg(long, value_name = "TEXT", default_value = "Hello, server!", value_parser = values::text)]
    send: std::vec::Vec<u8>,
    /// What the reply must begin with, with escapes [default: any reply will do]
    #[arg(long, value_name = "TEXT", value_parser = values::text)]
    expect: Option<std::vec::Vec<u8>>,
    /// A connection is a success: send and expect nothing
    #[arg(long, conflicts_with_all = ["send", "expect"])]
    connect_only: bool,
    /// Print one JSON document instead of the table
    #[arg(long)]
    json: bool,
    /// Print nothing: the status alone
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
    /// Read targets from this file too, one a line, with # comments; - is standard input
    #[arg(long, value_name = "F")]
    file: Option<String>,
    /// Run this once the requirement is met; its status becomes ours
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy)]
enum Require {
    All,
    Number(usize),
}

impl FromStr for Require {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "any" => Ok(Self::Number(1)),
            _ => text.parse().map(Self::Number).map_err(|_| "give all, any or a number".into()),
        }
    }
}

/// The requirement was not met in the time given, as timeout(1) says it.
const RAN_OUT: u8 = 124;
/// How long a wait may be before it is shown.
const PROGRESS_AFTER: Duration = Duration::from_millis(500);

/// Dials and says how it went.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut targets = args.targets.clone();
    if let Some(file) = &args.file {
        match read_targets(file) {
            Ok(read) => targets.extend(read),
            Err(sentence) => return Ok(usage::wrong(&sentence)),
        }
    }
    if targets.is_empty() {
        return Ok(usage::wrong("there is no target; give HOST:PORT, once or several times, or --file F"));
    }
    let config = Config {
        timeout: args.timeout,
        concurrency: args.concurrency,
        require: match args.require {
            Require::All => None,
            Require::Number(number) => Some(number),
        },
        retry: args.retry_for.map(|give_up_after| Retry { give_up_after, interval: args.interval }),
        send: args.send.clone(),
        expect: args.expect.clone(),
        connect_only: args.connect_only,
    };
    crate::limits::raise();
    let cancel = Cancel::new()?;
    let caught = cancel_on_signals(&cancel)?;
    let outcomes = dial_and_show(&targets, &config, &cancel, args.quiet)?;
    if let Ok(signal @ 1..) = u8::try_from(caught.load(SeqCst)) {
        // As a shell says it.
        return Ok(ExitCode::from(128 + signal));
    }
    if args.json {
        output::print(format_args!("{:#}\n", document(&outcomes)));
    } else if !args.quiet {
        output::print(format_args!("{}\n", table(&outcomes).trim_fmt()));
        explain(&outcomes);
    }
    let succeeded = outcomes.iter().filter(|outcome| outcome.failure.is_none()).count();
    if succeeded < config.require.unwrap_or(targets.len()) {
        return Ok(ExitCode::from(if config.retry.is_some() { RAN_OUT } else { 1 }));
    }
    match args.command.split_first() {
        None => Ok(ExitCode::SUCCESS),
        Some((program, arguments)) => {
            // It takes this process's place, so that its status and its signals are its own.
            let error = crate::limits::with_found(|| Command::new(program).args(arguments).exec());
            output::complain(&format!("error: cannot run {}: {error}", program.display()));
            // As a shell says it.
            Ok(ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }))
        }
    }
}

/// Ends the dialing at the first signal that is to end it, of which the number is noted, and the process
/// at the second. As the first process of a container it would else ignore them.
fn cancel_on_signals(cancel: &Cancel) -> anyhow::Result<Arc<AtomicI32>> {
    let cannot = "cannot catch signals";
    let (caught, again) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicBool::new(false)));
    let ending: Vec<_> =
        [SIGTERM, SIGINT, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal)).collect();
    for &signal in &ending {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again)).context(cannot)?;
    }
    let mut signals = Signals::new(ending).context(cannot)?;
    let (cancel, noted) = (cancel.clone(), Arc::clone(&caught));
    let heed = move || {
        for signal in signals.forever() {
            noted.store(signal, SeqCst);
            again.store(true, SeqCst);
            cancel.cancel();
        }
    };
    thread::Builder::new().name("signals".into()).spawn(heed).context(cannot)?;
    Ok(caught)
}

/// The targets in a file, or the sentence that says what is wrong with it.
fn read_targets(file: &str) -> Result<Vec<String>, String> {
    let mut bytes = Vec::new();
    let read = match file {
        "-" => io::stdin().read_to_end(&mut bytes),
        file => fs::File::open(file).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    read.map_err(|error| format!("cannot read --file {file}: {error}"))?;
    let text = decode(&bytes)
        .ok_or_else(|| format!("--file {file} is no text; give one target a line, in UTF-8 or UTF-16"))?;
    let lines = text.lines().enumerate().filter_map(|(index, line)| {
        let target = line.split('#').next().unwrap_or_default().trim();
        let checked =
            || values::target(target).map_err(|wrong| format!("{file}, line {}: {wrong}", index + 1));
        (!target.is_empty()).then(checked)
    });
    lines.collect()
}

/// Text as editors of all systems write it: with a byte order mark or without, lines that end in LF, CRLF
/// or CR, which comes out as LF.
fn decode(bytes: &[u8]) -> Option<String> {
    let utf_16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        String::from_utf16(&units.collect::<Vec<_>>()).ok().filter(|_| bytes.len().is_multiple_of(2))
    };
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf_16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf_16(rest, u16::from_be_bytes)?,
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => String::from_utf8(rest.to_vec()).ok()?,
    };
    Some(text.replace("\r\n", "\n").replace('\r', "\n"))
}

/// Dials; on a terminal, a longer wait shows which targets are still open.
fn dial_and_show(
    targets: &[String],
    config: &Config,
    cancel: &Cancel,
    quiet: bool,
) -> overfall::Result<Vec<Outcome>> {
    let (settled, news) = mpsc::channel();
    thread::scope(|scope| {
        if io::stderr().is_terminal() && !quiet {
            scope.spawn(|| show_open(targets, news));
        }
        let settled = move |index, _: &Outcome| {
            // Nobody listens where there is no terminal.
            let _ = settled.send(index);
        };
        dial_with(targets, config, cancel, &settled)
    })
}

fn show_open(targets: &[String], news: mpsc::Receiver<usize>) {
    let mut open: BTreeMap<usize, &String> = targets.iter().enumerate().collect();
    let begun = std::time::Instant::now();
    let mut bar: Option<ProgressBar> = None;
    loop {
        let patience = PROGRESS_AFTER.saturating_sub(begun.elapsed());
        match news.recv_timeout(if bar.is_some() { Duration::from_millis(100) } else { patience }) {
            Ok(index) => drop(open.remove(&index)),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bar.get_or_insert_with(ProgressBar::new_spinner).set_message(still_open(&open));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
        if let Some(bar) = &bar {
            bar.tick();
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

fn still_open(open: &BTreeMap<usize, &String>) -> String {
    const NAMED: usize = 3;
    let named: Vec<_> = open.values().take(NAMED).map(|target| target.as_str()).collect();
    let more = open.len().saturating_sub(NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("waiting for {}{rest}", named.join(", "))
}

fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if no_colour || !io::stdout().is_terminal() {
        table.force_no_tty();
    }
    table.set_header(["target", "address", "state", "connect", "first byte", "total", "attempts", "error"]);
    for outcome in outcomes {
        let (state, colour, class) = match &outcome.failure {
            None => ("ok", Color::Green, ""),
            Some(failure) => ("failed", Color::Red, failure.class.name()),
        };
        let address = outcome.address.map_or_else(|| "-".into(), |address| address.to_string());
        table.add_row([
            Cell::new(&outcome.target),
            Cell::new(address),
            Cell::new(state).fg(colour),
            number(outcome.connect.map_or_else(|| "-".into(), milliseconds)),
            number(outcome.first_byte.map_or_else(|| "-".into(), milliseconds)),
            number(milliseconds(outcome.total)),
            number(outcome.attempts.to_string()),
            Cell::new(class),
        ]);
    }
    table
}

fn number(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// A sentence for each failure, on standard error.
fn explain(outcomes: &[Outcome]) {
    for outcome in outcomes {
        if let Some(failure) = &outcome.failure {
            output::complain(&format!("{}: {}", outcome.target, failure.message));
        }
    }
}

fn document(outcomes: &[Outcome]) -> Value {
    let us = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    let target = |outcome: &Outcome| {
        json!({
            "target": outcome.target,
            "address": outcome.address.map(|address| address.to_string()),
            "ok": outcome.failure.is_none(),
            "resolve_us": us(outcome.resolve),
            "connect_us": us(outcome.connect),
            "first_byte_us": us(outcome.first_byte),
            "total_us": us(Some(outcome.total)),
            "attempts": outcome.attempts,
            "received_bytes": outcome.received,
            "reply": String::from_utf8_lossy(&outcome.reply),
            "error": outcome.failure.as_ref().map(|failure| json!({
                "class": failure.class.name(),
                "message": failure.message,
            })),
        })
    };
    json!({ "version": 1, "targets": outcomes.iter().map(target).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_editors_of_all_systems_write_them() {
        let utf_16 = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "\u{feff}a:1\r\nb:2".encode_utf16().flat_map(unit).collect()
        };
        for bytes in [
            b"a:1\nb:2".to_vec(),
            b"a:1\r\nb:2".to_vec(),
            b"a:1\rb:2".to_vec(),
            b"\xef\xbb\xbfa:1\nb:2".to_vec(),
            utf_16(u16::to_le_bytes),
            utf_16(u16::to_be_bytes),
        ] {
            assert_eq!(decode(&bytes).as_deref(), Some("a:1\nb:2"), "{bytes:?}");
        }
        assert_eq!(decode(b"\xff"), None);
        assert_eq!(decode(b"\xff\xfea"), None);
    }
}
