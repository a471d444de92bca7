//! Tests for cursors: which message comes next, in every form in which clients ask.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use support::push::{publisher, subscriber};
use support::{on_1_and_4_workers, wait, Config, Cursor, Nginx, Request, Response};

on_1_and_4_workers!(
    a_walk_sees_every_message_once_in_order,
    ids_rise_and_tags_count_within_a_second,
    the_newest_cursor_waits,
    a_cursor_in_the_future_waits,
    a_cursor_in_an_empty_channel_waits,
    quoted_weak_and_negative_tags_mean_the_same,
    a_tag_that_is_no_number_means_0,
    a_tag_larger_than_any_number_does_no_harm,
    a_tag_without_a_date_means_the_oldest_message,
    a_date_that_cannot_be_read_means_the_oldest_message,
    all_three_date_formats_are_read,
    a_date_may_have_any_zone_and_any_day_of_the_week,
    a_client_without_etag_gets_the_second_message_of_the_second,
    a_client_without_etag_goes_on_to_the_next_second,
    gzip_keeps_the_cursor,
    dropped_messages_are_counted_for_the_reader,
    expired_messages_are_counted_for_the_reader,
    nothing_is_missed_by_a_client_without_a_cursor,
    nothing_is_missed_while_messages_are_stored,
    a_waiting_client_has_missed_nothing,
    ids_after_a_deletion_are_newer,
    a_cursor_from_before_a_deletion_gets_what_came_after,
);

fn a_walk_sees_every_message_once_in_order(workers: usize) {
    let nginx = start_with_queue_of(workers, 100);
    let bodies: Vec<String> = (0..60).map(|number| format!("message {number}")).collect();
    for body in &bodies {
        nginx.publish("a", body.as_str());
    }
    assert_eq!(nginx.queue("a"), bodies);
}

fn start_with_queue_of(workers: usize, length: usize) -> Nginx {
    let length = format!("push_max_message_buffer_length {length};");
    Nginx::start(Config::push(workers).http(&length))
}

fn ids_rise_and_tags_count_within_a_second(workers: usize) {
    let nginx = start_with_queue_of(workers, 400);
    for number in 0..400 {
        nginx.publish("a", format!("message {number}"));
    }
    let ids: Vec<(u64, u32)> =
        nginx.poll_all("a").iter().map(|response| Cursor::after(response).id()).collect();
    assert_eq!(ids.len(), 400);
    assert_eq!(ids[0].1, 0, "the first tag");
    for pair in ids.windows(2) {
        let expected_tag = if pair[0].0 == pair[1].0 { pair[0].1 + 1 } else { 0 };
        assert!(pair[1].0 >= pair[0].0, "{pair:?}");
        assert_eq!(pair[1].1, expected_tag, "{pair:?}");
    }
}

fn the_newest_cursor_waits(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    let cursor = Cursor::after(&nginx.poll("a", &Cursor::none()));
    let mut client = nginx.park_after("a", &cursor);
    nginx.publish("a", "two").expect_status(201);
    assert_eq!(client.response().expect_status(200).text(), "two");
}

fn a_cursor_in_the_future_waits(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    let mut client = nginx.park_after("a", &Cursor::new("Fri, 01 Jan 2100 00:00:00 GMT", "0"));
    nginx.publish("a", "two").expect_status(201);
    assert_eq!(client.response().expect_status(200).text(), "two");
}

fn a_cursor_in_an_empty_channel_waits(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut client = nginx.park_after("a", &Cursor::new("Sat, 01 Jan 2000 00:00:00 GMT", "5"));
    nginx.publish("a", "one").expect_status(201);
    assert_eq!(client.response().expect_status(200).text(), "one");
}

/// Publishes on new channels until `count` messages of one have the same second.
fn messages_in_one_second(nginx: &Nginx, count: usize) -> (String, Vec<Response>) {
    let mut attempt = 0;
    wait::until("messages in one second", || {
        attempt += 1;
        let id = format!("second-{attempt}");
        for number in 0..count {
            nginx.publish(&id, format!("message {number}"));
        }
        let messages = nginx.poll_all(&id);
        let second = |response: &Response| response.header("Last-Modified").map(str::to_owned);
        let same = second(&messages[0]) == second(&messages[count - 1]);
        same.then_some((id, messages))
    })
}

fn quoted_weak_and_negative_tags_mean_the_same(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let (id, messages) = messages_in_one_second(&nginx, 4);
    for (number, message) in messages.iter().enumerate().take(3) {
        let cursor = Cursor::after(message);
        let expected = format!("message {}", number + 1);
        for etag in [
            format!("{number}"),
            format!("\"{number}\""),
            format!("W/\"{number}\""),
            format!("-{number}"),
        ] {
            let response = nginx.poll(&id, &cursor.with_etag(&etag)).expect_status(200);
            assert_eq!(response.text(), expected, "for {etag}");
        }
    }
}

