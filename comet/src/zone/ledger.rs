//! How much an old cursor has missed.
//!
//! Clients' cursors are pairs of time and tag. While the message that a cursor names is in the log, its sequence number is
//! known, and so is the number of messages between it and any other. For messages that were dropped, the channel keeps a
//! ledger: for each second, the sequence number of tag 0. Tags of one second are consecutive, so this gives the sequence
//! number of every message of that second. The ledger has room for 14 seconds; when it is full, every other one of its
//! older half is forgotten, and a cursor that falls into such a hole is told "at least".
//!
//! A channel that was deleted or collected takes its ledger along. Its next life knows up to which id the former one may have
//! come, and tells "at least" to cursors before that; a channel that was none before takes the beginning of the zone for it.

use bytemuck::Zeroable;

use super::log::id_of;
use super::memory::At;
use super::record::{
    kind, ChannelHead, LedgerBlock, LedgerEntry, MessageHead, DELETED, LEDGER_ENTRIES,
};
use super::Zone;
use crate::message::MessageId;

impl Zone<'_> {
    /// Notes a message that is about to be dropped, if the channel has a ledger.
    pub(super) fn record_dropped(&mut self, channel: At, message: &MessageHead) {
        let at = self.get::<ChannelHead>(channel).ledger;
        let mut ledger = *self.get::<LedgerBlock>(at);
        if at.is_none() || !ledger.record(message) {
            return;
        }
        self.header.ledger_in_work = at;
        self.commit();
        self.put(at, ledger);
        self.commit();
        self.header.ledger_in_work = At::NONE;
    }

    /// Begins the ledger of a channel that has none, with a message that was just dropped: its own block, now free, is
    /// enough. Should death come before, or the zone be too full, clients are told "at least".
    pub(super) fn begin_ledger(&mut self, channel: At, message: &MessageHead) {
        let head = *self.get::<ChannelHead>(channel);
        let has_one = head.ledger.is_some() || head.flags & DELETED != 0;
        if has_one || !self.has_room_for_ledger() {
            return;
        }
        let Some(block) = self.allocate() else { return };
        let known = u64::from(head.stored) + u64::from(head.transient) + 1;
        let mut ledger = match head.next_seq - 1 > known {
            true => LedgerBlock::forgetful(),
            false => LedgerBlock { kind: kind::PART, ..LedgerBlock::zeroed() },
        };
        ledger.record(message);
        self.put(block, ledger);
        self.commit();
        self.get_mut::<ChannelHead>(channel).ledger = block;
        self.commit();
    }

    /// The sequence number of the last message at or before `id`, or one that is certainly not below it; and whether it is
    /// exact. `oldest` is the first message of the log, expired or not, that is after `id`.
    pub(super) fn seen_at(&self, channel: At, id: MessageId, oldest: Option<At>) -> (u64, bool) {
        let head = self.get::<ChannelHead>(channel);
        let is_known = !self.is_of_unknown_life(id);
        if id >= head.last_id() {
            return (head.next_seq - 1, is_known);
        }
        let (seen, is_exact) = self.seen_in_life(channel, id, oldest);
        // A second of 0 is that of clients that want all there is.
        (seen, is_exact && is_known && (id.time == 0 || id >= head.former()))
    }

    /// The same, as far as this life of the channel goes.
    pub(super) fn seen_in_life(
        &self,
        channel: At,
        id: MessageId,
        oldest: Option<At>,
    ) -> (u64, bool) {
        let head = self.get::<ChannelHead>(channel);
        let (next_seq, before) = match oldest {
            Some(at) => {
                let next = self.get::<MessageHead>(at);
                if next.time == id.time {
                    return (next.seq.saturating_sub(u64::from(next.tag - id.tag)), true);
                }
                (next.seq, next.prev)
            }
            None => (head.next_seq, head.last),
        };
        let last = next_seq - 1;
        let low = self.get::<MessageHead>(before).seq;
        if low == last {
            return (last, true);
        }
        let (bound, exact) = match head.ledger {
            At::NONE => (last, false),
            at => self.get::<LedgerBlock>(at).seen_at(id, last),
        };
        let before = id_of(self.get(before));
        if low > 0 && before.time == id.time {
            let own = low + u64::from(id.tag - before.tag);
            return (bound.min(own), exact || own <= bound);
        }
        (bound.max(low), exact || bound <= low)
    }
}

/// A second in which a channel had messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Second {
    time: u64,
    /// The sequence number of tag 0; below 1 if that was never given.
    first: i64,
    /// A sequence number of this second.
    known: i64,
}

/// Whether these seconds can be of one channel, and the last one its newest. Tags of a second are consecutive, as sequence
/// numbers are, so that a second has but one tag 0.
pub(super) fn are_in_step(mut seconds: Vec<Second>, last: Option<Second>) -> bool {
    seconds.extend(last);
    seconds.sort_unstable();
    let fits = |a: &Second, b: &Second| {
        (a.time, a.first) == (b.time, b.first) || a.time < b.time && a.known < b.first
    };
    seconds.last().copied() == last && seconds.is_sorted_by(fits)
}

impl MessageHead {
    pub(super) fn second(&self) -> Second {
        Second { time: self.time, first: self.first_of_second(), known: self.seq as i64 }
    }

