//! What holds for the fields of any head: how many there may be, lists, and the map of them. It knows no
//! field by its name.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields that a head may have.
pub(super) const MOST: usize = 100;

/// The fields as a map.
pub(super) fn to_map(fields: &[httparse::Header<'_>]) -> HeaderMap {
    let mut map = HeaderMap::new();
    // What httparse takes for a name or a value, the map takes too.
    map.extend(fields.iter().filter_map(|field| {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(field.value).ok()?))
    }));
    map
}

/// Whether the list has this element.
pub(super) fn lists(value: &[u8], element: &str) -> bool {
    elements(value).any(|found| found.eq_ignore_ascii_case(element.as_bytes()))
}

/// The elements of a list (RFC 9110, section 5.6.1).
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}
