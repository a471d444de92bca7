//! Invariant I7: a process may die at any instruction.
//!
//! Three ways to die, for each kind of operation: at each commit point, at each write to a block, and, from the tape of
//! all commit points, at any moment between two of them, with the writes in between done in any order and any number.

use std::collections::BTreeMap;
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::*;
use crate::zone::memory::Parts;

pub(super) const NAMES: [&[u8]; 5] = [b"a", b"b", b"c", b"idle", &[b'n'; 200]];
const FOREIGN: u32 = 7;

/// A prepared zone, and what is done to it.
struct Case {
    name: &'static str,
    world: World,
    slot: SlotRef,
    act: fn(&mut Zone<'_>, SlotRef, Now),
    /// Whether it finds `FOREIGN` dead.
    kills_foreign: bool,
}

/// Channel a: messages of several seconds, some dropped. b: one that expires in a second. c: subscribers of two workers
/// and a message with a file. One that is idle. `FOREIGN` waits on a and c.
pub(super) fn prepared(blocks: usize) -> (World, SlotRef) {
    let mut world = World::new(blocks);
    let slot = world.join(0);
    let foreign = world.join(FOREIGN);
    for round in 0..6 {
        world.publish(Publication { max_messages: 4, ..say(b"a", &[&[b'0' + round; 150]]) });
        world.pass(1000);
    }
    world.publish(Publication { message_timeout: 1000, ..say(b"b", &[b"soon gone"]) });
    world.publish(Publication {
        content: Content::File { path: b"/some/where", len: 3 },
        delete_when_received: true,
        ..say(b"c", &[])
    });
    world.publish(say(b"c", &[b"second"]));
    world.subscribe(ask(b"idle", Position::Oldest)).unwrap();
    for name in [&b"a"[..], b"c"] {
        world.wait(name, foreign);
    }
    world.wait(b"c", slot);
    (world, slot)
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &'static str, blocks: usize, act: fn(&mut Zone<'_>, SlotRef, Now)| {
        let (world, slot) = prepared(blocks);
        cases.push(Case { name, world, slot, act, kills_foreign: name.ends_with("who leave") });
    };
    add("publish: first in a new channel", 128, |zone, _, now| {
        zone.publish(&say(&[b'n'; 200], &[&[b'x'; 300]]), now).unwrap();
    });
    add("publish: later", 128, |zone, _, now| {
        zone.publish(&say(b"a", &[&[b'x'; 300]]), now).unwrap();
    });
    add("publish: first in an idle channel", 128, |zone, _, now| {
        zone.publish(&say(b"idle", &[b"x"]), now).unwrap();
    });
    add("publish: same second", 128, |zone, _, now| {
        zone.publish(&say(b"c", &[b"x"]), now).unwrap();
        zone.publish(&say(b"c", &[b"y"]), now).unwrap();
    });
    add("publish: with a file", 128, |zone, _, now| {
        let content = Content::File { path: &[b'p'; 100], len: 1 };
        zone.publish(&Publication { content, ..say(b"a", &[]) }, now).unwrap();
    });
    add("publish: with trim", 128, |zone, _, now| {
        zone.publish(&Publication { max_messages: 1, ..say(b"a", &[b"x"]) }, now).unwrap();
    });
    add("publish: with a first trim", 128, |zone, _, now| {
        zone.publish(&Publication { max_messages: 1, ..say(b"c", &[b"x"]) }, now).unwrap();
    });
    add("publish: with eviction", 64, |zone, _, now| {
        zone.publish(&say(b"a", &[&[b'x'; 4500]]), now).unwrap();
    });
    add("publish: with eviction and collection", 64, |zone, _, now| {
        zone.publish(&say(b"n", &[&[b'x'; 4850]]), now).unwrap();
    });
    add("publish: with what former workers had for hints", 64, |zone, _, now| {
        for index in 4..6 {
            let slot = zone.join(index, 44, now).unwrap();
            zone.part(slot);
        }
        zone.publish(&say(b"a", &[&[b'x'; 4500]]), now).unwrap();
        assert!(slot_blocks(zone) < 20);
    });
    add("publish: transient", 128, |zone, _, now| {
        zone.publish(&Publication { max_messages: 0, ..say(b"c", &[b"x"]) }, now).unwrap();
    });
    add("delete: without subscribers", 128, |zone, _, now| {
        zone.delete(b"b", now).unwrap();
    });
    add("delete: with subscribers", 128, |zone, _, now| {
        zone.delete(b"c", now).unwrap();
    });
    add("delete: with subscribers, who leave", 128, |zone, slot, now| {
        let at = zone.find(b"c").unwrap();
        let life = crate::message::Life(zone.get::<ChannelHead>(at).life);
        zone.delete(b"c", now).unwrap();
        zone.leave(ChannelRef { at, life }, slot, 1, now);
        zone.sweep(now, |pid| pid != 1000 + FOREIGN);
        assert_eq!(zone.usage().channels, 3);
    });
    add("delete and publish again", 128, |zone, _, now| {
        zone.delete(b"b", now).unwrap();
        zone.publish(&say(b"b", &[b"next life"]), now).unwrap();
    });
    add("expire and collect", 128, |zone, _, mut now| {
        for _ in 0..12 {
            now.mono += 1000;
            now.wall += 1;
            zone.sweep(now, |_| true);
        }
        assert!(zone.find(b"b").is_none() && zone.find(b"idle").is_none());
    });
    add("subscribe: creating", 128, |zone, slot, now| {
        let wish = Subscription { hold: Some(slot), ..ask(&[b'n'; 200], Position::Oldest) };
        zone.subscribe(&wish, now).unwrap();
    });
    add("subscribe: one more", 128, |zone, slot, now| {
        let concurrency = Concurrency::Last;
        let wish = Subscription { hold: Some(slot), concurrency, ..ask(b"c", Position::Newest) };
        zone.subscribe(&wish, now).unwrap();
    });
    add("subscribe: with a new block of entries", 256, |zone, slot, now| {
        for index in 10..16 {
            let slot = zone.join(index, 50 + index, now).unwrap();
            let wish = Subscription { hold: Some(slot), ..ask(b"c", Position::Newest) };
            zone.subscribe(&wish, now).unwrap();
        }
        zone.part(slot);
    });
    add("subscribe: in the place of a dead worker", 128, |zone, slot, now| {
        zone.part(slot);
        let slot = zone.join(0, 99, now).unwrap();
        let wish = Subscription { hold: Some(slot), ..ask(b"c", Position::Newest) };
        zone.subscribe(&wish, now).unwrap();
        zone.subscribe(&wish, now).unwrap();
    });
    add("join and part", 128, |zone, slot, now| {
        let new = zone.join(4, 44, now).unwrap();
        zone.part(new);
        zone.part(slot);
    });
    add("received", 128, |zone, slot, now| {
        let at = zone.find(b"c").unwrap();
        let life = crate::message::Life(zone.get::<ChannelHead>(at).life);
        let channel = ChannelRef { at, life };
        zone.received(channel, Cursor { life, seq: 1 }, slot, now);
        assert_eq!(zone.seqs_of(b"c"), [2]);
        zone.look(channel, slot);
    });
    add("take mail", 128, |zone, slot, now| {
        zone.publish(&say(b"c", &[b"x"]), now).unwrap();
        assert_eq!(zone.take_mail(slot).moved.len(), 1);
    });
    cases
}

