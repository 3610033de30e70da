//! What of a file a client wants, by the conditions and the range in its request (RFC 9110, sections 13 and
//! 14). It knows no files: their validators and lengths are arguments.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method, header};
use httpdate::{fmt_http_date, parse_http_date};

use crate::http::codec::fields::elements;

/// What one version of a file is known by.
#[derive(Debug)]
pub(super) struct Validators {
    /// In quotes, as it is sent.
    pub(super) etag: String,
    /// As it is sent.
    pub(super) modified: String,
    modified_at: SystemTime,
}

impl Validators {
    /// Of a file of this length that was modified then, in seconds since 1970 and nanoseconds. The tag says the
    /// same on another machine that has the file with its time.
    pub(super) fn new(length: u64, modified_s: i64, modified_ns: i64, now: SystemTime) -> Self {
        // There are whole seconds in the header; what is older than 1970 is not told apart, and nothing is said
        // to have been modified later than now (RFC 9110, section 8.8.2.1).
        let now_s = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let seconds = u64::try_from(modified_s).unwrap_or(0).min(now_s);
        let modified_at = UNIX_EPOCH + Duration::from_secs(seconds);
        let etag = format!("\"{modified_s:x}.{modified_ns:x}-{length:x}\"");
        Self { etag, modified: fmt_http_date(modified_at), modified_at }
    }
}

/// What a client is to get.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Whole,
    Part {
        first: u64,
        length: u64,
    },
    /// It has this version already.
    NotModified,
    /// It wants another version, or none.
    Failed,
    /// It wants a part that there is not.
    Unsatisfiable,
}

/// What this request is to get of a file of this length.
pub(super) fn verdict(file: &Validators, length: u64, method: &Method, headers: &HeaderMap) -> Verdict {
    let value = |name| headers.get(name).map(http::HeaderValue::as_bytes);
    let date = |name| value(name).and_then(to_date);
    // In the order of RFC 9110, section 13.2.2.
    if headers.contains_key(header::IF_MATCH) {
        if !lists_tag(headers, header::IF_MATCH, &file.etag, false) {
            return Verdict::Failed;
        }
    } else if date(header::IF_UNMODIFIED_SINCE).is_some_and(|date| file.modified_at > date) {
        return Verdict::Failed;
    }
    if headers.contains_key(header::IF_NONE_MATCH) {
        if lists_tag(headers, header::IF_NONE_MATCH, &file.etag, true) {
            return Verdict::NotModified;
        }
    } else if date(header::IF_MODIFIED_SINCE).is_some_and(|date| file.modified_at <= date) {
        return Verdict::NotModified;
    }
    let is_same = value(header::IF_RANGE)
        .is_none_or(|known| known == file.etag.as_bytes() || to_date(known) == Some(file.modified_at));
    match value(header::RANGE) {
        Some(range) if method == Method::GET && is_same => part(range, length),
        _ => Verdict::Whole,
    }
}

fn to_date(text: &[u8]) -> Option<SystemTime> {
    parse_http_date(std::str::from_utf8(text).ok()?).ok()
}

/// Whether this tag is among those that are listed, or any would do. A weak one stands for the strong one
/// where that is enough.
fn lists_tag(headers: &HeaderMap, name: header::HeaderName, etag: &str, weak: bool) -> bool {
    let mut tags = headers.get_all(name).iter().flat_map(|list| elements(list.as_bytes()));
    tags.any(|tag| {
        let strong = if weak { tag.strip_prefix(b"W/").unwrap_or(tag) } else { tag };
        tag == b"*" || strong == etag.as_bytes()
    })
}

/// The part that a range of bytes stands for. What is none, or several, is passed over, as RFC 9110 allows.
fn part(range: &[u8], length: u64) -> Verdict {
    let Some((from, to)) = one_range(range) else { return Verdict::Whole };
    let (first, last) = match (from, to) {
        (Some(from), to) => (from, to.unwrap_or(u64::MAX).min(length.saturating_sub(1))),
        (None, Some(suffix)) if suffix > 0 => (length.saturating_sub(suffix), length.saturating_sub(1)),
        (None, _) => return Verdict::Unsatisfiable,
    };
    if first >= length {
        return Verdict::Unsatisfiable;
    }
    Verdict::Part { first, length: last - first + 1 }
}

