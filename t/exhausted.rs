//! Tests for what is used up: descriptors, connections, the zone, the disk, memory. Who asks for more is told; nothing that
//! was acknowledged is lost; and once there is enough again, everything works, without a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, thread};

use serde_json::{json, Value};
use support::disk::Tiny;
use support::event_source::EventSource;
use support::lines::{json_request, Lines};
use support::process::Resource;
use support::push::{assert_same_bytes, pattern, publisher, subscriber};
use support::streams::{End, Kind, News, Why};
use support::websocket::{deflate, Frame, Handshake, RSV1};
use support::{
    load, on_1_and_4_workers, process, wait, Client, Config, Cursor, Info, Nginx, Request,
    Response, Signal,
};

on_1_and_4_workers!(
    descriptors_are_used_up,
    connections_are_used_up,
    a_full_zone_loses_nothing_in_silence,
    what_a_full_zone_has_lost_is_told_to_the_last_message,
    a_zone_full_of_those_who_wait_refuses_until_they_go,
    a_full_disk_refuses_bodies_until_messages_go,
    a_disk_without_room_for_names_publishes_to_none,
    files_that_may_not_grow_end_nobody,
    a_snapshot_that_may_not_grow_is_told_of,
    a_large_message_waits_for_memory,
    a_large_file_waits_for_memory_to_be_rendered,
    what_a_websocket_says_finds_no_memory,
    a_crowd_ends_where_memory_does,
);

fn config(workers: usize) -> Config {
    Config::push(workers)
        .http("client_max_body_size 64m; push_message_buffer_length 100;")
        .server("location = /interval { push_subscriber interval-poll; push_channel_id $arg_id; }")
        .server("location = /lines { push_subscriber stream; push_channel_id $arg_id; }")
        .server("location = /jsonp { push_subscriber jsonp; push_channel_id $arg_id; }")
        .server(
            "location = /both { push_pubsub; push_channel_id $arg_id; push_websocket_channels *; }",
        )
        .server(
            "location = /together {
                push_subscriber interval-poll; push_poll_messages joined; push_channel_id $arg_id;
            }",
        )
}

/// Panics unless messages of all sizes go through.
#[track_caller]
fn expect_service(nginx: &Nginx) {
    let mut waiting = nginx.park("service");
    nginx.publish("service", "small").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "small");
    nginx.publish("service", pattern(300_000)).expect_status(202);
    assert_same_bytes(&nginx.poll_all("service")[1].body, &pattern(300_000));
    nginx.request(&Request::new("DELETE", &publisher("service"))).expect_status(200);
}

#[track_caller]
fn expect_come_back(response: Response) {
    let response = response.expect_status(503);
    assert_eq!(response.header("Retry-After"), Some("1"));
    assert!(response.text().ends_with("Ask again in a second."), "{}", response.text());
}

/// Lets no worker have more of a resource than what `most` says.
fn limit_workers(nginx: &Nginx, resource: Resource, most: impl Fn(i32) -> u64) {
    for worker in nginx.workers() {
        process::limit(worker, resource, most(worker));
    }
}

fn lift_limits(nginx: &Nginx, resource: Resource) {
    for worker in nginx.workers() {
        process::lift_limit(worker, resource);
    }
}

// ---- Descriptors.

