//! What subscribers and publishers are told, read back by readers that are not ours: whatever a message holds, it comes as
//! it was, and nothing in it can be taken for anything else.
#![no_main]

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use comet::message::{Envelope, MessageId, Missed, WrittenId};
use comet::poll::{reply, PollForm, Step};
use comet::reply::ReplyBody;
use comet::transport::{End, EventSource, Framing, Iframe, JsonLines, Lines, Multipart};
use comet::websocket::{inflate, Deflate, Form, Protocol};
use comet::wire::chunk::Chunk;
use comet::wire::info::{render, render_all, ChannelInfo, Format};
use fuzz::Plan;
use libfuzzer_sys::fuzz_target;
use serde_json::{json, Value};

const BOUNDARY: &str = "ab-cd";

/// What a page gets of an event stream (WHATWG HTML, section 9.2.6): the id, the kind and the data of each event.
fn events(stream: &[u8]) -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let mut events = Vec::new();
    let (mut id, mut kind, mut data) = (Vec::new(), Vec::new(), Vec::new());
    for line in unified(stream).split(|byte| *byte == b'\n') {
        if line.is_empty() {
            if !data.is_empty() {
                data.pop();
                events.push((id.clone(), std::mem::take(&mut kind), std::mem::take(&mut data)));
            }
            kind.clear();
            continue;
        }
        let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(at + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..at] {
            b"id" if !value.contains(&0) => id = value.to_vec(),
            b"event" => kind = value.to_vec(),
            b"data" => {
                data.extend_from_slice(value);
                data.push(b'\n');
            }
            _ => {}
        }
    }
    events
}

