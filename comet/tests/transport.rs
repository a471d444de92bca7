//! Properties of the stream formats: what goes in comes out of a reader that follows the format's specification.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use comet::message::{Body, Cursor, Life, Message, MessageId, Missed};
use comet::transport::{End, EventSource, Framing, JsonLines, Lines};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{json, Value};

/// What a client of EventSource dispatches.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    name: Vec<u8>,
    data: Vec<u8>,
    last_event_id: Vec<u8>,
}

/// A client of EventSource, step by step as WHATWG HTML, sections 9.2.5 and 9.2.6 have it; on bytes, for decoding UTF-8
/// changes neither line ends nor field names. Comments beginning with a quote are the standard's words.
#[derive(Default)]
struct Client {
    /// What has come of a line that has not ended.
    line: Vec<u8>,
    /// The last byte was a CR, and an LF would belong to it.
    after_carriage_return: bool,
    is_begun: bool,
    data: Vec<u8>,
    event_type: Vec<u8>,
    last_event_id: Vec<u8>,
    reconnection_time: Option<u64>,
    events: Vec<Event>,
}

impl Client {
    fn receive(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            // "any pair, or lone ... in this order: CRLF, LF not preceded by CR, CR not followed by LF".
            if byte == b'\n' && self.after_carriage_return {
                self.after_carriage_return = false;
                continue;
            }
            self.after_carriage_return = byte == b'\r';
            if byte == b'\r' || byte == b'\n' {
                let mut line = std::mem::take(&mut self.line);
                // "The UTF-8 decode algorithm strips one leading UTF-8 Byte Order Mark (BOM), if any."
                if !std::mem::replace(&mut self.is_begun, true) && line.starts_with(b"\xef\xbb\xbf")
                {
                    line.drain(..3);
                }
                self.end_of_line(&line);
            } else {
                self.line.push(byte);
            }
        }
    }

    fn end_of_line(&mut self, line: &[u8]) {
        if line.is_empty() {
            return self.dispatch();
        }
        match line.iter().position(|&byte| byte == b':') {
            // "If the line starts with a U+003A COLON character (:): ignore the line."
            Some(0) => {}
            Some(colon) => {
                // "If value starts with a U+0020 SPACE character, remove it from value."
                let value = &line[colon + 1..];
                self.field(&line[..colon], value.strip_prefix(b" ").unwrap_or(value));
            }
            None => self.field(line, b""),
        }
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"event" => self.event_type = value.to_vec(),
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"id" if !value.contains(&0) => self.last_event_id = value.to_vec(),
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                self.reconnection_time = std::str::from_utf8(value).unwrap().parse().ok();
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        let mut data = std::mem::take(&mut self.data);
        let event_type = std::mem::take(&mut self.event_type);
        // "If the data buffer is an empty string, set the data buffer and the event type buffer to the empty string
        // and return."
        if data.is_empty() {
            return;
        }
        data.pop();
        let name = if event_type.is_empty() { b"message".to_vec() } else { event_type };
        self.events.push(Event { name, data, last_event_id: self.last_event_id.clone() });
    }

    /// "Once the end of the file is reached, any pending data must be discarded": there must be none.
    fn is_between_events(&self) -> bool {
        self.line.is_empty() && self.data.is_empty() && self.event_type.is_empty()
    }
}

/// Something that a stream writes after its opening.
#[derive(Clone, Debug)]
enum Step {
    Message { id: MessageId, content_type: Vec<u8>, event: Vec<u8>, body: Vec<u8> },
    Missed(Missed),
    Ping,
}

impl Step {
    fn write(&self, framing: &dyn Framing) -> Vec<u8> {
        match self {
            Step::Message { id, content_type, event, body } => {
                framing.message(&message(*id, content_type, event).envelope(), body)
            }
            Step::Missed(missed) => framing.missed(*missed).unwrap_or_default(),
            Step::Ping => framing.ping().unwrap_or_default(),
        }
    }
}

fn message(id: MessageId, content_type: &[u8], event: &[u8]) -> Message {
    Message {
        id,
        cursor: Cursor { life: Life(1), seq: 1 },
        content_type: content_type.into(),
        event: event.into(),
        // The body is given apart; this one must not count.
        body: Body::Bytes(b"not this".as_slice().into()),
        delete_when_received: false,
    }
}

