//! How many workers a load wants, and why: policy alone, no clock and no counters. Little's law and the share
//! of their time for which calls want a CPU decide.

use std::{fmt, time::Duration};

/// What was seen of a server within a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Seen {
    pub(super) window: Duration,
    pub(super) workers: usize,
    /// CPUs that this process may use.
    pub(super) cpus: usize,
    /// Requests that were answered, and clients that were refused, shed, or gone before their turn came.
    pub(super) answered: u64,
    pub(super) turned_away: u64,
    /// How long those who were served had waited, on average.
    pub(super) wait: Duration,
    /// The workers' time in handlers, and waiting for clients to send and to take.
    pub(super) handling: Duration,
    pub(super) reading: Duration,
    pub(super) writing: Duration,
    /// For how long they had a CPU, and for how long they waited for one.
    pub(super) ran: Duration,
    pub(super) delayed: Duration,
}

impl Seen {
    /// The workers' time in calls.
    fn held(&self) -> Duration {
        self.handling + self.reading + self.writing
    }
}

/// Less says too little.
pub(super) const SHORTEST: Duration = Duration::from_secs(10);
const FEWEST: u64 = 50;
/// Of the workers' time, this share is to be taken: else those who are idle would do.
const BUSY: f64 = 0.8;
/// Waits of this length are of no concern.
const SHORT_WAIT: Duration = Duration::from_millis(10);
/// For load that comes and goes, workers are to be busy for this share of their time.
const AIM: f64 = 0.8;
/// It is worth saying where so many times the workers are wanted, and the number is far off where so many are.
const NOTABLE: f64 = 2.0;
const FAR: f64 = 4.0;

/// How many workers the load of a server wants, where that is many more than it has.
///
/// It is said only while clients wait or are refused, all workers are busy, and more of them would use CPUs
/// that are idle now. Its `Display` is a sentence that says why.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Advice {
    /// How many workers there are.
    pub workers: usize,
    /// How many this load wants.
    pub wanted: usize,
    /// The share of their time for which the workers' calls waited and wanted no CPU, 0 to 1.
    pub waiting: f64,
    /// What they waited for, for the most part.
    pub waiting_for: WaitingFor,
    /// The CPUs that the process may use.
    pub cpus: usize,
    /// What decides how many workers are wanted.
    pub decided_by: DecidedBy,
}

/// What workers wait for in the middle of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitingFor {
    /// Whatever the handler waits for by itself: a disk, a database, another server.
    Handlers,
    /// Clients that are sending.
    Senders,
    /// Clients that take what was written.
    Takers,
}

/// What decides how many workers are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecidedBy {
    /// The CPUs: more workers would find none.
    Cpus,
    /// The load: it would be served by fewer than the CPUs have room for.
    Load,
    /// The most that there may be.
    Limit,
}

impl Advice {
    /// Whether there are less than a quarter of the workers that are wanted.
    pub fn is_far_off(&self) -> bool {
        self.wanted as f64 >= FAR * self.workers as f64
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers, wanted, waiting, cpus, .. } = self;
        let (what, share) = if *waiting < 0.5 { ("compute", 1.0 - waiting) } else { ("wait", *waiting) };
        write!(f, "handlers {what} {:.0} % of their time", share * 100.0)?;
        f.write_str(match self.waiting_for {
            WaitingFor::Senders if *waiting >= 0.5 => ", mostly for clients to send: ",
            WaitingFor::Takers if *waiting >= 0.5 => ", mostly for clients to read: ",
            WaitingFor::Handlers | WaitingFor::Senders | WaitingFor::Takers => ": ",
        })?;
        match self.decided_by {
            DecidedBy::Cpus if *cpus == 1 => write!(f, "{wanted} workers would use this CPU")?,
            DecidedBy::Cpus => write!(f, "{wanted} workers would use these {cpus} CPUs")?,
            DecidedBy::Load => write!(f, "{wanted} workers would serve all who come")?,
            DecidedBy::Limit => {
                write!(f, "even {wanted} workers, the most that there may be, would be busy")?
            }
        }
        write!(f, "; now {workers}")
    }
}

