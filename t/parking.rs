//! Tests for the two ways to park a long-poll: what a client and the access log see is the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;

use support::nginx::{has_or_skip, make_certificate};
use support::push::{publisher, subscriber};
use support::{process, wait, Client, Config, Nginx, Request};

/// Everything of a request that its head does not say, or that parking could disturb.
const LOG: &str = "log_format parking escape=json '$request|$status|$bytes_sent|$body_bytes_sent|\
    $request_length|$connection_requests|$uri|$args|$remote_addr|$remote_user|$host|$server_name|\
    $http_user_agent|$http_cookie|$sent_http_etag|$sent_http_x_mark|$limit_req_status|$pipe|$waited';
    map $request_time $waited { \"~^0\\.\" short; default long; }";

/// How the wait of a parked request ends.
#[derive(Clone, Copy)]
enum End {
    Message,
    Deletion,
    Timeout,
    ClientGone,
}

/// What can be seen from outside.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    reply: Option<(String, Vec<u8>)>,
    /// Whether the connection can be used again, and is the same connection then.
    kept: bool,
    log: Vec<String>,
}

/// A request, where it goes, and what is special about it.
struct Scenario {
    config: Config,
    request: Vec<u8>,
    end: End,
}

impl Scenario {
    fn new(request: Request) -> Self {
        Scenario { config: Config::push(1), request: request.to_bytes(), end: End::Message }
    }

    fn to_sub() -> Self {
        Self::new(Request::get(&subscriber("a")))
    }

    fn http(self, text: &str) -> Self {
        Scenario { config: self.config.http(text), ..self }
    }

    fn server(self, text: &str) -> Self {
        Scenario { config: self.config.server(text), ..self }
    }

    fn subscriber(self, text: &str) -> Self {
        Scenario { config: self.config.subscriber(text), ..self }
    }

    fn end(self, end: End) -> Self {
        Scenario { end, ..self }
    }

    fn see(&self, park: &str) -> Seen {
        let config = self.config.clone().http(LOG).http(&format!("push_park {park};"));
        let config = config.http("access_log @dir@/parking.log parking;");
        let nginx = Nginx::start(config.subscriber("access_log @dir@/parking.log parking;"));
        let mut client = nginx.client();
        client.send_bytes(&self.request);
        nginx.wait_for_subscribers("a", 1);
        match self.end {
            End::Message => {
                let request = Request::post(&publisher("a"), "a message of more than twenty bytes");
                let request = request.header("Content-Type", "text/plain");
                nginx.request(&request).expect_status(201);
            }
            End::Deletion => {
                nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
            }
            End::Timeout => {}
            End::ClientGone => {
                drop(client);
                nginx.wait_for_subscribers("a", 0);
                return Seen { reply: None, kept: false, log: lines(&nginx) };
            }
        }
        let response = client.response();
        let (head, body) = response.bytes_without_date();
        let reply = Some((without_last_modified(&head), body.to_vec()));
        let kept = !response.head.contains("Connection: close") && is_kept(&mut client);
        Seen { reply, kept, log: lines(&nginx) }
    }

    /// Sees the same with both ways to park.
    fn same(self) -> Seen {
        let (compact, plain) = (self.see("compact"), self.see("plain"));
        assert_eq!(compact, plain);
        compact
    }
}

fn is_kept(client: &mut Client) -> bool {
    client.try_request(&Request::get("/worker")).is_ok_and(|response| response.text() != "")
}

/// The second in which a message was published is not the same in two runs.
fn without_last_modified(head: &str) -> String {
    head.lines().filter(|line| !line.starts_with("Last-Modified:")).collect::<Vec<_>>().join("\n")
}

/// The log's lines about subscribers: exactly one for each request.
fn lines(nginx: &Nginx) -> Vec<String> {
    let read = || {
        let log = fs::read_to_string(nginx.dir().join("parking.log")).unwrap_or_default();
        let about = |line: &&str| !line.contains("/pub") && !line.contains("/worker");
        let lines: Vec<String> = log.lines().filter(about).map(str::to_owned).collect();
        (!lines.is_empty()).then_some(lines)
    };
    wait::until("a line in the log", read)
}

fn field(seen: &Seen, place: usize) -> &str {
    seen.log[0].split('|').nth(place).unwrap_or_default()
}

fn mark(seen: &Seen) -> &str {
    field(seen, 15)
}

