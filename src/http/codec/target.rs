//! What a request is for: its target and its host, held to the grammar of RFC 3986 and RFC 9112, section
//! 3.2. Two parties are not to read them differently, whatever a library forgives. It knows no
//! other field.

use http::Method;

/// Whether the target has a form that this method may have, and agrees with the host where it names one.
pub(super) fn is_valid(method: &Method, target: &str, host: Option<&[u8]>) -> bool {
    if target == "*" {
        return *method == Method::OPTIONS;
    }
    if target.starts_with('/') {
        return is_path_and_query(target);
    }
    let Some((scheme, authority, path)) = split(target) else { return false };
    let default_port = match &*scheme.to_ascii_lowercase() {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    // User information is not for the wire (RFC 9110, section 4.2.4), and hides where a request goes.
    let Some(named) = Authority::parse(authority.as_bytes()).filter(|named| !named.host.is_empty()) else {
        return false;
    };
    let same = |host: &[u8]| Authority::parse(host).is_some_and(|host| host.is_same(&named, default_port));
    is_path_and_query(path) && host.is_none_or(same)
}

/// The scheme, the authority and the rest of a target in absolute form; none of one in another form.
pub(crate) fn split(target: &str) -> Option<(&str, &str, &str)> {
    if target.starts_with('/') {
        return None;
    }
    let (scheme, rest) = target.split_once("://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    Some((scheme, authority, path))
}

/// Whether it is what `Host` may be: a host and perhaps a port, or nothing.
pub(super) fn is_host(value: &[u8]) -> bool {
    value.is_empty() || Authority::parse(value).is_some_and(|host| !host.host.is_empty())
}

struct Authority<'a> {
    host: &'a [u8],
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let host_end = match text.first() {
            Some(b'[') => text.iter().position(|&byte| byte == b']')? + 1,
            _ => text.iter().position(|&byte| byte == b':').unwrap_or(text.len()),
        };
        let (host, rest) = text.split_at(host_end);
        let port = match rest {
            // An empty port is none.
            [] | [b':'] => None,
            [b':', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => {
                Some(std::str::from_utf8(digits).ok()?.parse().ok()?)
            }
            _ => return None,
        };
        let is_valid = match host {
            [b'[', literal @ .., b']'] => is_ip_literal(literal),
            name => is_encoded(name) && name.iter().all(|&byte| is_name(byte) || byte == b'%'),
        };
        is_valid.then_some(Self { host, port })
    }

    fn is_same(&self, other: &Self, default_port: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

/// An address of IPv6, or of a version to come; zones are for this machine alone.
fn is_ip_literal(literal: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(literal) else { return false };
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return true;
    }
    let future = text.strip_prefix(['v', 'V']).and_then(|rest| rest.split_once('.'));
    future.is_some_and(|(version, address)| {
        let is_address = |byte: u8| is_name(byte) || byte == b':';
        !version.is_empty()
            && version.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !address.is_empty()
            && address.bytes().all(is_address)
    })
}

/// Unreserved characters and those that delimit within a part (RFC 3986, sections 2.2 and 2.3).
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

/// Whether each % stands before two hexadecimal digits.
fn is_encoded(text: &[u8]) -> bool {
    let mut parts = text.split(|&byte| byte == b'%');
    parts.next();
    parts.all(|part| part.len() >= 2 && part[..2].iter().all(u8::is_ascii_hexdigit))
}

/// A path and perhaps a query. No fragment, which is not for the wire, and no backslash in the path, which
/// some take for a slash. Some of what RFC 3986 has encoded, such as `|`, browsers send as it is.
fn is_path_and_query(text: &str) -> bool {
    let path = text.split('?').next().unwrap_or_default();
    is_encoded(text.as_bytes())
        && !path.contains('\\')
        && text.bytes().all(|byte| byte > b' ' && byte != 0x7f && !b"#\"<>".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_held_to_the_grammar() {
        for right in [
            "",
            "a",
            "A.b-c_d~",
            "127.0.0.1",
            "a:80",
            "a:",
            "a:65535",
            "[::1]",
            "[::1]:80",
            "%41",
            "a%2Fb",
            "[v1.a:b]",
            "xn--bcher-kva.example",
            "a,b;c=d!",
        ] {
            assert!(is_host(right.as_bytes()), "{right}");
        }
        for wrong in [
            ":",
            ":80",
            "a:x",
            "a:80:80",
            "a:-1",
            "a:65536",
            "a:+1",
            "[",
            "]",
            "[]",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:x",
            "[a]",
            "[::1%25lo]",
            "[127.0.0.1]",
            "%",
            "%4",
            "%zz",
            "u@a",
            "a/b",
            "a b",
            "a?b",
            "a#b",
            "a\\b",
            "[v.a]",
            "\u{e9}",
        ] {
            assert!(!is_host(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn targets_are_held_to_the_grammar_and_to_the_host() {
        let valid = |target: &str, host: &str| is_valid(&Method::GET, target, Some(host.as_bytes()));
        for (target, host) in [
            ("/", "a"),
            ("/a%20b?c=d|e&f={g}", "a"),
            ("/?a?b/\\", "a"),
            ("//a", "b"),
            ("/a:b@c", ""),
            ("http://a", "a"),
            ("http://A/", "a"),
            ("http://a:80/", "a"),
            ("https://a/", "a:443"),
            ("http://a?b", "a:"),
            ("HTTP://[::1]:8/", "[::1]:8"),
        ] {
            assert!(valid(target, host), "{target} {host}");
        }
        for (target, host) in [
            ("", "a"),
            ("*", "a"),
            ("a", "a"),
            ("/%", "a"),
            ("/%4", "a"),
            ("/%zz", "a"),
            ("/a#b", "a"),
            ("/a\\b", "a"),
            ("/<", "a"),
            ("http:///", ""),
            ("http://:80/", ":80"),
            ("http://a:x/", "a:x"),
            ("http://u@a/", "a"),
            ("+://a/", "a"),
            ("ftp://a/", "a"),
            ("http://a/", "b"),
            ("http://a:81/", "a"),
            ("http://a/", "a:81"),
            ("https://a/", "a:80"),
            ("http://a/", ""),
            ("http://a/%", "a"),
            ("http:/a", "a"),
            ("http://[::1/", "[::1"),
            ("http://a\\b/", "a"),
        ] {
            assert!(!valid(target, host), "{target} {host}");
        }
        assert!(is_valid(&Method::OPTIONS, "*", Some(b"a")));
        assert!(is_valid(&Method::GET, "http://a/", None));
    }
}
