//! How much of its usual load a server can take, by what became of those who asked of late: policy alone,
//! no clock and no counters.

use std::time::Duration;

/// What became of those who asked within a while.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) window: Duration,
    pub(super) served: u64,
    /// Told no: at the door, or after they had waited.
    pub(super) refused: u64,
    /// How long those who were served had waited, on average.
    pub(super) wait: Duration,
    /// For how long nobody was let in at all.
    pub(super) shut: Duration,
}

/// Waits of this share of the tolerance are nothing to speak of.
const SHORT: f64 = 0.1;
/// It is never less than this: whoever gets nothing cannot show that it could do more.
const LEAST: f64 = 1.0;

/// The weight in hundredths, 1 to 100: all while nobody waits for long, less the longer they wait up to the
/// tolerance, and only for the share of those who are served at all. So balancers who go by it send what
/// can be served.
pub(super) fn weight(seen: &Seen, tolerance: Duration) -> u32 {
    let waits = seen.wait.as_secs_f64() / tolerance.as_secs_f64();
    let calm = 1.0 - ((waits - SHORT) / (1.0 - SHORT)).clamp(0.0, 1.0);
    let asked = (seen.served + seen.refused).max(1) as f64;
    let let_in = 1.0 - seen.refused as f64 / asked;
    let open =
        1.0 - (seen.shut.as_secs_f64() / seen.window.as_secs_f64().max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
    // It is between the two.
    (100.0 * calm * let_in * open).round().max(LEAST) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_falls_with_the_wait_and_with_those_who_are_refused() {
        const MS: Duration = Duration::from_millis(1);
        // The wait; how many were served and refused; for how long of two seconds nobody was let in.
        let cases = [
            (0, 0, 0, 0, 100),
            (0, 1000, 0, 0, 100),
            (40, 1000, 0, 0, 100),
            (130, 1000, 0, 0, 75),
            (220, 1000, 0, 0, 50),
            (399, 1000, 0, 0, 1),
            (400, 1000, 0, 0, 1),
            (10_000, 1000, 0, 0, 1),
            // The line is kept short, so that nobody waits, but not everybody is let in.
            (10, 1000, 1000, 0, 50),
            (10, 1000, 0, 1000, 50),
            (220, 1000, 1000, 1000, 13),
            (10, 100, 100_000, 0, 1),
            (0, 0, 10, 0, 1),
            (0, 0, 0, 2000, 1),
            (0, 0, 0, 5000, 1),
        ];
        for (wait, served, refused, shut, expected) in cases {
            let seen = Seen { window: 2000 * MS, served, refused, wait: wait * MS, shut: shut * MS };
            assert_eq!(weight(&seen, 400 * MS), expected, "{seen:?}");
        }
    }
}