#[test]
fn a_message_a_deletion_a_timeout_and_a_client_that_goes() {
    let seen = Scenario::to_sub().same();
    assert_eq!((field(&seen, 1), field(&seen, 5), seen.kept), ("200", "1", true));
    assert_eq!(seen.log.len(), 1, "{:?}", seen.log);
    let seen = Scenario::to_sub().end(End::Deletion).same();
    assert_eq!((field(&seen, 1), seen.kept), ("410", true));
    let late = Scenario::to_sub().subscriber("push_subscriber_timeout 2s;").end(End::Timeout);
    let seen = late.same();
    assert_eq!((field(&seen, 1), field(&seen, 18), seen.kept), ("304", "long", true));
    let seen = Scenario::to_sub().end(End::ClientGone).same();
    assert_eq!((field(&seen, 1), seen.log.len()), ("499", 1));
}

#[test]
fn heads_of_all_sizes() {
    for cookie in [100, 900, 1_100, 2_500, 7_000] {
        let request = Request::get(&subscriber("a"))
            .header("User-Agent", "a browser")
            .header("Cookie", &format!("c={}", "x".repeat(cookie)));
        let seen = Scenario::new(request).same();
        assert_eq!(field(&seen, 13).len(), cookie + 2);
    }
    let mut request = Request::get(&subscriber("a"));
    for number in 0..80 {
        request = request.header(&format!("X-Header-{number}"), "value");
    }
    Scenario::new(request.header("X-Twice", "1").header("X-Twice", "2")).same();
    let small = Scenario::to_sub().http("client_header_buffer_size 64;");
    small.same();
}

#[test]
fn versions_and_connections() {
    let get = || Request::get(&subscriber("a"));
    for (request, kept) in [
        (get().http_1_0(), false),
        (get().http_1_0().header("Connection", "keep-alive"), true),
        (get().header("Connection", "close"), false),
    ] {
        assert_eq!(Scenario::new(request).same().kept, kept);
    }
    for (text, kept) in [
        ("keepalive_requests 1;", false),
        ("keepalive_timeout 0;", false),
        ("keepalive_disable safari;", true),
        ("lingering_close always;", true),
    ] {
        let seen = Scenario::to_sub().subscriber(text).same();
        assert_eq!(seen.kept, kept, "{text}");
    }
}

#[test]
fn variables_keep_their_values() {
    let seen =
        Scenario::to_sub().subscriber("set $mark m-$arg_id; add_header X-Mark $mark;").same();
    assert_eq!(mark(&seen), "m-a");
    let seen = Scenario::to_sub()
        .http("map $arg_id $mapped { a of-a; default other; }")
        .subscriber("add_header X-Mark $mapped;")
        .same();
    assert_eq!(mark(&seen), "of-a");
    let basic = Request::get(&subscriber("a")).header("Authorization", "Basic dXNlcjpwYXNz");
    let seen = Scenario::new(basic).same();
    assert_eq!(field(&seen, 9), "user");
    let seen =
        Scenario::to_sub().subscriber("if ($arg_id = a) { add_header X-Mark in-if; }").same();
    assert_eq!(mark(&seen), "in-if");
}

#[test]
fn a_request_id_is_made_once() {
    for park in ["compact", "plain"] {
        let config = Config::push(1)
            .http(&format!("push_park {park}; log_format id '$request_id';"))
            .subscriber(
                "set $first $request_id; add_header X-Id $request_id; access_log @dir@/id.log id;",
            );
        let nginx = Nginx::start(config);
        let mut client = nginx.park("a");
        nginx.publish("a", "one").expect_status(201);
        let response = client.response().expect_status(200);
        let read =
            || fs::read_to_string(nginx.dir().join("id.log")).ok().filter(|log| !log.is_empty());
        let log = wait::until("a line in the log", read);
        assert_eq!(response.header("X-Id"), Some(log.trim()));
    }
}

#[test]
fn captures_keep_their_values() {
    let to = |target: &str| Scenario::new(Request::get(target));
    let seen = to("/channel/a/x")
        .server("location ~ ^/channel/(.*)/(.*)$ { push_subscriber; push_channel_id $1; add_header X-Mark $1$2; }")
        .same();
    assert_eq!(mark(&seen), "ax");
    let seen = to("/named/a")
        .server("location ~ ^/named/(?<name>.*)$ { push_subscriber; push_channel_id $name; add_header X-Mark n-$name; }")
        .same();
    assert_eq!(mark(&seen), "n-a");
}

