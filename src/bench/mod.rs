//! Compares servers: starts each as a process of its own, loads it from this one, watches it
//! through /proc. It drives any server from outside, ours included.

pub(crate) mod arm;
pub(crate) mod client;
pub(crate) mod exchange;
pub(crate) mod pacer;
pub(crate) mod page;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod sample;
pub(crate) mod stats;

use std::{
    fs, io,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use self::{
    arm::{Arm, Running},
    client::{Load, Loop, Mark, Tally},
    pacer::Pacer,
    plan::{ACTIVE, CLIENTS, PATIENCE, Plan, Scenario, Spot, WARM_UP},
    sample::{Group, Sample, Watch},
    stats::CapacitySearch,
};

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) plan: Plan,
    /// Requests per second, where the overload was measured.
    pub(crate) capacity: Option<f64>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) interrupted: bool,
}

/// One arm at one spot, with its rounds.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) spot: Spot,
    pub(crate) arm: String,
    pub(crate) command: String,
    pub(crate) rounds: Vec<Result<Round, String>>,
}

/// What one round gave. Rates are per second, times in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    pub(crate) offered_per_s: f64,
    pub(crate) sent_per_s: f64,
    pub(crate) goodput_per_s: f64,
    pub(crate) intended: u64,
    pub(crate) sent: u64,
    pub(crate) good: u64,
    pub(crate) refused: u64,
    pub(crate) reset: u64,
    pub(crate) timed_out: u64,
    pub(crate) dropped: u64,
    pub(crate) wrong: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    pub(crate) service_p50_us: f64,
    pub(crate) service_p99_us: f64,
    pub(crate) lag_p99_us: f64,
    /// The server's CPU time for each good reply.
    pub(crate) cpu_us_per_request: f64,
    /// The generator's CPU time for each request that it sent.
    pub(crate) client_cpu_us_per_request: f64,
    /// The share of its core that the generator used.
    pub(crate) client_cpu_share: f64,
    pub(crate) switches_per_s: Option<f64>,
    /// The highest of each.
    pub(crate) rss_bytes: f64,
    pub(crate) private_bytes: f64,
    pub(crate) threads: f64,
    pub(crate) descriptors: f64,
    /// Of the silent connections, where there are some.
    pub(crate) silent: Option<Silent>,
    pub(crate) samples: Vec<Sample>,
}

/// What silent connections cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silent {
    pub(crate) opened: usize,
    pub(crate) bytes_per_connection: f64,
    pub(crate) threads_per_connection: f64,
}

/// Under this share of what was intended, a cell says how fast the generator is and nothing else.
const SENT_ENOUGH: f64 = 0.99;
/// More wrong replies than this share make an arm a failure.
const WRONG_ENOUGH: f64 = 0.001;

impl Cell {
    pub(crate) fn good_rounds(&self) -> impl Iterator<Item = &Round> {
        self.rounds.iter().filter_map(|round| round.as_ref().ok())
    }

    /// The median over the rounds.
    pub(crate) fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        stats::median(self.good_rounds().map(figure))
    }

    pub(crate) fn failure(&self) -> Option<&String> {
        self.rounds.iter().find_map(|round| round.as_ref().err())
    }

    pub(crate) fn verdict(&self) -> &'static str {
        if self.rounds.is_empty() {
            "not measured"
        } else if self.failure().is_some() {
            "failed"
        } else if self.median(|r| r.sent as f64 / r.intended.max(1) as f64) < SENT_ENOUGH {
            "generator-bound"
        } else {
            "ok"
        }
    }
}

