//! Tests for the publisher location: methods, status codes, channel info, bodies and channel ids.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Instant;

use support::push::{assert_same_bytes, pattern, publisher, subscriber};
use support::{on_1_and_4_workers, wait, Config, Cursor, Info, Nginx, Request, Response};

on_1_and_4_workers!(
    get_of_an_unknown_channel_is_404_and_empty,
    delete_of_an_unknown_channel_is_404_and_empty,
    get_of_a_channel_is_200_with_info,
    get_ignores_if_modified_since,
    post_without_subscribers_is_202_with_info,
    post_to_a_waiting_subscriber_is_201_with_info,
    post_counts_all_waiting_subscribers,
    put_acts_as_post,
    delete_is_200_with_the_info_from_before,
    delete_forgets_the_messages,
    what_limit_except_lets_pass_is_served,
    options_is_200_with_cors_headers,
    options_creates_no_channel,
    other_methods_are_405_with_allow,
    head_is_405_with_allow,
    without_an_id_everything_is_404_with_a_sentence,
    info_comes_in_four_formats,
    the_leftmost_supported_type_of_accept_wins,
    requested_counts_seconds_since_the_last_subscriber,
    an_empty_body_is_a_message,
    a_post_without_a_length_is_an_empty_message,
    binary_bodies_with_nul_bytes_stay_as_they_are,
    chunked_request_bodies_are_messages,
    expect_100_continue_is_answered,
    bodies_around_the_buffer_size_stay_as_they_are,
    a_body_of_1_mb_stays_as_it_is,
    a_body_of_50_mb_stays_as_it_is,
    a_body_that_something_else_has_read_before_is_a_message,
    a_body_may_be_a_message_of_two_locations,
    a_body_larger_than_allowed_is_413_and_changes_nothing,
    an_urlencoded_form_is_a_message_as_it_is,
    a_multipart_form_is_a_message_as_it_is,
    channel_groups_are_apart,
    locations_of_one_group_share_channels,
    ids_of_300_bytes_are_found_again,
    ids_of_1000_bytes_are_found_again,
    ids_are_cut_at_the_maximum_length,
    ids_are_cut_at_1024_bytes_by_default,
    channels_are_apart,
    many_requests_on_one_connection,
    pipelined_posts_keep_their_order,
    what_clients_do_wrong_does_not_fill_the_log,
    push_channel_id_takes_any_value,
);

/// The text format with this info, to the byte.
fn text_info(info: Info) -> String {
    format!(
        "queued messages: {}\r\nlast requested: {} sec. ago (-1=never)\r\nactive subscribers: {}",
        info.messages, info.requested, info.subscribers
    )
}

/// Panics unless the reply is channel info in the text format with these counts.
#[track_caller]
fn expect_info(response: &Response, messages: u64, subscribers: u64) {
    assert_eq!(response.header("Content-Type"), Some("text/plain"), "\n{}", response.head);
    let length = response.body.len().to_string();
    assert_eq!(response.header("Content-Length"), Some(length.as_str()));
    // The seconds depend on the machine; the other tests look at them.
    let requested = Info::parse_text(response.text()).requested;
    assert_eq!(response.text(), text_info(Info { messages, requested, subscribers }));
}

fn get_of_an_unknown_channel_is_404_and_empty(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.get(&publisher("none")).expect_status(404).expect_empty();
}

fn delete_of_an_unknown_channel_is_404_and_empty(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.request(&Request::new("DELETE", &publisher("none"))).expect_status(404).expect_empty();
}

fn get_of_a_channel_is_200_with_info(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    nginx.publish("a", "two");
    let response = nginx.get(&publisher("a")).expect_status(200);
    expect_info(&response, 2, 0);
    assert_eq!(response.status_text(), "200 OK");
}

fn get_ignores_if_modified_since(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    let cursor = Cursor::new("Fri, 01 Jan 2100 00:00:00 GMT", "0");
    nginx.request(&cursor.apply(Request::get(&publisher("a")))).expect_status(200);
}

