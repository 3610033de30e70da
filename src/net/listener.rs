//! Listening sockets, whose backlog can be changed while they listen. It knows not who accepts.

use std::{
    fs, io, mem,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{self, AddressFamily, SocketFlags, SocketType, sockopt},
};

use super::lanes::Lanes;
use crate::sys::{options, tcp_info::TcpInfo};

/// A listening socket whose backlog can be changed while it listens.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Arc<OwnedFd>,
    addr: SocketAddr,
    backlog: u32,
    shared: Arc<AtomicBool>,
    lanes: Spread,
    /// Newcomers are left to the kernel until they have spoken.
    defers: bool,
    /// When that was last ended.
    deferred: Option<Instant>,
    /// It was said that sources are not told apart, since others have the socket.
    said_shared: bool,
}

/// Whether newcomers are told apart by their source before they are accepted.
#[derive(Debug)]
enum Spread {
    /// They were not yet, or not for a while.
    No,
    /// They cannot be.
    Never,
    Over {
        lanes: Lanes,
        /// Since when they need not be.
        calm_since: Option<Instant>,
    },
}

/// How long sources are told apart after that was last needed; and how long lanes are kept after that, since handshakes
/// may be under way.
const KEPT: Duration = Duration::from_secs(10);

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
        let socket = socket(addr)?;
        // Somebody else who listens there is found out, who would not be if this were set before.
        net::bind(&socket, &addr)?;
        // Where it cannot be had, sources are not told apart.
        let _ = sockopt::set_socket_reuseport(&socket, true);
        Self::adopt(socket, backlog)
    }

    /// Takes over a bound socket; one that listens already gets the new backlog.
    pub(crate) fn adopt(socket: impl Into<OwnedFd>, backlog: u32) -> rustix::io::Result<Self> {
        let socket = socket.into();
        rustix::io::ioctl_fionbio(&socket, true)?;
        // Accepted sockets inherit it, which saves a call for each.
        sockopt::set_tcp_nodelay(&socket, true)?;
        let addr = net::getsockname(&socket)?.try_into().map_err(|_| Errno::AFNOSUPPORT)?;
        let socket = Arc::new(socket);
        let listener = Self {
            socket,
            addr,
            backlog,
            shared: Arc::default(),
            lanes: Spread::No,
            defers: false,
            deferred: None,
            said_shared: false,
        };
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

    /// The next newcomer, of each source in turn where they are told apart.
    pub(crate) fn accept(&mut self) -> Result<OwnedFd, AcceptError> {
        let accepted = match &mut self.lanes {
            Spread::Over { lanes, .. } => lanes.accept(),
            Spread::No | Spread::Never => accept(&self.socket),
        };
        accepted.map_err(AcceptError::from)
    }

    /// A newcomer who is to be told no: where sources are told apart, one of those that have had more than their
    /// share. Nobody where those have not come who have.
    pub(crate) fn accept_excess(&mut self) -> Result<OwnedFd, AcceptError> {
        match &mut self.lanes {
            Spread::Over { lanes, .. } => lanes.accept_excess().map_err(AcceptError::from),
            Spread::No | Spread::Never => self.accept(),
        }
    }

    /// Whether newcomers are told apart by their source.
    pub(crate) fn tells_apart(&self) -> bool {
        matches!(self.lanes, Spread::Over { .. })
    }

    /// A newcomer of those who are behind others, where sources are told apart.
    pub(crate) fn accept_behind(&mut self) -> Option<OwnedFd> {
        match &mut self.lanes {
            Spread::Over { lanes, .. } => lanes.accept_behind(),
            Spread::No | Spread::Never => None,
        }
    }

    /// Has newcomers be told apart by their source from now on, when each who is served takes so long, or not any
    /// more.
    pub(crate) fn tell_apart(&mut self, headway: Option<Duration>, now: Instant) {
        // Whoever else listens on this socket would hear nothing of those who come to others.
        let is_shared = self.is_shared();
        if is_shared && headway.is_some() && !mem::replace(&mut self.said_shared, true) {
            tracing::info!(addr = %self.addr, "others have this socket as well: all sources share one backlog");
        }
        let done = match (&mut self.lanes, headway.filter(|_| !is_shared)) {
            (Spread::Never, _) | (Spread::No, None) => return,
            (Spread::No, Some(_)) => self.split(),
            (Spread::Over { lanes, calm_since }, Some(headway)) => {
                *calm_since = None;
                lanes.shuffle(now, headway).and_then(|shuffled| match shuffled {
                    true => lanes.set_backlog(self.backlog),
                    false => Ok(()),
                })
            }
            (Spread::Over { lanes, calm_since }, None) => {
                let calm = now.saturating_duration_since(*calm_since.get_or_insert(now));
                // An overload comes back: it is looked every now and then whether it is over.
                if calm >= KEPT * 2 && lanes.waiting() == 0 {
                    self.lanes = Spread::No;
                    return;
                }
                if calm >= KEPT || is_shared { lanes.unite() } else { Ok(()) }
            }
        };
        if let Err(error) = done {
            tracing::warn!(addr = %self.addr, %error, "sources cannot be told apart; all share one backlog");
            if matches!(self.lanes, Spread::No) {
                self.lanes = Spread::Never;
            }
        }
    }

    /// Leaves the socket that others have as well; whether newcomers wait elsewhere, of whom they do not know.
    pub(crate) fn leave_shared(&mut self) -> bool {
        match &mut self.lanes {
            Spread::Over { lanes, .. } => lanes.leave_first().is_ok(),
            Spread::No | Spread::Never => false,
        }
    }

    fn split(&mut self) -> rustix::io::Result<()> {
        let backlog = self.backlog;
        let listen = |addr| {
            let socket = socket(addr)?;
            sockopt::set_socket_reuseport(&socket, true)?;
            net::bind(&socket, &addr)?;
            Ok(Self::adopt(socket, backlog)?.socket)
        };
        let lanes = Lanes::split(&self.socket, self.addr, listen)?;
        tracing::info!(addr = %self.addr, "sources have a backlog each from now on");
        self.lanes = Spread::Over { lanes, calm_since: None };
        Ok(())
    }

    /// Changes the backlog; connections that wait in it stay there.
    pub(crate) fn set_backlog(&mut self, backlog: u32) {
        if backlog == self.backlog {
            return;
        }
        let done = match &self.lanes {
            Spread::Over { lanes, .. } => lanes.set_backlog(backlog),
            Spread::No | Spread::Never => self.listen(backlog),
        };
        match done {
            Ok(()) => self.backlog = backlog,
            Err(error) => tracing::warn!(addr = %self.addr, backlog, %error, "the backlog cannot be changed"),
        }
    }

    /// Leaves newcomers to the kernel until they have spoken, but for a second at most, or not any more. Not where
    /// others have the socket as well.
    pub(crate) fn defer(&mut self, defer: bool) {
        if defer == self.defers || (defer && self.is_shared()) {
            return;
        }
        if let Err(error) = options::defer_accept(&self.socket, defer) {
            return tracing::debug!(addr = %self.addr, %error, "newcomers cannot be left to the kernel");
        }
        self.defers = defer;
        self.deferred = (!defer).then(Instant::now);
    }

    /// Whether newcomers were left to the kernel at this time or later.
    pub(crate) fn deferred_since(&self, at: Instant) -> bool {
        self.defers || self.deferred.is_some_and(|ended| ended >= at)
    }

    /// Lets no more connections into the backlog; those in it can still be accepted.
    pub(crate) fn close_backlog(&mut self) {
        self.set_backlog(0);
    }

    /// The backlog in force.
    pub(crate) fn backlog_in_force(&self) -> u32 {
        granted(self.backlog)
    }

    /// Connections that wait in the backlog, or where there are several of them, how many hold some.
    pub(crate) fn waiting(&self) -> usize {
        match &self.lanes {
            Spread::Over { lanes, .. } => lanes.waiting(),
            Spread::No | Spread::Never => TcpInfo::of(&*self.socket).map_or(0, |info| info.unacked as usize),
        }
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
    /// What is readable while somebody waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.lanes {
            Spread::Over { lanes, .. } => lanes.as_fd(),
            Spread::No | Spread::Never => self.socket.as_fd(),
        }
    }
}

