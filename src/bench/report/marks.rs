//! The marks that tell arms apart: by colour, by dash and by shape, so that no kind of colour vision and no
//! printer is in the way. It does not know where they stand.

/// So many arms look different; the next one looks like the first.
pub(super) const STYLES: usize = 7;

/// The colours and dashes of the classes `s0` to `s6`, for light and dark.
pub(super) const STYLE: &str = include_str!("chart.css");

/// A point of an arm.
pub(super) fn dot(style: usize, x: f64, y: f64) -> String {
    let shape = match style % STYLES {
        0 => "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
        1 => "m-3.7-3.7h7.4v7.4h-7.4z",
        2 => "m0-4.8l4.8 8.4h-9.6z",
        3 => "m0-5.2l5.2 5.2l-5.2 5.2l-5.2-5.2z",
        4 => "m0 4.8l4.8-8.4h-9.6z",
        5 => "m-1.5-4.8h3v3.3h3.3v3h-3.3v3.3h-3v-3.3h-3.3v-3h3.3z",
        _ => {
            "m-4.6 0a4.6 4.6 0 1 0 9.2 0a4.6 4.6 0 1 0-9.2 0zm2.4 0a2.2 2.2 0 1 0 4.4 0a2.2 2.2 0 1 0-4.4 0z"
        }
    };
    path("dot", style, &format!("M{x:.1} {y:.1}{shape}"))
}

/// From the smallest to the largest round of a point.
pub(super) fn bar(style: usize, x: f64, smallest: f64, largest: f64) -> String {
    let left = x - 3.5;
    path(
        "bar",
        style,
        &format!("M{x:.1} {smallest:.1}V{largest:.1}M{left:.1} {smallest:.1}h7M{left:.1} {largest:.1}h7"),
    )
}

/// Where an arm has no result.
pub(super) fn cross(style: usize, x: f64, y: f64) -> String {
    path("cross", style, &format!("M{x:.1} {y:.1}m-3.5-3.5l7 7m0-7l-7 7"))
}

/// A line through these places, each with whether it goes on from the one before.
pub(super) fn line(style: usize, places: impl Iterator<Item = (bool, f64, f64)>) -> String {
    let steps = places.map(|(goes_on, x, y)| format!("{}{x:.1} {y:.1}", if goes_on { 'L' } else { 'M' }));
    path("line", style, &steps.collect::<String>())
}

fn path(what: &str, style: usize, steps: &str) -> String {
    format!("<path class=\"{what} s{}\" d=\"{steps}\"/>", style % STYLES)
}
