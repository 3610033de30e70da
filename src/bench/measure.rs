//! One measurement of one arm: its server is started, loaded, watched and stopped. It knows neither the
//! other arms nor the other rounds.

use std::time::Duration;

use super::{
    arm::{Arm, Running},
    capacity::Capacity,
    client::{self, Load, Loop, Mark, Tally},
    pacer::Pacer,
    plan::{ACTIVE, CLIENTS, Plan, Scenario, Spot},
    results::Round,
    sample::{Group, Sample, Watch},
    silence::Silence,
};

/// More wrong replies than this share make an arm a failure.
const WRONG_ENOUGH: f64 = 0.001;

/// Starts a server, measures it, and stops it; else what went wrong with it. All arms of a round
/// have the same seed, and so the same arrivals.
pub(super) fn measure(
    plan: &Plan,
    arm: &Arm,
    spot: Spot,
    capacity: &Result<Capacity, String>,
    seed: u64,
    stop: &dyn Fn() -> bool,
) -> Result<Round, String> {
    let offered = match spot.load {
        Some(load) => Some(capacity.as_ref().map_err(String::clone)?.per_s * load),
        None => None,
    };
    let pace = match offered {
        Some(rate) => Loop::Open(Pacer::new(plan.arrivals, rate, seed)),
        None if spot.scenario == Scenario::Idle => Loop::Closed(ACTIVE),
        None => Loop::Closed(CLIENTS),
    };
    let mut server = arm.start(&plan.duty(spot.scenario), stop).map_err(|error| format!("{error:#}"))?;
    let silence = if spot.scenario == Scenario::Idle {
        Some(Silence::open(plan, &server, stop).map_err(|error| error.to_string())?)
    } else {
        None
    };
    let load = plan.load(spot.scenario, server.addr, pace);
    let mut round = observe(&mut server, load, offered, stop)?;
    round.silent = silence.map(|silence| silence.cost);
    judge(&round, spot)?;
    Ok(round)
}

/// Loads a server and watches it meanwhile; else how it ended.
fn observe(
    server: &mut Running,
    load: Load,
    offered: Option<f64>,
    stop: &dyn Fn() -> bool,
) -> Result<Round, String> {
    let watch = Watch::start(server.group());
    let mut cpu = [Duration::ZERO; 2];
    let group = Group::find(server.group());
    let mut mark = |mark| cpu[usize::from(mark == Mark::End)] = group.cpu();
    let tally = client::run(load, stop, &mut mark);
    let samples = watch.finish();
    if let Some(end) = server.ended() {
        return Err(end);
    }
    let tally = tally.map_err(|error| format!("the generator failed: {error}"))?;
    Ok(summarize(&tally, offered, cpu[1].saturating_sub(cpu[0]), samples))
}

/// Whether these are replies at all; else what they are.
fn judge(round: &Round, spot: Spot) -> Result<(), String> {
    if round.wrong as f64 > WRONG_ENOUGH * round.sent as f64 {
        return Err(format!("it answers wrongly: {} replies of {}", round.wrong, round.sent));
    }
    if round.sent > 0 && round.good + round.timed_out == 0 && spot.load.is_none() {
        return Err(format!("it answers nobody: of {} requests none got a reply", round.sent));
    }
    Ok(())
}

fn summarize(tally: &Tally, offered: Option<f64>, cpu: Duration, samples: Vec<Sample>) -> Round {
    let highest = |figure: fn(&Sample) -> u64| samples.iter().map(figure).max().unwrap_or(0) as f64;
    let switches = |sample: &Sample| Some(sample.voluntary_switches? + sample.involuntary_switches?);
    let switches_per_s = || {
        let (first, last) = (samples.first()?, samples.last()?);
        Some(switches(last)?.saturating_sub(switches(first)?) as f64 / (last.at - first.at).as_secs_f64())
    };
    // Not a number where there was no request, and shown as that.
    let us = |time: Duration, count: u64| time.as_secs_f64() * 1e6 / count as f64;
    Round {
        offered_per_s: offered.unwrap_or_else(|| tally.per_s(tally.intended)),
        sent_per_s: tally.per_s(tally.sent),
        goodput_per_s: tally.per_s(tally.good),
        intended: tally.intended,
        sent: tally.sent,
        good: tally.good,
        refused: tally.refused,
        reset: tally.reset,
        timed_out: tally.timed_out,
        dropped: tally.dropped,
        wrong: tally.wrong,
        p50_us: tally.response.quantile_us(0.5),
        p99_us: tally.response.quantile_us(0.99),
        p999_us: tally.response.quantile_us(0.999),
        max_us: tally.response.max_us(),
        service_p50_us: tally.service.quantile_us(0.5),
        service_p99_us: tally.service.quantile_us(0.99),
        lag_p99_us: tally.lag.quantile_us(0.99),
        cpu_us_per_request: if tally.good > 0 { us(cpu, tally.good) } else { f64::NAN },
        client_cpu_us_per_request: us(tally.cpu, tally.sent.max(1)),
        client_cpu_share: tally.cpu.as_secs_f64() / tally.elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
        switches_per_s: switches_per_s(),
        rss_bytes: highest(|sample| sample.rss_bytes),
        private_bytes: highest(|sample| sample.private_bytes),
        threads: highest(|sample| sample.threads),
        descriptors: highest(|sample| sample.descriptors),
        silent: None,
        samples,
    }
}
