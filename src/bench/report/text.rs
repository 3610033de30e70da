//! The report as text, for people: for each scenario a table and what follows from it. It knows neither
//! the columns nor the sentences.

use super::words::about;
use crate::bench::results::Results;

impl Results {
    /// All of the text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for &scenario in &self.plan.scenarios {
            if self.of(scenario).all(|cell| cell.rounds.is_empty()) {
                continue;
            }
            text +=
                &format!("\n{}: {}\n{}\n", scenario, about(self, scenario), self.table(scenario).trim_fmt());
            for sentence in self.sentences(scenario) {
                text += &format!("{sentence}\n");
            }
        }
        if self.plan.rounds > 1 {
            text += &format!(
                "\nFigures are medians of {} rounds; in brackets are the smallest and the largest ratio of a round{}.\n",
                self.plan.rounds,
                if self.plan.rounds == 6 { ", a 97 % interval" } else { "" }
            );
        }
        for cell in &self.cells {
            if let Some(failure) = cell.failure() {
                text += &format!("failed: {} in {}: {failure}\n", cell.arm, cell.spot.scenario);
            }
        }
        if self.interrupted {
            text += "interrupted: this is what was measured until then\n";
        }
        text
    }
}
