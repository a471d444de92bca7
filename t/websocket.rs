//! Tests for WebSocket: a table of conformance (RFC 6455, 7692), subscribing and publishing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use support::event_source::EventSource;
use support::nginx::{has_or_skip, make_certificate};
use support::push::{pattern, publisher, subscriber, Info};
use support::tls::Tunnel;
use support::websocket::{
    deflate, inflate, to_bytes, Frame, Handshake, Message, WebSocket, BINARY, CLOSE, MASK, PING,
    PONG, RSV1, TEXT,
};
use support::{on_1_and_4_workers, wait, Client, Config, Cursor, Nginx, Request};

on_1_and_4_workers!(
    // The handshake.
    the_handshake_is_answered_as_the_standard_says,
    a_handshake_of_another_version_is_426_with_the_right_one,
    a_handshake_without_a_proper_key_is_400,
    a_handshake_by_http_1_0_is_400,
    a_subprotocol_is_chosen_only_if_it_is_known,
    frames_may_come_together_with_the_handshake,
    // The table of conformance.
    framing,
    fragments,
    pings_and_pongs,
    reserved_bits_and_opcodes,
    frames_without_a_mask,
    text_that_is_utf_8,
    text_that_is_not_utf_8,
    text_is_checked_as_it_comes,
    closing,
    limits,
    frames_arrive_in_any_pieces,
    a_frame_may_stop_in_the_middle,
    // Compression.
    offers_of_compression,
    compression_can_be_turned_off,
    messages_are_compressed_where_that_helps,
    a_small_window_is_kept_to,
    each_client_gets_what_it_has_agreed_to,
    compressed_messages_from_clients,
    a_small_message_that_inflates_to_a_large_one_is_1009,
    // Subscribing.
    a_message_is_one_frame_of_its_kind,
    stored_messages_come_first_and_live_ones_after_them,
    large_messages_come_whole,
    meta_carries_the_id_and_the_type,
    a_client_goes_on_behind_the_id_in_its_url,
    what_was_missed_before_is_said_in_the_handshake,
    a_subscriber_may_not_publish,
    a_deletion_closes_with_1001,
    a_timeout_closes_with_1000,
    a_conflict_closes_with_1008,
    a_shutdown_closes_with_1012,
    the_server_pings,
    a_client_that_does_not_answer_is_given_up,
    a_client_that_reads_a_large_message_slowly_is_there,
    a_publishers_handshake_may_have_a_body,
    a_client_may_close_at_any_time,
    who_asks_without_reading_gets_everything_in_order,
    who_asks_without_reading_is_told_of_a_shutdown,
    who_asks_without_reading_over_tls_is_told_of_a_shutdown,
    // Publishing.
    a_publisher_gets_info_for_each_message,
    info_comes_in_the_form_that_the_handshake_accepts,
    info_can_be_turned_on_and_off,
    who_publishes_and_listens_gets_his_own_messages,
    published_frames_have_the_type_of_the_handshake,
    published_messages_reach_all_transports,
    many_messages_in_one_write_are_published_in_order,
    many_messages_for_many_channels_are_answered_to_the_end,
    a_publisher_is_not_a_subscriber,
    a_publisher_has_no_subscriber_timeout,
    a_message_that_can_never_fit_closes_with_1009,
    a_message_without_room_closes_with_1013,
);

const DEFLATE: &str = "permessage-deflate";
const LIMIT: usize = 100_000;

/// `/sub` subscribes, `/pub` publishes, `/quiet` publishes without replies, `/both` does both.
fn start(workers: usize, text: &str) -> Nginx {
    let locations = format!(
        "location /quiet {{ push_publisher; push_channel_id $arg_id; push_websocket_info off; {text} }}
         location /both {{ push_pubsub; push_channel_id $arg_id; {text} }}"
    );
    let config = Config::push(workers)
        .http(&format!("client_max_body_size {LIMIT}; push_message_buffer_length 5000;"))
        .publisher(text)
        .subscriber(text);
    Nginx::start(config.server(&locations))
}

fn listen(nginx: &Nginx, id: &str) -> WebSocket {
    Handshake::to(&subscriber(id)).open(nginx.port())
}

fn delete(nginx: &Nginx, id: &str) {
    nginx.request(&Request::new("DELETE", &publisher(id))).expect_status(200);
}

/// Publishes a message of a type.
fn publish_typed(nginx: &Nginx, id: &str, body: impl Into<Vec<u8>>, content_type: &str) {
    let request = Request::post(&publisher(id), body).header("Content-Type", content_type);
    let status = nginx.request(&request).status;
    assert!(status == 201 || status == 202, "{status}");
}

// ---- The table of conformance.

/// What a publisher sends, and what must come of it.
struct Case {
    name: String,
    /// Pieces that are written one by one.
    sent: Vec<Vec<u8>>,
    extensions: Option<&'static str>,
    /// Pongs that come back, before anything else.
    pongs: Vec<Vec<u8>>,
    published: Vec<Vec<u8>>,
    end: End,
}

/// How the connection is after a case.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It goes on.
    Open,
    /// The server has closed with this code.
    Closed(u16),
    /// The server has closed with no code.
    ClosedWithoutCode,
    /// The server has closed with one of these.
    ClosedWithEither(u16, u16),
}

impl Case {
    fn new(name: impl Into<String>, frames: &[Frame]) -> Self {
        Case::bytes(name, to_bytes(frames))
    }

    fn bytes(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Case {
            name: name.into(),
            sent: vec![bytes],
            extensions: None,
            pongs: Vec::new(),
            published: Vec::new(),
            end: End::Open,
        }
    }

    fn compressed(self) -> Self {
        Case { extensions: Some(DEFLATE), ..self }
    }

    fn byte_by_byte(self) -> Self {
        let sent = self.sent.concat().iter().map(|&byte| vec![byte]).collect();
        Case { sent, ..self }
    }

    fn publishes(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.published.push(body.into());
        self
    }

    fn pong(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.pongs.push(payload.into());
        self
    }

    fn closes(self, code: u16) -> Self {
        Case { end: End::Closed(code), ..self }
    }

    fn closes_without_code(self) -> Self {
        Case { end: End::ClosedWithoutCode, ..self }
    }
}

/// Runs all cases, each on a channel and a connection of its own.
fn run(workers: usize, cases: Vec<Case>) {
    let nginx = start(workers, "");
    for (number, case) in cases.into_iter().enumerate() {
        let id = format!("case-{number}");
        eprintln!("case {number}: {}", case.name);
        let mut handshake = Handshake::to(&format!("/quiet?id={id}")).key(number);
        if let Some(offer) = case.extensions {
            handshake = handshake.extensions(offer);
        }
        let mut socket = handshake.open(nginx.port());
        for piece in &case.sent {
            // The server may have closed after an earlier piece.
            let _ = socket.client().try_send_bytes(piece);
        }
        for payload in &case.pongs {
            socket.expect_pong(payload);
        }
        match case.end {
            End::Open => socket.close(),
            End::Closed(code) => {
                socket.expect_close(Some(code));
            }
            End::ClosedWithoutCode => {
                socket.expect_close(None);
            }
            End::ClosedWithEither(one, other) => {
                let code = socket.frame().close_code();
                assert!(code == Some(one) || code == Some(other), "{code:?}");
            }
        }
        let stored: Vec<Vec<u8>> = nginx.poll_all(&id).into_iter().map(|r| r.body).collect();
        let lengths = |bodies: &[Vec<u8>]| bodies.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(&stored), lengths(&case.published), "published in {}", case.name);
        assert!(stored == case.published, "published in {}: {stored:?}", case.name);
    }
}

fn framing(workers: usize) {
    let mut cases = Vec::new();
    for length in [0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 128, 4_096, 65_535, 65_536, LIMIT] {
        let text = "x".repeat(length);
        cases.push(
            Case::new(format!("text of {length} bytes"), &[Frame::text(text.clone())])
                .publishes(text),
        );
        let bytes = pattern(length);
        cases.push(
            Case::new(format!("binary of {length} bytes"), &[Frame::binary(bytes.clone())])
                .publishes(bytes),
        );
    }
    let masks = [[0; 4], [0xff; 4], [0, 0, 0, 1], [0x80, 0, 0, 0], [1, 2, 3, 4]];
    for mask in masks {
        for length in [0, 1, 7, 8, 9, 15, 16, 17, 33, 1_000] {
            let body = pattern(length);
            let bytes = Frame::binary(body.clone()).to_bytes(Some(mask));
            cases
                .push(Case::bytes(format!("mask {mask:?}, {length} bytes"), bytes).publishes(body));
        }
    }
    let many: Vec<Frame> = (0..50).map(|number| Frame::text(format!("message {number}"))).collect();
    let many = (0..50).fold(Case::new("50 in one write", &many), |case, number| {
        case.publishes(format!("message {number}"))
    });
    cases.push(many);
    let mixed = [Frame::text("a"), Frame::binary("b"), Frame::text(""), Frame::binary("")];
    let mixed = Case::new("kinds mixed", &mixed);
    cases.push(mixed.publishes("a").publishes("b").publishes("").publishes(""));
    run(workers, cases);
}

