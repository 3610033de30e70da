//! The access log: a line of JSON for each request, written by a thread of its own, so that no request
//! waits for a disk. It knows no connections.

use std::{
    fmt::Write as _,
    io,
    net::IpAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use http::StatusCode;

use super::log_file::LogFile;
use crate::http::codec::head::Head;

/// Lines that may wait to be written; beyond it they are dropped and counted.
const WAITING: usize = 4096;

#[derive(Debug)]
pub(in crate::balance) struct AccessLog {
    sender: Sender<Job>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Job {
    Write(Box<Entry>),
    /// What comes from now on belongs into this.
    GoOnIn(LogFile),
    /// Says so when all that was sent before is written.
    Flush(Sender<()>),
}

/// What requests are noted in from some time on.
#[derive(Debug)]
pub(in crate::balance) enum Next {
    None,
    New(Arc<AccessLog>),
    /// The same as before, in another file.
    Same(Arc<AccessLog>, LogFile),
}

impl Next {
    /// Goes on with it, as soon as what was noted before is written.
    pub(in crate::balance) fn begin(self, most: Duration) -> Option<Arc<AccessLog>> {
        match self {
            Self::None => None,
            Self::New(log) => Some(log),
            Self::Same(log, file) => {
                if log.sender.send_timeout(Job::GoOnIn(file), most).is_err() {
                    tracing::warn!(
                        "the access log stays in the file that it had: that takes nothing any more"
                    );
                }
                Some(log)
            }
        }
    }
}

/// What became of one request.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: SystemTime,
    pub(super) client: IpAddr,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) status: u16,
    /// Of the reply, as they came of the upstream.
    pub(super) bytes: u64,
    /// From the request's arrival until it was sent to an upstream.
    pub(super) wait: Duration,
    pub(super) upstream: Option<String>,
    /// From then until its reply was whole.
    pub(super) upstream_time: Duration,
    pub(super) retries: u8,
    pub(super) end: Why,
}

/// What is going to be written of a request that is under way: it is, when this is dropped.
#[derive(Debug)]
pub(super) struct Record {
    log: Arc<AccessLog>,
    entry: Option<Box<Entry>>,
}

impl Record {
    /// Of a request that has come now.
    pub(super) fn new(log: &Arc<AccessLog>, client: IpAddr, head: &Head) -> Self {
        Self::of(log, client, head.method.to_string(), head.uri.to_string())
    }

    /// Of what is no request, and is answered with this status.
    pub(super) fn malformed(log: &Arc<AccessLog>, client: IpAddr, status: StatusCode) -> Self {
        let mut record = Self::of(log, client, String::new(), String::new());
        record.note(|entry| (entry.status, entry.end) = (status.as_u16(), Why::of(status)));
        record
    }

    fn of(log: &Arc<AccessLog>, client: IpAddr, method: String, target: String) -> Self {
        let entry = Entry {
            at: SystemTime::now(),
            client,
            method,
            target,
            status: 0,
            bytes: 0,
            wait: Duration::ZERO,
            upstream: None,
            upstream_time: Duration::ZERO,
            retries: 0,
            // Where nothing else is said.
            end: Why::Client,
        };
        Self { log: Arc::clone(log), entry: Some(Box::new(entry)) }
    }

    pub(super) fn note(&mut self, note: impl FnOnce(&mut Entry)) {
        if let Some(entry) = &mut self.entry {
            note(entry);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.log.write(entry);
        }
    }
}

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Answered,
    /// Nobody had a place for it in time.
    Refused,
    /// The client has gone, or has sent what is no request.
    Client,
    /// The upstream has sent no whole reply.
    Upstream,
    /// Something took too long.
    Timeout,
}

impl Why {
    /// Why a request ended that was answered in place of its upstream.
    pub(super) fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::SERVICE_UNAVAILABLE => Self::Refused,
            StatusCode::BAD_GATEWAY => Self::Upstream,
            StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => Self::Timeout,
            _ => Self::Client,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Timeout => "timeout",
        }
    }
}

