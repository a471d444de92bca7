//! Tests for long-poll subscribers: every reply, its headers, and the life of the connection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Instant;

use support::push::{pattern, publisher, subscriber};
use support::{on_1_and_4_workers, wait, Client, Config, Cursor, Nginx, Request, Response};

on_1_and_4_workers!(
    a_message_that_is_there_comes_at_once,
    without_a_message_the_request_waits,
    one_request_gets_one_message,
    a_message_has_each_header_once,
    a_message_without_a_type_has_no_content_type,
    waiting_for_a_reply_does_not_change_it,
    deletion_is_410_for_those_who_wait,
    a_timeout_is_304_without_a_position,
    a_timeout_of_0_is_none,
    authorized_only_refuses_unknown_channels_with_403,
    authorized_only_refuses_deleted_channels_with_403,
    the_403_of_authorized_only_is_an_error_page,
    more_subscribers_than_allowed_are_403_and_empty,
    a_place_becomes_free_when_a_subscriber_leaves,
    without_an_id_the_reply_is_404_with_a_sentence,
    no_cache_means_the_next_message_where_that_is_on,
    no_cache_means_nothing_by_default,
    options_is_200_with_cors_headers,
    get_has_no_cors_headers,
    other_methods_are_405_with_allow,
    a_get_request_may_have_a_body,
    http_1_0_clients_get_messages_too,
    http_1_0_clients_may_keep_the_connection,
    several_polls_share_a_connection,
    a_waiting_request_keeps_its_place_before_a_pipelined_one,
    a_pipelined_poll_waits_in_its_turn,
    a_client_that_goes_away_is_no_longer_counted,
    a_client_that_goes_away_leaves_the_others_alone,
    a_waiting_subscriber_creates_the_channel,
    every_request_has_one_line_in_the_access_log,
    a_rewritten_request_is_served,
    access_rules_hold_for_subscribers,
    an_id_set_in_an_if_block_is_used,
    several_subscriber_locations_share_a_channel,
    auth_request_decides_before_the_subscriber_waits,
    limit_conn_counts_those_who_wait,
    without_keepalive_the_reply_closes_the_connection,
    a_proxy_in_front_changes_nothing,
    a_page_may_include_a_message,
    the_variables_of_a_reply_are_those_of_its_request,
);

fn a_message_that_is_there_comes_at_once(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    let response = nginx.poll("a", &Cursor::none()).expect_status(200);
    assert_eq!(response.status_text(), "200 OK");
    assert_eq!(response.text(), "one");
}

fn without_a_message_the_request_waits(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut client = nginx.park("a");
    nginx.publish("b", "for another channel");
    client.expect_silence();
    nginx.publish("a", "one").expect_status(201);
    assert_eq!(client.response().expect_status(200).text(), "one");
    nginx.wait_for_subscribers("a", 0);
}

fn one_request_gets_one_message(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    nginx.publish("a", "two");
    let mut client = nginx.client();
    let response = client.request(&Request::get(&subscriber("a")));
    assert_eq!(response.text(), "one");
    client.request(&Request::get("/worker")).expect_status(200);
    client.expect_silence();
}

fn a_message_has_each_header_once(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).http("default_type application/x-wrong;"));
    let mut waiting = nginx.park("a");
    let request = Request::post(&publisher("a"), "one").header("Content-Type", "text/x-own; a=b");
    nginx.request(&request).expect_status(201);
    for response in [waiting.response(), nginx.poll("a", &Cursor::none())] {
        let response = response.expect_status(200);
        assert_eq!(
            response.header_names(),
            [
                "connection",
                "content-length",
                "content-type",
                "date",
                "etag",
                "last-modified",
                "server",
                "vary",
            ]
        );
        assert_eq!(response.header("Content-Type"), Some("text/x-own; a=b"));
        assert_eq!(response.header("Content-Length"), Some("3"));
        assert_eq!(response.header("Connection"), Some("keep-alive"));
        assert_eq!(response.header("Vary"), Some("If-None-Match, If-Modified-Since"));
        assert!(response.head.contains("\r\nEtag: 0\r\n"), "{}", response.head);
        assert!(response.head.contains("\r\nLast-Modified: "), "{}", response.head);
        let (published, _) = Cursor::after(&response).id();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.expect("after 1970").as_secs();
        assert!((now - 60..=now + 1).contains(&published), "{published} is about now, {now}");
    }
}

