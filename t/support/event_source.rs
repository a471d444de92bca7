//! EventSource (WHATWG HTML 9.2): a parser of event streams, and a client that shows what it reads.

use std::collections::VecDeque;
use std::io;

use super::body::{Body, Ended};
use super::http::{Client, Request, Response};

/// What an event stream is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A block with data.
    Event(Event),
    /// A line that begins with a colon: all that is after it.
    Comment(String),
    /// How many milliseconds to wait before the next connection.
    Retry(u64),
}

/// What a script in a browser would get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The last id that the stream has said.
    pub last_id: String,
    /// The id in the event's own block.
    pub id: Option<String>,
    /// The name; empty if there is none (a browser calls it `message`).
    pub name: String,
    /// The data, its lines parted by LF.
    pub data: String,
}

impl Item {
    /// The event. Panics if it is something else.
    #[track_caller]
    pub fn event(self) -> Event {
        match self {
            Item::Event(event) => event,
            other => panic!("not an event: {other:?}"),
        }
    }
}

/// Reads an event stream (9.2.6), in pieces of any size.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    first_line_is_read: bool,
    after_cr: bool,
    last_id: String,
    id: Option<String>,
    name: String,
    data: String,
    items: VecDeque<Item>,
}

impl Parser {
    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let is_second_of_crlf = self.after_cr && byte == b'\n';
            self.after_cr = byte == b'\r';
            match byte {
                _ if is_second_of_crlf => {}
                b'\r' | b'\n' => self.end_line(),
                _ => self.line.push(byte),
            }
        }
    }

    /// The next item that is complete.
    pub fn next(&mut self) -> Option<Item> {
        self.items.pop_front()
    }

    /// Everything in a stream that has ended.
    pub fn all(bytes: &[u8]) -> Vec<Item> {
        let mut parser = Parser::default();
        parser.feed(bytes);
        parser.items.into()
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let mut line = String::from_utf8_lossy(&line).into_owned();
        if !self.first_line_is_read {
            self.first_line_is_read = true;
            line = line.trim_start_matches('\u{feff}').to_owned();
        }
        if line.is_empty() {
            return self.dispatch();
        }
        if let Some(comment) = line.strip_prefix(':') {
            return self.items.push_back(Item::Comment(comment.to_owned()));
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        self.field(field, value.strip_prefix(' ').unwrap_or(value));
    }

    fn field(&mut self, name: &str, value: &str) {
        match name {
            "event" => self.name = value.to_owned(),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => {
                self.id = Some(value.to_owned());
                self.last_id = value.to_owned();
            }
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                if let Ok(milliseconds) = value.parse() {
                    self.items.push_back(Item::Retry(milliseconds));
                }
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        let (id, name) = (self.id.take(), std::mem::take(&mut self.name));
        let mut data = std::mem::take(&mut self.data);
        if data.pop().is_some() {
            let event = Event { last_id: self.last_id.clone(), id, name, data };
            self.items.push_back(Item::Event(event));
        }
    }
}

/// A client that listens to an event stream.
pub struct EventSource {
    body: Body,
    parser: Parser,
}

/// The request of a browser's EventSource.
pub fn request(target: &str) -> Request {
    Request::get(target).header("Accept", "text/event-stream")
}

impl EventSource {
    /// Opens a stream. Panics unless it is one.
    #[track_caller]
    pub fn open(port: u16, target: &str) -> Self {
        EventSource::send(Client::connect(port), &request(target))
    }

    /// Opens a stream behind the message with this id.
    #[track_caller]
    pub fn open_after(port: u16, target: &str, id: &str) -> Self {
        EventSource::send(Client::connect(port), &request(target).header("Last-Event-ID", id))
    }

    /// Opens a stream with a request of its own. Panics unless it is one.
    #[track_caller]
    pub fn send(client: Client, request: &Request) -> Self {
        let source = EventSource::try_send(client, request).expect("a reply");
        let response = &source.body.response;
        assert_eq!(response.status, 200, "{}", response.head);
        let content_type = response.header("Content-Type");
        assert_eq!(content_type, Some("text/event-stream; charset=utf-8"));
        source
    }

    /// Sends the request and reads the head of the reply, whatever it is.
    pub fn try_send(client: Client, request: &Request) -> io::Result<Self> {
        Ok(EventSource { body: Body::open(client, request)?, parser: Parser::default() })
    }

    /// The reply's head.
    pub fn response(&self) -> &Response {
        &self.body.response
    }

    /// The next item; nothing at the end.
    pub fn try_next(&mut self) -> io::Result<Option<Item>> {
        loop {
            if let Some(item) = self.parser.next() {
                return Ok(Some(item));
            }
            match self.body.read()? {
                Some(bytes) => self.parser.feed(&bytes),
                None => return Ok(None),
            }
        }
    }

    /// The next item. Panics if the stream ends.
    #[track_caller]
    pub fn item(&mut self) -> Item {
        match self.try_next() {
            Ok(Some(item)) => item,
            Ok(None) => panic!("the stream ended: {:?}", self.body.ended()),
            Err(error) => panic!("nothing came: {error}"),
        }
    }

    /// The next event; comments and retry values before it are left out.
    #[track_caller]
    pub fn event(&mut self) -> Event {
        loop {
            if let Item::Event(event) = self.item() {
                return event;
            }
        }
    }

    /// Panics unless the next event is a message with this data. Returns its id.
    #[track_caller]
    pub fn expect_message(&mut self, data: &str) -> String {
        let event = self.event();
        assert_eq!((event.name.as_str(), event.data.as_str()), ("", data));
        event.id.unwrap_or_else(|| panic!("{data:?} came without an id"))
    }

    /// Panics unless the stream ends now. Returns how.
    #[track_caller]
    pub fn expect_end(&mut self) -> Ended {
        match self.try_next() {
            Ok(None) => self.body.ended().expect("an end"),
            Ok(Some(item)) => panic!("the stream goes on: {item:?}"),
            Err(error) => panic!("the stream does not end: {error}"),
        }
    }

    /// The bytes of the stream up to these, which must come; what has come already is read first.
    ///
    /// Not to be mixed with the other ways to read.
    #[track_caller]
    pub fn bytes_until(&mut self, end: &str) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end.as_bytes()) {
            match self.body.read() {
                Ok(Some(more)) => bytes.extend_from_slice(&more),
                Ok(None) => panic!("ended after {:?}", String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
            }
        }
        String::from_utf8(bytes).expect("an event stream is UTF-8")
    }

    /// The body.
    pub fn body(&mut self) -> &mut Body {
        &mut self.body
    }

    /// How the stream ended, once it has.
    pub fn ended(&self) -> Option<Ended> {
        self.body.ended()
    }

    /// Gives the connection back.
    pub fn into_client(self) -> Client {
        self.body.into_client()
    }
}
