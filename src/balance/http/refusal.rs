//! What a client is told whose request gets no reply of an upstream. It knows no upstreams.

use std::io::{self, Write};

use http::{StatusCode, header};

use super::exchange::Asked;
use crate::{
    http::codec::{framing::Framing, write},
    session::connection::Connection,
};

/// Seconds after which a client is to try again: spread, so that not all come back at the same moment.
const RETRY_AFTER_S: [&[u8]; 3] = [b"1", b"2", b"3"];

/// Tells a client that its request is not answered, and why.
pub(super) fn refuse(
    connection: &mut Connection<'_>,
    asked: &Asked,
    status: StatusCode,
    keep: bool,
) -> io::Result<()> {
    let mut out = Vec::with_capacity(256);
    write(&mut out, status, keep, asked.http_11, asked.is_head(), true);
    connection.write_all(&out)?;
    connection.context().counters.count_answer(status.as_u16());
    Ok(())
}

/// What a client is told that is not let in, whatever it asks for, before the connection is closed.
pub(super) fn at_the_door() -> Vec<u8> {
    let mut out = Vec::new();
    // It may be sent at any time, so that it has no date.
    write(&mut out, StatusCode::SERVICE_UNAVAILABLE, false, true, false, false);
    out
}

fn write(out: &mut Vec<u8>, status: StatusCode, keep: bool, http_11: bool, head_only: bool, dated: bool) {
    let text = format!("{} {}\n", status.as_str(), status.canonical_reason().unwrap_or("Error"));
    write::status_line(out, status);
    write::field(out, &header::CONTENT_TYPE, b"text/plain; charset=utf-8");
    if status == StatusCode::SERVICE_UNAVAILABLE {
        write::field(out, &header::RETRY_AFTER, RETRY_AFTER_S[fastrand::usize(..RETRY_AFTER_S.len())]);
    }
    if dated {
        write::date(out);
    }
    write::framing(out, Some(Framing::Length(text.len() as u64)));
    write::connection(out, keep, http_11, b"");
    write::end(out);
    if !head_only {
        out.extend_from_slice(text.as_bytes());
    }
}
