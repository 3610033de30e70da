//! Upstreams that do as they are told, a proxy before them, and clients that say and hear what is on the
//! wire. It knows no test.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use overfall::balance::{self, Balancer, Config, HttpConfig, UpstreamConfig};

use crate::support::*;

/// What an upstream does with a request: the whole of its head, and its connection behind that.
type Script = dyn Fn(&str, &mut Peer) -> Next + Send + Sync;

/// Whether an upstream takes another request on the connection.
#[derive(PartialEq)]
pub(crate) enum Next {
    Keep,
    Close,
}

/// A connection of an upstream, with what was read beyond the head.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    pub(crate) unread: Vec<u8>,
    /// The number of its connection.
    pub(crate) connection: usize,
    /// Requests that have come over it.
    pub(crate) requests: usize,
}

impl Peer {
    pub(crate) fn say(&mut self, text: &str) {
        // A test may have given up.
        let _ = self.stream.write_all(text.as_bytes());
    }

    pub(crate) fn reply(&mut self, body: &str) -> Next {
        self.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        Next::Keep
    }

    /// Reads so much of a body.
    pub(crate) fn body(&mut self, length: usize) -> Vec<u8> {
        let mut body = std::mem::take(&mut self.unread);
        let mut piece = [0; 4096];
        while body.len() < length {
            let count = self.stream.read(&mut piece).unwrap_or(0);
            if count == 0 {
                break;
            }
            body.extend_from_slice(&piece[..count]);
        }
        self.unread = body.split_off(length.min(body.len()));
        body
    }

    /// The next head; none at the end.
    pub(crate) fn head(&mut self) -> Option<String> {
        let mut piece = [0; 4096];
        loop {
            if let Some(end) = self.unread.windows(4).position(|end| end == b"\r\n\r\n") {
                let rest = self.unread.split_off(end + 4);
                let head = std::mem::replace(&mut self.unread, rest);
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            match self.stream.read(&mut piece) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.unread.extend_from_slice(&piece[..count]),
            }
        }
    }
}

/// An upstream that follows a script.
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    /// Connections that it has now.
    open: Arc<AtomicUsize>,
    pub(crate) heads: Receiver<String>,
}

pub(crate) fn upstream(script: impl Fn(&str, &mut Peer) -> Next + Send + Sync + 'static) -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    let connections = Arc::new(AtomicUsize::new(0));
    let (seen, heads) = channel();
    let open = Arc::new(AtomicUsize::new(0));
    let (script, count): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&connections));
    let all = Arc::clone(&open);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let peer = Peer { stream, unread: Vec::new(), connection: 0, requests: 0 };
            let (script, seen, count) = (Arc::clone(&script), seen.clone(), Arc::clone(&count));
            let open = Arc::clone(&all);
            open.fetch_add(1, SeqCst);
            thread::spawn(move || {
                serve_one(peer, &*script, &seen, &count);
                open.fetch_sub(1, SeqCst);
            });
        }
    });
    Upstream { addr, connections, open, heads }
}

fn serve_one(mut peer: Peer, script: &Script, seen: &Sender<String>, count: &AtomicUsize) {
    while let Some(head) = peer.head() {
        if peer.requests == 0 {
            // What merely connects is a check.
            peer.connection = count.fetch_add(1, SeqCst) + 1;
        }
        let _ = seen.send(head.clone());
        peer.requests += 1;
        if script(&head, &mut peer) == Next::Close {
            return;
        }
    }
}

impl Upstream {
    pub(crate) fn connections_open(&self) -> usize {
        self.open.load(SeqCst)
    }

    pub(crate) fn next_head(&self) -> String {
        self.heads.recv_timeout(PATIENCE).expect("a request")
    }
}

pub(crate) fn config(upstreams: &[&Upstream], http: HttpConfig) -> Config {
    let upstream = |upstream: &&Upstream| UpstreamConfig { name: upstream.addr.to_string(), weight: 1 };
    Config {
        http: Some(http),
        upstreams: upstreams.iter().map(upstream).collect(),
        // Checks are for the tests that are about them.
        check_interval: Duration::from_secs(3600),
        ..Config::default()
    }
}

pub(crate) fn proxy(upstreams: &[&Upstream]) -> Balancer {
    proxy_with(upstreams, HttpConfig::default())
}

pub(crate) fn proxy_with(upstreams: &[&Upstream], http: HttpConfig) -> Balancer {
    balance::serve(builder(), config(upstreams, http)).expect("it serves")
}

pub(crate) fn client(proxy: &Balancer) -> TcpStream {
    connect(proxy.handle().local_addr())
}

/// Sends a request.
pub(crate) fn send(mut client: &TcpStream, text: &str) {
    client.write_all(text.as_bytes()).expect("it reads");
}

/// Receives a reply: its head, and a body of the length that it names, or of its chunks.
pub(crate) fn receive(client: &TcpStream) -> (String, String) {
    let head = receive_head(client);
    let field = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    };
    let mut body = Vec::new();
    if let Some(length) = field("content-length") {
        body = exactly(client, length.parse().expect("a length"));
    } else if field("transfer-encoding").is_some() {
        loop {
            let size = usize::from_str_radix(receive_line(client).trim_end(), 16).expect("a size");
            body.extend(exactly(client, size));
            assert_eq!(receive_line(client), "\r\n");
            if size == 0 {
                break;
            }
        }
    }
    (head, String::from_utf8(body).expect("text"))
}

pub(crate) fn receive_head(client: &TcpStream) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let line = receive_line(client);
        assert!(!line.is_empty(), "the end, after {head:?}");
        head += &line;
    }
    head
}

pub(crate) fn receive_line(client: &TcpStream) -> String {
    let mut line = String::new();
    while !line.ends_with('\n') {
        let byte = exactly(client, 1);
        if byte.is_empty() {
            break;
        }
        line.push(byte[0] as char);
    }
    line
}

pub(crate) fn exactly(mut client: &TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut at = 0;
    while at < length {
        match client.read(&mut bytes[at..]).expect("a reply") {
            0 => break,
            count => at += count,
        }
    }
    bytes.truncate(at);
    bytes
}

pub(crate) const GET: &str = "GET /a?b HTTP/1.1\r\nHost: example.com\r\n\r\n";

pub(crate) fn ok(head: &str, peer: &mut Peer) -> Next {
    let line = head.lines().next().unwrap_or_default().to_owned();
    peer.reply(&line)
}
