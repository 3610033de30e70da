//! What the kernel knows of a connection and no crate has a safe call for: `TCP_INFO`, `tcp(7)`.
#![allow(unsafe_code)]

use std::{
    mem,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

/// What was asked for; the call takes about half a microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpInfo {
    /// Since the client's last segment with data came, or since it connected where none has come.
    /// It goes by the kernel's tick, of 1 to 10 ms.
    pub(crate) age: Duration,
    /// The connection is no more: its client has reset it. One that merely ended its side may
    /// still want its reply.
    pub(crate) gone: bool,
    /// Of a listener: the connections that wait to be accepted.
    pub(crate) unacked: u32,
}

/// From the kernel's `include/net/tcp_states.h`.
const TCP_CLOSE: u8 = 7;

impl TcpInfo {
    /// None where the kernel does not say.
    pub(crate) fn of(socket: &impl AsFd) -> Option<Self> {
        // SAFETY: tcp_info is made of integers, for which zero is a value.
        let mut info: libc::tcp_info = unsafe { mem::zeroed() };
        let mut length = mem::size_of_val(&info) as libc::socklen_t;
        // SAFETY: the descriptor is open as long as it is borrowed, and the kernel writes no more
        // than `length` bytes to `info`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            )
        };
        let age = Duration::from_millis(info.tcpi_last_data_recv.into());
        let gone = info.tcpi_state == TCP_CLOSE;
        (result == 0).then_some(Self { age, gone, unacked: info.tcpi_unacked })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read, Write},
        net::{TcpListener, TcpStream},
    };

    use rustix::net::sockopt;

    use super::*;

    #[test]
    fn it_knows_since_when_a_request_waits_and_whether_its_client_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"x").unwrap();
        // In the kernel's queue, where nobody has accepted it yet, its client waits in vain.
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        let (server, _) = listener.accept().unwrap();
        let info = TcpInfo::of(&server).unwrap();
        assert!(info.age >= Duration::from_millis(80) && !info.gone, "{info:?}");
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(!TcpInfo::of(&server).unwrap().gone);
        sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        drop(client);
        assert!(TcpInfo::of(&server).unwrap().gone);
    }
}
