//! permessage-deflate (RFC 7692): each message for itself, without a window that outlives it.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use thiserror::Error;

/// What the end of a flushed block looks like: left out at the sender's, added at the receiver's (sections 7.2.1, 7.2.2).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// A last block, empty: it ends the data where the message ends, and not if the message breaks off inside a block.
const LAST: [u8; 5] = [0x01, 0x00, 0x00, 0xff, 0xff];
/// How often a message may end the data.
const MAX_ENDS: u32 = 64;
/// How much room for output is made at first; then it doubles.
const STEP: usize = 8 << 10;

/// Why a message could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InflateError {
    /// It has more bytes than allowed.
    #[error("the message is too large")]
    TooLarge,
    /// There is no memory for it.
    #[error("there is no memory for the message")]
    NoMemory,
    /// It is no deflate data.
    #[error("the message is not compressed as it says")]
    Invalid,
}

/// Compresses a message, with a window of `2^window_bits` bytes (9 to 15). Nothing if that would not make it smaller.
pub fn compress(payload: &[u8], window_bits: u8) -> Option<Vec<u8>> {
    let mut deflate =
        Compress::new_with_window_bits(Compression::default(), false, window_bits.clamp(9, 15));
    let mut out = Vec::with_capacity(payload.len() + TAIL.len());
    deflate.compress_vec(payload, &mut out, FlushCompress::Sync).ok()?;
    // Room that is used up says that there was more to come.
    let is_complete = deflate.total_in() == payload.len() as u64 && out.len() < out.capacity();
    let len = out.strip_suffix(&TAIL)?.len();
    out.truncate(len);
    (is_complete && len < payload.len()).then_some(out)
}

/// Reads a compressed message of at most `max` bytes.
///
/// # Errors
///
/// [`InflateError`]; room for no more than `max` bytes and one is made, whatever the data promise.
pub fn inflate(payload: &[u8], max: usize) -> Result<Vec<u8>, InflateError> {
    let mut out = Vec::new();
    let mut inflate = Decompress::new(false);
    let (mut is_complete, mut ends) = (false, 0);
    for mut input in [payload, &TAIL, &LAST] {
        loop {
            if out.len() == out.capacity() {
                // A vector left to itself doubles its room beyond what is allowed.
                let allowed = max.saturating_add(1).saturating_sub(out.len());
                out.try_reserve_exact(out.len().max(STEP).min(allowed).max(1))
                    .map_err(|_| InflateError::NoMemory)?;
            }
            let before = inflate.total_in();
            let status = inflate
                .decompress_vec(input, &mut out, FlushDecompress::Sync)
                .map_err(|_| InflateError::Invalid)?;
            let used = usize::try_from(inflate.total_in() - before).unwrap_or(usize::MAX);
            input = input.get(used..).unwrap_or_default();
            if out.len() > max {
                return Err(InflateError::TooLarge);
            }
            is_complete = status == Status::StreamEnd;
            if is_complete {
                // A sender may end the data for good, and what follows begins anew (section 7.2.3.4). To begin costs more
                // than the two bytes that an end takes.
                ends += 1;
                if ends > MAX_ENDS {
                    return Err(InflateError::Invalid);
                }
                inflate.reset(false);
            }
            // Room that is left says that there is no more to come.
            if input.is_empty() && out.len() < out.capacity() {
                break;
            }
        }
    }
    is_complete.then_some(out).ok_or(InflateError::Invalid)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    /// Bytes without a pattern.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        for example in [
            // Section 7.2.3.1: one block.
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            // 7.2.3.3: a block without compression.
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            // 7.2.3.4: a block that says that it is the last one.
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            // 7.2.3.5: two blocks.
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ] {
            assert_eq!(inflate(example, 5).as_deref(), Ok(&b"Hello"[..]));
            assert_eq!(inflate(example, 4), Err(InflateError::TooLarge));
        }
        // 7.2.3.6: an empty message.
        assert_eq!(inflate(&[0x00], 0).as_deref(), Ok(&b""[..]));
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes long in Miri")]
    fn messages_come_out_as_they_went_in_whatever_the_window() {
        let text: Vec<u8> =
            (0..60_000_u32).map(|n| b"abcdefgh"[(n * n / 7) as usize % 8]).collect();
        for bits in 9..=15 {
            let small = compress(&text, bits).unwrap();
            assert!(small.len() < text.len() / 2);
            assert_eq!(inflate(&small, text.len()).as_deref(), Ok(&text[..]));
        }
    }

    #[test]
    fn what_does_not_shrink_is_left_alone() {
        assert_eq!(compress(b"", 15), None);
        assert_eq!(compress(b"abc", 15), None);
    }

    #[test]
    fn a_window_is_kept_to() {
        // What repeats after 700 bytes can be pointed to from a window of 1024 bytes, and not from one of 512.
        let part = noise(700);
        let twice = [&part[..], &part[..]].concat();
        let (narrow, wide) = (compress(&twice, 9), compress(&twice, 11).unwrap());
        assert!(wide.len() < 800);
        assert_eq!(narrow, None);
    }

    #[test]
    fn data_that_end_all_the_time_are_refused() {
        // An empty block that says that it is the last one.
        let few = [0x03, 0x00].repeat(50);
        assert_eq!(inflate(&[&few[..], &[0]].concat(), 10).as_deref(), Ok(&b""[..]));
        assert_eq!(inflate(&[0x03, 0x00].repeat(1000), 10), Err(InflateError::Invalid));
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes long in Miri")]
    fn a_bomb_is_noticed_before_it_goes_off() {
        let bomb = compress(&vec![0; 10 << 20], 15).unwrap();
        assert!(bomb.len() < 11_000);
        assert_eq!(inflate(&bomb, 1000), Err(InflateError::TooLarge));
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes long in Miri")]
    fn room_is_made_for_what_is_allowed_and_not_for_more() {
        let text = vec![b'x'; 100_000];
        let small = compress(&text, 15).unwrap();
        for max in [100_000, 100_001, 130_000, usize::MAX] {
            let message = inflate(&small, max).unwrap();
            assert_eq!(message, text);
            assert!(message.capacity() <= max.saturating_add(1).min(2 * text.len()), "{max}");
        }
        assert!(inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 5).unwrap().capacity() <= 6);
    }

    #[test]
    fn what_is_not_compressed_is_told() {
        for bad in [&b"Hello, world"[..], &[0xff; 9], &[0x05, 0x00]] {
            assert_eq!(inflate(bad, 1000), Err(InflateError::Invalid), "{bad:?}");
        }
    }
}