fn descriptors_are_used_up(workers: usize) {
    let mut nginx = Nginx::start(config(workers));
    if process::is_under_valgrind(nginx.master()) {
        eprintln!("skipped: valgrind has its own descriptors, above all that nginx can have");
        return;
    }
    nginx.tolerate("Too many open files");
    // After it had none, nginx tries again in a moment, also if its sockets have been closed meanwhile.
    nginx.tolerate("accept4() failed (9: Bad file descriptor)");
    nginx.publish("large", pattern(1 << 20));
    let mut waiting: Vec<Client> = (0..8).map(|_| nginx.park("a")).collect();
    let before = nginx.workers();
    let mut known = nginx.client_of_each_worker(workers);
    limit_workers(&nginx, Resource::Nofile, |pid| process::next_descriptor(pid) + 2);
    let mut flood: Vec<Client> = Vec::new();
    wait::until_true("the end of descriptors", || {
        flood.extend((0..5).map(|_| nginx.client()));
        let log = nginx.error_log();
        let is_full = |pid: &String| {
            let mark = format!(" {pid}#{pid}: ");
            log.lines().any(|line| line.contains(&mark) && line.contains("Too many open files"))
        };
        known.iter().all(|(pid, _)| is_full(pid))
    });

    // Those that are there go on.
    for (_, client) in &mut known {
        // It is there, and cannot be opened now.
        expect_come_back(client.request(&Request::get("/interval?id=large")));
        let script = client.request(&Request::get("/jsonp?id=large&callback=take"));
        assert!(script.expect_status(200).text().starts_with("/**/take([{\"error\":503,"));
        client.send(&json_request("/lines?id=large"));
        let response = client.response().expect_status(200);
        assert_eq!(response.text(), "{\"end\":\"shutdown\"}\n");
    }
    let (_, client) = &mut known[0];
    client.request(&Request::post(&publisher("a"), "one")).expect_status(201);
    for client in &mut waiting {
        assert_eq!(client.response().expect_status(200).text(), "one");
    }
    for (_, client) in &mut known {
        let request = Request::post(&publisher("a"), pattern(100_000));
        client.request(&request).expect_status(500);
    }
    drop((flood, waiting, known));

    wait::until_true("service", || {
        let client = Client::try_connect(nginx.port());
        let request = Request::get("/interval?id=large");
        client.and_then(|mut client| client.try_request(&request)).is_ok_and(|it| it.status == 200)
    });
    assert_eq!(nginx.queue("a"), ["one"]);
    assert_same_bytes(&nginx.poll("large", &Cursor::none()).body, &pattern(1 << 20));
    lift_limits(&nginx, Resource::Nofile);
    expect_service(&nginx);
    assert_eq!(nginx.workers(), before);
}

// ---- Connections.

fn connections_are_used_up(workers: usize) {
    let config = config(workers)
        .events("worker_connections 48;")
        .http("client_header_timeout 2s;")
        .publisher("push_message_buffer_length 10000;");
    let mut nginx = Nginx::start(config);
    nginx.tolerate("worker_connections are not enough");
    let (port, done) = (nginx.port(), AtomicBool::new(false));
    let (acknowledged, received) = thread::scope(|scope| {
        let stop = load::Stop(&done);
        let followers: Vec<_> = (0..3).map(|_| scope.spawn(|| follow(port, "a"))).collect();
        let floods = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let flood: Vec<Client> = (0..workers * 60)
                    .filter_map(|number| {
                        let mut client = Client::try_connect(port).ok()?;
                        let request = Request::get(&subscriber("flood")).to_bytes();
                        client.try_send_bytes(&request[..number % request.len()]).ok()?;
                        Some(client)
                    })
                    .collect();
                thread::sleep(Duration::from_millis(20));
                drop(flood);
            }
        });
        let publishers: Vec<_> = (0..2)
            .map(|number| scope.spawn(move || publish(port, "a", &format!("p{number}"), 100, 10)))
            .collect();
        let acknowledged: Vec<_> =
            publishers.into_iter().map(|thread| thread.join().unwrap()).collect();
        drop(stop);
        floods.join().unwrap();
        publish_until_taken(port, "a", load::END);
        let received: Vec<_> = followers.into_iter().map(|thread| thread.join().unwrap()).collect();
        (acknowledged, received)
    });
    load::assert_complete(&acknowledged, &received);
    nginx.wait_for_end_of_flood("flood");
    expect_service(&nginx);
}

/// Sends a message once. Whether it was acknowledged; if not, it may be there or not.
fn try_publish(port: u16, id: &str, body: &str) -> bool {
    let request = Request::post(&publisher(id), body).header("Connection", "close");
    let client = Client::try_connect(port);
    let response = client.and_then(|mut client| client.try_request(&request));
    response.is_ok_and(|response| match response.status {
        201 | 202 => true,
        500 | 503 => false,
        _ => panic!("not accepted:\n{}", response.head),
    })
}

/// Publishes `count` messages of about `length` bytes, each with another body until it is acknowledged.
fn publish(port: u16, id: &str, name: &str, count: usize, length: usize) -> Vec<String> {
    let mut attempts = 0;
    let mut acknowledged = Vec::new();
    while acknowledged.len() < count {
        let body = format!("{name}-{attempts}-{}", "x".repeat(length));
        attempts += 1;
        assert!(attempts < 100 * count, "{} of {count} were acknowledged", acknowledged.len());
        match try_publish(port, id, &body) {
            true => acknowledged.push(body),
            false => thread::sleep(Duration::from_millis(5)),
        }
    }
    acknowledged
}

