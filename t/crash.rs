//! Tests for killed workers: what they cost, and that nothing else is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use support::process::Signal;
use support::push::{assert_same_bytes, pattern, publisher, subscriber};
use support::streams::{Kind, News};
use support::{load, wait, Client, Config, Cursor, Nginx, Request};

/// The worker's pid and a connection to it.
type WorkerClient = (String, Client);

fn park_on_each_worker(nginx: &Nginx, workers: usize, cursor: &Cursor) -> Vec<WorkerClient> {
    let mut clients = nginx.client_of_each_worker(workers);
    for (_, client) in &mut clients {
        nginx.park_request(client, "a", &cursor.apply(Request::get(&subscriber("a"))));
    }
    clients
}

fn pid(text: &str) -> i32 {
    text.parse().expect("a pid")
}

#[test]
fn a_killed_worker_costs_its_own_connections_only() {
    const WORKERS: usize = 4;
    const ROUNDS: usize = 10;
    let mut nginx = Nginx::start(Config::push(WORKERS));
    let mut cursor = Cursor::none();
    for round in 0..ROUNDS {
        let mut clients = park_on_each_worker(&nginx, WORKERS, &cursor);
        let (victim, mut lost) = clients.swap_remove(round % WORKERS);
        nginx.kill_worker(pid(&victim));
        assert!(lost.try_response().is_err(), "its connection is gone");
        nginx.wait_for_subscribers("a", WORKERS as u64 - 1);
        for (_, client) in &mut clients {
            client.expect_silence();
        }
        // The successor serves, too.
        let again = park_on_successor(&nginx, &clients, &cursor);
        clients.push(again);
        let body = format!("message {round}");
        nginx.publish("a", body.as_str()).expect_status(201);
        for (_, client) in &mut clients {
            let response = client.response().expect_status(200);
            assert_eq!(response.text(), body);
            assert_eq!(response.header("Push-Missed"), None);
            cursor = Cursor::after(&response);
        }
        nginx.wait_for_subscribers("a", 0);
    }
    assert_eq!(nginx.messages("a"), ROUNDS as u64);
}

/// Parks a subscriber on a worker that none of these clients is connected to.
fn park_on_successor(nginx: &Nginx, known: &[WorkerClient], cursor: &Cursor) -> WorkerClient {
    let everybody = nginx.client_of_each_worker(known.len() + 1);
    let is_new = |pid: &String| known.iter().all(|(other, _)| other != pid);
    let mut successor = everybody.into_iter().find(|(pid, _)| is_new(pid)).expect("a successor");
    let request = cursor.apply(Request::get(&subscriber("a")));
    nginx.park_request(&mut successor.1, "a", &request);
    successor
}

/// Nothing is stored any more, and nobody knows what the clients have not had.
#[test]
fn who_comes_back_after_the_end_of_all_processes_is_told() {
    let kinds = [Kind::EventSource, Kind::JsonLines, Kind::WebSocket];
    let mut nginx = Nginx::start(Config::push(2));
    nginx.publish("a", "one");
    let cursor = Cursor::after(&nginx.poll("a", &Cursor::none()));
    nginx.publish("a", "two, which nobody has had");
    wait::until_second_after(cursor.id().0);
    nginx.restart(Signal::TERM);
    let mut waiting = nginx.park_after("a", &cursor);
    nginx.publish("a", "three");
    for response in [waiting.response(), nginx.poll("a", &cursor)] {
        let response = response.expect_status(200);
        assert_eq!(
            (response.text(), response.header("Push-Missed")),
            ("three", Some("0;at-least"))
        );
    }
    let (second, tag) = cursor.id();
    for kind in kinds {
        let mut stream = kind.listen_after(nginx.port(), "a", &format!("{second}:{tag}"));
        match kind {
            Kind::WebSocket => {
                assert_eq!(stream.response().header("Push-Missed"), Some("0;at-least"));
            }
            _ => assert_eq!(stream.next(), News::Gap { missed: 0, at_least: true }, "{kind:?}"),
        }
        stream.expect_message("three");
    }
    // Who comes for the first time has missed nothing, and who has been told goes on.
    let three = nginx.poll("a", &Cursor::none());
    assert_eq!(three.header("Push-Missed"), None);
    nginx.publish("a", "four");
    let four = nginx.poll("a", &Cursor::after(&three));
    assert_eq!((four.text(), four.header("Push-Missed")), ("four", None));
}

