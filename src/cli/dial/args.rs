//! The flags of `overfall dial`, and the settings that they stand for. It knows no outcome.

use std::{ffi::OsString, str::FromStr, time::Duration};

use overfall::dial::{Config, Retry};

use crate::cli::values;

/// Dial many servers at once, wait for all of them, and say how each fared.
///
/// Status: 0 as many succeeded as required, 1 they did not, 2 wrong usage, 124 they did not within
/// --retry-for.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct Args {
    /// What to dial, each HOST:PORT
    #[arg(value_name = "TARGET", value_parser = values::target)]
    pub(super) targets: Vec<String>,
    /// For one attempt at one target, with all its steps
    #[arg(long, value_name = "D", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Dials under way at once
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = values::whole::<usize>)]
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
    pub(super) json: bool,
    /// Print nothing: the status alone
    #[arg(short, long, conflicts_with = "json")]
    pub(super) quiet: bool,
    /// Read targets from this file too, one a line, with # comments; - is standard input
    #[arg(long, value_name = "F")]
    pub(super) file: Option<String>,
    /// Run this once the requirement is met; its status becomes ours
    #[arg(last = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
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
            timeout: self.timeout,
            concurrency: self.concurrency,
            require: match self.require {
                Require::All => None,
                Require::Number(number) => Some(number),
            },
            retry: self.retry_for.map(|give_up_after| Retry { give_up_after, interval: self.interval }),
            send: self.send.clone(),
            expect: self.expect.clone(),
            connect_only: self.connect_only,
        }
    }
}
