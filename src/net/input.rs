//! A worker's buffer for input. It knows not whose input it is.

use std::mem;

use rustix::buffer::{SpareCapacity, spare_capacity};

/// The most input that is held for a connection whose handler does not take it.
pub(crate) const INPUT_LIMIT: usize = 16 * 1024;

/// Input that was read but not yet consumed.
#[derive(Debug)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    consumed: usize,
}

impl Input {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::with_capacity(INPUT_LIMIT), consumed: 0 }
    }

    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.consumed..]
    }

    pub(crate) fn consume(&mut self, amount: usize) {
        assert!(amount <= self.unread().len(), "{amount} bytes consumed of {}", self.unread().len());
        self.consumed += amount;
        if self.consumed == self.bytes.len() {
            self.clear();
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.unread().len() == INPUT_LIMIT
    }

    /// Room behind the unread input, which is moved to the front when there is none.
    pub(super) fn room(&mut self) -> usize {
        if self.bytes.len() == INPUT_LIMIT {
            self.bytes.drain(..mem::take(&mut self.consumed));
        }
        INPUT_LIMIT - self.bytes.len()
    }

    /// Appends as many of the bytes as there is room for; how many.
    #[cfg(feature = "tls")]
    pub(super) fn append(&mut self, bytes: &[u8]) -> usize {
        let amount = bytes.len().min(self.room());
        self.bytes.extend_from_slice(&bytes[..amount]);
        amount
    }

    /// That room, to be read into.
    pub(super) fn space(&mut self) -> SpareCapacity<'_, u8> {
        spare_capacity(&mut self.bytes)
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.consumed = 0;
    }

    /// Starts with what a parked connection had left.
    pub(crate) fn load(&mut self, unread: Box<[u8]>) {
        self.clear();
        self.bytes.extend_from_slice(&unread);
    }

    /// What a connection takes along when it parks.
    pub(crate) fn save(&self) -> Box<[u8]> {
        self.unread().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_consumed_from_the_front_and_its_room_comes_back() {
        let mut input = Input::new();
        input.load(vec![7; INPUT_LIMIT].into());
        assert!(input.is_full());
        assert_eq!(input.room(), 0);
        input.consume(INPUT_LIMIT - 2);
        assert_eq!(input.room(), INPUT_LIMIT - 2);
        assert_eq!(*input.save(), [7, 7]);
        input.consume(2);
        assert!(input.unread().is_empty());
    }
}
