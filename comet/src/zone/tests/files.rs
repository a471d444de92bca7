//! Content: what goes in comes out, files are given back once, and what is too long is refused.

use std::collections::BTreeSet;

use super::*;

const PATH: &[u8] = b"/var/lib/nginx/push/0000000001";

fn in_file(id: &[u8]) -> Publication<'_> {
    Publication { content: Content::File { path: PATH, len: 1 << 33 }, ..say(id, &[]) }
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn content_of_every_length_comes_back() {
    let mut world = World::new(1024);
    let source: Vec<u8> = (0..2000u32).map(|number| (number * 7 % 251) as u8).collect();
    for len in (0..300).chain([399, 400, 401, 1000, 1999]) {
        for type_len in [0, 1, 10, 39, 40, 41, 160, 161, 200] {
            let body = &source[..len];
            let (one, two) = body.split_at(len / 3);
            let content_type = &source[5..5 + type_len];
            let pieces = [one, b"", two, b""];
            let publication = Publication { content_type, max_messages: 1, ..say(b"c", &pieces) };
            let mut zone = Zone::enter(&mut world.memory, world.now).unwrap();
            zone.publish(&publication, world.now).unwrap();
            let log = zone.log_of(b"c");
            assert_eq!((log.len(), &*log[0].content_type), (1, content_type));
            assert_eq!(bytes(&log[0]), body);
        }
    }
    world.with(|_, _| ());
}

#[test]
fn a_file_s_path_and_length_come_back() {
    let mut world = World::new(64);
    world.publish(in_file(b"c"));
    let (message, _) = world.read(b"c", Position::Oldest).unwrap();
    assert_eq!(message.body, Body::File { path: PATH.into(), len: 1 << 33 });
    assert_eq!(message.body.len(), 1 << 33);
    assert_eq!(&*message.content_type, b"text/plain");
}

#[test]
fn a_message_whose_file_has_gone_is_missed() {
    for lost in 0..3 {
        let mut world = World::new(64);
        let slot = world.join(0);
        let (channel, cursor, reign) = world.wait(b"c", slot);
        for number in 0..3 {
            match number == lost {
                true => world.publish(in_file(b"c")),
                false => world.publish(say(b"c", &[b"x"])),
            };
        }
        let mut at = cursor;
        let mut told = 0;
        let mut got = 0;
        let trash = world.trash(|zone, now| {
            while let Answer::Message(next) = zone.next(channel, at, reign, now) {
                let size = zone.size_of(&next);
                if size.in_file > 0 {
                    assert_eq!(size, Size { here: PATH.len() as u64, in_file: 1 << 33 });
                    zone.lose(&next, now);
                    continue;
                }
                assert_eq!(size, Size { here: 1, in_file: 0 });
                (told, got, at) = (told + next.missed.count, got + 1, next.cursor);
            }
            assert_eq!(zone.usage().messages, 2);
        });
        assert_eq!((trash, got), (vec![PATH.to_vec()], 2));
        world.publish(say(b"c", &[b"x"]));
        let next = world.with(|zone, now| zone.next(channel, at, reign, now));
        let Answer::Message(next) = next else { panic!("{next:?}") };
        assert_eq!(told + next.missed.count, 1);
    }
}

