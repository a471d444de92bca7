//! A roomy zone against a simple model: whatever is done, both answer the same; also when processes die while they do it,
//! and when all moves to another zone, or through a snapshot.

mod death;
mod moves;
mod ops;
mod several;
mod state;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::many::Standing;
use crate::message::Life;
use crate::publisher::PublishError;
use crate::wire::info::ChannelInfo;
use ops::{ops, Death, Op, Where, Wish};
use state::{Channel, Count, Entered, Given, Model, Stored, Worker};

const NAMES: [&[u8]; 4] = [b"a", b"", &[b'n'; 100], &[0xff; 300]];
const WORKERS: usize = 6;
/// Blocks of the zones that all moves between.
const SIZES: [usize; 3] = [1024, 768, 1280];

#[derive(Clone, Debug)]
struct Waiter {
    worker: u64,
    slot: SlotRef,
    channel: ChannelRef,
    cursor: Cursor,
    reign: u32,
}

/// A subscriber that stays, on one channel or on several.
#[derive(Clone, Debug)]
struct Follower {
    worker: u64,
    slot: SlotRef,
    channels: Vec<ChannelRef>,
    standing: Standing,
}

#[derive(Clone)]
struct Test {
    world: World,
    model: Model,
    waiters: Vec<Waiter>,
    followers: Vec<Follower>,
    /// Files that the zone has given back.
    trash: Vec<Vec<u8>>,
    death: Option<Death>,
}

impl Test {
    fn new() -> Self {
        let mut test = Test {
            world: World::new(SIZES[0]),
            model: Model::default(),
            waiters: vec![],
            followers: vec![],
            trash: vec![],
            death: None,
        };
        test.model.wheel = test.world.now.mono / 1000;
        (0..3).for_each(|worker| test.join(worker));
        test
    }