/// What means something to a format.
const PIECES: &[&[u8]] =
    &[b"\r\n", b"\n\n", b"data: x", b"id: 1:1", b"event: gap", b"\xef\xbb\xbf", b"\xe2\x80\xa8"];

/// Bytes in which all that means something to a format comes often.
fn bytes(len: usize) -> impl Strategy<Value = Vec<u8>> {
    let special = prop::sample::select(&b"\r\n\r\n: \0\"\\{}a\xef\xbb\xbf\xe2\x80\xa8"[..]);
    let piece = prop::sample::select(PIECES);
    prop_oneof![
        vec(any::<u8>(), 0..len),
        vec(special, 0..len),
        vec(piece, 0..len).prop_map(|pieces| pieces.concat()),
        any::<String>().prop_map(String::into_bytes),
    ]
}

fn missed() -> impl Strategy<Value = Missed> {
    (any::<u64>(), any::<bool>()).prop_map(|(count, at_least)| Missed { count, at_least })
}

fn maybe_missed() -> impl Strategy<Value = Missed> {
    prop_oneof![Just(Missed::default()), missed()]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = (any::<u64>(), any::<u32>()).prop_map(|(time, tag)| MessageId { time, tag });
    let message =
        (id, bytes(8), bytes(8), bytes(24)).prop_map(|(id, content_type, event, body)| {
            Step::Message { id, content_type, event, body }
        });
    let step =
        prop_oneof![4 => message, 1 => missed().prop_map(Step::Missed), 1 => Just(Step::Ping)];
    vec(step, 0..6)
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        Just(End::Deleted),
        Just(End::Conflict),
        Just(End::TimedOut),
        (0_u64..=1000).prop_map(|retry| End::Shutdown { retry }),
    ]
}

/// A whole stream.
fn written(framing: &dyn Framing, retry: u64, missed: Missed, steps: &[Step], end: End) -> Vec<u8> {
    let mut stream = framing.opening(retry, missed);
    stream.extend(steps.iter().flat_map(|step| step.write(framing)));
    stream.extend(framing.end(end));
    stream
}

/// The body as a client of EventSource gets it.
fn with_line_feeds(body: &[u8]) -> Vec<u8> {
    let mut after_carriage_return = false;
    let mut result = Vec::new();
    for &byte in body {
        if !(byte == b'\n' && after_carriage_return) {
            result.push(if byte == b'\r' { b'\n' } else { byte });
        }
        after_carriage_return = byte == b'\r';
    }
    result
}

