//! Tests for what can happen to a client while it waits, with both ways to park.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use support::nginx::{has_or_skip, make_certificate};
use support::push::{publisher, subscriber, Info};
use support::{load, process, wait, Client, Config, Cursor, Nginx, Request, Signal};

const WAYS: [&str; 2] = ["compact", "plain"];

fn parking(park: &str) -> Config {
    Config::push(1).http(&format!("push_park {park};"))
}

fn get(id: &str) -> Request {
    Request::get(&subscriber(id))
}

/// A connection that the worker knows already.
fn known_client(nginx: &Nginx) -> Client {
    let mut client = nginx.client();
    client.request(&Request::get("/worker")).expect_status(200);
    client
}

/// Has the only worker meet all that is sent here at once: in one turn of its event loop, in this order.
fn in_one_turn(nginx: &Nginx, send: impl FnOnce()) {
    let worker = nginx.workers()[0];
    process::stop(worker);
    send();
    process::signal(worker, Signal::CONT);
}

/// Waits for so many lines about subscribers, and panics if there are more.
fn subscriber_lines(nginx: &Nginx, count: usize) -> Vec<String> {
    let read = || {
        let log = nginx.access_log();
        let lines: Vec<String> = log.into_iter().filter(|line| line.contains("/sub")).collect();
        (lines.len() >= count).then_some(lines)
    };
    let lines = wait::until("a line for each request", read);
    assert_eq!(lines.len(), count, "{lines:?}");
    lines
}

fn assert_all(lines: &[String], status: &str) {
    let has_status = |line: &String| line.split(' ').nth(2) == Some(status);
    assert!(lines.iter().all(has_status), "not all {status}: {lines:?}");
}

#[test]
fn what_is_sent_while_parked_is_answered_next() {
    for park in WAYS {
        let nginx = Nginx::start(parking(park));
        let mut client = nginx.park("a");
        client.send(&Request::get("/worker"));
        client.expect_silence();
        nginx.publish("a", "one").expect_status(201);
        assert_eq!(client.response().expect_status(200).text(), "one");
        assert_ne!(client.response().expect_status(200).text(), "");
        // Both at once: the second is in nginx's buffer when the first begins to wait.
        client.send_bytes(&[get("b").to_bytes(), Request::get("/worker").to_bytes()].concat());
        nginx.wait_for_subscribers("b", 1);
        nginx.publish("b", "two").expect_status(201);
        assert_eq!(client.response().expect_status(200).text(), "two");
        assert_ne!(client.response().expect_status(200).text(), "");
        // Something is waiting to be read when the client goes.
        let mut client = nginx.park("c");
        client.send(&Request::get("/worker"));
        drop(client);
        nginx.wait_for_subscribers("c", 0);
        subscriber_lines(&nginx, 3);
    }
}

#[test]
fn many_polls_at_once_on_one_connection() {
    const COUNT: usize = 30;
    for park in WAYS {
        let config = parking(park).http("log_format pipe '$pipe';");
        let nginx = Nginx::start(config.subscriber("access_log @dir@/pipe.log pipe;"));
        let mut client = nginx.client();
        let polls: Vec<Vec<u8>> = (0..COUNT).map(|n| get(&format!("c{n}")).to_bytes()).collect();
        client.send_bytes(&polls.concat());
        for number in 0..COUNT {
            nginx.wait_for_subscribers(&format!("c{number}"), 1);
            client.expect_silence();
            nginx.publish(&format!("c{number}"), format!("{number}")).expect_status(201);
            assert_eq!(client.response().expect_status(200).text(), format!("{number}"));
        }
        client.request(&Request::get("/worker")).expect_status(200);
        let log = fs::read_to_string(nginx.dir().join("pipe.log")).expect("a log");
        assert_eq!(log, format!(".\n{}", "p\n".repeat(COUNT - 1)));
    }
}

/// A request that fills nginx's buffer exactly, so that nginx has not seen what follows when it begins to wait.
fn of_1_kilobyte(id: &str) -> Vec<u8> {
    let short = get(id).header("X-Fill", "").to_bytes().len();
    let request = get(id).header("X-Fill", &"x".repeat(1024 - short)).to_bytes();
    assert_eq!(request.len(), 1024);
    request
}

