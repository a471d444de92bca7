//! The settings of an `http`, `server`, `location` or `if` block: as said, inherited, and as meant.

use super::value::{self, Kind};
use super::{ConfigError, Warning};
use crate::cors;
use crate::first::{self, BadFirst};
use crate::many::MAX_CHANNELS;
use crate::poll::PollForm;
use crate::transport::Transports;

/// What a location serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `push_publisher`.
    Publisher,
    /// `push_subscriber`.
    Subscriber,
    /// `push_pubsub`.
    Both,
}

impl Role {
    fn directive(self) -> &'static str {
        match self {
            Role::Publisher => "push_publisher",
            Role::Subscriber => "push_subscriber",
            Role::Both => "push_pubsub",
        }
    }
}

/// How a waiting request is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Park {
    /// Its head and what else is needed to make it again, where that is possible.
    #[default]
    Compact,
    /// As nginx keeps a request that waits.
    Plain,
}

/// Who may wait on a channel on which a subscriber is waiting already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// Everybody.
    #[default]
    Broadcast,
    /// The one that came last; those before it are sent away with 409.
    Last,
    /// The one that came first; those after it are refused with 409.
    First,
}

/// One way to serve subscribers, by our name or by one of Nchan's.
const TRANSPORT: Kind<Transports> = Kind::new(
    |text| {
        // NHPM's two words may be shortened, as there.
        let nhpm =
            [("long-poll", Transports::LONG_POLL), ("interval-poll", Transports::INTERVAL_POLL)];
        value::choice(text, &nhpm).or_else(|| match text.to_ascii_lowercase().as_slice() {
            b"longpoll" => Some(Transports::LONG_POLL),
            b"poll" | b"intervalpoll" => Some(Transports::INTERVAL_POLL),
            b"eventsource" | b"event-source" | b"es" | b"sse" => Some(Transports::EVENT_SOURCE),
            b"websocket" | b"websockets" | b"ws" => Some(Transports::WEBSOCKET),
            b"stream" | b"http-raw-stream" => Some(Transports::STREAM.and(Transports::JSON_LINES)),
            b"jsonp" => Some(Transports::JSONP),
            b"iframe" | b"htmlfile" => Some(Transports::IFRAME),
            b"multipart" | b"multipart-mixed" => {
                Some(Transports::MULTIPART.and(Transports::MIXED_REPLACE))
            }
            _ => None,
        })
    },
    "any of \"long-poll\", \"interval-poll\", \"eventsource\", \"websocket\", \"stream\", \"jsonp\", \
     \"iframe\" and \"multipart\"",
);

/// A way to publish at a publisher location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Published {
    /// By methods of HTTP, which is always possible.
    ByHttp,
    /// By a WebSocket, which begins with a GET.
    ByWebSocket,
}

/// A word of `push_publisher`, as Nchan has them.
const PUBLISHED: Kind<Published> = Kind::new(
    |text| match text.to_ascii_lowercase().as_slice() {
        b"http" => Some(Published::ByHttp),
        b"websocket" | b"websockets" | b"ws" => Some(Published::ByWebSocket),
        _ => None,
    },
    "any of \"http\" and \"websocket\"",
);

pub(super) const CONCURRENCY: Kind<Concurrency> = Kind::new(
    |text| {
        value::choice(
            text,
            &[
                ("last", Concurrency::Last),
                ("first", Concurrency::First),
                ("broadcast", Concurrency::Broadcast),
            ],
        )
    },
    "\"last\", \"first\" or \"broadcast\"",
);

pub(super) const PARK: Kind<Park> = Kind::new(
    |text| value::choice(text, &[("compact", Park::Compact), ("plain", Park::Plain)]),
    "\"compact\" or \"plain\"",
);

pub(super) const POLL_FORM: Kind<PollForm> = Kind::new(
    |text| {
        value::choice(
            text,
            &[
                ("one", PollForm::One),
                ("multipart", PollForm::Multipart),
                ("joined", PollForm::Joined),
            ],
        )
    },
    "\"one\", \"multipart\" or \"joined\"",
);

/// One value of `push_cors_origin`.
const ORIGIN: Kind<()> = Kind::new(
    |text| cors::is_origin(text).then_some(()),
    "any of \"https://app.example.com\" or another origin, without a path, \"https://*.example.com\", \"null\", \"*\" and \"self\"",
);

const MIN_LENGTH: &str = "push_min_message_buffer_length";
const MAX_LENGTH: &str = "push_max_message_buffer_length";
const LENGTH: &str = "push_message_buffer_length";

