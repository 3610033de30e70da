//! How far a connection has come with its present request, which is what is kept of it while it is parked.
//! It knows the order of the stages, not what is done in them.

use std::{fmt, mem};

use super::{codec::head::empty_lines, large::PartialBody, sending::Sending, upgrade::Upgrade};
use crate::session::{connection::Connection, holds::HoldWaiter};

/// How far a connection has come with its present request.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the input that were looked at and were no whole request; no input has more.
    seen: u16,
    /// With so many it will be one, where that is known.
    whole_at: Option<u16>,
    /// An empty line was passed over.
    skipped: bool,
    /// The client that asks first was told to send its body.
    told: bool,
    stage: Stage,
}

#[derive(Debug, Default)]
pub(super) enum Stage {
    /// The request is gathered in the input.
    #[default]
    Request,
    /// Its body has to wait until fewer workers are held by bodies.
    Held(Box<HoldWaiter>),
    /// Its body is gathered in memory, since no worker may be held.
    Body(Box<PartialBody>),
    /// The response is under way.
    Reply(Box<Reply>),
    /// Another protocol is spoken.
    Upgraded(Box<Upgraded>),
}

/// Who speaks another protocol. (A box of its own, so that no other connection has to bear the second word.)
pub(super) struct Upgraded(pub(super) Box<dyn Upgrade>);

/// A response that is under way.
pub(super) struct Reply {
    pub(super) rest: Sending,
    /// Another request may follow.
    pub(super) keep: bool,
}

impl Progress {
    /// Leaves the stage that it is at: a request is next, unless it is said otherwise.
    pub(super) fn resume(&mut self) -> Stage {
        mem::take(&mut self.stage)
    }

    /// The request was found: from now on, what is noted of the input is about the next.
    pub(super) fn found_request(&mut self) {
        *self = Self::default();
    }

    /// It waits in line for leave to hold a worker.
    pub(super) fn awaits_hold(&mut self, waiter: Box<HoldWaiter>) {
        self.stage = Stage::Held(waiter);
    }

    /// More of its body has to come.
    pub(super) fn gathers_body(&mut self, body: PartialBody) {
        self.stage = Stage::Body(Box::new(body));
    }

    /// More of its response has to be sent.
    pub(super) fn replies(&mut self, reply: Box<Reply>) {
        self.stage = Stage::Reply(reply);
    }

    /// The connection is another handler's from now on.
    pub(super) fn is_upgraded(&mut self, upgraded: Box<Upgraded>) {
        self.stage = Stage::Upgraded(upgraded);
    }

    /// How much of the input is to be passed over. Empty lines before a request are (RFC 9112, section
    /// 2.2): one at once, which some clients send behind a body, and others when the request comes. By
    /// themselves they are no reason to give a client more time.
    pub(super) fn pass_over(&mut self, input: &[u8]) -> usize {
        let length = empty_lines(input);
        let is_first = length == input.len() && length <= 2 && !mem::replace(&mut self.skipped, true);
        if length == 0 || !(length < input.len() || is_first) {
            return 0;
        }
        self.seen = 0;
        length
    }

    /// Whether it is worth looking at the input as a whole, after which it was looked at: requests that
    /// come a byte at a time would else cost the square of their length.
    pub(super) fn may_be_whole(&mut self, input: &[u8]) -> bool {
        let seen = mem::replace(&mut self.seen, short(input.len()));
        match self.whole_at {
            Some(whole_at) => input.len() >= whole_at.into(),
            None => {
                seen == 0
                    || input.len() == Connection::INPUT_LIMIT
                    || input.get(seen.into()..).is_none_or(|new| new.contains(&b'\n'))
            }
        }
    }

    /// Says that the client that asks first was told to send its body.
    pub(crate) fn tell(&mut self) {
        // What has come is to be looked at once more, now that more is awaited.
        (self.told, self.seen) = (true, 0);
    }

    /// Whether it was.
    pub(crate) fn was_told(&self) -> bool {
        self.told
    }

    /// Notes with how much of the input the request will be whole, or that the input is full before.
    pub(super) fn whole_at(&mut self, length: Option<usize>) {
        self.whole_at = length.map(|length| short(length.min(Connection::INPUT_LIMIT)));
    }
}

