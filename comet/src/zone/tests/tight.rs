//! A zone that is always full, with processes that die in it.

use std::collections::BTreeMap;
use std::panic::{catch_unwind, AssertUnwindSafe};

use proptest::prelude::*;

use super::*;
use crate::message::Life;
use crate::publisher::PublishError;

const NAMES: [&[u8]; 5] = [b"a", b"b", &[b'c'; 71], &[b'd'; 400], b"e"];
const WORKERS: usize = 3;

#[derive(Clone, Debug)]
enum Op {
    Publish { channel: usize, size: usize, max: u32, timeout: u64, idle: u32, file: bool },
    Subscribe { channel: usize, worker: usize, idle: u32 },
    Read { channel: usize, after: usize },
    Next { waiter: usize },
    Delete { channel: usize },
    Pass { ms: u64 },
    Sweep,
    Rejoin { worker: usize },
}

/// An operation, and after how many writes the process dies that does it.
fn ops(length: usize) -> impl Strategy<Value = Vec<(Op, Option<u32>)>> {
    let channel = || 0..NAMES.len();
    let idle = || prop_oneof![Just(0u32), Just(3)];
    let size = prop_oneof![3 => 0..300usize, 2 => 0..3000usize, 1 => 0..20_000usize];
    let max = prop_oneof![1 => Just(0u32), 1 => 1..5u32, 4 => Just(10_000)];
    let timeout = prop_oneof![2 => Just(0u64), 1 => 1..5000u64];
    let op = prop_oneof![
        12 => (channel(), size, max, timeout, idle(), any::<bool>()).prop_map(
            |(channel, size, max, timeout, idle, file)| Op::Publish {
                channel, size, max, timeout, idle, file
            }
        ),
        3 => (channel(), 0..WORKERS, idle())
            .prop_map(|(channel, worker, idle)| Op::Subscribe { channel, worker, idle }),
        4 => (channel(), any::<usize>()).prop_map(|(channel, after)| Op::Read { channel, after }),
        4 => any::<usize>().prop_map(|waiter| Op::Next { waiter }),
        1 => channel().prop_map(|channel| Op::Delete { channel }),
        3 => (1..2500u64).prop_map(|ms| Op::Pass { ms }),
        2 => Just(Op::Sweep),
        1 => (0..WORKERS).prop_map(|worker| Op::Rejoin { worker }),
    ];
    let death = prop_oneof![12 => Just(None), 1 => (0..60u32).prop_map(Some)];
    proptest::collection::vec((op, death), 1..length)
}

struct Waiter {
    name: usize,
    worker: usize,
    slot: SlotRef,
    channel: ChannelRef,
    cursor: Cursor,
    reign: u32,
}

/// Everything ever published in one life of a channel.
type History = BTreeMap<(usize, Life), Vec<Message>>;

struct Test {
    world: World,
    slots: Vec<SlotRef>,
    waiters: Vec<Waiter>,
    history: History,
    /// Files that the zone owns.
    files: Vec<Vec<u8>>,
    next_file: u64,
    has_died: bool,
    highest: BTreeMap<usize, MessageId>,
}

impl Test {
    fn new(blocks: usize) -> Self {
        let mut world = World::new(blocks);
        let slots = (0..WORKERS).map(|index| world.join(index as u32)).collect();
        Test {
            world,
            slots,
            waiters: vec![],
            history: History::new(),
            files: vec![],
            next_file: 0,
            has_died: false,
            highest: BTreeMap::new(),
        }
    }

