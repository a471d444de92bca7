//! Subscribers of several channels.

use proptest::prelude::*;

use super::*;
use crate::many::Standing;
use crate::message::ManyId;
use crate::wire::id::Cursors;

const NAMES: [&[u8]; 3] = [b"a", b"b", b"c"];

/// Somebody who reads all of [`NAMES`].
struct Reader {
    channels: Vec<ChannelRef>,
    standing: Standing,
}

fn begin(world: &mut World, positions: &[Position], hold: Option<SlotRef>) -> Reader {
    let wishes: Vec<_> = NAMES
        .iter()
        .zip(positions)
        .map(|(name, position)| Subscription {
            hold,
            channel_timeout: 3600,
            ..ask(name, *position)
        })
        .collect();
    let places = world.with(|zone, now| zone.follow_all(&wishes, now)).unwrap();
    let channels = places.iter().map(|place| place.channel).collect();
    Reader { channels, standing: Standing::new(&places) }
}

impl Reader {
    /// The body of the next message, what was missed before it, and the cursor after it.
    fn next(&mut self, world: &mut World) -> Option<(String, u64, ManyId)> {
        let (body, missed, id) = self.read(world)?;
        assert!(!missed.at_least);
        Some((body, missed.count, id))
    }

    /// The same, when no more is known than that something may have been missed.
    fn next_vague(&mut self, world: &mut World) -> (String, ManyId) {
        let (body, missed, id) = self.read(world).unwrap();
        assert_eq!(missed, Missed { count: 0, at_least: true });
        (body, id)
    }

    fn read(&mut self, world: &mut World) -> Option<(String, Missed, ManyId)> {
        let (channels, standing) = (&self.channels, &self.standing);
        let found = world.with(|zone, now| match zone.next_of_many(channels, standing, now) {
            ManyAnswer::Message { from, next, standing } => {
                Some((from, next, standing, zone.copy(&next)))
            }
            _ => None,
        });
        let (from, next, standing, message) = found?;
        self.standing = standing;
        let body = String::from_utf8(bytes(&message).to_vec()).unwrap();
        Some((body, next.missed, self.standing.id(from)))
    }

    fn all(&mut self, world: &mut World) -> Vec<String> {
        std::iter::from_fn(|| self.next(world).map(|(body, ..)| body)).collect()
    }
}

fn publish(world: &mut World, name: usize, body: &str) {
    world.publish(say(NAMES[name], &[body.as_bytes()]));
}

#[test]
fn messages_of_all_channels_come_in_the_order_in_which_they_were_published() {
    let mut world = World::new(256);
    let order = [0, 2, 1, 1, 0, 2, 2, 0];
    for (count, name) in order.iter().enumerate() {
        publish(&mut world, *name, &count.to_string());
        if count == 4 {
            world.pass(1000);
        }
    }
    let mut reader = begin(&mut world, &[Position::Oldest; 3], None);
    assert_eq!(reader.all(&mut world), ["0", "1", "2", "3", "4", "5", "6", "7"]);
    publish(&mut world, 1, "more");
    assert_eq!(reader.all(&mut world), ["more"]);
}

#[test]
fn all_that_was_missed_can_be_told_at_once() {
    let mut world = World::new(256);
    let ids: Vec<_> = (0..9)
        .map(|count| {
            world.publish(Publication { max_messages: 2, ..say(NAMES[count % 3], &[b"x"]) })
        })
        .collect();
    let positions = [Position::After(ids[0]), Position::Oldest, Position::After(ids[8])];
    let wishes: Vec<_> =
        NAMES.iter().zip(positions).map(|(name, position)| ask(name, position)).collect();
    let places = world.with(|zone, now| zone.follow_all(&wishes, now)).unwrap();
    let (standing, missed) = Standing::told(&places);
    // Of three messages each, two are there.
    assert_eq!(missed, Missed { count: 0, at_least: false });
    assert_eq!(standing.0.iter().map(|stand| stand.seq).collect::<Vec<_>>(), [1, 1, 3]);
    for _ in 0..2 {
        world.publish(Publication { max_messages: 2, ..say(b"a", &[b"x"]) });
    }
    let places = world.with(|zone, now| zone.follow_all(&wishes, now)).unwrap();
    assert_eq!(Standing::told(&places).1, Missed { count: 2, at_least: false });
    assert_eq!(Standing::told(&places).0 .0[0].seq, 3);
    assert_eq!(Standing::new(&places).0[0].seq, 1);
}

