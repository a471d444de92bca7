//! Tests for several workers: one order for all, wake-ups across workers, and other process models.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::thread;

use support::process::{self, Signal};
use support::push::{publisher, subscriber};
use support::{load, on_1_and_4_workers, wait, Client, Config, Cursor, Nginx, Request};

on_1_and_4_workers!(
    all_subscribers_see_all_messages_in_one_order,
    waiting_subscribers_on_all_workers_are_woken_by_each_worker,
    messages_are_read_on_all_workers,
    channels_are_deleted_on_all_workers,
    many_channels_are_woken_at_once,
    listening_with_reuseport_works,
);

fn all_subscribers_see_all_messages_in_one_order(workers: usize) {
    const PUBLISHERS: usize = 8;
    const MESSAGES: usize = 200;
    let nginx = Nginx::start(Config::push(workers).http("push_message_buffer_length 2000;"));
    let port = nginx.port();
    let (acknowledged, received) = thread::scope(|scope| {
        let followers: Vec<_> =
            (0..2 * workers).map(|_| scope.spawn(|| load::follow(port, "a"))).collect();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|number| {
                scope.spawn(move || load::publish(port, "a", &format!("p{number}"), MESSAGES))
            })
            .collect();
        let join = |thread: thread::ScopedJoinHandle<_>| thread.join().expect("no panic");
        let acknowledged: Vec<Vec<String>> = publishers.into_iter().map(join).collect();
        load::publish_end(port, "a");
        let join = |thread: thread::ScopedJoinHandle<_>| thread.join().expect("no panic");
        let received: Vec<Vec<String>> = followers.into_iter().map(join).collect();
        (acknowledged, received)
    });
    load::assert_complete(&acknowledged, &received);
    assert_eq!(received[0].len(), PUBLISHERS * MESSAGES);
    let mut queue = nginx.queue("a");
    assert_eq!(queue.pop().as_deref(), Some(load::END));
    assert!(queue == received[0], "the queue has the same order");
}

fn waiting_subscribers_on_all_workers_are_woken_by_each_worker(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut subscribers = nginx.client_of_each_worker(workers);
    let mut publishers = nginx.client_of_each_worker(workers);
    let mut cursor = Cursor::none();
    for (pid, publishing) in &mut publishers {
        for (_, client) in &mut subscribers {
            nginx.park_request(client, "a", &cursor.apply(Request::get(&subscriber("a"))));
        }
        let body = format!("from worker {pid}");
        let response = publishing.request(&Request::post(&publisher("a"), body.as_str()));
        let response = response.expect_status(201);
        assert!(response.text().ends_with(&format!("active subscribers: {workers}")));
        for (_, client) in &mut subscribers {
            let response = client.response().expect_status(200);
            assert_eq!(response.text(), body);
            cursor = Cursor::after(&response);
        }
        nginx.wait_for_subscribers("a", 0);
    }
}

fn messages_are_read_on_all_workers(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    let mut heads = Vec::new();
    for (_, client) in &mut nginx.client_of_each_worker(workers) {
        let response = client.request(&Request::get(&subscriber("a"))).expect_status(200);
        assert_eq!(response.text(), "one");
        heads.push(response.bytes_without_date().0);
    }
    heads.dedup();
    assert_eq!(heads.len(), 1, "all workers send the same head: {heads:?}");
}

fn channels_are_deleted_on_all_workers(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut clients = nginx.client_of_each_worker(workers);
    for (_, client) in &mut clients {
        nginx.park_request(client, "a", &Request::get(&subscriber("a")));
    }
    nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
    for (_, client) in &mut clients {
        client.response().expect_status(410);
        client.request(&Request::get(&publisher("a"))).expect_status(404);
    }
}

fn many_channels_are_woken_at_once(workers: usize) {
    // More channels than any mailbox of hints would hold.
    const CHANNELS: usize = 600;
    let nginx = Nginx::start(Config::push(workers));
    let id = |number: usize| format!("channel-{number}");
    let mut waiting: Vec<Client> = (0..CHANNELS).map(|_| nginx.client()).collect();
    for (number, client) in waiting.iter_mut().enumerate() {
        client.send(&Request::get(&subscriber(&id(number))));
    }
    for number in 0..CHANNELS {
        nginx.wait_for_subscribers(&id(number), 1);
    }
    // All in one piece, so that one worker publishes them in one go.
    let mut publishing = nginx.client();
    let requests: Vec<u8> = (0..CHANNELS)
        .flat_map(|number| Request::post(&publisher(&id(number)), id(number)).to_bytes())
        .collect();
    publishing.send_bytes(&requests);
    for _ in 0..CHANNELS {
        publishing.response().expect_status(201);
    }
    for (number, client) in waiting.iter_mut().enumerate() {
        assert_eq!(client.response().expect_status(200).text(), id(number));
    }
}

fn listening_with_reuseport_works(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).listen("reuseport"));
    let mut subscribers = nginx.client_of_each_worker(workers);
    for (_, client) in &mut subscribers {
        nginx.park_request(client, "a", &Request::get(&subscriber("a")));
    }
    nginx.publish("a", "one").expect_status(201);
    for (_, client) in &mut subscribers {
        assert_eq!(client.response().expect_status(200).text(), "one");
    }
}

/// Publishes and receives, waiting and not.
#[track_caller]
fn expect_service(nginx: &Nginx) {
    let mut waiting = nginx.park("a");
    nginx.publish("a", "one").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "one");
    assert_eq!(nginx.queue("a"), ["one"]);
}

#[test]
fn one_process_that_is_master_and_worker_works() {
    let nginx = Nginx::start(Config::push(1).without_master());
    expect_service(&nginx);
    let held = nginx.park("held");
    drop(nginx);
    drop(held);
}

