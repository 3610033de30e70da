//! Plans and results made up for tests. Nothing of them was measured.

use std::time::{Duration, SystemTime};

use super::{
    arm::{Arm, How},
    client::GiveUp,
    exchange::Protocol,
    pacer::Arrivals,
    plan::{Plan, Scenario, Spot},
    results::{Cell, LeftOut, Results, Round, Silent},
};

/// Everything, over pool and spawn.
pub(super) fn plan() -> Plan {
    Plan {
        arms: vec![
            Arm { name: "pool".into(), how: How::Model("pool"), burns: true },
            Arm { name: "spawn".into(), how: How::Model("spawn"), burns: true },
        ],
        protocol: Protocol::Tcp,
        scenarios: Scenario::ALL.into(),
        loads: vec![0.8, 1.0, 2.0, 10.0],
        capacity: Some(1000.0),
        work: Duration::from_millis(1),
        deadline: Duration::from_millis(500),
        idle: 5000,
        workers: 2,
        rounds: 6,
        duration: Duration::from_secs(2),
        arrivals: Arrivals::Poisson,
        give_up: GiveUp::Close,
        pin: None,
        environment: serde_json::Value::Null,
    }
}

/// A round of which all that was intended was sent.
pub(super) fn round(goodput_per_s: f64, cpu_us_per_request: f64) -> Round {
    let silent = Silent { opened: 5000, bytes_per_connection: 200.0, threads_per_connection: 0.0 };
    Round {
        intended: 1000,
        sent: 1000,
        goodput_per_s,
        cpu_us_per_request,
        silent: Some(silent),
        ..Round::default()
    }
}

/// The same, of which too little was sent.
pub(super) fn bound(round: Round) -> Round {
    Round { sent: 800, ..round }
}

pub(super) fn cell(
    scenario: Scenario,
    load: impl Into<Option<f64>>,
    arm: &str,
    rounds: impl IntoIterator<Item = Round>,
) -> Cell {
    Cell {
        spot: Spot { scenario, load: load.into(), control: false },
        arm: arm.into(),
        command: format!("start {arm}"),
        rounds: rounds.into_iter().map(Ok).collect(),
    }
}

/// An overload at these loads with a round for each arm's goodput.
pub(super) fn overload(goodputs: &[(&str, &[(f64, f64)])]) -> Vec<Cell> {
    let cells = |&(arm, at): &(&str, &[(f64, f64)])| {
        let cell = |&(load, goodput)| cell(Scenario::Overload, load, arm, [round(goodput, 1000.0)]);
        at.iter().map(cell).collect::<Vec<_>>()
    };
    goodputs.iter().flat_map(cells).collect()
}

/// What came of a plan whose arms are those of the cells.
pub(super) fn results(rounds: usize, cells: Vec<Cell>) -> Results {
    let mut arms: Vec<Arm> = Vec::new();
    let mut scenarios = Vec::new();
    for cell in &cells {
        if !arms.iter().any(|arm| arm.name == cell.arm) {
            arms.push(Arm { name: cell.arm.clone(), how: How::Model("pool"), burns: true });
        }
        if !scenarios.contains(&cell.spot.scenario) {
            scenarios.push(cell.spot.scenario);
        }
    }
    Results {
        plan: Plan { arms, scenarios, rounds, ..plan() },
        // 2026-11-27 12:34 UTC.
        began: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_782_840),
        capacity: Some(1000.0),
        left_out: Vec::<LeftOut>::new(),
        cells,
        interrupted: false,
    }
}
