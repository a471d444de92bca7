//! How a subscriber is served: the choice of a transport, and what each stream writes.
//!
//! A stream's format is a [`Framing`]: values go in, bytes come out, nothing is kept. The bytes of a message, of a ping
//! and of an end are the same for every client of a format, so that the edge makes them once and shares them.

mod choice;
mod event_source;
mod format;
mod iframe;
mod json_lines;
mod lines;
mod multipart;
mod websocket;

pub use choice::{choose, Asked, Transport, Transports, Unserved};
pub use event_source::EventSource;
pub use format::Format;
pub use iframe::Iframe;
pub use json_lines::JsonLines;
pub use lines::Lines;
pub use multipart::Multipart;

use std::borrow::Cow;

use crate::message::{Envelope, Missed, WrittenId};
use crate::reply::Reply;

/// Why a stream ends although its client is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The channel was deleted.
    Deleted,
    /// Another subscriber came (`push_subscriber_concurrency last`).
    Conflict,
    /// `push_subscriber_timeout` is over.
    TimedOut,
    /// The worker leaves.
    Shutdown {
        /// How long the client should wait before it comes back, in milliseconds: random, so that not all come at once.
        retry: u64,
    },
    /// The subscriber has missed messages, and the format cannot say so ([`Framing::missed`] is `None`).
    Missed(Missed),
}

/// What a stream writes.
pub trait Framing {
    /// The head of the reply. It has no length: the body goes on until the stream ends, so the edge leaves out the one
    /// that [`ReplyBody::Empty`](crate::reply::ReplyBody::Empty) would have.
    ///
    /// `missed` is what was missed before the first message, as far as it is known: a format that cannot say it in the
    /// body says it in [`MISSED_HEADER`](crate::reply::MISSED_HEADER).
    fn head(&self, missed: Missed) -> Reply;

    /// The first bytes of the body; may be empty.
    ///
    /// `retry` is how long the client should wait before it reconnects, in milliseconds; 0 leaves that to the client.
    /// `missed` is the same as for the head.
    fn opening(&self, retry: u64, missed: Missed) -> Vec<u8>;

    /// Tells a client that has named no position its place, so that it goes on there if it gets no message before the
    /// connection ends; empty if the format cannot.
    fn place(&self, id: WrittenId<'_>) -> Vec<u8> {
        let _ = id;
        Vec::new()
    }

    /// A message. `body` is its content, which the edge may have read from a file.
    fn message(&self, envelope: &Envelope<'_>, body: &[u8]) -> Vec<u8>;

    /// Tells that messages are missing before the next one; `None` if the format cannot say it, and the stream must end
    /// by [`End::Missed`].
    fn missed(&self, missed: Missed) -> Option<Vec<u8>>;

    /// Whether it can tell of a gap at any time. If not, what is gone already is told as the stream begins, also if there
    /// is no message after it yet: ended by it later, the client might come back to such a gap each time.
    fn has_words_for_gaps(&self) -> bool {
        self.missed(Missed::default()).is_some()
    }

    /// Tells a subscriber of several channels that one of them was deleted; empty if the format cannot.
    fn left(&self, channel: &[u8]) -> Vec<u8> {
        let _ = channel;
        Vec::new()
    }

    /// A sign of life that clients take no notice of; `None` if the format has none.
    fn ping(&self) -> Option<Vec<u8>>;

    /// The last bytes of the body; may be empty.
    ///
    /// After [`End::Missed`] the edge cuts the connection off, after the others it ends the body as HTTP has it.
    fn end(&self, end: End) -> Vec<u8>;
}

/// The head that all streams share.
///
/// A stream is of no use to a cache, nor out of a buffer: proxying nginxes take `X-Accel-Buffering` as an order.
fn stream_head(content_type: impl Into<Cow<'static, [u8]>>) -> Reply {
    Reply { content_type: Some(content_type.into()), ..Reply::empty(200) }
        .header("Cache-Control", &b"no-cache"[..])
        .header("X-Accel-Buffering", &b"no"[..])
}

#[cfg(test)]
mod samples {
    use super::*;
    use crate::message::{ManyId, MessageId, Seen, WrittenId};

    pub const ID: MessageId = MessageId { time: 1_700_000_000, tag: 3 };
    pub const GAP: Missed = Missed { count: 3, at_least: false };
    pub const NO_GAP: Missed = Missed { count: 0, at_least: false };

    pub fn envelope<'a>(content_type: &'a [u8], event: &'a [u8]) -> Envelope<'a> {
        let id = WrittenId::One(ID);
        Envelope { id, own_id: ID, channel: None, content_type, event }
    }

    /// One of several channels.
    pub fn of_many(id: &ManyId) -> Envelope<'_> {
        Envelope { id: WrittenId::Many(id), channel: Some(b"b"), ..envelope(b"text/x", b"") }
    }

    pub fn many() -> ManyId {
        ManyId {
            time: 1_700_000_000,
            tags: [Seen::Before, Seen::UpTo(3), Seen::UpTo(0)].into(),
            from: 1,
        }
    }

    pub fn text(bytes: Vec<u8>) -> String {
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What every stream's head has.
    pub fn check_head(reply: &Reply, content_type: &str) {
        assert_eq!(reply.status, 200);
        assert_eq!(reply.content_type.as_deref(), Some(content_type.as_bytes()));
        let (names, values): (Vec<_>, Vec<_>) =
            reply.headers.iter().take(2).map(|(name, value)| (*name, value.as_ref())).unzip();
        assert_eq!(names, ["Cache-Control", "X-Accel-Buffering"]);
        assert_eq!(values, [&b"no-cache"[..], b"no"]);
    }
}
