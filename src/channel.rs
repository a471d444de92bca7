//! Which channel a request is about.

use comet::channel_id::{channel_id, ChannelId};

use crate::nginx::log::Level;
use crate::nginx::request::Request;

/// The channel that a request names, if it names one.
pub fn id_of(request: &Request) -> Option<ChannelId> {
    let settings = request.settings();
    let id = channel_id(&settings.group, request.channel_value(), settings.max_id_length);
    match &id {
        None => request.log(
            Level::Warn,
            "push: the request names no channel: push_channel_id or $push_channel_id is empty",
        ),
        Some(id) if id.is_truncated() => request.log(
            Level::Warn,
            "push: the channel id is longer than push_max_channel_id_length, and was cut",
        ),
        Some(_) => {}
    }
    id
}

/// A limit from the configuration; what is larger than can be counted is no limit.
pub fn saturate(limit: u64) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}
