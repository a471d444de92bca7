//! All channels and messages as bytes, so that they outlive a restart, a reboot, and a change of the zone's layout.
//!
//! ```text
//! magic, format │ Head │ channel, its messages, channel … │ end │ length of all, CRC-32 of all before
//! ```
//!
//! Numbers are little-endian. A message that nobody may get any more (transient, or expired meanwhile) leaves its place, so
//! that who has not seen it is told. Times on the monotonic clock are saved as what was left, and the wall clock beside them
//! tells how long nothing ran.
//!
//! What is read may be anything: it is verified as a whole before any of it is used, and nothing is allocated by a number
//! that it contains.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::io::{self, Write};

use bytemuck::Zeroable;

use super::arena::Bytes;
use super::ledger::{are_in_step, Second};
use super::log::message_blocks;
use super::memory::{are_before, At, Unknown, UNKNOWN};
use super::record::{
    kind, ChannelHead, DataBlock, LedgerBlock, LedgerEntry, MessageHead, DATA_INLINE,
    DELETE_WHEN_RECEIVED, HAS_EVENT, IN_FILE, LEDGER_ENTRIES, TRANSIENT,
};
use super::{Content, Zone};
use crate::clock::Now;
use crate::message::MessageId;

const MAGIC: &[u8; 8] = b"pushsnap";
/// Changes with what is written, not with the zone's layout.
const FORMAT: u32 = 3;
/// Bytes after the records: length and checksum.
const TRAILER: usize = 12;

/// What a record is: its first byte.
mod tag {
    pub const END: u8 = 0;
    pub const CHANNEL: u8 = 1;
    /// A message with its content.
    pub const MESSAGE: u8 = 2;
    /// The place of a message that nobody gets any more.
    pub const PLACE: u8 = 3;
}

/// 10000-01-01: dates have four digits.
const TIME_END: u64 = 253_402_300_800;
/// Counters stay below, so that they can be added to.
const COUNT_END: u64 = 1 << 62;

/// Why bytes are refused as a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It does not begin as one.
    #[error("is not a snapshot")]
    Foreign,
    /// Of a format that this version does not read.
    #[error("is a snapshot of format {found}, made by another version of the module, which reads format {FORMAT} only")]
    Format {
        /// The format.
        found: u32,
    },
    /// It is shorter or longer than it says.
    #[error("is cut off, or something was added")]
    Length,
    /// It is not what was written.
    #[error("is damaged: its checksum is wrong")]
    Checksum,
    /// Its checksum is right, and it cannot be true.
    #[error("contradicts itself")]
    Malformed,
}

/// Who goes on when the nginx that writes a snapshot has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remaining {
    /// Nobody, or those who have begun with what this one left.
    Nobody,
    /// The nginx that this one was to replace, with messages of its own: an upgrade that is taken back.
    Predecessor,
}

/// What was saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Channels.
    pub channels: u32,
    /// Messages.
    pub messages: u32,
}

/// What was restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Channels.
    pub channels: u32,
    /// Messages.
    pub messages: u32,
    /// Messages whose time went by meanwhile.
    pub expired: u32,
    /// Messages whose files are gone.
    pub lost: u32,
    /// Messages that found no room: the oldest of the channels that hold most.
    pub dropped: u32,
}

/// A snapshot that was verified.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    head: Head,
    records: Reader<'a>,
}

/// What holds for all channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Head {
    token: u64,
    wall: u64,
    lives: u64,
    stamps: u64,
    newest_time: u64,
    floor_time: u64,
    floor_tag: u32,
    has_predecessor: bool,
    unknown: [Unknown; UNKNOWN],
}

#[derive(Clone, Copy, Debug)]
struct Channel<'a> {
    id: &'a [u8],
    life: u64,
    next_seq: u64,
    last_time: u64,
    last_tag: u32,
    former: MessageId,
    timeout: u32,
    /// Milliseconds since a subscriber asked.
    idle: u64,
    ledger: Option<LedgerBlock>,
}

