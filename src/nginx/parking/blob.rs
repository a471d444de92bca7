//! Many small byte strings in one allocation: a parked client's memory is dominated by its number of allocations, and its
//! wake-up by the cache misses that they cost.

use std::cell::RefCell;

thread_local! {
    /// Written to first, so that what is kept is allocated once and has no spare room.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes byte strings one after another.
#[derive(Debug)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Begins with nothing.
    pub fn new() -> Self {
        let mut scratch = SCRATCH.take();
        scratch.clear();
        Writer(scratch)
    }

    /// Adds a number.
    pub fn number(&mut self, number: u32) {
        self.0.extend(number.to_ne_bytes());
    }

    /// Adds a byte string.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u32);
        self.0.extend(bytes);
    }

    /// Adds bytes without their length, and says how many there are now.
    pub fn raw(&mut self, bytes: &[u8]) -> usize {
        self.0.extend(bytes);
        self.0.len()
    }

    /// What was written.
    pub fn finish(self) -> Box<[u8]> {
        let kept = Box::from(self.0.as_slice());
        SCRATCH.set(self.0);
        kept
    }
}

/// Reads what a [`Writer`] has written, in the same order. Past the end there are zeros and empty strings.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from the beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    /// The next number.
    pub fn number(&mut self) -> u32 {
        let Some((number, rest)) = self.0.split_first_chunk::<4>() else { return 0 };
        self.0 = rest;
        u32::from_ne_bytes(*number)
    }

    /// The next byte string.
    pub fn bytes(&mut self) -> &'a [u8] {
        let len = self.number() as usize;
        let (bytes, rest) = self.0.split_at_checked(len).unwrap_or_default();
        self.0 = rest;
        bytes
    }
}
