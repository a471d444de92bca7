//! What clients may and may not say (RFC 6455 and 7692), however their bytes are cut.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use comet::websocket::{compress, Decoder, Event, Policy};
use proptest::prelude::*;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const MORE: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const OPEN: Policy = Policy { max_message: Some(100_000), deflate: true };

/// A client's frame: the first byte, and the payload, masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
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

/// What is read, and the code of a violation.
type Read = (Vec<Event>, Option<u16>);

fn read_pieces<'a>(policy: &Policy, pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut decoder = Decoder::new();
    let mut events = Vec::new();
    for piece in pieces {
        let result = decoder.read(policy, piece, &mut |event| events.push(event));
        if let Err(violation) = result {
            assert!(!violation.reason.is_empty() && violation.reason.len() < 123);
            return (events, Some(violation.code));
        }
    }
    (events, None)
}

/// Reads the bytes whole and one by one, which must be the same.
fn read(policy: &Policy, bytes: &[u8]) -> Read {
    let whole = read_pieces(policy, [bytes]);
    assert_eq!(read_pieces(policy, bytes.chunks(1)), whole);
    whole
}

fn text(data: &str) -> Event {
    Event::Message { binary: false, data: data.as_bytes().to_vec() }
}

fn binary(data: &[u8]) -> Event {
    Event::Message { binary: true, data: data.to_vec() }
}

fn closed(code: Option<u16>, reason: &str) -> Event {
    Event::Close { code, reason: reason.to_owned() }
}

#[test]
fn what_is_said_right_is_read() {
    let long = vec![7; 70_000];
    let deflated = compress(&[b'z'; 500], 15).unwrap();
    let half = deflated.len() / 2;
    for (name, bytes, events) in [
        ("a text", frame(FIN | TEXT, "hä".as_bytes()), vec![text("hä")]),
        ("an empty text", frame(FIN | TEXT, b""), vec![text("")]),
        ("bytes", frame(FIN | BINARY, &[0, 255]), vec![binary(&[0, 255])]),
        ("126 bytes", frame(FIN | BINARY, &[1; 126]), vec![binary(&[1; 126])]),
        ("70,000 bytes", frame(FIN | BINARY, &long), vec![binary(&long)]),
        ("a ping", frame(FIN | PING, b"?"), vec![Event::Ping(b"?".to_vec())]),
        ("a large ping", frame(FIN | PING, &[1; 125]), vec![Event::Ping(vec![1; 125])]),
        ("a pong nobody asked for", frame(FIN | PONG, b"!"), vec![Event::Pong(b"!".to_vec())]),
        (
            "fragments, one of them empty",
            [frame(TEXT, b"a"), frame(MORE, b""), frame(FIN | MORE, b"b")].concat(),
            vec![text("ab")],
        ),
        (
            "control frames between fragments",
            [
                frame(TEXT, b"a"),
                frame(FIN | PING, b"1"),
                frame(FIN | PONG, b""),
                frame(FIN | MORE, b"b"),
            ]
            .concat(),
            vec![Event::Ping(b"1".to_vec()), Event::Pong(vec![]), text("ab")],
        ),
        (
            "a character in two fragments",
            [frame(TEXT, b"\xc3"), frame(FIN | MORE, b"\xa4")].concat(),
            vec![text("ä")],
        ),
        (
            "two messages",
            [frame(FIN | TEXT, b"a"), frame(FIN | BINARY, b"b")].concat(),
            vec![text("a"), binary(b"b")],
        ),
        ("a compressed text", frame(FIN | RSV1 | TEXT, &deflated), vec![text(&"z".repeat(500))]),
        (
            "a compressed text in fragments, with a ping between",
            [
                frame(RSV1 | TEXT, &deflated[..half]),
                frame(FIN | PING, b""),
                frame(FIN | MORE, &deflated[half..]),
            ]
            .concat(),
            vec![Event::Ping(vec![]), text(&"z".repeat(500))],
        ),
        ("an empty compressed text", frame(FIN | RSV1 | TEXT, &[0]), vec![text("")]),
        (
            "one that is compressed and one that is not",
            [frame(FIN | RSV1 | TEXT, &deflated), frame(FIN | TEXT, b"a")].concat(),
            vec![text(&"z".repeat(500)), text("a")],
        ),
        ("a close without code", frame(FIN | CLOSE, b""), vec![closed(None, "")]),
        ("a close", frame(FIN | CLOSE, b"\x03\xe8bye"), vec![closed(Some(1000), "bye")]),
        (
            "something after the close",
            [frame(FIN | CLOSE, b"\x03\xe8"), frame(FIN | TEXT, b"a"), vec![0xff; 9]].concat(),
            vec![closed(Some(1000), "")],
        ),
        (
            "a close inside a message",
            [frame(TEXT, b"a"), frame(FIN | CLOSE, b"")].concat(),
            vec![closed(None, "")],
        ),
    ] {
        assert_eq!(read(&OPEN, &bytes), (events, None), "{name}");
    }
}