    /// Enters the zone, as far as death lets it.
    fn with<R>(&mut self, act: impl FnOnce(&mut Zone<'_>, Now) -> R) -> R {
        let (limit, death) = (self.model.limit, self.death.take());
        let (result, trash, left) = self.world.with(|zone, now| {
            zone.limit_channels(limit);
            match death {
                Some(Death::Commit(after)) => zone.fuse = Some(after),
                Some(Death::Write(after)) => zone.write_fuse = Some(after),
                None => {}
            }
            let result = act(zone, now);
            let (commits, writes) = (zone.fuse.take(), zone.write_fuse.take());
            let left = commits.map(Death::Commit).or(writes.map(Death::Write));
            (result, zone.take_trash(), left)
        });
        self.trash.extend(trash);
        self.death = left;
        result
    }

    fn join(&mut self, index: usize) {
        self.model.keys += 1;
        let pid = 100 + self.model.keys as u32;
        let slot = self.with(|zone, now| zone.join(index as u32, pid, now)).unwrap();
        if self.model.worker(index).is_some() {
            self.model.retire(index);
        }
        self.model.workers.push(Worker {
            key: self.model.keys,
            index,
            slot,
            pid,
            is_alive: true,
            mail: vec![],
            overflow: false,
            signaled: false,
        });
    }

    fn run(&mut self, op: &Op, death: Option<Death>) {
        match death {
            Some(death) if !op.is_move() => self.run_and_die(op, death),
            _ => self.act(op),
        }
        self.compare();
    }

    fn act(&mut self, op: &Op) {
        match *op {
            Op::Publish { .. } => self.publish(op),
            Op::Subscribe { channel, ref position, hold, wish } => {
                self.subscribe(channel, position, hold, wish);
            }
            Op::Follow { ref channels, ref position, hold, wish } => {
                self.follow(channels, position, hold, wish);
            }
            Op::Next { waiter, received } => self.next(waiter, received),
            Op::Read { follower } => self.read(follower),
            Op::Look { waiter, looking } => {
                if !self.waiters.is_empty() {
                    let waiter = self.waiters[waiter % self.waiters.len()].clone();
                    self.with(|zone, _| zone.is_looking(waiter.channel, waiter.slot, looking));
                    let at = self.model.by_life({ waiter.channel.life }.0);
                    let channel = at.map(|at| &mut self.model.channels[at]);
                    let count = channel.and_then(|it| it.counts.get_mut(&waiter.worker));
                    count.into_iter().for_each(|count| count.busy = looking);
                }
            }
            Op::Leave { waiter } => {
                if !self.waiters.is_empty() {
                    let waiter = self.waiters.remove(waiter % self.waiters.len());
                    self.leave(waiter.channel, waiter.slot, waiter.worker);
                }
            }
            Op::Unfollow { follower } => {
                if !self.followers.is_empty() {
                    let follower = self.followers.remove(follower % self.followers.len());
                    self.unfollow(&follower);
                }
            }
            Op::Delete { channel } => self.delete(channel),
            Op::Info { channel } => self.info(channel),
            Op::Pass { ms } => self.world.pass(ms),
            Op::Clock { by } => {
                self.world.now.wall = self.world.now.wall.saturating_add_signed(by);
            }
            Op::Join { worker } => self.join(worker),
            Op::Part { worker } => {
                if let Some(slot) = self.model.worker(worker).map(|worker| worker.slot) {
                    self.with(|zone, _| zone.part(slot));
                    self.model.retire(worker);
                }
            }
            Op::Kill { worker } => {
                if let Some(worker) = self.model.worker(worker) {
                    worker.is_alive = false;
                }
            }
            Op::Sweep => {
                let workers = self.model.workers.clone();
                let is_alive =
                    |pid| workers.iter().any(|worker| worker.pid == pid && worker.is_alive);
                self.with(|zone, now| zone.sweep(now, is_alive));
                self.model.sweep(self.world.now);
            }
            Op::Mail { worker } => self.mail(worker),
            Op::Limit { max } => self.model.limit = max,
            Op::Carry { size } => self.carry(SIZES[size]),
            Op::Restart { size, away, damage } => self.restart(SIZES[size], away, damage),
        }
    }

    /// What a look at the zone shows.
    fn compare(&mut self) {
        self.death = None;
        let model = &mut self.model;
        let now = self.world.now;
        self.world.with(|zone, _| {
            let usage = zone.usage();
            assert_eq!(usage.channels as usize, model.channels.len());
            let messages: usize = model.channels.iter().map(|channel| channel.log.len()).sum();
            assert_eq!(usage.messages as usize, messages);
            let unusual = (usage.counters.evicted, usage.counters.recovered);
            assert_eq!(unusual, (0, model.recovered));
            for channel in &model.channels {
                let at = zone.channel_of_life(channel.life).unwrap();
                let log = zone.messages_of(at);
                assert_eq!(log.len(), channel.log.len());
                for (message, expected) in log.iter().zip(&channel.log) {
                    expected.verify(message, channel.life);
                }
            }
            for (place, name) in NAMES.iter().enumerate() {
                let found = model.find(place).map(|at| model.info(at, now));
                assert_eq!(zone.find(name).map(|at| zone.info_of(at, now)), found);
            }
        });
        assert_eq!(
            sorted(std::mem::take(&mut self.trash)),
            sorted(std::mem::take(&mut model.trash))
        );
    }

    fn position(&self, name: usize, position: &Where) -> Position {
        let given: Vec<_> = self.model.given.iter().filter(|given| given.name == name).collect();
        match *position {
            Where::Oldest => Position::Oldest,
            Where::Newest => Position::Newest,
            Where::Nth(place) => Position::Nth(place),
            Where::Last(count) => Position::Last(count),
            Where::Real(_) | Where::Made(..) if given.is_empty() => Position::Oldest,
            Where::Real(which) => Position::After(given[which % given.len()].id),
            Where::Made(which, time, tag) => {
                let id = given[which % given.len()].id;
                Position::After(MessageId { time: id.time.saturating_add_signed(time), tag })
            }
        }
    }

    fn subscribe(&mut self, name: usize, position: &Where, hold: Option<usize>, wish: Wish) {
        let now = self.world.now;
        let position = self.position(name, position);
        let worker = hold.and_then(|index| self.model.worker(index)).map(|worker| worker.clone());
        let subscription = subscription(name, position, worker.as_ref(), wish);
        let (answer, copy, wake, left) = self.with(|zone, now| {
            let answer = zone.subscribe(&subscription, now);
            let copy = match &answer {
                Ok(Subscribed::Message(next)) => Some(zone.copy(next)),
                _ => None,
            };
            (answer, copy, zone.take_wake(), zone.lives())
        });
        let model = &mut self.model;
        model.turn(now);
        if model.find(name).is_none() {
            if wish.authorized_only {
                return assert_eq!(answer, Err(Refusal::NotAuthorized));
            }
            if !model.make_place(1, &[], &left) {
                return assert_eq!(answer, Err(Refusal::TooManyChannels));
            }
        }
        let key = worker.as_ref().map(|worker| worker.key);
        let entered = match model.enter(name, position, wish, key, false, now) {
            Ok(entered) => entered,
            Err(refusal) => return assert_eq!(answer, Err(refusal)),
        };
        match (answer.unwrap(), &entered.expected) {
            (Subscribed::Message(next), Some(expected)) => {
                expected.verify(&copy.unwrap(), entered.channel.life);
                entered.verify_missed(expected, next.missed);
            }
            (Subscribed::Waiting { channel, cursor, reign, is_vague }, None) => {
                entered.verify_vague(is_vague);
                assert_eq!({ channel.life }.0, entered.channel.life);
                assert_eq!(cursor.life, { channel.life });
                entered.verify_seen(cursor.seq);
                assert_eq!(reign, entered.reign);
                if let Some(Worker { key, slot, .. }) = worker {
                    self.waiters.push(Waiter { worker: key, slot, channel, cursor, reign });
                }
            }
            (answer, expected) => panic!("{answer:?}, not {expected:?}"),
        }
        assert_eq!(sorted(wake), sorted(std::mem::take(&mut self.model.wake)));
    }

    fn next(&mut self, waiter: usize, received: bool) {
        if self.waiters.is_empty() {
            return;
        }
        let place = waiter % self.waiters.len();
        let waiter = self.waiters[place].clone();
        let now = self.world.now;
        let (answer, copy) = self.with(|zone, now| {
            zone.look(waiter.channel, waiter.slot);
            let answer = zone.next(waiter.channel, waiter.cursor, waiter.reign, now);
            let copy = match &answer {
                Answer::Message(next) => Some(zone.copy(next)),
                _ => None,
            };
            (answer, copy)
        });
        let model = &mut self.model;
        let Some(at) = model.by_life({ waiter.channel.life }.0) else {
            assert_eq!(answer, Answer::Gone);
            return self.waiters.retain(|other| other.channel != waiter.channel);
        };
        if let Some(count) = model.channels[at].counts.get_mut(&waiter.worker) {
            count.notified = false;
        }
        let channel = &model.channels[at];
        let expected = channel
            .log
            .iter()
            .find(|message| message.is_alive(now) && message.seq > waiter.cursor.seq);
        match (&answer, expected) {
            (Answer::Message(next), Some(expected)) => {
                expected.verify(&copy.unwrap(), channel.life);
                let count = expected.seq - waiter.cursor.seq - 1;
                assert_eq!(next.missed, Missed { count, at_least: false });
            }
            (Answer::Gone, None) => assert!(channel.deleted),
            (Answer::Conflict, None) => assert!(channel.reign != waiter.reign && !channel.deleted),
            (Answer::UpToDate, None) => {
                assert!(channel.reign == waiter.reign && !channel.deleted);
                return;
            }
            (answer, expected) => panic!("{answer:?}, not {expected:?}"),
        }
        let expected = expected.cloned();
        if let (Answer::Message(next), Some(expected), true) = (&answer, expected, received) {
            self.with(|zone, now| {
                zone.received(waiter.channel, next.cursor, waiter.slot, now);
            });
            let model = &mut self.model;
            let channel = &model.channels[at];
            let stored = channel.log.iter().filter(|message| !message.transient).count();
            let is_oldest = channel.log[0].seq == expected.seq;
            let awaited = model.workers.iter().any(|worker| {
                let count = channel.counts.get(&worker.key);
                worker.slot.at != waiter.slot.at
                    && count.is_some_and(|count| count.notified || count.busy)
            });
            if is_oldest
                && expected.delete_when_received
                && stored > expected.min as usize
                && !awaited
            {
                self.model.remove(at, 0, now);
            }
        }
        self.waiters.remove(place);
        self.leave(waiter.channel, waiter.slot, waiter.worker);
    }

    fn leave(&mut self, channel: ChannelRef, slot: SlotRef, worker: u64) {
        self.with(|zone, now| zone.leave(channel, slot, 1, now));
        self.model.leave({ channel.life }.0, worker, self.world.now);
    }

    fn delete(&mut self, name: usize) {
        let (info, wake) = self.with(|zone, now| (zone.delete(NAMES[name], now), zone.take_wake()));
        let now = self.world.now;
        let model = &mut self.model;
        model.turn(now);
        let Some(at) = model.find(name) else {
            return assert_eq!(info, None);
        };
        model.drop_expired(at, now);
        assert_eq!(info, Some(model.info(at, now)));
        if model.subscribers(&model.channels[at]) == 0 {
            model.drop_channel(at);
        } else {
            model.channels[at].deleted = true;
            model.notify(at);
        }
        assert_eq!(sorted(wake), sorted(std::mem::take(&mut model.wake)));
    }

    fn info(&mut self, name: usize) {
        let info = self.with(|zone, now| zone.info(NAMES[name], now));
        let now = self.world.now;
        self.model.turn(now);
        let Some(at) = self.model.find(name) else {
            return assert_eq!(info, None);
        };
        self.model.drop_expired(at, now);
        assert_eq!(info, Some(self.model.info(at, now)));
    }

    fn mail(&mut self, index: usize) {
        let Some(slot) = self.model.worker(index).map(|worker| worker.slot) else {
            return;
        };
        let mail = self.with(|zone, _| zone.take_mail(slot));
        let lives: BTreeSet<u64> = self.model.channels.iter().map(|channel| channel.life).collect();
        let worker = self.model.worker(index).unwrap();
        let expected: Vec<Life> =
            worker.mail.drain(..).filter(|life| lives.contains(life)).map(Life).collect();
        worker.signaled = false;
        let look_at_all = std::mem::take(&mut worker.overflow);
        assert_eq!(mail, Mail { moved: expected, look_at_all });
    }

    /// Everything goes, and nothing is left behind.
    fn end(mut self) {
        for waiter in std::mem::take(&mut self.waiters) {
            self.leave(waiter.channel, waiter.slot, waiter.worker);
            self.compare();
        }
        for follower in std::mem::take(&mut self.followers) {
            self.unfollow(&follower);
            self.compare();
        }
        // Who has died has left subscribers that nobody knows any more.
        (0..WORKERS).for_each(|worker| self.run(&Op::Part { worker }, None));
        for _ in 0..4 {
            for _ in 0..3 {
                self.run(&Op::Sweep, None);
            }
            self.run(&Op::Pass { ms: 70_000 }, None);
        }
        for channel in 0..NAMES.len() {
            self.run(&Op::Delete { channel }, None);
        }
        assert!(self.model.channels.is_empty());
        self.world.with(|zone, _| {
            assert_eq!(zone.usage().used_blocks, slot_blocks(zone));
        });
    }
}

fn subscription(
    name: usize,
    position: Position,
    worker: Option<&Worker>,
    wish: Wish,
) -> Subscription<'static> {
    Subscription {
        id: NAMES[name],
        position,
        hold: worker.map(|worker| worker.slot),
        authorized_only: wish.authorized_only,
        max_subscribers: wish.max,
        concurrency: wish.concurrency,
        channel_timeout: wish.channel_timeout,
    }
}

