//! Tests for streams of lines: plain messages and JSON.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use serde_json::json;
use support::body::Ended;
use support::lines::{json_request, Lines};
use support::push::{pattern, publisher, subscriber};
use support::{on_1_and_4_workers, Config, Cursor, Nginx, Request};

on_1_and_4_workers!(
    a_plain_stream_is_the_messages_and_their_ends,
    the_separator_can_be_set,
    nothing_at_all_is_a_message_too,
    a_plain_stream_carries_any_bytes,
    a_plain_stream_has_no_pings,
    what_a_plain_stream_misses_before_it_begins_is_in_its_head,
    a_plain_stream_ends_with_its_last_chunk,
    a_json_stream_has_this_head,
    a_message_is_one_object_in_a_line,
    fields_without_a_value_are_left_out,
    text_survives_json,
    bytes_that_are_no_text_are_base64,
    large_messages_come_whole_as_json,
    a_json_client_goes_on_behind_its_last_id,
    a_gap_is_a_line_of_its_own,
    pings_are_empty_lines,
    the_end_is_a_line_of_its_own,
    http_1_0_gets_lines_without_chunks,
);

fn start(workers: usize, text: &str) -> Nginx {
    Nginx::start(
        Config::push(workers)
            .http("client_max_body_size 8m;")
            .publisher(text)
            .subscriber(text)
            .server(&format!(
                "location /stream {{ push_subscriber stream; push_channel_id $arg_id; {text} }}"
            )),
    )
}

fn plain(nginx: &Nginx, id: &str) -> Lines {
    Lines::open(nginx.port(), &Request::get(&format!("/stream?id={id}")))
}

fn json(nginx: &Nginx, id: &str) -> Lines {
    Lines::open(nginx.port(), &json_request(&subscriber(id)))
}

fn json_after(nginx: &Nginx, id: &str, after: &str) -> Lines {
    Lines::open(nginx.port(), &json_request(&subscriber(id)).header("Last-Event-ID", after))
}

fn delete(nginx: &Nginx, id: &str) {
    nginx.request(&Request::new("DELETE", &publisher(id))).expect_status(200);
}

fn a_plain_stream_is_the_messages_and_their_ends(workers: usize) {
    let nginx = start(workers, "");
    nginx.publish("a", "one");
    let mut stream = plain(&nginx, "a");
    let response = stream.response();
    assert_eq!(response.header("Cache-Control"), Some("no-cache"));
    assert_eq!(response.header("X-Accel-Buffering"), Some("no"));
    assert_eq!(response.header("Transfer-Encoding"), Some("chunked"));
    let content_type = response.header("Content-Type").unwrap_or_default();
    assert!(content_type.starts_with("text/plain"), "{content_type}");
    for name in ["Content-Length", "Last-Modified", "Etag", "Push-Missed"] {
        assert_eq!(response.header(name), None, "{name}");
    }
    assert_eq!(stream.text(), "one");
    nginx.wait_for_subscribers("a", 1);
    for body in ["two", "", "three"] {
        nginx.publish("a", body).expect_status(201);
        assert_eq!(stream.text(), body);
    }
    assert_eq!(stream.rest(), b"");
}

fn the_separator_can_be_set(workers: usize) {
    for (directive, separator) in [("\"--\"", "--"), ("\"\\r\\n\"", "\r\n"), ("\"|end|\"", "|end|")]
    {
        let nginx = start(workers, &format!("push_stream_separator {directive};"));
        let mut stream = plain(&nginx, "a").separated_by(separator);
        for body in ["one", "two\nlines", "", "three"] {
            nginx.publish("a", body);
            assert_eq!(stream.text(), body);
        }
    }
}