/// What was said in one block and, after [`merge`](LocationConf::merge), in the blocks around it. `None` is "nothing".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocationConf {
    /// What this very block serves. Not inherited: a location inside a publisher location is none by itself.
    pub role: Option<Role>,
    /// How subscribers are served. Inherited apart from the role, because a request that goes through an `if` block
    /// keeps the handler of the location around it and gets the settings of the `if` block.
    pub transports: Option<Transports>,
    /// Whether a publisher location takes WebSockets. Inherited as `transports` are.
    pub publisher_websocket: Option<bool>,
    /// `push_channel_id_split_delimiter`.
    pub id_delimiter: Option<Vec<u8>>,
    /// Which [`Valued`] directives this very block has; their values are the edge's business.
    pub valued: Vec<Valued>,
    /// `push_park`.
    pub park: Option<Park>,
    /// `push_subscriber_concurrency`.
    pub concurrency: Option<Concurrency>,
    /// `push_store_messages` of this very block; what it means for the buffer's bounds is inherited with them.
    pub store_messages: Option<bool>,
    /// Whether this very block says `push_message_buffer_length`.
    said_length: bool,
    /// `push_min_message_buffer_length`, in messages.
    pub min_messages: Option<u64>,
    /// `push_max_message_buffer_length`, in messages.
    pub max_messages: Option<u64>,
    /// `push_delete_oldest_received_message`.
    pub delete_oldest_received: Option<bool>,
    /// `push_message_timeout` in milliseconds.
    pub message_timeout_ms: Option<u64>,
    /// `push_subscriber_timeout` in milliseconds.
    pub subscriber_timeout_ms: Option<u64>,
    /// `push_channel_timeout` in milliseconds.
    pub channel_timeout_ms: Option<u64>,
    /// `push_authorized_channels_only`.
    pub authorized_only: Option<bool>,
    /// `push_channel_group`.
    pub group: Option<Vec<u8>>,
    /// `push_max_channel_id_length` in bytes.
    pub max_id_length: Option<usize>,
    /// `push_max_channel_subscribers`.
    pub max_subscribers: Option<u64>,
    /// `push_ignore_queue_on_no_cache`.
    pub ignore_queue_on_no_cache: Option<bool>,
    /// `push_ping_interval` in milliseconds.
    pub ping_interval_ms: Option<u64>,
    /// `push_eventsource_retry` in milliseconds.
    pub retry_ms: Option<u64>,
    /// `push_stream_separator`.
    pub separator: Option<Vec<u8>>,
    /// `push_poll_messages`.
    pub poll_form: Option<PollForm>,
    /// `push_websocket_deflate`.
    pub websocket_deflate: Option<bool>,
    /// `push_websocket_info`.
    pub websocket_info: Option<bool>,
    /// `push_cors_credentials`.
    pub cors_credentials: Option<bool>,
    /// Which values of `push_websocket_channels` end with a `*` that is written there.
    pub websocket_stars: Option<Vec<bool>>,
}

/// What holds for a request: every setting with its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How subscribers may be served.
    pub transports: Transports,
    /// Whether a publisher location takes WebSockets.
    pub publisher_websocket: bool,
    /// How a waiting request is kept.
    pub park: Park,
    /// Who may wait beside others.
    pub concurrency: Concurrency,
    /// Messages that stay although received, where received ones are deleted.
    pub min_messages: u64,
    /// Messages that a channel keeps; 0: none is stored, and messages only pass through.
    pub max_messages: u64,
    /// Whether the oldest message goes once it was received and more than `min_messages` are there.
    pub delete_oldest_received: bool,
    /// How long a message is kept, in milliseconds; 0 = for ever.
    pub message_timeout_ms: u64,
    /// How long a subscriber may wait, in milliseconds; 0 = for ever.
    pub subscriber_timeout_ms: u64,
    /// How long an idle channel is kept after it was last used, in milliseconds.
    pub channel_timeout_ms: u64,
    /// Whether subscribers are refused on channels that nobody has published to.
    pub authorized_only: bool,
    /// What divides a value of `push_channel_id` into several ids; empty if nothing does.
    pub id_delimiter: Vec<u8>,
    /// What comes before the slash in a channel's id.
    pub group: Vec<u8>,
    /// The length in bytes to which the value of a channel id is cut.
    pub max_id_length: usize,
    /// How many subscribers may wait on a channel; 0 = any number.
    pub max_subscribers: u64,
    /// Whether a client that says `no-cache` gets only what is published after it came.
    pub ignore_queue_on_no_cache: bool,
    /// How long a stream may be silent before its client is pinged, in milliseconds; 0 = for ever.
    pub ping_interval_ms: u64,
    /// How long an EventSource is to wait before it connects again, on average, in milliseconds; 0 = as it likes.
    pub retry_ms: u64,
    /// What follows each message in a plain stream.
    pub separator: Vec<u8>,
    /// What a poll gets where several messages are stored.
    pub poll_form: PollForm,
    /// Whether messages may be compressed for WebSocket clients.
    pub websocket_deflate: bool,
    /// Whether a publisher's WebSocket frame is answered with the channel info; what the role says if nobody said.
    pub websocket_info: Option<bool>,
    /// Whether pages of other origins may send cookies and the like.
    pub cors_credentials: bool,
    /// For each value of `push_websocket_channels`: whether it ends with a `*` that is written there, and does not come from
    /// a variable.
    pub websocket_stars: Vec<bool>,
}

