//! Active checks: each upstream is dialed once in an interval, a part of them at a time. It says how
//! each went, and knows neither connections nor what follows from a check.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags};

use super::{
    live::{InForce, Live},
    upstream::Upstream,
    upstreams::Upstreams,
};
use crate::{
    dial::{self, Cancel, Class, Outcome, dial_with},
    error::{Error, Result},
    net::preface,
    sys::wait::{Bell, poll_until},
};

/// The thread that checks. It is told to end, and waited for, when this is dropped.
#[derive(Debug)]
pub(super) struct Checks {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Checks {
    /// Begins to check; `died` is called if the thread panics.
    pub(super) fn start(
        upstreams: Arc<Upstreams>,
        live: Arc<Live>,
        died: impl FnOnce() + Send + 'static,
    ) -> Result<Self> {
        let stop = Arc::new(Stop::new()?);
        let told = Arc::clone(&stop);
        let run = move || {
            let run = AssertUnwindSafe(|| run(&upstreams, &live, &told));
            if panic::catch_unwind(run).is_err() {
                died();
            }
        };
        let thread = thread::Builder::new().name("checks".into()).spawn(run);
        let thread = Some(thread.map_err(|error| Error::start("the checks", error))?);
        Ok(Self { stop, thread })
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported already.
            let _ = thread.join();
        }
    }
}

/// Tells the thread to end.
#[derive(Debug)]
struct Stop {
    bell: Bell,
    dials: Cancel,
    stopped: AtomicBool,
}

impl Stop {
    fn new() -> Result<Self> {
        let bell = Bell::new().map_err(|errno| Error::start("the checks", errno))?;
        Ok(Self { bell, dials: Cancel::new()?, stopped: AtomicBool::new(false) })
    }

    fn stop(&self) {
        self.stopped.store(true, SeqCst);
        self.dials.cancel();
        self.bell.ring();
    }
}

/// Upstreams are checked in so many parts of the interval, so that not all are dialed at once.
const PARTS: usize = 4;
/// One that has gone down, or has come and is used only once it is reached, is checked as often as this,
const OFTEN: Duration = Duration::from_millis(50);
/// for so long.
const RECENTLY: Duration = Duration::from_secs(10);

/// Checks until it is told to end.
fn run(upstreams: &Arc<Upstreams>, live: &Live, stop: &Stop) {
    let mut parts = (0..PARTS as u64).cycle();
    let mut next = Instant::now();
    while !stop.stopped.load(SeqCst) {
        let in_force = live.get();
        let pause = in_force.config.check_interval / PARTS as u32;
        let how = how(&in_force, pause);
        let now = Instant::now();
        if now >= next {
            let part = parts.next().unwrap_or_default();
            let mut due = upstreams.all();
            due.retain(|upstream| upstream.id.number % PARTS as u64 == part);
            check(upstreams, &due, &how, stop);
            next = (next + pause).max(Instant::now());
        }
        // The interval may have become shorter.
        next = next.min(Instant::now() + pause);
        upstreams.report();
        upstreams.tidy(Instant::now());
        let urgent = upstreams.urgent(RECENTLY);
        let until = if urgent.is_empty() { next } else { next.min(Instant::now() + OFTEN) };
        let mut fds =
            [PollFd::new(&stop.bell, PollFlags::IN), PollFd::new(&upstreams.to_check, PollFlags::IN)];
        // It fails only for lack of memory; then the next check comes early.
        let _ = poll_until(&mut fds, Some(until));
        upstreams.to_check.silence();
        if !stop.stopped.load(SeqCst) {
            check(upstreams, &upstreams.urgent(RECENTLY), &how, stop);
        }
    }
}

/// Finds out which addresses of a name can be reached, before anybody is sent there: a name such as
/// `localhost` may have some at which nobody listens.
pub(super) fn first(upstreams: &Arc<Upstreams>, live: &Live) -> Result<()> {
    let in_force = live.get();
    let how = how(&in_force, FIRST.min(in_force.config.check_interval));
    check(upstreams, &upstreams.urgent(RECENTLY), &how, &Stop::new()?);
    Ok(())
}

