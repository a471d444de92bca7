//! Tests for `push_subscriber_concurrency` and `push_max_channel_subscribers`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::push::subscriber;
use support::{on_1_and_4_workers, wait, Client, Config, Cursor, Nginx, Request, Response};

on_1_and_4_workers!(
    broadcast_serves_everybody,
    broadcast_is_the_default,
    last_sends_the_one_before_away,
    last_sends_everybody_away_who_waits,
    last_leaves_other_channels_alone,
    first_refuses_the_next,
    first_lets_another_wait_after_the_first_has_left,
    a_conflict_is_409_in_the_access_log,
    a_message_that_is_there_is_refused_too_while_another_waits,
    last_holds_across_workers,
    first_holds_across_workers,
    the_limit_holds_across_workers,
    the_limit_is_checked_before_concurrency,
    many_conflicts_leave_the_count_right,
);

fn start(workers: usize, concurrency: &str) -> Nginx {
    let directive = format!("push_subscriber_concurrency {concurrency};");
    Nginx::start(Config::push(workers).subscriber(&directive))
}

#[track_caller]
fn expect_conflict(response: Response) {
    let response = response.expect_status(409).expect_empty();
    assert_eq!(response.status_text(), "409 Conflict");
    assert_eq!(response.header("Last-Modified"), None);
    assert_eq!(response.header("Etag"), None);
}

#[track_caller]
fn expect_message(client: &mut Client, body: &str) {
    assert_eq!(client.response().expect_status(200).text(), body);
}

fn broadcast_serves_everybody(workers: usize) {
    let nginx = start(workers, "broadcast");
    let mut clients: Vec<Client> = (0..100).map(|_| nginx.client()).collect();
    for client in &mut clients {
        client.send(&Request::get(&subscriber("a")));
    }
    nginx.wait_for_subscribers("a", 100);
    nginx.publish("a", "one").expect_status(201);
    for client in &mut clients {
        expect_message(client, "one");
    }
    nginx.wait_for_subscribers("a", 0);
}

fn broadcast_is_the_default(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut clients = [nginx.park("a"), nginx.park("a"), nginx.park("a")];
    nginx.publish("a", "one").expect_status(201);
    for client in &mut clients {
        expect_message(client, "one");
    }
}

/// Sends a request that sends away those who wait, so that the number of subscribers becomes 1.
fn take_over(nginx: &Nginx, id: &str) -> Client {
    let mut client = nginx.client();
    client.send(&Request::get(&subscriber(id)));
    client
}

fn last_sends_the_one_before_away(workers: usize) {
    let nginx = start(workers, "last");
    let mut holder = nginx.park("a");
    for _ in 0..5 {
        let next = take_over(&nginx, "a");
        expect_conflict(holder.response());
        nginx.wait_for_subscribers("a", 1);
        holder.request(&Request::get("/worker")).expect_status(200);
        holder = next;
    }
    nginx.publish("a", "one").expect_status(201);
    expect_message(&mut holder, "one");
}

fn last_sends_everybody_away_who_waits(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).server(
        "location /last {
             push_subscriber; set $push_channel_id $arg_id; push_subscriber_concurrency last;
         }",
    ));
    let mut waiting: Vec<Client> = (0..6).map(|_| nginx.park("a")).collect();
    let mut last = nginx.client();
    last.send(&Request::get("/last?id=a"));
    for client in &mut waiting {
        expect_conflict(client.response());
    }
    nginx.wait_for_subscribers("a", 1);
    nginx.publish("a", "one").expect_status(201);
    expect_message(&mut last, "one");
}

fn last_leaves_other_channels_alone(workers: usize) {
    let nginx = start(workers, "last");
    let mut other = nginx.park("b");
    let mut first = nginx.park("a");
    let mut second = take_over(&nginx, "a");
    expect_conflict(first.response());
    other.expect_silence();
    nginx.publish("b", "one").expect_status(201);
    expect_message(&mut other, "one");
    nginx.wait_for_subscribers("a", 1);
    nginx.publish("a", "two").expect_status(201);
    expect_message(&mut second, "two");
}

fn first_refuses_the_next(workers: usize) {
    let nginx = start(workers, "first");
    let mut holder = nginx.park("a");
    for _ in 0..5 {
        let mut client = nginx.client();
        expect_conflict(client.request(&Request::get(&subscriber("a"))));
        client.request(&Request::get("/worker")).expect_status(200);
    }
    holder.expect_silence();
    nginx.publish("a", "one").expect_status(201);
    expect_message(&mut holder, "one");
}

