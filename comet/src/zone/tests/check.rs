//! That the checker notices what is wrong, whatever it is.

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::ops::Range;
use std::sync::LazyLock;

use bytemuck::Zeroable;
use proptest::prelude::*;

use super::*;
use crate::zone::memory::{Header, Parts};
use crate::zone::record::{
    ChannelTail, DataBlock, EntryBlock, LedgerBlock, MailBlock, SlotHead, DELETED, IDLE_CLASS,
    NOTIFIED,
};

/// The memory of a zone in which there is something of everything, while a process is in it.
fn full_of_life() -> Vec<u64> {
    let mut world = World::new(256);
    let slots: Vec<SlotRef> = (0..7).map(|index| world.join(index)).collect();
    for round in 0..12 {
        let pieces: [&[u8]; 1] = [&[b'0' + round; 150]];
        world.publish(Publication { max_messages: 4, ..say(b"a", &pieces) });
        world.publish(say(&[b'n'; 300], &[&[b'x'; 500]]));
        if round % 3 == 2 {
            world.pass(1000);
        }
    }
    for name in [&b"idle"[..], b"idle, too"] {
        world.subscribe(ask(name, Position::Oldest)).unwrap();
    }
    for seconds in [1, 70, 90, 7200, 300_000] {
        let message_timeout = seconds * 1000;
        world.publish(Publication { message_timeout, ..say(b"timed", &[b"x"]) });
    }
    world.publish(Publication { max_messages: 0, ..say(b"c", &[b"transient"]) });
    let content = Content::File { path: b"/some/where", len: 3 };
    world.publish(Publication { content, delete_when_received: true, ..say(b"c", &[]) });
    for slot in &slots {
        for name in [&b"c"[..], b"gone", b"gone, too"] {
            world.wait(name, *slot);
        }
    }
    world.publish(Publication { event: b"event", ..say(b"c", &[b"x"]) });
    for name in [&b"gone"[..], b"gone, too"] {
        world.publish(say(name, &[b"last words"]));
        world.with(|zone, now| zone.delete(name, now)).unwrap();
    }
    world.publish(say(b"dead", &[&[b'x'; 2000]]));
    world.with(|zone, now| zone.delete(b"dead", now)).unwrap();
    let zone = Zone::enter(&mut world.memory, world.now).unwrap();
    assert_eq!(zone.check(), Ok(()));
    std::mem::forget(zone);
    world.memory
}

static FULL_OF_LIFE: LazyLock<Vec<u64>> = LazyLock::new(full_of_life);

fn zone(memory: &mut [u64]) -> Zone<'_> {
    Zone::over(Parts::attach(memory).unwrap())
}

