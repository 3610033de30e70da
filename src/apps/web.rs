//! The app that greets over HTTP. It does not know how requests come over a connection.

use std::io;

use super::experiment::Experiment;
use crate::{
    http::{HeaderValue, Http, Method, Request, Response, StatusCode, header},
    session::handler::Handler,
};

/// Speaks HTTP: answers `GET` with `Hello, client!`, and `POST` with the number of bytes in its
/// body. The refused are sent the experiment's busy reply, or 503 where there is none.
pub fn web(experiment: Experiment) -> impl Handler {
    let busy_reply = experiment.busy_reply.clone();
    Http::new(move |request: &Request<'_>| answer(&experiment, request)).busy_reply(busy_reply)
}

fn answer(experiment: &Experiment, request: &Request<'_>) -> Response {
    match *request.method() {
        Method::GET | Method::HEAD => {
            experiment.spend();
            Response::text("Hello, client!")
        }
        // Where the body fails, its client is told so whatever this says.
        Method::POST => match io::copy(&mut request.body(), &mut io::sink()) {
            Ok(count) => {
                experiment.spend();
                Response::text(count.to_string())
            }
            Err(_) => Response::text("").status(StatusCode::BAD_REQUEST),
        },
        _ => Response::text("405 Method Not Allowed\n")
            .status(StatusCode::METHOD_NOT_ALLOWED)
            .header(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST")),
    }
}
