//! The app that is any program over HTTP, by the Common Gateway Interface (RFC 3875). It does not know what the
//! program does.

mod environment;
mod exchange;
mod head;

use std::{
    io,
    sync::{Arc, atomic::AtomicUsize},
};

use http::{Method, StatusCode};

use self::{
    environment::{Body, environment},
    exchange::Exchange,
    head::Head,
};
use super::program::Program;
use crate::{
    http::{Http, Request, Response, delivery::has_no_body, gathered::Gathered, incoming::is_of_body},
    session::handler::Handler,
};

/// Speaks HTTP, and starts the program for each request: as many run at once as there are workers.
///
/// The request is in the program's environment and on its standard input, and it writes header fields, an empty
/// line and the body: `Content-Type: text/plain`, for example, where `Status: 404 Not Found` says something else
/// than 200. `Location` alone is 302; a path there is for the client as well. It is sent as it comes, with its
/// length where the program has said `Content-Length`, and a client that is slow to take it holds the worker, so
/// that no more programs run than there are workers. One that says nothing for `io_timeout` is killed with all
/// that it has started; its client is told 504, or 502 where what it says makes no sense, or is cut off.
///
/// Its path is `PATH_INFO`, decoded, with whatever `..` and encoded slashes it has; `SCRIPT_NAME` is empty. A body
/// that comes in chunks is gathered first, since `CONTENT_LENGTH` has to be told, and what a program says before it
/// has heard all of a body is kept, out of 64 MiB for all requests together; where that is too little, the client is
/// told 503. The field `Proxy` is left out (programs would take it for where to send their
/// own requests), and so are those whose names have an underscore (they could be taken for others).
///
/// ```
/// use std::io::Write;
/// use overfall::{Server, apps::{Program, cgi}};
///
/// let script = r#"printf 'Content-Type: text/plain\n\nYou asked for %s\n' "$PATH_INFO""#;
/// let program = Program::new("sh").arg("-c").arg(script);
/// let handle = Server::builder().bind("127.0.0.1:0").serve_handler(cgi(program))?;
/// let mut client = std::net::TcpStream::connect(handle.local_addr())?;
/// client.write_all(b"GET /a HTTP/1.0\r\n\r\n")?;
/// assert!(std::io::read_to_string(client)?.ends_with("\r\n\r\nYou asked for /a\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn cgi(program: Program) -> impl Handler {
    let busy_reply = program.busy_reply.clone();
    // What is kept of all requests and replies.
    let kept = Arc::default();
    Http::new(move |request: &Request<'_>| answer(&program, request, &kept)).busy_reply(busy_reply)
}

fn answer(program: &Program, request: &Request<'_>, kept: &Arc<AtomicUsize>) -> Response {
    run(program, request, kept).unwrap_or_else(|error| match error.kind() {
        // What is wrong with a body its client is told in any case.
        _ if is_of_body(&error) => StatusCode::BAD_REQUEST.into(),
        io::ErrorKind::InvalidInput | io::ErrorKind::ConnectionReset => StatusCode::BAD_REQUEST.into(),
        kind => {
            tracing::warn!(%error, program = program.name(), "a program has failed");
            match kind {
                io::ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT.into(),
                io::ErrorKind::OutOfMemory => StatusCode::SERVICE_UNAVAILABLE.into(),
                _ => StatusCode::BAD_GATEWAY.into(),
            }
        }
    })
}

fn run(program: &Program, request: &Request<'_>, kept: &Arc<AtomicUsize>) -> io::Result<Response> {
    let mut body = Body::of(request, kept)?;
    let mut command = program.command();
    command.envs(environment(request, body.length())?);
    let said = gathered(kept)?;
    let mut exchange = Exchange::start(command, request.socket(), request.io_timeout(), said)?;
    match &mut body {
        Body::Gathered(bytes) => exchange.give(&mut bytes.unread())?,
        Body::Comes(_) => exchange.give(&mut request.body())?,
    }
    let Head { status, fields, length } = exchange.head()?;
    if *request.method() == Method::HEAD || has_no_body(status) {
        exchange.forget_body();
    }
    let response = match length {
        Some(length) => Response::sized(length, exchange),
        None => Response::stream(exchange),
    };
    let response = fields.into_iter().fold(response, |response, (name, value)| response.header(name, value));
    Ok(response.status(status).held())
}

/// Room for what is kept.
fn gathered(kept: &Arc<AtomicUsize>) -> io::Result<Gathered> {
    Gathered::new(kept, None).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}
