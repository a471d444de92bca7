//! Subscribers that stay.

use super::*;

fn follow(world: &mut World, slot: SlotRef, position: Position) -> Followed {
    let wish = Subscription { hold: Some(slot), ..ask(b"c", position) };
    world.with(|zone, now| zone.follow(&wish, now)).unwrap()
}

/// The sequence number of what comes next, and what was missed before it.
fn next(world: &mut World, place: &Followed) -> Option<(u64, Missed)> {
    let Followed { channel, cursor, reign, .. } = *place;
    world.with(|zone, now| match zone.next(channel, cursor, reign, now) {
        Answer::Message(next) => Some((next.cursor.seq, next.missed)),
        _ => None,
    })
}

#[test]
fn who_stays_begins_just_before_its_first_message_and_is_counted() {
    let mut world = World::new(64);
    let slot = world.join(0);
    let ids: Vec<_> = (0..3).map(|_| world.publish(say(b"c", &[b"x"]))).collect();
    for (position, first) in [
        (Position::Oldest, Some(1)),
        (Position::After(ids[0]), Some(2)),
        (Position::After(ids[2]), None),
        (Position::Newest, None),
    ] {
        let place = follow(&mut world, slot, position);
        assert_eq!(place.missed, Missed::default());
        assert_eq!(next(&mut world, &place), first.map(|seq| (seq, Missed::default())));
    }
    let info = world.with(|zone, now| zone.info(b"c", now)).unwrap();
    assert_eq!(info.subscribers, 4);
}

#[test]
fn what_was_missed_before_the_first_message_is_told_once() {
    let mut world = World::new(64);
    let slot = world.join(0);
    let ids: Vec<_> = (0..5)
        .map(|_| world.publish(Publication { max_messages: 2, ..say(b"c", &[b"x"]) }))
        .collect();
    let place = follow(&mut world, slot, Position::After(ids[0]));
    assert_eq!(place.missed, Missed { count: 2, at_least: false });
    assert_eq!(next(&mut world, &place), Some((4, Missed::default())));
}

#[test]
fn what_is_gone_can_be_told_although_nothing_has_come_after_it() {
    let mut world = World::new(64);
    let slot = world.join(0);
    let brief = || Publication { message_timeout: 1000, ..say(b"c", &[b"x"]) };
    let seen = world.publish(brief());
    world.publish(brief());
    let last = world.publish(brief());
    world.pass(2000);
    let place = follow(&mut world, slot, Position::After(seen));
    assert_eq!((place.missed, next(&mut world, &place)), (Missed::default(), None));
    let told = world.with(|zone, now| zone.past_gap(&place, now));
    assert_eq!((told.missed, told.id), (Missed { count: 2, at_least: false }, last));
    // Who has been told is not told again; who could not be is told with the next message.
    assert_eq!(world.with(|zone, now| zone.past_gap(&told, now)), told);
    world.publish(say(b"c", &[b"y"]));
    assert_eq!(next(&mut world, &told), Some((4, Missed::default())));
    assert_eq!(next(&mut world, &place), Some((4, Missed { count: 2, at_least: false })));
    // Where there is a message, what was missed before it is all that there is to tell.
    let place = follow(&mut world, slot, Position::After(seen));
    assert_eq!(place.missed, Missed { count: 2, at_least: false });
    assert_eq!(world.with(|zone, now| zone.past_gap(&place, now)), place);
}

