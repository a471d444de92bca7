//! Tests with the clients that applications use: packages of npm and pip, Nchan's own library in a browser, curl.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use support::config::project_file;
use support::push::{publisher, subscriber};
use support::webdriver::{Browser, Wishes};
use support::{on_1_and_4_workers, wait, Config, Nginx, Request};

on_1_and_4_workers!(
    eventsource_of_npm_gets_everything,
    ws_of_npm_gets_everything,
    our_own_client_gets_everything_by_stream,
    our_own_client_gets_everything_by_long_poll,
    websockets_of_python_gets_everything,
    nchans_library_gets_everything_by_websocket,
    nchans_library_gets_everything_by_event_source,
    nchans_library_gets_everything_by_long_poll,
    nchans_library_gets_several_channels_by_websocket,
    nchans_library_gets_several_channels_by_event_source,
    nchans_library_gets_several_channels_by_long_poll,
    curl_gets_events,
    curl_gets_json_lines,
    curl_gets_lines,
);

/// A running client and the lines that it prints.
struct Program {
    process: Child,
    lines: Receiver<String>,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut process = process.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Program { process, lines }
    }

    fn expect_lines<S: AsRef<str>>(&self, expected: impl IntoIterator<Item = S>) {
        for line in expected {
            let seen = self.lines.recv_timeout(wait::patience());
            assert_eq!(seen.as_deref(), Ok(line.as_ref()));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What `scripts/clients.sh` has fetched.
fn fetched(path: &str) -> PathBuf {
    let path = project_file(path);
    assert!(path.exists(), "{} is missing: run scripts/clients.sh", path.display());
    path
}

/// Browsers connect in advance; an old worker waits for the request that never comes, as long as nginx is patient.
fn start(workers: usize) -> Nginx {
    let mut nginx = Nginx::start(
        Config::push(workers)
            .http("push_message_buffer_length 1000; push_eventsource_retry 1s; client_header_timeout 3s; push_channel_id_split_delimiter ',';")
            .server("location = /page { default_type text/html; return 200 '<!doctype html>'; }"),
    );
    nginx.tolerate("exited on signal 9");
    nginx
}

fn url(nginx: &Nginx, scheme: &str, id: &str) -> String {
    format!("{scheme}://127.0.0.1:{}{}", nginx.port(), subscriber(id))
}

const BATCH: usize = 20;

/// Publishes to these channels in turn, before, during and after a reload, and after the death of all workers. Returns what
/// was published.
fn publish_through_trouble(nginx: &mut Nginx, ids: &[&str]) -> Vec<String> {
    let texts: Vec<String> = (0..4 * BATCH).map(|number| format!("message {number}")).collect();
    let mut batches = texts.chunks(BATCH);
    let mut publish = |nginx: &Nginx| {
        for (text, id) in batches.next().expect("a batch").iter().zip(ids.iter().cycle()) {
            nginx.publish(id, text.as_str());
        }
    };
    ids.iter().for_each(|id| nginx.wait_for_subscribers(id, 1));
    publish(nginx);
    let old = nginx.reload();
    publish(nginx);
    nginx.wait_gone(&old);
    publish(nginx);
    for worker in nginx.workers() {
        nginx.kill_worker(worker);
    }
    publish(nginx);
    texts
}

fn gets_everything(workers: usize, command: impl FnOnce(&Nginx) -> Command) {
    let mut nginx = start(workers);
    let program = Program::start(&mut command(&nginx));
    let texts = publish_through_trouble(&mut nginx, &["a"]);
    program.expect_lines(&texts);
    nginx.wait_for_subscribers("a", 1);
    nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
    program.expect_lines(["end"]);
}

fn node(kind: &str, url: &str) -> Command {
    fetched("t/javascript/node_modules/.fetched");
    let mut node = Command::new("node");
    node.arg(project_file("t/javascript/client.mjs")).args([kind, url]);
    node
}

fn eventsource_of_npm_gets_everything(workers: usize) {
    gets_everything(workers, |nginx| node("eventsource", &url(nginx, "http", "a")));
}

fn ws_of_npm_gets_everything(workers: usize) {
    gets_everything(workers, |nginx| node("ws", &url(nginx, "ws", "a")));
}

fn our_own_client_gets_everything_by_stream(workers: usize) {
    gets_everything(workers, |nginx| node("stream", &url(nginx, "http", "a")));
}

fn our_own_client_gets_everything_by_long_poll(workers: usize) {
    gets_everything(workers, |nginx| node("long-poll", &url(nginx, "http", "a")));
}

fn websockets_of_python_gets_everything(workers: usize) {
    gets_everything(workers, |nginx| {
        let mut python = Command::new(fetched("build/python/bin/python3"));
        python.arg(project_file("t/python/client.py")).arg(url(nginx, "ws", "a"));
        python
    });
}

/// Nchan's library is made for browsers.
fn nchans_library_gets_everything(workers: usize, transport: &str, ids: &[&str]) {
    let mut nginx = start(workers);
    let library = fetched("t/javascript/node_modules/nchan/NchanSubscriber.js");
    let library = std::fs::read_to_string(library).expect("the library");
    let browser = Browser::start(Wishes::default());
    browser.open(&format!("http://127.0.0.1:{}/page", nginx.port()));
    browser.run(&format!(
        "const module = undefined, define = undefined;
         {library}
         window.seen = [];
         const subscriber = new (window.NchanSubscriber || NchanSubscriber)('{}', {{ subscriber: '{transport}', reconnect: 'session' }});
         subscriber.on('message', (message) => window.seen.push(message));
         subscriber.reconnectTimeout = 100;
         subscriber.start();
         return null;",
        subscriber(&ids.join(","))
    ));
    let texts = publish_through_trouble(&mut nginx, ids);
    let seen = || -> Vec<String> {
        let seen = browser.run("return window.seen");
        let seen = seen.as_array().expect("a list").iter();
        seen.map(|text| text.as_str().expect("text").to_owned()).collect()
    };
    wait::until_true("all messages", || seen().len() >= texts.len());
    assert_eq!(seen(), texts);
}

fn nchans_library_gets_everything_by_websocket(workers: usize) {
    nchans_library_gets_everything(workers, "websocket", &["a"]);
}

fn nchans_library_gets_everything_by_event_source(workers: usize) {
    nchans_library_gets_everything(workers, "eventsource", &["a"]);
}

fn nchans_library_gets_everything_by_long_poll(workers: usize) {
    nchans_library_gets_everything(workers, "longpoll", &["a"]);
}

fn nchans_library_gets_several_channels_by_websocket(workers: usize) {
    nchans_library_gets_everything(workers, "websocket", &["a", "b", "c"]);
}

fn nchans_library_gets_several_channels_by_event_source(workers: usize) {
    nchans_library_gets_everything(workers, "eventsource", &["a", "b", "c"]);
}

fn nchans_library_gets_several_channels_by_long_poll(workers: usize) {
    nchans_library_gets_everything(workers, "longpoll", &["a", "b", "c"]);
}

fn curl(nginx: &Nginx, location: &str, accept: &str) -> Program {
    Program::start(
        Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--no-buffer", "--max-time", "60"])
            .args(["--header", &format!("Accept: {accept}")])
            .arg(format!("http://127.0.0.1:{}/{location}?id=a", nginx.port())),
    )
}

/// Publishes some messages and deletes the channel: curl must end by itself, and be content.
fn curl_gets(workers: usize, location: &str, accept: &str) -> (Vec<String>, Vec<String>) {
    let nginx = Nginx::start(
        Config::push(workers)
            .http("push_eventsource_retry 0; push_message_buffer_length 1000;")
            .server("location = /lines { push_subscriber stream; push_channel_id $arg_id; }"),
    );
    let mut program = curl(&nginx, location, accept);
    nginx.wait_for_subscribers("a", 1);
    let texts: Vec<String> = (0..BATCH).map(|number| format!("message {number}")).collect();
    texts.iter().for_each(|text| drop(nginx.publish("a", text.as_str())));
    nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
    let status = program.process.wait().expect("curl ends");
    assert!(status.success(), "{status}");
    (program.lines.iter().collect(), texts)
}

fn curl_gets_events(workers: usize) {
    let (lines, texts) = curl_gets(workers, "sub", "text/event-stream");
    let data: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("data: ")).collect();
    let (last, messages) = data.split_last().expect("messages");
    assert_eq!(
        (messages, *last),
        (&texts.iter().map(String::as_str).collect::<Vec<_>>()[..], r#"{"reason":"deleted"}"#)
    );
}

fn curl_gets_json_lines(workers: usize) {
    let (lines, texts) = curl_gets(workers, "sub", "application/x-ndjson");
    let (last, messages) = lines.split_last().expect("messages");
    assert_eq!(last, r#"{"end":"deleted"}"#);
    let data = messages.iter().map(|line| {
        let object: serde_json::Value = serde_json::from_str(line).expect("JSON");
        object["data"].as_str().expect("data").to_owned()
    });
    assert_eq!(data.collect::<Vec<_>>(), texts);
}

fn curl_gets_lines(workers: usize) {
    let (lines, texts) = curl_gets(workers, "lines", "*/*");
    assert_eq!(lines, texts);
}
