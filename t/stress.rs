//! Everything at once: clients of all transports that read slowly, vanish, talk nonsense and ask for more before they are
//! answered, while channels come and go, workers are replaced and killed. Whoever behaves gets everything.
//!
//! `PUSH_STRESS_SECONDS` says for how long (10), `PUSH_STRESS_SEED` makes the clients do the same again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::nginx::{has_or_skip, make_certificate};
use support::streams::{follow, Kind};
use support::tls::Tunnel;
use support::websocket::{deflate, to_bytes, Frame, Handshake};
use support::{load, Config, Nginx, Request};

/// Channels of those who misbehave.
const WILD: [&str; 5] = ["c0", "c1", "c2", "c3", "c4"];
/// How many clients misbehave at a time.
const CLIENTS: u64 = 24;
const ROUNDS: u32 = 2;
const WORKERS: usize = 2;

/// Numbers that are the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((self.0 >> 33) as usize) % end
    }

    fn one_of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }

    fn chance(&mut self, of_100: usize) -> bool {
        self.below(100) < of_100
    }

    fn channels(&mut self) -> String {
        let count = [1, 1, 1, 2, 3][self.below(5)];
        let ids: Vec<&str> = (0..count).map(|_| self.one_of(&WILD)).collect();
        ids.join(",")
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        (0..self.below(max)).map(|_| self.below(256) as u8).collect()
    }
}

fn config(tls: Option<&str>) -> Config {
    let wild = "push_channel_id $arg_id; push_ping_interval 1s; push_subscriber_timeout 2s; push_max_message_buffer_length 20;";
    let part =
        "<!--#include virtual=\"/wild?id=c0\" --><!--#include virtual=\"/wild?id=$arg_id\" -->";
    let listen = tls.map_or(String::new(), |dir| {
        format!(
            "listen 127.0.0.1:@port2@ ssl sndbuf=16k;
             ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem;"
        )
    });
    Config::push(WORKERS)
        .main("worker_shutdown_timeout 2s;")
        .listen("sndbuf=16k")
        .http("push_shared_memory_size 32m; push_channel_id_split_delimiter ',';")
        .http("push_max_message_buffer_length 100000; push_message_timeout 1h;")
        .http("client_body_buffer_size 32k; client_max_body_size 2m;")
        .http("send_timeout 1s; client_header_timeout 2s; client_body_timeout 2s; keepalive_timeout 2s; lingering_timeout 1s;")
        .subscriber("push_ping_interval 1s;")
        .server(&listen)
        .server(&format!(
            "location /wild {{ push_subscriber; {wild} }}
             location /plain {{ push_park plain; push_subscriber; {wild} }}
             location /stream {{ push_subscriber stream iframe multipart; {wild} }}
             location /iframe {{ push_subscriber iframe; {wild} }}
             location /last {{ push_subscriber; push_subscriber_concurrency last; {wild} }}
             location /few {{ push_subscriber; push_max_channel_subscribers 2; {wild} }}
             location /both {{ push_pubsub; push_websocket_channels *; {wild} }}
             location /post {{ push_publisher; {wild} }}
             location /page {{ ssi on; ssi_types *; return 200 '{part}'; }}
             location /again {{ error_page 410 404 409 = /wild; push_subscriber; {wild} }}"
        ))
}

/// A client does something and goes. Errors are no surprise.
fn misbehave(random: &mut Random, port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    stream.set_write_timeout(Some(Duration::from_millis(200)))?;
    if random.chance(30) {
        rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 4096)?;
    }
    for _ in 0..=random.below(3) {
        let ids = random.channels();
        match random.below(10) {
            0..=3 => stream.write_all(&subscriber(random, &ids))?,
            4..=6 => return talk(random, stream, &ids),
            7 => {
                let length = [10, 10, 1000, 300_000][random.below(4)];
                let request = Request::post(&format!("/post?id={ids}"), "m".repeat(length));
                stream.write_all(&request.to_bytes())?;
            }
            8 => {
                let request = Request::new("DELETE", &format!("/post?id={ids}"));
                stream.write_all(&request.to_bytes())?;
            }
            _ => stream.write_all(&random.bytes(200))?,
        }
        read_some(random, &mut stream);
    }
    leave(random, &stream)
}

