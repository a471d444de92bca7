//! The publisher location: what a method asks for, and the replies (NHPM's publisher protocol).

use std::borrow::Cow;

use thiserror::Error;

pub use crate::channel_id::no_channel_id;
use crate::cors::Access;
use crate::reply::{Reply, ReplyBody};
use crate::websocket;
use crate::wire::accept;
use crate::wire::info::{self, ChannelInfo};

/// The methods of a publisher location, as `Allow` and the CORS reply name them.
const METHODS: &[u8] = b"GET, POST, PUT, DELETE, OPTIONS";

/// What scripts of other origins may send, where `push_cors_origin` says which those are.
pub const ACCESS: Access = Access {
    methods: METHODS,
    headers: b"Authorization, Content-Type, Push-Event, X-EventSource-Event, X-Requested-With",
};

/// What a request to a publisher location asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell about the channel.
    Info,
    /// Store the body as a message and send it.
    Publish,
    /// Delete the channel.
    Delete,
    /// Tell a browser what scripts of other origins may do.
    Preflight,
    /// Nothing that a publisher location does.
    NotAllowed,
}

/// What `method` asks for. Methods are case-sensitive (RFC 9110, section 9.1).
pub fn action(method: &[u8]) -> Action {
    match method {
        b"GET" => Action::Info,
        b"POST" | b"PUT" => Action::Publish,
        b"DELETE" => Action::Delete,
        b"OPTIONS" => Action::Preflight,
        _ => Action::NotAllowed,
    }
}

/// Why a message was not published. Nothing was stored and nobody was sent anything.
///
/// The texts are what the publisher reads.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PublishError {
    /// The zone cannot hold the message, also after everything that may be dropped was dropped.
    #[error(
        "The message was not published: it needs {needed} bytes of shared memory, \
         and push_shared_memory_size leaves no room."
    )]
    NoSpace {
        /// What the message would take in the zone, in bytes.
        needed: u64,
    },
    /// No zone of this size can hold the message, or no zone at all.
    #[error(
        "The message was not published: it needs {needed} bytes of shared memory, \
         more than push_shared_memory_size allows."
    )]
    TooLarge {
        /// What the message would take in the zone, in bytes.
        needed: u64,
    },
    /// `push_max_channels`: there are as many already, and the message is for one that does not exist.
    #[error(
        "The message was not published: it would begin a channel, and there are as many as push_max_channels allows."
    )]
    TooManyChannels,
    /// The body is in a file, which cannot be kept: the disk is full, or the system refuses it otherwise.
    #[error("The message was not published: its body cannot be kept on disk.")]
    NotKept,
    /// The worker has too little memory to read the message.
    #[error(
        "The message was not published: the worker has no memory left for it. Send it again in a second."
    )]
    Exhausted,
    /// The zone is closed, because a reload brings one of another size.
    #[error(
        "The message was not published: nginx is moving to a shared memory zone of another size. \
         Send it again in a second."
    )]
    Closing,
}

impl PublishError {
    /// The reply to the publisher.
    pub fn reply(&self) -> Reply {
        let sentence = self.to_string().into_bytes();
        match self {
            PublishError::NoSpace { .. }
            | PublishError::TooLarge { .. }
            | PublishError::NotKept => Reply::text(507, sentence),
            PublishError::TooManyChannels => Reply::text(403, sentence),
            PublishError::Exhausted | PublishError::Closing => {
                Reply::text(503, sentence).header("Retry-After", &b"1"[..])
            }
        }
    }

    /// The code with which a WebSocket that has said the message is closed; the text is the reason.
    pub fn close_code(&self) -> u16 {
        match self {
            PublishError::TooLarge { .. } => websocket::MESSAGE_TOO_BIG,
            PublishError::NoSpace { .. } | PublishError::Exhausted => websocket::TRY_AGAIN_LATER,
            PublishError::TooManyChannels => websocket::POLICY_VIOLATION,
            PublishError::Closing => websocket::SERVICE_RESTART,
            PublishError::NotKept => websocket::INTERNAL_ERROR,
        }
    }
}

/// Tells about the channel, in the form that `accept` (the request's `Accept`) asks for.
///
/// `status` is 200 after GET and DELETE; after a publish 201 if a subscriber was waiting, else 202.
pub fn info(status: u16, channel: &ChannelInfo, accept: Option<&[u8]>) -> Reply {
    let wanted = accept::negotiate(accept);
    Reply {
        content_type: Some(Cow::Borrowed(wanted.content_type.as_bytes())),
        body: ReplyBody::Bytes(info::render(channel, wanted.format).into()),
        ..Reply::empty(status)
    }
}

/// Tells about several channels, by name. The rest is as for [`info`].
pub fn infos(status: u16, channels: &[(&[u8], ChannelInfo)], accept: Option<&[u8]>) -> Reply {
    let wanted = accept::negotiate(accept);
    Reply {
        content_type: Some(Cow::Borrowed(wanted.content_type.as_bytes())),
        body: ReplyBody::Bytes(info::render_all(channels, wanted.format).into()),
        ..Reply::empty(status)
    }
}

/// GET or DELETE of a channel that does not exist.
pub fn not_found() -> Reply {
    Reply::empty(404)
}

