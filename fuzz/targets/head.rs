//! Request heads as parked requests keep them, packed.
#![no_main]

use comet::wire::head::{code_of, decode, pack_field, pack_line, unpack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // Whatever the bytes are, they do not grow beyond what a byte can mean.
    let mut unpacked = Vec::new();
    unpack(data, &mut unpacked);
    assert!(unpacked.len() <= 1 + 128 * data.len());

    let (mut packed, mut expected) = (Vec::new(), Vec::new());
    for line in data.split(|byte| *byte == b'\n') {
        expected.extend_from_slice(line);
        expected.push(b'\n');
        match line.iter().position(|byte| *byte == b':') {
            Some(at) => {
                let (name, value) = (&line[..at], &line[at + 1..]);
                pack_field(name, value, &mut packed);
                if let Some(code) = code_of(name, value) {
                    let (known, known_value) = decode(code).unwrap();
                    assert_eq!(known.as_bytes(), name);
                    assert_eq!(known_value.unwrap().as_bytes(), value);
                }
            }
            None => pack_line(line, &mut packed),
        }
    }
    expected.push(b'\n');
    let mut unpacked = Vec::new();
    unpack(&packed, &mut unpacked);
    assert_eq!(unpacked, expected);
});
