//! Tests for pages of other origins: `push_cors_origin` and `push_cors_credentials`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::event_source;
use support::http2::Http2;
use support::lines::json_request;
use support::push::{publisher, subscriber};
use support::webdriver::{Browser, Wishes};
use support::websocket::Handshake;
use support::{nginx, on_1_and_4_workers, wait, Config, Cursor, Nginx, Request, Response};

on_1_and_4_workers!(
    without_the_directive_nothing_changes,
    every_reply_says_who_may_read_it,
    replies_that_nginx_makes_say_it_too,
    waiting_subscribers_get_each_their_own_origin,
    a_wait_that_ends_without_a_message_says_it_too,
    a_wait_behind_an_if_says_it_too,
    streams_and_websockets_say_it_in_their_heads,
    other_origins_are_refused_everything,
    scripts_are_for_every_page,
    programs_and_the_sites_own_pages_pass,
    a_browser_that_asks_is_told_what_it_may_send,
    values_may_be_many_and_have_wildcards_and_variables,
    values_are_inherited_as_a_whole,
    everybody_may_mean_everybody,
    with_credentials_the_origin_is_named,
    an_error_page_elsewhere_says_it_once,
    what_no_browser_sends_is_refused_and_not_repeated,
    only_our_locations_are_concerned,
    a_reload_changes_who_may,
);

const APP: &str = "https://app.example.com";
const EVIL: &str = "https://evil.example.org";
const FORM: &str = "application/x-www-form-urlencoded";

fn start(workers: usize) -> Nginx {
    Nginx::start(config(workers))
}

fn config(workers: usize) -> Config {
    Config::push(workers).http(&format!("push_cors_origin {APP};")).server(
        "push_channel_id $arg_id;
         location = /both { push_pubsub; }
         location = /interval { push_subscriber interval-poll; }
         location = /streams { push_subscriber eventsource websocket stream; }
         location = /iframe { push_subscriber iframe; }
         location = /multipart { push_subscriber multipart; }
         location = /socket { push_subscriber websocket; }
         location /script { push_subscriber jsonp long-poll eventsource websocket;
             location = /script/pub { push_publisher; } }
         location = /short { push_subscriber; push_subscriber_timeout 1s; }
         location = /first { push_subscriber; push_subscriber_concurrency first; }
         location = /full { push_subscriber; push_max_channel_subscribers 1; }
         location = /known { push_subscriber; push_authorized_channels_only on; }",
    )
}

fn from(origin: &str, request: Request) -> Request {
    request.header("Origin", origin)
}

fn values<'a>(response: &'a Response, name: &str) -> Vec<&'a str> {
    let fields = response.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    fields.map(|(_, value)| value.as_str()).collect()
}

/// Panics unless the page of that origin may read the reply, and no other.
#[track_caller]
fn expect_readable(response: &Response, origin: &str) {
    let head = &response.head;
    assert_eq!(values(response, "Access-Control-Allow-Origin"), [origin], "{head}");
    let exposed = "Last-Modified, Etag, Push-Missed, Push-Channel";
    assert_eq!(values(response, "Access-Control-Expose-Headers"), [exposed], "{head}");
    let fields = values(response, "Vary");
    let named = fields.iter().filter(|value| **value == "Origin").count();
    assert_eq!(named, usize::from(origin != "*"), "{head}");
}

/// Panics if any page may read the reply.
#[track_caller]
fn expect_unreadable(response: &Response) {
    assert!(!response.head.contains("Access-Control-Allow"), "{}", response.head);
    assert!(values(response, "Vary").contains(&"Origin"), "{}", response.head);
}

#[track_caller]
fn expect_refused(response: &Response) {
    assert_eq!(response.status, 403, "{}", response.head);
    assert!(response.text().contains("push_cors_origin"), "{}", response.text());
    expect_unreadable(response);
}

