//! Compares servers: starts each as a process of its own, loads it from this one, watches it
//! through /proc. It drives any server from outside, ours included, and knows none from inside.

pub(crate) mod arm;
pub(crate) mod client;
pub(crate) mod exchange;
pub(crate) mod machine;
mod measure;
pub(crate) mod pacer;
pub(crate) mod plan;
mod report;
pub(crate) mod results;
mod sample;
mod silence;
mod stats;

use self::{
    arm::Arm,
    measure::{find_capacity, measure},
    plan::{Plan, Scenario},
    results::{Cell, Results},
};

/// Runs the plan. `stop` ends it early; `progress` is told what is being measured, and after how
/// many measurements.
pub(crate) fn run(plan: Plan, stop: &dyn Fn() -> bool, progress: &mut dyn FnMut(&str, usize)) -> Results {
    let found = capacity(&plan, stop, progress);
    let capacity = found.as_ref().ok().copied().flatten();
    let usable = found.and_then(|capacity| {
        let usable = capacity.filter(|&capacity| capacity > 0.0);
        usable.ok_or_else(|| "the capacity was not found: it answers nobody".into())
    });
    let mut cells = cells(&plan);
    let interrupted = !measure_all(&plan, &mut cells, &usable, stop, progress);
    Results { plan, capacity, cells, interrupted }
}

/// What the first arm can do in an overload, if one is measured: as the plan has it, or as it is found.
fn capacity(
    plan: &Plan,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(&str, usize),
) -> Result<Option<f64>, String> {
    if plan.capacity.is_some() || !plan.scenarios.contains(&Scenario::Overload) {
        return Ok(plan.capacity);
    }
    progress("capacity", 0);
    let found = find_capacity(plan, stop);
    found.map(Some).map_err(|error| format!("the capacity was not found: {error:#}"))
}

/// Every arm at every spot, with no round yet.
fn cells(plan: &Plan) -> Vec<Cell> {
    let mut cells = Vec::new();
    for spot in plan.spots() {
        let again = spot
            .control
            .then(|| Arm { name: format!("{} again", plan.arms[0].name), ..plan.arms[0].clone() });
        for arm in plan.arms.iter().cloned().chain(again) {
            let duty = plan.duty(spot.scenario);
            let program = std::path::Path::new("overfall");
            let command = arm.command_line(&duty, program).join(" ");
            cells.push(Cell { spot, arm: arm.name, command, rounds: Vec::new() });
        }
    }
    cells
}

/// Measures all rounds of all cells; whether it came to its end.
fn measure_all(
    plan: &Plan,
    cells: &mut [Cell],
    capacity: &Result<f64, String>,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(&str, usize),
) -> bool {
    let mut done = 0;
    for round in 0..plan.rounds {
        for at in order(plan, cells) {
            if stop() {
                return false;
            }
            let cell = &mut cells[at];
            done += 1;
            let spot = cell.spot;
            progress(
                &format!("round {} of {}, {}: {}", round + 1, plan.rounds, spot.scenario, cell.arm),
                done,
            );
            // An arm that failed once is not tried again.
            if cell.failure().is_some() {
                continue;
            }
            let arm = plan.arms.iter().find(|arm| arm.name == cell.arm).unwrap_or(&plan.arms[0]);
            let measured = measure(plan, arm, spot, capacity, round as u64, stop);
            if stop() {
                return false;
            }
            cell.rounds.push(measured);
        }
    }
    true
}

/// Spot by spot, with the arms of each in random order.
fn order(plan: &Plan, cells: &[Cell]) -> Vec<usize> {
    let at_spot = |spot| {
        let mut arms: Vec<usize> = (0..cells.len()).filter(|&at| cells[at].spot == spot).collect();
        fastrand::shuffle(&mut arms);
        arms
    };
    plan.spots().into_iter().flat_map(at_spot).collect()
}
