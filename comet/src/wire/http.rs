//! HTTP header values: dates, entity tags, and the subscriber's position that NHPM makes of the two.
//!
//! RFC 9110, section 5.6.7 (dates) and section 8.8.3 (entity tags); RFC 9111, section 5.2 (cache directives).

use std::time::{Duration, UNIX_EPOCH};

use httpdate::HttpDate;

pub use super::date::parse as parse_date;
use super::id::{self, Cursors};
use crate::message::{MessageId, Position};

/// 9999-12-31 23:59:59 UTC, the last second that an HTTP date can express.
pub const MAX_DATE: u64 = 253_402_300_799;

/// Renders `secs` since 1970 as an IMF-fixdate, e.g. `Sun, 06 Nov 1994 08:49:37 GMT`.
///
/// Times after [`MAX_DATE`] are rendered as [`MAX_DATE`].
pub fn date(secs: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(secs.min(MAX_DATE));
    HttpDate::from(time).to_string()
}

/// Reads a message's tag from `If-None-Match`.
///
/// NHPM's tags are plain decimal numbers. Caches and nginx's gzip filter hand them on quoted (`"3"`) or weak (`W/"3"`),
/// and a list means its first member. As in NHPM the absolute value counts (`-3` is 3). A number too large for a tag is
/// the largest tag; everything else is 0.
pub fn parse_tag(value: &[u8]) -> u32 {
    let number = opaque(value.split(|&byte| byte == b',').next().unwrap_or_default());
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    if !digits.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    digits.iter().fold(0, |tag: u32, &digit| {
        tag.saturating_mul(10).saturating_add(u32::from(digit.wrapping_sub(b'0')))
    })
}

/// Where a subscriber asks to begin: `If-Modified-Since` is the time of its last message, `If-None-Match` its tag.
///
/// Without a time (none sent, not a date, or 1970-01-01 00:00:00, which is no message's time) it begins with the oldest
/// message, whatever the tag says. With the tags of several channels, nobody knows what it has seen of that second.
pub fn position(if_modified_since: Option<&[u8]>, if_none_match: Option<&[u8]>) -> Position {
    match if_modified_since.and_then(parse_date) {
        None | Some(0) => Position::Oldest,
        Some(time) if if_none_match.is_some_and(|tag| id::is_of_several(opaque(tag))) => {
            Position::Past(time)
        }
        Some(time) => Position::After(MessageId { time, tag: if_none_match.map_or(0, parse_tag) }),
    }
}

/// Where a subscriber asks to begin, by whichever means it has: `Last-Event-ID`, the argument `last_event_id` in the query
/// string `args`, or the two headers of [`position`]. The first that can be read counts.
///
/// An id at 1970-01-01 00:00:00 is no message's and says nothing here either.
pub fn position_of(
    last_event_id: Option<&[u8]>,
    args: &[u8],
    if_modified_since: Option<&[u8]>,
    if_none_match: Option<&[u8]>,
) -> Position {
    last_event_id
        .and_then(id::position)
        .or_else(|| id::position_from_query(args))
        .unwrap_or_else(|| position(if_modified_since, if_none_match))
}

/// Where a subscriber of several channels asks to begin in each, by the same means as with [`position_of`]. Nothing if by
/// none.
///
/// A time without tags stands before all of its second.
pub fn cursors_of(
    last_event_id: Option<&[u8]>,
    args: &[u8],
    if_modified_since: Option<&[u8]>,
    if_none_match: Option<&[u8]>,
    channels: usize,
) -> Option<Cursors> {
    let named = last_event_id
        .and_then(|value| Cursors::parse(value, channels))
        .or_else(|| id::cursors_from_query(args, channels));
    named.or_else(|| {
        let time = if_modified_since.and_then(parse_date).filter(|time| *time != 0)?;
        let tags = if_none_match.and_then(|tag| Cursors::of(time, opaque(tag), channels));
        Some(tags.unwrap_or_else(|| Cursors::all(Position::since(time), channels)))
    })
}

/// What an entity tag says, whether quoted, weak or plain.
fn opaque(tag: &[u8]) -> &[u8] {
    let tag = tag.trim_ascii();
    let tag = match tag {
        [b'W' | b'w', b'/', rest @ ..] => rest,
        _ => tag,
    };
    match tag {
        [b'"', inner @ .., b'"'] => inner,
        _ => tag,
    }
}

