//! Compares servers: starts each as a process of its own, loads it from this one, watches it
//! through /proc. It drives any server from outside, ours included, and knows none from inside.

pub(crate) mod arm;
mod capacity;
pub(crate) mod client;
#[cfg(test)]
mod examples;
pub(crate) mod exchange;
pub(crate) mod machine;
mod measure;
pub(crate) mod pacer;
pub(crate) mod peer;
pub(crate) mod plan;
mod report;
pub(crate) mod results;
mod sample;
mod silence;
mod stats;

use std::time::SystemTime;

use self::{
    arm::Arm,
    capacity::Capacity,
    measure::measure,
    plan::{Plan, Scenario},
    results::{Cell, Results},
};

/// Runs the plan. `stop` ends it early; `progress` is told what is being measured, and after how
/// many measurements.
pub(crate) fn run(plan: Plan, stop: &dyn Fn() -> bool, progress: &mut dyn FnMut(&str, usize)) -> Results {
    let began = SystemTime::now();
    let capacity = find_capacity(&plan, stop, progress);
    let mut cells = cells(&plan);
    let interrupted = !measure_all(&plan, &mut cells, &capacity, stop, progress);
    let (per_s, left_out) = match capacity {
        Ok(capacity) => (Some(capacity.per_s), capacity.left_out),
        Err(_) => (plan.capacity, Vec::new()),
    };
    Results { plan, began, capacity: per_s, left_out, cells, interrupted }
}

/// What an overload can be made of, if one is measured.
fn find_capacity(
    plan: &Plan,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(&str, usize),
) -> Result<Capacity, String> {
    if !plan.scenarios.contains(&Scenario::Overload) {
        return Err("no overload is measured".into());
    }
    progress("capacity", 0);
    capacity::find(plan, stop).map_err(|error| format!("the capacity was not found: {error:#}"))
}

/// Every arm at every spot, with no round yet.
fn cells(plan: &Plan) -> Vec<Cell> {
    let mut cells = Vec::new();
    for spot in plan.spots() {
        let again = spot
            .control
            .then(|| Arm { name: format!("{} again", plan.arms[0].name), ..plan.arms[0].clone() });
        for arm in plan.arms_in(spot.scenario).cloned().chain(again) {
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
    capacity: &Result<Capacity, String>,
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
            if !is_measured(cell, capacity) {
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

/// Whether a cell is measured again: an arm that failed once is not tried again, and a load that cannot be
/// offered is not tried at all.
fn is_measured(cell: &Cell, capacity: &Result<Capacity, String>) -> bool {
    let is_left_out =
        |capacity: &Capacity| capacity.left_out.iter().any(|left_out| cell.spot.load == Some(left_out.load));
    cell.failure().is_none() && !capacity.as_ref().is_ok_and(is_left_out)
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
