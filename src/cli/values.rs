//! What the flags' values mean.

use std::net::ToSocketAddrs;

/// An address to listen on: `HOST:PORT`, and the host may be a name.
pub(super) fn address(text: &str) -> Result<String, String> {
    match text.to_socket_addrs() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => {
            Err(format!("{error}; give HOST:PORT, such as 127.0.0.1:8888 or [::1]:8888 or localhost:8888"))
        }
    }
}

/// A target to dial: `HOST:PORT`. Whether the name has an address is seen when it is dialed.
pub(super) fn target(text: &str) -> Result<String, String> {
    let port =
        text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(1..)) if text.parse::<std::net::IpAddr>().is_err() => Ok(text.to_owned()),
        _ => Err(format!("{text:?} has no port; give HOST:PORT, such as 127.0.0.1:8888 or [::1]:8888")),
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
    fn targets_have_a_host_and_a_port() {
        for right in ["127.0.0.1:1", "[::1]:8888", "no-such-name:80"] {
            assert_eq!(target(right).unwrap(), right);
        }
        for wrong in ["127.0.0.1", "8888", ":80", "host:", "host:0", "host:99999", "::1", ""] {
            assert!(target(wrong).unwrap_err().contains("HOST:PORT"), "{wrong}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for right in ["127.0.0.1:0", "[::1]:8888", "localhost:80"] {
            assert_eq!(address(right).unwrap(), right);
        }
        for wrong in ["127.0.0.1", "8888", "127.0.0.1:99999", "::1:", ""] {
            assert!(address(wrong).unwrap_err().contains("HOST:PORT"), "{wrong}");
        }
    }
}
