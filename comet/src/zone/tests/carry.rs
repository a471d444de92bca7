//! Moving to a zone of another size.

use super::*;

/// Carries everything from one world to a new one; returns that, the report, and the trash of both.
fn carry(old: &mut World, blocks: usize) -> (World, Carried, Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut world = World::new(blocks);
    world.now = old.now;
    let (carried, new_trash, old_trash) = old.with(|old, now| {
        let mut zone = Zone::format(&mut world.memory, [8, 9], now).unwrap();
        let carried = zone.carry_from(old, now);
        assert_eq!(zone.check(), Ok(()));
        (carried, zone.take_trash(), old.take_trash())
    });
    (world, carried, new_trash, old_trash)
}

fn channels() -> Vec<Vec<u8>> {
    (0..6usize).map(|number| vec![b'a' + number as u8; 1 + number * 60]).collect()
}

/// Six channels with messages of many sizes, of which some have gone.
fn busy() -> (World, Vec<MessageId>) {
    let mut world = World::new(1024);
    let mut ids = Vec::new();
    for round in 0..30usize {
        for (number, name) in channels().iter().enumerate() {
            let body = vec![b'0' + (round % 10) as u8; round * number * 5];
            let pieces = [&body[..]];
            let message_timeout = if number == 2 { 60_000 } else { 0 };
            let publication =
                Publication { max_messages: 10, message_timeout, ..say(name, &pieces) };
            let id = world.publish(publication);
            if number == 0 {
                ids.push(id);
            }
        }
        if round % 3 == 0 {
            world.pass(1000);
        }
    }
    (world, ids)
}

#[test]
fn everything_fits_into_a_larger_zone_and_goes_on() {
    let (mut old, ids) = busy();
    let slot = old.join(0);
    let (waiting, ..) = old.wait(&channels()[0], slot);
    let before: Vec<_> =
        channels().iter().map(|name| old.with(|zone, _| zone.log_of(name))).collect();
    let (mut new, carried, ..) = carry(&mut old, 2048);
    assert_eq!(carried, Carried { channels: 6, messages: 60, dropped: 0 });
    for (name, before) in channels().iter().zip(&before) {
        assert_eq!(&new.with(|zone, _| zone.log_of(name)), before);
        let id = new.publish(say(name, &[b"next"]));
        assert!(id > before.last().unwrap().id);
        let log = new.with(|zone, _| zone.log_of(name));
        assert_eq!(log.last().unwrap().cursor.seq, 31);
    }
    // What the ledger knows is known here.
    for (place, id) in ids.iter().enumerate().take(20) {
        let (message, missed) = new.read(&channels()[0], Position::After(*id)).unwrap();
        assert_eq!(message.cursor.seq, 21);
        assert_eq!(missed, Missed { count: 19 - place as u64, at_least: false });
    }
    assert_eq!(new.with(|zone, now| zone.info(&channels()[0], now)).unwrap().subscribers, 0);
    // The old zone's subscribers can still be taken off.
    old.with(|zone, now| zone.leave(waiting, slot, 1, now));
}

#[test]
fn messages_expire_in_the_new_zone_at_the_same_time() {
    let (mut old, _) = busy();
    let name = channels()[2].clone();
    old.pass(40_000);
    let (mut new, ..) = carry(&mut old, 1024);
    let count = |world: &mut World| world.with(|zone, now| zone.info(&name, now)).unwrap().messages;
    assert_eq!(count(&mut new), 10);
    new.pass(15_000);
    new.sweep();
    assert_eq!(count(&mut new), 10);
    new.pass(6_000);
    new.sweep();
    assert_eq!(count(&mut new), 0);
}

