//! Name resolution under a deadline. It does not know what is done with the addresses.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags};

use super::{
    cancel::Cancel,
    outcome::{Class, Failure},
};
use crate::sys::{
    names,
    resolver::{Answer, Permit, resolve_apart},
    wait::{Bell, poll_until},
};

/// How often to look whether a resolver thread has ended when there are as many as may be.
const INTERVAL: Duration = Duration::from_millis(10);

/// Resolves `HOST:PORT`.
pub(super) fn resolve(target: &str, cancel: &Cancel, deadline: Instant) -> Result<Vec<SocketAddr>, Failure> {
    if let Ok(addr) = target.parse() {
        return Ok(vec![addr]);
    }
    resolve_with(target, cancel, deadline, names::resolve)
}

fn resolve_with(
    target: &str,
    cancel: &Cancel,
    deadline: Instant,
    resolver: impl FnOnce(&str) -> Answer + Send + 'static,
) -> Result<Vec<SocketAddr>, Failure> {
    let permit = permit(cancel, deadline)?;
    let failed = |error: io::Error| Failure::new(Class::Other, format!("cannot resolve the name: {error}"));
    let answer = Arc::new((Mutex::new(None), Bell::new().map_err(|errno| failed(errno.into()))?));
    let theirs = Arc::clone(&answer);
    let answered = move |resolved| {
        *theirs.0.lock() = Some(resolved);
        theirs.1.ring();
    };
    resolve_apart(permit, target, resolver, answered).map_err(failed)?;
    wait(&answer.1, cancel, deadline)?;
    let resolved = answer.0.lock().take().unwrap_or_else(|| Err(io::ErrorKind::Other.into()));
    resolved.map_err(|error| Failure::new(Class::Resolve, error.to_string()))
}

/// Waits for the bell; fails when cancelled or when the time is over.
fn wait(bell: &Bell, cancel: &Cancel, deadline: Instant) -> Result<(), Failure> {
    let mut fds = [PollFd::new(bell, PollFlags::IN), PollFd::new(cancel, PollFlags::IN)];
    let ready = poll_until(&mut fds, Some(deadline))
        .map_err(|errno| Failure::new(Class::Other, io::Error::from(errno).to_string()))?;
    if !fds[0].revents().is_empty() {
        Ok(())
    } else if ready {
        Err(Failure::cancelled())
    } else {
        Err(Failure::new(Class::Timeout, "the name was not resolved in time"))
    }
}

fn permit(cancel: &Cancel, deadline: Instant) -> Result<Permit, Failure> {
    loop {
        if let Some(permit) = Permit::take() {
            return Ok(permit);
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(Failure::new(Class::Timeout, "too many name resolutions hang"));
        }
        let until = deadline.min(now + INTERVAL);
        if poll_until(&mut [PollFd::new(cancel, PollFlags::IN)], Some(until)).unwrap_or(false) {
            return Err(Failure::cancelled());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_resolver_that_hangs_cannot_outlast_the_deadline() {
        let cancel = Cancel::new().unwrap();
        let (end, hang) = mpsc::channel::<()>();
        let (ended, end_seen) = mpsc::channel();
        let deadline = Instant::now() + Duration::from_millis(50);
        let failure = resolve_with("hangs:1", &cancel, deadline, move |_| {
            // Until the test has seen that nobody waits for it.
            let _ = hang.recv();
            ended.send(()).unwrap();
            Ok(Vec::new())
        })
        .unwrap_err();
        assert_eq!(failure.class, Class::Timeout);
        drop(end);
        end_seen.recv().unwrap();
    }

    #[test]
    fn a_hanging_resolver_can_be_cancelled() {
        let cancel = Cancel::new().unwrap();
        let (_end, hang) = mpsc::channel::<()>();
        let canceller = cancel.clone();
        let failure =
            resolve_with("hangs:1", &cancel, Instant::now() + Duration::from_secs(3600), move |_| {
                canceller.cancel();
                let _ = hang.recv();
                Ok(Vec::new())
            })
            .unwrap_err();
        assert_eq!(failure.class, Class::Cancelled);
    }
}
