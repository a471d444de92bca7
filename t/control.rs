//! Tests for the subprotocol `push.json`: a WebSocket's client subscribes, unsubscribes and publishes on the live connection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{json, Value};
use support::push::{publisher, subscriber};
use support::streams::Kind;
use support::websocket::{
    deflate, to_bytes, Frame, Handshake, Message, WebSocket, CLOSE, MASK, RSV1,
};
use support::{load, on_1_and_4_workers, process, wait, Client, Config, Cursor, Nginx, Request};

on_1_and_4_workers!(
    // The beginning.
    the_handshake_settles_the_subprotocol,
    commands_may_come_with_the_handshake,
    // Messages.
    a_message_is_an_object_with_the_id_of_its_own_channel,
    a_message_that_is_no_text_comes_in_base64,
    // Commands.
    a_client_adds_and_leaves_channels,
    a_channel_begins_where_the_client_says,
    each_command_is_answered_under_its_request,
    commands_come_in_any_number_of_frames_and_writes,
    a_client_publishes,
    a_client_publishes_to_the_channels_of_its_location,
    a_client_of_a_publisher_location_only_publishes,
    a_client_may_have_no_channel_for_a_while,
    what_is_compressed_is_understood_and_compressed,
    the_session_of_the_readme_is_what_happens,
    // Refusals.
    what_cannot_be_done_is_told_and_changes_nothing,
    what_is_no_command_is_told,
    frames_that_must_not_be_end_the_connection,
    a_connection_has_255_channels_at_most,
    a_channel_may_refuse_a_subscriber,
    a_new_subscriber_takes_the_place_of_one,
    a_memory_without_room_for_a_channel_is_told,
    who_does_not_read_the_answers_is_not_heard_meanwhile,
    // Which channels.
    patterns_say_which_channels_there_are,
    a_star_in_a_variable_is_no_pattern,
    groups_are_kept_apart,
    // Gaps and ends.
    a_gap_before_the_first_message_is_told_in_a_frame,
    a_slow_reader_is_told_what_it_has_missed,
    a_deleted_channel_is_told_and_may_be_had_again,
    the_end_of_all_channels_is_the_end,
    silence_is_measured_from_the_last_change,
    // The counts.
    subscribers_are_counted_after_every_change,
    killed_workers_leave_no_counts_behind,
    // Under load.
    changes_lose_nothing,
    changes_lose_nothing_in_reloads,
    changes_lose_nothing_when_workers_are_killed,
    a_worker_that_leaves_sends_those_away_who_change_all_the_time,
);

const CHANNELS: &str = "push_websocket_channels extra room_* user_$arg_user;";

/// `/sub` and `/pub` by `?id=`, which may be a list, and `/both`.
fn config(workers: usize, text: &str) -> Config {
    Config::push(workers)
        .http("push_channel_id_split_delimiter ',';")
        .http(CHANNELS)
        .http(text)
        .server("location = /both { push_pubsub; push_channel_id $arg_id; }")
}

fn start(workers: usize) -> Nginx {
    Nginx::start(config(workers, ""))
}

fn delete(nginx: &Nginx, id: &str) {
    nginx.request(&Request::new("DELETE", &publisher(id))).expect_status(200);
}

/// The id of the channel's message with this body.
fn id_of(nginx: &Nginx, id: &str, body: &str) -> String {
    let all = nginx.poll_all(id);
    let found = all.iter().find(|response| response.text() == body).expect("the message");
    let (time, tag) = Cursor::after(found).id();
    format!("{time}:{tag}")
}

fn counts(nginx: &Nginx, expected: &[(&str, u64)]) {
    for (id, count) in expected {
        nginx.wait_for_subscribers(id, *count);
    }
}

fn handshake(target: &str) -> Handshake {
    Handshake::to(target).protocols("push.json")
}

/// A client.
struct Remote(WebSocket);

impl Remote {
    #[track_caller]
    fn open(nginx: &Nginx, target: &str) -> Self {
        Remote::new(handshake(target).open(nginx.port()))
    }

    #[track_caller]
    fn new(socket: WebSocket) -> Self {
        assert_eq!(socket.response.header("Sec-WebSocket-Protocol"), Some("push.json"));
        Remote(socket)
    }

    fn say(&mut self, command: Value) {
        self.0.send_text(&command.to_string());
    }

    #[track_caller]
    fn next(&mut self) -> Value {
        serde_json::from_str(self.0.message().as_text()).expect("JSON")
    }

    #[track_caller]
    fn expect(&mut self, expected: Value) {
        assert_eq!(self.next(), expected);
    }

    /// Says something and returns the answer, which comes next.
    #[track_caller]
    fn ask(&mut self, command: Value) -> Value {
        self.say(command);
        self.next()
    }

    #[track_caller]
    fn subscribe(&mut self, channel: &str) {
        let answer = self.ask(json!({"subscribe": channel, "request": 1}));
        assert_eq!(answer, json!({"request": 1, "subscribed": channel}));
    }

    #[track_caller]
    fn unsubscribe(&mut self, channel: &str) {
        let answer = self.ask(json!({"unsubscribe": channel, "request": 2}));
        assert_eq!(answer, json!({"request": 2, "unsubscribed": channel}));
    }

    /// Panics unless what comes next is this message. Returns its id.
    #[track_caller]
    fn message(&mut self, channel: &str, data: &str) -> String {
        let message = self.next();
        let found = (message["channel"].as_str(), message["data"].as_str());
        assert_eq!(found, (Some(channel), Some(data)), "{message}");
        message["id"].as_str().expect("an id").to_owned()
    }

    /// Panics unless the command is refused with this status.
    #[track_caller]
    fn refused(&mut self, command: Value, status: u16) {
        let mut named = command;
        named["request"] = json!("this");
        let answer = self.ask(named.clone());
        let members = (&answer["request"], &answer["error"]);
        assert_eq!(members, (&json!("this"), &json!(status)), "{named}: {answer}");
        assert!(answer["reason"].as_str().is_some_and(|reason| reason.len() > 10), "{answer}");
        assert_eq!(answer.as_object().unwrap().len(), 3, "{answer}");
    }
}