fn without_the_directive_nothing_changes(workers: usize) {
    let config = Config::push(workers).http("push_cors_credentials on;");
    let nginx = Nginx::start(config);
    let form = Request::post(&publisher("a"), "x=1").header("Content-Type", FORM);
    let published = nginx.request(&from(EVIL, form)).expect_status(202);
    let message = nginx.request(&from(EVIL, Request::get(&subscriber("a")))).expect_status(200);
    let missing = nginx.request(&from(EVIL, Request::get(&publisher("b")))).expect_status(404);
    for response in [published, message, missing] {
        assert!(!response.head.contains("Access-Control"), "{}", response.head);
        assert!(!response.has_in_list("Vary", "Origin"), "{}", response.head);
    }
    Handshake::to(&subscriber("a")).header("Origin", EVIL).open(nginx.port());
    let asked = nginx.request(&from(EVIL, Request::new("OPTIONS", &subscriber("a"))));
    assert_eq!(asked.header("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(asked.header("Access-Control-Max-Age"), None);
}

fn every_reply_says_who_may_read_it(workers: usize) {
    let nginx = start(workers);
    nginx.publish("known", "one");
    let _first = nginx.park_at("/first?id=first", &publisher("first"));
    let _full = nginx.park_at("/full?id=full", &publisher("full"));
    let handshake = |target: &str| Handshake::to(target).request();
    for (request, status) in [
        (Request::post(&publisher("a"), "one"), 202),
        (Request::post("/both?id=a", "two"), 202),
        (Request::new("PUT", &publisher("a")).body("three"), 202),
        (Request::get(&publisher("a")), 200),
        (Request::get(&subscriber("a")), 200),
        (Request::get("/both?id=a"), 200),
        (Request::new("DELETE", &publisher("a")), 200),
        (Request::new("DELETE", &publisher("a")), 404),
        (Request::get(&publisher("a")), 404),
        (Request::get("/pub"), 404),
        (Request::post("/pub", "one"), 404),
        (Request::get("/sub"), 404),
        (Request::get("/interval?id=b"), 304),
        (Request::new("PATCH", &publisher("a")), 405),
        (Request::post(&subscriber("a"), "one"), 405),
        (Request::new("PATCH", "/both?id=a"), 405),
        (Request::get("/known?id=unknown"), 403),
        (Request::get("/known?id=known"), 200),
        (Request::get("/full?id=full"), 403),
        (Request::get("/first?id=first"), 409),
        (event_source::request("/interval?id=b"), 406),
        (Request::get("/socket?id=b"), 426),
        (handshake("/interval?id=b"), 403),
        (
            Request::get("/sub?id=b")
                .header("Upgrade", "websocket")
                .header("Connection", "upgrade"),
            426,
        ),
    ] {
        let response = nginx.request(&from(APP, request.clone()));
        assert_eq!(response.status, status, "{request:?}\n{}", response.head);
        expect_readable(&response, APP);
    }
}

fn replies_that_nginx_makes_say_it_too(workers: usize) {
    let nginx = Nginx::start(
        config(workers)
            .http("push_shared_memory_size 128k;")
            .http("client_max_body_size 1m; client_body_buffer_size 1m;")
            .server(
                "location = /small { push_publisher; client_max_body_size 10; }
                 location = /denied { push_publisher; deny all; }
                 location = /limited { push_publisher; limit_except GET { deny all; } }
                 location = /returned { push_subscriber; if ($arg_go) { return 402; } }",
            ),
    );
    for (request, status) in [
        (Request::post("/small?id=a", "more than ten bytes"), 413),
        (Request::post("/denied?id=a", "one"), 403),
        (Request::post("/limited?id=a", "one"), 403),
        (Request::get("/returned?id=a&go=1"), 402),
        (Request::post(&publisher("a"), vec![b'x'; 200_000]), 507),
    ] {
        let response = nginx.request(&from(APP, request)).expect_status(status);
        expect_readable(&response, APP);
    }
    let response = nginx.request(&from(EVIL, Request::post("/denied?id=a", "one")));
    expect_unreadable(&response.expect_status(403));
}

/// Both ways to park, with origins that a map and `set` allow.
fn parking(workers: usize) -> impl Iterator<Item = Nginx> {
    ["compact", "plain"].into_iter().map(move |park| {
        Nginx::start(
            Config::push(workers)
                .http(&format!(
                    "map $http_origin $allowed {{ default ''; '~\\.example\\.com$' $http_origin; }}
             push_park {park};"
                ))
                .subscriber("set $set http://$arg_id.example; push_cors_origin $set $allowed;"),
        )
    })
}

fn waiting_subscribers_get_each_their_own_origin(workers: usize) {
    for nginx in parking(workers) {
        let origins = [Some(APP), None, Some("https://b.example.com"), Some("http://a.example")];
        let mut waiting = origins.map(|origin| {
            let mut client = nginx.client();
            let request = Request::get(&subscriber("a"));
            let request = match origin {
                Some(origin) => from(origin, request),
                None => request,
            };
            nginx.park_request(&mut client, "a", &request);
            client
        });
        nginx.publish("a", "one").expect_status(201);
        for (client, origin) in waiting.iter_mut().zip(origins) {
            let response = client.response().expect_status(200);
            match origin {
                Some(origin) => expect_readable(&response, origin),
                None => expect_unreadable(&response),
            }
            // The connection goes on.
            let next = from(APP, Request::get(&subscriber("a")));
            expect_readable(&client.request(&next).expect_status(200), APP);
        }
        expect_refused(&nginx.request(&from(EVIL, Request::get(&subscriber("a")))));
    }
}

fn a_wait_that_ends_without_a_message_says_it_too(workers: usize) {
    for park in ["compact", "plain"] {
        let nginx = Nginx::start(config(workers).http(&format!("push_park {park};")));
        let mut gone = nginx.client();
        nginx.park_request(&mut gone, "gone", &from(APP, Request::get(&subscriber("gone"))));
        nginx.request(&Request::new("DELETE", &publisher("gone"))).expect_status(200);
        expect_readable(&gone.response().expect_status(410), APP);
        let timed_out = nginx.request(&from(APP, Request::get("/short?id=a")));
        expect_readable(&timed_out.expect_status(304), APP);
        let mut released = nginx.client();
        nginx.park_request(&mut released, "b", &from(APP, Request::get(&subscriber("b"))));
        nginx.reload();
        expect_readable(&released.response().expect_status(304), APP);
    }
}

fn a_wait_behind_an_if_says_it_too(workers: usize) {
    for park in ["compact", "plain"] {
        let nginx = Nginx::start(
            Config::push(workers)
                .http(&format!(
                    "push_park {park}; push_cors_origin {APP}; push_channel_id $arg_id;"
                ))
                .server(
                    "location = /if { push_subscriber; push_subscriber_timeout 3s;
                         if ($arg_x) { add_header X-Seen $arg_x; } }
                     location = /if-both { push_pubsub;
                         if ($arg_x) { add_header X-Seen $arg_x; } }",
                ),
        );
        for path in ["if", "if-both"] {
            let request = from(APP, Request::get(&format!("/{path}?id={path}&x=1")));
            let mut waiting = nginx.client();
            nginx.park_request(&mut waiting, path, &request);
            nginx.publish(path, "one").expect_status(201);
            let late = waiting.response().expect_status(200);
            let early = nginx.request(&request).expect_status(200);
            for response in [late, early] {
                expect_readable(&response, APP);
                assert_eq!(response.header("X-Seen"), Some("1"));
            }
        }
        let timed_out = nginx.request(&from(APP, Request::get("/if?id=none&x=1")));
        expect_readable(&timed_out.expect_status(304), APP);
    }
}

fn streams_and_websockets_say_it_in_their_heads(workers: usize) {
    for park in ["compact", "plain"] {
        let nginx = Nginx::start(config(workers).http(&format!("push_park {park};")));
        let target = "/streams?id=a";
        let requests = [
            (Handshake::to(target).request(), 101),
            (Handshake::to("/both?id=a").request(), 101),
            (Handshake::to("/pub?id=a").request(), 101),
            (event_source::request(target), 200),
            (json_request(target), 200),
            (Request::get(target).header("Accept", "x/stream"), 200),
            (Request::get("/iframe?id=a"), 200),
            (Request::get("/multipart?id=a"), 200),
        ];
        let mut open = Vec::new();
        for (request, status) in requests {
            let mut client = nginx.client();
            client.send(&from(APP, request));
            let response = client.try_head().expect("a reply").expect_status(status);
            expect_readable(&response, APP);
            open.push(client);
        }
        nginx.wait_for_subscribers("a", 7);
        nginx.publish("a", "one").expect_status(201);
        for (place, client) in open.iter_mut().enumerate().filter(|(place, _)| *place != 2) {
            let mut seen = Vec::new();
            wait::until_true("the message", || {
                seen.extend(client.try_some().expect("a stream").expect("more of it"));
                seen.windows(3).any(|bytes| bytes == b"one")
            });
            assert!(!seen.is_empty(), "{place}");
        }
    }
}

fn other_origins_are_refused_everything(workers: usize) {
    let nginx = start(workers);
    nginx.publish("a", "one");
    let form = |target: &str| Request::post(target, "x=1").header("Content-Type", FORM);
    for origin in [
        EVIL,
        "null",
        "https://app.example.com.evil.org",
        "http://app.example.com",
        "http://localhost:1",
    ] {
        for request in [
            form(&publisher("a")),
            form("/both?id=a"),
            Request::post(&publisher("a"), vec![b'x'; 100_000]),
            Request::new("PUT", &publisher("a")).body("two"),
            Request::new("DELETE", &publisher("a")),
            Request::get(&publisher("a")),
            Request::new("OPTIONS", &publisher("a")),
            Request::new("OPTIONS", &subscriber("a")),
            Request::new("OPTIONS", "/both?id=a"),
            Request::get(&subscriber("a")),
            Request::get(&subscriber("a")).body("a body"),
            Request::get("/interval?id=a"),
            Request::get("/sub"),
            event_source::request("/streams?id=a"),
            json_request("/streams?id=a"),
            Handshake::to("/streams?id=a").request(),
            Handshake::to("/both?id=a").request(),
            Handshake::to("/pub?id=a").request(),
            // These are no scripts.
            Request::get("/script?id=a"),
            event_source::request("/script?id=a"),
            Handshake::to("/script?id=a&callback=f").request(),
            Request::post("/script?id=a&callback=f", "x=1"),
            Request::new("OPTIONS", "/script?id=a&callback=f"),
            Request::get("/sub?id=a&callback=f"),
            Request::get("/script/pub?id=a&callback=f"),
        ] {
            let mut client = nginx.client();
            expect_refused(&client.request(&from(origin, request)));
            client.request(&Request::get("/worker")).expect_status(200);
        }
    }
    assert_eq!(nginx.queue("a"), ["one"]);
    assert!(nginx.error_log().contains("not in push_cors_origin"));
}

fn scripts_are_for_every_page(workers: usize) {
    let target = "/script?id=a&callback=f";
    let with_credentials = config(workers).http("push_cors_credentials on;");
    for (config, named) in [(config(workers), "*"), (with_credentials, EVIL)] {
        let nginx = Nginx::start(config);
        let mut waiting = nginx.client();
        waiting.send(&from(EVIL, Request::get(target)));
        nginx.wait_for_subscribers("a", 1);
        nginx.publish("a", "one").expect_status(201);
        let at_once = nginx.request(&from(EVIL, Request::get(target)));
        for response in [waiting.response(), at_once] {
            let response = response.expect_status(200);
            assert!(response.text().contains("\"data\":\"one\""), "{}", response.text());
            expect_readable(&response, named);
        }
        let refused = nginx.request(&from(EVIL, Request::get("/script?callback=f")));
        assert!(refused.text().starts_with("/**/f([{\"error\":404"), "{}", refused.text());
        nginx.get(target).expect_status(200);
    }
}

fn programs_and_the_sites_own_pages_pass(workers: usize) {
    let nginx = start(workers);
    let own = ["http://localhost", "https://localhost", "http://LOCALHOST:80"];
    for origin in own.map(Some).into_iter().chain([None]) {
        let with_origin = |request: Request| match origin {
            Some(origin) => from(origin, request),
            None => request,
        };
        let form = Request::post(&publisher("a"), "x=1").header("Content-Type", FORM);
        expect_unreadable(&nginx.request(&with_origin(form)).expect_status(202));
        let message = nginx.request(&with_origin(Request::get(&subscriber("a"))));
        expect_unreadable(&message.expect_status(200));
        let mut handshake = Handshake::to("/both?id=a");
        if let Some(origin) = origin {
            handshake = handshake.header("Origin", origin);
        }
        handshake.open(nginx.port()).expect_text("x=1");
        nginx.request(&with_origin(Request::new("DELETE", &publisher("a")))).expect_status(200);
    }
}

#[test]
fn http_2_pages_of_the_same_authority_pass() {
    let listen = match nginx::build().version() {
        1_025_001.. => "listen 127.0.0.1:@port2@; http2 on;",
        _ => "listen 127.0.0.1:@port2@ http2;",
    };
    if !nginx::has_or_skip("http_v2") {
        return;
    }
    let nginx = Nginx::start(config(1).server(listen));
    nginx.publish("a", "one");
    let mut client = Http2::connect(nginx.port2());
    for (stream, origin, status) in [
        (1, "https://localhost", 200),
        (3, APP, 200),
        (5, EVIL, 403),
        (7, "http://localhost:1", 403),
    ] {
        client.get_with(stream, &subscriber("a"), &[("origin", origin)]);
        assert_eq!(client.reply().status, status, "{origin}");
    }
}

fn a_browser_that_asks_is_told_what_it_may_send(workers: usize) {
    let nginx = start(workers);
    let both = ["GET, POST, PUT, DELETE, OPTIONS"];
    for (target, methods, headers) in [
        ("/pub?id=a", both, &["content-type", "push-event"][..]),
        ("/sub?id=a", ["GET, OPTIONS"], &["if-none-match", "if-modified-since", "last-event-id"]),
        ("/both?id=a", both, &["content-type", "push-event", "if-none-match", "last-event-id"]),
        // The channel's id may be in a header that this request does not have.
        ("/pub", both, &["authorization"]),
        ("/sub", ["GET, OPTIONS"], &["authorization"]),
    ] {
        let request = Request::new("OPTIONS", target)
            .header("Access-Control-Request-Method", "GET")
            .header("Access-Control-Request-Headers", "if-none-match");
        let response = nginx.request(&from(APP, request)).expect_status(200).expect_empty();
        expect_readable(&response, APP);
        assert_eq!(values(&response, "Access-Control-Allow-Methods"), methods);
        assert_eq!(response.header("Access-Control-Max-Age"), Some("7200"));
        for header in headers {
            assert!(
                response.has_in_list("Access-Control-Allow-Headers", header),
                "{}",
                response.head
            );
        }
        let plain = nginx.request(&Request::new("OPTIONS", target)).expect_status(200);
        assert!(!plain.head.contains("Access-Control-Allow-Origin"), "{}", plain.head);
    }
    assert_eq!(nginx.info("a"), None);
}

fn values_may_be_many_and_have_wildcards_and_variables(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .http("map $arg_site $site { default ''; ~^\\w+$ https://$arg_site.test; }")
            .server(
                "push_channel_id $arg_id;
                 location /many {
                     push_publisher;
                     push_cors_origin https://a.test https://*.b.test:8443 http://[::1]:8080 $site http://$arg_host:81;
                 }",
            ),
    );
    for (args, origin, passes) in [
        ("", "https://a.test", true),
        ("", "HTTPS://A.test:443", true),
        ("", "https://x.y.b.test:8443", true),
        ("", "http://[::1]:8080", true),
        ("&site=c", "https://c.test", true),
        ("&host=d.test", "http://d.test:81", true),
        ("", "http://a.test", false),
        ("", "https://b.test:8443", false),
        ("", "https://evil-b.test:8443", false),
        ("", "https://x.b.test", false),
        ("", "https://c.test", false),
        ("&site=c.evil", "https://c.evil.test", false),
        ("", "http://d.test:81", false),
        ("", "", false),
        ("", "null", false),
    ] {
        let request = Request::post(&format!("/many?id=a{args}"), "one");
        let response = nginx.request(&from(origin, request));
        match passes {
            true => expect_readable(&response.expect_status(202), origin),
            false => expect_refused(&response),
        }
    }
}

