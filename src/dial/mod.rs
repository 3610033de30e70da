//! Dial many servers at once and wait for all of them.
//!
//! ```
//! use overfall::dial::{Config, dial};
//!
//! let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! let targets = [listener.local_addr()?.to_string(), "127.0.0.1:1".into()];
//! let outcomes = dial(&targets, &Config { connect_only: true, ..Config::default() })?;
//! assert!(outcomes[0].failure.is_none());
//! assert_eq!(outcomes[1].failure.as_ref().unwrap().class.name(), "refused");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attempt;
mod resolve;

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags};

use crate::{
    error::{Error, Result},
    sys::{
        names,
        wait::{Bell, poll_until},
    },
};

/// How to dial, and what counts as a success.
#[derive(Debug, Clone)]
pub struct Config {
    /// For one attempt at one target with all its steps, name resolution too; at least 1 ms.
    pub timeout: Duration,
    /// Dials under way at once, 1 to 4,096; each has a thread while it is under way.
    pub concurrency: usize,
    /// How many targets must succeed, at most as many as there are; none means all of them. With
    /// a number, dialing ends as soon as that is decided, and what is still open is cancelled.
    pub require: Option<usize>,
    /// Whether to try failed targets again.
    pub retry: Option<Retry>,
    /// What is sent to each server; nothing where it is empty.
    pub send: Vec<u8>,
    /// What the reply must begin with; none means that any reply will do.
    pub expect: Option<Vec<u8>>,
    /// A connection is a success: nothing is sent or received.
    pub connect_only: bool,
}

/// How failed targets are tried again: with exponential back-off and jitter, from the interval up
/// to 5 s.
#[derive(Debug, Clone)]
pub struct Retry {
    /// For how long, counted from the beginning; at least 1 ms.
    pub give_up_after: Duration,
    /// The first pause, at least 1 ms.
    pub interval: Duration,
}

/// The longest pause between two attempts at a target.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The last attempt begins so long before the time for trying again ends.
const LAST_ATTEMPT: Duration = Duration::from_millis(20);
const CONCURRENCY: std::ops::RangeInclusive<usize> = 1..=4096;

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            concurrency: 256,
            require: None,
            retry: None,
            send: b"Hello, server!".to_vec(),
            expect: None,
            connect_only: false,
        }
    }
}

impl Config {
    fn validate(&self, targets: usize) -> Result<()> {
        if !CONCURRENCY.contains(&self.concurrency) {
            return Err(Error::setting("concurrency", self.concurrency, "1 to 4096"));
        }
        if let Some(require) = self.require
            && !(1..=targets).contains(&require)
        {
            return Err(Error::setting("require", require, format!("1 to {targets}, the number of targets")));
        }
        let times = [
            ("timeout", Some(self.timeout)),
            ("retry_for", self.retry.as_ref().map(|retry| retry.give_up_after)),
            ("interval", self.retry.as_ref().map(|retry| retry.interval)),
        ];
        for (name, time) in times {
            let Some(time) = time else { continue };
            Error::check_time(name, time)?;
        }
        Ok(())
    }
}

/// What became of one target.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The target as it was written.
    pub target: String,
    /// The address that was used last, of several that its name may have.
    pub address: Option<SocketAddr>,
    /// How long the last name resolution took.
    pub resolve: Option<Duration>,
    /// How long the last connect took.
    pub connect: Option<Duration>,
    /// From the connection to the first byte of the reply.
    pub first_byte: Option<Duration>,
    /// From the beginning of the dial to this target's end; the wait for its turn is in it where
    /// there are more targets than `concurrency`.
    pub total: Duration,
    /// Attempts that were begun.
    pub attempts: u32,
    /// Bytes received in the last attempt.
    pub received: u64,
    /// Their beginning, at most 1,024 bytes.
    pub reply: Vec<u8>,
    /// Why the last attempt failed; none if it succeeded.
    pub failure: Option<Failure>,
}

/// Why an attempt failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The class, for programs.
    pub class: Class,
    /// The sentence, for people.
    pub message: String,
}

