//! Active checks: each upstream is dialed once in an interval, a part of them at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use rustix::event::PollFlags;

use super::{Config, upstream::Upstreams};
use crate::{
    dial::{self, Cancel, dial_with},
    error::{Error, Result},
    sys::wait::{Bell, wait_until},
};

/// Tells the thread that checks to end.
#[derive(Debug)]
pub(super) struct Stop {
    bell: Bell,
    dials: Cancel,
    stopped: AtomicBool,
}

impl Stop {
    pub(super) fn new() -> Result<Self> {
        let bell = Bell::new().map_err(|errno| Error::start("the checks", errno))?;
        Ok(Self { bell, dials: Cancel::new()?, stopped: AtomicBool::new(false) })
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, SeqCst);
        self.dials.cancel();
        self.bell.ring();
    }
}

/// Upstreams are checked in so many parts of the interval, so that not all are dialed at once.
const PARTS: usize = 4;

/// Checks until it is told to end.
pub(super) fn run(upstreams: &Arc<Upstreams>, config: &Config, stop: &Stop) {
    let pause = config.check_interval / PARTS as u32;
    let how = dial::Config {
        // So that one that does not answer keeps no other from being checked.
        timeout: pause.max(Duration::from_millis(1)),
        connect_only: config.check_expect.is_none() && config.check_send.is_empty(),
        send: config.check_send.clone(),
        expect: config.check_expect.clone(),
        ..dial::Config::default()
    };
    let mut next = Instant::now();
    for part in (0..PARTS).cycle() {
        check(upstreams, part, &how, stop);
        upstreams.report();
        next = (next + pause).max(Instant::now());
        // It fails only for lack of memory; then the next check comes early.
        let _ = wait_until(&stop.bell, PollFlags::IN, Some(next));
        if stop.stopped.load(SeqCst) {
            return;
        }
    }
}

fn check(upstreams: &Arc<Upstreams>, part: usize, how: &dial::Config, stop: &Stop) {
    let (indices, targets): (Vec<_>, Vec<_>) = upstreams
        .all
        .iter()
        .enumerate()
        .filter(|(index, _)| index % PARTS == part)
        .map(|(index, upstream)| (index, upstream.addr.to_string()))
        .unzip();
    if targets.is_empty() {
        return;
    }
    match dial_with(&targets, how, &stop.dials, &|_, _| {}) {
        Ok(_) if stop.stopped.load(SeqCst) => {}
        Ok(outcomes) => {
            for (index, outcome) in indices.into_iter().zip(outcomes) {
                match outcome.failure {
                    None => upstreams.judge(index, Ok(()), true),
                    Some(failure) => {
                        let cause = format!("check failed: {}", failure.class.name());
                        upstreams.judge(index, Err(&cause), true);
                    }
                }
            }
        }
        Err(error) => tracing::warn!(%error, "the upstreams cannot be checked"),
    }
}
