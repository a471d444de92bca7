//! `Accept`: which transport a subscriber gets, and in which form a publisher reads of its channel.
#![no_main]

use comet::transport::{choose, Asked, Transport, Transports, Unserved};
use comet::wire::accept;
use fuzz::lines;
use libfuzzer_sys::fuzz_target;

const ALL: [Transports; 10] = [
    Transports::LONG_POLL,
    Transports::INTERVAL_POLL,
    Transports::EVENT_SOURCE,
    Transports::WEBSOCKET,
    Transports::STREAM,
    Transports::JSON_LINES,
    Transports::MULTIPART,
    Transports::MIXED_REPLACE,
    Transports::IFRAME,
    Transports::JSONP,
];

fuzz_target!(|data: &[u8]| {
    let [bits, one, other] = lines(data);
    let bits = bits.unwrap_or_default();
    let (low, high) = (bits.first().copied().unwrap_or(0), bits.get(1).copied().unwrap_or(0));
    let number = u16::from_le_bytes([low, high]);
    let is_set = |bit: usize| number & 1 << bit != 0;
    let allowed =
        (0..10).filter(|bit| is_set(*bit)).fold(Transports::NONE, |set, bit| set.and(ALL[bit]));
    let accept: Vec<&[u8]> = one.into_iter().chain(other).collect();

    for media_type in accept::media_types(&accept) {
        assert!(!media_type.iter().any(|byte| b",;".contains(byte)));
        assert_eq!(media_type, media_type.trim_ascii());
    }
    let chosen = accept::negotiate(one);
    let names = |text: &[u8]| {
        let text = text.to_ascii_lowercase();
        text.windows(chosen.content_type.len()).any(|part| part == chosen.content_type.as_bytes())
    };
    assert!(chosen == accept::DEFAULT || one.is_some_and(names));

    if allowed.is_empty() {
        return;
    }
    let asked = Asked { handshake: is_set(10), callback: is_set(11), accept };
    match choose(allowed, &asked) {
        Ok(transport) => {
            assert!(allowed.contains(transport));
            assert_eq!(asked.handshake, transport == Transport::WebSocket);
        }
        Err(error) => {
            assert!(error.reply().status >= 400);
            match error {
                Unserved::NoWebSocket { .. } => {
                    assert!(asked.handshake && !allowed.contains(Transport::WebSocket));
                }
                Unserved::OnlyWebSocket => assert!(!asked.handshake),
                Unserved::Part { .. } => panic!("the choice is not told of parts"),
                Unserved::NoEventSource { .. } => {
                    assert!(!allowed.contains(Transport::EventSource));
                }
            }
        }
    }
});
