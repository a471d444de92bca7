//! Hints: to whom they go, and what becomes of those of workers that have died.

use super::*;
use crate::zone::record::BLANK_CLASS;

fn mail(world: &mut World, slot: SlotRef) -> Mail {
    world.with(|zone, _| zone.take_mail(slot))
}

fn wake(world: &mut World, publication: Publication<'_>) -> Vec<u32> {
    world.with(|zone, now| {
        zone.publish(&publication, now).unwrap();
        zone.take_wake()
    })
}

fn waiting(world: &mut World, id: &[u8]) -> u64 {
    world.with(|zone, now| zone.info(id, now)).unwrap().subscribers
}

#[test]
fn only_workers_with_subscribers_of_the_channel_get_a_hint() {
    let mut world = World::new(128);
    let (a, b) = (world.join(3), world.join(7));
    let (channel, ..) = world.wait(b"c", a);
    assert_eq!(wake(&mut world, say(b"other", &[b"x"])), Vec::<u32>::new());
    assert_eq!(wake(&mut world, say(b"c", &[b"x"])), [3]);
    assert_eq!(mail(&mut world, b), Mail::default());
    assert_eq!(mail(&mut world, a), Mail { moved: vec![channel.life], look_at_all: false });
    assert_eq!(mail(&mut world, a), Mail::default());
    world.with(|zone, now| zone.leave(channel, a, 1, now));
    assert_eq!(wake(&mut world, say(b"c", &[b"x"])), Vec::<u32>::new());
}

