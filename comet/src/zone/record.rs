//! What a block can be. Each record fills one block.

use bytemuck::{Pod, Zeroable};

use super::memory::{At, Block, BLOCK_SIZE, CLASSES};
use crate::message::MessageId;

/// What a block is used as: its first byte.
pub(super) mod kind {
    /// On the free list.
    pub const FREE: u8 = 0;
    /// [`super::ChannelHead`].
    pub const CHANNEL: u8 = 1;
    /// [`super::MessageHead`].
    pub const MESSAGE: u8 = 2;
    /// [`super::SlotHead`].
    pub const SLOT: u8 = 3;
    /// A part of another record.
    pub const PART: u8 = 4;
}

/// A record that a block can be seen as.
pub(super) trait Record: Pod {}

macro_rules! records {
    ($($name:ty),*) => { $(
        const _: () = assert!(size_of::<$name>() == BLOCK_SIZE && align_of::<$name>() <= align_of::<Block>());
        impl Record for $name {}
    )* };
}

records!(
    ChannelHead,
    ChannelTail,
    EntryBlock,
    MessageHead,
    DataBlock,
    SlotHead,
    MailBlock,
    LedgerBlock,
    TimedHead
);

/// What channels and messages have in common, at the same place: a place in the timing wheel.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct TimedHead {
    pub kind: u8,
    pub flags: u8,
    pub len: u16,
    pub chain: At,
    pub wheel_next: At,
    pub wheel_prev: At,
    /// Place in the wheel plus one; 0 when no timer runs.
    pub wheel_slot: u32,
    pub owner: At,
    /// Milliseconds.
    pub deadline: u64,
    rest: [u64; 12],
}

/// A channel's fixed part.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct ChannelHead {
    pub kind: u8,
    /// [`DELETED`].
    pub flags: u8,
    /// Length of the id in bytes.
    pub id_len: u16,
    /// The [`ChannelTail`].
    pub tail: At,
    pub wheel_next: At,
    pub wheel_prev: At,
    pub wheel_slot: u32,
    /// Next in the bucket, or in the list of leaving channels.
    pub bucket_next: At,
    /// When an idle channel may be collected, in milliseconds.
    pub deadline: u64,
    pub hash: u64,
    pub life: u64,
    /// Neighbours in the ring of channels of the same class.
    pub class_next: At,
    pub class_prev: At,
    pub first: At,
    pub last: At,
    /// Messages that count: all but transient ones.
    pub stored: u32,
    pub transient: u32,
    /// Blocks that the channel's messages hold.
    pub blocks: u32,
    pub last_tag: u32,
    /// The sequence number that the next message gets.
    pub next_seq: u64,
    pub last_time: u64,
    /// When a subscriber last asked, in milliseconds.
    pub requested: u64,
    /// Grows when a new subscriber drives out those before it (`push_subscriber_concurrency last`).
    pub reign: u32,
    /// Idle time before collection, in seconds.
    pub timeout: u32,
    /// [`LedgerBlock`], once something was dropped.
    pub ledger: At,
    /// The ring that it is in: a size class, from 1 on, [`IDLE_CLASS`], [`BLANK_CLASS`], or 0 for none.
    pub class: u32,
    /// The second and the tag up to which a former life of the channel may have given ids: who comes with an earlier one may
    /// have missed some of it, and nobody can count that any more.
    pub former_time: u32,
    pub former_tag: u32,
}

impl ChannelHead {
    /// The id of the newest message; before the first, that of what was before this life.
    pub fn last_id(&self) -> MessageId {
        MessageId { time: self.last_time, tag: self.last_tag }
    }

    /// The last id that a former life of the channel may have given.
    pub fn former(&self) -> MessageId {
        MessageId { time: u64::from(self.former_time), tag: self.former_tag }
    }

    /// Notes what a former life of the channel may have given.
    pub fn set_former(&mut self, id: MessageId) {
        self.former_time = u32::try_from(id.time).unwrap_or(u32::MAX);
        self.former_tag = id.tag;
    }
}

/// Deleted by a publisher; some worker still has to tell its subscribers.
pub(super) const DELETED: u8 = 1;
/// The class of channels without messages and subscribers.
pub(super) const IDLE_CLASS: u32 = CLASSES as u32 + 1;
/// The class of those among them that never had a message.
pub(super) const BLANK_CLASS: u32 = IDLE_CLASS + 1;

/// One worker's subscribers of one channel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub(super) struct SlotEntry {
    /// The worker's [`SlotHead`].
    pub slot: At,
    /// The slot's generation when the entry was made: an older one is of a dead worker.
    pub generation: u32,
    /// Waiting subscribers; [`NOTIFIED`] while a hint is under way, [`BUSY`] while some have still to be looked at.
    pub count: u32,
}

/// Bit in [`SlotEntry::count`]: the worker has been told, and has not looked yet.
pub(super) const NOTIFIED: u32 = 1 << 31;

/// Bit in [`SlotEntry::count`]: the worker has looked on behalf of some of its subscribers, and not yet of all.
pub(super) const BUSY: u32 = 1 << 30;

impl SlotEntry {
    pub fn subscribers(&self) -> u32 {
        self.count & !(NOTIFIED | BUSY)
    }