/// How long the start waits for those.
const FIRST: Duration = Duration::from_millis(250);

/// How a check is made that may take so long.
fn how(InForce { config, http, .. }: &InForce, time: Duration) -> dial::Config {
    let how = dial::Config {
        // So that one that does not answer keeps no other from being checked.
        timeout: time.max(Duration::from_millis(1)),
        connect_only: config.check_expect.is_none() && config.check_send.is_empty(),
        preface: config.send_proxy.map(|version| preface::write(version, None)).unwrap_or_default(),
        send: config.check_send.clone(),
        expect: config.check_expect.clone(),
        ..dial::Config::default()
    };
    match &http.check_path {
        None => how,
        Some(path) => dial::Config { connect_only: false, ..asks_for(path, how) },
    }
}

/// A check that asks for this path.
fn asks_for(path: &str, how: dial::Config) -> dial::Config {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: overfall\r\nConnection: close\r\n\r\n"
    );
    dial::Config { send: request.into_bytes(), expect: Some(HTTP.to_vec()), ..how }
}

/// What a reply over HTTP begins with.
const HTTP: &[u8] = b"HTTP/1.";

/// Why the reply to a check for a path says that the upstream is not well: its status is neither 2xx nor
/// 3xx.
fn ill(reply: &[u8]) -> Option<String> {
    let line = reply.starts_with(HTTP).then(|| reply.get("HTTP/1.1 ".len()..)).flatten()?;
    let status = &line[..line.len().min(3)];
    (!status.starts_with(b"2") && !status.starts_with(b"3"))
        .then(|| format!("check failed: status {}", status.escape_ascii()))
}

/// What a check says of an upstream.
#[derive(Debug, PartialEq)]
enum Verdict {
    Well,
    Ill(String),
    /// This side could not make it, for this reason.
    Nothing(String),
}

impl Verdict {
    fn of(outcome: Outcome, is_http: bool) -> Self {
        match outcome.failure {
            None => is_http.then(|| ill(&outcome.reply)).flatten().map_or(Self::Well, Self::Ill),
            Some(failure) if failure.class == Class::Local => Self::Nothing(failure.message),
            Some(failure) => Self::Ill(format!("check failed: {}", failure.class.name())),
        }
    }
}

fn check(upstreams: &Arc<Upstreams>, those: &[Arc<Upstream>], how: &dial::Config, stop: &Stop) {
    if those.is_empty() {
        return;
    }
    let is_http = how.expect.as_deref() == Some(HTTP);
    let verdict = |outcome| Verdict::of(outcome, is_http);
    let targets: Vec<_> = those.iter().map(|upstream| upstream.addr.to_string()).collect();
    match dial_with(&targets, how, &stop.dials, &|_, _| {}) {
        Ok(_) if stop.stopped.load(SeqCst) => {}
        Ok(outcomes) => {
            let mut verdicts: Vec<_> = those.iter().zip(outcomes.into_iter().map(verdict)).collect();
            // Where one address of a name can be reached, nobody misses the others.
            verdicts.sort_by_key(|(_, verdict)| *verdict != Verdict::Well);
            for (upstream, verdict) in verdicts {
                match verdict {
                    Verdict::Well => upstreams.checked(upstream, Ok(())),
                    Verdict::Ill(cause) => upstreams.checked(upstream, Err(&cause)),
                    Verdict::Nothing(error) if upstreams.check_lacked(upstream) => {
                        tracing::warn!(addr = %upstream.addr, error, "an upstream cannot be checked");
                    }
                    Verdict::Nothing(_) => {}
                }
            }
        }
        Err(error) => tracing::warn!(%error, "the upstreams cannot be checked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_success_or_redirection_is_well() {
        for (reply, well) in [
            ("HTTP/1.1 200 OK\r\n", true),
            ("HTTP/1.0 204 No Content\r\n", true),
            ("HTTP/1.1 302 Found\r\n", true),
            ("HTTP/1.1 404 Not Found\r\n", false),
            ("HTTP/1.1 503 Service Unavailable\r\n", false),
            ("HTTP/1.1 ", false),
        ] {
            assert_eq!(ill(reply.as_bytes()).is_none(), well, "{reply}");
        }
    }
}
