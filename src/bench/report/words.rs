//! How scenarios, times and numbers are written, in text and on the page. It knows no table.

use serde_json::Value;

use crate::bench::{
    exchange::Protocol,
    plan::{ACTIVE, CLIENTS, Scenario},
    results::Results,
    stats::{Interval, confidence},
};

/// What a scenario does, in a line.
pub(super) fn about(results: &Results, scenario: Scenario) -> String {
    let plan = &results.plan;
    match scenario {
        Scenario::Connections => format!("{CLIENTS} clients in a closed loop, a connection for each request"),
        Scenario::Keepalive => {
            let what = match plan.protocol {
                Protocol::Tcp => "32 bytes echoed",
                Protocol::Http => "requests",
            };
            format!("{CLIENTS} clients in a closed loop, {what} over kept connections")
        }
        Scenario::Overload => format!(
            "open loop at multiples of {}, {} of CPU for each request, given up after {}",
            results.capacity.map_or_else(
                || "the capacity, which was not found".into(),
                |per_s| format!("{per_s:.0} per second")
            ),
            humantime::format_duration(plan.work),
            humantime::format_duration(plan.deadline)
        ),
        Scenario::Idle => format!("{} silent connections beside {ACTIVE} active ones", plan.idle),
    }
}

/// When and how all of it was measured.
pub(super) fn how(results: &Results) -> String {
    let plan = &results.plan;
    let time = humantime::format_rfc3339_seconds(results.began).to_string();
    let (date, time) = time.split_once('T').unwrap_or((&time, ""));
    let pinned = match plan.pin {
        Some(pin) => format!("server on CPU {}, generator on CPU {}", pin.server, pin.client),
        None => "nothing pinned".into(),
    };
    let rounds = match plan.rounds {
        1 => "one round, which proves nothing, for noise alone makes differences".into(),
        rounds => format!("medians of {rounds} rounds"),
    };
    format!(
        "Measured on {date} at {} UTC with overfall {}: {rounds}; {} for each cell, {pinned}.{}",
        time.get(..5).unwrap_or(time),
        env!("CARGO_PKG_VERSION"),
        humantime::format_duration(plan.duration),
        versions(&plan.environment["peers"])
    )
}

/// Which peers there were.
fn versions(peers: &Value) -> String {
    let versions: Vec<_> =
        peers.as_object().into_iter().flatten().filter_map(|(_, said)| said.as_str()).collect();
    if versions.is_empty() { String::new() } else { format!(" Peers: {}.", versions.join("; ")) }
}

/// How much the smallest and the largest of a round say; nothing where there is one round.
pub(super) fn intervals(results: &Results) -> Option<String> {
    let counted = results.cells.iter().filter(|cell| cell.is_result()).map(|cell| cell.good_rounds().count());
    let fewest = counted.min().filter(|&rounds| rounds > 1)?;
    Some(format!(
        "the smallest and the largest of a round, between which the true median is with a probability of {:.0} %",
        confidence(fewest) * 1e2
    ))
}

/// As people count up: one, another and a third.
pub(super) fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [name] => (*name).to_owned(),
        [names @ .., last] => format!("{} and {last}", names.join(", ")),
    }
}

/// Three digits, or all those before the point.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        size if size.is_nan() => "-".into(),
        0.0 => "0".into(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A ratio with its interval, where there is one.
pub(super) fn ratio(ratio: Interval, rounds: usize) -> String {
    if rounds == 1 {
        return format!("{:.2}", ratio.median);
    }
    format!("{:.2} ({:.2} to {:.2})", ratio.median, ratio.smallest, ratio.largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_up() {
        assert_eq!([list(&["a"]), list(&["a", "b"]), list(&["a", "b", "c"])], ["a", "a and b", "a, b and c"]);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 0.123, 12.34, 123.4, 98765.4, f64::NAN].map(short),
            ["0", "0.12", "12.3", "123", "98765", "-"]
        );
    }
}
