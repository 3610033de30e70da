//! The report as text, for people: the verdict, then for each scenario a table and what follows from it. It
//! knows neither the columns nor the sentences.

use super::words::{about, how, intervals};
use crate::bench::{plan::Scenario, results::Results};

impl Results {
    /// All of the text.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n{}\n", self.verdict(), how(self));
        for scenario in self.shown_scenarios() {
            text += &format!("\n{}: {}\n{}\n", scenario, about(self, scenario), self.table(scenario).text());
            for sentence in self.sentences(scenario) {
                text += &format!("{sentence}\n");
            }
        }
        if let Some(intervals) = intervals(self) {
            text += &format!("\nFigures are medians; in brackets are {intervals}.\n");
        }
        for failure in self.failures() {
            text += &format!("{failure}\n");
        }
        if self.interrupted {
            text += "interrupted: this is what was measured until then\n";
        }
        text
    }

    /// The scenarios of which something was measured.
    pub(super) fn shown_scenarios(&self) -> impl Iterator<Item = Scenario> {
        let scenarios = self.plan.scenarios.iter().copied();
        scenarios.filter(|&scenario| self.of(scenario).any(|cell| !cell.rounds.is_empty()))
    }
}