fn publish_until_taken(port: u16, id: &str, body: &str) {
    wait::until_true("the last message", || try_publish(port, id, body));
}

/// Follows a channel to [`load::END`] and comes back as often as it takes. Panics if the server says that messages were
/// missed.
fn follow(port: u16, id: &str) -> Vec<String> {
    let mut bodies: Vec<String> = Vec::new();
    let mut cursor = Cursor::none();
    loop {
        let request = cursor.apply(Request::get(&subscriber(id)));
        let client = Client::try_connect(port);
        let Ok(response) = client.and_then(|mut client| client.try_request(&request)) else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        match response.status {
            200 => {
                assert_eq!(response.header("Push-Missed"), None, "after {:?}", bodies.last());
                cursor = Cursor::after(&response);
                match response.text() {
                    load::END => return bodies,
                    body => bodies.push(body.to_owned()),
                }
            }
            304 | 500 | 503 => thread::sleep(Duration::from_millis(5)),
            _ => panic!("unexpected reply:\n{}", response.head),
        }
    }
}

// ---- The zone.

/// Reads up to `max` messages after a cursor, each of which begins with its number. `next` is the number that comes next:
/// what is between is told as missed.
fn read_on(client: &mut Client, cursor: &mut Cursor, next: &mut u64, max: usize) {
    for _ in 0..max {
        let response = client.request(&cursor.apply(Request::get("/interval?id=a")));
        if response.status == 304 {
            return;
        }
        let response = response.expect_status(200);
        let missed = response.header("Push-Missed").map_or(0, |text| text.parse().expect("exact"));
        *next += missed;
        let number: u64 = response.text().split(' ').next().unwrap().parse().unwrap();
        assert_eq!(number, *next, "after {missed} missed");
        *next += 1;
        *cursor = Cursor::after(&response);
    }
}

fn a_full_zone_loses_nothing_in_silence(workers: usize) {
    let nginx = Nginx::start(
        config(workers)
            .http("push_shared_memory_size 1m;")
            .publisher("push_message_buffer_length 100000;"),
    );
    let [mut publisher_client, mut client] = [nginx.client(), nginx.client()];
    let (mut cursor, mut next) = (Cursor::none(), 0);
    for number in 0..2_000_u64 {
        let body = format!("{number} {}", "x".repeat(2_000));
        publisher_client.request(&Request::post(&publisher("a"), body)).expect_status(202);
        // It reads so slowly that the log overtakes it again and again.
        if number % 50 == 0 {
            read_on(&mut client, &mut cursor, &mut next, 3);
        }
    }
    assert!(next < 1_990, "the log was not full");
    read_on(&mut client, &mut cursor, &mut next, usize::MAX);
    assert_eq!(next, 2_000);
    // nginx's default level shows it: what was acknowledged has gone before its time.
    wait::until_true("a line about it", || {
        let log = nginx.error_log();
        log.lines().any(|line| line.contains("[error]") && line.contains("zone is full"))
    });
}