/// A message of text in parts.
fn in_parts(parts: &[&[u8]]) -> Vec<Frame> {
    let last = parts.len() - 1;
    parts
        .iter()
        .enumerate()
        .map(|(number, part)| Frame {
            fin: number == last,
            ..Frame::new(if number == 0 { TEXT } else { 0 }, *part)
        })
        .collect()
}

fn fragments(workers: usize) {
    let parts =
        |name: &str, parts: &[&[u8]]| Case::new(name, &in_parts(parts)).publishes(parts.concat());
    let letters: Vec<&[u8]> = (0..200).map(|_| &b"x"[..]).collect();
    let between = |name: &str, frame: Frame| {
        Case::new(name, &[Frame::text("one ").unfinished(), frame, Frame::continuation("two")])
    };
    run(
        workers,
        vec![
            parts("two", &[b"one ", b"two"]),
            parts("three", &[b"one ", b"two ", b"three"]),
            parts("an empty first", &[b"", b"two"]),
            parts("an empty middle", &[b"one ", b"", b"three"]),
            parts("an empty last", &[b"one ", b""]),
            parts("all empty", &[b"", b"", b""]),
            parts("200 of a byte", &letters),
            parts("200 of a byte, byte by byte", &letters).byte_by_byte(),
            parts("long ones", &[&[b'a'; 30_000], &[b'b'; 126], &[b'c'; 60_000]]),
            Case::new(
                "of a binary message",
                &[Frame::binary([0xff]).unfinished(), Frame::continuation([0xfe])],
            )
            .publishes([0xff, 0xfe]),
            between("a ping between", Frame::ping("?")).pong("?").publishes("one two"),
            between("a pong between", Frame::pong("!")).publishes("one two"),
            Case::new(
                "pings everywhere",
                &[
                    Frame::ping("1"),
                    Frame::text("one ").unfinished(),
                    Frame::ping("2"),
                    Frame::ping("3"),
                    Frame::continuation("two ").unfinished(),
                    Frame::ping("4"),
                    Frame::continuation("three"),
                    Frame::ping("5"),
                ],
            )
            .pong("1")
            .pong("2")
            .pong("3")
            .pong("4")
            .pong("5")
            .publishes("one two three"),
            between("a close between", Frame::close(1000, "")).closes(1000),
            between("a new text between", Frame::text("x")).closes(1002),
            between("a new binary between", Frame::binary("x")).closes(1002),
            between("a new unfinished text between", Frame::text("x").unfinished()).closes(1002),
            Case::new("a continuation of nothing", &[Frame::continuation("x")]).closes(1002),
            Case::new("an empty continuation of nothing", &[Frame::continuation("")]).closes(1002),
            Case::new(
                "an unfinished continuation of nothing",
                &[Frame::continuation("x").unfinished()],
            )
            .closes(1002),
            Case::new(
                "a continuation after a whole message",
                &[Frame::text("whole"), Frame::continuation("x")],
            )
            .publishes("whole")
            .closes(1002),
            Case::new(
                "a continuation after the last part",
                &[
                    Frame::text("o").unfinished(),
                    Frame::continuation("ne"),
                    Frame::continuation("x"),
                ],
            )
            .publishes("one")
            .closes(1002),
            Case::new("never finished", &[Frame::text("one").unfinished()]),
        ],
    );
}

fn pings_and_pongs(workers: usize) {
    let payload: Vec<u8> = (0..125).map(|byte| byte * 2 + 1).collect();
    let ten: Vec<Frame> = (0..10).map(|number| Frame::ping(format!("ping {number}"))).collect();
    let ten = |name: &str| {
        (0..10).fold(Case::new(name, &ten), |case, number| case.pong(format!("ping {number}")))
    };
    run(
        workers,
        vec![
            Case::new("empty", &[Frame::ping("")]).pong(""),
            Case::new("text", &[Frame::ping("hello")]).pong("hello"),
            Case::new("no text", &[Frame::ping([0xff, 0, 0xfe])]).pong([0xff, 0, 0xfe]),
            Case::new("125 bytes", &[Frame::ping(payload.clone())]).pong(payload.clone()),
            Case::new("byte by byte", &[Frame::ping(payload.clone())]).byte_by_byte().pong(payload),
            ten("ten in one write"),
            ten("ten, byte by byte").byte_by_byte(),
            Case::new("pongs nobody asked for", &[Frame::pong(""), Frame::pong("x")]),
            Case::new(
                "a ping after a pong",
                &[Frame::pong("x"), Frame::ping("y"), Frame::text("z")],
            )
            .pong("y")
            .publishes("z"),
            Case::new("126 bytes", &[Frame::ping(vec![b'x'; 126])]).closes(1002),
            Case::new("a long one", &[Frame::ping(vec![b'x'; 70_000])]).closes(1002),
            Case::new("126 bytes of pong", &[Frame::pong(vec![b'x'; 126])]).closes(1002),
            Case::new("an unfinished ping", &[Frame::ping("x").unfinished()]).closes(1002),
            Case::new("an unfinished pong", &[Frame::pong("x").unfinished()]).closes(1002),
            Case::new("a ping in two", &[Frame::ping("x").unfinished(), Frame::continuation("y")])
                .closes(1002),
        ],
    );
}

fn reserved_bits_and_opcodes(workers: usize) {
    let mut cases = Vec::new();
    for rsv in 1..8 {
        for (name, frame) in [
            ("text", Frame::text("x")),
            ("binary", Frame::binary("x")),
            ("ping", Frame::ping("x")),
            ("pong", Frame::pong("x")),
            ("close", Frame::close(1000, "")),
        ] {
            let frame = frame.rsv(rsv);
            let name = format!("bits {rsv:03b} on {name}");
            cases.push(Case::new(name.clone(), std::slice::from_ref(&frame)).closes(1002));
            if rsv != RSV1 || frame.opcode >= 8 {
                let name = format!("{name} with compression");
                cases.push(Case::new(name, &[frame]).compressed().closes(1002));
            }
        }
        let parts = [Frame::text("x").unfinished(), Frame::continuation("y").rsv(rsv)];
        let name = format!("bits {rsv:03b} on a continuation");
        cases.push(Case::new(name.clone(), &parts).closes(1002));
        cases.push(Case::new(format!("{name} with compression"), &parts).compressed().closes(1002));
    }
    for opcode in (3..8).chain(11..16) {
        for payload in ["", "x"] {
            let frame = Frame::new(opcode, payload);
            let name = format!("opcode {opcode} with {payload:?}");
            cases.push(Case::new(name.clone(), std::slice::from_ref(&frame)).closes(1002));
            let after = [Frame::text("one"), frame, Frame::text("two")];
            cases.push(
                Case::new(format!("{name} between messages"), &after).publishes("one").closes(1002),
            );
        }
    }
    run(workers, cases);
}

fn frames_without_a_mask(workers: usize) {
    let mut cases = Vec::new();
    for (name, frame) in [
        ("text", Frame::text("x")),
        ("empty text", Frame::text("")),
        ("binary", Frame::binary("x")),
        ("ping", Frame::ping("x")),
        ("pong", Frame::pong("x")),
        ("close", Frame::close(1000, "")),
    ] {
        cases.push(Case::bytes(name, frame.to_bytes(None)).closes(1002));
    }
    let second = [Frame::text("one").to_bytes(Some(MASK)), Frame::text("two").to_bytes(None)];
    cases.push(Case::bytes("the second", second.concat()).publishes("one").closes(1002));
    run(workers, cases);
}

