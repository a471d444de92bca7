//! What is published, and its place in the channel's order.

use std::fmt;

/// A message's id as NHPM's clients see it: `Last-Modified` and `Etag`.
///
/// Ids of one channel strictly increase in publishing order, also when the wall clock steps back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// Seconds since 1970, rendered as the HTTP date in `Last-Modified`.
    pub time: u64,
    /// Counter within that second, rendered as the decimal, unquoted `Etag`.
    pub tag: u32,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.time, self.tag)
    }
}

/// One life of a channel, from its creation to its deletion or collection.
///
/// A number that the zone gives once and never again, so that a cursor into an earlier life is known as such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life(pub u64);

/// "What comes after this": a place in the log of one life of a channel.
///
/// Sequence numbers begin at 1 and have no gaps, so the distance between two cursors of one life is the number of
/// messages between them. Example: with messages 4..=7 in the log, a cursor at 5 gets 6 next; a cursor at 2 gets 4,
/// and has missed one (3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The life of the channel that this cursor belongs to.
    pub life: Life,
    /// The sequence number of the last message seen; 0 before the first.
    pub seq: u64,
}

/// Where a subscriber asks to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// With the oldest message in the queue (a client without a cursor).
    Oldest,
    /// With the message after this one.
    After(MessageId),
    /// With the next message to be published.
    Newest,
}

/// How many messages a subscriber has missed since its cursor, because the log has moved past it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// The number of messages.
    pub count: u64,
    /// Whether it may have been more: the cursor is older than what the log still knows about dropped messages.
    pub at_least: bool,
}

impl Missed {
    /// Whether nothing was missed.
    pub fn is_none(&self) -> bool {
        self.count == 0 && !self.at_least
    }
}

/// A worker's own copy of a message, shared by all subscribers that it serves (invariant I4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The id that clients see.
    pub id: MessageId,
    /// The place in the log.
    pub cursor: Cursor,
    /// The publisher's `Content-Type`; empty if it sent none.
    pub content_type: Box<[u8]>,
    /// The publisher's name for the kind of event; empty if it gave none.
    pub event: Box<[u8]>,
    /// What was published.
    pub body: Body,
    /// The publisher asked for the message to go once it has been received (`push_delete_oldest_received_message`).
    pub delete_when_received: bool,
}

/// A message's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// In memory.
    Bytes(Box<[u8]>),
    /// In a file: a body that nginx had put into a temporary file stays on disk.
    File {
        /// Absolute path.
        path: Box<[u8]>,
        /// Length in bytes.
        len: u64,
    },
}

impl Body {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::File { len, .. } => *len,
        }
    }

    /// Whether the message is an empty one, which is legal.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