fn values_are_inherited_as_a_whole(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .http(&format!("push_cors_origin {APP}; push_cors_credentials on;"))
            .server(
                "push_channel_id $arg_id;
                 location /outer { push_publisher; }
                 location /own { push_publisher; push_cors_origin https://own.test; push_cors_credentials off; }
                 location /if { push_publisher; if ($arg_if) { push_channel_id if; } }",
            ),
    );
    for (target, origin, credentials) in [
        ("/outer?id=a", APP, &["true"][..]),
        ("/if?if=1", APP, &["true"]),
        ("/own?id=a", "https://own.test", &[]),
    ] {
        let response = nginx.request(&from(origin, Request::post(target, "one")));
        expect_readable(&response, origin);
        assert_eq!(values(&response, "Access-Control-Allow-Credentials"), credentials);
    }
    expect_refused(&nginx.request(&from(APP, Request::post("/own?id=a", "one"))));
    expect_refused(&nginx.request(&from("https://own.test", Request::post("/outer?id=a", "one"))));
}

fn everybody_may_mean_everybody(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).http("push_cors_origin *;"));
    for origin in [EVIL, "null", "http://localhost", "file://"] {
        let published = nginx.request(&from(origin, Request::post(&publisher("a"), "one")));
        let published = published.expect_status(202);
        expect_readable(&published, "*");
        assert!(!published.head.contains("Credentials"), "{}", published.head);
    }
    // A cache may keep a reply for all.
    expect_readable(&nginx.poll("a", &Cursor::none()).expect_status(200), "*");
    Handshake::to(&subscriber("a")).header("Origin", EVIL).open(nginx.port());
}

