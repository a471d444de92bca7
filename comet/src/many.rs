//! Subscribers of several channels.
//!
//! Such a subscriber has a [`Stand`] in each of its channels. All subscribers of a worker who have the same channels form a
//! *bundle*, which the hub treats like a channel: they wait in one line, and those who stand at the same places, nearly
//! all, are served as one.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::rc::Rc;

use crate::message::{Life, ManyId, MessageId, Missed, Seen};
use crate::zone::{ChannelRef, Followed};

/// Channels that a subscription may have at most, as with Nchan.
pub const MAX_CHANNELS: usize = 255;

/// One of a bundle's channels.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Member {
    /// The channel.
    pub channel: ChannelRef,
    /// What its subscribers call it.
    pub name: Rc<[u8]>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", String::from_utf8_lossy(&self.name), { self.channel.life })
    }
}

/// Whether a subscriber's channel is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Here,
    /// It was deleted: what is published under its name from now on is another's.
    Gone,
    /// That was noted, and the subscriber is counted there no more.
    Left,
}

/// How far a subscriber has come in one of its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stand {
    /// The sequence number of the last message that it has seen.
    pub seq: u64,
    /// That message's id, or another one between it and the next.
    pub id: MessageId,
    /// Under which reign it came (`push_subscriber_concurrency last`).
    pub reign: u32,
    /// It may have missed more than the sequence numbers say.
    pub is_vague: bool,
    /// Whether the channel is still there.
    pub presence: Presence,
}

impl Stand {
    /// Whether the subscriber is counted in the channel no more.
    pub fn has_left(&self) -> bool {
        self.presence == Presence::Left
    }
}

/// How far a subscriber has come in all of its channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing(pub Box<[Stand]>);

impl Standing {
    /// The standing of a subscriber that has just come, which is told now of all that it has missed.
    pub fn told(places: &[Followed]) -> (Self, Missed) {
        let stand = |place: &Followed| Stand {
            seq: place.cursor.seq,
            id: place.id,
            reign: place.reign,
            is_vague: false,
            presence: Presence::Here,
        };
        let missed = places.iter().fold(Missed::default(), |sum, place| sum.and(place.missed));
        (Standing(places.iter().map(stand).collect()), missed)
    }

    /// The standing of a subscriber that has just come, which will be told with messages.
    pub fn new(places: &[Followed]) -> Self {
        let stand = |place: &Followed| Stand {
            seq: place.cursor.seq.saturating_sub(place.missed.count),
            id: place.came_with,
            reign: place.reign,
            is_vague: place.missed.at_least,
            presence: Presence::Here,
        };
        Standing(places.iter().map(stand).collect())
    }

    /// After a message of the channel at place `from`.
    pub fn after(&self, from: usize, seq: u64, id: MessageId) -> Self {
        let mut stands = self.0.clone();
        if let Some(stand) = stands.get_mut(from) {
            *stand = Stand { seq, id, is_vague: false, ..*stand };
        }
        Standing(stands)
    }

    /// The channel at place `from` was deleted.
    pub fn gone(&self, from: usize) -> Self {
        self.with_presence(from, Presence::Gone)
    }

    /// Without the channel at place `from`.
    pub fn without(&self, from: usize) -> Self {
        self.with_presence(from, Presence::Left)
    }

    fn with_presence(&self, from: usize, presence: Presence) -> Self {
        let mut stands = self.0.clone();
        if let Some(stand) = stands.get_mut(from) {
            stand.presence = presence;
        }
        Standing(stands)
    }

    /// Notes that more may have been missed than it says.
    pub fn blur(&mut self) {
        self.0.iter_mut().for_each(|stand| stand.is_vague = true);
    }

    /// Whether no channel is left.
    pub fn is_over(&self) -> bool {
        self.0.iter().all(Stand::has_left)
    }

    /// The cursor of a subscriber that has got no message yet.
    pub fn place(&self) -> ManyId {
        // The second is that of the channels that are there: one that is gone has its own in its tag.
        let id = |stand: &Stand| match stand.presence {
            Presence::Here => stand.id,
            Presence::Gone | Presence::Left => MessageId { time: 0, tag: 0 },
        };
        let mut place = place(self.0.iter().map(id));
        for (tag, stand) in place.tags.iter_mut().zip(&self.0) {
            if stand.presence != Presence::Here {
                *tag = Seen::Lost(stand.id);
            }
        }
        place
    }

    /// The cursor after the last message, which came from the channel at place `from`.
    pub fn id(&self, from: usize) -> ManyId {
        let time = self.0.get(from).map_or(0, |stand| stand.id.time);
        let tag = |stand: &Stand| match stand.id.time.cmp(&time) {
            _ if stand.presence != Presence::Here => Seen::Lost(stand.id),
            Ordering::Less => Seen::Before,
            Ordering::Equal => Seen::UpTo(stand.id.tag),
            // It is known that nothing of this second is to come.
            Ordering::Greater => Seen::UpTo(u32::MAX),
        };
        ManyId { time, tags: self.0.iter().map(tag).collect(), from }
    }
}

/// The cursor of a subscriber that has seen each of its channels up to such an id, and has got all that there was: what is
/// published next, in whichever of them, is of the newest second or of a later one. Of one channel it is that id.
pub fn place(ids: impl IntoIterator<Item = MessageId>) -> ManyId {
    let ids: Vec<_> = ids.into_iter().collect();
    let newest = ids.iter().enumerate().max_by_key(|(_, id)| **id);
    let (from, time) = newest.map_or((0, 0), |(from, id)| (from, id.time));
    let tag = |id: &MessageId| if id.time == time { Seen::UpTo(id.tag) } else { Seen::Before };
    ManyId { time, tags: ids.iter().map(tag).collect(), from }
}

