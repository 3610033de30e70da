//! How a chart is drawn, as SVG. It does not know what its numbers mean.

use std::fmt::Write;

use super::words::short;

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
/// Lines with more points than these have no marker at each.
const MARKED: usize = 12;

/// A line of a chart.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) style: usize,
    pub(super) points: Vec<(f64, f64)>,
}

/// A chart with linear axes from zero, or a logarithmic horizontal one.
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x_label: &'static str,
    pub(super) y_label: &'static str,
    pub(super) log_x: bool,
    /// What stands at 1, 2, 3 and so on of the horizontal axis, instead of numbers.
    pub(super) x_names: &'static [&'static str],
    pub(super) lines: Vec<Line>,
}

impl Chart {
    /// The picture, complete in itself.
    pub(super) fn svg(&self) -> String {
        let scale = Scale::of(self);
        let mut svg = format!(
            "<svg{XMLNS} viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{}\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\
             <style>.ink{{fill:#222}}.rule{{stroke:#bbb}}\
             @media (prefers-color-scheme: dark){{.ink{{fill:#ddd}}.rule{{stroke:#555}}}}</style>",
            escape(&self.title)
        );
        draw_rules(&mut svg, &scale);
        self.draw_x_ticks(&mut svg, &scale);
        self.draw_labels(&mut svg);
        let mut named = Vec::new();
        for line in &self.lines {
            line.draw(&mut svg, &scale);
            line.draw_name(&mut svg, &scale, &mut named);
        }
        svg + "</svg>"
    }

    fn draw_x_ticks(&self, svg: &mut String, scale: &Scale) {
        for value in self.x_ticks(scale) {
            let _ = write!(
                svg,
                "<text class=\"ink\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                scale.x(value),
                HEIGHT - BOTTOM + 18.0,
                self.x_names
                    .get((value as usize).wrapping_sub(1))
                    .map_or_else(|| trimmed(value), ToString::to_string)
            );
        }
    }

    fn draw_labels(&self, svg: &mut String) {
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
    }

    fn x_ticks(&self, scale: &Scale) -> Vec<f64> {
        let mut ticks: Vec<f64> =
            self.lines.iter().flat_map(|line| line.points.iter().map(|point| point.0)).collect();
        ticks.sort_unstable_by(f64::total_cmp);
        ticks.dedup();
        if scale.log_x || ticks.len() <= 6 {
            return ticks;
        }
        (0..=4).map(|tick| scale.x_most * f64::from(tick) / 4.0).collect()
    }
}

/// Lines across the chart at even heights, with what they stand for.
fn draw_rules(svg: &mut String, scale: &Scale) {
    for tick in 0..=4 {
        let value = scale.y_most * f64::from(tick) / 4.0;
        let (y, right) = (scale.y(value), WIDTH - RIGHT);
        let _ =
            write!(svg, "<line class=\"rule\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        let _ = write!(
            svg,
            "<text class=\"ink\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            short(value)
        );
    }
}

impl Line {
    fn draw(&self, svg: &mut String, scale: &Scale) {
        let (colour, dash, marker) = STYLES[self.style % STYLES.len()];
        let path: Vec<_> =
            self.points.iter().map(|&(x, y)| format!("{:.1},{:.1}", scale.x(x), scale.y(y))).collect();
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\" points=\"{}\"/>",
            path.join(" ")
        );
        if self.points.len() > MARKED {
            return;
        }
        for &(x, y) in &self.points {
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\" text-anchor=\"middle\">{marker}</text>",
                scale.x(x),
                scale.y(y) + 4.0
            );
        }
    }

    /// Writes the name at the line's end. Names are moved apart where lines end at the same height:
    /// `named` are the heights that are taken.
    fn draw_name(&self, svg: &mut String, scale: &Scale, named: &mut Vec<f64>) {
        let Some(&(x, y)) = self.points.last() else { return };
        let (colour, _, marker) = STYLES[self.style % STYLES.len()];
        let mut at = scale.y(y) + 4.0;
        while named.iter().any(|other| (other - at).abs() < 14.0) {
            at -= 2.0;
        }
        named.push(at);
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{at:.1}\" fill=\"{colour}\">{marker} {}</text>",
            scale.x(x) + 12.0,
            escape(&self.name)
        );
    }
}

/// Where values stand in the picture.
struct Scale {
    log_x: bool,
    least_x: f64,
    x_most: f64,
    y_most: f64,
}

impl Scale {
    fn of(chart: &Chart) -> Self {
        let points = || chart.lines.iter().flat_map(|line| &line.points);
        let most = |pick: fn(&(f64, f64)) -> f64| points().map(pick).fold(0.0, f64::max);
        let least_x = points().map(|point| point.0).fold(f64::MAX, f64::min);
        let (x_most, y_most) = (most(|point| point.0), round_up(most(|point| point.1)));
        let log_x = chart.log_x && least_x > 0.0 && x_most > least_x;
        Self { log_x, least_x, x_most, y_most }
    }

    fn x(&self, value: f64) -> f64 {
        let share = if self.log_x {
            (value / self.least_x).ln() / (self.x_most / self.least_x).ln()
        } else {
            value / self.x_most.max(1e-9)
        };
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - value / self.y_most * (HEIGHT - TOP - BOTTOM)
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

/// For text between tags and in attributes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

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
