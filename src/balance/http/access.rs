//! The access log: a line of JSON for each request, written by a thread of its own, so that no request
//! waits for a disk. It knows no connections.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Write},
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
    /// Says so when all that was sent before is written.
    Flush(Sender<()>),
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
    /// Appends to this file.
    pub(in crate::balance) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let (sender, receiver) = bounded(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        thread::Builder::new().name("access-log".into()).spawn(move || write_all(&receiver, file, &lost))?;
        Ok(Self { sender, dropped })
    }

    fn write(&self, entry: Box<Entry>) {
        if self.sender.try_send(Job::Write(entry)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Lines that could not be written.
    pub(in crate::balance) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
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

fn write_all(jobs: &Receiver<Job>, mut file: File, lost: &AtomicU64) {
    let (mut text, mut lines) = (String::new(), 0);
    for job in jobs {
        let done = match job {
            Job::Write(entry) => {
                entry.append_to(&mut text);
                lines += 1;
                None
            }
            Job::Flush(done) => Some(done),
        };
        if done.is_some() || jobs.is_empty() || text.len() > BATCH {
            // What a full disk does not take is lost, and the next is tried.
            if file.write_all(text.as_bytes()).is_err() {
                lost.fetch_add(lines, Relaxed);
            }
            text.clear();
            lines = 0;
        }
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
    use super::*;

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
