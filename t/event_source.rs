//! Tests for EventSource: every byte of the stream, and where a client goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::HashSet;

use support::body::Ended;
use support::event_source::{request, Event, EventSource, Item, Parser};
use support::push::{pattern, publisher, subscriber};
use support::{lines, on_1_and_4_workers, Client, Config, Cursor, Nginx, Request};

on_1_and_4_workers!(
    the_head_is_that_of_an_event_stream,
    the_bytes_of_a_stream_are_these,
    the_id_is_the_place_of_the_message,
    stored_messages_come_first_and_live_ones_after_them,
    an_event_has_the_name_that_its_publisher_gave,
    each_line_is_a_line_of_data,
    an_empty_message_is_an_event,
    lines_may_look_like_fields,
    long_messages_come_whole,
    messages_in_files_come_whole,
    a_client_goes_on_behind_its_last_event_id,
    an_id_in_the_query_is_as_good_as_the_header,
    the_header_wins_over_the_query,
    a_cursor_of_a_long_poll_is_understood,
    an_id_that_cannot_be_read_is_as_if_absent,
    the_id_wins_over_a_cursor_of_a_long_poll,
    a_gap_is_an_event_before_the_message_after_it,
    retry_is_said_first_and_differs_between_clients,
    retry_can_be_set_and_turned_off,
    pings_are_empty_comments,
    no_pings_come_where_they_are_turned_off,
    a_deletion_is_an_event_and_the_last,
    a_timeout_is_a_comment_and_the_last,
    who_comes_for_what_is_new_has_an_id_at_once,
    a_conflict_is_an_event_and_the_last,
    a_shutdown_says_when_to_come_back,
    a_shutdown_leaves_browsers_about_the_pause_that_they_have,
    http_1_0_gets_the_stream_without_chunks,
    a_client_that_wants_to_close_is_served,
    a_slow_request_head_makes_no_difference,
    what_is_sent_while_listening_is_answered_after_the_stream,
);

fn start(workers: usize, text: &str) -> Nginx {
    let config = Config::push(workers).http("client_max_body_size 8m;");
    Nginx::start(config.http("push_message_buffer_length 100;").subscriber(text).publisher(text))
}

fn open(nginx: &Nginx, id: &str) -> EventSource {
    EventSource::open(nginx.port(), &subscriber(id))
}

fn open_after(nginx: &Nginx, id: &str, after: &str) -> EventSource {
    EventSource::open_after(nginx.port(), &subscriber(id), after)
}

fn retry(source: &mut EventSource) -> u64 {
    match source.item() {
        Item::Retry(milliseconds) => milliseconds,
        other => panic!("not a retry value: {other:?}"),
    }
}

fn delete(nginx: &Nginx, id: &str) {
    nginx.request(&Request::new("DELETE", &publisher(id))).expect_status(200);
}

/// Publishes with more header fields.
fn publish_with(nginx: &Nginx, id: &str, body: &str, headers: &[(&str, &str)]) {
    let request = Request::post(&publisher(id), body);
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(name, value));
    let status = nginx.request(&request).status;
    assert!(status == 201 || status == 202, "{status}");
}

#[test]
fn the_parser_reads_what_the_standard_says() {
    let event = |last_id: &str, id: Option<&str>, name: &str, data: &str| {
        Item::Event(Event {
            last_id: last_id.to_owned(),
            id: id.map(str::to_owned),
            name: name.to_owned(),
            data: data.to_owned(),
        })
    };
    let stocks = "data: YHOO\ndata: +2\ndata: 10\n\n";
    assert_eq!(Parser::all(stocks.as_bytes()), [event("", None, "", "YHOO\n+2\n10")]);
    let four = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
    assert_eq!(
        Parser::all(four.as_bytes()),
        [
            Item::Comment(" test stream".to_owned()),
            event("1", Some("1"), "", "first event"),
            event("", Some(""), "", "second event"),
            event("", None, "", " third event"),
        ]
    );
    let two = "data\n\ndata\ndata\n\ndata:";
    assert_eq!(Parser::all(two.as_bytes()), [event("", None, "", ""), event("", None, "", "\n")]);
    let ends = "retry: 12\r\nevent: a\rdata: 1\r\ndata: 2\r\r\nretry: x\nother: 3\n\n";
    let expected = [Item::Retry(12), event("", None, "a", "1\n2")];
    assert_eq!(Parser::all(ends.as_bytes()), expected);
    for at in 0..ends.len() {
        let mut parser = Parser::default();
        parser.feed(&ends.as_bytes()[..at]);
        parser.feed(&ends.as_bytes()[at..]);
        let items: Vec<Item> = std::iter::from_fn(|| parser.next()).collect();
        assert_eq!(items, expected, "in two pieces at {at}");
    }
}

