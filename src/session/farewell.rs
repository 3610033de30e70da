//! What the end of an idle session means to its client, as its handler says. It knows no protocol.

use std::time::Duration;

/// What it means that nothing moves, and how such a session is to be ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// It is between two requests: it can be ended at any time, and nothing is lost.
    #[default]
    AtOnce,
    /// That it is idle can only be guessed: when nothing has moved for a while. Ends are spread over the
    /// drain, so that clients do not all come back at the same moment, and are resets.
    Spread,
    /// Like `Spread`, while an answer is on its way: it may take long, and some protocols have none.
    SpreadOwing,
}

/// Nothing has moved for so long.
const QUIET: Duration = Duration::from_secs(1);
/// An answer that has not come for this long may never come.
const ABANDONED: Duration = Duration::from_secs(30);

impl Farewell {
    /// For how long nothing must have moved for it to be idle.
    pub(super) fn quiet(self) -> Duration {
        match self {
            Self::AtOnce => Duration::ZERO,
            Self::Spread => QUIET,
            Self::SpreadOwing => ABANDONED,
        }
    }

    pub(crate) fn is_spread(self) -> bool {
        self != Self::AtOnce
    }
}
