//! What has happened to what is parked. It knows not what that is.

use rustix::event::epoll::EventFlags;

use super::key::Side;

/// What has happened to a tenant's socket, and to the one that is joined to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) own: EventFlags,
    pub(crate) other: EventFlags,
    /// It is to be run without an event.
    pub(crate) woken: bool,
}

impl Flags {
    pub(crate) const NONE: Self = Self { own: EventFlags::empty(), other: EventFlags::empty(), woken: false };
    pub(super) const WOKEN: Self = Self { woken: true, ..Self::NONE };

    pub(super) fn new(side: Side, flags: EventFlags) -> Self {
        match side {
            Side::Own => Self { own: flags, ..Self::NONE },
            Side::Other => Self { other: flags, ..Self::NONE },
        }
    }

    #[must_use]
    pub(super) fn and(self, more: Self) -> Self {
        Self { own: self.own | more.own, other: self.other | more.other, woken: self.woken | more.woken }
    }

    /// What it means to whom the socket is lent.
    #[must_use]
    pub(super) fn of_other(self) -> Self {
        Self { own: EventFlags::empty(), other: self.own | self.other, woken: self.woken }
    }
}