pub(super) type Logs = BTreeMap<&'static [u8], Vec<Message>>;

pub(super) fn logs(zone: &Zone<'_>) -> Logs {
    NAMES.iter().map(|name| (*name, zone.log_of(name))).collect()
}

/// What must hold in a zone that was entered after a death.
fn verify(case: &Case, memory: &mut [u64], before: &Logs, after: &Logs, how: &str) {
    let what = format!("{}, {how}", case.name);
    let mut now = case.world.now;
    let mut zone = Zone::enter(memory, now).unwrap();
    assert_eq!(zone.check(), Ok(()), "{what}");
    assert_eq!(zone.usage().counters.recovered, 1, "{what}");
    let found = logs(&zone);
    let mut highest = BTreeMap::new();
    for name in NAMES {
        let (before, found, after) = (&before[name], &found[name], &after[name]);
        for message in before.iter().filter(|message| after.contains(message)) {
            assert!(found.contains(message), "{what}: {message:?} is lost in {found:?}");
        }
        for message in found {
            let is_known = before.contains(message) || after.contains(message);
            // A life that the operation began and ended, or did not come to: its number may differ.
            assert!(is_known, "{what}: {message:?} was never there");
        }
        let ids = before.iter().chain(found).map(|message| message.id);
        highest.insert(name, ids.max().unwrap_or_default());
    }
    // Nobody but the dead worker's subscribers are uncounted.
    if before[&b"a"[..]].first().map(|m| m.cursor.life)
        == found[&b"a"[..]].first().map(|m| m.cursor.life)
    {
        let waiting = zone.info(b"a", now).map(|info| info.subscribers);
        assert!(
            waiting == Some(1) || case.kills_foreign && waiting == Some(0),
            "{what}: {waiting:?}"
        );
    }
    assert_eq!(zone.check(), Ok(()), "{what}");
    drop(zone);
    // Life goes on, with the clock set back.
    now.wall -= 3;
    let mut zone = Zone::enter(memory, now).unwrap();
    let slot = zone.join(0, 4711, now).unwrap();
    for name in NAMES {
        let id = zone.publish(&say(name, &[b"after"]), now).unwrap().id;
        assert!(id > highest[name], "{what}: {id} after {}", highest[name]);
        let wish = Subscription { hold: Some(slot), ..ask(name, Position::Newest) };
        zone.subscribe(&wish, now).unwrap();
        zone.delete(name, now).unwrap();
    }
    zone.part(slot);
    now.mono += 1000;
    zone.sweep(now, |_| false);
    now.mono += 60_000;
    for _ in 0..3 {
        zone.sweep(now, |_| false);
    }
    assert_eq!(zone.check(), Ok(()), "{what}");
    // Nothing is left but the slots.
    let slots = slot_blocks(&zone);
    assert_eq!((zone.usage().used_blocks, zone.usage().channels), (slots, 0), "{what}");
}

