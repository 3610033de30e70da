//! What every command that serves has in common: the pool's settings, signals and logs. It does not
//! know what is served.

use std::{
    mem,
    net::SocketAddr,
    panic::{self, AssertUnwindSafe},
    process::{self, ExitCode},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use overfall::{Builder, OnFull, Server, admin::Watched};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2},
    low_level::signal_name,
};

use super::{
    admin::AdminArgs,
    config_file::ConfigArgs,
    entry::EntryArgs,
    groups,
    leave::LeaveArgs,
    listen::ListenArgs,
    logging::{self, LogArgs},
    output,
    reload::{self, Reload},
    restart::Restart,
    served::{Running, Served},
    signals::{Caught, catch, is_ignored},
    sockets, systemd, values, workers,
};
use crate::limits;

#[derive(Debug, clap::Args)]
pub(super) struct PoolArgs {
    #[command(flatten)]
    listen: ListenArgs,
    /// Threads that serve requests [default: as many as CPUs]
    ///
    /// That is, as many as the CPUs that this process may use.
    #[arg(long, value_name = "N", value_parser = values::whole::<usize>, help_heading = groups::SERVING)]
    workers: Option<usize>,
    #[command(flatten)]
    full: FullArgs,
    #[command(flatten)]
    timeouts: TimeoutArgs,
    #[command(flatten)]
    leave: LeaveArgs,
    #[command(flatten)]
    entry: EntryArgs,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = groups::FULL)]
struct FullArgs {
    /// How long clients wait
    ///
    /// Who could not be served within it is refused at once.
    #[arg(long, value_name = "D", default_value = "500ms", value_parser = humantime::parse_duration)]
    patience: Duration,
    /// What is done when newcomers would wait too long
    ///
    /// Stop accepting until there is room, tell them no, or tell the one that has been in the queue longest
    /// no.
    #[arg(long, value_name = "POLICY", default_value = "refuse", value_parser = on_full_parser())]
    #[arg(hide_short_help = true)]
    on_full: OnFull,
    /// What a refused client is sent
    ///
    /// Escapes such as \r\n are understood.
    ///
    /// [default: none, a reset, or 503 over HTTP]
    #[arg(long, value_name = "TEXT", value_parser = values::text, default_value = "", hide_default_value = true)]
    #[arg(hide_short_help = true)]
    busy_reply: std::vec::Vec<u8>,
    /// Newcomers that may wait for a worker [default: 16384]
    ///
    /// It is for a burst; what bounds their wait is the patience.
    #[arg(long, value_name = "N", value_parser = values::whole::<usize>, hide_short_help = true)]
    queue: Option<usize>,
    /// Newcomers that the kernel may hold [default: 1024]
    ///
    /// It is kept shorter while overloaded.
    #[arg(long, value_name = "N", value_parser = values::whole::<u32>, hide_short_help = true)]
    backlog: Option<u32>,
    /// What refusals may cost, as a share of one CPU
    ///
    /// It is a share such as 3%; beyond it newcomers are left to the kernel.
    #[arg(long, value_name = "SHARE", default_value = "1.5%", value_parser = values::share)]
    #[arg(hide_short_help = true)]
    refusal_budget: f64,
    /// Connections open at once
    ///
    /// Beyond it the longest idle one gives way.
    ///
    /// [default: from the limit of open files, which is raised to its hard value]
    #[arg(long, value_name = "N", value_parser = values::whole::<usize>, hide_short_help = true)]
    max_connections: Option<usize>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = groups::TIMEOUTS)]
struct TimeoutArgs {
    /// From accept to a client's first byte
    #[arg(long, value_name = "D", default_value = "10s", value_parser = humantime::parse_duration)]
    #[arg(hide_short_help = true)]
    first_byte_timeout: Duration,
    /// Between one request and the next
    #[arg(long, value_name = "D", default_value = "60s", value_parser = humantime::parse_duration)]
    #[arg(hide_short_help = true)]
    idle_timeout: Duration,
    /// For the rest of a request, and for a client to take a reply
    #[arg(long, value_name = "D", default_value = "10s", value_parser = humantime::parse_duration)]
    #[arg(hide_short_help = true)]
    io_timeout: Duration,
    /// From TERM to the forced end
    #[arg(long, value_name = "D", default_value = "10s", value_parser = humantime::parse_duration)]
    #[arg(hide_short_help = true)]
    drain_timeout: Duration,
}

/// Flags that can change while the server runs, as far as it does not say otherwise.
pub(super) const LIVE: [&str; 14] = [
    "workers",
    "queue",
    "backlog",
    "on-full",
    "busy-reply",
    "patience",
    "refusal-budget",
    "max-connections",
    "first-byte-timeout",
    "idle-timeout",
    "io-timeout",
    "drain-timeout",
    "tls-cert",
    "tls-key",
];

fn on_full_parser() -> impl TypedValueParser<Value = OnFull> {
    PossibleValuesParser::new(["wait", "refuse", "drop-oldest"]).map(|name| match &*name {
        "wait" => OnFull::Wait,
        "drop-oldest" => OnFull::DropOldest,
        _ => OnFull::Refuse,
    })
}

impl PoolArgs {
    /// Whether clients have to encrypt.
    pub(super) fn is_encrypted(&self) -> bool {
        self.entry.is_encrypted()
    }

    /// What a refused client is sent.
    pub(super) fn busy_reply(&self) -> &[u8] {
        &self.full.busy_reply
    }

