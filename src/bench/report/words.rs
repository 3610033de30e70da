//! How scenarios and numbers are written, in text and on the page. It knows no table.

use crate::bench::{
    exchange::Protocol,
    plan::{ACTIVE, CLIENTS, Scenario},
    results::Results,
    stats::Ratio,
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
            "open loop at multiples of {:.0} per second, {} of CPU for each request, given up after {}",
            results.capacity.unwrap_or(0.0),
            humantime::format_duration(plan.work),
            humantime::format_duration(plan.deadline)
        ),
        Scenario::Idle => format!("{} silent connections beside {ACTIVE} active ones", plan.idle),
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
pub(super) fn ratio(ratio: Ratio, rounds: usize) -> String {
    if rounds == 1 {
        return format!("{:.2}", ratio.median);
    }
    format!("{:.2} ({:.2} to {:.2})", ratio.median, ratio.smallest, ratio.largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 0.123, 12.34, 123.4, 98765.4, f64::NAN].map(short),
            ["0", "0.12", "12.3", "123", "98765", "-"]
        );
    }
}
