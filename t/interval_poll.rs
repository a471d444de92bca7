//! Tests for interval-poll subscribers, who are answered at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Instant;

use support::push::publisher;
use support::{on_1_and_4_workers, wait, Config, Cursor, Nginx, Request, Response};

on_1_and_4_workers!(
    a_message_is_200_like_a_long_poll,
    without_a_message_it_is_304_with_the_position_of_the_request,
    without_a_position_the_304_has_none,
    polling_walks_over_all_messages,
    it_never_counts_as_a_waiting_subscriber,
    it_counts_as_a_subscriber_request,
    unknown_channels_are_403_where_only_authorized_ones_are_served,
    concurrency_first_refuses_it_while_another_waits,
    concurrency_last_sends_the_waiting_away,
    the_limit_of_subscribers_holds,
    no_cache_means_nothing_here,
    other_methods_are_405_with_allow,
    options_is_200_with_cors_headers,
    every_request_has_one_line_in_the_access_log,
);

fn start(workers: usize, text: &str) -> Nginx {
    Nginx::start(Config::push(workers).server(&format!(
        "location /interval {{
             push_subscriber interval-poll; set $push_channel_id $arg_id; {text}
         }}"
    )))
}

fn poll(nginx: &Nginx, id: &str, cursor: &Cursor) -> Response {
    nginx.request(&cursor.apply(Request::get(&format!("/interval?id={id}"))))
}

fn a_message_is_200_like_a_long_poll(workers: usize) {
    let nginx = start(workers, "");
    nginx.publish("a", "one");
    let long = nginx.poll("a", &Cursor::none()).expect_status(200);
    let interval = poll(&nginx, "a", &Cursor::none()).expect_status(200);
    assert_eq!(interval.bytes_without_date(), long.bytes_without_date());
}

fn without_a_message_it_is_304_with_the_position_of_the_request(workers: usize) {
    let nginx = start(workers, "");
    nginx.publish("a", "one");
    let cursor = Cursor::after(&poll(&nginx, "a", &Cursor::none()).expect_status(200));
    let response = poll(&nginx, "a", &cursor).expect_status(304);
    assert_eq!(Cursor::after(&response), cursor);
    // Also for a channel that never was.
    let cursor = Cursor::new("Sat, 01 Jan 2000 00:00:00 GMT", "7");
    let response = poll(&nginx, "b", &cursor).expect_status(304);
    assert_eq!(Cursor::after(&response), cursor);
}

fn without_a_position_the_304_has_none(workers: usize) {
    let nginx = start(workers, "");
    let response = poll(&nginx, "a", &Cursor::none()).expect_status(304);
    assert_eq!(response.header("Last-Modified"), None);
    assert_eq!(response.header("Etag"), None);
}

fn polling_walks_over_all_messages(workers: usize) {
    let nginx = start(workers, "");
    let mut cursor = Cursor::none();
    for round in 0..3 {
        let bodies: Vec<String> = (0..3).map(|number| format!("{round}-{number}")).collect();
        for body in &bodies {
            nginx.publish("a", body.as_str());
        }
        for body in &bodies {
            let response = poll(&nginx, "a", &cursor).expect_status(200);
            assert_eq!(response.text(), body);
            cursor = Cursor::after(&response);
        }
        let response = poll(&nginx, "a", &cursor).expect_status(304);
        assert_eq!(Cursor::after(&response), cursor);
    }
}

fn it_never_counts_as_a_waiting_subscriber(workers: usize) {
    let nginx = start(workers, "");
    nginx.publish("a", "one");
    let cursor = Cursor::after(&poll(&nginx, "a", &Cursor::none()));
    poll(&nginx, "a", &cursor).expect_status(304);
    assert_eq!(nginx.subscribers("a"), 0);
    nginx.publish("a", "two").expect_status(202);
}

fn it_counts_as_a_subscriber_request(workers: usize) {
    let nginx = start(workers, "");
    nginx.publish("a", "one");
    let requested = || nginx.info("a").expect("the channel").requested;
    wait::until_true("two seconds without subscribers", || requested() >= 2);
    let polled = Instant::now();
    poll(&nginx, "a", &Cursor::none()).expect_status(200);
    let found = requested();
    let longest = polled.elapsed().as_secs() + 1;
    assert!(found <= longest, "{found}");
}

fn unknown_channels_are_403_where_only_authorized_ones_are_served(workers: usize) {
    let nginx = start(workers, "push_authorized_channels_only on;");
    poll(&nginx, "a", &Cursor::none()).expect_status(403);
    nginx.get(&publisher("a")).expect_status(404);
    nginx.publish("a", "one");
    poll(&nginx, "a", &Cursor::none()).expect_status(200);
}

fn concurrency_first_refuses_it_while_another_waits(workers: usize) {
    let nginx = start(workers, "push_subscriber_concurrency first;");
    poll(&nginx, "a", &Cursor::none()).expect_status(304);
    let mut waiting = nginx.park("a");
    poll(&nginx, "a", &Cursor::none()).expect_status(409).expect_empty();
    waiting.expect_silence();
    nginx.publish("a", "one").expect_status(201);
    waiting.response().expect_status(200);
    nginx.wait_for_subscribers("a", 0);
    poll(&nginx, "a", &Cursor::none()).expect_status(200);
}

fn concurrency_last_sends_the_waiting_away(workers: usize) {
    let nginx = start(workers, "push_subscriber_concurrency last;");
    let mut waiting = nginx.park("a");
    poll(&nginx, "a", &Cursor::none()).expect_status(304);
    waiting.response().expect_status(409).expect_empty();
    nginx.wait_for_subscribers("a", 0);
}

fn the_limit_of_subscribers_holds(workers: usize) {
    let nginx = start(workers, "push_max_channel_subscribers 1;");
    poll(&nginx, "a", &Cursor::none()).expect_status(304);
    let _waiting = nginx.park("a");
    poll(&nginx, "a", &Cursor::none()).expect_status(403).expect_empty();
}

fn no_cache_means_nothing_here(workers: usize) {
    // NHPM looks at the header for long-polls only.
    let nginx = start(workers, "push_ignore_queue_on_no_cache on;");
    nginx.publish("a", "one");
    let request = Request::get("/interval?id=a").header("Cache-Control", "no-cache");
    assert_eq!(nginx.request(&request).expect_status(200).text(), "one");
}

fn other_methods_are_405_with_allow(workers: usize) {
    let nginx = start(workers, "");
    for method in ["HEAD", "POST", "DELETE"] {
        let request = Request::new(method, "/interval?id=a").body("");
        let response = nginx.request(&request).expect_status(405);
        assert_eq!(response.header("Allow"), Some("GET, OPTIONS"));
    }
}

fn options_is_200_with_cors_headers(workers: usize) {
    let nginx = start(workers, "");
    let response = nginx.request(&Request::new("OPTIONS", "/interval?id=a"));
    let response = response.expect_status(200).expect_empty();
    assert_eq!(response.header("Access-Control-Allow-Methods"), Some("GET, OPTIONS"));
}

fn every_request_has_one_line_in_the_access_log(workers: usize) {
    let nginx = start(workers, "");
    poll(&nginx, "a", &Cursor::none()).expect_status(304);
    nginx.publish("a", "one");
    poll(&nginx, "a", &Cursor::none()).expect_status(200);
    wait::until_true("three lines", || nginx.access_log().len() == 3);
    let log = nginx.access_log();
    assert!(log.contains(&"GET /interval?id=a 304 0".to_owned()), "{log:?}");
    assert!(log.contains(&"GET /interval?id=a 200 3".to_owned()), "{log:?}");
}
