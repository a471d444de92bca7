//! `Accept`: which form of the channel info a publisher's client gets (NHPM's reading), and which media types a
//! subscriber names.

use super::info::Format;

/// The form of a channel info body and the `Content-Type` to send with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InfoType {
    /// How the body is written.
    pub format: Format,
    /// The media type that the client asked for, in lower case and without parameters.
    pub content_type: &'static str,
}

/// What a client gets that asks for nothing in particular.
pub const DEFAULT: InfoType = InfoType { format: Format::Text, content_type: "text/plain" };

/// Every media type that a client can ask for.
const TYPES: [InfoType; 11] = [
    DEFAULT,
    InfoType { format: Format::Json, content_type: "text/json" },
    InfoType { format: Format::Json, content_type: "text/x-json" },
    InfoType { format: Format::Json, content_type: "application/json" },
    InfoType { format: Format::Json, content_type: "application/x-json" },
    InfoType { format: Format::Xml, content_type: "text/xml" },
    InfoType { format: Format::Xml, content_type: "application/xml" },
    InfoType { format: Format::Yaml, content_type: "text/yaml" },
    InfoType { format: Format::Yaml, content_type: "text/x-yaml" },
    InfoType { format: Format::Yaml, content_type: "application/yaml" },
    InfoType { format: Format::Yaml, content_type: "application/x-yaml" },
];

/// Picks the leftmost media type of `accept` that is known, else [`DEFAULT`].
///
/// As in NHPM, quality values do not count, and wildcards ask for nothing: `*/*, text/json` gives JSON.
pub fn negotiate(accept: Option<&[u8]>) -> InfoType {
    accept
        .unwrap_or_default()
        .split(|&byte| byte == b',')
        .find_map(|range| {
            let media_type = range.split(|&byte| byte == b';').next()?.trim_ascii();
            TYPES
                .iter()
                .find(|known| media_type.eq_ignore_ascii_case(known.content_type.as_bytes()))
        })
        .copied()
        .unwrap_or(DEFAULT)
}

/// The media types that the fields `accept` name, from left to right, without parameters; those with `q=0` are left out,
/// for they are what the client does not want (RFC 9110, section 12.4.2).
pub fn media_types<'a>(accept: &'a [&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
    accept.iter().flat_map(|field| field.split(|&byte| byte == b',')).filter_map(|range| {
        let mut parts = range.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let media_type = parts.next()?;
        (!parts.any(is_quality_zero)).then_some(media_type)
    })
}

/// Whether a parameter says `q=0`, with any number of decimals.
fn is_quality_zero(parameter: &[u8]) -> bool {
    match parameter {
        [b'q' | b'Q', b'=', b'0'] => true,
        [b'q' | b'Q', b'=', b'0', b'.', decimals @ ..] => {
            decimals.iter().all(|&digit| digit == b'0')
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(accept: &str) -> (Format, &'static str) {
        let InfoType { format, content_type } = negotiate(Some(accept.as_bytes()));
        (format, content_type)
    }

    #[test]
    fn every_supported_type_is_echoed() {
        for known in TYPES {
            assert_eq!(negotiate(Some(known.content_type.as_bytes())), known);
        }
    }

    #[test]
    fn formats_follow_the_subtype() {
        assert_eq!(asked("text/plain"), (Format::Text, "text/plain"));
        assert_eq!(asked("text/json"), (Format::Json, "text/json"));
        assert_eq!(asked("application/x-json"), (Format::Json, "application/x-json"));
        assert_eq!(asked("application/xml"), (Format::Xml, "application/xml"));
        assert_eq!(asked("application/x-yaml"), (Format::Yaml, "application/x-yaml"));
    }

    #[test]
    fn the_default_is_plain_text() {
        assert_eq!(negotiate(None), DEFAULT);
        for accept in [
            "",
            "*/*",
            "text/*",
            "image/png",
            "application/plain",
            "text/jsonp",
            "text/x-xml",
            "application/vnd.a+json",
            "json",
            "image/json",
            ",,;,",
            "text",
        ] {
            assert_eq!(negotiate(Some(accept.as_bytes())), DEFAULT, "{accept}");
        }
    }

    #[test]
    fn the_leftmost_known_type_wins() {
        assert_eq!(asked("text/json, */*").1, "text/json");
        assert_eq!(asked("text/yaml,text/json").1, "text/yaml");
        assert_eq!(asked("image/png, application/xml, text/json").1, "application/xml");
        assert_eq!(asked("text/json, text/plain").1, "text/json");
        assert_eq!(asked("text/plain, text/json").1, "text/plain");
        assert_eq!(asked("*/*, text/json").1, "text/json");
    }

    #[test]
    fn quality_is_ignored() {
        assert_eq!(asked("text/xml;q=0.1, text/json;q=0.9").1, "text/xml");
        assert_eq!(asked("text/xml;q=0").1, "text/xml");
    }

    #[test]
    fn parameters_space_and_case_do_not_matter() {
        assert_eq!(asked("Text/JSON; charset=utf-8").1, "text/json");
        assert_eq!(asked("\t APPLICATION/X-YAML ;v=1 , x/y").1, "application/x-yaml");
    }

    fn named(accept: &[&[u8]]) -> Vec<String> {
        media_types(accept).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    #[test]
    fn media_types_are_named_from_left_to_right_over_all_fields() {
        let fields = [&b"text/a;q=0.1, \tTEXT/B ; v=1"[..], b"text/c,*/*"];
        assert_eq!(named(&fields), ["text/a", "TEXT/B", "text/c", "*/*"]);
        assert_eq!(named(&[]), [""; 0]);
    }

    #[test]
    fn what_has_quality_zero_is_not_named() {
        for unwanted in ["a/a;q=0", "a/a; Q=0.", "a/a ;v=1 ; q=0.000", "a/a;q=0.0;v=1"] {
            assert_eq!(named(&[unwanted.as_bytes(), b"b/b"]), ["b/b"], "{unwanted}");
        }
        for wanted in ["a/a;q=0.001", "a/a;q=1", "a/a;q=", "a/a;q=00", "a/a;qq=0", "a/a;q=0x"] {
            assert_eq!(named(&[wanted.as_bytes(), b"b/b"]), ["a/a", "b/b"], "{wanted}");
        }
    }

    #[test]
    fn any_bytes_are_taken() {
        assert_eq!(negotiate(Some(b"\xff\x00,text/json\x00,text/xml")).content_type, "text/xml");
    }
}
