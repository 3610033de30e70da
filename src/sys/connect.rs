//! One way to make a connection without waiting for it. It knows addresses, not names or upstreams.

use std::{
    fs,
    net::SocketAddr,
    ops::RangeInclusive,
    os::fd::{AsFd, OwnedFd},
    sync::OnceLock,
};

use rustix::{
    io::{self, Errno},
    net::{self, AddressFamily, SocketAddrAny, SocketFlags, SocketType, sockopt},
};

/// Begins to make a connection: the socket is writable once that is decided.
pub(crate) fn begin(addr: &SocketAddr) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match net::connect(&socket, addr) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

/// Whether the connection is made by now.
///
/// A socket that is joined to itself is a refusal: nobody listens there. It happens when the port that
/// the system chose for this side is the one that is connected to (RFC 9293, simultaneous open).
pub(crate) fn is_made(socket: &impl AsFd) -> io::Result<bool> {
    match net::getpeername(socket) {
        Ok(peer) if may_be_joined_to_itself(&peer) && peer == Some(net::getsockname(socket)?) => {
            Err(Errno::CONNREFUSED)
        }
        Ok(_) => Ok(true),
        Err(Errno::NOTCONN) => sockopt::socket_error(socket)?.map(|()| false),
        Err(errno) => Err(errno),
    }
}

/// Only a port that the system may choose for this side can be both.
fn may_be_joined_to_itself(peer: &Option<SocketAddrAny>) -> bool {
    static CHOSEN: OnceLock<RangeInclusive<u16>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let mut ports = text.split_whitespace().map_while(|port| port.parse().ok());
        ports.next().unwrap_or(0)..=ports.next().unwrap_or(u16::MAX)
    });
    let peer = peer.clone().and_then(|peer| SocketAddr::try_from(peer).ok());
    peer.is_none_or(|peer| chosen.contains(&peer.port()))
}

/// Whether an error says that this side has run out of descriptors, memory or ports, and nothing of
/// the other side.
pub(crate) fn is_own_lack(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL | Errno::ADDRINUSE
    )
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_socket_that_is_joined_to_itself_is_a_refusal() {
        let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let own = SocketAddr::try_from(net::getsockname(&socket).unwrap()).unwrap();
        net::connect(&socket, &own).unwrap();
        assert_eq!(is_made(&socket), Err(Errno::CONNREFUSED));
    }

    #[test]
    fn a_connection_is_made_or_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        assert_eq!(is_made(&begin(&addr).unwrap()), Ok(true));
        drop(listener);
        let refused = begin(&addr).map_or_else(Err, |socket| is_made(&socket).map(drop));
        assert_eq!(refused, Err(Errno::CONNREFUSED));
    }
}
