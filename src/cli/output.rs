//! Standard output and standard error of a command that serves: a full pipe that nobody reads, or a
//! full disk, is no reason to stop serving. It knows text, not what it says.

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// Texts that may wait to be written; what comes when so many do is dropped and counted.
const WAITING: usize = 1024;
/// How long the end of the process waits for what was said before.
const PATIENCE: Duration = Duration::from_millis(500);

/// One of the two streams, with a thread of its own that writes.
#[derive(Debug, Clone)]
struct Stream(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    texts: Sender<Message>,
    dropped: AtomicU64,
}

enum Message {
    Text(Vec<u8>),
    /// All that came before has been written.
    Flushed(Sender<()>),
}

static OUT: OnceLock<Stream> = OnceLock::new();
static ERR: OnceLock<Stream> = OnceLock::new();

/// Has both streams written by threads from now on.
pub(super) fn start() -> io::Result<()> {
    for (stream, name) in [(&OUT, "stdout"), (&ERR, "stderr")] {
        let (texts, waiting) = bounded(WAITING);
        let shared = Arc::new(Shared { texts, dropped: AtomicU64::new(0) });
        let theirs = Arc::clone(&shared);
        let write = move || match name {
            "stdout" => write_all(&waiting, &theirs.dropped, io::stdout()),
            _ => write_all(&waiting, &theirs.dropped, io::stderr()),
        };
        thread::Builder::new().name(name.into()).spawn(write)?;
        // It is started once.
        let _ = stream.set(Stream(shared));
    }
    Ok(())
}

fn write_all(texts: &Receiver<Message>, dropped: &AtomicU64, mut stream: impl Write) {
    for message in texts {
        match message {
            Message::Text(text) => {
                if stream.write_all(&text).and_then(|()| stream.flush()).is_err() {
                    dropped.fetch_add(1, Relaxed);
                }
            }
            // Who waited for it may have given up.
            Message::Flushed(done) => drop(done.send(())),
        }
    }
}

/// Prints what somebody asked for, and nothing else is done: all of it, or it has failed. Who has read enough and
/// closed its end has what it wants.
pub(super) fn deliver(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Prints to standard output; at once where no thread does.
pub(super) fn print(text: impl Display) {
    let text = text.to_string().into_bytes();
    match OUT.get() {
        Some(stream) => stream.say(text),
        // It may be closed, which ends nothing.
        None => drop(io::stdout().write_all(&text).and_then(|()| io::stdout().flush())),
    }
}

/// Only a terminal shows colours, and not every one; a journal or a file would show what makes them.
pub(super) fn may_be_coloured(stream: &impl IsTerminal) -> bool {
    let is_unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !is_unwanted && env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// Says a sentence on standard error.
pub(super) fn complain(sentence: &str) {
    write_error(format!("{sentence}\n").into_bytes());
}

fn write_error(text: Vec<u8>) {
    match ERR.get() {
        Some(stream) => stream.say(text),
        // Nobody is left to be told when this fails.
        None => drop(io::stderr().write_all(&text)),
    }
}

/// Texts that could not be written so far.
pub(super) fn dropped() -> u64 {
    [&OUT, &ERR].iter().filter_map(|stream| stream.get()).map(|stream| stream.0.dropped.load(Relaxed)).sum()
}

/// Waits until what was said is written, for a while at most.
pub(super) fn flush() {
    for stream in [&OUT, &ERR].iter().filter_map(|stream| stream.get()) {
        let (done, written) = bounded(1);
        if stream.0.texts.send_timeout(Message::Flushed(done), PATIENCE).is_ok() {
            // Nobody reads it: then it is not going to be read.
            let _ = written.recv_timeout(PATIENCE);
        }
    }
}

impl Stream {
    fn say(&self, text: Vec<u8>) {
        match self.0.texts.try_send(Message::Text(text)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.0.dropped.fetch_add(1, Relaxed);
            }
        }
    }
}

/// Where logs go: standard error, a line at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log;

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        write_error(text.to_vec());
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
