//! The chunked coding of HTTP/1.1 (RFC 9112, section 7.1).

use std::io::Write;

/// What follows the last chunk with content: the last chunk and an empty trailer section.
pub const LAST: &[u8] = b"0\r\n\r\n";

/// A payload as one chunk, made once for all clients: those of HTTP/1.1 get the chunk, those whose connection frames the
/// content in its own way get the payload.
///
/// An empty payload makes an empty chunk, no bytes at all: a chunk of size 0 is the last one and would end the reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// The size line, the payload and CR LF; or nothing.
    bytes: Box<[u8]>,
    /// The length of the size line with its CR LF.
    before: usize,
}

/// What ends the size line, and the payload.
const CRLF: &[u8] = b"\r\n";

impl Chunk {
    /// Makes one chunk of a payload.
    pub fn new(payload: &[u8]) -> Self {
        let Some(log) = payload.len().checked_ilog(16) else {
            return Chunk::default();
        };
        let before = log as usize + 1 + CRLF.len();
        // Exactly as much as needed, so that the boxed slice is this allocation and no copy of it.
        let mut bytes = Vec::with_capacity(before + payload.len() + CRLF.len());
        // A `Vec` takes whatever is written.
        let _ = write!(bytes, "{:X}\r\n", payload.len());
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(CRLF);
        Chunk { bytes: bytes.into_boxed_slice(), before }
    }

    /// The chunk: size line, payload, CR LF. Empty if the payload is.
    pub fn as_chunk(&self) -> &[u8] {
        &self.bytes
    }

    /// The payload alone.
    pub fn payload(&self) -> &[u8] {
        let end = self.bytes.len().saturating_sub(CRLF.len());
        self.bytes.get(self.before..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_its_size_in_hexadecimal_and_its_payload() {
        assert_eq!(Chunk::new(b"a").as_chunk(), b"1\r\na\r\n");
        assert_eq!(Chunk::new(b"fifteen bytes..").as_chunk(), b"F\r\nfifteen bytes..\r\n");
        assert_eq!(Chunk::new(b"sixteen bytes...").as_chunk(), b"10\r\nsixteen bytes...\r\n");
        assert_eq!(Chunk::new(b"\r\n").as_chunk(), b"2\r\n\r\n\r\n");
    }

    #[test]
    fn the_payload_is_what_went_in_at_every_length_of_the_size_line() {
        for len in [1, 2, 15, 16, 17, 255, 256, 257, 4095, 4096, 65_535, 65_536, 1 << 20] {
            let payload = vec![b'x'; len];
            let chunk = Chunk::new(&payload);
            assert_eq!(chunk.payload(), payload);
            assert!(chunk.as_chunk().starts_with(format!("{len:X}\r\nx").as_bytes()));
            assert!(chunk.as_chunk().ends_with(b"x\r\n"));
        }
    }

    #[test]
    fn an_empty_payload_is_not_the_last_chunk() {
        let chunk = Chunk::new(b"");
        assert_eq!((chunk.as_chunk(), chunk.payload()), (&b""[..], &b""[..]));
    }
}