#[derive(Clone, Copy, Debug)]
struct Entry<'a> {
    seq: u64,
    time: u64,
    tag: u32,
    /// What is beside the place, unless nobody gets the message any more.
    message: Option<Saying<'a>>,
}

#[derive(Clone, Copy, Debug)]
struct Saying<'a> {
    flags: u8,
    type_len: u16,
    min_stored: u32,
    stamp: u64,
    /// Milliseconds; `u64::MAX` for never.
    left: u64,
    file_len: u64,
    content: &'a [u8],
}

enum Record<'a> {
    Channel(Channel<'a>),
    Entry(Entry<'a>),
}

impl Zone<'_> {
    /// Writes a snapshot: all channels and messages, without subscribers. Bodies in files stay where they are; files of
    /// messages that are not saved are in [`take_trash`](Self::take_trash).
    ///
    /// `token` comes back from [`Snapshot::token`]. Should the `remaining` nginx end without a snapshot of its own, those who
    /// come back from it are told that nobody knows what they have missed.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn save(
        &mut self,
        token: u64,
        remaining: Remaining,
        now: Now,
        out: &mut dyn Write,
    ) -> io::Result<Saved> {
        self.turn_wheel(now, u32::MAX);
        let mut out = Writer { out, len: 0, checksum: crc32fast::Hasher::new() };
        let mut saved = Saved::default();
        out.put(MAGIC)?;
        out.put(&FORMAT.to_le_bytes())?;
        self.write_head(token, remaining, now, &mut out)?;
        for bucket in 0..self.buckets.len() {
            for channel in self.bucket_channels(bucket) {
                self.write_channel(channel, now, &mut out)?;
                self.write_messages(channel, now, &mut out, &mut saved)?;
                saved.channels += 1;
            }
        }
        let mut leaving = self.header.leaving;
        while leaving.is_some() {
            self.trash_all_files(leaving);
            leaving = self.get::<ChannelHead>(leaving).bucket_next;
        }
        out.put(&[tag::END])?;
        out.finish()?;
        Ok(saved)
    }

    fn write_head(
        &self,
        token: u64,
        remaining: Remaining,
        now: Now,
        out: &mut Writer<'_>,
    ) -> io::Result<()> {
        let header = &self.header;
        // The ids' hashes will differ, as the key will: what the tombstones know goes into the floor.
        let (floor_time, floor_tag) = header
            .tombstones
            .iter()
            .filter(|dead| dead.used != 0)
            .map(|dead| (dead.time, dead.tag))
            .fold((header.dead_time, header.dead_tag), Ord::max);
        for number in [token, now.wall, header.lives, header.stamps, header.newest_time, floor_time]
        {
            out.put(&number.to_le_bytes())?;
        }
        out.put(&floor_tag.to_le_bytes())?;
        out.put(&[u8::from(remaining == Remaining::Predecessor)])?;
        for life in header.unknown {
            out.put(&life.after.to_le_bytes())?;
            out.put(&life.upto.to_le_bytes())?;
        }
        Ok(())
    }

    fn write_channel(&self, at: At, now: Now, out: &mut Writer<'_>) -> io::Result<()> {
        let head = self.get::<ChannelHead>(at);
        let id = self.id_of(at);
        out.put(&[tag::CHANNEL])?;
        out.put(&(id.len() as u16).to_le_bytes())?;
        out.put(&head.timeout.to_le_bytes())?;
        out.put(&head.last_tag.to_le_bytes())?;
        out.put(&head.former_time.to_le_bytes())?;
        out.put(&head.former_tag.to_le_bytes())?;
        let idle = now.mono.saturating_sub(head.requested);
        for number in [head.life, head.next_seq, head.last_time, idle] {
            out.put(&number.to_le_bytes())?;
        }
        out.put(&[u8::from(head.ledger.is_some())])?;
        if head.ledger.is_some() {
            let ledger = self.get::<LedgerBlock>(head.ledger);
            let entries = ledger.entries.get(..usize::from(ledger.len)).unwrap_or(&[]);
            out.put(&[entries.len() as u8])?;
            out.put(&ledger.thinned.to_le_bytes())?;
            out.put(&ledger.origin.to_le_bytes())?;
            for entry in entries {
                out.put(&entry.time.to_le_bytes())?;
                out.put(&entry.base.to_le_bytes())?;
            }
        }
        out.put(&id)
    }

    fn write_messages(
        &mut self,
        channel: At,
        now: Now,
        out: &mut Writer<'_>,
        saved: &mut Saved,
    ) -> io::Result<()> {
        let mut at = self.get::<ChannelHead>(channel).first;
        while at.is_some() {
            let message = *self.get::<MessageHead>(at);
            let is_wanted = message.flags & TRANSIENT == 0 && message.deadline > now.mono;
            out.put(&[if is_wanted { tag::MESSAGE } else { tag::PLACE }])?;
            out.put(&message.tag.to_le_bytes())?;
            out.put(&message.seq.to_le_bytes())?;
            out.put(&message.time.to_le_bytes())?;
            if is_wanted {
                let left = match message.deadline {
                    u64::MAX => u64::MAX,
                    deadline => deadline - now.mono,
                };
                out.put(&[message.flags])?;
                out.put(&message.type_len.to_le_bytes())?;
                out.put(&message.content_len.to_le_bytes())?;
                out.put(&message.min_stored.to_le_bytes())?;
                for number in [message.stamp, left, message.file_len] {
                    out.put(&number.to_le_bytes())?;
                }
                self.write_content(&message, out)?;
                saved.messages += 1;
            } else {
                self.trash_own_file(&message);
            }
            at = message.next;
        }
        Ok(())
    }

    /// Block by block: there may be no memory for all of it, at the end of all things.
    fn write_content(&self, message: &MessageHead, out: &mut Writer<'_>) -> io::Result<()> {
        let mut left = usize::from(message.type_len) + message.content_len as usize;
        let mut put = |bytes: &[u8]| {
            let bytes = bytes.get(..left).unwrap_or(bytes);
            left -= bytes.len();
            out.put(bytes).map(|()| left)
        };
        let mut left = put(&message.content)?;
        let mut at = message.rest;
        while at.is_some() && left > 0 {
            let block = self.get::<DataBlock>(at);
            left = put(&block.bytes)?;
            at = block.next;
        }
        // A chain that death has cut leaves zeros, as everywhere.
        while left > 0 {
            left = put(&[0; DATA_INLINE])?;
        }
        Ok(())
    }

    fn trash_own_file(&mut self, message: &MessageHead) {
        if message.flags & IN_FILE != 0 {
            let path = self.path_of(message);
            self.trash.push(path);
        }
    }

    fn trash_all_files(&mut self, channel: At) {
        let mut at = self.get::<ChannelHead>(channel).first;
        while at.is_some() {
            let message = *self.get::<MessageHead>(at);
            self.trash_own_file(&message);
            at = message.next;
        }
    }

    /// Brings channels and messages back into a new zone. Cursors stay valid, and ids go on after those that were given.
    ///
    /// `has_file` says whether a message's file is still there, with this length: others are lost. Files of messages that
    /// expired or found no room are in [`take_trash`](Self::take_trash).
    pub fn restore(
        &mut self,
        snapshot: &Snapshot<'_>,
        now: Now,
        has_file: &mut dyn FnMut(&[u8], u64) -> bool,
    ) -> Restored {
        let head = snapshot.head;
        self.header.lives = self.header.lives.max(head.lives);
        self.header.stamps = self.header.stamps.max(head.stamps);
        self.header.newest_time = self.header.newest_time.max(head.newest_time);
        self.begin_after(MessageId { time: head.floor_time, tag: head.floor_tag });
        self.header.unknown = head.unknown;
        self.doubt(head.unknown_until(now));
        let mut work = Restoring {
            now,
            away: now.wall.saturating_sub(head.wall).saturating_mul(1000),
            has_file,
            restored: Restored::default(),
        };
        let evicted = self.header.counters.evicted;
        // Should there be too little room, it is taken from those that came first.
        let mut channels = snapshot.channels();
        channels.sort_by_key(|(turn, _)| *turn);
        for (_, mut records) in channels {
            let Ok(Some(Record::Channel(channel))) = records.record() else { continue };
            let entries = std::iter::from_fn(|| match records.record() {
                Ok(Some(Record::Entry(entry))) => Some(entry),
                _ => None,
            });
            self.restore_channel(channel, entries.collect(), &mut work);
        }
        work.restored.dropped += (self.header.counters.evicted - evicted) as u32;
        work.restored.messages = self.header.message_count;
        work.restored
    }

    fn restore_channel(
        &mut self,
        saved: Channel<'_>,
        mut entries: Vec<Entry<'_>>,
        work: &mut Restoring<'_>,
    ) {
        let now = work.now;
        let ledger = work.ledger_of(&saved, &mut entries, &mut self.trash);
        let sayings = |entries: &[Entry<'_>]| {
            entries.iter().filter(|entry| entry.message.is_some()).count() as u32
        };
        let created = match self.find(saved.id) {
            Some(_) => None,
            None => self.create_channel(saved.id, saved.timeout, now).ok(),
        };
        let Some(channel) = created else {
            work.restored.dropped += sayings(&entries);
            self.raise_floor(MessageId { time: saved.last_time, tag: saved.last_tag });
            entries.iter().for_each(|entry| self.trash_saved_file(entry));
            return;
        };
        work.restored.channels += 1;
        let head = self.get_mut::<ChannelHead>(channel);
        head.life = saved.life;
        head.set_former(saved.former);
        head.requested = now.mono.saturating_sub(saved.idle.saturating_add(work.away));
        saved.put_ids(head);
        if let Some(ledger) = ledger {
            self.give_ledger(channel, ledger, now);
        }
        for entry in &entries {
            let Some(saying) = &entry.message else { continue };
            let message = entry.head(saying, channel, work);
            if !self.append_copy(channel, message, &mut Bytes::new(saying.content, &[]), now) {
                work.restored.dropped += 1;
                self.trash_saved_file(entry);
                self.pass_over(channel, &message);
            }
        }
        // What was in the log before the ids ran on must not be given again.
        saved.put_ids(self.get_mut::<ChannelHead>(channel));
        // Until now it passed for one that never had a message.
        self.rest_if_idle(channel, now);
    }

    fn trash_saved_file(&mut self, entry: &Entry<'_>) {
        if let Some(path) = entry.message.as_ref().and_then(Saying::path) {
            self.trash.push(path.to_vec());
        }
    }
}

