//! One self-contained HTML page with the pictures: nothing in it is loaded from elsewhere. It does not
//! know how a picture is drawn.

use std::fmt::Write;

use super::svg::escape;
use crate::bench::results::Results;

impl Results {
    /// The page.
    pub(crate) fn page(&self) -> String {
        let mut page = String::from(HEAD);
        let _ = write!(page, "<h1>overfall bench</h1><p>{}</p>", escape(&self.how()));
        for chart in self.charts() {
            let _ = write!(
                page,
                "<figure><figcaption>{}</figcaption>{}</figure>",
                escape(&chart.title),
                chart.svg()
            );
        }
        let _ = write!(page, "<h2>Figures</h2><pre>{}</pre>", escape(&self.text()));
        page += "<h2>Commands</h2><ul>";
        for cell in
            self.cells.iter().filter(|cell| cell.spot.load.is_none_or(|load| load == self.plan.loads[0]))
        {
            let _ = write!(
                page,
                "<li>{} in {}: <code>{}</code></li>",
                escape(&cell.arm),
                cell.spot.scenario,
                escape(&cell.command)
            );
        }
        let environment = serde_json::to_string_pretty(&self.plan.environment).unwrap_or_default();
        let _ = writeln!(page, "</ul><h2>Environment</h2><pre>{}</pre></body></html>", escape(&environment));
        page
    }

    /// The goodput curve alone, as an image.
    pub(crate) fn goodput_svg(&self) -> Option<String> {
        self.goodput().map(|chart| chart.svg())
    }

    fn how(&self) -> String {
        let plan = &self.plan;
        let pinned = match plan.pin {
            Some(pin) => format!("server on CPU {}, generator on CPU {}", pin.server, pin.client),
            None => "nothing pinned".into(),
        };
        format!("Medians of {} rounds of {:?} each, {pinned}.", plan.rounds, plan.duration)
    }
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>overfall bench</title>\
<meta name=\"viewport\" content=\"width=device-width\"><style>\
:root{color-scheme:light dark;--ink:#222;--paper:#fff}\
@media (prefers-color-scheme: dark){:root{--ink:#ddd;--paper:#181818}}\
body{font-family:system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:var(--ink);background:var(--paper)}\
figure{margin:2rem 0}figcaption{font-weight:600;margin-bottom:.5rem}pre{overflow-x:auto;font-size:.75rem}code{font-size:.8rem}\
svg{width:100%;height:auto}</style></head><body>";
