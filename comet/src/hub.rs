//! One worker's waiting subscribers, by channel, in the order in which they came.
//!
//! The hub knows who waits, not what for: the log knows that. A hint from the zone ("this channel moved") becomes a *job*:
//! everybody who waited on the channel when the hint came is looked at once, in slices, so that the event loop gets its
//! turn between them (invariant I8). Whoever goes away meanwhile takes itself off the list.
//!
//! A subscriber that stays (a stream) notes what it has got ([`Hub::advance`]). If that was not all, or if it could take
//! nothing when the others got theirs, it is looked at alone ([`Hub::fell_behind`]). Whoever of a slice was not removed is
//! put behind all others in one move ([`Hub::pass`]): with a hundred thousand streams on a channel, each touch counts.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use slab::Slab;

use crate::many::{Bundles, Member};
use crate::message::{Cursor, Life};
use crate::zone::ChannelRef;

/// A subscriber that waits. `T` is its connection, as the edge knows it.
#[derive(Clone, Copy, Debug)]
pub struct Waiter<T> {
    /// The channel.
    pub channel: ChannelRef,
    /// The sequence number of the last message that it has seen.
    pub seq: u64,
    /// When it got that message, or came, in milliseconds.
    pub since: u64,
    /// Under which reign it came (`push_subscriber_concurrency last`).
    pub reign: u32,
    /// When something is to be done about it although there is no message, in milliseconds; `u64::MAX` for never.
    pub deadline: u64,
    /// Its connection.
    pub connection: T,
}

impl<T> Waiter<T> {
    /// What it has seen.
    pub fn cursor(&self) -> Cursor {
        Cursor { life: self.channel.life, seq: self.seq }
    }
}

/// Names a waiting subscriber until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u32);

impl Key {
    /// No subscriber.
    pub const NONE: Key = Key(u32::MAX);

    fn place(self) -> usize {
        self.0 as usize
    }
}

/// The waiting subscribers of a worker.
#[derive(Debug)]
pub struct Hub<T> {
    places: Slab<Place<T>>,
    /// Of channels and of bundles.
    channels: HashMap<Life, Line, BuildHasherDefault<LifeHasher>>,
    bundles: Bundles,
    owed: Owed,
    jobs: VecDeque<Job>,
    deadlines: BTreeSet<(u64, Key)>,
    /// Places given so far: tells who came before a hint and who after.
    tickets: u64,
}

#[derive(Debug)]
struct Place<T> {
    waiter: Waiter<T>,
    ticket: u64,
    next: Key,
    prev: Key,
    /// There is a job for it alone.
    behind: bool,
}

/// Spreads lives, which the zone numbers: clients have no say in them, so that no secret key is needed.
#[derive(Debug, Default)]
struct LifeHasher(u64);

impl Hasher for LifeHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    /// Fibonacci hashing: the table looks at the highest and the lowest bits.
    fn write_u64(&mut self, number: u64) {
        let product = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}

/// The subscribers of one channel, oldest first.
#[derive(Debug)]
struct Line {
    channel: ChannelRef,
    first: Key,
    last: Key,
    len: u32,
    /// Those of them that have a job of their own.
    behind: u32,
    /// There is a job for all with tickets up to this one.
    due: Option<u64>,
}

/// What bundles have still to be looked at for, so that nobody has to ask all bundles of a channel, or all jobs.
#[derive(Debug, Default)]
struct Owed {
    /// By bundle: which of its channels have moved.
    moved: HashMap<Life, Vec<Life>>,
    /// By channel: bundles that have still to be looked at because it has moved, and their subscribers that are behind.
    counts: HashMap<Life, usize>,
}

impl Owed {
    fn add(&mut self, channel: Life) {
        *self.counts.entry(channel).or_default() += 1;
    }

    fn take(&mut self, channel: Life) {
        if let Entry::Occupied(mut count) = self.counts.entry(channel) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// A bundle is to be looked at because of one of its channels.
    fn moved(&mut self, bundle: Life, channel: Life) {
        let moved = self.moved.entry(bundle).or_default();
        if !moved.contains(&channel) {
            moved.push(channel);
            self.add(channel);
        }
    }

    /// A bundle has been looked at.
    fn settle(&mut self, bundle: Life) {
        for channel in self.moved.remove(&bundle).into_iter().flatten() {
            self.take(channel);
        }
    }

    fn is_owed(&self, channel: Life) -> bool {
        self.counts.contains_key(&channel)
    }
}

/// Something to be looked at.
#[derive(Debug)]
enum Job {
    /// A line, as far as it is due.
    All(Life),
    /// On behalf of one subscriber, if it is still there and behind.
    One(Key),
}

/// Some subscribers of one channel, to be served together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The channel.
    pub channel: ChannelRef,
    /// The subscribers, oldest first.
    pub keys: Vec<Key>,
}