/// What stays the same while a snapshot is restored.
struct Restoring<'w> {
    now: Now,
    /// Milliseconds since the snapshot was made.
    away: u64,
    has_file: &'w mut dyn FnMut(&[u8], u64) -> bool,
    restored: Restored,
}

impl Restoring<'_> {
    /// Takes the messages out that have expired or lost their file, and notes them and those that were out before as dropped.
    fn ledger_of(
        &mut self,
        channel: &Channel<'_>,
        entries: &mut [Entry<'_>],
        trash: &mut Vec<Vec<u8>>,
    ) -> Option<LedgerBlock> {
        let is_whole = channel.next_seq - 1 == entries.len() as u64;
        let mut ledger = channel.ledger;
        for entry in entries {
            entry.message = entry.message.filter(|saying| self.keeps(saying, trash));
            if entry.message.is_none() {
                let first = match is_whole {
                    true => LedgerBlock { kind: kind::PART, ..LedgerBlock::zeroed() },
                    false => LedgerBlock::forgetful(),
                };
                ledger.get_or_insert(first).record(&entry.place());
            }
        }
        ledger
    }

    fn keeps(&mut self, saying: &Saying<'_>, trash: &mut Vec<Vec<u8>>) -> bool {
        let path = saying.path();
        if path.is_some_and(|path| !(self.has_file)(path, saying.file_len)) {
            self.restored.lost += 1;
            return false;
        }
        let is_over = saying.left != u64::MAX && saying.left <= self.away;
        if is_over {
            self.restored.expired += 1;
            trash.extend(path.map(<[u8]>::to_vec));
        }
        !is_over
    }
}

