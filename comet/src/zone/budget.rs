//! What happens when the zone is full (invariant I10): expired messages go first, then channels that never had one and that
//! nobody waits on, then the oldest messages of the channels that hold most, as long as messages hold a quarter of the zone;
//! then what workers that have gone had for hints, all idle channels, and the rest of the messages; and if that is not
//! enough, nothing changes and the publisher is told.
//!
//! Channels that never had a message go before messages because anybody who may subscribe can make as many as he likes,
//! and would drive everybody's messages out.
//!
//! Channels are kept in classes by the power of two of the blocks that their messages hold, so the fattest channel, to
//! within a factor of two, is found without a search. A class is a ring: who comes to it stands at its end, and so does who
//! has just lost its oldest message. So channels that hold as much lose theirs in turn, and of channels with one message
//! each, the oldest message of all goes first. Idle channels are two rings: of those that never had a message the newest goes
//! first, so that who makes many does not drive out what others made before; of the others the one that was not used for
//! longest.
//!
//! The last message of a channel stays for a while, whatever its size: else one that is larger than those of other channels
//! would go with the next one, before anybody could fetch it. It gives way once an eighth of the zone was published after it,
//! or if there is nothing else: then the oldest goes first.

use super::memory::{At, BLOCK_SIZE, CLASSES, RINGS};
use super::record::{ChannelHead, BLANK_CLASS, DELETED, IDLE_CLASS};
use super::Zone;
use crate::clock::Now;
use crate::publisher::PublishError;

/// The part of the zone, as a divisor, below which messages do not give way to idle channels: those whose messages have
/// all gone would fill the zone where channels are many, with one message each, and are kept for long.
const MESSAGES_SHARE: u32 = 4;

/// The part of the zone, as a divisor, that may be published before a channel's last message gives way to those of others.
const YOUTH: u32 = 8;
/// How many channels of a class are looked at for one that gives way.
const LOOKS: usize = 8;

/// Idle channels that make place for others at once, at most: a reload may have lowered the number of channels by far.
const PLACES: u32 = 256;

