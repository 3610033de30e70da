//! The app that greets once. It does not know what it was asked.

use std::{
    borrow::Cow,
    io::{self, Read, Write},
};

use super::experiment::Experiment;
use crate::session::{
    connection::Connection,
    handler::{Handler, Next, Refusal},
};

/// Reads once, at most 1,024 bytes, answers `Hello, client!` and closes.
///
/// ```
/// use overfall::{Server, apps::Hello};
///
/// let handle = Server::builder().bind("127.0.0.1:0").serve_handler(Hello::default())?;
/// # Ok::<(), overfall::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Hello {
    /// The service time of a request, and what the refused are sent.
    pub experiment: Experiment,
}

impl Handler for Hello {
    type State = ();

    const CLIENT_SPEAKS_FIRST: bool = true;

    fn open(&self, _: &mut Connection<'_>) -> io::Result<()> {
        Ok(())
    }

    fn ready(&self, connection: &mut Connection<'_>, (): &mut ()) -> io::Result<Next> {
        if connection.read(&mut [0; 1024])? > 0 {
            self.experiment.spend();
            connection.write_all(b"Hello, client!")?;
        }
        Ok(Next::Close)
    }

    fn refusal(&self, _: Refusal) -> Cow<'static, [u8]> {
        self.experiment.refusal()
    }
}
