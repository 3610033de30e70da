//! The flags of `overfall bench`, each with what it may be. It does not know what they amount to together.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::bench::{
    arm::Arm,
    client::GiveUp,
    exchange::Protocol,
    pacer::Arrivals,
    plan::{Pin, Scenario},
};

/// Compare the pool with a thread for every connection, and with any other server.
///
/// Status: 0, 1 when an arm failed, 2 wrong usage, 99 when --require-goodput was not met, 130 when
/// it was interrupted.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct Args {
    /// What to measure; may be repeated [default: all of them]
    #[arg(long, value_name = "SCENARIO", value_parser = scenario_parser())]
    pub(super) scenario: Vec<Scenario>,
    /// One of our own models to measure; may be repeated, and the first is what the others are
    /// compared with [default: pool, spawn, limit]
    #[arg(long, value_name = "MODEL", value_parser = ["pool", "spawn", "limit"])]
    pub(super) arm: Vec<String>,
    /// Another server: NAME=COMMAND@ADDR; in COMMAND, {app} stands for hello, echo or http, {work} for
    /// the service time such as 1ms, {addr} for the address; may be repeated
    #[arg(long, value_name = "NAME=COMMAND@ADDR", value_parser = Arm::parse)]
    pub(super) against: Vec<Arm>,
    /// What the servers speak: tcp (hello and echo) or http
    #[arg(long, default_value = "tcp", value_parser = protocol_parser())]
    pub(super) protocol: Protocol,
    /// Overload: multiples of the capacity to offer
    #[arg(long, value_name = "LIST", default_value = "0.8,1,2,10", value_delimiter = ',', value_parser = load)]
    pub(super) loads: Vec<f64>,
    /// Overload: the first arm's capacity in requests per second [default: it is found]
    #[arg(long, value_name = "N", value_parser = load)]
    pub(super) capacity: Option<f64>,
    /// Overload: CPU to burn for each request
    #[arg(long, value_name = "D", default_value = "1ms", value_parser = humantime::parse_duration)]
    pub(super) work: Duration,
    /// Overload: a client gives up after this, and later replies are no good
    #[arg(long, value_name = "D", default_value = "500ms", value_parser = positive_duration)]
    pub(super) deadline: Duration,
    /// Overload: how a client gives up
    #[arg(long, default_value = "close", value_parser = give_up_parser())]
    pub(super) give_up: GiveUp,
    /// Overload: how arrivals are spread
    #[arg(long, default_value = "poisson", value_parser = arrivals_parser())]
    pub(super) arrivals: Arrivals,
    /// Idle: silent connections
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = crate::cli::values::whole::<usize>)]
    pub(super) idle: usize,
    /// The pool's workers; the arm limit has 17 permits for each
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(super) workers: u16,
    /// Rounds, each with a fresh server for every cell and the arms in random order
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) rounds: u16,
    /// Of one cell, after a warm-up of half a second, or of two seconds in an overload
    #[arg(long, value_name = "D", default_value = "2s", value_parser = positive_duration)]
    pub(super) duration: Duration,
    /// One round of one second a cell, without intervals
    #[arg(long, conflicts_with_all = ["rounds", "duration"])]
    pub(super) quick: bool,
    /// The CPUs of server and generator: auto, off or SERVER:CLIENT
    #[arg(long, value_name = "PIN", default_value = "auto")]
    pub(super) pin: Pinning,
    /// Write everything to this file
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Write a page with pictures to this file
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Write the goodput curve to this file
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,
    /// End with status 99 when the first arm's goodput at the highest load is under this share of
    /// its best
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(super) require_goodput: Option<f64>,
}

/// Which CPUs to use.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pinning {
    Auto,
    Off,
    To(Pin),
}

impl FromStr for Pinning {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = || {
            let (server, client) = text.split_once(':')?;
            Some(Pin { server: server.parse().ok()?, client: client.parse().ok()? })
        };
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => pair().map(Self::To).ok_or_else(|| "give auto, off or SERVER:CLIENT such as 0:1".into()),
        }
    }
}

fn scenario_parser() -> impl TypedValueParser<Value = Scenario> {
    PossibleValuesParser::new(Scenario::ALL.map(Scenario::name)).map(|name| {
        Scenario::ALL.into_iter().find(|scenario| scenario.name() == name).unwrap_or(Scenario::Overload)
    })
}

fn protocol_parser() -> impl TypedValueParser<Value = Protocol> {
    PossibleValuesParser::new(["tcp", "http"])
        .map(|name| if name == "tcp" { Protocol::Tcp } else { Protocol::Http })
}

fn give_up_parser() -> impl TypedValueParser<Value = GiveUp> {
    PossibleValuesParser::new(["close", "reset"])
        .map(|name| if name == "close" { GiveUp::Close } else { GiveUp::Reset })
}

fn arrivals_parser() -> impl TypedValueParser<Value = Arrivals> {
    PossibleValuesParser::new(["poisson", "uniform"])
        .map(|name| if name == "poisson" { Arrivals::Poisson } else { Arrivals::Uniform })
}

fn load(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (0.001..=1e7).contains(value));
    value.ok_or_else(|| "give a number from 0.001 to 10000000".into())
}

fn share(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (0.0..=1.0).contains(value));
    value.ok_or_else(|| "give a number from 0 to 1".into())
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = Duration::from_millis(1)..=Duration::from_secs(3600);
    if allowed.contains(&duration) { Ok(duration) } else { Err("give 1ms to 1h".into()) }
}
