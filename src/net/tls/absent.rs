//! TLS where it was left out: there is none.

use std::os::fd::OwnedFd;

use crate::{error::Result, net::input::Input};

/// Not one certificate.
#[derive(Debug, Clone)]
pub(crate) enum Tls {}

impl Tls {
    pub(crate) fn acceptor(&self, _: &[&[u8]]) -> Result<Acceptor> {
        match *self {}
    }

    pub(crate) fn adopt(&self, _: &Self) {
        match *self {}
    }
}

/// Accepts nobody.
#[derive(Debug, Clone)]
pub(crate) enum Acceptor {}

impl Acceptor {
    pub(crate) fn accept(&self) -> rustix::io::Result<Stream> {
        match *self {}
    }
}

/// Not one connection.
#[derive(Debug)]
pub(crate) enum Stream {}

impl Stream {
    pub(crate) fn is_handshaking(&self) -> bool {
        match *self {}
    }

    pub(crate) fn has_more(&self) -> bool {
        match *self {}
    }

    pub(crate) fn has_ended(&self) -> bool {
        match *self {}
    }

    pub(crate) fn is_flushed(&self) -> bool {
        match *self {}
    }

    pub(crate) fn take(&mut self, _: &mut Input) -> usize {
        match *self {}
    }

    pub(crate) fn receive(&mut self, _: &OwnedFd) -> rustix::io::Result<(usize, usize)> {
        match *self {}
    }

    pub(crate) fn flush(&mut self, _: &OwnedFd) -> rustix::io::Result<bool> {
        match *self {}
    }

    pub(crate) fn seal(&mut self, _: &[u8]) -> usize {
        match *self {}
    }

    pub(crate) fn end(&mut self) {
        match *self {}
    }
}