/// One that may be bound to this address.
fn socket(addr: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    Ok(socket)
}

pub(super) fn accept(socket: &impl AsFd) -> rustix::io::Result<OwnedFd> {
    loop {
        match net::accept_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Err(Errno::INTR) => {}
            accepted => return accepted,
        }
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
    use std::{io::Write, net::TcpStream};

    use super::*;

    #[test]
    fn accepted_sockets_do_not_block_and_have_no_delay() {
        let mut listener = Listener::bind("127.0.0.1:0", 16).unwrap();
        assert_eq!(listener.accept().unwrap_err(), AcceptError::Empty);
        let _client = TcpStream::connect(listener.addr()).unwrap();
        let socket = listener.accept().unwrap();
        assert!(sockopt::tcp_nodelay(&socket).unwrap());
        assert_eq!(rustix::io::read(&socket, &mut [0u8; 1]), Err(Errno::AGAIN));
    }

    #[test]
    fn newcomers_are_left_to_the_kernel_until_they_have_spoken() {
        let mut listener = Listener::bind("127.0.0.1:0", 16).unwrap();
        let began = Instant::now();
        assert!(!listener.deferred_since(began));
        listener.defer(true);
        let mut clients: Vec<_> = (0..2).map(|_| TcpStream::connect(listener.addr()).unwrap()).collect();
        assert_eq!(listener.accept().unwrap_err(), AcceptError::Empty);
        clients[0].write_all(b"?").unwrap();
        assert_eq!(rustix::io::read(listener.accept().unwrap(), &mut [0u8; 2]), Ok(1));
        listener.defer(false);
        assert!(listener.deferred_since(began) && !listener.deferred_since(Instant::now()));
        assert_eq!(listener.accept().unwrap_err(), AcceptError::Empty);
        clients[1].write_all(b"?").unwrap();
        assert!(listener.accept().is_ok());
        let _silent = TcpStream::connect(listener.addr()).unwrap();
        assert!(listener.accept().is_ok());
        // What others have is left as it is, unless it was changed here.
        listener.defer(true);
        let mut listener = listener.share();
        listener.defer(false);
        listener.defer(true);
        let _silent = TcpStream::connect(listener.addr()).unwrap();
        assert!(listener.accept().is_ok());
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

    /// Connects from this address.
    fn connect(from: &str, to: SocketAddr) -> OwnedFd {
        let socket = socket(to).unwrap();
        net::bind(&socket, &SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        net::connect(&socket, &to).unwrap();
        socket
    }

    fn source(socket: &OwnedFd) -> String {
        crate::sys::peer::addr(socket).unwrap().ip().to_string()
    }

    /// A listener whose newcomers are told apart, with many of one source, and one of another.
    fn crowded() -> (Listener, Vec<OwnedFd>) {
        let mut listener = Listener::bind("127.0.0.1:0", 64).unwrap();
        let addr = listener.addr();
        loop {
            listener.tell_apart(Some(Duration::from_millis(1)), Instant::now());
            let mut clients: Vec<_> = (0..9).map(|_| connect("127.0.1.1", addr)).collect();
            clients.push(connect("127.0.2.1", addr));
            if listener.accept().is_ok() && listener.waiting() == 1 {
                // They share no lane, as they do one time in 256.
                return (listener, clients);
            }
            while listener.accept().is_ok() {}
            std::thread::sleep(Duration::from_millis(201));
        }
    }

    #[test]
    fn sources_have_turns_and_those_who_had_too_much_are_refused() {
        let (mut listener, _clients) = crowded();
        let next: Vec<_> = (0..3).map(|_| source(&listener.accept().unwrap())).collect();
        assert!(next.contains(&"127.0.2.1".to_owned()), "{next:?}");
        assert_eq!(source(&listener.accept_excess().unwrap()), "127.0.1.1");
        // Who comes for the first time is behind, and nobody else.
        let _late = connect("127.0.3.1", listener.addr());
        assert_eq!(listener.accept_behind().map(|socket| source(&socket)).as_deref(), Some("127.0.3.1"));
        assert!(listener.accept_behind().is_none());
        let rest = std::iter::from_fn(|| listener.accept().ok()).count();
        assert_eq!(rest, 5);
    }

    #[test]
    fn nobody_else_can_listen_where_sources_may_be_told_apart() {
        let listener = Listener::bind("127.0.0.1:0", 64).unwrap();
        assert_eq!(Listener::bind(listener.addr(), 64).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn who_is_told_apart_no_more_is_still_accepted() {
        let (mut listener, _clients) = crowded();
        let calm = |listener: &mut Listener, since| {
            listener.tell_apart(None, Instant::now() + since);
        };
        calm(&mut listener, Duration::ZERO);
        calm(&mut listener, KEPT);
        let _later = connect("127.0.2.1", listener.addr());
        assert_eq!(std::iter::from_fn(|| listener.accept().ok()).count(), 10);
        assert!(listener.tells_apart());
        calm(&mut listener, 2 * KEPT);
        assert!(!listener.tells_apart());
        let _last = connect("127.0.2.1", listener.addr());
        assert_eq!(source(&listener.accept().unwrap()), "127.0.2.1");
    }

    #[test]
    fn a_socket_that_others_have_is_left_with_those_who_wait_there() {
        let (mut listener, _clients) = crowded();
        assert!(listener.leave_shared());
        let others = listener.to_ref().duplicate().unwrap();
        let _later = connect("127.0.3.1", listener.addr());
        let mine = std::iter::from_fn(|| listener.accept().ok()).map(|socket| source(&socket));
        assert!(mine.into_iter().all(|source| source != "127.0.3.1"));
        let mut left = std::iter::from_fn(|| others.accept().ok());
        assert!(left.any(|(_, client)| client.ip().to_string() == "127.0.3.1"));
        let mut shared = Listener::bind("127.0.0.1:0", 64).unwrap().share();
        shared.tell_apart(Some(Duration::from_millis(1)), Instant::now());
        assert!(!shared.tells_apart() && !shared.leave_shared());
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
