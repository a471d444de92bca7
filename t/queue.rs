//! Tests for the message queue: its length, storage off, timeouts, and idle channels.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::path::Path;
use std::time::Instant;

use support::push::{assert_same_bytes, pattern, publisher, subscriber};
use support::streams::Kind;
use support::{on_1_and_4_workers, wait, Config, Cursor, Nginx, Request};

on_1_and_4_workers!(
    the_oldest_message_goes_when_the_queue_is_full,
    ten_messages_are_kept_by_default,
    one_directive_sets_both_lengths,
    a_length_of_0_stores_nothing,
    each_publisher_location_has_its_own_length,
    store_off_delivers_to_those_who_wait,
    store_off_counts_no_messages,
    store_off_gives_nothing_to_clients_without_a_cursor,
    store_off_keeps_messages_for_clients_between_two_polls,
    store_on_does_not_undo_an_inherited_off,
    received_messages_go_where_the_publisher_wants_that,
    received_messages_stay_down_to_the_minimum,
    received_messages_stay_by_default,
    received_messages_go_when_a_crowd_has_them,
    a_received_message_stays_for_those_who_waited,
    a_message_goes_after_its_timeout,
    a_timeout_of_0_keeps_messages,
    each_message_has_the_timeout_of_its_publisher,
    memory_comes_back_after_the_timeout_without_traffic,
    files_go_with_their_messages,
    files_stay_when_another_nginx_has_the_same_directory,
    a_message_whose_file_has_gone_is_missed,
    an_idle_channel_goes_after_its_timeout,
    a_channel_with_messages_stays,
    a_channel_with_subscribers_stays,
);

fn start(workers: usize, publisher: &str) -> Nginx {
    Nginx::start(Config::push(workers).publisher(publisher))
}

fn publish_numbers(nginx: &Nginx, id: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        nginx.publish(id, number.to_string());
    }
}

fn the_oldest_message_goes_when_the_queue_is_full(workers: usize) {
    let nginx = start(workers, "push_max_message_buffer_length 3;");
    publish_numbers(&nginx, "a", 0..3);
    assert_eq!(nginx.queue("a"), ["0", "1", "2"]);
    publish_numbers(&nginx, "a", 3..5);
    assert_eq!(nginx.queue("a"), ["2", "3", "4"]);
    assert_eq!(nginx.messages("a"), 3);
}

fn ten_messages_are_kept_by_default(workers: usize) {
    let nginx = start(workers, "");
    publish_numbers(&nginx, "a", 0..25);
    let expected: Vec<String> = (15..25).map(|number| number.to_string()).collect();
    assert_eq!(nginx.queue("a"), expected);
}

fn one_directive_sets_both_lengths(workers: usize) {
    let text = "push_message_buffer_length 2; push_delete_oldest_received_message on;";
    let nginx = start(workers, text);
    publish_numbers(&nginx, "a", 0..5);
    assert_eq!(nginx.queue("a"), ["3", "4"]);
    // The minimum is 2 as well, so reading has taken none away.
    assert_eq!(nginx.queue("a"), ["3", "4"]);
}

fn a_length_of_0_stores_nothing(workers: usize) {
    let nginx = start(workers, "push_message_buffer_length 0;");
    let mut waiting = nginx.park("a");
    nginx.publish("a", "one").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "one");
    assert_eq!(nginx.messages("a"), 0);
}

fn each_publisher_location_has_its_own_length(workers: usize) {
    let nginx =
        Nginx::start(Config::push(workers).publisher("push_max_message_buffer_length 5;").server(
            "location /short {
                     push_publisher; set $push_channel_id $arg_id;
                     push_max_message_buffer_length 2;
                 }",
        ));
    publish_numbers(&nginx, "a", 0..5);
    nginx.publish_at("/short?id=a", "5");
    assert_eq!(nginx.queue("a"), ["4", "5"]);
    publish_numbers(&nginx, "a", 6..8);
    assert_eq!(nginx.queue("a"), ["4", "5", "6", "7"]);
}

fn store_off_delivers_to_those_who_wait(workers: usize) {
    let nginx = start(workers, "push_store_messages off;");
    for round in 0..3 {
        let mut waiting: Vec<_> = (0..6).map(|_| nginx.park("a")).collect();
        nginx.publish("a", format!("message {round}")).expect_status(201);
        for client in &mut waiting {
            assert_eq!(client.response().expect_status(200).text(), format!("message {round}"));
        }
        nginx.wait_for_subscribers("a", 0);
    }
}

