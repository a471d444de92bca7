//! The zone's memory: a header, a hash table, and blocks of one size.
//!
//! Everything refers to everything else by block number, so the memory may be mapped anywhere, and a wrong number
//! can at worst name the wrong block: every access is checked.

use bytemuck::{Pod, Zeroable};

use crate::message::MessageId;

/// Bytes in a block. One size for all: nothing fragments, and what is free can be counted.
pub const BLOCK_SIZE: usize = 128;

/// Levels of the timing wheel.
pub(super) const WHEEL_LEVELS: usize = 4;
/// Slots of each level.
pub(super) const WHEEL_SLOTS: usize = 64;
/// Size classes for eviction: class `k` holds the channels whose messages take `2^(k-1) .. 2^k` blocks.
pub(super) const CLASSES: usize = 31;
/// All rings of channels: a ring for each size class, and two of idle channels.
pub(super) const RINGS: usize = CLASSES + 2;
/// Recently dead channels whose last message id is remembered.
pub(super) const TOMBSTONES: usize = 64;

/// "nginxpsh": what the memory of a zone begins with.
const MAGIC: u64 = u64::from_le_bytes(*b"nginxpsh");
/// Changes with every change of the layout, so that a newer module does not read an older zone.
const LAYOUT: u32 = 7;

/// The number of a block; 0 is none.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct At(pub(super) u32);

impl At {
    /// No block.
    pub const NONE: At = At(0);

    /// Whether this is no block.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether this names a block.
    pub fn is_some(self) -> bool {
        self.0 != 0
    }
}

/// One block, seen as one of the records of [`super::record`].
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Block([u64; BLOCK_SIZE / 8]);

impl Block {
    /// What a block number that names no block reads as.
    pub(super) const ZEROS: Block = Block([0; BLOCK_SIZE / 8]);
}

/// The last message id of a channel that died, so that its next life continues after it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub(super) struct Tombstone {
    pub hash: u64,
    pub time: u64,
    pub tag: u32,
    pub used: u32,
}

impl Tombstone {
    /// The last id that the channel has given.
    pub fn id(&self) -> MessageId {
        MessageId { time: self.time, tag: self.tag }
    }
}

/// How many lives of which nothing is known are kept in mind.
pub(super) const UNKNOWN: usize = 4;

/// A stretch of time in which there may have been a life that a snapshot knows nothing of: one that has ended without writing
/// its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub(super) struct Unknown {
    /// Its ids are of later seconds than this one,
    pub after: u64,
    /// up to this one.
    pub upto: u64,
}

impl Unknown {
    /// Whether a cursor is of such a life.
    pub fn contains(&self, id: MessageId) -> bool {
        // Who has seen all before the next life's first second is of that one.
        id.time > self.after && id < MessageId { time: self.upto, tag: u32::MAX }
    }
}

/// Whether these were one after the other, the last one first, and before this second.
pub(super) fn are_before(lives: &[Unknown], mut second: u64) -> bool {
    lives.iter().all(|life| {
        let is_before = life.after <= life.upto && life.upto <= second;
        second = life.after;
        is_before
    })
}

/// Counters since the zone was made.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Counters {
    /// Messages published.
    pub published: u64,
    /// Messages that went because the zone was full (invariant I10).
    pub evicted: u64,
    /// Messages that went because their time was over.
    pub expired: u64,
    /// Channels collected because they were idle.
    pub collected: u64,
    /// Times that the zone was put in order after a process had died while it changed it.
    pub recovered: u64,
}

/// What all workers share beside the blocks.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Header {
    magic: u64,
    layout: u32,
    /// 1 while a process is between lock and unlock: whoever finds it set after locking must recover.
    pub dirty: u32,
    pub block_count: u32,
    pub bucket_count: u32,
    pub hash_key: [u64; 2],
    /// 1 once the messages have moved to another zone: nothing may be published here any more.
    pub closed: u32,
    /// Blocks that were used and given back.
    pub free: At,
    /// All free blocks: given back, or never used.
    pub free_count: u32,
    /// The first block that was never used. Untouched memory costs nothing, so a large zone is cheap until it is needed.
    pub fresh: u32,
    /// Buckets that it has still to look into.
    pub scan_left: u32,
    /// Blocks that messages hold: what eviction could give back.
    pub message_blocks: u32,
    pub channel_count: u32,
    pub message_count: u32,
    /// The worker slots.
    pub slots: At,
    /// Deleted channels that some worker still serves.
    pub leaving: At,
    /// The number of the newest life of a channel.
    pub lives: u64,
    /// The zone-wide stamp of the newest message: the blocks of all messages up to it.
    pub stamps: u64,
    /// The time of the newest message: later ones are never before it, whatever the clock does, so that the order of times
    /// is that of stamps.
    pub newest_time: u64,
    /// When lives ran of which nothing is known, the last one first. What came before these is forgotten.
    pub unknown: [Unknown; UNKNOWN],
    /// The second up to which the wheel has been turned.
    pub wheel_now: u64,
    /// Ids that no new channel may fall behind: those from before the zone, and of channels that [`Tombstone`]s have no
    /// place for.
    pub dead_time: u64,
    pub dead_tag: u32,
    /// The ledger that is being rewritten: after a death its content cannot be trusted.
    pub ledger_in_work: At,
    pub counters: Counters,
    /// What of the counters an operator has been told, and when, in milliseconds.
    pub told: Counters,
    pub told_at: u64,
    /// The bucket in which the search for traces of dead workers goes on.
    pub scan: u32,
    /// The channel of each ring that gives way next.
    pub rings: [At; RINGS],
    pub wheel: [At; WHEEL_LEVELS * WHEEL_SLOTS],
    pub tombstones: [Tombstone; TOMBSTONES],
}