#[test]
fn what_is_gone_without_a_successor_is_told_at_once_with_the_first_message_of_another_channel() {
    let mut world = World::new(256);
    let first = [0, 1, 2].map(|name| world.publish(say(NAMES[name], &[b"seen"])));
    world.pass(1_000);
    for name in [1, 1, 2] {
        world.publish(Publication { message_timeout: 1, ..say(NAMES[name], &[b"short-lived"]) });
    }
    world.pass(2_000);
    let wishes: Vec<_> =
        NAMES.iter().zip(first).map(|(name, id)| ask(name, Position::After(id))).collect();
    let begin = |world: &mut World| {
        world.with(|zone, now| {
            let places = zone.follow_all(&wishes, now).unwrap();
            let (standing, missed) = zone.tell_at_once(&places, now);
            (
                Reader { channels: places.iter().map(|place| place.channel).collect(), standing },
                missed,
            )
        })
    };
    // There is no message whose cursor could say that it has been told.
    let (mut early, missed) = begin(&mut world);
    assert_eq!(missed, Missed::default());
    publish(&mut world, 0, "one");
    publish(&mut world, 0, "two");
    assert_eq!(
        early.next(&mut world).map(|(body, missed, _)| (body, missed)),
        Some(("one".into(), 3))
    );
    let (mut late, missed) = begin(&mut world);
    assert_eq!(missed, Missed { count: 3, at_least: false });
    let read: Vec<_> =
        std::iter::from_fn(|| late.next(&mut world).map(|(body, missed, _)| (body, missed)))
            .collect();
    assert_eq!(read, [("one".to_owned(), 0), ("two".to_owned(), 0)]);
}

#[test]
fn when_one_channel_is_refused_the_subscriber_is_counted_nowhere() {
    let mut world = World::new(256);
    let slot = world.join(0);
    publish(&mut world, 0, "x");
    let hold = Some(slot);
    let wishes = [
        Subscription { hold, ..ask(b"a", Position::Oldest) },
        Subscription { hold, authorized_only: true, ..ask(b"b", Position::Oldest) },
    ];
    let answer = world.with(|zone, now| zone.follow_all(&wishes, now));
    assert_eq!(answer, Err(Refusal::NotAuthorized));
    assert_eq!(world.with(|zone, now| zone.info(b"a", now)).unwrap().subscribers, 0);
}

#[test]
fn when_one_channel_is_refused_nobody_is_driven_away_from_the_others() {
    let mut world = World::new(256);
    let slot = world.join(0);
    let last = |name, max_subscribers| Subscription {
        hold: Some(slot),
        concurrency: Concurrency::Last,
        max_subscribers,
        ..ask(name, Position::Newest)
    };
    let waiting = world.with(|zone, now| zone.follow(&last(b"a", 0), now)).unwrap();
    world.with(|zone, now| zone.follow(&last(b"b", 0), now)).unwrap();
    let answer = |world: &mut World| {
        world.with(|zone, now| zone.next(waiting.channel, waiting.cursor, waiting.reign, now))
    };
    for refused in [
        last(b"b", 1),
        Subscription { concurrency: Concurrency::First, ..last(b"b", 0) },
        Subscription { authorized_only: true, ..last(b"new", 0) },
    ] {
        let wishes = [last(b"a", 0), refused];
        assert!(world.with(|zone, now| zone.follow_all(&wishes, now)).is_err());
        assert_eq!(answer(&mut world), Answer::UpToDate);
    }
    let limited = world.with(|zone, now| {
        zone.limit_channels(2);
        zone.follow_all(&[last(b"a", 0), last(b"new", 0)], now)
    });
    assert_eq!(limited, Err(Refusal::TooManyChannels));
    assert_eq!(answer(&mut world), Answer::UpToDate);
    world.with(|zone, now| zone.follow_all(&[last(b"a", 0), last(b"b", 0)], now)).unwrap();
    assert_eq!(answer(&mut world), Answer::Conflict);
}

