//! Multipart streams (RFC 2046, section 5.1), as Nchan's clients know them: each part ends with the boundary.

use std::rc::Rc;

use base64::engine::general_purpose::STANDARD;
use base64::Engine;

use super::{stream_head, End, Framing};
use crate::message::{Envelope, Missed};
use crate::reply::{missed_value, Reply, CHANNEL_HEADER, MISSED_HEADER};
use crate::wire::http::{self, is_field_value};

/// Parts with the message's fields and its body, each followed at once by what divides it from the next, so that a client
/// need not wait for that to know that the part is whole.
///
/// A gap is an empty part with [`MISSED_HEADER`]. An end is the closing delimiter, whatever its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multipart {
    /// What divides parts; of the characters that need no quotes (RFC 2046, section 5.1.1).
    ///
    /// Long and random, so that no body has it by chance, nor on purpose unless its publisher has read a reply. As a
    /// publisher may be a subscriber too, bodies are searched for it, and one that has it is written in base64.
    pub boundary: Rc<str>,
    /// Whether a part takes the place of the one before it (`multipart/x-mixed-replace`): pictures in browsers.
    pub replace: bool,
}

/// Bytes that make a line of base64 (RFC 2045, section 6.8: at most 76 characters).
const LINE: usize = 57;

impl Multipart {
    fn delimiter(&self) -> String {
        format!("--{}", self.boundary)
    }
}

impl Framing for Multipart {
    fn head(&self, _missed: Missed) -> Reply {
        let subtype = if self.replace { "x-mixed-replace" } else { "mixed" };
        stream_head(format!("multipart/{subtype}; boundary={}", self.boundary).into_bytes())
    }

    fn opening(&self, _retry: u64, missed: Missed) -> Vec<u8> {
        let mut opening = self.delimiter().into_bytes();
        if !missed.is_none() {
            opening.extend(self.missed(missed).unwrap_or_default());
        }
        opening
    }

    fn message(&self, envelope: &Envelope<'_>, body: &[u8]) -> Vec<u8> {
        let delimiter = self.delimiter();
        let holds_delimiter = |text: &[u8]| contains(text, delimiter.as_bytes());
        let is_whole = |value: &[u8]| is_field_value(value) && !holds_delimiter(value);
        let mut part = Vec::with_capacity(body.len() + 192);
        push_field(&mut part, "Last-Modified", http::date(envelope.id.time()).as_bytes());
        push_field(&mut part, "Etag", envelope.id.tag().as_bytes());
        if !envelope.content_type.is_empty() && is_whole(envelope.content_type) {
            push_field(&mut part, "Content-Type", envelope.content_type);
        }
        if let Some(channel) = envelope.channel.filter(|channel| is_whole(channel)) {
            push_field(&mut part, CHANNEL_HEADER, channel);
        }
        if holds_delimiter(body) {
            push_field(&mut part, "Content-Transfer-Encoding", b"base64");
            part.extend_from_slice(b"\r\n");
            for bytes in body.chunks(LINE) {
                part.extend_from_slice(b"\r\n");
                part.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            }
        } else {
            part.extend_from_slice(b"\r\n\r\n");
            part.extend_from_slice(body);
        }
        part.extend_from_slice(b"\r\n");
        part.extend_from_slice(delimiter.as_bytes());
        part
    }

    fn missed(&self, missed: Missed) -> Option<Vec<u8>> {
        let (value, delimiter) = (missed_value(missed), self.delimiter());
        Some(format!("\r\n{MISSED_HEADER}: {value}\r\n\r\n\r\n{delimiter}").into_bytes())
    }

    /// None: after a delimiter, all but the rest of its line belongs to a part; and if spaces stood there, the closing
    /// delimiter could not.
    fn ping(&self) -> Option<Vec<u8>> {
        None
    }

    fn end(&self, _end: End) -> Vec<u8> {
        b"--\r\n".to_vec()
    }
}

/// Adds a field behind a delimiter, or behind a field.
fn push_field(part: &mut Vec<u8>, name: &str, value: &[u8]) {
    part.extend_from_slice(b"\r\n");
    part.extend_from_slice(name.as_bytes());
    part.extend_from_slice(b": ");
    part.extend_from_slice(value);
}

