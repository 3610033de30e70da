//! The flag that says how often names are resolved again. It does not know whose names they are.

use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct ResolveArgs {
    /// How often names of upstreams are resolved again; each of their addresses is an upstream
    #[arg(long, value_name = "D", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(super) resolve_interval: Duration,
}
