//! What an overload can be made of: the capacity of the first arm, and the multiples of it that this
//! machine can offer. It does not know what comes of them.

use std::time::Duration;

use super::{
    arm::Running,
    client::{self, Load, Loop},
    machine::{descriptor_limit, ports},
    pacer::Pacer,
    plan::{Plan, Scenario},
    results::LeftOut,
    stats::CapacitySearch,
};

/// What an overload is made of.
#[derive(Debug, Clone)]
pub(super) struct Capacity {
    /// Requests that the first arm completes.
    pub(super) per_s: f64,
    /// The loads that cannot be offered.
    pub(super) left_out: Vec<LeftOut>,
}

/// One window of the search, and as much before it.
const WINDOW: Duration = Duration::from_millis(250);
/// How long a load is tried, and how often before it is given up: others may have had the CPU.
const TRIAL: Duration = Duration::from_millis(500);
const TRIALS: usize = 2;
/// Under this share of it, a load is not worth measuring. Of more, some round may send enough.
const SENT_NEARLY: f64 = 0.95;

/// The capacity as the plan has it or as it is found, and which of the loads can be offered.
pub(super) fn find(plan: &Plan, stop: &dyn Fn() -> bool) -> anyhow::Result<Capacity> {
    let per_s = match plan.capacity {
        Some(per_s) => per_s,
        None => search(plan, stop)?,
    };
    anyhow::ensure!(per_s > 0.0, "it answers nobody");
    let mut trial = |load| {
        plan.check_rate(per_s * load, descriptor_limit(), ports())?;
        try_load(plan, per_s * load, stop)
    };
    Ok(Capacity { per_s, left_out: left_out(&plan.loads, &mut trial) })
}

/// Saturates the first arm in a closed loop until its rate is steady.
fn search(plan: &Plan, stop: &dyn Fn() -> bool) -> anyhow::Result<f64> {
    let server = start(plan, stop)?;
    let mut search = CapacitySearch::default();
    loop {
        // More clients than workers, and fewer than are let in.
        let pace = Loop::Closed(plan.workers * 8);
        let load = plan.load(Scenario::Overload, server.addr, pace);
        let tally = client::run(Load { warm_up: WINDOW, duration: WINDOW, ..load }, stop, &mut |_| {})?;
        if let Some(capacity) = search.feed(tally.per_s(tally.good)) {
            return Ok(capacity);
        }
        anyhow::ensure!(!stop(), "interrupted");
    }
}

fn start(plan: &Plan, stop: &dyn Fn() -> bool) -> anyhow::Result<Running> {
    plan.arms[0].start(&plan.duty(Scenario::Overload), stop)
}

/// The loads, in rising order, that cannot be offered: where one can, smaller ones can. The smallest is
/// measured in any case, so that there is something to see.
fn left_out(loads: &[f64], trial: &mut dyn FnMut(f64) -> Result<(), String>) -> Vec<LeftOut> {
    let mut left_out = Vec::new();
    for &load in loads.iter().skip(1).rev() {
        match trial(load) {
            Ok(()) => break,
            Err(why) => left_out.insert(0, LeftOut { load, why }),
        }
    }
    left_out
}

/// Offers the first arm a rate for a moment; else how much of it the generator could send.
fn try_load(plan: &Plan, per_s: f64, stop: &dyn Fn() -> bool) -> Result<(), String> {
    let mut most: f64 = 0.0;
    for trial in 0..TRIALS {
        // A server that cannot be started or loaded is measured, so that the report says what it is.
        let Ok(server) = start(plan, stop) else { return Ok(()) };
        let pace = Loop::Open(Pacer::new(plan.arrivals, per_s, trial as u64));
        let load =
            Load { warm_up: WINDOW, duration: TRIAL, ..plan.load(Scenario::Overload, server.addr, pace) };
        let Ok(tally) = client::run(load, stop, &mut |_| {}) else { return Ok(()) };
        most = most.max(share_sent(tally.sent, tally.intended));
        if most >= SENT_NEARLY || stop() {
            return Ok(());
        }
    }
    Err(format!(
        "the generator could send only {:.0} % of {per_s:.0} requests per second; something else has its CPU, \
         or there is too little of it",
        most * 1e2
    ))
}

/// Of nothing it is all, at a rate at which nobody comes in so short a time.
fn share_sent(sent: u64, intended: u64) -> f64 {
    if intended == 0 { 1.0 } else { sent as f64 / intended as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_at_which_nobody_came_is_offered() {
        assert_eq!([share_sent(0, 0), share_sent(0, 2), share_sent(1, 2)], [1.0, 0.0, 0.5]);
    }

    #[test]
    fn loads_that_cannot_be_offered_are_left_out_but_for_the_smallest() {
        for (most, left, tried) in [
            (20.0, &[][..], &[10.0][..]),
            (2.0, &[10.0], &[10.0, 2.0]),
            (1.5, &[2.0, 10.0], &[10.0, 2.0, 1.0]),
            (0.1, &[1.0, 2.0, 10.0], &[10.0, 2.0, 1.0]),
        ] {
            let mut asked = Vec::new();
            let mut trial = |load| {
                asked.push(load);
                if load <= most { Ok(()) } else { Err(format!("{load} is too much")) }
            };
            let found = left_out(&[0.8, 1.0, 2.0, 10.0], &mut trial);
            assert_eq!(found.iter().map(|left| left.load).collect::<Vec<_>>(), left);
            assert!(found.iter().all(|left| left.why == format!("{} is too much", left.load)));
            assert_eq!(asked, tried);
        }
        assert!(left_out(&[], &mut |_| Ok(())).is_empty());
    }
}
