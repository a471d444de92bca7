//! An old cursor is told what it has missed.

use super::*;
use crate::zone::record::LedgerBlock;

fn after(world: &mut World, id: MessageId) -> (u64, Missed) {
    let (message, missed) = world.read(b"c", Position::After(id)).unwrap();
    (message.cursor.seq, missed)
}

fn exactly(count: u64) -> Missed {
    Missed { count, at_least: false }
}

/// Publishes one message in each of so many seconds, and `extra` more in every third, keeping the newest.
fn one_per_second(world: &mut World, seconds: u64, keep: u32) -> Vec<MessageId> {
    let mut ids = Vec::new();
    for second in 0..seconds {
        for _ in 0..=(second % 3) {
            ids.push(world.publish(Publication { max_messages: keep, ..say(b"c", &[b"x"]) }));
        }
        world.pass(1000);
    }
    ids
}

#[test]
fn counts_are_exact_while_the_ledger_has_room() {
    let mut world = World::new(64);
    let ids = one_per_second(&mut world, 14, 2);
    let first = ids.len() as u64 - 1;
    for (place, id) in ids.iter().enumerate() {
        let seq = place as u64 + 1;
        if seq < ids.len() as u64 {
            let missed = first.saturating_sub(seq + 1);
            let expected = (first.max(seq + 1), exactly(missed));
            assert_eq!(after(&mut world, *id), expected, "{seq}");
        }
    }
    assert_eq!(world.read(b"c", Position::After(*ids.last().unwrap())), None);
    // A client from before the beginning has missed all, and maybe more.
    let before = MessageId { time: WALL - 10, tag: 7 };
    let missed = Missed { count: first - 1, at_least: true };
    assert_eq!(after(&mut world, before), (first, missed));
}

