//! The forever iframe (htmlfile in Internet Explorer): a page that never ends, of scripts that call its parent.

use super::{stream_head, End, Framing};
use crate::message::{Envelope, Missed};
use crate::reply::Reply;
use crate::wire::{json, object};

/// A page of scripts. Each calls `pushMessage` of the parent window, if there is such a function, with an object: a
/// message, a gap or an end, as JSON lines have them; an end at a shutdown has also `retry`, in milliseconds.
///
/// Without an end, the connection has broken. Bodies are values in scripts and never markup ([`json::for_script`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iframe;

/// What the page begins with.
const HEAD: &str =
    "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>push</title></head><body>\n";
/// Bytes in the comment after that: browsers looked at so many, or waited for them, before they ran the first script.
const PADDING: usize = 1024;

impl Framing for Iframe {
    fn head(&self, _missed: Missed) -> Reply {
        stream_head(&b"text/html; charset=utf-8"[..])
            .header("X-Content-Type-Options", &b"nosniff"[..])
    }

    fn opening(&self, _retry: u64, missed: Missed) -> Vec<u8> {
        let mut opening = format!("{HEAD}<!--{:PADDING$}-->\n", "").into_bytes();
        if !missed.is_none() {
            opening.extend(call(&object::gap(missed)));
        }
        opening
    }

    fn message(&self, envelope: &Envelope<'_>, body: &[u8]) -> Vec<u8> {
        call(&object::message(envelope, body))
    }

    fn missed(&self, missed: Missed) -> Option<Vec<u8>> {
        Some(call(&object::gap(missed)))
    }

    fn left(&self, channel: &[u8]) -> Vec<u8> {
        call(&object::left(channel))
    }

    fn ping(&self) -> Option<Vec<u8>> {
        Some(b"<!-- -->\n".to_vec())
    }

    fn end(&self, end: End) -> Vec<u8> {
        match end {
            End::Deleted => call(&object::end("deleted")),
            End::Conflict => call(&object::end("conflict")),
            End::TimedOut => call(&object::end("timeout")),
            End::Shutdown { retry } => call(&format!("{{\"end\":\"shutdown\",\"retry\":{retry}}}")),
            End::Missed(missed) => call(&object::gap(missed)),
        }
    }
}

/// A script that hands an object to the parent.
fn call(object: &str) -> Vec<u8> {
    let object = json::for_script(object);
    format!("<script>parent.pushMessage&&parent.pushMessage({object})</script>\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::samples::{check_head, envelope, many, of_many, text, GAP, NO_GAP};
    use super::*;

    /// What is handed over in a script.
    fn object(script: Vec<u8>) -> String {
        let script = text(script);
        script
            .strip_prefix("<script>parent.pushMessage&&parent.pushMessage(")
            .and_then(|rest| rest.strip_suffix(")</script>\n"))
            .unwrap_or_default()
            .to_owned()
    }

    fn message(body: &[u8]) -> String {
        object(Iframe.message(&envelope(b"text/plain", b"name"), body))
    }

    #[test]
    fn the_head_is_that_of_a_page() {
        let head = Iframe.head(GAP);
        check_head(&head, "text/html; charset=utf-8");
        let nosniff = ("X-Content-Type-Options", b"nosniff".as_slice().into());
        assert_eq!(head.headers.get(2..), Some(&[nosniff][..]));
    }

    #[test]
    fn the_opening_is_a_page_that_browsers_show_at_once() {
        let opening = text(Iframe.opening(2345, NO_GAP));
        let page = "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>push</title></head><body>\n<!--";
        assert!(opening.starts_with(page), "{opening}");
        assert!(opening.ends_with("-->\n") && opening.len() > 1024 + page.len(), "{opening}");
        let with_gap = text(Iframe.opening(2345, GAP));
        let gap = with_gap.strip_prefix(&opening).map(|gap| object(gap.into()));
        assert_eq!(gap.as_deref(), Some("{\"missed\":3,\"at_least\":false}"));
    }

    #[test]
    fn a_message_is_a_call_with_an_object() {
        assert_eq!(
            text(Iframe.message(&envelope(b"text/plain", b"name"), b"hello")),
            "<script>parent.pushMessage&&parent.pushMessage({\"id\":\"1700000000:3\",\
             \"time\":1700000000,\"type\":\"text/plain\",\"event\":\"name\",\"data\":\"hello\"})\
             </script>\n"
        );
        assert!(message(b"\xff").ends_with(",\"base64\":\"/w==\"}"));
    }

    #[test]
    fn of_several_channels_it_says_which() {
        let object = object(Iframe.message(&of_many(&many()), b"x"));
        assert!(object.contains("\"channel\":\"b\""), "{object}");
    }

    #[test]
    fn nothing_breaks_out_of_its_script() {
        for (body, data) in [
            ("</script>", "\\u003c/script\\u003e"),
            ("</SCRIPT ><img onerror=x>", "\\u003c/SCRIPT \\u003e\\u003cimg onerror=x\\u003e"),
            ("<!--<script>", "\\u003c!--\\u003cscript\\u003e"),
            ("-->]]>", "--\\u003e]]\\u003e"),
            ("&lt;&#60;", "\\u0026lt;\\u0026#60;"),
            ("\"});alert(1);({\"", "\\\"});alert(1);({\\\""),
            ("\\\"});\\", "\\\\\\\"});\\\\"),
            ("\u{2028}\u{2029}\r\n\0", "\\u2028\\u2029\\r\\n\\u0000"),
        ] {
            let expected = format!(",\"data\":\"{data}\"}}");
            assert!(message(body.as_bytes()).ends_with(&expected), "{body:?}");
        }
        let hostile = envelope(b"</script>", b"<!--");
        assert!(object(Iframe.message(&hostile, b""))
            .contains("\"type\":\"\\u003c/script\\u003e\",\"event\":\"\\u003c!--\""));
    }

    #[test]
    fn a_gap_is_a_call() {
        let missed = Missed { count: 5, at_least: true };
        assert_eq!(
            Iframe.missed(missed).map(object).as_deref(),
            Some("{\"missed\":5,\"at_least\":true}")
        );
    }

    #[test]
    fn a_ping_is_a_comment() {
        assert_eq!(Iframe.ping().as_deref(), Some(&b"<!-- -->\n"[..]));
    }

    #[test]
    fn ends_tell_why() {
        let end = |end| object(Iframe.end(end));
        assert_eq!(end(End::Deleted), "{\"end\":\"deleted\"}");
        assert_eq!(end(End::Conflict), "{\"end\":\"conflict\"}");
        assert_eq!(end(End::TimedOut), "{\"end\":\"timeout\"}");
        assert_eq!(end(End::Shutdown { retry: 731 }), "{\"end\":\"shutdown\",\"retry\":731}");
    }
}
