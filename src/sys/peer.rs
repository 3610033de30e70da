//! The address of a connection's other end, which no crate asks for in the way in which it is known even after
//! a reset: `getpeername(2)` fails then, and `SO_PEERNAME` does not.
#![allow(unsafe_code)]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd},
};

/// What `struct sockaddr_in` and `struct sockaddr_in6` have of bytes. The kernel refuses to fill in more
/// than there is, so that each is asked for by its length.
const V4: usize = 16;
const V6: usize = 28;

/// The address of the other end; none where there is none, or the kernel does not say.
pub(crate) fn addr(socket: &impl AsFd) -> Option<SocketAddr> {
    let mut name = [0; V6];
    let ask = |name: &mut [u8]| {
        let mut length = name.len() as libc::socklen_t;
        // SAFETY: the descriptor is open as long as it is borrowed, and the kernel writes no more than
        // `length` bytes to `name`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERNAME,
                name.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        result == 0
    };
    if !ask(&mut name) && !ask(&mut name[..V4]) {
        return None;
    }
    parse(&name)
}

/// `ip(7)` and `ipv6(7)`: the family and the port, and then of IPv4 the address, or of IPv6 the flow, the
/// address and the zone.
fn parse(name: &[u8; V6]) -> Option<SocketAddr> {
    let (family, rest) = name.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let port = u16::from_be_bytes(*port);
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => {
            let addr: &[u8; 4] = rest.first_chunk()?;
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(*addr)), port))
        }
        libc::AF_INET6 => {
            let (flow, rest) = rest.split_first_chunk()?;
            let (addr, zone): (&[u8; 16], _) = rest.split_first_chunk()?;
            let (flow, zone) = (u32::from_be_bytes(*flow), u32::from_ne_bytes(zone.try_into().ok()?));
            Some(SocketAddrV6::new(Ipv6Addr::from(*addr), port, flow, zone).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::unix::net::UnixStream,
        time::Duration,
    };

    use rustix::net::sockopt;

    use crate::sys::{tcp_info::TcpInfo, wait::wait_until};

    #[test]
    fn it_is_known_even_after_a_reset() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(any) else {
                eprintln!("SKIPPED: nothing can listen on {any}");
                continue;
            };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, addr) = listener.accept().unwrap();
            assert_eq!(super::addr(&server), Some(addr));
            sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
            drop(client);
            assert!(wait_until(&server, rustix::event::PollFlags::IN, None).unwrap());
            assert!(TcpInfo::of(&server).unwrap().gone && server.peer_addr().is_err());
            assert_eq!(super::addr(&server), Some(addr));
        }
        assert_eq!(super::addr(&UnixStream::pair().unwrap().0), None);
    }
}