#[test]
fn past_a_second_something_may_have_been_missed() {
    let mut world = World::new(64);
    let slot = world.join(0);
    let first = world.publish(say(b"c", &[b"x"]));
    world.publish(say(b"c", &[b"y"]));
    let vague = Missed { count: 0, at_least: true };
    let place = follow(&mut world, slot, Position::Past(first.time));
    assert_eq!((place.missed, next(&mut world, &place)), (vague, None));
    let wish = ask(b"c", Position::Past(first.time));
    match world.with(|zone, now| zone.subscribe(&wish, now)).unwrap() {
        Subscribed::Waiting { is_vague, cursor, .. } => {
            assert_eq!((is_vague, cursor.seq), (true, 2))
        }
        other => panic!("{other:?}"),
    }
    world.now.wall += 1;
    world.publish(say(b"c", &[b"z"]));
    assert_eq!(next(&mut world, &place), Some((3, Missed::default())));
    let place = follow(&mut world, slot, Position::Past(first.time));
    assert_eq!((place.missed, next(&mut world, &place)), (vague, Some((3, Missed::default()))));
    match world.with(|zone, now| zone.subscribe(&wish, now)).unwrap() {
        Subscribed::Message(next) => assert_eq!((next.cursor.seq, next.missed), (3, vague)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn transient_messages_are_not_for_those_who_come_later() {
    let mut world = World::new(64);
    let slot = world.join(0);
    world.publish(Publication { max_messages: 0, ..say(b"c", &[b"x"]) });
    let place = follow(&mut world, slot, Position::Oldest);
    assert_eq!(next(&mut world, &place), None);
    world.publish(Publication { max_messages: 0, ..say(b"c", &[b"y"]) });
    assert_eq!(next(&mut world, &place), Some((2, Missed::default())));
}

#[test]
fn who_stays_is_refused_as_one_that_waits() {
    let mut world = World::new(64);
    let slot = world.join(0);
    world.publish(say(b"c", &[b"x"]));
    follow(&mut world, slot, Position::Oldest);
    let wish = Subscription { hold: Some(slot), ..ask(b"c", Position::Oldest) };
    let crowded = Subscription { max_subscribers: 1, ..wish };
    let second = Subscription { concurrency: Concurrency::First, ..wish };
    let unknown = Subscription { id: b"new", authorized_only: true, ..wish };
    world.with(|zone, now| {
        assert_eq!(zone.follow(&crowded, now), Err(Refusal::TooManySubscribers));
        assert_eq!(zone.follow(&second, now), Err(Refusal::Conflict));
        assert_eq!(zone.follow(&unknown, now), Err(Refusal::NotAuthorized));
    });
}

#[test]
fn events_have_names() {
    let mut world = World::new(256);
    for event in [&b"e"[..], &[b'e'; 39], &[b'e'; 300]] {
        for content_type in [&b""[..], b"text/plain", &[b't'; 200]] {
            let pieces: [&[u8]; 2] = [b"bo", b"dy"];
            let publication =
                Publication { event, content_type, max_messages: 1, ..say(b"c", &pieces) };
            world.publish(publication);
            let log = world.with(|zone, _| zone.log_of(b"c"));
            assert_eq!(log.len(), 1);
            assert_eq!((&*log[0].event, &*log[0].content_type), (event, content_type));
            assert_eq!(bytes(&log[0]), b"body");
        }
    }
    world.publish(say(b"c", &[b"no name"]));
    let log = world.with(|zone, _| zone.log_of(b"c"));
    assert_eq!(&*log.last().unwrap().event, b"");
    let long = vec![b'e'; 65_535];
    let publication = Publication { event: &long, ..say(b"c", &[b"x"]) };
    assert!(world.with(|zone, now| zone.publish(&publication, now)).is_err());
}

/// Where a subscriber for what is new stands when it has waited in vain.
fn stands(world: &mut World, (channel, cursor): (ChannelRef, Cursor)) -> (MessageId, Missed) {
    world.with(|zone, now| zone.place_of(channel, cursor, now)).unwrap()
}

#[test]
fn who_has_waited_in_vain_goes_on_where_it_began() {
    let mut world = World::new(64);
    let slot = world.join(0);
    // In a channel that has never had a message, and in one that has.
    for last in [None, Some(())] {
        let last = last.map(|()| world.publish(say(b"c", &[b"old"])));
        let (channel, cursor, _) = world.wait(b"c", slot);
        let (id, missed) = stands(&mut world, (channel, cursor));
        assert_eq!(missed, Missed::default());
        assert!(last.is_none_or(|last| last == id), "{last:?} {id:?}");
        assert_eq!(world.with(|zone, _| zone.newest(b"c")), id);
        world.with(|zone, now| zone.leave(channel, slot, 1, now));
        world.publish(say(b"c", &[b"new"]));
        let (message, missed) = world.read(b"c", Position::After(id)).unwrap();
        assert_eq!((bytes(&message), missed), (&b"new"[..], Missed::default()));
    }
}

#[test]
fn a_message_that_comes_with_the_end_of_a_wait_is_not_passed_over() {
    let mut world = World::new(64);
    let slot = world.join(0);
    let (channel, cursor, _) = world.wait(b"c", slot);
    for number in 1..=3 {
        world.publish(Publication { max_messages: 2, ..say(b"c", &[b"x"]) });
        let (id, missed) = stands(&mut world, (channel, cursor));
        assert_eq!(missed, Missed { count: number.max(2) - 2, at_least: false });
        let (message, missed) = world.read(b"c", Position::After(id)).unwrap();
        assert_eq!((message.cursor.seq, missed), (number.max(2) - 1, Missed::default()));
    }
}

#[test]
fn messages_that_came_and_went_while_somebody_waited_are_told_with_its_place() {
    let mut world = World::new(64);
    let slot = world.join(0);
    let (channel, cursor, _) = world.wait(b"c", slot);
    for _ in 0..2 {
        world.publish(Publication { message_timeout: 1000, ..say(b"c", &[b"x"]) });
    }
    world.pass(2000);
    let (id, missed) = stands(&mut world, (channel, cursor));
    assert_eq!(missed, Missed { count: 2, at_least: false });
    world.publish(say(b"c", &[b"y"]));
    assert_eq!(world.read(b"c", Position::After(id)).unwrap().1, Missed::default());
}

#[test]
fn in_a_channel_that_was_deleted_nobody_stands() {
    let mut world = World::new(64);
    let slot = world.join(0);
    let (channel, cursor, _) = world.wait(b"c", slot);
    let newest = world.publish(say(b"c", &[b"x"]));
    world.with(|zone, now| zone.delete(b"c", now));
    // What was published before that is still for it.
    assert_eq!(stands(&mut world, (channel, cursor)).1, Missed::default());
    world.with(|zone, now| zone.leave(channel, slot, 1, now));
    assert_eq!(world.with(|zone, now| zone.place_of(channel, cursor, now)), None);
    assert_eq!(world.with(|zone, _| zone.newest(b"c")), newest);
}