fn text_that_is_utf_8(workers: usize) {
    let mut cases = Vec::new();
    for text in [
        "Grüße, 世界, 😀",
        "\u{0}",
        "\u{7f}\u{80}\u{7ff}\u{800}",
        "\u{d7ff}\u{e000}\u{fffd}\u{fffe}\u{ffff}",
        "\u{10000}\u{1fffe}\u{1ffff}\u{10fffe}\u{10ffff}",
        "\u{feff}with a mark",
        "κόσμε",
    ] {
        cases.push(Case::new(format!("{text:?}"), &[Frame::text(text)]).publishes(text));
        let name = format!("{text:?}, byte by byte");
        cases.push(Case::new(name, &[Frame::text(text)]).byte_by_byte().publishes(text));
        for at in 1..text.len() {
            let frames = in_parts(&[&text.as_bytes()[..at], &text.as_bytes()[at..]]);
            cases.push(Case::new(format!("{text:?} in parts at {at}"), &frames).publishes(text));
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        let name = format!("{text:?} in parts of a byte");
        cases.push(Case::new(name, &in_parts(&bytes)).publishes(text));
    }
    // Bytes that are no text are fine where none is promised.
    cases.push(Case::new("binary", &[Frame::binary([0xff])]).publishes([0xff]));
    cases.push(Case::new("a ping", &[Frame::ping([0xff])]).pong([0xff]));
    let ping = [Frame::text("ü").unfinished(), Frame::ping([0xc3]), Frame::continuation("ü")];
    cases.push(Case::new("a ping within text", &ping).pong([0xc3]).publishes("üü"));
    run(workers, cases);
}

fn text_that_is_not_utf_8(workers: usize) {
    let invalid: [&[u8]; 24] = [
        b"\x80",
        b"\xbf",
        b"\xc0\xaf",
        b"\xc1\xbf",
        b"\xc3",
        b"\xc3\x28",
        b"\xe0\x80\xaf",
        b"\xe0\x9f\xbf",
        b"\xe2\x82",
        b"\xe2\x28\xa1",
        b"\xe2\x82\x28",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf0\x80\x80\xaf",
        b"\xf0\x8f\xbf\xbf",
        b"\xf0\x9f\x98",
        b"\xf0\x28\x8c\xbc",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xfe",
        b"\xff",
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65",
    ];
    let mut cases = Vec::new();
    for bytes in invalid {
        let frame = || Frame::text(bytes);
        cases.push(Case::new(format!("{bytes:x?}"), &[frame()]).closes(1007));
        cases.push(
            Case::new(format!("{bytes:x?} byte by byte"), &[frame()]).byte_by_byte().closes(1007),
        );
        let parts: Vec<&[u8]> = bytes.chunks(1).chain([&b""[..]]).collect();
        cases.push(Case::new(format!("{bytes:x?} in parts"), &in_parts(&parts)).closes(1007));
        let after = [b"a long text before it: ".repeat(10), bytes.to_vec()].concat();
        cases.push(Case::new(format!("{bytes:x?} after text"), &[Frame::text(after)]).closes(1007));
        let compressed = Frame::text(deflate(bytes)).rsv(RSV1);
        let name = format!("{bytes:x?} compressed");
        cases.push(Case::new(name, &[compressed]).compressed().closes(1007));
        let reason = [&1000_u16.to_be_bytes()[..], bytes].concat();
        let name = format!("{bytes:x?} as a reason to close");
        cases.push(Case::new(name, &[Frame::new(CLOSE, reason)]).closes(1007));
    }
    let good = [Frame::text("good"), Frame::text([0xff]), Frame::text("late")];
    cases.push(Case::new("between good ones", &good).publishes("good").closes(1007));
    run(workers, cases);
}

fn text_is_checked_as_it_comes(workers: usize) {
    let nginx = start(workers, "");
    // The first part of a message is enough.
    let mut socket = Handshake::to("/quiet?id=a").open(nginx.port());
    socket.send(&[Frame::text("good ".as_bytes()).unfinished()]);
    socket.send(&[Frame::continuation([b'x', 0xff]).unfinished()]);
    socket.expect_close(Some(1007));
    // So is the first part of a frame.
    let mut socket = Handshake::to("/quiet?id=a").open(nginx.port());
    let bytes = [&b"good "[..], &[0xff], &[b'x'; 50_000]].concat();
    let bytes = Frame::text(bytes).to_bytes(Some(MASK));
    socket.send_bytes(&bytes[..100]);
    socket.expect_close(Some(1007));
    // A surrogate is known by its second byte.
    let mut socket = Handshake::to("/quiet?id=a").open(nginx.port());
    socket.send(&[Frame::text([0xed, 0xa0]).unfinished()]);
    socket.expect_close(Some(1007));
    assert_eq!(nginx.messages("a"), 0);
}

fn closing(workers: usize) {
    let mut cases = vec![
        Case::new("without a code", &[Frame::new(CLOSE, "")]).closes_without_code(),
        Case::new("half a code", &[Frame::new(CLOSE, [3])]).closes(1002),
        Case::new("a reason", &[Frame::close(1000, "goodbye, ü")]).closes(1000),
        Case::new("a reason of 123 bytes", &[Frame::close(1000, &"x".repeat(123))]).closes(1000),
        Case::new("124 bytes", &[Frame::close(1000, &"x".repeat(124))]).closes(1002),
        Case::new("unfinished", &[Frame::close(1000, "").unfinished()]).closes(1002),
        Case::new("byte by byte", &[Frame::close(1001, "away")]).byte_by_byte().closes(1001),
        Case::new(
            "what comes after it counts no more",
            &[Frame::text("one"), Frame::close(1000, ""), Frame::text("two"), Frame::ping("x")],
        )
        .publishes("one")
        .closes(1000),
        Case::new("twice", &[Frame::close(1000, ""), Frame::close(1001, "")]).closes(1000),
        Case::new("after a ping", &[Frame::ping("x"), Frame::close(1000, "")])
            .pong("x")
            .closes(1000),
    ];
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000,
        4999,
    ] {
        cases.push(Case::new(format!("code {code}"), &[Frame::close(code, "")]).closes(code));
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        cases.push(Case::new(format!("code {code}"), &[Frame::close(code, "")]).closes(1002));
    }
    run(workers, cases);
}

fn limits(workers: usize) {
    let over = LIMIT + 1;
    let half = LIMIT / 2;
    let exact = [Frame::binary(pattern(half)).unfinished(), Frame::continuation(pattern(half))];
    let huge = |length: u64| {
        let mut bytes = Frame::binary("").head(true, length);
        bytes.extend(MASK);
        bytes
    };
    run(
        workers,
        vec![
            Case::new("as much as allowed", &[Frame::binary(pattern(LIMIT))])
                .publishes(pattern(LIMIT)),
            Case::new("as much as allowed in parts", &exact)
                .publishes([pattern(half), pattern(half)].concat()),
            Case::new("a byte more", &[Frame::binary(pattern(over))]).closes(1009),
            Case::new("a byte more of text", &[Frame::text("x".repeat(over))]).closes(1009),
            Case::new(
                "a byte more in parts",
                &[exact[0].clone(), exact[1].clone().unfinished(), Frame::continuation("x")],
            )
            .closes(1009),
            Case::new("after a good one", &[Frame::text("good"), Frame::binary(pattern(over))])
                .publishes("good")
                .closes(1009),
            Case::bytes("a promise of a gigabyte", huge(1 << 30)).closes(1009),
            Case::bytes("a promise of 2^62 bytes", huge(1 << 62)).closes(1009),
            Case {
                end: End::ClosedWithEither(1002, 1009),
                ..Case::bytes("a length with the highest bit", huge(1 << 63))
            },
        ],
    );
}

fn frames_arrive_in_any_pieces(workers: usize) {
    let frames = [
        Frame::text("one"),
        Frame::ping("?"),
        Frame::text("tw").unfinished(),
        Frame::continuation("o"),
        Frame::binary(pattern(300)),
    ];
    let bytes = to_bytes(&frames);
    let case = |name: String, sent: Vec<Vec<u8>>| Case {
        sent,
        ..Case::bytes(name, Vec::new())
            .pong("?")
            .publishes("one")
            .publishes("two")
            .publishes(pattern(300))
    };
    let mut cases: Vec<Case> = (1..40)
        .map(|at| case(format!("in two at {at}"), vec![bytes[..at].to_vec(), bytes[at..].to_vec()]))
        .collect();
    for size in [1, 2, 3, 7, 13] {
        let pieces = bytes.chunks(size).map(<[u8]>::to_vec).collect();
        cases.push(case(format!("in pieces of {size}"), pieces));
    }
    run(workers, cases);
}

fn a_frame_may_stop_in_the_middle(workers: usize) {
    let nginx = start(workers, "");
    let bytes = Frame::text("never").to_bytes(Some(MASK));
    let long = Frame::binary(pattern(70_000)).to_bytes(Some(MASK));
    for (number, part) in
        (1..bytes.len()).map(|at| &bytes[..at]).chain([&long[..5], &long[..30_000]]).enumerate()
    {
        let mut socket = Handshake::to("/both?id=a").open(nginx.port());
        socket.send_bytes(part);
        match number % 2 {
            0 => drop(socket),
            _ => socket.into_client().reset(),
        }
    }
    nginx.wait_for_subscribers("a", 0);
    assert_eq!(nginx.messages("a"), 0);
}

// ---- The handshake.

fn the_handshake_is_answered_as_the_standard_says(workers: usize) {
    let nginx = start(workers, "");
    for (number, target) in
        ["/sub?id=a", "/pub?id=a", "/both?id=a", "/quiet?id=a"].iter().enumerate()
    {
        let mut socket = Handshake::to(target).key(number).open(nginx.port());
        for name in ["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Push-Missed", "Etag"] {
            assert_eq!(socket.response.header(name), None, "{}", socket.response.head);
        }
        assert_eq!(socket.response.status_text(), "101 Switching Protocols");
        socket.close();
    }
}

#[track_caller]
fn refused(nginx: &Nginx, request: &Request, status: u16) -> support::Response {
    let response = nginx.request(request).expect_status(status);
    assert!(response.text().contains(' '), "a sentence: {:?}", response.text());
    assert_eq!(response.header("Sec-WebSocket-Accept"), None);
    response
}

