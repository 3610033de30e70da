//! What the sources of clients have had of the workers of late, for whoever asks. It knows no connections.

use std::{cmp::Reverse, time::Duration};

use crate::overload::{Share, Source};

/// So many are listed of those that take most, and of those that were displaced.
const LISTED: usize = 10;

/// What a source of clients has had of the workers in the last half to one second of an overload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceReport {
    /// An IPv4 address, or the /64 of an IPv6 address.
    pub source: String,
    /// The workers' time that was spent on it.
    pub busy: Duration,
    /// How often it was told no.
    pub refused: u64,
    /// It was told no though it had less than half of what each has had on average: others had its place.
    pub displaced: bool,
}

/// Those that take most, most first, and then those that were displaced.
pub(super) fn report(mut shares: Vec<(Source, Share)>) -> Vec<SourceReport> {
    shares.sort_by_key(|(_, share)| Reverse((share.spent, share.refused)));
    let is_displaced = |share: &Share| share.is_little && share.refused > 0;
    let (displaced, others): (Vec<_>, Vec<_>) =
        shares.into_iter().partition(|(_, share)| is_displaced(share));
    let listed = others.into_iter().take(LISTED).chain(displaced.into_iter().take(LISTED));
    let report = |(source, share): (Source, Share)| SourceReport {
        source: source.to_string(),
        busy: share.spent,
        refused: share.refused,
        displaced: is_displaced(&share),
    };
    listed.map(report).collect()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn those_that_take_most_come_first_and_those_that_were_displaced_last() {
        let source = |last| Source::from(SocketAddr::from(([192, 0, 2, last], 0)));
        let share = |ms, refused, is_little| Share { spent: Duration::from_millis(ms), refused, is_little };
        let mut shares: Vec<_> =
            (1..=20).map(|last| (source(last), share(u64::from(last), 9, false))).collect();
        shares.push((source(100), share(0, 1, true)));
        shares.push((source(101), share(0, 0, true)));
        let report = report(shares);
        let named: Vec<_> = report.iter().map(|of| (&*of.source, of.displaced)).collect();
        assert_eq!(named.len(), 11);
        assert_eq!((named[0], named[9]), (("192.0.2.20", false), ("192.0.2.11", false)));
        assert_eq!(named[10], ("192.0.2.100", true));
    }
}
