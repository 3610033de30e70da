//! What a connection begins with before its own bytes: a PROXY line, then a TLS handshake, each where it
//! is expected. It knows neither handlers nor what follows.

use std::{net::SocketAddr, os::fd::OwnedFd};

use ipnet::IpNet;
use rustix::{
    buffer::spare_capacity,
    io::Errno,
    net::{self, RecvFlags},
};

use super::{
    preface::{self, Ends, LONGEST, Preface},
    tls,
};
use crate::sys::peer;

/// What connections of a server begin with.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// Those who say in a PROXY line for whom they speak.
    pub(crate) accept_proxy: Vec<IpNet>,
    pub(crate) tls: Option<tls::Acceptor>,
}

impl Entry {
    /// Whether connections begin with their own bytes.
    pub(crate) fn is_plain(&self) -> bool {
        self.accept_proxy.is_empty() && self.tls.is_none()
    }

    fn expects_proxy_line(&self, socket: &OwnedFd) -> bool {
        !self.accept_proxy.is_empty()
            && peer::addr(socket).is_some_and(|peer| is_in(&self.accept_proxy, peer))
    }
}

/// Whether an address is in one of these networks.
fn is_in(networks: &[IpNet], addr: SocketAddr) -> bool {
    let ip = addr.ip().to_canonical();
    networks.iter().any(|network| network.contains(&ip))
}

/// How far a connection has come before its own bytes, and what stays of that.
///
/// | stage | a PROXY line that is whole | a handshake that is done |
/// |---|---|---|
/// | a PROXY line is expected | handshake where there is TLS, else open | |
/// | handshake | | open |
/// | open | | |
#[derive(Debug)]
pub(crate) struct Transport {
    stage: Stage,
    /// A byte of what it begins with has come.
    begun: bool,
    /// What the PROXY line says.
    ends: Option<Ends>,
    tls: Option<tls::Stream>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    ProxyLine,
    Handshake,
    Open,
}

/// What came of going on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    /// More has to come.
    Part,
    /// The other side has ended before.
    Ended,
}

