//! The app that is any program: its standard input and output are joined to the connection. It does not know
//! what the program does.

mod pump;
pub(super) mod running;
pub(super) mod start;

use std::{borrow::Cow, io, net::SocketAddr};

pub use self::start::Program;
use self::{pump::pump, running::Running};
use crate::session::{
    connection::Connection,
    handler::{Handler, Next, Refusal},
};

/// It is started for each connection, as `tcpserver` and inetd(8) do, and as many run at once as there are
/// workers.
///
/// What the client sends is its standard input, which ends where the client ends its side, and what it writes to
/// its standard output is sent; its end is that of the connection. When neither side has sent anything for
/// `io_timeout`, or the client has gone, it is killed with all that it has started. Its standard error is the
/// server's.
///
/// Its environment says who the client is, in `REMOTE_ADDR` and `REMOTE_PORT`, and which address it has reached,
/// in `SERVER_ADDR` and `SERVER_PORT`; `tcpserver`'s names, which begin with `TCP`, are there as well. What a
/// service manager has told the server is not.
impl Handler for Program {
    type State = ();

    fn open(&self, connection: &mut Connection<'_>) -> io::Result<()> {
        // It may speak first.
        connection.go_on();
        Ok(())
    }

    fn ready(&self, connection: &mut Connection<'_>, (): &mut ()) -> io::Result<Next> {
        connection.describe(self.name());
        let mut command = self.command();
        if let (Ok(remote), Ok(local)) = (connection.peer_addr(), connection.local_addr()) {
            command.envs(environment(remote, local));
        }
        // What breaks off, or never began, is not to pass for whole.
        connection.reset_on_close(true);
        pump(connection, &mut Running::start(command)?)?;
        connection.reset_on_close(false);
        connection.note_answered();
        Ok(Next::Close)
    }

    fn refusal(&self, _: Refusal) -> Cow<'static, [u8]> {
        self.busy_reply.get()
    }
}

/// Who is connected, as programs for `tcpserver` know it, and those for a web server.
fn environment(remote: SocketAddr, local: SocketAddr) -> Vec<(&'static str, String)> {
    let protocol = if remote.ip().to_canonical().is_ipv4() { "TCP" } else { "TCP6" };
    let tcpservers = ["TCPREMOTEIP", "TCPREMOTEPORT", "TCPLOCALIP", "TCPLOCALPORT"];
    let ends = ends(remote, local);
    let named = tcpservers.into_iter().zip(ends.clone().map(|(_, value)| value));
    named.chain(ends).chain([("PROTO", protocol.to_owned())]).collect()
}

/// Both ends of the connection, as the Common Gateway Interface names them.
pub(super) fn ends(remote: SocketAddr, local: SocketAddr) -> [(&'static str, String); 4] {
    let ip = |addr: SocketAddr| addr.ip().to_canonical().to_string();
    [
        ("REMOTE_ADDR", ip(remote)),
        ("REMOTE_PORT", remote.port().to_string()),
        ("SERVER_ADDR", ip(local)),
        ("SERVER_PORT", local.port().to_string()),
    ]
}