#[test]
fn the_old_zone_refuses_and_keeps_quiet() {
    let (mut old, _) = busy();
    old.publish(Publication {
        content: Content::File { path: b"/file", len: 5 },
        message_timeout: 10_000,
        ..say(b"f", &[])
    });
    let slot = old.join(0);
    let (channel, ..) = old.wait(b"f", slot);
    let (mut new, _, new_trash, old_trash) = carry(&mut old, 1024);
    assert!(new_trash.is_empty() && old_trash.is_empty());
    old.with(|zone, now| {
        assert!(zone.is_closed());
        let refused = zone.publish(&say(b"a", &[b"x"]), now);
        assert_eq!(refused, Err(crate::publisher::PublishError::Closing));
        let refused = zone.subscribe(&ask(b"a", Position::Oldest), now);
        assert_eq!(refused, Err(Refusal::Closing));
        // The channel lives on elsewhere.
        assert_eq!(zone.delete(b"f", now), None);
        zone.leave(channel, slot, 1, now);
    });
    // The file belongs to the new zone.
    old.pass(11_000);
    assert_eq!(old.trash(|zone, now| zone.sweep(now, |_| true)), [b""; 0]);
    new.now = old.now;
    assert_eq!(new.trash(|zone, now| zone.sweep(now, |_| true)), [b"/file"]);
}

#[test]
fn what_does_not_fit_is_dropped_with_its_file() {
    let mut old = World::new(1024);
    let mut paths = Vec::new();
    for round in 0..100 {
        let name = format!("channel {}", round % 5);
        paths.push(format!("/a/rather/long/directory/name/{round:010}").into_bytes());
        let content = Content::File { path: &paths[round], len: 9 };
        old.publish(Publication { content, ..say(name.as_bytes(), &[]) });
    }
    let (mut new, carried, new_trash, old_trash) = carry(&mut old, 64);
    assert!(old_trash.is_empty());
    assert_eq!(carried.messages + carried.dropped, 100);
    assert!(carried.dropped > 0 && carried.messages > 10, "{carried:?}");
    let mut kept = Vec::new();
    for number in 0..5 {
        let name = format!("channel {number}");
        let log = new.with(|zone, _| zone.log_of(name.as_bytes()));
        // The oldest went.
        let seqs: Vec<u64> = log.iter().map(|message| message.cursor.seq).collect();
        assert_eq!(seqs, (21 - seqs.len() as u64..=20).collect::<Vec<_>>());
        kept.extend(log.iter().map(|message| bytes(message).to_vec()));
        if let Some((message, missed)) =
            new.read(name.as_bytes(), Position::After(MessageId { time: WALL, tag: 0 }))
        {
            assert!(missed.count <= message.cursor.seq - 2);
            assert!(missed.at_least || missed.count == message.cursor.seq - 2);
        }
    }
    for number in 0..5 {
        let name = format!("channel {number}");
        assert!(new.publish(say(name.as_bytes(), &[b"x"])).tag >= 20);
    }
    let mut all = [kept, new_trash].concat();
    all.sort();
    paths.sort();
    assert!(all == paths);
}

#[test]
fn a_message_too_large_for_the_new_zone_is_missed_and_not_the_end() {
    let mut old = World::new(1024);
    let first = old.publish(say(b"c", &[b"first"]));
    old.pass(1000);
    let large = [b'x'; 100 * 128];
    old.publish(say(b"c", &[&large]));
    old.pass(1000);
    old.publish(say(b"c", &[b"last"]));
    let (mut new, carried, ..) = carry(&mut old, 64);
    assert_eq!(carried, Carried { channels: 1, messages: 2, dropped: 1 });
    let (message, missed) = new.read(b"c", Position::After(first)).unwrap();
    assert_eq!((bytes(&message), missed.count), (&b"last"[..], 1));
    assert_eq!(new.publish(say(b"c", &[b"x"])).tag, 1);
}

#[test]
fn ids_of_channels_that_died_before_are_not_given_again() {
    let mut old = World::new(1024);
    old.now.wall = WALL + 500;
    let mut dead = Vec::new();
    for number in 0..100 {
        let name = number.to_string();
        old.publish(say(name.as_bytes(), &[b"x"]));
        dead.push(old.publish(say(name.as_bytes(), &[b"x"])));
        old.with(|zone, now| zone.delete(name.as_bytes(), now));
    }
    let (mut new, ..) = carry(&mut old, 512);
    for wall in [WALL + 500, WALL] {
        new.now.wall = wall;
        for (number, dead) in dead.iter().enumerate() {
            let name = number.to_string();
            assert!(new.publish(say(name.as_bytes(), &[b"x"])) > *dead);
            new.with(|zone, now| zone.delete(name.as_bytes(), now));
        }
    }
}

