//! Tests for clients that read slowly, vanish, or send half a request.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::push::{assert_same_bytes, pattern, publisher, subscriber};
use support::{on_1_and_4_workers, process, wait, Client, Config, Cursor, Nginx, Request};

on_1_and_4_workers!(
    a_slow_reader_gets_everything_and_holds_nobody_up,
    a_slow_reader_of_a_file_gets_everything,
    a_reader_that_vanishes_in_the_middle_does_no_harm,
    two_thousand_subscribers_come_and_vanish,
    half_a_request_changes_nothing,
    a_slow_publisher_is_waited_for,
    a_stream_that_takes_nothing_can_be_reset,
    a_stream_that_is_cut_off_is_logged,
);

/// A zone and a body buffer in which 5 MB are kept in memory.
fn start(workers: usize) -> Nginx {
    Nginx::start(
        Config::push(workers)
            .http("client_max_body_size 16m; push_max_reserved_memory 64m;")
            .publisher("client_body_buffer_size 8m;"),
    )
}

fn a_slow_reader_gets_everything_and_holds_nobody_up(workers: usize) {
    let nginx = start(workers);
    let body = pattern(5 << 20);
    let mut slow = nginx.client();
    slow.limit_receive_buffer(16 << 10);
    nginx.park_request(&mut slow, "large", &Request::get(&subscriber("large")));
    let mut fast = nginx.park("large");
    nginx.publish("large", body.clone()).expect_status(201);
    assert_same_bytes(&fast.response().expect_status(200).body, &body);
    // The slow one has read nothing yet: its worker cannot have sent it all.
    for number in 0..20 {
        let mut waiting = nginx.park("other");
        nginx.publish("other", format!("message {number}")).expect_status(201);
        waiting.response().expect_status(200);
        nginx.request(&Request::new("DELETE", &publisher("other"))).expect_status(200);
    }
    // Not even the end of the message's life disturbs it.
    nginx.request(&Request::new("DELETE", &publisher("large"))).expect_status(200);
    let response = slow.response().expect_status(200);
    assert_same_bytes(&response.body, &body);
}

fn a_slow_reader_of_a_file_gets_everything(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).http("client_max_body_size 16m;"));
    let body = pattern(5 << 20);
    nginx.publish("large", body.clone());
    let mut slow = nginx.client();
    slow.limit_receive_buffer(16 << 10);
    slow.send(&Request::get(&subscriber("large")));
    slow.try_peek().expect("the beginning of the reply");
    nginx.request(&Request::new("DELETE", &publisher("large"))).expect_status(200);
    assert_same_bytes(&slow.response().expect_status(200).body, &body);
}

fn a_reader_that_vanishes_in_the_middle_does_no_harm(workers: usize) {
    let nginx = start(workers);
    nginx.publish("large", pattern(5 << 20));
    for number in 0..20 {
        let mut client = nginx.client();
        client.limit_receive_buffer(16 << 10);
        client.send(&Request::get(&subscriber("large")));
        client.try_peek().expect("the beginning of the reply");
        match number % 2 {
            0 => drop(client),
            _ => client.reset(),
        }
    }
    let response = nginx.poll("large", &Cursor::none()).expect_status(200);
    assert_same_bytes(&response.body, &pattern(5 << 20));
}

fn two_thousand_subscribers_come_and_vanish(workers: usize) {
    const SUBSCRIBERS: u64 = 2000;
    process::allow_open_files(8192);
    let nginx = Nginx::start(Config::push(workers).main("worker_rlimit_nofile 8192;"));
    for round in 0..2 {
        let clients: Vec<Client> = (0..SUBSCRIBERS)
            .map(|number| {
                let mut client = nginx.client();
                let id = format!("channel-{}", number % 2);
                client.send(&Request::get(&subscriber(&id)));
                client
            })
            .collect();
        nginx.wait_for_subscribers("channel-0", SUBSCRIBERS / 2);
        nginx.wait_for_subscribers("channel-1", SUBSCRIBERS / 2);
        for (number, client) in clients.into_iter().enumerate() {
            match (number + round) % 3 {
                0 => client.reset(),
                _ => drop(client),
            }
        }
        nginx.wait_for_subscribers("channel-0", 0);
        nginx.wait_for_subscribers("channel-1", 0);
    }
    let mut waiting = nginx.park("channel-0");
    nginx.publish("channel-0", "one").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "one");
}

fn half_a_request_changes_nothing(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let post = Request::post(&publisher("a"), "a message").to_bytes();
    let get = Request::get(&subscriber("a")).to_bytes();
    let mut clients: Vec<Client> = Vec::new();
    for request in [&post, &get] {
        for length in 1..request.len() {
            let mut client = nginx.client();
            client.send_bytes(&request[..length]);
            clients.push(client);
        }
    }
    drop(clients);
    nginx.get(&publisher("a")).expect_status(404);
    nginx.publish("a", "one").expect_status(202);
    assert_eq!(nginx.queue("a"), ["one"]);
}

fn a_slow_publisher_is_waited_for(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut waiting = nginx.park("a");
    let mut client = nginx.client();
    let request = Request::post(&publisher("a"), pattern(200)).to_bytes();
    for byte in &request[..request.len() - 1] {
        client.send_bytes(&[*byte]);
    }
    waiting.expect_silence();
    nginx.publish("b", "meanwhile").expect_status(202);
    client.send_bytes(&request[request.len() - 1..]);
    client.response().expect_status(201);
    assert_same_bytes(&waiting.response().expect_status(200).body, &pattern(200));
    wait::until_true("nobody waits", || nginx.subscribers("a") == 0);
}

/// A stream whose client takes nothing of a large message.
fn stuck(nginx: &Nginx) -> Client {
    let mut stuck = nginx.client();
    stuck.send(&Request::get("/stuck?id=a"));
    stuck.head_response().expect_status(200);
    nginx.wait_for_subscribers("a", 1);
    nginx.publish("a", pattern(16 << 20)).expect_status(201);
    stuck
}

fn with_streams(workers: usize, text: &str) -> Config {
    let location = format!(
        "location /stuck {{ push_subscriber eventsource; push_channel_id $arg_id;
             access_log @dir@/stuck.log; {text} }}"
    );
    Config::push(workers).http("client_max_body_size 0;").server(&location)
}

fn a_stream_that_takes_nothing_can_be_reset(workers: usize) {
    for park in ["compact", "plain"] {
        for (word, is_reset) in [("on", true), ("off", false)] {
            let text =
                format!("push_park {park}; send_timeout 1s; reset_timedout_connection {word};");
            let nginx = Nginx::start(with_streams(workers, &text));
            let mut stuck = stuck(&nginx);
            nginx.wait_for_subscribers("a", 0);
            let end = loop {
                match stuck.try_some() {
                    Ok(Some(_)) => {}
                    Ok(None) => break false,
                    Err(error) => break error.kind() == std::io::ErrorKind::ConnectionReset,
                }
            };
            assert_eq!(end, is_reset, "{park} {word}");
        }
    }
}

fn a_stream_that_is_cut_off_is_logged(workers: usize) {
    for park in ["compact", "plain"] {
        let config = with_streams(workers, &format!("push_park {park};"));
        let mut nginx = Nginx::start(config.main("worker_shutdown_timeout 1s;"));
        let _stuck = stuck(&nginx);
        nginx.stop(rustix::process::Signal::QUIT);
        let log = std::fs::read_to_string(nginx.dir().join("stuck.log")).unwrap();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("/stuck")).collect();
        assert_eq!(lines.len(), 1, "{park}: {log}");
    }
}
