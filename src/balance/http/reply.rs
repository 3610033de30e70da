//! A reply as the client gets it: written anew from what it means, so that it can be read in one way alone.
//! It knows the head as it came and what it is told of the client, not the upstream.

use http::StatusCode;

use crate::http::codec::{
    fields::Field,
    framing::Framing,
    hops::Hops,
    reply::{self, ReplyHead},
    write,
};

/// What is known of the client that gets the reply.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recipient {
    /// It speaks HTTP/1.1, else 1.0.
    pub(super) http_11: bool,
    /// Another request may follow. Where the end of the reply is that of the connection none does.
    pub(super) keep: bool,
}

/// How the body goes out; none where it ends with the connection, which only a client of HTTP/1.0 needs.
pub(super) fn framing(head: &ReplyHead, http_11: bool) -> Option<Framing> {
    match head.framing {
        Some(known @ (Framing::Empty | Framing::Length(_))) => Some(known),
        Some(Framing::Chunked) | None => http_11.then_some(Framing::Chunked),
    }
}

/// Whether the client may get it: what is informational is for HTTP/1.1 alone (RFC 9110, section 15.2).
pub(super) fn is_for(head: &ReplyHead, http_11: bool) -> bool {
    http_11 || !head.status.is_informational()
}

/// Appends the head as the client gets it. `text` is the head as it came, and has been parsed.
pub(super) fn write(out: &mut Vec<u8>, text: &[u8], head: &ReplyHead, to: Recipient) {
    reply::read(text, |reason, fields| {
        status_line(out, head.status, reason);
        passed_on(out, head, fields);
        let via: &[u8] = if head.http_11 { b"1.1 overfall" } else { b"1.0 overfall" };
        line(out, "Via", via);
        if !head.status.is_informational() && !fields.iter().any(|field| is(field, "date")) {
            write::date(out);
        }
    });
    write::framing(out, described(head, to.http_11));
    connection(out, head, to);
    write::end(out);
}

/// With the upstream's own reason, where that can be printed.
fn status_line(out: &mut Vec<u8>, status: StatusCode, reason: &str) {
    let reason = reason.trim();
    if reason.is_empty() || Some(reason) == status.canonical_reason() {
        return write::status_line(out, status);
    }
    push(out, &[b"HTTP/1.1 ", status.as_str().as_bytes(), b" ", reason.as_bytes(), b"\r\n"]);
}

/// The upstream's own fields.
fn passed_on(out: &mut Vec<u8>, head: &ReplyHead, fields: &[Field<'_>]) {
    let hops = Hops::new(fields);
    for field in fields {
        if !hops.has(field.name) || (names_protocols(head) && is(field, "upgrade")) {
            line(out, field.name, field.value);
        }
    }
}

/// Whether what `Upgrade` names is for the client: it is what follows, or what it has to ask for.
fn names_protocols(head: &ReplyHead) -> bool {
    head.upgrade || head.status == StatusCode::UPGRADE_REQUIRED
}

/// What the head says of its body, or of one that does not follow (RFC 9110, section 8.6).
fn described(head: &ReplyHead, http_11: bool) -> Option<Framing> {
    match head.status {
        status if status.is_informational() || status == StatusCode::NO_CONTENT => None,
        StatusCode::RESET_CONTENT => Some(Framing::Empty),
        status if head.to_head || status == StatusCode::NOT_MODIFIED => {
            head.named_length.map(Framing::Length)
        }
        _ => framing(head, http_11),
    }
}

fn connection(out: &mut Vec<u8>, head: &ReplyHead, to: Recipient) {
    let upgrade: &[u8] = if names_protocols(head) { b"upgrade" } else { b"" };
    let keep = to.keep && framing(head, to.http_11).is_some();
    // What is informational says nothing of the connection, but what follows it does.
    let silent = head.status.is_informational();
    write::connection(out, keep || silent, to.http_11 || silent, upgrade);
}

fn is(field: &Field<'_>, name: &str) -> bool {
    field.name.eq_ignore_ascii_case(name)
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    push(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
}

fn push(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}
