//! How a chart is drawn, as SVG: dots or lines with their intervals, and crosses where there is no result.
//! It does not know what its numbers mean.

use std::fmt::Write;

use super::{
    marks::{STYLE, STYLES, bar, cross, dot, line},
    scale::{Axis, Room, Scale},
};
use crate::bench::stats::Interval;

/// As wide as a page on a telephone shows it in its own size.
const WIDTH: f64 = 480.0;
/// Without the legend.
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// The strip above the values, where the crosses are.
const STRIP: f64 = 20.0;
/// Between two arms at the same place.
const BESIDE: f64 = 14.0;
const LEGEND_ROW: f64 = 20.0;
const LETTER: f64 = 6.8;
/// Lines with more points than these have no dot at each.
const DOTTED: usize = 12;

/// A figure at its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: Interval,
}

/// One arm of a chart.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) style: usize,
    pub(super) points: Vec<Point>,
    /// Where it has no result.
    pub(super) missing: Vec<f64>,
}

/// A chart, whose vertical axis begins at zero.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x_label: &'static str,
    pub(super) y_label: &'static str,
    pub(super) axis: Axis,
    pub(super) series: Vec<Series>,
}

impl Chart {
    /// The picture, with the style that it needs to stand alone.
    pub(super) fn image(&self) -> String {
        self.svg(&format!("<style>{STYLE}</style>"))
    }

    /// The picture in a page that has the style.
    pub(super) fn figure(&self) -> String {
        self.svg("")
    }

    fn svg(&self, style: &str) -> String {
        let (legend, rows) = self.legend();
        let height = HEIGHT + rows as f64 * LEGEND_ROW;
        let mut svg = format!(
            "<svg{XMLNS} class=\"chart\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             role=\"img\" aria-label=\"{}\">{style}",
            escape(&self.title)
        );
        let scale = self.scale();
        self.draw_edges(&mut svg, &scale);
        for (index, series) in self.series.iter().enumerate() {
            series.draw(&mut svg, &scale, self.beside(index));
        }
        svg + &legend + "</svg>"
    }

    fn scale(&self) -> Scale<'_> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let missing = self.series.iter().flat_map(|series| &series.missing);
        let xs = points().map(|point| point.x).chain(missing.copied()).collect();
        let strip = if self.is_missing() { STRIP } else { 0.0 };
        let room = Room { left: LEFT, right: WIDTH - RIGHT, top: TOP + strip, bottom: HEIGHT - BOTTOM };
        Scale::of(&self.axis, room, xs, points().map(|point| point.y.largest).fold(0.0, f64::max))
    }

    fn is_missing(&self) -> bool {
        self.series.iter().any(|series| !series.missing.is_empty())
    }

    /// How far beside its place an arm's marks stand, so that none hides another: crosses, and dots where
    /// there are names. On an axis of numbers dots stand where they are.
    fn beside(&self, index: usize) -> Beside {
        let count = self.series.len() as f64;
        let step = match &self.axis {
            Axis::Names(names) => BESIDE.min(0.8 * (WIDTH - LEFT - RIGHT) / names.len() as f64 / count),
            _ => BESIDE * 0.6,
        };
        let far = (index as f64 - (count - 1.0) / 2.0) * step;
        let names = matches!(self.axis, Axis::Names(_));
        Beside { dots: if names { far } else { 0.0 }, crosses: far, joined: !names }
    }

    /// The axes: what stands at them, and lines across at even heights.
    fn draw_edges(&self, svg: &mut String, scale: &Scale<'_>) {
        for (y, value) in scale.y_ticks() {
            let (right, text) = (WIDTH - RIGHT, y + 4.0);
            let _ = write!(
                svg,
                "<line class=\"rule\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            );
            write_text(svg, "ink", (LEFT - 6.0, text), "end", &value);
        }
        for (x, value) in scale.x_ticks() {
            write_text(svg, "ink", (x, HEIGHT - BOTTOM + 17.0), "middle", &value);
        }
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        write_text(svg, "quiet", (middle, HEIGHT - 9.0), "middle", self.x_label);
        let _ = write!(
            svg,
            "<text class=\"quiet\" transform=\"translate(12 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(scale.room.top, scale.room.bottom),
            self.y_label
        );
    }

    /// The names of the arms with their marks, in as many rows as it takes.
    fn legend(&self) -> (String, usize) {
        let (mut svg, mut x, mut row) = (String::new(), LEFT, 1);
        let mut place = |name: &str, mark: &dyn Fn(f64, f64) -> String| {
            let width = 30.0 + name.chars().count() as f64 * LETTER;
            if x > LEFT && x + width > WIDTH {
                (x, row) = (LEFT, row + 1);
            }
            let y = HEIGHT + row as f64 * LEGEND_ROW - 8.0;
            svg += &mark(x + 6.0, y - 4.0);
            write_text(&mut svg, "ink", (x + 16.0, y), "start", name);
            x += width;
        };
        for series in &self.series {
            let none = if series.points.is_empty() { ": no result" } else { "" };
            place(&format!("{}{none}", series.name), &|x, y| dot(series.style, x, y));
        }
        if self.is_missing() {
            place("no result", &|x, y| cross(STYLES - 1, x, y));
        }
        (svg, row)
    }
}

