//! After a death: what can be derived is derived again.
//!
//! What is trusted are the chains that [`Zone::commit`] keeps whole: buckets → channels → messages → their parts, leaving
//! channels, and slots. Free blocks, counts, back links, size classes, and the wheel are made anew from them. A block
//! that is reachable twice, or is not what the chain says, ends its chain: whatever happened, the walk ends.

use super::memory::{At, Block};
use super::record::{
    kind, ChannelHead, ChannelTail, DataBlock, EntryBlock, LedgerBlock, MessageHead, SlotHead,
    TRANSIENT,
};
use super::Zone;
use crate::clock::Now;

/// Which blocks have been reached.
pub(super) struct Reached(Vec<bool>);

impl Reached {
    pub fn new(blocks: &[Block]) -> Self {
        Reached(vec![false; blocks.len()])
    }

    /// Marks a block; false if there is no such block or it was marked before.
    pub fn mark(&mut self, at: At) -> bool {
        match self.0.get_mut(at.0 as usize) {
            Some(reached) if at.is_some() && !*reached => {
                *reached = true;
                true
            }
            _ => false,
        }
    }

    /// The block after the last one that was reached.
    pub fn end(&self) -> u32 {
        self.0.iter().rposition(|reached| *reached).map_or(1, |last| last as u32 + 1)
    }

    pub fn contains(&self, at: At) -> bool {
        self.0.get(at.0 as usize).copied().unwrap_or(false)
    }
}

