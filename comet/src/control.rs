//! Control frames: what a WebSocket client of the subprotocol `push.json` says and is told.
//!
//! Every frame is one JSON object. A client changes its subscription on the live connection, and publishes:
//!
//! ```json
//! {"subscribe": "news", "after": "1700000000:3", "request": 1}
//! {"unsubscribe": "news", "request": 2}
//! {"publish": "Hello", "channel": "news", "type": "text/plain", "event": "greeting", "request": 3}
//! ```
//!
//! Each is answered once it is done, with the client's own `request`, whatever that is:
//!
//! ```json
//! {"request": 1, "subscribed": "news"}
//! {"request": 3, "published": "news", "id": "1700000000:4", "subscribers": 2}
//! {"request": 4, "error": 403, "reason": "…"}
//! ```
//!
//! Messages are the objects of JSON lines, with ids of their own channel: what to give as `after` when the connection was
//! lost.

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use serde_json::Map;
/// What a client calls a request of its: any JSON value.
pub use serde_json::Value;
use thiserror::Error;

use crate::first;
use crate::message::{MessageId, Position};
use crate::wire::id;

/// What a client wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// To get a channel's messages too.
    Subscribe {
        /// The channel's name.
        channel: String,
        /// Where to begin; nothing where the location says.
        position: Option<Position>,
    },
    /// To get a channel's messages no longer.
    Unsubscribe {
        /// The channel's name.
        channel: String,
    },
    /// To publish a message.
    Publish {
        /// The channel's name; nothing for those of the location.
        channel: Option<String>,
        /// The body.
        data: Vec<u8>,
        /// The content type; may be empty.
        content_type: String,
        /// The name of the kind of event; may be empty.
        event: String,
    },
}

/// Why a command is not carried out.
///
/// The texts are what the client reads.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    /// A binary frame.
    #[error("A control frame is a text frame.")]
    NoText,
    /// No JSON.
    #[error("A control frame is one JSON object.")]
    NoObject,
    /// None of the commands, or more than one.
    #[error("A control frame has one of \"subscribe\", \"unsubscribe\" and \"publish\".")]
    NoCommand,
    /// A member of the wrong type, or with a value that makes no sense.
    #[error("\"{member}\" must be {expected}.")]
    Member {
        /// Its name.
        member: &'static str,
        /// What it can be.
        expected: &'static str,
    },
    /// Not this channel.
    #[error("The channel is none of this location's, nor does push_websocket_channels name it.")]
    NotAllowed,
    /// This connection gets messages and sends none.
    #[error(
        "This connection may not publish: that takes push_pubsub or push_publisher, and no limit_except that restricts POST."
    )]
    NoPublisher,
    /// This location has no subscribers.
    #[error("This is not a subscriber location: push_subscriber and push_pubsub are.")]
    NoSubscriber,
    /// The client has the channel already.
    #[error("The channel is subscribed already.")]
    Twice,
    /// The client does not have the channel.
    #[error("The channel is not subscribed.")]
    NotSubscribed,
    /// As many channels as a connection may have.
    #[error("A connection has 255 channels at most.")]
    TooMany,
}

impl CommandError {
    /// The status that HTTP would have for it.
    pub fn status(&self) -> u16 {
        match self {
            CommandError::NoText
            | CommandError::NoObject
            | CommandError::NoCommand
            | CommandError::Member { .. }
            | CommandError::NotSubscribed => 400,
            CommandError::NotAllowed
            | CommandError::NoPublisher
            | CommandError::NoSubscriber
            | CommandError::TooMany => 403,
            CommandError::Twice => 409,
        }
    }
}

/// Reads a text frame. The client's name for the request comes also with an error, as far as it was there.
pub fn read(text: &[u8]) -> (Option<Value>, Result<Action, CommandError>) {
    let Ok(Value::Object(mut members)) = serde_json::from_slice(text) else {
        return (None, Err(CommandError::NoObject));
    };
    let request = members.remove("request");
    (request, action(&mut members))
}

