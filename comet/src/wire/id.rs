//! Message ids as streams write them, `time:tag` (e.g. `1700000000:3`), read from `Last-Event-ID` or from an argument.
//!
//! [`MessageId`]'s `Display` is the other direction.

use std::str::FromStr;

use super::query;
use crate::many::MAX_CHANNELS;
use crate::message::{MessageId, Position, Seen};

/// The argument that says what `Last-Event-ID` says, for clients that cannot set a header.
const ARGUMENT: &[u8] = b"last_event_id";

/// An encoded argument longer than this is no id: every byte of the longest one, encoded, takes 93.
const MAX_ENCODED_LEN: usize = 128;

/// Reads `time:tag`: two decimal numbers without a sign. Space around it does not count.
pub fn parse(value: &[u8]) -> Option<MessageId> {
    pair(value.trim_ascii(), b':')
}

fn pair(value: &[u8], between: u8) -> Option<MessageId> {
    let mut numbers = value.splitn(2, |&byte| byte == between);
    let time = number(numbers.next()?)?;
    let tag = number(numbers.next()?)?;
    Some(MessageId { time, tag })
}

/// Reads where a subscriber of one channel asks to begin: after a message, or past the second of a cursor that was given
/// for several channels. An id at 1970-01-01 00:00:00 is no message's and says nothing.
pub fn position(value: &[u8]) -> Option<Position> {
    parse(value).map(Position::After).or_else(|| past(value)).filter(is_real)
}

/// Reads the same from the first `last_event_id` in a query string, whose value may be percent-encoded.
pub fn position_from_query(args: &[u8]) -> Option<Position> {
    from_query(args)
        .map(Position::After)
        .or_else(|| past(&argument(args, MAX_ENCODED_LEN * MAX_CHANNELS)?))
        .filter(is_real)
}

fn is_real(position: &Position) -> bool {
    position.id().is_some_and(|id| id.time != 0)
}

fn past(value: &[u8]) -> Option<Position> {
    let mut parts = value.trim_ascii().splitn(2, |&byte| byte == b':');
    let time = number(parts.next()?)?;
    is_of_several(parts.next()?).then_some(Position::Past(time))
}

/// Whether these are the tags of a cursor of several channels, and not a list of tags, as caches send.
pub fn is_of_several(tags: &[u8]) -> bool {
    let members = || tags.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    members().nth(1).is_some()
        && members().all(|member| tag(member).is_some())
        && members().any(|member| member == b"-" || member.starts_with(b"["))
}

/// Where a subscriber of several channels asks to begin in each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursors {
    /// One for each channel.
    pub positions: Vec<Position>,
    /// The cursor was given for another number of channels: beside what the positions say, messages may have been missed.
    pub is_foreign: bool,
}

impl Cursors {
    /// Reads `time:tags`, as [`ManyId`](crate::message::ManyId) writes it, for so many channels.
    pub fn parse(value: &[u8], channels: usize) -> Option<Self> {
        let mut parts = value.trim_ascii().splitn(2, |&byte| byte == b':');
        let time = number(parts.next()?)?;
        Self::of(time, parts.next()?, channels)
    }

    /// Reads the tags of a cursor of this time.
    ///
    /// Where their number is not that of the channels, everything of this time may have been seen or not: nothing is sent
    /// twice, and it is told as a gap.
    pub fn of(time: u64, tags: &[u8], channels: usize) -> Option<Self> {
        let tags: Vec<Seen> = tags.split(|&byte| byte == b',').map(tag).collect::<Option<_>>()?;
        let is_foreign = tags.len() != channels;
        let position = |seen| match seen {
            Seen::UpTo(tag) => Position::After(MessageId { time, tag }),
            Seen::Before => Position::since(time),
            Seen::Lost(lost) => Position::Anew { time, lost },
        };
        let positions = match is_foreign {
            false => tags.into_iter().map(position).collect(),
            true => vec![position(Seen::UpTo(u32::MAX)); channels],
        };
        Some(Cursors { positions, is_foreign })
    }

    /// The same position in all channels.
    pub fn all(position: Position, channels: usize) -> Self {
        Cursors { positions: vec![position; channels], is_foreign: false }
    }
}

/// Reads one tag of several, where `-` says that nothing of this second has been seen (`-1` with old versions of Nchan), and
/// `x1699999999.4` that the channel was deleted after this message. The brackets mark the channel of the last message and do
/// not matter.
fn tag(value: &[u8]) -> Option<Seen> {
    match value.trim_ascii() {
        b"-" | b"-1" => Some(Seen::Before),
        [b'x', lost @ ..] => pair(lost, b'.').map(Seen::Lost),
        [b'[', inner @ .., b']'] => number(inner).map(Seen::UpTo),
        plain => number(plain).map(Seen::UpTo),
    }
}

/// Reads the id from the first `last_event_id` in a query string, whose value may be percent-encoded.
pub fn from_query(args: &[u8]) -> Option<MessageId> {
    parse(&argument(args, MAX_ENCODED_LEN)?)
}

/// Reads the cursors from there, for so many channels.
pub fn cursors_from_query(args: &[u8], channels: usize) -> Option<Cursors> {
    Cursors::parse(&argument(args, MAX_ENCODED_LEN * channels.max(1))?, channels)
}

fn argument(args: &[u8], max_len: usize) -> Option<Vec<u8>> {
    query::argument(args, ARGUMENT).filter(|value| value.len() <= max_len).and_then(query::decode)
}