fn store_off_counts_no_messages(workers: usize) {
    let nginx = start(workers, "push_store_messages off;");
    let response = nginx.publish("a", "one").expect_status(202);
    assert!(response.text().starts_with("queued messages: 0\r\n"), "{}", response.text());
    assert_eq!(nginx.messages("a"), 0);
}

fn store_off_gives_nothing_to_clients_without_a_cursor(workers: usize) {
    let nginx = start(workers, "push_store_messages off;");
    nginx.publish("a", "one").expect_status(202);
    let mut client = nginx.park("a");
    nginx.publish("a", "two").expect_status(201);
    assert_eq!(client.response().expect_status(200).text(), "two");
}

fn store_off_keeps_messages_for_clients_between_two_polls(workers: usize) {
    let nginx = start(workers, "push_store_messages off;");
    let mut client = nginx.park("a");
    nginx.publish("a", "one").expect_status(201);
    let mut cursor = Cursor::after(&client.response().expect_status(200));
    nginx.publish("a", "two");
    nginx.publish("a", "three");
    for body in ["two", "three"] {
        let response = nginx.poll("a", &cursor).expect_status(200);
        assert_eq!(response.text(), body);
        assert_eq!(response.header("Push-Missed"), None);
        cursor = Cursor::after(&response);
    }
}

fn store_on_does_not_undo_an_inherited_off(workers: usize) {
    // In NHPM `on` leaves the lengths as they are, and an inherited `off` has set them to 0.
    let nginx = Nginx::start(
        Config::push(workers).http("push_store_messages off;").publisher("push_store_messages on;"),
    );
    nginx.publish("a", "one");
    assert_eq!(nginx.messages("a"), 0);
}

fn received_messages_go_where_the_publisher_wants_that(workers: usize) {
    let nginx = start(workers, "push_delete_oldest_received_message on;");
    publish_numbers(&nginx, "a", 0..3);
    assert_eq!(nginx.poll("a", &Cursor::none()).expect_status(200).text(), "0");
    nginx.wait_for_messages("a", 2);
    let response = nginx.poll("a", &Cursor::none()).expect_status(200);
    assert_eq!(response.text(), "1");
    assert_eq!(response.header("Push-Missed"), None);
    nginx.wait_for_messages("a", 1);
    // The last one stays: the minimum is 1.
    for _ in 0..2 {
        assert_eq!(nginx.poll("a", &Cursor::none()).expect_status(200).text(), "2");
    }
    assert_eq!(nginx.messages("a"), 1);
}

fn received_messages_stay_down_to_the_minimum(workers: usize) {
    let text = "push_delete_oldest_received_message on; push_min_message_buffer_length 3;";
    let nginx = start(workers, text);
    publish_numbers(&nginx, "a", 0..5);
    for expected in ["0", "1", "2", "2"] {
        assert_eq!(nginx.poll("a", &Cursor::none()).expect_status(200).text(), expected);
        let left = 5 - (expected.parse::<u64>().expect("a number") + 1).min(2);
        nginx.wait_for_messages("a", left);
    }
}

fn received_messages_stay_by_default(workers: usize) {
    let nginx = start(workers, "");
    publish_numbers(&nginx, "a", 0..3);
    for _ in 0..3 {
        assert_eq!(nginx.queue("a"), ["0", "1", "2"]);
    }
}

/// More than a worker serves in one go, on each worker.
fn received_messages_go_when_a_crowd_has_them(workers: usize) {
    const CROWD: usize = 1500;
    let text = "push_delete_oldest_received_message on; push_min_message_buffer_length 0;";
    let nginx = start(workers, text);
    let mut crowd: Vec<_> = (0..CROWD).map(|_| nginx.client()).collect();
    let mut cursors = vec![Cursor::none(); CROWD];
    for body in ["one", "two", "three"] {
        for (client, cursor) in crowd.iter_mut().zip(&cursors) {
            client.send(&cursor.apply(Request::get(&subscriber("a"))));
        }
        nginx.wait_for_subscribers("a", CROWD as u64);
        nginx.publish("a", body).expect_status(201);
        for (client, cursor) in crowd.iter_mut().zip(&mut cursors) {
            let response = client.response().expect_status(200);
            assert_eq!((response.text(), response.header("Push-Missed")), (body, None));
            *cursor = Cursor::after(&response);
        }
        nginx.wait_for_messages("a", 0);
    }
}

