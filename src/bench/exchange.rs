//! What is asked of a server, and what counts as its answer. It knows bytes, no connection.

/// A protocol that a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// The apps `hello` and `echo`.
    Tcp,
    /// HTTP/1.1: `GET /`, answered with 200.
    Http,
}

/// What is asked and answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchange {
    /// The app that `serve` offers for it.
    pub(crate) app: &'static str,
    pub(crate) request: &'static [u8],
    reply: Reply,
    /// Requests follow each other on one connection; else each has a connection of its own.
    pub(crate) kept: bool,
}

#[derive(Debug, Clone, Copy)]
enum Reply {
    Exactly(&'static [u8]),
    Http,
}

/// What a server has sent so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The beginning of a reply.
    More,
    Good,
    /// The server says that it is too busy.
    Refused,
    Wrong,
}

const MESSAGE: &[u8] = b"thirty-two bytes that come back.";

impl Protocol {
    pub(crate) fn exchange(self, kept: bool) -> Exchange {
        let (app, request, reply): (_, &[u8], _) = match (self, kept) {
            (Self::Tcp, false) => ("hello", b"ping", Reply::Exactly(b"Hello, client!")),
            (Self::Tcp, true) => ("echo", MESSAGE, Reply::Exactly(MESSAGE)),
            (Self::Http, false) => {
                ("http", b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n", Reply::Http)
            }
            (Self::Http, true) => ("http", b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n", Reply::Http),
        };
        Exchange { app, request, reply, kept }
    }
}

impl Exchange {
    pub(crate) fn judge(&self, received: &[u8]) -> Verdict {
        match self.reply {
            Reply::Exactly(reply) if reply == received => Verdict::Good,
            Reply::Exactly(reply) if reply.starts_with(received) => Verdict::More,
            Reply::Exactly(_) => Verdict::Wrong,
            Reply::Http => judge_http(received),
        }
    }
}

/// A reply is whole when its head says so: by a length, or by chunks.
fn judge_http(received: &[u8]) -> Verdict {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut reply = httparse::Response::new(&mut fields);
    let body = match reply.parse(received) {
        Ok(httparse::Status::Complete(length)) => &received[length..],
        Ok(httparse::Status::Partial) => return Verdict::More,
        Err(_) => return Verdict::Wrong,
    };
    let verdict = match reply.code {
        Some(200) => Verdict::Good,
        Some(503) => return Verdict::Refused,
        _ => return Verdict::Wrong,
    };
    let field = |name: &str| reply.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    let length =
        field("content-length").and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
    match length {
        Some(length) if body.len() == length => verdict,
        Some(length) if body.len() < length => Verdict::More,
        Some(_) => Verdict::Wrong,
        None if field("transfer-encoding").is_none() => Verdict::Wrong,
        None if body.ends_with(b"0\r\n\r\n") => verdict,
        None => Verdict::More,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_judged_when_they_are_whole() {
        let hello = Protocol::Tcp.exchange(false);
        assert_eq!(hello.judge(b"Hello"), Verdict::More);
        assert_eq!(hello.judge(b"Hello, client!"), Verdict::Good);
        assert_eq!(hello.judge(b"Hello, client!!"), Verdict::Wrong);
        assert_eq!(hello.judge(b"Goodbye"), Verdict::Wrong);
    }

    #[test]
    fn http_replies_are_judged_by_status_and_framing() {
        let http = Protocol::Http.exchange(true);
        for (reply, verdict) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", Verdict::More),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh", Verdict::More),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Verdict::Good),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!", Verdict::Wrong),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", Verdict::More),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", Verdict::Good),
            ("HTTP/1.1 200 OK\r\n\r\nhi", Verdict::Wrong),
            ("HTTP/1.1 503 Busy\r\n\r\n", Verdict::Refused),
            ("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", Verdict::Wrong),
            ("Hello, client!", Verdict::Wrong),
        ] {
            assert_eq!(http.judge(reply.as_bytes()), verdict, "{reply:?}");
        }
    }
}
