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
///
/// ```
/// use overfall::dial::{Cancel, Config, dial_with};
///
/// let cancel = Cancel::new()?;
/// let clone = cancel.clone();
/// std::thread::spawn(move || clone.cancel());
/// // Nobody has this address (RFC 5737), so that it would take all of the timeout.
/// let outcomes = dial_with(&["192.0.2.1:80".to_owned()], &Config::default(), &cancel, &|_, _| {})?;
/// assert!(outcomes[0].failure.is_some());
/// # Ok::<(), overfall::Error>(())
/// ```
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
