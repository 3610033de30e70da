//! A request as the upstream gets it: written anew from what it means, so that it can be read in one way
//! alone. It knows the head as it came and what it is told of the client, not where it is sent.
//!
//! Fields keep their order, case and number. What is for one connection alone is dropped, and so are
//! trailers, whatever `TE` says: the fields that announce them are dropped as well, in both directions.

use std::{io::Write, net::IpAddr};

use http::Method;

use crate::http::codec::{
    fields::Field,
    framing::Framing,
    head::{self, Head},
    hops::{Hops, begins, is_named},
    target, write,
};

/// What is known of a request beside its head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forwarded<'a> {
    pub(super) client: IpAddr,
    /// What it came over, such as `http`.
    pub(super) proto: &'a str,
    /// What the client says of those before it is true.
    pub(super) trusted: bool,
    /// When it came, in microseconds since the epoch.
    pub(super) arrived_us: u64,
    /// Names with `_` are passed on, which some take for `-`.
    pub(super) keep_underscores: bool,
    /// `Expect: 100-continue` is passed on where the client sent it.
    pub(super) pass_expect: bool,
    /// An upgrade is passed on where the client asks for one.
    pub(super) pass_upgrade: bool,
    /// How its body goes on: as it came, or with its length where all of it has been gathered.
    pub(super) framing: Framing,
    /// The host that a request is for that names none, as one of HTTP/1.0 may.
    pub(super) host: &'a str,
}

/// Whether the client asks for another protocol that can be passed on. One that is HTTP again, as `h2c`,
/// would lead past everything that looks at requests.
pub(super) fn asks_for_upgrade(text: &[u8], head: &Head) -> bool {
    head.upgrade
        && head::read(text, |_, fields| {
            let mut upgrades = fields.iter().filter(|field| is_named(field.name, "upgrade"));
            upgrades.all(|field| field.value.split(|&byte| byte == b',').all(is_other_protocol))
        })
        .unwrap_or(false)
}

fn is_other_protocol(name: &[u8]) -> bool {
    let name = name.trim_ascii().to_ascii_lowercase();
    !name.starts_with(b"h2") && !name.starts_with(b"http")
}

/// Appends the head as the upstream gets it. `text` is the head as it came, and has been parsed.
pub(super) fn write(out: &mut Vec<u8>, text: &[u8], head: &Head, forwarded: &Forwarded<'_>) {
    let upgrade = forwarded.pass_upgrade && asks_for_upgrade(text, head);
    head::read(text, |target, fields| {
        let written = Written { head, forwarded, fields, upgrade };
        let host = written.request_line(out, target);
        written.passed_on(out);
        written.added(out, host);
        written.body(out);
    });
    write::end(out);
}

/// A head that is being written.
struct Written<'a> {
    head: &'a Head,
    forwarded: &'a Forwarded<'a>,
    fields: &'a [Field<'a>],
    upgrade: bool,
}

impl<'a> Written<'a> {
    /// The first line and the host, which the target names before the field does (RFC 9112, section 3.2.2).
    /// The host, where the client named one.
    fn request_line(&self, out: &mut Vec<u8>, target: &'a str) -> Option<&'a [u8]> {
        let absolute = target::split(target);
        let host = absolute.map(|(_, authority, _)| authority.as_bytes()).or_else(|| self.first("host"));
        push(out, &[self.head.method.as_str().as_bytes(), b" "]);
        match absolute {
            None => push(out, &[target.as_bytes()]),
            Some((_, _, "")) if self.head.method == Method::OPTIONS => push(out, &[b"*"]),
            Some((_, _, path)) if path.starts_with('/') => push(out, &[path.as_bytes()]),
            Some((_, _, path)) => push(out, &[b"/", path.as_bytes()]),
        }
        let named = host.unwrap_or(self.forwarded.host.as_bytes());
        push(out, &[b" HTTP/1.1\r\nHost: ", named, b"\r\n"]);
        host
    }

    /// The client's own fields.
    fn passed_on(&self, out: &mut Vec<u8>) {
        let hops = Hops::new(self.fields);
        for field in self.fields {
            if (!hops.has(field.name) && self.is_passed_on(field.name))
                || (self.upgrade && field.name.eq_ignore_ascii_case("upgrade"))
            {
                line(out, field.name, field.value);
            }
        }
    }

    fn is_passed_on(&self, name: &str) -> bool {
        let is = |known: &&str| is_named(name, known);
        if name.contains('_') && !self.forwarded.keep_underscores {
            return false;
        }
        // What is written here is not taken from the client, in whatever guise.
        if ["host", "expect", "x-forwarded-for"].iter().any(is) {
            return false;
        }
        let says_of_others =
            begins(name, "x-forwarded-") || ["forwarded", "x-real-ip", "x-request-start"].iter().any(is);
        !says_of_others || (self.forwarded.trusted && !name.contains('_'))
    }

    /// What is said of the client, and of the way that the request took.
    fn added(&self, out: &mut Vec<u8>, host: Option<&[u8]>) {
        let Forwarded { client, proto, trusted, arrived_us, pass_expect, .. } = *self.forwarded;
        let said = |name: &str| trusted && self.first(name).is_some();
        out.extend_from_slice(b"X-Forwarded-For: ");
        for field in self.fields.iter().filter(|field| trusted && is(field, "x-forwarded-for")) {
            if !field.value.is_empty() {
                push(out, &[field.value, b", "]);
            }
        }
        // Writing to a vector does not fail.
        let _ = write!(out, "{}\r\n", client.to_canonical());
        if !said("x-forwarded-proto") {
            line(out, "X-Forwarded-Proto", proto.as_bytes());
        }
        if let Some(host) = host.filter(|host| !host.is_empty() && !said("x-forwarded-host")) {
            line(out, "X-Forwarded-Host", host);
        }
        line(out, "Via", if self.head.http_11 { b"1.1 overfall" } else { b"1.0 overfall" });
        if !said("x-request-start") {
            let _ = write!(out, "X-Request-Start: t={arrived_us}\r\n");
        }
        if self.head.expects_continue && pass_expect {
            line(out, "Expect", b"100-continue");
        }
        if self.upgrade {
            write::connection(out, true, true, b"upgrade");
        }
    }

    /// How the body ends. An empty one is spoken of only where the client did so and one is usual.
    fn body(&self, out: &mut Vec<u8>) {
        let framing = self.forwarded.framing;
        if framing.length() != Some(0) {
            return write::framing(out, Some(framing));
        }
        let usual = [Method::POST, Method::PUT, Method::PATCH].contains(&self.head.method);
        let spoken_of = self.first("content-length").is_some() || self.head.framing != Framing::Empty;
        if usual && spoken_of {
            write::framing(out, Some(Framing::Empty));
        }
    }

    /// The value of the first field of this name.
    fn first(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.iter().find(|field| is(field, name)).map(|field| field.value)
    }
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