impl Default for Settings {
    /// NHPM 0.73's defaults, as its code has them, and ours for what it does not have.
    fn default() -> Self {
        Settings {
            transports: Transports::DEFAULT,
            publisher_websocket: true,
            park: Park::default(),
            concurrency: Concurrency::default(),
            min_messages: 1,
            max_messages: 10,
            delete_oldest_received: false,
            message_timeout_ms: 3_600_000,
            subscriber_timeout_ms: 0,
            channel_timeout_ms: 5_000,
            authorized_only: false,
            id_delimiter: Vec::new(),
            group: Vec::new(),
            max_id_length: 1024,
            max_subscribers: 0,
            ignore_queue_on_no_cache: false,
            ping_interval_ms: 30_000,
            retry_ms: 2_000,
            separator: b"\n".to_vec(),
            poll_form: PollForm::default(),
            websocket_deflate: true,
            websocket_info: None,
            cors_credentials: false,
            websocket_stars: Vec::new(),
        }
    }
}

/// A directive whose values may contain variables, so that only the edge can tell what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Valued {
    /// `push_channel_id`.
    ChannelId,
    /// `push_first_message`.
    FirstMessage,
    /// `push_websocket_channels`.
    WebSocketChannels,
    /// `push_cors_origin`.
    CorsOrigin,
}

impl Valued {
    /// How many there are.
    pub const COUNT: usize = 4;
}

impl LocationConf {
    /// Takes over from the block around this one what this one does not say.
    ///
    /// nginx merges from the outside in, so `parent` has been merged itself, unless it is the `http` block. The
    /// warnings are those of this block.
    ///
    /// # Errors
    ///
    /// [`ConfigError::MaxBelowMin`] if both bounds of the message buffer were said, here or further out, and
    /// contradict each other.
    pub fn merge(&mut self, parent: &LocationConf) -> Result<Vec<Warning>, ConfigError> {
        let warnings = self.warnings();
        let (min, max) = self.bounds();
        let (parent_min, parent_max) = parent.bounds();
        self.min_messages = min.or(parent_min);
        self.max_messages = max.or(parent_max);
        if let (Some(min), Some(max)) = (self.min_messages, self.max_messages) {
            if max < min {
                return Err(ConfigError::MaxBelowMin { max, min });
            }
        }

        // Named one by one, so that a new field that is not thought of here does not compile.
        let LocationConf {
            role: _,
            transports,
            publisher_websocket,
            id_delimiter,
            valued: _,
            park,
            concurrency,
            store_messages: _,
            said_length: _,
            min_messages: _,
            max_messages: _,
            delete_oldest_received,
            message_timeout_ms,
            subscriber_timeout_ms,
            channel_timeout_ms,
            authorized_only,
            group,
            max_id_length,
            max_subscribers,
            ignore_queue_on_no_cache,
            ping_interval_ms,
            retry_ms,
            separator,
            poll_form,
            websocket_deflate,
            websocket_info,
            cors_credentials,
            websocket_stars,
        } = self;
        inherit(transports, &parent.transports);
        inherit(publisher_websocket, &parent.publisher_websocket);
        inherit(id_delimiter, &parent.id_delimiter);
        inherit(park, &parent.park);
        inherit(concurrency, &parent.concurrency);
        inherit(delete_oldest_received, &parent.delete_oldest_received);
        inherit(message_timeout_ms, &parent.message_timeout_ms);
        inherit(subscriber_timeout_ms, &parent.subscriber_timeout_ms);
        inherit(channel_timeout_ms, &parent.channel_timeout_ms);
        inherit(authorized_only, &parent.authorized_only);
        inherit(group, &parent.group);
        inherit(max_id_length, &parent.max_id_length);
        inherit(max_subscribers, &parent.max_subscribers);
        inherit(ignore_queue_on_no_cache, &parent.ignore_queue_on_no_cache);
        inherit(ping_interval_ms, &parent.ping_interval_ms);
        inherit(retry_ms, &parent.retry_ms);
        inherit(separator, &parent.separator);
        inherit(poll_form, &parent.poll_form);
        inherit(websocket_deflate, &parent.websocket_deflate);
        inherit(websocket_info, &parent.websocket_info);
        inherit(cors_credentials, &parent.cors_credentials);
        inherit(websocket_stars, &parent.websocket_stars);
        Ok(warnings)
    }

