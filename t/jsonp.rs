//! Tests for polls of other forms: scripts (JSONP), and several messages in one reply.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use serde_json::{json, Value};
use support::push::{pattern, publisher};
use support::{on_1_and_4_workers, Client, Config, Cursor, Nginx, Request, Response};

on_1_and_4_workers!(
    a_script_calls_the_function_that_the_request_names,
    all_queued_messages_come_in_one_script,
    a_script_waits_for_its_message,
    ends_are_told_in_scripts,
    refusals_are_told_in_scripts,
    gaps_are_told_in_scripts,
    no_message_becomes_code,
    a_callback_that_is_none_is_refused,
    scripts_of_several_channels_say_which,
    without_a_callback_other_transports_are_served,
    a_reload_sends_script_clients_to_the_next_worker,
    many_who_wait_get_scripts_of_their_own,
    a_multipart_poll_gets_all_queued_messages,
    locations_of_one_channel_join_each_in_its_own_way,
    a_joined_poll_gets_all_queued_messages,
    an_interval_poll_may_get_them_all_too,
    large_messages_are_parts_as_well,
    polls_of_several_channels_get_all_in_order,
);

fn start(workers: usize, text: &str) -> Nginx {
    Nginx::start(
        Config::push(workers)
            .http("push_channel_id_split_delimiter ',';")
            .publisher(text)
            .transports("long-poll jsonp")
            .subscriber(text),
    )
}

fn target(id: &str, after: Option<&str>) -> String {
    let after = after.map_or(String::new(), |after| format!("&last_event_id={after}"));
    format!("/sub?id={id}&callback=app.take{after}")
}

/// The objects that a script hands over. Panics unless it is one that calls `app.take`.
#[track_caller]
fn objects(response: &Response) -> Vec<Value> {
    assert_eq!(response.status, 200, "{}", response.head);
    let content_type = response.header("Content-Type");
    assert_eq!(content_type, Some("application/javascript; charset=utf-8"));
    assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(response.header("Cache-Control"), Some("no-cache"));
    assert_eq!((response.header("Etag"), response.header("Last-Modified")), (None, None));
    let script = response.text();
    let array = script.strip_prefix("/**/app.take(").and_then(|rest| rest.strip_suffix(");\n"));
    let array = array.unwrap_or_else(|| panic!("no such script: {script}"));
    serde_json::from_str::<Value>(array).expect("JSON").as_array().expect("an array").clone()
}

fn wait_for_script(nginx: &Nginx, id: &str, after: Option<&str>) -> Client {
    let mut client = nginx.client();
    nginx.park_request(&mut client, id, &Request::get(&target(id, after)));
    client
}

fn id_of(object: &Value) -> String {
    object["id"].as_str().expect("an id").to_owned()
}

fn a_script_calls_the_function_that_the_request_names(workers: usize) {
    let nginx = start(workers, "");
    let request = Request::post(&publisher("a"), "hi")
        .header("Content-Type", "text/plain")
        .header("Push-Event", "greeting");
    nginx.request(&request).expect_status(202);
    let found = objects(&nginx.get(&target("a", None)));
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0]["data"], &found[0]["type"]), (&json!("hi"), &json!("text/plain")));
    assert_eq!(found[0]["event"], json!("greeting"));
    let response = nginx.get("/sub?id=a&callback=$.x[0]._y");
    assert!(response.text().starts_with("/**/$.x[0]._y([{"), "{}", response.text());
    let response = nginx.get("/sub?id=a&callback=%61pp%2Etake");
    assert!(response.text().starts_with("/**/app.take([{"));
}

fn all_queued_messages_come_in_one_script(workers: usize) {
    let nginx = start(workers, "");
    for number in 0..7 {
        nginx.publish("a", number.to_string());
    }
    let found = objects(&nginx.get(&target("a", None)));
    let data: Vec<_> = found.iter().map(|object| object["data"].as_str().unwrap()).collect();
    assert_eq!(data, ["0", "1", "2", "3", "4", "5", "6"]);
    let found = objects(&nginx.get(&target("a", Some(&id_of(&found[3])))));
    assert_eq!((found.len(), &found[0]["data"]), (3, &json!("4")));
    wait_for_script(&nginx, "a", Some(&id_of(&found[2])));
}

fn a_script_waits_for_its_message(workers: usize) {
    let nginx = start(workers, "");
    let mut after: Option<String> = None;
    for body in ["one", "two", "three"] {
        let mut client = wait_for_script(&nginx, "a", after.as_deref());
        nginx.publish("a", body).expect_status(201);
        let found = objects(&client.response());
        assert_eq!((found.len(), &found[0]["data"]), (1, &json!(body)));
        after = Some(id_of(&found[0]));
        // The connection serves the next request.
        client.send(&Request::get("/worker"));
        client.response().expect_status(200);
        nginx.wait_for_subscribers("a", 0);
    }
}

