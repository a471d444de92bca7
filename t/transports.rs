//! Tests for the choice of a transport, its words, and `push_pubsub`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::event_source::{self, EventSource};
use support::lines::{json_request, Lines};
use support::push::{publisher, subscriber, Info};
use support::websocket::Handshake;
use support::{on_1_and_4_workers, wait, Client, Config, Cursor, Nginx, Request, Response};

use Served::{
    EventStream, IntervalPoll, JsonLines, LongPoll, Page, Parts, PlainStream, Status, WebSocket,
};

on_1_and_4_workers!(
    without_arguments_a_client_gets_what_it_asks_for,
    with_arguments_only_those_are_served,
    the_leftmost_allowed_type_in_accept_wins,
    every_word_and_every_synonym_of_it_is_known,
    names_of_header_values_are_read_as_http_says,
    a_websocket_is_recognized_by_its_handshake,
    a_refused_handshake_says_why,
    a_refused_event_stream_says_why,
    only_websocket_tells_others_to_upgrade,
    pubsub_subscribes_publishes_and_deletes,
    pubsub_takes_the_same_words,
    pubsub_tells_browsers_what_is_possible,
    transports_share_a_channel,
    a_stream_is_refused_as_a_poll_is,
    other_methods_are_405_on_streams,
    the_long_poll_has_not_changed,
);

/// What a request got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    LongPoll,
    IntervalPoll,
    EventStream,
    JsonLines,
    PlainStream,
    Page,
    Parts,
    WebSocket,
    Status(u16),
}

/// Asks for an empty channel and says what came, or whether the request waits.
///
/// A message is published as soon as it waits, so that a long-poll shows itself by its reply.
fn served(nginx: &Nginx, id: &str, request: &Request) -> (Served, Response) {
    let mut client = nginx.client();
    client.send(request);
    let mut published = false;
    let response = wait::until("a reply or a waiting request", || {
        if !published && nginx.subscribers(id) == 1 {
            nginx.publish(id, "one").expect_status(201);
            published = true;
        }
        (published || client.has_bytes()).then(|| client.try_head().expect("a reply"))
    });
    let content_type = response.header("Content-Type").unwrap_or_default();
    let is_stream = response.header("X-Accel-Buffering").is_some();
    let served = match (response.status, is_stream) {
        (101, _) => WebSocket,
        (304, false) => IntervalPoll,
        (200, false) if response.header("Etag").is_some() => LongPoll,
        (200, true) if content_type.starts_with("text/event-stream") => EventStream,
        (200, true) if content_type == "application/x-ndjson" => JsonLines,
        (200, true) if content_type == "text/html; charset=utf-8" => Page,
        (200, true) if content_type.starts_with("multipart/") => Parts,
        (200, true) => PlainStream,
        (status, _) => Status(status),
    };
    (served, response)
}

/// Locations `/0`, `/1`, ... with these words each.
fn start(workers: usize, kind: &str, words: &[&str]) -> Nginx {
    let locations = words.iter().enumerate().map(|(number, words)| {
        format!("location = /{number} {{ {kind} {words}; push_channel_id $arg_id; }}\n")
    });
    Nginx::start(Config::push(workers).server(&locations.collect::<String>()))
}

fn asking(target: &str, accept: &str) -> Request {
    match accept {
        "" => Request::get(target),
        "websocket" => Handshake::to(target).request(),
        _ => Request::get(target).header("Accept", accept),
    }
}

/// Checks what is served for (number of the location, `Accept`, expectation).
#[track_caller]
fn check(nginx: &Nginx, cases: &[(usize, &str, Served)]) {
    for (number, (location, accept, expected)) in cases.iter().enumerate() {
        let id = format!("case-{number}");
        let target = format!("/{location}?id={id}");
        let (served, response) = served(nginx, &id, &asking(&target, accept));
        assert_eq!(served, *expected, "location {location}, {accept:?}:\n{}", response.head);
    }
}

const SSE: &str = "text/event-stream";
const NDJSON: &str = "application/x-ndjson";

fn without_arguments_a_client_gets_what_it_asks_for(workers: usize) {
    for kind in ["push_subscriber", "push_pubsub"] {
        let nginx = start(workers, kind, &[""]);
        check(
            &nginx,
            &[
                (0, "", LongPoll),
                (0, "*/*", LongPoll),
                (0, "text/html,application/xhtml+xml,*/*;q=0.8", LongPoll),
                (0, "text/plain", LongPoll),
                (0, SSE, EventStream),
                (0, NDJSON, JsonLines),
                (0, "application/ndjson", JsonLines),
                (0, "websocket", WebSocket),
            ],
        );
    }
}

