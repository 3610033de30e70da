//! The flag that says how often names are resolved again. It does not know whose names they are.

use std::time::Duration;

use super::groups;

#[derive(Debug, clap::Args)]
pub(super) struct ResolveArgs {
    /// How often names of upstreams are resolved again
    ///
    /// Each of their addresses is an upstream.
    #[arg(long, value_name = "D", default_value = "5s", value_parser = humantime::parse_duration)]
    #[arg(help_heading = groups::UPSTREAMS, hide_short_help = true)]
    pub(super) resolve_interval: Duration,
}