fn a_tag_that_is_no_number_means_0(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let (id, messages) = messages_in_one_second(&nginx, 3);
    for etag in ["abc", "\"abc\"", "W/", "\"\"", "*", "1x", "0x1"] {
        let cursor = Cursor::after(&messages[2]).with_etag(etag);
        let response = nginx.poll(&id, &cursor).expect_status(200);
        assert_eq!(response.text(), "message 1", "for {etag}");
    }
}

fn a_tag_larger_than_any_number_does_no_harm(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).subscriber("push_subscriber_timeout 1s;"));
    nginx.publish("a", "one");
    let cursor = Cursor::after(&nginx.poll("a", &Cursor::none()));
    for etag in ["4294967295", "4294967296", "18446744073709551616", &"9".repeat(500)] {
        let response = nginx.poll("a", &cursor.with_etag(etag));
        assert!([200, 304].contains(&response.status), "for {etag}: {}", response.head);
    }
    assert_eq!(nginx.queue("a"), ["one"]);
}

fn a_tag_without_a_date_means_the_oldest_message(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    nginx.publish("a", "two");
    let cursor = Cursor { last_modified: None, etag: Some("7".to_owned()) };
    assert_eq!(nginx.poll("a", &cursor).expect_status(200).text(), "one");
}

fn a_date_that_cannot_be_read_means_the_oldest_message(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    nginx.publish("a", "two");
    for date in ["yesterday", "Fri, 99 Jan 2100 00:00:00 GMT", "0", "", "\u{e4}"] {
        let response = nginx.poll("a", &Cursor::new(date, "0")).expect_status(200);
        assert_eq!(response.text(), "one", "for {date:?}");
    }
}

fn all_three_date_formats_are_read(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    // Of the year 1994 in all of them, so everything is newer; and of 2030, so nothing is.
    for past in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ] {
        nginx.poll("a", &Cursor::new(past, "0")).expect_status(200);
    }
    for future in [
        "Wed, 06 Nov 2069 08:49:37 GMT",
        "Wednesday, 06-Nov-69 08:49:37 GMT",
        "Wed Nov  6 08:49:37 2069",
    ] {
        let client = nginx.park_after("a", &Cursor::new(future, "0"));
        drop(client);
        nginx.wait_for_subscribers("a", 0);
    }
}

fn a_date_may_have_any_zone_and_any_day_of_the_week(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    let cursor = Cursor::after(&nginx.poll("a", &Cursor::none()).expect_status(200));
    wait::until_second_after(cursor.id().0);
    nginx.publish("a", "two");
    let date = cursor.last_modified.as_deref().unwrap();
    let (_, rest) = date.split_once(',').unwrap();
    for date in [
        date.replace("GMT", "-0000"),
        date.replace("GMT", "+0000"),
        date.replace("GMT", "UTC"),
        date.replace("GMT", "gmt"),
        date.replace(" GMT", ""),
        format!("Day,{rest}"),
    ] {
        let tag = cursor.etag.as_deref().unwrap();
        let response = nginx.poll("a", &Cursor::new(&date, tag)).expect_status(200);
        assert_eq!(response.text(), "two", "for {date:?}");
    }
}

fn a_client_without_etag_gets_the_second_message_of_the_second(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let (id, messages) = messages_in_one_second(&nginx, 3);
    for message in &messages {
        let cursor = Cursor::after(message).without_etag();
        assert_eq!(nginx.poll(&id, &cursor).expect_status(200).text(), "message 1");
    }
}

fn a_client_without_etag_goes_on_to_the_next_second(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    let first = Cursor::after(&nginx.poll("a", &Cursor::none()));
    // A message of the same second would come too, so wait for the next one.
    let (second, _) = first.id();
    wait::until_second_after(second);
    nginx.publish("a", "two");
    let response = nginx.poll("a", &first.without_etag()).expect_status(200);
    assert_eq!(response.text(), "two");
}

fn gzip_keeps_the_cursor(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .subscriber("gzip on; gzip_types text/plain; gzip_min_length 1; gzip_vary on;"),
    );
    let bodies: Vec<String> = (0..4).map(|number| format!("{number}").repeat(2000)).collect();
    for body in &bodies {
        nginx.publish("a", body.as_str());
    }
    let mut cursor = Cursor::none();
    for (number, body) in bodies.iter().enumerate() {
        let request = Request::get(&subscriber("a")).header("Accept-Encoding", "gzip");
        let response = nginx.request(&cursor.apply(request)).expect_status(200);
        assert_eq!(response.header("Content-Encoding"), Some("gzip"));
        assert!(response.header("Etag").is_some(), "message {number}:\n{}", response.head);
        let vary: Vec<&str> = response
            .headers
            .iter()
            .filter(|(name, _)| name == "Vary")
            .map(|(_, value)| value.as_str())
            .collect();
        assert!(vary.contains(&"If-None-Match, If-Modified-Since"), "{vary:?}");
        assert!(gunzip(&response.body) == body.as_bytes(), "message {number}");
        cursor = Cursor::after(&response);
        cursor.id();
    }
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gzip runs");
    // Less than a pipe holds, so this cannot block.
    gzip.stdin.take().expect("a pipe").write_all(bytes).expect("gzip reads");
    let output = gzip.wait_with_output().expect("gzip ends");
    assert!(output.status.success());
    output.stdout
}

