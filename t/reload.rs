//! Tests for reload, and for nginx's other commands: held requests, messages, workers, no alarms.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::thread;
use std::time::Duration;

use support::push::{pattern, publisher, subscriber};
use support::{load, on_1_and_4_workers, process, wait, Client, Config, Cursor, Nginx, Signal};

on_1_and_4_workers!(
    a_reload_releases_held_requests_with_their_position,
    a_reload_releases_clients_without_a_position,
    messages_and_cursors_survive_a_reload,
    messages_in_files_survive_a_reload,
    old_workers_end_after_a_reload,
    nothing_is_lost_in_reloads_under_load,
    several_reloads_at_once_leave_nothing_behind,
    messages_survive_another_zone_size,
    files_of_messages_that_expire_meanwhile_go_too,
    a_held_request_ends_when_the_zone_changes,
    a_reload_that_fails_changes_nothing,
    a_reload_that_removes_the_module_releases_everybody,
    a_reload_that_adds_the_locations_works,
    quit_releases_held_requests,
    stop_ends_at_once,
    reopen_writes_new_logs,
    the_configuration_can_be_tested_while_it_runs,
);

fn a_reload_releases_held_requests_with_their_position(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    let cursor = Cursor::after(&nginx.poll("a", &Cursor::none()));
    let mut held: Vec<Client> = (0..10).map(|_| nginx.park_after("a", &cursor)).collect();
    let old = nginx.reload();
    for client in &mut held {
        let response = client.response().expect_status(304);
        assert_eq!(Cursor::after(&response), cursor);
        assert_eq!(response.header("Connection"), Some("close"));
        client.expect_closed();
    }
    nginx.wait_for_subscribers("a", 0);
    // An old worker that has held nobody may be the last to hear of the reload, and would send the next one away too.
    nginx.wait_gone(&old);
    let mut again = nginx.park_after("a", &cursor);
    nginx.publish("a", "two").expect_status(201);
    assert_eq!(again.response().expect_status(200).text(), "two");
}

fn a_reload_releases_clients_without_a_position(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut held: Vec<Client> = (0..10).map(|_| nginx.park("a")).collect();
    nginx.reload();
    for client in &mut held {
        let response = client.response().expect_status(304);
        assert_eq!(response.header("Last-Modified"), None);
        assert_eq!(response.header("Etag"), None);
        assert_eq!(response.header("Connection"), Some("close"));
        client.expect_closed();
    }
}

fn messages_and_cursors_survive_a_reload(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    for body in ["one", "two", "three"] {
        nginx.publish("a", body);
    }
    let before = nginx.poll_all("a");
    let old = nginx.reload();
    nginx.wait_gone(&old);
    let after = nginx.poll_all("a");
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(after.bytes_without_date(), before.bytes_without_date());
    }
    let response = nginx.poll("a", &Cursor::after(&before[0])).expect_status(200);
    assert_eq!(response.text(), "two");
    assert_eq!(response.header("Push-Missed"), None);
    nginx.publish("a", "four");
    let response = nginx.poll("a", &Cursor::after(&before[2])).expect_status(200);
    assert_eq!(response.text(), "four");
}

fn messages_in_files_survive_a_reload(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).http("client_max_body_size 8m;"));
    nginx.publish("a", pattern(4 << 20));
    let old = nginx.reload();
    nginx.wait_gone(&old);
    let response = nginx.poll("a", &Cursor::none()).expect_status(200);
    assert!(response.body == pattern(4 << 20));
}

fn old_workers_end_after_a_reload(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    for _ in 0..3 {
        let _held: Vec<Client> = (0..20).map(|_| nginx.park("a")).collect();
        let old = nginx.reload();
        nginx.wait_gone(&old);
        assert_eq!(nginx.workers().len(), workers);
        nginx.wait_for_subscribers("a", 0);
    }
}