fn before_and_after(case: &Case) -> (Logs, Logs, Vec<Vec<u64>>) {
    let mut world = case.world.clone();
    let before = world.with(|zone, _| logs(zone));
    let (after, tape) = world.with(|zone, now| {
        zone.tape = Some(vec![zone.image()]);
        (case.act)(zone, case.slot, now);
        zone.record_tape();
        (logs(zone), zone.tape.take().unwrap())
    });
    (before, after, tape)
}

/// Runs an operation that dies; false if it came to its end.
fn dies(case: &Case, memory: &mut [u64], arm: impl FnOnce(&mut Zone<'_>)) -> bool {
    let now = case.world.now;
    let run = || {
        let mut zone = Zone::enter(memory, now).unwrap();
        arm(&mut zone);
        (case.act)(&mut zone, case.slot, now);
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(()) => false,
        Err(cause) => {
            assert!(cause.is::<Death>(), "{} has failed", case.name);
            true
        }
    }
}

#[test]
fn death_at_every_commit_point() {
    for case in cases() {
        let (before, after, tape) = before_and_after(&case);
        let mut deaths = 0;
        loop {
            let mut memory = case.world.memory.clone();
            if !dies(&case, &mut memory, |zone| zone.fuse = Some(deaths)) {
                break;
            }
            verify(&case, &mut memory, &before, &after, &format!("commit {deaths}"));
            deaths += 1;
        }
        assert_eq!(deaths as usize, tape.len() - 2, "{}", case.name);
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn death_at_every_write() {
    for case in cases() {
        let (before, after, _) = before_and_after(&case);
        for writes in 0.. {
            let mut memory = case.world.memory.clone();
            if !dies(&case, &mut memory, |zone| zone.write_fuse = Some(writes)) {
                break;
            }
            verify(&case, &mut memory, &before, &after, &format!("write {writes}"));
        }
    }
}

/// xorshift: the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// The memory between two commit points: of what was written in between, some has been done, in no particular order.
fn between(from: &[u64], to: &[u64], random: &mut Random) -> Vec<u64> {
    let mut memory = from.to_vec();
    let halves: &mut [u32] = bytemuck::cast_slice_mut(&mut memory);
    let later: &[u32] = bytemuck::cast_slice(to);
    let odds = random.next() % 7 + 1;
    for (half, later) in halves.iter_mut().zip(later) {
        if *half != *later && random.next() % 8 < odds {
            *half = *later;
        }
    }
    memory
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn death_at_any_moment_with_writes_in_any_order() {
    let mut random = Random(88_172_645_463_325_252);
    for case in cases() {
        let (before, after, tape) = before_and_after(&case);
        for (place, pair) in tape.windows(2).enumerate() {
            for _ in 0..24 {
                let mut memory = between(&pair[0], &pair[1], &mut random);
                verify(&case, &mut memory, &before, &after, &format!("after commit {place}"));
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn what_is_missed_is_not_overstated_after_a_death() {
    let mut random = Random(3_141_592_653_589_793);
    let mut world = World::new(128);
    let mut ids = Vec::new();
    for second in 0..40 {
        let publication = Publication { max_messages: 2, ..say(b"c", &[b"x"]) };
        let tape = world.with(|zone, now| {
            zone.tape = Some(vec![zone.image()]);
            ids.push(zone.publish(&publication, now).unwrap().id);
            zone.record_tape();
            zone.tape.take().unwrap()
        });
        for pair in tape.windows(2) {
            for _ in 0..8 {
                let mut memory = between(&pair[0], &pair[1], &mut random);
                let mut zone = Zone::enter(&mut memory, world.now).unwrap();
                for (place, id) in ids.iter().enumerate() {
                    let wish = ask(b"c", Position::After(*id));
                    let Ok(Subscribed::Message(next)) = zone.subscribe(&wish, world.now) else {
                        continue;
                    };
                    let truth = next.cursor.seq - (place as u64 + 1) - 1;
                    let Missed { count, at_least } = next.missed;
                    assert!(count <= truth, "{second} {place}: {:?} {truth}", next.missed);
                    assert!(at_least || count == truth, "{place}: {:?} {truth}", next.missed);
                }
            }
        }
        if second % 3 > 0 {
            world.pass(1000);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn after_a_death_between_two_halves_of_an_id_nothing_is_said_to_be_missed() {
    let mut random = Random(1_414_213_562_373_095);
    let mut world = World::new(128);
    for _ in 0..6 {
        world.publish(say(b"c", &[b"x"]));
    }
    world.pass(1000);
    let (id, tape) = world.with(|zone, now| {
        zone.tape = Some(vec![zone.image()]);
        let id = zone.publish(&say(b"c", &[b"first of its second"]), now).unwrap().id;
        zone.record_tape();
        (id, zone.tape.take().unwrap())
    });
    for pair in tape.windows(2) {
        for _ in 0..24 {
            let mut memory = between(&pair[0], &pair[1], &mut random);
            let mut zone = Zone::enter(&mut memory, world.now).unwrap();
            zone.publish(&say(b"c", &[b"later"]), world.now).unwrap();
            assert_eq!(zone.check(), Ok(()));
            match zone.subscribe(&ask(b"c", Position::After(id)), world.now).unwrap() {
                Subscribed::Message(next) => assert!(next.missed.is_none(), "{:?}", next.missed),
                // The first one died with who published it, and the later one has its id.
                Subscribed::Waiting { .. } => assert_eq!(zone.seqs_of(b"c").len(), 7),
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn death_in_the_middle_of_a_recovery() {
    let mut random = Random(2_718_281_828_459_045);
    for case in cases() {
        let (before, after, tape) = before_and_after(&case);
        // What a recovery writes, in pieces.
        let mut whole = tape[tape.len() / 2].clone();
        let mut zone = Zone::over(Parts::attach(&mut whole).unwrap());
        zone.tape = Some(vec![zone.image()]);
        zone.recover(case.world.now);
        zone.header.counters.recovered = 0;
        zone.record_tape();
        for pair in zone.tape.take().unwrap().windows(2) {
            for _ in 0..24 {
                let mut memory = between(&pair[0], &pair[1], &mut random);
                verify(&case, &mut memory, &before, &after, "recovery");
            }
        }
    }
}

#[test]
fn death_of_either_zone_while_messages_are_carried() {
    let (world, slot) = prepared(128);
    let case = Case { name: "carry", world, slot, act: |_, _, _| (), kills_foreign: false };
    let (before, ..) = before_and_after(&case);
    let mut done = false;
    for writes in (0..).step_by(3) {
        let mut old_memory = case.world.memory.clone();
        let mut new_memory = vec![0; words(128)];
        let now = case.world.now;
        let run = |old_fuse, new_fuse| {
            let mut old = Zone::enter(&mut old_memory, now).unwrap();
            let mut new = Zone::format(&mut new_memory, [3, 4], now).unwrap();
            (old.write_fuse, new.write_fuse) = (old_fuse, new_fuse);
            new.carry_from(&mut old, now);
            new.write_fuse = None;
            assert_eq!(logs(&new), before);
        };
        let fuses = if writes % 2 == 0 { (None, Some(writes)) } else { (Some(writes), None) };
        let died = catch_unwind(AssertUnwindSafe(|| {
            let mut run = run;
            run(fuses.0, fuses.1)
        }))
        .is_err();
        if !died && writes % 2 == 0 {
            done = true;
            break;
        }
        // Both were being changed by the process that died: the old one still has everything and is open.
        let mut old = Zone::enter(&mut old_memory, now).unwrap();
        assert_eq!(old.check(), Ok(()));
        assert_eq!(logs(&old), before);
        if died {
            assert!(!old.is_closed());
            old.publish(&say(b"a", &[b"x"]), now).unwrap();
            // A second attempt makes a new zone.
            let mut new = Zone::format(&mut new_memory, [3, 4], now).unwrap();
            new.carry_from(&mut old, now);
            assert_eq!(new.check(), Ok(()));
            assert_eq!(logs(&new), logs(&old));
        }
    }
    assert!(done);
}

#[test]
fn a_dead_worker_s_count_never_becomes_another_s() {
    let mut random = Random(1_618_033_988_749_894);
    let mut world = World::new(128);
    // Two slots of the same generation.
    let (dead, alive) = (world.join(0), world.join(1));
    for _ in 0..5 {
        world.wait(b"c", dead);
    }
    world.with(|zone, _| zone.part(dead));
    let tape = world.with(|zone, now| {
        zone.tape = Some(vec![zone.image()]);
        let wish = Subscription { hold: Some(alive), ..ask(b"c", Position::Newest) };
        zone.subscribe(&wish, now).unwrap();
        zone.record_tape();
        zone.tape.take().unwrap()
    });
    for pair in tape.windows(2) {
        for _ in 0..50 {
            let mut memory = between(&pair[0], &pair[1], &mut random);
            let mut zone = Zone::enter(&mut memory, world.now).unwrap();
            assert!(zone.info(b"c", world.now).unwrap().subscribers <= 1);
        }
    }
}
