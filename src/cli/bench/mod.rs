//! The command `overfall bench`: what it says before and after, where it writes the report, and with which
//! status it ends. It does not know how a server is measured.

mod args;
mod plan;

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::thread::sched_setaffinity;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

pub(super) use self::args::Args;
use super::{output, usage};
use crate::bench::{
    peer::{Peer, Peers},
    plan::{Plan, cpu_set},
    results::Results,
    run as measure,
};

/// The goodput that was required was not kept.
const GOODPUT: u8 = 99;
const INTERRUPTED: u8 = 130;

/// Measures and reports.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    crate::limits::raise();
    let mut plan = match plan::plan(&args) {
        Ok(plan) => plan,
        Err(sentence) => return Ok(usage::wrong(&sentence)),
    };
    // Opened now, so that nothing that was measured is lost to a wrong path.
    let [json, html, svg] = [create(&args.json)?, create(&args.html)?, create(&args.svg)?];
    let stopped = stop_on_signals()?;
    let _peers = add_peers(&mut plan, &args.peer)?;
    announce(&plan);
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

/// Gives what becomes true at the first signal that is to end it.
fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
        signal_hook::flag::register(signal, Arc::clone(&stopped)).context("cannot catch signals")?;
    }
    Ok(stopped)
}

/// Has the peers take part; what they are made of is there for as long as the result.
fn add_peers(plan: &mut Plan, peers: &[&'static Peer]) -> anyhow::Result<Option<Peers>> {
    if peers.is_empty() {
        return Ok(None);
    }
    let names: Vec<_> = peers.iter().map(|peer| peer.name).collect();
    output::complain(&format!("preparing {}", names.join(", ")));
    let peers = Peers::prepare(peers, plan.idle)?;
    plan.arms.extend(peers.arms.iter().cloned());
    plan.environment["peers"] = peers.versions.clone();
    Ok(Some(peers))
}

/// Says what is about to be measured, and for how long.
fn announce(plan: &Plan) {
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
}

fn progress_bar(length: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    // The template is fixed and has been tried.
    let style = ProgressStyle::with_template("[{elapsed_precise}, {eta} left] {bar:30} {pos}/{len} {msg}");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
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

/// The status to end with; says why where the goodput is not what was required.
fn status(results: &Results, required: Option<f64>) -> u8 {
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
            output::complain("error: the first arm's goodput at the highest load is not known");
            GOODPUT
        }
    }
}