fn with_credentials_the_origin_is_named(workers: usize) {
    let config = Config::push(workers).http("push_cors_origin *; push_cors_credentials on;");
    let nginx = Nginx::start(config);
    for origin in [EVIL, "null"] {
        for request in [
            Request::post(&publisher("a"), "one"),
            Request::get(&subscriber("a")),
            Request::new("OPTIONS", &subscriber("a")),
        ] {
            let response = nginx.request(&from(origin, request));
            expect_readable(&response, origin);
            assert_eq!(values(&response, "Access-Control-Allow-Credentials"), ["true"]);
        }
    }
    expect_unreadable(&nginx.poll("a", &Cursor::none()).expect_status(200));
}

fn an_error_page_elsewhere_says_it_once(workers: usize) {
    let nginx = Nginx::start(
        config(workers)
            .server(
                "error_page 403 405 /page; location = /page { internal; return 200 'our page'; }",
            )
            .server("location = /ours { push_publisher; error_page 405 = /pub; }"),
    );
    for request in [Request::new("PATCH", &publisher("a")), Request::get("/known?id=unknown")] {
        let response = nginx.request(&from(APP, request));
        assert_eq!(response.text(), "our page", "{}", response.head);
        expect_readable(&response, APP);
    }
    let response = nginx.request(&from(APP, Request::new("PATCH", "/ours?id=a")));
    expect_readable(&response, APP);
    // A refusal is ours.
    expect_refused(&nginx.request(&from(EVIL, Request::get("/known?id=unknown"))));
}