impl Transport {
    pub(super) fn begin(entry: &Entry, socket: &OwnedFd) -> Self {
        let stage = if entry.expects_proxy_line(socket) { Stage::ProxyLine } else { Stage::Handshake };
        Self { stage, begun: false, ends: None, tls: None }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    pub(super) fn ends(&self) -> Option<Ends> {
        self.ends
    }

    /// Whether something has come, and more is to before its own bytes.
    pub(super) fn is_beginning(&self) -> bool {
        self.stage != Stage::Open && self.begun
    }

    pub(super) fn tls(&mut self) -> Option<&mut tls::Stream> {
        self.tls.as_mut()
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether something was opened that nobody has taken yet, or the word that nothing follows.
    pub(super) fn has_more(&self) -> bool {
        self.tls.as_ref().is_some_and(tls::Stream::has_more)
    }

    /// Whether the socket has taken all that was sealed.
    pub(super) fn is_flushed(&self) -> bool {
        self.tls.as_ref().is_none_or(tls::Stream::is_flushed)
    }

    /// Goes on as far as that is possible without waiting.
    pub(super) fn go_on(&mut self, entry: &Entry, socket: &OwnedFd) -> rustix::io::Result<Progress> {
        if self.stage == Stage::ProxyLine {
            match self.read_proxy_line(socket)? {
                Progress::Done => self.stage = Stage::Handshake,
                progress => return Ok(progress),
            }
        }
        if self.stage == Stage::Handshake
            && let Some(acceptor) = &entry.tls
        {
            if self.tls.is_none() {
                self.tls = Some(acceptor.accept()?);
            }
            match self.shake_hands(socket)? {
                Progress::Done => {}
                progress => return Ok(progress),
            }
        }
        self.stage = Stage::Open;
        Ok(Progress::Done)
    }

    /// Looks at what has come, and takes no byte more than the line has.
    fn read_proxy_line(&mut self, socket: &OwnedFd) -> rustix::io::Result<Progress> {
        let mut bytes = Vec::with_capacity(LONGEST);
        match net::recv(socket, spare_capacity(&mut bytes), RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Ok(Progress::Ended),
            Ok(_) => self.begun = true,
            Err(Errno::AGAIN) => return Ok(Progress::Part),
            Err(errno) => return Err(errno),
        }
        match preface::parse(&bytes) {
            Preface::Part => Ok(Progress::Part),
            Preface::Malformed => Err(Errno::PROTO),
            Preface::Whole(length, ends) => {
                // They are there, so that no call gives fewer.
                net::recv(socket, &mut bytes[..length], RecvFlags::DONTWAIT)?;
                self.ends = ends;
                Ok(Progress::Done)
            }
        }
    }

    fn shake_hands(&mut self, socket: &OwnedFd) -> rustix::io::Result<Progress> {
        let Some(tls) = &mut self.tls else { return Ok(Progress::Done) };
        loop {
            if !tls.flush(socket)? {
                return Ok(Progress::Part);
            }
            if !tls.is_handshaking() {
                return Ok(Progress::Done);
            }
            match tls.receive(socket) {
                Ok((0, _)) => return Ok(Progress::Ended),
                Ok(_) => self.begun = true,
                Err(Errno::AGAIN) => return Ok(Progress::Part),
                Err(errno) => return Err(errno),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
        time::Duration,
    };

    use rustix::{event::PollFlags, net::sockopt};

    use super::*;
    use crate::sys::wait::wait_until;

    #[test]
    fn networks_have_addresses_of_either_kind() {
        let networks: Vec<IpNet> = ["10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().unwrap()).to_vec();
        for (addr, is_it) in [
            ("10.1.2.3:1", true),
            ("[::ffff:10.1.2.3]:1", true),
            ("11.1.2.3:1", false),
            ("[2001:db8::1]:1", true),
            ("[2001:db9::1]:1", false),
        ] {
            assert_eq!(is_in(&networks, addr.parse().unwrap()), is_it, "{addr}");
        }
    }

    #[test]
    fn each_transition_of_one_without_tls() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pair = || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (socket, _) = listener.accept().unwrap();
            socket.set_nonblocking(true).unwrap();
            (client, OwnedFd::from(socket))
        };
        let entry = Entry { accept_proxy: vec!["127.0.0.0/8".parse().unwrap()], tls: None };
        let (mut client, socket) = pair();
        let mut transport = Transport::begin(&entry, &socket);
        assert_eq!((transport.stage(), transport.is_beginning()), (Stage::ProxyLine, false));
        assert_eq!(transport.go_on(&entry, &socket), Ok(Progress::Part));
        assert!(!transport.is_beginning());
        client.write_all(b"PROXY TCP4 192.0.2.1 ").unwrap();
        assert_eq!(transport.go_on(&entry, &socket), Ok(Progress::Part));
        assert_eq!((transport.stage(), transport.is_beginning()), (Stage::ProxyLine, true));
        client.write_all(b"192.0.2.2 5000 80\r\nhello").unwrap();
        assert_eq!(transport.go_on(&entry, &socket), Ok(Progress::Done));
        assert_eq!((transport.stage(), transport.is_beginning()), (Stage::Open, false));
        assert_eq!(transport.ends().unwrap().client, "192.0.2.1:5000".parse().unwrap());
        let mut rest = [0; 9];
        assert_eq!(rustix::io::read(&socket, &mut rest), Ok(5));

        let (client, socket) = pair();
        let mut transport = Transport::begin(&entry, &socket);
        drop(client);
        assert_eq!(transport.go_on(&entry, &socket), Ok(Progress::Ended));

        // Who owes a line owes it also when it has reset the connection.
        let (client, socket) = pair();
        sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        drop(client);
        assert!(wait_until(&socket, PollFlags::IN, None).unwrap());
        let mut transport = Transport::begin(&entry, &socket);
        assert_eq!(transport.stage(), Stage::ProxyLine);
        assert_eq!(transport.go_on(&entry, &socket), Err(Errno::CONNRESET));

        let (mut client, socket) = pair();
        let mut transport = Transport::begin(&entry, &socket);
        client.write_all(b"hello").unwrap();
        assert_eq!(transport.go_on(&entry, &socket), Err(Errno::PROTO));

        let others = Entry { accept_proxy: vec!["192.0.2.0/24".parse().unwrap()], tls: None };
        let (_client, socket) = pair();
        let mut transport = Transport::begin(&others, &socket);
        assert_eq!(transport.go_on(&others, &socket), Ok(Progress::Done));
        assert_eq!(transport.ends(), None);
    }
}
