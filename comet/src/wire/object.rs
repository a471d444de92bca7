//! What a subscriber is told, as JSON objects: a message, a gap, an end.

use std::str;

use base64::engine::general_purpose::STANDARD;
use base64::Engine;

use super::json;
use crate::message::{Envelope, Missed};

/// A message: `id`, `time` (seconds since 1970), `channel` where there are several, `type` and `event` as far as the
/// publisher gave them, and `data`; or `base64` (RFC 4648, section 4) in its place, if the body is not UTF-8.
///
/// There is no line end in it.
pub fn message(envelope: &Envelope<'_>, body: &[u8]) -> String {
    let mut object = String::with_capacity(body.len() + 128);
    object.push_str(&format!("{{\"id\":\"{}\",\"time\":{}", envelope.id, envelope.id.time()));
    let channel = envelope.channel.unwrap_or_default();
    for (name, value) in
        [("channel", channel), ("type", envelope.content_type), ("event", envelope.event)]
    {
        if !value.is_empty() {
            object.push_str(&format!(",\"{name}\":"));
            json::push_string(&mut object, &String::from_utf8_lossy(value));
        }
    }
    match str::from_utf8(body) {
        Ok(text) => {
            object.push_str(",\"data\":");
            json::push_string(&mut object, text);
        }
        Err(_) => {
            object.push_str(",\"base64\":\"");
            STANDARD.encode_string(body, &mut object);
            object.push('"');
        }
    }
    object.push('}');
    object
}

/// A gap: `{"missed":3,"at_least":false}`.
pub fn gap(missed: Missed) -> String {
    format!("{{\"missed\":{},\"at_least\":{}}}", missed.count, missed.at_least)
}

/// One of several channels was deleted: `{"left":"news","reason":"deleted"}`.
pub fn left(channel: &[u8]) -> String {
    let mut object = String::from("{\"left\":");
    json::push_string(&mut object, &String::from_utf8_lossy(channel));
    object.push_str(",\"reason\":\"deleted\"}");
    object
}

/// An end, and why: `{"end":"deleted"}`.
pub fn end(reason: &str) -> String {
    format!("{{\"end\":\"{reason}\"}}")
}
