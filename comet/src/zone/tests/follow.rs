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