    /// What in this block alone loads and may not be meant. To be asked before [`merge`](LocationConf::merge), which
    /// does it itself; of use for the `http` block, which is never merged into anything.
    pub fn warnings(&self) -> Vec<Warning> {
        if self.store_messages != Some(false) {
            return Vec::new();
        }
        let [min, max] =
            [self.min_messages, self.max_messages].map(|length| length.unwrap_or(0) > 0);
        let said = if self.said_length {
            [(LENGTH, max), (LENGTH, false)]
        } else {
            [(MIN_LENGTH, min), (MAX_LENGTH, max)]
        };
        said.into_iter()
            .filter(|(_, is_said)| *is_said)
            .map(|(directive, _)| Warning::StoreOffWins { directive })
            .collect()
    }

    /// What holds here, with defaults for what nobody said.
    pub fn settings(&self) -> Settings {
        let default = Settings::default();
        let (min, max) = self.bounds();
        // Only a bound that nobody said gives way to the other one: the least that makes sense of what was said.
        let max_messages = max.unwrap_or_else(|| default.max_messages.max(min.unwrap_or(0)));
        let min_messages = min.unwrap_or(default.min_messages).min(max_messages);
        Settings {
            transports: self.transports.unwrap_or(default.transports),
            publisher_websocket: self.publisher_websocket.unwrap_or(default.publisher_websocket),
            park: self.park.unwrap_or(default.park),
            concurrency: self.concurrency.unwrap_or(default.concurrency),
            min_messages,
            max_messages,
            delete_oldest_received: self
                .delete_oldest_received
                .unwrap_or(default.delete_oldest_received),
            message_timeout_ms: self.message_timeout_ms.unwrap_or(default.message_timeout_ms),
            subscriber_timeout_ms: self
                .subscriber_timeout_ms
                .unwrap_or(default.subscriber_timeout_ms),
            channel_timeout_ms: self.channel_timeout_ms.unwrap_or(default.channel_timeout_ms),
            authorized_only: self.authorized_only.unwrap_or(default.authorized_only),
            id_delimiter: self.id_delimiter.clone().unwrap_or(default.id_delimiter),
            group: self.group.clone().unwrap_or(default.group),
            max_id_length: self.max_id_length.unwrap_or(default.max_id_length),
            max_subscribers: self.max_subscribers.unwrap_or(default.max_subscribers),
            ignore_queue_on_no_cache: self
                .ignore_queue_on_no_cache
                .unwrap_or(default.ignore_queue_on_no_cache),
            ping_interval_ms: self.ping_interval_ms.unwrap_or(default.ping_interval_ms),
            retry_ms: self.retry_ms.unwrap_or(default.retry_ms),
            separator: self.separator.clone().unwrap_or(default.separator),
            poll_form: self.poll_form.unwrap_or(default.poll_form),
            websocket_deflate: self.websocket_deflate.unwrap_or(default.websocket_deflate),
            websocket_info: self.websocket_info.or(default.websocket_info),
            cors_credentials: self.cors_credentials.unwrap_or(default.cors_credentials),
            websocket_stars: self.websocket_stars.clone().unwrap_or(default.websocket_stars),
        }
    }

    /// `push_publisher`.
    pub(super) fn set_publisher(&mut self, args: &[&[u8]]) -> Result<(), ConfigError> {
        let directive = "push_publisher";
        let takes_websockets = args.iter().try_fold(args.is_empty(), |takes, word| {
            Ok(takes | (PUBLISHED.read(directive, &[word])? == Published::ByWebSocket))
        })?;
        self.set_role(Role::Publisher)?;
        self.publisher_websocket = Some(takes_websockets);
        Ok(())
    }

