//! Tests for `nginx-conf/`: every configuration starts, shows its page, publishes and delivers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::process::Command;

use support::config::project_file;
use support::streams::Kind;
use support::websocket::Handshake;
use support::{Config, Nginx, Request};

/// What the test needs to know of an example.
struct Example {
    file: &'static str,
    page: &'static str,
    publisher: &'static str,
    subscriber: &'static str,
}

const EXAMPLES: [Example; 6] = [
    Example {
        file: "quickstart.conf",
        page: "/",
        publisher: "/pub?id=demo",
        subscriber: "/sub?id=demo",
    },
    Example {
        file: "streams.conf",
        page: "/",
        publisher: "/pub?id=demo",
        subscriber: "/sub?id=demo",
    },
    Example {
        file: "nhpm-guide.conf",
        page: "/",
        publisher: "/pub?id=demo",
        subscriber: "/sub?id=demo",
    },
    Example {
        file: "chat.conf",
        page: "/chat.html",
        publisher: "/rooms/lobby/messages",
        subscriber: "/rooms/lobby",
    },
    Example {
        file: "docker.conf",
        page: "/",
        publisher: "/pub?id=demo",
        subscriber: "/sub?id=demo",
    },
    Example {
        file: "tls-http2.conf",
        page: "/",
        publisher: "/pub?id=demo",
        subscriber: "/sub?id=demo",
    },
];

#[test]
fn every_configuration_has_a_test() {
    let mut files: Vec<String> = fs::read_dir(project_file("nginx-conf"))
        .expect("the directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".conf"))
        .collect();
    files.sort();
    let mut tested = EXAMPLES.map(|example| example.file);
    tested.sort_unstable();
    assert_eq!(files, tested);
}

fn example(file: &str) -> &'static Example {
    EXAMPLES.iter().find(|example| example.file == file).expect("an example")
}

/// Fetches the page, holds a long-poll, publishes a form, and receives it.
fn expect_service(file: &str) -> Nginx {
    let example = example(file);
    let nginx = Nginx::start(Config::example(file));
    let page = nginx.get(example.page).expect_status(200);
    let content_type = page.header("Content-Type").expect("a type");
    assert!(content_type.starts_with("text/html"), "{content_type}");
    for id in ["publish", "message", "messages", "status", "channel"] {
        assert!(page.text().contains(&format!("id=\"{id}\"")), "no element {id}");
    }
    let mut waiting = nginx.park_at(example.subscriber, example.publisher);
    let form = Request::post(example.publisher, "message=hello")
        .header("Content-Type", "application/x-www-form-urlencoded");
    nginx.request(&form).expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "message=hello");
    nginx
}

/// A page of another site must not publish in the name of the person who looks at it.
fn expect_protection(nginx: &Nginx, file: &str) {
    let target = example(file).publisher;
    let host = "localhost";
    let post = |origin: &str| nginx.request(&Request::post(target, "x").header("Origin", origin));
    post("http://elsewhere.example").expect_status(403);
    post("null").expect_status(403);
    let own = post(&format!("http://{host}"));
    assert!([201, 202].contains(&own.status), "{}", own.head);
}

#[test]
fn quickstart_works() {
    let nginx = expect_service("quickstart.conf");
    expect_protection(&nginx, "quickstart.conf");
}

#[test]
fn every_transport_has_its_address() {
    let nginx = expect_service("streams.conf");
    expect_protection(&nginx, "streams.conf");
    for (kind, target) in [
        (Kind::EventSource, "/events?id=all"),
        (Kind::WebSocket, "/socket?id=all"),
        (Kind::JsonLines, "/lines?id=all"),
        (Kind::Stream, "/lines?id=all"),
        (Kind::EventSource, "/sub?id=all"),
        (Kind::WebSocket, "/both?id=all"),
    ] {
        let mut listener = kind.listen_on(nginx.client(), target, None);
        nginx.request(&Request::post("/pub?id=all", "hello")).expect_status(201);
        listener.expect_message("hello");
        nginx.request(&Request::new("DELETE", "/pub?id=all")).expect_status(200);
    }
}

#[test]
fn the_nhpm_guide_works() {
    expect_service("nhpm-guide.conf");
}

#[test]
fn chat_works() {
    let nginx = expect_service("chat.conf");
    expect_protection(&nginx, "chat.conf");
    assert_eq!(
        nginx.get("/").expect_status(302).header("Location").map(ends_with_chat),
        Some(true)
    );
    nginx.get("/rooms/no.such.name").expect_status(404);
    // All that is said in a WebSocket would be one request to limit_req.
    nginx.request(&Handshake::to("/rooms/lobby/messages").request()).expect_status(403);
    // A message that is a page of its writer's does not become one of the site's.
    nginx.publish_at("/rooms/den/messages", "<script>forged()</script>");
    let message = nginx.get("/rooms/den").expect_status(200);
    assert_eq!(message.header("Content-Security-Policy"), Some("sandbox"));
    assert_eq!(message.header("X-Content-Type-Options"), Some("nosniff"));
}

fn ends_with_chat(location: &str) -> bool {
    location.ends_with("/chat.html")
}

#[test]
fn the_configuration_of_the_image_works() {
    let example = example("docker.conf");
    let nginx = Nginx::start(Config::example(example.file));
    // The port for everybody does not publish.
    nginx.get("/").expect_status(404);
    nginx.request(&Request::post(example.publisher, "x")).expect_status(404);
    let mut inside = support::Client::connect(nginx.port2());
    inside.request(&Request::get(example.page)).expect_status(200);
    inside.request(&Request::post(example.publisher, "one")).expect_status(202);
    assert_eq!(nginx.get(example.subscriber).expect_status(200).text(), "one");
    let origin = Request::post(example.publisher, "x").header("Origin", "http://elsewhere.example");
    inside.request(&origin).expect_status(403);
}

#[test]
fn tls_and_http2_work() {
    let example = example("tls-http2.conf");
    let mut nginx = Nginx::start(Config::example(example.file));
    let url = |target: &str| format!("https://127.0.0.1:{}{target}", nginx.port());
    let curl = |options: &[&str], target: &str| {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--include", "--insecure", "--max-time", "60"])
            .args(options)
            .arg(url(target))
            .output()
            .expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let page = curl(&["--http2"], example.page);
    assert!(page.starts_with("HTTP/2 200"), "{page}");
    let published = curl(&["--http2", "--data", "one"], example.publisher);
    assert!(published.starts_with("HTTP/2 202"), "{published}");
    for version in ["--http2", "--http1.1"] {
        let received = curl(&[version], example.subscriber);
        assert!(received.ends_with("\r\n\r\none"), "{received}");
    }
    // The test's own look at the port was not TLS.
    nginx.tolerate("SSL_do_handshake");
}
