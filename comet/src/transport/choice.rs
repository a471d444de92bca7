//! Which transport a GET gets: what it asks for by its standard's means, within what the location allows.

use std::fmt;

use thiserror::Error;

use crate::reply::Reply;
use crate::wire::accept;

/// A way to serve a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One message a request, which waits for it.
    LongPoll,
    /// One message a request, which does not wait.
    IntervalPoll,
    /// `text/event-stream` (WHATWG HTML, section 9.2).
    EventSource,
    /// RFC 6455.
    WebSocket,
    /// Bodies and separators.
    Stream,
    /// `application/x-ndjson`: one object a line.
    JsonLines,
    /// `multipart/mixed` that does not end.
    Multipart,
    /// The same as `multipart/x-mixed-replace`.
    MixedReplace,
    /// A page of scripts that does not end, for a frame.
    Iframe,
    /// What a poll gets, as a script that calls a function.
    Jsonp,
}

impl Transport {
    /// All of them, in the order in which people are told of them.
    const ALL: [Transport; 10] = [
        Transport::LongPoll,
        Transport::IntervalPoll,
        Transport::EventSource,
        Transport::WebSocket,
        Transport::Stream,
        Transport::JsonLines,
        Transport::Multipart,
        Transport::MixedReplace,
        Transport::Iframe,
        Transport::Jsonp,
    ];

    /// Those that a GET gets that asks for nothing in particular; the first that is allowed.
    const UNASKED: [Transport; 8] = [
        Transport::IntervalPoll,
        Transport::Stream,
        Transport::Iframe,
        Transport::LongPoll,
        Transport::EventSource,
        Transport::JsonLines,
        Transport::Multipart,
        Transport::Jsonp,
    ];

    /// Whether a reply has an end of its own.
    pub fn is_poll(self) -> bool {
        matches!(self, Transport::LongPoll | Transport::IntervalPoll | Transport::Jsonp)
    }

    /// The transport that a media type in `Accept` asks for.
    fn of_media_type(media_type: &[u8]) -> Option<Transport> {
        let is = |name: &[u8]| media_type.eq_ignore_ascii_case(name);
        if is(EVENT_STREAM) {
            Some(Transport::EventSource)
        } else if is(b"application/x-ndjson") || is(b"application/ndjson") {
            Some(Transport::JsonLines)
        } else if is(b"multipart/mixed") {
            Some(Transport::Multipart)
        } else if is(b"multipart/x-mixed-replace") {
            Some(Transport::MixedReplace)
        } else {
            None
        }
    }
}

/// What every client of EventSource asks for.
const EVENT_STREAM: &[u8] = b"text/event-stream";

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::LongPoll => "long-poll",
            Transport::IntervalPoll => "interval-poll",
            Transport::EventSource => "eventsource",
            Transport::WebSocket => "websocket",
            Transport::Stream => "stream",
            Transport::JsonLines => "JSON lines",
            Transport::Multipart => "multipart/mixed",
            Transport::MixedReplace => "multipart/x-mixed-replace",
            Transport::Iframe => "iframe",
            Transport::Jsonp => "jsonp",
        })
    }
}

/// A set of transports: what a location allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transports(u16);

impl Transports {
    /// The empty set.
    pub const NONE: Self = Transports(0);
    /// Long-poll alone.
    pub const LONG_POLL: Self = Self::only(Transport::LongPoll);
    /// Interval-poll alone.
    pub const INTERVAL_POLL: Self = Self::only(Transport::IntervalPoll);
    /// EventSource alone.
    pub const EVENT_SOURCE: Self = Self::only(Transport::EventSource);
    /// WebSocket alone.
    pub const WEBSOCKET: Self = Self::only(Transport::WebSocket);
    /// The plain stream alone. The word `stream` in a configuration allows [`JSON_LINES`](Self::JSON_LINES) too.
    pub const STREAM: Self = Self::only(Transport::Stream);
    /// JSON lines alone.
    pub const JSON_LINES: Self = Self::only(Transport::JsonLines);
    /// `multipart/mixed` alone. The word `multipart` in a configuration allows [`MIXED_REPLACE`](Self::MIXED_REPLACE) too.
    pub const MULTIPART: Self = Self::only(Transport::Multipart);
    /// `multipart/x-mixed-replace` alone.
    pub const MIXED_REPLACE: Self = Self::only(Transport::MixedReplace);
    /// The iframe alone.
    pub const IFRAME: Self = Self::only(Transport::Iframe);
    /// JSONP alone.
    pub const JSONP: Self = Self::only(Transport::Jsonp);
    /// What `push_subscriber` without a value allows: all that a client has to ask for, and the long-poll for a client
    /// that does not.
    pub const DEFAULT: Self =
        Self::LONG_POLL.and(Self::EVENT_SOURCE).and(Self::WEBSOCKET).and(Self::JSON_LINES);

