//! One self-contained HTML page with the pictures: nothing in it is loaded from elsewhere.

use std::fmt::Write;

use super::{
    Results,
    plan::Scenario,
    report::{about, short},
};

/// Told apart by colour (Okabe and Ito's palette, for all kinds of colour vision), by dash and by
/// marker, and named at their ends.
const STYLES: [(&str, &str, &str); 7] = [
    ("#0072b2", "none", "●"),
    ("#d55e00", "6 3", "■"),
    ("#009e73", "2 3", "▲"),
    ("#cc79a7", "8 3 2 3", "◆"),
    ("#e69f00", "4 2", "▼"),
    ("#56b4e9", "1 2", "✚"),
    ("#888888", "10 4", "✖"),
];

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 50.0;

/// A line of a chart.
struct Line {
    name: String,
    style: usize,
    points: Vec<(f64, f64)>,
}

/// A chart with linear axes from zero, or a logarithmic horizontal one.
struct Chart {
    title: String,
    x_label: &'static str,
    y_label: &'static str,
    log_x: bool,
    /// What stands at 1, 2, 3 and so on of the horizontal axis, instead of numbers.
    x_names: &'static [&'static str],
    lines: Vec<Line>,
}

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

    fn charts(&self) -> Vec<Chart> {
        let mut charts: Vec<Chart> = self.goodput().into_iter().collect();
        for &scenario in &self.plan.scenarios {
            charts.extend(self.latencies(scenario));
        }
        for scenario in [Scenario::Overload, Scenario::Idle] {
            charts.extend(self.over_time(scenario, "memory, MB", |sample| sample.rss_bytes as f64 / 1e6));
            charts.extend(self.over_time(scenario, "threads", |sample| sample.threads as f64));
        }
        charts.retain(|chart| chart.lines.iter().any(|line| !line.points.is_empty()));
        charts
    }

    fn lines<'a>(&'a self, points: impl Fn(&str) -> Vec<(f64, f64)> + 'a) -> Vec<Line> {
        let arms = self.plan.arms.iter().enumerate();
        let line = |(index, arm): (usize, &super::Arm)| {
            let mut points = points(&arm.name);
            points.retain(|point| point.1.is_finite());
            Line { name: arm.name.clone(), style: index, points }
        };
        arms.map(line).collect()
    }

    fn goodput(&self) -> Option<Chart> {
        let cells = |name: &str| {
            let cells = self.of(Scenario::Overload).filter(|cell| cell.arm == name && cell.verdict() == "ok");
            cells
                .map(|cell| (cell.spot.load.unwrap_or(0.0), cell.median(|r| r.goodput_per_s)))
                .collect::<Vec<_>>()
        };
        self.plan.scenarios.contains(&Scenario::Overload).then(|| Chart {
            title: format!("Goodput against offered load ({})", about(self, Scenario::Overload)),
            x_label: "offered load, multiples of the capacity",
            y_label: "good replies per second",
            log_x: true,
            x_names: &[],
            lines: self.lines(cells),
        })
    }

    fn latencies(&self, scenario: Scenario) -> Option<Chart> {
        let last = self.of(scenario).filter(|cell| !cell.rounds.is_empty()).last()?.spot;
        let points = move |name: &str| {
            let cell = self.cells.iter().find(|cell| cell.spot == last && cell.arm == name);
            let Some(cell) = cell.filter(|cell| cell.good_rounds().next().is_some()) else {
                return Vec::new();
            };
            // At equal distances: the tail is what it is about.
            vec![
                (1.0, cell.median(|r| r.p50_us) / 1e3),
                (2.0, cell.median(|r| r.p99_us) / 1e3),
                (3.0, cell.median(|r| r.p999_us) / 1e3),
            ]
        };
        let load = last.load.map_or(String::new(), |load| format!(" at {load}×"));
        Some(Chart {
            title: format!("Latency in {scenario}{load}"),
            x_label: "percentile",
            y_label: "milliseconds",
            log_x: false,
            x_names: &["p50", "p99", "p99.9"],
            lines: self.lines(points),
        })
    }

    fn over_time(
        &self,
        scenario: Scenario,
        what: &'static str,
        figure: fn(&super::Sample) -> f64,
    ) -> Option<Chart> {
        let last = self.of(scenario).filter(|cell| !cell.rounds.is_empty()).last()?.spot;
        let points = move |name: &str| {
            let cell = self.cells.iter().find(|cell| cell.spot == last && cell.arm == name);
            let samples = cell.and_then(|cell| cell.good_rounds().last()).map(|round| &round.samples);
            samples.into_iter().flatten().map(|sample| (sample.at.as_secs_f64(), figure(sample))).collect()
        };
        let load = last.load.map_or(String::new(), |load| format!(" at {load}×"));
        Some(Chart {
            title: format!("{what} over time in {scenario}{load}, the last round"),
            x_label: "seconds",
            y_label: what,
            log_x: false,
            x_names: &[],
            lines: self.lines(points),
        })
    }
}

