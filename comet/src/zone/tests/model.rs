//! A roomy zone against a simple model: whatever is done, both answer the same.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::message::Life;
use crate::wire::info::ChannelInfo;

const NAMES: [&[u8]; 4] = [b"a", b"", &[b'n'; 100], &[0xff; 300]];
const WORKERS: usize = 6;

#[derive(Clone, Debug)]
enum Op {
    Publish {
        channel: usize,
        size: usize,
        type_len: usize,
        max: u32,
        min: u32,
        timeout: u64,
        channel_timeout: u32,
        delete_when_received: bool,
    },
    Subscribe {
        channel: usize,
        position: Where,
        hold: Option<usize>,
        authorized_only: bool,
        max: u32,
        concurrency: Concurrency,
        channel_timeout: u32,
    },
    /// Looks for a waiting subscriber; who gets an answer leaves.
    Next {
        waiter: usize,
        received: bool,
    },
    Leave {
        waiter: usize,
    },
    Delete {
        channel: usize,
    },
    Info {
        channel: usize,
    },
    Pass {
        ms: u64,
    },
    Clock {
        by: i64,
    },
    Join {
        worker: usize,
    },
    Part {
        worker: usize,
    },
    Die {
        worker: usize,
    },
    Sweep,
    Mail {
        worker: usize,
    },
}

#[derive(Clone, Debug)]
enum Where {
    Oldest,
    Newest,
    Nth(u32),
    Last(u32),
    /// After a message that there was once, or still is.
    Real(usize),
    /// After an id that may never have been given.
    Made(usize, i64, u32),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let channel = || 0..NAMES.len();
    let worker = || 0..WORKERS;
    let idle = || prop_oneof![Just(0u32), Just(1), Just(5), Just(60)];
    let position = prop_oneof![
        2 => Just(Where::Oldest),
        1 => Just(Where::Newest),
        1 => (0u32..5).prop_map(Where::Nth),
        1 => (0u32..5).prop_map(Where::Last),
        4 => any::<usize>().prop_map(Where::Real),
        1 => (any::<usize>(), -2i64..3, 0u32..4).prop_map(|(a, b, c)| Where::Made(a, b, c)),
    ];
    let size = prop_oneof![Just(0usize), 0..50usize, 0..1000usize];
    let max = prop_oneof![2 => Just(0u32), 3 => 1..4u32, 3 => Just(50)];
    let timeout =
        prop_oneof![3 => Just(0u64), 2 => 1..6000u64, 1 => (1..8u64).prop_map(|s| s * 1000)];
    let concurrency = prop_oneof![
        4 => Just(Concurrency::Broadcast),
        1 => Just(Concurrency::Last),
        1 => Just(Concurrency::First)
    ];
    let publish = (channel(), size, 0..60usize, max, 0..3u32, timeout, idle(), any::<bool>())
        .prop_map(|(channel, size, type_len, max, min, timeout, channel_timeout, flag)| {
            let delete_when_received = flag;
            Op::Publish {
                channel,
                size,
                type_len,
                max,
                min,
                timeout,
                channel_timeout,
                delete_when_received,
            }
        });
    let hold = prop_oneof![1 => Just(None), 3 => worker().prop_map(Some)];
    let authorized = proptest::bool::weighted(0.1);
    let limit = prop_oneof![4 => Just(0u32), 1 => 1..3u32];
    let subscribe = (channel(), position, hold, authorized, limit, concurrency, idle()).prop_map(
        |(channel, position, hold, authorized_only, max, concurrency, channel_timeout)| {
            Op::Subscribe {
                channel,
                position,
                hold,
                authorized_only,
                max,
                concurrency,
                channel_timeout,
            }
        },
    );
    let op = prop_oneof![
        10 => publish,
        10 => subscribe,
        8 => (any::<usize>(), any::<bool>()).prop_map(|(waiter, received)| Op::Next { waiter, received }),
        2 => any::<usize>().prop_map(|waiter| Op::Leave { waiter }),
        1 => channel().prop_map(|channel| Op::Delete { channel }),
        2 => channel().prop_map(|channel| Op::Info { channel }),
        4 => prop_oneof![1..900u64, Just(1000), 1..9000u64].prop_map(|ms| Op::Pass { ms }),
        1 => (-5i64..6).prop_map(|by| Op::Clock { by }),
        1 => worker().prop_map(|worker| Op::Join { worker }),
        1 => worker().prop_map(|worker| Op::Part { worker }),
        1 => worker().prop_map(|worker| Op::Die { worker }),
        3 => Just(Op::Sweep),
        4 => worker().prop_map(|worker| Op::Mail { worker }),
    ];
    proptest::collection::vec(op, 1..120)
}