    /// `push_subscriber`.
    pub(super) fn set_subscriber(&mut self, args: &[&[u8]]) -> Result<(), ConfigError> {
        self.set_served(Role::Subscriber, args)
    }

    /// `push_pubsub`.
    pub(super) fn set_pubsub(&mut self, args: &[&[u8]]) -> Result<(), ConfigError> {
        self.set_served(Role::Both, args)
    }

    fn set_served(&mut self, role: Role, args: &[&[u8]]) -> Result<(), ConfigError> {
        let transports = match args {
            [] => Transports::DEFAULT,
            words => words.iter().try_fold(Transports::NONE, |listed, word| {
                Ok(listed.and(TRANSPORT.read(role.directive(), &[word])?))
            })?,
        };
        self.set_role(role)?;
        self.transports = Some(transports);
        Ok(())
    }

    fn set_role(&mut self, role: Role) -> Result<(), ConfigError> {
        let Some(other) = self.role else {
            self.role = Some(role);
            return Ok(());
        };
        let (directive, other) = (role.directive(), other.directive());
        if directive == other {
            return Err(ConfigError::Duplicate { directive });
        }
        let allowed = "one of them; \"push_pubsub\" serves publishers and subscribers";
        Err(ConfigError::Conflict { directive, other, allowed })
    }

    /// `push_channel_id`.
    pub(super) fn set_channel_id(&mut self, args: &[&[u8]]) -> Result<(), ConfigError> {
        self.set_valued("push_channel_id", Valued::ChannelId, args)
    }

    /// `push_cors_origin`. What has no variables is checked now.
    pub(super) fn set_cors_origins(&mut self, args: &[&[u8]]) -> Result<(), ConfigError> {
        let directive = "push_cors_origin";
        for arg in args.iter().filter(|arg| !arg.contains(&b'$')) {
            ORIGIN.read(directive, &[arg])?;
        }
        self.set_valued(directive, Valued::CorsOrigin, args)
    }

    /// `push_first_message`. What has no variables is checked now.
    pub(super) fn set_first_message(&mut self, args: &[&[u8]]) -> Result<(), ConfigError> {
        let directive = "push_first_message";
        for arg in args.iter().filter(|arg| !arg.contains(&b'$')) {
            first::first([*arg]).map_err(|BadFirst(value)| ConfigError::Value {
                directive,
                value,
                allowed: "\"oldest\", \"newest\", N (the N-th oldest message), -N (the last N messages), \
                          @T (those since the second T after 1970), and variables",
            })?;
        }
        self.set_valued(directive, Valued::FirstMessage, args)
    }

    /// `push_websocket_channels`.
    pub(super) fn set_websocket_channels(&mut self, args: &[&[u8]]) -> Result<(), ConfigError> {
        let directive = "push_websocket_channels";
        let is_odd =
            |arg: &&&[u8]| arg.split_last().is_some_and(|(_, start)| start.contains(&b'*'));
        if let Some(odd) = args.iter().find(is_odd) {
            return Err(ConfigError::Value {
                directive,
                value: String::from_utf8_lossy(odd).into_owned(),
                allowed: "a name with no \"*\" but at its end",
            });
        }
        self.set_valued(directive, Valued::WebSocketChannels, args)?;
        self.websocket_stars = Some(args.iter().map(|arg| arg.ends_with(b"*")).collect());
        Ok(())
    }

    fn set_valued(
        &mut self,
        directive: &'static str,
        valued: Valued,
        args: &[&[u8]],
    ) -> Result<(), ConfigError> {
        if self.valued.contains(&valued) {
            return Err(ConfigError::Duplicate { directive });
        }
        if args.is_empty() || args.len() > MAX_CHANNELS {
            return Err(ConfigError::Count { directive, allowed: "1 to 255 values" });
        }
        self.valued.push(valued);
        Ok(())
    }

    /// `push_min_message_buffer_length`.
    pub(super) fn set_min_messages(&mut self, args: &[&[u8]]) -> Result<(), ConfigError> {
        self.only_one_way(MIN_LENGTH, self.said_length.then_some(LENGTH))?;
        value::COUNT.set(MIN_LENGTH, &mut self.min_messages, args)
    }

    /// `push_max_message_buffer_length`.
    pub(super) fn set_max_messages(&mut self, args: &[&[u8]]) -> Result<(), ConfigError> {
        self.only_one_way(MAX_LENGTH, self.said_length.then_some(LENGTH))?;
        value::COUNT.set(MAX_LENGTH, &mut self.max_messages, args)
    }

