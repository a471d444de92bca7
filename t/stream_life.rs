//! Tests for what all streams share: how they live through reloads, kills and slow readers, how they
//! end, and what the access log says then.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use flate2::{Decompress, FlushDecompress};
use socket2::{SockFilter, SockRef};
use support::body::{Body, Ended};
use support::event_source::{Item, Parser};
use support::http2::Http2;
use support::lines::Lines;
use support::nginx::{build, has_or_skip, make_certificate};
use support::push::{publisher, subscriber, Info};
use support::streams::{follow, End, Kind, Listener, News, Why};
use support::tls::Tunnel;
use support::websocket::Handshake;
use support::{load, on_1_and_4_workers, process, wait, Client, Config, Nginx, Request};

/// Makes tests of each function: for these kinds of streams, with 1 and with 4 workers.
macro_rules! for_streams {
    ($kinds:tt: $($name:ident),+ $(,)?) => {$(for_streams!(@ $name $kinds);)+};
    (@ $name:ident [$($module:ident = $kind:ident),+]) => {
        mod $name {$(
            mod $module {
                use crate::support::streams::Kind;

                #[test]
                fn on_1_worker() {
                    crate::$name(Kind::$kind, 1);
                }

                #[test]
                fn on_4_workers() {
                    crate::$name(Kind::$kind, 4);
                }
            }
        )+}
    };
}

for_streams!(
    [event_source = EventSource, websocket = WebSocket, json_lines = JsonLines, stream = Stream]:
    stored_messages_come_first_and_live_ones_after_them,
    a_listener_is_a_subscriber_who_waits,
    messages_that_are_not_stored_reach_those_who_listen,
    everybody_gets_everything_in_one_order,
    a_reload_ends_streams_in_order,
    a_change_of_the_zone_ends_streams_in_order,
    quit_ends_streams_in_order,
    stop_ends_at_once,
    a_killed_worker_costs_its_own_streams_only,
    a_deletion_ends_the_streams_of_the_channel,
    a_timeout_ends_a_stream,
    the_last_subscriber_drives_the_others_out,
    the_first_subscriber_keeps_the_others_out,
    the_limit_of_subscribers_holds,
    a_slow_reader_catches_up_from_the_log,
    a_slow_reader_is_told_what_it_has_missed,
    what_is_gone_already_ends_no_stream,
    slow_readers_cost_no_memory,
    a_full_zone_does_not_disturb_listeners,
    clients_that_vanish_are_noticed,
    clients_that_vanish_without_a_word_are_noticed,
    a_client_that_takes_nothing_for_a_while_keeps_its_stream,
    a_client_that_vanishes_in_the_middle_of_a_message_does_no_harm,
    many_come_and_go,
    streams_work_over_tls,
    messages_flow_through_a_proxying_nginx,
    the_log_has_one_line_with_what_was_sent,
);

for_streams!(
    [event_source = EventSource, websocket = WebSocket, json_lines = JsonLines]:
    nothing_is_lost_in_a_reload,
    nothing_is_lost_in_reloads_under_load,
    nothing_is_lost_when_workers_are_killed,
);

for_streams!(
    [event_source = EventSource, json_lines = JsonLines, stream = Stream]:
    a_connection_serves_again_after_a_stream,
    messages_flow_through_gzip,
);

on_1_and_4_workers!(
    event_streams_work_over_http_2,
    json_streams_work_over_http_2,
    a_cancelled_stream_of_http_2_is_no_longer_counted,
    polls_and_streams_drive_each_other_out,
);

/// Only this kind of stream at `/sub`; long-polls at `/poll`.
fn config(kind: Kind, workers: usize) -> Config {
    Config::push(workers)
        .transports(kind.word())
        .server("location /poll { push_subscriber long-poll; push_channel_id $arg_id; }")
}

fn start(kind: Kind, workers: usize) -> Nginx {
    Nginx::start(config(kind, workers))
}

fn start_with(kind: Kind, workers: usize, text: &str) -> Nginx {
    Nginx::start(config(kind, workers).http(text))
}

fn delete(nginx: &Nginx, id: &str) {
    nginx.request(&Request::new("DELETE", &publisher(id))).expect_status(200);
}

/// So many listeners who all are counted.
fn listeners(kind: Kind, nginx: &Nginx, id: &str, count: usize) -> Vec<Listener> {
    let listeners = (0..count).map(|_| kind.listen(nginx.port(), id)).collect();
    nginx.wait_for_subscribers(id, count as u64);
    listeners
}

fn stored_messages_come_first_and_live_ones_after_them(kind: Kind, workers: usize) {
    let nginx = start(kind, workers);
    for body in ["one", "two", "three"] {
        nginx.publish("a", body).expect_status(202);
    }
    let mut listener = kind.listen(nginx.port(), "a");
    for body in ["one", "two", "three"] {
        listener.expect_message(body);
    }
    nginx.wait_for_subscribers("a", 1);
    for number in 0..20 {
        let body = format!("live {number}");
        nginx.publish("a", body.as_str()).expect_status(201);
        listener.expect_message(&body);
    }
    // Several before anybody reads.
    for number in 0..10 {
        nginx.publish("a", format!("burst {number}")).expect_status(201);
    }
    for number in 0..10 {
        listener.expect_message(&format!("burst {number}"));
    }
}

fn a_listener_is_a_subscriber_who_waits(kind: Kind, workers: usize) {
    let nginx = start(kind, workers);
    nginx.publish("a", "one").expect_status(202);
    let mut all = Vec::new();
    for count in 1..=5 {
        let mut listener = kind.listen(nginx.port(), "a");
        listener.expect_message("one");
        all.push(listener);
        nginx.wait_for_subscribers("a", count);
    }
    for number in 0..3 {
        let body = format!("message {number}");
        let reply = nginx.publish("a", body.as_str()).expect_status(201);
        let info = Info::parse_text(reply.text());
        assert_eq!((info.messages, info.subscribers), (2 + number, 5));
        for listener in &mut all {
            listener.expect_message(&body);
        }
        // A stream goes on waiting.
        assert_eq!(nginx.subscribers("a"), 5);
    }
    for count in (0..5).rev() {
        all.pop();
        nginx.wait_for_subscribers("a", count);
    }
    nginx.publish("a", "nobody").expect_status(202);
}

