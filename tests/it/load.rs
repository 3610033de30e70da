//! Clients that ask again and again while something changes, on new connections and on kept ones.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;

use crate::support::*;

/// Between one request of a client and the next: four of them make about 200 a second.
const INTERVAL: Duration = Duration::from_millis(20);

/// How a client talks.
#[derive(Clone, Copy)]
pub(crate) struct Talk {
    /// Asks over a connection; what comes.
    pub(crate) ask: fn(&TcpStream) -> io::Result<String>,
    /// None where nothing like that may come.
    pub(crate) means: fn(&str) -> Option<Meaning>,
}

/// What that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    Answer,
    /// An answer, which says that no other one comes over this connection.
    Last,
    /// Where nothing says which answer is the last: the end of a connection. Who kept it asks again, and must
    /// be answered then.
    Ended,
}

/// Requests, every other one with a method that is not to be done twice.
pub(crate) const HTTP: Talk = Talk {
    ask: ask_http,
    means: |head| match head.to_lowercase().contains("connection: close") {
        _ if !is_ok(head) => None,
        true => Some(Meaning::Last),
        false => Some(Meaning::Answer),
    },
};

/// Lines that come back as they are, from a server that ends idle connections whenever it likes.
pub(crate) const ECHO: Talk = Talk {
    ask: |stream| {
        let mut line = String::new();
        let asked = (&*stream).write_all(b"hello\n");
        // A reset is an end as well.
        let _ = asked.and_then(|()| BufReader::new(stream).read_line(&mut line));
        Ok(line)
    },
    means: |line| match line {
        "hello\n" => Some(Meaning::Answer),
        "" => Some(Meaning::Ended),
        _ => None,
    },
};

/// Asks for something over HTTP; the head of the reply.
pub(crate) fn ask_http(stream: &TcpStream) -> io::Result<String> {
    let text = match fastrand::bool() {
        true => "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        false => "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello",
    };
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(text.as_bytes())?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    stream.read_exact(&mut vec![0; length])?;
    Ok(head)
}

pub(crate) fn is_ok(head: &str) -> bool {
    head.starts_with("HTTP/1.1 200 ")
}

/// Clients, who ask until they are told to stop: two that keep their connection for as long as the server does,
/// and two with a new one for each request.
pub(crate) struct Load {
    shared: Arc<Tally>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    answered: AtomicUsize,
    /// Connections that the server has ended.
    ended: AtomicUsize,
    /// What came in place of an answer.
    lost: Mutex<Vec<String>>,
}

impl Load {
    pub(crate) fn begin(addr: SocketAddr, talk: Talk) -> Self {
        let shared = Arc::new(Tally::default());
        let client = |keeps: bool| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                if let Err(lost) = shared.ask_on(addr, keeps, talk) {
                    shared.lost.lock().push(lost);
                }
            })
        };
        let clients = [true, true, false, false].map(client).into();
        Self { shared, clients }
    }

    /// Runs clients while something is done, before and after which each may have asked several times; none of
    /// them is lost.
    pub(crate) fn during(addr: SocketAddr, talk: Talk, act: impl FnOnce(&Self)) {
        let this = Self::begin(addr, talk);
        this.await_more();
        act(&this);
        this.await_more();
        this.end();
    }

    pub(crate) fn await_more(&self) {
        self.await_answers(40);
    }

    /// Returns when so many more were answered.
    pub(crate) fn await_answers(&self, count: usize) {
        let goal = self.shared.answered.load(SeqCst) + count;
        await_that("requests are answered", || {
            assert_eq!(*self.shared.lost.lock(), Vec::<String>::new());
            self.shared.answered.load(SeqCst) >= goal
        });
    }

    /// Ends it; nobody was lost. How many connections the server has ended.
    pub(crate) fn end(mut self) -> usize {
        self.shared.stop.store(true, SeqCst);
        self.clients.drain(..).for_each(|client| client.join().expect("it ends well"));
        assert_eq!(*self.shared.lost.lock(), Vec::<String>::new());
        self.shared.ended.load(SeqCst)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
    }
}

impl Tally {
    /// Asks until it is over; what came in place of an answer.
    fn ask_on(&self, addr: SocketAddr, keeps: bool, talk: Talk) -> Result<(), String> {
        let mut kept: Option<TcpStream> = None;
        while !self.stop.load(SeqCst) {
            let is_new = kept.is_none();
            let stream = kept.take().unwrap_or_else(|| connect(addr));
            let meaning = if has_ended(&stream) { Meaning::Ended } else { talk.hear(&stream)? };
            match meaning {
                Meaning::Ended if is_new => return Err("a new connection was ended".to_owned()),
                Meaning::Answer if keeps => kept = Some(stream),
                Meaning::Answer => {}
                Meaning::Last | Meaning::Ended => drop(self.ended.fetch_add(1, SeqCst)),
            }
            // Whose connection has ended asks again at once.
            if meaning != Meaning::Ended {
                self.answered.fetch_add(1, SeqCst);
                thread::park_timeout(INTERVAL);
            }
        }
        Ok(())
    }
}

impl Talk {
    fn hear(&self, stream: &TcpStream) -> Result<Meaning, String> {
        let came = (self.ask)(stream).map_err(|error| error.to_string())?;
        (self.means)(&came).ok_or(came)
    }
}

/// Whether the server has ended this connection, which it does while nothing is asked.
fn has_ended(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let ended = stream.peek(&mut [0]).is_ok();
    stream.set_nonblocking(false).expect("a socket");
    ended
}
