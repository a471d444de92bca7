//! Tests for TLS and HTTP/2: the same protocol on other connections.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};

use support::http2::{Http2, StreamReply};
use support::push::{assert_same_bytes, pattern, publisher, subscriber};
use support::{on_1_and_4_workers, Config, Cursor, Nginx, Request};

on_1_and_4_workers!(
    long_polls_work_over_tls,
    long_polls_work_over_tls_and_http2,
    large_messages_work_over_tls_and_http2,
    deletion_and_timeout_work_over_http2,
    who_is_to_use_a_websocket_is_told_so_over_http2,
    a_client_that_goes_away_is_noticed_over_http2,
    a_cancelled_stream_is_no_longer_counted,
    many_streams_of_one_connection_wait_and_are_served,
    a_reload_releases_streams,
);

/// Cleartext HTTP/1.1 on the first port for the test itself, TLS on the second.
fn start_tls(workers: usize) -> Nginx {
    let http2 = match support::nginx::build().version() {
        1_025_001.. => "http2 on; listen 127.0.0.1:@port2@ ssl;",
        _ => "listen 127.0.0.1:@port2@ ssl http2;",
    };
    let dir = tempfile::tempdir().expect("a directory");
    let tls = dir.path().join("tls");
    support::nginx::make_certificate(&tls);
    let nginx = Nginx::start(
        Config::push(workers)
            .http("client_max_body_size 8m;")
            .server(http2)
            .server(&format!(
                "ssl_certificate {0}/cert.pem; ssl_certificate_key {0}/key.pem;",
                tls.display()
            ))
            .server(
                "location /short {
                     push_subscriber; set $push_channel_id $arg_id; push_subscriber_timeout 1s;
                 }
                 location /socket { push_subscriber websocket; push_channel_id $arg_id; }",
            ),
    );
    nginx
}

/// Cleartext HTTP/1.1 on the first port, cleartext HTTP/2 on the second.
fn start_cleartext(workers: usize) -> Nginx {
    let locations = "location /pub { push_publisher; push_channel_id $arg_id; }
                     location /sub { push_subscriber; push_channel_id $arg_id; }
                     location /short {
                         push_subscriber; push_channel_id $arg_id; push_subscriber_timeout 1s;
                     }";
    let listen = match support::nginx::build().version() {
        1_025_001.. => "listen 127.0.0.1:@port2@; http2 on;",
        _ => "listen 127.0.0.1:@port2@ http2;",
    };
    Nginx::start(Config::push(workers).http(&format!("server {{ {listen} {locations} }}")))
}

/// A run of curl that shows the head of the reply and then the body.
fn curl(nginx: &Nginx, options: &[&str], target: &str) -> Child {
    Command::new("curl")
        .args(["--silent", "--show-error", "--include", "--insecure", "--max-time", "60"])
        .args(options)
        .arg(format!("https://127.0.0.1:{}{target}", nginx.port2()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("curl runs; on Debian: apt-get install curl")
}

#[track_caller]
fn finish(curl: Child) -> (String, Vec<u8>) {
    let Output { status, stdout, stderr } = curl.wait_with_output().expect("curl ends");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let end = stdout.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    (String::from_utf8_lossy(&stdout[..end]).into_owned(), stdout[end..].to_vec())
}

/// The header field's value, in a head with names in any case.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(": ")?;
        field.eq_ignore_ascii_case(name).then_some(value)
    })
}

fn long_polls_work_over_tls(workers: usize) {
    walk(workers, &["--http1.1"], "HTTP/1.1 200 OK");
}

fn long_polls_work_over_tls_and_http2(workers: usize) {
    if support::nginx::has_or_skip("http_v2") {
        walk(workers, &["--http2"], "HTTP/2 200");
    }
}

/// Publishes and receives twice, the second time with the cursor of the first reply.
fn walk(workers: usize, options: &[&str], status_line: &str) {
    let nginx = start_tls(workers);
    let waiting = curl(&nginx, options, &subscriber("a"));
    nginx.wait_for_subscribers("a", 1);
    let publish = [options, &["--data", "one", "-H", "Content-Type: text/x-own"]].concat();
    let (head, _) = finish(curl(&nginx, &publish, &publisher("a")));
    assert!(head.contains(" 201"), "{head}");
    let (head, body) = finish(waiting);
    assert!(head.starts_with(status_line), "{head}");
    assert_eq!(body, b"one");
    assert_eq!(field(&head, "Content-Type"), Some("text/x-own"));
    assert_eq!(field(&head, "Content-Length"), Some("3"));
    assert_eq!(field(&head, "Vary"), Some("If-None-Match, If-Modified-Since"));
    let modified = format!("If-Modified-Since: {}", field(&head, "Last-Modified").expect("a date"));
    let etag = format!("If-None-Match: {}", field(&head, "Etag").expect("a tag"));
    let cursor = [options, &["-H", &modified, "-H", &etag]].concat();
    let waiting = curl(&nginx, &cursor, &subscriber("a"));
    nginx.wait_for_subscribers("a", 1);
    nginx.publish("a", "two").expect_status(201);
    let (_, body) = finish(waiting);
    assert_eq!(body, b"two");
    let (_, body) = finish(curl(&nginx, &cursor, &subscriber("a")));
    assert_eq!(body, b"two");
}

