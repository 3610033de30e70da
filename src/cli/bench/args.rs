//! The flags of `overfall bench`, each with what it may be. It does not know what they amount to together.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::{
    bench::{
        arm::Arm,
        client::GiveUp,
        exchange::Protocol,
        pacer::Arrivals,
        peer::Peer,
        plan::{Pin, Scenario},
    },
    cli::{groups, help},
};

const EXAMPLES: [(&str, &str); 2] = [
    (
        "Compare it with nginx, in half a minute",
        "overfall bench --quick --protocol http --scenario keepalive --arm pool --peer nginx",
    ),
    ("Draw what an overload does to all of them, in an hour", "overfall bench --peer go --html bench.html"),
];

/// Compare the pool with a thread for every connection, and with other servers.
///
/// Status: 0, 1 when an arm failed, 2 wrong usage, 99 when --require-goodput was not met, 130 when
/// it was interrupted.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true, after_long_help = help::examples(&EXAMPLES))]
pub(crate) struct Args {
    /// What to measure [default: all four]
    ///
    /// May be repeated. connections: closed loop, a connection for each request; keepalive: closed loop, requests
    /// over kept connections; overload: open loop at multiples of the capacity; idle: silent connections beside
    /// active ones.
    #[arg(long, value_name = "SCENARIO", help_heading = groups::MEASURED, hide_possible_values = true, value_parser = scenario_parser())]
    pub(super) scenario: Vec<Scenario>,
    /// What is spoken, tcp or http
    ///
    /// Over tcp they greet (connections, overload) or echo (keepalive, idle).
    #[arg(long, default_value = "tcp", help_heading = groups::MEASURED, hide_possible_values = true, value_parser = protocol_parser())]
    pub(super) protocol: Protocol,
    /// One short round, which proves nothing
    ///
    /// One round of one second a cell: it has no intervals, and what it shows may be noise.
    #[arg(long, help_heading = groups::MEASURED, conflicts_with_all = ["rounds", "duration"])]
    pub(super) quick: bool,
    /// Rounds; figures are their medians
    ///
    /// Each has a fresh server for every cell, and the arms in random order.
    #[arg(long, value_name = "N", default_value_t = 6, help_heading = groups::MEASURED, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) rounds: u16,
    /// Silent connections of the scenario idle
    #[arg(long, value_name = "N", default_value_t = 5000, help_heading = groups::MEASURED, hide_short_help = true, value_parser = crate::cli::values::whole::<usize>)]
    pub(super) idle: usize,
    /// How long each cell is measured
    ///
    /// It comes after a warm-up of a quarter of a second, or of two seconds in an overload.
    #[arg(long, value_name = "D", default_value = "2s", help_heading = groups::MEASURED, hide_short_help = true, value_parser = positive_duration)]
    pub(super) duration: Duration,
    /// The CPUs of server and generator
    ///
    /// auto, off, or SERVER:CLIENT such as 0:1.
    #[arg(long, value_name = "PIN", default_value = "auto", help_heading = groups::MEASURED, hide_short_help = true)]
    pub(super) pin: Pinning,

    /// Ours: pool, spawn or limit [default: all]
    ///
    /// May be repeated, and the first is what the others are compared with. spawn has a thread for every connection,
    /// and limit the same behind a semaphore.
    #[arg(long, value_name = "MODEL", help_heading = groups::ARMS, hide_possible_values = true, value_parser = ["pool", "spawn", "limit"])]
    pub(super) arm: Vec<String>,
    /// A known server: nginx, haproxy or go
    ///
    /// May be repeated. It has to be installed; what it is configured with or built from comes with overfall. nginx
    /// and haproxy speak http only, and burn no CPU, so that they have no part in an overload with work.
    #[arg(long, value_name = "PEER", help_heading = groups::ARMS, hide_possible_values = true, value_parser = peer_parser())]
    pub(super) peer: Vec<&'static Peer>,
    /// Any other server
    ///
    /// In COMMAND, {app} stands for hello, echo or http, {work} for the service time such as 1ms, {addr} for the
    /// address; may be repeated.
    #[arg(long, value_name = "NAME=COMMAND@ADDR", help_heading = groups::ARMS, value_parser = Arm::parse)]
    pub(super) against: Vec<Arm>,
    /// The pool's workers
    ///
    /// The arm limit has 17 permits for each.
    #[arg(long, value_name = "N", default_value_t = 2, help_heading = groups::ARMS, hide_short_help = true, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(super) workers: u16,

    /// CPU to burn for each request
    #[arg(long, value_name = "D", default_value = "1ms", help_heading = groups::OVERLOAD, hide_short_help = true, value_parser = humantime::parse_duration)]
    pub(super) work: Duration,
    /// Multiples of the capacity to offer
    ///
    /// Those that this machine cannot offer are left out, and the report says which.
    #[arg(long, value_name = "LIST", default_value = "0.8,1,2,10", help_heading = groups::OVERLOAD, hide_short_help = true, value_delimiter = ',', value_parser = load)]
    pub(super) loads: Vec<f64>,
    /// The first arm's requests per second [default: found]
    ///
    /// The loads are multiples of it.
    #[arg(long, value_name = "N", help_heading = groups::OVERLOAD, hide_short_help = true, value_parser = load)]
    pub(super) capacity: Option<f64>,
    /// How long a client waits until it gives up
    ///
    /// Later replies are no good.
    #[arg(long, value_name = "D", default_value = "500ms", help_heading = groups::OVERLOAD, hide_short_help = true, value_parser = positive_duration)]
    pub(super) deadline: Duration,
    /// How a client gives up
    #[arg(long, default_value = "close", help_heading = groups::OVERLOAD, hide_short_help = true, value_parser = give_up_parser())]
    pub(super) give_up: GiveUp,
    /// How arrivals are spread
    #[arg(long, default_value = "poisson", help_heading = groups::OVERLOAD, hide_short_help = true, value_parser = arrivals_parser())]
    pub(super) arrivals: Arrivals,
    /// Fail where less goodput is kept
    ///
    /// Status 99 when the first arm's goodput at the highest load is under this share of its best, or not known.
    #[arg(long, value_name = "SHARE", help_heading = groups::OVERLOAD, hide_short_help = true, value_parser = share)]
    pub(super) require_goodput: Option<f64>,

    /// Write a page with pictures to this file
    #[arg(long, value_name = "FILE", help_heading = groups::REPORT)]
    pub(super) html: Option<PathBuf>,
    /// Write everything to this file
    #[arg(long, value_name = "FILE", help_heading = groups::REPORT)]
    pub(super) json: Option<PathBuf>,
    /// Write the goodput curve to this file
    #[arg(long, value_name = "FILE", help_heading = groups::REPORT, hide_short_help = true)]
    pub(super) svg: Option<PathBuf>,
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

fn peer_parser() -> impl TypedValueParser<Value = &'static Peer> {
    PossibleValuesParser::new(Peer::ALL.map(|peer| peer.name))
        .map(|name| Peer::ALL.into_iter().find(|peer| peer.name == name).unwrap_or(Peer::ALL[0]))
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
