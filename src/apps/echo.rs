//! The app that sends back what it gets. It does not know what the bytes mean.

use std::{
    borrow::Cow,
    io::{self, Read, Write},
};

use super::experiment::Experiment;
use crate::session::{
    connection::Connection,
    handler::{Handler, Next, Refusal},
};

/// Sends back what comes until the client ends its side, then closes.
///
/// ```
/// use overfall::{Server, apps::Echo};
///
/// let handle = Server::builder().bind("127.0.0.1:0").serve_handler(Echo::default())?;
/// # Ok::<(), overfall::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Echo {
    /// The service time of each piece of input, and what the refused are sent.
    pub experiment: Experiment,
}

impl Handler for Echo {
    type State = ();

    const CLIENT_SPEAKS_FIRST: bool = true;

    fn open(&self, _: &mut Connection<'_>) -> io::Result<()> {
        Ok(())
    }

    fn ready(&self, connection: &mut Connection<'_>, (): &mut ()) -> io::Result<Next> {
        if !connection.input().is_empty() {
            self.experiment.spend();
        }
        let mut piece = [0; 2048];
        while !connection.input().is_empty() {
            let length = connection.read(&mut piece)?;
            connection.write_all(&piece[..length])?;
        }
        Ok(if connection.ended() { Next::Close } else { Next::Park })
    }

    fn refusal(&self, _: Refusal) -> Cow<'static, [u8]> {
        self.experiment.refusal()
    }
}
