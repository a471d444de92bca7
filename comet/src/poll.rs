//! What a poll gets: one message, or all that it has not seen, in one reply; also as a script (JSONP).

use thiserror::Error;

use crate::message::{Envelope, Missed, WrittenId};
use crate::reply::{Reply, ReplyBody};
use crate::subscriber;
use crate::transport::{End, Framing, Multipart};
use crate::wire::{json, object, query};

/// The form of a poll's reply (`push_poll_messages`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PollForm {
    /// One message.
    #[default]
    One,
    /// One message as it is, several as the parts of a `multipart/mixed` (RFC 2046, section 5.1).
    Multipart,
    /// Bodies, each followed by a separator.
    Joined,
    /// A JSON array, as argument of a function.
    Jsonp,
}

/// A message of a reply.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// What was missed between the message before it and this one.
    pub missed: Missed,
    /// What is told of it beside its body.
    pub envelope: Envelope<'a>,
    /// What was published.
    pub body: &'a [u8],
}

/// The reply with the messages `steps`, of which there is at least one. [`PollForm::One`] takes the first.
///
/// `separator` is for [`PollForm::Joined`], `boundary` (as in [`Multipart`]) for [`PollForm::Multipart`]. The client goes
/// on after the last message, whose id the reply has; what was missed is told in one number. Content type and channel are
/// told of several messages only where they are the same.
///
/// With [`PollForm::Jsonp`] the body is the array alone: [`script`] puts it into each client's script. Ids and gaps are
/// in there, for a script tag sees no header field.
pub fn reply(form: PollForm, steps: &[Step<'_>], separator: &[u8], boundary: &str) -> Reply {
    let steps = match (form, steps) {
        (PollForm::One, [first, ..]) => std::slice::from_ref(first),
        _ => steps,
    };
    match (form, steps) {
        (PollForm::Jsonp, _) => jsonp(array(steps)),
        (_, []) => subscriber::timed_out(),
        (PollForm::One | PollForm::Multipart, [Step { missed, envelope, body }]) => {
            subscriber::message(envelope, *missed).bytes(body.to_vec())
        }
        (PollForm::One | PollForm::Multipart, [.., last]) => {
            let parts = Multipart { boundary: boundary.into(), replace: false };
            let mut body = parts.opening(0, Missed::default());
            for step in steps {
                body.extend(parts.message(&step.envelope, step.body));
            }
            body.extend(parts.end(End::TimedOut));
            let content_type = format!("multipart/mixed; boundary={boundary}");
            let content_type = content_type.as_bytes();
            let envelope = Envelope { channel: None, content_type, ..last.envelope };
            subscriber::message(&envelope, missed_in_all(steps)).bytes(body)
        }
        (PollForm::Joined, [.., last]) => {
            let body = steps.iter().flat_map(|step| [step.body, separator]);
            let envelope = Envelope {
                channel: common(steps, |step| step.envelope.channel).flatten(),
                content_type: common(steps, |step| step.envelope.content_type).unwrap_or_default(),
                ..last.envelope
            };
            let body = body.collect::<Vec<_>>().concat();
            subscriber::message(&envelope, missed_in_all(steps)).bytes(body)
        }
    }
}

fn missed_in_all(steps: &[Step<'_>]) -> Missed {
    steps.iter().fold(Missed::default(), |sum, step| sum.and(step.missed))
}

/// What is the same in all.
fn common<'a, T: PartialEq>(steps: &[Step<'a>], of: impl Fn(&Step<'a>) -> T) -> Option<T> {
    let mut values = steps.iter().map(of);
    let first = values.next()?;
    values.all(|value| value == first).then_some(first)
}

/// Messages as JSON lines have them, each after the gap before it if there is one, in an array.
fn array(steps: &[Step<'_>]) -> Vec<u8> {
    let gap = |missed: Missed| (!missed.is_none()).then(|| object::gap(missed));
    let objects: Vec<String> = steps
        .iter()
        .flat_map(|step| [gap(step.missed), Some(object::message(&step.envelope, step.body))])
        .flatten()
        .collect();
    in_array(&objects.join(","))
}

fn in_array(objects: &str) -> Vec<u8> {
    format!("[{}]", json::for_script(objects)).into_bytes()
}

/// The reply to a script tag, whatever is in it. Nobody may take it for anything but a script, nor keep it.
///
/// It has no message id: browsers would send it back by themselves, against what the script's address says.
pub fn jsonp(body: Vec<u8>) -> Reply {
    Reply {
        content_type: Some(b"application/javascript; charset=utf-8".into()),
        ..Reply::empty(200)
    }
    .header("X-Content-Type-Options", &b"nosniff"[..])
    .header("Cache-Control", &b"no-cache"[..])
    .bytes(body)
}

/// What a JSONP client is told in place of a reply without a message, whose status a script tag cannot see.
pub fn array_of(reply: &Reply) -> Vec<u8> {
    in_array(&match reply.status {
        304 => object::end("timeout"),
        410 => object::end("deleted"),
        409 => object::end("conflict"),
        status => {
            let mut object = format!("{{\"error\":{status}");
            if let ReplyBody::Bytes(sentence) = &reply.body {
                object.push_str(",\"reason\":");
                json::push_string(&mut object, &String::from_utf8_lossy(sentence));
            }
            object + "}"
        }
    })
}

/// What a JSONP client is told in place of [`subscriber::placed`]: its next id, with the end, and before it what it has
/// missed.
pub fn array_of_place(id: WrittenId<'_>, missed: Missed) -> Vec<u8> {
    let gap = if missed.is_none() { String::new() } else { object::gap(missed) + "," };
    in_array(&format!("{gap}{{\"end\":\"timeout\",\"id\":\"{id}\"}}"))
}

/// The argument that names the function that a script calls.
const CALLBACK: &[u8] = b"callback";
/// What is called if there is no such argument.
const DEFAULT_CALLBACK: &str = "pushMessage";
/// Bytes that a name may have.
const MAX_CALLBACK: usize = 128;

/// Why no script was written. The text is what the client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "The argument \"callback\" must be a JavaScript name, such as a.b or a[0], of at most {MAX_CALLBACK} bytes."
)]
pub struct BadCallback;