impl<T> Default for Hub<T> {
    fn default() -> Self {
        Hub {
            places: Slab::new(),
            channels: HashMap::default(),
            bundles: Bundles::default(),
            owed: Owed::default(),
            jobs: VecDeque::new(),
            deadlines: BTreeSet::new(),
            tickets: 0,
        }
    }
}

impl<T> Hub<T> {
    /// Adds a subscriber.
    pub fn add(&mut self, waiter: Waiter<T>) -> Key {
        let (channel, deadline) = (waiter.channel, waiter.deadline);
        let place = Place { waiter, ticket: 0, next: Key::NONE, prev: Key::NONE, behind: false };
        let key = Key(self.places.insert(place) as u32);
        self.append(key, channel);
        if deadline != u64::MAX {
            self.deadlines.insert((deadline, key));
        }
        key
    }

    /// Adds a subscriber of several channels: whatever its channel was, it waits in their bundle.
    pub fn add_to_bundle(&mut self, members: &Rc<[Member]>, waiter: Waiter<T>) -> Key {
        let channel = self.bundles.enter(members);
        self.add(Waiter { channel, ..waiter })
    }

    /// The channels of a bundle, and nothing for a channel.
    pub fn members(&self, channel: ChannelRef) -> Option<&Rc<[Member]>> {
        self.bundles.members(channel.life)
    }

    /// A subscriber that waits.
    pub fn get(&self, key: Key) -> Option<&Waiter<T>> {
        self.places.get(key.place()).map(|place| &place.waiter)
    }

    /// A subscriber's connection.
    pub fn connection_mut(&mut self, key: Key) -> Option<&mut T> {
        self.places.get_mut(key.place()).map(|place| &mut place.waiter.connection)
    }

    /// Takes a subscriber off.
    pub fn remove(&mut self, key: Key) -> Option<Waiter<T>> {
        if !self.places.contains(key.place()) {
            return None;
        }
        self.caught_up(key);
        self.unlink(key);
        let place = self.places.remove(key.place());
        if place.waiter.deadline != u64::MAX {
            self.deadlines.remove(&(place.waiter.deadline, key));
        }
        Some(place.waiter)
    }

    /// Has a subscriber wait for something else, under the same key. With `members` it waits in their bundle, whatever its
    /// channel was.
    pub fn change(&mut self, key: Key, members: Option<&Rc<[Member]>>, waiter: Waiter<T>) {
        if !self.places.contains(key.place()) {
            return;
        }
        self.caught_up(key);
        self.unlink(key);
        self.set_deadline(key, waiter.deadline);
        let channel = members.map_or(waiter.channel, |members| self.bundles.enter(members));
        if let Some(place) = self.places.get_mut(key.place()) {
            place.waiter = Waiter { channel, ..waiter };
        }
        self.append(key, channel);
    }

    /// Notes what a subscriber that stays has got.
    pub fn advance(&mut self, key: Key, seq: u64, now: u64) {
        if let Some(place) = self.places.get_mut(key.place()) {
            place.waiter.seq = seq;
            place.waiter.since = now;
        }
    }

    /// Puts those of a slice that are still there behind all others: they have been looked at, and the job goes on.
    pub fn pass(&mut self, slice: &Slice) {
        self.put_behind_others(slice);
        self.settle(slice.channel.life);
    }

    fn put_behind_others(&mut self, slice: &Slice) {
        let Hub { places, channels, tickets, .. } = self;
        let life = slice.channel.life;
        let Some(line) = channels.get_mut(&life) else { return };
        let mut run = None;
        for key in &slice.keys {
            let Some(place) = places.get_mut(key.place()) else { continue };
            let (first, _) = *run.get_or_insert((*key, *key));
            if first != line.first {
                // One that fell behind: it stays where it is.
                return;
            }
            *tickets += 1;
            place.ticket = *tickets;
            run = Some((first, *key));
        }
        // Those in between are linked already, for a slice is the beginning of its line.
        let Some((first, last)) = run.filter(|(_, last)| *last != line.last) else { return };
        let end = std::mem::replace(&mut line.last, last);
        let Some(place) = places.get_mut(last.place()) else { return };
        line.first = std::mem::replace(&mut place.next, Key::NONE);
        if let Some(place) = places.get_mut(line.first.place()) {
            place.prev = Key::NONE;
        }
        if let Some(place) = places.get_mut(end.place()) {
            place.next = first;
        }
        if let Some(place) = places.get_mut(first.place()) {
            place.prev = end;
        }
    }

