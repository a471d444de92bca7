//! The zone under sequences of operations of several workers, some of which die, with moves to zones of other sizes,
//! also through snapshots, and with more or less channels allowed.
//!
//! After each operation the zone must be in order, and what it tells must be true: every message comes as it was
//! published, in order, at most once to each subscriber, and not after its time; what is missed is counted; a worker that
//! has looked where the zone has told it to look has missed nothing; every file is given back once.
#![no_main]

use std::collections::{BTreeSet, HashMap};

use comet::clock::Now;
use comet::config::Concurrency;
use comet::many::Standing;
use comet::message::{Body, Cursor, Life, Message, MessageId, Position};
use comet::zone::{
    Answer, ChannelRef, Content, ManyAnswer, MemoryError, Next, Publication, Remaining, SlotRef,
    Snapshot, Subscribed, Subscription, Zone, TRANSIENT_TIMEOUT,
};
use fuzz::Plan;
use libfuzzer_sys::fuzz_target;

const NAMES: [&[u8]; 5] = [b"g/a", b"g/b", b"", &[b'c'; 71], &[0xff; 300]];
const WORKERS: usize = 3;
/// Words that a zone has beside the least: 8 blocks and a bucket are 129.
const SIZES: [usize; 4] = [0, 129 * 2, 129 * 8, 129 * 60];

/// A message as it was published.
struct Sent {
    channel: usize,
    /// Its place among all of its channel's.
    place: u64,
    id: MessageId,
    event: &'static [u8],
    len: usize,
    file: Option<u64>,
    deadline: u64,
    /// Once it was read.
    life: Option<Life>,
}

/// A subscriber's place in one channel.
#[derive(Clone)]
struct Seat {
    name: usize,
    channel: ChannelRef,
    /// The channel was deleted.
    deleted: bool,
    has_left: bool,
    /// The place of the last message that it got.
    last: Option<u64>,
}

enum Kind {
    /// Waits for one message.
    Poll {
        cursor: Cursor,
        reign: u32,
    },
    Stream {
        cursor: Cursor,
        reign: u32,
    },
    Many(Standing),
}

struct Waiter {
    worker: usize,
    seats: Vec<Seat>,
    kind: Kind,
}

struct Test {
    memory: Vec<u64>,
    now: Now,
    workers: [Option<SlotRef>; WORKERS],
    waiters: Vec<Waiter>,
    sent: Vec<Sent>,
    counts: [u64; NAMES.len()],
    /// Sequence number less place: the same for all messages of one life.
    offsets: HashMap<Life, i64>,
    files: BTreeSet<Vec<u8>>,
    /// The next operation ends in its worker's death.
    dies: bool,
    /// How many channels there may be; 0 for any number.
    max_channels: u32,
}

fn pid(worker: usize) -> u32 {
    1000 + worker as u32
}

fn memory_for(size: usize) -> Vec<u64> {
    let now = Now { wall: 1, mono: 1 };
    let Err(MemoryError::TooSmall { needed }) = Zone::format(&mut [], [1, 2], now).map(drop) else {
        panic!("no memory is enough");
    };
    vec![0; needed / 8 + SIZES[size]]
}

impl Test {
    fn new(size: usize) -> Self {
        let mut memory = memory_for(size);
        let now = Now { wall: 1_700_000_000, mono: 5_000_000 };
        drop(Zone::format(&mut memory, [1, 2], now).unwrap());
        Test {
            memory,
            now,
            workers: [None; WORKERS],
            waiters: Vec::new(),
            sent: Vec::new(),
            counts: [0; NAMES.len()],
            offsets: HashMap::new(),
            files: BTreeSet::new(),
            dies: false,
            max_channels: 0,
        }
    }

