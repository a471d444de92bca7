//! Tests for clients that mean harm: each attack has a defined answer, and the others are served.
//!
//! `docs/security.md` says which threat is shown where, also in the other files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;
use std::{fs, thread};

use serde_json::{json, Value};
use support::event_source::{self, EventSource};
use support::lines::{self, json_request, Lines};
use support::push::{pattern, publisher, subscriber};
use support::websocket::{to_bytes, Frame, Handshake};
use support::{on_1_and_4_workers, process, wait, Client, Config, Cursor, Nginx, Request, Signal};

on_1_and_4_workers!(
    // Slowness and size.
    slow_heads_and_bodies_are_ended_and_others_are_served,
    giant_heads_are_refused_and_giant_ids_cut,
    // Names.
    no_name_breaks_out_of_channel_info,
    no_name_breaks_out_of_a_transport,
    no_name_breaks_out_of_a_log,
    a_nul_is_a_byte_like_others_or_refused,
    what_publishers_say_of_a_message_stays_a_value,
    no_publisher_ends_what_others_hear,
    // Files.
    what_others_put_beside_our_files_is_left_alone,
    a_file_that_was_exchanged_is_not_taken_for_a_message,
    a_file_that_somebody_has_removed_is_a_message_that_is_missed,
    // Positions.
    every_cursor_has_a_defined_position,
    every_date_and_tag_has_a_defined_position,
    no_cursor_keeps_a_stream_from_what_comes,
    every_first_message_is_served_or_refused,
    a_reload_with_clients_of_all_cursors,
    // Many channels.
    channels_of_clients_that_went_leave_nothing_behind,
    idle_channels_do_not_keep_publishers_from_publishing,
    idle_channels_do_not_drive_messages_out,
    more_channels_than_allowed_are_refused_on_all_ways,
    idle_channels_give_way_to_others,
    a_reload_changes_how_many_channels_there_may_be,
    // Many connections.
    a_flood_of_subscribers_ends_at_the_limit,
    a_flood_of_connections_ends_with_it,
    // WebSocket.
    pings_without_end_cost_no_memory,
    fragments_without_end_cost_no_memory,
    commands_that_are_no_commands_are_answered,
    // Permission.
    who_may_not_publish_changes_nothing,
);

/// What a location serves by what the client asks for; iframe and JSON lines have locations of their own.
const ALL: &str = "long-poll eventsource websocket multipart jsonp";

/// Names that nobody means well with.
const NAMES: [&[u8]; 14] = [
    b"\"quoted\" and 'quoted'",
    b"back\\slash\\",
    b"a\r\nforged: 1",
    b"a\n\ndata: forged",
    b"a\rforged: 1\r\n\r\nforged",
    b"</script><script>forged()</script>",
    b"<!-- ]]> --> <![CDATA[ &amp; &forged; <forged/>",
    b"\xff\xfe\xc0\x80",
    b"\x01\x02\x1b[31m\x7f",
    "\u{2028}\u{2029}\u{85}\u{feff}\u{ffff}\u{202e}".as_bytes(),
    b"- forged: |",
    b"${forged} {{forged}} `forged`",
    b"\"\\u002c \"forged\": \"1",
    b"*&?#%2500%0d%0a+",
];

fn config(workers: usize) -> Config {
    let location = |path: &str, kind: &str| {
        format!("location ~ \"(?s)^/{path}/(.+)$\" {{ {kind}; push_channel_id $1; }}\n")
    };
    Config::push(workers)
        .transports(ALL)
        .http("push_channel_id_split_delimiter ',';")
        .server(&location("pub2", "push_publisher"))
        .server(&location("sub2", &format!("push_subscriber {ALL}")))
        .server(&location("frame2", "push_subscriber iframe"))
        .server(&location("lines2", "push_subscriber stream"))
        .server("location = /lines { push_subscriber stream; push_channel_id $arg_id; }")
        .server("location = /interval { push_subscriber interval-poll; push_channel_id $arg_id; }")
        .server("location = /frame { push_subscriber iframe; push_channel_id $arg_id; }")
}

fn start(workers: usize, http: &str) -> Nginx {
    Nginx::start(config(workers).http(http))
}

/// Every byte percent-encoded, so that nginx decodes it.
fn encoded(name: &[u8]) -> String {
    name.iter().map(|byte| format!("%{byte:02x}")).collect()
}

/// A cursor as a value in a URL, as short as it may be.
fn argument(cursor: &str) -> String {
    let short = |byte: u8| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'-' => char::from(byte).to_string(),
        _ => format!("%{byte:02x}"),
    };
    format!("last_event_id={}", cursor.bytes().map(short).collect::<String>())
}

/// What is told of a name in a text.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Panics unless messages go through.
#[track_caller]
fn expect_service(nginx: &Nginx, id: &str) {
    let mut waiting = nginx.park(id);
    nginx.publish(id, "served").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "served");
    nginx.request(&Request::new("DELETE", &publisher(id))).expect_status(200);
}

fn slow_heads_and_bodies_are_ended_and_others_are_served(workers: usize) {
    let nginx = start(workers, "client_header_timeout 1s; client_body_timeout 1s;");
    let head = Request::get(&subscriber("slow")).to_bytes();
    let post = Request::post(&publisher("slow"), pattern(10_000)).to_bytes();
    let mut heads: Vec<Client> = (0..10).map(|_| nginx.client()).collect();
    let mut bodies: Vec<Client> = (0..10).map(|_| nginx.client()).collect();
    bodies.iter_mut().for_each(|client| client.send_bytes(&post[..200]));
    let mut sent = 0;
    wait::until_true("the end of heads that come a byte at a time", || {
        expect_service(&nginx, "other");
        let bytes = [head[sent % head.len().saturating_sub(1)]];
        // Each byte of a body is a sign of life.
        if sent < 5 {
            bodies.iter_mut().for_each(|client| drop(client.try_send_bytes(&bytes)));
        }
        sent += 1;
        thread::sleep(Duration::from_millis(50));
        heads.iter_mut().all(|client| client.has_bytes() || client.try_send_bytes(&bytes).is_err())
    });
    for client in &mut bodies {
        client.expect_closed_or_reset();
    }
    nginx.get(&publisher("slow")).expect_status(404);
    expect_service(&nginx, "slow");
}

