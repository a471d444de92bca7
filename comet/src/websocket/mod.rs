//! WebSockets: the handshake, frames, and what a client says (RFC 6455), compressed or not (RFC 7692).
//!
//! ```text
//! bytes of a request ── handshake ──► what both sides agreed on ([`Form`])
//! message of the log ── message_frame ──► one frame, the same for all clients of a form
//! bytes of a client ─── Decoder ──► messages, pings, its close; or a violation, and the code to close with
//! ```
//!
//! Nothing here knows a connection: bytes and values come in and go out. Each message is compressed for itself, in both
//! directions (`no_context_takeover`): so one compressed frame serves all clients, and an idle client costs no window.

mod decoder;
mod deflate;
mod frame;
mod handshake;

pub use decoder::{Decoder, Event, Policy, Violation};
pub use deflate::{compress, inflate, InflateError};
pub use frame::{close, close_without_code, encode, ping, pong, Opcode};
pub use handshake::{accept, is_handshake, Accepted, Deflate, HandshakeError, Offer, Protocol};

use crate::message::{Envelope, WrittenId};
use crate::wire::object;

/// "The server met something unexpected" (RFC 6455, section 7.4.1).
pub const INTERNAL_ERROR: u16 = 1011;
/// Close code: the message would begin a channel, and there are as many as there may be.
pub const POLICY_VIOLATION: u16 = 1008;
/// "A message that is too big for it to process" (RFC 6455, section 7.4.1).
pub const MESSAGE_TOO_BIG: u16 = 1009;
/// "The server restarts; come again" (IANA's registry of close codes).
pub const SERVICE_RESTART: u16 = 1012;
/// "Try again later" (IANA's registry of close codes).
pub const TRY_AGAIN_LATER: u16 = 1013;

/// Bytes of messages that are compressed: fewer are not worth it, and more would hold up everybody else on the worker.
const COMPRESSED: std::ops::RangeInclusive<usize> = 64..=1 << 20;

/// How messages look for a client, as its handshake has settled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// The subprotocol.
    pub protocol: Protocol,
    /// How messages may be compressed.
    pub deflate: Option<Deflate>,
}

impl Form {
    /// Whether every frame is a JSON object.
    pub fn is_json(&self) -> bool {
        self.protocol == Protocol::Json
    }
}

/// A frame of text that is for one client, or for few.
pub fn text(text: &[u8]) -> Vec<u8> {
    encode(Opcode::Text, false, text)
}

/// The frame that carries a message to subscribers: of text, or binary if the message is `application/octet-stream` or is
/// no UTF-8.
pub fn message_frame(form: Form, envelope: &Envelope<'_>, body: &[u8]) -> Vec<u8> {
    let is_text =
        *envelope.content_type != *b"application/octet-stream" && std::str::from_utf8(body).is_ok();
    let opcode = if is_text { Opcode::Text } else { Opcode::Binary };
    match form.protocol {
        Protocol::Plain => data_frame(form.deflate, opcode, body),
        Protocol::Json => {
            let own = Envelope { id: WrittenId::One(envelope.own_id), ..*envelope };
            data_frame(form.deflate, Opcode::Text, object::message(&own, body).as_bytes())
        }
        Protocol::Nchan => {
            let mut payload = meta(envelope).into_bytes();
            payload.extend_from_slice(body);
            data_frame(form.deflate, opcode, &payload)
        }
    }
}

/// What `ws+meta.nchan` puts before the body.
fn meta(envelope: &Envelope<'_>) -> String {
    let id = envelope.id;
    match std::str::from_utf8(envelope.content_type) {
        Ok(kind) if !kind.is_empty() && !kind.contains(char::is_control) => {
            format!("id: {id}\ncontent-type: {kind}\n\n")
        }
        _ => format!("id: {id}\n\n"),
    }
}

fn data_frame(deflate: Option<Deflate>, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let compressed = deflate
        .filter(|_| COMPRESSED.contains(&payload.len()))
        .and_then(|deflate| compress(payload, deflate.window_bits));
    match compressed {
        Some(compressed) => encode(opcode, true, &compressed),
        None => encode(opcode, false, payload),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::message::{MessageId, WrittenId};

    const ID: MessageId = MessageId { time: 1_700_000_000, tag: 3 };

    fn message(content_type: &[u8]) -> Envelope<'_> {
        Envelope { id: WrittenId::One(ID), own_id: ID, channel: None, content_type, event: b"" }
    }

    const PLAIN: Form = Form { protocol: Protocol::Plain, deflate: None };
    const NCHAN: Form = Form { protocol: Protocol::Nchan, deflate: None };

    #[test]
    fn messages_are_text_unless_they_are_not() {
        assert_eq!(message_frame(PLAIN, &message(b"text/plain"), b"hi"), b"\x81\x02hi");
        assert_eq!(message_frame(PLAIN, &message(b""), b""), b"\x81\x00");
        assert_eq!(message_frame(PLAIN, &message(b""), b"\xff"), b"\x82\x01\xff");
        let binary = message(b"application/octet-stream");
        assert_eq!(message_frame(PLAIN, &binary, b"hi"), b"\x82\x02hi");
        let other = message(b"application/octet-stream; x=y");
        assert_eq!(message_frame(PLAIN, &other, b"hi"), b"\x81\x02hi");
    }

    #[test]
    fn the_meta_protocol_puts_the_id_and_the_type_before_the_body() {
        let frame = message_frame(NCHAN, &message(b"text/plain"), b"hi");
        assert_eq!(&frame[2..], b"id: 1700000000:3\ncontent-type: text/plain\n\nhi");
        let frame = message_frame(NCHAN, &message(b""), b"hi");
        assert_eq!(&frame[2..], b"id: 1700000000:3\n\nhi");
        for bad in [&b"a\nid: 9:9"[..], b"a\r", b"\xff"] {
            let frame = message_frame(NCHAN, &message(bad), b"hi");
            assert_eq!(&frame[2..], b"id: 1700000000:3\n\nhi");
        }
    }

    #[test]
    fn what_shrinks_is_compressed() {
        let form = Form { deflate: Some(Deflate { window_bits: 15 }), ..PLAIN };
        let long = vec![b'a'; 1000];
        let frame = message_frame(form, &message(b""), &long);
        assert_eq!(message_frame(form, &message(b""), &vec![b'a'; (1 << 20) + 1])[0], 0x81);
        assert_eq!(frame[0], 0xc1);
        assert_eq!(inflate(&frame[2..], 1000).as_deref(), Ok(&long[..]));
        assert_eq!(message_frame(form, &message(b""), b"short")[0], 0x81);
        // Each byte once: nothing repeats.
        let noise: Vec<u8> = (1..=100_u16).map(|n| (n * 37 % 101) as u8).collect();
        let frame = message_frame(form, &message(b""), &noise);
        assert_eq!((frame[0], &frame[2..]), (0x81, &noise[..]));
    }
}