/// Whether `delimiter`, which begins with a hyphen, stands anywhere in `text`.
fn contains(text: &[u8], delimiter: &[u8]) -> bool {
    let mut rest = text;
    while let Some((_, from)) =
        rest.iter().position(|&byte| byte == b'-').and_then(|at| rest.split_at_checked(at))
    {
        if from.starts_with(delimiter) {
            return true;
        }
        rest = from.get(1..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::samples::{check_head, envelope, many, of_many, text, GAP, NO_GAP};
    use super::*;

    fn mixed() -> Multipart {
        Multipart { boundary: "b0b".into(), replace: false }
    }

    fn part(content_type: &[u8], body: &[u8]) -> String {
        text(mixed().message(&envelope(content_type, b"name"), body))
    }

    /// The fields that every part begins with.
    const START: &str = "\r\nLast-Modified: Tue, 14 Nov 2023 22:13:20 GMT\r\nEtag: 3\r\n";

    #[test]
    fn the_head_names_the_boundary() {
        let head = mixed().head(GAP);
        check_head(&head, "multipart/mixed; boundary=b0b");
        assert_eq!(head.headers.len(), 2);
        let head = Multipart { replace: true, ..mixed() }.head(NO_GAP);
        check_head(&head, "multipart/x-mixed-replace; boundary=b0b");
    }

    #[test]
    fn the_opening_is_the_first_delimiter() {
        assert_eq!(text(mixed().opening(2345, NO_GAP)), "--b0b");
        assert_eq!(text(mixed().opening(0, GAP)), "--b0b\r\nPush-Missed: 3\r\n\r\n\r\n--b0b");
    }

    #[test]
    fn a_message_is_a_part_and_the_delimiter_behind_it() {
        assert_eq!(
            part(b"text/plain", b"hello"),
            format!("{START}Content-Type: text/plain\r\n\r\nhello\r\n--b0b")
        );
        assert_eq!(part(b"", b""), format!("{START}\r\n\r\n--b0b"));
        assert_eq!(part(b"", b"\r\na\r\n"), format!("{START}\r\n\r\na\r\n\r\n--b0b"));
    }

    #[test]
    fn of_several_channels_a_field_says_which() {
        let part = text(mixed().message(&of_many(&many()), b"x"));
        assert!(part.contains("\r\nEtag: -,[3],0\r\n"), "{part}");
        assert!(part.ends_with("\r\nPush-Channel: b\r\n\r\nx\r\n--b0b"), "{part}");
        let id = many();
        let hostile = Envelope { channel: Some(b"b\r\nEtag: 9"), ..of_many(&id) };
        assert!(!text(mixed().message(&hostile, b"x")).contains("Push-Channel"));
    }

    #[test]
    fn a_content_type_that_would_break_out_is_left_out() {
        for content_type in [&b"a/b\r\n\r\nforged"[..], b"a\nb", b"a\0", b"x; y=\"--b0b--\""] {
            assert_eq!(part(content_type, b"x"), format!("{START}\r\nx\r\n--b0b"));
        }
    }

    #[test]
    fn a_body_with_the_delimiter_is_base64() {
        let encoded = "Content-Transfer-Encoding: base64\r\n\r\n";
        for (body, base64) in [
            ("--b0b", "LS1iMGI="),
            ("x\r\n--b0b--\r\n", "eA0KLS1iMGItLQ0K"),
            ("----b0b", "LS0tLWIwYg=="),
        ] {
            assert_eq!(
                part(b"", body.as_bytes()),
                format!("{START}{encoded}{base64}\r\n--b0b"),
                "{body:?}"
            );
        }
        let long = part(b"", "--b0b ".repeat(40).as_bytes());
        assert!(long.split("\r\n").all(|line| line.len() <= 76), "{long}");
        for body in ["--b0", "--B0B", "b0b--", "-", "--", "---b0c"] {
            assert_eq!(part(b"", body.as_bytes()), format!("{START}\r\n{body}\r\n--b0b"));
        }
    }

    #[test]
    fn a_gap_is_an_empty_part() {
        let missed = Missed { count: 5, at_least: true };
        assert_eq!(
            mixed().missed(missed).map(text).as_deref(),
            Some("\r\nPush-Missed: 5;at-least\r\n\r\n\r\n--b0b")
        );
    }

    #[test]
    fn there_is_no_ping() {
        assert_eq!(mixed().ping(), None);
    }

    #[test]
    fn every_end_closes() {
        for end in [End::Deleted, End::Conflict, End::TimedOut, End::Shutdown { retry: 731 }] {
            assert_eq!(mixed().end(end), b"--\r\n");
        }
    }
}