fn ends_are_told_in_scripts(workers: usize) {
    let nginx = start(workers, "");
    let mut client = wait_for_script(&nginx, "a", None);
    nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
    assert_eq!(objects(&client.response()), [json!({"end": "deleted"})]);
    let nginx = start(workers, "push_subscriber_timeout 1s;");
    let mut client = nginx.client();
    client.send(&Request::get(&target("a", None)));
    assert_eq!(objects(&client.response()), [json!({"end": "timeout"})]);
    let nginx = start(workers, "push_subscriber_concurrency last;");
    let mut client = wait_for_script(&nginx, "a", None);
    let mut second = nginx.client();
    second.send(&Request::get(&target("a", None)));
    assert_eq!(objects(&client.response()), [json!({"end": "conflict"})]);
}

fn refusals_are_told_in_scripts(workers: usize) {
    let nginx = start(workers, "push_authorized_channels_only on; push_first_message $arg_first;");
    let reason = "The channel does not exist, and push_authorized_channels_only is on.";
    let found = objects(&nginx.get(&target("a", None)));
    assert_eq!(found, [json!({"error": 403, "reason": reason})]);
    let found = objects(&nginx.get(&target("", None)));
    assert_eq!(found, [json!({"error": 404, "reason": "No channel id provided."})]);
    let found = objects(&nginx.get(&(target("a", None) + "&first=x")));
    assert_eq!(found[0]["error"], json!(400));
    let nginx = start(workers, "push_subscriber_concurrency first;");
    let _first = wait_for_script(&nginx, "a", None);
    assert_eq!(objects(&nginx.get(&target("a", None))), [json!({"end": "conflict"})]);
    let nginx = start(workers, "push_max_channel_subscribers 1;");
    let _first = wait_for_script(&nginx, "a", None);
    let reason = "The channel has as many subscribers as push_max_channel_subscribers allows.";
    let found = objects(&nginx.get(&target("a", None)));
    assert_eq!(found, [json!({"error": 403, "reason": reason})]);
}

fn gaps_are_told_in_scripts(workers: usize) {
    let nginx = start(workers, "push_message_buffer_length 2;");
    nginx.publish("a", "0");
    let first = objects(&nginx.get(&target("a", None)));
    for number in 1..=5 {
        nginx.publish("a", number.to_string());
    }
    let found = objects(&nginx.get(&target("a", Some(&id_of(&first[0])))));
    assert_eq!(found[0], json!({"missed": 3, "at_least": false}));
    assert_eq!((&found[1]["data"], &found[2]["data"]), (&json!("4"), &json!("5")));
}

fn no_message_becomes_code(workers: usize) {
    let nginx = start(workers, "");
    let bodies = [
        "</script><script>alert(1)</script>",
        "<!-- ]]> --> & \u{2028}\u{2029}",
        "\"); alert(1); (\"",
        "\\\"\\u0022'`${x}",
    ];
    for body in bodies {
        let request = Request::post(&publisher("a"), body).header("Content-Type", body_type(body));
        nginx.request(&request).expect_status(202);
    }
    let response = nginx.get(&target("a", None));
    let found = objects(&response);
    for (object, body) in found.iter().zip(bodies) {
        assert_eq!(object["data"], json!(body));
    }
    for hostile in ["<", ">", "&", "\u{2028}", "\u{2029}"] {
        assert!(!response.text().contains(hostile), "{hostile:?}");
    }
}

/// The same as a content type, as far as a header can have it.
fn body_type(body: &str) -> &str {
    if body.is_ascii() {
        body
    } else {
        "text/plain"
    }
}

fn a_callback_that_is_none_is_refused(workers: usize) {
    let nginx = start(workers, "");
    nginx.publish("a", "x");
    let long = "x".repeat(129);
    for bad in [
        "",
        "alert(1)//",
        "a;b",
        "a b",
        "1a",
        "a..b",
        ".a",
        "a[b]",
        "a[1",
        "%00",
        "%",
        "%ff",
        &long,
    ] {
        let response = nginx.get(&format!("/sub?id=a&callback={}", bad.replace(' ', "%20")));
        let response = response.expect_status(400);
        assert!(response.text().starts_with("The argument \"callback\" must be"), "{bad}");
        assert_eq!(response.header("Content-Type"), Some("text/plain"));
    }
}

