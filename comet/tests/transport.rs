//! Properties of the formats of streams and polls: what goes in comes out of a reader that follows the format's specification.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use comet::message::{Body, Cursor, Life, Message, MessageId, Missed};
use comet::poll::{self, PollForm};
use comet::reply::ReplyBody;
use comet::transport::{End, EventSource, Framing, Iframe, JsonLines, Lines, Multipart};
use comet::wire::http;
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
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n\n",
    b"data: x",
    b"id: 1:1",
    b"event: gap",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"<script>",
    b"</script ",
    b"<!--",
    b"-->",
    b"\"})",
    b"\\u003c",
    b"--b0b",
    b"--",
    b"b0b",
    b"Etag: 9",
];

/// Bytes in which all that means something to a format comes often.
fn bytes(len: usize) -> impl Strategy<Value = Vec<u8>> {
    let special = prop::sample::select(&b"\r\n\r\n: \0\"\\{}a-<>&\xef\xbb\xbf\xe2\x80\xa8"[..]);
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

/// The scripts of a page and its other tokens, as far as ours has such (WHATWG HTML, section 13.2.5): comments, and line
/// ends between scripts. Anything else would be markup that a message has brought in.
fn scripts_of(page: &str) -> Vec<&str> {
    let mut scripts = Vec::new();
    let mut rest = page;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('\n') {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("<!--") {
            rest = after.split_once("-->").unwrap().1;
        } else {
            let after = rest.strip_prefix("<script>").unwrap_or_else(|| panic!("markup: {rest}"));
            // "Script data end tag name state", in any case; a comment within would lead to the "script data escaped" states.
            let is_end = |at: &usize| {
                let name = after.as_bytes().get(*at..at + 8).unwrap_or_default();
                name.eq_ignore_ascii_case(b"</script")
                    && after[at + 8..].starts_with(['\t', '\n', '\u{c}', ' ', '/', '>'])
            };
            let end = (0..after.len()).find(is_end).unwrap();
            assert!(!after[..end].contains("<!--"));
            scripts.push(&after[..end]);
            rest = after[end..].strip_prefix("</script>").unwrap();
        }
    }
    scripts
}

/// What a page hands to its parent. JSON without U+2028 and U+2029 is JavaScript, and means the same.
fn handed_over(page: &str) -> Vec<Value> {
    let call = "parent.pushMessage&&parent.pushMessage(";
    scripts_of(page)
        .into_iter()
        .map(|script| {
            assert!(!script.contains(['\u{2028}', '\u{2029}', '\n', '\r']));
            let object = script.strip_prefix(call).unwrap().strip_suffix(')').unwrap();
            serde_json::from_str(object).unwrap()
        })
        .collect()
}

/// Fields and body of a part.
type Part = (Vec<(String, Vec<u8>)>, Vec<u8>);

fn find(text: &[u8], pattern: &[u8]) -> usize {
    text.windows(pattern.len()).position(|window| window == pattern).unwrap()
}

/// The parts of a multipart body with the boundary `b0b`, step by step as RFC 2046, section 5.1.1 has it.
fn parts_of(body: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = body.strip_prefix(b"--b0b").unwrap();
    while rest != b"--\r\n" {
        let part = rest.strip_prefix(b"\r\n").unwrap();
        let end = find(part, b"\r\n--b0b");
        rest = &part[end + 7..];
        // What stops at the delimiter without its line end must not be misled either.
        assert_eq!(find(part, b"--b0b"), end + 2);
        let head_end = find(&part[..end], b"\r\n\r\n");
        let head = part[..head_end].split(|&byte| byte == b'\n').map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let colon = find(line, b": ");
            (String::from_utf8(line[..colon].to_vec()).unwrap(), line[colon + 2..].to_vec())
        });
        let (mut fields, mut content): Part = (head.collect(), part[head_end + 4..end].to_vec());
        if let Some(at) = fields.iter().position(|(name, _)| name == "Content-Transfer-Encoding") {
            assert_eq!(fields.remove(at).1, b"base64");
            content.retain(|byte| !b"\r\n".contains(byte));
            content = STANDARD.decode(content).unwrap();
        }
        parts.push((fields, content));
    }
    parts
}

fn expected_part(id: MessageId, content_type: &[u8], body: &[u8]) -> Part {
    let mut fields = vec![
        ("Last-Modified".to_owned(), http::date(id.time).into_bytes()),
        ("Etag".to_owned(), id.tag.to_string().into_bytes()),
    ];
    let breaks_out = content_type.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t')
        || content_type.windows(5).any(|window| window == b"--b0b");
    if !content_type.is_empty() && !breaks_out {
        fields.push(("Content-Type".to_owned(), content_type.to_vec()));
    }
    (fields, body.to_vec())
}

