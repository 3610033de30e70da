//! What follows from a scenario's figures, in sentences. It does not know what else the report shows.

use super::words::{list, ratio};
use crate::bench::{
    plan::Scenario,
    results::{Cell, Results, goodput_kept},
};

impl Results {
    /// What the table shows, drawn from its figures, and what it does not.
    pub(super) fn sentences(&self, scenario: Scenario) -> Vec<String> {
        let arms = self.plan.arms.iter().filter_map(|arm| {
            let cells = self.results_of(scenario, &arm.name);
            cells.last().map(|last| conclusion(&cells, last))
        });
        let found = arms.chain(self.noise(scenario)).chain(self.full_generator(scenario));
        let none = self.no_results(scenario).into_iter().chain(self.left_out(scenario));
        found.chain(none).chain(self.arms_left_out(scenario)).collect()
    }

    /// The cells that failed, each with its reason.
    pub(super) fn failures(&self) -> impl Iterator<Item = String> {
        self.cells.iter().filter_map(|cell| {
            Some(format!("failed: {} in {}: {}", cell.arm, cell.spot.scenario, cell.failure()?))
        })
    }

    /// One arm's cells in the order of their loads, those that are no result left out.
    fn results_of(&self, scenario: Scenario, arm: &str) -> Vec<&Cell> {
        self.of(scenario).filter(|cell| cell.arm == arm && cell.is_result()).collect()
    }

    /// How far the first arm is from itself.
    fn noise(&self, scenario: Scenario) -> Vec<String> {
        let first = &self.plan.arms[0].name;
        let (compared, _) = scenario.compared();
        let again = self.results_of(scenario, &format!("{first} again"));
        let ratios = again.into_iter().filter_map(|cell| self.ratio(cell));
        let say = |of| {
            format!("Noise alone: {first} against itself has {compared} × {}.", ratio(of, self.plan.rounds))
        };
        ratios.map(say).collect()
    }

    /// Where the rates say how fast the generator is.
    fn full_generator(&self, scenario: Scenario) -> Option<String> {
        let full = self.of(scenario).filter(|cell| cell.median(|r| r.client_cpu_share) > 0.95);
        let full: Vec<_> = full.map(|cell| &*cell.arm).collect();
        (!full.is_empty() && scenario != Scenario::Overload).then(|| {
            format!(
                "The generator's core was full with {}: the rates end there, and CPU per request is the figure to compare.",
                full.join(", ")
            )
        })
    }

    /// The cells, spot by spot, that the generator could not load as it should.
    fn no_results(&self, scenario: Scenario) -> Vec<String> {
        let spots = self.plan.spots().into_iter().filter(|spot| spot.scenario == scenario);
        let say = |spot| {
            let bound =
                self.of(scenario).filter(|cell| cell.spot == spot && cell.verdict() == "generator-bound");
            let arms: Vec<_> = bound.clone().map(|cell| &*cell.arm).collect();
            let sent = bound.map(|cell| cell.median(|r| r.sent as f64 / r.intended.max(1) as f64));
            let least = sent.reduce(f64::min)?;
            let at = spot.load.map_or(String::new(), |load| format!(" at {load}×"));
            Some(format!(
                "No result{at} for {}: the generator could send only {:.0} % of what it should.",
                list(&arms),
                // Not to be rounded to all of it.
                (least * 1e2).floor()
            ))
        };
        spots.filter_map(say).collect()
    }

    /// The loads that were not measured.
    fn left_out(&self, scenario: Scenario) -> Vec<String> {
        let loads = self.left_out.iter().filter(|_| scenario == Scenario::Overload);
        loads.map(|left_out| format!("{}× is left out: {}.", left_out.load, left_out.why)).collect()
    }

    /// The arms that have no part in it.
    fn arms_left_out(&self, scenario: Scenario) -> impl Iterator<Item = String> {
        let arms = self.plan.arms.iter();
        let absent = arms.filter(move |arm| !self.plan.arms_in(scenario).any(|other| other.name == arm.name));
        absent.map(|arm| format!("{} is left out: it burns no CPU for a request.", arm.name))
    }
}

/// What one arm's cells say, of which this is the last.
fn conclusion(cells: &[&Cell], last: &Cell) -> String {
    let name = &last.arm;
    match last.spot.scenario {
        Scenario::Connections | Scenario::Keepalive => format!(
            "{name} takes {:.1} µs of CPU for a request at {:.0} per second.",
            last.median(|r| r.cpu_us_per_request),
            last.median(|r| r.goodput_per_s)
        ),
        Scenario::Overload => in_overload(cells, last),
        Scenario::Idle if last.median(|r| r.goodput_per_s) == 0.0 => {
            format!("{name} has no room for the active ones beside the silent.")
        }
        Scenario::Idle => format!(
            "{name}: a silent connection costs {:.0} bytes and {:.2} threads; the active ones have a p99 of {:.2} ms.",
            last.median(|r| r.silent.map_or(0.0, |s| s.bytes_per_connection)),
            last.median(|r| r.silent.map_or(0.0, |s| s.threads_per_connection)),
            last.median(|r| r.p99_us) / 1e3
        ),
    }
}

fn in_overload(cells: &[&Cell], last: &Cell) -> String {
    let (name, load) = (&last.arm, last.spot.load.unwrap_or(0.0));
    let kept = goodput_kept(cells.iter().copied()).unwrap_or(0.0);
    let p99 = last.median(|r| r.service_p99_us) / 1e3;
    let good = if kept > 0.0 && !p99.is_nan() {
        format!("; the p99 of the good replies is {p99:.0} ms")
    } else {
        String::new()
    };
    format!("{name} keeps {:.0} % of its best goodput at {load}×{good}.", kept * 1e2)
}