fn scripts_of_several_channels_say_which(workers: usize) {
    let nginx = start(workers, "");
    for (id, body) in [("a", "1"), ("b", "2"), ("a", "3")] {
        nginx.publish(id, body);
    }
    let found = objects(&nginx.get(&target("a,b", None)));
    let told: Vec<_> = found
        .iter()
        .map(|object| (object["channel"].as_str().unwrap(), object["data"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [("a", "1"), ("b", "2"), ("a", "3")]);
    let rest = objects(&nginx.get(&target("a,b", Some(&id_of(&found[0])))));
    assert_eq!(rest, found[1..]);
    let mut client = nginx.client();
    client.send(&Request::get(&target("a,b", Some(&id_of(&found[2])))));
    nginx.wait_for_subscribers("b", 1);
    nginx.publish("b", "4").expect_status(201);
    assert_eq!(objects(&client.response())[0]["data"], json!("4"));
}

fn without_a_callback_other_transports_are_served(workers: usize) {
    let nginx = start(workers, "");
    nginx.publish("a", "x");
    assert_eq!(nginx.poll("a", &Cursor::none()).expect_status(200).text(), "x");
    let alone = Nginx::start(Config::push(workers).transports("jsonp"));
    alone.publish("a", "x");
    let response = alone.get("/sub?id=a").expect_status(200);
    assert!(response.text().starts_with("/**/pushMessage([{"), "{}", response.text());
    // Where it is not listed, the argument means nothing.
    let bare = Nginx::start(Config::push(workers));
    bare.publish("a", "x");
    assert_eq!(bare.get(&target("a", None)).expect_status(200).text(), "x");
}

fn a_reload_sends_script_clients_to_the_next_worker(workers: usize) {
    let nginx = start(workers, "");
    nginx.publish("a", "one");
    let id = id_of(&objects(&nginx.get(&target("a", None)))[0]);
    let mut client = wait_for_script(&nginx, "a", Some(&id));
    let old = nginx.reload();
    assert_eq!(objects(&client.response()), [json!({"end": "timeout"})]);
    nginx.wait_gone(&old);
    nginx.publish("a", "two");
    assert_eq!(objects(&nginx.get(&target("a", Some(&id))))[0]["data"], json!("two"));
}

fn many_who_wait_get_scripts_of_their_own(workers: usize) {
    let nginx = start(workers, "");
    let mut clients: Vec<_> = (0..40)
        .map(|number| {
            let mut client = nginx.client();
            client.send(&Request::get(&format!("/sub?id=a&callback=f{number}")));
            client
        })
        .collect();
    nginx.wait_for_subscribers("a", 40);
    nginx.publish("a", "hello").expect_status(201);
    for (number, client) in clients.iter_mut().enumerate() {
        let response = client.response().expect_status(200);
        let call = format!("/**/f{number}([{{\"id\":");
        assert!(response.text().starts_with(&call), "{}", response.text());
    }
}

/// The parts of a multipart reply: head and body of each.
fn parts(response: &Response) -> Vec<(String, Vec<u8>)> {
    let content_type = response.header("Content-Type").unwrap();
    let boundary = content_type.strip_prefix("multipart/mixed; boundary=").unwrap();
    let text = response.body.as_slice();
    let find = |text: &[u8], what: &[u8]| text.windows(what.len()).position(|part| part == what);
    let first = format!("--{boundary}\r\n");
    assert!(text.starts_with(first.as_bytes()));
    let mut rest = &text[first.len() - 2..];
    let delimiter = format!("\r\n--{boundary}");
    let mut parts = Vec::new();
    while !rest.starts_with(b"--") {
        let end = find(rest, delimiter.as_bytes()).expect("a delimiter");
        let part = &rest[2..end];
        let (head, body) = match part.starts_with(b"\r\n") {
            true => (&part[..0], &part[2..]),
            false => {
                let middle = find(part, b"\r\n\r\n").expect("a part's head");
                (&part[..middle], &part[middle + 4..])
            }
        };
        parts.push((String::from_utf8(head.to_vec()).unwrap(), body.to_vec()));
        rest = &rest[end + delimiter.len()..];
    }
    assert_eq!(rest, b"--\r\n");
    parts
}

fn polls(workers: usize, form: &str, text: &str) -> Nginx {
    Nginx::start(
        Config::push(workers)
            .http("push_channel_id_split_delimiter ','; client_max_body_size 8m;")
            .publisher(text)
            .subscriber(&format!("push_poll_messages {form}; {text}")),
    )
}

fn a_multipart_poll_gets_all_queued_messages(workers: usize) {
    let nginx = polls(workers, "multipart", "push_message_buffer_length 3;");
    nginx.publish("a", "0");
    let response = nginx.poll("a", &Cursor::none()).expect_status(200);
    assert_eq!(response.text(), "0");
    let cursor = Cursor::after(&response);
    for number in 1..=5 {
        nginx.publish("a", number.to_string());
    }
    let response = nginx.poll("a", &cursor).expect_status(200);
    assert_eq!(response.header("Push-Missed"), Some("2"));
    let bodies: Vec<_> = parts(&response).into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, [b"3", b"4", b"5"]);
    // Nothing is left; what comes then comes alone and as it is.
    let mut client = nginx.park_after("a", &Cursor::after(&response));
    nginx.publish("a", "6").expect_status(201);
    assert_eq!(client.response().expect_status(200).text(), "6");
}

fn locations_of_one_channel_join_each_in_its_own_way(workers: usize) {
    let location = |name, separator| {
        format!(
            "location = /{name} {{ push_subscriber; push_channel_id $arg_id; push_poll_messages joined;
                 push_stream_separator \"{separator}\"; }}"
        )
    };
    let nginx = Nginx::start(
        Config::push(workers).server(&location("bar", "|")).server(&location("line", "\\n")),
    );
    let targets = ["/bar?id=a", "/line?id=a", "/bar?id=a", "/line?id=a"];
    let mut waiting: Vec<_> =
        targets.iter().map(|target| nginx.park_at(target, &publisher("a"))).collect();
    nginx.publish("a", "one").expect_status(201);
    let texts = waiting.iter_mut().map(|client| client.response().expect_status(200));
    let texts: Vec<_> = texts.map(|response| response.text().to_owned()).collect();
    assert_eq!(texts, ["one|", "one\n", "one|", "one\n"]);
}

fn a_joined_poll_gets_all_queued_messages(workers: usize) {
    let nginx = polls(workers, "joined", "push_stream_separator \"|\";");
    for body in ["1", "", "3"] {
        nginx.publish("a", body);
    }
    let response = nginx.poll("a", &Cursor::none()).expect_status(200);
    assert_eq!(response.text(), "1||3|");
    let mut client = nginx.park_after("a", &Cursor::after(&response));
    nginx.publish("a", "4").expect_status(201);
    assert_eq!(client.response().expect_status(200).text(), "4|");
}

fn an_interval_poll_may_get_them_all_too(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers).transports("interval-poll").subscriber("push_poll_messages joined;"),
    );
    nginx.poll("a", &Cursor::none()).expect_status(304);
    for body in ["1", "2"] {
        nginx.publish("a", body);
    }
    let response = nginx.poll("a", &Cursor::none()).expect_status(200);
    assert_eq!(response.text(), "1\n2\n");
    nginx.poll("a", &Cursor::after(&response)).expect_status(304);
}