/// See [`Chart::beside`].
struct Beside {
    dots: f64,
    crosses: f64,
    /// Whether a line goes through the points.
    joined: bool,
}

impl Series {
    fn draw(&self, svg: &mut String, scale: &Scale<'_>, beside: Beside) {
        if beside.joined {
            *svg += &line(self.style, self.places(scale));
        }
        for point in self.points.iter().filter(|_| self.points.len() <= DOTTED) {
            let x = scale.x(point.x) + beside.dots;
            if point.y.smallest < point.y.largest {
                *svg += &bar(self.style, x, scale.y(point.y.smallest), scale.y(point.y.largest));
            }
            *svg += &dot(self.style, x, scale.y(point.y.median));
        }
        for &x in &self.missing {
            *svg += &cross(self.style, scale.x(x) + beside.crosses, TOP + 4.0);
        }
    }

    /// Where the line goes. It does not go over a place without a result as if there were one.
    fn places(&self, scale: &Scale<'_>) -> impl Iterator<Item = (bool, f64, f64)> {
        let mut before: Option<f64> = None;
        self.points.iter().map(move |point| {
            let gap = |from: f64| self.missing.iter().any(|&x| from < x && x < point.x);
            let goes_on = before.is_some_and(|from| !gap(from));
            before = Some(point.x);
            (goes_on, scale.x(point.x), scale.y(point.y.median))
        })
    }
}

fn write_text(svg: &mut String, class: &str, (x, y): (f64, f64), anchor: &str, text: &str) {
    let text = escape(text);
    // It is written to memory.
    let _ = write!(
        svg,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

/// The namespace's name, without which a picture alone is not shown; it is never fetched.
const XMLNS: &str = " xmlns=\"http://www.w3.org/2000/svg\"";

/// For text between tags and in attributes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(axis: Axis) -> Chart {
        let point = |x, median: f64| Point {
            x,
            y: Interval { median, smallest: median - 1.0, largest: median + 1.0 },
        };
        let series = |style, points, missing| Series { name: format!("arm {style}"), style, points, missing };
        Chart {
            title: "title".into(),
            x_label: "",
            y_label: "",
            axis,
            series: vec![
                series(0, vec![point(1.0, 5.0), point(3.0, 6.0)], vec![2.0]),
                series(1, vec![point(1.0, 4.0), point(2.0, 4.0), point(3.0, 4.0)], vec![]),
                series(2, vec![], vec![1.0, 2.0, 3.0]),
            ],
        }
    }

    #[test]
    fn intervals_are_bars_and_what_is_no_result_is_a_cross_and_no_line_goes_over_it() {
        let svg = chart(Axis::Log).figure();
        assert_eq!(svg.matches("class=\"bar ").count(), 5);
        // One in the legend.
        assert_eq!(svg.matches("class=\"cross ").count(), 1 + 3 + 1);
        let line = |style| {
            let (_, rest) = svg.split_once(&format!("class=\"line s{style}\" d=\"")).unwrap();
            rest.split_once('"').unwrap().0.replace(|c: char| !c.is_alphabetic(), "")
        };
        assert_eq!([line(0), line(1), line(2)], ["MM", "MLL", ""]);
        assert!(svg.contains(">arm 2: no result<") && svg.contains(">no result<"));
    }

    #[test]
    fn between_names_there_is_no_line_and_no_dot_hides_another() {
        let svg = chart(Axis::Names(vec!["p50", "p99", "p99.9"])).figure();
        assert!(!svg.contains("class=\"line "));
        let dots: Vec<_> =
            svg.split("class=\"dot ").skip(1).map(|rest| &rest[..rest.find('m').unwrap()]).collect();
        // Five, and three in the legend.
        assert_eq!(dots.len(), 5 + 3);
        let xs: std::collections::HashSet<_> =
            dots[..5].iter().map(|dot| dot.split_once('M').unwrap().1.split_once(' ').unwrap().0).collect();
        assert_eq!(xs.len(), 5, "{dots:?}");
    }

    #[test]
    fn an_image_has_its_style_and_a_figure_has_that_of_the_page() {
        assert!(chart(Axis::Log).image().contains("prefers-color-scheme"));
        assert!(!chart(Axis::Log).figure().contains("<style"));
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<a b=\"c\">&"), "&lt;a b=&quot;c&quot;&gt;&amp;");
    }
}
