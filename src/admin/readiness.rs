//! Whether a server is well, and whether newcomers are welcome: policy alone. It does not know how that is
//! told.

/// What decides.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Signs {
    /// The thread that has died, without which the server is of no use.
    pub(super) dead: Option<&'static str>,
    /// Its shutdown was announced.
    pub(super) leaving: bool,
    /// Its shutdown has begun.
    pub(super) draining: bool,
    /// How many upstreams are up; none where there is no such thing.
    pub(super) upstreams_up: Option<usize>,
}

/// How far a server can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    /// It works, but has nobody to pass anything on to.
    NoUpstream,
    /// It still serves, and will not for long.
    Leaving,
    Draining,
    Failed(&'static str),
}

impl Readiness {
    pub(super) fn of(signs: Signs) -> Self {
        match signs {
            Signs { dead: Some(dead), .. } => Self::Failed(dead),
            Signs { draining: true, .. } => Self::Draining,
            Signs { leaving: true, .. } => Self::Leaving,
            Signs { upstreams_up: Some(0), .. } => Self::NoUpstream,
            Signs { .. } => Self::Ready,
        }
    }

    /// Whether it works at all.
    pub(super) fn is_healthy(self) -> bool {
        !matches!(self, Self::Failed(_))
    }

    /// One word, for machines.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NoUpstream => "no_upstream",
            Self::Leaving => "leaving",
            Self::Draining => "draining",
            Self::Failed(_) => "failed",
        }
    }

    /// Why newcomers are not welcome; nothing where they are.
    pub(super) fn reason(self) -> Option<String> {
        match self {
            Self::Ready => None,
            Self::NoUpstream => Some("no upstream is up".into()),
            Self::Leaving => Some("it is going to shut down".into()),
            Self::Draining => Some("it is shutting down".into()),
            Self::Failed(dead) => Some(format!("{dead} has died")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_decides() {
        let up = Signs { upstreams_up: Some(1), ..Signs::default() };
        let down = Signs { upstreams_up: Some(0), ..Signs::default() };
        let cases = [
            (Signs::default(), Readiness::Ready, None),
            (up, Readiness::Ready, None),
            (down, Readiness::NoUpstream, Some("no upstream is up")),
            (Signs { leaving: true, ..down }, Readiness::Leaving, Some("it is going to shut down")),
            (Signs { leaving: true, draining: true, ..up }, Readiness::Draining, Some("it is shutting down")),
            (
                Signs { leaving: true, draining: true, dead: Some("a worker"), ..up },
                Readiness::Failed("a worker"),
                Some("a worker has died"),
            ),
        ];
        for (signs, readiness, reason) in cases {
            assert_eq!(Readiness::of(signs), readiness, "{signs:?}");
            assert_eq!(readiness.reason().as_deref(), reason);
            assert_eq!(readiness.is_healthy(), signs.dead.is_none());
        }
    }
}
