//! A walk over a zone that verifies all that must always hold. For tests, and for test builds at any time.
//!
//! Whatever the memory holds, the walk comes to an end: nothing is followed twice.

use std::collections::{HashMap, HashSet};

use super::ledger::{are_in_step, Second};
use super::log::blocks_for;
use super::memory::{are_before, At, Block, BLOCK_SIZE, RINGS};
use super::record::{
    kind, ChannelHead, ChannelTail, DataBlock, EntryBlock, LedgerBlock, MailBlock, MessageHead,
    SlotHead, TimedHead, BLANK_CLASS, DATA_INLINE, DELETED, DELETE_WHEN_RECEIVED, HAS_EVENT,
    ID_INLINE, IN_FILE, MAIL_INLINE, TRANSIENT,
};
use super::recover::Reached;
use super::wheel::visited_after;
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

/// The blocks that some lists are made of.
struct Listed {
    blocks: Reached,
    /// How many of them have not been met elsewhere.
    left: u32,
}

impl Listed {
    fn new(blocks: &[Block]) -> Self {
        Listed { blocks: Reached::new(blocks), left: 0 }
    }

    fn add(&mut self, at: At) -> bool {
        self.left += 1;
        self.blocks.mark(at)
    }

    /// Whether a block, which is met only once, is listed.
    fn meet(&mut self, at: At) -> bool {
        let is_listed = self.blocks.contains(at);
        self.left -= u32::from(is_listed);
        is_listed
    }
}

/// What a walk has found so far.
struct Walk {
    reached: Reached,
    timers: Listed,
    /// Of size classes, and idle ones.
    members: Listed,
    /// The worker slots and their generations.
    slots: HashMap<At, u32>,
    lives: HashSet<u64>,
    /// Stamp and time of each message.
    order: Vec<(u64, u64)>,
    message_blocks: u32,
}

impl Walk {
    fn claim(&mut self, at: At) -> Result<(), Fault> {
        ensure(self.reached.mark(at), || format!("{at:?} is used twice or does not exist"))
    }
}

