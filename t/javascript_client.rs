//! Tests for `client/push.js`, the client for pages, in a real browser, and for its types.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::path::PathBuf;
use std::process::Command;

use serde_json::{json, Value};
use support::config::project_file;
use support::push::publisher;
use support::webdriver::{Browser, Wishes};
use support::{on_1_and_4_workers, wait, Config, Nginx, Request, Signal};

on_1_and_4_workers!(
    websockets_bring_every_message_once_and_in_order,
    event_source_brings_every_message_once_and_in_order,
    streams_bring_every_message_once_and_in_order,
    long_polls_bring_every_message_once_and_in_order,
    a_change_of_transport_loses_and_repeats_nothing,
);

const TRANSPORTS: [&str; 4] = ["websocket", "eventsource", "stream", "long-poll"];

/// `/page`, the client beside it, and `/sub` with what is listed; `/pub` keeps `kept` messages.
fn config(workers: usize, words: &str, kept: usize) -> Config {
    let client = project_file("client/push.js");
    Config::push(workers)
        .transports(words)
        .http(&format!("push_message_buffer_length {kept}; push_eventsource_retry 1s;"))
        // Browsers connect in advance; an old worker waits for the request that never comes.
        .http("client_header_timeout 3s;")
        .server("location = /page { default_type text/html; return 200 '<!doctype html><link rel=icon href=\"data:,\">'; }")
        .server(&format!(
            "location = /push.js {{ types {{ text/javascript js; }} alias {}; }}",
            client.display()
        ))
}

fn start(workers: usize, words: &str, kept: usize) -> Nginx {
    let mut nginx = Nginx::start(config(workers, words, kept));
    nginx.tolerate("exited on signal 9");
    nginx
}

fn browser() -> Browser {
    Browser::start(Wishes::default())
}

/// A page that has subscribed. A browser has one at a time, which it leaves at the end.
struct Page<'b> {
    browser: &'b Browser,
}

impl Drop for Page<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.browser.leave();
        }
    }
}

impl<'b> Page<'b> {
    /// Opens the page and subscribes with these options, written in JavaScript.
    fn subscribe(browser: &'b Browser, nginx: &Nginx, target: &str, options: &str) -> Self {
        browser.open(&format!("http://127.0.0.1:{}/page", nginx.port()));
        let page = Page { browser };
        page.subscribe_again(target, options);
        page
    }

    /// Subscribes to channel `a` by these transports.
    fn by(browser: &'b Browser, nginx: &Nginx, transports: &[&str]) -> Self {
        Page::subscribe(browser, nginx, "/sub?id=a", &format!("transports: {}", json!(transports)))
    }

    /// Subscribes from the same page. What was seen before is forgotten, and not closed.
    fn subscribe_again(&self, target: &str, options: &str) {
        self.browser.run(&format!(
            "const seen = [], gaps = [], states = [];
             Object.assign(window, {{ seen, gaps, states, subscription: null }});
             import('/push.js').then((push) => {{
                 window.push = push;
                 window.subscription = push.subscribe('{target}', {{
                     retry: {{ min: 50, max: 500 }},
                     onmessage: (message) => seen.push(message),
                     ongap: (gap) => gaps.push(gap),
                     onstatus: (status) => states.push(status),
                     {options}
                 }});
             }}, (error) => states.push({{ state: String(error) }}));"
        ));
    }

    fn get(&self, what: &str) -> Value {
        self.browser.run(&format!("return {what}"))
    }

    /// The bodies of the messages so far.
    fn texts(&self) -> Vec<String> {
        let texts = self.get("seen.map((message) => message.data)");
        let texts = texts.as_array().expect("a list").iter();
        texts.map(|text| text.as_str().expect("a text").to_owned()).collect()
    }

