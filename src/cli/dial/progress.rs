//! Dials, and shows on a terminal meanwhile which targets are still open. It does not judge how they fared.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use overfall::dial::{Cancel, Config, Outcome, dial_with};

/// How long a wait may be before it is shown.
const PROGRESS_AFTER: Duration = Duration::from_millis(500);

/// Dials; on a terminal, a longer wait shows which targets are still open.
pub(super) fn dial_and_show(
    targets: &[String],
    config: &Config,
    cancel: &Cancel,
    quiet: bool,
) -> overfall::Result<Vec<Outcome>> {
    let (settled, news) = mpsc::channel();
    thread::scope(|scope| {
        if io::stderr().is_terminal() && !quiet {
            scope.spawn(|| show_open(targets, news));
        }
        let settled = move |index, _: &Outcome| {
            // Nobody listens where there is no terminal.
            let _ = settled.send(index);
        };
        dial_with(targets, config, cancel, &settled)
    })
}

fn show_open(targets: &[String], news: mpsc::Receiver<usize>) {
    let mut open: BTreeMap<usize, &String> = targets.iter().enumerate().collect();
    let begun = Instant::now();
    let mut bar: Option<ProgressBar> = None;
    loop {
        let patience = PROGRESS_AFTER.saturating_sub(begun.elapsed());
        match news.recv_timeout(if bar.is_some() { Duration::from_millis(100) } else { patience }) {
            Ok(index) => drop(open.remove(&index)),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bar.get_or_insert_with(ProgressBar::new_spinner).set_message(still_open(&open));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
        if let Some(bar) = &bar {
            bar.tick();
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

fn still_open(open: &BTreeMap<usize, &String>) -> String {
    const NAMED: usize = 3;
    let named: Vec<_> = open.values().take(NAMED).map(|target| target.as_str()).collect();
    let more = open.len().saturating_sub(NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("waiting for {}{rest}", named.join(", "))
}