fn giant_heads_are_refused_and_giant_ids_cut(workers: usize) {
    let nginx = start(workers, "");
    for length in [9_000, 40_000] {
        let giant = "x".repeat(length);
        nginx.get(&subscriber(&giant)).expect_status(414);
        nginx.request(&Request::post(&publisher(&giant), "a")).expect_status(414);
        for name in ["Last-Event-ID", "If-None-Match", "Accept", "Sec-WebSocket-Protocol"] {
            let request = Request::get(&subscriber("a")).header(name, &giant);
            nginx.request(&request).expect_status(400);
        }
    }
    let (one, two) = ("x".repeat(1024), "x".repeat(7_000));
    nginx.publish(&one, "kept");
    nginx.publish(&two, "the same");
    assert_eq!(nginx.queue(&one), ["kept", "the same"]);
    let log = nginx.error_log();
    let cut: Vec<&str> = log.lines().filter(|line| line.contains("was cut")).collect();
    assert!(!cut.is_empty());
    expect_service(&nginx, "a");
}

/// The information about all of [`NAMES`] in one form.
fn told(nginx: &Nginx, accept: &str) -> String {
    let all = NAMES.map(encoded).join(",");
    let request = Request::get(&format!("/pub2/{all}")).header("Accept", accept);
    let response = nginx.request(&request).expect_status(200);
    assert_eq!(response.header("Content-Type"), Some(accept));
    response.text().to_owned()
}

fn no_name_breaks_out_of_channel_info(workers: usize) {
    let nginx = start(workers, "");
    for name in NAMES {
        nginx.publish_at(&format!("/pub2/{}", encoded(name)), "x");
    }
    let names = NAMES.map(shown).to_vec();

    let json: Value = serde_json::from_str(&told(&nginx, "application/json")).unwrap();
    let objects = json.as_array().unwrap();
    let found: Vec<&str> = objects.iter().map(|one| one["channel"].as_str().unwrap()).collect();
    assert_eq!(found, names);
    assert!(objects.iter().all(|one| one.as_object().unwrap().len() == 4 && one["messages"] == 1));

    let text = told(&nginx, "text/plain");
    let blocks: Vec<&str> = text.split("\r\n\r\n").collect();
    assert_eq!(blocks.len(), names.len(), "{text}");
    for block in blocks {
        let lines: Vec<&str> = block.split("\r\n").collect();
        assert!(lines.len() == 4 && lines[0].starts_with("channel: "), "{block:?}");
        assert!(!block.replace("\r\n", "").contains(char::is_control), "{block:?}");
    }

    // JSON strings are YAML's, but for what YAML has no place for in a document.
    let yaml = told(&nginx, "application/yaml");
    let lines: Vec<&str> = yaml.split("\r\n").collect();
    assert_eq!(lines.len(), 1 + 4 * names.len() + 2, "{yaml}");
    for (name, lines) in names.iter().zip(lines[1..].chunks(4)) {
        let channel = lines[0].strip_prefix("- channel: ").unwrap_or_else(|| panic!("{lines:?}"));
        assert_eq!(serde_json::from_str::<String>(channel).as_ref().ok(), Some(name));
        let forbidden = |c: char| c.is_control() || ('\u{fffe}'..='\u{ffff}').contains(&c);
        assert!(!channel.contains(forbidden), "{channel:?}");
        assert_eq!(lines[1], "  messages: 1");
    }

    let xml = told(&nginx, "application/xml");
    assert_eq!(xml.matches("<channel>").count(), names.len());
    let found: Vec<&str> =
        xml.split("<name>").skip(1).map(|rest| rest.split("</name>").next().unwrap()).collect();
    for (name, found) in names.iter().zip(found) {
        assert!(!found.contains(|c: char| c == '<' || c == '>' || c.is_control()), "{found:?}");
        let unescaped = found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        let place_held = |c: char| match c {
            '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        };
        assert_eq!(unescaped, name.chars().map(place_held).collect::<String>());
    }
}

/// Reads until a text has come, and returns all that has.
#[track_caller]
fn read_until(client: &mut Client, text: &str) -> String {
    let mut all = Vec::new();
    loop {
        match client.try_some() {
            Ok(Some(bytes)) => all.extend(bytes),
            end => panic!("{end:?} before {text:?} in {:?}", String::from_utf8_lossy(&all)),
        }
        if all.windows(text.len()).any(|window| window == text.as_bytes()) {
            return String::from_utf8_lossy(&all).into_owned();
        }
    }
}

fn no_name_breaks_out_of_a_transport(workers: usize) {
    let nginx = start(workers, "");
    for name in NAMES {
        nginx.publish_at(&format!("/pub2/{}", encoded(name)), "message");
        // Of several channels, each message says which one it came from.
        let path = |prefix: &str| format!("/{prefix}/{},other", encoded(name));
        let target = path("sub2");
        let is_field = !name.iter().any(|byte| byte.is_ascii_control());

        let poll = nginx.get(&target).expect_status(200);
        assert!(!poll.head.contains("\nforged"), "{}", poll.head);
        let told = poll.headers.iter().find(|(name, _)| name == "Push-Channel");
        assert_eq!(
            told.map(|(_, told)| told.clone()),
            is_field.then(|| shown(name).trim().to_owned())
        );

        let line = Lines::open(nginx.port(), &json_request(&path("lines2"))).json();
        assert_eq!(
            (line["channel"].as_str(), &line["data"]),
            (Some(&*shown(name)), &"message".into())
        );
        assert!(line.get("forged").is_none());

        let script = nginx.get(&format!("{target}?callback=take")).expect_status(200);
        let array = script.text().strip_prefix("/**/take(").unwrap().strip_suffix(");\n").unwrap();
        let objects: Value = serde_json::from_str(array).unwrap();
        assert_eq!(objects[0]["channel"].as_str(), Some(&*shown(name)));
        assert!(!array.contains(['<', '>', '\u{2028}']), "{array}");

        let mut events = nginx.client();
        events.send(&event_source::request(&target));
        let events = read_until(&mut events, "data: message");
        assert!(!events.contains("\nforged") && !events.contains("\rforged"), "{events:?}");
        assert!(!events.contains("data: forged"), "{events:?}");
        assert_eq!(events.matches("\nid: ").count(), 1, "{events:?}");

        let mut page = nginx.client();
        page.send(&Request::get(&path("frame2")));
        let page = read_until(&mut page, "\"message\"})</script>");
        let (_, call) = page.rsplit_once("pushMessage(").unwrap();
        let value = lines::parse(call.split_once(")</script>").unwrap().0);
        assert_eq!(value["channel"].as_str(), Some(&*shown(name)));

        let mut parts = nginx.client();
        parts.send(&Request::get(&target).header("Accept", "multipart/mixed"));
        let parts = read_until(&mut parts, "\r\n\r\nmessage");
        assert!(!parts.contains("\nforged") && !parts.contains("\rforged"), "{parts:?}");

        let mut socket = Handshake::to(&target).protocols("ws+meta.nchan").open(nginx.port());
        let (meta, data) = socket.message().meta();
        assert_eq!(data, b"message");
        assert!(meta.iter().all(|(name, _)| !name.contains("forged")), "{meta:?}");
    }
}

fn no_name_breaks_out_of_a_log(workers: usize) {
    let nginx = start(
        workers,
        "log_format decoded 'line $uri $args'; access_log @dir@/decoded.log decoded;
         push_max_channel_id_length 8; push_authorized_channels_only on;",
    );
    let mut requests = 0;
    for name in NAMES {
        let name = encoded(name);
        for target in [format!("/sub2/{name}"), format!("/sub?id={name}&callback={name}")] {
            let response = nginx.get(&target);
            assert!([200, 400, 403].contains(&response.status), "{}", response.head);
            requests += 1;
        }
        nginx.request(&Request::post(&format!("/pub2/{name}"), "x").header("Origin", "x"));
        requests += 1;
    }
    let decoded = wait::until("all lines of the access log", || {
        let log = fs::read(nginx.dir().join("decoded.log")).unwrap();
        let lines: Vec<String> = shown(&log).lines().map(str::to_owned).collect();
        (lines.len() >= requests).then_some(lines)
    });
    assert_eq!(decoded.len(), requests);
    assert!(decoded.iter().all(|line| line.starts_with("line /")), "{decoded:?}");
    for line in nginx.error_log().lines() {
        assert!(line.starts_with("20") && !line.contains(char::is_control), "{line:?}");
    }
}

fn a_nul_is_a_byte_like_others_or_refused(workers: usize) {
    let server = "location = /all {
        push_pubsub; push_channel_id $arg_id; push_websocket_channels *;
    }";
    let nginx = Nginx::start(config(workers).server(server));
    for path in ["/sub2/a%00b", "/pub2/%00"] {
        nginx.get(path).expect_status(400);
    }
    // Nobody decodes it there: it is three characters.
    nginx.publish("a%00b", "one");
    assert_eq!(nginx.queue("a%00b"), ["one"]);
    nginx.get(&publisher("a")).expect_status(404);

    let mut socket = Handshake::to("/all?id=a").protocols("push.json").open(nginx.port());
    for name in ["a\0", "a\0b", "a\0\r\nforged: 1", "\0"] {
        for command in [json!({"subscribe": name}), json!({"publish": "two", "channel": name})] {
            socket.send_text(&command.to_string());
        }
        let mut told = Vec::new();
        while told.len() < 3 {
            let frame: Value = serde_json::from_str(socket.message().as_text()).unwrap();
            assert_eq!(frame.get("error"), None, "{frame}");
            told.extend(["subscribed", "published", "channel"].map(|key| frame[key].clone()));
            told.retain(|value| !value.is_null());
        }
        assert_eq!(told, [name, name, name]);
    }
    nginx.get(&publisher("a%00")).expect_status(404);
    assert_eq!(nginx.messages("a"), 0);
}

