//! Sees a server's load over the last minute, and says what follows from it. It knows neither workers nor who
//! asks.

use std::{
    collections::VecDeque,
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    advice::{Advice, Insistence, SHORTEST, Seen, advise},
    config::MOST_WORKERS,
};
use crate::{
    session::activity::{At, Spent},
    sys::threads::OnCpu,
};

/// What was longer ago says nothing of the load as it is now.
const WINDOW: Duration = Duration::from_secs(60);
/// Samples that are taken sooner after another are not kept.
const APART: Duration = Duration::from_secs(5);

/// What has been counted up to one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) answered: u64,
    pub(super) turned_away: u64,
    /// How many have waited, and for how long together.
    pub(super) waits: (u64, Duration),
    pub(super) spent: Spent,
    pub(super) on_cpu: OnCpu,
}

#[derive(Debug)]
pub(super) struct Advisor {
    workers: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Those of the last minute, oldest first.
    samples: VecDeque<Sample>,
    insistence: Insistence,
    looked: Instant,
}

impl Advisor {
    /// Of a server with so many workers.
    pub(super) fn new(workers: usize, now: Instant) -> Self {
        let state = State { samples: VecDeque::new(), insistence: Insistence::default(), looked: now };
        Self { workers, state: Mutex::new(state) }
    }

    /// What follows from this sample and those of the last minute.
    pub(super) fn ask(&self, sample: Sample) -> Option<Advice> {
        let state = &mut *self.state.lock();
        let before = add(&mut state.samples, sample)?;
        advise(&seen(self.workers, &before, &sample), MOST_WORKERS)
    }

    /// Whether it is time to look again whether the log is to say something.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.state.lock().looked) >= SHORTEST
    }

    /// Says in the log what is advised, where that is called for.
    pub(super) fn look(&self, sample: Sample) {
        let advice = self.ask(sample);
        let mut state = self.state.lock();
        let passed = sample.at.saturating_duration_since(state.looked);
        state.looked = sample.at;
        if state.insistence.says(passed, advice.as_ref())
            && let Some(advice) = advice
        {
            tracing::warn!(workers = advice.workers, wanted = advice.wanted, "too few workers: {advice}");
        }
    }
}

/// Keeps a sample if it is not too near to another, and gives the oldest that is neither too near nor too long
/// ago to be compared with it.
fn add(samples: &mut VecDeque<Sample>, sample: Sample) -> Option<Sample> {
    let age = |of: &Sample| sample.at.saturating_duration_since(of.at);
    while samples.front().is_some_and(|oldest| age(oldest) > WINDOW) {
        samples.pop_front();
    }
    let before = samples.front().copied();
    if samples.back().is_none_or(|latest| age(latest) >= APART) {
        samples.push_back(sample);
    }
    before.filter(|before| age(before) >= SHORTEST)
}

/// What was seen between two samples.
fn seen(workers: usize, before: &Sample, now: &Sample) -> Seen {
    let spent = now.spent.zip(before.spent, Duration::saturating_sub);
    let waited = u32::try_from(now.waits.0 - before.waits.0).unwrap_or(u32::MAX);
    Seen {
        window: now.at.saturating_duration_since(before.at),
        workers,
        cpus: thread::available_parallelism().map_or(1, usize::from),
        answered: now.answered - before.answered,
        turned_away: now.turned_away - before.turned_away,
        wait: now.waits.1.saturating_sub(before.waits.1).checked_div(waited).unwrap_or_default(),
        handling: spent.at(At::Handling),
        reading: spent.at(At::Reading),
        writing: spent.at(At::Writing),
        ran: now.on_cpu.ran.saturating_sub(before.on_cpu.ran),
        delayed: now.on_cpu.delayed.saturating_sub(before.on_cpu.delayed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Instant, answered: u64) -> Sample {
        Sample {
            at,
            answered,
            turned_away: 2 * answered,
            waits: (answered, Duration::from_secs(answered)),
            spent: Spent::default(),
            on_cpu: OnCpu { ran: Duration::from_millis(answered), delayed: Duration::ZERO },
        }
    }

    #[test]
    fn a_sample_is_compared_with_the_oldest_of_the_last_minute() {
        let (t, mut samples) = (Instant::now(), VecDeque::new());
        // When it is taken, the one that it is compared with, and how many are kept then.
        let table = [
            (0, None, 1),
            (4, None, 1),
            (9, None, 2),
            (10, Some(0), 2),
            (59, Some(0), 3),
            (60, Some(0), 3),
            (61, Some(9), 2),
            (64, Some(9), 3),
            (200, None, 1),
            (205, None, 2),
            (210, Some(200), 3),
        ];
        for (s, expected, kept) in table {
            let before = add(&mut samples, sample(t + Duration::from_secs(s), s));
            assert_eq!(before.map(|before| before.answered), expected, "{s}");
            assert_eq!(samples.len(), kept, "{s}");
        }
        for s in 300..100_000 {
            add(&mut samples, sample(t + Duration::from_secs(s), s));
        }
        assert!(samples.len() <= 13);
    }

    #[test]
    fn what_was_seen_is_the_difference() {
        let t = Instant::now();
        let seen = seen(4, &sample(t, 100), &sample(t + Duration::from_secs(20), 150));
        assert_eq!((seen.workers, seen.window), (4, Duration::from_secs(20)));
        assert_eq!((seen.answered, seen.turned_away), (50, 100));
        assert_eq!((seen.wait, seen.ran), (Duration::from_secs(1), Duration::from_millis(50)));
    }
}
