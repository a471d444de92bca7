//! Properties of the wire formats: what is printed is read back, and nothing that a client sends can panic.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use comet::channel_id::channel_id;
use comet::message::{MessageId, Position, WrittenId};
use comet::reply::Reply;
use comet::wire::http::{self, MAX_DATE};
use comet::wire::{accept, chunk::Chunk, id, info, json};
use comet::{publisher, subscriber};
use proptest::prelude::*;

/// Bytes that look like header values, so that parsers get past their first check.
fn almost_header() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<Vec<u8>>(),
        "[ -~\t]{0,40}".prop_map(String::into_bytes),
        "(W/)?\"?-?[0-9]{0,12}\"?(,.*)?".prop_map(String::into_bytes),
        "(Sun|Sunday|Mon),? ?[0-9]{1,2}[ -][A-Z][a-z]{2}[ -][0-9]{2,4} [0-9]{2}:[0-9]{2}:[0-9]{2}( GMT)?(;.*)?"
            .prop_map(String::into_bytes),
        "Sun [A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2} [0-9]{4}".prop_map(String::into_bytes),
        "[0-9+%3Aa: ]{0,24}(:[0-9]{0,12})?".prop_map(String::into_bytes),
        "[0-9]{1,3}:(\\[?[0-9-]{1,3}\\]?,?){1,5}".prop_map(String::into_bytes),
        "(\\[?[0-9-]{1,3}\\]?,){1,5}-".prop_map(String::into_bytes),
        "((text|application)/(x-)?(json|xml|yaml|plain)[;, q=0.9]{0,4}){0,4}".prop_map(String::into_bytes),
    ]
}

fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a [u8]> {
    reply.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_ref())
}

#[test]
fn every_character_of_a_json_string_is_read_back() {
    let all: String = ('\0'..=char::MAX).collect();
    let mut json = String::new();
    json::push_string(&mut json, &all);
    assert_eq!(serde_json::from_str::<String>(&json).unwrap(), all);
}