/// Types and names of events that nobody means well with. No header field has line ends.
const WORDS: [&str; 8] = [
    "\"quoted\"; 'quoted'",
    "back\\slash\\",
    "</script><script>forged()</script>",
    "text/html; charset=\"</script>",
    "x: y\t: z,,;=",
    "\u{1}\u{1b}[31m\u{7f}",
    "a\u{2028}\u{2029}\u{85}\u{ffff}",
    "multipart/mixed; boundary=x",
];

fn what_publishers_say_of_a_message_stays_a_value(workers: usize) {
    let server = "location = /all { push_pubsub; push_channel_id $arg_id; }";
    let nginx = Nginx::start(config(workers).server(server));
    for (number, word) in WORDS.into_iter().enumerate() {
        let id = format!("word-{number}");
        let post = Request::post(&publisher(&id), "message");
        let post = post.header("Content-Type", word).header("Push-Event", word);
        nginx.request(&post).expect_status(202);

        let poll = nginx.get(&subscriber(&id)).expect_status(200);
        assert_eq!(poll.header("Content-Type"), Some(word));
        assert_eq!((poll.headers.len(), poll.text()), (8, "message"), "{}", poll.head);

        for target in [format!("/lines?id={id}"), format!("/lines?id={id},other")] {
            let line = Lines::open(nginx.port(), &json_request(&target)).json();
            assert_eq!((line["type"].as_str(), line["event"].as_str()), (Some(word), Some(word)));
        }
        let script = nginx.get(&format!("/sub?id={id}&callback=take")).expect_status(200);
        let array = script.text().strip_prefix("/**/take(").unwrap().strip_suffix(");\n").unwrap();
        let objects: Value = serde_json::from_str(array).unwrap();
        assert_eq!(objects[0]["type"].as_str(), Some(word));
        assert!(!array.contains(['<', '>', '\u{2028}']), "{array}");

        let mut events = EventSource::open(nginx.port(), &subscriber(&id));
        let event = events.event();
        assert_eq!((event.name.as_str(), event.data.as_str()), (word, "message"));

        let mut parts = nginx.client();
        parts.send(&Request::get(&subscriber(&id)).header("Accept", "multipart/mixed"));
        let parts = read_until(&mut parts, "\r\n\r\nmessage");
        let is_field = !word.contains(|c: char| c.is_ascii_control() && c != '\t');
        let field = format!("\r\nContent-Type: {word}\r\n\r\nmessage");
        assert_eq!(parts.contains(&field), is_field, "{parts:?}");
        assert!(parts.contains("\r\nEtag: 0\r\n"), "{parts:?}");

        let mut socket =
            Handshake::to(&subscriber(&id)).protocols("ws+meta.nchan").open(nginx.port());
        let (meta, data) = socket.message().meta();
        let told = meta.get(1).map(|(name, value)| (name.as_str(), value.as_str()));
        let is_line = !word.contains(char::is_control);
        assert_eq!((told, data), (is_line.then_some(("content-type", word)), b"message".to_vec()));
        assert!(meta.len() <= 2, "{meta:?}");

        // By JSON, which could say line ends as well.
        let mut socket = Handshake::to("/all?id=json").protocols("push.json").open(nginx.port());
        for (member, end) in [("type", "\r\n"), ("event", "\n"), ("type", "\0"), ("event", "\r")] {
            let command = json!({"publish": "x", member: format!("{word}{end}forged: 1")});
            socket.send_text(&command.to_string());
            let answer: Value = serde_json::from_str(socket.message().as_text()).unwrap();
            assert_eq!(answer["error"], 400, "{answer}");
        }
    }
    assert_eq!(nginx.messages("json"), 0);
}

