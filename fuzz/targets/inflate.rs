//! Compressed messages: a first byte for the size that is allowed, and the data.
#![no_main]

use comet::websocket::{compress, inflate, InflateError};
use fuzz::Plan;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut plan = Plan::new(data);
    let max = plan.square() as usize;
    let window_bits = 9 + plan.below(7) as u8;
    let payload = plan.rest();
    match inflate(payload, max) {
        Ok(message) => {
            assert!(message.len() <= max);
            assert!(message.capacity() <= max + 1, "{} of {max}", message.capacity());
            assert_eq!(inflate(payload, message.len()).as_ref(), Ok(&message));
            if let Some(less) = message.len().checked_sub(1) {
                assert_eq!(inflate(payload, less), Err(InflateError::TooLarge));
            }
        }
        Err(InflateError::TooLarge) => assert!(max < 1032 * (payload.len() + 9)),
        Err(InflateError::Invalid | InflateError::NoMemory) => {}
    }
    if let Some(compressed) = compress(payload, window_bits) {
        assert!(compressed.len() < payload.len());
        assert_eq!(inflate(&compressed, payload.len()).as_deref(), Ok(payload));
    }
});
