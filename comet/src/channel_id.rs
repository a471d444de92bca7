//! The name of a channel, made from what the request says and where it was asked.

use thiserror::Error;

use crate::many::MAX_CHANNELS;
use crate::reply::Reply;

/// The id by which the zone knows a channel: any bytes, of any length.
///
/// Two locations name the same channel if and only if these bytes are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelId {
    bytes: Vec<u8>,
    /// Where the value begins.
    value: usize,
    truncated: bool,
}

impl ChannelId {
    /// The id in full: group, slash, value.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The value alone: what its users call the channel.
    pub fn name(&self) -> &[u8] {
        self.bytes.get(self.value..).unwrap_or_default()
    }

    /// Whether the value was longer than `push_max_channel_id_length` and has lost its end.
    ///
    /// NHPM is silent about it, so such a request is served; an operator will want to read of it in the log, because
    /// different values may have become one channel.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }
}

impl AsRef<[u8]> for ChannelId {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The channels that a request names: the parts of all values between `delimiter`s (`push_channel_id_split_delimiter`; empty
/// for none), each once, in their order. Empty parts do not count; if there are none, answer with [`no_channel_id`].
///
/// # Errors
///
/// [`TooMany`] if there are more than [`MAX_CHANNELS`].
pub fn channel_ids<'a>(
    group: &[u8],
    values: impl IntoIterator<Item = &'a [u8]>,
    delimiter: &[u8],
    max_len: usize,
) -> Result<Vec<ChannelId>, TooMany> {
    let mut ids: Vec<ChannelId> = Vec::new();
    for part in values.into_iter().flat_map(|value| split(value, delimiter)) {
        let Some(id) = channel_id(group, part, max_len) else { continue };
        if ids.iter().any(|known| known.bytes == id.bytes) {
            continue;
        }
        if ids.len() == MAX_CHANNELS {
            return Err(TooMany);
        }
        ids.push(id);
    }
    Ok(ids)
}

/// A request names more channels than one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("The request names more than {MAX_CHANNELS} channels.")]
pub struct TooMany;

impl TooMany {
    /// The reply, of a publisher as of a subscriber.
    pub fn reply(&self) -> Reply {
        Reply::text(403, self.to_string().into_bytes())
    }
}

fn split<'a>(value: &'a [u8], delimiter: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let value = rest?;
        let found = value.windows(delimiter.len().max(1)).position(|part| part == delimiter);
        let (part, after) = match found {
            Some(at) => (value.get(..at)?, value.get(at + delimiter.len()..)),
            None => (value, None),
        };
        rest = after;
        Some(part)
    })
}

/// Makes the id `<group>/<value>`, or `None` if there is no value (answer with [`no_channel_id`]).
///
/// `group` is `push_channel_group`, `value` that of `push_channel_id` or `$push_channel_id`, and `max_len`
/// (`push_max_channel_id_length`, in bytes) limits the value alone.
pub fn channel_id(group: &[u8], value: &[u8], max_len: usize) -> Option<ChannelId> {
    if value.is_empty() {
        return None;
    }
    let kept = value.get(..max_len).unwrap_or(value);
    Some(ChannelId {
        bytes: [group, b"/", kept].concat(),
        value: group.len() + 1,
        truncated: kept.len() < value.len(),
    })
}

/// The reply to a request that names no channel, of a publisher as of a subscriber.
pub fn no_channel_id() -> Reply {
    Reply::text(404, &b"No channel id provided."[..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::ReplyBody;

    fn id(group: &str, value: &str, max_len: usize) -> Option<(String, bool)> {
        channel_id(group.as_bytes(), value.as_bytes(), max_len)
            .map(|id| (String::from_utf8_lossy(id.as_bytes()).into_owned(), id.is_truncated()))
    }

    fn ids(values: &[&str], delimiter: &str) -> Result<Vec<String>, TooMany> {
        let values = values.iter().map(|value| value.as_bytes());
        let ids = channel_ids(b"g", values, delimiter.as_bytes(), 4)?;
        Ok(ids.iter().map(|id| String::from_utf8_lossy(id.name()).into_owned()).collect())
    }

    #[test]
    fn values_are_divided_at_the_delimiter() {
        let list = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(ids(&["a"], ""), list(&["a"]));
        assert_eq!(ids(&["a,b"], ""), list(&["a,b"]));
        assert_eq!(ids(&["a,b", "c"], ","), list(&["a", "b", "c"]));
        assert_eq!(ids(&[",a,,b,"], ","), list(&["a", "b"]));
        assert_eq!(ids(&["a--b-c"], "--"), list(&["a", "b-c"]));
        assert_eq!(ids(&["a---b"], "--"), list(&["a", "-b"]));
        assert_eq!(ids(&["", ",,"], ","), list(&[]));
    }

    #[test]
    fn a_channel_that_is_named_twice_is_one() {
        assert_eq!(ids(&["a,b,a", "b"], ","), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(ids(&["long1", "long2"], ","), Ok(vec!["long".into()]));
    }

    #[test]
    fn more_than_255_channels_are_refused() {
        let numbers = |count: u32| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(ids(&[&numbers(255)], ",").map(|ids| ids.len()), Ok(255));
        assert_eq!(ids(&[&numbers(256)], ","), Err(TooMany));
        assert_eq!(ids(&[&numbers(255), "0"], ",").map(|ids| ids.len()), Ok(255));
        assert_eq!(TooMany.reply().status, 403);
    }

    #[test]
    fn group_and_value_are_joined_by_a_slash() {
        assert_eq!(id("", "foo", 1024), Some(("/foo".into(), false)));
        assert_eq!(id("chat", "foo", 1024), Some(("chat/foo".into(), false)));
    }

    #[test]
    fn an_empty_value_is_no_id() {
        assert_eq!(id("chat", "", 1024), None);
        assert_eq!(id("", "", 0), None);
    }

    #[test]
    fn a_value_longer_than_the_limit_loses_its_end() {
        assert_eq!(id("group", "abc", 3), Some(("group/abc".into(), false)));
        assert_eq!(id("group", "abcd", 3), Some(("group/abc".into(), true)));
        assert_eq!(id("group", "abcd", 0), Some(("group/".into(), true)));
    }

    #[test]
    fn ids_over_255_bytes_differ_to_the_last_byte() {
        let (one, two) = ("x".repeat(999) + "1", "x".repeat(999) + "2");
        assert_ne!(id("g", &one, 1024), id("g", &two, 1024));
        assert_eq!(id("g", &one, 1024), Some((format!("g/{one}"), false)));
    }

    #[test]
    fn any_bytes_are_an_id() {
        let made = channel_id(b"\xff", b"\x00/\xfe", 1024);
        assert_eq!(made.as_ref().map(ChannelId::as_bytes), Some(&b"\xff/\x00/\xfe"[..]));
    }

    #[test]
    fn a_request_without_an_id_is_not_found() {
        let reply = no_channel_id();
        assert_eq!(reply.status, 404);
        assert_eq!(reply.content_type.as_deref(), Some(&b"text/plain"[..]));
        assert_eq!(reply.body, ReplyBody::Bytes(b"No channel id provided.".as_slice().into()));
    }
}