#[test]
fn messages_survive_the_death_of_all_workers() {
    for workers in [1, 4] {
        let mut nginx = Nginx::start(Config::push(workers));
        for body in ["one", "two", "three"] {
            nginx.publish("a", body);
        }
        let before = nginx.poll_all("a");
        let held: Vec<Client> = (0..8).map(|_| nginx.park("b")).collect();
        for worker in nginx.workers() {
            nginx.kill_worker(worker);
        }
        drop(held);
        let after = nginx.poll_all("a");
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(after.bytes_without_date(), before.bytes_without_date());
        }
        nginx.wait_for_subscribers("b", 0);
        nginx.publish("b", "four").expect_status(202);
    }
}

#[test]
fn places_of_a_killed_worker_become_free() {
    let config = Config::push(2).subscriber("push_max_channel_subscribers 1;");
    let mut nginx = Nginx::start(config);
    for _ in 0..5 {
        let mut clients = nginx.client_of_each_worker(2);
        let (victim, holder) = &mut clients[0];
        nginx.park_request(holder, "a", &Request::get(&subscriber("a")));
        nginx.poll("a", &Cursor::none()).expect_status(403);
        nginx.kill_worker(pid(victim));
        nginx.wait_for_subscribers("a", 0);
        let next = nginx.park("a");
        drop(next);
        nginx.wait_for_subscribers("a", 0);
    }
}

#[test]
fn nothing_is_lost_in_kills_under_load() {
    const WORKERS: usize = 4;
    const KILLS: usize = 12;
    let config = Config::push(WORKERS).http("push_message_buffer_length 20000;");
    let mut nginx = Nginx::start(config);
    let port = nginx.port();
    let done = AtomicBool::new(false);
    let (acknowledged, received) = thread::scope(|scope| {
        let stop = load::Stop(&done);
        let followers: Vec<_> = (0..4).map(|_| scope.spawn(|| load::follow(port, "a"))).collect();
        let publishers: Vec<_> = (0..3)
            .map(|number| {
                let done = &done;
                scope.spawn(move || {
                    let mut acknowledged = Vec::new();
                    let mut round = 0;
                    while !done.load(Ordering::Relaxed) {
                        let name = format!("p{number}-{round}");
                        acknowledged.extend(load::publish(port, "a", &name, 20));
                        round += 1;
                    }
                    acknowledged
                })
            })
            .collect();
        for kill in 0..KILLS {
            let workers = nginx.workers();
            nginx.kill_worker(workers[kill % workers.len()]);
        }
        drop(stop);
        let acknowledged: Vec<Vec<String>> =
            publishers.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        load::publish_end(port, "a");
        let received: Vec<Vec<String>> =
            followers.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        (acknowledged, received)
    });
    load::assert_complete(&acknowledged, &received);
    nginx.wait_for_subscribers("a", 0);
    nginx.get(&publisher("a")).expect_status(200);
}

#[test]
fn a_reload_after_a_kill_works() {
    let mut nginx = Nginx::start(Config::push(4));
    for _ in 0..3 {
        let mut held: Vec<Client> = (0..8).map(|_| nginx.park("a")).collect();
        let victim = nginx.workers()[0];
        nginx.kill_worker(victim);
        let old = nginx.reload();
        for client in &mut held {
            // Released by its worker, or lost with it.
            if let Ok(response) = client.try_response() {
                response.expect_status(304);
            }
        }
        nginx.wait_gone(&old);
        nginx.wait_for_subscribers("a", 0);
    }
    let mut waiting = nginx.park("a");
    nginx.publish("a", "one").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "one");
}

#[test]
fn files_that_a_killed_worker_has_left_are_removed_and_those_of_its_messages_are_not() {
    let mut nginx = Nginx::start(Config::push(2).http("client_max_body_size 8m;"));
    let body = pattern(1 << 20);
    for _ in 0..4 {
        nginx.publish("a", body.clone()).expect_status(202);
    }
    let files = nginx.spooled();
    assert_eq!(files.len(), 4);
    // As if one had died before its message was in the zone, and one before it had removed a file.
    let killed = nginx.workers();
    let left = killed.iter().map(|pid| files[0].with_file_name(format!("{pid}-0-ffff")));
    let left: Vec<_> = left.inspect(|path| fs::write(path, "left").unwrap()).collect();
    let alive = files[0].with_file_name(format!("{}-0-ffff", nginx.master()));
    fs::write(&alive, "of somebody who lives").unwrap();
    killed.iter().for_each(|worker| nginx.kill_worker(*worker));
    wait::until_true("an end of what is left", || !left.iter().any(|path| path.exists()));
    assert_eq!(nginx.spooled().len(), 5);
    for response in nginx.poll_all("a") {
        assert_same_bytes(&response.body, &body);
    }
}