fn dropped_messages_are_counted_for_the_reader(workers: usize) {
    let nginx = start_with_queue_of(workers, 3);
    nginx.publish("a", "message 0");
    let mut cursors = vec![Cursor::after(&nginx.poll("a", &Cursor::none()))];
    for number in 1..10 {
        nginx.publish("a", format!("message {number}"));
        let last = nginx.poll("a", &cursors[number - 1]).expect_status(200);
        assert_eq!(last.text(), format!("message {number}"));
        cursors.push(Cursor::after(&last));
    }
    // Messages 7, 8 and 9 are left.
    for (number, cursor) in cursors.iter().enumerate().take(9) {
        let response = nginx.poll("a", cursor).expect_status(200);
        let next = (number + 1).max(7);
        assert_eq!(response.text(), format!("message {next}"));
        let missed = next - number - 1;
        let expected = (missed > 0).then(|| missed.to_string());
        assert_eq!(response.header("Push-Missed"), expected.as_deref(), "after message {number}");
    }
}

fn expired_messages_are_counted_for_the_reader(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).server(
        "location = /brief { push_publisher; push_channel_id $arg_id; push_message_timeout 1s; }",
    ));
    let mut client = nginx.park("a");
    nginx.publish("a", "one").expect_status(201);
    let cursor = Cursor::after(&client.response().expect_status(200));
    for body in ["two", "three"] {
        nginx.publish_at("/brief?id=a", body);
    }
    nginx.wait_for_messages("a", 1);
    let mut client = nginx.park_after("a", &cursor);
    nginx.publish("a", "four").expect_status(201);
    let response = client.response().expect_status(200);
    assert_eq!(response.text(), "four");
    assert_eq!(response.header("Push-Missed"), Some("2"));
}

fn nothing_is_missed_by_a_client_without_a_cursor(workers: usize) {
    let nginx = start_with_queue_of(workers, 2);
    for number in 0..5 {
        nginx.publish("a", format!("message {number}"));
    }
    let response = nginx.poll("a", &Cursor::none()).expect_status(200);
    assert_eq!(response.text(), "message 3");
    assert_eq!(response.header("Push-Missed"), None);
}

fn nothing_is_missed_while_messages_are_stored(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    for number in 0..10 {
        nginx.publish("a", format!("message {number}"));
    }
    for response in nginx.poll_all("a") {
        assert_eq!(response.header("Push-Missed"), None);
    }
}

fn a_waiting_client_has_missed_nothing(workers: usize) {
    let nginx = start_with_queue_of(workers, 1);
    nginx.publish("a", "one");
    let mut cursor = Cursor::after(&nginx.poll("a", &Cursor::none()));
    for number in 0..4 {
        let mut client = nginx.park_after("a", &cursor);
        nginx.publish("a", format!("message {number}")).expect_status(201);
        let response = client.response().expect_status(200);
        assert_eq!(response.text(), format!("message {number}"));
        assert_eq!(response.header("Push-Missed"), None);
        cursor = Cursor::after(&response);
        nginx.wait_for_subscribers("a", 0);
    }
}

fn ids_after_a_deletion_are_newer(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut last = (0, 0);
    for round in 0..10 {
        nginx.publish("a", format!("one of {round}"));
        nginx.publish("a", format!("two of {round}"));
        for response in nginx.poll_all("a") {
            let id = Cursor::after(&response).id();
            assert!(id > last, "{id:?} after {last:?}");
            last = id;
        }
        nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
    }
}

fn a_cursor_from_before_a_deletion_gets_what_came_after(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "old one");
    nginx.publish("a", "old two");
    let cursors: Vec<_> = nginx.poll_all("a").iter().map(Cursor::after).collect();
    nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
    // Who has not seen all of the former channel is told so, and nobody knows how much that was: now, or when it waited.
    let missed = [Some("0;at-least"), None];
    let waiting: Vec<_> = cursors.iter().map(|cursor| nginx.park_after("a", cursor)).collect();
    nginx.publish("a", "new one").expect_status(201);
    for ((mut client, cursor), missed) in waiting.into_iter().zip(&cursors).zip(missed) {
        for response in [client.response(), nginx.poll("a", cursor)] {
            let response = response.expect_status(200);
            assert_eq!((response.text(), response.header("Push-Missed")), ("new one", missed));
        }
    }
}
