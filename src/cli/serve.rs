//! The command `overfall serve`: its flags, and which app they stand for. It does not know how the app is
//! served.

use std::{process::ExitCode, time::Duration};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use overfall::{
    Builder, BusyReply, Handle, Handler,
    apps::{Echo, Experiment, Hello, web},
    baseline::{self, Bound},
};

use super::{
    command_line::Values,
    groups, help,
    pool::{self, LIVE, PoolArgs},
    reload::Reload,
};

const EXAMPLES: [(&str, &str); 2] = [
    (
        "Answer at http://127.0.0.1:8888/, with a page at http://127.0.0.1:9901/",
        "overfall serve --app http --admin 9901",
    ),
    ("Send back what comes, to whoever can reach this machine", "overfall serve --app echo --listen :8888"),
];

/// Serve TCP with a fixed pool of workers behind a bounded queue.
///
/// TERM and INT drain and end it, a second one ends it at once; USR1 prints the counters; HUP reads --config
/// and certificates again, and drains where there is neither; USR2 starts the program anew, as it is on the
/// disk then, and hands over to it without a gap.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true, after_long_help = help::examples(&EXAMPLES))]
pub(super) struct Args {
    /// What to serve: hello, echo or http
    ///
    /// "Hello, client!" once, what comes until the client ends its side, or "Hello, client!" over HTTP.
    #[arg(long, default_value = "hello", value_parser = ["hello", "echo", "http"])]
    #[arg(hide_possible_values = true, help_heading = groups::SERVING)]
    app: String,
    #[command(flatten)]
    pool: PoolArgs,
    /// Burn this much CPU for each request
    #[arg(long, value_name = "D", default_value = "0s", value_parser = humantime::parse_duration)]
    #[arg(hide_default_value = true, hide_short_help = true, help_heading = groups::EXPERIMENTS)]
    work: Duration,
    /// Sleep this long for each request
    #[arg(long, value_name = "D", default_value = "0s", value_parser = humantime::parse_duration)]
    #[arg(hide_default_value = true, hide_short_help = true, help_heading = groups::EXPERIMENTS)]
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
    pool::run(&args.pool, "127.0.0.1:8888", reload, |builder| match &*args.app {
        "echo" => args.model.serve(builder, Echo { experiment }),
        "http" => args.model.serve(builder, web(experiment)),
        _ => args.model.serve(builder, Hello { experiment }),
    })
}