fn asking(target: &str, version: Option<&str>, key: Option<&str>) -> Request {
    let request =
        Request::get(target).header("Upgrade", "websocket").header("Connection", "Upgrade");
    let request = match version {
        Some(version) => request.header("Sec-WebSocket-Version", version),
        None => request,
    };
    match key {
        Some(key) => request.header("Sec-WebSocket-Key", key),
        None => request,
    }
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn a_handshake_of_another_version_is_426_with_the_right_one(workers: usize) {
    let nginx = start(workers, "");
    for target in ["/sub?id=a", "/pub?id=a", "/both?id=a"] {
        for version in [None, Some("8"), Some("14"), Some("0"), Some("x"), Some("130"), Some("1")] {
            let response = refused(&nginx, &asking(target, version, Some(KEY)), 426);
            assert_eq!(response.header("Sec-WebSocket-Version"), Some("13"), "{version:?}");
            assert_eq!(response.header("Upgrade"), Some("websocket"));
            assert!(response.has_in_list("Connection", "upgrade"), "{}", response.head);
        }
    }
    assert_eq!(nginx.info("a"), None);
}

fn a_handshake_without_a_proper_key_is_400(workers: usize) {
    let nginx = start(workers, "");
    for key in [
        None,
        Some(""),
        Some("short"),
        Some("dGhlIHNhbXBsZSBub25jZQ="),
        Some("dGhlIHNhbXBsZSBub25jZQ"),
        Some("dGhlIHNhbXBsZSBub25jZQ==="),
        Some("dGhlIHNhbXBsZSBub25j"),
        Some("dGhlIHNhbXBsZSBub25jZTE="),
        Some("dGhlIHNhbXBsZSBub25jZTEy"),
        Some("dGhl!HNhbXBsZSBub25jZQ=="),
        Some("dGhlIHNhbX=sZSBub25jZQ=="),
        Some("dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        refused(&nginx, &asking("/sub?id=a", Some("13"), key), 400);
    }
    assert_eq!(nginx.info("a"), None);
}

fn a_handshake_by_http_1_0_is_400(workers: usize) {
    let nginx = start(workers, "");
    for target in ["/sub?id=a", "/pub?id=a", "/both?id=a"] {
        refused(&nginx, &asking(target, Some("13"), Some(KEY)).http_1_0(), 400);
    }
}

fn a_subprotocol_is_chosen_only_if_it_is_known(workers: usize) {
    let nginx = start(workers, "");
    for (offered, chosen) in [
        ("ws+meta.nchan", Some("ws+meta.nchan")),
        ("chat, ws+meta.nchan", Some("ws+meta.nchan")),
        ("ws+meta.nchan,chat", Some("ws+meta.nchan")),
        ("chat", None),
        ("chat, superchat", None),
        ("ws+meta.nchan2", None),
    ] {
        let socket = Handshake::to("/sub?id=a").protocols(offered).open(nginx.port());
        assert_eq!(socket.response.header("Sec-WebSocket-Protocol"), chosen, "{offered}");
    }
    let two = Handshake::to("/sub?id=a").protocols("chat").protocols("ws+meta.nchan");
    let socket = two.open(nginx.port());
    assert_eq!(socket.response.header("Sec-WebSocket-Protocol"), Some("ws+meta.nchan"));
}

fn frames_may_come_together_with_the_handshake(workers: usize) {
    let nginx = start(workers, "");
    let handshake = Handshake::to("/quiet?id=a");
    let frames = to_bytes(&[Frame::text("one"), Frame::ping("?"), Frame::text("two")]);
    let mut client = nginx.client();
    client.send_bytes(&[handshake.request().to_bytes(), frames].concat());
    handshake.expect_agreed(&client.try_head().expect("a reply"));
    assert_eq!(client.try_take(3).expect("a pong"), Frame::pong("?").to_bytes(None));
    nginx.wait_for_messages("a", 2);
    assert_eq!(nginx.queue("a"), ["one", "two"]);
}

// ---- Compression.

/// The parameters of an accepted offer, sorted; nothing if none was accepted.
fn agreed(socket: &WebSocket) -> Option<Vec<String>> {
    let answer = socket.response.header("Sec-WebSocket-Extensions")?;
    let mut parts = answer.split(';').map(|part| part.trim().to_owned());
    assert_eq!(parts.next().as_deref(), Some(DEFLATE), "{answer}");
    let mut parameters: Vec<String> = parts.collect();
    parameters.sort();
    Some(parameters)
}

fn offers_of_compression(workers: usize) {
    let nginx = start(workers, "");
    const PLAIN: &[&str] = &["client_no_context_takeover", "server_no_context_takeover"];
    let with_window = |bits: u8| {
        let mut parameters: Vec<String> = PLAIN.iter().map(|&name| name.to_owned()).collect();
        parameters.insert(1, format!("server_max_window_bits={bits}"));
        Some(parameters)
    };
    let plain = || Some(PLAIN.iter().map(|&name| name.to_owned()).collect());
    let cases: Vec<(&str, Option<Vec<String>>)> = vec![
        ("permessage-deflate", plain()),
        ("permessage-deflate; client_max_window_bits", plain()),
        ("permessage-deflate; client_max_window_bits=10", plain()),
        ("permessage-deflate; client_max_window_bits=8", plain()),
        ("permessage-deflate; client_max_window_bits=\"12\"", plain()),
        ("permessage-deflate; server_no_context_takeover", plain()),
        ("permessage-deflate; client_no_context_takeover", plain()),
        ("permessage-deflate;client_no_context_takeover ;  server_no_context_takeover", plain()),
        ("permessage-deflate; server_max_window_bits=9", with_window(9)),
        ("permessage-deflate; server_max_window_bits=15; client_max_window_bits", with_window(15)),
        ("permessage-deflate; server_max_window_bits=\"10\"", with_window(10)),
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; server_max_window_bits=7", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits=09", None),
        ("permessage-deflate; server_max_window_bits=+9", None),
        ("permessage-deflate; server_max_window_bits=1000000000000000000009", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_max_window_bits=", None),
        ("permessage-deflate; server_max_window_bits=x", None),
        ("permessage-deflate; client_max_window_bits=7", None),
        ("permessage-deflate; client_max_window_bits=16", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; client_no_context_takeover=true", None),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        ("permessage-deflate; server_max_window_bits=9; server_max_window_bits=9", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits=9", None),
        ("permessage-deflate; unknown", None),
        ("permessage-deflate; client_max_window_bits; unknown=1", None),
        ("x-webkit-deflate-frame", None),
        ("deflate-frame", None),
        ("permessage-bzip2, permessage-deflate", plain()),
        ("permessage-deflate; unknown, permessage-deflate", plain()),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", plain()),
        (
            "permessage-deflate; unknown, permessage-deflate; server_max_window_bits=11, permessage-deflate",
            with_window(11),
        ),
        ("permessage-deflate, permessage-deflate; server_max_window_bits=11", plain()),
        ("permessage-deflate2", None),
    ];
    for (offer, expected) in cases {
        let socket = Handshake::to("/sub?id=a").extensions(offer).open(nginx.port());
        assert_eq!(agreed(&socket), expected, "{offer}");
    }
    let two =
        Handshake::to("/sub?id=a").extensions("permessage-deflate; unknown").extensions(DEFLATE);
    assert_eq!(agreed(&two.open(nginx.port())), plain());
    assert_eq!(agreed(&listen(&nginx, "a")), None);
}

fn compression_can_be_turned_off(workers: usize) {
    let nginx = start(workers, "push_websocket_deflate off;");
    let mut socket = Handshake::to("/sub?id=a").extensions(DEFLATE).open(nginx.port());
    assert_eq!(agreed(&socket), None);
    let body = "compressible ".repeat(100);
    nginx.publish("a", body.as_str());
    let message = socket.message();
    assert!(!message.compressed && message.data == body.as_bytes());
    let mut publisher = Handshake::to("/quiet?id=a").extensions(DEFLATE).open(nginx.port());
    publisher.send(&[Frame::text(deflate(b"x")).rsv(RSV1)]);
    publisher.expect_close(Some(1002));
}

/// Bytes without any pattern that a compressor could use.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

fn messages_are_compressed_where_that_helps(workers: usize) {
    let nginx = start(workers, "");
    let mut socket = Handshake::to("/sub?id=a").extensions(DEFLATE).open(nginx.port());
    let cases: [(Vec<u8>, bool); 9] = [
        (b"short".to_vec(), false),
        (Vec::new(), false),
        (vec![b'x'; 63], false),
        (vec![b'x'; 64], true),
        (b"a line that comes again and again\n".repeat(30), true),
        // Each message stands for itself.
        (b"a line that comes again and again\n".repeat(30), true),
        (noise(2_000), false),
        (vec![0; LIMIT], true),
        ("Grüße 😀 ".repeat(1_000).into_bytes(), true),
    ];
    for (body, compressed) in cases {
        publish_typed(&nginx, "a", body.clone(), "text/plain");
        let message = socket.message();
        let length = body.len();
        assert_eq!((message.compressed, message.data.len()), (compressed, length));
        assert!(message.data == body, "{length} bytes");
    }
    // Stored messages, too, and binary ones.
    publish_typed(&nginx, "b", vec![0; 1_000], "application/octet-stream");
    let mut later = Handshake::to("/sub?id=b").extensions(DEFLATE).open(nginx.port());
    assert_eq!(later.message(), Message { text: false, compressed: true, data: vec![0; 1_000] });
    let meta = Handshake::to("/sub?id=b").extensions(DEFLATE).protocols("ws+meta.nchan");
    let message = meta.open(nginx.port()).message();
    assert!(message.compressed);
    assert_eq!(message.meta().1, vec![0; 1_000]);
}

#[test]
fn the_inflater_of_these_tests_refuses_what_is_out_of_its_window() {
    let body = noise(5_000).repeat(2);
    let packed = deflate(&body);
    assert_eq!(support::deflate::farthest(&packed), 5_000);
    assert_eq!(support::deflate::farthest(&deflate(&noise(5_000))), 0);
    assert_eq!(support::deflate::farthest(&deflate(b"abcabcabcabcabcabc")), 3);
    assert_eq!(support::deflate::farthest(&deflate(b"")), 0);
    for bits in 9..=15 {
        let result = std::panic::catch_unwind(|| inflate(&packed, bits));
        assert_eq!(result.is_ok_and(|data| data == body), bits >= 13, "{bits} bits");
    }
}

fn a_small_window_is_kept_to(workers: usize) {
    let nginx = start(workers, "");
    // What repeats is 5,000 bytes away: only a window of 2^13 reaches it.
    let body = noise(5_000).repeat(6);
    let mut sockets: Vec<(u8, WebSocket)> = (9..16)
        .map(|bits| {
            let offer = format!("{DEFLATE}; server_max_window_bits={bits}");
            let socket = Handshake::to("/sub?id=a").extensions(&offer).open(nginx.port());
            (bits, socket.window_bits(bits))
        })
        .collect();
    let text = b"all of it is within reach ".repeat(200);
    for body in [&body, &text] {
        publish_typed(&nginx, "a", body.clone(), "application/octet-stream");
        for (bits, socket) in &mut sockets {
            let message = socket.message();
            assert!(message.data == *body, "{bits} bits");
            if *bits >= 13 || body == &text {
                assert!(message.compressed, "{bits} bits");
            }
        }
    }
}

fn each_client_gets_what_it_has_agreed_to(workers: usize) {
    let nginx = start(workers, "");
    let small = format!("{DEFLATE}; server_max_window_bits=9");
    let mut sockets: Vec<(bool, WebSocket)> = (0..12)
        .map(|number| {
            let handshake = Handshake::to("/sub?id=a");
            match number % 3 {
                0 => (false, handshake.open(nginx.port())),
                1 => (true, handshake.extensions(DEFLATE).open(nginx.port())),
                _ => (true, handshake.extensions(&small).open(nginx.port()).window_bits(9)),
            }
        })
        .collect();
    let mut source = EventSource::open(nginx.port(), "/sub?id=a");
    for round in 0..5 {
        let body = format!("round {round}; ").repeat(100);
        nginx.publish("a", body.as_str());
        for (compressed, socket) in &mut sockets {
            let message = socket.message();
            assert_eq!(message.compressed, *compressed);
            assert!(message.as_text() == body);
        }
        source.expect_message(&body);
    }
}

fn compressed_messages_from_clients(workers: usize) {
    let compressed = |name: &str, payload: &[u8]| {
        Case::new(name, &[Frame::text(payload).rsv(RSV1)]).compressed()
    };
    let body = b"a line that comes again and again\n".repeat(100);
    let packed = deflate(&body);
    let (first, second) = packed.split_at(packed.len() / 2);
    let parts = [
        Frame::binary(first).rsv(RSV1).unfinished(),
        Frame::ping("?"),
        Frame::continuation(second),
    ];
    let hello: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    run(
        workers,
        vec![
            // RFC 7692, 7.2.3.
            compressed("one block", hello).publishes("Hello"),
            compressed(
                "without compression",
                &[0, 5, 0, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0],
            )
            .publishes("Hello"),
            compressed("with a last block", &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00])
                .publishes("Hello"),
            compressed(
                "two blocks",
                &[0xf2, 0x48, 0x05, 0, 0, 0, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
            )
            .publishes("Hello"),
            Case::new(
                "in parts (7.2.3.1)",
                &[
                    Frame::text(&hello[..3]).rsv(RSV1).unfinished(),
                    Frame::continuation(&hello[3..]),
                ],
            )
            .compressed()
            .publishes("Hello"),
            compressed("empty", &[0]).publishes(""),
            compressed("empty, as a compressor writes it", &deflate(b"")).publishes(""),
            Case::new("in parts with a ping between", &parts)
                .compressed()
                .pong("?")
                .publishes(body.clone()),
            Case::new("byte by byte", &[Frame::text(packed.clone()).rsv(RSV1)])
                .byte_by_byte()
                .compressed()
                .publishes(body.clone()),
            Case::new("not compressed, though it might be", &[Frame::text("plain")])
                .compressed()
                .publishes("plain"),
            Case::new(
                "both kinds in turn",
                &[
                    Frame::text("plain"),
                    Frame::binary(packed.clone()).rsv(RSV1),
                    Frame::text("again"),
                    Frame::text(hello).rsv(RSV1),
                ],
            )
            .compressed()
            .publishes("plain")
            .publishes(body.clone())
            .publishes("again")
            .publishes("Hello"),
            Case::new("that do not shrink", &[Frame::binary(deflate(&noise(10_000))).rsv(RSV1)])
                .compressed()
                .publishes(noise(10_000)),
            Case::new("as long as allowed", &[Frame::binary(deflate(&vec![7; LIMIT])).rsv(RSV1)])
                .compressed()
                .publishes(vec![7; LIMIT]),
            // The second depends on the first, against what was agreed.
            Case::new(
                "with the context of the one before",
                &[
                    Frame::text(hello).rsv(RSV1),
                    Frame::text([0xf2, 0x00, 0x11, 0x00, 0x00]).rsv(RSV1),
                ],
            )
            .compressed()
            .publishes("Hello")
            .closes(1007),
            compressed("nonsense", &[0xff; 20]).closes(1007),
            compressed("a block of a kind that is none", &[0x07, 0, 0]).closes(1007),
            compressed("a stored block with a wrong length", &[0, 5, 0, 0, 0, 1, 2, 3])
                .closes(1007),
            Case::new(
                "nonsense in the second part",
                &[
                    Frame::binary(first).rsv(RSV1).unfinished(),
                    Frame::continuation(vec![0xff; 100]),
                ],
            )
            .compressed()
            .closes(1007),
        ],
    );
}

fn a_small_message_that_inflates_to_a_large_one_is_1009(workers: usize) {
    let bomb = deflate(&vec![0; 30 << 20]);
    assert!(bomb.len() < LIMIT);
    let mut parts: Vec<Frame> = bomb
        .chunks(1_000)
        .enumerate()
        .map(|(number, part)| match number {
            0 => Frame::binary(part).rsv(RSV1).unfinished(),
            _ => Frame::continuation(part).unfinished(),
        })
        .collect();
    parts.push(Frame::continuation(""));
    let over = deflate(&vec![0; LIMIT + 1]);
    run(
        workers,
        vec![
            Case::new("in one", &[Frame::binary(bomb).rsv(RSV1)]).compressed().closes(1009),
            Case::new("in parts", &parts).compressed().closes(1009),
            Case::new("by a byte", &[Frame::text(over).rsv(RSV1)]).compressed().closes(1009),
        ],
    );
}

// ---- Subscribing.

fn a_message_is_one_frame_of_its_kind(workers: usize) {
    let nginx = start(workers, "");
    let mut socket = listen(&nginx, "a");
    let cases: [(&[u8], &str, u8); 8] = [
        (b"one", "text/plain", TEXT),
        (b"one", "application/json", TEXT),
        (b"one", "application/octet-stream", BINARY),
        (b"one", "application/octet-stream; x=y", TEXT),
        ("Grüße".as_bytes(), "text/plain", TEXT),
        (b"\xff\xfe", "text/plain", BINARY),
        (b"", "text/plain", TEXT),
        (b"", "application/octet-stream", BINARY),
    ];
    for (body, content_type, opcode) in cases {
        publish_typed(&nginx, "a", body, content_type);
        assert_eq!(socket.frame(), Frame::new(opcode, body), "{content_type}");
    }
    nginx.request(&Request::post(&publisher("a"), "without a type"));
    assert_eq!(socket.frame(), Frame::text("without a type"));
}

fn stored_messages_come_first_and_live_ones_after_them(workers: usize) {
    let nginx = start(workers, "");
    for body in ["one", "two", "three"] {
        nginx.publish("a", body).expect_status(202);
    }
    let mut socket = listen(&nginx, "a");
    for body in ["one", "two", "three"] {
        socket.expect_text(body);
    }
    nginx.wait_for_subscribers("a", 1);
    for body in ["four", "five"] {
        nginx.publish("a", body).expect_status(201);
        socket.expect_text(body);
    }
    socket.close();
    nginx.wait_for_subscribers("a", 0);
}

fn large_messages_come_whole(workers: usize) {
    for size in ["8k", "8m"] {
        let nginx = Nginx::start(
            Config::push(workers)
                .http(&format!("client_max_body_size 8m; client_body_buffer_size {size};")),
        );
        let offers = ["", DEFLATE];
        let open = |offer: &str| {
            let handshake = Handshake::to("/sub?id=a");
            match offer {
                "" => handshake.open(nginx.port()),
                _ => handshake.extensions(offer).open(nginx.port()),
            }
        };
        let mut live: Vec<WebSocket> = offers.iter().map(|offer| open(offer)).collect();
        let bodies: Vec<Vec<u8>> =
            [125, 126, 65_535, 65_536, 3 << 20].into_iter().map(pattern).collect();
        for body in &bodies {
            publish_typed(&nginx, "a", body.clone(), "application/octet-stream");
        }
        for socket in live.iter_mut().chain(&mut offers.map(open)) {
            for body in &bodies {
                let message = socket.message();
                assert!(!message.text && message.data == *body, "{} bytes", body.len());
            }
        }
    }
}

fn meta_carries_the_id_and_the_type(workers: usize) {
    let nginx = start(workers, "");
    let mut socket = Handshake::to("/sub?id=a").protocols("ws+meta.nchan").open(nginx.port());
    publish_typed(&nginx, "a", "one", "text/x-own; charset=utf-8");
    nginx.request(&Request::post(&publisher("a"), "two\n\nlines"));
    publish_typed(&nginx, "a", "three", "application/octet-stream");
    publish_typed(&nginx, "a", [0xff, 0], "text/plain");
    nginx.publish("a", "");
    let ids: Vec<String> = nginx
        .poll_all("a")
        .iter()
        .map(|response| {
            let (seconds, tag) = Cursor::after(response).id();
            format!("{seconds}:{tag}")
        })
        .collect();
    let expected: [(u8, String); 3] = [
        (TEXT, format!("id: {}\ncontent-type: text/x-own; charset=utf-8\n\none", ids[0])),
        (TEXT, format!("id: {}\n\ntwo\n\nlines", ids[1])),
        (BINARY, format!("id: {}\ncontent-type: application/octet-stream\n\nthree", ids[2])),
    ];
    for (opcode, text) in expected {
        assert_eq!(socket.frame(), Frame::new(opcode, text));
    }
    let message = socket.message();
    assert!(!message.text);
    assert_eq!(message.meta().1, [0xff, 0]);
    let text = format!("id: {}\ncontent-type: text/plain\n\n", ids[4]);
    assert_eq!(socket.frame(), Frame::text(text));
}

fn meta_id(message: &Message) -> String {
    let (head, _) = message.meta();
    head.into_iter().find(|(name, _)| name == "id").expect("an id").1
}

fn a_client_goes_on_behind_the_id_in_its_url(workers: usize) {
    let nginx = start(workers, "");
    for number in 0..5 {
        nginx.publish("a", format!("message {number}"));
    }
    let mut socket = Handshake::to("/sub?id=a").protocols("ws+meta.nchan").open(nginx.port());
    let ids: Vec<String> = (0..5).map(|_| meta_id(&socket.message())).collect();
    for (number, id) in ids.iter().enumerate() {
        for id in [id.clone(), id.replace(':', "%3A")] {
            let target = format!("/sub?id=a&last_event_id={id}");
            let mut again = Handshake::to(&target).open(nginx.port());
            assert_eq!(again.response.header("Push-Missed"), None);
            for next in number + 1..5 {
                again.expect_text(&format!("message {next}"));
            }
        }
    }
    let header = Handshake::to("/sub?id=a").header("Last-Event-ID", &ids[3]);
    header.open(nginx.port()).expect_text("message 4");
    let target = format!("/sub?id=a&last_event_id={}", ids[4]);
    let mut live = Handshake::to(&target).open(nginx.port());
    nginx.publish("a", "live");
    live.expect_text("live");
}

fn what_was_missed_before_is_said_in_the_handshake(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).http("push_max_message_buffer_length 2;"));
    nginx.publish("a", "message 0");
    let meta = Handshake::to("/sub?id=a").protocols("ws+meta.nchan");
    let id = meta_id(&meta.open(nginx.port()).message());
    for number in 1..6 {
        nginx.publish("a", format!("message {number}"));
    }
    let target = format!("/sub?id=a&last_event_id={id}");
    let mut socket = Handshake::to(&target).open(nginx.port());
    assert_eq!(socket.response.header("Push-Missed"), Some("3"));
    socket.expect_text("message 4");
    socket.expect_text("message 5");
    let mut fresh = listen(&nginx, "a");
    assert_eq!(fresh.response.header("Push-Missed"), None);
    fresh.expect_text("message 4");
}