    /// The server that they describe, which listens nowhere yet.
    pub(super) fn builder(&self) -> overfall::Result<Builder> {
        let mut builder = Server::builder()
            .on_full(self.full.on_full)
            .patience(self.full.patience)
            .refusal_budget(self.full.refusal_budget)
            .first_byte_timeout(self.timeouts.first_byte_timeout)
            .idle_timeout(self.timeouts.idle_timeout)
            .io_timeout(self.timeouts.io_timeout)
            .drain_timeout(self.timeouts.drain_timeout);
        if let Some(workers) = self.workers {
            builder = builder.workers(workers);
        }
        if let Some(queue) = self.full.queue {
            builder = builder.queue(queue);
        }
        if let Some(backlog) = self.full.backlog {
            builder = builder.backlog(backlog);
        }
        if let Some(max_connections) = self.full.max_connections {
            builder = builder.max_connections(max_connections);
        }
        self.entry.apply(builder)
    }
}

/// Starts the server, listening here where nothing says where, and runs it until a signal ends it. `tip` says
/// what may be tried at an address.
pub(super) fn run<R: Running>(
    args: &PoolArgs,
    default_addr: &str,
    reload: Reload<R>,
    tip: impl Fn(SocketAddr) -> Option<String>,
    start: impl FnOnce(Builder) -> overfall::Result<R>,
) -> anyhow::Result<ExitCode> {
    // While there is no other thread.
    let mut passed = sockets::take()?;
    systemd::check()?;
    if args.config.check_config {
        // Whatever else can be found wrong before it listens belongs here.
        return reload::check(|| {
            let (builder, _) = args.listen.apply(args.builder()?, &mut passed, default_addr)?;
            Ok(builder.check()?)
        });
    }
    passed.open_files.into_iter().for_each(limits::found);
    output::start().context("cannot start the threads that write")?;
    logging::start(&args.log);
    limits::raise();
    // Before there is anything to end, so that no signal is lost.
    let drains = |signal: &i32| !is_ignored(*signal) && (*signal != SIGHUP || !reload.is_possible());
    let signals: Vec<_> = DRAINING.into_iter().filter(drains).collect();
    // The second one ends it. (A terminal that is closed sends HUP twice.)
    let twice: Vec<_> = signals.iter().copied().filter(|&signal| signal != SIGHUP).collect();
    // Also where it was ignored: to read settings again does no harm when a terminal is closed.
    let hup = reload.is_possible().then_some(SIGHUP);
    let others: Vec<_> = [SIGUSR1, SIGUSR2].into_iter().chain(hup).collect();
    let signals = catch(&signals, &twice, &others).context("cannot catch signals")?;
    let admin = args.admin.bind(&mut passed)?;
    let (builder, origins) = args.listen.apply(args.builder()?, &mut passed, default_addr)?;
    let running = Arc::new(start(builder)?);
    let admin = Arc::new(admin.serve(&running)?);
    let served = Arc::new(Served::new(&running, origins, &admin, args.leave));
    let heard = Arc::clone(&served);
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if panic::catch_unwind(AssertUnwindSafe(|| heed(signals, &heard, reload))).is_err() {
                // Nobody would hear a signal any more.
                output::complain("error: the thread that hears signals has died");
                output::flush();
                process::exit(1);
            }
        })
        .context("cannot start the thread signals")?;
    served.begin(passed.predecessor).context("cannot start a thread")?;
    for addr in running.handle().local_addrs() {
        output::print(format_args!("listening on {addr}\n"));
    }
    if let Some(tip) = tip(running.handle().local_addr()) {
        output::print(format_args!("{tip}\n"));
    }
    admin.announce();
    let ended = running.join();
    print_status(&*running);
    // Until now, so that nobody is left without an answer while it drains.
    admin.end();
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// Prints how it fares, below a line with the time that tells one print from the next.
fn print_status(running: &impl Running) {
    let now = humantime::format_rfc3339_millis(SystemTime::now());
    let (dropped, workers, status) = (output::dropped(), workers::status(running.handle()), running.status());
    output::print(format_args!("{:-<24} {now}\n{:<25}{dropped}\n{workers}{status}", "-", "output_dropped"));
}

/// Signals at which the server drains: what container runtimes, service managers and terminals send.
/// HUP is among them where there is nothing to read again, since its own action would end it at once.
const DRAINING: [i32; 4] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT];

/// Does what the signals say, until the process ends.
fn heed<R: Running>(signals: Caught, served: &Arc<Served<R>>, mut reload: Reload<R>) {
    let restart = Arc::new(Restart::default());
    let mut draining = false;
    signals.heed(|signal| match signal {
        // What is about to end has no more use for settings.
        SIGHUP if reload.is_possible() && served.handle().is_leaving() => {}
        SIGHUP if reload.is_possible() => {
            systemd::reloading();
            reload.reload(served.running());
            systemd::serving(served.handle().local_addrs());
        }
        SIGUSR1 => print_status(served.running()),
        SIGUSR2 => {
            let (owner, old) = (Arc::clone(served), Arc::clone(served));
            restart.begin(move || owner.estate(), move || old.hand_over());
        }
        _ => {
            if mem::replace(&mut draining, true) {
                // One that may come twice.
                return;
            }
            if restart.give_up() {
                systemd::stopping();
            }
            let signal = signal_name(signal).unwrap_or("unknown");
            tracing::info!(signal, "shutting down; a second signal ends it at once");
            served.leave();
        }
    });
}