fn post_without_subscribers_is_202_with_info(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let response = nginx.publish("a", "one").expect_status(202);
    assert_eq!(response.status_text(), "202 Accepted");
    expect_info(&response, 1, 0);
    expect_info(&nginx.publish("a", "two").expect_status(202), 2, 0);
}

fn post_to_a_waiting_subscriber_is_201_with_info(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut subscriber = nginx.park("a");
    let response = nginx.publish("a", "one").expect_status(201);
    assert_eq!(response.status_text(), "201 Created");
    expect_info(&response, 1, 1);
    assert_eq!(subscriber.response().expect_status(200).text(), "one");
}

fn post_counts_all_waiting_subscribers(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut subscribers: Vec<_> = (0..12).map(|_| nginx.park("a")).collect();
    expect_info(&nginx.publish("a", "one").expect_status(201), 1, 12);
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.response().expect_status(200).text(), "one");
    }
    nginx.wait_for_subscribers("a", 0);
    expect_info(&nginx.publish("a", "two").expect_status(202), 2, 0);
}

fn put_acts_as_post(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let put = |body: &str| nginx.request(&Request::new("PUT", &publisher("a")).body(body));
    expect_info(&put("one").expect_status(202), 1, 0);
    assert_eq!(nginx.queue("a"), ["one"]);
    let cursor = Cursor::after(&nginx.poll_all("a")[0]);
    let mut subscriber = nginx.park_after("a", &cursor);
    expect_info(&put("two").expect_status(201), 2, 1);
    assert_eq!(subscriber.response().expect_status(200).text(), "two");
}

fn delete_is_200_with_the_info_from_before(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    nginx.publish("a", "two");
    let response = nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
    expect_info(&response, 2, 0);
    nginx.get(&publisher("a")).expect_status(404);

    let mut subscriber = nginx.park("b");
    let response = nginx.request(&Request::new("DELETE", &publisher("b"))).expect_status(200);
    expect_info(&response, 0, 1);
    subscriber.response().expect_status(410);
}

fn delete_forgets_the_messages(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
    nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(404);
    let mut subscriber = nginx.park("a");
    nginx.publish("a", "two");
    assert_eq!(subscriber.response().expect_status(200).text(), "two");
    assert_eq!(nginx.queue("a"), ["two"]);
}

fn what_limit_except_lets_pass_is_served(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).server(
        "push_channel_id $arg_id;
         location /allowed { push_publisher; limit_except GET { allow 127.0.0.1; deny all; } }
         location /denied { push_publisher; limit_except GET { deny all; } }
         location /both { push_pubsub interval-poll; limit_except POST { allow 127.0.0.1; deny all; } }",
    ));
    nginx.request(&Request::post("/allowed?id=a", "one")).expect_status(202);
    nginx.request(&Request::post("/denied?id=a", "two")).expect_status(403);
    assert_eq!(nginx.info_at("/denied?id=a").map(|info| info.messages), Some(1));
    assert_eq!(nginx.get("/both?id=a").expect_status(200).text(), "one");
    nginx.request(&Request::new("DELETE", "/allowed?id=a")).expect_status(200);
}

