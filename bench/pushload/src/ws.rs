//! WebSocket (RFC 6455), the client's side: reads server frames, writes masked control frames.

/// The nonce and the answer of RFC 6455 section 1.3: one fixed pair serves every handshake.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The `Sec-WebSocket-Accept` that belongs to [`KEY`] (RFC 6455, section 4.2.2).
pub const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Opcodes (RFC 6455, section 5.2).
pub const OP_TEXT: u8 = 1;
/// A binary message.
pub const OP_BINARY: u8 = 2;
/// The end.
pub const OP_CLOSE: u8 = 8;
/// A ping, to be answered with its payload.
pub const OP_PING: u8 = 9;
/// The answer to a ping.
pub const OP_PONG: u8 = 10;

const MAX_MESSAGE: u64 = 64 << 20;

/// What is wrong with a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum WsError {
    Reserved,
    Masked,
    BadOpcode,
    BadControl,
    BadFragment,
    TooLong,
}

/// Reads a server's frames from any pieces of the stream (RFC 6455, section 5).
#[derive(Default)]
pub struct WsParser {
    carry: Vec<u8>,
    /// Payload of a fragmented message so far, and its opcode (0: none).
    frag: Vec<u8>,
    frag_op: u8,
}

impl WsParser {
    /// Calls `message(opcode, payload)` for every complete data message and control frame.
    pub fn feed(
        &mut self,
        input: &[u8],
        mut message: impl FnMut(u8, &[u8]),
    ) -> Result<(), WsError> {
        if self.carry.is_empty() {
            let used = self.frames(input, &mut message)?;
            self.carry.extend_from_slice(&input[used..]);
        } else {
            let mut buf = std::mem::take(&mut self.carry);
            buf.extend_from_slice(input);
            let used = self.frames(&buf, &mut message)?;
            if used < buf.len() {
                buf.drain(..used);
                self.carry = buf;
            }
        }
        Ok(())
    }

    fn frames(
        &mut self,
        data: &[u8],
        message: &mut impl FnMut(u8, &[u8]),
    ) -> Result<usize, WsError> {
        let mut at = 0;
        while let Some((fin, op, head, len)) = frame_head(&data[at..])? {
            if data.len() - at - head < len {
                break;
            }
            let payload = &data[at + head..at + head + len];
            at += head + len;
            if op >= 8 {
                message(op, payload);
            } else if op != 0 {
                if self.frag_op != 0 {
                    return Err(WsError::BadFragment);
                }
                if fin {
                    message(op, payload);
                } else {
                    self.frag_op = op;
                    self.frag.extend_from_slice(payload);
                }
            } else {
                if self.frag_op == 0 {
                    return Err(WsError::BadFragment);
                }
                if self.frag.len() as u64 + len as u64 > MAX_MESSAGE {
                    return Err(WsError::TooLong);
                }
                self.frag.extend_from_slice(payload);
                if fin {
                    let whole = std::mem::take(&mut self.frag);
                    message(std::mem::take(&mut self.frag_op), &whole);
                }
            }
        }
        Ok(at)
    }
}

/// (fin, opcode, header length, payload length), None if the header is not complete.
fn frame_head(d: &[u8]) -> Result<Option<(bool, u8, usize, usize)>, WsError> {
    if d.len() < 2 {
        return Ok(None);
    }
    let (fin, op) = (d[0] & 0x80 != 0, d[0] & 15);
    if d[0] & 0x70 != 0 {
        return Err(WsError::Reserved);
    }
    if d[1] & 0x80 != 0 {
        return Err(WsError::Masked);
    }
    if !matches!(op, 0..=2 | 8..=10) {
        return Err(WsError::BadOpcode);
    }
    let (head, len) = match d[1] & 0x7f {
        126 if d.len() < 4 => return Ok(None),
        126 => (4, u16::from_be_bytes([d[2], d[3]]) as u64),
        127 if d.len() < 10 => return Ok(None),
        127 => (10, d[2..10].iter().fold(0, |n, &b| n << 8 | b as u64)),
        n => (2, n as u64),
    };
    if op >= 8 && (len > 125 || !fin) {
        return Err(WsError::BadControl);
    }
    if len > MAX_MESSAGE {
        return Err(WsError::TooLong);
    }
    Ok(Some((fin, op, head, len as usize)))
}

