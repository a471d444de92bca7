//! What happens when the zone is full (invariant I10): expired messages go first, then channels that never had one and that
//! nobody waits on, then the oldest messages of the channels that hold most, then all idle channels; and if that is not
//! enough, nothing changes and the publisher is told.
//!
//! Channels that never had a message go before messages because anybody who may subscribe can make as many as he likes,
//! and would drive everybody's messages out.
//!
//! Channels are kept in classes by the power of two of the blocks that their messages hold, so the fattest channel, to
//! within a factor of two, is found without a search.

use super::memory::{At, BLOCK_SIZE, CLASSES};
use super::record::{ChannelHead, DELETED, IDLE_CLASS};
use super::Zone;
use crate::clock::Now;
use crate::publisher::PublishError;

/// How many idle channels are looked at for one that never had a message.
const BLANKS_SOUGHT: usize = 16;

impl Zone<'_> {
    /// Makes sure that so many blocks are free. `pinned` is a channel that must not be collected meanwhile.
    ///
    /// # Errors
    ///
    /// [`PublishError::NoSpace`]; nothing but what has expired was dropped then.
    pub(super) fn reserve(
        &mut self,
        blocks: u32,
        pinned: At,
        now: Now,
    ) -> Result<(), PublishError> {
        let full = PublishError::NoSpace { needed: u64::from(blocks) * BLOCK_SIZE as u64 };
        #[cfg(test)]
        if super::tests::refuses(&mut self.scarcity) {
            return Err(full);
        }
        if self.header.free_count >= blocks {
            return Ok(());
        }
        if blocks >= self.header.block_count {
            return Err(full);
        }
        self.pinned = pinned;
        self.turn_wheel(now, super::wheel::SWEEP_BUDGET);
        let done = self.evictable() >= blocks || self.all_reclaimable(blocks) >= blocks;
        if done {
            self.wanted = blocks;
            while self.header.free_count < blocks && self.give_something_up(blocks, now) {}
            self.wanted = 0;
        }
        self.pinned = At::NONE;
        if self.header.free_count >= blocks {
            Ok(())
        } else {
            Err(full)
        }
    }

    /// Whether the zone may hold so many channels more ([`Zone::limit_channels`]): idle ones give way, but for those in
    /// `kept`. If it may not, nothing changes.
    pub(super) fn make_place(&mut self, channels: u32, kept: &[At]) -> bool {
        let max = self.max_channels;
        let wanted = self.header.channel_count.saturating_add(channels);
        if channels == 0 || max == 0 || wanted <= max {
            return true;
        }
        let surplus = (wanted - max) as usize;
        let mut idle = Vec::new();
        let mut at = self.header.idle;
        while at.is_some() && idle.len() < surplus {
            if self.is_collectable(at) && !kept.contains(&at) {
                idle.push(at);
            }
            at = self.get::<ChannelHead>(at).class_next;
        }
        if idle.len() < surplus {
            return false;
        }
        for channel in idle {
            self.remove_idle_channel(channel);
            self.header.counters.collected += 1;
        }
        true
    }

    /// Blocks that there would be without any message.
    fn evictable(&self) -> u32 {
        self.header.free_count.saturating_add(self.header.message_blocks)
    }

    /// Whether a new ledger leaves enough for what eviction makes room for.
    pub(super) fn has_room_for_ledger(&self) -> bool {
        self.header.free_count > 0 && self.evictable() > self.wanted
    }

    /// Drops a message, or an idle channel if that never had one, or if dropping all messages would not be enough.
    fn give_something_up(&mut self, blocks: u32, now: Now) -> bool {
        let mut idle = self.first_blank();
        if idle.is_none() && self.evictable() < blocks {
            idle = self.first_idle();
        }
        if let Some(idle) = idle {
            self.remove_idle_channel(idle);
            self.header.counters.collected += 1;
            return true;
        }
        let Some(channel) = self.fattest() else {
            return false;
        };
        self.header.counters.evicted += 1;
        let oldest = self.get::<ChannelHead>(channel).first;
        self.remove_message(oldest, now);
        true
    }

    /// A channel that may be collected early.
    fn first_idle(&self) -> Option<At> {
        let mut at = self.header.idle;
        while at.is_some() && !self.is_collectable(at) {
            at = self.get::<ChannelHead>(at).class_next;
        }
        at.is_some().then_some(at)
    }

    /// One of the channels that have become idle last, if it never had a message.
    fn first_blank(&self) -> Option<At> {
        let mut at = self.header.idle;
        for _ in 0..BLANKS_SOUGHT {
            if at.is_none() {
                break;
            }
            let head = self.get::<ChannelHead>(at);
            if head.next_seq == 1 && self.is_collectable(at) {
                return Some(at);
            }
            at = head.class_next;
        }
        None
    }

    fn is_collectable(&self, channel: At) -> bool {
        channel != self.pinned && self.live_subscribers(channel) == 0
    }

    /// Blocks that there would be without any message and without any channel that nobody waits on, counted up to
    /// `enough`.
    fn all_reclaimable(&self, enough: u32) -> u32 {
        let mut sum = self.evictable();
        for head in self.header.classes.iter().copied().chain([self.header.idle]) {
            let mut at = head;
            while at.is_some() && sum < enough {
                if self.is_collectable(at) {
                    sum = sum.saturating_add(self.fixed_blocks(at));
                }
                at = self.get::<ChannelHead>(at).class_next;
            }
        }
        sum
    }

    /// A channel of the highest size class that has messages.
    fn fattest(&self) -> Option<At> {
        self.header.classes.iter().rev().copied().find(|at| at.is_some())
    }

    /// Puts a channel into the class that it belongs to: by the size of its messages, or idle, or none.
    pub(super) fn join_class(&mut self, at: At) {
        let head = self.get::<ChannelHead>(at);
        let class = match head.blocks.checked_ilog2() {
            Some(class) => class.min(CLASSES as u32 - 1) + 1,
            None if head.flags & DELETED == 0 && self.live_subscribers(at) == 0 => IDLE_CLASS,
            None => 0,
        };
        if class == head.class {
            return;
        }
        self.leave_class(at);
        let first = self.class_head(class);
        let head = self.get_mut::<ChannelHead>(at);
        head.class = class;
        head.class_prev = At::NONE;
        head.class_next = first;
        if class == 0 {
            head.class_next = At::NONE;
            return;
        }
        if first.is_some() {
            self.get_mut::<ChannelHead>(first).class_prev = at;
        }
        self.set_class_head(class, at);
    }

    /// Takes a channel out of its class.
    pub(super) fn leave_class(&mut self, at: At) {
        let ChannelHead { class, class_next: next, class_prev: prev, .. } = *self.get(at);
        if class == 0 {
            return;
        }
        if prev.is_some() {
            self.get_mut::<ChannelHead>(prev).class_next = next;
        } else {
            self.set_class_head(class, next);
        }
        if next.is_some() {
            self.get_mut::<ChannelHead>(next).class_prev = prev;
        }
        let head = self.get_mut::<ChannelHead>(at);
        head.class = 0;
        head.class_next = At::NONE;
        head.class_prev = At::NONE;
    }

    /// The first channel of a class, as [`ChannelHead::class`] numbers them.
    pub(super) fn class_head(&self, class: u32) -> At {
        match class {
            0 => At::NONE,
            IDLE_CLASS => self.header.idle,
            _ => self.header.classes.get(class as usize - 1).copied().unwrap_or(At::NONE),
        }
    }

    fn set_class_head(&mut self, class: u32, at: At) {
        match class {
            0 => {}
            IDLE_CLASS => self.header.idle = at,
            _ => {
                if let Some(head) = self.header.classes.get_mut(class as usize - 1) {
                    *head = at;
                }
            }
        }
    }
}