fn no_publisher_ends_what_others_hear(workers: usize) {
    let nginx = start(workers, "");
    let mut events = EventSource::open(nginx.port(), &subscriber("a"));
    let mut both = EventSource::open(nginx.port(), &subscriber("a,b"));
    for name in ["end", "gap", "left"] {
        for field in ["Push-Event", "X-EventSource-Event"] {
            let post = Request::post(&publisher("a"), "{\"reason\":\"deleted\"}");
            nginx.request(&post.header(field, name)).expect_status(201);
            for source in [&mut events, &mut both] {
                assert_eq!(source.event().name, "", "{name}");
            }
        }
    }
}

const FILES: &str = "client_body_buffer_size 8k; client_max_body_size 8m;";

fn what_others_put_beside_our_files_is_left_alone(workers: usize) {
    let nginx = start(workers, FILES);
    let (temporary, outside) = (nginx.dir().join("temp_client_body"), nginx.dir().join("outside"));
    fs::create_dir(&outside).unwrap();
    for name in ["precious", "lock"] {
        fs::write(outside.join(name), "precious").unwrap();
    }
    // A link to a directory, a pipe, which would keep waiting who opens it, and a link in place of a lock.
    symlink(&outside, temporary.join("push-link")).unwrap();
    for name in ["push-pipe", "push-lock"] {
        fs::create_dir(temporary.join(name)).unwrap();
    }
    let pipe = temporary.join("push-pipe/lock");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    symlink(outside.join("precious"), temporary.join("push-lock/lock")).unwrap();
    fs::write(temporary.join("push-file"), "precious").unwrap();
    for _ in 0..2 * workers {
        nginx.publish("a", pattern(100_000)).expect_status(202);
    }
    assert_eq!(nginx.poll("a", &Cursor::none()).body, pattern(100_000));
    for path in [outside.join("precious"), outside.join("lock"), temporary.join("push-file")] {
        assert_eq!(fs::read_to_string(path).unwrap(), "precious");
    }
    assert!(pipe.exists() && temporary.join("push-lock/lock").exists());
    expect_service(&nginx, "b");
}

fn a_file_that_was_exchanged_is_not_taken_for_a_message(workers: usize) {
    let mut nginx = start(workers, &format!("{FILES} push_snapshot messages;"));
    nginx.publish("a", pattern(100_000));
    nginx.publish("a", "small");
    let secret = nginx.dir().join("secret");
    fs::write(&secret, pattern(100_000)).unwrap();
    let files = nginx.spooled();
    assert_eq!(files.len(), 1);
    nginx.stop(Signal::QUIT);
    fs::remove_file(&files[0]).unwrap();
    symlink(&secret, &files[0]).unwrap();
    nginx.start_again();
    assert_eq!(nginx.queue("a"), ["small"]);
    assert!(secret.exists());
}

fn a_file_that_somebody_has_removed_is_a_message_that_is_missed(workers: usize) {
    let nginx = start(workers, FILES);
    let first = Cursor::after(&{
        nginx.publish("a", "first");
        nginx.poll("a", &Cursor::none())
    });
    nginx.publish("a", pattern(100_000));
    let mut waiting = nginx.park("b");
    for path in nginx.spooled() {
        fs::remove_file(path).unwrap();
    }
    // Nothing is there for it, and it waits: it is not told to come back again and again.
    let mut held = nginx.park_after("a", &first);
    nginx.publish("a", "third").expect_status(201);
    let response = held.response().expect_status(200);
    assert_eq!((response.text(), response.header("Push-Missed")), ("third", Some("1")));
    assert_eq!(nginx.queue("a"), ["first", "third"]);
    let mut events = EventSource::open(nginx.port(), &subscriber("a"));
    events.expect_message("first");
    assert_eq!(events.event().name, "gap");
    events.expect_message("third");
    nginx.publish("b", "served").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "served");
    // The directory, too.
    for entry in fs::read_dir(nginx.dir().join("temp_client_body")).unwrap() {
        fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    for number in 0..2 * workers as u64 {
        nginx.publish("c", pattern(100_000)).expect_status(202);
        assert_eq!(nginx.messages("c"), number + 1);
    }
    assert!(nginx.poll_all("c").iter().all(|response| response.body == pattern(100_000)));
}

/// Numbers and what looks like numbers, at all edges.
const NUMBERS: [&str; 19] = [
    "",
    "0",
    "1",
    "-1",
    "-0",
    "+1",
    "00",
    " 1",
    "1.5",
    "1e9",
    "0x10",
    "x",
    "[1]",
    "-",
    "2147483648",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
];

/// Cursors made of them, and other ones.
fn cursors() -> Vec<String> {
    let mut cursors: Vec<String> =
        ["", ":", "::", "1:1:1", "[", "]", "[]", "[]:[]", "1:[", ",", "1:,"]
            .map(str::to_owned)
            .to_vec();
    for number in NUMBERS {
        cursors.push(number.to_owned());
        cursors.push(format!("{number}:0"));
        cursors.push(format!("1700000000:{number}"));
        cursors.push(format!("18446744073709551615:{number}"));
        cursors.push(format!("1700000000:{number},{number}"));
        cursors.push(format!("1700000000:[{number}],-"));
    }
    cursors.push(format!("1700000000:{}", ["0"; 255].join(",")));
    cursors.push(format!("1700000000:{}", ["[4294967295]"; 255].join(",")));
    cursors.push(format!("1700000000:{}", ["-"; 1000].join(",")));
    cursors.push("9".repeat(3_000));
    cursors.push(format!("1:{}", "0".repeat(3_000)));
    cursors
}

/// The time and the tag, if it is a cursor of one channel.
fn one_cursor(cursor: &str) -> Option<(u64, u32)> {
    let (time, tag) = cursor.trim().split_once(':')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let time = Some(time).filter(|text| is_number(text))?.parse().ok()?;
    let tag = Some(tag).filter(|text| is_number(text))?.parse().ok()?;
    (time != 0).then_some((time, tag))
}

/// Whether it is a cursor of several channels.
fn is_of_several(cursor: &str) -> bool {
    let Some((_, tags)) = cursor.split_once(':') else { return false };
    let is_number = |text: &str| text.parse::<u32>().is_ok_and(|tag| tag.to_string() == text);
    let in_brackets = |tag: &str| tag.strip_prefix('[')?.strip_suffix(']').map(str::to_owned);
    let is_marked = |tag: &str| tag == "-" || in_brackets(tag).is_some_and(|tag| is_number(&tag));
    tags.contains(',')
        && tags.split(',').all(|tag| is_marked(tag) || is_number(tag))
        && tags.split(',').any(is_marked)
}