/// Reads a decimal number. Unlike `FromStr` it takes no sign.
fn number<T: FromStr>(digits: &[u8]) -> Option<T> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MessageId = MessageId { time: 1_700_000_000, tag: 3 };

    #[test]
    fn an_id_is_a_time_and_a_tag() {
        assert_eq!(parse(b"1700000000:3"), Some(ID));
        assert_eq!(parse(b" \t1700000000:3 "), Some(ID));
        assert_eq!(parse(b"001700000000:0003"), Some(ID));
        assert_eq!(parse(b"0:0"), Some(MessageId { time: 0, tag: 0 }));
        assert_eq!(
            parse(b"18446744073709551615:4294967295"),
            Some(MessageId { time: u64::MAX, tag: u32::MAX })
        );
    }

    #[test]
    fn what_is_no_id_is_none() {
        for bad in [
            &b""[..],
            b":",
            b"1",
            b"1:",
            b":1",
            b"+1:1",
            b"1:+1",
            b"-1:1",
            b"1:-1",
            b"1 :1",
            b"1: 1",
            b"1:1:1",
            b"1:1,2",
            b"0x1:1",
            b"1:1\0",
            b"18446744073709551616:0",
            b"0:4294967296",
            b"\xff:1",
        ] {
            assert_eq!(parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn of_several_channels_there_is_a_tag_for_each() {
        let after = |tag| Position::After(MessageId { tag, ..ID });
        let before = Position::since(ID.time);
        assert_eq!(before, Position::After(MessageId { time: ID.time - 1, tag: u32::MAX }));
        assert_eq!(
            Cursors::parse(b"1700000000:x1699999999.4,[0],-", 3).map(|cursors| cursors.positions),
            Some(vec![
                Position::Anew { time: ID.time, lost: MessageId { time: ID.time - 1, tag: 4 } },
                after(0),
                before
            ])
        );
        for text in ["1700000000:3,[0],-", " 1700000000:[3], 0 ,-1 "] {
            assert_eq!(
                Cursors::parse(text.as_bytes(), 3),
                Some(Cursors { positions: vec![after(3), after(0), before], is_foreign: false })
            );
        }
        assert_eq!(
            cursors_from_query(b"last_event_id=1700000000%3A3%2C%5B0%5D,-", 3).map(|c| c.positions),
            Some(vec![after(3), after(0), before])
        );
    }

    #[test]
    fn tags_of_another_number_of_channels_are_told() {
        for (text, channels) in
            [("1700000000:3", 2), ("1700000000:3,[1]", 3), ("1700000000:1,2", 1)]
        {
            let end = Position::After(MessageId { tag: u32::MAX, ..ID });
            assert_eq!(
                Cursors::parse(text.as_bytes(), channels),
                Some(Cursors { positions: vec![end; channels], is_foreign: true })
            );
        }
    }

    #[test]
    fn what_is_no_cursor_of_several_channels_is_none() {
        for bad in [
            "",
            "1",
            "1:",
            "1:,",
            "1:1,,2",
            "1:[1",
            "1:[[1]]",
            "1:[-]",
            "1:--",
            "x:1",
            "1:1;2",
            "1:[]",
            "1:[x1.0]",
            "1:X1.0,0",
            "1:x,0",
            "1:x1,0",
            "1:x1.,0",
            "1:x.1,0",
            "1:x1.0.0,0",
            "1:x1:0,0",
            "1:x-1.0,0",
            "x1.0:0,0",
        ] {
            assert_eq!(Cursors::parse(bad.as_bytes(), 2), None, "{bad}");
        }
    }

    #[test]
    fn an_argument_may_be_encoded() {
        for args in [
            &b"last_event_id=1700000000:3"[..],
            b"id=c&last_event_id=1700000000%3A3",
            b"last_event_id=1700000000%3a3&id=c",
            b"&&last_event_id=+%31700000000:3%20&",
            b"xlast_event_id=1:1&last_event_idx=2:2&last_event_id=1700000000:3",
        ] {
            assert_eq!(from_query(args), Some(ID), "{}", String::from_utf8_lossy(args));
        }
    }

    #[test]
    fn the_first_argument_counts() {
        assert_eq!(from_query(b"last_event_id=1700000000:3&last_event_id=1:1"), Some(ID));
        assert_eq!(from_query(b"last_event_id&last_event_id=1:1"), None);
        assert_eq!(from_query(b"last_event_id=&last_event_id=1:1"), None);
        assert_eq!(from_query(b"last_event_id=what&last_event_id=1:1"), None);
    }

    #[test]
    fn an_argument_that_is_no_id_is_none() {
        for bad in [
            &b""[..],
            b"id=c",
            b"Last_Event_Id=1:1",
            b"last_event_id=1%3",
            b"last_event_id=1%",
            b"last_event_id=1%3g1",
            b"last_event_id=1%+11",
            b"last_event_id=1:1;x",
            b"last_event_id=1=1",
        ] {
            assert_eq!(from_query(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn an_argument_of_any_length_is_looked_at_and_a_long_one_is_none() {
        let encoded: String =
            "18446744073709551615:4294967295".bytes().map(|byte| format!("%{byte:02x}")).collect();
        assert!(from_query(format!("last_event_id={encoded}").as_bytes()).is_some());
        let zeros = "0".repeat(MAX_ENCODED_LEN);
        assert_eq!(from_query(format!("last_event_id={zeros}1:1").as_bytes()), None);
    }
}