#[test]
fn what_follows_a_request_that_fills_the_buffer_is_answered_next() {
    for park in WAYS {
        let nginx = Nginx::start(parking(park));
        let mut client = nginx.client();
        client.send_bytes(&[of_1_kilobyte("a"), Request::get("/worker").to_bytes()].concat());
        nginx.wait_for_subscribers("a", 1);
        nginx.publish("a", "one").expect_status(201);
        assert_eq!(client.response().expect_status(200).text(), "one");
        assert_ne!(client.response().expect_status(200).text(), "");
    }
}

#[test]
fn a_client_polls_many_times_on_one_connection() {
    for park in WAYS {
        let nginx = Nginx::start(parking(park));
        let mut client = nginx.client();
        let mut cursor = Cursor::none();
        for number in 0..200 {
            client.send(&cursor.apply(get("a")));
            // Now and then the message is there first, and is published just as the request falls asleep.
            if number % 3 == 0 {
                nginx.wait_for_subscribers("a", 1);
            }
            nginx.publish("a", format!("message {number}"));
            let response = client.response().expect_status(200);
            assert_eq!(response.text(), format!("message {number}"));
            cursor = Cursor::after(&response);
        }
        assert_all(&subscriber_lines(&nginx, 200), "200");
    }
}

#[test]
fn a_connection_closes_after_its_last_request() {
    for park in WAYS {
        let config = parking(park).http("log_format requests '$connection_requests $status';");
        let config = config.subscriber("keepalive_requests 3;");
        let nginx = Nginx::start(config.subscriber("access_log @dir@/requests.log requests;"));
        let mut client = nginx.client();
        for last in [false, false, true] {
            nginx.park_request(&mut client, "a", &get("a").header("Cache-Control", "no-cache"));
            nginx.publish("a", "one").expect_status(201);
            client.response().expect_status(200);
            nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
            assert_eq!(client.is_closing(), last);
        }
        client.expect_closed();
        let log = fs::read_to_string(nginx.dir().join("requests.log")).expect("a log");
        assert_eq!(log, "1 200\n2 200\n3 200\n");
    }
}

#[test]
fn a_client_that_goes_is_taken_off_the_books() {
    for park in WAYS {
        let nginx = Nginx::start(parking(park));
        let mut half = nginx.park("a");
        half.finish_sending();
        half.expect_closed();
        nginx.park("a").reset();
        drop(nginx.park("a"));
        nginx.wait_for_subscribers("a", 0);
        assert_all(&subscriber_lines(&nginx, 3), "499");
        nginx.publish("a", "one").expect_status(202);
    }
}

#[test]
fn a_client_that_goes_as_it_asks_is_taken_off_the_books() {
    for park in WAYS {
        let nginx = Nginx::start(parking(park));
        let (mut one, mut two, mut three) =
            (known_client(&nginx), known_client(&nginx), known_client(&nginx));
        in_one_turn(&nginx, || {
            one.send(&get("a"));
            drop(one);
            two.send(&get("a"));
            two.finish_sending();
            three.send(&get("a"));
            three.reset();
        });
        nginx.wait_for_subscribers("a", 0);
        // nginx does not see the last request at all when the reset is there first.
        let lines = wait::until("lines", || {
            let lines = nginx.access_log();
            (lines.iter().filter(|line| line.contains("/sub")).count() >= 2).then_some(lines)
        });
        let lines: Vec<String> = lines.into_iter().filter(|line| line.contains("/sub")).collect();
        assert_all(&lines, "499");
        for _ in 0..200 {
            let mut client = nginx.client();
            client.send(&get("b"));
            drop(client);
        }
        nginx.wait_for_subscribers("b", 0);
        nginx.publish("b", "one").expect_status(202);
    }
}

#[test]
fn what_happens_in_the_same_turn_as_a_poll() {
    for park in WAYS {
        for end in ["POST", "DELETE", "client gone"] {
            let nginx = Nginx::start(parking(park));
            let (mut poll, mut other) = (known_client(&nginx), known_client(&nginx));
            let mut poll = Some(in_one_turn_with(&nginx, &mut other, end, move || {
                poll.send(&get("a"));
                poll
            }));
            match end {
                "POST" => {
                    other.response().expect_status(201);
                    let response = poll.as_mut().unwrap().response().expect_status(200);
                    assert_eq!(response.text(), "one");
                }
                "DELETE" => {
                    other.response().expect_status(200);
                    poll.as_mut().unwrap().response().expect_status(410).expect_empty();
                }
                _ => {
                    poll = None;
                }
            }
            drop(poll);
            nginx.wait_for_subscribers("a", 0);
            subscriber_lines(&nginx, 1);
        }
    }
}