fn a_message_without_a_type_has_no_content_type(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).http("default_type application/x-wrong;"));
    let mut waiting = nginx.park("a");
    nginx.request(&Request::post(&publisher("a"), "one")).expect_status(201);
    for response in [waiting.response(), nginx.poll("a", &Cursor::none())] {
        assert_eq!(response.expect_status(200).header("Content-Type"), None);
    }
}

fn waiting_for_a_reply_does_not_change_it(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).publisher("client_body_buffer_size 16k;"));
    let large = pattern(100_000);
    let bodies: [(&str, Option<&str>, &[u8]); 5] = [
        ("typed", Some("text/html; charset=utf-8"), b"<p>"),
        ("untyped", None, b"bytes"),
        ("empty", Some("text/plain"), b""),
        ("empty-untyped", None, b""),
        ("in-a-file", Some("application/octet-stream"), &large),
    ];
    for (id, content_type, body) in bodies {
        let mut waiting = nginx.park(id);
        let mut request = Request::post(&publisher(id), body);
        if let Some(content_type) = content_type {
            request = request.header("Content-Type", content_type);
        }
        nginx.request(&request).expect_status(201);
        let waited = waiting.response().expect_status(200);
        let at_once = nginx.poll(id, &Cursor::none()).expect_status(200);
        assert!(waited.bytes_without_date() == at_once.bytes_without_date(), "{id}");
    }
}

fn deletion_is_410_for_those_who_wait(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut waiting: Vec<Client> = (0..8).map(|_| nginx.park("a")).collect();
    let mut other = nginx.park("b");
    nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
    for client in &mut waiting {
        let response = client.response().expect_status(410).expect_empty();
        assert_eq!(response.status_text(), "410 Gone");
        assert_eq!(response.header("Last-Modified"), None);
        assert_eq!(response.header("Etag"), None);
        client.request(&Request::get("/worker")).expect_status(200);
    }
    other.expect_silence();
    nginx.get(&publisher("a")).expect_status(404);
}

fn a_timeout_is_304_without_a_position(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).server(
        "location /short {
                 push_subscriber; set $push_channel_id $arg_id; push_subscriber_timeout 1s;
             }",
    ));
    let short = Request::get("/short?id=a");
    let start = Instant::now();
    expect_timeout(nginx.request(&short));
    assert!(start.elapsed().as_millis() >= 900, "held for a second");
    nginx.publish("a", "one");
    let mut client = nginx.client();
    let cursor = Cursor::after(&client.request(&short).expect_status(200));
    expect_timeout(client.request(&cursor.apply(short)));
    // The connection can be used again.
    client.send(&cursor.apply(Request::get(&subscriber("a"))));
    nginx.wait_for_subscribers("a", 1);
    nginx.publish("a", "two").expect_status(201);
    assert_eq!(client.response().expect_status(200).text(), "two");
}

#[track_caller]
fn expect_timeout(response: Response) {
    let response = response.expect_status(304);
    assert_eq!(response.status_text(), "304 Not Modified");
    assert_eq!(response.header("Last-Modified"), None);
    assert_eq!(response.header("Etag"), None);
    assert_eq!(response.header("Content-Type"), None);
}

fn a_timeout_of_0_is_none(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .http("push_subscriber_timeout 1s;")
            .subscriber("push_subscriber_timeout 0;")
            .server("location /short { push_subscriber; set $push_channel_id $arg_id; }"),
    );
    let mut client = nginx.park("a");
    // The inherited timeout, twice: long enough for the one that must not fire.
    nginx.get("/short?id=b").expect_status(304);
    nginx.get("/short?id=b").expect_status(304);
    client.expect_silence();
}

fn authorized_only_refuses_unknown_channels_with_403(workers: usize) {
    let config = Config::push(workers).subscriber("push_authorized_channels_only on;");
    let nginx = Nginx::start(config);
    nginx.poll("a", &Cursor::none()).expect_status(403);
    nginx.get(&publisher("a")).expect_status(404);
    nginx.publish("a", "one");
    assert_eq!(nginx.poll("a", &Cursor::none()).expect_status(200).text(), "one");
    nginx.request(&Request::new("PUT", &publisher("b")).body("two")).expect_status(202);
    let cursor = Cursor::after(&nginx.poll("b", &Cursor::none()).expect_status(200));
    let mut waiting = nginx.park_after("b", &cursor);
    nginx.publish("b", "three").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "three");
}

