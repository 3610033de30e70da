//! Both directions of a relay. It knows no places, and does not know how the two sides came together.

use std::io;

use super::{
    flow::{AtEnd, Flow, Pipes},
    upstream::Upstream,
};
use crate::session::{connection::Connection, farewell::Farewell, handler::Next};

#[derive(Debug, Default)]
pub(super) struct Both {
    up: Flow,
    down: Flow,
}

impl Both {
    /// Moves what there is in both directions; whether there may be more.
    pub(super) fn move_bytes(
        &mut self,
        connection: &mut Connection<'_>,
        to: &Upstream,
        pipes: &Pipes,
    ) -> io::Result<bool> {
        let before = (self.up.bytes, self.down.bytes);
        let moved = self.move_both(connection, pipes);
        let (sent, received) = (self.up.bytes - before.0, self.down.bytes - before.1);
        to.moved(sent, received);
        match (sent > 0, received > 0) {
            (_, true) => connection.say_farewell(Farewell::Spread),
            // An answer is on its way.
            (true, false) => connection.say_farewell(Farewell::SpreadOwing),
            (false, false) => {}
        }
        moved
    }

    fn move_both(&mut self, connection: &mut Connection<'_>, pipes: &Pipes) -> io::Result<bool> {
        let Some((client, upstream, piece)) = connection.sides() else { return Ok(false) };
        let upstream = &mut upstream.wire;
        let at_end = |other: &Flow| if other.ended { AtEnd::Skip } else { AtEnd::PassOn };
        // Not on to the other direction when this one fails: it would find the end of a stream.
        let end_of_up = at_end(&self.down);
        let more_up = self.up.go_on(client, upstream, piece, pipes, end_of_up)?;
        let end_of_down = if self.is_untouched() { AtEnd::Hold } else { at_end(&self.up) };
        let more_down = self.down.go_on(upstream, client, piece, pipes, end_of_down)?;
        Ok(more_up | more_down)
    }

    /// Whether nothing was passed on yet, so that another upstream could have the connection.
    fn is_untouched(&self) -> bool {
        !(self.down.settled || self.down.ended || self.up.ended) && self.up.bytes + self.down.bytes == 0
    }

    /// Whether the upstream has gone before anything was sent either way.
    pub(super) fn has_lost_upstream(&self, connection: &mut Connection<'_>) -> bool {
        connection.sides().is_some_and(|(client, upstream, _)| {
            let upstream = &upstream.wire;
            self.is_untouched() && !client.failed() && (upstream.ended() || upstream.failed())
        })
    }

    /// Says that nobody else is to have the connection, so that the upstream's end is passed on.
    pub(super) fn settle(&mut self) {
        self.down.settled = true;
    }

    /// What follows from what was moved.
    pub(super) fn follow(
        &self,
        connection: &mut Connection<'_>,
        moved: io::Result<bool>,
    ) -> io::Result<Next> {
        match moved {
            Err(error) => {
                reset_both(connection);
                Err(error)
            }
            Ok(_) if self.up.ended && self.down.ended && is_flushed(connection) => Ok(Next::Close),
            Ok(true) => Ok(Next::Again),
            Ok(false) => Ok(Next::Park),
        }
    }
}

fn is_flushed(connection: &mut Connection<'_>) -> bool {
    connection.sides().is_none_or(|(client, upstream, _)| client.is_flushed() && upstream.wire.is_flushed())
}

/// Passes a reset on.
fn reset_both(connection: &mut Connection<'_>) {
    if let Some((client, upstream, _)) = connection.sides() {
        client.reset_on_close(true);
        upstream.wire.reset_on_close(true);
    }
}
