//! From the flags to what is measured, as far as this machine can do it. It measures nothing.

use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity};

use super::args::{Args, Pinning};
use crate::bench::{
    arm::{Arm, How},
    machine::{descriptor_limit, environment, ports},
    plan::{Pin, Plan, Scenario},
};

/// What the flags amount to, or the sentence that says what is wrong with them.
pub(super) fn plan(args: &Args) -> Result<Plan, String> {
    let scenarios = Scenario::ALL
        .into_iter()
        .filter(|scenario| args.scenario.is_empty() || args.scenario.contains(scenario));
    let mut loads = args.loads.clone();
    loads.sort_unstable_by(f64::total_cmp);
    loads.dedup();
    let plan = Plan {
        arms: arms(args)?,
        protocol: args.protocol,
        scenarios: scenarios.collect(),
        loads,
        capacity: args.capacity,
        work: args.work,
        deadline: args.deadline,
        idle: args.idle,
        workers: args.workers.into(),
        rounds: if args.quick { 1 } else { args.rounds.into() },
        duration: if args.quick { Duration::from_secs(1) } else { args.duration },
        arrivals: args.arrivals,
        give_up: args.give_up,
        pin: pin(args.pin)?,
        environment: environment(),
    };
    if args.svg.is_some() && !plan.scenarios.contains(&Scenario::Overload) {
        return Err("--svg draws the goodput curve, which only the scenario overload has".into());
    }
    for peer in &args.peer {
        peer.check(plan.protocol, &plan.scenarios, plan.work)?;
    }
    plan.check(descriptor_limit(), ports())?;
    Ok(plan)
}

/// Our own models and the other servers, all with different names. Peers come later, when they are prepared.
fn arms(args: &Args) -> Result<Vec<Arm>, String> {
    const MODELS: [&str; 3] = ["pool", "spawn", "limit"];
    let named = args.arm.iter().filter_map(|name| MODELS.into_iter().find(|model| model == name));
    let models: Vec<_> = if args.arm.is_empty() { MODELS.into() } else { named.collect() };
    let ours = models.iter().map(|&model| Arm { name: model.into(), how: How::Model(model), burns: true });
    let arms: Vec<Arm> = ours.chain(args.against.iter().cloned()).collect();
    let names: Vec<_> =
        arms.iter().map(|arm| &*arm.name).chain(args.peer.iter().map(|peer| peer.name)).collect();
    if let Some(twice) = (1..names.len()).find(|&at| names[..at].contains(&names[at])) {
        return Err(format!("two arms are called {}; give each its own name", names[twice]));
    }
    Ok(arms)
}

/// Which CPUs to use, of those that this process may.
fn pin(pinning: Pinning) -> Result<Option<Pin>, String> {
    let allowed = sched_getaffinity(None).map_err(|error| format!("the CPUs cannot be read: {error}"))?;
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
    match pinning {
        Pinning::Off => Ok(None),
        Pinning::Auto => Ok(cpus.next().zip(cpus.next()).map(|(server, client)| Pin { server, client })),
        Pinning::To(pin)
            if [pin.server, pin.client].iter().all(|&cpu| cpu < CpuSet::MAX_CPU && allowed.is_set(cpu)) =>
        {
            Ok(Some(pin))
        }
        Pinning::To(pin) => {
            let cpus: Vec<_> = cpus.map(|cpu| cpu.to_string()).collect();
            Err(format!(
                "--pin {}:{} names a CPU that this process may not use; it may use {}",
                pin.server,
                pin.client,
                cpus.join(", ")
            ))
        }
    }
}