    #[track_caller]
    fn expect_texts<S: AsRef<str>>(&self, expected: &[S]) {
        let expected: Vec<&str> = expected.iter().map(AsRef::as_ref).collect();
        let deadline = std::time::Instant::now() + wait::patience();
        while self.texts().len() < expected.len() && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(self.texts(), expected, "{}", self.get("states"));
    }

    /// Waits for this state, and returns which transport it was and why.
    fn expect_state(&self, state: &str) -> (String, String) {
        let last = wait::until(&format!("the state {state}"), || {
            let last = self.get("states.at(-1)");
            (last["state"] == state).then_some(last)
        });
        let text = |name: &str| last[name].as_str().unwrap_or_default().to_owned();
        (text("transport"), text("reason"))
    }

    #[track_caller]
    fn expect_open(&self, transport: &str) {
        assert_eq!(self.expect_state("open").0, transport, "{}", self.get("states"));
    }

    #[track_caller]
    fn expect_closed(&self, reason: &str) {
        assert_eq!(self.expect_state("closed").1, reason, "{}", self.get("states"));
    }

    fn close(&self) {
        self.browser.run("subscription.close()");
    }
}

/// Ends both. A browser keeps connections open that nginx would wait for, if it had the time.
fn end(page: Page<'_>, mut nginx: Nginx) {
    drop(page);
    nginx.stop(Signal::TERM);
}

fn publish_batch(nginx: &Nginx, texts: &mut Vec<String>) {
    for _ in 0..10 {
        let text = format!("message {} <\u{e4}>\n", texts.len());
        nginx.publish("a", text.as_str());
        texts.push(text);
    }
}

fn delete(nginx: &Nginx) {
    nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
}

/// Before, during and after a reload, and after the death of all workers.
fn every_message_once_and_in_order(workers: usize, transport: &str) {
    let mut nginx = start(workers, "", 1000);
    let browser = browser();
    let page = Page::by(&browser, &nginx, &[transport]);
    page.expect_open(transport);
    nginx.wait_for_subscribers("a", 1);
    let mut texts = Vec::new();
    publish_batch(&nginx, &mut texts);
    let old = nginx.reload();
    publish_batch(&nginx, &mut texts);
    nginx.wait_gone(&old);
    publish_batch(&nginx, &mut texts);
    page.expect_texts(&texts);
    for worker in nginx.workers() {
        nginx.kill_worker(worker);
    }
    publish_batch(&nginx, &mut texts);
    page.expect_texts(&texts);
    publish_batch(&nginx, &mut texts);
    page.expect_texts(&texts);
    assert_eq!(page.get("gaps"), json!([]));
    assert_eq!(page.get("seen.at(-1).id"), page.get("subscription.id"));
    // Nothing else was taken in between.
    assert_eq!(
        page.get("[...new Set(states.map((status) => status.transport))]"),
        json!([transport])
    );
}

fn websockets_bring_every_message_once_and_in_order(workers: usize) {
    every_message_once_and_in_order(workers, "websocket");
}

fn event_source_brings_every_message_once_and_in_order(workers: usize) {
    every_message_once_and_in_order(workers, "eventsource");
}

fn streams_bring_every_message_once_and_in_order(workers: usize) {
    every_message_once_and_in_order(workers, "stream");
}

fn long_polls_bring_every_message_once_and_in_order(workers: usize) {
    every_message_once_and_in_order(workers, "long-poll");
}

fn a_change_of_transport_loses_and_repeats_nothing(workers: usize) {
    let mut nginx = start(workers, "websocket", 1000);
    let browser = browser();
    let page = Page::by(&browser, &nginx, &TRANSPORTS);
    let mut texts = Vec::new();
    for words in ["websocket", "eventsource", "long-poll", "stream", "websocket"] {
        nginx.reconfigure(config(workers, words, 1000));
        let old = nginx.reload();
        publish_batch(&nginx, &mut texts);
        nginx.wait_gone(&old);
        publish_batch(&nginx, &mut texts);
        page.expect_texts(&texts);
        page.expect_open(words);
        publish_batch(&nginx, &mut texts);
        page.expect_texts(&texts);
    }
    assert_eq!(page.get("gaps"), json!([]));
}