/// What a client of EventSource must have dispatched.
fn expected_events(missed: Missed, steps: &[Step], end: End) -> Vec<Event> {
    let mut last_event_id = Vec::new();
    let mut events = Vec::new();
    let mut push = |name: &[u8], data: Vec<u8>, id: Option<MessageId>| {
        if let Some(id) = id {
            last_event_id = id.to_string().into_bytes();
        }
        events.push(Event { name: name.to_vec(), data, last_event_id: last_event_id.clone() });
    };
    let gap = |missed: &Missed| {
        format!(r#"{{"missed":{},"at_least":{}}}"#, missed.count, missed.at_least).into_bytes()
    };
    if !missed.is_none() {
        push(b"gap", gap(&missed), None);
    }
    for step in steps {
        match step {
            Step::Ping => {}
            Step::Missed(missed) => push(b"gap", gap(missed), None),
            Step::Message { id, event, body, .. } => {
                let is_name =
                    !event.is_empty() && !event.iter().any(|byte| b"\r\n\0".contains(byte));
                let name = if is_name { &event[..] } else { b"message" };
                push(name, with_line_feeds(body), Some(*id));
            }
        }
    }
    match end {
        End::Deleted => push(b"end", br#"{"reason":"deleted"}"#.to_vec(), None),
        End::Conflict => push(b"end", br#"{"reason":"conflict"}"#.to_vec(), None),
        End::TimedOut | End::Shutdown { .. } | End::Missed(_) => {}
    }
    events
}

/// What a JSON lines client must have read, pings apart.
fn expected_values(missed: Missed, steps: &[Step], end: End) -> Vec<Value> {
    let gap = |missed: &Missed| json!({"missed": missed.count, "at_least": missed.at_least});
    let mut values = Vec::new();
    if !missed.is_none() {
        values.push(gap(&missed));
    }
    for step in steps {
        match step {
            Step::Ping => {}
            Step::Missed(missed) => values.push(gap(missed)),
            Step::Message { id, content_type, event, body } => {
                let mut value = json!({"id": id.to_string(), "time": id.time});
                for (name, given) in [("type", content_type), ("event", event)] {
                    if !given.is_empty() {
                        value[name] = String::from_utf8_lossy(given).into();
                    }
                }
                match std::str::from_utf8(body) {
                    Ok(text) => value["data"] = text.into(),
                    Err(_) => value["base64"] = STANDARD.encode(body).into(),
                }
                values.push(value);
            }
        }
    }
    values.push(json!({"end": match end {
        End::Deleted => "deleted",
        End::Conflict => "conflict",
        End::TimedOut => "timeout",
        End::Shutdown { .. } => "shutdown",
        End::Missed(_) => "not an end of these",
    }}));
    values
}

proptest! {
    #[test]
    fn a_client_of_eventsource_gets_what_was_published(
        retry in 0_u64..100_000,
        missed in maybe_missed(),
        steps in steps(),
        end in end(),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let stream = written(&EventSource, retry, missed, &steps, end);
        let mut client = Client::default();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.sort_unstable();
        let mut from = 0;
        for to in cuts.into_iter().chain([stream.len()]) {
            client.receive(&stream[from..to]);
            from = to;
        }
        prop_assert!(client.is_between_events());
        prop_assert_eq!(client.events, expected_events(missed, &steps, end));
        prop_assert_eq!(client.reconnection_time, match end {
            End::Shutdown { retry } => Some(retry),
            _ => (retry > 0).then_some(retry),
        });
        prop_assert!(!stream.contains(&b'\r'));
    }

    #[test]
    fn an_event_takes_no_more_than_is_said(body in bytes(64)) {
        let id = MessageId { time: u64::MAX, tag: u32::MAX };
        let event = EventSource.message(&message(id, b"", b"").envelope(), &body);
        prop_assert!(event.len() <= 7 * body.len() + 64);
    }

    #[test]
    fn a_client_of_json_lines_gets_what_was_published(
        missed in maybe_missed(),
        steps in steps(),
        end in end(),
    ) {
        let stream = written(&JsonLines, 2000, missed, &steps, end);
        let text = String::from_utf8(stream).unwrap();
        prop_assert!(text.ends_with('\n'));
        let has_line_end = text.contains(['\r', '\u{2028}', '\u{2029}']);
        prop_assert!(!has_line_end);
        let values: Vec<Value> = text
            .split_terminator('\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        prop_assert_eq!(values, expected_values(missed, &steps, end));
    }

    #[test]
    fn a_json_line_is_one_line_and_gives_the_body_back(body in bytes(24), event in bytes(8)) {
        let id = MessageId { time: 1, tag: 2 };
        let line = JsonLines.message(&message(id, b"", &event).envelope(), &body);
        prop_assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        let value: Value = serde_json::from_slice(&line).unwrap();
        let read = match (&value["data"], &value["base64"]) {
            (Value::String(text), Value::Null) => text.clone().into_bytes(),
            (Value::Null, Value::String(encoded)) => STANDARD.decode(encoded).unwrap(),
            _ => return Err(TestCaseError::fail(format!("data or base64: {value}"))),
        };
        prop_assert_eq!(read, body);
    }

    #[test]
    fn a_plain_stream_is_bodies_and_separators(steps in steps(), end in end()) {
        let lines = Lines { separator: b"--".as_slice().into() };
        let expected: Vec<u8> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Message { body, .. } => Some([body, &b"--"[..]].concat()),
                Step::Missed(_) | Step::Ping => None,
            })
            .flatten()
            .collect();
        prop_assert_eq!(written(&lines, 2000, Missed::default(), &steps, end), expected);
    }
}
