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

/// A message's id as subscribers of several channels see it: a position in each of them, as Nchan's clients know it.
///
/// Ids are given in publishing order over all channels, so one time will do: of each channel it says which messages of
/// that second have been seen, and all of the seconds before have been. Example: `1700000000:-,[3],0` is message 3 of that
/// second in the second channel; of the first channel nothing of that second has been seen, of the third one message 0.
/// `x1699999999.4` is a channel that was deleted meanwhile, after this message of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ManyId {
    /// Seconds since 1970.
    pub time: u64,
    /// What has been seen of each channel.
    pub tags: Box<[Seen]>,
    /// Which channel the message came from.
    pub from: usize,
}

/// What a subscriber of several channels has seen in one of them, as its id says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    /// Everything before the id's second, and nothing of it.
    Before,
    /// Everything up to the message of this second that has this tag.
    UpTo(u32),
    /// The channel was deleted: nothing of what was published under its name after this id, of whatever second.
    Lost(MessageId),
}

impl fmt::Display for ManyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.time, Tags(self))
    }
}

/// The part of an id that is the `Etag`.
struct Tags<'a>(&'a ManyId);

impl fmt::Display for Tags<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [Seen::UpTo(tag)] = &*self.0.tags {
            return write!(f, "{tag}");
        }
        for (place, tag) in self.0.tags.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            match tag {
                Seen::UpTo(tag) if place == self.0.from => write!(f, "[{tag}]")?,
                Seen::UpTo(tag) => write!(f, "{tag}")?,
                Seen::Before => f.write_str("-")?,
                Seen::Lost(MessageId { time, tag }) => write!(f, "x{time}.{tag}")?,
            }
        }
        Ok(())
    }
}

/// An id as a subscription writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenId<'a> {
    /// Of one channel.
    One(MessageId),
    /// Of several channels.
    Many(&'a ManyId),
}

impl WrittenId<'_> {
    /// Seconds since 1970.
    pub fn time(&self) -> u64 {
        match self {
            WrittenId::One(id) => id.time,
            WrittenId::Many(id) => id.time,
        }
    }

    /// What stands after the time: the `Etag` of HTTP.
    pub fn tag(&self) -> String {
        match self {
            WrittenId::One(id) => id.tag.to_string(),
            WrittenId::Many(id) => Tags(id).to_string(),
        }
    }
}

impl fmt::Display for WrittenId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WrittenId::One(id) => id.fmt(f),
            WrittenId::Many(id) => id.fmt(f),
        }
    }
}

/// What a subscriber is told of a message beside its body.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The id.
    pub id: WrittenId<'a>,
    /// The id within its channel.
    pub own_id: MessageId,
    /// The channel it came from, for subscribers of several.
    pub channel: Option<&'a [u8]>,
    /// The publisher's `Content-Type`; empty if it sent none.
    pub content_type: &'a [u8],
    /// The publisher's name for the kind of event; empty if it gave none.
    pub event: &'a [u8],
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
    /// With the first message of a later second than this one, of which it is not known what was seen: something may have
    /// been missed (a cursor that was given for other channels).
    Past(u64),
    /// With the first message of this second or of a later one, in a channel that may have taken the place of one that was
    /// deleted: what was published after `lost` and before that second has been missed.
    Anew {
        /// The second.
        time: u64,
        /// The last message that was seen of the channel that was deleted.
        lost: MessageId,
    },
    /// With the next message to be published.
    Newest,
    /// With the one at this place in the queue, from the oldest on; the oldest is 1.
    Nth(u32),
    /// With so many of the newest messages.
    Last(u32),
}

impl Position {
    /// With the first message of a second, or of a later one.
    pub fn since(time: u64) -> Self {
        match time.saturating_sub(1) {
            0 => Position::Oldest,
            before => Position::After(MessageId { time: before, tag: u32::MAX }),
        }
    }

    /// Whether what is published moves it: who has found nothing there and asks for it again would pass over messages, and
    /// has to be told an id to go on after.
    pub fn moves(self) -> bool {
        match self {
            Position::Newest | Position::Nth(_) | Position::Last(_) => true,
            Position::Oldest | Position::After(_) | Position::Past(_) | Position::Anew { .. } => {
                false
            }
        }
    }

    /// The id that all messages from here on are above, if it names one.
    pub fn id(self) -> Option<MessageId> {
        match self {
            Position::After(id) => Some(id),
            Position::Past(time) => Some(MessageId { time, tag: u32::MAX }),
            Position::Anew { time, .. } => {
                Some(MessageId { time: time.saturating_sub(1), tag: u32::MAX })
            }
            Position::Oldest | Position::Newest | Position::Nth(_) | Position::Last(_) => None,
        }
    }
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

    /// These and others.
    pub fn and(self, others: Missed) -> Self {
        Missed {
            count: self.count.saturating_add(others.count),
            at_least: self.at_least || others.at_least,
        }
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

impl Message {
    /// What subscribers of its channel alone are told.
    pub fn envelope(&self) -> Envelope<'_> {
        Envelope {
            id: WrittenId::One(self.id),
            own_id: self.id,
            channel: None,
            content_type: &self.content_type,
            event: &self.event,
        }
    }
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