#[test]
fn what_must_not_be_said_has_its_code() {
    let unmasked = b"\x81\x01a".to_vec();
    let bomb = compress(&vec![0; 1 << 20], 15).unwrap();
    let mut negative = vec![FIN | BINARY, 0xff];
    negative.extend(u64::MAX.to_be_bytes());
    let mut huge = vec![FIN | BINARY, 0xff];
    huge.extend((i64::MAX as u64).to_be_bytes());
    for (name, bytes, code) in [
        ("no mask", unmasked, 1002),
        ("the second reserved bit", frame(FIN | 0x20 | TEXT, b""), 1002),
        ("the third reserved bit", frame(FIN | 0x10 | TEXT, b""), 1002),
        ("a compressed ping", frame(FIN | RSV1 | PING, b""), 1002),
        (
            "a compressed continuation",
            [frame(TEXT, b""), frame(FIN | RSV1 | MORE, b"")].concat(),
            1002,
        ),
        ("a reserved opcode", frame(FIN | 3, b""), 1002),
        ("a reserved control opcode", frame(FIN | 0xb, b""), 1002),
        ("a continuation of nothing", frame(FIN | MORE, b"a"), 1002),
        ("a message inside a message", [frame(TEXT, b"a"), frame(FIN | TEXT, b"b")].concat(), 1002),
        ("a ping in fragments", frame(PING, b""), 1002),
        ("a ping that is too large", frame(FIN | PING, &[0; 126]), 1002),
        ("a length in more bytes than it needs", vec![FIN | TEXT, 0xfe, 0, 125], 1002),
        ("the same in eight bytes", vec![FIN | TEXT, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], 1002),
        ("a negative length", negative, 1002),
        ("an announcement of too much", huge, 1009),
        (
            "too much in fragments",
            [frame(BINARY, &[0; 60_000]), frame(FIN | MORE, &[0; 40_001])].concat(),
            1009,
        ),
        ("too much compressed", frame(FIN | RSV1 | BINARY, &bomb), 1009),
        ("no deflate data", frame(FIN | RSV1 | BINARY, b"\xff\xff\xff"), 1007),
        ("no UTF-8", frame(FIN | TEXT, b"\xff"), 1007),
        ("a surrogate", frame(FIN | TEXT, b"\xed\xa0\x80"), 1007),
        ("a character that is too long", frame(FIN | TEXT, b"\xc0\xaf"), 1007),
        ("half a character", frame(FIN | TEXT, b"a\xc3"), 1007),
        (
            "compressed text that is no UTF-8",
            frame(FIN | RSV1 | TEXT, &compress(&[0xff; 99], 15).unwrap()),
            1007,
        ),
        ("a close of one byte", frame(FIN | CLOSE, b"\x03"), 1002),
        ("a reason that is no UTF-8", frame(FIN | CLOSE, b"\x03\xe8\xff"), 1007),
    ] {
        assert_eq!(read(&OPEN, &bytes), (vec![], Some(code)), "{name}");
    }
}