fn nothing_at_all_is_a_message_too(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).server(
        "location /stream { push_subscriber stream; push_channel_id $arg_id; push_stream_separator \"\"; }",
    ));
    let mut stream = nginx.client();
    stream.send(&Request::get("/stream?id=a"));
    stream.head_response().expect_status(200);
    nginx.wait_for_subscribers("a", 1);
    for _ in 0..3 {
        nginx.publish("a", "").expect_status(201);
    }
    nginx.publish("a", "one").expect_status(201);
    assert_eq!(stream.try_chunk().unwrap().unwrap(), b"one");
    delete(&nginx, "a");
    assert_eq!(stream.try_chunk().unwrap(), None);
}

fn a_plain_stream_carries_any_bytes(workers: usize) {
    let nginx = start(workers, "push_stream_separator \"--end of a message--\";");
    let mut stream = plain(&nginx, "a").separated_by("--end of a message--");
    for length in [1, 255, 256, 5_000, 100_000, 3 << 20] {
        nginx.publish("a", pattern(length));
        assert!(stream.line() == pattern(length), "{length} bytes");
    }
}

fn a_plain_stream_has_no_pings(workers: usize) {
    let nginx = start(workers, "push_ping_interval 1s;");
    let mut stream = plain(&nginx, "a");
    // The other stream tells that pings were due.
    let mut witness = json(&nginx, "a");
    for _ in 0..2 {
        assert_eq!(witness.text(), "");
    }
    nginx.publish("a", "one");
    assert_eq!(stream.text(), "one");
}

fn what_a_plain_stream_misses_before_it_begins_is_in_its_head(workers: usize) {
    let nginx = start(workers, "push_max_message_buffer_length 2;");
    nginx.publish("a", "message 0");
    let id = json(&nginx, "a").json()["id"].as_str().expect("an id").to_owned();
    let after = || Request::get("/stream?id=a").header("Last-Event-ID", &id);
    for number in 1..3 {
        nginx.publish("a", format!("message {number}"));
    }
    let mut stream = Lines::open(nginx.port(), &after());
    assert_eq!(stream.response().header("Push-Missed"), None);
    assert_eq!(stream.text(), "message 1");
    for number in 3..6 {
        nginx.publish("a", format!("message {number}"));
    }
    let mut stream = Lines::open(nginx.port(), &after());
    assert_eq!(stream.response().header("Push-Missed"), Some("3"));
    assert_eq!(stream.text(), "message 4");
    assert_eq!(stream.text(), "message 5");
}

fn a_plain_stream_ends_with_its_last_chunk(workers: usize) {
    let nginx = start(workers, "");
    let mut stream = plain(&nginx, "a");
    nginx.publish("a", "one");
    assert_eq!(stream.text(), "one");
    delete(&nginx, "a");
    assert_eq!(stream.expect_end(), Ended::LastChunk);
    assert_eq!(stream.rest(), b"");
    stream.into_client().request(&Request::get("/worker")).expect_status(200);
}

fn a_json_stream_has_this_head(workers: usize) {
    let nginx = start(workers, "");
    for accept in ["application/x-ndjson", "application/ndjson"] {
        for target in ["/sub?id=a", "/stream?id=a"] {
            let request = Request::get(target).header("Accept", accept);
            let stream = Lines::open(nginx.port(), &request);
            let response = stream.response();
            assert_eq!(response.header("Content-Type"), Some("application/x-ndjson"), "{accept}");
            assert_eq!(response.header("Cache-Control"), Some("no-cache"));
            assert_eq!(response.header("X-Accel-Buffering"), Some("no"));
            assert_eq!(response.header("Transfer-Encoding"), Some("chunked"));
            for name in ["Content-Length", "Last-Modified", "Etag", "Push-Missed"] {
                assert_eq!(response.header(name), None, "{name}");
            }
        }
    }
}