fn authorized_only_refuses_deleted_channels_with_403(workers: usize) {
    let config = Config::push(workers).subscriber("push_authorized_channels_only on;");
    let nginx = Nginx::start(config);
    nginx.publish("a", "one");
    nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
    nginx.poll("a", &Cursor::none()).expect_status(403);
}

fn the_403_of_authorized_only_is_an_error_page(workers: usize) {
    let nginx =
        Nginx::start(Config::push(workers).subscriber("push_authorized_channels_only on;").server(
            "location /with-page {
                     push_subscriber; set $push_channel_id $arg_id;
                     push_authorized_channels_only on; error_page 403 =403 /denied;
                 }
                 location /denied { return 403 'ask somebody'; }",
        ));
    let response = nginx.poll("a", &Cursor::none()).expect_status(403);
    assert_eq!(response.header("Content-Type"), Some("text/html"));
    assert!(response.text().contains("403 Forbidden"), "{}", response.text());
    assert_eq!(nginx.get("/with-page?id=a").expect_status(403).text(), "ask somebody");
}

fn more_subscribers_than_allowed_are_403_and_empty(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).subscriber("push_max_channel_subscribers 2;"));
    let mut waiting = [nginx.park("a"), nginx.park("a")];
    for _ in 0..4 {
        let response = nginx.poll("a", &Cursor::none()).expect_status(403).expect_empty();
        assert_eq!(response.status_text(), "403 Forbidden");
    }
    let mut other = nginx.park("b");
    nginx.publish("a", "one").expect_status(201);
    for client in &mut waiting {
        assert_eq!(client.response().expect_status(200).text(), "one");
    }
    nginx.publish("b", "two").expect_status(201);
    other.response().expect_status(200);
}

fn a_place_becomes_free_when_a_subscriber_leaves(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).subscriber("push_max_channel_subscribers 1;"));
    let first = nginx.park("a");
    nginx.poll("a", &Cursor::none()).expect_status(403);
    drop(first);
    nginx.wait_for_subscribers("a", 0);
    let mut second = nginx.park("a");
    nginx.publish("a", "one").expect_status(201);
    second.response().expect_status(200);
    nginx.wait_for_subscribers("a", 0);
    nginx.poll("a", &Cursor::none()).expect_status(200);
}

fn without_an_id_the_reply_is_404_with_a_sentence(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .server("location /never-set { push_subscriber; }")
            .server("location /interval { push_subscriber interval-poll; }"),
    );
    for target in ["/sub", "/sub?id=", "/never-set", "/interval"] {
        let response = nginx.get(target).expect_status(404);
        assert_eq!(response.header("Content-Type"), Some("text/plain"));
        assert_eq!(response.text(), "No channel id provided.");
    }
}

fn no_cache_means_the_next_message_where_that_is_on(workers: usize) {
    let config = Config::push(workers).subscriber("push_ignore_queue_on_no_cache on;");
    let nginx = Nginx::start(config);
    nginx.publish("a", "one");
    for (name, value) in [("Cache-Control", "no-cache"), ("Pragma", "no-cache")] {
        let mut client = nginx.client();
        nginx.park_request(&mut client, "a", &Request::get(&subscriber("a")).header(name, value));
        nginx.publish("a", name).expect_status(201);
        assert_eq!(client.response().expect_status(200).text(), name);
    }
    assert_eq!(nginx.poll("a", &Cursor::none()).expect_status(200).text(), "one");
    let cached = Request::get(&subscriber("a")).header("Cache-Control", "max-age=0");
    assert_eq!(nginx.request(&cached).expect_status(200).text(), "one");
}

fn no_cache_means_nothing_by_default(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    let request = Request::get(&subscriber("a")).header("Cache-Control", "no-cache");
    assert_eq!(nginx.request(&request).expect_status(200).text(), "one");
}

