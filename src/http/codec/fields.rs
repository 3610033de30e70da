//! What holds for the fields of any head: how many there may be, how their lines end, lists, and the map of
//! them. It knows no field by its name.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields that a head may have.
pub(super) const MOST: usize = 100;

/// A field as it came: its value without the blanks around it.
pub(crate) type Field<'a> = httparse::Header<'a>;

/// Whether every line of this head ends in CRLF. The parser takes a line feed for the end of a line as well
/// (RFC 9112, section 2.2, allows that), but a party before or behind may not.
pub(super) fn end_in_crlf(head: &[u8], fields: &[Field<'_>]) -> bool {
    let begin = head.as_ptr().addr();
    // Where a field begins a line has ended.
    let ends = |field: &Field<'_>| head[..field.name.as_ptr().addr() - begin].ends_with(b"\r\n");
    head.ends_with(b"\r\n\r\n") && fields.iter().all(ends)
}

/// The fields as a map.
pub(super) fn to_map(fields: &[Field<'_>]) -> HeaderMap {
    let mut map = HeaderMap::new();
    // What httparse takes for a name or a value, the map takes too.
    map.extend(fields.iter().filter_map(|field| {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(field.value).ok()?))
    }));
    map
}

/// Whether this is the field of that name.
pub(crate) fn is(field: &Field<'_>, name: &str) -> bool {
    field.name.eq_ignore_ascii_case(name)
}

/// Whether the list has this element.
pub(crate) fn lists(value: &[u8], element: &str) -> bool {
    elements(value).any(|found| found.eq_ignore_ascii_case(element.as_bytes()))
}

/// The elements of a list (RFC 9110, section 5.6.1).
pub(crate) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}