/// A length of the input, or a part of it, in few bytes.
fn short(length: usize) -> u16 {
    const { assert!(Connection::INPUT_LIMIT <= u16::MAX as usize) };
    u16::try_from(length).unwrap_or(u16::MAX)
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").finish_non_exhaustive()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("keep", &self.keep).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::{
        super::{codec::framing::Framing, gathered::Gathered, receipt::Receipt},
        *,
    };

    const LIMIT: usize = Connection::INPUT_LIMIT;

    fn reply() -> Box<Reply> {
        Box::new(Reply { rest: Sending::Bytes(Bytes::new()), keep: true })
    }

    fn body() -> PartialBody {
        let gathered = Gathered::new(&Arc::default(), None).unwrap();
        PartialBody::new(Vec::new(), Receipt::new(Framing::Chunked), gathered)
    }

    /// The name of the stage that it goes on with.
    fn resumed(progress: &mut Progress) -> &'static str {
        match progress.resume() {
            Stage::Request => "request",
            Stage::Held(_) => "held",
            Stage::Body(_) => "body",
            Stage::Reply(_) => "reply",
            Stage::Upgraded(_) => "upgraded",
        }
    }

    #[test]
    fn a_stage_is_gone_on_with_once_and_a_request_is_next() {
        type Transition = fn(&mut Progress);
        let transitions: [(Transition, &str); 4] = [
            (|_| {}, "request"),
            (|progress| progress.gathers_body(body()), "body"),
            (|progress| progress.replies(reply()), "reply"),
            (Progress::found_request, "request"),
        ];
        for (before, _) in transitions {
            for (transition, stage) in transitions {
                let mut progress = Progress::default();
                before(&mut progress);
                progress.resume();
                transition(&mut progress);
                assert_eq!(resumed(&mut progress), stage);
                assert_eq!(resumed(&mut progress), "request");
            }
        }
    }

    #[test]
    fn empty_lines_are_passed_over_once_by_themselves_and_always_before_a_request() {
        // What comes to one connection in turn, and how much of it is passed over.
        let cases: [&[(&str, usize)]; 5] = [
            &[("GET", 0), ("\r\n", 2)],
            &[("\r\n", 2), ("\r\n", 0), ("\r\n\r\nGET", 4)],
            &[("\n", 1), ("\n", 0)],
            &[("\r\n\r\n", 0), ("\r\n\r\n\nGET", 5)],
            &[("\r", 0), ("\r\n", 2)],
        ];
        for inputs in cases {
            let mut progress = Progress::default();
            for (input, passed_over) in inputs {
                assert_eq!(progress.pass_over(input.as_bytes()), *passed_over, "{input:?} of {inputs:?}");
            }
        }
        let mut progress = Progress::default();
        assert_eq!(progress.pass_over(b"\r\n"), 2);
        progress.found_request();
        assert_eq!(progress.pass_over(b"\r\n"), 2);
    }

    #[test]
    fn an_input_is_looked_at_when_a_line_has_ended_or_the_length_is_there() {
        let full = "x".repeat(LIMIT);
        // With how much it is known to be whole, and what has come then, and whether it is worth a look.
        type Inputs<'a> = &'a [(&'a str, bool)];
        let cases: [(Option<usize>, Inputs<'_>); 5] = [
            (None, &[("G", true), ("GE", false), ("GET\n", true), ("GET\nH", false)]),
            (None, &[("G\n", true), ("G\n", false), ("G\nx\n", true)]),
            (None, &[("GET", true), (&full, true)]),
            (Some(4), &[("\n", false), ("\n\n\n", false), ("xxxx", true), ("xxxxx", true)]),
            (Some(usize::MAX), &[("\n", false), (&full, true)]),
        ];
        for (whole_at, inputs) in cases {
            let mut progress = Progress::default();
            progress.whole_at(whole_at);
            for (input, worth) in inputs {
                assert_eq!(progress.may_be_whole(input.as_bytes()), *worth, "{whole_at:?} {}", input.len());
            }
        }
    }
}
