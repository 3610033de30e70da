use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::thread::{sched_getaffinity, sched_setaffinity};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::{output, usage};
use crate::bench::{
    arm::{Arm, How},
    client::GiveUp,
    descriptor_limit,
    exchange::Protocol,
    pacer::Arrivals,
    plan::{Pin, Plan, Scenario, cpu_set},
    ports,
    report::environment,
    run as measure,
};

/// Compare the pool with a thread for every connection, and with any other server.
///
/// Status: 0, 1 when an arm failed, 2 wrong usage, 99 when --require-goodput was not met, 130 when
/// it was interrupted.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct Args {
    /// What to measure; may be repeated [default: all of them]
    #[arg(long, value_name = "SCENARIO", value_parser = scenario_parser())]
    scenario: Vec<Scenario>,
    /// One of our own models to measure; may be repeated, and the first is what the others are
    /// compared with [default: pool, spawn, limit]
    #[arg(long, value_name = "MODEL", value_parser = ["pool", "spawn", "limit"])]
    arm: Vec<String>,
    /// Another server: NAME=COMMAND@ADDR; in COMMAND, {app} stands for hello, echo or http, {work} for
    /// the service time such as 1ms, {addr} for the address; may be repeated
    #[arg(long, value_name = "NAME=COMMAND@ADDR", value_parser = Arm::parse)]
    against: Vec<Arm>,
    /// What the servers speak: tcp (hello and echo) or http
    #[arg(long, default_value = "tcp", value_parser = protocol_parser())]
    protocol: Protocol,
    /// Overload: multiples of the capacity to offer
    #[arg(long, value_name = "LIST", default_value = "0.8,1,2,10", value_delimiter = ',', value_parser = load)]
    loads: Vec<f64>,
    /// Overload: the first arm's capacity in requests per second [default: it is found]
    #[arg(long, value_name = "N", value_parser = load)]
    capacity: Option<f64>,
    /// Overload: CPU to burn for each request
    #[arg(long, value_name = "D", default_value = "1ms", value_parser = humantime::parse_duration)]
    work: Duration,
    /// Overload: a client gives up after this, and later replies are no good
    #[arg(long, value_name = "D", default_value = "500ms", value_parser = positive_duration)]
    deadline: Duration,
    /// Overload: how a client gives up
    #[arg(long, default_value = "close", value_parser = give_up_parser())]
    give_up: GiveUp,
    /// Overload: how arrivals are spread
    #[arg(long, default_value = "poisson", value_parser = arrivals_parser())]
    arrivals: Arrivals,
    /// Idle: silent connections
    #[arg(long, value_name = "N", default_value_t = 5000)]
    idle: usize,
    /// The pool's workers; the arm limit has 17 permits for each
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=4096))]
    workers: u16,
    /// Rounds, each with a fresh server for every cell and the arms in random order
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Of one cell, after a warm-up of half a second, or of two seconds in an overload
    #[arg(long, value_name = "D", default_value = "2s", value_parser = positive_duration)]
    duration: Duration,
    /// One round of one second a cell, without intervals
    #[arg(long, conflicts_with_all = ["rounds", "duration"])]
    quick: bool,
    /// The CPUs of server and generator: auto, off or SERVER:CLIENT
    #[arg(long, value_name = "PIN", default_value = "auto")]
    pin: Pinning,
    /// Write everything to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with pictures to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the goodput curve to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// End with status 99 when the first arm's goodput at the highest load is under this share of
    /// its best
    #[arg(long, value_name = "SHARE", value_parser = share)]
    require_goodput: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
enum Pinning {
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

/// The goodput that was required was not kept.
const GOODPUT: u8 = 99;
const INTERRUPTED: u8 = 130;

/// Measures and reports.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    crate::limits::raise();
    let plan = match plan(&args) {
        Ok(plan) => plan,
        Err(sentence) => return Ok(usage::wrong(&sentence)),
    };
    // Opened now, so that nothing that was measured is lost to a wrong path.
    let [json, html, svg] = [create(&args.json)?, create(&args.html)?, create(&args.svg)?];
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
        signal_hook::flag::register(signal, Arc::clone(&stopped)).context("cannot catch signals")?;
    }
    output::complain(&format!(
        "{} measurements in {} rounds, about {}; {}",
        plan.rounds * plan.cells_per_round(),
        plan.rounds,
        humantime::format_duration(Duration::from_secs(plan.estimate().as_secs() + 1)),
        match plan.pin {
            Some(pin) => format!("server on CPU {}, generator on CPU {}", pin.server, pin.client),
            None => "nothing is pinned".into(),
        }
    ));
    if let Some(pin) = plan.pin {
        sched_setaffinity(None, &cpu_set(pin.client)).context("cannot pin the generator")?;
    }
    let bar = progress_bar((plan.rounds * plan.cells_per_round()) as u64);
    let mut progress = |what: &str, done: usize| {
        bar.set_message(what.to_owned());
        bar.set_position(done as u64);
    };
    let results = measure(plan, &|| stopped.load(Relaxed), &mut progress);
    bar.finish_and_clear();
    output::print(results.text());
    write(json, || format!("{:#}\n", results.document()))?;
    write(html, || results.page())?;
    write(svg, || results.goodput_svg().unwrap_or_default())?;
    Ok(ExitCode::from(status(&results, args.require_goodput)))
}