fn large_messages_are_parts_as_well(workers: usize) {
    let nginx = polls(workers, "multipart", "client_body_buffer_size 16k;");
    let bodies = [pattern(30_000), pattern(20_000), pattern(300_000), pattern(1)];
    for body in &bodies {
        nginx.publish("a", body.clone());
    }
    let mut cursor = Cursor::none();
    let mut got = Vec::new();
    while got.len() < bodies.len() {
        let response = nginx.poll("a", &cursor).expect_status(200);
        cursor = Cursor::after(&response);
        match response.header("Content-Type") {
            Some(kind) if kind.starts_with("multipart/") => {
                got.extend(parts(&response).into_iter().map(|(_, body)| body))
            }
            _ => got.push(response.body),
        }
    }
    assert!(got == bodies);
}

fn polls_of_several_channels_get_all_in_order(workers: usize) {
    let nginx = polls(workers, "multipart", "");
    for number in 0..6 {
        nginx.publish(["a", "b", "c"][number % 3], number.to_string());
    }
    let response = nginx.poll("a,b,c", &Cursor::none()).expect_status(200);
    let found = parts(&response);
    for (number, (head, body)) in found.iter().enumerate() {
        assert_eq!(body, number.to_string().as_bytes());
        let channel = format!("Push-Channel: {}", ["a", "b", "c"][number % 3]);
        assert!(head.contains(&channel), "{head}");
    }
    assert_eq!(found.len(), 6);
    let mut client = nginx.client();
    client.send(&Cursor::after(&response).apply(Request::get("/sub?id=a,b,c")));
    nginx.wait_for_subscribers("c", 1);
    nginx.publish("b", "last").expect_status(201);
    let response = client.response().expect_status(200);
    assert_eq!((response.text(), response.header("Push-Channel")), ("last", Some("b")));
}
