//! Counts that are kept by guards, so that none is forgotten. It knows not what is counted.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

/// How many there are now.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicUsize);

impl Tally {
    pub(crate) fn get(&self) -> usize {
        self.0.load(SeqCst)
    }

    /// One more, for as long as this is kept.
    pub(crate) fn count(self: &Arc<Self>) -> Counted {
        self.0.fetch_add(1, SeqCst);
        Counted(Arc::clone(self))
    }

    /// One more where there are fewer than so many.
    pub(crate) fn count_below(self: &Arc<Self>, most: usize) -> Option<Counted> {
        let counted = self.count();
        (self.get() <= most).then_some(counted)
    }
}

/// One of those that are counted.
#[derive(Debug)]
pub(crate) struct Counted(Arc<Tally>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_counts_no_more() {
        let tally = Arc::new(Tally::default());
        let first = tally.count_below(2);
        let second = tally.count();
        assert!(first.is_some() && tally.count_below(2).is_none());
        drop(second);
        assert_eq!(tally.get(), 1);
        assert!(tally.count_below(2).is_some());
    }
}
