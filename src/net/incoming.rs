//! What is known of one direction of a socket, by its events and reads: states alone. It knows no socket.

use rustix::event::epoll::EventFlags;

/// What is known about what comes in.
///
/// | state | an event | a read that fills the room | a shorter read | nothing there | the end |
/// |---|---|---|---|---|---|
/// | open, more may be there | open, or ending | open | drained | drained | ended |
/// | drained: the next input makes an event | open, or ending | | | | |
/// | ending: an event said that the end has come, so that a short read is not the last | ending | ending | ending | ending, drained | ended |
/// | ended | ended | | | | |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incoming {
    Open { drained: bool },
    Ending { drained: bool },
    Ended,
}

impl Incoming {
    pub(super) fn note(self, flags: EventFlags) -> Self {
        let ends = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        match self {
            Self::Open { .. } if ends => Self::Ending { drained: false },
            Self::Open { drained } => Self::Open { drained: drained && flags.is_empty() },
            Self::Ending { drained } => Self::Ending { drained: drained && flags.is_empty() },
            Self::Ended => Self::Ended,
        }
    }

    /// After a read of so much where there was so much room. A short read means drained, unless the end
    /// of the stream came with the data: both arrive as one edge (`epoll(7)`).
    pub(super) fn read(self, count: usize, room: usize) -> Self {
        match self {
            _ if count == 0 => Self::Ended,
            Self::Open { .. } => Self::Open { drained: count < room },
            Self::Ending { .. } => Self::Ending { drained: false },
            Self::Ended => Self::Ended,
        }
    }

    pub(super) fn found_nothing(self) -> Self {
        match self {
            Self::Open { .. } => Self::Open { drained: true },
            Self::Ending { .. } => Self::Ending { drained: true },
            Self::Ended => Self::Ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_transition() {
        use Incoming::{Ended, Ending, Open};
        let [more, drained] = [false, true].map(|drained| Open { drained });
        let [ending, ending_drained] = [false, true].map(|drained| Ending { drained });
        // A state; then after input, the end, no event, a full read, a short read, an empty one and none.
        let table = [
            (more, [more, ending, more, more, drained, Ended, drained]),
            (drained, [more, ending, drained, more, drained, Ended, drained]),
            (ending, [ending, ending, ending, ending, ending, Ended, ending_drained]),
            (ending_drained, [ending, ending, ending_drained, ending, ending, Ended, ending_drained]),
            (Ended, [Ended; 7]),
        ];
        for (state, expected) in table {
            let after = [
                state.note(EventFlags::IN),
                state.note(EventFlags::IN | EventFlags::RDHUP),
                state.note(EventFlags::empty()),
                state.read(9, 9),
                state.read(8, 9),
                state.read(0, 9),
                state.found_nothing(),
            ];
            assert_eq!(after, expected, "{state:?}");
        }
    }
}