fn with_arguments_only_those_are_served(workers: usize) {
    let words = [
        "long-poll",
        "interval-poll",
        "eventsource",
        "stream",
        "long-poll eventsource",
        "eventsource long-poll",
        "interval-poll long-poll stream eventsource websocket",
        "stream eventsource",
        "websocket long-poll",
        "stream websocket",
    ];
    let nginx = start(workers, "push_subscriber", &words);
    check(
        &nginx,
        &[
            (0, "", LongPoll),
            (0, NDJSON, LongPoll),
            (0, "text/event-stream, */*", LongPoll),
            (0, SSE, Status(406)),
            (0, "websocket", Status(403)),
            (1, "", IntervalPoll),
            (1, "text/event-stream, */*", IntervalPoll),
            (1, SSE, Status(406)),
            (2, "", EventStream),
            (2, SSE, EventStream),
            (2, NDJSON, EventStream),
            (2, "websocket", Status(403)),
            (3, "", PlainStream),
            (3, "*/*", PlainStream),
            (3, NDJSON, JsonLines),
            (3, "application/ndjson", JsonLines),
            (3, SSE, Status(406)),
            (4, "", LongPoll),
            (4, SSE, EventStream),
            (4, NDJSON, LongPoll),
            (5, "", LongPoll),
            (5, SSE, EventStream),
            (6, "", IntervalPoll),
            (6, SSE, EventStream),
            (6, NDJSON, JsonLines),
            (6, "websocket", WebSocket),
            (7, "", PlainStream),
            (7, SSE, EventStream),
            (8, "", LongPoll),
            (8, "websocket", WebSocket),
            (8, SSE, Status(406)),
            (9, "", PlainStream),
            (9, "websocket", WebSocket),
        ],
    );
}

fn the_leftmost_allowed_type_in_accept_wins(workers: usize) {
    let nginx =
        start(workers, "push_subscriber", &["", "long-poll stream", "long-poll eventsource"]);
    check(
        &nginx,
        &[
            (0, "text/event-stream, application/x-ndjson", EventStream),
            (0, "application/x-ndjson, text/event-stream", JsonLines),
            (0, "text/plain, application/ndjson;q=0.1, text/event-stream", JsonLines),
            (0, "*/*, text/event-stream", EventStream),
            (0, "text/event-stream;q=0, application/x-ndjson", JsonLines),
            (0, "text/event-stream;q=0.0", LongPoll),
            (0, "application/x-ndjson;q=0.000, */*", LongPoll),
            (1, "text/event-stream, application/x-ndjson", JsonLines),
            (2, "application/x-ndjson, text/event-stream", EventStream),
        ],
    );
}

fn every_word_and_every_synonym_of_it_is_known(workers: usize) {
    const WORDS: [(&str, &str, Served); 22] = [
        ("long-poll", "", LongPoll),
        ("longpoll", "", LongPoll),
        ("long", "", LongPoll),
        ("interval-poll", "", IntervalPoll),
        ("intervalpoll", "", IntervalPoll),
        ("poll", "", IntervalPoll),
        ("interval", "", IntervalPoll),
        ("eventsource", SSE, EventStream),
        ("event-source", SSE, EventStream),
        ("es", SSE, EventStream),
        ("sse", SSE, EventStream),
        ("websocket", "websocket", WebSocket),
        ("websockets", "websocket", WebSocket),
        ("ws", "websocket", WebSocket),
        ("stream", "", PlainStream),
        ("http-raw-stream", "", PlainStream),
        ("iframe", "", Page),
        ("htmlfile", "", Page),
        ("multipart", "", Parts),
        ("multipart-mixed", "multipart/x-mixed-replace", Parts),
        ("iframe multipart long-poll", "multipart/mixed", Parts),
        ("sse ws", SSE, EventStream),
    ];
    let words: Vec<&str> = WORDS.iter().map(|(words, ..)| *words).collect();
    let nginx = start(workers, "push_subscriber", &words);
    let cases: Vec<(usize, &str, Served)> = WORDS
        .iter()
        .enumerate()
        .map(|(number, (_, accept, served))| (number, *accept, *served))
        .collect();
    check(&nginx, &cases);
}

