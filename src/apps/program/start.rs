//! Which program is to be run, and how. It does not know for whom.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::{ffi::OsStrExt, process::CommandExt},
    process::{Command, Stdio},
};

use crate::{session::busy_reply::BusyReply, sys::leash};

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
    open_files: Option<u64>,
    pub(in crate::apps) busy_reply: BusyReply,
}

/// What is meant for the server, by its service manager, by the command whose place it has taken, or by whoever
/// serves it in turn.
const NOT_INHERITED: [&str; 32] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "OVERFALL_HANDOVER",
    "TCPREMOTEHOST",
    "TCPREMOTEINFO",
    "TCPREMOTEIP",
    "TCPREMOTEPORT",
    "TCPLOCALHOST",
    "TCPLOCALIP",
    "TCPLOCALPORT",
    "AUTH_TYPE",
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "GATEWAY_INTERFACE",
    "HTTPS",
    "PATH_INFO",
    "PATH_TRANSLATED",
    "QUERY_STRING",
    "REMOTE_ADDR",
    "REMOTE_HOST",
    "REMOTE_IDENT",
    "REMOTE_PORT",
    "REMOTE_USER",
    "REQUEST_METHOD",
    "REQUEST_URI",
    "SCRIPT_NAME",
    "SERVER_NAME",
    "SERVER_PROTOCOL",
];

impl Program {
    /// The program of this path, or one that `PATH` finds.
    pub fn new(path: impl Into<OsString>) -> Self {
        Self { path: path.into(), args: Vec::new(), open_files: None, busy_reply: BusyReply::default() }
    }

    /// With an argument more.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// How many files it may have open, where that is not as many as this process. Programs that go by their
    /// limit, or by select(2), are not to see that of a server.
    #[must_use]
    pub fn open_files(mut self, limit: Option<u64>) -> Self {
        self.open_files = limit;
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
    /// signals are its own; and it ends when this process does.
    pub(in crate::apps) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.args).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        leash::fasten(&mut command, self.open_files);
        let fields =
            env::vars_os().map(|(name, _)| name).filter(|name| name.as_bytes().starts_with(b"HTTP_"));
        for name in NOT_INHERITED.into_iter().map(OsString::from).chain(fields) {
            command.env_remove(name);
        }
        command
    }
}