#[test]
fn a_deleted_channel_is_left_after_its_messages_and_the_others_go_on() {
    let mut world = World::new(256);
    let slot = world.join(0);
    let mut reader = begin(&mut world, &[Position::Oldest; 3], Some(slot));
    publish(&mut world, 0, "last words");
    world.with(|zone, now| zone.delete(b"a", now)).unwrap();
    publish(&mut world, 1, "others");
    assert_eq!(reader.all(&mut world), ["last words", "others"]);
    let answer = |world: &mut World, reader: &Reader| {
        world.with(|zone, now| zone.next_of_many(&reader.channels, &reader.standing, now))
    };
    assert_eq!(answer(&mut world, &reader), ManyAnswer::Gone { from: 0 });
    reader.standing = reader.standing.without(0);
    let gone = reader.channels[0];
    world.with(|zone, now| zone.leave(gone, slot, 1, now));
    assert_eq!(answer(&mut world, &reader), ManyAnswer::UpToDate);
    // Its next life is another channel.
    publish(&mut world, 0, "new life");
    publish(&mut world, 2, "still here");
    assert_eq!(reader.all(&mut world), ["still here"]);
}

#[test]
fn who_has_lost_a_channel_is_told_what_it_missed_of_its_next_life() {
    // Whether it had noticed that before the other channel's message came.
    for has_noticed in [false, true] {
        let mut world = World::new(256);
        let wall = world.now.wall;
        (0..NAMES.len()).for_each(|name| publish(&mut world, name, "seen"));
        let mut reader = begin(&mut world, &[Position::Oldest; 3], None);
        assert_eq!(reader.all(&mut world), ["seen"; 3]);
        world.with(|zone, now| zone.delete(b"a", now)).unwrap();
        if has_noticed {
            assert_eq!(reader.all(&mut world), [] as [&str; 0]);
            reader.standing = reader.standing.without(0);
            let place = reader.standing.place().to_string();
            assert_eq!(place, format!("{wall}:x{wall}.0,0,[0]"));
        }
        publish(&mut world, 0, "new life");
        world.pass(1_000);
        publish(&mut world, 0, "and more of it");
        publish(&mut world, 1, "other");
        let (body, missed, id) = reader.next(&mut world).unwrap();
        assert_eq!((body.as_str(), missed), ("other", 0));
        assert_eq!(id.to_string(), format!("{}:x{wall}.0,[0],-", wall + 1));
        let cursors = Cursors::parse(id.to_string().as_bytes(), NAMES.len()).unwrap();
        let mut back = begin(&mut world, &cursors.positions, None);
        let (body, id) = back.next_vague(&mut world);
        assert_eq!(body, "and more of it");
        assert!(id.to_string().ends_with(":[0],0,-"), "{id}");
    }
}

#[test]
fn who_has_lost_a_channel_is_told_with_a_message_of_another_one() {
    let mut world = World::new(256);
    let wall = world.now.wall;
    let after = Position::After(MessageId { time: wall + 3, tag: 0 });
    let lost = |time, tag| Position::Anew { time: wall + 3, lost: MessageId { time, tag } };
    let brief = Publication { message_timeout: 1, channel_timeout: 1, ..say(b"a", &[b"brief"]) };
    let first = world.publish(say(b"a", &[b"seen"]));
    world.with(|zone, now| zone.delete(b"a", now)).unwrap();
    let tell = |world: &mut World, positions: [Position; 3]| {
        let mut reader = begin(world, &positions, None);
        assert_eq!(reader.all(world), [] as [&str; 0]);
        publish(world, 1, "other");
        let (body, missed, _) = reader.read(world).unwrap();
        assert_eq!(body, "other");
        assert_eq!(reader.all(world), [] as [&str; 0]);
        missed
    };
    let nothing = Missed::default();
    let something = Missed { count: 0, at_least: true };
    world.pass(5_000);
    // Nobody has published to it again.
    let of_a = lost(first.time, first.tag);
    assert_eq!(tell(&mut world, [of_a, after, after]), nothing);
    let same_second = Position::Anew { time: first.time, lost: first };
    world.pass(3_600_000);
    assert_eq!(tell(&mut world, [same_second, Position::Newest, after]), nothing);
    // Its next life has come and gone.
    world.with(|zone, now| zone.delete(b"a", now)).unwrap();
    let unseen = world.publish(brief);
    world.pass(10_000);
    let _ = world.with(|zone, now| zone.delete(b"a", now));
    let later = |lost| Position::Anew { time: unseen.time + 1, lost };
    assert_eq!(tell(&mut world, [later(first), Position::Newest, Position::Newest]), something);
    assert_eq!(tell(&mut world, [later(unseen), Position::Newest, Position::Newest]), nothing);
}

