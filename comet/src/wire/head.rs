//! Header fields in few bytes, for heads that are kept while their request is parked: there may be a million of them, and
//! most of their bytes are the same in all.
//!
//! A line is packed as one byte for a whole field that clients send often; or as a byte for its name, and the value with its
//! length; or, with a byte that says so, as it came. Names and values are
//! unpacked as they were packed, to the byte.

/// A field name as clients write it, and values that many of them send.
struct Known {
    name: &'static str,
    values: &'static [&'static str],
}

const fn known(name: &'static str, values: &'static [&'static str]) -> Known {
    Known { name, values }
}

/// What browsers, common programs and proxies send, and what we reply; by the length of the name.
const KNOWN: [Known; 55] = [
    known("TE", &[]),
    known("DNT", &["1"]),
    known("Via", &[]),
    known("Vary", &["Origin"]),
    known("Host", &["localhost", "127.0.0.1"]),
    known("host", &[]),
    known("Range", &[]),
    known("Accept", &["*/*", "text/event-stream", "application/x-ndjson", "application/json"]),
    known("accept", &["*/*", "text/event-stream"]),
    known("Cookie", &[]),
    known("Origin", &[]),
    known("Pragma", &["no-cache"]),
    known("Sec-GPC", &["1"]),
    known("Referer", &[]),
    known("Upgrade", &["websocket"]),
    known("Priority", &["u=4", "u=1, i"]),
    known("X-Real-IP", &[]),
    known("sec-ch-ua", &[]),
    known("Connection", &["keep-alive", "Upgrade", "upgrade", "keep-alive, Upgrade"]),
    known("connection", &["keep-alive"]),
    known("User-Agent", &[]),
    known("user-agent", &["node"]),
    known(
        "Content-Type",
        &["text/event-stream; charset=utf-8", "application/x-ndjson", "text/plain"],
    ),
    known("Authorization", &[]),
    known("Cache-Control", &["no-cache", "max-age=0", "no-store"]),
    known("If-None-Match", &["0", "1"]),
    known("Last-Event-ID", &[]),
    known("Content-Length", &["0"]),
    known("Sec-Fetch-Dest", &["empty", "websocket"]),
    known("Sec-Fetch-Mode", &["cors", "websocket", "no-cors"]),
    known("Sec-Fetch-Site", &["same-origin", "same-site", "cross-site"]),
    known("sec-fetch-mode", &["cors"]),
    known("Accept-Charset", &[]),
    known(
        "Accept-Encoding",
        &["gzip, deflate, br, zstd", "gzip, deflate, br", "gzip, deflate", "identity"],
    ),
    known("accept-encoding", &["gzip, deflate", "br, gzip, deflate"]),
    known("Accept-Language", &["en-US,en;q=0.9", "en-US,en;q=0.5"]),
    known("accept-language", &["*"]),
    known("X-Forwarded-For", &[]),
    known("Proxy-Connection", &[]),
    known("sec-ch-ua-mobile", &["?0", "?1"]),
    known("X-Requested-With", &["XMLHttpRequest"]),
    known("X-Forwarded-Host", &[]),
    known("If-Modified-Since", &[]),
    known("X-Accel-Buffering", &["no"]),
    known("Sec-WebSocket-Key", &[]),
    known("X-Forwarded-Proto", &["https", "http"]),
    known("X-Forwarded-Server", &[]),
    known("sec-ch-ua-platform", &["\"Windows\"", "\"Linux\"", "\"macOS\"", "\"Android\""]),
    known("Sec-WebSocket-Version", &["13"]),
    known("Sec-WebSocket-Protocol", &["ws+meta.nchan"]),
    known(
        "Sec-WebSocket-Extensions",
        &["permessage-deflate; client_max_window_bits", "permessage-deflate"],
    ),
    known("Upgrade-Insecure-Requests", &["1"]),
    known("Access-Control-Allow-Origin", &["*"]),
    known("Access-Control-Expose-Headers", &["Last-Modified, Etag, Push-Missed, Push-Channel"]),
    known("Access-Control-Allow-Credentials", &["true"]),
];

/// The first code.
const FIRST: u8 = 0x10;
/// Stands for nothing: the whole line follows.
const LINE: u8 = 0;
/// No line gets longer than the client's was: it has to fit again into the buffers that it has fitted into.
const SEPARATOR: &[u8] = b":";
const LINE_END: &[u8] = b"\n";
/// The longest name, and one more.
const LENGTHS: usize = 34;

/// For each length of a name the first of [`KNOWN`] that is not shorter.
const BY_LENGTH: [u8; LENGTHS] = by_length();
/// The code of each name; those of its values follow it.
const CODES: [u8; KNOWN.len()] = codes();

const fn by_length() -> [u8; LENGTHS] {
    let mut places = [KNOWN.len() as u8; LENGTHS];
    let mut rest: &mut [u8] = &mut places;
    let (mut len, mut known): (usize, &[Known]) = (0, &KNOWN);
    while let [place, others @ ..] = rest {
        while let [Known { name, .. }, more @ ..] = known {
            if name.len() >= len {
                break;
            }
            known = more;
        }
        *place = (KNOWN.len() - known.len()) as u8;
        len += 1;
        rest = others;
    }
    places
}

const fn codes() -> [u8; KNOWN.len()] {
    let mut codes = [0; KNOWN.len()];
    let mut rest: &mut [u8] = &mut codes;
    let (mut next, mut known): (usize, &[Known]) = (FIRST as usize, &KNOWN);
    while let ([code, others @ ..], [Known { values, .. }, more @ ..]) = (rest, known) {
        *code = next as u8;
        next += 1 + values.len();
        assert!(next <= 0x100, "too many names and values for a byte");
        rest = others;
        known = more;
    }
    codes
}

/// The code of a name, and those of its values.
fn find(name: &[u8]) -> Option<(u8, &'static [&'static str])> {
    let first = usize::from(*BY_LENGTH.get(name.len())?);
    let candidates = KNOWN.iter().zip(&CODES).skip(first);
    candidates
        .take_while(|(known, _)| known.name.len() == name.len())
        .find(|(known, _)| known.name.as_bytes() == name)
        .map(|(known, code)| (*code, known.values))
}

