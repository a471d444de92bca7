//! All formats as one type.

use super::{End, EventSource, Framing, Iframe, JsonLines, Lines, Multipart};
use crate::message::{Envelope, Missed, WrittenId};
use crate::reply::Reply;
use crate::websocket::Form;

/// The format of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/event-stream`.
    EventSource(EventSource),
    /// `application/x-ndjson`.
    JsonLines(JsonLines),
    /// Bodies and separators.
    Lines(Lines),
    /// `multipart/mixed` or `multipart/x-mixed-replace`.
    Multipart(Multipart),
    /// A page of scripts.
    Iframe(Iframe),
    /// Frames of a WebSocket, as the handshake has settled it.
    WebSocket(Form),
}

impl Format {
    fn framing(&self) -> &dyn Framing {
        match self {
            Format::EventSource(framing) => framing,
            Format::JsonLines(framing) => framing,
            Format::Lines(framing) => framing,
            Format::Multipart(framing) => framing,
            Format::Iframe(framing) => framing,
            Format::WebSocket(framing) => framing,
        }
    }

    /// Whether the client talks, and a stream ends with a handshake ([`crate::websocket`]).
    pub fn is_websocket(&self) -> bool {
        matches!(self, Format::WebSocket(_))
    }
}

impl Framing for Format {
    fn head(&self, missed: Missed) -> Reply {
        self.framing().head(missed)
    }

    fn opening(&self, retry: u64, missed: Missed) -> Vec<u8> {
        self.framing().opening(retry, missed)
    }

    fn place(&self, id: WrittenId<'_>) -> Vec<u8> {
        self.framing().place(id)
    }

    fn message(&self, envelope: &Envelope<'_>, body: &[u8]) -> Vec<u8> {
        self.framing().message(envelope, body)
    }

    fn missed(&self, missed: Missed) -> Option<Vec<u8>> {
        self.framing().missed(missed)
    }

    fn left(&self, channel: &[u8]) -> Vec<u8> {
        self.framing().left(channel)
    }

    fn ping(&self) -> Option<Vec<u8>> {
        self.framing().ping()
    }

    fn end(&self, end: End) -> Vec<u8> {
        self.framing().end(end)
    }
}
