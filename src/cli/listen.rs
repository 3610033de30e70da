//! Where a command that serves listens: on sockets that were passed on to it, or on addresses. It does not
//! know who passed them on.

use overfall::Builder;

use super::{groups, handover::Origin, sockets::Passed, usage::Wrong, values};

#[derive(Debug, clap::Args)]
pub(super) struct ListenArgs {
    /// Listen here [default: 127.0.0.1:8888, or 8000 to balance]
    ///
    /// May be repeated, and port 0 lets the system choose. The sockets that systemd passes on (LISTEN_FDS)
    /// stand in place of the default.
    #[arg(long, value_name = "ADDR", value_parser = values::address, help_heading = groups::SERVING)]
    listen: Vec<String>,
}

impl ListenArgs {
    /// Has the server listen, here where nothing says where. Gives where each listener comes from, in the
    /// order of the server's addresses.
    pub(super) fn apply(
        &self,
        mut builder: Builder,
        passed: &mut Passed,
        default_addr: &str,
    ) -> Result<(Builder, Vec<Origin>), Wrong> {
        let mut origins = Vec::new();
        for (origin, socket) in passed.managers() {
            builder = builder.from_shared_listener(socket);
            origins.push(origin);
        }
        if !origins.is_empty() {
            if self.listen.is_empty() {
                return Ok((builder, origins));
            }
            return Err(Wrong(format!(
                "--listen is given, and so are sockets that were passed on (LISTEN_FDS, {} of them); give only \
                 one of both",
                origins.len()
            )));
        }
        let default = [default_addr.to_owned()];
        for addr in if self.listen.is_empty() { &default } else { &*self.listen } {
            let origin = Origin::listen(addr);
            builder = match passed.of(&origin) {
                // Until it has taken the other's place, that one goes on should this one fail.
                Some(socket) => builder.from_shared_listener(socket),
                None => builder.bind(addr),
            };
            origins.push(origin);
        }
        Ok((builder, origins))
    }
}