proptest! {
    #[test]
    fn dates_are_read_back(secs in 0..=MAX_DATE) {
        prop_assert_eq!(http::parse_date(http::date(secs).as_bytes()), Some(secs));
    }

    #[test]
    fn any_time_has_a_date(secs: u64) {
        let date = http::date(secs);
        prop_assert_eq!(date.len(), 29);
        prop_assert_eq!(http::parse_date(date.as_bytes()), Some(secs.min(MAX_DATE)));
    }

    #[test]
    fn tags_are_read_back_in_every_dress(tag: u32) {
        for dressed in [
            format!("{tag}"),
            format!("\"{tag}\""),
            format!("W/\"{tag}\""),
            format!("-{tag}"),
            format!(" {tag} "),
            format!("W/\"{tag}\", W/\"1\""),
        ] {
            prop_assert_eq!(http::parse_tag(dressed.as_bytes()), tag, "{}", dressed);
        }
    }

    #[test]
    fn a_client_that_repeats_the_id_is_where_it_was(time in 1..=MAX_DATE, tag: u32) {
        let position = Position::After(MessageId { time, tag });
        let reply = subscriber::released(position);
        let (date, etag) = (header(&reply, "Last-Modified"), header(&reply, "Etag"));
        prop_assert!(date.is_some() && etag.is_some());
        prop_assert_eq!(http::position(date, etag), position);
        // Also after an interval-poll that found nothing.
        let reply = subscriber::unmodified(date, etag);
        prop_assert_eq!(
            http::position(header(&reply, "Last-Modified"), header(&reply, "Etag")),
            position
        );
    }

    #[test]
    fn a_later_id_is_a_later_position(
        one in (1..=MAX_DATE, any::<u32>()),
        other in (1..=MAX_DATE, any::<u32>()),
    ) {
        let read = |(time, tag): (u64, u32)| {
            let reply = Reply::empty(200).message_id(WrittenId::One(MessageId { time, tag }));
            match http::position(header(&reply, "Last-Modified"), header(&reply, "Etag")) {
                Position::After(id) => Some(id),
                _ => None,
            }
        };
        prop_assert_eq!(read(one).cmp(&read(other)), one.cmp(&other));
    }

    #[test]
    fn ids_are_read_back_from_header_and_query(time: u64, tag: u32, encoded: u64, at in 0_u8..3) {
        let given = MessageId { time, tag };
        let text = given.to_string();
        prop_assert_eq!(id::parse(text.as_bytes()), Some(given));
        // Any of its bytes may be percent-encoded.
        let value: String = text
            .char_indices()
            .map(|(index, byte)| match encoded >> index & 1 {
                0 => byte.to_string(),
                _ => format!("%{:02X}", u32::from(byte)),
            })
            .collect();
        let argument = format!("last_event_id={value}");
        let args = match at {
            0 => argument,
            1 => format!("id=c&{argument}"),
            _ => format!("{argument}&id=c"),
        };
        prop_assert_eq!(id::from_query(args.as_bytes()), Some(given));
    }

    #[test]
    fn a_chunk_is_read_back(payload: Vec<u8>) {
        prop_assume!(!payload.is_empty());
        let chunk = Chunk::new(&payload);
        prop_assert_eq!(chunk.payload(), &payload);
        let bytes = chunk.as_chunk();
        let end = bytes.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16);
        prop_assert_eq!(size, Ok(payload.len()));
        prop_assert_eq!(&bytes[end + 2..], [&payload[..], b"\r\n"].concat());
    }

    #[test]
    fn no_header_panics(one in almost_header(), two in almost_header()) {
        http::parse_date(&one);
        http::parse_tag(&one);
        http::position(Some(&one), Some(&two));
        http::wants_fresh([one.as_slice()], [two.as_slice()]);
        accept::negotiate(Some(&one));
        accept::media_types(&[&one, &two]).count();
        id::parse(&one);
        id::from_query(&one);
        id::from_query(&[b"last_event_id=", &one[..]].concat());
        http::position_of(Some(&one), &two, Some(&one), Some(&two));
        publisher::action(&one);
        subscriber::action(&one);
    }

    #[test]
    fn what_is_echoed_ends_no_header(one in almost_header(), two in almost_header()) {
        let reply = subscriber::unmodified(Some(&one), Some(&two));
        for (_, value) in &reply.headers {
            prop_assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)));
        }
    }

    #[test]
    fn the_leftmost_known_type_wins(
        unknown in "[a-z]{1,8}/[a-w]{5,8}",
        wanted in prop::sample::select(&["application/json", "text/yaml"][..]),
    ) {
        prop_assume!(unknown != "text/plain");
        let accept = format!("{unknown};q=1, {wanted};q=0.1, text/xml");
        prop_assert_eq!(accept::negotiate(Some(accept.as_bytes())).content_type, wanted);
    }

    #[test]
    fn info_tells_its_numbers(messages: u64, requested: i64, subscribers: u64) {
        let channel = info::ChannelInfo { messages, requested, subscribers };
        for format in [info::Format::Text, info::Format::Json, info::Format::Xml, info::Format::Yaml] {
            let body = String::from_utf8(info::render(&channel, format)).unwrap_or_default();
            for number in [messages.to_string(), requested.to_string(), subscribers.to_string()] {
                prop_assert!(body.contains(&number), "{} is not in {}", number, body);
            }
        }
    }

    #[test]
    fn an_id_is_its_group_and_its_value(group: Vec<u8>, value: Vec<u8>, max_len in 0_usize..64) {
        match channel_id(&group, &value, max_len) {
            None => prop_assert!(value.is_empty()),
            Some(id) => {
                let kept = value.len().min(max_len);
                prop_assert_eq!(id.is_truncated(), kept < value.len());
                prop_assert_eq!(id.as_bytes().len(), group.len() + 1 + kept);
                prop_assert!(id.as_bytes().starts_with(&group));
                let whole = [&group[..], b"/", &value[..]].concat();
                prop_assert!(whole.starts_with(id.as_bytes()));
            }
        }
    }
}