fn options_is_200_with_cors_headers(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let request = Request::new("OPTIONS", &subscriber("a")).header("Origin", "http://example.com");
    let response = nginx.request(&request).expect_status(200).expect_empty();
    let header = |name| response.header(name);
    let allowed = "If-None-Match, If-Modified-Since, Origin";
    assert_eq!(header("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(header("Access-Control-Allow-Headers"), Some(allowed));
    assert_eq!(header("Access-Control-Allow-Methods"), Some("GET, OPTIONS"));
    nginx.get(&publisher("a")).expect_status(404);
}

fn get_has_no_cors_headers(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    let request = Request::get(&subscriber("a")).header("Origin", "http://example.com");
    let response = nginx.request(&request).expect_status(200);
    let names = response.header_names();
    assert!(!names.iter().any(|name| name.starts_with("access-control")), "{names:?}");
}

fn other_methods_are_405_with_allow(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    for method in ["HEAD", "POST", "PUT", "DELETE", "PATCH", "PURGE"] {
        let mut client = nginx.client();
        let request = Request::new(method, &subscriber("a")).body("");
        let response = client.request(&request).expect_status(405);
        assert_eq!(response.header("Allow"), Some("GET, OPTIONS"), "{method}");
        client.request(&Request::get("/worker")).expect_status(200);
    }
    assert_eq!(nginx.messages("a"), 1);
}

fn a_get_request_may_have_a_body(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut client = nginx.client();
    nginx.park_request(&mut client, "a", &Request::get(&subscriber("a")).body("ignored"));
    nginx.publish("a", "one").expect_status(201);
    assert_eq!(client.response().expect_status(200).text(), "one");
    client.request(&Request::get("/worker")).expect_status(200);
}

fn http_1_0_clients_get_messages_too(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let request = Request::get(&subscriber("a")).http_1_0();
    let mut client = nginx.client();
    nginx.park_request(&mut client, "a", &request);
    nginx.publish("a", "one").expect_status(201);
    let mut at_once = nginx.client();
    at_once.send(&request);
    for client in [&mut client, &mut at_once] {
        let response = client.response().expect_status(200);
        assert_eq!(response.text(), "one");
        assert_eq!(response.header("Connection"), Some("close"));
        assert_eq!(response.header("Content-Length"), Some("3"));
        client.expect_closed();
    }
}

fn http_1_0_clients_may_keep_the_connection(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let request = Request::get(&subscriber("a")).http_1_0().header("Connection", "keep-alive");
    let mut client = nginx.client();
    nginx.park_request(&mut client, "a", &request);
    nginx.publish("a", "one").expect_status(201);
    let response = client.response().expect_status(200);
    assert_eq!(response.header("Connection"), Some("keep-alive"));
    assert_eq!(client.request(&request).expect_status(200).text(), "one");
}

fn several_polls_share_a_connection(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut client = nginx.client();
    let mut cursor = Cursor::none();
    for number in 0..10 {
        let request = cursor.apply(Request::get(&subscriber("a")));
        nginx.park_request(&mut client, "a", &request);
        nginx.publish("a", format!("message {number}")).expect_status(201);
        let response = client.response().expect_status(200);
        assert_eq!(response.text(), format!("message {number}"));
        cursor = Cursor::after(&response);
        nginx.wait_for_subscribers("a", 0);
    }
}

fn a_waiting_request_keeps_its_place_before_a_pipelined_one(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut client = nginx.client();
    let mut both = Request::get(&subscriber("a")).to_bytes();
    both.extend(Request::get("/worker").to_bytes());
    client.send_bytes(&both);
    nginx.wait_for_subscribers("a", 1);
    client.expect_silence();
    nginx.publish("a", "one").expect_status(201);
    assert_eq!(client.response().expect_status(200).text(), "one");
    client.response().expect_status(200).text().parse::<i32>().expect("the worker's pid");
}

fn a_pipelined_poll_waits_in_its_turn(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut client = nginx.park("a");
    // Comes while the first request waits.
    client.send(&Request::get(&subscriber("b")));
    nginx.publish("a", "one").expect_status(201);
    assert_eq!(client.response().expect_status(200).text(), "one");
    nginx.wait_for_subscribers("b", 1);
    nginx.publish("b", "two").expect_status(201);
    assert_eq!(client.response().expect_status(200).text(), "two");
    client.request(&Request::get("/worker")).expect_status(200);
}

fn a_client_that_goes_away_is_no_longer_counted(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let first = nginx.park("a");
    let second = nginx.park("a");
    drop(first);
    nginx.wait_for_subscribers("a", 1);
    second.reset();
    nginx.wait_for_subscribers("a", 0);
    nginx.publish("a", "one").expect_status(202);
}

fn a_client_that_goes_away_leaves_the_others_alone(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut waiting: Vec<Client> = (0..20).map(|_| nginx.park("a")).collect();
    let leaving: Vec<Client> = waiting.drain(5..15).collect();
    drop(leaving);
    nginx.wait_for_subscribers("a", 10);
    nginx.publish("a", "one").expect_status(201);
    for client in &mut waiting {
        assert_eq!(client.response().expect_status(200).text(), "one");
    }
}

fn a_waiting_subscriber_creates_the_channel(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.get(&publisher("a")).expect_status(404);
    let _client = nginx.park("a");
    let info = nginx.info("a").expect("the channel");
    assert_eq!((info.messages, info.subscribers), (0, 1));
}

fn every_request_has_one_line_in_the_access_log(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).publisher("access_log off;").server(
        "location /timeout {
                     push_subscriber; set $push_channel_id $arg_id; push_subscriber_timeout 1s;
                 }
                 location /first {
                     push_subscriber; set $push_channel_id $arg_id;
                     push_subscriber_concurrency first;
                 }",
    ));
    let mut waiting = nginx.park("message");
    nginx.publish("message", "one").expect_status(201);
    waiting.response().expect_status(200);
    waiting.request(&Request::get(&subscriber("message"))).expect_status(200);

    let mut waiting = nginx.park("deleted");
    nginx.request(&Request::new("DELETE", &publisher("deleted"))).expect_status(200);
    waiting.response().expect_status(410);

    nginx.get("/timeout?id=timeout").expect_status(304);

    let gone = nginx.park("gone");
    drop(gone);
    nginx.wait_for_subscribers("gone", 0);

    let mut waiting = nginx.park("conflict");
    nginx.get("/first?id=conflict").expect_status(409);
    nginx.publish("conflict", "one").expect_status(201);
    waiting.response().expect_status(200);

    nginx.expect_access_log(&[
        "GET /sub?id=message 200 3",
        "GET /sub?id=message 200 3",
        "GET /sub?id=deleted 410 0",
        "GET /timeout?id=timeout 304 0",
        "GET /sub?id=gone 499 0",
        "GET /first?id=conflict 409 0",
        "GET /sub?id=conflict 200 3",
    ]);
}

