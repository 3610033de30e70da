//! Which fields are for one connection alone, and so are never passed on (RFC 9110, section 7.6.1). It does
//! not know whose head it is, nor what is written in their place.

use super::fields::{Field, elements, is};

/// Fields that are always so, whether `Connection` names them or not.
const ALWAYS: &[&str] =
    &["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "proxy"];

/// Beginnings of names that nobody may have dropped by naming them in `Connection`: who stands behind would
/// miss what he relies on.
const KEPT: &[&str] = &["host", "content-", "authorization", "cookie", "set-cookie", "x-forwarded-"];

/// What the `Connection` of a head says of its other fields.
pub(crate) struct Hops<'a> {
    fields: &'a [Field<'a>],
    /// Something is named that is not dropped anyway.
    names_others: bool,
}

impl<'a> Hops<'a> {
    pub(crate) fn new(fields: &'a [Field<'a>]) -> Self {
        let names_others = options(fields).any(|option| {
            let is = |known: &&str| option.eq_ignore_ascii_case(known.as_bytes());
            !["close", "keep-alive", "upgrade", "te"].iter().any(is)
        });
        Self { fields, names_others }
    }

    /// Whether the field is for this connection alone. A length and a coding are such here: both are written
    /// anew.
    pub(crate) fn has(&self, name: &str) -> bool {
        let is = |known: &&str| is_named(name, known);
        if ALWAYS.iter().any(is) || (begins(name, "proxy-") && !is_named(name, "proxy-status")) {
            return true;
        }
        self.names_others
            && !KEPT.iter().any(|kept| if kept.ends_with('-') { begins(name, kept) } else { is(kept) })
            && options(self.fields).any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// All that `Connection` lists.
fn options<'a>(fields: &'a [Field<'a>]) -> impl Iterator<Item = &'a [u8]> {
    let connection = fields.iter().filter(|field| is(field, "connection"));
    connection.flat_map(|field| elements(field.value))
}

/// Whether the name is this one, where `_` is taken for `-`, as WSGI and CGI do.
pub(crate) fn is_named(name: &str, known: &str) -> bool {
    name.len() == known.len() && begins(name, known)
}

/// Whether the name begins so, where `_` is taken for `-`.
pub(crate) fn begins(name: &str, known: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() >= known.len() && name.bytes().zip(known.bytes()).all(|(byte, known)| plain(byte) == known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_one_connection_is_known_by_its_name_or_by_being_named() {
        let fields = [
            Field { name: "connection", value: b"close, X-A,,content-type ,Host" },
            Field { name: "Connection", value: b"x-b, Cookie, Authorization, X-Forwarded-For, Upgrade" },
        ];
        let hops = Hops::new(&fields);
        for (name, has) in [
            ("Connection", true),
            ("KEEP-ALIVE", true),
            ("Te", true),
            ("Trailer", true),
            ("Transfer-Encoding", true),
            ("Transfer_Encoding", true),
            ("Content_Length", true),
            ("Upgrade", true),
            ("Proxy", true),
            ("Proxy-Connection", true),
            ("Proxy-Anything", true),
            ("Proxy-Status", false),
            ("x-a", true),
            ("X-B", true),
            ("X-C", false),
            ("Host", false),
            ("Content-Type", false),
            ("Cookie", false),
            ("Authorization", false),
            ("X-Forwarded-For", false),
        ] {
            assert_eq!(hops.has(name), has, "{name}");
        }
        assert!(!Hops::new(&[Field { name: "Connection", value: b"keep-alive" }]).has("X-A"));
        assert!(!Hops::new(&[]).has("X-A") && Hops::new(&[]).has("te"));
    }
}