    /// Notes that a subscriber is to be looked at alone: there is more for it, or it can take messages again.
    pub fn fell_behind(&mut self, key: Key) {
        let Some(place) = self.places.get_mut(key.place()).filter(|place| !place.behind) else {
            return;
        };
        place.behind = true;
        self.jobs.push_back(Job::One(key));
        let life = place.waiter.channel.life;
        match self.bundles.members(life) {
            Some(members) => members.iter().for_each(|member| self.owed.add(member.channel.life)),
            None => {
                if let Some(line) = self.channels.get_mut(&life) {
                    line.behind += 1;
                }
            }
        }
    }

    /// Takes back that a subscriber is to be looked at alone; tells whether it was.
    fn caught_up(&mut self, key: Key) -> bool {
        let Some(place) = self.places.get_mut(key.place()).filter(|place| place.behind) else {
            return false;
        };
        place.behind = false;
        let life = place.waiter.channel.life;
        match self.bundles.members(life) {
            Some(members) => members.iter().for_each(|member| self.owed.take(member.channel.life)),
            None => {
                if let Some(line) = self.channels.get_mut(&life) {
                    line.behind -= 1;
                }
            }
        }
        true
    }

    /// Notes that a bundle has been looked at, if all of it has.
    fn settle(&mut self, life: Life) {
        if !self.owed.moved.is_empty() && !self.is_line_due(life) {
            self.owed.settle(life);
        }
    }

    /// Changes when something is to be done about a subscriber.
    pub fn set_deadline(&mut self, key: Key, deadline: u64) {
        let Some(place) = self.places.get_mut(key.place()) else { return };
        let old = std::mem::replace(&mut place.waiter.deadline, deadline);
        if old != u64::MAX {
            self.deadlines.remove(&(old, key));
        }
        if deadline != u64::MAX {
            self.deadlines.insert((deadline, key));
        }
    }

    /// Notes a hint: all who wait on this channel now are to be looked at.
    pub fn moved(&mut self, life: Life) {
        self.line_moved(life);
        if !self.bundles.is_empty() {
            let bundles: Vec<_> = self.bundles.of_channel(life).collect();
            for bundle in bundles {
                self.line_moved(bundle);
                self.owed.moved(bundle, life);
            }
        }
    }

    fn line_moved(&mut self, life: Life) {
        let Some(line) = self.channels.get_mut(&life) else { return };
        if line.due.replace(self.tickets).is_none() {
            self.jobs.push_back(Job::All(life));
        }
    }

    /// Notes that hints were lost: everything is to be looked at. Lines that had a job keep it in its place: a round that began
    /// anew each time would never come to its end.
    pub fn moved_all(&mut self) {
        for (life, line) in &mut self.channels {
            if line.due.replace(self.tickets).is_none() {
                self.jobs.push_back(Job::All(*life));
            }
            for member in self.bundles.members(*life).into_iter().flat_map(|all| all.iter()) {
                self.owed.moved(*life, member.channel.life);
            }
        }
    }

    /// The next subscribers to be looked at, `max` at most, all of one channel. Each of them must be removed before the next
    /// call, or all others passed ([`Hub::pass`]).
    pub fn next_slice(&mut self, max: usize) -> Option<Slice> {
        loop {
            match *self.jobs.front()? {
                Job::All(life) => {
                    let keys = self.due_of(life, max);
                    // A line that has ended since, and its next life, have no job.
                    let Some(line) = self.channels.get_mut(&life) else {
                        self.jobs.pop_front();
                        continue;
                    };
                    if keys.is_empty() {
                        line.due = None;
                        self.jobs.pop_front();
                        self.settle(life);
                        continue;
                    }
                    let channel = line.channel;
                    // Channels take turns, so that a small one does not wait behind a large one.
                    self.jobs.rotate_left(1);
                    return Some(Slice { channel, keys });
                }
                Job::One(key) => {
                    self.jobs.pop_front();
                    let was_behind = self.caught_up(key);
                    if let Some(waiter) = self.get(key).filter(|_| was_behind) {
                        return Some(Slice { channel: waiter.channel, keys: vec![key] });
                    }
                }
            }
        }
    }