fn a_subscriber_may_not_publish(workers: usize) {
    let nginx = start(workers, "");
    for frames in [
        vec![Frame::text("x")],
        vec![Frame::binary("x")],
        vec![Frame::text("")],
        vec![Frame::text("x").unfinished()],
        vec![Frame::ping(""), Frame::text("x".repeat(1_000))],
    ] {
        let mut socket = listen(&nginx, "a");
        socket.send(&frames);
        if frames[0].opcode == PING {
            socket.expect_pong(b"");
        }
        socket.expect_close(Some(1008));
    }
    nginx.wait_for_subscribers("a", 0);
    assert_eq!(nginx.messages("a"), 0);
    // All else is allowed, and wrong is wrong.
    let mut socket = listen(&nginx, "a");
    socket.send(&[Frame::ping("?"), Frame::pong("!")]);
    socket.expect_pong(b"?");
    nginx.publish("a", "one");
    socket.expect_text("one");
    socket.send(&[Frame::new(5, "")]);
    socket.expect_close(Some(1002));
}

fn a_deletion_closes_with_1001(workers: usize) {
    let nginx = start(workers, "");
    let mut sockets = [listen(&nginx, "a"), Handshake::to("/both?id=a").open(nginx.port())];
    nginx.publish("a", "one");
    for socket in &mut sockets {
        socket.expect_text("one");
    }
    delete(&nginx, "a");
    for socket in &mut sockets {
        assert_eq!(socket.expect_close(Some(1001)), "channel deleted");
    }
}

