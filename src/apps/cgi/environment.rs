//! What a program is told of a request in its environment (RFC 3875, section 4.1). It does not know the program.

use std::{
    ffi::OsString,
    io::{self, Read},
    os::unix::ffi::OsStringExt,
    sync::{Arc, atomic::AtomicUsize},
};

use http::{HeaderMap, HeaderName, header};
use percent_encoding::percent_decode_str;

use super::{super::program::ends, gathered};
use crate::http::{Request, gathered::Gathered};

/// Where the body is, of which a program has to know the length beforehand.
pub(super) enum Body {
    /// It comes while the program runs.
    Comes(Option<u64>),
    /// It came in chunks.
    Gathered(Gathered),
}

impl Body {
    /// One that comes in chunks is kept out of what all may have together.
    pub(super) fn of(request: &Request<'_>, kept: &Arc<AtomicUsize>) -> io::Result<Self> {
        if let Some(length) = request.body_length() {
            let is_told = length > 0 || request.headers().contains_key(header::CONTENT_LENGTH);
            return Ok(Self::Comes(is_told.then_some(length)));
        }
        let mut gathered = gathered(kept)?;
        let mut piece = [0; 16 * 1024];
        loop {
            match request.body().read(&mut piece)? {
                0 => return Ok(Self::Gathered(gathered)),
                length if gathered.add(&piece[..length]) => {}
                _ => return Err(io::ErrorKind::OutOfMemory.into()),
            }
        }
    }

    /// None where the client has not said that there is a body.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Comes(length) => *length,
            Self::Gathered(bytes) => Some(bytes.unread().len() as u64),
        }
    }
}

/// The variables, for a body of this length.
pub(super) fn environment(request: &Request<'_>, length: Option<u64>) -> io::Result<Vec<(String, OsString)>> {
    let (remote, local) = (request.peer_addr()?, request.local_addr()?);
    let uri = request.uri();
    let text = |name: &str, value: &dyn ToString| (name.to_owned(), OsString::from(value.to_string()));
    let path: Vec<u8> = percent_decode_str(uri.path()).collect();
    if path.contains(&0) {
        // No environment can have it.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut variables = vec![
        text("GATEWAY_INTERFACE", &"CGI/1.1"),
        text("SERVER_SOFTWARE", &concat!("overfall/", env!("CARGO_PKG_VERSION"))),
        text("SERVER_PROTOCOL", &format!("{:?}", request.version())),
        text("SERVER_NAME", &server_name(request).unwrap_or_else(|| local.ip().to_canonical().to_string())),
        text("REQUEST_METHOD", request.method()),
        text("REQUEST_URI", uri),
        text("SCRIPT_NAME", &""),
        ("PATH_INFO".to_owned(), OsString::from_vec(path)),
        text("QUERY_STRING", &uri.query().unwrap_or_default()),
    ];
    variables.extend(ends(remote, local).map(|(name, value)| (name.to_owned(), value.into())));
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
        let body = Body::of(request, &Arc::default()).unwrap();
        let variables = environment(request, body.length()).unwrap();
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
            .header("Proxy", "evil:80")
            .header("X_Forwarded_For", "1.2.3.4")
            .header("Connection", "close")
            .header("Transfer-Encoding", "chunked")
            .body("abc");
        let told = told(&request);
        for name in ["HTTP_PROXY", "HTTP_X_FORWARDED_FOR", "HTTP_CONNECTION", "HTTP_TRANSFER_ENCODING"] {
            assert!(!told.iter().any(|told| told.starts_with(name)), "{name} is in {told:#?}");
        }
    }

    #[test]
    fn a_path_that_no_environment_can_have_is_refused() {
        let request = Request::builder().uri("/%00a").body("");
        assert_eq!(environment(&request, None).unwrap_err().kind(), io::ErrorKind::InvalidInput);
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