/// A WebSocket handshake where `push_publisher` does not list `websocket`, or where `limit_except` stands before a POST. It is
/// a GET: whoever may only look at a channel could publish with it.
pub fn no_websocket() -> Reply {
    Reply::text(
        403,
        &b"Publishing by WebSocket is not allowed here: push_publisher lists only http, or limit_except restricts POST."[..],
    )
}

/// OPTIONS without `push_cors_origin`: scripts of any origin may publish.
pub fn preflight() -> Reply {
    Reply::empty(200)
        .header("Access-Control-Allow-Origin", &b"*"[..])
        .header("Access-Control-Allow-Headers", &b"Content-Type, Origin"[..])
        .header("Access-Control-Allow-Methods", METHODS)
}

/// A method that a publisher location does not have.
pub fn not_allowed() -> Reply {
    Reply::error_page(405).header("Allow", METHODS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: ChannelInfo = ChannelInfo { messages: 3, requested: 12, subscribers: 1 };

    fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a [u8]> {
        reply.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_ref())
    }

    fn text(reply: &Reply) -> String {
        assert_eq!(reply.content_type.as_deref(), Some(&b"text/plain"[..]));
        match &reply.body {
            ReplyBody::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn methods() {
        for (method, expected) in [
            (&b"GET"[..], Action::Info),
            (b"POST", Action::Publish),
            (b"PUT", Action::Publish),
            (b"DELETE", Action::Delete),
            (b"OPTIONS", Action::Preflight),
            (b"HEAD", Action::NotAllowed),
            (b"PATCH", Action::NotAllowed),
            (b"post", Action::NotAllowed),
            (b"", Action::NotAllowed),
        ] {
            assert_eq!(action(method), expected, "{}", String::from_utf8_lossy(method));
        }
    }

    #[test]
    fn info_is_written_as_asked_for() {
        let reply = info(201, &INFO, Some(b"text/x-json, */*"));
        assert_eq!(reply.status, 201);
        assert_eq!(reply.content_type.as_deref(), Some(&b"text/x-json"[..]));
        assert_eq!(
            reply.body,
            ReplyBody::Bytes(
                br#"{"messages": 3, "requested": 12, "subscribers": 1 }"#.as_slice().into()
            )
        );
        assert_eq!(reply.headers, []);
    }

    #[test]
    fn info_is_plain_text_by_default() {
        let reply = info(202, &INFO, None);
        assert_eq!(reply.status, 202);
        assert!(text(&reply).starts_with("queued messages: 3\r\n"));
    }

    #[test]
    fn an_unknown_channel_is_an_empty_404() {
        assert_eq!(not_found(), Reply::empty(404));
    }

    #[test]
    fn preflight_allows_every_origin() {
        let reply = preflight();
        assert_eq!((reply.status, &reply.body), (200, &ReplyBody::Empty));
        assert_eq!(reply.content_type, None);
        assert_eq!(header(&reply, "Access-Control-Allow-Origin"), Some(&b"*"[..]));
        assert_eq!(
            header(&reply, "Access-Control-Allow-Headers"),
            Some(&b"Content-Type, Origin"[..])
        );
        assert_eq!(
            header(&reply, "Access-Control-Allow-Methods"),
            Some(&b"GET, POST, PUT, DELETE, OPTIONS"[..])
        );
    }

    #[test]
    fn other_methods_are_told_which_there_are() {
        let reply = not_allowed();
        assert_eq!((reply.status, &reply.body), (405, &ReplyBody::ErrorPage));
        assert_eq!(header(&reply, "Allow"), Some(&b"GET, POST, PUT, DELETE, OPTIONS"[..]));
    }

    #[test]
    fn a_full_zone_names_the_directive() {
        let reply = PublishError::NoSpace { needed: 70_000 }.reply();
        assert_eq!(reply.status, 507);
        let sentence = text(&reply);
        assert!(sentence.contains("push_shared_memory_size"), "{sentence}");
        assert!(sentence.contains("70000 bytes"), "{sentence}");
    }

    #[test]
    fn every_error_closes_a_websocket_with_a_whole_sentence() {
        // No zone is larger.
        let needed = 1 << 40;
        for (error, code) in [
            (PublishError::NoSpace { needed }, 1013),
            (PublishError::TooLarge { needed }, 1009),
            (PublishError::TooManyChannels, 1008),
            (PublishError::NotKept, 1011),
            (PublishError::Exhausted, 1013),
            (PublishError::Closing, 1012),
        ] {
            let reason = error.to_string();
            let frame = websocket::close(error.close_code(), &reason);
            assert_eq!(error.close_code(), code);
            assert!(frame.ends_with(reason.as_bytes()), "{reason} is cut");
            assert!(reason.ends_with('.'));
        }
    }

    #[test]
    fn one_channel_too_many_names_the_directive() {
        let reply = PublishError::TooManyChannels.reply();
        assert_eq!(reply.status, 403);
        assert!(text(&reply).contains("push_max_channels"));
    }

    #[test]
    fn what_passes_asks_to_come_back() {
        for error in [PublishError::Closing, PublishError::Exhausted] {
            let reply = error.reply();
            assert_eq!(reply.status, 503);
            assert_eq!(header(&reply, "Retry-After"), Some(&b"1"[..]));
            assert!(text(&reply).ends_with('.'));
        }
    }

    #[test]
    fn a_full_disk_is_not_told_of_as_want_of_shared_memory() {
        let reply = PublishError::NotKept.reply();
        assert_eq!(reply.status, 507);
        assert!(text(&reply).ends_with(" on disk."));
    }
}
