//! Whose turn it is when newcomers wait in the queue and kept sessions in the ready line: policy alone,
//! no clock.

use std::time::{Duration, Instant};

/// A difference that does not make one to clients.
const LITTLE: Duration = Duration::from_millis(10);

/// The queue and the kept sessions take turns. Now it is those' turn, until a request was answered or so
/// much time was spent on them: as much as on the newcomer before.
#[derive(Debug, Default)]
pub(super) struct Turns {
    owed: Option<Duration>,
}

impl Turns {
    /// Whether it is the kept sessions' turn and not the queue's. Who came first goes first. Where that
    /// makes little difference, and in an overload, where kept sessions would take everything since
    /// nobody decides at a door how many there are, they take turns.
    pub(super) fn kept_first(&self, ready: Instant, queued: Instant, overloaded: bool) -> bool {
        match self.owed.is_some() {
            turn if overloaded => turn,
            true => ready < queued + LITTLE,
            false => ready + LITTLE < queued,
        }
    }

    /// Says that no kept session is there to take its turn.
    pub(super) fn pass(&mut self) {
        self.owed = None;
    }

    /// Says that so much time was spent on a newcomer.
    pub(super) fn newcomer(&mut self, spent: Duration) {
        self.owed = Some(spent);
    }

    /// Says that so much was spent on a kept session, and whether a request of it was answered.
    pub(super) fn kept(&mut self, spent: Duration, answered: bool) {
        self.owed = self.owed.and_then(|owed| owed.checked_sub(spent)).filter(|_| !answered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_transition() {
        const MS: Duration = Duration::from_millis(1);
        let t = Instant::now();
        // What has happened, when the ready one and the queued one came, whether it is overloaded, and
        // whether the kept one is first.
        let (first, later, much_later) = (t, t + 5 * MS, t + 15 * MS);
        type Steps = fn(&mut Turns);
        let table: [(Steps, Instant, Instant, bool, bool); 11] = [
            (|_| {}, first, later, false, false),
            (|_| {}, first, much_later, false, true),
            (|_| {}, first, much_later, true, false),
            (|turns| turns.newcomer(9 * MS), later, first, false, true),
            (|turns| turns.newcomer(9 * MS), much_later, first, false, false),
            (|turns| turns.newcomer(9 * MS), much_later, first, true, true),
            (|turns| (turns.newcomer(9 * MS), turns.kept(5 * MS, false)).1, later, first, true, true),
            (|turns| (turns.newcomer(9 * MS), turns.kept(10 * MS, false)).1, later, first, true, false),
            (|turns| (turns.newcomer(9 * MS), turns.kept(MS, true)).1, later, first, true, false),
            (|turns| (turns.newcomer(9 * MS), turns.pass()).1, later, first, true, false),
            (|turns| turns.kept(MS, false), later, first, true, false),
        ];
        for (index, (steps, ready, queued, overloaded, kept)) in table.into_iter().enumerate() {
            let mut turns = Turns::default();
            steps(&mut turns);
            assert_eq!(turns.kept_first(ready, queued, overloaded), kept, "{index}");
        }
    }
}