fn in_one_turn_with(
    nginx: &Nginx,
    other: &mut Client,
    end: &str,
    poll: impl FnOnce() -> Client,
) -> Client {
    let mut polled = None;
    if end == "DELETE" {
        nginx.request(&Request::new("PUT", &publisher("a")).body("")).expect_status(202);
        nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
    }
    in_one_turn(nginx, || {
        polled = Some(poll());
        match end {
            "POST" => other.send(&Request::post(&publisher("a"), "one")),
            "DELETE" => other.send(&Request::new("DELETE", &publisher("a"))),
            _ => {}
        }
    });
    polled.expect("a client")
}

#[test]
fn two_polls_in_the_same_turn() {
    for park in WAYS {
        for (concurrency, stays) in [("broadcast", 2), ("last", 1), ("first", 0)] {
            let text = format!("push_subscriber_concurrency {concurrency};");
            let nginx = Nginx::start(parking(park).subscriber(&text));
            let mut clients = [known_client(&nginx), known_client(&nginx)];
            in_one_turn(&nginx, || {
                for client in &mut clients {
                    client.send(&get("a"));
                }
            });
            if stays < 2 {
                clients[1 - stays].response().expect_status(409).expect_empty();
            }
            nginx.wait_for_subscribers("a", if stays == 2 { 2 } else { 1 });
            nginx.publish("a", "one").expect_status(201);
            for (number, client) in clients.iter_mut().enumerate() {
                if stays == 2 || number == stays {
                    assert_eq!(client.response().expect_status(200).text(), "one");
                } else {
                    client.request(&Request::get("/worker")).expect_status(200);
                }
            }
            subscriber_lines(&nginx, 2);
        }
    }
}

#[test]
fn a_poll_that_ends_another_which_sleeps() {
    for park in WAYS {
        for (concurrency, stays) in [("last", 1), ("first", 0)] {
            let text = format!("push_subscriber_concurrency {concurrency};");
            let nginx = Nginx::start(parking(park).subscriber(&text));
            let mut clients = [nginx.park("a"), nginx.client()];
            clients[1].send(&get("a"));
            clients[1 - stays].response().expect_status(409).expect_empty();
            // Its connection goes on.
            clients[1 - stays].request(&Request::get("/worker")).expect_status(200);
            nginx.wait_for_subscribers("a", 1);
            nginx.publish("a", "one").expect_status(201);
            assert_eq!(clients[stays].response().expect_status(200).text(), "one");
            subscriber_lines(&nginx, 2);
        }
    }
}

#[test]
fn many_publish_while_many_fall_asleep() {
    const FOLLOWERS: usize = 6;
    const PUBLISHERS: usize = 3;
    const EACH: usize = 200;
    for park in WAYS {
        let config = parking(park).workers(2).http("push_message_buffer_length 20000;");
        let nginx = Nginx::start(config);
        let port = nginx.port();
        let (acknowledged, received) = thread::scope(|scope| {
            let followers: Vec<_> =
                (0..FOLLOWERS).map(|_| scope.spawn(|| load::follow(port, "a"))).collect();
            let publishers: Vec<_> = (0..PUBLISHERS)
                .map(|number| {
                    scope.spawn(move || load::publish(port, "a", &format!("p{number}"), EACH))
                })
                .collect();
            let acknowledged: Vec<Vec<String>> =
                publishers.into_iter().map(|thread| thread.join().expect("no panic")).collect();
            load::publish_end(port, "a");
            let received: Vec<Vec<String>> =
                followers.into_iter().map(|thread| thread.join().expect("no panic")).collect();
            (acknowledged, received)
        });
        load::assert_complete(&acknowledged, &received);
        nginx.wait_for_subscribers("a", 0);
        let lines = subscriber_lines(&nginx, FOLLOWERS * (PUBLISHERS * EACH + 1));
        assert_all(&lines, "200");
    }
}

#[test]
fn limit_conn_counts_those_who_wait() {
    for park in WAYS {
        let config = parking(park)
            .http("limit_conn_zone $binary_remote_addr zone=counted:1m;")
            .subscriber("limit_conn counted 2;");
        let nginx = Nginx::start(config);
        let mut held = [nginx.park("a"), nginx.park("a")];
        nginx.poll("a", &Cursor::none()).expect_status(503);
        nginx.publish("a", "one").expect_status(201);
        for client in &mut held {
            client.response().expect_status(200);
        }
        nginx.poll("a", &Cursor::none()).expect_status(200);
        subscriber_lines(&nginx, 4);
    }
}

