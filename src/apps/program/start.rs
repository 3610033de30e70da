//! Which program is to be run, and how. It does not know for whom.

use std::{
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use crate::session::busy_reply::BusyReply;

/// A program that answers connections, or requests over HTTP: see [`cgi`](super::super::cgi).
///
/// ```
/// use std::io::{Read, Write};
/// use overfall::{Server, apps::Program};
///
/// let handle = Server::builder().bind("127.0.0.1:0").serve_handler(Program::new("cat"))?;
/// let mut client = std::net::TcpStream::connect(handle.local_addr())?;
/// client.write_all(b"hello")?;
/// client.shutdown(std::net::Shutdown::Write)?;
/// assert_eq!(std::io::read_to_string(client)?, "hello");
/// # handle.shutdown();
/// # handle.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Program {
    path: OsString,
    args: Vec<OsString>,
    pub(in crate::apps) busy_reply: BusyReply,
}

/// What a service manager tells a server, and is meant for nobody else.
const NOT_INHERITED: [&str; 6] =
    ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

impl Program {
    /// The program of this path, or one that `PATH` finds.
    pub fn new(path: impl Into<OsString>) -> Self {
        Self { path: path.into(), args: Vec::new(), busy_reply: BusyReply::default() }
    }

    /// With an argument more.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// What a refused client is sent; a reset, or 503 over HTTP, where it is empty.
    #[must_use]
    pub fn busy_reply(mut self, busy_reply: impl Into<BusyReply>) -> Self {
        self.busy_reply = busy_reply.into();
        self
    }

    /// What is told of a call that runs it.
    pub(in crate::apps) fn name(&self) -> &str {
        OsStr::new(&self.path).to_str().unwrap_or("a program")
    }

    /// It gets a process group of its own, so that what it starts can be killed with it, and no terminal's
    /// signals are its own.
    pub(in crate::apps) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.args).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        for name in NOT_INHERITED {
            command.env_remove(name);
        }
        command
    }
}
