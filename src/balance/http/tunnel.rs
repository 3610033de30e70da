//! A connection that goes on with another protocol: bytes pass both ways. It knows neither the protocol
//! nor how the two sides came together.

use std::io::{self, Write};

use crate::{
    balance::{both::Both, flow::Pipes, upstreams::Lease},
    session::{connection::Connection, farewell::Farewell, handler::Next},
};

#[derive(Debug)]
pub(super) struct Tunnel {
    /// Its place was given back: a tunnel may last for days.
    lease: Lease,
    both: Both,
}

impl Tunnel {
    /// After what was said in the old protocol has been sent. This has come of the upstream already.
    pub(super) fn begin(connection: &mut Connection<'_>, mut lease: Lease, came: &[u8]) -> io::Result<Self> {
        lease.free();
        connection.write_all(came)?;
        // What the client has sent behind its request.
        let sent = connection.input().to_vec();
        connection.consume(sent.len());
        if let Some((_, other, _)) = connection.sides() {
            let taken = other.wire.send(&sent)?;
            other.wire.keep(&sent[taken..]);
            other.await_until(None);
        }
        connection.say_farewell(Farewell::Spread);
        let mut both = Both::default();
        both.settle();
        Ok(Self { lease, both })
    }

    pub(super) fn go_on(&mut self, connection: &mut Connection<'_>, pipes: &Pipes) -> io::Result<Next> {
        let moved = self.both.move_bytes(connection, self.lease.upstream(), pipes);
        self.both.follow(connection, moved)
    }
}
