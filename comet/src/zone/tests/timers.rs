//! Timers fire in time: never early, and at most a second late when the wheel is turned every second.

use super::*;

fn expired(world: &mut World) -> u64 {
    world.with(|zone, _| zone.usage().counters.expired)
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn messages_go_within_a_second_of_their_time() {
    for (timeout, step) in [
        (1, 1000),
        (999, 1000),
        (1000, 1000),
        (1001, 1000),
        (63_000, 1000),
        (64_000, 1000),
        (64_001, 700),
        (65_000, 1000),
        (127_500, 1300),
        (4_095_000, 1000),
        (4_096_000, 1000),
        (4_097_000, 999),
        (4_160_000, 1000),
        (262_143_000, 610_000),
        (262_144_000, 610_000),
        (262_145_000, 630_000),
        (16_777_217_000, 60_000_000),
    ] {
        // Millions of seconds take their time: once is enough.
        let phases = if timeout < 1 << 30 { 5 } else { 1 };
        for phase in [4_095_001, 0, 1, 999, 63_000].into_iter().take(phases) {
            let mut world = World::new(64);
            world.pass(phase);
            // So that the wheel is where it would be.
            world.sweep();
            world.publish(Publication { message_timeout: timeout, ..say(b"c", &[b"x"]) });
            let due = world.now.mono + timeout;
            while world.now.mono < due + 1000 {
                // Long waits in longer steps, but the end second by second.
                let until = due.saturating_sub(world.now.mono);
                world.pass(if until > 2 * step { step } else { step.min(1000) });
                let mut zone = Zone::enter(&mut world.memory, world.now).unwrap();
                zone.sweep(world.now, |_| true);
                if zone.usage().counters.expired == 1 {
                    break;
                }
            }
            assert_eq!(expired(&mut world), 1, "{timeout} from {phase}");
            assert!(world.now.mono >= due, "{timeout} from {phase} fired early");
        }
    }
}

/// What a channel's timer is set to while its last message expires is seen from the second that is being fired.
#[test]
fn a_channel_goes_within_a_second_of_its_time_whenever_its_message_expires() {
    for first in [5_001, 5_055, 5_056, 5_057, 8_191, 8_192, 8_193] {
        for channel_timeout in [1, 62, 63, 64, 65, 127, 128] {
            let mut world = World::new(64);
            let message_timeout = first * 1000 - MONO;
            world.publish(Publication { message_timeout, channel_timeout, ..say(b"c", &[b"x"]) });
            world.pass(message_timeout);
            world.sweep();
            assert_eq!(expired(&mut world), 1);
            let mut seconds = 0;
            while world.with(|zone, _| zone.usage().channels) > 0 {
                world.pass(1000);
                world.sweep();
                seconds += 1;
                assert!(seconds <= channel_timeout + 1, "{channel_timeout} from {first}");
            }
            assert!(seconds >= channel_timeout, "{channel_timeout} from {first}: {seconds}");
        }
    }
}

#[test]
fn an_expired_message_is_not_seen_though_the_wheel_has_not_turned() {
    let mut world = World::new(64);
    let slot = world.join(0);
    let (channel, cursor, reign) = world.wait(b"c", slot);
    world.publish(Publication { message_timeout: 300, ..say(b"c", &[b"x"]) });
    world.pass(299);
    let answer = world.with(|zone, now| zone.next(channel, cursor, reign, now));
    assert!(matches!(answer, Answer::Message(_)));
    world.pass(1);
    let answer = world.with(|zone, now| zone.next(channel, cursor, reign, now));
    assert_eq!(answer, Answer::UpToDate);
    assert_eq!(world.read(b"c", Position::Oldest), None);
    assert_eq!(world.with(|zone, now| zone.info(b"c", now)).unwrap().messages, 0);
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn after_a_long_sleep_all_that_is_due_goes_in_a_few_sweeps() {
    for hours in [1, 10, 24 * 7, 24 * 30] {
        let mut world = World::new(2048);
        for number in 0..200u64 {
            let name = format!("{}", number % 10);
            let message_timeout = 1 + number * number * 7;
            world.publish(Publication { message_timeout, ..say(name.as_bytes(), &[b"x"]) });
            world.pass(37);
        }
        world.pass(hours * 3_600_000);
        let seconds = hours * 3600 + 10;
        let most = seconds / 65_536 + 2;
        for _ in 0..most {
            world.sweep();
        }
        assert_eq!(expired(&mut world), 200, "{hours} h");
        // A few more for the channels, whose idle time has begun only now.
        world.pass(7000);
        world.sweep();
        assert_eq!(world.used(), 0);
        assert_eq!(world.with(|zone, _| zone.usage().counters.collected), 10);
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn operations_and_sweeps_fire_no_more_than_their_budget() {
    let mut world = World::new(24_576);
    for number in 0..10_000u32 {
        let name = (number % 100).to_string();
        let publication = Publication {
            message_timeout: 2000,
            max_messages: 1_000_000,
            ..say(name.as_bytes(), &[b"x"])
        };
        // Not verified each time: that would take long.
        let mut zone = Zone::enter(&mut world.memory, world.now).unwrap();
        zone.publish(&publication, world.now).unwrap();
    }
    world.pass(3000);
    world.with(|zone, now| zone.info(b"no channel", now));
    assert_eq!(expired(&mut world), 64);
    world.with(|zone, now| zone.sweep(now, |_| true));
    assert_eq!(expired(&mut world), 64 + 4096);
    // A channel that is asked is exact at once.
    let info = world.with(|zone, now| zone.info(b"7", now)).unwrap();
    assert_eq!(info.messages, 0);
    for _ in 0..3 {
        world.sweep();
    }
    assert_eq!(expired(&mut world), 10_000);
    world.pass(6000);
    world.sweep();
    assert_eq!(world.used(), 0);
}

#[test]
fn idle_channels_are_collected_when_their_time_is_over() {
    let mut world = World::new(64);
    let wish = Subscription { channel_timeout: 10, ..ask(b"c", Position::Oldest) };
    world.subscribe(wish).unwrap();
    world.pass(9_000);
    world.sweep();
    // Somebody asks again: the time begins anew.
    world.subscribe(wish).unwrap();
    world.pass(9_999);
    world.sweep();
    assert_eq!(world.with(|zone, _| zone.usage().channels), 1);
    world.pass(1);
    world.sweep();
    assert_eq!(world.with(|zone, _| zone.usage().channels), 0);
    assert_eq!(world.used(), 0);
}

#[test]
fn channels_with_messages_or_subscribers_stay() {
    let mut world = World::new(64);
    let slot = world.join(0);
    let used = world.used();
    world.publish(Publication {
        channel_timeout: 0,
        message_timeout: 60_000,
        ..say(b"a", &[b"x"])
    });
    let (waiting, ..) = world.wait(b"b", slot);
    for _ in 0..59 {
        world.pass(1000);
        world.sweep();
    }
    assert_eq!(world.with(|zone, _| zone.usage().channels), 2);
    world.with(|zone, now| zone.leave(waiting, slot, 1, now));
    for _ in 0..8 {
        world.pass(1000);
        world.sweep();
    }
    assert_eq!(world.with(|zone, _| zone.usage().channels), 0);
    assert_eq!(world.used(), used);
}

#[test]
fn a_channel_with_no_idle_time_is_not_collected_under_an_operation_s_feet() {
    // The wheel is behind, so that making room fires the timer of the very channel that is used.
    for phase in [0, 1, 999] {
        let mut world = World::new(64);
        world.pass(phase);
        let slots: Vec<_> = (0..4).map(|index| world.join(index)).collect();
        for number in 0..7u32 {
            let name = number.to_string();
            world.publish(Publication { message_timeout: 500, ..say(name.as_bytes(), &[b"x"]) });
        }
        let wish = Subscription { channel_timeout: 0, ..ask(b"c", Position::Oldest) };
        world.subscribe(wish).unwrap();
        world.pass(2000);
        let publication = Publication { channel_timeout: 0, ..say(b"c", &[&[b'x'; 3000]]) };
        world.with(|zone, now| {
            // What an ordinary operation leaves when its budget is used up.
            let at = zone.find(b"c").unwrap();
            let free = zone.usage().blocks - zone.usage().used_blocks;
            zone.reserve(free + 3, at, now).unwrap();
            assert_eq!(zone.find(b"c"), Some(at));
        });
        world.publish(publication);
        world.with(|zone, _| assert_eq!(zone.seqs_of(b"c"), [1]));
        drop(slots);
    }
}

#[test]
fn the_search_for_dead_workers_does_not_keep_idle_channels() {
    let mut world = World::new(256);
    world.publish(Publication { message_timeout: 1000, channel_timeout: 60, ..say(b"c", &[b"x"]) });
    let mut slot = world.join(0);
    for second in 0..60 {
        // A worker ends every second, and another one takes its place.
        world.pass(1000);
        world.with(|zone, _| zone.part(slot));
        slot = world.join(0);
        world.sweep();
        assert!(world.with(|zone, _| zone.find(b"c")).is_some(), "{second}");
    }
    world.pass(3000);
    world.sweep();
    assert!(world.with(|zone, _| zone.find(b"c")).is_none());
}
