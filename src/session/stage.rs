//! How far a server has come with its end. It knows not who brings it about.

use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

/// Each stage includes those before it, and none is ever left for an earlier one.
#[derive(Debug, Default)]
pub(crate) struct Stage(AtomicU8);

const LEAVING: u8 = 1;
const DRAINING: u8 = 2;
const CLOSING_IDLE: u8 = 3;
const CUT: u8 = 4;

impl Stage {
    /// It is going to drain soon, and serves as before until then.
    pub(crate) fn leave(&self) {
        self.0.fetch_max(LEAVING, SeqCst);
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.0.load(SeqCst) >= LEAVING
    }

    /// What was accepted is finished, and nothing more is to come.
    pub(crate) fn drain(&self) {
        self.0.fetch_max(DRAINING, SeqCst);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.load(SeqCst) >= DRAINING
    }

    /// What is idle is closed as well.
    pub(crate) fn close_idle(&self) {
        self.0.fetch_max(CLOSING_IDLE, SeqCst);
    }

    pub(crate) fn closes_idle(&self) -> bool {
        self.0.load(SeqCst) >= CLOSING_IDLE
    }

    /// Nothing is served any more.
    pub(crate) fn cut(&self) {
        self.0.fetch_max(CUT, SeqCst);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.0.load(SeqCst) == CUT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_transition() {
        type Step = fn(&Stage);
        let steps: [(Step, [bool; 4]); 7] = [
            (|_| {}, [false, false, false, false]),
            (Stage::leave, [true, false, false, false]),
            (Stage::drain, [true, true, false, false]),
            (Stage::close_idle, [true, true, true, false]),
            (Stage::leave, [true, true, true, false]),
            (Stage::cut, [true, true, true, true]),
            (Stage::close_idle, [true, true, true, true]),
        ];
        let stage = Stage::default();
        for (step, expected) in steps {
            step(&stage);
            let found = [stage.is_leaving(), stage.is_draining(), stage.closes_idle(), stage.is_cut()];
            assert_eq!(found, expected);
        }
    }
}