/// Publishes three messages to each of two channels. Returns the ids of the first channel's.
fn publish_some(nginx: &Nginx) -> Vec<(u64, u32)> {
    for number in 0..3 {
        nginx.publish("a", format!("a {number}"));
        nginx.publish("b", format!("b {number}"));
    }
    nginx.poll_all("a").iter().map(|response| Cursor::after(response).id()).collect()
}

fn every_cursor_has_a_defined_position(workers: usize) {
    let nginx = start(workers, "");
    let ids = publish_some(&nginx);
    let mut client = nginx.client();
    for cursor in cursors() {
        let query = argument(&cursor);
        // An encoded cursor of one channel is not read beyond what any id needs.
        let requests = [
            (Request::get("/interval?id=a").header("Last-Event-ID", &cursor), true),
            (
                Request::get(&format!("/interval?id=a&{query}")),
                query.len() <= "last_event_id=".len() + 128,
            ),
        ];
        for (request, is_read) in requests {
            let after = one_cursor(&cursor).filter(|_| is_read);
            let next = ids.iter().position(|id| after.is_none_or(|after| *id > after));
            let response = client.request(&request);
            match next {
                None => assert_eq!(response.status, 304, "{cursor:?}"),
                Some(next) => {
                    let response = response.expect_status(200);
                    assert_eq!(response.text(), format!("a {next}"), "{cursor:?}");
                    if is_of_several(&cursor) {
                        let missed = response.header("Push-Missed");
                        assert_eq!(missed, Some("0;at-least"), "{cursor:?}");
                    }
                }
            }
        }
        let requests = [
            Request::get("/interval?id=a,b").header("Last-Event-ID", &cursor),
            Request::get(&format!("/interval?id=a,b&{query}")),
        ];
        let [header, argument] = requests.map(|request| client.request(&request));
        assert!([200, 304].contains(&header.status), "{cursor:?}: {}", header.head);
        assert!([200, 304].contains(&argument.status), "{cursor:?}: {}", argument.head);
        if !cursor.contains(':') {
            assert_eq!((header.text(), argument.text()), ("a 0", "a 0"), "{cursor:?}");
        }
    }
}

const DATES: [&str; 12] = [
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Thu, 01 Jan 1970 00:00:01 GMT",
    "Wed, 31 Dec 1969 23:59:59 GMT",
    "Mon, 01 Jan 0000 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Sat, 01 Jan 10000 00:00:00 GMT",
    "Tue, 19 Jan 2038 03:14:08 GMT",
    "Sun, 07 Feb 2106 06:28:16 GMT",
    "Fri, 31 Feb 2026 25:61:61 GMT",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
    "-1",
];

fn every_date_and_tag_has_a_defined_position(workers: usize) {
    let nginx = start(workers, "");
    publish_some(&nginx);
    let mut client = nginx.client();
    for date in DATES.into_iter().chain(NUMBERS) {
        for tag in NUMBERS.into_iter().chain(["\"1\"", "W/\"-1\"", "\"", "W/", "\"[1],2\"", ",,,"])
        {
            let cursor = Cursor::new(date, tag);
            for id in ["a", "a,b"] {
                let request = cursor.apply(Request::get(&format!("/interval?id={id}")));
                let response = client.request(&request);
                let is_later = ["9999", "2038", "2106"].iter().any(|year| date.contains(year));
                match is_later {
                    true => assert_eq!(response.status, 304, "{cursor:?} {id}"),
                    // A cursor of no time, or of one before all messages.
                    false => {
                        assert_eq!(response.expect_status(200).text(), "a 0", "{cursor:?} {id}")
                    }
                }
            }
        }
    }
}

/// Requests for streams and long-polls of these channels from this cursor, by all transports.
fn all_ways(ids: &str, cursor: &str) -> Vec<Request> {
    let query = argument(cursor);
    let target = format!("/sub?id={ids}&{query}");
    let accepting = |accept| Request::get(&target).header("Accept", accept);
    vec![
        Request::get(&target),
        Request::get(&format!("{target}&callback=take")),
        Request::get(&format!("/frame?id={ids}&{query}")),
        accepting("text/event-stream"),
        json_request(&format!("/lines?id={ids}&{query}")),
        Request::get(&format!("/lines?id={ids}&{query}")),
        accepting("multipart/mixed"),
        Handshake::to(&target).request(),
        Handshake::to(&target).protocols("ws+meta.nchan").request(),
        Handshake::to(&target).protocols("push.json").request(),
        Request::get(&format!("/sub?id={ids}"))
            .header("Accept", "text/event-stream")
            .header("Last-Event-ID", cursor),
    ]
}

/// Clients on all ways from all cursors, on one and on two channels.
fn clients_of_all_cursors(nginx: &Nginx) -> Vec<(String, Client)> {
    let mut clients = Vec::new();
    for cursor in cursors() {
        for (place, ids) in ["a", "a,b"].into_iter().enumerate() {
            for (way, request) in all_ways(ids, &cursor).into_iter().enumerate() {
                // A part of all that there could be.
                if (clients.len() + place + way) % 3 == 0 {
                    continue;
                }
                let mut client = nginx.client();
                client.send(&request);
                clients.push((format!("{ids} {cursor:?} way {way}"), client));
            }
        }
    }
    clients
}

fn no_cursor_keeps_a_stream_from_what_comes(workers: usize) {
    process::allow_open_files(8192);
    let nginx = Nginx::start(config(workers).main("worker_rlimit_nofile 8192;"));
    publish_some(&nginx);
    // A long-poll of a cursor in the future waits; everything else begins at once.
    let is_poll = |(what, _): &(String, Client)| what.ends_with("way 0") || what.ends_with("way 1");
    let (mut polls, mut streams): (Vec<_>, Vec<_>) =
        clients_of_all_cursors(&nginx).into_iter().partition(is_poll);
    for (what, client) in &mut streams {
        let head = client.try_head().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(head.status == 200 || head.status == 101, "{what}: {}", head.head);
    }
    assert!(!polls.is_empty());
    wait::until_true("all have a message, or wait", || {
        let have_none = polls.iter_mut().map(|(_, client)| !client.has_bytes());
        let waiting = have_none.filter(|has_none| *has_none).count();
        nginx.subscribers("a") == (streams.len() + waiting) as u64
    });
    nginx.publish("a", "the last");
    for (_, client) in &mut polls {
        client.response().expect_status(200);
    }
    for (_, client) in &mut streams {
        read_until(client, "the last");
    }
}