#[test]
fn unknown_words_are_refused() {
    for directive in ["push_subscriber", "push_pubsub"] {
        for words in ["telepathy", "eventsource telepathy", "even", "web", "str", "\"\""] {
            let text = format!("location /x {{ {directive} {words}; push_channel_id a; }}");
            let check = Nginx::check(&Config::bare().server(&text));
            assert!(!check.success, "{directive} {words}: {}", check.text);
            assert!(check.text.contains(directive), "{}", check.text);
        }
    }
    for (words, ok) in [
        ("", true),
        ("http", true),
        ("websocket", true),
        ("http ws", true),
        ("eventsource", false),
        ("\"\"", false),
    ] {
        let text = format!("location /x {{ push_publisher {words}; push_channel_id a; }}");
        assert_eq!(Nginx::check(&Config::bare().server(&text)).success, ok, "{words}");
    }
}

#[test]
fn the_new_directives_take_these_values() {
    for (text, ok) in [
        ("push_ping_interval 30s;", true),
        ("push_ping_interval 0;", true),
        ("push_ping_interval often;", false),
        ("push_eventsource_retry 5s;", true),
        ("push_eventsource_retry 0;", true),
        ("push_eventsource_retry soon;", false),
        ("push_stream_separator \"--\";", true),
        ("push_stream_separator a b;", false),
        ("push_websocket_deflate on;", true),
        ("push_websocket_deflate off;", true),
        ("push_websocket_deflate maybe;", false),
        ("push_websocket_info on;", true),
        ("push_websocket_info off;", true),
        ("push_websocket_info 1;", false),
    ] {
        for config in [
            Config::push(1).subscriber(text),
            Config::push(1).http(text),
            Config::push(1).server(text),
        ] {
            let check = Nginx::check(&config);
            assert_eq!(check.success, ok, "{text}: {}", check.text);
        }
    }
}

fn names_of_header_values_are_read_as_http_says(workers: usize) {
    let nginx = start(workers, "push_subscriber", &[""]);
    check(
        &nginx,
        &[
            (0, "TEXT/Event-Stream", EventStream),
            (0, "text/event-stream;charset=utf-8", EventStream),
            (0, " \ttext/event-stream ; q=1 ", EventStream),
            (0, "text/event-stream,", EventStream),
            (0, "text/html;x=\"a,text/event-stream\"", LongPoll),
            (0, "text/event-streams", LongPoll),
            (0, "xtext/event-stream", LongPoll),
            (0, "Application/X-NDJSON", JsonLines),
        ],
    );
}

