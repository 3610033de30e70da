//! The verdict: what all of it comes to, in one sentence. It knows no table and no picture.

use super::words::{list, short};
use crate::bench::{
    plan::Scenario,
    results::{Cell, Results, goodput_kept},
    stats::Interval,
};

impl Results {
    /// What all of it comes to, with how much it proves.
    pub(crate) fn verdict(&self) -> String {
        let found = self.in_overload().or_else(|| {
            let other = self.of_requests().or_else(|| self.of_silence())?;
            Some(other + if self.is_overload_planned() { "; there is no result of an overload" } else { "" })
        });
        let Some(found) = found else {
            let what = if self.is_overload_planned() { " of an overload" } else { "" };
            return format!("There is no verdict, for the first arm has no result{what}.");
        };
        let caveat = match self.plan.rounds {
            _ if self.interrupted => "Interrupted, and so of what was measured until then: ",
            1 => "In one round, which proves nothing: ",
            _ => return capitalised(&found) + ".",
        };
        format!("{caveat}{found}.")
    }

    fn is_overload_planned(&self) -> bool {
        self.plan.scenarios.contains(&Scenario::Overload) && self.plan.loads.iter().any(|&load| load > 1.0)
    }

    /// How much of its goodput each arm keeps under the highest load, if it is an overload, at which the first
    /// has a result.
    fn in_overload(&self) -> Option<String> {
        let first = &self.plan.arms.first()?.name;
        let results = self.of(Scenario::Overload).filter(|cell| cell.is_result());
        let highest = results.clone().filter(|cell| cell.arm == *first).filter_map(|cell| cell.spot.load);
        let load = highest.last().filter(|&load| load > 1.0)?;
        let kept = |arm: &str| {
            let cells = results.clone().filter(|cell| cell.arm == arm && cell.spot.load <= Some(load));
            cells.clone().any(|cell| cell.spot.load == Some(load)).then(|| goodput_kept(cells).unwrap_or(0.0))
        };
        let shares = self.each_arm(Scenario::Overload, kept);
        let shares = grouped(shares.into_iter().map(|(arm, share)| (arm, -(share * 1e2).round())).collect());
        let parts = shares.into_iter().enumerate().map(|(place, (arms, share))| {
            let (keep, their) = if arms.len() > 1 { ("keep", "their") } else { ("keeps", "its") };
            let of_what = if place == 0 { format!(" of {their} best goodput") } else { String::new() };
            format!("{} {keep} {:.0} %{of_what}", list(&arms), share.abs())
        });
        Some(format!(
            "at {load}× the capacity {}{}",
            parts.collect::<Vec<_>>().join(", "),
            self.without(Scenario::Overload, |cell| cell.spot.load == Some(load))
        ))
    }

    /// What a request costs the first arm, and how many times as much the others.
    fn of_requests(&self) -> Option<String> {
        let mut closed = [Scenario::Connections, Scenario::Keepalive].into_iter();
        let scenario = closed.find(|&scenario| self.result(scenario, &self.plan.arms[0].name).is_some())?;
        let first = self.result(scenario, &self.plan.arms[0].name)?;
        let cpu = first.median(|r| r.cpu_us_per_request);
        let others = self.each_arm(scenario, |arm| {
            self.result(scenario, arm).filter(|cell| cell.arm != first.arm).and_then(|cell| self.ratio(cell))
        });
        let beyond = |ratio: Interval| ratio.smallest > 1.0 || ratio.largest < 1.0;
        let alike: Vec<_> = others.iter().filter(|other| !beyond(other.1)).map(|other| other.0).collect();
        let differ = others.iter().filter(|other| beyond(other.1));
        let mut parts: Vec<_> =
            differ.map(|(arm, ratio)| format!("{arm} {:.2} times as much", ratio.median)).collect();
        if !alike.is_empty() {
            parts.push(format!("{} no more and no less than noise makes", list(&alike)));
        }
        parts.insert(0, format!("{} takes {} µs of CPU for a request", first.arm, short(cpu)));
        Some(format!("in {scenario} {}{}", parts.join(", "), self.without(scenario, |_| true)))
    }

    /// What a silent connection costs each arm.
    fn of_silence(&self) -> Option<String> {
        let bytes = |arm: &str| {
            let cell = self.result(Scenario::Idle, arm).filter(|cell| cell.median(|r| r.goodput_per_s) > 0.0);
            cell.map(|cell| cell.median(|r| r.silent.map_or(0.0, |silent| silent.bytes_per_connection)))
        };
        let arms = grouped(
            self.each_arm(Scenario::Idle, bytes)
                .into_iter()
                .map(|(arm, bytes)| (arm, bytes.round()))
                .collect(),
        );
        let parts: Vec<_> =
            arms.into_iter().map(|(arms, bytes)| format!("{bytes} bytes of {}", list(&arms))).collect();
        (!parts.is_empty()).then(|| {
            format!(
                "a silent connection takes {}{}",
                parts.join(", "),
                self.without(Scenario::Idle, |_| true)
            )
        })
    }

