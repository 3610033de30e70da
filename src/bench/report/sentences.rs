//! What follows from a scenario's figures, in sentences. It does not know what else the report shows.

use super::words::ratio;
use crate::bench::{
    plan::Scenario,
    results::{Cell, Results, goodput_kept},
};

impl Results {
    /// What the table shows, drawn from its figures.
    pub(super) fn sentences(&self, scenario: Scenario) -> Vec<String> {
        let arms = self.plan.arms.iter().filter_map(|arm| {
            let cells = self.measured(scenario, &arm.name);
            cells.last().map(|last| conclusion(&cells, last))
        });
        arms.chain(self.noise(scenario)).chain(self.full_generator(scenario)).collect()
    }

    /// One arm's cells in the order of their loads, those without a figure left out.
    fn measured(&self, scenario: Scenario, arm: &str) -> Vec<&Cell> {
        let cells = self.of(scenario);
        cells.filter(|cell| cell.arm == arm && cell.good_rounds().next().is_some()).collect()
    }

    /// How far the first arm is from itself.
    fn noise(&self, scenario: Scenario) -> Vec<String> {
        let first = &self.plan.arms[0].name;
        let (compared, _) = scenario.compared();
        let again = self.measured(scenario, &format!("{first} again"));
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
    if last.verdict() != "ok" {
        return format!("{name} at {load}× is no result: {}.", last.verdict());
    }
    let kept = goodput_kept(cells.iter().copied()).unwrap_or(0.0);
    let p99 = last.median(|r| r.service_p99_us) / 1e3;
    let good = if kept > 0.0 && !p99.is_nan() {
        format!("; the p99 of the good replies is {p99:.0} ms")
    } else {
        String::new()
    };
    format!("{name} keeps {:.0} % of its best goodput at {load}×{good}.", kept * 1e2)
}
