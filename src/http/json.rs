//! What a client sends as JSON. It does not know what it means.

use http::{StatusCode, header::CONTENT_TYPE};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::{failure::Failure, request::Request};

impl Request<'_> {
    /// What the body says as JSON.
    ///
    /// ```
    /// use overfall::http::{Failure, Request, StatusCode};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Item {
    ///     name: String,
    /// }
    ///
    /// let of = |body: &'static str| Request::builder().header("Content-Type", "application/json").body(body);
    /// assert_eq!(of(r#"{"name":"a"}"#).json::<Item>()?.name, "a");
    /// let status = |body| of(body).json::<Item>().map(|_| ()).unwrap_err().status_code();
    /// assert_eq!((status("{"), status("{}")), (StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY));
    /// # Ok::<(), Failure>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Its type is not `application/json` or one with `+json` (415: a page of others can have browsers send
    /// anything else), it is no JSON (400), or does not fit (422). The client is told so in a sentence.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        if !self.headers().get(CONTENT_TYPE).is_some_and(|value| is_json(value.as_bytes())) {
            let sentence = "the Content-Type is to be application/json\n";
            return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence));
        }
        let mut text = Vec::new();
        // Where that fails, the client is told why, whatever is answered.
        std::io::Read::read_to_end(&mut self.body(), &mut text)?;
        serde_json::from_slice(&text).map_err(|error| {
            let status = match error.classify() {
                Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
                Category::Syntax | Category::Eof | Category::Io => StatusCode::BAD_REQUEST,
            };
            Failure::new(status, format!("{error}\n"))
        })
    }
}

fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let lower = essence.to_ascii_lowercase();
    lower == b"application/json" || (lower.starts_with(b"application/") && lower.ends_with(b"+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_known_by_its_type() {
        for (text, expected) in [
            ("application/json", true),
            ("Application/JSON ; charset=utf-8", true),
            ("application/problem+json", true),
            ("text/plain", false),
            ("text/plain; application/json", false),
            ("application/jsonp", false),
            ("", false),
        ] {
            assert_eq!(is_json(text.as_bytes()), expected, "{text}");
        }
    }
}
