//! Whether an address is one at which we listen ourselves. It knows no upstreams.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Whether a listener would get what is sent to this address.
pub(super) fn is_own(addr: SocketAddr, listeners: &[SocketAddr]) -> bool {
    // With its zone, where it has one.
    let mut place = addr;
    place.set_port(0);
    let here = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind(place).is_ok();
    let ip = addr.ip().to_canonical();
    listeners.iter().filter(|own| own.port() == addr.port()).any(|own| {
        let own_ip = own.ip().to_canonical();
        own_ip == ip || (own_ip.is_unspecified() && here(ip)) || (ip.is_unspecified() && own_ip.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_gets_what_is_sent_to_one_of_this_machine() {
        for (addr, listener, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:81", "127.0.0.1:80", false),
            ("127.0.0.2:80", "127.0.0.1:80", false),
            ("127.0.0.2:80", "0.0.0.0:80", true),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
            ("192.0.2.1:80", "0.0.0.0:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
        ] {
            let listeners = [listener.parse().unwrap()];
            assert_eq!(is_own(addr.parse().unwrap(), &listeners), expected, "{addr} {listener}");
        }
    }
}
