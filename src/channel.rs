//! Which channels a request is about.

use comet::channel_id::{channel_id, channel_ids, no_channel_id, ChannelId};
use comet::reply::Reply;
use comet::subscriber::Refusal;

use crate::nginx::log::{self, Level, Topic};
use crate::nginx::request::Request;

/// The channels that a request names.
#[derive(Clone, Debug)]
pub enum Channels {
    /// One, nearly always.
    One(ChannelId),
    /// Several, each another one.
    Many(Vec<ChannelId>),
}

impl Channels {
    /// All of them.
    pub fn as_slice(&self) -> &[ChannelId] {
        match self {
            Channels::One(id) => std::slice::from_ref(id),
            Channels::Many(ids) => ids,
        }
    }
}

/// The channels that a request names, or what to answer if it names none, or too many.
pub fn channels_of(request: &Request) -> Result<Channels, Reply> {
    let settings = request.settings();
    let values = request.channel_values();
    let channels = match values.as_slice() {
        [value] if settings.id_delimiter.is_empty() => {
            channel_id(&settings.group, value, settings.max_id_length).map(Channels::One)
        }
        values => {
            let values = values.iter().copied();
            let ids = channel_ids(
                &settings.group,
                values,
                &settings.id_delimiter,
                settings.max_id_length,
            );
            let mut ids = match ids {
                Ok(ids) => ids,
                Err(error) => {
                    request.log(Topic::ManyChannels, Level::Warn, &format!("push: {error}"));
                    return Err(error.reply());
                }
            };
            match ids.len() {
                0 | 1 => ids.pop().map(Channels::One),
                _ => Some(Channels::Many(ids)),
            }
        }
    };
    let Some(channels) = channels else {
        request.log(
            Topic::NoChannel,
            Level::Warn,
            "push: the request names no channel: push_channel_id or $push_channel_id is empty",
        );
        return Err(no_channel_id());
    };
    if channels.as_slice().iter().any(ChannelId::is_truncated) {
        request.log(
            Topic::LongId,
            // Others whose ids begin alike have the same channel from now on.
            Level::Error,
            "push: the channel id is longer than push_max_channel_id_length, and was cut: ids that begin alike are one channel",
        );
    }
    Ok(channels)
}

/// Tells the operator of a subscriber for whose channel there is no room. Other refusals are as the configuration wants them, or
/// told elsewhere.
pub fn complain(refusal: Refusal) {
    let topic = match refusal {
        Refusal::NoSpace => Topic::NoRoom,
        Refusal::TooManyChannels => Topic::NoMore,
        _ => return,
    };
    log::cycle(topic.level(Level::Error), &format!("push: {refusal}"));
}

/// A limit from the configuration; what is larger than can be counted is no limit.
pub fn saturate(limit: u64) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}
