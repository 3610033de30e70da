//! One request on its way to an upstream, and its reply on the way back: what is known of it while its
//! connection is parked. It knows the order of the steps, not what is done in them.

use std::{fmt, mem, sync::Arc, time::Instant};

use http::{Method, StatusCode};

use super::{
    access::{Entry, Record},
    body::Passage,
};
use crate::{
    balance::{
        flow::Bulk,
        live::InForce,
        tried::Tried,
        upstreams::{InLine, Lease},
    },
    http::{codec::head::Head, gathered::Gathered},
    net::wire::Wire,
    overload::Source,
};

/// What a client asks for, as far as it decides on what follows.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) http_11: bool,
    /// The client would send another request on its connection.
    pub(super) persistent: bool,
    /// It asks for another protocol.
    pub(super) upgrade: bool,
    /// It is the first on its connection.
    pub(super) is_first: bool,
}

impl Asked {
    pub(super) fn new(head: &Head, upgrade: bool, is_first: bool) -> Self {
        Self {
            method: head.method.clone(),
            http_11: head.http_11,
            persistent: head.persistent,
            upgrade,
            is_first,
        }
    }

    pub(super) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// Whether it makes no difference when it is done twice (RFC 9110, section 9.2.2).
    pub(super) fn is_idempotent(&self) -> bool {
        self.method.is_idempotent()
    }
}

pub(super) struct Exchange {
    pub(super) asked: Asked,
    /// The settings that it began with.
    pub(super) in_force: Arc<InForce>,
    /// When the request came.
    pub(super) came: Instant,
    /// Whose request it is.
    pub(super) source: Source,
    /// The request as an upstream gets it: its head, and its body where that was gathered.
    pub(super) request: Request,
    /// The rest of its body, which passes through as it comes.
    pub(super) upload: Option<Upload>,
    pub(super) tried: Tried,
    /// It was tried again already, after it may have been begun.
    pub(super) is_retry: bool,
    /// Its client has gone: the upstream's place is kept until that is done, and nobody hears of it.
    pub(super) is_abandoned: bool,
    /// What the access log says of it, where there is one.
    pub(super) record: Option<Record>,
    pub(super) step: Step,
}

/// What an upstream is sent at first.
#[derive(Debug, Default)]
pub(super) struct Request {
    bytes: Vec<u8>,
    /// How much of it was given to the connection.
    sent: usize,
    /// What its body takes of the memory that all may have.
    _reserved: Option<Gathered>,
}

impl Request {
    pub(super) fn new(bytes: Vec<u8>, reserved: Option<Gathered>) -> Self {
        Self { bytes, sent: 0, _reserved: reserved }
    }

    /// Begins to send it from its beginning.
    pub(super) fn send_to(&mut self, wire: &mut Wire) {
        self.sent = 0;
        self.go_on(wire);
    }

    /// Sends as much as the upstream takes. Where it takes nothing any more, reading says so: there may be
    /// a reply.
    pub(super) fn go_on(&mut self, wire: &mut Wire) {
        while self.sent < self.bytes.len() && wire.is_flushed() {
            let rest = &self.bytes[self.sent..];
            let Ok(sent) = wire.send(rest) else {
                self.sent = self.bytes.len();
                return;
            };
            self.sent += sent + wire.keep(&rest[sent..]);
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn is_sent(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Forgets it, as it is not going to be sent again.
    pub(super) fn forget(&mut self) {
        if self.is_sent() {
            *self = Self::default();
        }
    }
}

/// A body that passes through.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) passage: Passage,
    /// So many bytes have come since then. The time in which the upstream took nothing does not count.
    pub(super) began: Instant,
    pub(super) bytes: u64,
    pub(super) is_stalled: bool,
    /// What moves them without a copy, where they are many.
    pub(super) bulk: Option<Bulk>,
}

/// How far it has come.
///
/// | step | next |
/// |---|---|
/// | placing | in line, connecting, serving; or the client is told no |
/// | in line | connecting, serving; or the client is told no |
/// | connecting | serving; placing, when that was in vain |
/// | serving | placing, when nothing can be done twice; or the end |
#[derive(Default)]
pub(super) enum Step {
    #[default]
    Placing,
    InLine(InLine),
    Connecting {
        lease: Lease,
    },
    Serving(Serving),
}

/// The upstream has the request, or is getting it.
pub(super) struct Serving {
    pub(super) lease: Lease,
    /// Its connection was used before.
    pub(super) is_reused: bool,
    pub(super) sent: Instant,
    /// What has come of the reply's head.
    pub(super) partial: Box<[u8]>,
    /// How many informational replies were passed on.
    pub(super) informational: u8,
    pub(super) reply: Option<Reply>,
    /// How far both had come when the time was set within which something must come.
    pub(super) progress: Option<Progress>,
    /// Bytes of the upload, and of the reply's body, that were counted.
    counted: (u64, u64),
}

/// What counts as progress: bytes that came of the client are none while they are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) uploaded: u64,
    pub(super) takes: bool,
    pub(super) received: Option<u64>,
}

impl Serving {
    pub(super) fn new(mut lease: Lease, is_reused: bool, sent: Instant) -> Self {
        // Until it is answered.
        lease.says_nothing();
        let partial = Box::default();
        Self {
            lease,
            is_reused,
            sent,
            partial,
            informational: 0,
            reply: None,
            progress: None,
            counted: (0, 0),
        }
    }