impl Zone<'_> {
    /// Puts the zone in order.
    pub(super) fn recover(&mut self, now: Now) {
        let mut reached = Reached::new(self.blocks);
        self.forget_what_can_be_derived(now);
        self.recover_slots(&mut reached);
        let mut channels = Vec::new();
        for bucket in 0..self.buckets.len() {
            let first = self.buckets.get(bucket).copied().unwrap_or(At::NONE);
            let first = self.recover_channels(first, &mut reached, &mut channels);
            if let Some(head) = self.buckets.get_mut(bucket) {
                *head = first;
            }
        }
        self.header.leaving =
            self.recover_channels(self.header.leaving, &mut reached, &mut channels);
        self.recover_ledger(&reached);
        self.collect_free_blocks(&reached);
        // They join their classes anew.
        channels.sort_by_cached_key(|channel| self.turn_of(*channel));
        for channel in channels {
            self.recover_derived(channel, now);
        }
        self.header.counters.recovered += 1;
        self.header.scan = 0;
        self.header.scan_left = self.header.bucket_count;
        self.alarm();
    }

    fn forget_what_can_be_derived(&mut self, now: Now) {
        self.header.wheel.fill(At::NONE);
        self.header.rings.fill(At::NONE);
        self.header.message_blocks = 0;
        self.header.message_count = 0;
        self.header.channel_count = 0;
        self.header.wheel_now = now.mono / 1000;
    }

    /// Puts all blocks that were used and not reached onto the free list.
    fn collect_free_blocks(&mut self, reached: &Reached) {
        self.header.fresh = self.header.fresh.max(reached.end()).min(self.header.block_count);
        self.header.free = At::NONE;
        self.header.free_count = self.header.block_count - self.header.fresh;
        for number in (1..self.header.fresh).rev() {
            if !reached.contains(At(number)) {
                self.free(At(number));
            }
        }
    }

    fn recover_slots(&mut self, reached: &mut Reached) {
        let mut link = self.header.slots;
        let mut before = At::NONE;
        while link.is_some() {
            if self.get::<SlotHead>(link).kind != kind::SLOT || !reached.mark(link) {
                match before {
                    At::NONE => self.header.slots = At::NONE,
                    before => self.get_mut::<SlotHead>(before).next = At::NONE,
                }
                return;
            }
            let mail = self.get::<SlotHead>(link).mail;
            for block in mail {
                reached.mark(block);
            }
            before = link;
            link = self.get::<SlotHead>(link).next;
        }
    }

    /// Walks a chain of channels and gives it back without what does not belong there.
    fn recover_channels(&mut self, first: At, reached: &mut Reached, channels: &mut Vec<At>) -> At {
        let mut kept = Vec::new();
        let mut at = first;
        while at.is_some() {
            let head = *self.get::<ChannelHead>(at);
            if head.kind != kind::CHANNEL || !reached.mark(at) || !reached.mark(head.tail) {
                break;
            }
            self.recover_parts(at, reached);
            self.recover_messages(at, reached);
            kept.push(at);
            at = head.bucket_next;
        }
        if let Some(last) = kept.last() {
            self.get_mut::<ChannelHead>(*last).bucket_next = At::NONE;
        }
        let first = kept.first().copied().unwrap_or(At::NONE);
        channels.append(&mut kept);
        first
    }

    fn recover_parts(&mut self, channel: At, reached: &mut Reached) {
        let head = *self.get::<ChannelHead>(channel);
        let tail = *self.get::<ChannelTail>(head.tail);
        self.mark_chain(tail.id_rest, reached);
        let mut at = tail.more;
        while at.is_some() && reached.mark(at) {
            at = self.get::<EntryBlock>(at).next;
        }
        if head.ledger.is_some() && !reached.mark(head.ledger) {
            self.get_mut::<ChannelHead>(channel).ledger = At::NONE;
        }
        for place in self.entry_places(channel) {
            self.set_notified(place, false);
            self.set_busy(place, false);
        }
    }

    /// Keeps the messages that hang together, and makes the back links again.
    fn recover_messages(&mut self, channel: At, reached: &mut Reached) {
        let mut before = At::NONE;
        let mut at = self.get::<ChannelHead>(channel).first;
        while at.is_some() {
            let message = *self.get::<MessageHead>(at);
            if message.kind != kind::MESSAGE || message.channel != channel || !reached.mark(at) {
                break;
            }
            self.mark_chain(message.rest, reached);
            self.get_mut::<MessageHead>(at).prev = before;
            before = at;
            at = message.next;
        }
        match before {
            At::NONE => self.get_mut::<ChannelHead>(channel).first = At::NONE,
            before => self.get_mut::<MessageHead>(before).next = At::NONE,
        }
        self.get_mut::<ChannelHead>(channel).last = before;
    }

    fn mark_chain(&self, mut at: At, reached: &mut Reached) {
        while at.is_some() && reached.mark(at) {
            at = self.get::<DataBlock>(at).next;
        }
    }

    /// Empties the ledger that was being written.
    fn recover_ledger(&mut self, reached: &Reached) {
        let at = self.header.ledger_in_work;
        if at.is_some() && reached.contains(at) {
            self.put(at, LedgerBlock::forgetful());
        }
        self.commit();
        self.header.ledger_in_work = At::NONE;
    }

    /// Counts, class and timers of a channel and its messages.
    fn recover_derived(&mut self, channel: At, now: Now) {
        let head = self.get_mut::<ChannelHead>(channel);
        head.stored = 0;
        head.transient = 0;
        head.blocks = 0;
        head.class = 0;
        head.wheel_slot = 0;
        let mut at = head.first;
        self.header.channel_count += 1;
        while at.is_some() {
            let message = self.get_mut::<MessageHead>(at);
            message.wheel_slot = 0;
            let message = *message;
            let head = self.get_mut::<ChannelHead>(channel);
            head.blocks += message.blocks;
            match message.flags & TRANSIENT {
                0 => head.stored += 1,
                _ => head.transient += 1,
            }
            head.next_seq = head.next_seq.max(message.seq + 1);
            // The three were written one after the other: any of them may be missing, and a new second may have the last
            // one's tag. Later messages of the second that have gone have had their tags.
            if message.time >= head.last_time {
                let later = head.next_seq - 1 - message.seq;
                head.last_time = message.time;
                head.last_tag = message.tag.saturating_add(u32::try_from(later).unwrap_or(0));
            }
            self.header.message_blocks += message.blocks;
            self.header.message_count += 1;
            self.arm(at, message.deadline);
            at = message.next;
        }
        self.rest_if_idle(channel, now);
    }
}
