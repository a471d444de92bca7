//! EventSource: `text/event-stream` (WHATWG HTML, section 9.2).

use super::{stream_head, End, Framing};
use crate::message::{Envelope, Missed, WrittenId};
use crate::reply::Reply;
use crate::wire::object::{self, gap};

/// Events as browsers read them.
///
/// A message is an event with its id, its name if it has one, and a `data` field a line. With several channels a field
/// `channel` says which one; browsers ignore it, and their scripts find the channel's place in the id. The client gets all line ends
/// as LF; all other bytes pass as they are, and what is not UTF-8 the client replaces. A body takes at most seven times
/// its length and 64 bytes, if it is nothing but line ends. A gap and an end are events of those names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventSource;

/// A comment that says nothing.
const COMMENT: &[u8] = b":\n\n";

impl Framing for EventSource {
    fn head(&self, _missed: Missed) -> Reply {
        stream_head(&b"text/event-stream; charset=utf-8"[..])
    }

    /// Never empty, so that the client's `open` event does not wait for a message on any proxy's way. Nor does the first
    /// message's body ever stand where a byte order mark would be taken away.
    fn opening(&self, retry: u64, missed: Missed) -> Vec<u8> {
        let mut opening = match retry {
            0 => COMMENT.to_vec(),
            _ => format!("retry: {retry}\n\n").into_bytes(),
        };
        if !missed.is_none() {
            opening.extend(gap_event(missed));
        }
        opening
    }

    /// Without data it is no event, but the client's last id all the same.
    fn place(&self, id: WrittenId<'_>) -> Vec<u8> {
        format!("id: {id}\n\n").into_bytes()
    }

    fn message(&self, envelope: &Envelope<'_>, body: &[u8]) -> Vec<u8> {
        let mut event = Vec::with_capacity(body.len() + envelope.event.len() + 64);
        event.extend(format!("id: {}\n", envelope.id).into_bytes());
        if let Some(channel) = envelope.channel.filter(|channel| is_name(channel)) {
            push_field(&mut event, b"channel: ", channel);
        }
        if is_name(envelope.event) && !TAKEN.contains(&envelope.event) {
            push_field(&mut event, b"event: ", envelope.event);
        }
        for line in lines(body) {
            push_field(&mut event, b"data: ", line);
        }
        event.push(b'\n');
        event
    }

    fn missed(&self, missed: Missed) -> Option<Vec<u8>> {
        Some(gap_event(missed))
    }

    fn left(&self, channel: &[u8]) -> Vec<u8> {
        format!("event: left\ndata: {}\n\n", object::left(channel)).into_bytes()
    }

    fn ping(&self) -> Option<Vec<u8>> {
        Some(COMMENT.to_vec())
    }

    fn end(&self, end: End) -> Vec<u8> {
        match end {
            End::Deleted => end_event("deleted"),
            End::Conflict => end_event("conflict"),
            End::TimedOut => b": timeout\n\n".to_vec(),
            End::Shutdown { retry } => format!("retry: {retry}\n: shutdown\n\n").into_bytes(),
            End::Missed(missed) => gap_event(missed),
        }
    }
}

/// Without an id, so that a client that reconnects now is told of the gap again.
fn gap_event(missed: Missed) -> Vec<u8> {
    format!("event: gap\ndata: {}\n\n", gap(missed)).into_bytes()
}

fn end_event(reason: &str) -> Vec<u8> {
    format!("event: end\ndata: {{\"reason\":\"{reason}\"}}\n\n").into_bytes()
}

/// Adds a field. The space that ends `name` is the one that the client takes away, so that the value may begin with one.
fn push_field(event: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    event.extend_from_slice(name);
    event.extend_from_slice(value);
    event.push(b'\n');
}

/// Names of events that this module uses itself. With one of them, a publisher could end the subscription of everybody else.
const TAKEN: [&[u8]; 3] = [b"gap", b"left", b"end"];

/// Whether there is an event name that stays within its field: with a line end in it a publisher could write fields, and
/// events, of its own (CWE-93).
fn is_name(event: &[u8]) -> bool {
    !event.is_empty() && !event.iter().any(|byte| matches!(byte, b'\r' | b'\n' | b'\0'))
}

