//! The message that is published: a marker, numbers in hex, padding, an end byte.
//!
//! `PL` run(4) channel(5) sequence(6) timestamp-ns(12) `x`… `Z`
//!
//! Only letters and digits, so it passes unchanged through URLs, JSON, SSE and templates.

use crate::bytes::find_byte;

/// The shortest message, in bytes: without padding.
pub const MIN_SIZE: usize = 2 + 4 + 5 + 6 + 12 + 1;
/// Channel numbers have 5 digits.
pub const MAX_CHANNELS: u64 = 1 << 20;
/// Sequence numbers have 6 digits.
pub const MAX_SEQ: u64 = 1 << 24;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// What a message says; `ts` is CLOCK_MONOTONIC in nanoseconds, cut to 48 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msg {
    pub chan: u32,
    pub seq: u32,
    pub ts: u64,
}

/// Builds and recognises the messages of one run.
pub struct Codec {
    marker: [u8; 6],
    size: usize,
    pad: Vec<u8>,
}

/// What a scan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Msg(Msg),
    /// A marker without a well-formed message behind it.
    Corrupt,
}

fn put_hex(out: &mut Vec<u8>, v: u64, digits: u32) {
    for i in (0..digits).rev() {
        out.push(HEX[(v >> (4 * i)) as usize & 15]);
    }
}

fn get_hex(s: &[u8]) -> Option<u64> {
    let mut v = 0u64;
    for &b in s {
        let d = match b {
            b'0'..=b'9' => b - b'0',
            b'a'..=b'f' => b - b'a' + 10,
            _ => return None,
        };
        v = v << 4 | d as u64;
    }
    Some(v)
}

impl Codec {
    /// For the messages of one run, all `size` bytes long (at least [`MIN_SIZE`]).
    pub fn new(run: u16, size: usize) -> Codec {
        assert!(size >= MIN_SIZE);
        let mut digits = Vec::new();
        put_hex(&mut digits, run as u64, 4);
        let mut marker = *b"PL0000";
        marker[2..].copy_from_slice(&digits);
        let mut pad = vec![b'x'; size - MIN_SIZE];
        pad.push(b'Z');
        Codec { marker, size, pad }
    }

    /// Appends the message.
    pub fn encode(&self, m: Msg, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.marker);
        put_hex(out, m.chan as u64, 5);
        put_hex(out, m.seq as u64, 6);
        put_hex(out, m.ts & 0xffff_ffff_ffff, 12);
        out.extend_from_slice(&self.pad);
    }

    /// `s` starts with the marker and holds at least `size` bytes.
    fn decode(&self, s: &[u8]) -> Option<Msg> {
        let s = &s[..self.size];
        if s[29..] != self.pad[..] {
            return None;
        }
        Some(Msg {
            chan: get_hex(&s[6..11])? as u32,
            seq: get_hex(&s[11..17])? as u32,
            ts: get_hex(&s[17..29])?,
        })
    }

    /// Finds the next marker (whole, or cut off by the end of `hay`).
    fn find_marker(&self, hay: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(p) = find_byte(&hay[at..], b'P') {
            let p = at + p;
            let n = (hay.len() - p).min(self.marker.len());
            if hay[p..p + n] == self.marker[..n] {
                return Some(p);
            }
            at = p + 1;
        }
        None
    }

    /// Reports every message in `data`; returns how many bytes at the end may belong to a message
    /// that is not complete yet.
    #[inline]
    pub fn scan(&self, data: &[u8], mut found: impl FnMut(Found)) -> usize {
        let mut at = 0;
        while let Some(p) = self.find_marker(&data[at..]) {
            let p = at + p;
            if data.len() - p < self.size {
                return data.len() - p;
            }
            match self.decode(&data[p..]) {
                Some(m) => {
                    found(Found::Msg(m));
                    at = p + self.size;
                }
                None => {
                    found(Found::Corrupt);
                    at = p + self.marker.len();
                }
            }
        }
        0
    }

    /// Scans one delimited unit (an SSE event, a WebSocket message): a message cut off is corrupt.
    #[inline]
    pub fn scan_unit(&self, data: &[u8], mut found: impl FnMut(Found)) {
        if self.scan(data, &mut found) >= self.marker.len() {
            found(Found::Corrupt);
        }
    }
}

/// Scans an undelimited byte stream (HTTP body) across reads.
#[derive(Default)]
pub struct StreamScan {
    carry: Vec<u8>,
}

impl StreamScan {
    /// Takes the next piece of the stream, reports what is complete.
    pub fn feed(&mut self, codec: &Codec, data: &[u8], mut found: impl FnMut(Found)) {
        if self.carry.is_empty() {
            let rest = codec.scan(data, &mut found);
            self.carry.extend_from_slice(&data[data.len() - rest..]);
        } else {
            self.carry.extend_from_slice(data);
            let rest = codec.scan(&self.carry, &mut found);
            let done = self.carry.len() - rest;
            self.carry.drain(..done);
            if self.carry.is_empty() && self.carry.capacity() > 4096 {
                self.carry = Vec::new();
            }
        }
    }

    /// At the end of a body: true if a message was cut off.
    pub fn finish(&mut self, codec: &Codec) -> bool {
        let cut = self.carry.len() >= codec.marker.len();
        self.carry.clear();
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn msg(seq: u32) -> Msg {
        Msg { chan: 0xabcde, seq, ts: 0x123456789abc }
    }

    #[test]
    fn round_trip_and_size() {
        for size in [MIN_SIZE, MIN_SIZE + 1, 64, 1000] {
            let c = Codec::new(0xbeef, size);
            let mut v = Vec::new();
            c.encode(msg(7), &mut v);
            assert_eq!(v.len(), size);
            let mut got = Vec::new();
            assert_eq!(c.scan(&v, |f| got.push(f)), 0);
            assert_eq!(got, [Found::Msg(msg(7))]);
        }
    }

    #[test]
    fn stream_in_any_pieces() {
        let c = Codec::new(1, 50);
        let mut v = b"PPLPL000 {\"id\":1,\"text\":\"".to_vec();
        for s in 0..4 {
            c.encode(msg(s), &mut v);
            v.extend_from_slice(b"\"}\r\nP");
        }
        for step in 1..v.len() {
            let mut s = StreamScan::default();
            let mut got = Vec::new();
            for p in v.chunks(step) {
                s.feed(&c, p, |f| got.push(f));
            }
            assert_eq!(got, (0..4).map(|s| Found::Msg(msg(s))).collect::<Vec<_>>(), "{step}");
            assert!(!s.finish(&c));
        }
    }

    #[test]
    fn other_runs_are_ignored_and_damage_is_seen() {
        let c = Codec::new(1, 64);
        let mut v = Vec::new();
        Codec::new(2, 64).encode(msg(1), &mut v);
        c.scan_unit(&v, |f| panic!("{f:?}"));
        let mut v = Vec::new();
        c.encode(msg(1), &mut v);
        for i in 6..64 {
            let mut w = v.clone();
            w[i] = b'!';
            let mut got = Vec::new();
            c.scan_unit(&w, |f| got.push(f));
            assert_eq!(got, [Found::Corrupt], "byte {i}");
        }
        let mut got = Vec::new();
        c.scan_unit(&v[..63], |f| got.push(f));
        assert_eq!(got, [Found::Corrupt]);
        let mut s = StreamScan::default();
        s.feed(&c, &v[..63], |f| panic!("{f:?}"));
        assert!(s.finish(&c));
    }
}