fn options_is_200_with_cors_headers(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let request = Request::new("OPTIONS", &publisher("a")).header("Origin", "http://example.com");
    let response = nginx.request(&request).expect_status(200).expect_empty();
    let header = |name| response.header(name);
    assert_eq!(header("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(header("Access-Control-Allow-Headers"), Some("Content-Type, Origin"));
    let methods = "GET, POST, PUT, DELETE, OPTIONS";
    assert_eq!(header("Access-Control-Allow-Methods"), Some(methods));
}

fn options_creates_no_channel(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.request(&Request::new("OPTIONS", &publisher("a"))).expect_status(200);
    nginx.get(&publisher("a")).expect_status(404);
}

fn other_methods_are_405_with_allow(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    for method in ["PATCH", "MKCOL", "PROPFIND", "LOCK", "PURGE"] {
        let request = Request::new(method, &publisher("a")).body("one");
        let response = nginx.request(&request).expect_status(405);
        assert_eq!(response.header("Allow"), Some("GET, POST, PUT, DELETE, OPTIONS"), "{method}");
        assert!(response.text().contains("405 Not Allowed"), "{method}: nginx's error page");
    }
    nginx.get(&publisher("a")).expect_status(404);
}

fn head_is_405_with_allow(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    let mut client = nginx.client();
    let response = client.request(&Request::new("HEAD", &publisher("a"))).expect_status(405);
    assert_eq!(response.header("Allow"), Some("GET, POST, PUT, DELETE, OPTIONS"));
    client.request(&Request::get("/worker")).expect_status(200);
}

fn without_an_id_everything_is_404_with_a_sentence(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .server("location /never-set { push_publisher; }")
            .server("location /empty { push_publisher; set $push_channel_id ''; }"),
    );
    for target in ["/pub", "/pub?id=", "/never-set", "/empty"] {
        for method in ["GET", "DELETE"] {
            expect_no_id(nginx.request(&Request::new(method, target)));
        }
        for method in ["POST", "PUT"] {
            expect_no_id(nginx.request(&Request::new(method, target).body("lost")));
        }
    }
    assert!(nginx.error_log().contains("[warn]"), "an operator is told");
}

#[track_caller]
fn expect_no_id(response: Response) {
    let response = response.expect_status(404);
    assert_eq!(response.header("Content-Type"), Some("text/plain"));
    assert_eq!(response.header("Content-Length"), Some("23"));
    assert_eq!(response.text(), "No channel id provided.");
}

fn info_comes_in_four_formats(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    nginx.publish("a", "two");
    nginx.publish("a", "three");
    let cursor = Cursor::after(nginx.poll_all("a").last().expect("three messages"));
    let _subscriber = nginx.park_after("a", &cursor);
    type Format = fn(u64) -> String;
    let text: Format = |requested| text_info(Info { messages: 3, requested, subscribers: 1 });
    let json: Format =
        |requested| format!("{{\"messages\": 3, \"requested\": {requested}, \"subscribers\": 1 }}");
    let xml: Format = |requested| {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\" ?>\r\n<channel>\r\n  \
             <messages>3</messages>\r\n  <requested>{requested}</requested>\r\n  \
             <subscribers>1</subscribers>\r\n</channel>"
        )
    };
    let yaml: Format = |requested| {
        format!("---\r\nmessages: 3\r\nrequested: {requested}\r\nsubscribers: 1\r\n\r\n")
    };
    for (format, types) in [
        (text, &["text/plain"][..]),
        (json, &["text/json", "text/x-json", "application/json", "application/x-json"][..]),
        (xml, &["text/xml", "application/xml"][..]),
        (yaml, &["text/yaml", "text/x-yaml", "application/yaml", "application/x-yaml"][..]),
    ] {
        for accept in types {
            let request = Request::get(&publisher("a")).header("Accept", accept);
            let response = nginx.request(&request).expect_status(200);
            assert_eq!(response.header("Content-Type"), Some(*accept));
            let candidates: Vec<String> = (0..30).map(format).collect();
            let found = response.text().to_owned();
            assert!(candidates.contains(&found), "{accept}: {found:?} is not {:?}", candidates[0]);
        }
    }
}