#[test]
fn it_takes_the_first_transport_that_works_and_remembers_it() {
    let browser = browser();
    for (words, transport) in [
        ("", "websocket"),
        ("websocket", "websocket"),
        ("eventsource long-poll", "eventsource"),
        ("stream long-poll", "stream"),
        ("long-poll", "long-poll"),
        ("interval-poll", "long-poll"),
    ] {
        let nginx = start(2, words, 1000);
        nginx.publish("a", "one");
        let page = Page::by(&browser, &nginx, &TRANSPORTS);
        page.expect_texts(&["one"]);
        page.expect_open(transport);
        nginx.publish("a", "two");
        page.expect_texts(&["one", "two"]);
        // The transports before it were tried in their order, without a pause.
        let place = TRANSPORTS.iter().position(|name| *name == transport).expect("one of them");
        let tried = page.get("states.map((status) => [status.state, status.transport])");
        let connecting = TRANSPORTS[..=place].iter().map(|name| json!(["connecting", name]));
        let expected: Vec<Value> = connecting.chain([json!(["open", transport])]).collect();
        assert_eq!(tried, json!(expected), "{words}");
        // Another one of the same page begins with what worked.
        page.subscribe_again("/sub?id=a", "");
        page.expect_texts(&["one", "two"]);
        assert_eq!(page.get("states[0].transport"), transport, "{words}");
        end(page, nginx);
    }
}