fn the_handshake_settles_the_subprotocol(workers: usize) {
    let nginx = start(workers);
    for target in ["/sub?id=a", "/pub?id=a", "/both?id=a"] {
        for (offer, settled) in [
            ("push.json", Some("push.json")),
            ("unknown, push.json", Some("push.json")),
            ("push.json, ws+meta.nchan", Some("push.json")),
            ("ws+meta.nchan,push.json", Some("ws+meta.nchan")),
            ("push.jso, Push.json", None),
        ] {
            let socket = Handshake::to(target).protocols(offer).open(nginx.port());
            assert_eq!(socket.response.header("Sec-WebSocket-Protocol"), settled, "{offer}");
        }
    }
    // Without it, what a subscriber says is a violation as before.
    let mut socket = Handshake::to("/sub?id=a").open(nginx.port());
    socket.send_text(r#"{"subscribe":"room_1"}"#);
    socket.expect_close(Some(1008));
}

fn commands_may_come_with_the_handshake(workers: usize) {
    let nginx = start(workers);
    let mut client = nginx.client();
    let commands = [
        Frame::text(r#"{"subscribe":"room_1","request":1}"#),
        Frame::text(r#"{"publish":"hello","channel":"room_1","request":2}"#),
    ];
    let request = handshake("/both?id=a").request().to_bytes();
    client.send_bytes(&[request, to_bytes(&commands)].concat());
    // The head of the reply.
    client.try_head().unwrap().expect_status(101);
    let mut frames: Vec<u8> = Vec::new();
    wait::until_true("the message", || {
        frames.extend(client.try_some().unwrap().unwrap_or_default());
        String::from_utf8_lossy(&frames).contains(r#""channel":"room_1","data":"hello""#)
    });
    let text = String::from_utf8_lossy(&frames);
    let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part} in {text}"));
    assert!(place(r#""request":1"#) < place(r#""request":2"#));
    assert!(place(r#""request":2"#) < place(r#""data":"hello""#));
}

fn a_message_is_an_object_with_the_id_of_its_own_channel(workers: usize) {
    let nginx = start(workers);
    let mut remote = Remote::open(&nginx, "/sub?id=a,b");
    counts(&nginx, &[("a", 1), ("b", 1)]);
    remote.subscribe("room_1");
    nginx.publish("a", "one").expect_status(201);
    let request = Request::post(&publisher("b"), "two\n\"2\"").header("Push-Event", "greeting");
    nginx.request(&request).expect_status(201);
    nginx.publish("room_1", "three").expect_status(201);
    let time = |id: &str| id.split(':').next().unwrap().parse::<u64>().unwrap();
    let id = id_of(&nginx, "a", "one");
    remote.expect(json!({
        "id": id, "time": time(&id), "channel": "a", "type": "text/plain", "data": "one"
    }));
    let id = id_of(&nginx, "b", "two\n\"2\"");
    remote.expect(json!({
        "id": id, "time": time(&id), "channel": "b", "event": "greeting", "data": "two\n\"2\""
    }));
    let id = id_of(&nginx, "room_1", "three");
    remote.expect(json!({
        "id": id, "time": time(&id), "channel": "room_1", "type": "text/plain", "data": "three"
    }));
    // A single channel is named as well.
    let mut remote = Remote::open(&nginx, "/sub?id=a");
    let id = remote.message("a", "one");
    nginx.publish("a", "again");
    remote.message("a", "again");
    // Its id is good for a handshake and for other transports.
    let mut remote = Remote::open(&nginx, &format!("/sub?id=a&last_event_id={id}"));
    remote.message("a", "again");
    Kind::EventSource.listen_after(nginx.port(), "a", &id).expect_message("again");
}

fn a_message_that_is_no_text_comes_in_base64(workers: usize) {
    let nginx = start(workers);
    nginx.publish("a", vec![0xff, 0, 0xfe]);
    nginx.publish("a", vec![0]);
    let mut remote = Remote::open(&nginx, "/sub?id=a");
    let message = remote.next();
    assert_eq!((&message["base64"], message.get("data")), (&json!("/wD+"), None));
    remote.message("a", "\0");
}

fn a_client_adds_and_leaves_channels(workers: usize) {
    let nginx = start(workers);
    let mut remote = Remote::open(&nginx, "/sub?id=a");
    remote.subscribe("room_1");
    counts(&nginx, &[("a", 1), ("room_1", 1)]);
    nginx.publish("room_1", "1").expect_status(201);
    nginx.publish("a", "2").expect_status(201);
    remote.message("room_1", "1");
    remote.message("a", "2");
    remote.subscribe("room_2");
    remote.unsubscribe("room_1");
    nginx.publish("room_1", "not for it").expect_status(202);
    nginx.publish("room_2", "3").expect_status(201);
    remote.message("room_2", "3");
    // Also the location's own channels, and what is said of them is heard again.
    remote.unsubscribe("a");
    nginx.publish("a", "not for it").expect_status(202);
    remote.subscribe("user_");
    let answer = remote.ask(json!({"subscribe": "a", "from": "newest"}));
    assert_eq!(answer, json!({"subscribed": "a"}));
    nginx.publish("a", "4").expect_status(201);
    remote.message("a", "4");
    counts(&nginx, &[("a", 1), ("room_1", 0), ("room_2", 1), ("user_", 1)]);
    remote.0.close();
    counts(&nginx, &[("a", 0), ("room_1", 0), ("room_2", 0), ("user_", 0)]);
}

fn a_channel_begins_where_the_client_says(workers: usize) {
    let nginx = Nginx::start(config(workers, "").server(
        "location = /new { push_subscriber; push_channel_id $arg_id; push_first_message newest; }",
    ));
    for number in 1..=5 {
        nginx.publish("room_1", number.to_string());
    }
    let second = id_of(&nginx, "room_1", "1").split(':').next().unwrap().to_owned();
    let mut remote = Remote::open(&nginx, "/new?id=a");
    let mut begin = |command: Value, first: usize| {
        let answer = remote.ask(command);
        assert_eq!(answer, json!({"subscribed": "room_1"}));
        for number in first..=5 {
            remote.message("room_1", &number.to_string());
        }
        remote.unsubscribe("room_1");
    };
    for number in 1..=5 {
        let id = id_of(&nginx, "room_1", &number.to_string());
        begin(json!({"subscribe": "room_1", "after": id}), number + 1);
        // What was seen counts more than a general wish.
        begin(json!({"subscribe": "room_1", "after": id, "from": "oldest"}), number + 1);
    }
    for (from, first) in
        [("oldest", 1), ("newest", 6), ("3", 3), ("9", 6), ("-2", 4), ("-9", 1), ("-0", 6)]
    {
        begin(json!({"subscribe": "room_1", "from": from}), first);
    }
    begin(json!({"subscribe": "room_1", "from": format!("@{second}")}), 1);
    begin(json!({"subscribe": "room_1", "from": "@99999999999"}), 6);
    // Else the location says it.
    begin(json!({"subscribe": "room_1"}), 6);
    remote.subscribe("room_1");
    nginx.publish("room_1", "6").expect_status(201);
    remote.message("room_1", "6");
}

fn each_command_is_answered_under_its_request(workers: usize) {
    let nginx = start(workers);
    let mut remote = Remote::open(&nginx, "/sub?id=a");
    for name in [json!(0), json!(-1.5), json!("ä\"\n"), json!(null), json!([1, {"x": []}])] {
        let answer = remote.ask(json!({"subscribe": "room_1", "request": name}));
        assert_eq!(answer, json!({"request": name, "subscribed": "room_1"}));
        let answer = remote.ask(json!({"subscribe": "room_1", "request": name}));
        assert_eq!((&answer["request"], &answer["error"]), (&name, &json!(409)));
        let answer = remote.ask(json!({"unsubscribe": "room_1", "request": name}));
        assert_eq!(answer, json!({"request": name, "unsubscribed": "room_1"}));
        let answer = remote.ask(json!({"what": 1, "request": name}));
        assert_eq!((&answer["request"], &answer["error"]), (&name, &json!(400)));
    }
    let answer = remote.ask(json!({"subscribe": "room_1"}));
    assert_eq!(answer, json!({"subscribed": "room_1"}));
    let answer = remote.ask(json!({"subscribe": "room_1"}));
    assert_eq!((answer.get("request"), &answer["error"]), (None, &json!(409)));
}

fn commands_come_in_any_number_of_frames_and_writes(workers: usize) {
    let nginx = start(workers);
    let mut remote = Remote::open(&nginx, "/sub?id=a");
    let text = json!({"subscribe": "room_ä", "request": "x"}).to_string();
    let answered = json!({"request": "x", "subscribed": "room_ä"});
    // A character may be cut in two.
    for size in [1, 3, 7, 30] {
        let mut parts: Vec<Frame> = text
            .as_bytes()
            .chunks(size)
            .map(|part| Frame::continuation(part).unfinished())
            .collect();
        parts[0].opcode = 1;
        parts.last_mut().unwrap().fin = true;
        remote.0.send(&parts);
        remote.expect(answered.clone());
        remote.unsubscribe("room_ä");
    }
    // A ping between two parts.
    let (start, end) = text.as_bytes().split_at(10);
    remote.0.send(&[
        Frame::text(start).unfinished(),
        Frame::ping("there?"),
        Frame::continuation(end),
    ]);
    remote.0.expect_pong(b"there?");
    remote.expect(answered.clone());
    remote.unsubscribe("room_ä");
    // Byte after byte.
    for byte in Frame::text(text).to_bytes(Some(MASK)) {
        remote.0.send_bytes(&[byte]);
        thread::sleep(Duration::from_micros(200));
    }
    remote.expect(answered);
    // Many in one write.
    let frames: Vec<Frame> = (0..100)
        .map(|number| match number % 2 {
            0 => json!({"subscribe": format!("room_{number}"), "request": number}),
            _ => json!({"unsubscribe": format!("room_{}", number - 1), "request": number}),
        })
        .map(|command| Frame::text(command.to_string()))
        .collect();
    remote.0.send(&frames);
    for number in 0..100 {
        let answer = remote.next();
        assert_eq!((&answer["request"], answer.get("error")), (&json!(number), None), "{answer}");
    }
    counts(&nginx, &[("a", 1), ("room_ä", 1), ("room_0", 0), ("room_98", 0)]);
}

fn a_client_publishes(workers: usize) {
    let nginx = start(workers);
    let mut lines = Kind::JsonLines.listen(nginx.port(), "room_1");
    let mut remote = Remote::open(&nginx, "/both?id=a");
    nginx.wait_for_subscribers("room_1", 1);
    let answer = remote.ask(json!({"publish": "one\u{e4}", "channel": "room_1", "request": 1}));
    let id = answer["id"].as_str().unwrap().to_owned();
    assert_eq!(answer, json!({"request": 1, "published": "room_1", "id": id, "subscribers": 1}));
    assert_eq!(lines.expect_message("one\u{e4}"), Some(id.clone()));
    assert_eq!(id_of(&nginx, "room_1", "one\u{e4}"), id);
    // Of a channel that it has, a client gets its own messages too, after the answer.
    remote.say(json!({"subscribe": "room_1", "after": id}));
    remote.expect(json!({"subscribed": "room_1"}));
    let command =
        json!({"publish": "two", "channel": "room_1", "type": "text/x; y=z", "event": "greeting"});
    let answer = remote.ask(command);
    assert_eq!((&answer["published"], &answer["subscribers"]), (&json!("room_1"), &json!(2)));
    let message = remote.next();
    let members = ["id", "type", "event", "data"].map(|name| message[name].clone());
    assert_eq!(
        members,
        [answer["id"].clone(), json!("text/x; y=z"), json!("greeting"), json!("two")]
    );
    let reply = nginx.poll_all("room_1").pop().unwrap();
    assert_eq!(reply.header("Content-Type"), Some("text/x; y=z"));
    // Bytes.
    remote.ask(json!({"publish": {"base64": "/wD+"}, "channel": "room_1"}));
    assert_eq!(remote.next()["base64"], json!("/wD+"));
    assert_eq!(nginx.poll_all("room_1").pop().unwrap().body, b"\xff\0\xfe");
    // Nothing at all, and as much as a body may have here.
    for length in [0, 500_000] {
        remote.ask(json!({"publish": "x".repeat(length), "channel": "room_1"}));
        assert_eq!(remote.next()["data"].as_str().unwrap().len(), length);
    }
}

fn a_client_publishes_to_the_channels_of_its_location(workers: usize) {
    let nginx = start(workers);
    let mut remote = Remote::open(&nginx, "/both?id=a,b");
    let answer = remote.ask(json!({"publish": "hello", "request": 1}));
    assert_eq!(answer["published"], json!(["a", "b"]));
    assert_eq!(answer["subscribers"], json!([1, 1]));
    let ids = answer["id"].as_array().unwrap();
    for (place, channel) in ["a", "b"].iter().enumerate() {
        assert_eq!(remote.message(channel, "hello"), ids[place].as_str().unwrap());
    }
    // Which channels it has does not matter.
    remote.unsubscribe("a");
    remote.subscribe("room_1");
    let answer = remote.ask(json!({"publish": "again"}));
    assert_eq!(answer["published"], json!(["a", "b"]));
    assert_eq!(answer["subscribers"], json!([0, 1]));
    remote.message("b", "again");
    let mut remote = Remote::open(&nginx, "/both?id=c");
    let answer = remote.ask(json!({"publish": "one"}));
    assert_eq!((&answer["published"], &answer["subscribers"]), (&json!("c"), &json!(1)));
}

fn a_client_of_a_publisher_location_only_publishes(workers: usize) {
    let nginx = start(workers);
    let mut remote = Remote::open(&nginx, "/pub?id=a,b");
    let mut listener = Kind::EventSource.listen(nginx.port(), "b");
    nginx.wait_for_subscribers("b", 1);
    let answer = remote.ask(json!({"publish": "hello"}));
    assert_eq!(
        (&answer["published"], &answer["subscribers"]),
        (&json!(["a", "b"]), &json!([0, 1]))
    );
    listener.expect_message("hello");
    let answer = remote.ask(json!({"publish": "one", "channel": "room_1"}));
    assert_eq!(answer["published"], json!("room_1"));
    remote.refused(json!({"subscribe": "a"}), 403);
    remote.refused(json!({"unsubscribe": "a"}), 400);
    remote.refused(json!({"publish": "x", "channel": "other"}), 403);
    assert_eq!((nginx.subscribers("a"), nginx.messages("other")), (0, 0));
    remote.0.close();
}

fn a_client_may_have_no_channel_for_a_while(workers: usize) {
    let nginx = start(workers);
    let mut remote = Remote::open(&nginx, "/both?id=a");
    for round in 0..3 {
        remote.unsubscribe("a");
        nginx.publish("a", "not for it").expect_status(202);
        counts(&nginx, &[("a", 0)]);
        delete(&nginx, "a");
        // It can speak and be spoken to.
        remote.0.send(&[Frame::ping("there?")]);
        remote.0.expect_pong(b"there?");
        remote.refused(json!({"unsubscribe": "a"}), 400);
        let body = format!("round {round}");
        assert_eq!(remote.ask(json!({"publish": body}))["subscribers"], json!(0));
        remote.subscribe("a");
        remote.message("a", &body);
        nginx.publish("a", "live").expect_status(201);
        remote.message("a", "live");
    }
    remote.unsubscribe("a");
    remote.0.close();
    // Without a channel it may also just go.
    let mut remote = Remote::open(&nginx, "/sub?id=b");
    remote.unsubscribe("b");
    drop(remote);
    let mut remote = Remote::open(&nginx, "/sub?id=b");
    remote.unsubscribe("b");
    remote.0.into_client().reset();
    counts(&nginx, &[("a", 0), ("b", 0)]);
}

fn what_is_compressed_is_understood_and_compressed(workers: usize) {
    let nginx = start(workers);
    let socket = handshake("/both?id=a").extensions("permessage-deflate").open(nginx.port());
    let mut remote = Remote::new(socket);
    let say = |remote: &mut Remote, command: Value| {
        let data = deflate(command.to_string().as_bytes());
        remote.0.send(&[Frame::text(data).rsv(RSV1)]);
    };
    say(&mut remote, json!({"subscribe": "room_1", "request": 1}));
    remote.expect(json!({"request": 1, "subscribed": "room_1"}));
    let body = "a line that comes again and again\n".repeat(30);
    say(&mut remote, json!({"publish": body, "channel": "room_1"}));
    assert_eq!(remote.next()["published"], json!("room_1"));
    let Message { compressed, data, .. } = remote.0.message();
    assert!(compressed && data.len() > body.len());
    let message: Value = serde_json::from_slice(&data).unwrap();
    assert_eq!(message["data"], json!(body));
    // In parts, and not compressed.
    let bytes = deflate(json!({"unsubscribe": "room_1"}).to_string().as_bytes());
    let (start, end) = bytes.split_at(5);
    remote.0.send(&[Frame::text(start).rsv(RSV1).unfinished(), Frame::continuation(end)]);
    remote.expect(json!({"unsubscribed": "room_1"}));
    remote.subscribe("room_1");
    // Whoever cannot inflate gets it plain.
    let mut plain = Remote::open(&nginx, "/sub?id=room_1");
    assert!(!plain.0.message().compressed);
}

/// A text in which all seconds are the same.
fn without_seconds(text: &str) -> String {
    let mut parts = text.split("1795233");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "TIME" + &part[3..])
}

fn the_session_of_the_readme_is_what_happens(workers: usize) {
    let readme = std::fs::read_to_string(support::config::project_file("README.md")).unwrap();
    let nginx = Nginx::start(Config::push(workers).server(
        "location = /live { push_pubsub websocket; push_channel_id news;
           push_websocket_channels room_* user_$arg_user; }",
    ));
    let mut remote = Remote::open(&nginx, "/live?user=7");
    nginx.wait_for_subscribers("news", 1);
    nginx.publish("news", "hello").expect_status(201);
    let lines = readme.lines().filter_map(|line| {
        let (who, rest) = line.strip_prefix("| ")?.split_once(" | `")?;
        Some((who, rest.strip_suffix("` |")?))
    });
    let mut heard = 0;
    for (who, text) in lines {
        match who {
            "→" => remote.0.send_text(text),
            "←" => {
                let message = remote.0.message();
                let mut said = message.as_text().to_owned();
                let value: Value = serde_json::from_str(&said).unwrap();
                if let Some(id) = value["id"].as_str() {
                    said = said.replace(id.split(':').next().unwrap(), "1795233000");
                }
                assert_eq!(without_seconds(&said), without_seconds(text));
                heard += 1;
            }
            _ => {}
        }
    }
    assert_eq!(heard, 6);
}

fn what_cannot_be_done_is_told_and_changes_nothing(workers: usize) {
    let nginx = start(workers);
    let mut remote = Remote::open(&nginx, "/sub?id=a&user=7");
    for channel in ["b", "room", "Room_1", "extra2", "extr", "user_8", "user_77", "*", " extra"] {
        remote.refused(json!({"subscribe": channel}), 403);
        remote.refused(json!({"unsubscribe": channel}), 403);
    }
    remote.refused(json!({"subscribe": "a"}), 409);
    remote.refused(json!({"unsubscribe": "extra"}), 400);
    remote.refused(json!({"publish": "x"}), 403);
    remote.refused(json!({"publish": "x", "channel": "extra"}), 403);
    // A name that would be cut is not that of another channel.
    remote.refused(json!({"subscribe": format!("room_{}", "x".repeat(1020))}), 403);
    remote.subscribe(&format!("room_{}", "x".repeat(1019)));
    counts(&nginx, &[("a", 1), ("b", 0), ("extra", 0)]);
    assert_eq!(nginx.info("extra").map_or(0, |info| info.messages), 0);
    nginx.publish("a", "still here").expect_status(201);
    remote.message("a", "still here");
    let mut remote = Remote::open(&nginx, "/both?id=a&user=7");
    remote.message("a", "still here");
    remote.refused(json!({"publish": "x", "channel": "b"}), 403);
    remote.refused(json!({"publish": "x", "channel": "user_8"}), 403);
    assert_eq!(
        remote.ask(json!({"publish": "x", "channel": "user_7"}))["published"],
        json!("user_7")
    );
}

fn what_is_no_command_is_told(workers: usize) {
    let nginx = start(workers);
    let mut remote = Remote::open(&nginx, "/both?id=a");
    let deep = format!("{{\"request\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
    for text in [
        "",
        " ",
        "x",
        "null",
        "1",
        "[]",
        "\"subscribe\"",
        "{",
        "{}}",
        "{'subscribe':'extra'}",
        "\0",
        "{\"subscribe\":\"\\ud800\"}",
        "{\"subscribe\":\"extra\"} {\"subscribe\":\"room_1\"}",
        &deep,
    ] {
        remote.0.send_text(text);
        let answer = remote.next();
        assert_eq!((answer.get("request"), &answer["error"]), (None, &json!(400)), "{text:.40}");
    }
    for command in [
        json!({}),
        json!({"what": "extra"}),
        json!({"subscribe": "extra", "unsubscribe": "a"}),
        json!({"subscribe": "extra", "publish": "a"}),
        json!({"subscribe": ""}),
        json!({"subscribe": 1}),
        json!({"subscribe": null}),
        json!({"subscribe": ["extra"]}),
        json!({"subscribe": {"channel": "extra"}}),
        json!({"unsubscribe": true}),
        json!({"subscribe": "extra", "after": 1}),
        json!({"subscribe": "extra", "after": ""}),
        json!({"subscribe": "extra", "after": "1"}),
        json!({"subscribe": "extra", "after": "0:0"}),
        json!({"subscribe": "extra", "after": "1700000000:[3],-"}),
        json!({"subscribe": "extra", "after": "99999999999999999999:1"}),
        json!({"subscribe": "extra", "after": null}),
        json!({"subscribe": "extra", "from": 3}),
        json!({"subscribe": "extra", "from": "last"}),
        json!({"subscribe": "extra", "from": "0"}),
        json!({"subscribe": "extra", "from": "@x"}),
        json!({"publish": 1}),
        json!({"publish": null}),
        json!({"publish": {"base64": "not base64"}}),
        json!({"publish": {"base64": 1}}),
        json!({"publish": {"base46": ""}}),
        json!({"publish": "x", "channel": ""}),
        json!({"publish": "x", "channel": 1}),
        json!({"publish": "x", "channel": ["extra"]}),
        json!({"publish": "x", "type": 1}),
        json!({"publish": "x", "type": "a\r\nX: y"}),
        json!({"publish": "x", "event": "a\ndata: y"}),
        json!({"publish": "x", "event": ["a"]}),
    ] {
        remote.refused(command, 400);
    }
    // Binary frames are none, whatever they say.
    remote.0.send(&[Frame::binary(r#"{"subscribe":"extra"}"#)]);
    assert_eq!(remote.next()["error"], json!(400));
    remote.0.send(&[Frame::binary(vec![0xff; 100])]);
    assert_eq!(remote.next()["error"], json!(400));
    counts(&nginx, &[("a", 1), ("extra", 0)]);
    assert_eq!(nginx.messages("a") + nginx.messages("extra"), 0);
    remote.subscribe("extra");
    nginx.publish("extra", "still here").expect_status(201);
    remote.message("extra", "still here");
}

fn frames_that_must_not_be_end_the_connection(workers: usize) {
    let nginx = Nginx::start(config(workers, "client_max_body_size 100k;"));
    let command = |length: usize| {
        let text = json!({"subscribe": "extra", "more": ""}).to_string();
        text.replace("\"more\":\"\"", &format!("\"more\":\"{}\"", "x".repeat(length - text.len())))
    };
    for (target, most) in [("/sub?id=a", 64 << 10), ("/both?id=a", 100 << 10)] {
        let mut remote = Remote::open(&nginx, target);
        remote.0.send_text(&command(most));
        remote.expect(json!({"subscribed": "extra"}));
        counts(&nginx, &[("a", 1), ("extra", 1)]);
        remote.0.send_text(&command(most + 1));
        remote.0.expect_close(Some(1009));
        counts(&nginx, &[("a", 0), ("extra", 0)]);
        for (frames, code) in [
            (vec![Frame::text(vec![b'"', 0xff, b'"'])], 1007),
            (vec![Frame::text(vec![0xc3]).unfinished(), Frame::continuation("x")], 1007),
            (vec![Frame::text("x".repeat(most)).unfinished(), Frame::continuation("x")], 1009),
            (vec![Frame::continuation("x")], 1002),
            (vec![Frame::text("{}").rsv(RSV1)], 1002),
            (vec![Frame::new(3, "{}")], 1002),
        ] {
            let mut remote = Remote::open(&nginx, target);
            remote.subscribe("extra");
            counts(&nginx, &[("a", 1), ("extra", 1)]);
            remote.0.send(&frames);
            remote.0.expect_close(Some(code));
            counts(&nginx, &[("a", 0), ("extra", 0)]);
        }
        // The promise of a gigabyte.
        let mut remote = Remote::open(&nginx, target);
        let mut huge = Frame::text("").head(true, 1 << 30);
        huge.extend_from_slice(&MASK);
        remote.0.send_bytes(&huge);
        remote.0.expect_close(Some(1009));
        let bomb = deflate(&vec![b' '; 8 << 20]);
        let socket = handshake(target).extensions("permessage-deflate").open(nginx.port());
        let mut remote = Remote::new(socket);
        remote.0.send(&[Frame::text(bomb).rsv(RSV1)]);
        remote.0.expect_close(Some(1009));
    }
    // Where bodies are small, commands are not.
    let nginx = Nginx::start(config(workers, "client_max_body_size 1k;"));
    let mut remote = Remote::open(&nginx, "/both?id=a");
    remote.0.send_text(&command(64 << 10));
    remote.expect(json!({"subscribed": "extra"}));
}

fn a_connection_has_255_channels_at_most(workers: usize) {
    let nginx = start(workers);
    let mut remote = Remote::open(&nginx, "/sub?id=a");
    for number in 1..255 {
        remote.subscribe(&format!("room_{number}"));
    }
    remote.refused(json!({"subscribe": "room_255"}), 403);
    remote.refused(json!({"subscribe": "room_254"}), 409);
    counts(&nginx, &[("a", 1), ("room_1", 1), ("room_254", 1), ("room_255", 0)]);
    for number in [1, 100, 254] {
        let name = format!("room_{number}");
        nginx.publish(&name, "hello").expect_status(201);
        remote.message(&name, "hello");
    }
    remote.unsubscribe("room_100");
    remote.subscribe("room_255");
    remote.refused(json!({"subscribe": "room_100"}), 403);
    nginx.publish("room_255", "hello").expect_status(201);
    remote.message("room_255", "hello");
    drop(remote);
    counts(&nginx, &[("a", 0), ("room_1", 0), ("room_255", 0)]);
}

fn a_channel_may_refuse_a_subscriber(workers: usize) {
    let nginx = Nginx::start(
        config(workers, "")
            .subscriber("push_authorized_channels_only on; push_max_channel_subscribers 1;"),
    );
    nginx.publish("a", "1");
    let mut remote = Remote::open(&nginx, "/sub?id=a");
    remote.message("a", "1");
    remote.refused(json!({"subscribe": "room_1"}), 403);
    assert_eq!(nginx.info("room_1"), None);
    nginx.publish("room_1", "2");
    remote.subscribe("room_1");
    remote.message("room_1", "2");
    nginx.publish("b", "3");
    let mut other = Remote::open(&nginx, "/sub?id=b");
    other.message("b", "3");
    other.refused(json!({"subscribe": "room_1"}), 403);
    remote.unsubscribe("room_1");
    other.subscribe("room_1");
    other.message("room_1", "2");
    counts(&nginx, &[("a", 1), ("b", 1), ("room_1", 1)]);
    let nginx = Nginx::start(config(workers, "").subscriber("push_subscriber_concurrency first;"));
    let mut remote = Remote::open(&nginx, "/sub?id=a");
    remote.subscribe("room_1");
    let mut other = Remote::open(&nginx, "/sub?id=b");
    other.refused(json!({"subscribe": "room_1"}), 409);
    nginx.publish("b", "4").expect_status(201);
    other.message("b", "4");
    counts(&nginx, &[("a", 1), ("b", 1), ("room_1", 1)]);
}

fn a_new_subscriber_takes_the_place_of_one(workers: usize) {
    let nginx = Nginx::start(config(workers, "").subscriber("push_subscriber_concurrency last;"));
    let mut old = Remote::open(&nginx, "/sub?id=a");
    old.subscribe("room_1");
    let mut new = Remote::open(&nginx, "/sub?id=b");
    new.subscribe("room_1");
    old.0.expect_close(Some(1008));
    // Changes of other channels are no coming anew.
    new.subscribe("room_2");
    new.unsubscribe("room_2");
    nginx.publish("room_1", "1").expect_status(201);
    new.message("room_1", "1");
    counts(&nginx, &[("a", 0), ("b", 1), ("room_1", 1), ("room_2", 0)]);
}

fn a_memory_without_room_for_a_channel_is_told(workers: usize) {
    let nginx = Nginx::start(config(workers, "push_shared_memory_size 32k;"));
    let mut remote = Remote::open(&nginx, "/sub?id=a");
    let refused = (1..255).find_map(|number| {
        let answer = remote.ask(json!({"subscribe": format!("room_{number}")}));
        answer.get("error").map(|status| (number, status.clone()))
    });
    let (number, status) = refused.expect("no room");
    assert_eq!(status, json!(507));
    counts(&nginx, &[("a", 1), ("room_1", 1)]);
    // Room that is given back can be taken.
    remote.unsubscribe("room_1");
    delete(&nginx, "room_1");
    remote.subscribe(&format!("room_{number}"));
    remote.refused(json!({"subscribe": "room_1"}), 507);
    remote.0.close();
    counts(&nginx, &[("a", 0), ("room_2", 0)]);
}

fn who_does_not_read_the_answers_is_not_heard_meanwhile(workers: usize) {
    const COUNT: usize = 20_000;
    let nginx = start(workers);
    let mut client = nginx.client();
    client.limit_receive_buffer(256 << 10);
    let mut remote = Remote::new(handshake("/sub?id=a").open_on(client));
    let mut sender = remote.0.client().sender();
    let sent = AtomicUsize::new(0);
    thread::scope(|scope| {
        // More than the kernel keeps on the way.
        let name = |number: usize| json!([number, "x".repeat(1000)]);
        let commands = (0..COUNT).map(|number| match number % 2 {
            0 => json!({"subscribe": "room_1", "request": name(number)}),
            _ => json!({"unsubscribe": "room_1", "request": name(number)}),
        });
        let frames: Vec<Frame> = commands.map(|c| Frame::text(c.to_string())).collect();
        let sent = &sent;
        let sending = scope.spawn(move || {
            for part in frames.chunks(100) {
                sender.write_all(&to_bytes(part)).unwrap();
                sent.fetch_add(part.len(), Ordering::Relaxed);
            }
        });
        // It cannot get rid of all of them, for nobody reads what is answered.
        let pids = nginx.workers();
        let memory =
            |pids: &[i32]| pids.iter().map(|pid| process::private_memory(*pid)).sum::<u64>();
        let before = memory(&pids);
        let mut last = (0, 0);
        wait::until_true("a sender that is stuck", || {
            let now = sent.load(Ordering::Relaxed);
            last = if now == last.0 && now > 0 { (now, last.1 + 1) } else { (now, 0) };
            last.1 == 20
        });
        assert!(last.0 < COUNT, "all was taken");
        assert!(process::is_watched(pids[0]) || memory(&pids) < before + (16 << 20));
        // Others are served.
        let mut other = nginx.park("b");
        nginx.publish("b", "hello").expect_status(201);
        other.response().expect_status(200);
        for number in 0..COUNT {
            let answer = remote.next();
            assert_eq!((&answer["request"], answer.get("error")), (&name(number), None));
        }
        sending.join().unwrap();
    });
    nginx.publish("a", "1").expect_status(201);
    remote.message("a", "1");
    counts(&nginx, &[("a", 1), ("room_1", 0)]);
}

fn patterns_say_which_channels_there_are(workers: usize) {
    let nginx = Nginx::start(config(workers, "").server(
        "location = /all { push_subscriber; push_channel_id $arg_id; push_websocket_channels *; }
         location = /two { push_subscriber; push_channel_id $arg_id;
           push_websocket_channels $arg_x ${arg_y}_*; }
         location = /user { push_subscriber; push_channel_id $arg_id;
           push_websocket_channels 'user $arg_user' \"$arg_user/*\"; }",
    ));
    let mut all = Remote::open(&nginx, "/all?id=a");
    for channel in ["b", "x y", "*", "\u{1f600}", "a,b", "\0\n"] {
        all.subscribe(channel);
    }
    nginx.publish("b", "1").expect_status(201);
    all.message("b", "1");
    nginx.publish("a", "2").expect_status(201);
    all.message("a", "2");
    // A location's list takes the place of that around it; an empty value names nothing.
    let mut two = Remote::open(&nginx, "/two?id=a&x=x");
    two.message("a", "2");
    two.subscribe("x");
    two.subscribe("_y");
    for channel in ["room_1", "y", "xx", "b"] {
        two.refused(json!({"subscribe": channel}), 403);
    }
    let mut user = Remote::open(&nginx, "/user?id=c&user=7");
    user.subscribe("user 7");
    user.subscribe("7/");
    user.subscribe("7/x/y");
    for channel in ["user 8", "user 77", "77/x", "7", "8/x"] {
        user.refused(json!({"subscribe": channel}), 403);
    }
    // Variables are those of the handshake.
    let mut seven = Remote::open(&nginx, "/sub?id=d&user=7");
    let mut eight = Remote::open(&nginx, "/sub?id=d&user=8");
    seven.subscribe("user_7");
    eight.subscribe("user_8");
    seven.refused(json!({"subscribe": "user_8"}), 403);
    eight.refused(json!({"subscribe": "user_7"}), 403);
    // What the location itself lists, a client may have again without a pattern.
    let mut none = Remote::open(&nginx, "/two?id=e,f");
    none.unsubscribe("e");
    none.subscribe("e");
    none.refused(json!({"subscribe": "e,f"}), 403);
}

fn a_star_in_a_variable_is_no_pattern(workers: usize) {
    let nginx = start(workers);
    let mut remote = Remote::open(&nginx, "/sub?id=a&user=*");
    remote.refused(json!({"subscribe": "user_7"}), 403);
    remote.refused(json!({"subscribe": "user_"}), 403);
    remote.subscribe("user_*");
}

fn groups_are_kept_apart(workers: usize) {
    let nginx = Nginx::start(config(workers, "").server(
        "location = /red { push_pubsub; push_channel_id $arg_id; push_channel_group red; }
         location = /blue { push_pubsub; push_channel_id $arg_id; push_channel_group blue; }",
    ));
    let mut red = Remote::open(&nginx, "/red?id=a");
    let mut blue = Remote::open(&nginx, "/blue?id=a");
    for remote in [&mut red, &mut blue] {
        remote.subscribe("room_1");
        // The name has no group.
        remote.refused(json!({"subscribe": "red/room_1"}), 403);
        remote.refused(json!({"subscribe": "/room_1"}), 403);
    }
    assert_eq!(
        red.ask(json!({"publish": "for red", "channel": "room_1"}))["subscribers"],
        json!(1)
    );
    assert_eq!(blue.ask(json!({"publish": "for blue"}))["published"], json!("a"));
    red.message("room_1", "for red");
    blue.message("a", "for blue");
    nginx.publish("room_1", "for none").expect_status(202);
    assert_eq!(red.ask(json!({"unsubscribe": "room_1"})), json!({"unsubscribed": "room_1"}));
    assert_eq!(blue.ask(json!({"unsubscribe": "room_1"})), json!({"unsubscribed": "room_1"}));
}

fn a_gap_before_the_first_message_is_told_in_a_frame(workers: usize) {
    let nginx = Nginx::start(config(workers, "push_message_buffer_length 2;"));
    let mut ids = HashMap::new();
    for id in ["a", "room_1"] {
        nginx.publish(id, "0");
        ids.insert(id, id_of(&nginx, id, "0"));
        for number in 1..=5 {
            nginx.publish(id, number.to_string());
        }
    }
    let gap = json!({"missed": 3, "at_least": false});
    let target = format!("/sub?id=a&last_event_id={}", ids["a"]);
    let mut remote = Remote::open(&nginx, &target);
    assert_eq!(remote.0.response.header("Push-Missed"), Some("3"));
    remote.expect(gap.clone());
    remote.message("a", "4");
    remote.message("a", "5");
    let answer = remote.ask(json!({"subscribe": "room_1", "after": ids["room_1"], "request": 1}));
    assert_eq!(answer, json!({"request": 1, "subscribed": "room_1"}));
    remote.expect(gap);
    remote.message("room_1", "4");
    let id = remote.message("room_1", "5");
    // Without a gap there is no such frame, nor one where the client wants the rest only.
    remote.unsubscribe("room_1");
    remote.say(json!({"subscribe": "room_1", "after": id}));
    remote.expect(json!({"subscribed": "room_1"}));
    remote.unsubscribe("room_1");
    remote.subscribe("room_1");
    remote.message("room_1", "4");
    remote.message("room_1", "5");
}

fn a_slow_reader_is_told_what_it_has_missed(workers: usize) {
    const COUNT: usize = 400;
    let nginx =
        Nginx::start(config(workers, "push_message_buffer_length 20; client_max_body_size 8m;"));
    let mut client = nginx.client();
    client.limit_receive_buffer(128 << 10);
    let mut remote = Remote::new(handshake("/sub?id=a").open_on(client));
    remote.subscribe("room_1");
    for number in 0..COUNT {
        let body = format!("{number}:{}", "x".repeat(100_000));
        nginx.publish(["a", "room_1"][number % 2], body).expect_status(201);
    }
    // What it says in the meantime is done, and answered when there is room for it.
    remote.say(json!({"subscribe": "room_2", "request": "late"}));
    let (mut got, mut missed, mut last, mut answered) = (0, 0, None, false);
    while got + missed < COUNT {
        let frame = remote.next();
        if let Some(count) = frame.get("missed") {
            assert_eq!(frame["at_least"], json!(false));
            missed += count.as_u64().unwrap() as usize;
        } else if frame["request"] == json!("late") {
            assert_eq!(frame["subscribed"], json!("room_2"));
            answered = true;
        } else {
            let data = frame["data"].as_str().unwrap_or_else(|| panic!("{frame}"));
            let number: usize = data.split(':').next().unwrap().parse().unwrap();
            assert_eq!(frame["channel"], json!(["a", "room_1"][number % 2]));
            assert!(last < Some(number));
            (got, last) = (got + 1, Some(number));
        }
    }
    assert_eq!((got + missed, last), (COUNT, Some(COUNT - 1)));
    assert!(missed > 0 && got >= 20);
    if !answered {
        remote.expect(json!({"request": "late", "subscribed": "room_2"}));
    }
    nginx.publish("room_2", "live").expect_status(201);
    remote.message("room_2", "live");
}

fn a_deleted_channel_is_told_and_may_be_had_again(workers: usize) {
    let nginx = start(workers);
    let mut remote = Remote::open(&nginx, "/sub?id=a");
    for round in 0..3 {
        remote.subscribe("room_1");
        nginx.publish("room_1", "last words").expect_status(201);
        delete(&nginx, "room_1");
        remote.message("room_1", "last words");
        remote.expect(json!({"left": "room_1", "reason": "deleted"}));
        nginx.publish("a", format!("round {round}")).expect_status(201);
        remote.message("a", &format!("round {round}"));
        // It has left: leaving is no more possible, coming is.
        nginx.publish("room_1", "another life").expect_status(202);
        remote.refused(json!({"unsubscribe": "room_1"}), 400);
        remote.subscribe("room_1");
        remote.message("room_1", "another life");
        counts(&nginx, &[("a", 1), ("room_1", 1)]);
        nginx.publish("room_1", "live").expect_status(201);
        remote.message("room_1", "live");
        remote.unsubscribe("room_1");
        counts(&nginx, &[("a", 1), ("room_1", 0)]);
        delete(&nginx, "room_1");
    }
    // Other changes do not bring it back.
    remote.subscribe("room_1");
    remote.subscribe("room_2");
    delete(&nginx, "room_1");
    remote.expect(json!({"left": "room_1", "reason": "deleted"}));
    remote.unsubscribe("room_2");
    remote.subscribe("room_3");
    nginx.publish("room_1", "another life").expect_status(202);
    nginx.publish("room_3", "live").expect_status(201);
    remote.message("room_3", "live");
    counts(&nginx, &[("a", 1), ("room_1", 0), ("room_2", 0), ("room_3", 1)]);
}

fn the_end_of_all_channels_is_the_end(workers: usize) {
    let nginx = start(workers);
    let mut one = Remote::open(&nginx, "/sub?id=a");
    let mut three = Remote::open(&nginx, "/sub?id=a,b");
    three.subscribe("room_1");
    counts(&nginx, &[("a", 2), ("b", 1), ("room_1", 1)]);
    delete(&nginx, "a");
    one.0.expect_close(Some(1001));
    three.expect(json!({"left": "a", "reason": "deleted"}));
    delete(&nginx, "room_1");
    three.expect(json!({"left": "room_1", "reason": "deleted"}));
    delete(&nginx, "b");
    three.0.expect_close(Some(1001));
    // Who has left some of them itself has none any more either.
    let mut two = Remote::open(&nginx, "/sub?id=a,b");
    two.unsubscribe("a");
    delete(&nginx, "b");
    two.0.expect_close(Some(1001));
    counts(&nginx, &[("a", 0), ("b", 0), ("room_1", 0)]);
}

fn silence_is_measured_from_the_last_change(workers: usize) {
    let nginx = Nginx::start(
        config(workers, "push_ping_interval 2s;").server(
            "location = /short { push_subscriber; push_channel_id $arg_id; push_subscriber_timeout 2s; }",
        ),
    );
    // A client without a channel is asked for a sign of life, too, and dropped if it gives none.
    let mut remote = Remote::open(&nginx, "/sub?id=a");
    remote.unsubscribe("a");
    for _ in 0..3 {
        let ping = remote.0.frame();
        assert_eq!(ping, Frame::ping(""));
        remote.0.send(&[Frame::pong("")]);
    }
    assert_eq!(remote.0.frame(), Frame::ping(""));
    remote.0.expect_end_of_connection();
    let mut remote = Remote::open(&nginx, "/short?id=a");
    remote.unsubscribe("a");
    remote.0.expect_close(Some(1000));
}

fn subscribers_are_counted_after_every_change(workers: usize) {
    let nginx = start(workers);
    let mut remotes: Vec<Remote> = (0..8).map(|_| Remote::open(&nginx, "/sub?id=a")).collect();
    for (number, remote) in remotes.iter_mut().enumerate() {
        counts(&nginx, &[("room_1", number as u64), ("room_2", number as u64)]);
        remote.subscribe("room_1");
        counts(&nginx, &[("room_1", number as u64 + 1)]);
        remote.subscribe("room_2");
    }
    // Others are counted beside them.
    let stream = Kind::EventSource.listen(nginx.port(), "room_1,a");
    counts(&nginx, &[("a", 9), ("room_1", 9), ("room_2", 8)]);
    for (number, remote) in remotes.iter_mut().enumerate() {
        let left = 8 - number as u64;
        remote.unsubscribe("room_1");
        counts(&nginx, &[("a", left + 1), ("room_1", left), ("room_2", 8)]);
        remote.unsubscribe("room_2");
        remote.unsubscribe("a");
        remote.subscribe("room_2");
        counts(&nginx, &[("a", left), ("room_2", 8)]);
    }
    drop(stream);
    counts(&nginx, &[("a", 0), ("room_1", 0), ("room_2", 8)]);
    // However they go.
    for (number, mut remote) in remotes.into_iter().enumerate() {
        match number % 3 {
            0 => remote.0.close(),
            1 => drop(remote),
            _ => remote.0.into_client().reset(),
        }
        counts(&nginx, &[("room_2", 7 - number as u64)]);
    }
}

fn killed_workers_leave_no_counts_behind(workers: usize) {
    let mut nginx = start(workers);
    let mut remotes: Vec<Remote> = (0..12).map(|_| Remote::open(&nginx, "/sub?id=a")).collect();
    for remote in &mut remotes {
        remote.subscribe("room_1");
        remote.subscribe("room_2");
        remote.unsubscribe("room_1");
        remote.unsubscribe("a");
        remote.subscribe("room_3");
    }
    counts(&nginx, &[("a", 0), ("room_1", 0), ("room_2", 12), ("room_3", 12)]);
    for pid in nginx.workers() {
        nginx.kill_worker(pid);
    }
    counts(&nginx, &[("a", 0), ("room_1", 0), ("room_2", 0), ("room_3", 0)]);
    let mut remote = Remote::open(&nginx, "/sub?id=a");
    remote.subscribe("room_2");
    nginx.publish("room_2", "1").expect_status(201);
    remote.message("room_2", "1");
}

/// The channels of the tests under load; the first is the location's.
const IDS: [&str; 6] = ["home", "room_0", "room_1", "room_2", "room_3", "extra"];

/// What a client that changes its channels all the time has got so far.
#[derive(Default)]
struct Book {
    bodies: HashMap<String, Vec<String>>,
    last: HashMap<String, String>,
    ended: usize,
    /// Which command comes next.
    turn: usize,
}

impl Book {
    fn note(&mut self, message: &Value) {
        let text = |name: &str| message[name].as_str().unwrap_or_else(|| panic!("{message}"));
        let (channel, data, id) = (text("channel"), text("data"), text("id"));
        self.last.insert(channel.to_owned(), id.to_owned());
        match data {
            load::END => self.ended += 1,
            data => self.bodies.entry(channel.to_owned()).or_default().push(data.to_owned()),
        }
    }

    fn is_complete(&self) -> bool {
        self.ended == IDS.len()
    }

    /// Reads up to the answer to a request. False if the connection has ended before.
    fn read_up_to(
        &mut self,
        socket: &mut WebSocket,
        has: &[&str],
        request: usize,
    ) -> io::Result<bool> {
        loop {
            let frame = socket.try_frame_after_pings()?;
            if frame.opcode == CLOSE {
                assert_eq!(frame.close_code(), Some(1012));
                return Ok(false);
            }
            let message = socket.try_message_from(frame)?;
            let message: Value = serde_json::from_str(message.as_text()).expect("JSON");
            if message["request"] == json!(request) {
                // A worker that leaves.
                assert!(
                    message.get("error").is_none_or(|status| *status == json!(503)),
                    "{message}"
                );
                return Ok(true);
            }
            let channel =
                message["channel"].as_str().unwrap_or_else(|| panic!("not a message: {message}"));
            assert!(has.contains(&channel), "{message} with {has:?}");
            self.note(&message);
        }
    }

    /// One connection, up to its end or that of all channels.
    fn follow_once(&mut self, port: u16) -> io::Result<()> {
        let mut target = subscriber(IDS[0]);
        if let Some(id) = self.last.get(IDS[0]) {
            target = format!("{target}&last_event_id={id}");
        }
        let mut socket = handshake(&target).try_open_on(Client::try_connect(port)?)?;
        if socket.response.status == 503 {
            return Ok(());
        }
        assert_eq!((socket.response.status, socket.response.header("Push-Missed")), (101, None));
        let mut has = vec![IDS[0]];
        while !self.is_complete() {
            self.turn += 1;
            let channel = IDS[self.turn % IDS.len()];
            let place = has.iter().position(|known| *known == channel);
            let mut command = match place {
                Some(_) => json!({"unsubscribe": channel, "request": self.turn}),
                None => json!({"subscribe": channel, "request": self.turn}),
            };
            if let (None, Some(id)) = (place, self.last.get(channel)) {
                command["after"] = json!(id);
            }
            let bytes = Frame::text(command.to_string()).to_bytes(Some(MASK));
            socket.client().try_send_bytes(&bytes)?;
            // Until the answer, both may be.
            let before = has.clone();
            match place {
                Some(place) => drop(has.swap_remove(place)),
                None => has.push(channel),
            }
            if !self.read_up_to(&mut socket, &before, self.turn)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Follows all channels to their ends, reconnecting as often as it takes.
    fn follow(mut self, port: u16) -> HashMap<String, Vec<String>> {
        while !self.is_complete() {
            if self.follow_once(port).is_err() {
                thread::sleep(Duration::from_millis(5));
            }
        }
        self.bodies
    }
}

/// Publishers on all channels and clients that change them all the time, while `disturb` is at work.
fn under_load(workers: usize, disturb: impl FnOnce(&mut Nginx)) {
    const EACH: usize = 60;
    let mut nginx = Nginx::start(config(workers, "push_message_buffer_length 100000;"));
    let port = nginx.port();
    let (acknowledged, received) = thread::scope(|scope| {
        let followers: Vec<_> = (0..6)
            .map(|turn| scope.spawn(move || Book { turn, ..Book::default() }.follow(port)))
            .collect();
        let publishers = IDS.map(|id| scope.spawn(move || load::publish(port, id, id, EACH)));
        disturb(&mut nginx);
        let acknowledged = publishers.map(|publisher| publisher.join().unwrap());
        IDS.iter().for_each(|id| load::publish_end(port, id));
        let received: Vec<_> =
            followers.into_iter().map(|follower| follower.join().unwrap()).collect();
        (acknowledged, received)
    });
    for (id, published) in IDS.iter().zip(acknowledged) {
        let received: Vec<Vec<String>> =
            received.iter().map(|bodies| bodies[*id].clone()).collect();
        load::assert_complete(&[published], &received);
    }
    IDS.iter().for_each(|id| nginx.wait_for_subscribers(id, 0));
}

fn changes_lose_nothing(workers: usize) {
    under_load(workers, |_| {});
}

fn changes_lose_nothing_in_reloads(workers: usize) {
    under_load(workers, |nginx| {
        for _ in 0..3 {
            let old = nginx.reload();
            nginx.wait_gone(&old);
        }
    });
}

fn changes_lose_nothing_when_workers_are_killed(workers: usize) {
    under_load(workers, |nginx| {
        for kill in 0..3 {
            let pids = nginx.workers();
            nginx.kill_worker(pids[kill % pids.len()]);
        }
    });
}

fn a_worker_that_leaves_sends_those_away_who_change_all_the_time(workers: usize) {
    // So many that they do not all leave in the first step.
    const CLIENTS: usize = 200;
    let nginx = start(workers);
    let stop = AtomicBool::new(false);
    let mut remotes: Vec<Remote> =
        (0..CLIENTS).map(|_| Remote::open(&nginx, "/sub?id=a")).collect();
    thread::scope(|scope| {
        let (mut busy, idle) = (remotes.split_off(CLIENTS / 2), remotes);
        let stop = &stop;
        let changes = scope.spawn(move || {
            let mut gone = vec![false; busy.len()];
            let mut number = 0;
            while gone.contains(&false) && !stop.load(Ordering::Relaxed) {
                number += 1;
                let word = ["subscribe", "unsubscribe"][(number + 1) % 2];
                let command = Frame::text(json!({ word: "room_1" }).to_string());
                let bytes = command.to_bytes(Some(MASK));
                for (remote, gone) in busy.iter_mut().zip(&mut gone).filter(|(_, gone)| !**gone) {
                    let frame = remote
                        .0
                        .client()
                        .try_send_bytes(&bytes)
                        .and_then(|()| remote.0.try_frame_after_pings());
                    match frame {
                        Ok(frame) if frame.opcode == CLOSE => {
                            assert_eq!(frame.close_code(), Some(1012));
                            let answer = Frame::new(CLOSE, frame.payload).to_bytes(Some(MASK));
                            let _ = remote.0.client().try_send_bytes(&answer);
                            *gone = true;
                        }
                        Ok(_) => {}
                        Err(error) => panic!("no close frame: {error}"),
                    }
                }
            }
            gone
        });
        let old = nginx.reload();
        for mut remote in idle {
            remote.0.expect_close(Some(1012));
        }
        nginx.wait_gone(&old);
        stop.store(true, Ordering::Relaxed);
        assert!(!changes.join().unwrap().contains(&false));
    });
    counts(&nginx, &[("a", 0), ("room_1", 0)]);
    // They come back and go on.
    let mut remote = Remote::open(&nginx, "/sub?id=a");
    remote.subscribe("room_1");
    nginx.publish("room_1", "1").expect_status(201);
    remote.message("room_1", "1");
    assert!(nginx.workers().iter().all(|pid| process::is_running(*pid)));
}
