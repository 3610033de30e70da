//! How a response is sent: its head, and with it a small body. It does not know the request, nor whether the
//! connection is kept: it is told.

use std::io::{self, Write};

use http::{StatusCode, header::UPGRADE};

use super::{
    codec::{fields::lists, framing::Framing, write},
    request::Request,
    response::{Body, Response},
    sending::Sending,
    upgrade::Upgrade,
};
use crate::session::connection::Connection;

/// A body up to this size is sent together with its head.
const SMALL: usize = 64 * 1024;

/// How a response is to be sent.
pub(super) struct How {
    pub(super) http_11: bool,
    pub(super) head_only: bool,
    /// Another request may follow.
    pub(super) keep: bool,
}

/// What follows on the head.
pub(super) enum Rest {
    Nothing,
    Body(Sending),
    Upgrade(Box<dyn Upgrade>),
}

impl Response {
    /// Writes the head, and the body where that is small, and gives what follows.
    pub(super) fn send(self, connection: &mut Connection<'_>, how: How) -> io::Result<Rest> {
        let bodiless = how.head_only || has_no_body(self.status);
        let small = match &self.body {
            Body::Bytes(bytes) if !bodiless && bytes.len() <= SMALL => &bytes[..],
            _ => &[],
        };
        let mut out = Vec::with_capacity(256 + small.len());
        self.write_head(&mut out, &how, true);
        out.extend_from_slice(small);
        connection.write_all(&out)?;
        connection.context().counters.count_answer(self.status.as_u16());
        Ok(match self.body {
            Body::Upgrade(upgrade) => Rest::Upgrade(upgrade),
            _ if bodiless => Rest::Nothing,
            Body::Bytes(bytes) if bytes.len() <= SMALL => Rest::Nothing,
            Body::Bytes(bytes) => Rest::Body(Sending::Bytes(bytes)),
            Body::Later(None, sending) if how.http_11 => Rest::Body(sending.chunked()),
            Body::Later(length, sending) => Rest::Body(sending.of_length(length)),
        })
    }

    /// As bytes, to be sent at any time to a connection that is closed after it.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_head(&mut out, &How { http_11: true, head_only: false, keep: false }, false);
        out.extend_from_slice(self.body().unwrap_or_default());
        out
    }

    fn write_head(&self, out: &mut Vec<u8>, how: &How, dated: bool) {
        write::status_line(out, self.status);
        for (name, value) in &self.headers {
            write::field(out, name, value.as_bytes());
        }
        if dated {
            write::date(out);
        }
        write::framing(out, self.framing(how.http_11));
        write::connection(out, how.keep, how.http_11, &self.options);
        write::end(out);
    }

    /// What its head says of the end of its body (RFC 9110, sections 8.6 and 15.3.6).
    fn framing(&self, http_11: bool) -> Option<Framing> {
        match &self.body {
            Body::Upgrade(_) => None,
            _ if self.status == StatusCode::NO_CONTENT => None,
            _ if self.status == StatusCode::RESET_CONTENT => Some(Framing::Empty),
            Body::Bytes(bytes) if bytes.is_empty() && self.status == StatusCode::NOT_MODIFIED => None,
            Body::Bytes(bytes) => Some(Framing::Length(bytes.len() as u64)),
            Body::Later(Some(length), _) => Some(Framing::Length(*length)),
            Body::Later(None, _) if http_11 => Some(Framing::Chunked),
            Body::Later(None, _) => None,
        }
    }

    /// Whether its end is told by closing the connection alone.
    pub(super) fn ends_by_closing(&self, http_11: bool) -> bool {
        !http_11 && matches!(self.body, Body::Later(None, _)) && !is_empty(self.status)
    }

    /// Whether it is an upgrade to a protocol that the client names.
    pub(super) fn is_asked_for_by(&self, request: &Request<'_>) -> bool {
        let Some(protocol) = self.header_value(UPGRADE.as_str()).filter(|_| self.is_upgrade()) else {
            return false;
        };
        request.headers().get_all(UPGRADE).iter().any(|named| lists(named.as_bytes(), protocol))
    }

    /// An upgrade that its client did not ask for is none.
    pub(super) fn or_upgrade_required(self, may_upgrade: bool) -> Self {
        if may_upgrade || !self.is_upgrade() {
            return self;
        }
        let protocol = self.headers.into_iter().filter(|(name, _)| *name == UPGRADE);
        let refused = Self::from(StatusCode::UPGRADE_REQUIRED);
        protocol.fold(refused, |response, (name, value)| response.header(name, value))
    }

    pub(super) fn is_upgrade(&self) -> bool {
        matches!(self.body, Body::Upgrade(_))
    }

    pub(super) fn wants_close(&self) -> bool {
        self.close
    }
}

/// Whether a response with this status is sent without a body, whatever that is (RFC 9110, section 6.4.1).
pub(crate) fn has_no_body(status: StatusCode) -> bool {
    is_empty(status) || status == StatusCode::NOT_MODIFIED
}

/// Whether this status says that there is no content.
fn is_empty(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT)
}
