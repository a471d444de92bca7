//! A channel's log: appending, reading after a cursor, and removing.

use std::borrow::Cow;
use std::cell::Cell;

use bytemuck::Zeroable;

use super::arena::Bytes;
use super::channel::{too_long, ChannelRef};
use super::memory::At;
use super::record::{
    kind, ChannelHead, MessageHead, DATA_INLINE, DELETED, DELETE_WHEN_RECEIVED, HAS_EVENT, IN_FILE,
    MESSAGE_INLINE, TRANSIENT,
};
use super::slots::SlotRef;
use super::Zone;
use crate::clock::Now;
use crate::message::{Body, Cursor, Life, Message, MessageId, Missed, Position};
use crate::publisher::PublishError;
use crate::wire::info::ChannelInfo;

/// How long a message published with storage off is kept for clients between two polls, in milliseconds.
pub const TRANSIENT_TIMEOUT: u64 = 5_000;
/// How many such messages a channel keeps.
pub const TRANSIENT_MAX: u32 = 64;

/// What a publisher sends.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// The channel's id.
    pub id: &'a [u8],
    /// The publisher's `Content-Type`, or nothing.
    pub content_type: &'a [u8],
    /// The publisher's name for the kind of event, or nothing. Neither may contain a NUL, as no header field does.
    pub event: &'a [u8],
    /// The message.
    pub content: Content<'a>,
    /// Messages that the channel may hold; 0 for storage off.
    pub max_messages: u32,
    /// Messages that `delete_when_received` leaves.
    pub min_messages: u32,
    /// Milliseconds until the message expires; 0 for never.
    pub message_timeout: u64,
    /// Seconds after which the channel, should it be idle, may be collected.
    pub channel_timeout: u32,
    /// `push_delete_oldest_received_message`.
    pub delete_when_received: bool,
}

/// The content of a [`Publication`].
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// In memory, in pieces.
    Pieces(&'a [&'a [u8]]),
    /// In a file that the zone owns from the moment that publishing succeeds: when the message goes, the path is in
    /// [`Zone::take_trash`].
    File {
        /// Absolute path.
        path: &'a [u8],
        /// Length in bytes.
        len: u64,
    },
}

/// What a publisher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The message's id.
    pub id: MessageId,
    /// The channel after publishing, with the subscribers that waited for the message.
    pub info: ChannelInfo,
}

/// The next message for a cursor: which one, and what was missed before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// Where it is: only under the lock under which it was found, but for [`Zone::begin_at`].
    pub at: At,
    /// The message's place, to find a copy that was made before.
    pub cursor: Cursor,
    /// Messages between the cursor and this one that are gone (invariant I5).
    pub missed: Missed,
    /// Its id.
    pub id: MessageId,
    /// Its place among the messages of all channels.
    pub stamp: u64,
}

/// How large a message is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// What of it is in the zone: its body, or the path of its file.
    pub here: u64,
    /// What of it is in a file.
    pub in_file: u64,
}

/// What a waiting subscriber gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A message.
    Message(Next),
    /// Nothing yet.
    UpToDate,
    /// A newer subscriber has taken its place.
    Conflict,
    /// The channel was deleted.
    Gone,
}

