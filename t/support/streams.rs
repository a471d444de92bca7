//! All kinds of streams behind one face, for what they share.

use std::thread;
use std::time::Duration;
use std::{fmt, io};

use serde_json::Value;

use super::body::{is_timeout, Ended};
use super::event_source::{self, EventSource, Item};
use super::http::{Client, Request, Response};
use super::lines::{self, Lines};
use super::load;
use super::push::subscriber;
use super::websocket::{Frame, Handshake, WebSocket, CLOSE};

/// A way to stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// EventSource.
    EventSource,
    /// WebSocket, with the subprotocol that carries ids.
    WebSocket,
    /// A JSON object per line.
    JsonLines,
    /// The messages alone, a line each; carries no ids, so nobody can resume it.
    Stream,
}

/// Why a stream ended, as the server tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The channel was deleted.
    Deleted,
    /// Another subscriber came.
    Conflict,
    /// The time to wait is over.
    Timeout,
    /// The worker ends.
    Shutdown,
    /// So many messages were missed on the open connection.
    Missed(u64),
}

/// What a stream brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A message.
    Message {
        /// Where to go on; plain streams have none.
        id: Option<String>,
        /// What it says.
        data: String,
    },
    /// Messages were missed before the next one.
    Gap {
        /// How many.
        missed: u64,
        /// It may have been more.
        at_least: bool,
    },
    /// One of several channels was deleted.
    Left(String),
    /// The end.
    End(End),
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// What the server said about it.
    pub why: Option<Why>,
    /// Whether it ended as its kind should: last chunk or close frame.
    pub orderly: bool,
}

impl Kind {
    /// The word for it in `push_subscriber`.
    pub fn word(self) -> &'static str {
        match self {
            Kind::EventSource => "eventsource",
            Kind::WebSocket => "websocket",
            Kind::JsonLines | Kind::Stream => "stream",
        }
    }

    /// Whether its messages carry ids.
    pub fn has_ids(self) -> bool {
        self != Kind::Stream
    }

    /// The status of a reply that begins it.
    pub fn status(self) -> u16 {
        match self {
            Kind::WebSocket => 101,
            _ => 200,
        }
    }

    /// The request that begins it, behind the message with this id.
    pub fn request(self, target: &str, after: Option<&str>) -> Request {
        let request = match self {
            // A browser's WebSocket cannot send header fields of its own.
            Kind::WebSocket => return self.handshake(target, after).request(),
            Kind::EventSource => event_source::request(target),
            Kind::JsonLines => lines::json_request(target),
            Kind::Stream => Request::get(target),
        };
        match after {
            Some(id) => request.header("Last-Event-ID", id),
            None => request,
        }
    }

    fn handshake(self, target: &str, after: Option<&str>) -> Handshake {
        let target = match after {
            Some(id) => format!("{target}&last_event_id={id}"),
            None => target.to_owned(),
        };
        Handshake::to(&target).protocols("ws+meta.nchan")
    }

    /// A listener on the channel at `/sub`. Panics unless its stream begins.
    #[track_caller]
    pub fn listen(self, port: u16, id: &str) -> Listener {
        self.listen_on(Client::connect(port), &subscriber(id), None)
    }

    /// A listener on the channel at `/sub` that goes on behind the message with this id.
    #[track_caller]
    pub fn listen_after(self, port: u16, id: &str, after: &str) -> Listener {
        self.listen_on(Client::connect(port), &subscriber(id), Some(after))
    }

    /// A listener on a connection. Panics unless its stream begins.
    #[track_caller]
    pub fn listen_on(self, client: Client, target: &str, after: Option<&str>) -> Listener {
        let listener = self.try_listen_on(client, target, after).expect("a reply");
        assert_eq!(listener.response().status, self.status(), "{}", listener.response().head);
        listener
    }

    /// Asks for a stream and reads the head of the reply, whatever it is.
    pub fn try_listen_on(
        self,
        client: Client,
        target: &str,
        after: Option<&str>,
    ) -> io::Result<Listener> {
        let request = self.request(target, after);
        let source = match self {
            Kind::EventSource => Source::EventSource(EventSource::try_send(client, &request)?),
            Kind::WebSocket => {
                Source::WebSocket(self.handshake(target, after).try_open_on(client)?)
            }
            Kind::JsonLines => Source::JsonLines(Lines::try_send(client, &request)?),
            Kind::Stream => Source::Stream(Lines::try_send(client, &request)?),
        };
        Ok(Listener { kind: self, source, why: None })
    }
}