fn subscriber(random: &mut Random, ids: &str) -> Vec<u8> {
    let place = random
        .one_of(&["wild", "plain", "stream", "iframe", "last", "few", "both", "page", "again"]);
    let accept = random.one_of(&[
        "*/*",
        "text/event-stream",
        "application/x-ndjson",
        "multipart/mixed",
        "multipart/x-mixed-replace",
    ]);
    let version = random.one_of(&["1.1", "1.1", "1.1", "1.0"]);
    let mut bytes = format!("GET /{place}?id={ids} HTTP/{version}\r\nHost: localhost\r\n");
    bytes += &format!("Accept: {accept}\r\n");
    bytes += random.one_of(&[
        "",
        "Connection: close\r\n",
        "Connection: keep-alive\r\n",
        "Last-Event-ID: 1700000000:0\r\n",
        "Content-Length: 3\r\n",
    ]);
    bytes += "\r\n";
    if random.chance(5) {
        bytes.truncate(random.below(bytes.len()));
    }
    bytes.into_bytes()
}

fn talk(random: &mut Random, mut stream: TcpStream, ids: &str) -> std::io::Result<()> {
    let place = random.one_of(&["wild", "plain", "both", "both", "post", "last"]);
    let mut handshake = Handshake::to(&format!("/{place}?id={ids}"));
    handshake = match random.below(3) {
        0 => handshake,
        1 => handshake.protocols("ws+meta.nchan"),
        _ => handshake.protocols("push.json"),
    };
    if random.chance(30) {
        handshake = handshake.extensions("permessage-deflate");
    }
    let mut bytes = handshake.request().to_bytes();
    if random.chance(70) {
        stream.write_all(&bytes)?;
        bytes.clear();
        read_some(random, &mut stream);
    }
    let most = [20, 20, 20, 2000][random.below(4)];
    for _ in 0..random.below(30) {
        for _ in 0..=random.below(most) {
            bytes.extend(frame(random));
        }
        stream.write_all(&bytes)?;
        bytes.clear();
        if random.chance(50) {
            read_some(random, &mut stream);
        }
    }
    leave(random, &stream)
}

fn frame(random: &mut Random) -> Vec<u8> {
    let channel = random.one_of(&WILD);
    match random.below(100) {
        0 => random.bytes(100),
        1 => to_bytes(&[Frame::close(1000, "")]),
        2 => to_bytes(&[Frame::text("half").unfinished()]),
        3 => to_bytes(&[Frame::binary(deflate(b"hello")).rsv(4)]),
        4..=30 => to_bytes(&[Frame::ping(vec![b'p'; random.below(126)])]),
        31..=40 => to_bytes(&[Frame::pong("")]),
        41..=60 => to_bytes(&[Frame::text(format!("{{\"subscribe\":\"{channel}\"}}"))]),
        61..=80 => to_bytes(&[Frame::text(format!("{{\"unsubscribe\":\"{channel}\"}}"))]),
        81..=95 => {
            let data = "w".repeat(random.below(3000));
            let text = format!("{{\"publish\":\"{data}\",\"channel\":\"{channel}\"}}");
            to_bytes(&[Frame::text(text)])
        }
        _ => to_bytes(&[Frame::text("x".repeat(random.below(100_000)))]),
    }
}

fn read_some(random: &mut Random, stream: &mut TcpStream) {
    let mut buffer = vec![0; [10, 1000, 100_000][random.below(3)]];
    for _ in 0..random.below(6) {
        if !matches!(stream.read(&mut buffer), Ok(1..)) {
            return;
        }
    }
}

fn leave(random: &mut Random, stream: &TcpStream) -> std::io::Result<()> {
    match random.below(4) {
        0 => rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?,
        1 => {
            stream.shutdown(Shutdown::Write)?;
            let _ = (&mut &*stream).read(&mut [0; 1000]);
        }
        2 => thread::sleep(Duration::from_millis(random.below(1500) as u64)),
        _ => {}
    }
    Ok(())
}

