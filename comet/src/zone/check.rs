//! A walk over a zone that verifies all that must always hold. For tests, and for test builds at any time.

use super::memory::{At, BLOCK_SIZE, CLASSES};
use super::record::{
    kind, ChannelHead, ChannelTail, DataBlock, EntryBlock, MessageHead, SlotHead, TimedHead,
    DELETED, IDLE_CLASS, TRANSIENT,
};
use super::recover::Reached;
use super::Zone;

/// What is wrong with a zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the zone is damaged: {0}")]
pub struct Fault(String);

fn ensure(condition: bool, what: impl FnOnce() -> String) -> Result<(), Fault> {
    if condition {
        Ok(())
    } else {
        Err(Fault(what()))
    }
}

impl Zone<'_> {
    /// Verifies the zone.
    ///
    /// # Errors
    ///
    /// The first [`Fault`] found.
    pub fn check(&self) -> Result<(), Fault> {
        let mut reached = Reached::new(self.blocks);
        self.check_free(&mut reached)?;
        for at in self.slots() {
            self.claim(at, &mut reached)?;
            for mail in self.get::<SlotHead>(at).mail {
                self.claim(mail, &mut reached)?;
            }
        }
        let (mut channels, mut messages, mut message_blocks) = (0, 0, 0);
        for at in self.all_channels() {
            let (count, blocks) = self.check_channel(at, &mut reached)?;
            channels += 1;
            messages += count;
            message_blocks += blocks;
        }
        ensure(channels == self.header.channel_count, || "number of channels".into())?;
        ensure(messages == self.header.message_count, || "number of messages".into())?;
        ensure(message_blocks == self.header.message_blocks, || "blocks of messages".into())?;
        self.check_wheel(&reached)?;
        self.check_classes(&reached)?;
        let lost = (1..self.header.fresh).find(|at| !reached.contains(At(*at)));
        ensure(lost.is_none(), || format!("block {lost:?} of {BLOCK_SIZE} bytes is lost"))
    }

    fn all_channels(&self) -> Vec<At> {
        let mut channels: Vec<At> =
            (0..self.buckets.len()).flat_map(|bucket| self.bucket_channels(bucket)).collect();
        let mut at = self.header.leaving;
        while at.is_some() && channels.len() <= self.blocks.len() {
            channels.push(at);
            at = self.get::<ChannelHead>(at).bucket_next;
        }
        channels
    }

    fn claim(&self, at: At, reached: &mut Reached) -> Result<(), Fault> {
        ensure(reached.mark(at), || format!("{at:?} is used twice or does not exist"))
    }

    fn claim_chain(&self, mut at: At, reached: &mut Reached) -> Result<u32, Fault> {
        let mut count = 0;
        while at.is_some() {
            self.claim(at, reached)?;
            count += 1;
            at = self.get::<DataBlock>(at).next;
        }
        Ok(count)
    }

    fn check_free(&self, reached: &mut Reached) -> Result<(), Fault> {
        let count = self.claim_chain(self.header.free, reached)?;
        let fresh = self.header.block_count - self.header.fresh;
        ensure(count + fresh == self.header.free_count, || "number of free blocks".into())
    }

    fn check_channel(&self, at: At, reached: &mut Reached) -> Result<(u32, u32), Fault> {
        let head = self.get::<ChannelHead>(at);
        ensure(head.kind == kind::CHANNEL, || format!("{at:?} is no channel"))?;
        self.claim(at, reached)?;
        self.claim(head.tail, reached)?;
        if head.ledger.is_some() {
            self.claim(head.ledger, reached)?;
        }
        let tail = self.get::<ChannelTail>(head.tail);
        self.claim_chain(tail.id_rest, reached)?;
        let mut more = tail.more;
        while more.is_some() {
            self.claim(more, reached)?;
            more = self.get::<EntryBlock>(more).next;
        }
        self.check_timer(at)?;
        let class = match head.blocks.checked_ilog2() {
            Some(class) => class + 1,
            None => head.class,
        };
        ensure(head.class == class, || format!("class of {at:?}"))?;
        if head.class != 0 {
            let mut member = self.class_head(head.class);
            while member.is_some() && member != at {
                member = self.get::<ChannelHead>(member).class_next;
            }
            ensure(member == at, || format!("{at:?} is not in its class"))?;
        }
        let is_idle = head.class == IDLE_CLASS;
        let may_idle = head.first.is_none() && head.flags & DELETED == 0;
        ensure(!is_idle || may_idle && self.live_subscribers(at) == 0, || {
            format!("{at:?} counts as idle")
        })?;
        ensure(!is_idle || head.wheel_slot != 0, || format!("idle {at:?} has no timer"))?;
        self.check_messages(at, reached)
    }

    fn check_messages(&self, channel: At, reached: &mut Reached) -> Result<(u32, u32), Fault> {
        let head = self.get::<ChannelHead>(channel);
        let (mut stored, mut transient, mut blocks) = (0, 0, 0);
        let (mut before, mut at) = (At::NONE, head.first);
        let mut last = (0, 0, 0);
        while at.is_some() {
            let message = self.get::<MessageHead>(at);
            self.claim(at, reached)?;
            let parts = 1 + self.claim_chain(message.rest, reached)?;
            ensure(message.kind == kind::MESSAGE, || format!("{at:?} is no message"))?;
            ensure(message.blocks == parts, || format!("blocks of {at:?}"))?;
            ensure(message.prev == before, || format!("back link of {at:?}"))?;
            ensure(message.channel == channel, || format!("channel of {at:?}"))?;
            let place = (message.seq, message.time, message.tag);
            ensure(message.seq > last.0, || format!("sequence at {at:?}"))?;
            ensure((place.1, place.2) > (last.1, last.2) || last.0 == 0, || {
                format!("id at {at:?}")
            })?;
            last = place;
            self.check_timer(at)?;
            let has_timer = message.wheel_slot != 0 || message.deadline == u64::MAX;
            ensure(has_timer, || format!("message {at:?} has no timer"))?;
            match message.flags & TRANSIENT {
                0 => stored += 1,
                _ => transient += 1,
            }
            blocks += parts;
            before = at;
            at = message.next;
        }
        ensure(head.last == before, || format!("last message of {channel:?}"))?;
        ensure(head.next_seq > last.0, || format!("next sequence number of {channel:?}"))?;
        let counts = (stored, transient, blocks) == (head.stored, head.transient, head.blocks);
        ensure(counts, || format!("counts of {channel:?}"))?;
        Ok((stored + transient, blocks))
    }

    fn check_wheel(&self, reached: &Reached) -> Result<(), Fault> {
        for (slot, head) in self.header.wheel.iter().enumerate() {
            let (mut before, mut at) = (At::NONE, *head);
            while at.is_some() {
                let timer = self.get::<TimedHead>(at);
                let is_timed = timer.kind == kind::CHANNEL || timer.kind == kind::MESSAGE;
                let fits = is_timed && timer.wheel_slot as usize == slot + 1;
                ensure(reached.contains(at) && fits && timer.wheel_prev == before, || {
                    format!("{at:?} in slot {slot} of the wheel")
                })?;
                (before, at) = (at, timer.wheel_next);
            }
        }
        Ok(())
    }

    fn check_classes(&self, reached: &Reached) -> Result<(), Fault> {
        for class in (1..=CLASSES as u32).chain([IDLE_CLASS]) {
            let (mut before, mut at) = (At::NONE, self.class_head(class));
            while at.is_some() {
                let head = self.get::<ChannelHead>(at);
                let fits = head.kind == kind::CHANNEL && head.class == class;
                ensure(reached.contains(at) && fits && head.class_prev == before, || {
                    format!("{at:?} in class {class}")
                })?;
                (before, at) = (at, head.class_next);
            }
        }
        Ok(())
    }

    fn check_timer(&self, at: At) -> Result<(), Fault> {
        let timer = self.get::<TimedHead>(at);
        let Some(slot) = timer.wheel_slot.checked_sub(1) else {
            return Ok(());
        };
        let mut member = self.header.wheel.get(slot as usize).copied().unwrap_or(At::NONE);
        while member.is_some() && member != at {
            member = self.get::<TimedHead>(member).wheel_next;
        }
        ensure(member == at, || format!("{at:?} is not in its slot of the wheel"))
    }
}
