//! What is measured: the options, and the cells that follow from them. It does not know how it is measured.

use std::{fmt, net::SocketAddr, time::Duration};

use rustix::thread::CpuSet;

use super::{
    arm::{Arm, Duty},
    client::{GiveUp, Load, Loop},
    exchange::{Exchange, Protocol},
    pacer::Arrivals,
};

/// What is to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Scenario {
    /// Closed loop, a connection for each request.
    Connections,
    /// Closed loop, requests over kept connections.
    Keepalive,
    /// Open loop at multiples of the capacity.
    Overload,
    /// Many silent connections beside active ones.
    Idle,
}

impl Scenario {
    pub(crate) const ALL: [Self; 4] = [Self::Connections, Self::Keepalive, Self::Overload, Self::Idle];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Keepalive => "keepalive",
            Self::Overload => "overload",
            Self::Idle => "idle",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Everything that a run depends on.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) arms: Vec<Arm>,
    pub(crate) protocol: Protocol,
    pub(crate) scenarios: Vec<Scenario>,
    /// Multiples of the capacity.
    pub(crate) loads: Vec<f64>,
    /// Requests per second that the first arm can do, where it is not to be found.
    pub(crate) capacity: Option<f64>,
    pub(crate) work: Duration,
    pub(crate) deadline: Duration,
    pub(crate) idle: usize,
    pub(crate) workers: usize,
    pub(crate) rounds: usize,
    pub(crate) duration: Duration,
    pub(crate) arrivals: Arrivals,
    pub(crate) give_up: GiveUp,
    pub(crate) pin: Option<Pin>,
    /// What the figures depend on beside all this, as it was before anything was pinned.
    pub(crate) environment: serde_json::Value,
}

/// The CPUs of the server and of the generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) server: usize,
    pub(crate) client: usize,
}

/// Cut off at the beginning of a cell, but in an overload.
pub(crate) const WARM_UP: Duration = Duration::from_millis(250);
/// Cut off at the beginning of an overload, of which only what lasts is of interest: a server that lets
/// bursts through has to see first that it is none.
const ONSET: Duration = Duration::from_secs(2);
/// Permits of the arm limit for each of the pool's workers.
const PERMITS: usize = 17;
/// Clients of a closed loop.
pub(crate) const CLIENTS: usize = 64;
/// Active clients beside the silent ones.
pub(crate) const ACTIVE: usize = 16;
/// Closed-loop requests are given up after this, for they have no deadline of their own.
const PATIENCE: Duration = Duration::from_secs(5);
/// Descriptors beside the connections.
const RESERVED: usize = 200;

/// One figure's place: what is measured, at which multiple of the capacity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spot {
    pub(crate) scenario: Scenario,
    pub(crate) load: Option<f64>,
    /// The first arm is measured a second time here, under another name, to show what difference
    /// noise alone makes.
    pub(crate) control: bool,
}

impl Plan {
    pub(crate) fn spots(&self) -> Vec<Spot> {
        let mut spots = Vec::new();
        for &scenario in &self.scenarios {
            if scenario == Scenario::Overload {
                let control =
                    self.loads.iter().copied().find(|&load| load >= 1.0).or(self.loads.last().copied());
                spots.extend(self.loads.iter().map(|&load| Spot {
                    scenario,
                    load: Some(load),
                    control: control == Some(load),
                }));
            } else {
                spots.push(Spot { scenario, load: None, control: scenario == Scenario::Connections });
            }
        }
        spots
    }

    /// How many measurements there are in a round.
    pub(crate) fn cells_per_round(&self) -> usize {
        self.spots().iter().map(|spot| self.arms_in(spot.scenario).count() + usize::from(spot.control)).sum()
    }

    /// The arms that have a part in a scenario. One that burns no CPU has no overload with work to bear.
    pub(crate) fn arms_in(&self, scenario: Scenario) -> impl Iterator<Item = &Arm> {
        let needed = scenario == Scenario::Overload && !self.work.is_zero();
        self.arms.iter().filter(move |arm| arm.burns || !needed)
    }

    /// About how long all of it takes.
    pub(crate) fn estimate(&self) -> Duration {
        let cell = WARM_UP + self.duration + Duration::from_millis(400);
        let onset = ONSET - WARM_UP;
        let overloads =
            if self.scenarios.contains(&Scenario::Overload) { self.loads.len() * self.arms.len() } else { 0 };
        let cells = u32::try_from(self.rounds * self.cells_per_round()).unwrap_or(u32::MAX);
        let waits = u32::try_from(self.rounds * overloads).unwrap_or(u32::MAX);
        cell * cells + (self.deadline.min(Duration::from_secs(5)) / 2 + onset) * waits
    }

    /// Cut off at the beginning of each cell.
    pub(crate) fn warm_up(scenario: Scenario) -> Duration {
        if scenario == Scenario::Overload { ONSET } else { WARM_UP }
    }