#[test]
fn a_daemon_works() {
    for workers in [1, 4] {
        expect_service(&Nginx::start(Config::push(workers).daemon()));
    }
}

#[test]
fn more_workers_than_processors_work() {
    let nginx = Nginx::start(Config::push(16));
    let mut clients = nginx.client_of_each_worker(16);
    for (_, client) in &mut clients {
        nginx.park_request(client, "a", &Request::get(&subscriber("a")));
    }
    nginx.publish("a", "one").expect_status(201);
    for (_, client) in &mut clients {
        assert_eq!(client.response().expect_status(200).text(), "one");
    }
}

/// More than a worker serves in one turn: what else it has been told of has to wait meanwhile.
const CROWD: usize = 300;

/// Makes a client of this worker, on which it waits.
fn client_of(nginx: &Nginx, worker: i32) -> Client {
    let mut client = nginx.client();
    let text = client.request(&Request::get("/worker")).text().to_owned();
    assert_eq!(text, worker.to_string());
    client
}

/// Has one of two workers find, all at once, that a crowd that it serves and `first`, who waits on the channel `quiet`, have a
/// message each, then what somebody else asks, who has come to that worker, and then what is done with `first` and another
/// client of it. Returns who has come.
fn come_while_the_worker_is_busy<R>(
    nginx: &Nginx,
    late: &Request,
    meanwhile: impl FnOnce(Client, &mut Client) -> R,
) -> (Client, R) {
    let [busy, other] = nginx.workers()[..] else { panic!("two workers") };
    process::stop(other);
    let mut crowd: Vec<Client> = (0..CROWD).map(|_| nginx.client()).collect();
    for client in &mut crowd {
        client.send(&Request::get(&subscriber("crowd")));
    }
    nginx.wait_for_subscribers("crowd", CROWD as u64);
    let first = nginx.park("quiet");
    let [mut comes, mut another] = [(); 2].map(|()| client_of(nginx, busy));
    process::signal(other, Signal::CONT);
    process::stop(busy);
    nginx.publish("crowd", "for all").expect_status(201);
    nginx.publish("quiet", "one").expect_status(201);
    comes.send(late);
    let done = meanwhile(first, &mut another);
    process::signal(busy, Signal::CONT);
    for client in &mut crowd {
        client.response().expect_status(200);
    }
    (comes, done)
}

/// Waits until it alone waits, on one channel or on both.
fn expect_only_it(nginx: &Nginx) {
    wait::until_true("all others have left", || {
        nginx.subscribers("quiet") == 1 && nginx.subscribers("crowd") <= 1
    });
}

/// Waits for what comes after all that there is.
fn the_next(id: &str) -> Request {
    Request::get(&subscriber(id))
        .header("If-Modified-Since", "Fri, 31 Dec 2100 23:59:59 GMT")
        .header("If-None-Match", "0")
}

#[test]
fn who_comes_before_the_worker_has_looked_is_woken_though_the_others_have_left() {
    let nginx = Nginx::start(Config::push(2));
    let (mut comes, ()) =
        come_while_the_worker_is_busy(&nginx, &the_next("quiet"), |first, _| drop(first));
    expect_only_it(&nginx);
    nginx.publish("quiet", "two").expect_status(201);
    assert_eq!(comes.response().expect_status(200).text(), "two");
}

#[test]
fn who_comes_to_several_channels_before_the_worker_has_looked_is_woken() {
    let nginx = Nginx::start(Config::push(2).server(
        "location = /both { push_subscriber; push_channel_id quiet crowd; push_first_message newest; }",
    ));
    let both = Request::get("/both");
    let (mut comes, ()) = come_while_the_worker_is_busy(&nginx, &both, |first, _| drop(first));
    expect_only_it(&nginx);
    nginx.publish("quiet", "two").expect_status(201);
    assert_eq!(comes.response().expect_status(200).text(), "two");
}

#[test]
fn a_deletion_reaches_who_came_before_the_worker_had_looked() {
    let nginx = Nginx::start(Config::push(2));
    let (mut comes, ()) =
        come_while_the_worker_is_busy(&nginx, &the_next("quiet"), |first, _| drop(first));
    expect_only_it(&nginx);
    nginx.request(&Request::new("DELETE", &publisher("quiet"))).expect_status(200);
    comes.response().expect_status(410);
}

#[test]
fn what_is_published_before_the_worker_has_looked_reaches_who_has_come_since() {
    let nginx = Nginx::start(Config::push(2));
    let (mut comes, mut first) =
        come_while_the_worker_is_busy(&nginx, &the_next("quiet"), |first, another| {
            another.send(&Request::post(&publisher("quiet"), "two"));
            first
        });
    assert_eq!(comes.response().expect_status(200).text(), "two");
    assert_eq!(first.response().expect_status(200).text(), "one");
}

#[test]
fn a_received_message_goes_when_the_one_that_it_stayed_for_has_left() {
    let settings = "push_delete_oldest_received_message on; push_min_message_buffer_length 0;";
    let nginx = Nginx::start(Config::push(2).http(settings));
    let [busy, other] = nginx.workers()[..] else { panic!("two workers") };
    process::stop(other);
    let first = nginx.park("quiet");
    let mut comes = client_of(&nginx, busy);
    process::signal(other, Signal::CONT);
    process::stop(busy);
    // The worker meets all of this in this order, and is told of the message last.
    comes.send(&Request::get(&subscriber("quiet")));
    drop(first);
    nginx.publish("quiet", "one").expect_status(201);
    process::signal(busy, Signal::CONT);
    assert_eq!(comes.response().expect_status(200).text(), "one");
    nginx.wait_for_messages("quiet", 0);
}
