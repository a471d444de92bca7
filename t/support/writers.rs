//! Publishers by every means who keep a book of what was acknowledged.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::books::{Mark, Written};
use super::http::{Client, Request};
use super::lines;
use super::random::Random;
use super::wait;
use super::websocket::{Frame, Handshake, WebSocket, CLOSE, MASK};

/// A means to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pen {
    /// POST, each on a connection of its own.
    Post,
    /// POST and PUT on a connection that stays.
    Kept,
    /// A WebSocket: each message is answered with the channel's info.
    Socket,
    /// A WebSocket with commands.
    Control,
}

/// Longer bodies are put into files where `client_body_buffer_size` is 32k: nginx allows a quarter more.
pub const FILE: usize = 40 << 10;

/// A publisher.
#[derive(Debug)]
pub struct Writer<'a> {
    /// By what means.
    pub pen: Pen,
    /// Where nginx listens.
    pub port: u16,
    /// The location.
    pub location: &'static str,
    /// Each message goes to all of these.
    pub channels: Vec<String>,
    /// Who it is.
    pub number: usize,
    /// The lengths of messages: one of these at most, or just one of those above [`FILE`]; each as often as it is here.
    pub lengths: &'a [usize],
    /// It begins with so many messages of the greatest length, without resting.
    pub first: usize,
    /// How many milliseconds it rests after each message at most.
    pub pause: usize,
    /// What it does by chance.
    pub random: Random,
}

impl Writer<'_> {
    /// Publishes until it is over.
    pub fn write(mut self, over: &AtomicBool) -> Written {
        let mut acknowledged = Vec::new();
        let mut line = Line::default();
        let longest = self.lengths.iter().copied().max().unwrap_or_default();
        for number in 0..self.first {
            acknowledged.push(publish(&self, &mut line, number, longest));
        }
        while !over.load(Ordering::Relaxed) {
            let most = self.random.one_of(self.lengths);
            let length = match most > FILE {
                true => most,
                false => self.random.below(most + 1),
            };
            let number = acknowledged.len();
            acknowledged.push(publish(&self, &mut line, number, length));
            thread::sleep(self.random.time(self.pause));
        }
        Written { writer: self.number, channels: self.channels, acknowledged }
    }

    /// Publishes a single message.
    pub fn write_one(self) {
        publish(&self, &mut Line::default(), 0, 0);
    }
}

/// Publishes until it is acknowledged. Returns the number of the attempt.
fn publish(writer: &Writer<'_>, line: &mut Line, number: usize, length: usize) -> usize {
    // nginx may be starting anew: that may take as long as anything may.
    let patience = 2 * wait::patience();
    let begin = Instant::now();
    let mut attempt = 0;
    loop {
        let body = Mark { writer: writer.number, number, attempt }.body(length);
        let target = format!("{}?id={}", writer.location, writer.channels.join(","));
        let result = match writer.pen {
            Pen::Post => post(writer.port, &target, body),
            Pen::Kept => line.post(writer.port, &target, body, number),
            Pen::Socket => line.send(writer.port, &target, &body),
            Pen::Control => line.command(writer.port, &target, &body, number),
        };
        if result.is_ok() {
            return attempt;
        }
        attempt += 1;
        assert!(
            begin.elapsed() < patience,
            "message {number} of {writer:?} was not acknowledged in {attempt} attempts"
        );
        *line = Line::default();
        thread::sleep(Duration::from_millis(5));
    }
}

fn post(port: u16, target: &str, body: String) -> io::Result<()> {
    let request = Request::post(target, body).header("Content-Type", "text/plain");
    let request = request.header("Connection", "close");
    acknowledged(&mut Client::try_connect(port)?, &request)
}

fn acknowledged(client: &mut Client, request: &Request) -> io::Result<()> {
    let response = client.try_request(request)?;
    match response.status {
        201 | 202 => Ok(()),
        // The zone is being replaced.
        503 => Err(ErrorKind::ConnectionAborted.into()),
        _ => panic!("not accepted:\n{}", response.head),
    }
}

/// A connection that stays.
#[derive(Default)]
struct Line {
    client: Option<Client>,
    socket: Option<WebSocket>,
}

impl Line {
    fn post(&mut self, port: u16, target: &str, body: String, number: usize) -> io::Result<()> {
        let method = ["POST", "PUT"][number % 2];
        let request = Request::new(method, target).body(body).header("Content-Type", "text/plain");
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::try_connect(port)?,
        };
        acknowledged(&mut client, &request)?;
        self.client = Some(client).filter(|client| !client.is_closing());
        Ok(())
    }

    fn socket(&mut self, port: u16, handshake: &Handshake) -> io::Result<&mut WebSocket> {
        if self.socket.is_none() {
            let socket = handshake.try_open_on(Client::try_connect(port)?)?;
            match socket.response.status {
                101 => self.socket = Some(socket),
                503 => return Err(ErrorKind::ConnectionAborted.into()),
                _ => panic!("not opened:\n{}", socket.response.head),
            }
        }
        Ok(self.socket.as_mut().expect("just opened"))
    }

    /// Sends a frame and reads the answer.
    fn ask(socket: &mut WebSocket, text: &str) -> io::Result<String> {
        socket.client().try_send_bytes(&Frame::text(text).to_bytes(Some(MASK)))?;
        let frame = socket.try_frame_after_pings()?;
        if frame.opcode == CLOSE {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        Ok(socket.try_message_from(frame)?.as_text().to_owned())
    }

    fn send(&mut self, port: u16, target: &str, body: &str) -> io::Result<()> {
        let answer = Line::ask(self.socket(port, &Handshake::to(target))?, body)?;
        assert!(answer.contains("queued messages: "), "{answer:?}");
        Ok(())
    }

    fn command(&mut self, port: u16, target: &str, body: &str, number: usize) -> io::Result<()> {
        let handshake = Handshake::to(target).protocols("push.json");
        let command = json!({"publish": body, "type": "text/plain", "request": number});
        let answer = Line::ask(self.socket(port, &handshake)?, &command.to_string())?;
        let answer = lines::parse(&answer);
        assert_eq!(answer["request"], number, "{answer}");
        match answer.get("error") {
            None => assert!(answer.get("published").is_some(), "{answer}"),
            Some(error) => {
                assert_eq!(error, 503, "{answer}");
                return Err(ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(())
    }
}