fn messages_that_are_not_stored_reach_those_who_listen(kind: Kind, workers: usize) {
    let nginx = start_with(kind, workers, "push_store_messages off;");
    let mut all = listeners(kind, &nginx, "a", 3);
    for number in 0..20 {
        let body = format!("message {number}");
        nginx.publish("a", body.as_str()).expect_status(201);
        for listener in &mut all {
            listener.expect_message(&body);
        }
    }
    assert_eq!(nginx.messages("a"), 0);
}

fn everybody_gets_everything_in_one_order(kind: Kind, workers: usize) {
    const LISTENERS: usize = 100;
    const PUBLISHERS: usize = 3;
    const MESSAGES: usize = 100;
    let nginx = start_with(kind, workers, "push_message_buffer_length 1000;");
    let port = nginx.port();
    let all = listeners(kind, &nginx, "a", LISTENERS);
    let (acknowledged, received) = thread::scope(|scope| {
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|number| {
                scope.spawn(move || load::publish(port, "a", &format!("p{number}"), MESSAGES))
            })
            .collect();
        let readers: Vec<_> = all
            .into_iter()
            .map(|mut listener| {
                scope.spawn(move || {
                    let bodies = (0..PUBLISHERS * MESSAGES).map(|_| match listener.next() {
                        News::Message { data, .. } => data,
                        other => panic!("{other:?}"),
                    });
                    bodies.collect::<Vec<String>>()
                })
            })
            .collect();
        (join(publishers), join(readers))
    });
    load::assert_complete(&acknowledged, &received);
    nginx.wait_for_subscribers("a", 0);
}

fn join<T>(threads: Vec<thread::ScopedJoinHandle<'_, T>>) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
}

// ---- Reloads and kills.

fn a_reload_ends_streams_in_order(kind: Kind, workers: usize) {
    let nginx = start(kind, workers);
    nginx.publish("a", "one");
    for _ in 0..3 {
        let mut all = listeners(kind, &nginx, "a", 20);
        for listener in &mut all {
            listener.expect_message("one");
        }
        let old = nginx.reload();
        for listener in &mut all {
            listener.expect_end(Why::Shutdown);
        }
        drop(all);
        nginx.wait_gone(&old);
        nginx.wait_for_subscribers("a", 0);
        assert_eq!(nginx.workers().len(), workers);
    }
}

fn a_change_of_the_zone_ends_streams_in_order(kind: Kind, workers: usize) {
    let sized =
        |size: &str| config(kind, workers).http(&format!("push_shared_memory_size {size};"));
    let mut nginx = Nginx::start(sized("2m"));
    nginx.publish("a", "one");
    let mut listener = kind.listen(nginx.port(), "a");
    let id = listener.expect_message("one");
    nginx.reconfigure(sized("4m"));
    let old = nginx.reload();
    listener.expect_end(Why::Shutdown);
    nginx.wait_gone(&old);
    nginx.publish("a", "two");
    let mut again = match &id {
        Some(id) => kind.listen_after(nginx.port(), "a", id),
        None => {
            let mut again = kind.listen(nginx.port(), "a");
            again.expect_message("one");
            again
        }
    };
    assert_eq!(again.response().header("Push-Missed"), None);
    again.expect_message("two");
}

fn quit_ends_streams_in_order(kind: Kind, workers: usize) {
    let mut nginx = start(kind, workers);
    let mut all = listeners(kind, &nginx, "a", 20);
    nginx.publish("a", "one");
    for listener in &mut all {
        listener.expect_message("one");
    }
    let result = nginx.run(&["-s", "quit"]);
    assert!(result.success, "{}", result.text);
    for listener in &mut all {
        listener.expect_end(Why::Shutdown);
    }
    nginx.wait_for_exit();
}

fn stop_ends_at_once(kind: Kind, workers: usize) {
    let mut nginx = start(kind, workers);
    let _all = listeners(kind, &nginx, "a", 20);
    nginx.stop(process::Signal::TERM);
}

fn nothing_is_lost_in_a_reload(kind: Kind, workers: usize) {
    let nginx = start(kind, workers);
    nginx.publish("a", "one");
    let mut listener = kind.listen(nginx.port(), "a");
    listener.expect_message("one");
    nginx.publish("a", "two");
    let mut id = listener.expect_message("two").expect("an id");
    for round in 0..3 {
        let old = nginx.reload();
        let during = format!("during {round}");
        nginx.publish("a", during.as_str());
        // Those who still listen may get it before the end.
        let mut seen = false;
        loop {
            match listener.next() {
                News::Message { id: next, data } if data == during && !seen => {
                    (seen, id) = (true, next.expect("an id"));
                }
                News::End(end) => {
                    break assert_eq!(end, End { why: Some(Why::Shutdown), orderly: true });
                }
                other => panic!("{other:?}"),
            }
        }
        let after = format!("after {round}");
        nginx.publish("a", after.as_str());
        // An old worker that served nobody may be the last to go, and take the next one with it.
        nginx.wait_gone(&old);
        listener = kind.listen_after(nginx.port(), "a", &id);
        assert_eq!(listener.response().header("Push-Missed"), None);
        if !seen {
            listener.expect_message(&during);
        }
        listener.expect_message(&after);
        let live = format!("live {round}");
        nginx.publish("a", live.as_str());
        id = listener.expect_message(&live).expect("an id");
    }
}

/// Followers listen and publishers publish while `disturb` runs, until it is over.
fn under_load(kind: Kind, nginx: &mut Nginx, followers: usize, disturb: impl Fn(&mut Nginx)) {
    let port = nginx.port();
    let done = AtomicBool::new(false);
    let (acknowledged, received) = thread::scope(|scope| {
        let stop = load::Stop(&done);
        let followers: Vec<_> =
            (0..followers).map(|_| scope.spawn(move || follow(kind, port, "a"))).collect();
        nginx.wait_for_subscribers("a", followers.len() as u64);
        let publishers: Vec<_> = (0..2)
            .map(|number| {
                let done = &done;
                scope.spawn(move || {
                    let mut acknowledged = Vec::new();
                    let mut round = 0;
                    while !done.load(Ordering::Relaxed) {
                        let name = format!("p{number}-{round}");
                        acknowledged.extend(load::publish(port, "a", &name, 10));
                        round += 1;
                    }
                    acknowledged
                })
            })
            .collect();
        disturb(nginx);
        drop(stop);
        let acknowledged = join(publishers);
        load::publish_end(port, "a");
        (acknowledged, join(followers))
    });
    load::assert_complete(&acknowledged, &received);
    nginx.wait_for_subscribers("a", 0);
}

