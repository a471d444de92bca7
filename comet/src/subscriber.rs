//! The subscriber location: what a method asks for, and the replies (NHPM's subscriber protocol).
//!
//! A reply that was waited for is made by the same functions as one that was served at once (invariant I6).

use thiserror::Error;

pub use crate::channel_id::no_channel_id;
use crate::cors::Access;
use crate::message::{Envelope, Missed, Position, WrittenId};
use crate::publisher;
use crate::reply::{Reply, ReplyBody};
pub use crate::reply::{CHANNEL_HEADER, MISSED_HEADER};
use crate::wire::http::is_field_value;

/// The methods of a subscriber location, as `Allow` and the CORS reply name them.
const METHODS: &[u8] = b"GET, OPTIONS";

/// What scripts of other origins may send, where `push_cors_origin` says which those are.
pub const ACCESS: Access = Access {
    methods: METHODS,
    headers: b"Authorization, Cache-Control, If-Modified-Since, If-None-Match, Last-Event-ID, Pragma, X-Requested-With",
};

/// The same for a location that is for publishers as well.
pub const ACCESS_TO_BOTH: Access = Access {
    methods: publisher::ACCESS.methods,
    headers: b"Authorization, Cache-Control, Content-Type, If-Modified-Since, If-None-Match, Last-Event-ID, Pragma, \
               Push-Event, X-EventSource-Event, X-Requested-With",
};

/// What a request to a subscriber location asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The next message.
    Subscribe,
    /// What scripts of other origins may do.
    Preflight,
    /// Nothing that a subscriber location does.
    NotAllowed,
}

/// What `method` asks for. Methods are case-sensitive (RFC 9110, section 9.1).
pub fn action(method: &[u8]) -> Action {
    match method {
        b"GET" => Action::Subscribe,
        b"OPTIONS" => Action::Preflight,
        _ => Action::NotAllowed,
    }
}

/// Why a subscriber is not served.
///
/// The texts are for the log and, where the reply has a body, for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// `push_authorized_channels_only`: nobody has published to the channel yet.
    #[error("The channel does not exist, and push_authorized_channels_only is on.")]
    NotAuthorized,
    /// `push_max_channel_subscribers`: as many are waiting already.
    #[error("The channel has as many subscribers as push_max_channel_subscribers allows.")]
    TooManySubscribers,
    /// `push_subscriber_concurrency first`: another one is waiting already.
    #[error("Another subscriber is waiting, and push_subscriber_concurrency is \"first\".")]
    Conflict,
    /// `push_max_channels`: there are as many already, and this one does not exist.
    #[error(
        "The subscriber was not served: its channel does not exist, and there are as many as push_max_channels allows."
    )]
    TooManyChannels,
    /// The zone cannot hold one more channel.
    #[error(
        "The subscriber was not served: push_shared_memory_size leaves no room for its channel."
    )]
    NoSpace,
    /// The worker has too little memory, or no descriptor to open a message's file with.
    #[error(
        "The subscriber was not served: the worker has no memory, or no open files, left for it. \
         Ask again in a second."
    )]
    Exhausted,
    /// The zone is closed, because a reload brings one of another size.
    #[error(
        "The subscriber was not served: nginx is moving to a shared memory zone of another size. \
         Ask again in a second."
    )]
    Closing,
}

impl Refusal {
    /// The reply to the subscriber.
    pub fn reply(&self) -> Reply {
        let sentence = || self.to_string().into_bytes();
        match self {
            Refusal::NotAuthorized => Reply::error_page(403),
            Refusal::TooManySubscribers => Reply::empty(403),
            Refusal::Conflict => conflict(),
            Refusal::TooManyChannels => Reply::text(403, sentence()),
            Refusal::NoSpace => Reply::text(507, sentence()),
            Refusal::Exhausted | Refusal::Closing => {
                Reply::text(503, sentence()).header("Retry-After", &b"1"[..])
            }
        }
    }

    /// The same for a client that is told in words, also where NHPM's clients are not.
    pub fn explained(&self) -> Reply {
        let reply = self.reply();
        match reply.body {
            ReplyBody::Bytes(_) => reply,
            _ => Reply::text(reply.status, self.to_string().into_bytes()),
        }
    }
}

/// A message, with its id for the next request and the number of messages that were missed before it.
///
/// The content type is the publisher's; without one there is none, whatever `default_type` says.
pub fn message(envelope: &Envelope<'_>, missed: Missed) -> Reply {
    let content_type = envelope.content_type;
    let reply = Reply {
        content_type: (!content_type.is_empty()).then(|| content_type.to_vec().into()),
        body: ReplyBody::Message,
        ..Reply::empty(200)
    }
    .message_id(envelope.id)
    .header("Vary", &b"If-None-Match, If-Modified-Since"[..])
    .missed(missed);
    match envelope.channel {
        Some(channel) if is_field_value(channel) => reply.header(CHANNEL_HEADER, channel.to_vec()),
        _ => reply,
    }
}