#[test]
fn redirects_within_the_server() {
    let to = |target: &str| Scenario::new(Request::get(target));
    let sub = "push_subscriber; push_channel_id a;";
    let seen = to("/old").server("location = /old { rewrite ^ /sub?id=a last; }").same();
    assert_eq!(field(&seen, 6), "/sub");
    let broken = format!("location = /broken {{ rewrite ^ /other break; {sub} }}");
    assert_eq!(field(&to("/broken").server(&broken).same(), 6), "/other");
    let named =
        format!("location = /try {{ try_files /none @named; }} location @named {{ {sub} }}");
    assert_eq!(field(&to("/try").server(&named).same(), 6), "/try");
    to("/none").server("error_page 404 = /sub?id=a;").same();
    to("/arguments")
        .server("location = /arguments { set $args id=a; rewrite ^ /sub last; }")
        .same();
    let accel = "location = /app { proxy_pass http://127.0.0.1:@port@/accel; }
                 location = /accel { access_log off; add_header X-Accel-Redirect /sub?id=a; return 200; }";
    let seen = to("/app").server(accel).same();
    assert_eq!(field(&seen, 1), "200");
}

#[test]
fn what_was_decided_once_is_not_decided_again() {
    let limited = Scenario::to_sub()
        .http("limit_req_zone $binary_remote_addr zone=once:1m rate=1r/m;")
        .subscriber("limit_req zone=once;");
    let seen = limited.same();
    assert_eq!((field(&seen, 1), field(&seen, 16)), ("200", "PASSED"));
    if has_or_skip("http_auth_request") {
        let asked = Scenario::to_sub()
            .subscriber("auth_request /auth; auth_request_set $mark $sent_http_x_user; add_header X-Mark $mark;")
            .server("location = /auth { internal; add_header X-User me; log_subrequest on;
                     access_log @dir@/auth.log; return 204; }");
        asked.same();
    }
    let mirrored = Scenario::to_sub()
        .subscriber("mirror /mirrored;")
        .server("location = /mirrored { internal; return 204; }");
    mirrored.same();
    let counted = Scenario::to_sub()
        .http("limit_conn_zone $binary_remote_addr zone=counted:1m;")
        .subscriber("limit_conn counted 2;");
    counted.same();
}

#[test]
fn the_clients_address_is_the_one_that_realip_has_found() {
    let request = || Request::get(&subscriber("a")).header("X-Real-IP", "10.1.2.3");
    let realip = "set_real_ip_from 127.0.0.1;";
    for scenario in
        [Scenario::new(request()).http(realip), Scenario::new(request()).subscriber(realip)]
    {
        assert_eq!(field(&scenario.same(), 8), "10.1.2.3");
    }
    let mut proxied = b"PROXY TCP4 10.3.2.1 127.0.0.1 1000 80\r\n".to_vec();
    proxied.extend(request().to_bytes());
    let listen = "listen 127.0.0.1:@port2@ proxy_protocol;";
    for park in ["compact", "plain"] {
        let config = Config::push(1).http(&format!("push_park {park};")).server(listen);
        let config = config.http("log_format proxied '$proxy_protocol_addr';");
        let config = config.subscriber("access_log @dir@/proxied.log proxied;");
        let nginx = Nginx::start(config);
        let mut client = Client::connect(nginx.port2());
        client.send_bytes(&proxied);
        nginx.wait_for_subscribers("a", 1);
        nginx.publish("a", "one").expect_status(201);
        client.response().expect_status(200);
        wait::until_true("the line of the request", || {
            fs::read_to_string(nginx.dir().join("proxied.log")).is_ok_and(|log| log == "10.3.2.1\n")
        });
    }
}

#[test]
fn filters_see_the_reply() {
    let zipped = Request::get(&subscriber("a")).header("Accept-Encoding", "gzip");
    let seen = Scenario::new(zipped).http("gzip on; gzip_types text/plain;").same();
    assert!(seen.reply.is_some_and(|(head, _)| head.contains("Content-Encoding: gzip")));
    let limited = Scenario::to_sub().subscriber("limit_rate 10k;").same();
    assert_eq!(field(&limited, 1), "200");
    if has_or_skip("http_sub") {
        let changed = Scenario::to_sub().subscriber("sub_filter_types *; sub_filter more less;");
        assert!(changed
            .same()
            .reply
            .is_some_and(|(_, body)| body.starts_with(b"a message of less")));
    }
}

#[test]
fn what_is_sent_while_parked_is_answered_next() {
    for park in ["compact", "plain"] {
        let nginx = Nginx::start(Config::push(1).http(&format!("push_park {park};")));
        let mut client = nginx.park("a");
        client.send(&Request::get("/worker"));
        client.expect_silence();
        nginx.publish("a", "one").expect_status(201);
        assert_eq!(client.response().expect_status(200).text(), "one");
        assert_ne!(client.response().expect_status(200).text(), "");
        // Both at once: the second is in nginx's buffer when the first begins to wait.
        let two = [Request::get(&subscriber("b")).to_bytes(), Request::get("/worker").to_bytes()];
        client.send_bytes(&two.concat());
        nginx.wait_for_subscribers("b", 1);
        nginx.publish("b", "two").expect_status(201);
        assert_eq!(client.response().expect_status(200).text(), "two");
        assert_ne!(client.response().expect_status(200).text(), "");
        // Something is waiting to be read when the client goes.
        let mut client = nginx.park("c");
        client.send(&Request::get("/worker"));
        drop(client);
        nginx.wait_for_subscribers("c", 0);
    }
}

