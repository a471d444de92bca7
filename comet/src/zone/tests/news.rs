//! Tests for what an operator is told.

use super::*;
use crate::zone::News;

/// Publishes until something is evicted.
fn overfill(zone: &mut Zone<'_>, now: Now) {
    let before = zone.usage().counters.evicted;
    while zone.usage().counters.evicted == before {
        let pieces: [&[u8]; 1] = [&[7; 2_000]];
        let publication = Publication {
            id: b"a",
            content_type: b"",
            event: b"",
            content: Content::Pieces(&pieces),
            max_messages: 1_000,
            min_messages: 0,
            message_timeout: 0,
            channel_timeout: 5,
            delete_when_received: false,
        };
        zone.publish(&publication, now).unwrap();
    }
}

#[test]
fn evictions_are_told_once_and_not_more_often_than_once_a_minute() {
    let mut memory = vec![0; 8_192];
    let mut now = Now { wall: WALL, mono: MONO };
    let mut zone = Zone::format(&mut memory, [1, 2], now).unwrap();
    assert_eq!(zone.take_news(now), None);
    overfill(&mut zone, now);
    assert!(zone.take_news(now).is_some_and(|news| news.evicted > 0 && news.recovered == 0));
    assert_eq!(zone.take_news(now), None);
    overfill(&mut zone, now);
    now.mono += 59_999;
    assert_eq!(zone.take_news(now), None);
    now.mono += 1;
    assert!(zone.take_news(now).is_some());
    now.mono += 60_000;
    assert_eq!(zone.take_news(now), None);
}

#[test]
fn who_ends_tells_what_is_left_to_tell() {
    let mut memory = vec![0; 8_192];
    let now = Now { wall: WALL, mono: MONO };
    let mut zone = Zone::format(&mut memory, [1, 2], now).unwrap();
    overfill(&mut zone, now);
    assert!(zone.take_news(now).is_some());
    assert_eq!(zone.take_last_news(now), None);
    overfill(&mut zone, now);
    assert!(zone.take_last_news(now).is_some_and(|news| news.evicted > 0));
    assert_eq!(zone.take_last_news(now), None);
}

#[test]
fn a_recovery_is_told() {
    let mut memory = vec![0; 8_192];
    let now = Now { wall: WALL, mono: MONO };
    drop(Zone::format(&mut memory, [1, 2], now).unwrap());
    std::mem::forget(Zone::enter(&mut memory, now).unwrap());
    let mut zone = Zone::enter(&mut memory, now).unwrap();
    assert_eq!(zone.take_news(now), Some(News { evicted: 0, recovered: 1 }));
}
