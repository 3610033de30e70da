//! What refusals may cost. It knows nobody who is refused.

use std::time::{Duration, Instant};

/// What refusals may cost: a share of one CPU, for the acceptor and the workers together.
///
/// With `k` times the load that can be served, a cost of `c` for a refusal and of `S` for a
/// request, refusing everybody leaves 1 - (k-1)·c/(S-c) of the goodput: for 10 µs, 1 ms and tenfold
/// load 91 %. Hence a budget, beyond which newcomers are left to the kernel, which turns them away
/// for nothing.
#[derive(Debug)]
pub(super) struct Budget {
    share: f64,
    /// What is left, in microseconds of CPU; less than nothing where it went into debt.
    left_us: f64,
    refilled: Instant,
    /// Mean cost of a refusal.
    cost_us: f64,
}

/// What is saved up at most, as time: a budget that was not used for a second is all there.
const SAVED: Duration = Duration::from_secs(1);
/// The deepest debt, as time.
const DEBT: Duration = Duration::from_millis(200);
/// When it is used up, so many refusals are saved up before the next, so that the acceptor need not
/// wake up for each.
const TOGETHER: f64 = 10.0;
/// The cost to begin with, until it was measured.
const ASSUMED_US: f64 = 16.0;
/// The weight of the latest cost.
const WEIGHT: f64 = 1.0 / 16.0;

impl Budget {
    pub(super) fn new(share: f64, now: Instant) -> Self {
        Self { share, left_us: share * us(SAVED), refilled: now, cost_us: ASSUMED_US }
    }

    /// Changes the share. What was earned with the old one is kept, as far as it may be saved.
    pub(super) fn change(&mut self, share: f64, now: Instant) {
        self.refill(now);
        self.share = share;
        self.left_us = self.left_us.clamp(-share * us(DEBT), share * us(SAVED));
    }

    /// Whether refusals may cost nothing, so that there are none.
    pub(super) fn is_nothing(&self) -> bool {
        self.share == 0.0
    }

    /// Whether there is something left; else when there will be.
    pub(super) fn ask(&mut self, now: Instant) -> Result<(), Instant> {
        self.refill(now);
        if self.left_us > 0.0 {
            return Ok(());
        }
        let missing_us = (TOGETHER * self.cost_us - self.left_us) / self.share.max(1e-6);
        Err(now + Duration::from_secs_f64((missing_us / 1e6).min(3600.0)))
    }

    /// Takes the cost of a refusal off, whatever is left.
    pub(super) fn charge(&mut self, cost: Duration) {
        let cost_us = us(cost);
        self.cost_us += (cost_us - self.cost_us) * WEIGHT;
        self.left_us = (self.left_us - cost_us).max(-self.share * us(DEBT));
    }

    /// Takes off what more a refusal costs that was charged before: the mean of all is left as it is.
    pub(super) fn charge_more(&mut self, cost: Duration) {
        self.left_us = (self.left_us - us(cost)).max(-self.share * us(DEBT));
    }

    fn refill(&mut self, now: Instant) {
        let earned_us = us(now.saturating_duration_since(self.refilled)) * self.share;
        self.refilled = now.max(self.refilled);
        self.left_us = (self.left_us + earned_us).min(self.share * us(SAVED));
    }
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn refusals_keep_to_their_share() {
        let t = Instant::now();
        let mut budget = Budget::new(0.03, t);
        let mut refused = 0;
        // Three seconds of newcomers every 50 µs, each of whom costs 10 µs to refuse.
        for tick in 0..60_000 {
            if budget.ask(t + tick * Duration::from_micros(50)).is_ok() {
                budget.charge(MS / 100);
                refused += 1;
            }
        }
        // 3 % of four seconds, since that of one was saved.
        assert!((11_900..=12_010).contains(&refused), "{refused}");
    }

    #[test]
    fn debt_is_paid_back_before_the_next_and_is_bounded() {
        let t = Instant::now();
        let mut budget = Budget::new(0.1, t);
        budget.charge(105 * MS);
        let until = budget.ask(t).unwrap_err();
        assert!(until > t + 50 * MS, "{:?}", until - t);
        assert!(budget.ask(t + 49 * MS).is_err());
        assert!(budget.ask(t + 51 * MS).is_ok());
        budget.charge(10_000 * MS);
        assert!(budget.ask(t + 51 * MS + DEBT + MS).is_ok());
    }

    #[test]
    fn another_share_counts_from_now_on() {
        let t = Instant::now();
        let second = 1000 * MS;
        let mut budget = Budget::new(0.0, t);
        assert!(budget.is_nothing() && budget.ask(t + second).is_err());
        budget.change(0.1, t + second);
        assert!(!budget.is_nothing() && budget.ask(t + second).is_err());
        assert!(budget.ask(t + second + MS).is_ok());
        // What was saved is kept only as far as it might have been saved.
        budget.change(0.01, t + 3 * second);
        budget.charge(10 * MS);
        assert!(budget.ask(t + 3 * second).is_err());
    }

    #[test]
    fn without_a_budget_nobody_is_refused() {
        let t = Instant::now();
        assert!(Budget::new(0.0, t).ask(t + 1000 * MS).is_err());
    }
}