impl Head {
    /// When there may have been a life that the snapshot knows nothing of, if nginx starts now.
    fn unknown_until(&self, now: Now) -> Unknown {
        match self.has_predecessor {
            // It had begun long before, and its cursors may be of any second.
            true => Unknown { after: 0, upto: now.wall.max(self.newest_time) },
            false => Unknown { after: self.wall.max(self.newest_time), upto: now.wall },
        }
    }
}

impl Channel<'_> {
    fn put_ids(&self, head: &mut ChannelHead) {
        head.next_seq = self.next_seq;
        head.last_time = self.last_time;
        head.last_tag = self.last_tag;
    }
}

impl Entry<'_> {
    /// A message of which only the place is known.
    fn place(&self) -> MessageHead {
        MessageHead { seq: self.seq, time: self.time, tag: self.tag, ..MessageHead::zeroed() }
    }

    fn head(&self, saying: &Saying<'_>, channel: At, work: &Restoring<'_>) -> MessageHead {
        let content_len = saying.content.len().saturating_sub(usize::from(saying.type_len));
        MessageHead {
            kind: kind::MESSAGE,
            flags: saying.flags,
            type_len: saying.type_len,
            channel,
            deadline: match saying.left {
                u64::MAX => u64::MAX,
                left => work.now.mono.saturating_add(left - work.away.min(left)),
            },
            stamp: saying.stamp,
            blocks: message_blocks(0, Content::Pieces(&[saying.content])),
            content_len: content_len as u32,
            min_stored: saying.min_stored,
            file_len: saying.file_len,
            ..self.place()
        }
    }
}