fn nothing_is_lost_in_reloads_under_load(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).http("push_message_buffer_length 20000;"));
    let port = nginx.port();
    let (acknowledged, received) = thread::scope(|scope| {
        let followers: Vec<_> = (0..4).map(|_| scope.spawn(|| load::follow(port, "a"))).collect();
        let publishers: Vec<_> = (0..3)
            .map(|number| scope.spawn(move || load::publish(port, "a", &format!("p{number}"), 500)))
            .collect();
        for _ in 0..5 {
            let old = nginx.reload();
            nginx.wait_gone(&old);
        }
        let acknowledged: Vec<Vec<String>> =
            publishers.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        load::publish_end(port, "a");
        let received: Vec<Vec<String>> =
            followers.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        (acknowledged, received)
    });
    load::assert_complete(&acknowledged, &received);
}

fn several_reloads_at_once_leave_nothing_behind(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut held: Vec<Client> = (0..10).map(|_| nginx.park("a")).collect();
    let old = nginx.workers();
    for _ in 0..5 {
        nginx.signal(Signal::HUP);
    }
    for client in &mut held {
        client.response().expect_status(304);
    }
    nginx.wait_gone(&old);
    // Between two of them nothing changes for 100 ms: the master waits so long before it sends the old ones away.
    wait::until_true("one generation of workers", || {
        let now = nginx.workers();
        thread::sleep(Duration::from_millis(200));
        now.len() == workers && nginx.workers() == now
    });
    let mut waiting = nginx.park("a");
    nginx.publish("a", "one").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "one");
}

fn messages_survive_another_zone_size(workers: usize) {
    let config = |size: &str| {
        Config::push(workers)
            .http(&format!("push_max_reserved_memory {size};"))
            .http("client_max_body_size 8m;")
    };
    let mut nginx = Nginx::start(config("2m"));
    for body in ["one", "two", "three"] {
        nginx.publish("a", body);
    }
    nginx.publish("large", pattern(4 << 20));
    let before = nginx.poll_all("a");
    for size in ["4m", "1m", "8m"] {
        nginx.reconfigure(config(size));
        let old = nginx.reload();
        nginx.wait_gone(&old);
        let after = nginx.poll_all("a");
        assert_eq!(after.len(), before.len(), "with {size}");
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(after.bytes_without_date(), before.bytes_without_date());
        }
        let large = nginx.poll("large", &Cursor::none()).expect_status(200);
        assert!(large.body == pattern(4 << 20), "with {size}");
    }
    nginx.publish("a", "four");
    let response = nginx.poll("a", &Cursor::after(&before[2])).expect_status(200);
    assert_eq!(response.text(), "four");
}

fn files_of_messages_that_expire_meanwhile_go_too(workers: usize) {
    let config = |size: &str| {
        Config::push(workers)
            .http(&format!("push_shared_memory_size {size}; client_max_body_size 8m;"))
            .publisher("push_message_timeout 3s;")
    };
    let mut nginx = Nginx::start(config("8m"));
    nginx.publish("a", pattern(4 << 20)).expect_status(202);
    assert_eq!(nginx.spooled().len(), 1);
    // Nobody notices that its time is over, before it is moved.
    let old = nginx.workers();
    old.iter().for_each(|worker| process::stop(*worker));
    thread::sleep(Duration::from_millis(3500));
    assert_eq!(nginx.spooled().len(), 1);
    nginx.reconfigure(config("9m"));
    nginx.signal(Signal::HUP);
    wait::until_true("the end of the file", || nginx.spooled().is_empty());
    old.iter().for_each(|worker| process::signal(*worker, Signal::CONT));
    nginx.wait_gone(&old);
    nginx.get(&publisher("a"));
}

fn a_held_request_ends_when_the_zone_changes(workers: usize) {
    let config =
        |size: &str| Config::push(workers).http(&format!("push_shared_memory_size {size};"));
    let mut nginx = Nginx::start(config("2m"));
    let mut held = nginx.park("a");
    nginx.reconfigure(config("4m"));
    let old = nginx.reload();
    held.response().expect_status(304);
    nginx.wait_gone(&old);
    assert_eq!(nginx.subscribers("a"), 0);
    let mut waiting = nginx.park("a");
    nginx.publish("a", "one").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "one");
}

