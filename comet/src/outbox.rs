//! What a stream's client could not take at once: at most one piece of the log's, and what was said besides.
//!
//! A client that does not read has no messages of its own (invariant I1): nothing is rendered for it before everything in
//! here has gone.

use std::rc::Rc;

use crate::wire::chunk::Chunk;

/// How far bytes have gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// All of them have been taken.
    All,
    /// The rest is kept.
    Partly,
    /// None will ever be: the connection is broken.
    Broken,
}

/// What is kept for one client.
#[derive(Debug, Default)]
pub struct Outbox {
    /// What is being sent, and how many of its bytes have gone.
    current: Option<(Piece, usize)>,
    /// What is for this client alone, and comes after that.
    later: Vec<u8>,
}

/// What is sent as a whole. It stays where it is in memory: TLS wants to be asked again with the same bytes in the same place.
#[derive(Debug)]
enum Piece {
    /// What other clients get too.
    Shared(Frames),
    /// What is for this client alone.
    Own(Vec<u8>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Shared(frames) => frames.bytes(),
            Piece::Own(bytes) => bytes,
        }
    }
}

/// Frames, and whether they are sent as a chunk of HTTP/1.1's chunked coding.
#[derive(Clone, Debug)]
pub struct Frames {
    /// The bytes.
    pub chunk: Rc<Chunk>,
    /// Whether with the chunk's size.
    pub coded: bool,
}

impl Frames {
    /// What goes over the connection.
    pub fn bytes(&self) -> &[u8] {
        if self.coded {
            self.chunk.as_chunk()
        } else {
            self.chunk.payload()
        }
    }
}

impl Outbox {
    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.current.is_none() && self.later.is_empty()
    }

    /// Keeps frames of which `done` bytes have gone. There must be nothing before them.
    pub fn keep(&mut self, frames: Frames, done: usize) {
        debug_assert!(self.is_empty());
        self.current = Some((Piece::Shared(frames), done));
    }

    /// Adds bytes for this client alone.
    pub fn add(&mut self, bytes: &[u8]) {
        self.later.extend(bytes);
    }

    /// Sends what is kept. `write` takes bytes and returns how many have gone (0 for none at the moment), or nothing if the
    /// connection is broken.
    pub fn flush(&mut self, mut write: impl FnMut(&[u8]) -> Option<usize>) -> Sent {
        loop {
            if self.current.is_none() {
                if self.later.is_empty() {
                    return Sent::All;
                }
                self.current = Some((Piece::Own(std::mem::take(&mut self.later)), 0));
            }
            let Some((piece, done)) = &mut self.current else { return Sent::All };
            let rest = piece.bytes().get(*done..).unwrap_or_default();
            match write(rest) {
                None => return Sent::Broken,
                Some(len) if len < rest.len() => {
                    *done += len;
                    return Sent::Partly;
                }
                Some(_) => self.current = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn frames(coded: bool) -> Frames {
        Frames { chunk: Rc::new(Chunk::new(b"hello")), coded }
    }

    /// A connection that takes `room` bytes at a time.
    fn flush(outbox: &mut Outbox, room: usize, seen: &mut Vec<u8>) -> Sent {
        let mut left = room;
        outbox.flush(|bytes| {
            let len = bytes.len().min(left);
            left -= len;
            seen.extend(&bytes[..len]);
            Some(len)
        })
    }

    #[test]
    fn everything_goes_in_order_however_little_is_taken_at_a_time() {
        for coded in [false, true] {
            for room in 1..20 {
                let mut outbox = Outbox::default();
                outbox.keep(frames(coded), 2);
                outbox.add(b"ping");
                outbox.add(b"end");
                let mut seen = Vec::new();
                while flush(&mut outbox, room, &mut seen) == Sent::Partly {
                    assert!(!outbox.is_empty());
                }
                assert!(outbox.is_empty());
                let expected = [&frames(coded).bytes()[2..], b"pingend"].concat();
                assert_eq!(seen, expected);
            }
        }
    }

    #[test]
    fn what_was_refused_is_offered_again_from_the_same_place() {
        let mut outbox = Outbox::default();
        outbox.add(b"pong");
        let mut offered = Vec::new();
        for _ in 0..20 {
            let mut refuse = |bytes: &[u8]| {
                offered.push((bytes.as_ptr(), bytes.len()));
                Some(0)
            };
            assert_eq!(outbox.flush(&mut refuse), Sent::Partly);
            outbox.add(&[b'x'; 100]);
        }
        offered.dedup();
        assert_eq!(offered.len(), 1);
        let mut seen = Vec::new();
        assert_eq!(flush(&mut outbox, usize::MAX, &mut seen), Sent::All);
        assert_eq!(seen.len(), 4 + 20 * 100);
    }

    #[test]
    fn a_connection_that_takes_nothing_leaves_everything() {
        let mut outbox = Outbox::default();
        assert_eq!(flush(&mut outbox, 0, &mut Vec::new()), Sent::All);
        outbox.add(b"x");
        assert_eq!(flush(&mut outbox, 0, &mut Vec::new()), Sent::Partly);
        assert_eq!(outbox.flush(|_| None), Sent::Broken);
        assert!(!outbox.is_empty());
    }
}