#[test]
fn times_of_all_channels_follow_each_other_whatever_the_clock_does() {
    let mut world = World::new(256);
    let mut last = 0;
    for (name, step) in [(0, 0_i64), (1, -500), (2, 3), (0, -2), (1, 1000), (2, -1000), (0, 1)] {
        world.now.wall = world.now.wall.saturating_add_signed(step);
        let id = world.publish(say(NAMES[name], &[b"x"]));
        assert!(id.time >= last);
        last = id.time;
    }
}

/// What happens between two messages that the reader takes.
#[derive(Clone, Copy, Debug)]
enum Step {
    Publish(usize),
    /// Seconds pass, or the clock is set.
    Pass(u64),
    Set(i64),
    Read,
    /// The reader goes, and comes back with its cursor as text.
    Return,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..NAMES.len()).prop_map(Step::Publish),
        2 => (0..3u64).prop_map(|seconds| Step::Pass(seconds * 1000)),
        1 => (-5..5i64).prop_map(Step::Set),
        6 => Just(Step::Read),
        3 => Just(Step::Return),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(config(256))]

    /// Channels hold four messages: what a reader is told to have missed is exactly what it has not got.
    #[test]
    fn with_its_cursor_a_reader_goes_on_where_it_was(steps in steps()) {
        let mut world = World::new(512);
        let mut published = 0;
        let (mut got, mut missed) = (Vec::new(), 0);
        let mut reader = begin(&mut world, &[Position::Oldest; 3], None);
        let mut cursor: Option<String> = None;
        for step in steps.into_iter().chain([Step::Read; 16]) {
            match step {
                Step::Publish(name) => {
                    let body = format!("{published}");
                    world.publish(Publication {
                        max_messages: 4,
                        channel_timeout: 3600,
                        ..say(NAMES[name], &[body.as_bytes()])
                    });
                    published += 1;
                }
                Step::Pass(ms) => world.pass(ms),
                Step::Set(seconds) => {
                    world.now.wall = world.now.wall.saturating_add_signed(seconds);
                }
                Step::Read => {
                    let Some((body, lost, id)) = reader.next(&mut world) else { continue };
                    got.push(body.parse::<u32>().unwrap());
                    missed += lost;
                    cursor = Some(id.to_string());
                }
                Step::Return => {
                    let Some(text) = &cursor else { continue };
                    let cursors = Cursors::parse(text.as_bytes(), NAMES.len()).unwrap();
                    prop_assert!(!cursors.is_foreign);
                    // What was missed and not told yet is told now.
                    reader = begin(&mut world, &cursors.positions, None);
                }
            }
        }
        prop_assert!(got.is_sorted_by(|a, b| a < b), "{got:?}");
        prop_assert_eq!(got.len() as u64 + missed, published);
    }
}

#[test]
fn who_cannot_be_told_later_is_told_at_once_of_what_is_gone_from_quiet_channels() {
    let mut world = World::new(256);
    let slot = world.join(0);
    let mut seen = [0, 1].map(|name| Position::After(world.publish(say(NAMES[name], &[b"seen"]))));
    let second = |world: &mut World| {
        publish(world, 0, "stays");
        world.publish(Publication { message_timeout: 500, ..say(NAMES[1], &[b"goes"]) });
        world.pass(1000);
    };
    (0..5).for_each(|_| second(&mut world));
    // Behind all the time, and back each time with its last cursor.
    for round in 0..5 {
        let wishes =
            [0, 1].map(|name| Subscription { hold: Some(slot), ..ask(NAMES[name], seen[name]) });
        let (channels, mut standing, told) = world.with(|zone, now| {
            let places = zone.follow_all(&wishes, now).unwrap();
            let places: Vec<_> = places.iter().map(|place| zone.past_gap(place, now)).collect();
            let (standing, told) = zone.tell_at_once(&places, now);
            (places.iter().map(|place| place.channel).collect::<Vec<_>>(), standing, told)
        });
        assert_eq!(told, Missed { count: 5, at_least: false }, "{round}");
        let mut got = 0;
        while let ManyAnswer::Message { from, next, standing: come } =
            world.with(|zone, now| zone.next_of_many(&channels, &standing, now))
        {
            assert_eq!(next.missed, Missed::default());
            let cursor = Cursors::parse(come.id(from).to_string().as_bytes(), 2).unwrap();
            seen = [cursor.positions[0], cursor.positions[1]];
            (got, standing) = (got + 1, come);
        }
        assert_eq!(got, 5);
        (0..5).for_each(|_| second(&mut world));
    }
}

