//! Invariant I10, with an allocator that refuses: whichever request for blocks fails, be it that one alone or all from then
//! on, who asked gets a clear error or all that was asked for, nothing is half done, and no block is lost.

use super::crash::{logs, prepared, Logs, NAMES};
use super::*;
use crate::publisher::PublishError;

/// Whether it was done.
type Act = fn(&mut Zone<'_>, SlotRef, Now) -> bool;

const LONG: &[u8] = NAMES[4];

fn is_published<T>(result: Result<T, PublishError>) -> bool {
    assert!(matches!(result, Ok(_) | Err(PublishError::NoSpace { .. })));
    result.is_ok()
}

fn is_admitted<T>(result: Result<T, Refusal>) -> bool {
    assert!(matches!(result, Ok(_) | Err(Refusal::NoSpace)));
    result.is_ok()
}

fn cases() -> Vec<(&'static str, Act)> {
    vec![
        ("publish: first in a new channel", |zone, _, now| {
            is_published(zone.publish(&say(LONG, &[&[b'x'; 300]]), now))
        }),
        ("publish: first in an idle channel", |zone, _, now| {
            is_published(zone.publish(&say(b"idle", &[&[b'x'; 300]]), now))
        }),
        ("publish: later", |zone, _, now| {
            is_published(zone.publish(&say(b"a", &[&[b'x'; 300]]), now))
        }),
        ("publish: with a file", |zone, _, now| {
            let content = Content::File { path: &[b'p'; 300], len: 1 };
            is_published(zone.publish(&Publication { content, ..say(b"b", &[]) }, now))
        }),
        ("publish: with a first trim", |zone, _, now| {
            let publication = say(b"c", &[&[b'x'; 300]]);
            is_published(zone.publish(&Publication { max_messages: 1, ..publication }, now))
        }),
        ("publish: transient", |zone, _, now| {
            let publication = say(b"c", &[b"x"]);
            is_published(zone.publish(&Publication { max_messages: 0, ..publication }, now))
        }),
        ("publish: to several", |zone, _, now| {
            let body: [&[u8]; 1] = [&[b'x'; 200]];
            is_published(zone.publish_all(&NAMES.map(|name| say(name, &body)), now))
        }),
        ("subscribe: creating", |zone, slot, now| {
            let wish = Subscription { hold: Some(slot), ..ask(LONG, Position::Oldest) };
            is_admitted(zone.subscribe(&wish, now))
        }),
        ("subscribe: one more", |zone, slot, now| {
            let wish = Subscription { hold: Some(slot), ..ask(b"c", Position::Newest) };
            is_admitted(zone.subscribe(&wish, now))
        }),
        ("join and subscribe: with a new block of entries", |zone, _, now| {
            (10..16).all(|index| {
                let Some(slot) = zone.join(index, 50 + index, now) else { return false };
                let wish = Subscription { hold: Some(slot), ..ask(b"c", Position::Newest) };
                is_admitted(zone.subscribe(&wish, now))
            })
        }),
        ("follow", |zone, slot, now| {
            let wish = Subscription { hold: Some(slot), ..ask(LONG, Position::Oldest) };
            is_admitted(zone.follow(&wish, now))
        }),
        ("follow: several", |zone, slot, now| {
            let hold = Some(slot);
            let wish = |name| Subscription { hold, ..ask(name, Position::Newest) };
            let before = subscribers(zone, now);
            let is_done = is_admitted(zone.follow_all(&NAMES.map(wish), now));
            // Refused by one, it is counted nowhere.
            assert_eq!(subscribers(zone, now), before + if is_done { 5 } else { 0 });
            is_done
        }),
        ("join", |zone, _, now| zone.join(4, 44, now).is_some()),
        ("join again", |zone, _, now| zone.join(0, 44, now).is_some()),
        ("delete", |zone, _, now| zone.delete(b"b", now).is_some()),
        ("received", |zone, slot, now| {
            let at = zone.find(b"c").unwrap();
            let life = crate::message::Life(zone.get::<ChannelHead>(at).life);
            zone.received(ChannelRef { at, life }, Cursor { life, seq: 1 }, slot, now);
            true
        }),
        ("expire and collect", |zone, _, mut now| {
            for _ in 0..12 {
                now.mono += 1000;
                zone.sweep(now, |_| true);
            }
            true
        }),
    ]
}

fn subscribers(zone: &mut Zone<'_>, now: Now) -> u64 {
    NAMES.iter().filter_map(|name| zone.info(name, now)).map(|info| info.subscribers).sum()
}

/// Which requests fail: only this one, or it and all later ones.
fn scarcities(first: u32) -> [Scarcity; 2] {
    [first..first + 1, first..u32::MAX].map(|refused| Scarcity { requests: 0, refused })
}

/// Everything goes, and nothing is left but the slots.
fn end(zone: &mut Zone<'_>, mut now: Now, what: &str) {
    for name in NAMES {
        zone.delete(name, now);
    }
    for _ in 0..4 {
        now.mono += 60_000;
        zone.sweep(now, |_| false);
    }
    assert_eq!(zone.check(), Ok(()), "{what}");
    let slots = slot_blocks(zone);
    assert_eq!((zone.usage().used_blocks, zone.usage().channels), (slots, 0), "{what}");
}

/// Each channel's log is as it was before or as it was to be.
fn is_between(found: &Logs, before: &Logs, after: &Logs) -> bool {
    found.iter().all(|(name, log)| [&before[name], &after[name]].contains(&log))
}

#[test]
fn a_request_for_blocks_that_fails_is_told_and_loses_nothing() {
    for (name, act) in cases() {
        let (world, slot) = prepared(128);
        let now = world.now;
        let (mut with_room, mut before) = (world.memory.clone(), world.memory.clone());
        let mut zone = Zone::enter(&mut with_room, now).unwrap();
        assert!(act(&mut zone, slot, now), "{name}");
        let after = logs(&zone);
        drop(zone);
        let before = logs(&Zone::enter(&mut before, now).unwrap());
        for first in 0.. {
            let mut was_refused = false;
            for scarcity in scarcities(first) {
                let what = format!("{name}, {scarcity:?}");
                let mut memory = world.memory.clone();
                let mut zone = Zone::enter(&mut memory, now).unwrap();
                zone.scarcity = Some(scarcity);
                let is_done = act(&mut zone, slot, now);
                let requests = zone.scarcity.take().unwrap().requests;
                was_refused |= requests > first;
                assert_eq!(zone.check(), Ok(()), "{what}");
                let found = logs(&zone);
                match is_done {
                    true => assert_eq!(found, after, "{what}"),
                    false if name.ends_with("to several") => {
                        assert!(is_between(&found, &before, &after), "{what}");
                    }
                    false => assert_eq!(found, before, "{what}"),
                }
                assert!(is_done || requests > first, "{what}: refused without a reason");
                assert_eq!(zone.usage().counters.evicted, 0, "{what}");
                end(&mut zone, now, &what);
            }
            if !was_refused {
                break;
            }
        }
    }
}

#[test]
fn what_finds_no_block_on_the_move_is_counted() {
    let (mut old, _) = prepared(128);
    let before = old.with(|zone, _| logs(zone));
    let count = |logs: &Logs| logs.values().map(Vec::len).sum::<usize>() as u32;
    let mut bytes = Vec::new();
    old.with(|zone, now| zone.save(0, Remaining::Nobody, now, &mut bytes)).unwrap();
    let now = old.now;
    for first in 0.. {
        let mut was_refused = false;
        for scarcity in scarcities(first) {
            for is_carried in [true, false] {
                let what = format!("{scarcity:?}, carried: {is_carried}");
                let mut source = old.memory.clone();
                let mut source = Zone::enter(&mut source, now).unwrap();
                let mut memory = vec![0; words(128)];
                let mut zone = Zone::format(&mut memory, [3, 4], now).unwrap();
                zone.scarcity = Some(scarcity.clone());
                let dropped = if is_carried {
                    zone.carry_from(&mut source, now).dropped
                } else {
                    let snapshot = Snapshot::read(&bytes).unwrap();
                    zone.restore(&snapshot, now, &mut |_, _| true).dropped
                };
                was_refused |= zone.scarcity.take().unwrap().requests > first;
                assert_eq!(zone.check(), Ok(()), "{what}");
                let found = logs(&zone);
                assert_eq!(count(&found) + dropped, count(&before), "{what}");
                for (name, log) in &found {
                    assert!(log.iter().all(|message| before[name].contains(message)), "{what}");
                }
                let files = zone.take_trash().len()
                    + found[&b"c"[..]]
                        .iter()
                        .filter(|message| matches!(message.body, Body::File { .. }))
                        .count();
                assert_eq!(files, 1, "{what}");
                end(&mut zone, now, &what);
            }
        }
        if !was_refused {
            break;
        }
    }
}
