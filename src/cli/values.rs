//! What the flags' values mean. It does not know which flag has them.

use std::{
    num::{IntErrorKind, ParseIntError},
    str::FromStr,
};

/// An address to listen on: `HOST:PORT`, and the host may be a name, or nothing for all addresses.
pub(super) fn address(text: &str) -> Result<String, String> {
    const SUCH_AS: &str = "such as 127.0.0.1:8888 or [::1]:8888, or :8888 for all addresses";
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text:?} is a port alone; give 127.0.0.1:{text}, or :{text} for all addresses"));
    }
    let (host, _) = host_and_port(text, SUCH_AS)?;
    if host.contains(':') && !host.starts_with('[') {
        return Err(format!("the host in {text:?} is an IPv6 address; give it in brackets, {SUCH_AS}"));
    }
    Ok(text.to_owned())
}

/// A target to dial: `HOST:PORT`. Whether the name has an address is seen when it is dialed.
pub(super) fn target(text: &str) -> Result<String, String> {
    const SUCH_AS: &str = "such as 127.0.0.1:8888 or [::1]:8888";
    let (host, port) = host_and_port(text, SUCH_AS)?;
    if host.is_empty() {
        return Err(format!("{text:?} has no host; give HOST:PORT, {SUCH_AS}"));
    }
    if host.contains(':') && !host.starts_with('[') {
        return Err(format!(
            "the host in {text:?} is an IPv6 address; give HOST:PORT with it in brackets, {SUCH_AS}"
        ));
    }
    if port == 0 {
        return Err(format!("the port in {text:?} is 0; give HOST:PORT with 1 to 65535, {SUCH_AS}"));
    }
    Ok(text.to_owned())
}

/// An address to listen on, as [`address`], for what is nobody's business: a port alone is one of 127.0.0.1.
pub(super) fn loopback_address(text: &str) -> Result<String, String> {
    const SUCH_AS: &str = "such as 9901 or :9901 for 127.0.0.1, or 0.0.0.0:9901 for all addresses";
    let port = text.strip_prefix(':').unwrap_or(text);
    let alone = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let whole = if alone { format!("127.0.0.1:{port}") } else { text.to_owned() };
    let (host, _) = host_and_port(&whole, SUCH_AS)?;
    if host.is_empty() {
        return Err(format!("{text:?} has no port; give HOST:PORT or a port, {SUCH_AS}"));
    }
    if host.contains(':') && !host.starts_with('[') {
        return Err(format!("the host in {text:?} is an IPv6 address; give it in brackets, {SUCH_AS}"));
    }
    Ok(whole)
}

fn host_and_port<'a>(text: &'a str, such_as: &str) -> Result<(&'a str, u16), String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.split('/').next().unwrap_or_default();
        return Err(format!(
            "{text:?} is a URL; give HOST:PORT without {scheme}:// and path, perhaps {rest}"
        ));
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(format!("{text:?} has no port; give HOST:PORT, {such_as}"));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("{text:?} has no port; give HOST:PORT, {such_as}"));
    };
    match port.parse() {
        // Digits alone: no sign.
        Ok(number) if port.bytes().all(|byte| byte.is_ascii_digit()) => Ok((host, number)),
        _ => Err(format!("{port:?} in {text:?} is no port; give HOST:PORT with 1 to 65535, {such_as}")),
    }
}

/// Text with the escapes `\r`, `\n`, `\t`, `\0`, `\\` and `\xHH`.
pub(super) fn text(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (byte, length) = unescape(escape).ok_or_else(|| {
            format!("\\{} is no escape; there are \\r \\n \\t \\0 \\\\ and \\xHH", first(escape))
        })?;
        bytes.push(byte);
        rest = &escape[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// The byte that an escape stands for and its length, without the backslash.
fn unescape(escape: &str) -> Option<(u8, usize)> {
    let byte = match escape.chars().next()? {
        'r' => b'\r',
        'n' => b'\n',
        't' => b'\t',
        '0' => 0,
        '\\' => b'\\',
        'x' => return Some((u8::from_str_radix(escape.get(1..3)?, 16).ok()?, 3)),
        _ => return None,
    };
    Some((byte, 1))
}

fn first(text: &str) -> &str {
    text.char_indices().nth(1).map_or(text, |(end, _)| &text[..end])
}

/// A whole number of something; what it may be is checked where it is used.
pub(super) fn whole<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => "it is too large; give a smaller number".into(),
        _ => "give a whole number, such as 4".into(),
    })
}