/// How many workers this load wants, of at most so many; none where too little is known, where the number is
/// right within a factor of two, and where more would not help.
pub(super) fn advise(seen: &Seen, most: usize) -> Option<Advice> {
    let workers = seen.workers as f64;
    let (held_s, window_s) = (seen.held().as_secs_f64(), seen.window.as_secs_f64());
    let is_known = seen.window >= SHORTEST && seen.answered >= FEWEST;
    let is_pressed = seen.turned_away > 0 || seen.wait >= SHORT_WAIT;
    if !is_known || !is_pressed || held_s < BUSY * workers * window_s {
        return None;
    }
    // Who waits for a CPU would not get it sooner if there were more to wait.
    let working = ((seen.ran + seen.delayed).as_secs_f64() / held_s).clamp(1e-4, 1.0);
    let by_cpus = seen.cpus as f64 / working;
    // As many as are there at once: those who wait and are served, and those who were turned away, had they
    // been served.
    let service_s = held_s / seen.answered as f64;
    let present_s =
        seen.answered as f64 * (seen.wait.as_secs_f64() + service_s) + seen.turned_away as f64 * service_s;
    let by_load = present_s / window_s / AIM;
    let wanted = by_cpus.min(by_load);
    let decided_by = match () {
        () if wanted > most as f64 => DecidedBy::Limit,
        () if by_cpus <= by_load => DecidedBy::Cpus,
        () => DecidedBy::Load,
    };
    let wanted = (wanted.round() as usize).min(most);
    let advice = Advice {
        workers: seen.workers,
        wanted,
        waiting: 1.0 - working,
        waiting_for: waiting_for(seen),
        cpus: seen.cpus,
        decided_by,
    };
    (wanted as f64 >= NOTABLE * workers).then_some(advice)
}

fn waiting_for(seen: &Seen) -> WaitingFor {
    let waited = seen.held().saturating_sub(seen.ran + seen.delayed);
    match waited / 2 {
        half if seen.reading > half => WaitingFor::Senders,
        half if seen.writing > half => WaitingFor::Takers,
        _ => WaitingFor::Handlers,
    }
}

/// When what is advised is to be said in the log: where it has been far off for a while, and not again soon.
#[derive(Debug, Default)]
pub(super) struct Insistence {
    /// How long it has been far off, by the windows that said so.
    lasted: Duration,
    /// How long ago it was said.
    said: Option<Duration>,
}

/// What is far off for so long is said.
const PERSISTENT: Duration = Duration::from_secs(30);
/// And not again for so long.
const SILENCE: Duration = Duration::from_secs(600);
/// If nobody has looked for longer than this, it has not lasted: workers were idle.
const GAP: Duration = Duration::from_secs(20);

impl Insistence {
    /// Whether to say it now: so long after the last time that it was looked at, with what is advised now.
    pub(super) fn says(&mut self, passed: Duration, advice: Option<&Advice>) -> bool {
        self.said = self.said.map(|said| said + passed);
        if passed > GAP || !advice.is_some_and(Advice::is_far_off) {
            self.lasted = Duration::ZERO;
            return false;
        }
        self.lasted += passed;
        let says = self.lasted >= PERSISTENT && self.said.is_none_or(|said| said >= SILENCE);
        if says {
            self.said = Some(Duration::ZERO);
        }
        says
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);

    /// Four workers on two CPUs, all busy for 10 s with requests that take 100 ms, of which 8 ms on a CPU;
    /// three times as many come as are served.
    const USUAL: Seen = Seen {
        window: Duration::from_secs(10),
        workers: 4,
        cpus: 2,
        answered: 400,
        turned_away: 800,
        wait: Duration::from_millis(100),
        handling: Duration::from_secs(40),
        reading: Duration::ZERO,
        writing: Duration::ZERO,
        ran: Duration::from_millis(3200),
        delayed: Duration::ZERO,
    };

