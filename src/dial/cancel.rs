//! What ends a dial from outside: a bell that all who wait for something listen to. It does not know who
//! they are.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use crate::{
    error::{Error, Result},
    sys::wait::Bell,
};

/// Ends a dial from another thread; clones end the same one.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<Bell>);

impl Cancel {
    /// For one dial.
    ///
    /// # Errors
    ///
    /// The process is out of descriptors.
    pub fn new() -> Result<Self> {
        Bell::new().map(|bell| Self(Arc::new(bell))).map_err(|errno| Error::start("dialing", errno))
    }

    /// Ends it: whatever is under way or waiting gets the class [`Class::Cancelled`](super::Class::Cancelled).
    pub fn cancel(&self) {
        self.0.ring();
    }
}

impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