/// Runs the plan. `stop` ends it early; `progress` is told what is being measured, and after how
/// many measurements.
pub(crate) fn run(plan: Plan, stop: &dyn Fn() -> bool, progress: &mut dyn FnMut(&str, usize)) -> Results {
    let mut results = Results { capacity: plan.capacity, plan, cells: Vec::new(), interrupted: false };
    let plan = results.plan.clone();
    let mut no_capacity = String::from("the capacity was not found: it answers nobody");
    if plan.scenarios.contains(&Scenario::Overload) && results.capacity.is_none() {
        progress("capacity", 0);
        match find_capacity(&plan, stop) {
            Ok(capacity) => results.capacity = Some(capacity),
            Err(error) => no_capacity = format!("the capacity was not found: {error:#}"),
        }
    }
    for spot in plan.spots() {
        let again = spot
            .control
            .then(|| Arm { name: format!("{} again", plan.arms[0].name), ..plan.arms[0].clone() });
        for arm in plan.arms.iter().cloned().chain(again) {
            let duty = plan.duty(spot.scenario);
            let program = std::path::Path::new("overfall");
            let command = arm.command_line(&duty, program).join(" ");
            results.cells.push(Cell { spot, arm: arm.name, command, rounds: Vec::new() });
        }
    }
    let mut done = 0;
    for round in 0..plan.rounds {
        for spot in plan.spots() {
            let mut order: Vec<usize> =
                (0..results.cells.len()).filter(|&at| results.cells[at].spot == spot).collect();
            fastrand::shuffle(&mut order);
            for at in order {
                if stop() {
                    results.interrupted = true;
                    return results;
                }
                let cell = &mut results.cells[at];
                done += 1;
                progress(
                    &format!("round {} of {}, {}: {}", round + 1, plan.rounds, spot.scenario, cell.arm),
                    done,
                );
                // An arm that failed once is not tried again.
                if cell.failure().is_none() {
                    let arm = plan.arms.iter().find(|arm| arm.name == cell.arm).unwrap_or(&plan.arms[0]);
                    let capacity = results.capacity.filter(|&capacity| capacity > 0.0).ok_or(&*no_capacity);
                    let measured = measure(&plan, arm, spot, capacity, round as u64, stop);
                    if stop() {
                        results.interrupted = true;
                        return results;
                    }
                    cell.rounds.push(measured);
                }
            }
        }
    }
    results
}

/// Saturates the first arm in a closed loop until its rate is steady.
fn find_capacity(plan: &Plan, stop: &dyn Fn() -> bool) -> anyhow::Result<f64> {
    const WINDOW: Duration = Duration::from_millis(250);
    let server = plan.arms[0].start(&plan.duty(Scenario::Overload), stop)?;
    let mut search = CapacitySearch::default();
    loop {
        // More clients than workers, and fewer than are let in.
        let pace = Loop::Closed(plan.workers * 8);
        let load = Load { duration: WINDOW, ..load(plan, Scenario::Overload, server.addr, pace) };
        let tally = client::run(Load { warm_up: WINDOW, ..load }, stop, &mut |_| {})?;
        if let Some(capacity) = search.feed(tally.per_s(tally.good)) {
            return Ok(capacity);
        }
        anyhow::ensure!(!stop(), "interrupted");
    }
}

fn load(plan: &Plan, scenario: Scenario, addr: SocketAddr, pace: Loop) -> Load {
    let deadline = if scenario == Scenario::Overload { plan.deadline } else { PATIENCE };
    Load {
        addr,
        exchange: plan.exchange(scenario),
        pace,
        deadline,
        give_up: plan.give_up,
        warm_up: Plan::warm_up(scenario),
        duration: plan.duration,
    }
}