fn a_timeout_closes_with_1000(workers: usize) {
    let nginx = start(workers, "push_subscriber_timeout 1s;");
    let mut socket = listen(&nginx, "a");
    assert_eq!(socket.expect_close(Some(1000)), "timeout");
    nginx.wait_for_subscribers("a", 0);
}

fn a_conflict_closes_with_1008(workers: usize) {
    let nginx = start(workers, "push_subscriber_concurrency last;");
    let mut first = listen(&nginx, "a");
    nginx.wait_for_subscribers("a", 1);
    let mut second = listen(&nginx, "a");
    assert_eq!(first.expect_close(Some(1008)), "another subscriber came");
    nginx.publish("a", "one");
    second.expect_text("one");
}

fn a_shutdown_closes_with_1012(workers: usize) {
    let nginx = start(workers, "");
    let targets = ["/sub?id=a", "/both?id=a", "/pub?id=a"];
    let mut sockets: Vec<WebSocket> =
        (0..12).map(|number| Handshake::to(targets[number % 3]).open(nginx.port())).collect();
    let old = nginx.reload();
    for socket in &mut sockets {
        assert_eq!(socket.expect_close(Some(1012)), "worker leaves");
    }
    nginx.wait_gone(&old);
}

/// Who does not answer until the next ping is given up: a test may be kept from running for a second or two.
const PINGS: &str = "push_ping_interval 3s;";

fn the_server_pings(workers: usize) {
    let nginx = start(workers, PINGS);
    let mut sockets =
        ["/sub?id=a", "/both?id=a"].map(|target| Handshake::to(target).open(nginx.port()));
    for _ in 0..3 {
        for socket in &mut sockets {
            let ping = socket.frame();
            assert_eq!(ping.opcode, PING, "{ping:?}");
            socket.send(&[Frame::pong(ping.payload)]);
        }
    }
    nginx.publish("a", "one");
    for socket in &mut sockets {
        socket.expect_text("one");
    }
    delete(&nginx, "a");
    for socket in &mut sockets {
        socket.expect_close(Some(1001));
    }
}