fn what_no_browser_sends_is_refused_and_not_repeated(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .http("push_cors_credentials on;")
            .subscriber("push_cors_origin *;")
            .publisher("push_cors_origin https://*.example.com https://$arg_x;"),
    );
    for target in [subscriber("a"), publisher("a")] {
        for origin in [
            "",
            "a b",
            "https://a\tb.example.com",
            "https://a\u{1}.example.com",
            "https://\u{7f}.example.com",
            "https://\u{e4}.example.com",
            "https://a.example.com https://b.example.com",
        ] {
            expect_refused(&nginx.request(&from(origin, Request::get(&target))));
        }
        let two =
            from("https://b.example.com", from("https://a.example.com", Request::get(&target)));
        expect_refused(&nginx.request(&two));
    }
}

fn only_our_locations_are_concerned(workers: usize) {
    let nginx = Nginx::start(
        config(workers)
            .server("location /plain { return 200 plain; } location /gone { return 410; }"),
    );
    for origin in [APP, EVIL] {
        for (target, status) in [("/plain", 200), ("/gone", 410), ("/nowhere", 404)] {
            let response = nginx.request(&from(origin, Request::get(target))).expect_status(status);
            assert!(!response.head.contains("Access-Control"), "{}", response.head);
            assert_eq!(response.header("Vary"), None);
        }
    }
}