impl<'a> Saying<'a> {
    /// The file with the body, if it is in one.
    fn path(&self) -> Option<&'a [u8]> {
        match self.flags & IN_FILE {
            0 => None,
            _ => self.content.get(usize::from(self.type_len)..),
        }
    }
}

impl<'a> Snapshot<'a> {
    /// Verifies all of a snapshot.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`].
    pub fn read(bytes: &'a [u8]) -> Result<Self, SnapshotError> {
        let mut reader = Reader { rest: bytes };
        let magic = bytes.get(..MAGIC.len()).unwrap_or(bytes);
        if bytes.is_empty() || !MAGIC.starts_with(magic) {
            return Err(SnapshotError::Foreign);
        }
        reader.take(MAGIC.len()).map_err(|_| SnapshotError::Length)?;
        let found = reader.u32().map_err(|_| SnapshotError::Length)?;
        if found != FORMAT {
            return Err(SnapshotError::Format { found });
        }
        let end = bytes.len().checked_sub(TRAILER).ok_or(SnapshotError::Length)?;
        let (body, trailer) = bytes.split_at_checked(end).ok_or(SnapshotError::Length)?;
        let mut trailer = Reader { rest: trailer };
        if trailer.u64()? != bytes.len() as u64 {
            return Err(SnapshotError::Length);
        }
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(body);
        checksum.update(&(bytes.len() as u64).to_le_bytes());
        if trailer.u32()? != checksum.finalize() {
            return Err(SnapshotError::Checksum);
        }
        let kept = reader.rest.len().checked_sub(TRAILER).ok_or(SnapshotError::Length)?;
        let mut records = Reader { rest: reader.take(kept)? };
        let head = records.head()?;
        verify(head, records.clone())?;
        Ok(Snapshot { head, records })
    }

    /// What was given to [`Zone::save`].
    pub fn token(&self) -> u64 {
        self.head.token
    }