fn handshake_with(target: &str, upgrade: &str, connection: &str) -> Request {
    Request::get(target)
        .header("Upgrade", upgrade)
        .header("Connection", connection)
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

fn a_websocket_is_recognized_by_its_handshake(workers: usize) {
    let nginx = start(workers, "push_subscriber", &["long-poll websocket"]);
    let cases = [
        ("websocket", "Upgrade", WebSocket),
        ("WebSocket", "upgrade", WebSocket),
        ("websocket", "keep-alive, Upgrade", WebSocket),
        ("websocket", "UPGRADE,close", WebSocket),
        ("websocket", "keep-alive", LongPoll),
        ("h2c", "Upgrade", LongPoll),
    ];
    for (number, (upgrade, connection, expected)) in cases.into_iter().enumerate() {
        let id = format!("case-{number}");
        let request = handshake_with(&format!("/0?id={id}"), upgrade, connection);
        let (served, response) = served(&nginx, &id, &request);
        assert_eq!(served, expected, "{upgrade:?}, {connection:?}:\n{}", response.head);
    }
}

/// Reads a refusal: a sentence, as text, on a connection that stays.
#[track_caller]
fn refused(nginx: &Nginx, request: &Request, status: u16) -> Response {
    let mut client = nginx.client();
    let response = client.request(request).expect_status(status);
    assert!(response.text().contains(' '), "a sentence: {:?}", response.text());
    assert_eq!(response.header("Content-Type"), Some("text/plain"));
    if !client.is_closing() {
        client.request(&Request::get("/worker")).expect_status(200);
    }
    response
}

fn a_refused_handshake_says_why(workers: usize) {
    let nginx = start(workers, "push_subscriber", &["long-poll"]);
    let request = Handshake::to("/0?id=a").request();
    let response = refused(&nginx, &request, 403);
    assert_eq!(response.header("Sec-WebSocket-Accept"), None);
    assert_eq!(nginx.info("a"), None);
}

fn a_refused_event_stream_says_why(workers: usize) {
    let nginx = start(workers, "push_subscriber", &["long-poll"]);
    refused(&nginx, &event_source::request("/0?id=a"), 406);
    assert_eq!(nginx.info("a"), None);
}

fn only_websocket_tells_others_to_upgrade(workers: usize) {
    let nginx = start(workers, "push_subscriber", &["websocket"]);
    for accept in ["", "*/*", NDJSON] {
        let response = refused(&nginx, &asking("/0?id=a", accept), 426);
        assert_eq!(response.header("Upgrade"), Some("websocket"));
        // A list, which may stand in two lines.
        assert!(response.has_in_list("Connection", "upgrade"), "{}", response.head);
    }
    assert_eq!(nginx.info("a"), None);
}

fn pubsub_subscribes_publishes_and_deletes(workers: usize) {
    let nginx = start(workers, "push_pubsub", &[""]);
    let target = "/0?id=a";
    let mut waiting = nginx.client();
    waiting.send(&Request::get(target));
    nginx.wait_for_subscribers("a", 1);
    let post = |body: &str| Request::post(target, body).header("Content-Type", "text/x-own");
    let reply = nginx.request(&post("one")).expect_status(201);
    let info = Info::parse_text(reply.text());
    assert_eq!((info.messages, info.subscribers), (1, 1));
    let response = waiting.response().expect_status(200);
    assert_eq!((response.text(), response.header("Content-Type")), ("one", Some("text/x-own")));
    nginx.request(&Request::new("PUT", target).body("two")).expect_status(202);
    let mut source = EventSource::open(nginx.port(), target);
    source.expect_message("one");
    source.expect_message("two");
    nginx.request(&post("three")).expect_status(201);
    source.expect_message("three");
    // A GET subscribes, whatever it accepts: it is no question about the channel.
    let question = Request::get(target).header("Accept", "text/json");
    assert_eq!(nginx.request(&question).expect_status(200).text(), "one");
    nginx.request(&Request::new("DELETE", target)).expect_status(200);
    assert_eq!(source.event().name, "end");
    nginx.request(&Request::new("DELETE", target)).expect_status(404);
}

fn pubsub_takes_the_same_words(workers: usize) {
    let words = ["long-poll", "interval-poll", "sse", "stream", "ws", "longpoll es"];
    let nginx = start(workers, "push_pubsub", &words);
    check(
        &nginx,
        &[
            (0, "", LongPoll),
            (0, SSE, Status(406)),
            (0, "websocket", Status(403)),
            (1, "", IntervalPoll),
            (2, "", EventStream),
            (3, "", PlainStream),
            (3, NDJSON, JsonLines),
            (4, "websocket", WebSocket),
            (4, "", Status(426)),
            (5, SSE, EventStream),
            (5, "", LongPoll),
        ],
    );
    // All of them publish.
    for location in 0..words.len() {
        let target = format!("/{location}?id=published");
        nginx.request(&Request::post(&target, "one")).expect_status(202);
    }
    assert_eq!(nginx.messages("published"), words.len() as u64);
}

fn pubsub_tells_browsers_what_is_possible(workers: usize) {
    let nginx = start(workers, "push_pubsub", &[""]);
    let response = nginx.request(&Request::new("OPTIONS", "/0?id=a"));
    let response = response.expect_status(200).expect_empty();
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("*"));
    let methods = response.header("Access-Control-Allow-Methods").unwrap_or_default();
    let headers = response.header("Access-Control-Allow-Headers").unwrap_or_default();
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
        assert!(methods.contains(method), "{methods}");
    }
    for header in ["If-None-Match", "If-Modified-Since", "Content-Type", "Origin"] {
        assert!(headers.contains(header), "{headers}");
    }
    for method in ["HEAD", "PATCH"] {
        let response = nginx.request(&Request::new(method, "/0?id=a")).expect_status(405);
        let allow = response.header("Allow").unwrap_or_default();
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
            assert!(allow.contains(method), "{allow}");
        }
    }
}