fn a_message_is_one_object_in_a_line(workers: usize) {
    let nginx = start(workers, "");
    let mut stream = json(&nginx, "a");
    let request = Request::post(&publisher("a"), "some text")
        .header("Content-Type", "text/x-own; charset=utf-8")
        .header("Push-Event", "name");
    nginx.wait_for_subscribers("a", 1);
    nginx.request(&request).expect_status(201);
    let (seconds, tag) = Cursor::after(&nginx.poll("a", &Cursor::none())).id();
    let line = stream.text();
    let expected = json!({
        "id": format!("{seconds}:{tag}"),
        "time": seconds,
        "type": "text/x-own; charset=utf-8",
        "event": "name",
        "data": "some text",
    });
    assert_eq!(support::lines::parse(&line), expected, "{line}");
    // The members have an order, for those who read with less than a parser.
    let written = format!(
        "{{\"id\":\"{seconds}:{tag}\",\"time\":{seconds},\"type\":\"text/x-own; charset=utf-8\",\
         \"event\":\"name\",\"data\":\"some text\"}}"
    );
    assert_eq!(line, written);
}

fn fields_without_a_value_are_left_out(workers: usize) {
    let nginx = start(workers, "");
    let mut stream = json(&nginx, "a");
    nginx.request(&Request::post(&publisher("a"), ""));
    let value = stream.json();
    let names: Vec<&String> = value.as_object().expect("an object").keys().collect();
    assert_eq!(names.len(), 3, "{value}");
    assert_eq!(value["data"], "");
    nginx.publish("a", "one");
    let value = stream.json();
    assert_eq!((value["type"].as_str(), value.get("event")), (Some("text/plain"), None));
    let event = Request::post(&publisher("a"), "two").header("X-EventSource-Event", "e");
    nginx.request(&event);
    let value = stream.json();
    assert_eq!((value.get("type"), value["event"].as_str()), (None, Some("e")));
}

fn text_survives_json(workers: usize) {
    let nginx = start(workers, "");
    let mut stream = json(&nginx, "a");
    let controls: String = (0..0x20).map(|code| char::from(code as u8)).collect();
    for body in [
        "\"quoted\" \\ and / so on",
        "one\ntwo\r\nthree\r",
        "Grüße, 世界, 😀, \u{2028}\u{2029}\u{feff}\u{fffd}\u{10ffff}",
        "\u{7f}\u{80}\u{85}",
        "</script><!-- ]]>",
        "{\"end\":\"deleted\"}",
        "\\u0000 \\n",
        controls.as_str(),
        " ",
    ] {
        nginx.publish("a", body);
        assert_eq!(stream.json()["data"], body);
    }
    let odd = "text/plain; x=\"quo\\\\ted\"";
    let request = Request::post(&publisher("a"), "x")
        .header("Content-Type", odd)
        .header("Push-Event", "a \"name\" \\");
    nginx.request(&request);
    let value = stream.json();
    assert_eq!(
        (value["type"].as_str(), value["event"].as_str()),
        (Some(odd), Some("a \"name\" \\"))
    );
}

fn bytes_that_are_no_text_are_base64(workers: usize) {
    let nginx = start(workers, "");
    let mut stream = json(&nginx, "a");
    let cases: [(&[u8], &str); 5] = [
        (b"\xff", "/w=="),
        (b"\xff\xfe", "//4="),
        (b"\x00\xff\xfe", "AP/+"),
        (b"\xc3\x28 and text", "wyggYW5kIHRleHQ="),
        (b"\xed\xa0\x80", "7aCA"),
    ];
    for (body, base64) in cases {
        nginx.publish("a", body);
        let value = stream.json();
        assert_eq!((value["base64"].as_str(), value.get("data")), (Some(base64), None), "{value}");
    }
    nginx.publish("a", "text again");
    let value = stream.json();
    assert_eq!((value["data"].as_str(), value.get("base64")), (Some("text again"), None));
}

fn large_messages_come_whole_as_json(workers: usize) {
    for size in ["8k", "8m"] {
        let nginx = start(workers, &format!("client_body_buffer_size {size};"));
        let mut live = json(&nginx, "a");
        let body = "a \"line\" of ü\n".repeat(200_000);
        nginx.publish("a", body.clone());
        nginx.publish("a", "small");
        for stream in [&mut live, &mut json(&nginx, "a")] {
            assert!(stream.json()["data"].as_str() == Some(body.as_str()));
            assert_eq!(stream.json()["data"], "small");
        }
    }
}

