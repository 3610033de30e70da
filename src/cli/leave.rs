//! How a service ends at a signal: at once, or after those have had time to hear of it who send it clients.
//! It does not know which signal that was.

use std::{sync::Arc, thread, time::Duration};

use overfall::admin::Watched;

use super::groups;

#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct LeaveArgs {
    /// From TERM to the end of accepting
    ///
    /// At TERM /readyz and the agent begin to say no; until the end of accepting everybody is served as
    /// before.
    #[arg(long, value_name = "D", default_value = "0s", value_parser = humantime::parse_duration)]
    #[arg(help_heading = groups::TIMEOUTS, hide_short_help = true)]
    shutdown_delay: Duration,
}

impl LeaveArgs {
    /// Says that the service is going to end, and has it drain when the time has come.
    pub(super) fn leave<W: Watched>(&self, running: &Arc<W>) {
        running.handle().announce_shutdown();
        let delay = self.shutdown_delay;
        if delay.is_zero() {
            return running.handle().shutdown();
        }
        tracing::info!("everybody is served for {} more", humantime::format_duration(delay));
        let later = Arc::clone(running);
        let drain = move || {
            thread::sleep(delay);
            tracing::info!("accepting nobody new");
            later.handle().shutdown();
        };
        // Whoever hears the signals is to hear the next one meanwhile.
        if thread::Builder::new().name("leaving".into()).spawn(drain).is_err() {
            running.handle().shutdown();
        }
    }
}