/// What happens to somebody whose channels are deleted now and then.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Publish(usize),
    /// What soon goes again, and its channel with it.
    Brief(usize),
    /// A message in each of so many seconds, soon gone: more of them than anybody keeps count of.
    Burst(usize, u64),
    Delete(usize),
    Pass(u64),
    Read,
    /// The reader goes, and comes back with its cursor as text.
    Return,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        6 => (0..NAMES.len()).prop_map(Fate::Publish),
        2 => (0..NAMES.len()).prop_map(Fate::Brief),
        1 => (0..NAMES.len(), 1..20u64).prop_map(|(name, seconds)| Fate::Burst(name, seconds)),
        1 => (0..NAMES.len()).prop_map(Fate::Delete),
        2 => (0..3u64).prop_map(|seconds| Fate::Pass(seconds * 1000)),
        6 => Just(Fate::Read),
        2 => Just(Fate::Return),
    ];
    proptest::collection::vec(fate, 0..100)
}

proptest! {
    #![proptest_config(config(256))]

    /// Nothing comes twice, and what does not come was deleted, or is counted as missed, or it is told that more may have been.
    #[test]
    fn with_its_cursor_a_reader_passes_over_nothing_in_silence(fates in fates()) {
        let mut world = World::new(512);
        let mut got: Vec<usize> = Vec::new();
        // Of each message that was published, its channel, and whether that was deleted since.
        let mut published: Vec<(usize, bool)> = Vec::new();
        let (mut missed, mut is_vague) = (0, false);
        let mut reader = begin(&mut world, &[Position::Oldest; 3], None);
        let mut positions = vec![Position::Oldest; 3];
        // Who has no cursor has missed nothing.
        let begin_with = [0, 1, 2].map(Fate::Publish).into_iter().chain([Fate::Read; 3]);
        // What was missed is told with a message.
        let end = [Fate::Return, Fate::Publish(1)].into_iter().chain([Fate::Read; 100]);
        for fate in begin_with.chain(fates).chain(end) {
            match fate {
                Fate::Publish(name) => {
                    publish(&mut world, name, &published.len().to_string());
                    published.push((name, false));
                }
                Fate::Brief(name) => {
                    world.publish(Publication {
                        message_timeout: 500,
                        channel_timeout: 1,
                        ..say(NAMES[name], &[published.len().to_string().as_bytes()])
                    });
                    published.push((name, false));
                }
                Fate::Burst(name, seconds) => {
                    for _ in 0..seconds {
                        world.publish(Publication {
                            message_timeout: 700,
                            ..say(NAMES[name], &[published.len().to_string().as_bytes()])
                        });
                        published.push((name, false));
                        world.pass(1000);
                    }
                }
                Fate::Delete(name) => {
                    let _ = world.with(|zone, now| zone.delete(NAMES[name], now));
                    let of_it = published.iter_mut().filter(|(channel, _)| *channel == name);
                    of_it.for_each(|(_, is_deleted)| *is_deleted = true);
                }
                Fate::Pass(ms) => world.pass(ms),
                Fate::Read => {
                    let (channels, standing) = (&reader.channels, &reader.standing);
                    let gone = world.with(|zone, now| match zone.next_of_many(channels, standing, now) {
                        ManyAnswer::Gone { from } => Some(from),
                        _ => None,
                    });
                    if let Some(from) = gone {
                        reader.standing = reader.standing.without(from);
                    } else if let Some((body, lost, id)) = reader.read(&mut world) {
                        missed += lost.count;
                        is_vague |= lost.at_least;
                        got.push(body.parse().unwrap());
                        positions = Cursors::parse(id.to_string().as_bytes(), NAMES.len()).unwrap().positions;
                    }
                }
                Fate::Return => reader = begin(&mut world, &positions, None),
            }
        }
        let mut unique = got.clone();
        unique.sort_unstable();
        unique.dedup();
        prop_assert_eq!(unique.len(), got.len(), "{:?}", got);
        let is_lost = |(number, (_, is_deleted)): &(usize, &(usize, bool))| {
            !is_deleted && !got.contains(number)
        };
        let lost: Vec<_> = published.iter().enumerate().filter(is_lost).collect();
        prop_assert!(lost.len() as u64 <= missed || is_vague, "{lost:?}");
    }
}