    /// Bytes of the upload that have passed, and of the reply's body, once that has begun.
    pub(super) fn passed(&self, exchange: &Exchange) -> (u64, Option<u64>) {
        let uploaded = exchange.upload.as_ref().map_or(0, |upload| upload.bytes);
        (uploaded, self.reply.as_ref().map(|reply| reply.bytes))
    }

    /// Counts the bytes that have passed since it last did.
    pub(super) fn count_bytes(&mut self, exchange: &Exchange) {
        let (sent, received) = self.passed(exchange);
        let received = received.unwrap_or(0);
        let (sent_before, received_before) = mem::replace(&mut self.counted, (sent, received));
        let (sent, received) = (sent.saturating_sub(sent_before), received.saturating_sub(received_before));
        self.lease.upstream().moved(sent, received);
    }

    /// Whether it is worth reading to its end for nobody: then its place is kept until the upstream is done,
    /// which works on, whether its reply is read or not. One that is being sent has been worked on.
    pub(super) fn is_soon_over(&self) -> bool {
        self.reply.as_ref().is_none_or(|reply| reply.passage.is_short())
    }

    /// Whether nothing of a reply has come.
    pub(super) fn is_unanswered(&self) -> bool {
        self.reply.is_none() && self.partial.is_empty() && self.informational == 0
    }
}

/// A reply whose head was passed on.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// Bytes of its body, as they came.
    pub(super) bytes: u64,
    /// What moves them without a copy, where they are many.
    pub(super) bulk: Option<Bulk>,
    pub(super) passage: Passage,
    /// The client's connection outlives it.
    pub(super) keeps_client: bool,
    /// The upstream's connection outlives it, for so long where that is known.
    pub(super) keeps_upstream: bool,
    pub(super) closes_after: Option<std::time::Duration>,
}

impl Exchange {
    pub(super) fn take_step(&mut self) -> Step {
        mem::take(&mut self.step)
    }

    /// Notes what the access log is to say.
    pub(super) fn note(&mut self, note: impl FnOnce(&mut Entry, Instant)) {
        if let Some(record) = &mut self.record {
            record.note(|entry| note(entry, self.came));
        }
    }

    /// Whether it may be sent once more when its connection ends without a reply.
    pub(super) fn may_be_sent_again(&self) -> bool {
        self.asked.is_idempotent() && self.upload.is_none() && !self.is_retry && !self.is_abandoned
    }

    /// Whether all of the request has come.
    pub(super) fn has_come(&self) -> bool {
        self.upload.as_ref().is_none_or(|upload| upload.passage.is_complete())
    }

    /// Whether all of it was given to the upstream's connection.
    pub(super) fn is_passed_on(&self) -> bool {
        let bulk = self.upload.as_ref().and_then(|upload| upload.bulk.as_ref());
        self.has_come() && self.request.is_sent() && bulk.is_none_or(Bulk::is_empty)
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("asked", &self.asked).finish_non_exhaustive()
    }
}