/// Appends a masked client frame (payload up to 125 bytes).
pub fn push_client_frame(out: &mut Vec<u8>, op: u8, payload: &[u8]) {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let payload = &payload[..payload.len().min(125)];
    out.push(0x80 | op);
    out.push(0x80 | payload.len() as u8);
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i & 3]));
}

/// Appends the header of an unmasked server frame (used by the floor server).
pub fn push_server_head(out: &mut Vec<u8>, op: u8, len: usize) {
    out.push(0x80 | op);
    if len < 126 {
        out.push(len as u8);
    } else if len <= 0xffff {
        out.push(126);
        out.extend_from_slice(&(len as u16).to_be_bytes());
    } else {
        out.push(127);
        out.extend_from_slice(&(len as u64).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut v = Vec::new();
        push_server_head(&mut v, first & 15, payload.len());
        v[0] = first;
        v.extend_from_slice(payload);
        v
    }

    fn run(wire: &[u8], step: usize) -> Result<Vec<(u8, Vec<u8>)>, WsError> {
        let mut p = WsParser::default();
        let mut got = Vec::new();
        for c in wire.chunks(step) {
            p.feed(c, |op, d| got.push((op, d.to_vec())))?;
        }
        Ok(got)
    }

    #[test]
    fn lengths_in_any_pieces() {
        let big = vec![b'a'; 70_000];
        let mid = vec![b'b'; 300];
        let wire = [
            frame(0x81, b"hello"),
            frame(0x82, &mid),
            frame(0x89, b"ping"),
            frame(0x81, &big),
            frame(0x88, b""),
        ]
        .concat();
        for step in [1, 2, 3, 7, 64, 4096, wire.len()] {
            let got = run(&wire, step).unwrap();
            assert_eq!(got.len(), 5);
            assert_eq!(got[0], (OP_TEXT, b"hello".to_vec()));
            assert_eq!(got[1], (OP_BINARY, mid.clone()));
            assert_eq!(got[2], (OP_PING, b"ping".to_vec()));
            assert_eq!(got[3], (OP_TEXT, big.clone()));
            assert_eq!(got[4], (OP_CLOSE, vec![]));
        }
    }

    #[test]
    fn fragments_with_control_between() {
        let wire = [
            frame(0x01, b"ab"),
            frame(0x8a, b"!"),
            frame(0x00, b"cd"),
            frame(0x80, b"ef"),
            frame(0x81, b"next"),
        ]
        .concat();
        for step in 1..=wire.len() {
            let got = run(&wire, step).unwrap();
            assert_eq!(
                got,
                [
                    (OP_PONG, b"!".to_vec()),
                    (OP_TEXT, b"abcdef".to_vec()),
                    (OP_TEXT, b"next".to_vec())
                ]
            );
        }
    }

    #[test]
    fn errors() {
        let bad = |w: &[u8]| run(w, w.len()).unwrap_err();
        assert_eq!(bad(&[0xc1, 0]), WsError::Reserved);
        assert_eq!(bad(&[0x81, 0x80, 1, 2, 3, 4]), WsError::Masked);
        assert_eq!(bad(&[0x83, 0]), WsError::BadOpcode);
        assert_eq!(bad(&[0x09, 0]), WsError::BadControl);
        assert_eq!(bad(&[0x89, 126, 0, 126]), WsError::BadControl);
        assert_eq!(bad(&[0x80, 0]), WsError::BadFragment);
        assert_eq!(bad(&[0x01, 0, 0x01, 0]), WsError::BadFragment);
        assert_eq!(bad(&[0x82, 127, 1, 0, 0, 0, 0, 0, 0, 0]), WsError::TooLong);
    }

    #[test]
    fn client_frames_are_masked() {
        let mut v = Vec::new();
        push_client_frame(&mut v, OP_PONG, b"Hello");
        assert_eq!(v, [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }
}
