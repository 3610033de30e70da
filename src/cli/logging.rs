//! What is logged, how, and where to: standard error, for people or for machines. It does not know what is
//! said.

use std::{io, panic, thread};

use clap::{ArgAction, ValueEnum};
use tracing::level_filters::LevelFilter;

use super::{groups, output};

/// What a command that serves says, and how.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = groups::LOGS)]
pub(super) struct LogArgs {
    /// Log more, on standard error; twice for everything
    #[arg(short, long, action = ArgAction::Count, hide_short_help = true)]
    verbose: u8,
    /// Log errors alone
    #[arg(short, long, conflicts_with = "verbose", hide_short_help = true)]
    quiet: bool,
    /// How to log
    ///
    /// Lines for people, or an object of JSON on each line.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text, hide_short_help = true)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl LogArgs {
    fn level(&self) -> LevelFilter {
        match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::ERROR,
            (false, 0) => LevelFilter::INFO,
            (false, 1) => LevelFilter::DEBUG,
            (false, _) => LevelFilter::TRACE,
        }
    }
}

/// Logs from now on, panics included.
pub(super) fn start(args: &LogArgs) {
    let log =
        tracing_subscriber::fmt().with_writer(|| output::Log).with_target(false).with_max_level(args.level());
    match args.log_format {
        LogFormat::Text => log.with_ansi(output::may_be_coloured(&io::stderr())).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    // The usual report goes to standard error at once, whether somebody reads it or not.
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        tracing::error!(thread = thread.name(), "{panic}");
    }));
}