impl Chart {
    fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let most = |pick: fn(&(f64, f64)) -> f64| points().map(pick).fold(0.0, f64::max);
        let least_x = points().map(|point| point.0).fold(f64::MAX, f64::min);
        let (x_most, y_most) = (most(|point| point.0), round_up(most(|point| point.1)));
        let log_x = self.log_x && least_x > 0.0 && x_most > least_x;
        let x = |value: f64| {
            let share = if log_x {
                (value / least_x).ln() / (x_most / least_x).ln()
            } else {
                value / x_most.max(1e-9)
            };
            LEFT + share * (WIDTH - LEFT - RIGHT)
        };
        let y = |value: f64| HEIGHT - BOTTOM - value / y_most * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg{XMLNS} viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{}\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\
             <style>.ink{{fill:#222}}.rule{{stroke:#bbb}}\
             @media (prefers-color-scheme: dark){{.ink{{fill:#ddd}}.rule{{stroke:#555}}}}</style>",
            escape(&self.title)
        );
        for tick in 0..=4 {
            let value = y_most * f64::from(tick) / 4.0;
            let (y, right) = (y(value), WIDTH - RIGHT);
            let _ = write!(
                svg,
                "<line class=\"rule\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            );
            let _ = write!(
                svg,
                "<text class=\"ink\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                short(value)
            );
        }
        for value in self.x_ticks(log_x, x_most) {
            let _ = write!(
                svg,
                "<text class=\"ink\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                x(value),
                HEIGHT - BOTTOM + 18.0,
                self.x_names
                    .get((value as usize).wrapping_sub(1))
                    .map_or_else(|| trimmed(value), ToString::to_string)
            );
        }
        let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
        let _ = write!(
            svg,
            "<text class=\"ink\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 8.0,
            self.x_label
        );
        let _ = write!(
            svg,
            "<text class=\"ink\" transform=\"translate(14 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            HEIGHT / 2.0,
            self.y_label
        );
        let mut named: Vec<f64> = Vec::new();
        for line in &self.lines {
            let (colour, dash, marker) = STYLES[line.style % STYLES.len()];
            let path: Vec<_> =
                line.points.iter().map(|&(px, py)| format!("{:.1},{:.1}", x(px), y(py))).collect();
            let _ = write!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\" points=\"{}\"/>",
                path.join(" ")
            );
            if line.points.len() <= 12 {
                for &(px, py) in &line.points {
                    let _ = write!(
                        svg,
                        "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\" text-anchor=\"middle\">{marker}</text>",
                        x(px),
                        y(py) + 4.0
                    );
                }
            }
            if let Some(&(px, py)) = line.points.last() {
                // Names are moved apart where lines end at the same height.
                let mut at = y(py) + 4.0;
                while named.iter().any(|other| (other - at).abs() < 14.0) {
                    at -= 2.0;
                }
                named.push(at);
                let _ = write!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{at:.1}\" fill=\"{colour}\">{marker} {}</text>",
                    x(px) + 12.0,
                    escape(&line.name)
                );
            }
        }
        svg + "</svg>"
    }

    fn x_ticks(&self, log_x: bool, x_most: f64) -> Vec<f64> {
        let mut ticks: Vec<f64> =
            self.lines.iter().flat_map(|line| line.points.iter().map(|point| point.0)).collect();
        ticks.sort_unstable_by(f64::total_cmp);
        ticks.dedup();
        if log_x || ticks.len() <= 6 {
            return ticks;
        }
        (0..=4).map(|tick| x_most * f64::from(tick) / 4.0).collect()
    }
}

/// The namespace's name, without which a picture alone is not shown; it is never fetched.
const XMLNS: &str = " xmlns=\"http://www.w3.org/2000/svg\"";

/// To a number that divides well.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 1.2, 1.6, 2.0, 2.4, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|&up| up >= value)
        .unwrap_or(value)
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>overfall bench</title>\
<meta name=\"viewport\" content=\"width=device-width\"><style>\
:root{color-scheme:light dark;--ink:#222;--paper:#fff}\
@media (prefers-color-scheme: dark){:root{--ink:#ddd;--paper:#181818}}\
body{font-family:system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:var(--ink);background:var(--paper)}\
figure{margin:2rem 0}figcaption{font-weight:600;margin-bottom:.5rem}pre{overflow-x:auto;font-size:.75rem}code{font-size:.8rem}\
svg{width:100%;height:auto}</style></head><body>";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_numbers_that_divide_well() {
        assert_eq!(
            [0.0, 0.7, 1.0, 950.0, 1001.0, 43_000.0].map(round_up),
            [1.0, 0.8, 1.0, 1000.0, 1200.0, 50_000.0]
        );
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<a b=\"c\">&"), "&lt;a b=&quot;c&quot;&gt;&amp;");
    }
}