fn a_reload_changes_who_may(workers: usize) {
    let other = "https://other.test";
    let mut nginx = start(workers);
    for (config, readable, refused) in [
        (Config::push(workers).http(&format!("push_cors_origin {other};")), Some(other), Some(APP)),
        (Config::push(workers), None, None),
        (config(workers), Some(APP), Some(other)),
    ] {
        nginx.reconfigure(config);
        let old = nginx.reload();
        nginx.wait_gone(&old);
        let get = || Request::get(&publisher("none"));
        match readable {
            Some(origin) => expect_readable(&nginx.request(&from(origin, get())), origin),
            None => {
                let response = nginx.request(&from(EVIL, get())).expect_status(404);
                assert!(!response.head.contains("Access-Control"), "{}", response.head);
            }
        }
        if let Some(origin) = refused {
            expect_refused(&nginx.request(&from(origin, get())));
        }
    }
}

/// What a page does at another origin, one after another; what comes of each.
const PAGE: &str = r#"
    const attempt = async (what) => { try { return await what(); } catch (error) { return "failed"; } };
    const post = (options) => fetch(`${base}/both?id=${id}`, { method: "POST", ...options });
    const results = {};
    results.form = await attempt(() => new Promise((done) => {
        const frame = document.createElement("iframe");
        frame.name = "target";
        document.body.append(frame);
        const form = document.body.appendChild(document.createElement("form"));
        form.action = `${base}/both?id=${id}`;
        form.method = "POST";
        form.target = "target";
        form.innerHTML = "<input name=form value=1>";
        frame.onload = () => done("sent");
        form.submit();
    }));
    results.blind = await attempt(async () => (await post({ mode: "no-cors", body: "blind" })).type);
    results.simple = await attempt(async () => (await post({ body: "simple" })).status);
    results.asked = await attempt(async () =>
        (await post({ headers: { "Push-Event": "named", "Content-Type": "x/y" }, body: "asked" })).status);
    results.info = await attempt(async () => (await fetch(`${base}/pub?id=${id}`)).status);
    results.missing = await attempt(async () => (await fetch(`${base}/pub?id=missing`)).status);
    let first;
    results.poll = await attempt(async () => {
        first = await fetch(`${base}/sub?id=${id}`);
        return first.headers.get("Etag") !== null && await first.text();
    });
    results.next = await attempt(async () => {
        const headers = {
            "If-Modified-Since": first.headers.get("Last-Modified"),
            "If-None-Match": first.headers.get("Etag"),
        };
        return await (await fetch(`${base}/sub?id=${id}`, { headers })).text();
    });
    results.events = await attempt(() => new Promise((done) => {
        const source = new EventSource(`${base}/sub?id=${id}`);
        source.onmessage = (event) => { source.close(); done(event.data); };
        source.onerror = () => { source.close(); done("failed"); };
    }));
    results.socket = await attempt(() => new Promise((done) => {
        const socket = new WebSocket(`${base.replace("http", "ws")}/both?id=${id}`);
        socket.onmessage = async ({ data }) => { socket.close(); done(data); };
        socket.onerror = () => done("failed");
    }));
    return results;
