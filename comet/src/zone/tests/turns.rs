//! In which order channels give way in a full zone (invariant I10).

use super::*;
use crate::zone::record::BLANK_CLASS;

/// How many channels of one message fill a zone of 128 blocks.
const FULL: usize = 18;

fn name(number: usize) -> Vec<u8> {
    format!("channel {number}").into_bytes()
}

/// Publishes what takes five blocks, into a channel that keeps so many messages, and lets a second pass.
fn tell(world: &mut World, channel: usize, max_messages: u32) {
    world.publish(Publication { max_messages, ..say(&name(channel), &[&[b'x'; 450]]) });
    world.pass(1000);
}

/// Which channels have messages, and how many.
fn counts(world: &mut World, channels: usize) -> Vec<(usize, usize)> {
    world.with(|zone, _| {
        (0..channels)
            .map(|number| (number, zone.seqs_of(&name(number)).len()))
            .filter(|(_, count)| *count > 0)
            .collect()
    })
}

fn evicted(world: &mut World) -> u64 {
    world.with(|zone, _| zone.usage().counters.evicted)
}

/// Fails unless the channels that have messages are all from one on.
fn expect_newest(world: &mut World, channels: usize) {
    let left = counts(world, channels);
    let first = channels - left.len();
    assert!(first > 0 && left.len() > 3, "{left:?}");
    assert_eq!(left, (first..channels).map(|number| (number, 1)).collect::<Vec<_>>());
}

#[test]
fn among_channels_of_one_message_the_oldest_goes_first() {
    let mut world = World::new(128);
    for number in 0..FULL {
        tell(&mut world, number, 1);
    }
    assert_eq!(evicted(&mut world), 0);
    for number in FULL..FULL + 40 {
        tell(&mut world, number, 1);
        expect_newest(&mut world, number + 1);
    }
}

#[test]
fn a_message_that_was_replaced_counts_from_then_on() {
    let mut world = World::new(128);
    for number in 0..FULL - 2 {
        tell(&mut world, number, 1);
    }
    tell(&mut world, 0, 1);
    assert_eq!(evicted(&mut world), 0);
    for number in FULL..FULL + 8 {
        tell(&mut world, number, 1);
    }
    let left = counts(&mut world, FULL + 8);
    assert!(left.contains(&(0, 1)) && !left.contains(&(1, 1)), "{left:?}");
}

#[test]
fn channels_that_hold_as_much_lose_theirs_in_turn() {
    let mut world = World::new(256);
    for round in 0..5 {
        for number in 0..8 {
            tell(&mut world, number, 10);
        }
        assert_eq!(evicted(&mut world), 0, "{round}");
    }
    for number in 8..16 {
        tell(&mut world, number, 10);
    }
    assert!((4..=8).contains(&evicted(&mut world)));
    let left: Vec<usize> = counts(&mut world, 8).iter().map(|(_, count)| *count).collect();
    assert!(left.iter().all(|count| (4..=5).contains(count)), "{left:?}");
}

#[test]
fn a_death_leaves_the_turns_as_they_were() {
    let mut world = World::new(128);
    for number in 0..FULL {
        tell(&mut world, number, 1);
    }
    for number in FULL..FULL + 10 {
        // Whoever enters now finds that the one before has died.
        std::mem::forget(Zone::enter(&mut world.memory, world.now).unwrap());
        tell(&mut world, number, 1);
        expect_newest(&mut world, number + 1);
    }
    assert_eq!(world.with(|zone, _| zone.usage().counters.recovered), 10);
}

#[test]
fn a_smaller_zone_takes_the_newest() {
    let mut old = World::new(256);
    for number in 0..2 * FULL {
        tell(&mut old, number, 1);
    }
    assert_eq!(evicted(&mut old), 0);
    let mut snapshot = Vec::new();
    let now = old.now;
    old.with(|zone, _| zone.save(1, Remaining::Nobody, now, &mut snapshot)).unwrap();
    let mut restored = World::new(128);
    restored.with(|zone, _| {
        zone.restore(&Snapshot::read(&snapshot).unwrap(), now, &mut |_, _| true);
    });
    expect_newest(&mut restored, 2 * FULL);
    let mut carried = World::new(128);
    carried.with(|zone, _| {
        let mut old = Zone::enter(&mut old.memory, now).unwrap();
        zone.carry_from(&mut old, now);
    });
    expect_newest(&mut carried, 2 * FULL);
    // And they go on so.
    for world in [&mut restored, &mut carried] {
        tell(world, 2 * FULL, 1);
        expect_newest(world, 2 * FULL + 1);
    }
}

#[test]
fn channels_whose_messages_have_gone_do_not_crowd_out_those_of_others() {
    let mut world = World::new(256);
    for number in 0..500 {
        world.publish(Publication {
            max_messages: 1,
            channel_timeout: 3600,
            ..say(&name(number), &[&[b'x'; 450]])
        });
    }
    let held = world.with(|zone, _| zone.header.message_blocks);
    assert!((59..128).contains(&held), "messages hold {held} of 256 blocks");
    let left = counts(&mut world, 500);
    assert_eq!(left, (500 - left.len()..500).map(|number| (number, 1)).collect::<Vec<_>>());
    let is_spent = |number: &usize| exists(&mut world, *number);
    assert!((0..500 - left.len()).filter(is_spent).count() > 20);
}

