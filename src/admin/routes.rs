//! Which path is answered how. It does not know what the figures mean.

use super::{figures::Source, hosts, page::page, prometheus, status};
use crate::http::{HeaderValue, Method, Request, Response, StatusCode, header};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// Answers a request to a server that is known by this name, if by any.
pub(super) fn answer(source: &Source, name: Option<&str>, request: &Request<'_>) -> Response {
    let answer = match (request.uri().path(), request.method()) {
        ("/metrics" | "/healthz" | "/readyz" | "/status.json" | "/", method)
            if !matches!(*method, Method::GET | Method::HEAD) =>
        {
            say(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here")
                .header(header::ALLOW, HeaderValue::from_static("GET, HEAD"))
        }
        ("/metrics", _) => metrics(source, request),
        ("/healthz", _) => health(source),
        ("/readyz", _) => readiness(source),
        // Machines may ask for the others by whatever name they know us.
        ("/status.json" | "/", _) if !hosts::is_ours(request, name) => say(
            StatusCode::MISDIRECTED_REQUEST,
            "this is shown to who asks by an IP address, by localhost, or by the name that it listens at",
        ),
        ("/status.json", _) => {
            Response::new(status::json(&source.figures())).header(header::CONTENT_TYPE, JSON)
        }
        ("/", _) => page(),
        _ => say(StatusCode::NOT_FOUND, "there are /, /metrics, /healthz, /readyz and /status.json"),
    };
    answer.header(header::CACHE_CONTROL, NO_STORE).header(header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF)
}

fn say(status: StatusCode, sentence: &str) -> Response {
    Response::text(format!("{sentence}\n")).status(status)
}

fn metrics(source: &Source, request: &Request<'_>) -> Response {
    let format = prometheus::Format::wanted(request.headers());
    match prometheus::encode(source.figures(), format) {
        Ok(text) => Response::new(text).header(header::CONTENT_TYPE, format.content_type()),
        Err(_) => say(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written"),
    }
}

fn health(source: &Source) -> Response {
    let readiness = source.readiness();
    match readiness.reason() {
        Some(reason) if !readiness.is_healthy() => say(StatusCode::SERVICE_UNAVAILABLE, &reason),
        _ => say(StatusCode::OK, "ok"),
    }
}

fn readiness(source: &Source) -> Response {
    match source.readiness().reason() {
        Some(reason) => say(StatusCode::SERVICE_UNAVAILABLE, &reason),
        None => say(StatusCode::OK, "ready"),
    }
}