/// Messages that went before their time, as the error log counts them.
fn told_of(nginx: &Nginx) -> u64 {
    let log = nginx.error_log();
    let told = log.lines().filter_map(|line| line.split_once("zone is full: "));
    told.map(|(_, text)| text.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn what_a_full_zone_has_lost_is_told_to_the_last_message(workers: usize) {
    let mut nginx = Nginx::start(
        config(workers)
            .http("push_shared_memory_size 1m;")
            .publisher("push_message_buffer_length 100000;"),
    );
    let mut client = nginx.client();
    let mut publish = |count: usize| {
        for _ in 0..count {
            client.request(&Request::post(&publisher("a"), "x".repeat(2_000))).expect_status(202);
        }
    };
    publish(1_000);
    wait::until_true("a line about it", || told_of(&nginx) > 0);
    // Within a minute of that line.
    publish(100);
    let left = nginx.messages("a");
    nginx.stop(Signal::QUIT);
    assert_eq!(told_of(&nginx), 1_100 - left);
}

fn a_zone_full_of_those_who_wait_refuses_until_they_go(workers: usize) {
    let nginx = Nginx::start(config(workers).http("push_shared_memory_size 256k;"));
    let mut published = 20;
    for number in 0..published {
        nginx.publish("a", format!("{number} {}", "x".repeat(100)));
    }
    let last = Cursor::after(nginx.poll_all("a").last().unwrap());
    let _keeps_the_channel = nginx.park_after("a", &last);
    let mut client = nginx.client();
    let (mut cursor, mut next) = (Cursor::none(), 0);
    read_on(&mut client, &mut cursor, &mut next, 5);
    // Each name takes ten blocks, and none can go while somebody waits.
    let mut sockets = Vec::new();
    let refused = 'full: loop {
        assert!(sockets.len() < 20, "the zone is never full");
        let connection = sockets.len();
        sockets.push(Handshake::to("/both?id=first").protocols("push.json").open(nginx.port()));
        let socket = sockets.last_mut().unwrap();
        for number in 0..254 {
            let name = format!("{connection}-{number}-{}", "n".repeat(1_000));
            socket.send_text(&json!({ "subscribe": name }).to_string());
            let answer: Value = serde_json::from_str(socket.message().as_text()).unwrap();
            if answer.get("error").is_some() {
                break 'full answer;
            }
        }
    };
    assert_eq!(refused["error"], 507, "{refused}");
    let full = nginx.request(&Request::post(&publisher("new"), pattern(10_000)));
    assert!(full.expect_status(507).text().contains("shared memory"));
    nginx.get(&publisher("new")).expect_status(404);
    // What has gone for them will be told.
    read_on(&mut client, &mut cursor, &mut next, usize::MAX);
    let more = nginx.request(&Request::post(&publisher("a"), format!("{published} more")));
    assert!([201, 507].contains(&more.status), "{}", more.head);
    published += u64::from(more.status == 201);

    drop(sockets);
    nginx.wait_for_subscribers("first", 0);
    nginx.publish("new", pattern(10_000));
    nginx.publish("a", format!("{published} at last"));
    read_on(&mut client, &mut cursor, &mut next, usize::MAX);
    assert_eq!(next, published + 1);
    expect_service(&nginx);
}

// ---- The disk.

/// Files in the directory for large bodies, but for locks.
fn files_of(nginx: &Nginx) -> Vec<PathBuf> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => walk(&path, found),
                false if path.ends_with("lock") => {}
                false => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    walk(&nginx.dir().join("temp_client_body"), &mut found);
    found
}

fn a_full_disk_refuses_bodies_until_messages_go(workers: usize) {
    let mut nginx = Nginx::start(config(workers));
    let path = nginx.dir().join("temp_client_body");
    let Some(_tiny) = Tiny::mount(path, "size=512k") else { return };
    nginx.tolerate("No space left on device");
    nginx.tolerate("has written only");
    let body = |number| [format!("{number} ").into_bytes(), pattern(100_000)].concat();
    let mut taken = 0;
    let refused = loop {
        let response = nginx.request(&Request::post(&publisher("a"), body(taken)));
        if response.status != 202 {
            break response;
        }
        taken += 1;
        assert!(taken < 10, "the disk is never full");
    };
    refused.expect_status(500);
    assert!(taken >= 3, "{taken} were taken");
    nginx.publish("a", format!("{taken} small"));
    let stored = nginx.poll_all("a");
    assert_eq!(stored.len(), taken + 1);
    for (number, response) in stored.iter().take(taken).enumerate() {
        assert_same_bytes(&response.body, &body(number));
    }
    wait::until_true("the end of what was refused", || files_of(&nginx).len() == taken);
    nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
    wait::until_true("the files' end", || files_of(&nginx).is_empty());
    expect_service(&nginx);
}