fn a_reload_with_clients_of_all_cursors(workers: usize) {
    process::allow_open_files(8192);
    let nginx = Nginx::start(config(workers).main("worker_rlimit_nofile 8192;"));
    let clients = clients_of_all_cursors(&nginx);
    nginx.wait_for_subscribers("a", clients.len() as u64);
    let old = nginx.reload();
    for (what, mut client) in clients {
        let reply = client.try_head().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!([101, 200, 304].contains(&reply.status), "{what}: {}", reply.head);
    }
    nginx.wait_gone(&old);
    expect_service(&nginx, "a");
}

fn every_first_message_is_served_or_refused(workers: usize) {
    let server = "location = /first {
        push_subscriber interval-poll; push_channel_id $arg_id; push_first_message $arg_first;
    }";
    let nginx = Nginx::start(config(workers).server(server));
    publish_some(&nginx);
    let mut client = nginx.client();
    for number in NUMBERS {
        for value in [number.to_owned(), format!("-{number}"), format!("@{number}")] {
            for id in ["a", "a,b"] {
                let value = value.replace(' ', "%20");
                let response =
                    client.request(&Request::get(&format!("/first?id={id}&first={value}")));
                match response.status {
                    200 | 304 => {}
                    400 => assert!(response.text().starts_with("push_first_message"), "{value}"),
                    status => panic!("{status} for {value:?}"),
                }
            }
        }
    }
}

/// How many messages fit into the zone when there is nothing else in it.
fn capacity(nginx: &Nginx) -> u64 {
    let mut client = nginx.client();
    for _ in 0..6_000 {
        client.request(&Request::post(&publisher("capacity"), pattern(200))).expect_status(202);
    }
    let messages = nginx.messages("capacity");
    assert!(messages > 1_000 && messages < 6_000, "{messages} messages fill the zone");
    client.request(&Request::new("DELETE", &publisher("capacity"))).expect_status(200);
    messages
}

const SMALL: &str = "push_shared_memory_size 1m; push_max_message_buffer_length 100000;";

fn channels_of_clients_that_went_leave_nothing_behind(workers: usize) {
    const COUNT: usize = 5_000;
    let nginx = start(workers, &format!("{SMALL} push_channel_timeout 1s;"));
    let before = capacity(&nginx);
    let mut client = nginx.client();
    for number in 0..COUNT {
        let id = format!("channel-{number}");
        match number % 10 {
            0 => {
                let mut client = nginx.client();
                client.send(&Request::get(&subscriber(&id)));
                client.reset();
            }
            _ => drop(
                client.request(&Request::get(&format!("/interval?id={id}"))).expect_status(304),
            ),
        }
        if number % 500 == 0 {
            nginx.publish(&format!("new-{number}"), pattern(1_000)).expect_status(202);
        }
    }
    for number in (0..COUNT).step_by(500) {
        nginx.request(&Request::new("DELETE", &publisher(&format!("new-{number}"))));
    }
    wait::until_true("the end of all channels", || {
        (0..COUNT).all(|number| {
            let request = Request::get(&publisher(&format!("channel-{number}")));
            client.request(&request).status == 404
        })
    });
    assert_eq!(capacity(&nginx), before);
}

fn idle_channels_do_not_keep_publishers_from_publishing(workers: usize) {
    let nginx =
        start(workers, &format!("{SMALL} push_channel_timeout 1h; client_body_buffer_size 1m;"));
    let mut client = nginx.client();
    for number in 0..10_000 {
        client.request(&Request::get(&format!("/interval?id=idle-{number}"))).expect_status(304);
    }
    for number in 0..20 {
        nginx.publish(&format!("new-{number}"), pattern(30_000)).expect_status(202);
        assert_eq!(nginx.messages(&format!("new-{number}")), 1);
    }
    expect_service(&nginx, "another");
}

fn idle_channels_do_not_drive_messages_out(workers: usize) {
    let nginx = start(workers, &format!("{SMALL} push_channel_timeout 1h;"));
    for number in 0..100 {
        nginx.publish("kept", format!("message {number}"));
    }
    let mut client = nginx.client();
    for number in 0..10_000 {
        client.request(&Request::get(&format!("/interval?id=idle-{number}"))).expect_status(304);
    }
    assert_eq!(nginx.messages("kept"), 100);
}

fn more_channels_than_allowed_are_refused_on_all_ways(workers: usize) {
    let nginx = Nginx::start(config(workers).http("push_max_channels 2;").server(
        "location = /both { push_pubsub; push_channel_id $arg_id; push_websocket_channels *; }",
    ));
    nginx.publish("a", "one");
    let mut waiting = nginx.park("b");
    let sentence = "there are as many as push_max_channels allows.";
    for (way, request) in all_ways("c", "").into_iter().enumerate() {
        let response = nginx.request(&request);
        // A script cannot see a status.
        let status = if way == 1 { 200 } else { 403 };
        assert_eq!(response.status, status, "{}", response.head);
        assert!(way == 1 || response.text().ends_with(sentence), "{}", response.text());
    }
    let log = nginx.error_log();
    assert!(
        log.contains("[error]") && log.contains("push: The subscriber was not served"),
        "{log}"
    );
    for ids in ["c", "a,c", "c,a", "a,b,c", "c,d,e"] {
        nginx.get(&format!("/interval?id={ids}")).expect_status(403);
        let request = Request::post(&publisher(ids), "no");
        let refused = nginx.request(&request).expect_status(403);
        assert!(refused.text().ends_with(sentence), "{}", refused.text());
    }
    nginx.request(&Request::post(&publisher("c"), pattern(100_000))).expect_status(403);
    nginx.get(&publisher("c")).expect_status(404);
    assert_eq!(nginx.messages("a"), 1);
    waiting.expect_silence();

    let mut socket = Handshake::to(&publisher("c")).open(nginx.port());
    socket.send_text("no");
    assert!(socket.expect_close(Some(1008)).ends_with("push_max_channels allows."));
    nginx.get(&publisher("c")).expect_status(404);

    let mut socket = Handshake::to("/both?id=a").protocols("push.json").open(nginx.port());
    assert!(socket.message().as_text().contains("one"));
    for command in [json!({"subscribe": "c"}), json!({"publish": "no", "channel": "c"})] {
        socket.send_text(&command.to_string());
        let answer: Value = serde_json::from_str(socket.message().as_text()).unwrap();
        assert_eq!(answer["error"], 403);
        assert!(answer["reason"].as_str().unwrap().ends_with(sentence), "{answer}");
    }
    socket.close();

    // Those that are there go on.
    nginx.publish("b", "two").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "two");
    nginx.publish("a,b", "three");
    assert_eq!(nginx.queue("a"), ["one", "three"]);
    nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
    nginx.publish("c", "yes").expect_status(202);
    nginx.request(&Request::post(&publisher("a"), "no")).expect_status(403);
}

