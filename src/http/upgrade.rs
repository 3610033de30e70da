//! A connection that was taken over from HTTP by another handler. It does not know what that speaks.

use std::io;

use crate::session::{
    connection::Connection,
    handler::{Handler, Next},
};

/// A handler of one connection, with its state.
pub(crate) trait Upgrade: Send {
    fn ready(&mut self, connection: &mut Connection<'_>) -> io::Result<Next>;

    fn expired(&mut self, connection: &mut Connection<'_>) -> io::Result<Next>;
}

/// Has this handler take over a connection.
pub(super) fn upgrade<H: Handler>(handler: H) -> Box<dyn Upgrade> {
    Box::new(Upgraded { handler, state: None })
}

struct Upgraded<H: Handler> {
    handler: H,
    /// None before it was called first.
    state: Option<H::State>,
}

impl<H: Handler> Upgrade for Upgraded<H> {
    fn ready(&mut self, connection: &mut Connection<'_>) -> io::Result<Next> {
        match &mut self.state {
            Some(state) => self.handler.ready(connection, state),
            None => {
                let state = self.state.insert(self.handler.open(connection)?);
                // What has come with the request is the handler's.
                match connection.input().is_empty() && !connection.goes_on() {
                    true => Ok(Next::Park),
                    false => self.handler.ready(connection, state),
                }
            }
        }
    }

    fn expired(&mut self, connection: &mut Connection<'_>) -> io::Result<Next> {
        match &mut self.state {
            Some(state) => self.handler.expired(connection, state),
            None => Ok(Next::Close),
        }
    }
}