fn action(members: &mut Map<String, Value>) -> Result<Action, CommandError> {
    let commands = ["subscribe", "unsubscribe", "publish"];
    let mut named = commands.into_iter().filter(|name| members.contains_key(*name));
    let (Some(command), None) = (named.next(), named.next()) else {
        return Err(CommandError::NoCommand);
    };
    match command {
        "subscribe" => Ok(Action::Subscribe {
            channel: name(members, "subscribe")?,
            position: position(members)?,
        }),
        "unsubscribe" => Ok(Action::Unsubscribe { channel: name(members, "unsubscribe")? }),
        _ => Ok(Action::Publish {
            channel: match members.contains_key("channel") {
                true => Some(name(members, "channel")?),
                false => None,
            },
            data: data(members)?,
            content_type: field(members, "type")?,
            event: field(members, "event")?,
        }),
    }
}

fn string(
    members: &mut Map<String, Value>,
    member: &'static str,
) -> Result<Option<String>, CommandError> {
    match members.remove(member) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(CommandError::Member { member, expected: "a string" }),
    }
}

fn name(members: &mut Map<String, Value>, member: &'static str) -> Result<String, CommandError> {
    string(members, member)?
        .filter(|name| !name.is_empty())
        .ok_or(CommandError::Member { member, expected: "the name of a channel" })
}

/// A value that becomes a header field somewhere.
fn field(members: &mut Map<String, Value>, member: &'static str) -> Result<String, CommandError> {
    let value = string(members, member)?.unwrap_or_default();
    if value.chars().any(char::is_control) {
        return Err(CommandError::Member { member, expected: "a string without line ends" });
    }
    Ok(value)
}

fn position(members: &mut Map<String, Value>) -> Result<Option<Position>, CommandError> {
    let after = string(members, "after")?;
    let from = string(members, "from")?;
    if let Some(after) = after {
        let id = id::parse(after.as_bytes()).filter(|id| id.time != 0);
        let expected = "the id of a message of the channel";
        return match id {
            Some(id) => Ok(Some(Position::After(id))),
            None => Err(CommandError::Member { member: "after", expected }),
        };
    }
    let Some(from) = from else { return Ok(None) };
    match first::first([from.as_bytes()]) {
        Ok(position) => Ok(Some(position)),
        Err(_) => Err(CommandError::Member {
            member: "from",
            expected: "\"oldest\", \"newest\", \"N\", \"-N\" or \"@T\"",
        }),
    }
}

fn data(members: &mut Map<String, Value>) -> Result<Vec<u8>, CommandError> {
    let expected = "a string, or an object with \"base64\"";
    let wrong = CommandError::Member { member: "publish", expected };
    match members.remove("publish") {
        Some(Value::String(text)) => Ok(text.into_bytes()),
        Some(Value::Object(object)) => match object.get("base64") {
            Some(Value::String(text)) => STANDARD.decode(text).map_err(|_| wrong),
            _ => Err(wrong),
        },
        _ => Err(wrong),
    }
}

