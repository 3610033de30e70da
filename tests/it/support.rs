//! Verbs for the tests: a server to ask, clients that ask it, a command to run.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{ChildStdout, Command, Output, Stdio},
    sync::{
        Arc, Barrier, Once,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use overfall::{Builder, Connection, Handle, Handler, Next, Server};
use parking_lot::Mutex;

use crate::temporary::Process;

/// No test waits longer than this for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A handler of lines: each is a request, with as many replies as it says.
///
/// - `say TEXT`: the text
/// - `block`: says so on a channel, waits for the gate, and replies `unblocked`
/// - `panic`, `fail`: does that
/// - `big N`: that many bytes
/// - `close`: replies `bye` and closes
/// - `state`: how many requests this connection has made
pub(crate) struct Lines(Turnstile);

/// Where a handler says that it has come, and waits to be let through.
pub(crate) struct Turnstile {
    entered: Mutex<Sender<()>>,
    gate: Mutex<Receiver<()>>,
}

impl Turnstile {
    pub(crate) fn pass(&self) {
        self.entered.lock().send(()).expect("the test listens");
        // A test that is over opens every gate.
        let _ = self.gate.lock().recv();
    }
}

/// The other side of a [`Turnstile`].
pub(crate) struct Gate {
    entered: Receiver<()>,
    open: Sender<()>,
}

impl Gate {
    /// Returns when this many more handlers are blocked.
    pub(crate) fn await_blocked(&self, count: usize) {
        for _ in 0..count {
            self.entered.recv_timeout(PATIENCE).expect("a handler blocks");
        }
    }

    /// Lets this many handlers go on.
    pub(crate) fn open(&self, count: usize) {
        (0..count).for_each(|_| self.open.send(()).expect("the handler is there"));
    }
}

pub(crate) fn turnstile() -> (Turnstile, Gate) {
    let (entered, blocked) = channel();
    let (open, gate) = channel();
    (Turnstile { entered: Mutex::new(entered), gate: Mutex::new(gate) }, Gate { entered: blocked, open })
}

pub(crate) fn lines() -> (Lines, Gate) {
    let (turnstile, gate) = turnstile();
    (Lines(turnstile), gate)
}

impl Handler for Lines {
    type State = usize;

    fn open(&self, _: &mut Connection<'_>) -> io::Result<usize> {
        Ok(0)
    }

    fn ready(&self, connection: &mut Connection<'_>, requests: &mut usize) -> io::Result<Next> {
        let Some(end) = connection.input().iter().position(|&byte| byte == b'\n') else {
            return Ok(if connection.ended() { Next::Close } else { Next::Park });
        };
        let line = String::from_utf8_lossy(&connection.input()[..end]).into_owned();
        connection.consume(end + 1);
        *requests += 1;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("say", text) => writeln!(connection, "{text}")?,
            ("block", _) => {
                self.0.pass();
                writeln!(connection, "unblocked")?;
            }
            ("big", size) => connection.write_all(&vec![b'x'; size.parse().expect("a number")])?,
            ("state", _) => writeln!(connection, "{requests}")?,
            ("close", _) => {
                writeln!(connection, "bye")?;
                return Ok(Next::Close);
            }
            ("fail", _) => return Err(io::Error::other("as told")),
            _ => panic!("as told"),
        }
        Ok(Next::Again)
    }
}

/// The builder of a server on a free port, with two workers, for clients who wait as long as the tests.
pub(crate) fn builder() -> Builder {
    Server::builder().bind("127.0.0.1:0").workers(2).patience(PATIENCE)
}

/// How long clients wait where a test waits for that to be over.
pub(crate) const BRIEF: Duration = Duration::from_millis(100);

/// A server of lines.
pub(crate) fn serve_lines(builder: Builder) -> (Handle, Gate) {
    let (handler, gate) = lines();
    (builder.serve_handler(handler).expect("it serves"), gate)
}

/// A client that gives up after [`PATIENCE`].
pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    // Some tests have hundreds of clients, and all have one limit.
    static RAISED: Once = Once::new();
    RAISED.call_once(|| {
        raise_descriptor_limit();
    });
    let stream = TcpStream::connect_timeout(&addr, PATIENCE).expect("it accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// An address at which nobody listens now.
pub(crate) fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

/// Closing this one is a reset.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).expect("it is there");
}

/// What a client gets that is refused: a reset may come before it knows that it is connected.
pub(crate) fn refused_with(addr: SocketAddr) -> Result<Vec<u8>, io::ErrorKind> {
    TcpStream::connect(addr).map_err(|error| error.kind()).and_then(|stream| rest(&stream))
}

/// Sends a line.
pub(crate) fn tell(mut stream: &TcpStream, line: &str) {
    stream.write_all(format!("{line}\n").as_bytes()).expect("it reads");
}

/// Receives a line; what came without its end, where there is none.
pub(crate) fn hear(mut stream: &TcpStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).expect("a reply") == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("text")
}

/// Sends a line and receives one.
pub(crate) fn ask(stream: &TcpStream, line: &str) -> String {
    tell(stream, line);
    hear(stream)
}

/// Sends bytes, ends that side, and receives all that comes.
pub(crate) fn exchange(addr: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = connect(addr);
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    Ok(reply)
}

/// What comes until the end: bytes, or the kind of error that came after none.
pub(crate) fn rest(mut stream: &TcpStream) -> Result<Vec<u8>, io::ErrorKind> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes).map_err(|error| error.kind())
}

