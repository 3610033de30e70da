//! Says to an upstream for whom a connection was made. It knows neither places nor what follows.

use crate::{
    net::preface::{Ends, ProxyVersion, write},
    session::connection::Connection,
};

/// Begins a connection that was just made with a line of the PROXY protocol, if that is wanted.
pub(super) fn introduce(connection: &mut Connection<'_>, version: Option<ProxyVersion>) {
    let Some(version) = version else { return };
    let ends = connection.peer_addr().and_then(|client| Ok(Ends { client, local: connection.local_addr()? }));
    // They are known even of a client that has gone; should they not be, nobody is named.
    let line = write(version, ends.ok());
    if let Some((_, other, _)) = connection.sides() {
        // Where it fails, so does whatever follows.
        let sent = other.wire.send(&line).unwrap_or(0);
        other.wire.keep(&line[sent..]);
    }
}