impl AccessLog {
    /// Appends to this file, and counts lines that cannot be written.
    pub(in crate::balance) fn open(path: &Path, dropped: Arc<AtomicU64>) -> io::Result<Self> {
        let file = LogFile::open(path)?;
        let (sender, receiver) = bounded(WAITING);
        let lost = Arc::clone(&dropped);
        thread::Builder::new().name("access-log".into()).spawn(move || write_all(&receiver, file, &lost))?;
        Ok(Self { sender, dropped })
    }

    fn write(&self, entry: Box<Entry>) {
        if self.sender.try_send(Job::Write(entry)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Opens what it is to append to next. It may have the name of the file before: that has been moved then.
    pub(in crate::balance) fn next(self: &Arc<Self>, path: &Path) -> io::Result<Next> {
        Ok(Next::Same(Arc::clone(self), LogFile::open(path)?))
    }

    /// Waits until all is written, for this time at most.
    pub(in crate::balance) fn flush(&self, most: Duration) {
        let (done, waits) = bounded(1);
        if self.sender.send_timeout(Job::Flush(done), most).is_ok() {
            // Where the disk is stuck, nothing more can be done.
            let _ = waits.recv_timeout(most);
        }
    }
}

/// Lines that are written at once, where so many are there.
const BATCH: usize = 64 * 1024;

fn write_all(jobs: &Receiver<Job>, mut file: LogFile, lost: &AtomicU64) {
    let mut text = String::new();
    for job in jobs {
        let mut next = None;
        let mut done = None;
        match job {
            Job::Write(entry) => entry.append_to(&mut text),
            Job::GoOnIn(file) => next = Some(file),
            Job::Flush(waits) => done = Some(waits),
        }
        if next.is_some() || done.is_some() || jobs.is_empty() || text.len() > BATCH {
            lost.fetch_add(file.append(&text), Relaxed);
            text.clear();
        }
        file = next.unwrap_or(file);
        if let Some(done) = done {
            let _ = done.send(());
        }
    }
}

impl Entry {
    fn append_to(&self, line: &mut String) {
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        // Writing to a string does not fail.
        let _ = write!(
            line,
            "{{\"time\":{}.{:06},\"client\":\"{}\"",
            at.as_secs(),
            at.subsec_micros(),
            self.client
        );
        let _ = write!(line, ",\"method\":{},\"target\":{}", json(&self.method), json(&self.target));
        let _ = write!(line, ",\"status\":{},\"bytes\":{}", self.status, self.bytes);
        let _ = write!(line, ",\"wait_us\":{}", self.wait.as_micros());
        match &self.upstream {
            Some(name) => {
                let _ = write!(line, ",\"upstream\":{}", json(name));
            }
            None => line.push_str(",\"upstream\":null"),
        }
        let _ = write!(line, ",\"upstream_us\":{}", self.upstream_time.as_micros());
        let _ = writeln!(line, ",\"retries\":{},\"end\":\"{}\"}}", self.retries, self.end.name());
    }
}

/// A string of JSON (RFC 8259, section 7).
fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Read, os::unix::fs::OpenOptionsExt};

    use rustix::pipe::PipeFlags;

    use super::*;

