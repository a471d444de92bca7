//! The plain stream: bodies and separators, for shell scripts and the like.

use std::rc::Rc;

use super::{stream_head, End, Framing};
use crate::message::{Envelope, Missed};
use crate::reply::Reply;

/// Bodies as they are, each followed by the separator, and nothing else.
///
/// Whoever publishes bodies that contain the separator makes one message look like two. There is no way to say anything
/// but a message: a gap before the first one is told by the head, and a later one by cutting the stream off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    /// What follows each body (`push_stream_separator`).
    pub separator: Rc<[u8]>,
}

impl Framing for Lines {
    fn head(&self, missed: Missed) -> Reply {
        stream_head(&b"text/plain"[..]).missed(missed)
    }

    fn opening(&self, _retry: u64, _missed: Missed) -> Vec<u8> {
        Vec::new()
    }

    fn message(&self, _envelope: &Envelope<'_>, body: &[u8]) -> Vec<u8> {
        [body, &self.separator].concat()
    }

    fn missed(&self, _missed: Missed) -> Option<Vec<u8>> {
        None
    }

    fn ping(&self) -> Option<Vec<u8>> {
        None
    }

    fn end(&self, _end: End) -> Vec<u8> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{check_head, envelope, text, GAP, NO_GAP};
    use super::*;

    fn lines(separator: &[u8]) -> Lines {
        Lines { separator: separator.into() }
    }

    #[test]
    fn the_head_is_that_of_text_and_tells_what_was_missed() {
        let head = lines(b"\n").head(NO_GAP);
        check_head(&head, "text/plain");
        assert_eq!(head.headers.len(), 2);
        let head = lines(b"\n").head(GAP);
        check_head(&head, "text/plain");
        assert_eq!(head.headers.last(), Some(&("Push-Missed", b"3".as_slice().into())));
    }

    #[test]
    fn a_message_is_its_body_and_the_separator() {
        let message = envelope(b"text/x", b"name");
        assert_eq!(text(lines(b"\n").message(&message, b"hello")), "hello\n");
        assert_eq!(text(lines(b"--\r\n").message(&message, b"a\nb")), "a\nb--\r\n");
        assert_eq!(text(lines(b"\n").message(&message, b"")), "\n");
        assert_eq!(text(lines(b"").message(&message, b"hello")), "hello");
    }

    #[test]
    fn nothing_else_is_ever_written() {
        let lines = lines(b"\n");
        assert_eq!(lines.opening(2345, GAP), b"");
        assert_eq!((lines.missed(GAP), lines.ping()), (None, None));
        for end in [
            End::Deleted,
            End::Conflict,
            End::TimedOut,
            End::Shutdown { retry: 731 },
            End::Missed(GAP),
        ] {
            assert_eq!(lines.end(end), b"");
        }
    }
}