fn create(path: &Option<PathBuf>) -> anyhow::Result<Option<File>> {
    let file = path
        .as_ref()
        .map(|path| File::create(path).with_context(|| format!("cannot write {}", path.display())));
    file.transpose()
}

fn write(file: Option<File>, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let Some(mut file) = file else { return Ok(()) };
    file.write_all(text().as_bytes()).context("cannot write a report")
}

fn status(results: &crate::bench::Results, required: Option<f64>) -> u8 {
    if results.interrupted {
        return INTERRUPTED;
    }
    if results.cells.iter().any(|cell| cell.failure().is_some()) {
        return 1;
    }
    let Some(required) = required else { return 0 };
    match results.goodput_kept() {
        Some(kept) if kept >= required => 0,
        Some(kept) => {
            output::complain(&format!(
                "error: the first arm kept {kept:.2} of its best goodput, not the {required} required"
            ));
            GOODPUT
        }
        None => {
            output::complain("error: the first arm's goodput is not known");
            GOODPUT
        }
    }
}

fn plan(args: &Args) -> Result<Plan, String> {
    const MODELS: [&str; 3] = ["pool", "spawn", "limit"];
    let named = args.arm.iter().filter_map(|name| MODELS.into_iter().find(|model| model == name));
    let models: Vec<_> = if args.arm.is_empty() { MODELS.into() } else { named.collect() };
    let ours = models.iter().map(|&model| Arm { name: model.into(), how: How::Model(model) });
    let arms: Vec<Arm> = ours.chain(args.against.iter().cloned()).collect();
    if let Some(twice) = (1..arms.len()).find(|&at| arms[..at].iter().any(|arm| arm.name == arms[at].name)) {
        return Err(format!("two arms are called {}; give each its own name", arms[twice].name));
    }
    let scenarios = Scenario::ALL
        .into_iter()
        .filter(|scenario| args.scenario.is_empty() || args.scenario.contains(scenario));
    let mut loads = args.loads.clone();
    loads.sort_unstable_by(f64::total_cmp);
    loads.dedup();
    let plan = Plan {
        arms,
        protocol: args.protocol,
        scenarios: scenarios.collect(),
        loads,
        capacity: args.capacity,
        work: args.work,
        deadline: args.deadline,
        idle: args.idle,
        workers: args.workers.into(),
        rounds: if args.quick { 1 } else { args.rounds.into() },
        duration: if args.quick { Duration::from_secs(1) } else { args.duration },
        arrivals: args.arrivals,
        give_up: args.give_up,
        pin: pin(args.pin)?,
        environment: environment(),
    };
    if args.svg.is_some() && !plan.scenarios.contains(&Scenario::Overload) {
        return Err("--svg draws the goodput curve, which only the scenario overload has".into());
    }
    plan.check(descriptor_limit(), ports())?;
    Ok(plan)
}

/// Which CPUs to use, of those that this process may.
fn pin(pinning: Pinning) -> Result<Option<Pin>, String> {
    let allowed = sched_getaffinity(None).map_err(|error| format!("the CPUs cannot be read: {error}"))?;
    let mut cpus = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
    match pinning {
        Pinning::Off => Ok(None),
        Pinning::Auto => Ok(cpus.next().zip(cpus.next()).map(|(server, client)| Pin { server, client })),
        Pinning::To(pin)
            if [pin.server, pin.client]
                .iter()
                .all(|&cpu| cpu < rustix::thread::CpuSet::MAX_CPU && allowed.is_set(cpu)) =>
        {
            Ok(Some(pin))
        }
        Pinning::To(pin) => {
            let cpus: Vec<_> = cpus.map(|cpu| cpu.to_string()).collect();
            Err(format!(
                "--pin {}:{} names a CPU that this process may not use; it may use {}",
                pin.server,
                pin.client,
                cpus.join(", ")
            ))
        }
    }
}

fn progress_bar(length: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    // The template is fixed and has been tried.
    let style = ProgressStyle::with_template("[{elapsed_precise}, {eta} left] {bar:30} {pos}/{len} {msg}");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