impl Zone<'_> {
    /// Appends a message to a channel's log, making the channel if need be, and hints to the workers that have
    /// subscribers of it.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; the channel's log is unchanged then.
    pub fn publish(
        &mut self,
        publication: &Publication<'_>,
        now: Now,
    ) -> Result<Published, PublishError> {
        if self.is_closed() {
            return Err(PublishError::Closing);
        }
        let meta = meta_of(publication);
        if meta.len() > usize::from(u16::MAX) {
            return Err(too_long(meta.len()));
        }
        if publication.id.len() > usize::from(u16::MAX) {
            return Err(too_long(publication.id.len()));
        }
        self.turn_wheel(now, super::wheel::TURN_BUDGET);
        let needed = message_blocks(meta.len(), publication.content);
        let found = self.find(publication.id);
        if found.is_none() && !self.make_place(1, &[]) {
            return Err(PublishError::TooManyChannels);
        }
        let channel_needs = if found.is_some() { 0 } else { Self::channel_blocks(publication.id) };
        self.reserve(needed.saturating_add(channel_needs), found.unwrap_or(At::NONE), now)?;
        let channel = match found {
            Some(at) => at,
            None => self.create_channel(publication.id, publication.channel_timeout, now)?,
        };
        self.drop_expired(channel, now);
        let id = self.append(channel, publication, &meta, needed, now)?;
        self.trim(channel, publication.max_messages, now);
        self.get_mut::<ChannelHead>(channel).timeout = publication.channel_timeout;
        self.header.counters.published += 1;
        let info = self.info_of(channel, now);
        self.notify(channel);
        Ok(Published { id, info })
    }

    /// Publishes to several channels, each another one, under one lock: room for all is made before the first.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; no channel's log has changed then, unless making room has failed to foresee what ledgers take.
    pub fn publish_all(
        &mut self,
        publications: &[Publication<'_>],
        now: Now,
    ) -> Result<Vec<Published>, PublishError> {
        if let [_, _, ..] = publications {
            self.turn_wheel(now, super::wheel::TURN_BUDGET);
            let mut known = Vec::with_capacity(publications.len());
            let needed = publications.iter().fold(0, |sum: u32, publication| {
                let meta = meta_of(publication).len();
                let channel = match self.find(publication.id) {
                    Some(at) => {
                        known.push(at);
                        self.blocks_at_risk(at, publication.id)
                    }
                    None => Self::channel_blocks(publication.id),
                };
                sum.saturating_add(message_blocks(meta, publication.content))
                    .saturating_add(channel)
            });
            if !self.make_place((publications.len() - known.len()) as u32, &known) {
                return Err(PublishError::TooManyChannels);
            }
            self.reserve(needed, At::NONE, now)?;
        }
        publications.iter().map(|publication| self.publish(publication, now)).collect()
    }

    fn append(
        &mut self,
        channel: At,
        publication: &Publication<'_>,
        meta: &[u8],
        blocks: u32,
        now: Now,
    ) -> Result<MessageId, PublishError> {
        let full = || PublishError::NoSpace { needed: u64::from(blocks) * 128 };
        let head = *self.get::<ChannelHead>(channel);
        let id = next_id(&head, now.wall.max(self.header.newest_time));
        self.header.newest_time = id.time;
        let (flags, deadline) = self.lifetime(publication, now);
        let (pieces, file): ([&[u8]; 1], _) = match publication.content {
            Content::Pieces(_) => ([&[]], None),
            Content::File { path, len } => ([path], Some(len)),
        };
        let mut content = match publication.content {
            Content::Pieces(pieces) => Bytes::new(meta, pieces),
            Content::File { .. } => Bytes::new(meta, &pieces),
        };
        self.header.stamps += u64::from(blocks);
        let mut message = MessageHead {
            kind: kind::MESSAGE,
            flags: flags
                | if file.is_some() { IN_FILE } else { 0 }
                | if publication.event.is_empty() { 0 } else { HAS_EVENT },
            type_len: meta.len() as u16,
            channel,
            deadline,
            prev: head.last,
            seq: head.next_seq,
            stamp: self.header.stamps,
            time: id.time,
            tag: id.tag,
            blocks,
            content_len: content_len(publication.content) as u32,
            min_stored: publication.min_messages,
            file_len: file.unwrap_or(0),
            ..MessageHead::zeroed()
        };
        content.fill(&mut message.content);
        let at = self.allocate().ok_or_else(full)?;
        message.rest = match self.write_chain(&mut content) {
            Some(rest) => rest,
            None => {
                self.free(at);
                return Err(full());
            }
        };
        self.put(at, message);
        // From here on the message exists: before it is linked, it is complete.
        self.commit();
        if head.last.is_some() {
            self.get_mut::<MessageHead>(head.last).next = at;
        } else {
            self.get_mut::<ChannelHead>(channel).first = at;
        }
        self.commit();
        self.note_appended(channel, at);
        self.arm(at, deadline);
        Ok(id)
    }

    /// Flags and deadline of a new message.
    fn lifetime(&self, publication: &Publication<'_>, now: Now) -> (u8, u64) {
        let timeout = match publication.message_timeout {
            0 => u64::MAX,
            timeout => now.mono.saturating_add(timeout),
        };
        if publication.max_messages == 0 {
            (TRANSIENT, timeout.min(now.mono + TRANSIENT_TIMEOUT))
        } else if publication.delete_when_received {
            (DELETE_WHEN_RECEIVED, timeout)
        } else {
            (0, timeout)
        }
    }

    /// What can be derived from a message that was linked.
    pub(super) fn note_appended(&mut self, channel: At, at: At) {
        let message = *self.get::<MessageHead>(at);
        let head = self.get_mut::<ChannelHead>(channel);
        head.last = at;
        head.next_seq = message.seq + 1;
        head.last_time = message.time;
        head.last_tag = message.tag;
        head.blocks += message.blocks;
        match message.flags & TRANSIENT {
            0 => head.stored += 1,
            _ => head.transient += 1,
        }
        self.header.message_blocks += message.blocks;
        self.header.message_count += 1;
        self.join_class(channel);
    }

    /// Drops the oldest messages that are more than the channel may hold.
    fn trim(&mut self, channel: At, max_messages: u32, now: Now) {
        loop {
            let head = self.get::<ChannelHead>(channel);
            let too_many = if max_messages > 0 && head.stored > max_messages {
                0
            } else if head.transient > TRANSIENT_MAX {
                TRANSIENT
            } else {
                return;
            };
            let mut at = head.first;
            while at.is_some() && self.get::<MessageHead>(at).flags & TRANSIENT != too_many {
                at = self.get::<MessageHead>(at).next;
            }
            if at.is_none() {
                return;
            }
            self.remove_message(at, now);
        }
    }

    /// What a waiting subscriber gets now.
    pub fn next(&self, channel: ChannelRef, cursor: Cursor, reign: u32, now: Now) -> Answer {
        let Some(at) = self.resolve(channel) else {
            return Answer::Gone;
        };
        let head = self.get::<ChannelHead>(at);
        if let Some(next) = self.first_after(at, cursor.seq, now) {
            return Answer::Message(next);
        }
        if head.flags & DELETED != 0 {
            Answer::Gone
        } else if head.reign != reign {
            Answer::Conflict
        } else {
            Answer::UpToDate
        }
    }

    /// The first message for a subscriber that has just come.
    pub(super) fn first_for(&self, channel: At, position: Position, now: Now) -> Option<Next> {
        let first = self.get::<ChannelHead>(channel).first;
        match position {
            Position::Newest => None,
            Position::Oldest => {
                let at = self.alive_from(first, now, |message| message.flags & TRANSIENT == 0)?;
                Some(self.next_at(at, Missed::default()))
            }
            Position::Nth(place) => {
                let mut before = place.saturating_sub(1);
                let at = self.alive_from(first, now, |message| {
                    let counts = message.flags & TRANSIENT == 0;
                    let is_it = counts && before == 0;
                    before -= u32::from(counts && !is_it);
                    is_it
                })?;
                Some(self.next_at(at, Missed::default()))
            }
            Position::Last(count) => {
                let at = self.last_stored(channel, count)?;
                let at = self.alive_from(at, now, |message| message.flags & TRANSIENT == 0)?;
                Some(self.next_at(at, Missed::default()))
            }
            Position::After(id) => {
                let oldest = self.oldest_after(channel, id)?;
                let at = self.alive_from(oldest, now, |_| true)?;
                let (seen, exact) = self.seen_at(channel, id, Some(oldest));
                let count = self.get::<MessageHead>(at).seq.saturating_sub(seen + 1);
                Some(self.next_at(at, Missed { count, at_least: !exact }))
            }
            Position::Past(_) => {
                let next = self.first_for(channel, Position::After(position.id()?), now)?;
                let missed = Missed { at_least: true, ..next.missed };
                Some(Next { missed, ..next })
            }
            Position::Anew { .. } => {
                let next = self.first_for(channel, Position::After(position.id()?), now)?;
                let (_, is_exact) = self.seen_by(channel, position);
                let missed = Missed { at_least: !is_exact, ..next.missed };
                Some(Next { missed, ..next })
            }
        }
    }

    /// The sequence number of the last message that a subscriber has seen for whom there is none now. What was dropped
    /// after its position is thereby missed, and it is told with the next message (invariant I5). Also whether that is exact.
    pub(super) fn seen_by(&self, channel: At, position: Position) -> (u64, bool) {
        let Some(id) = position.id() else {
            return (self.get::<ChannelHead>(channel).next_seq - 1, true);
        };
        let oldest = self.oldest_after(channel, id);
        let (seen, is_exact) = self.seen_at(channel, id, oldest);
        let is_exact = match position {
            Position::Past(_) => false,
            // Lives before this one may have ended after `id`; whether one of them was missed, `lost` says.
            Position::Anew { lost, .. } => {
                let (before, is_known) =
                    self.seen_at(channel, lost, self.oldest_after(channel, lost));
                let is_exact = is_exact || self.seen_in_life(channel, id, oldest).1;
                is_exact && is_known && before == seen
            }
            _ => is_exact,
        };
        (seen, is_exact)
    }

    /// The first message after a sequence number.
    fn first_after(&self, channel: At, seq: u64, now: Now) -> Option<Next> {
        let head = self.get::<ChannelHead>(channel);
        if head.next_seq <= seq + 1 {
            return None;
        }
        let at = self
            .after_bookmark(channel, seq)
            .or_else(|| self.first_beyond(channel, |message| message.seq > seq))?;
        let at = self.alive_from(at, now, |_| true)?;
        let count = self.get::<MessageHead>(at).seq - seq - 1;
        Some(self.next_at(at, Missed { count, at_least: false }))
    }

    /// Tells where a message of this channel is, or was, that somebody has got who is about to ask for the next.
    pub fn begin_at(&self, channel: ChannelRef, at: At) {
        self.bookmark(channel.at).set(at);
    }

    fn bookmark(&self, channel: At) -> &Cell<At> {
        let [first, ..] = &self.bookmarks;
        self.bookmarks.get(channel.0 as usize % self.bookmarks.len()).unwrap_or(first)
    }

    /// The first message after a sequence number, if it is the one with the bookmark or the one after that.
    fn after_bookmark(&self, channel: At, seq: u64) -> Option<At> {
        let at = self.bookmark(channel).get();
        let message = self.get::<MessageHead>(at);
        // Whatever it was then, it is in this channel's log now.
        if message.kind != kind::MESSAGE || message.channel != channel {
            return None;
        }
        if message.seq <= seq {
            return Some(message.next).filter(|next| self.get::<MessageHead>(*next).seq > seq);
        }
        (self.get::<MessageHead>(message.prev).seq <= seq).then_some(at)
    }

    fn next_at(&self, at: At, missed: Missed) -> Next {
        let message = self.get::<MessageHead>(at);
        self.bookmark(message.channel).set(at);
        let life = Life(self.get::<ChannelHead>(message.channel).life);
        let cursor = Cursor { life, seq: message.seq };
        Next { at, cursor, missed, id: id_of(message), stamp: message.stamp }
    }

    /// The oldest message with an id above this one, expired or not.
    pub(super) fn oldest_after(&self, channel: At, id: MessageId) -> Option<At> {
        self.first_beyond(channel, |message| id_of(message) > id)
    }

    /// The oldest message beyond a place: `is_beyond` holds for it and all after it. The search goes on from both ends of the
    /// log, for nearly all who ask are near one.
    fn first_beyond(&self, channel: At, is_beyond: impl Fn(&MessageHead) -> bool) -> Option<At> {
        let head = self.get::<ChannelHead>(channel);
        let (mut old, mut new, mut found) = (head.first, head.last, None);
        while old.is_some() && new.is_some() {
            let (oldest, newest) = (self.get::<MessageHead>(old), self.get::<MessageHead>(new));
            if is_beyond(oldest) {
                return Some(old);
            }
            if !is_beyond(newest) {
                return found;
            }
            found = Some(new);
            (old, new) = (oldest.next, newest.prev);
        }
        found
    }

    /// The oldest of the messages from `newest` backwards that all satisfy a condition.
    fn walk_back(&self, newest: At, mut wanted: impl FnMut(&MessageHead) -> bool) -> Option<At> {
        let mut found = None;
        let mut at = newest;
        while at.is_some() {
            let message = self.get::<MessageHead>(at);
            if !wanted(message) {
                break;
            }
            found = Some(at);
            at = message.prev;
        }
        found
    }

    /// The first of the last `count` messages that count.
    fn last_stored(&self, channel: At, count: u32) -> Option<At> {
        let mut left = count;
        self.walk_back(self.get::<ChannelHead>(channel).last, |message| {
            let is_wanted = left > 0;
            left -= u32::from(is_wanted && message.flags & TRANSIENT == 0);
            is_wanted
        })
    }

    /// The first message from `at` on that has not expired and satisfies a condition.
    fn alive_from(
        &self,
        mut at: At,
        now: Now,
        mut wanted: impl FnMut(&MessageHead) -> bool,
    ) -> Option<At> {
        while at.is_some() {
            let message = self.get::<MessageHead>(at);
            if message.deadline > now.mono && wanted(message) {
                return Some(at);
            }
            at = message.next;
        }
        None
    }

    /// The channel of a message that was just found.
    pub fn channel_of(&self, next: &Next) -> ChannelRef {
        ChannelRef { at: self.get::<MessageHead>(next.at).channel, life: next.cursor.life }
    }

    /// Takes a message out of the log that cannot be had any more, for its file has gone: who has not got it is told. Only
    /// under the lock under which `next` was found.
    pub fn lose(&mut self, next: &Next, now: Now) {
        self.remove_message(next.at, now);
    }

    /// How large a message is. Only under the lock under which `next` was found.
    pub fn size_of(&self, next: &Next) -> Size {
        let head = self.get::<MessageHead>(next.at);
        Size { here: u64::from(head.content_len), in_file: head.file_len }
    }

    /// Copies a message out of the zone (invariant I4). Only under the lock under which `next` was found.
    pub fn copy(&self, next: &Next) -> Message {
        let head = self.get::<MessageHead>(next.at);
        let type_len = usize::from(head.type_len);
        let total = type_len + head.content_len as usize;
        let mut body = Vec::with_capacity(total);
        body.extend(head.content.iter().take(total));
        self.read_chain(head.rest, total - body.len(), &mut body);
        // The body stays where it is: it may be large.
        let mut content: Vec<u8> = body.drain(..type_len.min(body.len())).collect();
        let body = body.into_boxed_slice();
        let event = match content.iter().position(|byte| *byte == 0) {
            Some(end) if head.flags & HAS_EVENT != 0 => {
                let event = content.split_off(end + 1);
                content.truncate(end);
                event
            }
            _ => Vec::new(),
        };
        Message {
            id: id_of(head),
            cursor: next.cursor,
            content_type: content.into_boxed_slice(),
            event: event.into_boxed_slice(),
            body: match head.flags & IN_FILE {
                0 => Body::Bytes(body),
                _ => Body::File { path: body, len: head.file_len },
            },
            delete_when_received: head.flags & DELETE_WHEN_RECEIVED != 0,
        }
    }

    /// A message with `delete_when_received` was read by all of this worker's subscribers that waited for it: it goes if it
    /// is the oldest, more than the minimum are there, and no other worker has yet to read it.
    pub fn received(&mut self, channel: ChannelRef, cursor: Cursor, slot: SlotRef, now: Now) {
        let Some(at) = self.resolve(channel) else {
            return;
        };
        let head = self.get::<ChannelHead>(at);
        let message = self.get::<MessageHead>(head.first);
        if message.seq == cursor.seq
            && message.flags & DELETE_WHEN_RECEIVED != 0
            && head.stored > message.min_stored
            && !self.is_awaited_elsewhere(at, slot)
        {
            self.remove_message(head.first, now);
        }
    }

    /// Removes a message from its channel's log.
    pub(super) fn remove_message(&mut self, at: At, now: Now) {
        let message = *self.get::<MessageHead>(at);
        self.record_dropped(message.channel, &message);
        if message.prev.is_some() {
            self.get_mut::<MessageHead>(message.prev).next = message.next;
        } else {
            self.get_mut::<ChannelHead>(message.channel).first = message.next;
        }
        self.commit();
        if message.next.is_some() {
            self.get_mut::<MessageHead>(message.next).prev = message.prev;
        }
        self.forget(at, &message);
        if message.next.is_none() {
            let channel = self.get_mut::<ChannelHead>(message.channel);
            channel.last = message.prev;
        }
        self.begin_ledger(message.channel, &message);
        if message.prev.is_none() {
            self.rejoin_class(message.channel);
        } else {
            self.join_class(message.channel);
        }
        if self.get::<ChannelHead>(message.channel).first.is_none() {
            self.rest_if_idle(message.channel, now);
        }
    }

    /// A key by which channels give way that take their places anew: those without messages in the order of their last use,
    /// then the others in the order of their oldest messages.
    pub(super) fn turn_of(&self, channel: At) -> (u64, u64) {
        (self.oldest_stamp(channel), self.get::<ChannelHead>(channel).requested)
    }

    /// The stamp of a channel's oldest message; 0 if it has none.
    pub(super) fn oldest_stamp(&self, channel: At) -> u64 {
        self.get::<MessageHead>(self.get::<ChannelHead>(channel).first).stamp
    }

    /// Gives back what a message that is linked nowhere holds.
    fn forget(&mut self, at: At, message: &MessageHead) {
        let head = self.get_mut::<ChannelHead>(message.channel);
        head.blocks = head.blocks.saturating_sub(message.blocks);
        match message.flags & TRANSIENT {
            0 => head.stored = head.stored.saturating_sub(1),
            _ => head.transient = head.transient.saturating_sub(1),
        }
        self.header.message_blocks = self.header.message_blocks.saturating_sub(message.blocks);
        self.header.message_count = self.header.message_count.saturating_sub(1);
        self.disarm(at);
        if message.flags & IN_FILE != 0 && !self.has_moved(message.channel) {
            let path = self.path_of(message);
            self.trash.push(path);
        }
        self.free_chain(message.rest);
        self.free(at);
    }

    /// Whether a channel's messages, and with them their files, belong to another zone now. Deleted channels do not move.
    fn has_moved(&self, channel: At) -> bool {
        self.is_closed() && self.get::<ChannelHead>(channel).flags & DELETED == 0
    }

    /// The file that holds a message's body.
    pub(super) fn path_of(&self, message: &MessageHead) -> Vec<u8> {
        let type_len = usize::from(message.type_len);
        let total = type_len + message.content_len as usize;
        let mut content: Vec<u8> = message.content.iter().take(total).copied().collect();
        self.read_chain(message.rest, total - content.len(), &mut content);
        content.split_off(type_len.min(content.len()))
    }

    /// Removes all messages of a channel that is linked nowhere.
    pub(super) fn drop_all_messages(&mut self, channel: At) {
        let mut at = self.get::<ChannelHead>(channel).first;
        while at.is_some() {
            let message = *self.get::<MessageHead>(at);
            self.forget(at, &message);
            at = message.next;
        }
        let head = self.get_mut::<ChannelHead>(channel);
        head.first = At::NONE;
        head.last = At::NONE;
    }

    /// Removes expired messages from the old end of a channel's log; the wheel has those in the middle.
    pub(super) fn drop_expired(&mut self, channel: At, now: Now) {
        loop {
            let first = self.get::<ChannelHead>(channel).first;
            if first.is_none() || self.get::<MessageHead>(first).deadline > now.mono {
                return;
            }
            self.expire_message(first, now);
        }
    }

    /// A message's time is over.
    pub(super) fn expire_message(&mut self, at: At, now: Now) {
        self.header.counters.expired += 1;
        self.remove_message(at, now);
    }
}