fn the_leftmost_supported_type_of_accept_wins(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    for (accept, expected) in [
        (None, "text/plain"),
        (Some("*/*"), "text/plain"),
        (Some("text/*"), "text/plain"),
        (Some("text/html"), "text/plain"),
        (Some("image/png, text/html"), "text/plain"),
        (Some("text/json, */*"), "text/json"),
        (Some("text/json,text/xml"), "text/json"),
        (Some("text/xml;q=0.1, text/json;q=0.9"), "text/xml"),
        (Some("application/json;q=0"), "application/json"),
        (Some("text/json, text/plain"), "text/json"),
        (Some("text/plain, text/json"), "text/plain"),
        (Some("text/html, application/xhtml+xml, application/xml;q=0.9"), "application/xml"),
        (Some("application/x-yaml"), "application/x-yaml"),
        (Some("text/jsonp"), "text/plain"),
        (Some("image/json"), "text/plain"),
        (Some(""), "text/plain"),
        (Some(",;/"), "text/plain"),
    ] {
        let mut request = Request::get(&publisher("a"));
        if let Some(accept) = accept {
            request = request.header("Accept", accept);
        }
        let response = nginx.request(&request).expect_status(200);
        assert_eq!(response.header("Content-Type"), Some(expected), "for {accept:?}");
    }
    let request = Request::post(&publisher("a"), "two").header("Accept", "text/xml");
    let response = nginx.request(&request).expect_status(202);
    assert_eq!(response.header("Content-Type"), Some("text/xml"));
    let request = Request::new("DELETE", &publisher("a")).header("Accept", "text/yaml");
    let response = nginx.request(&request).expect_status(200);
    assert_eq!(response.header("Content-Type"), Some("text/yaml"));
}

fn requested_counts_seconds_since_the_last_subscriber(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    let requested = || nginx.info("a").expect("the channel").requested;
    wait::until_true("two seconds since the channel began", || requested() >= 2);
    let polled = Instant::now();
    nginx.poll("a", &Cursor::none()).expect_status(200);
    let found = requested();
    let longest = polled.elapsed().as_secs() + 1;
    assert!(found <= longest, "a subscriber request starts the count again: {found}");
    wait::until_true("a second since the subscriber", || requested() >= 1);
}

fn an_empty_body_is_a_message(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let response = nginx.request(&Request::post(&publisher("a"), "")).expect_status(202);
    expect_info(&response, 1, 0);
    nginx.poll("a", &Cursor::none()).expect_status(200).expect_empty();
}

fn a_post_without_a_length_is_an_empty_message(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let response = nginx.request(&Request::new("POST", &publisher("a"))).expect_status(202);
    expect_info(&response, 1, 0);
    nginx.poll("a", &Cursor::none()).expect_status(200).expect_empty();
}

fn binary_bodies_with_nul_bytes_stay_as_they_are(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let body: Vec<u8> = [0, 0, b'\r', b'\n', 0].into_iter().chain(0..=255).chain([0]).collect();
    nginx.publish("a", body.clone());
    let response = nginx.poll("a", &Cursor::none()).expect_status(200);
    assert_same_bytes(&response.body, &body);
}

fn chunked_request_bodies_are_messages(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    for (id, chunks, body) in [
        ("a", "3\r\none\r\n8\r\n and two\r\n0\r\n\r\n", "one and two"),
        ("b", "0\r\n\r\n", ""),
        ("c", "1;note=x\r\n1\r\n0\r\nTrailer: x\r\n\r\n", "1"),
    ] {
        let mut client = nginx.client();
        let head = Request::new("POST", &publisher(id)).header("Transfer-Encoding", "chunked");
        client.send(&head);
        client.send_bytes(chunks.as_bytes());
        client.response().expect_status(202);
        client.request(&Request::get("/worker")).expect_status(200);
        assert_eq!(nginx.poll(id, &Cursor::none()).expect_status(200).text(), body);
    }
}

fn expect_100_continue_is_answered(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut client = nginx.client();
    let head = Request::new("POST", &publisher("a"))
        .header("Expect", "100-continue")
        .header("Content-Length", "3");
    client.send(&head);
    client.response().expect_status(100);
    client.send_bytes(b"one");
    client.response().expect_status(202);
    assert_eq!(nginx.queue("a"), ["one"]);
}