fn idle_channels_give_way_to_others(workers: usize) {
    let nginx = start(workers, "push_max_channels 50; push_channel_timeout 1h;");
    nginx.publish("kept", "one");
    let held: Vec<Client> = (0..10).map(|number| nginx.park(&format!("held-{number}"))).collect();
    let mut client = nginx.client();
    for number in 0..1_000 {
        client.request(&Request::get(&format!("/interval?id=idle-{number}"))).expect_status(304);
    }
    nginx.publish("new", "two").expect_status(202);
    assert_eq!((nginx.queue("kept"), nginx.queue("new")), (vec!["one".into()], vec!["two".into()]));
    for (number, mut client) in held.into_iter().enumerate() {
        nginx.publish(&format!("held-{number}"), "three").expect_status(201);
        client.response().expect_status(200);
    }
    let there = (0..1_000).filter(|number| {
        let request = Request::get(&publisher(&format!("idle-{number}")));
        client.request(&request).status == 200
    });
    assert_eq!(there.count(), 50 - 12);
}

fn a_reload_changes_how_many_channels_there_may_be(workers: usize) {
    let mut nginx = start(workers, "push_max_channels 3;");
    let publish =
        |nginx: &Nginx, id: &str| nginx.request(&Request::post(&publisher(id), "x")).status;
    assert_eq!(["a", "b", "c", "d"].map(|id| publish(&nginx, id)), [202, 202, 202, 403]);
    for (text, expected) in [
        ("push_max_channels 1;", [202, 202, 202, 403]),
        ("push_max_channels 1; push_shared_memory_size 16m;", [202, 202, 202, 403]),
        ("push_max_channels 4;", [202, 202, 202, 202]),
    ] {
        nginx.reconfigure(config(workers).http(text));
        let old = nginx.reload();
        nginx.wait_gone(&old);
        assert_eq!(["a", "b", "c", "d"].map(|id| publish(&nginx, id)), expected, "{text}");
    }
}

fn a_flood_of_subscribers_ends_at_the_limit(workers: usize) {
    let nginx = start(workers, "push_max_channel_subscribers 10;");
    let mut clients: Vec<Client> = (0..500)
        .map(|number| {
            let mut client = nginx.client();
            let ways = all_ways("a", "");
            client.send(&ways[number % ways.len()]);
            client
        })
        .collect();
    nginx.wait_for_subscribers("a", 10);
    // Who comes when the message is there may get it, as those who waited have gone.
    wait::until_true("490 refusals", || {
        let log = nginx.access_log();
        log.iter().filter(|line| !line.contains(" /pub")).count() >= 490
    });
    expect_service(&nginx, "b");
    nginx.publish("a", "one").expect_status(201);
    let mut served = 0;
    for client in &mut clients {
        let reply = client.try_head().expect("a reply");
        match reply.status {
            200 | 101
                if reply.header("Content-Type").is_none_or(|kind| !kind.contains("script")) =>
            {
                served += 1;
            }
            200 | 403 => {}
            status => panic!("{status}"),
        }
    }
    assert!((8..=10).contains(&served), "{served} were served");
    drop(clients);
    nginx.wait_for_subscribers("a", 0);
}

fn a_flood_of_connections_ends_with_it(workers: usize) {
    let mut nginx = Nginx::start(config(workers).events("worker_connections 64;"));
    nginx.tolerate("worker_connections are not enough");
    let mut held = nginx.park("a");
    for way in 0..3 {
        let flood: Vec<Client> = (0..workers * 100)
            .filter_map(|_| {
                let mut client = Client::try_connect(nginx.port()).ok()?;
                let request = Request::get(&subscriber("flood")).to_bytes();
                // Nothing, half a request, or a request that waits.
                client.try_send_bytes(&request[..way * request.len() / 2]).ok()?;
                Some(client)
            })
            .collect();
        drop(flood);
        nginx.once_served(&Request::get(&publisher("flood")));
    }
    nginx.wait_for_end_of_flood("flood");
    nginx.once_served(&Request::post(&publisher("a"), "one")).expect_status(201);
    assert_eq!(held.response().expect_status(200).text(), "one");
}

/// What the workers have for themselves, in bytes; nothing if a tool watches them, which keeps what they have given back.
fn memory(nginx: &Nginx) -> u64 {
    let workers = nginx.workers().into_iter().filter(|pid| !process::is_watched(*pid));
    workers.map(process::private_memory).sum()
}

fn pings_without_end_cost_no_memory(workers: usize) {
    let nginx = start(workers, "");
    expect_service(&nginx, "a");
    let before = memory(&nginx);
    let mut client = nginx.client();
    client.limit_receive_buffer(16 << 10);
    client.give_up_sending_after(Duration::from_millis(300));
    let mut socket = Handshake::to(&subscriber("a")).open_on(client);
    let pings: Vec<Frame> = (0..1_000).map(|_| Frame::ping(pattern(125))).collect();
    let pings = to_bytes(&pings);
    // It sends without reading, as long as the server reads.
    let mut sent = 0;
    while sent < 64 << 20 && socket.client().try_send_bytes(&pings).is_ok() {
        sent += pings.len();
    }
    assert!(sent < 64 << 20, "the server reads without end");
    let grown = memory(&nginx).saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more");
    nginx.publish("b", "meanwhile").expect_status(202);
}

fn fragments_without_end_cost_no_memory(workers: usize) {
    let nginx = Nginx::start(
        config(workers).server("location = /both { push_pubsub; push_channel_id $arg_id; }"),
    );
    expect_service(&nginx, "a");
    let mut socket = Handshake::to("/both?id=a").open(nginx.port());
    socket.send(&[Frame::text("").unfinished()]);
    let empty: Vec<Frame> = (0..10_000).map(|_| Frame::continuation("").unfinished()).collect();
    socket.send(&empty);
    let before = memory(&nginx);
    for _ in 0..20 {
        socket.send(&empty);
    }
    socket.send(&[Frame::ping("there")]);
    socket.expect_pong(b"there");
    let grown = memory(&nginx).saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more");
    socket.send(&[Frame::continuation("the end")]);
    socket.expect_text("the end");
}

