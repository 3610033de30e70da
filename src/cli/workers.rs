//! What USR1 shows of the workers: what they do with their time, the calls that have run longest, and how many
//! workers would be better. It knows no signals.

use std::{fmt, time::Duration};

use overfall::{Advice, Handle, RunningCall, WorkersReport};
use parking_lot::Mutex;

/// What was shown last.
static SHOWN: Mutex<Option<WorkersReport>> = Mutex::new(None);

/// What is to be shown now; shares are those of the time since it was shown last, or since the start.
pub(super) fn status(handle: &Handle) -> impl fmt::Display + use<> {
    let (now, advice) = (handle.workers(), handle.advice());
    let before = SHOWN.lock().replace(now.clone()).unwrap_or_default();
    Status { now, before, advice }
}

struct Status {
    now: WorkersReport,
    before: WorkersReport,
    advice: Option<Advice>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { now, before, advice } = self;
        if now.count == 0 {
            return Ok(());
        }
        row(f, "workers", now.count)?;
        for (name, share) in shares(now, before) {
            row(f, name, format_args!("{:.1}", share * 100.0))?;
        }
        for call in &now.longest {
            row(f, "longest_call", Listed(call))?;
        }
        advice.as_ref().map_or(Ok(()), |advice| row(f, "advice", advice))
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{name:<25}{value}")
}

/// What the workers have spent their time on since then, as shares of it.
fn shares(now: &WorkersReport, before: &WorkersReport) -> Vec<(&'static str, f64)> {
    let passed = |of: fn(&WorkersReport) -> Duration| of(now).saturating_sub(of(before));
    let spent = [
        ("workers_handling_percent", passed(|report| report.handling)),
        ("workers_reading_percent", passed(|report| report.reading)),
        ("workers_writing_percent", passed(|report| report.writing)),
        ("workers_idle_percent", passed(|report| report.idle)),
    ];
    let all: Duration = spent.iter().map(|(_, time)| *time).sum();
    let cpu = now.cpu.map(|_| ("workers_cpu_percent", passed(|report| report.cpu.unwrap_or_default())));
    let share = |time: Duration| if all.is_zero() { 0.0 } else { time.as_secs_f64() / all.as_secs_f64() };
    spent.into_iter().chain(cpu).map(|(name, time)| (name, share(time))).collect()
}

/// A call that is running, on a line.
struct Listed<'a>(&'a RunningCall);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RunningCall { worker, running_for, state, client, doing, .. } = self.0;
        write!(f, "worker {worker}, {state}, for {:.3} s", running_for.as_secs_f64())?;
        if let Some(client) = client {
            write!(f, ", {client}")?;
        }
        doing.as_ref().map_or(Ok(()), |doing| write!(f, ", {doing}"))
    }
}