fn bodies_around_the_buffer_size_stay_as_they_are(workers: usize) {
    let config = Config::push(workers).publisher("client_body_buffer_size 8k;");
    let nginx = Nginx::start(config);
    for length in [1, 5, 1000, 8191, 8192, 8193, 16384, 65535, 65536, 100_000] {
        let id = format!("length-{length}");
        nginx.publish(&id, pattern(length));
        let response = nginx.poll(&id, &Cursor::none()).expect_status(200);
        assert_same_bytes(&response.body, &pattern(length));
    }
}

fn a_body_of_1_mb_stays_as_it_is(workers: usize) {
    // Exactly 1 MB is what nginx allows by default.
    large_body(Config::push(workers), 1 << 20);
    let buffered = Config::push(workers).publisher("client_body_buffer_size 2m;");
    large_body(buffered, 1 << 20);
}

fn a_body_of_50_mb_stays_as_it_is(workers: usize) {
    // More than the whole zone: the message stays in its file.
    large_body(Config::push(workers).http("client_max_body_size 64m;"), 50 << 20);
}

fn large_body(config: Config, length: usize) {
    let nginx = Nginx::start(config);
    let body = pattern(length);
    let mut waiting = nginx.park("a");
    nginx.publish("a", body.clone()).expect_status(201);
    let response = waiting.response().expect_status(200);
    assert_eq!(response.header("Content-Type"), Some("text/plain"));
    assert_same_bytes(&response.body, &body);
    let again = nginx.poll("a", &Cursor::none()).expect_status(200);
    assert_same_bytes(&again.body, &body);
    assert_eq!(again.bytes_without_date().0, response.bytes_without_date().0);
}

/// Smaller and larger than what nginx keeps in memory (`client_body_buffer_size`).
const SIZES: [usize; 3] = [100, 100_000, 1_000_000];

fn a_body_that_something_else_has_read_before_is_a_message(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).http("client_max_body_size 8m;").server(
        "location = /mirrored { mirror /copy; push_publisher; push_channel_id $arg_id; }
         location = /copy { return 204; }
         location = /application {
             proxy_pass http://127.0.0.1:@port@/refuse; proxy_intercept_errors on; error_page 404 = @publish;
         }
         location = /refuse { return 404; }
         location @publish { push_publisher; push_channel_id $arg_id; }",
    ));
    for location in ["/mirrored", "/application"] {
        for size in SIZES {
            let id = format!("{}{size}", &location[1..]);
            nginx.publish_at(&format!("{location}?id={id}"), pattern(size));
            assert_same_bytes(&nginx.poll(&id, &Cursor::none()).body, &pattern(size));
            nginx.request(&Request::new("DELETE", &publisher(&id))).expect_status(200);
        }
    }
    assert!(nginx.spooled().is_empty());
}

fn a_body_may_be_a_message_of_two_locations(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).http("client_max_body_size 8m;").server(
        "location = /both { mirror /copy; push_publisher; push_channel_id one; }
         location = /copy { push_publisher; push_channel_id two; }
         location = /application { mirror /copy; proxy_pass http://127.0.0.1:@port@/taken; }
         location = /taken { return 200; }",
    ));
    for size in SIZES {
        nginx.publish_at("/both", pattern(size));
        nginx.request(&Request::post("/application", pattern(size))).expect_status(200);
        // A copy is made beside the request, and may be late.
        nginx.wait_for_messages("two", 2);
        assert_same_bytes(&nginx.poll("one", &Cursor::none()).body, &pattern(size));
        for message in nginx.poll_all("two") {
            assert_same_bytes(&message.body, &pattern(size));
        }
        for id in ["one", "two"] {
            nginx.request(&Request::new("DELETE", &publisher(id))).expect_status(200);
        }
    }
    assert!(nginx.spooled().is_empty());
}