"#;

#[test]
fn a_browser_lets_listed_origins_and_no_others() {
    let nginx = Nginx::start(
        Config::push(4).http("push_cors_origin http://localhost:@port2@;").server(
            "listen 127.0.0.1:@port2@;
             location = /both { push_pubsub; push_channel_id $arg_id; }
             location = /page { default_type text/html; return 200 '<!doctype html><body></body>'; }",
        ),
    );
    let base = format!("http://localhost:{}", nginx.port());
    let browser = Browser::start(Wishes::default());
    let run = |page: &str, id: &str| {
        browser.open(&format!("{page}/page"));
        let script = format!("const base = {base:?}; const id = {id:?}; {PAGE}");
        browser.run(&format!("return (async () => {{ {script} }})();"))
    };
    for (page, id) in
        [(format!("http://localhost:{}", nginx.port2()), "listed"), (base.clone(), "own")]
    {
        let results = run(&page, id);
        assert_eq!(results["form"], "sent", "{results}");
        for (what, expected) in [("simple", 202), ("asked", 202), ("info", 200), ("missing", 404)] {
            assert_eq!(results[what], expected, "{what}: {results}");
        }
        for (what, expected) in
            [("poll", "form=1"), ("next", "blind"), ("events", "form=1"), ("socket", "form=1")]
        {
            assert_eq!(results[what], expected, "{what}: {results}");
        }
        assert_eq!(nginx.queue(id), ["form=1", "blind", "simple", "asked"]);
    }
    nginx.publish("refused", "secret");
    for page in [
        format!("http://127.0.0.1:{}", nginx.port2()),
        format!("http://127.0.0.1:{}", nginx.port()),
    ] {
        let results = run(&page, "refused");
        for what in ["simple", "asked", "info", "missing", "poll", "next", "events", "socket"] {
            assert_eq!(results[what], "failed", "{what}: {results}");
        }
        assert_eq!((&results["form"], &results["blind"]), (&"sent".into(), &"opaque".into()));
    }
    assert_eq!(nginx.queue("refused"), ["secret"]);
}
