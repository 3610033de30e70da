//! What HAProxy's `agent-check` is answered: whether the server is up, whether it is to be drained, and how
//! much of its usual load it can take. It does not know how the weight is found.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    figures::Source,
    readiness::Readiness,
    sums::Sums,
    weight::{Seen, weight},
};
use crate::session::{
    connection::Connection,
    handler::{Handler, Next},
};

/// For so long after its start it is said that the server is ready again: the one before it may have said
/// that it is to be drained, which only this takes back. Later, who drains it has done so on purpose.
const COMES_BACK: Duration = Duration::from_secs(60);
/// What is said is of the last one or two of these.
const WINDOW: Duration = Duration::from_secs(1);

/// The handler of connections that ask.
pub(super) struct Agent {
    source: Source,
    began: Instant,
    marks: Mutex<Marks>,
}

impl Agent {
    pub(super) fn new(source: Source) -> Self {
        let now = Instant::now();
        let mark = Mark { at: now, sums: source.sums() };
        Self { source, began: now, marks: Mutex::new(Marks { older: mark, newer: mark }) }
    }

    fn line(&self) -> String {
        let now = Instant::now();
        let seen = self.marks.lock().look(Mark { at: now, sums: self.source.sums() });
        let weight = weight(&seen, self.source.tolerance());
        line(self.source.readiness(), weight, now < self.began + COMES_BACK)
    }
}

/// What is answered, which `configuration.txt` of HAProxy describes under `agent-check`.
fn line(readiness: Readiness, weight: u32, comes_back: bool) -> String {
    match (readiness, readiness.reason()) {
        (Readiness::Leaving | Readiness::Draining, _) => "drain\n".into(),
        (Readiness::Failed(_) | Readiness::NoUpstream, reason) => {
            format!("down #{}\n", reason.unwrap_or_default())
        }
        (Readiness::Ready, _) if comes_back => format!("up ready {weight}%\n"),
        (Readiness::Ready, _) => format!("up {weight}%\n"),
    }
}

impl Handler for Agent {
    type State = ();

    /// Says the line. Who asks ends its side then; others are closed after a moment.
    fn open(&self, connection: &mut Connection<'_>) -> io::Result<()> {
        connection.write_all(self.line().as_bytes())
    }

    fn ready(&self, _: &mut Connection<'_>, (): &mut ()) -> io::Result<Next> {
        Ok(Next::Close)
    }
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    sums: Sums,
}

/// What was so one or two windows ago.
#[derive(Debug)]
struct Marks {
    older: Mark,
    newer: Mark,
}

impl Marks {
    /// What has come since the older one, which goes when the newer one is old enough.
    fn look(&mut self, now: Mark) -> Seen {
        if now.at.saturating_duration_since(self.newer.at) >= WINDOW {
            (self.older, self.newer) = (self.newer, now);
        }
        let (since, sums) = (self.older.sums, now.sums);
        let waits = sums.waits.saturating_sub(since.waits);
        let waited = sums.waited.saturating_sub(since.waited);
        Seen {
            window: now.at.saturating_duration_since(self.older.at),
            served: sums.served.saturating_sub(since.served),
            refused: sums.refused.saturating_sub(since.refused),
            wait: waited.checked_div(u32::try_from(waits).unwrap_or(u32::MAX)).unwrap_or_default(),
            shut: sums.shut.saturating_sub(since.shut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_follows_from_the_state() {
        let cases = [
            (Readiness::Ready, true, "up ready 70%\n"),
            (Readiness::Ready, false, "up 70%\n"),
            (Readiness::Leaving, true, "drain\n"),
            (Readiness::Draining, false, "drain\n"),
            (Readiness::NoUpstream, true, "down #no upstream is up\n"),
            (Readiness::Failed("a worker"), false, "down #a worker has died\n"),
        ];
        for (readiness, comes_back, said) in cases {
            assert_eq!(line(readiness, 70, comes_back), said, "{readiness:?}");
        }
    }

    #[test]
    fn what_is_seen_is_of_the_last_one_or_two_windows() {
        const MS: Duration = Duration::from_millis(1);
        let t = Instant::now();
        // Each millisecond one is answered that has waited for 3 ms.
        let mark = |ms: u32| {
            let count = u64::from(ms);
            let sums = Sums { served: count, refused: 0, waits: count, waited: 3 * ms * MS, shut: MS };
            Mark { at: t + ms * MS, sums }
        };
        let mut marks = Marks { older: mark(0), newer: mark(0) };
        // When it is looked, and since when it is seen.
        for (now, since) in
            [(100, 0), (900, 0), (1000, 0), (1500, 0), (2000, 1000), (2900, 1000), (9000, 2000)]
        {
            let seen = marks.look(mark(now));
            assert_eq!(seen.window, (now - since) * MS, "{now}");
            assert_eq!((seen.served, seen.wait), (u64::from(now - since), 3 * MS));
        }
    }
}