/// The code of a whole field, if many send it.
pub fn code_of(name: &[u8], value: &[u8]) -> Option<u8> {
    let (code, values) = find(name)?;
    let place = values.iter().position(|known| known.as_bytes() == value)?;
    Some(code + 1 + place as u8)
}

/// What a code stands for: a name and, if it is a whole field's, the value.
pub fn decode(code: u8) -> Option<(&'static str, Option<&'static str>)> {
    // Codes ascend.
    let place = CODES.partition_point(|first| *first <= code).checked_sub(1)?;
    let (known, first) = (KNOWN.get(place)?, CODES.get(place)?);
    match usize::from(code - first) {
        0 => Some((known.name, None)),
        value => known.values.get(value - 1).map(|value| (known.name, Some(*value))),
    }
}

/// Packs the first line of a head.
pub fn pack_line(line: &[u8], out: &mut Vec<u8>) {
    out.push(LINE);
    push_length(line.len(), out);
    out.extend_from_slice(line);
}

/// Packs a field.
pub fn pack_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let Some((code, values)) = find(name) else {
        out.push(LINE);
        push_length(name.len() + SEPARATOR.len() + value.len(), out);
        out.extend_from_slice(name);
        out.extend_from_slice(SEPARATOR);
        out.extend_from_slice(value);
        return;
    };
    match values.iter().position(|known| known.as_bytes() == value) {
        Some(place) => out.push(code + 1 + place as u8),
        None => {
            out.push(code);
            push_length(value.len(), out);
            out.extend_from_slice(value);
        }
    }
}

/// Unpacks a head, with its empty line at the end.
pub fn unpack(mut packed: &[u8], out: &mut Vec<u8>) {
    while let Some((code, rest)) = packed.split_first() {
        let (name, value) = decode(*code).unwrap_or_default();
        if !name.is_empty() {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(SEPARATOR);
        }
        packed = match value {
            Some(value) => {
                out.extend_from_slice(value.as_bytes());
                rest
            }
            None => {
                let (len, rest) = split_length(rest);
                let (value, rest) = rest.split_at(len.min(rest.len()));
                out.extend_from_slice(value);
                rest
            }
        };
        out.extend_from_slice(LINE_END);
    }
    out.extend_from_slice(LINE_END);
}

