//! The answer to a request: from the function, or of the server's own where there is none. It does not know
//! how the request came.

use std::{
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use http::{Method, StatusCode};

use super::{
    delivery::{How, Rest},
    incoming::Incoming,
    progress::{Progress, Reply, Upgraded},
    receipt::BodyLimits,
    request::Request,
    response::Response,
    taken::Taken,
};
use crate::session::{connection::Connection, handler::Next};

/// Has the function answer, and begins to send what it gives.
pub(super) fn answer<F, R>(
    function: &F,
    limits: BodyLimits,
    connection: &mut Connection<'_>,
    progress: &mut Progress,
    taken: Taken,
) -> io::Result<Next>
where
    F: Fn(&Request<'_>) -> R,
    R: Into<Response>,
{
    let Taken { head, text, receipt, gathered, hold } = taken;
    let (http_11, persistent, may_upgrade) = (head.http_11, head.persistent, head.upgrade);
    let head_only = head.method == Method::HEAD;
    connection.describe_in_parts(&[head.method.as_str(), " ", head.uri.path()]);
    let incoming = Incoming::new(connection.reborrow(), receipt, limits, gathered, hold)
        .expect_continue(head.expects_continue);
    let request = Request::new(head, text, incoming);
    let response = catch_unwind(AssertUnwindSafe(|| function(&request).into()));
    let may_upgrade =
        may_upgrade && response.as_ref().is_ok_and(|response| response.is_asked_for_by(&request));
    let (at_next, failure) = request.finish();
    let response = match (response, failure) {
        (Err(panic), failure) => {
            refuse(connection, failure.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), head_only)?;
            // The server counts it.
            resume_unwind(panic)
        }
        (Ok(_), Some(status)) => return refuse(connection, status, head_only),
        (Ok(response), None) => response.or_upgrade_required(may_upgrade && at_next),
    };
    if !at_next {
        connection.expect_more();
    }
    let may_keep = persistent && at_next && !connection.draining();
    let ends = response.wants_close() || response.ends_by_closing(http_11);
    let keep = response.is_upgrade() || (may_keep && !ends);
    match response.send(connection, How { http_11, head_only, keep })? {
        Rest::Nothing => Ok(next(connection, keep)),
        Rest::Body(rest) => go_on(connection, progress, Box::new(Reply { rest, keep })),
        Rest::Upgrade(mut upgrade) => {
            let next = upgrade.ready(connection)?;
            progress.is_upgraded(Box::new(Upgraded(upgrade)));
            Ok(next)
        }
    }
}

/// Sends more of a response.
pub(super) fn go_on(
    connection: &mut Connection<'_>,
    progress: &mut Progress,
    mut reply: Box<Reply>,
) -> io::Result<Next> {
    if reply.rest.go_on(connection)? {
        return Ok(next(connection, reply.keep));
    }
    progress.replies(reply);
    Ok(Next::Again)
}

/// What becomes of a connection whose request was answered.
fn next(connection: &Connection<'_>, keep: bool) -> Next {
    match keep {
        false => Next::Close,
        true if connection.input().is_empty() => Next::Park,
        true => Next::Again,
    }
}

/// Tells the client why its request is not answered, and closes. It may not have sent all of it.
pub(super) fn refuse(
    connection: &mut Connection<'_>,
    status: StatusCode,
    head_only: bool,
) -> io::Result<Next> {
    connection.expect_more();
    if status != StatusCode::INTERNAL_SERVER_ERROR {
        connection.context().counters.malformed.count();
    }
    Response::from(status).send(connection, How { http_11: true, head_only, keep: false })?;
    Ok(Next::Close)
}

/// Tells a client whose body has waited too long, or finds no room, what others are told: this reply, or its
/// head.
pub(super) fn refuse_busy(
    connection: &mut Connection<'_>,
    reply: &[u8],
    head_only: bool,
) -> io::Result<Next> {
    connection.context().counters.shed.count();
    connection.expect_more();
    let head = reply.windows(4).position(|end| end == b"\r\n\r\n").map_or(reply.len(), |at| at + 4);
    connection.write_all(if head_only { &reply[..head] } else { reply })?;
    Ok(Next::Close)
}
