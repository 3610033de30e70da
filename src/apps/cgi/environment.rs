//! What a program is told of a request in its environment (RFC 3875, section 4.1). It does not know the program.

use std::{
    ffi::OsString,
    io::{self, Read},
    os::unix::ffi::OsStringExt,
};

use http::{HeaderMap, HeaderName, header};
use percent_encoding::percent_decode_str;

use crate::http::Request;

/// Where the body is, of which a program has to know the length beforehand.
pub(super) enum Body {
    /// It comes while the program runs.
    Comes(Option<u64>),
    /// It came in chunks.
    Gathered(Vec<u8>),
}

impl Body {
    pub(super) fn of(request: &Request<'_>) -> io::Result<Self> {
        if !request.headers().contains_key(header::TRANSFER_ENCODING) {
            let length = request.header(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
            return Ok(Self::Comes(length));
        }
        let mut bytes = Vec::new();
        request.body().read_to_end(&mut bytes)?;
        Ok(Self::Gathered(bytes))
    }

    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Comes(length) => *length,
            Self::Gathered(bytes) => Some(bytes.len() as u64),
        }
    }
}

/// The variables, for a body of this length.
pub(super) fn environment(request: &Request<'_>, length: Option<u64>) -> io::Result<Vec<(String, OsString)>> {
    let (remote, local) = (request.peer_addr()?, request.local_addr()?);
    let (remote_ip, local_ip) = (remote.ip().to_canonical(), local.ip().to_canonical());
    let uri = request.uri();
    let text = |name: &str, value: &dyn ToString| (name.to_owned(), OsString::from(value.to_string()));
    let path = OsString::from_vec(percent_decode_str(uri.path()).filter(|&byte| byte != 0).collect());
    let mut variables = vec![
        text("GATEWAY_INTERFACE", &"CGI/1.1"),
        text("SERVER_SOFTWARE", &concat!("overfall/", env!("CARGO_PKG_VERSION"))),
        text("SERVER_PROTOCOL", &format!("{:?}", request.version())),
        text("SERVER_NAME", &server_name(request).unwrap_or_else(|| local_ip.to_string())),
        text("SERVER_ADDR", &local_ip),
        text("SERVER_PORT", &local.port()),
        text("REMOTE_ADDR", &remote_ip),
        text("REMOTE_PORT", &remote.port()),
        text("REQUEST_METHOD", request.method()),
        text("REQUEST_URI", uri),
        text("SCRIPT_NAME", &""),
        ("PATH_INFO".to_owned(), path),
        text("QUERY_STRING", &uri.query().unwrap_or_default()),
    ];
    if request.is_encrypted() {
        variables.push(text("HTTPS", &"on"));
    }
    if let Some(length) = length {
        variables.push(text("CONTENT_LENGTH", &length));
    }
    variables.extend(fields(request.headers()));
    Ok(variables)
}

/// The host that the client has named.
fn server_name(request: &Request<'_>) -> Option<String> {
    let host = request.header(header::HOST)?;
    let end = match host.strip_prefix('[') {
        Some(_) => host.find(']')? + 1,
        None => host.find(':').unwrap_or(host.len()),
    };
    Some(host[..end].to_owned()).filter(|name| !name.is_empty())
}

/// The header fields as variables; the values of those that came more than once as a list.
fn fields(headers: &HeaderMap) -> impl Iterator<Item = (String, OsString)> {
    headers.keys().filter(|name| is_told(name)).map(|name| {
        // Cookies are joined in another way than lists are (RFC 9113, section 8.2.3).
        let separator: &[u8] = if name == header::COOKIE { b"; " } else { b", " };
        let values: Vec<_> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
        let variable = name.as_str().to_ascii_uppercase().replace('-', "_");
        let variable = if *name == header::CONTENT_TYPE { variable } else { format!("HTTP_{variable}") };
        (variable, OsString::from_vec(values.join(separator)))
    })
}

/// Whether it is a variable that a program may take for what it is.
fn is_told(name: &HeaderName) -> bool {
    !matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION)
        && name != "proxy"
        && !name.as_str().contains('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(request: &Request<'_>) -> Vec<String> {
        let variables = environment(request, Body::of(request).unwrap().length()).unwrap();
        variables.into_iter().map(|(name, value)| format!("{name}={}", value.display())).collect()
    }

    #[test]
    fn a_request_is_in_the_environment() {
        let request = Request::builder()
            .method("POST")
            .uri("/a%20b/c?d=e%20f")
            .header("Host", "example.com:80")
            .header("Content-Type", "text/plain")
            .header("Content-Length", "2")
            .header("Cookie", "a=b")
            .header("Cookie", "c=d")
            .header("X-Some-Thing", "one")
            .header("X-Some-Thing", "two")
            .peer_addr("192.0.2.1:5000".parse().unwrap())
            .body("hi");
        let told = told(&request);
        for line in [
            "GATEWAY_INTERFACE=CGI/1.1",
            "SERVER_PROTOCOL=HTTP/1.1",
            "SERVER_NAME=example.com",
            "SERVER_ADDR=127.0.0.1",
            "SERVER_PORT=8888",
            "REMOTE_ADDR=192.0.2.1",
            "REMOTE_PORT=5000",
            "REQUEST_METHOD=POST",
            "REQUEST_URI=/a%20b/c?d=e%20f",
            "SCRIPT_NAME=",
            "PATH_INFO=/a b/c",
            "QUERY_STRING=d=e%20f",
            "CONTENT_LENGTH=2",
            "CONTENT_TYPE=text/plain",
            "HTTP_HOST=example.com:80",
            "HTTP_COOKIE=a=b; c=d",
            "HTTP_X_SOME_THING=one, two",
        ] {
            assert!(told.iter().any(|told| told == line), "{line} is not in {told:#?}");
        }
        assert!(!told.iter().any(|told| told.starts_with("HTTPS=")), "{told:#?}");
    }

    #[test]
    fn nobody_is_told_what_could_be_taken_for_something_else() {
        let request = Request::builder()
            .uri("/%00a")
            .header("Proxy", "evil:80")
            .header("X_Forwarded_For", "1.2.3.4")
            .header("Connection", "close")
            .header("Transfer-Encoding", "chunked")
            .body("abc");
        let told = told(&request);
        for name in ["HTTP_PROXY", "HTTP_X_FORWARDED_FOR", "HTTP_CONNECTION", "HTTP_TRANSFER_ENCODING"] {
            assert!(!told.iter().any(|told| told.starts_with(name)), "{name} is in {told:#?}");
        }
        // Environments cannot have a NUL, and chunks have no length that is told.
        for line in ["PATH_INFO=/a", "CONTENT_LENGTH=3"] {
            assert!(told.iter().any(|told| told == line), "{line} is not in {told:#?}");
        }
    }

    #[test]
    fn a_server_has_the_name_that_its_client_calls_it_by() {
        for (host, name) in
            [("a", Some("a")), ("a:80", Some("a")), ("[::1]:80", Some("[::1]")), ("", None), (":80", None)]
        {
            let request = Request::builder().header("Host", host).body("");
            assert_eq!(server_name(&request).as_deref(), name, "{host}");
        }
    }
}
