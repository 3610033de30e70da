//! The command `overfall serve`: its flags, and which app they stand for. It does not know how the app is
//! served.

use std::{
    env,
    ffi::{OsStr, OsString},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use overfall::{
    Builder, BusyReply, Handle, Handler,
    apps::{Echo, Experiment, Program, cgi, either, web},
    baseline::{self, Bound},
};

use crate::limits;

use super::{
    command_line::Values,
    groups, help,
    pool::{self, LIVE, PoolArgs},
    reload::Reload,
    usage::Wrong,
};

const EXAMPLES: [(&str, &str); 4] = [
    (
        "Answer at http://127.0.0.1:8888/, with a page at http://127.0.0.1:9901/",
        "overfall serve --app http --admin 9901",
    ),
    ("Have a program answer each connection, eight at once", "overfall serve --workers 8 -- cat"),
    (
        "Have a shell script answer over HTTP",
        r#"overfall serve --cgi -- sh -c 'printf "Content-Type: text/plain\n\n"; date'"#,
    ),
    ("Send back what comes, to whoever can reach this machine", "overfall serve --app echo --listen :8888"),
];

/// Serve TCP with a fixed pool of workers behind a bounded queue.
///
/// What is served is one of three apps, or any program: it is started for each connection, with its standard
/// input and output joined to that and REMOTE_ADDR and the like in its environment, as tcpserver and inetd do.
/// As many run at once as there are workers, and one is killed when nothing has passed for --io-timeout, or its
/// client has gone.
///
/// TERM and INT drain and end it, a second one ends it at once; USR1 prints the counters; HUP reads --config
/// and certificates again, and drains where there is neither; USR2 starts the program anew, as it is on the
/// disk then, and hands over to it without a gap.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true, after_long_help = help::examples(&EXAMPLES))]
pub(super) struct Args {
    /// What to serve: hello, echo or http
    ///
    /// "Hello, client!" once, and over HTTP to whoever speaks that; what comes, until the client ends its side;
    /// or HTTP alone.
    #[arg(long, default_value = "hello", value_parser = ["hello", "echo", "http"])]
    #[arg(hide_possible_values = true, help_heading = groups::SERVING, conflicts_with = "command")]
    app: String,
    /// The program answers requests over HTTP, by CGI
    ///
    /// By the Common Gateway Interface (RFC 3875): the request is in its environment and on its standard input,
    /// and it writes header fields such as "Content-Type: text/plain", an empty line, and the body.
    #[arg(long, requires = "command", help_heading = groups::SERVING)]
    cgi: bool,
    /// A program with its arguments, to be served
    #[arg(last = true, value_name = "COMMAND", help_heading = groups::SERVING)]
    command: Vec<OsString>,
    #[command(flatten)]
    pool: PoolArgs,
    /// Burn this much CPU for each request
    #[arg(long, value_name = "D", default_value = "0s", value_parser = humantime::parse_duration)]
    #[arg(hide_default_value = true, hide_short_help = true, help_heading = groups::EXPERIMENTS)]
    #[arg(conflicts_with = "command")]
    work: Duration,
    /// Sleep this long for each request
    #[arg(long, value_name = "D", default_value = "0s", value_parser = humantime::parse_duration)]
    #[arg(hide_default_value = true, hide_short_help = true, help_heading = groups::EXPERIMENTS)]
    #[arg(conflicts_with = "command")]
    block: Duration,
    /// How connections are given to threads
    ///
    /// The pool, or to compare it with: a thread for every connection without bound, or behind a semaphore of
    /// as many permits as workers.
    #[arg(long, default_value = "pool", value_parser = model_parser())]
    #[arg(hide_short_help = true, help_heading = groups::EXPERIMENTS)]
    model: Model,
}

/// How connections are given to threads.
#[derive(Debug, Clone, Copy)]
enum Model {
    Pool,
    Threads(Bound),
}

fn model_parser() -> impl TypedValueParser<Value = Model> {
    PossibleValuesParser::new(["pool", "spawn", "limit"]).map(|name| match &*name {
        "spawn" => Model::Threads(Bound::None),
        "limit" => Model::Threads(Bound::Workers),
        _ => Model::Pool,
    })
}

impl Model {
    fn serve(self, builder: Builder, app: impl Handler) -> overfall::Result<Handle> {
        match self {
            Self::Pool => builder.serve_handler(app),
            Self::Threads(bound) => baseline::serve(builder, bound, app),
        }
    }
}

/// Runs the server until a signal ends it.
pub(super) fn run(args: Args, given: Values) -> anyhow::Result<ExitCode> {
    let busy_reply = BusyReply::from(args.pool.busy_reply().to_vec());
    let experiment = Experiment { work: args.work, block: args.block, busy_reply: busy_reply.clone() };
    let reload = Reload::new(given, &LIVE, move |handle: &Handle, args: Args| {
        let kept = handle.reload(args.pool.builder()?)?;
        busy_reply.set(args.pool.busy_reply().to_vec());
        Ok(kept)
    });
    let Args { pool, app, cgi: is_cgi, command, model, .. } = args;
    let program = program(command)?.map(|program| program.busy_reply(experiment.busy_reply.clone()));
    let speaks = match (&program, &*app) {
        (Some(_), _) if is_cgi => Speaks::Http,
        (None, "http") => Speaks::Http,
        (None, "hello") => Speaks::Either,
        _ => Speaks::Tcp,
    };
    let is_encrypted = pool.is_encrypted();
    let tip = |addr| Some(tip(speaks, is_encrypted, addr));
    pool::run(&pool, "127.0.0.1:8888", reload, tip, |builder| match (program, &*app) {
        (Some(program), _) if is_cgi => model.serve(builder, cgi(program.open_files(limits::soft_found()))),
        (Some(program), _) => model.serve(builder, program.open_files(limits::soft_found())),
        (None, "echo") => model.serve(builder, Echo { experiment }),
        (None, "http") => model.serve(builder, web(experiment)),
        (None, _) => model.serve(builder, either(experiment)),
    })
}

/// The program that is to be served, if it is one.
fn program(command: Vec<OsString>) -> Result<Option<Program>, Wrong> {
    let mut command = command.into_iter();
    let Some(name) = command.next() else { return Ok(None) };
    if !is_program(&name) {
        let name = name.display();
        return Err(Wrong(format!("COMMAND is {name}, which is no program; give one that can be executed")));
    }
    Ok(Some(command.fold(Program::new(name), Program::arg)))
}

/// Whether a program can be started by this name.
fn is_program(name: &OsStr) -> bool {
    let is_one =
        |path: PathBuf| path.is_file() && rustix::fs::access(&path, rustix::fs::Access::EXEC_OK).is_ok();
    if Path::new(name).components().count() > 1 {
        return is_one(name.into());
    }
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|directory| is_one(directory.join(name))))
}

/// What clients of an app are to speak.
#[derive(Debug, Clone, Copy)]
enum Speaks {
    Tcp,
    Http,
    Either,
}

/// What somebody may try who sees this for the first time.
fn tip(speaks: Speaks, is_encrypted: bool, mut addr: SocketAddr) -> String {
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    let curl = if is_encrypted { format!("curl -k https://{addr}/") } else { format!("curl http://{addr}/") };
    let raw = match is_encrypted {
        true => format!("openssl s_client -quiet -connect {addr}"),
        false => format!("nc {} {}", addr.ip(), addr.port()),
    };
    match speaks {
        Speaks::Tcp => format!("try {raw}"),
        Speaks::Http => format!("try {curl}"),
        Speaks::Either => format!("try {curl} or echo hi | {raw}"),
    }
}