    #[test]
    fn what_comes_after_a_rotation_goes_into_the_new_file() {
        let place = std::env::temp_dir().join(format!("overfall-rotated-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let (path, moved) = (place.join("log"), place.join("log.1"));
        let log = Arc::new(AccessLog::open(&path, Arc::default()).unwrap());
        let written = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
        let write = || drop(Record::malformed(&log, "::1".parse().unwrap(), StatusCode::BAD_REQUEST));
        write();
        std::fs::rename(&path, &moved).unwrap();
        write();
        let long = Duration::from_secs(30);
        assert!(log.next(&path).unwrap().begin(long).is_some());
        write();
        log.flush(long);
        assert_eq!((written(&moved), written(&path)), (2, 1));
        assert!(log.next(&place).is_err());
        write();
        log.flush(long);
        assert_eq!(written(&path), 2);
        std::fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn a_pipe_is_not_waited_for_until_somebody_reads_it() {
        let pipe = std::env::temp_dir().join(format!("overfall-access-pipe-{}", std::process::id()));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let error = AccessLog::open(&pipe, Arc::default()).unwrap_err();
        assert_eq!(error.to_string(), "it is no file, nor a pipe that somebody reads");
        // Who reads it and writes it waits for nobody.
        let reader = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        let log = Arc::new(AccessLog::open(&pipe, Arc::default()).unwrap());
        drop(Record::malformed(&log, "::1".parse().unwrap(), StatusCode::BAD_REQUEST));
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(reader), &mut line).unwrap();
        assert!(line.contains("\"status\":400"), "{line}");
        std::fs::remove_file(&pipe).unwrap();
    }

    #[test]
    fn what_the_reader_of_a_pipe_does_not_take_is_counted_and_holds_up_nothing() {
        let place = std::env::temp_dir().join(format!("overfall-stuck-pipe-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let (path, other) = (place.join("pipe"), place.join("log"));
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut reader = OpenOptions::new();
        reader.read(true).custom_flags(PipeFlags::NONBLOCK.bits().cast_signed());
        let mut reader = reader.open(&path).unwrap();
        let mut read = || {
            let mut text = Vec::new();
            // It has an end that is open, so that nothing more is an error.
            assert!(reader.read_to_end(&mut text).is_err());
            String::from_utf8(text).unwrap()
        };
        let (dropped, long) = (Arc::default(), Duration::from_secs(30));
        let log = Arc::new(AccessLog::open(&path, Arc::clone(&dropped)).unwrap());
        let write = || drop(Record::malformed(&log, "::1".parse().unwrap(), StatusCode::BAD_REQUEST));
        let is_whole = |line: &&str| line.starts_with('{') && line.ends_with('}');
        // More than the pipe holds.
        (0..2000).for_each(|_| write());
        log.flush(long);
        let lost = dropped.load(Relaxed);
        let mut text = read();
        assert!(lost > 0);
        assert_eq!(text.lines().filter(is_whole).count() as u64 + lost, 2000);
        // The next one is on a line of its own.
        write();
        log.flush(long);
        text += &read();
        assert_eq!(text.lines().filter(is_whole).count() as u64 + lost, 2001);
        // It goes on elsewhere, whatever the reader does.
        (0..2000).for_each(|_| write());
        assert!(log.next(&other).unwrap().begin(long).is_some());
        write();
        log.flush(long);
        assert_eq!(std::fs::read_to_string(&other).unwrap().lines().count(), 1);
        std::fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn a_line_is_one_object_whatever_is_asked_for() {
        let entry = Entry {
            at: UNIX_EPOCH + Duration::from_micros(1_500_000),
            client: "::1".parse().unwrap(),
            method: "GET".into(),
            target: "/a?\"b\\\u{1}".into(),
            status: 200,
            bytes: 5,
            wait: Duration::from_micros(70),
            upstream: Some("a:1".into()),
            upstream_time: Duration::from_millis(2),
            retries: 0,
            end: Why::Answered,
        };
        let mut line = String::new();
        entry.append_to(&mut line);
        assert_eq!(
            line,
            "{\"time\":1.500000,\"client\":\"::1\",\"method\":\"GET\",\"target\":\"/a?\\\"b\\\\\\u0001\",\"status\":200,\
             \"bytes\":5,\"wait_us\":70,\"upstream\":\"a:1\",\"upstream_us\":2000,\"retries\":0,\"end\":\"answered\"}\n"
        );
    }
}
