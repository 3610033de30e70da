//! What a session waits for while it is parked, and since when. It knows no sockets, and time is an
//! argument.

use std::time::{Duration, Instant};

use super::timeouts::LiveTimeouts;

/// What a session is waiting for while it is parked. Each has a timeout of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its first byte.
    FirstByte,
    /// The next request.
    Idle,
    /// The rest of a request, or what is to be had for it.
    Request,
    /// The client to take the rest of a reply.
    Reply,
    /// The client to end its side after ours was ended, so that no reset overtakes the reply.
    Linger,
}

/// How long a lingering session is drained. Its reply is out already, and a client that has
/// not ended its side by then is not going to read it. What is drained is for `linger` to say.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// A phase and since when its timeout runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) phase: Phase,
    pub(super) since: Instant,
}

/// What decides on the phase when a session is about to park.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Facts {
    pub(super) lingers: bool,
    /// Nothing waits for room on either side.
    pub(super) is_flushed: bool,
    /// It waits for something that its handler has set a time for.
    pub(super) has_until: bool,
    /// It has another side.
    pub(super) is_joined: bool,
    /// Something of the input is left.
    pub(super) has_input: bool,
    /// The client has sent a byte.
    pub(super) heard: bool,
    /// Bytes went in or out since it last parked.
    pub(super) moved: bool,
    /// Input was consumed since it last parked.
    pub(super) consumed: bool,
}

impl Clock {
    /// Works out the phase to park in and whether its time starts anew. The time of a request
    /// runs from its first byte, however slowly the rest comes.
    #[must_use]
    pub(super) fn settle(self, facts: Facts, now: Instant) -> Self {
        let phase = match facts {
            Facts { lingers: true, .. } => Phase::Linger,
            Facts { is_flushed: false, .. } => Phase::Reply,
            Facts { has_until: true, .. } => Phase::Request,
            Facts { is_joined: true, .. } => Phase::Idle,
            Facts { has_input: true, .. } => Phase::Request,
            Facts { heard: true, .. } => Phase::Idle,
            _ => Phase::FirstByte,
        };
        let goes_on = match phase {
            Phase::Linger | Phase::FirstByte => false,
            Phase::Request => facts.consumed,
            Phase::Idle | Phase::Reply => facts.moved,
        };
        if phase != self.phase || goes_on { Self { phase, since: now } } else { self }
    }

    pub(super) fn deadline(self, timeouts: &LiveTimeouts) -> Instant {
        let timeout = match self.phase {
            Phase::FirstByte => timeouts.first_byte.get(),
            Phase::Idle => timeouts.idle.get(),
            Phase::Request | Phase::Reply => timeouts.io.get(),
            Phase::Linger => LINGER_TIME,
        };
        self.since + timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that has happened in a session since it was accepted, after so many seconds, and the phase and
    /// its beginning then.
    #[test]
    fn each_transition() {
        let plain = Facts { is_flushed: true, ..Facts::default() };
        let heard = Facts { heard: true, ..plain };
        let half = Facts { has_input: true, ..heard };
        let moved = |facts| Facts { moved: true, ..facts };
        let consumed = |facts| Facts { consumed: true, ..facts };
        let stuck = Facts { is_flushed: false, ..heard };
        let waits = Facts { has_until: true, ..heard };
        let joined = Facts { is_joined: true, ..heard };
        let lingers = Facts { lingers: true, ..heard };
        let table = [
            (1, plain, Phase::FirstByte, 0),
            (2, moved(half), Phase::Request, 2),
            // A byte more is no progress.
            (3, moved(half), Phase::Request, 2),
            // The next request has begun.
            (4, consumed(moved(half)), Phase::Request, 4),
            (5, consumed(moved(heard)), Phase::Idle, 5),
            // A wake-up for nothing.
            (6, heard, Phase::Idle, 5),
            (7, moved(heard), Phase::Idle, 7),
            (8, stuck, Phase::Reply, 8),
            (9, stuck, Phase::Reply, 8),
            (10, moved(stuck), Phase::Reply, 10),
            (11, waits, Phase::Request, 11),
            (12, Facts { is_joined: true, ..waits }, Phase::Request, 11),
            (13, joined, Phase::Idle, 13),
            (14, Facts { has_input: true, ..joined }, Phase::Idle, 13),
            (15, moved(joined), Phase::Idle, 15),
            (16, Facts { is_joined: true, ..stuck }, Phase::Reply, 16),
            (17, lingers, Phase::Linger, 17),
            (18, moved(Facts { is_flushed: false, ..lingers }), Phase::Linger, 17),
        ];
        let accepted = Instant::now();
        let after = |s| accepted + Duration::from_secs(s);
        let mut clock = Clock { phase: Phase::FirstByte, since: accepted };
        for (at, facts, phase, since) in table {
            clock = clock.settle(facts, after(at));
            assert_eq!((clock.phase, clock.since), (phase, after(since)), "after {at} s");
        }
    }
}
