use std::{
    io::IsTerminal,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::{
    ArgAction,
    builder::{PossibleValuesParser, TypedValueParser},
};
use overfall::{
    Handle, Handler, Model, OnFull, Server,
    apps::{Echo, Experiment, Hello, web},
};
use signal_hook::{
    consts::{SIGINT, SIGTERM, SIGUSR1},
    flag,
    iterator::Signals,
};
use tracing::level_filters::LevelFilter;

use super::{print, values};

/// Serve TCP clients with a fixed pool of workers behind a bounded queue.
///
/// TERM and INT drain and end it, a second one ends it at once; USR1 prints the counters.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct Args {
    /// Listen here; may be repeated, and port 0 lets the system choose
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8888", value_parser = values::address)]
    listen: Vec<String>,
    /// Threads that serve requests [default: the CPUs that this process may use]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Newcomers that may wait for a worker [default: 16 for each worker]
    #[arg(long, value_name = "N")]
    queue: Option<usize>,
    /// Newcomers that the kernel may hold; kept shorter while overloaded [default: 1024]
    #[arg(long, value_name = "N")]
    backlog: Option<u32>,
    /// When full for more than 100 ms: stop accepting until there is room, tell newcomers no, or
    /// tell the one that has been in the queue longest no
    #[arg(long, value_name = "POLICY", default_value = "refuse", value_parser = on_full_parser())]
    on_full: OnFull,
    /// What a refused client is sent; escapes such as \r\n are understood [default: none,
    /// a reset, or 503 over HTTP]
    #[arg(long, value_name = "TEXT", value_parser = values::text, default_value = "", hide_default_value = true)]
    busy_reply: std::vec::Vec<u8>,
    /// The wait for a worker that is aimed at; when all have waited longer for a while, those who
    /// have waited over twice as long are refused; off sheds nobody
    #[arg(long, value_name = "D", default_value = "5ms", value_parser = target)]
    target: Target,
    /// What refusals may cost, as a share of one CPU such as 3%; beyond it newcomers are left to
    /// the kernel
    #[arg(long, value_name = "SHARE", default_value = "3%", value_parser = values::share)]
    refusal_budget: f64,
    /// Connections open at once; beyond it the longest idle one gives way [default: from the limit
    /// of open files, which is raised to its hard value]
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,
    /// From accept to a client's first byte
    #[arg(long, value_name = "D", default_value = "10s", value_parser = humantime::parse_duration)]
    first_byte_timeout: Duration,
    /// Between one request and the next
    #[arg(long, value_name = "D", default_value = "60s", value_parser = humantime::parse_duration)]
    idle_timeout: Duration,
    /// For the rest of a request, and for a client to take a reply
    #[arg(long, value_name = "D", default_value = "10s", value_parser = humantime::parse_duration)]
    io_timeout: Duration,
    /// From TERM to the forced end
    #[arg(long, value_name = "D", default_value = "10s", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,
    /// What to serve: "Hello, client!" once, what comes until the client ends its side, or
    /// "Hello, client!" over HTTP
    #[arg(long, default_value = "hello", value_parser = ["hello", "echo", "http"])]
    app: String,
    /// Burn this much CPU for each request
    #[arg(long, value_name = "D", default_value = "0s", hide_default_value = true, value_parser = humantime::parse_duration)]
    work: Duration,
    /// Sleep this long for each request
    #[arg(long, value_name = "D", default_value = "0s", hide_default_value = true, value_parser = humantime::parse_duration)]
    block: Duration,
    /// The pool, or to compare it with: a thread for every connection without bound, or behind a
    /// semaphore of as many permits as workers
    #[arg(long, default_value = "pool", value_parser = model_parser())]
    model: Model,
    /// Log more, on standard error; twice for everything
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    /// Log errors alone
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
}

fn on_full_parser() -> impl TypedValueParser<Value = OnFull> {
    PossibleValuesParser::new(["wait", "refuse", "drop-oldest"]).map(|name| match &*name {
        "wait" => OnFull::Wait,
        "drop-oldest" => OnFull::DropOldest,
        _ => OnFull::Refuse,
    })
}