#[derive(Clone, Debug)]
struct Stored {
    seq: u64,
    id: MessageId,
    content_type: Vec<u8>,
    body: Vec<u8>,
    transient: bool,
    delete_when_received: bool,
    min: u32,
    deadline: u64,
}

/// Waiting subscribers of a worker's one generation.
#[derive(Clone, Debug, Default)]
struct Count {
    waiting: u32,
    notified: bool,
}

#[derive(Clone, Debug)]
struct Channel {
    name: usize,
    life: u64,
    log: Vec<Stored>,
    next_seq: u64,
    requested: u64,
    timeout: u32,
    /// The second in which the idle timer fires.
    timer: Option<u64>,
    counts: BTreeMap<u64, Count>,
    reign: u32,
    deleted: bool,
    dropped_seconds: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
struct Worker {
    /// Unique to the generation.
    key: u64,
    index: usize,
    slot: SlotRef,
    pid: u32,
    is_alive: bool,
    mail: Vec<u64>,
    overflow: bool,
    signaled: bool,
}

#[derive(Clone, Debug)]
struct Waiter {
    worker: u64,
    slot: SlotRef,
    channel: ChannelRef,
    cursor: Cursor,
    reign: u32,
}

#[derive(Default)]
struct Model {
    /// Living channels and deleted ones that are still served.
    channels: Vec<Channel>,
    lives: u64,
    workers: Vec<Worker>,
    keys: u64,
    wheel: u64,
    scan: bool,
    wake: Vec<u32>,
    last_ids: BTreeMap<usize, MessageId>,
    newest_time: u64,
    /// All ids ever given, with life and sequence number.
    given: Vec<(usize, MessageId, u64, u64)>,
}

impl Model {
    fn find(&self, name: usize) -> Option<usize> {
        self.channels.iter().position(|channel| channel.name == name && !channel.deleted)
    }

    fn by_life(&self, life: Life) -> Option<usize> {
        self.channels.iter().position(|channel| channel.life == life.0)
    }

