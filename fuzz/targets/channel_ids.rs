//! Which channels a request is about: a group, a delimiter, and values that name several.
#![no_main]

use comet::channel_id::channel_ids;
use comet::many::MAX_CHANNELS;
use fuzz::lines;
use libfuzzer_sys::fuzz_target;

fn naive_split<'a>(mut value: &'a [u8], delimiter: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let mut at = 0;
    while !delimiter.is_empty() && at < value.len() {
        if value[at..].starts_with(delimiter) {
            parts.push(&value[..at]);
            value = &value[at + delimiter.len()..];
            at = 0;
        } else {
            at += 1;
        }
    }
    parts.push(value);
    parts
}

fuzz_target!(|data: &[u8]| {
    let [max, group, delimiter, one, other] = lines(data);
    let max_len = 1 + usize::from(max.and_then(<[u8]>::first).copied().unwrap_or(0));
    let (group, delimiter) = (group.unwrap_or_default(), delimiter.unwrap_or_default());
    let values: Vec<&[u8]> = one.into_iter().chain(other).collect();

    let mut expected: Vec<(&[u8], bool)> = Vec::new();
    for part in values.iter().flat_map(|value| naive_split(value, delimiter)) {
        let kept = &part[..part.len().min(max_len)];
        if !part.is_empty() && expected.iter().all(|(known, _)| *known != kept) {
            expected.push((kept, kept.len() < part.len()));
        }
    }
    match channel_ids(group, values, delimiter, max_len) {
        Ok(ids) => {
            let found: Vec<_> = ids.iter().map(|id| (id.name(), id.is_truncated())).collect();
            assert_eq!(found, expected);
            for id in &ids {
                assert_eq!(id.as_bytes(), [group, b"/", id.name()].concat());
            }
        }
        Err(error) => {
            assert!(expected.len() > MAX_CHANNELS);
            assert_eq!(error.reply().status, 403);
        }
    }
});
