//! The app that greets whoever comes, over HTTP or not. It knows neither greeting.

use std::{borrow::Cow, io};

use super::{experiment::Experiment, hello::Hello, web::web};
use crate::session::{
    connection::Connection,
    handler::{Handler, Next, Refusal},
};

/// Speaks HTTP, as [`web`] does, with clients whose first bytes are the beginning of a request, and answers all
/// others as [`Hello`] does.
pub fn either(experiment: Experiment) -> impl Handler {
    Either { hello: Hello { experiment: experiment.clone() }, web: web(experiment) }
}

struct Either<W> {
    hello: Hello,
    web: W,
}

impl<W: Handler> Handler for Either<W> {
    /// None as long as the client is not known to speak HTTP.
    type State = Option<W::State>;

    const CLIENT_SPEAKS_FIRST: bool = true;

    fn open(&self, _: &mut Connection<'_>) -> io::Result<Self::State> {
        Ok(None)
    }

    fn ready(&self, connection: &mut Connection<'_>, http: &mut Self::State) -> io::Result<Next> {
        if http.is_none() && is_http(connection.input()) {
            *http = Some(self.web.open(connection)?);
        }
        match http {
            Some(state) => self.web.ready(connection, state),
            None => self.hello.ready(connection, &mut ()),
        }
    }

    fn expired(&self, connection: &mut Connection<'_>, http: &mut Self::State) -> io::Result<Next> {
        match http {
            Some(state) => self.web.expired(connection, state),
            None => self.hello.expired(connection, &mut ()),
        }
    }

    fn refusal(&self, why: Refusal) -> Cow<'static, [u8]> {
        self.hello.refusal(why)
    }
}

/// Whether these are the first bytes of a request: a method, of which all that are registered are in capitals,
/// and the beginning of a target. Clients send at least so much of one at once, and nobody else is to wait for
/// more.
fn is_http(input: &[u8]) -> bool {
    let method = input.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    let rest = &input[method..];
    let begins_target = [&b" /"[..], b" *", b" http"].iter().any(|begin| rest.starts_with(begin));
    (1..=LONGEST_METHOD).contains(&method) && begins_target
}

const LONGEST_METHOD: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_from_a_greeting() {
        for (input, expected) in [
            ("GET / HTTP/1.1\r\n", true),
            ("OPTIONS * HTTP/1.1\r\n", true),
            ("PROPFIND / HTTP/1.1\r\n", true),
            ("GET http://a/ HTTP/1.1\r\n", true),
            ("HEAD /", true),
            ("HEAD ", false),
            ("HELLO SERVER", false),
            ("Hello, server!", false),
            ("GET", false),
            ("get / HTTP/1.1", false),
            ("GETS", false),
            (" GET /", false),
            ("\x16\x03\x01", false),
            ("", false),
        ] {
            assert_eq!(is_http(input.as_bytes()), expected, "{input:?}");
        }
    }
}
