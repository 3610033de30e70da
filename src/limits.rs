//! The limit of open files: raised for ourselves, and as it was found for what we start. It does not know
//! what has the files open.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

static FOUND: OnceLock<Rlimit> = OnceLock::new();

/// Says that the limit was lower when the program began whose place this one takes.
pub(crate) fn found(current: u64) {
    let limit = getrlimit(Resource::Nofile);
    // Nobody has raised it before.
    let _ = FOUND.set(Rlimit { current: Some(current), ..limit });
}

/// The soft limit as it was found; none where there was none.
pub(crate) fn soft_found() -> Option<u64> {
    FOUND.get().and_then(|limit| limit.current)
}

/// Raises the soft limit of open files to the hard one: connections are what it is for.
pub(crate) fn raise() {
    let limit = *FOUND.get_or_init(|| getrlimit(Resource::Nofile));
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// Starts a program with the limit that we were started with: one that goes by it (or by `select(2)`)
/// is not to see ours. No other thread is to open anything meanwhile.
pub(crate) fn with_found<T>(start: impl FnOnce() -> T) -> T {
    let Some(&found) = FOUND.get() else { return start() };
    let ours = getrlimit(Resource::Nofile);
    // To lower the soft limit is always allowed, also under what is open, and so is to raise it again.
    let _ = setrlimit(Resource::Nofile, found);
    let started = start();
    let _ = setrlimit(Resource::Nofile, ours);
    started
}