    pub fn is_busy(&self) -> bool {
        self.count & BUSY != 0
    }

    pub fn is_notified(&self) -> bool {
        self.count & NOTIFIED != 0
    }
}

/// Bytes of the id in a [`ChannelTail`].
pub(super) const ID_INLINE: usize = 70;
/// Slot entries in a [`ChannelTail`].
pub(super) const ENTRIES_INLINE: usize = 4;

/// A channel's second part: the first workers' subscriber counts, and the beginning of the id.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct ChannelTail {
    pub kind: u8,
    pub unused: u8,
    pub id: [u8; ID_INLINE],
    /// The rest of the id, in [`DataBlock`]s.
    pub id_rest: At,
    /// More entries.
    pub more: At,
    pub entries: [SlotEntry; ENTRIES_INLINE],
}

/// Slot entries in an [`EntryBlock`].
pub(super) const ENTRIES_MORE: usize = 10;

/// More slot entries.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct EntryBlock {
    pub kind: u8,
    pub unused: [u8; 3],
    pub next: At,
    pub entries: [SlotEntry; ENTRIES_MORE],
}

/// Bytes of content in a [`MessageHead`].
pub(super) const MESSAGE_INLINE: usize = 40;

/// A message's fixed part and the beginning of its content: the content type, then the body or the file's path.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct MessageHead {
    pub kind: u8,
    /// [`TRANSIENT`], [`IN_FILE`], [`DELETE_WHEN_RECEIVED`], [`HAS_EVENT`].
    pub flags: u8,
    /// Length in bytes of the content type and, with [`HAS_EVENT`], a NUL and the event's name.
    pub type_len: u16,
    /// The rest of the content, in [`DataBlock`]s.
    pub rest: At,
    pub wheel_next: At,
    pub wheel_prev: At,
    pub wheel_slot: u32,
    pub channel: At,
    /// When the message expires, in milliseconds; `u64::MAX` for never.
    pub deadline: u64,
    pub next: At,
    pub prev: At,
    pub seq: u64,
    pub stamp: u64,
    pub time: u64,
    pub tag: u32,
    /// All blocks of this message, this one included.
    pub blocks: u32,
    /// Length of the body in memory, or of the path.
    pub content_len: u32,
    /// [`DELETE_WHEN_RECEIVED`] applies only while the channel holds more messages than this.
    pub min_stored: u32,
    /// Length of the file.
    pub file_len: u64,
    pub content: [u8; MESSAGE_INLINE],
}

/// Published with storage off: kept a moment for clients between two polls.
pub(super) const TRANSIENT: u8 = 1;
/// The body is in a file; the content is its path.
pub(super) const IN_FILE: u8 = 2;
/// `push_delete_oldest_received_message`.
pub(super) const DELETE_WHEN_RECEIVED: u8 = 4;

/// The content type is followed by a NUL and the event's name. Most messages have none, and pay nothing for it.
pub(super) const HAS_EVENT: u8 = 8;

/// Bytes in a [`DataBlock`]: all but the kind and the link.
pub(super) const DATA_INLINE: usize = BLOCK_SIZE - 8;

/// A continuation of content or of an id.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct DataBlock {
    pub kind: u8,
    pub unused: [u8; 3],
    pub next: At,
    pub bytes: [u8; DATA_INLINE],
}

/// Blocks of hints in a slot.
pub(super) const MAIL_BLOCKS: usize = 4;
/// Hints in a [`MailBlock`].
pub(super) const MAIL_INLINE: usize = 15;

/// A worker: one process in nginx's process table.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct SlotHead {
    pub kind: u8,
    pub unused: [u8; 3],
    pub next: At,
    /// `ngx_process_slot`.
    pub index: u32,
    /// Grows with each worker that takes the slot and when one leaves it.
    pub generation: u32,
    /// 0 when nobody has the slot.
    pub pid: u32,
    pub mail_len: u32,
    /// More hints than fit: look at everything.
    pub overflow: u32,
    /// The worker's eventfd has been written and not read.
    pub signaled: u32,
    pub mail: [At; MAIL_BLOCKS],
    pub rest: [u64; 10],
}

/// "This channel moved": the channel's block and the low half of its life.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub(super) struct Hint {
    pub channel: At,
    pub life: u32,
}

/// Hints to a worker.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct MailBlock {
    pub kind: u8,
    pub unused: [u8; 7],
    pub hints: [Hint; MAIL_INLINE],
}

/// Seconds in a [`LedgerBlock`].
pub(super) const LEDGER_ENTRIES: usize = 14;

/// A second in which the channel had messages of which some were dropped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub(super) struct LedgerEntry {
    /// Seconds since 1970.
    pub time: u32,
    /// Sequence number of (the possibly imaginary) tag 0 of that second, less the block's `origin`.
    pub base: u32,
}

/// Which sequence numbers dropped messages had, by second, so that an old cursor can be told how much it missed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct LedgerBlock {
    pub kind: u8,
    pub len: u8,
    /// Bit `i`: seconds before entry `i` have been forgotten; bit `len`: seconds after the last one.
    pub thinned: u16,
    pub unused: u32,
    /// A signed number: tag 0 of the first second may lie before the first message.
    pub origin: u64,
    pub entries: [LedgerEntry; LEDGER_ENTRIES],
}