fn first_lets_another_wait_after_the_first_has_left(workers: usize) {
    let nginx = start(workers, "first");
    let holder = nginx.park("a");
    expect_conflict(nginx.poll("a", &Cursor::none()));
    drop(holder);
    nginx.wait_for_subscribers("a", 0);
    let mut next = nginx.park("a");
    expect_conflict(nginx.poll("a", &Cursor::none()));
    nginx.publish("a", "one").expect_status(201);
    expect_message(&mut next, "one");
}

fn a_conflict_is_409_in_the_access_log(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .publisher("access_log off;")
            .subscriber("push_subscriber_concurrency last;"),
    );
    let mut first = nginx.park("a");
    let mut second = take_over(&nginx, "a");
    expect_conflict(first.response());
    nginx.wait_for_subscribers("a", 1);
    nginx.publish("a", "one").expect_status(201);
    expect_message(&mut second, "one");
    nginx.expect_access_log(&["GET /sub?id=a 409 0", "GET /sub?id=a 200 3"]);
}

fn a_message_that_is_there_is_refused_too_while_another_waits(workers: usize) {
    let nginx = start(workers, "first");
    nginx.publish("a", "one");
    let cursor = Cursor::after(&nginx.poll("a", &Cursor::none()).expect_status(200));
    let mut holder = nginx.park_after("a", &cursor);
    expect_conflict(nginx.poll("a", &Cursor::none()));
    nginx.publish("a", "two").expect_status(201);
    expect_message(&mut holder, "two");
}

fn last_holds_across_workers(workers: usize) {
    let nginx = start(workers, "last");
    let mut clients = nginx.client_of_each_worker(workers);
    for round in 0..3 {
        let id = format!("round-{round}");
        for number in 0..clients.len() {
            clients[number].1.send(&Request::get(&subscriber(&id)));
            if number > 0 {
                expect_conflict(clients[number - 1].1.response());
            }
            nginx.wait_for_subscribers(&id, 1);
        }
        nginx.publish(&id, "one").expect_status(201);
        let (_, last) = clients.last_mut().expect("a client");
        expect_message(last, "one");
    }
}

fn first_holds_across_workers(workers: usize) {
    let nginx = start(workers, "first");
    let mut clients = nginx.client_of_each_worker(workers);
    clients[0].1.send(&Request::get(&subscriber("a")));
    nginx.wait_for_subscribers("a", 1);
    for (_, client) in &mut clients[1..] {
        expect_conflict(client.request(&Request::get(&subscriber("a"))));
    }
    nginx.publish("a", "one").expect_status(201);
    expect_message(&mut clients[0].1, "one");
}

fn the_limit_holds_across_workers(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).subscriber("push_max_channel_subscribers 1;"));
    let mut clients = nginx.client_of_each_worker(workers);
    clients[0].1.send(&Request::get(&subscriber("a")));
    nginx.wait_for_subscribers("a", 1);
    for (_, client) in &mut clients[1..] {
        client.request(&Request::get(&subscriber("a"))).expect_status(403).expect_empty();
    }
    nginx.publish("a", "one").expect_status(201);
    expect_message(&mut clients[0].1, "one");
}

fn the_limit_is_checked_before_concurrency(workers: usize) {
    for concurrency in ["last", "first"] {
        let nginx = Nginx::start(Config::push(workers).subscriber(&format!(
            "push_max_channel_subscribers 1; push_subscriber_concurrency {concurrency};"
        )));
        let mut holder = nginx.park("a");
        nginx.poll("a", &Cursor::none()).expect_status(403);
        holder.expect_silence();
    }
}

fn many_conflicts_leave_the_count_right(workers: usize) {
    let nginx = start(workers, "last");
    let mut clients: Vec<Client> = (0..40).map(|_| take_over(&nginx, "a")).collect();
    // All but one are sent away, whichever was the last to arrive.
    nginx.wait_for_subscribers("a", 1);
    let (mut messages, mut conflicts) = (0, 0);
    wait::until_true("the conflicts", || {
        nginx.access_log().iter().filter(|line| line.contains(" 409 ")).count() == 39
    });
    nginx.publish("a", "one").expect_status(201);
    for client in &mut clients {
        match client.response().status {
            200 => messages += 1,
            409 => conflicts += 1,
            other => panic!("unexpected status {other}"),
        }
    }
    assert_eq!((messages, conflicts), (1, 39));
    nginx.wait_for_subscribers("a", 0);
}
