//! One way from `HOST:PORT` to addresses.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
};

/// The address that this is, if it is no name: `ADDRESS:PORT`, one of IPv6 in brackets.
pub(crate) fn literal(text: &str) -> io::Result<Option<SocketAddr>> {
    match text.parse() {
        Ok(addr) => Ok(Some(addr)),
        // A zone by its name is looked up here.
        Err(_) if text.starts_with('[') => Ok(resolve(text)?.into_iter().next()),
        Err(_) => Ok(None),
    }
}

/// All addresses of `HOST:PORT`, in the order in which they are to be tried. The host is a name or an
/// address; one of IPv6 stands in brackets and may have a zone, by name or number: `[fe80::1%eth0]:80`
/// (RFC 4007, section 11).
pub(crate) fn resolve(text: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(addr) = text.parse() {
        return Ok(vec![addr]);
    }
    let in_brackets = text.strip_prefix('[').and_then(|rest| rest.split_once("]:"));
    let addrs = match in_brackets {
        Some((host, port)) => {
            let wrong = |_| io::Error::new(io::ErrorKind::InvalidInput, "invalid port value");
            (host, port.parse::<u16>().map_err(wrong)?).to_socket_addrs()?
        }
        None => text.to_socket_addrs()?,
    };
    Ok(addrs.collect())
}

/// Addresses to listen on, of which the first that can be had is meant: those of `HOST:PORT`, and for
/// `:PORT` all of this machine.
pub(crate) fn resolve_to_listen(text: &str) -> io::Result<Vec<SocketAddr>> {
    match text.strip_prefix(':') {
        // IPv6 takes IPv4 along, where there is any.
        Some(port) => {
            let all = ["[::]", "0.0.0.0"].map(|host| resolve(&format!("{host}:{port}")));
            let all: Vec<_> = all.into_iter().collect::<io::Result<_>>()?;
            Ok(all.concat())
        }
        None => resolve(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_is_never_looked_up() {
        for (text, is_literal) in
            [("127.0.0.1:1", true), ("[::1]:1", true), ("[fe80::1%lo]:1", true), ("localhost:1", false)]
        {
            assert_eq!(literal(text).unwrap().is_some(), is_literal, "{text}");
        }
        assert!(literal("[fe80::1%no-such-zone]:80").is_err());
    }

    #[test]
    fn zones_are_understood_by_name_and_number() {
        for text in ["[fe80::77%lo]:80", "[fe80::77%1]:80"] {
            let SocketAddr::V6(addr) = resolve(text).unwrap()[0] else { panic!("{text}") };
            assert_eq!((addr.ip().to_string().as_str(), addr.scope_id(), addr.port()), ("fe80::77", 1, 80));
        }
        assert_eq!(resolve("127.0.0.1:1").unwrap(), ["127.0.0.1:1".parse().unwrap()]);
        let all = resolve_to_listen(":80").unwrap();
        assert_eq!(all, ["[::]:80", "0.0.0.0:80"].map(|addr| addr.parse().unwrap()));
        for wrong in ["[fe80::77%no-such-zone]:80", "[::1]:99999", "[::1]:", "[::1", "::1:x"] {
            assert!(resolve(wrong).is_err(), "{wrong}");
        }
    }
}
