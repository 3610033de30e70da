//! Says in the PROXY protocol who a client is. It knows no sockets.

use std::net::{IpAddr, SocketAddr};

use ppp::v2::{self, Command, Protocol, Version};

use super::{Ends, ProxyVersion};

/// Says who the client is, or where there is none, that this side speaks for itself.
pub(crate) fn write(version: ProxyVersion, ends: Option<Ends>) -> Vec<u8> {
    let ends = ends.map(of_one_family);
    match version {
        ProxyVersion::V1 => match ends {
            None => b"PROXY UNKNOWN\r\n".to_vec(),
            Some(Ends { client, local }) => {
                let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
                let (from, to) = (client.ip(), local.ip());
                format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), local.port()).into_bytes()
            }
        },
        ProxyVersion::V2 => {
            let builder = match ends {
                None => v2::Builder::new(Version::Two | Command::Local, 0),
                Some(Ends { client, local }) => v2::Builder::with_addresses(
                    Version::Two | Command::Proxy,
                    Protocol::Stream,
                    (client, local),
                ),
            };
            // It fails only for what is longer than 64 KiB.
            builder.build().unwrap_or_default()
        }
    }
}

/// The protocol has one family for both ends.
fn of_one_family(Ends { client, local }: Ends) -> Ends {
    let plain = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
    let (client, local) = (plain(client), plain(local));
    if client.is_ipv4() == local.is_ipv4() {
        return Ends { client, local };
    }
    let wide = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port()),
        IpAddr::V6(_) => addr,
    };
    Ends { client: wide(client), local: wide(local) }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Preface, parse},
        *,
    };

    fn ends(client: &str, local: &str) -> Option<Ends> {
        Some(Ends { client: client.parse().unwrap(), local: local.parse().unwrap() })
    }

    #[test]
    fn what_is_written_is_understood() {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            for ends in [
                None,
                ends("192.0.2.1:5000", "192.0.2.2:80"),
                ends("[2001:db8::1]:5000", "[2001:db8::2]:443"),
            ] {
                let text = write(version, ends);
                assert_eq!(parse(&text), Preface::Whole(text.len(), ends), "{version:?}");
            }
            let mixed = write(version, ends("192.0.2.1:5000", "[2001:db8::2]:80"));
            let wide = ends("[::ffff:192.0.2.1]:5000", "[2001:db8::2]:80");
            assert_eq!(parse(&mixed), Preface::Whole(mixed.len(), wide));
            let mapped = write(version, ends("[::ffff:192.0.2.1]:5000", "[::ffff:192.0.2.2]:80"));
            let plain = ends("192.0.2.1:5000", "192.0.2.2:80");
            assert_eq!(parse(&mapped), Preface::Whole(mapped.len(), plain));
        }
    }
}