    const fn only(transport: Transport) -> Self {
        Transports(1 << transport as u8)
    }

    /// These and the others.
    pub const fn and(self, others: Self) -> Self {
        Transports(self.0 | others.0)
    }

    /// Whether a transport is one of these.
    pub const fn contains(self, transport: Transport) -> bool {
        self.0 & Self::only(transport).0 != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// `long-poll, websocket`: as a configuration says it.
impl fmt::Display for Transports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for transport in Transport::ALL {
            if self.contains(transport) {
                write!(f, "{separator}{transport}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

/// What in a GET says which transport its client wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked<'a> {
    /// It is a WebSocket handshake: `Upgrade: websocket`, and `Connection` with `upgrade`.
    pub handshake: bool,
    /// Its query has an argument `callback`.
    pub callback: bool,
    /// The values of all its fields `Accept`, in their order.
    pub accept: Vec<&'a [u8]>,
}

/// Why a GET is not served by any transport.
///
/// The texts are what the client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unserved {
    /// A WebSocket handshake where WebSocket is not allowed.
    #[error("There is no WebSocket here: push_subscriber allows {allowed}.")]
    NoWebSocket {
        /// What the location allows.
        allowed: Transports,
    },
    /// Something else where only WebSocket is allowed.
    #[error("This takes a WebSocket handshake: push_subscriber allows nothing but websocket.")]
    OnlyWebSocket,
    /// An `Accept` with `text/event-stream`, and nothing else that would do, where EventSource is not allowed.
    #[error("There is no text/event-stream here: push_subscriber allows {allowed}.")]
    NoEventSource {
        /// What the location allows.
        allowed: Transports,
    },
    /// A part of a page where only streams are allowed, which have no end.
    #[error("A part of a page is no stream: push_subscriber allows {allowed}.")]
    Part {
        /// What the location allows.
        allowed: Transports,
    },
}

impl Unserved {
    /// The reply to the client.
    pub fn reply(&self) -> Reply {
        let sentence = self.to_string().into_bytes();
        match self {
            Unserved::NoWebSocket { .. } => Reply::text(403, sentence),
            Unserved::OnlyWebSocket => Reply::text(426, sentence)
                .header("Upgrade", &b"websocket"[..])
                .header("Connection", &b"upgrade"[..]),
            Unserved::NoEventSource { .. } | Unserved::Part { .. } => Reply::text(406, sentence),
        }
    }
}

/// Chooses the transport for a GET. `allowed` must not be empty.
///
/// A handshake gets WebSocket, and who names a callback gets JSONP where that is allowed: a script tag cannot choose its
/// `Accept`. Else the leftmost media type in `Accept` counts that names an allowed transport; and if none does, the
/// location's first of interval-poll, stream, iframe, long-poll, EventSource, multipart and JSONP. A client of EventSource takes
/// nothing else for an answer, so it is refused where EventSource is not allowed, rather than kept waiting for nothing.
pub fn choose(allowed: Transports, asked: &Asked<'_>) -> Result<Transport, Unserved> {
    let is_allowed = |transport: &Transport| allowed.contains(*transport);
    if asked.handshake {
        return Some(Transport::WebSocket)
            .filter(is_allowed)
            .ok_or(Unserved::NoWebSocket { allowed });
    }
    if asked.callback && is_allowed(&Transport::Jsonp) {
        return Ok(Transport::Jsonp);
    }
    let mut named = accept::media_types(&asked.accept).filter_map(Transport::of_media_type);
    if let Some(transport) = named.find(is_allowed) {
        return Ok(transport);
    }
    let unasked = Transport::UNASKED.into_iter().find(is_allowed).ok_or(Unserved::OnlyWebSocket)?;
    let accepts = |name: &[u8]| {
        accept::media_types(&asked.accept).any(|accepted| accepted.eq_ignore_ascii_case(name))
    };
    if accepts(EVENT_STREAM) && !accepts(b"*/*") {
        return Err(Unserved::NoEventSource { allowed });
    }
    Ok(unasked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::ReplyBody;

    /// What `push_subscriber stream` allows.
    const STREAM: Transports = Transports::STREAM.and(Transports::JSON_LINES);
    /// What `push_subscriber multipart` allows.
    const MULTIPART: Transports = Transports::MULTIPART.and(Transports::MIXED_REPLACE);

    fn get(allowed: Transports, accept: &[&str]) -> Result<Transport, Unserved> {
        let accept = accept.iter().map(|field| field.as_bytes()).collect();
        choose(allowed, &Asked { accept, ..Asked::default() })
    }

    fn handshake(allowed: Transports) -> Result<Transport, Unserved> {
        let accept = vec![&b"text/event-stream"[..]];
        choose(allowed, &Asked { handshake: true, callback: true, accept })
    }

    fn with_callback(allowed: Transports, accept: &str) -> Result<Transport, Unserved> {
        let accept = vec![accept.as_bytes()];
        choose(allowed, &Asked { handshake: false, callback: true, accept })
    }

    #[test]
    fn a_set_contains_what_was_put_in() {
        let set = Transports::LONG_POLL.and(Transports::WEBSOCKET);
        for transport in Transport::ALL {
            assert!(Transports::only(transport).contains(transport));
            assert!(!Transports::NONE.contains(transport));
            let is_in = matches!(transport, Transport::LongPoll | Transport::WebSocket);
            assert_eq!(set.contains(transport), is_in);
        }
        assert!(Transports::NONE.is_empty() && !set.is_empty());
        assert_eq!(set.to_string(), "long-poll, websocket");
        assert_eq!(Transports::NONE.to_string(), "");
    }

    #[test]
    fn a_handshake_gets_websocket_or_403() {
        assert_eq!(handshake(Transports::DEFAULT), Ok(Transport::WebSocket));
        assert_eq!(handshake(Transports::WEBSOCKET), Ok(Transport::WebSocket));
        let allowed = Transports::LONG_POLL.and(Transports::EVENT_SOURCE);
        assert_eq!(handshake(allowed), Err(Unserved::NoWebSocket { allowed }));
    }

    #[test]
    fn a_bare_location_serves_what_is_asked_for() {
        let asked = |accept| get(Transports::DEFAULT, &[accept]);
        assert_eq!(asked("text/event-stream"), Ok(Transport::EventSource));
        assert_eq!(asked("application/x-ndjson"), Ok(Transport::JsonLines));
        assert_eq!(asked("application/ndjson"), Ok(Transport::JsonLines));
        assert_eq!(asked("text/html, */*;q=0.8"), Ok(Transport::LongPoll));
        assert_eq!(asked(""), Ok(Transport::LongPoll));
        assert_eq!(get(Transports::DEFAULT, &[]), Ok(Transport::LongPoll));
    }

    #[test]
    fn media_types_are_read_in_any_dress() {
        for accept in [
            "TEXT/Event-Stream",
            "text/html, text/event-stream;charset=utf-8;q=0.1",
            "\ttext/event-stream ;q=1",
        ] {
            assert_eq!(get(Transports::DEFAULT, &[accept]), Ok(Transport::EventSource), "{accept}");
        }
        for accept in ["text/event-stream;q=0", "text/event-stream; Q=0.000", "text/event-streams"]
        {
            assert_eq!(get(Transports::DEFAULT, &[accept]), Ok(Transport::LongPoll), "{accept}");
        }
    }

    #[test]
    fn the_leftmost_allowed_type_of_all_fields_wins() {
        let both = ["application/x-ndjson", "text/event-stream"];
        assert_eq!(get(Transports::DEFAULT, &both), Ok(Transport::JsonLines));
        assert_eq!(
            get(Transports::DEFAULT, &["a/b, text/event-stream, application/x-ndjson"]),
            Ok(Transport::EventSource)
        );
        assert_eq!(get(Transports::EVENT_SOURCE, &both), Ok(Transport::EventSource));
        assert_eq!(
            get(STREAM, &["text/event-stream, application/ndjson"]),
            Ok(Transport::JsonLines)
        );
    }

    #[test]
    fn who_asks_for_nothing_gets_the_first_of_what_is_allowed() {
        let from_the_last = [
            (Transports::JSONP, Transport::Jsonp),
            (MULTIPART, Transport::Multipart),
            (Transports::WEBSOCKET.and(Transports::EVENT_SOURCE), Transport::EventSource),
            (Transports::LONG_POLL, Transport::LongPoll),
            (Transports::IFRAME, Transport::Iframe),
            (STREAM, Transport::Stream),
            (Transports::INTERVAL_POLL, Transport::IntervalPoll),
        ];
        let mut allowed = Transports::NONE;
        for (more, first) in from_the_last {
            allowed = allowed.and(more);
            assert_eq!(get(allowed, &[]), Ok(first));
            assert_eq!(get(allowed, &["*/*"]), Ok(first));
        }
        assert_eq!(get(Transports::JSON_LINES, &[]), Ok(Transport::JsonLines));
        assert_eq!(get(Transports::LONG_POLL, &["application/x-ndjson"]), Ok(Transport::LongPoll));
    }

    #[test]
    fn a_callback_gets_jsonp_where_that_is_allowed() {
        let allowed = Transports::DEFAULT.and(Transports::JSONP);
        for accept in ["", "*/*", "text/event-stream", "application/x-ndjson"] {
            assert_eq!(with_callback(allowed, accept), Ok(Transport::Jsonp), "{accept}");
        }
        assert_eq!(get(allowed, &["*/*"]), Ok(Transport::LongPoll));
        assert_eq!(with_callback(Transports::DEFAULT, "*/*"), Ok(Transport::LongPoll));
        let stream = with_callback(Transports::DEFAULT, "text/event-stream");
        assert_eq!(stream, Ok(Transport::EventSource));
        assert_eq!(
            handshake(Transports::JSONP),
            Err(Unserved::NoWebSocket { allowed: Transports::JSONP })
        );
    }

    #[test]
    fn multipart_comes_as_its_client_names_it() {
        let allowed = Transports::DEFAULT.and(MULTIPART);
        for (accept, transport) in [
            ("multipart/mixed", Transport::Multipart),
            ("multipart/x-mixed-replace", Transport::MixedReplace),
            ("image/png, Multipart/X-Mixed-Replace, multipart/mixed", Transport::MixedReplace),
            ("multipart/mixed;q=0, */*", Transport::LongPoll),
            ("multipart/*", Transport::LongPoll),
            ("text/event-stream, multipart/mixed", Transport::EventSource),
        ] {
            assert_eq!(get(allowed, &[accept]), Ok(transport), "{accept}");
        }
        assert_eq!(get(Transports::DEFAULT, &["multipart/mixed"]), Ok(Transport::LongPoll));
    }

    #[test]
    fn the_classics_are_not_for_a_bare_location() {
        for classic in [MULTIPART, Transports::IFRAME, Transports::JSONP] {
            let both = Transports(Transports::DEFAULT.0 & classic.0);
            assert!(both.is_empty(), "{classic}");
        }
    }

    #[test]
    fn where_only_websocket_is_allowed_a_handshake_is_required() {
        for accept in ["", "*/*", "text/event-stream", "application/x-ndjson"] {
            assert_eq!(get(Transports::WEBSOCKET, &[accept]), Err(Unserved::OnlyWebSocket));
        }
    }

    #[test]
    fn an_event_stream_that_is_not_allowed_is_406_unless_anything_will_do() {
        let allowed = Transports::LONG_POLL;
        let refused = Err(Unserved::NoEventSource { allowed });
        assert_eq!(get(allowed, &["text/event-stream"]), refused);
        assert_eq!(get(allowed, &["text/event-stream", "text/*"]), refused);
        assert_eq!(get(allowed, &["text/event-stream, */*;q=0"]), refused);
        assert_eq!(get(allowed, &["text/event-stream, */*;q=0.1"]), Ok(Transport::LongPoll));
        assert_eq!(get(allowed, &["text/event-stream", "*/*"]), Ok(Transport::LongPoll));
        assert_eq!(get(allowed, &["text/event-stream;q=0"]), Ok(Transport::LongPoll));
    }

    #[test]
    fn refusals_say_what_is_allowed() {
        let allowed = Transports::LONG_POLL.and(STREAM);
        for (unserved, status, sentence) in [
            (
                Unserved::NoWebSocket { allowed },
                403,
                "There is no WebSocket here: push_subscriber allows long-poll, stream, JSON lines.",
            ),
            (
                Unserved::OnlyWebSocket,
                426,
                "This takes a WebSocket handshake: push_subscriber allows nothing but websocket.",
            ),
            (
                Unserved::NoEventSource { allowed },
                406,
                "There is no text/event-stream here: \
                 push_subscriber allows long-poll, stream, JSON lines.",
            ),
        ] {
            let reply = unserved.reply();
            assert_eq!(reply.status, status);
            assert_eq!(reply.body, ReplyBody::Bytes(sentence.as_bytes().into()));
        }
    }

    #[test]
    fn who_must_upgrade_is_told_to_what() {
        let headers = Unserved::OnlyWebSocket.reply().headers;
        assert_eq!(
            headers,
            [
                ("Upgrade", b"websocket".as_slice().into()),
                ("Connection", b"upgrade".as_slice().into())
            ]
        );
    }
}