impl Zone<'_> {
    /// Verifies the zone.
    ///
    /// # Errors
    ///
    /// The first [`Fault`] found.
    pub fn check(&self) -> Result<(), Fault> {
        self.check_header()?;
        let mut walk = Walk {
            reached: Reached::new(self.blocks),
            timers: self.timers()?,
            members: self.class_members()?,
            slots: HashMap::new(),
            lives: HashSet::new(),
            order: Vec::new(),
            message_blocks: 0,
        };
        self.check_free(&mut walk)?;
        self.check_slots(&mut walk)?;
        let mut table = Vec::new();
        for bucket in 0..self.buckets.len() {
            for at in self.bucket_channels(bucket) {
                self.check_channel(at, Some(bucket), &mut walk)?;
                table.push(at);
            }
        }
        for at in self.leaving_channels() {
            self.check_channel(at, None, &mut walk)?;
            let hash = self.get::<ChannelHead>(at).hash;
            ensure(hash == self.hash(&self.id_of(at)), || format!("hash of {at:?}"))?;
        }
        // Now that no chain is known to be endless.
        for at in table {
            ensure(self.find(&self.id_of(at)) == Some(at), || format!("{at:?} cannot be found"))?;
        }
        self.check_sums(walk)
    }

    fn check_header(&self) -> Result<(), Fault> {
        let header = &self.header;
        ensure(header.dirty == 1 && header.closed <= 1, || "flags of the header".into())?;
        let has_all = header.block_count as usize == self.blocks.len()
            && header.bucket_count as usize == self.buckets.len();
        ensure(has_all, || "numbers of blocks and buckets".into())?;
        ensure((1..=header.block_count).contains(&header.fresh), || {
            "the first fresh block".into()
        })?;
        let is_scanning =
            header.scan < header.bucket_count && header.scan_left <= header.bucket_count;
        ensure(is_scanning, || "place of the scan".into())?;
        ensure(header.ledger_in_work.is_none(), || "a ledger is being rewritten".into())?;
        let (all, told) = (header.counters, header.told);
        let is_past = told.evicted <= all.evicted && told.recovered <= all.recovered;
        ensure(is_past, || "more was told than has happened".into())?;
        ensure(are_before(&header.unknown, header.newest_time), || {
            "lives of which nothing is known".into()
        })?;
        ensure(header.tombstones.iter().all(|dead| dead.used <= 1), || "tombstones".into())
    }

    fn check_sums(&self, walk: Walk) -> Result<(), Fault> {
        let header = &self.header;
        let Walk { reached, timers, members, lives, mut order, message_blocks, .. } = walk;
        ensure(lives.len() == header.channel_count as usize, || "number of channels".into())?;
        ensure(order.len() == header.message_count as usize, || "number of messages".into())?;
        ensure(message_blocks == header.message_blocks, || "blocks of messages".into())?;
        ensure(timers.left == 0, || "something in the wheel does not exist".into())?;
        ensure(members.left == 0, || "something in a class does not exist".into())?;
        order.sort_unstable();
        let is_ordered = order.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
        ensure(is_ordered, || "stamps and times of messages".into())?;
        let is_past = order
            .last()
            .is_none_or(|(stamp, time)| *stamp <= header.stamps && *time <= header.newest_time);
        ensure(is_past, || "the newest stamp or time".into())?;
        ensure(reached.end() <= header.fresh, || "a fresh block is in use".into())?;
        let lost = (1..header.fresh).find(|at| !reached.contains(At(*at)));
        ensure(lost.is_none(), || format!("block {lost:?} of {BLOCK_SIZE} bytes is lost"))
    }

    fn leaving_channels(&self) -> Vec<At> {
        let mut channels = Vec::new();
        let mut at = self.header.leaving;
        while at.is_some() && channels.len() <= self.blocks.len() {
            channels.push(at);
            at = self.get::<ChannelHead>(at).bucket_next;
        }
        channels
    }

    /// Verifies a chain of [`DataBlock`]s; how many there are.
    fn check_chain(&self, mut at: At, kind: u8, walk: &mut Walk) -> Result<u32, Fault> {
        let mut count = 0;
        while at.is_some() {
            walk.claim(at)?;
            let block = self.get::<DataBlock>(at);
            ensure(block.kind == kind, || format!("kind of {at:?}"))?;
            count += 1;
            at = block.next;
        }
        Ok(count)
    }

    fn check_free(&self, walk: &mut Walk) -> Result<(), Fault> {
        let count = self.check_chain(self.header.free, kind::FREE, walk)?;
        let fresh = self.header.block_count - self.header.fresh;
        ensure(count + fresh == self.header.free_count, || "number of free blocks".into())
    }

    fn check_slots(&self, walk: &mut Walk) -> Result<(), Fault> {
        let mut indices = HashSet::new();
        for at in self.slots() {
            walk.claim(at)?;
            let slot = self.get::<SlotHead>(at);
            let what = |what| move || format!("{what} of slot {at:?}");
            ensure(slot.kind == kind::SLOT, what("kind"))?;
            ensure(indices.insert(slot.index), what("index"))?;
            for mail in slot.mail.into_iter().filter(|mail| mail.is_some()) {
                walk.claim(mail)?;
                ensure(self.get::<MailBlock>(mail).kind == kind::PART, what("mailbox"))?;
            }
            let room = slot.mail.iter().take_while(|mail| mail.is_some()).count() * MAIL_INLINE;
            ensure(slot.mail_len as usize <= room, what("number of hints"))?;
            ensure(slot.pid != 0 || slot.mail_len == 0, what("mail for nobody"))?;
            ensure(slot.overflow <= 1 && slot.signaled <= 1, what("flags"))?;
            let has_mail = slot.mail_len > 0 || slot.overflow > 0;
            ensure(slot.pid == 0 || !has_mail || slot.signaled > 0, what("wake-up"))?;
            walk.slots.insert(at, slot.generation);
        }
        Ok(())
    }

    /// Verifies a channel: of this bucket, or one that is leaving.
    fn check_channel(&self, at: At, bucket: Option<usize>, walk: &mut Walk) -> Result<(), Fault> {
        walk.claim(at)?;
        let head = self.get::<ChannelHead>(at);
        let what = |what| move || format!("{what} of channel {at:?}");
        ensure(head.kind == kind::CHANNEL, what("kind"))?;
        ensure(head.flags == if bucket.is_some() { 0 } else { DELETED }, what("flags"))?;
        let is_new = head.life > 0 && walk.lives.insert(head.life);
        ensure(is_new && head.life <= self.header.lives, what("life"))?;
        walk.claim(head.tail)?;
        let tail = self.get::<ChannelTail>(head.tail);
        ensure(tail.kind == kind::PART, what("second part"))?;
        let id_blocks = usize::from(head.id_len).saturating_sub(ID_INLINE).div_ceil(DATA_INLINE);
        let chain = self.check_chain(tail.id_rest, kind::PART, walk)?;
        ensure(chain as usize == id_blocks, what("id"))?;
        self.check_entries(at, walk)?;
        self.check_timer(at, walk)?;
        self.check_class(at, bucket, walk)?;
        let mut seconds = self.check_messages(at, walk)?;
        if head.ledger.is_some() {
            walk.claim(head.ledger)?;
            let ledger = self.get::<LedgerBlock>(head.ledger);
            let is_good = ledger.kind == kind::PART && ledger.is_in_order();
            ensure(is_good, what("ledger"))?;
            seconds.extend(ledger.seconds());
        }
        ensure(head.next_seq > 0, what("next sequence number"))?;
        let last = head.last_second();
        ensure(are_in_step(seconds, last), what("sequence numbers and ids"))
    }

    fn check_entries(&self, channel: At, walk: &mut Walk) -> Result<(), Fault> {
        let tail = self.get::<ChannelHead>(channel).tail;
        let mut more = self.get::<ChannelTail>(tail).more;
        while more.is_some() {
            walk.claim(more)?;
            let block = self.get::<EntryBlock>(more);
            ensure(block.kind == kind::PART, || format!("kind of {more:?}"))?;
            more = block.next;
        }
        let mut counted = HashSet::new();
        for place in self.entry_places(channel) {
            let entry = self.entry(place);
            let what = || format!("{entry:?} of channel {channel:?}");
            let generation = walk.slots.get(&entry.slot);
            ensure(entry.slot.is_none() || generation.is_some(), what)?;
            // Who has died in the middle may have left a wrong generation, but then no count.
            if entry.count > 0 {
                let is_known = generation.is_some_and(|newest| entry.generation <= *newest);
                let is_first = counted.insert((entry.slot, entry.generation));
                ensure(is_known && is_first && entry.subscribers() > 0, what)?;
            }
        }
        Ok(())
    }

    fn check_class(&self, at: At, bucket: Option<usize>, walk: &mut Walk) -> Result<(), Fault> {
        let head = self.get::<ChannelHead>(at);
        let what = |what| move || format!("{what} of channel {at:?}");
        let is_idle = self.is_idle(at);
        match head.blocks.checked_ilog2() {
            Some(class) => ensure(head.class == class + 1, what("class"))?,
            None => ensure(head.class == 0 || is_idle, what("class"))?,
        }
        ensure(!is_idle || self.is_blank(at) == (head.class == BLANK_CLASS), what("ring"))?;
        ensure(walk.members.meet(at) == (head.class != 0), what("place in a class"))?;
        let can_idle = head.first.is_none() && bucket.is_some() && self.live_subscribers(at) == 0;
        ensure(!is_idle || can_idle && head.wheel_slot != 0, what("idleness"))?;
        // Otherwise it is still to be found that its subscribers' worker has died.
        let is_scanned = bucket.is_some_and(|bucket| {
            let ahead = bucket + self.buckets.len() - self.header.scan as usize;
            ahead % self.buckets.len() >= self.header.scan_left as usize
        });
        ensure(is_idle || !can_idle || !is_scanned, what("unnoticed idleness"))
    }

    /// Verifies a channel's messages; their seconds.
    fn check_messages(&self, channel: At, walk: &mut Walk) -> Result<Vec<Second>, Fault> {
        let head = self.get::<ChannelHead>(channel);
        let (mut stored, mut transient, mut blocks) = (0, 0, 0);
        let mut seconds = Vec::new();
        let (mut before, mut at) = (At::NONE, head.first);
        let mut last_seq = 0;
        while at.is_some() {
            walk.claim(at)?;
            let message = self.get::<MessageHead>(at);
            let what = |what| move || format!("{what} of message {at:?}");
            ensure(message.kind == kind::MESSAGE, what("kind"))?;
            let flags = TRANSIENT | IN_FILE | DELETE_WHEN_RECEIVED | HAS_EVENT;
            ensure(message.flags & !flags == 0, what("flags"))?;
            let parts = 1 + self.check_chain(message.rest, kind::PART, walk)?;
            let len = u64::from(message.type_len) + u64::from(message.content_len);
            ensure(message.blocks == parts && blocks_for(len) == parts, what("blocks"))?;
            ensure(message.prev == before, what("back link"))?;
            ensure(message.channel == channel, what("channel"))?;
            self.check_timer(at, walk)?;
            let is_timed = message.deadline != u64::MAX;
            ensure((message.wheel_slot != 0) == is_timed, what("timer"))?;
            let is_next = message.seq > last_seq && message.seq < head.next_seq;
            ensure(is_next, what("sequence number"))?;
            last_seq = message.seq;
            seconds.push(message.second());
            walk.order.push((message.stamp, message.time));
            match message.flags & TRANSIENT {
                0 => stored += 1,
                _ => transient += 1,
            }
            blocks += parts;
            before = at;
            at = message.next;
        }
        walk.message_blocks += blocks;
        ensure(head.last == before, || format!("last message of {channel:?}"))?;
        let counts = (stored, transient, blocks) == (head.stored, head.transient, head.blocks);
        ensure(counts, || format!("counts of {channel:?}"))?;
        Ok(seconds)
    }

    /// What is in the wheel.
    fn timers(&self) -> Result<Listed, Fault> {
        let mut listed = Listed::new(self.blocks);
        for (slot, head) in self.header.wheel.iter().enumerate() {
            let (mut before, mut at) = (At::NONE, *head);
            while at.is_some() {
                let timer = self.get::<TimedHead>(at);
                let fits = timer.wheel_slot as usize == slot + 1 && timer.wheel_prev == before;
                ensure(listed.add(at) && fits, || format!("{at:?} in slot {slot} of the wheel"))?;
                (before, at) = (at, timer.wheel_next);
            }
        }
        Ok(listed)
    }

    /// What is in a class: each a ring.
    fn class_members(&self) -> Result<Listed, Fault> {
        let mut listed = Listed::new(self.blocks);
        for class in 1..=RINGS as u32 {
            let first = self.class_head(class);
            let mut at = first;
            while at.is_some() {
                let head = self.get::<ChannelHead>(at);
                let next = head.class_next;
                let fits = head.class == class && self.get::<ChannelHead>(next).class_prev == at;
                ensure(listed.add(at) && fits, || format!("{at:?} in class {class}"))?;
                at = if next == first { At::NONE } else { next };
            }
        }
        Ok(listed)
    }

    /// Verifies that a timer is in the wheel if it runs, and that it is seen in time.
    fn check_timer(&self, at: At, walk: &mut Walk) -> Result<(), Fault> {
        let timer = self.get::<TimedHead>(at);
        let is_listed = walk.timers.meet(at);
        ensure(is_listed == (timer.wheel_slot != 0), || format!("{at:?} is not in the wheel"))?;
        let Some(slot) = timer.wheel_slot.checked_sub(1) else {
            return Ok(());
        };
        let now = self.header.wheel_now;
        let due = timer.deadline.div_ceil(1000).max(now.saturating_add(1));
        ensure(visited_after(slot as usize, now) <= due, || format!("timer of {at:?} is late"))
    }
}