fn the_head_is_that_of_an_event_stream(workers: usize) {
    let nginx = start(workers, "");
    let source = open(&nginx, "a");
    let response = source.response();
    assert_eq!(response.status_text(), "200 OK");
    assert_eq!(response.header("Content-Type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(response.header("Cache-Control"), Some("no-cache"));
    assert_eq!(response.header("X-Accel-Buffering"), Some("no"));
    assert_eq!(response.header("Transfer-Encoding"), Some("chunked"));
    for name in ["Content-Length", "Last-Modified", "Etag", "Push-Missed"] {
        assert_eq!(response.header(name), None, "{}", response.head);
    }
    assert_ne!(response.header("Connection"), Some("close"));
}

fn the_bytes_of_a_stream_are_these(workers: usize) {
    let nginx = start(workers, "");
    let mut source = open(&nginx, "a");
    let first = source.bytes_until("\n\n");
    let digits = first.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\n\n"));
    assert!(digits.is_some_and(|d| d.bytes().all(|b| b.is_ascii_digit())), "{first:?}");
    nginx.wait_for_subscribers("a", 1);
    nginx.publish("a", "one").expect_status(201);
    let (seconds, tag) = Cursor::after(&nginx.poll("a", &Cursor::none())).id();
    let event = format!("id: {seconds}:{tag}\ndata: one\n\n");
    assert_eq!(source.bytes_until("\n\n"), event);
    publish_with(&nginx, "a", "two\nlines", &[("Push-Event", "name")]);
    let next = source.bytes_until("\n\n");
    let rest = next.split_once('\n').map_or("", |(_, rest)| rest);
    assert!(next.starts_with("id: "), "{next:?}");
    assert_eq!(rest, "event: name\ndata: two\ndata: lines\n\n");
    delete(&nginx, "a");
    let end = "event: end\ndata: {\"reason\":\"deleted\"}\n\n";
    assert_eq!(source.bytes_until("\n\n"), end);
    assert_eq!(source.expect_end(), Ended::LastChunk);
}

fn the_id_is_the_place_of_the_message(workers: usize) {
    let nginx = start(workers, "");
    let mut source = open(&nginx, "a");
    for number in 0..5 {
        nginx.publish("a", format!("message {number}"));
    }
    let ids: Vec<String> =
        (0..5).map(|number| source.expect_message(&format!("message {number}"))).collect();
    let places: Vec<String> = nginx
        .poll_all("a")
        .iter()
        .map(|response| {
            let (seconds, tag) = Cursor::after(response).id();
            format!("{seconds}:{tag}")
        })
        .collect();
    assert_eq!(ids, places);
}

fn stored_messages_come_first_and_live_ones_after_them(workers: usize) {
    let nginx = start(workers, "");
    for body in ["one", "two", "three"] {
        nginx.publish("a", body).expect_status(202);
    }
    let mut source = open(&nginx, "a");
    for body in ["one", "two", "three"] {
        source.expect_message(body);
    }
    nginx.wait_for_subscribers("a", 1);
    for body in ["four", "five"] {
        nginx.publish("a", body).expect_status(201);
        source.expect_message(body);
    }
}

fn an_event_has_the_name_that_its_publisher_gave(workers: usize) {
    let nginx = start(workers, "");
    let mut source = open(&nginx, "a");
    publish_with(&nginx, "a", "one", &[("Push-Event", "first")]);
    publish_with(&nginx, "a", "two", &[("X-EventSource-Event", "second")]);
    publish_with(&nginx, "a", "three", &[]);
    for (name, data) in [("first", "one"), ("second", "two"), ("", "three")] {
        let event = source.event();
        assert_eq!((event.name.as_str(), event.data.as_str()), (name, data));
        assert!(event.id.is_some());
    }
    // The name is stored with the message.
    let mut later = open(&nginx, "a");
    assert_eq!(later.event().name, "first");
    assert_eq!(later.event().name, "second");
    assert_eq!(later.event().name, "");
}

fn each_line_is_a_line_of_data(workers: usize) {
    let nginx = start(workers, "");
    let mut source = open(&nginx, "a");
    for (body, data) in [
        ("one\ntwo", "one\ntwo"),
        ("one\r\ntwo", "one\ntwo"),
        ("one\rtwo", "one\ntwo"),
        ("\none", "\none"),
        ("one\n\n\ntwo", "one\n\n\ntwo"),
        ("one\r\r\n\ntwo", "one\n\n\ntwo"),
        ("one\n", "one\n"),
        ("one\r\n", "one\n"),
        ("one\r", "one\n"),
        ("\n", "\n"),
        ("\r\n\r\n", "\n\n"),
        ("a line of Grüße und 😀\nand one more", "a line of Grüße und 😀\nand one more"),
    ] {
        nginx.publish("a", body);
        assert_eq!(source.event().data, data, "{body:?}");
    }
}

fn an_empty_message_is_an_event(workers: usize) {
    let nginx = start(workers, "");
    let mut source = open(&nginx, "a");
    source.bytes_until("\n\n");
    nginx.publish("a", "");
    let event = source.bytes_until("\n\n");
    assert!(event.starts_with("id: ") && event.ends_with("\ndata: \n\n"), "{event:?}");
    nginx.publish("a", "one");
    assert!(source.bytes_until("\n\n").ends_with("\ndata: one\n\n"));
    assert_eq!(open(&nginx, "a").event().data, "");
}

fn lines_may_look_like_fields(workers: usize) {
    let nginx = start(workers, "");
    let mut source = open(&nginx, "a");
    for body in [
        "id: 7",
        "event: end",
        "data: x",
        ": comment",
        ":",
        " leading",
        "  two",
        "retry: 1\n\nid: 3:3\ndata: forged",
        "data",
        "x\r\n\r\nevent: forged\r\ndata: x",
    ] {
        nginx.publish("a", body);
        let event = source.event();
        assert_eq!((event.name.as_str(), event.data), ("", body.replace("\r\n", "\n")));
        assert_ne!(event.last_id, "7");
    }
}

fn long_messages_come_whole(workers: usize) {
    let nginx = start(workers, "client_body_buffer_size 4m;");
    let mut source = open(&nginx, "a");
    let text =
        |length| "one line of it\nand another\r\n".repeat(length / 27 + 1)[..length].to_owned();
    for length in [100, 4_095, 4_096, 4_097, 65_535, 65_536, 300_000, 1 << 20] {
        nginx.publish("a", text(length));
        let data = source.event().data;
        let expected = text(length).replace("\r\n", "\n").replace('\r', "\n");
        assert!(data == expected, "{length} bytes: {} came, not {}", data.len(), expected.len());
    }
}

fn messages_in_files_come_whole(workers: usize) {
    let nginx = start(workers, "client_body_buffer_size 8k;");
    let mut live = open(&nginx, "a");
    // No byte of it ends a line, and all of it is ASCII.
    let line: String = pattern(3 << 20).iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    let lines = line.as_bytes().chunks(997).map(|l| std::str::from_utf8(l).unwrap());
    let body = lines.collect::<Vec<_>>().join("\n");
    nginx.publish("a", body.clone());
    nginx.publish("a", "small");
    for source in [&mut live, &mut open(&nginx, "a")] {
        assert!(source.event().data == body);
        source.expect_message("small");
    }
}

fn a_client_goes_on_behind_its_last_event_id(workers: usize) {
    let nginx = start(workers, "");
    for number in 0..6 {
        nginx.publish("a", format!("message {number}"));
    }
    let mut source = open(&nginx, "a");
    let ids: Vec<String> =
        (0..6).map(|number| source.expect_message(&format!("message {number}"))).collect();
    for (number, id) in ids.iter().enumerate() {
        let mut again = open_after(&nginx, "a", id);
        for next in number + 1..6 {
            again.expect_message(&format!("message {next}"));
        }
    }
    let mut again = open_after(&nginx, "a", &ids[5]);
    nginx.publish("a", "live");
    again.expect_message("live");
}

fn an_id_in_the_query_is_as_good_as_the_header(workers: usize) {
    let nginx = start(workers, "");
    for body in ["one", "two", "three"] {
        nginx.publish("a", body);
    }
    let id = open(&nginx, "a").expect_message("one");
    for id in [id.clone(), id.replace(':', "%3A"), id.replace(':', "%3a"), id.replace('1', "%31")] {
        let target = format!("{}&last_event_id={id}", subscriber("a"));
        let mut source = EventSource::open(nginx.port(), &target);
        source.expect_message("two");
        source.expect_message("three");
    }
    let target = format!("/sub?last_event_id={id}&id=a");
    EventSource::open(nginx.port(), &target).expect_message("two");
}

fn the_header_wins_over_the_query(workers: usize) {
    let nginx = start(workers, "");
    for body in ["one", "two", "three"] {
        nginx.publish("a", body);
    }
    let mut source = open(&nginx, "a");
    let (first, second) = (source.expect_message("one"), source.expect_message("two"));
    let target = |id| format!("{}&last_event_id={id}", subscriber("a"));
    EventSource::open_after(nginx.port(), &target(&first), &second).expect_message("three");
    EventSource::open_after(nginx.port(), &target(&second), &first).expect_message("two");
    // A header that says nothing leaves the word to the query.
    for id in ["", "nonsense"] {
        let mut source = EventSource::open_after(nginx.port(), &target(&second), id);
        source.expect_message("three");
    }
}

fn a_cursor_of_a_long_poll_is_understood(workers: usize) {
    let nginx = start(workers, "");
    for body in ["one", "two", "three"] {
        nginx.publish("a", body);
    }
    let cursor = Cursor::after(&nginx.poll("a", &Cursor::none()));
    let request = cursor.apply(request(&subscriber("a")));
    EventSource::send(nginx.client(), &request).expect_message("two");
}

fn an_id_that_cannot_be_read_is_as_if_absent(workers: usize) {
    let nginx = start(workers, "");
    for body in ["one", "two"] {
        nginx.publish("a", body);
    }
    for id in [
        "nonsense",
        ":",
        "1:",
        ":1",
        "1700000000",
        "-1:0",
        "1:-1",
        "1:2:3",
        "1.5:0",
        "0x10:0",
        "99999999999999999999999999:0",
        "1:99999999999999999999999999",
        " ",
        "1 :0",
        "%00",
        "+1:0",
    ] {
        open_after(&nginx, "a", id).expect_message("one");
    }
    let long = "7".repeat(3000);
    open_after(&nginx, "a", &long).expect_message("one");
}

fn the_id_wins_over_a_cursor_of_a_long_poll(workers: usize) {
    let nginx = start(workers, "");
    for body in ["one", "two", "three"] {
        nginx.publish("a", body);
    }
    let mut source = open(&nginx, "a");
    source.expect_message("one");
    let second = source.expect_message("two");
    let cursor = Cursor::after(&nginx.poll("a", &Cursor::none()));
    let both = cursor.apply(request(&subscriber("a"))).header("Last-Event-ID", &second);
    EventSource::send(nginx.client(), &both).expect_message("three");
}

fn a_gap_is_an_event_before_the_message_after_it(workers: usize) {
    let config = Config::push(workers).publisher("push_max_message_buffer_length 2;");
    let nginx = Nginx::start(config);
    nginx.publish("a", "message 0");
    let id = open(&nginx, "a").expect_message("message 0");
    for number in 1..6 {
        nginx.publish("a", format!("message {number}"));
    }
    let mut source = open_after(&nginx, "a", &id);
    retry(&mut source);
    let event = source.item().event();
    assert_eq!((event.name.as_str(), event.id), ("gap", None));
    assert_eq!(event.data, "{\"missed\":3,\"at_least\":false}");
    source.expect_message("message 4");
    source.expect_message("message 5");
    // Nothing was missed by one who asks for what there is.
    let mut source = open(&nginx, "a");
    retry(&mut source);
    assert_eq!(source.item().event().data, "message 4");
}

fn retry_is_said_first_and_differs_between_clients(workers: usize) {
    let nginx = start(workers, "");
    let mut values = HashSet::new();
    for _ in 0..30 {
        let value = retry(&mut open(&nginx, "a"));
        assert!((1000..=3000).contains(&value), "{value}");
        values.insert(value);
    }
    assert!(values.len() > 10, "hardly random: {values:?}");
}

fn retry_can_be_set_and_turned_off(workers: usize) {
    let nginx = start(workers, "push_eventsource_retry 10s;");
    for _ in 0..20 {
        let value = retry(&mut open(&nginx, "a"));
        assert!((5_000..=15_000).contains(&value), "{value}");
    }
    let nginx = start(workers, "push_eventsource_retry 0;");
    let mut source = open(&nginx, "a");
    assert_eq!(source.bytes_until("\n\n"), ":\n\n");
    nginx.publish("a", "one");
    assert!(source.bytes_until("\n\n").starts_with("id: "));
}

fn pings_are_empty_comments(workers: usize) {
    let nginx = start(workers, "push_ping_interval 1s; push_eventsource_retry 0;");
    let mut source = open(&nginx, "a");
    // The first bytes, two pings, a message, and a ping again.
    for _ in 0..3 {
        assert_eq!(source.bytes_until("\n\n"), ":\n\n");
    }
    nginx.publish("a", "one");
    // Where publishing takes a second, one more ping has come before it.
    let mut items = std::iter::repeat_with(|| source.bytes_until("\n\n"));
    let event = items.find(|item| item != ":\n\n").unwrap();
    assert!(event.starts_with("id: "), "{event}");
    assert_eq!(items.next().unwrap(), ":\n\n");
}

fn no_pings_come_where_they_are_turned_off(workers: usize) {
    let config = Config::push(workers).server(
        "location /none { push_subscriber eventsource; push_channel_id $arg_id; push_ping_interval 0; }
         location /often { push_subscriber eventsource; push_channel_id $arg_id; push_ping_interval 1s; }",
    );
    let nginx = Nginx::start(config);
    let mut often = EventSource::open(nginx.port(), "/often?id=a");
    let mut none = EventSource::open(nginx.port(), "/none?id=a");
    retry(&mut none);
    retry(&mut often);
    for _ in 0..3 {
        assert_eq!(often.item(), Item::Comment(String::new()));
    }
    nginx.publish("a", "one");
    assert_eq!(none.item().event().data, "one");
}

fn a_deletion_is_an_event_and_the_last(workers: usize) {
    let nginx = start(workers, "");
    let mut sources = [open(&nginx, "a"), open(&nginx, "a")];
    nginx.publish("a", "one");
    for source in &mut sources {
        source.expect_message("one");
    }
    delete(&nginx, "a");
    for mut source in sources {
        let event = source.item().event();
        assert_eq!((event.name.as_str(), event.id), ("end", None));
        assert_eq!(event.data, "{\"reason\":\"deleted\"}");
        assert_eq!(source.expect_end(), Ended::LastChunk);
    }
}

fn a_timeout_is_a_comment_and_the_last(workers: usize) {
    let nginx = start(workers, "push_subscriber_timeout 1s;");
    let mut source = open(&nginx, "a");
    retry(&mut source);
    assert_eq!(source.item(), Item::Comment(" timeout".to_owned()));
    assert_eq!(source.expect_end(), Ended::LastChunk);
    nginx.wait_for_subscribers("a", 0);
}

fn who_comes_for_what_is_new_has_an_id_at_once(workers: usize) {
    let channels = Config::push(workers).http("push_channel_id_split_delimiter ',';");
    let nginx = Nginx::start(channels.subscriber("push_first_message newest;"));
    nginx.publish("a", "old");
    for ids in ["a", "b", "a,b"] {
        let mut source = open(&nginx, ids);
        let mut opening = source.bytes_until("\n\n");
        if !opening.contains("id: ") {
            opening += &source.bytes_until("\n\n");
        }
        let (retry, id) = opening.split_once("\n\n").unwrap();
        assert!(retry.starts_with("retry: ") && !retry.contains('\n'), "{opening}");
        let id = id.strip_prefix("id: ").and_then(|id| id.strip_suffix("\n\n")).unwrap();
        drop(source);
        for channel in ids.split(',') {
            nginx.publish(channel, format!("to {channel}"));
        }
        let mut source = open_after(&nginx, ids, id);
        for channel in ids.split(',') {
            assert_eq!(source.event().data, format!("to {channel}"));
        }
    }
}

fn a_conflict_is_an_event_and_the_last(workers: usize) {
    let nginx = start(workers, "push_subscriber_concurrency last;");
    let mut first = open(&nginx, "a");
    nginx.wait_for_subscribers("a", 1);
    let mut second = open(&nginx, "a");
    retry(&mut first);
    let event = first.item().event();
    assert_eq!((event.name.as_str(), event.id), ("end", None));
    assert_eq!(event.data, "{\"reason\":\"conflict\"}");
    assert_eq!(first.expect_end(), Ended::LastChunk);
    nginx.publish("a", "one");
    second.expect_message("one");
}

fn a_shutdown_says_when_to_come_back(workers: usize) {
    let nginx = start(workers, "");
    let mut sources: Vec<EventSource> = (0..20).map(|_| open(&nginx, "a")).collect();
    for source in &mut sources {
        retry(source);
    }
    nginx.reload();
    let mut values = HashSet::new();
    for source in &mut sources {
        let value = retry(source);
        assert!(value <= 1000, "{value}");
        values.insert(value);
        assert_eq!(source.item(), Item::Comment(" shutdown".to_owned()));
        assert_eq!(source.expect_end(), Ended::LastChunk);
    }
    assert!(values.len() > 5, "all would come back at once: {values:?}");
}

fn a_shutdown_leaves_browsers_about_the_pause_that_they_have(workers: usize) {
    let nginx = start(workers, "push_eventsource_retry 0;");
    let mut sources: Vec<EventSource> = (0..20).map(|_| open(&nginx, "a")).collect();
    nginx.reload();
    let mut values = HashSet::new();
    for source in &mut sources {
        assert_eq!(source.item(), Item::Comment(String::new()));
        let value = retry(source);
        assert!((3_000..=4_000).contains(&value), "{value}");
        values.insert(value);
        assert_eq!(source.item(), Item::Comment(" shutdown".to_owned()));
        assert_eq!(source.expect_end(), Ended::LastChunk);
    }
    assert!(values.len() > 5, "all would come back at once: {values:?}");
}

fn http_1_0_gets_the_stream_without_chunks(workers: usize) {
    let nginx = start(workers, "");
    nginx.publish("a", "one");
    let mut source = EventSource::send(nginx.client(), &request(&subscriber("a")).http_1_0());
    assert_eq!(source.response().header("Transfer-Encoding"), None);
    assert_eq!(source.response().header("Content-Length"), None);
    source.expect_message("one");
    nginx.publish("a", "two");
    source.expect_message("two");
    delete(&nginx, "a");
    assert_eq!(source.event().name, "end");
    assert_eq!(source.expect_end(), Ended::Closed);
}

fn a_client_that_wants_to_close_is_served(workers: usize) {
    let nginx = start(workers, "");
    let request = request(&subscriber("a")).header("Connection", "close");
    let mut source = EventSource::send(nginx.client(), &request);
    nginx.publish("a", "one");
    source.expect_message("one");
    delete(&nginx, "a");
    assert_eq!(source.event().name, "end");
    assert_eq!(source.expect_end(), Ended::LastChunk);
    source.into_client().expect_closed();
}

fn a_slow_request_head_makes_no_difference(workers: usize) {
    let nginx = start(workers, "");
    nginx.publish("a", "one");
    let bytes = request(&subscriber("a")).to_bytes();
    let mut client = nginx.client();
    for byte in &bytes[..bytes.len() - 1] {
        client.send_bytes(&[*byte]);
    }
    client.send_bytes(&bytes[bytes.len() - 1..]);
    let response = client.try_head().expect("a reply");
    assert_eq!(response.header("Content-Type"), Some("text/event-stream; charset=utf-8"));
    let mut parser = Parser::default();
    while parser.next().and_then(as_event).is_none_or(|event| event.data != "one") {
        parser.feed(&client.try_chunk().expect("a chunk").expect("no end"));
    }
}

fn as_event(item: Item) -> Option<Event> {
    match item {
        Item::Event(event) => Some(event),
        _ => None,
    }
}

fn what_is_sent_while_listening_is_answered_after_the_stream(workers: usize) {
    let nginx = start(workers, "");
    let mut source = open(&nginx, "a");
    retry(&mut source);
    nginx.wait_for_subscribers("a", 1);
    source.body().client().send(&Request::get("/worker"));
    nginx.publish("a", "one").expect_status(201);
    source.expect_message("one");
    delete(&nginx, "a");
    let end = source.event();
    assert_eq!(lines::parse(&end.data)["reason"], "deleted");
    assert_eq!(source.expect_end(), Ended::LastChunk);
    let mut client: Client = source.into_client();
    client.response().expect_status(200);
}