fn expected_parts(missed: Missed, steps: &[Step]) -> Vec<Part> {
    let gap = |missed: &Missed| {
        let bound = if missed.at_least { ";at-least" } else { "" };
        let value = format!("{}{bound}", missed.count).into_bytes();
        (vec![("Push-Missed".to_owned(), value)], Vec::new())
    };
    let first = (!missed.is_none()).then(|| gap(&missed));
    let others = steps.iter().filter_map(|step| match step {
        Step::Ping => None,
        Step::Missed(missed) => Some(gap(missed)),
        Step::Message { id, content_type, body, .. } => {
            Some(expected_part(*id, content_type, body))
        }
    });
    first.into_iter().chain(others).collect()
}

fn mixed() -> Multipart {
    Multipart { boundary: "b0b".into(), replace: false }
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

    #[test]
    fn a_page_runs_nothing_but_calls_with_what_was_published(
        missed in maybe_missed(),
        steps in steps(),
        end in end(),
    ) {
        let page = String::from_utf8(written(&Iframe, 2000, missed, &steps, end)).unwrap();
        let body = page.split_once("<body>").unwrap().1;
        let mut values = expected_values(missed, &steps, end);
        if let (End::Shutdown { retry }, Some(last)) = (end, values.last_mut()) {
            last["retry"] = retry.into();
        }
        prop_assert_eq!(handed_over(body), values);
    }

    #[test]
    fn parts_are_what_was_published(
        missed in maybe_missed(),
        steps in steps(),
        end in end(),
    ) {
        let body = written(&mixed(), 2000, missed, &steps, end);
        prop_assert_eq!(parts_of(&body), expected_parts(missed, &steps));
    }

    #[test]
    fn a_poll_of_several_messages_has_all_of_them(
        messages in vec((any::<u64>(), any::<u32>(), bytes(8), bytes(24), maybe_missed()), 2..5),
    ) {
        let kept: Vec<_> = messages
            .iter()
            .map(|(time, tag, content_type, body, missed)| {
                (message(MessageId { time: *time, tag: *tag }, content_type, b""), body, *missed)
            })
            .collect();
        let steps: Vec<_> = kept
            .iter()
            .map(|(message, body, missed)| poll::Step { missed: *missed, envelope: message.envelope(), body })
            .collect();
        let body_of = |form| match poll::reply(form, &steps, b"|", "b0b").body {
            ReplyBody::Bytes(bytes) => bytes.into_owned(),
            other => panic!("{other:?}"),
        };
        let parts: Vec<Part> = kept
            .iter()
            .map(|(message, body, _)| expected_part(message.id, &message.content_type, body))
            .collect();
        prop_assert_eq!(parts_of(&body_of(PollForm::Multipart)), parts);
        let joined: Vec<u8> = kept.iter().flat_map(|(_, body, _)| [body, &b"|"[..]].concat()).collect();
        prop_assert_eq!(body_of(PollForm::Joined), joined);

        let script = String::from_utf8(poll::script("f", &body_of(PollForm::Jsonp))).unwrap();
        let has_markup = script.contains(['<', '>', '&', '\u{2028}', '\u{2029}']);
        prop_assert!(!has_markup);
        let array = script.strip_prefix("/**/f(").unwrap().strip_suffix(");\n").unwrap();
        let values: Vec<Value> = serde_json::from_str(array).unwrap();
        let streamed: Vec<Step> = kept
            .iter()
            .flat_map(|(message, body, missed)| {
                let content_type = message.content_type.to_vec();
                let event = Vec::new();
                let message = Step::Message { id: message.id, content_type, event, body: body.to_vec() };
                (!missed.is_none()).then_some(Step::Missed(*missed)).into_iter().chain([message])
            })
            .collect();
        let mut expected = expected_values(Missed::default(), &streamed, End::TimedOut);
        expected.pop();
        prop_assert_eq!(values, expected);
    }

    #[test]
    fn a_callback_is_a_name_or_refused(value in bytes(12), name in "[a-zA-Z_$][a-z0-9$.\\[\\]%]{0,8}") {
        for value in [value, name.into_bytes()] {
            let args = [b"callback=", value.as_slice()].concat();
            if let Ok(name) = poll::callback(&args) {
                prop_assert!((1..=128).contains(&name.len()));
                prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_$.[]".contains(&byte)));
                prop_assert!(!name.starts_with(|first: char| first.is_ascii_digit() || ".[]".contains(first)));
            }
        }
    }
}
