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

    /// Adds a number: seven bits in each byte, the lowest first, and a bit that says whether more follow. Most are small.
    pub fn number(&mut self, mut number: u32) {
        while let Some(rest) = number.checked_shr(7).filter(|rest| *rest > 0) {
            self.0.push(number as u8 | 0x80);
            number = rest;
        }
        self.0.push(number as u8);
    }

    /// Adds a byte string.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u32);
        self.0.extend(bytes);
    }

    /// What was written so far, to be added to.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.0
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
        let mut number = 0;
        for shift in [0, 7, 14, 21, 28] {
            let Some((byte, rest)) = self.0.split_first() else { break };
            self.0 = rest;
            number |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }

    /// The next byte string.
    pub fn bytes(&mut self) -> &'a [u8] {
        let len = self.number() as usize;
        let (bytes, rest) = self.0.split_at_checked(len).unwrap_or_default();
        self.0 = rest;
        bytes
    }
}