#[test]
fn a_worker_that_has_been_told_is_not_told_again_until_it_looks() {
    let mut world = World::new(128);
    let slot = world.join(0);
    let (c, ..) = world.wait(b"c", slot);
    let (d, ..) = world.wait(b"d", slot);
    assert_eq!(wake(&mut world, say(b"c", &[b"x"])), [0]);
    assert_eq!(wake(&mut world, say(b"c", &[b"x"])), Vec::<u32>::new());
    // It is awake: one more channel is one more hint, but no wake-up.
    assert_eq!(wake(&mut world, say(b"d", &[b"x"])), Vec::<u32>::new());
    assert_eq!(mail(&mut world, slot).moved, [c.life, d.life]);
    // Mail taken, but not looked at: who comes now has to know.
    world.with(|zone, _| assert!(zone.is_told(c, slot) && zone.is_told(d, slot)));
    assert_eq!(wake(&mut world, say(b"c", &[b"x"])), Vec::<u32>::new());
    assert!(mail(&mut world, slot).moved.is_empty());
    world.with(|zone, _| zone.look(c, slot));
    world.with(|zone, _| assert!(!zone.is_told(c, slot) && zone.is_told(d, slot)));
    assert_eq!(wake(&mut world, say(b"c", &[b"x"])), [0]);
    assert_eq!(mail(&mut world, slot).moved, [c.life]);
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn too_many_hints_say_look_at_all() {
    let mut world = World::new(1024);
    let slot = world.join(0);
    let names: Vec<String> = (0..70).map(|number| number.to_string()).collect();
    let channels: Vec<_> = names.iter().map(|name| world.wait(name.as_bytes(), slot).0).collect();
    for (count, name) in names.iter().enumerate() {
        let woken = wake(&mut world, say(name.as_bytes(), &[b"x"]));
        assert_eq!(woken.len(), usize::from(count == 0));
    }
    let got = mail(&mut world, slot);
    assert!(got.look_at_all);
    assert_eq!(got.moved, channels[..60].iter().map(|channel| channel.life).collect::<Vec<_>>());
    channels.iter().for_each(|channel| world.with(|zone, _| zone.look(*channel, slot)));
    for name in &names[..60] {
        wake(&mut world, say(name.as_bytes(), &[b"x"]));
    }
    assert!(!mail(&mut world, slot).look_at_all);
}

#[test]
fn a_hint_for_a_channel_that_is_gone_is_not_given_out() {
    let mut world = World::new(128);
    let slot = world.join(0);
    let (c, ..) = world.wait(b"c", slot);
    wake(&mut world, say(b"c", &[b"x"]));
    world.with(|zone, now| {
        zone.delete(b"c", now);
        zone.leave(c, slot, 1, now);
    });
    world.wait(b"d", slot);
    assert_eq!(mail(&mut world, slot), Mail::default());
}

#[test]
fn a_dead_worker_s_subscribers_count_no_more() {
    let mut world = World::new(128);
    let (dead, alive) = (world.join(0), world.join(1));
    world.wait(b"c", dead);
    world.wait(b"c", dead);
    let (c, ..) = world.wait(b"c", alive);
    assert_eq!(waiting(&mut world, b"c"), 3);
    world.with(|zone, now| zone.sweep(now, |pid| pid != 1000));
    assert_eq!(waiting(&mut world, b"c"), 1);
    assert_eq!(wake(&mut world, say(b"c", &[b"x"])), [1]);
    // What the dead one still says is not heard.
    assert!(mail(&mut world, dead).look_at_all);
    world.with(|zone, now| {
        zone.leave(c, dead, 9, now);
        zone.part(dead);
    });
    assert_eq!(waiting(&mut world, b"c"), 1);
    let again = world.join(0);
    assert_ne!(again, dead);
    assert_eq!(waiting(&mut world, b"c"), 1);
    world.with(|zone, _| zone.part(dead));
    world.wait(b"c", again);
    assert_eq!(waiting(&mut world, b"c"), 2);
    world.with(|zone, _| zone.part(again));
    assert_eq!(waiting(&mut world, b"c"), 1);
}

#[test]
fn what_workers_had_for_hints_gives_way_when_they_have_gone() {
    let mut world = World::new(64);
    // As many as reloads one after the other leave; the channel's subscriber is with the last one.
    let slots: Vec<_> = (0..11).map(|index| world.join(index)).collect();
    let (last, gone) = slots.split_last().unwrap();
    let (channel, ..) = world.wait(b"c", *last);
    let large = vec![b'x'; 40 + 120 * 19];
    let pieces: [&[u8]; 1] = [&large];
    let publication = say(b"c", &pieces);
    assert!(world.with(|zone, now| zone.publish(&publication, now)).is_err());
    gone.iter().for_each(|slot| world.with(|zone, _| zone.part(*slot)));
    assert_eq!(wake(&mut world, publication), [10]);
    assert_eq!(mail(&mut world, *last).moved, [channel.life]);
    world.with(|zone, _| assert!((13..=51).contains(&slot_blocks(zone))));
    // Who takes such a slot has hints again.
    world.with(|zone, now| zone.leave(channel, *last, 1, now));
    for index in 0..4 {
        let slot = world.join(index);
        let (channel, ..) = world.wait(b"c", slot);
        assert_eq!(wake(&mut world, say(b"c", &[b"y"])), [index]);
        assert_eq!(mail(&mut world, slot), Mail { moved: vec![channel.life], look_at_all: false });
        world.with(|zone, now| zone.leave(channel, slot, 1, now));
    }
}

#[test]
fn who_comes_has_hints_before_those_that_have_gone() {
    let mut world = World::new(64);
    let gone: Vec<_> = (0..4).map(|index| world.join(index)).collect();
    let other = world.join(10);
    gone.iter().for_each(|slot| world.with(|zone, _| zone.part(*slot)));
    // Channels with subscribers fill the rest, and messages have nothing.
    let names: Vec<String> = (0..18).map(|number| number.to_string()).collect();
    for name in &names {
        world.wait(name.as_bytes(), other);
    }
    let slot = world.join(20);
    let (channel, ..) = world.wait(b"0", slot);
    wake(&mut world, say(b"0", &[b"x"]));
    assert_eq!(mail(&mut world, slot), Mail { moved: vec![channel.life], look_at_all: false });
}

#[test]
fn a_worker_for_whose_hints_there_is_no_room_looks_at_everything() {
    let mut world = World::new(64);
    let gone = world.join(0);
    let slot = world.with(|zone, now| {
        zone.part(gone);
        assert!(zone.take_mailbox_back() && !zone.take_mailbox_back());
        zone.scarcity = Some(Scarcity { requests: 0, refused: 0..u32::MAX });
        let slot = zone.join(0, 77, now).unwrap();
        zone.scarcity = None;
        slot
    });
    let (channel, ..) = world.wait(b"c", slot);
    for _ in 0..2 {
        assert_eq!(wake(&mut world, say(b"c", &[b"x"])), [0]);
        assert_eq!(mail(&mut world, slot), Mail { moved: vec![], look_at_all: true });
        world.with(|zone, _| zone.look(channel, slot));
    }
}

#[test]
fn channels_of_the_dead_become_idle_though_workers_go_on_dying() {
    // More buckets than a sweep looks into.
    let mut world = World::new(16_384);
    let slot = world.join(0);
    let names: Vec<Vec<u8>> = (0..200).map(|n| format!("channel {n}").into_bytes()).collect();
    for name in &names {
        world.wait(name, slot);
    }
    for _ in 0..4 {
        // It takes the place of one that has died.
        world.join(0);
        world.sweep();
    }
    world.with(|zone, _| {
        assert!(names.iter().all(|name| zone.channel(name).class == BLANK_CLASS));
    });
}

#[test]
fn a_slot_taken_over_does_not_inherit_subscribers_or_mail() {
    let mut world = World::new(128);
    let old = world.join(0);
    let (c, ..) = world.wait(b"c", old);
    wake(&mut world, say(b"c", &[b"x"]));
    let new = world.join(0);
    assert_eq!(mail(&mut world, new), Mail::default());
    assert_eq!(waiting(&mut world, b"c"), 0);
    world.with(|zone, now| zone.delete(b"c", now));
    assert_eq!(
        world.with(|zone, now| zone.next(c, Cursor { life: c.life, seq: 0 }, 0, now)),
        Answer::Gone
    );
}

#[test]
fn the_channels_of_dead_workers_are_collected_in_the_end() {
    let mut world = World::new(256);
    let empty = world.used();
    let slots: Vec<_> = (0..3).map(|index| world.join(index)).collect();
    let with_slots = world.used();
    for number in 0..10 {
        world.wait(number.to_string().as_bytes(), slots[number % 3]);
    }
    world.with(|zone, now| zone.delete(b"4", now));
    assert_eq!(world.with(|zone, _| zone.usage().channels), 10);
    world.with(|zone, now| zone.sweep(now, |_| false));
    for _ in 0..10 {
        world.pass(1000);
        world.sweep();
    }
    assert_eq!(world.with(|zone, _| zone.usage().channels), 0);
    assert_eq!(world.used(), with_slots);
    assert!(with_slots > empty);
}

#[test]
fn one_channel_is_waited_for_by_many_workers() {
    let mut world = World::new(512);
    let slots: Vec<_> = (0..40).map(|index| world.join(index)).collect();
    for slot in &slots {
        world.wait(b"c", *slot);
        world.wait(b"c", *slot);
    }
    assert_eq!(waiting(&mut world, b"c"), 80);
    let mut woken = wake(&mut world, say(b"c", &[b"x"]));
    woken.sort_unstable();
    assert_eq!(woken, (0..40).collect::<Vec<_>>());
    // The places of workers that are gone are used again.
    let used = world.used();
    for slot in &slots {
        world.with(|zone, _| zone.part(*slot));
    }
    let slots: Vec<_> = (0..40).map(|index| world.join(index)).collect();
    for slot in &slots {
        world.wait(b"c", *slot);
    }
    assert_eq!((world.used(), waiting(&mut world, b"c")), (used, 40));
}

#[test]
fn after_a_recovery_every_worker_looks_at_all() {
    let mut world = World::new(128);
    let (a, b) = (world.join(0), world.join(1));
    let gone = world.join(2);
    world.with(|zone, _| zone.part(gone));
    let (c, ..) = world.wait(b"c", a);
    wake(&mut world, say(b"c", &[b"x"]));
    let zone = Zone::enter(&mut world.memory, world.now).unwrap();
    zone.header.dirty = 1;
    std::mem::forget(zone);
    let mut woken = world.with(|zone, _| zone.take_wake());
    woken.sort_unstable();
    assert_eq!(woken, [0, 1]);
    for slot in [a, b] {
        assert_eq!(mail(&mut world, slot), Mail { moved: vec![], look_at_all: true });
        assert_eq!(mail(&mut world, slot), Mail::default());
    }
    // The hint that was under way is forgotten: the next one is posted.
    wake(&mut world, say(b"c", &[b"x"]));
    assert_eq!(mail(&mut world, a).moved, [c.life]);
    assert_eq!(world.with(|zone, _| zone.usage().counters.recovered), 1);
}

#[test]
fn concurrency_last_sends_those_before_away_and_first_refuses_those_after() {
    let mut world = World::new(128);
    let (a, b) = (world.join(0), world.join(1));
    let wish = |slot, concurrency| Subscription {
        hold: Some(slot),
        concurrency,
        ..ask(b"c", Position::Newest)
    };
    let first = world.subscribe(wish(a, Concurrency::Last)).unwrap();
    let Subscribed::Waiting { channel, cursor, reign, .. } = first else { panic!() };
    let second = world.subscribe(wish(b, Concurrency::Last)).unwrap();
    let Subscribed::Waiting { reign: later, .. } = second else { panic!() };
    world.with(|zone, now| {
        assert_eq!(zone.next(channel, cursor, reign, now), Answer::Conflict);
        assert_eq!(zone.next(channel, cursor, later, now), Answer::UpToDate);
    });
    assert_eq!(mail(&mut world, a).moved, [channel.life]);
    let refused = world.subscribe(wish(a, Concurrency::First));
    assert_eq!(refused, Err(Refusal::Conflict));
    // A message that was there before the conflict is still delivered.
    world.publish(say(b"c", &[b"x"]));
    let answer = world.with(|zone, now| zone.next(channel, cursor, reign, now));
    assert!(matches!(answer, Answer::Message(_)));
}

#[test]
fn a_received_message_waits_for_the_other_workers() {
    let mut world = World::new(128);
    let (a, b) = (world.join(0), world.join(1));
    let (c, cursor, reign) = world.wait(b"c", a);
    world.wait(b"c", b);
    let publication = Publication { delete_when_received: true, ..say(b"c", &[b"x"]) };
    world.publish(publication);
    let seqs = |world: &mut World| world.with(|zone, _| zone.seqs_of(b"c"));
    let cursor = world.with(|zone, now| {
        zone.look(c, a);
        let Answer::Message(next) = zone.next(c, cursor, reign, now) else { panic!() };
        zone.received(c, next.cursor, a, now);
        next.cursor
    });
    assert_eq!(seqs(&mut world), [1]);
    // The other one looks, a slice of its subscribers after the other.
    world.with(|zone, now| {
        zone.look(c, b);
        zone.is_looking(c, b, true);
        zone.received(c, cursor, a, now);
    });
    assert_eq!(seqs(&mut world), [1]);
    world.with(|zone, now| {
        zone.look(c, b);
        zone.is_looking(c, b, false);
        zone.received(c, cursor, b, now);
    });
    assert!(seqs(&mut world).is_empty());
    // The minimum stays, and so do newer ones.
    for _ in 0..3 {
        world.publish(Publication { min_messages: 2, ..publication });
    }
    world.with(|zone, now| {
        zone.look(c, a);
        zone.look(c, b);
        zone.received(c, Cursor { seq: 3, ..cursor }, a, now);
        assert_eq!(zone.seqs_of(b"c"), [2, 3, 4]);
        zone.received(c, Cursor { seq: 2, ..cursor }, a, now);
        zone.received(c, Cursor { seq: 3, ..cursor }, a, now);
    });
    assert_eq!(seqs(&mut world), [3, 4]);
}
