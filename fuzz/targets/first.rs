//! Where a subscriber without a cursor begins.
#![no_main]

use comet::first::first;
use comet::message::Position;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match first(data.split(|byte| *byte == b'\n')) {
        Ok(position) => {
            let text = match position {
                Position::Oldest => "oldest".to_owned(),
                Position::Newest => "newest".to_owned(),
                Position::Nth(place) => place.to_string(),
                Position::Last(count) => format!("-{count}"),
                Position::After(id) => {
                    assert_eq!(id.tag, u32::MAX);
                    format!("@{}", id.time + 1)
                }
                Position::Past(_) | Position::Anew { .. } => panic!("{position:?}"),
            };
            assert_eq!(first([text.as_bytes()]), Ok(position));
        }
        Err(error) => assert_eq!(error.reply().status, 400),
    }
});