    /// `push_message_buffer_length`.
    pub(super) fn set_messages(&mut self, args: &[&[u8]]) -> Result<(), ConfigError> {
        if self.said_length {
            return Err(ConfigError::Duplicate { directive: LENGTH });
        }
        self.only_one_way(LENGTH, self.min_messages.map(|_| MIN_LENGTH))?;
        self.only_one_way(LENGTH, self.max_messages.map(|_| MAX_LENGTH))?;
        let length = value::COUNT.read(LENGTH, args)?;
        self.said_length = true;
        self.min_messages = Some(length);
        self.max_messages = Some(length);
        Ok(())
    }

    /// Fails if the bound that `directive` sets has been set by `other` in this block.
    fn only_one_way(
        &self,
        directive: &'static str,
        other: Option<&'static str>,
    ) -> Result<(), ConfigError> {
        let allowed =
            "either \"push_message_buffer_length\", which sets both bounds, or single bounds";
        other.map_or(Ok(()), |other| Err(ConfigError::Conflict { directive, other, allowed }))
    }

    /// The bounds of the message buffer as said, where `push_store_messages off` says 0 for both.
    fn bounds(&self) -> (Option<u64>, Option<u64>) {
        match self.store_messages {
            Some(false) => (Some(0), Some(0)),
            Some(true) | None => (self.min_messages, self.max_messages),
        }
    }
}

