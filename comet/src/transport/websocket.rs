//! WebSocket: a frame for each message (RFC 6455), in the form that the handshake has settled.

use super::{End, Framing};
use crate::message::{Envelope, Missed};
use crate::reply::Reply;
use crate::websocket::{self, Form};
use crate::wire::object;

/// The close code for a client that has missed messages, from the range for private use (RFC 6455, section 7.4.2).
const MISSED: u16 = 4000;

impl Framing for Form {
    /// Not all of it: the handshake adds what it has settled ([`websocket::Accepted::reply`]).
    fn head(&self, missed: Missed) -> Reply {
        Reply::empty(101).missed(missed)
    }

    fn opening(&self, _retry: u64, missed: Missed) -> Vec<u8> {
        match missed.is_none() {
            true => Vec::new(),
            false => self.missed(missed).unwrap_or_default(),
        }
    }

    fn message(&self, envelope: &Envelope<'_>, body: &[u8]) -> Vec<u8> {
        websocket::message_frame(*self, envelope, body)
    }

    /// Without a protocol for it, a frame would look like a message.
    fn missed(&self, missed: Missed) -> Option<Vec<u8>> {
        self.is_json().then(|| websocket::text(object::gap(missed).as_bytes()))
    }

    fn left(&self, channel: &[u8]) -> Vec<u8> {
        match self.is_json() {
            true => websocket::text(object::left(channel).as_bytes()),
            false => Vec::new(),
        }
    }

    fn ping(&self) -> Option<Vec<u8>> {
        Some(websocket::ping(b""))
    }

    fn end(&self, end: End) -> Vec<u8> {
        match end {
            End::Deleted => websocket::close(1001, "channel deleted"),
            End::Conflict => websocket::close(1008, "another subscriber came"),
            End::TimedOut => websocket::close(1000, "timeout"),
            End::Shutdown { .. } => websocket::close(1012, "worker leaves"),
            End::Missed(missed) => {
                let least = if missed.at_least { "at least " } else { "" };
                websocket::close(MISSED, &format!("missed {least}{} messages", missed.count))
            }
        }
    }
}
