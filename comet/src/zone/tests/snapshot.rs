//! Saving and restoring.

use proptest::prelude::*;

use super::bytes as bytes_of;
use super::*;
use crate::publisher::PublishError;
use crate::zone::memory::{Unknown, UNKNOWN};
use crate::zone::record::LedgerBlock;

const TOKEN: u64 = 0x1234_5678_9abc_def0;

fn save(world: &mut World) -> Vec<u8> {
    let mut bytes = Vec::new();
    world.with(|zone, now| zone.save(TOKEN, Remaining::Nobody, now, &mut bytes)).unwrap();
    bytes
}

/// Restores into a zone of so many blocks, in a process whose monotonic clock has begun anew, `away` seconds later.
fn restore(old: &World, bytes: &[u8], blocks: usize, away: u64) -> (World, Restored) {
    let mut world = World::new(blocks);
    world.now = Now { wall: old.now.wall + away, mono: 7_000 };
    let mut zone = Zone::format(&mut world.memory, [8, 9], world.now).unwrap();
    let snapshot = Snapshot::read(bytes).unwrap();
    assert_eq!(snapshot.token(), TOKEN);
    let restored = zone.restore(&snapshot, world.now, &mut |_, _| true);
    assert_eq!(zone.check(), Ok(()));
    drop(zone);
    (world, restored)
}

#[test]
fn cursors_of_a_life_that_has_left_no_snapshot_are_told() {
    let mut old = World::new(128);
    let seen = old.publish(say(b"c", &[b"1"]));
    old.publish(say(b"c", &[b"2"]));
    old.pass(5000);
    let bytes = save(&mut old);
    let (mut world, _) = restore(&old, &bytes, 128, 100);
    let then = world.now.wall;
    // Its cursors may be of the very second in which this one begins, and of channels that the snapshot does not have.
    for (id, is_known) in [
        (MessageId { time: WALL + 5, tag: 7 }, true),
        (MessageId { time: WALL + 6, tag: 0 }, false),
        (MessageId { time: then - 1, tag: u32::MAX }, false),
        (MessageId { time: then, tag: 7 }, false),
        (MessageId { time: then, tag: u32::MAX }, true),
        (MessageId { time: then + 1, tag: 0 }, true),
    ] {
        for name in [&b"c"[..], b"new"] {
            let place = world.with(|zone, now| zone.follow(&ask(name, Position::After(id)), now));
            let (place, told) = (place.unwrap(), Missed { count: 0, at_least: !is_known });
            assert!(place.waits);
            assert_eq!(place.missed, told, "{id:?} of {name:?}");
        }
    }
    for name in [&b"c"[..], b"new"] {
        let id = world.publish(say(name, &[b"3"]));
        assert!(id > MessageId { time: then, tag: u32::MAX }, "{id:?}");
        let lost = Position::After(MessageId { time: then, tag: 7 });
        assert_eq!(world.read(name, lost).unwrap().1, Missed { count: 0, at_least: true });
    }
    // What the snapshot knows is exact as ever, also in a zone of another size.
    let mut other = World::new(256);
    let now = world.now;
    world.with(|old, _| other.with(|zone, _| zone.carry_from(old, now)));
    other.now = now;
    let (message, missed) = other.read(b"c", Position::After(seen)).unwrap();
    assert_eq!((message.cursor.seq, missed), (2, Missed::default()));
    let lost = Position::After(MessageId { time: then, tag: 7 });
    assert_eq!(other.read(b"c", lost).unwrap().1, Missed { count: 0, at_least: true });
    // Who ends and begins in one second leaves no room for another life.
    let (mut world, _) = restore(&old, &bytes, 128, 0);
    let here = Position::After(MessageId { time: old.now.wall, tag: 0 });
    let place = world.with(|zone, now| zone.follow(&ask(b"c", here), now)).unwrap();
    assert_eq!(place.missed, Missed::default());
    assert_eq!(world.publish(say(b"c", &[b"3"])).time, old.now.wall);
}

/// Whether who comes with a cursor of this second is told that something may be missing, with a message or while it waits.
fn told(world: &mut World, time: u64) -> bool {
    let after = Position::After(MessageId { time, tag: 7 });
    let missed = match world.read(b"c", after) {
        Some((_, missed)) => missed,
        None => world.with(|zone, now| zone.follow(&ask(b"c", after), now)).unwrap().missed,
    };
    missed.at_least
}