fn a_body_larger_than_allowed_is_413_and_changes_nothing(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).publisher("client_max_body_size 1k;"));
    let request = Request::post(&publisher("a"), pattern(1025));
    nginx.request(&request).expect_status(413);
    nginx.get(&publisher("a")).expect_status(404);
    nginx.publish("a", pattern(1024)).expect_status(202);
}

fn an_urlencoded_form_is_a_message_as_it_is(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let form = "message=hello+world%21&name=J%C3%BCrgen";
    expect_form(&nginx, "application/x-www-form-urlencoded", form);
}

fn a_multipart_form_is_a_message_as_it_is(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let form = "--line\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\nhello\r\n\
                --line\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\
                Content-Type: text/plain\r\n\r\ncontents\r\n--line--\r\n";
    expect_form(&nginx, "multipart/form-data; boundary=line", form);
}

#[track_caller]
fn expect_form(nginx: &Nginx, content_type: &str, form: &str) {
    let request = Request::post(&publisher("a"), form).header("Content-Type", content_type);
    nginx.request(&request).expect_status(202);
    let response = nginx.poll("a", &Cursor::none()).expect_status(200);
    assert_eq!(response.header("Content-Type"), Some(content_type));
    assert_eq!(response.text(), form);
}

fn channel_groups_are_apart(workers: usize) {
    let location = |name: &str, kind: &str, group: &str| {
        format!("location = /{name} {{ {kind}; set $push_channel_id $arg_id; {group} }}",)
    };
    let nginx = Nginx::start(
        Config::push(workers)
            .server(&location("pub-b", "push_publisher", "push_channel_group b;"))
            .server(&location("sub-b", "push_subscriber interval-poll", "push_channel_group b;"))
            .server(&location("sub-c", "push_subscriber interval-poll", "push_channel_group c;")),
    );
    nginx.publish("x", "without a group");
    nginx.publish_at("/pub-b?id=x", "in b");
    assert_eq!(nginx.queue("x"), ["without a group"]);
    assert_eq!(nginx.get("/sub-b?id=x").expect_status(200).text(), "in b");
    nginx.get("/sub-c?id=x").expect_status(304);
    nginx.request(&Request::new("DELETE", "/pub-b?id=x")).expect_status(200);
    assert_eq!(nginx.queue("x"), ["without a group"]);
}

fn locations_of_one_group_share_channels(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .server("location /other-pub { push_publisher; set $push_channel_id $arg_channel; }")
            .server("location ~ ^/s/(.+)$ { push_subscriber; set $push_channel_id $1; }"),
    );
    nginx.publish("x", "one");
    nginx.publish_at("/other-pub?channel=x", "two");
    assert_eq!(nginx.get("/s/x").expect_status(200).text(), "one");
    assert_eq!(nginx.queue("x"), ["one", "two"]);
}

fn ids_of_300_bytes_are_found_again(workers: usize) {
    long_id(workers, 300);
}

fn ids_of_1000_bytes_are_found_again(workers: usize) {
    long_id(workers, 1000);
}

fn long_id(workers: usize, length: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let id = "i".repeat(length);
    let near = format!("{}j", "i".repeat(length - 1));
    nginx.publish(&id, "one");
    nginx.publish(&near, "of another channel");
    nginx.publish(&id, "two");
    assert_eq!(nginx.queue(&id), ["one", "two"]);
    assert_eq!(nginx.queue(&near), ["of another channel"]);
}

fn ids_are_cut_at_the_maximum_length(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).server("push_max_channel_id_length 5;"));
    nginx.publish("abcdefg", "one");
    nginx.publish("abcde", "two");
    nginx.publish("abcdX", "of another channel");
    assert_eq!(nginx.queue("abcdeYYYY"), ["one", "two"]);
    assert_eq!(nginx.queue("abcdX"), ["of another channel"]);
}

