//! The page for people, in one file, and what a browser may do with it: nothing but what is in that file. It
//! does not know what the page shows.

use crate::http::{HeaderValue, Response, header};

const PAGE: &str = include_str!("page.html");

/// The style and the script are those in the page, by their hashes, and it asks nobody but us. (The icon is
/// an empty one, so that none is asked for.)
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'; style-src 'sha256-Kjh8uI8L+Iy/uGuX0amCMP6B0U3wSuDQLle1kDcAyQs='; script-src 'sha256-sXpPHX2NriqT5T+0qAYbca5m4OyIFKY9ISnc/zis6Nw='",
);

pub(super) fn page() -> Response {
    Response::new(PAGE)
        .header(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))
        .header(header::CONTENT_SECURITY_POLICY, POLICY)
        .header(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"))
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_policy_allows_the_style_and_the_script_that_are_there() {
        for (name, begin, end) in [("style", "<style>", "</style>"), ("script", "<script>", "</script>")] {
            let (_, rest) = PAGE.split_once(begin).unwrap();
            let (text, rest) = rest.split_once(end).unwrap();
            assert!(!rest.contains(begin), "there is one {name}");
            let allowed = format!("{name}-src 'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
            assert!(POLICY.to_str().unwrap().contains(&allowed), "{allowed}");
        }
    }

    #[test]
    fn it_needs_nothing_from_elsewhere() {
        for reference in ["src=", "url(", "@import", "http://", "https://", "style=\"", "onclick"] {
            let found = PAGE.replace("http://www.w3.org/2000/svg", "").contains(reference);
            assert!(!found, "{reference}");
        }
    }
}