#[test]
fn a_worker_that_leaves_sends_all_away() {
    for park in WAYS {
        let nginx = Nginx::start(parking(park));
        nginx.publish("b", "one");
        let response = nginx.poll("b", &Cursor::none()).expect_status(200);
        let cursor = Cursor::after(&response);
        let mut idle = known_client(&nginx);
        let mut held: Vec<Client> = (0..5).map(|_| nginx.park_after("b", &cursor)).collect();
        let mut last = known_client(&nginx);
        let worker = nginx.workers()[0];
        // The master is told first; the last poll is read before the worker hears of it.
        in_one_turn(&nginx, || {
            last.send(&cursor.apply(get("b")));
            nginx.signal(Signal::HUP);
            wait::until_true("a new worker", || nginx.workers().len() == 2);
        });
        held.push(last);
        for client in &mut held {
            let response = client.response().expect_status(304);
            assert_eq!(Cursor::after(&response), cursor);
            assert_eq!(response.header("Connection"), Some("close"));
            client.expect_closed();
        }
        idle.expect_closed();
        nginx.wait_gone(&[worker]);
        let lines = subscriber_lines(&nginx, 7);
        assert_all(&lines[1..], "304");
    }
}

#[test]
fn a_server_that_quits_sends_all_away() {
    for park in WAYS {
        let mut nginx = Nginx::start(parking(park).workers(2));
        let mut held: Vec<Client> = (0..8).map(|_| nginx.park("a")).collect();
        nginx.signal(Signal::QUIT);
        for client in &mut held {
            client.response().expect_status(304);
            client.expect_closed();
        }
        nginx.wait_for_exit();
        assert_all(&subscriber_lines(&nginx, 8), "304");
    }
}

#[test]
fn a_killed_worker_takes_only_its_own_clients_along() {
    for park in WAYS {
        let mut nginx = Nginx::start(parking(park).workers(2));
        let mut clients: Vec<(String, Client)> = nginx.client_of_each_worker(2);
        for (_, client) in &mut clients {
            nginx.park_request(client, "a", &get("a"));
        }
        let (victim, mut lost) = clients.remove(0);
        nginx.kill_worker(victim.parse().expect("a pid"));
        assert!(lost.try_response().is_err(), "its connection is gone");
        nginx.wait_for_subscribers("a", 1);
        let mut again = nginx.park("a");
        nginx.publish("a", "one").expect_status(201);
        for client in [&mut clients[0].1, &mut again] {
            assert_eq!(client.response().expect_status(200).text(), "one");
        }
        assert_all(&subscriber_lines(&nginx, 2), "200");
    }
}

#[test]
fn an_end_at_once_leaves_nothing_behind() {
    for park in WAYS {
        let mut nginx = Nginx::start(parking(park));
        let mut held: Vec<Client> = (0..5).map(|_| nginx.park("a")).collect();
        nginx.stop(Signal::TERM);
        for client in &mut held {
            assert!(client.try_response().is_err(), "closed without a reply");
        }
    }
}

#[test]
fn one_process_for_all() {
    for park in WAYS {
        let mut nginx = Nginx::start(parking(park).without_master());
        let mut held = nginx.park("a");
        nginx.publish("a", "one").expect_status(201);
        assert_eq!(held.response().expect_status(200).text(), "one");
        // In this mode nginx does not wait for requests, but ends at once.
        let mut held = nginx.park("b");
        nginx.signal(Signal::QUIT);
        nginx.wait_for_exit();
        held.expect_closed();
        assert_all(&subscriber_lines(&nginx, 1), "200");
    }
}

/// How many wait, if there is a connection left to ask.
fn subscribers_if_served(nginx: &Nginx) -> Option<u64> {
    let info = Request::get(&publisher("a")).header("Accept", "application/json");
    let response = nginx.client().try_request(&info).ok()?;
    match response.status {
        404 => Some(0),
        _ => Some(Info::parse_json(response.expect_status(200).text()).subscribers),
    }
}

