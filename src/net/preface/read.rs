//! Reads what is said in the PROXY protocol. It knows no sockets.

use ppp::{
    PartialResult, v1,
    v2::{self, Command, Protocol},
};

use super::{Ends, LONGEST, Preface};

/// Version 1 is a line of at most so many bytes, its end included.
const LONGEST_LINE: usize = 107;

/// Reads one.
pub(in crate::net) fn parse(bytes: &[u8]) -> Preface {
    match bytes.first() {
        None => Preface::Part,
        Some(b'P') => parse_line(&bytes[..bytes.len().min(LONGEST_LINE)]),
        Some(_) => parse_binary(bytes),
    }
}

/// The library reads a line only when it is whole: it takes some parts of one for malformed.
fn parse_line(bytes: &[u8]) -> Preface {
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
        let begun = bytes.len().min(LINE.len());
        let may_go_on = bytes.len() < LONGEST_LINE && bytes[..begun] == LINE[..begun];
        return if may_go_on { Preface::Part } else { Preface::Malformed };
    };
    let ends = |client, local| Some(Ends { client, local });
    match v1::Header::try_from(&bytes[..=end]).map(|header| header.addresses) {
        Ok(v1::Addresses::Unknown) => Preface::Whole(end + 1, None),
        Ok(v1::Addresses::Tcp4(ip)) => {
            let client = (ip.source_address, ip.source_port).into();
            Preface::Whole(end + 1, ends(client, (ip.destination_address, ip.destination_port).into()))
        }
        Ok(v1::Addresses::Tcp6(ip)) => {
            let client = (ip.source_address, ip.source_port).into();
            Preface::Whole(end + 1, ends(client, (ip.destination_address, ip.destination_port).into()))
        }
        Err(_) => Preface::Malformed,
    }
}

/// What each line begins with.
const LINE: &[u8] = b"PROXY ";

fn parse_binary(bytes: &[u8]) -> Preface {
    let header = match v2::Header::try_from(bytes) {
        Ok(header) => header,
        Err(error) if error.is_incomplete() && bytes.len() < LONGEST => return Preface::Part,
        Err(_) => return Preface::Malformed,
    };
    let ends = match header.addresses {
        // What is unknown, or no TCP, has no address that means anything here.
        _ if header.command == Command::Local || header.protocol != Protocol::Stream => None,
        v2::Addresses::IPv4(ip) => Some(Ends {
            client: (ip.source_address, ip.source_port).into(),
            local: (ip.destination_address, ip.destination_port).into(),
        }),
        v2::Addresses::IPv6(ip) => Some(Ends {
            client: (ip.source_address, ip.source_port).into(),
            local: (ip.destination_address, ip.destination_port).into(),
        }),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    };
    Preface::Whole(header.len(), ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(client: &str, local: &str) -> Option<Ends> {
        Some(Ends { client: client.parse().unwrap(), local: local.parse().unwrap() })
    }

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    fn binary(rest: &[u8]) -> Vec<u8> {
        [SIGNATURE, rest].concat()
    }

    #[test]
    fn what_is_whole_is_understood() {
        let v4 = ends("192.0.2.1:5000", "192.0.2.2:80");
        let v6 = ends("[2001:db8::1]:5000", "[2001:db8::2]:443");
        let table: Vec<(Vec<u8>, Option<Ends>)> = vec![
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\n".to_vec(), v4),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 5000 443\r\n".to_vec(), v6),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (binary(b"\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x13\x88\0\x50"), v4),
            // With a field that nobody here knows.
            (binary(b"\x21\x11\0\x10\xc0\0\x02\x01\xc0\0\x02\x02\x13\x88\0\x50\xee\0\x01x"), v4),
            // LOCAL, with and without addresses; datagrams; nothing known.
            (binary(b"\x20\0\0\0"), None),
            (binary(b"\x20\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x13\x88\0\x50"), None),
            (binary(b"\x21\x12\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x13\x88\0\x50"), None),
            (binary(b"\x21\0\0\0"), None),
        ];
        for (text, expected) in table {
            let whole = [&text[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&whole), Preface::Whole(text.len(), expected), "{}", text.escape_ascii());
            for part in 0..text.len() {
                assert_eq!(parse(&text[..part]), Preface::Part, "{}", text[..part].escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_none_is_refused_as_soon_as_it_can_be() {
        let table: Vec<Vec<u8>> = vec![
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"POST".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 5000\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 99999\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 2001:db8::2 5000 80\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.1 192.0.2.2 5000 80\r\n".to_vec(),
            [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100]].concat(),
            binary(b"\x31\x11\0\x0c"),
            binary(b"\x22\x11\0\x0c"),
            binary(b"\x21\x11\0\x04aaaa"),
            binary(&[b"\x21\x11\xff\xff".as_slice(), &[0; 5000]].concat()),
            b"\r\n\r\nnot".to_vec(),
            b"\x16\x03\x01".to_vec(),
        ];
        for text in table {
            let read = &text[..text.len().min(LONGEST)];
            assert_eq!(parse(read), Preface::Malformed, "{}", read.escape_ascii());
        }
    }
}
