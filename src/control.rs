//! A WebSocket of the subprotocol `push.json`: its client subscribes, unsubscribes and publishes on the live connection.

use comet::channel_id::{channel_id, ChannelId};
use comet::config::Settings;
use comet::control::{self as frames, Action, CommandError, Pattern, Value};
use comet::message::Position;
use comet::publisher::PublishError;
use comet::websocket;
use comet::wire::object;
use comet::zone::Content;

use crate::channel::{self, Channels};
use crate::nginx::parking::Parked;
use crate::worker::{self, Unchanged};
use crate::{memory, publisher, subscriber};

/// How many times the size of a frame its values may take while it is read.
const PARSING: u64 = 16;

/// What is kept of such a client's request.
#[derive(Debug)]
pub struct Control {
    /// The channels of its location.
    pub channels: Channels,
    /// `push_websocket_channels`.
    pub patterns: Vec<Pattern>,
    /// Where it begins in a channel that it adds, unless it says so.
    pub first: Position,
    /// Whether it gets messages.
    pub subscribes: bool,
    /// Whether it sends them.
    pub publishes: bool,
    /// Bytes that a frame of its may have.
    pub max_message: u64,
}

/// Why something is not done: a status of HTTP, and a sentence.
struct Refusal(u16, String);

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        Refusal(error.status(), error.to_string())
    }
}

impl From<Unchanged> for Refusal {
    fn from(unchanged: Unchanged) -> Self {
        match unchanged {
            Unchanged::Command(error) => error.into(),
            Unchanged::Refused(refusal) => Refusal(refusal.reply().status, refusal.to_string()),
            Unchanged::NotHere => Refusal(503, "The worker is stopping.".into()),
        }
    }
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        Refusal(error.reply().status, error.to_string())
    }
}

impl Control {
    /// Does what a frame asks for, and returns the frames to answer with.
    pub fn obey(&self, stream: Parked, binary: bool, data: &[u8]) -> Vec<u8> {
        let (request, action) = match binary {
            true => (None, Err(CommandError::NoText)),
            false if !memory::has_room(PARSING.saturating_mul(data.len() as u64)) => {
                let Refusal(status, reason) = PublishError::Exhausted.into();
                return websocket::text(&frames::refused(None, status, &reason));
            }
            false => frames::read(data),
        };
        let done = action.map_err(Refusal::from).and_then(|action| match action {
            Action::Subscribe { channel, position } => {
                self.subscribe(stream, &request, &channel, position)
            }
            Action::Unsubscribe { channel } => {
                let key = stream.key().ok_or(Unchanged::NotHere)?;
                let name = self.id_of(stream.settings(), &channel)?.name().to_vec();
                worker::remove_channel(key, &name)?;
                Ok(websocket::text(&frames::unsubscribed(request.clone(), &channel)))
            }
            Action::Publish { channel, data, content_type, event } => {
                let channel = channel.as_deref();
                self.publish(stream, &request, channel, &data, &content_type, &event)
            }
        });
        done.unwrap_or_else(|Refusal(status, reason)| {
            websocket::text(&frames::refused(request, status, &reason))
        })
    }

    fn subscribe(
        &self,
        stream: Parked,
        request: &Option<Value>,
        channel: &str,
        position: Option<Position>,
    ) -> Result<Vec<u8>, Refusal> {
        if !self.subscribes {
            return Err(CommandError::NoSubscriber.into());
        }
        let key = stream.key().ok_or(Unchanged::NotHere)?;
        let id = self.id_of(stream.settings(), channel)?;
        let position = position.unwrap_or(self.first);
        let subscription = subscriber::subscription(stream.settings(), &id, position);
        let missed =
            worker::add_channel(key, &subscription, id.name()).inspect_err(|unchanged| {
                if let Unchanged::Refused(refusal) = unchanged {
                    channel::complain(*refusal);
                }
            })?;
        let mut said = websocket::text(&frames::subscribed(request.clone(), channel));
        if !missed.is_none() {
            said.extend(websocket::text(object::gap(missed).as_bytes()));
        }
        Ok(said)
    }

    fn publish(
        &self,
        stream: Parked,
        request: &Option<Value>,
        channel: Option<&str>,
        data: &[u8],
        content_type: &str,
        event: &str,
    ) -> Result<Vec<u8>, Refusal> {
        if !self.publishes {
            return Err(CommandError::NoPublisher.into());
        }
        let settings = stream.settings();
        let channels = match channel {
            Some(channel) => Channels::One(self.id_of(settings, channel)?),
            None => self.channels.clone(),
        };
        let ids = channels.as_slice();
        let content = Content::Pieces(&[data]);
        let (content_type, event) = (content_type.as_bytes(), event.as_bytes());
        let publications: Vec<_> = ids
            .iter()
            .map(|id| publisher::publication(settings, id.as_bytes(), content_type, event, content))
            .collect();
        let published = worker::publish(&publications)
            .ok_or(Unchanged::NotHere)?
            .inspect_err(publisher::complain)?;
        let told: Vec<_> = ids
            .iter()
            .zip(&published)
            .map(|(id, published)| (id.name(), published.id, published.info.subscribers))
            .collect();
        Ok(websocket::text(&frames::published(request.clone(), &told)))
    }

    /// The channel of that name, if the client may have it.
    fn id_of(&self, settings: &Settings, name: &str) -> Result<ChannelId, Refusal> {
        let id = channel_id(&settings.group, name.as_bytes(), settings.max_id_length)
            .filter(|id| !id.is_truncated())
            .ok_or(CommandError::NotAllowed)?;
        let own = self.channels.as_slice().iter().any(|own| own.name() == id.name());
        if own || self.patterns.iter().any(|pattern| pattern.names(id.name())) {
            Ok(id)
        } else {
            Err(CommandError::NotAllowed.into())
        }
    }
}