/// Parks clients until there is no connection left.
fn park_until_full(nginx: &Nginx) -> Vec<Client> {
    let mut held = Vec::new();
    loop {
        // Known first: nginx may close a connection from which it has read nothing for the sake of the next one.
        let mut client = nginx.client();
        if client.try_request(&Request::get("/worker")).is_err() {
            return held;
        }
        client.send(&get("a"));
        held.push(client);
        let count = held.len() as u64;
        let mut is_full = false;
        wait::until_true("one more subscriber, or none any more", || {
            let subscribers = subscribers_if_served(nginx);
            is_full = subscribers.is_none();
            is_full || subscribers == Some(count)
        });
        if is_full {
            return held;
        }
    }
}

#[test]
fn connections_are_used_up() {
    let mut counts = Vec::new();
    for park in WAYS {
        let config = parking(park).events("worker_connections 64;");
        let mut nginx = Nginx::start(config);
        nginx.tolerate("worker_connections are not enough");
        let mut held = park_until_full(&nginx);
        counts.push(held.len());
        held.truncate(held.len() - 5);
        wait::until_true("connections are free again", || {
            subscribers_if_served(&nginx) == Some(held.len() as u64)
        });
        // There are so few left that nginx closes connections that are idle, but none on which somebody waits.
        for _ in 0..20 {
            let mut falling = known_client(&nginx);
            let mut next = None;
            in_one_turn(&nginx, || {
                falling.send(&get("a"));
                next = Some(nginx.client());
            });
            next.expect("a client").request(&Request::get("/worker")).expect_status(200);
            nginx.wait_for_subscribers("a", held.len() as u64 + 1);
            drop(falling);
            nginx.wait_for_subscribers("a", held.len() as u64);
        }
        nginx.publish("a", "one").expect_status(201);
        for client in &mut held {
            assert_eq!(client.response().expect_status(200).text(), "one");
        }
    }
    assert_eq!(counts[0], counts[1], "as many may wait in both ways");
}

#[test]
fn stub_status_is_as_the_readme_says() {
    if !has_or_skip("http_stub_status") {
        return;
    }
    for park in WAYS {
        let nginx = Nginx::start(parking(park).server("location = /status { stub_status; }"));
        let mut watcher = nginx.client();
        // Active, requests, reading, writing (with the request for the status), waiting.
        let mut status = || {
            let text =
                watcher.request(&Request::get("/status")).expect_status(200).text().to_owned();
            let numbers: Vec<u64> =
                text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            [numbers[0], numbers[3], numbers[4], numbers[5], numbers[6]]
        };
        let mut client = known_client(&nginx);
        let before = status();
        assert_eq!(before[2..], [0, 1, 1]);
        client.send(&get("a"));
        // The publisher's request tells how many wait, on a connection that is closed soon.
        nginx.wait_for_subscribers("a", 1);
        let is_compact = park == "compact";
        let writing = if is_compact { 1 } else { 2 };
        wait::until_true("the status of a waiting request", || {
            let now = status();
            now[0] == before[0] && now[2..] == [0, writing, 0]
        });
        let waiting = status();
        client.send(&get("b"));
        nginx.publish("a", "one").expect_status(201);
        client.response().expect_status(200);
        nginx.publish("b", "two").expect_status(201);
        client.response().expect_status(200);
        wait::until_true("the status as before", || {
            let now = status();
            now[0] == before[0] && now[2..] == [0, 1, 1]
        });
        assert!(status()[1] > waiting[1]);
    }
}

/// A client over TLS that writes what it is told in one record.
struct TlsClient {
    process: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    buffer: String,
}