#[test]
fn cursors_of_one_that_goes_on_are_told_if_that_leaves_no_snapshot() {
    let mut old = World::new(128);
    old.pass(5000);
    let seen = old.publish(say(b"c", &[b"1"]));
    old.pass(5000);
    let mut bytes = Vec::new();
    old.with(|zone, now| zone.save(TOKEN, Remaining::Predecessor, now, &mut bytes)).unwrap();
    let (mut world, _) = restore(&old, &bytes, 128, 100);
    // Whichever of both they are of: that nobody can tell.
    let (here, now) = (old.now.wall, world.now.wall);
    for time in [WALL - 9, seen.time, here - 1, here, here + 1, now] {
        assert!(told(&mut world, time), "{time}");
    }
    assert!(!told(&mut world, now + 1));
    assert!(world.publish(say(b"c", &[b"2"])).time > now);
    // Also if the clock was set back.
    old.now.wall -= 50;
    let (mut world, _) = restore(&old, &bytes, 128, 0);
    assert!(told(&mut world, seen.time));
    assert!(world.publish(say(b"c", &[b"2"])).time > seen.time);
}

#[test]
fn lives_of_which_nothing_is_known_are_kept_in_mind_for_some_restarts() {
    let mut world = World::new(128);
    world.publish(say(b"c", &[b"1"]));
    let mut lost = Vec::new();
    for _ in 0..UNKNOWN + 2 {
        let bytes = save(&mut world);
        let (next, _) = restore(&world, &bytes, 128, 10);
        lost.push(world.now.wall + 5);
        world = next;
        world.pass(3000);
        let known = world.publish(say(b"c", &[b"2"])).time;
        world.pass(2000);
        assert!(!told(&mut world, known));
        for time in lost.iter().rev().take(UNKNOWN) {
            assert!(told(&mut world, *time), "{time} of {lost:?}");
        }
    }
}

fn names() -> Vec<Vec<u8>> {
    (0..6usize).map(|number| vec![b'a' + number as u8; 1 + number * 60]).collect()
}