fn a_disk_without_room_for_names_publishes_to_none(workers: usize) {
    // The file system's own directory and a body; beside them ours, its lock, another name of the body.
    for (names, ids) in [(2, "a"), (3, "a"), (5, "a,b,c")] {
        let mut nginx = Nginx::start(config(workers).server(
            "location = /several {
                push_publisher; push_channel_id $arg_id; push_channel_id_split_delimiter ',';
            }",
        ));
        nginx.tolerate("No space left on device");
        let path = nginx.dir().join("temp_client_body");
        let Some(tiny) = Tiny::mount(path, &format!("size=4m,nr_inodes={names}")) else { return };
        let several = |ids: &str| {
            nginx.request(&Request::post(&format!("/several?id={ids}"), pattern(100_000)))
        };
        let refused = several(ids).expect_status(507);
        let sentence = "The message was not published: its body cannot be kept on disk.";
        assert_eq!(refused.text(), sentence);
        assert_eq!(["a", "b", "c"].map(|id| nginx.messages(id)), [0, 0, 0]);
        wait::until_true("the files' end", || files_of(&nginx).is_empty());
        if names == 5 {
            // The worker that has refused the others may not have closed their body yet.
            wait::until_true("room for two", || several("a,b").status == 202);
            several("a,b").expect_status(500);
            for id in ["a", "b"] {
                assert_eq!(nginx.messages(id), 1);
                assert_same_bytes(&nginx.poll(id, &Cursor::none()).body, &pattern(100_000));
            }
        }
        // With room, all is as it was.
        drop(tiny);
        several("c").expect_status(202);
        assert_same_bytes(&nginx.poll("c", &Cursor::none()).body, &pattern(100_000));
    }
}

fn files_that_may_not_grow_end_nobody(workers: usize) {
    let mut nginx = Nginx::start(config(workers));
    nginx.tolerate("File too large");
    nginx.tolerate("has written only");
    let before = nginx.workers();
    let mut waiting = nginx.park("a");
    limit_workers(&nginx, Resource::Fsize, |_| 64 << 10);
    for _ in 0..4 {
        nginx.request(&Request::post(&publisher("a"), pattern(300_000))).expect_status(500);
    }
    waiting.expect_silence();
    nginx.publish("a", "small").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "small");
    wait::until_true("the files' end", || files_of(&nginx).is_empty());
    lift_limits(&nginx, Resource::Fsize);
    expect_service(&nginx);
    assert_eq!(nginx.workers(), before);
}

fn a_snapshot_that_may_not_grow_is_told_of(workers: usize) {
    let mut nginx = Nginx::start(config(workers).http("push_snapshot state/messages;"));
    let state = nginx.dir().join("state");
    fs::create_dir(&state).unwrap();
    for number in 0..20 {
        nginx.publish("a", pattern(10_000 + number));
    }
    process::limit(nginx.master(), Resource::Fsize, 100 << 10);
    nginx.stop(Signal::QUIT);
    let log = nginx.error_log();
    assert!(log.contains("they are lost: File too large"), "{log}");
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    nginx.start_again();
    nginx.publish("a", "again");
    nginx.restart(Signal::QUIT);
    assert_eq!(nginx.queue("a"), ["again"]);
}

// ---- Memory.

/// Starts nginx for a test of [`leave_memory`].
fn start_short(config: Config) -> Nginx {
    let mut nginx = Nginx::start(config);
    nginx.tolerate("Cannot allocate memory");
    nginx
}

/// Lets the workers have so many bytes more than they have. False where that cannot be tested, and the test should end.
fn leave_memory(nginx: &Nginx, spare: usize) -> bool {
    if nginx.workers().into_iter().any(process::is_watched) {
        eprintln!("SKIPPED: a tool watches the memory");
        return false;
    }
    limit_workers(nginx, Resource::As, |pid| {
        process::address_space(pid).expect("the worker runs") + spare as u64
    });
    true
}

const MB: usize = 1 << 20;

/// The streams at `/sub` and `/lines` of a channel all end, without a gap, and tell their clients to come back.
#[track_caller]
fn expect_streams_come_back(nginx: &Nginx, id: &str) {
    let end = News::End(End { why: Some(Why::Shutdown), orderly: true });
    for (kind, target) in [
        (Kind::EventSource, subscriber(id)),
        (Kind::WebSocket, subscriber(id)),
        (Kind::JsonLines, format!("/lines?id={id}")),
    ] {
        let mut listener = kind.listen_on(nginx.client(), &target, None);
        assert_eq!(listener.response().header("Push-Missed"), None);
        assert_eq!(listener.next(), end, "{kind:?}");
    }
}