impl TlsClient {
    fn connect(port: u16) -> Self {
        let mut process = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs; on Debian: apt-get install openssl");
        let input = process.stdin.take().expect("a pipe");
        let mut pipe = process.stdout.take().expect("a pipe");
        let (sender, output) = mpsc::channel();
        thread::spawn(move || loop {
            let mut chunk = vec![0; 65536];
            match pipe.read(&mut chunk) {
                Ok(length) if length > 0 => {
                    chunk.truncate(length);
                    if sender.send(chunk).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        });
        TlsClient { process, input, output, buffer: String::new() }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.input.write_all(bytes).expect("openssl reads");
        self.input.flush().expect("openssl reads");
    }

    /// The head and the body of the next reply.
    fn response(&mut self) -> (String, String) {
        loop {
            if let Some((head, rest)) = self.buffer.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                let length = length.map_or(0, |length| length.parse().expect("a number"));
                if rest.len() >= length {
                    let (body, rest) = rest.split_at(length);
                    let found = (head.to_owned(), body.to_owned());
                    self.buffer = rest.to_owned();
                    return found;
                }
            }
            let chunk = self.output.recv_timeout(wait::patience());
            let chunk = chunk.unwrap_or_else(|_| panic!("no reply, but {:?}", self.buffer));
            self.buffer.push_str(&String::from_utf8_lossy(&chunk));
        }
    }
}

impl Drop for TlsClient {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn parked_over_tls() {
    if !has_or_skip("http_ssl") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().join("tls");
    make_certificate(&dir);
    let tls = format!(
        "listen 127.0.0.1:@port2@ ssl; ssl_certificate {0}/cert.pem; ssl_certificate_key {0}/key.pem;
         location = /short {{ set $push_channel_id short; push_subscriber; push_subscriber_timeout 1s; }}",
        dir.display()
    );
    let log = "log_format tls '$status $request_uri $ssl_protocol $scheme $connection_requests';";
    for park in WAYS {
        let config = parking(park).server(&tls).http(log).http("ssl_protocols TLSv1.2 TLSv1.3;");
        let nginx = Nginx::start(config.server("access_log @dir@/tls.log tls;"));
        let mut client = TlsClient::connect(nginx.port2());
        let next = Request::get("/worker").to_bytes();
        let answer = |client: &mut TlsClient, id: &str| {
            nginx.wait_for_subscribers(id, 1);
            nginx.publish(id, format!("for {id}")).expect_status(201);
            let (head, body) = client.response();
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert_eq!(body, format!("for {id}"));
        };
        client.send(&get("a").to_bytes());
        answer(&mut client, "a");
        // A head that takes two buffers.
        client.send(&get("b").header("Cookie", &"c".repeat(3_000)).to_bytes());
        answer(&mut client, "b");
        // In one record with the next request: nginx has seen that too, or not yet.
        client.send(&[get("c").to_bytes(), next.clone()].concat());
        answer(&mut client, "c");
        assert_ne!(client.response().1, "");
        client.send(&[of_1_kilobyte("d"), next.clone()].concat());
        answer(&mut client, "d");
        assert_ne!(client.response().1, "");
        // The next request comes while this one waits.
        client.send(&get("e").to_bytes());
        nginx.wait_for_subscribers("e", 1);
        client.send(&next);
        answer(&mut client, "e");
        assert_ne!(client.response().1, "");
        client.send(&Request::get("/short").to_bytes());
        assert!(client.response().0.starts_with("HTTP/1.1 304 "));
        client.send(&get("f").to_bytes());
        nginx.wait_for_subscribers("f", 1);
        drop(client);
        nginx.wait_for_subscribers("f", 0);
        let lines = wait::until("a line for the client that went", || {
            let log = fs::read_to_string(nginx.dir().join("tls.log")).unwrap_or_default();
            let lines: Vec<String> =
                log.lines().filter(|line| line.contains("https")).map(str::to_owned).collect();
            lines.iter().any(|line| line.contains("id=f")).then_some(lines)
        });
        let status_and_number = |line: &String| {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(words[2].starts_with("TLSv1."), "{line}");
            format!("{} {}", words[0], words[4])
        };
        let found: Vec<String> = lines.iter().map(status_and_number).collect();
        let expected = ["200 1", "200 2", "200 3", "200 5", "200 7", "304 9", "499 10"];
        assert_eq!(found, expected, "{lines:?}");
    }
}

/// Private memory of a process, in bytes.
fn private_memory(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a process");
    let line = rollup.lines().find(|line| line.starts_with("Private_Dirty:")).expect("the figure");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("a number") << 10
}

/// What browsers send.
fn of_a_browser(id: &str) -> Request {
    let request = get(id)
        .header(
            "User-Agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        )
        .header("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
        .header("Accept-Language", "en-US,en;q=0.5")
        .header("Accept-Encoding", "gzip, deflate, br")
        .header("Referer", "http://127.0.0.1:8080/index.html")
        .header("Cookie", &"c".repeat(156));
    assert_eq!(request.to_bytes().len(), 478);
    request
}

/// Bytes per client: at the first time, and at the second after all have left.
fn memory_per_client(park: &str) -> Option<[u64; 2]> {
    const CLIENTS: u64 = 2_000;
    process::allow_open_files(8192);
    let config = parking(park).main("worker_rlimit_nofile 8192;");
    let nginx = Nginx::start(config);
    let worker = nginx.workers()[0];
    if process::is_watched(worker) {
        eprintln!("skipped: memory is watched by a tool, and means nothing");
        return None;
    }
    let request = of_a_browser("a");
    nginx.wait_for_subscribers("a", 0);
    let before = private_memory(worker);
    let empty = process::descriptors(worker).len();
    Some([(); 2].map(|()| {
        let clients: Vec<Client> = (0..CLIENTS)
            .map(|_| {
                let mut client = nginx.client();
                client.send(&request);
                client
            })
            .collect();
        nginx.wait_for_subscribers("a", CLIENTS);
        let after = private_memory(worker);
        drop(clients);
        nginx.wait_for_subscribers("a", 0);
        wait::until_true("the connections are closed", || {
            process::descriptors(worker).len() <= empty + 2
        });
        wait::until_true("most of the memory is given back", || {
            private_memory(worker) < before + (after - before) / 2
        });
        (after - before) / CLIENTS
    }))
}

#[test]
fn a_compactly_parked_client_costs_little() {
    let (Some(compact), Some(plain)) = (memory_per_client("compact"), memory_per_client("plain"))
    else {
        return;
    };
    eprintln!("bytes per waiting client: compact {compact:?}, plain {plain:?}");
    // Measured 1,000 to 1,050 and 9,900 bytes; the slack is for allocators.
    assert!(compact.iter().all(|bytes| *bytes < 1_500), "{compact:?} bytes");
    assert!(plain[0] > 7_000, "{plain:?} bytes: what is compared with?");
}

/// The timer of nginx's end of a connection: what it is for (2: to ask whether the client is there), and hundredths of a second.
fn timer(nginx: &Nginx, client: &Client) -> (u8, u64) {
    let ends = process::tcp_ends(&client.socket().unwrap()).unwrap();
    let port = format!(":{:04X}", nginx.port());
    let fields = ends.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let end = fields.into_iter().find(|end| end[1].ends_with(&port)).expect("nginx's end");
    let (what, when) = end[5].split_once(':').expect("a timer");
    (what.parse().unwrap(), u64::from_str_radix(when, 16).unwrap())
}

#[test]
fn who_waits_is_asked_now_and_then_whether_it_is_there() {
    for park in ["compact", "plain"] {
        let nginx = Nginx::start(Config::push(1).http(&format!("push_park {park};")));
        // Also on a connection that did something else before, and on the next one with the same descriptor.
        for _ in 0..2 {
            let mut client = nginx.client();
            client.request(&Request::get(&publisher("b")));
            nginx.park_request(&mut client, "a", &Request::get(&subscriber("a")));
            wait::until_true("a question in 5 minutes", || {
                let (what, when) = timer(&nginx, &client);
                what == 2 && (20_000..=30_000).contains(&when)
            });
            drop(client);
            nginx.wait_for_subscribers("a", 0);
        }
    }
    // The operator has the last word, for streams too.
    for (word, what) in [("so_keepalive=off", 0), ("so_keepalive=1000s::", 2)] {
        let streams = "location /es { push_subscriber eventsource; push_channel_id $arg_id;
            push_ping_interval $ping; }";
        for ping in ["0", "40m"] {
            let streams = streams.replace("$ping", ping);
            let nginx = Nginx::start(Config::push(1).listen(word).server(&streams));
            let mut stream = nginx.client();
            stream.send(&Request::get("/es?id=b"));
            stream.head_response().expect_status(200);
            for client in [nginx.park("a"), stream] {
                wait::until_true("what listen says", || {
                    let (found, when) = timer(&nginx, &client);
                    found == what && (when == 0 || (90_000..=100_000).contains(&when))
                });
            }
        }
    }
}

// ---- Parts of pages.

/// Pages that are made of what two polls of the same channel get, or of a poll and a stream.
fn with_pages(workers: usize) -> Config {
    Config::push(workers).server(
        "location = /page { ssi on; ssi_types *; default_type text/plain;
             return 200 '<!--#include virtual=\"/sub?id=a\" --> <!--#include virtual=\"/sub?id=a\" -->'; }
         location = /streams { ssi on; ssi_types *; default_type text/plain;
             return 200 '<!--#include virtual=\"/es?id=a\" --> <!--#include virtual=\"/sub?id=a\" -->'; }
         location /es { push_subscriber eventsource; push_channel_id $arg_id; }",
    )
}

#[test]
fn a_page_with_two_parts_whose_client_breaks_off_as_they_are_served() {
    for _ in 0..10 {
        let nginx = Nginx::start(with_pages(2));
        let mut clients = nginx.client_of_each_worker(2);
        let ((worker, mut reader), (_, mut publisher)) =
            (clients.pop().expect("one"), clients.pop().expect("another"));
        let worker = worker.parse().expect("a pid");
        reader.send(&Request::get("/page"));
        nginx.wait_for_subscribers("a", 2);
        // The worker meets the hint first, and finds out with the reply that the client has gone.
        process::stop(worker);
        publisher.request(&Request::post("/pub?id=a", "x".repeat(5000))).expect_status(201);
        reader.reset();
        process::signal(worker, Signal::CONT);
        nginx.wait_for_subscribers("a", 0);
        assert_eq!(nginx.poll("a", &Cursor::none()).body.len(), 5000);
    }
}

#[test]
fn a_page_whose_request_has_a_body_that_comes_late() {
    let config = Config::push(1).server(
        "location = /page { ssi on; ssi_types *; default_type text/plain;
             return 200 '<!--#include virtual=\"/sub?id=a\" --> <!--#include virtual=\"/sub?id=b\" -->'; }",
    );
    let nginx = Nginx::start(config);
    for (header, pieces) in [
        ("Content-Length: 6", ["one", "two"]),
        ("Transfer-Encoding: chunked", ["3\r\none\r\n", "3\r\ntwo\r\n0\r\n\r\n"]),
    ] {
        let mut client = nginx.client();
        let head = format!("GET /page HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n");
        client.send_bytes(head.as_bytes());
        for id in ["a", "b"] {
            nginx.wait_for_subscribers(id, 1);
        }
        client.send_bytes(pieces[0].as_bytes());
        nginx.publish("a", "1").expect_status(201);
        nginx.wait_for_subscribers("a", 0);
        client.send_bytes(pieces[1].as_bytes());
        // What comes next is no body, whoever may be told of it.
        client.send(&Request::get(&publisher("a")));
        nginx.publish("b", "2").expect_status(201);
        assert_eq!(client.response().expect_status(200).text(), "1 2");
        assert!(client.response().expect_status(200).text().contains("queued messages"));
        for id in ["a", "b"] {
            nginx.request(&Request::new("DELETE", &publisher(id)));
        }
    }
    // Nor does anybody wait for a body that breaks off.
    let mut client = nginx.client();
    client.send_bytes(b"GET /page HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\none");
    for id in ["a", "b"] {
        nginx.wait_for_subscribers(id, 1);
    }
    drop(client);
    for id in ["a", "b"] {
        nginx.wait_for_subscribers(id, 0);
    }
}

#[test]
fn no_part_of_a_page_is_a_stream() {
    let nginx = Nginx::start(with_pages(1));
    let mut client = nginx.client();
    let types = "text/event-stream, application/x-ndjson, multipart/mixed";
    client.send(&Request::get("/page").header("Accept", types));
    nginx.wait_for_subscribers("a", 2);
    nginx.publish("a", "one").expect_status(201);
    assert_eq!(client.response().expect_status(200).text(), "one one");
    client.send(&Request::get("/streams"));
    let page = client.response().expect_status(200);
    assert!(page.text().ends_with(" one"), "{}", page.text());
    nginx.wait_for_subscribers("a", 0);
}

#[test]
fn a_stream_waits_for_the_part_before_it() {
    if !has_or_skip("http_addition") {
        return;
    }
    let nginx = Nginx::start(
        Config::push(1)
            .http("addition_types *; push_eventsource_retry 0;")
            .server("location /es { push_subscriber eventsource; push_channel_id $arg_id; add_before_body /before; }\n                     location = /before { push_subscriber; push_channel_id b; }"),
    );
    let mut client = nginx.client();
    client.send(&Request::get("/es?id=a"));
    nginx.wait_for_subscribers("a", 1);
    nginx.wait_for_subscribers("b", 1);
    for number in 0..20 {
        nginx.publish("a", format!("{number} {}", "x".repeat(500)));
    }
    nginx.publish("b", "before");
    client.try_head().expect("a head");
    let mut body = String::new();
    wait::until_true("the last message", || {
        let chunk = client.try_chunk().expect("a chunk").expect("more");
        body += std::str::from_utf8(&chunk).expect("text");
        body.contains("data: 19 x")
    });
    assert!(body.starts_with("before"), "{body}");
    let numbers: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let expected: Vec<String> = (10..20).map(|n| format!("{n} {}", "x".repeat(500))).collect();
    assert!(numbers.ends_with(&expected.iter().map(String::as_str).collect::<Vec<_>>()), "{body}");
}