impl Entered {
    /// Verifies what a subscriber is told that it has missed before its first message.
    fn verify_missed(&self, expected: &Stored, missed: Missed) {
        let truth = self.seen.map_or(0, |seen| expected.seq - seen - 1);
        assert!(missed.count <= truth, "{missed:?} {truth}");
        assert!(!self.is_known || missed.count == truth);
        self.verify_vague(missed.at_least);
        let is_exact = !missed.at_least && self.is_real;
        assert!(!is_exact || missed.count == truth, "{missed:?} {truth}");
        assert!(expected.seq > 1 || missed.count == 0);
        assert!(self.seen.is_some() || missed.is_none());
    }

    /// Verifies whether it may have missed more than the zone can tell.
    fn verify_vague(&self, is_vague: bool) {
        assert!(is_vague || !self.is_of_former);
        assert!(!is_vague || !self.is_known || !self.is_clean);
    }

    /// Verifies the number from which a subscriber goes on that gets no message yet.
    fn verify_seen(&self, seq: u64) {
        let newest = self.channel.next_seq - 1;
        let truth = self.seen.unwrap_or(newest);
        assert!(seq >= truth && seq <= newest);
        assert!(!self.is_known || seq == truth);
    }
}

impl Zone<'_> {
    fn channel_of_life(&self, life: u64) -> Option<At> {
        self.channels().into_iter().find(|at| self.get::<ChannelHead>(*at).life == life)
    }

    /// The lives of all channels.
    fn lives(&self) -> BTreeSet<u64> {
        self.channels().into_iter().map(|at| self.get::<ChannelHead>(at).life).collect()
    }
}

fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort_unstable();
    all
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, ..config(160) })]

    #[test]
    fn the_zone_does_what_the_model_does(ops in ops()) {
        let mut test = Test::new();
        for (op, _) in &ops {
            test.run(op, None);
        }
        test.end();
    }

    #[test]
    fn the_zone_does_what_the_model_does_although_processes_die(ops in ops()) {
        let mut test = Test::new();
        for (op, death) in &ops {
            test.run(op, *death);
        }
        test.end();
    }
}
