//! Bodies that are kept in memory while their connections are parked, out of what all may have together.
//! It does not know how they come, nor who reads them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// What all may have together.
const MOST: usize = 64 * 1024 * 1024;

/// A body that is kept in memory while its connection is parked, out of what all may have together.
#[derive(Debug)]
pub(crate) struct Gathered {
    bytes: Vec<u8>,
    /// How much of it was read.
    read: usize,
    /// What it takes, or is going to take, of what all may have.
    reserved: usize,
    in_all: Arc<AtomicUsize>,
}

impl Gathered {
    /// Whether a body of this length may be gathered at all.
    pub(crate) fn may_hold(length: u64) -> bool {
        length <= MOST as u64
    }

    /// With room for a body of this length, where it is known; none where there is no room.
    pub(crate) fn new(in_all: &Arc<AtomicUsize>, length: Option<u64>) -> Option<Self> {
        let mut new = Self { bytes: Vec::new(), read: 0, reserved: 0, in_all: Arc::clone(in_all) };
        let length = usize::try_from(length.unwrap_or(0)).unwrap_or(usize::MAX);
        new.reserve(length).then_some(new)
    }

    /// Keeps these bytes; says whether there was room.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> bool {
        let more = (self.bytes.len() + bytes.len()).saturating_sub(self.reserved);
        if more > 0 && !self.reserve(more) {
            return false;
        }
        self.bytes.extend_from_slice(bytes);
        true
    }

    /// What was not read yet.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.read..]
    }

    /// Passes over so much of what was not read yet.
    pub(crate) fn skip(&mut self, length: usize) {
        self.read += length.min(self.unread().len());
    }

    /// Copies what was not read yet, as much as there is room for; says how much that was.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> usize {
        let left = self.unread();
        let amount = buffer.len().min(left.len());
        buffer[..amount].copy_from_slice(&left[..amount]);
        self.read += amount;
        amount
    }

    /// Appends what was kept to another buffer, for whose sake this is kept from now on.
    pub(crate) fn move_to(&mut self, out: &mut Vec<u8>) {
        out.append(&mut std::mem::take(&mut self.bytes));
    }

    fn reserve(&mut self, length: usize) -> bool {
        if length > MOST.saturating_sub(self.in_all.fetch_add(length, Relaxed)) {
            self.in_all.fetch_sub(length, Relaxed);
            return false;
        }
        self.reserved += length;
        true
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.in_all.fetch_sub(self.reserved, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gathered_is_bounded_in_all_and_given_back() {
        let in_all = Arc::default();
        let mut announced = Gathered::new(&in_all, Some(MOST as u64 - 4)).unwrap();
        assert!(Gathered::new(&in_all, Some(5)).is_none());
        let mut unknown = Gathered::new(&in_all, None).unwrap();
        assert!(announced.add(b"hello") && unknown.add(b"abc"));
        assert!(!unknown.add(b"d") || !unknown.add(b"e"));
        assert_eq!(in_all.load(Relaxed), MOST);
        drop(announced);
        assert!(unknown.add(b"e"));
        drop(unknown);
        assert_eq!(in_all.load(Relaxed), 0);
    }

    #[test]
    fn what_is_gathered_is_read_once() {
        let mut gathered = Gathered::new(&Arc::default(), None).unwrap();
        assert!(gathered.add(b"hel") && gathered.add(b"lo"));
        let mut buffer = [0; 4];
        assert_eq!((gathered.read(&mut buffer), &buffer), (4, b"hell"));
        assert_eq!((gathered.read(&mut buffer), buffer[0]), (1, b'o'));
        assert_eq!(gathered.read(&mut buffer), 0);
    }
}