#[test]
fn a_client_polls_many_times_on_one_connection() {
    for park in ["compact", "plain"] {
        let nginx = Nginx::start(Config::push(1).http(&format!("push_park {park};")));
        let mut client = nginx.client();
        let mut cursor = support::Cursor::none();
        for number in 0..200 {
            client.send(&cursor.apply(Request::get(&subscriber("a"))));
            // Now and then the message is there first, and is published just as the request falls asleep.
            if number % 3 == 0 {
                nginx.wait_for_subscribers("a", 1);
            }
            nginx.publish("a", format!("message {number}"));
            let response = client.response().expect_status(200);
            assert_eq!(response.text(), format!("message {number}"));
            cursor = support::Cursor::after(&response);
        }
        wait::until_true("one line for each poll", || {
            nginx.access_log().iter().filter(|line| line.contains("/sub")).count() == 200
        });
    }
}

#[test]
fn parked_over_tls() {
    for park in ["compact", "plain"] {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("tls");
        make_certificate(&dir);
        let tls = format!(
            "listen 127.0.0.1:@port2@ ssl; ssl_certificate {0}/cert.pem; ssl_certificate_key {0}/key.pem;",
            dir.display()
        );
        let nginx = Nginx::start(Config::push(1).http(&format!("push_park {park};")).server(&tls));
        let urls: Vec<String> = ["a", "b"]
            .map(|id| format!("https://127.0.0.1:{}/sub?id={id}", nginx.port2()))
            .to_vec();
        let curl = std::process::Command::new("curl")
            .args(["-sk", "--max-time", "20"])
            .args(&urls)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("curl");
        for id in ["a", "b"] {
            nginx.wait_for_subscribers(id, 1);
            nginx.publish(id, format!("for {id};")).expect_status(201);
        }
        let output = curl.wait_with_output().expect("curl's output");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "for a;for b;");
    }
}

/// Private memory of a process, in bytes.
fn private_memory(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a process");
    let line = rollup.lines().find(|line| line.starts_with("Private_Dirty:")).expect("the figure");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("a number") << 10
}

/// Whether a tool that watches memory keeps the figures from meaning anything.
fn is_watched(pid: i32) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("a process");
    maps.contains("libasan") || maps.contains("valgrind")
}

fn memory_per_client(park: &str) -> Option<u64> {
    const CLIENTS: u64 = 2_000;
    process::allow_open_files(8192);
    let config = Config::push(1).main("worker_rlimit_nofile 8192;");
    let nginx = Nginx::start(config.http(&format!("push_park {park};")));
    let worker = nginx.workers()[0];
    if is_watched(worker) {
        eprintln!("skipped: memory is watched by a tool, and means nothing");
        return None;
    }
    let request = Request::get(&subscriber("a"))
        .header(
            "User-Agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        )
        .header("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
        .header("Accept-Language", "en-US,en;q=0.5")
        .header("Accept-Encoding", "gzip, deflate, br")
        .header("Referer", "http://127.0.0.1:8080/index.html")
        .header("Cookie", &"c".repeat(100));
    nginx.wait_for_subscribers("a", 0);
    let before = private_memory(worker);
    let clients: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = nginx.client();
            client.send(&request);
            client
        })
        .collect();
    nginx.wait_for_subscribers("a", CLIENTS);
    let after = private_memory(worker);
    let descriptors = process::descriptors(worker).len();
    drop(clients);
    nginx.wait_for_subscribers("a", 0);
    wait::until_true("the connections are closed", || {
        process::descriptors(worker).len() + CLIENTS as usize <= descriptors + 8
    });
    Some((after - before) / CLIENTS)
}

#[test]
fn a_compactly_parked_client_costs_little() {
    let (Some(compact), Some(plain)) = (memory_per_client("compact"), memory_per_client("plain"))
    else {
        return;
    };
    // Measured 1,150 to 1,250 and 9,900 bytes; the slack is for allocators.
    assert!(compact < 1_800, "{compact} bytes");
    assert!(plain > 7_000, "{plain} bytes: what is compared with?");
}
