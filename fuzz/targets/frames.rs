//! What WebSocket clients send, however it is cut.
//!
//! The first bytes say what is allowed and where to cut. After an `m`, messages follow that are sent as a client sends
//! them and must come out again; after anything else, raw bytes.
#![no_main]

use comet::websocket::{compress, Decoder, Event, Policy, Violation};
use fuzz::Plan;
use libfuzzer_sys::fuzz_target;

type Read = (Vec<Event>, Result<(), Violation>, bool);

fn read<'a>(policy: &Policy, pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut decoder = Decoder::new();
    let mut events = Vec::new();
    for piece in pieces {
        let result = decoder.read(policy, piece, &mut |event| events.push(event));
        if result.is_err() {
            return (events, result, true);
        }
    }
    let is_idle = decoder.is_idle();
    (events, Ok(()), is_idle)
}

/// Sends a frame as a client does.
fn frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Messages as a client sends them, and what must be read of them.
fn conversation(plan: &mut Plan<'_>, deflate: bool) -> (Vec<u8>, Vec<Event>) {
    let (mut sent, mut events) = (Vec::new(), Vec::new());
    while !plan.is_over() {
        let repeat = 1 + plan.below(40);
        let len = plan.below(60);
        let data = plan.bytes(len).repeat(repeat);
        let binary = plan.flag() || std::str::from_utf8(&data).is_err();
        let compressed = if deflate { compress(&data, 15) } else { None };
        let mut first = if binary { 2 } else { 1 } | if compressed.is_some() { 0x40 } else { 0 };
        let payload = compressed.as_ref().unwrap_or(&data);
        let size = 1 + plan.number() as usize;
        let mut parts: Vec<&[u8]> = payload.chunks(size).collect();
        if parts.is_empty() {
            parts.push(b"");
        }
        let last = parts.len() - 1;
        for (place, part) in parts.into_iter().enumerate() {
            let end = if place == last { 0x80 } else { 0 };
            let mask = std::array::from_fn(|_| plan.letter());
            sent.extend(frame(first | end, mask, part));
            first = 0;
            if place < last && plan.below(8) == 1 {
                let len = plan.below(126);
                let payload = plan.bytes(len);
                sent.extend(frame(0x89, [1, 2, 3, 4], payload));
                events.push(Event::Ping(payload.to_vec()));
            }
        }
        events.push(Event::Message { binary, data });
    }
    (sent, events)
}

fuzz_target!(|data: &[u8]| {
    let mut plan = Plan::new(data);
    let deflate = plan.flag();
    let max_message = match plan.below(4) {
        0 => None,
        1 => Some(plan.square()),
        2 => Some(100_000),
        _ => Some(0),
    };
    let cut = 1 + plan.square() as usize / 16;
    let (input, expected) = match plan.letter() {
        b'm' => {
            let (sent, events) = conversation(&mut plan, deflate);
            (sent, Some(events))
        }
        _ => (plan.rest().to_vec(), None),
    };
    let policy = match expected {
        Some(_) => Policy { max_message: Some(100_000), deflate },
        None => Policy { max_message, deflate },
    };
    let whole = read(&policy, [&input[..]]);
    assert_eq!(whole, read(&policy, input.chunks(cut)), "in pieces of {cut}");
    assert_eq!(whole, read(&policy, input.chunks(1)), "byte by byte");
    if let Some(expected) = expected {
        return assert_eq!(whole, (expected, Ok(()), true));
    }
    let (events, ..) = whole;
    for (place, event) in events.iter().enumerate() {
        match event {
            Event::Message { binary, data } => {
                assert!(policy.max_message.is_some_and(|max| data.len() as u64 <= max));
                assert!(*binary || std::str::from_utf8(data).is_ok());
            }
            Event::Ping(payload) | Event::Pong(payload) => assert!(payload.len() <= 125),
            Event::Close { reason, .. } => {
                assert!(reason.len() <= 123);
                assert_eq!(place, events.len() - 1);
            }
        }
    }
});