/// None where nobody is to be shed.
#[derive(Debug, Clone, Copy)]
struct Target(Option<Duration>);

fn target(text: &str) -> Result<Target, humantime::DurationError> {
    if text == "off" {
        return Ok(Target(None));
    }
    humantime::parse_duration(text).map(|target| Target(Some(target)))
}

fn model_parser() -> impl TypedValueParser<Value = Model> {
    PossibleValuesParser::new(["pool", "spawn", "limit"]).map(|name| match &*name {
        "spawn" => Model::Spawn,
        "limit" => Model::Limit,
        _ => Model::Pool,
    })
}

/// Runs the server until a signal ends it.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    start_logging(&args);
    super::raise_descriptor_limit();
    // Before there is anything to end, so that no signal is lost.
    let draining = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // The second one ends it, with the status by which a shell says which signal it was.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&draining))
            .context("cannot catch signals")?;
    }
    let signals = Signals::new([SIGTERM, SIGINT, SIGUSR1]).context("cannot catch signals")?;
    let experiment = Experiment { work: args.work, block: args.block, busy_reply: args.busy_reply.clone() };
    let handle = match &*args.app {
        "echo" => start(&args, Echo { experiment }),
        "http" => start(&args, web(experiment)),
        _ => start(&args, Hello { experiment }),
    }?;
    let handle = Arc::new(handle);
    let watched = Arc::clone(&handle);
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || heed(signals, &watched, &draining))
        .context("cannot start the thread signals")?;
    for addr in handle.local_addrs() {
        print(format_args!("listening on {addr}\n"));
    }
    let ended = handle.join();
    print(handle.metrics());
    ended?;
    Ok(ExitCode::SUCCESS)
}

fn start(args: &Args, handler: impl Handler) -> overfall::Result<Handle> {
    let mut builder = Server::builder()
        .on_full(args.on_full)
        .target(args.target.0)
        .refusal_budget(args.refusal_budget)
        .first_byte_timeout(args.first_byte_timeout)
        .idle_timeout(args.idle_timeout)
        .io_timeout(args.io_timeout)
        .drain_timeout(args.drain_timeout)
        .model(args.model);
    if let Some(workers) = args.workers {
        builder = builder.workers(workers);
    }
    if let Some(queue) = args.queue {
        builder = builder.queue(queue);
    }
    if let Some(backlog) = args.backlog {
        builder = builder.backlog(backlog);
    }
    if let Some(max_connections) = args.max_connections {
        builder = builder.max_connections(max_connections);
    }
    args.listen.iter().fold(builder, |builder, addr| builder.bind(addr)).serve(handler)
}

/// Does what the signals say, until the process ends.
fn heed(mut signals: Signals, handle: &Arc<Handle>, draining: &AtomicBool) {
    let prints = Arc::new(AtomicUsize::new(0));
    for signal in signals.forever() {
        if signal == SIGUSR1 {
            print_counters(handle, &prints);
        } else {
            tracing::info!(signal, "shutting down; a second signal ends it at once");
            draining.store(true, SeqCst);
            handle.shutdown();
        }
    }
}

/// Prints on a thread of its own: standard output may be a pipe that nobody reads, and that must
/// not keep TERM from being heard. `prints` are those asked for and not done; one thread does all.
fn print_counters(handle: &Arc<Handle>, prints: &Arc<AtomicUsize>) {
    if prints.fetch_add(1, SeqCst) > 0 {
        return;
    }
    let (handle, left) = (Arc::clone(handle), Arc::clone(prints));
    let print_all = move || {
        loop {
            print(handle.metrics());
            if left.fetch_sub(1, SeqCst) == 1 {
                break;
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("counters".into()).spawn(print_all) {
        tracing::warn!(%error, "the counters cannot be printed");
        prints.store(0, SeqCst);
    }
}

fn start_logging(args: &Args) {
    let level = match (args.quiet, args.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::INFO,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .with_max_level(level)
        .init();
}
