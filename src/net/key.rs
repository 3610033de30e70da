//! The name of a slot's tenant. It knows neither the slots nor the tenants.

/// Which slot, and which of those that have been in it: a closed descriptor's number comes back at once,
/// while an event of its predecessor may still be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(super) index: u32,
    pub(super) generation: u32,
}

#[cfg(test)]
impl Key {
    pub(crate) fn of_nobody() -> Self {
        Self { index: 0, generation: 0 }
    }
}

/// Which of a tenant's sockets an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Its own.
    Own,
    /// The one that is joined to it.
    Other,
}

/// In a token: the event is the other socket's. No index is as large.
const OTHER: u64 = 1 << 31;

impl Key {
    /// Never the largest number.
    pub(crate) fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_u64(data: u64) -> Self {
        // Both halves are cut to their 32 bits on purpose.
        Self { index: data as u32, generation: (data >> 32) as u32 }
    }

    /// What an event carries.
    pub(super) fn token(self, side: Side) -> u64 {
        match side {
            Side::Own => self.to_u64(),
            Side::Other => self.to_u64() | OTHER,
        }
    }

    pub(super) fn from_token(token: u64) -> (Self, Side) {
        let side = if token & OTHER == 0 { Side::Own } else { Side::Other };
        (Self::from_u64(token & !OTHER), side)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_made() {
        for key in [Key { index: 0, generation: 0 }, Key { index: 15_999_999, generation: u32::MAX }] {
            for side in [Side::Own, Side::Other] {
                assert_eq!(Key::from_token(key.token(side)), (key, side));
            }
            assert_eq!(Key::from_u64(key.to_u64()), key);
            assert_ne!(key.token(Side::Other), u64::MAX);
        }
    }
}