/// What the checker says of a damaged zone.
fn check(memory: &[u64], damage: impl FnOnce(&mut Zone<'_>)) -> Result<(), Fault> {
    let mut memory = memory.to_vec();
    let mut zone = zone(&mut memory);
    damage(&mut zone);
    zone.check()
}

/// What each block is.
fn roles(zone: &Zone<'_>) -> BTreeMap<u32, &'static str> {
    let mut roles = BTreeMap::new();
    let mut chain = |mut at: At, role| {
        while at.is_some() {
            roles.insert(at.0, role);
            at = zone.get::<DataBlock>(at).next;
        }
    };
    chain(zone.header.free, "free");
    let mut messages = Vec::new();
    for channel in zone.channels() {
        let head = zone.get::<ChannelHead>(channel);
        let tail = zone.get::<ChannelTail>(head.tail);
        chain(tail.id_rest, "data");
        chain(tail.more, "entries");
        let mut at = head.first;
        while at.is_some() {
            messages.push(at);
            let message = zone.get::<MessageHead>(at);
            chain(message.rest, "data");
            at = message.next;
        }
    }
    for channel in zone.channels() {
        let head = zone.get::<ChannelHead>(channel);
        let role = if head.next_seq > 1 { "channel" } else { "fresh channel" };
        roles.extend([(channel.0, role), (head.tail.0, "tail")]);
        if head.ledger.is_some() {
            roles.insert(head.ledger.0, "ledger");
        }
    }
    roles.extend(messages.iter().map(|at| (at.0, "message")));
    for slot in zone.slots() {
        roles.insert(slot.0, "slot");
        roles.extend(zone.get::<SlotHead>(slot).mail.map(|mail| (mail.0, "mail")));
    }
    roles
}

macro_rules! fields {
    ($record:ty: $($field:ident),*) => { vec![$({
        let begin = offset_of!($record, $field);
        begin..begin + size_of_val(&<$record>::zeroed().$field)
    }),*] };
}

/// The fields that may have any value, or nearly so. What they must not say is in the next test.
fn free_fields(role: &str) -> Vec<Range<usize>> {
    match role {
        "header" => {
            fields!(Header: lives, stamps, newest_time, unknown, wheel_now,
            dead_time, dead_tag, counters, told, told_at, tombstones)
        }
        "channel" => fields!(ChannelHead: deadline, requested, reign, timeout, former_time,
            former_tag),
        "fresh channel" => fields!(ChannelHead: deadline, last_time, last_tag, next_seq, requested,
            reign, timeout, former_time, former_tag),
        "tail" => fields!(ChannelTail: unused, id, entries),
        "entries" => fields!(EntryBlock: unused, entries),
        "message" => fields!(MessageHead: wheel_next, wheel_prev, type_len, content_len, content,
            deadline, min_stored, file_len),
        "data" => fields!(DataBlock: unused, bytes),
        "free" => fields!(DataBlock: unused, bytes),
        "slot" => fields!(SlotHead: unused, index, generation, pid, rest),
        "mail" => fields!(MailBlock: unused, hints),
        "ledger" => {
            let mut fields = fields!(LedgerBlock: thinned, unused);
            let entries = offset_of!(LedgerBlock, entries);
            // The first one, before which there is nothing, and what is behind the last one.
            fields.extend([entries..entries + 8, entries + 3 * 8..BLOCK_SIZE]);
            fields
        }
        _ => vec![],
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn a_wrong_byte_in_any_field_that_means_something_is_noticed() {
    let memory = FULL_OF_LIFE.clone();
    let mut copy = memory.clone();
    let zone = zone(&mut copy);
    let roles = roles(&zone);
    let ledgers = roles.iter().filter(|(_, role)| **role == "ledger");
    for (at, _) in ledgers {
        assert_eq!(zone.get::<LedgerBlock>(At(*at)).len, 3);
    }
    let buckets = size_of::<Header>();
    let blocks = buckets + size_of_val(&*zone.buckets);
    let end = blocks + zone.header.fresh as usize * BLOCK_SIZE;
    drop(zone);
    let mut noticed: BTreeMap<&str, usize> = BTreeMap::new();
    for place in 0..end {
        let (role, offset) = match place {
            _ if place < buckets => ("header", place),
            _ if place < blocks => ("bucket", place - buckets),
            _ => {
                let (block, offset) =
                    ((place - blocks) / BLOCK_SIZE, (place - blocks) % BLOCK_SIZE);
                (roles.get(&(block as u32)).copied().unwrap_or("none"), offset)
            }
        };
        if role == "none" || free_fields(role).iter().any(|field| field.contains(&offset)) {
            continue;
        }
        let mut damaged = memory.clone();
        bytemuck::cast_slice_mut::<u64, u8>(&mut damaged)[place] ^= 0xff;
        let Ok(parts) = Parts::attach(&mut damaged) else {
            assert_eq!(role, "header");
            continue;
        };
        assert!(Zone::over(parts).check().is_err(), "byte {offset} of a {role}, {place} in all");
        *noticed.entry(role).or_default() += 1;
    }
    let all = ["bucket", "channel", "data", "entries", "free", "fresh channel", "header", "ledger"];
    let all = [&all[..], &["mail", "message", "slot", "tail"]].concat();
    assert_eq!(noticed.keys().copied().collect::<Vec<_>>(), all);
}

#[test]
fn what_fields_must_not_say_is_noticed() {
    type Damage = fn(&mut Zone<'_>);
    let damages: &[(&str, Damage)] = &[
        ("lives were given that are not counted", |zone| zone.header.lives = 1),
        ("stamps were given that are not counted", |zone| zone.header.stamps = 1),
        ("a message is newer than the newest", |zone| zone.header.newest_time = WALL),
        ("a life ended before it began", |zone| zone.header.unknown[0].after = 1),
        ("more was told than has happened", |zone| zone.header.told.evicted = 1),
        ("the wheel has gone past a timer", |zone| zone.header.wheel_now += 80),
        ("a file is being rewritten", |zone| zone.header.ledger_in_work = At(1)),
        ("two channels have one life", |zone| {
            let life = zone.channel(b"a").life;
            zone.channel_mut(b"c").life = life;
        }),
        ("a channel has another one's id", |zone| {
            let tail = zone.channel(b"a").tail;
            zone.get_mut::<ChannelTail>(tail).id[0] = b'c';
        }),
        ("an id is longer than what there is of it", |zone| zone.channel_mut(b"a").id_len += 100),
        ("the deleted one is in the table", |zone| zone.channel_mut(b"a").flags = DELETED),
        ("a busy channel is idle", |zone| {
            zone.channel_mut(b"idle").class = 0;
        }),
        ("an idle channel stays for ever", |zone| {
            let at = zone.find(b"idle").unwrap();
            zone.disarm(at);
        }),
        ("an idle channel is in no list", |zone| {
            let at = zone.find(b"idle").unwrap();
            zone.leave_class(at);
        }),
        ("who had a message is among those that never had one", |zone| {
            zone.channel_mut(b"idle").next_seq = 2;
        }),
        ("a channel with subscribers counts as idle", |zone| {
            let at = zone.find(b"c").unwrap();
            zone.leave_class(at);
            zone.channel_mut(b"c").class = IDLE_CLASS;
        }),
        ("the next number was given", |zone| zone.channel_mut(b"a").next_seq -= 1),
        ("a number was left out", |zone| zone.channel_mut(b"a").next_seq += 1),
        ("the next tag was given", |zone| zone.channel_mut(b"a").last_tag -= 1),
        ("the last second is past", |zone| zone.channel_mut(b"a").last_time -= 1),
        ("a number comes again", |zone| zone.first_mut(b"timed").seq += 1),
        ("a tag comes again", |zone| zone.first_mut(b"timed").tag += 1),
        ("a second comes late", |zone| zone.first_mut(b"a").time += 1),
        ("a stamp comes again", |zone| {
            let stamp = zone.first_mut(b"a").stamp;
            zone.first_mut(b"timed").stamp = stamp;
        }),
        ("stamps and times disagree", |zone| {
            let stamp = zone.header.stamps + 1;
            zone.header.stamps = stamp;
            zone.first_mut(b"a").stamp = stamp;
        }),
        ("a message counts and does not", |zone| zone.first_mut(b"a").flags = 1),
        ("flags that nobody knows", |zone| zone.first_mut(b"a").flags |= 64),
        ("content is cut off", |zone| zone.first_mut(b"a").content_len += 200),
        ("content is too long", |zone| zone.first_mut(b"a").content_len -= 150),
        ("a message that expires has no timer", |zone| {
            let at = zone.channel(b"timed").first;
            zone.disarm(at);
        }),
        ("a message that does not expire has one", |zone| {
            let at = zone.channel(b"timed").first;
            zone.get_mut::<MessageHead>(at).deadline = u64::MAX;
        }),
        ("a message expires late", |zone| {
            let at = zone.channel(b"timed").last;
            zone.get_mut::<MessageHead>(at).deadline = MONO + 10_000;
        }),
        ("the ledger disagrees with the log", |zone| {
            let at = zone.channel(b"a").ledger;
            zone.get_mut::<LedgerBlock>(at).entries[2].base += 1;
        }),
        ("the ledger is not in order", |zone| {
            let at = zone.channel(b"a").ledger;
            zone.get_mut::<LedgerBlock>(at).entries.swap(0, 1);
        }),
        ("the ledger is longer than it can be", |zone| {
            let at = zone.channel(b"a").ledger;
            zone.get_mut::<LedgerBlock>(at).len = 15;
        }),
        ("a hole behind the ledger's end", |zone| {
            let at = zone.channel(b"a").ledger;
            zone.get_mut::<LedgerBlock>(at).thinned = 1 << 15;
        }),
        ("subscribers of a worker that never was", |zone| {
            let at = zone.channel(b"c").tail;
            zone.get_mut::<ChannelTail>(at).entries[0].generation += 1;
        }),
        ("subscribers of no worker", |zone| {
            let at = zone.channel(b"c").tail;
            zone.get_mut::<ChannelTail>(at).entries[0].slot = At::NONE;
        }),
        ("subscribers of a channel", |zone| {
            let other = zone.find(b"a").unwrap();
            let at = zone.channel(b"c").tail;
            zone.get_mut::<ChannelTail>(at).entries[0].slot = other;
        }),
        ("one worker has two entries", |zone| {
            let at = zone.channel(b"c").tail;
            let entries = &mut zone.get_mut::<ChannelTail>(at).entries;
            entries[0] = entries[1];
        }),
        ("a hint for nobody", |zone| {
            let at = zone.channel(b"c").tail;
            zone.get_mut::<ChannelTail>(at).entries[0].count = NOTIFIED;
        }),
        ("two workers have one place", |zone| {
            let slots = zone.slots();
            zone.get_mut::<SlotHead>(slots[0]).index = 0;
        }),
        ("a dead worker has mail", |zone| {
            let slot = zone.slots()[0];
            zone.get_mut::<SlotHead>(slot).pid = 0;
        }),
        ("a worker with mail sleeps", |zone| {
            let slot = zone.slots()[0];
            zone.get_mut::<SlotHead>(slot).signaled = 0;
        }),
        ("more mail than there can be", |zone| {
            let slot = zone.slots()[0];
            zone.get_mut::<SlotHead>(slot).mail_len = 61;
        }),
        ("a block is lost", |zone| {
            zone.header.free = zone.get::<DataBlock>(zone.header.free).next;
            zone.header.free_count -= 1;
        }),
        ("a block in use is free", |zone| {
            let at = zone.channel(b"a").tail;
            zone.free(at);
        }),
        ("a block is free twice", |zone| {
            let at = zone.header.free;
            zone.get_mut::<DataBlock>(at).next = at;
        }),
        ("a bucket goes round", |zone| {
            let at = zone.find(b"a").unwrap();
            zone.get_mut::<ChannelHead>(at).bucket_next = at;
        }),
        ("the leaving go round", |zone| {
            let at = zone.header.leaving;
            zone.get_mut::<ChannelHead>(at).bucket_next = at;
        }),
        ("a log goes round", |zone| {
            let first = zone.channel(b"a").first;
            let last = zone.channel(b"a").last;
            zone.get_mut::<MessageHead>(last).next = first;
        }),
        ("a class goes round", |zone| {
            let at = zone.class_head(1);
            zone.get_mut::<ChannelHead>(at).class_next = at;
        }),
        ("the wheel goes round", |zone| {
            let at = zone.channel(b"timed").last;
            zone.get_mut::<MessageHead>(at).wheel_next = at;
        }),
        ("workers go round", |zone| {
            let slot = zone.slots()[6];
            zone.get_mut::<SlotHead>(slot).next = slot;
        }),
        ("entries go round", |zone| {
            let more = zone.get::<ChannelTail>(zone.channel(b"c").tail).more;
            zone.get_mut::<EntryBlock>(more).next = more;
        }),
    ];
    let memory = FULL_OF_LIFE.clone();
    assert_eq!(check(&memory, |_| ()), Ok(()));
    for (what, damage) in damages {
        assert!(check(&memory, damage).is_err(), "{what}, and nobody noticed");
    }
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn a_check_ends_whatever_the_memory_holds(
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0..3u8, any::<u64>()), 1..12),
    ) {
        let mut memory = FULL_OF_LIFE.clone();
        for (place, how, value) in damage {
            let halves: &mut [u32] = bytemuck::cast_slice_mut(&mut memory);
            let place = place.index(halves.len());
            halves[place] = match how {
                0 => value as u32,
                1 => (value % 256) as u32,
                _ => halves[value as usize % halves.len()],
            };
        }
        if let Ok(parts) = Parts::attach(&mut memory) {
            let _ = Zone::over(parts).check();
        }
    }
}