/// The bundles of a worker.
#[derive(Debug, Default)]
pub struct Bundles {
    /// By their channels.
    known: HashMap<Rc<[Member]>, Life>,
    members: HashMap<Life, Rc<[Member]>>,
    /// Which bundles a channel is in.
    of_channel: HashMap<Life, BTreeSet<Life>>,
    made: u64,
}

/// Bundles' lives are above all that the zone gives.
const FIRST: u64 = 1 << 63;

impl Bundles {
    /// The bundle of these channels, under which its subscribers wait.
    pub fn enter(&mut self, members: &Rc<[Member]>) -> ChannelRef {
        if let Some(life) = self.known.get(members) {
            return ChannelRef::outside(*life);
        }
        let life = Life(FIRST | self.made);
        self.made += 1;
        self.known.insert(Rc::clone(members), life);
        self.members.insert(life, Rc::clone(members));
        for member in members.iter() {
            self.of_channel.entry(member.channel.life).or_default().insert(life);
        }
        ChannelRef::outside(life)
    }

    /// Forgets a bundle that nobody waits in any more; does nothing for a channel.
    pub fn forget(&mut self, life: Life) {
        let Some(members) = self.members.remove(&life) else { return };
        self.known.remove(&members);
        for member in members.iter() {
            let channel = member.channel.life;
            let Some(bundles) = self.of_channel.get_mut(&channel) else { continue };
            bundles.remove(&life);
            if bundles.is_empty() {
                self.of_channel.remove(&channel);
            }
        }
    }

    /// The channels of a bundle; nothing for a channel.
    pub fn members(&self, life: Life) -> Option<&Rc<[Member]>> {
        // Nearly all lines are of channels, which this spares the search.
        (life.0 >= FIRST).then(|| self.members.get(&life)).flatten()
    }

    /// The bundles that a channel is in, oldest first.
    pub fn of_channel(&self, life: Life) -> impl Iterator<Item = Life> + '_ {
        self.of_channel.get(&life).into_iter().flatten().copied()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Gives back memory that was needed when there were more.
    pub fn shrink(&mut self) {
        self.known.shrink_to_fit();
        self.members.shrink_to_fit();
        self.of_channel.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn members(lives: &[u64]) -> Rc<[Member]> {
        let member = |life: &u64| Member {
            channel: ChannelRef::for_test(*life),
            name: life.to_string().into_bytes().into(),
        };
        lives.iter().map(member).collect()
    }

    fn stand(time: u64, tag: u32) -> Stand {
        Stand {
            seq: 7,
            id: MessageId { time, tag },
            reign: 0,
            is_vague: false,
            presence: Presence::Here,
        }
    }

    fn of(bundles: &Bundles, channel: u64) -> Vec<Life> {
        bundles.of_channel(Life(channel)).collect()
    }

    #[test]
    fn who_has_the_same_channels_is_in_the_same_bundle() {
        let mut bundles = Bundles::default();
        let first = bundles.enter(&members(&[1, 2]));
        assert_eq!(bundles.enter(&members(&[1, 2])), first);
        let second = bundles.enter(&members(&[2, 1]));
        assert_ne!(first, second);
        assert_eq!(of(&bundles, 1), [first.life, second.life]);
        assert_eq!(bundles.members(first.life).map(|all| all.len()), Some(2));
        assert_eq!(bundles.members(Life(1)), None);
    }

    #[test]
    fn a_bundle_that_is_forgotten_leaves_nothing_and_its_number_is_not_given_again() {
        let mut bundles = Bundles::default();
        let first = bundles.enter(&members(&[1, 2]));
        let second = bundles.enter(&members(&[2, 3]));
        bundles.forget(first.life);
        assert_eq!(of(&bundles, 1), []);
        assert_eq!(of(&bundles, 2), [second.life]);
        bundles.forget(first.life);
        bundles.forget(second.life);
        bundles.forget(Life(3));
        assert!(bundles.is_empty() && bundles.of_channel.is_empty() && bundles.known.is_empty());
        assert_ne!(bundles.enter(&members(&[1, 2])), first);
    }

    #[test]
    fn an_id_has_the_positions_of_its_second() {
        let standing = Standing([stand(100, 3), stand(99, 8), stand(100, 0)].into());
        assert_eq!(standing.id(0).to_string(), "100:[3],-,0");
        let standing = standing.after(1, 9, MessageId { time: 101, tag: 5 });
        assert_eq!(standing.id(1).to_string(), "101:-,[5],-");
        assert_eq!(standing.id(0).to_string(), "100:[3],4294967295,0");
        assert_eq!(standing.0[1].seq, 9);
    }

    #[test]
    fn a_place_is_in_the_newest_second() {
        let standing = Standing([stand(99, 8), stand(100, 3), stand(100, 0)].into());
        assert_eq!(standing.place().to_string(), "100:-,[3],0");
        assert_eq!(place([MessageId { time: 100, tag: 3 }]).to_string(), "100:3");
    }

    #[test]
    fn a_standing_is_over_when_all_channels_have_been_left() {
        let standing = Standing([stand(100, 3), stand(99, 8)].into());
        let standing = standing.without(1);
        assert!(!standing.is_over());
        assert!(standing.without(0).is_over());
    }
}