    /// Does something under the lock.
    fn with<R>(&mut self, act: impl FnOnce(&mut Zone<'_>, Now) -> R) -> R {
        let mut zone = Zone::enter(&mut self.memory, self.now).unwrap();
        assert_eq!(zone.check(), Ok(()), "after entering");
        zone.limit_channels(self.max_channels);
        let result = act(&mut zone, self.now);
        assert_eq!(zone.check(), Ok(()));
        for path in zone.take_trash() {
            assert!(self.files.remove(&path), "{} goes again", String::from_utf8_lossy(&path));
        }
        let _ = zone.take_wake();
        if std::mem::take(&mut self.dies) {
            // Whoever enters next finds the flag of who was in there.
            std::mem::forget(zone);
        }
        result
    }

    fn publish(&mut self, plan: &mut Plan<'_>) {
        let several = plan.below(8) == 1;
        let first = plan.below(NAMES.len());
        let names: Vec<usize> = match several {
            true => (first..NAMES.len()).collect(),
            false => vec![first],
        };
        let serial = self.sent.len() as u64;
        let len = 8 + plan.square() as usize / 4;
        let file = (plan.below(4) == 1).then(|| plan.square());
        let event: &[u8] = if plan.flag() { b"event" } else { b"" };
        let max_messages = [1000, 0, 1, 3][plan.below(4)];
        let message_timeout = [0, 0, 700, 3000][plan.below(4)];
        let options = plan.number();
        let bodies: Vec<Vec<u8>> = (0..names.len() as u64)
            .map(|more| {
                let mut body = format!("{:08}", serial + more).into_bytes();
                body.resize(len, b'x');
                body
            })
            .collect();
        let pieces: Vec<[&[u8]; 2]> =
            bodies.iter().map(|body| body.split_at(5)).map(|(one, two)| [one, two]).collect();
        let content = |place: usize| match file {
            Some(len) => Content::File { path: &bodies[place], len },
            None => Content::Pieces(&pieces[place]),
        };
        let publications: Vec<Publication<'_>> = names
            .iter()
            .enumerate()
            .map(|(place, name)| Publication {
                id: NAMES[*name],
                content_type: b"text/plain",
                event,
                content: content(place),
                max_messages,
                min_messages: options as u32 & 1,
                message_timeout,
                channel_timeout: (options as u32 >> 1 & 3) * 3,
                delete_when_received: options & 8 != 0,
            })
            .collect();
        if file.is_some() {
            // As the worker does: the files are there before, and belong to the zone if publishing succeeds.
            self.files.extend(bodies.iter().cloned());
        }
        let (answer, kept) = self.with(|zone, now| {
            let before = zone.usage().counters.published;
            let answer = zone.publish_all(&publications, now);
            (answer, (zone.usage().counters.published - before) as usize)
        });
        let mut deadline = match message_timeout {
            0 => u64::MAX,
            timeout => self.now.mono + timeout,
        };
        if max_messages == 0 {
            deadline = deadline.min(self.now.mono + TRANSIENT_TIMEOUT);
        }
        let sent = |channel: usize, id: MessageId| Sent {
            channel,
            place: 0,
            id,
            event,
            len,
            file,
            deadline,
            life: None,
        };
        match answer {
            Ok(published) => {
                assert_eq!(kept, names.len());
                for (name, published) in names.iter().zip(published) {
                    let stored = published.info.messages;
                    assert!(max_messages == 0 || stored <= u64::from(max_messages));
                    self.note(sent(*name, published.id));
                }
            }
            Err(_) => {
                // What was refused is not in the zone; but what went in of several before that is.
                assert!(kept < names.len());
                for name in &names[..kept] {
                    self.note(sent(*name, MessageId::default()));
                }
                for body in &bodies[kept..] {
                    self.files.remove(body);
                }
            }
        }
    }

    /// Notes what went into the zone. Its id may not be known yet.
    fn note(&mut self, mut sent: Sent) {
        sent.place = self.counts[sent.channel];
        self.counts[sent.channel] += 1;
        let before = self.sent.iter().rev().find(|before| before.channel == sent.channel);
        assert!(sent.id.time == 0 || before.is_none_or(|before| before.id < sent.id));
        self.sent.push(sent);
    }

    /// Compares a message with what was published; its place.
    fn read(&mut self, name: usize, next: &Next, message: Message) -> u64 {
        let bytes: &[u8] = match &message.body {
            Body::Bytes(bytes) => bytes,
            Body::File { path, .. } => {
                assert!(self.files.contains(&**path));
                path
            }
        };
        let serial: usize = std::str::from_utf8(&bytes[..8]).unwrap().parse().unwrap();
        let sent = &mut self.sent[serial];
        assert_eq!((sent.channel, sent.len), (name, bytes.len()));
        assert!(bytes[8..].iter().all(|byte| *byte == b'x'));
        assert!(sent.id == next.id || sent.id.time == 0);
        sent.id = next.id;
        assert_eq!(message.id, next.id);
        assert_eq!(*message.content_type, *b"text/plain");
        assert_eq!(*message.event, *sent.event);
        match (&message.body, sent.file) {
            (Body::File { len, .. }, Some(expected)) => assert_eq!(*len, expected),
            (Body::Bytes(_), None) => {}
            other => panic!("{other:?}"),
        }
        assert!(sent.deadline > self.now.mono, "its time is over");
        let life = next.cursor.life;
        assert!(sent.life.is_none_or(|known| known == life));
        sent.life = Some(life);
        let offset = next.cursor.seq as i64 - sent.place as i64;
        assert_eq!(*self.offsets.entry(life).or_insert(offset), offset);
        sent.place
    }

    fn position(&self, name: usize, plan: &mut Plan<'_>) -> (Position, Option<usize>) {
        let known: Vec<usize> =
            (0..self.sent.len()).filter(|serial| self.sent[*serial].channel == name).collect();
        match plan.below(8) {
            0 => (Position::Oldest, None),
            1 => (Position::Newest, None),
            2 => (Position::Nth(plan.number() as u32), None),
            3 => (Position::Last(plan.number() as u32), None),
            4 => {
                let time = (self.now.wall + plan.number()).saturating_sub(5);
                (Position::After(MessageId { time, tag: plan.number() as u32 }), None)
            }
            _ if known.is_empty() => (Position::Oldest, None),
            _ => {
                let serial = known[plan.below(known.len())];
                match self.sent[serial].id {
                    MessageId { time: 0, .. } => (Position::Oldest, None),
                    id => (Position::After(id), Some(serial)),
                }
            }
        }
    }

    fn subscribe(&mut self, plan: &mut Plan<'_>) {
        let name = plan.below(NAMES.len());
        let worker = plan.below(WORKERS);
        let (position, after) = self.position(name, plan);
        let options = plan.number();
        let Some(slot) = self.workers[worker] else { return };
        let subscription = Subscription {
            position,
            hold: Some(slot),
            authorized_only: options & 1 != 0,
            max_subscribers: options as u32 >> 1 & 3,
            concurrency: match options >> 3 & 7 {
                1 => Concurrency::Last,
                2 => Concurrency::First,
                _ => Concurrency::Broadcast,
            },
            channel_timeout: (options as u32 >> 6) * 3,
            ..ask(name, position)
        };
        let stays = plan.flag();
        if stays {
            let Ok(place) = self.with(|zone, now| zone.follow(&subscription, now)) else { return };
            let seat = seat(name, place.channel);
            let kind = Kind::Stream { cursor: place.cursor, reign: place.reign };
            self.waiters.push(Waiter { worker, seats: vec![seat], kind });
            // The worker looks for itself first; with it, everybody of its there.
            return self.serve(worker, |channel| channel == place.channel);
        }
        let answer = self.with(|zone, now| {
            let answer = zone.subscribe(&subscription, now);
            let copy = match &answer {
                Ok(Subscribed::Message(next)) => Some(zone.copy(next)),
                _ => None,
            };
            (answer, copy)
        });
        match answer {
            (Ok(Subscribed::Message(next)), Some(message)) => {
                let place = self.read(name, &next, message);
                let Some(after) = after else { return };
                let seen = &self.sent[after];
                assert!(seen.place < place);
                let truth = place - seen.place - 1;
                assert!(next.missed.count <= truth, "{:?} of {truth}", next.missed);
                if seen.life == Some(next.cursor.life) && !next.missed.at_least {
                    assert_eq!(next.missed.count, truth);
                }
            }
            (Ok(Subscribed::Waiting { channel, cursor, reign, .. }), _) => {
                let (seats, kind) = (vec![seat(name, channel)], Kind::Poll { cursor, reign });
                self.waiters.push(Waiter { worker, seats, kind });
            }
            _ => {}
        }
    }

    fn follow_all(&mut self, plan: &mut Plan<'_>) {
        let worker = plan.below(WORKERS);
        let bits = plan.number() as usize;
        let names: Vec<usize> = (0..NAMES.len()).filter(|name| bits & 1 << name != 0).collect();
        let Some(slot) = self.workers[worker].filter(|_| !names.is_empty()) else { return };
        let max_subscribers = plan.below(4) as u32;
        let wishes: Vec<Subscription<'_>> = names
            .iter()
            .map(|name| Subscription {
                hold: Some(slot),
                max_subscribers,
                ..ask(*name, self.position(*name, plan).0)
            })
            .collect();
        let Ok(places) = self.with(|zone, now| zone.follow_all(&wishes, now)) else { return };
        let seats: Vec<Seat> =
            names.iter().zip(&places).map(|(name, place)| seat(*name, place.channel)).collect();
        let kind = Kind::Many(Standing::new(&places));
        self.waiters.push(Waiter { worker, seats, kind });
        self.serve(worker, |channel| places.iter().any(|place| place.channel == channel));
    }

    /// One worker looks at some channels, and serves all its subscribers there.
    fn serve(&mut self, worker: usize, is_wanted: impl Fn(ChannelRef) -> bool) {
        let Some(slot) = self.workers[worker] else { return };
        let channels: BTreeSet<(u64, usize)> = self
            .waiters
            .iter()
            .enumerate()
            .filter(|(_, waiter)| waiter.worker == worker)
            .flat_map(|(at, waiter)| waiter.seats.iter().map(move |seat| (at, seat)))
            .filter(|(_, seat)| !seat.has_left && is_wanted(seat.channel))
            .map(|(at, seat)| ({ seat.channel.life }.0, at))
            .collect();
        let mut looked = BTreeSet::new();
        for (life, at) in &channels {
            let seats = self.waiters[*at].seats.clone();
            let seat = seats.iter().find(|seat| { seat.channel.life }.0 == *life).unwrap();
            if looked.insert(*life) {
                self.with(|zone, _| zone.look(seat.channel, slot));
            }
        }
        let mut places: Vec<usize> = channels.iter().map(|(_, at)| *at).collect();
        places.sort_unstable();
        places.dedup();
        // From the end, for who leaves makes room.
        for at in places.into_iter().rev() {
            let mut waiter = self.waiters.remove(at);
            if self.serve_one(&mut waiter, slot) {
                self.waiters.insert(at, waiter);
            }
        }
    }

    /// Whether it waits on.
    fn serve_one(&mut self, waiter: &mut Waiter, slot: SlotRef) -> bool {
        loop {
            match &mut waiter.kind {
                Kind::Poll { cursor, reign } | Kind::Stream { cursor, reign } => {
                    let (channel, name) = (waiter.seats[0].channel, waiter.seats[0].name);
                    let (before, reign) = (*cursor, *reign);
                    let (answer, copy) = self.with(|zone, now| {
                        let answer = zone.next(channel, before, reign, now);
                        let copy = match &answer {
                            Answer::Message(next) => Some(zone.copy(next)),
                            _ => None,
                        };
                        (answer, copy)
                    });
                    match (answer, copy) {
                        (Answer::UpToDate, _) => return true,
                        (Answer::Message(next), Some(message)) => {
                            assert_eq!(next.cursor.seq, before.seq + next.missed.count + 1);
                            assert!(!next.missed.at_least);
                            let place = self.read(name, &next, message);
                            assert!(waiter.seats[0].last.is_none_or(|last| last < place));
                            waiter.seats[0].last = Some(place);
                            if let Kind::Stream { cursor, .. } = &mut waiter.kind {
                                *cursor = next.cursor;
                                continue;
                            }
                            self.with(|zone, now| {
                                zone.received(channel, next.cursor, slot, now);
                                zone.leave(channel, slot, 1, now);
                            });
                            return false;
                        }
                        _ => {
                            self.with(|zone, now| zone.leave(channel, slot, 1, now));
                            return false;
                        }
                    }
                }
                Kind::Many(standing) => {
                    let channels: Vec<ChannelRef> =
                        waiter.seats.iter().map(|seat| seat.channel).collect();
                    let before = standing.clone();
                    let (answer, copy) = self.with(|zone, now| {
                        let answer = zone.next_of_many(&channels, &before, now);
                        let copy = match &answer {
                            ManyAnswer::Message { next, .. } => Some(zone.copy(next)),
                            _ => None,
                        };
                        (answer, copy)
                    });
                    match (answer, copy) {
                        (ManyAnswer::UpToDate, _) => return true,
                        (ManyAnswer::Message { from, next, standing: come }, Some(message)) => {
                            let seat = &mut waiter.seats[from];
                            assert!(!seat.has_left);
                            let place = self.read(seat.name, &next, message);
                            assert!(seat.last.is_none_or(|last| last < place));
                            seat.last = Some(place);
                            for (old, new) in before.0.iter().zip(&come.0) {
                                assert!(old.seq <= new.seq && old.id <= new.id);
                            }
                            assert!(come.0[from].seq > before.0[from].seq);
                            assert!(!come.id(from).to_string().is_empty());
                            *standing = come;
                        }
                        (ManyAnswer::Gone { from }, _) => {
                            *standing = before.without(from);
                            waiter.seats[from].has_left = true;
                            let channel = channels[from];
                            let is_over = standing.is_over();
                            self.with(|zone, now| zone.leave(channel, slot, 1, now));
                            if is_over {
                                return false;
                            }
                        }
                        _ => {
                            self.leave(waiter, slot);
                            return false;
                        }
                    }
                }
            }
        }
    }

    fn leave(&mut self, waiter: &Waiter, slot: SlotRef) {
        for seat in waiter.seats.iter().filter(|seat| !seat.has_left) {
            self.with(|zone, now| zone.leave(seat.channel, slot, 1, now));
        }
    }

    /// A worker reads what others have told it, and looks there. Then it has missed nothing.
    fn mail(&mut self, worker: usize) {
        let Some(slot) = self.workers[worker] else { return };
        let mail = self.with(|zone, _| zone.take_mail(slot));
        self.serve(worker, |channel| mail.look_at_all || mail.moved.contains(&{ channel.life }));
        let mut waiters = std::mem::take(&mut self.waiters);
        for waiter in waiters.iter_mut().filter(|waiter| waiter.worker == worker) {
            let channels: Vec<ChannelRef> = waiter.seats.iter().map(|seat| seat.channel).collect();
            let kind = &waiter.kind;
            let is_up_to_date = self.with(|zone, now| match kind {
                Kind::Poll { cursor, reign } | Kind::Stream { cursor, reign } => {
                    zone.next(channels[0], *cursor, *reign, now) == Answer::UpToDate
                }
                Kind::Many(standing) => {
                    zone.next_of_many(&channels, standing, now) == ManyAnswer::UpToDate
                }
            });
            assert!(is_up_to_date, "nobody has told worker {worker}");
        }
        self.waiters = waiters;
    }

    fn forget_waiters_of(&mut self, worker: usize) {
        self.workers[worker] = None;
        self.waiters.retain(|waiter| waiter.worker != worker);
    }

    fn delete(&mut self, name: usize) {
        self.with(|zone, now| {
            zone.delete(NAMES[name], now);
            assert!(zone.info(NAMES[name], now).is_none());
        });
        let seats = self.waiters.iter_mut().flat_map(|waiter| &mut waiter.seats);
        seats.filter(|seat| seat.name == name).for_each(|seat| seat.deleted = true);
    }

    /// Moves to a zone of another size, as a reload does; the old workers send everybody away.
    fn carry(&mut self, size: usize) {
        let mut memory = memory_for(size);
        self.dies = false;
        let now = self.now;
        let mut zone = Zone::format(&mut memory, [3, 4], now).unwrap();
        let mut old = Zone::enter(&mut self.memory, now).unwrap();
        let carried = zone.carry_from(&mut old, now);
        assert_eq!((zone.check(), old.check()), (Ok(()), Ok(())));
        assert_eq!(zone.usage().messages, carried.messages);
        let mut trash = zone.take_trash();
        drop(zone);
        for waiter in std::mem::take(&mut self.waiters) {
            let Some(slot) = self.workers[waiter.worker] else { continue };
            for seat in waiter.seats.iter().filter(|seat| !seat.has_left) {
                old.leave(seat.channel, slot, 1, now);
            }
        }
        old.sweep(now, |_| false);
        assert_eq!(old.check(), Ok(()));
        trash.extend(old.take_trash());
        drop(old);
        for path in trash {
            assert!(self.files.remove(&path), "{} goes again", String::from_utf8_lossy(&path));
        }
        self.memory = memory;
        self.workers = [None; WORKERS];
    }

    /// All ends and begins anew, so many seconds later, with what a snapshot has kept.
    fn restart(&mut self, size: usize, away: u64, damage: (usize, u8)) {
        let mut bytes = Vec::new();
        self.with(|zone, now| zone.save(1, Remaining::Nobody, now, &mut bytes)).unwrap();
        let mut damaged = bytes.clone();
        let (place, bits) = (damage.0 % damaged.len(), damage.1);
        damaged[place] ^= bits;
        assert_eq!(Snapshot::read(&damaged).is_err(), bits != 0);
        assert!(Snapshot::read(&bytes[..place]).is_err());
        let snapshot = Snapshot::read(&bytes).unwrap();
        self.now.mono += 1000 * away;
        self.now.wall += away;
        let mut memory = memory_for(size);
        let mut zone = Zone::format(&mut memory, [5, 6], self.now).unwrap();
        let restored = zone.restore(&snapshot, self.now, &mut |path, _| self.files.contains(path));
        assert_eq!(zone.check(), Ok(()));
        assert_eq!((zone.usage().messages, 0), (restored.messages, restored.lost));
        let trash = zone.take_trash();
        drop(zone);
        for path in trash {
            assert!(self.files.remove(&path), "{} goes again", String::from_utf8_lossy(&path));
        }
        self.memory = memory;
        self.workers = [None; WORKERS];
        self.waiters.clear();
    }

    fn compare(&mut self) {
        for (name, id) in NAMES.iter().enumerate() {
            let info = self.with(|zone, now| zone.info(id, now));
            let waiting = self.waiters.iter().flat_map(|waiter| &waiter.seats);
            let waiting =
                waiting.filter(|seat| seat.name == name && !seat.has_left && !seat.deleted).count();
            assert_eq!(info.map_or(0, |info| info.subscribers), waiting as u64);
        }
    }

    fn end(mut self) {
        self.dies = false;
        for worker in 0..WORKERS {
            self.mail(worker);
            if let Some(slot) = self.workers[worker] {
                self.with(|zone, _| zone.part(slot));
                self.forget_waiters_of(worker);
            }
        }
        (0..NAMES.len()).for_each(|name| self.delete(name));
        self.with(|zone, now| {
            zone.sweep(now, |_| false);
            let usage = zone.usage();
            assert_eq!((usage.messages, usage.channels), (0, 0));
        });
        assert!(self.files.is_empty(), "{} files are left", self.files.len());
    }
}

fn seat(name: usize, channel: ChannelRef) -> Seat {
    Seat { name, channel, deleted: false, has_left: false, last: None }
}

fn ask(name: usize, position: Position) -> Subscription<'static> {
    Subscription {
        id: NAMES[name],
        position,
        hold: None,
        authorized_only: false,
        max_subscribers: 0,
        concurrency: Concurrency::Broadcast,
        channel_timeout: 5,
    }
}

