//! Moving to a zone of another size.

use super::arena::Bytes;
use super::memory::At;
use super::record::{ChannelHead, LedgerBlock, MessageHead, IN_FILE, MESSAGE_INLINE};
use super::Zone;
use crate::clock::Now;
use crate::message::MessageId;

/// What was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Channels moved.
    pub channels: u32,
    /// Messages moved.
    pub messages: u32,
    /// Messages that found no room: the oldest of the channels that hold most.
    pub dropped: u32,
}

impl Zone<'_> {
    /// Copies all channels and messages of another zone, and closes that one: from then on nobody can publish there, so
    /// nothing is lost between the two. Cursors stay valid. Waiting subscribers are not moved: their connections belong
    /// to the other zone's workers.
    pub fn carry_from(&mut self, old: &mut Zone<'_>, now: Now) -> Carried {
        old.turn_wheel(now, u32::MAX);
        self.header.lives = self.header.lives.max(old.header.lives);
        self.header.stamps = self.header.stamps.max(old.header.stamps);
        self.header.newest_time = self.header.newest_time.max(old.header.newest_time);
        self.header.unknown = old.header.unknown;
        // The ids' hashes differ, as the key does: what the tombstones know goes into the floor.
        self.begin_after(MessageId { time: old.header.dead_time, tag: old.header.dead_tag });
        for dead in old.header.tombstones {
            self.raise_floor(dead.id());
        }
        let mut carried = Carried::default();
        let evicted = self.header.counters.evicted;
        // Should there be too little room, it is taken from those that came first.
        let mut channels: Vec<At> =
            (0..old.buckets.len()).flat_map(|bucket| old.bucket_channels(bucket)).collect();
        channels.sort_by_cached_key(|channel| old.turn_of(*channel));
        for channel in channels {
            self.carry_channel(old, channel, &mut carried, now);
        }
        carried.dropped += (self.header.counters.evicted - evicted) as u32;
        carried.messages = self.header.message_count;
        old.header.closed = 1;
        carried
    }

    fn carry_channel(&mut self, old: &Zone<'_>, from: At, carried: &mut Carried, now: Now) {
        let head = *old.get::<ChannelHead>(from);
        let Ok(channel) = self.create_channel(&old.id_of(from), head.timeout, now) else {
            carried.dropped += head.stored + head.transient;
            self.raise_floor(head.last_id());
            self.trash_files_of(old, head.first);
            return;
        };
        carried.channels += 1;
        let copy = self.get_mut::<ChannelHead>(channel);
        copy.life = head.life;
        copy.next_seq = head.next_seq;
        copy.last_time = head.last_time;
        copy.last_tag = head.last_tag;
        copy.requested = head.requested;
        copy.set_former(head.former());
        if head.ledger.is_some() {
            self.give_ledger(channel, *old.get(head.ledger), now);
        }
        let mut at = head.first;
        while at.is_some() {
            let message = old.get::<MessageHead>(at);
            if !self.carry_message(old, message, channel, now) {
                carried.dropped += 1;
                self.trash_file_of(old, message);
                self.pass_over(channel, message);
            }
            at = message.next;
        }
        // What was in the log before the ids ran on must not be given again.
        let copy = self.get_mut::<ChannelHead>(channel);
        copy.next_seq = head.next_seq;
        copy.last_time = head.last_time;
        copy.last_tag = head.last_tag;
        // Until now it passed for one that never had a message.
        self.rest_if_idle(channel, now);
    }

    /// Gives a channel that has none its ledger, if there is room. Without one, its clients are told "at least".
    pub(super) fn give_ledger(&mut self, channel: At, ledger: LedgerBlock, now: Now) {
        if self.reserve(1, channel, now).is_err() {
            return;
        }
        if let Some(at) = self.allocate() {
            self.put(at, ledger);
            self.get_mut::<ChannelHead>(channel).ledger = at;
        }
    }

    /// Leaves out a message that found no room. It has had its number: a ledger that begins later must not pass for
    /// complete.
    pub(super) fn pass_over(&mut self, channel: At, message: &MessageHead) {
        self.record_dropped(channel, message);
        self.get_mut::<ChannelHead>(channel).next_seq = message.seq + 1;
    }

    fn trash_files_of(&mut self, old: &Zone<'_>, mut at: At) {
        while at.is_some() {
            let message = old.get::<MessageHead>(at);
            self.trash_file_of(old, message);
            at = message.next;
        }
    }

    fn trash_file_of(&mut self, old: &Zone<'_>, message: &MessageHead) {
        if message.flags & IN_FILE != 0 {
            self.trash.push(old.path_of(message));
        }
    }

    fn carry_message(
        &mut self,
        old: &Zone<'_>,
        message: &MessageHead,
        channel: At,
        now: Now,
    ) -> bool {
        let total = usize::from(message.type_len) + message.content_len as usize;
        let mut content = message.content.to_vec();
        content.truncate(total);
        old.read_chain(message.rest, total - content.len(), &mut content);
        self.append_copy(channel, *message, &mut Bytes::new(&content, &[]), now)
    }

    /// Appends a message that has its place and id already. False if there is no room.
    pub(super) fn append_copy(
        &mut self,
        channel: At,
        message: MessageHead,
        content: &mut Bytes<'_>,
        now: Now,
    ) -> bool {
        if self.reserve(message.blocks, channel, now).is_err() {
            return false;
        }
        let Some(at) = self.allocate() else {
            return false;
        };
        let mut inline = [0; MESSAGE_INLINE];
        content.fill(&mut inline);
        let Some(rest) = self.write_chain(content) else {
            self.free(at);
            return false;
        };
        let last = self.get::<ChannelHead>(channel).last;
        let copy = MessageHead {
            rest,
            content: inline,
            channel,
            prev: last,
            next: At::NONE,
            wheel_next: At::NONE,
            wheel_prev: At::NONE,
            wheel_slot: 0,
            ..message
        };
        self.put(at, copy);
        self.commit();
        match last {
            At::NONE => self.get_mut::<ChannelHead>(channel).first = at,
            last => self.get_mut::<MessageHead>(last).next = at,
        }
        self.commit();
        self.note_appended(channel, at);
        self.arm(at, message.deadline);
        true
    }
}