/// A share, such as `3%` or `0.03`.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let value = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse::<f64>(),
    };
    value.ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "give 0% to 100%, or 0 to 1".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_understood_and_wrong_ones_are_named() {
        assert_eq!(text(r"GET / HTTP/1.1\r\n\x00\\é\t").unwrap(), "GET / HTTP/1.1\r\n\0\\é\t".as_bytes());
        assert_eq!(text("").unwrap(), b"");
        for wrong in [r"\q", r"\", r"\x1", r"\xg0", r"\é"] {
            assert!(text(wrong).unwrap_err().contains("is no escape"), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_whole_and_what_is_none_is_told_what_would_be() {
        assert_eq!(whole::<usize>("4").unwrap(), 4);
        for wrong in ["", "x", "4.5", "-1", "1MB", "0x10", " 4"] {
            assert_eq!(whole::<u32>(wrong).unwrap_err(), "give a whole number, such as 4", "{wrong}");
        }
        assert_eq!(whole::<u16>("65536").unwrap_err(), "it is too large; give a smaller number");
    }

    #[test]
    fn targets_have_a_host_and_a_port() {
        for right in ["127.0.0.1:1", "[::1]:8888", "no-such-name:80"] {
            assert_eq!(target(right).unwrap(), right);
        }
        for wrong in [
            "127.0.0.1",
            "8888",
            ":80",
            "host:",
            "host:0",
            "host:99999",
            "host:+1",
            "::1",
            "::1:80x",
            "::1:80",
            "",
        ] {
            assert!(target(wrong).unwrap_err().contains("HOST:PORT"), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_target_is_said() {
        for (wrong, said) in [
            ("http://localhost:80", "is a URL; give HOST:PORT without http://"),
            ("https://[::1]:443/a/b", "perhaps [::1]:443"),
            ("localhost:notaport", "\"notaport\" in \"localhost:notaport\" is no port"),
            ("localhost", "has no port"),
        ] {
            let sentence = target(wrong).unwrap_err();
            assert!(sentence.contains(said), "{sentence}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for right in ["127.0.0.1:0", "[::1]:8888", "localhost:80", ":8888", "[fe80::1%lo]:80"] {
            assert_eq!(address(right).unwrap(), right);
        }
        for wrong in ["127.0.0.1", "127.0.0.1:99999", "::1:", "::1:80", "a:b", ""] {
            assert!(address(wrong).unwrap_err().contains("such as"), "{wrong}");
        }
        let alone = address("8888").unwrap_err();
        assert_eq!(alone, "\"8888\" is a port alone; give 127.0.0.1:8888, or :8888 for all addresses");
    }

    #[test]
    fn a_port_alone_is_one_of_this_machine() {
        for (right, meant) in [
            ("9901", "127.0.0.1:9901"),
            (":9901", "127.0.0.1:9901"),
            ("0", "127.0.0.1:0"),
            ("0.0.0.0:9901", "0.0.0.0:9901"),
            ("[::1]:9901", "[::1]:9901"),
            ("localhost:9901", "localhost:9901"),
        ] {
            assert_eq!(loopback_address(right).unwrap(), meant);
        }
        for wrong in ["", ":", "99999", "127.0.0.1", "::1", "::1:80", "localhost:http"] {
            assert!(loopback_address(wrong).unwrap_err().contains("such as 9901"), "{wrong}");
        }
    }
}
