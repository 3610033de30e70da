//! The flags of `overfall dial`, and the settings that they stand for. It knows no outcome.

use std::{ffi::OsString, str::FromStr, time::Duration};

use overfall::dial::{Config, Retry};

use crate::cli::{groups, help, values};

const EXAMPLES: [(&str, &str); 2] = [
    ("See whether two servers answer, and how soon", "overfall dial localhost:8888 127.0.0.1:8889"),
    (
        "Run a command as soon as a server takes connections",
        "overfall dial -q --connect-only --retry-for 30s localhost:8888 -- echo go",
    ),
];

/// Dial many servers at once, wait for all, and say how each fared.
///
/// Status: 0 as many succeeded as required, 1 they did not, 2 wrong usage, 124 they did not within
/// --retry-for.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true, after_long_help = help::examples(&EXAMPLES))]
// Targets, which have no flag, come first.
#[command(next_help_heading = groups::TARGETS, next_display_order = 1)]
pub(crate) struct Args {
    /// What to dial, each HOST:PORT
    #[arg(value_name = "TARGET", value_parser = values::target, display_order = 0)]
    pub(super) targets: Vec<String>,
    /// Read targets from this file too
    ///
    /// One a line, with # comments; - is standard input.
    #[arg(long, value_name = "F")]
    pub(super) file: Option<String>,
    /// How many must succeed
    ///
    /// all, any, or a number; with any or a number, the dial ends as soon as that is decided.
    #[arg(long, value_name = "all|any|N", default_value = "all")]
    require: Require,
    /// Run this once the requirement is met
    ///
    /// Its status becomes ours.
    #[arg(last = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
    /// Dials under way at once
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = values::whole::<usize>)]
    #[arg(hide_short_help = true)]
    concurrency: usize,
    #[command(flatten)]
    exchange: ExchangeArgs,
    #[command(flatten)]
    timeouts: TimeoutArgs,
    /// Print one JSON document instead of the table
    #[arg(long, help_heading = groups::OUTPUT)]
    pub(super) json: bool,
    /// Print nothing: the status alone
    #[arg(short, long, conflicts_with = "json", help_heading = groups::OUTPUT)]
    pub(super) quiet: bool,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = groups::EXCHANGE)]
struct ExchangeArgs {
    /// What to send
    ///
    /// Escapes such as \r\n are understood.
    #[arg(long, value_name = "TEXT", default_value = "Hello, server!", value_parser = values::text)]
    send: std::vec::Vec<u8>,
    /// What the reply must begin with [default: anything]
    ///
    /// With escapes. By default any reply will do.
    #[arg(long, value_name = "TEXT", value_parser = values::text)]
    expect: Option<std::vec::Vec<u8>>,
    /// A connection is a success: send and expect nothing
    #[arg(long, conflicts_with_all = ["send", "expect"])]
    connect_only: bool,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = groups::TIMEOUTS)]
struct TimeoutArgs {
    /// For one attempt at one target
    ///
    /// With all its steps.
    #[arg(long, value_name = "D", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Keep trying failed targets this long [default: no retry]
    #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
    retry_for: Option<Duration>,
    /// The first pause before trying again
    ///
    /// It doubles up to 5s, with jitter.
    #[arg(long, value_name = "D", default_value = "200ms", requires = "retry_for")]
    #[arg(value_parser = humantime::parse_duration, hide_short_help = true)]
    interval: Duration,
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

impl Args {
    /// How to dial.
    pub(super) fn config(&self) -> Config {
        Config {
            preface: Vec::new(),
            timeout: self.timeouts.timeout,
            concurrency: self.concurrency,
            require: match self.require {
                Require::All => None,
                Require::Number(number) => Some(number),
            },
            retry: self
                .timeouts
                .retry_for
                .map(|give_up_after| Retry { give_up_after, interval: self.timeouts.interval }),
            send: self.exchange.send.clone(),
            expect: self.exchange.expect.clone(),
            connect_only: self.exchange.connect_only,
        }
    }
}
