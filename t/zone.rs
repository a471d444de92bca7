//! Tests for the shared memory zone: its size, and what happens when it is full.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::push::{assert_same_bytes, pattern, publisher};
use support::{on_1_and_4_workers, Config, Cursor, Nginx, Request};

on_1_and_4_workers!(
    publishing_goes_on_in_a_full_zone,
    the_newest_messages_survive_in_a_full_zone,
    a_message_larger_than_the_zone_is_507_and_changes_nothing,
    a_refused_message_reaches_nobody,
    fat_channels_give_way_before_thin_ones,
    of_equal_channels_the_oldest_give_way,
    many_channels_fill_the_zone_without_harm,
    bodies_in_files_take_no_room_in_the_zone,
    messages_of_all_sizes_come_and_go,
);

const SMALL: &str = "push_max_reserved_memory 1m;";

fn start(workers: usize) -> Nginx {
    Nginx::start(
        Config::push(workers)
            .http(SMALL)
            .http("client_max_body_size 16m; client_body_buffer_size 8m;")
            .http("push_max_message_buffer_length 100000;"),
    )
}

#[test]
fn a_tiny_zone_is_raised_with_a_warning() {
    for directive in ["push_max_reserved_memory", "push_shared_memory_size"] {
        let config = Config::push(1).http(&format!("{directive} 1k;"));
        let check = Nginx::check(&config);
        assert!(check.success, "{}", check.text);
        let warning = check.text.lines().find(|line| line.contains("[warn]"));
        let warning = warning.unwrap_or_else(|| panic!("no warning in {}", check.text));
        assert!(warning.contains(directive), "{warning}");
        let nginx = Nginx::start(config);
        nginx.publish("a", "one");
        assert_eq!(nginx.queue("a"), ["one"]);
    }
}

fn publishing_goes_on_in_a_full_zone(workers: usize) {
    let nginx = start(workers);
    let mut client = nginx.client();
    // Eight times the zone.
    for number in 0..2000 {
        let target = publisher(&format!("channel-{}", number % 50));
        client.request(&Request::post(&target, pattern(4096))).expect_status(202);
    }
    let mut waiting = nginx.park("new");
    nginx.publish("new", "one").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "one");
}

fn the_newest_messages_survive_in_a_full_zone(workers: usize) {
    let nginx = start(workers);
    let mut client = nginx.client();
    for number in 0..2000 {
        let body = format!("{number:04}{}", "x".repeat(2000));
        client.request(&Request::post(&publisher("a"), body)).expect_status(202);
    }
    let queue = nginx.queue("a");
    assert!(queue.len() > 20, "the zone holds more than {} messages", queue.len());
    let first = 2000 - queue.len();
    for (body, number) in queue.iter().zip(first..) {
        assert!(body.starts_with(&format!("{number:04}x")), "message {number}");
    }
}

fn a_message_larger_than_the_zone_is_507_and_changes_nothing(workers: usize) {
    let nginx = start(workers);
    for number in 0..5 {
        nginx.publish("a", format!("message {number}"));
        nginx.publish("b", format!("message {number}"));
    }
    let before = (nginx.queue("a"), nginx.queue("b"));
    for id in ["a", "new"] {
        let request = Request::post(&publisher(id), pattern(4 << 20));
        let response = nginx.request(&request).expect_status(507);
        assert_eq!(response.header("Content-Type"), Some("text/plain"));
        assert!(response.text().contains(' '), "a sentence: {:?}", response.text());
        assert_eq!(response.header("Last-Modified"), None);
    }
    assert_eq!((nginx.queue("a"), nginx.queue("b")), before);
    nginx.get(&publisher("new")).expect_status(404);
    nginx.publish("a", "goes on");
    assert_eq!(nginx.messages("a"), 6);
}

fn a_refused_message_reaches_nobody(workers: usize) {
    let nginx = start(workers);
    let mut waiting = nginx.park("a");
    nginx.request(&Request::post(&publisher("a"), pattern(4 << 20))).expect_status(507);
    waiting.expect_silence();
    nginx.publish("a", "one").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "one");
}

fn fat_channels_give_way_before_thin_ones(workers: usize) {
    let nginx = start(workers);
    for number in 0..50 {
        nginx.publish(&format!("thin-{number}"), format!("message {number}"));
    }
    let mut client = nginx.client();
    for _ in 0..1000 {
        client.request(&Request::post(&publisher("fat"), pattern(4096))).expect_status(202);
    }
    for number in 0..50 {
        assert_eq!(nginx.queue(&format!("thin-{number}")), [format!("message {number}")]);
    }
    let left = nginx.messages("fat");
    assert!((10..1000).contains(&left), "{left} messages are left of the fat channel");
}

fn of_equal_channels_the_oldest_give_way(workers: usize) {
    let nginx = start(workers);
    let mut client = nginx.client();
    let name = |number: usize| format!("channel-{number}");
    for number in 0..600 {
        client.request(&Request::post(&publisher(&name(number)), pattern(4096))).expect_status(202);
    }
    let left: Vec<usize> = (0..600).filter(|number| nginx.messages(&name(*number)) > 0).collect();
    assert!((100..500).contains(&left.len()), "{} of 600 messages are left", left.len());
    assert_eq!(left, (600 - left.len()..600).collect::<Vec<_>>());
}

fn many_channels_fill_the_zone_without_harm(workers: usize) {
    let nginx = start(workers);
    let mut client = nginx.client();
    for number in 0..10_000 {
        let target = publisher(&format!("channel-{number}"));
        client.request(&Request::post(&target, format!("message {number}"))).expect_status(202);
    }
    assert_eq!(nginx.queue("channel-9999"), ["message 9999"]);
}

fn bodies_in_files_take_no_room_in_the_zone(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .http(SMALL)
            .http("client_max_body_size 16m; client_body_buffer_size 8k;"),
    );
    nginx.publish("thin", "one");
    for _ in 0..4 {
        nginx.publish("fat", pattern(8 << 20));
    }
    assert_eq!(nginx.queue("thin"), ["one"]);
    for response in nginx.poll_all("fat") {
        assert_same_bytes(&response.body, &pattern(8 << 20));
    }
}

fn messages_of_all_sizes_come_and_go(workers: usize) {
    let nginx = start(workers);
    let mut client = nginx.client();
    let sizes = [0, 1, 100, 5_000, 50_000, 300_000, 10, 200_000, 3, 20_000];
    for round in 0..100 {
        let size = sizes[round % sizes.len()];
        let id = format!("channel-{}", round % 7);
        client.request(&Request::post(&publisher(&id), pattern(size))).expect_status(202);
        let last = nginx.poll_all(&id).pop().expect("a message");
        assert_same_bytes(&last.body, &pattern(size));
        if round % 13 == 0 {
            client.request(&Request::new("DELETE", &publisher(&id))).expect_status(200);
            nginx.get(&publisher(&id)).expect_status(404);
        }
    }
    nginx.publish("last", "one");
    assert_eq!(nginx.poll("last", &Cursor::none()).text(), "one");
}
