//! A channel's life: made by a publisher or subscriber, kept while it has messages or subscribers, collected when idle,
//! or deleted.

use bytemuck::Zeroable;

use super::arena::Bytes;
use super::log::{Answer, Next};
use super::memory::{At, Tombstone, Unknown, TOMBSTONES};
use super::record::{
    kind, ChannelHead, ChannelTail, EntryBlock, SlotEntry, SlotHead, BUSY, DATA_INLINE, DELETED,
    ENTRIES_INLINE, ENTRIES_MORE, ID_INLINE, NOTIFIED,
};
use super::slots::SlotRef;
use super::Zone;
use crate::clock::Now;
use crate::config::Concurrency;
use crate::message::{Cursor, Life, MessageId, Missed, Position};
use crate::publisher::PublishError;
use crate::subscriber::Refusal;
use crate::wire::info::ChannelInfo;

/// One life of a channel, as a worker remembers it. Not a pointer: it is checked at each use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(Rust, packed(4))]
pub struct ChannelRef {
    pub(super) at: At,
    /// Unique in the zone.
    pub life: Life,
}

impl ChannelRef {
    /// No channel: the zone knows none of this life.
    pub const NOWHERE: ChannelRef = ChannelRef { at: At::NONE, life: Life(0) };

    /// A reference to no channel of the zone, under a number of its own: for what is not one channel.
    pub(crate) const fn outside(life: Life) -> Self {
        ChannelRef { at: At::NONE, life }
    }
}

#[cfg(test)]
impl ChannelRef {
    /// A reference to no channel.
    pub(crate) fn for_test(life: u64) -> Self {
        ChannelRef { at: At::NONE, life: Life(life) }
    }
}

/// What a subscriber asks for.
#[derive(Clone, Copy, Debug)]
pub struct Subscription<'a> {
    /// The channel's id.
    pub id: &'a [u8],
    /// Where to begin.
    pub position: Position,
    /// Whether to be counted as waiting if there is no message (a long-poll), and by which worker.
    pub hold: Option<SlotRef>,
    /// Only if the channel exists.
    pub authorized_only: bool,
    /// Refuse if so many are waiting already; 0 for no limit.
    pub max_subscribers: u32,
    /// What happens to those who wait.
    pub concurrency: Concurrency,
    /// Seconds after which the channel, should it be idle, may be collected.
    pub channel_timeout: u32,
}

/// The answer to a [`Subscription`] that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed {
    /// A message is there.
    Message(Next),
    /// None is; the subscriber is counted as waiting if it asked for that.
    Waiting {
        /// The channel.
        channel: ChannelRef,
        /// What it has seen.
        cursor: Cursor,
        /// For [`Zone::next`]: later subscribers with concurrency `last` begin a new reign.
        reign: u32,
        /// It may have missed more than the messages between its cursor and the next one.
        is_vague: bool,
    },
}

/// The place of a subscriber that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The channel.
    pub channel: ChannelRef,
    /// What it has seen, or need not see.
    pub cursor: Cursor,
    /// As for [`Subscribed::Waiting`].
    pub reign: u32,
    /// What it has missed before the first message that it will get; if there is none yet, whether it may have missed more
    /// than that will say.
    pub missed: Missed,
    /// Its position as an id: what comes after it is what it will get.
    pub id: MessageId,
    /// The id before what it has missed.
    pub came_with: MessageId,
    /// There is nothing for it yet.
    pub waits: bool,
}

/// A subscriber that was admitted to a channel.
struct Entry {
    channel: ChannelRef,
    /// The first message for it.
    next: Option<Next>,
    /// The sequence number of the last message that it has seen, should there be none for it.
    seen: u64,
    /// It may have missed more than that says.
    is_vague: bool,
}

/// Where a slot entry is: a block and the place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryPlace {
    Tail(At, usize),
    More(At, usize),
}