impl BadCallback {
    /// The reply to the client.
    pub fn reply(&self) -> Reply {
        Reply::text(400, self.to_string().into_bytes())
    }
}

/// Whether a query string has the argument `callback`, whatever it says.
pub fn has_callback(args: &[u8]) -> bool {
    query::argument(args, CALLBACK).is_some()
}

/// The function that a query string says is to be called: `callback`, or `pushMessage` if there is no such argument.
///
/// Identifiers of ASCII letters, digits, `_` and `$`, with dots between them, each with an index in brackets if need be. With
/// anything else, whoever makes a link could write a script of his own that a page runs as this server's (CWE-79).
///
/// # Errors
///
/// [`BadCallback`] if it is something else, empty or too long.
pub fn callback(args: &[u8]) -> Result<String, BadCallback> {
    let Some(value) = query::argument(args, CALLBACK) else {
        return Ok(DEFAULT_CALLBACK.into());
    };
    // Encoded, a byte takes three.
    if value.len() > 3 * MAX_CALLBACK {
        return Err(BadCallback);
    }
    query::decode(value)
        .and_then(|name| String::from_utf8(name).ok())
        .filter(|name| name.len() <= MAX_CALLBACK && name.split('.').all(is_member))
        .ok_or(BadCallback)
}

/// Whether this is an identifier, or one and an index.
fn is_member(name: &str) -> bool {
    let (identifier, index) = match name.split_once('[') {
        Some((identifier, rest)) => (identifier, rest.strip_suffix(']')),
        None => (name, Some("0")),
    };
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$');
    identifier.bytes().all(is_part)
        && identifier.bytes().next().is_some_and(|first| !first.is_ascii_digit())
        && index.is_some_and(|index| {
            !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit())
        })
}