enum Source {
    EventSource(EventSource),
    WebSocket(WebSocket),
    JsonLines(Lines),
    Stream(Lines),
}

/// A client that listens.
pub struct Listener {
    kind: Kind,
    source: Source,
    /// What the server has said about the end that follows.
    why: Option<Why>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Listener({:?})", self.kind)
    }
}

impl Listener {
    /// The head of the reply.
    pub fn response(&self) -> &Response {
        match &self.source {
            Source::EventSource(source) => source.response(),
            Source::WebSocket(socket) => &socket.response,
            Source::JsonLines(lines) | Source::Stream(lines) => lines.response(),
        }
    }

    /// The connection.
    pub fn client(&mut self) -> &mut Client {
        match &mut self.source {
            Source::EventSource(source) => source.body().client(),
            Source::WebSocket(socket) => socket.client(),
            Source::JsonLines(lines) | Source::Stream(lines) => lines.body().client(),
        }
    }

    /// Gives the connection away.
    pub fn into_client(self) -> Client {
        match self.source {
            Source::EventSource(source) => source.into_client(),
            Source::WebSocket(socket) => socket.into_client(),
            Source::JsonLines(lines) | Source::Stream(lines) => lines.into_client(),
        }
    }

    /// What comes next; pings and the like are left out.
    ///
    /// # Errors
    ///
    /// Nothing has come in the time that a test waits.
    pub fn try_next(&mut self) -> io::Result<News> {
        loop {
            let news = match &mut self.source {
                Source::EventSource(source) => match source.try_next()? {
                    None => Some(News::End(end(self.why, source.ended()))),
                    Some(Item::Event(event)) => match event.name.as_str() {
                        "gap" => Some(gap(&lines::parse(&event.data))),
                        "left" => Some(left(&lines::parse(&event.data)).expect("a channel")),
                        "end" => {
                            self.why = Some(why(&lines::parse(&event.data)["reason"]));
                            None
                        }
                        _ => Some(News::Message { id: event.id, data: event.data }),
                    },
                    Some(Item::Comment(comment)) => {
                        match comment.as_str() {
                            "" => {}
                            " timeout" => self.why = Some(Why::Timeout),
                            " shutdown" => self.why = Some(Why::Shutdown),
                            other => panic!("an unknown comment {other:?}"),
                        }
                        None
                    }
                    Some(Item::Retry(_)) => None,
                },
                Source::WebSocket(socket) => Some(websocket_news(socket)?),
                Source::JsonLines(lines) => match lines.try_next()? {
                    None => Some(News::End(end(self.why, lines.ended()))),
                    Some(line) if line.is_empty() => None,
                    Some(line) => {
                        let value = lines::parse(std::str::from_utf8(&line).expect("UTF-8"));
                        match value.get("end") {
                            Some(reason) => {
                                self.why = Some(why(reason));
                                None
                            }
                            None => Some(json_news(&value)),
                        }
                    }
                },
                Source::Stream(lines) => match lines.try_next()? {
                    None => Some(News::End(end(None, lines.ended()))),
                    Some(line) => {
                        let data = String::from_utf8(line).expect("UTF-8");
                        Some(News::Message { id: None, data })
                    }
                },
            };
            if let Some(news) = news {
                assert!(
                    self.why.is_none() || matches!(news, News::End(_)),
                    "after the end: {news:?}"
                );
                return Ok(news);
            }
        }
    }

    /// What comes next. Panics if nothing comes.
    #[track_caller]
    pub fn next(&mut self) -> News {
        match self.try_next() {
            Ok(news) => news,
            Err(error) => panic!("no news for {self:?}: {error}"),
        }
    }

    /// Panics unless a message with this data comes next. Returns its id.
    #[track_caller]
    pub fn expect_message(&mut self, expected: &str) -> Option<String> {
        match self.next() {
            News::Message { id, data } if data == expected => {
                assert_eq!(id.is_some(), self.kind.has_ids(), "the id of {expected:?}");
                id
            }
            News::Message { data, .. } => {
                let start: String = data.chars().take(80).collect();
                panic!("{self:?} got {start:?}, not {expected:?}")
            }
            other => panic!("{self:?} got {other:?}, not {expected:?}"),
        }
    }

    /// Panics unless the stream ends now, in order, and says why, if its kind can.
    #[track_caller]
    pub fn expect_end(&mut self, why: Why) {
        let why = (self.kind != Kind::Stream).then_some(why);
        assert_eq!(self.next(), News::End(End { why, orderly: true }), "{self:?}");
    }