/// A long-poll that has waited as long as `push_subscriber_timeout` says.
///
/// Without an id, as in NHPM: a client keeps the one it has.
pub fn timed_out() -> Reply {
    Reply::empty(304)
}

/// The channel was deleted while the subscriber waited.
pub fn gone() -> Reply {
    Reply::empty(410)
}

/// Another subscriber has, or gets, the channel (`push_subscriber_concurrency` `first` or `last`).
pub fn conflict() -> Reply {
    Reply::empty(409)
}

/// An interval-poll that found nothing new: the request's `If-Modified-Since` and `If-None-Match` come back as
/// `Last-Modified` and `Etag`, so that the client goes on where it was.
pub fn unmodified(if_modified_since: Option<&[u8]>, if_none_match: Option<&[u8]>) -> Reply {
    let echoes = [("Last-Modified", if_modified_since), ("Etag", if_none_match)];
    echoes.into_iter().fold(Reply::empty(304), |reply, (name, value)| match value {
        Some(value) if is_field_value(value) => reply.header(name, value.to_vec()),
        _ => reply,
    })
}

/// A poll without a cursor that has found nothing, or waited in vain, where it would not begin again: with its place, after
/// which it goes on.
pub fn placed(id: WrittenId<'_>, missed: Missed) -> Reply {
    Reply::empty(304).message_id(id).missed(missed)
}

/// A long-poll that is let go because its worker leaves: with its position, as far as it had one, for the next worker.
///
/// The edge closes the connection after it, for the old worker takes no more requests.
pub fn released(position: Position) -> Reply {
    let reply = Reply::empty(304);
    match position {
        Position::After(id) => reply.message_id(WrittenId::One(id)),
        _ => reply,
    }
}

/// OPTIONS without `push_cors_origin`: scripts of any origin may subscribe.
pub fn preflight() -> Reply {
    Reply::empty(200)
        .header("Access-Control-Allow-Origin", &b"*"[..])
        .header("Access-Control-Allow-Headers", &b"If-None-Match, If-Modified-Since, Origin"[..])
        .header("Access-Control-Allow-Methods", METHODS)
}

/// OPTIONS of a location that is for publishers as well: scripts of any origin may do both.
pub fn preflight_of_both() -> Reply {
    Reply::empty(200)
        .header("Access-Control-Allow-Origin", &b"*"[..])
        .header(
            "Access-Control-Allow-Headers",
            &b"If-None-Match, If-Modified-Since, Content-Type, Origin"[..],
        )
        .header("Access-Control-Allow-Methods", &b"GET, POST, PUT, DELETE, OPTIONS"[..])
}

