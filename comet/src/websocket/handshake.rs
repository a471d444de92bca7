//! The opening handshake (RFC 6455, section 4.2) and what it settles: subprotocol and compression.

use base64::prelude::{Engine, BASE64_STANDARD};
use sha1::{Digest, Sha1};
use thiserror::Error;

use crate::reply::Reply;

/// What the server adds to the client's key (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The subprotocols, by name.
const PROTOCOLS: [(&str, Protocol); 2] =
    [("ws+meta.nchan", Protocol::Nchan), ("push.json", Protocol::Json)];

/// What of a request makes it a handshake. Fields that may come several times are lists of their values.
#[derive(Clone, Debug)]
pub struct Offer<'a> {
    /// `Sec-WebSocket-Version`.
    pub version: Option<&'a [u8]>,
    /// `Sec-WebSocket-Key`.
    pub key: Option<&'a [u8]>,
    /// `Sec-WebSocket-Protocol`.
    pub protocols: Vec<&'a [u8]>,
    /// `Sec-WebSocket-Extensions`.
    pub extensions: Vec<&'a [u8]>,
    /// The request is of HTTP/1.1.
    pub http_1_1: bool,
}

/// A subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// None: frames are messages.
    Plain,
    /// `ws+meta.nchan`: the id and the content type come before the message.
    Nchan,
    /// `push.json`: every frame is a JSON object, and the client can change its subscription ([`crate::control`]).
    Json,
}

/// permessage-deflate as it was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// The server's window has `2^window_bits` bytes: 9 to 15.
    pub window_bits: u8,
}

/// A handshake that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// `Sec-WebSocket-Accept`.
    accept: String,
    /// The subprotocol.
    pub protocol: Protocol,
    /// How messages may be compressed.
    pub deflate: Option<Deflate>,
    /// The client has said how large the server's window may be, and wants it repeated.
    names_window: bool,
}

/// Why a handshake was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// Another version of the protocol, or none.
    #[error("Sec-WebSocket-Version must be 13.")]
    Version,
    /// No key, or none of 16 bytes in base64.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64.")]
    Key,
    /// A request that is not of HTTP/1.1.
    #[error("A WebSocket handshake must be a request of HTTP/1.1.")]
    Http,
}

impl HandshakeError {
    /// The reply to the client.
    pub fn reply(&self) -> Reply {
        let sentence = self.to_string().into_bytes();
        match self {
            // Section 4.4: the client may try again with a version that is named.
            HandshakeError::Version => Reply::text(426, sentence)
                .header("Upgrade", &b"websocket"[..])
                .header("Connection", &b"upgrade"[..])
                .header("Sec-WebSocket-Version", &b"13"[..]),
            HandshakeError::Key | HandshakeError::Http => Reply::text(400, sentence),
        }
    }
}

impl Accepted {
    /// The head that makes the connection a WebSocket. `Connection` is nginx's to say.
    pub fn reply(&self) -> Reply {
        let mut reply = Reply::empty(101)
            .header("Upgrade", &b"websocket"[..])
            .header("Sec-WebSocket-Accept", self.accept.clone().into_bytes());
        let protocol = PROTOCOLS.iter().find(|(_, protocol)| *protocol == self.protocol);
        if let Some((name, _)) = protocol {
            reply = reply.header("Sec-WebSocket-Protocol", name.as_bytes());
        }
        let Some(Deflate { window_bits }) = self.deflate else { return reply };
        let mut agreed = String::from(
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        );
        if self.names_window {
            agreed.push_str(&format!("; server_max_window_bits={window_bits}"));
        }
        reply.header("Sec-WebSocket-Extensions", agreed.into_bytes())
    }
}

/// Whether a GET with these values of `Upgrade` and `Connection` is a handshake.
pub fn is_handshake<'a>(
    upgrade: impl IntoIterator<Item = &'a [u8]>,
    connection: impl IntoIterator<Item = &'a [u8]>,
) -> bool {
    has_token(upgrade, b"websocket") && has_token(connection, b"upgrade")
}

fn has_token<'a>(values: impl IntoIterator<Item = &'a [u8]>, token: &[u8]) -> bool {
    tokens(values).any(|value| value.eq_ignore_ascii_case(token))
}

/// The members of a comma-separated list.
fn tokens<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    values.into_iter().flat_map(|value| value.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii)
}

