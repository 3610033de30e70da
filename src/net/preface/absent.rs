//! The PROXY protocol where it was left out: nobody is taken to speak it.

use super::Preface;

pub(in crate::net) fn parse(_: &[u8]) -> Preface {
    Preface::Malformed
}