fn inherit<T: Clone>(own: &mut Option<T>, parent: &Option<T>) {
    if own.is_none() {
        own.clone_from(parent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(min: Option<u64>, max: Option<u64>) -> LocationConf {
        LocationConf { min_messages: min, max_messages: max, ..LocationConf::default() }
    }

    fn store(on: bool) -> LocationConf {
        LocationConf { store_messages: Some(on), ..LocationConf::default() }
    }

    /// The bounds that hold after merging `levels`, the outermost first.
    fn meant(levels: &[LocationConf]) -> Result<(u64, u64), ConfigError> {
        let mut merged = LocationConf::default();
        for level in levels {
            let mut level = level.clone();
            level.merge(&merged)?;
            merged = level;
        }
        let settings = merged.settings();
        Ok((settings.min_messages, settings.max_messages))
    }

    #[test]
    fn defaults() {
        let settings = LocationConf::default().settings();
        assert_eq!(settings, Settings::default());
        assert_eq!(meant(&[LocationConf::default()]), Ok((1, 10)));
    }

    #[test]
    fn bounds_are_inherited_each_by_itself() {
        let (min, max) = (bounds(Some(2), None), bounds(None, Some(20)));
        assert_eq!(meant(&[min.clone(), max.clone()]), Ok((2, 20)));
        assert_eq!(meant(&[max, min, LocationConf::default()]), Ok((2, 20)));
    }

    #[test]
    fn a_maximum_below_the_minimum_is_an_error_wherever_they_were_said() {
        let error = Err(ConfigError::MaxBelowMin { max: 4, min: 5 });
        assert_eq!(meant(&[bounds(Some(5), Some(4))]), error);
        assert_eq!(meant(&[bounds(Some(5), None), bounds(None, Some(4))]), error);
        assert_eq!(meant(&[bounds(None, Some(4)), bounds(Some(5), None)]), error);
        let text = ConfigError::MaxBelowMin { max: 4, min: 5 }.to_string();
        for part in [
            "push_max_message_buffer_length\" is 4",
            "push_min_message_buffer_length\", which is 5",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_minimum_that_nobody_said_gives_way() {
        assert_eq!(meant(&[bounds(None, Some(0))]), Ok((0, 0)));
        assert_eq!(meant(&[bounds(None, Some(1))]), Ok((1, 1)));
    }

    #[test]
    fn a_maximum_that_nobody_said_gives_way() {
        assert_eq!(meant(&[bounds(Some(20), None)]), Ok((20, 20)));
        assert_eq!(meant(&[bounds(Some(20), None), bounds(None, Some(30))]), Ok((20, 30)));
    }

    #[test]
    fn storing_nothing_is_bounds_of_zero() {
        assert_eq!(meant(&[store(false)]), Ok((0, 0)));
        assert_eq!(meant(&[store(false), LocationConf::default()]), Ok((0, 0)));
        assert_eq!(meant(&[bounds(Some(3), Some(30)), store(false)]), Ok((0, 0)));
    }

    #[test]
    fn storing_does_not_undo_an_inherited_zero() {
        assert_eq!(meant(&[store(false), store(true)]), Ok((0, 0)));
        assert_eq!(meant(&[store(true)]), Ok((1, 10)));
    }

    #[test]
    fn a_length_undoes_an_inherited_zero() {
        assert_eq!(meant(&[store(false), bounds(None, Some(5))]), Ok((0, 5)));
        assert_eq!(meant(&[store(false), bounds(Some(5), Some(5))]), Ok((5, 5)));
        assert_eq!(
            meant(&[store(false), bounds(Some(5), None)]),
            Err(ConfigError::MaxBelowMin { max: 0, min: 5 })
        );
    }

    #[test]
    fn storing_nothing_wins_over_a_length_in_the_same_block_with_a_warning() {
        let mut conf = LocationConf { store_messages: Some(false), ..bounds(Some(2), Some(20)) };
        let expected = vec![
            Warning::StoreOffWins { directive: MIN_LENGTH },
            Warning::StoreOffWins { directive: MAX_LENGTH },
        ];
        assert_eq!(conf.merge(&LocationConf::default()), Ok(expected));
        assert_eq!(conf.settings().max_messages, 0);
        assert_eq!(conf.settings().min_messages, 0);
    }

    #[test]
    fn storing_nothing_beside_push_message_buffer_length_warns_once() {
        let mut conf = store(false);
        assert_eq!(conf.set_messages(&[b"5"]), Ok(()));
        assert_eq!(
            conf.merge(&LocationConf::default()),
            Ok(vec![Warning::StoreOffWins { directive: LENGTH }])
        );
    }

    #[test]
    fn storing_nothing_beside_a_length_of_zero_is_no_warning() {
        let mut conf = LocationConf { store_messages: Some(false), ..bounds(Some(0), Some(0)) };
        assert_eq!(conf.merge(&LocationConf::default()), Ok(vec![]));
        assert_eq!(store(true).merge(&bounds(Some(2), Some(20))), Ok(vec![]));
    }

    #[test]
    fn a_length_beside_an_inherited_storing_of_nothing_is_no_warning() {
        assert_eq!(bounds(None, Some(5)).merge(&store(false)), Ok(vec![]));
    }

    #[test]
    fn roles_are_not_inherited_and_transports_are() {
        let mut location = LocationConf::default();
        assert_eq!(location.set_subscriber(&[b"interval-poll", b"ws"]), Ok(()));
        let listed = Transports::INTERVAL_POLL.and(Transports::WEBSOCKET);
        let mut inner = LocationConf::default();
        assert_eq!(inner.merge(&location), Ok(vec![]));
        assert_eq!((location.role, inner.role), (Some(Role::Subscriber), None));
        assert_eq!(inner.settings().transports, listed);
    }

    #[test]
    fn a_subscriber_location_inside_another_has_its_own_transports() {
        let mut outer = LocationConf::default();
        let mut inner = LocationConf::default();
        assert_eq!(outer.set_subscriber(&[b"i"]), Ok(()));
        assert_eq!(inner.set_subscriber(&[]), Ok(()));
        assert_eq!(inner.merge(&outer), Ok(vec![]));
        assert_eq!(inner.settings().transports, Transports::DEFAULT);
    }

    #[test]
    fn everything_else_is_inherited_unless_said() {
        let parent = LocationConf {
            publisher_websocket: Some(true),
            id_delimiter: Some(b",".to_vec()),
            concurrency: Some(Concurrency::Last),
            delete_oldest_received: Some(true),
            message_timeout_ms: Some(1),
            subscriber_timeout_ms: Some(2),
            channel_timeout_ms: Some(3),
            authorized_only: Some(true),
            group: Some(b"g".to_vec()),
            max_id_length: Some(4),
            max_subscribers: Some(5),
            ignore_queue_on_no_cache: Some(true),
            ping_interval_ms: Some(6),
            retry_ms: Some(7),
            separator: Some(b"s".to_vec()),
            poll_form: Some(PollForm::Joined),
            websocket_deflate: Some(true),
            websocket_info: Some(true),
            cors_credentials: Some(true),
            websocket_stars: Some(vec![true]),
            ..LocationConf::default()
        };
        let mut child = LocationConf::default();
        assert_eq!(child.merge(&parent), Ok(vec![]));
        assert_eq!(child, parent);

        let own = LocationConf {
            publisher_websocket: Some(false),
            id_delimiter: Some(Vec::new()),
            concurrency: Some(Concurrency::First),
            delete_oldest_received: Some(false),
            message_timeout_ms: Some(0),
            subscriber_timeout_ms: Some(0),
            channel_timeout_ms: Some(0),
            authorized_only: Some(false),
            group: Some(Vec::new()),
            max_id_length: Some(0),
            max_subscribers: Some(0),
            ignore_queue_on_no_cache: Some(false),
            ping_interval_ms: Some(0),
            retry_ms: Some(0),
            separator: Some(Vec::new()),
            poll_form: Some(PollForm::One),
            websocket_deflate: Some(false),
            websocket_info: Some(false),
            cors_credentials: Some(false),
            websocket_stars: Some(vec![false]),
            ..LocationConf::default()
        };
        let mut child = own.clone();
        assert_eq!(child.merge(&parent), Ok(vec![]));
        assert_eq!(child, own);
    }

    #[test]
    fn settings_are_what_was_said() {
        let conf = LocationConf {
            transports: Some(Transports::INTERVAL_POLL),
            publisher_websocket: Some(false),
            park: Some(Park::Plain),
            concurrency: Some(Concurrency::First),
            min_messages: Some(2),
            max_messages: Some(3),
            delete_oldest_received: Some(true),
            message_timeout_ms: Some(4),
            subscriber_timeout_ms: Some(5),
            channel_timeout_ms: Some(6),
            authorized_only: Some(true),
            id_delimiter: Some(b",".to_vec()),
            group: Some(b"g".to_vec()),
            max_id_length: Some(7),
            max_subscribers: Some(8),
            ignore_queue_on_no_cache: Some(true),
            ping_interval_ms: Some(6),
            retry_ms: Some(7),
            separator: Some(b"s".to_vec()),
            poll_form: Some(PollForm::Multipart),
            websocket_deflate: Some(true),
            websocket_info: Some(true),
            cors_credentials: Some(true),
            websocket_stars: Some(vec![true]),
            ..LocationConf::default()
        };
        assert_eq!(
            conf.settings(),
            Settings {
                transports: Transports::INTERVAL_POLL,
                publisher_websocket: false,
                park: Park::Plain,
                concurrency: Concurrency::First,
                min_messages: 2,
                max_messages: 3,
                delete_oldest_received: true,
                message_timeout_ms: 4,
                subscriber_timeout_ms: 5,
                channel_timeout_ms: 6,
                authorized_only: true,
                id_delimiter: b",".to_vec(),
                group: b"g".to_vec(),
                max_id_length: 7,
                max_subscribers: 8,
                ignore_queue_on_no_cache: true,
                ping_interval_ms: 6,
                retry_ms: 7,
                separator: b"s".to_vec(),
                poll_form: PollForm::Multipart,
                websocket_deflate: true,
                websocket_info: Some(true),
                cors_credentials: true,
                websocket_stars: vec![true],
            }
        );
    }

    #[test]
    fn origins_are_checked_unless_they_have_variables() {
        let set = |args: &[&[u8]]| LocationConf::default().set_cors_origins(args);
        let texts: [&[u8]; 5] =
            [b"https://a.example", b"https://*.a.example:8443", b"*", b"null", b"$allowed"];
        let mut conf = LocationConf::default();
        assert_eq!(conf.set_cors_origins(&texts), Ok(()));
        assert_eq!(conf.valued, [Valued::CorsOrigin]);
        let directive = "push_cors_origin";
        assert_eq!(conf.set_cors_origins(&[b"*"]), Err(ConfigError::Duplicate { directive }));
        assert!(matches!(set(&[]), Err(ConfigError::Count { .. })));
        for value in [&b"a.example"[..], b"https://a.example/", b"*.a.example", b""] {
            let error = set(&[b"https://a.example", value]).map_err(|error| error.to_string());
            assert!(matches!(&error, Err(text) if text.contains("without a path")), "{error:?}");
        }
    }
    #[test]
    fn a_star_ends_a_name_where_it_is_written() {
        let mut conf = LocationConf::default();
        let names: [&[u8]; 4] = [b"news", b"room_*", b"user_$arg_user", b"*"];
        assert_eq!(conf.set_websocket_channels(&names), Ok(()));
        assert_eq!(conf.settings().websocket_stars, [false, true, false, true]);
        for value in [&b"*a"[..], b"a*b", b"**"] {
            let error = LocationConf::default().set_websocket_channels(&[b"a*", value]);
            assert!(matches!(error, Err(ConfigError::Value { .. })), "{error:?}");
        }
    }
}