#[test]
fn a_file_is_given_back_once_whichever_way_its_message_goes() {
    let fresh = || {
        let mut world = World::new(64);
        world.publish(in_file(b"c"));
        world
    };
    let once = vec![PATH.to_vec()];

    let mut world = fresh();
    let trim = Publication { max_messages: 1, ..say(b"c", &[b"x"]) };
    assert_eq!(world.trash(|zone, now| assert!(zone.publish(&trim, now).is_ok())), once);

    let mut world = fresh();
    let large = [b'x'; 128 * 55];
    let pieces = [&large[..]];
    let evict = say(b"other", &pieces);
    assert_eq!(world.trash(|zone, now| assert!(zone.publish(&evict, now).is_ok())), once);

    let mut world = fresh();
    assert_eq!(world.trash(|zone, now| _ = zone.delete(b"c", now)), once);
    assert_eq!(world.trash(|zone, now| _ = zone.delete(b"c", now)), [b""; 0]);

    let mut world = World::new(64);
    world.publish(Publication { message_timeout: 1000, ..in_file(b"c") });
    world.pass(2500);
    assert_eq!(world.trash(|zone, now| zone.sweep(now, |_| true)), once);

    let mut world = World::new(64);
    world.publish(Publication { message_timeout: 1000, ..in_file(b"c") });
    world.pass(1000);
    assert_eq!(world.trash(|zone, now| _ = zone.info(b"c", now)), once);

    let mut world = World::new(64);
    let slot = world.join(0);
    world.publish(Publication { delete_when_received: true, ..in_file(b"c") });
    let (channel, ..) = world.wait(b"c", slot);
    let cursor = Cursor { life: channel.life, seq: 1 };
    assert_eq!(world.trash(|zone, now| zone.received(channel, cursor, slot, now)), once);
    assert_eq!(world.trash(|zone, now| zone.received(channel, cursor, slot, now)), [b""; 0]);

    // A deleted channel's files go when its last subscriber has been told.
    let mut world = fresh();
    let slot = world.join(0);
    let (channel, ..) = world.wait(b"c", slot);
    assert_eq!(world.trash(|zone, now| _ = zone.delete(b"c", now)), [b""; 0]);
    assert_eq!(world.trash(|zone, now| zone.leave(channel, slot, 1, now)), once);
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn every_file_is_visited_also_of_channels_that_are_deleted_meanwhile() {
    let mut world = World::new(40_000);
    let (slot, now) = (world.join(0), world.now);
    let ids: Vec<String> = (0..5000).map(|number| format!("c{number}")).collect();
    // Not by `World`, which verifies the zone after each.
    let mut zone = Zone::enter(&mut world.memory, now).unwrap();
    for id in &ids {
        let path = format!("/spool/{id}");
        let content = Content::File { path: path.as_bytes(), len: 1 };
        zone.publish(&Publication { content, ..say(id.as_bytes(), &[]) }, now).unwrap();
        zone.publish(&say(id.as_bytes(), &[b"not in a file"]), now).unwrap();
    }
    let mut seen = BTreeSet::new();
    let (mut from, mut steps) = (0, 0);
    while let Some(next) = zone.visit_files(from, |path| _ = seen.insert(path.to_vec())) {
        (from, steps) = (next, steps + 1);
        // Somebody waits, so they are still there.
        let id = ids[4999 - steps].as_bytes();
        let wish = Subscription { hold: Some(slot), ..ask(id, Position::Newest) };
        zone.subscribe(&wish, now).unwrap();
        zone.delete(id, now).unwrap();
    }
    assert!(steps > 1, "{steps} steps");
    assert_eq!(seen, ids.iter().map(|id| format!("/spool/{id}").into_bytes()).collect());
}

#[test]
fn a_publisher_that_is_refused_keeps_its_file() {
    let mut world = World::new(64);
    let long = [b'x'; 128 * 80];
    let publication = Publication { content_type: &long, ..in_file(b"c") };
    let trash = world.trash(|zone, now| assert!(zone.publish(&publication, now).is_err()));
    assert_eq!(trash, [b""; 0]);
    assert_eq!(world.used(), 0);
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn ids_of_every_length_are_told_apart() {
    let mut world = World::new(8192);
    for len in [0, 1, 69, 70, 71, 189, 190, 191, 255, 256, 310, 1000, 65_535] {
        let one = vec![b'a'; len];
        let mut two = one.clone();
        world.publish(say(&one, &[b"one"]));
        assert_eq!(world.with(|zone, _| zone.id_of(zone.find(&one).unwrap())), one);
        if let Some(last) = two.last_mut() {
            *last = b'b';
            assert_eq!(world.with(|zone, now| zone.info(&two, now)), None);
            world.publish(say(&two, &[b"two"]));
            let (message, _) = world.read(&two, Position::Oldest).unwrap();
            assert_eq!(bytes(&message), b"two");
        }
        let (message, _) = world.read(&one, Position::Oldest).unwrap();
        assert_eq!(bytes(&message), b"one");
        let longer = [&one[..], b"a"].concat();
        assert_eq!(world.with(|zone, now| zone.info(&longer, now)), None, "{len}");
        for id in [&one, &two] {
            world.with(|zone, now| zone.delete(id, now));
        }
        assert_eq!(world.used(), 0);
    }
}

#[test]
fn ids_and_content_types_that_are_too_long_are_refused() {
    let mut world = World::new(8192);
    world.publish(say(b"c", &[b"x"]));
    let used = world.used();
    for len in [65_536, 65_537, 70_000, 131_072, 65_536 * 3 + 1] {
        let long = vec![b'a'; len];
        world.with(|zone, now| {
            assert!(zone.publish(&say(&long, &[b"x"]), now).is_err());
            let wish = ask(&long, Position::Oldest);
            assert_eq!(zone.subscribe(&wish, now), Err(Refusal::NoSpace));
            let publication = Publication { content_type: &long, ..say(b"c", &[b"y"]) };
            assert!(zone.publish(&publication, now).is_err());
            let publication = Publication { content_type: &long, ..say(b"new", &[b"y"]) };
            assert!(zone.publish(&publication, now).is_err());
            assert_eq!(zone.info(&long, now), None);
            assert_eq!(zone.delete(&long, now), None);
            assert_eq!(zone.seqs_of(b"c"), [1]);
        });
        assert_eq!(world.used(), used);
    }
    let long = vec![b't'; 65_535];
    world.publish(Publication { content_type: &long, ..say(b"c", &[b"body"]) });
    let log = world.with(|zone, _| zone.log_of(b"c"));
    assert_eq!((bytes(&log[1]), &*log[1].content_type), (&b"body"[..], &long[..]));
}

#[test]
fn memory_that_is_no_zone_is_refused() {
    let mut memory = vec![0; words(64) - 1];
    let now = now_at(0);
    let needed = words(64) * 8;
    let error = Zone::format(&mut memory, [0, 0], now).map(drop).unwrap_err();
    assert_eq!(error, MemoryError::TooSmall { needed });
    let mut memory = vec![0; words(64)];
    assert_eq!(Zone::enter(&mut memory, now).map(drop), Err(MemoryError::Foreign));
    Zone::format(&mut memory, [0, 0], now).unwrap();
    assert_eq!(Zone::enter(&mut memory, now).map(drop), Ok(()));
    let mut larger = memory.clone();
    larger.resize(words(128), 0);
    assert_eq!(Zone::enter(&mut larger, now).map(drop), Err(MemoryError::Foreign));
}