#[test]
fn messages_that_are_never_complete_do_not_fill_the_memory() {
    const MB: usize = 1 << 20;
    let nginx =
        Nginx::start(config(1).publisher("client_max_body_size 16m; push_ping_interval 0;"));
    let open = || Handshake::to(&publisher("a")).open(nginx.port());
    let some = Frame::binary(vec![b'x'; 14 * MB]).unfinished().to_bytes(Some([0; 4]));
    let mut sockets: Vec<_> = (0..5).map(|_| open()).collect();
    for socket in &mut sockets {
        socket.send_bytes(&some);
        socket.send(&[Frame::ping("there")]);
        socket.expect_pong(b"there");
    }
    let mut late = open();
    let more = Frame::binary(vec![b'x'; MB]).unfinished().to_bytes(Some([0; 4]));
    late.send_bytes(&more);
    // It would have to answer, but is in the middle of a frame.
    let close = late.frame();
    assert_eq!(close.close_code(), Some(1013));
    assert_eq!(close.close_reason(), "too many messages are not complete");
    // Small ones, and those that are there, go on.
    let mut small = open();
    small.send(&[Frame::text("x".repeat(10_000)).unfinished()]);
    small.send(&[Frame::continuation("the end")]);
    sockets[0].send(&[Frame::continuation("the end")]);
    nginx.wait_for_messages("a", 2);
    let mut again = open();
    again.send_bytes(&more);
    again.send(&[Frame::continuation("")]);
    nginx.wait_for_messages("a", 3);
    drop(sockets);
    expect_service(&nginx, "b");
}

fn commands_that_are_no_commands_are_answered(workers: usize) {
    let nginx = start(workers, "");
    let mut socket = Handshake::to(&subscriber("a")).protocols("push.json").open(nginx.port());
    let deep = format!("{{\"request\": {}1{}}}", "[".repeat(1_000), "]".repeat(1_000));
    for text in [
        "",
        "null",
        "[]",
        "{}",
        "{\"subscribe\": 1}",
        "{\"subscribe\": \"\"}",
        "{\"subscribe\": \"not mine\"}",
        "{\"subscribe\": \"a\", \"after\": \"18446744073709551616:0\"}",
        "{\"unsubscribe\": \"b\"}",
        "{\"publish\": \"x\"}",
        "{\"publish\": \"x\", \"type\": \"a\\r\\nforged: 1\"}",
        "{\"request\": \"</script>\", \"publish\": {\"base64\": \"*\"}}",
        "{\"subscribe\": \"a\", \"unsubscribe\": \"a\"}",
        "{\"subscribe\": \"\\ud800\"}",
        "{\"request\": 1e999}",
        deep.as_str(),
    ] {
        socket.send_text(text);
        let answer = socket.message();
        let answer: Value = serde_json::from_str(answer.as_text()).unwrap();
        let status = answer["error"].as_u64().unwrap_or_else(|| panic!("{text}: {answer}"));
        assert!([400, 403].contains(&status), "{text}: {answer}");
    }
    nginx.publish("a", "one").expect_status(201);
    assert!(socket.message().as_text().contains("\"one\""));
}

fn who_may_not_publish_changes_nothing(workers: usize) {
    let nginx = Nginx::start(
        config(workers)
            .server("location = /denied { deny all; push_publisher; push_channel_id $arg_id; }")
            .server("location = /denied-both { deny all; push_pubsub; push_channel_id $arg_id; }")
            .server(
                "location = /look {
                    limit_except GET { deny all; } push_publisher; push_channel_id $arg_id;
                }
                location = /look-both {
                    limit_except GET { deny all; } push_pubsub; push_channel_id $arg_id;
                    if ($arg_x) { add_header X-Seen $arg_x; }
                }
                location = /look-if {
                    limit_except GET { deny all; } push_publisher; push_channel_id $arg_id;
                    if ($arg_x) { add_header X-Seen $arg_x; }
                }
                location = /some {
                    limit_except GET { allow 127.0.0.1; deny all; }
                    push_publisher; push_channel_id $arg_id;
                    if ($arg_x) { add_header X-Seen $arg_x; }
                }
                location = /all-limited {
                    limit_except OPTIONS { allow 127.0.0.1; deny all; }
                    push_publisher; push_channel_id $arg_id;
                }
                location = /by-http { push_publisher http; push_channel_id $arg_id; }",
            ),
    );
    nginx.publish("a", "one");
    let info = nginx.info("a");
    // Who may only look at a channel does not publish by a WebSocket, which begins with a GET.
    nginx.get("/look?id=a").expect_status(200);
    nginx.request(&Request::post("/look?id=a", "no")).expect_status(403);
    let refused = nginx.request(&Handshake::to("/look?id=a").request()).expect_status(403);
    assert!(refused.text().contains("limit_except restricts POST"), "{}", refused.text());
    nginx.request(&Handshake::to("/by-http?id=a").request()).expect_status(403);
    // Whatever the client says that a condition asks for.
    for x in ["", "&x=1"] {
        let post = Request::post(&format!("/look-both?id=a{x}"), "no");
        nginx.request(&post).expect_status(403);
        let mut both = Handshake::to(&format!("/look-both?id=a{x}")).open(nginx.port());
        both.expect_text("one");
        both.send_text("no");
        both.expect_close(Some(1008));
        for path in ["look-if", "some"] {
            let handshake = Handshake::to(&format!("/{path}?id=a{x}")).request();
            nginx.request(&handshake).expect_status(403);
        }
    }
    // Here, who may open it may send a POST too.
    Handshake::to("/all-limited?id=other").open(nginx.port()).send_text("yes");
    nginx.wait_for_messages("other", 1);
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        for path in ["denied", "denied-both"] {
            let request = Request::new(method, &format!("/{path}?id=a")).body("no");
            nginx.request(&request).expect_status(403);
        }
    }
    for path in ["denied", "denied-both"] {
        nginx.request(&Handshake::to(&format!("/{path}?id=a")).request()).expect_status(403);
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "HEAD"] {
        let status = match method {
            "HEAD" => nginx.client().request(&Request::new(method, &subscriber("a"))).status,
            _ => nginx.request(&Request::new(method, &subscriber("a")).body("no")).status,
        };
        assert_eq!(status, 405, "{method}");
    }
    let disguised = Request::get("/interval?id=new")
        .header("X-HTTP-Method-Override", "POST")
        .header("Push-Event", "x")
        .body("no");
    nginx.request(&disguised).expect_status(304);
    // One request that looks like two.
    let smuggled =
        Request::post(&publisher("a"), "0\r\n\r\nDELETE /pub?id=a HTTP/1.1\r\nHost: x\r\n\r\n")
            .header("Transfer-Encoding", "chunked");
    nginx.request(&smuggled).expect_status(400);
    let requested =
        |info: Option<support::Info>| info.map(|info| (info.messages, info.subscribers));
    assert_eq!(requested(nginx.info("a")), requested(info));
    assert_eq!(nginx.messages("new"), 0);
}
