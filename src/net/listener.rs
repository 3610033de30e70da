//! Listening sockets, whose backlog can be changed while they listen. It knows not who accepts.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use rustix::{
    io::Errno,
    net::{self, AddressFamily, SocketFlags, SocketType, sockopt},
};

use crate::sys::tcp_info::TcpInfo;

/// A listening socket whose backlog can be changed while it listens.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Arc<OwnedFd>,
    addr: SocketAddr,
    backlog: u32,
    shared: Arc<AtomicBool>,
}

/// A listener as it is seen by who does not accept from it, and does not keep it open.
#[derive(Debug)]
pub(crate) struct ListenerRef {
    pub(crate) addr: SocketAddr,
    socket: Weak<OwnedFd>,
    shared: Arc<AtomicBool>,
}

/// Why nothing was accepted, by what is to be done about it (the four kinds of `accept(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptError {
    /// Nobody is waiting.
    Empty,
    /// This one connection failed before it was accepted: pass it over.
    Connection(Errno),
    /// Out of descriptors or memory: leave the listener alone for a while.
    Exhausted(Errno),
    /// The listener itself is unusable: stop.
    Closed(Errno),
}

impl Listener {
    /// Listens on the first of the addresses that can be had.
    pub(crate) fn bind(addrs: impl ToSocketAddrs, backlog: u32) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
        for addr in addrs.to_socket_addrs()? {
            match Self::bind_one(addr, backlog) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    fn bind_one(addr: SocketAddr, backlog: u32) -> rustix::io::Result<Self> {
        let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        net::bind(&socket, &addr)?;
        Self::adopt(socket, backlog)
    }

    /// Takes over a bound socket; one that listens already gets the new backlog.
    pub(crate) fn adopt(socket: impl Into<OwnedFd>, backlog: u32) -> rustix::io::Result<Self> {
        let socket = socket.into();
        rustix::io::ioctl_fionbio(&socket, true)?;
        // Accepted sockets inherit it, which saves a call for each.
        sockopt::set_tcp_nodelay(&socket, true)?;
        let addr = net::getsockname(&socket)?.try_into().map_err(|_| Errno::AFNOSUPPORT)?;
        let listener = Self { socket: Arc::new(socket), addr, backlog, shared: Arc::default() };
        listener.listen(backlog)?;
        Ok(listener)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn to_ref(&self) -> ListenerRef {
        let socket = Arc::downgrade(&self.socket);
        ListenerRef { addr: self.addr, socket, shared: Arc::clone(&self.shared) }
    }

    /// Says that somebody else listens on this socket as well, now or later.
    pub(crate) fn share(self) -> Self {
        self.shared.store(true, SeqCst);
        self
    }

    /// Whether those who wait in the backlog are served by somebody else when it is left.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.load(SeqCst)
    }

    pub(crate) fn accept(&self) -> Result<OwnedFd, AcceptError> {
        loop {
            match net::accept_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => return Ok(socket),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(AcceptError::from(errno)),
            }
        }
    }

    /// Changes the backlog; connections that wait in it stay there.
    pub(crate) fn set_backlog(&mut self, backlog: u32) {
        if backlog == self.backlog {
            return;
        }
        match self.listen(backlog) {
            Ok(()) => self.backlog = backlog,
            Err(error) => tracing::warn!(addr = %self.addr, backlog, %error, "the backlog cannot be changed"),
        }
    }

    /// Lets no more connections into the backlog; those in it can still be accepted.
    pub(crate) fn close_backlog(&mut self) {
        self.set_backlog(0);
    }

    /// The backlog in force.
    pub(crate) fn backlog_in_force(&self) -> u32 {
        granted(self.backlog)
    }

    /// Connections that wait in the backlog.
    pub(crate) fn waiting(&self) -> usize {
        TcpInfo::of(self).map_or(0, |info| info.unacked as usize)
    }

    fn listen(&self, backlog: u32) -> rustix::io::Result<()> {
        net::listen(&self.socket, i32::try_from(backlog).unwrap_or(i32::MAX))
    }
}