fn a_rewritten_request_is_served(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .server("location /old { rewrite ^/old/(.*)$ /sub?id=$1 last; }")
            .server("location /tried { try_files /no-such-file @named; }")
            .server("location @named { push_subscriber; set $push_channel_id $arg_id; }")
            .server("error_page 418 = @named; location /error { return 418; }"),
    );
    for target in ["/old/a", "/tried?id=a", "/error?id=a"] {
        let mut client = nginx.client();
        let cursor = nginx.poll_all("a").last().map_or_else(Cursor::none, Cursor::after);
        nginx.park_request(&mut client, "a", &cursor.apply(Request::get(target)));
        nginx.publish("a", target).expect_status(201);
        assert_eq!(client.response().expect_status(200).text(), target);
        nginx.wait_for_subscribers("a", 0);
    }
}

fn access_rules_hold_for_subscribers(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).subscriber("deny all;").server(
        "location /limited { satisfy any; allow 127.0.0.1; deny all;
                     push_subscriber; set $push_channel_id $arg_id; }",
    ));
    nginx.publish("a", "one");
    nginx.poll("a", &Cursor::none()).expect_status(403);
    nginx.get("/limited?id=a").expect_status(200);
}

fn an_id_set_in_an_if_block_is_used(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).server(
        "location /if {
             push_subscriber; set $push_channel_id $arg_id;
             if ($arg_special) { set $push_channel_id special; }
         }",
    ));
    nginx.publish("a", "one");
    nginx.publish("special", "two");
    assert_eq!(nginx.get("/if?id=a").expect_status(200).text(), "one");
    assert_eq!(nginx.get("/if?id=a&special=1").expect_status(200).text(), "two");
}

fn several_subscriber_locations_share_a_channel(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).server(
        "location /short {
             push_subscriber; set $push_channel_id $arg_id; push_subscriber_timeout 1s;
         }",
    ));
    let mut patient = nginx.park("a");
    nginx.get("/short?id=a").expect_status(304);
    patient.expect_silence();
    nginx.publish("a", "one").expect_status(201);
    assert_eq!(patient.response().expect_status(200).text(), "one");
}