impl Zone<'_> {
    /// Makes sure that so many blocks are free. `pinned` is a channel that must not be collected meanwhile.
    ///
    /// # Errors
    ///
    /// [`PublishError::NoSpace`], or [`PublishError::TooLarge`] if there are not so many blocks; nothing but what has expired
    /// was dropped then.
    pub(super) fn reserve(
        &mut self,
        blocks: u32,
        pinned: At,
        now: Now,
    ) -> Result<(), PublishError> {
        let needed = u64::from(blocks) * BLOCK_SIZE as u64;
        let full = PublishError::NoSpace { needed };
        #[cfg(test)]
        if super::tests::refuses(&mut self.scarcity) {
            return Err(full);
        }
        if self.header.free_count >= blocks {
            return Ok(());
        }
        if blocks >= self.header.block_count {
            return Err(PublishError::TooLarge { needed });
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
    /// `kept`. If it may not, nothing changes. Where there are far more than there may be, more go than come.
    pub(super) fn make_place(&mut self, channels: u32, kept: &[At]) -> bool {
        let max = self.max_channels;
        let wanted = self.header.channel_count.saturating_add(channels);
        if channels == 0 || max == 0 || wanted <= max {
            return true;
        }
        let surplus = (wanted - max).min(PLACES.max(channels)) as usize;
        let idle: Vec<At> = self
            .idle()
            .filter(|at| self.is_collectable(*at) && !kept.contains(at))
            .take(surplus)
            .collect();
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

    /// Whether messages have too little of the zone.
    pub(super) fn is_crowded_out(&self) -> bool {
        self.header.message_blocks < self.header.block_count / MESSAGES_SHARE
    }

    /// Drops a message, or an idle channel if that never had one. If messages have too little of the zone already, or dropping
    /// all of them would not be enough, gives up what former workers had, or any idle channel, before.
    fn give_something_up(&mut self, blocks: u32, now: Now) -> bool {
        let must = self.is_crowded_out() || self.evictable() < blocks;
        if must && self.take_mailbox_back() {
            return true;
        }
        if let Some(idle) = self.first_idle().filter(|idle| must || self.is_blank(*idle)) {
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

    /// A channel that may be collected early: one that never had a message, if there is one.
    fn first_idle(&self) -> Option<At> {
        self.idle().find(|at| self.is_collectable(*at))
    }

    /// The idle channels, in the order in which they give way.
    fn idle(&self) -> impl Iterator<Item = At> + '_ {
        [BLANK_CLASS, IDLE_CLASS].into_iter().flat_map(|class| self.members(class))
    }

    /// Whether it is known that a channel has neither messages nor subscribers.
    pub(super) fn is_idle(&self, at: At) -> bool {
        matches!(self.get::<ChannelHead>(at).class, IDLE_CLASS | BLANK_CLASS)
    }

    /// Whether a channel never had a message.
    pub(super) fn is_blank(&self, at: At) -> bool {
        self.get::<ChannelHead>(at).next_seq == 1
    }

    fn is_collectable(&self, channel: At) -> bool {
        channel != self.pinned && self.live_subscribers(channel) == 0
    }

    /// Blocks that there would be without any message, without what former workers had, and without any channel that nobody
    /// waits on, counted up to `enough`.
    fn all_reclaimable(&self, enough: u32) -> u32 {
        let mut sum = self.evictable() + self.all_idle_mail();
        for at in (1..=RINGS as u32).flat_map(|class| self.members(class)) {
            if sum >= enough {
                break;
            }
            if self.is_collectable(at) {
                sum = sum.saturating_add(self.fixed_blocks(at));
            }
        }
        sum
    }

    /// The channel whose turn it is in the highest size class that has any, but for those that would lose their last message
    /// while it is young. If that is all there is, the one with the oldest message of those whose turn it is.
    fn fattest(&self) -> Option<At> {
        let classes = || (1..=CLASSES as u32).rev();
        let oldest_first = || {
            let heads = classes().map(|class| self.class_head(class)).filter(|at| at.is_some());
            heads.min_by_key(|at| self.oldest_stamp(*at))
        };
        classes()
            .flat_map(|class| self.members(class).take(LOOKS))
            .find(|at| !self.is_young(*at))
            .or_else(oldest_first)
    }

    /// Whether a channel has one message, after which little was published.
    fn is_young(&self, channel: At) -> bool {
        let head = self.get::<ChannelHead>(channel);
        let since = self.header.stamps.saturating_sub(self.oldest_stamp(channel));
        head.first == head.last && since < u64::from(self.header.block_count / YOUTH)
    }

    /// Puts a channel into the class that it belongs to: by the size of its messages, or idle, or none. It keeps its place
    /// if it is there already.
    pub(super) fn join_class(&mut self, at: At) {
        let head = self.get::<ChannelHead>(at);
        let class = match head.blocks.checked_ilog2() {
            Some(class) => class.min(CLASSES as u32 - 1) + 1,
            None if head.flags & DELETED != 0 || self.live_subscribers(at) > 0 => 0,
            None if self.is_blank(at) => BLANK_CLASS,
            None => IDLE_CLASS,
        };
        if class != head.class {
            self.leave_class(at);
            self.enter_class(at, class);
        }
    }

    /// As [`join_class`](Self::join_class), but it takes a new place also in the class that it is in: it has lost its oldest
    /// message, or was used while it was idle.
    pub(super) fn rejoin_class(&mut self, at: At) {
        self.leave_class(at);
        self.join_class(at);
    }

    /// Puts a channel that is in no class at the end of one, or before all others if it never had a message.
    fn enter_class(&mut self, at: At, class: u32) {
        if class == 0 {
            return;
        }
        let (first, last) = match self.class_head(class) {
            At::NONE => (at, at),
            first => (first, self.get::<ChannelHead>(first).class_prev),
        };
        let head = self.get_mut::<ChannelHead>(at);
        head.class = class;
        head.class_next = first;
        head.class_prev = last;
        self.get_mut::<ChannelHead>(first).class_prev = at;
        self.get_mut::<ChannelHead>(last).class_next = at;
        if first == at || class == BLANK_CLASS {
            self.set_class_head(class, at);
        }
    }

    /// Takes a channel out of its class.
    pub(super) fn leave_class(&mut self, at: At) {
        let ChannelHead { class, class_next: next, class_prev: prev, .. } = *self.get(at);
        if class == 0 {
            return;
        }
        self.get_mut::<ChannelHead>(prev).class_next = next;
        self.get_mut::<ChannelHead>(next).class_prev = prev;
        if self.class_head(class) == at {
            self.set_class_head(class, if next == at { At::NONE } else { next });
        }
        let head = self.get_mut::<ChannelHead>(at);
        head.class = 0;
        head.class_next = At::NONE;
        head.class_prev = At::NONE;
    }

    /// The channels of a class, in the order in which they give way.
    fn members(&self, class: u32) -> impl Iterator<Item = At> + '_ {
        let first = self.class_head(class);
        std::iter::successors(Some(first), move |at| {
            Some(self.get::<ChannelHead>(*at).class_next).filter(|next| *next != first)
        })
        .take_while(|at| at.is_some())
    }

    /// The first channel of a class.
    pub(super) fn class_head(&self, class: u32) -> At {
        let ring = (class as usize).checked_sub(1).and_then(|ring| self.header.rings.get(ring));
        ring.copied().unwrap_or(At::NONE)
    }

    fn set_class_head(&mut self, class: u32, at: At) {
        let ring = (class as usize).checked_sub(1).and_then(|ring| self.header.rings.get_mut(ring));
        if let Some(head) = ring {
            *head = at;
        }
    }
}