fn a_client_that_does_not_answer_is_given_up(workers: usize) {
    let nginx = start(workers, PINGS);
    let mut silent = listen(&nginx, "a");
    // Any sign of life will do.
    let mut alive = listen(&nginx, "a");
    nginx.wait_for_subscribers("a", 2);
    assert_eq!(silent.frame().opcode, PING);
    for _ in 0..2 {
        assert_eq!(alive.frame().opcode, PING);
        alive.send(&[Frame::ping("here I am")]);
        alive.expect_pong(b"here I am");
    }
    loop {
        match silent.try_frame() {
            Ok(frame) => assert!(frame.opcode == PING || frame.opcode == CLOSE, "{frame:?}"),
            Err(error) => break assert!(!support::body::is_timeout(&error), "not closed"),
        }
    }
    nginx.wait_for_subscribers("a", 1);
    nginx.publish("a", "one");
    alive.expect_text("one");
}

fn a_client_that_reads_a_large_message_slowly_is_there(workers: usize) {
    for park in ["compact", "plain"] {
        let nginx = start(workers, &format!("push_park {park}; {PINGS} client_max_body_size 0;"));
        // Far more than sockets take.
        let large = pattern(40 << 20);
        let mut slow = listen(&nginx, "a");
        nginx.wait_for_subscribers("a", 1);
        thread::scope(|scope| {
            scope.spawn(|| {
                nginx.publish("a", large.clone()).expect_status(201);
                nginx.publish("a", "and on").expect_status(201);
            });
            slow.try_answer_pings().expect("the message begins");
        });
        // For longer than two pings take: it answers none meanwhile, for none is sent in the middle of a message.
        for second in 1..=7 {
            slow.client().try_read_ahead(second * (3 << 20)).expect("the connection stays");
            thread::sleep(Duration::from_secs(1));
        }
        let message = slow.message();
        assert!(message.data == large, "{} bytes", message.data.len());
        slow.expect_text("and on");
    }
}

fn a_publishers_handshake_may_have_a_body(workers: usize) {
    let nginx = start(workers, PINGS);
    for target in ["/pub?id=a", "/both?id=a"] {
        let mut client = nginx.client();
        let request = Handshake::to(target).header("Content-Length", "5").request();
        client.send(&request);
        thread::sleep(Duration::from_millis(100));
        client.send_bytes(b"late!");
        let response = client.head_response().expect_status(101);
        let mut socket = WebSocket::new(client, response);
        socket.send_text("one");
        nginx.wait_for_messages("a", 1);
        socket.send(&[Frame::ping("here I am")]);
        // After what it is told of its message.
        let is_answer = |frame: Frame| frame.opcode == PONG && frame.payload == b"here I am";
        assert!((0..5).any(|_| is_answer(socket.frame())));
        delete(&nginx, "a");
    }
}

fn a_client_may_close_at_any_time(workers: usize) {
    let nginx = start(workers, "");
    for round in 0..3 {
        let mut sockets: Vec<WebSocket> = (0..10).map(|_| listen(&nginx, "a")).collect();
        nginx.wait_for_subscribers("a", 10);
        for (number, mut socket) in sockets.drain(..).enumerate() {
            match (number + round) % 4 {
                0 => socket.close(),
                1 => {
                    socket.send(&[Frame::close(4321, "no more")]);
                    assert_eq!(socket.frame().close_code(), Some(4321));
                    socket.expect_end_of_connection();
                }
                2 => drop(socket),
                _ => {
                    // Goes without waiting for the answer.
                    socket.send(&[Frame::close(1001, "")]);
                    socket.into_client().reset();
                }
            }
        }
        nginx.wait_for_subscribers("a", 0);
    }
    nginx.publish("a", "one").expect_status(202);
}

// ---- Publishing.

/// Sends so many pings that the answers fill the connection, has something done meanwhile, and reads what comes: the code of
/// the close frame, and how many messages, which begin with their number.
fn ask_without_reading(
    nginx: &Nginx,
    mut socket: WebSocket,
    meanwhile: impl FnOnce(&Nginx),
) -> (Option<u16>, usize) {
    // More than all buffers on the way hold: those of a tunnel grow to megabytes each.
    const PINGS: usize = 600_000;
    fn ping(number: usize) -> Frame {
        Frame::ping(format!("{number:0125}"))
    }
    let mut sender = socket.client().sender();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let asking = thread::spawn(move || {
        for first in (0..PINGS).step_by(100) {
            let frames: Vec<Frame> = (first..first + 100).map(ping).collect();
            if sender.write_all(&to_bytes(&frames)).is_err() {
                return;
            }
            count.fetch_add(100, Ordering::Relaxed);
        }
    });
    let (mut last, mut same) = (0, 0);
    wait::until_true("a connection that is full", || {
        let now = asked.load(Ordering::Relaxed);
        assert!(now < PINGS, "it takes everything");
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same == 30
    });
    meanwhile(nginx);
    let (mut pongs, mut messages) = (0, 0);
    let code = loop {
        let frame = socket.frame();
        match frame.opcode {
            PONG => {
                assert_eq!(frame.payload, ping(pongs).payload);
                pongs += 1;
            }
            TEXT => {
                assert!(frame.payload.starts_with(format!("{messages} x").as_bytes()));
                messages += 1;
            }
            _ => break frame.close_code(),
        }
    };
    drop(socket);
    asking.join().expect("it only sends");
    (code, messages)
}

/// Does this with both ways to park.
fn with_both_ways(workers: usize, listen: &str, test: impl Fn(&Nginx)) {
    for park in ["compact", "plain"] {
        let config = Config::push(workers).listen("sndbuf=32k").server(listen);
        let text = format!("push_park {park}; push_message_buffer_length 100;");
        test(&Nginx::start(config.http(&text)));
    }
}

fn who_asks_without_reading_gets_everything_in_order(workers: usize) {
    with_both_ways(workers, "", |nginx| {
        let mut client = nginx.client();
        client.limit_receive_buffer(64 << 10);
        let socket = Handshake::to(&subscriber("a")).open_on(client);
        let seen = ask_without_reading(nginx, socket, |nginx| {
            for number in 0..20 {
                nginx.publish("a", format!("{number} {}", "x".repeat(2_000)));
            }
            delete(nginx, "a");
        });
        assert_eq!(seen, (Some(1001), 20));
    });
}

fn who_asks_without_reading_is_told_of_a_shutdown(workers: usize) {
    with_both_ways(workers, "", |nginx| {
        let mut client = nginx.client();
        client.limit_receive_buffer(64 << 10);
        let socket = Handshake::to(&subscriber("a")).open_on(client);
        let seen = ask_without_reading(nginx, socket, |nginx| {
            nginx.reload();
            nginx.wait_for_subscribers("a", 0);
        });
        assert_eq!(seen, (Some(1012), 0));
    });
}

fn who_asks_without_reading_over_tls_is_told_of_a_shutdown(workers: usize) {
    if !has_or_skip("http_ssl") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let tls = dir.path().join("tls");
    make_certificate(&tls);
    let listen = format!(
        "listen 127.0.0.1:@port2@ ssl sndbuf=32k;
         ssl_certificate {0}/cert.pem; ssl_certificate_key {0}/key.pem;",
        tls.display()
    );
    with_both_ways(workers, &listen, |nginx| {
        let tunnel = Tunnel::to(nginx.port2());
        let socket = Handshake::to(&subscriber("a")).open(tunnel.port());
        let seen = ask_without_reading(nginx, socket, |nginx| {
            nginx.reload();
            nginx.wait_for_subscribers("a", 0);
        });
        assert_eq!(seen, (Some(1012), 0));
    });
}

fn a_publisher_gets_info_for_each_message(workers: usize) {
    let nginx = start(workers, "");
    let mut socket = Handshake::to("/pub?id=a").open(nginx.port());
    for number in 1..=3 {
        socket.send(&[Frame::text(format!("message {number}"))]);
        let info = Info::parse_text(socket.message().as_text());
        assert_eq!((info.messages, info.subscribers), (number, 0));
    }
    let mut waiting = listen(&nginx, "a");
    nginx.wait_for_subscribers("a", 1);
    socket.send(&[Frame::binary("message 4")]);
    let info = Info::parse_text(socket.message().as_text());
    assert_eq!((info.messages, info.subscribers), (4, 1));
    for number in 1..=3 {
        waiting.expect_text(&format!("message {number}"));
    }
    assert_eq!(waiting.message().data, b"message 4");
    // The same words as for a POST.
    let posted = nginx.publish("b", "x");
    let mut other = Handshake::to("/pub?id=c").open(nginx.port());
    other.send_text("x");
    assert_eq!(other.message().as_text(), posted.text());
}

fn info_comes_in_the_form_that_the_handshake_accepts(workers: usize) {
    let nginx = start(workers, "");
    for accept in ["text/plain", "text/json", "application/json", "text/xml", "text/yaml"] {
        let id = accept.replace('/', "-");
        let handshake = Handshake::to(&format!("/pub?id={id}-ws")).header("Accept", accept);
        let mut socket = handshake.open(nginx.port());
        socket.send_text("x");
        let post = Request::post(&format!("/pub?id={id}-post"), "x").header("Accept", accept);
        assert_eq!(socket.message().as_text(), nginx.request(&post).text(), "{accept}");
    }
}

