//! Tests for the classic techniques that stay: the forever iframe and multipart streams.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::HashSet;

use serde_json::Value;
use support::body::Ended;
use support::lines::{self, json_request, Lines};
use support::push::{pattern, publisher};
use support::{on_1_and_4_workers, Config, Cursor, Nginx, Request, Response};

on_1_and_4_workers!(
    the_page_of_an_iframe_has_this_head,
    the_bytes_of_a_page_are_these,
    nothing_breaks_out_of_a_script,
    a_page_goes_on_behind_the_id_in_its_address,
    a_gap_is_a_call_before_the_message_after_it,
    pings_of_a_page_are_comments,
    ends_of_a_page_tell_why,
    a_shutdown_tells_a_page_when_to_come_back,
    http_1_0_gets_a_page_without_chunks,
    a_multipart_stream_has_this_head,
    pictures_replace_each_other_where_that_is_asked_for,
    the_bytes_of_a_multipart_stream_are_these,
    a_part_ends_with_its_boundary_at_once,
    the_boundary_is_the_workers_own,
    nothing_breaks_out_of_a_part,
    parts_carry_any_bytes,
    a_multipart_stream_goes_on_behind_an_id,
    a_gap_is_a_part_before_the_message_after_it,
    a_multipart_stream_has_no_pings,
    every_end_of_a_multipart_stream_closes_it,
    a_stopping_worker_ends_parts_in_order,
    http_1_0_gets_parts_without_chunks,
    of_several_channels_they_say_which,
    who_asks_for_nothing_gets_what_the_location_lists,
    a_bare_location_has_none_of_them,
);

fn start(workers: usize, text: &str) -> Nginx {
    let location = |path: &str, words: &str| {
        format!(
            "location = {path} {{ push_subscriber {words}; push_channel_id $arg_id; {text} }}\n"
        )
    };
    Nginx::start(
        Config::push(workers)
            .http("client_max_body_size 8m;")
            .publisher(text)
            .server(&location("/frame", "iframe"))
            .server(&location("/parts", "multipart"))
            .server(&location("/long-poll", "long-poll multipart iframe"))
            .server(&location("/lines", "stream")),
    )
}

fn publish_with(nginx: &Nginx, id: &str, body: &[u8], headers: &[(&str, &str)]) {
    let request = Request::post(&publisher(id), body);
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(name, value));
    let status = nginx.request(&request).status;
    assert!(status == 201 || status == 202, "{status}");
}

fn delete(nginx: &Nginx, id: &str) {
    nginx.request(&Request::new("DELETE", &publisher(id))).expect_status(200);
}

/// The id of a channel's newest message.
fn id_of_newest(nginx: &Nginx, id: &str) -> String {
    let (seconds, tag) = Cursor::after(nginx.poll_all(id).last().expect("a message")).id();
    format!("{seconds}:{tag}")
}

/// The fields that every stream's head has, and those that none has.
fn check_head(response: &Response) {
    assert_eq!(response.status_text(), "200 OK");
    assert_eq!(response.header("Cache-Control"), Some("no-cache"));
    assert_eq!(response.header("X-Accel-Buffering"), Some("no"));
    assert_eq!(response.header("Transfer-Encoding"), Some("chunked"));
    for name in ["Content-Length", "Last-Modified", "Etag", "Push-Missed"] {
        assert_eq!(response.header(name), None, "{name}");
    }
}

/// A page in an iframe.
struct Page(Lines);

const BEGINNING: [&str; 2] =
    ["<!DOCTYPE html>", "<html><head><meta charset=\"utf-8\"><title>push</title></head><body>"];

impl Page {
    /// Opens a page and reads its beginning.
    #[track_caller]
    fn open(nginx: &Nginx, target: &str) -> Self {
        Page::send(nginx, &Request::get(target))
    }

    #[track_caller]
    fn send(nginx: &Nginx, request: &Request) -> Self {
        let mut lines = Lines::open(nginx.port(), request);
        for expected in BEGINNING {
            assert_eq!(lines.text(), expected);
        }
        let padding = lines.text();
        let inside = padding.strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->"));
        assert!(inside.is_some_and(|inside| inside.trim().is_empty()), "{padding:?}");
        assert!(padding.len() >= 1024, "{}", padding.len());
        Page(lines)
    }