fn ids_are_cut_at_1024_bytes_by_default(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let id = "i".repeat(1024);
    nginx.publish(&format!("{id}-one"), "one");
    nginx.publish(&format!("{id}-two"), "two");
    nginx.publish(&"i".repeat(1023), "of another channel");
    assert_eq!(nginx.queue(&id), ["one", "two"]);
}

fn channels_are_apart(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let ids: Vec<String> = (0..50).map(|number| format!("channel-{number}")).collect();
    let mut waiting = nginx.park("waiting");
    for id in &ids {
        nginx.publish(id, id.as_str()).expect_status(202);
    }
    for id in &ids {
        assert_eq!(nginx.queue(id), [id.as_str()]);
    }
    waiting.expect_silence();
    nginx.publish("waiting", "for this").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "for this");
}

fn many_requests_on_one_connection(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut client = nginx.client();
    for number in 1..=5 {
        let body = format!("message {number}");
        let response = client.request(&Request::post(&publisher("a"), body)).expect_status(202);
        expect_info(&response, number, 0);
        expect_info(&client.request(&Request::get(&publisher("a"))), number, 0);
        client.request(&Request::get(&publisher("none"))).expect_status(404);
        let response = client.request(&Request::get(&subscriber("a"))).expect_status(200);
        assert_eq!(response.text(), "message 1");
        client.request(&Request::new("PATCH", &publisher("a")).body("x")).expect_status(405);
    }
}

fn pipelined_posts_keep_their_order(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let mut client = nginx.client();
    let bodies: Vec<String> = (0..10).map(|number| format!("message {number}")).collect();
    let requests: Vec<u8> = bodies
        .iter()
        .flat_map(|body| Request::post(&publisher("a"), body.as_str()).to_bytes())
        .collect();
    client.send_bytes(&requests);
    for number in 1..=10 {
        expect_info(&client.response().expect_status(202), number, 0);
    }
    assert_eq!(nginx.queue("a"), bodies);
}

fn push_channel_id_takes_any_value(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .server("set $push_channel_id overridden;")
            .server("location /new-pub { push_publisher; push_channel_id $arg_a-$arg_b; }")
            .server(
                "location /by-browser { push_publisher; push_channel_id $arg_id;
                 if ($http_user_agent = special) { push_channel_id special; } }",
            ),
    );
    nginx.publish_at("/new-pub?a=x&b=y", "one");
    assert_eq!(nginx.queue("x-y"), ["one"]);
    assert_eq!(nginx.info("overridden"), None);
    nginx.publish_at("/by-browser?id=z", "two");
    let request = Request::post("/by-browser?id=z", "three").header("User-Agent", "special");
    nginx.request(&request).expect_status(202);
    assert_eq!(nginx.queue("z"), ["two"]);
    assert_eq!(nginx.queue("special"), ["three"]);
}

fn what_clients_do_wrong_does_not_fill_the_log(workers: usize) {
    const COUNT: usize = 100;
    let config = Config::push(workers).http("push_max_channels 1; push_cors_origin self;");
    let nginx = Nginx::start(config.publisher("push_max_channel_id_length 8;"));
    nginx.publish("a", "one");
    let mut client = nginx.client();
    for _ in 0..COUNT {
        client.request(&Request::post(&publisher("b"), "x")).expect_status(403);
        client.request(&Request::post(&publisher("of-many-bytes"), "x")).expect_status(403);
        client.request(&Request::get("/sub")).expect_status(404);
        let foreign = Request::get(&subscriber("a")).header("Origin", "http://example.com");
        client.request(&foreign).expect_status(403);
    }
    let log = nginx.error_log();
    for what in ["push_max_channels", "longer than", "no channel", "an origin"] {
        let lines: Vec<&str> =
            log.lines().filter(|line| line.contains("push: ") && line.contains(what)).collect();
        let grave = lines.iter().filter(|line| !line.contains("[info]")).count();
        assert!(lines.len() >= COUNT && (1..=workers).contains(&grave), "{what}: {lines:?}");
    }
}
