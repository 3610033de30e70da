//! A number that nobody can guess. It does not know what it is for.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Another one each time, of the standard library's making.
pub(crate) fn number() -> u64 {
    RandomState::new().build_hasher().finish()
}
