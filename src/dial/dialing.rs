//! Who tries which target when, and when all are settled. It knows outcomes, not how an attempt is made.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags};

use super::{
    attempt::attempt,
    cancel::Cancel,
    config::Config,
    outcome::{Class, Failure, Outcome},
};
use crate::{
    error::{Error, Result},
    sys::wait::{Bell, poll_until},
};

/// The longest pause between two attempts at a target.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The last attempt begins so long before the time for trying again ends.
const LAST_ATTEMPT: Duration = Duration::from_millis(20);

/// One dial of all targets, shared by its threads.
pub(super) struct Dialing<'a> {
    config: &'a Config,
    cancel: &'a Cancel,
    settled: &'a (dyn Fn(usize, &Outcome) + Sync),
    begun: Instant,
    plan: Mutex<Plan>,
    changed: Condvar,
    /// Rung when all targets are settled.
    ended: Bell,
}

/// What is to be done, and what came of it.
struct Plan {
    /// When to try which target, for those that no thread has.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    outcomes: Vec<Outcome>,
    open: usize,
    succeeded: usize,
    /// Nothing is tried any more.
    cancelled: bool,
}

impl Plan {
    fn new(targets: &[String]) -> Mutex<Self> {
        let now = Instant::now();
        Mutex::new(Self {
            due: (0..targets.len()).map(|index| Reverse((now, index))).collect(),
            outcomes: targets.iter().map(|target| Outcome::new(target)).collect(),
            open: targets.len(),
            succeeded: 0,
            cancelled: false,
        })
    }
}

impl<'a> Dialing<'a> {
    pub(super) fn new(
        targets: &[String],
        config: &'a Config,
        cancel: &'a Cancel,
        settled: &'a (dyn Fn(usize, &Outcome) + Sync),
    ) -> Result<Self> {
        Ok(Self {
            config,
            cancel,
            settled,
            begun: Instant::now(),
            plan: Plan::new(targets),
            changed: Condvar::new(),
            ended: Bell::new().map_err(|errno| Error::start("dialing", errno))?,
        })
    }

    /// Tries targets as they are due until all are settled.
    pub(super) fn work(&self) {
        while let Some((index, mut outcome)) = self.next() {
            let begun = Instant::now();
            let give_up = self.config.retry.as_ref().map(|retry| self.begun + retry.give_up_after);
            let deadline =
                give_up.map_or(begun + self.config.timeout, |end| end.min(begun + self.config.timeout));
            attempt(&mut outcome, self.config, self.cancel, deadline);
            outcome.attempts += 1;
            let now = Instant::now();
            outcome.total = now - self.begun;
            let again = give_up.and_then(|end| self.again_at(&outcome, now, end));
            self.put_back(index, outcome, again);
        }
    }

    /// The next target that is due, when it is. None when all are settled.
    fn next(&self) -> Option<(usize, Outcome)> {
        let mut plan = self.plan.lock();
        loop {
            if plan.open == 0 {
                return None;
            }
            match plan.due.peek().copied() {
                Some(Reverse((at, index))) if at <= Instant::now() => {
                    plan.due.pop();
                    return Some((index, plan.outcomes[index].clone()));
                }
                Some(Reverse((at, _))) => drop(self.changed.wait_until(&mut plan, at)),
                None => self.changed.wait(&mut plan),
            }
        }
    }

    /// When to try again a target that failed, if there is time. A pause that would go beyond the
    /// end is cut short for a last attempt.
    fn again_at(&self, outcome: &Outcome, now: Instant, end: Instant) -> Option<Instant> {
        let retry = self.config.retry.as_ref()?;
        let failure = outcome.failure.as_ref()?;
        let doublings = outcome.attempts.saturating_sub(1).min(16);
        let pause = (retry.interval * 2u32.pow(doublings)).min(LONGEST_PAUSE);
        let last = end.checked_sub(LAST_ATTEMPT).filter(|&last| now < last)?;
        let at = now + pause.mul_f64(0.5 + 0.5 * fastrand::f64());
        (failure.class != Class::Cancelled).then(|| at.min(last))
    }

    fn put_back(&self, index: usize, outcome: Outcome, again: Option<Instant>) {
        let mut plan = self.plan.lock();
        plan.outcomes[index] = outcome;
        match again {
            Some(at) if !plan.cancelled => plan.due.push(Reverse((at, index))),
            _ => self.settle(&mut plan, index),
        }
        let decided = |require| plan.succeeded >= require || plan.succeeded + plan.open < require;
        if self.config.require.is_some_and(decided) {
            self.cancel.cancel();
        }
        self.changed.notify_all();
    }

    fn settle(&self, plan: &mut Plan, index: usize) {
        plan.open -= 1;
        let outcome = &plan.outcomes[index];
        plan.succeeded += usize::from(outcome.failure.is_none());
        (self.settled)(index, outcome);
        if plan.open == 0 {
            self.ended.ring();
        }
    }

    /// Waits for the end or for the dial to be cancelled, and then settles the targets that no
    /// thread has. Those that have one see the same bell.
    pub(super) fn watch(&self) {
        let mut fds = [PollFd::new(&self.ended, PollFlags::IN), PollFd::new(self.cancel, PollFlags::IN)];
        // It fails only for lack of memory, and then the dial ends early.
        let _ = poll_until(&mut fds, None);
        let mut plan = self.plan.lock();
        plan.cancelled = true;
        for Reverse((_, index)) in std::mem::take(&mut plan.due) {
            let attempts = plan.outcomes[index].attempts;
            let message = if attempts == 0 { "it was not tried" } else { "it was not tried again" };
            plan.outcomes[index].failure = Some(Failure::new(Class::Cancelled, message));
            self.settle(&mut plan, index);
        }
        self.changed.notify_all();
    }

    /// The outcomes in the order of their targets, once all are settled.
    pub(super) fn into_outcomes(self) -> Vec<Outcome> {
        self.plan.into_inner().outcomes
    }
}