/// The two numbers of one range, of which one may be missing, in their order.
fn one_range(range: &[u8]) -> Option<(Option<u64>, Option<u64>)> {
    let text = std::str::from_utf8(range).ok()?;
    let (unit, set) = text.split_once('=')?;
    let (from, to) = set.trim().split_once('-')?;
    let number = |digits: &str| match digits {
        "" => Some(None),
        _ if !digits.bytes().all(|byte| byte.is_ascii_digit()) => None,
        // One that is too large to be counted is beyond the end as well.
        _ => Some(Some(digits.parse().unwrap_or(u64::MAX))),
    };
    let (from, to) = (number(from)?, number(to)?);
    let is_range = match (from, to) {
        (Some(from), Some(to)) => from <= to,
        (None, None) => false,
        _ => true,
    };
    (unit.eq_ignore_ascii_case("bytes") && is_range).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODIFIED_S: i64 = 784_111_777;
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const TAG: &str = "\"2ebc98a1.1-a\"";

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_795_780_800)
    }

    fn given(method: &Method, fields: &[(&str, &str)]) -> Verdict {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: header::HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        verdict(&Validators::new(10, MODIFIED_S, 1, now()), 10, method, &headers)
    }

    #[test]
    fn a_version_has_a_tag_and_a_date() {
        let file = Validators::new(10, MODIFIED_S, 1, now());
        assert_eq!((&*file.etag, &*file.modified), (TAG, DATE));
        assert_ne!(Validators::new(10, MODIFIED_S, 2, now()).etag, TAG);
        assert_ne!(Validators::new(11, MODIFIED_S, 1, now()).etag, TAG);
        assert_eq!(Validators::new(10, -1, 0, now()).modified, "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(Validators::new(10, i64::MAX, 0, now()).modified, "Fri, 27 Nov 2026 12:00:00 GMT");
    }

    #[test]
    fn conditions_are_heeded_in_their_order() {
        use Verdict::{Failed, NotModified, Whole};
        for (fields, expected) in [
            (&[][..], Whole),
            (&[("if-none-match", TAG)], NotModified),
            (&[("if-none-match", "W/\"2ebc98a1.1-a\"")], NotModified),
            (&[("if-none-match", "\"x\", \"2ebc98a1.1-a\"")], NotModified),
            (&[("if-none-match", "\"x\""), ("if-none-match", TAG)], NotModified),
            (&[("if-none-match", "*")], NotModified),
            (&[("if-none-match", "\"x\"")], Whole),
            (&[("if-none-match", "2ebc98a1.1-a")], Whole),
            (&[("if-modified-since", DATE)], NotModified),
            (&[("if-modified-since", LATER)], NotModified),
            (&[("if-modified-since", EARLIER)], Whole),
            (&[("if-modified-since", "yesterday")], Whole),
            // The tag decides where there is one.
            (&[("if-none-match", "\"x\""), ("if-modified-since", DATE)], Whole),
            (&[("if-match", TAG)], Whole),
            (&[("if-match", "*")], Whole),
            (&[("if-match", "\"x\"")], Failed),
            (&[("if-match", "W/\"2ebc98a1.1-a\"")], Failed),
            (&[("if-match", TAG), ("if-unmodified-since", EARLIER)], Whole),
            (&[("if-unmodified-since", EARLIER)], Failed),
            (&[("if-unmodified-since", DATE)], Whole),
            (&[("if-match", "\"x\""), ("if-none-match", TAG)], Failed),
            (&[("if-none-match", TAG), ("range", "bytes=0-1")], NotModified),
        ] {
            assert_eq!(given(&Method::GET, fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn one_range_is_a_part() {
        use Verdict::{Unsatisfiable, Whole};
        let part = |first, length| Verdict::Part { first, length };
        for (range, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-5", part(2, 4)),
            ("bytes=2-", part(2, 8)),
            ("bytes=0-99", part(0, 10)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-99", part(0, 10)),
            ("BYTES= 1-2 ", part(1, 2)),
            ("bytes=1-99999999999999999999999", part(1, 9)),
            ("bytes=10-", Unsatisfiable),
            ("bytes=10-12", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=5-2", Whole),
            ("bytes=-", Whole),
            ("bytes=0-1,3-4", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=a-2", Whole),
            ("bytes", Whole),
            ("lines=0-1", Whole),
        ] {
            assert_eq!(given(&Method::GET, &[("range", range)]), expected, "{range}");
            assert_eq!(given(&Method::HEAD, &[("range", range)]), Whole, "{range}");
        }
        let empty = Validators::new(0, 0, 0, now());
        let headers = HeaderMap::from_iter([(header::RANGE, "bytes=-1".parse().unwrap())]);
        assert_eq!(verdict(&empty, 0, &Method::GET, &headers), Unsatisfiable);
    }

    #[test]
    fn a_range_is_of_the_version_that_is_known() {
        let part = Verdict::Part { first: 0, length: 2 };
        for (known, is_same) in [
            (TAG, true),
            (DATE, true),
            ("\"x\"", false),
            ("W/\"2ebc98a1.1-a\"", false),
            (EARLIER, false),
            (LATER, false),
            ("", false),
        ] {
            let verdict = given(&Method::GET, &[("range", "bytes=0-1"), ("if-range", known)]);
            assert_eq!(
                verdict,
                if is_same { Verdict::Part { first: 0, length: 2 } } else { Verdict::Whole },
                "{known}"
            );
        }
        assert_eq!(given(&Method::GET, &[("range", "bytes=0-1")]), part);
    }
}
