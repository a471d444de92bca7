//! Ids only grow, whatever the clock and the channel do.

use super::*;

fn id(time: u64, tag: u32) -> MessageId {
    MessageId { time: WALL + time, tag }
}

#[test]
fn tags_count_within_a_second_and_begin_again_in_the_next() {
    let mut world = World::new(64);
    assert_eq!(world.publish(say(b"a", &[b"1"])), id(0, 0));
    assert_eq!(world.publish(say(b"a", &[b"2"])), id(0, 1));
    assert_eq!(world.publish(say(b"b", &[b"1"])), id(0, 0));
    world.pass(1000);
    assert_eq!(world.publish(say(b"a", &[b"3"])), id(1, 0));
}

#[test]
fn a_clock_that_steps_does_not_take_ids_back() {
    let mut world = World::new(64);
    world.now.wall = WALL + 100;
    assert_eq!(world.publish(say(b"a", &[b"1"])), id(100, 0));
    world.now.wall = WALL + 3;
    assert_eq!(world.publish(say(b"a", &[b"2"])), id(100, 1));
    world.now.wall = WALL + 100;
    assert_eq!(world.publish(say(b"a", &[b"3"])), id(100, 2));
    world.now.wall = WALL + 101;
    assert_eq!(world.publish(say(b"a", &[b"4"])), id(101, 0));
    world.now.wall = 0;
    assert_eq!(world.publish(say(b"a", &[b"5"])), id(101, 1));
    // Nor those of other channels.
    assert_eq!(world.publish(say(b"new", &[b"1"])), id(101, 0));
    world.with(|zone, _| assert_eq!(zone.seqs_of(b"a"), [1, 2, 3, 4, 5]));
}

#[test]
fn a_second_with_four_billion_messages_overflows_into_the_next() {
    let mut world = World::new(64);
    world.publish(say(b"a", &[b"1"]));
    world.with(|zone, _| {
        let head = zone.channel_mut(b"a");
        head.last_tag = u32::MAX;
        head.next_seq += u64::from(u32::MAX);
    });
    assert_eq!(world.publish(say(b"a", &[b"2"])), id(1, 0));
}

#[test]
fn a_channel_deleted_and_made_again_in_the_same_second_goes_on() {
    let mut world = World::new(64);
    for round in 0..5 {
        assert_eq!(world.publish(say(b"a", &[b"1"])), id(0, round));
        world.with(|zone, now| zone.delete(b"a", now)).unwrap();
    }
    world.now.wall -= 50;
    assert_eq!(world.publish(say(b"a", &[b"1"])), id(0, 5));
}

#[test]
fn a_deleted_channel_that_is_still_served_does_not_share_ids_with_its_next_life() {
    let mut world = World::new(64);
    let slot = world.join(0);
    let (old, cursor, reign) = world.wait(b"a", slot);
    assert_eq!(world.publish(say(b"a", &[b"1"])), id(0, 0));
    world.with(|zone, now| zone.delete(b"a", now)).unwrap();
    assert_eq!(world.publish(say(b"a", &[b"2"])), id(0, 1));
    world.with(|zone, now| {
        let Answer::Message(next) = zone.next(old, cursor, reign, now) else { panic!() };
        assert_eq!(zone.copy(&next).id, id(0, 0));
        assert_eq!(zone.next(old, next.cursor, reign, now), Answer::Gone);
        zone.leave(old, slot, 1, now);
        assert_eq!(zone.next(old, next.cursor, reign, now), Answer::Gone);
        assert_eq!(zone.usage().channels, 1);
    });
}

#[test]
fn a_collected_channel_goes_on() {
    let mut world = World::new(64);
    world.now.wall = WALL + 1000;
    world.publish(Publication { message_timeout: 1000, ..say(b"a", &[b"1"]) });
    for _ in 0..20 {
        world.pass(1000);
        world.sweep();
    }
    world.with(|zone, _| assert!(zone.find(b"a").is_none()));
    world.now.wall = WALL;
    assert_eq!(world.publish(say(b"a", &[b"2"])), id(1000, 1));
}

#[test]
fn more_channels_than_are_remembered_die_in_one_second() {
    let mut world = World::new(512);
    let names: Vec<String> = (0..70).map(|number| format!("channel {number}")).collect();
    let mut last = Vec::new();
    for (round, name) in names.iter().enumerate() {
        for _ in 0..=round % 3 {
            world.publish(say(name.as_bytes(), &[b"x"]));
        }
        last.push(world.publish(say(name.as_bytes(), &[b"x"])));
    }
    for name in &names {
        world.with(|zone, now| zone.delete(name.as_bytes(), now)).unwrap();
    }
    for (name, last) in names.iter().zip(last) {
        assert!(world.publish(say(name.as_bytes(), &[b"y"])) > last);
    }
    // In the next second nobody has to pay for that.
    world.pass(1000);
    assert_eq!(world.publish(say(b"never seen", &[b"1"])), id(1, 0));
    assert_eq!(world.publish(say(names[3].as_bytes(), &[b"1"])), id(1, 0));
}

#[test]
fn a_new_channel_begins_with_tag_0_while_others_come_and_go() {
    let mut world = World::new(128);
    for round in 0..200 {
        let name = format!("channel {round}");
        assert_eq!(world.publish(say(name.as_bytes(), &[b"1"])).tag, 0, "{name}");
        world.with(|zone, now| zone.delete(name.as_bytes(), now)).unwrap();
        world.pass(1000);
    }
}
