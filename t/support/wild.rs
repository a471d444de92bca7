//! Clients that read slowly, vanish, talk nonsense, and ask for more before they are answered.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use super::http::Request;
use super::random::Random;
use super::websocket::{deflate, to_bytes, Frame, Handshake};

/// The channels that they share.
pub const CHANNELS: [&str; 5] = ["c0", "c1", "c2", "c3", "c4"];

/// The locations that they ask.
pub fn locations() -> String {
    let wild = "push_channel_id $arg_id; push_ping_interval 1s; push_subscriber_timeout 2s; push_max_message_buffer_length 5;";
    let part =
        "<!--#include virtual=\"/wild?id=c0\" --><!--#include virtual=\"/wild?id=$arg_id\" -->";
    format!(
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
    )
}

fn channels(random: &mut Random) -> String {
    let count = random.one_of(&[1, 1, 1, 2, 3]);
    let ids: Vec<&str> = (0..count).map(|_| random.one_of(&CHANNELS)).collect();
    ids.join(",")
}

/// A client does something and goes. Errors are no surprise.
pub fn misbehave(random: &mut Random, port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    stream.set_write_timeout(Some(Duration::from_millis(200)))?;
    if random.chance(30) {
        rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 4096)?;
    }
    for _ in 0..=random.below(3) {
        let ids = channels(random);
        match random.below(10) {
            0..=3 => stream.write_all(&subscriber(random, &ids))?,
            4..=6 => return talk(random, stream, &ids),
            7 => {
                let length = random.one_of(&[10, 10, 1000, 300_000]);
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
    let most = random.one_of(&[20, 20, 20, 2000]);
    for _ in 0..random.below(30) {
        for _ in 0..=random.below(most) {
            bytes.extend_from_slice(&frame(random));
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
    let channel = random.one_of(&CHANNELS);
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
    let mut buffer = vec![0; random.one_of(&[10, 1000, 100_000])];
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
        2 => thread::sleep(random.time(1500)),
        _ => {}
    }
    Ok(())
}
