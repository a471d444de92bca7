//! Tests for the two ways to park a long-poll: what a client and the access log see is the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::Write;
use std::thread;

use support::nginx::has_or_skip;
use support::push::{publisher, subscriber};
use support::streams::Kind;
use support::websocket::{Frame, Handshake, MASK, PONG};
use support::{process, wait, Client, Config, Cursor, Nginx, Request};

/// Everything of a request that its head does not say, or that parking could disturb. The last field, whether the request
/// took a second or more, is not compared: it depends on the machine.
const LOG: &str = "log_format parking escape=json '$request|$status|$bytes_sent|$body_bytes_sent|\
    $request_length|$connection_requests|$uri|$args|$remote_addr|$remote_user|$host|$server_name|\
    $http_user_agent|$http_cookie|$sent_http_etag|$sent_http_x_mark|$limit_req_status|$pipe|\
    $request_method|$request_uri|$document_uri|$server_protocol|$request_completion|$http_x_twice|\
    $sent_http_content_type|$sent_http_connection|$sent_http_content_length|$waited';
    map $request_time $waited { \"~^0\\.\" short; default long; }";

/// How the wait of a parked request ends.
#[derive(Clone, Copy)]
enum End {
    Message,
    /// After more than a second.
    LateMessage,
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

/// What is not the same in two runs.
#[derive(Debug)]
struct Run {
    seen: Seen,
    /// Whether the log says that the request took a second or more.
    took_long: bool,
    /// Lines about sub-requests, `/worker` and publishers apart, in the log of the whole server.
    others: Vec<String>,
}

/// A request, where it goes, and what is special about it.
struct Scenario {
    config: Config,
    request: Vec<u8>,
    end: End,
}

impl Scenario {
    fn new(request: Request) -> Self {
        Self::raw(request.to_bytes())
    }

    fn raw(request: Vec<u8>) -> Self {
        Scenario { config: Config::push(1), request, end: End::Message }
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

    fn run(&self, park: &str) -> Run {
        let config = self.config.clone().http(LOG).http(&format!("push_park {park};"));
        let config = config.http("access_log @dir@/parking.log parking;");
        // Ends while the request in question waits: then a second has gone by.
        let config = config.server(
            "location = /second { access_log off; set $push_channel_id second; push_subscriber; push_subscriber_timeout 2s; }",
        );
        let nginx = Nginx::start(config.subscriber("access_log @dir@/parking.log parking;"));
        let mut client = nginx.client();
        client.send_bytes(&self.request);
        nginx.wait_for_subscribers("a", 1);
        match self.end {
            End::Message => publish(&nginx),
            End::LateMessage => {
                nginx.get("/second").expect_status(304);
                publish(&nginx);
            }
            End::Deletion => {
                nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
            }
            End::Timeout => {}
            End::ClientGone => {
                drop(client);
                nginx.wait_for_subscribers("a", 0);
                return Run::new(&nginx, None, false);
            }
        }
        let response = client.response();
        let (head, body) = response.bytes_without_date();
        let reply = Some((without_last_modified(&head), body.to_vec()));
        let kept = !response.head.contains("Connection: close") && is_kept(&mut client);
        Run::new(&nginx, reply, kept)
    }

    /// Sees the same with both ways to park.
    fn same(self) -> Seen {
        let [compact, _plain] = self.same_runs();
        compact.seen
    }

    fn same_runs(self) -> [Run; 2] {
        let (compact, plain) = (self.run("compact"), self.run("plain"));
        assert_eq!(compact.seen, plain.seen);
        [compact, plain]
    }
}

impl Run {
    /// Reads the log's lines about subscribers: exactly one for each request.
    fn new(nginx: &Nginx, reply: Option<(String, Vec<u8>)>, kept: bool) -> Self {
        let read = || {
            let log = fs::read_to_string(nginx.dir().join("parking.log")).unwrap_or_default();
            let about = |line: &&str| !line.contains("/pub") && !line.contains("/worker");
            let lines: Vec<String> = log.lines().filter(about).map(str::to_owned).collect();
            (!lines.is_empty()).then_some(lines)
        };
        let lines = wait::until("a line in the log", read);
        let took_long = lines[0].ends_with("|long");
        let without_last = |line: &String| line.rsplit_once('|').unwrap_or_default().0.to_owned();
        let log = lines.iter().map(without_last).collect();
        let other = fs::read_to_string(nginx.dir().join("others.log")).unwrap_or_default();
        let others = other.lines().map(str::to_owned).collect();
        Run { seen: Seen { reply, kept, log }, took_long, others }
    }
}

fn publish(nginx: &Nginx) {
    let request = Request::post(&publisher("a"), "a message of more than twenty bytes");
    let request = request.header("Content-Type", "text/plain");
    nginx.request(&request).expect_status(201);
}

fn is_kept(client: &mut Client) -> bool {
    client.try_request(&Request::get("/worker")).is_ok_and(|response| response.text() != "")
}

/// The second in which a message was published is not the same in two runs.
fn without_last_modified(head: &str) -> String {
    head.lines().filter(|line| !line.starts_with("Last-Modified:")).collect::<Vec<_>>().join("\n")
}

fn field(seen: &Seen, place: usize) -> &str {
    seen.log[0].split('|').nth(place).unwrap_or_default()
}

fn mark(seen: &Seen) -> &str {
    field(seen, 15)
}

fn to(target: &str) -> Scenario {
    Scenario::new(Request::get(target))
}

#[test]
fn a_message_a_deletion_a_timeout_and_a_client_that_goes() {
    let seen = Scenario::to_sub().same();
    assert_eq!((field(&seen, 1), field(&seen, 5), seen.kept), ("200", "1", true));
    assert_eq!(seen.log.len(), 1, "{:?}", seen.log);
    let seen = Scenario::to_sub().end(End::Deletion).same();
    assert_eq!((field(&seen, 1), seen.kept), ("410", true));
    let seen = Scenario::to_sub().end(End::ClientGone).same();
    assert_eq!((field(&seen, 1), seen.log.len()), ("499", 1));
}

#[test]
fn the_time_in_the_log_is_that_since_the_client_asked() {
    let late = Scenario::to_sub().subscriber("push_subscriber_timeout 5s;").end(End::Timeout);
    for run in late.same_runs() {
        assert_eq!((field(&run.seen, 1), run.seen.kept, run.took_long), ("304", true, true));
    }
    for run in Scenario::to_sub().end(End::LateMessage).same_runs() {
        assert_eq!((field(&run.seen, 1), run.took_long), ("200", true));
    }
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
fn heads_that_are_just_not_too_large() {
    // A line of a header must fit into one of the large buffers. Nothing may make it longer than it came.
    let limits = "client_header_buffer_size 64; large_client_header_buffers 4 512;";
    let head = |target: &str, cookie: usize| {
        let cookie = "c".repeat(cookie);
        format!("GET {target} HTTP/1.1\r\nHost:localhost\r\nCookie:{cookie}\r\n\r\n").into_bytes()
    };
    let at_once = "location = /at-once { push_subscriber interval-poll; push_channel_id a; }";
    let nginx = Nginx::start(Config::push(1).http(limits).server(at_once));
    let is_taken = |length: &usize| {
        let mut client = nginx.client();
        client.send_bytes(&head("/at-once", *length));
        client.response().status == 304
    };
    let longest = (400..600).rev().find(is_taken).expect("a length that nginx takes");
    for length in [longest - 1, longest] {
        let seen = Scenario::raw(head("/sub?id=a", length)).http(limits).same();
        assert_eq!(field(&seen, 13).len(), length);
    }
}

#[test]
fn heads_that_are_written_in_another_way() {
    for head in [
        "GET /sub?id=a HTTP/1.1\nHost: localhost\nUser-Agent:none\n\n",
        "\r\n\r\nGET http://LOCALHOST/sub?id=a HTTP/1.1\r\nhOST:   localhost   \r\nX-Empty:\r\n\r\n",
        "GET  //./sub?id=a&b=%20c HTTP/1.1\r\nHost: localhost\r\nhas_underscore: 1\r\n\r\n",
        "GET /x/../sub?id=a#part HTTP/1.1\r\nHost: localhost:1\r\nContent-Length: 0\r\n\r\n",
    ] {
        let seen = Scenario::raw(head.into()).same();
        assert_eq!((field(&seen, 1), field(&seen, 6)), ("200", "/sub"), "{head}");
    }
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
        ("keepalive_timeout 75s 60s;", true),
        ("keepalive_disable safari;", true),
        ("lingering_close always;", true),
    ] {
        let seen = Scenario::to_sub().subscriber(text).same();
        assert_eq!(seen.kept, kept, "{text}");
    }
    let safari = get().header(
        "User-Agent",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/17.0 Safari/605.1.15",
    );
    let seen = Scenario::new(safari).subscriber("keepalive_disable safari;").same();
    assert!(!seen.kept);
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
fn variables_that_have_the_name_of_a_part_of_the_head_keep_their_values() {
    for name in ["$http_x_mine", "$arg_mine", "$cookie_mine"] {
        let text = format!("set {name} m-$arg_id; add_header X-Mark {name};");
        assert_eq!(mark(&Scenario::to_sub().subscriber(&text).same()), "m-a", "{name}");
    }
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
    let seen = to("/channel/a/x")
        .server("location ~ ^/channel/(.*)/(.*)$ { push_subscriber; push_channel_id $1; add_header X-Mark $1$2; }")
        .same();
    assert_eq!(mark(&seen), "ax");
    let seen = to("/named/a")
        .server("location ~ ^/named/(?<name>.*)$ { push_subscriber; push_channel_id $name; add_header X-Mark n-$name; }")
        .same();
    assert_eq!(mark(&seen), "n-a");
    // What is not evaluated before the log is written.
    let seen = to("/late/a")
        .http("map '' $late { default $1; }")
        .server("location ~ ^/late/(.*)$ { push_subscriber; push_channel_id $1; add_header X-Mark l-$late; }")
        .same();
    assert_eq!(mark(&seen), "l-a");
}

#[test]
fn regular_expressions_find_room_for_their_captures_after_the_wait() {
    let seen = to("/channel/a")
        .http("map $http_user_agent $many { '~^(?<c1>.)(?<c2>.)(?<c3>.)(?<c4>.)(?<c5>.)(?<c6>.)' $c1$c2$c3$c4$c5$c6; }")
        .server("location ~ ^/channel/(.*)$ { push_subscriber; push_channel_id $1; add_header X-Mark $many-$1; }");
    let request = Request::get("/channel/a").header("User-Agent", "abcdef");
    let seen = Scenario { request: request.to_bytes(), ..seen }.same();
    assert_eq!(mark(&seen), "abcdef-a");
}

#[test]
fn redirects_within_the_server() {
    let sub = "push_subscriber; push_channel_id a;";
    let seen = to("/old").server("location = /old { rewrite ^ /sub?id=a last; }").same();
    assert_eq!(field(&seen, 6), "/sub");
    let broken = format!("location = /broken {{ rewrite ^ /other break; {sub} }}");
    assert_eq!(field(&to("/broken").server(&broken).same(), 6), "/other");
    let named =
        format!("location = /try {{ try_files /none @named; }} location @named {{ {sub} }}");
    assert_eq!(field(&to("/try").server(&named).same(), 6), "/try");
    to("/none").server("error_page 404 = /sub?id=a;").same();
    to("/none").server("error_page 404 /sub?id=a;").same();
    to("/arguments")
        .server("location = /arguments { set $args id=a; rewrite ^ /sub last; }")
        .same();
    let seen = to("/arguments?id=b")
        .server(&format!("location = /arguments {{ set $args x=y; {sub} }}"))
        .same();
    assert_eq!(field(&seen, 7), "x=y");
    let accel = "location = /app { proxy_pass http://127.0.0.1:@port@/accel; }
                 location = /accel { access_log off; add_header X-Accel-Redirect /sub?id=a; return 200; }";
    let seen = to("/app").server(accel).same();
    assert_eq!(field(&seen, 1), "200");
}

#[test]
fn what_was_decided_once_is_not_decided_again() {
    let limit = "limit_req_zone $binary_remote_addr zone=once:1m rate=1r/m;";
    let seen = Scenario::to_sub().http(limit).subscriber("limit_req zone=once;").same();
    assert_eq!((field(&seen, 1), field(&seen, 16)), ("200", "PASSED"));
    let dry = "limit_req zone=once; limit_req_dry_run on;";
    let seen = Scenario::to_sub().http(limit).subscriber(dry).same();
    assert_eq!((field(&seen, 1), field(&seen, 16)), ("200", "PASSED"));
    let sub = "location = /any { push_subscriber; push_channel_id a; satisfy any; allow all; auth_basic push; auth_basic_user_file @dir@/none; }";
    assert_eq!(field(&to("/any").server(sub).same(), 1), "200");
    let counted = Scenario::to_sub()
        .http("limit_conn_zone $binary_remote_addr zone=counted:1m;")
        .subscriber("limit_conn counted 2;");
    counted.same();
}

#[test]
fn sub_requests_are_made_once() {
    let others = "log_subrequest on; access_log @dir@/others.log test;";
    if has_or_skip("http_auth_request") {
        let asked = Scenario::to_sub()
            .subscriber("auth_request /auth; auth_request_set $mark $uri; add_header X-Mark $mark;")
            .server(&format!("location = /auth {{ internal; {others} return 204; }}"));
        let [compact, plain] = asked.same_runs();
        assert_eq!((mark(&compact.seen), compact.others.len()), ("/auth", 1));
        assert_eq!(compact.others, plain.others);
        let proxied = Scenario::to_sub()
            .subscriber("auth_request /auth; auth_request_set $mark $upstream_http_x_user; add_header X-Mark $mark;")
            .server("location = /auth { internal; proxy_pass http://127.0.0.1:@port@/backend; }")
            .server(&format!("location = /backend {{ add_header X-User me; {others} return 204; }}"));
        let [compact, plain] = proxied.same_runs();
        assert_eq!((mark(&compact.seen), compact.others.len()), ("me", 1));
        assert_eq!(compact.others, plain.others);
    }
    let mirrored = Scenario::to_sub()
        .subscriber("mirror /mirrored;")
        .server(&format!("location = /mirrored {{ internal; {others} return 204; }}"));
    for run in mirrored.same_runs() {
        assert_eq!(run.others.len(), 1, "{:?}", run.others);
    }
    // nginx writes the request's only line there, after the wait.
    let seen = Scenario::to_sub()
        .subscriber("post_action /after;")
        .server("location = /after { internal; return 204; }")
        .same();
    assert_eq!((seen.log.len(), field(&seen, 6)), (1, "/after"), "{:?}", seen.log);
}

#[test]
fn the_clients_address_is_the_one_that_realip_has_found() {
    let request = || Request::get(&subscriber("a")).header("X-Real-IP", "10.1.2.3");
    let realip = "set_real_ip_from 127.0.0.1; add_header X-Mark $realip_remote_addr;";
    for scenario in
        [Scenario::new(request()).http(realip), Scenario::new(request()).subscriber(realip)]
    {
        let seen = scenario.same();
        assert_eq!((field(&seen, 8), mark(&seen)), ("10.1.2.3", "127.0.0.1"));
    }
    let mut proxied = b"PROXY TCP4 10.3.2.1 127.0.0.1 1000 80\r\n".to_vec();
    proxied.extend(request().to_bytes());
    let listen = "listen 127.0.0.1:@port2@ proxy_protocol;";
    for realip in ["", "set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;"] {
        for park in ["compact", "plain"] {
            let config = Config::push(1).http(&format!("push_park {park};")).server(listen);
            let config = config.http("log_format proxied '$proxy_protocol_addr $remote_addr';");
            let config = config.subscriber("access_log @dir@/proxied.log proxied;");
            let nginx = Nginx::start(config.subscriber(realip));
            let mut client = Client::connect(nginx.port2());
            client.send_bytes(&proxied);
            nginx.wait_for_subscribers("a", 1);
            nginx.publish("a", "one").expect_status(201);
            client.response().expect_status(200);
            let address = if realip.is_empty() { "127.0.0.1" } else { "10.3.2.1" };
            let line = format!("10.3.2.1 {address}\n");
            wait::until_true("the line of the request", || {
                fs::read_to_string(nginx.dir().join("proxied.log")).is_ok_and(|log| log == line)
            });
        }
    }
}

#[test]
fn filters_see_the_reply() {
    let zipped = Request::get(&subscriber("a")).header("Accept-Encoding", "gzip");
    let seen = Scenario::new(zipped).http("gzip on; gzip_types text/plain;").same();
    assert!(seen.reply.is_some_and(|(head, _)| head.contains("Content-Encoding: gzip")));
    let limited = Scenario::to_sub().subscriber("limit_rate 10k;").same();
    assert_eq!(field(&limited, 1), "200");
    let limited = Scenario::to_sub().subscriber("set $limit_rate 10k;").same();
    assert_eq!(field(&limited, 1), "200");
    if has_or_skip("http_sub") {
        let changed = Scenario::to_sub().subscriber("sub_filter_types *; sub_filter more less;");
        assert!(changed
            .same()
            .reply
            .is_some_and(|(_, body)| body.starts_with(b"a message of less")));
    }
    if has_or_skip("http_addition") {
        let longer = Scenario::to_sub()
            .subscriber("add_after_body /after; addition_types *;")
            .server("location = /after { return 200 'and more'; }");
        assert!(longer.same().reply.is_some_and(|(_, body)| body.ends_with(b"bytesand more")));
    }
    let expiring = Scenario::to_sub().subscriber("expires epoch;").same();
    assert!(expiring.reply.is_some_and(|(head, _)| head.contains("Cache-Control: no-cache")));
}

#[test]
fn a_part_of_a_page_waits_too() {
    // The page is made of a sub-request that waits: nothing of it can be ended before.
    let page = to("/page").server(
        "location = /page { ssi on; ssi_types *; default_type text/plain; return 200 'page: <!--#include virtual=\"/sub?id=a\" -->'; }",
    );
    let seen = page.same();
    assert!(seen
        .reply
        .is_some_and(|(_, body)| body == b"page: a message of more than twenty bytes"));
}

/// Waits until a process has nothing to do: seen waiting, many times in a row.
fn expect_rest(pid: i32) {
    let mut count = 0;
    wait::until_true("a worker that rests", || {
        count = if process::is_waiting(pid) { count + 1 } else { 0 };
        count == 10
    });
}

#[test]
fn a_worker_rests_also_if_it_is_told_of_bytes_again_and_again() {
    for (method, park) in [("poll", "compact"), ("poll", "plain"), ("select", "compact")] {
        if !has_or_skip(method) {
            continue;
        }
        let config = Config::push(1).events(&format!("use {method}; worker_connections 512;"));
        let config = config.http(&format!("push_park {park};")).listen("sndbuf=16k rcvbuf=64k");
        let nginx = Nginx::start(config.publisher("push_message_buffer_length 1000;"));
        let worker = nginx.workers()[0];

        // A request behind the one that waits, which has its turn.
        let mut client = nginx.client();
        let request = Request::get(&subscriber("poll"));
        client.send_bytes(&[request.to_bytes(), request.to_bytes()].concat());
        nginx.wait_for_subscribers("poll", 1);
        expect_rest(worker);
        nginx.publish("poll", "one").expect_status(201);
        for _ in 0..2 {
            assert_eq!(client.response().expect_status(200).text(), "one");
        }
        expect_rest(worker);

        // One that comes while the first one waits.
        let mut client =
            nginx.park_after("poll", &Cursor::after(&nginx.poll("poll", &Cursor::none())));
        client.send(&request);
        expect_rest(worker);
        nginx.publish("poll", "two").expect_status(201);
        assert_eq!(client.response().expect_status(200).text(), "two");
        assert_eq!(client.response().expect_status(200).text(), "one");

        // A stream whose client says something, reads nothing for long, and then all.
        let mut stream = Kind::EventSource.listen(nginx.port(), "stream");
        stream.client().limit_receive_buffer(64 << 10);
        stream.client().send(&request);
        expect_rest(worker);
        let body = "x".repeat(10_000);
        for _ in 0..60 {
            nginx.publish("stream", body.as_str());
        }
        expect_rest(worker);
        for _ in 0..60 {
            stream.expect_message(&body);
        }
        expect_rest(worker);

        // A WebSocket whose client asks for more than it takes.
        let mut socket = Handshake::to(&subscriber("socket")).open(nginx.port());
        let ping = Frame::ping([b'p'; 125]).to_bytes(Some(MASK));
        socket.client().limit_receive_buffer(64 << 10);
        let mut sender = socket.client().sender();
        let sending = thread::spawn(move || sender.write_all(&ping.repeat(4_000)));
        wait::until_true("replies that are not taken", || socket.client().has_bytes());
        expect_rest(worker);
        let mut pongs = 0;
        while pongs < 4_000 {
            pongs += usize::from(socket.frame().opcode == PONG);
        }
        sending.join().unwrap().unwrap();
        expect_rest(worker);
        nginx.publish("socket", "last").expect_status(201);
        while socket.message().data != b"last" {}
        drop((client, stream, socket));
        nginx.wait_for_subscribers("socket", 0);
        // As with nginx's own handlers: who has said something is found to have gone when it is sent something.
        wait::until_true("the end of the stream", || {
            nginx.publish("stream", "x");
            nginx.subscribers("stream") == 0
        });
    }
}

#[test]
fn a_stream_has_its_trailer() {
    for park in ["compact", "plain"] {
        let location = "location = /s { push_subscriber stream; push_channel_id $arg_id;
            add_trailer X-End done; }";
        let config = Config::push(1).http(&format!("push_park {park};"));
        let nginx = Nginx::start(config.server(location));
        let mut client = nginx.client();
        client.send(&Request::get("/s?id=a"));
        client.head_response().expect_status(200);
        nginx.wait_for_subscribers("a", 1);
        nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
        let mut rest = Vec::new();
        while !rest.ends_with(b"\r\n\r\n") {
            rest.extend(client.try_some().unwrap().expect("the connection stays"));
        }
        assert_eq!(String::from_utf8_lossy(&rest), "0\r\nX-End: done\r\n\r\n", "{park}");
    }
}
