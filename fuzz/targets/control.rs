//! What a WebSocket client says to change its subscription.
#![no_main]

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use comet::control::{self, Action, Pattern, Value};
use comet::message::Position;
use fuzz::lines;
use libfuzzer_sys::fuzz_target;
use serde_json::{json, Map};

/// The command that means an action.
fn said(action: &Action) -> Value {
    let mut members = Map::new();
    let mut say = |name: &str, value: Value| members.insert(name.into(), value);
    match action {
        Action::Subscribe { channel, position } => {
            say("subscribe", json!(channel));
            match position {
                None => None,
                Some(Position::Oldest) => say("from", json!("oldest")),
                Some(Position::Newest) => say("from", json!("newest")),
                Some(Position::Nth(place)) => say("from", json!(place.to_string())),
                Some(Position::Last(count)) => say("from", json!(format!("-{count}"))),
                Some(Position::After(id)) => {
                    assert_ne!(id.time, 0);
                    say("after", json!(id.to_string()))
                }
                Some(Position::Past(_) | Position::Anew { .. }) => panic!("{position:?}"),
            };
        }
        Action::Unsubscribe { channel } => {
            say("unsubscribe", json!(channel));
        }
        Action::Publish { channel, data, content_type, event } => {
            say("publish", json!({ "base64": STANDARD.encode(data) }));
            say("type", json!(content_type));
            say("event", json!(event));
            if let Some(channel) = channel {
                assert!(!channel.is_empty());
                say("channel", json!(channel));
            }
            assert!(![content_type, event].iter().any(|value| value.contains(char::is_control)));
        }
    }
    Value::Object(members)
}

fuzz_target!(|data: &[u8]| {
    let (request, action) = control::read(data);
    let answer: Value =
        serde_json::from_slice(&control::refused(request.clone(), 400, "why")).unwrap();
    assert_eq!(answer.get("request"), request.as_ref());
    match action {
        Ok(action) => {
            let again = said(&action).to_string();
            assert_eq!(control::read(again.as_bytes()), (None, Ok(action)));
        }
        Err(error) => assert!((400..500).contains(&error.status())),
    }
    let [name, pattern] = lines(data);
    let (name, pattern) = (name.unwrap_or_default(), pattern.unwrap_or_default());
    assert_eq!(Pattern::new(pattern, false).names(name), !name.is_empty() && pattern == name);
    if Pattern::new(pattern, true).names(name) {
        let begins = pattern.strip_suffix(b"*").is_some_and(|start| name.starts_with(start));
        assert!(pattern == name || begins);
    }
});