fn a_json_client_goes_on_behind_its_last_id(workers: usize) {
    let nginx = start(workers, "");
    for body in ["one", "two", "three"] {
        nginx.publish("a", body);
    }
    let mut stream = json(&nginx, "a");
    let ids: Vec<String> =
        (0..3).map(|_| stream.json()["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(json_after(&nginx, "a", &ids[0]).json()["data"], "two");
    assert_eq!(json_after(&nginx, "a", &ids[1]).json()["data"], "three");
    let target = format!("{}&last_event_id={}", subscriber("a"), ids[1].replace(':', "%3A"));
    let mut by_query = Lines::open(nginx.port(), &json_request(&target));
    assert_eq!(by_query.json()["data"], "three");
    // Also behind a plain stream's place, which has the same form.
    let request = Request::get("/stream?id=a").header("Last-Event-ID", &ids[1]);
    assert_eq!(Lines::open(nginx.port(), &request).text(), "three");
}

fn a_gap_is_a_line_of_its_own(workers: usize) {
    let nginx = start(workers, "push_max_message_buffer_length 2;");
    nginx.publish("a", "message 0");
    let id = json(&nginx, "a").json()["id"].as_str().expect("an id").to_owned();
    for number in 1..6 {
        nginx.publish("a", format!("message {number}"));
    }
    let mut stream = json_after(&nginx, "a", &id);
    assert_eq!(stream.text(), "{\"missed\":3,\"at_least\":false}");
    assert_eq!(stream.json()["data"], "message 4");
    assert_eq!(stream.json()["data"], "message 5");
}

fn pings_are_empty_lines(workers: usize) {
    let nginx = start(workers, "push_ping_interval 1s;");
    let mut stream = json(&nginx, "a");
    assert_eq!(stream.text(), "");
    assert_eq!(stream.text(), "");
    nginx.publish("a", "one");
    // Where publishing takes a second, one more ping has come before it.
    let line = std::iter::repeat_with(|| stream.text()).find(|line| !line.is_empty()).unwrap();
    assert!(line.starts_with("{\"id\":"), "{line}");
}

fn the_end_is_a_line_of_its_own(workers: usize) {
    let nginx = start(workers, "push_subscriber_timeout 1s;");
    let mut stream = json(&nginx, "timeout");
    assert_eq!(stream.text(), "{\"end\":\"timeout\"}");
    assert_eq!(stream.expect_end(), Ended::LastChunk);
    let nginx = start(workers, "push_subscriber_concurrency last;");
    let (mut deleted, mut released) = (json(&nginx, "deleted"), json(&nginx, "released"));
    let mut conflict = json(&nginx, "conflict");
    nginx.wait_for_subscribers("conflict", 1);
    let _winner = json(&nginx, "conflict");
    assert_eq!(conflict.text(), "{\"end\":\"conflict\"}");
    assert_eq!(conflict.expect_end(), Ended::LastChunk);
    delete(&nginx, "deleted");
    assert_eq!(deleted.text(), "{\"end\":\"deleted\"}");
    assert_eq!(deleted.expect_end(), Ended::LastChunk);
    deleted.into_client().request(&Request::get("/worker")).expect_status(200);
    nginx.reload();
    assert_eq!(released.text(), "{\"end\":\"shutdown\"}");
    assert_eq!(released.expect_end(), Ended::LastChunk);
}

fn http_1_0_gets_lines_without_chunks(workers: usize) {
    let nginx = start(workers, "");
    for request in [Request::get("/stream?id=a"), json_request(&subscriber("a"))] {
        nginx.publish("a", "one");
        let mut stream = Lines::open(nginx.port(), &request.http_1_0());
        assert_eq!(stream.response().header("Transfer-Encoding"), None);
        assert!(stream.text().contains("one"));
        nginx.publish("a", "two");
        assert!(stream.text().contains("two"));
        delete(&nginx, "a");
        while stream.try_next().expect("in time").is_some() {}
        assert_eq!(stream.ended(), Some(Ended::Closed));
    }
}