/// Well-behaved clients, who follow two channels to their ends.
fn behave(nginx: &mut Nginx, round: u32, disturb: impl FnOnce(&mut Nginx), over: &AtomicBool) {
    const KINDS: [Kind; 3] = [Kind::EventSource, Kind::WebSocket, Kind::JsonLines];
    let port = nginx.port();
    let ids = [format!("a{round}"), format!("b{round}")];
    let both = ids.join(",");
    let lists = [ids[0].as_str(), ids[1].as_str(), both.as_str()];
    let (acknowledged, received) = thread::scope(|scope| {
        let followers = lists.map(|list| {
            let streams = KINDS.map(|kind| scope.spawn(move || follow(kind, port, list)));
            let poll = scope.spawn(move || load::follow(port, list));
            streams.into_iter().chain([poll]).collect::<Vec<_>>()
        });
        let publishers = [0, 1].map(|number| {
            let id = &ids[number];
            scope.spawn(move || {
                let mut acknowledged = Vec::new();
                let mut part = 0;
                while !over.load(Ordering::Relaxed) {
                    let name = format!("{id}-{part}");
                    acknowledged.extend(load::publish(port, id, &name, 5));
                    part += 1;
                    thread::sleep(Duration::from_millis(20));
                }
                acknowledged
            })
        });
        disturb(nginx);
        let acknowledged = publishers.map(|publisher| publisher.join().unwrap());
        ids.iter().for_each(|id| load::publish_end(port, id));
        let received = followers
            .map(|group| group.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>());
        (acknowledged, received)
    });
    load::assert_complete(&acknowledged[..1], &received[0]);
    load::assert_complete(&acknowledged[1..], &received[1]);
    load::assert_complete(&acknowledged, &received[2]);
    for id in ids {
        nginx.wait_for_subscribers(&id, 0);
        nginx.request(&Request::new("DELETE", &format!("/pub?id={id}"))).expect_status(200);
    }
}

/// How many messages the zone holds when there is nothing else in it.
fn room(nginx: &Nginx) -> u64 {
    let mut client = nginx.client();
    for _ in 0..2200 {
        let request = Request::post("/pub?id=room", "r".repeat(16_000));
        client.request(&request).expect_status(202);
    }
    let stored = nginx.messages("room");
    nginx.request(&Request::new("DELETE", "/pub?id=room")).expect_status(200);
    stored
}

#[test]
fn whoever_behaves_gets_everything_and_nothing_is_left_behind() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("PUSH_STRESS_SECONDS").unwrap_or(10);
    let seed =
        number("PUSH_STRESS_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
    eprintln!("PUSH_STRESS_SEED={seed}");
    let dir = tempfile::tempdir().expect("a directory");
    let tls = dir.path().join("tls");
    let tls = has_or_skip("http_ssl").then(|| {
        make_certificate(&tls);
        tls.display().to_string()
    });
    let mut nginx = Nginx::start(config(tls.as_deref()));
    let ports = match &tls {
        Some(_) => vec![nginx.port(), nginx.port(), nginx.port(), Tunnel::to(nginx.port2()).port()],
        None => vec![nginx.port()],
    };
    let room_before = room(&nginx);
    for round in 0..ROUNDS {
        let until = Instant::now() + Duration::from_secs(seconds) / ROUNDS;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let port = ports[client as usize % ports.len()];
                let mut random = Random(seed ^ (client << 40) ^ (u64::from(round) << 32));
                random.below(2);
                let over = &over;
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let _ = misbehave(&mut random, port);
                    }
                });
            }
            let disturb = |nginx: &mut Nginx| {
                let mut turn = 0;
                while Instant::now() < until {
                    thread::sleep(Duration::from_millis(900));
                    match turn % 2 {
                        0 => {
                            nginx.reload();
                        }
                        _ => nginx.kill_worker(*nginx.workers().last().expect("a worker")),
                    }
                    turn += 1;
                }
                over.store(true, Ordering::Relaxed);
            };
            behave(&mut nginx, round, disturb, &over);
        });
        for id in WILD {
            nginx.wait_for_subscribers(id, 0);
            nginx.request(&Request::new("DELETE", &format!("/pub?id={id}")));
        }
        // Places of more workers than there were at first take a little.
        let room = room(&nginx);
        assert!(room + 4 >= room_before, "{room} of {room_before} after round {round}");
        eprintln!("round {round}: {room} of {room_before}");
    }
}