    fn worker(&mut self, index: usize) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.index == index)
    }

    fn subscribers(&self, channel: &Channel) -> u64 {
        let keys: BTreeSet<u64> = self.workers.iter().map(|worker| worker.key).collect();
        let live = channel.counts.iter().filter(|(key, _)| keys.contains(key));
        live.map(|(_, count)| u64::from(count.waiting)).sum()
    }

    fn info(&self, at: usize, now: Now) -> ChannelInfo {
        let channel = &self.channels[at];
        ChannelInfo {
            messages: channel.log.iter().filter(|message| !message.transient).count() as u64,
            requested: ((now.mono - channel.requested) / 1000) as i64,
            subscribers: self.subscribers(channel),
        }
    }

    /// Life of a channel after something has gone from it; true if that ended it.
    fn rest(&mut self, at: usize, now: Now) -> bool {
        if self.subscribers(&self.channels[at]) > 0 {
            return false;
        }
        let wheel = self.wheel;
        let channel = &mut self.channels[at];
        if channel.deleted {
            self.channels.remove(at);
            return true;
        }
        if channel.log.is_empty() {
            let due = (now.mono + 1000 * u64::from(channel.timeout)).div_ceil(1000);
            channel.timer = Some(due.max(wheel + 1));
        }
        false
    }

    fn remove(&mut self, at: usize, place: usize, now: Now) -> bool {
        let message = self.channels[at].log.remove(place);
        self.channels[at].dropped_seconds.insert(message.id.time);
        self.channels[at].log.is_empty() && self.rest(at, now)
    }

    fn turn(&mut self, now: Now) {
        for second in self.wheel + 1..=now.mono / 1000 {
            let mut life = 0;
            while let Some(at) = self.channels.iter().position(|channel| channel.life > life) {
                life = self.channels[at].life;
                let due = |message: &Stored| message.deadline.div_ceil(1000) <= second;
                let mut gone = false;
                while let Some(place) = self.channels[at].log.iter().position(due).filter(|_| !gone)
                {
                    gone = self.remove(at, place, now);
                }
                if gone {
                    continue;
                }
                let channel = &mut self.channels[at];
                if channel.timer.is_some_and(|timer| timer <= second) {
                    channel.timer = None;
                    let due = channel.requested + 1000 * u64::from(channel.timeout);
                    let is_busy = !channel.log.is_empty() || channel.deleted;
                    if is_busy || self.subscribers(&self.channels[at]) > 0 {
                        continue;
                    }
                    if due > now.mono {
                        self.channels[at].timer = Some(due.div_ceil(1000));
                    } else {
                        self.channels.remove(at);
                    }
                }
            }
            self.wheel = second;
        }
    }

    fn drop_expired(&mut self, at: usize, now: Now) {
        while self.channels[at].log.first().is_some_and(|first| first.deadline <= now.mono) {
            assert!(!self.remove(at, 0, now));
        }
    }

    fn create(&mut self, name: usize, timeout: u32, now: Now) -> usize {
        self.lives += 1;
        self.channels.push(Channel {
            name,
            life: self.lives,
            log: Vec::new(),
            next_seq: 1,
            requested: now.mono,
            timeout,
            timer: None,
            counts: BTreeMap::new(),
            reign: 0,
            deleted: false,
            dropped_seconds: BTreeSet::new(),
        });
        let at = self.channels.len() - 1;
        self.rest(at, now);
        at
    }

    fn notify(&mut self, at: usize) {
        let life = self.channels[at].life;
        for worker in &mut self.workers {
            let Some(count) = self.channels[at].counts.get_mut(&worker.key) else {
                continue;
            };
            if count.waiting == 0 || count.notified {
                continue;
            }
            count.notified = true;
            worker.mail.push(life);
            if !worker.signaled {
                worker.signaled = true;
                self.wake.push(worker.index as u32);
            }
        }
    }

    fn retire(&mut self, index: usize) {
        self.workers.retain(|worker| worker.index != index);
        self.scan = true;
    }

    fn sweep(&mut self, now: Now) {
        self.turn(now);
        let dead: Vec<usize> = self
            .workers
            .iter()
            .filter(|worker| !worker.is_alive)
            .map(|worker| worker.index)
            .collect();
        dead.into_iter().for_each(|index| self.retire(index));
        let mut at = 0;
        while at < self.channels.len() {
            let look = self.scan || self.channels[at].deleted;
            if !(look && self.rest(at, now)) {
                at += 1;
            }
        }
        self.scan = false;
    }

    /// Sequence number of the last message of a life at or before an id.
    fn seen(&self, life: u64, id: MessageId) -> u64 {
        let given = self.given.iter().filter(|given| given.2 == life && given.1 <= id);
        given.map(|given| given.3).max().unwrap_or(0)
    }
}

fn alive(message: &&Stored, now: Now) -> bool {
    message.deadline > now.mono
}

fn same(message: &Message, expected: &Stored, life: u64) {
    assert_eq!(message.id, expected.id);
    assert_eq!(message.cursor, Cursor { life: Life(life), seq: expected.seq });
    assert_eq!(&*message.content_type, expected.content_type);
    assert_eq!(bytes(message), expected.body);
    assert_eq!(message.delete_when_received, expected.delete_when_received);
}