/// Fills a zone with channels of one small message, then publishes to so many others; how many of these have their message.
fn newest_left(blocks: usize, old: usize, len: usize, new: usize) -> usize {
    let mut world = World::new(blocks);
    for number in 0..old {
        world.publish(say(&name(number), &[b"small"]));
    }
    assert!(evicted(&mut world) > 100);
    for number in old..old + new {
        world.publish(say(&name(number), &[&vec![b'x'; len]]));
    }
    counts(&mut world, old + new).iter().filter(|(number, _)| *number >= old).count()
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn what_was_just_published_stays_among_smaller_messages() {
    // As much as an eighth of the zone, which is 128 blocks.
    assert_eq!(newest_left(1024, 500, 5, 60), 60);
    assert_eq!(newest_left(1024, 500, 100, 60), 60);
    assert_eq!(newest_left(1024, 500, 350, 30), 30);
    assert_eq!(newest_left(1024, 500, 1_200, 10), 10);
    // But not for long.
    assert!(newest_left(1024, 500, 350, 200) < 60);
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn the_oldest_goes_first_where_all_that_is_left_is_young() {
    // Channels with subscribers hold nearly all of the zone.
    let mut world = World::new(1024);
    let slot = world.join(0);
    for number in 0..460 {
        world.wait(&name(number), slot);
    }
    let larger = [b'x'; 350];
    for round in 0..100 {
        // One that is larger than the others, and then those that have always been there.
        world.publish(say(&name(459), &[&larger]));
        for number in 0..10 {
            world.publish(say(&name(number + 10 * (round % 5)), &[b"small"]));
            assert!(!world.with(|zone, _| zone.seqs_of(&name(459)).is_empty()), "{round} {number}");
        }
    }
    assert!(evicted(&mut world) > 100);
}

#[test]
fn idle_channels_give_way_in_the_order_of_their_last_use() {
    let mut world = World::new(256);
    spent(&mut world, 0..10);
    // Somebody polls this one without waiting.
    world.pass(1000);
    world.subscribe(ask(&name(0), Position::Newest)).unwrap();
    let mut after_death = world.clone();
    std::mem::forget(Zone::enter(&mut after_death.memory, after_death.now).unwrap());
    let mut snapshot = Vec::new();
    let now = world.now;
    world.with(|zone, _| zone.save(1, Remaining::Nobody, now, &mut snapshot)).unwrap();
    let mut restored = World { now, ..World::new(256) };
    restored.with(|zone, _| {
        zone.restore(&Snapshot::read(&snapshot).unwrap(), now, &mut |_, _| true);
    });
    for (what, world) in [("used", world), ("dead", after_death), ("restored", restored)] {
        let mut world = world;
        for number in 10..19 {
            let name = name(number);
            world.with(|zone, now| {
                zone.limit_channels(10);
                zone.publish(&say(&name, &[b"x"]), now).unwrap();
            });
            let left: Vec<usize> = (0..10).filter(|number| exists(&mut world, *number)).collect();
            let expected: Vec<usize> = [0].into_iter().chain(number - 8..10).collect();
            assert_eq!(left, expected, "{what}");
        }
    }
}

#[test]
fn a_channel_that_grows_takes_nothing_from_small_ones() {
    let mut world = World::new(1024);
    for number in 0..300 {
        world.publish(say(&name(number), &[b"small"]));
    }
    assert_eq!(evicted(&mut world), 0);
    for _ in 0..1000 {
        world.publish(say(b"fat", &[&[b'x'; 350]]));
    }
    assert_eq!(counts(&mut world, 300).len(), 300);
    assert!(world.with(|zone, _| zone.seqs_of(b"fat").len()) > 20);
}

/// Channels that had a message and have none, and are not to be collected soon.
fn spent(world: &mut World, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let name = name(number);
        let short = say(&name, &[b"x"]);
        world.publish(Publication { message_timeout: 1, channel_timeout: 3600, ..short });
        world.pass(2000);
        world.sweep();
    }
}

fn exists(world: &mut World, number: usize) -> bool {
    world.with(|zone, _| zone.find(&name(number)).is_some())
}

#[test]
fn channels_that_never_had_a_message_stand_before_all_that_had_one() {
    let mut world = World::new(256);
    for number in 0..10 {
        world
            .subscribe(Subscription {
                channel_timeout: 3600,
                ..ask(&name(number), Position::Oldest)
            })
            .unwrap();
    }
    spent(&mut world, 10..50);
    tell(&mut world, 50, 1);
    assert!(world.with(|zone, _| zone.channel(&name(0)).class) == BLANK_CLASS);
    let room = world.with(|zone, _| zone.header.free_count);
    let body = vec![b'x'; 40 - 10 + 120 * (room as usize - 2)];
    world.publish(say(&name(51), &[&body]));
    assert_eq!(evicted(&mut world), 0);
    assert!((10..50).all(|number| exists(&mut world, number)));
    assert_eq!((0..10).filter(|number| exists(&mut world, *number)).count(), 9);
    // What was carried, or comes from a snapshot, knows that it had messages.
    let mut snapshot = Vec::new();
    let now = world.now;
    world.with(|zone, _| zone.save(1, Remaining::Nobody, now, &mut snapshot)).unwrap();
    let mut restored = World::new(256);
    restored.with(|zone, _| {
        zone.restore(&Snapshot::read(&snapshot).unwrap(), now, &mut |_, _| true);
    });
    restored.now = now;
    restored.with(|zone, now| zone.publish(&say(&name(52), &[&[b'x'; 800]]), now)).unwrap();
    assert!((10..50).all(|number| exists(&mut restored, number)));
}

#[test]
fn where_channels_are_limited_the_one_that_has_been_idle_for_longest_gives_way() {
    let mut world = World::new(256);
    spent(&mut world, 0..10);
    for number in 10..20 {
        let name = name(number);
        world.with(|zone, now| {
            zone.limit_channels(10);
            zone.publish(&say(&name, &[b"x"]), now).unwrap();
        });
        assert!(!exists(&mut world, number - 10));
        assert!((number - 9..=number).all(|number| exists(&mut world, number)));
    }
}
