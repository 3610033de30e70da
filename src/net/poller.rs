//! The epoll instance on which idle workers wait, and the bell that wakes one of them. It knows tokens,
//! not what they stand for.

use std::{
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
        fence,
    },
};

use rustix::event::{
    Timespec,
    epoll::{self, EventData, EventFlags},
};

use crate::sys::wait::Bell;

/// Events taken at a time. One at a time costs a twentieth more CPU per request on a kept connection; 64 cost a
/// hundredth less on one core, and a tenth of the rate on two, where the workers wait for each other's.
pub(super) const EVENTS: usize = 16;
/// The token of the bell; no slot's, since their index would be beyond the last.
const BELL: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
    bell: Bell,
    /// The bell was rung by `ring_once` and no worker has heard it yet.
    rung: AtomicBool,
    /// Workers that wait for an event, or are about to.
    idle: AtomicUsize,
    /// Tenants that are watched.
    tenants: AtomicUsize,
}

/// Whether a socket is watched. A socket is registered once, edge-triggered, and stays so until it is
/// closed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    #[default]
    No,
    Input,
    /// For room for output too.
    Both,
}

/// Room for what a call gives.
pub(super) type Space = [MaybeUninit<epoll::Event>; EVENTS];

impl Poller {
    pub(super) fn new() -> rustix::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = Bell::new()?;
        epoll::add(&epoll, &bell, EventData::new_u64(BELL), EventFlags::IN | EventFlags::ET)?;
        Ok(Self {
            epoll,
            bell,
            rung: AtomicBool::new(false),
            idle: AtomicUsize::new(0),
            tenants: AtomicUsize::new(0),
        })
    }

    /// Whether any tenant is watched.
    pub(crate) fn is_used(&self) -> bool {
        self.tenants.load(Relaxed) > 0
    }

    /// Says that one more tenant is watched.
    pub(crate) fn begin_use(&self) {
        self.tenants.fetch_add(1, Relaxed);
    }

    /// Says that a tenant is going to be closed, which ends the registration, as there is no duplicate of
    /// its socket. (To delete it first cost half a microsecond per short connection.)
    pub(crate) fn end_use(&self) {
        self.tenants.fetch_sub(1, Relaxed);
    }

    /// Sees to it that there is an event when something comes, and with `output` when there is room for
    /// output. Room is only of interest while some waits, or else every connection would start with an
    /// event for it.
    pub(super) fn watch(
        &self,
        watch: &mut Watch,
        socket: impl AsFd,
        token: u64,
        output: bool,
    ) -> rustix::io::Result<()> {
        let data = EventData::new_u64(token);
        let input = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        let (flags, wanted) =
            if output { (input | EventFlags::OUT, Watch::Both) } else { (input, Watch::Input) };
        match (*watch, wanted) {
            (Watch::No, _) => epoll::add(&self.epoll, socket, data, flags)?,
            // Modifying looks at the socket anew, so no edge can be missed.
            (Watch::Input, Watch::Both) => epoll::modify(&self.epoll, socket, data, flags)?,
            (Watch::Input | Watch::Both, _) => return Ok(()),
        }
        *watch = wanted;
        Ok(())
    }

    /// Waits for events, at most for this time, and gives their tokens and flags. The bell is heard at
    /// once: left to others, nobody would ring it again. None where the call was interrupted.
    pub(super) fn wait<'a>(
        &self,
        space: &'a mut Space,
        timeout: Option<&Timespec>,
    ) -> Option<(usize, impl Iterator<Item = (u64, EventFlags)> + use<'a, '_>)> {
        // It fails only with EINTR.
        let (events, _) = epoll::wait(&self.epoll, space, timeout).ok()?;
        let heard = |event: &epoll::Event| {
            // The event is packed.
            let (data, flags) = (event.data, event.flags);
            if data.u64() == BELL {
                self.rung.store(false, SeqCst);
                return None;
            }
            Some((data.u64(), flags))
        };
        let count = events.len();
        Some((count, events.iter().filter_map(heard)))
    }

    /// Wakes one waiting worker, or the next one that waits.
    pub(crate) fn ring(&self) {
        self.bell.ring();
    }

    /// Wakes one waiting worker, unless one was rung for and has not heard it yet.
    fn ring_once(&self) {
        if !self.rung.load(SeqCst) && !self.rung.swap(true, SeqCst) {
            self.ring();
        }
    }

    /// Wakes a worker for what was just made known, if one is idle. A worker counts itself idle first
    /// and then looks once more, so that one of the two sees the other.
    pub(crate) fn announce(&self) {
        fence(SeqCst);
        self.announce_rest();
    }

    /// Wakes another worker for what is left, if one is idle: newcomers for whom the bell was rung
    /// that this worker has heard, or events that it took along.
    pub(crate) fn announce_rest(&self) {
        if self.has_idle_worker() {
            self.ring_once();
        }
    }

    pub(crate) fn has_idle_worker(&self) -> bool {
        self.idle.load(SeqCst) > 0
    }

    /// Whether a worker seems to be idle, for who can do with an answer that is out of date.
    pub(crate) fn may_have_idle_worker(&self) -> bool {
        self.idle.load(Relaxed) > 0
    }

    /// Says that a worker is idle for as long as it has this.
    pub(crate) fn begin_idle(&self) -> Idle<'_> {
        self.idle.fetch_add(1, SeqCst);
        Idle(self)
    }
}

/// A worker that waits for an event, or is about to.
#[derive(Debug)]
pub(crate) struct Idle<'a>(&'a Poller);

impl Idle<'_> {
    /// Says that it is not idle any more. Whether it was the last idle worker.
    pub(crate) fn end(self) -> bool {
        let was_last = self.0.idle.fetch_sub(1, SeqCst) == 1;
        std::mem::forget(self);
        was_last
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.idle.fetch_sub(1, SeqCst);
    }
}