/// A method that a subscriber location does not have.
pub fn not_allowed() -> Reply {
    Reply::error_page(405).header("Allow", METHODS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ManyId, MessageId, Seen};

    const ID: MessageId = MessageId { time: 784_111_777, tag: 3 };
    const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";

    fn sample(content_type: &[u8]) -> Envelope<'_> {
        Envelope { id: WrittenId::One(ID), own_id: ID, channel: None, content_type, event: b"" }
    }

    fn headers(reply: &Reply) -> Vec<(&'static str, &[u8])> {
        reply.headers.iter().map(|(name, value)| (*name, value.as_ref())).collect()
    }

    fn missed(count: u64, at_least: bool) -> Option<Vec<u8>> {
        let reply = message(&sample(b""), Missed { count, at_least });
        reply.headers.iter().find(|(name, _)| *name == "Push-Missed").map(|(_, v)| v.to_vec())
    }

    #[test]
    fn methods() {
        assert_eq!(action(b"GET"), Action::Subscribe);
        assert_eq!(action(b"OPTIONS"), Action::Preflight);
        for other in [&b"HEAD"[..], b"POST", b"PUT", b"DELETE", b"get", b""] {
            assert_eq!(action(other), Action::NotAllowed);
        }
    }

    #[test]
    fn a_message_carries_its_id() {
        let reply = message(&sample(b"text/x; charset=y"), Missed::default());
        assert_eq!((reply.status, &reply.body), (200, &ReplyBody::Message));
        assert_eq!(reply.content_type.as_deref(), Some(&b"text/x; charset=y"[..]));
        assert_eq!(
            headers(&reply),
            [
                ("Last-Modified", DATE),
                ("Etag", b"3"),
                ("Vary", b"If-None-Match, If-Modified-Since"),
            ]
        );
    }

    #[test]
    fn of_several_channels_a_message_says_which_it_came_from() {
        let id = ManyId { time: 784_111_777, tags: [Seen::UpTo(0), Seen::Before].into(), from: 0 };
        let reply = message(
            &Envelope { id: WrittenId::Many(&id), channel: Some(b"news"), ..sample(b"") },
            Missed::default(),
        );
        assert_eq!(
            headers(&reply),
            [
                ("Last-Modified", DATE),
                ("Etag", b"[0],-"),
                ("Vary", b"If-None-Match, If-Modified-Since"),
                ("Push-Channel", b"news"),
            ]
        );
    }

    #[test]
    fn a_message_without_content_type_has_none() {
        assert_eq!(message(&sample(b""), Missed::default()).content_type, None);
    }

    #[test]
    fn missed_messages_are_told() {
        assert_eq!(missed(0, false), None);
        assert_eq!(missed(5, false), Some(b"5".to_vec()));
        assert_eq!(missed(5, true), Some(b"5;at-least".to_vec()));
        assert_eq!(missed(0, true), Some(b"0;at-least".to_vec()));
    }

    #[test]
    fn ends_without_a_message_are_empty() {
        assert_eq!(timed_out(), Reply::empty(304));
        assert_eq!(gone(), Reply::empty(410));
        assert_eq!(conflict(), Reply::empty(409));
    }

    #[test]
    fn unmodified_echoes_the_position() {
        let reply = unmodified(Some(DATE), Some(b"W/\"3\""));
        assert_eq!((reply.status, &reply.body), (304, &ReplyBody::Empty));
        assert_eq!(headers(&reply), [("Last-Modified", DATE), ("Etag", b"W/\"3\"")]);
        assert_eq!(headers(&unmodified(Some(DATE), None)), [("Last-Modified", DATE)]);
        assert_eq!(headers(&unmodified(None, Some(b"3"))), [("Etag", &b"3"[..])]);
        assert_eq!(unmodified(None, None), Reply::empty(304));
    }

    #[test]
    fn unmodified_echoes_nothing_that_would_end_a_header() {
        assert_eq!(unmodified(Some(b"x\r\nSet-Cookie: a=b"), Some(b"3\n")), Reply::empty(304));
        assert_eq!(unmodified(Some(b"x\0"), Some(b"\x7f")), Reply::empty(304));
    }

    #[test]
    fn released_subscribers_keep_their_position() {
        let reply = released(Position::After(ID));
        assert_eq!((reply.status, &reply.body), (304, &ReplyBody::Empty));
        assert_eq!(headers(&reply), [("Last-Modified", DATE), ("Etag", b"3")]);
        assert_eq!(released(Position::Oldest), Reply::empty(304));
        assert_eq!(released(Position::Newest), Reply::empty(304));
    }

    #[test]
    fn who_has_waited_in_vain_is_told_its_place() {
        let reply = placed(WrittenId::One(ID), Missed::default());
        assert_eq!((reply.status, &reply.body), (304, &ReplyBody::Empty));
        assert_eq!(headers(&reply), [("Last-Modified", DATE), ("Etag", b"3")]);
        let reply = placed(WrittenId::One(ID), Missed { count: 2, at_least: false });
        assert_eq!(headers(&reply).get(2), Some(&("Push-Missed", &b"2"[..])));
    }

    #[test]
    fn preflight_allows_every_origin() {
        let reply = preflight();
        assert_eq!((reply.status, &reply.body), (200, &ReplyBody::Empty));
        assert_eq!(
            headers(&reply),
            [
                ("Access-Control-Allow-Origin", &b"*"[..]),
                ("Access-Control-Allow-Headers", b"If-None-Match, If-Modified-Since, Origin"),
                ("Access-Control-Allow-Methods", b"GET, OPTIONS"),
            ]
        );
    }

    #[test]
    fn other_methods_are_told_which_there_are() {
        let reply = not_allowed();
        assert_eq!((reply.status, &reply.body), (405, &ReplyBody::ErrorPage));
        assert_eq!(headers(&reply), [("Allow", &b"GET, OPTIONS"[..])]);
    }

    #[test]
    fn refusals() {
        assert_eq!(Refusal::NotAuthorized.reply(), Reply::error_page(403));
        assert_eq!(Refusal::TooManySubscribers.reply(), Reply::empty(403));
        for refusal in [Refusal::NotAuthorized, Refusal::TooManySubscribers, Refusal::NoSpace] {
            let Reply { status, body, .. } = refusal.explained();
            assert_eq!(status, refusal.reply().status);
            assert_eq!(body, ReplyBody::Bytes(refusal.to_string().into_bytes().into()));
        }
        assert_eq!(Refusal::Conflict.reply(), Reply::empty(409));
        assert_eq!(Refusal::NoSpace.reply().status, 507);
        assert_eq!(Refusal::NoSpace.reply().content_type.as_deref(), Some(&b"text/plain"[..]));
        for passing in [Refusal::Closing, Refusal::Exhausted] {
            let reply = passing.reply();
            assert_eq!(reply.status, 503);
            assert_eq!(headers(&reply), [("Retry-After", &b"1"[..])]);
        }
    }
}