/// Starts a server, measures it, and stops it; else what went wrong with it. All arms of a round
/// have the same seed, and so the same arrivals.
fn measure(
    plan: &Plan,
    arm: &Arm,
    spot: Spot,
    capacity: Result<f64, &str>,
    seed: u64,
    stop: &dyn Fn() -> bool,
) -> Result<Round, String> {
    let pace = match spot.load {
        Some(load) => {
            let rate = capacity? * load;
            plan.check_rate(rate, descriptor_limit(), ports())
                .map_err(|wrong| format!("at {load}×: {wrong}"))?;
            Loop::Open(Pacer::new(plan.arrivals, rate, seed))
        }
        None if spot.scenario == Scenario::Idle => Loop::Closed(ACTIVE),
        None => Loop::Closed(CLIENTS),
    };
    let offered = match &spot.load {
        Some(load) => capacity.ok().map(|capacity| capacity * load),
        None => None,
    };
    let mut server = arm.start(&plan.duty(spot.scenario), stop).map_err(|error| format!("{error:#}"))?;
    let silent = if spot.scenario == Scenario::Idle {
        Some(Silence::open(plan, &server, stop).map_err(|error| error.to_string())?)
    } else {
        None
    };
    let watch = Watch::start(server.group());
    let mut cpu = [Duration::ZERO; 2];
    let group = Group::find(server.group());
    let mut mark = |mark| cpu[usize::from(mark == Mark::End)] = group.cpu();
    let tally = client::run(load(plan, spot.scenario, server.addr, pace), stop, &mut mark);
    let samples = watch.finish();
    if let Some(end) = server.ended() {
        return Err(end);
    }
    let tally = tally.map_err(|error| format!("the generator failed: {error}"))?;
    let mut round = summarize(&tally, offered, cpu[1].saturating_sub(cpu[0]), samples);
    round.silent = silent.map(|silence| silence.cost);
    if round.wrong as f64 > WRONG_ENOUGH * round.sent as f64 {
        return Err(format!("it answers wrongly: {} replies of {}", round.wrong, round.sent));
    }
    if round.sent > 0 && round.good + round.timed_out == 0 && spot.load.is_none() {
        return Err(format!("it answers nobody: of {} requests none got a reply", round.sent));
    }
    Ok(round)
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

/// Connections that say nothing, open as long as this is kept.
struct Silence {
    _streams: Vec<TcpStream>,
    cost: Silent,
}

impl Silence {
    fn open(plan: &Plan, server: &Running, stop: &dyn Fn() -> bool) -> io::Result<Self> {
        // Longer than it takes until the kernel tries again where a full backlog dropped the first.
        const CONNECT_PATIENCE: Duration = Duration::from_millis(1500);
        // A burst of thousands would measure the backlog and not the connections.
        const BURST: usize = 50;
        const BURST_PAUSE: Duration = Duration::from_millis(2);
        const SETTLE_PATIENCE: Duration = Duration::from_secs(2);
        // What the active clients make the server allocate is not to be laid to the silent ones.
        let warm = Load {
            warm_up: Duration::ZERO,
            duration: WARM_UP,
            ..load(plan, Scenario::Idle, server.addr, Loop::Closed(ACTIVE))
        };
        let began = Instant::now();
        let settle = |settled: &dyn Fn(&Sample) -> bool| {
            let deadline = Instant::now() + SETTLE_PATIENCE;
            loop {
                let sample = Sample::of_group(server.group(), began);
                if settled(&sample) || Instant::now() >= deadline {
                    return sample;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        let cold = Sample::of_group(server.group(), began);
        client::run(warm, stop, &mut |_| {})?;
        // When it has closed their connections, which would be counted as silent ones that are missing.
        let before = settle(&|sample| sample.descriptors <= cold.descriptors);
        let mut streams = Vec::with_capacity(plan.idle);
        while streams.len() < plan.idle && !stop() {
            // A server that lets no more in leaves them hanging.
            match TcpStream::connect_timeout(&server.addr, CONNECT_PATIENCE) {
                Ok(stream) => streams.push(stream),
                Err(_) => break,
            }
            if streams.len() % BURST == 0 {
                std::thread::sleep(BURST_PAUSE);
            }
        }
        let after = settle(&|sample| sample.descriptors >= before.descriptors + streams.len() as u64);
        let accepted = after.descriptors.saturating_sub(before.descriptors) as usize;
        let each = |after: u64, before: u64| after.saturating_sub(before) as f64 / accepted.max(1) as f64;
        let cost = Silent {
            opened: accepted,
            bytes_per_connection: each(after.private_bytes, before.private_bytes),
            threads_per_connection: each(after.threads, before.threads),
        };
        Ok(Self { _streams: streams, cost })
    }
}

/// Files that this process may have open.
pub(crate) fn descriptor_limit() -> usize {
    use rustix::process::{Resource, getrlimit};
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Ports that connections may have on this side.
pub(crate) fn ports() -> usize {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = range.split_whitespace().filter_map(|end| end.parse::<usize>().ok());
    match (ends.next(), ends.next()) {
        (Some(low), Some(high)) if low < high => high - low,
        _ => usize::MAX,
    }
}