/// Accepts a handshake. `compress` says whether messages may be compressed.
///
/// # Errors
///
/// [`HandshakeError`].
pub fn accept(offer: &Offer<'_>, compress: bool) -> Result<Accepted, HandshakeError> {
    if !offer.http_1_1 {
        return Err(HandshakeError::Http);
    }
    if offer.version.map(<[u8]>::trim_ascii) != Some(b"13") {
        return Err(HandshakeError::Version);
    }
    let key = offer.key.unwrap_or_default().trim_ascii();
    if BASE64_STANDARD.decode(key).map(|key| key.len()) != Ok(16) {
        return Err(HandshakeError::Key);
    }
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    // The client names them in the order of its preference (section 1.9).
    let protocol = tokens(offer.protocols.iter().copied()).find_map(|name| {
        let known = PROTOCOLS.iter().find(|(known, _)| name == known.as_bytes());
        known.map(|(_, protocol)| *protocol)
    });
    let mut extensions = offer.extensions.iter().flat_map(|value| split(value, b','));
    let agreed = extensions.find_map(deflate_offered).filter(|_| compress);
    Ok(Accepted {
        accept: BASE64_STANDARD.encode(digest),
        protocol: protocol.unwrap_or(Protocol::Plain),
        deflate: agreed.map(|bits| Deflate { window_bits: bits.unwrap_or(15) }),
        names_window: agreed.flatten().is_some(),
    })
}

/// Reads an offer of permessage-deflate: the size of the server's window, if the client limits it. Nothing if it is
/// another extension, or cannot be accepted (RFC 7692, section 7).
fn deflate_offered(extension: &[u8]) -> Option<Option<u8>> {
    let mut parts = split(extension, b';');
    if !parts.next()?.eq_ignore_ascii_case(b"permessage-deflate") {
        return None;
    }
    let mut seen: Vec<&[u8]> = Vec::new();
    let mut window = None;
    for parameter in parts {
        let (name, value) = match parameter.iter().position(|&byte| byte == b'=') {
            Some(place) => {
                let (name, value) = parameter.split_at_checked(place)?;
                (name.trim_ascii(), Some(unquoted(value.get(1..)?.trim_ascii())))
            }
            None => (parameter, None),
        };
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            (b"server_no_context_takeover" | b"client_no_context_takeover", None) => {}
            (b"client_max_window_bits", None) => {}
            (b"client_max_window_bits", Some(value)) => {
                window_bits(value)?;
            }
            // zlib cannot make do with 8 bits.
            (b"server_max_window_bits", Some(value)) => {
                window = Some(window_bits(value).filter(|bits| *bits > 8)?);
            }
            _ => return None,
        }
    }
    Some(window)
}

/// 8 to 15, without a leading zero (RFC 7692, section 7.1.2).
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

