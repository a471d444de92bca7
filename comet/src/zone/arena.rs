//! Blocks: seeing them as records, taking them and giving them back.

use bytemuck::Zeroable;

use super::memory::{At, Block};
use super::record::{kind, DataBlock, Record, DATA_INLINE};
use super::Zone;
use crate::faults;

static ZEROS: Block = Block::ZEROS;

impl Zone<'_> {
    /// The block seen as a record. A number that names no block gives zeros: no panic, and an end to every chain.
    pub(super) fn get<R: Record>(&self, at: At) -> &R {
        #[cfg(test)]
        self.looks.update(|looks| looks + 1);
        bytemuck::cast_ref(self.blocks.get(at.0 as usize).unwrap_or(&ZEROS))
    }

    /// The block seen as a record, for writing. What is written to a block that does not exist goes nowhere.
    #[cfg_attr(feature = "faults", track_caller)]
    pub(super) fn get_mut<R: Record>(&mut self, at: At) -> &mut R {
        faults::point("write");
        #[cfg(test)]
        super::tests::burn(&mut self.write_fuse);
        let block = match self.blocks.get_mut(at.0 as usize) {
            Some(block) if at.is_some() => block,
            _ => {
                self.spill = Block::zeroed();
                &mut self.spill
            }
        };
        bytemuck::cast_mut(block)
    }

    /// Fills a block.
    #[cfg_attr(feature = "faults", track_caller)]
    pub(super) fn put<R: Record>(&mut self, at: At, record: R) {
        *self.get_mut(at) = record;
    }

    /// Takes a free block; its content is undefined.
    pub(super) fn allocate(&mut self) -> Option<At> {
        #[cfg(test)]
        if super::tests::refuses(&mut self.scarcity) {
            return None;
        }
        let at = match self.header.free {
            At::NONE if self.header.fresh < self.header.block_count => {
                let at = At(self.header.fresh);
                self.header.fresh += 1;
                at
            }
            At::NONE => return None,
            at => {
                self.header.free = self.get::<DataBlock>(at).next;
                at
            }
        };
        self.header.free_count = self.header.free_count.saturating_sub(1);
        Some(at)
    }

    /// Gives a block back.
    pub(super) fn free(&mut self, at: At) {
        if at.is_none() {
            return;
        }
        let next = self.header.free;
        let free = DataBlock { kind: kind::FREE, next, ..DataBlock::zeroed() };
        self.put(at, free);
        self.header.free = at;
        self.header.free_count += 1;
    }

    /// Gives a chain of [`DataBlock`]s back.
    pub(super) fn free_chain(&mut self, mut at: At) {
        while at.is_some() {
            let next = self.get::<DataBlock>(at).next;
            self.free(at);
            at = next;
        }
    }

    /// Writes bytes into new [`DataBlock`]s. The caller has reserved enough.
    pub(super) fn write_chain(&mut self, source: &mut Bytes<'_>) -> Option<At> {
        let mut first = At::NONE;
        let mut last = At::NONE;
        while !source.is_empty() {
            let Some(at) = self.allocate() else {
                self.free_chain(first);
                return None;
            };
            let mut block = DataBlock { kind: kind::PART, ..DataBlock::zeroed() };
            source.fill(&mut block.bytes);
            self.put(at, block);
            if last.is_some() {
                self.get_mut::<DataBlock>(last).next = at;
            } else {
                first = at;
            }
            last = at;
        }
        Some(first)
    }

    /// Appends up to `len` bytes of a chain to `out`.
    pub(super) fn read_chain(&self, mut at: At, len: usize, out: &mut Vec<u8>) {
        let end = out.len() + len;
        while at.is_some() && out.len() < end {
            let block = self.get::<DataBlock>(at);
            let take = (end - out.len()).min(DATA_INLINE);
            out.extend(block.bytes.iter().take(take));
            at = block.next;
        }
    }
}

/// Several slices read as one.
pub(super) struct Bytes<'a> {
    current: &'a [u8],
    rest: &'a [&'a [u8]],
}

impl<'a> Bytes<'a> {
    /// Reads `first`, then each of `rest`.
    pub fn new(first: &'a [u8], rest: &'a [&'a [u8]]) -> Self {
        Bytes { current: first, rest }
    }

    /// Whether everything has been read.
    pub fn is_empty(&mut self) -> bool {
        while self.current.is_empty() {
            let Some((next, rest)) = self.rest.split_first() else {
                return true;
            };
            self.current = next;
            self.rest = rest;
        }
        false
    }

    /// Fills `out` as far as there is something left.
    pub fn fill(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() && !self.is_empty() {
            let len = out.len().min(self.current.len());
            let (from, later) = self.current.split_at(len);
            let (to, free) = out.split_at_mut(len);
            to.copy_from_slice(from);
            self.current = later;
            out = free;
        }
    }
}