struct Test {
    world: World,
    model: Model,
    waiters: Vec<Waiter>,
}

impl Test {
    fn new() -> Self {
        let mut test = Test { world: World::new(4096), model: Model::default(), waiters: vec![] };
        test.model.wheel = test.world.now.mono / 1000;
        (0..3).for_each(|worker| test.join(worker));
        test
    }

    fn join(&mut self, index: usize) {
        self.model.keys += 1;
        let pid = 100 + self.model.keys as u32;
        let slot = self.world.with(|zone, now| zone.join(index as u32, pid, now)).unwrap();
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

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Publish { .. } => self.publish(op),
            Op::Subscribe { .. } => self.subscribe(op),
            Op::Next { waiter, received } => self.next(waiter, received),
            Op::Leave { waiter } => {
                if !self.waiters.is_empty() {
                    let waiter = self.waiters.remove(waiter % self.waiters.len());
                    self.leave(&waiter);
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
                    self.world.with(|zone, _| zone.part(slot));
                    self.model.retire(worker);
                }
            }
            Op::Die { worker } => {
                if let Some(worker) = self.model.worker(worker) {
                    worker.is_alive = false;
                }
            }
            Op::Sweep => {
                let workers = self.model.workers.clone();
                let is_alive =
                    |pid| workers.iter().any(|worker| worker.pid == pid && worker.is_alive);
                self.world.with(|zone, now| zone.sweep(now, is_alive));
                self.model.sweep(self.world.now);
            }
            Op::Mail { worker } => self.mail(worker),
        }
        self.compare();
    }

    /// What a look at the zone shows.
    fn compare(&mut self) {
        let model = &mut self.model;
        let now = self.world.now;
        self.world.with(|zone, _| {
            let usage = zone.usage();
            assert_eq!(usage.channels as usize, model.channels.len());
            let messages: usize = model.channels.iter().map(|channel| channel.log.len()).sum();
            assert_eq!(usage.messages as usize, messages);
            assert_eq!((usage.counters.evicted, usage.counters.recovered), (0, 0));
            for (place, name) in NAMES.iter().enumerate() {
                let found = model.find(place);
                assert_eq!(zone.find(name).is_some(), found.is_some());
                let Some(at) = found else { continue };
                let channel = &model.channels[at];
                let log = zone.log_of(name);
                assert_eq!(log.len(), channel.log.len());
                for (message, expected) in log.iter().zip(&channel.log) {
                    same(message, expected, channel.life);
                }
                assert_eq!(zone.info_of(zone.find(name).unwrap(), now), model.info(at, now));
            }
        });
    }

    fn publish(&mut self, op: &Op) {
        let &Op::Publish {
            channel: name,
            size,
            type_len,
            max,
            min,
            timeout,
            channel_timeout,
            delete_when_received,
        } = op
        else {
            return;
        };
        let now = self.world.now;
        let body: Vec<u8> = (0..size).map(|byte| (byte * 31 + size) as u8).collect();
        let content_type = vec![b't'; type_len];
        let publication = Publication {
            id: NAMES[name],
            content_type: &content_type,
            event: b"",
            content: Content::Pieces(&[&body[..size / 2], &body[size / 2..]]),
            max_messages: max,
            min_messages: min,
            message_timeout: timeout,
            channel_timeout,
            delete_when_received,
        };
        let (published, wake) = self
            .world
            .with(|zone, now| (zone.publish(&publication, now).unwrap(), zone.take_wake()));
        let model = &mut self.model;
        model.turn(now);
        let at = model.find(name).unwrap_or_else(|| model.create(name, channel_timeout, now));
        model.drop_expired(at, now);
        let id = published.id;
        if let Some(last) = model.last_ids.insert(name, id) {
            assert!(id > last);
            // Never before the newest message of any channel.
            let wall = now.wall.max(model.newest_time);
            let expected = match wall > last.time {
                true => MessageId { time: wall, tag: 0 },
                false => MessageId { tag: last.tag + 1, ..last },
            };
            // Channels that have died in this second may have raised it.
            assert!(id >= expected);
            assert!(id == expected || model.channels[at].next_seq == 1);
        }
        model.newest_time = model.newest_time.max(id.time);
        let deadline = if timeout == 0 { u64::MAX } else { now.mono + timeout };
        let transient = max == 0;
        let channel = &mut model.channels[at];
        let seq = channel.next_seq;
        channel.next_seq += 1;
        model.given.push((name, id, channel.life, seq));
        channel.log.push(Stored {
            seq,
            id,
            content_type,
            body,
            transient,
            delete_when_received: delete_when_received && !transient,
            min,
            deadline: if transient { deadline.min(now.mono + TRANSIENT_TIMEOUT) } else { deadline },
        });
        for (is_transient, limit) in [(false, max as usize), (true, TRANSIENT_MAX as usize)] {
            let matching = |message: &Stored| message.transient == is_transient;
            while (is_transient || limit > 0)
                && model.channels[at].log.iter().filter(|message| matching(message)).count() > limit
            {
                let place = model.channels[at].log.iter().position(matching).unwrap();
                model.remove(at, place, now);
            }
        }
        model.channels[at].timeout = channel_timeout;
        assert_eq!(published.info, model.info(at, now));
        model.notify(at);
        assert_eq!(sorted(wake), sorted(std::mem::take(&mut model.wake)));
    }

    fn position(&self, name: usize, position: &Where) -> Position {
        let given: Vec<_> = self.model.given.iter().filter(|given| given.0 == name).collect();
        match *position {
            Where::Oldest => Position::Oldest,
            Where::Newest => Position::Newest,
            Where::Nth(place) => Position::Nth(place),
            Where::Last(count) => Position::Last(count),
            Where::Real(_) | Where::Made(..) if given.is_empty() => Position::Oldest,
            Where::Real(which) => Position::After(given[which % given.len()].1),
            Where::Made(which, time, tag) => {
                let id = given[which % given.len()].1;
                Position::After(MessageId { time: id.time.saturating_add_signed(time), tag })
            }
        }
    }

    fn subscribe(&mut self, op: &Op) {
        let &Op::Subscribe {
            channel: name,
            ref position,
            hold,
            authorized_only,
            max,
            concurrency,
            channel_timeout,
        } = op
        else {
            return;
        };
        let now = self.world.now;
        let position = self.position(name, position);
        let worker = hold.and_then(|index| self.model.worker(index)).map(|worker| worker.clone());
        let subscription = Subscription {
            id: NAMES[name],
            position,
            hold: worker.as_ref().map(|worker| worker.slot),
            authorized_only,
            max_subscribers: max,
            concurrency,
            channel_timeout,
        };
        let (answer, copy, wake) = self.world.with(|zone, now| {
            let answer = zone.subscribe(&subscription, now);
            let copy = match &answer {
                Ok(Subscribed::Message(next)) => Some(zone.copy(next)),
                _ => None,
            };
            (answer, copy, zone.take_wake())
        });
        let model = &mut self.model;
        model.turn(now);
        let at = match model.find(name) {
            Some(at) => at,
            None if authorized_only => {
                assert_eq!(answer, Err(Refusal::NotAuthorized));
                return;
            }
            None => model.create(name, channel_timeout, now),
        };
        let waiting = model.subscribers(&model.channels[at]);
        if waiting > 0 && max > 0 && waiting >= u64::from(max) {
            assert_eq!(answer, Err(Refusal::TooManySubscribers));
            return;
        }
        if waiting > 0 && concurrency == Concurrency::First {
            assert_eq!(answer, Err(Refusal::Conflict));
            return;
        }
        model.drop_expired(at, now);
        let channel = &mut model.channels[at];
        channel.requested = now.mono;
        channel.timeout = channel_timeout;
        let channel = model.channels[at].clone();
        let expected = match position {
            Position::Newest => None,
            Position::Oldest => {
                channel.log.iter().find(|message| alive(message, now) && !message.transient)
            }
            Position::Nth(place) => channel
                .log
                .iter()
                .filter(|message| alive(message, now) && !message.transient)
                .nth(place.saturating_sub(1) as usize),
            Position::Last(count) => {
                let stored = channel.log.iter().filter(|message| !message.transient).count();
                channel
                    .log
                    .iter()
                    .filter(|message| !message.transient)
                    .skip(stored.saturating_sub(count as usize))
                    .find(|message| alive(message, now))
            }
            Position::After(id) => {
                channel.log.iter().find(|message| alive(message, now) && message.id > id)
            }
        };
        // How many messages of the channel's life lie between the position and what comes next.
        let seen = match position {
            Position::After(id) => Some((id, model.seen(channel.life, id))),
            _ => None,
        };
        let is_real = seen.is_some_and(|(id, _)| model.given.iter().any(|given| given.1 == id));
        let is_known = is_real && channel.dropped_seconds.len() <= 14;
        match (answer.unwrap(), expected) {
            (Subscribed::Message(next), Some(expected)) => {
                same(&copy.unwrap(), expected, channel.life);
                let truth = seen.map_or(0, |(_, seen)| expected.seq - seen - 1);
                assert!(next.missed.count <= truth, "{:?} {truth}", next.missed);
                assert!(!is_known || next.missed == Missed { count: truth, at_least: false });
                let is_exact = !next.missed.at_least && is_real;
                assert!(!is_exact || next.missed.count == truth, "{:?} {truth}", next.missed);
                assert!(expected.seq > 1 || next.missed.is_none());
            }
            (Subscribed::Waiting { channel: reference, cursor, reign }, None) => {
                assert_eq!((reference.life.0, cursor.life.0), (channel.life, channel.life));
                let newest = channel.next_seq - 1;
                let truth = seen.map_or(newest, |(_, seen)| seen);
                assert!(cursor.seq >= truth && cursor.seq <= newest);
                assert!(!is_known || cursor.seq == truth);
                if let Some(worker) = &worker {
                    model.channels[at].counts.entry(worker.key).or_default().waiting += 1;
                    self.waiters.push(Waiter {
                        worker: worker.key,
                        slot: worker.slot,
                        channel: reference,
                        cursor,
                        reign,
                    });
                }
                let last = u32::from(concurrency == Concurrency::Last);
                assert_eq!(reign, channel.reign + last);
            }
            (answer, expected) => panic!("{answer:?}, not {expected:?}"),
        }
        if concurrency == Concurrency::Last {
            model.channels[at].reign += 1;
            model.notify(at);
        }
        model.rest(at, now);
        assert_eq!(sorted(wake), sorted(std::mem::take(&mut model.wake)));
    }

    fn next(&mut self, waiter: usize, received: bool) {
        if self.waiters.is_empty() {
            return;
        }
        let waiter = self.waiters[waiter % self.waiters.len()].clone();
        let now = self.world.now;
        let (answer, copy) = self.world.with(|zone, now| {
            zone.look(waiter.channel, waiter.slot);
            let answer = zone.next(waiter.channel, waiter.cursor, waiter.reign, now);
            let copy = match &answer {
                Answer::Message(next) => Some(zone.copy(next)),
                _ => None,
            };
            (answer, copy)
        });
        let model = &mut self.model;
        let Some(at) = model.by_life(waiter.channel.life) else {
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
            .find(|message| alive(message, now) && message.seq > waiter.cursor.seq);
        match (&answer, expected) {
            (Answer::Message(next), Some(expected)) => {
                same(&copy.unwrap(), expected, channel.life);
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
            self.world.with(|zone, now| {
                zone.received(waiter.channel, next.cursor, waiter.slot, now);
            });
            let model = &mut self.model;
            let channel = &model.channels[at];
            let stored = channel.log.iter().filter(|message| !message.transient).count();
            let is_oldest = channel.log[0].seq == expected.seq;
            let awaited = model.workers.iter().any(|worker| {
                let count = channel.counts.get(&worker.key);
                worker.slot.at != waiter.slot.at && count.is_some_and(|count| count.notified)
            });
            if is_oldest
                && expected.delete_when_received
                && stored > expected.min as usize
                && !awaited
            {
                let now = self.world.now;
                self.model.remove(at, 0, now);
            }
        }
        self.waiters.retain({
            let mut gone = false;
            move |other| {
                let is_it = !gone
                    && other.channel == waiter.channel
                    && other.worker == waiter.worker
                    && other.cursor == waiter.cursor
                    && other.reign == waiter.reign;
                gone |= is_it;
                !is_it
            }
        });
        self.leave(&waiter);
    }

    fn leave(&mut self, waiter: &Waiter) {
        self.world.with(|zone, now| zone.leave(waiter.channel, waiter.slot, 1, now));
        let now = self.world.now;
        let model = &mut self.model;
        let Some(at) = model.by_life(waiter.channel.life) else {
            return;
        };
        if let Some(count) = model.channels[at].counts.get_mut(&waiter.worker) {
            count.waiting -= 1;
            if count.waiting == 0 {
                model.channels[at].counts.remove(&waiter.worker);
            }
        }
        model.rest(at, now);
    }

    fn delete(&mut self, name: usize) {
        let (info, wake) =
            self.world.with(|zone, now| (zone.delete(NAMES[name], now), zone.take_wake()));
        let now = self.world.now;
        let model = &mut self.model;
        model.turn(now);
        let Some(at) = model.find(name) else {
            return assert_eq!(info, None);
        };
        model.drop_expired(at, now);
        assert_eq!(info, Some(model.info(at, now)));
        if model.subscribers(&model.channels[at]) == 0 {
            model.channels.remove(at);
        } else {
            model.channels[at].deleted = true;
            model.notify(at);
        }
        assert_eq!(sorted(wake), sorted(std::mem::take(&mut model.wake)));
    }

    fn info(&mut self, name: usize) {
        let info = self.world.with(|zone, now| zone.info(NAMES[name], now));
        let now = self.world.now;
        self.model.turn(now);
        let Some(at) = self.model.find(name) else {
            return assert_eq!(info, None);
        };
        self.model.drop_expired(at, now);
        assert_eq!(info, Some(self.model.info(at, now)));
    }

    fn mail(&mut self, index: usize) {
        let lives: BTreeSet<u64> = self.model.channels.iter().map(|channel| channel.life).collect();
        let Some(worker) = self.model.worker(index) else {
            return;
        };
        let slot = worker.slot;
        let expected: Vec<Life> =
            worker.mail.drain(..).filter(|life| lives.contains(life)).map(Life).collect();
        worker.signaled = false;
        let look_at_all = std::mem::take(&mut worker.overflow);
        let mail = self.world.with(|zone, _| zone.take_mail(slot));
        assert_eq!(mail, Mail { moved: expected, look_at_all });
    }

    /// Everything goes, and nothing is left behind.
    fn end(mut self) {
        for waiter in std::mem::take(&mut self.waiters) {
            self.leave(&waiter);
            self.compare();
        }
        for _ in 0..4 {
            for _ in 0..3 {
                self.run(&Op::Sweep);
            }
            self.run(&Op::Pass { ms: 70_000 });
        }
        for name in 0..NAMES.len() {
            self.run(&Op::Delete { channel: name });
        }
        assert!(self.model.channels.is_empty());
        self.world.with(|zone, _| {
            assert_eq!(zone.usage().used_blocks, 5 * zone.slots().len() as u32);
        });
    }
}

fn sorted(mut indices: Vec<u32>) -> Vec<u32> {
    indices.sort_unstable();
    indices
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_zone_does_what_the_model_does(ops in ops()) {
        let mut test = Test::new();
        for op in &ops {
            test.run(op);
        }
        test.end();
    }
}