const LONG_LOG: &str = "push_message_buffer_length 100000;";

fn nothing_is_lost_in_reloads_under_load(kind: Kind, workers: usize) {
    let mut nginx = start_with(kind, workers, LONG_LOG);
    under_load(kind, &mut nginx, 20, |nginx| {
        for _ in 0..3 {
            let old = nginx.reload();
            nginx.wait_gone(&old);
        }
    });
}

fn nothing_is_lost_when_workers_are_killed(kind: Kind, workers: usize) {
    let mut nginx = start_with(kind, workers, LONG_LOG);
    under_load(kind, &mut nginx, 100, |nginx| {
        for kill in 0..4 {
            let pids = nginx.workers();
            nginx.kill_worker(pids[kill % pids.len()]);
        }
    });
}

fn a_killed_worker_costs_its_own_streams_only(kind: Kind, workers: usize) {
    let mut nginx = start(kind, workers);
    nginx.publish("a", "one");
    let mut all: Vec<(String, Listener)> = nginx
        .client_of_each_worker(workers)
        .into_iter()
        .map(|(pid, client)| (pid, kind.listen_on(client, &subscriber("a"), None)))
        .collect();
    for (_, listener) in &mut all {
        listener.expect_message("one");
    }
    nginx.wait_for_subscribers("a", workers as u64);
    let (victim, mut lost) = all.remove(0);
    nginx.kill_worker(victim.parse().expect("a pid"));
    assert_eq!(lost.next(), News::End(End { why: None, orderly: false }));
    nginx.wait_for_subscribers("a", workers as u64 - 1);
    let mut again = kind.listen(nginx.port(), "a");
    again.expect_message("one");
    nginx.wait_for_subscribers("a", workers as u64);
    nginx.publish("a", "two").expect_status(201);
    again.expect_message("two");
    for (_, listener) in &mut all {
        listener.expect_message("two");
    }
}

// ---- Ends.