    /// Does something in the zone. A process that dies leaves it to the next one; then the result is none.
    fn act<R>(
        &mut self,
        death: Option<u32>,
        act: impl FnOnce(&mut Zone<'_>, Now) -> R,
    ) -> Option<R> {
        let (memory, now) = (&mut self.world.memory, self.world.now);
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut zone = Zone::enter(memory, now).unwrap();
            zone.write_fuse = death;
            let result = act(&mut zone, now);
            zone.write_fuse = None;
            assert_eq!(zone.check(), Ok(()));
            (result, zone.take_trash())
        }));
        match result {
            Ok((result, trash)) => {
                for path in trash {
                    let place = self.files.iter().position(|file| *file == path);
                    // Nothing is thrown away twice, or that was not given.
                    self.files.swap_remove(place.expect("a file that the zone does not own"));
                }
                Some(result)
            }
            Err(cause) => {
                assert!(cause.is::<Death>(), "a failure, not a death");
                self.has_died = true;
                self.world.with(|zone, _| assert!(zone.usage().counters.recovered > 0));
                None
            }
        }
    }

    fn run(&mut self, op: &Op, death: Option<u32>) {
        match *op {
            Op::Publish { .. } => self.publish(op, death),
            Op::Subscribe { channel, worker, idle } => self.subscribe(channel, worker, idle, death),
            Op::Read { channel, after } => self.read(channel, after),
            Op::Next { waiter } => self.next(waiter, death),
            Op::Delete { channel } => {
                self.act(death, |zone, now| zone.delete(NAMES[channel], now));
            }
            Op::Pass { ms } => self.world.pass(ms),
            Op::Sweep => {
                self.act(death, |zone, now| zone.sweep(now, |_| true));
            }
            Op::Rejoin { worker } => {
                self.slots[worker] = self.world.join(worker as u32);
                self.waiters.retain(|waiter| waiter.worker != worker);
            }
        }
        self.compare();
    }

    /// What is in the log was published, unchanged and in order.
    fn compare(&mut self) {
        let history = &mut self.history;
        let highest = &mut self.highest;
        self.world.with(|zone, _| {
            for (place, name) in NAMES.iter().enumerate() {
                for message in zone.log_of(name) {
                    let life = history.entry((place, message.cursor.life)).or_default();
                    let seq = message.cursor.seq as usize;
                    let known = life.get(seq - 1).expect("a message that nobody published");
                    assert_eq!(*known, message);
                }
                let last = zone.log_of(name).last().map(|message| message.id).unwrap_or_default();
                let high = highest.entry(place).or_default();
                *high = last.max(*high);
            }
        });
    }

    fn publish(&mut self, op: &Op, death: Option<u32>) {
        let &Op::Publish { channel, size, max, timeout, idle, file } = op else {
            return;
        };
        let name = NAMES[channel];
        self.next_file += 1;
        let path = format!("/file/{:0width$}", self.next_file, width = 1 + size % 150).into_bytes();
        let body: Vec<u8> = (0..size).map(|byte| (byte + size) as u8).collect();
        let pieces = [&body[..]];
        let publication = Publication {
            id: name,
            content_type: b"",
            event: b"",
            content: match file {
                true => Content::File { path: &path, len: size as u64 },
                false => Content::Pieces(&pieces),
            },
            max_messages: max,
            min_messages: 0,
            message_timeout: timeout,
            channel_timeout: idle,
            delete_when_received: false,
        };
        let stored = match file {
            true => Body::File { path: path.clone().into(), len: size as u64 },
            false => Body::Bytes(body.clone().into()),
        };
        // What it would be if it were published.
        let (life, before, lives) = self.world.with(|zone, _| {
            let at = zone.find(name);
            let head = at.map(|at| *zone.get::<ChannelHead>(at));
            (
                head.map(|head| head.life),
                head.map_or(0, |head| head.next_seq - 1),
                zone.header.lives,
            )
        });
        if file {
            self.files.push(path.clone());
        }
        let result = self.act(death, |zone, now| zone.publish(&publication, now));
        let (found, seq, now_lives) = self.world.with(|zone, _| {
            let at = zone.find(name);
            let head = at.map(|at| *zone.get::<ChannelHead>(at));
            (
                head.map(|head| head.life),
                head.map_or(0, |head| head.next_seq - 1),
                zone.header.lives,
            )
        });
        assert!(now_lives >= lives);
        match result {
            Some(Ok(published)) => {
                assert!(published.id > self.highest.get(&channel).copied().unwrap_or_default());
                assert_eq!((found.is_some(), found == life || seq == 1), (true, true));
            }
            Some(Err(error)) => {
                let blocks = self.world.with(|zone, _| zone.header.block_count);
                let all = u64::from(blocks) * BLOCK_SIZE as u64;
                match error {
                    PublishError::NoSpace { needed } => assert!(needed < all),
                    PublishError::TooLarge { needed } => assert!(needed >= all),
                    error => panic!("{error:?}"),
                }
                self.files.retain(|file| *file != path);
                self.check_that_it_is_full(name, &publication);
                return;
            }
            None => {}
        }
        let before = if found == life { before } else { 0 };
        if let Some(life) = found.map(Life).filter(|_| seq > before) {
            assert_eq!(seq, before + 1);
            // It is there, so it is there in full; unless a process that died had dropped it again.
            let log = self.world.with(|zone, _| zone.log_of(name));
            let message = log.last().filter(|message| message.cursor.seq == seq);
            let message = message.expect("the newest message is missing").clone();
            assert_eq!(message.body, stored);
            assert_eq!(&*message.content_type, b"");
            let history = self.history.entry((channel, life)).or_default();
            assert_eq!(history.len() as u64, seq - 1);
            history.push(message);
        } else {
            assert!(result.is_none(), "published, but not there");
        }
    }

    /// An error is only right if it would not fit even after everything that may go had gone.
    fn check_that_it_is_full(&mut self, name: &[u8], publication: &Publication<'_>) {
        let len = publication.content_type.len()
            + match publication.content {
                Content::Pieces(pieces) => pieces.iter().map(|piece| piece.len()).sum(),
                Content::File { path, .. } => path.len(),
            };
        let mut needed = 1 + len.saturating_sub(40).div_ceil(120) as u32;
        self.world.with(|zone, _| {
            let channel = zone.find(name);
            if channel.is_none() {
                needed += 2 + name.len().saturating_sub(70).div_ceil(120) as u32;
            }
            let mut at_most = zone.usage().blocks - 5 * WORKERS as u32;
            let mut deleted = zone.header.leaving;
            let mut rest: Vec<At> = NAMES.iter().filter_map(|name| zone.find(name)).collect();
            while deleted.is_some() {
                rest.push(deleted);
                deleted = zone.get::<ChannelHead>(deleted).bucket_next;
            }
            for at in rest {
                // Classless are those with subscribers, and those whose worker's death has yet to be noticed.
                let class = zone.get::<ChannelHead>(at).class;
                if zone.live_subscribers(at) > 0 || Some(at) == channel || class == 0 {
                    at_most -= zone.fixed_blocks(at);
                }
            }
            assert!(needed > at_most, "{needed} would fit into {at_most}");
        });
    }

    fn subscribe(&mut self, channel: usize, worker: usize, idle: u32, death: Option<u32>) {
        let slot = self.slots[worker];
        let wish = Subscription {
            hold: Some(slot),
            channel_timeout: idle,
            ..ask(NAMES[channel], Position::Newest)
        };
        let answer = self.act(death, |zone, now| zone.subscribe(&wish, now));
        match answer {
            Some(Ok(Subscribed::Waiting { channel: reference, cursor, reign, .. })) => {
                self.waiters.push(Waiter {
                    name: channel,
                    worker,
                    slot,
                    channel: reference,
                    cursor,
                    reign,
                });
            }
            Some(Ok(other)) => panic!("{other:?}"),
            Some(Err(refusal)) => assert_eq!(refusal, Refusal::NoSpace),
            None => {
                // The process is gone, and with it all who waited there.
                self.slots[worker] = self.world.join(worker as u32);
                self.waiters.retain(|waiter| waiter.worker != worker);
            }
        }
    }

    fn read(&mut self, channel: usize, after: usize) {
        let name = NAMES[channel];
        let lives = self.history.iter().filter(|((place, _), _)| *place == channel);
        let given: Vec<(Life, Message)> = lives
            .flat_map(|((_, life), log)| log.iter().map(|message| (*life, message.clone())))
            .collect();
        if given.is_empty() {
            return;
        }
        let (life, cursor) = &given[after % given.len()];
        let Some(Some(answer)) = self.act(None, |zone, now| {
            zone.find(name)?;
            match zone.subscribe(&ask(name, Position::After(cursor.id)), now) {
                Ok(Subscribed::Message(next)) => Some((zone.copy(&next), next.missed)),
                _ => None,
            }
        }) else {
            return;
        };
        let (message, missed) = answer;
        assert!(message.id > cursor.id);
        let seen = if message.cursor.life == *life { cursor.cursor.seq } else { 0 };
        let truth = message.cursor.seq - seen - 1;
        assert!(missed.count <= truth, "{missed:?} {truth}");
        assert!(missed.at_least || missed.count == truth, "{missed:?} {truth}");
        assert!(message.cursor.seq > 1 || missed.count == 0);
    }

    fn next(&mut self, waiter: usize, death: Option<u32>) {
        if self.waiters.is_empty() {
            return;
        }
        let place = waiter % self.waiters.len();
        let Waiter { name, worker, slot, channel, cursor, reign } = self.waiters[place];
        let answer = self.act(death, |zone, now| {
            zone.look(channel, slot);
            match zone.next(channel, cursor, reign, now) {
                Answer::Message(next) => Some((zone.copy(&next), next.missed)),
                Answer::Gone => {
                    zone.leave(channel, slot, 1, now);
                    None
                }
                Answer::UpToDate => None,
                Answer::Conflict => panic!("nobody asked for that"),
            }
        });
        match answer {
            Some(Some((message, missed))) => {
                // Never twice, never backwards, and the gap is known.
                assert_eq!(message.cursor.life, cursor.life);
                assert!(message.cursor.seq > cursor.seq);
                let count = message.cursor.seq - cursor.seq - 1;
                assert_eq!(missed, Missed { count, at_least: false });
                let life = &self.history[&(name, cursor.life)];
                assert_eq!(life[message.cursor.seq as usize - 1], message);
                self.waiters[place].cursor = message.cursor;
            }
            Some(None) => {
                let is_gone = self
                    .world
                    .with(|zone, now| zone.next(channel, cursor, reign, now) == Answer::Gone);
                if is_gone {
                    self.waiters.remove(place);
                }
            }
            None => {
                self.slots[worker] = self.world.join(worker as u32);
                self.waiters.retain(|waiter| waiter.worker != worker);
            }
        }
    }

    /// Everything returns.
    fn end(mut self) {
        let now = self.world.now;
        for (place, name) in NAMES.iter().enumerate() {
            if place % 2 == 0 {
                self.act(None, |zone, now| zone.delete(name, now));
            }
        }
        for waiter in std::mem::take(&mut self.waiters) {
            self.act(None, |zone, _| zone.leave(waiter.channel, waiter.slot, 1, now));
        }
        for (place, name) in NAMES.iter().enumerate() {
            if place % 2 == 1 {
                self.act(None, |zone, now| zone.delete(name, now));
            }
        }
        for _ in 0..10 {
            self.world.pass(1000);
            self.act(None, |zone, now| zone.sweep(now, |_| true));
        }
        let slots = self.world.with(|zone, _| slot_blocks(zone));
        assert_eq!(self.world.used(), slots);
        assert!(self.has_died || self.files.is_empty(), "files are left: {}", self.files.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, ..config(256) })]

    #[test]
    fn a_full_zone_keeps_its_promises(blocks in 8usize..26, ops in ops(150)) {
        let mut test = Test::new(blocks * 8);
        for (op, _) in &ops {
            test.run(op, None);
        }
        assert_eq!(test.world.with(|zone, _| zone.usage().counters.recovered), 0);
        test.end();
    }

    #[test]
    fn a_full_zone_in_which_processes_die_keeps_its_promises(blocks in 8usize..26, ops in ops(100)) {
        let mut test = Test::new(blocks * 8);
        for (op, death) in &ops {
            test.run(op, *death);
        }
        test.end();
    }
}

