//! What a stream's client could not take at once: all of it goes, in order, however little is taken at a time.
#![no_main]

use std::rc::Rc;

use comet::outbox::{Frames, Outbox, Sent};
use comet::wire::chunk::{Chunk, LAST};
use fuzz::Plan;
use libfuzzer_sys::fuzz_target;

/// Reads chunks back (RFC 9112, section 7.1).
fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").expect("a size");
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        rest = &rest[end + 2..];
        content.extend(&rest[..size]);
        assert_eq!(&rest[size..size + 2], b"\r\n");
        rest = &rest[size + 2..];
        if size == 0 {
            assert!(rest.is_empty());
            return content;
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut plan = Plan::new(data);
    let coded = plan.flag();
    let mut outbox = Outbox::default();
    let (mut sent, mut expected, mut content) =
        (Vec::<u8>::new(), Vec::<u8>::new(), Vec::<u8>::new());
    let mut flush = |outbox: &mut Outbox, room: usize, expected: &[u8]| {
        let mut left = room;
        let result = outbox.flush(|bytes| {
            let len = bytes.len().min(left);
            left -= len;
            sent.extend(&bytes[..len]);
            Some(len)
        });
        assert_eq!(result == Sent::All, outbox.is_empty());
        assert_eq!(sent, &expected[..sent.len()]);
        if result == Sent::All {
            assert_eq!(sent.len(), expected.len());
        }
    };
    while !plan.is_over() {
        match plan.letter() {
            b'k' if outbox.is_empty() => {
                let len = plan.square() as usize / 4;
                let chunk = Rc::new(Chunk::new(plan.bytes(len)));
                content.extend(chunk.payload());
                let frames = Frames { chunk, coded };
                let done = plan.below(frames.bytes().len() + 1);
                expected.extend(frames.bytes());
                flush(&mut outbox, 0, &expected[..expected.len() - frames.bytes().len()]);
                // What has gone at once is not in the outbox.
                let gone = frames.bytes()[..done].to_vec();
                let mut direct = Outbox::default();
                direct.add(&gone);
                flush(
                    &mut direct,
                    usize::MAX,
                    &expected[..expected.len() - frames.bytes().len() + done],
                );
                outbox.keep(frames, done);
            }
            b'a' => {
                let len = plan.below(40);
                let chunk = Chunk::new(plan.bytes(len));
                content.extend(chunk.payload());
                let bytes = if coded { chunk.as_chunk() } else { chunk.payload() };
                expected.extend(bytes);
                outbox.add(bytes);
            }
            b'f' => {
                let room = plan.square() as usize / 4;
                flush(&mut outbox, room, &expected);
            }
            b'b' => {
                let mut broken = Outbox::default();
                broken.add(b"x");
                assert_eq!(broken.flush(|_| None), Sent::Broken);
            }
            _ => {}
        }
    }
    if coded {
        expected.extend(LAST);
        outbox.add(LAST);
    }
    flush(&mut outbox, usize::MAX, &expected);
    assert_eq!(if coded { unchunk(&expected) } else { expected }, content);
});
