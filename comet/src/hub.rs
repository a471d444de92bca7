//! One worker's waiting subscribers, by channel, in the order in which they came.
//!
//! The hub knows who waits, not what for: the log knows that. A hint from the zone ("this channel moved") becomes a *job*:
//! everybody who waited on the channel when the hint came is looked at once, in slices, so that the event loop gets its
//! turn between them (invariant I8). Whoever goes away meanwhile takes itself off the list.

use std::collections::{BTreeSet, HashMap, VecDeque};

use slab::Slab;

use crate::message::{Cursor, Life};
use crate::zone::ChannelRef;

/// A subscriber that waits. `T` is its connection, as the edge knows it.
#[derive(Clone, Copy, Debug)]
pub struct Waiter<T> {
    /// The channel.
    pub channel: ChannelRef,
    /// The sequence number of the last message that it has seen.
    pub seq: u64,
    /// Under which reign it came (`push_subscriber_concurrency last`).
    pub reign: u32,
    /// When it is sent away without a message, in milliseconds; `u64::MAX` for never.
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
    const NONE: Key = Key(u32::MAX);

    fn place(self) -> usize {
        self.0 as usize
    }
}

/// The waiting subscribers of a worker.
#[derive(Debug)]
pub struct Hub<T> {
    places: Slab<Place<T>>,
    channels: HashMap<Life, Line>,
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
}

/// The subscribers of one channel, oldest first.
#[derive(Debug)]
struct Line {
    channel: ChannelRef,
    first: Key,
    last: Key,
    len: usize,
}

/// A channel to be looked at on behalf of all with tickets up to `upto`.
#[derive(Debug)]
struct Job {
    life: Life,
    upto: u64,
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
            channels: HashMap::new(),
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
        let place = Place { waiter, ticket: 0, next: Key::NONE, prev: Key::NONE };
        let key = Key(self.places.insert(place) as u32);
        self.append(key, channel);
        if deadline != u64::MAX {
            self.deadlines.insert((deadline, key));
        }
        key
    }

    /// A subscriber that waits.
    pub fn get(&self, key: Key) -> Option<&Waiter<T>> {
        self.places.get(key.place()).map(|place| &place.waiter)
    }

    /// Takes a subscriber off.
    pub fn remove(&mut self, key: Key) -> Option<Waiter<T>> {
        if !self.places.contains(key.place()) {
            return None;
        }
        self.unlink(key);
        let place = self.places.remove(key.place());
        if place.waiter.deadline != u64::MAX {
            self.deadlines.remove(&(place.waiter.deadline, key));
        }
        Some(place.waiter)
    }

    /// Puts a subscriber that was looked at and has nothing to get behind all others, so that the job goes on.
    pub fn defer(&mut self, key: Key) {
        if let Some(channel) = self.get(key).map(|waiter| waiter.channel) {
            self.unlink(key);
            self.append(key, channel);
        }
    }

    /// Notes a hint: all who wait on this channel now are to be looked at.
    pub fn moved(&mut self, life: Life) {
        if !self.channels.contains_key(&life) {
            return;
        }
        match self.jobs.iter_mut().find(|job| job.life == life) {
            Some(job) => job.upto = self.tickets,
            None => self.jobs.push_back(Job { life, upto: self.tickets }),
        }
    }

    /// Notes that hints were lost: everything is to be looked at.
    pub fn moved_all(&mut self) {
        self.jobs.clear();
        let upto = self.tickets;
        self.jobs.extend(self.channels.keys().map(|life| Job { life: *life, upto }));
    }

    /// The next subscribers to be looked at, `max` at most, all of one channel. Each of them must be removed or deferred
    /// before the next call.
    pub fn next_slice(&mut self, max: usize) -> Option<Slice> {
        loop {
            let (life, upto) = self.jobs.front().map(|job| (job.life, job.upto))?;
            let keys = self.due_of(life, upto, max);
            if let Some(line) = self.channels.get(&life).filter(|_| !keys.is_empty()) {
                let channel = line.channel;
                // Channels take turns, so that a small one does not wait behind a large one.
                self.jobs.rotate_left(1);
                return Some(Slice { channel, keys });
            }
            self.jobs.pop_front();
        }
    }

    /// Whether there is somebody to be looked at.
    pub fn has_work(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Whether somebody on this channel is to be looked at.
    pub fn is_due(&self, life: Life) -> bool {
        self.jobs.iter().any(|job| job.life == life)
    }

    fn due_of(&self, life: Life, upto: u64, max: usize) -> Vec<Key> {
        let mut keys = Vec::new();
        let mut key = self.channels.get(&life).map_or(Key::NONE, |line| line.first);
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
        let empty = Line { channel, first: key, last: Key::NONE, len: 0 };
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
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn waiter(life: u64, name: u32) -> Waiter<u32> {
        Waiter {
            channel: ChannelRef::for_test(life),
            seq: 0,
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
            slice.keys.iter().for_each(|key| hub.defer(*key));
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
}