#[test]
fn ten_small_messages_make_room_for_one_large() {
    // Evicting them begins ledgers, which must not eat up the room that is being made.
    let mut world = World::new(64);
    let slot = world.join(0);
    for number in 0..10u32 {
        let name = number.to_string();
        world.publish(say(name.as_bytes(), &[b"x"]));
        world.wait(name.as_bytes(), slot);
    }
    let free = world.with(|zone, _| zone.header.free_count);
    let body = vec![b'x'; 40 - 10 + 120 * (free as usize + 10 - 1)];
    world.publish(say(b"0", &[&body]));
    world.with(|zone, _| assert_eq!(zone.header.free_count, 0));
    let body = vec![b'x'; body.len() + 1];
    world.with(|zone, now| assert!(zone.publish(&say(b"0", &[&body]), now).is_err()));
    // The refusal has cost nothing.
    world.with(|zone, _| assert_eq!(zone.seqs_of(b"0"), [2]));
}

#[test]
fn channels_that_never_had_a_message_give_way_first() {
    let mut world = World::new(64);
    for number in 0..10u32 {
        world.subscribe(ask(number.to_string().as_bytes(), Position::Oldest)).unwrap();
    }
    world.publish(say(b"m", &[&[b'x'; 2000]]));
    world.publish(say(b"n", &[&[b'x'; 3000]]));
    world.with(|zone, _| {
        assert_eq!(zone.usage().counters.evicted, 0);
        assert!((3..12).contains(&zone.usage().channels));
        assert_eq!((zone.seqs_of(b"m"), zone.seqs_of(b"n")), (vec![1], vec![1]));
    });
    // Nor do they drive out each other's elders.
    for number in 10..100u32 {
        world.subscribe(ask(number.to_string().as_bytes(), Position::Oldest)).unwrap();
        world.with(|zone, now| assert!(zone.info(b"0", now).is_some()));
    }
    world.with(|zone, _| assert_eq!(zone.usage().counters.evicted, 0));
}