/// The classes of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Nobody listens there.
    Refused,
    /// The attempt's time ended before it did.
    Timeout,
    /// The connection was reset.
    Reset,
    /// There is no way to the host or its network.
    Unreachable,
    /// The name has no address.
    Resolve,
    /// The server ended the connection without a reply.
    Closed,
    /// The reply does not begin with what was expected.
    Unexpected,
    /// It was not needed any more, or cancelled.
    Cancelled,
    /// This side has run out of descriptors, memory or ports, which says nothing of the server.
    Local,
    /// Anything else.
    Other,
}

impl Class {
    /// The class's name in lower case, as the command prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Unreachable => "unreachable",
            Self::Resolve => "resolve",
            Self::Closed => "closed",
            Self::Unexpected => "unexpected",
            Self::Cancelled => "cancelled",
            Self::Local => "local",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// All addresses of `HOST:PORT`, in the order in which they are tried. An IPv6 address stands in brackets
/// and may have a zone, by name or number: `[fe80::1%eth0]:80`.
///
/// # Errors
///
/// It has another form, or the name has no address.
pub fn resolve(target: &str) -> std::io::Result<Vec<SocketAddr>> {
    names::resolve(target)
}

/// Ends a dial from another thread; clones end the same one.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<Bell>);

impl Cancel {
    /// For one dial.
    ///
    /// # Errors
    ///
    /// The process is out of descriptors.
    pub fn new() -> Result<Self> {
        Bell::new().map(|bell| Self(Arc::new(bell))).map_err(|errno| Error::start("dialing", errno))
    }

    /// Ends it: whatever is under way or waiting gets the class [`Class::Cancelled`].
    pub fn cancel(&self) {
        self.0.ring();
    }
}

impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Dials all targets, each `HOST:PORT`, and gives their outcomes in the same order. A target's
/// failure is its outcome and never hides another's.
///
/// # Errors
///
/// The config is out of range, or the system denies a descriptor or a thread.
pub fn dial(targets: &[String], config: &Config) -> Result<Vec<Outcome>> {
    dial_with(targets, config, &Cancel::new()?, &|_, _| {})
}

/// The same, but it can be cancelled, and `settled` is told of each outcome when it is known,
/// with the index of its target.
///
/// The targets are shared out to a thread pool of this dial's own, since dials wait. A target that
/// is to be tried again does not keep a thread meanwhile.
///
/// # Errors
///
/// As [`dial`].
pub fn dial_with(
    targets: &[String],
    config: &Config,
    cancel: &Cancel,
    settled: &(dyn Fn(usize, &Outcome) + Sync),
) -> Result<Vec<Outcome>> {
    config.validate(targets.len())?;
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let threads = config.concurrency.min(targets.len());
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("dial-{index}"))
        .build()
        .map_err(|error| Error::start("the dialing threads", std::io::Error::other(error)))?;
    let dialing = Dialing {
        config,
        cancel,
        settled,
        begun: Instant::now(),
        plan: Plan::new(targets),
        changed: Condvar::new(),
        ended: Bell::new().map_err(|errno| Error::start("dialing", errno))?,
    };
    pool.in_place_scope(|scope| {
        (0..threads).for_each(|_| scope.spawn(|_| dialing.work()));
        dialing.watch();
    });
    Ok(dialing.plan.into_inner().outcomes)
}

/// One call of `dial`, shared by its threads.
struct Dialing<'a> {
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

impl Outcome {
    fn new(target: &str) -> Self {
        Self {
            target: target.to_owned(),
            address: None,
            resolve: None,
            connect: None,
            first_byte: None,
            total: Duration::ZERO,
            attempts: 0,
            received: 0,
            reply: Vec::new(),
            failure: Some(Failure { class: Class::Cancelled, message: "it was not tried".into() }),
        }
    }
}

impl Dialing<'_> {
    /// Tries targets as they are due until all are settled.
    fn work(&self) {
        while let Some((index, mut outcome)) = self.next() {
            let begun = Instant::now();
            let give_up = self.config.retry.as_ref().map(|retry| self.begun + retry.give_up_after);
            let deadline =
                give_up.map_or(begun + self.config.timeout, |end| end.min(begun + self.config.timeout));
            attempt::attempt(&mut outcome, self.config, self.cancel, deadline);
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
    fn watch(&self) {
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
}

impl Failure {
    fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }
}