/// The answer to a command: its members after the client's own name for it.
fn answer(
    request: Option<Value>,
    members: impl IntoIterator<Item = (&'static str, Value)>,
) -> Vec<u8> {
    let mut object = Map::new();
    object.extend(request.map(|request| ("request".to_owned(), request)));
    object.extend(members.into_iter().map(|(name, value)| (name.to_owned(), value)));
    Value::Object(object).to_string().into_bytes()
}

/// "It is subscribed."
pub fn subscribed(request: Option<Value>, channel: &str) -> Vec<u8> {
    answer(request, [("subscribed", channel.into())])
}

/// "It is no longer subscribed."
pub fn unsubscribed(request: Option<Value>, channel: &str) -> Vec<u8> {
    answer(request, [("unsubscribed", channel.into())])
}

/// "It is published": for each channel its name, the message's id there, and who waited for it.
pub fn published(request: Option<Value>, channels: &[(&[u8], MessageId, u64)]) -> Vec<u8> {
    let name = |name: &[u8]| Value::from(String::from_utf8_lossy(name));
    match channels {
        [(channel, id, subscribers)] => answer(
            request,
            [
                ("published", name(channel)),
                ("id", id.to_string().into()),
                ("subscribers", (*subscribers).into()),
            ],
        ),
        several => {
            let names = several.iter().map(|(channel, ..)| name(channel)).collect();
            let ids = several.iter().map(|(_, id, _)| Value::from(id.to_string())).collect();
            let subscribers = several.iter().map(|(.., count)| Value::from(*count)).collect();
            answer(
                request,
                [
                    ("published", Value::Array(names)),
                    ("id", Value::Array(ids)),
                    ("subscribers", Value::Array(subscribers)),
                ],
            )
        }
    }
}

/// "It is not done."
pub fn refused(request: Option<Value>, status: u16, reason: &str) -> Vec<u8> {
    answer(request, [("error", status.into()), ("reason", reason.into())])
}

/// Which channels a client may have beside those of its location: a value of `push_websocket_channels`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// The one of this name; an empty name is that of none.
    Whole(Vec<u8>),
    /// All whose names begin so.
    Start(Vec<u8>),
}

impl Pattern {
    /// A value, which stands for all that begin so if `has_star` says that it ends with a `*` in the configuration. One from a
    /// variable, which the client may have chosen, is a character like others.
    pub fn new(value: &[u8], has_star: bool) -> Self {
        match value {
            [start @ .., b'*'] if has_star => Pattern::Start(start.to_vec()),
            whole => Pattern::Whole(whole.to_vec()),
        }
    }