    /// Panics if anything has come that is not read yet, or the connection has ended.
    ///
    /// Only where nothing but messages could come: an EventSource's first bytes must be read.
    #[track_caller]
    pub fn expect_silence(&mut self) {
        self.client().expect_silence();
    }
}

fn end(why: Option<Why>, ended: Option<Ended>) -> End {
    End { why, orderly: ended == Some(Ended::LastChunk) }
}

fn why(reason: &Value) -> Why {
    match reason.as_str() {
        Some("deleted") => Why::Deleted,
        Some("conflict") => Why::Conflict,
        Some("timeout") => Why::Timeout,
        Some("shutdown") => Why::Shutdown,
        _ => panic!("an unknown reason: {reason}"),
    }
}

fn gap(value: &Value) -> News {
    let missed = value["missed"].as_u64().unwrap_or_else(|| panic!("not a gap: {value}"));
    let at_least = value["at_least"].as_bool().unwrap_or_else(|| panic!("not a gap: {value}"));
    News::Gap { missed, at_least }
}

fn left(value: &Value) -> Option<News> {
    let channel = value.get("left")?.as_str()?;
    assert_eq!(value["reason"], "deleted");
    Some(News::Left(channel.to_owned()))
}

fn json_news(value: &Value) -> News {
    if value.get("missed").is_some() {
        return gap(value);
    }
    if let Some(left) = left(value) {
        return left;
    }
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let data = text("data").unwrap_or_else(|| panic!("not a message: {value}"));
    News::Message { id: text("id"), data }
}

fn websocket_news(socket: &mut WebSocket) -> io::Result<News> {
    let frame = match socket.try_frame_after_pings() {
        Ok(frame) => frame,
        Err(error) if is_timeout(&error) => return Err(error),
        Err(_) => return Ok(News::End(End { why: None, orderly: false })),
    };
    if frame.opcode == CLOSE {
        let why = close_meaning(&frame);
        // The other side may be gone already.
        let answer = Frame::new(CLOSE, frame.payload).to_bytes(Some(super::websocket::MASK));
        let _ = socket.client().try_send_bytes(&answer);
        socket.expect_end_of_connection();
        return Ok(News::End(End { why: Some(why), orderly: true }));
    }
    let message = match socket.try_message_from(frame) {
        Ok(message) => message,
        Err(error) if is_timeout(&error) => return Err(error),
        Err(_) => return Ok(News::End(End { why: None, orderly: false })),
    };
    assert!(message.text, "a binary message");
    let (head, data) = message.meta();
    let id = head.into_iter().find(|(name, _)| name == "id").map(|(_, value)| value);
    Ok(News::Message { id, data: String::from_utf8(data).expect("UTF-8") })
}

fn close_meaning(frame: &Frame) -> Why {
    let missed = |reason: &str| {
        let number = reason.strip_prefix("missed ")?.split(' ').next()?;
        number.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()
    };
    match (frame.close_code(), frame.close_reason()) {
        (Some(1001), "channel deleted") => Why::Deleted,
        (Some(1000), "timeout") => Why::Timeout,
        (Some(1008), "another subscriber came") => Why::Conflict,
        (Some(1012), "worker leaves") => Why::Shutdown,
        (Some(4000), reason) => Why::Missed(missed(reason).expect("how many were missed")),
        other => panic!("an unknown close: {other:?}"),
    }
}

/// Follows a channel from its oldest message to [`load::END`], reconnecting as often as it takes.
///
/// Panics if the server says that messages were missed, or is silent for too long.
pub fn follow(kind: Kind, port: u16, id: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let opened = Client::try_connect(port)
            .and_then(|client| kind.try_listen_on(client, &subscriber(id), after.as_deref()));
        let Ok(mut listener) = opened else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let response = listener.response();
        // A worker that leaves may refuse a handshake: a WebSocket's client tries again. A browser's
        // EventSource would not.
        if kind == Kind::WebSocket && response.status == 503 {
            continue;
        }
        assert_eq!(response.status, kind.status(), "{}", response.head);
        assert_eq!(response.header("Push-Missed"), None, "after {:?}", bodies.last());
        loop {
            match listener.next() {
                News::Message { data, .. } if data == load::END => return bodies,
                News::Message { id, data } => {
                    after = Some(id.expect("an id"));
                    bodies.push(data);
                }
                News::End(_) => break,
                News::Gap { missed, .. } => panic!("{missed} missed after {:?}", bodies.last()),
                News::Left(channel) => panic!("nobody has deleted {channel}"),
            }
        }
    }
}
