//! The server's frames: never masked, never in fragments (RFC 6455, section 5.2).

/// What a frame is (RFC 6455, section 11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// More of a message.
    Continuation,
    /// A message in UTF-8.
    Text,
    /// A message of any bytes.
    Binary,
    /// The end.
    Close,
    /// A question whether the other side is there.
    Ping,
    /// The answer.
    Pong,
}

impl Opcode {
    /// The opcode with this number, unless it is reserved.
    pub(super) fn of(number: u8) -> Option<Self> {
        Some(match number {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return None,
        })
    }

    fn number(self) -> u8 {
        match self {
            Opcode::Continuation => 0x0,
            Opcode::Text => 0x1,
            Opcode::Binary => 0x2,
            Opcode::Close => 0x8,
            Opcode::Ping => 0x9,
            Opcode::Pong => 0xa,
        }
    }

    /// Whether a frame of this kind may come in the middle of a message, and must be small.
    pub(super) fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// Bytes that a control frame's payload may have (RFC 6455, section 5.5).
pub(super) const MAX_CONTROL: usize = 125;
/// The first bit of a frame: it is the last of its message.
pub(super) const FIN: u8 = 0x80;
/// The second one: the message is compressed (RFC 7692, section 6).
pub(super) const RSV1: u8 = 0x40;

/// A frame with a whole message or a control frame. `compressed` says that the payload is.
pub fn encode(opcode: Opcode, compressed: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame.push(FIN | if compressed { RSV1 } else { 0 } | opcode.number());
    match payload.len() {
        len @ 0..=125 => frame.push(len as u8),
        len @ 126..=0xffff => {
            frame.push(126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// A close frame. A reason that is too long is cut.
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(MAX_CONTROL - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = reason.get(..end).unwrap_or_default();
    encode(Opcode::Close, false, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// A close frame that says nothing: the answer to one.
pub fn close_without_code() -> Vec<u8> {
    encode(Opcode::Close, false, b"")
}

/// A question whether the client is there.
pub fn ping(payload: &[u8]) -> Vec<u8> {
    encode(Opcode::Ping, false, payload)
}

/// The answer to such a question, with its payload.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    encode(Opcode::Pong, false, payload)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn lengths_take_as_few_bytes_as_possible() {
        for (len, head) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = encode(Opcode::Binary, false, &vec![7; len]);
            assert_eq!(&frame[..head.len()], head);
            assert_eq!(frame.len(), head.len() + len);
        }
    }

    #[test]
    fn control_frames() {
        assert_eq!(ping(b"x"), b"\x89\x01x");
        assert_eq!(pong(b"x"), b"\x8a\x01x");
        assert_eq!(close(1000, "bye"), b"\x88\x05\x03\xe8bye");
        assert_eq!(close_without_code(), b"\x88\x00");
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let frame = close(1000, &"ä".repeat(70));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
