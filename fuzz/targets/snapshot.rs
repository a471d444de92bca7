//! Snapshots: whatever the bytes are, they are refused, or make a zone that is in order, goes on, and can be saved again.
//!
//! The first byte says whether length and checksum are made right, the second where the bytes come from: after a `z` from a
//! zone whose history follows, and after an `x` what is changed in them; otherwise they follow, without magic and format.
#![no_main]

use comet::clock::Now;
use comet::config::Concurrency;
use comet::message::{MessageId, Position};
use comet::zone::{
    Content, MemoryError, Publication, Remaining, Snapshot, SnapshotError, Subscribed,
    Subscription, Zone,
};
use fuzz::Plan;
use libfuzzer_sys::fuzz_target;

const NAMES: [&[u8]; 4] = [b"a", b"", &[b'c'; 71], &[0xff; 200]];
/// Bytes of magic and format.
const BEGINNING: usize = 12;
/// Bytes of length and checksum.
const TRAILER: usize = 12;

fn memory(blocks: usize) -> Vec<u64> {
    let now = Now { wall: 1, mono: 1 };
    let Err(MemoryError::TooSmall { needed }) = Zone::format(&mut [], [1, 2], now).map(drop) else {
        panic!("no memory is enough");
    };
    vec![0; needed / 8 + blocks / 8 * 129]
}

/// A snapshot of a zone with a history.
fn saved(plan: &mut Plan<'_>) -> (Vec<u8>, Now) {
    let mut memory = memory(64);
    let mut now = Now { wall: 1_700_000_000, mono: 5_000_000 };
    let mut zone = Zone::format(&mut memory, [1, 2], now).unwrap();
    let mut remaining = Remaining::Nobody;
    while !plan.is_over() {
        match plan.letter() {
            b'p' => {
                let id = NAMES[plan.below(NAMES.len())];
                let body = vec![b'x'; plan.square() as usize / 4];
                let options = plan.number();
                let pieces = [&body[..]];
                let content = match options & 1 {
                    0 => Content::Pieces(&pieces),
                    _ => Content::File { path: b"/file", len: options },
                };
                let publication = Publication {
                    id,
                    content_type: b"text/plain",
                    event: if options & 2 != 0 { b"event" } else { b"" },
                    content,
                    max_messages: [100, 0, 1, 3][options as usize >> 2 & 3],
                    min_messages: 0,
                    message_timeout: [0, 3000][options as usize >> 4 & 1],
                    channel_timeout: 5,
                    delete_when_received: options & 32 != 0,
                };
                let _ = zone.publish(&publication, now);
            }
            b'd' => drop(zone.delete(NAMES[plan.below(NAMES.len())], now)),
            b't' => {
                now.mono += plan.square();
                now.wall += plan.number() / 8;
            }
            b'r' => remaining = Remaining::Predecessor,
            b'x' => break,
            _ => {}
        }
    }
    let mut bytes = Vec::new();
    zone.save(7, remaining, now, &mut bytes).unwrap();
    assert_eq!(zone.check(), Ok(()));
    assert_eq!(Snapshot::read(&bytes).unwrap().token(), 7);
    while !plan.is_over() {
        let place = (plan.letter() as usize * 256 + plan.letter() as usize) % bytes.len();
        bytes[place] = plan.letter();
    }
    (bytes, now)
}

/// The magic and the format that this version writes, whatever that is.
fn beginning() -> Vec<u8> {
    let now = Now { wall: 1, mono: 1 };
    let mut memory = memory(0);
    let mut bytes = Vec::new();
    let mut zone = Zone::format(&mut memory, [1, 2], now).unwrap();
    zone.save(1, Remaining::Nobody, now, &mut bytes).unwrap();
    bytes.truncate(BEGINNING);
    bytes
}

fn seal(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len().saturating_sub(TRAILER));
    let len = bytes.len() as u64 + TRAILER as u64;
    bytes.extend(len.to_le_bytes());
    let checksum = crc32fast::hash(bytes);
    bytes.extend(checksum.to_le_bytes());
}

fuzz_target!(|data: &[u8]| {
    let mut plan = Plan::new(data);
    let is_sealed = plan.flag();
    let (mut bytes, saved_at) = match plan.letter() {
        b'z' => saved(&mut plan),
        _ => ([&beginning()[..], plan.rest(), &[0; TRAILER]].concat(), Now { wall: 1, mono: 1 }),
    };
    if is_sealed {
        seal(&mut bytes);
    }
    let snapshot = match Snapshot::read(&bytes) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            let has_changed = matches!(error, SnapshotError::Length | SnapshotError::Checksum);
            assert!(!is_sealed || !has_changed, "{error}");
            return;
        }
    };
    for blocks in [0, 256] {
        let mut now = Now { wall: saved_at.wall + 1, mono: 7_000 };
        let mut memory = memory(blocks);
        let mut zone = Zone::format(&mut memory, [3, 4], now).unwrap();
        let restored = zone.restore(&snapshot, now, &mut |_, len| len % 3 > 0);
        assert_eq!(zone.check(), Ok(()));
        assert!(restored.messages <= zone.usage().messages);
        let mut again = Vec::new();
        zone.save(8, Remaining::Nobody, now, &mut again).unwrap();
        assert_eq!(Snapshot::read(&again).map(|snapshot| snapshot.token()), Ok(8));
        for id in NAMES {
            let after = Position::After(MessageId { time: now.wall, tag: 0 });
            for position in [Position::Oldest, after, Position::Last(2)] {
                let subscription = Subscription {
                    id,
                    position,
                    hold: None,
                    authorized_only: false,
                    max_subscribers: 0,
                    concurrency: Concurrency::Broadcast,
                    channel_timeout: 5,
                };
                if let Ok(Subscribed::Message(next)) = zone.subscribe(&subscription, now) {
                    let message = zone.copy(&next);
                    assert_eq!(message.id, next.id);
                }
            }
            let publication = Publication {
                id,
                content_type: b"",
                event: b"",
                content: Content::Pieces(&[b"next"]),
                max_messages: 2,
                min_messages: 0,
                message_timeout: 0,
                channel_timeout: 5,
                delete_when_received: false,
            };
            let _ = zone.publish(&publication, now);
            assert_eq!(zone.check(), Ok(()));
        }
        now.mono += 100_000;
        zone.sweep(now, |_| false);
        assert_eq!(zone.check(), Ok(()));
        for id in NAMES {
            zone.delete(id, now);
        }
        assert_eq!(zone.check(), Ok(()));
    }
});