    /// Where the records of each channel begin, and by what it takes its place ([`Zone::turn_of`]).
    fn channels(&self) -> Vec<((u64, Reverse<u64>), Reader<'a>)> {
        let mut channels = Vec::new();
        let mut records = self.records.clone();
        let mut here = records.clone();
        while let Ok(Some(record)) = records.record() {
            match record {
                Record::Channel(channel) => channels.push(((0, Reverse(channel.idle)), here)),
                Record::Entry(Entry { message: Some(saying), .. }) => {
                    if let Some(((oldest @ 0, _), _)) = channels.last_mut() {
                        *oldest = saying.stamp;
                    }
                }
                Record::Entry(_) => {}
            }
            here = records.clone();
        }
        channels
    }
}

/// Verifies that the records can be true.
fn verify(head: Head, mut records: Reader<'_>) -> Result<(), SnapshotError> {
    let mut lives = HashSet::new();
    // Stamp and time of each message.
    let mut order = Vec::new();
    let mut current: Option<Course<'_>> = None;
    while let Some(record) = records.record()? {
        let is_good = match record {
            Record::Channel(channel) => {
                let is_over = current.replace(Course::new(channel)).is_none_or(Course::can_be_true);
                is_over
                    && (1..=head.lives).contains(&channel.life)
                    && lives.insert(channel.life)
                    && (1..COUNT_END).contains(&channel.next_seq)
                    && channel.last_time < TIME_END
            }
            Record::Entry(entry) => {
                order.extend(entry.message.map(|saying| (saying.stamp, entry.time)));
                current.as_mut().is_some_and(|course| course.goes_on_with(&entry))
                    && entry.message.is_none_or(|saying| saying.is_good())
            }
        };
        if !is_good {
            return Err(SnapshotError::Malformed);
        }
    }
    order.sort_unstable();
    let is_ordered = order.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1)
        && order.last().is_none_or(|last| last.0 <= head.stamps && last.1 <= head.newest_time);
    let is_good = is_ordered && current.is_none_or(Course::can_be_true);
    is_good.then_some(()).ok_or(SnapshotError::Malformed)
}

/// A channel's messages, as far as they have been read.
struct Course<'a> {
    channel: Channel<'a>,
    last_seq: u64,
    seconds: Vec<Second>,
}

impl<'a> Course<'a> {
    fn new(channel: Channel<'a>) -> Self {
        Course { channel, last_seq: 0, seconds: Vec::new() }
    }

    fn goes_on_with(&mut self, entry: &Entry<'_>) -> bool {
        let is_next = entry.seq > self.last_seq && entry.seq < self.channel.next_seq;
        self.last_seq = entry.seq;
        self.seconds.push(entry.place().second());
        is_next
    }

    fn can_be_true(mut self) -> bool {
        let mut head = ChannelHead::zeroed();
        self.channel.put_ids(&mut head);
        self.seconds.extend(self.channel.ledger.iter().flat_map(LedgerBlock::seconds));
        are_in_step(self.seconds, head.last_second())
    }
}

impl Saying<'_> {
    fn is_good(&self) -> bool {
        self.flags & !(IN_FILE | DELETE_WHEN_RECEIVED | HAS_EVENT) == 0
    }
}