#[test]
fn deleted_channels_stay_behind_and_give_their_files_back() {
    let mut old = World::new(256);
    let slot = old.join(0);
    let (channel, cursor, reign) = old.wait(b"c", slot);
    old.publish(Publication {
        content: Content::File { path: b"/file", len: 5 },
        ..say(b"c", &[])
    });
    old.with(|zone, now| zone.delete(b"c", now)).unwrap();
    let (mut new, carried, ..) = carry(&mut old, 512);
    assert_eq!(carried.channels, 0);
    assert_eq!(new.used(), 0);
    let trash = old.trash(|zone, now| {
        assert!(matches!(zone.next(channel, cursor, reign, now), Answer::Message(_)));
        zone.leave(channel, slot, 1, now);
    });
    assert_eq!(trash, [b"/file"]);
}

#[test]
fn what_found_no_room_is_missed_although_there_was_no_ledger() {
    let mut old = World::new(512);
    // The first one is small; then two that a small zone has no room for; and one that leaves room for nothing else, but for
    // ledgers, in the place of another channel's messages.
    let large = vec![b'x'; 120 * 70];
    let bodies: [&[u8]; 4] = [b"1", &large, &large, &[b'4'; 30 + 120 * 56]];
    old.publish(say(b"b", &[b"another"]));
    old.publish(say(b"b", &[b"another"]));
    let ids = bodies.map(|body| {
        old.pass(1000);
        old.publish(say(b"a", &[body]))
    });
    assert!(old.with(|zone, _| zone.channel(b"a").ledger.is_none()));
    let mut snapshot = Vec::new();
    let now = old.now;
    old.with(|zone, _| zone.save(1, Remaining::Nobody, now, &mut snapshot)).unwrap();
    let mut restored = World { now, ..World::new(64) };
    restored.with(|zone, _| {
        zone.restore(&Snapshot::read(&snapshot).unwrap(), now, &mut |_, _| true);
    });
    let (carried, ..) = carry(&mut old, 64);
    for (what, mut world) in [("carried", carried), ("restored", restored)] {
        // Room for the last one was made of the first.
        assert_eq!(world.with(|zone, _| zone.seqs_of(b"a")), [4], "{what}");
        for (number, id) in ids.iter().take(3).enumerate() {
            let (message, missed) = world.read(b"a", Position::After(*id)).unwrap();
            assert_eq!(message.cursor.seq, 4);
            let all = 2 - number as u64;
            assert!(
                missed.count == all || missed.at_least && missed.count < all,
                "{what} {missed:?}"
            );
        }
    }
}

#[test]
fn a_full_zone_has_room_for_ledgers() {
    let mut old = World::new(512);
    let names: Vec<Vec<u8>> = (0..20).map(|number| format!("c{number}").into_bytes()).collect();
    let mut ids = Vec::new();
    for round in 0..12 {
        for name in &names {
            let id = old.publish(Publication { max_messages: 8, ..say(name, &[b"x"]) });
            if round == 1 {
                ids.push(id);
            }
        }
        old.pass(1000);
    }
    let mut snapshot = Vec::new();
    let now = old.now;
    old.with(|zone, _| zone.save(1, Remaining::Nobody, now, &mut snapshot)).unwrap();
    // Too small for what there is.
    let mut restored = World { now, ..World::new(128) };
    restored.with(|zone, _| {
        zone.restore(&Snapshot::read(&snapshot).unwrap(), now, &mut |_, _| true);
    });
    let (carried, ..) = carry(&mut old, 128);
    for (what, mut world) in [("carried", carried), ("restored", restored)] {
        for (name, id) in names.iter().zip(&ids) {
            let Some((message, missed)) = world.read(name, Position::After(*id)) else { continue };
            let count = message.cursor.seq - 3;
            assert_eq!(missed, Missed { count, at_least: false }, "{what}");
        }
    }
}
