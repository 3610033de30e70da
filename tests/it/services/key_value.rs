//! A key-value store with a protocol of lines: `SET key value`, `GET key`, `DEL key`, `QUIT`.

use std::{
    borrow::Cow,
    collections::HashMap,
    io::{self, Write},
};

use overfall::{Connection, Handler, Next, Refusal};
use parking_lot::Mutex;

#[derive(Default)]
struct KeyValue(Mutex<HashMap<String, String>>);

impl KeyValue {
    fn reply(&self, line: &str) -> Option<String> {
        let mut words = line.splitn(3, ' ');
        let mut map = self.0.lock();
        Some(match (words.next().unwrap_or_default(), words.next(), words.next()) {
            ("SET", Some(key), Some(value)) => {
                map.insert(key.to_owned(), value.to_owned());
                "OK".to_owned()
            }
            ("GET", Some(key), None) => {
                map.get(key).map_or("NONE".to_owned(), |value| format!("VALUE {value}"))
            }
            ("DEL", Some(key), None) => map.remove(key).map_or("NONE", |_| "OK").to_owned(),
            ("QUIT", None, None) => return None,
            _ => "ERROR SET key value, GET key, DEL key or QUIT".to_owned(),
        })
    }
}

impl Handler for KeyValue {
    /// How many commands the client has given.
    type State = u64;

    const CLIENT_SPEAKS_FIRST: bool = true;

    fn open(&self, _: &mut Connection<'_>) -> io::Result<u64> {
        Ok(0)
    }

    fn ready(&self, c: &mut Connection<'_>, commands: &mut u64) -> io::Result<Next> {
        let Some(end) = c.input().iter().position(|&byte| byte == b'\n') else { return Ok(Next::Park) };
        let reply = self.reply(String::from_utf8_lossy(&c.input()[..end]).trim_end());
        c.consume(end + 1);
        *commands += 1;
        match reply {
            Some(reply) => writeln!(c, "{reply}")?,
            None => {
                writeln!(c, "BYE {commands}")?;
                return Ok(Next::Close);
            }
        }
        Ok(Next::Again)
    }

    fn refusal(&self, _: Refusal) -> Cow<'static, [u8]> {
        Cow::Borrowed(b"BUSY\n")
    }
}

#[test]
fn commands_are_replied_to() {
    let store = KeyValue::default();
    for (line, reply) in [
        ("GET a", "NONE"),
        ("SET a b c", "OK"),
        ("GET a", "VALUE b c"),
        ("DEL a", "OK"),
        ("DEL a", "NONE"),
        ("SET a", "ERROR SET key value, GET key, DEL key or QUIT"),
        ("", "ERROR SET key value, GET key, DEL key or QUIT"),
    ] {
        assert_eq!(store.reply(line).as_deref(), Some(reply), "{line}");
    }
    assert_eq!(store.reply("QUIT"), None);
}

#[test]
fn a_client_gives_several_commands_at_once() {
    let handle = crate::support::builder().serve_handler(KeyValue::default()).expect("it serves");
    let reply =
        crate::support::exchange(handle.local_addr(), b"SET a b\r\nGET a\nGET b\nQUIT\n").expect("a reply");
    assert_eq!(String::from_utf8_lossy(&reply), "OK\nVALUE b\nNONE\nBYE 4\n");
}