/// Reads numbers and bytes. What is not there is [`SnapshotError::Malformed`].
#[derive(Clone, Debug)]
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], SnapshotError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(SnapshotError::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], SnapshotError> {
        self.take(LEN)?.try_into().map_err(|_| SnapshotError::Malformed)
    }

    fn u8(&mut self) -> Result<u8, SnapshotError> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, SnapshotError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, SnapshotError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, SnapshotError> {
        self.array().map(u64::from_le_bytes)
    }

    fn head(&mut self) -> Result<Head, SnapshotError> {
        let head = Head {
            token: self.u64()?,
            wall: self.u64()?,
            lives: self.u64()?,
            stamps: self.u64()?,
            newest_time: self.u64()?,
            floor_time: self.u64()?,
            floor_tag: self.u32()?,
            has_predecessor: match self.u8()? {
                0 => false,
                1 => true,
                _ => return Err(SnapshotError::Malformed),
            },
            unknown: self.unknown()?,
        };
        let is_good = head.lives < COUNT_END
            && head.stamps < COUNT_END
            && head.newest_time < TIME_END
            && head.floor_time < TIME_END
            && are_before(&head.unknown, head.newest_time);
        is_good.then_some(head).ok_or(SnapshotError::Malformed)
    }

    fn unknown(&mut self) -> Result<[Unknown; UNKNOWN], SnapshotError> {
        let mut lives = [Unknown::default(); UNKNOWN];
        for life in &mut lives {
            *life = Unknown { after: self.u64()?, upto: self.u64()? };
        }
        Ok(lives)
    }

    /// The next record; nothing at the end, which is the end of the bytes too.
    fn record(&mut self) -> Result<Option<Record<'a>>, SnapshotError> {
        match self.u8()? {
            tag::END if self.rest.is_empty() => Ok(None),
            tag::CHANNEL => self.channel().map(|channel| Some(Record::Channel(channel))),
            tag::MESSAGE => self.entry(true).map(|entry| Some(Record::Entry(entry))),
            tag::PLACE => self.entry(false).map(|entry| Some(Record::Entry(entry))),
            _ => Err(SnapshotError::Malformed),
        }
    }

    fn channel(&mut self) -> Result<Channel<'a>, SnapshotError> {
        let id_len = self.u16()?;
        let (timeout, last_tag) = (self.u32()?, self.u32()?);
        let former = MessageId { time: u64::from(self.u32()?), tag: self.u32()? };
        let (life, next_seq, last_time, idle) =
            (self.u64()?, self.u64()?, self.u64()?, self.u64()?);
        let ledger = match self.u8()? {
            0 => None,
            1 => Some(self.ledger()?),
            _ => return Err(SnapshotError::Malformed),
        };
        let id = self.take(usize::from(id_len))?;
        Ok(Channel { id, life, next_seq, last_time, last_tag, former, timeout, idle, ledger })
    }

    fn ledger(&mut self) -> Result<LedgerBlock, SnapshotError> {
        let mut ledger = LedgerBlock { kind: kind::PART, ..LedgerBlock::zeroed() };
        ledger.len = self.u8()?;
        ledger.thinned = self.u16()?;
        ledger.origin = self.u64()?;
        if usize::from(ledger.len) > LEDGER_ENTRIES {
            return Err(SnapshotError::Malformed);
        }
        for entry in ledger.entries.iter_mut().take(usize::from(ledger.len)) {
            *entry = LedgerEntry { time: self.u32()?, base: self.u32()? };
        }
        // What its sums are made of stays far from where they would overflow.
        let origin = ledger.origin as i64;
        let is_good = origin.unsigned_abs() < COUNT_END && ledger.is_in_order();
        is_good.then_some(ledger).ok_or(SnapshotError::Malformed)
    }

    fn entry(&mut self, has_message: bool) -> Result<Entry<'a>, SnapshotError> {
        let (tag, seq, time) = (self.u32()?, self.u64()?, self.u64()?);
        let message = if has_message { Some(self.saying()?) } else { None };
        Ok(Entry { seq, time, tag, message })
    }

    fn saying(&mut self) -> Result<Saying<'a>, SnapshotError> {
        let flags = self.u8()?;
        let (type_len, content_len, min_stored) = (self.u16()?, self.u32()?, self.u32()?);
        let (stamp, left, file_len) = (self.u64()?, self.u64()?, self.u64()?);
        let content = self.take(usize::from(type_len) + content_len as usize)?;
        Ok(Saying { flags, type_len, min_stored, stamp, left, file_len, content })
    }
}

/// Counts and sums up what is written.
struct Writer<'w> {
    out: &'w mut dyn Write,
    len: u64,
    checksum: crc32fast::Hasher,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.len += bytes.len() as u64;
        self.checksum.update(bytes);
        self.out.write_all(bytes)
    }

    fn finish(mut self) -> io::Result<()> {
        let total = self.len + TRAILER as u64;
        self.put(&total.to_le_bytes())?;
        self.out.write_all(&self.checksum.finalize().to_le_bytes())
    }
}