#[test]
fn close_codes_are_those_that_may_be_sent() {
    let allowed = |code: &u16| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    for code in (0..6000_u16).chain([65_535]) {
        let (events, violation) = read(&OPEN, &frame(FIN | CLOSE, &code.to_be_bytes()));
        match allowed(&code) {
            true => assert_eq!((events, violation), (vec![closed(Some(code), "")], None)),
            false => assert_eq!((events, violation), (vec![], Some(1002)), "{code}"),
        }
    }
}

#[test]
fn a_bad_byte_is_noticed_before_its_message_is_complete() {
    let mut decoder = Decoder::new();
    let bytes = [frame(TEXT, b"fine"), frame(MORE, b"\xce\xba\xff")].concat();
    assert!(decoder.read(&OPEN, &bytes, &mut |event| panic!("{event:?}")).is_err());
}

#[test]
fn who_may_not_publish_is_told_at_the_first_bytes() {
    let closed = Policy { max_message: None, deflate: true };
    for first in [FIN | TEXT, BINARY, FIN | RSV1 | TEXT] {
        let bytes = frame(first, b"");
        assert_eq!(read(&closed, &bytes[..2]), (vec![], Some(1008)));
    }
    assert_eq!(read(&closed, &frame(FIN | PING, b"?")), (vec![Event::Ping(b"?".to_vec())], None));
}

#[test]
fn without_agreement_nothing_may_be_compressed() {
    let plain = Policy { deflate: false, ..OPEN };
    assert_eq!(read(&plain, &frame(FIN | RSV1 | TEXT, &[0])), (vec![], Some(1002)));
}

#[test]
fn a_message_may_be_as_large_as_allowed() {
    let small = Policy { max_message: Some(4), deflate: true };
    assert_eq!(read(&small, &frame(FIN | TEXT, b"four")), (vec![text("four")], None));
    assert_eq!(read(&small, &frame(FIN | TEXT, b"fives")), (vec![], Some(1009)));
    let two = [frame(TEXT, b"fo"), frame(FIN | MORE, b"ur")].concat();
    assert_eq!(read(&small, &two), (vec![text("four")], None));
}

#[test]
fn an_idle_client_holds_nothing() {
    let mut decoder = Decoder::new();
    assert!(decoder.is_idle());
    let message = [frame(TEXT, b"a"), frame(FIN | MORE, b"b")].concat();
    for cut in 1..message.len() {
        let (start, rest) = message.split_at(cut);
        decoder.read(&OPEN, start, &mut drop).unwrap();
        assert!(!decoder.is_idle());
        decoder.read(&OPEN, rest, &mut drop).unwrap();
        assert!(decoder.is_idle());
    }
    assert!(size_of::<Decoder>() <= 16);
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    let first = prop_oneof![
        8 => prop::sample::select(vec![FIN | TEXT, FIN | BINARY, TEXT, BINARY, MORE, FIN | MORE]),
        4 => prop::sample::select(vec![FIN | PING, FIN | PONG, FIN | CLOSE, FIN | RSV1 | TEXT]),
        1 => any::<u8>(),
    ];
    (first, payload).prop_map(|(first, payload)| frame(first, &payload))
}

proptest! {
    #[test]
    fn any_cutting_gives_the_same(
        frames in prop::collection::vec(any_frame(), 0..8),
        size in 1..400_usize,
    ) {
        let bytes = frames.concat();
        prop_assert_eq!(read_pieces(&OPEN, bytes.chunks(size)), read_pieces(&OPEN, [&bytes[..]]));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, max in 0..200_u64) {
        let policy = Policy { max_message: Some(max), deflate: true };
        let (events, _) = read_pieces(&policy, [&bytes[..]]);
        for event in events {
            if let Event::Message { data, .. } = event {
                prop_assert!(data.len() as u64 <= max);
            }
        }
    }

    #[test]
    fn what_is_compressed_comes_out_as_it_went_in(
        words in prop::collection::vec("[a-z]{1,9} ", 20..400),
        bits in 9..=15_u8,
    ) {
        let body = words.concat();
        if let Some(small) = compress(body.as_bytes(), bits) {
            prop_assert!(small.len() < body.len());
            prop_assert_eq!(read(&OPEN, &frame(FIN | RSV1 | TEXT, &small)), (vec![text(&body)], None));
        }
    }
}