/// The parts of a list, which may have quoted strings (RFC 9110, section 5.6.4).
fn split(list: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        let list = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = list.iter().position(|&byte| {
            let was_escaped = escaped;
            escaped = quoted && !was_escaped && byte == b'\\';
            if byte == b'"' && !was_escaped {
                quoted = !quoted;
            }
            byte == separator && !quoted
        });
        let (part, after) = match end {
            Some(end) => (list.get(..end)?, list.get(end + 1..)),
            None => (list, None),
        };
        rest = after;
        Some(part.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::reply::ReplyBody;

    /// The key of RFC 6455, section 1.3.
    const KEY: &[u8] = b"dGhlIHNhbXBsZSBub25jZQ==";

    fn offer<'a>(protocols: &[&'a str], extensions: &[&'a str]) -> Offer<'a> {
        Offer {
            version: Some(b"13"),
            key: Some(KEY),
            protocols: protocols.iter().map(|value| value.as_bytes()).collect(),
            extensions: extensions.iter().map(|value| value.as_bytes()).collect(),
            http_1_1: true,
        }
    }

    fn header(reply: &Reply, name: &str) -> Option<String> {
        let found = reply.headers.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }

    fn agreed(extensions: &[&str]) -> Option<String> {
        let reply = accept(&offer(&[], extensions), true).unwrap().reply();
        header(&reply, "Sec-WebSocket-Extensions")
    }

    const BOTH: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn the_example_of_the_rfc() {
        let reply = accept(&offer(&[], &[]), true).unwrap().reply();
        assert_eq!((reply.status, &reply.body), (101, &ReplyBody::Empty));
        let accept = header(&reply, "Sec-WebSocket-Accept");
        assert_eq!(accept.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(header(&reply, "Upgrade").as_deref(), Some("websocket"));
        assert_eq!(reply.headers.len(), 2);
    }

    #[test]
    fn what_is_missing_is_told() {
        let whole = offer(&[], &[]);
        for (bad, error, status) in [
            (Offer { version: None, ..whole.clone() }, HandshakeError::Version, 426),
            (Offer { version: Some(b"8"), ..whole.clone() }, HandshakeError::Version, 426),
            (Offer { key: None, ..whole.clone() }, HandshakeError::Key, 400),
            (Offer { key: Some(b"dGhlIHNhbXBsZQ=="), ..whole.clone() }, HandshakeError::Key, 400),
            (
                Offer { key: Some(b"no base64, no key!!!!"), ..whole.clone() },
                HandshakeError::Key,
                400,
            ),
            (Offer { http_1_1: false, ..whole.clone() }, HandshakeError::Http, 400),
        ] {
            assert_eq!(accept(&bad, true), Err(error));
            assert_eq!(error.reply().status, status);
        }
        let reply = HandshakeError::Version.reply();
        assert_eq!(header(&reply, "Sec-WebSocket-Version").as_deref(), Some("13"));
    }

    #[test]
    fn a_handshake_is_known_by_its_tokens() {
        let is = |upgrade: &str, connection: &str| {
            is_handshake([upgrade.as_bytes()], [connection.as_bytes()])
        };
        assert!(is("websocket", "upgrade") && is("WebSocket", "keep-alive, Upgrade"));
        assert!(is("h2c, websocket", "Upgrade"));
        assert!(!is("websockets", "upgrade") && !is("websocket", "close") && !is("", ""));
        assert!(!is_handshake([], []));
    }

    #[test]
    fn our_subprotocol_is_picked_from_those_offered() {
        for (offered, picked) in [
            (&["ws+meta.nchan"][..], true),
            (&["chat, ws+meta.nchan"], true),
            (&["chat", "ws+meta.nchan"], true),
            (&["chat"], false),
            (&["WS+META.NCHAN"], false),
            (&[], false),
        ] {
            let accepted = accept(&offer(offered, &[]), true).unwrap();
            assert_eq!(accepted.protocol == Protocol::Nchan, picked);
            let told = header(&accepted.reply(), "Sec-WebSocket-Protocol");
            assert_eq!(told.as_deref(), picked.then_some("ws+meta.nchan"));
        }
    }

    #[test]
    fn compression_is_agreed_on() {
        assert_eq!(agreed(&[]), None);
        for offered in [
            "permessage-deflate",
            "Permessage-Deflate; client_max_window_bits",
            "permessage-deflate; client_max_window_bits=10; server_no_context_takeover",
            "permessage-deflate;client_no_context_takeover",
            "x-other; a=\"b, permessage-deflate; \\\" c\", permessage-deflate",
            "permessage-deflate; client_max_window_bits=\"8\"",
        ] {
            assert_eq!(agreed(&[offered]).as_deref(), Some(BOTH), "{offered}");
        }
        assert_eq!(accept(&offer(&[], &["permessage-deflate"]), false).unwrap().deflate, None);
    }

    #[test]
    fn a_window_that_the_client_names_is_kept_to_and_repeated() {
        let told = agreed(&["permessage-deflate; server_max_window_bits=10"]);
        assert_eq!(told, Some(format!("{BOTH}; server_max_window_bits=10")));
        for bits in 9..=15 {
            let text = format!("permessage-deflate; server_max_window_bits={bits}");
            let accepted = accept(&offer(&[], &[&text]), true).unwrap();
            assert_eq!(accepted.deflate, Some(Deflate { window_bits: bits }));
        }
    }

    #[test]
    fn offers_that_cannot_be_accepted_are_passed_over() {
        for offered in [
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=08",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; unknown",
            "permessage-deflate;",
            "deflate-frame",
        ] {
            assert_eq!(agreed(&[offered]), None, "{offered}");
            let second = format!("{offered}, permessage-deflate");
            assert_eq!(agreed(&[&second]).as_deref(), Some(BOTH), "{offered}");
        }
    }
}
