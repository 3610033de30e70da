//! What is made of the figures: quantiles, medians over rounds, ratios, and the capacity search.
//! It does not know what they are figures of.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Latencies in microseconds, to three significant digits.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        // One hour at most; what is longer counts as that.
        Self(Histogram::new_with_max(3_600_000_000, 3).expect("three digits are in range"))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// In microseconds; not a number where there is nothing.
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        if self.0.is_empty() { f64::NAN } else { self.0.value_at_quantile(quantile) as f64 }
    }

    pub(crate) fn max_us(&self) -> f64 {
        self.quantile_us(1.0)
    }
}

/// The middle one, or the mean of the two middle ones; 0 where there is none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// A figure's median over the rounds, and the smallest and the largest of a round. How sure it is that
/// the true median is between these is the [`confidence`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Interval {
    pub(crate) median: f64,
    pub(crate) smallest: f64,
    pub(crate) largest: f64,
}

impl Interval {
    /// Of one value from each round; what is not a number says nothing. None without any.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        let smallest = values.iter().copied().reduce(f64::min)?;
        let largest = values.iter().copied().reduce(f64::max)?;
        Some(Self { median: median(values), smallest, largest })
    }

    /// Of the ratios of pairs, of one round each; none without a pair that can be divided.
    pub(crate) fn of_ratios(pairs: impl IntoIterator<Item = (f64, f64)>) -> Option<Self> {
        Self::of(pairs.into_iter().filter(|pair| pair.1 > 0.0).map(|pair| pair.0 / pair.1))
    }
}

/// The probability that the true median is between the smallest and the largest of so many rounds,
/// whatever the distribution (the sign test's interval): 97 % over six, and nothing over one.
pub(crate) fn confidence(rounds: usize) -> f64 {
    1.0 - 0.5f64.powi(i32::try_from(rounds).unwrap_or(i32::MAX) - 1)
}

/// Finds the rate at which a saturated server completes requests: it is fed the rates of short
/// windows, and answers when several in a row agree.
#[derive(Debug, Default)]
pub(crate) struct CapacitySearch {
    windows: Vec<f64>,
}

/// So many windows in a row must agree,
const AGREEING: usize = 4;
/// up to this share of their mean.
const AGREEMENT: f64 = 0.05;
/// A server that never settles down gets the median of so many.
const PATIENCE: usize = 24;

impl CapacitySearch {
    /// Takes the rate of the next window; gives the capacity when it is known.
    pub(crate) fn feed(&mut self, per_s: f64) -> Option<f64> {
        self.windows.push(per_s);
        let last = self.windows.last_chunk::<AGREEING>()?;
        let mean = last.iter().sum::<f64>() / AGREEING as f64;
        if mean > 0.0 && last.iter().all(|rate| (rate - mean).abs() <= AGREEMENT * mean) {
            return Some(mean);
        }
        (self.windows.len() >= PATIENCE).then(|| median(self.windows.iter().copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([]), 0.0);
        let ratio = Interval::of_ratios([(2.0, 1.0), (3.0, 2.0), (1.0, 1.0), (5.0, 0.0)]).unwrap();
        assert_eq!(ratio, Interval { median: 1.5, smallest: 1.0, largest: 2.0 });
        assert_eq!(Interval::of_ratios([(1.0, 0.0)]), None);
        assert_eq!(Interval::of([f64::NAN]), None);
    }

    #[test]
    fn one_round_proves_nothing_and_six_are_nearly_sure() {
        assert_eq!([1, 2, 3, 6].map(confidence), [0.0, 0.5, 0.75, 0.96875]);
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::new();
        assert!(latencies.quantile_us(0.5).is_nan());
        (1..=1000).for_each(|us| latencies.record(Duration::from_micros(us)));
        assert_eq!(latencies.quantile_us(0.5), 500.0);
        assert_eq!(latencies.quantile_us(0.99), 990.0);
        latencies.record(Duration::from_secs(7200));
        assert!(latencies.max_us() >= 3.6e9);
    }

    /// A server of a known capacity that warms up first, with some noise.
    #[test]
    fn the_capacity_of_a_known_server_is_found() {
        let warming = [100.0, 300.0, 600.0, 900.0];
        let noise = [1.01, 0.99, 1.02, 0.985, 1.0];
        let mut search = CapacitySearch::default();
        let rates = warming.into_iter().chain(noise.iter().map(|noise| 1000.0 * noise));
        let found = rates.into_iter().find_map(|rate| search.feed(rate)).unwrap();
        assert!((found - 1000.0).abs() < 20.0, "{found}");
    }

    #[test]
    fn a_server_that_never_settles_gets_the_median() {
        let mut search = CapacitySearch::default();
        let mut rates = (0..100).map(|n| if n % 2 == 0 { 500.0 } else { 1500.0 });
        assert_eq!(rates.find_map(|rate| search.feed(rate)), Some(1000.0));
        let mut search = CapacitySearch::default();
        assert_eq!((0..100).find_map(|_| search.feed(0.0)), Some(0.0));
    }
}