#[test]
fn a_message_is_the_same_by_all_transports() {
    let nginx = start(2, "", 1000);
    let bodies: [(&str, &[u8]); 4] = [
        ("text/plain", "two\nlines \u{feff}\u{1f600}".as_bytes()),
        ("application/json; charset=utf-8", br#"{"a": "\u2028"}"#),
        ("application/octet-stream", b""),
        ("application/octet-stream", b"\xff\0\xfe\n\n"),
    ];
    for (content_type, body) in bodies {
        let request = Request::post(&publisher("a"), body).header("Content-Type", content_type);
        nginx.request(&request).expect_status(202);
    }
    let mut ids = Vec::new();
    let browser = browser();
    for transport in TRANSPORTS {
        let page = Page::by(&browser, &nginx, &[transport]);
        wait::until_true("four messages", || page.get("seen.length") == 4);
        let seen = page.get("seen.map(({ data, ...rest }) => ({ ...rest, data: typeof data === 'string' ? data : [...data] }))");
        for (message, (content_type, body)) in seen.as_array().expect("a list").iter().zip(bodies) {
            let id = message["id"].as_str().expect("an id");
            assert_eq!(id.split_once(':').unwrap().0, message["time"].to_string(), "{transport}");
            match std::str::from_utf8(body) {
                Ok(text) => assert_eq!(message["data"], text, "{transport}"),
                // EventSource is text.
                Err(_) if transport == "eventsource" => {
                    assert_eq!(message["data"], "\u{fffd}\0\u{fffd}\n\n");
                }
                Err(_) => assert_eq!(message["data"], json!(body), "{transport}"),
            }
            let told = (transport != "eventsource").then_some(content_type);
            assert_eq!(message.get("type").and_then(Value::as_str), told, "{transport}");
        }
        ids.push(page.get("seen.map((message) => message.id)"));
    }
    assert!(ids.iter().all(|list| list == &ids[0]), "{ids:?}");
}

#[test]
fn the_name_of_an_event_is_told() {
    let nginx = start(2, "", 1000);
    for name in ["price", "error", "open", ""] {
        let request = Request::post(&publisher("a"), name);
        let request = if name.is_empty() { request } else { request.header("Push-Event", name) };
        nginx.request(&request).expect_status(202);
    }
    let browser = browser();
    for transport in ["eventsource", "stream"] {
        let options = format!("transports: ['{transport}'], events: ['price', 'error', 'open']");
        let page = Page::subscribe(&browser, &nginx, "/sub?id=a", &options);
        page.expect_texts(&["price", "error", "open", ""]);
        let events = page.get("seen.map((message) => message.event ?? '')");
        assert_eq!(events, json!(["price", "error", "open", ""]), "{transport}");
        page.expect_open(transport);
    }
}

#[test]
fn messages_missed_are_told() {
    let browser = browser();
    for transport in ["eventsource", "stream", "long-poll"] {
        let nginx = start(2, "", 5);
        let page = Page::by(&browser, &nginx, &[transport]);
        nginx.publish("a", "first");
        page.expect_texts(&["first"]);
        page.browser.run("window.last = subscription.id; subscription.close()");
        let later: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        later.iter().for_each(|text| drop(nginx.publish("a", text.as_str())));
        page.subscribe_again("/sub?id=a", &format!("transports: ['{transport}'], from: last"));
        page.expect_texts(&later[15..]);
        assert_eq!(page.get("gaps"), json!([{ "missed": 15, "atLeast": false }]), "{transport}");
        end(page, nginx);
    }
}

#[test]
fn long_polls_go_on_where_no_cache_means_what_is_new() {
    let nginx = Nginx::start(config(2, "", 100).http("push_ignore_queue_on_no_cache on;"));
    nginx.publish("a", "before");
    let browser = browser();
    let page = Page::by(&browser, &nginx, &["long-poll"]);
    nginx.wait_for_subscribers("a", 1);
    let texts: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    texts.iter().for_each(|text| drop(nginx.publish("a", text.as_str())));
    page.expect_texts(&texts);
}

#[test]
fn it_begins_where_it_is_told_to() {
    let browser = browser();
    for transport in TRANSPORTS {
        let nginx = start(2, "", 1000);
        let texts = ["one", "two", "three"];
        texts.iter().for_each(|text| drop(nginx.publish("a", *text)));
        let page = Page::by(&browser, &nginx, &[transport]);
        page.expect_texts(&texts);
        page.browser.run("window.second = seen[1].id");
        page.close();
        nginx.wait_for_subscribers("a", 0);
        for (from, expected) in [("second", &["three", "new"][..]), ("'newest'", &["new"])] {
            page.subscribe_again(
                "/sub?id=a",
                &format!("transports: ['{transport}'], from: {from}"),
            );
            page.expect_open(transport);
            if from == "second" {
                page.expect_texts(&expected[..1]);
            }
            nginx.wait_for_subscribers("a", 1);
            nginx.publish("a", "new");
            page.expect_texts(expected);
            page.close();
            nginx.wait_for_subscribers("a", 0);
        }
        assert_eq!(page.get("gaps"), json!([]), "{transport}");
        end(page, nginx);
    }
}

#[test]
fn a_deletion_ends_it() {
    let browser = browser();
    for transport in TRANSPORTS {
        let nginx = start(2, "", 1000);
        let page = Page::by(&browser, &nginx, &[transport]);
        nginx.wait_for_subscribers("a", 1);
        delete(&nginx);
        page.expect_closed("deleted");
        nginx.publish("a", "to a new channel");
        page.expect_texts(&[""; 0]);
        end(page, nginx);
    }
}

#[test]
fn another_subscriber_ends_it() {
    let browser = browser();
    for transport in TRANSPORTS {
        let config = config(2, "", 1000).http("push_subscriber_concurrency last;");
        let nginx = Nginx::start(config);
        let page = Page::by(&browser, &nginx, &[transport]);
        nginx.wait_for_subscribers("a", 1);
        let mut other = nginx.client();
        other.send(&Request::get("/sub?id=a"));
        page.expect_closed("conflict");
        end(page, nginx);
    }
}

#[test]
fn a_refusal_ends_it_with_the_reason() {
    let config = config(2, "", 1000).http("push_authorized_channels_only on;");
    let nginx = Nginx::start(config);
    let browser = browser();
    for (target, reason) in [("/sub?id=nobody", "forbidden"), ("/sub", "not found")] {
        let page = Page::subscribe(&browser, &nginx, target, "");
        page.expect_closed(reason);
    }
}

#[test]
fn after_a_close_nothing_comes() {
    let browser = browser();
    for transport in TRANSPORTS {
        let nginx = start(2, "", 1000);
        let page = Page::by(&browser, &nginx, &[transport]);
        nginx.publish("a", "one");
        page.expect_texts(&["one"]);
        page.expect_open(transport);
        page.close();
        nginx.wait_for_subscribers("a", 0);
        nginx.publish("a", "two");
        page.expect_closed("closed");
        // What comes after "closed" would be seen by the time that this one has it.
        page.browser.run("window.before = seen");
        page.subscribe_again("/sub?id=a", &format!("transports: ['{transport}']"));
        page.expect_texts(&["one", "two"]);
        assert_eq!(page.get("before.map((message) => message.data)"), json!(["one"]));
        end(page, nginx);
    }
}

#[test]
fn a_handler_that_fails_loses_no_message() {
    let browser = browser();
    for transport in TRANSPORTS {
        let nginx = start(2, "", 1000);
        let page = Page::subscribe(
            &browser,
            &nginx,
            "/sub?id=a",
            &format!(
                "transports: ['{transport}'],
                 onmessage: (message) => {{ seen.push(message); throw new Error('the page is wrong'); }}"
            ),
        );
        nginx.publish("a", "one");
        nginx.publish("a", "two");
        page.expect_texts(&["one", "two"]);
        page.expect_open(transport);
        wait::until_true("the errors in the console", || {
            let errors = page.browser.console_errors();
            errors.iter().any(|error| error.contains("the page is wrong"))
        });
        end(page, nginx);
    }
}

#[test]
fn pages_publish() {
    let nginx = Nginx::start(
        config(2, "", 1000)
            .server("location = /closed { push_publisher; push_channel_id $arg_id; deny all; }"),
    );
    let browser = browser();
    let page = Page::subscribe(&browser, &nginx, "/sub?id=a", "transports: ['stream']");
    nginx.wait_for_subscribers("a", 1);
    page.browser.run(
        "window.result = null;
         push.publish('/pub?id=a', '\u{e4}', { type: 'text/x', event: 'e' })
             .then((info) => push.publish('/closed?id=a', 'x').catch((error) => { window.result = [info, error.status, error.message]; }));",
    );
    let result =
        wait::until("both results", || Some(page.get("result")).filter(|result| !result.is_null()));
    assert_eq!(result[0]["messages"], 1);
    assert_eq!(result[0]["subscribers"], 1);
    assert_eq!(
        (&result[1], &result[2]),
        (&json!(403), &json!("not published: the server said 403"))
    );
    page.expect_texts(&["\u{e4}"]);
    let message = page.get("seen[0]");
    assert_eq!((&message["type"], &message["event"]), (&json!("text/x"), &json!("e")));
}

fn fetched(path: &str) -> PathBuf {
    let path = project_file("t/javascript/node_modules").join(path);
    assert!(path.exists(), "{} is missing: run scripts/clients.sh", path.display());
    path
}

#[track_caller]
fn expect_success(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{text}");
}

#[test]
fn the_types_are_right() {
    let compiler = fetched("typescript/bin/tsc");
    expect_success(Command::new("node").arg(compiler).arg("-p").arg(project_file("t/javascript")));
}

/// What takes a server that misbehaves, or hours.
#[test]
fn it_behaves_when_others_do_not() {
    expect_success(
        Command::new("node").arg("--test").arg(project_file("t/javascript/push.test.mjs")),
    );
}
