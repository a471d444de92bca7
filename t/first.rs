//! Tests for where a subscriber without a cursor begins (`push_first_message`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::push::subscriber;
use support::streams::Kind;
use support::{on_1_and_4_workers, wait, Config, Cursor, Nginx, Request};

on_1_and_4_workers!(
    the_location_says_where_to_begin,
    a_client_may_say_it_where_the_location_takes_its_word,
    a_cursor_counts_more,
    what_makes_no_sense_is_told,
    one_can_begin_at_a_time,
    several_channels_begin_alike,
);

fn start(workers: usize, value: &str) -> Nginx {
    Nginx::start(Config::push(workers).subscriber(&format!("push_first_message {value};")))
}

fn publish(nginx: &Nginx, count: usize) {
    for number in 1..=count {
        nginx.publish("a", number.to_string());
    }
}

/// The body that a poll gets at once, or nothing if it waits.
fn first(nginx: &Nginx, target: &str) -> Option<String> {
    let mut client = nginx.client();
    let before = nginx.subscribers("a");
    client.send(&Request::get(target));
    wait::until_true("an answer", || client.has_bytes() || nginx.subscribers("a") > before);
    let body = client.has_bytes().then(|| client.response().expect_status(200).text().to_owned());
    drop(client);
    nginx.wait_for_subscribers("a", before);
    body
}

fn the_location_says_where_to_begin(workers: usize) {
    for (value, body) in [
        ("oldest", Some("1")),
        ("newest", None),
        ("1", Some("1")),
        ("3", Some("3")),
        ("5", Some("5")),
        ("6", None),
        ("-1", Some("5")),
        ("-3", Some("3")),
        ("-50", Some("1")),
        ("-0", None),
    ] {
        let nginx = start(workers, value);
        publish(&nginx, 5);
        assert_eq!(first(&nginx, &subscriber("a")).as_deref(), body, "{value}");
        let mut stream = Kind::JsonLines.listen(nginx.port(), "a");
        if let Some(body) = body {
            let from: usize = body.parse().unwrap();
            (from..=5).for_each(|number| drop(stream.expect_message(&number.to_string())));
        }
        nginx.wait_for_subscribers("a", 1);
        nginx.publish("a", "6").expect_status(201);
        stream.expect_message("6");
    }
}

fn a_client_may_say_it_where_the_location_takes_its_word(workers: usize) {
    let nginx = start(workers, "-$arg_last newest");
    publish(&nginx, 5);
    let target = |argument: &str| format!("{}&{argument}", subscriber("a"));
    assert_eq!(first(&nginx, &target("last=2")).as_deref(), Some("4"));
    assert_eq!(first(&nginx, &target("last=")), None);
    assert_eq!(first(&nginx, &subscriber("a")), None);
    let mut stream = Kind::EventSource.listen_on(nginx.client(), &target("last=2"), None);
    stream.expect_message("4");
    stream.expect_message("5");
}

fn a_cursor_counts_more(workers: usize) {
    let nginx = start(workers, "newest");
    publish(&nginx, 3);
    let cursor = {
        let mut stream = Kind::EventSource.listen(nginx.port(), "a");
        nginx.wait_for_subscribers("a", 1);
        nginx.publish("a", "4");
        stream.expect_message("4").unwrap()
    };
    nginx.publish("a", "5");
    Kind::EventSource.listen_after(nginx.port(), "a", &cursor).expect_message("5");
    let (time, tag) = cursor.split_once(':').unwrap();
    let date = std::time::UNIX_EPOCH + std::time::Duration::from_secs(time.parse().unwrap());
    let cursor = Cursor::new(&httpdate::fmt_http_date(date), tag);
    assert_eq!(nginx.poll("a", &cursor).expect_status(200).text(), "5");
}

fn what_makes_no_sense_is_told(workers: usize) {
    let nginx = start(workers, "$arg_from");
    publish(&nginx, 1);
    for bad in ["0", "x", "--1", "@x", "1%20"] {
        let response = nginx.get(&format!("/sub?id=a&from={bad}")).expect_status(400);
        assert!(response.text().starts_with("push_first_message does not understand"), "{bad}");
    }
    let check = Nginx::check(&Config::push(1).subscriber("push_first_message last;"));
    assert!(!check.success);
    assert!(check.text.contains("invalid value \"last\" in \"push_first_message\""));
}

fn one_can_begin_at_a_time(workers: usize) {
    let nginx = start(workers, "@$arg_since newest");
    nginx.publish("a", "1");
    let mut stream = Kind::JsonLines.listen_on(nginx.client(), "/sub?id=a&since=1", None);
    let id = stream.expect_message("1").unwrap();
    let second: u64 = id.split(':').next().unwrap().parse().unwrap();
    let since = |time: u64| first(&nginx, &format!("/sub?id=a&since={time}"));
    assert_eq!(since(second).as_deref(), Some("1"));
    assert_eq!(since(second + 1), None);
    assert_eq!(since(0).as_deref(), Some("1"));
}

fn several_channels_begin_alike(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .http("push_channel_id_split_delimiter ',';")
            .subscriber("push_first_message -2;"),
    );
    for number in 0..8 {
        nginx.publish(["a", "b"][number % 2], number.to_string());
    }
    let mut stream = Kind::WebSocket.listen(nginx.port(), "a,b");
    for number in 4..8 {
        stream.expect_message(&number.to_string());
    }
}