impl Zone<'_> {
    /// What publishers are told of a channel.
    pub fn info(&mut self, id: &[u8], now: Now) -> Option<ChannelInfo> {
        self.turn_wheel(now, super::wheel::TURN_BUDGET);
        let channel = self.find(id)?;
        self.drop_expired(channel, now);
        Some(self.info_of(channel, now))
    }

    /// Deletes a channel with its messages. Its waiting subscribers are told by their workers. Returns what there was.
    ///
    /// Does nothing in a closed zone ([`Zone::is_closed`]), for the channel lives on in another one.
    pub fn delete(&mut self, id: &[u8], now: Now) -> Option<ChannelInfo> {
        if self.is_closed() {
            return None;
        }
        self.turn_wheel(now, super::wheel::TURN_BUDGET);
        let at = self.find(id)?;
        self.drop_expired(at, now);
        let info = self.info_of(at, now);
        self.remember_dead(at);
        self.unlink_channel(at);
        if self.live_subscribers(at) == 0 {
            self.free_channel(at);
            return Some(info);
        }
        // Who waits for a message that was published just before still gets it: the log stays until all workers with
        // subscribers of the channel have looked.
        let next = self.header.leaving;
        let channel = self.get_mut::<ChannelHead>(at);
        channel.flags |= DELETED;
        channel.bucket_next = next;
        self.commit();
        self.header.leaving = at;
        self.commit();
        self.notify(at);
        Some(info)
    }

    /// Serves a subscriber: a message, or a place among those who wait.
    ///
    /// # Errors
    ///
    /// A [`Refusal`]; nothing has changed then.
    pub fn subscribe(
        &mut self,
        subscription: &Subscription<'_>,
        now: Now,
    ) -> Result<Subscribed, Refusal> {
        let Entry { channel, next, seen, is_vague } =
            self.enter_channel(subscription, false, now)?;
        let reign = self.reign_for(channel, subscription);
        Ok(match next {
            Some(next) => Subscribed::Message(next),
            None => Subscribed::Waiting {
                channel,
                cursor: Cursor { life: channel.life, seq: seen },
                reign,
                is_vague,
            },
        })
    }

    /// Gives a subscriber a place on each of several channels, as [`follow`](Self::follow) does.
    ///
    /// # Errors
    ///
    /// The first [`Refusal`]; the subscriber is counted nowhere then, and has driven nobody away.
    pub fn follow_all(
        &mut self,
        subscriptions: &[Subscription<'_>],
        now: Now,
    ) -> Result<Vec<Followed>, Refusal> {
        self.make_place_for_all(subscriptions, now)?;
        let mut places = Vec::with_capacity(subscriptions.len());
        for subscription in subscriptions {
            match self.find_place(subscription, now) {
                Ok(place) => places.push(place),
                Err(refusal) => {
                    for (place, subscription) in places.iter().zip(subscriptions) {
                        if let Some(slot) = subscription.hold {
                            self.leave(place.channel, slot, 1, now);
                        }
                    }
                    return Err(refusal);
                }
            }
        }
        for (place, subscription) in places.iter_mut().zip(subscriptions) {
            place.reign = self.reign_for(place.channel, subscription);
        }
        Ok(places)
    }

    /// Makes place and room for the channels that these subscriptions begin, before the first of them is there to give way
    /// to the others.
    fn make_place_for_all(
        &mut self,
        subscriptions: &[Subscription<'_>],
        now: Now,
    ) -> Result<(), Refusal> {
        if self.is_closed() {
            return Err(Refusal::Closing);
        }
        self.turn_wheel(now, super::wheel::TURN_BUDGET);
        let mut known = Vec::with_capacity(subscriptions.len());
        let mut needed = 0;
        for subscription in subscriptions {
            needed += match self.find(subscription.id) {
                Some(at) => {
                    self.admit(at, subscription)?;
                    known.push(at);
                    self.blocks_at_risk(at, subscription.id)
                }
                None if subscription.authorized_only => return Err(Refusal::NotAuthorized),
                None => Self::channel_blocks(subscription.id),
            };
        }
        if !self.make_place((subscriptions.len() - known.len()) as u32, &known) {
            return Err(Refusal::TooManyChannels);
        }
        self.reserve(needed, At::NONE, now).map_err(|_| Refusal::NoSpace)
    }

    /// Gives a subscriber that stays a place just before the first message that it is to get, and counts it as waiting if
    /// it says by which worker ([`Subscription::hold`]).
    ///
    /// # Errors
    ///
    /// A [`Refusal`]; nothing has changed then.
    pub fn follow(
        &mut self,
        subscription: &Subscription<'_>,
        now: Now,
    ) -> Result<Followed, Refusal> {
        let place = self.find_place(subscription, now)?;
        let reign = self.reign_for(place.channel, subscription);
        Ok(Followed { reign, ..place })
    }

    /// As [`follow`](Self::follow), but whoever waits may go on waiting.
    fn find_place(
        &mut self,
        subscription: &Subscription<'_>,
        now: Now,
    ) -> Result<Followed, Refusal> {
        let Entry { channel, next, seen, is_vague } =
            self.enter_channel(subscription, true, now)?;
        let head = self.get::<ChannelHead>(channel.at);
        let last = head.last_id();
        let given = subscription.position.id();
        let id = match (next, given) {
            (Some(next), Some(id)) if next.missed.is_none() => id,
            (Some(next), _) => just_before(next.id),
            (None, Some(id)) => id.min(last),
            (None, None) => last,
        };
        Ok(Followed {
            id,
            came_with: given.unwrap_or(id).min(id),
            waits: next.is_none(),
            channel,
            cursor: Cursor {
                life: channel.life,
                seq: next.map_or(seen, |next| next.cursor.seq.saturating_sub(1)),
            },
            reign: self.get::<ChannelHead>(channel.at).reign,
            missed: next.map_or(Missed { count: 0, at_least: is_vague }, |next| next.missed),
        })
    }

    /// The place of a subscriber that is told now of what is gone, although nothing has come after it: for those that can
    /// be told only as they begin.
    pub fn past_gap(&self, place: &Followed, now: Now) -> Followed {
        if !place.waits {
            return *place;
        }
        match self.place_of(place.channel, place.cursor, now) {
            Some((id, missed)) => Followed {
                id,
                cursor: Cursor { seq: place.cursor.seq + missed.count, ..place.cursor },
                missed: place.missed.and(missed),
                ..*place
            },
            None => *place,
        }
    }

    /// An id to go on after for a subscriber that has come so far and got nothing since, and what it has missed between the
    /// two: messages that came and went before anybody looked. Nothing if the channel was deleted.
    pub fn place_of(
        &self,
        channel: ChannelRef,
        cursor: Cursor,
        now: Now,
    ) -> Option<(MessageId, Missed)> {
        let at = self.resolve(channel)?;
        let head = self.get::<ChannelHead>(at);
        match self.next(channel, cursor, head.reign, now) {
            Answer::Message(next) => Some((just_before(next.id), next.missed)),
            Answer::Gone => None,
            Answer::UpToDate | Answer::Conflict => {
                let count = head.next_seq.saturating_sub(cursor.seq + 1);
                Some((head.last_id(), Missed { count, at_least: false }))
            }
        }
    }

    /// The id after which a channel's next message will come, also of a channel that there is not yet.
    pub fn newest(&self, id: &[u8]) -> MessageId {
        match self.find(id) {
            Some(at) => self.get::<ChannelHead>(at).last_id(),
            None => self.recall_dead(self.hash(id)),
        }
    }

    /// Admits a subscriber to a channel, and counts it as waiting if it `stays` or there is no message for it.
    fn enter_channel(
        &mut self,
        subscription: &Subscription<'_>,
        stays: bool,
        now: Now,
    ) -> Result<Entry, Refusal> {
        if self.is_closed() {
            return Err(Refusal::Closing);
        }
        self.turn_wheel(now, super::wheel::TURN_BUDGET);
        let at = match self.find(subscription.id) {
            Some(at) => at,
            None if subscription.authorized_only => return Err(Refusal::NotAuthorized),
            None if !self.make_place(1, &[]) => return Err(Refusal::TooManyChannels),
            None => self
                .create_channel(subscription.id, subscription.channel_timeout, now)
                .map_err(|_| Refusal::NoSpace)?,
        };
        self.admit(at, subscription)?;
        self.drop_expired(at, now);
        let head = self.get_mut::<ChannelHead>(at);
        head.requested = now.mono;
        head.timeout = subscription.channel_timeout;
        let life = Life(head.life);
        let next = self.first_for(at, subscription.position, now);
        let (seen, is_exact) = self.seen_by(at, subscription.position);
        if let Some(slot) = subscription.hold.filter(|_| stays || next.is_none()) {
            self.add_subscriber(at, slot, now).map_err(|_| Refusal::NoSpace)?;
        }
        self.rest_if_idle(at, now);
        Ok(Entry { channel: ChannelRef { at, life }, next, seen, is_vague: !is_exact })
    }

    fn admit(&self, at: At, subscription: &Subscription<'_>) -> Result<(), Refusal> {
        let waiting = self.live_subscribers(at);
        let max = u64::from(subscription.max_subscribers);
        if waiting > 0 && max > 0 && waiting >= max {
            return Err(Refusal::TooManySubscribers);
        }
        if waiting > 0 && subscription.concurrency == Concurrency::First {
            return Err(Refusal::Conflict);
        }
        Ok(())
    }

    /// Under which reign a subscriber waits that was admitted: a new one, if it drives the others away. Only when nothing
    /// can be refused any more.
    fn reign_for(&mut self, channel: ChannelRef, subscription: &Subscription<'_>) -> u32 {
        let head = self.get_mut::<ChannelHead>(channel.at);
        if subscription.concurrency != Concurrency::Last {
            return head.reign;
        }
        head.reign = head.reign.wrapping_add(1);
        let reign = head.reign;
        self.notify(channel.at);
        reign
    }

    /// Takes `count` waiting subscribers of a worker off a channel: they have been answered, or have gone.
    pub fn leave(&mut self, channel: ChannelRef, slot: SlotRef, count: u32, now: Now) {
        let Some(at) = self.resolve(channel) else {
            return;
        };
        if let Some(place) = self.entry_of(at, slot) {
            let entry = self.entry(place);
            let left = entry.subscribers().saturating_sub(count);
            let flags = entry.count & (NOTIFIED | BUSY);
            self.set_entry(
                place,
                if left == 0 {
                    SlotEntry::default()
                } else {
                    SlotEntry { count: left | flags, ..entry }
                },
            );
        }
        self.rest_if_idle(at, now);
    }

    /// Tells the zone that a worker is now looking at a channel: what happens from here on needs a new hint.
    pub fn look(&mut self, channel: ChannelRef, slot: SlotRef) {
        if let Some(place) = self.resolve(channel).and_then(|at| self.entry_of(at, slot)) {
            self.set_notified(place, false);
        }
    }

    /// Whether a worker was told that a channel moved, and has not looked: nobody tells it again until it does. So who joins
    /// those that wait there is to be looked at as well, though it came after the hint.
    pub fn is_told(&self, channel: ChannelRef, slot: SlotRef) -> bool {
        let place = self.resolve(channel).and_then(|at| self.entry_of(at, slot));
        place.is_some_and(|place| self.entry(place).is_notified())
    }

    /// Tells the zone whether a worker that looks at a channel has not looked on behalf of all its subscribers yet.
    pub fn is_looking(&mut self, channel: ChannelRef, slot: SlotRef, looking: bool) {
        if let Some(place) = self.resolve(channel).and_then(|at| self.entry_of(at, slot)) {
            // Without subscribers there is nobody to look at.
            let looking = looking && self.entry(place).subscribers() > 0;
            self.set_busy(place, looking);
        }
    }

    pub(super) fn info_of(&self, at: At, now: Now) -> ChannelInfo {
        let head = self.get::<ChannelHead>(at);
        ChannelInfo {
            messages: u64::from(head.stored),
            requested: (now.mono.saturating_sub(head.requested) / 1000) as i64,
            subscribers: self.live_subscribers(at),
        }
    }

    /// Blocks that a channel with this id takes.
    pub(super) fn channel_blocks(id: &[u8]) -> u32 {
        2 + id.len().saturating_sub(ID_INLINE).div_ceil(DATA_INLINE) as u32
    }

    /// Blocks to make room for, beside what a channel is to hold, so that it is there again should it be collected to make
    /// that room: now, or once its messages have gone.
    pub(super) fn blocks_at_risk(&self, at: At, id: &[u8]) -> u32 {
        match self.live_subscribers(at) {
            0 => Self::channel_blocks(id),
            _ => 0,
        }
    }

    /// Makes a channel.
    pub(super) fn create_channel(
        &mut self,
        id: &[u8],
        timeout: u32,
        now: Now,
    ) -> Result<At, PublishError> {
        let id_len = u16::try_from(id.len()).map_err(|_| too_long(id.len()))?;
        self.reserve(Self::channel_blocks(id), At::NONE, now)?;
        let full = || PublishError::NoSpace { needed: 0 };
        let hash = self.hash(id);
        let at = self.allocate().ok_or_else(full)?;
        let Some(tail) = self.create_tail(id) else {
            self.free(at);
            return Err(full());
        };
        self.header.lives += 1;
        let last = self.recall_dead(hash);
        let mut head = ChannelHead {
            kind: kind::CHANNEL,
            id_len,
            tail,
            hash,
            life: self.header.lives,
            next_seq: 1,
            last_time: last.time,
            last_tag: last.tag,
            requested: now.mono,
            timeout,
            ..ChannelHead::zeroed()
        };
        head.set_former(last);
        self.put(at, head);
        self.link_channel(at);
        self.header.channel_count += 1;
        self.rest_if_idle(at, now);
        Ok(at)
    }

    fn create_tail(&mut self, id: &[u8]) -> Option<At> {
        let at = self.allocate()?;
        let mut rest = Bytes::new(id, &[]);
        let mut tail = ChannelTail { kind: kind::PART, ..ChannelTail::zeroed() };
        rest.fill(&mut tail.id);
        let Some(id_rest) = self.write_chain(&mut rest) else {
            self.free(at);
            return None;
        };
        self.put(at, ChannelTail { id_rest, ..tail });
        Some(at)
    }

    /// Blocks that a channel holds beside its messages.
    pub(super) fn fixed_blocks(&self, at: At) -> u32 {
        let head = self.get::<ChannelHead>(at);
        let id_rest = usize::from(head.id_len).saturating_sub(ID_INLINE).div_ceil(DATA_INLINE);
        let more = self.entry_places(at).count().saturating_sub(ENTRIES_INLINE) / ENTRIES_MORE;
        2 + (id_rest + more) as u32 + u32::from(head.ledger.is_some())
    }

    /// Takes a channel that is no longer in the table apart.
    pub(super) fn free_channel(&mut self, at: At) {
        self.drop_all_messages(at);
        self.disarm(at);
        self.leave_class(at);
        let head = *self.get::<ChannelHead>(at);
        let tail = *self.get::<ChannelTail>(head.tail);
        let mut more = tail.more;
        while more.is_some() {
            let next = self.get::<EntryBlock>(more).next;
            self.free(more);
            more = next;
        }
        self.free_chain(tail.id_rest);
        self.free(head.ledger);
        self.free(head.tail);
        self.free(at);
        self.header.channel_count = self.header.channel_count.saturating_sub(1);
    }

    /// Starts the idle timer of a channel without messages and subscribers, which gives way after the others now; frees one
    /// that was deleted, and lets the others be.
    pub(super) fn rest_if_idle(&mut self, at: At, now: Now) {
        let head = *self.get::<ChannelHead>(at);
        if self.live_subscribers(at) > 0 {
            self.join_class(at);
            return;
        }
        if head.flags & DELETED != 0 {
            self.unlink_leaving(at);
            self.free_channel(at);
            return;
        }
        if head.first.is_some() {
            self.join_class(at);
            return;
        }
        self.arm(at, now.mono + 1000 * u64::from(head.timeout));
        match self.is_blank(at) {
            true => self.join_class(at),
            false => self.rejoin_class(at),
        }
    }

    /// A channel's timer has fired: collects it if it is still idle.
    pub(super) fn collect_channel(&mut self, at: At, now: Now) {
        let head = *self.get::<ChannelHead>(at);
        if head.first.is_some() || head.flags & DELETED != 0 || self.live_subscribers(at) > 0 {
            return;
        }
        if at == self.pinned {
            self.arm(at, now.mono + 1000);
            return;
        }
        let due = head.requested + 1000 * u64::from(head.timeout);
        if due > now.mono {
            self.arm(at, due);
            return;
        }
        self.remove_idle_channel(at);
        self.header.counters.collected += 1;
    }

    /// Removes a channel without messages and subscribers.
    pub(super) fn remove_idle_channel(&mut self, at: At) {
        self.remember_dead(at);
        self.unlink_channel(at);
        self.free_channel(at);
    }

    fn unlink_leaving(&mut self, at: At) {
        let next = self.get::<ChannelHead>(at).bucket_next;
        if self.header.leaving == at {
            self.header.leaving = next;
        } else {
            let mut before = self.header.leaving;
            while before.is_some() && self.get::<ChannelHead>(before).bucket_next != at {
                before = self.get::<ChannelHead>(before).bucket_next;
            }
            self.get_mut::<ChannelHead>(before).bucket_next = next;
        }
        self.commit();
    }

    /// Notes the last id of a channel that ends, so that another life of it does not give an id again.
    fn remember_dead(&mut self, at: At) {
        let head = *self.get::<ChannelHead>(at);
        // This life has given no id, and what those before it gave is remembered already.
        if head.next_seq == 1 {
            return;
        }
        let dead = Tombstone { hash: head.hash, time: head.last_time, tag: head.last_tag, used: 1 };
        let place = (head.hash % TOMBSTONES as u64) as usize;
        let former = self.header.tombstones.get(place).copied().unwrap_or_default();
        if former.used != 0 && former.hash != head.hash {
            self.raise_floor(former.id());
        }
        self.commit();
        if let Some(tombstone) = self.header.tombstones.get_mut(place) {
            *tombstone = dead;
        }
    }

    /// Has a zone that nothing is in yet begin at this time, or a moment later than it was made.
    pub fn begin_now(&mut self, now: Now) {
        // Another nginx may have run until a moment ago, and have given ids of this second.
        self.begin_after(MessageId { time: now.wall, tag: u32::MAX });
    }

    /// Has the ids of all new channels begin after this one. Who comes with an earlier one, from before a restart, is told
    /// that nobody knows what it has missed.
    pub(super) fn begin_after(&mut self, id: MessageId) {
        self.header.dead_time = id.time;
        self.header.dead_tag = id.tag;
    }

    /// Notes that there may have been a life of which nothing is known, the last before this one: who comes with its cursors is
    /// told that nobody knows what it has missed, and all new ids are above them.
    pub(super) fn doubt(&mut self, life: Unknown) {
        if life.after >= life.upto {
            return;
        }
        let former = self.header.unknown;
        let earlier = former.into_iter().filter(|former| former.upto <= life.after);
        let mut lives = [life].into_iter().chain(earlier);
        self.header.unknown = std::array::from_fn(|_| lives.next().unwrap_or_default());
        self.header.newest_time = self.header.newest_time.max(life.upto + 1);
    }

    /// Whether a cursor is of a life of which nothing is known.
    pub(super) fn is_of_unknown_life(&self, id: MessageId) -> bool {
        self.header.unknown.iter().any(|life| life.contains(id))
    }

    /// Lifts the ids of all new channels above that of one that died and can be remembered no longer.
    pub(super) fn raise_floor(&mut self, dead: MessageId) {
        if (dead.time, dead.tag) <= (self.header.dead_time, self.header.dead_tag) {
            return;
        }
        // Death in between leaves a floor that is too high, never one that is too low.
        self.header.dead_tag = self.header.dead_tag.max(dead.tag);
        self.commit();
        self.header.dead_time = dead.time;
        self.commit();
        self.header.dead_tag = dead.tag;
    }

    /// The id that a new life of the channel with this hash must stay above.
    fn recall_dead(&self, hash: u64) -> MessageId {
        let floor = MessageId { time: self.header.dead_time, tag: self.header.dead_tag };
        let place = (hash % TOMBSTONES as u64) as usize;
        match self.header.tombstones.get(place) {
            Some(dead) if dead.used != 0 && dead.hash == hash => floor.max(dead.id()),
            _ => floor,
        }
    }

    /// Subscribers that wait for the channel's messages, at all live workers.
    pub(super) fn live_subscribers(&self, at: At) -> u64 {
        let live = |place| {
            let entry = self.entry(place);
            if self.is_live(entry) {
                u64::from(entry.subscribers())
            } else {
                0
            }
        };
        self.entry_places(at).map(live).sum()
    }

    /// Whether the worker that made an entry still has its slot.
    pub(super) fn is_live(&self, entry: SlotEntry) -> bool {
        entry.slot.is_some() && {
            let slot = self.get::<SlotHead>(entry.slot);
            slot.generation == entry.generation && slot.pid != 0
        }
    }

    /// All places for slot entries of a channel.
    pub(super) fn entry_places(&self, channel: At) -> impl Iterator<Item = EntryPlace> + use<> {
        let tail = self.get::<ChannelHead>(channel).tail;
        let mut more = Vec::new();
        let mut at = self.get::<ChannelTail>(tail).more;
        while at.is_some() && more.len() <= self.blocks.len() {
            more.push(at);
            at = self.get::<EntryBlock>(at).next;
        }
        (0..ENTRIES_INLINE).map(move |place| EntryPlace::Tail(tail, place)).chain(
            more.into_iter()
                .flat_map(|at| (0..ENTRIES_MORE).map(move |place| EntryPlace::More(at, place))),
        )
    }

    pub(super) fn entry(&self, place: EntryPlace) -> SlotEntry {
        let entry = match place {
            EntryPlace::Tail(at, place) => self.get::<ChannelTail>(at).entries.get(place),
            EntryPlace::More(at, place) => self.get::<EntryBlock>(at).entries.get(place),
        };
        entry.copied().unwrap_or_default()
    }

    fn entry_mut(&mut self, place: EntryPlace) -> Option<&mut SlotEntry> {
        match place {
            EntryPlace::Tail(at, place) => self.get_mut::<ChannelTail>(at).entries.get_mut(place),
            EntryPlace::More(at, place) => self.get_mut::<EntryBlock>(at).entries.get_mut(place),
        }
    }

    fn set_entry(&mut self, place: EntryPlace, entry: SlotEntry) {
        let former = self.entry(place);
        if (former.slot, former.generation) != (entry.slot, entry.generation) {
            // A count must never be seen as that of another worker.
            self.set_count(place, 0);
            self.commit();
            if let Some(old) = self.entry_mut(place) {
                *old = SlotEntry { count: 0, ..entry };
            }
            self.commit();
        }
        self.set_count(place, entry.count);
    }

    fn set_count(&mut self, place: EntryPlace, count: u32) {
        if let Some(entry) = self.entry_mut(place) {
            entry.count = count;
        }
    }

    pub(super) fn set_notified(&mut self, place: EntryPlace, notified: bool) {
        let count = self.entry(place).count;
        self.set_count(place, if notified { count | NOTIFIED } else { count & !NOTIFIED });
    }

    pub(super) fn set_busy(&mut self, place: EntryPlace, busy: bool) {
        let count = self.entry(place).count;
        self.set_count(place, if busy { count | BUSY } else { count & !BUSY });
    }

    fn entry_of(&self, channel: At, slot: SlotRef) -> Option<EntryPlace> {
        self.entry_places(channel).find(|place| {
            let entry = self.entry(*place);
            entry.slot == slot.at && entry.generation == slot.generation
        })
    }

    fn add_subscriber(&mut self, at: At, slot: SlotRef, now: Now) -> Result<(), PublishError> {
        if let Some(place) = self.entry_of(at, slot) {
            self.set_count(place, self.entry(place).count + 1);
            return Ok(());
        }
        let entry = SlotEntry { slot: slot.at, generation: slot.generation, count: 1 };
        let is_free = |zone: &Self, place: &EntryPlace| !zone.is_live(zone.entry(*place));
        if let Some(place) = self.entry_places(at).find(|place| is_free(self, place)) {
            self.set_entry(place, entry);
            return Ok(());
        }
        self.reserve(1, at, now)?;
        let block = self.allocate().ok_or(PublishError::NoSpace { needed: 0 })?;
        let tail = self.get::<ChannelHead>(at).tail;
        let mut more = EntryBlock { kind: kind::PART, ..EntryBlock::zeroed() };
        more.next = self.get::<ChannelTail>(tail).more;
        if let Some(first) = more.entries.first_mut() {
            *first = entry;
        }
        self.put(block, more);
        self.commit();
        self.get_mut::<ChannelTail>(tail).more = block;
        self.commit();
        Ok(())
    }

    /// Removes what dead workers have left in a channel.
    pub(super) fn drop_stale_entries(&mut self, channel: At) {
        for place in self.entry_places(channel) {
            let entry = self.entry(place);
            if entry.slot.is_some() && !self.is_live(entry) {
                self.set_entry(place, SlotEntry::default());
            }
        }
    }

    /// Whether another worker has been told of something in this channel and has not looked yet, or not for all.
    pub(super) fn is_awaited_elsewhere(&self, channel: At, slot: SlotRef) -> bool {
        self.entry_places(channel).any(|place| {
            let entry = self.entry(place);
            let awaits = entry.is_notified() || entry.is_busy();
            awaits && self.is_live(entry) && entry.slot != slot.at
        })
    }
}

/// A position between an id and those before it.
pub(super) fn just_before(id: MessageId) -> MessageId {
    match id.tag.checked_sub(1) {
        Some(tag) => MessageId { tag, ..id },
        None => MessageId { time: id.time.saturating_sub(1), tag: u32::MAX },
    }
}

/// The error for an id or content type that no record has room for.
pub(super) fn too_long(len: usize) -> PublishError {
    PublishError::TooLarge { needed: len as u64 }
}
