//! What the workers do with their time, and what they are busy with now, for whoever asks. It knows neither
//! sessions nor slots.

use std::{
    fmt, mem,
    net::SocketAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::running::Running;
use crate::{
    session::activity::{At, Call, Spent},
    sys::threads::OnCpu,
};

/// So many of the running calls are listed.
const LISTED: usize = 10;
/// Of so many threads the kernel is asked, which takes 10 µs for each.
const ASKED: usize = 128;

/// What the workers of a server do with their time. The times are those of all workers together since the
/// server was started; they only grow, and what a worker is at now counts up to now.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkersReport {
    /// How many workers there are.
    pub count: usize,
    /// In handlers, and between two of them: all that is none of the others.
    pub handling: Duration,
    /// In handlers that waited for a client to send.
    pub reading: Duration,
    /// In handlers that waited for a client to take what was written.
    pub writing: Duration,
    /// Waiting for something to do.
    pub idle: Duration,
    /// CPU time; none where the kernel does not say. Of more than 128 workers it is estimated from 128.
    pub cpu: Option<Duration>,
    /// The calls that have run longest of those that run now, at most ten, longest first.
    pub longest: Vec<RunningCall>,
}

/// A call of a handler that is running.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunningCall {
    /// The worker's number; its thread is called `worker-` and this.
    pub worker: usize,
    /// Since when the worker has been with this connection. Where a client sends requests one after the
    /// other without waiting, and nobody else waits, that is since the first of them.
    pub running_for: Duration,
    /// What the worker is at.
    pub state: CallState,
    /// The client's address, even where it has reset the connection.
    pub client: Option<SocketAddr>,
    /// What the handler has said that it does ([`Connection::describe`](crate::Connection::describe)), over
    /// HTTP the method and the path. What cannot be printed is escaped, and an ellipsis stands for what was
    /// cut.
    pub doing: Option<String>,
}

/// What a worker is at that is busy with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallState {
    /// It is in the handler.
    Handling,
    /// Its handler waits for the client to send.
    Reading,
    /// Its handler waits for the client to take what was written.
    Writing,
}

impl fmt::Display for CallState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handling => "handling",
            Self::Reading => "reading",
            Self::Writing => "writing",
        })
    }
}

/// What was last said of the workers' time. Clocks that are read by several threads tell it in an order of
/// their own, and a thread that has ended tells no more: nothing that is said is ever less than before.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<(Spent, OnCpu)>);

impl Told {
    /// What the workers have spent at each so far.
    pub(super) fn spent(&self, running: &[Running], now: Instant) -> Spent {
        let add = |sum: Spent, running: &Running| {
            sum.zip(running.activity.read(now).spent, Duration::saturating_add)
        };
        let spent = running.iter().fold(Spent::default(), add);
        let told = &mut self.0.lock().0;
        *told = told.zip(spent, Duration::max);
        *told
    }

    /// How long they have had a CPU; none where the kernel does not say.
    pub(super) fn on_cpu(&self, running: &[Running]) -> Option<OnCpu> {
        let every = running.len().div_ceil(ASKED).max(1);
        let known = running.iter().step_by(every).filter_map(Running::on_cpu);
        let add = |(sum, count): (OnCpu, u32), one: OnCpu| {
            (OnCpu { ran: sum.ran + one.ran, delayed: sum.delayed + one.delayed }, count + 1)
        };
        let (sum, count) = known.fold(Default::default(), add);
        let told = &mut self.0.lock().1;
        if count > 0 {
            let scale = running.len() as f64 / f64::from(count);
            told.ran = told.ran.max(sum.ran.mul_f64(scale));
            told.delayed = told.delayed.max(sum.delayed.mul_f64(scale));
        }
        (*told != OnCpu::default()).then_some(*told)
    }
}

/// What is to be said of workers that have spent so much.
pub(super) fn report(
    count: usize,
    spent: Spent,
    on_cpu: Option<OnCpu>,
    longest: Vec<RunningCall>,
) -> WorkersReport {
    WorkersReport {
        count,
        handling: spent.at(At::Handling),
        reading: spent.at(At::Reading),
        writing: spent.at(At::Writing),
        idle: spent.at(At::Idle),
        cpu: on_cpu.map(|on_cpu| on_cpu.ran),
        longest,
    }
}

/// The calls that have run longest, with their workers. `client` gives a worker's client.
pub(super) fn longest(
    running: &[Running],
    now: Instant,
    client: impl Fn(&Running) -> Option<SocketAddr>,
) -> Vec<RunningCall> {
    let calls = running.iter().enumerate();
    let mut calls: Vec<(usize, Call)> =
        calls.filter_map(|(worker, running)| Some((worker, running.activity.read(now).call?))).collect();
    calls.sort_by_key(|(_, call)| call.since);
    calls.truncate(LISTED);
    let listed = calls.into_iter().filter_map(|(worker, mut call)| {
        let client = client(&running[worker]);
        let doing = mem::take(&mut call.doing);
        // The worker may be busy with another one by now, whose client that was.
        running[worker].activity.still_runs(&call).then(|| RunningCall {
            worker,
            running_for: now.saturating_duration_since(call.since),
            state: state(call.at),
            client,
            doing,
        })
    });
    listed.collect()
}

fn state(at: At) -> CallState {
    match at {
        At::Idle | At::Handling => CallState::Handling,
        At::Reading => CallState::Reading,
        At::Writing => CallState::Writing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_longest_are_listed_longest_first() {
        let t = Instant::now();
        let running: Vec<_> = (0..20).map(|_| Running::nobody(t)).collect();
        for (worker, running) in running.iter().enumerate().filter(|(worker, _)| worker % 4 != 0) {
            running.activity.begin_call(t + ((worker * 7) % 20) as u32 * MS);
        }
        running[3].activity.enter(At::Writing, t + MS);
        let listed = longest(&running, t + 100 * MS, |_| None);
        let ages: Vec<_> = listed.iter().map(|call| (call.worker, call.running_for)).collect();
        let expected =
            [(3, 99), (6, 98), (9, 97), (15, 95), (18, 94), (1, 93), (7, 91), (10, 90), (13, 89), (19, 87)];
        assert_eq!(ages, expected.map(|(worker, ms)| (worker, ms * MS)));
        assert_eq!((listed[0].state, listed[1].state), (CallState::Writing, CallState::Handling));
    }

    #[test]
    fn one_whose_worker_has_gone_on_meanwhile_is_not_listed() {
        let t = Instant::now();
        let running = [Running::nobody(t), Running::nobody(t)];
        running.iter().for_each(|running| running.activity.begin_call(t + MS));
        let go_on = |of: &Running| {
            if std::ptr::eq(of, &running[0]) {
                of.activity.begin_call(t + 2 * MS);
            }
            None
        };
        let listed = longest(&running, t + 3 * MS, go_on);
        assert_eq!(listed.iter().map(|call| call.worker).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn nothing_that_was_told_is_ever_less() {
        let t = Instant::now();
        let (told, running) = (Told::default(), [Running::nobody(t)]);
        let at = |ms: u32, at: At| told.spent(&running, t + ms * MS).at(at);
        running[0].activity.enter(At::Handling, t);
        assert_eq!(at(10, At::Handling), 10 * MS);
        // Its clock was read before ours, and it says so later.
        running[0].activity.enter(At::Idle, t + 8 * MS);
        assert_eq!((at(10, At::Handling), at(10, At::Idle)), (10 * MS, 2 * MS));
        running[0].activity.enter(At::Handling, t + 20 * MS);
        assert_eq!((at(25, At::Handling), at(25, At::Idle)), (13 * MS, 12 * MS));
    }
}