fuzz_target!(|data: &[u8]| {
    let mut plan = Plan::new(data.get(..1500).unwrap_or(data));
    let mut test = Test::new(plan.below(SIZES.len()));
    while !plan.is_over() {
        match plan.letter() {
            b'p' => test.publish(&mut plan),
            b's' => test.subscribe(&mut plan),
            b'f' => test.follow_all(&mut plan),
            b'm' => {
                let worker = plan.below(WORKERS);
                test.mail(worker);
            }
            b'l' => {
                let place = plan.below(test.waiters.len().max(1));
                if place < test.waiters.len() {
                    let waiter = test.waiters.remove(place);
                    if let Some(slot) = test.workers[waiter.worker] {
                        test.leave(&waiter, slot);
                    }
                }
            }
            b'd' => {
                let name = plan.below(NAMES.len());
                test.delete(name);
            }
            b't' => {
                let ms = plan.square();
                let before = test.now.mono / 1000;
                test.now.mono += ms;
                test.now.wall += test.now.mono / 1000 - before;
            }
            b'T' => {
                let wall = (test.now.wall + plan.number()).saturating_sub(128);
                test.now.wall = wall;
            }
            b'w' => test.with(|zone, now| zone.sweep(now, |_| true)),
            b'j' => {
                let worker = plan.below(WORKERS);
                test.forget_waiters_of(worker);
                let slot = test.with(|zone, now| zone.join(worker as u32, pid(worker), now));
                test.workers[worker] = slot;
            }
            b'x' => {
                // A worker is killed, and another one finds out.
                let worker = plan.below(WORKERS);
                test.forget_waiters_of(worker);
                test.with(|zone, now| zone.sweep(now, |alive| alive != pid(worker)));
            }
            b'k' => {
                test.dies = true;
                continue;
            }
            b'c' => {
                let size = plan.below(SIZES.len());
                test.carry(size);
            }
            b'r' => {
                let size = plan.below(SIZES.len());
                let (away, place, bits) = (plan.number(), plan.square(), plan.letter());
                test.restart(size, away, (place as usize, bits));
            }
            b'n' => test.max_channels = plan.number() as u32 % 8,
            _ => continue,
        }
        test.compare();
    }
    test.end();
});
