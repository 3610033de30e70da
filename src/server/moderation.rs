//! Whether the acceptor naps when newcomers come thick and fast: policy alone, no clock.
//!
//! To be woken for each newcomer costs more CPU than to accept it, and so does the waking of a worker for each.
//! Network cards have the same trouble and the same remedy, interrupt moderation. It pays only where several
//! newcomers come during a nap; a few clients that wait for their answers before they come again would be slowed
//! down by it, and show by coming in smaller numbers than before.
//!
//! Server on one core, 64 one-shot clients on another, CPU per connection: without naps 32 µs, with naps of four
//! newcomers 25 µs, and 18.5 µs where newcomers are left to the kernel until they have spoken as well.

use std::time::{Duration, Instant};

/// What a nap adds to a newcomer's latency at most, but for the kernel's timer slack of 50 µs.
const LONGEST: Duration = Duration::from_micros(400);
/// Newcomers to be expected in a nap.
const EXPECTED: u32 = 4;
/// How long newcomers are counted before anything is concluded.
const WINDOW: Duration = Duration::from_millis(20);
/// Newcomers that come in so much longer intervals than they did without naps are held up by them, when that is
/// seen twice in a row.
const SLOWER: f64 = 1.12;
/// How long there are naps before it is seen once more how it is without.
const RENEWED: Duration = Duration::from_secs(1);
/// When naps turn out not to pay, there is none for so long, and each time for twice as long.
const ABSTINENCE: Duration = Duration::from_millis(300);
const LONGEST_ABSTINENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Moderation {
    phase: Phase,
    /// When the window began, and how many have come in it.
    since: Instant,
    newcomers: u32,
    /// Whether somebody has come since it was last asked.
    any: bool,
    abstinence: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// It is seen how thick they come.
    Awake,
    Napping {
        /// Seconds between newcomers before there were naps.
        usual_s: f64,
        began: Instant,
        /// The last window had fewer than there should be.
        slow: bool,
    },
    Abstinent {
        until: Instant,
    },
}

impl Moderation {
    pub(super) fn new(now: Instant) -> Self {
        Self { phase: Phase::Awake, since: now, newcomers: 0, any: false, abstinence: ABSTINENCE }
    }

    /// Says that a newcomer was accepted.
    pub(super) fn newcomer(&mut self) {
        self.newcomers += 1;
        self.any = true;
    }

    /// Whether newcomers come so thick and fast that naps pay.
    pub(super) fn naps(&self) -> bool {
        matches!(self.phase, Phase::Napping { .. })
    }

    /// Says that nobody is left in the backlog. Gives how long to nap before waiting for more.
    pub(super) fn caught_up(&mut self, now: Instant) -> Option<Duration> {
        if now >= self.since + WINDOW {
            self.phase = self.conclude(now);
            (self.since, self.newcomers) = (now, 0);
        }
        let nap = |usual_s: f64| LONGEST.min(Duration::from_secs_f64(usual_s * f64::from(EXPECTED)));
        match self.phase {
            Phase::Napping { usual_s, .. } if std::mem::take(&mut self.any) => Some(nap(usual_s)),
            Phase::Awake | Phase::Napping { .. } | Phase::Abstinent { .. } => None,
        }
    }

    fn conclude(&mut self, now: Instant) -> Phase {
        let interval_s = (now - self.since).as_secs_f64() / f64::from(self.newcomers);
        match self.phase {
            Phase::Awake if interval_s * f64::from(EXPECTED) > LONGEST.as_secs_f64() => Phase::Awake,
            Phase::Awake => Phase::Napping { usual_s: interval_s, began: now, slow: false },
            Phase::Napping { usual_s, slow, .. } if interval_s > usual_s * SLOWER => {
                if !slow {
                    return Phase::Napping { usual_s, began: now, slow: true };
                }
                let abstinence = self.abstinence;
                self.abstinence = LONGEST_ABSTINENCE.min(2 * abstinence);
                Phase::Abstinent { until: now + abstinence }
            }
            Phase::Napping { began, .. } if now >= began + RENEWED => {
                self.abstinence = ABSTINENCE;
                Phase::Awake
            }
            Phase::Napping { usual_s, began, .. } => Phase::Napping { usual_s, began, slow: false },
            Phase::Abstinent { until } if now < until => Phase::Abstinent { until },
            Phase::Abstinent { .. } => Phase::Awake,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// The share of so much time in which it naps, while newcomers come one after the other with this between them
    /// where it does not nap, and with that where it does.
    fn naps(awake: Duration, napping: Duration, time: Duration) -> f64 {
        let began = Instant::now();
        let mut now = began;
        let mut moderation = Moderation::new(now);
        let mut napped = Duration::ZERO;
        while now < began + time {
            let next = if moderation.naps() { napping } else { awake };
            now += next;
            moderation.newcomer();
            moderation.caught_up(now);
            if moderation.naps() {
                napped += next;
            }
        }
        napped.div_duration_f64(now - began)
    }

    #[test]
    fn it_naps_only_when_newcomers_come_thick_and_fast() {
        let second = 1_000_000 * US;
        assert_eq!(naps(1000 * US, 1000 * US, second), 0.0);
        assert_eq!(naps(101 * US, 101 * US, second), 0.0);
        assert!(naps(99 * US, 99 * US, 10 * second) > 0.95);
        assert!(naps(10 * US, 10 * US, 10 * second) > 0.95);
    }

    #[test]
    fn a_nap_is_as_long_as_few_newcomers_take_and_none_comes_without_a_newcomer() {
        for (interval, nap) in [(90 * US, 360 * US), (25 * US, 100 * US)] {
            let mut now = Instant::now();
            let mut moderation = Moderation::new(now);
            let mut last = None;
            for _ in 0..2000 {
                now += interval;
                moderation.newcomer();
                last = moderation.caught_up(now);
            }
            let last = last.unwrap();
            assert!(last > nap.mul_f64(0.95) && last < nap.mul_f64(1.05), "{last:?}");
            assert_eq!(moderation.caught_up(now), None);
        }
    }

    #[test]
    fn naps_that_hold_clients_up_are_given_up_for_ever_longer() {
        let second = 1_000_000 * US;
        assert!(naps(45 * US, 60 * US, second) < 0.2);
        assert!(naps(45 * US, 60 * US, 20 * second) < 0.04);
        // What is lost in the noise is not worth it.
        assert!(naps(45 * US, 50 * US, 20 * second) > 0.95);
    }
}