/// Why memory cannot be used as a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// Too small for the header and a few channels.
    #[error("the shared memory zone is too small: it needs {needed} bytes at least")]
    TooSmall {
        /// Bytes.
        needed: usize,
    },
    /// Not a zone, or one of another version of the module.
    #[error("the shared memory zone was made by another version of the module")]
    Foreign,
}

/// The three parts of a zone's memory.
pub(super) struct Parts<'m> {
    pub header: &'m mut Header,
    pub buckets: &'m mut [At],
    pub blocks: &'m mut [Block],
}

const HEADER_WORDS: usize = size_of::<Header>() / 8;
const BLOCK_WORDS: usize = BLOCK_SIZE / 8;
/// Room for a few channels, their messages, and a worker.
const MIN_BLOCKS: usize = 64;

/// A bucket for this many blocks. A channel takes two at least, so a bucket holds two channels at most on average.
const BLOCKS_PER_BUCKET: usize = 4;

fn plan(words: usize) -> Result<(usize, usize), MemoryError> {
    // Two buckets of four bytes are one word.
    let per_group = 2 * BLOCKS_PER_BUCKET * BLOCK_WORDS + 1;
    let groups = words.saturating_sub(HEADER_WORDS) / per_group;
    let blocks = (2 * BLOCKS_PER_BUCKET * groups).min(u32::MAX as usize / 2);
    if blocks < MIN_BLOCKS {
        let groups = MIN_BLOCKS.div_ceil(2 * BLOCKS_PER_BUCKET);
        return Err(MemoryError::TooSmall { needed: (HEADER_WORDS + groups * per_group) * 8 });
    }
    Ok((blocks / BLOCKS_PER_BUCKET, blocks))
}

impl<'m> Parts<'m> {
    /// Makes an empty zone of this memory.
    pub fn format(memory: &'m mut [u64], hash_key: [u64; 2]) -> Result<Self, MemoryError> {
        let (buckets, blocks) = plan(memory.len())?;
        let parts = Self::split(memory, buckets, blocks)?;
        parts.buckets.fill(At::NONE);
        *parts.header = Header {
            magic: MAGIC,
            layout: LAYOUT,
            dirty: 1,
            block_count: blocks as u32,
            bucket_count: buckets as u32,
            hash_key,
            free_count: blocks as u32 - 1,
            fresh: 1,
            ..Header::zeroed()
        };
        Ok(parts)
    }

    /// Finds the parts of a zone that was made before.
    pub fn attach(memory: &'m mut [u64]) -> Result<Self, MemoryError> {
        let (buckets, blocks) = plan(memory.len())?;
        let parts = Self::split(memory, buckets, blocks)?;
        let header = &parts.header;
        let ours = header.magic == MAGIC
            && header.layout == LAYOUT
            && header.block_count as usize == blocks
            && header.bucket_count as usize == buckets;
        ours.then_some(parts).ok_or(MemoryError::Foreign)
    }

    fn split(memory: &'m mut [u64], buckets: usize, blocks: usize) -> Result<Self, MemoryError> {
        let needed = MemoryError::TooSmall { needed: MIN_BLOCKS * BLOCK_SIZE };
        let (header, rest) = memory.split_at_mut_checked(HEADER_WORDS).ok_or(needed)?;
        let (bucket_words, rest) = rest.split_at_mut_checked(buckets / 2).ok_or(needed)?;
        let (block_words, _) = rest.split_at_mut_checked(blocks * BLOCK_WORDS).ok_or(needed)?;
        let header: &mut [Header] = bytemuck::cast_slice_mut(header);
        Ok(Parts {
            header: header.first_mut().ok_or(needed)?,
            buckets: bytemuck::cast_slice_mut(bucket_words),
            blocks: bytemuck::cast_slice_mut(block_words),
        })
    }
}
