//! What becomes of a session whose last word was said: its client's rest is drained, since with unread
//! input closing is a reset, which takes the reply with it. It knows no handler.

use super::life::{Life, Session};
use crate::net::input::Input;

/// Sessions that may linger at once; beyond it they are closed right away.
pub(crate) const LINGERING: usize = 1024;
/// The most that is drained from one. After that it is left alone, so that a client that reads while it
/// sends still has its reply.
const BYTES: u32 = 1024 * 1024;

/// Drains what has come. Whether it is to linger on.
pub(super) fn drain<S>(session: &mut Session<S>, input: &mut Input) -> bool {
    let Life::Lingering { drained, .. } = &mut session.life else { return true };
    while *drained <= BYTES {
        input.clear();
        match session.wire.fill(input) {
            Ok(0) if session.wire.ended() => return false,
            Ok(count) => *drained = drained.saturating_add(count as u32),
            // Its reply was sent; what the client does after that is no failure.
            Err(_) => return false,
        }
        if session.wire.drained() {
            break;
        }
    }
    true
}