/// What there is of a backlog: the kernel clamps what was asked for without a word (`listen(2)`).
pub(crate) fn granted(backlog: u32) -> u32 {
    let somaxconn = fs::read_to_string("/proc/sys/net/core/somaxconn");
    let somaxconn = somaxconn.ok().and_then(|text| text.trim().parse().ok());
    backlog.min(somaxconn.unwrap_or(u32::MAX))
}

impl ListenerRef {
    /// The same socket once more.
    pub(crate) fn duplicate(&self) -> io::Result<TcpListener> {
        let closed = || io::Error::new(io::ErrorKind::NotConnected, "the listener is closed");
        let socket = self.socket.upgrade().ok_or_else(closed)?;
        Ok(socket.try_clone()?.into())
    }

    /// Says whether somebody else listens on this socket as well, from now on.
    pub(crate) fn set_shared(&self, shared: bool) {
        self.shared.store(shared, SeqCst);
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<Errno> for AcceptError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN => Self::Empty,
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => Self::Exhausted(errno),
            Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::FAULT => Self::Closed(errno),
            // ECONNABORTED, EPERM of a firewall, and what accept(2) lists as errors of the network
            // that are to be treated like EAGAIN.
            _ => Self::Connection(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn accepted_sockets_do_not_block_and_have_no_delay() {
        let listener = Listener::bind("127.0.0.1:0", 16).unwrap();
        assert_eq!(listener.accept().unwrap_err(), AcceptError::Empty);
        let _client = TcpStream::connect(listener.addr()).unwrap();
        let socket = listener.accept().unwrap();
        assert!(sockopt::tcp_nodelay(&socket).unwrap());
        assert_eq!(rustix::io::read(&socket, &mut [0u8; 1]), Err(Errno::AGAIN));
    }

    #[test]
    fn a_shorter_backlog_keeps_what_is_queued() {
        let mut listener = Listener::bind("127.0.0.1:0", 64).unwrap();
        let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(listener.addr()).unwrap()).collect();
        assert_eq!(listener.waiting(), 20);
        listener.close_backlog();
        for _ in &clients {
            listener.accept().unwrap();
        }
        assert_eq!(listener.accept().unwrap_err(), AcceptError::Empty);
    }

    #[test]
    fn a_duplicate_keeps_those_in_the_backlog_and_a_reference_does_not() {
        let listener = Listener::bind("127.0.0.1:0", 64).unwrap();
        let (reference, addr) = (listener.to_ref(), listener.addr());
        let _client = TcpStream::connect(addr).unwrap();
        let duplicate = reference.duplicate().unwrap();
        drop(listener);
        assert!(duplicate.accept().is_ok());
        assert!(reference.duplicate().is_err());
        drop(duplicate);
        assert!(TcpStream::connect(addr).is_err());
    }

    #[test]
    fn the_backlog_in_force_is_clamped_by_the_kernel() {
        let listener = Listener::bind("127.0.0.1:0", 1_000_000_000).unwrap();
        assert!(listener.backlog_in_force() < 1_000_000_000);
    }

    #[test]
    fn errors_are_sorted_by_what_is_to_be_done() {
        let kinds = [
            (Errno::AGAIN, AcceptError::Empty),
            (Errno::CONNABORTED, AcceptError::Connection(Errno::CONNABORTED)),
            (Errno::PERM, AcceptError::Connection(Errno::PERM)),
            (Errno::HOSTUNREACH, AcceptError::Connection(Errno::HOSTUNREACH)),
            (Errno::MFILE, AcceptError::Exhausted(Errno::MFILE)),
            (Errno::NOBUFS, AcceptError::Exhausted(Errno::NOBUFS)),
            (Errno::INVAL, AcceptError::Closed(Errno::INVAL)),
        ];
        for (errno, kind) in kinds {
            assert_eq!(AcceptError::from(errno), kind);
        }
    }
}
