//! One self-contained HTML page: the verdict, the pictures, the tables. Nothing in it is loaded from elsewhere.
//! It does not know how a picture is drawn, nor what the tables show.

use std::fmt::Write;

use serde_json::Value;

use super::{
    marks::STYLE,
    svg::{Chart, escape},
    table::Table,
    words::{about, how, intervals},
};
use crate::bench::{plan::Scenario, results::Results};

impl Results {
    /// The page.
    pub(crate) fn page(&self) -> String {
        let head = format!("{HEAD}<style>{STYLE}{}</style></head>", include_str!("page.css"));
        let top = format!(
            "<body><main><h1>overfall bench</h1><p class=\"verdict\">{}</p><p class=\"quiet\">{}</p>",
            escape(&self.verdict()),
            escape(&how(self))
        );
        let scenarios = self.shown_scenarios().map(|scenario| self.section(scenario));
        [
            head,
            top,
            paragraphs(self.failures(), "failed"),
            self.pictures(),
            scenarios.collect(),
            self.commands(),
            environment(&self.plan.environment),
            "</main></body></html>\n".into(),
        ]
        .concat()
    }

    /// The goodput curve alone, as an image.
    pub(crate) fn goodput_svg(&self) -> Option<String> {
        self.goodput().map(|chart| chart.image())
    }

    fn pictures(&self) -> String {
        let charts = self.charts();
        let bars = intervals(self).map_or(String::new(), |bars| format!(" Bars are {bars}."));
        let figure = |chart: &Chart| {
            format!("<figure><figcaption>{}</figcaption>{}</figure>", escape(&chart.title), chart.figure())
        };
        format!(
            "<p class=\"quiet\">Dots are medians.{bars} A cross is where there is no result.</p><div class=\"charts\">{}</div>",
            charts.iter().map(figure).collect::<String>()
        )
    }

    fn section(&self, scenario: Scenario) -> String {
        format!(
            "<section><h2>{scenario}</h2><p class=\"quiet\">{}</p>{}{}</section>",
            escape(&about(self, scenario)),
            paragraphs(self.sentences(scenario).into_iter(), "said"),
            self.table(scenario).html()
        )
    }

    /// How each arm was started in each scenario.
    fn commands(&self) -> String {
        let first_load = self.plan.loads.first().copied();
        let mut rows = String::new();
        for cell in
            self.cells.iter().filter(|cell| cell.spot.load.is_none_or(|load| Some(load) == first_load))
        {
            write_row(&mut rows, &format!("{} in {}", cell.arm, cell.spot.scenario), &cell.command);
        }
        format!("<section><h2>Commands</h2>{}</section>", definitions(&rows))
    }
}

impl Table {
    fn html(&self) -> String {
        let heads = self.header.iter().map(|name| format!("<th scope=\"col\">{}</th>", escape(name)));
        let mut html = format!("<tr>{}</tr>", heads.collect::<String>());
        for row in &self.rows {
            html += if row.is_result { "<tr>" } else { "<tr class=\"missing\">" };
            for (column, text) in row.texts.iter().enumerate() {
                let text = escape(text);
                html += &if column < self.names {
                    format!("<th scope=\"row\">{text}</th>")
                } else {
                    format!("<td>{text}</td>")
                };
            }
            html += "</tr>";
        }
        // Wider than a telephone, it is moved and not the page, and can be so by keyboard.
        format!(
            "<div class=\"wide\" tabindex=\"0\"><table class=\"names{}\">{html}</table></div>",
            self.names
        )
    }
}

/// What the figures depend on beside the plan.
fn environment(environment: &Value) -> String {
    let mut rows = String::new();
    for (name, value) in environment.as_object().into_iter().flatten() {
        write_row(&mut rows, &name.replace('_', " "), &plain(value));
    }
    format!("<section><h2>Environment</h2>{}</section>", definitions(&rows))
}

/// Without the quotes and brackets that JSON has about text.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(" "),
        Value::Object(values) => values.values().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn write_row(rows: &mut String, name: &str, value: &str) {
    // It is written to memory.
    let _ = write!(rows, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escape(name), escape(value));
}

fn definitions(rows: &str) -> String {
    format!("<table class=\"definitions\">{rows}</table>")
}

fn paragraphs(sentences: impl Iterator<Item = String>, class: &str) -> String {
    sentences.map(|sentence| format!("<p class=\"{class}\">{}</p>", escape(&sentence))).collect()
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>overfall bench</title>\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
    <meta name=\"color-scheme\" content=\"light dark\"><link rel=\"icon\" href=\"data:,\">";

#[cfg(test)]
mod tests {
    use crate::bench::{
        examples::{bound, cell, overload, results, round},
        plan::Scenario,
        results::LeftOut,
    };

    #[test]
    fn the_verdict_comes_first_with_the_date_and_figures_stand_in_tables() {
        let results = results(1, overload(&[("a<b", &[(1.0, 1000.0), (10.0, 970.0)])]));
        for report in [results.page(), results.text().replace('<', "&lt;")] {
            let at = |text: &str| report.find(text).unwrap_or_else(|| panic!("{text}: {report}"));
            let verdict = "In one round, which proves nothing: at 10× the capacity a&lt;b keeps 97 %";
            assert!(at(verdict) < at("Measured on 2026-11-27 at 12:34 UTC"), "{report}");
            assert!(at("one round, which proves nothing, for noise") < at("goodput ÷ a&lt;b"), "{report}");
        }
        let page = results.page();
        assert!(!page.contains("<pre") && !page.contains("a<b"), "{page}");
        assert!(
            page.contains("<th scope=\"row\">10×</th><th scope=\"row\">a&lt;b</th><td>1.00</td>"),
            "{page}"
        );
        assert_eq!(results.document()["measured_at"], "2026-11-27T12:34:00Z");
        assert_eq!(results.document()["verdict"], results.verdict());
    }

    #[test]
    fn what_is_no_result_is_said_and_why() {
        let rounds = [round(1.0, 1.0), bound(round(1.0, 1.0))];
        let mut cells = vec![cell(Scenario::Overload, 1.0, "pool", rounds)];
        cells.extend(overload(&[("pool", &[(2.0, 1.0)]), ("spawn", &[(1.0, 1.0)])]));
        cells[1].rounds = vec![Ok(bound(round(1.0, 1.0)))];
        cells[2].rounds = vec![Err("it fell over".into())];
        let mut results = results(2, cells);
        results.left_out = vec![LeftOut { load: 10.0, why: "it is too much".into() }];
        for report in [results.page(), results.text()] {
            for said in [
                "ok (1 of 2 rounds)",
                "No result at 2× for pool: the generator could send only 80 % of what it should.",
                "10× is left out: it is too much.",
                "failed: spawn in overload: it fell over",
            ] {
                assert!(report.contains(said), "{said}: {report}");
            }
        }
        assert!(results.page().contains("<tr class=\"missing\"><th scope=\"row\">2×</th>"));
        assert_eq!(results.document()["left_out"][0]["load"], 10.0);
    }
}