fn large_messages_work_over_tls_and_http2(workers: usize) {
    if !support::nginx::has_or_skip("http_v2") {
        return;
    }
    let nginx = start_tls(workers);
    let large = pattern(3 << 20);
    let waiting = curl(&nginx, &["--http2"], &subscriber("a"));
    nginx.wait_for_subscribers("a", 1);
    let options = ["--http2", "--data-binary", "@-", "-H", "Content-Type: text/plain"];
    let mut publishing = curl(&nginx, &options, &publisher("a"));
    publishing.stdin.take().expect("a pipe").write_all(&large).expect("curl reads");
    let (head, _) = finish(publishing);
    assert!(head.starts_with("HTTP/2 201"), "{head}");
    assert_same_bytes(&finish(waiting).1, &large);
    assert_same_bytes(&nginx.poll("a", &Cursor::none()).body, &large);
}

fn who_is_to_use_a_websocket_is_told_so_over_http2(workers: usize) {
    if !support::nginx::has_or_skip("http_v2") {
        return;
    }
    let nginx = start_tls(workers);
    // A reply with fields about the connection would be none (RFC 9113, section 8.2.2).
    let (head, body) = finish(curl(&nginx, &["--http2"], "/socket?id=a"));
    assert!(head.starts_with("HTTP/2 426"), "{head}");
    assert!(String::from_utf8_lossy(&body).contains("WebSocket"), "{body:?}");
    assert_eq!((field(&head, "Upgrade"), field(&head, "Connection")), (None, None));
    let (head, _) = finish(curl(&nginx, &["--http1.1"], "/socket?id=a"));
    assert!(head.starts_with("HTTP/1.1 426"), "{head}");
    assert!(field(&head, "Upgrade").is_some(), "{head}");
}

fn deletion_and_timeout_work_over_http2(workers: usize) {
    if !support::nginx::has_or_skip("http_v2") {
        return;
    }
    let nginx = start_tls(workers);
    let waiting = curl(&nginx, &["--http2"], &subscriber("a"));
    nginx.wait_for_subscribers("a", 1);
    nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
    let (head, body) = finish(waiting);
    assert!(head.starts_with("HTTP/2 410"), "{head}");
    assert_eq!(body, b"");
    let (head, _) = finish(curl(&nginx, &["--http2"], "/short?id=a"));
    assert!(head.starts_with("HTTP/2 304"), "{head}");
    assert_eq!(field(&head, "Last-Modified"), None);
}

fn a_client_that_goes_away_is_noticed_over_http2(workers: usize) {
    if !support::nginx::has_or_skip("http_v2") {
        return;
    }
    let nginx = start_tls(workers);
    for options in [["--http2"], ["--http1.1"]] {
        let mut waiting = curl(&nginx, &options, &subscriber("a"));
        nginx.wait_for_subscribers("a", 1);
        waiting.kill().expect("it is our child");
        waiting.wait().expect("it is our child");
        nginx.wait_for_subscribers("a", 0);
    }
}

fn a_cancelled_stream_is_no_longer_counted(workers: usize) {
    if !support::nginx::has_or_skip("http_v2") {
        return;
    }
    let nginx = start_cleartext(workers);
    let mut connection = Http2::connect(nginx.port2());
    connection.get(1, &subscriber("a"));
    connection.get(3, &subscriber("a"));
    nginx.wait_for_subscribers("a", 2);
    connection.cancel(1);
    nginx.wait_for_subscribers("a", 1);
    connection.ping();
    nginx.publish("a", "one").expect_status(201);
    let expected = StreamReply { stream: 3, status: 200, body: b"one".to_vec() };
    assert_eq!(connection.reply(), expected);
    drop(connection);
    nginx.wait_for_subscribers("a", 0);
}

fn many_streams_of_one_connection_wait_and_are_served(workers: usize) {
    if !support::nginx::has_or_skip("http_v2") {
        return;
    }
    const STREAMS: u32 = 60;
    let nginx = start_cleartext(workers);
    let mut connection = Http2::connect(nginx.port2());
    for number in 0..STREAMS {
        let id = if number % 3 == 0 { "deleted" } else { "a" };
        connection.get(2 * number + 1, &subscriber(id));
    }
    nginx.wait_for_subscribers("a", u64::from(STREAMS / 3 * 2));
    nginx.wait_for_subscribers("deleted", u64::from(STREAMS / 3));
    nginx.publish("a", "one").expect_status(201);
    nginx.request(&Request::new("DELETE", &publisher("deleted"))).expect_status(200);
    let mut replies: Vec<StreamReply> = (0..STREAMS).map(|_| connection.reply()).collect();
    replies.sort_by_key(|reply| reply.stream);
    for (number, reply) in replies.iter().enumerate() {
        let (status, body): (u16, &[u8]) = if number % 3 == 0 { (410, b"") } else { (200, b"one") };
        assert_eq!((reply.status, reply.body.as_slice()), (status, body), "{reply:?}");
    }
    connection.get(2 * STREAMS + 1, "/short?id=b");
    assert_eq!(connection.reply().status, 304);
}

fn a_reload_releases_streams(workers: usize) {
    if !support::nginx::has_or_skip("http_v2") {
        return;
    }
    let nginx = start_cleartext(workers);
    let mut connection = Http2::connect(nginx.port2());
    for stream in [1, 3, 5] {
        connection.get(stream, &subscriber("a"));
    }
    nginx.wait_for_subscribers("a", 3);
    let old = nginx.reload();
    for _ in 0..3 {
        assert_eq!(connection.reply().status, 304);
    }
    nginx.wait_gone(&old);
}