fn a_reload_that_fails_changes_nothing(workers: usize) {
    let config = Config::push(workers);
    let mut nginx = Nginx::start(config.clone());
    nginx.tolerate("push_subscriber_concurrency");
    nginx.publish("a", "one");
    let mut held = nginx.park("b");
    let old = nginx.workers();
    nginx.reconfigure(config.clone().subscriber("push_subscriber_concurrency wrong;"));
    nginx.signal(Signal::HUP);
    wait::until_true("the refusal", || nginx.error_log().contains("[emerg]"));
    held.expect_silence();
    assert_eq!(nginx.workers(), old);
    nginx.publish("b", "two").expect_status(201);
    assert_eq!(held.response().expect_status(200).text(), "two");
    assert_eq!(nginx.queue("a"), ["one"]);
    nginx.reconfigure(config);
    let old = nginx.reload();
    // Those that leave send polls away.
    nginx.wait_gone(&old);
    assert_eq!(nginx.queue("a"), ["one"]);
}

fn a_reload_that_removes_the_module_releases_everybody(workers: usize) {
    let mut nginx = Nginx::start(Config::push(workers));
    let mut held = nginx.park("a");
    nginx.reconfigure(Config::bare().workers(workers));
    let old = nginx.reload();
    held.response().expect_status(304);
    nginx.wait_gone(&old);
    nginx.get("/worker").expect_status(200);
    nginx.get(&subscriber("a")).expect_status(404);
}

fn a_reload_that_adds_the_locations_works(workers: usize) {
    let mut nginx = Nginx::start(Config::bare().workers(workers));
    nginx.reconfigure(Config::push(workers));
    let old = nginx.reload();
    nginx.wait_gone(&old);
    let mut waiting = nginx.park("a");
    nginx.publish("a", "one").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "one");
}

fn quit_releases_held_requests(workers: usize) {
    let mut nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    let cursor = Cursor::after(&nginx.poll("a", &Cursor::none()));
    let mut held: Vec<Client> = (0..10).map(|_| nginx.park_after("a", &cursor)).collect();
    let result = nginx.run(&["-s", "quit"]);
    assert!(result.success, "{}", result.text);
    for client in &mut held {
        let response = client.response().expect_status(304);
        assert_eq!(Cursor::after(&response), cursor);
        client.expect_closed();
    }
    nginx.wait_for_exit();
}

fn stop_ends_at_once(workers: usize) {
    let mut nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    let _held: Vec<Client> = (0..10).map(|_| nginx.park("b")).collect();
    nginx.stop(Signal::TERM);
}

fn reopen_writes_new_logs(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    let mut held = nginx.park("b");
    let log = |name: &str| nginx.dir().join(name);
    for name in ["access.log", "error.log"] {
        fs::rename(log(name), log(&format!("{name}.old"))).expect("the log is there");
    }
    let result = nginx.run(&["-s", "reopen"]);
    assert!(result.success, "{}", result.text);
    wait::until_true("new files", || log("access.log").exists() && log("error.log").exists());
    held.expect_silence();
    // A worker may still write the first lines into the old file.
    wait::until_true("lines in the new file", || {
        nginx.get(&publisher("a")).expect_status(200);
        !nginx.access_log().is_empty()
    });
    nginx.publish("b", "two").expect_status(201);
    assert_eq!(held.response().expect_status(200).text(), "two");
}

fn the_configuration_can_be_tested_while_it_runs(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).http("push_max_reserved_memory 4m;"));
    nginx.publish("a", "one");
    let mut held = nginx.park("b");
    let tested = nginx.run(&["-t"]);
    assert!(tested.success, "{}", tested.text);
    assert!(tested.text.contains("test is successful"), "{}", tested.text);
    let dumped = nginx.run(&["-T"]);
    assert!(dumped.success, "{}", dumped.text);
    assert!(dumped.text.contains("push_max_reserved_memory 4m;"), "{}", dumped.text);
    held.expect_silence();
    assert_eq!(nginx.queue("a"), ["one"]);
    nginx.publish("b", "two").expect_status(201);
    assert_eq!(held.response().expect_status(200).text(), "two");
}