    /// Whether there is somebody to be looked at.
    pub fn has_work(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Whether somebody on this channel is to be looked at: because it has moved, or alone. Asked for each slice.
    pub fn is_due(&self, life: Life) -> bool {
        self.is_line_due(life)
            || self.channels.get(&life).is_some_and(|line| line.behind > 0)
            || self.owed.is_owed(life)
    }

    fn is_line_due(&self, life: Life) -> bool {
        self.channels.get(&life).is_some_and(|line| {
            let first = self.places.get(line.first.place());
            line.due.zip(first).is_some_and(|(upto, first)| first.ticket <= upto)
        })
    }

    fn due_of(&self, life: Life, max: usize) -> Vec<Key> {
        let mut keys = Vec::new();
        let line = self.channels.get(&life);
        let Some((upto, mut key)) = line.and_then(|line| Some((line.due?, line.first))) else {
            return keys;
        };
        while let Some(place) = self.places.get(key.place()) {
            if place.ticket > upto || keys.len() == max {
                break;
            }
            keys.push(key);
            key = place.next;
        }
        keys
    }

    /// When the next subscriber's time is over, in milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Subscribers whose time is over, `max` at most.
    pub fn overdue(&self, mono: u64, max: usize) -> Vec<Key> {
        let over = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= mono);
        over.take(max).map(|(_, key)| *key).collect()
    }

    /// Gives back memory that was needed when more waited. Keys stay as they are.
    pub fn shrink(&mut self) {
        self.places.shrink_to_fit();
        self.channels.shrink_to_fit();
        self.bundles.shrink();
        self.owed.moved.shrink_to_fit();
        self.owed.counts.shrink_to_fit();
        self.jobs.shrink_to_fit();
    }