    /// What the next script hands to its parent, as it is written.
    #[track_caller]
    fn object(&mut self) -> String {
        let script = self.0.text();
        let object = script
            .strip_prefix("<script>parent.pushMessage&&parent.pushMessage(")
            .and_then(|rest| rest.strip_suffix(")</script>"))
            .unwrap_or_else(|| panic!("not a call: {script:?}"));
        assert!(!object.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{object}");
        object.to_owned()
    }

    #[track_caller]
    fn value(&mut self) -> Value {
        lines::parse(&self.object())
    }
}

fn frame(nginx: &Nginx, id: &str) -> Page {
    Page::open(nginx, &format!("/frame?id={id}"))
}

fn frame_after(nginx: &Nginx, id: &str, after: &str) -> Page {
    Page::open(nginx, &format!("/frame?id={id}&last_event_id={after}"))
}

fn the_page_of_an_iframe_has_this_head(workers: usize) {
    let nginx = start(workers, "");
    let page = frame(&nginx, "a");
    check_head(page.0.response());
    assert_eq!(page.0.response().header("Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.0.response().header("X-Content-Type-Options"), Some("nosniff"));
}

fn the_bytes_of_a_page_are_these(workers: usize) {
    let nginx = start(workers, "");
    let mut page = frame(&nginx, "a");
    nginx.wait_for_subscribers("a", 1);
    let headers = [("Content-Type", "text/plain"), ("Push-Event", "name")];
    publish_with(&nginx, "a", b"some text", &headers);
    let id = id_of_newest(&nginx, "a");
    let (seconds, _) = id.split_once(':').expect("an id");
    assert_eq!(
        page.0.text(),
        format!(
            "<script>parent.pushMessage&&parent.pushMessage({{\"id\":\"{id}\",\"time\":{seconds},\
             \"type\":\"text/plain\",\"event\":\"name\",\"data\":\"some text\"}})</script>"
        )
    );
    assert_eq!(page.0.rest(), b"");
}

fn nothing_breaks_out_of_a_script(workers: usize) {
    let nginx = start(workers, "");
    let mut page = frame(&nginx, "a");
    for body in [
        "</script><script>alert(1)</script>",
        "</SCRIPT\t>",
        "<!--<script>",
        "-->",
        "]]>",
        "&lt;&#x3c;&amp",
        "\"});alert(1);({\"",
        "\\\"});alert(1)//",
        "\\u003c/script\\u003e",
        "line\nend\rof\u{2028}all\u{2029}kinds",
        "\0\u{b}\u{7f}\u{feff}",
        "Grüße, 世界, 😀",
    ] {
        publish_with(&nginx, "a", body.as_bytes(), &[]);
        assert_eq!(page.value()["data"], body);
    }
    let hostile = "</script>\"<!--&";
    publish_with(
        &nginx,
        "a",
        b"\xff</script>",
        &[("Content-Type", hostile), ("Push-Event", hostile)],
    );
    let value = page.value();
    assert_eq!(value["base64"], "/zwvc2NyaXB0Pg==");
    assert_eq!((value["type"].as_str(), value["event"].as_str()), (Some(hostile), Some(hostile)));
    assert_eq!(page.0.rest(), b"");
}

fn a_page_goes_on_behind_the_id_in_its_address(workers: usize) {
    let nginx = start(workers, "");
    for body in ["one", "two", "three"] {
        nginx.publish("a", body);
    }
    let mut page = frame(&nginx, "a");
    let ids: Vec<String> =
        (0..3).map(|_| page.value()["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(frame_after(&nginx, "a", &ids[0]).value()["data"], "two");
    assert_eq!(frame_after(&nginx, "a", &ids[1].replace(':', "%3A")).value()["data"], "three");
    let mut waiting = frame_after(&nginx, "a", &ids[2]);
    nginx.publish("a", "four");
    assert_eq!(waiting.value()["data"], "four");
}

fn a_gap_is_a_call_before_the_message_after_it(workers: usize) {
    let nginx = start(workers, "push_max_message_buffer_length 2;");
    nginx.publish("a", "message 0");
    let id = id_of_newest(&nginx, "a");
    for number in 1..6 {
        nginx.publish("a", format!("message {number}"));
    }
    let mut page = frame_after(&nginx, "a", &id);
    assert_eq!(page.object(), "{\"missed\":3,\"at_least\":false}");
    assert_eq!(page.value()["data"], "message 4");
    assert_eq!(page.value()["data"], "message 5");
}

fn pings_of_a_page_are_comments(workers: usize) {
    // Longer than a test may be kept from running before the message.
    let nginx = start(workers, "push_ping_interval 3s;");
    let mut page = frame(&nginx, "a");
    for _ in 0..2 {
        assert_eq!(page.0.text(), "<!-- -->");
    }
    nginx.publish("a", "one");
    assert_eq!(page.value()["data"], "one");
}

fn ends_of_a_page_tell_why(workers: usize) {
    let nginx = start(workers, "push_subscriber_timeout 1s;");
    let mut page = frame(&nginx, "a");
    assert_eq!(page.object(), "{\"end\":\"timeout\"}");
    assert_eq!(page.0.expect_end(), Ended::LastChunk);
    let nginx = start(workers, "push_subscriber_concurrency last;");
    let (mut deleted, mut conflict) = (frame(&nginx, "deleted"), frame(&nginx, "conflict"));
    nginx.wait_for_subscribers("conflict", 1);
    let _winner = frame(&nginx, "conflict");
    assert_eq!(conflict.object(), "{\"end\":\"conflict\"}");
    assert_eq!(conflict.0.expect_end(), Ended::LastChunk);
    delete(&nginx, "deleted");
    assert_eq!(deleted.object(), "{\"end\":\"deleted\"}");
    assert_eq!(deleted.0.expect_end(), Ended::LastChunk);
    assert_eq!(deleted.0.rest(), b"");
    deleted.0.into_client().request(&Request::get("/worker")).expect_status(200);
}

fn a_shutdown_tells_a_page_when_to_come_back(workers: usize) {
    let nginx = start(workers, "");
    let pages: Vec<Page> = (0..10).map(|_| frame(&nginx, "a")).collect();
    nginx.reload();
    let mut values = HashSet::new();
    for mut page in pages {
        let end = page.value();
        assert_eq!(end["end"], "shutdown");
        let retry = end["retry"].as_u64().expect("a number");
        assert!(retry <= 1000, "{retry}");
        values.insert(retry);
        assert_eq!(page.0.expect_end(), Ended::LastChunk);
    }
    assert!(values.len() > 3, "all would come back at once: {values:?}");
}

fn http_1_0_gets_a_page_without_chunks(workers: usize) {
    let nginx = start(workers, "");
    nginx.publish("a", "one");
    let mut page = Page::send(&nginx, &Request::get("/frame?id=a").http_1_0());
    assert_eq!(page.0.response().header("Transfer-Encoding"), None);
    assert_eq!(page.value()["data"], "one");
    delete(&nginx, "a");
    assert_eq!(page.value()["end"], "deleted");
    assert_eq!(page.0.expect_end(), Ended::Closed);
}

/// A multipart stream.
struct Parts {
    lines: Lines,
    boundary: String,
}

/// A part: its fields and its body.
#[derive(Debug)]
struct Part {
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Part {
    fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(known, _)| known == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} came twice: {self:?}");
        value
    }

    /// The body as its publisher sent it.
    fn content(&self) -> Vec<u8> {
        match self.field("Content-Transfer-Encoding") {
            None => self.body.clone(),
            Some("base64") => {
                let lines = std::str::from_utf8(&self.body).expect("text").split("\r\n");
                assert!(lines.clone().all(|line| line.len() <= 76), "{lines:?}");
                decode_base64(&lines.collect::<String>())
            }
            Some(other) => panic!("an unknown encoding {other}"),
        }
    }
}

/// RFC 4648, section 4.
fn decode_base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    assert_eq!(text.len() % 4, 0, "{text}");
    let digits = text.trim_end_matches('=');
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for digit in digits.bytes() {
        let value = DIGITS.iter().position(|&known| known == digit).expect("a digit of base64");
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

impl Parts {
    /// Opens a stream and reads its first delimiter.
    #[track_caller]
    fn open(nginx: &Nginx, target: &str) -> Self {
        Parts::send(nginx, &Request::get(target).header("Accept", "multipart/mixed"))
    }

    #[track_caller]
    fn send(nginx: &Nginx, request: &Request) -> Self {
        let lines = Lines::open(nginx.port(), request);
        let content_type = lines.response().header("Content-Type").unwrap_or_default();
        let (_, boundary) = content_type.split_once("; boundary=").expect("a boundary");
        let boundary = boundary.to_owned();
        let delimiter = format!("--{boundary}");
        let mut parts = Parts { lines: lines.separated_by(&delimiter), boundary };
        assert_eq!(parts.lines.line(), b"", "what comes before the first delimiter");
        parts
    }

    /// What comes before the next delimiter.
    #[track_caller]
    fn bytes(&mut self) -> String {
        String::from_utf8(self.lines.line()).expect("text")
    }

    #[track_caller]
    fn part(&mut self) -> Part {
        let bytes = self.lines.line();
        let whole = bytes.strip_suffix(b"\r\n").expect("a line end before the delimiter");
        let head_end = whole.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(whole[..head_end].to_vec()).expect("a head is text");
        let fields = head.strip_prefix("\r\n").expect("the end of the delimiter's line");
        let fields = fields.split("\r\n").map(|field| {
            let (name, value) = field.split_once(": ").expect("a field");
            (name.to_owned(), value.to_owned())
        });
        Part { fields: fields.collect(), body: whole[head_end + 4..].to_vec() }
    }

    #[track_caller]
    fn expect_message(&mut self, expected: &str) -> String {
        let part = self.part();
        assert_eq!(String::from_utf8_lossy(&part.content()), expected);
        let date = part.field("Last-Modified").expect("a date");
        let (seconds, tag) = Cursor::new(date, part.field("Etag").expect("a tag")).id();
        format!("{seconds}:{tag}")
    }

    /// Panics unless the stream ends with the closing delimiter.
    #[track_caller]
    fn expect_end(mut self) -> Ended {
        let ended = self.lines.expect_end();
        assert_eq!(self.lines.rest(), b"--\r\n", "after the last delimiter");
        ended
    }
}

fn parts(nginx: &Nginx, id: &str) -> Parts {
    Parts::open(nginx, &format!("/parts?id={id}"))
}

fn parts_after(nginx: &Nginx, id: &str, after: &str) -> Parts {
    Parts::open(nginx, &format!("/parts?id={id}&last_event_id={after}"))
}

fn a_multipart_stream_has_this_head(workers: usize) {
    let nginx = start(workers, "");
    let parts = parts(&nginx, "a");
    check_head(parts.lines.response());
    let content_type = parts.lines.response().header("Content-Type");
    let expected = format!("multipart/mixed; boundary={}", parts.boundary);
    assert_eq!(content_type, Some(expected.as_str()));
    let is_hexadecimal = parts.boundary.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_hexadecimal && parts.boundary.len() == 32, "{}", parts.boundary);
}

fn pictures_replace_each_other_where_that_is_asked_for(workers: usize) {
    let nginx = start(workers, "");
    for target in ["/parts?id=a", "/long-poll?id=a"] {
        let request = Request::get(target)
            .header("Accept", "image/png, multipart/x-mixed-replace, multipart/mixed");
        let mut parts = Parts::send(&nginx, &request);
        let content_type = parts.lines.response().header("Content-Type").unwrap_or_default();
        assert!(content_type.starts_with("multipart/x-mixed-replace; "), "{content_type}");
        publish_with(&nginx, "a", &pattern(1000), &[("Content-Type", "image/png")]);
        let part = parts.part();
        assert_eq!(part.field("Content-Type"), Some("image/png"));
        assert!(part.body == pattern(1000));
        delete(&nginx, "a");
        assert_eq!(parts.expect_end(), Ended::LastChunk);
    }
}

fn the_bytes_of_a_multipart_stream_are_these(workers: usize) {
    let nginx = start(workers, "");
    let mut parts = parts(&nginx, "a");
    nginx.wait_for_subscribers("a", 1);
    nginx.publish("a", "some text").expect_status(201);
    let cursor = Cursor::after(nginx.poll_all("a").last().expect("a message"));
    let (date, tag) = (cursor.last_modified.expect("a date"), cursor.etag.expect("a tag"));
    assert_eq!(
        parts.bytes(),
        format!(
            "\r\nLast-Modified: {date}\r\nEtag: {tag}\r\nContent-Type: text/plain\r\n\r\n\
             some text\r\n"
        )
    );
    publish_with(&nginx, "a", b"", &[]);
    let empty = parts.bytes();
    assert!(empty.ends_with("\r\n\r\n\r\n") && !empty.contains("Content-Type"), "{empty:?}");
    delete(&nginx, "a");
    assert_eq!(parts.expect_end(), Ended::LastChunk);
}

fn a_part_ends_with_its_boundary_at_once(workers: usize) {
    let nginx = start(workers, "");
    let mut parts = parts(&nginx, "a");
    for body in ["one", "two", "three"] {
        nginx.publish("a", body);
        // It is read up to the delimiter before the next one is published.
        parts.expect_message(body);
        assert_eq!(parts.lines.rest(), b"");
    }
}

fn the_boundary_is_the_workers_own(workers: usize) {
    let nginx = start(workers, "");
    let boundaries = |nginx: &Nginx| -> HashSet<String> {
        (0..20).map(|_| parts(nginx, "a").boundary).collect()
    };
    let before = boundaries(&nginx);
    assert!(before.len() <= workers, "{before:?}");
    let other = start(workers, "");
    assert!(before.is_disjoint(&boundaries(&other)));
}

fn nothing_breaks_out_of_a_part(workers: usize) {
    let nginx = start(workers, "");
    let mut parts = parts(&nginx, "a");
    let delimiter = format!("--{}", parts.boundary);
    for body in [
        delimiter.clone(),
        format!("{delimiter}--\r\n"),
        format!("x\r\n{delimiter}\r\nEtag: 9\r\n\r\nforged\r\n{delimiter}"),
        format!("-{delimiter}"),
        format!("\r\n{}", delimiter.repeat(100)),
        delimiter[..delimiter.len() - 1].to_owned(),
        "\r\n\r\n--\r\n--".to_owned(),
        "Content-Type: text/html\r\n\r\n".to_owned(),
    ] {
        nginx.publish("a", body.clone());
        let part = parts.part();
        assert_eq!(String::from_utf8(part.content()).expect("text"), body);
        let is_encoded = part.field("Content-Transfer-Encoding").is_some();
        assert_eq!(is_encoded, body.contains(&delimiter), "{body:?}");
    }
    publish_with(&nginx, "a", b"x", &[("Content-Type", &format!("a/b; c={delimiter}--"))]);
    let part = parts.part();
    assert_eq!((part.field("Content-Type"), part.body.as_slice()), (None, &b"x"[..]));
    delete(&nginx, "a");
    assert_eq!(parts.expect_end(), Ended::LastChunk);
}

fn parts_carry_any_bytes(workers: usize) {
    let nginx = start(workers, "");
    let mut parts = parts(&nginx, "a");
    for length in [1, 255, 256, 5_000, 100_000, 3 << 20] {
        nginx.publish("a", pattern(length));
        assert!(parts.part().body == pattern(length), "{length} bytes");
    }
}

fn a_multipart_stream_goes_on_behind_an_id(workers: usize) {
    let nginx = start(workers, "");
    for body in ["one", "two", "three"] {
        nginx.publish("a", body);
    }
    let mut all = parts(&nginx, "a");
    let ids = ["one", "two", "three"].map(|body| all.expect_message(body));
    parts_after(&nginx, "a", &ids[0]).expect_message("two");
    parts_after(&nginx, "a", &ids[1]).expect_message("three");
    // The fields of a part are a cursor of a poll as well.
    let request = Request::get("/parts?id=a").header("Last-Event-ID", &ids[1]);
    Parts::send(&nginx, &request).expect_message("three");
    let cursor = Cursor::after(&nginx.poll("a", &Cursor::none()));
    Parts::send(&nginx, &cursor.apply(Request::get("/parts?id=a"))).expect_message("two");
}

fn a_gap_is_a_part_before_the_message_after_it(workers: usize) {
    let nginx = start(workers, "push_max_message_buffer_length 2;");
    nginx.publish("a", "message 0");
    let id = id_of_newest(&nginx, "a");
    for number in 1..6 {
        nginx.publish("a", format!("message {number}"));
    }
    let mut parts = parts_after(&nginx, "a", &id);
    assert_eq!(parts.lines.response().header("Push-Missed"), None);
    assert_eq!(parts.bytes(), "\r\nPush-Missed: 3\r\n\r\n\r\n");
    parts.expect_message("message 4");
    parts.expect_message("message 5");
}

fn a_multipart_stream_has_no_pings(workers: usize) {
    let nginx = start(workers, "push_ping_interval 1s;");
    let mut parts = parts(&nginx, "a");
    // The other stream tells that pings were due.
    let mut witness = Lines::open(nginx.port(), &json_request("/lines?id=a"));
    for _ in 0..2 {
        assert_eq!(witness.text(), "");
    }
    nginx.publish("a", "one");
    parts.expect_message("one");
}

fn every_end_of_a_multipart_stream_closes_it(workers: usize) {
    let nginx = start(workers, "push_subscriber_timeout 1s;");
    assert_eq!(parts(&nginx, "a").expect_end(), Ended::LastChunk);
    let nginx = start(workers, "push_subscriber_concurrency last;");
    let (mut deleted, conflict) = (parts(&nginx, "deleted"), parts(&nginx, "conflict"));
    nginx.wait_for_subscribers("conflict", 1);
    let _winner = parts(&nginx, "conflict");
    assert_eq!(conflict.expect_end(), Ended::LastChunk);
    nginx.publish("deleted", "one");
    deleted.expect_message("one");
    delete(&nginx, "deleted");
    assert_eq!(deleted.expect_end(), Ended::LastChunk);
}

fn a_stopping_worker_ends_parts_in_order(workers: usize) {
    let nginx = start(workers, "");
    let streams: Vec<Parts> = (0..4).map(|_| parts(&nginx, "a")).collect();
    let old = nginx.reload();
    for stream in streams {
        assert_eq!(stream.expect_end(), Ended::LastChunk);
    }
    nginx.wait_gone(&old);
}

fn http_1_0_gets_parts_without_chunks(workers: usize) {
    let nginx = start(workers, "");
    nginx.publish("a", "one");
    let mut parts = Parts::send(&nginx, &Request::get("/parts?id=a").http_1_0());
    assert_eq!(parts.lines.response().header("Transfer-Encoding"), None);
    parts.expect_message("one");
    delete(&nginx, "a");
    assert_eq!(parts.expect_end(), Ended::Closed);
}

fn of_several_channels_they_say_which(workers: usize) {
    let nginx = start(workers, "push_channel_id_split_delimiter ',';");
    let (mut page, mut parts) = (frame(&nginx, "a,b"), parts(&nginx, "a,b"));
    nginx.publish("a", "one");
    nginx.publish("b", "two");
    let mut last = String::new();
    for (channel, body) in [("a", "one"), ("b", "two")] {
        let value = page.value();
        assert_eq!(
            (value["channel"].as_str(), value["data"].as_str()),
            (Some(channel), Some(body))
        );
        let part = parts.part();
        assert_eq!(part.field("Push-Channel"), Some(channel));
        assert_eq!(part.body, body.as_bytes());
        let id = value["id"].as_str().expect("an id");
        let (_, tags) = id.split_once(':').expect("an id");
        assert_eq!(part.field("Etag"), Some(tags));
        last = id.to_owned();
    }
    let (mut page, mut parts) =
        (frame_after(&nginx, "a,b", &last), parts_after(&nginx, "a,b", &last));
    nginx.publish("a", "three");
    assert_eq!(page.value()["data"], "three");
    assert_eq!(parts.part().body, b"three");
}

fn who_asks_for_nothing_gets_what_the_location_lists(workers: usize) {
    let nginx = start(workers, "");
    // The only one that is listed.
    let _ = Page::send(&nginx, &Request::get("/frame?id=a").header("Accept", "text/html, */*"));
    let _ = Parts::send(&nginx, &Request::get("/parts?id=a").header("Accept", "*/*"));
    // The iframe goes before the long-poll, and multipart is for those who name it.
    let _ = Page::open(&nginx, "/long-poll?id=a");
    let _ = Parts::open(&nginx, "/long-poll?id=a");
    for target in ["/frame?id=a", "/parts?id=a"] {
        let request = Request::get(target).header("Accept", "text/event-stream");
        nginx.request(&request).expect_status(406);
    }
}

fn a_bare_location_has_none_of_them(workers: usize) {
    let nginx = start(workers, "");
    for body in ["one", "two"] {
        nginx.publish("a", body);
    }
    for accept in ["multipart/mixed", "multipart/x-mixed-replace", "text/html"] {
        let request = Request::get("/sub?id=a&callback=f").header("Accept", accept);
        let response = nginx.request(&request).expect_status(200);
        assert_eq!((response.text(), response.header("Etag").is_some()), ("one", true));
    }
}
