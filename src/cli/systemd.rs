//! What a service manager is told (`sd_notify(3)`), where there is one. It does not know what is served.

use std::{fmt, io, thread, time::Duration};

use sd_notify::NotifyState;

use super::{sockets, usage::Wrong};

/// Whether it can be understood what the manager says about its watchdog: without that, a server that hangs
/// would not be started again, and nobody would know.
pub(super) fn check() -> Result<(), Wrong> {
    ["WATCHDOG_PID", "WATCHDOG_USEC"].into_iter().try_for_each(|name| sockets::number(name).map(drop))
}

/// Says that it serves, and where.
pub(super) fn serving(addrs: &[impl fmt::Display]) {
    let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("Serving on {}", addrs.join(", ")))]);
}

/// Says that it is to end.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("Draining")]);
}

/// Says that another process takes this one's place.
pub(super) fn succeeded_by(process: u32) {
    tell(&[NotifyState::MainPid(process)]);
}

/// Says that its settings are being read again; [`serving`] is to follow.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("Reloading")]),
        Err(error) => tracing::warn!(%error, "the time is not known"),
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager at NOTIFY_SOCKET cannot be told how it goes");
    }
}

/// Where the manager wants to hear from this process at intervals, tells it so from a thread, as long as it
/// is well: `is_well` has so long to find out.
pub(super) fn watch(is_well: impl Fn(Duration) -> bool + Send + 'static) -> io::Result<()> {
    let Some(interval) = sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero()) else {
        return Ok(());
    };
    // As sd_watchdog_enabled(3) advises.
    let half = (interval / 2).max(Duration::from_millis(1));
    let watch = move || {
        loop {
            if is_well(half / 2) {
                tell(&[NotifyState::Watchdog]);
            }
            thread::sleep(half);
        }
    };
    thread::Builder::new().name("watchdog".into()).spawn(watch).map(drop)
}