    /// Everybody, for a shutdown.
    pub fn keys(&self) -> Vec<Key> {
        self.places.iter().map(|(key, _)| Key(key as u32)).collect()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn append(&mut self, key: Key, channel: ChannelRef) {
        let empty = Line { channel, first: key, last: Key::NONE, len: 0, behind: 0, due: None };
        let line = self.channels.entry(channel.life).or_insert(empty);
        let last = std::mem::replace(&mut line.last, key);
        line.len += 1;
        if let Some(place) = self.places.get_mut(last.place()) {
            place.next = key;
        }
        self.tickets += 1;
        if let Some(place) = self.places.get_mut(key.place()) {
            place.ticket = self.tickets;
            place.prev = last;
            place.next = Key::NONE;
        }
    }

    fn unlink(&mut self, key: Key) {
        let Some(place) = self.places.get(key.place()) else { return };
        let (next, prev, life) = (place.next, place.prev, place.waiter.channel.life);
        if let Some(place) = self.places.get_mut(next.place()) {
            place.prev = prev;
        }
        if let Some(place) = self.places.get_mut(prev.place()) {
            place.next = next;
        }
        let Some(line) = self.channels.get_mut(&life) else { return };
        if prev == Key::NONE {
            line.first = next;
        }
        if next == Key::NONE {
            line.last = prev;
        }
        line.len -= 1;
        if line.len == 0 {
            self.channels.remove(&life);
            self.bundles.forget(life);
        }
        self.settle(life);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn waiter(life: u64, name: u32) -> Waiter<u32> {
        Waiter {
            channel: ChannelRef::for_test(life),
            seq: 0,
            since: 0,
            reign: 0,
            deadline: u64::MAX,
            connection: name,
        }
    }

    fn add(hub: &mut Hub<u32>, life: u64, names: std::ops::Range<u32>) {
        for name in names {
            hub.add(waiter(life, name));
        }
    }

    fn remove(hub: &mut Hub<u32>, slice: &Slice) {
        for key in &slice.keys {
            hub.remove(*key);
        }
    }

    fn names(hub: &Hub<u32>, slice: &Slice) -> Vec<u32> {
        slice.keys.iter().filter_map(|key| hub.get(*key)).map(|w| w.connection).collect()
    }

    #[test]
    fn a_hint_serves_those_who_waited_in_their_order_and_in_slices() {
        let mut hub = Hub::default();
        add(&mut hub, 1, 0..5);
        hub.moved(Life(1));
        hub.add(waiter(1, 99));
        let mut seen = Vec::new();
        while let Some(slice) = hub.next_slice(2) {
            seen.push(names(&hub, &slice));
            remove(&mut hub, &slice);
        }
        assert_eq!(seen, [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(hub.len(), 1);
        assert!(!hub.has_work());
    }

    #[test]
    fn those_who_get_nothing_are_looked_at_once() {
        let mut hub = Hub::default();
        add(&mut hub, 1, 0..3);
        hub.moved(Life(1));
        let mut looked_at = 0;
        while let Some(slice) = hub.next_slice(2) {
            looked_at += slice.keys.len();
            hub.pass(&slice);
        }
        assert_eq!((looked_at, hub.len()), (3, 3));
    }

    #[test]
    fn who_leaves_between_slices_is_not_served() {
        let mut hub = Hub::default();
        let keys: Vec<Key> = (0..4).map(|name| hub.add(waiter(1, name))).collect();
        hub.moved(Life(1));
        let slice = hub.next_slice(1).unwrap();
        remove(&mut hub, &slice);
        hub.remove(keys[1]);
        hub.remove(keys[3]);
        let slice = hub.next_slice(10).unwrap();
        assert_eq!(names(&hub, &slice), [2]);
    }

    #[test]
    fn channels_take_turns() {
        let mut hub = Hub::default();
        add(&mut hub, 1, 0..4);
        hub.add(waiter(2, 20));
        hub.moved(Life(1));
        hub.moved(Life(2));
        let mut order = Vec::new();
        while let Some(slice) = hub.next_slice(2) {
            order.push(slice.channel.life.0);
            remove(&mut hub, &slice);
        }
        assert_eq!(order, [1, 2, 1]);
    }

    #[test]
    fn a_hint_for_an_unknown_channel_does_nothing_and_one_for_all_looks_at_all() {
        let mut hub = Hub::default();
        hub.moved(Life(7));
        assert!(!hub.has_work());
        hub.add(waiter(1, 0));
        hub.add(waiter(2, 1));
        hub.moved_all();
        let mut served = 0;
        while let Some(slice) = hub.next_slice(9) {
            served += slice.keys.len();
            remove(&mut hub, &slice);
        }
        assert_eq!(served, 2);
        assert!(hub.is_empty());
    }

    fn bundle(hub: &mut Hub<u32>, lives: &[u64], name: u32) -> Key {
        let member = |life: &u64| Member { channel: ChannelRef::for_test(*life), name: [].into() };
        hub.add_to_bundle(&lives.iter().map(member).collect(), waiter(0, name))
    }

    #[test]
    fn a_hint_reaches_all_bundles_that_the_channel_is_in() {
        let mut hub = Hub::default();
        hub.add(waiter(1, 0));
        for name in 1..100 {
            bundle(&mut hub, &[1, u64::from(name) + 10], name);
        }
        let alone = bundle(&mut hub, &[5, 6], 100);
        hub.moved(Life(1));
        hub.moved(Life(1));
        assert!(hub.is_due(Life(1)) && !hub.is_due(Life(5)));
        let mut seen = Vec::new();
        while let Some(slice) = hub.next_slice(9) {
            seen.extend(names(&hub, &slice));
            hub.pass(&slice);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        assert!(!hub.is_due(Life(1)));
        hub.moved(Life(50));
        let slice = hub.next_slice(9).unwrap();
        assert_eq!(names(&hub, &slice), [40]);
        assert_eq!(hub.members(slice.channel).map(|members| members.len()), Some(2));
        hub.fell_behind(alone);
        assert!(hub.is_due(Life(6)));
    }

    #[test]
    fn a_round_that_is_asked_for_again_and_again_comes_to_its_end() {
        let mut hub = Hub::default();
        for life in 1..=1000 {
            hub.add(waiter(life, life as u32));
        }
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10 {
            hub.moved_all();
            for _ in 0..100 {
                let slice = hub.next_slice(1).unwrap();
                seen.extend(names(&hub, &slice));
                hub.pass(&slice);
            }
        }
        assert_eq!(seen.len(), 1000);
    }

    #[test]
    fn a_bundle_is_due_for_the_channels_that_moved() {
        let mut hub = Hub::default();
        let keys: Vec<_> = (0..3).map(|name| bundle(&mut hub, &[1, 2], name)).collect();
        hub.moved(Life(2));
        assert!(!hub.is_due(Life(1)) && hub.is_due(Life(2)));
        let slice = hub.next_slice(2).unwrap();
        hub.pass(&slice);
        assert!(hub.is_due(Life(2)));
        // Whoever was left to be looked at goes.
        hub.remove(keys[2]);
        assert!(!hub.is_due(Life(2)));
        hub.fell_behind(keys[0]);
        hub.moved_all();
        assert!(hub.is_due(Life(1)) && hub.is_due(Life(2)));
        for key in keys {
            hub.remove(key);
        }
        assert!(!hub.is_due(Life(1)) && !hub.is_due(Life(2)));
        assert!(hub.owed.counts.is_empty() && hub.owed.moved.is_empty());
    }

    #[test]
    fn who_waits_for_something_else_keeps_its_key() {
        let mut hub = Hub::default();
        let other = hub.add(waiter(1, 0));
        let key = hub.add(Waiter { deadline: 5_000, ..waiter(1, 1) });
        let members: Rc<[Member]> = [1, 2]
            .map(|life| Member { channel: ChannelRef::for_test(life), name: [].into() })
            .into();
        hub.fell_behind(key);
        hub.change(key, Some(&members), Waiter { deadline: 3_000, ..waiter(0, 1) });
        assert!(!hub.is_due(Life(1)));
        assert_eq!((hub.len(), hub.next_deadline()), (2, Some(3_000)));
        hub.moved(Life(2));
        let slice = hub.next_slice(9).unwrap();
        assert_eq!(slice.keys, [key]);
        hub.pass(&slice);
        hub.change(key, None, waiter(3, 1));
        assert_eq!((hub.next_deadline(), hub.bundles.is_empty()), (None, true));
        hub.moved(Life(1));
        hub.moved(Life(3));
        let keys: Vec<_> = std::iter::from_fn(|| {
            let slice = hub.next_slice(9)?;
            hub.pass(&slice);
            Some(slice.keys)
        })
        .collect();
        assert_eq!(keys, [[other], [key]]);
    }

    /// What may happen to a hub of three channels and their bundles.
    #[derive(Clone, Debug)]
    enum Step {
        Add(Vec<u64>),
        Change(usize, Vec<u64>),
        Remove(usize),
        Moved(u64),
        MovedAll,
        Behind(usize),
        /// Serves a slice of so many; the bits say who leaves.
        Serve(usize, u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let lives = || proptest::sample::subsequence(vec![1, 2, 3], 1..=3);
        let step = prop_oneof![
            4 => lives().prop_map(Step::Add),
            1 => (any::<usize>(), lives()).prop_map(|(place, lives)| Step::Change(place, lives)),
            2 => any::<usize>().prop_map(Step::Remove),
            3 => (1..=3_u64).prop_map(Step::Moved),
            1 => Just(Step::MovedAll),
            2 => any::<usize>().prop_map(Step::Behind),
            6 => (1..4_usize, any::<u8>()).prop_map(|(max, leave)| Step::Serve(max, leave)),
        ];
        proptest::collection::vec(step, 0..80)
    }

    /// A subscriber of the model: its channels, and those of them for which it is to be looked at.
    type Known = (Vec<u64>, BTreeSet<u64>);

    proptest! {
        /// Who is to be looked at is due, and a channel is due only while somebody of it is to be looked at.
        #[test]
        fn a_channel_is_due_as_long_as_somebody_of_it_is(steps in steps()) {
            let mut hub: Hub<u32> = Hub::default();
            let mut known: BTreeMap<Key, Known> = BTreeMap::new();
            let members = |lives: &[u64]| -> Option<Rc<[Member]>> {
                let member = |life: &u64| Member { channel: ChannelRef::for_test(*life), name: [].into() };
                (lives.len() > 1).then(|| lives.iter().map(member).collect())
            };
            let at = |known: &BTreeMap<Key, Known>, place: usize| {
                known.keys().nth(place % known.len().max(1)).copied()
            };
            for step in steps.into_iter().chain((0..200).map(|_| Step::Serve(9, 0))) {
                match step {
                    Step::Add(lives) => {
                        let key = match members(&lives) {
                            Some(members) => hub.add_to_bundle(&members, waiter(0, 0)),
                            None => hub.add(waiter(lives[0], 0)),
                        };
                        known.insert(key, (lives, BTreeSet::new()));
                    }
                    Step::Change(place, lives) => {
                        let Some(key) = at(&known, place) else { continue };
                        hub.change(key, members(&lives).as_ref(), waiter(lives[0], 0));
                        known.insert(key, (lives, BTreeSet::new()));
                    }
                    Step::Remove(place) => {
                        let Some(key) = at(&known, place) else { continue };
                        hub.remove(key);
                        known.remove(&key);
                    }
                    Step::Moved(life) => {
                        hub.moved(Life(life));
                        let of_it = known.values_mut().filter(|(lives, _)| lives.contains(&life));
                        of_it.for_each(|(_, due)| due.extend([life]));
                    }
                    Step::MovedAll => {
                        hub.moved_all();
                        known.values_mut().for_each(|(lives, due)| due.extend(lives.iter()));
                    }
                    Step::Behind(place) => {
                        let Some(key) = at(&known, place) else { continue };
                        hub.fell_behind(key);
                        if let Some((lives, due)) = known.get_mut(&key) {
                            due.extend(lives.iter());
                        }
                    }
                    Step::Serve(max, leave) => {
                        let Some(slice) = hub.next_slice(max) else {
                            prop_assert!(!hub.has_work() && known.values().all(|(_, due)| due.is_empty()));
                            continue;
                        };
                        for (place, key) in slice.keys.iter().enumerate() {
                            if leave & (1 << place) != 0 {
                                hub.remove(*key);
                                known.remove(key);
                            } else if let Some((_, due)) = known.get_mut(key) {
                                due.clear();
                            }
                        }
                        hub.pass(&slice);
                    }
                }
                for life in 1..=3 {
                    let is_due = known.values().any(|(_, due)| due.contains(&life));
                    prop_assert!(hub.is_due(Life(life)) || !is_due, "{life}");
                }
                let counted: usize = hub.owed.counts.values().sum();
                let moved: usize = hub.owed.moved.values().map(Vec::len).sum();
                let behind: usize = hub.places.iter().filter(|(_, place)| place.behind)
                    .filter_map(|(_, place)| hub.bundles.members(place.waiter.channel.life))
                    .map(|members| members.len()).sum();
                prop_assert_eq!(counted, moved + behind);
                prop_assert!(hub.owed.moved.keys().all(|bundle| hub.is_line_due(*bundle)));
            }
            prop_assert!(!hub.has_work());
            prop_assert!((1..=3).all(|life| !hub.is_due(Life(life))));
        }
    }

    #[test]
    fn a_line_that_ends_takes_its_job_along() {
        let mut hub = Hub::default();
        let key = hub.add(waiter(1, 0));
        hub.moved(Life(1));
        hub.remove(key);
        hub.add(waiter(1, 1));
        assert!(!hub.is_due(Life(1)));
        hub.moved(Life(1));
        let slice = hub.next_slice(9).unwrap();
        assert_eq!(names(&hub, &slice), [1]);
        hub.pass(&slice);
        assert_eq!(hub.next_slice(9), None);
        assert!(!hub.has_work() && !hub.is_due(Life(1)));
    }

    #[test]
    fn who_stays_goes_on_behind_the_others_with_what_it_has_got() {
        let mut hub = Hub::default();
        let first = hub.add(waiter(1, 0));
        hub.add(waiter(1, 1));
        hub.moved(Life(1));
        let slice = hub.next_slice(1).unwrap();
        assert_eq!(slice.keys, [first]);
        hub.advance(first, 7, 1_000);
        hub.pass(&slice);
        let slice = hub.next_slice(9).unwrap();
        assert_eq!(names(&hub, &slice), [1]);
        remove(&mut hub, &slice);
        assert_eq!(hub.next_slice(9), None);
        let stays = hub.get(first).unwrap();
        assert_eq!((stays.seq, stays.since, hub.len()), (7, 1_000, 1));
    }

    #[test]
    fn who_fell_behind_is_looked_at_alone_and_once() {
        let mut hub = Hub::default();
        let keys: Vec<Key> = (0..3).map(|name| hub.add(waiter(1, name))).collect();
        hub.fell_behind(keys[1]);
        hub.fell_behind(keys[1]);
        assert!(hub.is_due(Life(1)));
        let slice = hub.next_slice(9).unwrap();
        assert_eq!(slice.keys, [keys[1]]);
        hub.pass(&slice);
        assert_eq!(hub.next_slice(9), None);
        // Its place goes to somebody else, who is not behind.
        hub.fell_behind(keys[2]);
        hub.remove(keys[2]);
        assert_eq!(hub.add(waiter(1, 9)), keys[2]);
        assert!(hub.has_work());
        assert_eq!(hub.next_slice(9), None);
        assert!(!hub.has_work());
    }

    #[test]
    fn lost_hints_do_not_lose_who_fell_behind() {
        let mut hub = Hub::default();
        let key = hub.add(waiter(1, 0));
        hub.fell_behind(key);
        hub.moved_all();
        assert_eq!(hub.next_slice(9).map(|slice| slice.keys), Some(vec![key]));
    }

    #[test]
    fn whoever_of_a_slice_is_left_is_passed_in_order() {
        // All ways in which some of six are removed while they are looked at, two or three at a time.
        for (removed, size) in
            (0..64_u32).flat_map(|removed| [(removed, 2), (removed, 3), (removed, 9)])
        {
            let mut hub = Hub::default();
            let keys: Vec<Key> = (0..6).map(|name| hub.add(waiter(1, name))).collect();
            for _ in 0..2 {
                hub.moved(Life(1));
                let mut seen = Vec::new();
                while let Some(slice) = hub.next_slice(size) {
                    seen.extend(names(&hub, &slice));
                    for key in &slice.keys {
                        let place = keys.iter().position(|known| known == key).unwrap();
                        if removed & (1 << place) != 0 {
                            hub.remove(*key);
                        }
                    }
                    hub.pass(&slice);
                }
                let left = |name: &u32| removed & (1 << name) == 0;
                if seen.len() == 6 {
                    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
                } else {
                    assert_eq!(seen, (0..6).filter(left).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn who_comes_between_slices_is_not_lost_when_others_are_passed() {
        let mut hub = Hub::default();
        add(&mut hub, 1, 0..4);
        hub.moved(Life(1));
        let slice = hub.next_slice(2).unwrap();
        hub.pass(&slice);
        hub.add(waiter(1, 9));
        let slice = hub.next_slice(9).unwrap();
        assert_eq!(names(&hub, &slice), [2, 3]);
        hub.pass(&slice);
        assert_eq!(hub.next_slice(9), None);
        hub.moved(Life(1));
        let slice = hub.next_slice(9).unwrap();
        assert_eq!(names(&hub, &slice), [0, 1, 9, 2, 3]);
    }

    #[test]
    fn deadlines_can_be_changed() {
        let mut hub = Hub::default();
        let key = hub.add(Waiter { deadline: 1_000, ..waiter(1, 0) });
        hub.set_deadline(key, 3_000);
        assert_eq!((hub.next_deadline(), hub.overdue(2_000, 9)), (Some(3_000), vec![]));
        hub.set_deadline(key, u64::MAX);
        assert_eq!(hub.next_deadline(), None);
        hub.set_deadline(key, 5_000);
        assert_eq!(hub.next_deadline(), Some(5_000));
        hub.remove(key);
        assert_eq!(hub.next_deadline(), None);
    }

    #[test]
    fn deadlines_are_kept_and_given_up_with_their_subscriber() {
        let mut hub = Hub::default();
        let late = hub.add(Waiter { deadline: 2_000, ..waiter(1, 0) });
        let soon = hub.add(Waiter { deadline: 1_000, ..waiter(1, 1) });
        assert_eq!(hub.next_deadline(), Some(1_000));
        assert_eq!(hub.overdue(999, 9), []);
        assert_eq!(hub.overdue(5_000, 9), [soon, late]);
        hub.remove(soon);
        assert_eq!(hub.next_deadline(), Some(2_000));
        hub.remove(late);
        assert_eq!(hub.next_deadline(), None);
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes long in Miri")]
    fn a_channel_in_many_bundles_is_noted_served_and_forgotten_in_no_time() {
        const COUNT: u64 = 20_000;
        let began = std::time::Instant::now();
        let mut hub = Hub::default();
        let keys: Vec<Key> =
            (0..COUNT).map(|number| bundle(&mut hub, &[1, number + 2], number as u32)).collect();
        hub.moved(Life(1));
        let mut seen = 0;
        while let Some(slice) = hub.next_slice(256) {
            seen += slice.keys.len();
            hub.pass(&slice);
            assert_eq!(hub.is_due(Life(1)), seen < COUNT as usize);
        }
        for key in keys {
            hub.remove(key);
        }
        assert!(hub.is_empty() && hub.bundles.is_empty());
        // So is who is looked at alone, while nobody else is due.
        let keys: Vec<Key> =
            (0..COUNT).map(|number| bundle(&mut hub, &[1, number + 2], number as u32)).collect();
        keys.iter().rev().for_each(|key| hub.fell_behind(*key));
        while let Some(slice) = hub.next_slice(256) {
            hub.pass(&slice);
            assert_eq!(hub.is_due(Life(1)), hub.has_work());
        }
        for (number, key) in keys.into_iter().enumerate() {
            hub.moved(Life(number as u64 + 2));
            let slice = hub.next_slice(256).unwrap();
            hub.pass(&slice);
            assert!(!hub.is_due(Life(1)));
            hub.remove(key);
        }
        // What grows with the square of their number takes minutes.
        assert!(began.elapsed().as_secs() < 20);
    }
}
