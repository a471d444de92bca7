//! Worker slots: who waits for hints, and the hints.
//!
//! A hint says only "this channel moved" (invariant I3): the worker reads the log to find out what happened. A hint that
//! is lost is made good by the worker's next tick, one too many does no harm, and a full mailbox means "look at all".

use bytemuck::Zeroable;

use super::channel::ChannelRef;
use super::memory::At;
use super::record::{kind, ChannelHead, Hint, MailBlock, SlotHead, MAIL_BLOCKS, MAIL_INLINE};
use super::Zone;
use crate::clock::Now;
use crate::message::Life;

/// Deleted channels looked at by one sweep.
const LEAVING_PER_SWEEP: usize = 256;

/// A worker's place in the zone, from [`Zone::join`] to [`Zone::part`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRef {
    pub(super) at: At,
    pub(super) generation: u32,
}

/// What a worker finds in its mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mail {
    /// Channels that moved.
    pub moved: Vec<Life>,
    /// There were more hints than fit: look at every channel.
    pub look_at_all: bool,
}

impl Mail {
    /// Whether it says that this channel moved, or may have moved.
    pub fn names(&self, channel: Life) -> bool {
        self.look_at_all || self.moved.contains(&channel)
    }
}

impl Zone<'_> {
    /// Takes the slot with this index for a worker. What a former worker of the slot left counts no more.
    ///
    /// Returns nothing if the zone has no room.
    pub fn join(&mut self, index: u32, pid: u32, now: Now) -> Option<SlotRef> {
        let at = match self.slots().into_iter().find(|at| self.get::<SlotHead>(*at).index == index)
        {
            Some(at) => at,
            None => self.create_slot(index, now)?,
        };
        self.retire(at);
        self.give_mailbox(at, now);
        let slot = self.get_mut::<SlotHead>(at);
        slot.pid = pid;
        Some(SlotRef { at, generation: slot.generation })
    }

    /// Gives a worker's slot up.
    pub fn part(&mut self, slot: SlotRef) {
        if self.get::<SlotHead>(slot.at).generation == slot.generation {
            self.retire(slot.at);
        }
    }

    /// Empties a worker's mailbox.
    pub fn take_mail(&mut self, slot: SlotRef) -> Mail {
        let head = *self.get::<SlotHead>(slot.at);
        if head.generation != slot.generation {
            return Mail { look_at_all: true, ..Mail::default() };
        }
        let hints = (0..head.mail_len).map(|place| self.hint(&head, place));
        let moved = hints
            .filter_map(|hint| {
                let channel = self.get::<ChannelHead>(hint.channel);
                let same = channel.kind == kind::CHANNEL && channel.life as u32 == hint.life;
                same.then_some(Life(channel.life))
            })
            .collect();
        let slot = self.get_mut::<SlotHead>(slot.at);
        let look_at_all = slot.overflow != 0;
        slot.mail_len = 0;
        slot.overflow = 0;
        slot.signaled = 0;
        Mail { moved, look_at_all }
    }

    fn hint(&self, slot: &SlotHead, place: u32) -> Hint {
        let (block, place) = (place as usize / MAIL_INLINE, place as usize % MAIL_INLINE);
        let at = slot.mail.get(block).copied().unwrap_or(At::NONE);
        self.get::<MailBlock>(at).hints.get(place).copied().unwrap_or_default()
    }

    /// Hints to every worker that has subscribers of the channel, but for those that have a hint already.
    pub(super) fn notify(&mut self, channel: At) {
        for place in self.entry_places(channel) {
            let entry = self.entry(place);
            if entry.subscribers() == 0 || entry.is_notified() || !self.is_live(entry) {
                continue;
            }
            self.set_notified(place, true);
            self.post(entry.slot, channel);
        }
    }

    fn post(&mut self, slot: At, channel: At) {
        let life = self.get::<ChannelHead>(channel).life as u32;
        let head = *self.get::<SlotHead>(slot);
        let (block, place) =
            (head.mail_len as usize / MAIL_INLINE, head.mail_len as usize % MAIL_INLINE);
        match head.mail.get(block).copied().filter(|at| at.is_some()) {
            Some(at) => {
                if let Some(hint) = self.get_mut::<MailBlock>(at).hints.get_mut(place) {
                    *hint = Hint { channel, life };
                }
                self.get_mut::<SlotHead>(slot).mail_len += 1;
            }
            None => self.get_mut::<SlotHead>(slot).overflow = 1,
        }
        self.signal(slot);
    }

    /// Has the worker woken after unlocking, unless it has been woken and has not looked yet.
    fn signal(&mut self, slot: At) {
        let head = self.get_mut::<SlotHead>(slot);
        if head.signaled == 0 {
            head.signaled = 1;
            let index = head.index;
            self.wake.push(index);
        }
    }

    /// Has every worker look at everything: after a recovery nobody knows which hints were lost.
    pub(super) fn alarm(&mut self) {
        for at in self.slots() {
            let slot = self.get_mut::<SlotHead>(at);
            slot.mail_len = 0;
            slot.overflow = 1;
            slot.signaled = 0;
            if slot.pid != 0 {
                self.signal(at);
            }
        }
    }

    /// All slots.
    pub(super) fn slots(&self) -> Vec<At> {
        let mut slots = Vec::new();
        let mut at = self.header.slots;
        while at.is_some() && slots.len() <= self.blocks.len() {
            slots.push(at);
            at = self.get::<SlotHead>(at).next;
        }
        slots
    }

    fn create_slot(&mut self, index: u32, now: Now) -> Option<At> {
        self.reserve(1, At::NONE, now).ok()?;
        let at = self.allocate()?;
        let next = self.header.slots;
        self.put(at, SlotHead { kind: kind::SLOT, index, next, ..SlotHead::zeroed() });
        self.commit();
        self.header.slots = at;
        self.commit();
        Some(at)
    }

    /// Gives a slot the blocks for hints that it does not have. Without room, or if messages have too little of it already, its
    /// worker is told to look at everything each time.
    fn give_mailbox(&mut self, slot: At, now: Now) {
        let mail = self.get::<SlotHead>(slot).mail;
        let missing = mail.iter().filter(|at| at.is_none()).count() as u32;
        // Those that have gone make room for those that come, before any message does.
        while self.header.free_count < missing && self.take_mailbox_back() {}
        let has_room = self.header.free_count >= missing
            || !self.is_crowded_out() && self.reserve(missing, At::NONE, now).is_ok();
        if !has_room {
            return;
        }
        for place in 0..MAIL_BLOCKS {
            if self.get::<SlotHead>(slot).mail.get(place).is_some_and(|at| at.is_some()) {
                continue;
            }
            let Some(at) = self.allocate() else { return };
            self.put(at, MailBlock { kind: kind::PART, ..MailBlock::zeroed() });
            self.commit();
            if let Some(mail) = self.get_mut::<SlotHead>(slot).mail.get_mut(place) {
                *mail = at;
            }
            self.commit();
        }
    }

    /// Takes the blocks for hints back from a slot that nobody has: reloads one after the other leave many. False if there is
    /// none.
    pub(super) fn take_mailbox_back(&mut self) -> bool {
        let Some(slot) = self.slots().into_iter().find(|at| self.idle_mail(*at) > 0) else {
            return false;
        };
        let head = self.get_mut::<SlotHead>(slot);
        let mail = std::mem::replace(&mut head.mail, [At::NONE; MAIL_BLOCKS]);
        self.commit();
        mail.into_iter().for_each(|at| self.free(at));
        self.commit();
        true
    }

    /// Blocks that [`take_mailbox_back`](Self::take_mailbox_back) can give in all.
    pub(super) fn all_idle_mail(&self) -> u32 {
        self.slots().into_iter().map(|slot| self.idle_mail(slot)).sum()
    }

    /// Blocks for hints that a slot has although nobody has the slot.
    fn idle_mail(&self, slot: At) -> u32 {
        let head = self.get::<SlotHead>(slot);
        match head.pid {
            0 => head.mail.iter().filter(|at| at.is_some()).count() as u32,
            _ => 0,
        }
    }

    /// Ends a generation of a slot: its entries in channels are stale from now on.
    fn retire(&mut self, at: At) {
        let slot = self.get_mut::<SlotHead>(at);
        let had_worker = slot.pid != 0;
        slot.generation = slot.generation.wrapping_add(1);
        slot.pid = 0;
        slot.mail_len = 0;
        slot.overflow = 0;
        slot.signaled = 0;
        if had_worker {
            // It goes on where it is: it would never come to the end where workers die all the time.
            self.header.scan_left = self.header.bucket_count;
        }
    }

    /// Notices workers that have died and whose slot nobody took.
    pub(super) fn release_dead_slots(&mut self, is_alive: impl Fn(u32) -> bool) {
        for at in self.slots() {
            let pid = self.get::<SlotHead>(at).pid;
            if pid != 0 && !is_alive(pid) {
                self.retire(at);
            }
        }
    }

    /// Goes on with removing the subscriber counts of dead workers, so that their channels can be collected. They count
    /// no more in any case; this only gives the memory back. A walk over the whole table takes about a minute.
    pub(super) fn scan_for_stale_entries(&mut self, now: Now) {
        let buckets = self.header.bucket_count.max(1);
        for _ in 0..self.header.scan_left.min((buckets / 60).max(1024)) {
            for channel in self.bucket_channels(self.header.scan as usize) {
                self.drop_stale_entries(channel);
                // Who is known to be idle has been so for a while.
                if !self.is_idle(channel) {
                    self.rest_if_idle(channel, now);
                }
            }
            self.header.scan = (self.header.scan + 1) % buckets;
            self.header.scan_left -= 1;
        }
    }

    /// Frees deleted channels whose subscribers were all of workers that have died.
    pub(super) fn release_leaving(&mut self, now: Now) {
        let mut at = self.header.leaving;
        for _ in 0..LEAVING_PER_SWEEP {
            if at.is_none() {
                return;
            }
            let next = self.get::<ChannelHead>(at).bucket_next;
            self.rest_if_idle(at, now);
            at = next;
        }
    }

    /// The channel that a reference names, if that life of it has not ended.
    pub(super) fn resolve(&self, channel: ChannelRef) -> Option<At> {
        let head = self.get::<ChannelHead>(channel.at);
        (head.kind == kind::CHANNEL && head.life == channel.life.0).then_some(channel.at)
    }
}