fn a_deletion_ends_the_streams_of_the_channel(kind: Kind, workers: usize) {
    let nginx = start(kind, workers);
    let mut all = listeners(kind, &nginx, "a", 20);
    let mut other = kind.listen(nginx.port(), "b");
    nginx.publish("a", "one");
    for listener in &mut all {
        listener.expect_message("one");
    }
    // What was published before the deletion comes before the end.
    nginx.publish("a", "two");
    delete(&nginx, "a");
    for listener in &mut all {
        match listener.next() {
            News::Message { data, .. } => {
                assert_eq!(data, "two");
                listener.expect_end(Why::Deleted);
            }
            News::End(end) => assert!(end.orderly, "{end:?}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(nginx.subscribers("a"), 0);
    nginx.publish("b", "goes on").expect_status(201);
    other.expect_message("goes on");
    // The id can be used again.
    nginx.publish("a", "new").expect_status(202);
    kind.listen(nginx.port(), "a").expect_message("new");
}

#[test]
fn a_limited_rate_holds_back_but_not_for_ever() {
    let config = Config::push(1).http("limit_rate 20k; client_body_buffer_size 32k;");
    let nginx = Nginx::start(config);
    let kinds = [Kind::EventSource, Kind::WebSocket, Kind::JsonLines];
    let mut listeners = kinds.map(|kind| kind.listen(nginx.port(), "a"));
    nginx.wait_for_subscribers("a", 3);
    // Each takes a quarter of a second. The second waits for the first, and is itself followed by a time to wait.
    let bodies = ["a", "b"].map(|letter| letter.repeat(5_000));
    for _ in 0..3 {
        for body in &bodies {
            nginx.publish("a", body.as_bytes()).expect_status(201);
        }
        for listener in &mut listeners {
            for body in &bodies {
                listener.expect_message(body);
            }
        }
    }
    drop(listeners);
    nginx.wait_for_subscribers("a", 0);
}

fn clients_that_vanish_without_a_word_are_noticed(kind: Kind, workers: usize) {
    for more in ["push_ping_interval 1s;", "push_ping_interval 0;"] {
        if kind == Kind::WebSocket && more.contains("1s") {
            // Those who do not answer pings are dropped before that, and nobody here answers.
            continue;
        }
        for park in ["compact", "plain"] {
            let more = format!("push_park {park}; send_timeout 1s; {more}");
            let nginx = start_with(kind, workers, &more);
            let mut all = listeners(kind, &nginx, "a", 3);
            let stays = kind.listen(nginx.port(), "b");
            for listener in &mut all {
                let socket = listener.client().socket().unwrap();
                // Their system is as deaf as if its cable had been pulled: it takes no segment any more.
                const TAKE_NONE: SockFilter = SockFilter::new(6, 0, 0, 0);
                SockRef::from(&socket).attach_filter(&[TAKE_NONE]).unwrap();
            }
            nginx.publish("a", "one").expect_status(201);
            nginx.wait_for_subscribers("a", 0);
            nginx.wait_for_subscribers("b", 1);
            drop(stays);
        }
    }
}

fn a_client_that_takes_nothing_for_a_while_keeps_its_stream(kind: Kind, workers: usize) {
    // Who does not answer pings of WebSockets is dropped, for whatever reason.
    let pings = if kind == Kind::WebSocket { "0" } else { "1s" };
    for park in ["compact", "plain"] {
        let more = format!("push_park {park}; send_timeout 1s; push_ping_interval {pings};");
        let nginx = start_with(kind, workers, &more);
        let mut client = nginx.client();
        client.limit_receive_buffer(64 << 10);
        let mut listener = kind.listen_on(client, &subscriber("a"), None);
        nginx.wait_for_subscribers("a", 1);
        // More than the client's system takes, and less than nginx's: nginx is not held back.
        let bodies: Vec<String> =
            (0..10).map(|number| format!("{number}").repeat(30_000)).collect();
        for body in &bodies {
            nginx.publish("a", body.as_bytes()).expect_status(201);
        }
        // Three times as long as a client may take nothing of what nginx has for it.
        thread::sleep(Duration::from_secs(3));
        for body in &bodies {
            listener.expect_message(body);
        }
        nginx.publish("a", "more").expect_status(201);
        listener.expect_message("more");
    }
}

fn a_timeout_ends_a_stream(kind: Kind, workers: usize) {
    let nginx = start_with(kind, workers, "push_subscriber_timeout 1s;");
    let mut all: Vec<_> = (0..5).map(|_| kind.listen(nginx.port(), "a")).collect();
    for listener in &mut all {
        listener.expect_end(Why::Timeout);
    }
    nginx.wait_for_subscribers("a", 0);
    nginx.publish("a", "one").expect_status(202);
}

fn the_last_subscriber_drives_the_others_out(kind: Kind, workers: usize) {
    let nginx = start_with(kind, workers, "push_subscriber_concurrency last;");
    let mut clients = nginx.client_of_each_worker(workers);
    clients.extend(nginx.client_of_each_worker(workers));
    nginx.publish("a", "one");
    let mut holder: Option<Listener> = None;
    for (_, client) in clients {
        let mut next = kind.listen_on(client, &subscriber("a"), None);
        next.expect_message("one");
        if let Some(mut before) = holder.replace(next) {
            before.expect_end(Why::Conflict);
        }
        nginx.wait_for_subscribers("a", 1);
    }
    let mut holder = holder.expect("somebody");
    nginx.publish("a", "two").expect_status(201);
    holder.expect_message("two");
}

fn the_first_subscriber_keeps_the_others_out(kind: Kind, workers: usize) {
    let nginx = start_with(kind, workers, "push_subscriber_concurrency first;");
    let mut holder = listeners(kind, &nginx, "a", 1).remove(0);
    for (_, mut client) in nginx.client_of_each_worker(workers) {
        client.request(&kind.request(&subscriber("a"), None)).expect_status(409);
    }
    nginx.publish("a", "one").expect_status(201);
    holder.expect_message("one");
    // A stream is no poll: its holder stays, message after message.
    nginx.request(&kind.request(&subscriber("a"), None)).expect_status(409);
    drop(holder);
    nginx.wait_for_subscribers("a", 0);
    kind.listen(nginx.port(), "a").expect_message("one");
}

fn the_limit_of_subscribers_holds(kind: Kind, workers: usize) {
    let nginx = start_with(kind, workers, "push_max_channel_subscribers 3;");
    let mut all = listeners(kind, &nginx, "a", 3);
    for (_, mut client) in nginx.client_of_each_worker(workers) {
        client.request(&kind.request(&subscriber("a"), None)).expect_status(403);
    }
    drop(all.pop());
    nginx.wait_for_subscribers("a", 2);
    let mut next = kind.listen(nginx.port(), "a");
    nginx.publish("a", "one").expect_status(201);
    next.expect_message("one");
}

fn polls_and_streams_drive_each_other_out(workers: usize) {
    for kind in [Kind::EventSource, Kind::WebSocket, Kind::JsonLines] {
        let nginx = Nginx::start(Config::push(workers).http("push_subscriber_concurrency last;"));
        let mut poll = nginx.park("a");
        let mut stream = kind.listen(nginx.port(), "a");
        poll.response().expect_status(409);
        nginx.wait_for_subscribers("a", 1);
        let mut poll = nginx.client();
        poll.send(&Request::get(&subscriber("a")));
        stream.expect_end(Why::Conflict);
        nginx.publish("a", "one").expect_status(201);
        assert_eq!(poll.response().expect_status(200).text(), "one");
    }
}

// ---- Slow readers.

/// A message of 32 kB that begins with its number.
fn numbered(number: usize) -> String {
    format!("{number:06} {}", "x".repeat(32 << 10))
}

fn number_of(data: &str) -> usize {
    let number = data.split(' ').next().and_then(|digits| digits.parse().ok());
    let number = number.unwrap_or_else(|| panic!("{:?}", &data[..data.len().min(20)]));
    assert!(data == numbered(number), "message {number} is damaged");
    number
}

/// The kernel takes little on the way to a client, and messages stay in memory.
fn start_for_slow(kind: Kind, workers: usize, text: &str) -> Nginx {
    let config = config(kind, workers).listen("sndbuf=32k");
    Nginx::start(config.http("client_body_buffer_size 8m;").http(text))
}

fn slow_listener(kind: Kind, nginx: &Nginx, id: &str) -> Listener {
    let mut client = nginx.client();
    // With less than a segment of the loopback, TCP itself crawls: 200 ms for each piece.
    client.limit_receive_buffer(64 << 10);
    kind.listen_on(client, &subscriber(id), None)
}

/// Publishes so many messages, each read at once by all of these.
fn publish_to(nginx: &Nginx, numbers: std::ops::Range<usize>, readers: &mut [Listener]) {
    let mut client = nginx.client();
    for number in numbers {
        let body = numbered(number);
        let request = Request::post(&publisher("a"), body.as_str());
        client.request(&request.header("Content-Type", "text/plain")).expect_status(201);
        for reader in readers.iter_mut() {
            reader.expect_message(&body);
        }
    }
}

fn a_slow_reader_catches_up_from_the_log(kind: Kind, workers: usize) {
    const MESSAGES: usize = 200;
    let nginx = start_for_slow(kind, workers, "push_message_buffer_length 1000;");
    let mut slow: Vec<Listener> =
        (0..2 * workers).map(|_| slow_listener(kind, &nginx, "a")).collect();
    let mut fast: Vec<Listener> = (0..2).map(|_| kind.listen(nginx.port(), "a")).collect();
    nginx.wait_for_subscribers("a", (slow.len() + fast.len()) as u64);
    publish_to(&nginx, 0..MESSAGES, &mut fast);
    for listener in &mut slow {
        for number in 0..MESSAGES {
            listener.expect_message(&numbered(number));
        }
    }
    // From here on it is as fast as the others.
    nginx.publish("a", "live").expect_status(201);
    for listener in slow.iter_mut().chain(&mut fast) {
        listener.expect_message("live");
    }
}

fn a_slow_reader_is_told_what_it_has_missed(kind: Kind, workers: usize) {
    const MESSAGES: usize = 100;
    let nginx = start_for_slow(kind, workers, "push_message_buffer_length 5;");
    let mut slow = slow_listener(kind, &nginx, "a");
    let mut fast = vec![kind.listen(nginx.port(), "a")];
    nginx.wait_for_subscribers("a", 2);
    // Who comes back to a gap needs a place to come back to.
    publish_to(&nginx, 0..1, &mut fast);
    let mut last_id = slow.expect_message(&numbered(0));
    publish_to(&nginx, 1..MESSAGES, &mut fast);
    let (mut next, mut gaps) = (1, 0);
    while next < MESSAGES {
        match slow.next() {
            News::Left(channel) => panic!("nobody has deleted {channel}"),
            News::Message { id, data } => {
                assert_eq!(number_of(&data), next);
                next += 1;
                last_id = id;
            }
            News::Gap { missed, at_least } => {
                assert!(missed > 0 && !at_least);
                next += missed as usize;
                gaps += 1;
            }
            News::End(End { why: Some(Why::Missed(missed)), orderly: true }) => {
                assert_eq!(kind, Kind::WebSocket);
                slow = kind.listen_after(nginx.port(), "a", last_id.as_ref().expect("an id"));
                // More may have been missed since it was closed.
                let said = slow.response().header("Push-Missed").expect("the gap");
                let said: u64 = said.parse().expect("a number");
                assert!(missed > 0 && said >= missed, "{missed}, then {said}");
                next += said as usize;
                gaps += 1;
            }
            News::End(end) => {
                assert_eq!((kind, end), (Kind::Stream, End { why: None, orderly: false }));
                return assert!(next < MESSAGES);
            }
        }
    }
    // More than one, if the kernel took some more in the middle: each counts what is missing.
    assert!(next == MESSAGES && gaps > 0, "{next} messages, {gaps} gaps");
    nginx.publish("a", "live").expect_status(201);
    slow.expect_message("live");
}

fn what_is_gone_already_ends_no_stream(kind: Kind, workers: usize) {
    let nginx = Nginx::start(config(kind, workers).server(
        "location /brief { push_publisher; set $push_channel_id $arg_id; push_message_timeout 1s; }
         location /lines { push_subscriber stream; push_channel_id $arg_id; }",
    ));
    nginx.publish("a", "seen");
    let mut lines = Kind::JsonLines.listen_on(Client::connect(nginx.port()), "/lines?id=a", None);
    let id = lines.expect_message("seen").expect("an id");
    drop(lines);
    for body in ["gone", "gone too"] {
        nginx.publish_at("/brief?id=a", body);
    }
    nginx.wait_for_messages("a", 1);
    let has_words = matches!(kind, Kind::EventSource | Kind::JsonLines);
    // However often it comes back before there is a message.
    let mut all: Vec<_> = (0..2).map(|_| kind.listen_after(nginx.port(), "a", &id)).collect();
    nginx.wait_for_subscribers("a", 2);
    nginx.publish("a", "here");
    for listener in &mut all {
        // What has no words for it says it as it begins: later it would have to end.
        let said = listener.response().header("Push-Missed");
        assert_eq!(said, (!has_words).then_some("2"));
        if has_words {
            assert_eq!(listener.next(), News::Gap { missed: 2, at_least: false });
        }
        listener.expect_message("here");
    }
}

fn slow_readers_cost_no_memory(kind: Kind, workers: usize) {
    const MESSAGES: usize = 1_500;
    const BOUND: u64 = 8 << 20;
    let nginx = start_for_slow(kind, workers, "push_message_buffer_length 20;");
    let mut fast = listeners(kind, &nginx, "a", 1);
    let slow: Vec<Listener> = (0..8).map(|_| slow_listener(kind, &nginx, "a")).collect();
    nginx.wait_for_subscribers("a", 9);
    // What a worker keeps for all who listen is full after these.
    publish_to(&nginx, 0..300, &mut fast);
    let memory = || nginx.workers().into_iter().map(process::private_memory).sum::<u64>();
    let before = memory();
    publish_to(&nginx, 300..MESSAGES, &mut fast);
    let grown = memory().saturating_sub(before);
    let published = (MESSAGES - 300) * (32 << 10);
    if process::is_watched(nginx.workers()[0]) {
        eprintln!("not compared: memory is watched by a tool, and means nothing");
    } else {
        assert!(grown < BOUND, "{grown} bytes more after {published} bytes were published");
    }
    drop(slow);
    nginx.wait_for_subscribers("a", 1);
}

fn a_full_zone_does_not_disturb_listeners(kind: Kind, workers: usize) {
    let nginx = start_with(
        kind,
        workers,
        "push_max_reserved_memory 1m; client_max_body_size 16m; client_body_buffer_size 8m;
         push_max_message_buffer_length 100000;",
    );
    let mut all = listeners(kind, &nginx, "a", 5);
    nginx.request(&Request::post(&publisher("a"), vec![b'x'; 4 << 20])).expect_status(507);
    nginx.publish("a", "one").expect_status(201);
    // Four times the zone, on another channel and on theirs.
    let mut client = nginx.client();
    for _ in 0..1000 {
        let request = Request::post(&publisher("fat"), vec![b'x'; 4096]);
        client.request(&request).expect_status(202);
    }
    for listener in &mut all {
        listener.expect_message("one");
    }
    for number in 0..1000 {
        let body = format!("{number:04}{}", "x".repeat(4092));
        client.request(&Request::post(&publisher("a"), body.as_str())).expect_status(201);
        for listener in &mut all {
            listener.expect_message(&body);
        }
    }
    assert!(nginx.messages("a") < 1000);
}

// ---- Clients that go.

fn clients_that_vanish_are_noticed(kind: Kind, workers: usize) {
    let nginx = start(kind, workers);
    for round in 0..2 {
        let all = listeners(kind, &nginx, "a", 30);
        let mut stays = kind.listen(nginx.port(), "a");
        nginx.wait_for_subscribers("a", 31);
        for (number, listener) in all.into_iter().enumerate() {
            match number % 2 {
                0 => drop(listener),
                _ => listener.into_client().reset(),
            }
        }
        nginx.wait_for_subscribers("a", 1);
        let body = format!("round {round}");
        nginx.publish("a", body.as_str()).expect_status(201);
        stays.expect_message(&body);
        drop(stays);
        nginx.wait_for_subscribers("a", 0);
        delete(&nginx, "a");
    }
}

fn a_client_that_vanishes_in_the_middle_of_a_message_does_no_harm(kind: Kind, workers: usize) {
    let nginx = start_for_slow(kind, workers, "client_max_body_size 16m;");
    let large = "x".repeat(2 << 20);
    let mut fast = kind.listen(nginx.port(), "a");
    let slow: Vec<Listener> = (0..20).map(|_| slow_listener(kind, &nginx, "a")).collect();
    nginx.wait_for_subscribers("a", 21);
    nginx.publish("a", large.as_str()).expect_status(201);
    fast.expect_message(&large);
    for (number, mut listener) in slow.into_iter().enumerate() {
        listener.client().try_peek().expect("the beginning of the message");
        match number % 2 {
            0 => drop(listener),
            _ => listener.into_client().reset(),
        }
    }
    nginx.wait_for_subscribers("a", 1);
    nginx.publish("a", "small").expect_status(201);
    fast.expect_message("small");
}

fn many_come_and_go(kind: Kind, workers: usize) {
    const CLIENTS: usize = 500;
    process::allow_open_files(4096);
    let nginx = Nginx::start(config(kind, workers).main("worker_rlimit_nofile 4096;"));
    let mut all = listeners(kind, &nginx, "a", CLIENTS);
    nginx.publish("a", "one").expect_status(201);
    for listener in &mut all {
        listener.expect_message("one");
    }
    delete(&nginx, "a");
    for listener in &mut all {
        listener.expect_end(Why::Deleted);
    }
    drop(all);
    let all = listeners(kind, &nginx, "a", CLIENTS);
    drop(all);
    nginx.wait_for_subscribers("a", 0);
}

// ---- The access log and the connection.

const LOG: &str = "log_format life '$request_method|$status|$bytes_sent|$body_bytes_sent|\
    $request_length|$connection_requests|$uri|$args|$remote_addr|$host|$http_upgrade|$pipe';";

fn log_lines(nginx: &Nginx) -> Vec<String> {
    let text = fs::read_to_string(nginx.dir().join("life.log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Deletion,
    Timeout,
    Conflict,
    Shutdown,
    ClientGone,
    ClientReset,
}

const ENDINGS: [Ending; 6] = [
    Ending::Deletion,
    Ending::Timeout,
    Ending::Conflict,
    Ending::Shutdown,
    Ending::ClientGone,
    Ending::ClientReset,
];

/// Lets a stream end and returns its line in the log.
fn line_after(kind: Kind, workers: usize, park: &str, ending: Ending) -> String {
    let text = match ending {
        Ending::Timeout => "push_subscriber_timeout 1s;",
        Ending::Conflict => "push_subscriber_concurrency last;",
        _ => "",
    };
    let config = config(kind, workers).http(LOG).http(&format!("push_park {park};"));
    let config = config.subscriber(&format!("access_log @dir@/life.log life; {text}"));
    let mut nginx = Nginx::start(config);
    let bodies = ["one", "two", ""];
    for body in bodies {
        nginx.publish("a", body).expect_status(202);
    }
    let mut listener = kind.listen(nginx.port(), "a");
    for body in bodies {
        listener.expect_message(body);
    }
    // Where nobody is faster than a second, the end may have been.
    if ending != Ending::Timeout {
        assert_eq!(log_lines(&nginx), [""; 0], "a line before the end");
    }
    let mut rival = None;
    let mut received = listener.client().received();
    let head = listener.response().head.len() as u64;
    match ending {
        Ending::Deletion => delete(&nginx, "a"),
        Ending::Timeout => {}
        Ending::Conflict => rival = Some(kind.listen(nginx.port(), "a")),
        Ending::Shutdown => {
            nginx.reload();
        }
        Ending::ClientGone | Ending::ClientReset => {}
    }
    let why = match ending {
        Ending::Deletion => Some(Why::Deleted),
        Ending::Timeout => Some(Why::Timeout),
        Ending::Conflict => Some(Why::Conflict),
        Ending::Shutdown => Some(Why::Shutdown),
        Ending::ClientGone | Ending::ClientReset => None,
    };
    let length = kind.request(&subscriber("a"), None).to_bytes().len();
    match why {
        Some(why) => {
            listener.expect_end(why);
            received = listener.client().received();
            drop(listener);
        }
        None if ending == Ending::ClientGone => drop(listener),
        None => listener.into_client().reset(),
    }
    wait::until_true("a line in the log", || !log_lines(&nginx).is_empty());
    let line = log_lines(&nginx).remove(0);
    let field = |place: usize| line.split('|').nth(place).unwrap_or_default();
    assert_eq!(field(1), kind.status().to_string(), "{ending:?}: {line}");
    assert_eq!(field(2), received.to_string(), "bytes after {ending:?}: {line}");
    assert_eq!(field(3), (received - head).to_string(), "body after {ending:?}: {line}");
    // A WebSocket's client goes on sending, and nginx may count that.
    if kind != Kind::WebSocket {
        assert_eq!(field(4), length.to_string(), "request after {ending:?}: {line}");
    }
    drop(rival);
    nginx.signal(process::Signal::QUIT);
    nginx.wait_for_exit();
    let expected = if ending == Ending::Conflict { 2 } else { 1 };
    assert_eq!(log_lines(&nginx).len(), expected, "lines after {ending:?}");
    line
}

fn the_log_has_one_line_with_what_was_sent(kind: Kind, workers: usize) {
    for ending in ENDINGS {
        let compact = line_after(kind, workers, "compact", ending);
        let plain = line_after(kind, workers, "plain", ending);
        // The time to wait that an EventSource is told at a shutdown has one to four digits.
        if ending != Ending::Shutdown || kind != Kind::EventSource {
            assert_eq!(compact, plain, "{ending:?}");
        }
    }
}

fn a_connection_serves_again_after_a_stream(kind: Kind, workers: usize) {
    for park in ["compact", "plain"] {
        let config = config(kind, workers).http(LOG).http(&format!("push_park {park};"));
        let nginx = Nginx::start(config.subscriber("access_log @dir@/life.log life;"));
        let mut client = nginx.client();
        let mut expected = Vec::new();
        for round in 1..=4 {
            client.request(&Request::get("/worker")).expect_status(200);
            let before = client.received();
            let mut listener = kind.listen_on(client, &subscriber("a"), None);
            nginx.wait_for_subscribers("a", 1);
            nginx.publish("a", "one").expect_status(201);
            listener.expect_message("one");
            delete(&nginx, "a");
            listener.expect_end(Why::Deleted);
            client = listener.into_client();
            expected.push((client.received() - before, 2 * round));
        }
        let poll = Request::get("/poll?id=a");
        nginx.park_request(&mut client, "a", &poll);
        nginx.publish("a", "two").expect_status(201);
        assert_eq!(client.response().expect_status(200).text(), "two");
        wait::until_true("four lines", || log_lines(&nginx).len() == 4);
        let found: Vec<(u64, u32)> = log_lines(&nginx)
            .iter()
            .map(|line| {
                let field = |place: usize| line.split('|').nth(place).expect("a field");
                (field(2).parse().expect("bytes"), field(5).parse().expect("requests"))
            })
            .collect();
        assert_eq!(found, expected, "{park}");
    }
}

// ---- What lies between.

fn streams_work_over_tls(kind: Kind, workers: usize) {
    if !has_or_skip("http_ssl") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let tls = dir.path().join("tls");
    make_certificate(&tls);
    let nginx = Nginx::start(
        config(kind, workers)
            .http("client_max_body_size 8m; client_body_buffer_size 8m;")
            .server("listen 127.0.0.1:@port2@ ssl;")
            .server(&format!(
                "ssl_certificate {0}/cert.pem; ssl_certificate_key {0}/key.pem;",
                tls.display()
            )),
    );
    let tunnel = Tunnel::to(nginx.port2());
    nginx.publish("a", "one");
    let mut all: Vec<Listener> = (0..3).map(|_| kind.listen(tunnel.port(), "a")).collect();
    for listener in &mut all {
        listener.expect_message("one");
    }
    nginx.wait_for_subscribers("a", 3);
    let large = "a message that takes many records ".repeat(60_000);
    for body in ["two", large.as_str(), "three", ""] {
        nginx.publish("a", body).expect_status(201);
        for listener in &mut all {
            listener.expect_message(body);
        }
    }
    drop(all.pop());
    nginx.wait_for_subscribers("a", 2);
    delete(&nginx, "a");
    for mut listener in all {
        listener.expect_end(Why::Deleted);
        if kind != Kind::WebSocket {
            listener.into_client().request(&Request::get("/worker")).expect_status(200);
        }
    }
    let mut last = kind.listen(tunnel.port(), "b");
    nginx.wait_for_subscribers("b", 1);
    nginx.signal(process::Signal::QUIT);
    last.expect_end(Why::Shutdown);
    let mut nginx = nginx;
    nginx.wait_for_exit();
}

fn messages_flow_through_a_proxying_nginx(kind: Kind, workers: usize) {
    let nginx = start_with(
        kind,
        workers,
        "server {
             listen 127.0.0.1:@port2@;
             location / {
                 access_log off;
                 proxy_pass http://127.0.0.1:@port@;
                 proxy_http_version 1.1;
                 proxy_set_header Host $host;
                 proxy_set_header Upgrade $http_upgrade;
                 proxy_set_header Connection $http_connection;
             }
         }",
    );
    nginx.publish("a", "one");
    let mut listener = kind.listen(nginx.port2(), "a");
    let mut id = listener.expect_message("one");
    nginx.wait_for_subscribers("a", 1);
    for number in 0..10 {
        let body = format!("message {number}");
        nginx.publish("a", body.as_str()).expect_status(201);
        id = listener.expect_message(&body);
    }
    if let Some(id) = id {
        let mut again = kind.listen_after(nginx.port2(), "a", &id);
        nginx.wait_for_subscribers("a", 2);
        nginx.publish("a", "last").expect_status(201);
        again.expect_message("last");
        listener.expect_message("last");
        drop(again);
        nginx.wait_for_subscribers("a", 1);
    }
    delete(&nginx, "a");
    listener.expect_end(Why::Deleted);
    drop(listener);
    let gone = kind.listen(nginx.port2(), "a");
    nginx.wait_for_subscribers("a", 1);
    drop(gone);
    nginx.wait_for_subscribers("a", 0);
}

fn messages_flow_through_gzip(kind: Kind, workers: usize) {
    let nginx = start_with(
        kind,
        workers,
        "gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any; gzip_http_version 1.0;",
    );
    // Who does not ask for it gets the stream as it is.
    let mut plain = kind.listen(nginx.port(), "a");
    assert_eq!(plain.response().header("Content-Encoding"), None);
    let request = kind.request(&subscriber("a"), None).header("Accept-Encoding", "gzip");
    let mut zipped = Body::open(nginx.client(), &request).expect("a reply");
    assert_eq!(zipped.response.header("Content-Encoding"), Some("gzip"));
    nginx.wait_for_subscribers("a", 2);
    let mut inflate = Decompress::new_gzip(15);
    let mut text = String::new();
    for number in 0..10 {
        let body = format!("message {number} that is long enough");
        nginx.publish("a", body.as_str()).expect_status(201);
        plain.expect_message(&body);
        while !text.contains(&body) {
            let chunk = zipped.read().expect("in time").expect("no end");
            text.push_str(&inflated(&mut inflate, &chunk));
        }
    }
    delete(&nginx, "a");
    plain.expect_end(Why::Deleted);
    while let Some(chunk) = zipped.read().expect("in time") {
        text.push_str(&inflated(&mut inflate, &chunk));
    }
    assert_eq!(zipped.ended(), Some(Ended::LastChunk));
    let places: Vec<usize> =
        (0..10).map(|number| text.find(&format!("message {number}")).expect("it")).collect();
    assert!(places.is_sorted(), "{text}");
    if kind != Kind::Stream {
        assert!(text.contains("deleted"), "{text}");
    }
    zipped.into_client().request(&Request::get("/worker")).expect_status(200);
}

fn inflated(inflate: &mut Decompress, bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(65536);
    inflate.decompress_vec(bytes, &mut out, FlushDecompress::Sync).expect("gzip");
    String::from_utf8(out).expect("UTF-8")
}

/// HTTP/1.1 on the first port, HTTP/2 without TLS on the second.
fn start_http2(workers: usize) -> Nginx {
    let listen = match build().version() {
        1_025_001.. => "listen 127.0.0.1:@port2@; http2 on;",
        _ => "listen 127.0.0.1:@port2@ http2;",
    };
    let location = "location /sub { push_subscriber; push_channel_id $arg_id; }";
    Nginx::start(Config::push(workers).http(&format!("server {{ {listen} {location} }}")))
}

/// A stream on a connection of HTTP/2.
struct Http2Events {
    stream: u32,
    parser: Parser,
}

impl Http2Events {
    fn open(connection: &mut Http2, stream: u32, target: &str, more: &[(&str, &str)]) -> Self {
        let fields = [&[("accept", "text/event-stream")], more].concat();
        connection.get_with(stream, target, &fields);
        assert_eq!(connection.status(stream), 200);
        Http2Events { stream, parser: Parser::default() }
    }

    /// The next event, its id and its name before its data; nothing at the end.
    fn event(&mut self, connection: &mut Http2) -> Option<(Option<String>, String, String)> {
        loop {
            match self.parser.next() {
                Some(Item::Event(event)) => return Some((event.id, event.name, event.data)),
                Some(_) => {}
                None => self.parser.feed(&connection.data(self.stream)?),
            }
        }
    }

    #[track_caller]
    fn expect_message(&mut self, connection: &mut Http2, expected: &str) -> String {
        let (id, name, data) = self.event(connection).expect("no end");
        assert_eq!((name.as_str(), data.as_str()), ("", expected));
        id.expect("an id")
    }
}

fn event_streams_work_over_http_2(workers: usize) {
    if !has_or_skip("http_v2") {
        return;
    }
    let nginx = start_http2(workers);
    let mut connection = Http2::connect(nginx.port2());
    nginx.publish("a", "one");
    let mut streams: Vec<Http2Events> = (0..5)
        .map(|number| Http2Events::open(&mut connection, 2 * number + 1, &subscriber("a"), &[]))
        .collect();
    for stream in &mut streams {
        stream.expect_message(&mut connection, "one");
    }
    nginx.wait_for_subscribers("a", 5);
    let long = "a long message ".repeat(20_000);
    let mut id = String::new();
    for body in ["two", "", long.as_str(), "three"] {
        nginx.publish("a", body).expect_status(201);
        for stream in &mut streams {
            id = stream.expect_message(&mut connection, body);
        }
    }
    let more = [("last-event-id", id.as_str())];
    let mut again = Http2Events::open(&mut connection, 21, &subscriber("a"), &more);
    nginx.wait_for_subscribers("a", 6);
    nginx.publish("a", "four").expect_status(201);
    again.expect_message(&mut connection, "four");
    for stream in &mut streams {
        stream.expect_message(&mut connection, "four");
    }
    delete(&nginx, "a");
    for stream in streams.iter_mut().chain([&mut again]) {
        let (_, name, data) = stream.event(&mut connection).expect("an event");
        assert_eq!((name.as_str(), data.as_str()), ("end", "{\"reason\":\"deleted\"}"));
        assert_eq!(stream.event(&mut connection), None);
    }
    // The connection goes on.
    nginx.publish("b", "five");
    let mut next = Http2Events::open(&mut connection, 31, &subscriber("b"), &[]);
    next.expect_message(&mut connection, "five");
    let old = nginx.reload();
    assert_eq!(next.event(&mut connection), None);
    nginx.wait_gone(&old);
}

fn json_streams_work_over_http_2(workers: usize) {
    if !has_or_skip("http_v2") {
        return;
    }
    let nginx = start_http2(workers);
    let mut connection = Http2::connect(nginx.port2());
    connection.get_with(1, &subscriber("a"), &[("accept", "application/x-ndjson")]);
    assert_eq!(connection.status(1), 200);
    nginx.wait_for_subscribers("a", 1);
    let mut text = Vec::new();
    for number in 0..10 {
        nginx.publish("a", format!("message {number}")).expect_status(201);
        while !text.ends_with(format!("\"message {number}\"}}\n").as_bytes()) {
            text.extend(connection.data(1).expect("no end"));
        }
    }
    delete(&nginx, "a");
    while let Some(data) = connection.data(1) {
        text.extend(data);
    }
    let text = String::from_utf8(text).expect("UTF-8");
    assert_eq!(text.lines().filter(|line| !line.is_empty()).count(), 11, "{text}");
    assert!(text.ends_with("{\"end\":\"deleted\"}\n"), "{text}");
}

fn a_cancelled_stream_of_http_2_is_no_longer_counted(workers: usize) {
    if !has_or_skip("http_v2") {
        return;
    }
    let nginx = start_http2(workers);
    let mut connection = Http2::connect(nginx.port2());
    let mut first = Http2Events::open(&mut connection, 1, &subscriber("a"), &[]);
    let _second = Http2Events::open(&mut connection, 3, &subscriber("a"), &[]);
    nginx.wait_for_subscribers("a", 2);
    connection.cancel(3);
    nginx.wait_for_subscribers("a", 1);
    nginx.publish("a", "one").expect_status(201);
    first.expect_message(&mut connection, "one");
    drop(connection);
    nginx.wait_for_subscribers("a", 0);
    // A client of HTTP/1.1 is none the worse.
    let client: Client = nginx.client();
    let mut listener = Kind::EventSource.listen_on(client, &subscriber("a"), None);
    listener.expect_message("one");
}

/// Each format is rendered once for all and kept with its message, but only so much of all together.
#[test]
fn what_is_kept_of_messages_has_a_limit_whatever_their_formats() {
    const FORMATS: usize = 6;
    const LENGTH: usize = 200_000;
    let nginx = Nginx::start(
        Config::push(1)
            .http("push_shared_memory_size 4m; push_message_buffer_length 2; client_max_body_size 1m;")
            .http("client_body_buffer_size 512k; push_channel_id $arg_id;")
            .server("location /lines { push_subscriber stream; } location /page { push_subscriber iframe; }"),
    );
    let worker = nginx.workers()[0];
    if process::is_watched(worker) {
        return;
    }
    let mut listeners = vec![
        Kind::EventSource.listen(nginx.port(), "a"),
        Kind::WebSocket.listen(nginx.port(), "a"),
        Kind::JsonLines.listen(nginx.port(), "a"),
        Kind::Stream.listen_on(nginx.client(), "/lines?id=a", None),
    ];
    let mut page = Lines::open(nginx.port(), &Request::get("/page?id=a"));
    let mut bare = Handshake::to(&subscriber("a")).open(nginx.port());
    nginx.wait_for_subscribers("a", FORMATS as u64);
    let mut publish = |number: usize| {
        let body = format!("{number} {}", "m".repeat(LENGTH));
        nginx.publish("a", body.as_str());
        for listener in &mut listeners {
            listener.expect_message(&body);
        }
        bare.expect_text(&body);
        while !page.text().contains(&body) {}
    };
    publish(0);
    let before = process::private_memory(worker);
    (1..40).for_each(&mut publish);
    let more = process::private_memory(worker).saturating_sub(before);
    // 8 MB; what was sent last and the allocator's own come on top.
    assert!(more < 16 << 20, "{more} more bytes");
}