fn a_large_message_waits_for_memory(workers: usize) {
    let nginx = start_short(
        config(workers).http("push_shared_memory_size 64m; client_body_buffer_size 16m;"),
    );
    let (large, before) = (vec![b'x'; 12 * MB], nginx.workers());
    nginx.publish("large", large.clone());
    let mut waiting = nginx.client();
    nginx.park_request(&mut waiting, "a", &Request::get("/jsonp?id=a&callback=take"));
    let mut known = nginx.client_of_each_worker(workers);
    if !leave_memory(&nginx, 6 * MB) {
        return;
    }
    for (_, client) in &mut known {
        expect_come_back(client.request(&Request::get("/sub?id=large")));
        expect_come_back(client.request(&Request::get("/interval?id=large")));
        expect_come_back(client.request(&Request::get("/together?id=large")));
        let script = client.request(&Request::get("/jsonp?id=large&callback=take"));
        assert!(script.expect_status(200).text().starts_with("/**/take([{\"error\":503,"));
    }
    expect_streams_come_back(&nginx, "large");
    // One that waits, too: as a script it would take more than the publisher's request.
    nginx.publish("a", &large[..3 * MB]).expect_status(201);
    let script = waiting.response().expect_status(200);
    assert!(script.text().starts_with("/**/take([{\"error\":503,"), "{}", script.text());
    nginx.request(&Request::post(&publisher("b"), large.clone())).expect_status(500);
    nginx.get(&publisher("b")).expect_status(404);
    expect_service(&nginx);

    lift_limits(&nginx, Resource::As);
    for (id, body) in [("a", &large[..3 * MB]), ("large", &large)] {
        assert!(nginx.poll(id, &Cursor::none()).expect_status(200).body == body);
        let mut events = EventSource::open(nginx.port(), &subscriber(id));
        assert!(events.event().data.as_bytes() == body);
    }
    assert_eq!(nginx.workers(), before);
}

fn a_large_file_waits_for_memory_to_be_rendered(workers: usize) {
    let nginx = start_short(config(workers));
    let (large, before) = (vec![b'x'; 6 * MB], nginx.workers());
    nginx.publish("large", large.clone());
    if !leave_memory(&nginx, 8 * MB) {
        return;
    }
    // As it is, it goes from the file to the client.
    assert!(nginx.get("/interval?id=large").expect_status(200).body == large);
    expect_come_back(nginx.get("/together?id=large"));
    expect_streams_come_back(&nginx, "large");
    lift_limits(&nginx, Resource::As);
    assert!(nginx.get("/together?id=large").expect_status(200).body.starts_with(&large));
    let mut lines = Lines::open(nginx.port(), &json_request("/lines?id=large"));
    assert!(lines.json()["data"].as_str().unwrap().as_bytes() == large);
    assert_eq!(nginx.workers(), before);
}

fn what_a_websocket_says_finds_no_memory(workers: usize) {
    let nginx = start_short(config(workers).http("push_shared_memory_size 64m;"));
    let before = nginx.workers();
    let mut waiting = nginx.park("other");
    let plain = Handshake::to("/both?id=a");
    let compressed = plain.clone().extensions("permessage-deflate");
    let mut small = compressed.open(nginx.port());
    let mut large = plain.open(nginx.port());
    let mut json = plain.clone().protocols("push.json").open(nginx.port());
    if !leave_memory(&nginx, 3 * MB) {
        return;
    }
    let bomb = Frame::text(deflate(&vec![b'x'; 8 * MB])).rsv(RSV1);
    small.send(std::slice::from_ref(&bomb));
    assert_eq!(small.expect_close(Some(1013)), "no memory for the message");

    // It is told although it goes on.
    let frame = Frame::text(vec![b'x'; 8 * MB]).to_bytes(Some([1, 2, 3, 4]));
    large.client().give_up_sending_after(Duration::from_millis(500));
    for piece in frame.chunks(MB / 4) {
        if large.client().try_send_bytes(piece).is_err() || large.client().has_bytes() {
            break;
        }
    }
    let close = large.frame();
    assert_eq!(
        (close.close_code(), close.close_reason()),
        (Some(1013), "no memory for the message")
    );

    let command = json!({"publish": "x".repeat(MB / 2), "request": 7});
    json.send_text(&command.to_string());
    let answer: Value = serde_json::from_str(json.message().as_text()).unwrap();
    assert_eq!(answer["error"], 503, "{answer}");
    json.send_text(&json!({"publish": "small"}).to_string());
    json.message();
    nginx.publish("other", "small").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "small");
    assert_eq!(nginx.queue("a"), ["small"]);

    lift_limits(&nginx, Resource::As);
    let mut again = compressed.open(nginx.port());
    again.send(&[bomb]);
    nginx.wait_for_messages("a", 2);
    assert_eq!(nginx.workers(), before);
}