#[test]
fn several_channels_do_not_give_way_to_each_other() {
    let mut world = World::new(64);
    for number in 0..40u32 {
        world.subscribe(ask(number.to_string().as_bytes(), Position::Oldest)).unwrap();
    }
    let names: Vec<String> = (20..45u32).map(|number| number.to_string()).collect();
    let wishes: Vec<_> = names.iter().map(|id| ask(id.as_bytes(), Position::Oldest)).collect();
    world.with(|zone, now| zone.follow_all(&wishes, now)).unwrap();
    world.with(|zone, now| {
        assert!(names.iter().all(|name| zone.info(name.as_bytes(), now).is_some()));
    });
    let publications: Vec<_> = names[..15].iter().map(|id| say(id.as_bytes(), &[b"x"])).collect();
    let published = world.with(|zone, now| zone.publish_all(&publications, now));
    assert_eq!(published.map(|published| published.len()), Ok(15));
}

#[test]
fn other_idle_channels_give_way_last() {
    let mut world = World::new(64);
    for number in 0..10u32 {
        let id = number.to_string();
        let short = say(id.as_bytes(), &[b"x"]);
        world.publish(Publication { message_timeout: 1000, channel_timeout: 3600, ..short });
    }
    world.pass(5000);
    world.sweep();
    world.publish(say(b"m", &[&[b'x'; 2000]]));
    world.publish(say(b"n", &[&[b'x'; 3000]]));
    world.with(|zone, _| {
        assert_eq!((zone.usage().channels, zone.usage().counters.evicted), (12, 1));
        assert!(zone.seqs_of(b"m").is_empty());
    });
    world.publish(say(b"n", &[&[b'x'; 7000]]));
    world.with(|zone, _| {
        assert!(zone.usage().channels < 5);
        assert_eq!(zone.seqs_of(b"n"), [2]);
    });
    let collected = world.with(|zone, _| zone.usage().counters.collected);
    assert!(collected > 7);
    world.with(|zone, now| {
        assert!(zone.publish(&say(b"n", &[&[b'x'; 8000]]), now).is_err());
        assert_eq!(zone.seqs_of(b"n"), [2]);
    });
}