fn transports_share_a_channel(workers: usize) {
    let nginx = start(workers, "push_pubsub", &["", "stream"]);
    let mut source = EventSource::open(nginx.port(), "/0?id=a");
    let mut json = Lines::open(nginx.port(), &json_request("/0?id=a"));
    let mut plain = Lines::open(nginx.port(), &Request::get("/1?id=a"));
    let mut socket = Handshake::to("/0?id=a").open(nginx.port());
    let mut cursor = Cursor::none();
    for round in 0..5 {
        nginx.wait_for_subscribers("a", 4);
        let mut poll = nginx.park_after("a", &cursor);
        let body = format!("message {round}");
        let reply = nginx.publish("a", body.as_str()).expect_status(201);
        assert_eq!(Info::parse_text(reply.text()).subscribers, 5);
        let id = source.expect_message(&body);
        let value = json.json();
        assert_eq!(
            (value["id"].as_str(), value["data"].as_str()),
            (Some(id.as_str()), Some(body.as_str()))
        );
        assert_eq!(plain.text(), body);
        socket.expect_text(&body);
        let response = poll.response().expect_status(200);
        assert_eq!(response.text(), body);
        cursor = Cursor::after(&response);
        let (seconds, tag) = cursor.id();
        assert_eq!(id, format!("{seconds}:{tag}"));
    }
    // A place may be carried from any to any other.
    let id = json_after_first(&nginx);
    let mut source = EventSource::open_after(nginx.port(), "/0?id=a", &id);
    source.expect_message("message 1");
    let target = format!("/0?id=a&last_event_id={id}");
    Handshake::to(&target).open(nginx.port()).expect_text("message 1");
    let poll = Request::get("/sub?id=a").header("Last-Event-ID", &id);
    assert_eq!(nginx.request(&poll).expect_status(200).text(), "message 1");
}

fn json_after_first(nginx: &Nginx) -> String {
    let mut json = Lines::open(nginx.port(), &json_request("/0?id=a"));
    json.json()["id"].as_str().expect("an id").to_owned()
}

fn streams(target: &str) -> [(&'static str, Request); 3] {
    [
        ("eventsource", event_source::request(target)),
        ("json", json_request(target)),
        ("websocket", Handshake::to(target).request()),
    ]
}

fn a_stream_is_refused_as_a_poll_is(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).server(
        "location /full { push_subscriber; push_channel_id $arg_id; push_max_channel_subscribers 1; }
         location /first { push_subscriber; push_channel_id $arg_id; push_subscriber_concurrency first; }
         location /known { push_subscriber; push_channel_id $arg_id; push_authorized_channels_only on; }
         location /none { push_subscriber; push_channel_id \"\"; }",
    ));
    let _waiting = nginx.park("a");
    for (target, status) in [("/full?id=a", 403), ("/first?id=a", 409), ("/known?id=b", 403)] {
        for (kind, request) in streams(target) {
            let mut client = nginx.client();
            let response = client.request(&request);
            assert_eq!(response.status, status, "{kind} at {target}:\n{}", response.head);
            assert_eq!(response.header("X-Accel-Buffering"), None);
        }
    }
    for (kind, request) in streams("/none") {
        let response = nginx.request(&request);
        assert_eq!(response.status, 404, "{kind}:\n{}", response.head);
        assert_eq!(response.text(), "No channel id provided.");
    }
    assert_eq!(nginx.subscribers("a"), 1);
    assert_eq!(nginx.info("b"), None);
    // As soon as there is a place, they are served.
    nginx.publish("b", "one");
    EventSource::open(nginx.port(), "/known?id=b").expect_message("one");
}

fn other_methods_are_405_on_streams(workers: usize) {
    let words = ["eventsource", "stream", "websocket", ""];
    let nginx = start(workers, "push_subscriber", &words);
    for location in 0..words.len() {
        for method in ["HEAD", "POST", "PUT", "DELETE", "PATCH"] {
            let request = Request::new(method, &format!("/{location}?id=a"));
            let response = nginx.request(&request.header("Accept", SSE)).expect_status(405);
            assert_eq!(response.header("Allow"), Some("GET, OPTIONS"), "{method}");
        }
        let request = Request::new("OPTIONS", &format!("/{location}?id=a"));
        nginx.request(&request).expect_status(200);
    }
    // A handshake is a GET.
    let post = Request::post(&subscriber("a"), "").header("Upgrade", "websocket");
    nginx.request(&post.header("Connection", "Upgrade")).expect_status(405);
}

fn the_long_poll_has_not_changed(workers: usize) {
    let nginx = start(workers, "push_subscriber", &["", "long-poll"]);
    nginx.publish("a", "one");
    let bytes = |location: usize| {
        let response = nginx.get(&format!("/{location}?id=a")).expect_status(200);
        let (head, body) = response.bytes_without_date();
        (head, body.to_vec())
    };
    assert_eq!(bytes(0), bytes(1));
    let mut waiting: Vec<Client> = (0..2)
        .map(|location| {
            let mut client = nginx.client();
            client.send(&Request::get(&format!("/{location}?id=b")));
            client
        })
        .collect();
    nginx.wait_for_subscribers("b", 2);
    nginx.request(&Request::new("DELETE", &publisher("b"))).expect_status(200);
    for client in &mut waiting {
        client.response().expect_status(410).expect_empty();
    }
}