fn info_can_be_turned_on_and_off(workers: usize) {
    let locations = "
        location /loud { push_pubsub; push_channel_id $arg_id; push_websocket_info on; }
        location /quiet { push_publisher websocket; push_channel_id $arg_id; push_websocket_info off; }
        location /default { push_pubsub; push_channel_id $arg_id; }";
    let nginx = Nginx::start(Config::push(workers).server(locations));
    // `/quiet` and `/default` say nothing before the pong; a publisher by `/default` hears itself.
    let mut quiet = Handshake::to("/quiet?id=a").open(nginx.port());
    quiet.send(&[Frame::text("one"), Frame::ping("?")]);
    quiet.expect_pong(b"?");
    let mut default = Handshake::to("/default?id=b").open(nginx.port());
    default.send(&[Frame::text("one")]);
    default.expect_text("one");
    default.send(&[Frame::text("two")]);
    default.expect_text("two");
    let mut loud = Handshake::to("/loud?id=c").open(nginx.port());
    nginx.wait_for_subscribers("c", 1);
    loud.send(&[Frame::text("one")]);
    let mut texts = [loud.message().as_text().to_owned(), loud.message().as_text().to_owned()];
    texts.sort();
    assert_eq!(texts[0], "one");
    let info = Info::parse_text(&texts[1]);
    assert_eq!((info.messages, info.subscribers), (1, 1));
}

fn who_publishes_and_listens_gets_his_own_messages(workers: usize) {
    let nginx = start(workers, "");
    let mut sockets: Vec<WebSocket> =
        (0..4).map(|_| Handshake::to("/both?id=a").open(nginx.port())).collect();
    nginx.wait_for_subscribers("a", 4);
    for number in 0..8 {
        let body = format!("message {number}");
        sockets[number % 4].send_text(&body);
        for socket in &mut sockets {
            socket.expect_text(&body);
        }
    }
    assert_eq!(nginx.messages("a"), 8);
}

fn published_frames_have_the_type_of_the_handshake(workers: usize) {
    let nginx = start(workers, "");
    let mut socket = Handshake::to("/quiet?id=a").open(nginx.port());
    socket.send(&[Frame::text("text"), Frame::binary("bytes"), Frame::ping("")]);
    socket.expect_pong(b"");
    let typed = Handshake::to("/quiet?id=a").header("Content-Type", "text/x-own");
    let mut socket = typed.open(nginx.port());
    socket.send(&[Frame::text("text"), Frame::binary("bytes"), Frame::ping("")]);
    socket.expect_pong(b"");
    let types: Vec<Option<String>> = nginx
        .poll_all("a")
        .iter()
        .map(|response| response.header("Content-Type").map(str::to_owned))
        .collect();
    let own = Some("text/x-own".to_owned());
    assert_eq!(types, [None, Some("application/octet-stream".to_owned()), own.clone(), own]);
}

fn published_messages_reach_all_transports(workers: usize) {
    let nginx = start(workers, "");
    let mut poll = nginx.park("a");
    let mut source = EventSource::open(nginx.port(), "/sub?id=a");
    let mut socket = listen(&nginx, "a");
    let mut packed = Handshake::to("/sub?id=a").extensions(DEFLATE).open(nginx.port());
    nginx.wait_for_subscribers("a", 4);
    let mut publisher = Handshake::to("/quiet?id=a").extensions(DEFLATE).open(nginx.port());
    let body = "from a WebSocket ".repeat(10);
    publisher.send(&[Frame::text(deflate(body.as_bytes())).rsv(RSV1)]);
    assert_eq!(poll.response().expect_status(200).text(), body);
    source.expect_message(&body);
    socket.expect_text(&body);
    packed.expect_text(&body);
}

fn many_messages_in_one_write_are_published_in_order(workers: usize) {
    const COUNT: usize = 2_000;
    let nginx = start(workers, "");
    let mut listener = listen(&nginx, "a");
    let mut publisher = Handshake::to("/pub?id=a").open(nginx.port());
    let frames: Vec<Frame> = (0..COUNT).map(|number| Frame::text(format!("m{number}"))).collect();
    publisher.send(&frames);
    for number in 0..COUNT {
        listener.expect_text(&format!("m{number}"));
    }
    for number in 1..=COUNT {
        let info = Info::parse_text(publisher.message().as_text());
        assert_eq!(info.messages, number as u64);
    }
    publisher.close();
}

/// More than is done in one go.
fn many_messages_for_many_channels_are_answered_to_the_end(workers: usize) {
    const COUNT: usize = 60;
    let list: Vec<String> = (0..255).map(|number| number.to_string()).collect();
    let target = publisher(&list.join(","));
    for park in ["compact", "plain"] {
        let split = "push_channel_id_split_delimiter ',';";
        let nginx = Nginx::start(Config::push(workers).http(&format!("push_park {park}; {split}")));
        let mut frames = vec![Frame::text("x"); COUNT];
        frames.extend([Frame::ping("asked last"), Frame::close(1000, "")]);
        let mut socket = Handshake::to(&target).open(nginx.port());
        socket.send(&frames);
        for number in 1..=COUNT {
            let info = socket.message();
            let expected = format!("queued messages: {}\r", number.min(10));
            assert_eq!(info.as_text().matches(&expected).count(), 255, "{number}");
        }
        socket.expect_pong(b"asked last");
        socket.expect_close(Some(1000));
    }
}

fn a_publisher_has_no_subscriber_timeout(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).http("push_subscriber_timeout 1s;"));
    let mut silent = Handshake::to("/pub?id=a").open(nginx.port());
    let mut speaks = Handshake::to("/pub?id=a").open(nginx.port());
    let mut commands = Handshake::to("/pub?id=a").protocols("push.json").open(nginx.port());
    let mut listener = listen(&nginx, "b");
    for count in 1..=12 {
        thread::sleep(Duration::from_millis(250));
        speaks.send_text("one");
        let info = Info::parse_text(speaks.message().as_text());
        assert_eq!(info.messages, count.min(10));
    }
    assert_eq!(listener.expect_close(Some(1000)), "timeout");
    for socket in [&mut silent, &mut commands] {
        socket.send(&[Frame::ping("still here")]);
        socket.expect_pong(b"still here");
    }
    silent.send_text("one");
    silent.message();
}

fn a_publisher_is_not_a_subscriber(workers: usize) {
    let config = Config::push(workers)
        .subscriber("push_max_channel_subscribers 1;")
        .publisher("push_max_channel_subscribers 1;");
    let nginx = Nginx::start(config);
    let mut publishers: Vec<WebSocket> =
        (0..3).map(|_| Handshake::to("/pub?id=a").open(nginx.port())).collect();
    assert_eq!(nginx.subscribers("a"), 0);
    for socket in &mut publishers {
        socket.send_text("one");
        assert_eq!(Info::parse_text(socket.message().as_text()).subscribers, 0);
        // A deletion is not its business.
        delete(&nginx, "a");
    }
    for socket in &mut publishers {
        socket.send(&[Frame::ping("still here")]);
        socket.expect_pong(b"still here");
        socket.close();
    }
}

fn a_message_that_can_never_fit_closes_with_1009(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .http("push_max_reserved_memory 1m;")
            .http("client_max_body_size 16m; client_body_buffer_size 8m;"),
    );
    let mut listener = listen(&nginx, "a");
    let mut socket: WebSocket = Handshake::to("/pub?id=a").open(nginx.port());
    socket.send_text("before");
    Info::parse_text(socket.message().as_text());
    listener.expect_text("before");
    socket.send(&[Frame::binary(pattern(4 << 20))]);
    let reason = socket.expect_close(Some(1009));
    assert!(reason.ends_with("more than push_shared_memory_size allows."), "{reason}");
    let client: Client = nginx.client();
    let mut again = Handshake::to("/pub?id=a").open_on(client);
    again.send_text("after");
    Info::parse_text(again.message().as_text());
    listener.expect_text("after");
}

fn a_message_without_room_closes_with_1013(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .http("push_max_reserved_memory 1m;")
            .http("client_max_body_size 16m; client_body_buffer_size 8m;"),
    );
    // What their channels take is not to be had while they wait.
    let waiting: Vec<Client> = (0..100).map(|id| nginx.park(&format!("waiting-{id}"))).collect();
    // From what is larger than the zone down to what is smaller than what there is of it.
    let answers: Vec<Option<u16>> = (0..30)
        .map(|step| {
            let mut socket = Handshake::to("/pub?id=a").open(nginx.port());
            socket.send(&[Frame::binary(pattern((1 << 20) - step * 6_000))]);
            let frame = socket.frame();
            let code = (frame.opcode == CLOSE).then(|| frame.close_code()).flatten();
            if code == Some(1013) {
                let reason = frame.close_reason();
                let end = "and push_shared_memory_size leaves no room.";
                assert!(reason.ends_with(end), "{reason}");
            }
            code
        })
        .collect();
    let mut kinds = answers.clone();
    kinds.dedup();
    assert_eq!(kinds, [Some(1009), Some(1013), None], "{answers:?}");
    drop(waiting);
}