/// The text with all line ends as LF.
fn unified(text: &[u8]) -> Vec<u8> {
    let mut unified = Vec::new();
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = match byte {
            b'\r' => after.strip_prefix(b"\n").unwrap_or(after),
            _ => after,
        };
        unified.push(if *byte == b'\r' { b'\n' } else { *byte });
    }
    unified
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks that an object says what a message is.
fn expect_message(object: &Value, envelope: &Envelope<'_>, body: &[u8]) {
    assert_eq!(object["id"], json!(envelope.id.to_string()));
    for (name, value) in [
        ("channel", envelope.channel.unwrap_or_default()),
        ("type", envelope.content_type),
        ("event", envelope.event),
    ] {
        let expected = (!value.is_empty()).then(|| json!(lossy(value)));
        assert_eq!(object.get(name), expected.as_ref());
    }
    let data = match (object.get("data"), object.get("base64")) {
        (Some(data), None) => data.as_str().unwrap().as_bytes().to_vec(),
        (None, Some(base64)) => STANDARD.decode(base64.as_str().unwrap()).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(data, body);
}

/// The parts of a multipart body (RFC 2046, section 5.1): the fields of each, and its content.
fn parts(text: &[u8]) -> Vec<(Vec<String>, Vec<u8>)> {
    // The first delimiter may stand at the very beginning.
    let text = [b"\r\n", text].concat();
    let delimiter = format!("\r\n--{BOUNDARY}");
    let mut pieces = Vec::new();
    let mut rest = &text[..];
    while let Some(at) = rest.windows(delimiter.len()).position(|part| part == delimiter.as_bytes())
    {
        pieces.push(&rest[..at]);
        rest = &rest[at + delimiter.len()..];
    }
    assert_eq!(rest, b"--\r\n");
    let mut pieces = pieces.into_iter();
    assert_eq!(pieces.next(), Some(&b""[..]));
    pieces
        .map(|part| {
            let head = part.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
            let fields = lossy(&part[..head]);
            let fields: Vec<String> = fields.split("\r\n").skip(1).map(str::to_owned).collect();
            let body = &part[head + 4..];
            let body = match fields.contains(&"Content-Transfer-Encoding: base64".to_owned()) {
                true => STANDARD.decode(lossy(body).replace("\r\n", "")).unwrap(),
                false => body.to_vec(),
            };
            (fields, body)
        })
        .collect()
}

/// The only call in a script of the iframe, and its argument.
fn called(script: &[u8]) -> Value {
    let text = std::str::from_utf8(script).unwrap();
    let argument = text.strip_prefix("<script>parent.pushMessage&&parent.pushMessage(").unwrap();
    let argument = argument.strip_suffix(")</script>\n").unwrap();
    assert!(!argument.contains(['<', '>', '&', '\n', '\r', '\u{2028}', '\u{2029}']));
    serde_json::from_str(argument).unwrap()
}

/// A frame of the server's: opcode, whether it is compressed, and the payload.
fn frame(bytes: &[u8]) -> (u8, bool, &[u8]) {
    let (first, second) = (bytes[0], bytes[1]);
    assert!(first & 0xb0 == 0x80 && second & 0x80 == 0);
    let (len, payload) = match second {
        126 => (u64::from(u16::from_be_bytes([bytes[2], bytes[3]])), &bytes[4..]),
        127 => (u64::from_be_bytes(bytes[2..10].try_into().unwrap()), &bytes[10..]),
        len => (u64::from(len), &bytes[2..]),
    };
    assert_eq!(len, payload.len() as u64);
    (first & 0x0f, first & 0x40 != 0, payload)
}

fn websocket(envelope: &Envelope<'_>, body: &[u8]) {
    for protocol in [Protocol::Plain, Protocol::Json, Protocol::Nchan] {
        for deflate in [None, Some(Deflate { window_bits: 9 }), Some(Deflate { window_bits: 15 })] {
            let form = Form { protocol, deflate };
            let bytes = form.message(envelope, body);
            let (opcode, is_compressed, payload) = frame(&bytes);
            assert!(!is_compressed || deflate.is_some());
            let payload = match is_compressed {
                true => inflate(payload, 1 << 20).unwrap(),
                false => payload.to_vec(),
            };
            assert!(opcode == 2 || (opcode == 1 && std::str::from_utf8(&payload).is_ok()));
            match protocol {
                Protocol::Plain => assert_eq!(payload, body),
                Protocol::Json => {
                    assert_eq!(opcode, 1);
                    let own = Envelope { id: WrittenId::One(envelope.own_id), ..*envelope };
                    expect_message(&serde_json::from_slice(&payload).unwrap(), &own, body);
                }
                Protocol::Nchan => {
                    let end = payload.windows(2).position(|part| part == b"\n\n").unwrap();
                    assert!(payload.starts_with(format!("id: {}\n", envelope.id).as_bytes()));
                    assert_eq!(&payload[end + 2..], body);
                }
            }
            for end in ends() {
                let bytes = form.end(end);
                let (opcode, _, payload) = frame(&bytes);
                assert!(opcode == 8 && (2..=125).contains(&payload.len()));
            }
        }
    }
}

fn ends() -> [End; 5] {
    let missed = Missed { count: u64::MAX, at_least: true };
    [End::Deleted, End::Conflict, End::TimedOut, End::Shutdown { retry: 7 }, End::Missed(missed)]
}

fn streams(envelope: &Envelope<'_>, body: &[u8], missed: Missed) {
    let stream = [EventSource.opening(0, missed), EventSource.message(envelope, body)].concat();
    let mut events_read = events(&stream);
    let (id, kind, data) = events_read.pop().unwrap();
    assert_eq!(events_read.len(), usize::from(!missed.is_none()));
    assert_eq!(lossy(&id), envelope.id.to_string());
    assert!(kind.is_empty() || kind == envelope.event);
    assert_eq!(data, unified(body));

    let line = JsonLines.message(envelope, body);
    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
    expect_message(&serde_json::from_slice(&line).unwrap(), envelope, body);

    expect_message(&called(&Iframe.message(envelope, body)), envelope, body);
    let lines = Lines { separator: (*b"\r\n").into() };
    assert_eq!(lines.message(envelope, body), [body, b"\r\n"].concat());

    let multipart = Multipart { boundary: BOUNDARY.into(), replace: false };
    let mut text = multipart.opening(0, missed);
    text.extend(multipart.message(envelope, body));
    text.extend(multipart.message(envelope, b""));
    text.extend(multipart.end(End::Deleted));
    let mut read = parts(&text);
    assert_eq!(read.pop().unwrap().1, b"");
    let (fields, content) = read.pop().unwrap();
    assert_eq!(content, body);
    assert!((2..=5).contains(&fields.len()) && fields[0].starts_with("Last-Modified: "));
    assert_eq!(read.len(), usize::from(!missed.is_none()));
}

fn told(channel: &[u8], missed: Missed) {
    let left = json!({"left": lossy(channel), "reason": "deleted"});
    assert_eq!(called(&Iframe.left(channel)), left);
    let line: Value = serde_json::from_slice(&JsonLines.left(channel)).unwrap();
    assert_eq!(line, left);
    let read = events(&EventSource.left(channel));
    let [(_, kind, data)] = &read[..] else { panic!("{read:?}") };
    assert_eq!((&kind[..], serde_json::from_slice(data).ok()), (&b"left"[..], Some(left)));
    let gap = json!({"missed": missed.count, "at_least": missed.at_least});
    assert_eq!(called(&Iframe.missed(missed).unwrap()), gap);
    for end in ends() {
        called(&Iframe.end(end));
        serde_json::from_slice::<Value>(&JsonLines.end(end)).unwrap();
    }
}

fn polls(steps: &[Step<'_>]) {
    let read = |form| match reply(form, steps, b"|", BOUNDARY).body {
        ReplyBody::Bytes(bytes) => bytes.into_owned(),
        other => panic!("{other:?}"),
    };
    let array = read(PollForm::Jsonp);
    assert!(!array.iter().any(|byte| b"<>&\n\r".contains(byte)));
    let objects: Value = serde_json::from_slice(&array).unwrap();
    let objects = objects.as_array().unwrap().iter().filter(|object| object.get("id").is_some());
    let objects: Vec<&Value> = objects.collect();
    assert_eq!(objects.len(), steps.len());
    for (object, step) in objects.into_iter().zip(steps) {
        expect_message(object, &step.envelope, step.body);
    }
    assert_eq!(read(PollForm::One), steps[0].body);
    let joined: Vec<u8> = steps.iter().flat_map(|step| [step.body, b"|"].concat()).collect();
    assert_eq!(read(PollForm::Joined), joined);
    let several = read(PollForm::Multipart);
    if let [_, _, ..] = steps {
        let contents: Vec<Vec<u8>> = parts(&several).into_iter().map(|(_, body)| body).collect();
        let expected: Vec<&[u8]> = steps.iter().map(|step| step.body).collect();
        assert_eq!(contents, expected);
    }
}

fn infos(names: &[&[u8]], info: ChannelInfo) {
    let one: Value = serde_json::from_slice(&render(&info, Format::Json)).unwrap();
    assert_eq!(one["subscribers"], json!(info.subscribers));
    let channels: Vec<(&[u8], ChannelInfo)> = names.iter().map(|name| (*name, info)).collect();
    let list: Value = serde_json::from_slice(&render_all(&channels, Format::Json)).unwrap();
    let read: Vec<&str> =
        list.as_array().unwrap().iter().map(|one| one["channel"].as_str().unwrap()).collect();
    let expected: Vec<String> = names.iter().map(|name| lossy(name)).collect();
    assert_eq!(read, expected);
    let count = |format, what: &str| lossy(&render_all(&channels, format)).matches(what).count();
    assert_eq!(count(Format::Xml, "<name>"), names.len());
    assert_eq!(count(Format::Xml, "<"), 3 + 10 * names.len());
    assert_eq!(count(Format::Yaml, "\n- channel: \""), names.len());
    assert_eq!(count(Format::Text, "\nqueued messages: "), names.len());
}

fuzz_target!(|data: &[u8]| {
    let mut plan = Plan::new(data);
    let id = MessageId { time: 1_700_000_000 + plan.number(), tag: plan.number() as u32 };
    let missed = Missed { count: plan.number(), at_least: plan.flag() };
    let has_channel = plan.flag();
    let [channel, content_type, event, separate] = std::array::from_fn(|_| {
        let len = plan.number() as usize;
        plan.bytes(len)
    });
    let body = plan.rest();
    let envelope = Envelope {
        id: WrittenId::One(id),
        own_id: id,
        channel: has_channel.then_some(channel),
        content_type,
        event,
    };
    streams(&envelope, body, missed);
    websocket(&envelope, body);
    told(channel, missed);
    let step = Step { missed, envelope, body };
    let other = Step { body: separate, ..step };
    polls(&[step]);
    polls(&[step, other, step]);
    infos(
        &[channel, event],
        ChannelInfo { messages: id.time, requested: -1, subscribers: missed.count },
    );
    let chunk = Chunk::new(body);
    assert_eq!(chunk.payload(), body);
    let expected = format!("{:x}\r\n", body.len());
    assert!(body.is_empty() || lossy(chunk.as_chunk()).to_lowercase().starts_with(&expected));
});