    /// What is known of each arm in a scenario, in the plan's order.
    fn each_arm<T>(&self, scenario: Scenario, known: impl Fn(&str) -> Option<T>) -> Vec<(&str, T)> {
        let arms = self.plan.arms.iter().filter(|arm| self.of(scenario).any(|cell| cell.arm == arm.name));
        arms.filter_map(|arm| Some((&*arm.name, known(&arm.name)?))).collect()
    }

    fn result(&self, scenario: Scenario, arm: &str) -> Option<&Cell> {
        self.of(scenario).find(|cell| cell.arm == arm && cell.is_result())
    }

    /// Which arms have no result where the others have one.
    fn without(&self, scenario: Scenario, there: impl Fn(&Cell) -> bool) -> String {
        let cells = self.of(scenario).filter(|cell| there(cell) && !cell.is_result());
        let is_again = |arm: &&str| !self.plan.arms.iter().any(|other| other.name == *arm);
        let arms: Vec<_> = cells.map(|cell| &*cell.arm).filter(|arm| !is_again(arm)).collect();
        match arms.len() {
            0 => String::new(),
            1 => format!("; {} has no result", arms[0]),
            _ => format!("; {} have no result", list(&arms)),
        }
    }
}

/// Arms of the same figure together, the smallest first.
fn grouped(mut figures: Vec<(&str, f64)>) -> Vec<(Vec<&str>, f64)> {
    // It keeps the order of those that are equal.
    figures.sort_by(|one, other| one.1.total_cmp(&other.1));
    let mut groups: Vec<(Vec<&str>, f64)> = Vec::new();
    for (arm, figure) in figures {
        match groups.last_mut().filter(|group| group.1 == figure) {
            Some(group) => group.0.push(arm),
            None => groups.push((vec![arm], figure)),
        }
    }
    groups
}

fn capitalised(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().collect::<String>() + letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::examples::{bound, cell, overload, results, round};

    const KEPT: [(f64, f64); 2] = [(1.0, 1000.0), (10.0, 970.0)];
    const LOST: [(f64, f64); 2] = [(1.0, 1000.0), (10.0, 0.0)];

    #[test]
    fn an_overload_is_judged_by_the_goodput_that_is_kept() {
        let mut results =
            results(6, overload(&[("pool", &KEPT), ("spawn", &LOST), ("go", &LOST), ("tokio", &KEPT)]));
        assert_eq!(
            results.verdict(),
            "At 10× the capacity pool and tokio keep 97 % of their best goodput, spawn and go keep 0 %."
        );
        results.plan.rounds = 1;
        assert!(
            results.verdict().starts_with("In one round, which proves nothing: at 10× the capacity pool")
        );
        results.interrupted = true;
        assert!(results.verdict().starts_with("Interrupted, and so of what was measured until then: at 10×"));
    }

    #[test]
    fn where_the_highest_load_is_no_result_the_next_one_is_judged() {
        let at = [(1.0, 1000.0), (2.0, 950.0), (10.0, 0.0)];
        let mut results = results(6, overload(&[("pool", &at), ("spawn", &at)]));
        results.cells[2].rounds = vec![Ok(bound(round(900.0, 1.0)))];
        results.cells[4].rounds = vec![Err("it fell over".into())];
        assert_eq!(
            results.verdict(),
            "At 2× the capacity pool keeps 95 % of its best goodput; spawn has no result."
        );
        results.cells[1].rounds.clear();
        assert_eq!(results.verdict(), "There is no verdict, for the first arm has no result of an overload.");
    }

    #[test]
    fn without_an_overload_it_is_the_cpu_of_a_request_with_what_noise_may_have_made() {
        let closed =
            |arm, cpu: [f64; 2]| cell(Scenario::Connections, None, arm, cpu.map(|cpu| round(1000.0, cpu)));
        let cells = vec![
            closed("pool", [20.0, 30.0]),
            closed("pool again", [20.0, 29.0]),
            closed("spawn", [50.0, 75.0]),
            closed("tokio", [19.0, 31.0]),
        ];
        let mut results = results(2, cells);
        results.plan.arms.remove(1);
        assert_eq!(
            results.verdict(),
            "In connections pool takes 25.0 µs of CPU for a request, spawn 2.50 times as much, tokio no more and \
             no less than noise makes."
        );
    }

    #[test]
    fn silent_connections_are_judged_by_their_bytes() {
        let idle = |arm, goodput| cell(Scenario::Idle, None, arm, [round(goodput, 1.0)]);
        let results = results(2, vec![idle("pool", 1000.0), idle("limit", 0.0)]);
        assert_eq!(results.verdict(), "A silent connection takes 200 bytes of pool.");
    }
}
