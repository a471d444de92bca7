//! The table of directives: what nginx registers, what the README says, and what each does.

use super::location::{CONCURRENCY, PARK, POLL_FORM};
use super::value::{COUNT, FLAG, LENGTH, PATH, TEXT, TIME};
use super::{ConfigError, LocationConf, MainConf, Valued};

/// One directive.
#[derive(Clone, Copy, Debug)]
pub struct Directive {
    /// Its name.
    pub name: &'static str,
    /// Where it may stand.
    pub contexts: Contexts,
    /// How many values it has.
    pub args: Args,
    /// How it is written.
    pub syntax: &'static str,
    /// What holds if it is not written; `—` if it has no value to hold.
    pub default: &'static str,
    /// What it is for, in one sentence.
    pub doc: &'static str,
    /// What it does.
    pub apply: Apply,
}

/// A set of the contexts of nginx's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contexts(u8);

impl Contexts {
    /// `http`.
    pub const HTTP: Contexts = Contexts(1);
    /// `server`.
    pub const SERVER: Contexts = Contexts(2);
    /// `location`.
    pub const LOCATION: Contexts = Contexts(4);
    /// `if` inside `location`.
    pub const LOCATION_IF: Contexts = Contexts(8);

    /// Both sets.
    pub const fn and(self, other: Contexts) -> Contexts {
        Contexts(self.0 | other.0)
    }

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Contexts) -> bool {
        self.0 & other.0 == other.0
    }
}

/// How many values a directive has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Args {
    /// None.
    None,
    /// Exactly one.
    One,
    /// One or more.
    Some,
    /// Any number.
    Any,
}

/// Reads a directive's values (its name is not among them) into the configuration of its block.
#[derive(Clone, Copy, Debug)]
pub enum Apply {
    /// For all of nginx.
    Main(fn(&mut MainConf, &[&[u8]]) -> Result<(), ConfigError>),
    /// For a block and those inside it.
    Location(fn(&mut LocationConf, &[&[u8]]) -> Result<(), ConfigError>),
    /// For a block and those inside it. The values may contain variables.
    Values(Valued, fn(&mut LocationConf, &[&[u8]]) -> Result<(), ConfigError>),
}

const H: Contexts = Contexts::HTTP;
const SL: Contexts = Contexts::SERVER.and(Contexts::LOCATION);
const HSL: Contexts = H.and(SL);

