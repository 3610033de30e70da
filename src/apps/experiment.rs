//! What every app can be told to do for experiments. It does not know what the apps serve.

use std::{borrow::Cow, thread, time::Duration};

use crate::{session::busy_reply::BusyReply, sys::clock::thread_cpu_time};

/// What every app can be told to do, for experiments.
///
/// ```
/// use std::time::Duration;
/// use overfall::{Server, apps::{Experiment, web}};
///
/// // A service with a millisecond of CPU for each request.
/// let experiment = Experiment { work: Duration::from_millis(1), ..Experiment::default() };
/// let handle = Server::builder().bind("127.0.0.1:0").serve_handler(web(experiment))?;
/// # Ok::<(), overfall::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Experiment {
    /// CPU time to burn for each request.
    pub work: Duration,
    /// Time to sleep for each request.
    pub block: Duration,
    /// What a refused client is sent; empty means a reset, or 503 over HTTP.
    pub busy_reply: BusyReply,
}

impl Experiment {
    /// Spends a request's service time.
    pub(super) fn spend(&self) {
        burn(self.work);
        if !self.block.is_zero() {
            thread::sleep(self.block);
        }
    }

    pub(super) fn refusal(&self) -> Cow<'static, [u8]> {
        self.busy_reply.get()
    }
}

/// Burns CPU on the thread's own clock: by the wall clock, two threads that share a core would
/// do double work.
fn burn(work: Duration) {
    if work.is_zero() {
        return;
    }
    let started = thread_cpu_time();
    while thread_cpu_time() - started < work {
        std::hint::spin_loop();
    }
}