/// Six channels with messages of many sizes, of which some have gone.
fn busy() -> (World, Vec<MessageId>) {
    let mut world = World::new(1024);
    let mut ids = Vec::new();
    for round in 0..30usize {
        for (number, name) in names().iter().enumerate() {
            let body = vec![b'0' + (round % 10) as u8; round * number * 5];
            let pieces = [&body[..]];
            let message_timeout = if number == 2 { 60_000 } else { 0 };
            let event: &[u8] = if number == 3 { b"kind" } else { b"" };
            let publication =
                Publication { max_messages: 10, message_timeout, event, ..say(name, &pieces) };
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

fn logs(world: &mut World) -> Vec<Vec<Message>> {
    names().iter().map(|name| world.with(|zone, _| zone.log_of(name))).collect()
}

/// The places of all messages among those of all channels, and their deadlines.
fn stamps(world: &mut World) -> Vec<(u64, bool)> {
    let of = |zone: &mut Zone<'_>, name: &[u8]| {
        let mut stamps = Vec::new();
        let mut at = zone.get::<ChannelHead>(zone.find(name).unwrap()).first;
        while at.is_some() {
            let message = zone.get::<MessageHead>(at);
            stamps.push((message.stamp, message.deadline == u64::MAX));
            at = message.next;
        }
        stamps
    };
    names().iter().flat_map(|name| world.with(|zone, _| of(zone, name))).collect()
}

#[test]
fn the_order_among_channels_stays_and_goes_on() {
    let (mut old, _) = busy();
    let before = stamps(&mut old);
    let bytes = save(&mut old);
    let (mut new, _) = restore(&old, &bytes, 1024, 0);
    assert_eq!(stamps(&mut new), before);
    new.publish(say(&names()[5], &[b"next"]));
    let last = *stamps(&mut new).last().unwrap();
    assert!(before.iter().all(|stamp| stamp.0 < last.0));
}

#[test]
fn everything_comes_back_and_goes_on() {
    let (mut old, ids) = busy();
    let slot = old.join(0);
    old.wait(&names()[0], slot);
    let before = logs(&mut old);
    let bytes = save(&mut old);
    assert_eq!(logs(&mut old), before, "saving changes nothing");
    let (mut new, restored) = restore(&old, &bytes, 1024, 3);
    assert_eq!(restored, Restored { channels: 6, messages: 60, ..Restored::default() });
    assert_eq!(logs(&mut new), before);
    // What the ledger knows is known here.
    for (place, id) in ids.iter().enumerate().take(20) {
        let (message, missed) = new.read(&names()[0], Position::After(*id)).unwrap();
        assert_eq!(message.cursor.seq, 21);
        assert_eq!(missed, Missed { count: 19 - place as u64, at_least: false });
    }
    for (name, before) in names().iter().zip(&before) {
        let id = new.publish(say(name, &[b"next"]));
        assert!(id > before.last().unwrap().id);
        let log = new.with(|zone, _| zone.log_of(name));
        assert_eq!(log.last().unwrap().cursor.seq, 31);
    }
    assert_eq!(new.with(|zone, now| zone.info(&names()[0], now)).unwrap().subscribers, 0);
    // Lives are not given again.
    let lives = |world: &mut World, name: &[u8]| {
        world.publish(say(name, &[b"x"]));
        world.with(|zone, _| zone.log_of(name))[0].cursor.life
    };
    let life = lives(&mut new, b"new");
    assert!(before.iter().all(|log| log[0].cursor.life < life));
}

#[test]
fn a_snapshot_of_what_was_restored_is_the_same_but_for_the_time() {
    let (mut old, _) = busy();
    let first = save(&mut old);
    let (mut new, _) = restore(&old, &first, 1024, 0);
    let second = save(&mut new);
    assert_eq!(first.len(), second.len());
    let (mut again, _) = restore(&new, &second, 1024, 0);
    assert_eq!(logs(&mut again), logs(&mut old));
}

#[test]
fn the_time_away_counts_for_messages_and_not_against_them() {
    let (mut old, _) = busy();
    let name = names()[2].clone();
    old.pass(40_000);
    let bytes = save(&mut old);
    let count = |world: &mut World| world.with(|zone, now| zone.info(&name, now)).unwrap().messages;
    // 10 seconds were gone at most when the last was published.
    let (mut new, restored) = restore(&old, &bytes, 1024, 5);
    assert_eq!(restored.expired, 0);
    assert_eq!(count(&mut new), 10);
    new.pass(20_000);
    new.sweep();
    assert_eq!(count(&mut new), 0);
    let (mut new, restored) = restore(&old, &bytes, 1024, 25);
    assert_eq!((restored.expired, restored.messages), (10, 50));
    assert_eq!(count(&mut new), 0);
    // The clock went back meanwhile.
    old.now.wall += 1000;
    let bytes = save(&mut old);
    old.now.wall -= 1000;
    let (mut new, restored) = restore(&old, &bytes, 1024, 0);
    assert_eq!((restored.expired, count(&mut new)), (0, 10));
}

#[test]
fn who_has_not_seen_what_expired_meanwhile_is_told() {
    for had_dropped in [false, true] {
        let mut old = World::new(256);
        if had_dropped {
            old.publish(say(b"c", &[b"gone"]));
            old.publish(Publication { max_messages: 1, ..say(b"c", &[b"zero"]) });
            old.pass(1000);
        }
        let first = old.publish(say(b"c", &[b"first"]));
        old.pass(1000);
        let short = Publication { message_timeout: 10_000, ..say(b"c", &[b"short"]) };
        old.publish(short);
        old.pass(1000);
        let transient = Publication { max_messages: 0, ..say(b"c", &[b"transient"]) };
        old.publish(transient);
        old.pass(1000);
        old.publish(say(b"c", &[b"last"]));
        let bytes = save(&mut old);
        let (mut new, restored) = restore(&old, &bytes, 256, 20);
        assert_eq!(restored.expired, 1);
        let (message, missed) = new.read(b"c", Position::After(first)).unwrap();
        assert_eq!(bytes_of(&message), b"last");
        assert_eq!(missed, Missed { count: 2, at_least: false });
        let seen = old.read(b"c", Position::After(first)).unwrap().0;
        assert_eq!(bytes_of(&seen), b"short");
    }
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
    old.publish(say(b"alive", &[b"x"]));
    let bytes = save(&mut old);
    old.now.wall = WALL;
    let (mut new, restored) = restore(&old, &bytes, 512, 0);
    assert_eq!((restored.channels, restored.messages), (1, 1));
    for (number, dead) in dead.iter().enumerate() {
        let name = number.to_string();
        assert_eq!(new.with(|zone, _| zone.log_of(name.as_bytes())), []);
        assert!(new.publish(say(name.as_bytes(), &[b"x"])) > *dead);
    }
}

#[test]
fn a_smaller_zone_keeps_the_newest_and_gives_files_back() {
    let mut old = World::new(1024);
    let paths: Vec<Vec<u8>> =
        (0..100).map(|n| format!("/a/rather/long/directory/name/{n:010}").into_bytes()).collect();
    for (round, path) in paths.iter().enumerate() {
        let name = format!("channel {}", round % 5);
        let content = Content::File { path, len: 9 };
        old.publish(Publication { content, ..say(name.as_bytes(), &[]) });
    }
    let bytes = save(&mut old);
    let mut world = World::new(64);
    let snapshot = Snapshot::read(&bytes).unwrap();
    let now = world.now;
    let (restored, trash) = world.with(|zone, _| {
        let restored = zone.restore(&snapshot, now, &mut |_, len| len == 9);
        (restored, zone.take_trash())
    });
    assert_eq!(restored.messages + restored.dropped, 100);
    assert!(restored.dropped > 0 && restored.messages > 10, "{restored:?}");
    let mut all = trash;
    for number in 0..5 {
        let name = format!("channel {number}");
        let log = world.with(|zone, _| zone.log_of(name.as_bytes()));
        let seqs: Vec<u64> = log.iter().map(|message| message.cursor.seq).collect();
        assert_eq!(seqs, (21 - seqs.len() as u64..=20).collect::<Vec<_>>());
        all.extend(log.iter().map(|message| bytes_of(message).to_vec()));
    }
    for number in 0..5 {
        let name = format!("channel {number}");
        assert!(world.publish(say(name.as_bytes(), &[b"x"])).tag >= 20);
    }
    all.sort();
    assert!(all == paths);
}

#[test]
fn a_message_whose_file_is_gone_is_missed() {
    let mut old = World::new(256);
    let first = old.publish(say(b"c", &[b"first"]));
    let file = Content::File { path: b"/gone", len: 5 };
    old.publish(Publication { content: file, ..say(b"c", &[]) });
    old.publish(say(b"c", &[b"last"]));
    let bytes = save(&mut old);
    let mut new = World::new(256);
    let snapshot = Snapshot::read(&bytes).unwrap();
    let trash = new.trash(|zone, now| {
        let restored = zone.restore(&snapshot, now, &mut |path, len| {
            assert_eq!((path, len), (&b"/gone"[..], 5));
            false
        });
        assert_eq!((restored.messages, restored.lost), (2, 1));
    });
    assert_eq!(trash, [b""; 0]);
    let (message, missed) = new.read(b"c", Position::After(first)).unwrap();
    assert_eq!((bytes_of(&message), missed.count), (&b"last"[..], 1));
}

#[test]
fn files_of_what_is_not_saved_are_given_back() {
    let mut old = World::new(256);
    let file = |path| Content::File { path, len: 5 };
    old.publish(Publication { content: file(b"/kept"), ..say(b"c", &[]) });
    let transient = Publication { content: file(b"/now"), max_messages: 0, ..say(b"c", &[]) };
    old.publish(transient);
    let slot = old.join(0);
    old.wait(b"d", slot);
    old.publish(Publication { content: file(b"/deleted"), ..say(b"d", &[]) });
    old.with(|zone, now| zone.delete(b"d", now)).unwrap();
    let trash = old.trash(|zone, now| {
        let saved = zone.save(TOKEN, Remaining::Nobody, now, &mut Vec::new()).unwrap();
        assert_eq!(saved, Saved { channels: 1, messages: 1 });
    });
    assert_eq!(trash, [&b"/now"[..], b"/deleted"]);
}

#[test]
fn idle_channels_keep_their_place_and_are_collected() {
    let mut old = World::new(256);
    let id = old.publish(Publication { message_timeout: 1000, ..say(b"c", &[b"x"]) });
    old.pass(3000);
    old.sweep();
    let bytes = save(&mut old);
    let (mut new, restored) = restore(&old, &bytes, 256, 0);
    assert_eq!((restored.channels, restored.messages), (1, 0));
    new.now.wall = id.time;
    assert!(new.publish(Publication { message_timeout: 1000, ..say(b"c", &[b"y"]) }) > id);
    new.pass(20_000);
    new.sweep();
    new.pass(20_000);
    new.sweep();
    assert_eq!(new.with(|zone, now| zone.info(b"c", now)), None);
    assert_eq!(new.used(), 0);
}

#[test]
fn what_is_no_snapshot_is_refused_and_told_apart() {
    let (mut old, _) = busy();
    let good = save(&mut old);
    let refused = |bytes: &[u8]| Snapshot::read(bytes).map(drop).unwrap_err();
    assert_eq!(refused(b""), SnapshotError::Foreign);
    assert_eq!(refused(b"{}"), SnapshotError::Foreign);
    assert_eq!(refused(&[0; 1000]), SnapshotError::Foreign);
    let mut newer = good.clone();
    newer[8] = 7;
    assert_eq!(refused(&newer), SnapshotError::Format { found: 7 });
    let longer = [&good[..], b"x"].concat();
    assert_eq!(refused(&longer), SnapshotError::Length);
    let mut other = good.clone();
    other[good.len() / 2] ^= 1;
    assert_eq!(refused(&other), SnapshotError::Checksum);
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn a_snapshot_that_was_cut_anywhere_is_refused() {
    let (mut old, _) = busy();
    let good = save(&mut old);
    for len in 0..good.len() {
        assert!(Snapshot::read(&good[..len]).is_err(), "{len} bytes");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn a_wrong_bit_anywhere_is_refused() {
    let mut old = World::new(64);
    for number in 0..5u8 {
        old.publish(Publication { max_messages: 2, ..say(b"channel", &[&[number; 60]]) });
    }
    let mut bytes = save(&mut old);
    for place in 0..bytes.len() {
        for bit in 0..8 {
            bytes[place] ^= 1 << bit;
            assert!(Snapshot::read(&bytes).is_err(), "bit {bit} of byte {place}");
            bytes[place] ^= 1 << bit;
        }
    }
}

/// Gives changed bytes a length and a checksum that fit.
fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len().saturating_sub(12));
    let total = bytes.len() as u64 + 12;
    bytes.extend(total.to_le_bytes());
    let checksum = crc32fast::hash(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

#[test]
fn what_contradicts_itself_is_refused() {
    type Lie = fn(&mut Zone<'_>);
    let lies: [(&str, Lie); 15] = [
        ("lives that were never given", |zone| zone.header.lives = 1),
        ("stamps that were never given", |zone| zone.header.stamps = 1),
        ("messages newer than the newest", |zone| zone.header.newest_time = WALL),
        ("a life that has not ended", |zone| zone.header.unknown[0].upto = WALL + 1_000_000),
        ("lives in disorder", |zone| {
            zone.header.unknown[0] = Unknown { after: 5, upto: 6 };
            zone.header.unknown[1] = Unknown { after: 6, upto: 7 };
        }),
        ("no life", |zone| zone.channel_mut(b"a").life = 0),
        ("two channels with one life", |zone| {
            zone.channel_mut(b"a").life = zone.channel(b"b").life;
        }),
        ("one stamp twice", |zone| zone.first_mut(b"a").stamp = zone.header.stamps),
        ("stamps against the order of times", |zone| {
            zone.header.stamps += 1;
            zone.first_mut(b"a").stamp = zone.header.stamps;
        }),
        ("a number twice", |zone| zone.first_mut(b"b").seq += 1),
        ("a tag twice", |zone| zone.first_mut(b"b").tag += 1),
        ("a number to come that was given", |zone| zone.channel_mut(b"b").next_seq -= 1),
        ("a last id that was never given", |zone| zone.channel_mut(b"b").last_tag += 1),
        ("a newest second in which nothing was given", |zone| {
            let head = zone.channel_mut(b"b");
            head.last_time += 1;
            head.last_tag = 0;
        }),
        ("a ledger that knows it otherwise", |zone| {
            let at = zone.channel(b"a").ledger;
            zone.get_mut::<LedgerBlock>(at).entries[0].base += 2;
        }),
    ];
    let mut world = World::new(128);
    for name in [&b"a"[..], b"b"] {
        for second in 0..3 {
            world.publish(Publication { max_messages: 4, ..say(name, &[b"x"]) });
            world.publish(Publication { max_messages: 4, ..say(name, &[b"y"]) });
            world.pass(if second < 2 { 1000 } else { 0 });
        }
    }
    for (what, lie) in lies {
        let mut memory = world.memory.clone();
        let mut zone = Zone::enter(&mut memory, world.now).unwrap();
        let mut bytes = Vec::new();
        zone.save(TOKEN, Remaining::Nobody, world.now, &mut bytes).unwrap();
        assert!(Snapshot::read(&bytes).is_ok());
        lie(&mut zone);
        bytes.clear();
        zone.save(TOKEN, Remaining::Nobody, world.now, &mut bytes).unwrap();
        let answer = Snapshot::read(&bytes).map(drop);
        assert_eq!(answer, Err(SnapshotError::Malformed), "{what}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn a_writer_that_fails_is_told_of() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (mut old, _) = busy();
    let len = save(&mut old).len();
    for room in (0..len).step_by(97) {
        let error = old
            .with(|zone, now| zone.save(TOKEN, Remaining::Nobody, now, &mut Full(room)))
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }
    old.with(|zone, now| zone.save(TOKEN, Remaining::Nobody, now, &mut Full(len))).unwrap();
}

/// What happens to a world before it is saved: publish, delete or pass time, on one of five channels.
fn history() -> impl Strategy<Value = Vec<(u8, u8, usize, u64)>> {
    prop::collection::vec((0u8..5, 0u8..12, 0usize..400, 0u64..4000), 0..80)
}

fn play(history: &[(u8, u8, usize, u64)]) -> World {
    let mut world = World::new(256);
    for &(channel, act, size, ms) in history {
        let name = [b'a' + channel; 80];
        let body = vec![b'x'; size];
        match act {
            0 => drop(world.with(|zone, now| zone.delete(&name, now))),
            1 => world.pass(ms),
            _ => {
                let publication = Publication {
                    max_messages: u32::from(act) % 6,
                    message_timeout: if act % 3 == 0 { 1 + ms } else { 0 },
                    delete_when_received: act % 4 == 0,
                    ..say(&name, &[])
                };
                let pieces = [&body[..]];
                let content = Content::Pieces(&pieces);
                let published = world
                    .with(|zone, now| zone.publish(&Publication { content, ..publication }, now));
                assert!(!matches!(published, Err(PublishError::Closing)));
            }
        }
    }
    world
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn what_is_restored_is_what_was_saved(history in history()) {
        let mut old = play(&history);
        let bytes = save(&mut old);
        // The memory tells transient messages from others, a copy does not.
        let kept = |world: &mut World, name: &[u8]| world.with(|zone, now| {
            let mut log = zone.log_of(name);
            let Some(channel) = zone.find(name) else { return log };
            let mut at = zone.get::<ChannelHead>(channel).first;
            while at.is_some() {
                let head = *zone.get::<MessageHead>(at);
                if head.flags & record::TRANSIENT != 0 || head.deadline <= now.mono {
                    log.retain(|message| message.cursor.seq != head.seq);
                }
                at = head.next;
            }
            log
        });
        let (mut new, restored) = restore(&old, &bytes, 512, 0);
        prop_assert_eq!((restored.dropped, restored.lost, restored.expired), (0, 0, 0));
        for channel in 0..5u8 {
            let name = [b'a' + channel; 80];
            let before = kept(&mut old, &name);
            prop_assert_eq!(&kept(&mut new, &name), &before);
            let next = new.publish(say(&name, &[b"next"]));
            prop_assert!(before.iter().all(|message| message.id < next));
        }
    }

    #[test]
    fn what_is_restored_into_a_tight_zone_is_the_end_of_what_was_saved(history in history()) {
        let mut old = play(&history);
        let bytes = save(&mut old);
        let (mut new, _) = restore(&old, &bytes, 64, 0);
        for channel in 0..5u8 {
            let name = [b'a' + channel; 80];
            let seqs = old.with(|zone, _| zone.seqs_of(&name));
            let left = new.with(|zone, _| zone.seqs_of(&name));
            prop_assert!(left.iter().all(|seq| seqs.contains(seq)));
        }
    }

    #[test]
    fn bytes_that_lie_with_a_right_checksum_do_no_harm(
        history in history(),
        lies in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut old = play(&history);
        let mut bytes = save(&mut old);
        for (place, value) in lies {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let bytes = seal(bytes);
        if let Ok(snapshot) = Snapshot::read(&bytes) {
            let mut new = World::new(256);
            new.with(|zone, now| zone.restore(&snapshot, now, &mut |_, _| true));
            for channel in 0..5u8 {
                let name = [b'a' + channel; 80];
                new.publish(say(&name, &[b"next"]));
                new.read(&name, Position::Oldest);
                new.read(&name, Position::After(MessageId { time: WALL, tag: 0 }));
            }
            new.pass(100_000);
            new.sweep();
        }
    }
}