    #[test]
    fn what_is_seen_says_how_many_are_wanted_and_why() {
        let table = [
            (USUAL, "handlers wait 92 % of their time: 20 workers would serve all who come; now 4"),
            (
                Seen { turned_away: 8000, ..USUAL },
                "handlers wait 92 % of their time: 25 workers would use these 2 CPUs; now 4",
            ),
            (
                Seen { turned_away: 8000, cpus: 1, ran: 2 * S, ..USUAL },
                "handlers wait 95 % of their time: 20 workers would use this CPU; now 4",
            ),
            (
                Seen { turned_away: 1_000_000, ran: MS, ..USUAL },
                "handlers wait 100 % of their time: even 4096 workers, the most that there may be, would be \
                 busy; now 4",
            ),
            // Nobody is refused, but a closed loop of clients waits.
            (
                Seen { turned_away: 0, wait: 700 * MS, ..USUAL },
                "handlers wait 92 % of their time: 25 workers would use these 2 CPUs; now 4",
            ),
            (
                Seen { handling: 10 * S, reading: 30 * S, turned_away: 8000, ..USUAL },
                "handlers wait 92 % of their time, mostly for clients to send: 25 workers would use these \
                 2 CPUs; now 4",
            ),
            (
                Seen { handling: 10 * S, writing: 30 * S, turned_away: 8000, ..USUAL },
                "handlers wait 92 % of their time, mostly for clients to read: 25 workers would use these \
                 2 CPUs; now 4",
            ),
            // Computing alone, with fewer workers than CPUs.
            (
                Seen { cpus: 16, ran: 40 * S, turned_away: 8000, ..USUAL },
                "handlers compute 100 % of their time: 16 workers would use these 16 CPUs; now 4",
            ),
        ];
        for (seen, sentence) in table {
            let advice = advise(&seen, 4096).map(|advice| advice.to_string());
            assert_eq!(advice.as_deref(), Some(sentence), "{seen:?}");
        }
    }

    #[test]
    fn nothing_is_said_where_it_is_not_known_to_help() {
        let table = [
            ("too short a time", Seen { window: 9 * S, ..USUAL }),
            ("too few requests", Seen { answered: 49, ..USUAL }),
            ("nobody waits", Seen { turned_away: 0, wait: 9 * MS, ..USUAL }),
            ("workers are idle", Seen { handling: 31 * S, ..USUAL }),
            ("the CPUs are all in use", Seen { ran: 20 * S, ..USUAL }),
            ("others have the CPUs", Seen { delayed: 30 * S, ..USUAL }),
            ("within a factor of two", Seen { turned_away: 50, wait: 20 * MS, ..USUAL }),
            ("there may be no more", Seen { workers: 4096, handling: 41_000 * S, ..USUAL }),
            (
                "nothing was seen",
                Seen { window: Duration::ZERO, answered: 0, handling: Duration::ZERO, ..USUAL },
            ),
        ];
        for (why, seen) in table {
            assert_eq!(advise(&seen, 4096), None, "{why}");
        }
    }

    #[test]
    fn what_is_far_off_is_said_when_it_persists_and_not_again_soon() {
        let far = advise(&USUAL, 4096);
        let near = advise(&Seen { turned_away: 300, ..USUAL }, 4096);
        assert!(far.as_ref().is_some_and(Advice::is_far_off));
        assert!(near.as_ref().is_some_and(|advice| !advice.is_far_off()));
        let mut insistence = Insistence::default();
        // How long after the last look, what is advised then, and whether it is said.
        let looks = [
            (10, &far, false),
            (10, &far, false),
            (10, &None, false),
            (10, &far, false),
            (10, &near, false),
            (20, &far, false),
            (10, &far, true),
            (10, &far, false),
        ];
        for (index, (passed, advice, said)) in looks.into_iter().enumerate() {
            assert_eq!(insistence.says(passed * S, advice.as_ref()), said, "{index}");
        }
        let mut until_said = |passed| {
            let more = (1..1000).find(|_| insistence.says(passed * S, far.as_ref()));
            more.map(|looks| looks * passed)
        };
        assert_eq!(until_said(10), Some(590));
        assert_eq!(until_said(20), Some(600));
        // Workers were idle meanwhile.
        assert_eq!(until_said(21), None);
        assert_eq!(until_said(10), Some(30));
    }
}