/// Every directive, in the order in which a reader wants to meet them.
pub const DIRECTIVES: &[Directive] = &[
    Directive {
        name: "push_publisher",
        contexts: SL,
        args: Args::Any,
        syntax: "push_publisher [http | websocket]…",
        default: "—",
        doc: "Makes this a publisher location: POST and PUT publish the request body as a message, GET tells about the \
              channel, DELETE deletes it. Clients may publish by WebSocket too, unless only `http` is listed.",
        apply: Apply::Location(LocationConf::set_publisher),
    },
    Directive {
        name: "push_subscriber",
        contexts: SL,
        args: Args::Any,
        syntax: "push_subscriber [long-poll | interval-poll | eventsource | websocket | stream | jsonp | iframe | \
                 multipart]…",
        default: "—",
        doc: "Makes this a subscriber location, which serves what is listed; without a list, a long-poll to a plain \
              GET, and EventSource, WebSocket and JSON lines to who asks for them.",
        apply: Apply::Location(LocationConf::set_subscriber),
    },
    Directive {
        name: "push_pubsub",
        contexts: SL,
        args: Args::Any,
        syntax: "push_pubsub [long-poll | interval-poll | eventsource | websocket | stream | jsonp | iframe | \
                 multipart]…",
        default: "—",
        doc: "Makes this a publisher and a subscriber location in one: GET subscribes as with `push_subscriber`, the \
              other methods do what they do with `push_publisher`, and a WebSocket does both.",
        apply: Apply::Location(LocationConf::set_pubsub),
    },
    Directive {
        name: "push_channel_id",
        contexts: HSL.and(Contexts::LOCATION_IF),
        args: Args::Some,
        syntax: "push_channel_id value…",
        default: "$push_channel_id",
        doc: "Says which channel or channels a request is about, up to 255; the values may contain variables, and a \
              request for which all are empty gets 404.",
        apply: Apply::Values(Valued::ChannelId, LocationConf::set_channel_id),
    },
    Directive {
        name: "push_channel_id_split_delimiter",
        contexts: HSL,
        args: Args::One,
        syntax: "push_channel_id_split_delimiter string",
        default: "—",
        doc: "Divides each value of `push_channel_id` into several channel ids at this string.",
        apply: Apply::Location(|conf, args| {
            TEXT.set("push_channel_id_split_delimiter", &mut conf.id_delimiter, args)
        }),
    },
    Directive {
        name: "push_channel_group",
        contexts: SL,
        args: Args::One,
        syntax: "push_channel_group string",
        default: "\"\"",
        doc: "Keeps channels of the same id apart: only locations of the same group share channels; the string is \
              taken as it is, without variables.",
        apply: Apply::Location(|conf, args| TEXT.set("push_channel_group", &mut conf.group, args)),
    },
    Directive {
        name: "push_max_channel_id_length",
        contexts: HSL,
        args: Args::One,
        syntax: "push_max_channel_id_length number",
        default: "1024",
        doc: "Cuts longer channel ids to this many bytes.",
        apply: Apply::Location(|conf, args| {
            LENGTH.set("push_max_channel_id_length", &mut conf.max_id_length, args)
        }),
    },
    Directive {
        name: "push_shared_memory_size",
        contexts: H,
        args: Args::One,
        syntax: "push_shared_memory_size size",
        default: "32m",
        doc: "Sets how much memory all workers share for messages and channels: at least 8 pages.",
        apply: Apply::Main(|conf, args| conf.set_zone_size("push_shared_memory_size", args)),
    },
    Directive {
        name: "push_max_reserved_memory",
        contexts: H,
        args: Args::One,
        syntax: "push_max_reserved_memory size",
        default: "32m",
        doc: "Is the older name of `push_shared_memory_size`.",
        apply: Apply::Main(|conf, args| conf.set_zone_size("push_max_reserved_memory", args)),
    },
    Directive {
        name: "push_max_channels",
        contexts: H,
        args: Args::One,
        syntax: "push_max_channels number",
        default: "0",
        doc: "Sets how many channels there may be, in all locations together: a subscriber or publisher that would begin \
              one more gets 403; 0 means any number.",
        apply: Apply::Main(|conf, args| {
            COUNT.set("push_max_channels", &mut conf.max_channels, args)
        }),
    },
    Directive {
        name: "push_snapshot",
        contexts: H,
        args: Args::One,
        syntax: "push_snapshot path",
        default: "—",
        doc: "Names a file in which channels and messages outlive a restart: nginx writes it when it ends, and takes it back \
              when it starts.",
        apply: Apply::Main(|conf, args| PATH.set("push_snapshot", &mut conf.snapshot, args)),
    },
    Directive {
        name: "push_store_messages",
        contexts: HSL,
        args: Args::One,
        syntax: "push_store_messages on | off",
        default: "on",
        doc: "With `off`, messages are not kept for later subscribers, as with buffer lengths of 0; `on` does not undo \
              an `off` further out.",
        apply: Apply::Location(|conf, args| {
            FLAG.set("push_store_messages", &mut conf.store_messages, args)
        }),
    },
    Directive {
        name: "push_message_buffer_length",
        contexts: HSL,
        args: Args::One,
        syntax: "push_message_buffer_length number",
        default: "—",
        doc: "Sets `push_min_message_buffer_length` and `push_max_message_buffer_length` to the same number.",
        apply: Apply::Location(LocationConf::set_messages),
    },
    Directive {
        name: "push_max_message_buffer_length",
        contexts: HSL,
        args: Args::One,
        syntax: "push_max_message_buffer_length number",
        default: "10",
        doc: "Sets how many messages a channel keeps before the oldest goes; if it is not set, a larger \
              `push_min_message_buffer_length` takes its place.",
        apply: Apply::Location(LocationConf::set_max_messages),
    },
    Directive {
        name: "push_min_message_buffer_length",
        contexts: HSL,
        args: Args::One,
        syntax: "push_min_message_buffer_length number",
        default: "1",
        doc: "Sets how many messages stay although they were received, where \
              `push_delete_oldest_received_message` deletes such messages.",
        apply: Apply::Location(LocationConf::set_min_messages),
    },
    Directive {
        name: "push_delete_oldest_received_message",
        contexts: HSL,
        args: Args::One,
        syntax: "push_delete_oldest_received_message on | off",
        default: "off",
        doc: "Deletes a message published here once it was received, is the channel's oldest, and more than \
              `push_min_message_buffer_length` are there.",
        apply: Apply::Location(|conf, args| {
            FLAG.set(
                "push_delete_oldest_received_message",
                &mut conf.delete_oldest_received,
                args,
            )
        }),
    },
    Directive {
        name: "push_message_timeout",
        contexts: HSL,
        args: Args::One,
        syntax: "push_message_timeout time",
        default: "1h",
        doc: "Sets how long a message published here is kept; 0 means for ever.",
        apply: Apply::Location(|conf, args| {
            TIME.set("push_message_timeout", &mut conf.message_timeout_ms, args)
        }),
    },
    Directive {
        name: "push_subscriber_timeout",
        contexts: HSL,
        args: Args::One,
        syntax: "push_subscriber_timeout time",
        default: "0",
        doc: "Sets how long a subscriber may wait for a message before it gets 304, or before its stream ends; 0 means \
              for ever.",
        apply: Apply::Location(|conf, args| {
            TIME.set("push_subscriber_timeout", &mut conf.subscriber_timeout_ms, args)
        }),
    },
    Directive {
        name: "push_ping_interval",
        contexts: HSL,
        args: Args::One,
        syntax: "push_ping_interval time",
        default: "30s",
        doc: "Sets how long an EventSource, WebSocket, JSON lines or iframe stream may be silent before its client is \
              pinged; a WebSocket client that does not answer until the next ping is dropped; 0 means no pings.",
        apply: Apply::Location(|conf, args| {
            TIME.set("push_ping_interval", &mut conf.ping_interval_ms, args)
        }),
    },
    Directive {
        name: "push_eventsource_retry",
        contexts: HSL,
        args: Args::One,
        syntax: "push_eventsource_retry time",
        default: "2s",
        doc: "Tells browsers how long to wait before an EventSource connects again: each client gets a time between half \
              and one and a half of this; 0 leaves it to the browser.",
        apply: Apply::Location(|conf, args| {
            TIME.set("push_eventsource_retry", &mut conf.retry_ms, args)
        }),
    },
    Directive {
        name: "push_stream_separator",
        contexts: HSL,
        args: Args::One,
        syntax: "push_stream_separator string",
        default: "\"\\n\"",
        doc: "Sets what follows each message in a plain stream, and in a poll's reply where `push_poll_messages` is \
              `joined`.",
        apply: Apply::Location(|conf, args| {
            TEXT.set("push_stream_separator", &mut conf.separator, args)
        }),
    },
    Directive {
        name: "push_poll_messages",
        contexts: HSL,
        args: Args::One,
        syntax: "push_poll_messages one | multipart | joined",
        default: "one",
        doc: "Says what a poll gets where several messages are stored that it has not seen: the first of them (`one`), or \
              all, as parts of a `multipart/mixed` (`multipart`) or each followed by `push_stream_separator` (`joined`).",
        apply: Apply::Location(|conf, args| {
            POLL_FORM.set("push_poll_messages", &mut conf.poll_form, args)
        }),
    },
    Directive {
        name: "push_websocket_deflate",
        contexts: HSL,
        args: Args::One,
        syntax: "push_websocket_deflate on | off",
        default: "on",
        doc: "With `on`, messages are compressed for WebSocket clients that can read it (permessage-deflate).",
        apply: Apply::Location(|conf, args| {
            FLAG.set("push_websocket_deflate", &mut conf.websocket_deflate, args)
        }),
    },
    Directive {
        name: "push_websocket_info",
        contexts: HSL,
        args: Args::One,
        syntax: "push_websocket_info on | off",
        default: "—",
        doc: "Says whether a message that was published through a WebSocket is answered with the channel info; unless \
              said, it is so with `push_publisher` and not with `push_pubsub`.",
        apply: Apply::Location(|conf, args| {
            FLAG.set("push_websocket_info", &mut conf.websocket_info, args)
        }),
    },
    Directive {
        name: "push_websocket_channels",
        contexts: HSL,
        args: Args::Some,
        syntax: "push_websocket_channels name…",
        default: "—",
        doc: "Names the channels, beside those of `push_channel_id`, that a WebSocket client of the subprotocol `push.json` \
              may subscribe to by control frames, and publish to in a `push_pubsub` location; a `*` at the end of a name \
              stands for anything, and names may contain variables.",
        apply: Apply::Values(Valued::WebSocketChannels, LocationConf::set_websocket_channels),
    },
    Directive {
        name: "push_channel_timeout",
        contexts: HSL,
        args: Args::One,
        syntax: "push_channel_timeout time",
        default: "5s",
        doc: "Sets how long a channel without messages and subscribers is kept after it was last used.",
        apply: Apply::Location(|conf, args| {
            TIME.set("push_channel_timeout", &mut conf.channel_timeout_ms, args)
        }),
    },
    Directive {
        name: "push_park",
        contexts: HSL,
        args: Args::One,
        syntax: "push_park compact | plain",
        default: "compact",
        doc: "Says how a waiting request is kept: only its head and what else is needed (`compact`), or as nginx keeps a \
              request that waits (`plain`).",
        apply: Apply::Location(|conf, args| PARK.set("push_park", &mut conf.park, args)),
    },
    Directive {
        name: "push_subscriber_concurrency",
        contexts: HSL,
        args: Args::One,
        syntax: "push_subscriber_concurrency last | first | broadcast",
        default: "broadcast",
        doc: "Sets who may wait on a channel: everybody, or only the subscriber that came `last` or `first`; others \
              get 409.",
        apply: Apply::Location(|conf, args| {
            CONCURRENCY.set("push_subscriber_concurrency", &mut conf.concurrency, args)
        }),
    },
    Directive {
        name: "push_max_channel_subscribers",
        contexts: HSL,
        args: Args::One,
        syntax: "push_max_channel_subscribers number",
        default: "0",
        doc: "Sets how many subscribers may wait on a channel before more of them get 403; 0 means any number.",
        apply: Apply::Location(|conf, args| {
            COUNT.set("push_max_channel_subscribers", &mut conf.max_subscribers, args)
        }),
    },
    Directive {
        name: "push_authorized_channels_only",
        contexts: HSL,
        args: Args::One,
        syntax: "push_authorized_channels_only on | off",
        default: "off",
        doc: "With `on`, subscribers get 403 on a channel that nobody has published to.",
        apply: Apply::Location(|conf, args| {
            FLAG.set("push_authorized_channels_only", &mut conf.authorized_only, args)
        }),
    },
    Directive {
        name: "push_first_message",
        contexts: HSL,
        args: Args::Some,
        syntax: "push_first_message oldest | newest | number | -number | @time…",
        default: "oldest",
        doc: "Sets where a subscriber without a cursor begins in each channel: with the oldest message, with the next one \
              that is published, with the N-th oldest, with the last N, or with those since a time in seconds since 1970; \
              of several values, which may contain variables, the first that is not empty counts.",
        apply: Apply::Values(Valued::FirstMessage, LocationConf::set_first_message),
    },
    Directive {
        name: "push_ignore_queue_on_no_cache",
        contexts: HSL,
        args: Args::One,
        syntax: "push_ignore_queue_on_no_cache on | off",
        default: "off",
        doc: "With `on`, a waiting subscriber that sends `Cache-Control: no-cache` or `Pragma: no-cache` gets only a \
              message published after it came.",
        apply: Apply::Location(|conf, args| {
            FLAG.set("push_ignore_queue_on_no_cache", &mut conf.ignore_queue_on_no_cache, args)
        }),
    },
    Directive {
        name: "push_cors_origin",
        contexts: HSL,
        args: Args::Some,
        syntax: "push_cors_origin value…",
        default: "—",
        doc: "Says which other origins' pages may ask, and refuses those of others with 403; the values may contain \
              variables: `https://app.example.com`, `https://*.example.com`, `null`, `*`, or `self` for none.",
        apply: Apply::Values(Valued::CorsOrigin, LocationConf::set_cors_origins),
    },
    Directive {
        name: "push_cors_credentials",
        contexts: HSL,
        args: Args::One,
        syntax: "push_cors_credentials on | off",
        default: "off",
        doc: "With `on`, pages of the origins in `push_cors_origin` may send cookies and other credentials.",
        apply: Apply::Location(|conf, args| {
            FLAG.set("push_cors_credentials", &mut conf.cors_credentials, args)
        }),
    },
];