/// The lines of `body`, which CR LF, LF or CR divide: one more than there are line ends.
fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(body);
    std::iter::from_fn(move || {
        let body = rest?;
        let end = body.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(body.len());
        let (line, after) = body.split_at_checked(end)?;
        rest = match after {
            [b'\r', b'\n', after @ ..] | [_, after @ ..] => Some(after),
            [] => None,
        };
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::{check_head, envelope, many, of_many, text, GAP, NO_GAP};
    use super::*;

    fn event(name: &[u8], body: &[u8]) -> String {
        text(EventSource.message(&envelope(b"text/plain", name), body))
    }

    #[test]
    fn of_several_channels_a_field_says_which() {
        assert_eq!(
            text(EventSource.message(&of_many(&many()), b"x")),
            "id: 1700000000:-,[3],0\nchannel: b\ndata: x\n\n"
        );
        let id = many();
        let hostile = Envelope { channel: Some(b"b\nid: 1:1"), ..of_many(&id) };
        assert!(!text(EventSource.message(&hostile, b"x")).contains("channel"));
    }

    #[test]
    fn the_head_is_that_of_an_event_stream() {
        let head = EventSource.head(GAP);
        check_head(&head, "text/event-stream; charset=utf-8");
        assert_eq!(head.headers.len(), 2);
    }

    #[test]
    fn the_opening_says_when_to_come_back_and_is_never_empty() {
        assert_eq!(text(EventSource.opening(2345, NO_GAP)), "retry: 2345\n\n");
        assert_eq!(text(EventSource.opening(0, NO_GAP)), ":\n\n");
        assert_eq!(
            text(EventSource.opening(2345, GAP)),
            "retry: 2345\n\nevent: gap\ndata: {\"missed\":3,\"at_least\":false}\n\n"
        );
    }

    #[test]
    fn a_place_is_an_id_and_no_event() {
        let id = crate::message::MessageId { time: 1_700_000_000, tag: 3 };
        assert_eq!(text(EventSource.place(WrittenId::One(id))), "id: 1700000000:3\n\n");
    }

    #[test]
    fn a_message_has_its_id_its_name_and_its_lines() {
        assert_eq!(event(b"", b"hello"), "id: 1700000000:3\ndata: hello\n\n");
        assert_eq!(
            event(b"greeting", b"hello\nworld"),
            "id: 1700000000:3\nevent: greeting\ndata: hello\ndata: world\n\n"
        );
    }

    #[test]
    fn an_empty_message_is_an_event() {
        assert_eq!(event(b"", b""), "id: 1700000000:3\ndata: \n\n");
    }

    #[test]
    fn lines_end_with_cr_lf_or_both() {
        let divided = |body| lines(body).collect::<Vec<_>>();
        assert_eq!(divided(b"a\r\nb\nc\rd"), [b"a", b"b", b"c", b"d"]);
        assert_eq!(divided(b"a\n"), [&b"a"[..], b""]);
        assert_eq!(divided(b"\r\n"), [b"", b""]);
        assert_eq!(divided(b"\n\r"), [b"", b"", b""]);
        assert_eq!(divided(b"\r\r\n"), [b"", b"", b""]);
        assert_eq!(divided(b""), [b""]);
    }

    #[test]
    fn a_body_cannot_write_fields_of_its_own() {
        assert_eq!(
            event(b"", b"x\n\nid: 9:9\revent: gap\r\n: "),
            "id: 1700000000:3\ndata: x\ndata: \ndata: id: 9:9\ndata: event: gap\ndata: : \n\n"
        );
    }

    #[test]
    fn a_name_that_would_break_out_is_left_out() {
        for name in [&b"a\nb"[..], b"a\rb", b"\r\n", b"a\0b", b"a\n\ndata: x"] {
            assert_eq!(event(name, b"hello"), "id: 1700000000:3\ndata: hello\n\n");
        }
        assert_eq!(event(b" a: b", b""), "id: 1700000000:3\nevent:  a: b\ndata: \n\n");
    }

    #[test]
    fn a_name_that_means_something_else_is_left_out() {
        for name in [&b"gap"[..], b"left", b"end"] {
            assert_eq!(event(name, b"hello"), "id: 1700000000:3\ndata: hello\n\n");
        }
        assert!(event(b"End", b"hello").contains("event: End\n"));
    }

    #[test]
    fn bytes_that_are_not_utf_8_pass() {
        let event = EventSource.message(&envelope(b"", b""), b"\xff\xfe\0\xc3");
        assert_eq!(event, b"id: 1700000000:3\ndata: \xff\xfe\0\xc3\n\n");
    }

    #[test]
    fn a_gap_is_an_event_without_an_id() {
        assert_eq!(
            EventSource.missed(GAP).map(text).as_deref(),
            Some("event: gap\ndata: {\"missed\":3,\"at_least\":false}\n\n")
        );
    }

    #[test]
    fn a_ping_is_a_comment() {
        assert_eq!(EventSource.ping().as_deref(), Some(&b":\n\n"[..]));
    }

    #[test]
    fn ends_tell_why() {
        let end = |end| text(EventSource.end(end));
        assert_eq!(end(End::Deleted), "event: end\ndata: {\"reason\":\"deleted\"}\n\n");
        assert_eq!(end(End::Conflict), "event: end\ndata: {\"reason\":\"conflict\"}\n\n");
        assert_eq!(end(End::TimedOut), ": timeout\n\n");
        assert_eq!(end(End::Shutdown { retry: 731 }), "retry: 731\n: shutdown\n\n");
    }
}
