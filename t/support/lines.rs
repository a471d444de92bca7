//! A client for streams of lines: plain ones and JSON.

use std::collections::VecDeque;
use std::io;

use serde_json::Value;

use super::body::{Body, Ended};
use super::http::{Client, Request, Response};

/// A stream whose messages end with a separator.
pub struct Lines {
    body: Body,
    separator: Vec<u8>,
    rest: Vec<u8>,
    lines: VecDeque<Vec<u8>>,
}

/// The request of a client that wants JSON lines.
pub fn json_request(target: &str) -> Request {
    Request::get(target).header("Accept", "application/x-ndjson")
}

impl Lines {
    /// Opens a stream. Panics unless the reply is 200.
    #[track_caller]
    pub fn open(port: u16, request: &Request) -> Self {
        Lines::send(Client::connect(port), request)
    }

    /// Opens a stream on a connection. Panics unless the reply is 200.
    #[track_caller]
    pub fn send(client: Client, request: &Request) -> Self {
        let lines = Lines::try_send(client, request).expect("a reply");
        assert_eq!(lines.response().status, 200, "{}", lines.response().head);
        lines
    }

    /// Sends the request and reads the head of the reply, whatever it is.
    pub fn try_send(client: Client, request: &Request) -> io::Result<Self> {
        let body = Body::open(client, request)?;
        Ok(Lines { body, separator: b"\n".to_vec(), rest: Vec::new(), lines: VecDeque::new() })
    }

    /// Messages end with this instead of a line feed.
    pub fn separated_by(mut self, separator: &str) -> Self {
        self.separator = separator.as_bytes().to_vec();
        self
    }

    /// The reply's head.
    pub fn response(&self) -> &Response {
        &self.body.response
    }

    /// The next line without its end; nothing at the end of the stream.
    pub fn try_next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Ok(Some(line));
            }
            let Some(bytes) = self.body.read()? else {
                return Ok(None);
            };
            // A separator may begin in the bytes that were there, but not far from their end.
            let mut from = self.rest.len().saturating_sub(self.separator.len());
            self.rest.extend_from_slice(&bytes);
            while let Some(at) = find(&self.rest[from..], &self.separator) {
                let after = self.rest.split_off(from + at + self.separator.len());
                let mut line = std::mem::replace(&mut self.rest, after);
                line.truncate(line.len() - self.separator.len());
                self.lines.push_back(line);
                from = 0;
            }
        }
    }

    /// The next line. Panics if the stream ends.
    #[track_caller]
    pub fn line(&mut self) -> Vec<u8> {
        match self.try_next() {
            Ok(Some(line)) => line,
            Ok(None) => panic!("ended with {:?}; rest: {:?}", self.ended(), self.rest),
            Err(error) => panic!("{error}; rest: {:?}", self.rest),
        }
    }

    /// The next line as text.
    #[track_caller]
    pub fn text(&mut self) -> String {
        String::from_utf8(self.line()).expect("a line of text")
    }

    /// The next line that is not empty, as JSON.
    #[track_caller]
    pub fn json(&mut self) -> Value {
        loop {
            let line = self.text();
            if !line.is_empty() {
                return parse(&line);
            }
        }
    }

    /// Panics unless the stream ends now, at the end of a line. Returns how.
    #[track_caller]
    pub fn expect_end(&mut self) -> Ended {
        match self.try_next() {
            Ok(None) => self.ended().expect("an end"),
            Ok(Some(line)) => panic!("it goes on: {:?}", String::from_utf8_lossy(&line)),
            Err(error) => panic!("the stream does not end: {error}"),
        }
    }

    /// What has come after the last separator.
    pub fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// How the stream ended, once it has.
    pub fn ended(&self) -> Option<Ended> {
        self.body.ended()
    }

    /// The body.
    pub fn body(&mut self) -> &mut Body {
        &mut self.body
    }

    /// Gives the connection back.
    pub fn into_client(self) -> Client {
        self.body.into_client()
    }
}

/// Reads a line of JSON lines.
#[track_caller]
pub fn parse(line: &str) -> Value {
    let value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    assert!(matches!(value, Value::Object(_)), "not an object: {line}");
    value
}

fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    text.windows(pattern.len()).position(|window| window == pattern)
}