/// Whether the client says `no-cache`, in `Cache-Control` or in `Pragma`.
///
/// Each header may come several times, and each value may be a comma-separated list.
pub fn wants_fresh<'a>(
    cache_control: impl IntoIterator<Item = &'a [u8]>,
    pragma: impl IntoIterator<Item = &'a [u8]>,
) -> bool {
    cache_control.into_iter().chain(pragma).any(|value| {
        value
            .split(|&byte| byte == b',')
            .any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-cache"))
    })
}

/// Whether `value` can be sent as a header field without ending it: it came from a client (CWE-113).
pub fn is_field_value(value: &[u8]) -> bool {
    value.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moment of the examples in RFC 9110.
    const EXAMPLE: u64 = 784_111_777;

    #[test]
    fn cursors_of_several_channels_come_by_all_means() {
        let date = date(EXAMPLE);
        let after = |tag| Position::After(MessageId { time: EXAMPLE, tag });
        let expected = Some(vec![after(3), Position::since(EXAMPLE)]);
        let read = |id: Option<&str>, args: &str, since: Option<&str>, tag: Option<&str>| {
            cursors_of(
                id.map(str::as_bytes),
                args.as_bytes(),
                since.map(str::as_bytes),
                tag.map(str::as_bytes),
                2,
            )
            .map(|cursors| cursors.positions)
        };
        assert_eq!(read(Some("784111777:[3],-"), "", None, None), expected);
        assert_eq!(read(None, "id=x&last_event_id=784111777:[3],-", None, None), expected);
        for tag in ["[3],-", "\"[3],-\"", "W/\"[3],-\""] {
            assert_eq!(read(None, "", Some(&date), Some(tag)), expected, "{tag}");
        }
        let whole = Some(vec![Position::since(EXAMPLE); 2]);
        assert_eq!(read(None, "", Some(&date), None), whole);
        assert_eq!(read(None, "", Some(&date), Some("what")), whole);
        assert_eq!(read(None, "", None, Some("[3],-")), None);
        assert_eq!(read(None, "", None, None), None);
    }

    #[test]
    fn dates_are_imf_fixdates() {
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(EXAMPLE), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
    }

    #[test]
    fn dates_stop_at_the_year_9999() {
        assert_eq!(date(MAX_DATE), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(date(MAX_DATE + 1), date(MAX_DATE));
        assert_eq!(date(u64::MAX), date(MAX_DATE));
    }

    #[test]
    fn tags_are_read_plain_quoted_and_weak() {
        for (value, tag) in [
            (&b"3"[..], 3),
            (b"0", 0),
            (b" 3\t", 3),
            (b"007", 7),
            (b"\"3\"", 3),
            (b"W/\"3\"", 3),
            (b"w/\"3\"", 3),
            (b"W/3", 3),
            (b"-3", 3),
            (b"\"-3\"", 3),
            (b"3, 4", 3),
            (b"\"3\",\"4\"", 3),
            (b"W/\"3\" , W/\"4\"", 3),
            (b"4294967295", u32::MAX),
        ] {
            assert_eq!(parse_tag(value), tag, "{}", String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn tags_too_large_are_the_largest_tag() {
        assert_eq!(parse_tag(b"4294967296"), u32::MAX);
        assert_eq!(parse_tag(b"\"99999999999999999999999999\""), u32::MAX);
    }

    #[test]
    fn what_is_no_tag_is_zero() {
        for bad in [
            &b""[..],
            b"*",
            b"abc",
            b"3x",
            b"\"",
            b"\"\"",
            b"\"3",
            b"3\"",
            b"--3",
            b"-",
            b"+3",
            b"1 2",
            b",3",
            b"W/",
            b"\"3-gzip\"",
            b"\xff",
        ] {
            assert_eq!(parse_tag(bad), 0, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_position_is_a_time_and_a_tag() {
        let example = Some(&b"Sun, 06 Nov 1994 08:49:37 GMT"[..]);
        let after = |tag| Position::After(MessageId { time: EXAMPLE, tag });
        assert_eq!(position(example, Some(b"3")), after(3));
        assert_eq!(position(example, Some(b"W/\"3\"")), after(3));
        assert_eq!(position(example, Some(b"what")), after(0));
        assert_eq!(position(example, None), after(0));
    }

    #[test]
    fn without_a_time_a_position_is_the_oldest() {
        let epoch = Some(&b"Thu, 01 Jan 1970 00:00:00 GMT"[..]);
        assert_eq!(position(None, None), Position::Oldest);
        assert_eq!(position(None, Some(b"3")), Position::Oldest);
        assert_eq!(position(Some(b"yesterday"), Some(b"3")), Position::Oldest);
        assert_eq!(position(Some(b""), None), Position::Oldest);
        assert_eq!(position(epoch, Some(b"3")), Position::Oldest);
    }

    #[test]
    fn the_last_event_id_goes_before_the_argument_and_that_before_the_date() {
        let date = Some(&b"Sun, 06 Nov 1994 08:49:37 GMT"[..]);
        let after = |time, tag| Position::After(MessageId { time, tag });
        let args = b"id=c&last_event_id=2:2";
        assert_eq!(position_of(Some(b"1:1"), args, date, Some(b"3")), after(1, 1));
        assert_eq!(position_of(None, args, date, Some(b"3")), after(2, 2));
        assert_eq!(position_of(None, b"id=c", date, Some(b"3")), after(EXAMPLE, 3));
        assert_eq!(position_of(None, b"", None, None), Position::Oldest);
    }

    #[test]
    fn a_cursor_of_several_channels_is_past_its_second_in_one() {
        let date = Some(&b"Sun, 06 Nov 1994 08:49:37 GMT"[..]);
        for tags in ["2,[0]", "[0],-", "-,[3]", "-,-", " 2 , [0] ", "0,[4294967295],7"] {
            for etag in [tags.to_owned(), format!("\"{tags}\""), format!("W/\"{tags}\"")] {
                let etag = Some(etag.as_bytes());
                assert_eq!(position(date, etag), Position::Past(EXAMPLE), "{etag:?}");
                assert_eq!(position(None, etag), Position::Oldest);
            }
            let id = format!("7:{tags}");
            assert_eq!(position_of(Some(id.as_bytes()), b"", date, None), Position::Past(7));
            let args = format!("last_event_id={}", id.replace('[', "%5b").replace(' ', "+"));
            assert_eq!(position_of(None, args.as_bytes(), date, None), Position::Past(7));
            // No message is of that second.
            let id = format!("0:{tags}");
            assert_eq!(position_of(Some(id.as_bytes()), b"", None, None), Position::Oldest);
        }
        let longest = format!("7:{}", ["[4294967295]"; 255].join(","));
        let args = format!("last_event_id={}", longest.replace(',', "%2C"));
        assert_eq!(position_of(None, args.as_bytes(), None, None), Position::Past(7));
    }

    #[test]
    fn a_list_of_plain_tags_means_its_first_one() {
        let date = Some(&b"Sun, 06 Nov 1994 08:49:37 GMT"[..]);
        let after = |tag| Position::After(MessageId { time: EXAMPLE, tag });
        for (list, tag) in [
            ("3, 4", 3),
            ("\"3\", \"4\"", 3),
            ("-3,4", 3),
            // What nobody writes has no meaning of its own.
            ("[3]", 0),
            ("-", 0),
            ("3,[4", 3),
            ("3,[x]", 3),
            ("3,,[4]", 3),
        ] {
            assert_eq!(position(date, Some(list.as_bytes())), after(tag), "{list}");
        }
        for bad in ["7:3,4", "7:[3]", "7:-", "7:3,[x]", "7:[3],", "x:3,[4]", "3,[4]"] {
            assert_eq!(position_of(Some(bad.as_bytes()), b"", None, None), Position::Oldest);
        }
    }

    #[test]
    fn what_is_no_id_is_as_if_absent() {
        let after = |time, tag| Position::After(MessageId { time, tag });
        for bad in [&b""[..], b"7", b"0:0", b"0:5", b"what", b"1:-1"] {
            assert_eq!(position_of(Some(bad), b"last_event_id=2:2", None, None), after(2, 2));
            let args = [b"last_event_id=", bad].concat();
            assert_eq!(position_of(Some(b"1:1"), &args, None, None), after(1, 1));
            assert_eq!(position_of(Some(bad), &args, None, None), Position::Oldest);
        }
    }

    #[test]
    fn no_cache_is_found_in_both_headers_and_in_lists() {
        let none: [&[u8]; 0] = [];
        assert!(wants_fresh([&b"no-cache"[..]], none));
        assert!(wants_fresh(none, [&b"No-Cache"[..]]));
        assert!(wants_fresh([&b"max-age=0,\tNO-CACHE"[..]], none));
        assert!(wants_fresh([&b"max-age=0"[..], b"no-store, no-cache"], none));
    }

    #[test]
    fn only_the_whole_word_no_cache_counts() {
        let none: [&[u8]; 0] = [];
        assert!(!wants_fresh(none, none));
        for value in
            [&b""[..], b"max-age=0", b"no-cache-at-all", b"xno-cache", b"no cache", b"\xff"]
        {
            assert!(!wants_fresh([value], [value]), "{}", String::from_utf8_lossy(value));
        }
    }
}