/// The cursor of who has seen all of a second, which need not be a message's.
fn all_of(time: u64) -> MessageId {
    MessageId { time, tag: u32::MAX }
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn who_has_seen_all_of_a_second_is_told_at_least_where_the_next_is_forgotten() {
    for seconds in [14, 15, 16, 20, 40, 100] {
        let mut world = World::new(64);
        let ids = one_per_second(&mut world, seconds, 1);
        let mut vague = 0;
        for (place, pair) in
            ids.windows(2).enumerate().filter(|(_, pair)| pair[0].time < pair[1].time)
        {
            let (_, missed) = after(&mut world, all_of(pair[0].time));
            let truth = (ids.len() - place - 2) as u64;
            vague += u64::from(missed.at_least);
            assert!(missed.count <= truth, "{missed:?} {truth}");
            assert!(missed.at_least || missed.count == truth, "{missed:?} {truth}");
        }
        assert_eq!(vague > 0, seconds > 14, "{vague} of {seconds}");
    }
}

#[test]
fn a_message_of_the_second_in_the_log_does_not_say_what_came_after_it() {
    let mut world = World::new(256);
    let seen = world.publish(say(b"c", &[b"x"]));
    let brief = Publication { message_timeout: 700, ..say(b"c", &[b"x"]) };
    for seconds in [13, 1, 1, 1, 20] {
        for _ in 0..seconds {
            world.pass(1000);
            world.publish(brief);
        }
        let truth = world.with(|zone, _| zone.channel(b"c").next_seq) - 3;
        let (_, missed) = after(&mut world, all_of(seen.time));
        assert!(missed.count <= truth, "{missed:?} {truth}");
        assert!(missed.at_least || missed.count == truth, "{missed:?} {truth}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn a_thinned_ledger_never_overstates_and_says_at_least() {
    for seconds in [15, 16, 20, 40, 100, 1000] {
        let mut world = World::new(64);
        let ids = one_per_second(&mut world, seconds, 1);
        let last = ids.len() as u64;
        let (mut exact, mut vague) = (0, 0);
        for (place, id) in ids.iter().enumerate().take(ids.len() - 1) {
            let (seq, missed) = after(&mut world, *id);
            let truth = last - (place as u64 + 1) - 1;
            assert_eq!(seq, last);
            assert!(missed.count <= truth, "{missed:?} {truth}");
            if missed.at_least {
                vague += 1
            } else {
                exact += 1
            };
            assert!(missed.at_least || missed.count == truth, "{missed:?} {truth}");
        }
        assert!(exact >= 7, "{exact} of {last} are known after {seconds} s");
        assert!(vague > 0, "{vague} of {last} after {seconds} s");
        // The most recent seconds are known.
        let (_, missed) = after(&mut world, ids[ids.len() - 3]);
        assert_eq!(missed, exactly(1));
    }
}

#[test]
fn nothing_is_missed_where_nothing_was_dropped() {
    let mut world = World::new(64);
    world.pass(10_000);
    let first = world.publish(say(b"c", &[b"1"]));
    world.pass(10_000);
    world.publish(say(b"c", &[b"2"]));
    for time in [0, WALL, first.time - 1] {
        for tag in [0, 1, u32::MAX] {
            assert_eq!(after(&mut world, MessageId { time, tag }), (1, exactly(0)));
        }
    }
    assert_eq!(after(&mut world, first), (2, exactly(0)));
    assert_eq!(after(&mut world, MessageId { tag: 9, ..first }), (2, exactly(0)));
    let between = MessageId { time: first.time + 5, tag: 3 };
    assert_eq!(after(&mut world, between), (2, exactly(0)));
}

#[test]
fn the_first_message_of_a_second_life_is_the_first() {
    let mut world = World::new(64);
    let ids: Vec<_> = (0..4).map(|_| world.publish(say(b"c", &[b"x"]))).collect();
    world.with(|zone, now| zone.delete(b"c", now));
    world.publish(say(b"c", &[b"y"]));
    // Of what the former life had after it, nobody knows.
    for id in &ids {
        let missed = Missed { count: 0, at_least: id != ids.last().unwrap() };
        assert_eq!(after(&mut world, *id), (1, missed));
    }
    world.publish(Publication { max_messages: 1, ..say(b"c", &[b"z"]) });
    // And of this life one.
    for id in &ids {
        let missed = Missed { count: 1, at_least: id != ids.last().unwrap() };
        assert_eq!(after(&mut world, *id), (2, missed));
    }
    world.pass(3000);
    let last = world.publish(Publication { max_messages: 1, ..say(b"c", &[b"z"]) });
    assert_eq!(after(&mut world, MessageId { tag: 5, time: WALL }), (3, exactly(0)));
    assert_eq!(after(&mut world, MessageId { tag: 4, time: WALL }), (3, exactly(1)));
    assert_eq!(last, MessageId { time: WALL + 3, tag: 0 });
}

/// A zone that was not restored does not know what was before it.
#[test]
fn who_comes_from_before_a_restart_is_told() {
    let vaguely = |count| Missed { count, at_least: true };
    let before = |seconds| MessageId { time: WALL - seconds, tag: 0 };
    let mut world = World::new(64);
    let slot = world.join(0);
    let (channel, cursor, reign) = {
        let subscription =
            Subscription { hold: Some(slot), ..ask(b"c", Position::After(before(1))) };
        let Ok(Subscribed::Waiting { channel, cursor, reign, is_vague: true }) =
            world.subscribe(subscription)
        else {
            panic!("there is nothing yet, and maybe was something");
        };
        (channel, cursor, reign)
    };
    let first = world.publish(say(b"c", &[b"1"]));
    assert_eq!(first, MessageId { time: WALL, tag: 0 });
    let answer = world.with(|zone, now| zone.next(channel, cursor, reign, now));
    assert!(matches!(answer, Answer::Message(next) if next.cursor.seq == 1));
    for seconds in [1, 2, 1000] {
        assert_eq!(after(&mut world, before(seconds)), (1, vaguely(0)));
    }
    // Who has no cursor, and who wants all there is.
    assert_eq!(world.read(b"c", Position::Oldest).unwrap().1, exactly(0));
    assert_eq!(after(&mut world, MessageId { time: 0, tag: 3 }), (1, exactly(0)));
    // The zone is a second old: the present one is all its own.
    world.publish(say(b"c", &[b"2"]));
    assert_eq!(after(&mut world, first), (2, exactly(0)));
    // In a zone of another size, and after a restart with a snapshot, nothing has begun anew: also channels that come later.
    world.pass(10_000);
    let mut bytes = Vec::new();
    world.with(|zone, now| zone.save(7, Remaining::Nobody, now, &mut bytes)).unwrap();
    let (mut larger, mut restored) = (World::new(128), World::new(64));
    (larger.now, restored.now) = (world.now, world.now);
    for other in [&mut larger, &mut restored] {
        Zone::format(&mut other.memory, [3, 4], world.now).unwrap();
    }
    let mut old = Zone::enter(&mut world.memory, world.now).unwrap();
    larger.with(|zone, now| zone.carry_from(&mut old, now));
    let snapshot = Snapshot::read(&bytes).unwrap();
    restored.with(|zone, now| zone.restore(&snapshot, now, &mut |_, _| true));
    for mut world in [larger, restored] {
        world.publish(say(b"new", &[b"1"]));
        for (id, seq) in [(&b"c"[..], 2), (b"new", 1)] {
            let (message, missed) = world.read(id, Position::After(first)).unwrap();
            assert_eq!((message.cursor.seq, missed), (seq, exactly(0)));
            let (_, missed) = world.read(id, Position::After(before(1))).unwrap();
            assert_eq!(missed, vaguely(0));
        }
    }
}

#[test]
fn of_the_second_in_which_a_zone_begins_a_life_before_may_have_given_ids() {
    let mut world = World::new(64);
    Zone::format(&mut world.memory, [1, 2], world.now).unwrap();
    // It has died a moment ago.
    let before = MessageId { time: WALL, tag: 3 };
    let slot = world.join(0);
    let wish = Subscription { hold: Some(slot), ..ask(b"c", Position::After(before)) };
    let place = world.with(|zone, now| zone.follow(&wish, now)).unwrap();
    assert_eq!((place.waits, place.missed), (true, Missed { count: 0, at_least: true }));
    for name in [&b"c"[..], b"new"] {
        let id = world.publish(say(name, &[b"1"]));
        assert!(id > MessageId { time: WALL, tag: u32::MAX }, "{id:?}");
        let (message, missed) = world.read(name, Position::After(before)).unwrap();
        assert_eq!((message.id, missed), (id, Missed { count: 0, at_least: true }));
        world.publish(say(name, &[b"2"]));
        assert_eq!(world.read(name, Position::After(id)).unwrap().1, exactly(0));
    }
}

/// What is known of channels that have ended is not given up for such as never had a message.
#[test]
fn channels_without_messages_leave_no_doubt_about_others() {
    let mut world = World::new(64);
    let first = world.publish(say(b"c", &[b"1"]));
    world.pass(5000);
    world.publish(say(b"ended", &[b"x"]));
    world.with(|zone, now| zone.delete(b"ended", now));
    for number in 0..1000 {
        let id = format!("idle {number}");
        assert_eq!(world.read(id.as_bytes(), Position::Oldest), None);
        world.with(|zone, now| zone.delete(id.as_bytes(), now));
    }
    world.publish(say(b"new", &[b"1"]));
    let (_, missed) = world.read(b"new", Position::After(first)).unwrap();
    assert_eq!(missed, exactly(0));
}

#[test]
fn messages_that_expire_in_the_middle_are_counted() {
    let mut world = World::new(64);
    let mut ids = Vec::new();
    for round in 0..10 {
        let message_timeout = if round % 5 == 0 { 0 } else { 3000 + 1000 * (10 - round) };
        ids.push(world.publish(Publication { message_timeout, ..say(b"c", &[b"x"]) }));
        world.pass(500);
    }
    for _ in 0..30 {
        world.sweep();
        world.pass(1000);
    }
    world.with(|zone, _| assert_eq!(zone.seqs_of(b"c"), [1, 6]));
    for (place, id) in ids.iter().enumerate().take(5) {
        assert_eq!(after(&mut world, *id), (6, exactly(4 - place as u64)), "{place}");
    }
}

#[test]
fn messages_that_expired_but_are_still_there_are_counted() {
    let mut world = World::new(64);
    let first = world.publish(say(b"c", &[b"x"]));
    for _ in 0..3 {
        world.publish(Publication { message_timeout: 2500, ..say(b"c", &[b"x"]) });
        world.pass(800);
    }
    world.publish(say(b"c", &[b"x"]));
    // 2.5 s after the first of them: the wheel has not come to its second yet.
    world.pass(150);
    world.with(|zone, _| assert_eq!(zone.seqs_of(b"c"), [1, 2, 3, 4, 5]));
    assert_eq!(after(&mut world, first), (3, exactly(1)));
    assert_eq!(after(&mut world, MessageId { tag: 9, ..first }), (4, exactly(0)));
    let between = MessageId { time: first.time + 1, tag: 0 };
    assert_eq!(after(&mut world, between), (5, exactly(0)));
}

#[test]
fn who_waits_after_a_position_is_told_what_it_missed_before() {
    let mut world = World::new(64);
    let slot = world.join(0);
    let first = world.publish(say(b"c", &[b"x"]));
    for _ in 0..3 {
        world.pass(1000);
        world.publish(Publication { message_timeout: 1000, max_messages: 1, ..say(b"c", &[b"x"]) });
    }
    world.pass(2000);
    let wish = Subscription { hold: Some(slot), ..ask(b"c", Position::After(first)) };
    let Ok(Subscribed::Waiting { channel, cursor, reign, is_vague }) = world.subscribe(wish) else {
        panic!()
    };
    assert_eq!((cursor.seq, is_vague), (1, false));
    world.publish(say(b"c", &[b"new"]));
    world.with(|zone, now| {
        let Answer::Message(next) = zone.next(channel, cursor, reign, now) else { panic!() };
        assert_eq!((next.cursor.seq, next.missed), (5, exactly(3)));
        // Those without a position have missed nothing.
        let wish = ask(b"c", Position::Oldest);
        let Ok(Subscribed::Message(next)) = zone.subscribe(&wish, now) else { panic!() };
        assert_eq!(next.missed, exactly(0));
    });
}

#[test]
fn a_cursor_from_the_future_waits_for_the_next_message() {
    let mut world = World::new(64);
    let slot = world.join(0);
    world.publish(say(b"c", &[b"1"]));
    for id in [MessageId { time: WALL, tag: u32::MAX }, MessageId { time: u64::MAX, tag: 0 }] {
        let wish = Subscription { hold: Some(slot), ..ask(b"c", Position::After(id)) };
        let Ok(Subscribed::Waiting { cursor, .. }) = world.subscribe(wish) else { panic!() };
        assert_eq!(cursor.seq, 1);
    }
}

#[test]
fn the_ledger_survives_far_away_times_and_numbers() {
    let mut world = World::new(64);
    world.now.wall = u64::from(u32::MAX) - 2;
    let keep = |n| Publication { max_messages: n, ..say(b"c", &[b"x"]) };
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(world.publish(keep(1)));
        world.now.wall += 1;
    }
    for (place, id) in ids.iter().enumerate().take(5) {
        let (seq, missed) = after(&mut world, *id);
        assert_eq!(seq, 6);
        assert!(missed.count <= 4 - place as u64);
        assert!(missed.at_least || missed.count == 4 - place as u64, "{place} {missed:?}");
    }
    world.with(|zone, _| {
        let head = zone.channel_mut(b"c");
        head.next_seq += 1 << 40;
        head.last_time += 1;
    });
    for _ in 0..6 {
        ids.push(world.publish(keep(1)));
        world.now.wall += 1;
    }
    let (_, missed) = after(&mut world, ids[0]);
    assert!(missed.count <= 10 + (1 << 40), "{missed:?}");
}

#[test]
fn what_was_dropped_unseen_may_have_been_anywhere() {
    let mut ledger = LedgerBlock::forgetful();
    let message = |time, seq| MessageHead { time, seq, ..bytemuck::Zeroable::zeroed() };
    let seen = |ledger: &LedgerBlock, time| ledger.seen_at(MessageId { time, tag: 0 }, 60);
    assert!(ledger.record(&message(100, 50)));
    assert!(ledger.record(&message(90, 40)));
    assert!(!ledger.record(&message(90, 41)));
    assert_eq!(seen(&ledger, 80), (39, false));
    assert_eq!(seen(&ledger, 90), (40, true));
    assert_eq!(seen(&ledger, 95), (49, false));
    assert_eq!(seen(&ledger, 100), (50, true));
    assert_eq!(seen(&ledger, 105), (60, false));
    // Also after half of it was forgotten.
    for time in 110..150 {
        ledger.record(&message(time, time - 50));
        assert!(!seen(&ledger, 80).1);
    }
    assert_eq!(ledger.seen_at(MessageId { time: 200, tag: 0 }, 300), (300, false));
}

/// Subscribes after a position, and tells whether there may have been more than the subscriber will be told.
fn waits_vaguely(world: &mut World, slot: SlotRef, id: MessageId) -> bool {
    let wish = Subscription { hold: Some(slot), ..ask(b"c", Position::After(id)) };
    let Ok(Subscribed::Waiting { channel, is_vague, .. }) = world.subscribe(wish) else { panic!() };
    world.with(|zone, now| zone.leave(channel, slot, 1, now));
    is_vague
}

#[test]
fn who_comes_back_to_a_channel_that_was_collected_is_told() {
    let mut world = World::new(64);
    let slot = world.join(0);
    let short = Publication { message_timeout: 1000, ..say(b"c", &[b"x"]) };
    let ids: Vec<_> = (0..3).map(|_| world.publish(short)).collect();
    for _ in 0..20 {
        world.pass(1000);
        world.sweep();
    }
    world.with(|zone, _| assert!(zone.find(b"c").is_none()));
    // It waits, and is told with the next message; who has seen all is told nothing.
    assert!(waits_vaguely(&mut world, slot, ids[1]));
    assert!(!waits_vaguely(&mut world, slot, ids[2]));
    world.publish(say(b"c", &[b"y"]));
    assert_eq!(after(&mut world, ids[1]), (1, Missed { count: 0, at_least: true }));
    assert_eq!(after(&mut world, ids[2]), (1, exactly(0)));
    // From the beginning on, nothing is missing.
    assert_eq!(after(&mut world, MessageId { time: 0, tag: 0 }), (1, exactly(0)));
    assert_eq!(world.read(b"c", Position::Oldest).unwrap().1, exactly(0));
}

#[test]
fn who_waits_is_told_of_what_the_ledger_has_forgotten() {
    let mut world = World::new(64);
    let slot = world.join(0);
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(world.publish(Publication { message_timeout: 1500, ..say(b"c", &[b"x"]) }));
        world.pass(1000);
        world.sweep();
    }
    world.pass(2000);
    world.sweep();
    assert!(waits_vaguely(&mut world, slot, ids[0]));
    assert!(!waits_vaguely(&mut world, slot, ids[38]));
    assert!(!waits_vaguely(&mut world, slot, ids[39]));
}