    /// The sequence number of tag 0 of the message's second; below 1 if that was never given.
    fn first_of_second(&self) -> i64 {
        (self.seq as i64).wrapping_sub(i64::from(self.tag))
    }
}

impl ChannelHead {
    /// The second of the channel's newest message, if there ever was one.
    pub(super) fn last_second(&self) -> Option<Second> {
        let known = self.next_seq.checked_sub(1).filter(|newest| *newest > 0)? as i64;
        let first = known.wrapping_sub(i64::from(self.last_tag));
        Some(Second { time: self.last_time, first, known })
    }
}

impl LedgerBlock {
    /// The seconds that it knows. The last entry may be of many.
    pub fn seconds(&self) -> impl Iterator<Item = Second> + '_ {
        self.entries().iter().filter(|entry| entry.time < u32::MAX).map(|entry| {
            let first = self.base(entry);
            Second { time: u64::from(entry.time), first, known: first }
        })
    }

    /// Whether it can have been written so.
    pub fn is_in_order(&self) -> bool {
        usize::from(self.len) <= LEDGER_ENTRIES
            && self.thinned.checked_shr(u32::from(self.len) + 1).unwrap_or(0) == 0
            && self.entries().is_sorted_by(|a, b| a.time < b.time)
    }

    /// An empty ledger of a channel of which messages were dropped, nobody knows which.
    pub fn forgetful() -> Self {
        LedgerBlock { kind: kind::PART, thinned: 1, ..LedgerBlock::zeroed() }
    }

    fn entries(&self) -> &[LedgerEntry] {
        self.entries.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Whether seconds before entry `place` have been forgotten, or after the last one.
    fn has_hole(&self, place: usize) -> bool {
        self.thinned & (1 << place) != 0
    }

    /// The sequence number of tag 0 of an entry's second. Below 1 if the channel's first message had a higher tag.
    fn base(&self, entry: &LedgerEntry) -> i64 {
        (self.origin as i64).wrapping_add(i64::from(entry.base))
    }

    /// Notes a message's second; false if it was there.
    pub(super) fn record(&mut self, message: &MessageHead) -> bool {
        let time = u32::try_from(message.time).unwrap_or(u32::MAX);
        let place = self.entries().partition_point(|entry| entry.time < time);
        if self.entries().get(place).is_some_and(|entry| entry.time == time) {
            return false;
        }
        let first = message.first_of_second();
        if self.len == 0 {
            // In the middle, for what was published before may be dropped after.
            self.origin = first.wrapping_sub(1 << 31) as u64;
        }
        let Ok(base) = u32::try_from(first.wrapping_sub(self.origin as i64)) else {
            *self = LedgerBlock::forgetful();
            return self.record(message);
        };
        if usize::from(self.len) == LEDGER_ENTRIES {
            self.thin();
            return self.record(message);
        }
        if let Some(later) = self.entries.get_mut(place..=usize::from(self.len)) {
            later.rotate_right(1);
            if let Some(entry) = later.first_mut() {
                *entry = LedgerEntry { time, base };
            }
        }
        // A hole is now on both sides of the new entry.
        let (below, above) = ((1 << place) - 1, u16::MAX << place);
        let upto = below | (1 << place);
        self.thinned = (self.thinned & upto) | ((self.thinned & above) << 1);
        self.len += 1;
        true
    }

    /// Forgets every other second of the older half.
    fn thin(&mut self) {
        let mut kept = LedgerBlock { len: 0, thinned: 0, ..*self };
        let mut hole = false;
        for (place, entry) in self.entries().iter().enumerate() {
            hole |= self.has_hole(place);
            if place < LEDGER_ENTRIES / 2 && place % 2 == 0 {
                hole = true;
                continue;
            }
            let at = usize::from(kept.len);
            if let Some(free) = kept.entries.get_mut(at) {
                *free = *entry;
                kept.thinned |= u16::from(hole) << at;
                kept.len += 1;
            }
            hole = false;
        }
        let after = self.has_hole(usize::from(self.len));
        kept.thinned |= u16::from(after) << kept.len;
        *self = kept;
    }

    /// The sequence number of the last message at or before `id`, as far as the ledger knows: `last` at most, and never
    /// too low; and whether it is exact.
    pub(super) fn seen_at(&self, id: MessageId, last: u64) -> (u64, bool) {
        let place = self.entries().partition_point(|entry| u64::from(entry.time) <= id.time);
        let last = last as i64;
        let later = self.entries().get(place).map_or(last, |later| self.base(later) - 1).min(last);
        let before = place.checked_sub(1).and_then(|place| self.entries().get(place));
        // Seconds beyond 2106 share one entry.
        let is_representable = id.time < u64::from(u32::MAX);
        let (seen, exact) = match before {
            // The cursor's own second is known, and so is its message. But who has seen all of that second may name none
            // of it, and it ends where the next begins that had messages.
            Some(entry) if u64::from(entry.time) == id.time && is_representable => {
                let own = self.base(entry) + i64::from(id.tag);
                (later.min(own), own <= later || !self.has_hole(place))
            }
            _ => (later, is_representable && !self.has_hole(place)),
        };
        (u64::try_from(seen).unwrap_or(0), exact || seen <= 0)
    }
}