    /// Whether it names a channel.
    pub fn names(&self, channel: &[u8]) -> bool {
        match self {
            Pattern::Whole(name) => !name.is_empty() && name == channel,
            Pattern::Start(start) => channel.starts_with(start),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn done(text: &str) -> Action {
        let (request, action) = read(text.as_bytes());
        assert_eq!(request, None);
        action.unwrap()
    }

    fn fails(text: &str) -> String {
        read(text.as_bytes()).1.map_err(|error| error.to_string()).unwrap_err()
    }

    #[test]
    fn commands_are_read() {
        let subscribe = |position| Action::Subscribe { channel: "a".into(), position };
        assert_eq!(done(r#"{"subscribe": "a"}"#), subscribe(None));
        assert_eq!(
            done(r#"{"subscribe": "a", "after": "100:2"}"#),
            subscribe(Some(Position::After(MessageId { time: 100, tag: 2 })))
        );
        assert_eq!(done(r#"{"subscribe":"a","from":"-3"}"#), subscribe(Some(Position::Last(3))));
        assert_eq!(done(r#"{"unsubscribe":"a"}"#), Action::Unsubscribe { channel: "a".into() });
        let publish = |channel: Option<&str>, data: &[u8]| Action::Publish {
            channel: channel.map(str::to_owned),
            data: data.to_vec(),
            content_type: String::new(),
            event: String::new(),
        };
        assert_eq!(done(r#"{"publish": ""}"#), publish(None, b""));
        assert_eq!(done(r#"{"publish": "x\n", "channel": "ä"}"#), publish(Some("ä"), b"x\n"));
        assert_eq!(done(r#"{"publish": {"base64": "/wD+"}}"#), publish(None, b"\xff\0\xfe"));
        assert_eq!(
            done(r#"{"publish": "x", "type": "text/x", "event": "e", "more": [1]}"#),
            Action::Publish {
                channel: None,
                data: b"x".to_vec(),
                content_type: "text/x".into(),
                event: "e".into()
            }
        );
    }

    #[test]
    fn what_is_no_command_is_told() {
        for text in ["", "x", "[]", "1", "\"subscribe\"", "{", "{\"subscribe\":\"a\"}}", "\u{0}"] {
            assert_eq!(fails(text), "A control frame is one JSON object.");
        }
        for text in ["{}", r#"{"request":1}"#, r#"{"subscribe":"a","unsubscribe":"a"}"#] {
            assert!(fails(text).starts_with("A control frame has one of"), "{text}");
        }
        for (text, member) in [
            (r#"{"subscribe":1}"#, "subscribe"),
            (r#"{"subscribe":""}"#, "subscribe"),
            (r#"{"unsubscribe":null}"#, "unsubscribe"),
            (r#"{"subscribe":"a","after":"x"}"#, "after"),
            (r#"{"subscribe":"a","after":"0:1"}"#, "after"),
            (r#"{"subscribe":"a","from":"last"}"#, "from"),
            (r#"{"publish":1}"#, "publish"),
            (r#"{"publish":{"base64":"?"}}"#, "publish"),
            (r#"{"publish":{}}"#, "publish"),
            (r#"{"publish":"x","channel":""}"#, "channel"),
            (r#"{"publish":"x","type":"a\r\nb"}"#, "type"),
            (r#"{"publish":"x","event":7}"#, "event"),
        ] {
            assert!(fails(text).starts_with(&format!("\"{member}\" must be ")), "{text}");
        }
    }

    #[test]
    fn the_name_of_a_request_comes_back_whatever_it_is() {
        // Scripts like to take a random number.
        let fractions = (1..1000).map(|number| json!(f64::from(number).sqrt().fract()));
        let others = [json!(1), json!(u64::MAX), json!("a\"b"), json!({"x": [null]})];
        for name in others.into_iter().chain(fractions) {
            let text = json!({"request": name, "what": 1}).to_string();
            let (request, action) = read(text.as_bytes());
            assert!(action.is_err());
            let answer: Value = serde_json::from_slice(&refused(request, 400, "no")).unwrap();
            assert_eq!(answer, json!({"request": name, "error": 400, "reason": "no"}));
        }
        assert_eq!(subscribed(None, "a"), br#"{"subscribed":"a"}"#);
        assert_eq!(unsubscribed(Some(json!(7)), "a"), br#"{"request":7,"unsubscribed":"a"}"#);
    }

    #[test]
    fn what_was_published_is_told() {
        let id = MessageId { time: 100, tag: 2 };
        let answer = |channels: &[_]| -> Value {
            serde_json::from_slice(&published(None, channels)).unwrap()
        };
        assert_eq!(
            answer(&[(&b"a"[..], id, 3)]),
            json!({"published": "a", "id": "100:2", "subscribers": 3})
        );
        assert_eq!(
            answer(&[(&b"a"[..], id, 3), (b"\xff", id, 0)]),
            json!({
                "published": ["a", "\u{fffd}"], "id": ["100:2", "100:2"], "subscribers": [3, 0]
            })
        );
    }

    #[test]
    fn deep_nesting_is_no_object() {
        let deep = format!("{{\"request\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read(deep.as_bytes()), (None, Err(CommandError::NoObject)));
    }

    #[test]
    fn patterns_name_channels() {
        let (whole, start) = (Pattern::new(b"news", false), Pattern::new(b"room_*", true));
        for (channel, by_whole, by_start) in [
            ("news", true, false),
            ("newsroom", false, false),
            ("room_", false, true),
            ("room_7", false, true),
            ("room", false, false),
            ("", false, false),
            ("*", false, false),
        ] {
            let found = [&whole, &start].map(|pattern| pattern.names(channel.as_bytes()));
            assert_eq!(found, [by_whole, by_start], "{channel}");
        }
        assert!(Pattern::new(b"*", true).names(b"anything"));
        assert!(!Pattern::new(b"", false).names(b""));
    }

    #[test]
    fn a_star_that_is_not_written_in_the_configuration_is_a_character() {
        let pattern = Pattern::new(b"user_*", false);
        assert!(!pattern.names(b"user_7") && pattern.names(b"user_*"));
    }
}
