//! Settings and times in words, as people write them. It knows not what they are of.

use std::{fmt, time::Duration};

/// A time such as `500ms`, `1m30s` or `2h`, to the millisecond where it is longer than that. It has no
/// blanks, so that it is one word in a log.
pub(crate) fn time(time: Duration) -> String {
    let to_the_ms = Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let time = if to_the_ms.is_zero() { time } else { to_the_ms };
    humantime::format_duration(time).to_string().replace(' ', "")
}

/// A share such as `1.5%`.
pub(crate) fn share(share: f64) -> String {
    // Floating point has no 0.015: what is far behind the point is of no concern.
    format!("{}%", (share * 1e6).round() / 1e4)
}

/// What is given, or what it means that it is not.
pub(crate) fn or(value: Option<impl fmt::Display>, none: &str) -> String {
    value.map_or_else(|| none.to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_shares_are_written_as_people_do() {
        for (given, written) in [
            (Duration::from_millis(500), "500ms"),
            (Duration::from_secs(90), "1m30s"),
            (Duration::from_micros(3_482_129), "3s482ms"),
            (Duration::from_micros(250), "250us"),
            (Duration::ZERO, "0s"),
        ] {
            assert_eq!(time(given), written);
        }
        for (given, written) in [(0.015, "1.5%"), (0.0, "0%"), (1.0, "100%"), (0.07, "7%")] {
            assert_eq!(share(given), written);
        }
        assert_eq!((or(Some(3), "none"), or(None::<usize>, "none")), ("3".into(), "none".into()));
    }
}