/// The id of a message.
pub(super) fn id_of(message: &MessageHead) -> MessageId {
    MessageId { time: message.time, tag: message.tag }
}

/// The id that a channel's next message gets: never at or before the last one's, whatever the clock does.
fn next_id(head: &ChannelHead, wall: u64) -> MessageId {
    if wall > head.last_time {
        return MessageId { time: wall, tag: 0 };
    }
    match head.last_tag.checked_add(1) {
        Some(tag) => MessageId { time: head.last_time, tag },
        None => MessageId { time: head.last_time + 1, tag: 0 },
    }
}

/// Bytes that a publication's content takes in the zone, its content type apart.
fn content_len(content: Content<'_>) -> u64 {
    match content {
        Content::Pieces(pieces) => pieces.iter().map(|piece| piece.len() as u64).sum(),
        Content::File { path, .. } => path.len() as u64,
    }
}

/// What is kept of a message beside its content: its type and, if it has one, its event's name.
fn meta_of<'a>(publication: &Publication<'a>) -> Cow<'a, [u8]> {
    match publication.event {
        [] => publication.content_type.into(),
        event => [publication.content_type, b"\0", event].concat().into(),
    }
}

/// Blocks that a message takes.
pub(super) fn message_blocks(meta_len: usize, content: Content<'_>) -> u32 {
    blocks_for(meta_len as u64 + content_len(content))
}

/// Blocks that a message with so many bytes takes, its type and event included.
pub(super) fn blocks_for(len: u64) -> u32 {
    if len > u64::from(u32::MAX) {
        return u32::MAX;
    }
    let more = len.saturating_sub(MESSAGE_INLINE as u64).div_ceil(DATA_INLINE as u64);
    u32::try_from(more + 1).unwrap_or(u32::MAX)
}