fn a_crowd_ends_where_memory_does(workers: usize) {
    const MOST: usize = 6_000;
    process::allow_open_files(9_000);
    let nginx = start_short(
        config(workers).main("worker_rlimit_nofile 9000;").events("worker_connections 9000;"),
    );
    let (before, mut observer) = (nginx.workers(), nginx.client());
    let mut known = || {
        let request = Request::get(&publisher("a")).header("Accept", "application/json");
        let response = observer.request(&request);
        if response.status == 404 {
            0
        } else {
            Info::parse_json(response.text()).subscribers
        }
    };
    if !leave_memory(&nginx, 6 * MB) {
        return;
    }
    let request = Request::get(&subscriber("a")).header("Cookie", &"c".repeat(7_000));
    let (mut waiting, mut refused) = (Vec::new(), 0);
    while refused < 20 {
        assert!(waiting.len() < MOST, "memory never ends");
        let mut some: Vec<Client> = (0..50).map(|_| nginx.client()).collect();
        some.iter_mut().for_each(|client| client.send(&request));
        wait::until_true("a place or an answer for all", || {
            let answered = some.iter_mut().map(Client::has_bytes).filter(|has| *has).count();
            known() == (waiting.len() + some.len() - answered) as u64
        });
        for mut client in some {
            if client.has_bytes() {
                refused += 1;
                // nginx itself may have had no memory for the request, or not even for the connection.
                if let Ok(response) = client.try_response() {
                    assert!([500, 503].contains(&response.status), "{}", response.head);
                }
            } else {
                waiting.push(client);
            }
        }
    }
    nginx.publish("a", "one").expect_status(201);
    for client in &mut waiting {
        assert_eq!(client.response().expect_status(200).text(), "one");
    }
    drop(waiting);
    wait::until_true("the end of the crowd", || known() == 0);
    expect_service(&nginx);
    assert_eq!(nginx.workers(), before);
}

#[test]
fn nothing_is_lost_while_memory_runs_out() {
    const WORKERS: usize = 4;
    let mut nginx = start_short(
        config(WORKERS)
            .http("client_body_buffer_size 64k;")
            .publisher("push_message_buffer_length 10000;"),
    );
    nginx.tolerate("exited on signal 6");
    nginx.tolerate("was locked by");
    if nginx.workers().into_iter().any(process::is_watched) {
        eprintln!("SKIPPED: a tool watches the memory");
        return;
    }
    let (port, done) = (nginx.port(), AtomicBool::new(false));
    let (acknowledged, received) = thread::scope(|scope| {
        let stop = load::Stop(&done);
        let followers: Vec<_> = (0..4).map(|_| scope.spawn(|| follow(port, "a"))).collect();
        let publishers: Vec<_> = (0..3)
            .map(|number| {
                scope.spawn(move || publish(port, "a", &format!("p{number}"), 100, 20_000))
            })
            .collect();
        let tight = scope.spawn(|| {
            let mut spare = 0;
            while !done.load(Ordering::Relaxed) {
                spare = (spare + 37) % 256;
                // One that serves: nginx does not replace a worker that ends before it has begun.
                let client = Client::try_connect(port);
                let reply =
                    client.and_then(|mut client| client.try_request(&Request::get("/worker")));
                let Some(worker) = reply.ok().and_then(|reply| reply.text().parse().ok()) else {
                    continue;
                };
                let Some(space) = process::address_space(worker) else { continue };
                process::limit(worker, Resource::As, space + (spare << 10));
                thread::sleep(Duration::from_millis(20));
                process::lift_limit(worker, Resource::As);
            }
        });
        let acknowledged: Vec<_> =
            publishers.into_iter().map(|thread| thread.join().unwrap()).collect();
        drop(stop);
        tight.join().unwrap();
        publish_until_taken(port, "a", load::END);
        let received: Vec<_> = followers.into_iter().map(|thread| thread.join().unwrap()).collect();
        (acknowledged, received)
    });
    load::assert_complete(&acknowledged, &received);
    wait::until_true("all workers", || nginx.workers().len() == WORKERS);
    nginx.wait_for_subscribers("a", 0);
    expect_service(&nginx);
}