/// The script that calls `callback` with an array.
///
/// The client has chosen the name, so it must not stand first: a Flash file can be written in letters and digits alone, and
/// would be taken for one of this server's. The empty comment is in its way.
pub fn script(callback: &str, array: &[u8]) -> Vec<u8> {
    [b"/**/", callback.as_bytes(), b"(", array, b");\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ManyId, MessageId, Seen};

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const NONE: Missed = Missed { count: 0, at_least: false };

    fn step<'a>(tag: u32, content_type: &'a [u8], body: &'a [u8]) -> Step<'a> {
        let own_id = MessageId { time: 784_111_777, tag };
        Step {
            missed: NONE,
            envelope: Envelope {
                id: WrittenId::One(own_id),
                own_id,
                channel: None,
                content_type,
                event: b"",
            },
            body,
        }
    }

    fn after<'a>(count: u64, at_least: bool, step: Step<'a>) -> Step<'a> {
        Step { missed: Missed { count, at_least }, ..step }
    }

    fn reply_of(form: PollForm, steps: &[Step<'_>]) -> Reply {
        reply(form, steps, b"--\n", "b0b")
    }

    fn body(reply: &Reply) -> String {
        match &reply.body {
            ReplyBody::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => format!("{other:?}"),
        }
    }

    fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a [u8]> {
        reply.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_ref())
    }

    #[test]
    fn one_message_is_the_first_as_it_is() {
        let steps = [after(2, false, step(3, b"text/x", b"one")), step(4, b"", b"two")];
        let found = reply_of(PollForm::One, &steps);
        let [first, _] = steps;
        assert_eq!(
            found,
            subscriber::message(&first.envelope, first.missed).bytes(b"one".to_vec())
        );
        assert_eq!(header(&found, "Push-Missed"), Some(&b"2"[..]));
        assert_eq!(reply_of(PollForm::Multipart, &steps[..1]), found);
    }

    #[test]
    fn several_messages_are_parts() {
        let steps = [
            after(2, false, step(3, b"text/x", b"one")),
            step(4, b"", b""),
            after(1, true, step(5, b"", b"three")),
        ];
        let found = reply_of(PollForm::Multipart, &steps);
        assert_eq!(found.status, 200);
        assert_eq!(found.content_type.as_deref(), Some(&b"multipart/mixed; boundary=b0b"[..]));
        assert_eq!(header(&found, "Last-Modified"), Some(DATE.as_bytes()));
        assert_eq!(header(&found, "Etag"), Some(&b"5"[..]));
        assert_eq!(header(&found, "Push-Missed"), Some(&b"3;at-least"[..]));
        assert_eq!(header(&found, "Vary"), Some(&b"If-None-Match, If-Modified-Since"[..]));
        let fields = |tag| format!("Last-Modified: {DATE}\r\nEtag: {tag}\r\n");
        assert_eq!(
            body(&found),
            format!(
                "--b0b\r\n{}Content-Type: text/x\r\n\r\none\
                 \r\n--b0b\r\n{}\r\n\
                 \r\n--b0b\r\n{}\r\nthree\r\n--b0b--\r\n",
                fields(3),
                fields(4),
                fields(5)
            )
        );
    }

    #[test]
    fn parts_of_several_channels_say_which() {
        let id = ManyId { time: 784_111_777, tags: [Seen::UpTo(0), Seen::Before].into(), from: 0 };
        let of = |channel, step: Step<'static>| Step {
            envelope: Envelope {
                id: WrittenId::Many(&id),
                channel: Some(channel),
                ..step.envelope
            },
            ..step
        };
        let steps = [of(b"a", step(0, b"", b"one")), of(b"b", step(0, b"", b"two"))];
        let found = reply_of(PollForm::Multipart, &steps);
        assert_eq!(header(&found, "Etag"), Some(&b"[0],-"[..]));
        assert_eq!(header(&found, "Push-Channel"), None);
        let text = body(&found);
        assert!(text.contains("Push-Channel: a\r\n\r\none"), "{text}");
        assert!(text.contains("Push-Channel: b\r\n\r\ntwo"), "{text}");
        let joined = reply_of(PollForm::Joined, &steps);
        assert_eq!(header(&joined, "Push-Channel"), None);
        let joined = reply_of(PollForm::Joined, &steps[1..]);
        assert_eq!(header(&joined, "Push-Channel"), Some(&b"b"[..]));
    }

    #[test]
    fn joined_bodies_each_have_their_separator() {
        let steps =
            [after(2, false, step(3, b"text/x", b"one")), after(1, false, step(4, b"text/x", b""))];
        let found = reply_of(PollForm::Joined, &steps);
        assert_eq!(body(&found), "one--\n--\n");
        assert_eq!(found.content_type.as_deref(), Some(&b"text/x"[..]));
        assert_eq!(header(&found, "Etag"), Some(&b"4"[..]));
        assert_eq!(header(&found, "Push-Missed"), Some(&b"3"[..]));
        assert_eq!(body(&reply_of(PollForm::Joined, &steps[..1])), "one--\n");
        let mixed = [step(3, b"text/x", b"one"), step(4, b"text/y", b"two")];
        assert_eq!(reply_of(PollForm::Joined, &mixed).content_type, None);
    }

    #[test]
    fn what_was_missed_does_not_overflow() {
        let steps = [after(u64::MAX, false, step(3, b"", b"")), after(1, true, step(4, b"", b""))];
        let missed = format!("{};at-least", u64::MAX);
        for form in [PollForm::Multipart, PollForm::Joined] {
            assert_eq!(header(&reply_of(form, &steps), "Push-Missed"), Some(missed.as_bytes()));
        }
    }

    #[test]
    fn without_messages_a_reply_says_that_there_are_none() {
        for form in [PollForm::One, PollForm::Multipart, PollForm::Joined] {
            assert_eq!(reply_of(form, &[]), subscriber::timed_out());
        }
        assert_eq!(body(&reply_of(PollForm::Jsonp, &[])), "[]");
    }

    #[test]
    fn jsonp_is_an_array_with_gaps_where_they_are() {
        let steps =
            [step(3, b"text/x", b"</script>\xe2\x80\xa8"), after(2, false, step(4, b"", b"\xff"))];
        let found = reply_of(PollForm::Jsonp, &steps);
        assert_eq!(
            body(&found),
            "[{\"id\":\"784111777:3\",\"time\":784111777,\"type\":\"text/x\",\
             \"data\":\"\\u003c/script\\u003e\\u2028\"},\
             {\"missed\":2,\"at_least\":false},\
             {\"id\":\"784111777:4\",\"time\":784111777,\"base64\":\"/w==\"}]"
        );
        assert_eq!(found.status, 200);
        assert_eq!(
            found.content_type.as_deref(),
            Some(&b"application/javascript; charset=utf-8"[..])
        );
        assert_eq!(header(&found, "X-Content-Type-Options"), Some(&b"nosniff"[..]));
        assert_eq!(header(&found, "Cache-Control"), Some(&b"no-cache"[..]));
        assert_eq!((header(&found, "Last-Modified"), header(&found, "Etag")), (None, None));
    }

    #[test]
    fn replies_without_a_message_are_told_in_the_array() {
        let told = |reply: Reply| String::from_utf8_lossy(&array_of(&reply)).into_owned();
        assert_eq!(told(subscriber::timed_out()), "[{\"end\":\"timeout\"}]");
        assert_eq!(told(subscriber::gone()), "[{\"end\":\"deleted\"}]");
        assert_eq!(told(subscriber::conflict()), "[{\"end\":\"conflict\"}]");
        assert_eq!(told(Reply::empty(403)), "[{\"error\":403}]");
        assert_eq!(told(Reply::error_page(403)), "[{\"error\":403}]");
        assert_eq!(
            told(Reply::text(404, &b"No \"id\" <b>."[..])),
            "[{\"error\":404,\"reason\":\"No \\\"id\\\" \\u003cb\\u003e.\"}]"
        );
    }

    #[test]
    fn a_place_is_told_in_the_array() {
        let id = WrittenId::One(MessageId { time: 784_111_777, tag: 3 });
        let told = |missed| String::from_utf8_lossy(&array_of_place(id, missed)).into_owned();
        assert_eq!(told(NONE), "[{\"end\":\"timeout\",\"id\":\"784111777:3\"}]");
        assert_eq!(
            told(Missed { count: 2, at_least: false }),
            "[{\"missed\":2,\"at_least\":false},{\"end\":\"timeout\",\"id\":\"784111777:3\"}]"
        );
    }

    #[test]
    fn a_callback_is_a_name() {
        for (args, name) in [
            (&b""[..], "pushMessage"),
            (b"id=c&callbacks=x", "pushMessage"),
            (b"callback=f", "f"),
            (b"id=c&callback=f&callback=g", "f"),
            (b"callback=_$a9", "_$a9"),
            (b"callback=%6a%51uery.cb", "jQuery.cb"),
            (b"callback=a.b.c", "a.b.c"),
            (b"callback=a%5B12%5D.b[0]", "a[12].b[0]"),
        ] {
            assert_eq!(callback(args).as_deref(), Ok(name), "{}", String::from_utf8_lossy(args));
        }
        let longest = format!("callback={}", "%61".repeat(MAX_CALLBACK));
        assert_eq!(callback(longest.as_bytes()), Ok("a".repeat(MAX_CALLBACK)));
        assert!(has_callback(b"a=1&callback=") && has_callback(b"callback"));
        assert!(!has_callback(b"") && !has_callback(b"a=callback&Callback=x"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in [
            "",
            "1a",
            "a.",
            ".a",
            "a..b",
            "a b",
            "a+b",
            "a-b",
            "a(b",
            "a;b",
            "alert(1)//",
            "a[",
            "a[]",
            "a[x]",
            "a[1",
            "a]",
            "a[1]b",
            "[1]",
            "a[1][2]",
            "a[-1]",
            "a%00",
            "a%",
            "a%0a",
            "%C3%A4",
            "ä",
            "%ff",
            "a'",
            "a\"",
            "<a>",
            "a/*",
            "a,b",
            "a=b",
            "a\\u0041",
        ] {
            let args = format!("callback={bad}");
            assert_eq!(callback(args.as_bytes()), Err(BadCallback), "{bad}");
        }
        for length in [MAX_CALLBACK + 1, 10 * MAX_CALLBACK] {
            let args = format!("callback={}", "a".repeat(length));
            assert_eq!(callback(args.as_bytes()), Err(BadCallback));
        }
        let reply = BadCallback.reply();
        assert_eq!(reply.status, 400);
        let sentence = "The argument \"callback\" must be a JavaScript name, such as a.b or a[0], \
                        of at most 128 bytes.";
        assert_eq!(body(&reply), sentence);
    }

    #[test]
    fn a_script_calls_the_function_and_begins_with_a_comment() {
        assert_eq!(script("a.b", b"[{}]"), b"/**/a.b([{}]);\n");
    }
}