fn a_received_message_stays_for_those_who_waited(workers: usize) {
    let text = "push_delete_oldest_received_message on; push_min_message_buffer_length 0;";
    let nginx = start(workers, text);
    // Somebody waits on each worker: the message stays until the one that publishes has been told of it, too.
    let clients = nginx.client_of_each_worker(workers);
    let mut waiting: Vec<_> = clients.into_iter().map(|(_, client)| client).collect();
    for client in &mut waiting {
        client.send(&Request::get(&subscriber("a")));
    }
    let mut streams: Vec<_> = (0..5).map(|_| Kind::EventSource.listen(nginx.port(), "a")).collect();
    nginx.wait_for_subscribers("a", workers as u64 + 5);
    // The poll is served before its worker is told of the message.
    let mut client = nginx.client();
    let post = Request::post(&publisher("a"), "one").to_bytes();
    client.send_bytes(&[post, Request::get(&subscriber("a")).to_bytes()].concat());
    client.response().expect_status(201);
    assert_eq!(client.response().expect_status(200).text(), "one");
    for client in &mut waiting {
        let response = client.response().expect_status(200);
        assert_eq!((response.text(), response.header("Push-Missed")), ("one", None));
    }
    for stream in &mut streams {
        stream.expect_message("one");
    }
    nginx.wait_for_messages("a", 0);
}

fn a_message_goes_after_its_timeout(workers: usize) {
    let nginx = start(workers, "push_message_timeout 2s;");
    let published = nginx.publish("a", "one");
    assert!(published.text().starts_with("queued messages: 1\r\n"), "{}", published.text());
    nginx.wait_for_messages("a", 0);
    let mut client = nginx.park("a");
    nginx.publish("a", "two").expect_status(201);
    assert_eq!(client.response().expect_status(200).text(), "two");
}

fn a_timeout_of_0_keeps_messages(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).publisher("push_message_timeout 0;").server(
        "location /short {
                 push_publisher; set $push_channel_id $arg_id; push_message_timeout 1s;
             }",
    ));
    nginx.publish("a", "one");
    nginx.publish_at("/short?id=b", "two");
    nginx.wait_for_messages("b", 0);
    assert_eq!(nginx.queue("a"), ["one"]);
}

fn each_message_has_the_timeout_of_its_publisher(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).server(
        "location /short {
             push_publisher; set $push_channel_id $arg_id; push_message_timeout 1s;
         }",
    ));
    nginx.publish_at("/short?id=a", "short");
    nginx.publish("a", "long");
    nginx.publish_at("/short?id=a", "short, behind a long one");
    // NHPM expires from the old end; a message behind one that stays must not be delivered either.
    nginx.wait_for_messages("a", 1);
    assert_eq!(nginx.queue("a"), ["long"]);
}

fn memory_comes_back_after_the_timeout_without_traffic(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .http("client_max_body_size 8m;")
            .publisher("push_message_timeout 1s;"),
    );
    for id in ["a", "b", "c"] {
        nginx.publish(id, pattern(2 << 20));
    }
    // No request from here on: only the files of the messages show that they are gone.
    wait::until_true("the end of the messages' files", || large_files(nginx.dir()) == 0);
    for id in ["a", "b", "c"] {
        assert_eq!(nginx.messages(id), 0);
    }
}

/// How many files of more than a megabyte there are below the directory.
fn large_files(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            Some(match metadata.is_dir() {
                true => large_files(&entry.path()),
                false => usize::from(metadata.len() > 1 << 20),
            })
        })
        .sum()
}

fn files_stay_when_another_nginx_has_the_same_directory(workers: usize) {
    let shared = tempfile::tempdir().unwrap();
    let start = || {
        let text = format!("client_body_temp_path {};", shared.path().display());
        Nginx::start(Config::push(workers).http("client_max_body_size 8m;").publisher(&text))
    };
    let (nginx, other) = (start(), start());
    let body = pattern(2 << 20);
    nginx.publish("a", body.clone());
    // Nobody who has put the file there is left.
    nginx.wait_gone(&nginx.reload());
    other.publish("a", "x".repeat(2 << 20));
    for nginx in [&nginx, &other] {
        assert_eq!(nginx.messages("a"), 1);
        assert_eq!(nginx.poll("a", &Cursor::none()).expect_status(200).body.len(), body.len());
    }
    assert_same_bytes(&nginx.poll("a", &Cursor::none()).body, &body);
}