    pub(crate) fn exchange(&self, scenario: Scenario) -> Exchange {
        self.protocol.exchange(matches!(scenario, Scenario::Keepalive | Scenario::Idle))
    }

    /// What the clients do in a scenario.
    pub(crate) fn load(&self, scenario: Scenario, addr: SocketAddr, pace: Loop) -> Load {
        let deadline = if scenario == Scenario::Overload { self.deadline } else { PATIENCE };
        Load {
            addr,
            exchange: self.exchange(scenario),
            pace,
            deadline,
            give_up: self.give_up,
            warm_up: Self::warm_up(scenario),
            duration: self.duration,
        }
    }

    /// What the server does in a scenario.
    pub(crate) fn duty(&self, scenario: Scenario) -> Duty {
        let permits = self.workers * PERMITS;
        let app = self.exchange(scenario).app;
        let (work, permits) = match scenario {
            Scenario::Connections => (Duration::ZERO, permits),
            Scenario::Overload => (self.work, permits),
            Scenario::Keepalive => (Duration::ZERO, permits.max(CLIENTS)),
            Scenario::Idle => (Duration::ZERO, permits.max(ACTIVE)),
        };
        Duty { app, work, workers: self.workers, permits, cpus: self.pin.map(|pin| cpu_set(pin.server)) }
    }

    /// Whether this machine has descriptors and ports for it; else what to change.
    pub(crate) fn check(&self, descriptors: usize, ports: usize) -> Result<(), String> {
        if self.scenarios.contains(&Scenario::Idle) && self.idle + RESERVED > descriptors {
            let most = descriptors.saturating_sub(RESERVED);
            return Err(format!(
                "--idle {} needs more than the {descriptors} open files that a process may have here; give {most} \
                 at most, or raise the hard limit (ulimit -Hn)",
                self.idle
            ));
        }
        match self.capacity {
            Some(capacity) if self.scenarios.contains(&Scenario::Overload) => {
                let most = self.loads.iter().copied().fold(0.0, f64::max);
                self.check_rate(capacity * most, descriptors, ports)
            }
            _ => Ok(()),
        }
    }

    /// Whether this machine has descriptors and ports for an overload at this rate; else what to change.
    pub(crate) fn check_rate(&self, rate: f64, descriptors: usize, ports: usize) -> Result<(), String> {
        // Each request has a descriptor until its deadline, and a port for a second longer, which is
        // how long loopback keeps one that was closed.
        let open = (rate * self.deadline.as_secs_f64()) as usize + RESERVED;
        let bound = (rate * (self.deadline.as_secs_f64() + 1.0)) as usize;
        let remedy = "give smaller --loads, a smaller --capacity, more --work or a shorter --deadline";
        if open > descriptors {
            return Err(format!(
                "{rate:.0} requests per second need {open} open files, of {descriptors} that a process may have \
                 here; {remedy}, or raise the hard limit (ulimit -Hn)"
            ));
        }
        if bound > ports {
            return Err(format!(
                "{rate:.0} requests per second need {bound} ports, of {ports} that there are; {remedy}, or widen \
                 net.ipv4.ip_local_port_range"
            ));
        }
        Ok(())
    }
}

pub(crate) fn cpu_set(cpu: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(cpu);
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::examples::plan;

    #[test]
    fn the_first_arm_runs_twice_in_one_cell_of_connections_and_one_of_overload() {
        let spots = plan().spots();
        let control: Vec<_> =
            spots.iter().filter(|spot| spot.control).map(|spot| (spot.scenario, spot.load)).collect();
        assert_eq!(control, [(Scenario::Connections, None), (Scenario::Overload, Some(1.0))]);
        assert_eq!(plan().cells_per_round(), 7 * 2 + 2);
    }

    #[test]
    fn an_arm_that_burns_no_cpu_has_no_part_in_an_overload_with_work() {
        let mut plan = plan();
        plan.arms[1].burns = false;
        let count = |plan: &Plan| Scenario::ALL.map(|scenario| plan.arms_in(scenario).count());
        assert_eq!(count(&plan), [2, 2, 1, 2]);
        assert_eq!(plan.cells_per_round(), 7 * 2 + 2 - 4);
        plan.work = Duration::ZERO;
        assert_eq!(count(&plan), [2, 2, 2, 2]);
    }

    #[test]
    fn what_this_machine_cannot_do_is_said_with_what_to_change() {
        assert_eq!(plan().check(20_000, 28_000), Ok(()));
        let idle = plan().check(5_000, 28_000).unwrap_err();
        assert!(idle.contains("--idle 5000") && idle.contains("give 4800 at most"), "{idle}");
        let files = Plan { idle: 0, ..plan() }.check(4_000, 28_000).unwrap_err();
        assert!(files.contains("need 5200 open files, of 4000"), "{files}");
        let ports = plan().check(20_000, 10_000).unwrap_err();
        assert!(ports.contains("need 15000 ports, of 10000"), "{ports}");
    }
}
