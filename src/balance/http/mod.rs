//! A proxy for HTTP/1.1: requests are spread over upstreams, and wait in one line for a place at one.

pub(super) mod access;
mod body;
mod exchange;
mod placing;
pub(super) mod proxy;
mod refusal;
mod reply;
mod request;
mod retries;
mod serving;
pub(super) mod spares;
mod tunnel;
mod upload;
