//! How a server ended. It knows not why it was to end.

use rustix::io::Errno;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Drained,
    /// So many connections were still open at the drain timeout.
    Cut(usize),
    ListenerFailed(Errno),
}