/// Adds a length: seven bits in each byte, the lowest first, and a bit that says whether more follow.
fn push_length(mut len: usize, out: &mut Vec<u8>) {
    while len > 0x7f {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

/// Reads such a length.
fn split_length(mut bytes: &[u8]) -> (usize, &[u8]) {
    let (mut len, mut shift) = (0, 0);
    while let Some((byte, rest)) = bytes.split_first() {
        bytes = rest;
        len |= usize::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (len, bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn round(line: &str, fields: &[(&str, &str)]) -> (usize, String) {
        let mut packed = Vec::new();
        pack_line(line.as_bytes(), &mut packed);
        for (name, value) in fields {
            pack_field(name.as_bytes(), value.as_bytes(), &mut packed);
        }
        let mut unpacked = Vec::new();
        unpack(&packed, &mut unpacked);
        (packed.len(), String::from_utf8(unpacked).unwrap())
    }

    #[test]
    fn the_table_is_in_order_and_names_are_told_apart() {
        assert!(KNOWN.is_sorted_by_key(|known| known.name.len()));
        assert_eq!(KNOWN[KNOWN.len() - 1].name.len() + 1, LENGTHS - 1);
        for (place, known) in KNOWN.iter().enumerate() {
            assert_eq!(find(known.name.as_bytes()).unwrap().0, CODES[place]);
            assert_eq!(decode(CODES[place]), Some((known.name, None)));
            for value in known.values {
                let code = code_of(known.name.as_bytes(), value.as_bytes()).unwrap();
                assert_eq!(decode(code), Some((known.name, Some(*value))));
            }
        }
    }

    #[test]
    fn a_browsers_head_gets_small_and_comes_back() {
        let (len, unpacked) = round(
            "GET /sub?id=1 HTTP/1.1",
            &[
                ("Host", "127.0.0.1"),
                ("Connection", "keep-alive"),
                ("sec-ch-ua-mobile", "?0"),
                ("Accept", "*/*"),
                ("Sec-Fetch-Site", "same-origin"),
                ("Accept-Encoding", "gzip, deflate, br, zstd"),
                ("X-Own", "1"),
                ("Cookie", "a=b"),
            ],
        );
        assert_eq!(
            unpacked,
            "GET /sub?id=1 HTTP/1.1\nHost:127.0.0.1\nConnection:keep-alive\nsec-ch-ua-mobile:?0\n\
             Accept:*/*\nSec-Fetch-Site:same-origin\nAccept-Encoding:gzip, deflate, br, zstd\n\
             X-Own:1\nCookie:a=b\n\n"
        );
        let whole = "..GET /sub?id=1 HTTP/1.1".len() + "..X-Own:1".len();
        assert_eq!(len, whole + 6 + "..a=b".len());
    }

    #[test]
    fn what_looks_like_a_code_is_no_code() {
        let (_, unpacked) = round(
            "\u{e9} /",
            &[("\u{e9}-\u{ff}", "\u{80}"), ("accept", "x"), ("ACCEPT", "*/*"), ("A", "")],
        );
        assert_eq!(unpacked, "\u{e9} /\n\u{e9}-\u{ff}:\u{80}\naccept:x\nACCEPT:*/*\nA:\n\n");
        assert_eq!((decode(LINE), decode(FIRST - 1), decode(0xff)), (None, None, None));
    }

    #[test]
    fn lengths_of_all_sizes_come_back() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 3_000_000] {
            let value = "v".repeat(len);
            for name in ["Cookie", "X-Own"] {
                assert_eq!(round("", &[(name, &value)]).1, format!("\n{name}:{value}\n\n"));
            }
        }
    }

    #[test]
    fn any_bytes_are_unpacked() {
        let mut out = Vec::new();
        for first in 0..=255 {
            for rest in [&[][..], &[0xff; 20], &[3, b'a'], &[0x80]] {
                unpack(&[&[first], rest].concat(), &mut out);
            }
        }
    }
}
