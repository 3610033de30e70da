//! What a function answers when something goes wrong. It does not know what that is.

use std::{error::Error, fmt};

use http::StatusCode;

use super::{incoming::is_of_body, response::Response};

/// What a function answers when something goes wrong, so that it can pass on any error by `?`, a text among
/// them: its client is told 500, and the log (see [the crate](crate)) what happened. [`new`](Self::new) tells the
/// client more, also with no error at hand: `Failure::new(StatusCode::NOT_FOUND, "no such item\n")`. What a client
/// has sent is hardly ever a reason for 500: it is to be looked at first, as here.
///
/// ```
/// use overfall::http::{Failure, Request, StatusCode};
///
/// fn double(request: &Request<'_>) -> Result<String, Failure> {
///     let text = std::io::read_to_string(request.body())?;
///     let number: u32 = text.parse().map_err(|_| Failure::new(StatusCode::BAD_REQUEST, "give a number\n"))?;
///     Ok(number.checked_mul(2).ok_or("too large")?.to_string())
/// }
///
/// let answer = |body: &'static str| double(&Request::builder().body(body)).map_err(|failure| failure.status_code());
/// assert_eq!(answer("21").unwrap(), "42");
/// assert_eq!(answer("x").unwrap_err(), StatusCode::BAD_REQUEST);
/// assert_eq!(answer("3000000000").unwrap_err(), StatusCode::INTERNAL_SERVER_ERROR);
/// ```
pub struct Failure(Box<Response>);

impl Failure {
    /// The client is told this status and this text.
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self(Box::new((status, text.into()).into()))
    }

    /// What the client is told.
    pub fn status_code(&self) -> StatusCode {
        self.0.status_code()
    }
}

/// It is 500, and the log says what happened.
impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        // A client that breaks off is no failure of the service.
        match error.downcast_ref().is_some_and(is_of_body) {
            true => tracing::debug!(%error, "a request failed"),
            false => tracing::error!(%error, "a request failed"),
        }
        Self(Box::new(StatusCode::INTERNAL_SERVER_ERROR.into()))
    }
}

impl From<Failure> for Response {
    fn from(Failure(response): Failure) -> Self {
        *response
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Failure").field(&self.0).finish()
    }
}
