//! JSON lines: `application/x-ndjson`, one JSON object a line.

use super::{stream_head, End, Framing};
use crate::message::{Envelope, Missed};
use crate::reply::Reply;
use crate::wire::object;

/// Objects a line each, ended by LF, for programs.
///
/// A message, a gap and an end are those of [`object`]. No other LF, and no CR, is ever written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonLines;

impl Framing for JsonLines {
    fn head(&self, _missed: Missed) -> Reply {
        stream_head(&b"application/x-ndjson"[..])
    }

    fn opening(&self, _retry: u64, missed: Missed) -> Vec<u8> {
        if missed.is_none() {
            return Vec::new();
        }
        line_of(object::gap(missed))
    }

    fn message(&self, envelope: &Envelope<'_>, body: &[u8]) -> Vec<u8> {
        line_of(object::message(envelope, body))
    }

    fn missed(&self, missed: Missed) -> Option<Vec<u8>> {
        Some(line_of(object::gap(missed)))
    }

    fn left(&self, channel: &[u8]) -> Vec<u8> {
        line_of(object::left(channel))
    }

    fn ping(&self) -> Option<Vec<u8>> {
        Some(b"\n".to_vec())
    }

    fn end(&self, end: End) -> Vec<u8> {
        match end {
            End::Deleted => line_of(object::end("deleted")),
            End::Conflict => line_of(object::end("conflict")),
            End::TimedOut => line_of(object::end("timeout")),
            End::Shutdown { .. } => line_of(object::end("shutdown")),
            End::Missed(missed) => line_of(object::gap(missed)),
        }
    }
}

fn line_of(mut object: String) -> Vec<u8> {
    object.push('\n');
    object.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::samples::{check_head, envelope, many, of_many, text, GAP, NO_GAP};
    use super::*;

    fn line(content_type: &[u8], event: &[u8], body: &[u8]) -> String {
        text(JsonLines.message(&envelope(content_type, event), body))
    }

    #[test]
    fn of_several_channels_it_says_which() {
        assert_eq!(
            text(JsonLines.message(&of_many(&many()), b"x")),
            "{\"id\":\"1700000000:-,[3],0\",\"time\":1700000000,\"channel\":\"b\",\
             \"type\":\"text/x\",\"data\":\"x\"}\n"
        );
    }

    #[test]
    fn the_head_is_that_of_json_lines() {
        let head = JsonLines.head(GAP);
        check_head(&head, "application/x-ndjson");
        assert_eq!(head.headers.len(), 2);
    }

    #[test]
    fn the_opening_is_the_gap_or_nothing() {
        assert_eq!(text(JsonLines.opening(2345, NO_GAP)), "");
        assert_eq!(text(JsonLines.opening(0, GAP)), "{\"missed\":3,\"at_least\":false}\n");
    }

    #[test]
    fn a_message_is_an_object() {
        assert_eq!(
            line(b"text/plain", b"name", b"text"),
            "{\"id\":\"1700000000:3\",\"time\":1700000000,\"type\":\"text/plain\",\
             \"event\":\"name\",\"data\":\"text\"}\n"
        );
    }

    #[test]
    fn what_the_publisher_did_not_give_is_left_out() {
        let start = "{\"id\":\"1700000000:3\",\"time\":1700000000,";
        assert_eq!(line(b"", b"", b""), format!("{start}\"data\":\"\"}}\n"));
        assert_eq!(line(b"", b"n", b""), format!("{start}\"event\":\"n\",\"data\":\"\"}}\n"));
        assert_eq!(line(b"t", b"", b""), format!("{start}\"type\":\"t\",\"data\":\"\"}}\n"));
    }

    #[test]
    fn everything_is_escaped() {
        assert_eq!(
            line(b"a/b; c=\"d\"", b"\n", b"\"\r\n\\\xe2\x80\xa8"),
            "{\"id\":\"1700000000:3\",\"time\":1700000000,\"type\":\"a/b; c=\\\"d\\\"\",\
             \"event\":\"\\n\",\"data\":\"\\\"\\r\\n\\\\\\u2028\"}\n"
        );
    }

    #[test]
    fn a_body_that_is_not_utf_8_is_base64() {
        assert!(line(b"", b"", b"\xff\0\xfe").ends_with(",\"base64\":\"/wD+\"}\n"));
        assert!(line(b"", b"", b"\xff").ends_with(",\"base64\":\"/w==\"}\n"));
    }

    #[test]
    fn names_that_are_not_utf_8_are_mended() {
        assert!(
            line(b"\xff", b"\xc3x", b"").contains("\"type\":\"\u{fffd}\",\"event\":\"\u{fffd}x\"")
        );
    }

    #[test]
    fn a_gap_is_an_object() {
        let missed = Missed { count: 5, at_least: true };
        assert_eq!(
            JsonLines.missed(missed).map(text).as_deref(),
            Some("{\"missed\":5,\"at_least\":true}\n")
        );
    }

    #[test]
    fn a_ping_is_an_empty_line() {
        assert_eq!(JsonLines.ping().as_deref(), Some(&b"\n"[..]));
    }

    #[test]
    fn ends_tell_why() {
        let end = |end| text(JsonLines.end(end));
        assert_eq!(end(End::Deleted), "{\"end\":\"deleted\"}\n");
        assert_eq!(end(End::Conflict), "{\"end\":\"conflict\"}\n");
        assert_eq!(end(End::TimedOut), "{\"end\":\"timeout\"}\n");
        assert_eq!(end(End::Shutdown { retry: 731 }), "{\"end\":\"shutdown\"}\n");
    }
}
