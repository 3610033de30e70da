//! By which host the page and its figures may be asked for. A page of somebody else's may let its own name stand
//! for the address that admin listens at, and then reads what is here as if it were its own (DNS rebinding);
//! its name is in `Host` all the same. This does not know what is answered.

use std::net::{Ipv4Addr, Ipv6Addr};

use ::http::uri::Authority;

use crate::http::{Request, header};

/// Whether such a request may be for us: by an address, which nobody can let stand for another, by a name that
/// is this machine's everywhere (RFC 6761, section 6.3), or by that which we were told is ours. Browsers always
/// name a host; who names none is no page.
pub(super) fn is_ours(request: &Request<'_>, name: Option<&str>) -> bool {
    // A target that has a host has the same.
    let Some(field) = request.headers().get(header::HOST) else { return true };
    let authority = Authority::try_from(field.as_bytes());
    authority.is_ok_and(|authority| may_be(authority.host(), name))
}

fn may_be(host: &str, name: Option<&str>) -> bool {
    let is_v6 = |host: &str| host.strip_suffix(']').is_some_and(|host| host.parse::<Ipv6Addr>().is_ok());
    if host.parse::<Ipv4Addr>().is_ok() || host.strip_prefix('[').is_some_and(is_v6) {
        return true;
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost"
        || host.ends_with(".localhost")
        || name.is_some_and(|name| name.eq_ignore_ascii_case(&host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_names_are_not_ours() {
        let cases = [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("[::1]", true),
            ("localhost", true),
            ("LocalHost.", true),
            ("app.localhost", true),
            ("db1.example", true),
            ("DB1.example.", true),
            ("example.com", false),
            ("127.0.0.1.example.com", false),
            ("localhost.example.com", false),
            ("notlocalhost", false),
            ("evil.db1.example", false),
            ("[evil]", false),
            ("", false),
        ];
        for (host, ours) in cases {
            assert_eq!(may_be(host, Some("db1.example")), ours, "{host}");
        }
        assert!(!may_be("db1.example", None) && !may_be("", None));
    }
}
