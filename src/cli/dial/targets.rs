//! Targets as they are written in a file. It does not know whether they can be reached.

use std::{
    fs,
    io::{self, Read},
};

use crate::cli::values;

/// The targets in a file, or the sentence that says what is wrong with it.
pub(super) fn read_targets(file: &str) -> Result<Vec<String>, String> {
    let mut bytes = Vec::new();
    let read = match file {
        "-" => io::stdin().read_to_end(&mut bytes),
        file => fs::File::open(file).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    read.map_err(|error| format!("cannot read --file {file}: {error}"))?;
    let text = decode(&bytes)
        .ok_or_else(|| format!("--file {file} is no text; give one target a line, in UTF-8 or UTF-16"))?;
    let lines = text.lines().enumerate().filter_map(|(index, line)| {
        let target = line.split('#').next().unwrap_or_default().trim();
        let checked =
            || values::target(target).map_err(|wrong| format!("{file}, line {}: {wrong}", index + 1));
        (!target.is_empty()).then(checked)
    });
    lines.collect()
}

/// Text as editors of all systems write it: with a byte order mark or without, lines that end in LF, CRLF
/// or CR, which comes out as LF.
fn decode(bytes: &[u8]) -> Option<String> {
    let utf_16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        String::from_utf16(&units.collect::<Vec<_>>()).ok().filter(|_| bytes.len().is_multiple_of(2))
    };
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf_16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf_16(rest, u16::from_be_bytes)?,
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => String::from_utf8(rest.to_vec()).ok()?,
    };
    Some(text.replace("\r\n", "\n").replace('\r', "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_editors_of_all_systems_write_them() {
        let utf_16 = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "\u{feff}a:1\r\nb:2".encode_utf16().flat_map(unit).collect()
        };
        for bytes in [
            b"a:1\nb:2".to_vec(),
            b"a:1\r\nb:2".to_vec(),
            b"a:1\rb:2".to_vec(),
            b"\xef\xbb\xbfa:1\nb:2".to_vec(),
            utf_16(u16::to_le_bytes),
            utf_16(u16::to_be_bytes),
        ] {
            assert_eq!(decode(&bytes).as_deref(), Some("a:1\nb:2"), "{bytes:?}");
        }
        assert_eq!(decode(b"\xff"), None);
        assert_eq!(decode(b"\xff\xfea"), None);
    }
}