fn a_message_whose_file_has_gone_is_missed(workers: usize) {
    let config = Config::push(workers).http("client_max_body_size 8m;");
    let config = config.http("push_channel_id_split_delimiter ',';");
    let nginx = Nginx::start(config.server(
        "location /all { push_subscriber; push_channel_id $arg_id; push_poll_messages joined; }",
    ));
    for (id, list, target) in [("a", "a", "/sub"), ("b", "b,c", "/sub"), ("d", "d", "/all")] {
        nginx.publish(id, "one");
        nginx.publish(id, pattern(2 << 20));
        nginx.publish(id, "three");
        remove_large_files(nginx.dir());
        let target = format!("{target}?id={list}");
        let mut cursor = Cursor::none();
        let mut client = nginx.client();
        let (mut text, mut missed) = (String::new(), Vec::new());
        while !text.contains("three") {
            let request = cursor.apply(Request::get(&target));
            let response = client.request(&request).expect_status(200);
            text.push_str(response.text());
            missed.extend(response.header("Push-Missed").map(str::to_owned));
            cursor = Cursor::after(&response);
        }
        assert!(text.starts_with("one"), "{text}");
        assert_eq!(missed, ["1"], "{target}");
        assert_eq!(nginx.messages(id), 2);
        nginx.publish(id, pattern(2 << 20));
        remove_large_files(nginx.dir());
        // Nothing else is there: it waits.
        client.send(&cursor.apply(Request::get(&target)));
        nginx.wait_for_subscribers(id, 1);
        nginx.publish(id, "five").expect_status(201);
        let response = client.response().expect_status(200);
        assert!(response.text().contains("five"), "{}", response.text());
    }
}

fn remove_large_files(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match fs::metadata(&path).unwrap() {
            file if file.is_dir() => remove_large_files(&path),
            file if file.len() > 1 << 20 => fs::remove_file(&path).unwrap(),
            _ => {}
        }
    }
}

fn files_go_with_their_messages(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .http("client_max_body_size 8m;")
            .publisher("push_max_message_buffer_length 2;"),
    );
    let large = pattern(2 << 20);
    nginx.publish("a", large.clone());
    nginx.publish("b", large.clone());
    assert_eq!(large_files(nginx.dir()), 2);
    // Out of the queue.
    publish_numbers(&nginx, "a", 0..2);
    wait::until_true("one file less", || large_files(nginx.dir()) == 1);
    // With the channel.
    nginx.request(&Request::new("DELETE", &publisher("b"))).expect_status(200);
    wait::until_true("no files", || large_files(nginx.dir()) == 0);
    // A file that is being sent goes on being sent.
    nginx.publish("c", large.clone());
    let mut reader = nginx.client();
    reader.send(&Request::get(&subscriber("c")));
    reader.try_peek().expect("the beginning of the reply");
    nginx.request(&Request::new("DELETE", &publisher("c"))).expect_status(200);
    wait::until_true("no files", || large_files(nginx.dir()) == 0);
    assert_same_bytes(&reader.response().expect_status(200).body, &large);
}

fn an_idle_channel_goes_after_its_timeout(workers: usize) {
    let config = Config::push(workers)
        .http("push_channel_timeout 1s;")
        .publisher("push_message_timeout 1s;");
    let nginx = Nginx::start(config);
    nginx.publish("published", "one");
    let waiting = nginx.park("subscribed");
    drop(waiting);
    for id in ["published", "subscribed"] {
        wait_for_the_end_of(&nginx, id);
    }
}

fn a_channel_with_messages_stays(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).http("push_channel_timeout 1s;"));
    nginx.publish("a", "one");
    let idle = nginx.park("idle");
    drop(idle);
    wait_for_the_end_of(&nginx, "idle");
    assert_eq!(nginx.queue("a"), ["one"]);
}

fn a_channel_with_subscribers_stays(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).http("push_channel_timeout 1s;"));
    let mut waiting = nginx.park("a");
    let idle = nginx.park("idle");
    drop(idle);
    wait_for_the_end_of(&nginx, "idle");
    waiting.expect_silence();
    nginx.publish("a", "one").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "one");
}

/// Looks at the channel every 2.5 seconds, for looking may keep it.
fn wait_for_the_end_of(nginx: &Nginx, id: &str) {
    let mut last = Instant::now();
    wait::until_true("the end of the idle channel", || {
        if last.elapsed().as_millis() < 2500 {
            return false;
        }
        last = Instant::now();
        nginx.info(id).is_none()
    });
}