#[test]
fn a_full_zone_still_notes_what_it_drops() {
    let mut world = World::new(64);
    let mut ids = Vec::new();
    for _ in 0..70 {
        ids.push(world.publish(say(b"c", &[b"one block"])));
    }
    world.pass(1000);
    for _ in 0..20 {
        ids.push(world.publish(say(b"c", &[b"one block"])));
    }
    let seqs = world.with(|zone, _| zone.seqs_of(b"c"));
    assert_eq!(seqs.len(), 60, "all but the channel and its ledger");
    for (place, id) in ids.iter().enumerate().take(80) {
        let (message, missed) = world.read(b"c", Position::After(*id)).unwrap();
        let truth = message.cursor.seq - place as u64 - 2;
        assert_eq!(missed, Missed { count: truth, at_least: false });
    }
}

#[test]
fn several_messages_that_drive_out_each_other_are_refused_together() {
    for blocks in 20..=31 {
        let mut world = World::new(64);
        world.publish(say(b"a", &[&[b'x'; 500]]));
        let body = vec![b'y'; 30 + 120 * (blocks - 1)];
        let pieces = [body.as_slice()];
        let publications = [b"a", b"b"].map(|id| say(id, &pieces));
        let published = world.with(|zone, now| zone.publish_all(&publications, now));
        let newest = [b"a", b"b"].map(|id| {
            world.with(|zone, _| zone.log_of(id).last().map(|message| bytes(message).len()))
        });
        // Two channels take two blocks each, of 63.
        if blocks <= 29 {
            assert!(published.is_ok(), "{blocks}");
            assert_eq!(newest, [Some(body.len()); 2], "{blocks}");
        } else {
            assert!(published.is_err(), "{blocks}");
            assert_eq!(newest, [Some(500), None], "{blocks}");
        }
    }
}
