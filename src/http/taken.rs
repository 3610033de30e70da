//! A request that was taken off the input. It does not know how it is answered.

use std::io;

use super::{
    codec::head::{self, Head},
    gathered::Gathered,
    receipt::Receipt,
};
use crate::session::{connection::Connection, holds::Hold};

/// The head of a request, and how far its body has come.
pub(crate) struct Taken {
    pub(crate) head: Head,
    /// The head as it came.
    pub(crate) text: Vec<u8>,
    pub(crate) receipt: Receipt,
    /// The body, where it was gathered in memory.
    pub(crate) gathered: Option<Gathered>,
    /// Leave to wait for the rest of the body.
    pub(crate) hold: Option<Hold>,
}

impl Taken {
    /// Takes the head off the connection's input; its body is read from there.
    pub(super) fn from_input(connection: &mut Connection<'_>, head: Head, hold: Option<Hold>) -> Self {
        let text = take_head(connection, &head);
        let receipt = Receipt::new(head.framing);
        Self { head, text, receipt, gathered: None, hold }
    }

    /// With a body that has been gathered.
    pub(super) fn gathered(text: Vec<u8>, receipt: Receipt, gathered: Option<Gathered>) -> io::Result<Self> {
        let head = head::parse(&text).ok().flatten();
        let head = head.ok_or_else(|| io::Error::other("a head was whole and is not"))?;
        Ok(Self { head, text, receipt, gathered, hold: None })
    }
}

/// Takes the head off the connection's input.
pub(crate) fn take_head(connection: &mut Connection<'_>, head: &Head) -> Vec<u8> {
    let text = connection.input()[..head.length].to_vec();
    connection.consume(head.length);
    text
}
