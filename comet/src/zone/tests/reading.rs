//! What it costs to read a long log, in blocks that are looked at.

use super::*;
use crate::many::Standing;

const LENGTH: u64 = 3000;

/// A long log, and the place before its first message.
fn long(names: &[&[u8]]) -> World {
    let mut world = World::new(4 * names.len() * LENGTH as usize);
    for name in names {
        let mut zone = Zone::enter(&mut world.memory, world.now).unwrap();
        for _ in 0..LENGTH {
            let everything = Publication { max_messages: 1 << 20, ..say(name, &[b"x"]) };
            zone.publish(&everything, world.now).unwrap();
        }
    }
    world
}

/// Blocks that are looked at.
fn looks(zone: &Zone<'_>, act: impl FnOnce()) -> u64 {
    let before = zone.looks.get();
    act();
    zone.looks.get() - before
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn whoever_reads_on_does_not_search() {
    let mut world = long(&[b"a"]);
    let place = world.with(|zone, now| zone.follow(&ask(b"a", Position::Oldest), now)).unwrap();
    let zone = Zone::enter(&mut world.memory, world.now).unwrap();
    let (mut cursor, mut read) = (place.cursor, 0);
    let cost = looks(&zone, || {
        while let Answer::Message(next) = zone.next(place.channel, cursor, place.reign, world.now) {
            cursor = next.cursor;
            read += 1;
        }
    });
    assert_eq!(read, LENGTH);
    assert!(cost < 20 * LENGTH, "{cost}");
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn whoever_comes_back_says_where_it_was() {
    let mut world = long(&[b"a"]);
    let place = world.with(|zone, now| zone.follow(&ask(b"a", Position::Oldest), now)).unwrap();
    let (mut cursor, mut last, mut cost) = (place.cursor, None, 0);
    for seq in 1..=LENGTH {
        // Each time under another lock.
        let zone = Zone::enter(&mut world.memory, world.now).unwrap();
        cost += looks(&zone, || {
            last.into_iter().for_each(|at| zone.begin_at(place.channel, at));
            let Answer::Message(next) = zone.next(place.channel, cursor, 0, world.now) else {
                panic!("{seq} is there");
            };
            assert_eq!(next.cursor.seq, seq);
            (cursor, last) = (next.cursor, Some(next.at));
        });
    }
    assert!(cost < 20 * LENGTH, "{cost}");
}

#[test]
fn a_bookmark_that_is_out_of_date_misleads_nobody() {
    let mut world = World::new(256);
    let slot = world.join(0);
    let (channel, cursor, reign) = world.wait(b"a", slot);
    for number in 0..20u32 {
        let name: &[u8] = if number % 3 == 0 { b"b" } else { b"a" };
        let say = Publication { max_messages: 5, ..say(name, &[b"x"]) };
        world.publish(say);
    }
    let expected = world.with(|zone, _| zone.seqs_of(b"a"));
    assert_eq!(expected.len(), 5);
    world.with(|zone, now| {
        // Blocks of all kinds: free ones, those of this channel and of another one, its own head, and none.
        for at in 0..zone.header.block_count + 2 {
            for seq in 0..=expected[4] {
                zone.begin_at(channel, At(at));
                let here = Cursor { seq, ..cursor };
                let next = match zone.next(channel, here, reign, now) {
                    Answer::Message(next) => Some(next.cursor.seq),
                    _ => None,
                };
                assert_eq!(next, expected.iter().copied().find(|next| *next > seq), "{at} {seq}");
            }
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn the_ends_of_a_log_are_near() {
    let mut world = long(&[b"a"]);
    let zone = Zone::enter(&mut world.memory, world.now).unwrap();
    let channel = zone.find(b"a").unwrap();
    let id = |seq| MessageId { time: WALL, tag: seq as u32 - 1 };
    for seq in [1, 2, 10, LENGTH / 2, LENGTH - 10, LENGTH - 1] {
        let mut found = None;
        let cost = looks(&zone, || found = zone.oldest_after(channel, id(seq)));
        let message = zone.get::<MessageHead>(found.unwrap());
        assert_eq!(message.seq, seq + 1);
        assert!(cost < 10 + 3 * seq.min(LENGTH - seq), "{seq}: {cost}");
    }
    let before = MessageId { time: WALL - 1, tag: 7 };
    assert_eq!(zone.oldest_after(channel, before), Some(zone.channel(b"a").first));
    assert_eq!(zone.oldest_after(channel, id(LENGTH)), None);
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn several_channels_are_read_on_too() {
    let names: [&[u8]; 3] = [b"a", b"b", b"c"];
    let mut world = long(&names);
    let wishes: Vec<_> = names.iter().map(|name| ask(name, Position::Oldest)).collect();
    let places = world.with(|zone, now| zone.follow_all(&wishes, now)).unwrap();
    let channels: Vec<_> = places.iter().map(|place| place.channel).collect();
    let zone = Zone::enter(&mut world.memory, world.now).unwrap();
    let (mut standing, mut read) = (Standing::new(&places), 0);
    let cost = looks(&zone, || {
        while let ManyAnswer::Message { standing: come, .. } =
            zone.next_of_many(&channels, &standing, world.now)
        {
            standing = come;
            read += 1;
        }
    });
    assert_eq!(read, 3 * LENGTH);
    assert!(cost < 60 * read, "{cost}");
}