/// Runs as many clients at once and gives what they got.
pub(crate) fn all_at_once<T: Send + 'static>(
    count: usize,
    client: impl Fn(usize) -> T + Send + Sync + 'static,
) -> Vec<T> {
    let client = Arc::new(client);
    let barrier = Arc::new(Barrier::new(count));
    let run = |index| {
        let (client, barrier) = (Arc::clone(&client), Arc::clone(&barrier));
        thread::spawn(move || {
            barrier.wait();
            client(index)
        })
    };
    let clients: Vec<_> = (0..count).map(run).collect();
    clients.into_iter().map(|client| client.join().expect("the client ends well")).collect()
}

/// Returns when the condition holds. It is asked again and again, so that no test depends on how
/// long anything takes.
pub(crate) fn await_that(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// Whether the other side's kernel has all that was sent (`proc_net_tcp(5)`: nothing is in the transmit queue).
pub(crate) fn has_been_received(stream: &TcpStream) -> bool {
    let port = |addr: io::Result<SocketAddr>| format!(":{:04X}", addr.expect("an address").port());
    let (local, remote) = (port(stream.local_addr()), port(stream.peer_addr()));
    let table = fs::read_to_string("/proc/net/tcp").expect("the table");
    let ours = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut ours = ours.filter(|fields| fields.len() > 4 && fields[1].ends_with(&local));
    ours.any(|fields| fields[2].ends_with(&remote) && fields[4].starts_with("00000000:"))
}

/// Lets this process open as many files as it may; how many that are.
pub(crate) fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the hard limit");
    limit.maximum.unwrap_or(u64::MAX)
}

/// The command.
pub(crate) fn overfall(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_overfall"));
    command.args(args);
    command
}

/// Runs the command to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    overfall(args).output().expect("it runs")
}

/// Runs the command with each of these and expects status 2 and one sentence that has the text.
pub(crate) fn assert_wrong_usage(command: &[&str], cases: &[(&[&str], &str)]) {
    for (args, expected) in cases {
        let output = run(&[command, *args].concat());
        let text = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.starts_with("error: ") && text.contains(expected), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        assert!(output.stdout.is_empty());
    }
}

/// The processes that this one has started, zombies included.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let numbers = fs::read_dir("/proc").expect("it is there").filter_map(|entry| {
        entry.expect("an entry").file_name().to_str().and_then(|name| name.parse::<u32>().ok())
    });
    numbers.filter(|process| parent_of(*process) == Some(parent)).collect()
}

fn parent_of(process: u32) -> Option<u32> {
    // It may end meanwhile.
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// A command that serves, as a process, killed when dropped.
pub(crate) struct Served {
    child: Process,
    out: BufReader<ChildStdout>,
    pub(crate) addr: SocketAddr,
}

pub(crate) fn serve(args: &[&str]) -> Served {
    start_command(&[&["serve"], args].concat())
}

/// The same for any command that serves.
pub(crate) fn start_command(args: &[&str]) -> Served {
    let mut command = overfall(&args[..1]);
    command.args(["-q", "--listen", "127.0.0.1:0"]).args(&args[1..]).stdout(Stdio::piped());
    let mut child = Process(command.spawn().expect("it runs"));
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let addr = listening(&mut out);
    let mut served = Served { child, out, addr };
    if args[0] == "serve" {
        // Whatever other addresses there are come before it.
        while !served.line().starts_with("try ") {}
    }
    served
}

/// Reads where a command listens, which is its first line.
pub(crate) fn listening(out: &mut impl BufRead) -> SocketAddr {
    let mut line = String::new();
    out.read_line(&mut line).expect("it says where");
    line.trim().strip_prefix("listening on ").expect("the first line").parse().expect("an address")
}

impl Served {
    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("it is there");
    }

    pub(crate) fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it is there").count()
    }

    /// The processes that it has started and not waited for.
    pub(crate) fn children(&self) -> Vec<u32> {
        children(self.child.id())
    }

    /// How many of its threads have this name.
    pub(crate) fn threads_named(&self, name: &str) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it is there");
        let names = tasks.map(|task| fs::read_to_string(task.expect("a thread").path().join("comm")));
        // One may end meanwhile.
        names.filter(|found| found.as_ref().is_ok_and(|found| found.trim_end() == name)).count()
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.out.read_line(&mut line).expect("a line") > 0, "standard output ended");
        line.trim_end().to_owned()
    }

    /// Asks for the counters and gives one.
    pub(crate) fn counter(&mut self, name: &str) -> u64 {
        let status = self.status();
        let rows = status.iter().map(|line| line.split_once(' ').expect("name and value"));
        let found = rows.filter(|(key, _)| *key == name).find_map(|(_, value)| value.trim().parse().ok());
        found.expect("the counter")
    }

    /// Asks for what USR1 shows; its lines.
    pub(crate) fn status(&mut self) -> Vec<String> {
        self.signal(rustix::process::Signal::USR1);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.out.read_line(&mut line).expect("counters") > 0, "standard output ended");
            lines.push(line.trim_end().to_owned());
            if line.starts_with("wait_max_us ") {
                return lines;
            }
        }
    }

    /// Waits for its end; the status and what it still printed.
    pub(crate) fn wait(&mut self) -> (Option<i32>, String) {
        let mut text = String::new();
        self.out.read_to_string(&mut text).expect("text");
        (self.child.wait().expect("it ends").code(), text)
    }
}
