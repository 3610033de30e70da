//! A place at an upstream that is held: what is said of it while it is, and that it is given back. It does
//! not know how one is found.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::io::Errno;

use super::Upstreams;
use crate::balance::{record::Record, upstream::Upstream};

/// Between two reports that this side is short of something.
const REPORTS: Duration = Duration::from_secs(5);

/// A place at an upstream, given back when dropped.
#[derive(Debug)]
pub(in crate::balance) struct Lease {
    upstreams: Arc<Upstreams>,
    upstream: Arc<Upstream>,
    pub(in crate::balance) since: Instant,
    /// It is not yet connected.
    connecting: bool,
    /// What it says of how long requests take.
    says: Says,
    /// The place was given back already.
    is_free: bool,
}

/// What a lease says of how long requests take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// Nothing: nothing came of it.
    Nothing,
    /// That a connection lasts for as long as it was held. One that lasts for longer than clients wait is
    /// no request, and says nothing of the next.
    Held,
    /// That a request was answered, and how long requests take, where that says something of it.
    Answered(Option<Duration>),
}

impl Lease {
    pub(super) fn new(upstreams: &Arc<Upstreams>, upstream: Arc<Upstream>, since: Instant) -> Self {
        let upstreams = Arc::clone(upstreams);
        Self { upstreams, upstream, since, connecting: true, says: Says::Held, is_free: false }
    }

    pub(in crate::balance) fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Says that the connection was made.
    pub(in crate::balance) fn connected(&mut self) {
        if !std::mem::take(&mut self.connecting) {
            return;
        }
        let mut shared = self.upstreams.shared.lock();
        shared.places.connected(self.upstream.id, self.since.elapsed());
        // There is room for another one to be connected.
        if !shared.places.is_limited() {
            self.upstreams.gate.turn(Instant::now(), !shared.line.is_empty());
        }
        self.upstreams.serve_line(shared);
    }

    /// Says that there is a connection already.
    pub(in crate::balance) fn reused(&mut self) {
        if std::mem::take(&mut self.connecting) {
            self.record(Record::reused);
        }
    }

    /// Says that a request was answered, and how long that took, where that says something of others.
    pub(in crate::balance) fn answered(&mut self, took: Option<Duration>) {
        self.says = Says::Answered(took);
    }

    /// Says that what came of it is not the upstream's doing.
    pub(in crate::balance) fn says_nothing(&mut self) {
        self.says = Says::Nothing;
    }

    /// Says that it had the request and has failed to serve it.
    pub(in crate::balance) fn unserved(&mut self) {
        self.says = Says::Nothing;
        if self.record(|record| record.unserved(Instant::now())) == Some(true) {
            tracing::warn!(
                upstream = self.upstream.name,
                addr = %self.upstream.addr,
                "fails to serve requests; the others get them for a while"
            );
        }
    }

    /// Says that the connection could not be made, and why.
    pub(in crate::balance) fn failed(&self, errno: Errno) {
        let mut shared = self.upstreams.shared.lock();
        let record = shared.places.record(self.upstream.id);
        if record.is_some_and(|record| record.connect_failed(Instant::now())) {
            let cause = format!("connecting failed: {errno}");
            self.upstreams.turned(shared, &self.upstream, Err(&cause));
        }
    }

    /// Says that the upstream was there, but has reset the connection.
    pub(in crate::balance) fn was_busy(&mut self) {
        self.says = Says::Nothing;
        self.record(Record::was_busy);
    }

    /// Says that this side had no descriptor or port for the connection.
    pub(in crate::balance) fn lacked(&self, errno: Errno) {
        let mut shared = self.upstreams.shared.lock();
        shared.places.record(self.upstream.id).into_iter().for_each(Record::lacked);
        let now = Instant::now();
        if shared.lack_reported.is_none_or(|at| now >= at + REPORTS) {
            shared.lack_reported = Some(now);
            drop(shared);
            let upstream = &self.upstream.name;
            tracing::warn!(upstream, error = %errno, "this side cannot connect: it is short of descriptors, memory or ports");
        }
    }

    /// The upstream's record is there while the place is held; it may go when that was given back.
    fn record<T>(&self, act: impl FnOnce(&mut Record) -> T) -> Option<T> {
        self.upstreams.shared.lock().places.record(self.upstream.id).map(act)
    }

    /// Gives the place back, although what it was taken for goes on: it keeps no worker busy, or so it must
    /// be taken, for nobody else could be served.
    pub(in crate::balance) fn free(&mut self) {
        if std::mem::replace(&mut self.is_free, true) {
            return;
        }
        let now = Instant::now();
        let gate = &self.upstreams.gate;
        let mut shared = self.upstreams.shared.lock();
        match self.says {
            Says::Answered(took) => {
                self.upstreams.services.record(0, now - self.since, 1);
                if let Some(took) = took {
                    gate.answered(took);
                }
                if let Some(record) = shared.places.record(self.upstream.id) {
                    record.answered(now, took);
                }
            }
            Says::Held if !self.connecting && now - self.since <= self.upstreams.patience.get() => {
                gate.answered(now - self.since);
            }
            Says::Held | Says::Nothing => {}
        }
        shared.places.given_back(self.upstream.id, self.connecting);
        if shared.places.is_limited() {
            gate.turn(now, !shared.line.is_empty());
        }
        self.upstreams.look_at_limits(&mut shared, now, false);
        self.upstreams.serve_line(shared);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.free();
    }
}
