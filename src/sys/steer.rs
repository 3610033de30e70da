//! To which of several sockets that listen at one address a newcomer comes, as the kernel decides by a program
//! (`SO_ATTACH_REUSEPORT_CBPF`, `socket(7)`).

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::options;

/// Where the network header begins, as the kernel's filters have it (`linux/filter.h`).
const NETWORK: u32 = 0xfff0_0000;
// Classic BPF (`linux/bpf_common.h`): what is done with A, and X, and a constant.
const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const JUMP_UNLESS_EQUAL: u16 = 0x15;
const JUMP: u16 = 0x05;
const MULTIPLY: u16 = 0x24;
const COPY_TO_X: u16 = 0x07;
const XOR: u16 = 0xa4;
const XOR_X: u16 = 0xac;
const SHIFT_RIGHT: u16 = 0x74;
const MODULO: u16 = 0x94;
const RETURN: u16 = 0x16;

/// Odd numbers whose bits are mixed (of the golden ratio, and of MurmurHash3's last steps).
const MIX: u32 = 0x9e37_79b1;
const MIX_MORE: u32 = 0x85eb_ca6b;

/// Has newcomers come to one of the first `count` sockets that share this one's address, in the order in which they
/// began to listen: which one follows from the newcomer's source (its IPv4 address, or the first half of its IPv6
/// address, which one site has) and from the salt.
pub(crate) fn by_source(listener: &impl AsFd, count: u32, salt: u32) -> rustix::io::Result<()> {
    let program = [
        op(LOAD_BYTE, NETWORK),
        op(AND, 0xf0),
        skip_unless(0x40, 2),
        // IPv4: the source.
        op(LOAD_WORD, NETWORK + 12),
        op(JUMP, 5),
        // IPv6: the first half of the source.
        op(LOAD_WORD, NETWORK + 8),
        op(MULTIPLY, MIX),
        op(COPY_TO_X, 0),
        op(LOAD_WORD, NETWORK + 12),
        op(XOR_X, 0),
        // Neighbours are to part, and others with each salt.
        op(XOR, salt),
        op(MULTIPLY, MIX),
        op(COPY_TO_X, 0),
        op(SHIFT_RIGHT, 15),
        op(XOR_X, 0),
        op(MULTIPLY, MIX_MORE),
        op(SHIFT_RIGHT, 16),
        op(MODULO, count.max(1)),
        op(RETURN, 0),
    ];
    attach(listener, &program)
}

fn op(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

/// Passes over so many that follow where A is not this.
fn skip_unless(k: u32, count: u8) -> libc::sock_filter {
    libc::sock_filter { code: JUMP_UNLESS_EQUAL, jt: 0, jf: count, k }
}

fn attach(listener: &impl AsFd, program: &[libc::sock_filter]) -> rustix::io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let described = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    options::set(listener, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &described)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use rustix::net::{self, AddressFamily, SocketType, sockopt};

    use super::*;

    /// Sockets that listen at one address, and where that is.
    fn listen(addr: SocketAddr, count: usize) -> (Vec<rustix::fd::OwnedFd>, SocketAddr) {
        let mut addr = addr;
        let sockets = (0..count).map(|_| {
            let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = net::socket(family, SocketType::STREAM, None).unwrap();
            sockopt::set_socket_reuseport(&socket, true).unwrap();
            net::bind(&socket, &addr).unwrap();
            net::listen(&socket, 64).unwrap();
            rustix::io::ioctl_fionbio(&socket, true).unwrap();
            addr = net::getsockname(&socket).unwrap().try_into().unwrap();
            socket
        });
        let sockets: Vec<_> = sockets.collect();
        (sockets, addr)
    }

    /// Connects from this address.
    fn connect(from: IpAddr, to: SocketAddr) -> rustix::fd::OwnedFd {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = net::socket(family, SocketType::STREAM, None).unwrap();
        net::bind(&socket, &SocketAddr::new(from, 0)).unwrap();
        net::connect(&socket, &to).unwrap();
        socket
    }

    /// How many each has.
    fn had(sockets: &[rustix::fd::OwnedFd]) -> Vec<usize> {
        sockets.iter().map(|socket| std::iter::from_fn(|| net::accept(socket).ok()).count()).collect()
    }

    #[test]
    fn neighbours_part_with_every_salt() {
        let (sockets, addr) = listen("127.0.0.1:0".parse().unwrap(), 256);
        // A factor that had but few bits would send all of them to one or two.
        for salt in [0, 1, 2, 0x100, 0xff_0000, 0x0100_0001, 0x5555_5555, 0x8000_0000, u32::MAX] {
            by_source(&sockets[0], 256, salt).unwrap();
            let sources = (1..=32).map(|source| format!("127.0.3.{source}").parse().unwrap());
            let _clients: Vec<_> = sources.map(|from| connect(from, addr)).collect();
            let used = had(&sockets).into_iter().filter(|had| *had > 0).count();
            assert!(used >= 24, "{used} with {salt:#x}");
        }
    }

    #[test]
    fn a_source_comes_to_one_socket_and_sources_part() {
        let (sockets, addr) = listen("127.0.0.1:0".parse().unwrap(), 8);
        by_source(&sockets[0], 8, 12_345).unwrap();
        let mut used = vec![0; 8];
        for source in 1..=40 {
            let from = format!("127.0.3.{source}").parse().unwrap();
            let clients: Vec<_> = (0..3).map(|_| connect(from, addr)).collect();
            let had = had(&sockets);
            assert_eq!(had.iter().copied().max(), Some(clients.len()), "{had:?}");
            had.iter().zip(&mut used).for_each(|(had, used)| *used += had);
        }
        assert!(used.iter().all(|&used| used > 0), "{used:?}");
        // All come to the first.
        by_source(&sockets[0], 1, 7).unwrap();
        let _clients: Vec<_> =
            (1..=20).map(|source| connect(format!("127.0.4.{source}").parse().unwrap(), addr)).collect();
        assert_eq!(had(&sockets)[0], 20);
    }

    #[test]
    fn a_source_of_ipv6_comes_to_one_socket() {
        let (sockets, addr) = listen("[::1]:0".parse().unwrap(), 8);
        by_source(&sockets[0], 8, 99).unwrap();
        let _clients: Vec<_> = (0..5).map(|_| connect("::1".parse().unwrap(), addr)).collect();
        assert_eq!(had(&sockets).iter().copied().max(), Some(5));
    }
}