fn auth_request_decides_before_the_subscriber_waits(workers: usize) {
    if !support::nginx::has_or_skip("http_auth_request") {
        return;
    }
    let nginx = Nginx::start(Config::push(workers).subscriber("auth_request /auth;").server(
        "location = /auth {
             internal; log_subrequest on;
             if ($http_authorization != secret) { return 401; } return 204;
         }",
    ));
    nginx.poll("a", &Cursor::none()).expect_status(401);
    nginx.get(&publisher("a")).expect_status(404);
    let mut client = nginx.client();
    let request = Request::get(&subscriber("a")).header("Authorization", "secret");
    nginx.park_request(&mut client, "a", &request);
    nginx.publish("a", "one").expect_status(201);
    assert_eq!(client.response().expect_status(200).text(), "one");
    // The backend was asked once per request.
    let count = || nginx.access_log().iter().filter(|line| line.contains("204")).count();
    wait::until_true("the line of the request", || {
        nginx.access_log().iter().any(|line| line.starts_with("GET /sub?id=a 200"))
    });
    assert_eq!(count(), 1, "{:?}", nginx.access_log());
}

fn limit_conn_counts_those_who_wait(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .http("limit_conn_zone $arg_id zone=waiting:1m;")
            .subscriber("limit_conn waiting 2;"),
    );
    let first = nginx.park("a");
    let mut second = nginx.park("a");
    nginx.poll("a", &Cursor::none()).expect_status(503);
    second.expect_silence();
    drop(first);
    nginx.wait_for_subscribers("a", 1);
    // nginx gives the place back with the memory of the request, after the access log line and so
    // a moment later than the channel: another worker may refuse the next client until then.
    let mut third = wait::until("a place", || {
        let mut client = nginx.client();
        client.send(&Request::get(&subscriber("a")));
        wait::until_true("an answer", || client.has_bytes() || nginx.subscribers("a") == 2);
        if client.has_bytes() {
            client.response().expect_status(503);
            return None;
        }
        Some(client)
    });
    nginx.publish("a", "one").expect_status(201);
    for client in [&mut second, &mut third] {
        assert_eq!(client.response().expect_status(200).text(), "one");
    }
}

fn without_keepalive_the_reply_closes_the_connection(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).http("keepalive_timeout 0;"));
    let mut waiting = nginx.park("a");
    nginx.publish("a", "one").expect_status(201);
    let response = waiting.response().expect_status(200);
    assert_eq!(response.header("Connection"), Some("close"));
    waiting.expect_closed();
}

fn a_proxy_in_front_changes_nothing(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .server("location /proxied { proxy_pass http://127.0.0.1:@port@/sub; }"),
    );
    let request = |cursor: &Cursor| cursor.apply(Request::get("/proxied?id=a"));
    let mut client = nginx.client();
    let mut cursor = Cursor::none();
    for body in ["one", "two"] {
        nginx.park_request(&mut client, "a", &request(&cursor));
        nginx.publish("a", body).expect_status(201);
        let response = client.response().expect_status(200);
        assert_eq!(response.text(), body);
        cursor = Cursor::after(&response);
        nginx.wait_for_subscribers("a", 0);
    }
    nginx.park_request(&mut client, "a", &request(&cursor));
    drop(client);
    nginx.wait_for_subscribers("a", 0);
}

fn a_page_may_include_a_message(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).server(
        "location /page {
             ssi on; default_type text/html;
             return 200 'before <!--# include virtual=\"/sub?id=a\" --> after';
         }",
    ));
    nginx.publish("a", "one");
    assert_eq!(nginx.get("/page").expect_status(200).text(), "before one after");
}

fn the_variables_of_a_reply_are_those_of_its_request(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .http("map $arg_id $named { default $arg_id; }")
            .subscriber("add_header X-Channel $named always; add_header X-Query $args always;"),
    );
    let mut waiting = nginx.park("a");
    nginx.publish("a", "one").expect_status(201);
    for response in [waiting.response(), nginx.poll("a", &Cursor::none())] {
        assert_eq!(response.header("X-Channel"), Some("a"));
        assert_eq!(response.header("X-Query"), Some("id=a"));
    }
}
