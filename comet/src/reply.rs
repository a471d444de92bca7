//! Replies as values: what to answer, for the edge to send.

use std::borrow::Cow;

use crate::message::{Missed, WrittenId};

/// The header that tells how many messages a subscriber has missed (invariant I5): `3`, or `3;at-least` if it may have
/// been more.
pub const MISSED_HEADER: &str = "Push-Missed";

/// The header that tells which channel a message came from, where a subscriber has several.
pub const CHANNEL_HEADER: &str = "Push-Channel";

/// A complete reply but for the message that it may carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status code.
    pub status: u16,
    /// `Content-Type`, if any. Never replaced by `default_type`.
    pub content_type: Option<Cow<'static, [u8]>>,
    /// Further header fields, in this order.
    pub headers: Vec<(&'static str, Cow<'static, [u8]>)>,
    /// What follows the head.
    pub body: ReplyBody,
}

/// The body of a [`Reply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyBody {
    /// `Content-Length: 0` (no body and no length for a 304).
    Empty,
    /// The server's own error page for the status, so that `error_page` works.
    ErrorPage,
    /// These bytes.
    Bytes(Cow<'static, [u8]>),
    /// The message that the reply was made for.
    Message,
}

impl Reply {
    /// An empty reply.
    pub fn empty(status: u16) -> Self {
        Reply { status, content_type: None, headers: Vec::new(), body: ReplyBody::Empty }
    }

    /// The server's own error page.
    pub fn error_page(status: u16) -> Self {
        Reply { body: ReplyBody::ErrorPage, ..Reply::empty(status) }
    }

    /// A sentence for a person.
    pub fn text(status: u16, sentence: impl Into<Cow<'static, [u8]>>) -> Self {
        Reply {
            content_type: Some(Cow::Borrowed(b"text/plain")),
            body: ReplyBody::Bytes(sentence.into()),
            ..Reply::empty(status)
        }
    }

    /// Sets the body.
    pub fn bytes(mut self, bytes: Vec<u8>) -> Self {
        self.body = ReplyBody::Bytes(bytes.into());
        self
    }

    /// Adds a header field.
    pub fn header(mut self, name: &'static str, value: impl Into<Cow<'static, [u8]>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds the message id as `Last-Modified` and `Etag`.
    pub fn message_id(self, id: WrittenId<'_>) -> Self {
        self.header("Last-Modified", crate::wire::http::date(id.time()).into_bytes())
            .header("Etag", id.tag().into_bytes())
    }

    /// Adds [`MISSED_HEADER`] if something was missed.
    pub fn missed(self, missed: Missed) -> Self {
        if missed.is_none() {
            return self;
        }
        self.header(MISSED_HEADER, missed_value(missed).into_bytes())
    }
}

/// The value of [`MISSED_HEADER`].
pub(crate) fn missed_value(missed: Missed) -> String {
    let bound = if missed.at_least { ";at-least" } else { "" };
    format!("{}{bound}", missed.count)
}
